"""The last layer of a classifier alone, learnt in seconds: what a frozen network's other layers see of tiles is given.

A multinomial logistic regression of features that are brought to one spread. How hard it is held is chosen by tiles of
frames that it has not learnt from, as an epoch of a whole training is.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, from_numpy

from cellnet.tasks import Task

HOLDS: Final = (0.003, 0.01, 0.03, 0.1)
"""Values of C that are tried: the weight of a tile's loss against the squares of the layer's numbers."""
UNTOLD_HOLD: Final = 0.01
"""Where there are no tiles to choose by."""
FREE: Final = 0.0
"""How hard a counter's last layers are held: nothing is chosen there."""


@dataclass(frozen=True)
class Features:
    """What the layers before the last see of tiles."""

    seen_NVC: NDArray[np.float16]
    """Of each tile, as it was recorded, in V orientations; for a counter of its V places."""
    truth_N: NDArray[np.int64] | NDArray[np.float32]
    """Labels, or counts."""
    frame_N: NDArray[np.str_]
    """The names of their frames."""
    weight_N: NDArray[np.float32] | None = None
    """Of a counter: with which a tile's count enters its frame's."""
    exact_N: NDArray[np.bool_] | None = None
    """Of a counter: whether its count is of known centres, or a share of its frame's."""
    other_NVC: NDArray[np.float16] | None = None
    """Of a classifier: of the same, as other instruments would have recorded them. To learn from, not to be asked."""
    times_N: NDArray[np.int64] | None = None
    """How many times each teaches; None for once."""

    def are_of(self, frames: Collection[str]) -> NDArray[np.bool_]:
        """Which tiles are of these frames."""
        return np.array([frame in frames for frame in self.frame_N.tolist()], bool)

    def of(self, chosen_N: NDArray[np.bool_]) -> "Features":
        """Those of the chosen tiles."""
        return Features(**{name: column[chosen_N] for name, column in self.columns.items()})

    def taught_again(self, frames: Collection[str], *, most: int) -> "Features":
        """The same, but those of these frames teach `most` times, or until they teach twice as much as the others.

        So frames that are many teach once, and drown none of the others.
        """
        again_N = self.are_of(frames)
        often = 2 * int((~again_N).sum()) // max(1, int(again_N.sum()))
        return replace(self, times_N=np.where(again_N, max(1, min(most, often)), 1))

    def and_of(self, others: "Features") -> "Features":
        """Those of these tiles and of others."""
        more = others.columns
        return Features(**{name: np.concatenate([column, more[name]]) for name, column in self.columns.items()})

    @property
    def columns(self) -> dict[str, Any]:
        """What is known of the tiles, by name: what `Features` is made of."""
        return {name: column for name, column in vars(self).items() if column is not None}


class LastLayers(Protocol):
    """What was learnt of a frozen network."""

    @property
    def loss(self) -> float:
        """The mean over what it learnt from."""

    @property
    def seconds(self) -> float:
        """That learning it took."""

    @property
    def weights(self) -> dict[str, Tensor]:
        """By their names in the network."""

    def answers(self, features: Features) -> NDArray[np.float32]:
        """Probabilities (N, K) or cells (N,) of tiles."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """A last layer."""

    weight_KC: Tensor
    bias_K: Tensor
    loss: float
    seconds: float

    @classmethod
    def of(cls, weights: Mapping[str, Tensor], *, loss: float = 0, seconds: float = 0) -> "Head":
        """The layer that has these `weights`."""
        return cls(weight_KC=weights["out.weight"], bias_K=weights["out.bias"], loss=loss, seconds=seconds)

    @property
    def weights(self) -> dict[str, Tensor]:
        """By their names in the network."""
        return {"out.weight": self.weight_KC, "out.bias": self.bias_K}

    def answers(self, features: Features) -> NDArray[np.float32]:
        """Probabilities (N, K) of tiles, the mean over their orientations."""
        from scipy.special import softmax  # slow to import

        logits_NVK = features.seen_NVC.astype(np.float32) @ self.weight_KC.numpy().T + self.bias_K.numpy()
        return np.asarray(softmax(logits_NVK, axis=2).mean(1), np.float32)


def holds_of(task: Task, *, chosen_by_test: bool) -> tuple[float, ...]:
    """How hard last layers are held, in each of their epochs."""
    if task == "count":
        return (FREE,)
    return HOLDS if chosen_by_test else (UNTOLD_HOLD,)


def fit_head(train: Features, hold: float, *, classes: int, balanced: bool) -> Head:
    """The last layer that names these tiles; every look at a tile, whoever recorded it, counts as one."""
    from scipy.special import softmax  # slow to import, as the next
    from sklearn.linear_model import LogisticRegression

    start_s = time.perf_counter()
    looks = train.seen_NVC if train.other_NVC is None else np.concatenate([train.seen_NVC, train.other_NVC], axis=1)
    seen_NC = looks.reshape(-1, looks.shape[2]).astype(np.float32)
    label_N = np.repeat(train.truth_N, looks.shape[1])
    times_N = None if train.times_N is None else np.repeat(train.times_N, looks.shape[1])
    mean_C, spread_C = seen_NC.mean(0), seen_NC.std(0) + np.float32(1e-3)
    regression = LogisticRegression(C=hold, max_iter=500, class_weight="balanced" if balanced else None)
    regression.fit((seen_NC - mean_C) / spread_C, label_N, sample_weight=times_N)
    coefficient_KC, intercept_K = _of_all_classes(regression, np.unique(label_N), classes)
    weight_KC = coefficient_KC / spread_C
    bias_K = intercept_K - weight_KC @ mean_C
    probability_NK = softmax(seen_NC @ weight_KC.T + bias_K, axis=1)
    return Head(
        weight_KC=from_numpy(weight_KC.astype(np.float32)),
        bias_K=from_numpy(bias_K.astype(np.float32)),
        loss=float(-np.log(probability_NK[np.arange(len(label_N)), label_N] + 1e-30).mean()),
        seconds=time.perf_counter() - start_s,
    )


def _of_all_classes(
    regression: Any, known: NDArray[np.int64], classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coefficients (K, C) and intercepts (K,): of two classes they are one row, a class without a tile has none."""
    coefficient, intercept = np.asarray(regression.coef_), np.asarray(regression.intercept_)
    if len(known) == 2:
        coefficient, intercept = np.vstack([-coefficient, coefficient]) / 2, np.concatenate([-intercept, intercept]) / 2
    coefficient_KC = np.zeros((classes, coefficient.shape[1]))
    intercept_K = np.full(classes, intercept.min() - 20.0)
    coefficient_KC[known], intercept_K[known] = coefficient, intercept
    return coefficient_KC, intercept_K
