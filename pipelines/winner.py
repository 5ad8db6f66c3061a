"""What comes of a search: finalists are compared, the winner is published with all trials and promoted if better."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
import safetensors.torch
from numpy.typing import NDArray

from cellnet.bank.bank import Bank
from cellnet.config.loading import load_checked
from cellnet.config.tune import TuneConfig
from cellnet.errors import DataError, NotBetterError, NotFoundError
from cellnet.evaluation.evaluations import Evaluation
from cellnet.evaluation.searches import Finalist, Standing, Trial, describe, goodness, standings, winner_of
from cellnet.networks.weights import fresh_network
from cellnet.places import Places
from cellnet.registry.records import AliasMove, ModelVersion
from cellnet.reports.search_report import search_page
from cellnet.store.place import open_store
from cellnet.training.fit import outputs_of
from cellnet.training.plan import make_plan
from pipelines import cluster
from pipelines.evaluate import evaluate
from pipelines.promote import promote
from pipelines.runs import Run, Say
from pipelines.shards import batches, dataset, make_shards
from pipelines.sweeps import Sweep, best_of, recipe_of, trial_name
from pipelines.train import Trained, publish


@dataclass(frozen=True, kw_only=True)
class Search:
    """A finished search."""

    winner: ModelVersion
    trials: list[dict[str, Any]]
    """The rows of its table, one for each combination of settings, the winner first."""
    holdout: Evaluation
    """Of the winner."""
    move: AliasMove | None
    """Of the alias; None where the winner is not shown to be better than what it points at."""
    run: Run


@dataclass(frozen=True, kw_only=True)
class _Side:
    """A combination of settings, its trainings, and how good it is."""

    trials: list[Trial]
    finalist: Finalist | None = None
    """Of one whose trainings went to their end."""
    standing: Standing | None = None


def publish_sweep(uri: str, places: Places, *, alias: str, say: Say = lambda line: None) -> Search:
    """Publish and promote the best trial so far of a search that was stopped, by the folder of its run.

    Raises NotFoundError for a folder that is no search's, DataError when no trial of it came to a score.
    """
    runs, _, folder = uri.rstrip("/").rpartition("/")
    run = Run(open_store(runs or "/", endpoint_url=places.endpoint_url), folder)
    try:
        recipe = recipe_of(run)
    except NotFoundError as error:
        raise NotFoundError(f"{uri} is not the folder of a search; cellnet tune names it when it starts") from error
    config = load_checked(TuneConfig, recipe["config"], where=f"{uri}/run.json: ")
    on_bank = replace(places, bank=places.bank or recipe["bank"])
    bank = on_bank.open_bank()
    if bank.digest != recipe["bank_digest"]:
        say("note: the bank has changed since the search; scores are taken on it as it is now")
    plan = make_plan(bank, config.train)
    cluster.connect()
    sweep = Sweep(run=run, config=config, plan=plan, shards=make_shards(bank, plan))
    return conclude(sweep, on_bank, bank, alias=alias, model=recipe["model"], say=say)


def conclude(sweep: Sweep, places: Places, bank: Bank, *, alias: str, model: str, say: Say) -> Search:
    """Compare the finalists, publish the winner with the whole search, score it on the holdout, and promote it."""
    trials, steering = sweep.ranked(), sweep.steering[0]
    sides = compared(sweep, bank, trials)
    best = sides[0]
    trial = best.trials[0]
    say(f"winner: {describe(trial.settings)}; {_because(sides)}")
    rows = table(sides, steering)
    scores = next(epoch["test"] for epoch in trial.history if epoch["test"].get(steering) == trial.score)
    trained = Trained(weights=best_of(sweep.run, trial.name), scores=scores, history=list(trial.history))
    winner = publish(
        places.open_registry(),
        bank,
        sweep.chosen(trial.settings, trial.seed),
        trained,
        name=model,
        search=rows,
        sweep=sweep.run.uri,
        say=say,
    )
    files = {
        "results.parquet": _parquet(rows),
        "report.html": search_page(
            sweep.config, trials, rows, steering, bank=bank.store.uri, model=winner.ref
        ).encode(),
    }
    for name, data in files.items():
        sweep.run.runs.put(f"{sweep.run.name}/{name}", data)
        say(f"{name.partition('.')[0]}: {sweep.run.uri}/{name}")
    holdout = evaluate(winner.ref, places, split="holdout")
    move = None
    try:
        why = f"best of {len(sides)} combinations by test {steering}"
        move = promote(winner.ref, alias, places, reason=why, say=say)
    except NotBetterError as error:
        say(f"note: {error}")
    sweep.run.finish(winner.ref)
    return Search(winner=winner, trials=rows, holdout=holdout, move=move, run=sweep.run)


def compared(sweep: Sweep, bank: Bank, trials: Sequence[Trial]) -> list[_Side]:
    """Every combination of settings: the winner first, then the other finalists, then the others as they were ranked.

    Finalists are those with the most seeds. Of each the trials are in the order of their scores. Raises DataError when
    no trial came to a score.
    """
    by_settings: dict[str, list[Trial]] = {}
    for trial in trials:
        by_settings.setdefault(trial_name(trial.settings, 0), []).append(trial)
    if not any(trial.score is not None and trial.error is None for trial in trials):
        errors = [trial.error for trial in trials if trial.error]
        raise DataError(f"every trial failed; the first said: {errors[0]}" if errors else "no trial came to a score")
    if not any(trial.whole for trial in trials):  # one that was stopped early: the best so far
        return [_Side(trials=found) for found in by_settings.values()]
    tiles = dataset(sweep.shards, "test", "frame").materialize()
    group_of = {frame.frame: frame.group for frame in bank.frames}
    groups = [group_of[frame] for frame in tiles.to_pandas(limit=tiles.count())["frame"]]
    sides = [_scored(sweep, found, tiles, groups) for found in by_settings.values()]
    most = max(len(side.finalist.good_SN) for side in sides if side.finalist)
    final = [side for side in sides if side.finalist and len(side.finalist.good_SN) == most]
    finalists = [side.finalist for side in final if side.finalist]
    found = standings(finalists, groups, seed=sweep.config.train.seed)
    final = [replace(side, standing=standing) for side, standing in zip(final, found, strict=True)]
    winner = final.pop(winner_of(finalists, found))
    others = sorted(final, key=lambda side: side.standing.behind if side.standing else 0)
    names = {side.trials[0].name for side in (winner, *others)}
    return [winner, *others, *(side for side in sides if side.trials[0].name not in names)]


def _scored(sweep: Sweep, trials: list[Trial], tiles: ray.data.Dataset, groups: Sequence[str]) -> _Side:
    whole = [trial for trial in trials if trial.whole]
    if not whole:
        return _Side(trials=trials)
    good_SN = np.stack([_good(sweep, trial, tiles) for trial in whole])
    finalist = Finalist(settings=whole[0].settings, parameters=whole[0].parameters, good_SN=good_SN)
    alone = standings([finalist], groups, seed=sweep.config.train.seed)[0]
    return _Side(trials=trials, finalist=finalist, standing=replace(alone, tied=False))


def _good(sweep: Sweep, trial: Trial, tiles: ray.data.Dataset) -> NDArray[np.float64]:
    """How good a trial's best weights are on each test tile."""
    plan = sweep.chosen(trial.settings, trial.seed)
    network = fresh_network(plan.config, len(plan.classes), sweep.shards.mean_count)
    network.load_state_dict(safetensors.torch.load(best_of(sweep.run, trial.name)))
    truth_N, output = outputs_of(network, plan.config.task, plan.preprocess, batches(tiles, 64, seed=None)(0))
    return goodness(plan.config.task, truth_N, output)


