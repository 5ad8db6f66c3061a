"""What infra/ asks Prometheus, and a Prometheus to ask: for the tests of rules and dashboard."""

import contextlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import pytest
import yaml

from serve.haproxy import free_port
from tests.factories import ROOT

PROMETHEUS: Final = ROOT / "infra" / "prometheus"
SELECTOR: Final = re.compile(r"\b(cellnet_\w+)(?:\{([^}]*)\})?")
MATCHER: Final = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("promtool") and shutil.which("prometheus")),
    reason="Prometheus is not installed (apt-get install prometheus)",
)


class Asked(NamedTuple):
    """A query of a dashboard."""

    title: str
    expression: str
    legend: str


def dashboard() -> dict[str, Any]:
    """`infra/grafana/cellnet.json`."""
    read: dict[str, Any] = json.loads((ROOT / "infra" / "grafana" / "cellnet.json").read_text(encoding="utf-8"))
    return read


def panels_ask() -> list[Asked]:
    """The queries of the dashboard's panels, with five minutes where Grafana chooses."""
    return [
        Asked(panel["title"], target["expr"].replace("$__rate_interval", "5m"), target["legendFormat"])
        for panel in dashboard()["panels"]
        for target in panel["targets"]
    ]


def rules_ask() -> dict[str, str]:
    """The expressions of `infra/prometheus/rules.yml`, by the names of alerts and records."""
    groups = yaml.safe_load((PROMETHEUS / "rules.yml").read_text(encoding="utf-8"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    return {rule.get("alert") or rule["record"]: rule["expr"] for rule in rules}


def selectors_of(expression: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """The names of cellnet's metrics in an expression, each with its matchers: label, operator, value.

    >>> [*selectors_of('rate(cellnet_a_total{b="c", d=~"e|f"}[5m]) / cellnet_g')]
    [('cellnet_a_total', [('b', '=', 'c'), ('d', '=~', 'e|f')]), ('cellnet_g', [])]
    """
    for name, matchers in SELECTOR.findall(expression):
        yield name, MATCHER.findall(matchers)


@contextlib.contextmanager
def prometheus(folder: Path, target: str) -> Iterator[httpx.Client]:
    """A Prometheus with the files of infra/ that asks `target` (host:port) each second, which it has."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    rules = yaml.safe_load((PROMETHEUS / "rules.yml").read_text(encoding="utf-8"))
    rules["groups"] = [
        {name: value for name, value in group.items() if name != "interval"} for group in rules["groups"]
    ]
    (folder / "rules.yml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    [scraped] = config["scrape_configs"]
    scraped["static_configs"] = [{"targets": [target]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    port = free_port()
    options = (f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data")
    with (folder / "log").open("wb") as log:
        command = ["prometheus", *options, f"--web.listen-address=127.0.0.1:{port}"]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=20, trust_env=False) as client:
            deadline = time.monotonic() + 60
            while not _heard(client, 'up{job="cellnet"} == 1'):
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.1)
            yield client
    finally:
        process.terminate()
        process.wait(20)


def _heard(client: httpx.Client, expression: str) -> bool:
    try:
        return bool(series(client, expression))
    except (httpx.TransportError, httpx.HTTPStatusError):  # it starts
        return False


def series(client: httpx.Client, expression: str) -> list[dict[str, Any]]:
    """What an expression gives now: `metric` and `value` of each series."""
    answer = client.get("/query", params={"query": expression}).raise_for_status().json()
    result: list[dict[str, Any]] = answer["data"]["result"]
    return result
