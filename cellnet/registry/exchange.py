"""Versions brought out of a registry, and into one."""

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cellnet.errors import ConfigError, IntegrityError
from cellnet.registry.blobs import is_of
from cellnet.registry.description import model_card
from cellnet.registry.kept import answers_from_parquet
from cellnet.registry.learned import frames_from_bytes
from cellnet.registry.records import ANSWERS, LEARNED, NEW_ANSWERS, RECORD_BYTES, Card, ModelVersion, Origin
from cellnet.registry.registry import Registry
from cellnet.store.regular import read_file
from cellnet.untrusted import check_onnx, check_safetensors

RECORD: Final = "version.json"
"""Of an exported version."""


def import_version(registry: Registry, source: Registry, ref: str, *, name: str | None = None) -> ModelVersion:
    """The version of another registry as the next one of this; if it is the newest here already, that one.

    Everything is read and checked before anything is written. A signature counts where it was made: the copy is signed
    with this registry's key, if it was opened with one. Raises what reading and publishing raise.
    """
    version = source.resolve(ref)
    origin = _origin(source.store.uri, version, source.record(version))
    files = {role: source.read(version, role) for role in version.blobs}
    return _brought_in(registry, version, files, origin, name)


def publish_folder(registry: Registry, folder: Path, *, name: str | None = None) -> ModelVersion:
    """What `export_version` wrote, as the next version; if it is the newest already, that one.

    Everything is checked first, the signature too where the registry was opened with trusted keys. Raises ConfigError
    for a folder that holds no version, IntegrityError and UntrustedError.
    """
    record = _read(folder / RECORD, RECORD_BYTES)
    version = registry.parse(record, str(folder / RECORD))
    files = {}
    for role, blob in version.blobs.items():
        files[role] = _read(folder / role, blob.size)
        if not is_of(files[role], blob.sha256):
            raise IntegrityError(f"{folder / role} is not what {RECORD} says: its sha256 is another; export it again")
    return _brought_in(registry, version, files, _origin(str(folder), version, record), name)


def _origin(place: str, version: ModelVersion, record: bytes) -> Origin:
    return Origin(registry=place, ref=version.ref, record_sha256=hashlib.sha256(record).hexdigest())


def _brought_in(
    registry: Registry, version: ModelVersion, files: dict[str, bytes], origin: Origin, name: str | None
) -> ModelVersion:
    for role, data in files.items():
        check_content(role, data, version.card, version.ref)
    model = name or version.name
    newest = next(registry.versions(model, newest=1), None)
    if newest and newest.version and newest.version.origin == origin:
        return newest.version
    return registry.publish(model, files, version.card, origin=origin)


def _read(path: Path, limit: int) -> bytes:
    try:
        return read_file(path, limit)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise IntegrityError(f"{path} has over the {limit} bytes that are expected; export it again") from error
        raise ConfigError(f"cannot read {path}: {error.strerror}; give a folder of cellnet registry export") from error


def export_version(registry: Registry, ref: str, folder: Path) -> Path:
    """A new folder with a version's files, its record as `version.json`, and `README.md`, its model card.

    Raises ConfigError where the folder is there already; what does not succeed leaves none.
    """
    version = registry.resolve(ref)
    card = model_card(version, aliases=registry.aliases_of(version), signature=registry.signature(version))
    files = {role: registry.read(version, role) for role in version.blobs}
    files |= {RECORD: registry.record(version), "README.md": f"{card}\n".encode()}
    with new_folder(folder) as inside:
        for role, data in files.items():
            (inside / role).write_bytes(data)
    return folder


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which gets its name when it is whole. Raises ConfigError."""
    try:
        if os.path.lexists(folder):
            raise ConfigError(f"{folder} is there already; name a new one")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".tmp-", dir=folder.parent) as temporary:
            inside = Path(temporary) / "whole"
            inside.mkdir()
            yield inside
            inside.rename(folder)
    except OSError as error:
        raise ConfigError(f"cannot write {folder}: {error.strerror}") from error


def check_content(role: str, data: bytes, card: Card, ref: str) -> None:
    """Raise IntegrityError where a blob is not of the kind that its role says."""
    if role.endswith(".safetensors"):
        check_safetensors(data, f"{role} of {ref}")
    if role.endswith(".onnx"):
        check_onnx(data, f"{role} of {ref}")
    if role in (ANSWERS, NEW_ANSWERS):
        answers_from_parquet(data, card, f"{role} of {ref}")
    if role == LEARNED:
        frames_from_bytes(data, f"{role} of {ref}")
