"""Files and folders to read, on the disk or in a bucket, by one set of names: those of `pathlib`.

A folder on the disk is a `pathlib.Path`. In a bucket everything below a prefix is listed once, page by page, and a
`BucketPath` looks into that listing: no request an image. What is read of an object is asked for in spans, the first a
small one, so that the beginning of a file costs no more than that.
"""

import contextlib
import errno
import functools
import io
import itertools
import os
import posixpath
import re
import threading
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, BinaryIO, Final, NamedTuple, Protocol, Self, cast

from cellnet.errors import ConfigError, DataError, DeniedError, IntegrityError, NotFoundError
from cellnet.store.objects import Entry
from cellnet.store.place import S3, Place, PlaceLike, place_of
from cellnet.store.s3 import S3Store

MOST_OBJECTS: Final = 1_000_000
"""Of a listing, which takes about half a gigabyte for so many."""
HEAD_BYTES: Final = 2**16
"""The first span of an object."""
SPAN_BYTES: Final = 2**22
"""Each span after it."""
HEADS: Final = 256
"""First spans that are kept: whoever tells a file by its beginning often reads it next."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class AnyPath(Protocol):
    """A file or folder, perhaps one that is not there: what `pathlib.Path` and `BucketPath` both know."""

    @property
    def name(self) -> str: ...
    @property
    def stem(self) -> str: ...
    @property
    def suffix(self) -> str: ...
    @property
    def parent(self) -> Self: ...
    def __truediv__(self, name: str, /) -> Self: ...
    def __lt__(self, other: Any, /) -> bool: ...
    def __hash__(self) -> int: ...
    def relative_to(self, other: Any, /) -> PurePath: ...
    def is_relative_to(self, other: Any, /) -> bool: ...
    def absolute(self) -> Self: ...
    def as_posix(self) -> str: ...
    def exists(self) -> bool: ...
    def is_file(self) -> bool: ...
    def is_dir(self) -> bool: ...
    def is_symlink(self) -> bool: ...
    def iterdir(self) -> Iterable[Self]: ...
    def stat(self) -> Any: ...


class Status(NamedTuple):
    """Of an object, as `os.stat` says it of a file."""

    st_size: int
    st_mtime_ns: int
    etag: str
    """Another one where the contents are; empty where the server tells none."""


class BucketPath:
    """An object of a bucket, or a folder of some, as `pathlib` has it; it prints as s3://bucket/key.

    `..` is left out where a path is made, since a bucket knows no links, and leads to nothing that was not listed.
    Pickled it knows itself alone.
    """

    def __init__(self, tree: "Tree", path: PurePosixPath) -> None:
        self._tree = tree
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return _alone, (self._tree.bucket, str(self._path), self._tree.file(self._key))

    def __str__(self) -> str:
        return f"{self._tree.bucket}/{self._path}" if self._path.parts else str(self._tree.bucket)

    def __repr__(self) -> str:
        return f"BucketPath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BucketPath) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def __lt__(self, other: "BucketPath") -> bool:
        return self._identity < other._identity

    def __truediv__(self, name: str) -> "BucketPath":
        return self._at(PurePosixPath(posixpath.normpath(self._path / name)))

    @property
    def name(self) -> str:
        return self._path.name

    @property
    def stem(self) -> str:
        return self._path.stem

    @property
    def suffix(self) -> str:
        return self._path.suffix

    @property
    def parent(self) -> "BucketPath":
        return self._at(self._path.parent)

    def relative_to(self, other: "BucketPath") -> PurePosixPath:
        return self._path.relative_to(other._path)

    def is_relative_to(self, other: "BucketPath") -> bool:
        return self._tree.bucket == other._tree.bucket and self._path.is_relative_to(other._path)

    def absolute(self) -> "BucketPath":
        return self

    def as_posix(self) -> str:
        return str(self)

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        return self._tree.file(self._key) is not None

    def is_dir(self) -> bool:
        return self._tree.folder(self._key) is not None

    def is_symlink(self) -> bool:
        return False

    def iterdir(self) -> Iterator["BucketPath"]:
        """What lies in a folder. Raises OSError for what is none."""
        names = self._tree.folder(self._key)
        if names is None:
            raise self._error(errno.ENOTDIR)
        return (self / name for name in names)

    def stat(self) -> Status:
        """Of an object. Raises OSError where there is none."""
        entry = self._tree.file(self._key)
        if entry is None:
            raise self._error(errno.ENOENT)
        return Status(entry.size, int(entry.modified * 1e9), entry.etag)

    def walk(self) -> Iterator[tuple["BucketPath", list[str], list[str]]]:
        """As `os.walk`: a folder, the folders in it, which may be left out, and the files in it; then those below."""
        names = self._tree.folder(self._key)
        if names is None:
            return
        folders = [name for name in names if (self / name).is_dir()]
        yield self, folders, [name for name in names if (self / name).is_file()]
        for name in folders:
            yield from (self / name).walk()

    def open(self) -> BinaryIO:
        """Its bytes, asked for as they are read. Raises OSError where there are none, or they are another's meanwhile.

        UnavailableError and what is wrong with the credentials are raised as they are: the next object fares no better.
        """
        return cast(BinaryIO, io.BufferedReader(_Spans(self, self.stat()), HEAD_BYTES))

    def read_bytes(self, most: int) -> bytes:
        """All of it, in one request. Raises as `open`, also where it has over `most` bytes, unread."""
        with self._as_a_file():
            return _store(self._tree.bucket).get(self._key, limit=most)

    def span(self, start: int, stop: int) -> bytes:
        """Its bytes from `start` to before `stop`. Raises as `open`."""
        with self._as_a_file():
            etag = self.stat().etag
            if start == 0 and stop <= HEAD_BYTES:
                return _head(self._tree.bucket, self._key, etag, stop)
            return _store(self._tree.bucket).get_span(self._key, start, stop, etag=etag)

    @property
    def refused(self) -> list[tuple[str, str]]:
        """The keys of the listing that are no paths, each with the reason."""
        return self._tree.refused

    @property
    def _key(self) -> str:
        return str(self._path) if self._path.parts else ""

    @property
    def _identity(self) -> tuple[str, str, PurePosixPath]:
        return self._tree.bucket.uri, self._tree.bucket.endpoint_url or "", self._path

    def _at(self, path: PurePosixPath) -> "BucketPath":
        return BucketPath(self._tree, path)

    def _error(self, number: int, why: str | None = None) -> OSError:
        return OSError(number, why or os.strerror(number), str(self))

    @contextlib.contextmanager
    def _as_a_file(self) -> Iterator[None]:
        """What is wrong with this object alone is an OSError."""
        try:
            yield
        except NotFoundError as error:
            raise self._error(errno.ENOENT, "it is gone since its folder was listed") from error
        except DeniedError as error:
            said = str(error).removeprefix(f"cannot read {self._key} in {self._tree.bucket}: ")
            raise self._error(errno.EACCES, said) from error
        except IntegrityError as error:
            raise self._error(errno.ESTALE, "it was changed since its folder was listed; read it again") from error


class Tree:
    """What is known of a bucket: what was given, an object or a prefix, and what was listed of it.

    A prefix is listed as a whole. Of an object the folder is, where somebody looks into it, and the one above that,
    where tables have their images; nothing beyond is ever asked for.
    """

    def __init__(self, bucket: Place, given: str, listed: Iterable[Entry] | None = None) -> None:
        self.bucket = bucket
        self.refused: list[tuple[str, str]] = []
        self._given = given
        self._files: dict[str, Entry] = {}
        self._folders: dict[str, dict[str, None]] = {}
        self._unlisted: list[str] | None = None
        self._listed: str | None = None
        if listed is not None:
            self._add(listed)
            self._unlisted = []

    def file(self, key: str) -> Entry | None:
        """The object of a key; None where there is none, or it was not listed."""
        self._look_for(key)
        return self._files.get(key)

    def folder(self, key: str) -> Collection[str] | None:
        """The names in a folder, each once; None where there is no object below it."""
        self._look_for(key)
        return self._folders.get(key)

    def _look_for(self, key: str) -> None:
        if self._unlisted is None:
            self._unlisted = self._look_at_given()
        while self._unlisted and key not in self._files and _is_below(key, self._unlisted[-1]):
            if self._listed is not None and _is_below(key, self._listed):
                return
            self._listed = self._unlisted.pop(0)
            self._list(self._listed)

    def _look_at_given(self) -> list[str]:
        """Find out what was given; gives the folders that may be listed if they are needed."""
        self._list(self._given)
        if self._folders or not self._given:
            return []
        first = next(_store(self.bucket).entries(self._given), None)
        if first is None or first.key != self._given:
            return []
        self._add([first])
        self._folders.clear()
        above = posixpath.dirname(self._given)
        return list(dict.fromkeys([above, posixpath.dirname(above)]))

    def _list(self, folder: str) -> None:
        store = _store(self.bucket)
        entries = list(itertools.islice(store.entries(f"{folder}/" if folder else ""), MOST_OBJECTS + 1))
        if len(entries) > MOST_OBJECTS:
            raise DataError(
                f"{self.bucket}/{folder} holds over {MOST_OBJECTS:,} objects; give a prefix that holds images alone"
            )
        self._add(entries)

    def _add(self, entries: Iterable[Entry]) -> None:
        self._files, self._folders, self.refused = {}, {}, []
        for entry in entries:
            if why := _why_no_path(entry.key):
                self.refused.append((f"{self.bucket}/{entry.key}", why))
                continue
            self._files[entry.key] = entry
            for folder, name in _steps(entry.key):
                if folder in self._folders:
                    self._folders[folder][name] = None
                    break
                self._folders[folder] = {name: None}
        for key in self._files.keys() & self._folders.keys():
            self.refused.append((f"{self.bucket}/{key}", "it is a folder too; give it another key"))
            del self._files[key]


class _Spans(io.RawIOBase):
    """An object as a file, read in spans."""

    def __init__(self, path: BucketPath, status: Status) -> None:
        self._path, self._size = path, status.st_size
        self._place = self._start = 0
        self._held = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence])
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._size - self._place)
        if wanted <= 0:
            return 0
        if not self._start <= self._place < self._start + len(self._held):
            span = HEAD_BYTES if self._place == 0 and wanted <= HEAD_BYTES else max(wanted, SPAN_BYTES)
            self._held = self._path.span(self._place, min(self._size, self._place + span))
            self._start = self._place
        at = self._place - self._start
        data = self._held[at : at + wanted]
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def path_at(given: PlaceLike) -> AnyPath:
    """What lies at a place, to be read; nothing is asked until it is. Raises ConfigError for what is no prefix."""
    place = place_of(given)
    if not place.is_on_s3:
        return Path(place.uri)
    bucket, _, key = place.uri.removeprefix(S3).partition("/")
    key = key.rstrip("/")
    if not bucket or (key and (why := _why_no_path(key))):
        raise ConfigError(f"{place} is no place: {why if bucket else 'it names no bucket; give s3://bucket/prefix'}")
    return BucketPath(Tree(place.elsewhere(f"{S3}{bucket}"), key), PurePosixPath(key))


def walk(folder: AnyPath, *, follow_links: bool = False) -> Iterator[tuple[AnyPath, list[str], list[str]]]:
    """As `os.walk`: each folder, the folders in it, of which some may be left out, and the files in it."""
    if isinstance(folder, BucketPath):
        yield from folder.walk()
        return
    for root, folders, names in os.walk(cast(Path, folder), followlinks=follow_links):
        yield Path(root), folders, names


def real(path: AnyPath) -> AnyPath:
    """Where a path leads, its links followed; also where they lead in a circle, or nowhere."""
    return path if isinstance(path, BucketPath) else Path(os.path.realpath(cast(Path, path)))


def refused_below(path: AnyPath) -> list[tuple[str, str]]:
    """What lies at a place, and can be no file of it, each with the reason."""
    return path.refused if isinstance(path, BucketPath) else []


def _alone(bucket: Place, path: str, entry: Entry | None) -> BucketPath:
    """An object of a listing that is elsewhere."""
    return BucketPath(Tree(bucket, "", [entry] if entry else []), PurePosixPath(path))


def _why_no_path(key: str) -> str | None:
    """Why a key is no path of a file, in words; None of one that is."""
    parts = key.split("/")
    if _CONTROL.search(key):
        return "its key has control characters; give it another"
    if "" in parts:
        return "its key has an empty part; give it another"
    return "its key has . or .. as a part; give it another" if {".", ".."} & set(parts) else None


def _is_below(key: str, folder: str) -> bool:
    if key.startswith(("/", "..")) and _why_no_path(key):
        return False
    return not folder or key == folder or key.startswith(f"{folder}/")


def _steps(key: str) -> Iterator[tuple[str, str]]:
    """A key's folder and its name in it, then the same of that folder, up to the bucket."""
    while key:
        key, name = posixpath.split(key)
        yield key, name


def _store(bucket: Place) -> S3Store:
    """A bucket, whose client is made once in a process, whichever of its threads asks first."""
    with _MAKING:
        return _made(bucket)


_MAKING: Final = threading.Lock()


@functools.lru_cache(maxsize=8)
def _made(bucket: Place) -> S3Store:
    store = S3Store(bucket.uri, endpoint_url=bucket.endpoint_url)
    _ = store.client
    return store


@functools.lru_cache(maxsize=HEADS)
def _head(bucket: Place, key: str, etag: str, stop: int) -> bytes:
    return _store(bucket).get_span(key, 0, stop, etag=etag)
