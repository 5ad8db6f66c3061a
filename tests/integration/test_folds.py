"""A training by folds on a real local Ray: it goes on where it stopped, and no network answers what it learned from."""

import csv
import shutil
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import ray
import ray.tune

import pipelines.folds
import pipelines.heads
from cellnet.bank.bank import Bank
from cellnet.bank.frames import Frame
from cellnet.bank.labels import Label
from cellnet.config.train import TrainConfig
from cellnet.errors import ConfigError, DataError, NotBetterError
from cellnet.networks.weights import weights_to_bytes
from cellnet.places import Places
from cellnet.prediction.predictor import Predictor, predictor_of
from cellnet.registry.kept import answers_from_parquet
from cellnet.registry.records import ANSWERS, Relearned
from cellnet.sample import write_sample
from cellnet.store.place import place_of
from cellnet.training.checkpoint import state_from_bytes
from cellnet.training.plan import make_plan
from cellnet.training.shards import SPLITS
from cellnet.untrusted import WEIGHTS
from pipelines.calibrate import recalibrate
from pipelines.evaluate import evaluate
from pipelines.folds import FoldsJob
from pipelines.ingest import ingest
from pipelines.promote import promote, weigh
from pipelines.runs import Run
from pipelines.shards import dataset_of, make_shards
from pipelines.train import train
from tests.factories import quick_config

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


