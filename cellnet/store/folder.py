"""Objects as files below a folder."""

import contextlib
import errno
import functools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cellnet.errors import NotFoundError, RegistryError
from cellnet.store.objects import MOST_BYTES, Entry, Store, check_size
from cellnet.store.regular import open_file

TEMPORARY: Final = ".tmp-"
NO_LINKS: Final = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
"""What file systems say that know no hard links."""


class FolderStore(Store):
    """Objects as files below a folder."""

    endpoint_url: str | None = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.uri = str(self.folder)

    def get(self, key: str, *, limit: int = MOST_BYTES) -> bytes:
        try:
            with open_file(self._path(key)) as file:
                check_size(os.fstat(file.fileno()).st_size, limit, f"{key} in {self.uri}")
                return file.read()
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
            except FileExistsError:  # also where a server made the link, and was asked again since its answer was lost
                return os.stat(temporary).st_nlink > 1
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                raise RegistryError(
                    f"cannot create {key} in {self.uri}: this file system knows no hard links ({error.strerror}), and "
                    "without them two writers could overwrite each other; use a folder on one that does (ext4, XFS, "
                    "APFS, NFS), or a bucket of S3"
                ) from error
        return True

    def delete(self, key: str) -> None:
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            raise RegistryError(f"cannot remove {key} in {self.uri}: {error.strerror}") from error

    def entries(self, prefix: str, *, after: str = "") -> Iterator[Entry]:
        above = self._path(prefix.rpartition("/")[0])
        keys = (path[len(self.uri.rstrip("/")) + 1 :] for path in self._files(above))
        for key in sorted(key for key in keys if key.startswith(prefix) and key > after):
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                status = os.stat(self.folder / key)
                yield Entry(key, status.st_size, status.st_mtime)

    def folders(self, prefix: str) -> list[str]:
        above, _, start = prefix.rpartition("/")
        try:
            names = [name for name in os.listdir(self._path(above)) if name.startswith(start)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise RegistryError(f"cannot list {prefix or 'everything'} in {self.uri}: {error.strerror}") from error
        return sorted(name for name in names if self._holds_files(f"{above}/{name}" if above else name))

    def now(self) -> float:
        try:
            os.utime(self.folder)  # by the clock of the file system, which may be another machine's
            return os.stat(self.folder).st_mtime
        except OSError as error:
            raise RegistryError(f"cannot tell the time in {self.uri}: {error.strerror}") from error

    def move(self, source: str, target: str, *, within_s: float) -> None:
        """By its name alone, which needs no space on a disk that is full."""
        path, to = self._path(source), self._path(target)
        try:
            _make(to.parent)
            os.utime(path)
            path.rename(to)
            os.utime(to)  # again: who was asleep in between gave it a time of long ago
            _sync(to.parent)
        except FileNotFoundError as error:
            raise NotFoundError(f"{self.uri} has no {source}") from error
        except PermissionError:  # somebody else's file, whose time is not ours to set
            super().move(source, target, within_s=within_s)
        except OSError as error:
            raise RegistryError(f"cannot move {source} in {self.uri}: {error.strerror}") from error

    def sweep(self, prefix: str, before: float) -> int:
        swept = 0
        for path in self._files(self._path(prefix), unfinished=True):
            try:
                if os.stat(path).st_mtime < before:
                    os.unlink(path)
                    swept += 1
            except FileNotFoundError:  # it ended meanwhile
                pass
            except OSError as error:
                raise RegistryError(f"cannot remove {path}: {error.strerror}") from error
        return swept

    def _files(self, folder: Path, *, unfinished: bool = False) -> Iterator[str]:
        """The paths of what was written below a folder, or of what is not finished."""

        def fail(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                raise RegistryError(f"cannot list {error.filename}: {error.strerror}") from error

        for above, _, names in os.walk(folder, onerror=fail):
            yield from (os.path.join(above, name) for name in names if name.startswith(TEMPORARY) == unfinished)

    def _holds_files(self, key: str) -> bool:
        """Whether it is a folder as S3 knows them: one with an object in it. Links that lead out are none."""
        with contextlib.suppress(RegistryError):
            path = self._path(key)
            return path.is_dir() and any(self._files(path))
        return False

    def _path(self, key: str) -> Path:
        path = self.folder / key
        try:
            inside = path.resolve().is_relative_to(self.folder.resolve())
        except (OSError, RuntimeError, ValueError) as error:  # links in a circle, a name with a NUL
            raise RegistryError(f"{key!r} in {self.uri} cannot be used: {error}") from error
        if not inside:
            raise RegistryError(f"the key {key!r} leads out of {self.uri}")
        return path

    @contextlib.contextmanager
    def _written(self, key: str, data: bytes) -> Iterator[Path]:
        """The bytes in a finished temporary file beside their place, which is removed afterwards."""
        temporary = None
        try:
            parent = self._path(key).parent
            _make(parent)
            handle, name = tempfile.mkstemp(prefix=TEMPORARY, dir=parent)
            temporary = Path(name)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(PermissionError):  # a file system that knows no rights
                temporary.chmod(0o666 & ~_umask())
            yield temporary
            _sync(parent)
        except OSError as error:
            raise RegistryError(f"cannot write {key} in {self.uri}: {error.strerror}") from error
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)


def _make(folder: Path) -> None:
    """A folder, and those above it, that last through a power cut."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        _sync(path.parent)


@functools.cache
def _umask() -> int:
    """The rights that the user keeps from others; only setting them tells them."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sync(folder: Path) -> None:
    """Make the names in a folder last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
