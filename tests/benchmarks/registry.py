"""What the registry promises, counted: `python tests/benchmarks/registry.py OUT`.

On a folder and on an S3 server (ministack, in a process of its own on loopback): what 16 processes were told that is
there, and how many requests and seconds publishing, resolving and listing take with 10 and with 10,000 versions.
Writes OUT/registry.md. Times are of loopback; over a network requests are what counts.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it runs from anywhere

from cellnet.registry.registry import Registry
from cellnet.store.s3 import S3Store
from cellnet.untrusted import WEIGHTS
from tests.factories import card
from tests.integration import hammer
from tests.integration.conftest import KEYS
from tests.integration.servers import PersistentServer

PROCESSES, OPERATIONS = 16, 200
FEW, MANY = 10, 10_000
TURNS = 5
FILES = {WEIGHTS: b"w" * 400_000, "familiarity.safetensors": b"f" * 80_000, "model.onnx": b"o" * 400_000,
         "report.html": b"r" * 700_000}  # fmt: skip


def fresh() -> dict[str, bytes]:
    """Files that nobody has published yet."""
    return {role: data + os.urandom(8) for role, data in FILES.items()}


class Asked:
    """Requests of a registry on S3."""

    def __init__(self, registry: Registry) -> None:
        self.count = 0
        if isinstance(registry.store, S3Store):
            registry.store.client.meta.events.register("before-send", self._add)

    def _add(self, **_: Any) -> None:
        self.count += 1


def crowd(place: str) -> str:
    """A row: what many processes were told, and what of it was found."""
    start_s = time.monotonic()
    said = hammer.said_by(hammer.start(place, PROCESSES, OPERATIONS))
    took_s = time.monotonic() - start_s
    found = hammer.outcome(Registry.open(place), said)
    told = found.said
    return (
        f"| {_kind(place)} | {told['publish']} | {found.versions} | {told['promote']} | {found.moves} | "
        f"{told['conflict']} | {'; '.join(found.wrong) or 'nothing'} | {took_s:.0f} s |"
    )


def fill(place: str, versions: int) -> None:
    """Copies of version 1 up to so many, by way of the store."""
    registry = Registry.open(place)
    record = registry.store.get(f"{hammer.NAME}/versions/000001.json")
    for number in range(2, versions + 1):
        data = record.replace(b'"number": 1', b'"number": %d' % number)
        registry.store.create(f"{hammer.NAME}/versions/{number:06d}.json", data)


def costs(place: str) -> list[str]:
    """Rows: requests and milliseconds of what people do, with the versions that are there."""
    rows = []
    uses: dict[str, Callable[[Registry], Any]] = {
        "publish 4 files": lambda registry: registry.publish(hammer.NAME, fresh(), card()),
        "resolve an alias": lambda registry: registry.resolve(f"{hammer.NAME}:{hammer.ALIAS}"),
        "list, newest 20": lambda registry: list(registry.versions(newest=20)),
        "list, all": lambda registry: list(registry.versions()),
    }
    versions = len(list(Registry.open(place).store.keys(f"{hammer.NAME}/versions/")))
    for name, use in uses.items():
        asked, took_s = [], []
        for _ in range(TURNS if versions < 100 or name != "list, all" else 1):
            registry = Registry.open(place)
            requests = Asked(registry)
            start_s = time.monotonic()
            use(registry)
            took_s.append(time.monotonic() - start_s)
            asked.append(requests.count)
        requests_n = f"{max(asked)}" if place.startswith("s3://") else "-"
        rows.append(
            f"| {_kind(place)} | {versions:,} | {name} | {requests_n} | {1000 * statistics.median(took_s):.0f} |"
        )
    return rows


def _kind(place: str) -> str:
    return "S3" if place.startswith("s3://") else "folder"


def main(out: Path) -> None:
    """Measure, print and write."""
    os.environ.update(KEYS | {"CELLNET_CACHE": ""})
    lines = [
        f"{PROCESSES} processes, {OPERATIONS} operations each",
        "",
        "| where | publishings told | versions found | promotions told | moves found | conflicts told | wrong | time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder, PersistentServer(Path(folder) / "server") as server:
        os.environ["AWS_ENDPOINT_URL_S3"] = server.address
        lines += [crowd(place) for place in (f"{folder}/crowd", "s3://lab/crowd")]
        lines += ["", "| where | versions | what | requests | ms |", "|---|---|---|---|---|"]
        for place in (f"{folder}/many", "s3://lab/many"):
            registry = Registry.open(place)
            registry.publish(hammer.NAME, FILES, card())
            registry.promote(f"{hammer.NAME}@1", hammer.ALIAS)
            for versions in (FEW, MANY):
                fill(place, versions)
                lines += costs(place)
    out.mkdir(parents=True, exist_ok=True)
    (out / "registry.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} OUT")
    main(Path(sys.argv[1]))
