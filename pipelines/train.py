"""Train a classifier or a counter on Ray Train and publish it.

A Ray job, like `cellnet train`:

    python -m pipelines train BANK --task classify [--workers 2] [--set epochs=10]...
"""

import functools
import importlib.metadata
import os
import tempfile
from collections.abc import Callable, Collection
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import ray
import ray.data
import ray.train
import ray.train.torch
import torch
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.callback import RayTrainCallback

from cellnet.bank.bank import Bank
from cellnet.bank.columns import Frames
from cellnet.bank.folds import ENOUGH_GROUPS, few_groups
from cellnet.bank.quality import focus_of
from cellnet.bank.teaching import labelled_frames
from cellnet.config.choices import Split
from cellnet.config.train import TrainConfig
from cellnet.errors import ConfigError, DataError
from cellnet.networks.architectures import parameters_n
from cellnet.networks.weights import Start, fresh_network, weights_to_bytes
from cellnet.places import Places
from cellnet.prediction.lineup import counter_name
from cellnet.registry.learned import Learned, learned_of, learned_since
from cellnet.registry.records import Card, ModelVersion, check_name
from cellnet.registry.registry import Registry
from cellnet.registry.starting import check_start, find_origin, find_start, with_fixed_start
from cellnet.store.arrow import filesystem
from cellnet.tasks import TASKS
from cellnet.training.fit import fit, seed_everything
from cellnet.training.losses import criterion_of
from cellnet.training.plan import Plan, make_plan, refit_plan, told_network
from cellnet.training.shards import SPLITS, TILES_A_READ, Shards
from cellnet.training.state import Epoch, TrainState, best_epoch
from cellnet.training.workers import unwrapped
from cellnet.version import code_version
from pipelines import cluster, failures, room
from pipelines.folds import train_folds
from pipelines.heads import train_head
from pipelines.paper_holdout import score_paper_holdout
from pipelines.publishing import Trained, cross_validated, finished, refitted
from pipelines.runs import (
    Run,
    Say,
    epoch_line,
    find_run,
    finish_once,
    read_state,
    tell_epochs,
    tensorboard_command,
    write_state,
)
from pipelines.shards import batches, dataset_of, make_shards

PACKAGES: Final = (
    *("torch", "torchvision", "numpy", "opencv-python-headless", "ray", "safetensors"),
    *("onnx", "onnxscript", "onnxruntime"),
)
MAX_FAILURES: Final = 3
"""How often a training whose workers died goes on from its last checkpoint."""
PARTS_A_WORKER: Final = 4
"""Of an elastic training: so many workers at most have so many parts each to share out among those there are."""
TILES_A_WORKER: Final = 4
"""Tiles of a step that a worker has at least: the statistics of fewer are too unlike those of other tiles."""
POLL_S: Final = "0.2"
"""How often Ray Train looks for what workers report. A report waits for it, so at Ray's own 2 s short epochs would
mostly wait."""

SHOWN: Final = 3
"""Lineages that are named where there are many."""

Workers = int | tuple[int, int]
"""How many, or how few and how many at most."""


