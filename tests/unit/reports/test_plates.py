"""What is said of a well, and the picture of a plate."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from cellnet.images.wells import Well
from cellnet.prediction.answers import Prediction
from cellnet.reports.plates import (
    ABOVE_IN,
    ASIDE_IN,
    DPI,
    LEGEND_IN,
    ROWS_IN,
    TITLE_IN,
    WellSummary,
    draw_plate,
    left_out_words,
    soft_plates,
    summarise,
)


def test_a_well_is_the_mean_of_its_good_images() -> None:
    said = [
        Prediction(image="1", count=10, probabilities={"A549": 0.9, "3T3": 0.1}, lineage_unfamiliar=True),
        Prediction(image="2", count=20, probabilities={"A549": 0.2, "3T3": 0.8}, lineage_unfamiliar=False),
        Prediction(image="3", error="damaged"),
    ]
    assert summarise(said) == WellSummary(
        images=2, failed=1, count=15, lineage="A549", probability=pytest.approx(0.55), lineage_unfamiliar=True
    )
    more = [*said, Prediction(image="4", count=0, probabilities={"A549": 0.0, "3T3": 1.0}, count_unfamiliar=False)]
    assert summarise(more) == WellSummary(
        images=3, failed=1, count=10, lineage="3T3", probability=pytest.approx(1.9 / 3)
    )
    assert summarise(said[2:]) == WellSummary(images=0, failed=1)


def test_what_is_out_of_focus_or_saturated_has_no_part_in_a_well_and_what_is_empty_has() -> None:
    said = [
        Prediction(image="1", count=10, quality=[]),
        Prediction(image="2", count=0, quality=["empty"]),
        Prediction(image="3", count=900, quality=["out_of_focus"], count_unfamiliar=True),
        Prediction(image="4", count=900, quality=["saturated", "empty"]),
    ]
    assert summarise(said) == WellSummary(
        images=2, left_out=("out_of_focus", "saturated"), left_out_n=2, empty=1, count=5
    )
    assert summarise(said[2:3]) == WellSummary(images=0, left_out=("out_of_focus",), left_out_n=1)
    assert left_out_words([summarise(said), summarise(said[2:])]) == "4 left out (2 out of focus, 2 saturated)"
    assert left_out_words([WellSummary(images=3)]) == ""


def test_a_plate_is_softer_by_itself_and_images_without_one_are_of_none() -> None:
    images = [(plate, 0.6, ["out_of_focus"]) for _ in range(10) for plate in ("P1", "P2", None)]
    images += [("P2", 1.0, [])] * 20
    [soft] = soft_plates(images)
    assert (soft.name, soft.images, soft.as_sharp) == ("P1", 10, tuple(range(0, 30, 3)))
    assert soft.words.startswith("P1 is softer than what the model learned from (0.60 of its focus): 10 of its 10 ")


def drawn(wells: dict[Well, WellSummary], name: str = "P1") -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(draw_plate(wells, name=name), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image.astype(int)


def blue_pixels(image_HW3: np.ndarray) -> int:
    """Those clearly more blue than red."""
    return int((image_HW3[..., 0] - image_HW3[..., 2] > 60).sum())


def test_the_fullest_wells_are_blue_and_empty_ones_are_not() -> None:
    few = {Well(1, 1): WellSummary(images=1, count=2.0), Well(1, 2): WellSummary(images=4, count=80.0)}
    more = few | {Well(row, 5): WellSummary(images=1, count=80.0) for row in (2, 5, 8)}
    of_a_well = np.pi * (0.43 * 0.58 * DPI) ** 2
    blue = blue_pixels(drawn(more)) - blue_pixels(drawn(few, name="of $2$ wells"))
    assert blue / 3 == pytest.approx(of_a_well, rel=0.1)


def test_a_well_that_is_far_out_leaves_the_others_their_colours() -> None:
    plate = {Well(row, 2): WellSummary(images=1, count=60.0 + row) for row in range(1, 9)}
    plain = blue_pixels(drawn(plate))
    assert blue_pixels(drawn(plate | {Well(1, 5): WellSummary(images=1, count=9000.0)})) > plain > 0


def orange_pixels(image_HW3: np.ndarray) -> int:
    """Those of hatches."""
    return int((image_HW3[..., 2] - image_HW3[..., 0] > 120).sum())


@pytest.mark.slow
def test_only_what_is_doubtful_is_hatched() -> None:
    sure = WellSummary(images=1, count=3.0, lineage="A549", probability=0.9)
    pictures = [
        drawn({Well(4, 4): replace(sure, lineage_unfamiliar=named, count_unfamiliar=counted)})
        for named, counted in ((True, False), (False, True), (True, True))
    ]
    halves = [np.array_split(picture[:-60], 2, axis=1) for picture in pictures]
    hatched = [[orange_pixels(half) - orange_pixels(half[:, :1]) for half in both] for both in halves]
    counts, lineages = zip(*hatched, strict=True)
    assert counts[1] == counts[2] > counts[0] and lineages[0] == lineages[2] > lineages[1]


def test_a_classifier_adds_lineages_beside_the_counts_and_below_those_of_a_large_plate() -> None:
    said = WellSummary(images=1, count=3.0, lineage="A549", probability=0.9, lineage_unfamiliar=True)
    height, width = drawn({Well(1, 1): said}).shape[:2]
    assert width > 2 * height
    height, width = drawn({Well(1, 1): said, Well(9, 1): WellSummary(images=0)}).shape[:2]
    assert height > width


@pytest.mark.parametrize(
    ("well", "rows", "columns", "inches"),
    [
        (Well(8, 12), 8, 12, 0.58),
        (Well(9, 1), 16, 24, 0.42),
        (Well(16, 24), 16, 24, 0.42),
        (Well(1, 25), 32, 48, 0.28),
        (Well(32, 48), 32, 48, 0.28),
    ],
)
def test_a_plate_is_as_large_as_its_wells_need(well: Well, rows: int, columns: int, inches: float) -> None:
    image = drawn({Well(1, 1): WellSummary(images=1, count=0.0), well: WellSummary(images=1, count=90.0)})
    height = rows * inches + ABOVE_IN + LEGEND_IN + TITLE_IN
    width = ROWS_IN + columns * inches + ASIDE_IN
    assert image.shape[:2] == pytest.approx((height * DPI, width * DPI), abs=2)
    left, top = ROWS_IN + (well.column - 1) * inches, TITLE_IN + ABOVE_IN + (well.row - 1) * inches
    rows_of, columns_of = (slice(round(at * DPI), round((at + inches) * DPI)) for at in (top, left))
    shape = np.pi * 0.43**2 if inches == 0.58 else 0.84**2
    assert blue_pixels(image[rows_of, columns_of]) == pytest.approx(shape * (inches * DPI) ** 2, rel=0.25)
