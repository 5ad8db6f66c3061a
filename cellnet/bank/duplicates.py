"""Nearly the same frame twice: a perceptual hash that survives another format, size, brightness or shading.

Equal pixels have equal names in the bank already; these are frames exported twice, or recorded twice within moments.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

import cv2
import numpy as np

from cellnet.images.pixels import Pixels

Item = TypeVar("Item")

SIDE: Final = 128
"""Pixels of the thumbnail that is hashed."""
SHADE: Final = 3.0
"""Gaussian sigma, in pixels of the thumbnail, of what counts as illumination."""
FINEST: Final = 24
COARSEST: Final = 8
"""Half periods along the thumbnail's side of the waves that are compared."""
BITS: Final = FINEST**2 - COARSEST**2
NEAR_BITS: Final = BITS // 8
"""At most so many of 512 bits differ between copies. Frames of unlike cells differ by 256 on average; in three real
sets the nearest two that are no copies differed by 96, and JPEG at quality 50, half the size or a slope of 50 % in
brightness change 10 to 45 of a frame of 1000 pixels."""


def fingerprint(image_HW: Pixels) -> str:
    """128 hexadecimal digits that differ in few bits between nearly equal frames.

    The signs of the discrete cosine transform against its median (pHash; Zauner 2010), taken of the frame with its
    brightness and contrast evened out, since uneven illumination makes all frames of an instrument look alike.
    """
    small_HW = cv2.resize(np.asarray(image_HW, np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    detail_HW = small_HW - cv2.GaussianBlur(small_HW, (0, 0), SHADE)
    contrast_HW = np.sqrt(cv2.GaussianBlur(detail_HW**2, (0, 0), 2 * SHADE))
    waves_HW = cv2.dct(detail_HW / (contrast_HW + 0.02 * contrast_HW.max() + 1e-6))[:FINEST, :FINEST]
    waves_N = waves_HW[np.indices(waves_HW.shape).max(axis=0) >= COARSEST]
    return np.packbits(waves_N > np.median(waves_N)).tobytes().hex()


def near_pairs(fingerprints: Sequence[str], *, start: int = 0) -> list[tuple[int, int]]:
    """The pairs (earlier, later) of near fingerprints whose later one stands at `start` or behind it.

    An empty fingerprint is near to none. The time grows with the square of the number: about a second for 10,000.
    """
    known_N = np.array([bool(text) for text in fingerprints], bool)
    blank = "00" * (BITS // 8)
    bits_N8 = np.frombuffer(bytes.fromhex("".join(text or blank for text in fingerprints)), np.uint64)
    bits_N8 = bits_N8.reshape(len(fingerprints), BITS // 64)
    pairs = []
    for later in range(max(start, 1), len(fingerprints)):
        if known_N[later]:
            apart_N = np.bitwise_count(bits_N8[:later] ^ bits_N8[later]).sum(axis=1, dtype=np.int64)
            pairs += [(int(earlier), later) for earlier in np.flatnonzero((apart_N <= NEAR_BITS) & known_N[:later])]
    return pairs


def linked(items: Sequence[Item], links: Iterable[tuple[int, int]]) -> list[list[Item]]:
    """The items, those together whose places are linked, directly or through others.

    >>> linked("abcd", [(0, 3), (3, 1)])
    [['a', 'b', 'd'], ['c']]
    """
    leader = list(range(len(items)))

    def leader_of(place: int) -> int:
        while leader[place] != place:
            leader[place] = place = leader[leader[place]]
        return place

    for one, other in links:
        leader[leader_of(other)] = leader_of(one)
    together: dict[int, list[Item]] = defaultdict(list)
    for place, item in enumerate(items):
        together[leader_of(place)].append(item)
    return list(together.values())
