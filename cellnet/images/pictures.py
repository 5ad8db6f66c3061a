"""Frames as pictures to look at: of a handy size, in the contrast that networks get, with the centres of cells."""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from cellnet.config.bank import Intensity
from cellnet.images.pixels import Pixels, stretch

SIDES_PX: Final = (480, 1200)
"""Long side of a frame's picture, at least and at most."""
CENTRE: Final = (191, 95, 255)
"""The colour of centres, BGR: it is in no map of colours here, and readable on black and on white."""
INK: Final = (24, 24, 24)


def picture_size(height: int, width: int, sides_px: tuple[int, int] = SIDES_PX) -> tuple[int, int]:
    """Height and width of a frame's picture, whose long side is within `sides_px`.

    >>> picture_size(200, 200), picture_size(1040, 1408), picture_size(10_000, 100)
    ((480, 480), (886, 1200), (1200, 12))
    """
    long = max(height, width)
    factor = min(max(long, sides_px[0]), sides_px[1]) / long
    return max(1, round(height * factor)), max(1, round(width * factor))


def grey_picture(image_HW: Pixels, rule: Intensity, sides_px: tuple[int, int] = SIDES_PX) -> NDArray[np.uint8]:
    """A frame's picture (H, W), its grey values stretched by the rule as they are for a network."""
    recorded_height, recorded_width = image_HW.shape
    height, width = picture_size(recorded_height, recorded_width, sides_px)
    how = cv2.INTER_AREA if height < recorded_height else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(stretch(image_HW, rule), (width, height), interpolation=how), np.uint8)


def with_centres(picture_HW3: NDArray[np.uint8], centres_N2: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A ring around every centre, columns x and y in pixels of the picture; of those outside what reaches into it."""
    marked_HW3 = picture_HW3.copy()
    radius = max(4, round(max(picture_HW3.shape) / 90))
    for x, y in np.round(centres_N2.clip(-(2**15), 2**15)).astype(int).tolist():
        cv2.circle(marked_HW3, (x, y), radius, INK, 4, cv2.LINE_AA)
        cv2.circle(marked_HW3, (x, y), radius, CENTRE, 2, cv2.LINE_AA)
    return marked_HW3
