"""Everything with known answers that tests are made of: images, frames, banks, models' cards and versions, evaluations.

Functions and not fixtures, since processes of their own make them too: importing this module loads neither torch nor
Ray.
"""

import contextlib
import hashlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellnet.bank.bank import Bank
from cellnet.bank.frames import Frame
from cellnet.config.bank import BankSettings
from cellnet.config.train import AS_RECORDED, Augment, ModelSpec, Preprocess, TrainConfig
from cellnet.evaluation.evaluations import Evaluation
from cellnet.evaluation.metrics import Rows
from cellnet.images.file import encode_png
from cellnet.prediction.model import FrameModel
from cellnet.registry.records import ONNX, Card, ModelVersion
from cellnet.registry.registry import Registry
from cellnet.tasks import TASKS, Task
from cellnet.training.tiles import Batch
from cellnet.untrusted import WEIGHTS

if TYPE_CHECKING:
    from cellnet.prediction.predictor import Predictor

Drawn = tuple[NDArray[np.uint8], NDArray[np.float32]]
Grey = NDArray[np.uint8]

ROOT: Final = Path(__file__).parents[1]
SHARED: Final = Path(os.environ.get("CELLNET_SHARED") or ROOT.parent / "shared")
"""Images of others, which the tests look at where they lie beside the project."""
CASES: Final = Path(os.environ.get("CELLNET_CASES") or SHARED / "cases")
"""Small files that were read wrong."""
LINEAGES: Final = ("A172", "VERO6")
TINY: Final = ModelSpec(architecture="residual", width=4, depth=2, dropout=0)
SIDE: Final = 32
"""Of the tiles of `Known` models, in pixels."""


# Images


def discs(count: int, *, seed: int = 0, size: tuple[int, int] = (200, 200), radius: int = 6) -> Drawn:
    """A noisy frame of so many bright discs that do not touch, and their centres (count, 2)."""
    rng = np.random.default_rng(seed)
    height, width = size
    image_HW = rng.normal(100, 4, size)
    step = 2 * radius + 4
    cells = [(x, y) for y in range(step, height - step, step) for x in range(step, width - step, step)]
    centres_N2 = rng.permutation(np.array(cells))[:count]
    assert len(centres_N2) == count, "more discs than fit into the frame"
    for x, y in centres_N2.tolist():
        cv2.circle(image_HW, (x, y), radius, 180.0, -1)
    return np.clip(image_HW, 0, 255).astype(np.uint8), centres_N2.astype(np.float32)


def poisson_counts(means: ArrayLike, *, images: int, seed: int = 0) -> NDArray[np.float64]:
    """Counts as a well has them, each the mean over so many images in which cells lie at random, with 5 % error."""
    rng = np.random.default_rng(seed)
    means_N = np.asarray(means, np.float64)
    return rng.poisson(means_N * images * np.exp(0.05 * rng.standard_normal(len(means_N)))) / images


def noise(*size: int, seed: int = 0) -> Grey:
    """Every grey value alike."""
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


def clouds(height: int, width: int, *, seed: int = 0, bits: int = 8) -> Grey | NDArray[np.uint16]:
    """Blurred noise: something for a network to look at."""
    noise_HW = np.random.default_rng(seed).random((height, width), np.float32)
    grey_HW = cv2.normalize(cv2.GaussianBlur(noise_HW, (0, 0), 4), None, 0, 2**bits - 1, cv2.NORM_MINMAX)
    return grey_HW.astype(np.uint8 if bits == 8 else np.uint16)


def even(height: int = SIDE, width: int = SIDE, *, grey: int = 60) -> Grey:
    """Nearly one grey value, since a blank image is refused: `Known` names dark ones A172, bright ones VERO6."""
    image_HW = np.full((height, width), grey, np.uint8)
    image_HW[0, 0] += 1
    return image_HW


def even_png(height: int = SIDE, width: int = SIDE, *, grey: int = 60) -> bytes:
    """The PNG of `even`."""
    return encode_png(even(height, width, grey=grey))


