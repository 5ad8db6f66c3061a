"""The answers that a version keeps: of frames that it learned from, by networks that had not learned from their group.

A Parquet table, a row a tile and the tiles of a frame together: the frame's sha256, the fold that held it back, the
tile's place and weight in the frame, what is true of it, and what the network of the fold said, before calibration.
It is read strictly, since whoever wrote it may have meant harm: nothing but these columns, and no more than `MOST`.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cellnet.errors import IntegrityError
from cellnet.images.tiles import Box
from cellnet.registry.records import Card
from cellnet.store.parquet import read_parquet

SCHEMA: Final = pa.schema(
    [
        ("frame", pa.string()),
        ("fold", pa.int16()),
        ("top", pa.int32()),
        ("left", pa.int32()),
        ("bottom", pa.int32()),
        ("right", pa.int32()),
        ("weight", pa.float64()),
        ("truth", pa.float64()),
        ("output", pa.list_(pa.float32())),
        ("distance", pa.float64()),
    ]
)
FORMAT: Final = 1
MOST: Final = 2**20
"""Tiles."""
MOST_BYTES: Final = 2**30
"""Of all columns, when they are read."""
PLACE: Final = ("top", "left", "bottom", "right")


@dataclass(frozen=True, kw_only=True)
class KeptAnswer:
    """What a network said of the tiles of a frame that it had not learned from."""

    frame: str
    """sha256 of the frame's pixels."""
    fold: int
    """From 1."""
    boxes: list[Box]
    """The tiles, in pixels of the frame as the network saw it."""
    truth_N: NDArray[np.float64]
    """Cells in each tile, NaN where that is not known; of a classifier the index of the lineage."""
    tile_outputs: NDArray[np.float32]
    """Probabilities (N, K) or counts (N,), before calibration."""
    distance_N: NDArray[np.float64] | None
    """How far each tile is from what the network of the fold learned from; None where that is not known."""


def answers_to_parquet(answers: Sequence[KeptAnswer]) -> bytes:
    """The table of some answers."""
    rows = [
        {
            "frame": answer.frame,
            "fold": answer.fold,
            **dict(zip(PLACE, box, strict=False)),
            "weight": box.weight,
            "truth": float(answer.truth_N[tile]),
            "output": np.atleast_1d(answer.tile_outputs[tile]).tolist(),
            "distance": None if answer.distance_N is None else float(answer.distance_N[tile]),
        }
        for answer in answers
        for tile, box in enumerate(answer.boxes)
    ]
    buffer = io.BytesIO()
    table = pa.Table.from_pylist(rows, schema=SCHEMA.with_metadata({"format": str(FORMAT)}))
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def answers_from_parquet(data: bytes, card: Card, what: str) -> list[KeptAnswer]:
    """What `answers_to_parquet` made of the answers of a model.

    Raises IntegrityError, naming `what`, for a table that is damaged, that a later cellnet wrote, or that does not fit
    the card.
    """
    try:
        table = _read(data)
        return _checked(table, max(len(card.classes), 1))
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        raise IntegrityError(f"{what} is not one: {' '.join(str(error).split())[:200]}") from error


def _read(data: bytes) -> pa.Table:
    """The table of a file that claims no more than is allowed. Raises ValueError, and what Arrow raises."""
    facts = pq.read_metadata(pa.BufferReader(data))
    size = sum(facts.row_group(group).total_byte_size for group in range(facts.num_row_groups))
    if facts.num_rows > MOST or size > MOST_BYTES:
        raise ValueError(f"it claims {facts.num_rows:,} tiles of {size:,} bytes; at most {MOST:,} are read")
    number = int((facts.metadata or {}).get(b"format", b"0"))
    if number != FORMAT:
        raise ValueError(f"it is of format {number}, and this cellnet reads {FORMAT}; update cellnet")
    table = read_parquet(data)
    if not table.schema.remove_metadata().equals(SCHEMA):
        raise ValueError(f"its columns are {', '.join(table.column_names)[:80]}, not {', '.join(SCHEMA.names)}")
    if any(table[name].null_count for name in SCHEMA.names if name != "distance"):
        raise ValueError("values are missing")
    return table


def _checked(table: pa.Table, outputs: int) -> list[KeptAnswer]:
    """The answers of a table, each with so many outputs a tile. Raises ValueError for values that cannot be."""
    column = {name: table[name].combine_chunks() for name in SCHEMA.names}
    output_NK = column["output"].flatten().to_numpy(zero_copy_only=False).reshape(-1, outputs)
    if len(output_NK) != len(table) or (column["output"].value_lengths().to_numpy() != outputs).any():
        raise ValueError(f"tiles have other than {outputs} outputs")
    place_N4 = np.stack([column[name].to_numpy() for name in PLACE], axis=1)
    weight_N, truth_N = column["weight"].to_numpy(), column["truth"].to_numpy()
    distance_N = column["distance"].to_numpy(zero_copy_only=False)
    fold_N, frames = column["fold"].to_numpy(), column["frame"].to_pylist()
    _require(np.isfinite(output_NK).all() and (output_NK >= 0).all(), "outputs are no probabilities or counts")
    _require((place_N4[:, :2] >= 0).all() and (place_N4[:, :2] < place_N4[:, 2:]).all(), "tiles lie nowhere")
    _require(((weight_N > 0) & (weight_N <= 1)).all(), "weights are not within 0 to 1")
    _require(not (truth_N < 0).any() and not np.isinf(truth_N).any(), "truths are no lineages or counts")
    _require(not (distance_N < 0).any() and not np.isinf(distance_N).any(), "distances are negative")
    _require((fold_N > 0).all(), "folds are numbered from 1")
    if outputs > 1:
        _require(np.allclose(output_NK.sum(1), 1, atol=1e-3), "probabilities do not add up to 1")
        _require(np.isin(truth_N, np.arange(outputs)).all(), "a lineage is none of the model's")
    sides = zip(*place_N4.T.tolist(), weight_N.tolist(), strict=True)
    boxes = [Box(top, left, bottom, right, weight) for top, left, bottom, right, weight in sides]
    starts = [row for row in range(len(frames)) if row == 0 or frames[row] != frames[row - 1]]
    named = [frames[row] for row in starts]
    _require(len(set(named)) == len(named), "the tiles of a frame are not together")
    _require(all(re.fullmatch(r"[0-9a-f]{64}", name) for name in named), "a frame is named by no sha256")
    answers = []
    for start, stop in zip(starts, [*starts[1:], len(frames)], strict=True):
        rows = slice(start, stop)
        known = not np.isnan(distance_N[rows]).any()
        answers.append(
            KeptAnswer(
                frame=frames[start],
                fold=int(fold_N[start]),
                boxes=boxes[rows],
                truth_N=truth_N[rows],
                tile_outputs=output_NK[rows] if outputs > 1 else output_NK[rows, 0],
                distance_N=distance_N[rows] if known else None,
            )
        )
    return answers


def _require(holds: Any, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
