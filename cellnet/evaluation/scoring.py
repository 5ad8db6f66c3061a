"""What a model says of the frames of a bank, scored per tile and per frame."""

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from cellnet.bank.bank import Bank
from cellnet.bank.frames import Frame, read_pixels
from cellnet.certainty.calibration import Calibration, count_interval, uncalibrated
from cellnet.evaluation.evaluations import Evaluation, Picture, worst_rows
from cellnet.evaluation.metrics import Rows, score
from cellnet.images.pixels import normalise
from cellnet.networks.saliency import grad_cam
from cellnet.prediction.model import FramePrediction
from cellnet.prediction.predictor import Predictor
from cellnet.registry.records import Card
from cellnet.store.objects import Store
from cellnet.training.tiles import count_inside

EvaluateSplit = Literal["train", "test", "holdout", "all"]


@dataclass(frozen=True, kw_only=True)
class Said:
    """A frame, and what the model says of it."""

    frame: Frame
    prediction: FramePrediction
    interval: tuple[float, float] | None
    """Of the frame's count, of a counter that gives one."""
    tile_counts: list[float]
    """The true ones."""

    def calibrated_by(self, predictor: Predictor) -> "Said":
        """What the same network says once it is calibrated."""
        prediction = predictor.calibrated(self.prediction)
        interval = predictor.interval(prediction) if predictor.task == "count" else None
        return replace(self, prediction=prediction, interval=interval)


class LeftOut(NamedTuple):
    """A frame that cannot be used."""

    frame: Frame
    reason: str

    @property
    def line(self) -> str:
        """For a person."""
        return f"{self.frame.source}: {self.reason.removeprefix(f'{self.frame.source}: ')}"


def evaluation_of(
    predictor: Predictor,
    said: list[Said],
    bank: Bank,
    *,
    split: EvaluateSplit,
    lineage: str | None,
    left_out: list[LeftOut],
    of_frames: int | None = None,
    pictures: bool = False,
) -> Evaluation:
    """The scores of what a model said of frames, all or those of one `lineage`.

    `of_frames` are those of the split, where only some of them were drawn.
    """
    card = predictor.card
    tiles = _of_tiles(said, card)
    whole = _of_frames(said, card, tiles)
    scores = {
        "task": card.task,
        "model": predictor.ref,
        "split": split,
        "lineage": lineage,
        "of_frames": of_frames or len(said) + len(left_out),
        "same_bank": card.bank_digest == bank.digest,
        "protocol": card.config.protocol,
        "left_out": [one.line for one in left_out],
        "calibration": card.calibration.model_dump() if card.calibration else None,
        "tile": score(card.task, tiles, card.classes),
        "frame": score(card.task, whole, card.classes),
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
        worst=_worst(said, whole, predictor, bank.store) if pictures else [],
    )


def say_frame(predictor: Predictor, frame: Frame, store: Store, *, with_features: bool) -> Said:
    image_HW = read_pixels(store, frame)
    prediction = predictor.predict(image_HW, pixel_um=frame.pixel_um, with_features=with_features)
    boxes = prediction.boxes
    size = (max(box.bottom for box in boxes), max(box.right for box in boxes))
    return Said(
        frame=frame,
        prediction=prediction,
        interval=predictor.interval(prediction) if predictor.task == "count" else None,
        tile_counts=[count_inside(frame, box, size, prediction.factor) for box in boxes],
    )


def _of_tiles(said: list[Said], card: Card) -> Rows:
    """The tiles as rows."""
    frames = [one.frame for one in said for _ in one.prediction.boxes]
    counts = [count for one in said for count in one.tile_counts]
    output = np.concatenate([one.prediction.tile_outputs for one in said]).astype(np.float64)
    strangeness = [one.prediction.strangeness_N for one in said if one.prediction.strangeness_N is not None]
    calibration = card.calibration or Calibration(tiles=0, frames=0)
    quantile = calibration.tile_quantile
    classifies = card.task == "classify"
    return Rows(
        truth=np.array([card.classes.index(str(frame.lineage)) for frame in frames] if classifies else counts),
        output=output,
        lineages=[frame.lineage for frame in frames],
        groups=[frame.group for frame in frames],
        raw=uncalibrated(output, calibration.temperature) if classifies else None,
        interval=count_interval(output, quantile) if quantile is not None else None,
        unfamiliar=np.concatenate(strangeness) > 1 if strangeness else None,
    )


def _of_frames(said: list[Said], card: Card, tiles: Rows) -> Rows:
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
    return Rows(
        truth=np.array([card.classes.index(str(frame.lineage)) if classifies else frame.count for frame in frames]),
        output=np.array([one.prediction.probability_K if classifies else one.prediction.count for one in said]),
        lineages=[frame.lineage for frame in frames],
        groups=[frame.group for frame in frames],
        raw=raw,
        interval=np.array(intervals) if len(intervals) == len(said) else None,
        unfamiliar=np.array(flags) if flags else None,
    )


def _worst(said: list[Said], frames: Rows, predictor: Predictor, store: Store) -> list[Picture]:
    """The frames with the largest error, each with its worst tile and where the network looks in it."""
    pictures = []
    for row in worst_rows(predictor.task, frames):
        one, truth = said[row], frames.truth[row]
        outputs = one.prediction.tile_outputs
        label = int(truth) if predictor.task == "classify" else None
        error_N = -outputs[:, label] if label is not None else np.abs(outputs - np.nan_to_num(one.tile_counts))
        tile_HW = predictor.cut(read_pixels(store, one.frame), one.frame.pixel_um).tiles[int(error_N.argmax())]
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
