"""Train a classifier or a counter on Ray Train and publish it.

A Ray job, like `cellnet train`:

    python -m pipelines.train BANK --task classify [--workers 2] [--set epochs=10]...
"""

import importlib.metadata
import json
import os
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import ray
import ray.train
import ray.train.torch
import torch

from cellnet import training
from cellnet.bank import Bank
from cellnet.config import DEFAULT_NAMES, TrainConfig
from cellnet.errors import CellnetError, DataError
from cellnet.losses import criterion_of
from cellnet.models import parameters_n
from cellnet.predictor import fresh_network, weights_to_bytes
from cellnet.registry import WEIGHTS, Card, ModelVersion, Registry
from cellnet.store import Store
from pipelines import cluster
from pipelines.calibrate import calibrated
from pipelines.places import Places, filesystem
from pipelines.shards import Shards, batches, make_shards, trainable_frames

PACKAGES: Final = ("torch", "torchvision", "numpy", "opencv-python-headless", "ray", "safetensors")
HISTORY: Final = "history.json"

POLL_S: Final = "0.2"
"""How often Ray Train looks for what workers report. A report waits for it, so at Ray's own 2 s short epochs would
mostly wait."""

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training left: the chosen weights and how it went."""

    weights: bytes
    """A safetensors file."""
    scores: dict[str, Any]
    """Of the chosen epoch, over the test tiles; empty when the bank has no test split."""
    history: list[dict[str, Any]]


def train(
    places: Places,
    config: TrainConfig,
    *,
    name: str | None = None,
    workers: int = 1,
    say: Say = lambda line: None,
) -> ModelVersion:
    """The published version: shards found or made, the network trained by `workers` Ray Train workers.

    The epoch that is best on the test split is chosen. Raises DataError for a bank that cannot train the task.
    """
    bank = places.open_bank()
    trainable_frames(bank, config.task)
    cluster.connect()
    shards = make_shards(bank, config)
    say(describe_shards(shards))
    config = decided(config, shards)
    trained = run_training(shards, config, places.open_runs(), workers=workers, say=say)
    return publish(places.open_registry(), bank, shards, config, trained, name=name)


def decided(config: TrainConfig, shards: Shards) -> TrainConfig:
    """The configuration with every `auto` decided by what the shards hold: what is stored with the model."""
    augmented = config.model_copy(update={"augment": shards.augment})
    return training.decide_epochs(augmented, tiles=shards.rows["train"])


def describe_shards(shards: Shards) -> str:
    """One line for a person."""
    tile = "×".join(str(side) for side in reversed(shards.preprocess.tile_px))
    made = "made" if shards.fresh else "found"
    test = f"{shards.rows['test']} test tiles" if shards.rows["test"] else "no test split, so the last epoch is taken"
    out = f"; {shards.left_out} frames too small or of another magnification are left out" if shards.left_out else ""
    return f"shards {made}: {shards.rows['train']} training tiles of {tile} px, {test}{out}"


def run_training(shards: Shards, config: TrainConfig, runs: Store, *, workers: int, say: Say) -> Trained:
    """Train on Ray Train: each worker has its part of every epoch, gradients are averaged."""
    best, more_is_better = training.STEERING[config.task]
    has_test = shards.rows["test"] > 0
    # Read once into the object store: executing a read anew for every epoch costs seconds each time.
    datasets = {split: shards.dataset(split).materialize() for split in ("train", "test") if shards.rows[split]}
    files, root = filesystem(runs)
    run_name = f"{config.task}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:6]}"
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", POLL_S)
    with cluster.progress(say) as lines:
        trainer = ray.train.torch.TorchTrainer(
            _worker,
            train_loop_config={"config": config, "shards": shards, "lines": lines, "workers": workers},
            datasets=datasets,
            dataset_config=ray.train.DataConfig(datasets_to_split=["train"]),
            scaling_config=ray.train.ScalingConfig(
                num_workers=workers,
                use_gpu=cluster.gpu_available(workers),
                resources_per_worker={"CPU": cluster.cpus_per_worker(workers)},
            ),
            run_config=ray.train.RunConfig(
                name=run_name,
                storage_path=root,
                storage_filesystem=files,
                checkpoint_config=ray.train.CheckpointConfig(
                    num_to_keep=1,
                    checkpoint_score_attribute=best if has_test else "epoch",
                    checkpoint_score_order="max" if more_is_better or not has_test else "min",
                ),
            ),
        )
        try:
            result = trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise _own_error(error) from error
    checkpoint = result.best_checkpoints[0][0] if result.best_checkpoints else None
    if checkpoint is None:
        raise DataError(f"the training {run_name} left no checkpoint in {runs.uri}")
    return read_checkpoint(checkpoint)


def read_checkpoint(checkpoint: ray.train.Checkpoint) -> Trained:
    """The weights and history of a checkpoint directory."""
    with checkpoint.as_directory() as folder:
        history = json.loads((Path(folder) / HISTORY).read_text())
        return Trained(weights=(Path(folder) / WEIGHTS).read_bytes(), scores=history[-1]["test"], history=history)


def write_checkpoint(folder: str, weights: dict[str, torch.Tensor], history: list[dict[str, Any]]) -> None:
    """The weights and the history up to them, as files."""
    (Path(folder) / WEIGHTS).write_bytes(weights_to_bytes(weights))
    (Path(folder) / HISTORY).write_text(json.dumps(history))


def publish(
    registry: Registry,
    bank: Bank,
    shards: Shards,
    config: TrainConfig,
    trained: Trained,
    *,
    name: str | None = None,
    search: list[dict[str, Any]] | None = None,
) -> ModelVersion:
    """The trained network in the registry, calibrated by the test split, with its card."""
    frames = [frame for frame in trainable_frames(bank, config.task) if frame.split == "train"]
    card = Card(
        task=config.task,
        classes=shards.classes,
        config=config,
        preprocess=shards.preprocess,
        frame_px=(
            int(np.median([frame.height for frame in frames])),
            int(np.median([frame.width for frame in frames])),
        ),
        bank=bank.store.uri,
        bank_digest=bank.digest,
        scores={"test": trained.scores},
        history=trained.history,
        code_version=importlib.metadata.version("cellnet"),
        packages={package: importlib.metadata.version(package) for package in PACKAGES},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        search=search,
    )
    card, files = calibrated(bank, card, trained.weights)
    return registry.publish(name or DEFAULT_NAMES[config.task], files, card)


def epoch_line(epoch: training.Epoch, epochs: object, *, tiles: int, best: bool) -> str:
    """An epoch in one line for a person."""
    scores = "  ".join(f"test {name} {value:.3f}" for name, value in epoch.test.items())
    mark = " *" if best else ""
    return (
        f"epoch {epoch.number:>3}/{epochs}  loss {epoch.loss:.4f}  {scores}  "
        f"{tiles / max(epoch.seconds, 1e-9):.0f} tiles/s{mark}"
    )


def _worker(loop: dict[str, Any]) -> None:
    """What every Ray Train worker runs."""
    config: TrainConfig = loop["config"]
    shards: Shards = loop["shards"]
    context = ray.train.get_context()
    workers, rank = context.get_world_size(), context.get_world_rank()
    cluster.quiet()
    torch.set_num_threads(config.threads or max(1, (os.cpu_count() or 1) // context.get_local_world_size()))
    training.seed_everything(config.seed)
    network = ray.train.torch.prepare_model(fresh_network(config, len(shards.classes), shards.mean_count))
    if rank == 0:
        inner = getattr(network, "module", network)
        ray.get(loop["lines"].add.remote(f"{config.model.architecture} network, {parameters_n(inner):,} parameters"))
    per_worker = max(1, config.batch_size // workers)
    test = ray.train.get_dataset_shard("test") if shards.rows["test"] else None
    test_batches = batches(test, 64, seed=None) if test else None
    history: list[dict[str, Any]] = []
    best: list[float] = []

    def on_epoch(epoch: training.Epoch, weights: dict[str, torch.Tensor]) -> None:
        history.append(asdict(epoch))
        steering = epoch.test.get(training.STEERING[config.task][0])
        improved = steering is not None and training.is_better(config.task, steering, best[-1] if best else None)
        if improved and steering is not None:
            best.append(steering)
        keep = improved or (steering is None and epoch.number == config.epochs)
        metrics = {"epoch": epoch.number, "loss": epoch.loss, **epoch.test}
        if rank == 0:
            line = epoch_line(epoch, config.epochs, tiles=epoch.tiles * workers, best=keep and steering is not None)
            ray.get(loop["lines"].add.remote(line))
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = None
            if keep and rank == 0:
                write_checkpoint(folder, weights, history)
                checkpoint = ray.train.Checkpoint.from_directory(folder)
            ray.train.report(metrics, checkpoint=checkpoint)

    train_shard = ray.train.get_dataset_shard("train")
    training.fit(
        network,
        config,
        shards.preprocess,
        criterion=criterion_of(config.task),
        train_batches=batches(train_shard, per_worker, seed=config.seed),
        test_batches=(lambda: test_batches(0)) if test_batches else None,
        steps_per_epoch=max(1, -(-(shards.rows["train"] // workers) // per_worker)),
        on_epoch=on_epoch,
        rank=rank,
    )


def _own_error(error: Exception) -> Exception:
    """cellnet's own error from inside a worker, if that is what ended the training."""
    failures = getattr(error, "worker_failures", {}) or {}
    for failure in failures.values():
        cause = getattr(failure, "cause", failure)
        if isinstance(cause, CellnetError):
            return cause
    return error


if __name__ == "__main__":
    import sys

    from cellnet.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
