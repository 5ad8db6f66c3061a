"""The folder of a search: what it is to try, and what every trial came to, so that nothing is done twice.

    RUNS/tune-TASK-KEY-TIME/run.json              the recipe, as of a training
    RUNS/tune-TASK-KEY-TIME/trials/NAME.json      a trial, after its last epoch so far
    RUNS/tune-TASK-KEY-TIME/trials/NAME.best      weights of its best epoch, a safetensors file
    RUNS/tune-TASK-KEY-TIME/trials/NAME.state     all that it needs to go on, a safetensors file
    RUNS/tune-TASK-KEY-TIME/results.parquet, report.html
    RUNS/tune-TASK-KEY-TIME/finished.json         the version that came of it

NAME is a digest of a trial's settings and seed. Each file is written whole or not at all, the state last: a trial
that was killed does at most one epoch again. None is a pickle. Ray Tune's own files are in `ray/` and not read.
"""

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from cellnet.config.loading import check_format
from cellnet.config.train import ModelSpec
from cellnet.config.tune import Settings, TuneConfig
from cellnet.errors import DataError
from cellnet.evaluation.searches import Trial, rank_trials
from cellnet.networks.weights import Start, weights_to_bytes
from cellnet.registry.registry import Registry
from cellnet.registry.starting import WEIGHTS_KEY, find_start
from cellnet.tasks import TASKS
from cellnet.training.plan import Plan
from cellnet.training.shards import Shards
from cellnet.training.state import TrainState
from pipelines.runs import FORMAT, Run, kept_state


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A search: its folder, what it is to try, and the tiles that all its trials share."""

    run: Run
    config: TuneConfig
    plan: Plan
    """Of `config.train`, with which each trial has its tiles in common."""
    shards: Shards
    starts: Mapping[ModelSpec, Start] = field(default_factory=dict)
    """What networks start from that do not start by chance."""
    workers: int = 1
    """Of each trial."""
    wait_s: float = 900.0
    """How long a search waits for room, or for its store, without an epoch more."""

    @property
    def steering(self) -> tuple[str, bool]:
        """The score that steers, and whether more is better."""
        facts = TASKS[self.config.train.task]
        return facts.steering, facts.more_is_better

    def chosen(self, settings: Settings, seed: int) -> Plan:
        """The training of a trial, whole."""
        return self.plan.with_settings({**settings, "seed": seed})

    def start_of(self, plan: Plan) -> Start | None:
        """What the network of a trial starts from; None where by chance."""
        return self.starts.get(kind_of(plan.config.model))

    @property
    def of_heads(self) -> bool:
        """Whether only last layers are trained."""
        return bool(self.config.train.model.frozen)

    def ranked(self) -> list[Trial]:
        """The trials so far: those that went to their end, then others with a score, then those without."""
        return rank_trials(self.config.train.task, trials_of(self.run))


def starts_of(registry: Registry, plan: Plan, space: Mapping[str, Any]) -> dict[ModelSpec, Start]:
    """What the networks that are searched start from, by their kind, where it is not chance."""
    keys = [key for key in ("model.architecture", WEIGHTS_KEY) if key in space]
    starts = {}
    for values in itertools.product(*(space[key] for key in keys)):
        config = plan.with_settings(dict(zip(keys, values, strict=True))).config
        if start := find_start(registry, config):
            starts[kind_of(config.model)] = start
    return starts


def kind_of(model: ModelSpec) -> ModelSpec:
    """What a network's start depends on, and no more."""
    return ModelSpec(architecture=model.architecture, weights=model.weights)


def keep_trial(run: Run, trial: Trial) -> None:
    """Write or replace what a trial came to."""
    record = {"format": FORMAT} | trial.model_dump(mode="json")
    run.runs.put(_key(run, f"{trial.name}.json"), json.dumps(record, indent=1).encode())


def keep_best(run: Run, name: str, weights: dict[str, torch.Tensor]) -> None:
    """Write or replace the weights of a trial's best epoch."""
    run.runs.put(_key(run, f"{name}.best"), weights_to_bytes(weights))


def trials_of(run: Run) -> Iterator[Trial]:
    """Every trial that has begun. Raises DataError for a record that is none."""
    for key in run.runs.keys(_key(run, "")):
        if key.endswith(".json"):
            try:
                record = json.loads(run.runs.get(key))
                check_format(record, FORMAT, f"{run.runs.uri}/{key}")
                yield Trial.model_validate(record)
            except (ValueError, TypeError, AttributeError) as error:
                raise DataError(
                    f"{run.runs.uri}/{key} is not the record of a trial; remove it, then try again"
                ) from error


def best_of(run: Run, name: str) -> bytes:
    """A safetensors file with the weights of a trial's best epoch. Raises NotFoundError before its first."""
    return run.runs.get(_key(run, f"{name}.best"))


def state_of(run: Run, name: str) -> TrainState | None:
    """What a trial left to go on with, if it did. Raises DataError for what another version of cellnet left."""
    return kept_state(run, name, what=f"the trial {name}", again="search")


def _key(run: Run, file: str) -> str:
    return f"{run.name}/trials/{file}"


def recipe_of(run: Run) -> dict[str, Any]:
    """The recipe that `new_run` left. Raises NotFoundError without one, IntegrityError for one of a later cellnet."""
    recipe: dict[str, Any] = json.loads(run.runs.get(f"{run.name}/run.json"))
    check_format(recipe, FORMAT, f"{run.uri}/run.json")
    return recipe
