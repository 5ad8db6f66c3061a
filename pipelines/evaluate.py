"""Score a published model on a split of a bank: every frame once, per tile and per frame, by Ray Data.

A Ray job, like `cellnet evaluate`:

    python -m pipelines.evaluate classifier:champion BANK [--split holdout] [--json]
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import ray.data
from numpy.typing import NDArray

from cellnet import metrics
from cellnet.augment import count_inside
from cellnet.bank import Frame, read_pixels
from cellnet.errors import DataError, NotFoundError
from cellnet.predictor import FramePrediction, Predictor
from cellnet.registry import Registry
from cellnet.report import Evaluation
from cellnet.store import Store
from pipelines import cluster
from pipelines.places import Places
from pipelines.shards import labelled_frames

EvaluateSplit = Literal["train", "test", "holdout", "all"]


def evaluate(ref: str, places: Places, *, split: EvaluateSplit = "holdout") -> Evaluation:
    """The scores of a model over the frames of a split, every one of them once.

    Tiles are cut as in serving; a tile's true count is the number of known centres inside it, else its share of
    the frame's. A frame that cannot be read or is too small is left out and named in the scores. Raises DataError
    when the split is empty, holds lineages that the model does not know, or has no frame that can be used.
    """
    bank = places.open_bank()
    registry = places.open_registry()
    version = registry.resolve(ref)
    card = version.card
    frames = [frame for frame in labelled_frames(bank, card.task) if split in ("all", frame.split)]
    if not frames:
        raise DataError(f"{places.bank} has no frames in its {split} split; try --split holdout or --split all")
    unknown = {frame.lineage for frame in frames} - set(card.classes) if card.task == "classify" else set()
    if unknown:
        names = ", ".join(sorted(map(str, unknown)))
        raise DataError(
            f"{version.ref} knows {', '.join(card.classes)}, but {places.bank} holds {names}; "
            "evaluate a model that was trained on these lineages"
        )
    cluster.connect()
    rows = (
        ray.data.from_items([{"frame": frame} for frame in frames], override_num_blocks=cluster.blocks(len(frames)))
        .map_batches(
            _say_batch,
            fn_kwargs={"registry": registry, "ref": version.ref, "store": bank.store},
            batch_size=8,
            batch_format="numpy",
        )
        .take_all()
    )
    said = [Said(**row) for row in rows if not row["left_out"]]
    left_out = [f"{row['frame'].source}: {row['left_out']}" for row in rows if row["left_out"]]
    if not said:
        raise DataError(f"no frame of {places.bank} can be used; the first of {len(rows)}, {left_out[0]}")
    label: dict[str | None, int] | None = None
    if card.task == "classify":
        label = {lineage: index for index, lineage in enumerate(card.classes)}
    tiles, whole = _of_tiles(said, label), _of_frames(said, label)
    scores = {
        "task": card.task,
        "model": version.ref,
        "split": split,
        "same_bank": card.bank_digest == bank.digest,
        "protocol": card.config.protocol,
        "left_out": left_out,
        "tile": metrics.score(card.task, tiles, card.classes),
        "frame": metrics.score(card.task, whole, card.classes),
    }
    return Evaluation(scores=scores, tiles=tiles, frames=whole, sources=[one.frame.source for one in said])


@dataclass(frozen=True, kw_only=True)
class Said:
    """A frame, and what the model says of it."""

    frame: Frame
    prediction: FramePrediction
    tile_counts: list[float]
    """The true ones."""
    left_out: str = ""


def _say_batch(batch: dict[str, Any], registry: Registry, ref: str, store: Store) -> Iterator[dict[str, Any]]:
    predictor = cluster.load_once(registry, ref)
    for frame in batch["frame"]:
        yield {key: _cell(value) for key, value in _say(predictor, frame, store).items()}


def _say(predictor: Predictor, frame: Frame, store: Store) -> dict[str, Any]:
    """The fields of `Said`; `left_out` says why the others are None."""
    try:
        prediction = predictor.predict(read_pixels(store, frame), pixel_um=frame.pixel_um)
    except (DataError, NotFoundError) as error:
        reason = str(error).removeprefix(f"{frame.source}: ")
        return {"frame": frame, "prediction": None, "tile_counts": None, "left_out": reason}
    boxes = prediction.boxes
    size = (max(box.bottom for box in boxes), max(box.right for box in boxes))
    counts = [count_inside(frame, box, size, prediction.factor) for box in boxes]
    return {"frame": frame, "prediction": prediction, "tile_counts": counts, "left_out": ""}


def _cell(value: Any) -> NDArray[Any]:
    """Any object as a column of one row."""
    cell = np.empty(1, object)
    cell[0] = value
    return cell


def _of_tiles(said: list[Said], label: dict[str | None, int] | None) -> metrics.Rows:
    """The tiles as rows; `label` is the index of each lineage, for a classifier."""
    frames = [one.frame for one in said for _ in one.prediction.boxes]
    counts = [count for one in said for count in one.tile_counts]
    return metrics.Rows(
        truth=np.array([label[frame.lineage] for frame in frames] if label else counts),
        output=np.concatenate([one.prediction.tile_outputs for one in said]).astype(np.float64),
        lineages=[frame.lineage for frame in frames],
        groups=[frame.group for frame in frames],
    )


def _of_frames(said: list[Said], label: dict[str | None, int] | None) -> metrics.Rows:
    """Likewise the frames, by their pooled outputs."""
    frames = [one.frame for one in said]
    return metrics.Rows(
        truth=np.array([label[frame.lineage] if label else frame.count for frame in frames]),
        output=np.array([one.prediction.probability_K if label else one.prediction.count for one in said]),
        lineages=[frame.lineage for frame in frames],
        groups=[frame.group for frame in frames],
    )


if __name__ == "__main__":
    import sys

    from cellnet.cli import main

    sys.exit(main(["evaluate", *sys.argv[1:]]))
