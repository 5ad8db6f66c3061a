"""Scale, offset and intervals of a plate by a few counted frames, on plates drawn from known laws."""

import numpy as np
import pytest

from cellnet.certainty.calibration import Calibration, nonconformity
from cellnet.certainty.recount import CountedTiles, fit_recount
from cellnet.errors import DataError
from cellnet.evaluation.metrics import covered

BEFORE = Calibration(tiles=90, frames=10, tile_quantile=1.0, frame_quantile=1.645, frame_basis="frames")
"""Of a counter whose errors are as those of a Poisson count."""
TILES = 9


def frames_of(
    rng: np.random.Generator, frames: int, *, scale: float, offset: float = 0.0, spread: float = 0.0
) -> list[CountedTiles]:
    """Frames of few and of many cells, of which the network counts more or fewer than are there."""
    made = []
    for cells in rng.lognormal(4, 0.8, frames):
        count_N = rng.gamma(4, cells / 4 / TILES, TILES).astype(np.float32)
        mean = float(np.maximum(scale * count_N + offset, 0).sum())
        truth = max(mean + spread * (mean + 1) ** 0.5 * rng.normal(), 0)
        made.append(CountedTiles(truth=truth, count_N=count_N, weight_N=np.ones(TILES)))
    return made


def told(calibration: Calibration, frames: list[CountedTiles]) -> np.ndarray:
    return np.array([float(calibration.recounted(frame.count_N).sum()) for frame in frames])


def held(calibration: Calibration, frames: list[CountedTiles]) -> float:
    """The share of frames whose true count is in its interval."""
    intervals = [calibration.frame_interval(count, TILES) for count in told(calibration, frames)]
    return float(covered(np.array([frame.truth for frame in frames]), np.array(intervals)).mean())


def test_frames_that_the_counter_counts_right_leave_it_as_it_was() -> None:
    fitted = fit_recount(frames_of(np.random.default_rng(0), 5, scale=1), BEFORE)
    assert (fitted.scale, fitted.offset) == pytest.approx((1, 0), abs=0.01)
    assert (fitted.frames, fitted.tiles, fitted.frame_basis, fitted.tile_quantile) == (5, 45, "counted frames", None)


@pytest.mark.parametrize("frames", [3, 5])
@pytest.mark.parametrize("scale", [0.4, 1.6, 2.5])
def test_the_scale_of_a_plate_is_found(scale: float, frames: int) -> None:
    plate = frames_of(np.random.default_rng(frames), frames, scale=scale)
    assert fit_recount(plate, BEFORE).scale == pytest.approx(scale, rel=0.05)


@pytest.mark.parametrize("offset", [-0.7, 0.5])
def test_cells_that_the_network_finds_in_empty_tiles_are_taken_off(offset: float) -> None:
    fitted = fit_recount(frames_of(np.random.default_rng(1), 5, scale=1, offset=offset), BEFORE)
    assert (fitted.offset, fitted.scale) == pytest.approx((offset, 1), abs=0.1)
    assert fitted.recounted(np.zeros(2, np.float32)).tolist() == pytest.approx([max(offset, 0)] * 2, abs=0.1)


def test_of_frames_that_are_all_alike_it_is_the_scale_that_is_wrong_and_not_empty_frames() -> None:
    count_N = np.full(TILES, 100 / TILES, np.float32)
    alike = [CountedTiles(truth=60 + n, count_N=count_N, weight_N=np.ones(TILES)) for n in range(5)]
    fitted = fit_recount(alike, BEFORE)
    assert told(fitted, alike) == pytest.approx(62, abs=1)
    assert abs(fitted.offset) * TILES < 2 and fitted.scale == pytest.approx(0.62, abs=0.02)


def test_few_frames_that_err_like_the_counter_always_did_move_little() -> None:
    moved = [
        abs(fit_recount(frames_of(np.random.default_rng(seed), 3, scale=1, spread=1), BEFORE).scale - 1)
        for seed in range(50)
    ]
    assert np.mean(moved) < 0.1


