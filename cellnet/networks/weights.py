"""Weights of networks, as safetensors files."""

import safetensors.torch
import torch
from torch import nn

from cellnet.config.train import TrainConfig
from cellnet.networks import architectures as models
from cellnet.untrusted import WEIGHTS, check_safetensors


def fresh_network(config: TrainConfig, classes: int, mean_count: float = 1.0) -> nn.Module:
    """The network of a configuration before training, in the memory layout that convolutions like."""
    network = models.create(config.model, config.task, classes=classes, mean_count=mean_count)
    return network.to(memory_format=torch.channels_last)


def weights_to_bytes(weights: dict[str, torch.Tensor]) -> bytes:
    """The weights as a safetensors file."""
    data: bytes = safetensors.torch.save({name: value.contiguous() for name, value in weights.items()})
    return data


def weights_from_bytes(data: bytes, ref: str) -> dict[str, torch.Tensor]:
    """What `weights_to_bytes` gave of the model `ref`. Raises IntegrityError for anything but a safetensors file."""
    check_safetensors(data, f"{WEIGHTS} of {ref}")
    return dict(safetensors.torch.load(data))
