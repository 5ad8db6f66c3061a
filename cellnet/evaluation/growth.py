"""How fast cells of a well multiply, from their counts over time: the exponential part, its rate and doubling time.

The logarithm of the counts is fitted by straight pieces that meet: perhaps a lag, in which nothing changes, the
exponential part, and perhaps what follows it, a plateau or a decline. Pieces are added as long as the Bayesian
information criterion (Schwarz 1978) falls, where a lag and a plateau count as two parameters and a decline as four.
The rate is then the slope of the points of the exponential part alone. Its interval is Student's, by their residuals,
and holds those of all other cuts that are as likely. A point weighs what its cells say: the variance of a logarithm is
1/cells (Poisson), and never below 5 % squared.

Growth that slows from the beginning has no exponential part; its rate is a mean of faster and slower ones. How often
intervals hold what they should: `tests/benchmarks/growth.py`.
"""

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

LEVEL: Final = 0.9
"""Share of true rates that an interval is made to hold."""
FEWEST_TIMES: Final = 3
"""Points of an exponential part: two have no residuals."""
FEWEST_CELLS: Final = 5.0
"""Counted at a time in all images of a well; fewer make no logarithm to rely on."""
BEYOND: Final = 2
"""Points that a lag or a plateau has besides the one where it meets the exponential part."""
MOST_BREAKS: Final = 10
"""Times at which a piece may end: of longer series evenly many are tried."""
AS_GOOD: Final = 2.0
"""How much higher the criterion of a cut is that is as likely as the best ("not worth more than a bare mention", Kass
and Raftery 1995)."""
LEAST_SPREAD: Final = 0.05
"""Standard deviation of a logarithm of counts, however many cells there are."""

Status = Literal["grows", "shrinks", "does_not_grow", "unclear", "too_few_times", "too_few_cells"]
Then = Literal["plateau", "decline"]


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A rate an hour of natural logarithms, with its interval where residuals allow one."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def half(self) -> float:
        """Half the width of its interval; 0 without one."""
        return 0.0 if self.low is None or self.high is None else (self.high - self.low) / 2

    @property
    def times_h(self) -> tuple[float | None, float | None, float | None]:
        """The time in which cells double, or are halved where the rate is negative, and its interval.

        >>> [time and round(time, 1) for time in Rate(value=0.0347, low=0.0277, high=0.0462).times_h]
        [20.0, 15.0, 25.0]
        """
        if not self.value:
            return None, None, None
        times = [math.log(2) / abs(rate) if rate else None for rate in (self.value, self.high, self.low)]
        if self.low is None or self.high is None or self.low * self.high <= 0:
            return times[0], None, None
        low, high = sorted(time for time in times[1:] if time is not None)
        return times[0], low, high


@dataclass(frozen=True, kw_only=True)
class Growth:
    """What the counts of a well over time come to."""

    status: Status
    times: int
    """Points of the exponential part; of a series without one, those that could be used."""
    rate: Rate | None = None
    from_h: float | None = None
    """Where the exponential part begins."""
    to_h: float | None = None
    then: Then | None = None
    """What follows the exponential part."""


class _Pieces(NamedTuple):
    """Where the exponential part begins and ends; None where it begins or ends with the series."""

    start: int | None = None
    end: int | None = None
    declines: bool = False
    """Whether what follows has a slope of its own."""

    @property
    def window(self) -> slice:
        """The points of the exponential part."""
        return slice(self.start, None if self.end is None else self.end + 1)


def fit_growth(time_h_N: ArrayLike, count_N: ArrayLike, cells_N: ArrayLike | None = None) -> Growth:
    """The growth of a well: its counts (N,), each of a time of its own, in hours, in any order.

    `cells_N` are the cells that each count rests on, where it is a mean over images.
    """
    time_N, value_N = np.asarray(time_h_N, np.float64), np.asarray(count_N, np.float64)
    cells_N = value_N if cells_N is None else np.asarray(cells_N, np.float64)
    if len(np.unique(time_N)) < FEWEST_TIMES:
        return Growth(status="too_few_times", times=len(np.unique(time_N)))
    enough_N = (cells_N >= FEWEST_CELLS) & (value_N > 0)
    order_N = np.argsort(time_N[enough_N], kind="stable")
    time_N, value_N, cells_N = (one[enough_N][order_N] for one in (time_N, value_N, cells_N))
    if len(np.unique(time_N)) < FEWEST_TIMES:
        return Growth(status="too_few_cells", times=len(np.unique(time_N)))
    log_N, weight_N = np.log(value_N), 1 / (1 / cells_N + LEAST_SPREAD**2)
    scored = [(_criterion(time_N, log_N, weight_N, pieces), pieces) for pieces in _candidates(len(time_N))]
    least, best = min(scored, key=lambda one: one[0])
    rates = [
        _slope(*(one[pieces.window] for one in (time_N, log_N, weight_N)))
        for criterion, pieces in scored
        if criterion <= least + AS_GOOD
    ]
    window = best.window
    rate = replace(
        _slope(time_N[window], log_N[window], weight_N[window]),
        low=min(one.low for one in rates if one.low is not None),
        high=max(one.high for one in rates if one.high is not None),
    )
    return Growth(
        status=status_of(rate, float(np.ptp(time_N[window]))),
        times=len(time_N[window]),
        rate=rate,
        from_h=float(time_N[window][0]),
        to_h=float(time_N[window][-1]),
        then=None if best.end is None else "decline" if best.declines else "plateau",
    )


