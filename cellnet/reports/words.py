"""What scores and splits are, in plain words, where they stand on a page."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from cellnet.certainty.calibration import LEVEL
from cellnet.evaluation.evaluations import Evaluation, right
from cellnet.evaluation.metrics import mean_interval, span

Table = list[list[Any]]
"""Rows, the first of them the heads."""

SPLITS: Final = {
    "train": "what a network learns from",
    "test": "what chooses between epochs and between trials, and fits probabilities and intervals",
    "holdout": "kept aside for the last check; a training by folds learns from test and it too, unless told otherwise",
    "folds": "every frame answered by a network that learned from the others alone",
    "all": "every frame of the bank, those that the model learned from among them",
}
BANK_SPLITS: Final = ("train", "test", "holdout")
SPLITS_TOLD: Final = "; ".join(f"{split}: {SPLITS[split]}" for split in BANK_SPLITS) + "."
MEANINGS: Final = {
    "n": "how many",
    "right": "how many were named right",
    "accuracy": "share named right; 1 is best",
    "balanced_accuracy": "share named right, every lineage weighing alike; 1 is best",
    "precision": "share right among those named so; 1 is best",
    "recall": "share named so among those that are so; 1 is best",
    "f1": "precision and recall in one; 1 is best",
    "auc": "how well these are told from the rest; 1 is best, 0.5 is chance",
    "ece": "how far probabilities are from how often they are right; 0 is best",
    "ece_uncalibrated": "the same before calibration; 0 is best",
    "mae": "cells off, too many or too few; 0 is best",
    "mse": "mean of squared errors, so the large ones weigh most; 0 is best",
    "rmse": "root of the mean squared error, in cells; 0 is best",
    "r": "how well counts follow the true ones; 1 is best",
    "r2": "share of the differences explained; 1 is best, below 0 is worse than saying the mean",
    "bias": "cells too many (above 0) or too few (below); 0 is best",
    "mape": "cells off as a share of the true count; 0 is best",
    "coverage": f"share of true counts inside the {LEVEL:.0%} interval; {LEVEL:g} is due",
    "interval_width": "cells between the ends of that interval; narrower is better",
    "unfamiliar": "share called unlike the training images; near 0 for images like these",
}
"""Of every score that a person is shown: what it is, and which way is good."""


class Named(NamedTuple):
    """A score's name in a table, and what it is."""

    name: str
    meaning: str


def named(score: str) -> Named:
    """The name of a score as a table shows it.

    >>> named("recall_macro").meaning
    'mean over lineages: share named so among those that are so; 1 is best'
    """
    plain = score.removesuffix("_macro")
    return Named(score.replace("_", " "), "mean over lineages: " * (plain != score) + MEANINGS[plain])


def headline(evaluation: Evaluation) -> str:
    """How good the model is on these frames, in a sentence with its 95 % interval."""
    task, frames = evaluation.scores["task"], evaluation.frames
    n = len(frames.truth)
    if task == "classify":
        right_N = right(task, frames)
        return f"{right_N.sum():,} of {n:,} frames named right{_between(right_N, frames.groups)}."
    error_N = np.abs(frames.output - frames.truth)
    mean = f"{error_N.mean():,.1f} cells off a frame of {frames.truth.mean():,.1f} on average"
    holds_N = frames.truth > 0
    if not holds_N.any():
        return f"{mean[0].upper()}{mean[1:]}, over {_frames(n)} without cells."
    groups = [group for group, holds in zip(frames.groups, holds_N, strict=True) if holds]
    share_N = error_N[holds_N] / frames.truth[holds_N]
    off = f"{100 * share_N.mean():.1f} % off per frame{_between(share_N, groups)}"
    return f"{off}: {mean}, over {_frames(n)}."


def _frames(n: int) -> str:
    return f"{n:,} frame{'s' * (n != 1)}"


def _between(value_N: Any, groups: Sequence[str]) -> str:
    """The 95 % interval of a mean share, over groups."""
    ends = span(mean_interval(value_N, groups))
    if ends is not None:
        return f" (95 % interval {100 * ends[0]:.1f} to {100 * ends[1]:.1f} %)"
    return " (no interval: one group)" if len(set(groups)) == 1 else " (no interval: all alike)"


def held_table(held: Sequence[dict[str, Any]]) -> Table:
    """What `held_by_split` tells of a bank, a row a lineage and a column a split; nothing where nothing is held."""
    if not held:
        return []
    lineages = dict.fromkeys(part["lineage"] for part in held)
    rows = [[name, *_sides([part for part in held if part["lineage"] == name], "groups")] for name in lineages]
    if len(rows) > 1:
        rows.append(["all", *_sides(held)])  # without groups: one may hold several lineages
    return [["lineage", *BANK_SPLITS, "all"], *rows]


def _sides(parts: Sequence[dict[str, Any]], *more: str) -> list[str]:
    """Frames and cells of each split and of all, and what more is told of them."""
    sides = [[part for part in parts if part["split"] == split] for split in BANK_SPLITS]
    return [_held(side, more) for side in (*sides, parts)]


def _held(parts: Sequence[dict[str, Any]], more: Sequence[str]) -> str:
    """Frames, groups and cells in a few words."""
    if not parts:
        return "none"
    told = {name: sum(part[name] or 0 for part in parts) for name in ("frames", *more, "cells")}
    if all(part["cells"] is None for part in parts):
        del told["cells"]
    return ", ".join(f"{many:,}\N{NO-BREAK SPACE}{name.removesuffix('s' * (many == 1))}" for name, many in told.items())
