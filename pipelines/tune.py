"""Search settings of a training with Ray Tune; the winner by the test split is published, and promoted if it is better.

A Ray job, like `cellnet tune`:

    python -m pipelines tune BANK --task classify [--trials 6] [--set train.epochs=5]...
"""

import itertools
import time
from collections.abc import Sequence
from typing import Any, Final

import ray.tune
import ray.tune.schedulers

from cellnet.config.tune import Range, Settings, TuneConfig
from cellnet.errors import CellnetError, ConfigError, DataError, UnavailableError
from cellnet.evaluation.searches import Trial, describe, sample_settings, smallest_batch
from cellnet.networks.weights import fresh_network
from cellnet.places import Places
from cellnet.registry.records import check_name
from cellnet.registry.starting import check_start, with_fixed_starts
from cellnet.training.plan import make_plan
from cellnet.training.shards import SPLITS
from pipelines import cluster, failures, room
from pipelines.heads import changes_features, features_of
from pipelines.runs import Say, find_run, tell_epochs
from pipelines.shards import make_shards
from pipelines.sweeps import Sweep, keep_trial, starts_of, trials_of
from pipelines.train import check_workers, model_name, read_tiles
from pipelines.trials import of_space, trainable
from pipelines.winner import Search, conclude

LEADERS: Final = 5
"""Trials that are listed while a search goes on."""
TELL_S: Final = 60.0
"""How often they are, at most."""
STALL_S: Final = 300.0
"""So long no trial may run before the search is begun anew: what Ray Tune has reserved on a node that is gone may stay
pending for ever (ray-project/ray, 24259), and is had at once by a new one. Longer than a node takes to be missed."""
STORE_S: Final = 10.0
"""How often a store that does not answer is asked again."""


def tune(
    places: Places,
    config: TuneConfig,
    *,
    alias: str | None = "champion",
    name: str | None = None,
    workers: int = 1,
    resume: bool = False,
    once: str | None = None,
    wait_s: float = room.WAIT_S,
    say: Say = lambda line: None,
) -> Search:
    """Try settings, train the best again with other seeds, publish the winner, and promote it if it is better.

    Without an `alias` nothing is promoted.

    The test split steers; the winner alone is scored on the holdout. Each trial has so many workers. A trial that
    fails is recorded and does not end the search. With `resume` it goes on with the newest search of the same bank and
    settings that was left unfinished; with `once` with the search that was called so, which publishes one version
    however often it is started. A cluster that grows on demand is asked for room, and waited for so long; so is a
    store that does not answer, and room for trials whose node is gone. Raises DataError when the bank has no test split
    (with fewer than three groups a lineage there is none) or when every trial failed, ConfigError for workers or GPUs
    that are not to be had, CellnetError when the wait was in vain.
    """
    bank, registry = places.open_bank(), places.open_registry()
    model = name or model_name(config.train)
    registry.check_publish(model)
    if once:
        check_name(once)
    config = with_fixed_starts(registry, config)
    plan = make_plan(bank, config.train)
    if not plan.splits["test"].rows:
        raise DataError(
            f"{places.bank} has no test frames to choose by; a search needs at least three groups of every lineage"
        )
    check_workers(workers, plan, batch_size=smallest_batch(config))
    config = config.model_copy(update={"train": plan.config})
    starts = starts_of(registry, plan, config.space)
    for start in starts.values():
        check_start(registry, plan, bank, start)
    cluster.connect(*places.named)
    room.wait_for_workers(1, wait_s=wait_s, say=say)
    if config.gpus:
        room.wait_for_gpus(config.gpus, workers, wait_s=wait_s, say=say)
        room.at_once(config.gpus, workers)  # refused before anything is written
    shards = make_shards(bank, plan)
    say(shards.describe(plan))
    run = find_run(places.open_runs(), config, resume=resume, say=say, bank=bank, plan=plan, model=model, once=once)
    say(f"run: {run.uri}")
    sweep = Sweep(run=run, config=config, plan=plan, shards=shards, starts=starts, workers=workers, wait_s=wait_s)
    try:
        if sweep.of_heads:
            _see_first(sweep, say)
        _search(sweep, say)
        _train_finalists(sweep, say)
        return conclude(sweep, places, bank, alias=alias, model=model, once=once, say=say)
    except KeyboardInterrupt:
        again = "the same command" if once else "the same command with --resume"
        say(f"{again} goes on; the best so far is published by")
        say(places.command("registry", "promote", "--from-sweep", run.uri, alias or "champion"))
        raise


def _see_first(sweep: Sweep, say: Say) -> None:
    """Have ready what frozen layers see, where several trials would else compute the same, each for itself."""
    space, seed = sweep.config.space, sweep.config.train.seed
    keys = [key for key, values in space.items() if changes_features(key) and not isinstance(values, Range)]
    for values in itertools.product(*(space[key] for key in keys)):
        settings = dict(zip(keys, values, strict=True))
        plan = sweep.chosen(settings, seed)
        start = sweep.start_of(plan)
        assert start is not None, "checked with the starts"
        say(f"what the frozen layers see{f' with {describe(settings)}' if settings else ''}")
        network = fresh_network(plan.config, len(plan.classes), start=start)
        for split in SPLITS:
            features_of(network, plan, sweep.shards, split, start)


