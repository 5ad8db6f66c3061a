"""The thread that computes what waits for it, several at a time."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Sequence

import pytest

from serve.batching import MOST_TILES, Batcher, GoneError
from tests.unit.serve.kitchen import Held


class Job:
    """An image of so many tiles."""

    def __init__(self, tiles: int) -> None:
        self.tiles = tiles


class Bench:
    """A batcher that writes down its batches, and what holds the first of them."""

    def __init__(self, most_tiles: int = MOST_TILES) -> None:
        self.batches: list[list[int]] = []
        self.held = Held()
        self.wait = self.held
        self.fault: BaseException = RuntimeError("a fault")
        self.batcher: Batcher[Job] = Batcher(self.read, self.compute, most_tiles=most_tiles)

    def read(self, job: Job) -> int:
        if job.tiles < 0:
            raise ValueError("no image")
        return job.tiles

    def compute(self, jobs: Sequence[Job]) -> None:
        self.batches.append([job.tiles for job in jobs])
        if 99 in self.batches[-1]:
            raise self.fault
        self.wait()

    def do(self, *sizes: int) -> list[BaseException | None]:
        """What becomes of jobs of so many tiles, of which the first is computed until all others wait."""

        async def all_of_them() -> list[BaseException | None]:
            first = asyncio.create_task(self.batcher.do(Job(sizes[0])))
            await asyncio.to_thread(self.held.inside.acquire)
            others = [asyncio.create_task(self.batcher.do(Job(tiles))) for tiles in sizes[1:]]
            await asyncio.sleep(0)
            self.held.go.set()
            return await asyncio.gather(first, *others, return_exceptions=True)

        return asyncio.run(all_of_them())


def test_what_comes_while_a_batch_is_computed_is_the_next_batch() -> None:
    bench = Bench()
    assert bench.do(1, *[1] * (MOST_TILES - 1)) == [None] * MOST_TILES
    assert bench.batches == [[1], [1] * (MOST_TILES - 1)]


def test_a_batch_that_is_full_leaves_the_others_to_the_next_in_their_order() -> None:
    bench = Bench()
    bench.do(1, MOST_TILES - 1, 2, 3, 100, 4)
    assert bench.batches == [[1], [MOST_TILES - 1, 2], [3, 100], [4]]


def test_clients_take_turns_and_so_do_the_requests_of_each() -> None:
    bench = Bench(most_tiles=1)
    asked = ((2, "a", 1), (3, "a", 1), (4, "a", 1), (5, "a", 2), (6, "b", 1), (7, "a", 1))

    async def ask() -> None:
        first = asyncio.create_task(bench.batcher.do(Job(1), client="a", request=1))
        await asyncio.to_thread(bench.held.inside.acquire)
        others = [
            asyncio.create_task(bench.batcher.do(Job(tiles), client=client, request=request))
            for tiles, client, request in asked
        ]
        await asyncio.sleep(0)
        others[2].cancel()
        await asyncio.wait(others[2:3])
        bench.held.go.set()
        await asyncio.gather(first, *others, return_exceptions=True)

    asyncio.run(ask())
    assert bench.batches == [[1], [2], [6], [5], [3], [7]]


def test_what_nobody_waits_for_any_more_is_not_computed_to_its_end() -> None:
    begun, gone, ended = threading.Event(), threading.Event(), []

    def compute(jobs: Sequence[Job]) -> None:
        batcher.alive()
        begun.set()
        assert gone.wait(20)
        try:
            batcher.alive()
        except BaseException as error:
            ended.append(type(error))
            raise

    batcher: Batcher[Job] = Batcher(lambda job: job.tiles, compute)

    async def leave() -> None:
        one = asyncio.create_task(batcher.do(Job(1)))
        await asyncio.to_thread(begun.wait, 20)
        one.cancel()
        await asyncio.wait([one])
        gone.set()
        await batcher.do(Job(2))

    asyncio.run(leave())
    assert ended == [GoneError]


def test_one_that_cannot_be_read_fails_alone() -> None:
    bench = Bench()
    first, bad, good = bench.do(1, -1, 2)
    assert (first, str(bad), good) == (None, "no image", None)
    assert bench.batches == [[1], [2]]


def test_a_fault_reaches_all_of_its_batch_and_the_next_is_computed() -> None:
    bench = Bench()
    said = bench.do(1, 1, 99, 2)
    assert [str(one) for one in said] == ["None", "a fault", "a fault", "None"]
    assert bench.batches == [[1], [1, 99], [2]]


def test_what_would_end_a_process_does_not_end_the_thread() -> None:
    bench = Bench()
    bench.fault = SystemExit("a library gives up")
    said = bench.do(1, 99, 2)
    assert [str(one) for one in said] == ["None", "SystemExit: a library gives up", "None"]


@pytest.mark.slow
def test_those_who_went_away_are_not_computed_and_hold_nothing() -> None:
    bench = Bench()

    async def leave() -> None:
        gone, stays = Job(5), Job(2)
        first = asyncio.create_task(bench.batcher.do(Job(1)))
        await asyncio.to_thread(bench.held.inside.acquire)
        left, stayed = asyncio.create_task(bench.batcher.do(gone)), asyncio.create_task(bench.batcher.do(stays))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.wait([left])
        held = weakref.ref(gone)
        del gone, left
        gc.collect()
        assert held() is None
        bench.held.go.set()
        await asyncio.gather(first, stayed)

    asyncio.run(leave())
    assert bench.batches == [[1], [2]]


def test_how_long_a_step_takes_is_known_though_nobody_waits_for_it() -> None:
    bench = Bench()
    assert bench.batcher.step_s() == 0

    async def leave() -> None:
        gone = asyncio.create_task(bench.batcher.do(Job(1)))
        await asyncio.to_thread(bench.held.inside.acquire)
        gone.cancel()
        await asyncio.wait([gone])
        assert bench.batcher.step_s() > 0
        bench.held.go.set()
        await bench.batcher.do(Job(2))

    asyncio.run(leave())
    assert bench.batcher.step_s() == 0


def test_it_goes_on_after_the_event_loop_of_one_who_waited_has_ended() -> None:
    bench = Bench()

    async def leave() -> None:
        gone = asyncio.create_task(bench.batcher.do(Job(1)))
        await asyncio.to_thread(bench.held.inside.acquire)
        gone.cancel()

    asyncio.run(leave())
    bench.held.go.set()

    async def come() -> None:
        await asyncio.wait_for(bench.batcher.do(Job(2)), 20)

    asyncio.run(come())
    assert bench.batches == [[1], [2]]


def test_jobs_are_computed_one_batch_after_the_other_whoever_asks() -> None:
    busy = threading.Lock()

    def compute(jobs: Sequence[Job]) -> None:
        assert busy.acquire(blocking=False), "another thread computes"
        time.sleep(1e-4)
        busy.release()

    batcher: Batcher[Job] = Batcher(lambda job: job.tiles, compute)

    async def many() -> None:
        await asyncio.gather(*(batcher.do(Job(1 + i % 3)) for i in range(200)))

    asyncio.run(many())


@pytest.mark.slow
def test_a_job_that_was_done_is_freed() -> None:
    batcher: Batcher[Job] = Batcher(lambda job: job.tiles, lambda jobs: None)

    async def use() -> "weakref.ref[Job]":
        job = Job(1)
        await batcher.do(job)
        return weakref.ref(job)

    job = asyncio.run(use())
    deadline = time.monotonic() + 20
    while job() is not None and time.monotonic() < deadline:  # the thread tells first, and then lets go
        gc.collect()
        time.sleep(0.01)
    assert job() is None


def test_an_error_of_reading_is_raised_where_it_was_asked() -> None:
    bench = Bench()
    with pytest.raises(ValueError, match="no image"):
        asyncio.run(bench.batcher.do(Job(-1)))
