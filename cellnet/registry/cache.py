"""What this machine has read of registries on S3: blobs, by their content, and the last answers of each registry.

In `~/.cache/cellnet` (or `$XDG_CACHE_HOME/cellnet`, or CELLNET_CACHE; an empty CELLNET_CACHE turns it off). Blobs are
served from here first, since their content is their name; answers only where the registry does not answer by itself.
"""

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self, TypeVar

from cellnet.errors import RegistryError, UnavailableError
from cellnet.store.folder import FolderStore
from cellnet.store.objects import Store
from cellnet.store.s3 import S3Store

log = logging.getLogger(__name__)
Result = TypeVar("Result")

MOST_BYTES: Final = 10 * 2**30
"""Of blobs; beyond it those that were not used for longest go."""


class Cache:
    """The part of the cache that one registry uses. Where it cannot be read or written, it is as if empty."""

    def __init__(self, folder: Path, store: S3Store, *, most_bytes: int = MOST_BYTES) -> None:
        self.files = FolderStore(folder)
        self.store = store
        self.most_bytes = most_bytes

    @classmethod
    def of(cls, store: Store) -> Self | None:
        """For a registry on S3; a folder needs none."""
        default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cellnet"
        folder = os.environ.get("CELLNET_CACHE", str(default))
        return cls(Path(folder), store) if isinstance(store, S3Store) and folder else None

    def blob(self, sha256: str) -> bytes | None:
        """The bytes of this content; a copy that is damaged is removed."""
        key = f"blobs/{sha256}"
        with contextlib.suppress(RegistryError):
            data = self.files.get(key)
            if hashlib.sha256(data).hexdigest() == sha256:
                with contextlib.suppress(OSError):  # of somebody else, who lets us read
                    os.utime(self.files.folder / key)
                return data
            self.files.delete(key)
        return None

    def keep_blob(self, sha256: str, data: bytes) -> None:
        """Have it here from now on."""
        self._keep(f"blobs/{sha256}", data)
        with contextlib.suppress(RegistryError):
            blobs = sorted(self.files.entries("blobs/"), key=lambda entry: entry.modified)
            over = sum(entry.size for entry in blobs) - self.most_bytes
            for entry in blobs[:-1]:
                if over > 0:
                    self.files.delete(entry.key)
                    over -= entry.size
            self.files.sweep("blobs/", self.files.now() - 86_400)

    def answer(self, key: str) -> bytes | None:
        """What the registry last said of a key."""
        with contextlib.suppress(RegistryError):
            return self.files.get(self._place(key))
        return None

    def keep_answer(self, key: str, data: bytes) -> None:
        """Remember what it says now."""
        if self.answer(key) != data:
            self._keep(self._place(key), data)

    def _place(self, key: str) -> str:
        """Where the answers of this registry are: of the server that boto3's chain leads to."""
        registry = f"{self.store.client.meta.endpoint_url} {self.store.uri}"
        return f"registries/{hashlib.sha256(registry.encode()).hexdigest()[:32]}/{key}"

    def _keep(self, key: str, data: bytes) -> None:
        try:
            self.files.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.files.put(key, data)
        except (RegistryError, OSError) as error:
            log.debug("not kept: %s", error)


def kept(cache: Cache | None, key: str, ask: Callable[[], bytes], read: Callable[[bytes], Result]) -> Result:
    """What the store's answer means; where it is down, what its last good one did."""
    try:
        data = ask()
    except UnavailableError as error:
        answer = cache.answer(key) if cache else None
        if answer is None:
            raise
        log.warning("%s; going on with what %s was when last asked", error, key)
        return read(answer)
    result = read(data)
    if cache:
        cache.keep_answer(key, data)
    return result
