"""The wheel, built and installed away from the checkout: everything that is no Python module must be in it too."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
BUILT_OF = ("cellnet", "pipelines", "serve", "pyproject.toml", "README.md", "LICENSE")

REPORT = """
import sys
from pathlib import Path
import numpy as np
from cellnet.evaluation.evaluations import Evaluation
from cellnet.evaluation.metrics import Rows, score
from cellnet.reports.evaluation_report import write_report

truth = np.arange(1.0, 7)
rows = Rows(truth=truth, output=truth + 1, lineages=["A549"] * 6, groups=list("abcdef"))
scores = {"task": "count", "model": "regressor@1", "split": "holdout", "same_bank": True, "left_out": []}
scores |= {unit: score("count", rows, []) for unit in ("tile", "frame")}
sources = [f"{name}.png" for name in "abcdef"]
print(write_report(Path("report"), Evaluation(scores=scores, tiles=rows, frames=rows, sources=sources)))
"""

SERVICE = """
from fastapi import FastAPI
from fastapi.testclient import TestClient
from serve.http.pages import add_pages

api = FastAPI(docs_url=None)
add_pages(api)
answer = TestClient(api).get("/")
assert answer.status_code == 200, answer
print(answer.text)
"""

WHERE = """
import sys
import cellnet, cellnet.cli, pipelines, serve, serve.settings
for module in (cellnet, pipelines, serve):
    print(module.__file__)
print(*sys.path, sep="\\n")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built of a copy, so that nothing of an earlier build gets into it, and nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("built")
    for name in BUILT_OF:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", "dist", "."],
        folder,
    )
    [wheel] = (folder / "dist").glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the wheel, and all else from the one that runs the tests.

    That one's folder of packages is on the path, but what its .pth files say is not heeded: the checkout is not there.
    """
    folder = tmp_path_factory.mktemp("installed")
    run([sys.executable, "-m", "venv", "--without-pip", "venv"], folder)
    [packages] = (folder / "venv/lib").glob("python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    programs = folder / "venv/bin"
    pip = [sys.executable, "-m", "pip", "--python", str(programs / "python"), "install"]
    run([*pip, "--no-deps", "--no-index", "--ignore-installed", str(wheel)], folder)
    return programs


def run(command: Sequence[str | Path], folder: Path) -> str:
    """What a program says on stdout, started in that folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CELLNET_"))}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_holds_every_file_of_the_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    packages = ("cellnet", "pipelines", "serve")
    files = {path.relative_to(ROOT) for package in packages for path in (ROOT / package).rglob("*") if path.is_file()}
    wanted = {str(file) for file in files if "__pycache__" not in file.parts and file.suffix != ".md"}
    assert held == wanted
    assert {"cellnet/py.typed", "serve/http/page.html"} <= held


def test_it_works_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert run([installed / "cellnet", "--version"], tmp_path) == f"cellnet {version}\n"
    assert run([installed / "cellnet", "bank", "sample", "images", "--wells", "1"], tmp_path) == "images/manifest.csv\n"
    assert len(list((tmp_path / "images/images").iterdir())) > 8
    python = installed / "python"
    report = tmp_path / run([python, "-c", REPORT], tmp_path).strip()
    assert "<h1>regressor@1 on the holdout split</h1>" in report.read_text(encoding="utf-8")
    assert "<title>cellnet" in run([python, "-c", SERVICE], tmp_path)
    where = run([python, "-c", WHERE], tmp_path).splitlines()
    assert not [place for place in where if Path(place).is_relative_to(ROOT) and "site-packages" not in place]
    assert all(Path(file).is_relative_to(installed.parent) for file in where[:3])
