"""Objects below a prefix of a bucket, through boto3.

`create` rests on `If-None-Match: *`, which some servers accept and ignore, and others check before they write, so that
several may be told that they were first. So a server is probed before the first write, and what was found is kept
beside the objects (`cellnet.store.verdict`).

What S3 is asked for how long: 5 s to connect, 20 s for the next byte, four attempts with growing, random pauses
(botocore's standard mode); then UnavailableError."""

import contextlib
import email.utils
import io
import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from cellnet.errors import (
    ConfigError,
    DeniedError,
    IntegrityError,
    NotFoundError,
    RegistryError,
    UnavailableError,
)
from cellnet.store.objects import MOST_BYTES, THREADS, Entry, Store, check_size
from cellnet.store.verdict import PROBE_KEY, check_server

PART_BYTES: Final = 32 * 2**20
"""Objects larger than two of these are put in such parts. What is created is sent in one request, whatever its size:
some servers ignore the condition where an upload in parts is completed."""
ATTEMPTS: Final = 4
CONNECT_S: Final = 5
READ_S: Final = 20
MISSING: Final = ("NoSuchKey", "404")
TAKEN: Final = ("PreconditionFailed", "412")
CONTENDED: Final = ("ConditionalRequestConflict", "OperationAborted", "409")
DENIED: Final = {
    "AccessDenied": "these credentials lack {right} there, or its key",
    "403": "these credentials lack {right} there",
    "AllAccessDisabled": "nobody may read it",
    "InvalidObjectState": "it is archived; restore it first",
}
"""What is said of one object or prefix, and not of all: the codes, and the next step."""
RIGHTS: Final = {
    "read": "s3:GetObject",
    "list": "s3:ListBucket",
    "write": "s3:PutObject",
    "create": "s3:PutObject",
    "remove": "s3:DeleteObject",
}