def train(
    places: Places,
    config: TrainConfig,
    *,
    name: str | None = None,
    workers: Workers = 1,
    gpu: bool = False,
    resume: bool = False,
    once: str | None = None,
    wait_s: float = room.WAIT_S,
    say: Say = lambda line: None,
) -> ModelVersion:
    """The published version: shards found or made, the network trained by `workers` Ray Train workers.

    The epoch that is best on the test split is chosen. Of a bank that is small, or with `folds`, there is a network for
    each fold of the frames, by which the version is scored, and what is published has learned from all of them. With
    `resume` it goes on with the newest run of the same bank and settings that was left unfinished; with `once` with the
    run that was called so, and where that has published a version, this is the answer. Raises DataError for
    a bank that cannot train the task, ConfigError for workers that the cluster or the bank cannot keep busy, and with
    `gpu` where there are too few GPUs. A cluster that grows on demand is asked for room, and waited for so long.
    """
    bank, registry = places.open_bank(), places.open_registry()
    model = name or model_name(config)
    registry.check_publish(model)
    if once and (version := published_once(registry, places, model, once, say=say)):
        return version
    plan = make_plan(bank, with_fixed_start(registry, config))
    frozen = bool(plan.config.model.frozen)
    check_workers(workers, plan, batch_size=config.batch_size)
    start = find_start(registry, plan.config)
    check_start(registry, plan, bank, start)
    origin = find_origin(registry, plan.config, start) if plan.folds else start
    cluster.connect(*places.named)
    room.wait_for_workers(at_least(workers), wait_s=wait_s, say=say)
    if gpu:
        room.wait_for_gpus(1, at_least(workers), wait_s=wait_s, say=say)
    use_gpu = room.use_gpus(at_least(workers), insist=gpu)
    if plan.folds:
        say(_about_folds(plan, bank, asked=config.folds != "auto"))
    if network := told_network(plan):
        say(network)
    parent = _parent(registry, plan, start)
    since = learned_since(registry, parent, bank, plan.among(bank.frames)) if parent else None
    if start and since:
        say(f"from {start.parent}; what it had not learned: {since.told}")
    if frozen and asks_for_epochs(config):
        say("note: epochs and patience change nothing: a frozen network has no epochs")
    shards = make_shards(bank, plan)
    say(shards.describe(plan))
    run = find_run(
        places.open_runs(), plan.config, resume=resume, say=say, bank=bank, plan=plan, model=model, once=once
    )
    say(f"run: {run.uri}")
    say(f"curves: {tensorboard_command(run)}")
    try:
        trained = _train_plan(
            *(bank, plan, shards, run),
            start=start,
            origin=origin,
            since=since.frames if since else frozenset(),
            workers=workers,
            use_gpu=use_gpu,
            say=say,
        )
    except KeyboardInterrupt:
        again = "the same command" if once else "the same command with --resume"
        say(f"{again} goes on after the last {'fit' if frozen else 'epoch'} that was kept")
        raise
    more = score_paper_holdout(bank, plan, shards, trained.weights) if plan.paper else {}
    version = publish(registry, bank, plan, trained, name=model, start=start, more=more, once=once, say=say)
    run.finish(version.ref)
    return version


def published_once(registry: Registry, places: Places, model: str, once: str, *, say: Say) -> ModelVersion | None:
    """The version that a training so called has published, if it has. Raises ConfigError for what is no name."""
    check_name(once)
    version = registry.published_once(model, once)
    if version:
        say(f"{version.ref} was published as {once} already")
        finish_once(places.open_runs(), once, version.ref)
    return version


def asks_for_epochs(config: TrainConfig) -> bool:
    """Whether somebody said how long to train."""
    return config.epochs != "auto" or config.patience is not None


def model_name(config: TrainConfig) -> str:
    """What the model of a training is called in the registry unless told otherwise."""
    return counter_name(config.lineage) if config.lineage else TASKS[config.task].model


def at_least(workers: Workers) -> int:
    """With how few workers a training starts."""
    return workers if isinstance(workers, int) else workers[0]


def at_most(workers: Workers) -> int:
    """How many workers a training has at most."""
    return workers if isinstance(workers, int) else workers[1]


