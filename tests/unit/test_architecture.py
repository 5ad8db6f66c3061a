"""The house: rooms in storeys, who may call whom, and that the library runs with neither Ray nor FastAPI."""

import ast
import doctest
import importlib
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

STOREYS = {
    "cellnet": (
        *(
            "__main__",
            "cli",
            "pipeline",
            "reports",
            "evaluation",
            "prediction",
            "places",
            "registry",
            "training",
            "certainty",
        ),
        *("networks", "bank", "readers", "images", "store", "untrusted", "config", "tasks", "sample", "errors"),
        "version",
    ),
    "serve": (
        *(
            "app",
            "service",
            "corrections",
            "api",
            "v2",
            "http",
            "answering",
            "models",
            "overlays",
            "thumbnails",
            "batching",
            "meters",
            "limits",
            "logs",
        ),
        *("settings", "haproxy", "haproxy_rules"),
    ),
    "pipelines": (
        *("__main__", "tune", "winner", "promote", "trials", "sweeps", "train", "folds", "paper_holdout"),
        *("calibrate", "heads", "publishing", "evaluate", "suggest", "predict", "ingest", "sending", "shards"),
        *("room", "runs", "cluster"),
        *("starting", "failures"),
    ),
}
"""The rooms of each package from the top floor down: a room calls rooms below it, never above."""
FOREIGN = {"ray", "fastapi", "starlette", "uvicorn"}
FRONT_DOOR = ("cellnet.cli", "cellnet.__main__")
"""What alone of the library calls into the other packages, and only when a command needs them."""

NAMED_OTHERWISE = {
    "test_architecture.py": "the house",
    "test_image.py": "infra/Dockerfile",
    "test_aws.py": "the cluster launcher on AWS, and the rights of its machines",
    "test_costs.py": "infra/costs.py",
    "test_infra.py": "the files of infra/",
    "test_interface.py": "what others call",
    "test_kubernetes.py": "infra/kubernetes",
    "test_monitoring.py": "rules for Prometheus and the dashboard for Grafana",
    "test_one_machine.py": "the units of infra/one-machine/",
    "test_papers.py": "the pages for people",
    "cli/test_registry_commands.py": "`cellnet registry`, as users type it",
    "images/test_cases.py": "image files as people bring them",
    "images/test_mutated_files.py": "whatever reads image files",
    "readers/test_cases_annotations.py": "COCO and labels of other tools as people bring them",
    "readers/test_cases_labels.py": "tables, folders and masks as people bring them",
    "readers/test_ordinary_setup.py": "what make setup alone installs",
    "serve/test_fuzz.py": "whatever answers requests",
}
"""Unit tests that are not named after a module or its room, and what they are about."""

LIBRARY = sorted(
    path for path in (ROOT / "cellnet").rglob("*.py") if not {"cli", "__main__.py"} & set(path.relative_to(ROOT).parts)
)

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
from cellnet.config.choices import NETWORK_PX
from cellnet.config.train import ModelSpec, Preprocess, TrainConfig
from cellnet.networks.weights import fresh_network
from cellnet.prediction.predictor import predictor_of
from cellnet.registry.records import Card
from cellnet.training.fit import fit
from cellnet.training.losses import criterion_of
from cellnet.training.tiles import Batch

torch.set_num_threads(1)
rng = np.random.default_rng(0)
pixels = rng.integers(90, 110, (8, NETWORK_PX, NETWORK_PX), np.uint8)
for tile, count in zip(pixels, range(8)):
    for x, y in rng.integers(10, 190, (count, 2)).tolist():
        cv2.circle(tile, (x, y), 6, 180, -1)
batch = Batch(pixels=pixels, label=np.zeros(8, np.int64), count=np.arange(8, dtype=np.float32))
config = TrainConfig(task="count", model=ModelSpec(width=2, depth=2), epochs=2, batch_size=4)
preprocess = Preprocess(tile_px=(200, 200))
network = fresh_network(config, 0, mean_count=3.5)
weights = []
fit(network, config, preprocess, criterion=criterion_of(config), train_batches=lambda epoch: [batch],
    test_batches=None, tiles=8, on_epoch=lambda state: weights.append(state.weights))
card = Card(task="count", classes=[], config=config, preprocess=preprocess, frame_px=(200, 200), bank="",
            bank_digest="", scores={}, history=[], code_version="", packages={}, created="")
