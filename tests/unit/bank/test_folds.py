"""Folds: no frame is answered by a network that learned from its group, and every fold is like the others."""

import hashlib
import random
from collections import Counter, defaultdict

import numpy as np
import pytest

from cellnet.bank.folds import deal_batches, deal_folds, few_groups
from cellnet.bank.frames import Frame
from tests.factories import frame


def wells(lineage: str | None, groups: int, frames: int = 1, start: int = 0, **known: object) -> list[Frame]:
    """So many wells of a lineage with so many frames each."""
    return [
        frame(start + frames * group + number, lineage, f"{lineage} {start} {group}", **known)
        for group in range(groups)
        for number in range(frames)
    ]


def test_every_frame_is_held_back_once_and_its_group_with_it() -> None:
    frames = wells("A549", 7, 3) + wells("THP1", 6, 2, start=100)
    folds = deal_folds(frames, 5, seed=0)
    assert (folds.number, folds.groups, set(folds.fold_of.values())) == (5, 13, {1, 2, 3, 4, 5})
    of_group = defaultdict(set)
    for one in frames:
        of_group[one.group].add(folds.fold_of[one.frame])
    assert all(len(held) == 1 for held in of_group.values())
    assert (folds.one_group, folds.unmeasured) == ((), ())


def test_each_lineage_is_dealt_evenly() -> None:
    frames = wells("A549", 12) + wells("THP1", 8, start=100) + wells("3T3", 2, start=200)
    folds = deal_folds(frames, 5, seed=0)
    for lineage, most in (("A549", 3), ("THP1", 2), ("3T3", 1)):
        held = Counter(folds.fold_of[one.frame] for one in frames if one.lineage == lineage)
        assert max(held.values()) == most and len(held) == min(5, sum(held.values()))
    assert max(Counter(folds.fold_of.values()).values()) <= 5, "22 frames"


def test_folds_have_alike_many_cells_however_unlike_the_wells_are() -> None:
    counts = np.random.default_rng(0).permutation(np.geomspace(1, 400, 40))
    frames = [frame(number, "A549", count=float(count)) for number, count in enumerate(counts)]
    folds = deal_folds(frames, 5, seed=0)
    cells = Counter[int]()
    for one in frames:
        cells[folds.fold_of[one.frame]] += one.count  # type: ignore[assignment]
    by_chance = [sum(counts[fold::5]) for fold in range(5)]
    assert np.ptp(list(cells.values())) < 0.25 * np.mean(list(cells.values())) < np.ptp(by_chance)


def test_groups_with_near_duplicates_are_held_back_together() -> None:
    copies = {"well 1", "well 4", "well 6"}
    frames = [
        frame(n, group=f"well {n}", fingerprint=("a" if f"well {n}" in copies else f"{n:x}") * 128) for n in range(10)
    ]
    folds = deal_folds(frames, 5, seed=0)
    assert len({folds.fold_of[one.frame] for one in frames if one.group in copies}) == 1 and folds.number == 5


def test_a_lineage_of_one_group_is_dealt_by_frame_and_marked_and_one_frame_trains_always() -> None:
    frames = wells("A549", 5) + wells("THP1", 1, 4, start=100) + wells("HUH7", 1, start=200)
    folds = deal_folds(frames, 5, seed=0)
    assert len({folds.fold_of[one.frame] for one in frames if one.lineage == "THP1"}) == 4
    assert (folds.one_group, folds.unmeasured) == (("THP1",), ("HUH7",))
    assert all(one.frame not in folds.fold_of for one in frames if one.lineage == "HUH7")
    copies = wells("A549", 5) + wells("HUH7", 1, 3, start=200, fingerprint="c" * 128)
    assert deal_folds(copies, 5, seed=0).unmeasured == ("HUH7",), "copies of one frame are one frame"


def test_there_are_no_more_folds_than_there_is_something_for() -> None:
    assert deal_folds(wells(None, 3), 5, seed=0).number == 3
    nothing = deal_folds(wells("A549", 1) + wells("THP1", 1, start=10), 5, seed=0)
    assert (nothing.number, nothing.fold_of) == (0, {})


