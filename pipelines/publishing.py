"""What is done to trained weights before they are published: calibrated, exported to ONNX, and reported on."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cellnet.bank.bank import Bank
from cellnet.bank.columns import Frames
from cellnet.bank.folds import Folds
from cellnet.bank.frames import Frame, read_pixels
from cellnet.bank.teaching import labelled_frames
from cellnet.certainty.calibration import Calibration, calibrate_classifier, calibrate_counter
from cellnet.certainty.familiarity import FAMILIARITY, Familiarity, distances_between, fit_familiarity
from cellnet.config.choices import Split
from cellnet.errors import DataError
from cellnet.evaluation.batches import SIDES
from cellnet.evaluation.evaluations import Evaluation, chosen_of, main_scores
from cellnet.evaluation.scoring import LeftOut, ScoredFrame, evaluation_of, kept_answer, scored_by
from cellnet.networks.weights import weights_from_bytes
from cellnet.prediction.export import compare, to_onnx
from cellnet.prediction.predictor import Predictor, predictor_of
from cellnet.registry.kept import KeptAnswer, answers_to_parquet
from cellnet.registry.learned import Learned, frames_to_bytes
from cellnet.registry.records import ANSWERS, LEARNED, NEW_ANSWERS, ONNX, REPORT, Card, CrossValidation, MainScore
from cellnet.reports.evaluation_report import report_page
from cellnet.tasks import Task
from cellnet.training.plan import Plan
from cellnet.training.steering import steering
from cellnet.untrusted import WEIGHTS
from pipelines.evaluate import score_frames
from pipelines.runs import Say

MOST_FRAMES: Final = 400
"""Of a split: enough to learn what its tiles look like."""
SPLITS: Final[tuple[Split, ...]] = ("train", "test", "holdout")
COMPARED: Final = 8
"""Tiles on which the ONNX export is compared with torch."""


@dataclass(frozen=True, kw_only=True)
class HeldBack:
    """A network that stands in for the published one, which has learned from the frames that it is asked about."""

    weights: bytes
    """A safetensors file."""
    learned: Frames
    """What it learned from."""
    asked: Frames
    """What it is asked about."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training left: the chosen weights and how it went."""

    weights: bytes
    """A safetensors file."""
    scores: dict[str, Any]
    """Of the chosen epoch, over the test tiles; empty when the bank has no test split."""
    history: list[dict[str, Any]]
    held_back: tuple[HeldBack, ...] = ()
    """Networks that had not learned from frames that these weights have learned from."""
    cross_validation: CrossValidation | None = None
    """What these networks are."""
    batch_validation: CrossValidation | None = None
    """What those among them are, the last ones, that were asked about whole batches beside folds of groups."""


def cross_validated(
    weights: bytes, history: list[dict[str, Any]], bank: Bank, plan: Plan, networks: dict[int, bytes]
) -> Trained:
    """What a plan by folds left: weights that learned from all frames, and its networks, numbered as in the plan."""
    assert plan.folds is not None, "planned"
    frames = plan.among(bank.frames)
    return Trained(
        weights=weights,
        scores={},
        history=history,
        held_back=tuple(
            HeldBack(
                weights=networks[number],
                learned=frames.where(pc.invert(is_held)),
                asked=frames.where(is_held),
            )
            for number, held in plan.held_back.items()
            for is_held in [pc.is_in(frames.column("frame"), pa.array(held, pa.string()))]
        ),
        cross_validation=_validation_of(plan.folds),
        batch_validation=_validation_of(plan.batches) if plan.batches else None,
    )


def _validation_of(folds: Folds) -> CrossValidation:
    """What the networks of these folds are."""
    return CrossValidation(
        folds=folds.number,
        frames=len(folds.fold_of),
        groups=folds.groups,
        one_group=folds.one_group,
        unmeasured=folds.unmeasured,
        by_batch=folds.by_batch,
    )


def refitted(trained: Trained, weights: bytes, bank: Bank, plan: Plan) -> Trained:
    """What is published with these weights, which have learned from train and test: the first answer for the test."""
    learned, asked = (bank.frames.named_by("frame", plan.splits[split].frames) for split in ("train", "test"))
    return replace(
        trained,
        weights=weights,
        held_back=(HeldBack(weights=trained.weights, learned=learned, asked=asked),),
        cross_validation=CrossValidation(folds=1, frames=len(asked), groups=len(asked.counted("group"))),
    )