def _search(sweep: Sweep, say: Say) -> None:
    """Run every trial of the search, with the first seed."""
    config, seed = sweep.config, sweep.config.train.seed
    tell_epochs(config.train.task, say, star=False)
    early = config.stop_early and not sweep.of_heads  # which are learnt in seconds
    long = "the last layers alone" if sweep.of_heads else f"up to {config.train.epochs} epochs"
    if config.searcher == "random":
        chosen = sample_settings(config)
        say(f"{len(chosen)} trials of {long}; of the first: {describe(chosen[0])}")
        _run(sweep, {"settings": ray.tune.grid_search(chosen), "seed": seed}, len(chosen), say, early=early)
        return
    say(f"{config.trials} trials of {long}, each chosen by what the earlier came to (TPE)")
    space = {key: _domain(values) for key, values in config.space.items()}
    assert config.trials is not None, "checked with the configuration"
    _run(sweep, {"settings": space, "seed": seed}, config.trials, say, early=early, tpe=True)


def _train_finalists(sweep: Sweep, say: Say) -> None:
    """Train the best combinations again with other seeds."""
    first = sweep.config.train.seed
    best = [trial for trial in sweep.ranked() if trial.seed == first and trial.whole][: sweep.config.finalists]
    more = [
        {"settings": trial.settings, "seed": first + offset}
        for offset in range(1, sweep.config.seeds)
        for trial in best
    ]
    if more:
        say(f"the {len(best)} best are trained with {sweep.config.seeds - 1} more seeds each: {len(more)} trials")
        _run(sweep, {"trial": ray.tune.grid_search(more)}, len(more), say, early=False)


def _domain(values: Any) -> Any:
    if not isinstance(values, Range):
        return ray.tune.choice(list(values))
    if isinstance(values.low, int) and isinstance(values.high, int):
        return (ray.tune.lograndint if values.log else ray.tune.randint)(values.low, values.high + 1)
    return (ray.tune.loguniform if values.log else ray.tune.uniform)(values.low, values.high)


def _run(sweep: Sweep, space: dict[str, Any], number: int, say: Say, *, early: bool, tpe: bool = False) -> None:
    """Run trials on Ray Tune to their end. What they come to is in the sweep's folder.

    When none of them has room, or the store of the runs does not answer, those that have not ended go on in a new
    Tuner: none is lost, since each goes on after the last epoch that was kept. Raises CellnetError when not one epoch
    more was kept for `wait_s`.
    """
    teller = _Teller(sweep, number, say)
    epochs, since_s = _epochs_kept(sweep), time.monotonic()
    while True:
        lost: Exception | None = None
        try:
            _run_once(sweep, space, number, teller, early=early, tpe=tpe)
        except Exception as error:
            lost = error
        answered = _wait_for_store(sweep, say)
        if lost is not None and answered and not isinstance(failures.told(lost), UnavailableError):
            raise lost
        if lost is None and not teller.cut_short:
            return
        if (now := _epochs_kept(sweep)) > epochs or not answered:
            epochs, since_s = now, time.monotonic()
        if time.monotonic() - since_s > sweep.wait_s:
            raise CellnetError(
                f"not one epoch more was kept for {sweep.wait_s:g} s; see what the cluster is busy with (ray status), "
                f"and whether its nodes reach {sweep.run.runs.uri}, then give the same command with --resume"
            )
        say("the search goes on with the trials that have not ended")


def _epochs_kept(sweep: Sweep) -> int:
    """Of all trials."""
    return sum(trial.epochs for trial in trials_of(sweep.run))


def _wait_for_store(sweep: Sweep, say: Say) -> bool:
    """Whether the store of the runs answered at once; when it does not, return when it does.

    Raises UnavailableError when it has not for as long as the search may wait.
    """
    start_s = told_s = time.monotonic()
    answered = True
    while True:
        try:
            sweep.run.runs.get(f"{sweep.run.name}/run.json")
            return answered
        except UnavailableError:
            now_s = time.monotonic()
            if now_s - start_s > sweep.wait_s:
                raise
            if answered or now_s - told_s > TELL_S:
                told_s = now_s
                say(f"waiting for {sweep.run.runs.uri}, which does not answer")
            answered = False
            time.sleep(STORE_S)


