"""Tiles moved: pictures and maps of cells alike."""

import pytest
import torch

from cellnet.training.instrument import move, move_cells, source_of


@pytest.mark.parametrize("quarter", [0, 1, 2, 3])
def test_a_quarter_turn_is_the_one_that_orientations_have(quarter: int) -> None:
    chance = torch.Generator().manual_seed(0)
    images_B1HW = torch.randn(3, 1, 20, 20, generator=chance)
    cells_Bhw = torch.randint(3, (3, 10, 10), generator=chance).float()
    source_B22 = source_of(torch.full((3,), 90.0 * quarter), torch.ones(3))
    assert torch.allclose(move(images_B1HW, source_B22), images_B1HW.rot90(quarter, (2, 3)), atol=1e-4)
    assert torch.equal(move_cells(cells_Bhw, source_B22), cells_Bhw.rot90(quarter, (1, 2)))


def test_magnified_twice_the_middle_half_is_seen_and_made_half_as_large_all_is_seen_four_times() -> None:
    cells_Bhw = torch.zeros(1, 8, 8)
    cells_Bhw[0, 3, 4] = 2  # in the middle half
    cells_Bhw[0, 0, 7] = 1  # in a corner
    larger_Bhw, smaller_Bhw = (
        move_cells(cells_Bhw, source_of(torch.zeros(1), torch.tensor([factor]))) for factor in (2.0, 0.5)
    )
    assert float(larger_Bhw.sum()) == 2 and float(smaller_Bhw.sum()) == 4 * 3, "each also in three mirrors"
    assert float(smaller_Bhw[0, 2:6, 2:6].sum()) == 3


def test_every_tile_is_moved_by_what_was_drawn_for_it() -> None:
    images_B1HW = torch.randn(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    moved_B1HW = move(images_B1HW, source_of(torch.tensor([0.0, 180.0]), torch.ones(2)))
    assert torch.allclose(moved_B1HW[0], images_B1HW[0], atol=1e-4)
    assert torch.allclose(moved_B1HW[1], images_B1HW[1].flip(1, 2), atol=1e-4)
