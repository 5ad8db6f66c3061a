"""A registry that is asked again and again: what it costs, and what is seen of it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cellnet.errors import IntegrityError, NotFoundError
from cellnet.registry.following import Following
from cellnet.registry.records import Card
from cellnet.registry.registry import Registry
from cellnet.store.folder import FolderStore
from cellnet.store.objects import MOST_BYTES, Entry
from cellnet.untrusted import WEIGHTS


class Counting(FolderStore):
    """A folder that counts what it is asked."""

    reads = 0
    lists = 0

    def get(self, key: str, *, limit: int = MOST_BYTES) -> bytes:
        self.reads += 1
        return super().get(key, limit=limit)

    def entries(self, prefix: str, *, after: str = "") -> Iterator[Entry]:
        self.lists += 1
        return super().entries(prefix, after=after)

    def asked(self) -> tuple[int, int]:
        """Reads and lists since it was last called."""
        said, self.reads, self.lists = (self.reads, self.lists), 0, 0
        return said


@pytest.fixture
def store(tmp_path: Path) -> Counting:
    return Counting(tmp_path)


@pytest.fixture
def promote(store: Counting, card: Callable[..., Card]) -> Callable[[], str]:
    """Publishes one version more of `regressor`, and makes it champion."""
    registry = Registry(store)

    def one() -> str:
        version = registry.publish("regressor", {WEIGHTS: b"weights"}, card())
        registry.promote(version.ref, "champion")
        store.asked()
        return version.ref

    return one


def test_an_alias_that_stays_costs_a_read_a_look_and_is_followed_when_it_moves(
    store: Counting, promote: Callable[[], str]
) -> None:
    first, following = promote(), Following(Registry(store))
    assert following.resolve("regressor:champion").ref == first
    assert store.asked() == (2, 1), "the alias is listed, its move and the version are read"
    for _ in range(3):
        assert following.resolve("regressor:champion").ref == first
    assert store.asked() == (3, 0)
    second, third = promote(), promote()
    assert following.resolve("regressor:champion").ref == third != second, "two moves at once"
    Registry(store).rollback("regressor", "champion")
    assert following.resolve("regressor:champion").ref == second
    store.asked()
    assert [following.resolve("regressor@1").ref for _ in range(2)] == [first] * 2
    assert store.asked() == (1, 0), "a number means the same for ever"


def test_what_is_not_there_is_looked_for_by_a_read(store: Counting, promote: Callable[[], str]) -> None:
    following = Following(Registry(store))
    for _ in range(2):
        with pytest.raises(NotFoundError, match="has no regressor:champion; it is empty"):
            following.resolve("regressor:champion")
    store.asked()
    with pytest.raises(NotFoundError, match="has no regressor:champion"):
        following.resolve("regressor:champion")
    assert store.asked() == (1, 0)
    promote()
    assert following.resolve("regressor:champion").ref == "regressor@1"


def test_a_move_that_is_damaged_is_told_as_long_as_it_is(store: Counting, promote: Callable[[], str]) -> None:
    first, following = promote(), Following(Registry(store))
    following.resolve("regressor:champion")
    store.put("regressor/aliases/champion/000002.json", b"{")
    for _ in range(2):
        with pytest.raises(IntegrityError, match="cellnet registry rollback regressor champion"):
            following.resolve("regressor:champion")
    Registry(store).rollback("regressor", "champion")
    assert following.resolve("regressor:champion").ref == first
