"""What a model says of the frames of a bank, scored per tile and per frame."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cellnet.bank.bank import Bank
from cellnet.bank.frames import Frame, read_pixels
from cellnet.bank.history import drawn
from cellnet.bank.splits import held_by_split
from cellnet.certainty.calibration import Calibration, count_interval, uncalibrated
from cellnet.errors import DataError
from cellnet.evaluation.batches import Answered, by_age, by_batch
from cellnet.evaluation.evaluations import Evaluation, Picture, worst_rows
from cellnet.evaluation.metrics import Rows
from cellnet.images.pictures import grey_picture
from cellnet.images.pixels import Pixels, normalise
from cellnet.images.scale import factor_between
from cellnet.images.tiles import Box
from cellnet.networks.saliency import grad_cam
from cellnet.prediction.density import density_map, in_picture
from cellnet.prediction.model import FrameOutputs
from cellnet.prediction.predictor import Predictor
from cellnet.registry.kept import KeptAnswer
from cellnet.registry.learned import Learned, Side
from cellnet.registry.records import Card, CrossValidation
from cellnet.store.objects import Store
from cellnet.training.tiles import count_inside

EvaluateSplit = Literal["train", "test", "holdout", "all", "folds"]
"""`folds`: frames that the version learned from, by the answers of networks that had not, which it keeps."""
ENOUGH_OTHERS: Final = 10
"""Frames that nobody chose, of which a score says something."""
PICTURE_PX: Final = (320, 640)
"""Long side of a frame of the report, at least and at most."""


@dataclass(frozen=True, kw_only=True)
class ScoredFrame:
    """A frame, the outputs of a model for it, and the truth."""

    frame: Frame
    outputs: FrameOutputs
    interval: tuple[float, float] | None
    """Of the frame's count, of a counter that gives one."""
    tile_counts: list[float]
    """The true ones."""

    def calibrated_by(self, predictor: Predictor) -> "ScoredFrame":
        """The same with the outputs of the network once it is calibrated."""
        outputs = predictor.calibrated(self.outputs)
        return replace(self, outputs=outputs, interval=predictor.interval(outputs))


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
    scored: list[ScoredFrame],
    bank: Bank,
    *,
    split: EvaluateSplit,
    lineage: str | None,
    left_out: list[LeftOut],
    learned: Learned | None = None,
    of_frames: int | None = None,
    folds: Mapping[str, int] | None = None,
    new: Sequence[ScoredFrame] = (),
    pictures: bool = False,
) -> Evaluation:
    """The scores of a model by frames that it was asked about, all or those of one `lineage`.

    `learned` is what shaped the model, None where nobody knows: the frames that it has seen are counted, and take no
    part in the scores by batch and by age. `of_frames` are those of the split, where only some of them were chosen.
    By `folds`, the fold of each frame is known; `new` are frames by networks that had learned from no frame of their
    batch, where there were such besides.
    """
    card = predictor.card
    frames = [one.frame for one in scored]
    answered = _answered(scored, card)
    tiles, whole = answered.tiles, answered.frames
    validation = card.cross_validation if split == "folds" else None
    apart = _apart(answered, frames, bank, learned, held_back=validation, folds=folds or {})
    if new:
        apart["batches"]["new"] = _answered(new, card).scores()
    scores = {
        "task": card.task,
        "model": predictor.ref,
        "split": split,
        "lineage": lineage,
        "of_frames": of_frames or len(scored) + len(left_out),
        "same_bank": card.bank_digest == bank.digest,
        "bank_digest": bank.digest,
        "bank_entry": bank.entry or None,
        "protocol": card.config.protocol,
        "cross_validation": _over(validation, scored).model_dump() if validation else None,
        "batch_validation": _over(card.batch_validation, new).model_dump() if card.batch_validation and new else None,
        "left_out": [frame.line for frame in left_out],
        "calibration": card.calibration.model_dump() if card.calibration else None,
        **answered.scores(),
        "chosen": _chosen(answered, frames, bank),
        "refitted": bool(card.cross_validation),
        **apart,
    }
    return Evaluation(
        scores=scores,
        tiles=tiles,
        frames=whole,
        sources=[frame.source for frame in frames],
        card=card,
        bank_digest=bank.digest,
        bank_entry=bank.entry,
        held=held_by_split(bank.frames),
        set_aside=[f"{frame.source}: {frame.set_aside}" for frame in bank.set_aside],
        worst=_worst(scored, whole, predictor, bank.store) if pictures else [],
    )


def _over(validation: CrossValidation, scored: Sequence[ScoredFrame]) -> CrossValidation:
    """A cross-validation, of these frames alone."""
    taken_over = {"frames": len(scored), "groups": len({one.frame.group for one in scored})}
    return validation.model_copy(update=taken_over)


