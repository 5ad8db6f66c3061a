"""Which trainings a plan comes to, and what is told of them, without Ray."""

from dataclasses import asdict
from pathlib import Path

import pytest

import pipelines.train
from cellnet.bank.bank import Bank
from cellnet.bank.frames import Frame
from cellnet.bank.parts import State
from cellnet.config.train import ModelSpec, TrainConfig
from cellnet.errors import ConfigError
from cellnet.places import Places
from cellnet.registry.records import CrossValidation
from cellnet.store.place import open_store, place_of
from cellnet.training.plan import Plan, make_plan
from cellnet.training.shards import Shards
from cellnet.training.state import Epoch
from pipelines.runs import Run
from pipelines.train import Trained, Workers, asks_for_epochs, train
from tests.factories import bank_of, frame


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    """Twenty wells of a lineage, two frames each."""
    made = Bank.create(tmp_path / "bank")
    known = {"lineage": "A549", "count": 3.0}
    made.add([frame(number, group=f"well {number // 2}", **known) for number in range(40)])
    return made


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Plan, dict[str, int], str]]:
    """What was trained: the plan, the rows of its shards, and where it was kept. The second of four epochs is best."""
    seen: list[tuple[Plan, dict[str, int], str]] = []

    def run_training(plan: Plan, shards: Shards, run: Run, **options: object) -> Trained:
        seen.append((plan, dict(shards.rows), run.name))
        facts = {"loss": 0.0, "seconds": 1.0, "tiles": 1, "tiles_per_s": 1.0, "waiting": 0.0, "dead": False}
        history = [asdict(Epoch(number=n, test={"mae": abs(n - 2.0)}, **facts)) for n in range(1, 5)]
        return Trained(weights=f"weights {len(seen)}".encode(), scores={"mae": 0.0}, history=history)

    def make_shards(bank: Bank, plan: Plan) -> Shards:
        rows = {split: planned.rows for split, planned in plan.splits.items()}
        return Shards(store=bank.store, folder="", rows=rows, class_tiles=[], mean_count=3)

    monkeypatch.setattr(pipelines.train, "run_training", run_training)
    monkeypatch.setattr(pipelines.train, "make_shards", make_shards)
    return seen


def train_plan(bank: Bank, tmp_path: Path, **settings: object) -> tuple[Trained, Plan]:
    plan = make_plan(bank, TrainConfig(task="count", epochs=4, **settings))
    run = Run(open_store(tmp_path / "runs"), "run")
    shards = pipelines.train.make_shards(bank, plan)
    options = {"workers": 1, "use_gpu": False, "say": lambda line: None}
    return pipelines.train._train_plan(bank, plan, shards, run, **options), plan


def names(frames: list[Frame]) -> set[str]:
    return {one.frame for one in frames}


def test_a_refit_learns_from_train_and_test_for_as_many_epochs_as_the_best_and_is_scored_by_the_first(
    bank: Bank, tmp_path: Path, trained: list[tuple[Plan, dict[str, int], str]]
) -> None:
    done, plan = train_plan(bank, tmp_path, folds=0, refit=True)
    (first, _, _), (last, rows, where) = trained
    assert first is plan and (last.config.epochs, where, rows["test"]) == (2, "run/refit", 0)
    assert set(last.splits["train"].frames) == names([*bank.split("train"), *bank.split("test")])
    assert (done.weights, done.scores, len(done.history)) == (b"weights 2", {"mae": 0.0}, 4)
    [stand_in] = done.held_back
    assert stand_in.weights == b"weights 1"
    assert names(stand_in.asked) == names(bank.split("test")) and names(stand_in.learned) == names(bank.split("train"))
    groups = len({one.group for one in bank.split("test")})
    assert done.cross_validation == CrossValidation(folds=1, frames=2 * groups, groups=groups)


def test_without_a_refit_the_best_epoch_is_published(
    bank: Bank, tmp_path: Path, trained: list[tuple[Plan, dict[str, int], str]]
) -> None:
    done, _ = train_plan(bank, tmp_path, folds=0)
    assert len(trained) == 1 and (done.weights, done.held_back, done.cross_validation) == (b"weights 1", (), None)


def test_a_person_is_told_why_there_are_folds_and_how_there_are_none(bank: Bank) -> None:
    few = make_plan(bank, TrainConfig(task="count", folds=5))
    told = pipelines.train._about_folds(few, bank, asked=True)
    assert told.startswith("5 folds score by all labelled frames, the holdout's too") and "--set folds=0" in told
    small = Bank(bank.store, bank.settings, State(before=bank.frames[:20]))
    by_itself = make_plan(small, TrainConfig(task="count", holdout="keep"))
    told = pipelines.train._about_folds(by_itself, small, asked=False)
    assert told.startswith("fewer than 20 groups of A549: 5 folds score by all labelled frames but the holdout's")


@pytest.mark.parametrize(("workers", "most"), [(2, 2), ((1, 4), 4)])
def test_several_workers_of_a_frozen_network_are_refused_before_anything_is_begun(
    tmp_path: Path, workers: Workers, most: int
) -> None:
    uri = bank_of(tmp_path / "bank", {"A172": list("abcdef"), "THP1": list("ghijkl")})
    places = Places(bank=place_of(uri), registry=place_of(tmp_path / "registry"))
    lite = TrainConfig(task="classify", model=ModelSpec(architecture="efficientnet_lite0", frozen=True))
    with pytest.raises(
        ConfigError, match=f"{most} workers cannot share .* frozen efficientnet_lite0.* leave --workers"
    ):
        train(places, lite, workers=workers)
    assert not (tmp_path / "runs").exists() and not list(tmp_path.glob("bank/shards/*"))


def test_epochs_are_asked_for_where_they_or_patience_are_given() -> None:
    asked = [asks_for_epochs(TrainConfig(task="count", **given)) for given in ({}, {"epochs": 3}, {"patience": 2})]
    assert asked == [False, True, True]
