"""A frame as its models saw it: what was counted where, and where the classifier looked, over its grey values."""

import functools
import itertools
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import torch
from numpy.typing import NDArray

from cellnet.images.file import encode_png
from cellnet.images.pictures import INK, SIDES_PX, grey_picture
from cellnet.images.pixels import Pixels, normalise
from cellnet.images.tiles import Box
from cellnet.networks.saliency import grad_cam
from cellnet.prediction.density import blend, density_map, in_picture
from cellnet.prediction.model import FrameOutputs
from cellnet.prediction.predictor import Predictor

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
STRIP_PX: Final = 46
BAR_PX: Final = 20
"""Of the colours in it."""
TEXT_PX: Final = 28
"""On the service's page a part of 1200 pixels takes about 500."""
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


def _count_panel(regressor: Predictor, image_HW: Pixels, pixel_um: float | None) -> NDArray[np.uint8]:
    said, cells_HW = density_map(regressor, image_HW, pixel_um)
    interval = regressor.interval(said)
    picture_HW3 = _grey(image_HW, regressor)
    boxes = in_picture(said.boxes, picture_HW3.shape[:2])
    legend, colours = "where in a tile is not known", None
    if cells_HW is not None:
        picture_HW3, most = with_cells(picture_HW3, cells_HW, boxes[0])
        legend, colours = f"0 to {most:.0f} or more cells per tile area", COUNTED
    caption = f"{said.count:,.1f} cells"
    if interval is not None:
        low, high = interval
        digits = int(low < 10)
        caption += f" ({low:,.{digits}f}–{high:,.{digits}f})"
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
    boxes = in_picture(said.boxes, picture_HW3.shape[:2])
    cam_HW, looked_HW = blend(np.stack(cams), [boxes[n] for n in looked], picture_HW3.shape[:2])
    picture_HW3[~looked_HW] //= 2  # not asked there
    picture_HW3 = _heat(picture_HW3, cam_HW, LOOKED)
    picture_HW3, written = _with_tiles(picture_HW3, boxes, [f"{sure:.0%}" for sure in sure_N], room=ROOM)
    some = f", in {len(looked)} of {len(boxes):,} tiles" if len(looked) < len(boxes) else ""
    legend = f"0 to most that spoke for {lineage}{some}" + " · numbers: its probability" * written
    caption = f"{lineage} {said.probability_K[label]:.0%}{_said_by(classifier, said)}"
    return _panel(picture_HW3, caption, legend, LOOKED)


def with_cells(
    picture_HW3: NDArray[np.uint8], cells_HW: NDArray[np.float32], box: Box
) -> tuple[NDArray[np.uint8], float]:
    """The cells in each pixel over a picture, and how many per area of such a tile take the strongest colour."""
    per_tile_HW = cells_HW * ((box.bottom - box.top) * (box.right - box.left))
    most = max(_dense(per_tile_HW), FAINT)
    return _heat(picture_HW3, per_tile_HW / most, COUNTED), most


def _said_by(model: Predictor, said: FrameOutputs) -> str:
    return f" · {model.ref}" + " · unlike its training images" * bool(said.unfamiliar)


def _dense(map_HW: NDArray[np.float32]) -> float:
    """The value above which a quarter of the map's sum lies: the inside of typical cells, whatever its summit is."""
    values_N = np.sort(map_HW, axis=None)
    return float(values_N[np.searchsorted(values_N.cumsum(dtype=np.float64), 0.75 * values_N.sum(dtype=np.float64))])


def _evenly(boxes: Sequence[Box]) -> list[int]:
    """Which tiles to look at: all, or every n-th of every n-th row, so that they are few enough."""
    rows, columns = sorted({box.top for box in boxes}), sorted({box.left for box in boxes})
    step = 1
    while len(rows[::step]) * len(columns[::step]) > MOST_LOOKED:
        step += 1
    tops, lefts = (set(starts[len(starts) % step // 2 :: step]) for starts in (rows, columns))
    return [n for n, box in enumerate(boxes) if box.top in tops and box.left in lefts]


def _grey(image_HW: Pixels, model: Predictor) -> NDArray[np.uint8]:
    """The frame's picture (H, W, 3), its contrast as the model sees it."""
    return np.repeat(grey_picture(image_HW, model.card.preprocess.intensity)[..., None], 3, axis=2)


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
    font = _font(min(TEXT_PX, max(9, side // 8)))
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
        share_HW = np.tile(np.linspace(0, 1, 100, dtype=np.float32), (BAR_PX, 1))
        bar_HW3 = _heat(np.full((BAR_PX, 100, 3), 128, np.uint8), share_HW, colours)
        panel_HW3[height + STRIP_PX + (STRIP_PX - BAR_PX) // 2 :, legend_left:][:BAR_PX, :100] = bar_HW3
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
