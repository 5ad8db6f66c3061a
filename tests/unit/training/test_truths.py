"""What of a bank's labels makes a training another one, and what does not."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cellnet.bank.bank import Bank
from cellnet.bank.labels import Label
from cellnet.config.train import TrainConfig
from cellnet.training.plan import make_plan
from cellnet.training.shards import key_of
from cellnet.training.truths import whole_of
from tests.factories import frame


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    """Twelve counted frames of two lineages, on all sides of the split."""
    bank = Bank.create(tmp_path / "bank")
    bank.add([frame(n, ("A549", "THP1")[n % 2], count=float(n), pixel_um=0.5) for n in range(12)])
    return bank


def config(task: str, **changes: Any) -> TrainConfig:
    quick = {"folds": 0, "holdout": "keep", "tile": 100, "model": {"architecture": "residual"}}
    return TrainConfig.model_validate({"task": task} | quick | changes)


def known_by(bank: Bank, given: TrainConfig) -> tuple[str, str]:
    """What its shards are called, and what its run is known by."""
    plan = make_plan(bank, given)
    return key_of(plan, bank.frames), whole_of(plan, bank.frames)


def one_of(bank: Bank, split: str, lineage: str = "A549") -> str:
    return next(one.frame for one in bank.frames if (one.split, one.lineage) == (split, lineage))


@pytest.mark.parametrize(
    ("task", "split", "said", "changes"),
    [
        ("count", "train", {"count": 99}, True),
        ("count", "test", {"count": 99}, True),
        ("count", "train", {"points": [(3, 4)]}, True),
        ("count", "train", {"unusable": "focus"}, True),
        ("count", "train", {"lineage": "THP1"}, False),
        ("count", "holdout", {"count": 99}, False),
        ("classify", "train", {"lineage": "THP1"}, True),
        ("classify", "train", {"count": 99}, False),
        ("classify", "holdout", {"lineage": "THP1"}, False),
    ],
)
def test_labels_of_what_a_training_learns_make_it_another_and_no_others(
    bank: Bank, task: str, split: str, said: dict[str, Any], changes: bool
) -> None:
    before, digest = known_by(bank, config(task)), bank.digest
    bank.label([Label(frame=one_of(bank, split), **said)])
    after = known_by(bank, config(task))
    assert bank.digest != digest
    assert [one != other for one, other in zip(before, after, strict=True)] == [changes] * 2
    bank.undo(2)
    assert known_by(bank, config(task)) == before


def test_a_label_of_another_lineage_makes_nothing_of_a_counter_of_one_anew(bank: Bank) -> None:
    before = known_by(bank, config("count", lineage="A549"))
    bank.label([Label(frame=one_of(bank, "train", "THP1"), count=99)])
    assert known_by(bank, config("count", lineage="A549")) == before


def test_frames_that_come_into_the_holdout_make_nothing_anew(bank: Bank) -> None:
    before, entry = known_by(bank, config("count")), bank.entry
    holdout = [one.group for one in bank.frames if one.split == "holdout"]
    bank.add([frame(50, "A549", holdout[0], count=3.0, pixel_um=0.5)])
    assert bank.entry == entry + 1 and known_by(bank, config("count")) == before


def test_a_counter_by_folds_that_are_dealt_otherwise_has_the_same_tiles_and_is_another_run(bank: Bank) -> None:
    given = config("count", folds=3, holdout="use")

    def dealt(bank: Bank) -> Sequence[int]:
        folds = make_plan(bank, given).folds
        assert folds
        return [folds.fold_of[one.frame] for one in bank.frames]

    before, folds = known_by(bank, given), dealt(bank)
    bank.label([Label(frame=one.frame, lineage="THP1") for one in bank.frames[:8]])
    after = known_by(bank, given)
    assert dealt(bank) != folds and after[0] == before[0] and after[1] != before[1]


def test_a_label_moves_no_group_to_another_side(bank: Bank) -> None:
    sides = {one.group: one.split for one in bank.frames}
    bank.label([Label(frame=one.frame, lineage="HELA", count=7) for one in bank.frames[:9]])
    bank.add([frame(n, "HELA") for n in range(30, 40)])
    assert {one.group: one.split for one in bank.frames if one.group in sides} == sides


def test_what_is_unusable_neither_teaches_nor_scores(bank: Bank) -> None:
    name = one_of(bank, "train")
    assert name in make_plan(bank, config("count")).splits["train"].frames
    bank.label([Label(frame=name, unusable="debris")])
    for task in ("count", "classify"):
        assert name not in make_plan(bank, config(task)).frames
