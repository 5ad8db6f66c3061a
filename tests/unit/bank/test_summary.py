"""What is told of a bank is kept beside a large one, and never taken for what is told of another."""

from pathlib import Path
from typing import Any

import pytest

from cellnet.bank import summary
from cellnet.bank.bank import Bank
from cellnet.bank.labels import Label
from cellnet.bank.prepare import prepare
from cellnet.bank.summary import Summary
from cellnet.bank.warnings import warnings_in as look_through
from cellnet.errors import DataError, DeniedError
from cellnet.images.file import ImageFile, encode_png
from cellnet.readers import LabelledFile
from cellnet.store.folder import FolderStore
from tests.factories import frame, noise


@pytest.fixture
def bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bank:
    """A bank of eight frames, which is large here; three of them copy another, and one image was set aside."""
    monkeypatch.setattr(summary, "LEAST_ROWS", 8)
    monkeypatch.setattr(summary, "code_version", lambda: "1.0+g1234567")
    bank = Bank.create(tmp_path / "bank")
    pictures = []
    for number in range(8):
        path = tmp_path / f"{number}.png"
        path.write_bytes(encode_png(noise(64, 64, seed=number)))
        file = LabelledFile(image=ImageFile.at(path), lineage="AB"[number % 2], group=f"w{number}", count=float(number))
        pictures.append(prepare(file, bank.store))
    bank.add([*pictures, frame(100, set_aside="blank")])
    return bank


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Bank]:
    """The banks whose frames were looked through."""
    looked: list[Bank] = []

    def warnings_in(bank: Bank, **options: Any) -> list[str]:
        looked.append(bank)
        return look_through(bank, **options)

    monkeypatch.setattr(summary, "warnings_in", warnings_in)
    return looked


def kept(bank: Bank) -> list[Path]:
    return sorted(Path(bank.store.uri).glob("summaries/*"))


def test_a_large_bank_is_looked_through_once_and_told_alike_ever_after(bank: Bank, counted: list[Bank]) -> None:
    told = Summary.at(bank.store.uri)
    assert (
        told.digest == bank.digest and told.frames == 8 and told.set_aside == [{"source": "100.png", "reason": "blank"}]
    )
    assert Summary.at(bank.store.uri) == told == Summary.at(bank.store.uri, as_of=1)
    assert len(counted) == len(kept(bank)) == 1


def test_a_bank_that_goes_on_is_told_as_it_is_and_as_it_was(bank: Bank, counted: list[Bank]) -> None:
    before = Summary.at(bank.store.uri)
    bank.label([Label(frame=bank.frames[0].frame, unusable="focus")], by="Ana")
    after = Summary.at(bank.store.uri)
    assert (after.labels["labels"], after.labels["unusable"], after.entry) == (1, {"focus": 1}, 2)
    assert Summary.at(bank.store.uri, as_of=1) == before != after == Summary.at(bank.store.uri)
    assert len(counted) == 2


@pytest.mark.parametrize("change", ["version", "settings", "damaged", "cut", "another's", "gone"])
def test_what_does_not_fit_is_made_anew(
    bank: Bank, counted: list[Bank], change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Summary.at(bank.store.uri)
    [path] = kept(bank)
    if change == "version":
        monkeypatch.setattr(summary, "code_version", lambda: "1.1")
    elif change == "settings":
        settings = Path(bank.store.uri, "bank.json")
        settings.write_bytes(settings.read_bytes().replace(b'"seed": 0', b'"seed": 7'))
    elif change == "damaged":
        path.write_bytes(path.read_bytes().replace(told.digest.encode(), b"0" * 64))
    elif change == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif change == "another's":
        path.write_bytes(b'{"digest": 1}')
    else:
        path.unlink()
    again = Summary.at(bank.store.uri)
    assert (again == told) is (change != "settings") and again.digest == Bank.open(bank.store.uri).digest
    assert len(counted) == 2


def test_a_part_that_is_gone_is_told_though_all_was_counted_before(bank: Bank) -> None:
    Summary.at(bank.store.uri)
    [part] = Path(bank.store.uri, "parts").iterdir()
    part.unlink()
    with pytest.raises(DataError, match="is gone"):
        Summary.at(bank.store.uri)


@pytest.mark.parametrize("reason", ["small", "changed code", "unread pixels", "no right to write"])
def test_what_would_not_last_is_told_and_not_kept(bank: Bank, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise DeniedError("not you")

    if reason == "small":
        monkeypatch.setattr(summary, "LEAST_ROWS", 100)
    elif reason == "changed code":
        monkeypatch.setattr(summary, "code_version", lambda: "1.0+g1234567.dirty")
    elif reason == "unread pixels":
        for path in Path(bank.store.uri, "pixels").iterdir():
            path.unlink()
    else:
        monkeypatch.setattr(FolderStore, "put", denied)
    assert Summary.at(bank.store.uri).frames == 8
    assert not kept(bank)
