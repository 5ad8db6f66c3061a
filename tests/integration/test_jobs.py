"""`ray start --head` and `ray job submit`, as a bioinformatician types them."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from cellnet.bank import Bank
from cellnet.registry import Registry

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def submit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """`submit("pipelines.train", …)` on a cluster of its own, with a home folder of its own."""
    home = tmp_path_factory.mktemp("home")
    files = tempfile.mkdtemp(prefix="ray")  # a short path, for the names of sockets; /tmp/ray is every user's
    ports = [free_port() for _ in range(2)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = kept | {"HOME": str(home), "PATH": f"{BIN}:{os.environ['PATH']}", "RAY_USAGE_STATS_ENABLED": "0"}
    options = f"--port {ports[0]} --dashboard-port {ports[1]} --ray-client-server-port 0 --temp-dir {files}"
    start = f"ray start --head --block --num-cpus 2 {options}"
    head = subprocess.Popen(start.split(), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{ports[1]}"

    def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["ray", "job", "submit", "--address", address, "--working-dir", ".", "--"]
        return subprocess.run(
            [*command, "python", "-m", module, *arguments],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280,
        )  # fmt: skip

    try:
        wait_for(address, head)
        yield run
    finally:
        head.terminate()
        head.wait(timeout=60)
        shutil.rmtree(files, ignore_errors=True)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_for(address: str, head: "subprocess.Popen[bytes]") -> None:
    """Until the cluster takes jobs."""
    for _ in range(120):
        assert head.poll() is None, "ray start --head ended"
        try:
            if httpx.get(f"{address}/api/jobs/", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise AssertionError(f"nothing answers at {address}")


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
