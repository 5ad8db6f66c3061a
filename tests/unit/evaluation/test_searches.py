"""Which settings a search tries, and which finalist wins."""

import numpy as np
import pytest

from cellnet.config.loading import load_checked
from cellnet.config.train import TrainConfig
from cellnet.config.tune import Range, TuneConfig
from cellnet.errors import ConfigError
from cellnet.evaluation.searches import Finalist, draw, goodness, standings, winner_of

TRAIN = TrainConfig(task="count", epochs=4)


def test_without_a_number_of_trials_every_combination_is_tried_once() -> None:
    config = TuneConfig(space={"kernel": ("none", "edge"), "model.width": (4, 8, 16)}, train=TRAIN)
    drawn = draw(config)
    assert len(drawn) == 6 and {"kernel": "edge", "model.width": 8} in drawn
    assert draw(config.model_copy(update={"trials": 99})) == drawn


def test_a_number_of_trials_draws_so_many_none_twice_and_the_same_for_a_seed() -> None:
    config = TuneConfig(space={"kernel": ("none", "edge"), "model.width": (4, 8, 16)}, trials=4, train=TRAIN)
    drawn = draw(config)
    assert len({tuple(one.values()) for one in drawn}) == 4 and draw(config) == drawn
    other = config.model_copy(update={"train": TRAIN.model_copy(update={"seed": 1})})
    assert draw(other) != drawn


def test_ranges_are_drawn_within_their_ends_whole_or_by_their_logarithm() -> None:
    space = {
        "learning_rate": Range(low=1e-4, high=1e-1, log=True),
        "model.width": Range(low=4, high=64, log=True),
        "model.depth": Range(low=1, high=3),
        "model.dropout": Range(low=0.0, high=0.5),
    }
    drawn = draw(TuneConfig(space=space, trials=400, train=TRAIN))
    rates = np.array([one["learning_rate"] for one in drawn])
    assert 1e-4 <= rates.min() < 1.2e-4 and 8e-2 < rates.max() <= 1e-1
    assert np.median(rates) == pytest.approx(10**-2.5, rel=0.4), "as many below as above"
    assert {one["model.depth"] for one in drawn} == {1, 2, 3}
    widths = [one["model.width"] for one in drawn]
    assert min(widths) == 4 and max(widths) == 64 and all(isinstance(width, int) for width in widths)
    assert all(0 <= one["model.dropout"] <= 0.5 for one in drawn)
    assert len(draw(TuneConfig(space={"model.depth": Range(low=1, high=3)}, trials=9, train=TRAIN))) == 3


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"kernel": ["blur"]}, r"space.kernel: Input should be 'none', .*\(seen: 'blur'\)"),
        ({"colour": [1]}, "space.colour: Extra inputs are not permitted"),
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
    found = standings(finalists, GROUPS)
    assert [standing.tied for standing in found] == [False, True] and winner_of(finalists, found) == 1
    assert found[0].behind == pytest.approx(1.0, abs=0.1) and found[0].behind_interval[0] > 0.9
    assert found[1].score == pytest.approx(1.0, abs=0.1) and found[1].behind == 0
    low, high = found[1].interval
    assert low < found[1].score < high


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
    found = standings(finalists, GROUPS)
    assert found[0].tied and winner_of(finalists, found) == 1
    alone = [finalist((rows[0] + 0.3).tolist(), parameters=1000), finalist(rows[0].tolist(), parameters=10)]
    assert winner_of(alone, standings(alone, GROUPS)) == 0, "of one seed each it would have won"


def test_the_mean_of_goodness_is_the_steering_score() -> None:
    truth = np.array([0] * 9 + [1])
    output = np.eye(2)[[0] * 9 + [0]]
    assert goodness("classify", truth, output).mean() == pytest.approx(0.5), "balanced"
    assert goodness("count", np.array([1.0, 3.0]), np.array([2.0, 3.0])).mean() == -0.5
