"""Grey values: what stretching, filtering and normalising come to."""

import cv2
import numpy as np
import pytest
import torch

from cellnet.config.bank import Intensity
from cellnet.config.train import Preprocess
from cellnet.images.pixels import (
    BACKGROUND_PX,
    apply_kernel,
    blur_matrix,
    even_out,
    normalise,
    percentiles,
    stretch,
)
from tests.factories import noise

NOISE = noise(60, 80)


def test_a_range_stretch_maps_its_ends_to_0_and_255_and_saturates_beyond() -> None:
    image_HW = np.array([[0, 1000, 1500, 2000, 65535]], np.uint16)
    rule = Intensity(rule="range", low=1000, high=2000)
    assert stretch(image_HW, rule).tolist() == [[0, 0, 128, 255, 255]]


def test_a_percentile_stretch_does_not_depend_on_gain_and_offset() -> None:
    dim_HW, bright_HW = NOISE.astype(np.uint16) * 3 + 500, NOISE.astype(np.uint16) * 12 + 9000
    stretched_HW = stretch(dim_HW, Intensity())
    assert (stretched_HW == stretch(bright_HW, Intensity())).all()
    assert stretched_HW.min() == 0 and stretched_HW.max() == 255


def test_a_stretch_around_the_background_maps_the_median_by_how_far_it_is_from_both_ends() -> None:
    image_HW = np.array([[0, 900, 1000, 1000, 1000, 1300, 65535]], np.uint16)
    rule = Intensity(rule="background", low=-100, high=300)
    assert stretch(image_HW, rule).tolist() == [[0, 0, 64, 64, 64, 255, 255]]  # 100 of 400 grey values above 0


@pytest.mark.parametrize(("dtype", "offset"), [(np.uint8, 60), (np.uint16, 9000)])
def test_around_the_background_frames_look_alike_however_bright_they_are_and_whatever_else_is_in_them(
    dtype: type, offset: int
) -> None:
    rule = Intensity(rule="background", low=-50, high=100)
    dim_HW = np.full((40, 40), 80, dtype)
    dim_HW[10:15, 10:15] = 120
    bright_HW = dim_HW + dtype(offset)
    assert (stretch(dim_HW, rule) == stretch(bright_HW, rule)).all()
    bright_HW[30:, 30:] = np.iinfo(dtype).max  # dirt, by which a percentile would be shifted
    seen_HW = stretch(bright_HW, rule)
    assert seen_HW[:30, :30].tolist() == stretch(dim_HW, rule)[:30, :30].tolist() and seen_HW[35, 35] == 255
    assert (seen_HW[0, 0], seen_HW[12, 12]) == (85, 153)  # 50 and 90 of 150 grey values above 0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_percentiles_are_numpys_to_the_bit(dtype: type) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        high = int(rng.integers(1, np.iinfo(dtype).max + 1))
        image_HW = rng.integers(0, high, rng.integers(1, 60, 2), dtype, endpoint=True)
        low, high = np.sort(rng.choice([0, 0.1, 0.5, 25, 50, 99, 99.9, 100, *rng.uniform(0, 100, 3)], 2, replace=False))
        assert percentiles(image_HW, low, high) == np.percentile(image_HW, [low, high]).tolist()


def test_a_frame_that_is_flat_but_for_a_few_pixels_is_stretched_without_dividing_by_zero() -> None:
    image_HW = np.full((100, 100), 40, np.uint8)
    image_HW[0, :3] = (41, 39, 200)
    assert stretch(image_HW, Intensity())[0, :4].tolist() == [255, 0, 255, 0]


BUMP = np.array([[10, 10, 10], [10, 26, 10], [10, 10, 10]], np.uint8)


@pytest.mark.parametrize(
    ("kernel", "filtered"),
    [
        ("none", BUMP.tolist()),
        # the border is reflected: over and under an edge's middle lies the bump, twice
        ("sharpen", [[10, 0, 10], [0, 90, 0], [10, 0, 10]]),
        ("edge", [[0, 0, 0], [0, 128, 0], [0, 0, 0]]),
        ("gaussian", [[14, 14, 14], [14, 14, 14], [14, 14, 14]]),
    ],
)
def test_kernels_by_hand(kernel: str, filtered: list[list[int]]) -> None:
    assert apply_kernel(BUMP, kernel).tolist() == filtered


