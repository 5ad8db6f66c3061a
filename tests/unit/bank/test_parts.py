"""A bank's rows in parts: what an import writes, what it leaves alone, and banks of before there were any."""

import getpass
import json
from pathlib import Path
from typing import Any

import pytest

from cellnet.bank.bank import Bank
from cellnet.bank.frames import Frame
from cellnet.bank.parts import read_state
from cellnet.bank.table import MOVED, from_parquet, to_parquet
from cellnet.config.bank import BankSettings
from cellnet.config.loading import record_bytes
from cellnet.errors import DataError
from cellnet.store.folder import FolderStore


def frame(number: int, **known: Any) -> Frame:
    size = {"height": 200, "width": 200}
    about = {"frame": f"{number:064x}", "source": f"{number}.png", "group": f"well {number}", "lineage": "A549"}
    return Frame(**(about | size | known))


def parts_of(bank: Bank) -> list[int]:
    """The rows of each part, as they lie there."""
    return [part.rows for part, _ in read_state(bank.store).parts]


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """A bank of before there were parts, with two frames."""
    store = FolderStore(tmp_path / "before")
    store.create("bank.json", record_bytes(BankSettings()).replace(b'"format": 2', b'"format": 1'))
    store.create("tables/000001.parquet", to_parquet([frame(1, split="train")]))
    store.create("tables/000002.parquet", to_parquet([frame(1, split="train"), frame(2, split="holdout")]))
    return tmp_path / "before"


def test_an_import_writes_its_rows_alone(tmp_path: Path) -> None:
    bank = Bank.create(tmp_path / "bank")
    bank.add([frame(number) for number in range(100)])
    [first] = (tmp_path / "bank/parts").iterdir()
    bank.add([frame(number) for number in range(100, 103)])
    assert parts_of(bank) == [100, 3] and first.exists()
    assert Bank.open(tmp_path / "bank").frames == bank.frames and len(bank.frames) == 103


@pytest.mark.slow
def test_of_many_imports_there_are_few_parts_and_each_row_is_written_a_few_times(tmp_path: Path) -> None:
    bank = Bank.create(tmp_path / "bank")
    for number in range(64):
        bank.add([frame(number)])
        assert len(parts_of(bank)) <= 7
    written = sum(len(from_parquet(path.read_bytes(), "").frames) for path in (tmp_path / "bank/parts").iterdir())
    assert written <= 64 * 6
    assert [kept.source for kept in Bank.open(tmp_path / "bank").frames] == [f"{number}.png" for number in range(64)]


def test_what_changes_is_written_anew_with_its_part_and_no_other(tmp_path: Path) -> None:
    bank = Bank.create(tmp_path / "bank")
    for numbers in (range(100), range(100, 130), range(130, 135)):
        bank.add([frame(number) for number in numbers])
    kept = [part.sha256 for part, _ in read_state(bank.store).parts]
    bank.add([frame(110, batch="P1")])
    now = [part.sha256 for part, _ in read_state(bank.store).parts]
    assert (now[0], now[2]) == (kept[0], kept[2]) and now[1] != kept[1] and parts_of(bank) == [100, 30, 5]
    assert [one.batch for one in bank.frames].index("P1") == 110


def test_an_image_that_was_set_aside_leaves_its_part_when_it_can_be_used(tmp_path: Path) -> None:
    bank = Bank.create(tmp_path / "bank")
    bank.add([*(frame(number) for number in range(20)), Frame(frame="", source="20.png", set_aside="blank")])
    bank.add([frame(20)])
    again = Bank.open(tmp_path / "bank")
    assert (len(again.frames), again.set_aside, parts_of(again)) == (21, [], [20, 1])


def test_an_entry_says_when_it_was_and_by_whom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "ana")
    bank = Bank.create(tmp_path / "bank")
    bank.add([frame(1)])
    entry = json.loads(bank.store.get("log/000001.json"))
    assert (entry["format"], entry["what"], entry["by"], len(entry["parts"])) == (1, "import", "ana", 1)
    assert entry["at"].endswith("Z")
    monkeypatch.setattr(getpass, "getuser", lambda: {}["nobody, as in many containers"])
    bank.add([frame(2)])
    assert json.loads(bank.store.get("log/000002.json"))["by"] == ""


