"""Images with known answers, and a model's card, for every test that needs one."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cellnet.config.train import ModelSpec, Preprocess, TrainConfig
from cellnet.registry.records import Card

collect_ignore = ["benchmarks"]
"""They are no tests, and need more than the tests do."""
Drawn = tuple[NDArray[np.uint8], NDArray[np.float32]]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """As `--dist loadfile`, for what is run as one: what a file's tests share is made once.

    Two files share trained models, and searches share nothing. (With pytest 9.2, xdist 3.8 does not heed its own marks
    `xdist_group`.)
    """
    from xdist.scheduler import LoadFileScheduling

    class Shared(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if "/test_tune.py::" in nodeid:
                return nodeid
            file: str = super()._split_scope(nodeid)
            return file.replace("/test_versions.py", "/test_pipelines.py")

    return Shared(config, log)


@pytest.fixture
def discs() -> Callable[..., Drawn]:
    """`discs(12, seed=3)`: a noisy frame of 12 bright discs that do not touch, and their centres (12, 2)."""

    def draw(count: int, *, seed: int = 0, size: tuple[int, int] = (200, 200), radius: int = 6) -> Drawn:
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

    return draw


@pytest.fixture
def card() -> Callable[..., Card]:
    """`card("count", pixel_um=0.5)`: the card of a tiny model of 200×200 tiles, grey values taken as they are."""

    def make(task: str = "count", *, classes: tuple[str, ...] = (), **preprocess: object) -> Card:
        asis = {"tile_px": (200, 200), "intensity": {"rule": "range", "low": 0, "high": 255}}
        model = ModelSpec(architecture="residual", width=4, depth=2, dropout=0)
        return Card(
            task=task,
            classes=list(classes),
            config=TrainConfig(task=task, model=model),
            preprocess=Preprocess.model_validate(asis | preprocess),
            frame_px=(200, 200),
            bank="bank",
            bank_digest="0" * 64,
            scores={},
            history=[],
            code_version="test",
            packages={},
            created="2024-01-01T00:00:00+00:00",
        )

    return make


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tiny networks are many times faster on one thread than on threads that wait for each other."""
    torch.set_num_threads(1)
