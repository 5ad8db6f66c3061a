"""On which side of the split a group stands: drawn once, over groups, so that no frame has siblings on both sides."""

import functools
import hashlib
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cellnet.bank.columns import Frames
from cellnet.bank.duplicates import linked
from cellnet.bank.frames import Frame
from cellnet.config.bank import BankSettings
from cellnet.config.choices import Split

DRAWS: Final = 64
"""Orders that are tried for groups whose counts differ."""


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
    frames = Frames.of(frames)
    lineages: dict[str, set[str]] = defaultdict(set)
    splits: dict[str, Split] = {}
    for group, lineage, split in frames.counted("group", "lineage", "split"):
        lineages[group].add(lineage or "")
        if split is not None:
            splits[group] = split
    strata: dict[tuple[str, ...], _Stratum] = defaultdict(_Stratum)
    for group, split in splits.items():
        strata[_stratum(lineages, [group])].splits[group] = split
    touched = _touched(splits, near)
    for family in _families([group for group in lineages if group not in splits], near):
        sides = sum((touched[group] for group in family if group in touched), Counter[Split]())
        stratum = strata[_stratum(lineages, family)]
        if sides:
            stratum.splits |= dict.fromkeys(family, max(sides, key=lambda side: (sides[side], side)))
        else:
            stratum.waiting.append(family)
    counts, shares = mean_counts(frames), _shares(settings)
    for stratum in strata.values():
        splits |= stratum.splits
        if not stratum.waiting:
            continue
        draws = DRAWS if len({counts.get(group) for family in stratum.waiting for group in family}) > 1 else 1
        fixed = _sides(stratum.splits, counts)
        dealt = (stratum.dealt(shares, _drawn(settings.seed, draw)) for draw in range(draws))  # of which few are held
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


def mean_counts(frames: Iterable[Frame]) -> dict[str, float]:
    """The mean count of a frame of each group; of groups without a count nothing."""
    counted = Frames.of(frames).known("count")
    counts: dict[str, list[float]] = defaultdict(list)
    for group, count in zip(counted.values("group"), counted.values("count"), strict=True):
        counts[group].append(count)
    return {group: math.fsum(held) / len(held) for group, held in counts.items()}


@dataclass
class _Stratum:
    """Groups of the same lineages: those that have a side, and families that wait for one."""

    splits: dict[str, Split] = field(default_factory=dict)
    waiting: list[list[str]] = field(default_factory=list)

    @functools.cached_property
    def taken(self) -> Counter[Split]:
        """How many groups have each side."""
        return Counter(self.splits.values())

    def dealt(self, shares: dict[Split, float], drawn: Callable[[list[str]], bytes]) -> dict[str, Split]:
        """The sides of the waiting families when they get theirs in the order that is drawn."""
        splits: dict[str, Split] = {}
        families = sorted(self.waiting, key=drawn)
        for family, split in zip(families, _in_turn(shares, self.taken, map(len, families)), strict=True):
            splits |= dict.fromkeys(family, split)
        return splits


def _sides(splits: Mapping[str, Split], counts: Mapping[str, float]) -> dict[Split, list[float]]:
    """The mean counts of the groups of each side, where they are known."""
    sides: dict[Split, list[float]] = defaultdict(list)
    for group, split in splits.items():
        if group in counts:
            sides[split].append(counts[group])
    return sides


def _imbalance(counts: Mapping[str, float], fixed: Mapping[Split, list[float]], splits: Mapping[str, Split]) -> float:
    """How far the mean counts of the sides are from that of all, squared, each weighed by its groups.

    `fixed`: the counts of groups that have a side besides.
    """
    new = _sides(splits, counts)
    sides = [[*fixed.get(split, ()), *new.get(split, ())] for split in {**fixed, **new}]
    known_n = sum(map(len, sides))
    mean = math.fsum(itertools.chain.from_iterable(sides)) / max(known_n, 1)
    return math.fsum((math.fsum(side) - mean * len(side)) ** 2 / len(side) for side in sides)


def _stratum(lineages: dict[str, set[str]], groups: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set[str]().union(*(lineages[group] for group in groups))))


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
