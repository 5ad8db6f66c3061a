"""Wells over time: their counts with intervals, how fast their cells multiply, and both by lineage and treatment.

A point of a well is the mean of its images of one time, those that count in a well's value. Its interval is wide by
two errors, as the sides of a right angle: the mean distance from a count to the end of its own interval, since one
counter errs alike in images of one well; and Student's interval by the spread of the images. A point of a condition is
the mean of its wells, of half of them at least, with Student's interval over them; its rate is the mean of theirs.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from cellnet.evaluation.growth import (
    LEVEL,
    Growth,
    Rate,
    error_of,
    fit_growth,
    half_width,
    mean_count,
    mean_rate,
    rate_ratio,
    status_of,
)
from cellnet.images.wells import Well, named_well
from cellnet.prediction.answers import Prediction
from cellnet.prediction.tables import prediction_of
from cellnet.readers.conditions import Condition
from cellnet.reports.plates import of_value, summarise

WHICH: Final = ("plate", "well", "lineage", "treatment", "dose", "wells")
COUNTS: Final = (*WHICH, "time_h", "count", "count_low", "count_high", "interval_level", "images")
"""Columns of a table of points: of wells, and below them of conditions, whose plate and well are empty."""
RATES: Final = (
    *(*WHICH, "status", "times", "from_h", "to_h", "then", "rate_per_h", "rate_low", "rate_high"),
    *("doubling_h", "doubling_low", "doubling_high", "half_life_h", "half_life_low", "half_life_high"),
    *("interval_level", "rate_ratio", "rate_ratio_low", "rate_ratio_high"),
)
"""Columns of a table of rates, likewise; a ratio is of a condition's rate to the control's."""
DIGITS: Final = 6
"""Of hours that are the same time."""
SAID: Final = {
    "does_not_grow": "does not grow",
    "unclear": "unclear whether it grows",
    "too_few_times": "too few times, three are needed",
    "too_few_cells": "too few cells, five at a time are needed at three times",
}


@dataclass(frozen=True)
class Point:
    """A count at a time, with its interval where there is one."""

    time_h: float
    count: float
    low: float | None
    high: float | None
    level: float
    images: int


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A well over time, or the wells of a condition."""

    condition: Condition
    """Its lineage is the known one, or else the named one."""
    points: Sequence[Point]
    growth: Growth
    plate: str | None = None
    well: Well | None = None
    wells: int = 1
    ratio: Rate | None = None
    """Of its rate to the control's."""

    @property
    def name(self) -> str:
        """Its lineage, treatment and dose, like "A549, drug 1 uM"."""
        treated = " ".join(filter(None, (self.condition.treatment, self.condition.dose)))
        return ", ".join(filter(None, (self.condition.lineage, treated))) or "all wells"

    @property
    def said(self) -> str:
        """How fast its cells multiply, in words."""
        rate = self.growth.rate
        if self.growth.status not in ("grows", "shrinks") or rate is None:
            return SAID[self.growth.status]
        time, low, high = rate.times_h
        span = "" if low is None or high is None else f" ({low:.3g}–{high:.3g})"
        then = f", then a {self.growth.then}" if self.growth.then else ""
        return f"{'doubles' if rate.value > 0 else 'is halved'} in {time:.3g} h{span}{then}"

    @property
    def share(self) -> str:
        """Its ratio in words."""
        if self.ratio is None:
            return "–"
        low, high = self.ratio.low, self.ratio.high
        return f"{self.ratio.value:.2f}" + ("" if low is None or high is None else f" ({low:.2f} to {high:.2f})")


@dataclass(frozen=True, kw_only=True)
class Series:
    """The plates that were recorded over time."""

    wells: Sequence[Curve] = field(default_factory=list)
    conditions: Sequence[Curve] = field(default_factory=list)
    control: str | None = None
    """The treatment that the others are compared with."""
    last_h: Mapping[str, float] = field(default_factory=dict)
    """The last time of each of the plates."""

    @property
    def lines(self) -> list[str]:
        """What is said of each condition, a line each."""
        return [
            f"{curve.name}: {curve.said}; {curve.wells} well{'s' * (curve.wells != 1)}{self._compared(curve)}"
            for curve in self.conditions
        ]

    def _compared(self, curve: Curve) -> str:
        if curve.ratio is None:
            return ""
        return f", {curve.share} of the rate of {self.control}"


