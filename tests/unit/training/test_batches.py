"""Batches as a network sees them: turned, mirrored and lit as the configuration says, and in no other way."""

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from cellnet.config.choices import MAP_SIDE
from cellnet.config.train import AS_RECORDED, Augment, Preprocess
from cellnet.networks.views import views_of
from cellnet.tasks import Task
from cellnet.training.batches import Target, as_another, vary

GREY = Preprocess(tile_px=(200, 200), mean=0.0, std=1.0)
"""Network input is the grey value."""


def varied_with(
    tiles_B1HW: Tensor, target: Target, augment: Augment, *, task: Task = "count", seed: int = 0
) -> tuple[Tensor, Target]:
    """Variants drawn of tiles, and what is then true of them."""
    chance = torch.Generator().manual_seed(seed)
    return vary(tiles_B1HW, target, augment, chance, task=task, preprocess=GREY)


def varied(tiles_B1HW: Tensor, augment: Augment, *, seed: int = 0) -> Tensor:
    """Variants drawn of a classifier's tiles, whose counts it does not ask for."""
    target = Target(torch.full((len(tiles_B1HW),), 0), torch.full((len(tiles_B1HW),), 7.0))
    return varied_with(tiles_B1HW, target, augment, task="classify", seed=seed)[0]


def only(**asked: float) -> Augment:
    """What is drawn is this alone."""
    return Augment(orientation="stored", mirror=False, jitter=0, **asked)


def dots(tiles: int, cells: int) -> tuple[Tensor, Target]:
    """Dark tiles with bright dots of a pixel or two, each in the middle of a field, no two in fields side by side."""
    rng = np.random.default_rng(0)
    cells_Bhw = np.zeros((tiles, MAP_SIDE, MAP_SIDE), np.float32)
    for cells_hw in cells_Bhw:
        rows, columns = np.unravel_index(rng.permutation(25 * 25)[:cells], (25, 25))
        cells_hw[2 * rows + rng.integers(2), 2 * columns + rng.integers(2)] = 1
    image_BHW = np.kron(cells_Bhw, np.pad(np.ones((2, 2), np.float32), 1))
    count_B = torch.full((tiles,), float(cells))
    return torch.from_numpy(image_BHW)[:, None], Target(torch.full((tiles,), -1), count_B, torch.from_numpy(cells_Bhw))


def dots_seen(image_1HW: Tensor) -> int:
    """How many separate bright spots a picture shows."""
    bright_HW = (image_1HW[0].numpy() > 0.25).astype(np.uint8)
    return cv2.connectedComponents(bright_HW, connectivity=8)[0] - 1


