"""One training: what can be chosen, with its default and its meaning; stored with every model."""

import operator
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from cellnet.config.bank import Intensity
from cellnet.config.choices import (
    FIXED_ARCHITECTURES,
    Activation,
    Architecture,
    Finite,
    Greys,
    Illumination,
    Kernel,
    Positive,
    Protocol,
    Share,
    Side,
)
from cellnet.config.loading import Configuration, Frozen, is_none
from cellnet.tasks import Task


class Preprocess(Frozen):
    """How a frame becomes network input: stored with the model, the same in training and in serving."""

    tile_px: tuple[Side, Side]
    """Height and width, in frame pixels, of what the network sees at once; resized to 200×200."""
    pixel_um: Positive | None = None
    """Micrometres a frame pixel in the training frames; None when it was not known."""
    intensity: Intensity = Intensity()
    kernel: Kernel = "none"
    illumination: Illumination = Field(default="none", exclude_if="none".__eq__)
    """What is taken out of every tile after the kernel."""
    mean: Finite = 0.5
    """Subtracted from grey values of 0..1."""
    std: Positive = 0.15
    """Then divided by."""


class Augment(Configuration):
    """Which variants of a training tile are made: the paper's are 4 orientations × 4 shares."""

    shares: Annotated[tuple[Share, ...], Field(min_length=1)] | Literal["auto"] = "auto"
    """Shares of the tile's area that are cropped and resized. `auto`: all four of the paper for a classifier, the
    whole tile alone for a counter, which crops made worse: the same cells at another magnification."""
    shifts: Annotated[int, Field(ge=0, le=16, strict=True)] | Literal["auto"] = "auto"
    """Further tiles at random places of a frame that is larger than a tile, for each tile of its grid. `auto`: as
    many as bring a small bank to about 4,000 training tiles; none of a frozen network."""
    orientation: Literal["stored", "drawn"] = "drawn"
    """`stored`: every tile at 0, 90, 180 and 270° in the shards. `drawn`: one at random, on the training
    device, each time a tile is used."""
    mirror: bool = True
    """Also mirror at random on the training device: a mirrored cell is as likely as the cell."""
    jitter: float = Field(default=0.1, ge=0, lt=1)
    """Random change of contrast (factor 1 ± jitter) and brightness (± jitter standard deviations)."""
    rotation: float | None = Field(default=None, ge=0, le=180, exclude_if=is_none)
    """Degrees by which half of the tiles are turned at most, to either side; 180: any angle, 0: none. What comes in at
    the corners is mirrored at the border. This and all below is drawn on the training device each time a tile is used;
    of a frozen classifier once for each orientation of a tile, which it sees as recorded besides.
    Left out, a classifier draws 180 and the next five 1.25, 2, 0.3, 1.25 and 0.03, a counter none. Of a counter,
    `rotation` and `scale` move tiles whose cells' centres are known, and what is then seen is counted; they need a bank
    that has some."""
    scale: float | None = Field(default=None, ge=1, le=2, exclude_if=is_none)
    """Factor by which the same tiles are magnified or made smaller at most: 1.25 is 0.8 to 1.25, 1 none."""
    blur: float | None = Field(default=None, ge=0, le=10, exclude_if=is_none)
    """Standard deviation, in pixels of the network's 200×200, of the Gaussian blur of half of the tiles, at most."""
    shading: float | None = Field(default=None, ge=0, lt=1, exclude_if=is_none)
    """Share of the light by which it is more or less at most, anywhere in a tile: all over, along a slope, or from the
    middle to the border."""
    gamma: float | None = Field(default=None, ge=1, le=4, exclude_if=is_none)
    """Grey values of 0..1 are taken to a power: 1.5 is one of 0.67 to 1.5, 1 none."""
    noise: float | None = Field(default=None, ge=0, le=1, exclude_if=is_none)
    """Standard deviation of the noise that is added, in grey values of 0..1, at most."""


AS_RECORDED: Final = {"rotation": 0.0, "scale": 1.0, "blur": 0.0, "shading": 0.0, "gamma": 1.0, "noise": 0.0}
"""Values of `Augment` with which tiles look as their instrument recorded them."""


class StartedFrom(Frozen):
    """Where the weights that a network started from are from: stands on its card."""

    source: str
    """`imagenet`, a file's name, or the version `name@number`."""
    sha256: str
    """Of the weights as they came."""
    made_by: str | None = Field(default=None, exclude_if=is_none)
    """The package or table that they are from."""
    licence: str | None = Field(default=None, exclude_if=is_none)
    """None where it is not known."""

    def __str__(self) -> str:
        """In one line for a person."""
        made_by = f" of {self.made_by}" if self.made_by else ""
        return f"{self.source}{made_by}" + (f" ({self.licence})" if self.licence else "")


