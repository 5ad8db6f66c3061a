"""A training with every `auto` decided, from what a bank's table says of its frames, before anything is read."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from cellnet.bank.bank import Bank
from cellnet.bank.frames import Frame
from cellnet.bank.labels import trainable_frames
from cellnet.config.bank import Intensity
from cellnet.config.choices import NETWORK_PX, PAPER_SHARES, Protocol, Split
from cellnet.config.train import Augment, Preprocess, TrainConfig
from cellnet.config.tune import Settings, with_settings
from cellnet.errors import DataError
from cellnet.networks.architectures import resolve
from cellnet.tasks import TASKS, Task
from cellnet.training.protocols import Paper
from cellnet.training.tiles import Variants, tiles_n

WHOLE_FRAME_PX: Final = 300
"""Frames whose shorter side is under this are one tile each, unless the configuration says otherwise."""
MAX_SHIFTS: Final = 16
ENOUGH_TILES: Final = 4000
"""Training tiles that `auto` shifts aim at."""


@dataclass(frozen=True, kw_only=True)
class PlannedSplit:
    """What a split is made of."""

    frames: tuple[str, ...]
    """The names of those that give tiles, in the bank's order."""
    variants: Variants
    rows: int
    """Tiles that come of them, exactly."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is trained, on what: whoever makes shards, trains or searches gets it and decides nothing more.

    Three settings stay `auto` (or None), since they depend on the device and change nothing of what is planned here:
    `cellnet.training.fit` decides `precision` and `compile` where the network lies, and a worker its `threads` where
    it runs. The configuration keeps `tile` as it was asked for; what it came to is `preprocess.tile_px`.
    """

    config: TrainConfig
    """What is stored with the model."""
    preprocess: Preprocess
    classes: tuple[str, ...]
    """The lineages that a classifier tells apart; empty for a counter."""
    splits: dict[Split, PlannedSplit]
    """train and test, and under protocol=paper the holdout that it takes from the same frames."""
    frame_px: tuple[int, int]
    """Height and width of a training frame, the median."""
    frame_tiles: float
    """Tiles that a training frame is cut into, the median."""
    left_out: int
    """Frames too small for a tile, or of a magnification too far off."""
    paper: Paper | None = None
    """Of protocol=paper."""

    def with_settings(self, settings: Settings) -> "Plan":
        """The plan of a trial on the same tiles: with other values of settings that no tile depends on.

        Raises ConfigError, which begins with the setting's key.
        """
        config = with_settings(self.config, settings)
        model = resolve(config.model, config.task, frame_tiles=self.frame_tiles)
        preprocess = self.preprocess.model_copy(update={"kernel": config.kernel})
        return replace(self, config=config.model_copy(update={"model": model}), preprocess=preprocess)


def make_plan(bank: Bank, config: TrainConfig) -> Plan:
    """The plan of a configuration for a bank as it is. Raises DataError for a bank that cannot train it."""
    labelled = trainable_frames(bank, config.task, config.lineage)
    training = [frame for frame in labelled if frame.split == "train"]
    preprocess = preprocess_for(config, training, bank.settings.intensity)
    grids = {frame.frame: tiles_n(frame, preprocess) for frame in labelled}
    usable = [frame for frame in labelled if grids[frame.frame]]
    training_grids = [grids[frame.frame] for frame in usable if frame.split == "train"]
    if not training_grids:
        width, height = preprocess.tile_px[::-1]
        raise DataError(
            f"every training frame of {bank.store.uri} is smaller than the {width}×{height} pixels of a tile; "
            "train with a smaller one, for example --set tile=frame"
        )
    frame_tiles = float(np.median(training_grids))
    augment = decide_augment(config.augment, task=config.task, tiles=sum(training_grids), protocol=config.protocol)
    paper = _paper(bank, config)
    splits = _splits(usable, grids, augment, paper)
    model = resolve(config.model, config.task, frame_tiles=frame_tiles)
    config = decide_epochs(config.model_copy(update={"augment": augment, "model": model}), tiles=splits["train"].rows)
    return Plan(
        config=config,
        preprocess=preprocess,
        classes=tuple(bank.lineages) if config.task == "classify" else (),
        splits=splits,
        frame_px=(
            int(np.median([frame.height for frame in training])),
            int(np.median([frame.width for frame in training])),
        ),
        frame_tiles=frame_tiles,
        left_out=len(labelled) - len(usable),
        paper=paper,
    )


def preprocess_for(config: TrainConfig, frames: Sequence[Frame], intensity: Intensity) -> Preprocess:
    """The preprocess of a training on these frames: its tile decided, its pixel size the median.

    The pixel size is known only if every frame's is. The paper's protocol puts the kernel on by itself.
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
        kernel="none" if config.protocol == "paper" else config.kernel,
    )


def decide_augment(augment: Augment, *, task: Task, tiles: int, protocol: Protocol = "grouped") -> Augment:
    """The augmentation with every `auto` decided, for a training on so many tiles before augmentation.

    The paper's protocol splits its 16 variants, so there they are stored.

    >>> decide_augment(Augment(), task="count", tiles=225).shifts
    16
    >>> decide_augment(Augment(), task="count", tiles=10_000).shifts
    0
    """
    if protocol == "paper":
        return augment.model_copy(update={"shares": PAPER_SHARES, "shifts": 0, "orientation": "stored"})
    shares = augment.shares
    if shares == "auto":
        shares = PAPER_SHARES if TASKS[task].crops else (1.0,)
    shifts = augment.shifts
    if shifts == "auto":
        shifts = min(MAX_SHIFTS, max(0, round(ENOUGH_TILES / (tiles * len(shares))) - 1))
    return augment.model_copy(update={"shares": shares, "shifts": shifts})


def decide_epochs(config: TrainConfig, *, tiles: int) -> TrainConfig:
    """The configuration with its `auto` epochs decided, for so many training tiles.

    >>> decide_epochs(TrainConfig(task="count"), tiles=2000).epochs
    100
    """
    if config.epochs != "auto":
        return config
    return config.model_copy(update={"epochs": min(200, max(30, round(200_000 / tiles)))})


def _paper(bank: Bank, config: TrainConfig) -> Paper | None:
    """The paper's protocol, if the configuration asks for it."""
    if config.protocol != "paper":
        return None
    return Paper(
        holdout_share=bank.settings.holdout_share,
        test_share=bank.settings.test_share,
        kernel=config.kernel,
        filtered=frozenset(bank.lineages[::2]),
        seed=config.seed,
    )


def _splits(
    frames: Sequence[Frame], grids: dict[str, int], augment: Augment, paper: Paper | None
) -> dict[Split, PlannedSplit]:
    """The splits of frames that are cut into so many tiles each."""
    assert augment.shares != "auto" and augment.shifts != "auto", "decided before"
    augmented = Variants(
        shares=augment.shares,
        shifts=augment.shifts,
        orientations=(0, 90, 180, 270) if augment.orientation == "stored" else (0,),
    )
    variants: dict[Split, Variants] = {"train": augmented, "test": Variants()}
    if paper:
        variants = dict.fromkeys(("train", "test", "holdout"), augmented)
    planned = {}
    for split, wanted in variants.items():
        names = tuple(frame.frame for frame in frames if (frame.split != "holdout" if paper else frame.split == split))
        tiles = {name: wanted.number(grids[name]) for name in names}
        rows = sum(
            sum(side == split for side in itertools.islice(paper.splits_of(name), number)) if paper else number
            for name, number in tiles.items()
        )
        planned[split] = PlannedSplit(frames=names, variants=wanted, rows=rows)
    return planned
