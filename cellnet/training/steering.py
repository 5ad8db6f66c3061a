"""The few scores of the test split that steer a training."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellnet.tasks import Task


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
    from sklearn.metrics import r2_score  # slow to import, and answering needs it not

    truth_N, count_N = truth_N.astype(np.float64), output.astype(np.float64)
    spread = len(truth_N) > 1 and np.ptp(truth_N) > 0
    return {
        "mae": float(np.abs(count_N - truth_N).mean()),
        "r2": float(r2_score(truth_N, count_N)) if spread else math.nan,
    }