def test_folds_go_on_where_they_stopped_and_score_by_networks_that_had_not_learned_from_a_frame(
    sample_bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places, bank = Places(bank=place_of(sample_bank), registry=place_of(tmp_path / "registry")), Bank.open(sample_bank)
    wanted, registry = quick_config("count", folds=2, threads=1), places.open_registry()
    first = train(places, wanted)
    [run] = (tmp_path / "runs").iterdir()
    trained = {fold: (run / f"trials/fold-{fold}.state").read_bytes() for fold in (1, 2)}

    # As if it had been killed in the second epoch of the second fold.
    (run / "finished.json").unlink()
    shutil.rmtree(run / "refit")
    (run / "trials/fold-2.state").unlink()
    plan = make_plan(bank, wanted)
    shards = make_shards(bank, plan)
    tiles = {fold: sum(of != fold for of in plan.folds.fold_of.values()) * 4 for fold in (1, 2)}
    job = FoldsJob(run=Run(places.open_runs(), run.name), plan=plan, shards=shards, tiles=tiles)
    data = {split: dataset_of(shards, split, "frame").materialize() for split in SPLITS}
    lines = Mock()
    lines.add.remote.return_value = ray.put(None)
    monkeypatch.setattr(ray.tune, "report", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        pipelines.folds._train_fold({"fold": 2}, job, data, lines)
    monkeypatch.undo()

    said: list[str] = []
    again = train(places, wanted, resume=True, say=said.append)
    assert "1 of 2 folds are trained already" in said
    assert [line[:19] for line in said if line.startswith("fold ")] == ["fold 2/2  epoch   2"]
    assert (run / "trials/fold-1.state").read_bytes() == trained[1]
    ended, whole = (state_from_bytes(data) for data in ((run / "trials/fold-2.state").read_bytes(), trained[2]))
    assert weights_to_bytes(ended.weights) == weights_to_bytes(whole.weights)
    for role in (WEIGHTS, ANSWERS):
        assert registry.read(again, role) == registry.read(first, role), role

    card = first.card
    assert (card.config.holdout, card.scores.keys()) == ("use", {"folds"})
    assert str(card.cross_validation) == "cross-validated over 2 folds of 12 groups"
    assert (card.calibration.frames, card.calibration.tiles) == (24, 96)
    scores = evaluate(first.ref, places).scores
    assert (scores["split"], scores["frame"]["n"], scores["tile"]["n"]) == ("folds", 24, 96)
    assert scores["tile"]["mae"] == pytest.approx(card.scores["folds"]["mae"]), "by the answers that it keeps"
    assert scores["tile"]["coverage"] == pytest.approx(0.9, abs=0.06) and scores["frame"]["unfamiliar"] <= 0.2
    held = [frame for frame in bank.frames if plan.folds.fold_of[frame.frame] == 2]
    raw = card.model_copy(update={"calibration": None})
    of_fold = predictor_of("fold 2", raw, whole.weights).predict(bank.pixels(held[0]))
    kept = {answer.frame: answer for answer in answers_from_parquet(registry.read(first, ANSWERS), card, first.ref)}
    np.testing.assert_allclose(kept[held[0].frame].tile_outputs, of_fold.tile_outputs, rtol=1e-4, atol=1e-4)
    assert kept[held[0].frame].fold == 2

    promote(first.ref, "champion", places)
    with pytest.raises(NotBetterError, match=r"per tile of the folds \(n=96, 12 groups\)"):
        promote(again.ref, "champion", places)
    plain = card.model_copy(update={"cross_validation": None, "config": quick_config("count", holdout="keep")})
    other = registry.publish("other", {WEIGHTS: registry.read(first, WEIGHTS)}, plain)
    assert {weigh(*pair, places).split for pair in ((first.ref, other.ref), (other.ref, first.ref))} == {"holdout"}
    with pytest.raises(ConfigError, match=r"learned from the test split of .* on a bank of other frames"):
        recalibrate(first.ref, places)
    with pytest.raises(DataError, match="other@1 was not trained by folds, and keeps no answers; try --split holdout"):
        evaluate(other.ref, places, split="folds")


def test_a_counter_of_few_frames_learns_from_their_counts_alone_and_is_scored_on_batches_that_are_left_out(
    sample_bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines.heads, "LEAST_STEPS", 200)
    images = sample_bank.parent / "images"
    with (images / "manifest.csv").open() as file:
        rows = [row | {"batch": f"day {number % 4 // 2}"} for number, row in enumerate(csv.DictReader(file))]
    shutil.copytree(images / "images", tmp_path / "counted" / "images")
    with (tmp_path / "counted" / "manifest.csv").open("w", newline="") as file:  # and no points.csv beside it
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    places = Places(bank=place_of(tmp_path / "bank"), registry=place_of(tmp_path / "registry"))
    ingest(tmp_path / "counted" / "manifest.csv", places)
    said: list[str] = []
    alone = train(places, TrainConfig(task="count", folds="batch", threads=1), say=said.append)
    assert said[0].startswith("2 batches are left out in turn, and each is scored by a network without it")
    assert "features of 96 train tiles of every place are computed" in said
    card = alone.card
    network = card.config.model
    assert (network.architecture, network.frozen, card.config.greys) == ("efficientnet_lite0", True, "background")
    assert str(card.cross_validation) == "each of 2 batches left out in turn, 12 groups"
    assert card.batch_scores is not None and card.batch_scores["same"] is None
    scores = evaluate(alone.ref, places).scores
    assert (scores["split"], scores["batches"]["same"], scores["batch_validation"]) == ("folds", None, None)
    new = scores["batches"]["new"]["frame"]
    assert (new["n"], new["mae"]) == (24, scores["frame"]["mae"])
    assert new["r2"] > 0.3, new

    both = train(places, TrainConfig(task="count", folds=2, threads=1), say=said.append)
    assert "the last layers of batch 2/2 have learnt to count" in said
    card = both.card
    assert (str(card.cross_validation), str(card.batch_validation)) == (
        "cross-validated over 2 folds of 12 groups",
        "each of 2 batches left out in turn, 12 groups",
    )
    columns = evaluate(both.ref, places).scores["batches"]
    assert columns["new"]["frame"]["mae"] == pytest.approx(new["mae"], rel=1e-3), "by the same networks"
    assert columns["same"]["frame"]["n"] == 24 and columns["same"]["frame"]["mae"] != columns["new"]["frame"]["mae"]
    assert card.batch_scores["new"]["frame"].value == columns["new"]["frame"]["mae"]
    assert card.calibration.frame_quantile == pytest.approx(alone.card.calibration.frame_quantile, rel=1e-3)
    evidence = weigh(both.ref, alone.ref, places)
    assert (evidence.split, evidence.batches) == ("folds", "new") and abs(evidence.difference) < 1e-3


def test_a_counter_learns_an_instrument_it_never_saw_from_corrected_frames_and_keeps_what_it_knew(
    sample_bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines.heads, "LEAST_STEPS", 200)
    places = Places(bank=place_of(tmp_path / "bank"), registry=place_of(tmp_path / "registry"))
    old = write_sample(tmp_path / "old", wells_per_lineage=6, fields_per_well=1, lineages=("THP1", "A172"))
    new = write_sample(tmp_path / "new", wells_per_lineage=8, fields_per_well=1, seed=1, lineages=("THP1", "A172"))
    for manifest in (old, new):
        (manifest.parent / "points.csv").unlink()
    with new.open() as file:
        counts = {row["image"]: float(row["count"]) for row in csv.DictReader(file)}
    rows = ["image,lineage,count,group", *(f"{image},,,plate 2 {image[:-4]}" for image in counts)]
    new.write_text("\n".join(rows))
    for image in counts:  # another focus, another gain
        sharp_HW = cv2.imread(str(new.parent / image), cv2.IMREAD_GRAYSCALE)
        dull_HW = 128 + 0.4 * (cv2.GaussianBlur(sharp_HW, (0, 0), 3).astype(np.float32) - 128)
        cv2.imwrite(str(new.parent / image), dull_HW.astype(np.uint8))
    ingest(old, places)
    config = TrainConfig(task="count", folds=0, holdout="keep", threads=1)
    parent = train(places, config)
    promote(parent.ref, "champion", places)
    ingest(new, places)
    bank = places.open_bank()
    counted = {frame.frame: counts[f"images/{Path(frame.source).name}"] for frame in bank.frames if not frame.count}
    known = [frame for frame in bank.frames if frame.frame in counted]
    ten = [frame for frame in known if frame.split != "holdout"][:10]
    bank.label([Label(frame=frame.frame, count=counted[frame.frame]) for frame in ten], by="ana")

    said: list[str] = []
    start = config.model.model_copy(update={"weights": "regressor:champion"})
    child = train(places, config.model_copy(update={"model": start}), say=said.append)
    told = Relearned(corrected=10, new=0, entries=(3, 3))
    assert (child.card.parent, child.card.relearned, child.card.bank_entry) == (parent.ref, told, 3)
    assert f"from {parent.ref}; what it had not learned: 10 corrections of entry 3" in said
    network = child.card.config.model
    assert (network.architecture, network.frozen) == ("efficientnet_lite0", True)
    assert parent.card.focus and child.card.focus and child.card.focus.limit < parent.card.focus.limit / 2
    registry = places.open_registry()
    assert registry.resolve("regressor:champion").ref == parent.ref, "promotion is offered"

    def off(ref: str, frames: list[Frame], truths: dict[str, float]) -> float:
        model = Predictor.load(registry, ref)
        return float(np.mean([abs(model.predict(bank.pixels(one)).count - truths[one.frame]) for one in frames]))

    left = [frame for frame in known if frame not in ten]
    before = {frame.frame: float(frame.count) for frame in bank.frames if frame.count and frame.frame not in counted}
    holdout = [frame for frame in bank.frames if frame.frame in before and frame.split == "holdout"]
    assert len(left) == 6 and holdout
    was, became = (off(ref, left, counted) for ref in (parent.ref, child.ref))
    assert became < 0.8 * was, (was, became)
    was, became = (off(ref, holdout, before) for ref in (parent.ref, child.ref))
    assert became < 1.3 * was + 1, (was, became)
