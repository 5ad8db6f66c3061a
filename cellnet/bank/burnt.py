"""Scale bars, clocks and letters that are burnt into the pixels: the same pixels are the darkest or brightest in all.

Frames of one size are compared, of many groups, and no more of them than it takes to see that nothing is the same. What
is found may be an empty edge as well. A clock whose digits change, or a bar in some frames alone, is not found.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cellnet.bank.bank import Bank
from cellnet.bank.columns import Frames
from cellnet.bank.frames import Frame
from cellnet.errors import CellnetError
from cellnet.images.pixels import Pixels

FEWEST: Final = 6
"""Frames of one size, in fewer of which the same pixels may be so by chance."""
MOST: Final = 8
"""Frames that are compared."""
MOST_LINEAGES: Final = 16
"""Of which each is compared for itself, where nothing is the same in all frames."""
SPREAD: Final = 0.02
"""How far from a frame's darkest or brightest value a pixel may be, as a share of what lies between: JPEG blurs."""
LEAST_PIXELS: Final = 25
"""A region of fewer is a camera's hot or dead pixels."""
MOST_REGIONS: Final = 3
"""Where more regions are the same, or a larger share of the pixels, the background is what is black or white."""
MOST_SHARE: Final = 0.05
GAP: Final = 40
"""Pixels no farther apart than this part of the frame's longer side are one region: the letters of a text."""


class Region(NamedTuple):
    """A rectangle of pixels, as large as what is burnt into them."""

    left: int
    top: int
    width: int
    height: int
    tone: str
    """`darkest` or `brightest`."""


def burnt_in(bank: Bank, *, unread: Callable[[CellnetError], object] = repr) -> Iterator[str]:
    """What seems to be burnt into all frames, or into those of a lineage, a sentence each.

    `unread` is told of pixels that cannot be read, of whose frames nothing is said.
    """
    found = list(_told(bank, bank.frames, "", unread))
    yield from found
    lineages = bank.lineages
    if not found and 1 < len(lineages) <= MOST_LINEAGES:
        for lineage in lineages:
            yield from _told(bank, bank.frames.equal("lineage", lineage), f"{lineage}: ", unread)


def _told(bank: Bank, frames: Frames, whose: str, unread: Callable[[CellnetError], object]) -> Iterator[str]:
    compared = _to_compare(frames)
    try:
        regions = _same_in_all(bank, compared)
    except CellnetError as error:
        unread(error)
        return
    for region in regions:
        frame = compared[0]
        where = _where(region, frame.width, frame.height)
        yield (
            f"{whose}the same {region.width}×{region.height} pixels {where} are the {region.tone} in all "
            f"{len(compared)} frames looked at: a scale bar, letters or an empty edge? A network sees them too; crop "
            "them off and import into a new bank"
        )


def _to_compare(frames: Frames) -> list[Frame]:
    """Frames of the commonest size, first one of each group; no copies, and none of a single grey value."""
    column = frames.column
    is_usable = pc.and_(pc.is_null(column("twin")), pc.greater(column("brightest"), column("darkest")))
    sizes = Counter(Frames(frames.table.select(["width", "height"]).filter(is_usable)).counted("width", "height"))
    if not sizes:
        return []
    [((width, height), number)] = sizes.most_common(1)
    if number < FEWEST:
        return []
    is_size = pc.and_(pc.equal(column("width"), width), pc.equal(column("height"), height))
    places_U = np.flatnonzero(pc.and_(is_usable, is_size))
    groups_U = column("group").take(pa.array(places_U)).combine_chunks().dictionary_encode().indices.to_numpy()
    order_U = np.argsort(groups_U, kind="stable")
    turn_U = np.empty(len(places_U), np.int64)  # how many of its group come before it
    turn_U[order_U] = np.arange(len(places_U)) - np.searchsorted(groups_U[order_U], groups_U[order_U])
    first_F = np.flatnonzero(turn_U < MOST)
    chosen_F = np.lexsort((groups_U[first_F], turn_U[first_F]))[:MOST]
    return list(frames.each(places_U[first_F[chosen_F]]))


def _same_in_all(bank: Bank, frames: Sequence[Frame]) -> list[Region]:
    """The few small regions that are the darkest, or the brightest, in each of the frames."""
    same: dict[str, NDArray[np.bool_]] = {}
    for frame in frames:
        tones = _extremes(bank.pixels(frame))
        same = {tone: here_HW & same.get(tone, here_HW) for tone, here_HW in tones.items()}
        if not any(here_HW.any() for here_HW in same.values()):
            return []
    return [region for tone, here_HW in same.items() for region in regions_of(here_HW, tone)]


def _extremes(image_HW: Pixels) -> dict[str, NDArray[np.bool_]]:
    """Which pixels have the darkest grey value of a frame, and which the brightest, or nearly so."""
    darkest, brightest = float(image_HW.min()), float(image_HW.max())
    near = SPREAD * (brightest - darkest)
    return {"darkest": image_HW <= darkest + near, "brightest": image_HW >= brightest - near}


def regions_of(same_HW: NDArray[np.bool_], tone: str) -> list[Region]:
    """The regions of the pixels that are the same; none where they are many or large, as a background is."""
    if same_HW.mean() > MOST_SHARE:
        return []
    side = max(same_HW.shape) // GAP | 1
    joined_HW = cv2.dilate(same_HW.astype(np.uint8), np.ones((side, side), np.uint8))
    _, label_HW = cv2.connectedComponents(joined_HW)
    y_N, x_N = same_HW.nonzero()
    label_N = label_HW[y_N, x_N]
    regions = []
    for label, pixels in Counter(label_N.tolist()).items():
        if pixels >= LEAST_PIXELS:
            y, x = y_N[label_N == label], x_N[label_N == label]
            left, top = int(x.min()), int(y.min())
            regions.append(Region(left, top, int(x.max()) + 1 - left, int(y.max()) + 1 - top, tone))
    return regions if len(regions) <= MOST_REGIONS else []


def _where(region: Region, width: int, height: int) -> str:
    """
    >>> _where(Region(1250, 1000, 140, 20, "darkest"), 1408, 1040)
    'at the lower right'
    """
    column = math.floor(3 * (region.left + region.width / 2) / width)
    row = math.floor(3 * (region.top + region.height / 2) / height)
    words = [("upper", "", "lower")[row], ("left", "", "right")[column]]
    return f"at the {' '.join(filter(None, words))}" if any(words) else "in the middle"
