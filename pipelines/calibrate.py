"""Fit what a model may say of its own sureness: temperature and intervals by the test split, familiarity by both.

Done before every publishing; `cellnet calibrate` does it to a version that is published already. A Ray job:

    python -m pipelines.calibrate classifier@1 BANK
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import ray
import ray.data
import safetensors.torch
from numpy.typing import NDArray

from cellnet.augment import count_inside
from cellnet.bank import Bank, Frame, read_pixels
from cellnet.calibration import Calibration, calibrate_classifier, calibrate_counter
from cellnet.config import Split
from cellnet.errors import ConfigError, DataError, NotFoundError
from cellnet.familiarity import FAMILIARITY, fit_familiarity
from cellnet.predictor import Predictor, predictor_of
from cellnet.registry import WEIGHTS, Card, ModelVersion
from cellnet.store import Store
from pipelines import cluster
from pipelines.places import Places
from pipelines.shards import labelled_frames

MOST_FRAMES: Final = 400
"""Of a split: enough to learn what its tiles look like."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the uncalibrated network makes of a frame's tiles."""

    split: Split
    label: int
    truth_F: float
    """The frame's true count."""
    count_F: float
    truth_N: NDArray[np.float64]
    """The tiles' true counts."""
    output_N: NDArray[np.float64]
    """Probabilities (N, K) or counts (N,) of the tiles."""
    features_ND: NDArray[np.float32]


def calibrated(bank: Bank, card: Card, weights: bytes) -> tuple[Card, dict[str, bytes]]:
    """The card with its calibration, and the files to publish: the weights, and what familiar images look like.

    Without a test split nothing is calibrated. Frames that cannot be used are left out.
    """
    frames = [frame for split in ("train", "test") for frame in _drawn(bank, card, split)]
    model = ray.put((card.model_copy(update={"calibration": None}), weights))
    rows = (
        ray.data.from_items([{"frame": frame} for frame in frames], override_num_blocks=cluster.blocks(len(frames)))
        .map_batches(_see_batch, fn_kwargs={"model": [model], "store": bank.store}, batch_size=8, batch_format="numpy")
        .take_all()
    )
    seen: dict[str, list[Seen]] = {"train": [], "test": []}
    for row in rows:
        seen[row["seen"].split].append(row["seen"])
    if not seen["train"]:
        raise DataError(f"no training frame of {bank.store.uri} can be used")
    train, test = ([one.features_ND for one in seen[split]] for split in ("train", "test"))
    files = {WEIGHTS: weights, FAMILIARITY: fit_familiarity(train, test).to_bytes()}
    return card.model_copy(update={"calibration": _calibration(card, seen["test"])}), files


def recalibrate(ref: str, places: Places) -> ModelVersion:
    """The next version of a published model: the same weights, calibrated on the bank as it is now.

    Raises ConfigError for a bank whose lineages are others than the model's.
    """
    bank, registry = places.open_bank(), places.open_registry()
    version = registry.resolve(ref)
    if version.card.task == "classify" and not {frame.lineage for frame in bank.frames} >= set(version.card.classes):
        raise ConfigError(f"{version.ref} knows {', '.join(version.card.classes)}; calibrate it on a bank of these")
    cluster.connect()
    card, files = calibrated(bank, version.card, registry.read(version, WEIGHTS))
    return registry.publish(version.name, files, card)


def _drawn(bank: Bank, card: Card, split: Split) -> list[Frame]:
    """The frames of a split that are looked at: all, or so many at random."""
    if split == "test" and card.config.protocol == "paper":
        return []  # which trained on them
    frames = [frame for frame in labelled_frames(bank, card.task) if frame.split == split]
    if card.task == "classify":
        frames = [frame for frame in frames if frame.lineage in card.classes]
    order = np.random.default_rng(card.config.seed).permutation(len(frames))[:MOST_FRAMES]
    return [frames[i] for i in sorted(order)]


def _calibration(card: Card, test: list[Seen]) -> Calibration:
    if not test:
        return Calibration(tiles=0, frames=0)
    if card.task == "classify":
        labels_N = np.concatenate([np.full(len(one.output_N), one.label) for one in test])
        return calibrate_classifier(labels_N, np.concatenate([one.output_N for one in test]), frames=len(test))
    return calibrate_counter(
        [(one.truth_N, one.output_N) for one in test],
        np.array([one.truth_F for one in test]),
        np.array([one.count_F for one in test]),
    )


def _see_batch(batch: dict[str, Any], model: list[Any], store: Store) -> dict[str, Any]:
    predictor = _predictor(*ray.get(model[0]))
    seen = [one for frame in batch["frame"] for one in _see(predictor, frame, store)]
    cells = np.empty(len(seen), object)
    cells[:] = seen
    return {"seen": cells}


def _predictor(card: Card, weights: bytes) -> Predictor:
    import torch

    torch.set_num_threads(1)
    return predictor_of("candidate", card, safetensors.torch.load(weights))


def _see(predictor: Predictor, frame: Frame, store: Store) -> Iterator[Seen]:
    try:
        said = predictor.predict(read_pixels(store, frame), pixel_um=frame.pixel_um, with_features=True)
    except (DataError, NotFoundError):
        return  # `cellnet evaluate` names such frames
    counts = predictor.task == "count"
    size = (max(box.bottom for box in said.boxes), max(box.right for box in said.boxes))
    assert said.features_ND is not None
    yield Seen(
        split=frame.split or "train",
        label=-1 if counts else predictor.card.classes.index(str(frame.lineage)),
        truth_F=float("nan") if frame.count is None else frame.count,
        count_F=said.count if counts else float("nan"),
        truth_N=np.array([count_inside(frame, box, size, said.factor) for box in said.boxes]),
        output_N=said.tile_outputs.astype(np.float64),
        features_ND=said.features_ND,
    )


if __name__ == "__main__":
    import sys

    from cellnet.cli import main

    sys.exit(main(["calibrate", *sys.argv[1:]]))
