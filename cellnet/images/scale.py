"""Frames brought to the magnification of the training frames."""

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from cellnet.config.train import Preprocess
from cellnet.errors import DataError
from cellnet.images.pixels import MAX_PIXELS, Pixels, stretch


def rescale(image_HW: NDArray[Any], factor: float) -> NDArray[Any]:
    """The image with both sides multiplied by `factor` (area averaging when it shrinks)."""
    if factor == 1.0:
        return image_HW
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    if image_HW.size * factor**2 > MAX_PIXELS:
        raise DataError(f"at the training magnification the frame is over {MAX_PIXELS // 10**6} megapixels; cut it")
    height, width = (max(1, round(side * factor)) for side in image_HW.shape)
    return np.asarray(cv2.resize(image_HW, (width, height), interpolation=how))


MAX_RESCALE: Final = 4.0
"""Pixel sizes further apart than this factor are refused: the detail is not there."""


def factor_between(pixel_um: float | None, trained_um: float | None) -> float:
    """What a frame is resized by; 1 when either pixel size is not known, or they agree to 2 %."""
    if pixel_um is None or trained_um is None:
        return 1.0
    factor = pixel_um / trained_um
    if not 1 / MAX_RESCALE <= factor <= MAX_RESCALE:
        raise DataError(
            f"a pixel is {pixel_um:g} µm, but the network is for {trained_um:g} µm a pixel, more than "
            f"{MAX_RESCALE:g}× apart; correct the pixel size, or use a model of that magnification"
        )
    return 1.0 if abs(factor - 1) < 0.02 else factor


def frame_at_scale(image_HW: Pixels, pixel_um: float | None, preprocess: Preprocess) -> tuple[NDArray[np.uint8], float]:
    """The frame in grey values 0..255 at the training frames' magnification, and the factor it was resized by.

    The factor is 1 when either pixel size is not known. Raises DataError for pixel sizes too far apart.
    """
    factor = factor_between(pixel_um, preprocess.pixel_um)
    return rescale(stretch(image_HW, preprocess.intensity), factor), factor
