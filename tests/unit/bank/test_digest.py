"""The digest of a bank stays what it was when frames and settings get more fields."""

from dataclasses import dataclass, fields

from pydantic import Field

from cellnet.bank.digest import FIRST, HEARSAY, digest_of
from cellnet.bank.frames import Frame
from cellnet.config.bank import BankSettings
from cellnet.config.loading import is_none

KNOWN = {"frame": "0" * 64, "source": "a.png", "lineage": "A549", "count": 3.0, "group": "B02", "split": "train"}
DIGEST = digest_of(BankSettings(), [Frame(**KNOWN)])


@dataclass(frozen=True, kw_only=True)
class LaterFrame(Frame):
    """A frame of a cellnet to come."""

    passage: float | None = None


class LaterSettings(BankSettings):
    """The settings of a bank of a cellnet to come."""

    plates: str | None = Field(default=None, exclude_if=is_none)


def test_a_field_that_comes_later_changes_the_digest_only_where_it_is_known() -> None:
    assert digest_of(BankSettings(), [LaterFrame(**KNOWN)]) == DIGEST
    known = {digest_of(BankSettings(), [LaterFrame(**KNOWN, passage=passage)]) for passage in (0.0, 24.0)}
    assert len(known | {DIGEST}) == 3


def test_a_setting_that_comes_later_changes_the_digest_only_where_it_is_set() -> None:
    assert digest_of(LaterSettings(), [Frame(**KNOWN)]) == DIGEST
    assert digest_of(LaterSettings(plates="96"), [Frame(**KNOWN)]) != DIGEST


def test_every_field_of_a_frame_that_is_none_of_the_first_is_none_until_it_is_known() -> None:
    later = [field for field in fields(Frame) if field.name not in FIRST | HEARSAY]
    assert [field.name for field in later if field.default is not None] == []
    assert {field.name for field in fields(Frame)} >= FIRST | HEARSAY


def test_batch_and_age_take_part_where_they_are_known() -> None:
    assert digest_of(BankSettings(), [Frame(**KNOWN, batch=None, time_h=None)]) == DIGEST
    known = [{"batch": "P1"}, {"batch": "P2"}, {"time_h": 0.0}, {"time_h": 24.0}]
    assert len({DIGEST, *(digest_of(BankSettings(), [Frame(**KNOWN, **more)]) for more in known)}) == 5
