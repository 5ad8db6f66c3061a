"""From the bytes of an image, or its pixels, to a prediction by the models that are served now."""

import asyncio
import functools
import hashlib
import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from cellnet.answers import Answer, Prediction, Timing, combine
from cellnet.errors import DataError
from cellnet.images import Pages, choose_pages, decode, pixel_size_um, pixels_n
from cellnet.lineup import Cuts, Lineup
from serve.limits import Gate, Limits
from serve.meters import Meters
from serve.shelf import Served, Shelf
from serve.uploads import Upload

Result = TypeVar("Result")
Challenge = float | Literal["shadow"]
"""Share of requests that challengers answer; or none, while they see what the champions answer."""

SMALL: Final = 2_000_000
"""Pixels of an image that is decoded without asking whether there is room."""
SHADOWS: Final = 8
"""Images that challengers look at in the shadow at a time; more are not looked at."""


@dataclass(frozen=True, eq=False)
class How:
    """What is the same for every image of a request."""

    models: Lineup[Served]
    shadows: Lineup[Served] = field(default_factory=Lineup)
    """Who only look."""
    pixel_um: float | None = None
    page: Pages | None = None


class _Seen(NamedTuple):
    """What is known of an image."""

    um: float | None
    pages: list[int | None]
    pixels: int
    cuts: Cuts | None
    """Its tiles, of a small image."""


