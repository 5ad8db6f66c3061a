"""A counter fitted to a new plate by a few counted frames of it, and published as a child of what it was."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cellnet.bank.frames import digest_of_pixels
from cellnet.certainty.familiarity import FAMILIARITY, with_plate
from cellnet.certainty.recount import CountedTiles, fit_recount
from cellnet.errors import ConfigError, DataError
from cellnet.evaluation.metrics import counting, covered
from cellnet.images.file import Pages
from cellnet.images.pixels import Pixels
from cellnet.prediction.export import compare, to_onnx
from cellnet.prediction.model import FrameOutputs
from cellnet.prediction.predictor import Predictor
from cellnet.prediction.sources import ListedFile, list_files
from cellnet.readers import number_of, read_csv
from cellnet.readers.matching import Names
from cellnet.registry.learned import Learned, frames_to_bytes, learned_of
from cellnet.registry.records import ANSWERS, LEARNED, NEW_ANSWERS, ONNX, CountedFrame, ModelVersion, Recount
from cellnet.registry.registry import Registry
from cellnet.store.paths import AnyPath
from cellnet.store.place import PlaceLike, place_of
from cellnet.untrusted import WEIGHTS

FEWEST_FRAMES: Final = 3
"""Of fewer, no scale and spread can be told apart."""
FEWEST_WITH_CELLS: Final = 2
"""Each frame is also counted by a fit to the others."""
COMPARED: Final = 8
"""Tiles on which the ONNX export is compared with torch."""
STRAYS_SHOWN: Final = 3
"""Rows of a table that mean no frame, named one by one."""
DOUBTED: Final = 2.0
"""Half-widths of its interval beyond which a frame's count contradicts those of the others."""


@dataclass(frozen=True, kw_only=True)
class SeenFrame:
    """A counted frame, and what a network says of its tiles, nothing being fitted."""

    image: str
    sha256: str
    truth: float
    tiles: list[NDArray[np.uint8]]
    outputs: FrameOutputs


@dataclass(frozen=True, kw_only=True)
class ToldFrame:
    """What a model says of a counted frame."""

    truth: float
    count: float
    interval: tuple[float, float] | None
    unfamiliar: bool | None


@dataclass(frozen=True, kw_only=True)
class Recounted:
    """What came of it."""

    version: ModelVersion
    """The child."""
    frames: list[dict[str, Any]]
    """A row a frame: `image`, `counted`, what was said `before`, and by a fit to the other frames `after`, from `low`
    to `high`."""
    doubted: list[str]
    """A line for each frame whose count the others contradict."""


