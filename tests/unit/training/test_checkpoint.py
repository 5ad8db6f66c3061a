"""A training's state as a file: comes back as it was, is no pickle, and outlives versions of cellnet."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

from cellnet.config.train import TrainConfig
from cellnet.errors import DataError
from cellnet.networks.weights import fresh_network, weights_to_bytes
from cellnet.training.checkpoint import state_from_bytes, state_to_bytes
from cellnet.training.state import Epoch, TrainState

CONFIG = TrainConfig(task="count", epochs=5)
EPOCH = Epoch(
    number=7, loss=0.1 + 0.2, test={"mae": 1.5}, seconds=3.0, tiles=32, tiles_per_s=16.0, waiting=0.01, dead=False
)
STATE = TrainState(
    history=(EPOCH,),
    weights={"out.weight": torch.tensor([[0.1, -3e-8]]), "out.steps": torch.tensor(7)},
    moments={"0.step": torch.tensor(7.0), "0.exp_avg": torch.tensor([[1e-9, 2.0]])},
    rates={"groups": [{"lr": 0.1 + 0.2, "params": [0]}], "schedule": {"last_epoch": 3}},
)


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    """The file of `STATE` with something else beside its tensors."""
    data = state_to_bytes(STATE, CONFIG)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    facts = json.loads(header["__metadata__"]["training"])
    change(facts)
    return safetensors.torch.save(safetensors.torch.load(data), metadata={"training": json.dumps(facts)})


def test_a_state_comes_back_as_it_was_to_the_last_digit() -> None:
    read = state_from_bytes(state_to_bytes(STATE, CONFIG))
    assert (read.history, read.rates) == (STATE.history, STATE.rates)
    for tensors, wanted in ((read.weights, STATE.weights), (read.moments, STATE.moments)):
        assert tensors.keys() == wanted.keys() and all(torch.equal(tensors[name], wanted[name]) for name in wanted)


def test_weights_that_went_through_a_checkpoint_are_published_as_the_same_bytes() -> None:
    weights = fresh_network(CONFIG, 0).state_dict()
    assert not all(value.is_contiguous() for value in weights.values()), "laid out as convolutions like"
    state = TrainState(history=(EPOCH,), weights=weights, moments={}, rates={})
    assert weights_to_bytes(state_from_bytes(state_to_bytes(state, CONFIG)).weights) == weights_to_bytes(weights)


def test_any_reader_of_safetensors_opens_a_state_with_its_format_and_configuration(tmp_path: Path) -> None:
    file = tmp_path / "state.safetensors"
    file.write_bytes(state_to_bytes(STATE, CONFIG))
    with safetensors.safe_open(file, "pt") as opened:
        assert set(opened.keys()) == {"weights.out.weight", "weights.out.steps", "moments.0.step", "moments.0.exp_avg"}
        facts = json.loads(opened.metadata()["training"])
    assert facts["format"] == 1 and TrainConfig.model_validate(facts["config"]) == CONFIG


def test_what_a_reader_does_not_know_is_left_alone() -> None:
    def add(facts: dict[str, Any]) -> None:
        facts["mood"] = "good"
        facts["history"][0]["watts"] = 300
        del facts["config"]

    assert state_from_bytes(changed(add)).history == STATE.history


def test_a_state_of_a_later_cellnet_is_refused_politely() -> None:
    data = changed(lambda facts: facts.update(format=2, history="elsewhere"))
    with pytest.raises(
        DataError, match=r"^it was written by a later cellnet \(format 2, this one reads 1\); update cellnet$"
    ):
        state_from_bytes(data)


def before() -> bytes:
    """What a search kept of a trial before states had a format."""
    return safetensors.torch.save({"weights.out": torch.ones(1), "facts": torch.from_numpy(np.zeros(9, np.uint8))})


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "header"),
        (b"not a tensor", "header"),
        (pickle.dumps({}), "header"),
        (state_to_bytes(STATE, CONFIG)[:-1], "incomplete metadata"),
        (before(), "^it has no '__metadata__'$"),
        (changed(lambda facts: facts.pop("format")), "^it has no 'format'$"),
        (changed(lambda facts: facts.update(format="new")), "^it is damaged: its format is 'new'"),
        (changed(lambda facts: facts["history"][0].pop("waiting")), "missing 1 required .*'waiting'"),
        (changed(lambda facts: facts.update(history=[7])), "'int' object"),
    ],
    ids=["empty", "text", "pickle", "cut", "before", "no format", "odd format", "no field", "no epoch"],
)
def test_what_is_no_state_is_refused_in_a_line(data: bytes, why: str) -> None:
    with pytest.raises(DataError, match=why) as refused:
        state_from_bytes(data)
    assert "\n" not in str(refused.value)
