"""The Ray jobs on a real local Ray: shards by Ray Data, training by Ray Train, a search by Ray Tune."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final
from unittest.mock import Mock

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import safetensors.torch
import torch

import cellnet.training.shards
import pipelines.shards
from cellnet.bank.bank import Bank
from cellnet.certainty.familiarity import FAMILIARITY
from cellnet.cli import main
from cellnet.config.train import Augment, ModelSpec, TrainConfig
from cellnet.errors import ConfigError, DataError, NotBetterError, NotFoundError
from cellnet.evaluation.evaluations import worst_rows
from cellnet.networks.pretrained import imagenet_start
from cellnet.networks.weights import weights_to_bytes
from cellnet.places import Places
from cellnet.prediction.predictor import Predictor
from cellnet.registry.exchange import import_version
from cellnet.registry.records import REPORT
from cellnet.reports.evaluation_report import write_report
from cellnet.sample import write_sample
from cellnet.store.place import Place, place_of
from cellnet.training.plan import make_plan
from cellnet.training.shards import Shards
from cellnet.training.tiles import Variants, make_tiles
from cellnet.untrusted import WEIGHTS
from pipelines import cluster
from pipelines.evaluate import evaluate
from pipelines.failures import told
from pipelines.ingest import ingest
from pipelines.predict import predict
from pipelines.promote import promote
from pipelines.shards import batches, dataset_of, make_shards
from pipelines.train import train
from tests.factories import quick_config

pytestmark = pytest.mark.ray


@pytest.fixture
def places(trained: Places) -> Places:
    return trained


def shards_for(bank: Path, wanted: TrainConfig) -> Shards:
    opened = Bank.open(bank)
    return make_shards(opened, make_plan(opened, wanted))


def test_shards_hold_the_tiles_that_the_library_makes(sample_bank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cellnet.training.shards, "FRAMES_A_FILE", 3)
    bank = Bank.open(sample_bank)
    wanted = TrainConfig(task="classify", folds=0, augment=Augment(shares=(1.0, 0.25), shifts=0, orientation="stored"))
    plan = make_plan(bank, wanted)
    shards = make_shards(bank, plan)
    files = sorted((sample_bank / shards.folder / "train").glob("*.parquet"))
    assert len(files) > 1
    stored = [row for file in files for row in pq.read_table(file).select(["frame", "count", "share"]).to_pylist()]
    made = [
        tile
        for frame in bank.split("train")
        for tile in make_tiles(
            frame,
            bank.pixels(frame),
            plan.preprocess,
            Variants(shares=(1.0, 0.25), orientations=(0, 90, 180, 270)),
            label=0,
            seed=0,
        )
    ]
    assert len(stored) == len(made) == shards.rows["train"] == len(bank.split("train")) * 4 * 8
    key = [(row["frame"], row["count"], row["share"]) for row in stored]
    assert sorted(key) == sorted((tile.frame, tile.count, tile.share) for tile in made)
    rows = dataset_of(shards, "train").take_all()
    assert sum(int(row["pixels"].sum()) for row in rows) == sum(int(tile.pixels_HW.sum()) for tile in made)


def rows_of(bank: Path, shards: Shards) -> Iterator[str]:
    """The train and test rows in the order in which a training reads them."""
    for split in ("train", "test"):
        files = sorted((bank / shards.folder / split).glob("*.parquet"))
        stored = [row for file in files for row in pq.read_table(file).to_pylist()]
        read = dataset_of(shards, split).take_all()
        assert [row["pixels"] for row in stored] == [row["pixels"].tobytes() for row in read]
        assert [row["cells"] for row in stored] == [row["cells"].tobytes() for row in read]
        assert [int(row["cells"].sum()) for row in read] == [row["count"] for row in read]
        yield from (repr(row) for row in stored)


def test_shards_are_the_same_rows_on_any_number_of_workers_and_for_any_size_of_file(
    sample_bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = TrainConfig(
        task="count", folds=0, augment=Augment(shares=(1.0, 0.5), shifts=1, orientation="stored"), seed=3
    )
    made = []
    for blocks, tiles_a_file, frames_a_file in ((2, 512, 16), (5, 512, 3), (9, 40, 16)):
        bank = shutil.copytree(sample_bank, tmp_path / f"{blocks}", ignore=shutil.ignore_patterns("shards"))
        monkeypatch.setattr(cluster, "cpus", lambda blocks=blocks: blocks / cluster.BLOCKS_PER_CPU)
        monkeypatch.setattr(cellnet.training.shards, "TILES_A_FILE", tiles_a_file)
        monkeypatch.setattr(cellnet.training.shards, "FRAMES_A_FILE", frames_a_file)
        shards = shards_for(bank, wanted)
        assert shards.fresh
        made.append(list(rows_of(bank, shards)))
    assert made[0] == made[1] == made[2]


def test_the_papers_protocol_draws_the_16_variants_of_seen_frames_and_publishes_scores_that_leak(
    ray_started: None, tmp_path: Path
) -> None:
    manifest = write_sample(tmp_path / "images", wells_per_lineage=3, lineages=("THP1", "A172"), size_px=200)
    places = Places(bank=place_of(tmp_path / "bank"), registry=place_of(tmp_path / "registry"))
    bank, _ = ingest(manifest, places)
    wanted = quick_config("classify", protocol="paper", kernel="sharpen", epochs=1)
    said: list[str] = []
    version = train(places, wanted, say=said.append)
    assert REPORT not in version.blobs and said[-1].startswith("published without a report: under protocol=paper")
    shards = make_shards(bank, make_plan(bank, wanted))
    seen = {frame.frame for frame in bank.frames if frame.split != "holdout"}
    assert not shards.fresh
    assert sum(shards.rows.values()) == len(seen) * 16
    frames = {split: {row["frame"] for row in dataset_of(shards, split, "frame").take_all()} for split in shards.rows}
    assert frames["train"] | frames["test"] | frames["holdout"] == seen
    assert frames["train"] & frames["test"] & frames["holdout"], "variants of a frame are on all sides"
    leaking = version.card.scores["drawn_holdout"]
    assert leaking["n"] == shards.rows["holdout"] and 0 <= leaking["accuracy"] <= 1
    assert 0 < version.card.scores["drawn_holdout_whole"]["n"] < leaking["n"] / 2, "a quarter of the shares is 1"
    assert version.card.preprocess.kernel == "none", "the lineage of an unknown image is not known"
    unseen = evaluate(version.ref, places)
    assert unseen.scores["protocol"] == "paper" and unseen.scores["frame"]["n"] == len(bank.split("holdout"))


def test_another_seed_gives_other_shards(sample_bank: Path, tmp_path: Path) -> None:
    def made(name: str, seed: int) -> list[str]:
        bank = shutil.copytree(sample_bank, tmp_path / name, ignore=shutil.ignore_patterns("shards"))
        wanted = TrainConfig(task="count", folds=0, augment=Augment(shares=(0.5,), shifts=0), seed=seed)
        return list(rows_of(bank, shards_for(bank, wanted)))

    first, other = made("first", 7), made("other", 8)
    assert len(first) == len(other) and set(first) != set(other)


@pytest.mark.parametrize("seed", [None, 3])
def test_an_epoch_has_every_tile_once_in_an_order_of_its_own(
    sample_bank: Path, monkeypatch: pytest.MonkeyPatch, seed: int | None
) -> None:
    monkeypatch.setattr(pipelines.shards, "SHUFFLE_TILES", 15)
    monkeypatch.setattr(pipelines.shards, "TILES_A_READ", 10)
    tiles = dataset_of(shards_for(sample_bank, quick_config("classify")), "train").materialize()
    read = batches(tiles, 5, seed=seed)
    epochs = [list(read(epoch)) for epoch in (1, 1, 2)]
    sizes = [[len(batch["label"]) for batch in epoch] for epoch in epochs]
    assert {tuple(of_epoch[:-1]) for of_epoch in sizes} == {(5,) * (len(sizes[0]) - 1)}, "only the last is smaller"
    first, again, other = ([tile.tobytes() for batch in epoch for tile in batch["pixels"]] for epoch in epochs)
    stored = [row["pixels"].tobytes() for row in tiles.take_all()]
    assert len(stored) > 15 + 10 and sorted(first) == sorted(other) == sorted(stored)
    assert first == again
    assert (first == stored) is (other == first) is (seed is None)


def test_the_second_training_finds_its_shards(sample_bank: Path) -> None:
    first = shards_for(sample_bank, quick_config("count", seed=5))
    second = shards_for(sample_bank, quick_config("count", seed=5, kernel="sharpen"))
    assert (first.fresh, second.fresh) == (True, False)
    assert second == first.model_copy(update={"store": second.store, "fresh": False})


def test_a_published_model_answers_as_the_trained_one(sample_bank: Path, places: Places) -> None:
    registry = places.open_registry()
    version = registry.resolve("classifier:champion")
    bank = Bank.open(sample_bank)
    assert version.card.classes == ["3T3", "A172", "THP1"]
    assert version.card.bank_digest == bank.digest
    assert version.card.preprocess.tile_px == (200, 200)
    assert set(version.card.scores["test"]) == {"accuracy", "balanced_accuracy"}
    said = Predictor.load(registry, version.ref).predict(bank.pixels(bank.frames[0]))
    assert said.probability_K.sum() == pytest.approx(1, abs=1e-5)


def test_evaluation_takes_every_frame_of_the_split_once(sample_bank: Path, places: Places) -> None:
    bank = Bank.open(sample_bank)
    scores = evaluate("classifier:champion", places).scores
    assert scores["frame"]["n"] == len(bank.split("holdout")) == 6
    assert scores["tile"]["n"] == 6 * 4
    assert sum(map(sum, scores["tile"]["confusion"])) == 24
    counted = evaluate("regressor:champion", places, split="all").scores
    assert counted["frame"]["n"] == 24
    assert set(counted["frame"]) >= {"n", "mae", "mse", "rmse", "r", "r2", "bias", "mape", "per_lineage"}


def test_a_published_model_is_calibrated_by_its_test_split(sample_bank: Path, places: Places) -> None:
    registry, bank = places.open_registry(), Bank.open(sample_bank)
    classifier, counter = (registry.resolve(f"{name}:champion") for name in ("classifier", "regressor"))
    tests = len(bank.split("test"))
    for version in (classifier, counter):
        assert (version.card.calibration.frames, version.card.calibration.tiles) == (tests, 4 * tests)
        assert FAMILIARITY in version.blobs
    assert classifier.card.calibration.temperature != 1
    scores = evaluate(counter.ref, places, split="test").scores
    assert scores["tile"]["coverage"] == pytest.approx(0.9, abs=0.06)
    assert scores["calibration"]["tile_quantile"] == counter.card.calibration.tile_quantile
    strange = Predictor.load(registry, counter.ref).answer(np.full((400, 400), 99, np.uint8))
    assert strange.unfamiliar is True and strange.quality == ["empty"]


def test_a_published_model_knows_how_sharp_its_training_frames_are(sample_bank: Path, places: Places) -> None:
    registry, bank = places.open_registry(), Bank.open(sample_bank)
    learned = len(bank.split("train")) + len(bank.split("test"))
    for name in ("classifier", "regressor"):
        model = Predictor.load(registry, f"{name}:champion")
        assert model.card.focus and model.card.focus.frames == learned
        for frame in bank.split("holdout"):
            image_HW = bank.pixels(frame)
            assert "out_of_focus" not in model.answer(image_HW).quality
            assert "out_of_focus" in model.answer(cv2.GaussianBlur(image_HW, (0, 0), 3)).quality


def test_a_report_shows_the_worst_frames_with_what_was_found_and_saliency(places: Places, tmp_path: Path) -> None:
    evaluation = evaluate("regressor:champion", places, pictures=True)
    page = write_report(tmp_path, evaluation).read_text(encoding="utf-8")
    rows = worst_rows("count", evaluation.frames)
    assert rows and [picture.row for picture in evaluation.worst] == rows
    assert page.count("data:image/jpeg") == 3 * len(rows)
    assert "set aside" not in page and len(page) < 3e6
    for picture in evaluation.worst:
        assert picture.cam_HW.shape == (200, 200) and picture.cam_HW.max() <= 1
        assert picture.found_HW is not None
        assert picture.found_HW.sum() == pytest.approx(evaluation.frames.output[picture.row], rel=1e-3)


def test_a_frame_that_rotted_is_left_out_of_the_evaluation_and_named(
    sample_bank: Path, places: Places, tmp_path: Path
) -> None:
    copied = Places(bank=place_of(shutil.copytree(sample_bank, tmp_path / "bank")), registry=places.registry)
    rotten = copied.open_bank().split("holdout")[0]
    (tmp_path / f"bank/pixels/{rotten.frame}.png").write_bytes(b"rot")
    scores = evaluate("classifier:champion", copied).scores
    assert scores["frame"]["n"] == 5
    assert len(scores["left_out"]) == 1 and scores["left_out"][0].startswith(rotten.source)


def test_prediction_counts_whole_frames_and_survives_a_bad_image(
    sample_bank: Path, places: Places, tmp_path: Path
) -> None:
    image_HW = np.tile(cv2.imread(str(next((sample_bank.parent / "images/images").glob("THP1*"))), 0), (2, 2))
    cv2.imwrite(str(tmp_path / "a.png"), image_HW)
    (tmp_path / "b.png").write_bytes(b"not an image")
    cv2.imwritemulti(str(tmp_path / "c.tif"), [image_HW[::-1], image_HW])
    good, bad, second = predict([tmp_path], places, page="middle")
    expected = Predictor.load(places.open_registry(), "regressor:champion").predict(image_HW)
    assert good.tiles == 16
    assert good.count == pytest.approx(expected.count, abs=1e-3)
    assert good.models.classifier == "classifier@1" and good.magnification == "assumed"
    assert bad.error is not None and "b.png" in bad.error and bad.count is None
    assert second.image.endswith("c.tif#2") and second.count == pytest.approx(good.count, abs=1e-3)


def test_an_alias_moves_to_what_is_better_on_the_holdout_or_by_force(
    places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = places.open_registry()
    good = registry.resolve("regressor:champion")
    files = {role: registry.read(good, role) for role in good.blobs}
    weights = safetensors.torch.load(files[WEIGHTS])
    blind = files | {WEIGHTS: weights_to_bytes({name: torch.zeros_like(value) for name, value in weights.items()})}
    for held in (blind, files, files):
        registry.publish("rival", held, good.card)
    elsewhere = replace(places, bank=Place(""))  # the bank is the one that the challenger was trained on
    assert promote("rival@1", "champion", elsewhere).evidence is None, "it pointed at nothing"
    said: list[str] = []
    move = promote("rival@2", "champion", elsewhere, say=said.append)
    assert move.evidence is not None and move.evidence.champion == 1 and move.evidence.interval[0] > 0
    wanted = [evaluate(f"rival@{number}", places).scores["tile"]["mae"] for number in (2, 1)]
    assert move.evidence.values == pytest.approx(wanted)
    assert said == [f"rival@2 beside rival@1: {move.evidence}"]
    for ref in ("rival@1", "rival@3"):
        with pytest.raises(NotBetterError, match=rf"{ref} is not shown to be better than rival:champion, rival@2: mae"):
            promote(ref, "champion", elsewhere)
    with pytest.raises(ConfigError, match="--force needs a --reason"):
        promote("rival@3", "champion", elsewhere, force=True, reason=" ")
    promote("rival@3", "champion", elsewhere, force=True, reason="a plate of its own")
    assert main(["registry", "history", "rival", "champion", "--registry", str(places.registry)]) == 0
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.endswith("rival@1: the first")
    assert second.endswith(f"rival@2 (before: rival@1): {move.evidence}")
    assert third.endswith("rival@3 (before: rival@2): a plate of its own")


@pytest.mark.whole  # test_tune.py publishes such a one, and unit/pipelines/test_heads.py has its parts
def test_a_frozen_network_that_knows_photographs_is_trained_by_its_last_layer_and_sees_tiles_once(
    sample_bank: Path, tmp_path: Path
) -> None:
    places = Places(bank=place_of(sample_bank), registry=place_of(tmp_path / "registry"))
    lite = ModelSpec(architecture="efficientnet_lite0", frozen=True)
    wanted = quick_config("classify", model=lite, augment=Augment(shares=(1.0,), shifts=0))
    said: list[str] = []
    version = train(places, wanted, say=said.append)
    looks = "in 8 orientations, and as other instruments would have recorded them, are computed"
    assert f"features of 48 train tiles {looks}" in said
    card = version.card
    assert card.start is not None and (card.start.source, card.start.licence) == ("imagenet", "Apache-2.0")
    assert (card.config.model.weights, card.preprocess.std, card.parent) == ("imagenet", 0.5, None)
    held = Predictor.load(places.open_registry(), version.ref).network.state_dict()
    start = imagenet_start("efficientnet_lite0").weights
    assert all(torch.equal(held[name], start[name]) for name in held if name.startswith("body."))
    assert evaluate(version.ref, places).scores["tile"]["accuracy"] > 0.6, "of three lineages"
    said.clear()
    again = train(places, wanted, say=said.append)
    assert again.blobs[WEIGHTS] == version.blobs[WEIGHTS]
    assert not any("are computed" in line for line in said)


def test_a_comparison_without_a_bank_says_so(places: Places) -> None:
    registry = places.open_registry()
    champion = registry.resolve("regressor:champion")
    assert champion.card.lineages == ("3T3", "A172", "THP1")
    files = {role: registry.read(champion, role) for role in champion.blobs}
    gone = registry.publish("regressor", files, champion.card.model_copy(update={"bank": "/nowhere/bank"}))
    with pytest.raises(ConfigError, match=f"no bank to compare {gone.ref} and {champion.ref} on: .* with --bank"):
        promote(gone.ref, "champion", replace(places, bank=Place("")))


def test_a_counter_of_one_lineage_on_s3_sees_no_other_and_is_published_though_its_command_died_before_it_did(
    sample_bank: Path, trained: Places, moto: str, credentials: None, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = Place("s3://lab/jobs", moto)
    places = Places(bank=jobs.below("bank"), registry=jobs.below("registry"))
    bank, imported = ingest(sample_bank.parent / "images", places)
    assert imported.added == 24 and bank.digest == Bank.open(sample_bank).digest
    wanted = quick_config("count", lineage="A172")
    said: list[str] = []
    counter = train(places, wanted, say=said.append)
    assert counter.ref == "regressor-A172@1" and "16 training tiles of 200×200 px of A172 alone" in said[0]
    own = {split: {one.frame for one in bank.split(split) if one.lineage == "A172"} for split in ("train", "test")}
    shards = make_shards(bank, make_plan(bank, wanted))
    assert {split: {row["frame"] for row in dataset_of(shards, split, "frame").take_all()} for split in own} == own
    assert counter.card.calibration.frames == len(own["test"])

    [finished] = [key for key in places.open_runs().keys("") if key.endswith("/finished.json")]
    places.open_runs().delete(finished)
    said.clear()
    resumed = train(places, wanted, resume=True, say=said.append)
    assert any("going on after epoch 2" in line for line in said)
    assert not any(line.startswith("epoch") for line in said), "every epoch was done"
    assert resumed.ref == "regressor-A172@2" and resumed.blobs[WEIGHTS] == counter.blobs[WEIGHTS]
    assert len({key.split("/")[0] for key in places.open_runs().keys("")}) == 1

    page = places.open_registry().read(counter, REPORT).decode().replace("<wbr>", "")
    assert "<h1>regressor-A172 (this version) on the A172 frames of the test split</h1>" in page
    scores = evaluate(counter.ref, places, split="test").scores
    assert scores["tile"]["mae"] == pytest.approx(counter.card.scores["test"]["mae"], abs=1e-3)
    there = ("--registry", str(places.registry), "--endpoint-url", moto)
    assert main(["evaluate", counter.ref, str(places.bank), *there]) == 0
    assert capsys.readouterr().out.startswith("regressor-A172@1 on the A172 frames of the holdout split\n")

    general = import_version(places.open_registry(), trained.open_registry(), "regressor:champion").ref
    promote(general, "champion", places)
    compared = rf"of {general} per tile of A172 in the holdout \(n=8, 1 group\), .* one group alone shows nothing"
    with pytest.raises(NotBetterError, match=compared):
        promote(counter.ref, "champion", places)
    [answer] = predict([next((sample_bank.parent / "images/images").glob("THP1*"))], places)
    assert answer.count is not None and answer.models.regressor == "regressor@1"
    stored = {key.split("/")[0] for key in jobs.open().keys("")}
    assert stored == {"bank", "registry", "runs"}


def test_tiles_of_one_lineage_have_shards_of_their_own(sample_bank: Path) -> None:
    of_one = shards_for(sample_bank, quick_config("count", lineage="A172"))
    assert shards_for(sample_bank, quick_config("count")).folder != of_one.folder


def test_an_import_that_was_interrupted_goes_on_where_it_stopped(
    sample_bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tmp_path / "images"
    shutil.copytree(sample_bank.parent / "images", images)
    places = Places(bank=place_of(tmp_path / "bank"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Bank, "add", Mock(side_effect=KeyboardInterrupt))
        ingest(images, places)
    with pytest.raises(NotFoundError):
        places.open_bank()
    read = sorted((tmp_path / "bank" / "prepared").iterdir())
    kept = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in read]
    bank, imported = ingest(images, places)
    assert imported.added == 24 and bank.digest == Bank.open(sample_bank).digest
    assert sorted((tmp_path / "bank" / "prepared").iterdir()) == read, "nothing was read anew"
    assert [(path.stat().st_ino, path.stat().st_mtime_ns) for path in read] == kept


DIES: Final = """
import os, signal, sys
from cellnet.cli.program import main
from cellnet.store.log import Log
Log.append = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
main(sys.argv[1:])
"""
"""An import that is killed when all that it writes is there but the entry that makes it a bank."""


def test_an_import_that_is_killed_before_its_last_write_leaves_no_half_bank(
    sample_bank: Path, joining: dict[str, str], tmp_path: Path
) -> None:
    folder, places = tmp_path / "bank", Places(bank=place_of(tmp_path / "bank"))
    command = [sys.executable, "-c", DIES, "bank", "import", str(sample_bank.parent / "images"), str(folder)]
    killed = subprocess.run(command, env=os.environ | joining, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = sorted(path for path in folder.rglob("*") if path.is_file())
    assert {path.parent.name for path in left} == {"bank", "pixels", "prepared", "parts"}
    assert not places.open_bank().frames
    stamps = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in left]
    bank, imported = ingest(sample_bank.parent / "images", places)
    assert imported.added == 24 and bank.digest == Bank.open(sample_bank).digest
    assert [(path.stat().st_ino, path.stat().st_mtime_ns) for path in left] == stamps, "all of it was used"
    assert sorted(path for path in folder.rglob("*") if path.is_file() and path not in left) == [
        folder / "log" / "000001.json"
    ]


def test_an_import_again_changes_nothing(sample_bank: Path) -> None:
    before = Bank.open(sample_bank)
    bank, imported = ingest(sample_bank.parent / "images", Places(bank=place_of(sample_bank)))
    assert (imported.added, imported.known) == (0, len(before.frames))
    assert bank.digest == before.digest


def test_an_import_tells_what_of_its_source_was_not_used(sample_bank: Path, tmp_path: Path) -> None:
    image = next((sample_bank.parent / "images").rglob("*.png"))
    (tmp_path / "in" / "A549").mkdir(parents=True)
    shutil.copy(image, tmp_path / "in" / "A549" / "a.png")
    (tmp_path / "in" / "counts.csv").write_text("image,count\na.png,3\nb.png,4\n")
    bank, imported = ingest(tmp_path / "in", Places(bank=place_of(tmp_path / "bank")))
    assert [(frame.lineage, frame.count) for frame in bank.frames] == [("A549", 3)]
    assert [(item.what, item.reason) for item in imported.unused] == [("counts.csv line 3: b.png", "no_image")]


def test_what_a_worker_cannot_write_is_told_in_a_line(
    sample_bank: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bank = tmp_path / "bank"
    bank.mkdir()
    (bank / "pixels").write_bytes(b"")  # where a folder should be
    assert main(["bank", "import", str(sample_bank.parent / "images"), str(bank)]) == 2
    *_, line = (printed := capfd.readouterr()).err.splitlines()
    assert line.startswith("cellnet: cannot write pixels/") and line.endswith(f"in {bank}: File exists")
    assert printed.out == "" and "ERROR" not in printed.err and "Traceback" not in printed.err


def test_a_worker_that_is_killed_is_told_in_a_line_and_ray_is_silent(
    ray_started: None, capfd: pytest.CaptureFixture[str]
) -> None:
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(ray.exceptions.WorkerCrashedError) as raised:
        ray.get(ray.remote(max_retries=0)(die).remote())
    assert str(told(raised.value)).startswith("a worker process died, most often since the memory")
    assert capfd.readouterr() == ("", "")


def test_a_source_without_one_good_image_is_an_error(ray_started: None, tmp_path: Path) -> None:
    (tmp_path / "X").mkdir()
    (tmp_path / "X" / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"no image of .* can be used; the first of 1, "):
        ingest(tmp_path, Places(bank=place_of(tmp_path / "bank")))
    assert not (tmp_path / "bank").exists()
