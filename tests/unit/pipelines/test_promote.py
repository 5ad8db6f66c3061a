"""What a version must be better than before an alias points at it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import pipelines.promote
from cellnet.bank.bank import Bank
from cellnet.errors import NotBetterError
from cellnet.evaluation.evaluations import Evaluation
from cellnet.evaluation.metrics import Rows
from cellnet.places import Places
from cellnet.registry.records import Card
from cellnet.registry.registry import Registry
from cellnet.store.place import place_of
from cellnet.untrusted import WEIGHTS
from pipelines.promote import promote
from tests.factories import evaluation, frame

TRUTH = np.arange(12.0)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    bank = Bank.create(tmp_path / "bank")
    bank.add([frame(count=3)])
    return Places(bank=place_of(tmp_path / "bank"), registry=place_of(tmp_path / "registry"))


@pytest.fixture
def publish(places: Places, card: Callable[..., Card]) -> Callable[..., str]:
    """`publish("regressor", off=2.0)`: a counter that is off by two cells, and its reference."""

    def make(name: str, *, off: float, lineage: str | None = None) -> str:
        plain = card()
        config = plain.config.model_copy(update={"lineage": lineage})
        made = plain.model_copy(update={"config": config, "scores": {"test": {"mae": off}}})
        return Registry.open(places.registry).publish(name, {WEIGHTS: b"w"}, made).ref

    return make


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """The models that were scored, each with the lineage that it was scored on, on three wells."""
    asked: list[tuple[str, str | None]] = []

    def evaluate(ref: str, places: Places, *, split: str | None, lineage: str | None) -> Evaluation:
        asked.append((ref, lineage))
        made = places.open_registry().resolve(ref).card
        output = TRUTH + made.scores["test"]["mae"]
        rows = Rows(truth=TRUTH, output=output, lineages=["A549"] * 12, groups=list("abc") * 4)
        return evaluation(made, rows, ref=ref, lineage=lineage)

    monkeypatch.setattr(pipelines.promote, "evaluate", evaluate)
    return asked


def test_the_first_counter_of_a_lineage_must_be_better_at_it_than_the_general_one(
    places: Places, publish: Callable[..., str], scored: list[tuple[str, str | None]]
) -> None:
    promote(publish("regressor", off=2.0), "champion", places)
    worse = publish("regressor-A549", off=2.5, lineage="A549")
    with pytest.raises(NotBetterError, match=r"regressor-A549@1 is not shown .* regressor:champion, regressor@1: mae"):
        promote(worse, "champion", places)
    said: list[str] = []
    move = promote(publish("regressor-A549", off=1.5, lineage="A549"), "champion", places, say=said.append)
    assert scored == [(ref, "A549") for ref in ("regressor-A549@1", "regressor@1", "regressor-A549@2", "regressor@1")]
    assert move.evidence is not None and (move.evidence.champion, move.evidence.against) == (1, "regressor@1")
    assert said == [
        "regressor-A549@2 beside regressor@1: mae 1.500 against 2.000 of regressor@1 per tile of A549 in the holdout "
        "(n=12, 3 groups), better by 0.500 (0.500 to 0.500)"
    ]
    assert Registry.open(places.registry).history("regressor-A549", "champion") == [move]


def test_a_counter_of_a_lineage_is_compared_with_none_where_none_counts_for_that_alias(
    places: Places, publish: Callable[..., str], scored: list[tuple[str, str | None]]
) -> None:
    promote(publish("regressor", off=2.0), "champion", places)
    only = publish("regressor-A549", off=9.0, lineage="A549")
    assert promote(only, "trial", places).evidence is None
    assert promote(only, "champion", places, force=True, reason="a plate of its own").evidence is None
    assert scored == []


@pytest.mark.parametrize("lineage", ["A549", None])
def test_a_later_counter_of_a_lineage_is_compared_on_that_lineage_with_the_one_before(
    places: Places, publish: Callable[..., str], scored: list[tuple[str, str | None]], lineage: str | None
) -> None:
    promote(publish("regressor-A549", off=2.0, lineage="A549"), "champion", places)
    promote(publish("regressor", off=0.5), "champion", places)
    move = promote(publish("regressor-A549", off=1.0, lineage=lineage), "champion", places)
    assert scored == [("regressor-A549@2", "A549"), ("regressor-A549@1", "A549")]
    assert move.evidence is not None and (move.evidence.against, move.evidence.lineage) == (None, "A549")


def test_a_counter_of_one_lineage_takes_no_place_of_one_that_counts_others(
    places: Places, publish: Callable[..., str], scored: list[tuple[str, str | None]]
) -> None:
    promote(publish("regressor", off=2.0), "champion", places)
    narrow = publish("regressor", off=0.0, lineage="A549")
    with pytest.raises(NotBetterError, match=r"regressor@2 counts A549 alone, .* regressor@1, which counts all lineag"):
        promote(narrow, "champion", places)
    assert scored == [] and Registry.open(places.registry).resolve("regressor:champion").ref == "regressor@1"
