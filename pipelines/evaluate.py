"""Score a published model on a split of a bank: every frame once, per tile and per frame, by Ray Data.

A Ray job, like `cellnet evaluate`:

    python -m pipelines evaluate classifier:champion BANK [--split holdout] [--json]
"""

from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import ray
import ray.data

from cellnet.bank.bank import Bank
from cellnet.bank.frames import Frame
from cellnet.bank.teaching import labelled_frames
from cellnet.errors import DataError, NotFoundError
from cellnet.evaluation.evaluations import Evaluation
from cellnet.evaluation.scoring import EvaluateSplit, LeftOut, ScoredFrame, evaluation_of, score_frame, scored_by
from cellnet.places import Places
from cellnet.prediction.predictor import Predictor
from cellnet.registry.kept import KeptAnswer, answers_from_parquet
from cellnet.registry.learned import learned_of
from cellnet.registry.records import ANSWERS, NEW_ANSWERS, ModelVersion
from cellnet.registry.registry import Registry
from cellnet.store.objects import Store
from pipelines import cluster


def evaluate(
    ref: str,
    places: Places,
    *,
    split: EvaluateSplit | None = None,
    lineage: str | None = None,
    only: Collection[str] | None = None,
    kept: "Kept | None" = None,
    pictures: bool = False,
) -> Evaluation:
    """The scores of a model over the frames of a split, every one of them once.

    Unless told otherwise of the holdout; of a version that learned from that too, of `folds`: by the answers that it
    keeps, of networks that had not learned from these frames. Of one `lineage` alone, where that is told, and of the
    frames that `only` names, if it does; a counter that was trained on one lineage is scored on no others. `kept` is
    what `kept_answers` gives of the version, where that was asked already. Tiles are cut as in serving; a tile's true
    count is the number of known centres inside it, else its share of the frame's. With `pictures`, the worst frames are
    kept with what the network sees in them. A frame that cannot be read or is too small is left out and named in the
    scores. Raises DataError when the split is empty, holds lineages that the model does not know, or has no frame that
    can be used.
    """
    bank, registry = places.open_bank(), places.open_registry()
    version = registry.resolve(ref)
    predictor, card = Predictor.load(registry, version.ref), version.card
    lineage = lineage or card.config.lineage
    if kept is None:
        kept = kept_answers(registry, version) if split in (None, "folds") else Kept()
    split = split or split_of(version, bank, kept.folds)
    frames = [
        frame
        for frame in labelled_frames(bank, card.task, lineage)
        if (frame.frame in kept.folds if split == "folds" else split in ("all", frame.split))
        and (only is None or frame.frame in only)
    ]
    if not frames:
        raise DataError(_no_frames(version, places, split, lineage, kept.folds))
    unknown = {frame.lineage for frame in frames} - set(card.classes) if card.task == "classify" else set()
    if unknown:
        names = ", ".join(sorted(map(str, unknown)))
        raise DataError(
            f"{predictor.ref} knows {', '.join(card.classes)}, but {places.bank} holds {names}; "
            "evaluate a model that was trained on these lineages"
        )
    new = list[ScoredFrame]()
    if split == "folds":
        scored, new = (
            [scored_by(answers[frame.frame], frame, predictor) for frame in frames if frame.frame in answers]
            for answers in kept
        )
        left_out = list[LeftOut]()
    else:
        cluster.connect(*places.named)
        scored, left_out = score_frames(predictor, frames, bank.store)
    if not scored:
        raise DataError(f"no frame of {places.bank} can be used; the first of {len(frames)}, {left_out[0].line}")
    return evaluation_of(
        predictor,
        scored,
        bank,
        split=split,
        lineage=lineage,
        left_out=left_out,
        learned=learned_of(registry, version),
        folds={frame: answer.fold for frame, answer in kept.folds.items()},
        new=new,
        pictures=pictures,
    )


class Kept(NamedTuple):
    """By frame, the answers that a version keeps of frames that it learned from."""

    folds: Mapping[str, KeptAnswer] = {}
    """Of networks that had not learned from the frame's group."""
    batches: Mapping[str, KeptAnswer] = {}
    """Of others beside them, that had learned from no frame of its batch."""


def kept_answers(registry: Registry, version: ModelVersion) -> Kept:
    """What a version keeps; nothing of one that keeps nothing. Raises IntegrityError."""
    kept = []
    for role in (ANSWERS, NEW_ANSWERS):
        data = registry.read(version, role) if role in version.blobs else None
        answers = answers_from_parquet(data, version.card, f"{role} of {version.ref}") if data else []
        kept.append({answer.frame: answer for answer in answers})
    return Kept(*kept)


def split_of(version: ModelVersion, bank: Bank, answers: Container[str]) -> EvaluateSplit:
    """On what a version is scored unless told otherwise: the holdout, unless it learned from this bank's."""
    learned = version.card.config.holdout == "use" and any(frame.frame in answers for frame in bank.frames)
    return "folds" if learned else "holdout"


def _no_frames(
    version: ModelVersion, places: Places, split: EvaluateSplit, lineage: str | None, answers: Container[str]
) -> str:
    """What is missing, and what to do."""
    if split == "folds" and not answers:
        return f"{version.ref} was not trained by folds, and keeps no answers; try --split holdout"
    if split == "folds":
        return f"{version.ref} keeps answers of other frames than those of {places.bank}; try --split holdout"
    of = f" of {lineage}" if lineage else ""
    return f"{places.bank} has no frames{of} in its {split} split; try --split holdout or --split all"


def score_frames(
    predictor: Predictor,
    frames: list[Frame],
    store: Store,
    *,
    with_features: bool = False,
    known: Sequence[Frame] = (),
) -> tuple[list[ScoredFrame], list[LeftOut]]:
    """The outputs of a model, published or not, for frames, by Ray Data; and the frames that cannot be used.

    Of frames that are `known` to it only its features say something: they are seen in one orientation.
    """
    names = {frame.frame for frame in known}
    items = [{"frame": frame, "known": frame.frame in names} for frame in frames]
    rows = (
        ray.data.from_items(items, override_num_blocks=cluster.blocks(len(frames)))
        .map_batches(
            _score_batch,
            # In a list: Ray would put the model itself into every task.
            fn_kwargs={"model": [ray.put(predictor)], "store": store, "with_features": with_features},
            batch_size=8,
            batch_format="numpy",
        )
        .take_all()
    )
    results = [row["result"] for row in rows]
    scored = [result for result in results if isinstance(result, ScoredFrame)]
    return scored, [result for result in results if isinstance(result, LeftOut)]


def _score_batch(
    batch: dict[str, Any], model: list[Any], store: Store, with_features: bool
) -> Iterator[dict[str, Any]]:
    predictor: Predictor = cluster.fetch_once(model[0])
    once = predictor.of_one_view()
    for frame, known in zip(batch["frame"], batch["known"], strict=True):
        cell = np.empty(1, object)
        try:
            cell[0] = score_frame(once if known else predictor, frame, store, with_features=with_features)
        except (DataError, NotFoundError) as error:
            cell[:] = [LeftOut(frame, str(error))]
        yield {"result": cell}
