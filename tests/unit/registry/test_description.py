"""The model card: over what each score was taken, how a version does on new batches, and which it learned from."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from cellnet.config.train import StartedFrom
from cellnet.registry.description import BATCHES, model_card
from cellnet.registry.learned import UNMEASURED
from cellnet.registry.records import Card, Chosen, CrossValidation, MainScore, ModelVersion, Relearned
from tests import factories

SAME = {
    unit: MainScore(score="mae", value=value, interval=(1.0, 2.0), n=n)
    for unit, value, n in (("tile", 1.25, 40), ("frame", 1.5, 10))
}
NEW = {"frame": MainScore(score="mae", value=4.0, interval=(3.0, 5.0), n=6)}


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


def test_of_a_frozen_network_fits_are_told_and_no_epochs(shown: Callable[..., str], card: Callable[..., Card]) -> None:
    config = card().config
    frozen = config.model_copy(update={"model": config.model.model_copy(update={"frozen": True})})
    text = shown(config=frozen, history=[{"number": 1}], scores={"test": {"mae": 1.25}})
    assert "seed 0, 1 fit of its last layers\n" in text
    assert "the test split chose between fits of the last layers" in text and "epoch" not in text


def test_a_record_of_before_there_were_folds_is_of_a_training_without(card: Callable[..., Card]) -> None:
    stored = card().model_dump(mode="json")
    stored["config"].pop("folds", None)
    stored["config"].pop("holdout", None)
    read = Card.model_validate(stored)
    assert (read.config.folds, read.config.holdout, read.config.refit) == (0, "keep", False)
    assert read.cross_validation is None and read.model_dump(mode="json") == stored


def described(**about: Any) -> str:
    version = ModelVersion(name="regressor", number=1, blobs={}, card=factories.card().model_copy(update=about))
    return model_card(version, aliases=[], signature="not signed")


def test_same_and_new_batches_stand_beside_each_other() -> None:
    text = described(batch_scores={"same": SAME, "new": NEW})
    assert "- holdout split, batches that it learned from, per tile: mae 1.250 (1.000 to 2.000, n=40)\n" in text
    assert "- holdout split, batches that it learned from, per frame: mae 1.500 (1.000 to 2.000, n=10)\n" in text
    assert "- holdout split, new batches, per frame: mae 4.000 (3.000 to 5.000, n=6)\n" in text
    assert UNMEASURED not in text


def test_scores_by_batch_of_folds_are_not_called_those_of_the_holdout() -> None:
    validated = CrossValidation(folds=5, frames=16, groups=15)
    text = described(batch_scores={"same": SAME, "new": None}, cross_validation=validated)
    assert "- cross-validated over 5 folds of 15 groups, batches that it learned from, per frame: mae 1.500 (" in text
    assert "holdout split" not in text


def test_what_its_network_started_from_is_told_with_its_licence() -> None:
    started = StartedFrom(source="imagenet", sha256="0" * 64, made_by="a package", licence="Apache-2.0")
    assert "- its network started from imagenet of a package (Apache-2.0)\n" in described(start=started)
    assert "started from" not in described()


def test_without_new_batches_the_card_says_that_the_next_plate_is_unmeasured() -> None:
    for scores in ({"same": SAME, "new": None}, {"same": None, "new": None}):
        assert f"- {UNMEASURED}\n" in described(batch_scores=scores)
    assert UNMEASURED not in described(), "nothing is said of versions of before"


def test_the_batches_that_it_learned_from_are_named() -> None:
    assert "- learned from the batches P1, P2\n" in described(batches=("P1", "P2"))
    text = described(batches=(*(f"P{n:02}" for n in range(BATCHES + 3)), None))
    assert "P11 and 3 more, and from frames whose batch is not known\n" in text and "P12" not in text
    assert "learned from" not in described(batches=(None,))


NASTY = "a\n# b\n<script>c</script> \\<img src=x> ![d](https://d.example/e.png) `<f>"


def test_names_of_anybody_make_neither_html_nor_links_nor_lines_of_the_card() -> None:
    config = factories.card().config.model_copy(update={"lineage": NASTY})
    text = described(bank=NASTY, batches=(NASTY,), lineages=(NASTY,), parent=NASTY, config=config)
    assert {line[:2] for line in text.splitlines()[1:]} == {"", "- ", "##", "Co"}
    assert text.count("script>c") == 6 and not re.search(r"(?<!\\)(\\\\)*[<\[]", text)


def test_a_version_that_learned_on_names_its_parent_and_the_entries(shown: Callable[..., str]) -> None:
    text = shown(parent="m@3", relearned=Relearned(corrected=10, new=2, entries=(7, 9)))
    assert "- made from m@3\n- beyond m@3 learned from 10 corrections of entries 7 to 9 and 2 new frames\n" in text


def test_scores_of_frames_that_were_chosen_are_marked_beside_those_of_the_others(
    shown: Callable[..., str],
) -> None:
    text = shown(scores={"folds": {"mae": 1.25}}, chosen=Chosen(frames=7, of=30, others=NEW))
    assert "- 7 of 30 frames were chosen because they are hard: the score is not that of a usual frame\n" in text
    assert "- the others, per frame: mae 4.000 (3.000 to 5.000, n=6)\n" in text
    assert "chosen because" not in shown(scores={"folds": {"mae": 1.25}})
