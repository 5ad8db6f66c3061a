"""Frames of a bank that look out of focus, saturated or empty, by what was measured when they came.

Focus is told against the frames of the same batch and pixel size, or of all batches where these are few.
"""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cellnet.bank.columns import Frames
from cellnet.bank.frames import Frame
from cellnet.errors import DataError
from cellnet.images.quality import EMPTY, FEWEST, FLAGS, SATURATED, WORDS, Flag, Focus, Measures, flags_of
from cellnet.images.scale import factor_between

NAMED: Final = 3
"""Frames that are named one by one."""


def flagged(frames: Iterable[Frame]) -> dict[str, list[Flag]]:
    """The flags of the frames that have any, by their names; those that a label calls unusable take no part."""
    frames = measured(frames)
    of_batches, of_all = _focus_by(frames, "batch", "pixel_um"), _focus_by(frames, "pixel_um")
    highest = max((focus.limit for focus in (*of_batches.values(), *of_all.values())), default=0.0)
    suspects = frames.where(
        pc.or_(
            pc.less(pc.fill_null(frames.column("focus"), np.inf), highest),
            pc.or_(
                pc.greater_equal(frames.column("brightest_share"), SATURATED),
                pc.less(frames.column("structure"), EMPTY),
            ),
        )
    )
    columns = ("frame", "focus", "brightest_share", "structure", "batch", "pixel_um")
    found = {}
    for name, focus, brightest_share, structure, batch, pixel_um in zip(*map(suspects.values, columns), strict=True):
        measures = Measures(focus=focus, brightest_share=brightest_share, structure=structure)
        if flags := flags_of(measures, of_batches.get((batch, pixel_um)) or of_all.get((pixel_um,))):
            found[name] = flags
    return found


def measured(frames: Iterable[Frame]) -> Frames:
    """The frames of which this is known, without those that a label calls unusable."""
    return Frames.of(frames).known("structure").equal("unusable", None)


def focus_of(
    frames: Iterable[Frame], pixel_um: float | None, *, new: Collection[str] = (), before: Focus | None = None
) -> Focus | None:
    """That of frames which a network sees as they were recorded, at its `pixel_um`; None where they are few.

    Of a version that starts from another, that of the softest which it learned: of all, of the `new` frames where these
    are softer, or what it was `before`.
    """
    frames = measured(frames)
    same = [_is_of(size, pixel_um) for size in frames.values("pixel_um")]
    frames = frames.where(pa.array(same, pa.bool_())).known("focus")
    of_all = Focus.of(frames.values("focus"))
    if of_all is None:
        return None
    of_new = of_all.softer(frames.named_by("frame", sorted(new)).values("focus"), fewest=FEWEST)
    return min((of_all, *(focus for focus in (of_new, before) if focus)), key=lambda focus: focus.limit)


def notes_on(frames: Iterable[Frame]) -> Iterator[str]:
    """A sentence on each flag that frames have: how many, the first of them, and what to do."""
    frames = Frames.of(frames)
    flags = flagged(frames)
    for flag in FLAGS:
        names = [name for name, held in flags.items() if flag in held]
        if names:
            sources = [Path(source).name for source in frames.named_by("frame", names).values("source")]
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            looks = "looks" if len(names) == 1 else "look"
            why = {"out_of_focus": "focus", "saturated": "other", "empty": "empty"}[flag]
            yield (
                f"{len(names)} of {len(frames)} frames {looks} {WORDS[flag]}: {', '.join(sources[:NAMED])}{more}; "
                f"they teach all the same: what is of no use, say so by cellnet bank label, unusable {why}"
            )


def _focus_by(frames: Frames, *names: str) -> dict[tuple[Any, ...], Focus]:
    """That of the frames of each combination of these columns of which there are enough."""
    known = frames.known("focus")
    table = pa.table({name: known.column(name) for name in (*names, "focus")})
    groups = table.group_by(list(names), use_threads=False).aggregate([("focus", "list")])
    kinds = zip(*(groups[name].to_pylist() for name in names), strict=True)
    of = {kind: Focus.of(values.values.to_numpy()) for kind, values in zip(kinds, groups["focus_list"], strict=True)}
    return {kind: focus for kind, focus in of.items() if focus}


def _is_of(pixel_um: float | None, trained_um: float | None) -> bool:
    """Whether a network sees a frame as it was recorded."""
    try:
        return factor_between(pixel_um, trained_um) == 1
    except DataError:
        return False
