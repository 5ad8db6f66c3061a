"""Temperatures and intervals, on rows drawn from known laws."""

import numpy as np
import pytest

from cellnet.certainty.calibration import (
    calibrate_counter,
    conformal_quantile,
    count_interval,
    fit_temperature,
    nonconformity,
    parts_quantile,
    temper,
)
from cellnet.evaluation.metrics import covered, expected_calibration_error


def overconfident(n: int, temperature: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Truths drawn from known probabilities, and these sharpened by a temperature."""
    rng = np.random.default_rng(seed)
    right_NK = temper(rng.dirichlet(np.ones(4), n), 1.0)
    truth_N = np.array([rng.choice(4, p=row) for row in right_NK])
    return truth_N, temper(right_NK, 1 / temperature)


def test_the_temperature_of_sharpened_probabilities_is_found_and_calibrates_other_rows() -> None:
    temperature = fit_temperature(*overconfident(4000, 2.5, seed=0))
    assert temperature == pytest.approx(2.5, rel=0.06)
    truth_N, said_NK = overconfident(4000, 2.5, seed=1)
    assert expected_calibration_error(truth_N, said_NK) > 0.15
    assert expected_calibration_error(truth_N, temper(said_NK, temperature)) < 0.03


def test_without_a_mistake_the_temperature_never_makes_a_model_surer() -> None:
    assert fit_temperature(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]])) == pytest.approx(1, abs=1e-3)


def counts(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Poisson counts about predictions from 0 to 60."""
    rng = np.random.default_rng(seed)
    count_N = rng.uniform(0, 60, n)
    return rng.poisson(count_N).astype(float), count_N


def test_conformal_intervals_hold_nine_of_ten_further_counts_few_and_many_alike() -> None:
    quantile = conformal_quantile(nonconformity(*counts(1000, seed=0)))
    assert quantile is not None
    truth_N, count_N = counts(4000, seed=1)
    inside_N = covered(truth_N, count_interval(count_N, quantile))
    assert inside_N.mean() == pytest.approx(0.9, abs=0.02)
    assert inside_N[count_N > 40].mean() == pytest.approx(0.9, abs=0.04)


def test_few_frames_are_calibrated_by_their_parts_and_said_to_be() -> None:
    tiles = [counts(25, seed) for seed in range(4)]
    truth_F, count_F = (np.array([frame[i].sum() for frame in tiles]) for i in (0, 1))
    few = calibrate_counter(tiles, truth_F, count_F)
    assert (few.frames, few.tiles, few.frame_basis) == (4, 100, "parts of frames")
    assert few.frame_quantile == pytest.approx(1.65, rel=0.6)  # √Poisson: the 90 % of a normal law
    assert calibrate_counter(tiles * 3, np.tile(truth_F, 3), np.tile(count_F, 3)).frame_basis == "frames"


def test_two_frames_are_too_few_for_any_interval() -> None:
    tiles = [counts(25, seed) for seed in range(2)]
    assert parts_quantile(tiles) is None
    assert calibrate_counter(tiles, np.ones(2), np.ones(2)).frame_quantile is None


def test_tiles_whose_count_is_not_known_do_not_spoil_the_others() -> None:
    truth_N, count_N = counts(30, seed=0)
    unknown = (np.full(5, np.nan), np.ones(5))
    made = calibrate_counter([(truth_N, count_N), unknown], np.ones(2), np.ones(2))
    assert made.tile_quantile is not None and np.isfinite(made.tile_quantile)
