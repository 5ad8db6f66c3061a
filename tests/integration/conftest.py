"""One local Ray, one S3 server on loopback and one small bank of drawn frames for the tests that need them."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.factories import COUNTER, exports_kept, quick_config
from tests.machines import environment_of

if TYPE_CHECKING:
    from cellnet.places import Places

KEYS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true"}


PATIENT = """
import sys
from pipelines import starting
from ray.scripts.scripts import main

with starting.patient():
    sys.exit(main())
"""
"""`python -c PATIENT start …`: `ray start`, whose own 30 s are too few where both cores are busy."""


class OwnCluster:
    """A cluster of `ray start`, with files and a home folder of its own, apart from the one that this process is in."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.environment = environment_of(home, **environment)
        self.log = home / "nodes.log"
        self.nodes: list[subprocess.Popen[bytes]] = []
        self._files: list[str] = []

    def start(self, *options: str, without: Path | None = None) -> subprocess.Popen[bytes]:
        """One node more, with files of its own, as if it were another machine: they share no working directories.

        Nor a folder that it is to be without, which takes root.
        """
        self._files.append(tempfile.mkdtemp(prefix="ray"))  # a short path, for the names of sockets
        command = [sys.executable, "-c", PATIENT, "start", "--block", "--temp-dir", self._files[-1], *options]
        if without:
            hide = 'mount -t tmpfs none "$0" && exec "$@"'
            command = ["unshare", "--mount", "--propagation=private", "sh", "-c", hide, str(without), *command]
        with self.log.open("ab") as log:
            self.nodes.append(subprocess.Popen(command, env=self.environment, stdout=log, stderr=log))
        return self.nodes[-1]

    def stop(self) -> None:
        for node in reversed(self.nodes):  # not by asking: Ray takes half a minute
            for pid in (*_descendants(node.pid, ""), node.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            node.wait(timeout=60)
        for folder in self._files:
            shutil.rmtree(folder, ignore_errors=True)

    @staticmethod
    def free_port() -> int:
        """A port below those that the kernel gives to whoever asks for any, as Ray's own servers do."""
        while True:
            port = random.randint(20_000, 32_000)
            with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
                return port


@pytest.fixture(scope="module")
def own_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., OwnCluster]]:
    """`own_cluster(RAY_AUTH_MODE="disabled")`: a cluster without a node yet, whose processes have this environment."""
    made: list[OwnCluster] = []

    def make(**environment: str) -> OwnCluster:
        made.append(OwnCluster(tmp_path_factory.mktemp("home"), **environment))
        return made[-1]

    yield make
    for cluster in made:
        cluster.stop()


def can_hide_folders() -> bool:
    """Whether a process here may see other folders than the rest, as another machine does."""
    hide = ["unshare", "--mount", "--propagation=private", "mount", "-t", "tmpfs", "none", "/mnt"]
    return (
        shutil.which("unshare") is not None and subprocess.run(hide, capture_output=True, check=False).returncode == 0
    )


def _descendants(ancestor: int, word: str) -> list[int]:
    parents, commands = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            commands[int(folder.name)] = (folder / "cmdline").read_text()
    family = {ancestor}
    while grown := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= grown
    return [pid for pid in family - {ancestor} if word in commands.get(pid, "")]


@pytest.fixture(scope="session")
def descendants() -> Callable[[int, str], list[int]]:
    """`descendants(pid, "raylet")`: the processes below a process whose command has this word in it."""
    return _descendants


@pytest.fixture(scope="session")
def ray_started() -> Iterator[None]:
    """A local Ray of two CPUs, whose workers have the keys of the tests' S3 server, and no cache in the user's home."""
    import ray

    from pipelines import cluster, publishing, starting

    with pytest.MonkeyPatch.context() as patch:
        more = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0", "CELLNET_CACHE": ""}
        for name, value in (KEYS | starting.LIMITS | more).items():
            patch.setenv(name, value)
        with starting.patient():  # Ray's own limits are too short where both cores are busy
            ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        ray._private.worker._global_node.kill_log_monitor()  # nobody reads what it passes on, which costs a CPU's 20th
        patch.setattr(publishing, "to_onnx", exports_kept())  # what is trained again is exported once
        cluster.quiet()
        yield
    ray.shutdown()


@pytest.fixture
def joining(ray_started: None) -> dict[str, str]:
    """What the environment of a command says, that joins this Ray where it would start one of its own."""
    import ray

    return {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}


@pytest.fixture(scope="session")
def sample_bank(ray_started: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three drawn lineages, four wells each, two fields a well: 24 frames of 400×400."""
    from cellnet.places import Places
    from cellnet.sample import write_sample
    from cellnet.store.place import place_of
    from pipelines.ingest import ingest

    folder = tmp_path_factory.mktemp("sample")
    manifest = write_sample(folder / "images", wells_per_lineage=4, lineages=("THP1", "A172", "3T3"))
    ingest(manifest, Places(bank=place_of(folder / "bank")))
    return folder / "bank"


@pytest.fixture(scope="session")
def trained(sample_bank: Path) -> "Places":
    """The sample's bank, and a registry with a champion of each task, trained on it by one worker.

    The counter is what COUNTER says.
    """
    from cellnet.places import Places
    from cellnet.store.place import place_of
    from pipelines.promote import promote
    from pipelines.train import train

    places = Places(bank=place_of(sample_bank), registry=place_of(sample_bank.parent / "registry"))
    for config in (quick_config("classify", kernel="sharpen"), quick_config("count", **COUNTER)):
        promote(train(places, config).ref, "champion", places)
    return places


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The address of an S3 server with the bucket `lab`.

    Of itself moto checks a condition and then writes, and on a busy machine another thread writes in between.
    """
    import boto3
    from moto.s3.responses import S3Response
    from moto.server import ThreadedMotoServer

    one_at_a_time = threading.Lock()

    def alone(respond: Callable[..., Any]) -> Callable[..., Any]:
        def locked(*arguments: Any, **options: Any) -> Any:
            with one_at_a_time:
                return respond(*arguments, **options)

        return locked

    with pytest.MonkeyPatch.context() as patch:
        for name in ("_key_response_put", "_key_response_post"):
            patch.setattr(S3Response, name, alone(getattr(S3Response, name)))
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        address = f"http://{host}:{port}"
        keys = {"aws_access_key_id": "tester", "aws_secret_access_key": "secret"}
        client = boto3.client("s3", endpoint_url=address, region_name="us-east-1", **keys)
        client.create_bucket(Bucket="lab")
        yield address
        server.stop()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials of the test alone: whatever this machine has is out of sight."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    for name in ("CELLNET_TRUSTED_KEYS", "CELLNET_SIGNING_KEY", "CELLNET_S3_SSE", "AWS_REQUEST_CHECKSUM_CALCULATION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CELLNET_CACHE", str(tmp_path / "cache"))
