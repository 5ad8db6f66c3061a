"""Name and count what images show, many at once, by Ray Data: the same models as in serving.

A Ray job, like `cellnet predict`:

    python -m pipelines predict IMAGE_OR_FOLDER... [--registry URI] [--out DIR] [--csv | --json]
"""

import hashlib
import math
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import cv2

from cellnet.errors import CellnetError, ConfigError
from cellnet.images import apart
from cellnet.images.channels import channels_of
from cellnet.images.file import ImageFile, Pages
from cellnet.images.quality import Flag
from cellnet.places import Places
from cellnet.prediction.answers import Prediction, combine
from cellnet.prediction.lineup import Lineup, answers, resolve_models, strangers
from cellnet.prediction.model import FrameModel
from cellnet.prediction.sources import ListedFile, list_files, notes_on_times, notes_on_wells, plate_names
from cellnet.registry.records import ModelVersion
from cellnet.registry.registry import Registry
from cellnet.reports.plates import soft_plates
from cellnet.reports.results import Results, Said, drawn_in, is_below
from cellnet.store.place import Place, PlaceLike, place_of
from pipelines import cluster
from pipelines.sending import chunks_of, spread

CHUNK_IMAGES: Final = 128
"""Images that a task takes at most: between two tasks a CPU waits a little for Ray Data."""
CHUNK_BYTES: Final = 8 * 2**20
"""Bytes of images that a task takes at most, if there are several of them: large frames hold many tiles."""
READERS: Final = 8
"""Images that a worker reads side by side, since a store far away answers slowly."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of every image."""

    registry: Registry
    models: Lineup[ModelVersion]
    pixel_um: float | None
    """Of all images, whatever they say of themselves."""
    page: Pages | None
    channel: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the answers: predictions under other settings are not of one table."""
        general = (self.models.classifier, self.models.regressor)
        named = {version.ref: version for version in general if version is not None}
        named |= {f"{version.ref} for {lineage}": version for lineage, version in self.models.by_lineage.items()}
        records = {name: version.model_dump_json().encode() for name, version in named.items()}
        models = {name: hashlib.sha256(record).hexdigest() for name, record in records.items()}
        channel = {"channel": self.channel} if self.channel else {}
        return {"models": models, "pixel_um": self.pixel_um, "page": self.page, **channel}


@dataclass(kw_only=True)
class Job:
    """Images to predict; `run` does it."""

    files: list[ListedFile]
    question: Question
    places: tuple[Place, ...]
    """That the images and models are read from."""
    results: Results | None
    kept: dict[str, list[int]]
    """The images that were done before, with what `results` knows them by."""
    notes: list[str] = field(default_factory=list)
    """What the names of the images leave open."""
    skipped: list[str] = field(default_factory=list)
    """Files in the folders that are no images."""
    control: str | None = None
    """The treatment that the growth of others is compared with."""
    done: int = 0
    """Those that were not, and that `run` has come to."""
    written: list[str] = field(default_factory=list)
    """The tables and pictures that it wrote, once it has ended."""
    growth: list[str] = field(default_factory=list)
    """How fast cells multiply, a line a condition, where wells were recorded over time."""
    soft: list[str] = field(default_factory=list)
    """A line a plate that is softer than the training frames, once it has ended."""
    as_sharp: set[str] = field(default_factory=set)
    """The images of such plates that are as sharp as the others of their plate, though not as the training frames."""

    def run(self) -> Generator[Prediction, None, None]:
        """A prediction an image (or a page), in order, as they are ready; a bad image gives one with its error.

        With a folder of results, what has come is kept there even where this is ended early.
        """
        fresh = self._fresh([file for file in self.files if file.key not in self.kept])
        plates = plate_names({file.folder for file in self.files if file.well})
        of_wells = list[tuple[str, str, float | None, list[Flag] | None]]()  # the folder of results knows them itself
        try:
            for file in self.files:
                rows = self.kept.get(file.key)
                if self.results and rows:
                    said = self.results.left(file, rows)
                else:
                    said = next(fresh)
                    self.done += 1
                if file.well and not self.results:
                    of_wells += [(plates[file.folder], one.image, one.focus, one.quality) for one in said]
                yield from said
            if self.results:
                self.written = self.results.finish(self.files, control=self.control)
                self.growth = self.results.series.lines
                soft, self.as_sharp = self.results.soft, self.results.as_sharp
            else:
                soft = soft_plates((plate, focus, flags) for plate, _, focus, flags in of_wells)
                self.as_sharp = {of_wells[place][1] for plate in soft for place in plate.as_sharp}
            self.soft = [plate.words for plate in soft]
        finally:
            if self.results:
                self.results.flush()

    def _fresh(self, files: list[ListedFile]) -> Iterator[list[Prediction]]:
        """What the models say of each image, in order."""
        if not files:
            return
        cluster.connect(*self.places)
        most = min(CHUNK_IMAGES, math.ceil(len(files) / cluster.blocks(len(files))))
        chunks = list(chunks_of(files, most=most, most_bytes=CHUNK_BYTES, bytes_of=lambda file: file.size))
        answers_of: Iterator[list[Said] | CellnetError] = spread(
            chunks, _images_of, _send_all, _answer_all, blocks=len(chunks), question=self.question
        )
        for said in answers_of:
            if isinstance(said, CellnetError):
                raise said
            if self.results:
                self.results.add(said)
            yield from (predictions for _, predictions in said)


def prepare(
    given: Sequence[PlaceLike],
    places: Places,
    *,
    classifier: str | None = None,
    regressor: str | None = None,
    pixel_um: float | None = None,
    page: Pages | None = None,
    channel: str | None = None,
    well_pattern: str | None = None,
    hours_between: float | None = None,
    layout: PlaceLike | None = None,
    control: str | None = None,
    out: PlaceLike | None = None,
    overwrite: bool = False,
) -> Job:
    """The job of predicting images, folders, Harmony exports, manifests and s3://bucket/prefix.

    Wells are read from names, or by the regular expression `well_pattern`; times by `hours_between` where names number
    their frames, treatments from the table `layout`, of which `control` may be one. With `out`, a folder or s3://bucket/prefix,
    results are kept there, and those of before are used. Raises for images or models that are not there, and
    ConfigError where `out` holds predictions under other settings, and for a control that is no treatment.
    """
    drawn = drawn_in(out) if out else ()
    skipped: list[str] = []
    files = list_files(
        given, channel=channel, page=page, well_pattern=well_pattern, hours_between=hours_between, layout=layout,
        but=drawn, skipped=skipped,
    )  # fmt: skip
    _check_control(control, files)
    if out:
        skipped = [name for name in skipped if not is_below(name, out)]
    registry = places.open_registry()
    models = resolve_models(registry, classifier, regressor)
    question = Question(registry=registry, models=models, pixel_um=pixel_um, page=page, channel=channel)
    results = Results.open(out, question.settings, overwrite=overwrite) if out else None
    kept = results.done(files) if results else {}
    pair = strangers(models.classifier, models.regressor)
    notes = [*notes_on_wells(files, well_pattern), *notes_on_times(files), *([pair] if pair else [])]
    used = (*places.named, *(place for place in map(place_of, given) if place.is_on_s3))
    return Job(
        files=files, question=question, places=used, results=results, kept=kept, notes=notes, skipped=skipped,
        control=control,
    )  # fmt: skip


def _check_control(control: str | None, files: Sequence[ListedFile]) -> None:
    """Raise ConfigError for a control that was done to no well."""
    treatments = sorted({file.condition.treatment for file in files if file.condition.treatment})
    if control is not None and control not in treatments:
        known = f"treatments are {', '.join(treatments)}" if treatments else "none is known; --layout tells treatments"
        raise ConfigError(f"--control {control!r} is the treatment of no well; {known}")


def predict(given: Sequence[PlaceLike], places: Places, **options: Any) -> Iterator[Prediction]:
    """The predictions of the job that `prepare` makes of the same arguments."""
    return prepare(given, places, **options).run()


def _images_of(file: ListedFile) -> list[ImageFile]:
    return [file.image]


def _send_all(files: Sequence[ListedFile]) -> list[ImageFile | CellnetError]:
    """The images, for a machine that does not see them."""
    with ThreadPoolExecutor(READERS) as pool:
        return [_sent(image) for image in pool.map(_read, files)]


def _sent(image: ImageFile | CellnetError) -> ImageFile | CellnetError:
    if isinstance(image, CellnetError) or isinstance(image.contents, bytes):
        return image
    return image.too_large_to_send()


def _answer_all(
    files: list[ListedFile], question: Question, sent: list[ImageFile | CellnetError] | None
) -> list[Said] | CellnetError:
    """What the models say of each of some images; of models that cannot be loaded, why."""
    cv2.setNumThreads(1)  # Ray runs a worker on every core already
    try:
        models = question.models.map(lambda version: cluster.load_once(question.registry, version))
    except CellnetError as error:
        return error
    with ThreadPoolExecutor(READERS) as pool:
        images = iter(sent) if sent is not None else pool.map(_read, files)
        said = [list(_answers(models, *pair, question)) for pair in zip(files, images, strict=True)]
    return list(zip(files, said, strict=True))


def _read(file: ListedFile) -> ImageFile | CellnetError:
    try:
        return file.read()
    except CellnetError as error:
        return error


def _answers(
    models: Lineup[FrameModel], file: ListedFile, image: ImageFile | CellnetError, question: Question
) -> Iterator[Prediction]:
    """What the models say of each chosen page of a file, or what is wrong with it."""
    if isinstance(image, CellnetError):
        yield Prediction(image=file.name, error=str(image).removeprefix(f"{file.image.name}: "))
        return
    try:
        pages = apart.opened(image).pages(question.page)
    except CellnetError as error:
        yield Prediction(image=file.name, error=str(error), channels=channels_of(error))
        return
    for page in pages:
        shown = f"{file.name}{page.mark}"
        try:
            pixel_um = question.pixel_um or file.pixel_um or page.pixel_um
            yield combine(shown, answers(models, apart.decode(page), pixel_um=pixel_um))
        except CellnetError as error:
            yield Prediction(image=shown, error=str(error))
