"""The last layers of a frozen network: by the bank's splits, or by folds."""

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import ray
import safetensors.torch
import torch

import cellnet.training.places
import pipelines.heads
from cellnet.bank.bank import Bank
from cellnet.config.bank import BankSettings
from cellnet.config.choices import Split
from cellnet.config.train import ModelSpec
from cellnet.networks.pretrained import imagenet_start
from cellnet.networks.weights import Start
from cellnet.registry.records import CrossValidation
from cellnet.store.folder import FolderStore
from cellnet.tasks import Task
from cellnet.training.heads import HOLDS, Features, Head, fit_head
from cellnet.training.places import CountHead, fit_places
from cellnet.training.plan import Plan, make_plan
from cellnet.training.shards import Shards
from pipelines.heads import Part, _learn_apart, train_head
from pipelines.publishing import Trained
from pipelines.runs import Run
from tests.factories import bank_of, frame, quick_config

WELLS = {"A172": [f"a{well}" for well in range(6)], "THP1": [f"t{well}" for well in range(6)]}


@pytest.fixture(scope="module")
def start() -> Start:
    return imagenet_start("efficientnet_lite0")


def seen_of(plan: Plan, bank: Bank, split: Split) -> Features | None:
    """Features of the tiles of a split, four of a frame, that tell the lineages apart."""
    frames = [frame for frame in bank.frames if frame.frame in plan.splits[split].frames]
    if not frames:
        return None
    names = [frame.frame for frame in frames for _ in range(4)]
    truth_N = np.array([plan.classes.index(str(frame.lineage)) for frame in frames for _ in range(4)])
    rng = np.random.default_rng(0)
    seen_NVC = rng.normal(size=(len(names), 2, 992)) + 2.0 * truth_N[:, None, None]
    return Features(seen_NVC.astype(np.float16), truth_N, np.array(names))


def places_of(plan: Plan, bank: Bank, split: Split) -> Features | None:
    """Features of four places of each of the four tiles of a frame, whose cells all lie in the first tile."""
    frames = [frame for frame in bank.frames if frame.frame in plan.splits[split].frames]
    if not frames:
        return None
    rng = np.random.default_rng(0)
    seen_NPC = rng.normal(size=(4 * len(frames), 4, 24 + 40 + 112))
    seen_NPC[::4] += np.array([float(frame.count) for frame in frames])[:, None, None]
    truth_N = np.repeat([float(frame.count) / 4 for frame in frames], 4).astype(np.float32)
    names = np.repeat([frame.frame for frame in frames], 4)
    ones_N, unknown_N = np.ones(len(names), np.float32), np.zeros(len(names), bool)
    return Features(seen_NPC.astype(np.float16), truth_N, names, ones_N, unknown_N)


def trained(
    bank: Bank, folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch, task: Task = "classify", **settings: object
) -> Trained:
    frozen = ModelSpec(architecture="efficientnet_lite0", frozen=True)
    plan = make_plan(bank, quick_config(task, model=frozen, **settings))
    given = seen_of if task == "classify" else places_of
    monkeypatch.setattr(
        pipelines.heads, "features_of", lambda network, plan, shards, split, start, say: given(plan, bank, split)
    )
    monkeypatch.setattr(cellnet.training.places, "EPOCHS", 4)
    monkeypatch.setattr(
        pipelines.heads, "_learn_apart", lambda *given: pipelines.heads._learn_here(*given[:2], 0, plan)
    )
    shards = Shards(store=bank.store, folder="shards", rows={}, class_tiles=[], mean_count=1)
    return train_head(bank, plan, shards, Run(FolderStore(folder), "run"), start=start, say=lambda line: None)


