"""What is done to trained weights before they are published: calibrated, exported to ONNX, and reported on."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cellnet.bank.bank import Bank
from cellnet.bank.frames import Frame, read_pixels
from cellnet.bank.labels import labelled_frames
from cellnet.certainty.calibration import Calibration, calibrate_classifier, calibrate_counter
from cellnet.certainty.familiarity import FAMILIARITY, Familiarity, fit_familiarity
from cellnet.config.choices import Split
from cellnet.errors import DataError
from cellnet.evaluation.batches import SIDES
from cellnet.evaluation.scoring import LeftOut, ScoredFrame, evaluation_of
from cellnet.networks.weights import weights_from_bytes
from cellnet.prediction.export import compare, to_onnx
from cellnet.prediction.predictor import Predictor, predictor_of
from cellnet.registry.learned import Learned, frames_to_bytes
from cellnet.registry.records import LEARNED, ONNX, REPORT, Card, MainScore
from cellnet.reports.evaluation_report import report_page
from cellnet.tasks import TASKS
from cellnet.untrusted import WEIGHTS
from pipelines.evaluate import score_frames
from pipelines.runs import Say

MOST_FRAMES: Final = 400
"""Of a split: enough to learn what its tiles look like."""
SPLITS: Final[tuple[Split, ...]] = ("train", "test", "holdout")
COMPARED: Final = 8
"""Tiles on which the ONNX export is compared with torch."""


def finished(
    name: str, bank: Bank, card: Card, weights: bytes, *, learned: Learned | None, say: Say
) -> tuple[Card, dict[str, bytes]]:
    """The card and all files of a version of `name`: weights, familiarity, ONNX, what it learned from, and the report.

    The last two where they can be made: `learned` is what shaped the weights, None where nobody knows. Raises DataError
    where no training frame can be used, and IntegrityError where the export gives other answers.
    """
    fitted = _fitted(f"{name} (this version)", bank, card, weights)
    predictor, familiarity = fitted.predictor, fitted.familiarity
    onnx = to_onnx(predictor)
    check = compare(predictor, onnx, _compared_tiles(predictor, bank, fitted.frames))
    predictor.card = predictor.card.model_copy(update={"onnx": check})
    files = {WEIGHTS: weights, FAMILIARITY: familiarity.to_bytes(), ONNX: onnx}
    if learned:
        learned |= Learned.of(fitted.frames)
        files[LEARNED] = frames_to_bytes(learned.frames)
        told = {"batches": learned.listed_batches, "batch_scores": _batch_scores(fitted, bank, learned)}
        predictor.card = predictor.card.model_copy(update=told)
    if fitted.test:
        files[REPORT] = _report(fitted, bank, learned)
    elif card.config.protocol == "paper":
        say("published without a report: under protocol=paper it was trained on frames of the test split")
    else:
        say("published without a report: the bank has no test frames that can be used")
    return predictor.card, files


@dataclass(frozen=True, kw_only=True)
class _Fitted:
    """A model that knows how sure it may be, and its outputs for the frames that this was learnt from."""

    predictor: Predictor
    familiarity: Familiarity
    frames: list[Frame]
    """Those that can be used, of training and test."""
    test: list[ScoredFrame]
    """Test frames with the outputs of the calibrated model."""
    holdout: list[ScoredFrame]
    """Likewise frames of the holdout, which take no part in any fit."""
    left_out: list[LeftOut]
    """Test frames that cannot be used."""
    test_frames: int
    """Of the whole split."""


def _fitted(ref: str, bank: Bank, card: Card, weights: bytes) -> _Fitted:
    """Without a test split nothing is calibrated."""
    tensors = weights_from_bytes(weights, ref)
    raw = predictor_of(ref, card.model_copy(update={"calibration": None}), tensors)
    train, test, holdout = (_labelled(bank, card, split) for split in SPLITS)
    chosen = [frame for frames in (train, test, holdout) for frame in _choose(frames, seed=card.config.seed)]
    scored, left_out = score_frames(raw, chosen, bank.store, with_features=True)
    known, unseen, held_out = ([frame for frame in scored if frame.frame.split == split] for split in SPLITS)
    if not known:
        raise DataError(f"no training frame of {bank.store.uri} can be used")
    familiarity = fit_familiarity(_features(known), _features(unseen))
    done = card.model_copy(update={"calibration": _calibration(card, unseen)})
    predictor = predictor_of(ref, done, tensors, familiarity)
    return _Fitted(
        predictor=predictor,
        familiarity=familiarity,
        frames=[frame.frame for frame in [*known, *unseen]],
        test=[frame.calibrated_by(predictor) for frame in unseen],
        holdout=[frame.calibrated_by(predictor) for frame in held_out],
        left_out=[frame for frame in left_out if frame.frame.split == "test"],
        test_frames=len(test),
    )


def _labelled(bank: Bank, card: Card, split: Split) -> list[Frame]:
    """The frames of a split that the model has an answer to, and was not trained on if they are for testing."""
    if split == "test" and card.config.protocol == "paper":
        return []
    frames = [frame for frame in labelled_frames(bank, card.task, card.config.lineage) if frame.split == split]
    return frames if card.task == "count" else [frame for frame in frames if frame.lineage in card.classes]


def _choose(frames: list[Frame], *, seed: int) -> list[Frame]:
    """All, or so many at random."""
    order = np.random.default_rng(seed).permutation(len(frames))[:MOST_FRAMES]
    return [frames[i] for i in sorted(order)]


def _features(scored: list[ScoredFrame]) -> list[NDArray[np.float32]]:
    return [frame.outputs.features_ND for frame in scored if frame.outputs.features_ND is not None]


def _calibration(card: Card, test: list[ScoredFrame]) -> Calibration:
    if not test:
        return Calibration(tiles=0, frames=0)
    outputs = [frame.outputs.tile_outputs.astype(np.float64) for frame in test]
    if card.task == "classify":
        labels = [np.full(len(frame.tile_counts), card.classes.index(str(frame.frame.lineage))) for frame in test]
        return calibrate_classifier(np.concatenate(labels), np.concatenate(outputs), frames=len(test))
    return calibrate_counter(
        [(np.array(frame.tile_counts), output_N) for frame, output_N in zip(test, outputs, strict=True)],
        np.array([frame.frame.count for frame in test], np.float64),
        np.array([frame.outputs.count for frame in test]),
    )


def _compared_tiles(predictor: Predictor, bank: Bank, frames: list[Frame]) -> list[NDArray[np.uint8]]:
    """Tiles of frames from all over the bank; turned ones too, where there are few."""
    chosen = [frames[i] for i in sorted(set(np.linspace(0, len(frames) - 1, COMPARED).astype(int)))]
    tiles = [tile for frame in chosen for tile in predictor.cut(read_pixels(bank.store, frame), frame.pixel_um).tiles]
    varied = [np.rot90(tile_HW, quarter) for quarter in range(4) for tile_HW in tiles]
    varied = tiles if len(tiles) >= COMPARED else varied
    return [varied[i] for i in sorted(set(np.linspace(0, len(varied) - 1, COMPARED).astype(int)))]


def _batch_scores(fitted: _Fitted, bank: Bank, learned: Learned) -> dict[str, dict[str, MainScore] | None]:
    """The main score over the frames of the holdout, by whether the model learned from their batches."""
    if not fitted.holdout:
        return dict.fromkeys(SIDES)
    card = fitted.predictor.card
    evaluation = evaluation_of(
        fitted.predictor,
        fitted.holdout,
        bank,
        split="holdout",
        lineage=card.config.lineage,
        left_out=[],
        learned=learned,
    )
    main = TASKS[card.task].main
    return {
        side: of
        and {
            unit: MainScore(score=main, value=row[main], interval=row[f"{main}_interval"], n=row["n"])
            for unit, row in of.items()
        }
        for side, of in evaluation.scores["batches"].items()
    }


def _report(fitted: _Fitted, bank: Bank, learned: Learned | None) -> bytes:
    evaluation = evaluation_of(
        fitted.predictor,
        fitted.test,
        bank,
        split="test",
        lineage=fitted.predictor.card.config.lineage,
        left_out=fitted.left_out,
        learned=learned,
        of_frames=fitted.test_frames,
        pictures=True,
    )
    return report_page(evaluation).encode()
