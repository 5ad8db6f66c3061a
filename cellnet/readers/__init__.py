"""How images come in: each reader turns a source into `LabelledFile`s. Adding one is adding a file.

A reader is a module with `accepts(source) -> bool`, `read(source, options) -> Source` and `TAKES`, the options that
concern it. It looks at tables and names, not at pixels: decoding happens later, in parallel, one frame
at a time.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Final, Literal, overload

from cellnet.errors import DataError
from cellnet.images import apart
from cellnet.images.file import SUFFIXES, ImageFile, Pages, missing
from cellnet.readers.tables import number_of as number_of
from cellnet.readers.tables import read_csv as read_csv
from cellnet.store.objects import together
from cellnet.store.paths import AnyPath, real, refused_below

PAGES_READ: Final = 4
"""Files whose pages are looked at side by side; those of a bucket are read whole for it."""


@dataclass(frozen=True, kw_only=True)
class LabelledFile:
    """One image file and what its source says of it; None where that is not known."""

    image: ImageFile
    lineage: str | None = None
    count: float | None = None
    centres: tuple[tuple[float, float], ...] | None = None
    """(x, y) of every cell, in pixels."""
    group: str | None = None
    """What must stay on one side of a split: a well, a plate, a recording series."""
    batch: str | None = None
    """What was prepared and recorded together: a plate and its measurement, a day."""
    time_h: float | None = None
    """Hours since seeding."""
    pixel_um: float | None = None
    size_px: tuple[float, float] | None = None
    """Width and height of the image that the centres are of, where the source says them; they are scaled to it."""
    plane: int | None = None
    """Of a file of several, from 1, the one in which the cells were marked."""
    mask: ImageFile | None = None
    """An image of the cells, each a number of its own, from which count and centres are taken at import."""
    problem: str | None = None
    """Why this file cannot be taken, when the source itself is wrong about it."""


Reason = Literal[
    "no_image",
    "ambiguous",
    "duplicate",
    "no_label",
    "no_mask_image",
    "no_instances",
    "crowd",
    "nested",
    "split",
    "not_an_image",
    "other_format",
    "hidden",
    "thumbnail",
    "link",
    "no_path",
]
"""Why something of a source was not used: words that programs can count on."""


NO_IMAGE: Final = f"no {', '.join(sorted(SUFFIXES))} file"


@dataclass(frozen=True)
class Unused:
    """Something of a source that an import had no use for: a row, points, a mask, a file."""

    what: str
    """As the user would look for it: counts.csv line 7: b03.png."""
    reason: Reason
    why: str
    """The reason in words, with what to do."""
    number: int = 1
    """How many of the kind, where they are told together: the points of one image."""


@dataclass(frozen=True)
class Source(Sequence[LabelledFile]):
    """The images of a source with their labels, and what of it was not used."""

    files: list[LabelledFile]
    unused: list[Unused] = field(default_factory=list)

    @overload
    def __getitem__(self, place: int) -> LabelledFile: ...
    @overload
    def __getitem__(self, place: slice) -> list[LabelledFile]: ...
    def __getitem__(self, place: int | slice) -> LabelledFile | list[LabelledFile]:
        return self.files[place]

    def __len__(self) -> int:
        return len(self.files)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a source may leave open: the options of `cellnet bank import`."""

    channel: str | None = None
    """What to take of files of several channels; every reader's, like `page`."""
    lineages: AnyPath | None = None
    """A CSV with the columns well,lineage."""
    layer: str | None = None
    population: str | None = None
    spread_counts: bool = False
    """Share the count of a well out evenly over its fields."""
    lineage_pattern: str | None = None
    """A regular expression; its first group, in the name of a file, is the lineage."""
    group_pattern: str | None = None
    page: Pages | None = None
    """What to take of files of several pages."""


def is_file(path: AnyPath) -> bool:
    """Whether a file is there; no for a name that no file can have, or a folder that may not be entered."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: AnyPath) -> bool:
    """Whether a folder is there; no for a name that no folder can have, or one above that may not be entered."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_inside(path: AnyPath, folder: AnyPath) -> bool:
    """Whether a path, its links followed, leads into a folder; also where links lead in a circle, or nowhere."""
    try:
        return real(path).is_relative_to(real(folder))
    except ValueError:  # no path can be so
        return False


def matched(pattern: str | None, name: str, what: str) -> str | None:
    """The first group of a pattern in a file name, or all that it matches."""
    if pattern is None:
        return None
    try:
        match = re.search(pattern, name)
    except re.error as error:
        raise DataError(f"the pattern of the {what}, {pattern!r}, is not a regular expression: {error}") from error
    if match is None:
        return None
    return match.group(1) if match.re.groups else match.group()


KNOWN = "a manifest.csv, a folder of LINEAGE/*.png, images/ and masks/, a COCO .json or a Harmony export"


def read_source(source: AnyPath, options: Options | None = None) -> Source:
    """Every image of a source, and what of it was not used; `cellnet.store.paths.path_at` gives one in a bucket.

    Raises DataError when no reader knows it, or it has no use for an option.
    """
    from cellnet.readers import coco, folder, foreign, harmony, manifest, masks, points

    if not (is_file(source) or source.is_dir()):
        raise DataError(f"{source} {missing(source)}; give {KNOWN}")
    options = options or Options()
    given = {option.name for option in fields(Options) if getattr(options, option.name) != option.default}
    for reader in (foreign, manifest, coco, harmony, masks, folder):
        if reader.accepts(source):
            takes = reader.TAKES | {"channel", "page"} | (points.TAKES if reader in (manifest, folder) else set())
            if useless := sorted(given - takes):
                raise DataError(f"{source} has no use for --{useless[0].replace('_', '-')}; leave it out")
            found: Source = reader.read(source, options)
            if reader in (manifest, folder):
                found = points.with_points(found, source, options)
            if options.channel and reader is not harmony:  # whose index tells channels apart
                found = replace(found, files=[_of_channel(file, options.channel) for file in found])
            found.unused.extend(Unused(key, "no_path", why) for key, why in refused_below(source))
            if options.page is None:
                return found
            pages = together(partial(_choose_pages, wanted=options.page), found, threads=PAGES_READ)
            return replace(found, files=[page for chosen in pages for page in chosen])
    raise DataError(f"{source} is none of these: {KNOWN}")


def _of_channel(file: LabelledFile, channel: str) -> LabelledFile:
    return replace(file, image=replace(file.image, channel=channel))


def _choose_pages(file: LabelledFile, wanted: Pages) -> list[LabelledFile]:
    """The file's chosen pages, of one group; what cannot be read is set aside when it is."""
    try:
        pages = apart.with_header(file.image).pages(wanted)
    except DataError as error:
        return [replace(file, problem=str(error).removeprefix(f"{file.image.name}: "))]
    if len(pages) > 1 and (file.count is not None or file.mask is not None):
        reason = f"its count is that of one image, but it holds {len(pages)} pages; choose one of them"
        return [replace(file, problem=reason)]
    return [
        replace(file, image=page, group=file.group or (None if page.page is None else page.place)) for page in pages
    ]
