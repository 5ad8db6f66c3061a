"""Searches on a real local Ray: their trials, how they are stopped and go on, and what comes of them."""

import functools
import json
import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pyarrow.parquet as pq
import pytest
import ray
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

import pipelines.tune
from cellnet.cli import main
from cellnet.config.train import AS_RECORDED, Augment, ModelSpec, TrainConfig
from cellnet.config.tune import Range, TuneConfig
from cellnet.errors import CellnetError, ConfigError, DataError, NotFoundError
from cellnet.places import Places
from cellnet.store.place import Place, place_of
from cellnet.training.heads import HOLDS
from cellnet.training.plan import make_plan
from cellnet.untrusted import WEIGHTS
from pipelines.runs import Run
from pipelines.sweeps import trials_of
from pipelines.trials import trainable
from pipelines.tune import tune
from pipelines.winner import publish_sweep

from .servers import PersistentServer

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

TINY = ModelSpec(architecture="residual", width=4, depth=2)
TRAIN = TrainConfig(task="count", folds=0, model=TINY, augment=Augment(shares=(1.0,), shifts=0), epochs=2)
ONE_EACH = {"seeds": 1, "stop_early": False}


@pytest.fixture
def places(sample_bank: Path, tmp_path: Path) -> Places:
    return Places(bank=place_of(sample_bank), registry=place_of(tmp_path / "registry"))


def records(places: Places) -> dict[str, dict[str, Any]]:
    """Of every trial of the one search in the runs, by its file."""
    files = sorted(Path(places.registry.uri).parent.glob("runs/tune-*/trials/*.json"))
    return {file.name: json.loads(file.read_text()) for file in files}


def test_a_search_stops_trials_trains_finalists_again_and_publishes_the_winner_with_all_of_it(places: Places) -> None:
    said: list[str] = []
    space = {"model.activation": ("relu", "sigmoid"), "kernel": ("sharpen",), "learning_rate": (2e-3, 1e-7, 1e30)}
    train = TRAIN.model_copy(update={"epochs": 4})
    config = TuneConfig(space=space, finalists=2, seeds=2, grace=2, reduction=4, train=train)
    found = tune(places, config, say=said.append)
    champion = places.open_registry().resolve("regressor:champion")
    assert champion.ref == found.winner.ref == "regressor@1" and found.move is not None
    assert found.winner.card.sweep == found.run.uri
    best, *others = found.trials
    seeds = [row["seeds"] for row in found.trials]
    assert (best["note"], best["learning_rate"], best["epochs"]) == ("winner", 2e-3, 2 * 4)
    assert best["low"] <= best["mae"] <= best["high"]
    failed = [row for row in others if row["learning_rate"] == 1e30]
    assert len(failed) == 2 and all("training diverged" in row["note"] and row["mae"] is None for row in failed)
    assert any(re.fullmatch("stopped after [23] of 4 epochs", row["note"]) for row in others)
    kept = records(places)
    assert best["seeds"] == 2 and len(kept) == 6 + seeds.count(2), "six combinations, and one more seed of finalists"
    mine = [one for one in kept.values() if one["settings"]["model.activation"] == best["activation"] and one["score"]]
    mine = [one for one in mine if one["settings"]["learning_rate"] == 2e-3]
    assert best["mae"] == pytest.approx(sum(one["score"] for one in mine) / 2)
    luckier = min(mine, key=lambda one: one["score"])
    assert champion.card.config.seed == luckier["seed"]
    assert champion.card.scores["test"]["mae"] == luckier["score"]
    assert (champion.card.preprocess.kernel, champion.card.config.model.activation) == ("sharpen", best["activation"])
    assert champion.card.search == found.trials
    folder = Path(found.run.uri)
    assert pq.read_table(folder / "results.parquet").column("mae").to_pylist() == [row["mae"] for row in found.trials]
    assert "Search that found regressor@1" in (folder / "report.html").read_text()
    assert found.holdout.scores["split"] == "holdout" and found.holdout.scores["model"] == "regressor@1"
    assert sum(line.startswith("trial ") for line in said) == len(kept)
    assert_a_worse_search_moves_no_alias(places)


