"""`ray start --head` and `ray job submit`, as a bioinformatician types them."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cellnet.bank.bank import Bank
from cellnet.registry.registry import Registry

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
"""A second cluster beside the tests' own."""

ROOT = Path(__file__).parents[2]


Ended = subprocess.CompletedProcess[str]


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@pytest.fixture(scope="module")
def submitted(own_cluster: Callable[..., Any]) -> tuple[Callable[..., Ended], Ended]:
    """`submit("train", …)` on a cluster of its own, and what came of a first job whose bank was no place."""
    cluster = own_cluster()
    ports = {name: cluster.free_port() for name in ("port", "dashboard-port", "ray-client-server-port")}
    ports["dashboard-agent-listen-port"] = 0  # the agent takes one and tells it the dashboard
    head = cluster.start("--head", "--num-cpus=2", *(f"--{name}={port}" for name, port in ports.items()))
    submission = ["ray", "job", "submit", "--address", f"http://127.0.0.1:{ports['dashboard-port']}"]

    def submit(verb: str, *arguments: str) -> Ended:
        return subprocess.run(
            [*submission, "--working-dir", ".", "--", "python", "-m", "pipelines", verb, *arguments],
            cwd=ROOT, env=cluster.environment, capture_output=True, text=True, timeout=560,
        )  # fmt: skip

    deadline = time.monotonic() + 180
    while not answers(ports["dashboard-port"]) and head.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    # The dashboard and its agent come up one by one, and asking the agent takes a process of Ray's.
    while "cellnet: " not in (tried := submit("train", "bank", "--task", "count")).stdout:
        said = f"\n{tried.stdout}{tried.stderr}\n{cluster.log.read_text()}"
        assert head.poll() is None, f"ray start --head ended{said}"
        assert time.monotonic() < deadline, f"no job runs{said}"
        time.sleep(1)
    return submit, tried


def test_a_submitted_training_publishes_as_the_command_does(
    submitted: tuple[Callable[..., Ended], Ended], sample_bank: Path, tmp_path: Path
) -> None:
    submit, _ = submitted
    settings = ("epochs=1", "model.width=2", "model.depth=2", "augment.shifts=0")
    sets = [word for setting in settings for word in ("--set", setting)]
    places = (str(sample_bank), "--registry", str(tmp_path / "registry"))
    done = submit("train", *places, "--task", "count", *sets)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "epoch   1/1" in done.stdout and "regressor@1" in done.stdout
    card = Registry.open(str(tmp_path / "registry")).resolve("regressor@1").card
    assert (card.config.epochs, card.config.model.width, card.bank_digest) == (1, 2, Bank.open(sample_bank).digest)


def test_a_job_refuses_a_folder_that_would_be_lost_with_its_working_directory(
    submitted: tuple[Callable[..., Ended], Ended],
) -> None:
    _, done = submitted
    assert done.returncode != 0
    assert "cellnet: a Ray job runs in a copy of its working directory, so 'bank' would be lost" in done.stdout
    assert "Traceback" not in done.stdout
