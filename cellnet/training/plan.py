"""A training with every `auto` decided, from what a bank's table says of its frames, before anything is read."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cellnet.bank.bank import Bank
from cellnet.bank.columns import Frames
from cellnet.bank.folds import FOLDS, Folds, deal_batches, deal_folds, few_groups
from cellnet.bank.frames import Frame
from cellnet.bank.teaching import check_teaching, trainable_frames
from cellnet.config.bank import Intensity
from cellnet.config.choices import FIXED_ARCHITECTURES, NETWORK_PX, PAPER_SHARES, Protocol, Split
from cellnet.config.train import AS_RECORDED, OF_THE_NETWORK, Augment, ModelSpec, Preprocess, TrainConfig
from cellnet.config.tune import Settings, with_settings
from cellnet.errors import ConfigError, DataError
from cellnet.images.tiles import cut
from cellnet.networks.architectures import resolve
from cellnet.tasks import TASKS, Task
from cellnet.training.heads import holds_of
from cellnet.training.protocols import Paper
from cellnet.training.tiles import Variants, grids_of

WHOLE_FRAME_PX: Final = 300
"""Frames whose shorter side is under this are one tile each, unless the configuration says otherwise."""
MAX_SHIFTS: Final = 16
ENOUGH_TILES: Final = 4000
"""Training tiles that `auto` shifts aim at."""
FROZEN_TILE_PX: Final = 350
"""Side of a tile of a frozen network in larger frames, unless the configuration says otherwise: of brightfield lines it
named 0.98 of such tiles and 0.94 of those of 200 pixels, of LIVECell in other wells 0.79 and 0.76."""
BELOW, ABOVE = 0.25, 0.5
"""How far under and over the frame's median `greys=background` tells values apart, in what lies between the darkest and
the brightest value of a training frame, the median: what few pixels reach saturates."""
MOST_PLACED: Final = 4000
"""Tiles of which a frozen counter is trained at most: what it sees of their places is 0.9 GB, and three times that
while it learns by folds."""
ANSWER_MS: Final[dict[tuple[str, Task], float]] = {
    ("residual", "classify"): 0.8,
    ("efficientnet_lite0", "classify"): 8.3,
    ("density", "count"): 1.5,
    ("efficientnet_lite0", "count"): 6.3,
}
"""What a tile takes in one orientation, on one thread of an AMD EPYC (tests/benchmarks/engines.py). It decides nothing:
what a network that is chosen for few frames costs is told."""
ANOTHER_INSTRUMENT: Final = {
    "rotation": 180.0,
    "scale": 1.25,
    "blur": 2.0,
    "shading": 0.3,
    "gamma": 1.25,
    "noise": 0.03,
}
"""How unlike the frames of a bank a classifier is to expect those of the next instrument, unless told otherwise."""


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
    folds: Folds | None = None
    """Which of these frames each network learns from; None where the bank's splits say it."""
    batches: Folds | None = None
    """Besides folds of groups, where there are batches to leave out: those networks are asked what a new one brings."""
    shards_of: str = ""
    """Which frames the shards are made of, where that is not what the bank's train and test split say."""

    @property
    def frames(self) -> set[str]:
        """The names of all frames that it learns from or chooses by."""
        return {name for planned in self.splits.values() for name in planned.frames}

    @property
    def held_back(self) -> dict[int, frozenset[str]]:
        """The frames that each network of a cross-validation does not learn from, and is asked about.

        Those of the folds, from 1, and then those of the batches.
        """
        each = [held for folds in (self.folds, self.batches) if folds for held in folds.held_back.values()]
        return dict(enumerate(each, start=1))

    def among(self, frames: Iterable[Frame]) -> Frames:
        """Those of a bank's frames that it learns from or chooses by."""
        return Frames.of(frames).named_by("frame", self.frames)

    def with_settings(self, settings: Settings) -> "Plan":
        """The plan of a trial on the same tiles: with other values of settings that no tile depends on.

        Raises ConfigError, which begins with the setting's key.
        """
        config = with_settings(self.config, settings)
        model = decide_start(resolve(config.model, config.task, frame_tiles=self.frame_tiles))
        preprocess = self.preprocess.model_copy(
            update={"kernel": config.kernel, "illumination": config.illumination, **grey_scale(model)}
        )
        return replace(self, config=config.model_copy(update={"model": model}), preprocess=preprocess)


