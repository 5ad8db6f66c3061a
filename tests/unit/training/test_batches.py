"""Batches as a network sees them: turned, mirrored and lit as the configuration says, and in no other way."""

import pytest
import torch
from torch import Tensor

from cellnet.config.train import Augment
from cellnet.networks.views import views_of
from cellnet.training.batches import Target, vary


def varied(tiles_B1HW: Tensor, augment: Augment, *, seed: int = 0) -> Tensor:
    """Variants drawn of tiles of which nothing is known."""
    target = Target(torch.full((len(tiles_B1HW),), -1), torch.full((len(tiles_B1HW),), torch.nan))
    return vary(tiles_B1HW, target, augment, torch.Generator().manual_seed(seed))[0]


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
