"""Batches of tiles as a network sees them: on its device, normalised, and in training varied."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cellnet.config.train import Augment, Preprocess
from cellnet.images.pixels import normalise
from cellnet.tasks import TASKS, Task
from cellnet.training.tiles import UNKNOWN_CELLS, Batch


class Target(NamedTuple):
    """What is true of the tiles of a batch."""

    label_B: Tensor
    """Indices of lineages (int64), -1 where that is not known."""
    count_B: Tensor
    """Cells (float32), NaN where that is not known."""
    cells_Bhw: Tensor | None = None
    """Cells whose centre lies in each field of a tile (float32), NaN in all of a tile of unknown centres."""

    def of(self, task: Task) -> Tensor:
        """What a network of the task is to say (B,)."""
        return {"label": self.label_B, "count": self.count_B}[TASKS[task].truth]


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


def vary(input_B1HW: Tensor, target: Target, augment: Augment, generator: torch.Generator) -> tuple[Tensor, Target]:
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
