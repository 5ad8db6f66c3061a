"""Score a published model on a split of a bank: every frame once, per tile and per frame, by Ray Data.

A Ray job, like `cellnet evaluate`:

    python -m pipelines evaluate classifier:champion BANK [--split holdout] [--json]
"""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import ray
import ray.data

from cellnet.bank.frames import Frame
from cellnet.bank.labels import labelled_frames
from cellnet.errors import DataError, NotFoundError
from cellnet.evaluation.evaluations import Evaluation
from cellnet.evaluation.scoring import EvaluateSplit, LeftOut, ScoredFrame, evaluation_of, score_frame
from cellnet.places import Places
from cellnet.prediction.predictor import Predictor
from cellnet.registry.learned import learned_of
from cellnet.store.objects import Store
from pipelines import cluster


def evaluate(
    ref: str,
    places: Places,
    *,
    split: EvaluateSplit = "holdout",
    lineage: str | None = None,
    only: Collection[str] | None = None,
    pictures: bool = False,
) -> Evaluation:
    """The scores of a model over the frames of a split, every one of them once.

    Of one `lineage` alone, where that is told, and of the frames that `only` names, if it does; a counter that was
    trained on one lineage is scored on no others. Tiles are cut as in serving; a tile's true count is the number of
    known centres inside it, else its share of the frame's. With `pictures`, the worst frames are kept with what the
    network sees in them. A frame that cannot be read or is too small is left out and named in the scores. Raises
    DataError when the split is empty, holds lineages that the model does not know, or has no frame that can be used.
    """
    bank, registry = places.open_bank(), places.open_registry()
    version = registry.resolve(ref)
    predictor = Predictor.load(registry, version.ref)
    card = predictor.card
    lineage = lineage or card.config.lineage
    frames = [
        frame
        for frame in labelled_frames(bank, card.task, lineage)
        if split in ("all", frame.split) and (only is None or frame.frame in only)
    ]
    if not frames:
        of = f" of {lineage}" if lineage else ""
        raise DataError(f"{places.bank} has no frames{of} in its {split} split; try --split holdout or --split all")
    unknown = {frame.lineage for frame in frames} - set(card.classes) if card.task == "classify" else set()
    if unknown:
        names = ", ".join(sorted(map(str, unknown)))
        raise DataError(
            f"{predictor.ref} knows {', '.join(card.classes)}, but {places.bank} holds {names}; "
            "evaluate a model that was trained on these lineages"
        )
    cluster.connect()
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
        pictures=pictures,
    )


def score_frames(
    predictor: Predictor, frames: list[Frame], store: Store, *, with_features: bool = False
) -> tuple[list[ScoredFrame], list[LeftOut]]:
    """The outputs of a model, published or not, for frames, by Ray Data; and the frames that cannot be used."""
    rows = (
        ray.data.from_items([{"frame": frame} for frame in frames], override_num_blocks=cluster.blocks(len(frames)))
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
    predictor = cluster.fetch_once(model[0])
    for frame in batch["frame"]:
        cell = np.empty(1, object)
        try:
            cell[0] = score_frame(predictor, frame, store, with_features=with_features)
        except (DataError, NotFoundError) as error:
            cell[:] = [LeftOut(frame, str(error))]
        yield {"result": cell}
