"""What the file of a pipeline says: what comes in, what is trained, scored, promoted and served.

    bank: s3://lab/bank
    registry: s3://lab/registry
    sources: [{source: s3://lab/plates}]
    models:
      classify: {train: {set: {epochs: 20}}}
      count: {tune: {trials: 12}}
    promote: {alias: champion}
    deploy: {address: "http://lab:8000"}

Keys of a step are the options of its command, with `_` in the place of `-`.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from cellnet.config.loading import Frozen
from cellnet.tasks import Task

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Value = str | int | float | bool
Settings = dict[str, Any]
"""What `--set` takes."""


class Import(Frozen):
    """A source, with the options of `cellnet bank import`."""

    source: str
    page: Literal["middle", "all"] | int | None = None
    channel: Value | None = None
    population: str | None = None
    lineages: str | None = None
    layer: str | None = None
    lineage_pattern: str | None = None
    group_pattern: str | None = None
    spread_counts: bool = False
    replace: bool = False
    set: Settings = Field(default_factory=dict)


class Train(Frozen):
    """A training, with the options of `cellnet train`."""

    lineage: str | None = None
    config: str | None = None
    set: Settings = Field(default_factory=dict)
    name: Name | None = None
    workers: int | str = 1
    gpu: bool = False
    wait: float | None = None


class Tune(Frozen):
    """A search, with the options of `cellnet tune`."""

    lineage: str | None = None
    config: str | None = None
    set: Settings = Field(default_factory=dict)
    name: Name | None = None
    trials: int | None = None
    workers: int = 1
    wait: float | None = None


class Model(Frozen):
    """How a model comes about: one of both."""

    train: Train | None = None
    tune: Tune | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.train is None) == (self.tune is None):
            raise ValueError("a model takes train or tune; write one of both, like train: {}")
        return self


class Evaluate(Frozen):
    """Each model on a split of a bank, as `cellnet evaluate` scores it."""

    split: Literal["train", "test", "holdout", "all", "folds"] | None = None
    bank: str | None = None
    """The pipeline's unless told otherwise."""


class Promote(Frozen):
    """The alias of each model, by the rule of `cellnet registry promote`."""

    alias: Name = "champion"
    bank: str | None = None
    """To compare on; the one of the training unless told otherwise."""


class Deploy(Frozen):
    """A service that is started anew, or waited for, or both."""

    config: str | None = None
    """A file for `serve deploy`."""
    dashboard: str | None = None
    """The address of the head's dashboard, which `serve deploy` is told; else it finds it by itself."""
    address: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = None
    """Of a service that is to answer with what was promoted."""
    api_key: str | None = None
    """A file with the key that the service asks for."""
    wait: float = Field(default=600, ge=0)
    """Seconds to wait for its answer."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.config is None and self.address is None:
            raise ValueError("deploy takes config (a file for serve deploy), address (of a service), or both")
        return self


class Pipeline(Frozen):
    """The whole file."""

    name: Name | None = None
    """What its results are called at the place of runs; else after the file."""
    bank: str
    registry: str
    runs: str | None = None
    """Where results and checkpoints are kept; beside the registry unless told otherwise."""
    endpoint_url: str | None = None
    trusted_keys: str | None = None
    signing_key: str | None = None
    sources: tuple[Import, ...] = ()
    models: dict[Task, Model] = Field(min_length=1)
    evaluate: tuple[Evaluate, ...] = (Evaluate(),)
    promote: Promote | None = None
    deploy: Deploy | None = None

    @model_validator(mode="after")
    def _deploys_what_is_promoted(self) -> Self:
        if self.deploy and not self.promote:
            raise ValueError("deploy follows what is promoted; write promote: {} too")
        return self


def options(of: Frozen, *names: str) -> Iterator[str]:
    """The options of a step as one types them, of those that are given.

    >>> list(options(Train(workers=2, gpu=True, set={"epochs": 5}), "workers", "gpu", "wait"))
    ['--workers', '2', '--gpu']
    """
    for name in names:
        value = getattr(of, name)
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            yield flag
        elif value is not None and value is not False:
            yield from (flag, str(value))
