"""The scores of an evaluation as tables, each score with what it is where it stands."""

from typing import Any

import numpy as np

from cellnet.evaluation.metrics import BY_DENSITY, Scores, density_of, shown, span, units
from cellnet.reports.words import MEANINGS, Table, named
from cellnet.tasks import TASKS, Task


def score_tables(scores: dict[str, Any]) -> dict[str, Table]:
    """All tables by their headings."""
    return (
        {"Scores": _score_rows(scores)}
        | _of_others(scores)
        | _by_batch(scores)
        | _by_age(scores)
        | _per_lineage(scores)
        | _by_density(scores)
    )


def _score_rows(scores: dict[str, Any]) -> Table:
    names = [
        name
        for name in dict.fromkeys(name for unit in units(scores) for name in scores[unit])
        if name in MEANINGS or name.removesuffix("_macro") in MEANINGS
    ]
    of = [
        scores[unit] | shown(scores["task"], scores[unit], [*(scores[unit].keys() & names)]) for unit in units(scores)
    ]
    heads: list[Any] = ["score", *(f"per {unit}" for unit in units(scores))]
    return [heads, *([named(name), *(text_of(one.get(name)) for one in of)] for name in names)]


def _of_others(scores: dict[str, Any]) -> dict[str, Table]:
    """Frames that nobody chose beside all, where some were chosen and the others are enough."""
    others, facts = (scores.get("chosen") or {}).get("others"), TASKS[scores["task"]]
    if not others:
        return {}
    tables = {}
    for unit in units(scores):
        sides = (scores[unit], others[unit])
        of = [shown(scores["task"], side, facts.figures) for side in sides]
        rows = [[named(name), *(text_of(side.get(name)) for side in of)] for name in facts.figures]
        spans = [span_of(side[f"{facts.main}_interval"]) for side in sides]
        heads: list[Any] = ["score", "all", "not chosen"]
        tables[f"Per {unit}, without what was chosen"] = [heads, *rows, [f"{facts.main}, 95 % interval", *spans]]
    return tables


def _by_batch(scores: dict[str, Any]) -> dict[str, Table]:
    """Batches that the model learned from and new ones beside each other, where there is either."""
    batches, facts = scores.get("batches", {}), TASKS[scores["task"]]
    if not any(batches.values()):
        return {}
    tables = {}
    for unit in units(scores):
        of = [shown(scores["task"], side[unit], facts.figures) if side else {} for side in batches.values()]
        rows = [[named(name), *(text_of(side.get(name)) for side in of)] for name in facts.figures]
        spans = [span_of(side[unit][f"{facts.main}_interval"]) if side else "–" for side in batches.values()]
        heads: list[Any] = ["score", *(f"{name} batch" for name in batches)]
        tables[f"Per {unit}, by batch"] = [heads, *rows, [f"{facts.main}, 95 % interval", *spans]]
    return tables


def _by_age(scores: dict[str, Any]) -> dict[str, Table]:
    """Young and old cells, where there are both."""
    ages = scores.get("by_age", [])
    if len(ages) < 2:
        return {}
    names = TASKS[scores["task"]].figures
    rows = {f"{age['from']:g} to {age['to']:g}": shown(scores["task"], age["frame"], names) for age in ages}
    return {"Per frame, by age": _named_rows("hours since seeding", rows)}


def _per_lineage(scores: dict[str, Any]) -> dict[str, Table]:
    tables = {}
    for unit in units(scores):
        rows = {name: _of_lineage(scores[unit], name, scores["task"]) for name in scores[unit].get("per_lineage", {})}
        if rows:
            tables[f"Per {unit}, by lineage"] = _named_rows("lineage", rows)
    return tables


def _of_lineage(scores: Scores, lineage: str, task: Task) -> Scores:
    of = shown(task, scores["per_lineage"][lineage])
    if task == "count":
        return of
    label = scores["classes"].index(lineage)
    return {"n": of["n"], "right": scores["confusion"][label][label]} | of


def _by_density(scores: dict[str, Any]) -> dict[str, Table]:
    bins = scores["tile"].get("by_density")
    if not bins:
        return {}
    rows = {density_of(bin, " to "): shown("count", bin, BY_DENSITY) for bin in bins}
    return {"Per tile, by density": _named_rows("true count", rows)}


def _named_rows(title: str, rows: dict[str, Scores]) -> Table:
    """A row a name; scores that are known of none of them have no column."""
    names = [name for name in next(iter(rows.values())) if any(of[name] is not None for of in rows.values())]
    heads: list[Any] = [title, *map(named, names)]
    return [heads, *([name, *(text_of(values[column]) for column in names)] for name, values in rows.items())]


def span_of(interval: list[float]) -> str:
    """An interval for a person."""
    ends = span(interval)
    return "–" if ends is None else f"{ends[0]:.2f} to {ends[1]:.2f}"


def text_of(value: float | None, digits: int = 3) -> str:
    """A score for a person."""
    if value is None or np.isnan(value):
        return "–"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)
