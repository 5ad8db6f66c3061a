"""Rows of tables given to the images that they name: counts, points, whatever is said of an image.

A row that names no image, or that two images could be meant by, is never given to one: it comes back as not used.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cellnet.errors import DataError
from cellnet.readers import Reason, Unused, number_of, read_csv
from cellnet.readers.matching import Names
from cellnet.readers.tables import Row
from cellnet.store.paths import AnyPath


@dataclass(frozen=True)
class Given:
    """The rows of every image, and what is left."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    doubts: dict[str, str] = field(default_factory=dict)
    """Of images that a row may mean, or may not: why nobody can tell."""
    unused: list[Unused] = field(default_factory=list)


def give_rows(rows: Sequence[Row], images: Iterable[str], table: AnyPath, *, what: str = "row") -> Given:
    """Rows by the image that their cell `image` means. Raises DataError where not one of them means any."""
    of_name: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of_name[row["image"]].append(row)
    given = Given()
    for name, match in Names(images).find_all(of_name).items():
        if match.one is not None:
            given.rows.setdefault(match.one, []).extend(of_name[name])
            continue
        why = match.why_not(name) if name else "the cell of its image is empty"
        given.doubts.update(dict.fromkeys(match.images, f"{why}, in {table.name}"))
        given.unused.append(_unused(of_name[name], name, table, why, "ambiguous" if match.images else "no_image"))
    if rows and not given.rows and not given.doubts:
        raise DataError(
            f"{table}: no {what} of its {len(rows)} is of an image here, the first of {rows[0]['image']!r}; write the "
            "names of the images as they lie beside it"
        )
    return given


def _unused(rows: Sequence[Row], name: str, table: AnyPath, why: str, reason: Reason) -> Unused:
    return Unused(f"{table.name} line {rows[0].line}: {name}", reason, why, len(rows))


def one_row(rows: Sequence[Row], table: AnyPath) -> tuple[Row, str | None, list[Unused]]:
    """What several rows of one image say together, what they contradict each other in, and those that said nothing new.

    Rows that say the same are one; where one is silent the other speaks.
    """
    told = Row(rows[0], rows[0].line, rows[0].columns)
    unused: list[Unused] = []
    for row in rows[1:]:
        new = {name: cell for name, cell in row.items() if cell and name != "image" and cell != told.get(name)}
        if other := next((name for name in new if told.get(name)), None):
            why = f"{table.name} lines {told.line} and {row.line} say {told[other]} and {row[other]} as its {other}"
            return told, f"{why}; keep one of them", unused
        if not new:
            unused.append(_unused([row], row["image"], table, f"line {told.line} says the same", "duplicate"))
        told.update(new)
    return told, None, unused


Point = tuple[float, float]


@dataclass(frozen=True)
class Points:
    """The centres of the cells of images, and what of their table was not used."""

    centres: dict[str, tuple[Point, ...]]
    doubts: dict[str, str]
    unused: list[Unused]

    def of(self, image: str, count: float | None) -> tuple[Point, ...] | None:
        """The centres of an image; those of one that is said to hold no cell are none, not unknown ones."""
        return self.centres.get(image, () if count == 0 else None)


def read_points(table: AnyPath, images: Iterable[str]) -> Points:
    """The points of every image (image,x,y, one row a cell, in pixels), each once.

    Raises DataError for what is no point, and where no point is of an image here.
    """
    rows = read_csv(table, ("image", "x", "y"), numbers=("x", "y"))
    given = give_rows(rows, images, table, what="point")
    unused = given.unused
    centres = {}
    for image, held in given.rows.items():
        points = [_point(row, table) for row in held]
        centres[image] = tuple(dict.fromkeys(points))
        if twice := len(points) - len(centres[image]):
            what = f"{table.name}: points of {image}"
            unused.append(Unused(what, "duplicate", "the very place of another point of the image", twice))
    return Points(centres, given.doubts, unused)


def _point(row: Row, table: AnyPath) -> Point:
    x, y = number_of(row["x"]), number_of(row["y"])
    if x is None or y is None:
        raise DataError(f"{table} line {row.line}: x and y are pixels, not {row['x']!r} and {row['y']!r}")
    return x, y
