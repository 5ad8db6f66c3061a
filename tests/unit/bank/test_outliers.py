"""What in a bank is unlike the rest, and that a bank of frames that are alike says nothing."""

import math
from dataclasses import replace
from typing import Any

import pytest

from cellnet.bank.frames import Frame
from cellnet.bank.outliers import unlike_the_rest
from tests.factories import frame


def bank(odd_n: int = 0, total: int = 40, **odd: Any) -> list[Frame]:
    """Frames that vary as those of one instrument do, the first few of them otherwise."""
    usual = [
        replace(
            frame(n, "A549", f"w{n}"), source=f"in/{n}.png", width=700, height=520, bits=8, darkest=20 + n % 7,
            brightest=190 + n % 11, sharpness=0.5 + 0.05 * math.sin(n), pixel_um=0.65,
        )
        for n in range(total)
    ]  # fmt: skip
    return [replace(one, **odd) if n < odd_n else one for n, one in enumerate(usual)]


def test_frames_that_are_alike_say_nothing() -> None:
    assert list(unlike_the_rest(bank())) == []
    assert list(unlike_the_rest([])) == []


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (
            {"width": 350, "height": 520},
            "2 of 40 frames have a size of 350×520 pixels, the others 700×520 pixels: 0.png, 1.png",
        ),
        (
            {"bits": 16, "darkest": 5200, "brightest": 49_000},
            "2 of 40 frames have a depth of 16 bits, the others 8 bits: 0.png, 1.png",
        ),
        ({"pixel_um": 0.325}, "2 of 40 frames have a pixel size of 0.325 µm, the others 0.65 µm: 0.png, 1.png"),
        (
            {"darkest": 20, "brightest": 50},
            "2 of 40 frames have far fewer or more grey values between their darkest and brightest than the others: "
            "0.png, 1.png",
        ),
        (
            {"sharpness": 1.5},
            "2 of 40 frames have far more fine detail, as of noise, than the others: 0.png, 1.png",
        ),
    ],
)
def test_a_few_frames_unlike_the_rest_are_named(odd: dict[str, Any], said: str) -> None:
    assert list(unlike_the_rest(bank(2, **odd))) == [said]


@pytest.mark.parametrize("odd", [{"width": 350}, {"bits": 16}, {"pixel_um": 0.325}, {"sharpness": 1.5}])
def test_what_is_true_of_many_is_how_the_bank_is(odd: dict[str, Any]) -> None:
    lines = [line for line in unlike_the_rest(bank(20, **odd)) if "grey values" not in line]
    assert lines == []


@pytest.mark.parametrize("odd", [{"width": 350}, {"bits": 16}, {"sharpness": 1.5}])
def test_among_few_frames_none_is_the_odd_one(odd: dict[str, Any]) -> None:
    assert list(unlike_the_rest(bank(1, total=6, **odd))) == []


def test_too_little_detail_is_told_by_focus_alone() -> None:
    assert list(unlike_the_rest(bank(2, sharpness=0.15))) == []


def test_frames_of_an_earlier_import_have_no_sharpness_and_are_not_named() -> None:
    assert list(unlike_the_rest(bank(4, sharpness=None))) == []


@pytest.mark.parametrize(("n", "verb"), [(1, "1 of 40 frames has"), (30, "30 of 40 frames have")])
def test_pixel_sizes_that_some_frames_lack_are_told(n: int, verb: str) -> None:
    [line] = unlike_the_rest(bank(n, pixel_um=None))
    assert line.startswith(f"{verb} no pixel size, the others have: 0.png") and line.endswith("in a manifest")


def test_lineages_in_several_spellings_are_told_and_treatments_are_not() -> None:
    names = ["A549", "a549", "A-549", "T-47D", "T47D", "HeLa S3", "HELA_S3", "A172+", "A172-", "A172", "MCF7", "MCF10A"]
    lines = list(unlike_the_rest([replace(one, lineage=names[n % 12]) for n, one in enumerate(bank())]))
    assert [line.partition(" may be")[0] for line in lines] == [
        "A-549 and A549 and a549", "T-47D and T47D", "HELA_S3 and HeLa S3"
    ]  # fmt: skip


def test_points_in_a_corner_may_be_micrometres() -> None:
    um = [[x * 0.325, y * 0.325] for x, y in ((700, 100), (300, 520), (20, 30), (600, 300), (500, 500), (100, 400))]
    [line] = unlike_the_rest(bank(2, centres=um))
    assert line == (
        "all 12 centres of cells lie in the upper left 32% of their frames; are they in micrometres? They are taken "
        "for pixels"
    )
    assert list(unlike_the_rest(bank(2, centres=[[690.0, 500.0], [10.0, 10.0]]))) == []
    assert list(unlike_the_rest(bank(1, centres=[[100.0, 100.0]]))) == [], "a single cell lies anywhere"
