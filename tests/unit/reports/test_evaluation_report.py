"""The report as a page: what a reader must find on it."""

import base64
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from cellnet.errors import ConfigError
from cellnet.evaluation.batches import Answered, by_age, by_batch
from cellnet.evaluation.evaluations import Evaluation
from cellnet.evaluation.metrics import score
from cellnet.registry.learned import Side
from cellnet.registry.records import Card
from cellnet.reports.evaluation_report import write_report
from cellnet.reports.plots import INK, draw_history
from cellnet.reports.words import named
from tests.factories import card
from tests.unit.reports.evaluated import classified, counted, picture_of
from tests.unit.reports.reading import HOSTILE, assert_harmless, unbroken


def explained(score: str) -> str:
    """The cell of a table that names a score."""
    name, meaning = named(score)
    return f"{name}<small>{meaning}</small>"


def pictured(evaluation: Evaluation, card: Card) -> Evaluation:
    """With a picture of the first frame, and all that the pipeline adds."""
    cam_HW = np.zeros((200, 200), np.float32)
    cam_HW[:50, :50] = 1
    return replace(
        evaluation,
        card=card,
        bank_digest="d" * 64,
        held=[{"lineage": "<i>A549", "split": "train", "frames": 5, "groups": 3, "cells": 9}],
        set_aside=["<script>.png: not readable"],
        worst=[picture_of(evaluation, cam_HW=cam_HW)],
    )


def test_a_counters_report_shows_its_scores_its_worst_frame_and_what_was_left_out(tmp_path: Path) -> None:
    page = unbroken(write_report(tmp_path / "report", counted()))
    assert "<h1>regressor@3 on the holdout split</h1>" in page and '<p class="said">5.0 % off per frame' in page
    assert "<li>Holdout: kept aside" in page and "a tile is a part of it that the network sees at once" in page
    first = re.search(r"largest error</h2>.*?<tbody>\s*<tr>(.*?)</tr>", page, re.DOTALL)[1]
    assert first == "<td>d&lt;b&gt;.tif</td><td>15.0</td><td>18.0</td>"
    assert "<li>Left out: 1; see below.</li>" in page and "flatters" not in page
    stored = json.loads((tmp_path / "report/scores.json").read_text())
    assert stored["frame"]["mae"] == 0.75
    assert stored["plotted"]["tile"]["count"] == [1, 2, 3, 4, 5, 6, 7, 11]


@pytest.mark.slow
def test_scores_stand_in_a_table_as_wide_as_the_page_and_lineages_by_tile_and_frame(tmp_path: Path) -> None:
    page = unbroken(write_report(tmp_path, counted()))
    assert f"<tr><td>{explained('mae')}</td><td>0.375</td><td>0.750</td></tr>" in page
    for unit, row in (("tile", "8 0.375 1.061 0.375"), ("frame", "4 0.750 1.500 0.750")):
        table = page[page.index(f"Per {unit}, by lineage</h2>") :]
        assert table[table.index("<td>A549</td>") :].startswith(
            "".join(f"<td>{cell}</td>" for cell in ("A549", *row.split()))
        ), "without R and R²"


@pytest.mark.slow
def test_a_model_that_was_not_calibrated_is_not_called_so(tmp_path: Path) -> None:
    plain = classified()
    assert "calibrated: ECE" in unbroken(write_report(tmp_path, plain))
    page = unbroken(tmp_path / "report.html")
    assert "not calibrated: ECE" in page and "<small>not calibrated; " in page
    raw = replace(plain.tiles, raw=np.array([[0.99, 0.01], [0.1, 0.9], [0.8, 0.2]]))
    units = {unit: score("classify", raw, ["3T3", "A549"]) for unit in ("tile", "frame")}
    better = replace(plain, tiles=raw, frames=raw, scores=plain.scores | units)
    page = unbroken(write_report(tmp_path, better))
    assert "before calibration: ECE" in page and "not calibrated" not in page.replace("The model is not calibrated", "")


@pytest.mark.slow
@pytest.mark.parametrize("evaluation", [counted(), classified()], ids=["counted", "classified"])
def test_plots_are_in_the_page_itself_in_the_colour_of_its_text_and_small(
    tmp_path: Path, card: Callable, evaluation: Evaluation
) -> None:
    page = write_report(tmp_path, pictured(evaluation, card())).read_text(encoding="utf-8")
    assert len(re.findall('<div role="img" aria-label="[^"]+"><svg ', page)) >= 2
    assert "currentColor" in page and INK not in page
    assert len(page) < 1e6


