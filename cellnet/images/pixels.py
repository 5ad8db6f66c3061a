"""Pixels: decode, stretch, cut, resize, filter. The same functions in training and in serving.

Dimension suffixes, here and everywhere: H height, W width, N any number, B batch, K classes.
"""

import functools
import math
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from cellnet.config.bank import Intensity
from cellnet.config.choices import Illumination, Kernel
from cellnet.config.train import Preprocess

# CLAHE is not among them: on the living-dead crops (ReLU, 20 epochs, three seeds) it counted no better than no kernel,
# 0.508 cells off against 0.505.
KERNELS: Final[dict[Kernel, tuple[tuple[float, ...], ...] | None]] = {
    "none": None,
    "sharpen": ((0, -1, 0), (-1, 5, -1), (0, -1, 0)),
    "edge": ((-1, -1, -1), (-1, 8, -1), (-1, -1, -1)),
    "emboss": ((-2, -1, 0), (-1, 1, 1), (0, 1, 2)),
    "laplacian": ((0, -1, 0), (-1, 4, -1), (0, -1, 0)),
    "unsharp": ((-1 / 16, -2 / 16, -1 / 16), (-2 / 16, 28 / 16, -2 / 16), (-1 / 16, -2 / 16, -1 / 16)),
    "gaussian": ((1 / 16, 2 / 16, 1 / 16), (2 / 16, 4 / 16, 2 / 16), (1 / 16, 2 / 16, 1 / 16)),
}
BACKGROUND_PX: Final = 16.0
"""Standard deviation of the blur that is taken for what lies behind the cells, in pixels of a 200×200 tile."""
LOCAL_DEVIATION: Final = 1 / 6
"""Of grey values after `local`: three deviations are black and white."""
FAINTEST: Final = 2 / 255
"""Deviations far below it are noise, and stay faint."""
Pixels = NDArray[np.uint8] | NDArray[np.uint16]
"""Grey, as recorded, (H, W)."""
MAX_PIXELS: Final = 100_000_000
"""Largest image that is decoded (10,000 × 10,000); the header is read first."""


def stretch(image_HW: Pixels, rule: Intensity) -> NDArray[np.uint8]:
    """Grey values 0..255 of a whole frame by an intensity rule; values beyond it saturate."""
    low, high = rule.low, rule.high
    if rule.rule == "percentile":
        low, high = percentiles(image_HW, low, high)
    elif rule.rule == "background":
        [median] = percentiles(image_HW, 50)
        low, high = median + low, median + high
    scale = 255.0 / max(float(high - low), 1e-6)
    levels = np.arange(np.iinfo(image_HW.dtype).max + 1, dtype=np.float32)
    table = np.clip(np.round((levels - np.float32(low)) * scale), 0, 255).astype(np.uint8)
    return table[image_HW]


def percentiles(image_HW: Pixels, *percents: float) -> list[float]:
    """What np.percentile gives, to the bit, from a count of every grey value: several times faster than sorting."""
    pixels_up_to = np.bincount(image_HW.ravel()).cumsum()
    values = []
    for percent in percents:
        place = (image_HW.size - 1) * (percent / 100)
        below, above = np.searchsorted(pixels_up_to, [int(place), math.ceil(place)], side="right").tolist()
        part = place % 1
        # NumPy counts from the nearer value, and so must this to round alike.
        values.append(below + (above - below) * part if part < 0.5 else above - (above - below) * (1 - part))
    return values


def sharpness_of(image_HW: Pixels) -> float:
    """Which part of a frame's contrast is gone when it is blurred by a pixel: near 0 out of focus, near 1 for noise.

    Of the deviation from what lies behind the cells, so that uneven light takes no part.
    """
    grey_HW = np.asarray(image_HW, np.float32)
    detail_HW = grey_HW - cv2.GaussianBlur(grey_HW, (0, 0), BACKGROUND_PX / 2)
    fine_HW = grey_HW - cv2.GaussianBlur(grey_HW, (0, 0), 1)
    return float(fine_HW.std() / max(float(detail_HW.std()), 1e-9))


def apply_kernel(image_HW: NDArray[np.uint8], name: Kernel) -> NDArray[np.uint8]:
    """Filter with a named 3×3 kernel; the border is reflected, values saturate at 0 and 255."""
    weights = KERNELS[name]
    if weights is None:
        return image_HW
    filtered = cv2.filter2D(image_HW, -1, np.array(weights, np.float32), borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(filtered, np.uint8)


@functools.cache
def blur_matrix(side: int) -> NDArray[np.float32]:
    """What blurs the columns of a square image (and, transposed, its rows) by `BACKGROUND_PX`; the border is reflected.

    Gaussian, to three standard deviations: `matrix @ image @ matrix.T` is cv2.GaussianBlur, and the same in any
    library that multiplies matrices.
    """
    taps = min(2 * round(3 * BACKGROUND_PX), 2 * (side - 1)) + 1
    weights = cv2.getGaussianKernel(taps, BACKGROUND_PX, cv2.CV_64F)
    blur_NN = cv2.sepFilter2D(np.eye(side), -1, np.ones(1), weights, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(blur_NN, np.float32)


def even_out(grey: Any, illumination: Illumination, blur_NN: Any) -> Any:
    """Grey values of 0..1 (..., N, N), arrays or tensors, without what changes slowly over a tile; the mean is 0.5.

    `shading`: without the blurred tile behind it. `local`: also divided by the deviation from it around each pixel, so
    that faint cells look like strong ones (local contrast normalisation: Jarrett et al. 2009,
    10.1109/ICCV.2009.5459469).
    """
    away = grey - blur_NN @ grey @ blur_NN.T
    if illumination == "local":
        deviation = (blur_NN @ (away * away) @ blur_NN.T) ** 0.5
        away = away * (LOCAL_DEVIATION / (deviation + FAINTEST))
    return (away + 0.5).clip(0, 1)


def scale_and_shift(preprocess: Preprocess) -> tuple[float, float]:
    """By what grey values 0..255 are multiplied, and what is then subtracted, to be what a network takes."""
    return 1 / (255 * preprocess.std), preprocess.mean / preprocess.std


def normalise(tiles_BHW: NDArray[np.uint8], preprocess: Preprocess) -> NDArray[np.float32]:
    """Network input (B, 1, H, W) from 200×200 tiles: the model's kernel, evened out, then (grey - mean) / std."""
    filtered_BHW = np.stack([apply_kernel(tile_HW, preprocess.kernel) for tile_HW in tiles_BHW]).astype(np.float32)
    scale, shift = scale_and_shift(preprocess)
    if preprocess.illumination != "none":
        blur_NN = blur_matrix(filtered_BHW.shape[-1])
        filtered_BHW = even_out(filtered_BHW / np.float32(255), preprocess.illumination, blur_NN) * np.float32(255)
    return (filtered_BHW[:, None] * scale - shift).astype(np.float32, copy=False)
