"""Whether an image is like those that a network was trained on.

A network names and counts whatever it is given. Tiles are described by what the network's last layer sees of them and
by their grey values; the distance to the training tiles is Mahalanobis's, with a shrunken covariance (Lee et al. 2018,
arXiv:1807.03888; Ledoit & Wolf 2004, 10.1016/S0047-259X(03)00096-4). A frame is unfamiliar when its median tile is.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

import cv2
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from cellnet.certainty.calibration import conformal_quantile
from cellnet.errors import IntegrityError
from cellnet.images.pixels import percentiles
from cellnet.untrusted import check_safetensors

FAMILIARITY: Final = "familiarity.safetensors"
"""The role of the blob in the registry."""
FALSE_RATE: Final = 0.05
"""Share of familiar frames that may be called unfamiliar."""
MOST_FEATURES: Final = 4096
"""A blob that claims more is refused: the covariance is their square."""
SCALES_PX: Final = (1, 2, 4, 8, 16)
"""Standard deviations of the blurs between which structure is measured."""
FOLDS: Final = 5


@dataclass(frozen=True, kw_only=True)
class Familiarity:
    """What training tiles look like: mean and inverse covariance of D features, and how far is too far."""

    mean_D: NDArray[np.floating]
    precision_DD: NDArray[np.floating]
    """Of double precision where a plate was added: what it makes familiar is a small difference of large numbers."""
    threshold: float
    """The distance that the median tile of `FALSE_RATE` of familiar frames exceeds."""

    def strangeness(self, features_ND: NDArray[np.float32]) -> NDArray[np.float64]:
        """Distances (N,) as multiples of the threshold: above 1 is unlike the training tiles.

        >>> known = Familiarity(mean_D=np.zeros(2), precision_DD=np.eye(2), threshold=2.0)
        >>> known.strangeness(np.array([[0.0, 1.0], [3.0, 4.0]])).tolist()
        [0.5, 2.5]
        """
        return _distances(features_ND, self.mean_D, self.precision_DD) / self.threshold

    def to_bytes(self) -> bytes:
        """A safetensors file."""
        threshold = np.array([self.threshold], np.float32)
        data: bytes = safetensors.numpy.save(
            {"mean": self.mean_D, "precision": self.precision_DD, "threshold": threshold}
        )
        return data

    @classmethod
    def from_bytes(cls, data: bytes, ref: str) -> Self:
        """What `to_bytes` gave of the model `ref`. Raises IntegrityError for anything else."""
        check_safetensors(data, f"{FAMILIARITY} of {ref}")
        try:
            arrays = safetensors.numpy.load(data)
            mean_D, precision_DD, (threshold,) = arrays["mean"], arrays["precision"], arrays["threshold"]
            good = mean_D.ndim == 1 and precision_DD.shape == (len(mean_D), len(mean_D)) and threshold > 0
            good = (
                good and len(mean_D) <= MOST_FEATURES and np.isfinite(precision_DD).all() and np.isfinite(mean_D).all()
            )
        except (KeyError, ValueError, TypeError) as error:
            raise IntegrityError(f"{FAMILIARITY} of {ref} is not one: {str(error).splitlines()[0]}") from error
        if not good:
            raise IntegrityError(f"{FAMILIARITY} of {ref} holds a mean of shape {mean_D.shape} that nothing fits")
        return cls(mean_D=mean_D, precision_DD=precision_DD, threshold=float(threshold))


def fit_familiarity(
    train: Sequence[NDArray[np.float32]],
    test: Sequence[NDArray[np.float32]],
    *,
    false_rate: float = FALSE_RATE,
    apart: Sequence[NDArray[np.float64]] = (),
) -> Familiarity:
    """What the tiles of the training frames look like, and how far is too far by the test frames: features (N, D) each.

    `apart`, in place of test frames: how far tiles of other frames were from what other networks were trained on, of
    cross-validation (`distances_between`). Distances of this kind do not change with the scale of features.

    Without test frames the distances are those of every fifth of the training tiles to the others: tiles of the same
    frames, so the threshold is then too strict for other frames.
    """
    train_ND = np.concatenate(train)
    mean_D, precision_DD = _fit(train_ND)
    if apart or test:
        distances = apart or [_distances(tiles_ND, mean_D, precision_DD) for tiles_ND in test]
    else:
        fold_N = np.random.default_rng(0).permutation(len(train_ND)) % FOLDS
        distance_N = np.empty(len(train_ND))
        for fold in np.unique(fold_N):
            distance_N[fold_N == fold] = _distances(train_ND[fold_N == fold], *_fit(train_ND[fold_N != fold]))
        distances = np.split(distance_N, np.cumsum([len(tiles_ND) for tiles_ND in train])[:-1])
    threshold = max(_threshold(distances, false_rate), 1e-6)
    return Familiarity(mean_D=mean_D, precision_DD=precision_DD, threshold=threshold)


def distances_between(
    train: Sequence[NDArray[np.float32]], test: Sequence[NDArray[np.float32]]
) -> list[NDArray[np.float64]]:
    """How far the tiles of each test frame are from those of the training frames: features (N, D) each."""
    mean_D, precision_DD = _fit(np.concatenate(train))
    return [_distances(tiles_ND, mean_D, precision_DD) for tiles_ND in test]


def with_plate(known: Familiarity, frames: Sequence[NDArray[np.float32]]) -> Familiarity:
    """The same, to which a plate is familiar too by the tiles of a few frames of it: features (N, D) each.

    The training tiles and the plate are taken for two halves of one population, whose covariance is that of the
    training tiles and that between the means of the training and of each frame (law of total covariance). So what
    tells the plate from the training is no longer strange, and all else is as strange as before. The threshold stays,
    unless a frame is farther by what the others say: then it is that distance. So few frames promise no rate of false
    flags; to promise one by an assumption of how distances are spread let many strange images pass.
    """
    between = [_with_means(known, [*frames[:i], *frames[i + 1 :]]) for i in range(len(frames))]
    distance_F = [float(np.median(_distances(one, *of))) for one, of in zip(frames, between, strict=True)]
    mean_D, precision_DD = _with_means(known, frames)
    return Familiarity(mean_D=mean_D, precision_DD=precision_DD, threshold=max(known.threshold, *distance_F))


def _with_means(
    known: Familiarity, frames: Sequence[NDArray[np.float32]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and inverse covariance of the training tiles and of frames, half and half (Woodbury's identity)."""
    mean_MD = np.stack([known.mean_D, *(tiles_ND.mean(0) for tiles_ND in frames)]).astype(np.float64)
    weight_M = np.array([0.5, *[0.5 / len(frames)] * len(frames)])
    mean_D = weight_M @ mean_MD
    between_MD = np.sqrt(weight_M)[:, None] * (mean_MD - mean_D)
    precision_DD = known.precision_DD.astype(np.float64)
    seen_MD = between_MD @ precision_DD
    inner_MM = np.eye(len(mean_MD)) + seen_MD @ between_MD.T
    precision_DD -= seen_MD.T @ np.linalg.solve(inner_MM, seen_MD)
    return mean_D, precision_DD