def test_turning_and_mirroring_keep_every_tiles_pixels() -> None:
    tiles_B1HW = torch.randn(16, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    drawn_B1HW = varied(tiles_B1HW, Augment(jitter=0), seed=1)
    same = [[tile.rot90(n, (1, 2)) for n in range(4)] for tile in tiles_B1HW]
    variants = [turned + [tile.flip(2) for tile in turned] for turned in same]
    drawn = [
        next(number for number, variant in enumerate(of_it) if torch.equal(tile, variant))
        for tile, of_it in zip(drawn_B1HW, variants, strict=True)
    ]
    assert len(set(drawn)) > 4  # of eight, among 16 tiles


@pytest.mark.parametrize(("stored", "mirror"), [("stored", False), ("stored", True), ("drawn", False)])
def test_only_what_the_configuration_asks_for_is_drawn(stored: str, mirror: bool) -> None:
    tiles_B1HW = torch.arange(400.0).reshape(1, 1, 20, 20).repeat(32, 1, 1, 1)
    augment = Augment(orientation=stored, mirror=mirror, jitter=0)
    corners = {float(tile[0, 0, 0]) for tile in varied(tiles_B1HW, augment)}
    wanted = {0.0} if stored == "stored" else {0.0, 19.0, 380.0, 399.0}
    assert corners == (wanted | {19.0} if mirror else wanted)


def test_jitter_changes_contrast_and_brightness_within_its_bounds() -> None:
    tiles_B1HW = torch.tensor([-1.0, 1.0]).reshape(1, 1, 1, 2).repeat(200, 1, 1, 1)
    augment = Augment(orientation="stored", mirror=False, jitter=0.2)
    low_B, high_B = varied(tiles_B1HW, augment).reshape(200, 2).T
    factor_B, shift_B = (high_B - low_B) / 2, (high_B + low_B) / 2
    assert 0.8 <= factor_B.min() < 0.82 and 1.18 < factor_B.max() <= 1.2
    assert -0.2 <= shift_B.min() < -0.18 and 0.18 < shift_B.max() <= 0.2


def test_eight_views_are_the_eight_orientations_of_a_tile() -> None:
    tile_11HW = torch.randn(1, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    assert [torch.equal(view, tile_11HW) for view in views_of(tile_11HW, 1)] == [True]
    seen = {tuple(view.flatten().tolist()) for view in views_of(tile_11HW, 8)}
    turned = [torch.rot90(tile_11HW, quarter, (2, 3)) for quarter in range(4)]
    assert seen == {tuple(view.flatten().tolist()) for tile in turned for view in (tile, tile.flip(3))}
    assert len(seen) == 8


def test_at_any_angle_and_magnification_a_counters_truth_is_what_is_then_seen() -> None:
    tiles_B1HW, target = dots(60, 30)
    moved_B1HW, now = varied_with(tiles_B1HW, target, only(rotation=180, scale=1.25))
    assert now.cells_Bhw is not None and torch.equal(now.count_B, now.cells_Bhw.sum(dim=(1, 2)))
    seen_B = np.array([dots_seen(tile) for tile in moved_B1HW])
    error_B = (now.count_B.numpy() - seen_B)[(moved_B1HW != tiles_B1HW).flatten(1).any(1).numpy()]
    assert abs(error_B.mean()) < 1 and np.abs(error_B).max() <= 4, "but for dots that the border cuts"
    assert now.count_B.min() < 25 and now.count_B.max() > 35, "fewer where it is magnified, more where it is not"
    assert (now.cells_Bhw == now.cells_Bhw.round()).all(), "every cell is whole"
    spots_Bhw = torch.nn.functional.max_pool2d(moved_B1HW, 4)
    around_Bhw = torch.nn.functional.max_pool2d(spots_Bhw, 3, 1, 1)[:, 0]
    assert (around_Bhw[now.cells_Bhw > 0] > 0.25).float().mean() > 0.99, "cells are where their dots are"


def test_half_of_the_tiles_stay_as_they_are_when_they_are_asked_about() -> None:
    tiles_B1HW, target = dots(9, 30)
    for augment in (only(rotation=180), only(scale=1.25), only(blur=2)):
        changed_B1HW, now = varied_with(tiles_B1HW, target, augment)
        same_B = (changed_B1HW == tiles_B1HW).flatten(1).all(1)
        assert 4 <= same_B.sum() <= 6
        assert now.cells_Bhw is not None and target.cells_Bhw is not None
        assert torch.equal(now.cells_Bhw[same_B], target.cells_Bhw[same_B])


def test_all_tiles_that_another_instrument_is_to_record_are_recorded_by_it() -> None:
    torch.manual_seed(0)
    tiles_B1HW = torch.rand(5, 1, 200, 200)
    chance = (torch.Generator().manual_seed(3) for _ in range(2))
    once, again = (as_another(tiles_B1HW, Augment(blur=2.0, rotation=180), one, GREY) for one in chance)
    assert torch.equal(once, again) and bool(((once - tiles_B1HW).abs().mean(dim=(1, 2, 3)) > 0.05).all())
    only_turned = as_another(tiles_B1HW, only(rotation=0, scale=1, noise=0.01), torch.Generator().manual_seed(3), GREY)
    assert float((only_turned - tiles_B1HW).abs().max()) < 0.1, "nothing else is drawn"


def test_a_tile_whose_cells_are_counted_but_not_placed_is_not_moved() -> None:
    tiles_B1HW, target = dots(8, 30)
    assert target.cells_Bhw is not None
    cells_Bhw = target.cells_Bhw.clone()
    cells_Bhw[::2] = torch.nan
    augment = only(rotation=180, scale=1.25)
    moved_B1HW, now = varied_with(tiles_B1HW, target._replace(cells_Bhw=cells_Bhw), augment)
    same_B = (moved_B1HW == tiles_B1HW).flatten(1).all(1)
    assert same_B[::2].all() and not same_B[1::2].all()
    assert (now.count_B[same_B] == 30).all() and now.cells_Bhw is not None and now.cells_Bhw[::2].isnan().all()
    without_places_B1HW, now = varied_with(tiles_B1HW, target._replace(cells_Bhw=None), augment)
    assert torch.equal(without_places_B1HW, tiles_B1HW) and torch.equal(now.count_B, target.count_B)
    assert not torch.equal(varied(tiles_B1HW, augment), tiles_B1HW), "a classifier's tiles are moved in any case"


def test_what_comes_in_at_the_corners_is_mirrored_at_the_border() -> None:
    slope_HW = torch.linspace(0.2, 0.8, 200).expand(200, 200)
    tiles_B1HW = slope_HW[None, None].repeat(16, 1, 1, 1)
    moved_B1HW = varied(tiles_B1HW, only(rotation=180, scale=1.25))
    assert moved_B1HW.min() >= 0.2 - 1e-4 and moved_B1HW.max() <= 0.8 + 1e-4, "nothing black or blank"


def test_blur_spreads_a_dot_as_far_as_it_says_and_keeps_its_light() -> None:
    tiles_B1HW = torch.zeros(400, 1, 41, 41)
    tiles_B1HW[:, 0, 20, 20] = 1
    blurred_BHW = varied(tiles_B1HW, only(blur=2.0))[:, 0]
    assert torch.allclose(blurred_BHW.sum(dim=(1, 2)), torch.ones(400), atol=1e-4)
    away_W = torch.arange(41.0) - 20
    variance_2B = torch.stack([(blurred_BHW.sum(axis) * away_W**2).sum(1) for axis in (1, 2)])
    assert torch.allclose(variance_2B[0], variance_2B[1], atol=1e-4), "across as down"
    sigma_B = variance_2B[0].sqrt()
    assert 1.9 < sigma_B.max() <= 2.0 and 0.9 < sigma_B[sigma_B > 0.3].mean() < 1.4, "of each tile its own"


def test_light_is_uneven_within_its_bounds() -> None:
    grey_B1HW = torch.full((400, 1, 20, 20), 0.5)
    light_BHW = varied(grey_B1HW, only(shading=0.3))[:, 0] / 0.5
    assert 0.7 <= light_BHW.min() < 0.75 and 1.25 < light_BHW.max() <= 1.3
    spread_B = light_BHW.amax(dim=(1, 2)) - light_BHW.amin(dim=(1, 2))
    assert 0.3 < spread_B.max() <= 0.6 and abs(float(light_BHW.mean()) - 1) < 0.02


def test_gamma_is_of_grey_values_whatever_the_network_takes() -> None:
    preprocess = Preprocess(tile_px=(200, 200), mean=0.4, std=0.2)
    tiles_B1HW = torch.full((400, 1, 2, 2), (0.25 - 0.4) / 0.2)
    target = Target(torch.zeros(400), torch.zeros(400))
    chance = torch.Generator().manual_seed(0)
    seen_B1HW = vary(tiles_B1HW, target, only(gamma=2), chance, task="classify", preprocess=preprocess)[0]
    grey_B = seen_B1HW[:, 0, 0, 0] * 0.2 + 0.4
    assert grey_B.min() == pytest.approx(0.25**2, abs=0.005) and grey_B.max() == pytest.approx(0.25**0.5, abs=0.005)
    darker, brighter = (float(part_B.float().mean()) for part_B in (grey_B < 0.249, grey_B > 0.251))
    assert darker == pytest.approx(0.25, abs=0.05) == brighter, "half as they were"


def test_noise_is_of_each_tiles_own_strength_and_pattern() -> None:
    noise_BHW = varied(torch.zeros(128, 1, 50, 50), only(noise=0.1))[:, 0]
    noise_BHW = noise_BHW[noise_BHW.flatten(1).any(1)]
    sigma_B = noise_BHW.std(dim=(1, 2))
    assert 0.09 < sigma_B.max() < 0.105 and sigma_B.min() < 0.01 and abs(float(noise_BHW.mean())) < 0.01
    alike_BB = torch.corrcoef(noise_BHW.flatten(1)) - torch.eye(len(noise_BHW))
    assert alike_BB.abs().max() < 0.12


def test_the_same_seed_draws_the_same_and_what_is_off_draws_nothing() -> None:
    tiles_B1HW, target = dots(6, 10)
    all_of_it = Augment(rotation=180, scale=1.25, blur=2, shading=0.3, gamma=1.25, noise=0.03)
    first, again, other = (varied_with(tiles_B1HW, target, all_of_it, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1].count_B, again[1].count_B)
    assert not torch.equal(first[0], other[0])
    before, off = (varied_with(tiles_B1HW, target, augment)[0] for augment in (Augment(), Augment(**AS_RECORDED)))
    assert torch.equal(before, off), "a training without is the one of before there was any"
    assert first[0].isfinite().all() and torch.equal(tiles_B1HW, dots(6, 10)[0]), "what is given stays as it was"
