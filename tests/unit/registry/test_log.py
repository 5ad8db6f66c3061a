"""Append-only logs: what is the newest, and who is first."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cellnet.registry.log import Log
from cellnet.store.folder import FolderStore


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
