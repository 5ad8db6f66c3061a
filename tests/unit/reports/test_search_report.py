"""The page of a search."""

import re
from typing import Any

from cellnet.config.train import TrainConfig
from cellnet.config.tune import Range, TuneConfig
from cellnet.evaluation.searches import Trial
from cellnet.reports.search_report import heat_cells, heat_sides, search_page
from tests.unit.reports.reading import HOSTILE, assert_harmless

CONFIG = TuneConfig(
    space={
        "model.activation": ("relu", "tanh"),
        "learning_rate": Range(low=1e-4, high=1e-2, log=True),
        "kernel": ("none", "edge"),
    },
    trials=3,
    train=TrainConfig(task="count", epochs=4),
)


def row(rank: int, activation: str, kernel: str, mae: float | None, *, low: float | None = 0.1, note: str = "") -> dict:
    settings = {"activation": activation, "learning_rate": 10.0**-rank, "kernel": kernel}
    figures = {"mae": mae, "low": low, "high": 0.9, "seeds": 2, "epochs": 8, "seconds": 3.0, "parameters": 99}
    return {"rank": rank, **settings, **figures, "note": note}


ROWS = [
    row(1, "tanh", "edge", 0.2, note="winner"),
    row(2, "tanh", "edge", 0.3),
    row(3, "relu", "none", 0.4),
    row(4, "relu", "edge", 0.9, low=None, note="stopped after 1 of 4 epochs"),
    row(5, "relu", "edge", None, low=None, note="failed: <b>out of memory</b>"),
]


def trial(place: int, epochs: int, **changes: Any) -> Trial:
    history = tuple({"test": {"mae": 1.0 / (epoch + place)}} for epoch in range(1, epochs + 1))
    settings = {"model.activation": "tanh", "learning_rate": 0.001, "kernel": "edge"}
    score = history[-1]["test"]["mae"] if history else None
    given = {"score": score, "epochs": epochs, "of_epochs": 4, "seconds": 60.0, "history": history} | changes
    return Trial(name=str(place), settings=settings, seed=place, **given)


TRIALS = [trial(0, 4), trial(1, 4), trial(2, 1), trial(3, 0, error="out of memory")]


def test_a_heat_map_holds_the_best_of_each_pair_of_values_and_no_trial_that_was_stopped() -> None:
    assert heat_sides(CONFIG) == {"activation": ["relu", "tanh"], "kernel": ["none", "edge"]}
    assert heat_cells(ROWS, ["activation", "kernel"], "mae") == {
        ("tanh", "edge"): (0.2, 0.1, 0.9),
        ("relu", "none"): (0.4, 0.1, 0.9),
    }


def test_the_page_tells_the_winner_its_interval_and_what_early_stopping_saved() -> None:
    page = search_page(CONFIG, TRIALS, ROWS, "mae", bank="/data/bank", model="regressor@4")
    text = re.sub("<[^>]+>", " ", page.replace("<wbr>", ""))
    assert "Search that found regressor@4" in text
    assert "the winner: activation tanh, learning_rate 0.1, kernel edge" in text
    assert re.search(r"test mae of the winner\s+0\.200\s+0\.100 to 0\.900, 2 seeds", text)
    assert re.search(r"epochs\s+9\s+of 16 without stopping early", text) and re.search(
        r"trainings\s+4\s+1 failed", text
    )
    assert re.search(r"time\s+4 min\s", text)
    short = [trial.model_copy(update={"seconds": 6.5}) for trial in TRIALS]
    sooner = re.sub("<[^>]+>", " ", search_page(CONFIG, short, ROWS, "mae", bank="b", model="regressor@4"))
    assert re.search(r"time\s+26 s\s", sooner)
    assert page.count('<td class="note">') == len(ROWS) and '<td class="note">winner</td>' in page
    assert page.count("<svg ") == 3, "heat map, parallel coordinates, learning curves"
    assert "tanh, 0.001, edge (seed 0)" in page


def test_names_from_outside_cannot_become_part_of_the_page() -> None:
    page = search_page(CONFIG, TRIALS, ROWS, "mae", bank=f"/data/{HOSTILE}", model=f"{HOSTILE}@4")
    assert_harmless(page, f"on /data/{HOSTILE};", f"Search that found {HOSTILE}@4", "failed: <b>out of memory</b>")


def test_one_combination_needs_no_plots_of_many() -> None:
    page = search_page(CONFIG, TRIALS[:1], ROWS[:1], "mae", bank="/data/bank", model="regressor@4")
    assert page.count("<svg ") == 1
