"""What can be chosen, with its default and its meaning: frozen, checked, stored with every model.

Order of precedence: default < `--config FILE` (YAML or JSON) < `--set KEY=VALUE`. The environment holds
places and secrets only.
"""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cellnet.errors import ConfigError

Task = Literal["classify", "count"]
Split = Literal["train", "test", "holdout"]
Activation = Literal["relu", "leaky_relu", "tanh", "sigmoid"]
Architecture = Literal["paper", "residual", "density", "resnet18", "convnext_tiny"]
Kernel = Literal["none", "sharpen", "unsharp", "edge", "laplacian", "emboss", "gaussian"]
Orientation = Literal[0, 90, 180, 270]
Protocol = Literal["grouped", "paper"]
Share = Annotated[float, Field(gt=0, le=1)]

NETWORK_PX: Final = 200
"""Side of the network's input, in pixels (the paper's)."""
MAP_SIDE: Final = 50
"""Fields a side of the map that says where in a tile cells lie: each of 4×4 pixels of the network's input."""

DEFAULT_NAMES: Final[dict[Task, str]] = {"classify": "classifier", "count": "regressor"}
"""What the model of a task is called in the registry unless told otherwise."""


Model = TypeVar("Model", bound=BaseModel)


class Frozen(BaseModel):
    """A value that forbids unknown keys and change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def is_none(value: object) -> bool:
    """When a field that came later is left out of what is stored, so that what was stored before it stays the same."""
    return value is None


class Intensity(Frozen):
    """The rule that turns recorded grey values of a whole frame into 0..255; stored in the bank.

    A range suits frames of one instrument and bit depth. Float frames are spread over 0..65535 before it is applied.
    """

    rule: Literal["percentile", "range"] = "percentile"
    low: float = 0.1
    """Percentile, or grey value, that becomes 0."""
    high: float = 99.9
    """Percentile, or grey value, that becomes 255."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        if self.rule == "percentile" and not (self.low >= 0 and self.high <= 100):
            raise ValueError(f"percentiles are 0 to 100, not {self.low:g} and {self.high:g}")
        return self


