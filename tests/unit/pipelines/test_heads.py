"""The last layer of a frozen network: by the bank's splits, or by folds."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

import pipelines.heads
from cellnet.bank.bank import Bank
from cellnet.config.choices import Split
from cellnet.config.train import ModelSpec
from cellnet.networks.pretrained import imagenet_start
from cellnet.networks.weights import Start
from cellnet.registry.records import CrossValidation
from cellnet.store.folder import FolderStore
from cellnet.training.heads import HOLDS, Features, Head, fit_head
from cellnet.training.plan import Plan, make_plan
from cellnet.training.shards import Shards
from pipelines.heads import train_head
from pipelines.publishing import Trained
from pipelines.runs import Run
from tests.factories import bank_of, quick_config

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


def trained(bank: Bank, folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch, **settings: object) -> Trained:
    plan = make_plan(
        bank, quick_config("classify", model=ModelSpec(architecture="efficientnet_lite0", frozen=True), **settings)
    )
    monkeypatch.setattr(
        pipelines.heads, "features_of", lambda network, plan, shards, split, start, say: seen_of(plan, bank, split)
    )
    shards = Shards(store=bank.store, folder="shards", rows={}, class_tiles=[], mean_count=1)
    return train_head(bank, plan, shards, Run(FolderStore(folder), "run"), start=start, say=lambda line: None)


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
    done = trained(bank, tmp_path / "runs", start, monkeypatch, folds=0, refit=True)
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
