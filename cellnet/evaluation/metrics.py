"""Scores as pure functions of truth and prediction; scikit-learn computes what it can compute.

scikit-learn is imported where it is used: it takes most of a second, and answering needs none of it. Names are the
contract of `cellnet evaluate --json`. A score that is not defined for the data at hand (an AUC of
one class, an R² of one frame) is None.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cellnet.tasks import TASKS, Task

Scores = dict[str, Any]


CALIBRATION_BINS: Final = 15
"""As Guo et al. take."""

FEWEST: Final = {"r": 10, "r2": 10} | dict.fromkeys(("precision", "recall", "f1", "auc"), 5)
"""Rows of which these scores are shown; of fewer they mean nothing. The JSON holds them."""
BY_DENSITY: Final = ("n", "mae", "rmse", "bias", "mape")
"""Scores of like many cells that a person is shown: of these R and R² mean nothing."""
TOO_FEW: Final = (
    f"–: too few to tell (R and R² of fewer than {FEWEST['r']}; precision, recall, F1 and AUC of fewer than "
    f"{FEWEST['f1']}; an interval over one group, or without an error)"
)
"""What stands for such a score, for a person."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Tiles, or frames: what is true of them, and what a model said."""

    truth: NDArray[Any]
    """Label indices or counts (N,)."""
    output: NDArray[Any]
    """Probabilities (N, K) or counts (N,)."""
    lineages: Sequence[str | None]
    groups: Sequence[str]
    raw: NDArray[Any] | None = None
    """Probabilities (N, K) before calibration, of a classifier."""
    interval: NDArray[np.float64] | None = None
    """Low and high ends (N, 2) of the counts, of a counter that gives them."""
    unfamiliar: NDArray[np.bool_] | None = None
    """Which rows (N,) are flagged as unlike the training images, by a model that can tell."""

    def only(self, chosen_N: NDArray[np.bool_]) -> "Rows":
        """Some of the rows."""
        places: list[int] = np.flatnonzero(chosen_N).tolist()
        return Rows(
            truth=self.truth[places],
            output=self.output[places],
            lineages=[self.lineages[place] for place in places],
            groups=[self.groups[place] for place in places],
            raw=None if self.raw is None else self.raw[places],
            interval=None if self.interval is None else self.interval[places],
            unfamiliar=None if self.unfamiliar is None else self.unfamiliar[places],
        )


def score(task: Task, rows: Rows, classes: Sequence[str]) -> Scores:
    """All scores of a task, with the 95 % bootstrap interval over groups of the main one."""
    if task == "classify":
        scores = classification(rows.truth, rows.output, classes)
        value_N = rows.output.argmax(1) == rows.truth
        if rows.raw is not None:
            scores["ece_uncalibrated"] = expected_calibration_error(rows.truth, rows.raw)
    else:
        scores = counting_per_lineage(rows.truth, rows.output, rows.lineages)
        scores["by_density"] = by_density(rows.truth, rows.output)
        value_N = np.abs(rows.output - rows.truth)
        if rows.interval is not None:
            inside_N = covered(rows.truth, rows.interval)
            scores["coverage"] = float(inside_N.mean())
            scores["coverage_interval"] = mean_interval(inside_N, rows.groups)
            scores["interval_width"] = float(np.diff(rows.interval).mean())
    if rows.unfamiliar is not None:
        scores["unfamiliar"] = float(rows.unfamiliar.mean())
        scores["unfamiliar_interval"] = mean_interval(rows.unfamiliar, rows.groups)
    return {**scores, f"{TASKS[task].main}_interval": mean_interval(value_N, rows.groups)}


def mean_interval(value_N: NDArray[Any], groups: Sequence[str]) -> list[float]:
    """The 95 % bootstrap interval, over groups, of a mean."""
    return list(bootstrap_interval(lambda chosen: float(value_N[chosen].mean()), groups))