def assert_a_worse_search_moves_no_alias(places: Places) -> None:
    """One by TPE, after one that published regressor@1."""
    space = {"learning_rate": Range(low=1e-8, high=1e-7, log=True), "kernel": ("none", "edge")}
    worse = TuneConfig(space=space, searcher="tpe", trials=2, **ONE_EACH, train=TRAIN)
    said: list[str] = []
    found = tune(places, worse, say=said.append)
    rates = [row["learning_rate"] for row in found.trials]
    assert len(set(rates)) == 2 and all(1e-8 <= rate <= 1e-7 for rate in rates)
    assert found.move is None and places.open_registry().resolve("regressor:champion").ref == "regressor@1"
    assert any(line.startswith("note: regressor@2 is not shown to be better than regressor:champion") for line in said)


@pytest.mark.whole
def test_trials_of_two_workers_are_stopped_and_share_all_tiles(places: Places) -> None:
    space = {"learning_rate": (1e-2, 1e-7)}
    config = TuneConfig(space=space, grace=3, reduction=4, seeds=1, train=TRAIN.model_copy(update={"epochs": 4}))
    best, slow = tune(places, config, workers=2).trials
    assert (best["learning_rate"], best["note"], best["seeds"]) == (1e-2, "winner", 1)
    assert slow["note"] == "stopped after 3 of 4 epochs"
    tiles = make_plan(places.open_bank(), TRAIN).splits["train"].rows
    assert {epoch["tiles"] for one in records(places).values() for epoch in one["history"]} == {tiles}, "none is lost"
    with pytest.raises(ConfigError, match=r"2 workers cannot share .* in steps of 4; take fewer workers"):
        tune(places, TuneConfig(space={"batch_size": (16, 4)}, train=TRAIN), workers=2)


def command(places: Places, *options: str) -> list[str]:
    sets = ["epochs=3", "model.width=4", "model.depth=2", "augment.shares=[1.0]", "augment.shifts=0", "seeds=1"]
    sets += ["model.architecture=residual", "space.kernel=[none,sharpen,edge]", "stop_early=false"]
    words = [sys.executable, "-m", "cellnet", "tune", str(places.bank), "--task", "count"]
    words += ["--registry", str(places.registry)]
    words += ["--endpoint-url", places.registry.endpoint_url] if places.registry.endpoint_url else []
    return [*words, *(word for one in sets for word in ("--set", one)), *options]


def stopped(how: signal.Signals, line: str, words: list[str], **environment: str) -> tuple[int, list[str]]:
    """Send a signal when a line is said that starts so, and give the status and what was said."""
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    # Tests that a script runs in the background ignore Ctrl-C, and so would what they start.
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        words, env=kept | environment, stderr=subprocess.PIPE, text=True, preexec_fn=heard
    ) as process:
        assert process.stderr is not None
        said = []
        try:
            for text in process.stderr:
                said.append(text.rstrip())
                if text.startswith(line):
                    process.send_signal(how)
            return process.wait(timeout=60), said
        finally:
            process.kill()  # if it hangs


