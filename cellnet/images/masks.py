"""Instance masks: images in which every cell has a number of its own.

What has other numbers is refused with what was seen: grey edges, as of a JPEG or of a mask that was scaled; black and
white; classes, one of which may be the border.
"""

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from cellnet.errors import DataError
from cellnet.images import apart
from cellnet.images.file import ImageFile

FEW_CLASSES: Final = 5
MOST_CLASSES: Final = 32
"""With more numbers than these, nobody asks whether they are classes."""
MOST_THIN: Final = 0.05
"""The part of the cells' pixels that may be thin, and beside another number, as soft edges are."""
BORDER_PX: Final = 7
"""A border is thinner."""
PIECE_SHARE: Final = 0.2
"""Of the largest piece of a number: smaller ones are crumbs."""
VOC_BORDER: Final = 224 << 16 | 224 << 8 | 192
"""The colour of number 255 in the palette of PASCAL VOC, which is the border around objects."""
Numbers = NDArray[np.integer[Any]]
"""Whole numbers (H, W)."""


@dataclass(frozen=True)
class Cells:
    """The cells of a mask."""

    centres_N2: NDArray[np.float64]
    """Columns x and y: the mean place of each number."""
    note: str | None = None
    """How the mask was read, where another reading can be thought of."""


def cells_of_mask(mask: ImageFile, *, size: tuple[int, int]) -> Cells:
    """The cells of an instance mask: one each number but the background's, which is 0 unless it is evidently another.

    Raises DataError, naming the mask, for what is unreadable, not of the frame's size (H, W), or no mask of instances.
    """
    try:
        return _cells_of(apart.decode_values(mask), size)
    except _NotInstancesError as error:
        raise DataError(f"{mask.name}: {error}") from error


class _NotInstancesError(Exception):
    """What was seen in place of instances."""


def _cells_of(values: NDArray[Any], size: tuple[int, int]) -> Cells:
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):  # one plane, or one channel
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.shape[:2] != size or values.ndim > 3:
        seen = "×".join(map(str, values.shape))
        raise _NotInstancesError(f"the mask is {seen}, not one channel of {size[0]}×{size[1]} like its frame")
    is_colour, numbers_HW = _numbers(values)
    notes = ["each colour is taken as a cell"] * is_colour
    number_K, pixels_K = _count(numbers_HW)
    if len(number_K) == 1 and number_K[0] != 0:
        seen = _shown(int(number_K[0]), is_colour)
        raise _NotInstancesError(f"every pixel has the number {seen}, and nobody can tell cells from background")
    limits = {-1, 255, VOC_BORDER if is_colour else int(np.iinfo(numbers_HW.dtype).max)}
    background = _background(numbers_HW, number_K, pixels_K, limits, is_colour=is_colour)
    if background != 0:
        notes.append(f"{_shown(background, is_colour)} is taken as the background")
    cells_HW = numbers_HW != background
    for limit in sorted((limits | {0} if is_colour else limits) & set(number_K.tolist()) - {background}):
        if limit == -1 or _is_border(numbers_HW, cells_HW, limit, number_K):
            cells_HW &= numbers_HW != limit
            notes.append(f"{_shown(limit, is_colour)} is taken as a border, and no cell")
        elif limit - 1 not in number_K and len(number_K) > 2:
            notes.append(f"{_shown(limit, is_colour)} is taken as a cell")
    y_N, x_N = np.nonzero(cells_HW)
    number_K, cell_N, pixels_K = np.unique(numbers_HW[y_N, x_N], return_inverse=True, return_counts=True)
    if len(number_K) and number_K[0] < 0:
        raise _NotInstancesError(f"its lowest number is {number_K[0]}; give each cell a number above 0")
    if len(number_K) > FEW_CLASSES:  # with few numbers, a class of borders would be taken for soft edges
        _check_edges(numbers_HW, cells_HW, is_colour=is_colour)
    notes += _check_classes(numbers_HW, cells_HW, number_K, limits, is_colour=is_colour)
    if 1 < len(number_K) <= FEW_CLASSES:
        _check_edges(numbers_HW, cells_HW, is_colour=is_colour)
    centres_N2 = np.stack([np.bincount(cell_N, axis_N) for axis_N in (x_N, y_N)], axis=1) / pixels_K[:, None]
    return Cells(centres_N2, "; ".join(notes) or None)