def finished(
    name: str,
    bank: Bank,
    card: Card,
    weights: bytes,
    *,
    learned: Learned | None,
    held_back: Sequence[HeldBack] = (),
    say: Say,
) -> tuple[Card, dict[str, bytes]]:
    """The card and all files of a version of `name`: weights, familiarity, ONNX, what it learned from, and the report.

    The last two where they can be made: `learned` is what shaped the weights, None where nobody knows. Of a version
    that learned from all labelled frames, `held_back` answer for it: by them it is calibrated and scored, and their
    answers are a file of the version. Raises DataError where no training frame can be used, and IntegrityError where
    the export gives other answers.
    """
    ref = f"{name} (this version)"
    fitted = _fitted_by(held_back, ref, bank, card, weights) if held_back else _fitted(ref, bank, card, weights)
    predictor, familiarity = fitted.predictor, fitted.familiarity
    onnx = to_onnx(predictor)
    check = compare(predictor, onnx, _compared_tiles(predictor, bank, fitted.frames))
    predictor.card = predictor.card.model_copy(update={"onnx": check})
    files = {WEIGHTS: weights, FAMILIARITY: familiarity.to_bytes(), ONNX: onnx}
    for role, answers in ((ANSWERS, fitted.answers), (NEW_ANSWERS, fitted.new_answers)):
        if answers:
            files[role] = answers_to_parquet(answers)
    if card.task == "count":
        names = {frame.lineage for frame in fitted.frames if frame.lineage is not None}
        predictor.card = predictor.card.model_copy(update={"lineages": tuple(sorted(names)) or None})
    if learned:
        learned |= Learned.of(fitted.frames)
        files[LEARNED] = frames_to_bytes(learned.frames)
        predictor.card = predictor.card.model_copy(update={"batches": learned.listed_batches})
    evaluation = _evaluated(fitted, bank, learned) if fitted.test else None
    if learned:
        by_batch = evaluation if fitted.answers else _holdout_evaluated(fitted, bank, learned)
        predictor.card = predictor.card.model_copy(update={"batch_scores": _main_scores(card.task, by_batch)})
    if evaluation:
        predictor.card = predictor.card.model_copy(update={"chosen": chosen_of(evaluation.scores)})
        files[REPORT] = report_page(evaluation).encode()
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
    """Likewise frames of the holdout whose batch is known, which take no part in any fit."""
    left_out: list[LeftOut]
    """Test frames that cannot be used."""
    test_frames: int
    """Of the whole split."""
    answers: list[KeptAnswer] = field(default_factory=list)
    """Of cross-validation."""
    new_answers: list[KeptAnswer] = field(default_factory=list)
    """Of networks without the frame's batch, beside that."""
    new: list[ScoredFrame] = field(default_factory=list)
    """What the calibrated model makes of these."""


def _fitted(ref: str, bank: Bank, card: Card, weights: bytes) -> _Fitted:
    """Without a test split nothing is calibrated."""
    tensors = weights_from_bytes(weights, ref)
    raw = predictor_of(ref, card.model_copy(update={"calibration": None}), tensors)
    of_splits = [_labelled(bank, card, split) for split in SPLITS]
    train, test, holdout = (_choose(frames, seed=card.config.seed) for frames in of_splits)
    # The holdout is asked for its scores by batch alone.
    chosen = [*train, *test, *(frame for frame in holdout if frame.batch is not None)]
    scored, left_out = score_frames(raw, chosen, bank.store, with_features=True, known=train)
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
        test_frames=len(of_splits[SPLITS.index("test")]),
    )


