"""How sure a model may be, by its test split: a temperature for probabilities, and intervals for counts.

A counter may be fitted to a plate besides (`cellnet.certainty.recount`): then its counts have a scale and an offset.
"""

import math
from collections.abc import Iterator
from typing import Annotated, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cellnet.config.choices import Finite, NotNegative, Number, Positive
from cellnet.config.loading import Frozen, is_none
from cellnet.tasks import Task

LEVEL: Final = 0.9
"""Share of true counts that intervals are made to hold."""
TEMPERATURES: Final = (0.25, 10.0)
FEWEST_FRAMES: Final = 3
"""With fewer frames their parts say nothing of other frames."""
PARTS: Final = 200
"""Random halves of a frame that stand for frames where these are few."""

Basis = Literal["frames", "parts of frames", "counted frames"]


class Calibration(Frozen):
    """What the test split says of a model's sureness: stored in its card, applied wherever it answers.

    Of a counter that was fitted to counted frames of a plate, what these say.
    """

    tiles: Number
    frames: Number
    """Of the test split; 0 where the bank has none, and nothing is calibrated then."""
    temperature: Positive = 1.0
    """Of the classifier's tiles; 1 leaves the probabilities as they are."""
    level: Annotated[float, Field(gt=0, lt=1)] = LEVEL
    tile_quantile: NotNegative | None = None
    """Of `nonconformity`, of a counter's tiles; None where there are too few."""
    frame_quantile: NotNegative | None = None
    """Likewise of whole frames."""
    frame_basis: Basis | None = None
    """`parts of frames`: the frames are too few for conformal intervals, and those given guarantee nothing. `counted
    frames`: they are of the plate that the counts were fitted to."""
    scale: Positive | None = Field(default=None, exclude_if=is_none)
    """What the network's count of every tile is multiplied by; None where it was fitted to no plate."""
    offset: Finite | None = Field(default=None, exclude_if=is_none)
    """Cells that every tile then has more; no tile has fewer than none."""
    doubt: tuple[Finite, Finite, Finite] | None = Field(default=None, exclude_if=is_none)
    """What is not known of scale and offset adds to the variance of a frame's count, in units of `nonconformity`: for
    the square of the count, for the count times its tiles, and for the square of its tiles."""

    def recounted(self, count_N: NDArray[np.float32]) -> NDArray[np.float32]:
        """The network's counts of tiles by scale and offset.

        The offset is of a tile, and not of a frame: so tiles add up to the count of their frame, an ONNX file gives
        what the model says, and a frame twice as large has twice as much of it.

        >>> fitted = Calibration(tiles=5, frames=5, scale=1.5, offset=-0.5)
        >>> fitted.recounted(np.array([0.0, 3.0], np.float32)).tolist()
        [0.0, 4.0]
        """
        if self.scale is None or self.offset is None:
            return count_N
        told_N: NDArray[np.float32] = np.maximum(self.scale * count_N + self.offset, 0)
        return told_N

    def frame_interval(self, count: float, tiles: float) -> tuple[float, float] | None:
        """Low and high end of a frame's count; `tiles` is its area in tiles. None where the frames allowed none."""
        quantile = self.frame_quantile
        if quantile is None and tiles == 1:
            quantile = self.tile_quantile
        if quantile is None:
            return None
        square, product, area = self.doubt or (0.0, 0.0, 0.0)
        doubt = square * count**2 + product * count * tiles + area * tiles**2
        low, high = count_interval(np.array([count]), quantile, doubt=doubt)[0].tolist()
        return low, high

    def lines(self, task: Task) -> Iterator[str]:
        """What a person should know of it."""
        if not self.tiles:
            yield "neither test split nor folds: probabilities are as the network gives them, counts have no interval"
        elif task == "classify":
            yield f"temperature {self.temperature:.2f}, by {self.tiles} tiles of {self.frames} frames"
        elif self.scale is not None and self.offset is not None:
            yield f"counts × {self.scale:.2f} {self.offset:+.2f} a tile, by {self.frames} counted frames of one plate"
            yield (
                f"{self.level:.0%} intervals for that plate: count ± {self.frame_quantile:.2f} √(count + 1), and what "
                "is not known of scale and offset"
            )
        elif self.frame_quantile is None:
            yield f"{self.frames} frames are too few for intervals of counts"
        else:
            yield f"{self.level:.0%} intervals: count ± {self.frame_quantile:.2f} √(count + 1), by {self.frames} frames"
            if self.frame_basis == "parts of frames":
                yield "so few frames that their parts stand for them: the intervals guarantee nothing"


