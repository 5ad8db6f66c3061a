"""`cellnet train` beside hand-written PyTorch loops over tensors in memory, and one worker beside two.

    python tests/benchmarks/training.py [OUT]      about twenty minutes on two cores

OUT (or this folder) gets `training.md`. A counter with the default network is trained on drawn tiles. What is
compared takes turns, so that a busy machine slows all sides; ratios are medians of the turns. Ray runs already, with
two CPUs. Of a training's epochs the first is left out; its speed is that of the steps with all that feeds them,
without scoring and checkpoints, which the loops have not. All sides draw variants and take steps alike:

    same tricks   channels_last, bfloat16 where cellnet takes it, no reading of the loss before the epoch is over
    naive         NCHW, float32, the loss read after every step

Start-up is from the command to the first step, with shards made and Ray running.

Then the same training, of the same total batch, is done with one, two and four workers, by several seeds each, so that
what the number of workers changes stands beside what the seed does.
"""

import argparse
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple, cast

import numpy as np
import ray
import torch

from cellnet.bank.bank import Bank
from cellnet.config.train import Augment, TrainConfig
from cellnet.networks.weights import fresh_network
from cellnet.places import Places
from cellnet.registry.registry import Registry
from cellnet.sample import write_sample
from cellnet.store.place import place_of
from cellnet.training.batches import Target, to_tensors, vary
from cellnet.training.fit import uses_bf16
from cellnet.training.losses import criterion_of
from cellnet.training.plan import Plan, make_plan
from cellnet.training.shards import Shards
from cellnet.training.tiles import Batch
from pipelines import cluster
from pipelines.ingest import ingest
from pipelines.shards import batches, dataset_of, make_shards

CPUS: Final = 2
TURNS: Final = 3
EPOCHS: Final = 3
SEEDS: Final = 3
LONGER: Final = 10
"""Epochs of the trainings whose scores are compared."""
CONFIG: Final = TrainConfig(task="count", folds=0, epochs=EPOCHS, augment=Augment(shares=(1.0,), shifts=3))


class Seen(NamedTuple):
    """What a training by `cellnet train` was like."""

    tiles_per_s: float
    waiting: float
    """Share of the time."""
    start_s: float
    mae: float
    """Of the best epoch, on the test split."""