def _threshold(distances: Sequence[NDArray[np.float64]], false_rate: float) -> float:
    """What the median distance of a further frame exceeds with a probability of at most `false_rate` (conformal).

    Where the frames are too few to tell, what nearly all tiles of the farthest of them are below.
    """
    promised = conformal_quantile(np.array([np.median(distance_N) for distance_N in distances]), 1 - false_rate)
    if promised is not None:
        return promised
    return max(float(np.quantile(distance_N, 1 - false_rate)) for distance_N in distances)


def _fit(features_ND: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and inverse covariance; features are brought to one spread first, since shrinkage takes them alike."""
    from sklearn.covariance import LedoitWolf  # slow to import, and serving needs it not

    mean_D = features_ND.mean(0)
    spread_D = np.maximum(features_ND.std(0), 1e-4)
    precision_DD = LedoitWolf(assume_centered=True).fit((features_ND - mean_D) / spread_D).precision_
    return mean_D.astype(np.float32), (precision_DD / np.outer(spread_D, spread_D)).astype(np.float32)


def _distances(
    features_ND: NDArray[np.float32], mean_D: NDArray[np.floating], precision_DD: NDArray[np.floating]
) -> NDArray[np.float64]:
    away_ND = features_ND.astype(np.float64) - mean_D
    squared_N = ((away_ND @ precision_DD.astype(np.float64)) * away_ND).sum(1)
    return np.asarray(np.sqrt(np.maximum(squared_N, 0)), np.float64)


def grey_features(tiles: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Grey values of tiles in numbers (N, 11) that do not change when a tile is turned.

    Five quantiles, the share of the extreme values, and the logarithm of the structure at each of `SCALES_PX`.
    """
    return np.stack([_grey_features(tile_HW) for tile_HW in tiles])


def _grey_features(tile_HW: NDArray[np.uint8]) -> NDArray[np.float32]:
    quantiles = [shade / 255 for shade in percentiles(tile_HW, 5, 25, 50, 75, 95)]
    extreme = np.mean((tile_HW == 0) | (tile_HW == 255))
    structure_S = _structure(tile_HW.astype(np.float32) / np.float32(255))
    return np.array([*quantiles, np.log(extreme + 1e-3), *np.log(structure_S + 1e-3)], np.float32)


def _structure(grey_HW: NDArray[np.float32]) -> NDArray[np.float64]:
    """Standard deviations (S,) of what is between a square image and its blur by the first of `SCALES_PX`, between that
    and its blur by the second, and so on.

    To six digits as np.std of differences of cv2.GaussianBlur. Those reflect the border, and so only multiply the
    image's cosine transform (DCT-I; Martucci 1994, 10.1109/78.295213): one transform does for all, in 0.5 ms a tile of
    200 pixels a side, where the blurs take 2.1 ms, on one core, of the 6 ms that a request to the service takes.
    Of its basis the parts are orthogonal but for half of the outermost rows and columns, which is added.
    """
    basis = _basis(len(grey_HW))
    spectrum_HW = basis.analysis_NN @ grey_HW @ basis.analysis_NN.T
    squares_S = basis.power_SN @ np.square(spectrum_HW).ravel()
    rows_S3N, columns_S3N = (
        np.diff((basis.sums_MN @ amplitudes_NN).reshape(-1, 3, len(grey_HW)) * basis.gain_TN[:, None], axis=0)
        for amplitudes_NN in (spectrum_HW, spectrum_HW.T)
    )
    mean_S = rows_S3N[:, 2] @ basis.total_N / grey_HW.size
    rows_S2N, columns_S2N = rows_S3N[:, :2], columns_S3N[:, :2]
    edges_S = ((rows_S2N**2 + columns_S2N**2) @ basis.weight_N).sum(1) / 2
    corners_S = np.square(rows_S2N @ basis.ends_2N.T).sum((1, 2)) / 4
    variance_S = (squares_S + edges_S + corners_S) / grey_HW.size - mean_S**2
    return np.asarray(np.sqrt(np.maximum(variance_S, 0)), np.float64)


class _Basis(NamedTuple):
    """Cosines of a square image's side N, and what each of T = S + 1 blurs, the first of them none, does to them."""

    analysis_NN: NDArray[np.float32]
    """From grey values to amplitudes."""
    gain_TN: NDArray[np.float64]
    power_SN: NDArray[np.float32]
    """What a squared amplitude (of N², in a row) adds to the squares of a difference of blurs."""
    weight_N: NDArray[np.float64]
    """Squares of each cosine, its ends by half."""
    ends_2N: NDArray[np.float64]
    """Its first and its last value."""
    total_N: NDArray[np.float64]
    """The sum of its values."""
    sums_MN: NDArray[np.float32]
    """What the first value, the last one, and the sum take of each amplitude, for each blur: M = 3 T."""


@functools.cache
def _basis(side: int) -> _Basis:
    place_N = np.arange(side)
    cosine_NN = np.cos(np.pi * np.outer(place_N, place_N) / (side - 1))
    half_N = np.ones(side)
    half_N[[0, -1]] = 0.5
    weight_N = (side - 1) / 2 / half_N
    gain_TN = np.stack([np.ones(side), *(_gain(scale, side) for scale in SCALES_PX)])
    gain_TNN = gain_TN[:, :, None] * gain_TN[:, None, :]
    power_SNN = np.diff(gain_TNN, axis=0) ** 2 * np.outer(weight_N, weight_N)
    ends_2N, total_N = cosine_NN[[0, -1]], cosine_NN.sum(0)
    return _Basis(
        analysis_NN=(half_N[:, None] * cosine_NN * half_N * 2 / (side - 1)).astype(np.float32),
        gain_TN=gain_TN,
        power_SN=power_SNN.reshape(len(SCALES_PX), -1).astype(np.float32),
        weight_N=weight_N,
        ends_2N=ends_2N,
        total_N=total_N,
        sums_MN=(gain_TN[:, None] * np.vstack([ends_2N, total_N])).reshape(-1, side).astype(np.float32),
    )


def _gain(scale_px: float, side: int) -> NDArray[np.float64]:
    """What cv2.GaussianBlur of floats leaves of each cosine."""
    taps = round(8 * scale_px + 1) | 1
    weights = cv2.getGaussianKernel(taps, scale_px, cv2.CV_64F)[:, 0]
    away = np.arange(taps) - taps // 2
    return np.asarray(weights @ np.cos(np.pi * np.outer(away, np.arange(side)) / (side - 1)), np.float64)
