"""On which side of the split a group stands: drawn once, over groups, so that no frame has siblings on both sides."""

import functools
import hashlib
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cellnet.bank.columns import Frames
from cellnet.bank.duplicates import linked
from cellnet.bank.frames import Frame
from cellnet.config.bank import BankSettings
from cellnet.config.choices import Split

DRAWS: Final = 64
"""Orders that are tried for groups whose counts differ."""
EXACT: Final = 2**53
"""Whole numbers below it are added without a rounding."""


def assign_splits(
    frames: Iterable[Frame], settings: BankSettings, *, near: Sequence[tuple[str, str]] = ()
) -> dict[str, Split]:
    """The split of every group; groups that have one keep it.

    Groups that share nearly equal frames, the pairs `near`, get the same split: that of the group among them that
    has one already, else they are drawn as one. Groups are drawn in a seeded order within their stratum (the
    lineages that they hold). A stratum's first goes to train, its second to holdout, its third to test; each later
    one goes where the shares lack most, so that shares hold whenever images are added and no group ever moves.
    Of several such orders the one is taken whose sides differ least in their mean count (rerandomisation: Morgan &
    Rubin 2012, 10.1214/12-AOS1008).
    """
    groups = _Groups(Frames.of(frames))
    splits = groups.splits
    touched = _touched(splits, near)
    strata: dict[tuple[str, ...], _Stratum] = defaultdict(_Stratum)
    for family in _families([group for group in groups.names if group not in splits], near):
        sides = sum((touched[group] for group in family if group in touched), Counter[Split]())
        stratum = strata[groups.stratum(family)]
        if sides:
            stratum.joined |= dict.fromkeys(family, max(sides, key=lambda side: (sides[side], side)))
        else:
            stratum.waiting.append(family)
    shares = _shares(settings)
    for lineages, stratum in strata.items():
        splits |= stratum.joined
        if not stratum.waiting:
            continue
        counts = groups.mean_counts([*stratum.joined, *itertools.chain.from_iterable(stratum.waiting)])
        sides_of = groups.sides(lineages)
        taken = Counter({split: len(places) for split, places in sides_of.items()}) + Counter(stratum.joined.values())
        fixed = {split: _Sum.of(groups.means(places)) for split, places in sides_of.items()}
        for split, means in _sides(stratum.joined, counts).items():
            fixed[split] = fixed.get(split, _Sum()).plus(means)
        draws = DRAWS if len({counts.get(group) for family in stratum.waiting for group in family}) > 1 else 1
        dealt = (stratum.dealt(shares, taken, _drawn(settings.seed, draw)) for draw in range(draws))  # few are held
        splits |= min(dealt, key=functools.partial(_imbalance, counts, fixed))
    return splits


def held_by_split(frames: Iterable[Frame]) -> list[dict[str, Any]]:
    """`lineage`, `split`, `frames`, `groups` and `cells` of every part of a bank; None for cells nobody counted."""
    told = ("lineage", "split", "frames", "groups", "cells")
    return [{name: part[name] for name in told} for part in contents(Frames.of(frames).named, "lineage", "split")]


def contents(frames: Frames, *columns: str) -> list[dict[str, Any]]:
    """What is held of each combination of the columns' values, in their order, None last: one pass over the frames.

    Beside the values `frames`, `groups`, `batches` and `cells`, of which nobody may know any, the youngest and oldest
    `time_h`, likewise, and the `darkest` and the `brightest` value.
    """
    parts = frames.table.group_by(list(columns), use_threads=False).aggregate(
        [
            ([], "count_all"),
            *(("group", "count_distinct"), ("batch", "count_distinct"), ("count", "sum")),
            *(("time_h", "min"), ("time_h", "max"), ("darkest", "min"), ("brightest", "max")),
        ]
    )
    held = [
        {
            **{name: part[name] for name in columns},
            "frames": part["count_all"],
            "groups": part["group_count_distinct"],
            "batches": part["batch_count_distinct"] or None,
            "cells": None if part["count_sum"] is None else round(part["count_sum"]),
            "time_h": None if part["time_h_min"] is None else [part["time_h_min"], part["time_h_max"]],
            "darkest": part["darkest_min"],
            "brightest": part["brightest_max"],
        }
        for part in parts.to_pylist()
    ]
    return sorted(held, key=lambda part: [(part[name] is None, part[name]) for name in columns])