def make_plan(bank: Bank, config: TrainConfig) -> Plan:
    """The plan of a configuration for a bank as it is. Raises DataError for a bank that cannot train it."""
    labelled = trainable_frames(bank, config.task, config.lineage)
    config = decide_network(decide_folds(config, labelled), labelled)
    taking = labelled if config.holdout == "use" else labelled.where(pc.not_equal(labelled.column("split"), "holdout"))
    training = taking if config.folds else labelled.equal("split", "train")
    check_teaching(bank, config.task, config.lineage, training)
    preprocess = preprocess_for(config, training, bank.settings.intensity)
    training_grids = grids_of(training, preprocess)
    training_grids = training_grids[training_grids > 0]
    if not len(training_grids):
        width, height = preprocess.tile_px[::-1]
        raise DataError(
            f"every training frame of {bank.store.uri} is smaller than the {width}×{height} pixels of a tile; "
            "train with a smaller one, for example --set tile=frame"
        )
    frame_tiles = float(np.median(training_grids))
    augment = decide_augment(
        config.augment,
        task=config.task,
        tiles=int(training_grids.sum()),
        protocol=config.protocol,
        frozen=bool(config.model.frozen),
        centres=training.column("centres").null_count < len(training),
    )
    paper = _paper(bank, config)
    taken = taking.where(pa.array(grids_of(taking, preprocess) > 0))
    folds = _folds(bank, config, taken)
    splits = _splits(taken, preprocess, augment, paper=paper, folds=folds)
    model = decide_start(resolve(config.model, config.task, frame_tiles=frame_tiles))
    if config.task == "count" and model.frozen:
        check_places(model, tiles=splits["train"].rows)
    preprocess = preprocess.model_copy(update=grey_scale(model))
    config = config.model_copy(update={"augment": augment, "model": model})
    if model.frozen:
        epochs = len(holds_of(config.task, chosen_by_test=True))
        config = config.model_copy(update={"epochs": epochs, "patience": None})
    config = decide_epochs(config, tiles=splits["train"].rows, folds=folds.number if folds else 0)
    return Plan(
        config=config,
        preprocess=preprocess,
        classes=tuple(bank.lineages) if config.task == "classify" else (),
        splits=splits,
        frame_px=(
            int(np.median(training.column("height"))),
            int(np.median(training.column("width"))),
        ),
        frame_tiles=frame_tiles,
        left_out=int((grids_of(labelled, preprocess) == 0).sum()),
        paper=paper,
        folds=folds,
        batches=_batches_beside(folds, taken),
        shards_of=f"folds, holdout={config.holdout}" if folds else "",
    )


def decide_folds(config: TrainConfig, labelled: Iterable[Frame]) -> TrainConfig:
    """The configuration with its folds, and what they do with the holdout, decided for a bank's labelled frames.

    A bank of which no frame can be held back, one of each lineage, is trained today's way.
    """
    folds = config.folds
    if folds == "auto":
        small = config.protocol == "grouped" and few_groups(labelled)
        folds = FOLDS if small and deal_folds(labelled, FOLDS, seed=config.seed).number else 0
    if config.holdout == "use" and not folds:
        raise ConfigError(
            "holdout=use deals the holdout into folds, and this bank is trained without; add --set folds=5"
        )
    holdout = ("use" if folds else "keep") if config.holdout == "auto" else config.holdout
    patience = None if folds else config.patience
    return config.model_copy(update={"folds": folds, "holdout": holdout, "patience": patience})


