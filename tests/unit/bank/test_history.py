"""What counts of labels, what was said before, and what a bank's log keeps of it."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import cellnet.bank.parts
from cellnet.bank.bank import Bank
from cellnet.bank.frames import Frame
from cellnet.bank.history import disagreements, drawn, taken_back
from cellnet.bank.labels import NONE_OF_THESE, USABLE, Label
from cellnet.bank.parts import Entry, entries_of
from cellnet.bank.table import to_parquet
from cellnet.config.bank import BankSettings
from cellnet.config.loading import record_bytes
from cellnet.errors import ConfigError, DataError
from cellnet.store.folder import FolderStore
from tests.factories import frame

CENTRES = [[10.0, 20.0], [30.0, 40.0]]


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    made = Bank.create(tmp_path / "bank")
    made.add([frame(1, "A549", count=2.0, centres=CENTRES), frame(2, "THP1", count=5.0), frame(3, None)])
    return made


def name(number: int) -> str:
    return frame(number).frame


def says(number: int, **values: Any) -> Label:
    return Label(frame=name(number), **values)


def told(bank: Bank, number: int) -> Frame:
    [one] = [one for one in Bank.open(bank.store.uri).frames if one.frame == name(number)]
    return one


def test_the_newest_of_each_field_counts_and_nothing_else_changes(bank: Bank) -> None:
    before = told(bank, 2)
    assert bank.label([says(2, lineage="A549")], by="ana", why="a mix-up") == 2
    assert bank.label([says(2, count=7), says(3, lineage="HELA")], by="ben") == 3
    assert told(bank, 2) == replace(before, lineage="A549", count=7.0)
    assert told(bank, 3).lineage == "HELA" and bank.lineages == ["A549", "HELA"]
    assert [(label.entry, label.by, label.says) for label in bank.labels.of_frame(name(2))] == [
        (2, "ana", {"lineage": "A549"}),
        (3, "ben", {"count": 7.0}),
    ]
    assert [one.lineage for one in bank.imported] == ["A549", "THP1", None]


def test_a_lineage_that_is_none_of_these_teaches_no_classifier(bank: Bank) -> None:
    bank.label([says(1, lineage=NONE_OF_THESE)])
    assert told(bank, 1).lineage is None and bank.lineages == ["THP1"]


@pytest.mark.parametrize(
    ("said", "count", "centres"),
    [
        ({"count": 2}, 2.0, CENTRES),
        ({"count": 3}, 3.0, None),
        ({"count": 0}, 0.0, []),
        ({"points": [(1, 2)]}, 1.0, [[1.0, 2.0]]),
    ],
)
def test_a_count_leaves_the_centres_only_where_it_is_theirs(
    bank: Bank, said: dict[str, Any], count: float, centres: list[list[float]] | None
) -> None:
    bank.label([says(1, **said)])
    assert (told(bank, 1).count, told(bank, 1).centres) == (count, centres)


def test_what_cannot_be_used_is_no_longer_among_the_usable_until_it_can_be(bank: Bank) -> None:
    bank.label([says(1, unusable="focus")])
    again = Bank.open(bank.store.uri)
    assert [one.unusable for one in again.frames] == ["focus", None, None] and len(again.usable) == 2
    assert again.lineages == ["THP1"]
    again.label([says(1, unusable=USABLE)])
    assert len(again.usable) == 3


def test_what_is_undone_counts_no_more_and_undoing_can_be_undone(bank: Bank) -> None:
    digest = bank.digest
    bank.label([says(1, count=9)])
    bank.label([says(1, lineage="HELA")])
    assert bank.undo(2, by="ana", why="counted twice") == 4
    assert (told(bank, 1).count, told(bank, 1).centres, told(bank, 1).lineage) == (2.0, CENTRES, "HELA")
    bank.undo(3)
    assert Bank.open(bank.store.uri).digest == digest
    assert bank.undo(4) == 6 and told(bank, 1).count == 9.0
    assert taken_back(bank.labels) == {3: 5, 4: 6}
    assert [(label.entry, label.undoes) for label in bank.labels] == [(2, None), (3, None), (4, 2), (5, 3), (6, 4)]
    entry = dict(entries_of(bank.store))[4]
    assert (entry.what, entry.by, entry.why, entry.undoes) == ("labels", "ana", "counted twice", 2)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (1, "the entry 1 is an import, which is not undone"),
        (9, "the entry 9 is not there"),
        (2, "undone already, by 3"),
    ],
)
def test_what_cannot_be_undone_is_told(bank: Bank, number: int, said: str) -> None:
    bank.label([says(1, count=9)])
    bank.undo(2)
    with pytest.raises(ConfigError, match=said):
        bank.undo(number)


def test_labels_of_frames_that_the_bank_lacks_and_points_outside_are_refused_and_nothing_is_written(bank: Bank) -> None:
    for label, said in (
        (Label(frame="0" * 64, count=1), "the bank has no frame 0{64}; import its image first"),
        (says(1, points=[(200.5, 3)]), "points of 1.png lie outside its 200×200 pixels"),
    ):
        with pytest.raises(DataError, match=said):
            bank.label([says(2, count=1), label])
    with pytest.raises(DataError, match="no labels were given"):
        bank.label([])
    assert bank.entry == 1 and len(list(bank.store.keys("parts/"))) == 1


def test_of_two_who_label_at_once_each_gets_a_number_and_both_are_kept(bank: Bank) -> None:
    ana, ben = Bank.open(bank.store.uri), Bank.open(bank.store.uri)
    assert ana.label([says(1, count=9)], by="ana") == 2
    assert ben.label([says(1, count=11)], by="ben") == 3
    assert told(bank, 1).count == 11.0
    [disagreement] = disagreements(ben.labels)
    assert (disagreement.what, disagreement.said) == ("count", {"ana": 9.0, "ben": 11.0})
    ana.refresh()
    assert ana.labels.table == ben.labels.table and ana.entry == 3
    ana.label([says(1, count=11)], by="ana")
    assert disagreements(ana.labels) == []


def test_what_others_wrote_is_read_without_the_parts_that_are_known(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    Bank.open(bank.store.uri).label([says(1, count=9)])
    read: list[str] = []
    real = cellnet.bank.parts._read_part

    def counted(log: Any, part: Any, number: int) -> bytes:
        read.append(part.sha256)
        return real(log, part, number)

    monkeypatch.setattr(cellnet.bank.parts, "_read_part", counted)
    bank.refresh()
    assert bank.frames[0].count == 9.0 and len(read) == 1


def test_an_import_keeps_the_labels_and_gives_no_group_another_side(bank: Bank) -> None:
    splits = {one.group: one.split for one in bank.frames}
    bank.label([says(1, lineage="THP1"), says(2, count=50)])
    again = Bank.open(bank.store.uri)
    assert again.add([frame(number) for number in range(4, 12)]).added == 8
    assert {one.group: one.split for one in again.frames}.items() >= splits.items()
    assert (told(bank, 1).lineage, told(bank, 2).count, len(again.labels)) == ("THP1", 50.0, 2)


def test_the_source_of_before_and_one_with_the_corrections_are_both_known(bank: Bank) -> None:
    bank.label([says(2, lineage="A549", count=6)])
    for lineage, count in (("THP1", 5.0), ("A549", 6.0)):
        assert bank.add([frame(2, lineage, count=count)]).set_aside == []
    [refused] = bank.add([frame(2, "HELA", count=6.0)]).set_aside
    assert "with another lineage or count; say what is right by: cellnet bank label" in str(refused.set_aside)


def test_banks_without_labels_are_written_as_before_and_those_with_labels_tell_cellnets_of_before(bank: Bank) -> None:
    first = json.loads(bank.store.get("log/000001.json"))
    assert first.keys() == {"format", "what", "at", "by", "parts"} and first["format"] == 1
    bank.label([says(1, count=9)])
    bank.add([frame(7)])
    for number, what in ((2, "labels"), (3, "import")):
        entry = json.loads(bank.store.get(f"log/00000{number}.json"))
        assert (entry["format"], entry["what"], len(entry["labels"])) == (2, what, 1), "which readers of 1 refuse"
    later = record_bytes(Entry(at=datetime.now(UTC), parts=[])).replace(b'"format": 1', b'"format": 3')
    bank.store.create("log/000004.json", later)
    with pytest.raises(DataError, match=r"later cellnet \(format 3, this one reads 2\); update cellnet$"):
        Bank.open(bank.store.uri)


def test_a_bank_of_before_there_were_parts_takes_labels(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "before")
    store.create("bank.json", record_bytes(BankSettings()))
    store.create("tables/000001.parquet", to_parquet([frame(1, split="train"), frame(2, split="holdout")]))
    bank = Bank.open(tmp_path / "before")
    assert bank.entry == 0 and bank.label([says(1, count=4)]) == 1
    assert told(bank, 1).count == 4.0 and told(bank, 2).split == "holdout"
    assert (tmp_path / "before/tables/000002.parquet").exists(), "by which cellnets of before are told"


@pytest.mark.slow
def test_many_labels_lie_in_few_parts_and_an_entry_stays_small(bank: Bank) -> None:
    for number in range(40):
        bank.label([says(1, count=number, why="w" * 900)])
    assert max(entry.size for entry in bank.store.entries("log/")) < 2000
    assert len(Bank.open(bank.store.uri)._state.said) <= 6
    assert [label.count for label in bank.labels] == list(map(float, range(40)))


def test_a_bank_with_what_only_a_later_cellnet_knows_is_read_and_not_written_to(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank.label([says(1, count=9)])
    real: Callable[..., Any] = cellnet.bank.parts.labels_from_parquet
    monkeypatch.setattr(cellnet.bank.parts, "labels_from_parquet", lambda data, key: (real(data, key)[0], ("regions",)))
    later = Bank.open(bank.store.uri)
    assert later.frames[0].count == 9.0
    with pytest.raises(ConfigError, match="holds regions, which this cellnet does not know and would lose; update"):
        later.label([says(1, count=8)])


def test_a_bank_is_opened_as_it_was_and_then_only_read(bank: Bank) -> None:
    digests = [bank.digest]
    for count in (3, 4, 5):
        bank.label([says(2, count=count)])
        digests.append(bank.digest)
    moments = [entry.at for _, entry in entries_of(bank.store)]
    assert [Bank.open(bank.store.uri, as_of=number).digest for number in (1, 2, 3, 4)] == digests
    assert [Bank.open(bank.store.uri, as_of=moment).digest for moment in moments] == digests
    assert Bank.open(bank.store.uri, as_of=moments[2] - timedelta(microseconds=1)).digest == digests[1]
    was = Bank.open(bank.store.uri, as_of=2)
    was.refresh()
    assert (was.entry, was.frames[1].count) == (2, 3.0)
    for write in (lambda: was.add([frame(9)]), lambda: was.label([says(2, count=1)]), lambda: was.undo(2)):
        with pytest.raises(ConfigError, match="was opened as it was"):
            write()


def test_a_moment_at_which_there_was_no_bank_is_told(bank: Bank, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has the entries 1 to 1, and no 7"):
        Bank.open(bank.store.uri, as_of=7)
    with pytest.raises(ConfigError, match=r"nothing of 2020-01-01 00:00:00 UTC; its first entry is of 20"):
        Bank.open(bank.store.uri, as_of=datetime(2020, 1, 1, tzinfo=UTC))


def test_an_entry_is_never_earlier_than_the_one_before_it(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime(2020, 1, 1, tzinfo=tz)

    first = dict(entries_of(bank.store))[1].at
    monkeypatch.setattr(cellnet.bank.parts, "datetime", Late)
    bank.label([says(1, count=9)])
    assert dict(entries_of(bank.store))[2].at == first


def test_how_frames_were_drawn_is_what_was_said_last_and_not_taken_back(bank: Bank) -> None:
    bank.label([says(1, count=3, drawn="chosen"), says(2, count=4, drawn="random"), says(3, count=1)])
    second = bank.label([says(2, count=5, drawn="chosen")])
    assert drawn(bank.labels) == {name(1): "chosen", name(2): "chosen"}
    bank.undo(second)
    assert drawn(Bank.open(bank.store.uri).labels) == {name(1): "chosen", name(2): "random"}
