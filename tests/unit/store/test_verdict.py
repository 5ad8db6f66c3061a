"""Servers that create only what is absent, told from those that say so."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cellnet.errors import RegistryError
from cellnet.store.folder import FolderStore
from cellnet.store.verdict import CREATORS, PROBE_KEY, ROUNDS, check_server, verdict_key


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    """Honest by itself."""
    return FolderStore(tmp_path)


@pytest.fixture
def new_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """`new_process()`: nothing is known of any server."""
    return lambda: monkeypatch.setattr("cellnet.store.verdict._proven", set())


@pytest.fixture(autouse=True)
def nothing_is_known(new_process: Callable[[], None]) -> None:
    new_process()


class Counted:
    """`create` of a store, and the keys that it was asked for."""

    def __init__(self, store: FolderStore) -> None:
        self.store = store
        self.keys: list[str] = []

    def __call__(self, key: str, data: bytes) -> bool:
        self.keys.append(key)
        return self.store.create(key, data)


class Unlucky(Counted):
    """Tells two of those who create a key at once that they were first, in the last round only."""

    lock = threading.Lock()

    def __call__(self, key: str, data: bytes) -> bool:
        with self.lock:
            told = super().__call__(key, data)
            return told or (key.endswith(f"-{ROUNDS - 1}") and self.keys.count(key) == CREATORS)


def test_an_honest_server_is_probed_once(store: FolderStore, new_process: Callable[[], None]) -> None:
    create = Counted(store)
    check_server(store, "https://s3.test/lab", create)
    asked = len(create.keys)
    assert asked == 1 + 1 + ROUNDS * CREATORS + 1 and all(key.startswith(PROBE_KEY) for key in create.keys)
    assert len(set(create.keys)) == 1 + ROUNDS + 1
    for _ in range(2):
        check_server(store, "https://s3.test/lab", create)
        new_process()
    assert len(create.keys) == asked
    check_server(store, "https://copy.test/lab", create)  # what was kept of another server is not believed
    assert len(create.keys) > asked + ROUNDS * CREATORS


def test_one_that_ignores_the_condition_is_refused(store: FolderStore) -> None:
    keys: list[str] = []
    with pytest.raises(RegistryError, match=r"ignores If-None-Match, so two writers could"):
        check_server(store, "https://s3.test/lab", lambda key, data: keys.append(key) or True)  # type: ignore[func-returns-value]
    assert keys == [PROBE_KEY, PROBE_KEY]


def test_one_that_checks_and_then_writes_stays_refused_until_somebody_mends_it(
    store: FolderStore, new_process: Callable[[], None]
) -> None:
    create = Unlucky(store)
    said = rf"checks If-None-Match and then writes: 2 of {CREATORS} who .* remove {PROBE_KEY}-\w+\.json"
    with pytest.raises(RegistryError, match=said):
        check_server(store, "https://s3.test/lab", create)
    honest = Counted(store)
    with pytest.raises(RegistryError, match=said):  # though it would have better luck
        check_server(store, "https://s3.test/lab", honest)
    assert honest.keys == []
    store.delete(verdict_key("https://s3.test/lab"))
    check_server(store, "https://s3.test/lab", honest)


def test_a_lie_that_somebody_else_found_meanwhile_is_believed(store: FolderStore) -> None:
    """Of two who probe at once one is lucky."""

    class Late(Counted):
        def __call__(self, key: str, data: bytes) -> bool:
            if key == verdict_key("https://s3.test/lab"):
                lying = data.replace(b'"most_told": 1', b'"most_told": 3')
                assert lying != data
                self.store.put(key, lying)
            return super().__call__(key, data)

    with pytest.raises(RegistryError, match="3 of 8"):
        check_server(store, "https://s3.test/lab", Late(store))


@pytest.mark.parametrize("rotten", [b"", b"{}", b'{"format": 9}', b"\xff"])
def test_a_verdict_that_cannot_be_read_is_found_anew(store: FolderStore, rotten: bytes) -> None:
    store.put(verdict_key("https://s3.test/lab"), rotten)
    create = Counted(store)
    check_server(store, "https://s3.test/lab", create)
    assert len(create.keys) > ROUNDS * CREATORS