class Answerer:
    """The models of a shelf, the threads that they run on, and the limits that hold for them."""

    def __init__(
        self, shelf: Shelf, pool: ThreadPoolExecutor, limits: Limits, meters: Meters, challenge: Challenge = 0.0
    ) -> None:
        self.shelf = shelf
        self.limits = limits
        self.meters = meters
        self._pool = pool
        self._challenge = challenge
        self._gate = Gate(limits.decoded_megapixels * 1e6)
        self._shadows: set[asyncio.Task[None]] = set()

    def how(self, request_id: str, *, pixel_um: float | None = None, page: Pages | None = None) -> How:
        """Who answers a request: one that is sent again gets the same, while the shelf stays as it is."""
        champions, challengers = self.shelf.champions, self.shelf.challengers
        if self._challenge == "shadow":
            return How(champions, challengers, pixel_um, page)
        drawn = int.from_bytes(hashlib.sha256(request_id.encode()).digest()[:4]) / 2**32
        if drawn < self._challenge:
            champions = replace(
                champions,
                classifier=challengers.classifier or champions.classifier,
                regressor=challengers.regressor or champions.regressor,
            )
        return How(champions, pixel_um=pixel_um, page=page)

    async def predict(self, upload: Upload, how: How) -> list[Prediction]:
        """What the models say of an image, or of each chosen page. Raises DataError, naming the image."""
        started = time.perf_counter()
        seen = await self._in_thread(functools.partial(self._seen, upload, how))
        if seen.cuts:
            return [await self._predicted(upload.name, upload.name, seen.cuts, how, started)]
        predictions = []
        for page in seen.pages:
            async with self._gate.hold(seen.pixels):
                cuts = await self._in_thread(functools.partial(self._read, upload, page, seen.um, how.models))
                name = upload.name if page is None else f"{upload.name}#{page}"
                predictions.append(await self._predicted(name, upload.name, cuts, how, started))
            started = time.perf_counter()
        return predictions

    async def predict_pixels(self, image_HW: NDArray[np.uint8] | NDArray[np.uint16], name: str, how: How) -> Prediction:
        """The same of pixels. Raises DataError, naming the image."""
        started = time.perf_counter()
        async with self._gate.hold(image_HW.size):
            cuts = await self._in_thread(lambda: self._cut(image_HW, name, how.pixel_um, how.models))
            return await self._predicted(name, name, cuts, how, started)

    async def predict_or_say(self, upload: Upload, how: How) -> list[Prediction]:
        """What the models say of an image, or what is wrong with it."""
        try:
            return await self.predict(upload, how)
        except DataError as error:
            return [Prediction(image=upload.name, error=str(error))]

    def _seen(self, upload: Upload, how: How) -> "_Seen":
        """An image by its header; a small one of one page is read at once."""
        pixels = pixels_n(upload.data)
        if pixels > self.limits.megapixels * 1e6:
            raise DataError(
                f"{upload.name}: {pixels / 1e6:.1f} megapixels are more than the {self.limits.megapixels:g} that are "
                "taken here; cut it first"
            )
        pages = choose_pages(io.BytesIO(upload.data), how.page, name=upload.name)
        if len(pages) > self.limits.images:
            raise DataError(
                f"{upload.name}: {len(pages)} pages are more than the {self.limits.images} that are taken in a "
                "request; choose: page middle, or a number"
            )
        um = how.pixel_um or pixel_size_um(upload.data)
        cuts = self._read(upload, None, um, how.models) if pages == [None] and pixels <= SMALL else None
        return _Seen(um, pages, pixels, cuts)

    def _read(self, upload: Upload, page: int | None, um: float | None, models: Lineup[Served]) -> Cuts:
        """An image decoded, and cut for the models that see it first."""
        return self._cut(decode(upload.data, name=upload.name, page=page), upload.name, um, models)

    def _cut(
        self, image_HW: NDArray[np.uint8] | NDArray[np.uint16], name: str, um: float | None, models: Lineup[Served]
    ) -> Cuts:
        cuts = Cuts(image_HW, um)
        for served in (models.classifier, models.regressor):
            if served:
                _ready(cuts, served, name)
        return cuts

    async def _predicted(self, name: str, image: str, cuts: Cuts, how: How, started: float) -> Prediction:
        read = time.perf_counter()
        answers = await self._asked(cuts, image, how.models)
        done = time.perf_counter()
        self.meters.images.labels("answered").inc()
        self._shadow(cuts, image, how.shadows, answers)
        spans = {"read_ms": read - started, "models_ms": done - read, "total_ms": done - started}
        timing = Timing(**{span: round(1e3 * seconds, 2) for span, seconds in spans.items()})
        return combine(name, answers).model_copy(update={"timing": timing})

    async def _asked(self, cuts: Cuts, image: str, models: Lineup[Served]) -> list[Answer]:
        """What the classifier and the counter of its lineage say: at once, where there is but one counter."""
        first = [served for served in (models.classifier, models.regressor) if served]
        if not models.by_lineage:
            return list(await asyncio.gather(*(self._answer(served, cuts) for served in first)))
        said = [await self._answer(models.classifier, cuts)] if models.classifier else []
        counter = models.counter_for(said[0].lineage if said else None)
        if counter:
            await self._in_thread(lambda: _ready(cuts, counter, image))
            said.append(await self._answer(counter, cuts))
        return said

    async def _answer(self, served: Served, cuts: Cuts) -> Answer:
        started = time.perf_counter()
        batcher = served.batcher
        answer = batcher.model.answer_of(await batcher.predict(cuts.of(batcher.model)))
        labels = (served.ref, served.alias)
        self.meters.answers.labels(*labels).inc()
        self.meters.model_seconds.labels(*labels).observe(time.perf_counter() - started)
        if answer.unfamiliar:
            self.meters.unfamiliar.labels(*labels).inc()
        if answer.lineage:
            self.meters.lineages.labels(served.ref, answer.lineage).inc()
        return answer

    def _shadow(self, cuts: Cuts, image: str, shadows: Lineup[Served], answers: list[Answer]) -> None:
        """Let challengers look at what was answered, after it was."""
        if not list(shadows):
            return
        if len(self._shadows) >= SHADOWS:
            self.meters.shadow_missed.labels("busy").inc()
            return
        task = asyncio.create_task(self._compare(cuts, image, shadows, answers))
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)

    async def _compare(self, cuts: Cuts, image: str, shadows: Lineup[Served], answers: list[Answer]) -> None:
        said = {answer.task: answer for answer in answers}
        for served in shadows:
            try:
                await self._in_thread(functools.partial(_ready, cuts, served, image))
                answer = await self._answer(served, cuts)
            except Exception as error:  # it hurts nobody
                self.meters.shadow_missed.labels(type(error).__name__).inc()
                continue
            champion = said.get(answer.task)
            if champion and answer.lineage:
                same = str(champion.lineage == answer.lineage).lower()
                self.meters.shadow_lineages.labels(served.ref, same).inc()
            elif champion and answer.count is not None and champion.count is not None:
                self.meters.shadow_cells.labels(served.ref).observe(abs(answer.count - champion.count))

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _ready(cuts: Cuts, served: Served, name: str) -> None:
    """Have a frame cut for a model, and its grey values described if that is asked. Raises DataError, naming it."""
    try:
        cut = cuts.of(served.batcher.model)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    if served.batcher.model.familiarity is not None:
        _ = cut.grey_NG
