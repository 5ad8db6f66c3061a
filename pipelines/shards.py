"""Training tiles as Parquet shards in the bank, made by Ray Data, and batches read back from them.

    BANK/shards/KEY.json               what the shards hold: written last, so that they are seen whole or not at all
    BANK/shards/KEY-XXXX/train/*.parquet, test/*.parquet (and holdout/*.parquet of the paper's protocol)

KEY names the bank's digest and every setting that shapes a tile: the second training finds its shards ready.
The model's kernel is applied after reading, so all kernels share one set of shards.

A Ray job, like `cellnet bank shards`:

    python -m pipelines shards BANK --task classify [--set KEY=VALUE]...
"""

import hashlib
import json
import math
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from numpy.typing import NDArray

from cellnet.bank.bank import Bank
from cellnet.bank.frames import Frame, read_pixels
from cellnet.bank.labels import trainable_frames
from cellnet.config.choices import MAP_SIDE, NETWORK_PX, Orientation, Split
from cellnet.config.loading import Frozen
from cellnet.config.train import Augment, Preprocess, TrainConfig
from cellnet.errors import DataError, NotFoundError
from cellnet.store.arrow import filesystem
from cellnet.store.objects import Store
from cellnet.store.place import open_store
from cellnet.training.plan import preprocess_for, resolve
from cellnet.training.protocols import Paper
from cellnet.training.tiles import Batch, Tile, make_tiles, tiles_n
from pipelines import cluster

SPLITS: Final[tuple[Split, ...]] = ("train", "test")

SCHEMA: Final = pa.schema(
    [
        ("pixels", pa.binary(NETWORK_PX**2)),  # as a list of numbers, Parquet takes ten times as long
        ("label", pa.int64()),
        ("count", pa.float32()),
        ("cells", pa.binary(MAP_SIDE**2)),
        ("frame", pa.string()),
        ("orientation", pa.int16()),
        ("share", pa.float32()),
    ]
)

TILES_A_FILE: Final = 1024
"""About how many tiles a file has at most."""
FRAMES_A_FILE: Final = 16
"""How many frames a file is made of at most, since decoding takes time too; more in splits of thousands."""
FILES_A_TASK: Final = 16
"""How many files a task writes at most. Between two tasks a CPU waits about 0.15 s for Ray Data."""
TILES_A_BLOCK: Final = 512
"""About how many tiles a block has at most that is read: 20 MB, of which Ray's object store must hold several."""
TILES_A_READ: Final = 256
"""Tiles that a reader takes from Ray at once, since each taking costs milliseconds, and that lie together in a file."""
SHUFFLE_TILES: Final = 4096
"""Tiles that a reader shuffles among: 164 MB. Frames are in random order in the shards already."""

Rows = dict[str, NDArray[Any]]
"""Columns of as many rows each."""


