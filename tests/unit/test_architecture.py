"""The rooms: who may call whom, and that the library runs with neither Ray nor FastAPI."""

import ast
import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = sorted(path for path in (ROOT / "cellnet").rglob("*.py") if path.name != "cli.py")
MODULES = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in LIBRARY]

ALONE = """
import importlib, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"ray", "fastapi", "starlette", "pipelines", "serve"}:
            raise ImportError(f"{name} is not for the library")

sys.meta_path.insert(0, Refuse())
for module in sys.argv[1:]:
    importlib.import_module(module)

import cv2, numpy as np, torch
from cellnet import predictor, registry, training
from cellnet.losses import criterion_of
from cellnet.config import ModelSpec, Preprocess, TrainConfig

torch.set_num_threads(1)
rng = np.random.default_rng(0)
pixels = rng.integers(90, 110, (8, 200, 200), np.uint8)
for tile, count in zip(pixels, range(8)):
    for x, y in rng.integers(10, 190, (count, 2)).tolist():
        cv2.circle(tile, (x, y), 6, 180, -1)
batch = training.Batch(pixels=pixels, label=np.zeros(8, np.int64), count=np.arange(8, dtype=np.float32))
config = TrainConfig(task="count", model=ModelSpec(width=2, depth=2), epochs=2, batch_size=4)
preprocess = Preprocess(tile_px=(200, 200))
network = predictor.fresh_network(config, 0, mean_count=3.5)
weights = []
training.fit(network, config, preprocess, criterion=criterion_of(config),
             train_batches=training.in_memory(batch, 4, seed=0), test_batches=None, tiles=8,
             on_epoch=lambda state: weights.append(state.weights))
card = registry.Card(task="count", classes=[], config=config, preprocess=preprocess, frame_px=(200, 200), bank="",
                     bank_digest="", scores={}, history=[], code_version="", packages={}, created="")
print(predictor.predictor_of("candidate", card, weights[-1]).predict(np.hstack(pixels[:3])).count)
"""


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports, at its top or anywhere inside."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_knows_neither_ray_nor_the_web_nor_the_other_rooms(path: Path) -> None:
    assert not imported(path) & {"ray", "fastapi", "starlette", "uvicorn", "pipelines", "serve", "tests"}


@pytest.mark.parametrize(("room", "other"), [("pipelines", "serve"), ("serve", "pipelines")])
def test_jobs_and_service_do_not_know_each_other(room: str, other: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    assert [path.name for path in files if imported(path) & {other, "tests"}] == []


def test_the_front_door_calls_into_the_other_rooms_only_when_asked() -> None:
    at_the_top = {
        name.partition(".")[0]
        for node in ast.parse((ROOT / "cellnet/cli.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert not at_the_top & {"ray", "fastapi", "torch", "pipelines", "serve"}


def test_the_examples_in_the_docstrings_hold() -> None:
    results = [doctest.testmod(importlib.import_module(name)) for name in MODULES]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) >= 5


@pytest.mark.slow
def test_the_library_trains_and_predicts_with_neither_ray_nor_fastapi() -> None:
    done = subprocess.run([sys.executable, "-c", ALONE, *MODULES], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0
