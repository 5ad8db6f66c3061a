"""Packages for the BioImage Model Zoo: taken by its own test command, and read without cellnet."""

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from cellnet.errors import ConfigError, IntegrityError
from cellnet.networks.weights import fresh_network, weights_from_bytes, weights_to_bytes
from cellnet.prediction.bioimageio import write_bioimageio
from cellnet.prediction.export import to_onnx
from cellnet.prediction.predictor import predictor_of
from cellnet.registry.records import ONNX, Card, ModelVersion
from cellnet.untrusted import WEIGHTS

CLASSES = ("A549", "SH-SY5Y", "β cells, 2")


def zoo_tests(package: Path) -> str:
    """What `bioimageio test` prints, without a network. Fails unless it accepts the package."""
    command = [str(Path(sys.executable).parent / "bioimageio"), "test", str(package)]
    home = {
        "HOME": str(package.parent),
        "XDG_CACHE_HOME": str(package.parent),
        "no_proxy": "",
        "https_proxy": "http://[::1]:9",
    }
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | home, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def version(card: Callable[..., Card]) -> Callable[..., tuple[ModelVersion, dict[str, bytes]]]:
    """`version("count")`: one of a random network, published without ONNX, and its files."""

    def make(task: str, **preprocess: object) -> tuple[ModelVersion, dict[str, bytes]]:
        made = card(task, classes=CLASSES if task == "classify" else (), **preprocess)
        made = made.model_copy(update={"bank": "/home/me/bank", "scores": {"test": {"accuracy": 0.75}}})
        torch.manual_seed(0)
        weights = fresh_network(made.config, len(made.classes), mean_count=9).state_dict()
        return ModelVersion(name="mine", number=7, blobs={}, card=made), {WEIGHTS: weights_to_bytes(weights)}

    return make


@pytest.mark.parametrize("task", ["classify", pytest.param("count", marks=pytest.mark.whole)])
def test_a_package_passes_the_zoos_own_tests_and_says_what_it_is(version: Callable, tmp_path: Path, task: str) -> None:
    made, files = version(task, pixel_um=0.5, tile_px=(400, 400))
    path = write_bioimageio(tmp_path / "mine.zip", made, files, authors=["Ada Lovelace", "Grace Hopper"])
    said = zoo_tests(path)
    assert "passed" in said and "❌" not in said
    with zipfile.ZipFile(path) as package:
        described = yaml.safe_load(package.read("rdf.yaml"))
        readme = package.read("README.md").decode()
        held = json.loads(package.read("card.json"))
        tiles, output = (np.load(io.BytesIO(package.read(f"{name}.npy"))) for name in ("tiles", "output"))
    assert [author["name"] for author in described["authors"]] == ["Ada Lovelace", "Grace Hopper"]
    assert described["inputs"][0]["axes"][2] == {
        "size": 200, "id": "y", "type": "space", "unit": "micrometer", "scale": 1.0
    }  # fmt: skip
    assert "accuracy 0.750" in readme and "400×400 pixels of a frame, of 0.5 µm each" in readme
    assert "/home/me" not in path.read_bytes().decode("latin-1") and "bank" not in held
    predictor = predictor_of("mine@7", made.card, weights_from_bytes(files[WEIGHTS], "mine@7"))
    assert output == pytest.approx(predictor.forward([tiles[0, 0].astype(np.uint8)]), rel=1e-4)
    if task == "classify":
        assert described["outputs"][0]["axes"][1]["channel_names"] == list(CLASSES)


def test_a_package_of_a_hostile_onnx_file_or_of_an_impossible_author_is_not_written(
    version: Callable, tmp_path: Path
) -> None:
    made, files = version("count")
    with pytest.raises(IntegrityError, match=r"model.onnx of mine@7 is not ONNX"):
        write_bioimageio(tmp_path / "x.zip", made, files | {ONNX: b"\xff" * 99})
    files[ONNX] = to_onnx(predictor_of("mine@7", made.card, weights_from_bytes(files[WEIGHTS], "mine@7")))
    with pytest.raises(ConfigError, match=r"bioimage.io takes no package with authors.0.name 'a/b'"):
        write_bioimageio(tmp_path / "x.zip", made, files, authors=["a/b"])
    with pytest.raises(ConfigError, match=r"is there already; name a new file"):
        write_bioimageio(tmp_path, made, files)
    assert list(tmp_path.iterdir()) == []


def test_without_bioimageio_one_learns_how_to_install_it(
    version: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bioimageio.spec", None)
    with pytest.raises(ConfigError, match=r"pip install 'cellnet\[bioimageio\]'"):
        write_bioimageio(tmp_path / "x.zip", *version("count"))
