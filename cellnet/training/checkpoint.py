"""A training's state as one safetensors file, of which nothing is unpickled: what `fit` goes on from.

Its tensors are `weights.NAME` and `moments.NAME`. Its metadata hold the rest, as JSON under one name:

    format    of this file; a reader leaves alone what it does not know, and refuses a higher one
    config    the training, with every `auto` decided
    history   the epochs so far
    rates     the optimizer's and the schedule's numbers
"""

import json
from dataclasses import asdict, fields
from typing import Any, Final

import safetensors
import safetensors.torch
from torch import Tensor

from cellnet.config.loading import check_format
from cellnet.config.train import TrainConfig
from cellnet.errors import DataError, IntegrityError
from cellnet.training.state import Epoch, TrainState

FORMAT: Final = 1
STATE: Final = "state.safetensors"
"""What the file is called in a checkpoint of Ray Train."""
FACTS: Final = "training"
"""The name of what is no tensor."""


def state_to_bytes(state: TrainState, config: TrainConfig) -> bytes:
    """A training's state as a file."""
    facts = {
        "format": FORMAT,
        "config": config.model_dump(mode="json"),
        "history": [asdict(epoch) for epoch in state.history],
        "rates": state.rates,
    }
    tensors = {f"weights.{name}": value.contiguous() for name, value in state.weights.items()}
    tensors |= {f"moments.{name}": value.contiguous() for name, value in state.moments.items()}
    data: bytes = safetensors.torch.save(tensors, metadata={FACTS: json.dumps(facts)})
    return data


def state_from_bytes(data: bytes) -> TrainState:
    """What `state_to_bytes` gave.

    Raises DataError for a file that is damaged or that another version of cellnet left: why, for its user to complete.
    """
    try:
        tensors = safetensors.torch.load(data)
        facts = _facts_of(data)
        check_format({"format": facts["format"]}, FORMAT, "it")
        return TrainState(
            history=tuple(_epoch(record) for record in facts["history"]),
            weights=_below(tensors, "weights."),
            moments=_below(tensors, "moments."),
            rates=facts["rates"],
        )
    except KeyError as error:
        raise DataError(f"it has no {error}") from error
    except (safetensors.SafetensorError, IntegrityError, ValueError, TypeError, AttributeError) as error:
        raise DataError(str(error)) from error


def _facts_of(data: bytes) -> dict[str, Any]:
    """Of a file whose header is known to be whole: its length in 8 bytes, then itself."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    facts: dict[str, Any] = json.loads(header["__metadata__"][FACTS])
    return facts


def _epoch(record: dict[str, Any]) -> Epoch:
    known = {field.name for field in fields(Epoch)}
    return Epoch(**{name: value for name, value in record.items() if name in known})


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
