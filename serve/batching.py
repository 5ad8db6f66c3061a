"""Tiles of many requests, given to a network together.

Not Ray Serve's `@serve.batch`: that keeps a task for ever, so that no model that was replaced would be freed, and
refuses a frame of more tiles than a batch.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellnet.frames import Cut, FrameModel, FramePrediction

MOST_TILES: Final = 16
"""In one batch: of more, a CPU does not make more a second, and others wait."""

Tiles = list[NDArray[np.uint8]]
Seen = tuple[NDArray[np.float32], NDArray[np.float32] | None]


class _Waiting(NamedTuple):
    tiles: Tiles
    seen: asyncio.Future[Seen]


class Batcher:
    """What waits for one model, in the order of arrival. A batch is all that came while the one before was computed.

    As many batches are computed at a time as there are threads, each on one of them; a lone image waits for nobody.
    """

    def __init__(
        self,
        model: FrameModel,
        pool: ThreadPoolExecutor,
        *,
        threads: int,
        on_batch: Callable[[int], None] = lambda tiles: None,
    ) -> None:
        self.model = model
        self._pool = pool
        self._free = threads
        self._waiting: deque[_Waiting] = deque()
        self._on_batch = on_batch
        self._running: set[asyncio.Task[None]] = set()

    async def predict(self, cut: Cut) -> FramePrediction:
        """What the model says of a frame that is cut for it."""
        parts = [cut.tiles[start : start + MOST_TILES] for start in range(0, len(cut.tiles), MOST_TILES)]
        seen = await asyncio.gather(*(self._look(part) for part in parts))
        features = [features_NC for _, features_NC in seen if features_NC is not None]
        return self.model.predicted(
            cut, np.concatenate([outputs for outputs, _ in seen]), np.concatenate(features) if features else None
        )

    async def _look(self, tiles: Tiles) -> Seen:
        seen: asyncio.Future[Seen] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(tiles, seen))
        self._start()
        return await seen

    def _start(self) -> None:
        """Compute what waits, on the threads that are free."""
        while self._free and (batch := self._next()):
            self._free -= 1
            task = asyncio.create_task(self._compute(batch))
            self._running.add(task)  # or nobody would hold it
            task.add_done_callback(self._running.discard)

    def _next(self) -> list[_Waiting]:
        """The first of those that wait, up to a batch; those who went away are left out."""
        batch: list[_Waiting] = []
        tiles = 0
        while self._waiting and tiles + len(self._waiting[0].tiles) <= MOST_TILES:
            one = self._waiting.popleft()
            if not one.seen.done():
                batch.append(one)
                tiles += len(one.tiles)
        return batch

    async def _compute(self, batch: list[_Waiting]) -> None:
        try:
            tiles = [tile for one in batch for tile in one.tiles]
            self._on_batch(len(tiles))
            outputs, features_NC = await asyncio.get_running_loop().run_in_executor(self._pool, self._run, tiles)
            start = 0
            for one in batch:
                part = slice(start, start := start + len(one.tiles))
                if not one.seen.done():
                    one.seen.set_result((outputs[part], None if features_NC is None else features_NC[part]))
        except Exception as error:
            for one in batch:
                if not one.seen.done():
                    one.seen.set_exception(error)
        finally:
            self._free += 1
            self._start()

    def _run(self, tiles: Tiles) -> Seen:
        return self.model.look(tiles, with_features=self.model.familiarity is not None)
