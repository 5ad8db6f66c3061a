"""Weights of networks, as safetensors files, and what a network starts from."""

from dataclasses import dataclass

import safetensors.torch
import torch
from torch import Tensor, nn

from cellnet.config.train import StartedFrom, TrainConfig
from cellnet.errors import ConfigError
from cellnet.networks import architectures as models
from cellnet.untrusted import WEIGHTS, check_safetensors


@dataclass(frozen=True)
class Start:
    """What a network starts from instead of chance."""

    started: StartedFrom
    weights: dict[str, Tensor]
    """By the names of the network's layers; those that it has not are left out."""
    parent: str | None = None
    """The version that they are of, `name@number`, if they are of one."""


def fresh_network(
    config: TrainConfig, classes: int, mean_count: float = 1.0, *, start: Start | None = None
) -> nn.Module:
    """The network of a configuration before training, in the memory layout that convolutions like.

    Raises ConfigError for a start that does not fit it.
    """
    network = models.create(config.model, config.task, classes=classes, mean_count=mean_count)
    if start:
        start_from(network, start)
    return network.to(memory_format=torch.channels_last)


def start_from(network: nn.Module, start: Start) -> None:
    """Give a network the weights that fit its layers by name and shape; its last ones may stay as they are.

    Raises ConfigError where layers of its body do not fit: they are of another architecture, width or depth.
    """
    own = network.state_dict()
    fitting = {name: value for name, value in start.weights.items() if name in own and own[name].shape == value.shape}
    if stray := [name for name in own if name not in fitting and name.startswith(("body.", "stages."))]:
        raise ConfigError(
            f"the weights of {start.started.source} are of another network: {stray[0]} is missing there or of another "
            "shape; set the architecture, width and depth that they were learnt in"
        )
    network.load_state_dict(fitting, strict=False)


def weights_to_bytes(weights: dict[str, Tensor]) -> bytes:
    """The weights as a safetensors file."""
    data: bytes = safetensors.torch.save({name: value.contiguous() for name, value in weights.items()})
    return data


def weights_from_bytes(data: bytes, ref: str) -> dict[str, Tensor]:
    """What `weights_to_bytes` gave of the model `ref`. Raises IntegrityError for anything but a safetensors file."""
    check_safetensors(data, f"{WEIGHTS} of {ref}")
    return dict(safetensors.torch.load(data))