def classification(
    truth_N: NDArray[np.int64], probability_NK: NDArray[np.floating[Any]], classes: Sequence[str]
) -> Scores:
    """Scores of a classifier over N rows; `confusion` has the truth in rows, in the order of `classes`.

    Macro means and balanced accuracy are over the classes that occur in the truth; AUC is one against the rest.

    >>> scores = classification(np.array([0, 0, 1, 1]), np.array([[.9, .1], [.4, .6], [.2, .8], [.3, .7]]), "ab")
    >>> scores["accuracy"], scores["confusion"], scores["auc_macro"]
    (0.75, [[1, 1], [0, 2]], 1.0)
    """
    from sklearn import metrics as sk

    labels = np.arange(len(classes))
    predicted_N = probability_NK.argmax(1)
    present = np.unique(truth_N)
    precision, recall, f1, n = sk.precision_recall_fscore_support(
        truth_N, predicted_N, labels=labels, zero_division=0.0
    )
    auc = [_auc(truth_N == label, probability_NK[:, label]) for label in labels]
    known = [auc[label] for label in present if auc[label] is not None]
    return {
        "n": len(truth_N),
        "accuracy": float(sk.accuracy_score(truth_N, predicted_N)),
        "balanced_accuracy": float(recall[present].mean()),
        "precision_macro": float(precision[present].mean()),
        "recall_macro": float(recall[present].mean()),
        "f1_macro": float(f1[present].mean()),
        "auc_macro": float(np.mean(known)) if known else None,
        "ece": expected_calibration_error(truth_N, probability_NK),
        "confusion": sk.confusion_matrix(truth_N, predicted_N, labels=labels).tolist(),
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
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(positive_N, score_N))


@dataclass(frozen=True)
class Bin:
    """Rows whose highest probability is within a bin."""

    n: int
    probability: float
    """Their mean highest probability."""
    accuracy: float
    """Share of them that is right."""


def reliability(
    truth_N: NDArray[np.int64], probability_NK: NDArray[np.floating[Any]], *, bins: int = CALIBRATION_BINS
) -> list[Bin]:
    """Sureness against accuracy in equal-width bins of the highest probability; empty bins are left out."""
    sure_N = probability_NK.max(1)
    right_N = probability_NK.argmax(1) == truth_N
    bin_N = np.minimum((sure_N * bins).astype(int), bins - 1)
    return [
        Bin(int(inside.sum()), float(sure_N[inside].mean()), float(right_N[inside].mean()))
        for inside in (bin_N == index for index in np.unique(bin_N))
    ]


def expected_calibration_error(
    truth_N: NDArray[np.int64], probability_NK: NDArray[np.floating[Any]], *, bins: int = CALIBRATION_BINS
) -> float:
    """Mean over rows of |accuracy - highest probability| of their bin (Guo et al. 2017, arXiv:1706.04599, eq. 3).

    Of few rows it is above 0 by chance alone.

    >>> say = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    >>> round(expected_calibration_error(np.array([0, 1, 1]), say), 3)  # (2 × |0.5 - 0.9| + |1 - 0.6|) / 3
    0.4
    """
    filled = reliability(truth_N, probability_NK, bins=bins)
    return sum(bin.n * abs(bin.accuracy - bin.probability) for bin in filled) / len(truth_N)


def roc(positive_N: NDArray[np.bool_], score_N: NDArray[np.floating[Any]]) -> list[tuple[float, float]]:
    """Points (false positive rate, true positive rate) of a ROC curve, thinned to about a hundred; none for one class.

    >>> roc(np.array([False, True]), np.array([0.2, 0.7]))
    [(0.0, 0.0), (0.0, 1.0), (1.0, 1.0)]
    """
    if positive_N.all() or not positive_N.any():
        return []
    from sklearn.metrics import roc_curve

    false_P, true_P, _ = roc_curve(positive_N, score_N)
    kept = np.unique(np.linspace(0, len(false_P) - 1, min(len(false_P), 101)).round().astype(int))
    return list(zip(false_P[kept].tolist(), true_P[kept].tolist(), strict=True))


def density_of(bin: Scores, to: str) -> str:
    """What a bin of `by_density` holds, for a person: a share of a frame's count has many digits.

    >>> density_of({"from": 2.77551, "to": 7.59184}, "–"), density_of({"from": 232.0, "to": 1407.0}, " to ")
    ('2.78–7.59', '232 to 1407')
    >>> density_of({"from": 2.0, "to": 2.0}, "–")
    '2'
    """
    ends = [f"{end:.3g}" if end < 100 else f"{end:.0f}" for end in (bin["from"], bin["to"])]
    return to.join(ends if bin["to"] > bin["from"] else ends[:1])


