"""Shards beside plain loops over the same frames: how fast they are written and read, and what more tiles cost.

    python tests/benchmarks/shards.py [OUT]      about a quarter of an hour on two cores, with 12 GB of disk below OUT

OUT (or this folder) gets `shards.md`. Frames are drawn: fields of `cellnet/sample.py`, moved, lit and made noisy
anew for each frame. What is compared takes turns, so that a busy machine slows both sides; ratios are medians of
the turns. Ray has two CPUs throughout.

Writing: `make_shards`, all that it does, beside one thread that decodes, stretches, crops, resizes, turns and writes
Parquet with the same compression. Both count grey values to find percentiles. Reading: `batches` over shards that lie
in Ray's object store, as a training has them, beside a torch DataLoader of two workers that decodes and resizes a
frame for each tile. Growth: every size in processes of its own, with 80 MB for Ray's object store.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import ray
import torch
from numpy.typing import NDArray

from cellnet.bank.bank import Bank
from cellnet.bank.frames import Frame
from cellnet.config.choices import NETWORK_PX, PAPER_SHARES
from cellnet.config.train import Augment, Preprocess, TrainConfig
from cellnet.images.tiles import cut
from cellnet.places import Places
from cellnet.sample import draw_frame
from cellnet.store.place import place_of
from cellnet.training.plan import make_plan, preprocess_for
from cellnet.training.shards import Shards
from cellnet.training.tiles import crop_share
from pipelines import cluster
from pipelines.ingest import ingest
from pipelines.shards import batches, dataset_of, make_shards

CPUS: Final = 2
ROUNDS: Final = 3
BATCH_SIZES: Final = (16, 64)
FIELD_PX: Final = 1080
SMALL_PX: Final = 220
STORE_BYTES: Final = 80_000_000
"""Of Ray's object store while growth is measured: the largest size is eight times as much."""
ROWS_A_FRAME: Final = 10.35
"""Of a frame of one tile, on average: 16 variants in the train split, one in the test split, none in the holdout."""


