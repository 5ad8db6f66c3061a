"""A frame as its models saw it: what was counted where, and where the classifier looked, over its grey values."""

import functools
import itertools
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cellnet.images.file import encode_png
from cellnet.images.pixels import Pixels, normalise, stretch
from cellnet.images.tiles import Box
from cellnet.networks import architectures as models
from cellnet.networks.saliency import grad_cam
from cellnet.prediction.model import FrameOutputs
from cellnet.prediction.predictor import Predictor

SIDES_PX: Final = (480, 1200)
"""Long side of a panel's picture, at least and at most; no panel is narrower than the first."""
WITH_PLACES: Final = ("density", "efficientnet_lite0")
"""Architectures whose counters add up a map of cells."""
MOST_LOOKED: Final = 64
"""Tiles in which it is asked where the classifier looked, at most: some seconds on one core."""
FAINT: Final = 10.0
"""Cells per tile area that take the strongest colour, at least, so that a frame without cells stays grey."""
COUNTED: Final = cv2.COLORMAP_VIRIDIS
LOOKED: Final = cv2.COLORMAP_INFERNO
OPACITY: Final = {COUNTED: 0.85, LOOKED: 0.6}
DARK: Final = 50
"""Colours at the dark end of a map that are left out, of 256: they would be lost on grey."""
ROOM: Final = 2.5
"""How many times as wide as its number a tile is, at least, where there is more to see than numbers."""
STRIP_PX: Final = 30
TEXT_PX: Final = 16
INK: Final = (24, 24, 24)
WHITE: Final = (255, 255, 255)
DRAWING: Final = threading.Lock()
"""Held while a network is listened to: what it says in another thread would be heard too."""


def draw_overlay(
    image_HW: Pixels, *, pixel_um: float | None, classifier: Predictor | None, regressor: Predictor | None
) -> bytes:
    """A PNG of the frame with what one model or both made of it: left what was counted where, right Grad-CAM.

    The number in a tile is what it adds to the frame's count, or how probable it finds the lineage that is answered.
    In each tile Grad-CAM goes from 0 to that probability. Raises DataError as `predict` does.
    """
    panels = []
    with DRAWING:
        if regressor:
            panels.append(_count_panel(regressor, image_HW, pixel_um))
        if classifier:
            panels.append(_lineage_panel(classifier, image_HW, pixel_um))
    gap = np.full((len(panels[0]), 8, 3), 255, np.uint8)
    return encode_png(np.hstack([panels[0], *(part for panel in panels[1:] for part in (gap, panel))]))


def density_map(
    regressor: Predictor, image_HW: Pixels, pixel_um: float | None = None
) -> tuple[FrameOutputs, NDArray[np.float32] | None]:
    """What a counter says of a frame, and the cells in each pixel (H, W) of its picture: their sum is that count.

    The maps are of the very passes that were counted: of 8 `views` they are turned back and averaged, like the counts.
    They are smoothed a little, and averaged where tiles overlap. None for a counter whose architecture knows no places.
    Raises as `predict` does.
    """
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
    size = picture_size(*image_HW.shape)
    boxes = _in_picture(said.boxes, size)
    cells_HW = blend(maps_Nhw, boxes, size)[0]
    field_px = (boxes[0].bottom - boxes[0].top) / maps_Nhw.shape[1]
    cells_HW = cv2.GaussianBlur(cells_HW, (0, 0), max(0.7 * field_px, 0.1), borderType=cv2.BORDER_REFLECT)
    return said, cells_HW * np.float32(said.count / max(float(cells_HW.sum(dtype=np.float64)), 1e-30))


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


