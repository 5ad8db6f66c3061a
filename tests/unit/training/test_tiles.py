"""From frames to tiles: every variant with the right pixels and the right count."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cellnet.bank.frames import Frame
from cellnet.config.bank import Intensity
from cellnet.config.choices import PAPER_SHARES
from cellnet.config.train import Augment, Preprocess
from cellnet.errors import DataError
from cellnet.images.scale import frame_at_scale
from cellnet.images.tiles import Box, cut, to_network_size
from cellnet.training.batches import Target, vary
from cellnet.training.tiles import (
    UNKNOWN_CELLS,
    Tile,
    Variants,
    count_inside,
    crop_share,
    grids_of,
    make_tiles,
    map_cells,
)
from tests.factories import frame, noise

AS_IS = Intensity(rule="range", low=0, high=255)
TURNS = (0, 90, 180, 270)


def ramps() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Two frames in which a pixel's value is its column, and its row: a crop of them tells where it was cut."""
    column_HW = np.tile(np.arange(200, dtype=np.uint8), (200, 1))
    return column_HW, column_HW.T


def tiles(item: Frame, image_HW: NDArray[np.uint8], *, seed: int = 0, label: int = 0, **choices: object) -> list[Tile]:
    variants = Variants(**({"shares": PAPER_SHARES} | choices))
    preprocess = Preprocess(tile_px=(200, 200), intensity=AS_IS)
    return list(make_tiles(item, image_HW, preprocess, variants, label=label, seed=seed))


@pytest.mark.parametrize("size", [(150, 150), (173, 173), (250, 250), (120, 180), (333, 211), (180, 260), (61, 400)])
def test_turning_before_resizing_equals_turning_after_it(size: tuple[int, int]) -> None:
    image_HW = noise(*size)
    for turns in range(4):
        before_HW = to_network_size(np.rot90(image_HW, turns)).astype(int)
        after_HW = np.rot90(to_network_size(image_HW), turns).astype(int)
        assert np.abs(before_HW - after_HW).max() <= 1


def test_turning_a_tile_that_is_not_resized_is_exact() -> None:
    image_HW = noise(200, 200)
    for turns in range(4):
        assert (to_network_size(np.rot90(image_HW, turns)) == np.rot90(to_network_size(image_HW), turns)).all()


@pytest.mark.slow
def test_an_orientation_by_chance_is_one_of_the_four_stored_ones_and_each_is_as_likely() -> None:
    stored = tiles(frame(), noise(250, 250), shares=(1.0,), orientations=TURNS)[:4]
    stored_4HW = torch.from_numpy(np.stack([tile.pixels_HW for tile in stored])).float()
    n = 2000
    generator = torch.Generator().manual_seed(0)
    upright_B1HW = stored_4HW[:1].expand(n, 1, -1, -1)
    target = Target(label_B=torch.zeros(n), count_B=torch.zeros(n))
    how, preprocess = Augment(mirror=False, jitter=0), Preprocess(tile_px=(200, 200))
    varied_BHW = vary(upright_B1HW, target, how, generator, task="count", preprocess=preprocess)[0][:, 0]
    frequency_4 = torch.stack([(varied_BHW == stored_HW).flatten(1).all(1) for stored_HW in stored_4HW]).sum(1).numpy()
    assert frequency_4.sum() == n, "every varied tile is a stored one, bit for bit, and only one"
    chi_squared = ((frequency_4 - n / 4) ** 2 / (n / 4)).sum()
    assert chi_squared < 16.27  # of four equally likely ones, exceeded once in 1,000 seeds


def test_a_tile_has_the_papers_16_variants() -> None:
    item = frame(count=20.0)
    made = tiles(item, noise(200, 200), orientations=TURNS, label=3)
    assert [(tile.share, tile.orientation) for tile in made] == [(s, o) for s in PAPER_SHARES for o in TURNS]
    assert {tile.pixels_HW.shape for tile in made} == {(200, 200)}
    assert {(tile.label, tile.frame) for tile in made} == {(3, item.frame)}


def test_the_four_orientations_are_the_same_pixels_turned_anticlockwise() -> None:
    image_HW = noise(200, 200)
    for quarter, tile in enumerate(tiles(frame(), image_HW, shares=(1.0,), orientations=TURNS)):
        assert (tile.pixels_HW == np.rot90(image_HW, quarter)).all()