def _answered(scored: Sequence[ScoredFrame], card: Card) -> Answered:
    """The frames as rows to score."""
    tiles = _of_tiles(scored, card)
    return Answered(
        task=card.task,
        classes=card.classes,
        tiles=tiles,
        frames=_of_frames(scored, card, tiles),
        tiles_of=[len(one.outputs.boxes) for one in scored],
    )


def _apart(
    answered: Answered,
    frames: list[Frame],
    bank: Bank,
    learned: Learned | None,
    *,
    held_back: CrossValidation | None,
    folds: Mapping[str, int],
) -> dict[str, Any]:
    """How many of the frames the model learned from, and the scores of the others by batch and by age.

    Of frames that were `held_back` each was answered by a network that had not learned from it, by its fold.
    """
    seen = learned.seen(frames, bank.frames) if learned and not held_back else set[str]()
    if held_back:
        sides = _sides_by_folds(frames, bank, learned, folds, by_batch=held_back.by_batch)
    else:
        sides = [learned.side(frame.batch) if learned and frame.frame not in seen else None for frame in frames]
    ages_h = [None if frame.frame in seen else frame.time_h for frame in frames]
    return {
        "learned": len(seen) if learned else None,
        "batches": by_batch(answered, sides),
        "by_age": by_age(answered, ages_h),
    }


def _chosen(answered: Answered, frames: list[Frame], bank: Bank) -> dict[str, Any] | None:
    """How many of the frames were chosen for what they teach, and the scores of the `others`, where they are enough."""
    how = drawn(bank.labels)
    other_N = np.array([how.get(frame.frame) != "chosen" for frame in frames])
    if other_N.all():
        return None
    others = answered.scores(other_N) if other_N.sum() >= ENOUGH_OTHERS else None
    return {"frames": int((~other_N).sum()), "of": len(frames), "others": others}


def _sides_by_folds(
    frames: list[Frame], bank: Bank, learned: Learned | None, folds: Mapping[str, int], *, by_batch: bool
) -> list[Side | None]:
    """Whether the network that answered a frame had learned from others of its batch, by the folds of frames.

    What is in no fold taught them all. Frames of no known batch could be of any, unless batches were to be left out.
    """
    folds_of_batch: dict[str | None, set[int]] = {}
    for frame in bank.frames:
        if frame.frame in folds or (learned and frame.frame in learned.frames):
            folds_of_batch.setdefault(frame.batch, set()).add(folds.get(frame.frame, 0))

    def side_of(frame: Frame) -> Side | None:
        if frame.batch is None:
            return None
        if folds_of_batch[frame.batch] != {folds[frame.frame]}:
            return "same"
        return "new" if by_batch or None not in folds_of_batch else None

    return list(map(side_of, frames))


def score_frame(predictor: Predictor, frame: Frame, store: Store, *, with_features: bool) -> ScoredFrame:
    """Ask a model about a frame of a bank. Raises DataError or NotFoundError for one that cannot be used."""
    image_HW = read_pixels(store, frame)
    outputs = predictor.predict(image_HW, pixel_um=frame.pixel_um, with_features=with_features)
    return ScoredFrame(
        frame=frame,
        outputs=outputs,
        interval=predictor.interval(outputs),
        tile_counts=_counts_inside(frame, outputs.boxes, outputs.factor),
    )


def _counts_inside(frame: Frame, boxes: Sequence[Box], factor: float) -> list[float]:
    """Cells in each tile of a frame that was resized by a factor."""
    size = (max(box.bottom for box in boxes), max(box.right for box in boxes))
    return [count_inside(frame, box, size, factor) for box in boxes]


def kept_answer(scored: ScoredFrame, card: Card, *, fold: int, distance_N: NDArray[np.float64] | None) -> KeptAnswer:
    """What a version keeps of the outputs, before calibration, of a network that had not learned from the frame."""
    classifies = card.task == "classify"
    label = card.classes.index(str(scored.frame.lineage)) if classifies else 0
    return KeptAnswer(
        frame=scored.frame.frame,
        fold=fold,
        boxes=scored.outputs.boxes,
        truth_N=np.array([label] * len(scored.tile_counts) if classifies else scored.tile_counts, np.float64),
        tile_outputs=scored.outputs.tile_outputs,
        distance_N=distance_N,
    )