@pytest.mark.parametrize("count", [None, 7.0])
def test_the_deal_depends_on_the_seed_and_not_on_the_order(count: float | None) -> None:
    frames = wells("A549", 20, 2, count=count)
    shuffled = random.Random(0).sample(frames, len(frames))
    first, again, other = (
        deal_folds(items, 5, seed=seed).fold_of for items, seed in ((frames, 0), (shuffled, 0), (frames, 1))
    )
    assert first == again != other


def test_what_is_dealt_stays_as_it_is_so_that_a_training_by_folds_can_be_resumed() -> None:
    frames = [
        frame(
            n,
            ("A549", "THP1", None)[n // 6 % 3],
            f"well {n // 3}",
            count=float(n * 7 % 23) if n % 5 else None,
            batch=("may", "june", None, "july")[n // 15 % 4],
            fingerprint=hashlib.sha512(b"%d" % (n % 109)).hexdigest(),
        )
        for n in range(120)
    ]
    dealt = [deal_folds(frames, 5, seed=0), deal_batches(frames)]
    assert [(folds.number, folds.groups) for folds in dealt] == [(5, 40), (2, 30)]
    of_each = [hashlib.sha256(repr(sorted(folds.fold_of.items())).encode()).hexdigest()[:16] for folds in dealt]
    assert of_each == ["a55f49c8481b68bf", "da8cf05a61d923c9"]


def test_the_lineages_that_make_a_bank_small_are_named_with_their_groups() -> None:
    assert few_groups(wells("A549", 20) + wells("THP1", 19, 3, start=100) + wells(None, 2, start=300)) == {
        "(not known)": 2,
        "THP1": 19,
    }


def held_by(frames: list[Frame]) -> dict[int, set[str | None]]:
    """The batches that each fold holds back."""
    held = defaultdict(set)
    for one in frames:
        if fold := deal_batches(frames).fold_of.get(one.frame):
            held[fold].add(one.batch)
    return dict(held)


def test_a_batch_is_left_out_whole_and_those_that_share_a_group_together() -> None:
    frames = [
        one
        for number, batch in enumerate(("may", "june", "july"))
        for lineage in ("A549", "THP1")
        for one in wells(lineage, 2, 2, start=100 * number + (50 if lineage == "THP1" else 0), batch=batch)
    ]
    assert held_by(frames) == {1: {"july"}, 2: {"june"}, 3: {"may"}}
    folds = deal_batches(frames)
    assert (folds.number, folds.groups, folds.unmeasured, folds.by_batch) == (3, 12, (), True)
    assert folds.held_back[3] == {one.frame for one in frames if one.batch == "may"}
    two = deal_batches(frames, most=2)
    assert two.number == 2 and sorted(map(len, two.held_back.values())) == [8, 16], (
        "whole batches, two of them together"
    )
    assert deal_batches(frames, most=3) == folds
    shared = [frame(900, "A549", "both", batch="may"), frame(901, "A549", "both", batch="june")]
    assert held_by([*frames, *shared]) == {1: {"july"}, 2: {"june", "may"}}


def test_what_no_other_batch_could_teach_trains_in_every_fold_and_is_not_scored() -> None:
    frames = [
        *wells("A549", 2, batch="may"),
        *wells("A549", 2, start=10, batch="june"),
        *wells("A549", 2, start=20, batch="july"),
        *wells("THP1", 2, start=30, batch="july"),
        *wells("A549", 2, start=40),
    ]
    assert held_by(frames) == {1: {"june"}, 2: {"may"}}
    assert deal_batches(frames).unmeasured == ("THP1",)


def test_one_batch_cannot_be_left_out() -> None:
    for frames in (wells("A549", 4, batch="may"), wells("A549", 4)):
        folds = deal_batches(frames)
        assert (folds.number, folds.fold_of, folds.unmeasured) == (0, {}, ("A549",))