def temper(probability_NK: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """Probabilities after division of the logits by a temperature (Guo et al. 2017, arXiv:1706.04599, eq. 9).

    >>> temper(np.array([[0.8, 0.2]]), 2.0).round(3).tolist(), temper(np.array([[0.8, 0.2]]), 1.0).tolist()
    ([[0.667, 0.333]], [[0.8, 0.2]])
    """
    log_NK = np.log(np.maximum(probability_NK.astype(np.float64), np.finfo(np.float32).tiny)) / temperature
    power_NK = np.exp(log_NK - log_NK.max(1, keepdims=True))
    tempered: NDArray[np.float64] = power_NK / power_NK.sum(1, keepdims=True)
    return tempered


def uncalibrated(probability_NK: NDArray[np.floating], temperature: float) -> NDArray[np.floating]:
    """What `temper` made tempered probabilities from.

    >>> uncalibrated(temper(np.array([[0.8, 0.2]]), 2.0), 2.0).round(6).tolist()
    [[0.8, 0.2]]
    """
    return probability_NK if temperature == 1 else temper(probability_NK, 1 / temperature)


def fit_temperature(truth_N: NDArray[np.int64], probability_NK: NDArray[np.floating]) -> float:
    """The temperature of the least negative log-likelihood of the truth.

    Where no row is mistaken the likelihood grows as the temperature falls, without end; it then stays at 1 or above.

    >>> say = np.array([[0.99, 0.01]] * 10)
    >>> round(float(temper(say, fit_temperature(np.array([0] * 7 + [1] * 3), say))[0, 0]), 2)
    0.7
    """
    from scipy.optimize import minimize_scalar  # slow to import, and serving needs it not

    mistaken = (probability_NK.argmax(1) != truth_N).any()
    rows = np.arange(len(truth_N))

    def loss(log_temperature: float) -> float:
        return float(-np.log(temper(probability_NK, math.exp(log_temperature))[rows, truth_N] + 1e-30).mean())

    bounds = (math.log(TEMPERATURES[0]) if mistaken else 0.0, math.log(TEMPERATURES[1]))
    return float(math.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def nonconformity(truth_N: NDArray[np.float64], count_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """Errors in units of √(ŷ + 1), the spread of a Poisson count (normalised scores: Lei et al. 2018,
    10.1080/01621459.2017.1307116, section 5.2).

    >>> nonconformity(np.array([5.0, 0.0]), np.array([3.0, 0.0])).tolist()
    [1.0, 0.0]
    """
    return np.asarray(np.abs(truth_N - count_N) / np.sqrt(np.maximum(count_N, 0) + 1), np.float64)


def conformal_quantile(score_N: NDArray[np.float64], level: float = LEVEL) -> float | None:
    """The ⌈(n + 1) level⌉-th smallest of n scores (split conformal, Lei et al. 2018, algorithm 2).

    A further, exchangeable row is within it with a probability of at least `level`. None with fewer than
    1 / (1 - level) - 1 rows: no finite interval can promise that.

    >>> conformal_quantile(np.arange(1.0, 10.0), 0.9), conformal_quantile(np.arange(1.0, 20.0), 0.9)
    (9.0, 18.0)
    >>> conformal_quantile(np.arange(1.0, 9.0), 0.9) is None
    True
    """
    rank = math.ceil(round((len(score_N) + 1) * level, 9))
    return float(np.sort(score_N)[rank - 1]) if rank <= len(score_N) else None


def count_interval(count_N: NDArray[np.float64], quantile: float, *, doubt: float = 0.0) -> NDArray[np.float64]:
    """Low and high ends (N, 2) of the counts whose nonconformity is within the quantile; no count is below 0.

    `doubt`: variance of the counts themselves, in units of nonconformity.

    >>> count_interval(np.array([0.0, 24.0]), 2.0).tolist()
    [[0.0, 2.0], [14.0, 34.0]]
    """
    half_N = quantile * np.sqrt(np.maximum(count_N, 0) + 1 + doubt)
    return np.stack([np.maximum(count_N - half_N, 0), count_N + half_N], 1)


def parts_quantile(
    frames: list[tuple[NDArray[np.float64], NDArray[np.float64]]], level: float = LEVEL, *, seed: int = 0
) -> float | None:
    """The `level` quantile of nonconformity over random halves of frames, given as true and predicted tile counts.

    For banks with too few test frames for a conformal interval. Tiles of one frame err alike, so a half tells more of a
    whole than tiles on their own do; but it is still the same few frames, and nothing is guaranteed. None where the
    frames are fewer than three, or of one tile.
    """
    many = [(truth_N, count_N) for truth_N, count_N in frames if len(truth_N) > 1]
    if len(many) < FEWEST_FRAMES:
        return None
    rng = np.random.default_rng(seed)
    scores = []
    for truth_N, count_N in many:
        half = np.array([rng.permutation(len(truth_N))[: -(-len(truth_N) // 2)] for _ in range(PARTS)])
        scores.append(nonconformity(truth_N[half].sum(1), count_N[half].sum(1)))
    return float(np.quantile(np.concatenate(scores), level))


def calibrate_classifier(
    truth_N: NDArray[np.int64], probability_NK: NDArray[np.floating], *, frames: int
) -> Calibration:
    """The calibration of a classifier by its test tiles (uncalibrated probabilities)."""
    return Calibration(tiles=len(truth_N), frames=frames, temperature=fit_temperature(truth_N, probability_NK))


def calibrate_counter(
    tiles: list[tuple[NDArray[np.float64], NDArray[np.float64]]],
    truth_F: NDArray[np.float64],
    count_F: NDArray[np.float64],
) -> Calibration:
    """The calibration of a counter by true and predicted counts: of the tiles of each test frame, and of the frames."""
    truth_N, count_N = (np.concatenate(of) for of in zip(*tiles, strict=True))
    known_N = ~np.isnan(truth_N)
    frame_quantile, basis = conformal_quantile(nonconformity(truth_F, count_F)), "frames"
    if frame_quantile is None:
        frame_quantile, basis = parts_quantile(tiles), "parts of frames"
    return Calibration(
        tiles=len(truth_N),
        frames=len(truth_F),
        tile_quantile=conformal_quantile(nonconformity(truth_N[known_N], count_N[known_N])),
        frame_quantile=frame_quantile,
        frame_basis=basis if frame_quantile is not None else None,  # type: ignore[arg-type]
    )
