"""What came out of scoring a model: the scores, the rows that they were taken over, and what a report shows besides."""

from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from cellnet.config import Task
from cellnet.errors import DataError
from cellnet.metrics import MAIN, Rows, mean_interval
from cellnet.registry import Card, Evidence

WORST: Final = 8
"""Frames that a report shows."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """The worst tile of a frame, and where the network looks in it."""

    row: int
    """The frame's row."""
    tile_HW: NDArray[np.uint8]
    cam_HW: NDArray[np.float32]
    """0..1, by Grad-CAM."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores, and the truths and outputs that they were taken over."""

    scores: dict[str, Any]
    """The object that `cellnet evaluate --json` prints."""
    tiles: Rows
    frames: Rows
    sources: list[str]
    """The files of the frames."""
    card: Card | None = None
    bank_digest: str = ""
    held: list[dict[str, Any]] = field(default_factory=list)
    """`lineage`, `split`, `frames` and `groups` of every part of the bank."""
    set_aside: list[str] = field(default_factory=list)
    """Files that the bank could not take, with the reasons."""
    worst: list[Picture] = field(default_factory=list)

    def rows(self, unit: str) -> Rows:
        """The rows of a `tile` or `frame`."""
        return self.tiles if unit == "tile" else self.frames


def title(scores: dict[str, Any]) -> str:
    """What was scored on what.

    >>> title({"model": "regressor-A549@1", "split": "holdout", "lineage": "A549"})
    'regressor-A549@1 on the A549 frames of the holdout split'
    """
    frames = f"the {scores['lineage']} frames of " if scores.get("lineage") else ""
    return f"{scores['model']} on {frames}the {scores['split']} split"


def worst_rows(task: Task, rows: Rows) -> list[int]:
    """The rows with the largest error, the worst first."""
    if task == "classify":
        error_N = 1 - rows.output[np.arange(len(rows.truth)), rows.truth]
    else:
        error_N = np.abs(rows.output - rows.truth)
    worst: list[int] = np.argsort(-error_N, kind="stable")[:WORST].tolist()
    return worst


def compare(challenger: Evaluation, champion: Evaluation, *, number: int, against: str | None = None) -> Evidence:
    """What a challenger is beside a champion, the version of that `number`, over the rows that both gave an answer to.

    `against` is the champion's reference, where it is of another model. By tile where both cut frames alike, else by
    frame. The difference of the main score is of pairs: both answers to one row, and groups are drawn, not rows (Efron
    & Tibshirani 1993, ch. 8). Raises DataError for models of different tasks, and where they have no frame in common.
    """
    task = challenger.scores["task"]
    if champion.scores["task"] != task:
        raise DataError(f"{challenger.scores['model']} and {champion.scores['model']} do different tasks")
    alike = challenger.sources == champion.sources and challenger.tiles.groups == champion.tiles.groups
    unit: Literal["tile", "frame"] = "tile" if alike and _same_truth(challenger.tiles, champion.tiles) else "frame"
    rows = [evaluation.rows(unit) for evaluation in (challenger, champion)]
    chosen = [np.arange(len(one.truth)) for one in rows]
    if not alike:
        places = [{source: row for row, source in enumerate(one.sources)} for one in (challenger, champion)]
        common = [source for source in challenger.sources if source in places[1]]
        if not common:
            raise DataError(f"no frame of the {challenger.scores['split']} split can be used by both models")
        chosen = [np.array([where[source] for source in common]) for where in places]
    good = [_goodness(task, one)[which] for one, which in zip(rows, chosen, strict=True)]
    groups: list[str] = np.array(rows[0].groups)[chosen[0]].tolist()
    difference_N = good[0] - good[1]
    low, high = mean_interval(difference_N, groups)
    return Evidence(
        champion=number,
        against=against,
        lineage=challenger.scores.get("lineage"),
        bank="" if challenger.card is None else challenger.card.bank,
        bank_digest=challenger.bank_digest,
        split=challenger.scores["split"],
        unit=unit,
        score=MAIN[task],
        n=len(difference_N),
        groups=len(set(groups)),
        values=(abs(float(good[0].mean())), abs(float(good[1].mean()))),
        difference=float(difference_N.mean()),
        interval=(low, high),
        same_bank=(challenger.scores["same_bank"], champion.scores["same_bank"]),
    )


def _same_truth(one: Rows, other: Rows) -> bool:
    return len(one.truth) == len(other.truth) and bool(np.allclose(one.truth, other.truth, equal_nan=True))


def _goodness(task: Task, rows: Rows) -> NDArray[np.float64]:
    """Of each row, more is better: 1 or 0 for right or wrong, or the error of a count, negated."""
    if task == "classify":
        return np.asarray(rows.output.argmax(1) == rows.truth, np.float64)
    return np.asarray(-np.abs(rows.output - rows.truth), np.float64)
