"""`ray start --head` and `ray job submit`, as a bioinformatician types them."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cellnet.bank import Bank
from cellnet.registry import Registry

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
"""A second cluster beside the tests' own."""

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def submit(own_cluster: Callable[..., Any]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`submit("pipelines.train", …)` on a cluster of its own."""
    cluster = own_cluster()
    ports = {name: cluster.free_port() for name in ("port", "dashboard-port", "ray-client-server-port")}
    ports["dashboard-agent-listen-port"] = 0  # the agent takes one and tells it the dashboard
    head = cluster.start("--head", "--num-cpus=2", *(f"--{name}={port}" for name, port in ports.items()))
    submission = ["ray", "job", "submit", "--address", f"http://127.0.0.1:{ports['dashboard-port']}"]

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*submission, "--working-dir", ".", "--", "python", *command],
            cwd=ROOT, env=cluster.environment, capture_output=True, text=True, timeout=560,
        )  # fmt: skip

    deadline = time.monotonic() + 180
    while (tried := run("-c", "pass")).returncode != 0:  # the dashboard and its agent come up one by one
        said = f"\n{tried.stdout}{tried.stderr}\n{cluster.log.read_text()}"
        assert head.poll() is None, f"ray start --head ended{said}"
        assert time.monotonic() < deadline, f"no job runs{said}"
        time.sleep(1)
    return lambda module, *arguments: run("-m", module, *arguments)


def test_a_submitted_training_publishes_as_the_command_does(
    submit: Callable[..., subprocess.CompletedProcess[str]], sample_bank: Path, tmp_path: Path
) -> None:
    settings = ("epochs=1", "model.width=2", "model.depth=2", "augment.shifts=0")
    sets = [word for setting in settings for word in ("--set", setting)]
    places = (str(sample_bank), "--registry", str(tmp_path / "registry"))
    done = submit("pipelines.train", *places, "--task", "count", *sets)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "epoch   1/1" in done.stdout and "regressor@1" in done.stdout
    card = Registry.open(str(tmp_path / "registry")).resolve("regressor@1").card
    assert (card.config.epochs, card.config.model.width, card.bank_digest) == (1, 2, Bank.open(sample_bank).digest)


def test_a_job_refuses_a_folder_that_would_be_lost_with_its_working_directory(
    submit: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = submit("pipelines.train", "bank", "--task", "count")
    assert done.returncode != 0
    assert "cellnet: a Ray job runs in a copy of its working directory, so 'bank' would be lost" in done.stdout
    assert "Traceback" not in done.stdout
