"""How often people said otherwise than a version."""

from pathlib import Path

import pytest

from cellnet.bank.bank import Bank
from cellnet.bank.labels import Label, Seen
from cellnet.evaluation.judged import MOST_NAMED, judged_by_people
from cellnet.registry.records import ModelVersion
from cellnet.tasks import Task
from tests import factories


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    made = Bank.create(tmp_path / "bank")
    batches = ["monday", "monday", "tuesday", None]
    of = ["A549", "THP1", "A549", "A549"]
    made.add([factories.frame(n, of[n], f"P1/B0{n}", count=9.0, batch=batches[n]) for n in range(4)])
    return made


def version(task: Task, number: int = 1) -> ModelVersion:
    name = "classifier" if task == "classify" else "regressor"
    return ModelVersion(name=name, number=number, blobs={}, card=factories.card(task))


def says(number: int, *, by: str = "ana", regressor: int = 1, **values: object) -> Label:
    seen = Seen(versions=("classifier@1", f"regressor@{regressor}"), lineage="A549", count=9.0)
    return Label(frame=factories.frame(number).frame, seen=seen, by=by, **values)


def test_the_share_is_told_by_lineage_and_batch_of_the_answers_that_somebody_judged(bank: Bank) -> None:
    bank.label([says(0, accepted=True), says(1, lineage="THP1", count=9), says(2, count=30), says(3, count=30)])
    counted = judged_by_people(version("count"), bank)
    assert counted is not None
    assert (counted.all.n, counted.all.otherwise) == (4, 2) and counted.all.interval is not None
    assert {name: (one.n, one.otherwise) for name, one in counted.per_lineage.items()} == {
        "A549": (3, 2),
        "THP1": (1, 0),
    }
    assert {name: (one.n, one.otherwise) for name, one in counted.per_batch.items()} == {
        "monday": (2, 0),
        "tuesday": (1, 1),
    }
    named = judged_by_people(version("classify"), bank)
    assert named is not None and (named.all.n, named.all.otherwise) == (2, 1)


def test_of_a_person_and_frame_the_last_word_counts_that_was_not_taken_back(bank: Bank) -> None:
    bank.label([says(0, count=30)])
    bank.label([says(0, count=9)])
    bank.label([says(0, count=20, by="ben")])
    judged = judged_by_people(version("count"), bank)
    assert judged is not None and (judged.all.n, judged.all.otherwise) == (2, 1)
    bank.undo(bank.entry)
    judged = judged_by_people(version("count"), bank)
    assert judged is not None and (judged.all.n, judged.all.otherwise) == (1, 0)


def test_of_another_version_and_of_what_nobody_looked_at_nothing_is_told(bank: Bank) -> None:
    bank.label([says(0, count=30, regressor=2), Label(frame=factories.frame(1).frame, count=3)])
    bank.label([says(2, unusable="focus")])
    assert judged_by_people(version("count", 1), bank) is None
    judged = judged_by_people(version("count", 2), bank)
    assert judged is not None and judged.all.n == 1 and judged.all.interval is None, "one group has no interval"


def test_many_batches_are_not_all_named(tmp_path: Path) -> None:
    bank = Bank.create(tmp_path / "bank")
    number = MOST_NAMED + 3
    bank.add([factories.frame(n, "A549", f"P1/B{n}", batch=f"day {n}") for n in range(number)])
    bank.label([says(n, count=9) for n in range(number)])
    judged = judged_by_people(version("count"), bank)
    assert judged is not None and len(judged.per_batch) == number
    lines = list(judged.lines())
    assert sum(line.startswith("batch") for line in lines) == MOST_NAMED and "and 3 more, which `--json` has" in lines