class Drawn(NamedTuple):
    """What is trained on."""

    bank: Bank
    plan: Plan
    shards: Shards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", nargs="?", default=Path())
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    lines = [f"{CPUS} of {os.cpu_count()} cores; load average at the start {os.getloadavg()[0]:.1f}.", ""]
    start_ray()
    with tempfile.TemporaryDirectory(prefix="training-", dir=out) as folder:
        bank, plan, shards = drawn(Path(folder))
        lines += measure(Path(folder), bank, plan, shards)
        lines += agreement(Path(folder), bank)
    (out / "training.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def start_ray() -> None:
    """A cluster of this process's own that commands join, whose workers are as urgent as a loop of this process."""
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - the name is Ray's
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    ray.init(address="local", num_cpus=CPUS, log_to_driver=False, logging_level="ERROR")
    cluster.quiet()


def drawn(folder: Path, config: TrainConfig = CONFIG, *, wells: int = 8) -> Drawn:
    """A bank of drawn frames, of so many wells a lineage, and their tiles."""
    manifest = write_sample(folder / "images", wells_per_lineage=wells)
    bank = ingest(manifest, Places(bank=place_of(folder / "bank")))[0]
    plan = make_plan(bank, config)
    return Drawn(bank, plan, make_shards(bank, plan))


def agreement(folder: Path, bank: Bank) -> list[str]:
    """The table of scores by number of workers and seed."""
    lines = [
        "",
        f"Test MAE after {LONGER} epochs, by seed:",
        "",
        f"| workers | {' | '.join(f'seed {seed}' for seed in range(SEEDS))} | mean |",
        "|---" * (SEEDS + 2) + "|",
    ]
    for workers in (1, 2, 4):
        found = [
            train(folder, bank, workers=workers, sets=[f"epochs={LONGER}", f"seed={seed}"]).mae for seed in range(SEEDS)
        ]
        lines.append(f"| {workers} | {' | '.join(f'{mae:.3f}' for mae in found)} | {statistics.mean(found):.3f} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def measure(folder: Path, bank: Bank, plan: Plan, shards: Shards) -> list[str]:
    """The table of speeds, from turns of all sides."""
    tiles = tiles_of(shards)
    torch.set_num_threads(CPUS)
    alone, both, tricks, naive = [], [], [], []
    for turn in range(TURNS):
        alone.append(train(folder, bank, workers=1))
        tricks.append(loop(plan, shards, tiles, tricks=True))
        naive.append(loop(plan, shards, tiles, tricks=False))
        both.append(train(folder, bank, workers=CPUS))
        print(
            f"turn {turn + 1}: {alone[-1]}, {tricks[-1]:.1f}, {naive[-1]:.1f}, {both[-1]}", file=sys.stderr, flush=True
        )
    speed, speed_of_two = ([seen.tiles_per_s for seen in side] for side in (alone, both))
    said = f"{shards.rows['train']:,} tiles an epoch, batch {CONFIG.batch_size}"
    return [
        f"`cellnet train` with one worker of {CPUS} threads, {said}.",
        "",
        "| beside | its tiles/s | cellnet's tiles/s | ratio | aim |",
        "|---|---|---|---|---|",
        row("a loop with the same tricks", tricks, speed, 0.95),
        row("a naive loop", naive, speed, 1.4),
        row(f"itself: {CPUS} workers of one thread", speed, speed_of_two, 0.9),
        "",
        "| | one worker | two workers | aim |",
        "|---|---|---|---|",
        f"| waiting for data | {middle(alone, 'waiting'):.1%} | {middle(both, 'waiting'):.1%} | 3 % |",
        f"| command to first step | {middle(alone, 'start_s'):.1f} s | {middle(both, 'start_s'):.1f} s | 10 s |",
    ]


def row(name: str, other: list[float], ours: list[float], aim: float) -> str:
    ratio = statistics.median(one / two for one, two in zip(ours, other, strict=True))
    return f"| {name} | {statistics.median(other):.1f} | {statistics.median(ours):.1f} | {ratio:.2f} | {aim} |"


def middle(side: list[Seen], what: str) -> float:
    return statistics.median(getattr(seen, what) for seen in side)


def train(folder: Path, bank: Bank, *, workers: int, sets: Sequence[str] = (f"epochs={EPOCHS}",)) -> Seen:
    """Run `cellnet train` with all threads shared out, and see how it went."""
    registry = folder / f"registry-{secrets.token_hex(4)}"
    sets = [*sets, "folds=0", "augment.shares=[1.0]", "augment.shifts=3", f"threads={max(1, CPUS // workers)}"]
    words = [sys.executable, "-m", "cellnet", "train", bank.store.uri, "--task", "count"]
    words += [
        "--registry",
        str(registry),
        "--workers",
        str(workers),
        *(part for one in sets for part in ("--set", one)),
    ]
    address = ray.get_runtime_context().gcs_address
    start_s = time.perf_counter()
    first_epoch_s = 0.0
    with subprocess.Popen(
        words, env={**os.environ, "RAY_ADDRESS": address}, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("epoch   1/"):
                first_epoch_s = time.perf_counter() - start_s
    assert process.returncode == 0, "".join(said)
    card = Registry.open(str(registry)).resolve("regressor@1").card
    history = card.history
    return Seen(
        tiles_per_s=statistics.median(epoch["tiles_per_s"] for epoch in history[1:]),
        waiting=statistics.median(epoch["waiting"] for epoch in history[1:]),
        start_s=first_epoch_s - history[0]["seconds"],
        mae=card.scores["test"]["mae"],
    )


def tiles_of(shards: Shards) -> Batch:
    """Every training tile with what is true of it."""
    read = list(batches(dataset_of(shards, "train"), 256, seed=None)(0))
    return cast(Batch, {name: np.concatenate([batch[name] for batch in read]) for name in read[0]})


def loop(plan: Plan, shards: Shards, tiles: Batch, *, tricks: bool) -> float:
    """Tiles a second of the second epoch of a hand-written training, with all tiles as float32 tensors in memory."""
    torch.manual_seed(0)
    cpu = torch.device("cpu")
    network = fresh_network(CONFIG, 0, shards.mean_count)
    if not tricks:
        network = network.to(memory_format=torch.contiguous_format)
    input_N1HW, target = to_tensors(tiles, plan.preprocess, cpu)
    input_N1HW = input_N1HW.contiguous()
    rows_n = len(input_N1HW)
    steps = -(-rows_n // CONFIG.batch_size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=CONFIG.learning_rate, weight_decay=CONFIG.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=CONFIG.learning_rate, total_steps=2 * steps + 1)
    criterion = criterion_of(CONFIG, mean_count=shards.mean_count)
    generator = torch.Generator().manual_seed(0)
    network.train()
    for _ in range(2):
        start_s = time.perf_counter()
        total = torch.zeros(())
        for rows in torch.randperm(rows_n, generator=generator).split(CONFIG.batch_size):
            input_B1HW = input_N1HW[rows]
            if tricks:
                input_B1HW = input_B1HW.to(memory_format=torch.channels_last)
            of_batch = Target(*(values[rows] for values in target if values is not None))
            how, preprocess = plan.config.augment, plan.preprocess
            input_B1HW, of_batch = vary(input_B1HW, of_batch, how, generator, task="count", preprocess=preprocess)
            with torch.autocast("cpu", torch.bfloat16, enabled=tricks and uses_bf16(CONFIG, cpu)):
                output = network(input_B1HW)
            loss = criterion(output.float(), of_batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            total += loss.detach() if tricks else loss.item()
        seconds = time.perf_counter() - start_s
    return rows_n / seconds


if __name__ == "__main__":
    main()
