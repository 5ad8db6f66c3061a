"""A training with every `auto` decided."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from cellnet.bank.frames import Frame
from cellnet.config.bank import Intensity
from cellnet.config.choices import NETWORK_PX, PAPER_SHARES, Protocol
from cellnet.config.train import Augment, Preprocess, TrainConfig
from cellnet.tasks import Task

WHOLE_FRAME_PX: Final = 300
"""Frames whose shorter side is under this are one tile each, unless the configuration says otherwise."""
MAX_SHIFTS: Final = 16
ENOUGH_TILES: Final = 4000
"""Training tiles that `auto` shifts aim at."""


def resolve(augment: Augment, *, task: Task, tiles: int, protocol: Protocol = "grouped") -> Augment:
    """The augmentation with every `auto` decided, for a training on so many tiles before augmentation.

    The paper's protocol draws from its 16 variants, so there they are stored.

    >>> resolve(Augment(), task="count", tiles=225).shifts, resolve(Augment(), task="count", tiles=10_000).shifts
    (16, 0)
    """
    if protocol == "paper":
        return augment.model_copy(update={"shares": PAPER_SHARES, "shifts": 0, "orientation": "stored"})
    shares = augment.shares
    if shares == "auto":
        shares = PAPER_SHARES if task == "classify" else (1.0,)
    shifts = augment.shifts
    if shifts == "auto":
        shifts = min(MAX_SHIFTS, max(0, round(ENOUGH_TILES / (tiles * len(shares))) - 1))
    return augment.model_copy(update={"shares": shares, "shifts": shifts})


def preprocess_for(config: TrainConfig, frames: Sequence[Frame], intensity: Intensity) -> Preprocess:
    """The preprocess of a training on these frames: its tile decided, its pixel size the median.

    The pixel size is known only if every frame's is.
    """
    known = [frame.pixel_um for frame in frames if frame.pixel_um is not None]
    pixel_um = float(np.median(known)) if len(known) == len(frames) else None
    factors_N = np.array([frame.pixel_um / pixel_um if frame.pixel_um and pixel_um else 1.0 for frame in frames])
    height = round(np.median(factors_N * [frame.height for frame in frames]))
    width = round(np.median(factors_N * [frame.width for frame in frames]))
    whole = config.tile == "frame" or (config.tile == "auto" and min(height, width) < WHOLE_FRAME_PX)
    side = config.tile if isinstance(config.tile, int) else NETWORK_PX
    return Preprocess(
        tile_px=(height, width) if whole else (side, side),
        pixel_um=pixel_um,
        intensity=intensity,
        kernel=config.kernel,
    )


def decide_epochs(config: TrainConfig, *, tiles: int) -> TrainConfig:
    """The configuration with its `auto` epochs decided, for so many training tiles.

    >>> decide_epochs(TrainConfig(task="count"), tiles=2000).epochs
    100
    """
    if config.epochs != "auto":
        return config
    return config.model_copy(update={"epochs": min(200, max(30, round(200_000 / tiles)))})