class _Groups:
    """What is heeded of the groups of frames: arrays with a place for each (G,), since a bank may have a million."""

    def __init__(self, frames: Frames) -> None:
        group_N, self.names = _coded(frames.column("group"))
        lineage_N, self._lineages = _coded(pc.fill_null(frames.column("lineage"), ""))
        split_N, self._splits = _coded(frames.column("split"))
        self._place = dict(zip(self.names, range(len(self.names)), strict=True))
        sizes = (len(self.names), len(self._lineages), len(self._splits) + 1)
        kinds = pa.array(np.ravel_multi_index((group_N, lineage_N, split_N + 1), sizes) if len(group_N) else group_N)
        group_K, lineage_K, split_K = np.unravel_index(pc.unique(kinds).to_numpy(), sizes)  # as they come first
        has_one_K = split_K > 0
        self._split_G = np.full(len(self.names), -1)
        self._split_G[group_K[has_one_K]] = split_K[has_one_K] - 1
        self._lineage_G = np.full(len(self.names), -1)
        self._lineage_G[group_K] = lineage_K
        of_several = np.unique(group_K[self._lineage_G[group_K] != lineage_K])
        self._lineage_G[of_several] = -1
        is_mixed_K = self._lineage_G[group_K] < 0
        self._mixed: dict[int, set[str]] = {}
        """The lineages of each group that has several."""
        for group, lineage in zip(group_K[is_mixed_K].tolist(), lineage_K[is_mixed_K].tolist(), strict=True):
            self._mixed.setdefault(group, set()).add(self._lineages[lineage])
        self._mean_G = _means(group_N, frames.column("count"), len(self.names))

    @property
    def splits(self) -> dict[str, Split]:
        """Of the groups that have one."""
        has_one = np.flatnonzero(self._split_G >= 0)
        sides = zip(has_one.tolist(), self._split_G[has_one].tolist(), strict=True)
        return {self.names[place]: cast(Split, self._splits[side]) for place, side in sides}

    def stratum(self, family: Iterable[str]) -> tuple[str, ...]:
        """The lineages of some groups."""
        return tuple(sorted(set[str]().union(*(self._lineages_of(self._place[group]) for group in family))))

    def sides(self, lineages: tuple[str, ...]) -> dict[Split, NDArray[np.int64]]:
        """The places of the groups on each side that hold these lineages and no others."""
        if len(lineages) == 1:
            is_of = self._lineage_G == self._lineages.index(lineages[0])
        else:
            is_of = np.zeros(len(self.names), bool)
            is_of[[place for place, held in self._mixed.items() if held == set(lineages)]] = True
        sides = {
            cast(Split, split): np.flatnonzero(is_of & (self._split_G == n)) for n, split in enumerate(self._splits)
        }
        return {split: places for split, places in sides.items() if len(places)}

    def means(self, places: NDArray[np.int64]) -> list[float]:
        """The mean counts of a frame of the groups at these places, where they are known."""
        mean_P = self._mean_G[places]
        return list(mean_P[~np.isnan(mean_P)].tolist())

    def mean_counts(self, groups: Iterable[str]) -> dict[str, float]:
        """The mean count of a frame of each group; of groups without a count nothing."""
        means = {group: float(self._mean_G[self._place[group]]) for group in groups}
        return {group: mean for group, mean in means.items() if not math.isnan(mean)}

    def _lineages_of(self, place: int) -> set[str]:
        return self._mixed.get(place) or {self._lineages[self._lineage_G[place]]}


def _coded(texts: pa.ChunkedArray) -> tuple[NDArray[np.int64], list[str]]:
    """The number of each text (N,), -1 for null, and the texts, in the order in which they come first."""
    coded = texts.combine_chunks().dictionary_encode()
    return coded.indices.fill_null(-1).to_numpy().astype(np.int64), coded.dictionary.to_pylist()


def _means(group_N: NDArray[np.int64], counts: pa.ChunkedArray, number: int) -> NDArray[np.float64]:
    """The mean of the known counts of each group (G,), each sum rounded once (`math.fsum`); NaN where none is known."""
    is_known_N = pc.is_valid(counts).to_numpy()
    group_K, count_K = group_N[is_known_N], counts.drop_null().to_numpy()
    known_G = np.bincount(group_K, minlength=number)
    sum_G = np.bincount(group_K, weights=count_K, minlength=number)
    is_whole = count_K == np.floor(count_K)
    if count_K.sum() >= EXACT:
        is_whole[:] = False
    rough_G = np.zeros(number, bool)  # more than one addition was rounded
    rough_G[group_K[~is_whole]] = True
    rough_G &= known_G > 2
    rough_K = np.flatnonzero(rough_G[group_K])
    rough_K = rough_K[np.argsort(group_K[rough_K], kind="stable")]
    numbers = known_G[rough_G]
    for place, held in zip(np.flatnonzero(rough_G), np.split(count_K[rough_K], np.cumsum(numbers)), strict=False):
        sum_G[place] = math.fsum(held.tolist())
    mean_G = np.full(number, np.nan)
    np.divide(sum_G, known_G, out=mean_G, where=known_G > 0)
    return mean_G


