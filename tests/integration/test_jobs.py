"""`ray start` and `ray job submit` on two machines of a CPU each, as a bioinformatician types them."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cellnet.networks.weights import weights_to_bytes
from cellnet.places import Places
from cellnet.sample import write_sample
from cellnet.store.place import place_of
from cellnet.training.checkpoint import STATE, state_from_bytes
from cellnet.training.plan import make_plan
from cellnet.untrusted import WEIGHTS
from pipelines.ingest import ingest
from pipelines.runs import SNAPSHOT
from tests.factories import quick_config

from .conftest import KEYS, can_hide_folders

pytestmark = [pytest.mark.ray, pytest.mark.nodes, pytest.mark.timeout(600)]
"""A second cluster beside the tests' own."""

ROOT = Path(__file__).parents[2]
SETTINGS = (
    "folds=0",
    "epochs=12",
    "threads=1",
    "model.width=4",
    "model.depth=2",
    "augment.shifts=0",
    "augment.shares=[1.0]",
)
QUICK = {"RAY_health_check_period_ms": "500"}
"""A machine that is gone is missed after seconds, not minutes."""

Ended = subprocess.CompletedProcess[str]


class Machines(NamedTuple):
    """A cluster of two."""

    submit: Callable[..., Ended]
    """`submit("train", …)`."""
    other: subprocess.Popen[bytes]
    """The one without the head."""
    joining: dict[str, str]
    """The environment of a command that joins the cluster."""
    unseen: Path | None
    """A folder that the other does not see, where one can be hidden from it."""


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@pytest.fixture(scope="module")
def places(ray_started: None, tmp_path_factory: pytest.TempPathFactory) -> Places:
    """A bank without a test split, of two wells a lineage."""
    folder = tmp_path_factory.mktemp("jobs")
    manifest = write_sample(folder / "images", wells_per_lineage=2, lineages=("THP1", "A172"))
    places = Places(bank=place_of(folder / "bank"), registry=place_of(folder / "registry"))
    ingest(manifest, places)
    return places


@pytest.fixture(scope="module")
def machines(own_cluster: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Machines:
    cluster = own_cluster(**QUICK)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):  # of this process, since it has a Ray of its own
        cluster.environment.pop(name, None)
    cluster.environment["AWS_EC2_METADATA_DISABLED"] = "true"
    ports = {name: cluster.free_port() for name in ("port", "dashboard-port", "ray-client-server-port")}
    ports["dashboard-agent-listen-port"] = 0  # the agent takes one and tells it the dashboard
    head = cluster.start("--head", "--num-cpus=1", *(f"--{name}={port}" for name, port in ports.items()))
    submission = ["ray", "job", "submit", "--address", f"http://127.0.0.1:{ports['dashboard-port']}"]
    deadline = time.monotonic() + 180

    def wait_until(true: Callable[[], bool], node: subprocess.Popen[bytes]) -> None:
        while not true():
            assert node.poll() is None, f"ray start ended\n{cluster.log.read_text()}"
            assert time.monotonic() < deadline, f"ray start does not end\n{cluster.log.read_text()}"
            time.sleep(0.2)

    wait_until(lambda: answers(ports["dashboard-port"]), head)
    unseen = tmp_path_factory.mktemp("unseen") if can_hide_folders() else None
    other = cluster.start("--num-cpus=1", f"--address=127.0.0.1:{ports['port']}", without=unseen)
    wait_until(lambda: cluster.log.read_text().count("Ray runtime started.") == 2, other)

    def submit(verb: str, *arguments: str) -> Ended:
        """What comes of a job as soon as one runs: the dashboard and its agent come up one by one."""
        while True:
            done = subprocess.run(
                [*submission, "--working-dir", ".", "--", "python", "-m", "pipelines", verb, *arguments],
                cwd=ROOT, env=cluster.environment, capture_output=True, text=True, timeout=560,
            )  # fmt: skip
            if done.returncode == 0 or "cellnet: " in done.stdout:
                return done
            said = f"\n{done.stdout}{done.stderr}\n{cluster.log.read_text()}"
            assert head.poll() is None and time.monotonic() < deadline, f"no job runs{said}"
            time.sleep(1)

    joining = cluster.environment | {"RAY_ADDRESS": f"127.0.0.1:{ports['port']}"}
    return Machines(submit, other, joining, unseen)


