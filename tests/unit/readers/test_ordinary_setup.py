"""What the readers need comes with `make setup`: the development set-up must not hide that something is missing."""

import importlib.metadata
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tifffile
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.factories import clouds

READ = """
import importlib.abc, json, sys

away = set(json.loads(sys.argv[1]))

class Away(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in away:
            raise ModuleNotFoundError(f"{name} is not installed by make setup", name=name)

sys.meta_path.insert(0, Away())
from pathlib import Path
from cellnet.bank.prepare import prepare_all
from cellnet.readers import read_source
from cellnet.store.folder import FolderStore

source, bank = map(Path, sys.argv[2:])
for frame in prepare_all(list(read_source(source)), FolderStore(bank)):
    print(Path(frame.source).name, frame.set_aside or frame.frame)
"""


ROOT = Path(__file__).parents[3]
WRITTEN: dict[str, dict[str, Any]] = {
    "plain": {},
    "lzw": {"compression": "lzw"},
    "lzw-tiles": {"compression": "lzw", "predictor": True, "tile": (32, 32)},
    "zstd": {"compression": "zstd"},
    "jpeg2000": {"compression": "jpeg2000"},
    "lzma": {"compression": "lzma"},
    "ome": {"ome": True},
}


def installed_by_setup() -> set[str]:
    """The distributions that cellnet needs, and those that they need, without extras that nobody asked for."""
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    found: set[tuple[str, frozenset[str]]] = set()
    waiting = [(canonicalize_name(need.name), frozenset(need.extras)) for need in map(Requirement, needs)]
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in found:
            continue
        found.add((name, extras))
        for line in importlib.metadata.requires(name) or ():
            need = Requirement(line)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in (extras or {""})):
                waiting.append((canonicalize_name(need.name), frozenset(need.extras)))
    return {name for name, _ in found}


@pytest.mark.slow
def test_every_tiff_is_read_by_what_make_setup_installs(tmp_path: Path) -> None:
    wanted = installed_by_setup()
    away = [
        module
        for module, distributions in importlib.metadata.packages_distributions().items()
        if not wanted & {canonicalize_name(name) for name in distributions} and module != "cellnet"
    ]
    assert {"pytest", "selenium"} <= set(away)
    (tmp_path / "A549").mkdir()
    for number, (name, options) in enumerate(WRITTEN.items()):
        pixels_HW = clouds(60, 80, seed=number, bits=16)
        tifffile.imwrite(tmp_path / f"A549/{name}.tif", pixels_HW, photometric="minisblack", **options)
    arguments = [json.dumps(away), str(tmp_path), str(tmp_path / "bank")]
    command = [sys.executable, "-c", READ, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    said = dict(line.split(".tif ") for line in done.stdout.splitlines())
    assert said.keys() == WRITTEN.keys()
    assert [reason for reason in said.values() if len(reason) != 64] == [], "each is a frame, by its sha256"
