"""What is suggested to be labelled next: what is chosen, what may be asked about, and why, in words."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellnet.bank.bank import Bank
from cellnet.bank.columns import Frames
from cellnet.bank.frames import Frame
from cellnet.bank.labels import NONE_OF_THESE, Label
from cellnet.errors import DataError
from cellnet.evaluation.suggesting import Seen, choose, evenly, suggestions_of, waiting_in
from cellnet.prediction.answers import Answer
from tests.factories import card, frame

COUNTER = card()
CLASSIFIER = card("classify", classes=("A549", "THP1"))
CENTRES = ((0.0, 0.0), (40.0, 0.0), (0.0, 40.0), (40.0, 40.0))
SIZES = (12, 8, 4, 1)


def clusters() -> tuple[np.ndarray, np.ndarray]:
    """Features of frames in four heaps of 12, 8, 4 and 1, and the heap of each."""
    heap_N = np.repeat(np.arange(4), SIZES)
    return np.array(CENTRES)[heap_N] + np.random.default_rng(0).normal(0, 0.5, (len(heap_N), 2)), heap_N


def test_each_stands_for_most_that_nothing_stands_for_yet() -> None:
    seen_ND, heap_N = clusters()
    chosen = choose(seen_ND, np.ones(len(seen_ND)), np.empty((0, 2)), 3, least=1.0)
    assert [heap_N[one.place] for one in chosen] == [0, 1, 2]
    assert [one.similar for one in chosen] == [11, 7, 3]
    labelled_MD = np.array([CENTRES[0]])
    chosen = choose(seen_ND, np.ones(len(seen_ND)), labelled_MD, 2, least=1.0)
    assert [heap_N[one.place] for one in chosen] == [1, 2], "a labelled frame stands for the largest heap"


def test_unsure_frames_weigh_more_than_sure_ones() -> None:
    seen_ND, heap_N = clusters()
    first, *_ = choose(seen_ND, (heap_N == 1).astype(float), np.empty((0, 2)), 1)
    assert heap_N[first.place] == 1
    first, *_ = choose(seen_ND, (heap_N == 0).astype(float), np.empty((0, 2)), 1)
    assert heap_N[first.place] == 0


@pytest.mark.parametrize("many", [1, 2, 5])
def test_no_more_are_chosen_than_there_are_and_each_once(many: int) -> None:
    chosen = choose(np.zeros((many, 3)), np.zeros(many), np.zeros((2, 3)), 9)
    assert sorted(one.place for one in chosen) == list(range(many))


def test_frames_are_drawn_evenly_over_batches_and_their_groups() -> None:
    frames = Frames.of(
        replace(frame(n, None, group), batch=batch)
        for n, (batch, group) in enumerate(
            [("P1", "a")] * 20 + [("P1", "b")] * 2 + [("P2", "c")] * 3 + [(None, "d")] * 3
        )
    )
    some = evenly(frames, 9, np.random.default_rng(0))
    assert Counter(some.values("batch")) == {"P1": 3, "P2": 3, None: 3}
    assert Counter(evenly(frames, 12, np.random.default_rng(1)).values("group"))["b"] == 2
    assert evenly(frames, 28, np.random.default_rng(0)) == frames


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    """Of 60 groups of a frame each: the first 20 have a lineage and a count."""
    made = Bank.create(tmp_path / "bank")
    known = [frame(n, "A549" if n % 2 else "THP1", f"w{n}", count=float(n)) for n in range(20)]
    made.add([*known, *(frame(n, None, f"w{n}") for n in range(20, 60))])
    return made


def names(frames: Any) -> set[str]:
    return {one.frame for one in frames}


def numbered(*numbers: int) -> set[str]:
    return {frame(n).frame for n in numbers}


def test_only_frames_without_a_label_of_the_task_are_asked_about(bank: Bank) -> None:
    bank.label([Label(frame=frame(20).frame, count=3), Label(frame=frame(21).frame, unusable="focus")])
    bank.label([Label(frame=frame(n).frame, lineage=NONE_OF_THESE) for n in range(22, 32)])
    for made, labelled in ((COUNTER, (20, 21)), (CLASSIFIER, (21, *range(22, 32)))):
        waiting = waiting_in(bank, made, 20)
        asked = names(waiting.random) | names(waiting.candidates)
        assert not asked & numbered(*range(20), *labelled) and len(waiting.random) == 2
        assert names(waiting.candidates).isdisjoint(names(waiting.random))


def test_what_is_chosen_teaches_and_what_is_drawn_at_random_is_of_every_split(bank: Bank) -> None:
    waiting = waiting_in(bank, COUNTER, 300)
    assert {one.split for one in waiting.candidates} == {"train"} and waiting.kept_apart > 0
    assert {one.split for one in waiting.random} == {"train", "test", "holdout"}


def test_of_few_groups_which_are_scored_by_folds_all_may_be_chosen(tmp_path: Path) -> None:
    bank = Bank.create(tmp_path / "bank")
    bank.add([frame(n, None, f"w{n}") for n in range(19)])
    waiting = waiting_in(bank, COUNTER, 5)
    assert len(waiting.candidates) == 18 and len(waiting.random) == 1 and waiting.kept_apart == 0


def test_copies_of_labelled_frames_and_of_each_other_are_not_asked_about(tmp_path: Path) -> None:
    bank = Bank.create(tmp_path / "bank")
    prints = ["0" * 128, "f" * 128, "0" * 127 + "1", "f" * 126 + "fe", "5" * 128, "5" * 127 + "4", "3c" * 64]
    counts = (4.0, None, None, None, None, None, None)
    bank.add(
        [
            frame(n, None, "w", fingerprint=text, count=count)
            for n, (text, count) in enumerate(zip(prints, counts, strict=True))
        ]
    )
    waiting = waiting_in(bank, COUNTER, 1)
    near = ({2}, {1, 3}, {4, 5}, {6})
    left = [n for n in range(1, 7) if frame(n).frame in names(waiting.candidates)]
    assert all(len(set(left) & some) <= 1 for some in near) and 2 not in left
    assert len(waiting.candidates) + waiting.copies + 1 == 6


def test_the_same_bank_gives_the_same_frames_and_another_entry_others(bank: Bank) -> None:
    first = waiting_in(bank, COUNTER, 100)
    again = waiting_in(Bank.open(bank.store.uri), COUNTER, 100)
    assert first.random == again.random and first.candidates == again.candidates
    bank.label([Label(frame=frame(1).frame, count=3)])
    other = waiting_in(bank, COUNTER, 100)
    assert other.labelled.values("frame") == first.labelled.values("frame") and other.random != first.random


def test_a_counter_of_one_lineage_is_asked_about_no_other(bank: Bank) -> None:
    bank.label([Label(frame=frame(n).frame, lineage="THP1") for n in range(20, 40)])
    config = COUNTER.config.model_copy(update={"lineage": "A549"})
    waiting = waiting_in(bank, COUNTER.model_copy(update={"config": config}), 10)
    assert not (names(waiting.random) | names(waiting.candidates)) & numbered(*range(20, 40))
    assert names(waiting.labelled) == numbered(*range(1, 20, 2))


@pytest.mark.parametrize(
    ("counts", "lineage", "said"),
    [
        ((), None, "has no frame that can be used; import some"),
        ((1.0, 2.0), "A549", "has a count already; import more, or look at the worst answers"),
        ((1.0, 2.0), None, "has a count already, and 2 have no lineage: cellnet suggest BANK classifier:champion"),
    ],
)
def test_where_nothing_lacks_a_label_the_next_step_is_said(
    tmp_path: Path, counts: tuple[float, ...], lineage: str | None, said: str
) -> None:
    bank = Bank.create(tmp_path / "bank")
    bank.add([frame(n, lineage, f"w{n}", count=count) for n, count in enumerate(counts)])
    with pytest.raises(DataError, match=said) as refused:
        waiting_in(bank, COUNTER, 5)
    assert "\n" not in str(refused.value)


def answered(count: float, low: float, high: float, *, unfamiliar: bool = False) -> Answer:
    known: dict[str, Any] = {"model": "regressor@1", "task": "count", "tiles": 1, "magnification": "assumed"}
    return Answer(**known, count=count, count_low=low, count_high=high, unfamiliar=unfamiliar)


def test_why_is_said_in_words_and_what_is_random_is_marked(bank: Bank) -> None:
    waiting = waiting_in(bank, COUNTER, 3)
    waiting = replace(waiting, batches=frozenset({"D1"}), ages_h=(24.0, 72.0))
    frames = [replace(one, batch="D7", time_h=96.0) for one in waiting.candidates]
    asked = {
        one.frame: Seen(one, answered(40, 12, 90, unfamiliar=True), np.array([n % 3, n // 3], np.float32))
        for n, one in enumerate([*frames, *waiting.random])
    }
    told = suggestions_of(waiting, asked, [], 3)
    assert [one.drawn for one in told] == ["chosen"] * 3 + ["random"]
    assert told[-1].why == ["random: for scoring"]
    first = told[0].why
    assert first[:4] == [
        "unlike the training images",
        "batch D7 has no label",
        "96 h: no labelled frame is so old",
        "count 40, could be 12 to 90",
    ]
    assert all("stands for" in why for why in first[4:])


def test_a_frame_that_cannot_be_read_is_not_suggested(bank: Bank) -> None:
    waiting = waiting_in(bank, COUNTER, 3)
    one: Frame = waiting.candidates[0]
    told = suggestions_of(waiting, {one.frame: Seen(one, answered(9, 8, 10), np.zeros(2, np.float32))}, [], 3)
    assert [(said.frame.frame, said.drawn, said.why) for said in told] == [
        (one.frame, "chosen", ["unlike the other frames"])
    ]
