"""On which side of the split a group stands: drawn once, over groups, so that no frame has siblings on both sides."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from cellnet.bank.frames import Frame
from cellnet.config.bank import BankSettings
from cellnet.config.choices import Split


def assign_splits(
    frames: Iterable[Frame], settings: BankSettings, *, near: Sequence[tuple[str, str]] = ()
) -> dict[str, Split]:
    """The split of every group; groups that have one keep it.

    Groups that share nearly equal frames, the pairs `near`, get the same split: that of the group among them that
    has one already, else they are drawn as one. Groups are drawn in a seeded order within their stratum (the
    lineages that they hold). A stratum's first goes to train, its second to holdout, its third to test; each later
    one goes where the shares lack most, so that shares hold whenever images are added and no group ever moves.
    """
    lineages: dict[str, set[str]] = defaultdict(set)
    splits: dict[str, Split] = {}
    for frame in frames:
        lineages[frame.group].add(frame.lineage or "")
        if frame.split is not None:
            splits[frame.group] = frame.split
    taken: dict[tuple[str, ...], Counter[Split]] = defaultdict(Counter)
    for group, split in splits.items():
        taken[_stratum(lineages, [group])][split] += 1
    strata: dict[tuple[str, ...], list[list[str]]] = defaultdict(list)
    for family in _families([group for group in lineages if group not in splits], near):
        strata[_stratum(lineages, family)].append(family)
    touched = _touched(splits, near)
    shares = _shares(settings)
    for stratum, families in strata.items():
        for family in sorted(families, key=_drawn(settings.seed)):
            sides = sum((touched[group] for group in family if group in touched), Counter[Split]())
            split = max(sides, key=lambda side: (sides[side], side)) if sides else _next_split(taken[stratum], shares)
            splits |= dict.fromkeys(family, split)
            taken[stratum][split] += len(family)
    return splits


def _stratum(lineages: dict[str, set[str]], groups: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set[str]().union(*(lineages[group] for group in groups))))


def _families(groups: Sequence[str], near: Sequence[tuple[str, str]]) -> list[list[str]]:
    """The groups, those together that are near each other, directly or through others."""
    family = {group: [group] for group in groups}
    for left, right in near:
        if left in family and right in family and family[left] is not family[right]:
            family[left] += family[right]
            for group in family[right]:
                family[group] = family[left]
    return [sorted(groups) for leader, groups in family.items() if leader == groups[0]]


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


def _next_split(taken: Counter[Split], shares: dict[Split, float]) -> Split:
    for split in shares:
        if not taken[split]:
            return split
    total = taken.total() + 1
    return max(shares, key=lambda split: shares[split] * total - taken[split])


def _drawn(seed: int) -> Callable[[list[str]], bytes]:
    return lambda family: hashlib.sha256(f"{seed}/{family[0]}".encode()).digest()
