"""Scores as pure functions of truth and prediction; scikit-learn computes what it can compute.

Names are the contract of `cellnet evaluate --json`. A score that is not defined for the data at hand (an AUC of
one class, an R² of one frame) is None.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

from cellnet.config import Task

Scores = dict[str, Any]

MAIN: Final[dict[Task, str]] = {"classify": "accuracy", "count": "mae"}
"""The score of each task that is given with an interval."""

PER_LINEAGE: Final[dict[Task, tuple[str, ...]]] = {
    "classify": ("n", "precision", "recall", "f1", "auc"),
    "count": ("n", "mae", "bias", "mape"),
}
"""What is shown of each lineage: scores that mean something for a few frames. The JSON holds all."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Tiles, or frames: what is true of them, and what a model said."""

    truth: NDArray[Any]
    """Label indices or counts (N,)."""
    output: NDArray[Any]
    """Probabilities (N, K) or counts (N,)."""
    lineages: Sequence[str | None]
    groups: Sequence[str]


def score(task: Task, rows: Rows, classes: Sequence[str]) -> Scores:
    """All scores of a task, with the 95 % bootstrap interval over groups of the main one."""
    if task == "classify":
        scores = classification(rows.truth, rows.output, classes)
        value_N = rows.output.argmax(1) == rows.truth
    else:
        scores = counting_per_lineage(rows.truth, rows.output, rows.lineages)
        value_N = np.abs(rows.output - rows.truth)
    interval = bootstrap_interval(lambda chosen: float(value_N[chosen].mean()), rows.groups)
    return {**scores, f"{MAIN[task]}_interval": list(interval)}


def classification(
    truth_N: NDArray[np.int64], probability_NK: NDArray[np.floating[Any]], classes: Sequence[str]
) -> Scores:
    """Scores of a classifier over N rows; `confusion` has the truth in rows, in the order of `classes`.

    Macro means and balanced accuracy are over the classes that occur in the truth; AUC is one against the rest.

    >>> scores = classification(np.array([0, 0, 1, 1]), np.array([[.9, .1], [.4, .6], [.2, .8], [.3, .7]]), "ab")
    >>> scores["accuracy"], scores["confusion"], scores["auc_macro"]
    (0.75, [[1, 1], [0, 2]], 1.0)
    """
    labels = np.arange(len(classes))
    said_N = probability_NK.argmax(1)
    present = np.unique(truth_N)
    precision, recall, f1, n = sk.precision_recall_fscore_support(truth_N, said_N, labels=labels, zero_division=0.0)
    auc = [_auc(truth_N == label, probability_NK[:, label]) for label in labels]
    known = [auc[label] for label in present if auc[label] is not None]
    return {
        "n": len(truth_N),
        "accuracy": float(sk.accuracy_score(truth_N, said_N)),
        "balanced_accuracy": float(recall[present].mean()),
        "precision_macro": float(precision[present].mean()),
        "recall_macro": float(recall[present].mean()),
        "f1_macro": float(f1[present].mean()),
        "auc_macro": float(np.mean(known)) if known else None,
        "confusion": sk.confusion_matrix(truth_N, said_N, labels=labels).tolist(),
        "classes": list(classes),
        "per_lineage": {
            classes[label]: {
                "n": int(n[label]),
                "precision": float(precision[label]),
                "recall": float(recall[label]),
                "f1": float(f1[label]),
                "auc": auc[label],
            }
            for label in present
        },
    }


def _auc(positive_N: NDArray[np.bool_], score_N: NDArray[np.floating[Any]]) -> float | None:
    if positive_N.all() or not positive_N.any():
        return None
    return float(sk.roc_auc_score(positive_N, score_N))


def counting(truth_N: NDArray[np.float64], count_N: NDArray[np.float64]) -> Scores:
    """Scores of a counter over N rows.

    `bias` is the mean of predicted - true; `mape` is over rows that hold cells, as a share; `r` is Pearson's.

    >>> scores = counting(np.array([1., 2., 3.]), np.array([1., 2., 5.]))
    >>> round(scores["mae"], 3), round(scores["bias"], 3), round(scores["r2"], 3), round(scores["mape"], 3)
    (0.667, 0.667, -1.0, 0.222)
    """
    error_N = count_N - truth_N
    spread = len(truth_N) > 1 and np.ptp(truth_N) > 0
    correlated = spread and np.ptp(count_N) > 0
    holds_cells = truth_N > 0
    mse = float((error_N**2).mean())
    return {
        "n": len(truth_N),
        "mae": float(np.abs(error_N).mean()),
        "mse": mse,
        "rmse": math.sqrt(mse),
        "r": float(np.corrcoef(truth_N, count_N)[0, 1]) if correlated else None,
        "r2": float(sk.r2_score(truth_N, count_N)) if spread else None,
        "bias": float(error_N.mean()),
        "mape": (float((np.abs(error_N[holds_cells]) / truth_N[holds_cells]).mean()) if holds_cells.any() else None),
    }


def counting_per_lineage(
    truth_N: NDArray[np.float64], count_N: NDArray[np.float64], lineages: Sequence[str | None]
) -> Scores:
    """`counting` over all rows, and under `per_lineage` over those of each lineage that is known."""
    names = np.array([lineage or "" for lineage in lineages])
    return {
        **counting(truth_N, count_N),
        "per_lineage": {
            str(name): counting(truth_N[names == name], count_N[names == name])
            for name in np.unique(names[names != ""])
        },
    }


def steering(task: Task, truth_N: NDArray[Any], output: NDArray[np.float32]) -> dict[str, float]:
    """The few scores that steer a training, from labels and probabilities (N, K), or from counts.

    >>> steering("count", np.array([1.0, 3.0]), np.array([1.0, 2.0]))
    {'mae': 0.5, 'r2': 0.5}
    """
    if task == "classify":
        said_N = output.argmax(1)
        return {
            "accuracy": float((said_N == truth_N).mean()),
            "balanced_accuracy": float(
                np.mean([(said_N[truth_N == label] == label).mean() for label in np.unique(truth_N)])
            ),
        }
    scores = counting(truth_N.astype(np.float64), output.astype(np.float64))
    return {"mae": scores["mae"], "r2": scores["r2"] if scores["r2"] is not None else math.nan}


def bootstrap_interval(
    score: Callable[[NDArray[np.int64]], float],
    groups: Sequence[str],
    *,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """An interval of `score(rows)` when whole groups are drawn with replacement (Efron & Tibshirani 1993, ch. 8).

    Rows of one group are not independent, so the group, not the row, is the unit. With one group the
    interval is the score itself and says nothing.
    """
    rows_of = [np.flatnonzero(np.array(groups) == group) for group in dict.fromkeys(groups)]
    rng = np.random.default_rng(seed)
    scores = [
        score(np.concatenate([rows_of[i] for i in rng.integers(0, len(rows_of), len(rows_of))])) for _ in range(draws)
    ]
    low, high = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
