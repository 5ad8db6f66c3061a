"""Search activation × kernel with Ray Tune; the winner by the test split is published and promoted.

A Ray job, like `cellnet tune`:

    python -m pipelines.tune BANK --task classify [--trials 6] [--set train.epochs=5]...
"""

import itertools
import os
import tempfile
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.tune
import torch

from cellnet import training
from cellnet.config import Activation, Kernel, TrainConfig, TuneConfig
from cellnet.errors import DataError
from cellnet.losses import criterion_of
from cellnet.predictor import fresh_network
from cellnet.registry import ModelVersion
from cellnet.store import Store
from pipelines import cluster
from pipelines.places import Places, filesystem
from pipelines.runs import write_state
from pipelines.shards import SPLITS, TILES_A_READ, Shards, batches, make_shards, trainable_frames
from pipelines.train import (
    Say,
    decided,
    describe_shards,
    publish,
    read_checkpoint,
)

TRIAL_CPUS = 0.5
"""Reserved for a trial; the rest of the cluster feeds it. It computes with one thread."""

Choice = tuple[Activation, Kernel]


@dataclass(frozen=True)
class Search:
    """A finished search: the published winner and every trial, the best first."""

    winner: ModelVersion
    trials: list[dict[str, Any]]


def tune(
    places: Places,
    config: TuneConfig,
    *,
    trials: int | None = None,
    alias: str = "champion",
    name: str | None = None,
    say: Say = lambda line: None,
) -> Search:
    """Train every chosen activation × kernel, publish the best on the test split and point `alias` at it.

    A trial that fails is recorded and does not end the search. Raises DataError when the bank has no test split
    (with fewer than three groups a lineage there is none) or when every trial failed.
    """
    bank = places.open_bank()
    trainable_frames(bank, config.train.task)
    if not bank.split("test"):
        raise DataError(
            f"{places.bank} has no test split to choose by; a search needs at least three groups of every lineage"
        )
    cluster.connect()
    shards = make_shards(bank, config.train)
    say(describe_shards(shards))
    config = config.model_copy(update={"train": decided(config.train, shards)})
    choices = choose_trials(config, trials)
    say(f"{len(choices)} trials of {config.train.epochs} epochs: {', '.join('/'.join(choice) for choice in choices)}")
    results = _run_trials(shards, config.train, choices, places.open_runs(), say)
    rows = [_row(result, config.train) for result in results]
    steering, more_is_better = training.STEERING[config.train.task]
    ranked = sorted(
        (pair for pair in zip(rows, results, strict=True) if pair[0]["error"] is None),
        key=lambda pair: -pair[0][steering] if more_is_better else pair[0][steering],
    )
    if not ranked:
        raise DataError(f"every trial failed; the first said: {rows[0]['error']}")
    table = [row for row, _ in ranked] + [row for row in rows if row["error"] is not None]
    best_row, best_result = ranked[0]
    chosen = with_choice(config.train, (best_row["activation"], best_row["kernel"]))
    shards = shards.model_copy(update={"preprocess": shards.preprocess.model_copy(update={"kernel": chosen.kernel})})
    registry = places.open_registry()
    trained = read_checkpoint(best_result.get_best_checkpoint(steering, "max" if more_is_better else "min"))
    winner = publish(registry, bank, shards, chosen, trained, name=name, search=table)
    registry.promote(winner.ref, alias, reason=f"best of {len(table)} trials by test {steering}")
    return Search(winner, table)


def choose_trials(config: TuneConfig, trials: int | None) -> list[Choice]:
    """Every activation × kernel, or a seeded random part of them without repetition."""
    grid: list[Choice] = list(itertools.product(config.activations, config.kernels))
    if trials is None or trials >= len(grid):
        return grid
    drawn = np.random.default_rng(config.train.seed).choice(len(grid), trials, replace=False)
    return [grid[i] for i in sorted(drawn)]


