"""A search over settings of a training."""

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from cellnet.config.loading import Configuration, Frozen, load_checked, place_at
from cellnet.config.train import TrainConfig
from cellnet.errors import ConfigError
from cellnet.tasks import TASKS


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
    **dict.fromkeys(("folds", "holdout", "refit"), "has no part in a search, which the test split steers"),
    "model.frozen": "is the same for all trials; give it as train.model.frozen",
    "seed": "is not a choice; the finalists are trained with several (seeds=3)",
}


class TuneConfig(Configuration):
    """A search over settings of a training, steered by the test split.

    `--set space.kernel=[none,sharpen]` and the like; a `space` that is given replaces the default one whole.
    """

    space: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)] | Range] = Field(
        default={
            "model.activation": ("relu", "leaky_relu", "tanh", "sigmoid"),
            "kernel": ("none", "sharpen", "unsharp", "edge", "laplacian", "emboss", "gaussian"),
        }
    )
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

    @field_validator("train", mode="after")
    @classmethod
    def _without_folds(cls, train: TrainConfig) -> TrainConfig:
        """A search is steered by the test split, and scored on the holdout."""
        if train.folds not in ("auto", 0) or train.holdout == "use" or train.refit:
            raise ValueError(
                "a search is steered by the test split; leave train.folds, train.holdout and train.refit out"
            )
        model = train.model
        if model.architecture == "auto":  # the network of few frames has none of the choices that are searched
            usual = "efficientnet_lite0" if model.frozen else TASKS[train.task].architecture
            model = model.model_copy(update={"architecture": usual})
        return train.model_copy(update={"folds": 0, "holdout": "keep", "model": model})

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
    values = {name: getattr(config, name) for name in type(config).model_fields} | config.model_dump()
    for key, value in settings.items():
        place_at(values, key.split("."), value)
    return load_checked(TrainConfig, values, where="")


def _flattened(space: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in space.items():
        if isinstance(value, dict) and not {"low", "high"} & set(value):
            yield from _flattened(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