def _numbers(values: NDArray[Any]) -> tuple[bool, Numbers]:
    """Whether colours tell the cells apart, and whole numbers (H, W): as they are, or one for each colour."""
    if values.ndim == 2:
        return False, _whole(values)
    if values.shape[2] in (2, 4):  # what is transparent is not there
        values = np.where(values[..., -1:] > 0, values[..., :-1], 0)
    channels = [_whole(values[..., i]) for i in range(values.shape[2])]
    if all((channel == channels[0]).all() for channel in channels[1:]):
        return False, channels[0]
    if values.dtype != np.uint8 or len(channels) != 3:
        raise _NotInstancesError(f"the mask has {len(channels)} unlike channels; save one, each cell with its number")
    blue_HW, green_HW, red_HW = (channel.astype(np.int32) for channel in channels)
    return True, red_HW << 16 | green_HW << 8 | blue_HW


def _whole(values_HW: NDArray[Any]) -> Numbers:
    if np.issubdtype(values_HW.dtype, np.integer):
        return values_HW
    if values_HW.dtype == np.bool_:
        return values_HW.astype(np.uint8)
    whole_HW = np.isfinite(values_HW) & (np.abs(values_HW) < 2**53)
    whole_HW &= np.where(whole_HW, values_HW, 0) == np.rint(np.where(whole_HW, values_HW, 0))
    if not whole_HW.all():
        seen = values_HW[~whole_HW].flat[0]
        raise _NotInstancesError(
            f"the mask holds {seen:g}, and other values that are no whole numbers; number the cells"
        )
    return values_HW.astype(np.int64)


def _count(numbers_HW: Numbers) -> tuple[Numbers, NDArray[np.int64]]:
    """The numbers that there are, in order, and how many pixels each has."""
    if numbers_HW.dtype in (np.uint8, np.uint16):  # by far the fastest
        pixels_K = np.bincount(numbers_HW.ravel())
        number_K = np.flatnonzero(pixels_K)
        return number_K, pixels_K[number_K]
    return np.unique(numbers_HW, return_counts=True)


def _background(
    numbers_HW: Numbers, number_K: Numbers, pixels_K: NDArray[np.int64], limits: set[int], *, is_colour: bool
) -> int:
    """0, unless another number has most pixels, most of the frame's edge, and is one that programs write there.

    Where there is no 0, any number that has more than half of all pixels will do.
    """
    most = int(number_K[pixels_K.argmax()])
    has_0 = 0 in number_K
    if most == 0 or (has_0 and len(number_K) == 2 and most != -1):
        return 0
    edge_N = np.concatenate([numbers_HW[0], numbers_HW[-1], numbers_HW[:, 0], numbers_HW[:, -1]])
    usual = is_colour or most in limits or (not has_0 and 2 * pixels_K.max() > numbers_HW.size)
    return most if usual and 2 * np.count_nonzero(edge_N == most) > len(edge_N) else 0


def _is_border(numbers_HW: Numbers, cells_HW: NDArray[np.bool_], number: int, number_K: Numbers) -> bool:
    """Whether a number is a thin seam along others; 255 is no seam where 254 is a cell."""
    if number - 1 in number_K and number > 0:
        return False
    seam_HW = (numbers_HW == number).astype(np.uint8)
    core_n = np.count_nonzero(cv2.erode(seam_HW, np.ones((BORDER_PX, BORDER_PX), np.uint8)))
    around_HW = cv2.dilate(seam_HW, np.ones((3, 3), np.uint8)) > seam_HW
    return bool(20 * core_n <= np.count_nonzero(seam_HW) and (around_HW & cells_HW).any())


def _check_edges(numbers_HW: Numbers, cells_HW: NDArray[np.bool_], *, is_colour: bool) -> None:
    """Raise for too many thin pixels beside another number, or where most numbers have no others.

    A JPEG, or a mask that was scaled smoothly, has them all along its edges.
    """
    thin_HW = _thin(numbers_HW, cells_HW)
    beside_HW = np.zeros_like(cells_HW)
    for here, there in _NEIGHBOURS[:4]:
        beside_HW[here] |= cells_HW[there] & (numbers_HW[here] != numbers_HW[there])
    soft_HW = thin_HW & beside_HW
    soft_N, firm_N = numbers_HW[soft_HW], np.unique(numbers_HW[cells_HW & ~soft_HW])
    soft_only_n = len(np.setdiff1d(soft_N, firm_N))
    if len(soft_N) > MOST_THIN * np.count_nonzero(cells_HW) or soft_only_n > len(firm_N):
        low, high = _shown(int(soft_N.min()), is_colour), _shown(int(soft_N.max()), is_colour)
        raise _NotInstancesError(
            f"values {low} to {high} at the edges, as in a JPEG or a mask that was scaled smoothly; save it "
            "losslessly, each cell with one number"
        )


