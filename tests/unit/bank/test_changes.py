"""What came and what changed between two moments of a bank."""

from pathlib import Path

from cellnet.bank.bank import Bank
from cellnet.bank.changes import changes_between
from cellnet.bank.labels import Label
from tests.factories import frame


def test_what_came_what_went_and_what_is_said_otherwise(tmp_path: Path) -> None:
    bank = Bank.create(tmp_path / "bank")
    bank.add([frame(1, "A549", count=2.0, centres=[[1.0, 2.0], [3.0, 4.0]]), frame(2)])
    bank.label([Label(frame=frame(1).frame, count=5, unusable="focus")])
    bank.add([frame(3, None, count=7.0)])
    before, after = (Bank.open(tmp_path / "bank", as_of=entry) for entry in (1, 3))
    assert [(one.source, one.what, one.before, one.after) for one in changes_between(before, after)] == [
        ("1.png", "count", 2.0, 5.0),
        ("1.png", "centres", 2, None),
        ("1.png", "unusable", None, "focus"),
        ("3.png", "frame", None, "(not known), 7 cells"),
    ]
    assert [(one.what, one.before) for one in changes_between(after, before)][-1] == ("frame", "(not known), 7 cells")
    assert list(changes_between(after, after)) == []
