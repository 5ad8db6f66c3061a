"""Shards of a bank written and read by Ray Data; what lies in them is said in `cellnet.training.shards`.

A Ray job, like `cellnet bank shards`:

    python -m pipelines shards BANK --task classify [--set KEY=VALUE]...
"""

import contextlib
import secrets
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, cast

import cv2
import numpy as np
import ray.data
from numpy.typing import NDArray

from cellnet.bank.bank import Bank
from cellnet.config.choices import MAP_SIDE, NETWORK_PX, Split
from cellnet.errors import NotFoundError, RegistryError
from cellnet.store.arrow import filesystem
from cellnet.store.objects import Store
from cellnet.training.plan import Plan
from cellnet.training.shards import (
    TILES_A_READ,
    Draft,
    Shards,
    drafts_of,
    key_of,
    read_record,
    renew_record,
    shards_of,
    write_file,
    write_record,
)
from cellnet.training.tiles import Batch
from pipelines import cluster

FILES_A_TASK: Final = 16
"""How many files a task writes at most. Between two tasks a CPU waits about 0.15 s for Ray Data."""
TILES_A_BLOCK: Final = 512
"""About how many tiles a block has at most that is read: 20 MB, of which Ray's object store must hold several."""
SHUFFLE_TILES: Final = 4096
"""Tiles that a reader shuffles among: 164 MB. Frames are in random order in the shards already."""

Rows = dict[str, NDArray[Any]]
"""Columns of as many rows each."""


def make_shards(bank: Bank, plan: Plan) -> Shards:
    """The shards of a plan that was made for the bank, found or made."""
    key = key_of(plan, bank.frames)
    try:
        shards = read_record(bank.store, key)
        with contextlib.suppress(RegistryError):  # a bank that may only be read, which nobody clears then
            renew_record(shards, key)
        return shards
    except NotFoundError:
        pass
    folder = f"shards/{key}-{secrets.token_hex(4)}"
    drafts = drafts_of(plan, bank.frames, folder)
    _write(drafts, plan, bank.store)
    shards = shards_of(plan, drafts, bank.store, folder)
    write_record(shards, key)
    return shards


def dataset_of(shards: Shards, split: Split, *more: str) -> ray.data.Dataset:
    """The tiles of a split, lazily, with the columns that a training needs and `more`."""
    files, root = filesystem(shards.store)
    maps = {} if shards.class_tiles else {"cells": (MAP_SIDE, MAP_SIDE)}
    shapes = {"pixels": (NETWORK_PX, NETWORK_PX)} | maps
    return ray.data.read_parquet(
        f"{root}/{shards.folder}/{split}",
        filesystem=files,
        override_num_blocks=cluster.blocks(shards.rows[split], at_least=-(-shards.rows[split] // TILES_A_BLOCK)),
        tensor_column_schema={name: (np.dtype(np.uint8), shape) for name, shape in shapes.items()},
    ).select_columns([*shapes, "label", "count", *more])


def batches(
    dataset: "ray.data.Dataset | ray.data.DataIterator",
    batch_size: int,
    *,
    seed: int | None,
    chosen: Callable[[str], bool] | None = None,
) -> Callable[[int], Iterator[Batch]]:
    """Batches of tiles for every epoch, shuffled anew in each if there is a seed. Only the last may be smaller.

    `chosen` says of a frame by its name whether its tiles take part; the dataset then has the column `frame`.
    """
    size = batch_size * max(1, TILES_A_READ // batch_size)

    def of_epoch(epoch: int = 0) -> Iterator[Batch]:
        chunks: Iterable[Rows] = dataset.iter_batches(batch_size=size, batch_format="numpy", prefetch_batches=2)
        if chosen:
            chunks = _of_frames(chunks, size, chosen)
        if seed is not None:
            chunks = _shuffled(chunks, size, np.random.default_rng([seed, epoch]))
        for chunk in chunks:
            for start in range(0, len(chunk["label"]), batch_size):
                stop = start + batch_size
                yield cast(Batch, {name: column[start:stop] for name, column in chunk.items()})

    return of_epoch


def _of_frames(chunks: Iterable[Rows], size: int, chosen: Callable[[str], bool]) -> Iterator[Rows]:
    """The rows of the chosen frames, without that column, in chunks of one size; the last may be smaller."""
    held: Rows = {}
    for chunk in chunks:
        rows_N = np.array([chosen(frame) for frame in chunk["frame"]], bool)
        kept = {name: column[rows_N] for name, column in chunk.items() if name != "frame"}
        held = {name: np.concatenate([held[name], column]) for name, column in kept.items()} if held else kept
        while len(held["label"]) >= size:
            yield {name: column[:size] for name, column in held.items()}
            held = {name: column[size:] for name, column in held.items()}
    if held and len(held["label"]):
        yield held


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


def _write(drafts: list[Draft], plan: Plan, store: Store) -> None:
    """Write the tiles of all drafts."""
    files, root = filesystem(store)
    for folder in {draft.path.rpartition("/")[0] for draft in drafts}:
        files.create_dir(f"{root}/{folder}", recursive=True)
    # One execution for all splits: each costs more than a second, in which most CPUs wait.
    ray.data.from_items(
        [{"draft": draft} for draft in drafts],
        override_num_blocks=cluster.blocks(len(drafts), at_least=-(-len(drafts) // FILES_A_TASK)),
    ).map(_write_draft, fn_kwargs={"plan": plan, "store": store}).materialize()


def _write_draft(row: dict[str, Any], plan: Plan, store: Store) -> dict[str, int]:
    """A task that is run again replaces its files.

    Ray Data's own `write_parquet` keeps a block's tiles in memory, and in no certain order.
    """
    cv2.setNumThreads(1)  # Ray runs a worker on every core already
    return {"tiles": write_file(row["draft"], plan, store)}