class ModelSpec(Configuration):
    """The network: a row of `cellnet.networks.architectures.ARCHITECTURES` and its choices."""

    architecture: Architecture | Literal["auto"] = "auto"
    """`auto`: residual to classify, but efficientnet_lite0, frozen, where a lineage has fewer than 20 groups. Density
    to count, but efficientnet_lite0, frozen, where no cells' centres are known and frames are of several tiles or
    groups few. Neither where anything else is said of the network. `paper`: the paper's kind of network. `residual`:
    residual stages and a global pool. `density`: a counter that also learns where cells are, from their centres where
    these are known. `efficientnet_lite0`: a small network that knows photographs, for few labelled frames. `resnet18`,
    `convnext_tiny`: of torchvision, for a GPU."""
    activation: Activation = "relu"
    """What follows each convolution."""
    width: int = Field(default=16, ge=1, le=512)
    """Channels of the first stage; each later stage has twice as many."""
    depth: int = Field(default=4, ge=1, le=5)
    """Stages, each halving the side. A sixth would leave one pixel, of which no batch norm is possible."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the last features dropped in training. Counters of `residual` and `density` drop none: it would be
    missing in their sum."""
    views: Literal[1, 8, "auto"] = "auto"
    """Orientations of a tile, mirrored and not, that a prediction is the mean of. Eight take eight times as long.
    `auto`: 8 of a frozen network, which has learned from so many; 8 to count in frames of one tile, which they make
    more exact; else 1, since the errors of many tiles even out."""
    weights: str | None = Field(default=None, min_length=1, exclude_if=is_none)
    """What the network starts from: `none`, by chance; `imagenet`, photographs; a safetensors file; a version, like
    `classifier@3` or `classifier:champion`, whose network, tile, greys, kernel and illumination it has where nothing
    else is said. Left out: `imagenet` for efficientnet_lite0, else `none`."""
    frozen: Annotated[bool, Field(strict=True)] | None = Field(default=None, exclude_if=is_none)
    """Train the last layers alone, in seconds to minutes: what the others see of each tile is computed once. A frozen
    counter learns how many cells a frame has from all its tiles together, where their centres are not known."""

    @model_validator(mode="after")
    def _has_effect(self) -> Self:
        if self.architecture in FIXED_ARCHITECTURES:
            for name in ("activation", "width", "depth"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{self.architecture} has a fixed activation, width and depth; leave {name} out")
        return self


OF_THE_NETWORK: Final = ("architecture", "activation", "width", "depth", "weights")
"""Settings of which each says what network is wanted."""


class TrainConfig(Configuration):
    """One training, whole."""

    task: Task
    lineage: Annotated[str, Field(min_length=1)] | None = Field(default=None, exclude_if=is_none)
    """Of a counter: the one lineage that it is trained and scored on. None: all that the bank holds."""
    model: ModelSpec = ModelSpec()
    augment: Augment = Augment()
    tile: Literal["auto", "frame"] | Annotated[int, Field(ge=8, le=100_000, strict=True)] = "auto"
    """Side in frame pixels of what the network sees at once. `frame`: the whole frame, resized. `auto`: the
    whole frame if its shorter side is under 300 pixels, else 200; of a frozen classifier 350 in place of both."""
    greys: Greys = Field(default="auto", exclude_if="bank".__eq__)
    """How grey values of a frame become 0 to 255. `bank`: by the bank's rule, unless told otherwise from the darkest to
    the brightest of the frame, so that a frame without cells shows its noise as strong as another its cells.
    `background`: by how far they are from the frame's median, alike in all frames; for frames of one bit depth.
    `auto`: `background` of a frozen counter, else `bank`."""
    kernel: Kernel = "none"
    """A 3×3 filter over every tile, in training and in serving; `sharpen` is the paper's."""
    illumination: Illumination = Field(default="none", exclude_if="none".__eq__)
    """What is taken out of every tile, in training and in serving: `shading`, light that changes slowly over a tile;
    `local`, also how strong the contrast is around each pixel. Neither helped on the real sets in wells that a network
    had not learned from."""
    protocol: Protocol = "grouped"
    """How tiles come into splits. `grouped`: with their group, before they are cut. `paper`: drawn at random from all
    16 variants of every frame, and the kernel on every second lineage. Such scores leak; they are there to be compared.
    The bank's holdout takes no part, so that it can say what the network is worth."""
    folds: Annotated[int, Field(ge=0, le=100, strict=True)] | Literal["auto", "batch"] = Field(
        default="auto", exclude_if=operator.not_
    )
    """Networks of a cross-validation, each scored on the frames that it did not learn from; one that learned from all
    of them is published. `batch`: a network for each batch, which it is scored on while the others teach it; so scores
    say what a new plate brings, and intervals are as wide as that takes. 0: one network, which learns from the train
    split, and the epoch that is best on the test split is published. `auto`: 5 where a lineage has fewer than 20
    groups, else 0."""
    holdout: Literal["auto", "keep", "use"] = Field(default="auto", exclude_if="keep".__eq__)
    """Whether the bank's holdout takes no part (`keep`), or is dealt into the folds like other frames (`use`). `auto`:
    `use` with folds, else `keep`."""
    refit: Annotated[bool, Field(strict=True)] = Field(default=False, exclude_if=operator.not_)
    """Without folds: train again on the train and the test split together at the end, for as many epochs as the best
    one had, or holding a frozen network's last layer as hard, and publish that. With folds the network that is
    published has learned from all frames in any case."""
    epochs: Annotated[int, Field(ge=1, strict=True)] | Literal["auto"] = "auto"
    """Passes over the training tiles; of a frozen network, whose last layers are learnt whole each time, the ways in
    which they are held, whatever is asked. `auto`: as many as show the network about 200,000 tiles, from 30 to 200; by
    folds so many of them that all networks together see about as many tiles as two trainings would."""
    batch_size: int = Field(default=16, ge=2)
    """Tiles a step, all workers together."""
    learning_rate: float = Field(default=2e-3, gt=0, allow_inf_nan=False)
    """The peak of a one-cycle schedule (AdamW)."""
    weight_decay: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """By how much weights are held near 0 (AdamW)."""
    new_weight: Annotated[int, Field(ge=1, le=100, strict=True)] = Field(default=10, exclude_if=(10).__eq__)
    """Of a frozen network that starts from a version: how many times at most each frame teaches that this version had
    not learned, or of which something else is said since. Fewer times where there are so many that they would teach
    more than twice what the old ones do, which teach once each."""
    class_weights: Literal["balanced", "none"] = "balanced"
    """`balanced`: a tile of a rare lineage weighs more in the loss, as much as makes lineages weigh the same, up to
    ten times a tile of the commonest. Changes nothing where lineages have as many tiles each."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Of everything that is drawn: the same seed on the same machine gives the same weights."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after so many epochs without a better score on the test split. None, since the one-cycle schedule
    brings its best epochs at its end, which a training that stops early never sees. With folds no epoch is
    chosen, and none is left out."""
    precision: Literal["auto", "f32", "bf16"] = "auto"
    """What the network computes in, while training; weights are float32. `auto`: bf16 on GPUs and
    CPUs (AVX512-BF16) that compute in it, else f32."""
    compile: Literal["auto"] | Annotated[bool, Field(strict=True)] = "auto"
    """Whether torch.compile makes the network faster. `auto`: on GPUs; it takes half a minute first."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads a worker; None shares the machine's cores out."""

    @model_validator(mode="after")
    def _fits_the_task(self) -> Self:
        if self.task == "classify" and self.model.architecture == "density":
            raise ValueError("the architecture density only counts; to classify, take another, for example residual")
        for name, nothing in AS_RECORDED.items() if self.model.frozen and self.task == "count" else ():
            if getattr(self.augment, name) not in (None, nothing):
                raise ValueError(f"a frozen counter sees each tile once, as it was recorded; leave augment.{name} out")
        if self.task == "classify" and self.lineage is not None:
            raise ValueError(f"a classifier tells lineages apart; {self.lineage} alone can be counted (--task count)")
        if self.folds == 1:
            raise ValueError("folds=1 would hold all frames back; take two or more, or folds=0 for the bank's splits")
        if self.folds == 0 and self.holdout == "use":
            raise ValueError("holdout=use deals the holdout into folds, and folds=0 makes none; leave one of them out")
        if self.protocol == "paper" and (self.folds not in ("auto", 0) or self.holdout == "use" or self.refit):
            raise ValueError("protocol=paper draws its own splits; leave folds, holdout and refit out")
        return self