NO_FILES: Final = {
    "pipe.png": "it is a named pipe",
    "socket.png": "it is a socket",
    "device.png": "it is a device",
    "circle.png": "Too many levels of symbolic links",
    "gone.png": "No such file",
}
"""What may lie among images and is none, and what is said of it."""


def no_files(folder: Path) -> None:
    """Put all of `NO_FILES` into a folder, and a link that leads back to the folder."""
    os.mkfifo(folder / "pipe.png")
    here = os.open(folder, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{here}/socket.png")  # whose own path may be too long for a socket
    os.close(here)
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "circle.png").symlink_to("circle.png")
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "again").symlink_to(folder, target_is_directory=True)


@contextlib.contextmanager
def little_room(bytes_n: int) -> Iterator[None]:
    """While it lasts, no file of this process grows beyond so many bytes, as on a full disk."""
    import resource  # of Linux and macOS alone

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_n, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# Frames and banks


def frame(number: int = 1, lineage: str | None = "A549", group: str = "", **known: Any) -> Frame:
    """What a bank knows of a frame of 200×200, without its pixels; in a well of its own unless told otherwise."""
    about = {"source": f"{number}.png", "lineage": lineage, "group": group or f"well {number}"}
    digest = hashlib.sha256(b"%d" % number).hexdigest()
    return Frame(**({"frame": digest, "height": 200, "width": 200} | about | known))


def bank_of(folder: Path, wells: Mapping[str, Sequence[str]], **known: Any) -> Path:
    """A bank with a frame of 400×400 in each of these wells of each lineage."""
    named = [(lineage, well) for lineage, wells_of_it in wells.items() for well in wells_of_it]
    size = {"height": 400, "width": 400, "bits": 8}
    frames = [frame(number, lineage, well, **(size | known)) for number, (lineage, well) in enumerate(named)]
    Bank.create(folder, BankSettings()).add(frames)
    return folder


# Models


def card(
    task: Task = "count",
    *,
    classes: Sequence[str] = (),
    model: ModelSpec = TINY,
    frame_px: tuple[int, int] = (200, 200),
    **preprocess: Any,
) -> Card:
    """`card("count", pixel_um=0.5)`: the card of a tiny model of 200×200 tiles, grey values taken as they are."""
    as_is = {"tile_px": (200, 200), "intensity": {"rule": "range", "low": 0, "high": 255}}
    return Card(
        task=task,
        classes=list(classes),
        config=TrainConfig(task=task, model=model, folds=0, holdout="keep"),
        preprocess=Preprocess.model_validate(as_is | preprocess),
        frame_px=frame_px,
        bank="bank",
        bank_digest="0" * 64,
        scores={},
        history=[],
        code_version="test",
        packages={},
        created="2024-01-01T00:00:00+00:00",
    )


COUNTER: Final = {"epochs": 6, "threads": 1}
"""What is special of the counter that tests with Ray share."""


def quick_config(task: Task, **changes: Any) -> TrainConfig:
    """A training of seconds: a tiny network that sees every tile as it is, split as the bank is."""
    as_it_is = Augment(shares=(1.0,), shifts=0, **AS_RECORDED)
    quick = {"folds": 0, "model": ModelSpec(width=4, depth=2), "augment": as_it_is, "epochs": 2}
    return TrainConfig(**({"task": task} | quick | changes))


def lineages_of(task: Task, lineages: Sequence[str] = LINEAGES) -> tuple[str, ...]:
    """The classes of a model of that task."""
    return tuple(lineages) if task == "classify" else ()


class Known(FrameModel):
    """Counts, in every tile, as many cells as its version's number; names A172 with 0.9 where a tile is dark."""

    def __init__(self, version: ModelVersion, wait: Callable[[], None] = lambda: None) -> None:
        super().__init__(version.ref, version.card)
        self.number = version.number
        self.wait = wait
        self.batches: list[int] = []

    def look(self, tiles: Sequence[Grey], *, with_features: bool) -> tuple[NDArray[np.float32], None]:
        self.batches.append(len(tiles))
        self.wait()
        if self.task == "count":
            return np.full(len(tiles), self.number, np.float32), None
        dark_N = np.array([tile.mean() < 128 for tile in tiles])
        return np.where(dark_N[:, None], [[0.9, 0.1]], [[0.2, 0.8]]).astype(np.float32), None


