"""What infra/costs.py reckons: that its arithmetic is right, and that the pages say the same."""

import re
import runpy
from typing import Any

import pytest

from tests.factories import ROOT

COSTS: dict[str, Any] = runpy.run_path(str(ROOT / "infra" / "costs.py"))


def test_the_operators_guide_has_the_table_that_the_program_prints(capsys: pytest.CaptureFixture[str]) -> None:
    COSTS["main"]([])
    assert capsys.readouterr().out in (ROOT / "infra" / "README.md").read_text(encoding="utf-8")


def test_a_lab_is_reckoned_as_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = COSTS["Lab"](name="", plates=10, kept=0.5, frozen=True, learned=556, trainings=3, corrections=100, head=False)
    told = COSTS["month"](lab)
    frames = 10 * 384 * 30
    assert told["frames a month"] == frames == 115_200
    assert told["hours of a CPU to answer"] == pytest.approx(frames * 2.7 / 3600)
    assert told["CPUs, and processes, that answer at once"] == 2, "10 plates × 384 × 2.7 s in half of ten hours: 0.58"
    assert told["hours on two CPUs for them"] == pytest.approx(3 * 35 * 40 / 3600), "556 tiles a second of 556 frames"
    assert told["hours on a GPU for them"] == pytest.approx(3 * 35 * 40 / 20 / 3600)
    assert told["GB more in the bank"] == pytest.approx(86.4)
    looks, minutes = 2 * 30 * 86_400 / 2, 2 * 30 * 1_440
    assert told["requests of these to follow the registry"] == pytest.approx(2 * looks + 7 * minutes)
    assert told["writes and lists of S3"] == pytest.approx(57_600 + 3 * 556 + 600 + 3 * minutes)
    assert told["reads of S3"] == pytest.approx(3 * 556 * 9.1 + 2 * looks + 4 * minutes)
    dollars = COSTS["priced"](told)
    assert dollars["head"] == 0 and dollars["CPUs"] == pytest.approx(1_440 * 0.05)
    assert dollars["storage after a year"] == pytest.approx(12 * 86.4 * 0.023)


def test_twice_the_plates_are_twice_the_frames_and_their_bytes() -> None:
    one, two = (
        COSTS["month"](
            COSTS["Lab"](name="", plates=n, kept=1, frozen=False, learned=1, trainings=1, corrections=0, head=True)
        )
        for n in (500, 1_000)
    )
    for name in ("frames a month", "hours of a CPU to answer", "GB more in the bank"):
        assert two[name] == pytest.approx(2 * one[name])
    assert two["hours of a head"] == one["hours of a head"] == 720


def test_what_is_called_measured_stands_among_the_measurements() -> None:
    page = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
    section = page[page.index("## What is stored and asked of S3") :].partition("\n## ")[0]
    rows = {}
    for line in re.findall(r"^\| (.*) \|$", section, re.MULTILINE):
        name, *cells = line.split(" | ")
        rows[name] = [float(cell) for cell in cells if re.fullmatch(r"[\d.]+", cell)]
    measured = COSTS["MEASURED"]
    for networks in ("frozen networks", "residual and density"):
        assert measured[f"seconds of a CPU to answer a frame, {networks}"] == rows[networks][0]
    for what, row in (
        ("look at all that is followed", "a look at all that is followed (once a minute)"),
        ("look at the aliases", "a look at the aliases (each 2 s)"),
        ("correction", "a correction of an image that the bank lacks"),
    ):
        assert [measured[f"{kind} of a {what}"] for kind in ("writes", "reads")] == rows[row][:2], what
    trained = [round(of_all / 96, 1) for of_all in rows["a classifier of 96 frames trained and published (frozen)"][:2]]
    assert [measured[f"{kind} of a frame's training"] for kind in ("writes", "reads")] == trained
    assert f"{measured['tiles/s of a training on two CPUs']:.0f} tiles/s" in page
