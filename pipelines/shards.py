"""Training tiles as Parquet shards in the bank, made by Ray Data, and batches read back from them.

    BANK/shards/KEY.json               what the shards hold: written last, so that they are seen whole or not at all
    BANK/shards/KEY-XXXX/train/*.parquet, test/*.parquet

KEY names the bank's digest and every setting that shapes a tile: the second training finds its shards ready.
The model's kernel is applied after reading, so all kernels share one set of shards.

A Ray job, like `cellnet bank shards`:

    python -m pipelines.shards BANK --task classify [--set KEY=VALUE]...
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import ray.data

from cellnet.augment import make_tiles, preprocess_for, resolve, tiles_n
from cellnet.bank import Bank, Frame, read_pixels
from cellnet.config import NETWORK_PX, Augment, Frozen, Orientation, Preprocess, Split, Task, TrainConfig
from cellnet.errors import DataError, NotFoundError
from cellnet.store import Store, open_store
from cellnet.training import Batch
from pipelines import cluster
from pipelines.places import filesystem

SHUFFLE_TILES = 4096
"""Tiles that a reader shuffles among: 164 MB. Frames are in random order in the shards already."""

SPLITS: tuple[Split, ...] = ("train", "test")


class Shards(Frozen):
    """A finished set of shards."""

    bank: str
    endpoint_url: str | None
    folder: str
    """Below the bank."""
    rows: dict[Split, int]
    classes: list[str]
    mean_count: float
    """Cells a training tile; 1 when counts are not known."""
    preprocess: Preprocess
    augment: Augment
    """With every `auto` decided."""
    left_out: int
    """Frames too small for a tile, or of a magnification too far off."""
    fresh: bool = False
    """Whether this call made them, or an earlier one."""

    def dataset(self, split: Split) -> ray.data.Dataset:
        """The tiles of a split, lazily."""
        files, root = filesystem(open_store(self.bank, endpoint_url=self.endpoint_url))
        return ray.data.read_parquet(
            f"{root}/{self.folder}/{split}",
            filesystem=files,
            override_num_blocks=cluster.blocks(self.rows[split]),
        ).select_columns(["pixels", "label", "count"])


def make_shards(bank: Bank, config: TrainConfig) -> Shards:
    """The shards of a bank for a configuration, found or made. Raises DataError for a bank that cannot train it."""
    labelled = trainable_frames(bank, config.task)
    train_frames = [frame for frame in labelled if frame.split == "train"]
    preprocess = preprocess_for(config, train_frames, bank.settings.intensity)
    frames = [frame for frame in labelled if tiles_n(frame, preprocess)]
    tiles = sum(tiles_n(frame, preprocess) for frame in frames if frame.split == "train")
    if not tiles:
        width, height = preprocess.tile_px[::-1]
        raise DataError(
            f"every training frame of {bank.store.uri} is smaller than the {width}×{height} pixels of a tile; "
            "train with a smaller one, for example --set tile=frame"
        )
    augment = resolve(config.augment, task=config.task, tiles=tiles)
    orientations: tuple[Orientation, ...] = (0, 90, 180, 270) if augment.orientation == "stored" else (0,)
    recipe = {
        "form": sorted(Shards.model_fields),
        "bank": bank.digest,
        "task": config.task,
        "tile_px": preprocess.tile_px,
        "pixel_um": preprocess.pixel_um,
        "shares": augment.shares,
        "shifts": augment.shifts,
        "orientations": orientations,
        "seed": config.seed,
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
    cuts: dict[Split, dict[str, Any]] = {
        "train": {"shares": augment.shares, "shifts": augment.shifts, "orientations": orientations},
        "test": {"shares": (1.0,), "shifts": 0, "orientations": (0,)},
    }
    rows: dict[Split, int] = {}
    counts: list[float] = []
    for split in SPLITS:
        chosen = [frame for frame in frames if frame.split == split]
        order = np.random.default_rng(config.seed).permutation(len(chosen))
        items = [{"frame": chosen[i], "label": label.get(chosen[i].lineage or "", -1)} for i in order]
        how = cuts[split] | {"preprocess": preprocess, "seed": config.seed}
        written = _write(items, bank.store, f"{folder}/{split}", how) if items else []
        rows[split] = len(written)
        counts = written if split == "train" else counts
    known = np.array(counts)[~np.isnan(counts)]
    shards = Shards(
        bank=bank.store.uri,
        endpoint_url=bank.store.endpoint_url,
        folder=folder,
        rows=rows,
        classes=classes,
        mean_count=float(known.mean()) if len(known) else 1.0,
        preprocess=preprocess,
        augment=augment,
        left_out=len(labelled) - len(frames),
        fresh=True,
    )
    bank.store.create(f"shards/{key}.json", shards.model_dump_json(indent=1).encode())
    return shards


def labelled_frames(bank: Bank, task: Task) -> list[Frame]:
    """The frames whose count or lineage is known. Raises DataError for none."""
    if task == "count":
        frames = [frame for frame in bank.frames if frame.count is not None]
        if not frames:
            raise DataError(
                f"no frame of {bank.store.uri} has a count, so no counter can be trained or scored; "
                "fill the manifest's count column (or points.csv) and import it into a new bank"
            )
        return frames
    frames = [frame for frame in bank.frames if frame.lineage is not None]
    if not frames:
        raise DataError(
            f"no frame of {bank.store.uri} has a lineage, so no classifier can be trained or scored; "
            "fill the manifest's lineage column and import it into a new bank"
        )
    return frames


def trainable_frames(bank: Bank, task: Task) -> list[Frame]:
    """The labelled frames of a bank that can teach the task. Raises DataError, saying what the bank lacks."""
    frames = labelled_frames(bank, task)
    if task == "count":
        splits = {frame.split for frame in frames}
        if "train" not in splits or len(splits) < 2:
            raise DataError(
                f"all counted frames of {bank.store.uri} are in its {' and '.join(sorted(map(str, splits)))} split, "
                "and training needs some in train and some in another; import counted frames of another well or "
                "plate, or give the frames groups of their own"
            )
        return frames
    if len(bank.lineages) < 2:
        seen = ", ".join(bank.lineages) or "none"
        raise DataError(f"a classifier needs two lineages, {bank.store.uri} has {seen}; import another lineage")
    for lineage in bank.lineages:
        splits = {frame.split for frame in frames if frame.lineage == lineage}
        if "train" not in splits or len(splits) < 2:
            groups = len({frame.group for frame in frames if frame.lineage == lineage})
            raise DataError(
                f"the lineage {lineage} has {groups} group{'s' * (groups != 1)}, all in {', '.join(map(str, splits))}, "
                "so none is left to test on; import frames of another well or plate of it"
            )
    return frames


def batches(
    dataset: "ray.data.Dataset | ray.data.DataIterator", batch_size: int, *, seed: int | None
) -> Callable[[int], Iterator[Batch]]:
    """Batches of tiles for every epoch, shuffled anew in each if there is a seed."""

    def of_epoch(epoch: int = 0) -> Iterator[Batch]:
        shuffle: dict[str, Any] = {}
        if seed is not None:
            shuffle = {"local_shuffle_buffer_size": SHUFFLE_TILES, "local_shuffle_seed": seed * 10007 + epoch}
        rows: Iterable[Any] = dataset.iter_batches(
            batch_size=batch_size, batch_format="numpy", prefetch_batches=2, **shuffle
        )
        for row in rows:
            yield Batch(pixels=row["pixels"], label=row["label"], count=row["count"])

    return of_epoch


def _write(items: list[dict[str, Any]], store: Store, folder: str, how: dict[str, Any]) -> list[float]:
    """Write the tiles of frames with their labels, cut as `make_tiles` is told by `how`, and give their counts."""
    dataset = ray.data.from_items(items, override_num_blocks=cluster.blocks(len(items))).map_batches(
        _tiles_of_batch, batch_size=4, batch_format="numpy", fn_kwargs={"store": store, "how": how}
    )
    files, root = filesystem(store)
    dataset.write_parquet(f"{root}/{folder}", filesystem=files)
    written = ray.data.read_parquet(f"{root}/{folder}", filesystem=files)
    return [float(row["count"]) for row in written.select_columns(["count"]).take_all()]


def _tiles_of_batch(batch: dict[str, Any], store: Store, how: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The tiles of a few frames, one frame at a time, so that memory stays bounded."""
    for frame, label in zip(batch["frame"], batch["label"], strict=True):
        tiles = list(make_tiles(frame, read_pixels(store, frame), label=int(label), **how))
        yield {
            "pixels": np.stack([tile.pixels_HW for tile in tiles]).reshape(-1, NETWORK_PX, NETWORK_PX),
            "label": np.array([tile.label for tile in tiles], np.int64),
            "count": np.array([tile.count for tile in tiles], np.float32),
            "frame": np.array([tile.frame for tile in tiles]),
            "orientation": np.array([tile.orientation for tile in tiles], np.int16),
            "share": np.array([tile.share for tile in tiles], np.float32),
        }


if __name__ == "__main__":
    import sys

    from cellnet.cli import main

    sys.exit(main(["bank", "shards", *sys.argv[1:]]))
