"""Batches of tiles as a network sees them: on its device, normalised, and in training varied."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cellnet.config.train import AS_RECORDED, Augment, Preprocess
from cellnet.images.pixels import normalise
from cellnet.tasks import TASKS, Task
from cellnet.training import instrument
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


def vary(
    input_B1HW: Tensor,
    target: Target,
    augment: Augment,
    generator: torch.Generator,
    *,
    task: Task,
    preprocess: Preprocess,
) -> tuple[Tensor, Target]:
    """Each tile turned, mirrored and recorded by another instrument as `augment` says, with its target."""
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
    target = target._replace(cells_Bhw=cells_Bhw)
    if draws_instruments(augment):
        varied, target = re_recorded(varied, target, augment, generator, task=task, preprocess=preprocess)
    if augment.jitter:
        factor_B, shift_B = (2 * torch.rand(2, batch, generator=generator) - 1).to(varied.device) * augment.jitter
        varied = varied * (1 + factor_B)[:, None, None, None] + shift_B[:, None, None, None]
    return varied, target


def draws_instruments(augment: Augment) -> bool:
    """Whether tiles are to be seen as other instruments would have recorded them, too."""
    return any(getattr(augment, name) not in (None, nothing) for name, nothing in AS_RECORDED.items())


def re_recorded(
    input_B1HW: Tensor,
    target: Target,
    augment: Augment,
    generator: torch.Generator,
    *,
    task: Task,
    preprocess: Preprocess,
) -> tuple[Tensor, Target]:
    """Half of the tiles, at least one, as another instrument would have recorded them; the others stay as they are.

    Of a counter, tiles are moved whose cells' centres are known: what leaves a tile at its corners is not told by a
    count alone. Cells go with the image, and the count is the number of those that are then seen.
    """
    batch = len(input_B1HW)
    rows = torch.randperm(batch, generator=generator)[: (batch + 1) // 2]
    drawn_2N = 2 * torch.rand(2, len(rows), generator=generator) - 1
    rows = rows.to(input_B1HW.device)
    tiles_N1HW, cells_Bhw = input_B1HW[rows], target.cells_Bhw
    if (augment.rotation or (augment.scale or 1) > 1) and (task == "classify" or cells_Bhw is not None):
        source_N22 = instrument.source_of(drawn_2N[0] * (augment.rotation or 0), (augment.scale or 1) ** drawn_2N[1])
        moved_N1HW = instrument.move(tiles_N1HW, source_N22)
        if cells_Bhw is not None:
            now_Nhw = instrument.move_cells(cells_Bhw[rows], source_N22)
            known_N11 = ~cells_Bhw[rows, :1, :1].isnan()
            moved_N1HW = torch.where(known_N11[:, None], moved_N1HW, tiles_N1HW)
            now_Nhw = torch.where(known_N11, now_Nhw, torch.nan)
            count_N = torch.where(known_N11[:, 0, 0], now_Nhw.sum(dim=(1, 2)), target.count_B[rows])
            cells_Bhw = cells_Bhw.index_copy(0, rows, now_Nhw)
            target = target._replace(cells_Bhw=cells_Bhw, count_B=target.count_B.index_copy(0, rows, count_N))
        tiles_N1HW = moved_N1HW
    return input_B1HW.index_copy(0, rows, relit(tiles_N1HW, augment, generator, preprocess)), target


def as_another(input_B1HW: Tensor, augment: Augment, generator: torch.Generator, preprocess: Preprocess) -> Tensor:
    """Each tile, of which nobody needs to know where its cells are, as another instrument would have recorded it."""
    drawn_2B = (2 * torch.rand(2, len(input_B1HW), generator=generator) - 1).to(input_B1HW.device)
    source_B22 = instrument.source_of(drawn_2B[0] * (augment.rotation or 0), (augment.scale or 1) ** drawn_2B[1])
    return relit(instrument.move(input_B1HW, source_B22), augment, generator, preprocess)


def relit(input_B1HW: Tensor, augment: Augment, generator: torch.Generator, preprocess: Preprocess) -> Tensor:
    """Tiles in another focus, under uneven light, by a camera of another response and noise, as `augment` says."""
    batch = len(input_B1HW)
    if augment.blur:
        sigma_B = augment.blur * torch.rand(batch, generator=generator)
        input_B1HW = instrument.blur(input_B1HW, sigma_B, most=augment.blur)
    grey_B1HW = input_B1HW * preprocess.std + preprocess.mean
    if augment.shading:
        weight_B4 = 2 * torch.rand(batch, 4, generator=generator) - 1
        weight_B4 /= weight_B4.abs().sum(dim=1, keepdim=True).clamp(min=1)
        grey_B1HW = instrument.shade(grey_B1HW, augment.shading * weight_B4)
    if augment.gamma and augment.gamma > 1:
        exponent_B = augment.gamma ** (2 * torch.rand(batch, generator=generator) - 1)
        grey_B1HW = grey_B1HW.clamp_(min=0).pow_(exponent_B.to(grey_B1HW.device)[:, None, None, None])
    if augment.noise:
        sigma_B = augment.noise * torch.rand(batch, generator=generator)
        grey_B1HW = instrument.add_noise(grey_B1HW, sigma_B, generator)
    return grey_B1HW.sub_(preprocess.mean).div_(preprocess.std)


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
