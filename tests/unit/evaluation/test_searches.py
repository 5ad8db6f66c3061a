"""Which settings a search tries, which finalist wins, and the table of all."""

import io
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from cellnet.config.loading import load_checked
from cellnet.config.train import TrainConfig
from cellnet.config.tune import Range, TuneConfig
from cellnet.errors import ConfigError, DataError
from cellnet.evaluation.searches import (
    Combination,
    Finalist,
    Trial,
    compare_combinations,
    explain_winner,
    goodness,
    group_trials,
    rank_trials,
    sample_settings,
    standings,
    table_to_parquet,
    tabulate,
    trial_name,
    winner_of,
)

TRAIN = TrainConfig(task="count", epochs=4)


def test_without_a_number_of_trials_every_combination_is_tried_once() -> None:
    config = TuneConfig(space={"kernel": ("none", "edge"), "model.width": (4, 8, 16)}, train=TRAIN)
    chosen = sample_settings(config)
    assert len(chosen) == 6 and {"kernel": "edge", "model.width": 8} in chosen
    assert sample_settings(config.model_copy(update={"trials": 99})) == chosen


def test_a_number_of_trials_chooses_so_many_none_twice_and_the_same_for_a_seed() -> None:
    config = TuneConfig(space={"kernel": ("none", "edge"), "model.width": (4, 8, 16)}, trials=4, train=TRAIN)
    chosen = sample_settings(config)
    assert len({tuple(settings.values()) for settings in chosen}) == 4 and sample_settings(config) == chosen
    other = config.model_copy(update={"train": TRAIN.model_copy(update={"seed": 1})})
    assert sample_settings(other) != chosen