def status_of(rate: Rate, span_h: float) -> Status:
    """What a rate says: that cells grow or shrink where its interval has one sign, or that they do neither.

    They do neither where its interval has no doubling and no halving within the time that was seen; else it is unclear.

    >>> status_of(Rate(value=0.01, low=0.005, high=0.02), 48), status_of(Rate(value=0.001, low=-0.01, high=0.01), 48)
    ('grows', 'does_not_grow')
    """
    if rate.low is None or rate.high is None:
        return "unclear"
    if rate.low * rate.high > 0:
        return "grows" if rate.value > 0 else "shrinks"
    return "does_not_grow" if max(-rate.low, rate.high) * span_h < math.log(2) else "unclear"


def mean_rate(rates: Sequence[Rate]) -> Rate:
    """The mean of the rates of several wells with Student's interval over them; of one well its own.

    The interval is no narrower than the wells' own intervals make it: that two happen to agree makes neither surer.

    >>> rate = mean_rate([Rate(value=0.03), Rate(value=0.035), Rate(value=0.04)])
    >>> round(rate.value, 3), round(rate.low or 0, 4), round(rate.high or 0, 4)
    (0.035, 0.0266, 0.0434)
    """
    if len(rates) == 1:
        return rates[0]
    values = [rate.value for rate in rates]
    own = math.hypot(*(rate.half for rate in rates)) / len(rates)
    half = max(half_width(len(values) - 1) * error_of(values), own)
    mean = float(np.mean(values))
    return Rate(value=mean, low=mean - half, high=mean + half)


def mean_count(counts: Sequence[float]) -> tuple[float, float | None, float | None]:
    """The mean of several wells with Student's interval over them, which has no negative part; of one well alone it."""
    mean = float(np.mean(counts))
    if len(counts) < 2:
        return mean, None, None
    half = half_width(len(counts) - 1) * error_of(counts)
    return mean, max(0.0, mean - half), mean + half


def rate_ratio(rate: Rate, control: Rate) -> Rate | None:
    """A rate as a share of the control's, with its interval.

    To first order the interval of a ratio R of a and b is wide by those of a and R·b, as the sides of a right angle,
    over b. None where the control does not grow for certain: then nothing is a share of its rate.
    """
    if (control.low or 0) <= 0:
        return None
    ratio = rate.value / control.value
    if rate.low is None:
        return Rate(value=ratio)
    half = math.hypot(rate.half, ratio * control.half) / control.value
    return Rate(value=ratio, low=ratio - half, high=ratio + half)


@functools.lru_cache(4096)
def half_width(freedom: int, level: float = LEVEL) -> float:
    """How many standard errors are on either side of a mean in the interval that holds `level` of them."""
    from scipy.stats import t  # slow to import

    return float(t.ppf((1 + level) / 2, freedom))


def error_of(values: Sequence[float]) -> float:
    """The standard error of a mean, by the spread of what it is of of several."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def _candidates(points: int) -> Iterator[_Pieces]:
    """The ways in which a series may be cut, the plainest first."""
    yield _Pieces()
    starts = _some(range(BEYOND, points - FEWEST_TIMES + 1))
    ends = _some(range(FEWEST_TIMES - 1, points - BEYOND))
    yield from (_Pieces(start) for start in starts)
    for start, end in itertools.product((None, *starts), ends):
        if end - (start or 0) >= FEWEST_TIMES - 1:
            yield from (_Pieces(start, end, declines) for declines in (False, True))


def _some(places: Sequence[int]) -> list[int]:
    if len(places) <= MOST_BREAKS:
        return list(places)
    return [places[round(number)] for number in np.linspace(0, len(places) - 1, MOST_BREAKS).tolist()]


def _criterion(time_N: Floats, log_N: Floats, weight_N: Floats, pieces: _Pieces) -> float:
    """The Bayesian information criterion of a fit of straight pieces that meet; infinite where it is no such growth."""
    start, end = time_N[pieces.start or 0], time_N[-1 if pieces.end is None else pieces.end]
    columns = [np.ones_like(time_N), np.clip(time_N, start, end)]
    if pieces.declines:
        columns.append(np.maximum(time_N - end, 0))
    design_NK = np.stack(columns, axis=1)
    root_N = np.sqrt(weight_N)
    found_K, *_ = np.linalg.lstsq(design_NK * root_N[:, None], log_N * root_N)
    if pieces.declines and found_K[2] >= min(0.0, found_K[1]):  # what falls after it falls faster
        return math.inf
    misfit = float((weight_N * (log_N - design_NK @ found_K) ** 2).sum())
    points = len(time_N)
    parameters = 2 + 2 * ((pieces.start is not None) + (pieces.end is not None) + pieces.declines)
    least = points * 1e-4  # of counts that follow a curve exactly
    return points * math.log(max(misfit, least) / points) + parameters * math.log(points)


def _slope(time_N: Floats, log_N: Floats, weight_N: Floats) -> Rate:
    """The slope of a weighted straight line, its standard error by the residuals."""
    freedom = len(time_N) - 2
    total = weight_N.sum()
    away_N = time_N - (weight_N * time_N).sum() / total
    height_N = log_N - (weight_N * log_N).sum() / total
    square = (weight_N * away_N**2).sum()
    slope = float((weight_N * away_N * height_N).sum() / square)
    variance = (weight_N * (height_N - slope * away_N) ** 2).sum() / freedom / square
    half = half_width(freedom) * math.sqrt(variance)
    return Rate(value=slope, low=slope - half, high=slope + half)