def test_the_worst_tile_is_shown_plain_and_with_what_the_network_looks_at(tmp_path: Path, card: Callable) -> None:
    page = write_report(tmp_path, pictured(counted(), card())).read_text(encoding="utf-8")
    _, plain, overlaid = (
        cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        for data in re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    )
    assert np.abs(plain.astype(int) - 90).max() < 5
    assert '<li><i class="tile"></i> ' in page and "<p>this tile: 11.0 counted, " in page
    assert "1 of 4 was off by half a cell or more." in page
    changed_HW = np.abs(overlaid.astype(int) - plain).max(2) > 20
    assert changed_HW[:40, :40].all() and not changed_HW[60:, 60:].any()


@pytest.mark.parametrize("evaluation", [counted(), classified()], ids=["counted", "classified"])
@pytest.mark.parametrize("with_pictures", [True, False])
def test_names_from_outside_cannot_become_part_of_the_page(
    tmp_path: Path, card: Callable, evaluation: Evaluation, with_pictures: bool
) -> None:
    html = json.dumps(evaluation.scores).replace("A549", "<i>A549")
    scores = json.loads(html) | {"lineage": "<i>A549", "left_out": [f"{HOSTILE}: too small"]}
    hostile = replace(evaluation, scores=scores, sources=[f"{name}{HOSTILE}" for name in evaluation.sources])
    if with_pictures:
        task = scores["task"]
        hostile = pictured(hostile, card(task, classes=("<i>A549",) if task == "classify" else ()))
    page = unbroken(write_report(tmp_path, hostile))
    assert_harmless(page, "the <i>A549 frames of the", f"{HOSTILE}: too small", HOSTILE.rpartition("/")[2])


def test_epochs_are_whole_numbers() -> None:
    axis = Figure().subplots()
    draw_history(axis, [{"number": number, "loss": 1.0, "test": {}} for number in (1, 2, 3)], "mae")
    ticks = [float(place) for place in axis.get_xticks()]
    assert {1, 2, 3} <= set(ticks) and all(place.is_integer() for place in ticks)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("frozen", "scores", "told", "axis"),
    [
        (
            None,
            {"test": {}},
            "loss, and its score on the test split, which chose the last epoch shown.",
            "epoch",
        ),
        (
            True,
            {"folds": {"accuracy": 0.9}},
            "Loss of each fit of the last layers, and its score on the frames that folds held back, which chose among",
            "fit",
        ),
        (True, {"test": {}}, "and its score on the test split, which chose among them.", "fit"),
    ],
)
def test_a_trainings_course_says_over_what_it_was_scored(
    tmp_path: Path, frozen: bool | None, scores: dict[str, Any], told: str, axis: str
) -> None:
    evaluation = classified()
    known = card("classify", classes=("A549", "THP1"))
    config = known.config.model_copy(update={"model": known.config.model.model_copy(update={"frozen": frozen})})
    history = [{"number": number, "loss": 1.0, "test": {"accuracy": 0.5}} for number in (1, 2)]
    shown = known.model_copy(update={"config": config, "scores": scores, "history": history})
    page = unbroken(write_report(tmp_path, replace(evaluation, card=shown)))
    assert told in page
    drawn = Figure().subplots()
    draw_history(drawn, history, "accuracy", called=axis, over="folds" if "folds" in scores else "test")
    over = {"folds" if "folds" in scores else "test"}
    assert drawn.get_xlabel() == axis and {one.get_ylabel().split()[0] for one in drawn.figure.axes[1:]} == over


def test_curves_of_a_classifier_are_stored_beside_the_page(tmp_path: Path) -> None:
    write_report(tmp_path, classified())
    tile = json.loads((tmp_path / "scores.json").read_text())["plotted"]["tile"]
    assert tile["roc"]["A549"][0] == [0, 0] and tile["roc"]["A549"][-1] == [1, 1]
    assert sum(bin["n"] for bin in tile["reliability"]) == 3


def test_a_classifiers_report_names_the_mistaken_frame_first_and_says_that_it_flatters(tmp_path: Path) -> None:
    page = unbroken(write_report(tmp_path, classified()))
    first = re.search(r"named wrong</h2>.*?<tbody>\s*<tr>(.*?)</tr>", page, re.DOTALL)[1]
    assert first == "<td>c.png</td><td>A549</td><td>3T3 (70%)</td>"
    assert "it flatters" in page


