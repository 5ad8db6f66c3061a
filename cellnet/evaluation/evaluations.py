"""What came out of scoring a model: the scores, the rows that they were taken over, and what a report shows besides."""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cellnet.evaluation.metrics import Rows
from cellnet.images.tiles import Box
from cellnet.registry.records import Card, Chosen, CrossValidation, MainScore
from cellnet.tasks import TASKS, Task

WORST: Final = 8
"""Frames that a report shows."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A frame, its worst tile, and what the network found in the one and where it looks in the other."""

    row: int
    """The frame's row."""
    frame_HW: NDArray[np.uint8]
    """The whole frame, made smaller, in the contrast that the network gets."""
    box: Box
    """The tile, in pixels of `frame_HW`."""
    tile_HW: NDArray[np.uint8]
    """As the network sees it."""
    cam_HW: NDArray[np.float32]
    """0..1, by Grad-CAM."""
    truth: float
    """Cells in the tile, NaN where that is not known; of a classifier the index of the lineage."""
    output: NDArray[np.float32]
    """What was said of the tile: a count () or probabilities (K,)."""
    found_HW: NDArray[np.float32] | None = None
    """Cells in each pixel of `frame_HW` as the published counter finds them, whose sum is its count; None of one that
    knows no places."""
    centres_N2: NDArray[np.float32] | None = None
    """The known centres, columns x and y in pixels of `frame_HW`; None where they are not known."""


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
    bank_entry: int = 0
    """Of the bank's log, whose labels the scores were taken on."""
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
    if scores.get("cross_validation"):
        frames = f" on frames of {scores['lineage']}" if scores.get("lineage") else ""
        return f"{scores['model']}{frames}, {CrossValidation(**scores['cross_validation'])}"
    frames = f"the {scores['lineage']} frames of " if scores.get("lineage") else ""
    return f"{scores['model']} on {frames}the {scores['split']} split"


def gaps(scores: dict[str, Any]) -> list[str]:
    """What the scores of a cross-validation do not say, a sentence each."""
    return list(CrossValidation(**scores["cross_validation"]).gaps()) if scores.get("cross_validation") else []


def how_new(scores: dict[str, Any]) -> str:
    """How the scores of new batches came about, where it was beside the other scores."""
    return str(CrossValidation(**scores["batch_validation"])) if scores.get("batch_validation") else ""


def is_own_test(scores: dict[str, Any]) -> bool:
    """Whether the frames are those of the test split that chose the model's epoch and calibrated it."""
    own = scores["split"] == "test" and scores["same_bank"] and scores.get("protocol") != "paper"
    return own and not scores.get("refitted")


def what_it_learned(scores: dict[str, Any]) -> str:
    """How many of the frames the model learned from, for a person; empty where it is none, or not known.

    >>> what_it_learned({"learned": 1, "frame": {"n": 40}})
    '1 of 40 frames is one that the model learned from, or a near-duplicate of one'
    """
    learned = scores.get("learned")
    if not learned:
        return ""
    these = "is one" if learned == 1 else "are ones"
    copies = "a near-duplicate of one" if learned == 1 else "near-duplicates of them"
    return f"{learned} of {scores['frame']['n']} frames {these} that the model learned from, or {copies}"


def chosen_of(scores: dict[str, Any]) -> Chosen | None:
    """How many of the frames were chosen for what they teach, and the main scores of the others; None for none."""
    chosen = scores.get("chosen")
    if not chosen:
        return None
    others = chosen["others"] and main_scores(scores["task"], chosen["others"])
    return Chosen(frames=chosen["frames"], of=chosen["of"], others=others)


def main_scores(task: Task, of: dict[str, Any]) -> dict[str, MainScore]:
    """The main score per `tile` and `frame`."""
    main = TASKS[task].main
    return {
        unit: MainScore(score=main, value=row[main], interval=row[f"{main}_interval"], n=row["n"])
        for unit, row in of.items()
    }


def worst_rows(task: Task, rows: Rows) -> list[int]:
    """The rows with the largest error, the worst first; none that was named or counted right (`right`)."""
    if task == "classify":
        error_N = 1 - rows.output[np.arange(len(rows.truth)), rows.truth]
    else:
        error_N = np.abs(rows.output - rows.truth)
    right_N = right(task, rows)
    return [row for row in np.argsort(-error_N, kind="stable").tolist() if not right_N[row]][:WORST]


def right(task: Task, rows: Rows) -> NDArray[np.bool_]:
    """Which rows (N,) were named right, or counted right to half a cell."""
    answer_N = rows.output.argmax(1) == rows.truth if task == "classify" else np.abs(rows.output - rows.truth) < 0.5
    return np.asarray(answer_N)
