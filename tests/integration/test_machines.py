"""A service on machines of their own, one of which goes. All faults, counted: tests/benchmarks/cluster_faults.py."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import httpx
import pytest

from cellnet.registry.registry import Registry
from tests.factories import clouds, publish_untrained
from tests.machines import Machine, Machines, ServiceCluster, are_possible, wait_until

pytestmark = [
    pytest.mark.ray,
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


def answered_by(machine: Machine) -> str:
    """The counter that answers at a machine. Raises httpx.HTTPError where none does."""
    image = cv2.imencode(".png", clouds(200, 200))[1].tobytes()
    response = httpx.post(f"http://{machine.address}:8000/v1/predict", content=image, timeout=30)
    response.raise_for_status()
    [prediction] = response.json()["predictions"]
    return str(prediction["models"]["regressor"])


def test_a_service_outlives_its_head_and_follows_champions_while_it_is_away(
    cluster: ServiceCluster, registry: Registry
) -> None:
    [node] = cluster.nodes
    assert answered_by(node) == answered_by(cluster.head) == "regressor@1"
    cluster.head.kill()
    assert [answered_by(node) for _ in range(10)] == ["regressor@1"] * 10
    ref = publish_untrained(registry, "count")
    wait_until(lambda: answered_by(node) == ref, "the node follows the champion")
    cluster.start_head()
    wait_until(lambda: cluster.answers(cluster.head), "the head answers again")
    ref = publish_untrained(registry, "count")
    wait_until(lambda: answered_by(node) == ref, "the node follows the champion after the head is back")
    cluster.deploy(max_images=3)  # which the controller that is back does
    image = ("images", ("a.png", cv2.imencode(".png", clouds(200, 200))[1].tobytes()))
    statuses = [200]

    def has_new_settings() -> bool:
        response = httpx.post(f"http://{node.address}:8000/v1/predict", files=[image] * 4, timeout=30)
        statuses.append(response.status_code)
        return response.status_code == 413

    wait_until(has_new_settings, "replicas of the new settings answer")
    assert set(statuses) == {200, 413}