def by_batch_and_age(evaluation: Evaluation, *sides: Side | None, hours: tuple[float | None, ...] = ()) -> Evaluation:
    """The evaluation with its frames on these sides, and of these ages."""
    tiles, frames = evaluation.tiles, evaluation.frames
    of = {"tiles_of": [len(tiles.truth) // len(frames.truth)] * len(frames.truth)}
    answered = Answered(task=evaluation.scores["task"], classes=["3T3", "A549"], tiles=tiles, frames=frames, **of)
    columns = {"batches": by_batch(answered, sides), "by_age": by_age(answered, hours or [None] * len(sides))}
    return replace(evaluation, scores=evaluation.scores | {"learned": 0} | columns)


def test_same_and_new_batches_stand_beside_each_other(tmp_path: Path) -> None:
    sides = by_batch_and_age(counted(), "same", "same", "new", "new", hours=(0, 2, 48, 50))
    page = unbroken(write_report(tmp_path, sides))
    table = page[page.index("<h2>Per frame, by batch</h2>") :]
    assert '<th scope="col">score</th><th scope="col">same batch</th><th scope="col">new batch</th>' in table
    assert f"<tr><td>{explained('mae')}</td><td>0.000</td><td>1.500</td></tr>" in table
    assert "<tr><td>mae, 95 % interval</td><td>–</td><td>0.00 to 3.00</td></tr>" in table
    ages = page[page.index("<h2>Per frame, by age</h2>") :]
    assert "<td>0 to 2</td><td>2</td><td>0.000</td>" in ages and "<td>48 to 50</td><td>2</td><td>1.500</td>" in ages
    assert "is unmeasured" not in page


@pytest.mark.slow
def test_without_new_batches_the_page_says_that_the_next_plate_is_unmeasured(tmp_path: Path) -> None:
    same = write_report(tmp_path, by_batch_and_age(counted(), *["same"] * 4)).read_text(encoding="utf-8")
    assert "The next plate is unmeasured: no frame" in same
    assert f"<tr><td>{explained('mae')}</td><td>0.750</td><td>–</td></tr>" in same[same.index("Per frame, by batch") :]
    neither = write_report(tmp_path, by_batch_and_age(classified(), None, None, None)).read_text(encoding="utf-8")
    assert "The next plate is unmeasured" in neither and "by batch</h2>" not in neither and "by age" not in neither


@pytest.mark.slow
def test_frames_that_the_model_learned_from_are_counted_on_the_page(tmp_path: Path) -> None:
    def page(**about: object) -> str:
        evaluation = by_batch_and_age(counted(), None, None, None, None)
        told = replace(evaluation, scores=evaluation.scores | about)
        return unbroken(write_report(tmp_path, told))

    flatters = "3 of 4 frames are ones that the model learned from, or near-duplicates of them: it flatters."
    assert flatters in page(learned=3)
    assert "flatters" not in page(learned=0, split="all", same_bank=False)
    own = page(learned=4, split="test")
    assert "chose what was published, and calibrated it" in own and "4 of 4" not in own
    other = page(learned=4, split="test", same_bank=False)
    assert "chose what was published" not in other and "4 of 4 frames are ones" in other


def test_a_report_of_a_version_of_before_says_what_the_splits_tell(tmp_path: Path) -> None:
    old = replace(counted(), scores=counted().scores | {"learned": None, "split": "test", "same_bank": False})
    page = unbroken(write_report(tmp_path, old))
    assert "chose what was published, and calibrated" in page and "trained on another state of the bank" in page


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write the report into"):
        write_report(tmp_path / "file", classified())


def test_a_report_of_folds_says_over_what_it_was_taken(tmp_path: Path) -> None:
    validated = {"folds": 5, "frames": 4, "groups": 4, "one_group": ["A549"], "unmeasured": []}
    plain = counted()
    folds = replace(plain, scores=plain.scores | {"split": "folds", "cross_validation": validated})
    page = unbroken(write_report(tmp_path / "report", folds))
    assert "<h1>regressor@3, cross-validated over 5 folds of 4 groups</h1>" in page
    assert "A549: one group only, so not measured on other wells." in page
    assert "include the training frames" not in page


@pytest.mark.slow
def test_scores_of_frames_that_were_chosen_are_marked_and_the_others_stand_beside_them(tmp_path: Path) -> None:
    made = counted()
    others = {unit: made.scores[unit] | {"mae": 0.125} for unit in ("tile", "frame")}
    marked = replace(made, scores=made.scores | {"chosen": {"frames": 1, "of": 4, "others": others}})
    page = unbroken(write_report(tmp_path, marked))
    assert "1 of 4 frames was chosen because it is hard: the score is not that of a usual frame." in page
    table = page[page.index("<h2>Per frame, without what was chosen</h2>") :]
    assert f"<tr><td>{explained('mae')}</td><td>0.750</td><td>0.125</td></tr>" in table
    few = replace(made, scores=made.scores | {"chosen": {"frames": 1, "of": 4, "others": None}})
    page = unbroken(write_report(tmp_path, few))
    assert "1 of 4 frames was chosen" in page and "without what was chosen" not in page
