"""What a node's GPUs do for cellnet: training, search and serving, beside the CPU.

    python tests/benchmarks/gpu.py [OUT]                       all GPUs of this node, by estimate twenty minutes
    python tests/benchmarks/gpu.py OUT --only speed --quick    one measurement (repeat for more), in small
    python tests/benchmarks/gpu.py OUT --device cpu            in small on a CPU: that it works, not how fast a GPU is

OUT (or this folder) gets `gpu.md`, a table, and `gpu.html`, the page of it; they are written anew after every
measurement. `--json` prints figures for programs instead of the table. A measurement that fails is named in the table,
and the others go on. What is trained are the default networks on drawn tiles, by the code that `cellnet train`, `tune`
and `serve` run:

    peak      a product of large matrices, in the same precision as the networks: what shares of a peak are of
    speed     tiles/s of both tasks in float32, in bfloat16, and in bfloat16 compiled; tiles in memory, one GPU
    input     share of a training's time in which it waits for tiles of Ray Data, and in which it prepares them
    ddp       one training shared by all GPUs; on a CPU by two workers (gloo)
    search    trials of Ray Tune, four on each GPU at once, beside as many one after the other
    serving   requests/s of one process with dynamic batches, without HTTP: the GPU beside the engine of `cellnet serve`
    score     seconds until a counter reaches a set error on unseen frames, beside the CPU

`speed` of compiled networks needs a C compiler. Of a training's epochs the first ones are left out.
"""

import argparse
import asyncio
import functools
import gc
import json
import math
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it runs from anywhere

import cv2
import numpy as np
import ray
import ray.tune
import torch
from joblib import cpu_count
from torch.utils.flop_counter import FlopCounterMode

from cellnet.bank.frames import Frame
from cellnet.cli.parsing import Parser
from cellnet.config.train import Augment, ModelSpec, Preprocess, TrainConfig
from cellnet.config.tune import TuneConfig
from cellnet.errors import CellnetError, ConfigError
from cellnet.images.file import ImageFile
from cellnet.networks.architectures import resolve
from cellnet.networks.weights import fresh_network
from cellnet.prediction.engines import engine_of, load_model
from cellnet.prediction.model import FrameModel
from cellnet.prediction.predictor import Predictor
from cellnet.registry.records import ModelVersion
from cellnet.registry.registry import Registry
from cellnet.reports.pages import TEMPLATES, Headline, Plot, plot
from cellnet.sample import LINEAGES, draw_frame
from cellnet.store.objects import Store
from cellnet.store.place import place_of
from cellnet.tasks import TASKS, Task
from cellnet.training.batches import to_tensors
from cellnet.training.fit import fit, seed_everything
from cellnet.training.losses import criterion_of
from cellnet.training.shards import SPLITS, TILES_A_READ
from cellnet.training.state import TrainState
from cellnet.training.tiles import Batch, Variants, make_tiles
from pipelines import cluster, room
from pipelines.runs import new_run
from pipelines.sweeps import Sweep, trials_of
from pipelines.train import model_name, read_tiles, run_training
from pipelines.trials import trainable
from serve.answering import Answerer
from serve.limits import Limits
from serve.meters import Meters
from serve.models import Shelf
from tests.benchmarks.training import Drawn, drawn
from tests.benchmarks.untrained import drawn as drawn_image
from tests.benchmarks.untrained import publish
from tests.factories import in_memory

TRIALS_A_GPU: Final = 4
PER_WORKER: Final = 32
"""Tiles a step and worker, where several share a training."""
PREPROCESS: Final = Preprocess.model_validate(
    {"tile_px": (200, 200), "intensity": {"rule": "range", "low": 0, "high": 255}}
)
WAYS: Final = {"f32": ("f32", False), "bf16": ("bf16", False), "bf16 compiled": ("bf16", True)}
"""Precision, and whether compiled."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is done."""

    frames: int
    """Drawn, of four tiles each and as many shifted ones; a fifth more are unseen."""
    wells: int
    """Of a lineage, in the bank."""
    epochs: int
    left_out: int
    """Of these, at the beginning."""
    batches: tuple[int, ...]
    """Tiles a step."""
    model: ModelSpec
    tasks: tuple[Task, ...]
    """That are served together."""
    clients: tuple[int, ...]
    serving_s: float
    mae: float
    """What the counter is to reach."""
    score_epochs: int
    """In how many epochs at most."""


