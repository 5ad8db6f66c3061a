"""When a search goes on in a new Tuner, when it ends, and what it says, without a Ray."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cellnet.bank.bank import Bank
from cellnet.config.train import ModelSpec, TrainConfig
from cellnet.config.tune import TuneConfig
from cellnet.errors import CellnetError, ConfigError, DataError, UnavailableError
from cellnet.evaluation.searches import Trial, trial_name
from cellnet.networks.weights import fresh_network, weights_to_bytes
from cellnet.places import Places
from cellnet.registry.learned import frames_to_bytes
from cellnet.registry.records import LEARNED
from cellnet.registry.registry import Registry
from cellnet.store.place import open_store, place_of
from cellnet.training.plan import Plan
from cellnet.training.shards import Shards
from cellnet.untrusted import WEIGHTS
from pipelines import tune
from pipelines.runs import new_run
from pipelines.sweeps import Sweep, keep_trial, trials_of
from tests.factories import TINY, bank_of, card

SETTINGS = {"kernel": "edge"}
TRIAL = Trial(name=trial_name(SETTINGS, 0), settings=SETTINGS, seed=0, of_epochs=2)


class Search:
    """A search whose Tuners do what the test says, one after the other; time passes as it waits, and with each."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        config = TuneConfig(space={"kernel": ("none", "edge")}, train=TrainConfig(task="count", epochs=2))
        run = new_run(open_store(folder / "runs"), config, bank_digest="0" * 64, model="regressor")
        nothing = (cast(Plan, None), cast(Shards, None))
        self.sweep = Sweep(run=run, config=config, plan=nothing[0], shards=nothing[1], wait_s=600)
        self.now_s, self.began, self.refusals = 0.0, 0, 0
        self.said: list[str] = []
        self._get = run.runs.get
        monkeypatch.setattr(tune.time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(tune.time, "sleep", self.sleep)
        monkeypatch.setattr(type(run.runs), "get", lambda store, key: self.get(key))
        self._patch = monkeypatch

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def get(self, key: str) -> bytes:
        if self.refusals:
            self.refusals -= 1
            raise UnavailableError("s3://lab does not answer")
        return self._get(key)

    def run(self, *tuners: Any) -> None:
        left = iter(tuners)

        def once(sweep: Sweep, space: object, number: int, teller: Any, **options: object) -> None:
            teller.begin()
            self.began += 1
            next(left)(teller)

        self._patch.setattr(tune, "_run_once", once)
        tune._run(self.sweep, {}, 1, self.said.append, early=False)

    def stall(self, teller: Any) -> None:
        """No trial has room."""
        while not tune._Stall(teller).stop_all():
            teller.on_step_end(0, [SimpleNamespace(status="PENDING")])
            self.now_s += 50

    def end(self, teller: Any) -> None:
        """The trial learns for a long time, and ends."""
        for _ in range(20):
            teller.on_step_end(0, [SimpleNamespace(status="PENDING"), SimpleNamespace(status="RUNNING")])
            assert not tune._Stall(teller).stop_all()
            self.now_s += 50
        keep_trial(self.sweep.run, TRIAL.model_copy(update={"epochs": 2, "score": 0.5}))
        teller.on_trial_complete(0, [], SimpleNamespace(config={"settings": SETTINGS, "seed": 0}))

    def outage(self, teller: Any) -> None:
        """The store does not answer a trial, nor the driver for a while."""
        self.refusals = 8
        raise UnavailableError("s3://lab does not answer")


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Search:
    return Search(tmp_path, monkeypatch)


def test_a_tuner_without_room_is_ended_and_another_goes_on(search: Search) -> None:
    search.run(search.stall, search.end)
    assert search.said[:2] == [
        "no trial has had room for 300 s",
        "the search goes on with the trials that have not ended",
    ]
    assert search.said[2].startswith("trial   1/1  kernel edge") and search.began == 2


def test_a_search_that_gets_nowhere_ends_with_a_line(search: Search) -> None:
    with pytest.raises(CellnetError, match=r"not one epoch more was kept for 600 s; .* with --resume"):
        search.run(*[search.stall] * 9)
    assert search.began == 2


def test_a_store_that_does_not_answer_is_waited_for_with_a_line_a_minute(search: Search) -> None:
    search.run(search.outage, search.end)
    waiting = f"waiting for {search.sweep.run.runs.uri}, which does not answer"
    assert search.said[:3] == [waiting, waiting, "the search goes on with the trials that have not ended"]
    search.sweep.__dict__["wait_s"] = 20
    with pytest.raises(UnavailableError):
        search.run(search.outage)


def test_what_else_ends_a_search_is_raised_at_once(search: Search) -> None:
    def fails(teller: object) -> None:
        raise DataError("the bank is damaged")

    with pytest.raises(DataError, match="the bank is damaged"):
        search.run(fails)
    assert search.began == 1


@pytest.mark.parametrize(
    ("line", "failed"),
    [("cellnet.errors.UnavailableError: s3://lab does not answer", False), ("ValueError: the rate is 0", True)],
)
def test_a_trial_whose_store_was_gone_has_not_failed(search: Search, tmp_path: Path, line: str, failed: bool) -> None:
    (tmp_path / "error.txt").write_text(f"Traceback\n{line}\n")
    keep_trial(search.sweep.run, TRIAL.model_copy(update={"epochs": 1, "score": 0.5}))
    trial = SimpleNamespace(config={"settings": SETTINGS, "seed": 0}, error_file=str(tmp_path / "error.txt"))

    def errs(teller: Any) -> None:
        teller.on_trial_error(0, [], trial)

    search.run(*([errs] if failed else [errs, search.end]))
    [kept] = trials_of(search.sweep.run)
    assert (kept.error, kept.epochs) == ((line, 1) if failed else (None, 2))


def test_a_search_from_a_version_that_learned_from_the_test_split_is_refused(tmp_path: Path) -> None:
    bank = Bank.open(bank_of(tmp_path / "bank", {"A549": [f"w{n}" for n in range(8)]}, count=3.0))
    registry = Registry.open(str(tmp_path / "registry"))
    config = TrainConfig(task="count", model=TINY, folds=0)
    taught = card().model_copy(update={"config": config.model_copy(update={"folds": 5}), "bank": bank.store.uri})
    weights = weights_to_bytes(fresh_network(config, 0).state_dict())
    registry.publish("m", {WEIGHTS: weights, LEARNED: frames_to_bytes(set(bank.frames.values("frame")))}, taught)
    places = Places(bank=place_of(tmp_path / "bank"), registry=place_of(tmp_path / "registry"))
    start = config.model_copy(update={"model": ModelSpec(weights="m@1", **TINY.model_dump(exclude_unset=True))})
    wanted = TuneConfig(space={"kernel": ("none", "edge")}, train=start)
    with pytest.raises(ConfigError, match=r"m@1 has learned from .* frames that would score what starts from it"):
        tune.tune(places, wanted)