def test_a_search_on_s3_goes_on_after_a_kill_ctrl_c_and_lost_files_and_the_best_so_far_can_be_published(
    places: Places, joining: dict[str, str], moto: str, credentials: None
) -> None:
    places = replace(places, registry=Place("s3://lab/search/registry", moto))
    status, said = stopped(signal.SIGKILL, "trial   1/3", command(places), **joining)
    assert status == -signal.SIGKILL, said
    [name] = Place("s3://lab/search/runs", moto).open().folders("")
    run = Run(Place("s3://lab/search/runs", moto).open(), name)
    ended = {trial.name: trial for trial in trials_of(run) if trial.epochs == 3}
    assert ended
    status, said = stopped(signal.SIGINT, "trial   2/3", command(places, "--resume"))
    assert (status, said[-1]) == (130, "cellnet: stopped"), said
    kept = {trial.name: trial for trial in trials_of(run) if trial.epochs == 3}
    assert {name: kept[name] for name in ended} == ended, "seconds and all"
    told = next(line for line in said if "--from-sweep" in line)
    assert main(told.split()[1:]) == 0  # a command would start a Ray of its own, and no more
    best = places.open_registry().resolve("regressor:champion")
    assert best.card.scores["test"]["mae"] == min(trial.score for trial in kept.values())
    assert places.open_registry().read(best, WEIGHTS)

    whole, *others = kept
    lost, half = others[0], others[-1]
    client = boto3.client("s3", endpoint_url=moto, region_name="us-east-1")
    gone = [f"trials/{lost}.json", f"trials/{lost}.state", f"trials/{lost}.best", f"trials/{half}.state"]
    for file in ("finished.json", *dict.fromkeys(gone)):  # as if it had died before it wrote them
        there = {"Bucket": "lab", "Key": f"search/runs/{run.name}/{file}"}
        client.head_object(**there)
        client.delete_object(**there)
    assert main(command(places, "--resume")[3:]) == 0
    assert Place("s3://lab/search/runs", moto).open().folders("") == [run.name]
    after = {trial.name: trial for trial in trials_of(run)}
    assert len(after) == 3 and after[whole] == kept[whole], "seconds and all"
    assert {name: after[name].score for name in kept} == {name: trial.score for name, trial in kept.items()}
    best = places.open_registry().resolve("regressor@2")
    assert best.card.scores["test"]["mae"] == min(trial.score for trial in after.values())


