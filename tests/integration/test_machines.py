"""A service, or a search, on machines of their own, one of which goes.

All faults, counted: tests/benchmarks/cluster_faults.py."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import httpx
import pytest

from cellnet.config.train import Augment, ModelSpec, TrainConfig
from cellnet.config.tune import TuneConfig
from cellnet.places import Places
from cellnet.registry.registry import Registry
from cellnet.store.place import place_of
from pipelines.runs import Run
from pipelines.sweeps import trials_of
from pipelines.tune import tune
from tests.factories import clouds, publish_untrained
from tests.machines import Machine, Machines, ServiceCluster, are_possible, wait_until

pytestmark = [
    pytest.mark.ray,
    pytest.mark.nodes,
    pytest.mark.whole,
    pytest.mark.skipif(
        not are_possible(), reason="machines of their own take root, and Linux's ip, unshare and nsenter"
    ),
]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    registry = Registry.open(str(tmp_path_factory.mktemp("registry")))
    publish_untrained(registry, "count")
    return registry


@pytest.fixture(scope="module")
def cluster(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceCluster]:
    """A head that answers nothing itself, and a node with a replica."""
    home = tmp_path_factory.mktemp("home")
    with Machines(home) as machines:
        cluster = ServiceCluster(machines, home, Path(registry.store.uri))
        cluster.start(nodes=1)
        yield cluster


def ask(machine: Machine, images: int = 1) -> httpx.Response:
    image = ("images", ("a.png", cv2.imencode(".png", clouds(200, 200))[1].tobytes()))
    return httpx.post(f"http://{machine.address}:8000/v1/predict", files=[image] * images, timeout=30)


def counter_of(machine: Machine) -> str:
    """The counter that answers at a machine."""
    [prediction] = ask(machine).json()["predictions"]
    return str(prediction["models"]["regressor"])


def comes(machine: Machine, ref: str) -> Callable[[], bool]:
    """Whether a machine answers, by this counter."""

    def does() -> bool:
        with contextlib.suppress(httpx.TransportError, KeyError):  # HAProxy is started anew as replicas come and go
            return counter_of(machine) == ref
        return False

    return does


def test_a_service_outlives_its_head_and_follows_champions_while_it_is_away(
    cluster: ServiceCluster, registry: Registry
) -> None:
    [node] = cluster.nodes
    for machine in (node, cluster.head):
        wait_until(comes(machine, "regressor@1"), "the first counter answers")
    cluster.head.kill()
    assert [counter_of(node) for _ in range(10)] == ["regressor@1"] * 10
    ref = publish_untrained(registry, "count")
    wait_until(lambda: counter_of(node) == ref, "the node follows the champion without a head")
    cluster.start_head()
    wait_until(comes(cluster.head, ref), "the head answers again")
    cluster.deploy(max_images=3)  # which the controller that is back does

    def has_the_new_setting() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return ask(node, images=4).status_code == 413
        return False

    wait_until(has_the_new_setting, "replicas of the new setting answer")


def test_a_search_that_loses_a_node_keeps_what_has_ended_and_comes_to_what_an_undisturbed_one_does(
    sample_bank: Path, tmp_path: Path
) -> None:
    kernels = ("none", "sharpen", "edge", "emboss")
    train = TrainConfig(
        task="count",
        folds=0,
        model=ModelSpec(architecture="residual", width=4, depth=2),
        augment=Augment(shares=(1.0,), shifts=0),
        epochs=6,
    )
    config = TuneConfig(space={"kernel": kernels}, seeds=1, stop_early=False, train=train)
    undisturbed = tune(Places(bank=place_of(sample_bank), registry=place_of(tmp_path / "undisturbed/registry")), config)

    registry, home = Registry.open(str(tmp_path / "disturbed/registry")), tmp_path / "home"
    home.mkdir()
    sets = ["folds=0", "epochs=6", "model.architecture=residual", "model.width=4", "model.depth=2", "seeds=1"]
    sets += ["augment.shares=[1.0]", "augment.shifts=0", f"space.kernel=[{','.join(kernels)}]", "stop_early=false"]
    words = ["-m", "cellnet", "tune", str(sample_bank), "--task", "count", "--registry", registry.store.uri]
    with Machines(home) as machines:
        cluster = ServiceCluster(machines, home, Path(registry.store.uri))
        cluster.start_head()
        nodes = [machines.add(), machines.add()]
        for node in nodes:
            cluster.start_node(node)
        log = home / "search.log"
        address = {"RAY_ADDRESS": f"{cluster.head.address}:6379"}
        options = [word for one in sets for word in ("--set", one)]
        search = cluster.head.start(sys.executable, *words, *options, log=log, **address)
        wait_until(lambda: "trial   1/4" in log.read_text() or search.poll() is not None, "a trial has ended")
        runs = place_of(tmp_path / "disturbed/runs").open()
        [name] = runs.folders("")
        ended = {trial.name: trial for trial in trials_of(Run(runs, name)) if trial.whole}
        assert 0 < len(ended) < 4, log.read_text()
        nodes[1].kill()
        assert search.wait(timeout=480) == 0, log.read_text()
    trials = {trial.name: trial for trial in trials_of(Run(runs, name))}
    assert {name: trials[name] for name in ended} == ended, "seconds and all"
    found = registry.resolve("regressor:champion")
    wanted = [row | {"seconds": 0} for row in undisturbed.trials]
    assert [row | {"seconds": 0} for row in found.card.search or ()] == wanted
    assert found.card.scores["test"] == undisturbed.winner.card.scores["test"]