print(predictor_of("candidate", card, weights[-1]).predict(np.hstack(pixels[:3])).count)
assert "torch._dynamo" not in sys.modules, "every process that trains would import torch's compiler, for over a second"
"""


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path, *, at_the_top: bool = False) -> Iterator[str]:
    """The modules that a file imports, anywhere in it or at its top alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if at_the_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: imports are absolute here"
            found = ROOT.joinpath(*node.module.split("."))
            for alias in node.names:
                is_module = (found / alias.name).is_dir() or (found / f"{alias.name}.py").is_file()
                yield f"{node.module}.{alias.name}" if is_module else node.module


def packages_of(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports_of(path)}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def arrows(package: str) -> Iterator[tuple[str, str, str]]:
    """(room, room that it calls, and where) in a package."""
    for path in sorted((ROOT / package).rglob("*.py")):
        room = room_of(module_of(path))
        for name in imports_of(path):
            other = room_of(name)
            if name.partition(".")[0] == package and room and other and other != room:
                yield room, other, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("package", STOREYS)
def test_every_room_has_a_storey(package: str) -> None:
    rooms = {room_of(module_of(path)) for path in (ROOT / package).rglob("*.py")} - {""}
    assert rooms == set(STOREYS[package])


@pytest.mark.parametrize("package", STOREYS)
def test_no_room_calls_a_room_above_it(package: str) -> None:
    floor = {room: number for number, room in enumerate(STOREYS[package])}
    assert [where for room, other, where in arrows(package) if floor[other] < floor[room]] == []


@pytest.mark.parametrize("package", STOREYS)
def test_no_module_calls_itself_through_others(package: str) -> None:
    calls: dict[str, set[str]] = defaultdict(set)
    for path in (ROOT / package).rglob("*.py"):
        calls[module_of(path)] = {name for name in imports_of(path, at_the_top=True) if name.startswith(package)}
    while calls:
        free = [name for name, others in calls.items() if not (others & calls.keys()) - {name}]
        assert free, f"a circle among {sorted(calls)}"
        for name in free:
            del calls[name]


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_knows_neither_ray_nor_the_web_nor_the_other_packages(path: Path) -> None:
    assert not packages_of(path) & (FOREIGN | {"pipelines", "serve", "tests"})


@pytest.mark.parametrize(("package", "other"), [("pipelines", "serve"), ("serve", "pipelines")])
def test_jobs_and_service_do_not_know_each_other(package: str, other: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    assert [path.name for path in files if packages_of(path) & {other, "tests"}] == []


def test_the_front_door_calls_into_the_other_packages_only_when_asked() -> None:
    files = sorted((ROOT / "cellnet/cli").rglob("*.py"))
    assert files
    at_the_top = {name.partition(".")[0] for path in files for name in imports_of(path, at_the_top=True)}
    assert not at_the_top & (FOREIGN | {"torch", "pipelines", "serve"})


def test_nobody_calls_the_front_door_but_the_doors_of_processes() -> None:
    callers = [
        str(path.relative_to(ROOT))
        for package in STOREYS
        for path in sorted((ROOT / package).rglob("*.py"))
        if any(name.startswith(FRONT_DOOR) for name in imports_of(path))
    ]
    assert [path for path in callers if not path.startswith("cellnet/cli/")] == [
        "cellnet/__main__.py",
        "pipelines/__main__.py",
    ]


def test_what_is_in_pipelines_needs_ray() -> None:
    """A module imports Ray, or a module of pipelines that does."""
    files = {module_of(path): path for path in (ROOT / "pipelines").glob("*.py") if path.stem != "__main__"}
    del files["pipelines"]
    needs = {name for name, path in files.items() if "ray" in packages_of(path)}
    while more := {name for name, path in files.items() if needs & set(imports_of(path))} - needs:
        needs |= more
    assert files.keys() - needs == set()


def test_unit_tests_are_named_after_the_module_or_the_room_that_they_test() -> None:
    stray = []
    for path in sorted((ROOT / "tests/unit").rglob("test_*.py")):
        inside = path.relative_to(ROOT / "tests/unit")
        room = next(one for one in (ROOT / "cellnet" / inside.parent, ROOT / inside.parent) if one.is_dir())
        modules = room.glob("*.py") if room == ROOT / "cellnet" else room.rglob("*.py")
        names = {room.name, *(module.stem for module in modules)}
        if path.stem.removeprefix("test_") not in names and str(inside) not in NAMED_OTHERWISE:
            stray.append(str(inside))
    assert stray == []


@pytest.mark.slow
def test_the_examples_in_the_docstrings_hold() -> None:
    results = [doctest.testmod(importlib.import_module(module_of(path))) for path in LIBRARY]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) >= 5


@pytest.mark.slow
def test_the_library_trains_and_predicts_with_neither_ray_nor_fastapi() -> None:
    modules = [module_of(path) for path in LIBRARY]
    done = subprocess.run([sys.executable, "-c", ALONE, *modules], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0
