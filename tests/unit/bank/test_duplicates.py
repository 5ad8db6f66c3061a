"""Copies are found whatever became of them on the way; other frames are not."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cellnet.bank.duplicates import BITS, NEAR_BITS, SMALL, SPREAD, _near_in_bands, fingerprint, near_pairs
from cellnet.sample import draw_frame, draw_well

Grey = NDArray[np.uint8]


@pytest.fixture(scope="module")
def frames() -> list[Grey]:
    """Two fields of a well, which share its light, for each of three lineages."""
    drawn = []
    for lineage in ("A549", "THP1", "3T3"):
        well = draw_well(lineage, np.random.default_rng(1))
        drawn += [draw_frame(lineage, np.random.default_rng(n), size_px=400, well=well).image_HW for n in (2, 3)]
    return drawn


def as_jpeg(frame_HW: Grey) -> Grey:
    _, data = cv2.imencode(".jpg", frame_HW, [cv2.IMWRITE_JPEG_QUALITY, 60])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)


def at_half_size(frame_HW: Grey) -> Grey:
    return np.asarray(cv2.resize(frame_HW, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)


def in_16_bits(frame_HW: Grey) -> NDArray[np.uint16]:
    return np.asarray(frame_HW.astype(np.uint16) * 60 + 4000, np.uint16)


def shaded(frame_HW: Grey) -> Grey:
    return np.asarray(frame_HW * np.linspace(0.6, 1.0, frame_HW.shape[1]), np.uint8)


@pytest.mark.parametrize("copy", [as_jpeg, at_half_size, in_16_bits, shaded])
def test_a_copy_is_near_its_frame_and_to_no_other(frames: list[Grey], copy: object) -> None:
    prints = [fingerprint(frame_HW) for frame_HW in frames]
    copies = [fingerprint(copy(frame_HW)) for frame_HW in frames]  # type: ignore[operator]
    n = len(frames)
    assert near_pairs([*prints, *copies]) == [(i, n + i) for i in range(n)]


def test_only_pairs_with_a_new_frame_are_told() -> None:
    one, other = "ab" * (BITS // 8), "cd" * (BITS // 8)
    assert near_pairs([one, one, other, one, ""], start=3) == [(0, 3), (1, 3)]
    assert near_pairs([one, one]) == [(0, 1)]
    assert near_pairs([]) == near_pairs([one]) == near_pairs(["", ""]) == []


def test_an_eighth_of_the_bits_may_differ_and_no_more() -> None:
    zero = bytes(BITS // 8)

    def with_bits(number: int) -> str:
        return np.packbits([1] * number + [0] * (BITS - number)).tobytes().hex()

    assert near_pairs([zero.hex(), with_bits(NEAR_BITS)]) == [(0, 1)]
    assert near_pairs([zero.hex(), with_bits(NEAR_BITS + 1)]) == []


@pytest.mark.parametrize("n", [SMALL - 1, SMALL, 1500])
@pytest.mark.parametrize("ones", [0.5, 0.04], ids=["unlike", "alike"])
def test_the_same_pairs_are_found_as_by_comparing_all_with_all(n: int, ones: float) -> None:
    random = np.random.default_rng(n)
    bits_NB = random.random((n if ones == 0.5 else n // 3, BITS)) < ones
    n = len(bits_NB)
    for _ in range(n // 3):  # copies of others, some of them just too far away
        one, other = random.integers(0, n, 2)
        bits_NB[other] = bits_NB[one]
        flipped = random.choice(BITS, random.integers(NEAR_BITS - 3, NEAR_BITS + 4), replace=False)
        bits_NB[other, flipped] ^= True
    prints = [np.packbits(bits_B).tobytes().hex() for bits_B in bits_NB]
    prints[7] = ""
    signs_NB = np.where(bits_NB, 1.0, -1.0)
    apart_NN = (BITS - signs_NB @ signs_NB.T) / 2
    apart_NN[7] = apart_NN[:, 7] = BITS
    all_pairs = [(i, j) for j in range(n) for i in range(j) if apart_NN[i, j] <= NEAR_BITS]
    assert len(all_pairs) > n // 20
    assert near_pairs(prints) == all_pairs
    of_few = [(i, j) for i, j in all_pairs if j >= n - 40]
    assert near_pairs(prints, start=n - 40) == of_few
    bytes_NB = np.packbits(bits_NB, axis=1)
    if ones == 0.5:  # alike ones are told apart by no band
        found = _near_in_bands(bytes_NB, n - 40, SPREAD)
        assert found is not None and [pair for pair in map(tuple, found.tolist()) if 7 not in pair] == of_few
