"""What every Ray job shares, without a Ray."""

import pickle
import signal
import sys
from collections.abc import Callable

import pytest
from ray import cloudpickle

from cellnet import version
from cellnet.store.place import Place
from pipelines import cluster
from pipelines.cluster import OfNode, node_fault


def exits() -> None:
    raise SystemExit(0)


def fails() -> None:
    raise RuntimeError("the workers are gone")


@pytest.mark.parametrize("then", [lambda: None, exits, fails])
def test_ctrl_c_stops_a_job_though_ray_answers_it_in_its_own_way(then: Callable[[], None]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), cluster.stopped_by_ctrl_c():
        signal.signal(signal.SIGINT, lambda *_: None)
        signal.raise_signal(signal.SIGINT)
        then()
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.set_wakeup_fd(-1) == -1


def test_what_ends_a_job_that_nobody_stopped_is_left_as_it_is() -> None:
    for then, error in ((exits, SystemExit), (fails, RuntimeError)):
        with pytest.raises(error), cluster.stopped_by_ctrl_c():
            then()
    with cluster.stopped_by_ctrl_c():
        pass


def test_a_node_that_cannot_do_its_part_is_named_with_what_to_do_there() -> None:
    here, bank = version.number(), Place("s3://lab/bank")
    assert node_fault("10.0.0.7", OfNode(here, True), bank) is None
    assert node_fault("10.0.0.7", OfNode("0.1.9", True), None) == (
        f"the node 10.0.0.7 has cellnet 0.1.9, and this is {here}; install {here} there, and start its Ray anew"
    )
    assert str(node_fault("10.0.0.7", OfNode(None, True), None)).startswith(
        "the node 10.0.0.7 has no cellnet, and this"
    )
    assert str(node_fault("10.0.0.7", OfNode(here, False), bank)).startswith(
        "the node 10.0.0.7 has no S3 credentials for s3://lab/bank; set AWS_ACCESS_KEY_ID"
    )
    assert node_fault("10.0.0.7", OfNode(here, True, ("/home/ana/bank",)), None) == (
        "the node 10.0.0.7 does not see the folder /home/ana/bank; give one that every node shares, or "
        "s3://bucket/prefix"
    )


def test_what_a_node_is_asked_needs_no_cellnet_there(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = cloudpickle.dumps(cluster._look_around._function)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("cellnet", "pipelines")]:
        monkeypatch.setitem(sys.modules, name, None)
    assert pickle.loads(sent)(on_s3=True, marks={}) == (None, True, ())


def test_a_node_tells_its_version_and_whether_it_has_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boto3.Session.get_credentials", lambda session: None)
    assert cluster._look_around._function(on_s3=True, marks={}) == (version.number(), False, ())
    monkeypatch.setattr("boto3.Session.get_credentials", lambda session: object())
    assert OfNode(*cluster._look_around._function(on_s3=True, marks={})) == OfNode(version.number(), True)


RAYS_OWN = (
    "INFO 2026-11-29 03:31:34,825 serve 10462 -- Throughput optimized Ray Serve enabled with the following:",
    "  • Request path log buffer size: 1000",
    "",
    "Task ServeController.listen_for_change failed. There are infinite retries remaining, so the task will be retried.",
    "Refer to the documentation on how to address the out of memory issue: https://docs.ray.io/en/latest",
)
SERVICES = (
    "2026-11-29 03:31:34,825 WARNING serve.models: regressor@3 cannot be read",
    '{"time": "2026-11-29T03:31:34.825+00:00", "path": "/v1/predict", "status": 200}',
    "WARNING 2026-11-29 03:31:34,825 serve 10462 -- Deployment 'service' has 1 replicas that have taken more than 30s",
)


def test_of_what_workers_print_only_the_services_own_lines_are_shown() -> None:
    assert [line for line in RAYS_OWN if not cluster.NO_NEWS.search(line)] == []
    assert [line for line in SERVICES if cluster.NO_NEWS.search(line)] == []