def test_the_emboss_kernel_lights_from_the_lower_right() -> None:
    image_HW = np.full((5, 5), 10, np.uint8)
    image_HW[3, 3] = 50
    filtered_HW = apply_kernel(image_HW, "emboss")
    assert filtered_HW[2, 2] == 10 + 2 * 40  # its lower right neighbour is 40 brighter and weighs 2


def test_filtered_values_saturate() -> None:
    image_HW = np.full((5, 5), 250, np.uint8)
    image_HW[2, 2] = 100
    assert apply_kernel(image_HW, "sharpen")[2, 1:3].tolist() == [255, 0]


def test_network_input_is_grey_minus_mean_over_std_after_the_kernel() -> None:
    tiles_BHW = np.stack([BUMP, BUMP])
    preprocess = Preprocess(tile_px=(3, 3), kernel="sharpen", mean=0.5, std=0.25)
    input_B1HW = normalise(tiles_BHW, preprocess)
    assert input_B1HW.shape == (2, 1, 3, 3) and input_B1HW.dtype == np.float32
    assert input_B1HW[1, 0, 1, 1] == pytest.approx((90 / 255 - 0.5) / 0.25, abs=1e-6)
    assert input_B1HW[0, 0, 0, 1] == pytest.approx(-2)


def cells_on(background_HW: np.ndarray, contrast: float | np.ndarray = 1.0) -> np.ndarray:
    """Grey values of 0..1: the same noise of cells, at some contrast, on a background."""
    return np.clip(background_HW + contrast * (noise(200, 200).astype(np.float32) / 255 - 0.5) * 0.2, 0, 1)


EVEN = np.full((200, 200), 0.5, np.float32)
SLOPE = np.linspace(0.3, 0.7, 200, dtype=np.float32)[:, None] * np.ones((1, 200), np.float32)


def test_the_blur_of_a_tile_is_opencvs() -> None:
    image_HW = cells_on(SLOPE)
    blurred_HW = cv2.GaussianBlur(image_HW, (97, 97), BACKGROUND_PX, borderType=cv2.BORDER_REFLECT_101)
    blur_NN = blur_matrix(200)
    assert blur_NN @ image_HW @ blur_NN.T == pytest.approx(blurred_HW, abs=1e-5)


def test_light_that_changes_slowly_is_taken_out_and_contrast_is_kept() -> None:
    even_HW, uneven_HW = (even_out(cells_on(of), "shading", blur_matrix(200)) for of in (EVEN, SLOPE))
    assert uneven_HW == pytest.approx(even_HW, abs=0.05) and even_HW.mean() == pytest.approx(0.5, abs=1e-3)
    faint_HW = even_out(cells_on(EVEN, 0.5), "shading", blur_matrix(200))
    assert faint_HW.std() == pytest.approx(even_HW.std() / 2, rel=0.01)


def test_local_contrast_makes_faint_cells_look_like_strong_ones_but_not_noise() -> None:
    fading = np.linspace(1.0, 0.5, 200, dtype=np.float32)
    strong_HW, fading_HW = (even_out(cells_on(EVEN, how), "local", blur_matrix(200)) for how in (1.0, fading))
    assert fading_HW[:, 150:].std() == pytest.approx(strong_HW[:, 150:].std(), rel=0.1)
    assert even_out(cells_on(EVEN, 0.01), "local", blur_matrix(200)).std() < strong_HW.std() / 10
    tensor_HW = even_out(torch.from_numpy(cells_on(SLOPE)), "local", torch.from_numpy(blur_matrix(200)))
    assert tensor_HW.numpy() == pytest.approx(even_out(cells_on(SLOPE), "local", blur_matrix(200)), abs=1e-5)


def test_network_input_is_evened_out_after_the_kernel() -> None:
    tile_HW = np.round(cells_on(SLOPE) * 255).astype(np.uint8)
    preprocess = Preprocess(tile_px=(200, 200), kernel="gaussian", illumination="local", mean=0.5, std=0.5)
    grey_HW = apply_kernel(tile_HW, "gaussian").astype(np.float32) / 255
    wanted_HW = (even_out(grey_HW, "local", blur_matrix(200)) - 0.5) / 0.5
    assert normalise(tile_HW[None], preprocess)[0, 0] == pytest.approx(wanted_HW, abs=1e-5)
