"""`cellnet bank label`, `labels`, `export` and `diff`, as users type them."""

import json
from pathlib import Path
from typing import Any

import pytest

from cellnet.bank.bank import Bank
from cellnet.bank.labels import Label
from cellnet.cli import main
from tests.factories import frame


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    Bank.create(tmp_path / "bank").add([frame(1, "A549", count=2.0), frame(2, "THP1", count=5.0)])
    return tmp_path / "bank"


def run(capsys: pytest.CaptureFixture[str], *words: object, status: int = 0) -> tuple[str, str]:
    """stdout, its blanks as one, and stderr."""
    capsys.readouterr()
    assert main(["bank", *map(str, words)]) == status
    printed = capsys.readouterr()
    return " ".join(printed.out.split()), printed.err


def table(folder: Path, text: str) -> Path:
    (folder / "t.csv").write_text(text, encoding="utf-8")
    return folder / "t.csv"


def test_a_table_becomes_an_entry_and_what_it_could_not_say_is_named(
    bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = table(tmp_path, "image,lineage,count,group\n1.png,HELA,,w\n2.png,,5,w\n9.png,,1,w\n")
    out, err = run(capsys, "label", bank, labels, "--by", "ana", "--why", "a mix-up", status=3)
    assert out.startswith("entry 2: 1 label, digest ")
    assert "left out t.csv line 4: the bank has no frame of 9.png; import its image first" in err
    assert "not used: the column group, which stays as it was imported" in err
    assert "1 frame of which the table says what the bank has already" in err
    assert "note: new to the bank: HELA; it had A549, THP1" in err
    assert f"to take it back: cellnet bank label {bank} --undo 2" in err
    learn = "to learn on from it: cellnet train"
    assert f"{learn} {bank} --task classify --set model.weights=classifier:champion" in err and err.count(learn) == 1
    _, err = run(capsys, "label", bank, table(tmp_path, "image,count\n1.png,7\n"))
    assert f"{learn} {bank} --task count --set model.weights=regressor:champion" in err and err.count(learn) == 1
    out, _ = run(capsys, "labels", bank, "--of", "1.png")
    assert "as it was imported: A549, 2 cells" in out and "ana HELA - a mix-up -" in out


def test_a_table_that_says_nothing_new_writes_nothing(
    bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = json.loads(run(capsys, "label", bank, table(tmp_path, "image,count\n1.png,2\n"), "--json")[0])
    assert (facts["entry"], facts["labels"], facts["same"]) == (None, 0, 1) and Bank.open(bank).entry == 1


def test_what_is_undone_is_told_with_the_way_back(bank: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Bank.open(bank).label([Label(frame=frame(1).frame, count=9)])
    out, err = run(capsys, "label", bank, "--undo", 2, "--why", "wrong frame")
    assert out.startswith("entry 3: 1 label") and "the labels of entry 2 are taken back, of 1 frame" in err
    assert "to learn on from it" not in err
    log, _ = run(capsys, "labels", bank)
    assert "2 2" in log and "undo" in log and "wrong frame" in log
    _, err = run(capsys, "label", bank, "--undo", 2, status=2)
    assert "was undone already, by 3; to have it back, undo 3" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["label"], "give either TABLE, with what frames are, or --undo N"),
        (["label", "t.csv", "--undo", "2"], "give either TABLE"),
        (["label", "nowhere.csv"], "nowhere.csv"),
        (["label", "--undo", "x"], "--undo takes a number from 1, not 'x'"),
        (["labels", "--of", "9.png"], "the bank has no frame of 9.png; import its image first"),
        (["export"], "in which form? give --manifest OUT, --coco OUT or --points OUT"),
        (["export", "--manifest", "a", "--coco", "b"], "--manifest and --coco exclude each other; choose one"),
        (["diff", "1", "7"], "has the entries 1 to 1, and no 7"),
        (["diff", "soon"], "takes the number of an entry, or a time like 2026-11-29T10:30, not 'soon'"),
        (["show", "--as-of", "2020-01-01"], "has nothing of 2020-01-01 23:59:59 UTC; its first entry is of"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(
    bank: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    _, err = run(capsys, words[0], bank, *words[1:], status=2)
    assert said in err and len(err.splitlines()) == 1


def test_where_people_disagree_and_what_is_unusable_is_told(bank: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = Bank.open(bank)
    opened.label([Label(frame=frame(1).frame, count=9)], by="ana")
    opened.label([Label(frame=frame(1).frame, count=11), Label(frame=frame(2).frame, unusable="focus")], by="ben")
    out, err = run(capsys, "labels", bank)
    assert "disagreement: 1.png: count 9.0 (ana), 11.0 (ben); the last counts" in err
    facts = json.loads(run(capsys, "labels", bank, "--json")[0])
    assert [one["said"] for one in facts["disagreements"]] == [{"ana": 9.0, "ben": 11.0}]
    assert [(one["entry"], one["what"], one["labels"]) for one in facts["entries"]] == [
        (1, "import", None), (2, "labels", 1), (3, "labels", 2)
    ]  # fmt: skip
    out, _ = run(capsys, "show", bank)
    assert "3 labels of 2 frames since they came, people disagree on 1 frame" in out
    assert "1 frame unusable (1 focus), left out of training and of scores" in out
    shown: dict[str, Any] = json.loads(run(capsys, "show", bank, "--json")[0])
    assert shown["labels"] == {"labels": 3, "frames": 2, "disagreements": 1, "unusable": {"focus": 1}}
    assert shown["entry"] == 3 and json.loads(run(capsys, "show", bank, "--as-of", 1, "--json")[0])["entry"] == 1


def test_what_changed_between_two_moments_is_told(bank: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Bank.open(bank).label([Label(frame=frame(1).frame, lineage="HELA")])
    out, _ = run(capsys, "diff", bank, 1)
    assert "1.png lineage A549 HELA" in out and "from entry 1 to 2: 0 frames came, 0 went, 1 said otherwise" in out
    facts = json.loads(run(capsys, "diff", bank, 2, 1, "--json")[0])
    assert (facts["before"]["entry"], facts["after"]["entry"]) == (2, 1)
    assert [(one["what"], one["before"], one["after"]) for one in facts["changes"]] == [("lineage", "HELA", "A549")]