def picture_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of a frame's picture.

    >>> picture_size(200, 200), picture_size(1040, 1408), picture_size(10_000, 100)
    ((480, 480), (886, 1200), (1200, 12))
    """
    long = max(height, width)
    factor = min(max(long, SIDES_PX[0]), SIDES_PX[1]) / long
    return max(1, round(height * factor)), max(1, round(width * factor))


def _count_panel(regressor: Predictor, image_HW: Pixels, pixel_um: float | None) -> NDArray[np.uint8]:
    said, cells_HW = density_map(regressor, image_HW, pixel_um)
    answer = regressor.answer_of(said)
    picture_HW3 = _grey(image_HW, regressor)
    boxes = _in_picture(said.boxes, picture_HW3.shape[:2])
    legend, colours = "where in a tile is not known", None
    if cells_HW is not None:
        per_tile_HW = cells_HW * ((boxes[0].bottom - boxes[0].top) * (boxes[0].right - boxes[0].left))
        most = max(_dense(per_tile_HW), FAINT)
        legend, colours = f"0 to {most:.0f} or more cells per tile area", COUNTED
        picture_HW3 = _heat(picture_HW3, per_tile_HW / most, colours)
    caption = f"{said.count:,.1f} cells"
    if answer.count_low is not None and answer.count_high is not None:
        digits = int(answer.count_low < 10)
        caption += f" ({answer.count_low:,.{digits}f}–{answer.count_high:,.{digits}f})"
    numbers = [f"{cells:.1f}" for cells in said.weights_N * said.tile_outputs]
    picture_HW3, written = _with_tiles(picture_HW3, boxes, numbers, room=1 if cells_HW is None else ROOM)
    legend += " · numbers: cells of each tile" * written
    return _panel(picture_HW3, caption + _said_by(regressor, said), legend, colours)


def _lineage_panel(classifier: Predictor, image_HW: Pixels, pixel_um: float | None) -> NDArray[np.uint8]:
    cut = classifier.cut(image_HW, pixel_um)
    said = classifier.predict_cut(cut)
    label = int(said.probability_K.argmax())
    lineage, sure_N = classifier.card.classes[label], said.tile_outputs[:, label]
    looked = _evenly(said.boxes)
    input_N1HW = torch.from_numpy(normalise(np.stack([cut.tiles[n] for n in looked]), classifier.card.preprocess))
    cams = [sure_N[n] * grad_cam(classifier.network, input_N1HW[i], label) for i, n in enumerate(looked)]
    picture_HW3 = _grey(image_HW, classifier)
    boxes = _in_picture(said.boxes, picture_HW3.shape[:2])
    cam_HW, looked_HW = blend(np.stack(cams), [boxes[n] for n in looked], picture_HW3.shape[:2])
    picture_HW3[~looked_HW] //= 2  # not asked there
    picture_HW3 = _heat(picture_HW3, cam_HW, LOOKED)
    picture_HW3, written = _with_tiles(picture_HW3, boxes, [f"{sure:.0%}" for sure in sure_N], room=ROOM)
    some = f", in {len(looked)} of {len(boxes):,} tiles" if len(looked) < len(boxes) else ""
    legend = f"0 to most that spoke for {lineage}{some}" + " · numbers: its probability" * written
    caption = f"{lineage} {said.probability_K[label]:.0%}{_said_by(classifier, said)}"
    return _panel(picture_HW3, caption, legend, LOOKED)


def _said_by(model: Predictor, said: FrameOutputs) -> str:
    return f" · {model.ref}" + " · unlike its training images" * bool(said.unfamiliar)


def _dense(map_HW: NDArray[np.float32]) -> float:
    """The value above which a quarter of the map's sum lies: the inside of typical cells, whatever its summit is."""
    values_N = np.sort(map_HW, axis=None)
    return float(values_N[np.searchsorted(values_N.cumsum(dtype=np.float64), 0.75 * values_N.sum(dtype=np.float64))])


def _turned_back(maps_Bhw: NDArray[np.float32], view: int) -> NDArray[np.float32]:
    """Maps of one of the orientations of `cellnet.networks.views.views_of`, as of the tiles as they are."""
    turned_Bhw = np.rot90(maps_Bhw, -(view % 4), axes=(-2, -1))
    return turned_Bhw if view < 4 else turned_Bhw[..., ::-1]


