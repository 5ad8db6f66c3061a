"""Tiles of many requests, given to a model together."""

import asyncio
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cellnet.frames import Cut, FramePrediction
from cellnet.images import Box
from cellnet.registry import Registry
from serve.batching import MOST_TILES, Batcher
from tests.serving import Held, Known, publish


@pytest.fixture
def known(tmp_path: Path) -> Known:
    registry = Registry.open(str(tmp_path))
    return Known(registry.resolve(publish(registry, "count")))


def cut(tiles: int) -> Cut:
    return Cut(
        tiles=[np.zeros((200, 200), np.uint8)] * tiles,
        boxes=[Box(0, 0, 200, 200)] * tiles,
        factor=1,
        magnification="assumed",
    )


def run(known: Known, sizes: list[int], *, threads: int = 1, held: Held | None = None) -> list[FramePrediction]:
    """Predictions of frames of so many tiles, of which the first holds the model until all others wait."""

    async def all_of_them() -> list[FramePrediction]:
        with ThreadPoolExecutor(threads) as pool:
            batcher = Batcher(known, pool, threads=threads)
            first = asyncio.create_task(batcher.predict(cut(sizes[0])))
            if held:
                await asyncio.to_thread(held.inside.acquire)
            others = [asyncio.create_task(batcher.predict(cut(tiles))) for tiles in sizes[1:]]
            await asyncio.sleep(0)
            if held:
                held.go.set()
            return list(await asyncio.gather(first, *others))

    return asyncio.run(all_of_them())


def test_what_comes_while_a_batch_is_computed_is_the_next_batch(known: Known) -> None:
    held = Held()
    known.wait = held
    said = run(known, [1] * 11, held=held)
    assert known.batches == [1, 10]
    assert [one.count for one in said] == [1] * 11


def test_a_batch_has_no_more_than_so_many_tiles_and_nobody_is_overtaken(known: Known) -> None:
    held = Held()
    known.wait = held
    said = run(known, [1, 10, 10, 1], held=held)
    assert known.batches == [1, 10, 11]
    assert [len(one.tile_outputs) for one in said] == [1, 10, 10, 1]


def test_a_frame_of_many_tiles_is_computed_in_parts_on_all_threads(known: Known) -> None:
    both = threading.Barrier(2, timeout=20)
    known.wait = both.wait  # passes only where two are computed at a time
    [said] = run(known, [4 * MOST_TILES], threads=2)
    assert known.batches == [MOST_TILES] * 4
    assert said.count == 4 * MOST_TILES


def test_a_fault_reaches_all_of_its_batch_and_the_next_is_computed(known: Known) -> None:
    def fail() -> None:
        known.wait = lambda: None
        raise RuntimeError("a fault")

    known.wait = fail

    async def twice() -> float:
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(known, pool, threads=1)
            with pytest.raises(RuntimeError, match="a fault"):
                await batcher.predict(cut(1))
            return (await batcher.predict(cut(2))).count

    assert asyncio.run(twice()) == 2


def test_those_who_went_away_are_not_computed(known: Known) -> None:
    async def leave() -> None:
        held = Held()
        known.wait = held
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(known, pool, threads=1)
            first = asyncio.create_task(batcher.predict(cut(1)))
            await asyncio.to_thread(held.inside.acquire)
            left, stayed = (asyncio.create_task(batcher.predict(cut(tiles))) for tiles in (5, 2))
            await asyncio.sleep(0)
            left.cancel()
            await asyncio.sleep(0)
            held.go.set()
            await asyncio.gather(first, stayed)

    asyncio.run(leave())
    assert known.batches == [1, 2]


def test_a_model_that_was_replaced_is_freed(known: Known) -> None:
    async def use() -> "weakref.ref[Known]":
        model = Known(known_version)
        with ThreadPoolExecutor(1) as pool:
            await Batcher(model, pool, threads=1).predict(cut(3))
        return weakref.ref(model)

    known_version = type("Version", (), {"ref": known.ref, "card": known.card, "number": 1})()
    model = asyncio.run(use())
    gc.collect()
    assert model() is None