def check_workers(workers: Workers, plan: Plan, *, batch_size: int) -> None:
    """Raise ConfigError unless every worker has enough tiles in every step for its batch norms.

    And for several of a frozen network, whose last layer one process learns.
    """
    most, tiles = at_most(workers), plan.splits["train"].rows
    if most > 1 and plan.config.model.frozen:
        raise ConfigError(
            f"{most} workers cannot share the last layer of a frozen {plan.config.model.architecture}, which one "
            "process learns in seconds; leave --workers out, or train all layers by --set model.frozen=false"
        )
    if most > 1 and most > min(batch_size // TILES_A_WORKER, tiles // PARTS_A_WORKER):
        raise ConfigError(
            f"{most} workers cannot share {tiles} training tiles in steps of {batch_size}; "
            f"take fewer workers, or larger steps, for example --set batch_size={TILES_A_WORKER * most}"
        )


def _train_plan(
    bank: Bank,
    plan: Plan,
    shards: Shards,
    run: Run,
    *,
    start: Start | None = None,
    origin: Start | None = None,
    since: Collection[str] = (),
    workers: Workers,
    use_gpu: bool,
    say: Say,
) -> Trained:
    """What a plan comes to, whichever way it is trained.

    Whole networks of folds start from `origin`; a frozen one learns the frames that came `since` several times.
    """
    if plan.config.model.frozen and start:
        return train_head(bank, plan, shards, run, start=start, since=since, say=say)
    again = functools.partial(
        run_training,
        run=Run(run.runs, f"{run.name}/refit"),
        start=start,
        workers=workers,
        use_gpu=use_gpu,
        title="all frames  ",
        say=say,
    )
    if plan.folds:
        states = train_folds(plan, shards, run, bank.frames, start=origin, use_gpu=use_gpu, say=say)
        say("last, one network learns from all frames")
        last = refit_plan(plan, bank.frames, epochs=int(plan.config.epochs))
        trained = again(last, shards.model_copy(update={"rows": shards.rows | {"test": 0}}))
        networks = {number: weights_to_bytes(state.weights) for number, state in states.items()}
        return cross_validated(trained.weights, trained.history, bank, plan, networks)
    trained = run_training(plan, shards, run, start=start, workers=workers, use_gpu=use_gpu, say=say)
    if not plan.config.refit or not plan.splits["test"].frames:
        return trained
    chosen = best_epoch(plan.config.task, [Epoch(**epoch) for epoch in trained.history])
    say(f"once more, for {chosen.number} epochs, on the train and the test split together")
    last = refit_plan(plan, bank.frames, epochs=chosen.number)
    whole = again(last, make_shards(bank, last))
    return refitted(trained, whole.weights, bank, plan)


def _about_folds(plan: Plan, bank: Bank, *, asked: bool) -> str:
    """Why there are folds, and how there are none, in a line."""
    assert plan.folds is not None, "planned"
    few = few_groups(labelled_frames(bank, plan.config.task, plan.config.lineage))
    shown = ", ".join(list(few)[:SHOWN]) + (f" and {len(few) - SHOWN} more" if len(few) > SHOWN else "")
    why = "" if asked else f"fewer than {ENOUGH_GROUPS} groups of {shown}: "
    holdout = ", the holdout's too" if plan.config.holdout == "use" else " but the holdout's"
    if plan.folds.by_batch:
        by = f"{plan.folds.number} batches are left out in turn, and each is scored by a network without it{holdout}"
    else:
        by = f"{why}{plan.folds.number} folds score by all labelled frames{holdout}"
        if plan.batches:
            by += f", besides them {plan.batches.number} times without whole batches, to say what a new one brings"
    return f"{by}, and what is published learns from all of them (--set folds=0 trains on the train split alone)"


def run_training(
    plan: Plan,
    shards: Shards,
    run: Run,
    *,
    start: Start | None = None,
    workers: Workers,
    use_gpu: bool = False,
    title: str = "",
    say: Say,
) -> Trained:
    """Train on Ray Train: each worker has its part of every epoch, gradients are averaged.

    `title` begins the line of every epoch.

    Raises DataError when the training diverged, or when a counter is dead.
    """
    parts = at_most(workers) * (1 if isinstance(workers, int) else PARTS_A_WORKER)
    # Read once into the object store: executing a read anew for every epoch costs seconds each time.
    data = {split: read_tiles(shards, split, parts) for split in SPLITS}
    with cluster.progress(say) as lines:
        result = run_workers(
            _worker,
            {
                "plan": plan,
                "shards": shards,
                "run": run,
                "lines": lines,
                "data": data,
                "start": start,
                "title": title,
            },
            ray.train.ScalingConfig(
                num_workers=workers,
                use_gpu=use_gpu,
                resources_per_worker={"CPU": cluster.cpus_per_worker(workers) if isinstance(workers, int) else 1},
            ),
            run=run,
            # The last checkpoint stays in any case.
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1, checkpoint_score_attribute="chosen"),
        )
    if isinstance(result.return_value, DataError):
        raise result.return_value
    history = [asdict(epoch) for epoch in read_state(result.checkpoint).history]
    return replace(read_checkpoint(result.best_checkpoints[-1][0]), history=history)


class LeanTrainer(ray.train.torch.TorchTrainer):  # type: ignore[misc]
    """Ray Train's, without processes of its own that have nothing to do here.

    One deals out datasets that the trainer is given, and it is given none. Another frees what workers have reserved
    where their controller died and the job goes on; most jobs end with it, and Ray frees it then.
    """

    outlived = False
    """Whether the job may go on after the controller."""

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        vain = (DatasetsCallback,) if self.outlived else (DatasetsCallback, PlacementGroupCleanerCallback)
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, vain)]


def run_workers(
    worker: Callable[[dict[str, Any]], Any],
    loop: dict[str, Any],
    scaling: ray.train.ScalingConfig,
    *,
    run: Run,
    outlived: bool = False,
    **settings: Any,
) -> ray.train.Result:
    """What comes of Ray Train's workers, each of which gets `loop` by `given_to`; they are started again if they die.

    `outlived` says that the job may go on after their controller; `settings` are further ones of Ray Train's RunConfig.
    Raises cellnet's own error where one ended the workers.
    """
    files, root = filesystem(run.runs)
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", POLL_S)
    elastic = not isinstance(scaling.num_workers, int)
    with cluster.own_address(), cluster.patient(elastic=elastic):
        trainer = LeanTrainer(
            worker,
            train_loop_config={"loop": ray.put(loop)},  # a reference: Ray Train's controller would import all of it
            scaling_config=scaling,
            run_config=ray.train.RunConfig(
                name=run.name,
                storage_path=root,
                storage_filesystem=files,
                failure_config=ray.train.FailureConfig(max_failures=MAX_FAILURES),
                **settings,
            ),
        )
        trainer.outlived = outlived
        try:
            with cluster.stopped_by_ctrl_c():
                return trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise failures.told(error) or error from error


