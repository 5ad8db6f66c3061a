"""What will hurt a training on the frames of a bank."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import pyarrow.compute as pc

from cellnet.bank.bank import Bank
from cellnet.bank.burnt import burnt_in
from cellnet.bank.columns import Frames, with_twins
from cellnet.bank.folds import ENOUGH_GROUPS, FOLDS, few_groups, groups_n
from cellnet.bank.frames import Frame
from cellnet.bank.outliers import unlike_the_rest
from cellnet.bank.quality import notes_on
from cellnet.errors import CellnetError

NAMED: Final = 8
"""Lineages that are named one by one."""


def outlook_of(frames: Iterable[Frame]) -> str:
    """How a training on these frames will score, and what more groups would change; empty where there is a plenty."""
    frames = Frames.of(frames)
    few = few_groups(frames)
    if not few:
        return ""
    numbers = sorted(few.values())
    span = f"{numbers[0]}" if numbers[0] == numbers[-1] else f"{numbers[0]} to {numbers[-1]}"
    named = ", ".join(few) if len(few) <= NAMED else f"{len(few)} lineages"
    each = " each" if len(few) > 1 else ""
    if all(number == 1 for number in frames.counted("lineage").values()):
        return f"{named}: one frame{each}, so a training learns from all and nothing can be scored; add more wells"
    return (
        f"{named}: {span} group{'s' * (numbers[-1] > 1)}{each}, so a training scores by {FOLDS} folds over all "
        f"labelled frames and holds none out; from {ENOUGH_GROUPS} groups{each} on it keeps a test split and a holdout"
    )


def warnings_in(bank: Bank, *, unread: Callable[[CellnetError], object] = repr) -> list[str]:
    """What will hurt a training on a bank, a sentence each; some of its frames are looked at.

    `unread` is told of pixels that cannot be read.
    """
    return [*warnings_of(bank.frames), *burnt_in(bank, unread=unread)]


def warnings_of(frames: Iterable[Frame]) -> list[str]:
    """What will hurt a training on these frames, a sentence each, as far as their table tells."""
    frames = Frames.of(frames)
    warnings = list(_of_groups(frames))
    for lineage, cells in _cells_by_split(frames).items():
        if cells["test"] > cells["train"]:
            warnings.append(
                f"{lineage}: {cells['test']:,} cells to test on and {cells['train']:,} to learn from, since its "
                "groups cannot be dealt more evenly; training by folds learns from all of them (--set folds=5)"
            )
    if few := frames.known("greys").values("greys"):
        values = f"{min(few)} to {max(few)}" if min(few) < max(few) else f"{few[0]}"
        warnings.append(
            f"{len(few)} of {len(frames)} frames have {values} grey values only and may look black; they are trained "
            "on like others, but finer differences are lost: export the camera's whole range if you can"
        )
    warnings += [*unlike_the_rest(frames), *notes_on(frames)]
    if earlier_n := len(frames.misread):
        warnings.append(
            f"{earlier_n} of {len(frames)} frames are of TIFF files that an earlier cellnet read, some kinds of them "
            "wrong (white for black, planar colour, pixel sizes in µm); import them again: what comes out otherwise "
            "is named"
        )
    warnings += _of_batches(frames)
    counts = frames.known("count").column("count")
    if 0 < len(counts) < len(frames):
        warnings.append(f"{len(frames) - len(counts)} of {len(frames)} frames have no count; a counter leaves them out")
    if len(counts) > 1 and pc.max(counts).as_py() == 0:
        warnings.append("every count is 0, so there is nothing to learn for a counter; look at the column count")
    if copies := frames.where(pc.greater(pc.binary_length(frames.column("twin")), 0)):
        pairs = zip(
            *(zip(one.values("lineage"), one.values("count"), strict=True) for one in with_twins(copies, frames)),
            strict=True,
        )
        of_them = sum(labels != of_twin for labels, of_twin in pairs)
        labels = f"; {of_them} with another lineage or count, so look at their labels" if of_them else ""
        plural = "s" * (len(copies) > 1)
        warnings.append(
            f"{len(copies)} near-duplicate{plural}, kept on one side of the split with what they copy{labels}"
        )
    known = frames.known("lineage")
    for what, held in _facets(known, told=len(frames.known("batch")) == len(frames)).items():
        holders: dict[object, set[str]] = defaultdict(set)
        for lineage, value in held:
            holders[value].add(lineage)
        lineages = set[str]().union(*holders.values())
        alone = {name for names in holders.values() if len(names) == 1 for name in names}
        apart = sorted(alone - set[str]().union(*(names for names in holders.values() if len(names) > 1)))
        if len(lineages) > 1 and apart:
            names = "every lineage" if len(apart) == len(lineages) else ", ".join(apart)
            warnings.append(f"{names}: {what} that no other lineage has; a classifier may learn that, not the cells")
    return warnings


def _of_groups(frames: Frames) -> Iterator[str]:
    """Groups that say nothing, and lineages of one."""
    own = pc.equal(frames.column("group"), pc.utf8_slice_codeunits(frames.column("frame"), 0, 16))
    if len(frames) > 1 and pc.all(own).as_py():
        yield (
            "no frame has a group, so each is one of its own, and frames of one well stand on both sides of a split: "
            "scores are then too good; say the well, the dish or the day in the column group and import into a new bank"
        )
    elif len(frames) > 1 and len(frames.counted("group")) == 1:
        yield f"every frame is of one group, {frames[0].group}, so no score says how it goes on another"
        return
    if alone := [lineage for lineage, number in groups_n(frames).items() if number == 1]:
        yield f"{', '.join(alone)}: one group only, so it is not measured on other wells"


def _cells_by_split(frames: Frames) -> dict[str, Counter[str]]:
    """The cells of each lineage in each split, as far as they were counted."""
    cells: dict[str, Counter[str]] = defaultdict(Counter)
    for (lineage, split, count), number in frames.named.counted("lineage", "split", "count").items():
        cells[lineage][str(split)] += round(count or 0) * number
    return dict(sorted(cells.items()))


def _of_batches(frames: Frames) -> Iterator[str]:
    """What is known of one batch alone, so that no score of it says how it goes on the next."""
    batches: dict[str, set[str | None]] = defaultdict(set)
    for lineage, batch in frames.named.counted("lineage", "batch"):
        batches[lineage].add(batch)
    held = set[str | None]().union(*batches.values())
    if len(held) == 1 and None not in held:
        yield f"every frame is of one batch, {held.pop()}, so nobody can tell what another plate brings"
        return
    alone = {lineage: names.pop() for lineage, names in sorted(batches.items()) if len(names) == 1}
    if named := ", ".join(f"{lineage} ({batch})" for lineage, batch in alone.items() if batch is not None):
        yield f"{named}: in one batch only, so nobody can tell what another plate brings"


def _facets(frames: Frames, *, told: bool) -> dict[str, set[tuple[Any, ...]]]:
    """What may go along with a lineage by accident: each lineage with each value of it.

    A plate is the batch where these are `told`, else guessed from names of groups.
    """
    of_group = frames.counted("lineage", "batch" if told else "group")
    endings = pc.extract_regex(frames.column("source"), r"[^/](?P<suffix>\.[^./]+)$")
    suffixes = pc.utf8_lower(pc.fill_null(pc.struct_field(endings, "suffix"), ""))
    return {
        "a plate": {(lineage, name if told else name.rpartition("/")[0]) for lineage, name in of_group},
        "a frame size": {(lineage, tuple(size)) for lineage, *size in frames.counted("lineage", "height", "width")},
        "a pixel size": set(frames.counted("lineage", "pixel_um")),
        "a bit depth": set(frames.counted("lineage", "bits")),
        "a file format": set(frames.with_values("source", suffixes).counted("lineage", "source")),
    }
