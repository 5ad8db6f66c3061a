"""Objects by key, in a folder or in S3: the one place where cellnet touches storage.

Four methods. `create` writes only if nothing has that key, atomically, and so decides every race; on S3 it
rests on `If-None-Match: *`, which some servers accept and ignore, so that is probed before the first write.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from cellnet.errors import ConfigError, NotFoundError, RegistryError

PROBE_KEY = ".cellnet-probe"


class Store(Protocol):
    """Bytes by key; keys are relative paths with forward slashes."""

    uri: str
    endpoint_url: str | None

    def get(self, key: str) -> bytes:
        """The bytes of a key. Raises NotFoundError."""

    def put(self, key: str, data: bytes) -> None:
        """Write or replace; readers see the old bytes or the new."""

    def create(self, key: str, data: bytes) -> bool:
        """Write if the key is free, and say whether it was."""

    def keys(self, prefix: str) -> Iterator[str]:
        """Every key that starts with the prefix, in order."""


def open_store(uri: str | Path, *, endpoint_url: str | None = None) -> Store:
    """The store at a folder or `s3://bucket/prefix`. Nothing is made or asked until it is used."""
    text = str(uri)
    if text.startswith("s3://"):
        return S3Store(text, endpoint_url=endpoint_url)
    if "://" in text:
        raise ConfigError(f"{text!r} is not a place cellnet knows; give a folder or s3://bucket/prefix")
    if not text:
        raise ConfigError("the place is empty; give a folder or s3://bucket/prefix")
    return FolderStore(Path(text))


class FolderStore:
    """Objects as files below a folder."""

    endpoint_url: str | None = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.uri = str(self.folder)

    def get(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise NotFoundError(f"{self.uri} has no {key}") from error
        except OSError as error:
            raise RegistryError(f"cannot read {key} in {self.uri}: {error.strerror}") from error

    def put(self, key: str, data: bytes) -> None:
        with self._written(key, data) as temporary:
            temporary.replace(self._path(key))

    def create(self, key: str, data: bytes) -> bool:
        if os.path.exists(self._path(key)):  # False, not an error, in a folder that may not be entered
            return False
        with self._written(key, data) as temporary:
            try:
                os.link(temporary, self._path(key))  # atomic, and fails if the name is taken
            except FileExistsError:
                return False
        return True

    def keys(self, prefix: str) -> Iterator[str]:
        start = self._path(prefix.rpartition("/")[0]) if "/" in prefix else self.folder
        found = (
            path.relative_to(self.folder).as_posix()
            for path in start.rglob("*")
            if path.is_file() and not path.name.startswith(".tmp-")
        )
        yield from sorted(key for key in found if key.startswith(prefix))

    def _path(self, key: str) -> Path:
        path = self.folder / key
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise RegistryError(f"the key {key!r} leads out of {self.uri}")
        return path

    @contextlib.contextmanager
    def _written(self, key: str, data: bytes) -> Iterator[Path]:
        """The bytes in a finished temporary file beside their place, which is removed afterwards."""
        temporary = None
        try:
            parent = self._path(key).parent
            parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".tmp-", dir=parent)
            temporary = Path(name)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            yield temporary
        except OSError as error:
            raise RegistryError(f"cannot write {key} in {self.uri}: {error.strerror}") from error
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)


class S3Store:
    """Objects below a prefix of a bucket, through boto3 (its own credential and region chain)."""

    def __init__(self, uri: str, *, endpoint_url: str | None = None) -> None:
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not bucket:
            raise ConfigError(f"{uri!r} names no bucket; write s3://bucket/prefix")
        self.uri = uri.rstrip("/")
        self.bucket = bucket
        self.prefix = prefix.strip("/")
        self.endpoint_url = endpoint_url
        self._client: Any = None
        self._probed = False

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None}  # clients do not travel between processes

    def get(self, key: str) -> bytes:
        with self._translated(f"read {key}"):
            body: bytes = self.client.get_object(Bucket=self.bucket, Key=self._key(key))["Body"].read()
            return body

    def put(self, key: str, data: bytes) -> None:
        with self._translated(f"write {key}"):
            self.client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data)

    def create(self, key: str, data: bytes) -> bool:
        if not self._probed:
            self._probe()
        return self._create(key, data)

    def keys(self, prefix: str) -> Iterator[str]:
        cut = len(self.prefix) + 1 if self.prefix else 0
        with self._translated(f"list {prefix or 'everything'}"):
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._key(prefix))
            for page in pages:
                for item in page.get("Contents", ()):
                    key = item["Key"][cut:]
                    if key != PROBE_KEY and not item["Key"].endswith("/"):  # those are other programs' folder marks
                        yield key

    @property
    def client(self) -> Any:
        """The boto3 client, made at first use."""
        if self._client is None:
            import boto3
            from botocore.config import Config

            retries = {"mode": "standard", "total_max_attempts": 4}
            settings = Config(retries=retries, connect_timeout=5, read_timeout=60)  # type: ignore[arg-type]
            region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
            with self._translated("start"):
                self._client = boto3.Session().client(  # a session each, since making clients is not thread-safe
                    "s3", endpoint_url=self.endpoint_url, config=settings, region_name=region
                )
        return self._client

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _create(self, key: str, data: bytes) -> bool:
        from botocore.exceptions import ClientError

        for _ in range(10):
            with self._translated(f"create {key}"):
                try:
                    self.client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data, IfNoneMatch="*")
                    return True
                except ClientError as error:
                    code = error.response["Error"]["Code"]
                    if code in ("PreconditionFailed", "412"):
                        return False
                    if code not in ("ConditionalRequestConflict", "409"):  # a race in flight: ask again
                        raise
        raise RegistryError(f"{self.uri}: {key} is contended; try again in a moment")

    def _probe(self) -> None:
        """Refuse a server that takes the same new key twice, since it would lose one of two publishers."""
        if self._create(PROBE_KEY, b"") and self._create(PROBE_KEY, b""):
            raise RegistryError(
                f"the server of {self.uri} ignores If-None-Match, so two writers could overwrite each other; "
                "use a folder, or an S3 server that honours conditional writes"
            )
        self._probed = True

    @contextlib.contextmanager
    def _translated(self, action: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        try:
            yield
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in ("NoSuchKey", "404"):
                raise NotFoundError(f"cannot {action} in {self.uri}: there is no such object") from error
            if code == "NoSuchBucket":
                raise NotFoundError(f"{self.uri}: there is no bucket {self.bucket!r}; make it first") from error
            message = error.response["Error"].get("Message", "")
            raise RegistryError(f"cannot {action} in {self.uri}: {code} {message}".strip()) from error
        except NoCredentialsError as error:
            raise ConfigError(
                f"{self.uri}: no S3 credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from error
        except (BotoCoreError, ValueError) as error:
            raise RegistryError(f"cannot {action} in {self.uri}: {error}") from error
