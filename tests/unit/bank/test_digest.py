"""The digest of a bank stays what it was when frames and settings get more fields."""

import hashlib
import json
from dataclasses import fields

import pyarrow as pa
import pytest
from pydantic import Field

from cellnet.bank import digest
from cellnet.bank.columns import Frames
from cellnet.bank.digest import FIRST, HEARSAY, _as_json, digest_of
from cellnet.bank.frames import Frame
from cellnet.config.bank import BankSettings
from cellnet.config.loading import is_none

KNOWN = {"frame": "0" * 64, "source": "a.png", "lineage": "A549", "count": 3.0, "group": "B02", "split": "train"}
DIGEST = digest_of(BankSettings(), [Frame(**KNOWN)])


class LaterSettings(BankSettings):
    """The settings of a bank of a cellnet to come."""

    plates: str | None = Field(default=None, exclude_if=is_none)


def test_a_field_that_comes_later_changes_the_digest_only_where_it_is_known() -> None:
    def later(passage: float | None) -> Frames:
        """Of a cellnet to come, whose frames have a field more."""
        table = Frames.of([Frame(**KNOWN)]).table
        return Frames(table.append_column("passage", pa.array([passage], pa.float64())))

    assert digest_of(BankSettings(), later(None)) == DIGEST
    assert len({DIGEST, *(digest_of(BankSettings(), later(passage)) for passage in (0.0, 24.0))}) == 3


def test_the_digest_is_that_of_lines_of_json_in_the_order_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "LINES", 2)
    frames = [
        Frame(**KNOWN | {"frame": "b", "lineage": 'A"5\n4é9', "centres": [[0.1, 1e-7], [3.0, 4.0]], "count": 1 / 3}),
        Frame(**KNOWN | {"frame": "c", "lineage": None, "count": None, "centres": [], "batch": "P1"}),
        Frame(**KNOWN | {"frame": "a", "count": -0.0, "time_h": 1e22, "pixel_um": 0.65, "darkest": 7, "bits": 16}),
    ]
    lines = hashlib.sha256(BankSettings().model_dump_json().encode())
    for frame in sorted(frames, key=lambda frame: frame.frame):
        told = {field.name: getattr(frame, field.name) for field in fields(frame) if field.name not in HEARSAY}
        known = {name: value for name, value in told.items() if value is not None or name in FIRST}
        lines.update(b"\n" + json.dumps(known, sort_keys=True).encode())
    assert digest_of(BankSettings(), frames) == lines.hexdigest()


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


@pytest.mark.parametrize("text", ["", "A549", "~ !#[]", 'a"b', "a\\b", "Zürich", "\x7f", "a\nb", "\u2028", "🔬"])
def test_a_text_stands_in_the_digest_as_in_json(text: str) -> None:
    assert _as_json(pa.array([text, "plain"])).to_pylist() == [json.dumps(text), '"plain"']
