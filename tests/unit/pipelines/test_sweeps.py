"""The folder of a search: its trials come back as they were kept, and what is no record is refused."""

import json
from pathlib import Path

import pytest
import torch

from cellnet.config.train import TrainConfig
from cellnet.config.tune import TuneConfig
from cellnet.errors import DataError, IntegrityError, NotFoundError
from cellnet.evaluation.searches import Trial, trial_name
from cellnet.store.place import open_store
from cellnet.training.state import Epoch, TrainState
from pipelines.runs import Run, keep_state, new_run, unfinished_run
from pipelines.sweeps import best_of, keep_best, keep_trial, recipe_of, state_of, trials_of

CONFIG = TuneConfig(space={"kernel": ("none", "edge")}, train=TrainConfig(task="count", epochs=4))
SETTINGS = {"kernel": "edge", "learning_rate": 0.1234567890123}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return new_run(open_store(tmp_path / "runs"), CONFIG, bank_digest="0" * 64, model="regressor", bank="/data/bank")


def trial(**changes: object) -> Trial:
    name = trial_name(SETTINGS, 3)
    return Trial.model_validate({"name": name, "settings": SETTINGS, "seed": 3, "of_epochs": 4} | changes)


def state() -> TrainState:
    epoch = Epoch(
        number=1, loss=0.5, test={"mae": 0.25}, seconds=2.0, tiles=8, tiles_per_s=4.0, waiting=0.0, dead=False
    )
    return TrainState(
        history=(epoch,),
        weights={"stem.weight": torch.arange(4.0), "stem.steps": torch.tensor(7)},
        moments={"0.exp_avg": torch.ones(2)},
        rates={"groups": [{"lr": 0.1}], "schedule": {"last_epoch": 3}},
    )


def test_the_name_of_a_trial_depends_on_its_settings_and_seed_alone() -> None:
    assert trial_name(SETTINGS, 3) == trial_name(dict(reversed(SETTINGS.items())), 3)
    assert len({trial_name(SETTINGS, 3), trial_name(SETTINGS, 4), trial_name(SETTINGS | {"kernel": "none"}, 3)}) == 3


def test_what_is_kept_of_a_trial_comes_back(run: Run) -> None:
    keep_trial(run, trial(score=0.3, epochs=1))
    keep_trial(run, trial(score=0.2, epochs=2))
    [kept] = trials_of(run)
    assert kept == trial(score=0.2, epochs=2) and not kept.whole
    assert state_of(run, kept.name) is None
    keep_state(run, kept.name, state(), CONFIG.train)
    again = state_of(run, kept.name)
    assert again is not None and (again.history, again.rates) == (state().history, state().rates)
    with pytest.raises(NotFoundError):
        best_of(run, kept.name)
    keep_best(run, kept.name, state().weights)
    assert best_of(run, kept.name)


def test_a_search_with_a_trial_and_without_a_result_can_be_resumed(run: Run) -> None:
    recipe = {"bank_digest": "0" * 64, "model": "regressor"}
    assert unfinished_run(run.runs, CONFIG, **recipe) is None
    keep_trial(run, trial())
    assert unfinished_run(run.runs, CONFIG, **recipe) == run
    assert unfinished_run(run.runs, CONFIG.model_copy(update={"seeds": 1}), **recipe) is None
    run.finish("regressor@1")
    assert unfinished_run(run.runs, CONFIG, **recipe) is None
    assert recipe_of(run)["bank"] == "/data/bank"


@pytest.mark.parametrize("record", [b"{}", b"[]", b"\xff", json.dumps({"name": "../../out", "settings": {}}).encode()])
def test_a_record_that_is_none_is_refused_and_named(run: Run, record: bytes) -> None:
    run.runs.put(f"{run.name}/trials/abc.json", record)
    with pytest.raises(DataError, match=r"trials/abc\.json is not the record of a trial; remove it"):
        list(trials_of(run))


def test_what_a_later_cellnet_adds_to_records_is_left_alone_and_a_later_format_refused(run: Run) -> None:
    keep_trial(run, trial(score=0.3, epochs=1))
    for key, read in (
        (f"trials/{trial().name}.json", lambda: list(trials_of(run))),
        ("run.json", lambda: recipe_of(run)),
    ):
        place = f"{run.name}/{key}"
        record = json.loads(run.runs.get(place))
        assert record["format"] == 1
        run.runs.put(place, json.dumps(record | {"mood": "good"}).encode())
        assert read()
        run.runs.put(place, json.dumps({"format": 2, "mood": "good"}).encode())
        with pytest.raises(
            IntegrityError, match=rf"{key} was written by a later cellnet \(format 2, this one reads 1\)"
        ):
            read()
        run.runs.put(place, json.dumps({name: record[name] for name in record if name != "format"}).encode())
        assert read(), "of before formats"


def test_a_state_that_is_damaged_or_of_another_version_is_refused_and_named(run: Run) -> None:
    run.runs.put(f"{run.name}/trials/abc.state", b"not a tensor")
    with pytest.raises(DataError, match=r"the trial abc cannot go on \(.+\); search without --resume$"):
        state_of(run, "abc")
