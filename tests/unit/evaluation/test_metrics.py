"""Scores against numbers worked out by hand."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from cellnet.evaluation.metrics import (
    Rows,
    bootstrap_interval,
    by_density,
    classification,
    counting,
    counting_per_lineage,
    hides,
    score,
    shown,
)
from cellnet.training.steering import steering

# Three classes; the truth has only two of them, and row 2 is called "c", which is not in the truth.
TRUTH = np.array([0, 0, 0, 1])
SAID = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7], [0.2, 0.7, 0.1]], np.float32)


def test_classification_by_hand() -> None:
    scores = classification(TRUTH, SAID, ["a", "b", "c"])
    assert scores["n"] == 4
    assert scores["accuracy"] == 0.75
    assert scores["confusion"] == [[2, 0, 1], [0, 1, 0], [0, 0, 0]]  # truth in rows
    assert scores["balanced_accuracy"] == scores["recall_macro"] == pytest.approx((2 / 3 + 1) / 2)
    assert scores["precision_macro"] == 1  # over the classes that occur in the truth
    assert scores["f1_macro"] == pytest.approx((0.8 + 1) / 2)
    assert scores["auc_macro"] == pytest.approx((2 / 3 + 1) / 2)  # a: 0.1 is below b's 0.2, one of three pairs
    assert set(scores["per_lineage"]) == {"a", "b"}
    assert scores["per_lineage"]["a"] == pytest.approx(
        {"n": 3, "precision": 1, "recall": 2 / 3, "f1": 0.8, "auc": 2 / 3}
    )


def test_an_auc_of_one_class_is_not_known() -> None:
    scores = classification(np.array([0, 0]), SAID[:2], ["a", "b", "c"])
    assert (scores["accuracy"], scores["auc_macro"], scores["per_lineage"]["a"]["auc"]) == (1, None, None)


def test_counting_by_hand() -> None:
    scores = counting(np.array([0.0, 10, 20]), np.array([1.0, 8, 24]))
    assert scores == pytest.approx(
        {
            "n": 3,
            "mae": 7 / 3,
            "mse": 7,
            "rmse": math.sqrt(7),
            "r": np.corrcoef([0, 10, 20], [1, 8, 24])[0, 1],
            "r2": 1 - 21 / 200,
            "bias": 1,
            "mape": (2 / 10 + 4 / 20) / 2,  # the empty frame has no share
        }
    )


@pytest.mark.parametrize(
    ("truth", "count", "unknown"),
    [([5.0], [6.0], {"r", "r2"}), ([0.0, 0.0], [1.0, 2.0], {"r", "r2", "mape"}), ([1.0, 2.0], [3.0, 3.0], {"r"})],
)
def test_scores_that_are_not_defined_are_none(truth: list[float], count: list[float], unknown: set[str]) -> None:
    scores = counting(np.array(truth), np.array(count))
    assert {name for name, value in scores.items() if value is None} == unknown


def test_counting_per_lineage_leaves_out_frames_of_unknown_lineage() -> None:
    scores = counting_per_lineage(np.array([1.0, 2, 3]), np.array([1.0, 4, 9]), ["A549", "THP1", None])
    assert scores["n"] == 3 and scores["mae"] == pytest.approx(8 / 3)
    assert {name: of_it["mae"] for name, of_it in scores["per_lineage"].items()} == {"A549": 0, "THP1": 2}


def test_steering_scores_are_the_reports_scores() -> None:
    whole = classification(TRUTH, SAID, "abc")
    assert steering("classify", TRUTH, SAID) == {
        name: pytest.approx(whole[name]) for name in ("accuracy", "balanced_accuracy")
    }
    assert steering("count", np.array([4.0]), np.array([5.0])) == {
        "mae": 1.0,
        "r2": pytest.approx(math.nan, nan_ok=True),
    }


def test_a_bootstrap_draws_groups_and_not_rows() -> None:
    error_N = np.repeat([0.0, 1.0], 50)  # two wells: one right, one wrong

    def mean(rows: np.ndarray) -> float:
        return float(error_N[rows].mean())

    by_well = bootstrap_interval(mean, ["right"] * 50 + ["wrong"] * 50)
    by_row = bootstrap_interval(mean, [str(row) for row in range(100)])
    assert by_well == (0, 1)
    assert 0.35 < by_row[0] < 0.45 < 0.55 < by_row[1] < 0.65
    assert bootstrap_interval(mean, ["one"] * 100) == (0.5, 0.5)
    assert by_row == bootstrap_interval(mean, [str(row) for row in range(100)])


def test_density_bins_hold_every_row_once_and_do_not_overlap() -> None:
    truth_N = np.array([0.0] * 50 + [1.0] * 3 + [5.0] * 20 + [9.0])
    bins = by_density(truth_N, truth_N + 1)
    assert sum(bin["n"] for bin in bins) == len(truth_N)
    assert all(before["to"] < after["from"] for before, after in itertools.pairwise(bins))
    assert {bin["bias"] for bin in bins} == {1.0}


def test_counters_report_coverage_and_flags_with_intervals_over_groups() -> None:
    rows = Rows(
        truth=np.array([1.0, 2, 3, 4]),
        output=np.array([1.0, 2, 3, 9]),
        lineages=[None] * 4,
        groups=list("aabb"),
        interval=np.array([[0, 2], [1, 3], [2, 4], [8, 10.0]]),
        unfamiliar=np.array([False, False, False, True]),
    )
    scores = score("count", rows, [])
    assert (scores["coverage"], scores["coverage_interval"]) == (0.75, [0.5, 1.0])
    assert (scores["unfamiliar"], scores["unfamiliar_interval"]) == (0.25, [0.0, 0.5])
    assert scores["interval_width"] == 2


def test_a_classifier_reports_its_calibration_error_before_and_after() -> None:
    sure = np.array([[1.0, 0.0]] * 4)
    rows = Rows(
        truth=np.array([0, 0, 0, 1]), output=0.5 * sure + 0.25, lineages=["a"] * 4, groups=list("abcd"), raw=sure
    )
    scores = score("classify", rows, ["a", "b"])
    assert (scores["ece"], scores["ece_uncalibrated"]) == (0, 0.25)


def test_what_is_of_too_few_is_hidden_of_both_tasks() -> None:
    many = Rows(truth=np.arange(12.0), output=np.arange(12.0) + 1.5, lineages=["A"] * 12, groups=list("abcdef") * 2)
    for rows, hidden in ((many, True), (many.only(np.arange(12) < 5), True)):
        scores = score("count", rows, ())
        assert hides({"task": "count", "tile": scores, "frame": scores}) is hidden, "one error alone has no interval"
    output = many.output + np.arange(12) % 3
    scores = score("count", replace(many, output=output), ())
    assert not hides({"task": "count", "tile": scores, "frame": scores})
    label_N = np.arange(12) % 2
    probability_NK = np.eye(2)[np.where(np.arange(12) == 3, 0, label_N)] * 0.8 + 0.1
    named = Rows(truth=label_N, output=probability_NK, lineages=["AB"[n] for n in label_N], groups=list("abcdef") * 2)
    scores = score("classify", named, ["A", "B"])
    assert not hides({"task": "classify", "tile": scores, "frame": scores})
    few = score("classify", named.only(np.arange(12) < 6), ["A", "B"])
    assert hides({"task": "classify", "tile": few, "frame": few}), "three frames of a lineage"
    alone = score("classify", named.only((label_N == 0) & (np.arange(12) < 6)), ["A", "B"])
    names = ("precision", "recall", "f1", "auc")
    of_it = shown("classify", alone["per_lineage"]["A"])
    of_all = shown("classify", alone, [f"{name}_macro" for name in names])
    assert {of_it[name] for name in names} == set(of_all.values()) == {None}, "the same frames"