class Shards(Frozen):
    """A finished set of shards."""

    bank: str
    endpoint_url: str | None
    folder: str
    """Below the bank."""
    rows: dict[Split, int]
    classes: list[str]
    class_tiles: list[int]
    """Training tiles of each class."""
    mean_count: float
    """Cells a training tile; 1 when counts are not known."""
    preprocess: Preprocess
    augment: Augment
    """With every `auto` decided."""
    frame_tiles: float
    """Tiles a training frame, the median."""
    left_out: int
    """Frames too small for a tile, or of a magnification too far off."""
    fresh: bool = False
    """Whether this call made them, or an earlier one."""

    def dataset(self, split: Split, *more: str) -> ray.data.Dataset:
        """The tiles of a split, lazily, with the columns that a training needs and `more`."""
        files, root = filesystem(open_store(self.bank, endpoint_url=self.endpoint_url))
        shapes = {"pixels": (NETWORK_PX, NETWORK_PX)} | ({} if self.classes else {"cells": (MAP_SIDE, MAP_SIDE)})
        return ray.data.read_parquet(
            f"{root}/{self.folder}/{split}",
            filesystem=files,
            override_num_blocks=cluster.blocks(self.rows[split], at_least=-(-self.rows[split] // TILES_A_BLOCK)),
            tensor_column_schema={name: (np.dtype(np.uint8), shape) for name, shape in shapes.items()},
        ).select_columns([*shapes, "label", "count", *more])


def make_shards(bank: Bank, config: TrainConfig) -> Shards:
    """The shards of a bank for a configuration, found or made. Raises DataError for a bank that cannot train it."""
    labelled = trainable_frames(bank, config.task, config.lineage)
    train_frames = [frame for frame in labelled if frame.split == "train"]
    preprocess = preprocess_for(config, train_frames, bank.settings.intensity)
    paper = _paper(bank, config)
    if paper:  # which puts the kernel on by itself
        preprocess = preprocess.model_copy(update={"kernel": "none"})
    frames = [frame for frame in labelled if tiles_n(frame, preprocess)]
    tiles = sum(tiles_n(frame, preprocess) for frame in frames if frame.split == "train")
    if not tiles:
        width, height = preprocess.tile_px[::-1]
        raise DataError(
            f"every training frame of {bank.store.uri} is smaller than the {width}×{height} pixels of a tile; "
            "train with a smaller one, for example --set tile=frame"
        )
    augment = resolve(config.augment, task=config.task, tiles=tiles, protocol=config.protocol)
    orientations: tuple[Orientation, ...] = (0, 90, 180, 270) if augment.orientation == "stored" else (0,)
    recipe = {
        "form": [*sorted(Shards.model_fields), *SCHEMA.names],
        "bank": bank.digest,
        "task": config.task,
        "tile_px": preprocess.tile_px,
        "pixel_um": preprocess.pixel_um,
        "shares": augment.shares,
        "shifts": augment.shifts,
        "orientations": orientations,
        "seed": config.seed,
        "protocol": (config.protocol, config.kernel if paper else None),
        **({"lineage": config.lineage} if config.lineage else {}),
    }
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
    try:
        found = Shards.model_validate_json(bank.store.get(f"shards/{key}.json"))
        # A bank may have been copied since: where it lies and how it is filtered is known better now.
        here = {"bank": bank.store.uri, "endpoint_url": bank.store.endpoint_url}
        return found.model_copy(update={**here, "preprocess": preprocess, "augment": augment, "fresh": False})
    except NotFoundError:
        pass
    folder = f"shards/{key}-{secrets.token_hex(4)}"
    classes = bank.lineages if config.task == "classify" else []
    label = {lineage: index for index, lineage in enumerate(classes)}
    common = {"preprocess": preprocess, "seed": config.seed}
    augmented = common | {"shares": augment.shares, "shifts": augment.shifts, "orientations": orientations}
    upright = common | {"shares": (1.0,), "shifts": 0, "orientations": (0,)}
    cuts: dict[Split, dict[str, Any]] = {"train": augmented, "test": augmented if paper else upright}
    if paper:
        cuts["holdout"] = augmented
    drafts: list[_Draft] = []
    for split in cuts:
        if paper:
            chosen = [frame for frame in frames if frame.split != "holdout"]
        else:
            chosen = [frame for frame in frames if frame.split == split]
        order = np.random.default_rng(config.seed).permutation(len(chosen))
        drafts += _drafts(folder, split, [chosen[i] for i in order], **cuts[split])
    _write(drafts, bank.store, label, cuts, paper)
    present = {draft.split for draft in drafts}
    truths = {split: _read_truths(bank.store, f"{folder}/{split}") if split in present else [] for split in cuts}
    known = [count for _, count in truths["train"] if not math.isnan(count)]
    labels = Counter(label for label, _ in truths["train"])
    shards = Shards(
        bank=bank.store.uri,
        endpoint_url=bank.store.endpoint_url,
        folder=folder,
        rows={split: len(truths[split]) for split in cuts},
        classes=classes,
        class_tiles=[labels[index] for index in range(len(classes))],
        mean_count=float(np.mean(known)) if known else 1.0,
        preprocess=preprocess,
        augment=augment,
        frame_tiles=float(np.median([tiles_n(frame, preprocess) for frame in frames if frame.split == "train"])),
        left_out=len(labelled) - len(frames),
        fresh=True,
    )
    bank.store.create(f"shards/{key}.json", shards.model_dump_json(indent=1).encode())
    return shards


def _paper(bank: Bank, config: TrainConfig) -> Paper | None:
    """The paper's protocol, if the configuration asks for it."""
    if config.protocol != "paper":
        return None
    return Paper(
        holdout_share=bank.settings.holdout_share,
        test_share=bank.settings.test_share,
        kernel=config.kernel,
        filtered=frozenset(bank.lineages[::2]),
        seed=config.seed,
    )


def batches(
    dataset: "ray.data.Dataset | ray.data.DataIterator", batch_size: int, *, seed: int | None
) -> Callable[[int], Iterator[Batch]]:
    """Batches of tiles for every epoch, shuffled anew in each if there is a seed. Only the last may be smaller."""
    size = batch_size * max(1, TILES_A_READ // batch_size)

    def of_epoch(epoch: int = 0) -> Iterator[Batch]:
        chunks: Iterable[Rows] = dataset.iter_batches(batch_size=size, batch_format="numpy", prefetch_batches=2)
        if seed is not None:
            chunks = _shuffled(chunks, size, np.random.default_rng([seed, epoch]))
        for chunk in chunks:
            for start in range(0, len(chunk["label"]), batch_size):
                stop = start + batch_size
                yield cast(Batch, {name: column[start:stop] for name, column in chunk.items()})

    return of_epoch


def _shuffled(chunks: Iterable[Rows], size: int, rng: np.random.Generator) -> Iterator[Rows]:
    """The rows in chunks of the same size (the last may be smaller), mixed in a pool of SHUFFLE_TILES.

    A chunk takes the places of as many random rows of the pool, and these leave. This is Ray Data's local shuffle,
    but faster: it copies a row twice, and Ray's carries its buffer over again and again.
    """
    pool: Rows = {}
    held = 0
    for chunk in chunks:
        rows = len(chunk["label"])
        if not pool:
            room = SHUFFLE_TILES + 2 * size
            pool = {name: np.empty((room, *column.shape[1:]), column.dtype) for name, column in chunk.items()}
        if held < SHUFFLE_TILES or rows < size:
            places, held = np.arange(held, held + rows), held + rows
        else:
            places = rng.permutation(held)[:rows]
            yield {name: column[places] for name, column in pool.items()}
        for name, column in pool.items():
            column[places] = chunk[name]
    order = rng.permutation(held)
    for start in range(0, held, size):
        yield {name: column[order[start : start + size]] for name, column in pool.items()}


@dataclass(frozen=True)
class _Draft:
    """A file of shards to be written."""

    split: Split
    path: str
    """Below the bank."""
    frames: list[Frame]


def _drafts(
    folder: str,
    split: Split,
    frames: list[Frame],
    *,
    preprocess: Preprocess,
    shares: tuple[float, ...],
    shifts: int,
    orientations: tuple[Orientation, ...],
    seed: int,
) -> list[_Draft]:
    """The files of a split's frames, in their order; the same on every cluster, whatever its size."""
    variants = (1 + shifts) * len(shares) * len(orientations)
    most_frames = max(FRAMES_A_FILE, len(frames) // 256)
    drafts: list[_Draft] = []
    tiles = TILES_A_FILE  # of the last file
    for place, frame in enumerate(frames):
        if tiles >= TILES_A_FILE or len(drafts[-1].frames) >= most_frames:
            drafts.append(_Draft(split, f"{folder}/{split}/{place:08}.parquet", []))
            tiles = 0
        drafts[-1].frames.append(frame)
        tiles += variants * tiles_n(frame, preprocess)
    return drafts


def _write(
    drafts: list[_Draft],
    store: Store,
    label: dict[str, int],
    cuts: dict[Split, dict[str, Any]],
    paper: Paper | None,
) -> None:
    """Write the tiles of frames, labelled by lineage, cut as `make_tiles` is told by `cuts`."""
    files, root = filesystem(store)
    for folder in {draft.path.rpartition("/")[0] for draft in drafts}:
        files.create_dir(f"{root}/{folder}", recursive=True)
    # One execution for both splits: each costs more than a second, in which most CPUs wait.
    ray.data.from_items(
        [{"draft": draft} for draft in drafts],
        override_num_blocks=cluster.blocks(len(drafts), at_least=-(-len(drafts) // FILES_A_TASK)),
    ).map(_write_file, fn_kwargs={"store": store, "label": label, "cuts": cuts, "paper": paper}).materialize()


def _read_truths(store: Store, folder: str) -> list[tuple[int, float]]:
    """The label and the cells of every tile in a folder of shards."""
    files, root = filesystem(store)
    table = pq.read_table(f"{root}/{folder}", columns=["label", "count"], filesystem=files)
    return list(zip(table["label"].to_pylist(), table["count"].to_pylist(), strict=True))


def _write_file(
    row: dict[str, Any],
    store: Store,
    label: dict[str, int],
    cuts: dict[Split, dict[str, Any]],
    paper: Paper | None,
) -> dict[str, int]:
    """Write the tiles of one draft, and give how many.

    A task that is run again replaces its files. Ray Data's own `write_parquet` keeps a block's tiles in memory, and
    in no certain order.
    """
    cv2.setNumThreads(1)  # Ray runs a worker on every core already
    draft: _Draft = row["draft"]
    files, root = filesystem(store)
    written = 0
    with pq.ParquetWriter(
        f"{root}/{draft.path}", SCHEMA, filesystem=files, compression="zstd", use_dictionary=False
    ) as file:
        waiting: list[pa.Table] = []
        for frame in draft.frames:
            lineage = label.get(frame.lineage or "", -1)
            tiles = make_tiles(frame, read_pixels(store, frame), label=lineage, **cuts[draft.split])
            if paper:
                tiles = paper.of_split(tiles, frame, draft.split)
            waiting.append(_table(list(tiles)))
            rows = sum(map(len, waiting))
            if rows >= TILES_A_READ or frame is draft.frames[-1]:
                file.write_table(pa.concat_tables(waiting), row_group_size=TILES_A_READ)
                waiting, written = [], written + rows
    return {"tiles": written}


def _table(tiles: list[Tile]) -> pa.Table:
    """Tiles as rows of a shard."""
    pixels = pa.py_buffer(b"".join(tile.pixels_HW.tobytes() for tile in tiles))
    cells = pa.py_buffer(b"".join(tile.cells_hw.tobytes() for tile in tiles))
    values = [
        pa.FixedSizeBinaryArray.from_buffers(SCHEMA.field("pixels").type, len(tiles), [None, pixels]),
        np.array([tile.label for tile in tiles], np.int64),
        np.array([tile.count for tile in tiles], np.float32),
        pa.FixedSizeBinaryArray.from_buffers(SCHEMA.field("cells").type, len(tiles), [None, cells]),
        [tile.frame for tile in tiles],
        np.array([tile.orientation for tile in tiles], np.int16),
        np.array([tile.share for tile in tiles], np.float32),
    ]
    return pa.table(values, schema=SCHEMA)
