"""Trainings on a real local Ray that are disturbed, shared out and refused."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

import pipelines.train
from cellnet.bank.bank import Bank
from cellnet.config.train import ModelSpec, TrainConfig
from cellnet.errors import ConfigError, DataError
from cellnet.places import Places
from cellnet.store.folder import FolderStore
from cellnet.store.place import place_of
from cellnet.training.plan import make_plan
from cellnet.training.truths import whole_of
from cellnet.untrusted import WEIGHTS
from pipelines import cluster
from pipelines.runs import Run, new_run
from pipelines.train import LeanTrainer, run_workers, train
from tests.factories import COUNTER, quick_config

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

Ended = tuple[int, list[str]]
Descendants = Callable[[int, str], list[int]]
SETTINGS = (
    "folds=0",
    "epochs=6",
    "threads=1",
    "model.width=4",
    "model.depth=2",
    "augment.shifts=0",
    "augment.shares=[1.0]",
)


def config(**changes: object) -> TrainConfig:
    """What SETTINGS say, of a counter: as `trained` has it."""
    return quick_config(**({"task": "count"} | COUNTER | changes))


def weights(places: Places, ref: str) -> bytes:
    registry = places.open_registry()
    return registry.read(registry.resolve(ref), WEIGHTS)


@pytest.fixture(scope="module")
def undisturbed(trained: Places) -> Places:
    """A registry whose regressor@1 is of an undisturbed training of one worker."""
    return trained


def command(places: Places, *options: str) -> list[str]:
    sets = [word for setting in SETTINGS for word in ("--set", setting)]
    start = [sys.executable, "-m", "cellnet", "train", str(places.bank), "--task", "count"]
    return [*start, "--registry", str(places.registry), *sets, *options]


def run_until(line: str, act: Callable[[subprocess.Popen[str]], object], *words: str, **environment: str) -> Ended:
    """Run a command, act once when it has said a line that starts so, and give its status and lines."""
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with subprocess.Popen(words, env=kept | environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said: list[str] = []
        try:
            for text in process.stderr:
                said.append(text.rstrip())
                if text.startswith(line) and not any(earlier.startswith(line) for earlier in said[:-1]):
                    act(process)
            return process.wait(timeout=60), said
        finally:
            process.kill()  # if it hangs


def test_a_command_that_was_stopped_ends_where_an_undisturbed_one_does(
    undisturbed: Places, tmp_path: Path, joining: dict[str, str]
) -> None:
    places = Places(bank=undisturbed.bank, registry=place_of(tmp_path / "registry"))
    status, said = run_until("epoch   1/6", lambda it: it.send_signal(signal.SIGINT), *command(places), **joining)
    assert status == 130 and said[-1] == "cellnet: stopped" and "--resume goes on" in said[-2]
    told: list[str] = []
    train(places, config(), resume=True, say=told.append)
    [after] = re.findall(r"going on after epoch (\d+)", "\n".join(told))
    assert 1 <= int(after) < 6
    assert weights(places, "regressor@1") == weights(undisturbed, "regressor@1")
    assert len(list((tmp_path / "runs").iterdir())) == 1
    history = places.open_registry().resolve("regressor@1").card.history
    assert [epoch["number"] for epoch in history] == list(range(1, 7))


def test_a_cluster_that_is_gone_is_named_at_once(undisturbed: Places) -> None:
    nowhere = os.environ | {"RAY_ADDRESS": "127.0.0.1:9"}
    done = subprocess.run(command(undisturbed), capture_output=True, text=True, timeout=60, env=nowhere)
    message = "cellnet: no Ray cluster answers at 127.0.0.1:9; correct or unset RAY_ADDRESS, or run `ray stop`\n"
    assert (done.returncode, done.stderr) == (2, message)


@pytest.fixture(scope="module")
def shared(undisturbed: Places) -> Places:
    """A registry with the counter that an undisturbed training of two workers made, and what each of them saw."""
    folder = Path(undisturbed.bank.uri).parent / "shared"
    folder.mkdir()
    places = Places(bank=undisturbed.bank, registry=place_of(folder / "registry"))

    def watched(loop: dict[str, Any]) -> object:
        """The product's worker, leaving what every rank saw and ended with."""
        import pipelines.train as product  # the unpatched one, in the worker's process

        fit = product.fit

        def watched_fit(network, *args, on_epoch, rank, **options):  # type: ignore[no-untyped-def]
            def on_epoch_too(state):  # type: ignore[no-untyped-def]
                blob = b"".join(state.weights[name].numpy().tobytes() for name in sorted(state.weights))
                facts = {"weights": hashlib.sha256(blob).hexdigest(), "tiles": options["tiles"]}
                (folder / f"rank{rank}.json").write_text(json.dumps(facts))
                on_epoch(state)

            return fit(network, *args, on_epoch=on_epoch_too, rank=rank, **options)

        product.fit = watched_fit
        try:
            return product._worker(loop)
        finally:
            product.fit = fit

    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipelines.train, "_worker", watched)
        train(places, config(), workers=2, say=said.append)
    assert any("parameters, 2 workers" in line for line in said), said
    return places


