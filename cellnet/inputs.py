"""Batches of tiles as a network sees them: on its device, normalised, and in training varied."""

import contextlib
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from cellnet.augment import UNKNOWN_CELLS, Batch
from cellnet.config import Augment, Preprocess
from cellnet.images import normalise


class Target(NamedTuple):
    """What is true of the tiles of a batch."""

    label_B: Tensor
    """Indices of lineages (int64), -1 where that is not known."""
    count_B: Tensor
    """Cells (float32), NaN where that is not known."""
    cells_Bhw: Tensor | None = None
    """Cells whose centre lies in each field of a tile (float32), NaN in all of a tile of unknown centres."""


def to_tensors(batch: Batch, preprocess: Preprocess, device: torch.device) -> tuple[Tensor, Target]:
    """The batch as network input (B, 1, 200, 200) and targets, on a device."""
    input_B1HW = torch.from_numpy(normalise(batch["pixels"], preprocess))
    cells_Bhw = None
    if "cells" in batch:
        stored_Bhw = torch.from_numpy(np.array(batch["cells"])).to(device)
        cells_Bhw = torch.where(stored_Bhw == UNKNOWN_CELLS, torch.nan, stored_Bhw.float())
    target = Target(
        label_B=torch.from_numpy(np.array(batch["label"], np.int64)).to(device),
        count_B=torch.from_numpy(np.array(batch["count"], np.float32)).to(device),
        cells_Bhw=cells_Bhw,
    )
    return input_B1HW.to(device, memory_format=torch.channels_last), target


def draw_variants(
    input_B1HW: Tensor, target: Target, augment: Augment, generator: torch.Generator
) -> tuple[Tensor, Target]:
    """Each tile turned by a multiple of 90°, mirrored and changed in contrast as `augment` says, with its target."""
    batch = input_B1HW.shape[0]
    varied, cells_Bhw = input_B1HW, target.cells_Bhw
    if augment.orientation == "drawn":
        quarter_B = torch.randint(4, (batch,), generator=generator)
        varied = turn(varied, quarter_B)
        cells_Bhw = None if cells_Bhw is None else turn(cells_Bhw, quarter_B)
    if augment.mirror:
        chosen_B = torch.rand(batch, generator=generator) < 0.5
        varied = mirror(varied, chosen_B)
        cells_Bhw = None if cells_Bhw is None else mirror(cells_Bhw, chosen_B)
    if augment.jitter:
        factor_B, shift_B = (2 * torch.rand(2, batch, generator=generator) - 1).to(varied.device) * augment.jitter
        varied = varied * (1 + factor_B)[:, None, None, None] + shift_B[:, None, None, None]
    return varied, target._replace(cells_Bhw=cells_Bhw)


def views_of(input_B1HW: Tensor, views: int) -> Iterator[Tensor]:
    """The tiles as they are, or for 8 `views` in each of four orientations, mirrored and not."""
    if views == 1:
        yield input_B1HW
        return
    for image, quarter in itertools.product((input_B1HW, input_B1HW.flip(-1)), range(4)):
        yield torch.rot90(image, quarter, dims=(-2, -1)).contiguous(memory_format=torch.channels_last)


def turn(images: Tensor, quarter_B: Tensor) -> Tensor:
    """Each image (B, ..., H, W) turned anticlockwise by as many quarters."""
    turned = torch.empty_like(images)
    for quarter in range(4):
        chosen = quarter_B == quarter
        turned[chosen] = torch.rot90(images[chosen], quarter, dims=(-2, -1))
    return turned


def mirror(images: Tensor, chosen_B: Tensor) -> Tensor:
    """The chosen images (B, ..., H, W) with left and right changed over."""
    chosen = chosen_B.to(images.device).view(-1, *[1] * (images.ndim - 1))
    return torch.where(chosen, images.flip(-1), images)


@contextlib.contextmanager
def watched(network: nn.Module) -> Iterator[list[Tensor]]:
    """A list that gets what the last layer `out` sees in every forward pass (B, C): its mean over places."""
    seen: list[Tensor] = []

    def keep(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        features = inputs[0].detach().float()
        seen.append(features.mean(dim=(2, 3)) if features.dim() == 4 else features)

    handle = network.get_submodule("out").register_forward_pre_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()
