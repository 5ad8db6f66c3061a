"""Frames with a known fault: blurred, clipped, or without a cell."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cellnet.images.quality import FEWEST, PLATE, SOFTER, Flag, Focus, Measures, as_sharp_as_plate, flags_of, measure
from tests.factories import discs


def frame(seed: int = 50, cells: int = 200) -> NDArray[np.uint8]:
    """With a camera's noise in the cells as well."""
    grain_HW = np.random.default_rng(seed).normal(0, 4, (400, 500))
    return np.clip(discs(cells, seed=seed, size=(400, 500))[0] + grain_HW, 0, 255).astype(np.uint8)


SHARP = Focus.of([measure(frame(seed)).focus or 0 for seed in range(9)])


def blurred(image_HW: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    """Out of focus, with a camera's noise as before."""
    soft_HW = cv2.GaussianBlur(image_HW.astype(np.float32), (0, 0), sigma)
    grain_HW = np.random.default_rng(0).normal(0, 4, image_HW.shape)
    return np.clip(np.round(soft_HW + grain_HW), 0, 255).astype(np.uint8)


def clipped(image_HW: NDArray[np.uint8], share: float, top: int = 255) -> NDArray[np.uint8]:
    """So much of it at the limit of a camera."""
    limit = np.quantile(image_HW, 1 - share)
    return np.round(np.minimum(image_HW, limit) / limit * top).astype(np.uint8)


def test_focus_is_as_long_division_has_it() -> None:
    image_HW = frame().astype(np.float32)
    one, two, four, eight = (cv2.GaussianBlur(image_HW, (0, 0), sigma) for sigma in (1, 2, 4, 8))
    assert measure(frame()).focus == pytest.approx((one - two).std() / (four - eight).std(), rel=0.02)


def test_white_noise_has_four_times_as_much_fine_structure_and_a_tenth_of_its_own_deviation() -> None:
    noise_HW = np.round(np.random.default_rng(0).normal(30_000, 900, (800, 800))).astype(np.uint16)
    measured = measure(noise_HW)
    assert measured.focus == pytest.approx(4, rel=0.03)
    assert measured.structure == pytest.approx(0.09, abs=0.02) and measured.brightest_share < 1e-4


@pytest.mark.parametrize(
    ("image_HW", "flags"),
    [
        (frame(), []),
        (frame() // 2, []),
        (frame().astype(np.uint16) * 200, []),
        (blurred(frame(), 2), ["out_of_focus"]),
        (blurred(frame(), 4), ["out_of_focus"]),
        (blurred(frame(), 4).astype(np.uint16) * 200, ["out_of_focus"]),
        (clipped(frame(), 0.06), ["saturated"]),
        (clipped(frame(), 0.06).astype(np.uint16) * 16, ["saturated"]),
        (clipped(frame(), 0.06, top=180), ["saturated"]),
        (clipped(frame(), 0.02), []),
        (frame(cells=0), ["empty"]),
        (frame(cells=1), []),
        (np.full((400, 500), 7, np.uint8), ["empty"]),
        (np.random.default_rng(0).normal(128, 0.3, (400, 500)).astype(np.uint8), ["empty"]),
    ],
)
def test_a_frame_is_flagged_for_what_is_wrong_with_it(image_HW: NDArray[np.uint8], flags: list[Flag]) -> None:
    assert flags_of(measure(image_HW), SHARP) == flags


def test_the_more_a_frame_is_blurred_the_less_its_focus() -> None:
    focus = [measure(blurred(frame(), sigma)).focus or 0 for sigma in (0.5, 1, 2, 3, 4)]
    assert all(more > less for more, less in pairwise(focus))


def test_without_frames_of_its_kind_nothing_is_said_of_focus() -> None:
    assert flags_of(measure(blurred(frame(), 4)), None) == []
    assert Focus.of([1.0] * (FEWEST - 1)) is None and Focus.of([0.0] * 50) is None
    assert Focus.of([1.0] * FEWEST) == Focus(frames=FEWEST, median=1, lower_quartile=1)


@pytest.mark.parametrize(("count", "is_empty"), [(0.0, True), (0.49, True), (0.5, False), (3.0, False), (None, False)])
def test_a_frame_in_which_a_counter_found_no_cell_is_empty(count: float | None, is_empty: bool) -> None:
    assert flags_of(measure(frame()), SHARP, count=count) == ["empty"] * is_empty


def test_a_frame_without_a_cell_may_be_out_of_focus_and_one_without_structure_is_not() -> None:
    soft = Measures(focus=0.01, brightest_share=0.5, structure=5)
    assert flags_of(soft, SHARP, count=0.0) == ["out_of_focus", "saturated", "empty"]
    assert flags_of(Measures(focus=0.01, brightest_share=0, structure=0.1), SHARP) == ["empty"]


def test_frames_that_vary_are_given_more_room() -> None:
    alike, varied = Focus(frames=9, median=2, lower_quartile=1.9), Focus(frames=9, median=2, lower_quartile=1)
    assert alike.limit == pytest.approx(1.3) and varied.limit == pytest.approx(2 * 0.5**3.7)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 2), (5, 200)])
def test_the_smallest_frames_are_measured_too(size: tuple[int, int]) -> None:
    measured = measure(np.arange(size[0] * size[1]).reshape(size).astype(np.uint8))
    assert measured.structure >= 0 and 0 <= measured.brightest_share <= 1


def test_the_frame_stays_as_it_was() -> None:
    image_HW = frame()
    measure(image_HW)
    assert (image_HW == frame()).all()


def test_images_of_a_softer_plate_are_held_against_each_other() -> None:
    focus = [0.55 + 0.02 * n for n in range(PLATE)] + [0.2, None, 0.55]
    flags: list[list[Flag]] = [["out_of_focus"] if one is not None and one < 0.65 else [] for one in focus]
    flags[-1] = ["out_of_focus", "saturated"]
    told = as_sharp_as_plate(focus, flags)
    assert told is not None
    own, soft = told
    assert soft == [0, 1, 2, 3, 4, 12], "all but that of 0.2"
    assert own.frames == PLATE + 2 and own.median == pytest.approx(0.62, abs=0.02)


def test_images_that_are_blurred_do_not_make_each_other_sharp() -> None:
    focus = [0.85 + 0.005 * n for n in range(12)] + [0.25] * 8
    flags: list[list[Flag]] = [["out_of_focus"] if one < 0.65 else [] for one in focus]
    assert np.median(focus) < SOFTER and as_sharp_as_plate(focus, flags) is None


@pytest.mark.parametrize(
    ("focus", "number"),
    [(0.6, PLATE - 1), (0.3, 50), (0.95, 50)],
    ids=["too few to tell", "out of focus as a whole", "as sharp as the training"],
)
def test_other_images_are_held_against_the_training_alone(focus: float, number: int) -> None:
    assert as_sharp_as_plate([focus] * number, [["out_of_focus"]] * number) is None
    assert as_sharp_as_plate([0.6] * PLATE, [["out_of_focus"]] * PLATE) is not None