class BankSettings(Frozen):
    """What is fixed when a bank is made."""

    intensity: Intensity = Intensity()
    holdout_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of each lineage's groups that is kept for the final report (the paper's 10 %)."""
    test_share: float = Field(default=0.3, gt=0, lt=1)
    """Share of the rest that chooses between epochs and trials (the paper's 70/30)."""
    seed: int = 0


class Preprocess(Frozen):
    """How a frame becomes network input: stored with the model, the same in training and in serving."""

    tile_px: tuple[int, int]
    """Height and width, in frame pixels, of what the network sees at once; resized to 200×200."""
    pixel_um: float | None = None
    """Micrometres a frame pixel in the training frames; None when it was not known."""
    intensity: Intensity = Intensity()
    kernel: Kernel = "none"
    mean: float = 0.5
    """Subtracted from grey values of 0..1."""
    std: float = 0.15
    """Then divided by."""


class Augment(Frozen):
    """Which variants of a training tile are made: the paper's are 4 orientations × 4 shares."""

    shares: Annotated[tuple[Share, ...], Field(min_length=1)] | Literal["auto"] = "auto"
    """Shares of the tile's area that are cropped and resized. `auto`: all four of the paper for a classifier, the
    whole tile alone for a counter, which crops made worse: the same cells at another magnification."""
    shifts: Annotated[int, Field(ge=0, le=16, strict=True)] | Literal["auto"] = "auto"
    """Further tiles at random places of a frame that is larger than a tile, for each tile of its grid. `auto`: as
    many as bring a small bank to about 4,000 training tiles."""
    orientation: Literal["stored", "drawn"] = "drawn"
    """`stored`: every tile at 0, 90, 180 and 270° in the shards. `drawn`: one at random, on the training
    device, each time a tile is used."""
    mirror: bool = True
    """Also mirror at random on the training device: a mirrored cell is as likely as the cell."""
    jitter: float = Field(default=0.1, ge=0, lt=1)
    """Random change of contrast (factor 1 ± jitter) and brightness (± jitter standard deviations)."""


PAPER_SHARES: Final = (1.0, 0.75, 0.5, 0.25)
FIXED_ARCHITECTURES: Final[tuple[Architecture, ...]] = ("resnet18", "convnext_tiny")
"""Those that have an activation, width and depth of their own."""


class ModelSpec(Frozen):
    """The network: a row of `cellnet.models.ARCHITECTURES` and its choices."""

    architecture: Architecture | Literal["auto"] = "auto"
    """`auto`: residual to classify, density to count. `paper`: the paper's kind of network. `residual`: residual
    stages and a global pool. `density`: a counter that also learns where cells are, from their centres where these
    are known. `resnet18`, `convnext_tiny`: of torchvision, for a GPU."""
    activation: Activation = "relu"
    width: int = Field(default=16, ge=1, le=512)
    """Channels of the first stage; each later stage has twice as many."""
    depth: int = Field(default=4, ge=1, le=5)
    """Stages, each halving the side. A sixth would leave one pixel, of which no batch norm is possible."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the last features dropped in training. Counters of `residual` and `density` drop none: it would be
    missing in their sum."""
    views: Literal[1, 8, "auto"] = "auto"
    """Orientations of a tile, mirrored and not, that a prediction is the mean of. Eight take eight times as long.
    `auto`: 8 to count in frames of one tile, which they make more exact, else 1: the errors of many tiles even out."""

    @model_validator(mode="after")
    def _has_effect(self) -> Self:
        if self.architecture in FIXED_ARCHITECTURES:
            for name in ("activation", "width", "depth"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{self.architecture} has a fixed activation, width and depth; leave {name} out")
        return self


class TrainConfig(Frozen):
    """One training, whole."""

    task: Task
    lineage: Annotated[str, Field(min_length=1)] | None = Field(default=None, exclude_if=is_none)
    """Of a counter: the one lineage that it is trained and scored on. None: all that the bank holds."""
    model: ModelSpec = ModelSpec()
    augment: Augment = Augment()
    tile: Literal["auto", "frame"] | Annotated[int, Field(ge=8, strict=True)] = "auto"
    """Side in frame pixels of what the network sees at once. `frame`: the whole frame, resized. `auto`: the
    whole frame if its shorter side is under 300 pixels, else 200."""
    kernel: Kernel = "none"
    protocol: Protocol = "grouped"
    """How tiles come into splits. `grouped`: with their group, before they are cut. `paper`: drawn at random from all
    16 variants of every frame, and the kernel on every second lineage. Such scores leak; they are there to be compared.
    The bank's holdout takes no part, so that it can say what the network is worth."""
    epochs: Annotated[int, Field(ge=1, strict=True)] | Literal["auto"] = "auto"
    """Passes over the training tiles. `auto`: as many as show the network about 200,000 tiles, from 30 to 200."""
    batch_size: int = Field(default=16, ge=2)
    """Tiles a step, all workers together."""
    learning_rate: float = Field(default=2e-3, gt=0, allow_inf_nan=False)
    """The peak of a one-cycle schedule (AdamW)."""
    weight_decay: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    class_weights: Literal["balanced", "none"] = "balanced"
    """`balanced`: a tile of a rare lineage weighs more in the loss, as much as makes lineages weigh the same, up to
    ten times a tile of the commonest. Changes nothing where lineages have as many tiles each."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    patience: int | None = Field(default=None, ge=1)
    """Stop after so many epochs without a better score on the test split. None, since the one-cycle schedule
    brings its best epochs at its end, which a training that stops early never sees."""
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
        if self.task == "classify" and self.lineage is not None:
            raise ValueError(f"a classifier tells lineages apart; {self.lineage} alone can be counted (--task count)")
        return self


class Range(Frozen):
    """Numbers that a search draws from, both ends included: whole ones where both ends are."""

    low: Annotated[int, Field(strict=True)] | float
    high: Annotated[int, Field(strict=True)] | float
    log: bool = False
    """Draw the number's logarithm evenly, as suits a learning rate."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.low < self.high or (self.log and self.low <= 0):
            above = " and above 0 for log" if self.log else ""
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g}){above}")
        return self


Settings = dict[str, Any]
"""Values of a training's settings, by dotted key: `{"kernel": "sharpen", "model.activation": "tanh"}`."""
IN_THE_SHARDS: Final = ("tile", "protocol", "augment.shares", "augment.shifts", "augment.orientation")
NOT_SEARCHED: Final = {
    **dict.fromkeys(IN_THE_SHARDS, "is in the shards, which all trials share; give it as train.KEY"),
    **dict.fromkeys(("task", "lineage", "epochs", "patience"), "is the same for all trials; give it as train.KEY"),
    "seed": "is not a choice; the finalists are trained with several (seeds=3)",
}


