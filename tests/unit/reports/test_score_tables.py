"""Scores as tables: each explained where it stands, and hidden alike in every table and plot."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from cellnet.evaluation.evaluations import Evaluation
from cellnet.reports.plots import draw_counts, draw_roc
from cellnet.reports.score_tables import score_tables, text_of
from cellnet.reports.words import Named
from cellnet.tasks import TASKS
from tests.unit.reports.evaluated import classified, counted


@pytest.mark.parametrize("evaluation", [counted(), classified()], ids=["counted", "classified"])
def test_every_score_is_explained_where_it_stands(evaluation: Evaluation) -> None:
    tables = score_tables(evaluation.scores)
    [_, *rows] = tables["Scores"]
    names = [row[0] for row in rows]
    for heads, *_ in (tables[heading] for heading in tables if heading != "Scores"):
        names += heads[1:]
    assert all(isinstance(name, Named) and len(name.meaning) > 5 for name in names)
    assert {name.replace("_", " ") for name in TASKS[evaluation.scores["task"]].figures} <= {
        row[0].name for row in rows
    }


def test_a_score_that_frames_alone_have_is_in_the_table() -> None:
    scores = counted().scores
    scores["frame"] |= {"coverage": 0.75, "coverage_interval": [0.5, 1.0]}
    [row] = [row for row in score_tables(scores)["Scores"][1:] if row[0].name == "coverage"]
    assert row[1:] == ["–", "0.750"]


def test_a_bin_of_one_count_is_called_by_it_and_has_no_r() -> None:
    scores = counted().scores
    [first, *_] = scores["tile"]["by_density"]
    first["from"] = first["to"] = 7.0
    heads, row, *_ = score_tables(scores)["Per tile, by density"]
    assert row[0] == "7"
    assert [name.name for name in heads[1:]] == ["n", "mae", "rmse", "bias", "mape"]


def test_of_few_frames_a_lineage_has_how_many_were_named_right() -> None:
    heads, *rows = score_tables(classified().scores)["Per frame, by lineage"]
    assert [heads[0], *(name.name for name in heads[1:])] == ["lineage", "n", "right"]
    assert rows == [["3T3", "1", "1"], ["A549", "2", "1"]], "no column of scores that are known of none"


def test_plots_hide_what_tables_hide() -> None:
    count, name = Figure().subplots(1, 2)
    draw_counts(count, counted(), "frame")
    assert "R²" not in count.get_title(), "of four frames"
    draw_roc(name, classified(), "frame")
    assert [text.get_text() for text in name.get_legend().get_texts()] == ["3T3", "A549"]


def test_a_score_that_is_not_known_is_a_dash() -> None:
    assert (text_of(None), text_of(np.nan), text_of(0.5), text_of(3)) == ("–", "–", "0.500", "3")
