"""`ray start --head` and `ray job submit`, as a bioinformatician types them."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cellnet.bank import Bank
from cellnet.registry import Registry

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]  # a second cluster beside the tests' own

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def submit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """`submit("pipelines.train", …)` on a cluster of its own, with a home folder of its own."""
    home = tmp_path_factory.mktemp("home")
    files = tempfile.mkdtemp(prefix="ray")  # a short path, for the names of sockets; /tmp/ray is every user's
    names = ("port", "dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port")
    ports = {name: free_port() for name in names}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = kept | {"HOME": str(home), "PATH": f"{BIN}:{os.environ['PATH']}", "RAY_USAGE_STATS_ENABLED": "0"}
    start = f"ray start --head --block --num-cpus 2 --temp-dir {files}".split()
    start += [f"--{name}={port}" for name, port in ports.items()]
    head = subprocess.Popen(start, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{ports['dashboard-port']}"

    def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["ray", "job", "submit", "--address", address, "--working-dir", ".", "--"]
        return subprocess.run(
            [*command, "python", "-m", module, *arguments],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=560,
        )  # fmt: skip

    try:
        wait_for([ports["dashboard-port"], ports["dashboard-agent-listen-port"]], head)
        yield run
    finally:
        head.terminate()
        head.wait(timeout=60)
        shutil.rmtree(files, ignore_errors=True)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_for(ports: list[int], head: "subprocess.Popen[bytes]") -> None:
    """Until the dashboard, which takes jobs, and the agent, which runs them, both listen."""
    for port in ports:
        for _ in range(240):
            assert head.poll() is None, "ray start --head ended"
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                break
            time.sleep(0.5)
        else:
            raise AssertionError(f"nothing listens on {port}")


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
