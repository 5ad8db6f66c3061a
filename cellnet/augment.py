"""From a frame to the tiles that a network is trained on: cut, crop a share, turn, resize."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cellnet.bank import Frame
from cellnet.config import (
    NETWORK_PX,
    PAPER_SHARES,
    Augment,
    Intensity,
    Orientation,
    Preprocess,
    Task,
    TrainConfig,
)
from cellnet.images import Box, cut, rescale, stretch, to_network_size

WHOLE_FRAME_PX: Final = 300
"""Frames whose shorter side is under this are one tile each, unless the configuration says otherwise."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One training row."""

    pixels_HW: NDArray[np.uint8]
    """200×200 grey values, before the model's kernel."""
    label: int
    """Index of the lineage among the bank's, -1 when it is not known."""
    count: float
    """Cells inside; NaN when that is not known."""
    frame: str
    orientation: Orientation
    share: float


def shares_for(augment: Augment, *, task: Task, centres_known: bool) -> tuple[float, ...]:
    """The shares of a tile that are cropped; `auto` decided by the task and by what is known."""
    if augment.shares != "auto":
        return augment.shares
    return (1.0,) if task == "count" and not centres_known else PAPER_SHARES


def preprocess_for(config: TrainConfig, frames: Sequence[Frame], intensity: Intensity) -> Preprocess:
    """The preprocess of a training on these frames: its tile decided, its pixel size the median.

    The pixel size is known only if every frame's is.
    """
    height, width = (int(np.median([size[axis] for size in _sizes(frames)])) for axis in (0, 1))
    whole = config.tile == "frame" or (config.tile == "auto" and min(height, width) < WHOLE_FRAME_PX)
    side = config.tile if isinstance(config.tile, int) else NETWORK_PX
    known = [frame.pixel_um for frame in frames if frame.pixel_um is not None]
    return Preprocess(
        tile_px=(height, width) if whole else (side, side),
        pixel_um=float(np.median(known)) if len(known) == len(frames) else None,
        intensity=intensity,
        kernel=config.kernel,
    )


def _sizes(frames: Sequence[Frame]) -> list[tuple[int, int]]:
    return [(frame.height, frame.width) for frame in frames]


def frame_at_scale(
    image_HW: NDArray[np.uint8] | NDArray[np.uint16], pixel_um: float | None, preprocess: Preprocess
) -> tuple[NDArray[np.uint8], float]:
    """The frame in grey values 0..255 at the training frames' magnification, and the factor it was resized by.

    The factor is 1 when either pixel size is not known.
    """
    factor = 1.0
    if pixel_um is not None and preprocess.pixel_um is not None:
        factor = pixel_um / preprocess.pixel_um
        factor = 1.0 if abs(factor - 1) < 0.02 else factor
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


def crop_share(box: Box, share: float, rng: np.random.Generator) -> Box:
    """A crop of that share of the box's area and of its shape, somewhere inside it."""
    height, width = box.bottom - box.top, box.right - box.left
    side = share**0.5
    crop_height, crop_width = max(1, round(height * side)), max(1, round(width * side))
    top = box.top + int(rng.integers(0, height - crop_height + 1))
    left = box.left + int(rng.integers(0, width - crop_width + 1))
    return Box(top, left, top + crop_height, left + crop_width)


def make_tiles(
    frame: Frame,
    image_HW: NDArray[np.uint8] | NDArray[np.uint16],
    preprocess: Preprocess,
    *,
    label: int,
    shares: tuple[float, ...],
    orientations: tuple[Orientation, ...],
    seed: int,
) -> Iterator[Tile]:
    """Every variant of every tile of a frame; the crops depend on the seed and the frame, on nothing else."""
    rng = np.random.default_rng([seed, int(frame.frame[:15], 16)])
    grey_HW, factor = frame_at_scale(image_HW, frame.pixel_um, preprocess)
    size = (grey_HW.shape[0], grey_HW.shape[1])
    for box in cut(*size, preprocess.tile_px):
        for share in shares:
            crop = crop_share(box, share, rng)
            upright_HW = to_network_size(crop.pixels(grey_HW))
            count = count_inside(frame, crop, size, factor)
            for orientation in orientations:
                yield Tile(
                    pixels_HW=np.rot90(upright_HW, orientation // 90),
                    label=label,
                    count=count,
                    frame=frame.frame,
                    orientation=orientation,
                    share=share,
                )