def test_a_training_whose_worker_is_killed_ends_where_an_undisturbed_one_does(
    undisturbed: Places, tmp_path: Path, descendants: Descendants
) -> None:
    places = Places(bank=undisturbed.bank, registry=place_of(tmp_path / "registry"))
    said: list[str] = []

    def kill_once(line: str) -> None:
        said.append(line)
        if line.startswith("epoch   2/6") and sum(text.startswith("epoch   2/6") for text in said) == 1:
            os.kill(max(descendants(os.getpid(), "RayTrainWorker")), signal.SIGKILL)

    train(places, config(), say=kill_once)
    assert any("going on after epoch" in line for line in said), said
    assert weights(places, "regressor@1") == weights(undisturbed, "regressor@1")


def test_two_workers_see_different_tiles_and_keep_one_network(shared: Places) -> None:
    folder, tiles = Path(shared.registry.uri).parent, make_plan(Bank.open(shared.bank), config()).splits["train"].rows
    first, second = (json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first["tiles"] + second["tiles"] == tiles, "each worker has tiles of its own, and none is lost"
    assert abs(first["tiles"] - second["tiles"]) <= 1
    assert first["weights"] == second["weights"], "gradients are averaged, and batch norms see the same tiles"


def test_two_workers_score_as_one_does(undisturbed: Places, shared: Places) -> None:
    alone, card = (one.open_registry().resolve("regressor@1").card for one in (undisturbed, shared))
    for one, other in zip(alone.history, card.history, strict=True):
        assert one["tiles"] == other["tiles"], "no tile is lost"
        assert other["loss"] == pytest.approx(one["loss"], rel=0.15)
    assert card.scores["test"]["mae"] == pytest.approx(alone.scores["test"]["mae"], rel=0.15)


def test_a_plain_training_says_that_there_is_one_to_resume_and_that_its_counter_died(
    undisturbed: Places, tmp_path: Path
) -> None:
    places = Places(bank=undisturbed.bank, registry=place_of(tmp_path / "registry"))
    bank = Bank.open(places.bank)
    paper = config(model=ModelSpec(architecture="paper", width=4, depth=2), learning_rate=3.0)
    plan = make_plan(bank, paper)
    digest = whole_of(plan, bank.frames)
    left = new_run(places.open_runs(), plan.config, bank_digest=digest, model="regressor")
    left.runs.put(f"{left.name}/checkpoint_manager_snapshot.json", b"{}")
    said: list[str] = []
    with pytest.raises(DataError, match=r"the counter is dead: it gave every tile the same count .* --set seed=1"):
        train(places, paper, say=said.append)
    assert f"note: {left.uri} was left unfinished; --resume would go on with it" in said
    assert sum(line.startswith("warning: the counter gives every tile the same count") for line in said) == 1
    assert list(places.open_registry().versions()) == []


def test_a_training_that_diverges_is_not_tried_again(undisturbed: Places, tmp_path: Path) -> None:
    places = Places(bank=undisturbed.bank, registry=place_of(tmp_path / "registry"))
    said: list[str] = []
    before = actors()
    with pytest.raises(DataError, match="training diverged; lower the rate"):
        train(places, config(learning_rate=1e30), say=said.append)
    assert sum("parameters" in line for line in said) == 1
    started = sorted(kind for actor, kind in actors().items() if actor not in before)
    assert started == ["RayTrainWorker", "SynchronizationActor", "TrainController", "_Lines"], "no process in vain"


def actors() -> dict[str, str]:
    """All that this Ray ever started, and what they are."""
    return {actor: told["ActorClassName"] for actor, told in ray._private.state.actors().items()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpu": True}, r"--gpu needs a GPU a worker, and the cluster has 0 for 1; leave --gpu out"),
        ({"workers": 5}, r"5 workers cannot share .* in steps of 16; take fewer .* --set batch_size=20"),
    ],
)
def test_what_the_cluster_or_the_bank_cannot_do_is_refused(
    undisturbed: Places, tmp_path: Path, options: dict, message: str
) -> None:
    places = Places(bank=undisturbed.bank, registry=place_of(tmp_path / "registry"))
    with pytest.raises(ConfigError, match=message):
        train(places, config(), **options)
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_what_ray_train_starts_is_told_its_cluster(ray_started: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.train.v2._internal.constants import get_env_vars_to_propagate

    for before in ("10.0.0.9:6379", None):
        monkeypatch.setenv("RAY_ADDRESS", before) if before else monkeypatch.delenv("RAY_ADDRESS", raising=False)
        with cluster.own_address():
            assert get_env_vars_to_propagate()["RAY_ADDRESS"] == ray.get_runtime_context().gcs_address
        assert os.environ.get("RAY_ADDRESS") == before


@pytest.mark.parametrize(("own", "fixed", "elastic"), [(None, "300", "10"), ("7", "7", "7")])
def test_an_elastic_training_does_not_wait_long_for_a_machine_that_is_gone(
    ray_started: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str | None, fixed: str, elastic: str
) -> None:
    from ray.train.v2._internal.constants import get_env_vars_to_propagate

    name = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
    monkeypatch.setenv(name, own) if own else monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(LeanTrainer, "fit", lambda trainer: get_env_vars_to_propagate()[name])
    run = Run(FolderStore(tmp_path), "run")
    waits = [run_workers(print, {}, ray.train.ScalingConfig(num_workers=n), run=run) for n in (1, 2, (1, 2))]
    assert waits == [fixed, fixed, elastic] and os.environ.get(name) == own
