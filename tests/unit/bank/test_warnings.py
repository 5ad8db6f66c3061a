"""What will hurt a training is said when images come in."""

from dataclasses import replace
from typing import Any

from cellnet.bank.folds import ENOUGH_GROUPS
from cellnet.bank.frames import Frame
from cellnet.bank.warnings import outlook_of, warnings_of


def frames(*lineages: str | None, **known: Any) -> list[Frame]:
    """A frame of each, of a group of its own."""
    return [
        Frame(
            **({"frame": f"{n:016x}" + 48 * "0", "source": f"{n}.png", "lineage": lineage, "group": f"P1/w{n}"} | known)
        )
        for n, lineage in enumerate(lineages)
    ]


def test_groups_that_are_not_known_or_all_the_same_are_told() -> None:
    unknown = [replace(one, group=one.frame[:16]) for one in frames("A549", "A549", "THP1", "THP1")]
    [told] = warnings_of(unknown)
    assert told.startswith("no frame has a group, so each is one of its own")
    assert warnings_of([*unknown[1:], replace(unknown[0], group="w1")]) == []
    assert warnings_of(frames("A549", "THP1", group="dish")) == [
        "every frame is of one group, dish, so no score says how it goes on another"
    ]
    assert warnings_of(unknown[:1]) == ["A549: one group only, so it is not measured on other wells"]


def test_counts_that_are_all_zero_are_told() -> None:
    assert warnings_of(frames(None, None, count=0.0)) == [
        "every count is 0, so there is nothing to learn for a counter; look at the column count"
    ]
    assert warnings_of([*frames(None, None, count=0.0), *frames(None, count=1.0)]) == []


def test_of_few_groups_it_is_said_how_a_training_scores_and_how_many_would_change_that() -> None:
    assert outlook_of(frames("A549", "A549", "THP1", "THP1", "THP1")) == (
        "A549, THP1: 2 to 3 groups each, so a training scores by 5 folds over all labelled frames and holds none out; "
        "from 20 groups each on it keeps a test split and a holdout"
    )
    assert outlook_of(frames("A549", "A549", group="w")).startswith("A549: 1 group, so a training scores by 5 folds")
    assert outlook_of(frames("A549", "THP1")) == (
        "A549, THP1: one frame each, so a training learns from all and nothing can be scored; add more wells"
    )
    many = frames(*["A549"] * ENOUGH_GROUPS)
    assert outlook_of(many) == "" and outlook_of(many[1:]).startswith(f"A549: {ENOUGH_GROUPS - 1} groups, so")
    assert outlook_of(frames(*(f"L{n}" for n in range(9)), *"LL")).startswith("10 lineages: 1 to 2 groups each, so")