class Rate(NamedTuple):
    """Tiles a second of a plain loop and of Ray, a pair a turn."""

    plain: list[float]
    ray: list[float]

    @property
    def ratio(self) -> float:
        return statistics.median(ours / plain for plain, ours in zip(self.plain, self.ray, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", nargs="?", default=Path())
    parser.add_argument("--grow", type=Path, metavar="BANK", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.grow:
        print(json.dumps(grow(arguments.grow)))
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    lines = [f"{CPUS} of {os.cpu_count()} cores; load average at the start {os.getloadavg()[0]:.1f}."]
    with tempfile.TemporaryDirectory(prefix="shards-", dir=arguments.out) as folder:
        for section in (writing, reading, growth):
            lines += ["", *section(Path(folder))]
            print("\n".join(lines[-9:]), file=sys.stderr, flush=True)
    (arguments.out / "shards.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def start_ray(**options: Any) -> None:
    """A cluster of this process's own, whose workers are as urgent as a plain loop (Ray's default is less)."""
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - the name is Ray's
    ray.init(
        address="local", num_cpus=CPUS, include_dashboard=False, log_to_driver=False, logging_level="ERROR", **options
    )
    cluster.quiet()


def config_of(tile: Literal["auto", "frame"], seed: int = 0) -> TrainConfig:
    """The paper's 16 variants of every tile, all stored."""
    augment = Augment(shares=PAPER_SHARES, shifts=0, orientation="stored")
    return TrainConfig(task="classify", folds=0, tile=tile, augment=augment, seed=seed)


# Frames


def bank_of(folder: Path, frames: int, draw: Callable[[int], NDArray[Any]]) -> Bank:
    """A bank of so many drawn frames of two lineages in 40 wells, below `folder`."""
    folder.mkdir(parents=True)
    with ProcessPoolExecutor(CPUS) as pool:
        list(pool.map(partial(_save, folder, draw), range(frames), chunksize=16))
    with (folder / "manifest.csv").open("w", newline="") as file:
        rows = [(f"{n}.png", "AB"[n % 2], "", f"{'AB'[n % 2]}{n % 40}") for n in range(frames)]
        csv.writer(file).writerows([("image", "lineage", "count", "group"), *rows])
    return ingest(folder / "manifest.csv", Places(bank=place_of(folder / "bank")))[0]


def field(number: int) -> NDArray[np.uint16]:
    """A frame of 1080×1080 as a 12-bit camera records it, in 16 bits."""
    rng = np.random.default_rng(number)
    moved_HW = np.roll(_drawn(number % 4), rng.integers(0, FIELD_PX, 2), (0, 1)).astype(np.float32)
    noise_HW = rng.standard_normal(moved_HW.shape, np.float32)
    return np.clip(moved_HW * rng.uniform(8, 14) + 400 + 12 * noise_HW, 0, 4095).astype(np.uint16)


def small(number: int) -> NDArray[np.uint8]:
    """A frame of 220×220 in 8 bits."""
    rng = np.random.default_rng(number)
    top, left = rng.integers(0, FIELD_PX - SMALL_PX, 2)
    part_HW = _drawn(number % 4)[top : top + SMALL_PX, left : left + SMALL_PX]
    return np.clip(part_HW + rng.normal(0, 1.5, part_HW.shape), 0, 255).astype(np.uint8)


_fields: dict[int, NDArray[np.uint8]] = {}


def _drawn(number: int) -> NDArray[np.uint8]:
    """A drawn field, kept for the next frame of this process."""
    if number not in _fields:
        _fields[number] = draw_frame("THP1", np.random.default_rng(number), size_px=FIELD_PX).image_HW
    return _fields[number]


def _save(folder: Path, draw: Callable[[int], NDArray[Any]], number: int) -> None:
    cv2.imwrite(str(folder / f"{number}.png"), draw(number), [cv2.IMWRITE_PNG_COMPRESSION, 1])


# Writing


def writing(folder: Path) -> list[str]:
    """The table of writing; leaves the banks for reading."""
    start_ray()
    lines = [
        "| writing | frames | one thread, tiles/s | Ray on 2 CPUs, tiles/s | of twice one thread | aim |",
        "|---|---|---|---|---|---|",
    ]
    cases: list[tuple[str, str, int, Literal["auto", "frame"]]] = [
        ("1080×1080, 16 bits, whole frame", "fields", 900, "frame"),
        ("1080×1080, 16 bits, 25 tiles a frame", "cut-fields", 640, "auto"),
    ]
    for title, name, frames, tile in cases:
        bank = bank_of(folder / name, frames, field)
        rate = write(bank, tile, folder / "plain")
        plain, ours = statistics.median(rate.plain), statistics.median(rate.ray)
        lines.append(f"| {title} | {frames} | {plain:.0f} | {ours:.0f} | {rate.ratio / 2:.2f} | 0.8 |")
    ray.shutdown()
    return lines


def write(bank: Bank, tile: Literal["auto", "frame"], folder: Path) -> Rate:
    """Tiles a second of turns with crops of their own; `folder` is for the plain loop's files."""
    rate = Rate([], [])
    for turn in range(ROUNDS):
        config = config_of(tile, seed=turn)
        start_s = time.perf_counter()
        write_plainly(bank, config, folder)
        plain_s = time.perf_counter() - start_s
        start_s = time.perf_counter()
        shards = make_shards(bank, make_plan(bank, config))
        ray_s = time.perf_counter() - start_s
        print(f"{plain_s:.1f} s plainly, {ray_s:.1f} s on Ray", file=sys.stderr, flush=True)
        rows, mean = contents(folder)
        assert (rows, mean) == contents(Path(bank.store.uri) / shards.folder), "both did the same work"
        rate.plain.append(rows / plain_s)
        rate.ray.append(rows / ray_s)
    return rate


def contents(folder: Path) -> tuple[int, float]:
    """How many tiles the Parquet files below a folder hold, and their mean grey value."""
    rows = total = 0
    for batch in pyarrow.dataset.dataset(folder).to_batches(columns=["pixels"], batch_size=512):
        pixels = batch["pixels"].cast(pa.binary())
        rows += len(pixels)
        total += sum(int(np.frombuffer(tile.as_buffer(), np.uint8).sum(dtype=np.int64)) for tile in pixels)
    return rows, total / (rows * NETWORK_PX**2)


def write_plainly(bank: Bank, config: TrainConfig, folder: Path) -> None:
    """The same tiles as `make_shards` in one file a split, by one thread."""
    cv2.setNumThreads(1)
    folder.mkdir(exist_ok=True)
    preprocess = preprocess_for(config, bank.split("train"), bank.settings.intensity)
    label = {lineage: number for number, lineage in enumerate(bank.lineages)}
    columns = {"pixels": pa.binary(NETWORK_PX**2), "label": pa.int64(), "count": pa.float32()}
    columns |= {"frame": pa.string(), "orientation": pa.int16(), "share": pa.float32()}
    for split, shares, turns in (("train", PAPER_SHARES, 4), ("test", (1.0,), 1)):
        with pq.ParquetWriter(
            folder / f"{split}.parquet", pa.schema(columns), compression="zstd", use_dictionary=False
        ) as file:
            for frame in bank.split(split):
                data = np.fromfile(f"{bank.store.uri}/pixels/{frame.frame}.png", np.uint8)
                pixels = plain_tiles(frame, data, preprocess, shares=shares, turns=turns, seed=config.seed)
                boxes = len(pixels) // (len(shares) * turns)
                values = [
                    pa.FixedSizeBinaryArray.from_buffers(columns["pixels"], len(pixels), [None, pa.py_buffer(pixels)]),
                    np.full(len(pixels), label[frame.lineage or ""]),
                    np.full(len(pixels), np.nan, np.float32),
                    [frame.frame] * len(pixels),
                    np.tile(np.arange(turns, dtype=np.int16) * 90, boxes * len(shares)),
                    np.tile(np.repeat(np.float32(shares), turns), boxes),
                ]
                file.write_table(pa.table(values, schema=pa.schema(columns)))


def plain_tiles(
    frame: Frame,
    data: NDArray[np.uint8],
    preprocess: Preprocess,
    *,
    shares: tuple[float, ...],
    turns: int,
    seed: int,
) -> NDArray[np.uint8]:
    """The tiles (N, 200, 200) of a frame from its PNG; the library says only where to crop."""
    image_HW = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    up_to = np.bincount(image_HW.ravel()).cumsum()
    place_2 = (image_HW.size - 1) * (np.array([preprocess.intensity.low, preprocess.intensity.high]) / 100)
    below_2, above_2 = (np.searchsorted(up_to, side(place_2), side="right") for side in (np.floor, np.ceil))
    low, high = (below_2 + (above_2 - below_2) * (place_2 % 1)).tolist()
    levels = np.arange(len(up_to), dtype=np.float32)
    table = np.clip(np.round((levels - np.float32(low)) * (255.0 / max(high - low, 1e-6))), 0, 255).astype(np.uint8)
    grey_HW = table[image_HW]
    rng = np.random.default_rng([seed, int(frame.frame[:15], 16)])
    boxes = cut(frame.height, frame.width, preprocess.tile_px)
    tiles = np.empty((len(boxes) * len(shares) * turns, NETWORK_PX, NETWORK_PX), np.uint8)
    place = 0
    for box in boxes:
        for share in shares:
            part_HW = crop_share(box, share, rng).pixels(grey_HW)
            how = cv2.INTER_AREA if min(part_HW.shape) >= NETWORK_PX else cv2.INTER_LINEAR
            cv2.resize(part_HW, (NETWORK_PX, NETWORK_PX), dst=tiles[place], interpolation=how)
            for turn in range(1, turns):  # cv2's codes turn clockwise by 90, 180 and 270 degrees
                cv2.rotate(tiles[place], 3 - turn, dst=tiles[place + turn])
            place += turns
    return tiles


# Reading


class Decoded(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """So many tiles, each a whole frame decoded and resized when it is asked for."""

    def __init__(self, bank: Bank, tiles: int) -> None:
        frames = bank.split("train")
        label = {lineage: number for number, lineage in enumerate(bank.lineages)}
        known = [(f"{bank.store.uri}/pixels/{frame.frame}.png", label[frame.lineage or ""]) for frame in frames]
        self.items = [known[n % len(known)] for n in range(tiles)]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        path, label = self.items[number]
        image_HW = cv2.imread(path, cv2.IMREAD_UNCHANGED)
        tile_HW = cv2.resize(image_HW, (NETWORK_PX, NETWORK_PX), interpolation=cv2.INTER_AREA)
        if tile_HW.dtype == np.uint16:
            tile_HW = (tile_HW >> 4).astype(np.uint8)  # 12 bits to 8; it is spared the percentiles
        return torch.from_numpy(tile_HW), label


def one_thread(worker: int) -> None:
    """Two workers on two cores."""
    cv2.setNumThreads(1)


def reading(folder: Path) -> list[str]:
    """The table of reading, from the shards of the banks that writing left, and of small frames."""
    start_ray()
    lines = [
        "| reading | batch | training tiles | DataLoader, tiles/s | shards, tiles/s | ratio | aim | first epoch's |",
        "|---|---|---|---|---|---|---|---|",
    ]
    fields = Bank.open(folder / "fields" / "bank")
    smalls = bank_of(folder / "small", 2000, small)
    for title, bank, loader_tiles in (("1080×1080, 16 bits", fields, 480), ("220×220, 8 bits", smalls, 20_000)):
        shards = make_shards(bank, make_plan(bank, config_of("frame")))
        for batch_size in BATCH_SIZES:
            rate, first = read(bank, shards, batch_size, loader_tiles=loader_tiles)
            plain, ours = statistics.median(rate.plain), statistics.median(rate.ray)
            lines.append(
                f"| {title} | {batch_size} | {shards.rows['train']:,} | {plain:,.0f} | {ours:,.0f} | "
                f"{rate.ratio:.1f} | 5 | {first:,.0f} |"
            )
            print(lines[-1], file=sys.stderr, flush=True)
    ray.shutdown()
    return lines


def read(bank: Bank, shards: Shards, batch_size: int, *, loader_tiles: int) -> tuple[Rate, float]:
    """Tiles a second of epochs that take turns, and of a first epoch that has the files to read as well."""
    loader = torch.utils.data.DataLoader(
        Decoded(bank, loader_tiles),
        batch_size,
        shuffle=True,
        num_workers=CPUS,
        persistent_workers=True,
        worker_init_fn=one_thread,
        multiprocessing_context="spawn",  # a fork of a process of Ray's may hang
    )
    consume(tensor for tensor, _ in loader)  # the workers have started
    start_s = time.perf_counter()
    epoch = batches(dataset_of(shards, "train").materialize(), batch_size, seed=0)
    first = consume(batch["pixels"] for batch in epoch(0)) / (time.perf_counter() - start_s)
    rate = Rate([], [])
    for turn in range(1, ROUNDS + 1):
        start_s = time.perf_counter()
        tiles = consume(tensor for tensor, _ in loader)
        rate.plain.append(tiles / (time.perf_counter() - start_s))
        start_s = time.perf_counter()
        tiles = consume(batch["pixels"] for batch in epoch(turn))
        rate.ray.append(tiles / (time.perf_counter() - start_s))
        assert tiles == shards.rows["train"], "an epoch has every tile once"
    return rate, first


def consume(tiles: Iterator[Any]) -> int:
    """How many there are in all batches."""
    return sum(len(batch_BHW) for batch_BHW in tiles)


# Growth


def growth(folder: Path) -> list[str]:
    """The table of growth, a process and a cluster a size."""
    lines = [
        "| growth | write s | read s | peak MB | above idle MB | spilled MB |",
        "|---|---|---|---|---|---|",
    ]
    for wanted in (1000, 4000, 16_000, 64_000):
        start_ray()
        bank = bank_of(folder / f"grow-{wanted}", round(wanted / ROWS_A_FRAME), small)
        ray.shutdown()
        done = subprocess.run(
            [sys.executable, __file__, "--grow", bank.store.uri], stdout=subprocess.PIPE, check=True, text=True
        )
        seen = json.loads(done.stdout.splitlines()[-1])
        lines.append(
            f"| {seen['tiles']:,} tiles, {seen['tiles'] * NETWORK_PX**2 / STORE_BYTES:.1f} × the object store | "
            f"{seen['write_s']:.1f} | {seen['read_s']:.1f} | {seen['peak_mb']:.0f} | "
            f"{seen['peak_mb'] - seen['idle_mb']:.0f} | {seen['spilled_mb']:.0f} |"
        )
    return lines


def grow(uri: Path) -> dict[str, float]:
    """Shards of a bank made and read once as batches in a small object store: seconds, and memory of all processes."""
    start_ray(object_store_memory=STORE_BYTES)
    ray.get(ray.remote(lambda: None).remote())
    bank = Bank.open(uri)
    idle_mb = memory_mb()
    with Peak() as peak:
        start_s = time.perf_counter()
        shards = make_shards(bank, make_plan(bank, config_of("frame")))
        made_s = time.perf_counter()
        rows = sum(
            consume(batch["pixels"] for batch in batches(dataset_of(shards, split).materialize(), 16, seed=0)(0))
            for split in ("train", "test")
        )
        read_s = time.perf_counter() - made_s
    return {
        "tiles": rows,
        "write_s": made_s - start_s,
        "read_s": read_s,
        "idle_mb": idle_mb,
        "peak_mb": peak.mb,
        "spilled_mb": spilled_mb(),
    }


class Peak:
    """The most memory that this process and its descendants had at once while the context was open."""

    def __init__(self) -> None:
        self.mb = 0.0
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Peak":
        self._watcher.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            self.mb = max(self.mb, memory_mb())


def memory_mb() -> float:
    """Proportional set size of this process and its descendants: memory that they share counts once."""
    return sum(_pss_bytes(pid) for pid in _family(os.getpid())) / 1e6


def _family(ancestor: int) -> list[int]:
    """The process and its descendants."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    family = [ancestor]
    for pid in family:
        family += children.get(pid, [])
    return family


def _pss_bytes(pid: int) -> int:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:  # it has ended
        return 0
    return next((1024 * int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)


def spilled_mb() -> float:
    """What Ray wrote to disk for want of room in its object store."""
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    reply = get_memory_info_reply(get_state_from_address(ray.get_runtime_context().gcs_address))
    return float(reply.store_stats.spilled_bytes_total) / 1e6


if __name__ == "__main__":
    main()