def told_network(plan: Plan) -> str:
    """For a person, that the network is a frozen one, and what its answers cost; empty where it is not."""
    model, task, usual = plan.config.model, plan.config.task, TASKS[plan.config.task].architecture
    if not model.frozen or (model.architecture, task) not in ANSWER_MS:
        return ""
    side = NETWORK_PX if min(plan.frame_px) >= WHOLE_FRAME_PX else min(plan.frame_px)
    tiles = len(cut(*plan.frame_px, (side, side)))
    of_usual = ANSWER_MS[usual, task] * tiles * int(resolve(ModelSpec(), task, frame_tiles=tiles).views)
    once = ANSWER_MS[model.architecture, task] * plan.frame_tiles / of_usual
    faster = f" ({once:.0f} times with --set model.views=1)" if model.views == 8 else ""
    return (
        f"network: {model.architecture}, frozen, which knows photographs and learns from few frames; it answers in "
        f"about {once * int(model.views):.0f} times what {usual} takes{faster}"
    )


def refit_plan(plan: Plan, frames: Iterable[Frame], *, epochs: int) -> Plan:
    """The plan of the training at the end: so many epochs on all frames of a plan, which are among the bank's."""
    variants = plan.splits["train"].variants
    taken = plan.among(frames)
    rows = sum(map(variants.number, grids_of(taken, plan.preprocess).tolist()))
    everything = PlannedSplit(frames=tuple(taken.values("frame")), variants=variants, rows=rows)
    nothing = PlannedSplit(frames=(), variants=Variants(), rows=0)
    return replace(
        plan,
        config=plan.config.model_copy(update={"epochs": epochs, "patience": None}),
        splits={"train": everything, "test": nothing},
        folds=None,
        batches=None,
        shards_of="refit",
    )


def preprocess_for(config: TrainConfig, frames: Iterable[Frame], intensity: Intensity) -> Preprocess:
    """The preprocess of a training on these frames: its tile decided, its pixel size the median.

    The pixel size is known only if every frame's is. The paper's protocol puts the kernel on by itself.
    """
    frames = Frames.of(frames)
    known_N = np.asarray(frames.column("pixel_um").drop_null())
    pixel_um = float(np.median(known_N)) if len(known_N) == len(frames) else None
    factors_N = np.where(known_N != 0, known_N / pixel_um, 1.0) if pixel_um else np.ones(len(frames))
    height = round(np.median(factors_N * frames.column("height")))
    width = round(np.median(factors_N * frames.column("width")))
    pooled = config.model.frozen and config.task == "classify"
    usual, least = (FROZEN_TILE_PX, FROZEN_TILE_PX) if pooled else (NETWORK_PX, WHOLE_FRAME_PX)
    whole = config.tile == "frame" or (config.tile == "auto" and min(height, width) < least)
    side = config.tile if isinstance(config.tile, int) else usual
    return Preprocess(
        tile_px=(height, width) if whole else (side, side),
        pixel_um=pixel_um,
        intensity=_around_background(frames) if config.greys == "background" else intensity,
        kernel="none" if config.protocol == "paper" else config.kernel,
        illumination=config.illumination,
    )


def _around_background(frames: Frames) -> Intensity:
    """The rule of `greys=background` for frames like these."""
    between = max(1.0, float(np.median(pc.subtract(frames.column("brightest"), frames.column("darkest")))))
    return Intensity(rule="background", low=-BELOW * between, high=ABOVE * between)


