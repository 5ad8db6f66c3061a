"""Runs: known by their recipe, resumed while unfinished, their checkpoints without pickles."""

from collections.abc import Callable
from pathlib import Path

import pytest
import ray.train
import torch

from cellnet.config.train import TrainConfig
from cellnet.errors import DataError
from cellnet.store.place import open_store
from cellnet.training.state import Epoch, TrainState
from pipelines.runs import new_run, read_state, unfinished_run, write_state

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


def test_a_state_is_read_as_it_was_written_and_holds_no_pickle(tmp_path: Path, epoch: Epoch) -> None:
    state = TrainState(
        history=(epoch,),
        weights={"out.weight": torch.tensor([[0.1, -3e-8]])},
        moments={"0.step": torch.tensor(7.0), "0.exp_avg": torch.tensor([[1e-9, 2.0]])},
        rates={"groups": [{"lr": 0.1 + 0.2, "params": [0]}], "schedule": {"last_epoch": 3}},
    )
    write_state(tmp_path, state, config())
    assert {file.name for file in tmp_path.iterdir()} == {
        "weights.safetensors",
        "optimizer.safetensors",
        "state.json",
    }
    read = read_state(ray.train.Checkpoint.from_directory(str(tmp_path)))
    assert (read.history, read.rates) == (state.history, state.rates)
    for name in ("weights", "moments"):
        one, other = getattr(read, name), getattr(state, name)
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_state_of_another_version_is_refused_in_a_line(tmp_path: Path, epoch: Epoch) -> None:
    write_state(tmp_path, TrainState(history=(epoch,), weights={}, moments={}, rates={}), config())
    state = tmp_path / "state.json"
    state.write_text(state.read_text().replace('"waiting"', '"waited"'))
    with pytest.raises(DataError, match=r"left by another version of cellnet .*; train without --resume"):
        read_state(ray.train.Checkpoint.from_directory(str(tmp_path)))


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
