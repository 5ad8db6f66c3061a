"""Frames brought to another pixel size."""

import pytest

from cellnet.images.scale import rescale
from tests.factories import noise

NOISE = noise(60, 80)


def test_rescaling_multiplies_both_sides_and_keeps_at_least_a_pixel() -> None:
    assert rescale(NOISE, 0.5).shape == (30, 40)
    assert rescale(NOISE, 2).shape == (120, 160)
    assert rescale(NOISE[:1], 0.25).shape == (1, 20)
    assert rescale(NOISE, 0.5)[0, 0] == pytest.approx(NOISE[:2, :2].mean(), abs=0.51)  # the mean of its area