LARGE: Final = Size(
    frames=256,
    wells=24,
    epochs=6,
    left_out=2,
    batches=(16, 128),
    model=ModelSpec(),
    tasks=("classify", "count"),
    clients=(1, 16, 64),
    serving_s=5,
    mae=1.5,
    score_epochs=20,
)
SMALL: Final = Size(
    frames=4,
    wells=3,
    epochs=2,
    left_out=1,
    batches=(16,),
    model=ModelSpec(width=4, depth=2),
    tasks=("count",),
    clients=(16,),
    serving_s=1,
    mae=20,
    score_epochs=2,
)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A line of the table."""

    measurement: str
    what: str
    value: float | None
    """None where there is nothing to measure, which `note` explains."""
    unit: str
    note: str = ""

    @property
    def shown(self) -> str:
        """The value with its unit."""
        return "–" if self.value is None else f"{rounded(self.value)} {self.unit}"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was found so far."""

    machine: str
    figures: tuple[Figure, ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    """Measurements, and why."""

    def of(self, measurement: str) -> list[Figure]:
        """The figures of a measurement that have a value."""
        return [one for one in self.figures if one.measurement == measurement and one.value is not None]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What is measured on, and what several measurements need."""

    device: torch.device
    size: Size
    compiled: bool
    """Whether compiled networks are measured too."""
    folder: Path

    @property
    def gpus(self) -> int:
        """Of the node."""
        return torch.cuda.device_count() if self.device.type == "cuda" else 0

    @functools.cached_property
    def tiles(self) -> tuple[Batch, Batch]:
        """Training tiles and unseen ones, in memory."""
        unseen = max(2, self.size.frames // 5)
        return drawn_tiles(range(self.size.frames)), drawn_tiles(range(10_000, 10_000 + unseen))

    @functools.cached_property
    def shards(self) -> Drawn:
        """A bank with the shards of a counter, and Ray to read them."""
        cluster.connect()
        config = TrainConfig(
            task="count",
            folds=0,
            model=self.size.model,
            epochs=self.size.epochs,
            augment=Augment(shares=(1.0,), shifts=3 if self.size is LARGE else 0),
        )
        return drawn(self.folder, config, wells=self.size.wells)

    @functools.cache  # noqa: B019 - there is one
    def peak(self, precision: str) -> float:
        """FLOP/s of large matrices."""
        return peak_of(precision, self.device)

    @functools.cache  # noqa: B019 - there is one
    def by_workers(self, workers: int) -> tuple[float, float]:
        """Tiles/s of a counter that so many workers train from Ray Data, and the share of the time that they wait."""
        given = self.shards
        config = given.plan.config.model_copy(update={"batch_size": PER_WORKER * workers})
        plan = replace(given.plan, config=config)
        run = new_run(self.runs, config, bank_digest=given.bank.digest, model=model_name(config))
        trained = run_training(plan, given.shards, run, workers=workers, use_gpu=self.gpus > 0, say=tell)
        epochs = trained.history[self.size.left_out :]
        return (
            statistics.median(epoch["tiles_per_s"] for epoch in epochs),
            statistics.median(epoch["waiting"] for epoch in epochs),
        )

    @property
    def runs(self) -> Store:
        """Where trainings leave their checkpoints."""
        (self.folder / "runs").mkdir(exist_ok=True)
        return place_of(self.folder / "runs").open()


def drawn_tiles(seeds: range) -> Batch:
    """Tiles of drawn frames of all lineages in turn, four of each frame's grid and four shifted."""
    rows: dict[str, list[Any]] = {"pixels": [], "label": [], "count": [], "cells": []}
    for seed in seeds:
        label = seed % len(LINEAGES)
        image = draw_frame(LINEAGES[label], np.random.default_rng(seed))
        height, width = image.image_HW.shape
        frame = Frame(
            frame=f"{seed:064x}", source="drawn", height=height, width=width, centres=image.centres_N2.tolist()
        )
        for tile in make_tiles(frame, image.image_HW, PREPROCESS, Variants(shifts=1), label=label, seed=seed):
            for name, value in zip(rows, (tile.pixels_HW, label, tile.count, tile.cells_hw), strict=True):
                rows[name].append(value)
    kinds = {"pixels": np.uint8, "label": np.int64, "count": np.float32, "cells": np.uint8}
    return cast(Batch, {name: np.array(values, kinds[name]) for name, values in rows.items()})


def config_of(task: Task, model: ModelSpec, **choices: Any) -> TrainConfig:
    """A training with a task's network for frames of several tiles."""
    return TrainConfig(**{"task": task, "folds": 0, "model": resolve(model, task, frame_tiles=4), **choices})


def trained(
    config: TrainConfig,
    tiles: Batch,
    device: torch.device,
    *,
    unseen: Batch | None = None,
    on_epoch: Callable[[TrainState], None] = lambda state: None,
) -> TrainState:
    """How a training by `cellnet.training.fit` ends, whose tiles are in memory."""
    seed_everything(config.seed)
    mean_count = float(tiles["count"].mean())
    network = fresh_network(config, len(LINEAGES) * (config.task == "classify"), mean_count).to(device)
    states: list[TrainState] = []

    def keep(state: TrainState) -> None:
        states[:] = [state]
        on_epoch(state)

    fit(
        network,
        config,
        PREPROCESS,
        criterion=criterion_of(config, mean_count=mean_count),
        train_batches=in_memory(of_task(tiles, config.task), TILES_A_READ, seed=config.seed),
        test_batches=(lambda: [of_task(unseen, config.task)]) if unseen else None,
        tiles=len(tiles["label"]),
        on_epoch=keep,
    )
    return states[-1]


def of_task(tiles: Batch, task: Task) -> Batch:
    """The columns that a task's shards have."""
    return cast(Batch, {name: column for name, column in tiles.items() if name != "cells" or task == "count"})


# The measurements


def measure_peak(bench: Bench) -> Iterator[Figure]:
    """A product of large matrices."""
    for precision in ("f32", "bf16"):
        side = side_of(bench.device)
        note = f"matrices of {side:,}×{side:,}"
        if precision == "f32" and in_tf32(bench.device):
            note += ", in TF32, as convolutions in float32 are computed on this GPU"
        yield Figure(measurement="peak", what=precision, value=bench.peak(precision) / 1e12, unit="TFLOP/s", note=note)


def measure_speed(bench: Bench) -> Iterator[Figure]:
    """Trainings of both tasks in each way of computing."""
    tiles, _ = bench.tiles
    for task in TASKS:
        flops = flops_a_tile(config_of(task, bench.size.model), of_task(tiles, task))
        for batch_size in bench.size.batches:
            for way, (precision, compiled) in WAYS.items():
                what = f"{task}, {way}, {batch_size} tiles a step"
                if compiled and (why := why_not_compiled(bench)):
                    yield Figure(measurement="speed", what=what, value=None, unit="tiles/s", note=why)
                    continue
                choices = {"epochs": bench.size.epochs, "batch_size": batch_size, "precision": precision}
                config = config_of(task, bench.size.model, compile=compiled, **choices)
                forget(bench.device)
                history = trained(config, tiles, bench.device).history[bench.size.left_out :]
                speed = statistics.median(epoch.tiles_per_s for epoch in history)
                note = f"{flops / 1e9:.2f} GFLOP a tile, {speed * flops / bench.peak(precision):.1%} of the peak"
                if bench.gpus:
                    note += f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
                yield Figure(measurement="speed", what=what, value=speed, unit="tiles/s", note=note)


def measure_input(bench: Bench) -> Iterator[Figure]:
    """A training by Ray Train, fed by Ray Data."""
    speed, waiting = bench.by_workers(1)
    what = f"one worker, {PER_WORKER} tiles a step"
    yield Figure(
        measurement="input",
        what=f"waiting for Ray Data, {what}",
        value=100 * waiting,
        unit="%",
        note=f"at {speed:,.0f} tiles/s; while the process waits, a GPU may still have steps to do",
    )
    tiles, _ = bench.tiles
    batch = cast(Batch, {name: column[:PER_WORKER] for name, column in tiles.items()})
    took_s = seconds_of(lambda: to_tensors(batch, PREPROCESS, bench.device), bench.device)
    yield Figure(
        measurement="input",
        what=f"normalising and copying to the device, {what}",
        value=100 * took_s / len(batch["label"]) * speed,
        unit="%",
        note=f"{1e3 * took_s:.1f} ms a step of the same process, which is no waiting by cellnet's own account",
    )


def measure_ddp(bench: Bench) -> Iterator[Figure]:
    """The same training by all GPUs; on a CPU by two workers."""
    workers, kind = (bench.gpus, "GPU") if bench.gpus else (2, "worker")
    what = f"{workers} {kind}s, {PER_WORKER} tiles a step and {kind}"
    if workers == 1:
        yield Figure(measurement="ddp", what="one GPU", value=None, unit="tiles/s", note="there is no second to add")
        return
    alone, _ = bench.by_workers(1)
    speed, waiting = bench.by_workers(workers)
    note = f"{speed / alone / workers:.2f} of {workers} times one ({alone:,.0f}); {waiting:.1%} waiting for data"
    if not bench.gpus:
        note += "; on a CPU (gloo), whose cores they share: says that it works, not how it scales"
    yield Figure(measurement="ddp", what=what, value=speed, unit="tiles/s", note=note)


def measure_search(bench: Bench) -> Iterator[Figure]:
    """As many trials at once as have room, and one a GPU at a time."""
    share = 1 / TRIALS_A_GPU if bench.gpus else 0.0
    _ = bench.shards  # connects
    together = room.at_once(share)
    number = max(together, 2)
    where = f"on {share:g} of a GPU each" if bench.gpus else "on a CPU each"
    beside_s = search_s(bench, number, gpus=float(bench.gpus > 0), at_once=max(1, bench.gpus))
    took_s = search_s(bench, number, gpus=share, at_once=together)
    after = f"{bench.gpus} at a time, a GPU each" if bench.gpus > 1 else "one after the other"
    yield Figure(
        measurement="search",
        what=f"{number} trials, {together} at once, {where}",
        value=took_s,
        unit="s",
        note=f"{beside_s / took_s:.2f} times as fast as {after} ({beside_s:.0f} s); with the start of their processes",
    )


def measure_serving(bench: Bench) -> Iterator[Figure]:
    """One process that answers many clients, on the device and by the engine that `cellnet serve` takes."""
    registry = Registry.open(str(bench.folder / "registry"))
    for task in bench.size.tasks:
        publish(registry, task)
    cv2.setNumThreads(1)  # as in the service
    ways: dict[str, Callable[[ModelVersion], FrameModel]] = {
        "engine of cellnet serve, on the CPU": lambda version: load_model(registry, version, threads=cpu_count()),
        f"torch, on the {name_of(bench.device)}": lambda version: on_device(registry, version, bench.device),
    }
    for way, load in ways.items():
        meters = Meters()
        shelf = Shelf(registry, load, meters=meters)
        answerer = Answerer(shelf, Limits(), meters)
        engine = "/".join(sorted({engine_of(served.model) for served in shelf.champions}))
        for clients in bench.size.clients:
            before = batches_of(meters)
            took_s, all_s = asyncio.run(ask(answerer, clients, bench.size.serving_s))
            tiles, batches = (now - then for now, then in zip(batches_of(meters), before, strict=True))
            yield Figure(
                measurement="serving",
                what=f"{way}, {clients} client{'s' * (clients > 1)}",
                value=len(took_s) / all_s,
                unit="requests/s",
                note=f"{engine}, {1e3 * statistics.median(took_s):.1f} ms (p50), {tiles / batches:.1f} tiles a batch",
            )
        del answerer, shelf
        forget(bench.device)


def measure_score(bench: Bench) -> Iterator[Figure]:
    """A counter until it is as good as was set."""
    devices = [bench.device] if bench.device.type == "cpu" else [bench.device, torch.device("cpu")]
    took: list[float] = []
    for device in devices:
        forget(bench.device)
        seconds, epochs, best = seconds_to(bench.size.mae, bench, device)
        took.append(seconds)
        reached = best <= bench.size.mae
        note = (
            f"{epochs} epoch{'s' * (epochs > 1)}, MAE {best:.2f}"
            if reached
            else f"not reached in {epochs} epochs: MAE {best:.2f}"
        )
        if len(took) == 2 and reached:
            note += f"; the GPU takes {took[0] / took[1]:.2f} of that"
        yield Figure(
            measurement="score",
            what=f"count to an MAE of {bench.size.mae:g} on unseen frames, on the {name_of(device)}",
            value=seconds if reached else None,
            unit="s",
            note=note,
        )


Measure = Callable[[Bench], Iterator[Figure]]
MEASUREMENTS: Final[dict[str, Measure]] = {
    "peak": measure_peak,
    "speed": measure_speed,
    "input": measure_input,
    "ddp": measure_ddp,
    "search": measure_search,
    "serving": measure_serving,
    "score": measure_score,
}


# What they are made of


def side_of(device: torch.device) -> int:
    """Of matrices that keep a device busy."""
    return 8192 if device.type == "cuda" else 512


def in_tf32(device: torch.device) -> bool:
    """Whether convolutions in float32 are computed in TF32: torch's default on GPUs that can (Ampere and later)."""
    able = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return able and bool(torch.backends.cudnn.allow_tf32)


@contextmanager
def as_convolutions(device: torch.device) -> Iterator[None]:
    """Products of matrices in float32 are computed as convolutions are; torch's default is more exact, and slower."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = in_tf32(device)
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def peak_of(precision: str, device: torch.device) -> float:
    """FLOP/s of a product of large matrices: what of the device's peak can be had at all."""
    side = side_of(device)
    kind = {"f32": torch.float32, "bf16": torch.bfloat16}[precision]
    one, other = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
    with as_convolutions(device):
        return 2 * side**3 / seconds_of(lambda: one @ other, device)


def seconds_of(work: Callable[[], object], device: torch.device, *, runs: int = 20) -> float:
    """Seconds that some work takes on the device, from runs after a few that warm it up."""
    for _ in range(3):
        work()
    wait_for(device)
    start_s = time.perf_counter()
    for _ in range(runs):
        work()
    wait_for(device)
    return (time.perf_counter() - start_s) / runs


def wait_for(device: torch.device) -> None:
    """Until the device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def forget(device: torch.device) -> None:
    """Free what an earlier measurement left in the device's memory, and what was compiled for it."""
    if "torch._dynamo" in sys.modules:  # seconds to import
        torch._dynamo.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def flops_a_tile(config: TrainConfig, tiles: Batch) -> float:
    """FLOPs of a training step for each tile, forward and backward: of convolutions and products of matrices alone."""
    few = cast(Batch, {name: column[:2] for name, column in tiles.items()})
    network = fresh_network(config, len(LINEAGES) * (config.task == "classify")).train()
    input_B1HW, target = to_tensors(few, PREPROCESS, torch.device("cpu"))
    with FlopCounterMode(display=False) as counter:
        criterion_of(config)(network(input_B1HW), target).backward()
    return counter.get_total_flops() / len(input_B1HW)


def why_not_compiled(bench: Bench) -> str:
    """Why compiled networks are not measured; empty where they are."""
    if not bench.compiled:
        return "left out by --quick"
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        return "no C compiler on this machine, which compiling needs (apt-get install gcc)"
    return ""


def search_s(bench: Bench, number: int, *, gpus: float, at_once: int) -> float:
    """Seconds that trials take on Ray Tune, each with so many GPUs. Raises RuntimeError where one failed."""
    given = bench.shards
    train = given.plan.config.model_copy(update={"compile": False})  # would take longer than the trials
    rates = [2e-3 * (1 + place) / number for place in range(number)]  # up to the default
    config = TuneConfig(train=train, space={"learning_rate": tuple(rates)}, gpus=gpus, stop_early=False)
    run = new_run(bench.runs, config, bank_digest=given.bank.digest, model=model_name(train))
    sweep = Sweep(run=run, config=config, plan=replace(given.plan, config=train), shards=given.shards)
    data = {split: read_tiles(given.shards, split, 1) for split in SPLITS}
    chosen = [{"learning_rate": rate} for rate in rates]
    start_s = time.perf_counter()
    cluster.run_trials(
        trainable(sweep, data),
        {"settings": ray.tune.grid_search(chosen), "seed": 0},
        runs=run.runs,
        folder=run.name,
        metric=sweep.steering[0],
        mode="min",
        max_concurrent_trials=at_once,
        reuse_actors=True,
    )
    took_s = time.perf_counter() - start_s
    whole = [trial for trial in trials_of(run) if trial.whole and not trial.error]
    if len(whole) < number:
        raise RuntimeError(f"of {number} trials {number - len(whole)} did not come to their end; see {run.uri}")
    return took_s


def on_device(registry: Registry, version: ModelVersion, device: torch.device) -> FrameModel:
    """A version in torch on a device, that has answered a full batch once."""
    model = Predictor.load(registry, version.ref)
    model.network.to(device)
    model.answer(drawn_image(0))
    return model


def batches_of(meters: Meters) -> tuple[float, float]:
    """Tiles, and batches of them, that all models saw so far."""
    samples = [one for family in meters.registry.collect() for one in family.samples]
    tiles, batches = (
        sum(one.value for one in samples if one.name == f"cellnet_batch_tiles_{what}") for what in ("sum", "count")
    )
    return tiles, batches


async def ask(answerer: Answerer, clients: int, seconds: float) -> tuple[list[float], float]:
    """Seconds of every request of so many clients, who each ask again as soon as they are answered, and of all."""
    data = cv2.imencode(".png", drawn_image(99))[1].tobytes()
    took_s: list[float] = []

    async def client(name: str, until_s: float) -> None:
        while (start_s := time.perf_counter()) < until_s:
            await answerer.predict(ImageFile("image.png", data), answerer.how(name))
            took_s.append(time.perf_counter() - start_s)

    for span_s in (min(1.0, seconds), seconds):  # the first warms up
        took_s.clear()
        start_s = time.perf_counter()
        await asyncio.gather(*(client(str(number), start_s + span_s) for number in range(clients)))
    return took_s, time.perf_counter() - start_s


class _Reached(Exception):  # noqa: N818 - not an error
    """The counter is good enough."""


def seconds_to(mae: float, bench: Bench, device: torch.device) -> tuple[float, int, float]:
    """Seconds until a counter's error is so small, as it is trained by default; its epochs, and the smallest error."""
    tiles, unseen = bench.tiles
    errors: list[float] = []

    def look(state: TrainState) -> None:
        errors.append(state.history[-1].test["mae"])
        if errors[-1] <= mae:
            raise _Reached

    start_s = time.perf_counter()
    with suppress(_Reached):
        config = config_of("count", bench.size.model, epochs=bench.size.score_epochs)
        trained(config, tiles, device, unseen=unseen, on_epoch=look)
    return time.perf_counter() - start_s, len(errors), min(errors)


# What is told of them


def rounded(value: float) -> str:
    """With three digits, or whole.

    >>> rounded(12345.6), rounded(12.345), rounded(0.01234)
    ('12,346', '12.3', '0.0123')
    """
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{max(0, digits)}f}"


