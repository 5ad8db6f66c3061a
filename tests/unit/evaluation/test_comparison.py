"""A challenger beside a champion."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from cellnet.errors import DataError
from cellnet.evaluation.comparison import compare
from cellnet.evaluation.metrics import Rows
from cellnet.registry.records import Card, Evidence
from tests.factories import evaluation

TRUTH = np.arange(24.0)
GROUPS = [f"well{row // 4}" for row in range(24)]


def counts(output: np.ndarray, truth: np.ndarray = TRUTH, groups: Sequence[str] = GROUPS) -> Rows:
    return Rows(truth=truth, output=output, lineages=["A"] * len(truth), groups=groups)


def test_a_challenger_with_smaller_errors_in_every_group_is_shown_to_be_better(card: Callable[..., Card]) -> None:
    challenger, champion = (evaluation(card(), counts(TRUTH + by)) for by in (1.0, -3.0))
    evidence = compare(challenger, champion, number=4)
    assert (evidence.values, evidence.difference, evidence.interval) == ((1.0, 3.0), 2.0, (2.0, 2.0))
    assert evidence.shows_better and (evidence.champion, evidence.n, evidence.groups) == (4, 24, 6)
    assert str(evidence) == (
        "mae 1.000 against 3.000 per tile of the holdout (n=24, 6 groups), better by 2.000 (2.000 to 2.000)"
    )
    reverse = compare(champion, challenger, number=4)
    assert not reverse.shows_better and str(reverse).endswith("worse by 2.000 (2.000 to 2.000)")


def test_rows_are_paired_so_that_hard_frames_do_not_blur_a_small_gain(card: Callable[..., Card]) -> None:
    hard = np.where(np.arange(24) % 8 < 4, 0.0, 40.0)
    challenger, champion = (evaluation(card(), counts(TRUTH + hard + by)) for by in (0.5, 1.0))
    evidence = compare(challenger, champion, number=1)
    assert evidence.interval == (0.5, 0.5) and evidence.shows_better


def test_one_group_or_a_gain_in_one_of_several_shows_nothing(card: Callable[..., Card]) -> None:
    challenger, champion = (evaluation(card(), counts(TRUTH + by, groups=["w"] * 24)) for by in (1.0, 3.0))
    assert not compare(challenger, champion, number=1).shows_better
    lucky = evaluation(card(), counts(TRUTH + np.where(np.arange(24) < 4, 0.0, 1.0)))
    evidence = compare(lucky, evaluation(card(), counts(TRUTH + 1)), number=1)
    assert evidence.difference > 0 and evidence.interval[0] == 0 and not evidence.shows_better


def test_answers_of_folds_are_compared_where_both_have_them_and_else_the_frames_are_of_the_holdout(
    card: Callable[..., Card],
) -> None:
    folds, holdout = (evaluation(card(), counts(TRUTH), split=split) for split in ("folds", "holdout"))
    splits = [compare(*sides, number=1).split for sides in ((folds, folds), (folds, holdout), (holdout, folds))]
    assert splits == ["folds", "holdout", "holdout"]


def test_classifiers_are_compared_by_accuracy(card: Callable[..., Card]) -> None:
    truth = np.arange(24) % 2
    right, half = np.eye(2)[truth], np.full((24, 2), 0.5)
    two = card("classify", classes=("A", "B"))
    rows = [Rows(truth=truth, output=output, lineages=["A"] * 24, groups=GROUPS) for output in (right, half)]
    evidence = compare(*(evaluation(two, one) for one in rows), number=2)
    assert (evidence.score, evidence.values, evidence.difference) == ("accuracy", (1.0, 0.5), 0.5)


def test_models_that_cut_frames_otherwise_are_compared_by_the_frames_that_both_can_use(
    card: Callable[..., Card],
) -> None:
    sources = [f"{row}.png" for row in range(24)]
    challenger = evaluation(card(), counts(TRUTH + 9, groups=["x"] * 24), frames=counts(TRUTH + 1))
    fewer = counts(TRUTH[::-1][:20] + 2, TRUTH[::-1][:20], GROUPS[::-1][:20])
    champion = evaluation(card(), fewer, sources=sources[::-1][:20], same_bank=False)
    evidence = compare(challenger, champion, number=3)
    assert (evidence.unit, evidence.n, evidence.values, evidence.groups) == ("frame", 20, (1.0, 2.0), 5)
    assert evidence.same_bank == (True, False)


def test_what_cannot_be_compared_is_refused(card: Callable[..., Card]) -> None:
    counter = evaluation(card(), counts(TRUTH))
    with pytest.raises(DataError, match="do different tasks"):
        compare(counter, evaluation(card("classify", classes=("A",)), counts(TRUTH)), number=1)
    with pytest.raises(DataError, match="no frame of the holdout split can be used by both"):
        compare(counter, evaluation(card(), counts(TRUTH[:1], TRUTH[:1], ["w"]), sources=["other.png"]), number=1)


def test_evidence_comes_back_from_json_as_it_was(card: Callable[..., Card]) -> None:
    evidence = compare(evaluation(card(), counts(TRUTH)), evaluation(card(), counts(TRUTH + 1)), number=1)
    assert Evidence.model_validate_json(evidence.model_dump_json()) == evidence
