"""A search as plain data: which settings are tried, what the trials came to, which finalist wins, and its table."""

import hashlib
import io
import itertools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from cellnet.config.loading import Frozen
from cellnet.config.tune import Range, Settings, TuneConfig
from cellnet.errors import DataError
from cellnet.tasks import TASKS, Task

RESAMPLES: Final = 2000
"""Of a bootstrap."""
MOST_TRIES: Final = 1000
"""To find a combination that is not among the chosen ones yet."""


class Trial(Frozen):
    """One training of a search, as its record holds it; what a later cellnet adds to that is left alone."""

    model_config = ConfigDict(extra="ignore")

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


def trial_name(settings: Settings, seed: int) -> str:
    """The same for the same settings and seed."""
    return hashlib.sha256(json.dumps([settings, seed], sort_keys=True).encode()).hexdigest()[:12]


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


@dataclass(frozen=True, kw_only=True)
class Combination:
    """Settings that were tried, their trainings, and how good they are."""

    trials: list[Trial]
    """As they were ranked."""
    finalist: Finalist | None = None
    """Of settings that a training went to its end with."""
    standing: Standing | None = None
    """Likewise, once they are compared."""


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


def sample_settings(config: TuneConfig) -> list[Settings]:
    """The settings of a search's trials: all combinations, or so many at random, none twice, the same for a seed."""
    every = combinations(config)
    if every is not None and (config.trials is None or config.trials >= len(every)):
        return every
    assert config.trials is not None, "a range needs a number of trials"
    rng = np.random.default_rng(config.train.seed)
    if every is not None:
        return [every[i] for i in sorted(rng.choice(len(every), config.trials, replace=False))]
    chosen: list[Settings] = []
    for _ in range(config.trials * MOST_TRIES):
        settings = {key: _sample_value(values, rng) for key, values in config.space.items()}
        if settings not in chosen:
            chosen.append(settings)
        if len(chosen) == config.trials:
            break
    return chosen


def _sample_value(values: Any, rng: np.random.Generator) -> Any:
    if not isinstance(values, Range):
        return values[int(rng.integers(len(values)))]
    low, high = values.low, values.high
    if isinstance(low, int) and isinstance(high, int):
        if not values.log:
            return int(rng.integers(low, high + 1))
        # So that both ends are as likely as what is between: the logarithm of [low - 1/2, high + 1/2], rounded.
        value = math.exp(rng.uniform(math.log(low - 0.5), math.log(high + 0.5)))
        return min(high, max(low, round(value)))
    return math.exp(rng.uniform(math.log(low), math.log(high))) if values.log else float(rng.uniform(low, high))


def rank_trials(task: Task, trials: Iterable[Trial]) -> list[Trial]:
    """Those that went to their end, then others with a score, then those without; of each kind the better first."""
    sign = -1 if TASKS[task].more_is_better else 1
    return sorted(trials, key=lambda trial: (not trial.whole, trial.score is None, sign * (trial.score or 0)))


