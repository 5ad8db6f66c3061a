"""What there is to predict: image files, folders of them, Harmony exports, manifests, and s3://bucket/prefix.

A folder is taken with all folders below it. Where one of them is a Harmony export, the planes are taken that
`cellnet bank import` would take; where it holds a manifest.csv (image,pixel_um), the images that this lists.
"""

import functools
import logging
import os
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from cellnet.errors import DataError
from cellnet.images.file import SUFFIXES, ImageFile
from cellnet.images.wells import Well, well_at, well_of
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
    """What it lies in, which names its plate, as it is shown."""
    size: int = 0
    """Bytes."""
    modified: str = ""
    """When, as the place says it."""
    well: Well | None = None
    pixel_um: float | None = None
    exported: bool = False
    """Whether it is a plane of a Harmony export."""
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

    def of_channel(self, channel: str) -> Self:
        """The same, of which that channel is meant if it has several."""
        return replace(self, image=replace(self.image, channel=channel))

    def read(self) -> ImageFile:
        """The file in memory. Raises DataError for one that cannot be read or is too large, which is then not read."""
        if self.problem:
            raise DataError(self.problem)
        return self.image.in_memory(MOST_BYTES)


def list_files(
    given: Sequence[PlaceLike],
    *,
    channel: str | None = None,
    but: Container[str] = (),
) -> list[ListedFile]:
    """Every image of what is given, each once, in order, but those at the places `but`.

    Raises DataError for what is not there, for no image at all, and where a Harmony export has several channels of
    transmitted light and none is named; of the channels in a file its `pages` know.
    """
    by_place: dict[str, ListedFile] = {}
    for argument in given:
        for file in _list(place_of(argument), channel):
            if file.place not in but:
                by_place.setdefault(file.place, file if file.exported or channel is None else file.of_channel(channel))
    if not by_place:
        raise DataError(f"no {', '.join(sorted(SUFFIXES))} file in {', '.join(map(str, given))}")
    return list(by_place.values())


def plate_names(folders: Iterable[str]) -> dict[str, str]:
    """The plate that each folder stands for: its name, with as much of its path as tells it from the others.

    A folder `Images` is its plate's, as in Harmony exports.
    """
    parts = {folder: [part for part in folder.split("/") if part and part.lower() != "images"] for folder in folders}
    different = len(set(map(tuple, parts.values())))
    for depth in range(1, max(map(len, parts.values()), default=0) + 1):
        names = {folder: "/".join(path[-depth:]) for folder, path in parts.items()}
        if len(set(names.values())) == different:
            return names
    return {folder: "/".join(path) for folder, path in parts.items()}


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