def test_no_count_and_no_interval_is_below_0() -> None:
    fitted = Calibration(tiles=5, frames=5, frame_quantile=2, scale=1, offset=-3, doubt=(0, 0, 1))
    assert fitted.recounted(np.array([1, 5], np.float32)).tolist() == [0, 2]
    assert fitted.frame_interval(2.0, 2)[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("frames", [3, 5])
def test_intervals_hold_nine_of_ten_further_frames_of_plates_of_any_gain_offset_and_spread(frames: int) -> None:
    shares = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        plate = {"scale": rng.lognormal(0, 0.3), "offset": rng.normal(0, 0.3), "spread": 0.5 * 10 ** rng.uniform()}
        fitted = fit_recount(frames_of(rng, frames, **plate), BEFORE)
        shares.append(held(fitted, frames_of(rng, 30, **plate)))
    assert 0.85 <= np.mean(shares) <= 0.95


def test_intervals_of_frames_with_more_cells_than_any_that_was_counted_are_wider_than_their_spread() -> None:
    plate = frames_of(np.random.default_rng(2), 5, scale=1.5, spread=2)
    fitted = fit_recount(plate, BEFORE)
    half_few, half_many = (fitted.frame_interval(count, TILES)[1] - count for count in (50.0, 5000.0))
    assert half_many > 1.5 * half_few * (5001 / 51) ** 0.5


@pytest.mark.slow
def test_what_is_not_known_is_the_variance_of_the_fit_to_other_frames_of_the_plate() -> None:
    """Of counts of frames that 1,000 fits to other frames of it make, in units of their spread."""
    counts, doubts = [], []
    one = CountedTiles(truth=0, count_N=np.full(TILES, 20, np.float32), weight_N=np.ones(TILES))
    for seed in range(1000):
        fitted = fit_recount(frames_of(np.random.default_rng(seed), 5, scale=1, spread=1), BEFORE)
        [count] = told(fitted, [one])
        square, product, area = fitted.doubt
        counts.append(count)
        doubts.append(square * count**2 + product * count * TILES + area * TILES**2)
    assert np.mean(doubts) == pytest.approx(np.var(counts), rel=0.35)


def test_a_network_that_does_not_see_the_cells_is_not_scaled() -> None:
    blind = [CountedTiles(truth=300, count_N=np.full(1, 0.1, np.float32), weight_N=np.ones(1))] * 5
    with pytest.raises(DataError, match=r"a frame has 300 cells where the network finds 0\.1, .* or train with"):
        fit_recount(blind, BEFORE)


def test_a_plate_with_hardly_a_cell_is_told_so_where_the_network_finds_many() -> None:
    found, weight_N = (30, 41, 32, 48, 61), np.ones(1)
    debris = [CountedTiles(truth=n, count_N=np.full(1, found[n], np.float32), weight_N=weight_N) for n in range(5)]
    fitted = fit_recount(debris, BEFORE)
    low, high = fitted.frame_interval(*told(fitted, debris)[2:3], 1)
    assert low == 0 and 2 < high < 15


def test_frames_without_any_cells_are_refused() -> None:
    empty = [CountedTiles(truth=0, count_N=np.ones(1, np.float32), weight_N=np.ones(1))] * 3
    with pytest.raises(DataError, match=r"all frames were counted 0, .*; count some of those too"):
        fit_recount(empty, BEFORE)


def test_a_version_without_intervals_is_taken_for_one_whose_counts_are_poisson() -> None:
    plate = frames_of(np.random.default_rng(3), 5, scale=1.3, spread=1)
    without = fit_recount(plate, Calibration(tiles=0, frames=0))
    assert without.frame_quantile == pytest.approx(fit_recount(plate, BEFORE).frame_quantile, rel=0.01)
    error = nonconformity(np.array([frame.truth for frame in plate]), told(without, plate))
    assert error.max() < without.frame_quantile
