"""From the bytes of an image, or its pixels, to a prediction by the models that are served now."""

import asyncio
import contextlib
import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from cellnet.errors import DataError
from cellnet.images import apart
from cellnet.images.channels import channels_of
from cellnet.images.file import ImageFile, Pages
from cellnet.images.pixels import Pixels
from cellnet.images.scale import MAX_RESCALE
from cellnet.prediction.answers import Answer, Prediction, Timing, combine
from cellnet.prediction.lineup import Cuts, Lineup
from cellnet.prediction.model import Cut
from serve.batching import MOST_TILES, Batcher
from serve.limits import Limits
from serve.meters import Meters
from serve.models import Served, Shelf
from serve.thumbnails import thumbnail

Challenge = float | Literal["shadow"]
"""Share of requests that challengers answer; or none, while they see what the champions answer."""

SMALL: Final = apart.SMALL_PX
"""Pixels of an image that is read at once; larger ones wait for each other, and nobody for them."""
STUCK_S: Final = 60.0
"""How long one step of a thread may take, to read an image or to compute a batch of tiles, in a process that is well;
or as long as a request may last, where that is more.
"""
SHADOWS: Final = 8
"""Images that challengers look at in the shadow at a time; more are not looked at."""


@dataclass(eq=False)
class Room:
    """Images that a request may still have: whole files, or the chosen pages of them."""

    left: int

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def take(self, images: int) -> bool:
        """Whether so many are still taken, which then are."""
        with self._lock:
            if images > self.left:
                return False
            self.left -= images
            return True


@dataclass(frozen=True, eq=False)
class How:
    """What is the same for every image of a request."""

    models: Lineup[Served]
    room: Room
    shadows: Lineup[Served] = field(default_factory=Lineup)
    """Who only look."""
    pixel_um: float | None = None
    page: Pages | None = None
    channel: str | None = None
    thumbnails: bool = False
    """Whether a small picture comes with each prediction."""
    client: str = ""
    """Who asks: clients take turns, and so do the requests of each."""


@dataclass(frozen=True)
class _Large:
    """An image that is not read at once, by its header."""

    pages: list[ImageFile]


@dataclass(eq=False)
class _Job:
    """An image on its way through the thread that reads it and runs the models."""

    name: str
    how: How
    read: Callable[[], Cuts | _Large]
    cuts: Cuts | None = None
    large: _Large | None = None
    thumbnail: str | None = None
    answers: list[Answer] = field(default_factory=list)
    error: DataError | None = None
    """What the frame is not usable for, of a model that saw it after another."""
    started: float = field(default_factory=time.perf_counter)
    reading_s: float = 0
    done: float = 0

    @property
    def lineage(self) -> str | None:
        """What the classifier named."""
        return self.answers[0].lineage if self.answers else None

    def prediction(self) -> Prediction:
        """What the models said."""
        total_s = self.done - self.started
        spans = {"read_ms": self.reading_s, "models_ms": total_s - self.reading_s, "total_ms": total_s}
        timing = Timing(**{span: round(1e3 * seconds, 2) for span, seconds in spans.items()})
        return combine(self.name, self.answers).model_copy(update={"timing": timing, "thumbnail": self.thumbnail})