def test_every_crops_count_is_the_number_of_centres_inside_it() -> None:
    centres_N2 = np.random.default_rng(5).uniform(0, 200, (60, 2))
    known = frame(centres=centres_N2.tolist(), count=60.0)
    by_column, by_row = (tiles(known, ramp_HW, seed=9) for ramp_HW in ramps())
    counts = []
    for across, down in zip(by_column, by_row, strict=True):
        left, right = int(across.pixels_HW[0, 0]), int(across.pixels_HW[0, -1])
        top, bottom = int(down.pixels_HW[0, 0]), int(down.pixels_HW[-1, 0])
        x_N, y_N = centres_N2.T
        inside_N = (x_N >= left) & (x_N < right + 1) & (y_N >= top) & (y_N < bottom + 1)
        assert (right + 1 - left) * (bottom + 1 - top) == pytest.approx(across.share * 200 * 200, rel=0.01)
        assert across.count == inside_N.sum()
        counts.append(across.count)
    assert counts[0] == 60 and 0 < counts[3] < counts[1] < 60


def test_every_crops_map_says_where_its_cells_lie_and_turns_with_it() -> None:
    centres_N2 = np.random.default_rng(5).integers(0, 200, (60, 2))
    image_HW = np.zeros((200, 200), np.uint8)
    image_HW[centres_N2[:, 1], centres_N2[:, 0]] = 255
    known = frame(centres=(centres_N2 + 0.5).tolist(), count=60.0)
    for tile in tiles(known, image_HW, orientations=TURNS):
        assert tile.cells_hw.sum() == tile.count
        if tile.share == 1:
            lit_hw = tile.pixels_HW.reshape(50, 4, 50, 4).max(axis=(1, 3)) > 0
            assert (lit_hw == (tile.cells_hw > 0)).all()


def test_where_centres_are_not_known_a_map_says_so() -> None:
    assert {int(tile.cells_hw.min()) for tile in tiles(frame(count=4.0), noise(200, 200))} == {UNKNOWN_CELLS}


def test_without_centres_the_count_is_reduced_by_the_area() -> None:
    counts = [tile.count for tile in tiles(frame(count=40.0), noise(200, 200))]
    assert counts == pytest.approx([40, 40 * 173**2 / 200**2, 40 * 141**2 / 200**2, 10])


def test_a_frame_of_unknown_count_gives_tiles_of_unknown_count() -> None:
    assert np.isnan([tile.count for tile in tiles(frame(), noise(200, 200))]).all()


def test_the_tiles_of_a_frame_share_out_its_centres() -> None:
    centres = np.random.default_rng(2).uniform(0, (600, 400), (70, 2)).tolist()
    known = frame(centres=centres, count=70.0, height=400, width=600)
    made = tiles(known, noise(400, 600), shares=(1.0,))
    assert len(made) == 6 and sum(tile.count for tile in made) == 70


@pytest.mark.parametrize("factor", [1.0, 1.373, 0.731])
def test_centres_on_the_last_edges_belong_to_the_last_pixels(factor: float) -> None:
    """As an import takes them; of a frame that is brought to another magnification, too."""
    centres = [[0, 0], [600, 5], [5, 400], [600, 400], [599.9, 399.9]]
    known = frame(centres=centres, count=5.0, height=400, width=600)
    height, width = round(400 * factor), round(600 * factor)
    boxes = cut(height, width, (200, 200))
    last = max(boxes)
    assert count_inside(known, Box(0, 0, height, width), (height, width), factor) == 5
    assert count_inside(known, last, (height, width), factor) == map_cells(known, last, factor).sum() == 2
    beyond = frame(centres=[[602 + 2 / factor, 5]], count=1.0, height=400, width=600)
    assert count_inside(beyond, Box(0, 0, height, width), (height, width), factor) == 0


@pytest.mark.parametrize(
    ("size", "number"), [((400, 600), 6), ((420, 590), 6), ((300, 450), 6), ((190, 210), 1), ((500, 200), 3)]
)
def test_the_weights_of_a_frames_tiles_add_up_to_it_however_they_overlap(size: tuple[int, int], number: int) -> None:
    item = frame(count=60.0, height=size[0], width=size[1])
    made = tiles(item, noise(*size), shifts=2, orientations=(0, 90))
    weighing = [tile for tile in made if tile.weight]
    assert len(weighing) == 2 * number and {tile.share for tile in weighing} == {1.0}
    assert [tile.weight for tile in weighing] == [tile.weight for tile in made if tile.share == 1][: 2 * number]
    for orientation in (0, 90):
        of_it = [tile for tile in weighing if tile.orientation == orientation]
        areas = [tile.count / 60 for tile in of_it]  # shares of the frame's
        assert sum(tile.weight * area for tile, area in zip(of_it, areas, strict=True)) == pytest.approx(1)


