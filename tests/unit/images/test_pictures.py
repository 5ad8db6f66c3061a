"""Pictures of frames: as bright as a network gets them, and rings where cells are."""

import numpy as np
import pytest

from cellnet.config.bank import Intensity
from cellnet.images.pictures import CENTRE, grey_picture, with_centres


def test_a_frame_of_few_dark_grey_values_is_as_bright_as_a_network_gets_it() -> None:
    image_HW = np.repeat(np.array([[3, 5], [4, 6]], np.uint8), 400, axis=0).repeat(300, axis=1)
    picture_HW = grey_picture(image_HW, Intensity(), (100, 400))
    assert picture_HW.shape == (400, 300)
    assert [int(picture_HW[y, x]) for y, x in ((10, 10), (390, 10), (10, 290), (390, 290))] == [0, 85, 170, 255]


def test_contrast_is_that_of_the_frame_as_recorded_not_of_the_smaller_picture() -> None:
    image_HW = np.full((800, 800), 100, np.uint16)
    image_HW[::4, ::4] = 1100
    picture_HW = grey_picture(image_HW, Intensity(low=0, high=100), (100, 200))
    assert (picture_HW == round(255 / 16)).all()


def test_centres_are_ringed_and_those_far_outside_are_not_drawn() -> None:
    grey_HW3 = np.full((100, 200, 3), 128, np.uint8)
    places_N2 = np.array([[150, 20], [-300, 20], [1e30, 5]], np.float32)
    marked_HW3 = with_centres(grey_HW3, places_N2)
    y_N, x_N = (np.abs(marked_HW3.astype(int) - CENTRE).max(2) < 5).nonzero()
    assert (x_N.mean(), y_N.mean()) == pytest.approx((150, 20), abs=1) and len(x_N) > 8
    assert np.hypot(x_N - 150, y_N - 20).min() > 2 and np.hypot(x_N - 150, y_N - 20).max() < 8
    assert (grey_HW3 == 128).all(), "the picture that was given stays as it was"