class Answerer:
    """The models of a shelf, the threads that they run on, and the limits that hold for them."""

    def __init__(self, shelf: Shelf, limits: Limits, meters: Meters, challenge: Challenge = 0.0) -> None:
        self.shelf = shelf
        self.limits = limits
        self.meters = meters
        self._challenge = challenge
        self._small: Batcher[_Job] = Batcher(self._read, lambda jobs: self._compute(jobs, self._small.alive))
        self._large: Batcher[_Job] = Batcher(  # one at a time: they fill the memory
            self._read, lambda jobs: self._compute(jobs, self._large.alive), most_tiles=1
        )
        self._shadows: set[asyncio.Task[None]] = set()

    def how(
        self,
        request_id: str,
        *,
        pixel_um: float | None = None,
        page: Pages | None = None,
        channel: str | None = None,
        thumbnails: bool = False,
        client: str = "",
    ) -> How:
        """Who answers a request: one that is sent again gets the same, while the shelf stays as it is."""
        champions, challengers, room = self.shelf.champions, self.shelf.challengers, Room(self.limits.images)
        if self._challenge == "shadow":
            return How(champions, room, challengers, pixel_um, page, channel, thumbnails, client)
        drawn = int.from_bytes(hashlib.sha256(request_id.encode()).digest()[:4]) / 2**32
        if drawn < self._challenge:
            champions = replace(
                champions,
                classifier=challengers.classifier or champions.classifier,
                regressor=challengers.regressor or champions.regressor,
                by_lineage={**champions.by_lineage, **challengers.by_lineage},
            )
        return How(champions, room, pixel_um=pixel_um, page=page, channel=channel, thumbnails=thumbnails, client=client)

    def check(self) -> None:
        """Raise RuntimeError where a thread does not come back from what it reads or computes."""
        step_s = max(self._small.step_s(), self._large.step_s())
        if step_s > max(self.limits.seconds, STUCK_S):
            raise RuntimeError(f"an image has been read or computed for {step_s:.0f} s")

    async def predict(self, image: ImageFile, how: How) -> list[Prediction]:
        """What the models say of an image, or of each chosen page. Raises DataError, naming the image."""
        job = _Job(image.name, how, lambda: self._seen(image, how))
        with self._counted():
            await self._do(self._small if apart.is_plain(image) else self._large, job)
            if job.large is None:
                return [self._told(job)]
            return [await self._page(page, job) for page in job.large.pages]

    async def _page(self, page: ImageFile, seen: _Job) -> Prediction:
        name = f"{page.name}{page.mark}"
        job = _Job(name, seen.how, lambda: self._decoded(page, seen.how), started=seen.started)
        await self._do(self._large, job)
        seen.started = time.perf_counter()
        return self._told(job)

    async def predict_pixels(self, image_HW: Pixels, name: str, how: How) -> Prediction:
        """The same of pixels. Raises DataError, naming the image."""
        job = _Job(name, how, lambda: Cuts(image_HW, how.pixel_um))
        with self._counted():
            self._check_size(name, image_HW.size, how.pixel_um, how)
            small = _scaled(image_HW.size, how.pixel_um, how) <= SMALL
            await self._do(self._small if small else self._large, job)
            return self._told(job)

    async def pixels(self, image: ImageFile, how: How) -> tuple[Pixels, float | None]:
        """The one plane of an image that would be counted, and its µm a pixel, by turns as all are.

        Raises DataError, naming the image.
        """
        job = _Job(image.name, replace(how, models=Lineup(), shadows=Lineup()), lambda: self._seen(image, how))
        await self._do(self._small if apart.is_plain(image) else self._large, job)
        if job.large is not None:
            if len(job.large.pages) != 1:
                raise DataError(f"{image.name}: holds {len(job.large.pages)} pages; choose one: page, a number")
            [page] = job.large.pages
            job = _Job(page.name, job.how, lambda: self._decoded(page, how))
            await self._do(self._large, job)
        assert job.cuts is not None
        return job.cuts.image_HW, job.cuts.pixel_um

    async def _do(self, batcher: Batcher[_Job], job: _Job) -> None:
        await batcher.do(job, client=job.how.client, request=job.how)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except DataError:
            self.meters.images.labels("not usable").inc()
            raise

    async def predict_or_say(self, image: ImageFile, how: How) -> list[Prediction]:
        """What the models say of an image, or what is wrong with it."""
        try:
            return await self.predict(image, how)
        except DataError as error:
            return [Prediction(image=image.name, error=str(error), channels=channels_of(error))]

    def _seen(self, image: ImageFile, how: How) -> Cuts | _Large:
        """An image by its header; a small one of one page is read at once."""
        pages = apart.opened(image).pages(how.page, how.channel)
        um = how.pixel_um or pages[0].pixel_um
        self._check_size(image.name, pages[0].pixels_n, um, how)
        if not how.room.take(len(pages)):
            raise DataError(
                f"{image.name}: with its {len(pages)} pages these are more than the {self.limits.images} images that "
                "are taken in a request; choose: page middle, or a number, or send fewer at a time"
            )
        if apart.is_small(pages[0]) and pages[0].page is None and _scaled(pages[0].pixels_n, um, how) <= SMALL:
            return Cuts(pages[0].decode(), um)
        return _Large(pages)

    def _decoded(self, page: ImageFile, how: How) -> Cuts:
        """A page, which may be larger than the first."""
        um = how.pixel_um or page.pixel_um
        image_HW = apart.decode(page, most=int(self.limits.megapixels * 1e6))
        self._check_size(page.name, image_HW.size, um, how)
        return Cuts(image_HW, um)

    def _check_size(self, name: str, pixels: int, um: float | None, how: How) -> None:
        """Raise DataError for an image that is too large, or would be at the magnification of the models."""
        limit = self.limits.megapixels
        if pixels > limit * 1e6:
            raise DataError(
                f"{name}: {pixels / 1e6:.1f} megapixels are more than the {limit:g} that are taken here; cut it first"
            )
        if (scaled := _scaled(pixels, um, how)) > limit * 1e6:
            raise DataError(
                f"{name}: at {um:g} µm a pixel it would be enlarged to {scaled / 1e6:.1f} megapixels, more than the "
                f"{limit:g} that are taken here; cut it first, or correct pixel_um"
            )

    def _read(self, job: _Job) -> int:
        """Read an image, and cut it for who sees it first; its tiles. Raises DataError, naming it."""
        started = time.perf_counter()
        read = job.read()
        if isinstance(read, _Large):
            job.large = read
            return 0
        job.cuts = read
        if job.how.thumbnails:
            job.thumbnail = thumbnail(read.image_HW)
        first = job.how.models.classifier or job.how.models.regressor
        try:
            tiles = len(read.of(first.model).tiles) if first else 0
            if first:
                read.of(first.model).measures  # noqa: B018 - here, beside the models' thread, and kept
        except DataError as error:
            raise DataError(f"{job.name}: {error}") from error
        job.reading_s = time.perf_counter() - started
        return tiles

    def _compute(self, jobs: Sequence[_Job], alive: Callable[[], None]) -> None:
        """Let the classifiers see all that were read, and then the counters of the lineages that they named."""
        jobs = [job for job in jobs if job.cuts]
        self._look(jobs, lambda job: job.how.models.classifier, alive)
        self._look(jobs, lambda job: job.how.models.counter_for(job.lineage), alive)
        for job in jobs:
            job.done = time.perf_counter()

    def _look(self, jobs: Sequence[_Job], choose: Callable[[_Job], Served | None], alive: Callable[[], None]) -> None:
        """Let each job's model see it, with all others of the same model."""
        by_model: dict[Served, list[tuple[_Job, Cut]]] = {}
        for job in jobs:
            if job.cuts and not job.error and (served := choose(job)):
                try:
                    cut = job.cuts.of(served.model)
                except DataError as error:
                    job.error = DataError(f"{job.name}: {error}")
                    continue
                by_model.setdefault(served, []).append((job, cut))
        for served, seen in by_model.items():
            started = time.perf_counter()
            cuts = [cut for _, cut in seen]
            outputs = served.model.predict_cuts(cuts, batch=MOST_TILES, before_each=alive)
            answers = [served.model.answer_of(output, cut.measures) for output, cut in zip(outputs, cuts, strict=True)]
            for (job, _), answer in zip(seen, answers, strict=True):
                job.answers.append(answer)
            self._count(served, answers, time.perf_counter() - started)

    def _count(self, served: Served, answers: Sequence[Answer], seconds: float) -> None:
        """What a model said, in the figures."""
        meters, labels = self.meters, (served.ref, served.alias)
        meters.batch_tiles.labels(served.ref).observe(sum(answer.tiles for answer in answers))
        meters.batch_seconds.labels(*labels).observe(seconds)
        meters.answers.labels(*labels).inc(len(answers))
        if strange := sum(answer.unfamiliar is True for answer in answers):
            meters.unfamiliar.labels(*labels).inc(strange)
        for lineage, many in Counter(answer.lineage for answer in answers if answer.lineage).items():
            meters.lineages.labels(served.ref, lineage).inc(many)

    def _told(self, job: _Job) -> Prediction:
        """The prediction of a job that is done, which the shadow may look at too. Raises DataError."""
        if job.error:
            raise job.error
        self.meters.images.labels("answered").inc()
        self._shadow(job)
        prediction = job.prediction()
        for flag in prediction.quality or ():
            self.meters.quality.labels(flag).inc()
        return prediction

    def _shadow(self, job: _Job) -> None:
        """Let challengers look at what was answered, after it was; but not at large images, which others wait for."""
        shadows, lineage = job.how.shadows, job.lineage or ""
        counter = shadows.by_lineage.get(lineage) if lineage in job.how.models.by_lineage else shadows.regressor
        challengers = [served for served in (shadows.classifier, counter) if served]
        if not challengers or not job.cuts:
            return
        if job.answers[0].tiles > MOST_TILES or len(self._shadows) >= SHADOWS:
            self.meters.shadow_missed.labels("busy" if len(self._shadows) >= SHADOWS else "large").inc()
            return
        task = asyncio.create_task(self._compare(job, job.cuts, challengers))
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)

    async def _compare(self, seen: _Job, cuts: Cuts, challengers: Sequence[Served]) -> None:
        champions = {answer.task: answer for answer in seen.answers}
        for served in challengers:
            job = _Job(seen.name, How(served.alone, seen.how.room), lambda: cuts)
            try:
                await self._do(self._small, job)
                [answer] = job.answers
            except Exception as error:  # it hurts nobody
                self.meters.shadow_missed.labels(type(error).__name__).inc()
                continue
            champion = champions.get(answer.task)
            if champion and answer.lineage:
                same = str(champion.lineage == answer.lineage).lower()
                self.meters.shadow_lineages.labels(served.ref, same).inc()
            elif champion and answer.count is not None and champion.count is not None:
                self.meters.shadow_cells.labels(served.ref).observe(abs(answer.count - champion.count))


def _scaled(pixels: int, um: float | None, how: How) -> float:
    """Pixels of an image at the magnification of the models that see it."""
    trained_um = [served.version.card.preprocess.pixel_um for served in how.models]
    factors = [min(um / model_um, MAX_RESCALE) for model_um in trained_um if um and model_um]
    return max((pixels * factor**2 for factor in factors), default=float(pixels))