def _thin(numbers_HW: Numbers, cells_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of cells that are in no square of four equal ones, nor within two steps of one of their number."""
    right_HW, down_HW = numbers_HW[:, :-1] == numbers_HW[:, 1:], numbers_HW[:-1] == numbers_HW[1:]
    square_HW = right_HW[:-1] & right_HW[1:] & down_HW[:, :-1]
    firm_HW = np.zeros_like(cells_HW)
    for rows in (slice(None, -1), slice(1, None)):
        for columns in (slice(None, -1), slice(1, None)):
            firm_HW[rows, columns] |= square_HW
    for _ in range(2):
        grown_HW = firm_HW.copy()
        for here, there in _NEIGHBOURS:
            grown_HW[here] |= firm_HW[there] & (numbers_HW[here] == numbers_HW[there])
        firm_HW = grown_HW
    return cells_HW & ~firm_HW


_ALL, _FIRST, _LAST = slice(None), slice(None, -1), slice(1, None)
_NEIGHBOURS: Final = [
    *(((_ALL, _FIRST), (_ALL, _LAST)), ((_ALL, _LAST), (_ALL, _FIRST))),
    *(((_FIRST, _ALL), (_LAST, _ALL)), ((_LAST, _ALL), (_FIRST, _ALL))),
    *(((_FIRST, _FIRST), (_LAST, _LAST)), ((_LAST, _LAST), (_FIRST, _FIRST))),
    *(((_FIRST, _LAST), (_LAST, _FIRST)), ((_LAST, _FIRST), (_FIRST, _LAST))),
]
"""Where pixels lie, and where those do that are beside them: the four along rows and columns first."""


def _check_classes(
    numbers_HW: Numbers, cells_HW: NDArray[np.bool_], number_K: Numbers, limits: set[int], *, is_colour: bool
) -> list[str]:
    """That numbers lie in several pieces. Raises where the numbers are those of classes, or of black and white."""
    if not 0 < len(number_K) <= MOST_CLASSES:
        return []
    pieces_K = [_pieces(cells_HW & (numbers_HW == number)) for number in number_K]
    shown = [_shown(int(number), is_colour) for number in number_K]
    if len(number_K) == 1 and (pieces_K[0] > 1 or int(number_K[0]) in limits):
        raise _NotInstancesError(f"every cell has the number {shown[0]}; give each cell a number of its own")
    if len(number_K) > 1 and sum(pieces_K) >= 2 * len(number_K):
        most = sorted(zip(pieces_K, shown, strict=True), key=lambda pair: -pair[0])[:4]
        seen = ", ".join(f"{number} in {pieces} pieces" for pieces, number in most)
        raise _NotInstancesError(f"its numbers are classes, {seen}; give each cell a number of its own")
    if len(number_K) == 2:
        for one, other in ((0, 1), (1, 0)):
            if _surrounds(numbers_HW, int(number_K[one]), int(number_K[other])):
                raise _NotInstancesError(
                    f"number {shown[other]} lies all around number {shown[one]}, like a class of borders; give each "
                    "cell a number of its own"
                )
    return ["a number in several pieces is taken as one cell"] if max(pieces_K) > 1 else []


def _pieces(mask_HW: NDArray[np.bool_]) -> int:
    """In how many pieces a mask lies, crumbs left out."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask_HW.astype(np.uint8))
    sizes = stats[1:, cv2.CC_STAT_AREA]
    return int(np.count_nonzero(sizes >= PIECE_SHARE * sizes.max()))


def _surrounds(numbers_HW: Numbers, inner: int, outer: int) -> bool:
    inner_HW = (numbers_HW == inner).astype(np.uint8)
    around_HW = cv2.dilate(inner_HW, np.ones((3, 3), np.uint8)) > inner_HW
    return bool((numbers_HW[around_HW] == outer).all())


def _shown(number: int, is_colour: bool) -> str:
    """A number, or a colour as pages write it."""
    return f"#{number:06x}" if is_colour and number >= 0 else str(number)