@pytest.fixture(scope="module")
def trained(machines: Machines, places: Places, descendants: Callable[[int, str], list[int]]) -> str:
    """What a submitted, elastic training says, one of whose two machines is lost when an epoch is kept."""
    folder, over = Path(places.registry.uri).parent, threading.Event()

    def lose_other() -> None:
        while not any(folder.glob("runs/*/checkpoint_manager_snapshot.json")):
            assert not over.wait(0.1), "the training ended before an epoch was kept"
        for pid in (
            *descendants(machines.other.pid, ""),
            machines.other.pid,
        ):  # a raylet alone leaves workers that go on
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    sets = [word for setting in SETTINGS for word in ("--set", setting)]
    where = (str(places.bank), "--registry", str(places.registry))
    with ThreadPoolExecutor(1) as pool:
        lost = pool.submit(lose_other)
        try:
            done = machines.submit("train", *where, "--task", "classify", "--workers", "1:2", *sets)
        finally:
            over.set()
    assert done.returncode == 0, done.stdout + done.stderr
    lost.result()
    return done.stdout


def test_a_node_reads_s3_by_its_own_credentials_and_one_without_is_named(
    machines: Machines, places: Places, moto: str, credentials: None
) -> None:
    """Nobody sends it those of the command; and this comes first, since a machine is lost later."""
    manifest = Path(places.bank.uri).parent / "images/manifest.csv"
    command = [sys.executable, "-m", "pipelines", "ingest", str(manifest), "s3://lab/jobs", "--endpoint-url", moto]
    done = subprocess.run(
        command, cwd=ROOT, env=machines.joining | KEYS, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert re.search(
        r"the node [\d.]+ has no S3 credentials for s3://lab/jobs; set AWS_ACCESS_KEY_ID .* \(and 1 more\)", done.stderr
    ), done.stderr


def test_a_folder_that_one_machine_alone_sees_is_read_there_and_no_place_for_results(
    machines: Machines, places: Places, tmp_path: Path
) -> None:
    if machines.unseen is None:
        pytest.skip("hiding a folder from a process takes root and unshare")
    manifest = write_sample(machines.unseen / "images", wells_per_lineage=20, lineages=("THP1",), size_px=120)

    def run(*arguments: str) -> Ended:
        command = [sys.executable, "-m", "cellnet", *arguments]
        return subprocess.run(command, cwd=ROOT, env=machines.joining, capture_output=True, text=True, timeout=300)

    done = run("bank", "import", str(manifest), str(tmp_path / "bank"))
    assert done.returncode == 0 and "40 frames added, 0 known already, 0 set aside" in done.stderr, done.stderr
    assert len(list((tmp_path / "bank/prepared").iterdir())) == 3
    refused = run("bank", "import", str(manifest), str(machines.unseen / "bank"))
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert f"does not see the folder {machines.unseen}; give one that every node shares, or s3://" in refused.stderr
    assert not (machines.unseen / "bank").exists() and sorted(os.listdir(machines.unseen)) == ["images"]


def test_a_job_refuses_a_folder_that_would_be_lost_with_its_working_directory(machines: Machines) -> None:
    refused = machines.submit("train", "bank", "--task", "count")
    assert refused.returncode != 0
    assert "cellnet: a Ray job runs in a copy of its working directory, so 'bank' would be lost" in refused.stdout
    assert "Traceback" not in refused.stdout


@pytest.mark.whole
def test_a_submitted_elastic_training_publishes_though_a_machine_is_lost(trained: str, places: Places) -> None:
    first, second = (line for line in trained.splitlines() if "parameters" in line)
    assert first.endswith("parameters, 2 workers")
    going_on = re.search(r"parameters, 1 worker, going on after epoch (\d+)$", second)
    assert going_on and 1 <= int(going_on[1]) < 12, trained
    assert "epoch  12/12" in trained and "classifier@1" in trained
    card, bank = places.open_registry().resolve("classifier@1").card, places.open_bank()
    assert (card.config.epochs, card.config.model.width, card.bank_digest) == (12, 4, bank.digest)
    tiles = make_plan(bank, quick_config("classify")).splits["train"].rows
    assert [epoch["tiles"] for epoch in card.history] == [tiles] * 12, "none is lost with the machine"


@pytest.mark.whole
def test_a_bank_without_a_test_split_trains_to_the_last_epoch_and_says_so(trained: str, places: Places) -> None:
    assert "no test split, so the last epoch is taken" in trained
    registry = places.open_registry()
    version = registry.resolve("classifier@1")
    card = version.card
    assert card.scores["test"] == {} and [epoch["test"] for epoch in card.history] == [{}] * 12
    assert card.calibration is not None and card.calibration.tiles == 0
    [listed] = Path(places.registry.uri).parent.glob(f"runs/*/{SNAPSHOT}")
    [last] = json.loads(listed.read_bytes())["checkpoint_results"]  # a lost machine may leave half of another
    assert last["metrics"]["epoch"] == 12
    state = state_from_bytes((listed.parent / last["checkpoint_dir_name"] / STATE).read_bytes())
    assert registry.read(version, WEIGHTS) == weights_to_bytes(state.weights)