def _evenly(boxes: Sequence[Box]) -> list[int]:
    """Which tiles to look at: all, or every n-th of every n-th row, so that they are few enough."""
    rows, columns = sorted({box.top for box in boxes}), sorted({box.left for box in boxes})
    step = 1
    while len(rows[::step]) * len(columns[::step]) > MOST_LOOKED:
        step += 1
    tops, lefts = (set(starts[len(starts) % step // 2 :: step]) for starts in (rows, columns))
    return [n for n, box in enumerate(boxes) if box.top in tops and box.left in lefts]


def _in_picture(boxes: Sequence[Box], size: tuple[int, int]) -> list[Box]:
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


def _grey(image_HW: Pixels, model: Predictor) -> NDArray[np.uint8]:
    """The frame's picture (H, W, 3), its contrast as the model sees it."""
    height, width = picture_size(*image_HW.shape)
    how = cv2.INTER_AREA if height < len(image_HW) else cv2.INTER_LINEAR
    small_HW: NDArray[Any] = np.asarray(cv2.resize(image_HW, (width, height), interpolation=how))
    return np.repeat(stretch(small_HW, model.card.preprocess.intensity)[..., None], 3, axis=2)


def _heat(picture_HW3: NDArray[np.uint8], share_HW: NDArray[np.float32], colours: int) -> NDArray[np.uint8]:
    """A picture with values of 0..1 over it: the higher, the brighter and the less transparent."""
    share_HW = np.clip(share_HW, 0, 1)
    heat_HW3 = cv2.applyColorMap((DARK + (255 - DARK) * share_HW).astype(np.uint8), colours)
    weight_HW1 = np.float32(OPACITY[colours]) * share_HW[..., None]
    return np.asarray(picture_HW3 * (1 - weight_HW1) + heat_HW3 * weight_HW1, np.uint8)


def _with_tiles(
    picture_HW3: NDArray[np.uint8], boxes: Sequence[Box], numbers: Sequence[str], *, room: float
) -> tuple[NDArray[np.uint8], bool]:
    """The borders of several tiles, amid their overlaps, and a number in each if it takes 1 / `room` of the width."""
    if len(boxes) == 1:
        return picture_HW3, False
    picture = PIL.Image.fromarray(picture_HW3)  # takes BGR for RGB, which is all the same to what is drawn here: greys
    draw = PIL.ImageDraw.Draw(picture, "RGBA")
    rows, columns = _parts({(box.top, box.bottom) for box in boxes}), _parts({(box.left, box.right) for box in boxes})
    side = min(stop - start for start, stop in (*rows.values(), *columns.values()))
    font = _font(min(TEXT_PX, max(9, side // 6)))
    written = room * (max(map(font.getlength, numbers)) + 4) < side
    for box, number in zip(boxes, numbers, strict=True):
        (top, bottom), (left, right) = rows[box.top], columns[box.left]
        draw.line([(left, bottom), (left, top), (right, top)], fill=(*WHITE, min(100, side)))
        if written:
            draw.text((left + 4, top + 2), number, WHITE, font, stroke_width=2, stroke_fill=INK)
    return np.array(picture), written


def _parts(spans: set[tuple[int, int]]) -> dict[int, tuple[int, int]]:
    """From where to where each tile along an axis, named by its start, is nearer than its neighbours."""
    tiles = sorted(spans)
    middles = [(stop + start) // 2 for (_, stop), (start, _) in itertools.pairwise(tiles)]
    edges = itertools.pairwise([tiles[0][0], *middles, tiles[-1][1]])
    return {start: edge for (start, _), edge in zip(tiles, edges, strict=True)}


def _panel(picture_HW3: NDArray[np.uint8], caption: str, legend: str, colours: int | None) -> NDArray[np.uint8]:
    """A picture between a strip that says what it shows and one that says what its colours mean."""
    height, width = picture_HW3.shape[:2]
    outer = max(width, SIDES_PX[0])
    panel_HW3 = np.full((height + 2 * STRIP_PX, outer, 3), INK, np.uint8)
    panel_HW3[STRIP_PX:-STRIP_PX, (outer - width) // 2 :][:, :width] = picture_HW3
    legend_left = 10
    if colours is not None:
        share_HW = np.tile(np.linspace(0, 1, 100, dtype=np.float32), (14, 1))
        bar_HW3 = _heat(np.full((14, 100, 3), 128, np.uint8), share_HW, colours)
        panel_HW3[height + STRIP_PX + 8 :, legend_left:][:14, :100] = bar_HW3
        legend_left += 110
    picture = PIL.Image.fromarray(panel_HW3)
    draw = PIL.ImageDraw.Draw(picture)
    for text, left, top in ((caption, 10, 0), (legend, legend_left, height + STRIP_PX)):
        text = " ".join(text.split())
        room = (outer - left - 10) / _font(TEXT_PX).getlength(text)
        draw.text((left, top + STRIP_PX // 2), text, WHITE, _font(int(TEXT_PX * min(1, room))), anchor="lm")
    return np.array(picture)


@functools.cache
def _font(px: int) -> PIL.ImageFont.FreeTypeFont:
    """The font of the plots: Pillow's own has neither µ nor é."""
    import matplotlib

    return PIL.ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), px)
