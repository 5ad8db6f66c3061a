"""Plates over time as a page: a curve for each lineage and treatment, one for each well where it is on its plate."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from cellnet.evaluation.growth import AS_GOOD, FEWEST_CELLS, LEVEL
from cellnet.images.wells import ROWS
from cellnet.reports.growth import Curve, Point, Series
from cellnet.reports.pages import Plot, page, plot
from cellnet.reports.plots import BLUE, INK, LINES, ORANGE, plain
from cellnet.reports.words import Table

MOST: Final = 24
"""Conditions that are drawn."""
GREY: Final = "#8a8f96"
WELL_IN: Final = (0.86, 0.62)
"""Width and height of a well on its plate, in inches."""
MARGIN: Final = 0.08
"""Of a curve within its well."""
NOTES: Final = (
    "A count is the mean over the images of a well, of those that count in a well's value. Its interval joins two "
    "errors, as the sides of a right angle: how far counts are from the ends of their own intervals, on average, and "
    "Student's interval by the spread of the images.",
    "A rate is the slope of the logarithm of the counts in the exponential part, which is what is left when a lag "
    "before it, and a plateau or a decline behind it, are cut off where that lowers the Bayesian information "
    f"criterion. Its {LEVEL:.0%} interval is Student's by the residuals, widened to those of all cuts within "
    f"{AS_GOOD:g} of the best. Points of fewer than {FEWEST_CELLS:g} cells are left out; three times are needed.",
    "A lineage and treatment has the mean of its wells, in counts and in rates, with Student's "
    f"{LEVEL:.0%} interval over wells, of rates no narrower than the wells' own make it. It does not tell how another "
    "plate would grow.",
    "Wells are said not to grow where their interval holds no doubling and no halving within the exponential part; "
    "where it holds one and also none, it is unclear.",
)  # fmt: skip


def growth_page(series: Series) -> str:
    """The page of plates over time, in itself."""
    limits = _limits(series.wells)
    colours = {curve.condition: number for number, curve in enumerate(series.conditions)}
    plates = list(dict.fromkeys(well.plate or "" for well in series.wells))
    times = [point.time_h for well in series.wells for point in well.points]
    return page(
        "growth.html",
        title=f"{len(series.wells)} wells over time",
        lead=f"{len(plates)} plate{'s' * (len(plates) != 1)}, {min(times):g} to {max(times):g} h" if times else "",
        conditions=_condition_rows(series),
        plots=[_condition_plot(curve, series, limits) for curve in series.conditions[:MOST] if curve.points],
        left_out=max(0, len(series.conditions) - MOST),
        plates={
            plate: _plate_plot(plate, [well for well in series.wells if well.plate == plate], colours, limits)
            for plate in plates
        },
        wells=[
            ["well", "lineage, treatment", "growth", "exponential part"],
            *([f"{one.plate} {one.well.name}", one.name, one.said, _part(one)] for one in series.wells if one.well),
        ],
        notes=NOTES,
    )


def _condition_rows(series: Series) -> Table:
    compared = [curve.ratio for curve in series.conditions if curve.ratio]
    heads = ["lineage, treatment", "wells", "growth", "exponential part"]
    rows = [[curve.name, curve.wells, curve.said, _part(curve)] for curve in series.conditions]
    if compared:
        heads.append(f"rate, as a share of {series.control}")
        for row, curve in zip(rows, series.conditions, strict=True):
            row.append(curve.share)
    return [heads, *rows]


def _part(curve: Curve) -> str:
    growth = curve.growth
    return "–" if growth.from_h is None else f"{growth.from_h:.3g}–{growth.to_h:.3g} h, {growth.times} times"


class _Limits:
    """What all curves are drawn in, so that they can be compared: hours, and counts on a logarithmic scale."""

    def __init__(self, points: Sequence[Point]) -> None:
        counts = [point.count for point in points if point.count > 0] or [1.0]
        least = float(np.quantile(counts, 0.02))  # a few counts next to nothing would press all others together
        self.hours = min((point.time_h for point in points), default=0.0), max((p.time_h for p in points), default=1.0)
        self.counts = max(least / 1.5, 0.2), max(counts) * 1.5

    def share(self, point: Point) -> tuple[float, float]:
        """Where a point is, of 0..1 both ways."""
        (early, late), (few, many) = self.hours, self.counts
        height = np.log(max(point.count, few) / few) / np.log(many / few)
        return (point.time_h - early) / max(late - early, 1e-9), float(height)


def _limits(wells: Sequence[Curve]) -> _Limits:
    return _Limits([point for well in wells for point in well.points])


def _condition_plot(curve: Curve, series: Series, limits: _Limits) -> Plot:
    wells = [well for well in series.wells if well.condition == curve.condition]
    control = next(
        (
            other
            for other in series.conditions
            if series.control is not None
            and (other.condition.treatment, other.condition.lineage) == (series.control, curve.condition.lineage)
        ),
        None,
    )
    words = f"{curve.name}: {curve.said}; {curve.wells} well{'s' * (curve.wells != 1)}"
    draw = partial(_draw_condition, curve=curve, wells=wells, control=control, limits=limits)
    return plot(draw, words, width=4.4, height=3.0)


def _draw_condition(axis: Any, *, curve: Curve, wells: Sequence[Curve], control: Curve | None, limits: _Limits) -> None:
    """The mean of the wells with its interval, each well, and the control's mean."""
    few, many = limits.counts
    for well in wells if len(wells) > 1 else ():
        axis.plot(*_drawn(well.points, few), color=GREY, linewidth=0.8, alpha=0.7)
    if control is not None and control is not curve:
        axis.plot(*_drawn(control.points, few), color=ORANGE, linestyle="--", linewidth=1.2, label=plain(control.name))
    hours, counts = _drawn(curve.points, few)
    if any(point.low is not None for point in curve.points):
        ends = [(one.count if one.low is None else one.low, one.high or one.count) for one in curve.points]
        lows, highs = (np.clip(side, few, many) for side in zip(*ends, strict=True))
        axis.fill_between(hours, lows, highs, color=BLUE, alpha=0.22, linewidth=0)
    axis.plot(hours, counts, color=BLUE, marker="o", markersize=3.5, linewidth=1.6, label=plain(curve.name, 40))
    axis.set_yscale("log")
    axis.set(xlim=limits.hours, ylim=(few, many), xlabel="hours", ylabel="cells an image", title=plain(curve.name, 44))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.yaxis.set_minor_formatter("")
    ticks = [tick for ten in range(-1, 7) for tick in (10.0**ten, 3 * 10.0**ten) if few <= tick <= many]
    axis.set_yticks(ticks)
    if control is not None and control is not curve:
        axis.legend(fontsize=8, loc="best")


