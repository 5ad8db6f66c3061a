"""A lease: one of many processes has it, says so again and again, and loses it when it does not.

    PREFIX/000003.json    who has it, created only if absent; written anew while it is held, and as it is given back

How long ago that was the store's clock tells alone: the clocks of machines take no part, but a second lasts as long on
a holder's machine as in the store. A holder that could not say so for two thirds of the time takes it for lost, before
anybody else may have it. What a process of this machine left behind that has ended is free at once.
"""

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cellnet.config.loading import Stored, read_record, record_bytes
from cellnet.errors import ConflictError, RegistryError
from cellnet.store.log import Log, user
from cellnet.store.objects import Store

LASTS_S: Final = 120.0
"""So long after its holder was last heard of somebody else may have a lease."""
RENEWS: Final = 6
"""How often it is renewed in that time."""
RECORD_BYTES: Final = 2**16


class Holder(Stored):
    """Who has a lease."""

    id: str
    """Of this holding alone."""
    who: str
    """User, machine and process, for a person."""
    since: str
    """UTC, ISO 8601."""
    machine: str
    """As processes tell machines apart, and what they see of each other there; empty where that is not known."""
    pid: int
    started: str
    """When the process was, by its machine: another one may have its number later."""
    lasts_s: float
    given_back: bool = False

    @classmethod
    def here(cls, lasts_s: float) -> "Holder":
        """This process."""
        return cls(
            id=secrets.token_hex(8),
            who=f"{user() or f'user {os.getuid()}'} on {socket.gethostname()}, process {os.getpid()}",
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=_machine(),
            pid=os.getpid(),
            started=_started(os.getpid()),
            lasts_s=lasts_s,
        )

    @property
    def has_ended(self) -> bool:
        """Whether it is a process of this machine that is no more."""
        return bool(self.machine) and self.machine == _machine() and self.started != _started(self.pid)


class Lease:
    """What one process at a time has, at a prefix of a store."""

    def __init__(self, store: Store, prefix: str, *, lasts_s: float = LASTS_S) -> None:
        self._log = Log(store, prefix, limit=RECORD_BYTES)
        self._lasts_s = lasts_s
        self._number = 0
        self._mine: Holder | None = None
        self._renewed_s = 0.0

    def holder(self) -> Holder | None:
        """Who has it; None where nobody does."""
        number = self._log.newest()
        if not number:
            return None
        last = self._read(number)
        entry = next(iter(self._log.store.entries(self._log.key(number))))
        is_over = last.given_back or last.has_ended or self._log.store.now() - entry.modified > last.lasts_s
        return None if is_over else last

    def take(self) -> None:
        """Have it. Raises ConflictError, which names who has it and since when."""
        number, mine, begun_s = self._log.newest(), Holder.here(self._lasts_s), _clock_s()
        other = self.holder()
        if not other and not self._log.append(number + 1, record_bytes(mine)):
            other = self._read(self._log.newest())
        if other:
            raise ConflictError(
                f"{other.who}, runs this since {other.since}; wait until it has ended, or end it (where its machine is "
                f"gone, it is free {other.lasts_s:g} s after it was last heard of)"
            )
        self._number, self._mine, self._renewed_s = number + 1, mine, begun_s

    def renew(self) -> bool:
        """Say that it is still had; no where it is lost. A store that does not answer is asked again the next time."""
        assert self._mine is not None, "taken"
        begun_s = _clock_s()
        if begun_s - self._renewed_s > self._lasts_s * 2 / 3:
            return False
        with contextlib.suppress(RegistryError, OSError):
            self._log.store.put(self._log.key(self._number), record_bytes(self._mine))
            if self._log.newest() != self._number:
                return False
            self._renewed_s = begun_s
        return True

    def give_back(self) -> None:
        """Let others have it; a store that does not answer lets them have it later."""
        if self._mine is not None:
            with contextlib.suppress(RegistryError, OSError):
                data = record_bytes(self._mine.model_copy(update={"given_back": True}))
                self._log.store.put(self._log.key(self._number), data)
        self._mine = None

    @contextlib.contextmanager
    def held(self, *, lost: Callable[[], None], beside: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Have it as long as this lasts. `beside` is called as often as it is renewed, `lost` once where it is lost.

        Both from another thread. Raises as `take`.
        """
        self.take()
        over = threading.Event()

        def watch() -> None:
            while not over.wait(self._lasts_s / RENEWS):
                if not self.renew():
                    lost()
                    return
                beside()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join(timeout=5)
            self.give_back()

    def _read(self, number: int) -> Holder:
        return read_record(Holder, self._log.read(number), f"{self._log.key(number)} in {self._log.store.uri}")


def _clock_s() -> float:
    """Seconds that go on while the machine sleeps, where it has such a clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _machine() -> str:
    """This boot of this machine, and which processes are seen from here; empty where there is no /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process of this machine was started, in ticks since the boot; empty of one that has ended."""
    try:
        state, *others = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
    except (OSError, ValueError):
        return ""
    return "" if state in "ZX" else others[18]