def test_shifted_tiles_lie_in_the_frame_and_a_frame_of_one_tile_has_none() -> None:
    assert len(tiles(frame(), noise(200, 200), shares=(1.0,), shifts=3)) == 1
    centres = np.random.default_rng(2).uniform(0, (600, 400), (70, 2)).tolist()
    known = frame(centres=centres, count=70.0, height=400, width=600)
    image_HW = noise(400, 600)
    made = tiles(known, image_HW, shares=(1.0,), shifts=2)
    assert len(made) == 6 + 6 * 2
    windows = np.lib.stride_tricks.sliding_window_view(image_HW, (1, 200))[:, :, 0]
    for tile in made[6:]:
        top, left = (int(axis[0]) for axis in np.nonzero((windows == tile.pixels_HW[0]).all(axis=2)))
        assert (image_HW[top : top + 200, left : left + 200] == tile.pixels_HW).all()
        assert tile.count == Box(top, left, top + 200, left + 200).centres_inside(np.float32(centres))


def test_tiles_depend_on_the_seed_and_the_frame_and_on_no_other_frame() -> None:
    one, two = frame(1, count=5.0), frame(2, count=5.0)
    image_HW = noise(200, 200)

    def pixels(*items: Frame, seed: int = 0) -> dict[str, list[bytes]]:
        return {item.frame: [t.pixels_HW.tobytes() for t in tiles(item, image_HW, seed=seed)] for item in items}

    assert pixels(one, two) == pixels(two, one) == pixels(two) | pixels(one)
    assert pixels(one)[one.frame][1:] != pixels(two)[two.frame][1:]
    assert pixels(one)[one.frame][1:] != pixels(one, seed=1)[one.frame][1:]


@pytest.mark.parametrize("share", [1.0, 0.75, 0.5, 0.25, 0.001])
def test_a_crop_stays_in_its_box(share: float) -> None:
    rng, box = np.random.default_rng(0), Box(7, 50, 38, 250)
    for _ in range(200):
        crop = crop_share(box, share, rng)
        assert box.top <= crop.top < crop.bottom <= box.bottom and box.left <= crop.left < crop.right <= box.right


def test_centres_follow_a_frame_that_was_resized() -> None:
    known = frame(centres=[[10.0, 10.0], [90.0, 90.0]], count=2.0, pixel_um=0.5, height=100, width=100)
    half = Box(0, 0, 50, 50)
    assert count_inside(known, half, (100, 100)) == 1
    assert count_inside(known, half, (50, 50), factor=0.5) == 2


@pytest.mark.parametrize(
    ("frame_um", "trained_um", "factor", "side"),
    [(0.5, 1.0, 0.5, 50), (2.0, 1.0, 2.0, 200), (1.01, 1.0, 1.0, 100), (None, 1.0, 1.0, 100), (3.0, None, 1.0, 100)],
)
def test_a_frame_is_brought_to_the_trained_pixel_size_where_both_are_known(
    frame_um: float | None, trained_um: float | None, factor: float, side: int
) -> None:
    preprocess = Preprocess(tile_px=(200, 200), pixel_um=trained_um)
    grey_HW, seen = frame_at_scale(noise(100, 100), frame_um, preprocess)
    assert seen == factor and grey_HW.shape == (side, side)


@pytest.mark.parametrize("pixel_um", [650.0, 0.1])
def test_a_pixel_size_in_the_wrong_unit_is_refused_and_not_blown_up(pixel_um: float) -> None:
    with pytest.raises(DataError, match=r"0.65 µm a pixel, more than 4× apart"):
        frame_at_scale(noise(100, 100), pixel_um, Preprocess(tile_px=(200, 200), pixel_um=0.65))


def test_a_frame_that_gives_no_tile_is_known_beforehand() -> None:
    preprocess = Preprocess(tile_px=(200, 200), pixel_um=1.0)
    sizes = [(frame(height=400, width=600), 6), (frame(height=100, width=600), 0)]
    scaled = [(frame(height=200, width=200, pixel_um=2.0), 4), (frame(height=900, width=900, pixel_um=9.0), 0)]
    frames, numbers = zip(*sizes, *scaled, strict=True)
    assert grids_of(frames, preprocess).tolist() == list(numbers)


def test_disc_counts_hold_in_every_tile(discs: Callable) -> None:
    image_HW, centres_N2 = discs(12, size=(400, 400))
    known = frame(centres=centres_N2.tolist(), count=12.0, height=400, width=400)
    for tile in tiles(known, image_HW, shares=(1.0,)):
        assert (tile.pixels_HW > 150).sum() == pytest.approx(tile.count * np.pi * 6**2, abs=60)
