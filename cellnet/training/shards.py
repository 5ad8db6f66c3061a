"""Training tiles as Parquet shards in the bank: what a row is, which files there are, what is written down of them.

    BANK/shards/KEY.json               what the shards hold: written last, so that they are seen whole or not at all
    BANK/shards/KEY-XXXX/train/*.parquet, test/*.parquet (and holdout/*.parquet of the paper's protocol)

KEY names the frames, what the task is told of them, and every setting that shapes a tile: the second training finds its
shards ready, and so does one after labels of other frames were corrected.
The model's kernel is applied after reading, so all kernels share one set of shards.
"""

import hashlib
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ConfigDict, Field, SkipValidation

from cellnet.bank.columns import Frames
from cellnet.bank.frames import Frame, read_pixels
from cellnet.config.choices import MAP_SIDE, NETWORK_PX, Split
from cellnet.config.loading import Frozen
from cellnet.store.arrow import filesystem
from cellnet.store.objects import Store
from cellnet.training.plan import Plan
from cellnet.training.tiles import Tile, grids_of, make_tiles
from cellnet.training.truths import truths_of

SPLITS: Final[tuple[Split, ...]] = ("train", "test")
"""Those that a training reads."""

SCHEMA: Final = pa.schema(
    [
        ("pixels", pa.binary(NETWORK_PX**2)),  # as a list of numbers, Parquet takes ten times as long
        ("label", pa.int64()),
        ("count", pa.float32()),
        ("cells", pa.binary(MAP_SIDE**2)),
        ("frame", pa.string()),
        ("orientation", pa.int16()),
        ("share", pa.float32()),
        ("weight", pa.float32()),
    ]
)

TILES_A_FILE: Final = 1024
"""About how many tiles a file has at most."""
FRAMES_A_FILE: Final = 16
"""How many frames a file is made of at most, since decoding takes time too; more in splits of thousands."""
TILES_A_READ: Final = 256
"""Tiles that a reader takes from Ray at once, since each taking costs milliseconds, and that lie together in a file."""


class Shards(Frozen):
    """A finished set of shards: where it lies, and what came of writing it."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    store: SkipValidation[Store] = Field(exclude=True)
    """The bank's, which may have been copied since."""
    folder: str
    """Below the bank."""
    rows: dict[Split, int]
    class_tiles: list[int]
    """Training tiles of each class; empty for a counter."""
    mean_count: float
    """Cells a training tile; 1 when counts are not known."""
    fresh: bool = Field(default=False, exclude=True)
    """Whether this call made them, or an earlier one."""

    def describe(self, plan: Plan) -> str:
        """One line for a person; of a lineage, where the shards hold no other."""
        alone = f" of {plan.config.lineage} alone" if plan.config.lineage else ""
        tile = "×".join(str(side) for side in reversed(plan.preprocess.tile_px))
        made = "made" if self.fresh else "found"
        test = f"{self.rows['test']} test tiles" if self.rows["test"] else "no test split, so the last epoch is taken"
        if plan.folds:
            held = "batches left out in turn," if plan.folds.by_batch else "folds of"
            test = f"{plan.folds.number} {held} {plan.folds.groups} groups"
        out = f"; {plan.left_out} frames too small or of another magnification are left out" if plan.left_out else ""
        return f"shards {made}: {self.rows['train']} training tiles of {tile} px{alone}, {test}{out}"


def key_of(plan: Plan, frames: Iterable[Frame]) -> str:
    """What shards are called after: the same for the same tiles of the same of a bank's frames."""
    config, paper = plan.config, plan.paper
    variants = plan.splits["train"].variants
    recipe = {
        "form": [*sorted(Shards.model_fields), *SCHEMA.names, "centres on the last edge"],
        "truths": truths_of(plan, frames),
        "classes": plan.classes,
        "task": config.task,
        "tile_px": plan.preprocess.tile_px,
        "pixel_um": plan.preprocess.pixel_um,
        "shares": variants.shares,
        "shifts": variants.shifts,
        "orientations": variants.orientations,
        "seed": config.seed,
        "protocol": paper and [paper.kernel, sorted(paper.filtered), paper.holdout_share, paper.test_share, paper.seed],
        **({"lineage": config.lineage} if config.lineage else {}),
        **({"frames": plan.shards_of} if plan.shards_of else {}),
        "greys": plan.preprocess.intensity.model_dump(),
    }
    return key_of_recipe(recipe)


