"""Frames by what people write for them."""

from pathlib import Path

import pytest

from cellnet.bank.bank import Bank
from cellnet.bank.finding import find_frame, find_frames
from cellnet.errors import NotFoundError
from tests.factories import frame


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    made = Bank.create(tmp_path / "bank")
    made.add([frame(1, frame="ab" * 32), frame(2, frame="ab" * 8 + "cd" * 24), frame(3, source="p/deadbeef")])
    return made


@pytest.mark.parametrize("written", ["AB" * 32, "abababababababababab", "1.png", "elsewhere/1.PNG"])
def test_a_frame_is_found_by_its_hash_and_by_its_image(bank: Bank, written: str) -> None:
    assert find_frame(bank, written) == "ab" * 32


def test_an_image_that_is_called_like_a_hash_is_found(bank: Bank) -> None:
    assert find_frame(bank, "deadbeef") == frame(3).frame


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("abababab", "several frames begin with abababab; write more of its hash"),
        ("0" * 64, "the bank has no frame 0{64}; import its image first"),
        ("x.png", "the bank has no frame of x.png; import its image first"),
    ],
)
def test_why_no_frame_is_found_is_told(bank: Bank, written: str, why: str) -> None:
    with pytest.raises(NotFoundError, match=why):
        find_frame(bank, written)
    assert find_frames(bank, ["1.png", written])["1.png"].frame == "ab" * 32
