"""The report as a page: what a reader must find on it."""

import base64
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from cellnet import metrics
from cellnet.errors import ConfigError
from cellnet.evaluation import Evaluation
from cellnet.report import write_report


def counted() -> Evaluation:
    """Four frames of two tiles each; the worst is off by 3."""
    truth, output = np.array([1.0, 2, 3, 4, 5, 6, 7, 8]), np.array([1.0, 2, 3, 4, 5, 6, 7, 11])
    tiles = metrics.Rows(truth=truth, output=output, lineages=["A549"] * 8, groups=list("aabbccdd"))
    pairs = (truth.reshape(4, 2).sum(1), output.reshape(4, 2).sum(1))
    frames = metrics.Rows(truth=pairs[0], output=pairs[1], lineages=["A549"] * 4, groups=list("abcd"))
    scores = {"task": "count", "model": "regressor@3", "split": "holdout", "same_bank": True, "left_out": ["x: why"]}
    units = {"tile": metrics.score("count", tiles, []), "frame": metrics.score("count", frames, [])}
    return Evaluation(scores=scores | units, tiles=tiles, frames=frames, sources=[f"/plate/{i}<b>.tif" for i in "abcd"])


def classified() -> Evaluation:
    """Three frames of one tile each, one of them mistaken."""
    probability = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    rows = metrics.Rows(
        truth=np.array([0, 1, 1]), output=probability, lineages=["3T3", "A549", "A549"], groups=list("abc")
    )
    scores = {"task": "classify", "model": "classifier@1", "split": "all", "same_bank": True, "left_out": []}
    units = {unit: metrics.score("classify", rows, ["3T3", "A549"]) for unit in ("tile", "frame")}
    return Evaluation(scores=scores | units, tiles=rows, frames=rows, sources=["a.png", "b.png", "c.png"])


def test_a_counters_report_shows_its_scores_its_worst_frame_and_what_was_left_out(tmp_path: Path) -> None:
    page = write_report(tmp_path / "report", counted()).read_text(encoding="utf-8")
    assert "<h1>regressor@3 on the holdout split</h1>" in page
    first = re.search(r"largest error</h2>.*?<tbody><tr>(.*?)</tr>", page)[1]
    assert first == "<td>d&lt;b&gt;.tif</td><td>15.0</td><td>18.0</td>"
    assert "Left out: 1;" in page and "flatters" not in page
    assert json.loads((tmp_path / "report/scores.json").read_text())["frame"]["mae"] == 0.75


@pytest.mark.parametrize("evaluation", [counted(), classified()], ids=["counted", "classified"])
def test_the_picture_is_in_the_page_itself(tmp_path: Path, evaluation: Evaluation) -> None:
    page = write_report(tmp_path, evaluation).read_text(encoding="utf-8")
    picture = base64.b64decode(re.search(r'src="data:image/png;base64,([^"]+)"', page)[1])
    assert cv2.imdecode(np.frombuffer(picture, np.uint8), 0).std() > 1
    assert not re.search(r"(src|href)=.?https?:", page)


def test_a_classifiers_report_names_the_mistaken_frame_first_and_says_that_it_flatters(tmp_path: Path) -> None:
    page = write_report(tmp_path, classified()).read_text(encoding="utf-8")
    first = re.search(r"largest error</h2>.*?<tbody><tr>(.*?)</tr>", page)[1]
    assert first == "<td>c.png</td><td>A549</td><td>3T3</td>"
    assert "it flatters" in page


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write the report into"):
        write_report(tmp_path / "file", classified())