def key_of_recipe(recipe: dict[str, Any]) -> str:
    """What something is called that was made by a recipe: the same for the same recipe."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]


def read_record(store: Store, key: str) -> Shards:
    """The shards of a key. Raises NotFoundError where none were finished."""
    return Shards.model_validate(json.loads(store.get(f"shards/{key}.json")) | {"store": store})


def write_record(shards: Shards, key: str) -> None:
    """Let the shards be seen."""
    shards.store.create(f"shards/{key}.json", shards.model_dump_json(indent=1).encode())


def renew_record(shards: Shards, key: str) -> None:
    """Let it be seen that the shards were used just now, so that `cellnet bank gc` leaves them."""
    shards.store.put(f"shards/{key}.json", shards.model_dump_json(indent=1).encode())


@dataclass(frozen=True)
class Draft:
    """A file of shards to be written."""

    split: Split
    path: str
    """Below the bank."""
    frames: Frames


def drafts_of(plan: Plan, frames: Iterable[Frame], folder: str) -> list[Draft]:
    """The files of a plan's splits, which are made of the bank's `frames`: the same on every cluster."""
    frames = Frames.of(frames)
    names = frames.column("frame").combine_chunks()
    drafts: list[Draft] = []
    for split, planned in plan.splits.items():
        places_N = pc.index_in(pa.array(planned.frames, pa.string()), value_set=names).to_numpy()
        order_N = np.random.default_rng(plan.config.seed).permutation(len(places_N))
        ordered = frames.at(places_N[order_N])
        most_frames = max(FRAMES_A_FILE, len(ordered) // 256)
        starts: list[int] = []
        tiles = TILES_A_FILE  # of the last file
        for place, grid in enumerate(grids_of(ordered, plan.preprocess).tolist()):
            if tiles >= TILES_A_FILE or place - starts[-1] >= most_frames:
                starts.append(place)
                tiles = 0
            tiles += planned.variants.number(grid)
        for start, stop in itertools.pairwise([*starts, len(ordered)]):
            drafts.append(Draft(split, f"{folder}/{split}/{start:08}.parquet", ordered[start:stop]))
    return drafts


def write_file(draft: Draft, plan: Plan, store: Store) -> int:
    """Write the tiles of one draft, and give how many. A file that is there already is replaced."""
    files, root = filesystem(store)
    label = {lineage: index for index, lineage in enumerate(plan.classes)}
    written = 0
    with pq.ParquetWriter(
        f"{root}/{draft.path}", SCHEMA, filesystem=files, compression="zstd", use_dictionary=False
    ) as file:
        waiting: list[pa.Table] = []
        for number, frame in enumerate(draft.frames, start=1):
            tiles = make_tiles(
                frame,
                read_pixels(store, frame),
                plan.preprocess,
                plan.splits[draft.split].variants,
                label=label.get(frame.lineage or "", -1),
                seed=plan.config.seed,
            )
            if plan.paper:
                tiles = plan.paper.of_split(tiles, frame, draft.split)
            waiting.append(table_of(list(tiles)))
            rows = sum(map(len, waiting))
            if rows >= TILES_A_READ or number == len(draft.frames):
                file.write_table(pa.concat_tables(waiting), row_group_size=TILES_A_READ)
                waiting, written = [], written + rows
    return written


def table_of(tiles: list[Tile]) -> pa.Table:
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
        np.array([tile.weight for tile in tiles], np.float32),
    ]
    return pa.table(values, schema=SCHEMA)


def shards_of(plan: Plan, drafts: list[Draft], store: Store, folder: str) -> Shards:
    """What was written for the drafts, as it says itself."""
    written = {draft.split for draft in drafts}
    truths = {split: _read_truths(store, f"{folder}/{split}") if split in written else [] for split in plan.splits}
    counts = [count for _, count in truths["train"] if not math.isnan(count)]
    labels = Counter(label for label, _ in truths["train"])
    return Shards(
        store=store,
        folder=folder,
        rows={split: len(rows) for split, rows in truths.items()},
        class_tiles=[labels[index] for index in range(len(plan.classes))],
        mean_count=float(np.mean(counts)) if counts else 1.0,
        fresh=True,
    )


def _read_truths(store: Store, folder: str) -> list[tuple[int, float]]:
    """The label and the cells of every tile in a folder of shards."""
    files, root = filesystem(store)
    table = pq.read_table(f"{root}/{folder}", columns=["label", "count"], filesystem=files)
    return list(zip(table["label"].to_pylist(), table["count"].to_pylist(), strict=True))
