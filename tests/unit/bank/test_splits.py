"""Groups that share copies of a frame stand on one side; what has a side keeps it."""

import random

import pytest

from cellnet.bank.frames import Frame
from cellnet.bank.splits import assign_splits
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
