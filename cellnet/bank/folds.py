"""Folds: labelled frames dealt so that each is answered by a network that learned from no frame of its group.

The network of a fold learns from all frames but those of the fold, and answers these: cross-validation (Stone 1974,
10.1111/j.2517-6161.1974.tb00994.x). It measures on all frames where one split measures on a few.
"""

import hashlib
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

from cellnet.bank.columns import NOT_KNOWN, Frames
from cellnet.bank.duplicates import linked, near_pairs
from cellnet.bank.frames import Frame

ENOUGH_GROUPS: Final = 20
"""A lineage with fewer groups makes a bank small. By the bank's shares one with twenty has five or six to choose and
calibrate by, and two held out: the fewest of which a score says anything."""
FOLDS: Final = 5
"""Of a small bank. With more folds each network learns from a little more, and all of them take longer."""

Unit = list[int]
"""The places of frames that are held back together."""


@dataclass(frozen=True, kw_only=True)
class Folds:
    """Which fold holds back which frame."""

    number: int
    """0 where no frame can be held back: then nothing is scored."""
    fold_of: dict[str, int]
    """The fold, from 1, of each frame by its name. One that is not here trains in every fold and is never scored."""
    groups: int
    """Of the frames that are held back."""
    one_group: tuple[str, ...]
    """Lineages of one group, dealt by frame: their scores say nothing of other wells."""
    unmeasured: tuple[str, ...]
    """Lineages that are never scored, since one frame, or copies of one, is all there is of them; or one batch, by
    batch."""
    by_batch: bool = False
    """Whether whole batches are held back, so that what is scored is what a new one brings."""

    @property
    def held_back(self) -> dict[int, frozenset[str]]:
        """The names of the frames that each fold holds back."""
        held: dict[int, set[str]] = {fold: set() for fold in range(1, self.number + 1)}
        for name, fold in self.fold_of.items():
            held[fold].add(name)
        return {fold: frozenset(names) for fold, names in held.items()}


def few_groups(frames: Iterable[Frame]) -> dict[str, int]:
    """The lineages that make a bank small, with their numbers of groups."""
    return {lineage: number for lineage, number in groups_n(frames).items() if number < ENOUGH_GROUPS}


def groups_n(frames: Iterable[Frame]) -> dict[str, int]:
    """The number of groups of each lineage, in the order of their names."""
    of_groups = Frames.of(frames).named.counted("lineage", "group")
    return dict(sorted(Counter(lineage for lineage, _ in of_groups).items()))


def deal_folds(frames: Iterable[Frame], number: int, *, seed: int) -> Folds:
    """Frames dealt into so many folds, or as many as there is something for: the same whatever their order.

    A group stays together, and with it the groups that hold near-duplicates of its frames. Of each lineage the folds
    get as many groups as each other, give or take one, and those with many cells go where there are few so far. The
    frames of a lineage that has one group alone are dealt one by one; the last of what there is of a lineage trains in
    every fold.
    """
    heeded = _Heeded.of(frames)
    families = heeded.linked(heeded.groups)
    alone = {lineage for lineage, families_n in heeded.units_of(families).items() if families_n == 1}
    by_group = zip(heeded.groups, heeded.lineages, strict=True)
    units = heeded.linked(None if lineage in alone else group for group, lineage in by_group)
    of_lineage = heeded.units_of(units)
    held = [unit for unit in units if all(of_lineage[heeded.lineages[place]] > 1 for place in unit)]
    number = min(number, len(held))
    scored = heeded.units_of(held)
    return Folds(
        number=number,
        fold_of={heeded.names[place]: fold for unit, fold in _dealt(held, heeded, number, seed) for place in unit},
        groups=len({heeded.groups[place] for unit in held for place in unit}),
        one_group=tuple(sorted(_told(lineage) for lineage in alone & scored.keys())),
        unmeasured=tuple(sorted(_told(lineage) for lineage in of_lineage.keys() - scored.keys())),
    )


