"""Where in a frame a counter found its cells: its map of them, as a picture of the frame."""

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from cellnet.images.pictures import SIDES_PX, picture_size
from cellnet.images.pixels import Pixels
from cellnet.images.tiles import Box
from cellnet.networks import architectures as models
from cellnet.prediction.answers import FoundCell
from cellnet.prediction.model import FrameOutputs
from cellnet.prediction.predictor import Predictor

WITH_PLACES: Final = ("density", "efficientnet_lite0")
"""Architectures whose counters add up a map of cells."""
FINER: Final = 2
"""Times as many places as fields of the map are looked at along each axis for cells."""
APART: Final = 2.5
"""Fields that two cells are apart, at least."""


def density_map(
    regressor: Predictor,
    image_HW: Pixels,
    pixel_um: float | None = None,
    *,
    sides_px: tuple[int, int] = SIDES_PX,
) -> tuple[FrameOutputs, NDArray[np.float32] | None]:
    """What a counter says of a frame, and the cells in each pixel (H, W) of its picture: their sum is that count.

    The maps are of the very passes that were counted: of 8 `views` they are turned back and averaged, like the counts.
    They are smoothed a little, and averaged where tiles overlap. None for a counter whose architecture knows no places.
    Raises as `predict` does.
    """
    said, maps_Nhw = _maps(regressor, image_HW, pixel_um)
    if maps_Nhw is None:
        return said, None
    height, width = image_HW.shape
    return said, _as_one(said, maps_Nhw, picture_size(height, width, sides_px))


def find_cells(
    regressor: Predictor, image_HW: Pixels, pixel_um: float | None = None
) -> tuple[FrameOutputs, list[FoundCell] | None]:
    """What a counter says of a frame, and the cells that its map shows, at most as many as it counted, surest first.

    They are the highest summits of the map. What of it is nearest to a summit, up to one cell, is its probability. None
    for a counter whose architecture knows no places. Raises as `predict` does.
    """
    said, maps_Nhw = _maps(regressor, image_HW, pixel_um)
    if maps_Nhw is None:
        return said, None
    height, width = (max(getattr(box, end) for box in said.boxes) for end in ("bottom", "right"))
    field_px = (said.boxes[0].bottom - said.boxes[0].top) / maps_Nhw.shape[1]
    fine = (max(1, round(FINER * height / field_px)), max(1, round(FINER * width / field_px)))
    cells_HW = _as_one(said, maps_Nhw, fine)
    across, down = image_HW.shape[1] / fine[1], image_HW.shape[0] / fine[0]
    summits = _summits(cells_HW, round(float(said.count)))
    return said, [
        FoundCell(x=round((x + 0.5) * across, 1), y=round((y + 0.5) * down, 1), probability=round(share, 3))
        for x, y, share in summits
    ]