def _run_once(sweep: Sweep, space: dict[str, Any], number: int, teller: "_Teller", *, early: bool, tpe: bool) -> None:
    """Run trials on one Tuner, until all have ended or none has had room for a while."""
    config = sweep.config
    metric, mode = sweep.steering[0], "max" if sweep.steering[1] else "min"
    epochs = int(config.train.epochs)
    scheduler = None
    if early:
        scheduler = ray.tune.schedulers.ASHAScheduler(
            time_attr="epoch", max_t=epochs, grace_period=min(config.grace, epochs), reduction_factor=config.reduction
        )
    splits = () if sweep.of_heads else SPLITS
    data = {split: read_tiles(sweep.shards, split, sweep.workers) for split in splits}  # shared by all trials
    teller.begin()
    cluster.run_trials(
        trainable(sweep, data),
        space,
        runs=sweep.run.runs,
        folder=sweep.run.name,
        callbacks=[teller],
        stop=_Stall(teller),
        metric=metric,
        mode=mode,
        scheduler=scheduler,
        search_alg=_tpe(_known(sweep), config.train.seed) if tpe else None,
        num_samples=number if tpe else 1,
        max_concurrent_trials=room.at_once(config.gpus, sweep.workers),
        # A process takes seconds to start; one that was kept for reuse is lost with its node (ray-project/ray, 19952).
        reuse_actors=sweep.workers == 1 and cluster.is_one_node(),
    )


def _known(sweep: Sweep) -> list[Settings]:
    """What has been tried with the first seed."""
    return [trial.settings for trial in trials_of(sweep.run) if trial.seed == sweep.config.train.seed]


class _Stall(ray.tune.Stopper):  # type: ignore[misc]
    """Ends a Tuner none of whose trials has run for STALL_S; what it has reserved is freed as it ends, and no more."""

    def __init__(self, teller: "_Teller") -> None:
        self._teller = teller

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._teller.has_stalled()


def _tpe(known: Sequence[Settings], seed: int) -> Any:
    try:
        from ray.tune.search.optuna import OptunaSearch

        # Trials that an earlier command began are enqueued first: they tell what they came to at once.
        points = [{f"settings/{key}": value for key, value in settings.items()} for settings in known]
        return OptunaSearch(points_to_evaluate=points or None, seed=seed)
    except (ImportError, AssertionError) as error:
        raise ConfigError("searcher=tpe needs Optuna: pip install 'cellnet[tpe]', or take searcher=random") from error


class _Teller(ray.tune.Callback):  # type: ignore[misc]
    """Says in the driver how trials end, and now and then which are the best so far; sees whether any runs."""

    def __init__(self, sweep: Sweep, number: int, say: Say) -> None:
        self._sweep, self._number, self._say = sweep, number, say
        self._ended: set[str] = set()
        self._told_s = time.monotonic()
        self.begin()

    def __getstate__(self) -> dict[str, Any]:
        """For what Ray Tune keeps of a Tuner, which goes on in none: without who is told."""
        return self.__dict__ | {"_say": None}

    def begin(self) -> None:
        """There is a new Tuner."""
        self.cut_short = False  # whether trials are left that have not ended
        self._ran_s = time.monotonic()

    def has_stalled(self) -> bool:
        """Whether no trial has run for STALL_S; says so once."""
        if time.monotonic() - self._ran_s > STALL_S and not self.cut_short:
            self.cut_short = True
            self._say(f"no trial has had room for {STALL_S:g} s")
        return self.cut_short and time.monotonic() - self._ran_s > STALL_S

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if any(trial.status == "RUNNING" for trial in trials):
            self._ran_s = time.monotonic()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._tell(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        name, settings, seed = of_space(trial.config)
        error = "its process died" if trial.error_file is None else _last_line(trial.error_file)
        if UnavailableError.__name__ in error:  # it says nothing of these settings
            self.cut_short = True
            return
        begun = next((kept for kept in trials_of(self._sweep.run) if kept.name == name), None)
        failed = begun or Trial(name=name, settings=settings, seed=seed)
        keep_trial(self._sweep.run, failed.model_copy(update={"error": error}))
        self._tell(trial)

    def _tell(self, trial: Any) -> None:
        name = of_space(trial.config)[0]
        if name in self._ended:
            return
        self._ended.add(name)
        ranked = self._sweep.ranked()
        for known in ranked:
            if known.name == name:
                self._say(f"trial {len(self._ended):>3}/{self._number}  {trial_line(known, self._sweep.steering[0])}")
        if len(self._ended) < self._number and time.monotonic() - self._told_s > TELL_S:
            self._told_s = time.monotonic()
            self._say("the best so far:")
            for place, leader in enumerate(ranked[:LEADERS], start=1):
                self._say(f"  {place}. {trial_line(leader, self._sweep.steering[0], ended=False)}")


def trial_line(trial: Trial, steering: str, *, ended: bool = True) -> str:
    """A trial in one line for a person; one that has not `ended` for sure may still be trained."""
    what = f"{describe(trial.settings)} (seed {trial.seed})"
    if trial.error:
        return f"{what}: failed: {trial.error}"
    score = "no score yet" if trial.score is None else f"test {steering} {trial.score:.3f}"
    short = "" if trial.whole else f", {'stopped ' * ended}after {trial.epochs} of {trial.of_epochs} epochs"
    return f"{what}: {score}{short}, {trial.seconds:.0f} s"


def _last_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return ([line.strip() for line in file if line.strip()] or ["it failed without a word"])[-1][:300]
    except OSError:
        return "it failed, and its message is lost"
