"""A frame as a bank knows it."""

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cellnet.config.choices import Split
from cellnet.images.file import ImageFile
from cellnet.images.pixels import Pixels
from cellnet.store.objects import Store

FORM: Final = 3
"""What reading makes of files; to be raised when it makes something else of the same file.

3: TIFF by tifffile. Before, white was taken for black where 16 bits say so, planar colour and channels were mixed, and
pixel sizes in µm, and some in other units, were not seen.
"""
MOST_CELLS: Final = 10**9
"""Of a frame."""
FEW_GREYS: Final = 32
"""An image of fewer grey values was exported from a small part of the camera's range."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """One field of view: what the bank knows of it. Its pixels are fetched by `Bank.pixels`."""

    frame: str
    """sha256 of the pixels; empty for a frame that was set aside."""
    source: str
    lineage: str | None = None
    count: float | None = None
    centres: list[list[float]] | None = None
    """[x, y] of every cell, in pixels."""
    note: str | None = None
    """How its mask was read, where another reading can be thought of."""
    group: str = ""
    batch: str | None = None
    """What was prepared and recorded together with it."""
    time_h: float | None = None
    """Hours since seeding."""
    split: Split | None = None
    height: int = 0
    width: int = 0
    bits: int = 0
    darkest: int = 0
    """The smallest grey value as recorded."""
    brightest: int = 0
    greys: int | None = None
    """How many grey values it has, where these are fewer than `FEW_GREYS`."""
    sharpness: float | None = None
    """How much of its contrast lies in the finest detail (`sharpness_of`)."""
    focus: float | None = None
    """This and the next two are `Measures` of cellnet/images/quality.py; None of before there were any."""
    brightest_share: float | None = None
    structure: float | None = None
    pixel_um: float | None = None
    fingerprint: str = ""
    """The perceptual hash (cellnet/bank/duplicates.py)."""
    twin: str | None = None
    """The `frame` of the first one that is nearly the same."""
    unusable: str | None = None
    """Why it can neither teach nor score, as a label says; None for a frame that can."""
    form: int | None = None
    """The `FORM` by which it was read; None of before there were any."""
    set_aside: str | None = None
    """Why the image is not used; None for a frame in use."""

    @property
    def centres_N2(self) -> NDArray[np.float32] | None:  # noqa: N802 - the shape is part of the name
        """The centres as an array (N, 2), columns x and y."""
        return None if self.centres is None else np.array(self.centres, np.float32).reshape(-1, 2)


def read_pixels(store: Store, frame: Frame) -> Pixels:
    """The grey pixels (H, W) of a frame as recorded. Raises NotFoundError or DataError."""
    return ImageFile(frame.source, store.get(f"pixels/{frame.frame}.png")).decode()


def digest_of_pixels(image_HW: Pixels) -> str:
    """sha256 of a frame's pixels, by which banks know it."""
    header = f"{image_HW.dtype} {image_HW.shape}".encode()
    return hashlib.sha256(header + image_HW.tobytes()).hexdigest()
