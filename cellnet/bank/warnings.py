"""What will hurt a training on the frames of a bank."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from cellnet.bank.bank import Bank
from cellnet.bank.burnt import burnt_in
from cellnet.bank.folds import ENOUGH_GROUPS, FOLDS, few_groups, groups_n
from cellnet.bank.frames import Frame
from cellnet.bank.outliers import unlike_the_rest

NAMED: Final = 8
"""Lineages that are named one by one."""


def outlook_of(frames: Sequence[Frame]) -> str:
    """How a training on these frames will score, and what more groups would change; empty where there is a plenty."""
    few = few_groups(frames)
    if not few:
        return ""
    numbers = sorted(few.values())
    span = f"{numbers[0]}" if numbers[0] == numbers[-1] else f"{numbers[0]} to {numbers[-1]}"
    named = ", ".join(few) if len(few) <= NAMED else f"{len(few)} lineages"
    each = " each" if len(few) > 1 else ""
    if all(number == 1 for number in Counter(frame.lineage for frame in frames).values()):
        return f"{named}: one frame{each}, so a training learns from all and nothing can be scored; add more wells"
    return (
        f"{named}: {span} group{'s' * (numbers[-1] > 1)}{each}, so a training scores by {FOLDS} folds over all "
        f"labelled frames and holds none out; from {ENOUGH_GROUPS} groups{each} on it keeps a test split and a holdout"
    )


def warnings_in(bank: Bank) -> list[str]:
    """What will hurt a training on a bank, a sentence each; some of its frames are looked at."""
    return [*warnings_of(bank.frames), *burnt_in(bank)]


def warnings_of(frames: Sequence[Frame]) -> list[str]:
    """What will hurt a training on these frames, a sentence each, as far as their table tells."""
    warnings = list(_of_groups(frames))
    for lineage, cells in _cells_by_split(frames).items():
        if cells["test"] > cells["train"]:
            warnings.append(
                f"{lineage}: {cells['test']:,} cells to test on and {cells['train']:,} to learn from, since its "
                "groups cannot be dealt more evenly; training by folds learns from all of them (--set folds=5)"
            )
    if few := [frame.greys for frame in frames if frame.greys is not None]:
        values = f"{min(few)} to {max(few)}" if min(few) < max(few) else f"{few[0]}"
        warnings.append(
            f"{len(few)} of {len(frames)} frames have {values} grey values only and may look black; they are trained "
            "on like others, but finer differences are lost: export the camera's whole range if you can"
        )
    warnings += unlike_the_rest(frames)
    if earlier_n := sum(frame.may_be_misread for frame in frames):
        warnings.append(
            f"{earlier_n} of {len(frames)} frames are of TIFF files that an earlier cellnet read, some kinds of them "
            "wrong (white for black, planar colour, pixel sizes in µm); import them again: what comes out otherwise "
            "is named"
        )
    warnings += _of_batches(frames)
    counts = [frame.count for frame in frames if frame.count is not None]
    if 0 < len(counts) < len(frames):
        warnings.append(f"{len(frames) - len(counts)} of {len(frames)} frames have no count; a counter leaves them out")
    if len(counts) > 1 and not any(counts):
        warnings.append("every count is 0, so there is nothing to learn for a counter; look at the column count")
    by_name = {frame.frame: frame for frame in frames}
    if copies := [frame for frame in frames if frame.twin]:
        of_them = sum(
            (frame.lineage, frame.count) != (twin.lineage, twin.count)
            for frame in copies
            if (twin := by_name.get(str(frame.twin)))
        )
        labels = f"; {of_them} with another lineage or count, so look at their labels" if of_them else ""
        plural = "s" * (len(copies) > 1)
        warnings.append(
            f"{len(copies)} near-duplicate{plural}, kept on one side of the split with what they copy{labels}"
        )
    facets = dict(FACETS)
    if all(frame.batch is not None for frame in frames):  # told, where names of groups are guessed from
        facets["a plate"] = lambda frame: frame.batch
    for what, value_of in facets.items():
        holders: dict[object, set[str]] = defaultdict(set)
        for frame in frames:
            if frame.lineage is not None:
                holders[value_of(frame)].add(frame.lineage)
        lineages = set[str]().union(*holders.values())
        apart = sorted(name for name in lineages if all(held == {name} for held in holders.values() if name in held))
        if len(lineages) > 1 and apart:
            names = "every lineage" if len(apart) == len(lineages) else ", ".join(apart)
            warnings.append(f"{names}: {what} that no other lineage has; a classifier may learn that, not the cells")
    return warnings


def _of_groups(frames: Sequence[Frame]) -> Iterator[str]:
    """Groups that say nothing, and lineages of one."""
    if len(frames) > 1 and all(frame.group == frame.frame[:16] for frame in frames):
        yield (
            "no frame has a group, so each is one of its own, and frames of one well stand on both sides of a split: "
            "scores are then too good; say the well, the dish or the day in the column group and import into a new bank"
        )
    elif len(frames) > 1 and len({frame.group for frame in frames}) == 1:
        yield f"every frame is of one group, {frames[0].group}, so no score says how it goes on another"
        return
    if alone := [lineage for lineage, number in groups_n(frames).items() if number == 1]:
        yield f"{', '.join(alone)}: one group only, so it is not measured on other wells"


def _cells_by_split(frames: Sequence[Frame]) -> dict[str, Counter[str]]:
    """The cells of each lineage in each split, as far as they were counted."""
    cells: dict[str, Counter[str]] = defaultdict(Counter)
    for frame in frames:
        cells[frame.lineage or "(not known)"][str(frame.split)] += round(frame.count or 0)
    return dict(sorted(cells.items()))


def _of_batches(frames: Sequence[Frame]) -> Iterator[str]:
    """What is known of one batch alone, so that no score of it says how it goes on the next."""
    batches: dict[str, set[str | None]] = defaultdict(set)
    for frame in frames:
        batches[frame.lineage or "(not known)"].add(frame.batch)
    held = set[str | None]().union(*batches.values())
    if len(held) == 1 and None not in held:
        yield f"every frame is of one batch, {held.pop()}, so nobody can tell what another plate brings"
        return
    alone = {lineage: names.pop() for lineage, names in sorted(batches.items()) if len(names) == 1}
    if named := ", ".join(f"{lineage} ({batch})" for lineage, batch in alone.items() if batch is not None):
        yield f"{named}: in one batch only, so nobody can tell what another plate brings"


FACETS: Final[dict[str, Callable[[Frame], object]]] = {
    "a plate": lambda frame: frame.group.rpartition("/")[0],
    "a frame size": lambda frame: (frame.height, frame.width),
    "a pixel size": lambda frame: frame.pixel_um,
    "a bit depth": lambda frame: frame.bits,
    "a file format": lambda frame: Path(frame.source).suffix.lower(),
}
"""What may go along with a lineage by accident."""
