"""The model card: how a version does on new batches, and which it learned from."""

from typing import Any

from cellnet.registry.description import BATCHES, model_card
from cellnet.registry.learned import UNMEASURED
from cellnet.registry.records import MainScore, ModelVersion
from tests.factories import card

SAME = {
    unit: MainScore(score="mae", value=value, interval=(1.0, 2.0), n=n)
    for unit, value, n in (("tile", 1.25, 40), ("frame", 1.5, 10))
}
NEW = {"frame": MainScore(score="mae", value=4.0, interval=(3.0, 5.0), n=6)}


def described(**about: Any) -> str:
    version = ModelVersion(name="regressor", number=1, blobs={}, card=card().model_copy(update=about))
    return model_card(version, aliases=[], signature="not signed")


def test_same_and_new_batches_stand_beside_each_other() -> None:
    text = described(batch_scores={"same": SAME, "new": NEW})
    assert "- holdout split, batches that it learned from, per tile: mae 1.250 (1.000 to 2.000, n=40)\n" in text
    assert "- holdout split, batches that it learned from, per frame: mae 1.500 (1.000 to 2.000, n=10)\n" in text
    assert "- holdout split, new batches, per frame: mae 4.000 (3.000 to 5.000, n=6)\n" in text
    assert UNMEASURED not in text


def test_without_new_batches_the_card_says_that_the_next_plate_is_unmeasured() -> None:
    for scores in ({"same": SAME, "new": None}, {"same": None, "new": None}):
        assert f"- {UNMEASURED}\n" in described(batch_scores=scores)
    assert UNMEASURED not in described(), "nothing is said of versions of before"


def test_the_batches_that_it_learned_from_are_named() -> None:
    assert "- learned from the batches P1, P2\n" in described(batches=("P1", "P2"))
    text = described(batches=(*(f"P{n:02}" for n in range(BATCHES + 3)), None))
    assert "P11 and 3 more, and from frames whose batch is not known\n" in text and "P12" not in text
    assert "learned from" not in described(batches=(None,))
