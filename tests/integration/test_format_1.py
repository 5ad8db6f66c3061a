"""A bank, a registry and runs that were written before anything had a format: they are read for ever.

tests/data/format_1 was made on 2026-11-27 by the code of before records had a format: eight drawn frames of two
lineages, a model of each task trained on them for two epochs, its champion, a tag, and the records of both trainings.
"""

import json
import shutil
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from cellnet.bank.bank import Bank
from cellnet.bank.frames import Frame
from cellnet.cli import main
from cellnet.config.loading import check_format, read_stored
from cellnet.config.train import TrainConfig
from cellnet.prediction.engines import load_model
from cellnet.prediction.predictor import Predictor
from cellnet.registry.exchange import export_version, import_version, publish_folder
from cellnet.registry.registry import Registry
from cellnet.registry.upkeep import verify
from serve.answering import Answerer
from serve.api import make_api
from serve.limits import Limits
from serve.meters import Meters
from serve.models import Shelf

DATA = Path(__file__).parents[1] / "data/format_1"
DIGEST = "710a04688c7ea20704aafd17f37bfbc3703f11653a3930c96c03d5aea2a01369"
FRAME = "03154fee7d0bf0ea89440a66e696c5eff77e3473a3d77abdbd57679054189029"
"""What the code of before answered of it stands below."""
A549, COUNT = 0.6179104447364807, 12.803558349609375


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    return Bank.open(shutil.copytree(DATA / "bank", tmp_path / "bank"))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.open(shutil.copytree(DATA / "registry", tmp_path / "registry"))


def test_a_bank_of_before_has_its_digest_and_its_splits(bank: Bank, capsys: pytest.CaptureFixture[str]) -> None:
    assert bank.digest == DIGEST and bank.lineages == ["A549", "THP1"]
    assert {split: len(bank.split(split)) for split in ("train", "test", "holdout")} == {
        "train": 4,
        "test": 2,
        "holdout": 2,
    }
    assert all(len(frame.centres) == frame.count for frame in bank.frames)
    assert main(["bank", "show", bank.store.uri]) == 0
    assert f"8 frames, 0 set aside, digest {DIGEST[:12]}" in capsys.readouterr().out


def test_a_bank_of_before_takes_more_frames_and_moves_none(bank: Bank) -> None:
    before = {frame.frame: frame for frame in bank.frames}
    assert (
        bank.add(
            [Frame(frame="0" * 64, source="new.png", lineage="A549", group="new", count=1.0, height=200, width=200)]
        ).added
        == 1
    )
    again = Bank.open(bank.store.uri)
    assert again.digest == bank.digest != DIGEST
    assert {frame.frame: frame for frame in again.frames if frame.frame in before} == before


def test_a_registry_of_before_is_listed_and_sound(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    assert {one.ref: (one.aliases, one.problem) for one in registry.versions()} == {
        "classifier@1": (["champion", "paper"], None),
        "regressor@1": (["champion"], None),
    }
    assert [finding for finding in verify(registry) if finding.problem] == []
    assert main(["registry", "show", "regressor:champion", "--json", "--registry", registry.store.uri]) == 0
    shown, stored = json.loads(capsys.readouterr().out), json.loads(registry.record(registry.resolve("regressor@1")))
    assert shown == stored and stored["card"]["bank_digest"] == DIGEST
    assert main(["registry", "show", "regressor:champion", "--registry", registry.store.uri]) == 0


def test_models_of_before_answer_as_they_did(bank: Bank, registry: Registry) -> None:
    [frame] = [frame for frame in bank.frames if frame.frame == FRAME]
    named = Predictor.load(registry, "classifier:champion").answer(bank.pixels(frame))
    counted = Predictor.load(registry, "regressor:champion").answer(bank.pixels(frame))
    assert named.probabilities == pytest.approx({"A549": A549, "THP1": 1 - A549}, abs=1e-5)
    assert counted.count == pytest.approx(COUNT, abs=1e-4)
    assert named.unfamiliar is counted.unfamiliar is True


def test_champions_of_before_are_served(bank: Bank, registry: Registry) -> None:
    meters = Meters()
    shelf = Shelf(registry, lambda version: load_model(registry, version), meters=meters)
    client = TestClient(make_api(Answerer(shelf, Limits(), meters)))
    image = bank.store.get(f"pixels/{FRAME}.png")
    [said] = client.post("/v1/predict", content=image, headers={"Content-Type": "image/png"}).json()["predictions"]
    assert said["models"] == {"classifier": "classifier@1", "regressor": "regressor@1"}
    assert said["probabilities"]["A549"] == pytest.approx(A549, abs=1e-3)
    assert said["count"] == pytest.approx(COUNT, rel=1e-3)


def test_versions_of_before_are_promoted_exported_and_imported(registry: Registry, tmp_path: Path) -> None:
    old = registry.resolve("regressor@1")
    new = publish_folder(registry, export_version(registry, old.ref, tmp_path / "exported"))
    assert new.ref == "regressor@2" and (new.card, new.blobs) == (old.card, old.blobs)
    assert json.loads(registry.record(new))["format"] == 1
    move = registry.promote(new.ref, "champion")
    assert (move.entry, move.previous) == (2, 1) and registry.rollback("regressor", "champion").number == 1
    copy = import_version(Registry.open(tmp_path / "other"), registry, "classifier:paper")
    assert copy.card == registry.resolve("classifier@1").card and copy.origin is not None
    assert [finding for finding in verify(registry) if finding.problem] == []


def test_records_of_runs_of_before_are_read() -> None:
    files = sorted(DATA.glob("runs/*/run.json"))
    for file in files:
        recipe = json.loads(file.read_text())
        check_format(recipe, 1, str(file))
        config = read_stored(TrainConfig, recipe["config"], str(file))
        assert (config.epochs, config.model.width, recipe["bank_digest"]) == (2, 4, DIGEST)
    assert len(files) == 2


@pytest.mark.ray
@pytest.mark.parametrize(("ref", "score"), [("classifier:champion", "accuracy"), ("regressor:champion", "mae")])
def test_models_of_before_are_evaluated(
    ray_started: None, bank: Bank, registry: Registry, ref: str, score: str
) -> None:
    from cellnet.places import Places
    from cellnet.store.place import place_of
    from pipelines.evaluate import evaluate

    places = Places(bank=place_of(bank.store.uri), registry=place_of(registry.store.uri))
    told = registry.resolve(ref).card.scores["test"][score]
    assert evaluate(ref, places, split="test").scores["tile"][score] == pytest.approx(told, abs=1e-3)