@pytest.mark.whole  # unit/pipelines/test_tune.py has a Tuner without room
def test_a_search_whose_trials_get_no_room_begins_anew_or_ends_and_frees_what_it_reserved(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where what a Tuner reserved on a node that is gone stays pending for ever."""
    taken: list[Any] = []

    def without_room(*arguments: Any) -> Any:
        if not taken:
            taken.append(placement_group([{"CPU": 2}]))
            ray.get(taken[0].ready())
        return trainable(*arguments)

    def reserved() -> set[str]:
        return {name for name, group in placement_group_table().items() if group["state"] != "REMOVED"}

    def give_room(line: str) -> None:
        said.append(line)
        if line.startswith("the search goes on"):
            assert reserved() == {taken[0].id.hex()}
            remove_placement_group(taken[0])  # and no other is taken
            monkeypatch.setattr(pipelines.tune, "STALL_S", 120)  # while processes start

    monkeypatch.setattr(pipelines.tune, "trainable", without_room)
    monkeypatch.setattr(pipelines.tune, "STALL_S", 1)
    said: list[str] = []
    config = TuneConfig(space={"kernel": ("none", "edge")}, **ONE_EACH, train=TRAIN.model_copy(update={"epochs": 1}))
    with pytest.raises(CellnetError, match=r"not one epoch more was kept for 0 s; .* the same command with --resume"):
        tune(places, config, wait_s=0, say=give_room)
    assert reserved() == {taken[0].id.hex()} and not records(places)
    remove_placement_group(taken.pop())
    found = tune(places, config, alias=None, once="mine", say=give_room)
    assert said.count("no trial has had room for 1 s") == 2
    assert [row["epochs"] for row in found.trials] == [1, 1] and found.winner.ref == "regressor@1"
    assert found.move is None and places.open_registry().pointing("regressor", "champion") is None
    monkeypatch.setattr(pipelines.tune, "trainable", trainable)
    again = tune(places, config, once="mine")  # as where it was killed before somebody noted what came of it
    assert (again.winner, again.run.uri) == (found.winner, found.run.uri) and again.move is not None
    assert [one.ref for one in places.open_registry().versions()] == ["regressor@1"]


@pytest.mark.whole
def test_a_search_whose_store_is_gone_for_a_while_comes_to_what_an_undisturbed_one_does(
    places: Places, tmp_path: Path, credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines.tune, "STORE_S", 0.5)
    config = TuneConfig(space={"kernel": ("none", "sharpen", "edge")}, **ONE_EACH, train=TRAIN)
    undisturbed = tune(places, config)
    said: list[str] = []

    def kill_once(line: str) -> None:
        said.append(line)
        if line.startswith("trial   1/3"):
            server.kill()
        if line.startswith("waiting for s3://lab/outage/runs"):
            threading.Timer(1, server.start).start()

    with PersistentServer(tmp_path / "server") as server:
        found = tune(replace(places, registry=Place("s3://lab/outage/registry", server.address)), config, say=kill_once)
        assert "waiting for s3://lab/outage/runs, which does not answer" in said
        found_in, undisturbed_in = ([row | {"seconds": 0} for row in one.trials] for one in (found, undisturbed))
        assert found_in == undisturbed_in


def test_what_is_no_search_or_came_to_nothing_is_said(places: Places, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="is not the folder of a search; cellnet tune names it when it starts"):
        publish_sweep(str(tmp_path), places, alias="champion")
    with pytest.raises(DataError, match=r"every trial failed; the first said: .* training diverged"):
        tune(places, TuneConfig(space={"learning_rate": (1e30,)}, **ONE_EACH, train=TRAIN))
    assert list(places.open_registry().versions()) == []


def test_heads_of_a_frozen_network_are_searched_on_features_that_are_computed_once(places: Places) -> None:
    as_recorded = Augment(**AS_RECORDED)
    train = TrainConfig(task="classify", model=ModelSpec(frozen=True), augment=as_recorded)
    space = {"kernel": ("none", "edge"), "class_weights": ("balanced", "none")}
    said: list[str] = []
    before = set(Path(places.bank.uri).glob("shards/*/features-*"))
    found = tune(places, TuneConfig(space=space, seeds=1, train=train), say=said.append)
    kept = records(places)
    assert len(kept) == 4 and all(one["epochs"] == len(HOLDS) and one["error"] is None for one in kept.values())
    assert [line for line in said if line.startswith("what the frozen layers see")] == [
        f"what the frozen layers see with kernel {kernel}" for kernel in space["kernel"]
    ]
    assert len(set(Path(places.bank.uri).glob("shards/*/features-*")) - before) == 2, "for each kernel"
    winner = found.winner.card
    assert winner.config.model.frozen and winner.start is not None and winner.search == found.trials
    best = found.trials[0]
    assert best["balanced_accuracy"] == pytest.approx(winner.scores["test"]["balanced_accuracy"])
    assert best["balanced_accuracy"] == max(one["score"] for one in kept.values()) > 0.6
    assert best["low"] <= best["balanced_accuracy"] <= best["high"]
    again = publish_sweep(place_of(found.run.uri), replace(places, bank=None), alias="second")
    assert again.winner.blobs[WEIGHTS] == found.winner.blobs[WEIGHTS]


@pytest.mark.whole
def test_two_searches_at_once_on_two_cpus_both_end(places: Places, joining: dict[str, str]) -> None:
    short = ("--set", "epochs=1", "--set", "space.kernel=[none,sharpen]", "--name", "one")
    heads = TrainConfig(task="classify", model=ModelSpec(frozen=True), augment=Augment(**AS_RECORDED))
    with subprocess.Popen(
        command(places, *short), env=os.environ | joining, stderr=subprocess.PIPE, text=True
    ) as beside:
        assert beside.stderr is not None
        for line in beside.stderr:
            if line.startswith("run: "):
                break
        tune(places, TuneConfig(space={"kernel": ("none", "edge")}, seeds=1, train=heads), name="other")
        _, said = beside.communicate(timeout=240)
        assert beside.returncode == 0, said
    assert places.open_registry().names() == ["one", "other"]
