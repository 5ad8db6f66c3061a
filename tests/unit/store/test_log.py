"""Append-only logs: what is the newest, and who is first."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cellnet.store.folder import FolderStore
from cellnet.store.log import Log


@pytest.mark.parametrize("last", [0, 1, 999, 1000, 1001, 2000, 3000, 3001, 9999, 10_000, 12_345, 250_000])
def test_the_newest_of_many_entries_is_found_in_few_requests(last: int) -> None:
    class Many:
        asked = 0

        def keys(self, prefix: str, *, after: str = "") -> Iterator[str]:
            self.asked += 1
            start = int(after.removeprefix(prefix).removesuffix(".json")) + 1
            return (f"{prefix}{number:06d}.json" for number in range(start, last + 1))

    store = Many()
    log = Log(store, "regressor/versions")
    assert log.newest() == last
    assert store.asked <= max(1, 2 + 2 * (last // 1000).bit_length())
    store.asked = 0
    assert log.newest() == last and store.asked == 1


def test_of_two_who_append_the_same_number_the_later_one_learns_it(tmp_path: Path) -> None:
    log, other = (Log(FolderStore(tmp_path), "regressor/versions") for _ in range(2))
    assert (log.newest(), other.newest()) == (0, 0)
    assert (log.append(1, b"one"), other.append(1, b"other")) == (True, False)
    assert (other.newest(), other.read(1), list(log.numbers())) == (1, b"one", [1])
    assert log.key(1) == "regressor/versions/000001.json"


def test_whether_a_log_goes_on_is_seen_without_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(FolderStore(tmp_path), "regressor/versions", limit=3)
    log.append(1, b"one")
    assert log.goes_on(), "nothing of it was seen"
    assert log.newest() == 1
    monkeypatch.setattr(FolderStore, "entries", None)
    assert not log.goes_on()
    log.append(2, b"larger than it may be")
    assert log.goes_on()


@pytest.mark.parametrize("last", [1, 2, 999, 1000, 1001, 2500])
@pytest.mark.parametrize("strays", [(999_999,), (999_998, 999_999), (5000,), (5000, 7000, 999_999)])
def test_what_lies_far_beyond_is_nobodys(tmp_path: Path, last: int, strays: tuple[int, ...]) -> None:
    folder = tmp_path / "versions"
    folder.mkdir()
    for number in {*range(max(last - 1100, 1), last + 1), *strays}:  # the oldest of many may be gone
        (folder / f"{number:06d}.json").touch()
    fresh, log = (Log(FolderStore(tmp_path), "versions") for _ in range(2))
    pair = strays == (999_998, 999_999)  # of which the second has one before it
    assert fresh.newest() == log.newest() == (999_999 if pair else last)
    if not pair:
        assert list(log.numbers())[-1] == last
        assert log.append(last + 1, b"next") and log.newest() == last + 1
        assert Log(FolderStore(tmp_path), "versions").newest() == last + 1


def test_one_that_is_alone_is_the_newest(tmp_path: Path) -> None:
    (tmp_path / "versions").mkdir()
    (tmp_path / "versions/001500.json").touch()  # those before it were removed
    assert Log(FolderStore(tmp_path), "versions").newest() == 1500
