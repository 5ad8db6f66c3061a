"""Wells over time: their counts with intervals, and what lineages and treatments come to."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from cellnet.images.wells import Well
from cellnet.prediction.answers import Prediction
from cellnet.prediction.tables import row_of
from cellnet.reports.growth import COUNTS, RATES, Series, count_rows, rate_rows, series_of
from tests.factories import poisson_counts

TIMES = np.arange(0, 72, 8)


def prediction(count: float | None, *, width: float | None = None, lineage: str = "A549") -> Prediction:
    ends = {} if width is None or count is None else {"count_low": count - width, "count_high": count + 2 * width}
    other = "3T3" if lineage == "A549" else "A549"
    return Prediction(
        image="x", count=count, lineage=lineage, probabilities={lineage: 0.9, other: 0.1}, interval_level=0.9, **ends
    )  # fmt: skip


def row(said: Prediction, well: str | None = "B03", time_h: float | None = 0.0, **known: Any) -> dict[str, Any]:
    about = {"plate": "P1", "treatment": None, "dose": None, "known_lineage": None}
    return row_of(said) | about | {"well": well, "time_h": time_h} | known


def grown(
    well: str, doubling_h: float, *, seed: int = 0, times: Sequence[float] = TIMES, **known: Any
) -> Iterator[Any]:
    """A well of two images a time."""
    counts = poisson_counts(10 * 2 ** (np.asarray(times) / doubling_h), images=2, seed=seed)
    for time_h, count in zip(times, counts.tolist(), strict=True):
        yield from (row(prediction(count), well, float(time_h), **known) for _ in range(2))


def only(rows: Iterator[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
    return [one for one in rows if all(one[name] == value for name, value in wanted.items())]


def test_a_point_is_the_mean_of_the_images_that_count_with_the_errors_of_counter_and_images() -> None:
    said = [prediction(10, width=3), prediction(14, width=5), Prediction(image="bad", error="damaged")]
    series = series_of([*(row(one) for one in said), row(prediction(20), time_h=6.0)])
    [first, second] = series.wells[0].points
    assert (first.time_h, first.count, first.images, first.level) == (0, 12, 2, 0.9)
    assert first.high == pytest.approx(12 + math.hypot(8, 6.3138 * 2), rel=1e-3), "Student's of one degree"
    assert first.low == 0.0, "no fewer than none"
    assert (second.count, second.low, second.high) == (20, None, None)


def test_of_one_image_the_interval_is_its_own() -> None:
    [first, _] = series_of([row(prediction(10, width=3)), row(prediction(20, width=3), time_h=6)]).wells[0].points
    assert (first.low, first.high) == (7, 16)


def test_only_plates_of_several_times_are_series() -> None:
    rows = [row(prediction(9), plate="P2"), row(prediction(9), "C04", plate="P2"), row(prediction(9), None, 5.0)]
    assert series_of([*rows, row(prediction(9), time_h=None)]) == Series()
    series = series_of([*rows, *grown("B03", 20)])
    assert [(curve.plate, curve.well) for curve in series.wells] == [("P1", Well(2, 3))]


def test_two_plates_are_told_apart_and_their_wells_of_a_treatment_are_taken_together() -> None:
    plates = ((plate, seed) for seed, plate in enumerate(("P1", "P2")))
    rows = [one for plate, seed in plates for one in grown("B03", 20, seed=seed, plate=plate, treatment="DMSO")]
    series = series_of(rows)
    assert [curve.plate for curve in series.wells] == ["P1", "P2"]
    [together] = series.conditions
    assert together.wells == 2 and together.growth.rate is not None
    rates = [curve.growth.rate.value for curve in series.wells if curve.growth.rate]
    assert together.growth.rate.value == pytest.approx(np.mean(rates))


def treated() -> Iterator[dict[str, Any]]:
    for column in range(3, 7):
        yield from grown(f"B0{column}", 20, seed=column, treatment="DMSO")
        yield from grown(f"C0{column}", 40, seed=10 + column, treatment="drug", dose="10 uM")
        yield from grown(f"D0{column}", -20, seed=20 + column, treatment="drug", dose="5 uM")


def test_treatments_are_compared_with_the_control_by_known_doubling_times() -> None:
    series = series_of(treated(), control="DMSO")
    assert [curve.name for curve in series.conditions] == ["A549, DMSO", "A549, drug 5 uM", "A549, drug 10 uM"]
    rates = {curve.condition.dose: curve for curve in series.conditions}
    control, dying, slowed = rates[None], rates["5 uM"], rates["10 uM"]
    for curve, doubling_h in ((control, 20), (slowed, 40)):
        assert curve.growth.status == "grows" and curve.growth.rate is not None
        _, low, high = curve.growth.rate.times_h
        assert low < doubling_h < high
    assert dying.growth.status in ("shrinks", "unclear") and dying.growth.rate is not None
    assert control.ratio is None
    assert slowed.ratio is not None and slowed.ratio.low < 0.5 < slowed.ratio.high
    assert "of the rate of DMSO" in series.lines[2] and "of the rate of DMSO" not in series.lines[0]
    assert series_of(treated()).conditions[2].ratio is None, "where no control is named"


def test_the_known_lineage_goes_before_the_named_one() -> None:
    rows = [row(prediction(10 + time_h, lineage="3T3"), time_h=float(time_h)) for time_h in (0, 8, 16)]
    assert series_of(rows).wells[0].condition.lineage == "3T3"
    known = [one | {"known_lineage": "A549"} for one in rows]
    assert series_of(known).wells[0].condition.lineage == "A549"


def test_a_mean_curve_has_the_times_of_half_of_its_wells() -> None:
    rows = [*grown("B03", 20, times=[0, 8, 16]), *grown("B04", 20, times=[0, 8]), *grown("B05", 20, times=[0])]
    [curve] = series_of(rows).conditions
    assert [point.time_h for point in curve.points] == [0, 8]
    assert [point.low is None for point in curve.points] == [False, False]
    assert curve.wells == 3 and curve.growth.rate == series_of(rows).wells[0].growth.rate, "the others have none"


def test_the_tables_have_their_columns_wells_first_and_conditions_below() -> None:
    series = series_of([*treated(), *grown("H12", 20, times=[0])], control="DMSO")
    counts, rates = list(count_rows(series)), list(rate_rows(series))
    assert {tuple(sorted(one)) for one in counts} == {tuple(sorted(COUNTS))}
    assert {tuple(sorted(one)) for one in rates} == {tuple(sorted(RATES))}
    assert [one["well"] is None for one in rates] == [False] * 13 + [True] * 4
    [well] = only(iter(rates), well="B03")
    assert (well["plate"], well["treatment"], well["wells"], well["interval_level"]) == ("P1", "DMSO", 1, 0.9)
    assert well["doubling_h"] == pytest.approx(math.log(2) / well["rate_per_h"]) and well["half_life_h"] is None
    [lonely] = only(iter(rates), well="H12")
    assert lonely["status"] == "too_few_times" and lonely["rate_per_h"] is lonely["doubling_h"] is None
    [point] = only(iter(counts), well="H12")
    assert (point["time_h"], point["images"], point["wells"]) == (0.0, 2, 1)
    [first] = only(iter(counts), well=None, treatment="DMSO", time_h=0.0)
    assert (first["plate"], first["wells"], first["images"]) == (None, 4, 8)


def words(rows: Sequence[Mapping[str, Any]]) -> str:
    return series_of(rows).wells[0].said


def test_what_growth_comes_to_is_said_in_words() -> None:
    exact = [row(prediction(10 * 2.0 ** (time_h / 24)), time_h=float(time_h)) for time_h in (0, 24, 48, 72)]
    assert words(exact) == "doubles in 24 h (24–24)"
    assert words([one | {"count": 900 / one["count"]} for one in exact]).startswith("is halved in ")
    assert words([one | {"count": 40.0} for one in exact]) == "does not grow"
    assert words(exact[:2]) == "too few times, three are needed"
    assert words([one | {"count": 1.0} for one in exact]) == "too few cells, five at a time are needed at three times"
