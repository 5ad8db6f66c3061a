"""What a version must be better than before an alias points at it."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest

import pipelines.promote
from cellnet.bank.bank import Bank
from cellnet.bank.frames import Frame
from cellnet.errors import NotBetterError
from cellnet.evaluation.evaluations import Evaluation
from cellnet.evaluation.metrics import Rows
from cellnet.places import Places
from cellnet.registry.learned import Learned, frames_to_bytes
from cellnet.registry.records import LEARNED, Card, ModelVersion, Relearned
from cellnet.registry.registry import Registry
from cellnet.store.place import place_of
from cellnet.untrusted import WEIGHTS
from pipelines.evaluate import Kept
from pipelines.promote import promote
from tests import factories
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

    def make(name: str, *, off: float, lineage: str | None = None, learned: Sequence[Frame] = ()) -> str:
        plain = card()
        config = plain.config.model_copy(update={"lineage": lineage})
        made = plain.model_copy(update={"config": config, "scores": {"test": {"mae": off}}})
        files = {WEIGHTS: b"w"}
        if learned:
            told = Learned.of(learned)
            files[LEARNED] = frames_to_bytes(told.frames)
            made = made.model_copy(update={"batches": told.listed_batches})
        return Registry.open(places.registry).publish(name, files, made).ref

    return make


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """The models that were scored, each with the lineage that it was scored on, on three wells."""
    asked: list[tuple[str, str | None]] = []

    def evaluate(ref: str, places: Places, *, lineage: str | None, **more: object) -> Evaluation:
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
    said: list[str] = []
    with pytest.raises(
        NotBetterError, match=r"regressor-A549@1 is not .* regressor@1: mae .*, worse by 0.500 \(0.500 "
    ):
        promote(worse, "champion", places, say=said.append)
    assert said == [], "all of it is in the refusal"
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


@pytest.mark.parametrize("alike", [True, False])
def test_the_answers_that_versions_keep_are_read_once_each(
    places: Places,
    publish: Callable[..., str],
    scored: list[tuple[str, str | None]],
    monkeypatch: pytest.MonkeyPatch,
    alike: bool,
) -> None:
    promote(publish("regressor", off=2.0), "champion", places)
    [one] = places.open_bank().frames
    read: list[str] = []
    given: dict[str, object] = {}
    score = pipelines.promote.evaluate

    def kept_answers(registry: Registry, version: ModelVersion) -> Kept:
        read.append(version.ref)
        return Kept(folds={one.frame: version.ref} if alike or version.number == 1 else {})

    def evaluate(ref: str, places: Places, *, kept: object, **more: object) -> Evaluation:
        given[ref] = kept
        return score(ref, places, **more)

    monkeypatch.setattr(pipelines.promote, "kept_answers", kept_answers)
    monkeypatch.setattr(pipelines.promote, "evaluate", evaluate)
    promote(publish("regressor", off=1.0), "champion", places)
    assert read == ["regressor@2", "regressor@1"]
    own = {one.frame: "regressor@2"} if alike else {}
    assert given == {"regressor@2": Kept(folds=own), "regressor@1": Kept(folds={one.frame: "regressor@1"})}


TRAINED = [frame(50 + n, group=f"t{n}", batch="P1", count=1.0, split="train") for n in range(3)]
HELD_OUT = [
    frame(10 + n, group=f"h{n}", batch=batch, count=1.0, split="holdout")
    for n, batch in enumerate(("P1", "P1", "P2", "P2", "P3"))
]


@pytest.fixture
def compared(places: Places, monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """The frames that models were compared on, of a bank whose holdout has frames of P1, P2 and P3."""
    Bank.open(places.bank).add([*TRAINED, *HELD_OUT])
    asked: list[set[str]] = []

    def evaluate(ref: str, places: Places, *, lineage: str | None, only: set[str], **more: object) -> Evaluation:
        asked.append(only)
        made = places.open_registry().resolve(ref).card
        held = [one for one in places.open_bank().split("holdout") if one.frame in only]
        truth = np.array([one.count for one in held])
        output = truth + made.scores["test"]["mae"]
        rows = Rows(truth=truth, output=output, lineages=["A549"] * len(held), groups=[one.group for one in held])
        return evaluation(made, rows, ref=ref, lineage=lineage, sources=[one.source for one in held])

    monkeypatch.setattr(pipelines.promote, "evaluate", evaluate)
    return asked


def names_of(*places: int) -> set[str]:
    return {HELD_OUT[place].frame for place in places}


def test_versions_are_compared_on_frames_that_neither_learned_from(
    places: Places, publish: Callable[..., str], compared: list[set[str]]
) -> None:
    every_batch = [*TRAINED, frame(20, batch="P2"), frame(21, batch="P3")]
    promote(publish("regressor", off=2.0, learned=[*every_batch, HELD_OUT[0]]), "champion", places)
    said: list[str] = []
    better = publish("regressor", off=1.0, learned=[*every_batch, HELD_OUT[4]])
    move = promote(better, "champion", places, say=said.append)
    assert compared == [names_of(1, 2, 3)] * 2
    assert move.evidence is not None
    assert (move.evidence.seen, move.evidence.batches, move.evidence.n) == (2, None, 3)
    assert said == [
        "regressor@2 beside regressor@1: mae 1.000 against 2.000 per tile of the holdout (n=3, 3 groups, without 2 "
        "that one of both learned from), better by 1.000 (1.000 to 1.000)"
    ], "and nothing of another bank, since what the champion saw is known"


def test_near_duplicates_of_what_a_version_learned_from_are_left_out(
    places: Places, publish: Callable[..., str], compared: list[set[str]]
) -> None:
    trained, copy = (frame(30 + n, group="near", count=1.0, fingerprint="ab" * 64, split="holdout") for n in range(2))
    Bank.open(places.bank).add([trained, copy])
    for off in (2.0, 1.0):
        ref = publish("regressor", off=off, learned=[trained])
        move = promote(ref, "champion", places)
    assert compared == [names_of(0, 1, 2, 3, 4)] * 2 and move.evidence is not None and move.evidence.seen == 2


def test_frames_of_batches_that_are_new_to_both_decide(
    places: Places, publish: Callable[..., str], compared: list[set[str]]
) -> None:
    promote(publish("regressor", off=2.0, learned=TRAINED), "champion", places)
    said: list[str] = []
    move = promote(publish("regressor", off=1.0, learned=TRAINED), "champion", places, say=said.append)
    assert compared == [names_of(2, 3, 4)] * 2
    assert move.evidence is not None and (move.evidence.seen, move.evidence.batches) == (0, "new")
    assert "per tile of the holdout, new batches alone (n=3, 3 groups), better by 1.000" in said[0]


def test_one_group_of_new_batches_decides_nothing(
    places: Places, publish: Callable[..., str], compared: list[set[str]]
) -> None:
    for off in (2.0, 1.0):
        move = promote(publish("regressor", off=off, learned=[*TRAINED, HELD_OUT[2]]), "champion", places)
    assert compared == [names_of(0, 1, 3, 4)] * 2 and move.evidence is not None and move.evidence.batches is None


def test_where_no_frame_is_left_the_alias_moves_by_force_alone(
    places: Places, publish: Callable[..., str], compared: list[set[str]]
) -> None:
    promote(publish("regressor", off=2.0, learned=[*TRAINED, *HELD_OUT[:3]]), "champion", places)
    better = publish("regressor", off=1.0, learned=[*TRAINED, *HELD_OUT[3:]])
    wanted = (
        r"of the 5 frames of the holdout of .*bank none is left to compare regressor@2 and regressor@1 on: one of them "
        r"learned from each, or from a near-duplicate of it; name another bank with --bank; the alias stays as it is "
        r"\(--force --reason TEXT moves it all the same\)"
    )
    with pytest.raises(NotBetterError, match=wanted):
        promote(better, "champion", places)
    assert compared == []
    assert promote(better, "champion", places, force=True, reason="all labels count").number == 2


def test_a_champion_of_before_may_have_seen_frames_which_is_said(
    places: Places, publish: Callable[..., str], compared: list[set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(publish("regressor", off=2.0), "champion", places)
    move = promote(publish("regressor", off=1.0, learned=[*TRAINED, HELD_OUT[0]]), "champion", places)
    assert compared == [names_of(1, 2, 3, 4)] * 2
    assert move.evidence is not None and (move.evidence.seen, move.evidence.batches) == (None, None)
    assert "seen" not in move.model_dump_json(), "as it was written before"


def test_a_pair_that_knows_no_lineage_in_common_is_told_when_an_alias_comes_to_it(
    places: Places, publish: Callable[..., str]
) -> None:
    registry = places.open_registry()
    named = factories.card("classify", classes=["PC3", "LNCAP"])
    counted = factories.card("count").model_copy(update={"lineages": ("T98G",)})
    said: list[str] = []
    promote(registry.publish("classifier", {WEIGHTS: b"w"}, named).ref, "champion", places, say=said.append)
    promote(publish("regressor", off=1.0), "champion", places, say=said.append)
    assert said == []
    move = promote(
        registry.publish("regressor", {WEIGHTS: b"w"}, counted).ref,
        *("champion", places),
        force=True,
        reason="a test",
        say=said.append,
    )
    assert move.number == 2
    [line] = said
    assert line.startswith("warning: regressor@2 learned to count T98G, and classifier@1 names only LNCAP, PC3: ")


@pytest.fixture
def learned_on(places: Places, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, str, set[str]]]]:
    """A champion that learned from TRAINED, and what learned on from SINCE: how far off each is on both kinds."""

    def make(*, new: tuple[float, float], old: tuple[float, float]) -> list[tuple[str, str, set[str]]]:
        asked: list[tuple[str, str, set[str]]] = []
        Bank.open(places.bank).add([*TRAINED, *SINCE])
        registry = places.open_registry()
        for number, frames in ((1, TRAINED), (2, [*TRAINED, *SINCE])):
            told = Learned.of(frames)
            made = factories.card("count").model_copy(update={"batches": told.listed_batches})
            if number == 2:
                made = made.model_copy(update={"relearned": Relearned(corrected=0, new=len(SINCE))})
            registry.publish("regressor", {WEIGHTS: b"w", LEARNED: frames_to_bytes(told.frames)}, made)
        registry.promote("regressor@1", "champion")
        off = {"regressor@1": (new[0], old[0]), "regressor@2": (new[1], old[1])}

        def kept_answers(registry: Registry, version: ModelVersion) -> Kept:
            frames = TRAINED if version.number == 1 else [*TRAINED, *SINCE]
            return Kept(folds={one.frame: f"{version.ref} of {one.frame}" for one in frames})

        def evaluate(
            ref: str, places: Places, *, split: str, only: Iterable[str], kept: Kept, **more: object
        ) -> Evaluation:
            asked.append((ref, split, set(only)))
            assert set(kept.folds) == (set(only) if split == "folds" else set())
            frames = [one for one in places.open_bank().frames if one.frame in set(only)]
            truth = np.array([one.count for one in frames])
            output = truth + off[ref][frames[0].group.startswith("t")]
            rows = Rows(
                truth=truth, output=output, lineages=["A549"] * len(frames), groups=[one.group for one in frames]
            )
            made = registry.resolve(ref).card
            return evaluation(made, rows, ref=ref, sources=[one.source for one in frames])

        monkeypatch.setattr(pipelines.promote, "kept_answers", kept_answers)
        monkeypatch.setattr(pipelines.promote, "evaluate", evaluate)
        return asked

    return make


SINCE = [frame(80 + n, group=f"n{n // 2}", batch="P9", count=1.0, split="train") for n in range(4)]


def test_what_learned_on_is_compared_on_frames_that_the_champion_never_saw(
    places: Places, learned_on: Callable[..., list[tuple[str, str, set[str]]]]
) -> None:
    asked = learned_on(new=(4.0, 1.0), old=(2.0, 2.5))
    since, before = ({one.frame for one in frames} for frames in (SINCE, TRAINED))
    with pytest.raises(
        NotBetterError, match=r"frames learned since \(n=4, 2 groups\), better by 3.000 .*; on those lear"
    ):
        promote("regressor@2", "champion", places)
    assert asked == [
        ("regressor@2", "folds", since),
        ("regressor@1", "all", since),
        ("regressor@2", "folds", before),
        ("regressor@1", "folds", before),
    ]


def test_what_learned_on_and_forgot_nothing_is_promoted(
    places: Places, learned_on: Callable[..., list[tuple[str, str, set[str]]]]
) -> None:
    learned_on(new=(4.0, 1.0), old=(2.0, 2.0))
    said: list[str] = []
    move = promote("regressor@2", "champion", places, say=said.append)
    assert move.number == 2 and move.evidence is not None and move.evidence.before is not None
    assert (move.evidence.frames, move.evidence.n, move.evidence.groups) == ("since", 4, 2)
    assert (move.evidence.before.n, move.evidence.before.difference) == (3, 0.0)
    assert said[0] == (
        "regressor@2 beside regressor@1: mae 1.000 against 4.000 per tile of the holdout, frames learned since (n=4, 2 "
        "groups), better by 3.000 (3.000 to 3.000); on those learned before mae 2.000 against 2.000 per tile of the "
        "holdout (n=3, 3 groups), better by 0.000 (0.000 to 0.000)"
    )
    assert Registry.open(places.registry).history("regressor", "champion")[-1] == move
