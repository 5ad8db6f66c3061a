"""Score a published model on a split of a bank: every frame once, per tile and per frame, by Ray Data.

python -m pipelines.evaluate classifier:champion BANK [--split holdout] [--json]   like: cellnet evaluate ...
"""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import ray.data
from numpy.typing import NDArray

from cellnet import metrics
from cellnet.augment import count_inside
from cellnet.bank import Bank, Frame, read_pixels
from cellnet.errors import CellnetError, DataError
from cellnet.predictor import FramePrediction, Predictor
from cellnet.registry import Registry
from cellnet.report import Evaluation
from cellnet.store import Store
from pipelines import cluster
from pipelines.shards import trainable_frames

EvaluateSplit = Literal["train", "test", "holdout", "all"]


def evaluate(
    ref: str,
    bank_uri: str,
    *,
    registry_uri: str,
    split: EvaluateSplit = "holdout",
    endpoint_url: str | None = None,
) -> Evaluation:
    """The scores of a model over the frames of a split, every one of them once.

    Tiles are cut as in serving; a tile's true count is the number of known centres inside it, else its share of
    the frame's. Raises DataError when the split is empty or holds lineages that the model does not know.
    """
    bank = Bank.open(bank_uri, endpoint_url=endpoint_url)
    registry = Registry.open(registry_uri, endpoint_url=endpoint_url)
    version = registry.resolve(ref)
    card = version.card
    frames = [frame for frame in trainable_frames(bank, card.task) if split in ("all", frame.split)]
    if not frames:
        raise DataError(f"{bank_uri} has no frames in its {split} split; try --split holdout or --split all")
    unknown = {frame.lineage for frame in frames} - set(card.classes) if card.task == "classify" else set()
    if unknown:
        raise DataError(f"{version.ref} does not know the lineage {', '.join(sorted(map(str, unknown)))} of {bank_uri}")
    cluster.connect()
    rows = (
        ray.data.from_items([{"frame": frame} for frame in frames], override_num_blocks=cluster.blocks(len(frames)))
        .map_batches(
            _score_batch,
            fn_kwargs={"registry": registry, "ref": version.ref, "store": bank.store},
            batch_size=8,
            batch_format="numpy",
        )
        .take_all()
    )
    errors = [row["error"] for row in rows if row["error"]]
    if errors:
        raise DataError(f"{errors[0]}" + (f" (and {len(errors) - 1} more frames)" if len(errors) > 1 else ""))
    return _evaluation(version.ref, card.task, card.classes, split, card.bank_digest == bank.digest, rows)


def _score_batch(batch: dict[str, Any], registry: Registry, ref: str, store: Store) -> Iterator[dict[str, Any]]:
    predictor = cluster.load_once(registry, ref)
    for frame in batch["frame"]:
        yield {key: _one(value) for key, value in _row(predictor, frame, store).items()}


def _row(predictor: Predictor, frame: Frame, store: Store) -> dict[str, Any]:
    try:
        said = predictor.predict(read_pixels(store, frame), pixel_um=frame.pixel_um)
    except CellnetError as error:
        return {"frame": frame, "error": f"{frame.source}: {error}", "said": None, "counts": None}
    size = (max(box.bottom for box in said.boxes), max(box.right for box in said.boxes))
    counts = [count_inside(frame, box, size, said.factor) for box in said.boxes]
    return {"frame": frame, "error": "", "said": said, "counts": counts}


def _one(value: Any) -> NDArray[Any]:
    cell = np.empty(1, object)
    cell[0] = value
    return cell


def _evaluation(
    ref: str, task: str, classes: list[str], split: str, same_bank: bool, rows: list[dict[str, Any]]
) -> Evaluation:
    frames: list[Frame] = [row["frame"] for row in rows]
    said: list[FramePrediction] = [row["said"] for row in rows]
    tile_frames = [frame for frame, one in zip(frames, said, strict=True) for _ in one.boxes]
    groups = [frame.group for frame in frames]
    tile_groups = [frame.group for frame in tile_frames]
    output = np.concatenate([one.tile_outputs for one in said])
    scores: dict[str, Any] = {"task": task, "model": ref, "split": split, "same_bank": same_bank}
    if task == "classify":
        truth_N = np.array([classes.index(str(frame.lineage)) for frame in tile_frames])
        frame_truth_F = np.array([classes.index(str(frame.lineage)) for frame in frames])
        frame_output = np.stack([one.probability_K for one in said])
        scores["tile"] = metrics.classification(truth_N, output, classes)
        scores["frame"] = metrics.classification(frame_truth_F, frame_output, classes)
        scores["tile"]["accuracy_interval"] = _interval(output.argmax(1) == truth_N, tile_groups)
        scores["frame"]["accuracy_interval"] = _interval(frame_output.argmax(1) == frame_truth_F, groups)
        return Evaluation(
            scores=scores,
            truth_N=truth_N,
            output=output,
            frame_truth_F=frame_truth_F,
            frame_output=frame_output,
            frames=frames,
        )
    truth_N = np.array([count for row in rows for count in row["counts"]], np.float64)
    frame_truth_F = np.array([frame.count for frame in frames], np.float64)
    frame_output = np.array([one.count for one in said])
    lineages = [frame.lineage for frame in tile_frames]
    scores["tile"] = metrics.counting_per_lineage(truth_N, output.astype(np.float64), lineages)
    scores["frame"] = metrics.counting_per_lineage(frame_truth_F, frame_output, [frame.lineage for frame in frames])
    scores["tile"]["mae_interval"] = _interval(np.abs(output - truth_N), tile_groups)
    scores["frame"]["mae_interval"] = _interval(np.abs(frame_output - frame_truth_F), groups)
    return Evaluation(
        scores=scores,
        truth_N=truth_N,
        output=output,
        frame_truth_F=frame_truth_F,
        frame_output=frame_output,
        frames=frames,
    )


def _interval(value_N: NDArray[Any], groups: list[str]) -> list[float]:
    """95 % bootstrap interval over groups of the mean of a value."""
    return list(metrics.bootstrap_interval(lambda rows: float(value_N[rows].mean()), groups))


if __name__ == "__main__":
    import sys

    from cellnet.cli import main

    sys.exit(main(["evaluate", *sys.argv[1:]]))
