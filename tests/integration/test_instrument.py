"""The other instruments of a benchmark do what they say, since its table is believed."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from tests.benchmarks.instrument import INSTRUMENTS, Instrument, recorded_by, row, told
from tests.factories import discs

PLAIN = Instrument(scales=(1.0, 1.0), gain=1.0, blur_px=0.0, shading=0.0)


def test_gain_and_shading_take_the_light_that_they_say() -> None:
    even_HW = np.full((100, 100), 200, np.uint8)
    assert (recorded_by(PLAIN, even_HW, 0) == 200).all()
    dim = Instrument(scales=(1.0, 1.0), gain=0.6, blur_px=0.0, shading=0.3)
    for number in range(5):
        dim_HW = recorded_by(dim, even_HW, number)
        assert (dim_HW.max(), dim_HW.min()) == pytest.approx((0.6 * 200, 0.6 * 0.7 * 200), abs=1.5)


def test_frames_are_magnified_in_turn_and_show_the_same_cells() -> None:
    image_HW, _ = discs(12, size=(200, 200))
    smaller_HW, larger_HW = (recorded_by(Instrument(gain=1.0, shading=0.0), image_HW, number) for number in (0, 1))
    assert (smaller_HW.shape, larger_HW.shape) == ((180, 180), (220, 220))
    for seen_HW in (smaller_HW, larger_HW):
        assert cv2.connectedComponents((seen_HW > 140).astype(np.uint8))[0] - 1 == 12
        assert np.ptp(seen_HW) < np.ptp(image_HW), "blurred"


def test_each_instrument_shows_less_of_the_edges_than_the_one_before() -> None:
    image_HW, _ = discs(12, size=(400, 400))
    steps = []
    for name in ("second", "+0.50", "third", "fourth"):
        without_noise = replace(INSTRUMENTS[name], noise=0.0)
        steps.append(np.abs(np.diff(recorded_by(without_noise, image_HW, 0).astype(float))).max())
    assert steps == sorted(steps, reverse=True) and len(set(steps)) == 4 and steps[-1] > 0


def test_the_row_of_a_network_has_what_is_left_of_its_accuracy() -> None:
    asked = {"same": 0.8} | dict(zip(INSTRUMENTS, (0.72, 0.64, 0.6, 0.56, 0.4, 0.2), strict=True))
    shown = "0.72, 0.90 | 0.64, 0.80 | 0.60, 0.75 | 0.56, 0.70 | 0.40, 0.50 | 0.20, 0.25 |"
    assert row("plain", asked) == f"| plain | 0.80 | {shown}"


def test_the_instrument_that_is_too_hard_for_the_old_network_is_told_with_what_each_keeps() -> None:
    old = dict(zip(INSTRUMENTS, (0.9, 0.8, 0.79, 0.7, 0.5, 0.3), strict=True))
    new = dict.fromkeys(INSTRUMENTS, 0.95)
    assert told({"old": old, "new": new}).endswith("with the instrument +0.50: old 0.79, new 0.95.")
    assert told({"old": new}) == "The old network keeps 0.8 or more with every instrument."
