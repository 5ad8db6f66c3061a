"""What `cellnet bank show` tells of batches."""

import json
from pathlib import Path

import pytest

import pipelines.ingest
from cellnet.bank.bank import Bank, Imported
from cellnet.bank.frames import Frame
from cellnet.cli import main
from cellnet.cli.bank import BATCHES_SHOWN, by_reason, unused_lines
from cellnet.readers import NO_IMAGE, Unused, read_source
from tests.factories import even_png, frame


def shown(capsys: pytest.CaptureFixture[str], bank: Path, *options: str) -> tuple[str, str]:
    """stdout, its blanks as one, and stderr."""
    assert main(["bank", "show", str(bank), *options]) == 0
    printed = capsys.readouterr()
    return " ".join(printed.out.split()), printed.err


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    frames = [
        frame(1, "A549", "a", batch="P1", time_h=0.0, count=3.0),
        frame(2, "A549", "b", batch="P1", time_h=24.5, count=4.0),
        frame(3, "THP1", "c", batch="P2", time_h=6.0),
        frame(4, "THP1", "d", batch="P1"),
        frame(5, "3T3", "e"),
        frame(6, "3T3", "f"),
    ]
    Bank.create(tmp_path / "bank").add(frames)
    return tmp_path / "bank"


def test_what_each_batch_holds_is_told(bank: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, said = shown(capsys, bank)
    assert "batch frames groups cells hours lineages P1 3 3 7 0-24.5 A549, THP1 P2 1 1 - 6 THP1" in text
    assert "(not known) 2 2 - - 3T3" in text
    assert "warning: A549 (P1): in one batch only, so nobody can tell what another plate brings" in said
    facts = json.loads(shown(capsys, bank, "--json")[0])
    assert facts["batches"][0] == {
        "batch": "P1", "frames": 3, "groups": 3, "cells": 7, "lineages": ["A549", "THP1"], "time_h": [0.0, 24.5]
    }  # fmt: skip
    assert [(batch["batch"], batch["time_h"]) for batch in facts["batches"][1:]] == [("P2", [6.0, 6.0]), (None, None)]
    assert {(row["lineage"], row["batches"]) for row in facts["rows"]} == {("A549", 1), ("THP1", 1), ("3T3", None)}


def test_where_no_batch_is_known_nothing_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Bank.create(tmp_path / "bank").add([frame(1), frame(2)])
    assert "(not known)" not in shown(capsys, tmp_path / "bank")[0]
    assert json.loads(shown(capsys, tmp_path / "bank", "--json")[0])["batches"] == []


def test_of_very_many_batches_the_first_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Bank.create(tmp_path / "bank").add([frame(n, batch=f"P{n:03}") for n in range(BATCHES_SHOWN + 5)])
    text, _ = shown(capsys, tmp_path / "bank")
    assert "P029" in text and "P030" not in text and "and 5 batches more, which --json tells" in text


def test_of_very_many_images_of_a_kind_the_first_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cellnet.cli.bank.LISTED", 2)
    blank = [Frame(frame="", source=f"b{n}.png", set_aside="blank") for n in range(5)]
    copies = [frame(n, group="one", fingerprint="0" * 128) for n in range(4)]  # of which three copy the first
    Bank.create(tmp_path / "bank").add([*blank, *copies])
    text, _ = shown(capsys, tmp_path / "bank")
    assert "set aside b1.png: blank and 3 more, which --json tells" in text
    assert "nearly the same: 2.png and 0.png and 1 more, which --json tells" in text
    text, _ = shown(capsys, tmp_path / "bank", "--json")
    told = json.loads(text)
    assert len(told["set_aside"]) == 5 and len(told["near"]) == 3


def test_a_page_says_what_the_terminal_does_and_frames_are_looked_through_once(
    bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Bank] = []

    def found(bank: Bank, **_: object) -> list[str]:
        looked.append(bank)
        return ["a scale bar?"]

    monkeypatch.setattr("cellnet.bank.warnings.burnt_in", found)
    _, err = shown(capsys, bank, "--html", str(tmp_path / "bank.html"))
    assert "warning: a scale bar?" in err
    assert "a scale bar?" in (tmp_path / "bank.html").read_text(encoding="utf-8")
    assert len(looked) == 1


def test_how_masks_were_read_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    note = "255 is taken as the background"
    Bank.create(tmp_path / "bank").add([frame(n, note=note if n < 5 else None) for n in range(6)])
    _, said = shown(capsys, tmp_path / "bank")
    names = ", ".join(Path(one.source).name for one in (frame(0), frame(1), frame(2)))
    assert f"of 5 masks {note}: {names} and 2 more" in said
    [told] = json.loads(shown(capsys, tmp_path / "bank", "--json")[0])["notes"]
    assert (told["note"], len(told["sources"])) == (note, 5)


def test_an_import_tells_what_it_did_not_use_by_its_reason() -> None:
    unused = [
        *(Unused(f"points.csv line {n}: {n}.png", "no_image", f"there is no image {n}.png", 12) for n in range(2, 7)),
        Unused("b.png", "no_label", "it has no mask, so its count is not known"),
    ]
    assert by_reason(unused) == {"no_image": 60, "no_label": 1}
    assert list(unused_lines(unused)) == [
        "not used (no_image): 60",
        "  points.csv line 2: 2.png: there is no image 2.png",
        "  points.csv line 3: 3.png: there is no image 3.png",
        "  points.csv line 4: 4.png: there is no image 4.png",
        "  and 2 more, which --json tells",
        "without a label: 1",
        "  it has no mask, so its count is not known:",
        "  b.png",
    ]


def test_why_many_images_have_no_label_is_said_once_and_fits_a_terminal(tmp_path: Path) -> None:
    images = [f"A172_Phase_A7_{n}_01d08h00m_2.png" for n in range(5)]
    for name in (*images, "counted.png"):
        (tmp_path / name).write_bytes(even_png())
    rows = [*(f"{name},A172," for name in images), "counted.png,A172,3"]
    (tmp_path / "manifest.csv").write_text("\n".join(["image,lineage,count,group", *(f"{row},w" for row in rows)]))
    (tmp_path / "points.csv").write_text("image,x,y\n" + "".join(f"counted.png,{x},5\n" for x in range(3)))
    lines = list(unused_lines(read_source(tmp_path / "manifest.csv").unused))
    assert lines == [
        "without a label: 5",
        "  no count and no points; write the count 0 where there is no cell:",
        *(f"  {name}" for name in images[:3]),
        "  and 2 more, which --json tells",
    ]
    assert max(map(len, lines)) <= 80


def test_files_that_are_no_images_are_skipped_by_name() -> None:
    unused = [Unused("A549/notes.pdf", "not_an_image", NO_IMAGE), Unused("b.csv", "not_an_image", "a table")]
    assert list(unused_lines(unused)) == [
        "skipped, not an image: 2",
        "  A549/notes.pdf",
        "  b.csv: a table",
    ]


HIDDEN = Unused("Thumbs.db", "hidden", "a file of a system or a program")
REFUSED = Frame(frame="", source="c.png", set_aside="blank")


@pytest.mark.parametrize(
    ("added", "aside", "unused", "options", "status"),
    [
        (2, 0, [], ["--strict"], 0),
        (2, 0, [HIDDEN], ["--strict"], 0),
        (2, 0, [Unused("a.pdf", "not_an_image", NO_IMAGE)], ["--strict"], 3),
        (2, 0, [Unused("a.pdf", "not_an_image", NO_IMAGE)], [], 0),
        (2, 1, [], ["--strict"], 3),
        (2, 2, [], [], 0),
        (2, 3, [], [], 3),
    ],
)
def test_the_exit_status_tells_of_what_was_left_out_where_it_is_asked_for_or_most_of_all(
    bank: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    added: int,
    aside: int,
    unused: list[Unused],
    options: list[str],
    status: int,
) -> None:
    imported = Imported(added=added, known=0, set_aside=[REFUSED] * aside, near=[], unused=unused)
    monkeypatch.setattr(pipelines.ingest, "ingest", lambda *given, **options: (Bank.open(bank), imported))
    assert main(["bank", "import", str(bank), str(bank), *options]) == status
    said = "more images were set aside than taken (3 and 2): exit 3"
    assert (said in capsys.readouterr().err) == (aside == 3)


@pytest.mark.parametrize(
    ("outside", "said"), [(0, ", none outside"), (1, "; 1 image set aside since centres lie outside")]
)
def test_an_import_says_how_many_centres_there_are_and_whether_any_lie_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], outside: int, said: str
) -> None:
    bank = Bank.create(tmp_path / "bank")
    bank.add([frame(1, centres=[[1.0, 2.0]] * 3), frame(2)])
    refused = Frame(frame="", source="c.png", set_aside="2 of its 9 centres lie outside its 8×6 pixels; give x")
    imported = Imported(added=2, known=0, set_aside=[refused] * outside, near=[])
    monkeypatch.setattr(pipelines.ingest, "ingest", lambda *given, **options: (bank, imported))
    assert main(["bank", "import", "a", "b"]) == 0
    lines = capsys.readouterr().err
    assert f"3 centres in frames of the bank{said}\n" in lines
    assert "next: cellnet bank show b --html bank.html; cellnet train b --task count\n" in lines


def test_how_a_training_of_few_groups_will_score_is_told(bank: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "note: 3T3, A549, THP1: 2 groups each" in shown(capsys, bank)[1]
    assert json.loads(shown(capsys, bank, "--json")[0])["outlook"].startswith("3T3")


def test_what_an_import_did_not_use_is_printed_and_in_its_json(
    bank: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    unused = [Unused("counts.csv line 7: b03.png", "no_image", "there is no image b03.png")]
    imported = Imported(added=2, known=0, set_aside=[], near=[], unused=unused)
    monkeypatch.setattr(pipelines.ingest, "ingest", lambda *given, **options: (Bank.open(bank), imported))
    assert main(["bank", "import", str(bank), str(bank), "--json"]) == 0
    printed = capsys.readouterr()
    assert (
        "not used (no_image): 1\n  there is no image b03.png:\n  counts.csv line 7: b03.png\n2 frames added"
        in printed.err
    )
    facts = json.loads(printed.out)
    assert facts["unused_by_reason"] == {"no_image": 1}
    assert facts["unused"] == [
        {
            "what": "counts.csv line 7: b03.png",
            "reason": "no_image",
            "why": "there is no image b03.png",
            "number": 1,
        }
    ]
