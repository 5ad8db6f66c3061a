"""Cross-validation: a network for each fold of the labelled frames, trained side by side as trials of Ray Tune.

    RUNS/TASK-KEY-TIME/trials/fold-3.state     all that the network of the third fold needs to go on, after each epoch
    RUNS/TASK-KEY-TIME/fold-3/events.out…      its curves
    RUNS/TASK-KEY-TIME/refit/                  the training on all frames after them, as of any training

All read the same shards, in which every frame is in `train`, augmented, and in `test`, as it is: a fold's network
learns from the rows of the frames that others hold back. Each is trained to its last epoch, since none is chosen.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import ray
import ray.data
import ray.tune
import torch

from cellnet.bank.frames import Frame
from cellnet.config.choices import Split
from cellnet.errors import DataError
from cellnet.networks.weights import Start, fresh_network
from cellnet.training.fit import fit, seed_everything
from cellnet.training.losses import criterion_of
from cellnet.training.plan import Plan
from cellnet.training.shards import SPLITS, TILES_A_READ, Shards
from cellnet.training.state import TrainState, is_over
from cellnet.training.tiles import grids_of
from pipelines import cluster, room
from pipelines.runs import Run, Say, epoch_line, keep_state, kept_state, tell_epochs
from pipelines.shards import batches, dataset_of

FOLD_CPUS: Final = 0.5
"""Reserved for each fold, so that the rest of the cluster can feed it."""


@dataclass(frozen=True, kw_only=True)
class FoldsJob:
    """What the networks of all folds have in common."""

    run: Run
    plan: Plan
    shards: Shards
    tiles: dict[int, int]
    """How many training tiles each fold's network learns from."""
    gpus: float = 0
    """For each."""
    threads: int = 1
    start: Start | None = None


def train_folds(
    plan: Plan,
    shards: Shards,
    run: Run,
    frames: Sequence[Frame],
    *,
    start: Start | None = None,
    use_gpu: bool = False,
    say: Say,
) -> dict[int, TrainState]:
    """The trained network of each fold, of a plan over the bank's `frames`; those that are trained already as they are.

    Raises DataError when a training diverged, or when a counter is dead.
    """
    states = {fold: state_of_fold(run, fold) for fold in plan.held_back}
    left = [fold for fold, state in states.items() if state is None or not is_over(plan.config, state.history)]
    if len(left) < len(states):
        say(f"{len(states) - len(left)} of {len(states)} folds are trained already")
    if left:
        tell_epochs(plan.config.task, say, star=False)
        job = FoldsJob(
            run=run,
            plan=plan,
            shards=shards,
            tiles=_tiles_of_folds(plan, frames),
            gpus=float(use_gpu),
            start=start,
            threads=plan.config.threads or max(1, int(cluster.cpus() / len(left))),
        )
        _run(job, left, say)
    trained = {}
    for fold, known in states.items():
        state = state_of_fold(run, fold) if fold in left else known
        if state is None or not is_over(plan.config, state.history):
            raise DataError(
                f"the network of fold {fold} was not trained to its end; the same command with --resume goes on"
            )
        if state.history[-1].dead:
            raise DataError(
                f"the counter of fold {fold} is dead: it gives every tile the same count; "
                "try --set seed=1, a lower --set learning_rate, or --set model.architecture=residual"
            )
        trained[fold] = state
    return trained


def state_of_fold(run: Run, fold: int) -> TrainState | None:
    """What the network of a fold left to go on with, if it did. Raises DataError for what another cellnet left."""
    return kept_state(run, f"fold-{fold}", what=f"fold {fold}", again="train")


def _tiles_of_folds(plan: Plan, frames: Iterable[Frame]) -> dict[int, int]:
    """How many training tiles the network of each fold learns from."""
    train = plan.splits["train"]
    taken = plan.among(frames)
    tiles = map(train.variants.number, grids_of(taken, plan.preprocess).tolist())
    of_frame = dict(zip(taken.values("frame"), tiles, strict=True))
    return {fold: train.rows - sum(map(of_frame.__getitem__, held)) for fold, held in plan.held_back.items()}


def _run(job: FoldsJob, folds: list[int], say: Say) -> None:
    """Train the networks of these folds, as many at once as there is room for."""
    # Read once into the object store, for all of them.
    data = {split: dataset_of(job.shards, split, "frame").materialize() for split in SPLITS}
    with cluster.progress(say) as lines:
        trainable = ray.tune.with_parameters(_train_fold, job=job, data=data, lines=lines)
        trials = cluster.run_trials(
            ray.tune.with_resources(trainable, {"CPU": FOLD_CPUS, "GPU": job.gpus}),
            {"fold": ray.tune.grid_search(folds)},
            runs=job.run.runs,
            folder=job.run.name,
            max_concurrent_trials=room.at_once(job.gpus),
            reuse_actors=True,  # a process takes seconds to start
        )
    for trial in trials:
        if trial.metrics and trial.metrics.get("problem"):
            raise DataError(trial.metrics["problem"])
        if trial.error:
            raise trial.error


def _train_fold(
    space: dict[str, Any], job: FoldsJob, data: dict[Split, ray.data.Dataset], lines: ray.actor.ActorHandle
) -> None:
    """A trial: the network of one fold, in this process."""
    fold, plan, config = space["fold"], job.plan, job.plan.config
    held = plan.held_back[fold]
    cluster.quiet()
    torch.set_num_threads(min(job.threads, os.cpu_count() or 1))
    seed_everything(config.seed)
    network = fresh_network(config, len(plan.classes), job.shards.mean_count, start=job.start)
    test_batches = batches(data["test"], 64, seed=None, chosen=held.__contains__)

    def keep(state: TrainState) -> None:
        epoch = state.history[-1]
        keep_state(job.run, f"fold-{fold}", state, config)
        Run(job.run.runs, f"{job.run.name}/fold-{fold}").add_curves(epoch)
        line = epoch_line(epoch, config.epochs, best=False)
        ray.get(lines.add.remote(f"fold {fold}/{len(job.tiles)}  {line}"))
        ray.tune.report({"epoch": epoch.number, "loss": epoch.loss, "problem": ""})

    try:
        fit(
            network.to("cuda" if job.gpus else "cpu"),
            config,
            plan.preprocess,
            criterion=criterion_of(config, class_tiles=job.shards.class_tiles, mean_count=job.shards.mean_count),
            train_batches=batches(
                data["train"], TILES_A_READ, seed=config.seed, chosen=lambda frame: frame not in held
            ),
            test_batches=lambda: test_batches(0),
            tiles=job.tiles[fold],
            on_epoch=keep,
            state=state_of_fold(job.run, fold),
        )
    except DataError as error:  # which would come again if Ray tried again
        ray.tune.report({"epoch": 0, "loss": float("nan"), "problem": f"fold {fold}: {error}"})
