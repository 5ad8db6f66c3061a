"""How fast cells multiply, of counts that were made with a known doubling time."""

import math

import numpy as np
import pytest
from numpy.typing import ArrayLike

from cellnet.evaluation.growth import Growth, Rate, fit_growth, mean_count, mean_rate, rate_ratio
from tests.factories import poisson_counts

IMAGES = 4
"""A count is the mean over so many."""


def fitted(means: ArrayLike, times: ArrayLike, seed: int = 0) -> Growth:
    counts = poisson_counts(means, images=IMAGES, seed=seed)
    return fit_growth(times, counts, counts * IMAGES)


def test_a_series_that_doubles_in_20_hours_is_found_within_its_interval() -> None:
    time_N = np.arange(0, 72, 6)
    inside = 0
    for seed in range(40):
        growth = fitted(10 * 2 ** (time_N / 20), time_N, seed)
        assert growth.status == "grows" and growth.rate is not None
        time, low, high = growth.rate.times_h
        assert time == pytest.approx(20, rel=0.25)
        inside += low <= 20 <= high
    assert 32 <= inside <= 40, "of 90 % intervals"


def test_counts_that_follow_a_curve_exactly_give_it_back() -> None:
    growth = fit_growth([24, 0, 48], [40, 20, 80])
    assert growth.rate is not None and growth.rate.times_h == pytest.approx((24, 24, 24))
    assert (growth.times, growth.from_h, growth.to_h, growth.then) == (3, 0, 48, None)


def test_a_lag_and_a_plateau_are_no_part_of_the_growth() -> None:
    time_N = np.arange(0, 120, 4)
    growth = fitted(10 * 2 ** (np.clip(time_N, 24, 72) / 16), time_N)
    assert growth.rate is not None and growth.rate.times_h[0] == pytest.approx(16, rel=0.1)
    assert growth.from_h == pytest.approx(24, abs=8) and growth.to_h == pytest.approx(72, abs=8)
    assert growth.then == "plateau"


def test_growth_before_a_decline_is_told_from_it() -> None:
    time_N = np.arange(0, 100, 4)
    growth = fitted(10 * 2 ** (np.minimum(time_N, 48) / 20 - np.maximum(time_N - 48, 0) / 15), time_N)
    assert growth.rate is not None and growth.rate.times_h[0] == pytest.approx(20, rel=0.15)
    assert growth.to_h == pytest.approx(48, abs=4) and growth.then == "decline"


def test_a_dying_well_is_halved_and_one_that_rests_does_not_grow() -> None:
    time_N = np.arange(0, 72, 6)
    dying = fitted(60 * 2 ** (-time_N / 18), time_N)
    assert dying.status == "shrinks" and dying.rate is not None
    assert dying.rate.times_h[0] == pytest.approx(18, rel=0.15)
    assert dying.rate.times_h[1] < dying.rate.times_h[0] < dying.rate.times_h[2]
    assert fitted(np.full(12, 40.0), time_N).status == "does_not_grow"


def test_counts_that_leave_growth_open_are_unclear() -> None:
    assert fit_growth([0, 12, 24], [12, 30, 18]).status == "unclear"


@pytest.mark.parametrize(
    ("times", "counts", "status"),
    [
        ([], [], "too_few_times"),
        ([0.0], [20.0], "too_few_times"),
        ([0.0, 24.0], [20.0, 40.0], "too_few_times"),
        ([0.0, 24.0, 48.0, 72.0], [20.0, 0.0, 40.0, 1.0], "too_few_cells"),
    ],
)
def test_too_little_to_say_anything_is_told(times: list[float], counts: list[float], status: str) -> None:
    assert fit_growth(times, counts) == fit_growth(times[::-1], counts[::-1])
    assert fit_growth(times, counts).status == status and fit_growth(times, counts).rate is None


def test_a_gap_and_counts_of_few_cells_leave_the_rest_as_it_is() -> None:
    times, counts = [0, 20, 40, 100], [10.0, 20.0, 40.0, 320.0]
    whole = fit_growth(times, counts)
    assert whole.rate is not None and whole.rate.times_h[0] == pytest.approx(20)
    assert fit_growth([*times, 60, 70], [*counts, 0.0, 3.0]) == whole
    assert fit_growth([*times, 60], [*counts, 3.0], [*counts, 120.0]) != whole, "twelve images of three cells"


def test_rates_of_wells_that_happen_to_agree_are_no_surer_than_the_wells() -> None:
    alike = [Rate(value=0.03, low=0.01, high=0.05), Rate(value=0.03, low=0.02, high=0.04)]
    together = mean_rate(alike)
    assert together.value == 0.03 and together.half == pytest.approx(math.hypot(0.02, 0.01) / 2)
    apart = [Rate(value=value, low=value, high=value) for value in (0.02, 0.03, 0.04)]
    assert mean_rate(apart).half == pytest.approx(2.92 * 0.01 / math.sqrt(3), rel=1e-3), "Student's of two degrees"
    assert mean_rate(alike[:1]) == alike[0]


def test_a_share_of_the_controls_rate_has_the_errors_of_both() -> None:
    drug, control = Rate(value=0.02, low=0.017, high=0.023), Rate(value=0.04, low=0.032, high=0.048)
    share = rate_ratio(drug, control)
    assert share is not None and share.value == 0.5
    assert share.half == pytest.approx(math.hypot(0.003, 0.5 * 0.008) / 0.04)
    assert rate_ratio(drug, Rate(value=0.01, low=-0.01, high=0.03)) is None, "the control may not grow at all"
    assert rate_ratio(drug, Rate(value=0.01)) is None


def test_a_mean_count_has_no_negative_part_and_of_one_well_no_interval() -> None:
    assert mean_count([4.0]) == (4.0, None, None)
    mean, low, high = mean_count([0.0, 1.0])
    assert (mean, low) == (0.5, 0.0) and high == pytest.approx(0.5 + 6.3138 * 0.5, rel=1e-3)


def test_a_rate_of_nothing_has_no_time() -> None:
    assert Rate(value=0.0).times_h == (None, None, None)
    assert Rate(value=0.01, low=-0.01, high=0.03).times_h[1:] == (None, None), "it may be a halving as well"