def recount(
    ref: str,
    given: Sequence[PlaceLike],
    table: AnyPath,
    registry: Registry,
    *,
    pixel_um: float | None = None,
    page: Pages | None = None,
    channel: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Recounted:
    """The next version of a counter: the same network, its counts fitted to the frames that a table counts.

    `given` are images and folders, as for `cellnet predict`; the table is a CSV with `image,count`. Raises ConfigError
    for a classifier, DataError for a table or frames that cannot be used, and what reading and publishing raise.
    """
    version = registry.resolve(ref)
    if version.card.task != "count":
        raise ConfigError(
            f"{version.ref} names lineages, and {table} has counts; give a counter, like regressor:champion"
        )
    registry.check_publish(version.name)
    files = list_files(given, channel=channel, page="all")  # which of the planes are meant, the table says
    counted, strays = counted_files(files, table, explicit=set(map(_place, given)))
    if strays:
        named = ", ".join(strays[:STRAYS_SHOWN]) + (" ..." if len(strays) > STRAYS_SHOWN else "")
        say(f"{table} has {len(strays)} rows with a count of no given frame: {named}")
    if len(counted) < len(files):
        say(f"{table} counts {len(counted)} of the {len(files)} given frames; the others are left alone")
    before = Predictor.load(registry, version.ref)
    frames = [_read(before, file, truth, pixel_um=pixel_um, page=page) for file, truth in counted]
    _check(frames, table)
    told_before = [tell(before, frame) for frame in frames]
    told_after = [tell(fitted(before, [*frames[:i], *frames[i + 1 :]]), one) for i, one in enumerate(frames)]
    done = Recount(
        frames=[CountedFrame(image=one.image, sha256=one.sha256, count=one.truth) for one in frames],
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        before=scores_of(told_before),
        after=scores_of(told_after),
    )
    return Recounted(
        version=_publish(registry, version, fitted(before, frames), frames, done),
        frames=[_row(*of) for of in zip(frames, told_before, told_after, strict=True)],
        doubted=[line for of in zip(frames, told_after, strict=True) for line in _doubts(*of, table)],
    )


def counted_files(
    files: Sequence[ListedFile], table: AnyPath, *, explicit: set[str]
) -> tuple[list[tuple[ListedFile, float]], list[str]]:
    """The files that a table counts, with their counts, and the rows of it that mean none, as they are written.

    Its images are named as those of an import's tables are (`cellnet.readers.matching`). The files at `explicit` places
    must be among those that are counted. Raises DataError.
    """
    rows = [row for row in read_csv(table, ("image", "count"), numbers=("count",)) if row["count"]]
    matches = Names(file.place for file in files).find_all(row["image"] for row in rows)
    by_place = {file.place: file for file in files}
    counts: dict[str, tuple[ListedFile, float]] = {}
    strays = []
    for row in rows:
        match = matches[row["image"]]
        if len(match.images) > 1:
            raise DataError(f"{table}: {match.why_not(row['image'])}")
        if match.one is None:
            strays.append(row["image"])
            continue
        file, count = by_place[match.one], number_of(row["count"])
        if count is None or count < 0:
            raise DataError(f"{table}: {row['image']} has the count {row['count']!r}; write the number of its cells")
        if file.place in counts:
            raise DataError(f"{table} counts {file.name} twice; leave one row of it")
        counts[file.place] = (file, count)
    if not counts:
        first = f"its first row is of {strays[0]!r}" if strays else "it has no counts"
        raise DataError(
            f"{table} counts none of the {len(files)} given frames ({first}, the first frame is {files[0].name}); "
            "write their file names and counts into its columns image,count"
        )
    for file in files:
        if file.place in explicit and file.place not in counts:
            raise DataError(f"{file.name} has no count in {table}; add a row image,count, or leave the frame out")
    if len(counts) < FEWEST_FRAMES:
        stray = f" (its row of {strays[0]!r} is of none of them)" if strays else ""
        raise DataError(
            f"{table} counts {len(counts)} of the given frames{stray}, too few to tell a plate by; "
            f"count {FEWEST_FRAMES} to 5 of them"
        )
    return list(counts.values()), strays


def see(predictor: Predictor, image_HW: Pixels, *, image: str, truth: float, pixel_um: float | None) -> SeenFrame:
    """A frame of known count, as the network sees it. Raises DataError, naming the image, as `predict` does."""
    raw = Predictor(predictor.ref, predictor.card.model_copy(update={"calibration": None}), predictor.network)
    try:
        cut = raw.cut(image_HW, pixel_um)
    except DataError as error:
        raise DataError(f"{image}: {error}") from error
    outputs = raw.predict_cut(cut, with_features=True)
    return SeenFrame(image=image, sha256=digest_of_pixels(image_HW), truth=truth, tiles=cut.tiles, outputs=outputs)


def fitted(before: Predictor, frames: Sequence[SeenFrame]) -> Predictor:
    """The same network with scale, offset, intervals and flag for the plate of these frames. Raises DataError."""
    tiles = [
        CountedTiles(truth=one.truth, count_N=one.outputs.tile_outputs, weight_N=one.outputs.weights_N)
        for one in frames
    ]
    features = [one.outputs.features_ND for one in frames if one.outputs.features_ND is not None]
    known = before.familiarity and with_plate(before.familiarity, features)
    card = before.card.model_copy(update={"calibration": fit_recount(tiles, before.calibration)})
    return Predictor(before.ref, card, before.network, known)


def tell(predictor: Predictor, frame: SeenFrame) -> ToldFrame:
    """What a model of the network that saw a frame says of it."""
    outputs = predictor.calibrated(frame.outputs)
    return ToldFrame(
        truth=frame.truth,
        count=outputs.count,
        interval=predictor.interval(outputs),
        unfamiliar=outputs.unfamiliar,
    )


def scores_of(told: Sequence[ToldFrame]) -> dict[str, float | None]:
    """What a model's counts of frames are worth: `n`, `mae`, `bias`, and shares `coverage` and `unfamiliar`."""
    scores = counting(np.array([one.truth for one in told]), np.array([one.count for one in told]))
    intervals = [one.interval for one in told if one.interval]
    flags = [one.unfamiliar for one in told if one.unfamiliar is not None]
    held = covered(np.array([one.truth for one in told if one.interval]), np.array(intervals)) if intervals else None
    return {
        **{name: scores[name] for name in ("n", "mae", "bias")},
        "coverage": None if held is None else float(held.mean()),
        "unfamiliar": float(np.mean(flags)) if flags else None,
    }


def _place(given: PlaceLike) -> str:
    """As a listed file says its place."""
    place = place_of(given)
    return place.uri if place.is_on_s3 else os.path.abspath(place.uri)


def _read(
    before: Predictor, file: ListedFile, truth: float, *, pixel_um: float | None, page: Pages | None
) -> SeenFrame:
    image = file.read()
    one, *others = image.pages(page)
    if others:
        raise DataError(
            f"{file.name}: a count is of one image, and it holds {1 + len(others)} pages; give --page NUMBER"
        )
    known_um = pixel_um or file.pixel_um or one.pixel_um
    return see(before, one.decode(), image=f"{file.image.name}{one.mark}", truth=truth, pixel_um=known_um)


def _check(frames: Sequence[SeenFrame], table: AnyPath) -> None:
    """Raise DataError for frames of which nothing can be learnt."""
    names: dict[str, str] = {}
    for one in frames:
        if one.sha256 in names:
            raise DataError(f"{names[one.sha256]} and {one.image} hold the same pixels; leave one of them out")
        names[one.sha256] = one.image
    if sum(one.truth > 0 for one in frames) < FEWEST_WITH_CELLS:
        raise DataError(
            f"{table} counts cells in fewer than {FEWEST_WITH_CELLS} of the given frames; add some with cells"
        )


def _publish(
    registry: Registry, parent: ModelVersion, predictor: Predictor, frames: Sequence[SeenFrame], done: Recount
) -> ModelVersion:
    """The child in the registry. Raises IntegrityError where its export gives other answers."""
    onnx = to_onnx(predictor)
    tiles = [tile_HW for one in frames for tile_HW in one.tiles]
    chosen = sorted(set(np.linspace(0, len(tiles) - 1, COMPARED).astype(int)))
    check = compare(predictor, onnx, [tiles[i] for i in chosen])
    kept = [role for role in (WEIGHTS, ANSWERS, NEW_ANSWERS) if role in parent.blobs]
    files = {role: registry.read(parent, role) for role in kept} | {ONNX: onnx}
    told = {"onnx": check, "parent": parent.ref, "recount": done, "relearned": None}
    card = predictor.card.model_copy(update=told)
    if before := learned_of(registry, parent):
        learned = before | Learned(frozenset(one.sha256 for one in frames), frozenset([None]))
        files[LEARNED] = frames_to_bytes(learned.frames)
        card = card.model_copy(update={"batches": learned.listed_batches})
    if predictor.familiarity:
        files[FAMILIARITY] = predictor.familiarity.to_bytes()
    return registry.publish(parent.name, files, card)


def _row(frame: SeenFrame, before: ToldFrame, after: ToldFrame) -> dict[str, Any]:
    low, high = after.interval or (None, None)
    return {
        "image": frame.image,
        "counted": frame.truth,
        "before": before.count,
        "after": after.count,
        "low": low,
        "high": high,
    }


def _doubts(frame: SeenFrame, told: ToldFrame, table: AnyPath) -> list[str]:
    """A line where a frame's count is far from what the others make of it."""
    low, high = told.interval or (-np.inf, np.inf)
    if abs(told.truth - told.count) <= DOUBTED * (high - told.count):
        return []
    return [
        f"{frame.image} was counted {frame.truth:g}, and the other frames make it {low:.0f} to {high:.0f}; "
        f"look at it again, and at its row in {table}"
    ]
