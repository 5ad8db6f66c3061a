"""Rows of tables given to the images that they name: counts, points, whatever is said of an image.

A row that names no image, or that two images could be meant by, is never given to one: it comes back as not used.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import numpy as np

from cellnet.errors import DataError
from cellnet.readers import Reason, Unused, number_of
from cellnet.readers.columns import read_columns
from cellnet.readers.matching import Names
from cellnet.readers.tables import Row, with_point
from cellnet.store.paths import AnyPath

R = TypeVar("R")


@dataclass(frozen=True)
class Given(Generic[R]):
    """The rows of every image, and what is left."""

    rows: dict[str, list[R]] = field(default_factory=dict)
    doubts: dict[str, str] = field(default_factory=dict)
    """Of images that a row may mean, or may not: why nobody can tell."""
    unused: list[Unused] = field(default_factory=list)


def give_rows(rows: Sequence[Row], images: Iterable[str], table: AnyPath) -> Given[Row]:
    """Rows by the image that their cell `image` means. Raises DataError where not one of them means any."""
    of_name: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of_name[row["image"]].append(row)
    return _give(of_name, images, table, lambda row: row.line, what="row")


def _give(
    of_name: Mapping[str, Sequence[R]], images: Iterable[str], table: AnyPath, line_of: Callable[[R], int], *, what: str
) -> Given[R]:
    """The rows of each written name by the image that it means."""
    given: Given[R] = Given()
    for name, match in Names(images).find_all(of_name).items():
        if match.one is not None:
            given.rows.setdefault(match.one, []).extend(of_name[name])
            continue
        why = match.why_not(name) if name else "the cell of its image is empty"
        given.doubts.update(dict.fromkeys(match.images, f"{why}, in {table.name}"))
        reason: Reason = "ambiguous" if match.images else "no_image"
        first = f"{table.name} line {line_of(of_name[name][0])}: {name}"
        given.unused.append(Unused(first, reason, why, len(of_name[name])))
    if of_name and not given.rows and not given.doubts:
        raise DataError(
            f"{table}: no {what} of its {sum(map(len, of_name.values()))} is of an image here, the first of "
            f"{next(iter(of_name))!r}; write the names of the images as they lie beside it"
        )
    return given


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
            what = f"{table.name} line {row.line}: {row['image']}"
            unused.append(Unused(what, "duplicate", f"line {told.line} says the same"))
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
    rows = read_columns(table, _OF_POINTS, lambda _: _OF_POINTS)
    x_N, y_N = (rows.numbers(axis, lambda text: number_of(with_point(text))) for axis in "xy")
    of_name = {name: places.tolist() for (name,), places in rows.places_of("image").items()}
    given = _give(of_name, images, table, lambda place: int(rows.lines_N[place]), what="point")
    unused = given.unused
    centres = {}
    for image, places in given.rows.items():
        xs, ys = x_N[places], y_N[places]
        if (wrong_N := np.flatnonzero(np.isnan(xs + ys))).size:
            place = places[wrong_N[0]]
            x, y = (with_point(rows.text(axis, place)) for axis in "xy")
            raise DataError(f"{table} line {rows.lines_N[place]}: x and y are pixels, not {x!r} and {y!r}")
        centres[image] = tuple(dict.fromkeys(zip(xs.tolist(), ys.tolist(), strict=True)))
        if twice := len(places) - len(centres[image]):
            what = f"{table.name}: points of {image}"
            unused.append(Unused(what, "duplicate", "the very place of another point of the image", twice))
    return Points(centres, given.doubts, unused)


_OF_POINTS: Final = ("image", "x", "y")