def group_trials(trials: Sequence[Trial]) -> list[Combination]:
    """Ranked trials by their settings, in that order. Raises DataError where none came to a score."""
    if not any(trial.score is not None and trial.error is None for trial in trials):
        errors = [trial.error for trial in trials if trial.error]
        raise DataError(f"every trial failed; the first said: {errors[0]}" if errors else "no trial came to a score")
    by_settings: dict[str, list[Trial]] = {}
    for trial in trials:
        by_settings.setdefault(trial_name(trial.settings, 0), []).append(trial)
    return [Combination(trials=alike) for alike in by_settings.values()]


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

    Each resample takes groups of tiles with replacement, the same for all finalists, and of every finalist so many of
    its seeds (Bouthillier et al. 2021, arXiv 2103.03098: seeds vary scores as much as data do).
    """
    rng = np.random.default_rng(seed)
    names, of_N = np.unique(np.array(groups), return_inverse=True)
    member_NG = np.eye(len(names))[of_N]
    times_RG = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
    tiles_R = times_RG @ member_NG.sum(0)
    good_FR, mean_F = [], []
    for finalist in finalists:
        seeds = len(finalist.good_SN)
        by_group_SG = finalist.good_SN @ member_NG
        share_RS = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES) / seeds
        good_FR.append(((share_RS @ by_group_SG) * times_RG).sum(1) / tiles_R)
        mean_F.append(float(finalist.good_SN.mean()))
    best = int(np.argmax(mean_F))
    beside_best = []
    for good_R, mean in zip(good_FR, mean_F, strict=True):
        low, high = _middle_95(good_FR[best] - good_R)
        beside_best.append(
            Standing(
                score=abs(mean),
                interval=tuple(sorted(map(abs, _middle_95(good_R)))),  # type: ignore[arg-type]
                behind=mean_F[best] - mean,
                behind_interval=(low, high),
                tied=low <= 0,
            )
        )
    return beside_best


def winner_of(finalists: Sequence[Finalist], beside_best: Sequence[Standing]) -> int:
    """The finalist with the fewest parameters among those tied with the best; of equally many, the better."""
    tied = [index for index, standing in enumerate(beside_best) if standing.tied]
    return min(tied, key=lambda index: (finalists[index].parameters, beside_best[index].behind))


def _middle_95(value_R: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(value_R, [0.025, 0.975])
    return float(low), float(high)


def compare_combinations(combinations: Sequence[Combination], groups: Sequence[str], *, seed: int) -> list[Combination]:
    """The winner first, then the others with the most seeds, the best first, then the rest in the order it had.

    `groups` are those of the tiles that the finalists were asked about; there is at least one finalist.
    """
    most = max(_seeds(combination) for combination in combinations)
    final = [combination for combination in combinations if _seeds(combination) == most]
    rest = [_alone(combination, groups, seed) for combination in combinations if _seeds(combination) < most]
    finalists = [combination.finalist for combination in final if combination.finalist]
    beside_best = standings(finalists, groups, seed=seed)
    final = [replace(combination, standing=beside) for combination, beside in zip(final, beside_best, strict=True)]
    winner = final.pop(winner_of(finalists, beside_best))
    others = sorted(final, key=lambda combination: combination.standing.behind if combination.standing else 0)
    return [winner, *others, *rest]


def _seeds(combination: Combination) -> int:
    """With how many of them a training went to its end."""
    return len(combination.finalist.good_SN) if combination.finalist else 0


def _alone(combination: Combination, groups: Sequence[str], seed: int) -> Combination:
    """One with too few seeds to be compared, with its own interval."""
    if combination.finalist is None:
        return combination
    [standing] = standings([combination.finalist], groups, seed=seed)
    return replace(combination, standing=replace(standing, tied=False))


def tabulate(combinations: Sequence[Combination], steering: str) -> list[dict[str, Any]]:
    """A row for each combination of settings, the best first; the score is the mean over its seeds."""
    return [_row(combination, rank, steering) for rank, combination in enumerate(combinations, start=1)]


def _row(combination: Combination, rank: int, steering: str) -> dict[str, Any]:
    trials, standing = combination.trials, combination.standing
    return {
        "rank": rank,
        **{key.rpartition(".")[2]: value for key, value in trials[0].settings.items()},
        steering: standing.score if standing else trials[0].score,
        "low": standing.interval[0] if standing else None,
        "high": standing.interval[1] if standing else None,
        "seeds": sum(trial.whole for trial in trials),
        "epochs": sum(trial.epochs for trial in trials),
        "seconds": round(sum(trial.seconds for trial in trials), 1),
        "parameters": trials[0].parameters,
        "note": _note(combination, rank),
    }


def _note(combination: Combination, rank: int) -> str:
    if rank == 1:
        return "winner"
    first, *_ = combination.trials
    errors = [f"failed: {trial.error}" for trial in combination.trials if trial.error]
    if errors:
        return errors[0]
    if combination.standing and combination.standing.tied:
        return "within chance of the best"
    return "" if combination.finalist else f"stopped after {first.epochs} of {first.of_epochs} epochs"


def explain_winner(combinations: Sequence[Combination]) -> str:
    """Why the first of them is it, in a few words."""
    tied = [tried for tried in combinations if tried.standing and tried.standing.tied]
    if not tied:
        return "the best so far, which was not trained to its end"
    if len(tied) == 1:
        return "no other finalist is within chance of it"
    smaller = combinations[0].trials[0].parameters < max(tried.trials[0].parameters for tried in tied)
    return f"the {'smallest' if smaller else 'best'} of {len(tied)} finalists that are within chance of each other"


def table_to_parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    """A search's table as a Parquet file; values of settings that are of several kinds as text."""
    buffer = io.BytesIO()
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    kinds = {name: {type(value) for value in values if value is not None} for name, values in columns.items()}
    numbers = {int, float}
    plain = {
        name: values if len(kinds[name]) <= 1 or kinds[name] == numbers else list(map(str, values))
        for name, values in columns.items()
    }
    pq.write_table(pa.table(plain), buffer)
    return buffer.getvalue()


def describe(settings: Settings) -> str:
    """Settings in a few words.

    >>> describe({"model.activation": "tanh", "kernel": "none", "learning_rate": 0.00123456})
    'activation tanh, kernel none, learning_rate 0.00123'
    """
    return ", ".join(f"{key.rpartition('.')[2]} {_short(value)}" for key, value in settings.items())


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
