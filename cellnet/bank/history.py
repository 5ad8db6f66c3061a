"""What counts of all that was said of frames: the newest, of each field by itself, unless it was taken back.

What people said before stays beside it, and where they disagree can be asked for.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cellnet.bank.columns import Frames
from cellnet.bank.frames import Frame
from cellnet.bank.labels import NONE_OF_THESE, USABLE, Drawn, Labels

COMPARED: Final = ("lineage", "count", "unusable")
"""What people may say otherwise than others."""


@dataclass(frozen=True)
class Disagreement:
    """What several people say otherwise of a frame; the last of them counts."""

    frame: str
    what: str
    """`lineage`, `count` or `unusable`."""
    said: dict[str, Any]
    """By whom, in the order in which they said it."""


def taken_back(labels: Labels) -> dict[int, int]:
    """The entries whose labels were taken back, each with the entry that did it.

    What takes back may be taken back itself.
    """
    column = labels.table.select(["entry", "undoes"])
    undoing = (
        column.filter(pc.is_valid(column.column("undoes")))
        .group_by(["entry", "undoes"], use_threads=False)
        .aggregate([])
    )
    back: dict[int, int] = {}
    for row in sorted(undoing.to_pylist(), key=lambda row: -row["entry"]):
        if row["entry"] not in back:
            back.setdefault(row["undoes"], row["entry"])
    return back


def standing(labels: Labels) -> Labels:
    """The labels that were not taken back, without those that take back."""
    table = labels.table.filter(pc.is_null(labels.table.column("undoes")))
    back = pa.array(taken_back(labels), pa.int32())
    return Labels(table.filter(pc.invert(pc.is_in(table.column("entry"), back))))


def drawn(labels: Labels) -> dict[str, Drawn]:
    """How frames came to be labelled, of those that were suggested: by their names, as was said of them last."""
    table = standing(labels).table.select(["frame", "drawn"])
    return {row["frame"]: row["drawn"] for row in table.filter(pc.is_valid(table.column("drawn"))).to_pylist()}


def with_labels(frames: Frames, labels: Labels) -> Frames:
    """The frames as they were imported with what counts of the labels; the same where none of them has any."""
    said: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    columns = ["frame", "lineage", "count", "points", "unusable"]
    for row in standing(labels).table.select(columns).to_pylist():
        said[row["frame"]].append(row)
    if not said:  # an index of a million names takes half a second
        return frames
    names = pa.array(said, pa.string())
    places = pc.index_in(names, value_set=frames.column("frame").combine_chunks()).to_pylist()
    return frames.with_frames(
        {
            place: _told(frames[place], rows)
            for place, rows in zip(places, said.values(), strict=True)
            if place is not None
        }
    )


def _told(frame: Frame, rows: Iterable[Mapping[str, Any]]) -> Frame:
    """The frame with what is said of it, one after the other.

    A count without points leaves the centres only where it is theirs: else these are not known any more.
    """
    for row in rows:
        if row["lineage"] is not None:
            frame = replace(frame, lineage=None if row["lineage"] == NONE_OF_THESE else row["lineage"])
        if row["points"] is not None:
            frame = replace(frame, count=float(len(row["points"])), centres=row["points"])
        elif row["count"] is not None:
            centres = [] if row["count"] == 0 else frame.centres
            kept = centres if centres is not None and len(centres) == row["count"] else None
            frame = replace(frame, count=row["count"], centres=kept)
        if row["unusable"] is not None:
            frame = replace(frame, unusable=None if row["unusable"] == USABLE else row["unusable"])
    return frame


def disagreements(labels: Labels) -> list[Disagreement]:
    """Where people say different things of a frame, by what each said last and did not take back."""
    last: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    for row in standing(labels).table.select(["frame", "by", *COMPARED]).to_pylist():
        for what in COMPARED:
            if row[what] is not None:
                said = last[row["frame"], what]
                said.pop(row["by"] or "", None)
                said[row["by"] or ""] = row[what]
    return [Disagreement(frame, what, said) for (frame, what), said in last.items() if len(set(said.values())) > 1]