def by_density(truth_N: NDArray[np.float64], count_N: NDArray[np.float64], *, bins: int = 5) -> list[Scores]:
    """`counting` in bins of the true count, with the bins' ends; the bins are quantiles, so they hold alike many rows.

    >>> few, many = by_density(np.array([0.0, 1.0, 8.0, 9.0]), np.array([0.0, 1.0, 9.0, 11.0]), bins=2)
    >>> few["from"], few["to"], few["mae"], many["from"], many["to"], many["mae"]
    (0.0, 1.0, 0.0, 8.0, 9.0, 1.5)
    """
    if np.isnan(truth_N).any():
        return []
    edges = np.unique(np.quantile(truth_N, np.linspace(0, 1, bins + 1)[1:-1], method="lower"))
    bin_N = np.searchsorted(edges, truth_N)  # (…, first edge], (first, second edge], …
    return [
        {
            "from": float(truth_N[inside].min()),
            "to": float(truth_N[inside].max()),
            **counting(truth_N[inside], count_N[inside]),
        }
        for inside in (bin_N == index for index in np.unique(bin_N))
    ]


def covered(truth_N: NDArray[np.float64], interval_N2: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which true counts are within their interval, ends included.

    >>> covered(np.array([3.0, 9.0]), np.array([[1.0, 3.0], [1.0, 3.0]])).tolist()
    [True, False]
    """
    return np.asarray((interval_N2[:, 0] <= truth_N) & (truth_N <= interval_N2[:, 1]))


def counting(truth_N: NDArray[np.float64], count_N: NDArray[np.float64]) -> Scores:
    """Scores of a counter over N rows.

    `bias` is the mean of predicted - true; `mape` is over rows that hold cells, as a share; `r` is Pearson's.

    >>> scores = counting(np.array([1., 2., 3.]), np.array([1., 2., 5.]))
    >>> round(scores["mae"], 3), round(scores["bias"], 3), round(scores["r2"], 3), round(scores["mape"], 3)
    (0.667, 0.667, -1.0, 0.222)
    """
    from sklearn.metrics import r2_score

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
        "r2": float(r2_score(truth_N, count_N)) if spread else None,
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


def shown(task: Task, scores: Scores, names: Sequence[str] = ()) -> Scores:
    """What a person should see of the scores of a lineage, or of tiles of like density; or these `names` of others.

    >>> shown("count", counting(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 5.0])))["r"] is None
    True
    """
    return {
        name: None if scores["n"] < FEWEST.get(name.removesuffix("_macro"), 0) else scores[name]
        for name in names or TASKS[task].per_lineage
    }


def span(interval: Sequence[float]) -> tuple[float, float] | None:
    """An interval as a person should see it: None where its ends are one, as those over one group are.

    >>> span((0.5, 0.75)), span((0.88, 0.88))
    ((0.5, 0.75), None)
    """
    low, high = interval
    return (low, high) if low < high else None


def hides(scores: Scores) -> bool:
    """Whether some of the scores of an evaluation, or intervals, are of too few to be shown."""
    task, main = scores["task"], TASKS[scores["task"]].main
    of = [scores[unit] for unit in units(scores)]
    names = [name for name in TASKS[task].figures if name in of[0]]
    rows = [shown(task, one, names) for one in of]
    rows += [shown(task, lineage) for one in of for lineage in one.get("per_lineage", {}).values()]
    return any(span(one[f"{main}_interval"]) is None for one in of) or any(
        value is None for row in rows for name, value in row.items() if name.removesuffix("_macro") in FEWEST
    )


def units(scores: Scores) -> list[str]:
    """Of what the scores of an evaluation are shown: `tile` and `frame`, or `frame` where every frame is one tile."""
    return ["frame"] if scores["tile"]["n"] == scores["frame"]["n"] else ["tile", "frame"]


def bootstrap_interval(
    score: Callable[[NDArray[np.int64]], float],
    groups: Sequence[str],
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """An interval of `score(rows)` when whole groups are resampled with replacement (Efron & Tibshirani 1993, ch. 8).

    Rows of one group are not independent, so the group, not the row, is the unit. With one group the
    interval is the score itself and says nothing.
    """
    rows_of = [np.flatnonzero(np.array(groups) == group) for group in dict.fromkeys(groups)]
    rng = np.random.default_rng(seed)
    scores = [
        score(np.concatenate([rows_of[i] for i in rng.integers(0, len(rows_of), len(rows_of))]))
        for _ in range(resamples)
    ]
    low, high = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
