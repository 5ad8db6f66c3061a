"""The model card: over what each score was taken."""

from collections.abc import Callable

import pytest

from cellnet.registry.description import model_card
from cellnet.registry.records import Card, CrossValidation, ModelVersion


@pytest.fixture
def shown(card: Callable[..., Card]) -> Callable[..., str]:
    """The card of a counter that was scored in some way, as a page."""

    def show(**known: object) -> str:
        return model_card(
            ModelVersion(name="m", number=1, blobs={}, card=card().model_copy(update=known)), aliases=[], signature=""
        )

    return show


def test_scores_of_folds_say_over_what_they_were_taken_and_what_they_do_not_say(shown: Callable[..., str]) -> None:
    validated = CrossValidation(folds=5, frames=16, groups=15, one_group=("SHSY5Y",), unmeasured=("SKOV3",))
    text = shown(scores={"folds": {"mae": 1.25}}, cross_validation=validated)
    assert "- cross-validated over 5 folds of 15 groups, per tile: mae 1.250\n" in text
    assert (
        "- SHSY5Y: one group only, so not measured on other wells\n- SKOV3: one frame only, so not measured\n" in text
    )
    assert "this one learned from all" in text and "test split" not in text


def test_the_score_of_a_version_that_was_refitted_is_of_before(shown: Callable[..., str]) -> None:
    validated = CrossValidation(folds=1, frames=8, groups=4)
    text = shown(scores={"test": {"mae": 1.25}}, cross_validation=validated)
    assert "the test score is of 4 test groups, before it learned from these too" in text


def test_a_version_of_before_says_what_it_said(shown: Callable[..., str]) -> None:
    text = shown(scores={"test": {"mae": 1.25}})
    assert "- test split, per tile: mae 1.250\n- the test split chose between epochs" in text


def test_a_record_of_before_there_were_folds_is_of_a_training_without(card: Callable[..., Card]) -> None:
    stored = card().model_dump(mode="json")
    stored["config"].pop("folds", None)
    stored["config"].pop("holdout", None)
    read = Card.model_validate(stored)
    assert (read.config.folds, read.config.holdout, read.config.refit) == (0, "keep", False)
    assert read.cross_validation is None and read.model_dump(mode="json") == stored
