"""How often the intervals of rates hold the rate: `python tests/benchmarks/growth.py OUT`.

Counts of drawn wells whose doubling time is known: four images a time in which cells lie at random (Poisson), and 10 %
of error besides, fitted as `cellnet predict` fits them. Writes OUT/growth.md.
"""

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it runs from anywhere

import numpy as np

from cellnet.evaluation.growth import fit_growth

WELLS: Final = 1000
IMAGES: Final = 4
ERROR: Final = 0.1
Curve = Callable[[Any], Any]

DOUBLINGS: Final[dict[str, tuple[Curve, float | None]]] = {
    "grows, 10 cells an image at first": (lambda h: 10 * 2 ** (h / 20), 20),
    "the same to a plateau of 30 cells": (lambda h: np.minimum(10 * 2 ** (h / 20), 30), 20),
    "after a lag of 16 h": (lambda h: 10 * 2 ** (np.maximum(h - 16, 0) / 20), 20),
    "dies from 36 h on": (lambda h: 10 * 2 ** (np.minimum(h, 36) / 20 - np.maximum(h - 36, 0) / 12), 20),
    "is halved in 20 h, 60 cells at first": (lambda h: 60 * 2 ** (-h / 20), -20),
    "rests": (lambda h: np.full(len(h), 20.0), None),
}
"""Mean counts by hours, and the doubling time."""
SERIES: Final = ((5, 12.0), (9, 8.0), (13, 6.0), (25, 3.0))
"""Times and the hours between them."""


def row(name: str, times: int, between_h: float) -> str:
    curve, doubling_h = DOUBLINGS[name]
    rate = 0.0 if doubling_h is None else math.log(2) / doubling_h
    rng = np.random.default_rng(0)
    time_N = np.arange(times) * between_h
    held, found, right = 0, [], 0
    for _ in range(WELLS):
        cells_N = rng.poisson(curve(time_N) * IMAGES * np.exp(ERROR * rng.standard_normal(times)))
        growth = fit_growth(time_N, cells_N / IMAGES, cells_N)
        if growth.rate is None or growth.rate.low is None or growth.rate.high is None:
            continue
        found.append(growth.rate.value)
        held += growth.rate.low <= rate <= growth.rate.high
        wanted = "does_not_grow" if doubling_h is None else "grows" if doubling_h > 0 else "shrinks"
        right += growth.status == wanted
    low, middle, high = (math.log(2) / abs(value) for value in np.quantile(found, [0.95, 0.5, 0.05]))
    told = "" if doubling_h is None else f"{middle:.1f} h ({min(low, high):.1f}–{max(low, high):.1f})"
    return f"| {name} | {times} × {between_h:g} h | {told} | {held / len(found):.2f} | {right / WELLS:.2f} |"


def main(out: Path) -> None:
    lines = ["| wells | times | doubling time, and nine wells of ten | in their 90 % interval | said rightly |"]
    lines += ["|---|---|---|---|---|", *(row(name, *series) for name in DOUBLINGS for series in SERIES)]
    out.mkdir(parents=True, exist_ok=True)
    (out / "growth.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
