"""Folds: labelled frames dealt so that each is answered by a network that learned from no frame of its group.

The network of a fold learns from all frames but those of the fold, and answers these: cross-validation (Stone 1974,
10.1111/j.2517-6161.1974.tb00994.x). It measures on all frames where one split measures on a few.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cellnet.bank.columns import NOT_KNOWN, Frames
from cellnet.bank.duplicates import linked, near_pairs
from cellnet.bank.frames import Frame
from cellnet.bank.splits import mean_count

ENOUGH_GROUPS: Final = 20
"""A lineage with fewer groups makes a bank small. By the bank's shares one with twenty has five or six to choose and
calibrate by, and two held out: the fewest of which a score says anything."""
FOLDS: Final = 5
"""Of a small bank. With more folds each network learns from a little more, and all of them take longer."""

Unit = list[Frame]
"""Frames that are held back together."""


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


def deal_folds(frames: Sequence[Frame], number: int, *, seed: int) -> Folds:
    """Frames dealt into so many folds, or as many as there is something for: the same whatever their order.

    A group stays together, and with it the groups that hold near-duplicates of its frames. Of each lineage the folds
    get as many groups as each other, give or take one, and those with many cells go where there are few so far. The
    frames of a lineage that has one group alone are dealt one by one; the last of what there is of a lineage trains in
    every fold.
    """
    near = near_pairs([frame.fingerprint for frame in frames])
    families = linked(frames, [*near, *_siblings(frames, lambda frame: True)])
    alone = {lineage for lineage, families_n in _units_of(families).items() if families_n == 1}
    units = linked(frames, [*near, *_siblings(frames, lambda frame: frame.lineage not in alone)])
    of_lineage = _units_of(units)
    held = [unit for unit in units if all(of_lineage[frame.lineage] > 1 for frame in unit)]
    number = min(number, len(held))
    fold_of = {frame.frame: fold for unit, fold in _dealt(held, number, seed) for frame in unit}
    scored = {frame.lineage for unit in held for frame in unit}
    return Folds(
        number=number,
        fold_of=fold_of,
        groups=len({frame.group for unit in held for frame in unit}),
        one_group=tuple(sorted(_told(lineage) for lineage in alone & scored)),
        unmeasured=tuple(sorted(_told(lineage) for lineage in set(of_lineage) - scored)),
    )


def deal_batches(frames: Sequence[Frame], *, most: int | None = None) -> Folds:
    """Folds of which each holds one batch back, in the order of their names; of more than `most`, several each.

    Batches that share a group, or nearly the same frame, are held back together. Frames whose batch is not known train
    in every fold, and so do those of a batch that is all there is of one of its lineages: nobody can name, without
    it, what it holds.
    """
    near = near_pairs([frame.fingerprint for frame in frames])
    by_batch = _siblings(frames, _has_batch, lambda frame: frame.batch or "")
    families = linked(frames, [*near, *_siblings(frames, lambda frame: True), *by_batch])
    batches = [unit for unit in families if any(map(_has_batch, unit))]
    of_lineage = _units_of(batches)
    held = [unit for unit in batches if all(of_lineage[frame.lineage] > 1 for frame in unit)]
    held.sort(key=lambda unit: min(frame.batch or "" for frame in unit if _has_batch(frame)))
    held = held if len(held) > 1 else []
    number = len(held) if most is None else min(most, len(held))
    dealt = _dealt(held, number, seed=0) if number < len(held) else zip(held, range(1, number + 1), strict=True)
    scored = {frame.lineage for unit in held for frame in unit}
    return Folds(
        number=number,
        fold_of={frame.frame: fold for unit, fold in dealt for frame in unit},
        groups=len({frame.group for unit in held for frame in unit}),
        one_group=(),
        unmeasured=tuple(sorted(_told(lineage) for lineage in {frame.lineage for frame in frames} - scored)),
        by_batch=True,
    )


def _has_batch(frame: Frame) -> bool:
    return frame.batch is not None


def _dealt(units: Iterable[Unit], number: int, seed: int) -> Iterator[tuple[Unit, int]]:
    """Each unit with its fold."""
    folds = [_Fold() for _ in range(number)]
    for unit in sorted(units, key=lambda unit: (_stratum(unit), -_mean_count(unit), _drawn(unit, seed))):
        loads = [fold.load(unit) for fold in folds]
        emptiest = loads.index(min(loads))
        folds[emptiest].add(unit)
        yield unit, emptiest + 1


class _Fold:
    """What a fold holds so far."""

    def __init__(self) -> None:
        self.units = Counter[str | None]()
        """Of each lineage."""
        self.cells: dict[tuple[str, ...], float] = defaultdict(float)
        """The mean counts of the units of each stratum, added up."""
        self.frames = 0

    def load(self, unit: Unit) -> tuple[float, ...]:
        """How much it holds already of what a unit would bring: the fold that holds least gets it."""
        return max(self.units[frame.lineage] for frame in unit), self.cells[_stratum(unit)], self.frames

    def add(self, unit: Unit) -> None:
        self.units.update({frame.lineage for frame in unit})
        self.cells[_stratum(unit)] += _mean_count(unit)
        self.frames += len(unit)


def _siblings(
    frames: Sequence[Frame],
    chosen: Callable[[Frame], bool],
    name: Callable[[Frame], str] = lambda frame: frame.group,
) -> Iterator[tuple[int, int]]:
    """Each chosen frame with the first chosen one of its group, or of what else `name` says."""
    first: dict[str, int] = {}
    for place, frame in enumerate(frames):
        if chosen(frame):
            yield first.setdefault(name(frame), place), place


def _units_of(units: Iterable[Unit]) -> Counter[str | None]:
    """In how many units each lineage has frames."""
    return Counter(lineage for unit in units for lineage in {frame.lineage for frame in unit})


def _stratum(unit: Unit) -> tuple[str, ...]:
    return tuple(sorted({frame.lineage or "" for frame in unit}))


def _mean_count(unit: Unit) -> float:
    return mean_count(unit) or 0.0


def _drawn(unit: Unit, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{min(frame.frame for frame in unit)}".encode()).digest()


def _told(lineage: str | None) -> str:
    return lineage or NOT_KNOWN
