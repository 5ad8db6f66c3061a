"""Labels from a table: a row a frame, or a row a cell.

    image,lineage,count,points,by,why      points are x y; x y; …
    sha256,unusable,seen,accepted          seen is the version whose answer was looked at, like classifier@3
    sha256,count,drawn                     drawn is chosen or random, of frames that cellnet suggest lists
    image,x,y                              the centres of an image's cells, a row each

The names of images, the words for what is not known and the numbers are read as in a manifest. A manifest with
corrections is such a table: rows that say what the bank has already are left out, unless somebody says them by name.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from cellnet.bank.bank import Bank
from cellnet.bank.finding import find_frames
from cellnet.bank.frames import Frame
from cellnet.bank.labels import NONE_OF_THESE, USABLE, Label, label_of
from cellnet.errors import DataError
from cellnet.readers import number_of, read_csv
from cellnet.readers.labels import one_row
from cellnet.readers.tables import COLUMNS as SIMILAR
from cellnet.readers.tables import Row, not_a_count
from cellnet.store.paths import AnyPath

SAYS: Final = ("lineage", "count", "points", "unusable", "accepted")
"""Columns of which one at least must be there."""
COLUMNS: Final = ("image", "sha256", *SAYS, "by", "why", "at", "seen", "seen_lineage", "seen_count", "drawn")
OF_MANIFESTS: Final = ("group", "batch", "time_h", "pixel_um")
"""Which are no labels: they stay as they were imported."""
_YES: Final = frozenset({"yes", "y", "true", "1", "x"})
_NO: Final = frozenset({"no", "n", "false", "0"})
_POINT: Final = re.compile(r"\s*(\S+?)[\s,]+(\S+)\s*")


@dataclass(frozen=True)
class LabelTable:
    """What came of a table of labels."""

    labels: list[Label]
    same: int = 0
    """Frames of which it says what the bank has already."""
    left_out: list[str] = field(default_factory=list)
    """Rows that give no label, and why, a line each."""
    columns: list[str] = field(default_factory=list)
    """Columns that it has and labels have not."""


def read_labels(table: AnyPath, bank: Bank) -> LabelTable:
    """The labels of a table for frames of a bank. Raises DataError for a table of which no row can be used."""
    rows = read_csv(table, (), numbers=("count", "seen_count", "x", "y"))
    columns = rows[0].columns if rows else []
    if rows and "sha256" not in columns:
        read_csv(table, ("image",))  # which says what the column is called there
    if not rows:
        raise DataError(f"{table} has no rows; add one row a frame")
    by_point = {"x", "y"} <= set(columns)
    if not by_point and not set(SAYS) & set(columns):
        raise DataError(f"{table} says nothing of its frames; it needs one of {', '.join(SAYS)}{_hint(columns)}")
    frames = find_frames(bank, (_named(row) for row in rows))
    left_out: list[str] = []
    of_frame: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        name = _named(row)
        found = frames[name]
        if found.frame is None:
            why = found.why_not if name else "the cell of its image is empty"
            left_out.append(f"{table.name} line {row.line}: {why}")
        else:
            of_frame[found.frame, row["by"]].append(row)
    make = _label_of_points if by_point else _label_of_rows
    known = {frame.frame: frame for frame in bank.frames.named_by("frame", {frame for frame, _ in of_frame})}
    labels, same = [], 0
    for (frame, _), held in of_frame.items():
        try:
            label = make(frame, held, table)
        except DataError as error:
            left_out.append(f"{table.name} line {held[0].line}: {_named(held[0])}: {error}")
            continue
        if label is None or (not (label.by or label.accepted or label.seen) and _says_the_same(label, known[frame])):
            same += 1
        else:
            labels.append(label)
    if not labels and not same:
        raise DataError(f"no row of {table} gives a label; the first of {len(left_out)}: {left_out[0]}")
    used = {*COLUMNS, *(("x", "y") if by_point else ())}
    unknown = [f"{name}{_hint([name])}" for name in columns if name and name not in used]
    return LabelTable(labels, same, left_out, unknown)


def _named(row: Row) -> str:
    return row["sha256"] or row["image"]


def _hint(columns: Iterable[str]) -> str:
    """What a column may be meant for."""
    squeezed = {re.sub(r"[\s_-]", "", name): name for name in columns}
    meant = [
        f"rename {squeezed[other]} to {name}"
        for name in COLUMNS
        for other in SIMILAR.get(name, ())
        if other in squeezed
    ]
    return f" ({'; '.join(meant)})" if meant else ""


def _label_of_points(frame: str, rows: Sequence[Row], table: AnyPath) -> Label:
    points: dict[tuple[float, float], None] = {}
    for row in rows:
        x, y = number_of(row["x"]), number_of(row["y"])
        if x is None or y is None:
            raise DataError(f"x and y are pixels, not {row['x']!r} and {row['y']!r}, in line {row.line}")
        points[x, y] = None
    whole, contradiction, _ = one_row([Row(_said(row), row.line, row.columns) for row in rows], table)
    if contradiction:
        raise DataError(contradiction)
    return label_of(frame=frame, points=tuple(points), **_whose(whole))


def _said(row: Row) -> Mapping[str, str]:
    return {name: cell for name, cell in row.items() if name in ("by", "why", "at", "drawn")}


def _label_of_rows(frame: str, rows: Sequence[Row], table: AnyPath) -> Label | None:
    """What the rows of a frame say together; None where that is nothing."""
    row, contradiction, _ = one_row(rows, table)
    if contradiction:
        raise DataError(contradiction)
    said: dict[str, Any] = {}
    if lineage := row["lineage"]:
        said["lineage"] = NONE_OF_THESE if lineage.casefold() == NONE_OF_THESE else lineage
    for name in ("count", "seen_count"):
        if row[name]:
            count = number_of(row[name])
            if count is None or count < 0:
                raise DataError(not_a_count(row[name]))
            said[name] = count
    if row["points"]:
        said["points"] = _points(row["points"])
    if word := row["unusable"].casefold():
        said["unusable"] = USABLE if word in _NO else word
    if answer := row["accepted"].casefold():
        if answer not in _YES | _NO:
            raise DataError(f"accepted is yes or no, not {row['accepted']!r:.80}")
        said["accepted"] = answer in _YES
    count, seen = said.pop("seen_count", None), row["seen"]
    if seen or count is not None or row["seen_lineage"]:
        versions = tuple(filter(None, re.split(r"[\s,;]+", seen)))
        said["seen"] = {"versions": versions, "lineage": row["seen_lineage"] or None, "count": count}
    if not any(said.get(name) for name in ("lineage", "points", "unusable", "accepted")) and "count" not in said:
        return None
    return label_of(frame=frame, **said, **_whose(row))


def _whose(row: Row) -> dict[str, Any]:
    at = None
    if row["at"]:
        try:
            at = datetime.fromisoformat(row["at"])
        except ValueError as error:
            raise DataError(f"the time {row['at']!r:.80} is none; write it like 2026-11-29T10:30") from error
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return {"by": row["by"], "why": row["why"], "at": at, "drawn": row["drawn"].casefold() or None}


def _points(text: str) -> tuple[tuple[float, float], ...]:
    """The points of a cell.

    >>> _points("12.5 30; 14,8")
    ((12.5, 30.0), (14.0, 8.0))
    """
    points = []
    for part in filter(str.strip, text.split(";")):
        match = _POINT.fullmatch(part)
        x, y = (number_of(match[1]), number_of(match[2])) if match else (None, None)
        if x is None or y is None:
            raise DataError(f"points are written as x y; x y; …, not {part.strip()!r:.80}")
        points.append((x, y))
    return tuple(points)


def _says_the_same(label: Label, frame: Frame) -> bool:
    """Whether a frame has already all that a label says of it."""
    centres = None if frame.centres is None else tuple((x, y) for x, y in frame.centres)
    has = {
        "lineage": frame.lineage or NONE_OF_THESE,
        "count": frame.count,
        "points": centres,
        "unusable": frame.unusable or USABLE,
    }
    return all(has[name] == value for name, value in label.says.items())
