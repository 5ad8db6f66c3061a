"""How room is asked for and waited for, without a Ray."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cellnet.errors import CellnetError, ConfigError
from pipelines import cluster, room
from pipelines.room import HEAD, Growth, may_hold

HERE = [{"CPU": 4.0, HEAD: 1.0}]
GPU_NODES = Growth((({"CPU": 8, "GPU": 4}, 2),), at_most=5)


class Cluster:
    """One that grows by a node of four GPUs each time that it is waited for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, growth: Growth | None, *, grows: bool = True) -> None:
        self.nodes: list[dict[str, float]] = list(HERE)
        self.growth, self.grows = growth, grows
        self.asked: list[dict[str, float]] = []
        self.said: list[str] = []
        self.removed = self.checked = 0
        self.now_s = 0.0
        monkeypatch.setattr(room, "_nodes", lambda: self.nodes)
        monkeypatch.setattr(room, "growth", lambda: self.growth)
        monkeypatch.setattr(room, "placement_group", self.ask)
        monkeypatch.setattr(room, "remove_placement_group", self.remove)
        monkeypatch.setattr(room.time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(cluster, "check_nodes", self.check)

    def ask(self, bundles: list[dict[str, float]]) -> "Cluster":
        self.asked = bundles
        return self

    def wait(self, timeout_s: float) -> bool:
        self.now_s += timeout_s
        if self.grows:
            self.nodes = [*self.nodes, {"CPU": 8.0, "GPU": 4.0}]
        return sum(room.held(self.asked[0], node) for node in self.nodes) >= len(self.asked)

    def remove(self, group: Any) -> None:
        assert group is self
        self.removed += 1

    def check(self) -> None:
        self.checked += 1


def test_a_cluster_that_grows_is_asked_and_waited_for_with_a_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    grown = Cluster(monkeypatch, GPU_NODES)
    assert room.wait_for_gpus(1, 6, wait_s=900, say=grown.said.append)
    assert grown.asked == [{"GPU": 1}] * 6
    assert grown.said == ["waiting for 6 × GPU; the cluster may grow to 8"] * 2
    assert (grown.now_s, grown.removed, grown.checked) == (120, 1, 1), "nodes that came are asked what they have"


def test_where_there_is_room_and_where_the_cluster_cannot_grow_nothing_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fixed = Cluster(monkeypatch, None)
    assert room.wait_for({"CPU": 1}, 4, wait_s=900, say=fixed.said.append)
    assert not room.wait_for_gpus(1, 1, wait_s=900, say=fixed.said.append)
    room.wait_for_workers(8, wait_s=900, say=fixed.said.append)
    assert fixed.asked == fixed.said == []


def test_what_no_node_offers_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    grown = Cluster(monkeypatch, GPU_NODES)
    with pytest.raises(ConfigError, match="this needs 9 × GPU at once, and the cluster may grow to 8; ask for less"):
        room.wait_for_gpus(1, 9, wait_s=900, say=grown.said.append)
    with pytest.raises(ConfigError, match="this needs 1 × 8 GPU at once, and the cluster may grow to 0"):
        room.wait_for_gpus(8, 1, wait_s=900, say=grown.said.append)
    assert grown.asked == grown.said == []


def test_a_wait_ends_and_frees_what_it_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = Cluster(monkeypatch, Growth(None), grows=False)
    with pytest.raises(CellnetError, match=r"the cluster has 0 of 2 × GPU after 90 s; see why none come .* --wait"):
        room.wait_for_gpus(1, 2, wait_s=90, say=stuck.said.append)
    assert stuck.said == ["waiting for 2 × GPU; the cluster grows on demand"] * 2
    assert (stuck.now_s, stuck.removed) == (90, 1)


def test_workers_on_cpus_take_what_the_cluster_grows_to_and_share_it_else(monkeypatch: pytest.MonkeyPatch) -> None:
    grown = Cluster(monkeypatch, GPU_NODES)
    room.wait_for_workers(40, wait_s=900, say=grown.said.append)
    assert len(grown.asked) == 4 + 2 * 8, "all that it may have"
    stuck = Cluster(monkeypatch, GPU_NODES, grows=False)
    room.wait_for_workers(7, wait_s=60, say=stuck.said.append)
    assert len(stuck.asked) == 8, "one CPU feeds the workers"
    assert stuck.said[-1] == "note: the cluster has 4 of 8 × CPU after 60 s; it is done with what there is"


def test_trials_that_may_come_count(monkeypatch: pytest.MonkeyPatch) -> None:
    grown = Cluster(monkeypatch, GPU_NODES)
    monkeypatch.setattr(room.ray, "cluster_resources", lambda: {"CPU": 4.0})
    assert [room.at_once(0.5), room.at_once(0.5, 4), room.at_once(4)] == [16, 4, 2]
    grown.growth = None
    with pytest.raises(ConfigError, match=r"a trial wants 0.5 GPUs, and the cluster has 0; leave gpus out"):
        room.at_once(0.5)


def test_of_a_kind_there_may_be_no_more_than_it_says_nor_than_all_together() -> None:
    there = {"CPU": 8.0, "GPU": 4.0}
    assert may_hold({"GPU": 1}, [*HERE, there], GPU_NODES) == 8
    assert may_hold({"GPU": 1}, [*HERE, there], GPU_NODES._replace(at_most=1)) == 4
    assert may_hold({"GPU": 1}, HERE, Growth(None)) == math.inf


TYPES = {
    "head": {"resources": {"CPU": 4}, "max_workers": 0},
    "gpus": {"resources": {"CPU": 8, "GPU": 4}, "max_workers": 2},
    "cpus": {"resources": {"CPU": 16}},
}


def on_head(monkeypatch: pytest.MonkeyPatch, *commands: list[str]) -> Any:
    """What the head tells whose processes are these."""
    processes = [SimpleNamespace(cmdline=lambda words=words: words) for words in commands]
    monkeypatch.setattr("psutil.process_iter", lambda: processes)
    return room._on_head._function("6379")


def test_the_head_knows_by_its_autoscalers_file_what_may_come(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "ray_bootstrap_config.yaml"
    monitor = ["python", "-u", "/lib/ray/autoscaler/_private/monitor.py", "--gcs-address=10.0.0.1:6379"]
    other = [*monitor[:-1], "--gcs-address=10.0.0.1:6380", "--autoscaling-config=/gone"]
    config = {"max_workers": 5, "head_node_type": "head", "available_node_types": TYPES}
    file.write_text(json.dumps(config))
    grows = [*monitor, f"--autoscaling-config={file}"]
    assert on_head(monkeypatch, ["sh"], other, grows) == [[[{"CPU": 8, "GPU": 4}, 2], [{"CPU": 16}, 5]], 5]
    assert on_head(monkeypatch, other, monitor) == [], "it only looks on"
    assert on_head(monkeypatch, other) is None, "it runs elsewhere, or not at all"
    file.write_text(json.dumps(config | {"available_node_types": TYPES | {"large": {"max_workers": 1}}}))
    assert on_head(monkeypatch, grows) == [None, 5], "it does not say what a kind has"


@pytest.mark.parametrize(
    ("told", "status", "found"),
    [
        ([[[{"CPU": 8, "GPU": 4}, 2]], 5], b"{}", GPU_NODES),
        ([None, 5], b"{}", Growth(None, 5)),
        ([], b"{}", None),
        ([[], 0], b"{}", None),
        (None, b"{}", Growth(None)),
        (None, b"", None),
    ],
)
def test_a_cluster_grows_where_an_autoscaler_may_start_nodes(
    monkeypatch: pytest.MonkeyPatch, told: Any, status: bytes, found: Growth | None
) -> None:
    head = {"Alive": True, "NodeID": "0" * 56, "Resources": HERE[0]}
    monkeypatch.setattr(room.ray, "nodes", lambda: [head])
    monkeypatch.setattr(room.ray, "get", lambda asked, timeout: told)
    monkeypatch.setattr(room.ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="10.0.0.1:6379"))
    asked = SimpleNamespace(remote=lambda address: address)
    monkeypatch.setattr(room, "_on_head", SimpleNamespace(options=lambda scheduling_strategy: asked))
    monkeypatch.setattr(room, "_internal_kv_get", lambda key: status)
    monkeypatch.setattr(room, "is_autoscaler_v2", lambda: False)
    monkeypatch.setattr(cluster, "is_own", lambda: False)
    assert room.growth() == found
    monkeypatch.setattr(cluster, "is_own", lambda: True)
    assert room.growth() is None, "what was started here is this machine"
