"""What there is to predict: image files, folders of them, Harmony exports, manifests, and s3://bucket/prefix.

A folder is taken with all folders below it. Where one of them is a Harmony export, the planes are taken that
`cellnet bank import` would take; where it holds a manifest.csv (image,pixel_um), the images that this lists. Of other
files the names say what is of one site (`cellnet.images.wells`): thumbnails are left out, one channel is taken and the
middle plane.
"""

import functools
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cellnet.errors import ConfigError, DataError
from cellnet.images.file import SUFFIXES, ImageFile, Pages
from cellnet.images.wells import ImageName, Well, is_part_of_plate, is_thumbnail, read_names, well_at
from cellnet.readers import harmony, number_of, read_csv
from cellnet.store.objects import Store
from cellnet.store.place import S3, Place, PlaceLike, place_of

logger = logging.getLogger(__name__)

MOST_BYTES: Final = 10**9
"""Of an image file; a larger one is not read."""
MANIFEST: Final = "manifest.csv"
GIVE: Final = "give images, folders of them, a Harmony export, a manifest.csv or s3://bucket/prefix"


@dataclass(frozen=True, kw_only=True)
class ListedFile:
    """An image file to predict, and what is known of it before it is read."""

    image: ImageFile
    place: str
    """An absolute path, or s3://bucket/key."""
    name: str
    """As it is shown."""
    folder: str
    """Its plate's, as it is shown."""
    size: int = 0
    """Bytes."""
    modified: str = ""
    """When, as the place says it."""
    well: Well | None = None
    could_be: tuple[Well, ...] = ()
    """The wells of which it could be one, where its name leaves that open."""
    by_others: bool = False
    """Whether its well is read as in the other names of its folder."""
    pixel_um: float | None = None
    exported: bool = False
    """Whether it is a plane of a Harmony export."""
    listed: bool = False
    """Whether a manifest names it."""
    problem: str | None = None
    """Why it cannot be read, where that is known already."""

    @property
    def key(self) -> str:
        """The place as a text that files can hold."""
        return shown(self.place)

    @property
    def stamp(self) -> str:
        """Another one where the file, or what is known of it, is another."""
        return f"{self.size}-{self.modified}-{self.pixel_um}-{self.problem}"

    def read(self) -> ImageFile:
        """The file in memory. Raises DataError for one that cannot be read or is too large, which is then not read."""
        if self.problem:
            raise DataError(self.problem)
        return self.image.in_memory(MOST_BYTES)


def list_files(
    given: Sequence[PlaceLike],
    *,
    channel: str | None = None,
    page: Pages | None = None,
    well_pattern: str | None = None,
    but: Container[str] = (),
) -> list[ListedFile]:
    """Every image of what is given, each once, in order, but those at the places `but`.

    Of what the names say to be planes of one site, `page` is taken, or the middle one; wells are read from names, or
    by a regular expression. Raises DataError for what is not there, for no image at all, and where a Harmony export has
    several channels of transmitted light, or sites come in several channels, and none is named; ConfigError for a
    channel that nothing has a use for, and a pattern by which no well is found.
    """
    by_place: dict[str, ListedFile] = {}
    for argument in given:
        for file in _list(place_of(argument), channel):
            if file.place not in but:
                by_place.setdefault(file.place, file)
    if not by_place:
        raise DataError(f"no {', '.join(sorted(SUFFIXES))} file in {', '.join(map(str, given))}")
    return _of_names(list(by_place.values()), channel, page, well_pattern)


def notes_on_wells(files: Sequence[ListedFile], well_pattern: str | None = None) -> list[str]:
    """A line for each way in which names leave open what their wells are."""
    open_ = [file for file in files if not file.well and (file.could_be or well_pattern)]
    several = [file for file in open_ if len(file.could_be) > 1]
    single = [file for file in open_ if len(file.could_be) == 1]
    others = [file for file in files if file.by_others]

    def note(of: Sequence[ListedFile], says: str, then: str) -> str:
        wells = " or ".join(well.name for well in of[0].could_be or filter(None, [of[0].well]))
        return f"{_counted(len(of), 'name')} {says}, like {of[0].name}{f': {wells}' if wells else ''}; {then}"

    notes = []
    if well_pattern and open_:
        notes.append(note(open_, f"of {len(files):,} tell no well by --well-pattern", "they are on no plate"))
    if several:
        notes.append(note(several, "could mean two wells", "they are on no plate: say which with --well-pattern"))
    if single:
        then = "they are on no plate: if they do, say so with --well-pattern"
        notes.append(note(single, "may tell a well, or a day, a passage, a cell line", then))
    if others:
        then = "if they do not, say what does with --well-pattern"
        notes.append(note(others, "tell their wells only as the others of their folders do", then))
    return notes


def plate_names(folders: Iterable[str]) -> dict[str, str]:
    """The plate that each folder stands for: its name, with as much of its path as tells it from the others.

    Folders `Images`, `ZStep_1` and `TimePoint_1` are their plate's, as Harmony and MetaXpress export them.
    """
    parts = {folder: [part for part in folder.split("/") if part and not is_part_of_plate(part)] for folder in folders}
    different = len(set(map(tuple, parts.values())))
    for depth in range(1, max(map(len, parts.values()), default=0) + 1):
        names = {folder: "/".join(path[-depth:]) for folder, path in parts.items()}
        if len(set(names.values())) == different:
            return names
    return {folder: "/".join(path) for folder, path in parts.items()}


