"""Groups that share copies of a frame stand on one side; what has a side keeps it."""

import hashlib
import math
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from cellnet.bank.duplicates import linked
from cellnet.bank.frames import Frame
from cellnet.bank.splits import DRAWS, _in_turn, _shares, assign_splits
from cellnet.config.bank import BankSettings
from cellnet.config.choices import Split


def frames(*groups: str, split: Split | None = None) -> list[Frame]:
    return [Frame(frame=group, source=group, lineage="A549", group=group, split=split) for group in groups]


MANY = [f"well {number}" for number in range(30)]


def test_groups_near_each_other_are_drawn_as_one() -> None:
    chain = [("well 3", "well 17"), ("well 17", "well 25"), ("well 25", "well 3")]
    splits = assign_splits(frames(*MANY), BankSettings(), near=chain)
    assert splits["well 3"] == splits["well 17"] == splits["well 25"]
    assert set(splits.values()) == {"train", "test", "holdout"} and len(splits) == 30


def test_the_draw_depends_on_neither_order() -> None:
    near = [("well 3", "well 17"), ("well 4", "well 5"), ("well 17", "well 4")]
    backwards = [pair[::-1] for pair in near[::-1]]
    shuffled = random.Random(0).sample(MANY, 30)
    drawn = assign_splits(frames(*MANY), BankSettings(), near=near)
    assert drawn == assign_splits(frames(*shuffled), BankSettings(), near=backwards)


@pytest.mark.parametrize("side", ["train", "test", "holdout"])
def test_a_new_group_joins_the_side_of_what_it_copies(side: Split) -> None:
    known = frames("known", split=side)
    splits = assign_splits([*known, *frames("new", "newer")], BankSettings(), near=[("known", "new"), ("new", "newer")])
    assert splits == {"known": side, "new": side, "newer": side}


def test_between_two_sides_the_one_with_more_copies_wins_and_no_known_group_moves() -> None:
    known = [*frames("a", split="train"), *frames("b", split="holdout"), *frames("c", split="holdout")]
    near = [("a", "new"), ("b", "new"), ("c", "new"), ("a", "b")]
    splits = assign_splits([*known, *frames("new")], BankSettings(), near=near)
    assert splits == {"a": "train", "b": "holdout", "c": "holdout", "new": "holdout"}


def counted(counts: Sequence[float], *, start: int = 0, split: Split | None = None) -> list[Frame]:
    """A group of one frame for each count."""
    named = [f"well {start + number}" for number in range(len(counts))]
    return [
        replace(frame, count=count) for frame, count in zip(frames(*named, split=split), counts, strict=True)
    ]  # fmt: skip


def means_of(frames: list[Frame], splits: dict[str, Split]) -> dict[str, float]:
    sides = {side: [frame.count for frame in frames if splits[frame.group] == side] for side in set(splits.values())}
    return {side: float(np.mean(counts)) for side, counts in sides.items()}


def test_the_sides_of_the_split_have_alike_many_cells_a_frame() -> None:
    some = counted(np.random.default_rng(0).geometric(0.01, 100).astype(float).tolist())
    splits = assign_splits(some, BankSettings())
    assert Counter(splits.values()) == {"train": 63, "test": 27, "holdout": 10}
    means = means_of(some, splits)
    assert all(mean == pytest.approx(means["train"], rel=0.1) for mean in means.values()), means


def test_of_two_full_and_two_nearly_empty_wells_one_of_each_trains() -> None:
    for seed in range(10):
        wells = counted([222, 229, 3, 2])
        splits = assign_splits(wells, BankSettings(seed=seed))
        trained = sorted(frame.count for frame in wells if splits[frame.group] == "train")
        assert len(trained) == 2 and trained[0] < 10 < trained[1]


def test_groups_that_have_a_split_keep_it_and_new_ones_make_up_for_it() -> None:
    full, empty = counted([200.0] * 6, split="train"), counted([2.0] * 6, start=6)
    splits = assign_splits([*full, *empty, *counted([200.0] * 6, start=12)], BankSettings())
    assert {splits[frame.group] for frame in full} == {"train"}
    added = [frame for frame in [*empty, *counted([200.0] * 6, start=12)] if splits[frame.group] == "train"]
    assert sum(frame.count < 10 for frame in added) > len(added) / 2, "train has full wells already"


