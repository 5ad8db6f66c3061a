"""What every Ray job shares, without a Ray."""

import pickle
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ray import cloudpickle
from ray._private import ray_logging
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import cellnet.cli.train as cli_train
from cellnet import version
from cellnet.cli import program
from cellnet.errors import ConfigError
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


class Nodes:
    """A cluster whose nodes have what they tell; it keeps who was asked about which folders."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **tell: tuple[str | None, bool, tuple[str, ...]]) -> None:
        self.tell, self.asked = tell, list[str]()
        monkeypatch.setattr(cluster, "_used", set())
        monkeypatch.setattr(cluster, "_asked", {})
        monkeypatch.setattr(cluster, "_look_around", self)
        monkeypatch.setattr(cluster.ray, "is_initialized", lambda: True)
        monkeypatch.setattr(cluster.ray, "nodes", self.nodes)
        monkeypatch.setattr(cluster.ray, "wait", lambda refs, **options: (refs, []))
        monkeypatch.setattr(cluster.ray, "get", lambda name: self.tell[name])

    def nodes(self) -> list[dict[str, object]]:
        """As Ray has them; a node's id is its address."""
        own = {"Alive": True, "Resources": {"CPU": 1}}
        return [own | {"NodeID": f"{number:056x}", "NodeManagerAddress": name} for number, name in enumerate(self.tell)]

    def options(self, *, scheduling_strategy: NodeAffinitySchedulingStrategy) -> "Nodes":
        self._next = list(self.tell)[int(scheduling_strategy.node_id, 16)]
        return self

    def remote(self, *, on_s3: bool, marks: dict[str, str]) -> str:
        self.asked.append(self._next)
        return self._next


FINE = (version.number(), True, ())


def test_a_node_is_asked_once_a_job_and_again_about_another_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nodes = Nodes(monkeypatch, head=FINE, other=FINE)
    for place in (tmp_path / "bank", tmp_path / "bank", tmp_path / "registry"):
        cluster.connect(Place(str(place)))
    assert nodes.asked == ["head", "other"] * 2


def test_a_node_that_joins_later_is_named_and_those_that_can_are_not_asked_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nodes = Nodes(monkeypatch, head=FINE, other=FINE)
    cluster.connect(Place(str(tmp_path)))
    assert cluster.fault_of_joined() is None and nodes.asked == ["head", "other"]
    nodes.tell |= {"late": ("0.1.9", True, ()), "later": FINE}
    for _ in range(2):
        assert str(cluster.fault_of_joined()).startswith("the node late has cellnet 0.1.9, and this is ")
    assert nodes.asked == ["head", "other", "late", "later", "late"]


def test_a_command_that_failed_names_the_node_that_joined_and_cannot_do_its_part(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(arguments: object) -> None:
        raise ModuleNotFoundError("No module named 'cellnet.late'")  # as a task tells that ran there

    monkeypatch.setattr(cli_train, "train", fails)
    monkeypatch.setattr(cluster, "fault_of_joined", lambda: ConfigError("the node late has cellnet 0.1.9"))
    assert program.main(["train", "bank", "--task", "count"]) == 2
    assert capsys.readouterr().err == "cellnet: the node late has cellnet 0.1.9\n"


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


def test_lines_of_json_of_several_workers_that_differ_in_digits_alone_are_all_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_logging, "RAY_DEDUP_LOGS", True)
    for name in ("stdout_deduplicator", "stderr_deduplicator"):
        monkeypatch.setattr(ray_logging, name, ray_logging.LogDeduplicator(5, None, None))
    cluster.quiet()
    shown = [
        line
        for pid in (1, 2)
        for batch in ray_logging.stdout_deduplicator.deduplicate(
            {"ip": "127.0.0.1", "pid": pid, "lines": [f'{{"request_id": "a{pid}"}}', f"a line, {pid}"]}
        )
        for line in batch["lines"]
    ]
    assert shown == ['{"request_id": "a1"}', "a line, 1", '{"request_id": "a2"}']