def deal_batches(frames: Iterable[Frame], *, most: int | None = None) -> Folds:
    """Folds of which each holds one batch back, in the order of their names; of more than `most`, several each.

    Batches that share a group, or nearly the same frame, are held back together. Frames whose batch is not known train
    in every fold, and so do those of a batch that is all there is of one of its lineages: nobody can name, without
    it, what it holds.
    """
    heeded = _Heeded.of(frames)
    batches = heeded.batches
    units = [
        unit for unit in heeded.linked(heeded.groups, batches) if any(batches[place] is not None for place in unit)
    ]
    of_lineage = heeded.units_of(units)
    held = [unit for unit in units if all(of_lineage[heeded.lineages[place]] > 1 for place in unit)]
    held.sort(key=lambda unit: min(batch for place in unit if (batch := batches[place]) is not None))
    held = held if len(held) > 1 else []
    number = len(held) if most is None else min(most, len(held))
    in_turn = zip(held, range(1, number + 1), strict=True)
    dealt = _dealt(held, heeded, number, seed=0) if number < len(held) else in_turn
    return Folds(
        number=number,
        fold_of={heeded.names[place]: fold for unit, fold in dealt for place in unit},
        groups=len({heeded.groups[place] for unit in held for place in unit}),
        one_group=(),
        unmeasured=tuple(sorted(_told(one) for one in set(heeded.lineages) - heeded.units_of(held).keys())),
        by_batch=True,
    )


@dataclass(frozen=True, kw_only=True)
class _Heeded:
    """What is heeded of frames, a value for each in its place: columns, since a bank may have a million."""

    names: Sequence[str]
    lineages: Sequence[str | None]
    groups: Sequence[str]
    batches: Sequence[str | None]
    counts: Sequence[float | None]
    near: Sequence[tuple[int, int]]
    """The places of near-duplicates."""

    @classmethod
    def of(cls, frames: Iterable[Frame]) -> Self:
        frames = Frames.of(frames)
        return cls(
            names=frames.values("frame"),
            lineages=frames.values("lineage"),
            groups=frames.values("group"),
            batches=frames.values("batch"),
            counts=frames.values("count"),
            near=near_pairs(frames.column("fingerprint")),
        )

    def linked(self, *names: Iterable[str | None]) -> list[Unit]:
        """The frames, those together that are near each other, or of one name, directly or through others."""
        links = itertools.chain(self.near, *map(_namesakes, names))
        return linked(range(len(self.names)), links)

    def units_of(self, units: Iterable[Unit]) -> Counter[str | None]:
        """In how many units each lineage has frames."""
        return Counter(lineage for unit in units for lineage in {self.lineages[place] for place in unit})

    def stratum(self, unit: Unit) -> tuple[str, ...]:
        """The lineages of a unit."""
        return tuple(sorted({self.lineages[place] or "" for place in unit}))

    def mean_count(self, unit: Unit) -> float:
        """Of a frame, as far as they were counted; 0 where none was."""
        counts = [count for place in unit if (count := self.counts[place]) is not None]
        return math.fsum(counts) / len(counts) if counts else 0.0

    def drawn(self, unit: Unit, seed: int) -> bytes:
        """By what the order of units that are alike is drawn."""
        return hashlib.sha256(f"{seed}/{min(self.names[place] for place in unit)}".encode()).digest()


def _dealt(units: Iterable[Unit], heeded: _Heeded, number: int, seed: int) -> Iterator[tuple[Unit, int]]:
    """Each unit with its fold: of those that hold least of its lineages so far, then of its cells, then of frames."""
    of_lineage = [Counter[str | None]() for _ in range(number)]
    cells = [defaultdict[tuple[str, ...], float](float) for _ in range(number)]
    frames_n = [0] * number
    ordered = sorted((heeded.stratum(unit), -heeded.mean_count(unit), heeded.drawn(unit, seed), unit) for unit in units)
    for stratum, less_cells, _, unit in ordered:
        lineages = {heeded.lineages[place] for place in unit}
        loads = [
            (max(of_lineage[fold][lineage] for lineage in lineages), cells[fold][stratum], frames_n[fold])
            for fold in range(number)
        ]
        emptiest = loads.index(min(loads))
        of_lineage[emptiest].update(lineages)
        cells[emptiest][stratum] -= less_cells
        frames_n[emptiest] += len(unit)
        yield unit, emptiest + 1


def _namesakes(names: Iterable[str | None]) -> Iterator[tuple[int, int]]:
    """Each place that has a name, with the first of that name."""
    first: dict[str, int] = {}
    for place, name in enumerate(names):
        if name is not None:
            yield first.setdefault(name, place), place


def _told(lineage: str | None) -> str:
    return lineage or NOT_KNOWN
