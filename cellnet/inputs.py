"""Batches of tiles as a network sees them: on its device, normalised, and in training varied."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cellnet.augment import Batch
from cellnet.config import Augment, Preprocess
from cellnet.images import normalise


class Target(NamedTuple):
    """What is true of the tiles of a batch."""

    label_B: Tensor
    """Indices of lineages (int64), -1 where that is not known."""
    count_B: Tensor
    """Cells (float32), NaN where that is not known."""


def to_tensors(batch: Batch, preprocess: Preprocess, device: torch.device) -> tuple[Tensor, Target]:
    """The batch as network input (B, 1, 200, 200) and targets, on a device."""
    input_B1HW = torch.from_numpy(normalise(batch["pixels"], preprocess))
    target = Target(
        label_B=torch.from_numpy(np.array(batch["label"], np.int64)).to(device),
        count_B=torch.from_numpy(np.array(batch["count"], np.float32)).to(device),
    )
    return input_B1HW.to(device, memory_format=torch.channels_last), target


def draw_variants(
    input_B1HW: Tensor, target: Target, augment: Augment, generator: torch.Generator
) -> tuple[Tensor, Target]:
    """Each tile turned by a multiple of 90°, mirrored and changed in contrast as `augment` says, with its target."""
    batch = input_B1HW.shape[0]
    turned = input_B1HW
    if augment.orientation == "drawn":
        quarter_B = torch.randint(4, (batch,), generator=generator)
        turned = torch.empty_like(input_B1HW)
        for quarter in range(4):
            chosen = quarter_B == quarter
            turned[chosen] = torch.rot90(input_B1HW[chosen], quarter, dims=(2, 3))
    if augment.mirror:
        chosen = torch.rand(batch, generator=generator) < 0.5
        turned = torch.where(chosen.to(turned.device)[:, None, None, None], turned.flip(3), turned)
    if augment.jitter:
        factor_B, shift_B = (2 * torch.rand(2, batch, generator=generator) - 1).to(turned.device) * augment.jitter
        turned = turned * (1 + factor_B)[:, None, None, None] + shift_B[:, None, None, None]
    return turned, target