def with_choice(config: TrainConfig, choice: Choice) -> TrainConfig:
    """The training with another activation and kernel."""
    activation, kernel = choice
    return config.model_copy(
        update={"kernel": kernel, "model": config.model.model_copy(update={"activation": activation})}
    )


def _run_trials(shards: Shards, config: TrainConfig, choices: list[Choice], runs: Store, say: Say) -> list[Any]:
    files, root = filesystem(runs)
    steering, more_is_better = training.STEERING[config.task]
    datasets = {split: shards.dataset(split).materialize() for split in SPLITS}  # shared by all trials
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new output prints boxes even when told to print nothing
    with cluster.progress(say) as lines:
        tuner = ray.tune.Tuner(
            ray.tune.with_resources(
                ray.tune.with_parameters(_trial, shards=shards, config=config, lines=lines, datasets=datasets),
                {"CPU": TRIAL_CPUS},
            ),
            param_space={"choice": ray.tune.grid_search(choices)},
            tune_config=ray.tune.TuneConfig(
                metric=steering,
                mode="max" if more_is_better else "min",
                max_concurrent_trials=max(1, int(cluster.cpus())),
            ),
            run_config=ray.tune.RunConfig(
                name=f"tune-{config.task}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:6]}",
                storage_path=root,
                storage_filesystem=files,
                verbose=0,
                checkpoint_config=ray.tune.CheckpointConfig(
                    num_to_keep=1,
                    checkpoint_score_attribute=steering,
                    checkpoint_score_order="max" if more_is_better else "min",
                ),
            ),
        )
        return list(tuner.fit())


def _trial(space: dict[str, Any], shards: Shards, config: TrainConfig, lines: Any, datasets: dict[str, Any]) -> None:
    """One training in one process, reported to Tune after every epoch."""
    cluster.quiet()
    torch.set_num_threads(config.threads or 1)
    chosen = with_choice(config, tuple(space["choice"]))
    training.seed_everything(chosen.seed)
    preprocess = shards.preprocess.model_copy(update={"kernel": chosen.kernel})
    steering = training.STEERING[config.task][0]

    def on_epoch(state: training.TrainState) -> None:
        epoch, best = state.history[-1], training.best_epoch(config.task, state.history)
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = None
            if epoch == best:
                write_state(Path(folder), state, chosen)
                checkpoint = ray.tune.Checkpoint.from_directory(folder)
            metrics = {"epoch": epoch.number, "loss": epoch.loss, "best": best.test[steering], **epoch.test}
            ray.tune.report(metrics, checkpoint=checkpoint)
        if training.is_over(chosen, state.history):
            name = f"{chosen.model.activation}/{chosen.kernel}"
            ray.get(lines.add.remote(f"trial {name:<22} test {steering} {best.test[steering]:.3f}"))

    training.fit(
        fresh_network(chosen, len(shards.classes), shards.mean_count),
        chosen,
        preprocess,
        criterion=criterion_of(chosen, class_tiles=shards.class_tiles, mean_count=shards.mean_count),
        train_batches=batches(datasets["train"], TILES_A_READ, seed=chosen.seed),
        test_batches=lambda: batches(datasets["test"], 64, seed=None)(0),
        tiles=shards.rows["train"],
        on_epoch=on_epoch,
    )


def _row(result: Any, config: TrainConfig) -> dict[str, Any]:
    """A trial as a row of the search's table: its choice and the scores of its best epoch."""
    steering = training.STEERING[config.task][0]
    activation, kernel = result.config["choice"]
    row: dict[str, Any] = {"activation": activation, "kernel": kernel, steering: None, "epochs": 0, "error": None}
    if result.error is not None:
        row["error"] = str(result.error).strip().splitlines()[-1]
        return row
    row[steering] = result.metrics["best"]
    row["epochs"] = result.metrics["epoch"]
    row["seconds"] = round(result.metrics["time_total_s"], 1)
    return row


if __name__ == "__main__":
    import sys

    from cellnet.cli import main

    sys.exit(main(["tune", *sys.argv[1:]]))
