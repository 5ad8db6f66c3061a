"""Small pictures of the frames that were looked at, for the page: browsers show no TIFF, and 12 bits nearly black."""

import base64
from typing import Final

import cv2

from cellnet.config.bank import Intensity
from cellnet.images.pixels import Pixels, stretch

SIDE_PX: Final = 128
"""Of the long side, at most."""
CONTRAST: Final = Intensity(low=0.5, high=99.5)
QUALITY: Final = 80
"""Of the JPEG: about 4 kB."""


def thumbnail(image_HW: Pixels) -> str:
    """A small picture of a frame as a data URL (image/jpeg), its grey values spread so that a person sees the cells."""
    shrunk = min(1.0, SIDE_PX / max(image_HW.shape))
    height, width = (max(1, round(side * shrunk)) for side in image_HW.shape)
    small_HW = cv2.resize(image_HW, (width, height), interpolation=cv2.INTER_AREA)
    grey_HW = stretch(small_HW.astype(image_HW.dtype), CONTRAST)
    _, data = cv2.imencode(".jpg", grey_HW, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
