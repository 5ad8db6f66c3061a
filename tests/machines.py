"""Machines of a cluster on one: each has a network address and processes of its own, and shares no port with another.

Takes root, and Linux's `ip`, `unshare` and `nsenter`; `are_possible` tells.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import yaml

from serve.haproxy import FILES, SETTINGS

ROOT: Final = Path(__file__).parents[1]
REPLICAS: Final = 2
SETTLED_S: Final = 3.0
"""How long after a replica answers each HAProxy may not know of it, and asks the head's."""


def are_possible() -> bool:
    """Whether this process may make such machines."""
    if any(shutil.which(program) is None for program in ("ip", "unshare", "nsenter")):
        return False
    return (
        subprocess.run(["unshare", "--net", "--pid", "--fork", "true"], capture_output=True, check=False).returncode
        == 0
    )


def environment_of(home: Path, **own: str) -> dict[str, str]:
    """What this process has but of Ray, with another home folder, the commands of its Python, and what is its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    path = f"{Path(sys.executable).parent}:{kept['PATH']}"
    return kept | {"HOME": str(home), "PATH": path, "RAY_USAGE_STATS_ENABLED": "0"} | own


class Machine:
    """One of them: what runs in it ends with it."""

    def __init__(self, address: str, namespace: str, environment: dict[str, str]) -> None:
        self.address = address
        self.environment = environment
        self._namespace = namespace
        self.boot()

    def boot(self) -> None:
        """Start it anew: with its address, its disk and no process."""
        enter = ["ip", "netns", "exec", self._namespace, "unshare", "--pid", "--mount", "--fork", "--kill-child"]
        self._first = subprocess.Popen([*enter, "--mount-proc", "sleep", "infinity"])
        self._pid = 0
        deadline = time.monotonic() + 10
        while not self._pid:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the machine {self.address} does not start")
            with contextlib.suppress(OSError, ValueError):
                self._pid = int(Path(f"/proc/{self._first.pid}/task/{self._first.pid}/children").read_text())
            time.sleep(0.01)

    def start(self, *command: str, log: Path | None = None, **environment: str) -> subprocess.Popen[bytes]:
        """A command in it, which writes what it says into a file."""
        with (log or Path(os.devnull)).open("ab") as file:
            return subprocess.Popen(
                self._inside(command),
                env=self.environment | environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )

    def run(self, *command: str, cwd: Path | None = None, timeout_s: float = 120) -> str:
        """What a command in it says. Raises RuntimeError where it fails."""
        done = subprocess.run(
            self._inside(command),
            env=self.environment,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    def _inside(self, command: Sequence[str]) -> list[str]:
        return ["nsenter", "--target", str(self._pid), "--net", "--pid", "--mount", *command]

    def is_up(self) -> bool:
        """Whether it runs."""
        return self._first.poll() is None

    def kill(self) -> None:
        """As by its power switch."""
        self._first.kill()
        self._first.wait()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)

    def kill_process(self, word: str) -> int:
        """Kill (SIGKILL) its processes whose command has this word in it. How many there were."""
        return sum(1 for pid in self.processes(word) if _killed(pid))

    def processes(self, word: str) -> Sequence[int]:
        """The numbers, outside, of its processes whose command has this word in it."""
        mine = os.stat(f"/proc/{self._pid}/ns/pid").st_ino
        return [pid for pid in _with_word(word) if _namespace_of(pid) == mine]


class Machines:
    """A network of them; at the end all are gone."""

    def __init__(self, home: Path, **environment: str) -> None:
        """`home` is shared by all; `environment` comes beside what this process has, without Ray's."""
        self.environment = environment_of(home, **environment)
        self.all: list[Machine] = []
        self._folders: list[str] = []
        self._name = f"cn{secrets.token_hex(3)}"
        self._net = f"10.{secrets.randbelow(100) + 100}.{secrets.randbelow(250)}"
        self.here = f"{self._net}.254"
        """The address of this process."""

    def __enter__(self) -> Self:
        _ip("link", "add", self._name, "type", "bridge")
        _ip("addr", "add", f"{self.here}/24", "dev", self._name)
        _ip("link", "set", self._name, "up")
        return self

    def add(self) -> Machine:
        """One more machine."""
        number = len(self.all) + 1
        name, outside, inside = f"{self._name}-{number}", f"{self._name}o{number}", f"{self._name}i{number}"
        address = f"{self._net}.{number}"
        _ip("netns", "add", name)
        _ip("link", "add", outside, "type", "veth", "peer", "name", inside)
        _ip("link", "set", inside, "netns", name)
        _ip("link", "set", outside, "master", self._name, "up")
        for words in (
            ("addr", "add", f"{address}/24", "dev", inside),
            ("link", "set", inside, "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-n", name, *words)
        self.all.append(Machine(address, name, self.environment))
        return self.all[-1]

    def folder(self) -> str:
        """A new folder of a short path, for the names of sockets."""
        self._folders.append(tempfile.mkdtemp(prefix="ray"))
        return self._folders[-1]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, machine in enumerate(self.all, 1):
            machine.kill()
            _ip("netns", "del", f"{self._name}-{number}")
        _ip("link", "del", self._name)
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def _with_word(word: str) -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            if word in (folder / "cmdline").read_text(errors="replace"):
                yield int(folder.name)


def _namespace_of(pid: int) -> int:
    with contextlib.suppress(OSError):
        return os.stat(f"/proc/{pid}/ns/pid").st_ino
    return 0


def _killed(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


class ServiceCluster:
    """A Ray cluster of such machines with the service of infra/serve.yaml: a head, which computes nothing, and nodes.

    What the head knows lies on a disk that outlives its machine (RocksDB).
    """

    def __init__(self, machines: Machines, home: Path, registry: Path) -> None:
        machines.environment |= {
            **SETTINGS,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_SERVE_HAPROXY_BINARY_PATH": str(Path(sys.executable).with_name("cellnet-haproxy")),
            "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
        }
        self._machines, self._home, self._registry = machines, home, registry
        self._disk = home / "gcs"
        self._disk.mkdir()
        self.head = machines.add()
        self.nodes: list[Machine] = []

    def start(self, *, nodes: int) -> None:
        """The head, the nodes and the service, of a replica a node, once each of them answers."""
        self.start_head()
        for _ in range(nodes):
            self.nodes.append(self._machines.add())
            self.start_node(self.nodes[-1])
        self.deploy()
        wait_until(lambda: all(self.answers(machine) for machine in (self.head, *self.nodes)), "the service answers")
        wait_until(lambda: self._replicas() == REPLICAS, "each replica answers")
        time.sleep(SETTLED_S)

    def _replicas(self) -> int:
        """How many give their figures."""
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{self.head.address}:8000/metrics") as said:
            return sum(line.startswith(b"cellnet_stale{") for line in said)
        return 0

    def start_head(self) -> None:
        """The head, as its machine starts it each time."""
        if not self.head.is_up():
            self.head.boot()
        options = ("--head", "--port=6379", "--num-cpus=0", "--include-dashboard=true", "--dashboard-host=0.0.0.0")
        self._ray(self.head, *options, RAY_gcs_storage="rocksdb", RAY_gcs_storage_path=str(self._disk))
        wait_until(self._is_there, "the head is there")

    def start_node(self, machine: Machine) -> None:
        """A node, with a CPU."""
        self._ray(machine, f"--address={self.head.address}:6379", "--num-cpus=1")

    def _ray(self, machine: Machine, *options: str, **environment: str) -> None:
        folder = self._machines.folder()
        files = {name: str(Path(folder, "haproxy", file)) for name, file in FILES.items()}
        command = ("ray", "start", "--block", f"--node-ip-address={machine.address}", "--temp-dir", folder)
        machine.start(*command, *options, log=self._home / "nodes.log", **environment, **files)

    def _is_there(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self.head.address, 8265), timeout=1):
            return True
        return False

    def deploy(self, **changed: object) -> None:
        """`serve deploy` of infra/serve.yaml, at the size of these machines."""
        config = yaml.safe_load((ROOT / "infra" / "serve.yaml").read_text(encoding="utf-8"))
        small = {"registry": str(self._registry), "replicas": REPLICAS, "threads": 1, "cpus": 0.3, "poll_s": 1}
        config["applications"][0]["args"] |= small | changed
        path = self._home / "serve.yaml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        self.head.run("serve", "deploy", "-a", f"http://{self.head.address}:8265", str(path), cwd=ROOT)

    def answers(self, machine: Machine) -> bool:
        """Whether the service answers at a machine."""
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{machine.address}:8000/healthz", timeout=5):
            return True
        return False


def wait_until(is_so: Callable[[], bool], what: str, *, timeout_s: float = 180) -> None:
    """Wait until something is so. Raises TimeoutError that names it."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so within {timeout_s:.0f} s: {what}")
        time.sleep(0.2)
