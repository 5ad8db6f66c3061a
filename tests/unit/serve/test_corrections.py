"""What people say of images, in a real bank."""

import datetime
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from starlette.exceptions import HTTPException

import serve.corrections
from cellnet.bank.bank import Bank
from cellnet.bank.frames import digest_of_pixels
from cellnet.errors import DataError, UnavailableError
from cellnet.images.file import encode_png
from cellnet.store.place import place_of
from serve.corrections import Corrections
from serve.http.labels import Known, Labelled, Said, Taken
from tests.factories import bank_of

NOISE = np.random.default_rng(0).integers(0, 255, (3, 210, 220), np.uint8)


@pytest.fixture
def corrections(tmp_path: Path) -> Callable[..., Corrections]:
    """`corrections(most_labels=2)`: over a bank of one frame in a folder."""

    def make(most_labels: int = 100, most_mb: float = 10) -> Corrections:
        if not (tmp_path / "bank").exists():
            bank_of(tmp_path / "bank", {"A549": ["P1/B02"]})
        return Corrections(bank=place_of(tmp_path / "bank"), most_labels=most_labels, most_mb=most_mb)

    return make


def taken(number: int = 0, *, key: str = "", **said: object) -> Taken:
    return Taken(f"{number}.png", encode_png(NOISE[number]), None, Said.model_validate(said), key)


def written(done: object) -> Labelled:
    assert isinstance(done, Labelled), done
    return done


def test_an_image_that_the_bank_lacks_comes_in_with_what_is_said_of_it(
    corrections: Callable[..., Corrections], tmp_path: Path
) -> None:
    said = {"points": [(1, 2), (30, 40)], "plate": "P1", "well": "B3", "day": "2026-11-29", "why": "debris"}
    done = written(corrections().write(taken(lineage="A549", by="Ada", **said)))
    assert done.added and done.frame == digest_of_pixels(NOISE[0])
    bank = Bank.open(str(tmp_path / "bank"))
    [_, frame] = bank.frames
    assert (frame.lineage, frame.count, frame.batch) == ("A549", 2, "2026-11-29") and "P1" in frame.group
    [label] = bank.labels.of_frame(done.frame)
    assert (label.by, label.why, label.points, label.entry) == ("Ada", "debris", ((1, 2), (30, 40)), done.entry)


def test_how_an_image_was_drawn_is_written_down_with_what_is_said_of_it(
    corrections: Callable[..., Corrections], tmp_path: Path
) -> None:
    written(corrections().write(taken(count=12, drawn="chosen")))
    assert [label.drawn for label in Bank.open(str(tmp_path / "bank")).labels] == ["chosen"]


def test_two_people_on_one_image_are_both_kept_and_told_of_each_other(corrections: Callable[..., Corrections]) -> None:
    process = corrections()
    written(process.write(taken(count=12, by="Ada")))
    other = written(process.write(taken(count=14, by="Bob", key="lab")))
    assert not other.added and [(one.by, one.count) for one in other.others] == [("Ada", 12)]
    again = written(corrections().write(taken(count=13)))
    assert {(one.by, one.count) for one in again.others} == {("Ada", 12), ("lab", 14)}, "the name of a key counts"


def test_what_was_said_is_told_with_whether_it_differs_from_what_was_seen(
    corrections: Callable[..., Corrections],
) -> None:
    process, seen = corrections(), {"versions": ["classifier@1", "regressor@1"], "lineage": "A549", "count": 12}
    said = {"plate": "P9", "well": "B3", "day": "2026-11-29", "seen": seen}
    done = written(process.write(taken(lineage="THP1", count=13, by="Ada", **said)))
    assert done.otherwise == {"lineage": True, "count": False} and (done.lineage, done.batch) == ("THP1", "2026-11-29")
    assert written(process.write(taken(accepted=True, by="Bob", **said))).otherwise == {
        "lineage": False,
        "count": False,
    }
    assert written(process.write(taken(count=40, by="Ada"))).otherwise == {}, "nobody says what was seen"
    known = process.read(done.frame)
    assert isinstance(known, Known)
    assert [(one.by, one.lineage, one.count) for one in known.others] == [("Bob", "A549", 12), ("Ada", None, 40)]
    lacking = process.read("0" * 64)
    assert isinstance(lacking, Known) and lacking.others == []


def test_a_bank_that_is_gone_tells_of_nothing(tmp_path: Path) -> None:
    gone = Corrections(bank=place_of(tmp_path / "none"), most_labels=1, most_mb=1).read("0" * 64)
    assert isinstance(gone, HTTPException) and gone.status_code == 507 and str(tmp_path / "none") in gone.detail


def test_what_a_key_may_write_in_a_day_is_bounded(
    corrections: Callable[..., Corrections], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = corrections(most_labels=2)
    for count in (1, 2):
        written(process.write(taken(count=count, key="ada")))
    refused = process.write(taken(count=3, key="ada"))
    assert isinstance(refused, HTTPException) and refused.status_code == 429 and "the key ada" in refused.detail
    written(process.write(taken(count=3, key="bob")))

    class Tomorrow(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> "datetime.datetime":
            return datetime.datetime.now(tz) + datetime.timedelta(days=1)

    monkeypatch.setattr(serve.corrections, "datetime", Tomorrow)
    written(process.write(taken(count=3, key="ada")))
    large = corrections(most_mb=0.01).write(taken(count=1))
    assert isinstance(large, HTTPException) and large.status_code == 429 and "0.01 MB" in large.detail


def test_what_cannot_be_written_is_told_and_costs_no_share(
    corrections: Callable[..., Corrections], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = corrections(most_labels=1)
    nothing = process.write(taken(by="Ada"))
    assert isinstance(nothing, DataError) and "says nothing" in str(nothing)
    outside = process.write(taken(points=[(1000, 2)]))
    assert isinstance(outside, DataError) and "0.png" not in outside.__class__.__name__

    def forbidden(*given: object, **named: object) -> None:
        raise UnavailableError("s3://lab/bank may not be written: AccessDenied")

    with monkeypatch.context() as patch:
        patch.setattr(serve.corrections, "label_image", forbidden)
        away = process.write(taken(count=3))
    assert isinstance(away, HTTPException) and away.status_code == 507
    assert away.detail == "the bank takes no corrections now: s3://lab/bank may not be written: AccessDenied"
    assert written(process.write(taken(count=3))).added