@pytest.mark.slow
def test_by_folds_each_head_answers_frames_that_it_did_not_learn_from(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = Bank.open(bank_of(tmp_path / "bank", WELLS))
    done = trained(bank, tmp_path / "runs", start, monkeypatch, folds=3)
    assert done.cross_validation is not None and done.cross_validation.folds == len(done.held_back) == 3
    everything = {frame.frame for frame in bank.frames}
    for held in done.held_back:
        learned, asked = ({frame.frame for frame in frames} for frames in (held.learned, held.asked))
        assert not learned & asked and learned | asked == everything
    assert set().union(*({frame.frame for frame in held.asked} for held in done.held_back)) == everything
    assert [epoch["number"] for epoch in done.history] == list(range(1, len(HOLDS) + 1))
    assert max(epoch["test"]["accuracy"] for epoch in done.history) == 1 and done.scores == {}
    heads = {hashlib.sha256(held.weights).hexdigest() for held in done.held_back}
    assert len(heads | {hashlib.sha256(done.weights).hexdigest()}) == 4, "each has learned from other frames"


@pytest.mark.slow
def test_by_the_banks_splits_the_test_split_chooses_and_other_layers_stay_as_they_were(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = Bank.open(bank_of(tmp_path / "bank", WELLS))
    done = trained(bank, tmp_path / "runs", start, monkeypatch, folds=0)
    assert done.held_back == () and done.scores["accuracy"] == max(one["test"]["accuracy"] for one in done.history)
    weights = safetensors.torch.load(done.weights)
    assert all(torch.equal(weights[name], value) for name, value in start.weights.items() if name in weights)
    assert weights["out.weight"].shape == (2, 992)


def test_without_anything_to_choose_by_there_is_one_head(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = Bank.open(bank_of(tmp_path / "bank", {lineage: wells[:2] for lineage, wells in WELLS.items()}))
    done = trained(bank, tmp_path / "runs", start, monkeypatch, folds=0)
    assert [epoch["test"] for epoch in done.history] == [{}] and done.scores == {}


@pytest.mark.slow
def test_a_refit_learns_from_train_and_test_and_is_scored_by_the_head_that_did_not(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = Bank.open(bank_of(tmp_path / "bank", WELLS))
    without = trained(bank, tmp_path / "runs", start, monkeypatch, folds=0)
    learned: list[tuple[set[str], float]] = []

    def learn(train: Features, hold: float, **options: Any) -> Head:
        learned.append((set(train.frame_N.tolist()), hold))
        return fit_head(train, hold, **options)

    monkeypatch.setattr(pipelines.heads, "fit_head", learn)
    done = trained(bank, tmp_path / "refit", start, monkeypatch, folds=0, refit=True)
    train, test = ({frame.frame for frame in bank.split(split)} for split in ("train", "test"))
    *tried, (names, hold) = learned
    assert [frames for frames, _ in tried] == [train] * len(HOLDS) and names == train | test
    chosen = [epoch["test"]["accuracy"] for epoch in done.history]
    assert hold in HOLDS and (done.scores, done.history[0]["test"]) == (without.scores, without.history[0]["test"])
    assert chosen[HOLDS.index(hold)] == done.scores["accuracy"]
    [stand_in] = done.held_back
    assert stand_in.weights == without.weights != done.weights
    assert {frame.frame for frame in stand_in.learned} == train and {frame.frame for frame in stand_in.asked} == test
    groups = len({frame.group for frame in bank.split("test")})
    assert done.cross_validation == CrossValidation(folds=1, frames=len(test), groups=groups)


LAYERS = {f"out.{name}.{what}" for name in ("first", "second", "last") for what in ("weight", "bias")}


@pytest.fixture
def counted(tmp_path: Path) -> Bank:
    """Twelve frames of 0 to 22 cells, each in a well of its own."""
    known = {"height": 400, "width": 400, "bits": 8}
    frames = [frame(number, count=2.0 * number, **known) for number in range(12)]
    Bank.create(tmp_path / "bank", BankSettings()).add(frames)
    return Bank.open(tmp_path / "bank")


@pytest.mark.slow
def test_by_folds_a_counter_has_last_layers_of_each_fold_and_of_all_frames(
    tmp_path: Path, counted: Bank, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = trained(counted, tmp_path / "runs", start, monkeypatch, "count", folds=3)
    assert done.cross_validation is not None and done.cross_validation.folds == len(done.held_back) == 3
    everything = {one.frame for one in counted.frames}
    asked = [one.frame for held in done.held_back for one in held.asked]
    assert len(asked) == len(everything) and set(asked) == everything
    for held in done.held_back:
        assert {one.frame for one in held.learned} == everything - {one.frame for one in held.asked}
    [epoch] = done.history
    assert epoch["number"] == 1 and 0 < epoch["test"]["mae"] < 22 and done.scores == {}
    layers = {hashlib.sha256(weights).hexdigest() for weights in (done.weights, *(h.weights for h in done.held_back))}
    assert len(layers) == 4, "each has learned from other frames"


@pytest.mark.slow
def test_by_the_banks_splits_a_counters_last_layers_alone_are_learnt(
    tmp_path: Path, counted: Bank, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = trained(counted, tmp_path / "runs", start, monkeypatch, "count", folds=0)
    assert done.held_back == () and done.scores == done.history[0]["test"] and len(done.history) == 1
    weights = safetensors.torch.load(done.weights)
    assert {name for name in weights if not name.startswith("body.")} == LAYERS
    assert all(torch.equal(value, start.weights[name]) for name, value in weights.items() if name.startswith("body."))
    assert weights["out.first.weight"].shape == (64, 176) and weights["out.last.weight"].shape == (1, 64)


@pytest.mark.slow
def test_a_counters_refit_learns_from_train_and_test(
    tmp_path: Path, counted: Bank, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[set[str]] = []

    def learn(train: Features, **options: Any) -> CountHead:
        learned.append(set(train.frame_N.tolist()))
        return fit_places(train, **options)

    monkeypatch.setattr(pipelines.heads, "fit_places", learn)
    done = trained(counted, tmp_path / "runs", start, monkeypatch, "count", folds=0, refit=True)
    train, test = ({one.frame for one in counted.split(split)} for split in ("train", "test"))
    assert learned == [train, train | test]
    [stand_in] = done.held_back
    assert stand_in.weights != done.weights and {one.frame for one in stand_in.asked} == test


@pytest.mark.slow
def test_last_layers_that_a_stopped_run_had_learnt_are_learnt_no_more(
    tmp_path: Path, counted: Bank, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[int] = []

    def learn(train: Features, **options: Any) -> CountHead:
        learned.append(len(train.truth_N))
        if len(learned) == 3:
            raise KeyboardInterrupt
        return fit_places(train, **options)

    whole = trained(counted, tmp_path / "whole", start, monkeypatch, "count", folds=3)
    monkeypatch.setattr(pipelines.heads, "fit_places", learn)
    with pytest.raises(KeyboardInterrupt):
        trained(counted, tmp_path / "runs", start, monkeypatch, "count", folds=3)
    done = trained(counted, tmp_path / "runs", start, monkeypatch, "count", folds=3)
    assert len(learned) == 3 + 2, "fold 3, and all frames"
    assert [held.weights for held in (*done.held_back, done)] == [held.weights for held in (*whole.held_back, whole)]
    assert done.history[0]["test"] == whole.history[0]["test"]


@pytest.mark.slow
def test_a_classifiers_heads_are_kept_by_how_hard_they_are_held(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = Bank.open(bank_of(tmp_path / "bank", WELLS))
    first = trained(bank, tmp_path / "runs", start, monkeypatch, folds=2)
    kept = {path.name for path in (tmp_path / "runs/run/trials").iterdir()}
    assert kept > {f"fold-{fold}-held-{hold:g}.state" for fold in (1, 2) for hold in HOLDS} and len(kept) == 9
    monkeypatch.setattr(pipelines.heads, "fit_head", None)  # nothing is to be learnt
    again = trained(bank, tmp_path / "runs", start, monkeypatch, folds=2)
    assert (again.weights, again.history) == (first.weights, first.history)


def test_a_counters_last_layers_are_learnt_on_the_threads_that_are_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []
    started = SimpleNamespace(remote=lambda *told: given.append(told[-1]))
    monkeypatch.setattr(ray, "put", lambda tiles: tiles)
    monkeypatch.setattr(ray, "remote", lambda task: started)
    monkeypatch.setattr(ray, "wait", Mock(side_effect=KeyboardInterrupt))
    monkeypatch.setattr(pipelines.heads.cluster, "cpus", lambda: 8.0)
    bank = Bank.open(bank_of(tmp_path / "bank", WELLS, count=3))
    tiles = Features(np.zeros((4, 2, 8), np.float16), np.ones(4, np.float32), np.array(["a"] * 4))
    parts = [Part("one", "", np.ones(4, bool)), Part("other", "", np.ones(4, bool))]
    for threads in (None, 3):
        plan = make_plan(bank, quick_config("count", threads=threads))
        with pytest.raises(KeyboardInterrupt):
            next(_learn_apart(parts, tiles, plan))
    assert given == [4, 4, 3, 3], "a share of the CPUs unless told otherwise"
