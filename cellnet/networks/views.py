"""Tiles in several orientations, and what the last layer of a network sees of them."""

import contextlib
import itertools
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cellnet.tasks import Task


def views_of(input_B1HW: Tensor, views: int) -> Iterator[Tensor]:
    """The tiles as they are, or for 8 `views` in each of four orientations, mirrored and not."""
    if views == 1:
        yield input_B1HW
        return
    for image, quarter in itertools.product((input_B1HW, input_B1HW.flip(-1)), range(4)):
        yield torch.rot90(image, quarter, dims=(-2, -1)).contiguous(memory_format=torch.channels_last)


@contextlib.contextmanager
def watched(network: nn.Module, *, places: bool = False) -> Iterator[list[Tensor]]:
    """A list that gets what the last layer `out` sees in every forward pass (B, C): its mean over places.

    With `places` it gets what is seen of each (B, P, C).
    """
    seen: list[Tensor] = []

    def keep(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        features = inputs[0].detach().float()
        if places:
            seen.append(features.flatten(2).transpose(1, 2))
        else:
            seen.append(features.mean(dim=(2, 3)) if features.dim() == 4 else features)

    handle = network.get_submodule("out").register_forward_pre_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()


@torch.inference_mode()
def forward(network: nn.Module, input_B1HW: Tensor, task: Task) -> NDArray[np.float32]:
    """Probabilities (B, K) or counts (B,) from a network in evaluation mode."""
    output = network(input_B1HW)
    values: NDArray[np.float32] = (output.softmax(1) if task == "classify" else output).float().cpu().numpy()
    return values
