"""One model beside another, on the same frames."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cellnet.errors import DataError
from cellnet.evaluation.evaluations import Evaluation
from cellnet.evaluation.metrics import Rows, mean_interval
from cellnet.registry.records import Evidence
from cellnet.tasks import TASKS, Task


def compare(
    challenger: Evaluation,
    champion: Evaluation,
    *,
    number: int,
    against: str | None = None,
    seen: int | None = None,
    batches: Literal["new"] | None = None,
    frames: Literal["since"] | None = None,
) -> Evidence:
    """What a challenger is beside a champion, the version of that `number`, over the rows that both gave an answer to.

    `against` is the champion's reference, where it is of another model; `seen`, `batches` and `frames` say how the
    frames were chosen, as the evidence does. By tile where both cut frames alike, else by frame. The difference of the
    main score is of pairs: both answers to one row, and groups are resampled, not rows (Efron & Tibshirani 1993, ch.
    8). Raises DataError for models of different tasks, and where they have no frame in common.
    """
    task = challenger.scores["task"]
    if champion.scores["task"] != task:
        raise DataError(f"{challenger.scores['model']} and {champion.scores['model']} do different tasks")
    alike = challenger.sources == champion.sources and challenger.tiles.groups == champion.tiles.groups
    unit: Literal["tile", "frame"] = "tile" if alike and _same_truth(challenger.tiles, champion.tiles) else "frame"
    rows = [evaluation.rows(unit) for evaluation in (challenger, champion)]
    chosen = [np.arange(len(side.truth)) for side in rows]
    if not alike:
        places = [{source: row for row, source in enumerate(side.sources)} for side in (challenger, champion)]
        common = [source for source in challenger.sources if source in places[1]]
        if not common:
            raise DataError(f"no frame of the {challenger.scores['split']} split can be used by both models")
        chosen = [np.array([where[source] for source in common]) for where in places]
    good = [_goodness(task, side)[which] for side, which in zip(rows, chosen, strict=True)]
    groups: list[str] = np.array(rows[0].groups)[chosen[0]].tolist()
    difference_N = good[0] - good[1]
    low, high = mean_interval(difference_N, groups)
    return Evidence(
        champion=number,
        against=against,
        lineage=challenger.scores.get("lineage"),
        bank="" if challenger.card is None else challenger.card.bank,
        bank_digest=challenger.bank_digest,
        bank_entry=challenger.bank_entry or None,
        split=challenger.scores["split"] if frames or _same_split(challenger, champion) else "holdout",
        unit=unit,
        score=TASKS[task].main,
        n=len(difference_N),
        groups=len(set(groups)),
        values=(abs(float(good[0].mean())), abs(float(good[1].mean()))),
        difference=float(difference_N.mean()),
        interval=(low, high),
        same_bank=(challenger.scores["same_bank"], champion.scores["same_bank"]),
        seen=seen,
        batches=batches,
        frames=frames,
    )


def _same_split(one: Evaluation, other: Evaluation) -> bool:
    return bool(one.scores["split"] == other.scores["split"])


def _same_truth(one: Rows, other: Rows) -> bool:
    return len(one.truth) == len(other.truth) and bool(np.allclose(one.truth, other.truth, equal_nan=True))


def _goodness(task: Task, rows: Rows) -> NDArray[np.float64]:
    """Of each row, more is better: 1 or 0 for right or wrong, or the error of a count, negated."""
    if task == "classify":
        return np.asarray(rows.output.argmax(1) == rows.truth, np.float64)
    return np.asarray(-np.abs(rows.output - rows.truth), np.float64)
