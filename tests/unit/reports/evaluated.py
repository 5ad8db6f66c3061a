"""Evaluations with known errors. A test module takes them by `from tests.unit.reports.evaluated import ...`."""

from typing import Any

import numpy as np

from cellnet.evaluation.evaluations import Evaluation, Picture
from cellnet.evaluation.metrics import Rows, score
from cellnet.images.tiles import Box


def counted() -> Evaluation:
    """Four frames of two tiles each; the worst is off by 3."""
    truth, output = np.array([1.0, 2, 3, 4, 5, 6, 7, 8]), np.array([1.0, 2, 3, 4, 5, 6, 7, 11])
    tiles = Rows(truth=truth, output=output, lineages=["A549"] * 8, groups=list("aabbccdd"))
    pairs = (truth.reshape(4, 2).sum(1), output.reshape(4, 2).sum(1))
    frames = Rows(truth=pairs[0], output=pairs[1], lineages=["A549"] * 4, groups=list("abcd"))
    scores = {"task": "count", "model": "regressor@3", "split": "holdout", "same_bank": True, "left_out": ["x: why"]}
    units = {"tile": score("count", tiles, []), "frame": score("count", frames, [])}
    return Evaluation(scores=scores | units, tiles=tiles, frames=frames, sources=[f"/plate/{i}<b>.tif" for i in "abcd"])


def classified() -> Evaluation:
    """Three frames of one tile each, one of them mistaken."""
    probability = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    rows = Rows(truth=np.array([0, 1, 1]), output=probability, lineages=["3T3", "A549", "A549"], groups=list("abc"))
    scores = {"task": "classify", "model": "classifier@1", "split": "all", "same_bank": True, "left_out": []}
    units = {unit: score("classify", rows, ["3T3", "A549"]) for unit in ("tile", "frame")}
    return Evaluation(scores=scores | units, tiles=rows, frames=rows, sources=["a.png", "b.png", "c.png"])


def picture_of(evaluation: Evaluation, **about: Any) -> Picture:
    """Of the last frame: all of it grey, and its last tile."""
    plain: dict[str, Any] = {
        "row": len(evaluation.sources) - 1,
        "frame_HW": np.full((240, 320), 60, np.uint8),
        "box": Box(0, 160, 120, 320),
        "tile_HW": np.full((200, 200), 90, np.uint8),
        "cam_HW": np.zeros((200, 200), np.float32),
        "truth": float(evaluation.tiles.truth[-1]),
        "output": evaluation.tiles.output[-1],
    }
    return Picture(**(plain | about))
