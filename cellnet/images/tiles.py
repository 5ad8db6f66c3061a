"""Tiles: a frame cut into what a network sees at once."""

import itertools
import math
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cellnet.config.choices import NETWORK_PX
from cellnet.errors import DataError

TOLERANCE: Final = 1.1
"""How far a tile may be stretched to divide a frame evenly, as a factor."""

MOST_TILES: Final = 50_000
"""Of a frame: of 100 megapixels in tiles of 45 pixels a side."""


class Box(NamedTuple):
    """A tile's place in its frame, in pixels, and the weight with which its count enters the frame's."""

    top: int
    left: int
    bottom: int
    right: int
    weight: float = 1.0

    def pixels(self, image_HW: NDArray[Any]) -> NDArray[Any]:
        """The part of the image inside the box."""
        return image_HW[self.top : self.bottom, self.left : self.right]

    def centres_inside(self, centres_N2: NDArray[np.float32]) -> int:
        """How many centres (columns x, y) lie inside; the upper and left edges belong to the box."""
        x, y = centres_N2[:, 0], centres_N2[:, 1]
        return int(((x >= self.left) & (x < self.right) & (y >= self.top) & (y < self.bottom)).sum())


def are_inside(
    places_N2: NDArray[np.floating], sizes_N2: NDArray[np.number] | tuple[float, float]
) -> NDArray[np.bool_]:
    """Whether places (x, y) lie in images (width, height), one or one each.

    A pixel has its left and upper edges, the last of a row or column both.

    >>> are_inside(np.array([[60, 40], [60.1, 40]]), (60, 40))
    array([ True, False])
    """
    return np.asarray(((places_N2 >= 0) & (places_N2 <= sizes_N2)).all(axis=1))


def lies_inside(x: float, y: float, *, width: float, height: float) -> bool:
    """The same of one place."""
    return bool(are_inside(np.array([[x, y]]), (width, height))[0])


def on_pixels(centres_N2: NDArray[np.float32], *, width: int, height: int) -> NDArray[np.float32]:
    """Centres (columns x, y) that lie in an image, those on its last edges brought into its last pixels.

    So each is in one of the tiles that share an image out, by the rule of `are_inside`. A fraction of a pixel beyond
    the edge, which is left where an image was resized to whole pixels, is brought in alike.
    """
    last_2 = np.nextafter(np.array([width, height], np.float32), np.float32(0))
    beyond_N2 = (centres_N2 > last_2) & (centres_N2 < last_2 + 1)
    return np.where(beyond_N2, last_2, centres_N2)


def cut(height: int, width: int, tile_px: tuple[int, int]) -> list[Box]:
    """The tiles that cover a frame, at the magnification of `tile_px`.

    A frame that divides into equal tiles with at most 10 % of stretch is divided; any other is covered by
    tiles of the exact size that overlap evenly. Weights make Σ weight × count the frame's count: a tile's
    weight is the mean, over its pixels, of 1 / (tiles that cover the pixel).
    Raises DataError when the frame is smaller than a tile, or of more than 50,000.
    """
    rows, columns = _spans(height, tile_px[0]), _spans(width, tile_px[1])
    if not rows or not columns:
        raise DataError(
            f"the frame is {width}×{height} pixels, smaller than the {tile_px[1]}×{tile_px[0]} that the "
            "network sees at once; record a larger frame, or train with a smaller tile (--set tile=PIXELS)"
        )
    if len(rows) * len(columns) > MOST_TILES:
        raise DataError(
            f"the frame is {width}×{height} pixels, {len(rows) * len(columns):,} tiles of {tile_px[1]}×{tile_px[0]}, "
            f"more than the {MOST_TILES:,} that are looked at; cut it first, or train with a larger tile (--set "
            "tile=PIXELS)"
        )
    return [
        Box(top, left, bottom, right, weight_y * weight_x)
        for top, bottom, weight_y in rows
        for left, right, weight_x in columns
    ]


def _spans(length: int, tile: int) -> list[tuple[int, int, float]]:
    """(start, stop, weight) of the tiles along one axis; none when the axis is shorter than a tile."""
    if length * TOLERANCE < tile:
        return []
    n = max(1, round(length / tile))
    if 1 / TOLERANCE <= length / n / tile <= TOLERANCE:
        edges = [round(i * length / n) for i in range(n + 1)]
        return [(start, stop, 1.0) for start, stop in itertools.pairwise(edges)]
    n = math.ceil(length / tile)
    starts = [round(i * (length - tile) / (n - 1)) for i in range(n)]
    covered = np.zeros(length)
    for start in starts:
        covered[start : start + tile] += 1
    return [(start, start + tile, float((1 / covered[start : start + tile]).mean())) for start in starts]


def to_network_size(tile_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The tile resized to the network's 200×200 pixels."""
    side = NETWORK_PX
    if tile_HW.shape == (side, side):
        return np.ascontiguousarray(tile_HW)
    how = cv2.INTER_AREA if min(tile_HW.shape) >= side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(tile_HW), (side, side), interpolation=how), np.uint8)