def series_of(rows: Iterable[Mapping[str, Any]], *, control: str | None = None) -> Series:
    """The curves of rows of predictions that have a plate, a well and `time_h`, of plates with a well at two times.

    A row may have a `treatment`, a `dose` and a `known_lineage`.
    """
    images: dict[tuple[str, Well], dict[float, list[Prediction]]] = defaultdict(lambda: defaultdict(list))
    known: dict[tuple[str, Well], Condition] = {}
    for row in rows:
        well = named_well(row["well"] or "")
        if well is None or row["time_h"] is None:
            continue
        place, time_h = (row["plate"], well), round(row["time_h"], DIGITS)
        images[place][time_h].append(prediction_of(row))
        said = Condition(treatment=row["treatment"], dose=row["dose"], lineage=row["known_lineage"])
        known[place] = known.get(place, Condition()).over(said)
    over_time = {plate for (plate, _), of_time in images.items() if len(of_time) > 1}
    last_h: dict[str, float] = {}
    for (plate, _), of_time in images.items():
        if plate in over_time:
            last_h[plate] = max(*of_time, last_h.get(plate, -math.inf))
    wells = [
        _well(plate, well, of_time, known[plate, well])
        for (plate, well), of_time in sorted(images.items())
        if plate in over_time
    ]
    return Series(wells=wells, conditions=_conditions(wells, control), control=control, last_h=last_h)


def _well(plate: str, well: Well, of_time: Mapping[float, Sequence[Prediction]], known: Condition) -> Curve:
    said = summarise([one for predictions in of_time.values() for one in predictions])
    points = [point for time_h in sorted(of_time) if (point := _point(time_h, of_time[time_h]))]
    cells = [point.count * point.images for point in points]
    return Curve(
        condition=known.over(Condition(lineage=said.lineage)),
        points=points,
        growth=fit_growth([point.time_h for point in points], [point.count for point in points], cells),
        plate=plate,
        well=well,
    )


def _point(time_h: float, predictions: Sequence[Prediction]) -> Point | None:
    """What a well has at a time; None where no image counts."""
    value = summarise(predictions).count
    counted = [one for one in of_value(predictions) if one.count is not None]
    if value is None or not counted:
        return None
    level = counted[0].interval_level or LEVEL
    counts = [one.count for one in counted if one.count is not None]
    sides = [(one.count_low, one.count_high) for one in counted]
    ends = [(low, high) for low, high in sides if low is not None and high is not None]
    spread = half_width(len(counts) - 1, level) * error_of(counts) if len(counts) > 1 else None
    own = [0.0, 0.0]
    if len(ends) == len(counts):
        own = [abs(float(np.mean(side)) - value) for side in zip(*ends, strict=True)]
    elif spread is None:
        return Point(time_h, value, None, None, level, len(counts))
    low, high = (math.hypot(one, spread or 0.0) for one in own)
    return Point(time_h, value, max(0.0, value - low), value + high, level, len(counts))


def _conditions(wells: Sequence[Curve], control: str | None) -> list[Curve]:
    """The wells of each lineage, treatment and dose together."""
    held: dict[Condition, list[Curve]] = defaultdict(list)
    for well in wells:
        held[well.condition].append(well)
    together = [_together(condition, held[condition]) for condition in sorted(held, key=_in_order)]
    controls: dict[str | None, list[Curve]] = defaultdict(list)
    for well in wells if control is not None else ():
        if well.condition.treatment == control:
            controls[well.condition.lineage].append(well)
    of_control = {lineage: _growth_together(of).rate for lineage, of in controls.items()}
    return [_compared(curve, of_control.get(curve.condition.lineage), control) for curve in together]