def _fitted_by(held_back: Sequence[HeldBack], ref: str, bank: Bank, card: Card, weights: bytes) -> _Fitted:
    """Likewise of a version that learned from all these frames, by networks that had not."""
    card = card.model_copy(update={"calibration": None})
    folds = card.cross_validation.folds if card.cross_validation else len(held_back)
    unseen: dict[str, ScoredFrame] = {}
    answers, new_answers = list[KeptAnswer](), list[KeptAnswer]()
    left_out: list[LeftOut] = []
    for fold, network in enumerate(held_back, start=1):
        beside = fold > folds
        scored, kept, missing = _ask(network, ref, bank, card, fold=fold - folds * beside)
        unseen |= {one.frame.frame: one for one in scored}  # where both, of the network without the frame's batch
        (new_answers if beside else answers).extend(kept)
        left_out += () if beside else missing
    if not answers:
        raise DataError(f"no frame of {bank.store.uri} that was held back can be used; the first, {left_out[0].line}")
    frames = {frame.frame: frame for network in held_back for frame in network.asked}
    tensors = weights_from_bytes(weights, ref)
    every = Frames.joined([held_back[0].learned, held_back[0].asked])
    chosen = _choose(every, seed=card.config.seed)
    raw = predictor_of(ref, card, tensors)
    known, _ = score_frames(raw, chosen, bank.store, with_features=True, known=chosen)
    apart = [answer.distance_N for answer in answers if answer.distance_N is not None]
    familiarity = fit_familiarity(_features(known), [], apart=apart)
    truth_N, output = (np.concatenate([getattr(one, part) for one in answers]) for part in ("truth_N", "tile_outputs"))
    scores = {} if card.scores.get("test") else {"folds": steering(card.task, truth_N, output)}
    done = {"calibration": _calibration(card, list(unseen.values())), "scores": card.scores | scores}
    predictor = predictor_of(ref, card.model_copy(update=done), tensors, familiarity)
    return _Fitted(
        predictor=predictor,
        familiarity=familiarity,
        frames=[frame.frame for frame in known],
        test=[scored_by(answer, frames[answer.frame], predictor) for answer in answers],
        holdout=[],
        left_out=left_out,
        test_frames=len(answers) + len(left_out),
        answers=answers,
        new_answers=new_answers,
        new=[scored_by(answer, frames[answer.frame], predictor) for answer in new_answers],
    )


def _ask(
    network: HeldBack, ref: str, bank: Bank, card: Card, *, fold: int
) -> tuple[list[ScoredFrame], list[KeptAnswer], list[LeftOut]]:
    """A network's outputs for the frames that it is asked about, as they are kept too, and what cannot be used."""
    raw = predictor_of(ref, card, weights_from_bytes(network.weights, ref))
    learned = _choose(network.learned, seed=card.config.seed)
    scored, missing = score_frames(raw, [*learned, *network.asked], bank.store, with_features=True, known=learned)
    names = {frame.frame for frame in network.asked}
    known, unseen = ([one for one in scored if (one.frame.frame in names) == new] for new in (False, True))
    if not known:
        raise DataError(f"no training frame of {bank.store.uri} can be used")
    distances = distances_between(_features(known), _features(unseen))
    answers = [
        kept_answer(one, card, fold=fold, distance_N=distance_N)
        for one, distance_N in zip(unseen, distances, strict=True)
    ]
    return unseen, answers, [one for one in missing if one.frame.frame in names]


def _labelled(bank: Bank, card: Card, split: Split) -> Frames:
    """The frames of a split that the model has an answer to, and was not trained on if they are for testing."""
    if split == "test" and card.config.protocol == "paper":
        return Frames.of([])
    frames = labelled_frames(bank, card.task, card.config.lineage).equal("split", split)
    return frames if card.task == "count" else frames.named_by("lineage", card.classes)


def _choose(frames: Frames, *, seed: int) -> list[Frame]:
    """All, or so many at random."""
    order = np.random.default_rng(seed).permutation(len(frames))[:MOST_FRAMES]
    return list(frames.at(np.sort(order)))


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


def _main_scores(task: Task, evaluation: Evaluation | None) -> dict[str, dict[str, MainScore] | None]:
    """The main score by whether the model learned from the batches of the frames."""
    if evaluation is None:
        return dict.fromkeys(SIDES)
    return {side: of and main_scores(task, of) for side, of in evaluation.scores["batches"].items()}


def _holdout_evaluated(fitted: _Fitted, bank: Bank, learned: Learned) -> Evaluation | None:
    """The model on the holdout's frames whose batch is known; None where there are none."""
    if not fitted.holdout:
        return None
    return evaluation_of(
        fitted.predictor,
        fitted.holdout,
        bank,
        split="holdout",
        lineage=fitted.predictor.card.config.lineage,
        left_out=[],
        learned=learned,
    )


def _evaluated(fitted: _Fitted, bank: Bank, learned: Learned | None) -> Evaluation:
    """The model on the test split, or by folds, with pictures."""
    return evaluation_of(
        fitted.predictor,
        fitted.test,
        bank,
        split="folds" if fitted.answers else "test",
        lineage=fitted.predictor.card.config.lineage,
        left_out=fitted.left_out,
        learned=learned,
        of_frames=fitted.test_frames,
        folds={answer.frame: answer.fold for answer in fitted.answers},
        new=fitted.new,
        pictures=True,
    )
