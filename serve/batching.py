"""A thread that computes, and what waits for it: images are taken together, up to so many tiles.

Who waits takes turns: a client's image after another client's, and of a client an image of each of its requests. So one
who sends much waits for himself, and nobody for all of it.

Not Ray Serve's `@serve.batch`: that keeps a task for ever, so that no model that was replaced would be freed, refuses a
frame of more tiles than a batch, and goes back to the event loop between reading an image and running each model.
"""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

Job = TypeVar("Job")

MOST_TILES: Final = 16
"""A batch is full with so many: of more, a CPU does not make more a second, and the first would wait for the last."""


@dataclass(frozen=True, eq=False)
class _Waiting(Generic[Job]):
    job: Job
    done: "asyncio.Future[None]"


class GoneError(Exception):
    """Nobody waits any more for what is computed."""


class _Turns(Generic[Job]):
    """Who waits: by client, and of each by request. Both take turns; what is of one request is in its order."""

    def __init__(self) -> None:
        self._clients: dict[Hashable, dict[Hashable, deque[_Waiting[Job]]]] = {}

    def __bool__(self) -> bool:
        return bool(self._clients)

    def append(self, one: _Waiting[Job], client: Hashable, request: Hashable) -> None:
        self._clients.setdefault(client, {}).setdefault(request, deque()).append(one)

    def popleft(self) -> _Waiting[Job]:
        """The next; its client and request are then behind the others."""
        client, requests = next(iter(self._clients.items()))
        request, waiting = next(iter(requests.items()))
        one = waiting.popleft()
        del self._clients[client], requests[request]
        if waiting:
            requests[request] = waiting
        if requests:
            self._clients[client] = requests
        return one

    def remove(self, one: _Waiting[Job], client: Hashable, request: Hashable) -> None:
        """Raises ValueError or KeyError where it does not wait any more."""
        requests = self._clients[client]
        requests[request].remove(one)
        if not requests[request]:
            del requests[request]
        if not requests:
            del self._clients[client]


class Batcher(Generic[Job]):
    """Does jobs, in turns of who asks. A batch is what came while the one before was computed."""

    def __init__(
        self, read: Callable[[Job], int], compute: Callable[[Sequence[Job]], None], *, most_tiles: int = MOST_TILES
    ) -> None:
        """`read` prepares a job, and says of how many tiles it is; `compute` does the rest of a batch together."""
        self._read = read
        self._compute = compute
        self._most_tiles = most_tiles
        self._waiting: _Turns[Job] = _Turns()
        self._batch: Sequence[_Waiting[Job]] = ()
        self._lock = threading.Lock()
        self._running = False
        self._step_began: float | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="models")

    async def do(self, job: Job, *, client: Hashable = None, request: Hashable = None) -> None:
        """Wait until a job is done. Raises what `read` raises of it, or `compute` of its batch."""
        one = _Waiting(job, asyncio.get_running_loop().create_future())
        with self._lock:
            self._waiting.append(one, client, request)
            idle, self._running = not self._running, True
        if idle:
            self._pool.submit(self._run)
        try:
            await one.done
        except asyncio.CancelledError:
            with self._lock, contextlib.suppress(ValueError, KeyError):
                self._waiting.remove(one, client, request)  # and with it what it holds
            raise

    def step_s(self) -> float:
        """For how long the thread has been at what it does: reading a job, or computing a batch; 0 where it rests.

        Whether anybody still waits for that does not matter: a request leaves when its time is over, the thread cannot.
        """
        began = self._step_began
        return 0.0 if began is None else time.monotonic() - began

    def alive(self) -> None:
        """Say that the thread goes on, from within what it computes: its next step begins.

        Raises GoneError where nobody waits any more for any of the batch.
        """
        if self._batch and all(one.done.cancelled() for one in self._batch):
            raise GoneError
        self._step_began = time.monotonic()

    @contextlib.contextmanager
    def _step(self) -> Iterator[None]:
        self._step_began = time.monotonic()
        try:
            yield
        finally:
            self._step_began = None

    def _run(self) -> None:
        """Do all that waits."""
        while self._do_batch():
            pass

    def _do_batch(self) -> bool:
        """Do a batch; False where nothing is left."""
        batch: list[_Waiting[Job]] = []
        tiles = 0
        while tiles < self._most_tiles and (one := self._next()):
            try:
                with self._step():
                    tiles += self._read(one.job)
                batch.append(one)
            except BaseException as error:  # whatever it is, the thread goes on
                _wake([one], error)
        fault: BaseException | None = None
        self._batch = batch
        try:
            with self._step():
                self._compute([one.job for one in batch])
        except BaseException as error:
            fault = error
        self._batch = ()
        _wake(batch, fault)
        with self._lock:
            self._running = bool(self._waiting)
            return self._running

    def _next(self) -> _Waiting[Job] | None:
        with self._lock:
            return self._waiting.popleft() if self._waiting else None


def _wake(batch: Sequence[_Waiting[Job]], fault: BaseException | None) -> None:
    """Tell those who wait, on their event loop, unless that has ended."""
    if fault and not isinstance(fault, Exception):  # which would end the loop
        fault = RuntimeError(f"{type(fault).__name__}: {fault}")
    with contextlib.suppress(RuntimeError):
        if batch:
            batch[0].done.get_loop().call_soon_threadsafe(_tell, batch, fault)


def _tell(batch: Sequence[_Waiting[Job]], fault: BaseException | None) -> None:
    for one in batch:
        if one.done.done():
            continue
        if fault:
            one.done.set_exception(fault)
        else:
            one.done.set_result(None)
