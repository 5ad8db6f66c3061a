"""How a training stands after an epoch, and which of its epochs is the best."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cellnet.config.train import TrainConfig
from cellnet.tasks import TASKS, Task


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one epoch came to, over all workers."""

    number: int
    """From 1."""
    loss: float
    """Mean over the epoch's training tiles."""
    test: dict[str, float]
    """Scores over the test tiles; empty when the bank has no test split."""
    seconds: float
    """All of it, scoring too."""
    tiles: int
    """Training tiles."""
    tiles_per_s: float
    """While training, without the scoring."""
    waiting: float
    """Share of the training's time in which it waited for data."""
    dead: bool
    """Whether it is a counter that gave the same count for every tile it was asked about."""


@dataclass(frozen=True, kw_only=True)
class TrainState:
    """A training after an epoch: what it needs to go on from there.

    Random states are not part of it: they begin anew in every epoch from the seed, the epoch and the worker.
    So is the order of the tiles, and the position in an epoch is always its end.
    """

    history: tuple[Epoch, ...]
    weights: dict[str, Tensor]
    """A copy, on the CPU."""
    moments: dict[str, Tensor]
    """The optimizer's tensors, on the CPU: `3.exp_avg` is the gradient's mean of the fourth parameter."""
    rates: dict[str, Any]
    """The optimizer's and the schedule's numbers, as JSON has them."""


def is_better(task: Task, score: float, than: float | None) -> bool:
    """Whether a score of the steering kind beats another (anything beats None)."""
    return than is None or (score > than if TASKS[task].more_is_better else score < than)


def best_epoch(task: Task, history: Sequence[Epoch]) -> Epoch:
    """The first of the epochs with the best steering score; the last where there is no test split."""
    best = history[0]
    for epoch in history[1:]:
        score, to_beat = (scored.test.get(TASKS[task].steering) for scored in (epoch, best))
        if score is None or is_better(task, score, to_beat):
            best = epoch
    return best


def is_over(config: TrainConfig, history: Sequence[Epoch]) -> bool:
    """Whether every epoch is done, or `patience` of them went by without a better steering score."""
    if not history:
        return False
    stale = history[-1].number - best_epoch(config.task, history).number
    return history[-1].number >= int(config.epochs) or (config.patience is not None and stale >= config.patience)
