"""What a training makes small."""

import functools
from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from cellnet.config.train import TrainConfig
from cellnet.training.batches import Target

NEAR: Final = 0.1
"""Cells, within which the error of a tile's count is squared where nothing but its count is known; a larger one counts
as it is, so that the answer comes to be the median of what is likely. With 1 a counter of single tiles was 0.40 cells
off, with 0.1 0.37."""

Criterion = Callable[[Tensor, Target], Tensor]
"""The loss of a batch, from the network's output in training and what is true."""

MAX_CLASS_WEIGHT: Final = 10.0
"""How much more a tile of the rarest lineage weighs than one of the commonest, at most: a handful of tiles that
weigh hundreds of times more would be learned by heart."""
SPREAD: Final = 1.0
"""Standard deviation of a cell in the density map, in fields: a marked centre is right to about a field."""


def criterion_of(config: TrainConfig, *, class_tiles: Sequence[int] = (), mean_count: float = 1.0) -> Criterion:
    """The loss of a configuration, for so many training tiles of each lineage, or cells a training tile.

    Of a classifier: cross-entropy, rare lineages weighing more as `class_weights` says. Of a counter: `count_loss`.
    """
    if config.task == "count":
        return functools.partial(count_loss, mean_count=max(mean_count, 1.0))
    weighted = class_tiles and config.class_weights == "balanced"
    weight_K = balanced_weights(class_tiles) if weighted else None

    def class_loss(logits_BK: Tensor, target: Target) -> Tensor:
        loss_B = functional.cross_entropy(logits_BK, target.label_B, label_smoothing=0.05, reduction="none")
        return (loss_B if weight_K is None else loss_B * weight_K.to(loss_B)[target.label_B]).mean()

    return class_loss


def balanced_weights(class_tiles: Sequence[int]) -> Tensor:
    """Weights (K,) of tiles, inverse to how many their lineage has and 1 on average over all tiles.

    >>> balanced_weights([30, 10]).tolist()  # 30 × 2/3 = 10 × 2
    [0.6666666865348816, 2.0]
    """
    tiles_K = torch.tensor(class_tiles, dtype=torch.float32).clamp(min=1)
    weight_K = (tiles_K.max() / tiles_K).clamp(max=MAX_CLASS_WEIGHT)
    return weight_K * tiles_K.sum() / (weight_K * tiles_K).sum()


def count_loss(output: Tensor, target: Target, mean_count: float = 1.0) -> Tensor:
    """A Huber loss of the counts (B,): squared near the truth, linear far off.

    Of density maps (B, h, w) their sums are the counts, and tiles of known centres add how far off their map is, for
    each of `mean_count` cells.
    """
    if output.ndim == 1:
        return functional.smooth_l1_loss(output, target.count_B)
    count_B = output.sum(dim=(1, 2))
    alone_B = functional.smooth_l1_loss(count_B, target.count_B, beta=NEAR, reduction="none")
    if target.cells_Bhw is None:
        return alone_B.mean()
    known_B = ~target.cells_Bhw[:, 0, 0].isnan()
    placed_B = functional.smooth_l1_loss(count_B, target.count_B, reduction="none")
    placed_B = placed_B + map_loss(output, spread_cells(target.cells_Bhw.nan_to_num())) / mean_count
    return torch.where(known_B, placed_B, alone_B).mean()


def map_loss(density_Bhw: Tensor, truth_Bhw: Tensor) -> Tensor:
    """Half the Poisson deviance (B,) of density maps (McCullagh & Nelder 1989, 2.3); 0 where they are equal."""
    log_density_Bhw = density_Bhw.clamp(min=1e-8).log()
    excess_Bhw = density_Bhw - truth_Bhw + truth_Bhw.xlogy(truth_Bhw) - truth_Bhw * log_density_Bhw
    return excess_Bhw.sum(dim=(1, 2))


def spread_cells(cells_Bhw: Tensor) -> Tensor:
    """Density maps: each cell is a Gaussian over the fields around it, all of it inside the tile."""
    place = torch.arange(cells_Bhw.shape[-1], device=cells_Bhw.device)
    weight = torch.exp(-((place[:, None] - place) ** 2) / (2 * SPREAD**2))
    spread = weight / weight.sum(dim=0)
    return spread @ cells_Bhw @ spread.T
