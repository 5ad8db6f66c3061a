"""The rules for Prometheus and the dashboard for Grafana: what they ask for is there, and alerts come in time."""

import itertools
import re
import subprocess

import pytest
import yaml

from serve.meters import Meters
from tests.factories import ROOT
from tests.monitoring import PROMETHEUS, dashboard, needs_prometheus, panels_ask, rules_ask, selectors_of

KNOWN = {sample for family in Meters().registry.collect() for sample in (family.name, f"{family.name}_total")}
SUFFIXES = ("_bucket", "_sum", "_count")


def promtool(*arguments: object) -> str:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_prometheus
def test_prometheus_takes_the_rules_and_the_configuration_that_names_them() -> None:
    assert f"SUCCESS: {len(rules_ask())} rules found" in promtool("check", "config", PROMETHEUS / "prometheus.yml")


@pytest.mark.slow
@needs_prometheus
def test_each_alert_is_heard_when_it_should_and_none_of_a_service_that_is_well() -> None:
    tests = ROOT / "tests" / "data" / "prometheus_rules.yml"
    assert "SUCCESS" in promtool("test", "rules", tests)
    tried = tests.read_text(encoding="utf-8")
    assert [name for name in rules_ask() if name.startswith("Cellnet") and name not in tried] == []


@pytest.mark.parametrize("expression", [*rules_ask().values(), *(asked.expression for asked in panels_ask())])
def test_what_is_asked_for_is_among_the_figures_of_the_service(expression: str) -> None:
    for name, _ in selectors_of(expression):
        [plain] = [name.removesuffix(end) for end in SUFFIXES if name.endswith(end)] or [name]
        assert plain in KNOWN, name
    assert set(re.findall(r"\bcellnet:[\w:]+", expression)) <= set(rules_ask())


def test_every_alert_says_how_bad_it_is_what_is_wrong_and_what_to_do() -> None:
    groups = yaml.safe_load((PROMETHEUS / "rules.yml").read_text(encoding="utf-8"))["groups"]
    alerts = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    for alert in alerts:
        assert alert["labels"]["severity"] in ("critical", "warning"), alert["alert"]
        summary = alert["annotations"]["summary"]
        assert summary.count(".") >= 2 and "\n" not in summary, f"{alert['alert']}: what is wrong, and the next step"


def test_grafana_finds_what_a_dashboard_needs() -> None:
    board = dashboard()
    assert board["uid"] == "cellnet" and board["title"] and board["schemaVersion"] >= 36
    [variable] = board["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    source = {"type": "prometheus", "uid": f"${{{variable['name']}}}"}
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 10
    for panel in panels:
        assert panel["title"] and panel["type"] in ("stat", "timeseries", "table")
        assert all(one["datasource"] == source for one in (panel, *panel["targets"])), panel["title"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
    assert all(one["datasource"] == source for one in board["annotations"]["list"])


def test_no_panel_lies_on_another_or_beyond_the_edge() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (place["x"] + right, place["y"] + down)
            for right, down in itertools.product(range(place["w"]), range(place["h"]))
        }
        assert not cells & taken, panel["title"]
        taken |= cells
