"""From a frame to the tiles that a network is trained on: cut, crop a share, turn, resize."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from cellnet.bank import Frame
from cellnet.config import (
    MAP_SIDE,
    NETWORK_PX,
    PAPER_SHARES,
    Augment,
    Intensity,
    Orientation,
    Preprocess,
    Protocol,
    Task,
    TrainConfig,
)
from cellnet.errors import DataError
from cellnet.images import Box, cut, rescale, stretch, to_network_size

WHOLE_FRAME_PX: Final = 300
"""Frames whose shorter side is under this are one tile each, unless the configuration says otherwise."""
MAX_SHIFTS: Final = 16
ENOUGH_TILES: Final = 4000
"""Training tiles that `auto` shifts aim at."""
MAX_RESCALE: Final = 4.0
"""Pixel sizes further apart than this factor are refused: the detail is not there."""
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


class Batch(TypedDict):
    """Tiles as they lie in the shards."""

    pixels: NDArray[np.uint8]
    """(B, 200, 200)."""
    label: NDArray[np.int64]
    count: NDArray[np.float32]
    cells: NotRequired[NDArray[np.uint8]]
    """(B, 50, 50), as `Tile.cells_hw`; what a classifier is trained on has none."""


def resolve(augment: Augment, *, task: Task, tiles: int, protocol: Protocol = "grouped") -> Augment:
    """The augmentation with every `auto` decided, for a training on so many tiles before augmentation.

    The paper's protocol draws from its 16 variants, so there they are stored.

    >>> resolve(Augment(), task="count", tiles=225).shifts, resolve(Augment(), task="count", tiles=10_000).shifts
    (16, 0)
    """
    if protocol == "paper":
        return augment.model_copy(update={"shares": PAPER_SHARES, "shifts": 0, "orientation": "stored"})
    shares = augment.shares
    if shares == "auto":
        shares = PAPER_SHARES if task == "classify" else (1.0,)
    shifts = augment.shifts
    if shifts == "auto":
        shifts = min(MAX_SHIFTS, max(0, round(ENOUGH_TILES / (tiles * len(shares))) - 1))
    return augment.model_copy(update={"shares": shares, "shifts": shifts})


def tiles_n(frame: Frame, preprocess: Preprocess) -> int:
    """Into how many tiles a frame is cut; 0 if it is smaller than one, or of a magnification too far off."""
    try:
        factor = _factor(frame.pixel_um, preprocess.pixel_um)
        return len(cut(round(frame.height * factor), round(frame.width * factor), preprocess.tile_px))
    except DataError:
        return 0


def preprocess_for(config: TrainConfig, frames: Sequence[Frame], intensity: Intensity) -> Preprocess:
    """The preprocess of a training on these frames: its tile decided, its pixel size the median.

    The pixel size is known only if every frame's is.
    """
    known = [frame.pixel_um for frame in frames if frame.pixel_um is not None]
    pixel_um = float(np.median(known)) if len(known) == len(frames) else None
    factors_N = np.array([frame.pixel_um / pixel_um if frame.pixel_um and pixel_um else 1.0 for frame in frames])
    height = round(np.median(factors_N * [frame.height for frame in frames]))
    width = round(np.median(factors_N * [frame.width for frame in frames]))
    whole = config.tile == "frame" or (config.tile == "auto" and min(height, width) < WHOLE_FRAME_PX)
    side = config.tile if isinstance(config.tile, int) else NETWORK_PX
    return Preprocess(
        tile_px=(height, width) if whole else (side, side),
        pixel_um=pixel_um,
        intensity=intensity,
        kernel=config.kernel,
    )


def _factor(pixel_um: float | None, trained_um: float | None) -> float:
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


def frame_at_scale(
    image_HW: NDArray[np.uint8] | NDArray[np.uint16], pixel_um: float | None, preprocess: Preprocess
) -> tuple[NDArray[np.uint8], float]:
    """The frame in grey values 0..255 at the training frames' magnification, and the factor it was resized by.

    The factor is 1 when either pixel size is not known. Raises DataError for pixel sizes too far apart.
    """
    factor = _factor(pixel_um, preprocess.pixel_um)
    return rescale(stretch(image_HW, preprocess.intensity), factor), factor


def count_inside(frame: Frame, box: Box, size: tuple[int, int], factor: float = 1.0) -> float:
    """Cells inside a box of a frame of `size` (H, W): its known centres, else the frame's count × the share.

    `factor` is what the frame was resized by; centres are in recorded pixels. NaN when nothing is known.
    """
    centres_N2 = frame.centres_N2
    if centres_N2 is not None:
        return float(box.centres_inside(centres_N2 * factor))
    if frame.count is None:
        return float("nan")
    return frame.count * (box.bottom - box.top) * (box.right - box.left) / (size[0] * size[1])


def map_cells(frame: Frame, box: Box, factor: float = 1.0) -> NDArray[np.uint8]:
    """How many of a frame's centres lie in each of the 50×50 fields of a box; their sum is `count_inside`.

    UNKNOWN_CELLS in every field when the centres are not known. `factor` is what the frame was resized by.
    """
    if frame.centres_N2 is None:
        return np.full((MAP_SIDE, MAP_SIDE), UNKNOWN_CELLS, np.uint8)
    y_edges = np.linspace(box.top, box.bottom, MAP_SIDE + 1)
    x_edges = np.linspace(box.left, box.right, MAP_SIDE + 1)
    x_N, y_N = (frame.centres_N2 * factor).T
    inside_N = (x_N < box.right) & (y_N < box.bottom)  # a histogram's last field has both its edges
    cells_hw, _, _ = np.histogram2d(y_N[inside_N], x_N[inside_N], bins=(y_edges, x_edges))
    saturated_hw: NDArray[np.uint8] = np.minimum(cells_hw, UNKNOWN_CELLS - 1).astype(np.uint8)
    return saturated_hw


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
    image_HW: NDArray[np.uint8] | NDArray[np.uint16],
    preprocess: Preprocess,
    *,
    label: int,
    shares: tuple[float, ...],
    shifts: int = 0,
    orientations: tuple[Orientation, ...],
    seed: int,
) -> Iterator[Tile]:
    """Every variant of every tile of a frame; the crops depend on the seed and the frame, on nothing else."""
    rng = np.random.default_rng([seed, int(frame.frame[:15], 16)])
    grey_HW, factor = frame_at_scale(image_HW, frame.pixel_um, preprocess)
    size = (grey_HW.shape[0], grey_HW.shape[1])
    grid = cut(*size, preprocess.tile_px)
    shifted = [shift(box, size, rng) for box in grid for _ in range(shifts)] if len(grid) > 1 else []
    for box in [*grid, *shifted]:
        for share in shares:
            crop = crop_share(box, share, rng)
            upright_HW = to_network_size(crop.pixels(grey_HW))
            count = count_inside(frame, crop, size, factor)
            cells_hw = map_cells(frame, crop, factor)
            for orientation in orientations:
                yield Tile(
                    pixels_HW=np.rot90(upright_HW, orientation // 90),
                    label=label,
                    count=count,
                    cells_hw=np.rot90(cells_hw, orientation // 90),
                    frame=frame.frame,
                    orientation=orientation,
                    share=share,
                )