def _drawn(points: Sequence[Point], few: float) -> tuple[list[float], list[float]]:
    return [point.time_h for point in points], [max(point.count, few) for point in points]


def _plate_plot(plate: str, wells: Sequence[Curve], colours: dict[Any, int], limits: _Limits) -> Plot:
    """A plate, of the rows and columns between the outermost wells."""
    rows, columns = ([getattr(well.well, of) for well in wells] for of in ("row", "column"))
    shape = max(rows) - min(rows) + 1, max(columns) - min(columns) + 1
    width, height = WELL_IN[0] * max(shape[1], 4) + 0.5, WELL_IN[1] * shape[0] + 0.6
    words = (
        f"{plate}: cells an image from {limits.hours[0]:g} to {limits.hours[1]:g} h, on a logarithmic scale from "
        f"{limits.counts[0]:.2g} to {limits.counts[1]:.3g}; the hours in which cells double, or − and those in which "
        "they are halved."
    )
    return plot(partial(_draw_plate, wells=wells, colours=colours, limits=limits), words, width=width, height=height)


def _draw_plate(axis: Any, *, wells: Sequence[Curve], colours: dict[Any, int], limits: _Limits) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    seen: dict[int, Any] = {}
    for curve in wells:
        assert curve.well is not None
        x, y = curve.well.column, curve.well.row
        number = colours[curve.condition]
        style: dict[str, Any] = {"color": LINES[number % len(LINES)]}
        style["linestyle"] = ("-", "--", ":")[number // len(LINES) % 3]
        axis.add_patch(Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, fill=False, edgecolor=GREY, linewidth=0.5))
        shares = [limits.share(point) for point in curve.points]
        inner = 0.94 - 2 * MARGIN
        across = [x - 0.47 + MARGIN + inner * share for share, _ in shares]
        down = [y + 0.47 - MARGIN - inner * share for _, share in shares]
        dot = {"marker": "o", "markersize": 3} if len(shares) == 1 else {}
        axis.plot(across, down, linewidth=1.5, **style, **dot)
        seen[number] = Line2D([], [], **style, label=plain(curve.name, 40))
        axis.text(x - 0.43, y - 0.41, _short(curve), fontsize=7.5, va="top", ha="left", color=INK)
    rows, columns = (sorted({getattr(curve.well, of) for curve in wells}) for of in ("row", "column"))
    axis.set(xlim=(columns[0] - 0.5, max(columns[-1], columns[0] + 3) + 0.5), ylim=(rows[-1] + 0.5, rows[0] - 0.5))
    axis.set_xticks(columns, [str(column) for column in columns])
    axis.set_yticks(rows, [ROWS[row - 1] for row in rows])
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    for side in axis.spines.values():
        side.set_visible(False)
    handles = [seen[number] for number in sorted(seen)]
    axis.figure.legend(handles=handles, loc="outside lower left", ncols=2, fontsize=8)


def _short(curve: Curve) -> str:
    """The hours of a doubling, or of a halving with a minus; what is in doubt has a question mark."""
    rate, status = curve.growth.rate, curve.growth.status
    if status == "grows" and rate:
        return f"{rate.times_h[0]:.0f} h"
    if status == "shrinks" and rate:
        return f"−{rate.times_h[0]:.0f} h"
    return {"does_not_grow": "0", "unclear": "?"}.get(status, "×")
