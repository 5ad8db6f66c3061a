"""What comes of a search: finalists are scored, the winner is published with all trials and promoted if better."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray.data
import safetensors.torch
from numpy.typing import NDArray

from cellnet.bank.bank import Bank
from cellnet.config.loading import read_stored
from cellnet.config.tune import TuneConfig
from cellnet.errors import NotBetterError, NotFoundError
from cellnet.evaluation.evaluations import Evaluation
from cellnet.evaluation.searches import (
    Combination,
    Finalist,
    Trial,
    compare_combinations,
    describe,
    explain_winner,
    goodness,
    group_trials,
    table_to_parquet,
    tabulate,
)
from cellnet.networks.weights import fresh_network
from cellnet.places import Places
from cellnet.registry.records import AliasMove, ModelVersion
from cellnet.registry.starting import find_start
from cellnet.reports.search_report import search_page
from cellnet.store.place import PlaceLike, place_of
from cellnet.training.fit import outputs_of
from cellnet.training.plan import make_plan
from cellnet.training.truths import whole_of
from pipelines import cluster
from pipelines.evaluate import evaluate
from pipelines.heads import asked_about_test
from pipelines.promote import promote
from pipelines.publishing import Trained
from pipelines.runs import Run, Say
from pipelines.shards import batches, dataset_of, make_shards
from pipelines.sweeps import Sweep, best_of, recipe_of, starts_of
from pipelines.train import publish


@dataclass(frozen=True, kw_only=True)
class Search:
    """A finished search."""

    winner: ModelVersion
    trials: list[dict[str, Any]]
    """The rows of its table, one for each combination of settings, the winner first."""
    holdout: Evaluation
    """Of the winner."""
    move: AliasMove | None
    """Of the alias; None where there is none, or the winner is not shown to be better than what it points at."""
    run: Run


def publish_sweep(given: PlaceLike, places: Places, *, alias: str, say: Say = lambda line: None) -> Search:
    """Publish and promote the best trial so far of a search that was stopped, by the folder of its run.

    Raises NotFoundError for a folder that is no search's, DataError when no trial of it came to a score.
    """
    folder = place_of(given)
    runs, _, name = folder.uri.rstrip("/").rpartition("/")
    run = Run(folder.elsewhere(runs or "/").open(), name)
    try:
        recipe = recipe_of(run)
    except NotFoundError as error:
        raise NotFoundError(f"{folder} is not the folder of a search; cellnet tune names it when it starts") from error
    config = read_stored(TuneConfig, recipe["config"], f"{folder}/run.json")
    on_bank = replace(places, bank=places.bank or folder.elsewhere(recipe["bank"]))
    bank = on_bank.open_bank()
    plan = make_plan(bank, config.train)
    if recipe["bank_digest"] not in (whole_of(plan, bank.frames), bank.digest):  # the bank's, of searches of before
        say("note: the bank has changed since the search; scores are taken on it as it is now")
    cluster.connect(*on_bank.named)
    starts = starts_of(places.open_registry(), plan, config.space)
    sweep = Sweep(run=run, config=config, plan=plan, shards=make_shards(bank, plan), starts=starts)
    return conclude(sweep, on_bank, bank, alias=alias, model=recipe["model"], say=say)


def conclude(
    sweep: Sweep, places: Places, bank: Bank, *, alias: str | None, model: str, once: str | None = None, say: Say
) -> Search:
    """Compare the finalists, publish the winner with the whole search, score it on the holdout, and promote it.

    Without an `alias` nothing is promoted; a search that has published as `once` does not do so again.
    """
    trials, steering = sweep.ranked(), sweep.steering[0]
    combinations = _compared(sweep, bank, trials)
    trial = combinations[0].trials[0]
    say(f"winner: {describe(trial.settings)}; {explain_winner(combinations)}")
    rows = tabulate(combinations, steering)
    scores = next(epoch["test"] for epoch in trial.history if epoch["test"].get(steering) == trial.score)
    trained = Trained(weights=best_of(sweep.run, trial.name), scores=scores, history=list(trial.history))
    registry, plan = places.open_registry(), sweep.chosen(trial.settings, trial.seed)
    winner = once and registry.published_once(model, once)
    if not winner:
        winner = publish(
            registry,
            bank,
            plan,
            trained,
            name=model,
            start=find_start(registry, plan.config),
            search=rows,
            sweep=sweep.run.uri,
            once=once,
            say=say,
        )
    files = {
        "results.parquet": table_to_parquet(rows),
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
        why = f"best of {len(combinations)} combinations by test {steering}"
        move = promote(winner.ref, alias, places, reason=why, say=say) if alias else None
    except NotBetterError as error:
        say(f"note: {error}")
    sweep.run.finish(winner.ref)
    return Search(winner=winner, trials=rows, holdout=holdout, move=move, run=sweep.run)


def _compared(sweep: Sweep, bank: Bank, trials: Sequence[Trial]) -> list[Combination]:
    """Every combination of settings, the winner first; where no trial went to its end, the best so far.

    Raises DataError when no trial came to a score.
    """
    combinations = group_trials(trials)
    if not any(trial.whole for trial in trials):
        return combinations
    tiles = dataset_of(sweep.shards, "test", "frame").materialize()
    group_of = {frame.frame: frame.group for frame in bank.frames}
    groups = [group_of[frame] for frame in tiles.to_pandas(limit=tiles.count())["frame"]]
    scored = [replace(tried, finalist=_finalist(sweep, tried.trials, tiles)) for tried in combinations]
    return compare_combinations(scored, groups, seed=sweep.config.train.seed)


def _finalist(sweep: Sweep, trials: Sequence[Trial], tiles: ray.data.Dataset) -> Finalist | None:
    """What trials of the same settings that went to their end say of the test tiles, if there are any."""
    whole = [trial for trial in trials if trial.whole]
    if not whole:
        return None
    good_SN = np.stack([_good(sweep, trial, tiles) for trial in whole])
    return Finalist(settings=whole[0].settings, parameters=whole[0].parameters, good_SN=good_SN)


def _good(sweep: Sweep, trial: Trial, tiles: ray.data.Dataset) -> NDArray[np.float64]:
    """How good a trial's best weights are on each test tile."""
    plan = sweep.chosen(trial.settings, trial.seed)
    if sweep.of_heads and (start := sweep.start_of(plan)):
        best = safetensors.torch.load(best_of(sweep.run, trial.name))
        return goodness(plan.config.task, *asked_about_test(plan, sweep.shards, start, best))
    network = fresh_network(plan.config, len(plan.classes), sweep.shards.mean_count)
    network.load_state_dict(safetensors.torch.load(best_of(sweep.run, trial.name)))
    truth_N, output = outputs_of(network, plan.config.task, plan.preprocess, batches(tiles, 64, seed=None)(0))
    return goodness(plan.config.task, truth_N, output)
