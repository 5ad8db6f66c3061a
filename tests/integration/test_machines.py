"""A service on machines of their own, one of which goes. All faults, counted: tests/benchmarks/cluster_faults.py."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import httpx
import pytest

from cellnet.registry.registry import Registry
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