def _maps(
    regressor: Predictor, image_HW: Pixels, pixel_um: float | None
) -> tuple[FrameOutputs, NDArray[np.float32] | None]:
    """What a counter says of a frame, and the cells in each field of each tile (N, h, w), which sum to the tile's."""
    cut = regressor.cut(image_HW, pixel_um)
    if models.resolve(regressor.card.config.model, "count").architecture not in WITH_PLACES:
        return regressor.predict_cut(cut), None
    passes: list[NDArray[np.float32]] = []

    def keep(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        passes.append(nn.functional.softplus(output.detach().float()).squeeze(1).cpu().numpy())

    handle = regressor.network.get_submodule("out").register_forward_hook(keep)
    try:
        said = regressor.predict_cut(cut)
    finally:
        handle.remove()
    turned = [_turned_back(maps_Bhw, n % regressor.views) for n, maps_Bhw in enumerate(passes)]
    firsts = range(0, len(turned), regressor.views)
    maps_Nhw = np.concatenate([np.mean(turned[first : first + regressor.views], axis=0) for first in firsts])
    found_N = maps_Nhw.sum((1, 2), dtype=np.float64)  # what is told differs, by scale and offset of a plate
    maps_Nhw *= (said.tile_outputs / np.maximum(found_N, 1e-30))[:, None, None].astype(np.float32)
    return said, maps_Nhw


def _as_one(said: FrameOutputs, maps_Nhw: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """The maps of tiles as one of this height and width, smoothed a little; its sum is the frame's count."""
    boxes = in_picture(said.boxes, size)
    cells_HW = blend(maps_Nhw, boxes, size)[0]
    field_px = (boxes[0].bottom - boxes[0].top) / maps_Nhw.shape[1]
    cells_HW = cv2.GaussianBlur(cells_HW, (0, 0), max(0.7 * field_px, 0.1), borderType=cv2.BORDER_REFLECT)
    cells_HW *= np.float32(said.count / max(float(cells_HW.sum(dtype=np.float64)), 1e-30))
    return np.asarray(cells_HW, np.float32)


def _summits(cells_HW: NDArray[np.float32], most: int) -> list[tuple[int, int, float]]:
    """Up to so many summits x, y of a map, and what is nearest to each, up to 1; the largest first."""
    smooth_HW = cv2.GaussianBlur(cells_HW, (0, 0), FINER, borderType=cv2.BORDER_REFLECT)
    side = 2 * round(APART * FINER) + 1
    around_HW = cv2.dilate(smooth_HW, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
    y_N, x_N = np.nonzero((smooth_HW == around_HW) & (smooth_HW > 0))
    near_HW = np.zeros(cells_HW.shape, np.uint8)
    summits: list[tuple[int, int]] = []
    for n in np.argsort(-smooth_HW[y_N, x_N], kind="stable").tolist():
        x, y = int(x_N[n]), int(y_N[n])
        if near_HW[y, x]:
            continue  # of the same summit, which is flat
        if len(summits) == most:
            break
        summits.append((x, y))
        cv2.circle(near_HW, (x, y), side // 2, 1, cv2.FILLED)
    if not summits:
        return []
    x_N, y_N = np.array(summits).T
    elsewhere_HW = np.ones(cells_HW.shape, np.uint8)
    elsewhere_HW[y_N, x_N] = 0
    _, nearest_HW = cv2.distanceTransformWithLabels(
        elsewhere_HW, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    cells_K = np.bincount(nearest_HW.ravel(), cells_HW.ravel())
    share_N = np.minimum(cells_K[nearest_HW[y_N, x_N]], 1)
    surest = np.argsort(-share_N, kind="stable").tolist()
    return [(int(x_N[n]), int(y_N[n]), float(share_N[n])) for n in surest]


def blend(
    maps_Nhw: NDArray[np.float32], boxes: Sequence[Box], size: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The maps of tiles as one map (H, W), their mean where they overlap, and where there are any."""
    sum_HW, tiles_HW = np.zeros(size, np.float32), np.zeros(size, np.float32)
    for map_hw, box in zip(maps_Nhw, boxes, strict=True):
        height, width = box.bottom - box.top, box.right - box.left
        how = cv2.INTER_AREA if height < len(map_hw) else cv2.INTER_LINEAR
        box.pixels(sum_HW)[:] += cv2.resize(map_hw, (width, height), interpolation=how)
        box.pixels(tiles_HW)[:] += 1
    return sum_HW / tiles_HW.clip(1), tiles_HW > 0


def in_picture(boxes: Sequence[Box], size: tuple[int, int]) -> list[Box]:
    """The tiles of a frame as the network sees it, in pixels of its picture."""
    height, width = max(box.bottom for box in boxes), max(box.right for box in boxes)
    return [
        Box(
            box.top * size[0] // height,
            box.left * size[1] // width,
            -(-box.bottom * size[0] // height),
            -(-box.right * size[1] // width),
        )
        for box in boxes
    ]


def _turned_back(maps_Bhw: NDArray[np.float32], view: int) -> NDArray[np.float32]:
    """Maps of one of the orientations of `cellnet.networks.views.views_of`, as of the tiles as they are."""
    turned_Bhw = np.rot90(maps_Bhw, -(view % 4), axes=(-2, -1))
    return turned_Bhw if view < 4 else turned_Bhw[..., ::-1]
