"""Score a published model on a split of a bank: every frame once, per tile and per frame, by Ray Data.

A Ray job, like `cellnet evaluate`:

    python -m pipelines.evaluate classifier:champion BANK [--split holdout] [--json]
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import ray.data
import torch
from numpy.typing import NDArray

from cellnet import metrics
from cellnet.augment import count_inside, frame_at_scale
from cellnet.bank import Frame, read_pixels
from cellnet.calibration import Calibration, count_interval, uncalibrated
from cellnet.errors import DataError, NotFoundError
from cellnet.evaluation import Evaluation, Picture, worst_rows
from cellnet.images import normalise, to_network_size
from cellnet.predictor import FramePrediction, Predictor
from cellnet.registry import Card, Registry
from cellnet.saliency import grad_cam
from cellnet.store import Store
from pipelines import cluster
from pipelines.places import Places
from pipelines.shards import labelled_frames

EvaluateSplit = Literal["train", "test", "holdout", "all"]


def evaluate(ref: str, places: Places, *, split: EvaluateSplit = "holdout", pictures: bool = False) -> Evaluation:
    """The scores of a model over the frames of a split, every one of them once.

    Tiles are cut as in serving; a tile's true count is the number of known centres inside it, else its share of
    the frame's. With `pictures`, the worst frames are kept with what the network sees in them. A frame that cannot be
    read or is too small is left out and named in the scores. Raises DataError
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
    tiles = _of_tiles(said, card)
    whole = _of_frames(said, card, tiles)
    scores = {
        "task": card.task,
        "model": version.ref,
        "split": split,
        "same_bank": card.bank_digest == bank.digest,
        "protocol": card.config.protocol,
        "left_out": left_out,
        "calibration": card.calibration.model_dump() if card.calibration else None,
        "tile": metrics.score(card.task, tiles, card.classes),
        "frame": metrics.score(card.task, whole, card.classes),
    }
    return Evaluation(
        scores=scores,
        tiles=tiles,
        frames=whole,
        sources=[one.frame.source for one in said],
        card=card,
        bank_digest=bank.digest,
        held=_held(bank.frames),
        set_aside=[f"{frame.source}: {frame.set_aside}" for frame in bank.set_aside],
        worst=_worst(said, whole, Predictor.load(registry, version.ref), bank.store) if pictures else [],
    )


@dataclass(frozen=True, kw_only=True)
class Said:
    """A frame, and what the model says of it."""

    frame: Frame
    prediction: FramePrediction
    interval: tuple[float, float] | None
    """Of the frame's count, of a counter that gives one."""
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
        return {"frame": frame, "prediction": None, "interval": None, "tile_counts": None, "left_out": reason}
    boxes = prediction.boxes
    size = (max(box.bottom for box in boxes), max(box.right for box in boxes))
    counts = [count_inside(frame, box, size, prediction.factor) for box in boxes]
    interval = predictor.interval(prediction) if predictor.task == "count" else None
    return {"frame": frame, "prediction": prediction, "interval": interval, "tile_counts": counts, "left_out": ""}


def _cell(value: Any) -> NDArray[Any]:
    """Any object as a column of one row."""
    cell = np.empty(1, object)
    cell[0] = value
    return cell


def _of_tiles(said: list[Said], card: Card) -> metrics.Rows:
    """The tiles as rows."""
    frames = [one.frame for one in said for _ in one.prediction.boxes]
    counts = [count for one in said for count in one.tile_counts]
    output = np.concatenate([one.prediction.tile_outputs for one in said]).astype(np.float64)
    strangeness = [one.prediction.strangeness_N for one in said if one.prediction.strangeness_N is not None]
    calibration = card.calibration or Calibration(tiles=0, frames=0)
    quantile = calibration.tile_quantile
    classifies = card.task == "classify"
    return metrics.Rows(
        truth=np.array([card.classes.index(str(frame.lineage)) for frame in frames] if classifies else counts),
        output=output,
        lineages=[frame.lineage for frame in frames],
        groups=[frame.group for frame in frames],
        raw=uncalibrated(output, calibration.temperature) if classifies else None,
        interval=count_interval(output, quantile) if quantile is not None else None,
        unfamiliar=np.concatenate(strangeness) > 1 if strangeness else None,
    )


def _of_frames(said: list[Said], card: Card, tiles: metrics.Rows) -> metrics.Rows:
    """Likewise the frames, by their pooled outputs."""
    frames = [one.frame for one in said]
    intervals = [one.interval for one in said if one.interval]
    flags = [one.prediction.unfamiliar for one in said if one.prediction.unfamiliar is not None]
    classifies = card.task == "classify"
    raw = None
    if tiles.raw is not None:
        ends = np.cumsum([len(one.prediction.boxes) for one in said])[:-1]
        parts = zip(said, np.split(tiles.raw, ends), strict=True)
        raw = np.array([np.average(part_NK, axis=0, weights=one.prediction.weights_N) for one, part_NK in parts])
    return metrics.Rows(
        truth=np.array([card.classes.index(str(frame.lineage)) if classifies else frame.count for frame in frames]),
        output=np.array([one.prediction.probability_K if classifies else one.prediction.count for one in said]),
        lineages=[frame.lineage for frame in frames],
        groups=[frame.group for frame in frames],
        raw=raw,
        interval=np.array(intervals) if len(intervals) == len(said) else None,
        unfamiliar=np.array(flags) if flags else None,
    )


def _worst(said: list[Said], frames: metrics.Rows, predictor: Predictor, store: Store) -> list[Picture]:
    """The frames with the largest error, each with its worst tile and where the network looks in it."""
    pictures = []
    for row in worst_rows(predictor.task, frames):
        one, truth = said[row], frames.truth[row]
        outputs = one.prediction.tile_outputs
        label = int(truth) if predictor.task == "classify" else None
        error_N = -outputs[:, label] if label is not None else np.abs(outputs - np.nan_to_num(one.tile_counts))
        box = one.prediction.boxes[int(error_N.argmax())]
        grey_HW, _ = frame_at_scale(read_pixels(store, one.frame), one.frame.pixel_um, predictor.card.preprocess)
        tile_HW = to_network_size(box.pixels(grey_HW))
        input_1HW = torch.from_numpy(normalise(tile_HW[None], predictor.card.preprocess)[0])
        shown = int(frames.output[row].argmax()) if label is not None else None
        pictures.append(Picture(row=row, tile_HW=tile_HW, cam_HW=grad_cam(predictor.network, input_1HW, shown)))
    return pictures


def _held(frames: list[Frame]) -> list[dict[str, Any]]:
    """Frames and groups of every lineage and split."""
    parts: dict[tuple[str, str], list[Frame]] = {}
    for frame in frames:
        parts.setdefault((frame.lineage or "not known", str(frame.split)), []).append(frame)
    return [
        {"lineage": lineage, "split": split, "frames": len(held), "groups": len({frame.group for frame in held})}
        for (lineage, split), held in sorted(parts.items())
    ]


if __name__ == "__main__":
    import sys

    from cellnet.cli import main

    sys.exit(main(["evaluate", *sys.argv[1:]]))