class S3Store(Store):
    """Objects below a prefix of a bucket, through boto3: its chain gives credentials, region and addressing style."""

    def __init__(self, uri: str, *, endpoint_url: str | None = None) -> None:
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not bucket:
            raise ConfigError(f"{uri!r} names no bucket; write s3://bucket/prefix")
        self.uri = uri.rstrip("/")
        self.bucket = bucket
        self.prefix = prefix.strip("/")
        self.endpoint_url = endpoint_url
        self.encryption = _encryption(os.environ.get("CELLNET_S3_SSE", ""))
        self._client: Any = None
        self._probed = False

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None}  # clients do not travel between processes

    def get(self, key: str, *, limit: int = MOST_BYTES) -> bytes:
        return self._get(key, limit=limit)

    def get_span(self, key: str, start: int, stop: int, *, etag: str = "") -> bytes:
        """The bytes of a key from `start` to before `stop`, at least one.

        Raises as `get`, and IntegrityError where the object has another ETag than the one that is given.
        """
        return self._get(key, limit=stop - start, etag=etag, Range=f"bytes={start}-{stop - 1}")

    def _get(self, key: str, *, limit: int, etag: str = "", **more: str) -> bytes:
        for attempt in range(1, ATTEMPTS + 1):
            with self._translated(f"read {key}"):
                answer = self.client.get_object(Bucket=self.bucket, Key=self._key(key), **more)
                # Not by If-Match: radosgw refuses an ETag as boto3 writes it.
                if etag and etag != _bare(answer.get("ETag", "")):
                    raise IntegrityError(f"{key} in {self.uri} was changed meanwhile; read it again")
                check_size(answer.get("ContentLength", 0), limit, f"{key} in {self.uri}")
                try:
                    data: bytes = answer["Body"].read() if "ContentLength" in answer else answer["Body"].read(limit + 1)
                    check_size(len(data), limit, f"{key} in {self.uri}")
                    return data
                except _broken():  # in the middle of an answer, where botocore does not ask again
                    if attempt == ATTEMPTS:
                        raise
            _pause(attempt)
        raise AssertionError("unreachable")

    def put(self, key: str, data: bytes) -> None:
        with self._translated(f"write {key}"):
            if len(data) <= 2 * PART_BYTES:
                self._send(key, data)
            else:
                self._send_parts(key, data)

    def create(self, key: str, data: bytes) -> bool:
        if not self._probed:
            check_server(self, f"{self.client.meta.endpoint_url}/{self.bucket}", self._create)
            self._probed = True
        return self._create(key, data)

    def delete(self, key: str) -> None:
        with self._translated(f"remove {key}"):
            self.client.delete_object(Bucket=self.bucket, Key=self._key(key))

    def entries(self, prefix: str, *, after: str = "") -> Iterator[Entry]:
        cut = len(self.prefix) + 1 if self.prefix else 0
        for page in self._pages(prefix, **({"StartAfter": self._key(after)} if after else {})):
            for item in page.get("Contents", ()):
                key = item["Key"][cut:]
                # Keys that end in a slash are other programs' folder marks.
                if not key.startswith(PROBE_KEY) and not item["Key"].endswith("/"):
                    yield Entry(key, item["Size"], item["LastModified"].timestamp(), _bare(item.get("ETag", "")))

    def folders(self, prefix: str) -> list[str]:
        prefixes = [
            item["Prefix"] for page in self._pages(prefix, Delimiter="/") for item in page.get("CommonPrefixes", ())
        ]
        return sorted(name.rstrip("/").rpartition("/")[2] for name in prefixes)

    def now(self) -> float:
        with self._translated("list everything"):
            answer = self.client.list_objects_v2(Bucket=self.bucket, Prefix=self._key(PROBE_KEY), MaxKeys=1)
        said = answer["ResponseMetadata"]["HTTPHeaders"].get("date", "")
        try:
            return email.utils.parsedate_to_datetime(said).timestamp()
        except ValueError as error:
            raise RegistryError(
                f"the server of {self.uri} does not say what time it is (Date: {said!r:.80})"
            ) from error

    def sweep(self, prefix: str, before: float) -> int:
        swept = 0
        with self._translated("find unfinished uploads"):
            pages = self.client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self._key(prefix)):
                for upload in page.get("Uploads", ()):
                    if upload["Initiated"].timestamp() < before:
                        with contextlib.suppress(self.client.exceptions.NoSuchUpload):  # somebody else was faster
                            self.client.abort_multipart_upload(
                                Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                            )
                            swept += 1
        return swept

    @property
    def client(self) -> Any:
        """The boto3 client, made at first use."""
        if self._client is None:
            import boto3
            from botocore.config import Config

            settings = Config(
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                connect_timeout=CONNECT_S,
                read_timeout=READ_S,
                max_pool_connections=THREADS,
            )
            with self._translated("start"):
                session = boto3.Session()  # one each, since making clients is not thread-safe
                self._client = session.client(
                    "s3", endpoint_url=self.endpoint_url, config=settings, region_name=region_of(session)
                )
        return self._client

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _pages(self, prefix: str, **more: str) -> Iterator[dict[str, Any]]:
        with self._translated(f"list {prefix or 'everything'}"):
            pages = self.client.get_paginator("list_objects_v2")
            yield from pages.paginate(Bucket=self.bucket, Prefix=self._key(prefix), **more)

    def _send(self, key: str, data: bytes, **condition: str) -> None:
        """Write in one request."""
        self.client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data, **self.encryption, **condition)

    def _send_parts(self, key: str, data: bytes) -> None:
        """Write in parts, visible as a whole or not at all."""
        place = {"Bucket": self.bucket, "Key": self._key(key)}
        for attempt in range(1, 3 * ATTEMPTS):
            upload = place | {"UploadId": self.client.create_multipart_upload(**place, **self.encryption)["UploadId"]}

            def send(number: int, upload: dict[str, Any] = upload) -> dict[str, Any]:
                part = memoryview(data)[(number - 1) * PART_BYTES : number * PART_BYTES]
                sent = self.client.upload_part(**upload, PartNumber=number, Body=io.BytesIO(part))
                return {"PartNumber": number, "ETag": sent["ETag"]}

            try:
                with ThreadPoolExecutor(4) as pool:
                    parts = list(pool.map(send, range(1, -(-len(data) // PART_BYTES) + 1)))
                self.client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
                return
            except self.client.exceptions.NoSuchUpload:
                with contextlib.suppress(NotFoundError):  # completed by an attempt whose answer was lost, or dropped
                    if self.get(key) == data:
                        return
                if attempt == 3 * ATTEMPTS - 1:
                    raise
            except BaseException:
                with contextlib.suppress(Exception):  # `sweep` removes what stays
                    self.client.abort_multipart_upload(**upload)
                raise
            _pause(attempt)

    def _create(self, key: str, data: bytes) -> bool:
        from botocore.exceptions import ClientError

        for attempt in range(1, 3 * ATTEMPTS):
            with self._translated(f"create {key}"):
                try:
                    self._send(key, data, IfNoneMatch="*")
                    return True
                except ClientError as error:
                    code = error.response["Error"]["Code"]
                    # An attempt whose answer was lost may have written it, and this error be of the next one.
                    again = error.response["ResponseMetadata"].get("RetryAttempts", 0) > 0
                    if code in TAKEN:
                        return again and self.get(key) == data
                    if code not in CONTENDED:
                        raise
            _pause(attempt)
        raise UnavailableError(f"{self.uri}: {key} is contended; try again in a moment")

    @contextlib.contextmanager
    def _translated(self, action: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError, CredentialRetrievalError, NoCredentialsError

        unfinished = (
            "" if action.startswith(("read", "list", "start", "find")) else "; whether it was done is not known"
        )
        try:
            yield
        except ClientError as error:
            raise self._said_no(action, error, unfinished) from error
        except NoCredentialsError as error:
            raise ConfigError(
                f"{self.uri}: no S3 credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from error
        except _broken() as error:
            raise UnavailableError(f"cannot {action} in {self.uri}: {error}{unfinished}; try again later") from error
        except CredentialRetrievalError as error:  # whose words may be those of the user's own program, with secrets
            raise ConfigError(f"{self.uri}: S3 credentials could not be had from where ~/.aws says") from error
        except (BotoCoreError, ValueError, RuntimeError) as error:  # RuntimeError: of credentials that have expired
            raise RegistryError(f"cannot {action} in {self.uri}: {error}") from error

    def _cannot_encrypt(self) -> bool:
        """Whether the server takes an object as it is, but not where encryption is asked for: few say so in words."""
        from botocore.exceptions import BotoCoreError, ClientError

        place = {"Bucket": self.bucket, "Key": self._key(f"{PROBE_KEY}-plain"), "Body": b""}
        try:
            self.client.put_object(**place, **self.encryption)
            return False
        except ClientError:
            with contextlib.suppress(ClientError, BotoCoreError):
                self.client.put_object(**place)
                return True
        except BotoCoreError:
            pass
        return False

    def _said_no(self, action: str, error: Any, unfinished: str) -> RegistryError:
        """What an answer that is an error means."""
        code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
        if code in MISSING:
            return NotFoundError(f"cannot {action} in {self.uri}: there is no such object")
        if code == "NoSuchBucket":
            return NotFoundError(f"{self.uri}: there is no bucket {self.bucket!r}; make it first")
        words = f"{code} {error.response['Error'].get('Message') or ''}".strip()
        said = f"cannot {action} in {self.uri}: {words}"
        if code in DENIED or code.startswith("KMS."):
            step = DENIED.get(code, "its key of encryption cannot be used")
            return DeniedError(f"{said}; {step.format(right=RIGHTS.get(action.split()[0], 'the right'))}")
        if status in (400, 501) and self.encryption and not code.startswith("KMS.") and self._cannot_encrypt():
            way_out = f"unset CELLNET_S3_SSE ({':'.join(self.encryption.values())}), or use another S3 server"
            return RegistryError(f"{said}; no encryption here: {way_out}")
        if status == 501 and action.startswith("create"):
            return RegistryError(f"{said}; use a folder, or an S3 server that honours conditional writes")
        if (status >= 500 and status != 501) or status == 429 or code in ("SlowDown", "RequestTimeout", "Throttling"):
            return UnavailableError(f"{said}{unfinished}; try again later")
        return RegistryError(said)


def _bare(etag: str) -> str:
    """An ETag without its quotes."""
    return etag.strip('"')


def _broken() -> tuple[type[Exception], ...]:
    """The errors of a connection."""
    from botocore.exceptions import ConnectionError, HTTPClientError, IncompleteReadError

    return ConnectionError, HTTPClientError, IncompleteReadError


def region_of(session: Any) -> str:
    """The region of a boto3 session: AWS_REGION, else what boto3's chain says, else the one that other servers take."""
    return str(os.environ.get("AWS_REGION") or session.region_name or "us-east-1")


def _encryption(text: str) -> dict[str, str]:
    """What to ask of S3 by CELLNET_S3_SSE: `AES256`, `aws:kms`, or `aws:kms:KEY`; empty leaves it to the bucket.

    >>> _encryption("aws:kms:alias/lab")
    {'ServerSideEncryption': 'aws:kms', 'SSEKMSKeyId': 'alias/lab'}
    """
    if text in ("", "AES256", "aws:kms"):
        return {"ServerSideEncryption": text} if text else {}
    key = text.removeprefix("aws:kms:")
    if key in ("", text):
        raise ConfigError(f"CELLNET_S3_SSE is AES256, aws:kms or aws:kms:KEY, not {text!r}")
    return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key}


def _pause(attempt: int) -> None:
    """Wait a random time that grows with the attempts, up to five seconds."""
    time.sleep(random.uniform(0, min(0.1 * 2**attempt, 5)))
