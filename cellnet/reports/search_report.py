"""A search as a page that one can look at: which settings win, by how much, and how the trials got there."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import yaml

from cellnet.config.tune import Range, TuneConfig
from cellnet.evaluation.searches import Trial, describe
from cellnet.reports.pages import Headline, Plot, page, plot
from cellnet.reports.plots import draw_curves, draw_heat_map, draw_parallel
from cellnet.tasks import TASKS

NAMED: Final = 4
"""Trials whose learning curves have a colour."""


def search_page(
    config: TuneConfig, trials: Sequence[Trial], rows: list[dict[str, Any]], score: str, *, bank: str, model: str
) -> str:
    """The page of a search that came to `model`, from its trials and the rows of its table."""
    winner = describe(trials_settings(rows[0], config))
    scores = (score, "low", "high")
    return page(
        "search.html",
        title=f"Search that found {model}",
        lead=f"{len(rows)} combinations, {len(trials)} trainings, on {bank}; the winner: {winner}",
        headlines=_headlines(rows, trials, score, frozen=bool(config.train.model.frozen)),
        plots=_plots(config, trials, rows, score),
        combinations=[
            [*rows[0]],
            *([_text(value, exact=key not in scores) for key, value in row.items()] for row in rows),
        ],
        configuration=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
    )


def trials_settings(row: dict[str, Any], config: TuneConfig) -> dict[str, Any]:
    """The settings of a row of the table, by their dotted keys."""
    return {key: row[key.rpartition(".")[2]] for key in config.space}


def _headlines(rows: list[dict[str, Any]], trials: Sequence[Trial], score: str, *, frozen: bool) -> list[Headline]:
    best = rows[0]
    span = (
        ""
        if best["low"] is None
        else f"{best['low']:.3f} to {best['high']:.3f}, {best['seeds']} seed{'s' * (best['seeds'] != 1)}"
    )
    had, wanted = sum(trial.epochs for trial in trials), sum(trial.of_epochs for trial in trials)
    failed = sum(trial.error is not None for trial in trials)
    saved = f"of {wanted:,} without stopping early" if wanted > had else "none was stopped early"
    seconds = sum(trial.seconds for trial in trials)
    return [
        Headline(f"test {score} of the winner", f"{best[score]:.3f}", span),
        Headline("trainings", str(len(trials)), f"{failed} failed"),
        Headline("fits of the last layers" if frozen else "epochs", f"{had:,}", "" if frozen else saved),
        Headline(
            "time",
            f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s",
            "all trainings, one after the other",
        ),
    ]


def _plots(config: TuneConfig, trials: Sequence[Trial], rows: list[dict[str, Any]], score: str) -> list[Plot]:
    more_is_better = TASKS[config.train.task].more_is_better
    scored = [row for row in rows if row[score] is not None]
    plots = []
    sides = heat_sides(config)
    cells = heat_cells(rows, list(sides), score) if len(sides) == 2 else {}
    if len(cells) > 1:
        draw = partial(draw_heat_map, cells=cells, sides=sides, more_is_better=more_is_better)
        words = f"Best test {score} by {' and '.join(sides)}, with its 95 % interval; the best is framed."
        plots.append(plot(draw, words))
    names = [key.rpartition(".")[2] for key in config.space]
    if len(scored) > 1:
        logs = {
            key.rpartition(".")[2] for key, values in config.space.items() if isinstance(values, Range) and values.log
        }
        parallel = partial(
            draw_parallel, rows=scored, keys=names, score=score, more_is_better=more_is_better, logs=logs
        )
        plots.append(
            plot(parallel, f"Every combination as a line from its settings to its test {score}; the best in orange.")
        )
    sign = -1 if more_is_better else 1
    ranked = sorted((trial for trial in trials if trial.score is not None), key=lambda trial: sign * (trial.score or 0))
    curves = [
        (_curve_name(trial) if place < NAMED else "", [epoch["test"][score] for epoch in trial.history])
        for place, trial in enumerate(ranked)
    ]
    if any(len(values) > 1 for _, values in curves):
        when = "of every fit of the last layers" if config.train.model.frozen else "after every epoch"
        words = f"Test {score} {when} of every training."
        called = "fit" if config.train.model.frozen else "epoch"
        plots.append(plot(partial(draw_curves, curves=curves, score=score, called=called), words))
    return plots


def _curve_name(trial: Trial) -> str:
    return f"{', '.join(map(_text, trial.settings.values()))} (seed {trial.seed})"


def heat_sides(config: TuneConfig) -> dict[str, list[str]]:
    """The first two searched lists, by the names that a table gives them: a heat map is drawn of these."""
    lists = {key: values for key, values in config.space.items() if not isinstance(values, Range)}
    return {key.rpartition(".")[2]: list(map(str, values)) for key, values in list(lists.items())[:2]}


def heat_cells(
    rows: list[dict[str, Any]], keys: list[str], score: str
) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Score, low and high of the best row of each pair of values, by (value, value)."""
    best: dict[tuple[str, str], tuple[float, float, float]] = {}
    for row in rows:
        if row["low"] is not None:  # rows come the best first
            best.setdefault((str(row[keys[0]]), str(row[keys[1]])), (row[score], row["low"], row["high"]))
    return best


def _text(value: Any, *, exact: bool = True) -> str:
    if value is None:
        return "–"
    return f"{value:{'.4g' if exact else '.3f'}}" if isinstance(value, float) else str(value)