def scored_by(answer: KeptAnswer, frame: Frame, predictor: Predictor) -> ScoredFrame:
    """The frame with the answer that was kept of it, calibrated as the model's own answers are.

    What is true of its tiles is what is said of the frame by now, not what was when the answer was kept.
    """
    raw = FrameOutputs(magnification="assumed", boxes=answer.boxes, tile_outputs=answer.tile_outputs, factor=1.0)
    outputs = predictor.calibrated(raw)
    if predictor.familiarity and answer.distance_N is not None:
        outputs = replace(outputs, strangeness_N=answer.distance_N / predictor.familiarity.threshold)
    factor = max(box.bottom for box in answer.boxes) / frame.height
    with contextlib.suppress(DataError):  # a pixel size that was told since, of which these tiles know nothing
        exact = factor_between(frame.pixel_um, predictor.card.preprocess.pixel_um)
        factor = exact if abs(exact - factor) * frame.height < 1 else factor
    counts = _counts_inside(frame, answer.boxes, factor)
    return ScoredFrame(frame=frame, outputs=outputs, interval=predictor.interval(outputs), tile_counts=counts)


def _of_tiles(scored: Sequence[ScoredFrame], card: Card) -> Rows:
    """The tiles as rows."""
    frames = [frame.frame for frame in scored for _ in frame.outputs.boxes]
    counts = [count for frame in scored for count in frame.tile_counts]
    output = np.concatenate([frame.outputs.tile_outputs for frame in scored]).astype(np.float64)
    strangeness = [frame.outputs.strangeness_N for frame in scored if frame.outputs.strangeness_N is not None]
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


def _of_frames(scored: Sequence[ScoredFrame], card: Card, tiles: Rows) -> Rows:
    """Likewise the frames, by their pooled outputs."""
    frames, outputs = [frame.frame for frame in scored], [frame.outputs for frame in scored]
    intervals = [frame.interval for frame in scored if frame.interval]
    flags = [pooled.unfamiliar for pooled in outputs if pooled.unfamiliar is not None]
    classifies = card.task == "classify"
    raw = None
    if tiles.raw is not None:
        ends = np.cumsum([len(pooled.boxes) for pooled in outputs])[:-1]
        parts = zip(outputs, np.split(tiles.raw, ends), strict=True)
        raw = np.array([np.average(part_NK, axis=0, weights=pooled.weights_N) for pooled, part_NK in parts])
    return Rows(
        truth=np.array([card.classes.index(str(frame.lineage)) if classifies else frame.count for frame in frames]),
        output=np.array([pooled.probability_K if classifies else pooled.count for pooled in outputs]),
        lineages=[frame.lineage for frame in frames],
        groups=[frame.group for frame in frames],
        raw=raw,
        interval=np.array(intervals) if len(intervals) == len(scored) else None,
        unfamiliar=np.array(flags) if flags else None,
    )


def _worst(scored: list[ScoredFrame], frames: Rows, predictor: Predictor, store: Store) -> list[Picture]:
    """The frames with the largest error, each with its worst tile, what was found and where the network looks."""
    return [
        _picture(row, scored[row], predictor, read_pixels(store, scored[row].frame))
        for row in worst_rows(predictor.task, frames)
    ]


def _picture(row: int, worst: ScoredFrame, predictor: Predictor, image_HW: Pixels) -> Picture:
    """A frame of large error, whose lineage or count is known, as a person should see it."""
    frame, outputs, classes = worst.frame, worst.outputs.tile_outputs, predictor.card.classes
    if predictor.task == "classify":
        truth_N = np.full(len(outputs), float(classes.index(str(frame.lineage))))
        error_N, shown = -outputs[:, int(truth_N[0])], int(worst.outputs.probability_K.argmax())
        found_HW = None
    else:
        truth_N = np.array(worst.tile_counts)
        error_N, shown = np.abs(outputs - np.nan_to_num(truth_N)), None
        _, found_HW = density_map(predictor, image_HW, frame.pixel_um, sides_px=PICTURE_PX)
    tile = int(error_N.argmax())
    tile_HW = predictor.cut(image_HW, frame.pixel_um).tiles[tile]
    input_1HW = torch.from_numpy(normalise(tile_HW[None], predictor.card.preprocess)[0])
    frame_HW = grey_picture(image_HW, predictor.card.preprocess.intensity, PICTURE_PX)
    height, width = frame_HW.shape
    scale_2 = np.array([width / image_HW.shape[1], height / image_HW.shape[0]], np.float32)
    return Picture(
        row=row,
        frame_HW=frame_HW,
        box=in_picture(worst.outputs.boxes, (height, width))[tile],
        tile_HW=tile_HW,
        cam_HW=grad_cam(predictor.network, input_1HW, shown),
        truth=float(truth_N[tile]),
        output=outputs[tile],
        found_HW=found_HW,
        centres_N2=None if frame.centres_N2 is None else frame.centres_N2 * scale_2,
    )
