"""A search as plain data: which settings are tried, what the trials came to, and which finalist wins."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cellnet.config.loading import Frozen
from cellnet.config.tune import Range, Settings, TuneConfig
from cellnet.tasks import Task

DRAWS: Final = 2000
"""Of a bootstrap."""
MOST_TRIES: Final = 1000
"""To draw a combination that was not drawn yet."""


class Trial(Frozen):
    """One training of a search."""

    name: str = Field(pattern="^[0-9a-z]{1,40}$")
    """A digest of its settings and seed, which its files are called after."""
    settings: Settings
    seed: int
    score: float | None = None
    """The steering score of its best epoch; None of a trial that failed before its first."""
    epochs: int = 0
    """That it had."""
    of_epochs: int = 0
    """That it was to have."""
    seconds: float = 0.0
    parameters: int = 0
    history: tuple[dict[str, Any], ...] = ()
    error: str | None = None
    """Why it failed."""

    @property
    def whole(self) -> bool:
        """Whether it went to its end, neither failed nor stopped for being behind."""
        return self.error is None and self.score is not None and self.epochs >= self.of_epochs


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """A combination of settings with what its trainings say of the test tiles."""

    settings: Settings
    parameters: int
    good_SN: NDArray[np.float64]
    """By seed and tile, more is better; the mean over tiles is the steering score, negated where less is better."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A finalist beside the best one."""

    score: float
    """The steering score, the mean over seeds."""
    interval: tuple[float, float]
    """95 %, over groups of tiles and over seeds."""
    behind: float
    """By how much the best finalist's mean is better."""
    behind_interval: tuple[float, float]
    tied: bool
    """Whether chance can explain it: the interval of `behind` holds 0."""


def combinations(config: TuneConfig) -> list[Settings] | None:
    """Every combination of the values of a search, or None where a range has no end of them."""
    if any(isinstance(values, Range) for values in config.space.values()):
        return None
    lists: list[Any] = list(config.space.values())
    return [dict(zip(config.space, chosen, strict=True)) for chosen in itertools.product(*lists)]


def smallest_batch(config: TuneConfig) -> int:
    """Tiles of a step, at least, of any trial."""
    sizes = config.space.get("batch_size", (config.train.batch_size,))
    return int(sizes.low if isinstance(sizes, Range) else min(sizes))


def draw(config: TuneConfig) -> list[Settings]:
    """The settings of a search's trials: all combinations, or so many at random, none twice, the same for a seed."""
    every = combinations(config)
    if every is not None and (config.trials is None or config.trials >= len(every)):
        return every
    assert config.trials is not None, "a range needs a number of trials"
    rng = np.random.default_rng(config.train.seed)
    if every is not None:
        return [every[i] for i in sorted(rng.choice(len(every), config.trials, replace=False))]
    drawn: list[Settings] = []
    for _ in range(config.trials * MOST_TRIES):
        settings = {key: _value(values, rng) for key, values in config.space.items()}
        if settings not in drawn:
            drawn.append(settings)
        if len(drawn) == config.trials:
            break
    return drawn


def _value(values: Any, rng: np.random.Generator) -> Any:
    if not isinstance(values, Range):
        return values[int(rng.integers(len(values)))]
    low, high = values.low, values.high
    if isinstance(low, int) and isinstance(high, int):
        if not values.log:
            return int(rng.integers(low, high + 1))
        # So that both ends are as likely as what is between: the logarithm of [low - 1/2, high + 1/2], rounded.
        drawn = math.exp(rng.uniform(math.log(low - 0.5), math.log(high + 0.5)))
        return min(high, max(low, round(drawn)))
    return math.exp(rng.uniform(math.log(low), math.log(high))) if values.log else float(rng.uniform(low, high))


def goodness(task: Task, truth_N: NDArray[Any], output: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Of each test tile, so that the mean is balanced accuracy, or the negative mean absolute error.

    >>> goodness("classify", np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])).tolist()
    [0.75, 0.0, 1.5]
    """
    if task == "count":
        return np.asarray(-np.abs(output - truth_N), np.float64)
    labels, of_N, n_K = np.unique(truth_N, return_inverse=True, return_counts=True)
    weight_N = len(truth_N) / (len(labels) * n_K[of_N])
    return np.asarray((output.argmax(1) == truth_N) * weight_N, np.float64)


def standings(finalists: Sequence[Finalist], groups: Sequence[str], *, seed: int = 0) -> list[Standing]:
    """Every finalist beside the one with the best mean, by a paired bootstrap over groups and seeds.

    Each draw takes groups of tiles with replacement, the same for all finalists, and of every finalist so many of its
    seeds (Bouthillier et al. 2021, arXiv 2103.03098: seeds vary scores as much as data do).
    """
    rng = np.random.default_rng(seed)
    names, of_N = np.unique(np.array(groups), return_inverse=True)
    member_NG = np.eye(len(names))[of_N]
    times_DG = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=DRAWS)
    tiles_D = times_DG @ member_NG.sum(0)
    drawn_FD, mean_F = [], []
    for finalist in finalists:
        seeds = len(finalist.good_SN)
        by_group_SG = finalist.good_SN @ member_NG
        share_DS = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=DRAWS) / seeds
        drawn_FD.append(((share_DS @ by_group_SG) * times_DG).sum(1) / tiles_D)
        mean_F.append(float(finalist.good_SN.mean()))
    best = int(np.argmax(mean_F))
    found = []
    for drawn_D, mean in zip(drawn_FD, mean_F, strict=True):
        low, high = _middle_95(drawn_FD[best] - drawn_D)
        found.append(
            Standing(
                score=abs(mean),
                interval=tuple(sorted(map(abs, _middle_95(drawn_D)))),  # type: ignore[arg-type]
                behind=mean_F[best] - mean,
                behind_interval=(low, high),
                tied=low <= 0,
            )
        )
    return found


def winner_of(finalists: Sequence[Finalist], found: Sequence[Standing]) -> int:
    """The finalist with the fewest parameters among those tied with the best; of equally many, the better."""
    tied = [index for index, standing in enumerate(found) if standing.tied]
    return min(tied, key=lambda index: (finalists[index].parameters, found[index].behind))


def _middle_95(drawn_D: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(drawn_D, [0.025, 0.975])
    return float(low), float(high)


def describe(settings: Settings) -> str:
    """Settings in a few words.

    >>> describe({"model.activation": "tanh", "kernel": "none", "learning_rate": 0.00123456})
    'activation tanh, kernel none, learning_rate 0.00123'
    """
    return ", ".join(f"{key.rpartition('.')[2]} {_short(value)}" for key, value in settings.items())


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