def decide_augment(
    augment: Augment,
    *,
    task: Task,
    tiles: int,
    protocol: Protocol = "grouped",
    frozen: bool = False,
    centres: bool = False,
) -> Augment:
    """The augmentation with every `auto` decided, for a training on so many tiles before augmentation.

    The paper's protocol splits its 16 variants, so there they are stored. Of a `frozen` network every tile is seen in
    eight orientations anyway; further places named no more tiles rightly. Other instruments are drawn for a classifier:
    that counters gain by them was not shown. Raises ConfigError where a counter is to move tiles in a bank without
    `centres`.

    >>> decide_augment(Augment(), task="count", tiles=225).shifts
    16
    >>> decide_augment(Augment(), task="count", tiles=10_000).shifts
    0
    >>> frozen = decide_augment(Augment(), task="classify", tiles=280, frozen=True)
    >>> frozen.shares, frozen.shifts
    ((1.0,), 0)
    """
    as_recorded = protocol == "paper" or task == "count"
    drawn = _drawn(augment, as_recorded=as_recorded, movable=task == "classify" or centres)
    if protocol == "paper":
        return augment.model_copy(update={"shares": PAPER_SHARES, "shifts": 0, "orientation": "stored", **drawn})
    shares = augment.shares
    if shares == "auto":
        shares = PAPER_SHARES if TASKS[task].crops and not frozen else (1.0,)
    shifts = augment.shifts
    if shifts == "auto":
        shifts = 0 if frozen else min(MAX_SHIFTS, max(0, round(ENOUGH_TILES / (tiles * len(shares))) - 1))
    return augment.model_copy(update={"shares": shares, "shifts": shifts, **drawn})


def _drawn(augment: Augment, *, as_recorded: bool, movable: bool) -> dict[str, float]:
    """What is drawn on the device: as it was asked for, else as suits the training."""
    drawn = {}
    for name, nothing in AS_RECORDED.items():
        asked, moves = getattr(augment, name), name in ("rotation", "scale")
        if moves and not movable and asked not in (None, nothing):
            raise ConfigError(
                f"augment.{name}={asked:g} moves cells, and how many leave a tile is not told by counts alone; import "
                f"their centres (points.csv), or leave augment.{name} out"
            )
        usual = nothing if as_recorded else ANOTHER_INSTRUMENT[name]
        drawn[name] = usual if asked is None else asked
    return drawn


def decide_network(config: TrainConfig, labelled: Iterable[Frame]) -> TrainConfig:
    """The configuration with its network decided, where that depends on how many labelled frames there are.

    Lineages that have few groups are told apart by a network that knows photographs, whose last layers alone are
    trained, unless the configuration says anything of the network; and cells are counted by one where frames of several
    tiles, or few frames, were counted without the cells' centres, of which a whole network learns more. Raises
    ConfigError for settings that it has no use for.
    """
    model, fields = config.model, ModelSpec.model_fields
    told = any(getattr(model, name) != fields[name].default for name in OF_THE_NETWORK)
    labelled = Frames.of(labelled)
    suits = few_groups(labelled) if config.task == "classify" else _counts_teach(config, labelled)
    if config.protocol == "grouped" and not told and (model.frozen or suits):
        frozen = model.frozen is not False
        config = with_settings(config, {"model.architecture": "efficientnet_lite0", "model.frozen": frozen})
    if config.greys == "auto":
        alike = len(labelled.counted("bits")) == 1
        by_place = config.task == "count" and config.model.frozen
        config = config.model_copy(update={"greys": "background" if by_place and alike else "bank"})
    return config


def _counts_teach(config: TrainConfig, frames: Frames) -> bool:
    """Whether a frozen counter is the one for these frames: nothing is known but how many cells each has.

    And they are of several tiles, whose counts are then not known, or few; nothing is asked for that it does not do;
    and what it sees of all tiles can be kept.
    """
    augment = config.augment
    if config.model.frozen is False:
        return False
    plain = augment.shares in ("auto", (1.0,)) and augment.shifts in ("auto", 0) and augment.orientation == "drawn"
    as_recorded = all(getattr(augment, name) in (None, nothing) for name, nothing in AS_RECORDED.items())
    if not plain or not as_recorded or frames.column("centres").null_count < len(frames):
        return False
    tiles = int(grids_of(frames, preprocess_for(config, frames, Intensity())).sum())
    return tiles <= MOST_PLACED and (tiles > len(frames) or bool(few_groups(frames)))


