"""Frames that somebody corrected, and that the bank lacks."""

from datetime import date
from pathlib import Path

import pytest

from cellnet.bank.bank import Bank
from cellnet.bank.correcting import label_image
from cellnet.errors import DataError
from cellnet.images.file import ImageFile, encode_png
from tests.factories import even, frame, noise

DAY = date(2026, 11, 29)


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    """Three wells of a plate, on the three sides of the split."""
    bank = Bank.create(tmp_path / "bank")
    bank.add([frame(n, "A549", f"P7/r02c0{n}") for n in (1, 2, 3)])
    return bank


def image(tmp_path: Path, number: int) -> ImageFile:
    path = tmp_path / f"{number}.png"
    path.write_bytes(encode_png(noise(64, 64, seed=number)))
    return ImageFile.at(path)


def test_it_comes_in_with_plate_and_well_as_its_group_and_keeps_their_side(bank: Bank, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        done = label_image(
            bank, image(tmp_path, number), plate="P7", well=f"b{number}", day=DAY, lineage="THP1", count=9, by="ana"
        )
        [here] = bank.frames.equal("frame", done.frame)
        [beside] = bank.frames.equal("frame", frame(number).frame)
        assert (here.group, here.split, here.batch) == (beside.group, beside.split, "2026-11-29")
        assert (here.lineage, here.count, done.added) == ("THP1", 9.0, True)
        assert [(label.by, label.says) for label in bank.labels.of_frame(done.frame)] == [
            ("ana", {"lineage": "THP1", "count": 9.0})
        ]
    assert {one.split for one in bank.frames} == {"train", "test", "holdout"}


def test_one_that_the_bank_has_gets_a_label_and_is_not_moved(bank: Bank, tmp_path: Path) -> None:
    first = label_image(bank, image(tmp_path, 5), lineage="A549")
    [before] = bank.frames.equal("frame", first.frame)
    again = label_image(Bank.open(bank.store.uri), image(tmp_path, 5), plate="P8", well="A1", count=4)
    bank.refresh()
    [after] = bank.frames.equal("frame", again.frame)
    assert (again.frame, again.added, again.entry) == (first.frame, False, first.entry + 1)
    assert (after.group, after.split, after.lineage, after.count) == (before.group, before.split, "A549", 4.0)


def test_what_cannot_be_used_is_refused_and_the_bank_stays_as_it_was(bank: Bank, tmp_path: Path) -> None:
    (tmp_path / "blank.png").write_bytes(encode_png(even() * 0))
    for file, said, why in (
        (ImageFile.at(tmp_path / "blank.png"), {"count": 1}, "blank.png: "),
        (image(tmp_path, 1), {"count": -1}, "count: "),
        (image(tmp_path, 1), {"count": 1, "plate": "P7", "well": "Z"}, "'Z' is no well; write it like B03"),
        (image(tmp_path, 1), {"points": [(70, 3)]}, "lie outside its 64×64 pixels"),
    ):
        with pytest.raises(DataError, match=why):
            label_image(bank, file, **said)  # type: ignore[arg-type]
    assert (Bank.open(bank.store.uri).entry, len(bank.frames)) == (1, 3)
