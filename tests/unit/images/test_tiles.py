"""Where a frame is cut, and that every pixel counts once."""

import numpy as np
import pytest

from cellnet.errors import DataError
from cellnet.images.tiles import Box, cut, to_network_size
from tests.factories import noise


@pytest.mark.parametrize(
    ("length", "spans"),
    [
        (182, [(0, 182)]),  # 200 / 1.1 = 181.8: within the tolerance
        (200, [(0, 200)]),
        (220, [(0, 220)]),  # just within
        (221, [(0, 200), (21, 221)]),  # just beyond: two of the exact size
        (300, [(0, 200), (100, 300)]),
        (363, [(0, 200), (163, 363)]),
        (365, [(0, 182), (182, 365)]),  # an odd length: one tile is a pixel longer
        (400, [(0, 200), (200, 400)]),
        (600, [(0, 200), (200, 400), (400, 600)]),
    ],
)
def test_a_frame_is_divided_where_it_nearly_divides_and_else_covered(length: int, spans: list[tuple[int, int]]) -> None:
    assert [(box.left, box.right) for box in cut(200, length, (200, 200))] == spans
    assert [(box.top, box.bottom) for box in cut(length, 200, (200, 200))] == spans


@pytest.mark.parametrize("size", [(181, 200), (200, 181), (1, 2000), (1, 1)])
def test_a_frame_smaller_than_a_tile_is_refused_with_both_sizes(size: tuple[int, int]) -> None:
    with pytest.raises(DataError, match=rf"{size[1]}×{size[0]} pixels, smaller than the 200×200"):
        cut(*size, (200, 200))


def test_tiles_cover_every_pixel_and_weigh_as_much_as_the_frame() -> None:
    for height, width, tile_px in [(221, 365, (200, 200)), (1080, 1080, (200, 200)), (999, 431, (97, 211))] + [
        (side, 3 * side + 1, (side - 5, side + 3)) for side in range(60, 400, 7)
    ]:
        covered_HW = np.zeros((height, width))
        for box in cut(height, width, tile_px):
            covered_HW[box.top : box.bottom, box.left : box.right] += 1
        area = sum(box.weight * (box.bottom - box.top) * (box.right - box.left) for box in cut(height, width, tile_px))
        assert covered_HW.min() >= 1
        assert area == pytest.approx(height * width)


def test_a_frame_of_more_tiles_than_can_be_looked_at_is_refused() -> None:
    with pytest.raises(DataError, match="2000×2000 pixels, 4,000,000 tiles of 1×1, more than the 50,000"):
        cut(2000, 2000, (1, 1))


def test_a_centre_on_a_border_belongs_to_one_tile_only() -> None:
    left, right = Box(0, 0, 10, 10), Box(0, 10, 10, 20)
    centres_N2 = np.array([[10, 5], [9.9, 5], [0, 0], [20, 5]], np.float32)
    assert (left.centres_inside(centres_N2), right.centres_inside(centres_N2)) == (2, 1)


def test_a_tile_of_the_networks_size_is_not_resampled() -> None:
    tile_HW = noise(200, 200)
    assert (to_network_size(tile_HW) == tile_HW).all()
