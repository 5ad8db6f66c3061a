"""The paper's protocol: chance over tiles, which puts one frame on all sides, and a kernel that tells the lineage."""

import numpy as np
import pytest

from cellnet.bank.frames import Frame
from cellnet.config.choices import Kernel, Split
from cellnet.config.train import TrainConfig
from cellnet.config.tune import TuneConfig
from cellnet.images.pixels import apply_kernel
from cellnet.training.protocols import Paper
from cellnet.training.tiles import Tile
from tests.factories import frame

SPLITS: tuple[Split, ...] = ("train", "test", "holdout")


def turned_tiles(n: int) -> list[Tile]:
    """Tiles of noise, turned as `make_tiles` turns them."""
    rng = np.random.default_rng(0)
    made = [np.rot90(rng.integers(0, 256, (200, 200), np.uint8)) for _ in range(n)]
    known = {"label": 0, "count": 1.0, "cells_hw": np.zeros((50, 50), np.uint8), "frame": "f"}
    return [Tile(pixels_HW=pixels_HW, orientation=90, share=1.0, weight=1.0, **known) for pixels_HW in made]


def split_by_chance(of: Frame, made: list[Tile], *, kernel: Kernel = "none", seed: int = 0) -> dict[Split, list[bytes]]:
    """The pixels of every split."""
    paper = Paper(holdout_share=0.1, test_share=0.3, kernel=kernel, filtered=frozenset({"A549"}), seed=seed)
    return {split: [tile.pixels_HW.tobytes() for tile in paper.of_split(made, of, split)] for split in SPLITS}


def test_every_tile_comes_into_one_split_in_the_papers_shares() -> None:
    made = turned_tiles(800)
    sides = split_by_chance(frame(1), made)
    together = [pixels for side in sides.values() for pixels in side]
    assert sorted(together) == sorted(tile.pixels_HW.tobytes() for tile in made)
    shares = {split: len(side) / len(made) for split, side in sides.items()}
    assert shares == pytest.approx({"train": 0.63, "test": 0.27, "holdout": 0.1}, abs=0.05)


def test_the_split_depends_on_the_seed_and_the_frame() -> None:
    made = turned_tiles(50)
    assert split_by_chance(frame(1), made) == split_by_chance(frame(1), made)
    assert split_by_chance(frame(1), made) != split_by_chance(frame(2), made)
    assert split_by_chance(frame(1), made) != split_by_chance(frame(1), made, seed=1)


@pytest.mark.parametrize(("lineage", "kernel"), [("A549", "sharpen"), ("3T3", "none"), (None, "none")])
def test_the_kernel_is_put_on_by_the_true_lineage(lineage: str | None, kernel: Kernel) -> None:
    made = turned_tiles(20)
    sides = split_by_chance(frame(1, lineage), made, kernel="sharpen")
    wanted = [apply_kernel(np.ascontiguousarray(tile.pixels_HW), kernel).tobytes() for tile in made]
    assert sorted(pixels for side in sides.values() for pixels in side) == sorted(wanted)


def test_a_search_is_not_steered_by_a_split_that_leaks() -> None:
    with pytest.raises(ValueError, match="leaks under protocol=paper"):
        TuneConfig(train=TrainConfig(task="classify", protocol="paper"))
