"""What lies in a bank and in runs, and what of it nobody needs."""

import os
import time
from pathlib import Path

import pytest

from cellnet.bank.bank import Bank
from cellnet.bank.upkeep import DAY_S, clear
from cellnet.cli import main
from cellnet.errors import ConfigError
from cellnet.store.folder import FolderStore
from tests.factories import frame

OLD_S = time.time() - 40 * DAY_S


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    """A bank with a frame, pixels of it and of no other, shards and what was prepared: each old and new."""
    bank = Bank.create(tmp_path / "bank")
    [one] = bank.add([frame(1)]) and bank.frames
    store = bank.store
    for name in (one.frame, "0" * 64):
        store.create(f"pixels/{name}.png", b"1234")
    for age, keys in {
        "old": [
            "shards/a.json",
            "shards/a-01/train/0.parquet",
            "shards/left-02/train/0.parquet",
            "prepared/a.parquet",
            "summaries/a.json",
        ],
        "new": ["shards/b.json", "prepared/b.parquet", "summaries/b.json"],
        "old, used": ["shards/b-03/train/0.parquet"],
    }.items():
        for key in keys:
            store.create(key, b"12")
            if age != "new":
                os.utime(tmp_path / "bank" / key, (OLD_S, OLD_S))
    return bank


@pytest.fixture
def runs(tmp_path: Path) -> FolderStore:
    store = FolderStore(tmp_path / "runs")
    for key in ("done/run.json", "done/finished.json", "done/checkpoint_1/state", "open/checkpoint_1/state"):
        store.create(key, b"123")
        os.utime(tmp_path / "runs" / key, (OLD_S, OLD_S))
    store.create("fresh/finished.json", b"")
    store.create("fresh/checkpoint_1/state", b"123")
    return store


def test_what_nobody_needs_is_removed_and_the_rest_stays(bank: Bank, runs: FolderStore) -> None:
    before = [*bank.store.keys(""), *runs.keys("")]
    planned = clear(bank, runs, dry_run=True)
    assert [*bank.store.keys(""), *runs.keys("")] == before
    cleared = clear(bank, runs)
    assert cleared == planned and cleared.of_no_frame == 1
    told = {kind.what: (kind.files, kind.bytes, kind.unneeded, kind.unneeded_bytes) for kind in cleared.held}
    assert told["pixels"] == (2, 8, 0, 0) and told["parts"][::2] == (1, 0) and told["log"][::2] == (1, 0)
    assert told["shards"] == (5, 10, 3, 6) and told["prepared"] == told["summaries"] == (2, 4, 1, 2)
    assert told["checkpoints"] == (3, 9, 1, 3)
    gone = {*before} - {*bank.store.keys(""), *runs.keys("")}
    assert gone == {
        *("shards/a.json", "shards/a-01/train/0.parquet", "shards/left-02/train/0.parquet", "prepared/a.parquet"),
        "summaries/a.json",
        "done/checkpoint_1/state",
    }
    assert len(Bank.open(bank.store.uri).frames) == 1
    again = clear(bank, runs)
    assert not any(kind.unneeded for kind in again.held)


def test_what_was_left_of_a_write_is_swept(bank: Bank, tmp_path: Path) -> None:
    half = tmp_path / "bank" / "pixels" / ".tmp-half"
    half.write_bytes(b"1")
    os.utime(half, (OLD_S, OLD_S))
    assert clear(bank, dry_run=True).unfinished == 0 and half.exists()
    assert clear(bank).unfinished == 1 and not half.exists()


def test_too_few_days_are_refused(bank: Bank) -> None:
    with pytest.raises(ConfigError, match="kept for 1 day at least"):
        clear(bank, keep_days=0.5)


def test_a_person_is_told_in_a_table(bank: Bank, runs: FolderStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bank", "gc", bank.store.uri, "--runs", runs.uri, "--dry-run"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["shards", "5", "10", "bytes", "3", "6", "bytes"] in lines
    assert ["checkpoints", "3", "9", "bytes", "1", "3", "bytes"] in lines
    assert any(line[:5] == ["1", "file", "of", "pixels", "of"] for line in lines)