def table(sides: Sequence[_Side], steering: str) -> list[dict[str, Any]]:
    """A row for each combination of settings, the best first; the score is the mean over its seeds."""
    return [
        {
            "rank": rank,
            **{key.rpartition(".")[2]: value for key, value in side.trials[0].settings.items()},
            steering: side.standing.score if side.standing else side.trials[0].score,
            "low": side.standing.interval[0] if side.standing else None,
            "high": side.standing.interval[1] if side.standing else None,
            "seeds": sum(trial.whole for trial in side.trials),
            "epochs": sum(trial.epochs for trial in side.trials),
            "seconds": round(sum(trial.seconds for trial in side.trials), 1),
            "parameters": side.trials[0].parameters,
            "note": _note(side, rank),
        }
        for rank, side in enumerate(sides, start=1)
    ]


def _note(side: _Side, rank: int) -> str:
    if rank == 1:
        return "winner"
    errors = [f"failed: {trial.error}" for trial in side.trials if trial.error]
    if errors:
        return errors[0]
    if side.standing and side.standing.tied:
        return "within chance of the best"
    return "" if side.finalist else f"stopped after {side.trials[0].epochs} of {side.trials[0].of_epochs} epochs"


def _because(sides: Sequence[_Side]) -> str:
    """Why the winner is it, in a few words."""
    tied = [side for side in sides if side.standing and side.standing.tied]
    if not tied:
        return "the best so far, which was not trained to its end"
    if len(tied) == 1:
        return "no other finalist is within chance of it"
    smaller = sides[0].trials[0].parameters < max(side.trials[0].parameters for side in tied)
    return f"the {'smallest' if smaller else 'best'} of {len(tied)} finalists that are within chance of each other"


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    """The table as a Parquet file; values of settings that are of several kinds as text."""
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
