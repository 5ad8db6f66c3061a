"""Runs: known by their recipe, resumed while unfinished, their checkpoints without pickles."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import ray.train
import torch

from cellnet.bank.bank import Bank
from cellnet.config.train import TrainConfig
from cellnet.errors import DataError
from cellnet.store.place import open_store
from cellnet.tasks import TASKS, Task
from cellnet.training.heads import FREE, HOLDS
from cellnet.training.plan import make_plan
from cellnet.training.state import Epoch, TrainState
from cellnet.training.steering import steering
from pipelines.runs import (
    Run,
    epoch_line,
    find_run,
    finish_once,
    new_run,
    read_state,
    tell_epochs,
    tell_fits,
    unfinished_run,
    write_state,
)
from tests.factories import bank_of

RECIPE = {"bank_digest": "0" * 64, "model": "regressor"}


def config(**changes: object) -> TrainConfig:
    return TrainConfig(**({"task": "count", "epochs": 5} | changes))


@pytest.fixture
def epoch() -> Epoch:
    return Epoch(
        number=7, loss=0.1, test={"mae": 1.5}, seconds=3.0, tiles=32, tiles_per_s=16.0, waiting=0.01, dead=False
    )


def test_a_run_is_known_by_bank_and_settings_and_resumed_until_it_is_finished(tmp_path: Path) -> None:
    runs = open_store(tmp_path / "runs")
    run = new_run(runs, config(), **RECIPE)
    assert unfinished_run(runs, config(), **RECIPE) is None, "no epoch was finished"
    runs.put(f"{run.name}/checkpoint_manager_snapshot.json", b'{"checkpoint_results": [')
    assert unfinished_run(runs, config(), **RECIPE) is None, "half-written"
    runs.put(f"{run.name}/checkpoint_manager_snapshot.json", b"{}")
    assert unfinished_run(runs, config(), **RECIPE) == run
    assert unfinished_run(runs, config(epochs=6), **RECIPE) is None
    assert unfinished_run(runs, config(), **(RECIPE | {"bank_digest": "1" * 64})) is None
    assert unfinished_run(runs, config(), **(RECIPE | {"model": "other"})) is None
    run.finish("regressor@1")
    assert unfinished_run(runs, config(), **RECIPE) is None


def test_a_training_of_a_name_has_one_run_a_recipe_and_goes_on_with_it(tmp_path: Path) -> None:
    bank = Bank.open(bank_of(tmp_path / "bank", {"A549": ["a", "b", "c"]}, count=3.0))
    runs = open_store(tmp_path / "runs")
    plan = make_plan(bank, config(folds=0))

    def find(once: str, **settings: object) -> Run:
        wanted = config(folds=0, **settings)
        return find_run(
            runs, wanted, resume=False, say=print, bank=bank, plan=plan, model="regressor", once=once
        )  # fmt: skip

    run = find("a1")
    assert run.name.endswith("-a1") and run == find("a1"), "though there is nothing yet to go on with"
    assert len({run.name, find("a2").name, find("a1", epochs=6).name}) == 3
    snapshot = f"{run.name}/checkpoint_manager_snapshot.json"
    runs.put(snapshot, b"{}")
    assert find("a1") == run and list(runs.keys(snapshot))
    runs.put(snapshot, b'{"checkpoint_results": [')
    assert find("a1") == run and not list(runs.keys(snapshot)), "half of it would stop Ray Train"
    finish_once(runs, "a1", "regressor@1")
    assert json.loads(runs.get(f"{run.name}/finished.json")) == {"model": "regressor@1"}
    assert not list(runs.keys(f"{find('a2').name}/finished.json"))


def test_an_epoch_is_a_line_of_80_columns_and_waiting_is_told_where_it_matters(epoch: Epoch) -> None:
    assert epoch_line(epoch, 10, best=True) == "epoch   7/10  loss 0.1000  test mae 1.500  16 tiles/s *"
    slow = dataclasses.replace(epoch, waiting=0.31, test={})
    told = "epoch   7/10  loss 0.1000  16 tiles/s, 31% of the time waiting for data"
    assert epoch_line(slow, 10, best=False) == told
    scores = {"accuracy": 0.5, "balanced_accuracy": 0.25}
    line = epoch_line(dataclasses.replace(epoch, test=scores, tiles_per_s=12345.0), 10, best=True)
    assert "  test accuracy 0.500, balanced 0.250  " in line and len(line) <= 80


def test_a_frozen_network_has_fits_and_no_epochs(epoch: Epoch) -> None:
    assert epoch_line(epoch, 10, best=True, called="fit").startswith("fit   7/10  loss")
    said = [tell_fits(HOLDS), tell_fits((FREE,))]
    tell_epochs("classify", said.append, star=True, called="fit")
    assert said[0] == "the last layer alone is fitted, whole each time, by C 0.003, 0.01, 0.03, 0.1: no epochs"
    assert said[1] == "the last layers alone are fitted, once and whole: there are no epochs"
    assert said[-1] == "  *: the best fit so far, which is kept" and "epoch" not in "".join(said[2:])


@pytest.mark.parametrize("task", TASKS)
def test_what_the_lines_of_epochs_mean_is_told_in_80_columns(task: Task) -> None:
    said: list[str] = []
    tell_epochs(task, said.append, star=True)
    output = np.ones((2, 3), np.float32) if task == "classify" else np.ones(2, np.float32)
    names = [name.removesuffix("_accuracy") for name in steering(task, np.zeros(2), output)]
    assert max(map(len, said)) <= 80 and said[-1].startswith("  *: ")
    assert [name for name in names if f"{name}: " not in said[1]] == []
    tell_epochs(task, said.append, star=False)
    assert len(said) == 5, "no star is explained where there is none"


@pytest.fixture
def checkpoint(tmp_path: Path, epoch: Epoch) -> ray.train.Checkpoint:
    """Of a training after an epoch."""
    state = TrainState(history=(epoch,), weights={"out": torch.ones(2)}, moments={}, rates={"schedule": {}})
    write_state(tmp_path, state, config())
    return ray.train.Checkpoint.from_directory(str(tmp_path))


def test_a_checkpoint_is_one_file_that_is_read_as_it_was_written(
    checkpoint: ray.train.Checkpoint, epoch: Epoch
) -> None:
    assert [file.name for file in Path(checkpoint.path).iterdir()] == ["state.safetensors"]
    read = read_state(checkpoint)
    assert (read.history, read.rates) == ((epoch,), {"schedule": {}}) and read.weights["out"].tolist() == [1, 1]


@pytest.mark.parametrize("left", ["weights.safetensors optimizer.safetensors state.json", "state.safetensors"])
def test_a_checkpoint_of_another_version_is_refused_in_a_line(checkpoint: ray.train.Checkpoint, left: str) -> None:
    folder = Path(checkpoint.path)
    (folder / "state.safetensors").unlink()
    for name in left.split():
        (folder / name).write_bytes(b"{}")
    with pytest.raises(DataError, match=r"^\S+ was left by another version of cellnet \(.+\); train without --resume$"):
        read_state(checkpoint)


def test_tensorboard_gets_a_file_an_epoch(tmp_path: Path, epoch: Epoch, read_events: Callable) -> None:
    run = new_run(open_store(tmp_path), config(), **RECIPE)
    run.add_curves(epoch)
    [file] = (tmp_path / run.name).glob("events.out.tfevents.*")
    step, values = read_events(file)
    assert step == 7
    assert values == pytest.approx({"loss": 0.1, "test/mae": 1.5, "tiles_a_second": 16.0, "waiting_for_data": 0.01})


@pytest.fixture
def read_events() -> Callable[[Path], tuple[int, dict[str, float]]]:
    """The step and the values of a TensorBoard file of one step."""
    from tensorboardX.proto.event_pb2 import Event

    def read(file: Path) -> tuple[int, dict[str, float]]:
        data, place, steps, values = file.read_bytes(), 0, set(), {}
        while place < len(data):  # a record: its length in 8 bytes, 4 of checksum, itself, 4 of checksum
            length = int.from_bytes(data[place : place + 8], "little")
            event = Event.FromString(data[place + 12 : place + 12 + length])
            place += length + 16
            for value in event.summary.value:
                steps.add(event.step)
                values[value.tag] = value.simple_value
        [step] = steps
        return step, values

    return read
