"""Nearly the same frame twice: a perceptual hash that survives another format, size, brightness or shading.

Equal pixels have equal names in the bank already; these are frames exported twice, or recorded twice within moments.
"""

import binascii
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeVar

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

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
SMALL: Final = 256
"""Fewer fingerprints are compared all with all."""
WIDEST: Final = 20
"""Bits of a band at most: more neighbours would be asked for than there are in a million."""
HEAD: Final = 3
"""64-bit words of the eight that are compared first: unlike frames differ there in 96 bits on average."""
BLOCK: Final = 2**18
"""Pairs that are compared together: what fits into a processor's caches."""

FEW: Final = 2**-8
"""Of all, as many that are compared with all find theirs by bands of `SPREAD` bits, which are quickly made of words: of
wider ones fewer would be compared, and making them takes longer than that."""
SPREAD: Final = 16
EACH_BYTE: Final = np.uint64(0x0101010101010101)
UNPACKED: Final = 2**13
"""Fingerprints whose bits are taken apart together: 4 MB, and four times that as numbers."""


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


def near_pairs(fingerprints: Sequence[str] | pa.ChunkedArray, *, start: int = 0) -> list[tuple[int, int]]:
    """The pairs (earlier, later) of near fingerprints whose later one stands at `start` or behind it, by the later.

    An empty fingerprint is near to none. Exact, by multi-index hashing (Norouzi, Punjani & Fleet 2012,
    10.1109/CVPR.2012.6248043, with the thresholds of Qin et al. 2018, 10.1109/ICDE.2018.00058): two that differ in at
    most `NEAR_BITS` differ in few bits of one of their bands, so only those are compared whose bands are near.
    """
    texts = pa.chunked_array([fingerprints], pa.string()) if isinstance(fingerprints, Sequence) else fingerprints
    is_known = pc.not_equal(texts, "")
    known_N = np.flatnonzero(is_known.to_numpy())
    bytes_NB = np.frombuffer(b"".join(map(_bytes_of, texts.filter(is_known).chunks)), np.uint8)
    bytes_NB = bytes_NB.reshape(len(known_N), BITS // 8)
    from_n = int(np.searchsorted(known_N, start))
    width = int(math.log2(len(known_N))) if len(known_N) >= SMALL else 0
    width = min(width, WIDEST)
    if width > SPREAD and len(known_N) - from_n <= FEW * len(known_N):
        width = SPREAD
    pairs_P2 = _near_in_bands(bytes_NB, from_n, width)
    if pairs_P2 is None:  # fingerprints that are alike, so that bands do not tell them apart
        pairs_P2 = _near_in_bands(bytes_NB, from_n, 0)
        assert pairs_P2 is not None
    earlier_P, later_P = known_N[pairs_P2.T]
    return list(zip(earlier_P.tolist(), later_P.tolist(), strict=True))


def _bytes_of(texts: pa.Array) -> bytes:
    """What hexadecimal texts say, one after the other."""
    _, offsets, digits = texts.buffers()
    ends_N = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return binascii.unhexlify(memoryview(digits)[ends_N[0] : ends_N[-1]]) if len(texts) else b""


def _near_in_bands(bytes_NB: NDArray[np.uint8], start: int, width: int) -> NDArray[np.int64] | None:
    """The pairs (P, 2), sorted, by bands of so many bits, of which 0 tells nothing apart.

    None where more would be compared than all with all.
    """
    words_WN = np.ascontiguousarray(bytes_NB.view(np.uint64).T)
    places_N = np.arange(len(bytes_NB))
    left = (len(bytes_NB) - start) * len(bytes_NB) if width else math.inf
    found = [np.empty((0, 2), np.int64)]
    for key_N, most in _bands(bytes_NB, width):
        flips = _flips(width, most)
        wanted_K = np.zeros(1 << width, bool)
        for flip in flips:  # one by one, since there are two hundred, and a number for each fingerprint
            wanted_K[key_N[start:] ^ flip] = True
        order_M = np.flatnonzero(wanted_K[key_N] | (places_N >= start))
        order_M = order_M[np.argsort(key_N[order_M], kind="stable")]
        key_M, head_HM = key_N[order_M], words_WN[:HEAD].take(order_M, axis=1)
        first_K = np.concatenate([[0], np.cumsum(np.bincount(key_M, minlength=1 << width))])
        all_A = np.flatnonzero(order_M >= start)
        for length, alike in itertools.groupby(flips.tolist(), key=int.bit_length):
            # where all ask all, a pair is asked for by the one whose band is lower, which the highest bit tells
            is_once = start == 0 and length > 0
            asking_A = all_A[(key_M[all_A] >> (length - 1)) & 1 == 0] if is_once else all_A
            key_A = key_M[asking_A]
            for flip in alike:
                near_A = key_A ^ np.uint32(flip)
                low_A, high_A = first_K[near_A], first_K[near_A + 1]
                left -= int((high_A - low_A).sum())
                if left < 0:
                    return None
                for one_C, other_C in _candidates(asking_A, low_A, high_A):
                    if not is_once:
                        earlier = order_M[other_C] < order_M[one_C]
                        one_C, other_C = one_C[earlier], other_C[earlier]
                    near = _distance(head_HM, one_C, other_C) <= NEAR_BITS  # nearly all differ enough there
                    one_C, other_C = order_M[one_C[near]], order_M[other_C[near]]
                    near = _distance(words_WN, one_C, other_C) <= NEAR_BITS
                    found.append(np.sort(np.stack([one_C[near], other_C[near]], axis=1), axis=1)[:, ::-1])
    return np.unique(np.concatenate(found), axis=0)[:, ::-1]


def _bands(bytes_NB: NDArray[np.uint8], width: int) -> Iterator[tuple[NDArray[np.unsignedinteger], int]]:
    """Each band of all fingerprints as a number, and in how many of its bits near ones differ at most.

    Near ones do so in one band at least, or their distances add up to more than `NEAR_BITS`. A band takes bits from all
    over the fingerprint, as neighbours are alike.
    """
    if not width:
        yield np.zeros(len(bytes_NB), np.uint32), 0
        return
    if width == SPREAD:
        yield from _spread(bytes_NB)
        return
    number = BITS // width
    most, larger = divmod(NEAR_BITS + 1, number)
    keys_KN = np.empty((number, len(bytes_NB)), np.uint32)
    powers_W = 2.0 ** np.arange(width, dtype=np.float32)
    for start in range(0, len(bytes_NB), UNPACKED):
        bits_NB = np.unpackbits(bytes_NB[start : start + UNPACKED], axis=1)[:, : number * width]
        keys_KN[:, start : start + UNPACKED] = np.einsum("nwk,w->kn", bits_NB.reshape(-1, width, number), powers_W)
    for band, key_N in enumerate(keys_KN):
        if (limit := most - (band >= larger)) >= 0:
            yield key_N, limit


def _spread(bytes_NB: NDArray[np.uint8]) -> Iterator[tuple[NDArray[np.unsignedinteger], int]]:
    """Bands of 16 bits, each of two words: the same bit of their bytes."""
    words_NW = bytes_NB.view(np.uint64)
    number, half = BITS // SPREAD, words_NW.shape[1] // 2
    keys_KN = np.empty((number, len(words_NW)), np.uint16)
    for start in range(0, len(words_NW), UNPACKED):
        words_WN = words_NW[start : start + UNPACKED].T.copy()
        for bit in range(8):
            # each byte's bit alone, and by the product all eight in the highest byte
            gathered_WN = ((words_WN >> np.uint64(bit)) & EACH_BYTE) * np.uint64(0x0102040810204080) >> np.uint64(56)
            keys_HN = gathered_WN[:half] | gathered_WN[half:] << np.uint64(8)
            keys_KN[bit * half : (bit + 1) * half, start : start + UNPACKED] = keys_HN
    most, larger = divmod(NEAR_BITS + 1, number)
    for band, key_N in enumerate(keys_KN):
        if (limit := most - (band >= larger)) >= 0:
            yield key_N, limit


def _flips(width: int, most: int) -> NDArray[np.uint32]:
    """What at most so many other bits of a band are, as numbers to be combined with it by exclusive or."""
    sets = itertools.chain.from_iterable(itertools.combinations(range(width), number) for number in range(most + 1))
    return np.array(sorted(sum(1 << bit for bit in bits) for bits in sets), np.uint32)


def _candidates(
    asking_A: NDArray[np.int64], low_A: NDArray[np.int64], high_A: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Each that asks with all from its low to its high, not many more than `BLOCK` at a time."""
    ends_A = np.cumsum(high_A - low_A)
    at, done = 0, 0
    while at < len(asking_A):
        to = max(int(np.searchsorted(ends_A, done + BLOCK, side="right")), at + 1)
        numbers = high_A[at:to] - low_A[at:to]
        one_C = np.repeat(asking_A[at:to], numbers)
        other_C = np.arange(len(one_C)) + np.repeat(low_A[at:to] - (ends_A[at:to] - numbers - done), numbers)
        yield one_C, other_C
        at, done = to, int(ends_A[to - 1])


def _distance(words_WM: NDArray[np.uint64], one_C: NDArray[np.int64], other_C: NDArray[np.int64]) -> NDArray[np.uint16]:
    """In how many bits each of some pairs differ; word by word, as each word lies side by side with its like."""
    distance_C = np.zeros(len(one_C), np.uint16)
    for word_M in words_WM:
        distance_C += np.bitwise_count(word_M.take(one_C) ^ word_M.take(other_C))
    return distance_C


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
