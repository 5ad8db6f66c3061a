"""What a frozen network sees of tiles: what its last layers learn from, and are asked about."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cellnet.config.train import Preprocess, TrainConfig
from cellnet.images.pixels import normalise
from cellnet.networks.views import views_of, watched
from cellnet.tasks import TASKS, Task
from cellnet.training.batches import as_another, draws_instruments
from cellnet.training.fit import has_bf16, seed_of
from cellnet.training.heads import Features
from cellnet.training.tiles import UNKNOWN_CELLS

VIEWS: Final = 8
"""Orientations in which a classifier's last layer sees a training tile."""


def see(
    network: nn.Module, batch: dict[str, Any], preprocess: Preprocess, config: TrainConfig
) -> dict[str, NDArray[Any]]:
    """What the last layers are given of tiles as they lie in the shards, with what is known of these.

    Of a classifier `seen` (B, V, C), in V orientations, and where the configuration draws other instruments `other`,
    the same as these would have recorded them; of a counter `seen` (B, P, C), of P places, `weight` and `exact`. In
    float16. Besides them `truth` and `frame`.
    """
    input_B1HW = torch.from_numpy(normalise(batch["pixels"], preprocess)).to(memory_format=torch.channels_last)
    known = {"truth": batch[TASKS[config.task].truth], "frame": batch["frame"]}
    looks = {}
    if config.task == "classify":
        views_BV1HW = torch.stack(list(views_of(input_B1HW, VIEWS)), dim=1)
        looks = {"seen": views_BV1HW}
        if draws_instruments(config.augment):
            looks["other"] = _by_others(views_BV1HW, batch["pixels"], preprocess, config)
    with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16(torch.device("cpu"))):
        if config.task == "count":
            exact = batch["cells"][:, 0, 0] != UNKNOWN_CELLS
            return {"seen": _see(network, input_B1HW, places=True), "weight": batch["weight"], "exact": exact, **known}
        return {
            name: np.stack([_see(network, view_B1HW) for view_B1HW in look_BV1HW.unbind(dim=1)], axis=1)
            for name, look_BV1HW in looks.items()
        } | known


def features_from(rows: Sequence[Mapping[str, Any]], task: Task) -> Features:
    """The features of tiles, each of which is what `see` gave of it."""
    seen_NVC = np.stack([row["seen"] for row in rows])
    truths, frame_N = [row["truth"] for row in rows], np.array([row["frame"] for row in rows])
    if task == "classify":
        others = np.stack([row["other"] for row in rows]) if "other" in rows[0] else None
        return Features(seen_NVC, np.array(truths, np.int64), frame_N, other_NVC=others)
    weight_N, exact_N = np.array([row["weight"] for row in rows], np.float32), np.array([row["exact"] for row in rows])
    return Features(seen_NVC, np.array(truths, np.float32), frame_N, weight_N, exact_N)


@torch.inference_mode()
def _see(network: nn.Module, input_B1HW: torch.Tensor, *, places: bool = False) -> NDArray[np.float16]:
    """What the last layer is given (B, C), or of every place (B, P, C)."""
    with watched(network, places=places) as seen:
        network(input_B1HW.contiguous(memory_format=torch.channels_last))
    return seen[0].numpy().astype(np.float16)


@torch.inference_mode()
def _by_others(
    views_BV1HW: torch.Tensor, pixels_BHW: NDArray[np.uint8], preprocess: Preprocess, config: TrainConfig
) -> torch.Tensor:
    """Each view of each tile by an instrument of its own, which the seed and the tile's pixels decide."""
    others = []
    for views_V1HW, pixels_HW in zip(views_BV1HW, pixels_BHW, strict=True):
        generator = torch.Generator().manual_seed(seed_of(config.seed, zlib.crc32(pixels_HW.tobytes())))
        others.append(as_another(views_V1HW, config.augment, generator, preprocess))
    return torch.stack(others)
