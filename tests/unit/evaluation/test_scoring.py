"""What a model says of a bank's frames: which it knew before, and how it does on the others, batch by batch."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellnet.bank.bank import Bank
from cellnet.bank.labels import Label
from cellnet.bank.prepare import prepare
from cellnet.config.train import ModelSpec
from cellnet.evaluation.evaluations import chosen_of, how_new
from cellnet.evaluation.scoring import evaluation_of, kept_answer, score_frame, scored_by
from cellnet.images.file import ImageFile, encode_png
from cellnet.networks.weights import fresh_network
from cellnet.prediction.predictor import Predictor
from cellnet.readers import LabelledFile
from cellnet.registry.learned import Learned
from cellnet.registry.records import Card, CrossValidation, ModelVersion
from tests.factories import Known, card, discs

BATCHES = ("P1", "P1", "P2", "P3", "P3", None)


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    """Six frames of four tiles, some of whose batches are known, and a darker copy of the first, `6.png`."""
    bank = Bank.create(tmp_path / "bank")
    images = [discs(8, seed=n, size=(400, 400))[0] for n in range(6)]
    for n, image_HW in enumerate([*images, images[0] // 2]):
        (tmp_path / f"{n}.png").write_bytes(encode_png(image_HW))
        known = {"batch": (*BATCHES, "P1")[n], "group": f"w{n}", "count": 8.0, "time_h": 12.0 * n}
        file = LabelledFile(image=ImageFile.at(tmp_path / f"{n}.png"), lineage="A549", **known)
        bank.add([prepare(file, bank.store)])
    return bank


def scores_of(bank: Bank, learned: Learned | None) -> dict[str, Any]:
    """Of a counter that says 1 for every tile, over the whole bank."""
    model = Known(ModelVersion(name="regressor", number=1, blobs={}, card=card(tile_px=(200, 200))))
    scored = [score_frame(model, frame, bank.store, with_features=False) for frame in bank.frames]
    return evaluation_of(model, scored, bank, split="all", lineage=None, left_out=[], learned=learned).scores


def test_frames_that_were_learned_from_and_their_copies_are_counted_and_are_in_no_column(bank: Bank) -> None:
    first, second, *_ = bank.frames
    scores = scores_of(bank, Learned.of([first]))
    assert (scores["frame"]["n"], scores["learned"]) == (7, 2)
    same, new = scores["batches"]["same"], scores["batches"]["new"]
    assert (same["frame"]["n"], same["tile"]["n"], same["frame"]["mae"]) == (1, 4, 4.0)
    assert (new["frame"]["n"], new["tile"]["n"]) == (3, 12), "that of no known batch is in neither"
    assert [(age["from"], age["to"], age["frame"]["n"]) for age in scores["by_age"]] == [(12, 36, 3), (48, 60, 2)]
    assert scores_of(bank, Learned.of([first, second]))["batches"]["same"] is None


def test_a_model_that_saw_none_of_them_is_said_to_have_seen_none(bank: Bank) -> None:
    scores = scores_of(bank, Learned(frozenset({"0" * 64}), frozenset({"P0"})))
    assert scores["learned"] == 0 and scores["batches"]["same"] is None and scores["batches"]["new"]["frame"]["n"] == 6


@pytest.mark.parametrize(
    ("folds", "frames_of_no_batch", "same", "new"),
    [
        ((1, 2, 1, 1, 2), False, 4, 1),  # P2 is in one fold, the others in two
        ((1, 2, 1, 1, 2), True, 4, None),  # what taught that fold may have been of P2
        ((1, 1, 1, 2, 2), False, None, 5),
        ((1, 2, 0, 2, 2), False, 2, 2),  # the only frame of P2 taught both
    ],
)
def test_by_folds_a_batch_is_new_where_no_other_fold_had_any_of_it(
    bank: Bank, folds: tuple[int, ...], frames_of_no_batch: bool, same: int | None, new: int | None
) -> None:
    validated = CrossValidation(folds=2, frames=5, groups=5)
    made = card(tile_px=(200, 200)).model_copy(update={"cross_validation": validated})
    model = Known(ModelVersion(name="regressor", number=1, blobs={}, card=made))
    *frames, of_no_batch, _ = sorted(bank.frames, key=lambda frame: frame.group)
    fold_of = {frame.frame: fold for frame, fold in zip(frames, folds, strict=True) if fold}
    asked = [frame for frame in frames if frame.frame in fold_of]
    scored = [score_frame(model, frame, bank.store, with_features=False) for frame in asked]
    learned = Learned.of([*frames, of_no_batch] if frames_of_no_batch else frames)
    scores = evaluation_of(
        model, scored, bank, split="folds", lineage=None, left_out=[], learned=learned, folds=fold_of
    ).scores
    assert {side: of and of["frame"]["n"] for side, of in scores["batches"].items()} == {"same": same, "new": new}


def test_answers_of_networks_without_the_batch_are_the_column_of_new_batches(bank: Bank) -> None:
    validated = CrossValidation(folds=2, frames=6, groups=6)
    by_batch = CrossValidation(folds=2, frames=5, groups=5, by_batch=True)
    made = card(tile_px=(200, 200)).model_copy(update={"cross_validation": validated, "batch_validation": by_batch})
    model = Known(ModelVersion(name="regressor", number=1, blobs={}, card=made))
    scored = [score_frame(model, frame, bank.store, with_features=False) for frame in bank.frames[:6]]
    fold_of = {one.frame.frame: 1 + place % 2 for place, one in enumerate(scored)}
    scores = evaluation_of(
        model, scored, bank, split="folds", lineage=None, left_out=[], folds=fold_of, new=scored[:2]
    ).scores
    assert (
        scores["batches"]["new"]["frame"]["n"] == 2
        and how_new(scores) == "each of 2 batches left out in turn, 2 groups"
    )
    holdout = evaluation_of(model, scored, bank, split="holdout", lineage=None, left_out=[]).scores
    assert holdout["batch_validation"] is None and how_new(holdout) == ""


def test_of_a_model_of_before_nobody_knows_what_it_saw(bank: Bank) -> None:
    scores = scores_of(bank, None)
    assert scores["learned"] is None and scores["batches"] == {"same": None, "new": None}
    assert sum(age["frame"]["n"] for age in scores["by_age"]) == 7


@pytest.mark.parametrize("centres", [True, False])
def test_a_counters_worst_frames_come_with_what_it_found_and_where_cells_are_known(
    tmp_path: Path, centres: bool
) -> None:
    bank = Bank.create(tmp_path / "bank")
    image_HW, places = discs(8, seed=1, size=(800, 1600))
    (tmp_path / "a.png").write_bytes(encode_png(image_HW))
    known = {"count": 8.0} | ({"centres": tuple(map(tuple, places))} if centres else {})
    file = LabelledFile(image=ImageFile.at(tmp_path / "a.png"), lineage="A549", group="w", **known)
    bank.add([prepare(file, bank.store)])
    made = card(tile_px=(400, 400), intensity={"rule": "percentile"})
    spec = ModelSpec(architecture="density", width=4, depth=2, views=1)
    made = made.model_copy(update={"config": made.config.model_copy(update={"model": spec})})
    model = Predictor("regressor@1", made, fresh_network(made.config, 0, mean_count=9))
    scored = [score_frame(model, frame, bank.store, with_features=False) for frame in bank.frames]
    [picture] = evaluation_of(model, scored, bank, split="all", lineage=None, left_out=[], pictures=True).worst
    assert picture.frame_HW.shape == (320, 640) and picture.frame_HW.max() == 255
    assert picture.found_HW is not None and picture.found_HW.shape == (320, 640)
    assert picture.found_HW.sum() == pytest.approx(scored[0].outputs.count, rel=1e-4)
    boxes = [(box.top * 0.4, box.left * 0.4, box.bottom * 0.4, box.right * 0.4) for box in scored[0].outputs.boxes]
    tile = boxes.index(picture.box[:4])
    assert (picture.output, picture.truth) == (scored[0].outputs.tile_outputs[tile], scored[0].tile_counts[tile])
    if centres:
        assert picture.centres_N2 is not None
        assert picture.centres_N2 == pytest.approx(np.array(places, np.float32) * 0.4, abs=1e-3)
        assert picture.truth == picture.box.centres_inside(picture.centres_N2)
    else:
        assert picture.centres_N2 is None and picture.truth == 1.0


def counter_of(made: Card) -> Predictor:
    return Predictor("regressor@1", made, fresh_network(made.config, 0, mean_count=9))


def test_answers_that_were_kept_are_scored_on_what_is_said_of_the_frame_by_now(bank: Bank) -> None:
    model = counter_of(card(tile_px=(200, 200)))
    frame = bank.frames[0]
    answer = kept_answer(
        score_frame(model, frame, bank.store, with_features=False), model.card, fold=1, distance_N=None
    )
    assert scored_by(answer, frame, model).tile_counts == [2.0] * 4 == answer.truth_N.tolist()
    bank.label([Label(frame=frame.frame, points=((1, 1), (399, 1), (399, 2)))])
    assert scored_by(answer, bank.frames[0], model).tile_counts == [1.0, 2.0, 0.0, 0.0]


def test_answers_that_were_kept_of_a_frame_that_was_resized_are_of_its_tiles(bank: Bank) -> None:
    model = counter_of(card(tile_px=(200, 200), pixel_um=0.5))
    frame = replace(bank.frames[0], pixel_um=1.0, centres=[[99.0, 99.0], [101.0, 399.0]], count=2.0)
    scored = score_frame(model, frame, bank.store, with_features=False)
    answer = kept_answer(scored, model.card, fold=1, distance_N=None)
    assert len(scored.tile_counts) == 16 and scored_by(answer, frame, model).tile_counts == scored.tile_counts
    told_since = replace(frame, pixel_um=0.5)
    assert scored_by(answer, told_since, model).tile_counts == scored.tile_counts


def test_scores_say_on_which_labels_they_were_taken(bank: Bank) -> None:
    before = scores_of(bank, None)
    bank.label([Label(frame=bank.frames[0].frame, count=20)])
    after = scores_of(bank, None)
    assert (before["bank_entry"], after["bank_entry"]) == (7, 8)
    assert before["bank_digest"] != after["bank_digest"] == bank.digest
    assert after["frame"]["mae"] == pytest.approx(before["frame"]["mae"] + 12 / 7)


@pytest.mark.slow
def test_frames_that_were_chosen_are_counted_and_the_others_scored_where_they_are_enough(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scores_of(bank, None)["chosen"] is None
    first, second, third, *_ = bank.frames
    said = ((first, 104, "chosen"), (second, 4, "random"), (third, 4, "chosen"))
    entry = bank.label([Label(frame=frame.frame, count=count, drawn=drawn) for frame, count, drawn in said])
    scores = scores_of(bank, None)
    assert scores["chosen"] == {"frames": 2, "of": 7, "others": None}
    monkeypatch.setattr("cellnet.evaluation.scoring.ENOUGH_OTHERS", 5)
    scores = scores_of(bank, None)
    others = scores["chosen"]["others"]
    assert (others["frame"]["n"], others["tile"]["n"]) == (5, 20)
    assert others["frame"]["mae"] == pytest.approx(16 / 5) and scores["frame"]["mae"] == pytest.approx((100 + 16) / 7)
    chosen = chosen_of(scores)
    assert chosen is not None and chosen.others is not None and chosen.others["frame"].value == pytest.approx(16 / 5)
    assert str(chosen).startswith("2 of 7 frames were chosen because they are hard")
    bank.undo(entry)
    assert scores_of(bank, None)["chosen"] is None
