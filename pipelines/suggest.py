"""What to label next: a model is asked about the frames of a bank that have no label, by Ray Data.

A Ray job, like `cellnet suggest`:

    python -m pipelines suggest BANK regressor:champion [-n 20] [--json]
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import ray
import ray.data

from cellnet.bank.bank import Bank
from cellnet.bank.frames import Frame, read_pixels
from cellnet.errors import ConfigError, DataError, NotFoundError
from cellnet.evaluation.scoring import LeftOut
from cellnet.evaluation.suggesting import AMONG, Seen, Suggestion, suggestions_of, waiting_in
from cellnet.places import Places
from cellnet.prediction.predictor import Predictor
from cellnet.store.objects import Store
from pipelines import cluster


class Suggested(NamedTuple):
    """What to label next in a bank."""

    bank: Bank
    ref: str
    """The version that was asked."""
    suggestions: list[Suggestion]
    left_out: list[LeftOut]
    """Frames that it could not be asked about."""


def suggest(
    ref: str,
    places: Places,
    *,
    number: int,
    among: int = AMONG,
    say: Callable[[str], None] = lambda line: None,
) -> Suggested:
    """So many frames of a bank that are worth a label next, and a tenth as many at random.

    The model is asked about `among` frames at most, drawn evenly over batches and groups. The same bank and model give
    the same frames. Raises ConfigError where `among` is less than `number`, and DataError where no frame is without a
    label, or none can be used.
    """
    if among < number:
        raise ConfigError(f"--among {among} is less than -n {number}; among more frames there is more to choose from")
    bank, registry = places.open_bank(), places.open_registry()
    predictor = Predictor.load(registry, ref)
    waiting = waiting_in(bank, predictor.card, number, most=among)
    asked = [*waiting.candidates, *waiting.random]
    of = f" of {waiting.among:,}" if waiting.among > len(waiting.candidates) else ""
    say(f"asking {predictor.ref} about {len(asked):,}{of} frames without a label")
    if waiting.copies:
        say(f"left out: {waiting.copies:,} nearly the same as a labelled frame, or as another of these")
    if waiting.kept_apart:
        say(f"drawn at random alone: {waiting.kept_apart:,} of groups in the test split or the holdout, to score by")
    cluster.connect(*places.named)
    seen, left_out = _ask(predictor, asked, bank.store)
    known, _ = _ask(predictor.of_one_view(), waiting.labelled, bank.store)
    if not seen:
        raise DataError(f"no frame of {bank.store.uri} can be used; the first of {len(asked)}, {left_out[0].line}")
    suggestions = suggestions_of(waiting, {one.frame.frame: one for one in seen}, known, number)
    return Suggested(bank, predictor.ref, suggestions, left_out)


def _ask(predictor: Predictor, frames: Iterable[Frame], store: Store) -> tuple[list[Seen], list[LeftOut]]:
    """What a model says and sees of frames, and the frames that it cannot be asked about."""
    items = [{"frame": frame} for frame in frames]
    if not items:
        return [], []
    rows = (
        ray.data.from_items(items, override_num_blocks=cluster.blocks(len(items)))
        .map_batches(
            _ask_batch,
            fn_kwargs={"model": [ray.put(predictor)], "store": store},  # in a list: else it travels with every task
            batch_size=8,
            batch_format="numpy",
        )
        .take_all()
    )
    said = [row["said"] for row in rows]
    return [one for one in said if isinstance(one, Seen)], [one for one in said if isinstance(one, LeftOut)]


def _ask_batch(batch: dict[str, Any], model: list[Any], store: Store) -> Iterator[dict[str, Any]]:
    predictor: Predictor = cluster.fetch_once(model[0])
    for frame in batch["frame"]:
        cell = np.empty(1, object)
        cell[0] = seen_by(predictor, frame, store)
        yield {"said": cell}


def seen_by(predictor: Predictor, frame: Frame, store: Store) -> Seen | LeftOut:
    """What a model says and sees of a frame of a bank, or why it cannot be asked about it."""
    try:
        cut = predictor.cut(read_pixels(store, frame), frame.pixel_um)
        outputs = predictor.predict_cut(cut, with_features=True)
    except (DataError, NotFoundError) as error:
        return LeftOut(frame, str(error))
    assert outputs.features_ND is not None
    return Seen(frame, predictor.answer_of(outputs, cut.measures), outputs.features_ND.mean(axis=0))
