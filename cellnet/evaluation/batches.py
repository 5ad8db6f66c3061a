"""Scores by what a model has seen of a batch, `same` and `new`, and by the age of the cells.

A batch is what was prepared and recorded together. Scores over frames of the batches that a model learned from say how
it does on more of the same plates, scores over frames of others how it does on the next plate, which is mostly worse
(Koh et al. 2021, arXiv:2012.07421). Frames that it learned from, or nearly, are in neither.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cellnet.evaluation.metrics import Rows, Scores, score
from cellnet.registry.learned import UNMEASURED, Side
from cellnet.tasks import Task

SIDES: Final[tuple[Side, ...]] = ("same", "new")
AGES: Final = 4
"""Bins of age at most."""
FEWEST_FRAMES: Final = 2
"""Of a bin of age."""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What a model said of some frames, tile by tile and as a whole."""

    task: Task
    classes: Sequence[str]
    """The lineages in the order of the probabilities; empty for a counter."""
    tiles: Rows
    frames: Rows
    tiles_of: Sequence[int]
    """How many of the tiles each frame has, which lie in the frames' order."""

    def scores(self, chosen_N: NDArray[np.bool_] | None = None) -> dict[str, Scores]:
        """Per tile and per frame, over all frames or the chosen ones."""
        tiles, frames = self.tiles, self.frames
        if chosen_N is not None:
            tiles, frames = tiles.only(np.repeat(chosen_N, self.tiles_of)), frames.only(chosen_N)
        return {"tile": score(self.task, tiles, self.classes), "frame": score(self.task, frames, self.classes)}


def by_batch(answered: Answered, sides: Iterable[Side | None]) -> dict[str, dict[str, Scores] | None]:
    """Scores over the frames of each side, by the side that each frame is on; None where there are none."""
    side_N = np.array([side or "" for side in sides])
    return {side: answered.scores(side_N == side) if side in side_N else None for side in SIDES}


def by_age(answered: Answered, ages_h: Iterable[float | None]) -> list[dict[str, Any]]:
    """Scores over frames of like age, by each frame's hours since seeding, with the ends of each bin."""
    hours_N = np.array([np.nan if age is None else age for age in ages_h], np.float64)
    return [
        {"from": float(hours_N[chosen_N].min()), "to": float(hours_N[chosen_N].max()), **answered.scores(chosen_N)}
        for chosen_N in age_bins(hours_N)
    ]


def age_bins(hours_N: NDArray[np.float64]) -> list[NDArray[np.bool_]]:
    """Which frames (N,) each bin of age holds, the youngest first; NaN is in none.

    Quantiles, four at most, so that bins hold alike many frames. Frames of one age are together, and a bin of a single
    frame joins its neighbour.

    >>> [chosen.nonzero()[0].tolist() for chosen in age_bins(np.array([72.0, 0.0, 2.0, np.nan, 48.0]))]
    [[1, 2], [0, 4]]
    """
    known_N = hours_N[~np.isnan(hours_N)]
    number = min(AGES, len(known_N) // FEWEST_FRAMES)
    if not number:
        return []
    edges = np.unique(np.quantile(known_N, np.linspace(0, 1, number + 1)[1:-1], method="lower"))
    bin_N = np.where(np.isnan(hours_N), -1, np.searchsorted(edges, hours_N))
    bins: list[NDArray[np.bool_]] = []
    for inside_N in (bin_N == index for index in np.unique(bin_N[bin_N >= 0])):
        if bins and min(inside_N.sum(), bins[-1].sum()) < FEWEST_FRAMES:
            bins[-1] = bins[-1] | inside_N
        else:
            bins.append(inside_N)
    return bins


def next_plate(scores: dict[str, Any]) -> str:
    """What must be said of an evaluation without a score of new batches; empty for one that has it, or has neither."""
    batches = scores.get("batches")
    return UNMEASURED if batches and batches["new"] is None else ""
