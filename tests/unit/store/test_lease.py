"""A lease: one has it, says so, and others learn who; what the dead and the silent held is free."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cellnet.errors import ConflictError, UnavailableError
from cellnet.store import lease as leases
from cellnet.store.folder import FolderStore
from cellnet.store.lease import Lease


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


def test_one_has_it_and_the_others_learn_who_and_since_when(store: FolderStore) -> None:
    first, second = Lease(store, "lease"), Lease(store, "lease")
    assert first.holder() is None
    first.take()
    held = second.holder()
    assert held and held.pid == os.getpid()
    with pytest.raises(ConflictError) as refused:
        second.take()
    assert str(refused.value).startswith(f"{held.who}, runs this since {held.since}; wait until it has ended")
    assert f"process {os.getpid()}" in held.who and "free 120 s after it was last heard of" in str(refused.value)
    assert first.renew()
    first.give_back()
    assert second.holder() is None
    second.take()


def test_of_many_who_take_it_at_once_one_has_it(store: FolderStore) -> None:
    together = threading.Barrier(8)

    def take(_: int) -> bool:
        lease = Lease(store, "lease")
        together.wait()
        try:
            lease.take()
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(8))) == 1


def test_it_is_free_where_its_holder_was_not_heard_of_for_long_who_then_knows_that_it_is_lost(
    store: FolderStore,
) -> None:
    silent = Lease(store, "lease", lasts_s=-1)  # by the store's clock its time is over at once
    silent._mine, silent._number = leases.Holder.here(-1), 1
    assert silent._log.append(1, leases.record_bytes(silent._mine))
    other = Lease(store, "lease")
    other.take()
    silent._lasts_s, silent._renewed_s = 120, leases._clock_s()
    assert not silent.renew() and other.renew()


def test_who_could_not_renew_it_for_long_gives_it_up_before_others_may_have_it(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = Lease(store, "lease")
    lease.take()
    now_s = leases._clock_s()

    def down(key: str, data: bytes) -> None:
        raise UnavailableError("it does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(store, "put", down)
        patch.setattr(leases, "_clock_s", lambda: now_s + 60)
        assert lease.renew(), "it may answer the next time"
        patch.setattr(leases, "_clock_s", lambda: now_s + 81)
        assert not lease.renew(), "two thirds of its time are over"


def test_what_a_process_of_this_machine_held_that_has_ended_is_free_at_once(store: FolderStore) -> None:
    if not leases._machine():
        pytest.skip("which processes there are is read in /proc")
    child = os.fork()
    if not child:
        Lease(store, "lease").take()
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # dead, and nobody has asked for its status
    assert Lease(store, "lease").holder() is None
    os.waitpid(child, 0)
    Lease(store, "lease").take()


def test_while_it_is_held_its_loss_is_told(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEWS", 1200)
    lost, beside = threading.Event(), threading.Event()
    lease = Lease(store, "lease")
    with lease.held(lost=lost.set, beside=beside.set):
        assert beside.wait(60) and not lost.is_set()
        assert lease._log.append(2, leases.record_bytes(leases.Holder.here(120)))  # by somebody else
        assert lost.wait(60)