def publish(
    registry: Registry, task: Task, *, name: str | None = None, alias: str | None = "champion", side: int = SIDE
) -> str:
    """The next version of a `Known` model, which needs no files, and an alias that points at it."""
    size = {"tile_px": (side, side), "pixel_um": 0.5}
    made = card(task, classes=lineages_of(task), frame_px=(side, side), **size)
    version = registry.publish(name or TASKS[task].model, {}, made)
    if alias:
        registry.promote(version.ref, alias)
    return version.ref


def champions(folder: Path) -> Registry:
    """A registry with classifier@1 and regressor@1, both `Known`."""
    registry = Registry.open(str(folder / "registry"))
    publish(registry, "classify")
    publish(registry, "count")
    return registry


def publish_untrained(
    registry: Registry, task: Task, *, classes: Sequence[str] = LINEAGES, mean_count: float = 10, onnx: bool = True
) -> str:
    """The champion of a task: a network as it is before training, with or without its ONNX export."""
    from cellnet.networks.weights import fresh_network, weights_to_bytes
    from cellnet.prediction.export import to_onnx
    from cellnet.prediction.predictor import predictor_of

    # Of architecture auto, and with the preprocessing that a training has unless told otherwise.
    model, preprocess = ModelSpec(width=4), {"pixel_um": 0.5, "intensity": {}}
    plain = card(task, classes=lineages_of(task, classes), model=model, frame_px=(400, 400), **preprocess)
    made = plain.model_copy(update={"scores": {"holdout": {"n": 0}}})
    weights = fresh_network(made.config, len(made.classes), mean_count=mean_count).state_dict()
    files = {WEIGHTS: weights_to_bytes(weights)}
    if onnx:
        files[ONNX] = to_onnx(predictor_of("candidate", made, weights))
    version = registry.publish(TASKS[task].model, files, made)
    registry.promote(version.ref, "champion")
    return version.ref


def exports_kept() -> "Callable[[Predictor], bytes]":
    """`to_onnx`, which takes seconds, but the same network is exported once: an export is the same each time."""
    from cellnet.networks.weights import weights_to_bytes
    from cellnet.prediction.export import to_onnx

    made: dict[str, bytes] = {}

    def kept(predictor: "Predictor") -> bytes:
        card, told = predictor.card, predictor.calibration
        about = (card.config.model, card.classes, card.preprocess, told.temperature, told.scale, told.offset)
        weights = weights_to_bytes(predictor.network.state_dict())
        key = hashlib.sha256(weights + repr(about).encode()).hexdigest()
        if key not in made:
            made[key] = to_onnx(predictor)
        return made[key]

    return kept


# Evaluations


def evaluation(
    of: Card,
    tiles: Rows,
    *,
    frames: Rows | None = None,
    sources: Sequence[str] | None = None,
    ref: str = "m@1",
    **scores: Any,
) -> Evaluation:
    """Of a model on the holdout; every tile is a frame unless told otherwise."""
    about = {"task": of.task, "model": ref, "split": "holdout", "same_bank": True}
    names = [f"{row}.png" for row in range(len(tiles.truth))] if sources is None else list(sources)
    return Evaluation(scores=about | scores, tiles=tiles, frames=frames or tiles, sources=names, card=of)


# Trainings


def in_memory(batch: Batch, batch_size: int, *, seed: int) -> Callable[[int], Iterator[Batch]]:
    """Batches of a set of tiles that lies in memory, in a new seeded order each epoch."""
    columns = cast(dict[str, NDArray[Any]], batch)

    def batches(epoch: int) -> Iterator[Batch]:
        order = np.random.default_rng([seed, epoch]).permutation(len(batch["label"]))
        for start in range(0, len(order), batch_size):
            rows = np.sort(order[start : start + batch_size])
            yield cast(Batch, {name: column[rows] for name, column in columns.items()})

    return batches
