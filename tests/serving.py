"""A service over models whose answers are known, without Ray: a registry in a folder, versions without files."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI
from numpy.typing import NDArray

from cellnet.config.train import ModelSpec, Preprocess, TrainConfig
from cellnet.images.file import encode_png
from cellnet.prediction.model import FrameModel
from cellnet.registry.records import Card, ModelVersion
from cellnet.registry.registry import Registry
from cellnet.tasks import TASKS, Task
from serve.answering import Answerer, Challenge
from serve.api import make_api
from serve.limits import Limits
from serve.meters import Meters
from serve.models import Shelf

LINEAGES = ("A172", "VERO6")
SIDE = 32


class Known(FrameModel):
    """Counts, in every tile, as many cells as its version's number; names A172 with 0.9 where a tile is dark."""

    def __init__(self, version: ModelVersion, wait: Callable[[], None] = lambda: None) -> None:
        super().__init__(version.ref, version.card)
        self.number = version.number
        self.wait = wait
        self.batches: list[int] = []

    def look(
        self, tiles: Sequence[NDArray[np.uint8]], *, with_features: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        self.batches.append(len(tiles))
        self.wait()
        if self.task == "count":
            return np.full(len(tiles), self.number, np.float32), None
        dark_N = np.array([tile.mean() < 128 for tile in tiles])
        return np.where(dark_N[:, None], [[0.9, 0.1]], [[0.2, 0.8]]).astype(np.float32), None


def card(task: Task, *, lineages: Sequence[str] = LINEAGES, side: int = SIDE) -> Card:
    """Of a model that takes tiles of 32×32, grey values as they are."""
    return Card(
        task=task,
        classes=list(lineages) if task == "classify" else [],
        config=TrainConfig(task=task, model=ModelSpec(width=4)),
        preprocess=Preprocess.model_validate(
            {"tile_px": (side, side), "pixel_um": 0.5, "intensity": {"rule": "range", "low": 0, "high": 255}}
        ),
        frame_px=(side, side),
        bank="bank",
        bank_digest="0" * 64,
        scores={},
        history=[],
        code_version="test",
        packages={},
        created="2024-01-01T00:00:00+00:00",
    )


def publish(
    registry: Registry, task: Task, *, name: str | None = None, alias: str | None = "champion", side: int = SIDE
) -> str:
    """The next version of a model, and an alias that points at it."""
    version = registry.publish(name or TASKS[task].model, {}, card(task, side=side))
    if alias:
        registry.promote(version.ref, alias)
    return version.ref


def champions(folder: Path) -> Registry:
    """A registry with classifier@1 and regressor@1."""
    registry = Registry.open(str(folder / "registry"))
    publish(registry, "classify")
    publish(registry, "count")
    return registry


def image(height: int = SIDE, width: int = SIDE, *, grey: int = 60) -> bytes:
    """A PNG of nearly one grey value: dark ones are A172, bright ones VERO6."""
    image_HW = np.full((height, width), grey, np.uint8)
    image_HW[0, 0] += 1
    return encode_png(image_HW)


class Kitchen:
    """All that a service is made of, to look into."""

    def __init__(
        self,
        registry: Registry,
        *,
        limits: Limits | None = None,
        challenge: Challenge = 0.0,
        wait: Callable[[], None] = lambda: None,
        **api: Any,
    ) -> None:
        self.registry = registry
        self.wait = wait
        self.meters = Meters()
        self.spoiled: dict[str, Exception] = {}
        """By version, what loading it comes to."""
        self.loaded: list[str] = []
        self.shelf = Shelf(registry, self.load, challenge=challenge != 0, meters=self.meters)
        self.answerer = Answerer(self.shelf, limits or Limits(), self.meters, challenge)
        self.api: FastAPI = make_api(self.answerer, **api)

    def load(self, version: ModelVersion) -> FrameModel:
        self.loaded.append(version.ref)
        if version.ref in self.spoiled:
            raise self.spoiled[version.ref]
        return Known(version, lambda: self.wait())

    def figure(self, name: str, /, **labels: str) -> float | None:
        """What the meters say."""
        return self.meters.registry.get_sample_value(name, labels)


class Held:
    """A wait that lasts until it is let go."""

    def __init__(self) -> None:
        self.inside = threading.Semaphore(0)
        self.go = threading.Event()

    def __call__(self) -> None:
        self.inside.release()
        assert self.go.wait(20)
