"""The units of infra/one-machine/: systemd takes them, cellnet their commands, and they may do little."""

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from cellnet.cli.program import parser
from tests.factories import ROOT

UNITS = ROOT / "infra" / "one-machine"
SERVICES = sorted(UNITS.glob("*.service"))
MOST_EXPOSED = 25
"""Tenths of what `systemd-analyze security` calls exposure: a service without any of it has 96, MEDIUM begins at 50."""
CLOSED = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "CapabilityBoundingSet": "",
    "SystemCallFilter": "@system-service",
}
"""What no unit is without."""

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd is not installed (apt-get install systemd)"
)
each = pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.stem)


def told(path: Path, section: str) -> dict[str, str]:
    """What a section of a unit says; of what is said more than once, the last."""
    unit = configparser.ConfigParser(strict=False, interpolation=None, delimiters="=", comment_prefixes="#")
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(path, encoding="utf-8")
    return dict(unit[section])


def words_of(path: Path, options: str) -> list[str]:
    """What a unit runs, after `cellnet`, with what the environment adds."""
    program, *words = shlex.split(told(path, "Service")["ExecStart"].replace("$CELLNET_OPTIONS", options))
    assert program == "/opt/cellnet/.venv/bin/cellnet"
    return words


@needs_systemd
def test_systemd_takes_every_unit_where_the_programs_are(tmp_path: Path) -> None:
    for path in [*SERVICES, *UNITS.glob("*.timer")]:
        text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        (tmp_path / path.name).write_text(text.replace("file:///opt/cellnet", "file://"), encoding="utf-8")
    command = ["systemd-analyze", "verify", *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
@each
def test_a_unit_may_do_little_else_than_its_work(path: Path) -> None:
    limits = ["--offline=true", f"--threshold={MOST_EXPOSED}"]
    command = ["systemd-analyze", "security", *limits, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


@each
def test_no_unit_is_without_what_closes_it_and_none_is_root(path: Path) -> None:
    service = told(path, "Service")
    assert {name: service.get(name) for name in CLOSED} == CLOSED
    assert service["User"] == service["Group"] == service["StateDirectory"] != "root"


def test_cellnet_takes_what_the_units_run() -> None:
    options = "--bank s3://lab/bank --replicas 1:4 --api-keys /etc/cellnet/keys"
    served = parser().parse_args(words_of(UNITS / "cellnet.service", options))
    assert (served.log_requests, served.log_format, served.bank) == (True, "json", "s3://lab/bank")
    course = parser().parse_args(words_of(UNITS / "cellnet-pipeline.service", ""))
    assert course.file == Path("/etc/cellnet/pipeline.yaml")
    assert told(UNITS / "cellnet-pipeline.service", "Service")["Type"] == "oneshot", "the timer starts no second one"


def test_prometheus_is_started_with_the_files_of_infra_on_this_machine_alone() -> None:
    arguments = told(UNITS / "cellnet-prometheus.conf", "Service")["Environment"].strip('"').removeprefix("ARGS=")
    config, address = (word.partition("=")[2] for word in shlex.split(arguments))
    assert (ROOT / Path(config).relative_to("/opt/cellnet")).is_file()
    assert address.startswith("127.0.0.1:")