def test_ranges_are_sampled_within_their_ends_whole_or_by_their_logarithm() -> None:
    space = {
        "learning_rate": Range(low=1e-4, high=1e-1, log=True),
        "model.width": Range(low=4, high=64, log=True),
        "model.depth": Range(low=1, high=3),
        "model.dropout": Range(low=0.0, high=0.5),
    }
    chosen = sample_settings(TuneConfig(space=space, trials=400, train=TRAIN))
    rates = np.array([settings["learning_rate"] for settings in chosen])
    assert 1e-4 <= rates.min() < 1.2e-4 and 8e-2 < rates.max() <= 1e-1
    assert np.median(rates) == pytest.approx(10**-2.5, rel=0.4), "as many below as above"
    assert {settings["model.depth"] for settings in chosen} == {1, 2, 3}
    widths = [settings["model.width"] for settings in chosen]
    assert min(widths) == 4 and max(widths) == 64 and all(isinstance(width, int) for width in widths)
    assert all(0 <= settings["model.dropout"] <= 0.5 for settings in chosen)
    assert len(sample_settings(TuneConfig(space={"model.depth": Range(low=1, high=3)}, trials=9, train=TRAIN))) == 3


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"kernel": ["blur"]}, r"space.kernel: Input should be 'none', .*\(seen: 'blur'\)"),
        ({"colour": [1]}, "space.colour: there is no such setting; cellnet settings lists all"),
        ({"augment": {"shares": [[1.0]]}}, "augment.shares is in the shards, which all trials share"),
        ({"seed": [1, 2]}, "seed is not a choice; the finalists are trained with several"),
        ({"learning_rate": {"low": 1e-4, "high": 1e-2}}, "say how many trials, for example --trials 20"),
        ({"model.width": {"low": 4, "high": 1000}}, "space.model.width: Input should be less than or equal to 512"),
        ({}, "space names nothing to search"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_a_line_that_names_it(space: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_checked(TuneConfig, {"space": space, "train": {"task": "count"}})


def finalist(*good: list[float], parameters: int = 100) -> Finalist:
    return Finalist(settings={}, parameters=parameters, good_SN=np.array(good))


GROUPS = [f"g{tile // 4}" for tile in range(40)]
RNG = np.random.default_rng(0)


def noisy(mean: float, seeds: int = 3) -> list[list[float]]:
    return (mean + RNG.normal(0, 0.1, (seeds, 40))).tolist()


def test_a_clear_winner_wins_whatever_its_size() -> None:
    finalists = [finalist(*noisy(-2.0), parameters=10), finalist(*noisy(-1.0), parameters=1000)]
    beside_best = standings(finalists, GROUPS)
    assert [standing.tied for standing in beside_best] == [False, True] and winner_of(finalists, beside_best) == 1
    assert beside_best[0].behind == pytest.approx(1.0, abs=0.1) and beside_best[0].behind_interval[0] > 0.9
    assert beside_best[1].score == pytest.approx(1.0, abs=0.1) and beside_best[1].behind == 0
    low, high = beside_best[1].interval
    assert low < beside_best[1].score < high


def test_a_tie_goes_to_the_smaller_network_and_among_equals_to_the_better() -> None:
    same = noisy(-1.0)
    finalists = [
        finalist(*same, parameters=1000),
        finalist(*(np.array(same) - 0.001).tolist(), parameters=10),
        finalist(*(np.array(same) - 0.002).tolist(), parameters=10),
    ]
    assert winner_of(finalists, standings(finalists, GROUPS)) == 1


def test_a_lucky_seed_does_not_win() -> None:
    rows = np.full((1, 40), -1.0)
    steady = finalist(*[(rows[0]).tolist()] * 3, parameters=10)
    lucky = finalist((rows[0] + 0.3).tolist(), (rows[0] - 0.2).tolist(), (rows[0] - 0.1).tolist(), parameters=1000)
    finalists = [lucky, steady]
    beside_best = standings(finalists, GROUPS)
    assert beside_best[0].tied and winner_of(finalists, beside_best) == 1
    alone = [finalist((rows[0] + 0.3).tolist(), parameters=1000), finalist(rows[0].tolist(), parameters=10)]
    assert winner_of(alone, standings(alone, GROUPS)) == 0, "of one seed each it would have won"


def test_the_mean_of_goodness_is_the_steering_score() -> None:
    truth = np.array([0] * 9 + [1])
    output = np.eye(2)[[0] * 9 + [0]]
    assert goodness("classify", truth, output).mean() == pytest.approx(0.5), "balanced"
    assert goodness("count", np.array([1.0, 3.0]), np.array([2.0, 3.0])).mean() == -0.5


def trial(kernel: str, seed: int = 0, **came_to: object) -> Trial:
    settings = {"kernel": kernel, "model.width": 8}
    facts = {"name": trial_name(settings, seed), "settings": settings, "seed": seed, "of_epochs": 4, "seconds": 1.26}
    return Trial.model_validate(facts | {"parameters": 100} | came_to)


BEST, SECOND = trial("none", score=1.0, epochs=4), trial("none", seed=1, score=1.2, epochs=4)
WORSE, WORSE_AGAIN = trial("edge", score=2.0, epochs=4), trial("edge", seed=1, score=2.2, epochs=4)
LUCKY = trial("median", score=0.5, epochs=4)
STOPPED = trial("sharpen", score=0.1, epochs=2)
FAILED = trial("emboss", error="training diverged")


def compared(*combinations: tuple[list[Trial], Finalist | None]) -> list[Combination]:
    asked = [Combination(trials=trials, finalist=finalist) for trials, finalist in combinations]
    return compare_combinations(asked, GROUPS, seed=0)


def test_trials_are_ranked_by_how_far_they_came_and_then_by_their_score() -> None:
    trials = [FAILED, STOPPED, SECOND, BEST]
    assert rank_trials("count", trials) == [BEST, SECOND, STOPPED, FAILED]
    assert rank_trials("classify", trials) == [SECOND, BEST, STOPPED, FAILED], "more is better"


def test_trials_of_the_same_settings_are_one_combination() -> None:
    combinations = group_trials([BEST, WORSE, SECOND, FAILED])
    assert [combination.trials for combination in combinations] == [[BEST, SECOND], [WORSE], [FAILED]]


@pytest.mark.parametrize(
    ("trials", "why"),
    [
        ([FAILED, trial("none")], "every trial failed; the first said: training diverged"),
        ([trial("none")], "no trial came to a score"),
        ([], "no trial came to a score"),
    ],
)
def test_a_search_without_a_score_has_no_winner(trials: list[Trial], why: str) -> None:
    with pytest.raises(DataError, match=why):
        group_trials(trials)


def test_only_those_of_the_most_seeds_can_win_and_the_table_says_what_became_of_each() -> None:
    combinations = compared(
        ([LUCKY], finalist(*noisy(-0.5, 1))),
        ([STOPPED], None),
        ([WORSE, WORSE_AGAIN], finalist(*noisy(-2.0, 2))),
        ([BEST, SECOND], finalist(*noisy(-1.0, 2))),
        ([FAILED], None),
    )
    assert explain_winner(combinations) == "no other finalist is within chance of it"
    rows = tabulate(combinations, "mae")
    assert [(row["rank"], row["kernel"], row["seeds"], row["note"]) for row in rows] == [
        (1, "none", 2, "winner"),
        (2, "edge", 2, ""),
        (3, "median", 1, ""),
        (4, "sharpen", 0, "stopped after 2 of 4 epochs"),
        (5, "emboss", 0, "failed: training diverged"),
    ]
    best, worse, lucky, stopped, failed = rows
    assert (best["width"], best["epochs"], best["seconds"], best["parameters"]) == (8, 8, 2.5, 100)
    assert best["mae"] == pytest.approx(1.0, abs=0.1) and worse["mae"] == pytest.approx(2.0, abs=0.1)
    assert all(row["low"] < row["mae"] < row["high"] for row in (best, worse, lucky))
    assert [(row["mae"], row["low"], row["high"]) for row in (stopped, failed)] == [(0.1, None, None), (None,) * 3]


def test_the_winner_is_explained_by_those_within_chance_of_it() -> None:
    good = noisy(-1.0, 2)
    small = [one.model_copy(update={"parameters": 10}) for one in (WORSE, WORSE_AGAIN)]
    twins = ([BEST, SECOND], finalist(*good, parameters=100)), (small, finalist(*good, parameters=10))
    smallest = compared(*twins)
    assert smallest[0].trials == small
    assert explain_winner(smallest) == "the smallest of 2 finalists that are within chance of each other"
    assert [row["note"] for row in tabulate(smallest, "mae")] == ["winner", "within chance of the best"]
    alike = [replace(combination, trials=[BEST]) for combination in smallest]
    assert explain_winner(alike) == "the best of 2 finalists that are within chance of each other"
    assert explain_winner(group_trials([STOPPED])) == "the best so far, which was not trained to its end"


def test_a_table_keeps_numbers_and_writes_values_of_several_kinds_as_text() -> None:
    rows = [{"mae": 1, "low": None, "depth": "auto"}, {"mae": 0.5, "low": 0.25, "depth": 3}]
    table = pq.read_table(io.BytesIO(table_to_parquet(rows))).to_pydict()
    assert table == {"mae": [1.0, 0.5], "low": [None, 0.25], "depth": ["auto", "3"]}