class TuneConfig(Frozen):
    """A search over settings of a training, steered by the test split.

    `--set space.kernel=[none,sharpen]` and the like; a `space` that is given replaces the default one whole.
    """

    space: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)] | Range] = {
        "model.activation": ("relu", "leaky_relu", "tanh", "sigmoid"),
        "kernel": ("none", "sharpen", "unsharp", "edge", "laplacian", "emboss", "gaussian"),
    }
    """What is searched, by key of `train`: a list of values, or `{low: 1e-4, high: 1e-2, log: true}`."""
    trials: int | None = Field(default=None, ge=1)
    """None: every combination once, which a range has not. More than there are combinations mean all of them."""
    searcher: Literal["random", "tpe"] = "random"
    """`random`: drawn at once, none twice. `tpe`: each by what earlier ones came to (Optuna, the extra `tpe`)."""
    stop_early: bool = True
    """Stop trials that are behind (ASHA, Li et al. 2018, arXiv 1810.05934)."""
    grace: int = Field(default=3, ge=1)
    """Epochs that every trial has before it may be stopped."""
    reduction: int = Field(default=3, ge=2)
    """Of the trials that reach a rung, one in so many goes on; rungs are at grace × reduction^k epochs."""
    finalists: int = Field(default=3, ge=1)
    """So many of the best are trained again with other seeds."""
    seeds: int = Field(default=3, ge=1)
    """Trainings of each finalist, the one of the search among them. 1: the best of the search wins."""
    gpus: float = Field(default=0, ge=0)
    """GPUs a trial, which may be a fraction: 0.5 puts two trials on each."""
    train: TrainConfig

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, values: Any) -> Any:
        """`space: {model: {width: [8, 16]}}` is `space: {model.width: [8, 16]}`."""
        if isinstance(values, dict) and isinstance(values.get("space"), dict):
            values = values | {"space": dict(_flattened(values["space"]))}
        return values

    @model_validator(mode="after")
    def _steered_by_unseen_frames(self) -> Self:
        if self.train.protocol != "grouped":
            raise ValueError("a search is steered by the test split, which leaks under protocol=paper; use grouped")
        return self

    @model_validator(mode="after")
    def _can_be_searched(self) -> Self:
        if not self.space:
            raise ValueError("space names nothing to search; for example space.kernel=[none,sharpen]")
        for key, values in self.space.items():
            if key in NOT_SEARCHED:
                raise ValueError(f"space.{key}: {key} {NOT_SEARCHED[key]}")
            for value in (values.low, values.high) if isinstance(values, Range) else values:
                try:
                    with_settings(self.train, {key: value})
                except ConfigError as error:
                    raise ValueError(f"space.{error}") from error
        ranges = [key for key, values in self.space.items() if isinstance(values, Range)]
        if self.trials is None and (ranges or self.searcher == "tpe"):
            what = f"the range of {ranges[0]} has no end of values" if ranges else "tpe draws one trial after the other"
            raise ValueError(f"{what}: say how many trials, for example --trials 20")
        return self


def with_settings(config: TrainConfig, settings: Settings) -> TrainConfig:
    """The training with other values of some settings. Raises ConfigError, which begins with the key.

    >>> with_settings(TrainConfig(task="count"), {"model.activation": "tanh"}).model.activation
    'tanh'
    """
    values = config.model_dump()
    for key, value in settings.items():
        _place(values, key.split("."), value)
    return load_checked(TrainConfig, values, where="")


def _flattened(space: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in space.items():
        if isinstance(value, dict) and not {"low", "high"} & set(value):
            yield from _flattened(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def load_config(kind: type[Model], *, file: Path | None, sets: list[str], **fixed: Any) -> Model:
    """A checked configuration from an optional file and `KEY=VALUE` settings (dotted keys reach inside).

    `fixed` are values that the command line names by options of their own; they win over the file.
    Raises ConfigError in one line for an unreadable file, an unknown key or a value out of range.
    """
    values = _read_file(file) if file else {}
    for item in sets:
        key, equals, text = item.partition("=")
        if not equals:
            raise ConfigError(f"--set takes KEY=VALUE, not {item!r}; for example --set epochs=10")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {item!r}: {text!r} is not a YAML value; put quotes around it") from error
        _place(values, key.strip().split("."), value)
    for key, value in fixed.items():
        _place(values, key.split("."), value)
    return load_checked(kind, values)


def load_checked(kind: type[Model], values: Any, *, where: str = "configuration ") -> Model:
    """Values as a configuration. Raises ConfigError in one line, which begins with `where` and the key."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first, *others = error.errors()
        if first["type"] == "value_error":  # settings that do not fit each other: a validator of ours says all of it
            raise ConfigError(f"{where.strip(' :') or _key(first['loc'])}: {first['ctx']['error']}") from error
        key = _key(first["loc"])
        messages = [first["msg"], *(other["msg"] for other in others if _key(other["loc"]) == key)]
        wanted = ", or: ".join(dict.fromkeys(messages))
        name = f"{where}{key!r}" if where else key
        raise ConfigError(f"{name}: {wanted} (seen: {first['input']!r:.80})") from error


def _key(place: tuple[int | str, ...]) -> str:
    """The dotted key of a place, without the alternatives of a union that pydantic adds to it."""
    own = itertools.takewhile(lambda part: not re.search(r"\[|^constrained-", part), map(str, place))
    return ".".join(own)


def _read_file(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).replace("\n", " ")
        raise ConfigError(f"cannot read the configuration {file}: {reason}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"the configuration {file} holds no KEY: VALUE lines")
    return values


def _place(values: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise ConfigError(f"configuration {'.'.join(path)!r}: {part!r} is a value, not a section")
    values[path[-1]] = value
