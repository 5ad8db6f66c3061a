"""Outlines as COCO writes them."""

from typing import Any

import pytest

from cellnet.readers.outlines import middle_of_polygons, middle_of_runs

DISC = (
    "hTi;1]b0d0B8H8J4K6K4L4L4M2M4M2N2M4M2N2N2N2N2N2N2N2O0O2N2N2O0O2N2O0O2O0O2O0O2O000O2O0O2O00000O2O00000O2O000000000000"
    "00000O20N1000000000000000001N1000001N1000001N101N10001N101N101N101N2N101N2N2N101N2N2N2N2N2N2N2N3L3N2N3L3N3L4L4L5J5L"
    "6H8H>\\OZWh0"
)
"""A disc of radius 57 around (700, 400), by pycocotools 2.0.11."""


@pytest.mark.parametrize(
    ("polygons", "middle"),
    [
        ([[0, 0, 8, 0, 8, 2]], (4, 1)),
        ([[0, 0, 2, 2], [10, 0, 20, 2]], (10, 1)),  # a cell in two parts
        ([0, 0, 8, 0, 8, 2], (4, 1)),
        ([["0", "0", "8", "2"]], (4, 1)),
        ([], None),
        ([[]], None),
        (None, None),
        ("abc", None),
        ([[float("nan"), 1]], None),
        ([[10**400, 1]], None),
        ([{"x": 1}], None),
    ],
)
def test_the_middle_of_polygons_is_that_of_their_box(polygons: Any, middle: tuple[float, float] | None) -> None:
    assert middle_of_polygons(polygons) == middle


@pytest.mark.parametrize(
    ("counts", "middle"),
    [
        ([2, 3, 95], (0.5, 3.5)),
        ([2, 3, 7, 3, 85], (1, 3.5)),
        ([0, 100], (5, 5)),
        ([8, 4, 88], (1, 5)),  # over the end of a column: the box has its whole height
        ([100], None),
        ([], None),
        ([2, 99], None),
        ([2, -3, 101], None),
        (["a"], None),
        (7, None),
    ],
)
def test_the_middle_of_runs_is_that_of_their_box(counts: Any, middle: tuple[float, float] | None) -> None:
    assert middle_of_runs({"size": [10, 10], "counts": counts}) == middle


@pytest.mark.parametrize(
    ("size", "text", "middle"),
    [
        ([60, 80], "bh1:b10000:FF:0Vb2", (33, 20)),
        ([600, 800], DISC, (700.5, 400.5)),
        ([60, 80], "bh1:b10000:FF:0Vb", None),  # it ends within a number
        ([60, 80], "o" * 200, None),
        ([60, 80], "é", None),
        ([60, 80], "bh1 :b1", None),
    ],
)
def test_compressed_runs_are_those_that_pycocotools_writes(
    size: list[int], text: str, middle: tuple[float, float] | None
) -> None:
    assert middle_of_runs({"size": size, "counts": text}) == middle


@pytest.mark.parametrize("size", [None, [10], [0, 10], ["a", 1], [1, 2, 3], [10**400, float("inf")]])
def test_runs_without_a_size_have_no_middle(size: Any) -> None:
    assert middle_of_runs({"size": size, "counts": [2, 3, 95]}) is None
