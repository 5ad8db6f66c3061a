"""`cellnet suggest` as users type it: the list, the table that is filled in, and what cannot be done."""

import csv
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pipelines.suggest
from cellnet.bank.bank import Bank
from cellnet.bank.history import drawn
from cellnet.bank.prepare import prepare
from cellnet.cli import main
from cellnet.cli.program import parser
from cellnet.evaluation.scoring import LeftOut
from cellnet.evaluation.suggesting import AMONG, Seen
from cellnet.images.file import ImageFile, encode_png
from cellnet.prediction.predictor import Predictor
from cellnet.readers import LabelledFile
from cellnet.registry.registry import Registry
from tests.factories import discs, publish_untrained

COUNTER = "regressor:champion"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bank of six frames without a count, and one with; a counter; and no Ray."""
    monkeypatch.setenv("CELLNET_REGISTRY", str(tmp_path / "registry"))
    registry = Registry.open(str(tmp_path / "registry"))
    publish_untrained(registry, "count", onnx=False)
    bank = Bank.create(tmp_path / "bank")
    files = []
    for n in range(7):
        (tmp_path / f"{n}.png").write_bytes(encode_png(discs(n + 3, seed=n, size=(400, 400))[0]))
        known = {"group": f"w{n}", "batch": f"P{n % 2}", "count": 3.0 if n == 0 else None}
        files.append(LabelledFile(image=ImageFile.at(tmp_path / f"{n}.png"), lineage="A549", **known))
    bank.add([prepare(file, bank.store) for file in files])

    def ask(predictor: Predictor, frames: Iterable[Any], store: Any) -> tuple[list[Seen], list[LeftOut]]:
        said = [pipelines.suggest.seen_by(predictor, frame, store) for frame in frames]
        return [one for one in said if isinstance(one, Seen)], [one for one in said if isinstance(one, LeftOut)]

    monkeypatch.setattr(pipelines.suggest, "_ask", ask)
    monkeypatch.setattr(pipelines.suggest.cluster, "connect", lambda *_: None)
    return tmp_path


def run(lab: Path, capsys: pytest.CaptureFixture[str], *words: object, ends: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    assert main(list(map(str, words))) == ends
    told = capsys.readouterr()
    return told.out, told.err


@pytest.mark.slow
def test_the_table_is_filled_in_and_given_to_bank_label_as_it_is(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = run(lab, capsys, "suggest", lab / "bank", COUNTER, "-n", 3, "--out", lab / "todo.csv")
    first, *lines = out.splitlines()
    assert first.split() == ["image", "sha256", "says", "why"] and len(lines) == 4
    assert "batch P1 has no label" in out and lines[-1].endswith("random: for scoring") and "cells" in lines[0]
    assert f"then: cellnet bank label {lab / 'bank'} {lab / 'todo.csv'}" in err
    rows = list(csv.DictReader((lab / "todo.csv").open(encoding="utf-8")))
    assert [row["drawn"] for row in rows] == ["chosen"] * 3 + ["random"] and rows[0]["seen"] == "regressor@1"
    filled = [row | {"count": str(n + 5)} for n, row in enumerate(rows)]
    filled[1]["count"] = ""
    with (lab / "todo.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(filled)
    out, err = run(lab, capsys, "bank", "label", lab / "bank", lab / "todo.csv")
    assert "3 labels" in out and "not used" not in err and "left out" not in err
    bank = Bank.open(str(lab / "bank"))
    assert drawn(bank.labels) == {rows[n]["sha256"]: rows[n]["drawn"] for n in (0, 2, 3)}
    label = bank.labels[0]
    assert label.count == 5 and label.why == rows[0]["why"] and str(label.seen).endswith("of regressor@1")
    _, err = run(lab, capsys, "suggest", lab / "bank", COUNTER, "-n", 9)
    assert "note: there is no more to choose from: 2 frames of 9" in err


def test_as_many_frames_are_asked_about_unless_told_otherwise_as_the_library_says() -> None:
    assert parser().parse_args(["suggest", "bank", COUNTER]).among == AMONG


@pytest.mark.slow
def test_json_has_what_a_program_wants(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = json.loads(run(lab, capsys, "suggest", lab / "bank", COUNTER, "-n", 2, "--json")[0])
    assert told["model"] == "regressor@1" and told["entry"] == 1 and told["left_out"] == []
    assert [one["drawn"] for one in told["frames"]] == ["chosen", "chosen", "random"]
    assert {"image", "frame", "why", "batch", "count", "count_low", "unfamiliar"} <= told["frames"][0].keys()
    assert json.loads(run(lab, capsys, "suggest", lab / "bank", COUNTER, "-n", 2, "--json")[0]) == told


@pytest.mark.slow
def test_the_page_shows_the_frames_with_the_count_and_the_reason(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, err = run(lab, capsys, "suggest", lab / "bank", COUNTER, "-n", 2, "--html", lab / "pages" / "next.html")
    page = (lab / "pages" / "next.html").read_text(encoding="utf-8")
    assert page.count("<figure>") == page.count('src="data:image/jpeg') == 3 and "next.html" in err
    assert "cells: " in page and "random: for scoring" in page and "Drawn at random, to score by" in page


@pytest.mark.slow
def test_a_frame_that_is_too_small_is_left_out_by_name(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bank = Bank.open(str(lab / "bank"))
    (lab / "small.png").write_bytes(encode_png(discs(1, size=(60, 60))[0]))
    file = LabelledFile(image=ImageFile.at(lab / "small.png"), lineage=None, group="s")
    bank.add([replace(prepare(file, bank.store))])
    out, err = run(lab, capsys, "suggest", lab / "bank", COUNTER, "-n", 9)
    assert "left out" in err and "small.png: " in err and "small.png" not in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-n", 0), "-n"),
        (("-n", 30, "--among", 9), "--among 9 is less than -n 30"),
        (("--out", "{lab}/0.png"), "is there already, and may be filled in"),
        (("--html", "{lab}/0.png/a.html"), "cannot write the page"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    lab: Path, capsys: pytest.CaptureFixture[str], words: tuple[Any, ...], said: str
) -> None:
    words = tuple(str(word).format(lab=lab) for word in words)
    _, err = run(lab, capsys, "suggest", lab / "bank", COUNTER, *words, ends=2)
    assert said in err.splitlines()[-1] and "Traceback" not in err


def test_a_bank_where_nothing_is_to_be_said_and_models_that_are_not_there(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_untrained(Registry.open(str(lab / "registry")), "classify", onnx=False)
    _, err = run(lab, capsys, "suggest", lab / "bank", "classifier@1", ends=2)
    assert "has a lineage already, and 6 have no count: cellnet suggest BANK regressor:champion" in err
    _, err = run(lab, capsys, "suggest", lab / "bank", "regressor@7", ends=2)
    assert "regressor" in err.splitlines()[-1]
    _, err = run(lab, capsys, "suggest", lab / "nowhere", COUNTER, ends=2)
    assert "there is no bank at" in err
    Bank.create(lab / "empty").add([])
    _, err = run(lab, capsys, "suggest", lab / "empty", COUNTER, ends=2)
    assert "has no frame that can be used; import some" in err
