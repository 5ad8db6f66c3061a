"""How a job comes to its Ray, and what is said where it does not: Ray itself does not start here."""

import contextlib
import errno
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
import ray
from ray._private import services
from ray._private.node import Node
from ray.exceptions import AuthenticationError

from cellnet.cli import main
from cellnet.errors import ConfigError
from pipelines import starting

LATE = Exception("The current node timed out during startup.")
"""What Ray 2.60 says where its raylet is slow."""


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[int]]:
    """`start(LATE, None)`: tries to start, Ray failing at first as told; gives the numbers of its tries."""
    monkeypatch.setattr(os, "environ", dict(os.environ) | {"RAY_TMPDIR": str(tmp_path), "RAY_AUTH_TOKEN": "a"})
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(services, "get_ray_address_from_environment", lambda *_: None)

    def started(*outcomes: Exception | None) -> list[int]:
        tried: list[int] = []

        def init(**settings: Any) -> None:
            tried.append(len(tried) + 1)
            os.write(2, b"network_util.cc:107: no connection yet\n")
            if outcome := outcomes[len(tried) - 1]:
                raise outcome

        monkeypatch.setattr(ray, "init", init)
        starting.start_or_join()
        return tried

    return started


def test_a_start_that_missed_rays_limits_is_tried_once_more_and_ray_is_not_heard(
    start: Callable[..., list[int]], capfd: pytest.CaptureFixture[str]
) -> None:
    assert start(LATE, None) == [1, 2]
    assert capfd.readouterr() == ("", "")
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard", "and afterwards the terminal is as it was"


def test_a_start_that_is_late_twice_is_told_in_a_line(
    start: Callable[..., list[int]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"did not start in two tries; wait until this machine is less busy, .* time"):
        start(LATE, LATE, AssertionError("a third"))
    (tmp_path / "images" / "A549").mkdir(parents=True)
    (tmp_path / "images" / "A549" / "a.png").write_bytes(b"x")
    assert main(["bank", "import", str(tmp_path / "images"), str(tmp_path / "bank")]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and line.startswith("cellnet: Ray did not start in two tries; ")


def test_processes_of_a_node_that_was_half_made_are_ended(
    start: Callable[..., list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[dict[str, bool]] = []
    monkeypatch.setattr(Node, "kill_all_processes", lambda node, **how: ended.append(how))

    def half(self: Node) -> None:
        self.all_processes = {"raylet": []}
        raise RuntimeError("Failed to start GCS")

    monkeypatch.setattr(Node, "__init__", half)
    monkeypatch.setattr(ray, "init", lambda **settings: Node())
    with pytest.raises(ConfigError):
        starting.start_or_join()
    assert ended == [{"check_alive": False, "allow_graceful": False}] * 2


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left", "/tmp/ray/x"), "Ray does not start: /tmp/ray/x: the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/tmp/ray"), "/tmp/ray: there is no right to it; .*TMPDIR"),
        (RuntimeError("Version mismatch: The cluster\nwas started with Ray: 2.9"), "Version mismatch: The cluster was"),
        (AuthenticationError("InvalidAuthToken"), "refuses this token, or wants one; set RAY_AUTH_MODE=token"),
    ],
)
def test_what_a_second_try_would_not_change_is_told_at_once(
    start: Callable[..., list[int]], error: Exception, said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        start(error, AssertionError("a second try"))
    assert "\n" not in str(raised.value)


def test_a_full_disk_is_told_before_ray_tries(
    start: Callable[..., list[int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 2**20}))
    with pytest.raises(ConfigError, match=f"Ray does not start: {re.escape(str(tmp_path))}: the disk is full"):
        start(AssertionError("it was tried"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionError("Failed to connect"), "no Ray cluster answers at head:6379; correct or unset RAY_ADDRESS"),
        (RuntimeError("No node info found matching"), "no node of the Ray cluster at head:6379; start one"),
        (AuthenticationError("InvalidAuthToken"), "the Ray cluster at head:6379 refuses this token"),
        (LATE, "the Ray cluster at head:6379 cannot be joined; see how it is"),
    ],
)
def test_a_cluster_that_is_not_joined_is_told_by_its_address(
    start: Callable[..., list[int]], monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    monkeypatch.setattr(services, "get_ray_address_from_environment", lambda *_: "head:6379")
    monkeypatch.setattr(starting, "_check", lambda address: None)
    with pytest.raises(ConfigError, match=said):
        start(error, error)


@pytest.mark.parametrize("asks_for_a_token", [True, False])
def test_a_cluster_that_asks_for_no_token_is_told_from_one_that_does(
    monkeypatch: pytest.MonkeyPatch, asks_for_a_token: bool
) -> None:
    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        if asks_for_a_token and "authorization" not in dict(context.invocation_metadata()):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
        return b""

    methods = {"GetClusterId": grpc.unary_unary_rpc_method_handler(answer)}
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("ray.rpc.NodeInfoGcsService", methods)])
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address=address))
    refused = contextlib.nullcontext() if asks_for_a_token else pytest.raises(ConfigError, match="--no-cluster-token")
    with refused:
        starting.check_closed()
    server.stop(None)


def test_ray_waits_longer_for_its_node_and_not_for_one_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def get_node(address: str, node: str) -> str:
        asked.append(node)
        if len(asked) < 3:
            raise RuntimeError("not yet")
        return "there"

    class Raylet:
        def name(self) -> str:
            return "raylet"

        def status(self) -> str:
            return state

    monkeypatch.setattr(services, "get_node", get_node)
    monkeypatch.setattr("psutil.Process.children", lambda process: [Raylet()])
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    state = "zombie"
    with starting.patient(), pytest.raises(RuntimeError):
        services.get_node("address", "node")
    state = "running"
    with starting.patient():
        assert services.get_node("address", "node") == "there"
    assert services.get_node is get_node and len(asked) == 3