class _Sum(NamedTuple):
    """Of numbers, without a rounding: few that have the same sum."""

    number: int = 0
    parts: tuple[float, ...] = ()

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Self:
        parts: list[float] = []
        while rest := math.fsum([*numbers, *(-part for part in parts)]):
            parts.append(rest)
        return cls(len(numbers), tuple(parts))

    def plus(self, numbers: Sequence[float]) -> "_Sum":
        return _Sum(self.number + len(numbers), (*self.parts, *numbers))


@dataclass
class _Stratum:
    """Groups of the same lineages that had no side: those that join others on theirs, and families that wait."""

    joined: dict[str, Split] = field(default_factory=dict)
    waiting: list[list[str]] = field(default_factory=list)

    def dealt(
        self, shares: dict[Split, float], taken: Mapping[Split, int], drawn: Callable[[list[str]], bytes]
    ) -> dict[str, Split]:
        """The sides of the waiting families when they get theirs in the order that is drawn.

        `taken`: how many groups of the same lineages have each side already.
        """
        splits: dict[str, Split] = {}
        families = sorted(self.waiting, key=drawn)
        for family, split in zip(families, _in_turn(shares, taken, map(len, families)), strict=True):
            splits |= dict.fromkeys(family, split)
        return splits


def _sides(splits: Mapping[str, Split], counts: Mapping[str, float]) -> dict[Split, list[float]]:
    """The mean counts of the groups of each side, where they are known."""
    sides: dict[Split, list[float]] = defaultdict(list)
    for group, split in splits.items():
        if group in counts:
            sides[split].append(counts[group])
    return sides


def _imbalance(counts: Mapping[str, float], fixed: Mapping[Split, _Sum], splits: Mapping[str, Split]) -> float:
    """How far the mean counts of the sides are from that of all, squared, each weighed by its groups.

    `fixed`: the counts of groups that have a side besides.
    """
    new = _sides(splits, counts)
    sides = [fixed.get(split, _Sum()).plus(new.get(split, ())) for split in {**fixed, **new}]
    mean = math.fsum(itertools.chain.from_iterable(side.parts for side in sides)) / max(sum(s.number for s in sides), 1)
    return math.fsum((math.fsum(side.parts) - mean * side.number) ** 2 / side.number for side in sides if side.number)


def _families(groups: Sequence[str], near: Sequence[tuple[str, str]]) -> list[list[str]]:
    """The groups, those together that are near each other, directly or through others."""
    place = {group: number for number, group in enumerate(groups)}
    links = [(place[left], place[right]) for left, right in near if left in place and right in place]
    return [sorted(family) for family in linked(groups, links)]


def _touched(splits: dict[str, Split], near: Sequence[tuple[str, str]]) -> dict[str, Counter[Split]]:
    """How often each group without a split is near a group of each split."""
    touched: dict[str, Counter[Split]] = defaultdict(Counter)
    for pair in near:
        for group, neighbour in (pair, pair[::-1]):
            if group not in splits and neighbour in splits:
                touched[group][splits[neighbour]] += 1
    return touched


def _shares(settings: BankSettings) -> dict[Split, float]:
    rest = 1 - settings.holdout_share
    return {
        "train": rest * (1 - settings.test_share),
        "holdout": settings.holdout_share,
        "test": rest * settings.test_share,
    }


def _in_turn(shares: dict[Split, float], taken: Mapping[Split, int], sizes: Iterable[int]) -> Iterator[Split]:
    """The side of each family of so many groups: one that has none yet, else the one that lacks most."""
    splits, wanted, has = list(shares), list(shares.values()), [taken.get(split, 0) for split in shares]
    for size in sizes:
        total = sum(has) + 1
        lacks = [share * total - number for share, number in zip(wanted, has, strict=True)]
        place = has.index(0) if 0 in has else lacks.index(max(lacks))
        has[place] += size
        yield splits[place]


def _drawn(seed: int, draw: int) -> Callable[[list[str]], bytes]:
    name = f"{seed}/{draw}" if draw else f"{seed}"
    return lambda family: hashlib.sha256(f"{name}/{family[0]}".encode()).digest()
