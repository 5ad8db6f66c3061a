"""The files of a model's versions, addressed by their content.

NAME/blobs/SHA256            what versions name
NAME/trash/SHA256.TOKEN      what no version needed when `upkeep.gc` last looked
"""

import contextlib
import hashlib
from typing import Final

from cellnet.errors import IntegrityError, NotFoundError, RegistryError
from cellnet.registry.records import Blob, ModelVersion
from cellnet.store.objects import MOST_BYTES, Store

LARGE_BYTES: Final = 64 * 2**20


def put_blobs(store: Store, name: str, files: dict[str, bytes]) -> dict[str, Blob]:
    """Store a model's files, by role. One that is there is left, unless it is damaged."""
    blobs = {role: Blob(sha256=hashlib.sha256(data).hexdigest(), size=len(data)) for role, data in files.items()}
    for role, data in files.items():
        put_blob(store, blob_key(name, blobs[role].sha256), data)
    return blobs


def put_blob(store: Store, key: str, data: bytes) -> None:
    """Store a file at its address, unless it is there and whole. The same content as ever, so that it cannot be wrong.

    A large one is not created, as that sends it in one request, but put, which may send it in parts.
    """
    created = len(data) <= LARGE_BYTES and store.create(key, data)
    if not created and not _is_whole(store, key, data):
        store.put(key, data)


def fetch_blob(store: Store, version: ModelVersion, role: str) -> bytes:
    """The bytes of a version's file, from its place or from the trash. Raises IntegrityError or NotFoundError."""
    blob = version.blobs[role]
    try:
        data = store.get(blob_key(version.name, blob.sha256), limit=blob.size)
        if len(data) == blob.size and is_of(data, blob.sha256):
            return data
        problem: RegistryError = IntegrityError(
            f"{role} of {version.ref} is damaged: its sha256 is not {blob.sha256[:12]}…; "
            "publish the same files again, or serve another version"
        )
    except (IntegrityError, NotFoundError) as error:
        problem = error
    try:
        return fetch_trashed(store, version.name, blob.sha256, limit=blob.size)
    except NotFoundError:
        raise problem from None


def fetch_trashed(store: Store, name: str, sha256: str, *, limit: int = MOST_BYTES) -> bytes:
    """A file that `upkeep.gc` put away. Raises NotFoundError where no copy is whole."""
    for entry in store.entries(f"{name}/trash/{sha256}."):
        with contextlib.suppress(NotFoundError, IntegrityError):  # removed meanwhile, or too large
            data = store.get(entry.key, limit=limit)
            if is_of(data, sha256):
                return data
    raise NotFoundError(f"{store.uri} has no {name}/trash/{sha256}")


def blob_key(name: str, sha256: str) -> str:
    """Where a model's file is."""
    return f"{name}/blobs/{sha256}"


def is_of(data: bytes, sha256: str) -> bool:
    """Whether these are the bytes of that address."""
    return hashlib.sha256(data).hexdigest() == sha256


def _is_whole(store: Store, key: str, data: bytes) -> bool:
    try:
        return store.get(key, limit=len(data)) == data
    except (IntegrityError, NotFoundError):
        return False