def name_of(device: torch.device) -> str:
    return "CPU" if device.type == "cpu" else "GPU"


def machine_of(bench: Bench) -> str:
    """The machine in a line."""
    cpus = f"{cpu_count()} CPUs, load average at the start {os.getloadavg()[0]:.1f}, torch {torch.__version__}"
    if not bench.gpus:
        return f"no GPU: measured on the CPU, in small; {cpus}"
    facts = torch.cuda.get_device_properties(bench.device)
    return (
        f"{bench.gpus} × {facts.name}, {facts.total_memory / 2**30:.0f} GiB, compute capability "
        f"{facts.major}.{facts.minor}, CUDA {torch.version.cuda}; {cpus}"
    )


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def rows_of(report: Report) -> list[list[str]]:
    """The table, its heads first."""
    rows = [["measurement", "what", "came out", "note"]]
    rows += [[one.measurement, one.what, one.shown, one.note] for one in report.figures]
    return rows + [[name, "failed", "–", why] for name, why in report.failed]


def markdown(report: Report) -> str:
    """The table for `tests/README.md`."""
    head, *rows = ([cell.replace("|", "/") for cell in row] for row in rows_of(report))
    lines = [report.machine, "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def html(report: Report) -> str:
    """The page, like those of evaluations and searches."""
    template = TEMPLATES.from_string((Path(__file__).parent / "templates" / "gpu.html").read_text(encoding="utf-8"))
    about = {name: measure.__doc__ for name, measure in MEASUREMENTS.items()}
    return template.render(
        title="What GPUs do for cellnet",
        lead=report.machine,
        headlines=headlines(report),
        failed=[f"{name} failed: {why}" for name, why in report.failed],
        plots=plots(report),
        rows=rows_of(report),
        about=about,
    )


def headlines(report: Report) -> list[Headline]:
    """The best of each measurement; of times the shortest."""
    best = {name: max(report.of(name), key=lambda one: one.value or 0, default=None) for name in MEASUREMENTS}
    best |= {name: min(report.of(name), key=lambda one: one.value or 0, default=None) for name in ("search", "score")}
    return [Headline(name, one.shown, one.what) for name, one in best.items() if one]


def plots(report: Report) -> list[Plot]:
    """Bars of the measurements that have several figures of one unit."""
    titles = {"speed": "Tiles a second in training.", "serving": "Requests a second."}
    return [
        plot(functools.partial(draw_bars, figures=report.of(name)), words)
        for name, words in titles.items()
        if report.of(name)
    ]


def draw_bars(axis: Any, figures: list[Figure]) -> None:
    """A bar a figure, the first on top."""
    bars = axis.barh([one.what for one in figures], [one.value for one in figures], color="#2f7ebc")
    axis.bar_label(bars, [rounded(one.value or 0) for one in figures], padding=3, fontsize=8)
    axis.invert_yaxis()
    axis.tick_params(axis="y", labelsize=7)
    axis.margins(x=0.15)
    axis.set_xlabel(figures[0].unit)


def as_json(report: Report) -> dict[str, Any]:
    """For programs."""
    return {
        "machine": report.machine,
        "figures": [asdict(one) for one in report.figures],
        "failed": dict(report.failed),
    }


def measured(report: Report, name: str, bench: Bench) -> Report:
    """The report with what a measurement came to; where it failed, with what there was till then, and why."""
    figures: list[Figure] = []
    failed = report.failed
    try:
        for figure in MEASUREMENTS[name](bench):
            figures.append(figure)
            tell(f"{name}: {figure.what}: {figure.shown} ({figure.note})")
    except Exception as error:  # whatever it is, the others are measured
        why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        tell(f"{name} failed: {why}")
        failed = (*failed, (name, why))
    forget(bench.device)
    return replace(report, figures=(*report.figures, *figures), failed=failed)


def write(report: Report, out: Path) -> None:
    """Write table and page. Raises ConfigError where they cannot be written."""
    try:
        (out / "gpu.md").write_text(markdown(report), encoding="utf-8")
        (out / "gpu.html").write_text(html(report), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write into {out}: {error.strerror}; name another folder") from error


def bench_of(device: str, *, quick: bool, folder: Path) -> Bench:
    """What to measure on. Raises ConfigError where there is no GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"torch {torch.__version__} sees no GPU here (nvidia-smi shows what the driver sees); "
            "--device cpu measures in small on the CPU"
        )
    size = LARGE if device == "cuda" and not quick else SMALL
    return Bench(device=torch.device(device), size=size, compiled=not quick, folder=folder)


def run(out: Path, *, device: str, only: list[str] | None = None, quick: bool = False) -> Report:
    """Measure, and write what comes out into a folder. Raises ConfigError as `bench_of` and `write` do."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix="gpu-", dir=out, ignore_cleanup_errors=True)
    except OSError as error:
        raise ConfigError(f"cannot write into {out}: {error.strerror}; name another folder") from error
    with scratch as folder:
        bench = bench_of(device, quick=quick, folder=Path(folder).absolute())
        report = Report(machine=machine_of(bench))
        for name in MEASUREMENTS:
            if not only or name in only:
                report = measured(report, name, bench)
                write(report, out)
    return report


def main(words: Sequence[str] | None = None) -> int:
    """Run the command and give its exit status: 0, 1 where a measurement failed, 2 for what the user can put right."""
    parser = Parser(
        prog="tests/benchmarks/gpu.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT", nargs="?", default=Path())
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="where to measure (cuda)")
    parser.add_argument("--only", action="append", choices=list(MEASUREMENTS), metavar="NAME", help="repeatable")
    parser.add_argument("--quick", action="store_true", help="in small, and nothing compiled")
    parser.add_argument("--json", action="store_true", help="print figures for programs, not the table")
    try:
        given = parser.parse_args(words)
        report = run(given.out, device=given.device, only=given.only, quick=given.quick)
    except CellnetError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    print(json.dumps(as_json(report), indent=1) if given.json else markdown(report).rstrip())
    return 1 if report.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
