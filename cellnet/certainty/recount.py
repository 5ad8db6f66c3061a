"""A counter's scale, offset and intervals for a plate of which a few frames were counted.

Bayesian linear regression of the true counts on the network's. What is believed before a frame is seen is written here:
the scale is 1 give or take `SCALE_SPREAD`; an empty frame would be found empty, give or take `EMPTY_SPREAD` of the
cells of the mean frame, counted or found, so that of frames that are all alike it is the scale that is wrong; and
errors have the spread, in units of `nonconformity`, that the version's own intervals speak of. That weighs
`PRIOR_FRAMES` only, since on a new plate it is often several times as large. The spread is found by the evidence
(MacKay 1992, 10.1162/neco.1992.4.3.415), and a further frame is within Student's t of it and of what is not known of
the fit (Gelman et al., Bayesian Data Analysis, 3rd ed. 2013, section 14.2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cellnet.certainty.calibration import Calibration, nonconformity
from cellnet.errors import DataError

SCALE_SPREAD: Final = 0.5
"""Standard deviation of the scale between plates, before any frame is seen."""
PRIOR_FRAMES: Final = 0.5
"""How many frames the version's own spread weighs as much as."""
EMPTY_SPREAD: Final = 0.1
"""Likewise of what is found in an empty frame, as a share of the cells of the mean frame."""
LEAST_SPREAD: Final = 0.1
"""Of nonconformity: no frames were ever counted more exactly."""
SCALES: Final = (0.01, 10.0)
"""Beyond these the network does not count what was counted."""
ROUNDS: Final = 50


@dataclass(frozen=True, kw_only=True)
class CountedTiles:
    """A counted frame, and the network's count of each of its tiles, nothing being fitted."""

    truth: float
    count_N: NDArray[np.float32]
    weight_N: NDArray[np.float64]
    """Of each tile in the frame."""

    def seen(self, scale: float, offset: float) -> tuple[float, float]:
        """What the frame's count is the sum of: its cells, and its area in tiles, where scale and offset leave any."""
        left_N = self.weight_N * (scale * self.count_N + offset > 0)
        return float((left_N * self.count_N).sum()), float(left_N.sum())


def fit_recount(frames: Sequence[CountedTiles], before: Calibration) -> Calibration:
    """The calibration of a counter for the plate of these frames, by what was said of it before.

    Raises DataError for frames without any cells, and where the network does not count what was counted.
    """
    truth_F = np.array([frame.truth for frame in frames])
    if not truth_F.any():
        raise DataError("all frames were counted 0, which says nothing of frames with cells; count some of those too")
    prior_variance = _spread(before) ** 2
    tiles = float(np.mean([frame.weight_N.sum() for frame in frames]))
    found = float(np.mean([frame.count_N @ frame.weight_N for frame in frames]))
    spread_2 = np.array([SCALE_SPREAD, EMPTY_SPREAD * max(truth_F.mean(), found) / tiles])
    prior_22 = np.diag(spread_2**-2)
    fit_2, variance = np.array([1.0, 0.0]), prior_variance
    for _ in range(ROUNDS):
        seen_F2 = np.array([frame.seen(*fit_2) for frame in frames])
        count_F = np.maximum(seen_F2 @ fit_2, 0)
        weighed_F2 = seen_F2 / (variance * (count_F + 1))[:, None]
        covariance_22 = np.linalg.inv(weighed_F2.T @ seen_F2 + prior_22)
        fit_2 = covariance_22 @ (weighed_F2.T @ truth_F + prior_22 @ (1, 0))
        determined = 2 - np.trace(covariance_22 @ prior_22)
        freedom = PRIOR_FRAMES + len(frames) - determined
        square_F = nonconformity(truth_F, np.maximum(seen_F2 @ fit_2, 0)) ** 2
        variance = (PRIOR_FRAMES * prior_variance + square_F.sum()) / freedom
    scale, offset = fit_2.tolist()
    if scale < SCALES[0] or max(scale, truth_F.mean() / max(found, 1e-9)) > SCALES[1]:
        raise DataError(
            f"a frame has {truth_F.mean():.0f} cells where the network finds {found:.1f}, and no scale makes one of "
            "the other; count frames with more cells, or train with these (cellnet bank import, cellnet train)"
        )
    return Calibration(
        tiles=sum(len(frame.count_N) for frame in frames),
        frames=len(frames),
        level=before.level,
        frame_quantile=_students_t(before.level, freedom) * variance**0.5,
        frame_basis="counted frames",
        scale=scale,
        offset=offset,
        doubt=_doubt(covariance_22 / variance, scale, offset),
    )


def _spread(before: Calibration) -> float:
    """The standard deviation of nonconformity that a version's intervals speak of; of one without, a Poisson count's.

    >>> round(_spread(Calibration(tiles=9, frames=9, frame_quantile=3.29)), 2), _spread(Calibration(tiles=0, frames=0))
    (2.0, 1.0)
    """
    quantile = before.frame_quantile if before.frame_quantile is not None else before.tile_quantile
    if quantile is None:
        return 1.0
    from scipy.stats import norm  # slow to import, and serving needs it not

    return max(quantile / float(norm.ppf((1 + before.level) / 2)), LEAST_SPREAD)


def _students_t(level: float, freedom: float) -> float:
    """How many standard deviations are on either side of the mean in the interval that holds `level`."""
    from scipy.stats import t

    return float(t.ppf((1 + level) / 2, freedom))


def _doubt(covariance_22: NDArray[np.float64], scale: float, offset: float) -> tuple[float, float, float]:
    """The variance that a covariance of scale and offset means, by a frame's count as it is told and its tiles."""
    of_told_22 = np.array([[1 / scale, -offset / scale], [0.0, 1.0]])
    (square, half), (_, area) = of_told_22.T @ covariance_22 @ of_told_22
    return float(square), float(2 * half), float(area)