def given_to(config: dict[str, Any]) -> dict[str, Any]:
    """In a worker: what `run_workers` was given for it."""
    loop: dict[str, Any] = ray.get(config["loop"])
    return loop


def read_checkpoint(checkpoint: ray.train.Checkpoint) -> Trained:
    """What a training came to after the epoch of a checkpoint. Raises DataError when its counter is dead."""
    state = read_state(checkpoint)
    history = state.history
    if history[-1].dead:
        raise DataError(
            f"the counter is dead: it gave every tile the same count in its best epoch, the {history[-1].number}th; "
            "try --set seed=1, a lower --set learning_rate, or --set model.architecture=residual"
        )
    return Trained(
        weights=weights_to_bytes(state.weights), scores=history[-1].test, history=[asdict(epoch) for epoch in history]
    )


def read_tiles(shards: Shards, split: Split, parts: int) -> list[ray.data.Dataset]:
    """The tiles of a split in parts of the same size give or take a tile; fewer parts where there are fewer tiles.

    Ray Train's own splitting drops the remainder, and deals blocks out as they come.
    """
    rows = shards.rows[split]
    if not rows:
        return []
    tiles, parts = dataset_of(shards, split).materialize(), min(parts, rows)
    ends = [part * rows // parts for part in range(1, parts)]
    return list(tiles.split_at_indices(ends)) if ends else [tiles]


def publish(
    registry: Registry,
    bank: Bank,
    plan: Plan,
    trained: Trained,
    *,
    name: str,
    start: Start | None = None,
    search: list[dict[str, Any]] | None = None,
    sweep: str | None = None,
    more: dict[str, Any] | None = None,
    once: str | None = None,
    say: Say = lambda line: None,
) -> ModelVersion:
    """The trained network in the registry, calibrated by the test split or by folds, with card, ONNX export and report.

    `search` and `sweep` are the table and the place of the search that chose it; `more` are scores over other rows
    than the test tiles; `once` is what the training was called.
    """
    say("the network is scored, calibrated and exported; the more frames, the longer")
    parent = _parent(registry, plan, start)
    frames, pixel_um = plan.among(bank.frames), plan.preprocess.pixel_um
    since = learned_since(registry, parent, bank, frames) if parent else None
    is_as_large = parent is not None and parent.card.preprocess.pixel_um == pixel_um
    card = Card(
        task=plan.config.task,
        classes=list(plan.classes),
        config=plan.config,
        preprocess=plan.preprocess,
        frame_px=plan.frame_px,
        bank=bank.store.uri,
        bank_digest=bank.digest,
        bank_entry=bank.entry or None,
        scores=({} if trained.cross_validation and not trained.scores else {"test": trained.scores}) | (more or {}),
        history=trained.history,
        code_version=code_version(),
        packages={package: importlib.metadata.version(package) for package in PACKAGES},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        search=search,
        sweep=sweep,
        cross_validation=trained.cross_validation,
        batch_validation=trained.batch_validation,
        start=start.started if start else None,
        parent=start.parent if start else None,
        focus=focus_of(
            frames,
            pixel_um,
            new=since.frames if since else (),
            before=parent.card.focus if parent and is_as_large else None,
        ),
        relearned=since.told if since else None,
        once=once,
    )
    learned = _learned(registry, frames, plan, start)
    card, files = finished(name, bank, card, trained.weights, learned=learned, held_back=trained.held_back, say=say)
    return registry.publish(name, files, card)


def _parent(registry: Registry, plan: Plan, start: Start | None) -> ModelVersion | None:
    """The version of the same task that a plan starts from; None without one."""
    parent = registry.resolve(start.parent) if start and start.parent else None
    return parent if parent and parent.card.task == plan.config.task else None


def _learned(registry: Registry, frames: Frames, plan: Plan, start: Start | None) -> Learned | None:
    """What shapes the network of a plan: its `frames`, and those that shaped what it starts from.

    None where nobody knows the latter. Of a frozen network whose parent was frozen too, the last layers begin anew.
    """
    own = Learned.of(frames)
    parent = registry.resolve(start.parent) if start and start.parent else None
    if parent is None or (plan.config.model.frozen and parent.card.config.model.frozen):
        return own
    before = learned_of(registry, parent)
    return own | before if before else None


def _worker(given: dict[str, Any]) -> DataError | None:
    """What every Ray Train worker runs; gives back an error that would come again if Ray Train tried again."""
    loop = given_to(given)
    plan: Plan = loop["plan"]
    shards: Shards = loop["shards"]
    context = ray.train.get_context()
    workers, rank = context.get_world_size(), context.get_world_rank()
    cluster.quiet()
    torch.set_num_threads(plan.config.threads or max(1, (os.cpu_count() or 1) // context.get_local_world_size()))
    checkpoint = ray.train.get_checkpoint()
    try:
        state = read_state(checkpoint) if checkpoint else None
        network = shared_network(plan, shards, loop["start"])
        if rank == 0:
            what = f"{plan.config.model.architecture} network, {parameters_n(unwrapped(network)):,} parameters"
            done = f", going on after epoch {state.history[-1].number}" if state else ""
            begun = f", from {loop['start'].started}" if loop["start"] else ""
            _say(loop, f"{what}{begun}, {workers} worker{'s' * (workers != 1)}{done}")
            if loop["data"]["test"]:
                tell_epochs(plan.config.task, lambda line: _say(loop, line), star=True)
        fit_part(
            network,
            plan,
            shards,
            loop["data"],
            on_epoch=lambda state: _report(loop, state, rank),
            rank=rank,
            workers=workers,
            state=state,
        )
    except DataError as error:
        return error
    return None


def shared_network(plan: Plan, shards: Shards, start: Start | None = None) -> torch.nn.Module:
    """In a Ray Train worker: a fresh network on its device, the same on every worker."""
    seed_everything(plan.config.seed)
    network = fresh_network(plan.config, len(plan.classes), shards.mean_count, start=start)
    # Buffers need no broadcast in every step: `cellnet.training.fit` brings their statistics together once an epoch.
    buckets = {"forward_sync_buffers": False, "gradient_as_bucket_view": True, "static_graph": True}
    prepared: torch.nn.Module = ray.train.torch.prepare_model(network, parallel_strategy_kwargs=buckets)
    return prepared


def fit_part(
    network: torch.nn.Module,
    plan: Plan,
    shards: Shards,
    data: dict[Split, list[ray.data.Dataset]],
    *,
    on_epoch: Callable[[TrainState], None],
    rank: int = 0,
    workers: int = 1,
    state: TrainState | None = None,
) -> None:
    """Train on the parts of the tiles that fall to one of so many workers: of `train` and `tune` alike."""
    parts = {split: data[split][rank::workers] for split in SPLITS}
    train_part, test_part = (_united(parts[split]) for split in SPLITS)
    fit(
        network,
        plan.config,
        plan.preprocess,
        criterion=criterion_of(plan.config, class_tiles=shards.class_tiles, mean_count=shards.mean_count),
        train_batches=batches(train_part, TILES_A_READ, seed=plan.config.seed),
        test_batches=(lambda: batches(test_part, 64, seed=None)(0)) if test_part is not None else None,
        tiles=sum(part.count() for part in parts["train"]),  # known of parts, and a task of what they are united to
        on_epoch=on_epoch,
        rank=rank,
        state=state,
    )


def _united(parts: list[ray.data.Dataset]) -> Any:
    """The tiles of several parts; None for none."""
    return parts[0].union(*parts[1:]) if len(parts) > 1 else next(iter(parts), None)


def _report(loop: dict[str, Any], state: TrainState, rank: int) -> None:
    """Tell of an epoch: to the person, to TensorBoard, and with a checkpoint to Ray Train."""
    config: TrainConfig = loop["plan"].config
    epoch = state.history[-1]
    chosen = best_epoch(config.task, state.history) == epoch
    metrics = {"epoch": epoch.number, "loss": epoch.loss, **epoch.test, "chosen": epoch.number if chosen else 0}
    if rank != 0:
        ray.train.report(metrics)
        return
    loop["run"].add_curves(epoch)
    with tempfile.TemporaryDirectory() as folder:
        write_state(Path(folder), state, config)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))
    _say(loop, loop["title"] + epoch_line(epoch, config.epochs, best=chosen and bool(epoch.test)))
    if epoch.dead and not any(earlier.dead for earlier in state.history[:-1]):
        _say(loop, "warning: the counter gives every tile the same count; if that lasts, lower --set learning_rate")


def _say(loop: dict[str, Any], line: str) -> None:
    ray.get(loop["lines"].add.remote(line))