def _compared(curve: Curve, of_control: Rate | None, control: str | None) -> Curve:
    """A curve with its rate as a share of the control's, whose own is none."""
    if of_control is None or curve.growth.rate is None or curve.condition.treatment == control:
        return curve
    return replace(curve, ratio=rate_ratio(curve.growth.rate, of_control))


def _in_order(condition: Condition) -> tuple[str, str, float, str]:
    """Doses by their numbers."""
    dose = condition.dose or ""
    digits = "".join(itertools.takewhile(lambda sign: sign.isdigit() or sign in ".,", dose)).replace(",", ".")
    number = float(digits) if digits.replace(".", "", 1).isdecimal() else math.inf
    return condition.lineage or "", condition.treatment or "", number, dose


def _together(condition: Condition, wells: Sequence[Curve]) -> Curve:
    if len(wells) == 1:
        return replace(wells[0], plate=None, well=None)
    held: dict[float, list[Point]] = defaultdict(list)
    for point in (point for well in wells for point in well.points):
        held[point.time_h].append(point)
    points = [
        Point(time_h, *mean_count([one.count for one in of]), LEVEL, sum(one.images for one in of))
        for time_h, of in sorted(held.items())
        if 2 * len(of) >= len(wells)
    ]
    return Curve(condition=condition, points=points, growth=_growth_together(wells), wells=len(wells))


def _growth_together(wells: Sequence[Curve]) -> Growth:
    """The mean of the rates of wells; of one that has a rate its own."""
    fitted = [well.growth for well in wells if well.growth.rate is not None]
    if len(fitted) < 2:
        return fitted[0] if fitted else wells[0].growth
    rate = mean_rate([growth.rate for growth in fitted if growth.rate is not None])
    froms, tos = ([getattr(growth, end) for growth in fitted] for end in ("from_h", "to_h"))
    return Growth(
        status=status_of(rate, float(np.median(np.subtract(tos, froms)))), rate=rate,
        times=min(growth.times for growth in fitted), from_h=min(froms), to_h=max(tos),
    )  # fmt: skip


def count_rows(series: Series) -> Iterator[dict[str, Any]]:
    """Rows of the columns `COUNTS`."""
    for curve in (*series.wells, *series.conditions):
        for point in curve.points:
            yield _which(curve) | {
                "time_h": point.time_h, "count": point.count, "count_low": point.low, "count_high": point.high,
                "interval_level": None if point.low is None else point.level, "images": point.images,
            }  # fmt: skip


def rate_rows(series: Series) -> Iterator[dict[str, Any]]:
    """Rows of the columns `RATES`."""
    for curve in (*series.wells, *series.conditions):
        growth, rate = curve.growth, curve.growth.rate
        row = dict.fromkeys(RATES) | _which(curve)
        row |= {name: getattr(growth, name) for name in ("status", "times", "from_h", "to_h", "then")}
        if rate is not None:
            ends = (rate.value, rate.low, rate.high)
            row |= dict(zip(("rate_per_h", "rate_low", "rate_high"), ends, strict=True))
            row |= {"interval_level": None if rate.low is None else LEVEL}
            if growth.status in ("grows", "shrinks"):
                name = "doubling" if growth.status == "grows" else "half_life"
                row |= dict(zip((f"{name}_h", f"{name}_low", f"{name}_high"), rate.times_h, strict=True))
        if curve.ratio is not None:
            ends = (curve.ratio.value, curve.ratio.low, curve.ratio.high)
            row |= dict(zip(("rate_ratio", "rate_ratio_low", "rate_ratio_high"), ends, strict=True))
        yield row


def _which(curve: Curve) -> dict[str, Any]:
    condition = curve.condition
    return {
        "plate": curve.plate, "well": curve.well.name if curve.well else None, "lineage": condition.lineage,
        "treatment": condition.treatment, "dose": condition.dose, "wells": curve.wells,
    }  # fmt: skip
