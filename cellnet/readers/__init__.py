"""How images come in: each reader turns a source into `LabelledFile`s. Adding one is adding a file.

A reader is a module with `accepts(source) -> bool`, `read(source, options) -> Source` and `TAKES`, the options that
concern it. It looks at tables and names, not at pixels: decoding happens later, in parallel, one frame
at a time.
"""

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Final, Literal, overload

from cellnet.errors import DataError
from cellnet.images.file import ImageFile, Pages


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
    "crowd",
    "not_an_image",
    "other_format",
    "hidden",
    "thumbnail",
    "link",
]
"""Why something of a source was not used: words that programs can count on."""


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
    lineages: Path | None = None
    """A CSV with the columns well,lineage."""
    layer: str | None = None
    population: str | None = None
    spread_counts: bool = False
    """Share the count of a well out evenly over its fields."""
    lineage_pattern: str | None = None
    """A regular expression; its first group, in the name of a file, is the lineage."""
    group_pattern: str | None = None
    page: Pages | None = None
    """What to take of files of several pages; every reader's."""


def read_csv(path: Path, columns: Sequence[str], *, numbers: Sequence[str] = ()) -> list[dict[str, str]]:
    """The rows of a table, cells without blanks around them. Raises DataError for a missing column or no table.

    Cells end at a comma, a semicolon or a tab, whichever the header has most of. Where it is no comma, the cells of
    the columns `numbers` may have a decimal comma, which comes back as a point.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            separator = max(",;\t", key=file.readline().count)
            file.seek(0)
            reader = csv.DictReader(file, delimiter=separator)
            reader.fieldnames = names = [name.strip() for name in reader.fieldnames or ()]
            missing = [column for column in columns if column not in names]
            if missing:
                raise DataError(f"{path} has no column {', '.join(missing)}; it needs {','.join(columns)}")
            rows = [{key: (value or "").strip() for key, value in row.items() if key} for row in reader]
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {path} as a CSV table: it is not UTF-8; save it as CSV UTF-8") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"cannot read {path} as a CSV table: {error}") from error
    if separator != ",":
        for row in rows:
            row |= {
                name: row[name].replace(",", ".") for name in numbers if _DECIMAL_COMMA.fullmatch(row.get(name, ""))
            }
    return rows


_DECIMAL_COMMA: Final = re.compile(r"[+-]?\d+,\d+")


def is_file(path: Path) -> bool:
    """Whether a file is there; no for a name that no file can have, or a folder that may not be entered."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def number_of(text: str) -> float | None:
    """A finite number, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


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


def read_source(source: Path, options: Options | None = None) -> Source:
    """Every image of a source, and what of it was not used.

    Raises DataError when no reader knows it, or it has no use for an option.
    """
    from cellnet.readers import coco, folder, foreign, harmony, manifest, masks, points

    if not source.exists():
        raise DataError(f"{source} does not exist; give {KNOWN}")
    options = options or Options()
    given = {option.name for option in fields(Options) if getattr(options, option.name) != option.default}
    for reader in (foreign, manifest, coco, harmony, masks, folder):
        if reader.accepts(source):
            takes = reader.TAKES | (points.TAKES if reader in (manifest, folder) else frozenset())
            if useless := sorted(given - takes - {"page"}):
                raise DataError(f"{source} has no use for --{useless[0].replace('_', '-')}; leave it out")
            found: Source = reader.read(source, options)
            if reader in (manifest, folder):
                found = points.with_points(found, source, options)
            if options.page is None:
                return found
            return replace(found, files=[page for file in found for page in _choose_pages(file, options.page)])
    raise DataError(f"{source} is none of these: {KNOWN}")


def _choose_pages(file: LabelledFile, wanted: Pages) -> list[LabelledFile]:
    """The file's chosen pages, of one group; what cannot be read is set aside when it is."""
    try:
        pages = file.image.pages(wanted)
    except DataError as error:
        return [replace(file, problem=str(error).removeprefix(f"{file.image.name}: "))]
    if len(pages) > 1 and (file.count is not None or file.mask is not None):
        reason = f"its count is that of one image, but it holds {len(pages)} pages; choose one of them"
        return [replace(file, problem=reason)]
    if pages[0].page not in (None, file.plane or pages[0].page):
        reason = f"its cells are marked in plane {file.plane}, not {pages[0].page}; choose that: --page {file.plane}"
        return [replace(file, problem=reason)]
    return [
        replace(file, image=page, group=file.group or (None if page.page is None else page.place)) for page in pages
    ]
