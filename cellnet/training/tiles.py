"""From a frame to the tiles that a network is trained on: cut, crop a share, turn, resize."""

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from cellnet.bank.columns import Frames
from cellnet.bank.frames import Frame
from cellnet.config.choices import MAP_SIDE, Orientation
from cellnet.config.train import Preprocess
from cellnet.errors import DataError
from cellnet.images.pixels import Pixels
from cellnet.images.scale import factor_between, frame_at_scale
from cellnet.images.tiles import Box, cut, on_pixels, to_network_size

UNKNOWN_CELLS: Final = 255
"""In every field of the map of a tile whose cells' centres are not known."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One training row."""

    pixels_HW: NDArray[np.uint8]
    """200×200 grey values, before the model's kernel."""
    label: int
    """Index of the lineage among the bank's, -1 when it is not known."""
    count: float
    """Cells inside; NaN when that is not known."""
    cells_hw: NDArray[np.uint8]
    """50×50: the cells whose centre lies in each field; UNKNOWN_CELLS where centres are not known."""
    frame: str
    orientation: Orientation
    share: float
    weight: float
    """With which its count enters the frame's; 0 for a crop, and for a tile that is not of the frame's grid."""


@dataclass(frozen=True, kw_only=True)
class Variants:
    """Which variants of every tile of a frame's grid are made; unless told otherwise the tile itself alone."""

    shares: tuple[float, ...] = (1.0,)
    """Shares of its area that are cropped."""
    shifts: int = 0
    """Further tiles at random places of a frame that has more than one."""
    orientations: tuple[Orientation, ...] = (0,)

    def number(self, grid: int) -> int:
        """How many tiles `make_tiles` makes of a frame whose grid has so many."""
        return grid * (1 + self.shifts * (grid > 1)) * len(self.shares) * len(self.orientations)


class Batch(TypedDict):
    """Tiles as they lie in the shards."""

    pixels: NDArray[np.uint8]
    """(B, 200, 200)."""
    label: NDArray[np.int64]
    count: NDArray[np.float32]
    cells: NotRequired[NDArray[np.uint8]]
    """(B, 50, 50), as `Tile.cells_hw`; what a classifier is trained on has none."""


def grids_of(frames: Iterable[Frame], preprocess: Preprocess) -> NDArray[np.int64]:
    """Into how many tiles each frame is cut (N,); 0 if it is smaller than one, or of a magnification too far off."""

    @functools.cache  # frames of a bank are of few sizes
    def tiles_n(height: int, width: int, pixel_um: float | None) -> int:
        try:
            factor = factor_between(pixel_um, preprocess.pixel_um)
            return len(cut(round(height * factor), round(width * factor), preprocess.tile_px))
        except DataError:
            return 0

    frames = Frames.of(frames)
    sizes = (frames.values(name) for name in ("height", "width", "pixel_um"))
    return np.array(list(map(tiles_n, *sizes)), np.int64)


def count_inside(frame: Frame, box: Box, size: tuple[int, int], factor: float = 1.0) -> float:
    """Cells inside a box of a frame of `size` (H, W): its known centres, else the frame's count × the share.

    `factor` is what the frame was resized by; centres are in recorded pixels. NaN when nothing is known.
    """
    centres_N2 = _centres(frame, factor)
    if centres_N2 is not None:
        return float(box.centres_inside(centres_N2))
    if frame.count is None:
        return float("nan")
    return frame.count * (box.bottom - box.top) * (box.right - box.left) / (size[0] * size[1])


def map_cells(frame: Frame, box: Box, factor: float = 1.0) -> NDArray[np.uint8]:
    """How many of a frame's centres lie in each of the 50×50 fields of a box; their sum is `count_inside`.

    UNKNOWN_CELLS in every field when the centres are not known. `factor` is what the frame was resized by.
    """
    centres_N2 = _centres(frame, factor)
    if centres_N2 is None:
        return np.full((MAP_SIDE, MAP_SIDE), UNKNOWN_CELLS, np.uint8)
    y_edges = np.linspace(box.top, box.bottom, MAP_SIDE + 1)
    x_edges = np.linspace(box.left, box.right, MAP_SIDE + 1)
    x_N, y_N = centres_N2.T
    inside_N = (x_N < box.right) & (y_N < box.bottom)  # a histogram's last field has both its edges
    cells_hw, _, _ = np.histogram2d(y_N[inside_N], x_N[inside_N], bins=(y_edges, x_edges))
    saturated_hw: NDArray[np.uint8] = np.minimum(cells_hw, UNKNOWN_CELLS - 1).astype(np.uint8)
    return saturated_hw


def _centres(frame: Frame, factor: float) -> NDArray[np.float32] | None:
    """The known centres of a frame, in pixels of the frame resized by `factor`."""
    if frame.centres_N2 is None:
        return None
    return on_pixels(frame.centres_N2 * factor, width=round(frame.width * factor), height=round(frame.height * factor))


def crop_share(box: Box, share: float, rng: np.random.Generator) -> Box:
    """A crop of that share of the box's area and of its shape, somewhere inside it."""
    height, width = box.bottom - box.top, box.right - box.left
    side = share**0.5
    crop_height, crop_width = max(1, round(height * side)), max(1, round(width * side))
    top = box.top + int(rng.integers(0, height - crop_height + 1))
    left = box.left + int(rng.integers(0, width - crop_width + 1))
    return Box(top, left, top + crop_height, left + crop_width)


def shift(box: Box, size: tuple[int, int], rng: np.random.Generator) -> Box:
    """A box of the same sides anywhere in a frame of `size` (H, W)."""
    height, width = box.bottom - box.top, box.right - box.left
    top = int(rng.integers(0, size[0] - height + 1))
    left = int(rng.integers(0, size[1] - width + 1))
    return Box(top, left, top + height, left + width)


def make_tiles(
    frame: Frame,
    image_HW: Pixels,
    preprocess: Preprocess,
    variants: Variants,
    *,
    label: int,
    seed: int,
) -> Iterator[Tile]:
    """Every variant of every tile of a frame; the crops depend on the seed and the frame, on nothing else."""
    rng = np.random.default_rng([seed, int(frame.frame[:15], 16)])
    grey_HW, factor = frame_at_scale(image_HW, frame.pixel_um, preprocess)
    size = (grey_HW.shape[0], grey_HW.shape[1])
    grid = cut(*size, preprocess.tile_px)
    shifted = [shift(box, size, rng) for box in grid for _ in range(variants.shifts)] if len(grid) > 1 else []
    for number, box in enumerate([*grid, *shifted]):
        for share in variants.shares:
            crop = crop_share(box, share, rng)
            upright_HW = to_network_size(crop.pixels(grey_HW))
            count = count_inside(frame, crop, size, factor)
            cells_hw = map_cells(frame, crop, factor)
            for orientation in variants.orientations:
                yield Tile(
                    pixels_HW=np.rot90(upright_HW, orientation // 90),
                    label=label,
                    count=count,
                    cells_hw=np.rot90(cells_hw, orientation // 90),
                    frame=frame.frame,
                    orientation=orientation,
                    share=share,
                    weight=box.weight if share == 1 and number < len(grid) else 0.0,
                )