def check_places(model: ModelSpec, *, tiles: int) -> None:
    """Raise ConfigError for a frozen counter of a network that cannot, or that learns from too many tiles."""
    if model.architecture != "efficientnet_lite0":
        raise ConfigError(
            f"a frozen {model.architecture} cannot count; take --set model.architecture=efficientnet_lite0, or train "
            "all layers by leaving model.frozen out"
        )
    if tiles > MOST_PLACED:
        raise ConfigError(
            f"a frozen counter keeps what it sees of every tile, and {tiles} tiles are too many; train all layers by "
            "--set model.frozen=false, or take fewer, for example by --set tile=400"
        )


def decide_start(model: ModelSpec) -> ModelSpec:
    """The network with what it starts from decided. Whatever starts by chance says nothing of it, as it always did.

    >>> decide_start(ModelSpec(architecture="efficientnet_lite0")).weights
    'imagenet'
    """
    weights = model.weights or ("imagenet" if model.architecture == "efficientnet_lite0" else None)
    return model.model_copy(update={"weights": weights})


def grey_scale(model: ModelSpec) -> dict[str, float]:
    """The mean and the deviation of grey values that the network's weights were learnt with.

    >>> grey_scale(ModelSpec(architecture="efficientnet_lite0")), grey_scale(ModelSpec(architecture="residual"))
    ({'mean': 0.5, 'std': 0.5}, {'mean': 0.5, 'std': 0.15})
    """
    if model.architecture == "efficientnet_lite0":
        return {"mean": 0.5, "std": 0.5}
    if model.architecture in FIXED_ARCHITECTURES and model.weights not in (None, "none"):
        return {"mean": 0.449, "std": 0.226}  # of the three colours of ImageNet, on average
    fields = Preprocess.model_fields
    return {"mean": fields["mean"].default, "std": fields["std"].default}


def decide_epochs(config: TrainConfig, *, tiles: int, folds: int = 0) -> TrainConfig:
    """The configuration with its `auto` epochs decided, for so many training tiles, of all `folds` together.

    A network of n folds sees (n - 1)/n of the tiles in each epoch, and the last one all of them: n times the tiles,
    which are to be two trainings.

    >>> decide_epochs(TrainConfig(task="count"), tiles=2000).epochs
    100
    >>> decide_epochs(TrainConfig(task="count"), tiles=2000, folds=5).epochs
    40
    """
    if config.epochs != "auto":
        return config
    epochs = min(200, max(30, round(200_000 / tiles)))
    return config.model_copy(update={"epochs": max(1, round(2 * epochs / folds)) if folds else epochs})


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


def _folds(bank: Bank, config: TrainConfig, frames: Frames) -> Folds | None:
    """The folds that the configuration asks for."""
    if not config.folds:
        return None
    if config.folds == "batch":
        folds = deal_batches(frames)
        if not folds.number:
            raise DataError(
                f"no batch of {bank.store.uri} can be left out: it takes two that share no group, of the same lineages "
                "(cellnet bank show lists them); fill in the column batch, or leave folds out"
            )
        return folds
    folds = deal_folds(frames, int(config.folds), seed=config.seed)
    if not folds.number:
        raise DataError(
            f"no frame of {bank.store.uri} can be held back: it has one of each lineage; import more, or leave "
            "folds out"
        )
    return folds


def _batches_beside(folds: Folds | None, frames: Frames) -> Folds | None:
    """Batches that are left out besides folds of groups, no more of them at once than there are folds."""
    if folds is None or folds.by_batch:
        return None
    batches = deal_batches(frames, most=max(2, folds.number))
    return batches if batches.number else None


def _splits(
    frames: Frames, preprocess: Preprocess, augment: Augment, *, paper: Paper | None, folds: Folds | None
) -> dict[Split, PlannedSplit]:
    """The splits of frames that give tiles; by folds every frame is in both."""
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
        taken = frames if paper or folds else frames.equal("split", split)
        names = tuple(taken.values("frame"))
        rows = sum(
            sum(side == split for side in itertools.islice(paper.splits_of(name), number)) if paper else number
            for name, number in zip(names, map(wanted.number, grids_of(taken, preprocess).tolist()), strict=True)
        )
        planned[split] = PlannedSplit(frames=names, variants=wanted, rows=rows)
    return planned
