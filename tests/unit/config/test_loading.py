"""Records that last: written strictly, read leniently at any depth, and refused politely where they are too new."""

import json
from typing import ClassVar

import pytest
from pydantic import Field, ValidationError

from cellnet.config.loading import Frozen, Stored, read_record, record_bytes
from cellnet.errors import IntegrityError


class Inner(Frozen):
    width: int = 4
    """Has a default, since it came later."""


class Note(Stored):
    name: str
    inner: Inner = Inner()
    by_name: dict[str, Inner] = Field(default_factory=dict)


def read(values: object) -> Note:
    return read_record(Note, json.dumps(values).encode(), "note 7")


def test_a_record_says_its_format_first_and_comes_back() -> None:
    note = Note(name="a", by_name={"b": Inner(width=2)})
    data = record_bytes(note)
    assert data.startswith(b'{\n "format": 1,\n "name": "a",') and read_record(Note, data, "note 7") == note


def test_what_is_not_known_in_a_record_is_left_alone_at_any_depth() -> None:
    later = {"mood": "good"}
    values = {"name": "a", **later, "inner": {"width": 2, **later}, "by_name": {"b": {"width": 3, **later}}}
    assert read(values) == Note(name="a", inner=Inner(width=2), by_name={"b": Inner(width=3)})
    with pytest.raises(ValidationError):  # though what is written, or set by a user, is strict
        Note(name="a", mood="good")  # type: ignore[call-arg]


def test_a_record_of_before_formats_is_of_the_first() -> None:
    class Second(Note):
        FORMAT: ClassVar[int] = 2

    assert read_record(Second, b'{"name": "a"}', "note 7") == Second(name="a")
    assert b'"format": 2' in record_bytes(Second(name="a"))


def test_a_record_of_a_later_format_is_refused_politely_whatever_it_holds() -> None:
    with pytest.raises(IntegrityError) as refused:
        read({"format": 2, "name": 7})
    assert str(refused.value) == "note 7 was written by a later cellnet (format 2, this one reads 1); update cellnet"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"name": ', "note 7 is damaged: Invalid JSON: EOF"),
        (b"\xff", "note 7 is damaged: "),
        (b"[]", "note 7 is damaged: "),
        (b"{}", "note 7 is damaged: name: Field required"),
        (
            b'{"name": "a", "inner": {"width": "wide"}}',
            "note 7 is damaged: inner.width: Input should be ",
        ),
        (b'{"format": "new", "name": "a"}', "note 7 is damaged: its format is 'new'"),
        (b'{"format": 0, "name": "a"}', "note 7 is damaged: its format is 0"),
        (b'{"format": null, "name": "a"}', "note 7 is damaged: its format is None"),
    ],
)
def test_a_damaged_record_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(IntegrityError) as refused:
        read_record(Note, data, "note 7")
    assert str(refused.value).startswith(reason)