def test_a_bank_of_before_goes_on_in_parts_and_cellnets_of_before_are_told(before: Path) -> None:
    bank = Bank.open(before)
    digest = bank.digest
    assert [one.split for one in bank.frames] == ["train", "holdout"]
    assert bank.add([frame(1)]).known == 1 and not (before / "log").exists()
    assert bank.add([frame(3)]).added == 1
    again = Bank.open(before)
    assert [one.source for one in again.frames] == ["1.png", "2.png", "3.png"] and again.digest == bank.digest != digest
    assert [one.split for one in again.frames][:2] == ["train", "holdout"]
    last = (before / "tables/000003.parquet").read_bytes()
    with pytest.raises(DataError, match="written by a later cellnet"):
        from_parquet(last, "tables/000003.parquet")
    assert len(from_parquet(last, "", most=MOVED).frames) == 2
    again.add([frame(4)])
    assert sorted(path.name for path in (before / "tables").iterdir())[2:] == ["000003.parquet"]


def test_a_bank_of_before_whose_move_was_interrupted_is_what_it_was(before: Path) -> None:
    digest = Bank.open(before).digest
    (before / "tables/000003.parquet").write_bytes(
        to_parquet(from_parquet((before / "tables/000002.parquet").read_bytes(), "").frames, format=MOVED)
    )
    bank = Bank.open(before)
    assert bank.digest == digest
    bank.add([frame(3)])
    assert len(Bank.open(before).frames) == 3 and not (before / "tables/000004.parquet").exists()


def test_a_cellnet_of_before_that_imports_meanwhile_loses_nothing(before: Path) -> None:
    bank = Bank.open(before)
    rows = [*from_parquet((before / "tables/000002.parquet").read_bytes(), "").frames, frame(9, split="train")]
    (before / "tables/000003.parquet").write_bytes(to_parquet(rows))
    bank.add([frame(3)])
    assert [one.source for one in Bank.open(before).frames] == ["1.png", "2.png", "9.png", "3.png"]


def test_of_two_imports_at_once_the_later_adds_to_the_earlier(tmp_path: Path) -> None:
    one = Bank.create(tmp_path / "bank")
    one.add([frame(1)])
    other = Bank.open(tmp_path / "bank")
    one.add([frame(2)])
    other.add([frame(3)])
    assert [kept.source for kept in Bank.open(tmp_path / "bank").frames] == ["1.png", "2.png", "3.png"]
    assert other.frames == Bank.open(tmp_path / "bank").frames


def test_a_part_that_is_gone_and_an_entry_that_is_damaged_are_named(tmp_path: Path) -> None:
    bank = Bank.create(tmp_path / "bank")
    bank.add([frame(1)])
    [part] = (tmp_path / "bank/parts").iterdir()
    data = part.read_bytes()
    part.unlink()
    with pytest.raises(DataError, match=rf"{part.name} is gone, which its log/000001.json names; restore it"):
        Bank.open(tmp_path / "bank")
    part.write_bytes(data)
    log = tmp_path / "bank/log/000001.json"
    log.write_text(log.read_text().replace(part.stem, "../../secret"))
    with pytest.raises(DataError, match=r"log/000001.json is damaged: parts.0.sha256.*; restore it from a copy"):
        Bank.open(tmp_path / "bank")


def test_parts_in_which_nothing_changed_stay_whatever_is_set_aside_in_them(tmp_path: Path) -> None:
    def aside(number: int, why: str = "blank") -> Frame:
        return Frame(frame="", source=f"{number}.png", set_aside=why)

    bank = Bank.create(tmp_path / "bank")
    bank.add([*map(frame, range(60)), *map(aside, range(900, 910))])
    bank.add([*map(frame, range(60, 80)), *map(aside, range(910, 915))])
    first, second = (part.sha256 for part, _ in read_state(bank.store).parts)
    bank.add([frame(90), aside(920)])
    now = [part.sha256 for part, _ in read_state(bank.store).parts]
    assert now[:2] == [first, second] and parts_of(bank) == [70, 25, 2]
    bank.add([frame(912), aside(903, "empty")])  # one is of use after all, of another the reason is another
    parts = read_state(bank.store).parts
    assert sum(part.rows for part, _ in parts) == 97
    assert parts[0][0].sha256 != first and parts[1][0].sha256 != second
    assert [one.set_aside for one in Bank.open(tmp_path / "bank").set_aside if one.source == "903.png"] == ["empty"]
    assert [one.source for one in bank.set_aside if one.source == "912.png"] == []
    entries = bank.entry
    bank.add([frame(90), aside(903, "empty")])
    assert bank.entry == entries
