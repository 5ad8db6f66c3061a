"""What a published version holds besides its weights, and that others can use it without cellnet."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from cellnet.bank.bank import Bank
from cellnet.certainty.familiarity import FAMILIARITY
from cellnet.config.train import ModelSpec
from cellnet.errors import IntegrityError
from cellnet.networks.views import watched
from cellnet.networks.weights import fresh_network
from cellnet.places import Places
from cellnet.prediction.bioimageio import write_bioimageio
from cellnet.prediction.export import compare, to_onnx
from cellnet.prediction.predictor import Predictor, predictor_of
from cellnet.registry.learned import Learned, learned_of
from cellnet.registry.records import LEARNED, ONNX, REPORT, Recount
from cellnet.registry.registry import Registry
from cellnet.reports.evaluation_report import report_page
from cellnet.store.place import place_of
from cellnet.untrusted import WEIGHTS, check_onnx
from pipelines.calibrate import recalibrate
from pipelines.evaluate import evaluate

pytestmark = pytest.mark.ray

ROLES = {WEIGHTS, FAMILIARITY, ONNX, REPORT, LEARNED}


@pytest.fixture
def places(trained: Places) -> Places:
    return trained


@pytest.mark.parametrize("ref", ["classifier@1", "regressor@1"])
def test_the_onnx_file_of_a_version_answers_as_its_predictor_does(places: Places, ref: str) -> None:
    registry, bank = places.open_registry(), Bank.open(places.bank)
    version, predictor = registry.resolve(ref), Predictor.load(registry, ref)
    assert version.blobs.keys() == ROLES
    assert version.card.onnx.tiles == 8 and version.card.onnx.max_difference < 1e-4
    data = registry.read(version, ONNX)
    check_onnx(data, ONNX)
    tiles = [tile for frame in bank.frames for tile in predictor.cut(bank.pixels(frame), frame.pixel_um).tiles]
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    output, features = session.run(["output", "features"], {"tiles": np.stack(tiles)[:, None].astype(np.float32)})
    with watched(predictor.network) as seen:
        wanted = predictor.forward(tiles)
    assert len(tiles) == 24 * 4
    assert output == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    assert features == pytest.approx(seen[0].numpy(), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("ref", ["classifier@1", "regressor@1"])
def test_the_report_of_a_version_is_that_of_its_test_split(places: Places, ref: str) -> None:
    registry = places.open_registry()
    page = registry.read(registry.resolve(ref), REPORT).decode()
    evaluation = evaluate(ref, places, split="test", pictures=True)
    name = f"{ref.partition('@')[0]} (this version)"
    assert page == report_page(replace(evaluation, scores=evaluation.scores | {"model": name}))
    assert f"<h1>{name} on the test split</h1>" in page and "flatters a little" in page
    assert len(page) < 1.5e6


def test_a_version_tells_which_frames_shaped_it(places: Places) -> None:
    registry, bank = places.open_registry(), Bank.open(places.bank)
    version = registry.resolve("regressor@1")
    learned = learned_of(registry, version)
    assert learned == Learned.of([*bank.split("train"), *bank.split("test")])
    assert version.blobs[LEARNED].size == 32 * 18
    assert (version.card.batches, version.card.batch_scores) == ((None,), {"same": None, "new": None})
    told = [evaluate("regressor@1", places, split=split).scores["learned"] for split in ("holdout", "all")]
    assert told == [0, 18]


def test_a_version_that_is_calibrated_elsewhere_has_learned_from_there_too(places: Places, tmp_path: Path) -> None:
    bank = Bank.open(shutil.copytree(places.bank.uri, tmp_path / "bank"))
    plates = {group: f"P{n % 2}" for n, group in enumerate(dict.fromkeys(frame.group for frame in bank.frames))}
    bank.add([replace(frame, batch=plates[frame.group]) for frame in bank.frames])
    shutil.copytree(places.registry.uri, tmp_path / "registry")
    there = Places(bank=place_of(tmp_path / "bank"), registry=place_of(tmp_path / "registry"))
    child = recalibrate("regressor@1", there)
    assert child.card.batches == ("P0", "P1", None)
    same = child.card.batch_scores["same"]
    assert (same["frame"].n, same["tile"].n, child.card.batch_scores["new"]) == (6, 24, None)
    assert evaluate(child.ref, there).scores["batches"]["same"]["frame"]["mae"] == pytest.approx(same["frame"].value)


def test_calibrating_again_publishes_the_same_weights_as_a_child_of_the_version(places: Places) -> None:
    registry = places.open_registry()
    before, after = registry.resolve("regressor@1"), recalibrate("regressor@1", places)
    assert after.card.parent == "regressor@1" and before.card.parent is None
    assert after.card.calibration == before.card.calibration
    same = (WEIGHTS, FAMILIARITY, ONNX)
    assert [after.blobs[role] for role in same] == [before.blobs[role] for role in same]
    assert REPORT in after.blobs


def test_a_version_that_was_fitted_to_a_plate_is_calibrated_on_a_bank_as_its_network_is(places: Places) -> None:
    registry = places.open_registry()
    version = registry.resolve("regressor@1")
    recount = Recount(frames=[], made="2026-11-28T00:00:00+00:00", before={}, after={})
    scaled = version.card.calibration.model_copy(update={"scale": 2.0, "offset": 1.0})
    fitted = version.card.model_copy(update={"recount": recount, "calibration": scaled, "parent": version.ref})
    child = registry.publish("fitted", {WEIGHTS: registry.read(version, WEIGHTS)}, fitted)
    after = recalibrate(child.ref, places)
    assert after.card.calibration == version.card.calibration and after.card.recount is None
    assert after.card.parent == "fitted@1" and after.blobs[ONNX] == version.blobs[ONNX]


def test_weights_that_are_a_pickle_are_not_calibrated(places: Places, tmp_path: Path) -> None:
    registry = Registry.open(str(tmp_path))
    card = places.open_registry().resolve("regressor@1").card
    registry.publish("regressor", {WEIGHTS: b"\x80\x04\x95\x0b\0\0\0\0\0\0\0}"}, card)
    with pytest.raises(IntegrityError, match="is a pickle, not safetensors"):
        recalibrate("regressor@1", replace(places, registry=place_of(tmp_path)))


@pytest.mark.whole
def test_a_trained_version_passes_the_tests_of_the_model_zoo(places: Places, tmp_path: Path) -> None:
    registry = places.open_registry()
    version = registry.resolve("classifier@1")
    files = {role: registry.read(version, role) for role in version.blobs}
    package = write_bioimageio(tmp_path / "classifier.zip", version, files)
    command = [str(Path(sys.executable).parent / "bioimageio"), "test", str(package)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("task", "architecture", "views"),
    [
        ("classify", "resnet18", 1),
        pytest.param("count", "convnext_tiny", 1, marks=pytest.mark.whole),
        ("count", "paper", 8),
    ],
)
def test_large_networks_are_exported_too(places: Places, task: str, architecture: str, views: int) -> None:
    card = places.open_registry().resolve("classifier@1" if task == "classify" else "regressor@1").card
    wanted = card.config.model_copy(update={"model": ModelSpec(architecture=architecture, views=views)})
    network = fresh_network(wanted, len(card.classes), mean_count=20)
    predictor = predictor_of("x", card.model_copy(update={"config": wanted}), network.state_dict())
    data = to_onnx(predictor)
    tiles = list(np.random.default_rng(0).integers(0, 256, (2, 200, 200), np.uint8))
    assert compare(predictor, data, tiles).max_difference < 1e-4
    check_onnx(data, ONNX)
