"""cellnet as a library, in a program or a notebook: what `import cellnet` offers.

    model = cellnet.load(cellnet.open_registry("registry"), "regressor:champion")
    answer = model.answer("frame.png")
    answer.count, answer.count_low, answer.count_high, answer.unfamiliar

The code of `cellnet predict` and of the service, in this process and without Ray.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from joblib import cpu_count
from numpy.typing import NDArray

from cellnet.bank.bank import Bank
from cellnet.config.choices import EngineName
from cellnet.errors import DataError
from cellnet.images.file import ImageFile, Pages
from cellnet.images.pixels import Pixels
from cellnet.places import Places
from cellnet.prediction.answers import Answer
from cellnet.prediction.engines import load_model
from cellnet.prediction.model import FrameModel
from cellnet.registry.records import ModelVersion
from cellnet.registry.registry import Registry
from cellnet.store.place import Place
from cellnet.tasks import Task


def open_registry(
    uri: str | os.PathLike[str], *, endpoint_url: str | None = None, trusted_keys: str | os.PathLike[str] | None = None
) -> Registry:
    """The models in a folder or `s3://bucket/prefix`; an empty place is an empty registry.

    `endpoint_url` is another S3 server than Amazon's. `trusted_keys`, a file of public keys, has every version refused
    that none of them signed; left out, the file that CELLNET_TRUSTED_KEYS names, if it does.
    Raises ConfigError for a place or for keys that cannot be used.
    """
    keys = trusted_keys or os.environ.get("CELLNET_TRUSTED_KEYS") or None
    place = Place(os.fspath(uri), endpoint_url)
    return Places(registry=place, trusted_keys=os.fspath(keys) if keys else None).open_registry()


def open_bank(uri: str | os.PathLike[str], *, endpoint_url: str | None = None) -> Bank:
    """The images with their labels in a folder or `s3://bucket/prefix`. Raises NotFoundError where there are none."""
    return Bank.open(Place(os.fspath(uri), endpoint_url))


class Model:
    """A published version in memory, ready to answer; `load` makes it."""

    def __init__(self, version: ModelVersion, network: FrameModel) -> None:
        self.version = version
        """What the registry says of it; its `card` has the scores."""
        self._network = network

    def __repr__(self) -> str:
        return f"<cellnet.Model {self.ref}>"

    @property
    def ref(self) -> str:
        """Like `classifier@7`."""
        return self.version.ref

    @property
    def task(self) -> Task:
        """`classify`: it names lineages; `count`: it counts cells."""
        return self.version.card.task

    @property
    def lineages(self) -> list[str]:
        """Those that it tells apart; of a counter, none."""
        return list(self.version.card.classes)

    def answer(
        self,
        image: str | os.PathLike[str] | Pixels,
        *,
        pixel_um: float | None = None,
        page: Pages | None = None,
        channel: str | None = None,
    ) -> Answer:
        """What it says of a frame: an image file, or grey values (H, W) as recorded, of 8 or 16 bits.

        `pixel_um`: micrometres a pixel, if they are known; left out, what the file says of itself. `page`: which one
        of a file of several, `middle` or its number from 1. `channel`: which one of several, by name or number; left
        out, that of transmitted light.
        Raises DataError for an image that cannot be read, or is too small or of another magnification.
        """
        if isinstance(image, np.ndarray):
            return self._network.answer(_checked(image), pixel_um=pixel_um)
        file = ImageFile.at(Path(image)).in_memory()
        first, *others = file.pages(page, channel)
        if others:
            pages = 1 + len(others)
            raise DataError(f"{file.name}: holds {pages} pages, and an answer is of one; give its number as page")
        return self._network.answer(first.decode(), pixel_um=pixel_um or first.pixel_um)


def load(
    registry: Registry | str | os.PathLike[str], ref: str, *, engine: EngineName = "auto", threads: int | None = None
) -> Model:
    """The version that a reference means, `name@7` or `name:alias`, ready to answer.

    `registry` is an open one, or its place. `engine` runs the network, `auto` the fastest that is installed, on so
    many `threads` (all CPUs of this process).
    Raises NotFoundError, naming what there is, IntegrityError for damaged files, or UntrustedError.
    """
    opened = registry if isinstance(registry, Registry) else open_registry(registry)
    version = opened.resolve(ref)
    return Model(version, load_model(opened, version, engine=engine, threads=threads or int(cpu_count())))


def _checked(image: NDArray[Any]) -> NDArray[Any]:
    """The same array. Raises DataError unless it holds grey values of 8 or 16 bits."""
    if image.ndim != 2 or image.dtype not in (np.uint8, np.uint16):
        shape = "×".join(map(str, image.shape)) or "one number"
        raise DataError(f"an array of {shape} {image.dtype}; give grey values (H, W) as uint8 or uint16")
    return image