@dataclass(frozen=True)
class _Named:
    """A file, and what its name says."""

    file: ListedFile
    name: ImageName

    @property
    def channel(self) -> str | None:
        """As it is shown and asked for."""
        return self.name.channel if self.file.is_found else None


def _of_names(files: list[ListedFile], channel: str | None, page: Pages | None, pattern: str | None) -> list[ListedFile]:
    """The files with their wells; of those that nothing lists, one channel and plane a site, and no thumbnail."""
    exported = [file for file in files if file.exported]
    files = _without_thumbnails(files)
    names = iter(read_names([f"{f.folder}/{f.image.name}" for f in files if not f.exported], pattern))
def _list(place: Place, channel: str | None) -> Iterator[ListedFile]:
    """The images of one argument."""
    given = place.uri
    if place.is_on_s3:
        files = list(_of_s3(place))
        if not files:
            raise DataError(f"{given} is no image, and there is none below it; {GIVE}")
        yield from files
    elif os.path.isdir(given):
        yield from _of_folder(Path(given), channel)
    elif not os.path.isfile(given):
        raise DataError(f"{given} does not exist; {GIVE}")
    elif harmony.accepts(Path(given)):
        yield from _of_export(Path(given), channel)
    elif given.lower().endswith(".csv"):
        yield from _of_manifest(Path(given))
    else:
        yield _file(str(Path(given)))


def _of_folder(folder: Path, channel: str | None) -> Iterator[ListedFile]:
    if (folder / MANIFEST).is_file():
        yield from _of_manifest(folder / MANIFEST)
        return
    if harmony.accepts(folder):
        yield from _of_export(folder, channel)
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot look into {folder}: {error.strerror}") from error
    for entry in entries:
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            yield from _of_folder(folder / entry.name, channel)
        elif _is_image(entry.name) and entry.is_file():
            yield _file(str(folder / entry.name), entry.stat())


def _of_export(export: Path, channel: str | None) -> Iterator[ListedFile]:
    for plane in harmony.read_images(export, channel):
        plate, _, well = (plane.group or "").rpartition("/")
        row, column = (int(part) for part in re.findall(r"\d+", well))
        folder = shown(f"{Path(plane.image.place).parent.absolute()}/{plate}")
        yield replace(
            _file(plane.image.place), folder=folder, well=well_at(row, column), exported=True,
            pixel_um=plane.pixel_um, problem=plane.problem,
        )  # fmt: skip


def _of_manifest(manifest: Path) -> Iterator[ListedFile]:
    rows = read_csv(manifest, ("image",), numbers=("pixel_um",))
    if not rows:
        raise DataError(f"{manifest} has a header and no rows; add one row an image")
    for row in rows:
        pixel_um, problem = number_of(row.get("pixel_um", "")), None
        if not row["image"]:
            problem = "the manifest names no image in this row"
        elif row.get("pixel_um") and (pixel_um is None or pixel_um <= 0):
            problem = f"the pixel size {row['pixel_um']!r} is not a number of micrometres"
        yield replace(_file(str(manifest.parent / row["image"])), pixel_um=pixel_um, problem=problem)


def _file(path: str, status: os.stat_result | None = None) -> ListedFile:
    place, name = os.path.abspath(path), os.path.basename(path)
    size, modified = 0, ""
    try:
        status = status or os.stat(place)
        size, modified = status.st_size, str(status.st_mtime_ns)
    except (OSError, ValueError):
        pass  # said when it is read
    return ListedFile(
        image=ImageFile(shown(name), Path(place)), place=place, name=shown(path), folder=shown(os.path.dirname(place)),
        size=size, modified=modified, well=well_of(name),
    )  # fmt: skip


def _of_s3(given: Place) -> Iterator[ListedFile]:
    """The image of that key, or all below it."""
    bucket, _, key = given.uri.removeprefix(S3).partition("/")
    whole = given.elsewhere(f"{S3}{bucket}")
    store = _bucket(whole)
    single = _is_image(os.path.basename(key))
    for entry in store.entries(key if single or not key else key.rstrip("/") + "/"):
        folder, _, name = entry.key.rpartition("/")
        if name in harmony.INDEXES:
            logger.warning(
                "%s/%s is a Harmony export's: of one on S3 all channels are taken, and no pixel size is known; "
                "copy it to a folder", store.uri, entry.key,
            )  # fmt: skip
        if entry.key == key if single else _is_image(name):
            place = f"{store.uri}/{entry.key}"
            yield ListedFile(
                image=ImageFile(shown(name), functools.partial(_fetch, whole, entry.key)), place=place,
                name=shown(place), folder=shown(f"{bucket}/{folder}"), size=entry.size,
                modified=f"{entry.modified:f}", well=well_of(name),
            )  # fmt: skip


def _fetch(bucket: Place, key: str, most: int) -> bytes:
    return _bucket(bucket).get(key, limit=most)


@functools.lru_cache(maxsize=8)
def _bucket(bucket: Place) -> Store:
    """A bucket, whose client is made once in a process."""
    return bucket.open()


def _is_image(name: str) -> bool:
    """By its suffix; hidden files are what other programs leave, like ._a.png."""
    return os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")


def shown(path: str) -> str:
    """A path as text for people and files, also where its bytes are no UTF-8."""
    return path.encode("utf-8", "backslashreplace").decode()
