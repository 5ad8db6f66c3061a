"""Scores of batches that a model learned from beside those of new ones, and of young and of old cells."""

import itertools

import numpy as np
import pytest

from cellnet.evaluation.batches import Answered, age_bins, by_age, by_batch, next_plate
from cellnet.evaluation.metrics import Rows
from cellnet.registry.learned import UNMEASURED


def counted(errors: list[float], *, tiles: int = 2) -> Answered:
    """A frame in a well of its own for each error, which lies in its first tile; 10 cells in every tile."""
    tile_truth = np.full(len(errors) * tiles, 10.0)
    tile_output = tile_truth.copy()
    tile_output[::tiles] += errors
    wells = [f"w{n}" for n in range(len(errors))]
    frame_rows, tile_rows = (
        Rows(
            truth=truth,
            output=output,
            lineages=["A549"] * len(truth),
            groups=list(np.repeat(wells, len(truth) // len(wells))),
            interval=np.stack([output - 1, output + 1], axis=1),
            unfamiliar=output > truth,
        )
        for truth, output in (
            (tile_truth.reshape(-1, tiles).sum(1), tile_output.reshape(-1, tiles).sum(1)),
            (tile_truth, tile_output),
        )
    )
    return Answered(task="count", classes=[], tiles=tile_rows, frames=frame_rows, tiles_of=[tiles] * len(errors))


def test_each_column_is_scored_over_its_own_frames_and_tiles() -> None:
    columns = by_batch(counted([1.0, 4.0, 3.0, 100.0]), ["same", "new", "same", None])
    same, new = columns["same"], columns["new"]
    assert list(columns) == ["same", "new"] and same is not None and new is not None
    assert (same["frame"]["n"], same["frame"]["mae"], same["tile"]["n"], same["tile"]["mae"]) == (2, 2.0, 4, 1.0)
    assert (new["frame"]["n"], new["frame"]["mae"], new["tile"]["mae"]) == (1, 4.0, 2.0)
    assert same["frame"]["mae_interval"] == [1.0, 3.0], "over wells"
    assert (same["frame"]["coverage"], same["tile"]["unfamiliar"]) == (0.5, 0.5)


def test_a_column_without_frames_is_none_and_without_a_new_one_the_next_plate_is_unmeasured() -> None:
    same = by_batch(counted([1.0, 2.0]), ["same", None])
    neither = by_batch(counted([1.0, 2.0]), [None, None])
    new = by_batch(counted([1.0, 2.0]), ["new", None])
    assert same["new"] is None and same["same"] is not None
    assert neither == {"same": None, "new": None}
    assert [next_plate({"batches": columns}) for columns in (same, neither, new)] == [UNMEASURED, UNMEASURED, ""]
    assert next_plate({}) == "" and UNMEASURED.startswith("the next plate is unmeasured")


def test_classifiers_have_columns_too() -> None:
    output = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    rows = Rows(truth=np.array([0, 1, 1]), output=output, lineages=["3T3", "A549", "A549"], groups=list("abc"))
    answered = Answered(task="classify", classes=["3T3", "A549"], tiles=rows, frames=rows, tiles_of=[1, 1, 1])
    columns = by_batch(answered, ["same", "same", "new"])
    assert columns["same"] and columns["same"]["frame"]["accuracy"] == 1
    assert columns["new"] and columns["new"]["frame"]["confusion"] == [[0, 0], [1, 0]]


def test_ages_are_scored_in_bins_with_their_ends() -> None:
    young, old = by_age(counted([1.0, 3.0, 7.0, 5.0, 100.0]), [0.0, 24.0, 96.0, 48.0, None])
    assert (young["from"], young["to"], young["frame"]["mae"], young["tile"]["n"]) == (0.0, 24.0, 2.0, 4)
    assert (old["from"], old["to"], old["frame"]["mae"]) == (48.0, 96.0, 6.0)
    assert by_age(counted([1.0, 2.0]), [None, 3.0]) == by_age(counted([1.0]), [None]) == []


@pytest.mark.parametrize(
    ("hours", "sizes"),
    [
        ([5.0], []),
        ([5.0, 6.0], [2]),
        ([1.0, 2.0, 3.0], [3]),
        (list(range(20)), [5, 5, 5, 5]),
        (list(range(9)), [3, 2, 2, 2]),
        ([0.0, 0.0, 0.0, 0.0, 5.0], [5]),
        ([0.0, 5.0, 5.0, 5.0, 5.0, 5.0], [6]),
        ([7.0] * 12, [12]),
        ([0.0, 0.0, 5.0, 5.0, np.nan, 5.0, 9.0, 9.0], [5, 2]),
    ],
)
def test_a_bin_of_age_holds_two_frames_at_least_and_frames_of_one_age_together(
    hours: list[float], sizes: list[int]
) -> None:
    hours_N = np.array(hours, np.float64)
    bins = age_bins(hours_N)
    assert [int(chosen.sum()) for chosen in bins] == sizes
    ends = [(hours_N[chosen].min(), hours_N[chosen].max()) for chosen in bins]
    assert all(before[1] < after[0] for before, after in itertools.pairwise(ends))