def test_the_draw_of_counted_groups_depends_on_the_seed_and_not_on_the_order() -> None:
    wells = counted([float(number**2) for number in range(30)])
    drawn = [
        assign_splits(items, BankSettings(seed=seed)) for items, seed in ((wells, 0), (wells[::-1], 0), (wells, 1))
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def plainly(items: Sequence[Frame], settings: BankSettings, near: Sequence[tuple[str, str]]) -> dict[str, Split]:
    """The same, group by group: every sum over all counts, in the order in which the frames come."""
    lineages: dict[str, set[str]] = defaultdict(set)
    held: dict[str, list[float]] = defaultdict(list)
    sides: dict[str, Split] = {}
    for item in items:
        lineages[item.group].add(item.lineage or "")
        if item.split is not None:
            sides[item.group] = item.split
        if item.count is not None:
            held[item.group].append(item.count)
    means = {group: math.fsum(counts) / len(counts) for group, counts in held.items()}
    fixed, waiting = dict(sides), defaultdict[tuple[str, ...], list[list[str]]](list)
    new = [group for group in lineages if group not in sides]
    links = [(new.index(one), new.index(two)) for one, two in near if one in new and two in new]
    for family in map(sorted, linked(new, links)):
        touched = Counter(sides[b] for pair in near for a, b in (pair, pair[::-1]) if a in family and b in sides)
        if touched:
            fixed |= dict.fromkeys(family, max(touched, key=lambda side: (touched[side], side)))
        else:
            waiting[tuple(sorted(set().union(*(lineages[group] for group in family))))].append(family)
    # a family that joins others is of the stratum of all that it holds
    of_family = {group: set(lineages[group]) for group in lineages}
    for family in map(sorted, linked(new, links)):
        for group in family:
            of_family[group] = set().union(*(lineages[one] for one in family))
    splits = dict(fixed)
    for stratum, families in waiting.items():
        alike = {group: side for group, side in fixed.items() if tuple(sorted(of_family[group])) == stratum}
        best: tuple[float, dict[str, Split]] | None = None
        varied = len({means.get(group) for family in families for group in family}) > 1
        for draw in range(DRAWS if varied else 1):
            seed = f"{settings.seed}/{draw}" if draw else f"{settings.seed}"
            drawn = sorted(families, key=lambda family: hashlib.sha256(f"{seed}/{family[0]}".encode()).digest())
            turn = _in_turn(_shares(settings), Counter(alike.values()), map(len, drawn))
            dealt = {group: side for family, side in zip(drawn, turn, strict=True) for group in family}
            of_side: dict[Split, list[float]] = defaultdict(list)
            for group, side in (alike | dealt).items():
                if group in means:
                    of_side[side].append(means[group])
            counts = [count for some in of_side.values() for count in some]
            mean = math.fsum(counts) / max(len(counts), 1)
            off = math.fsum((math.fsum(some) - mean * len(some)) ** 2 / len(some) for some in of_side.values())
            if best is None or off < best[0]:
                best = off, dealt
        assert best is not None
        splits |= best[1]
    return splits


@pytest.mark.parametrize("seed", range(12))
def test_groups_of_columns_are_dealt_as_they_are_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawn: list[Split | None] = ["train", "test", "holdout", None, None, None]
    side_of = [drawn[rng.integers(6)] for _ in range(60)]
    items = []
    for number in range(240):
        group = int(rng.integers(60))
        count = float(rng.integers(9)) if seed % 2 else float(rng.lognormal(3))
        lineage = ("AB"[group % 2], "C", None)[rng.choice(3, p=[0.9, 0.05, 0.05])]
        known = {"split": side_of[group], "lineage": lineage, "count": None if rng.random() < 0.2 else count}
        items.append(Frame(frame=f"{number:064x}", source=f"{number}", group=f"w{group}", **known))
    names = sorted({item.group for item in items})
    near = [(str(one), str(two)) for one, two in rng.choice(names, (4, 2))]
    settings = BankSettings(seed=seed)
    assert assign_splits(items, settings, near=near) == plainly(items, settings, near)
