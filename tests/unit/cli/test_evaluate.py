"""What `cellnet evaluate` says of the frames, and the tables that it prints."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipelines.evaluate
from cellnet.bank.bank import Bank
from cellnet.bank.frames import Frame
from cellnet.cli import main
from cellnet.cli.evaluate import print_scores
from cellnet.evaluation.batches import Answered, by_age, by_batch
from cellnet.evaluation.metrics import TOO_FEW, Rows
from cellnet.evaluation.scoring import LeftOut
from cellnet.registry.learned import UNMEASURED, Side
from cellnet.registry.registry import Registry
from tests.factories import Known, card, evaluation, frame, publish

SIDES: tuple[Side | None, ...] = ("same", "same", "new", "new", None)
HOURS = (0.0, 6.0, 48.0, 52.0, None)


def scores(*, sides: tuple[Side | None, ...] = SIDES, **about: Any) -> dict[str, Any]:
    """Of five frames of one tile each, of which the new ones are counted worse."""
    truth = np.full(5, 10.0)
    rows = Rows(truth=truth, output=truth + np.array([1, 1, 4, 6, 0]), lineages=["A549"] * 5, groups=list("abcde"))
    answered = Answered(task="count", classes=[], tiles=rows, frames=rows, tiles_of=[1] * 5)
    told = {"task": "count", "model": "regressor@1", "split": "all", "same_bank": False, "protocol": "grouped"}
    columns = {"batches": by_batch(answered, sides), "by_age": by_age(answered, HOURS)}
    return (
        told
        | {"learned": 0, "left_out": [], "bank_digest": "0" * 64, "bank_entry": None, **answered.scores(), **columns}
        | about
    )


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """`notes(learned=2)`: what is said on stderr of such scores."""

    def of(**about: Any) -> list[str]:
        made = scores(**about)
        rows = Rows(truth=np.zeros(1), output=np.zeros(1), lineages=["A549"], groups=["a"])
        monkeypatch.setattr(pipelines.evaluate, "evaluate", lambda *_, **__: evaluation(card(), rows, **made))
        assert main(["evaluate", "regressor@1", "bank", "--split", made["split"], "--json"]) == 0
        return capsys.readouterr().err.splitlines()

    return of


def test_frames_that_the_model_learned_from_are_counted(notes: Any) -> None:
    assert notes(learned=2) == [
        "note: 2 of 5 frames are ones that the model learned from, or near-duplicates of them; the scores flatter it"
    ]
    [one] = notes(learned=1)
    assert one.startswith("note: 1 of 5 frames is one that the model learned from, or a near-duplicate of one;")


def test_of_frames_that_the_model_never_saw_nothing_is_said(notes: Any) -> None:
    assert notes(learned=0) == notes(learned=0, split="train") == []


def test_the_test_split_of_the_models_own_bank_chose_it(notes: Any) -> None:
    own = {"split": "test", "same_bank": True, "learned": 5}
    [note] = notes(**own)
    assert note == "note: the test split chose what was published, and calibrated it; its scores flatter it a little"
    assert "5 of 5 frames are ones that" in notes(**own | {"same_bank": False})[0]
    assert "5 of 5 frames are ones that" in notes(**own, protocol="paper")[0]


def test_of_a_version_of_before_is_said_what_the_splits_tell(notes: Any) -> None:
    assert notes(learned=None) == [
        "note: regressor@1 was trained on another state of the bank; its splits may differ",
        "note: these frames include those that the model was trained on; the scores flatter it",
    ]
    assert notes(learned=None, split="holdout", same_bank=True) == []


def printed(capsys: pytest.CaptureFixture[str], made: dict[str, Any]) -> str:
    print_scores(made)
    return " ".join(capsys.readouterr().out.split())


def test_a_model_is_scored_on_the_bank_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(Registry.open(str(tmp_path / "registry")), "count")
    bank = Bank.create(tmp_path / "bank")
    for number in (1, 2, 3):
        bank.add([frame(number, count=3)])

    def unusable(predictor: object, frames: list[Frame], store: object) -> tuple[list[object], list[LeftOut]]:
        return [], [LeftOut(one, "damaged") for one in frames]

    monkeypatch.setattr(pipelines.evaluate.cluster, "connect", lambda *places: None)
    monkeypatch.setattr(pipelines.evaluate, "score_frames", unusable)
    monkeypatch.setattr(pipelines.evaluate.Predictor, "load", lambda registry, ref: Known(registry.resolve(ref)))
    given = ("evaluate", "regressor@1", str(bank.store.uri), "--registry", str(tmp_path / "registry"), "--split", "all")
    for words, said in (
        ((), "the first of 3"),
        (("--as-of", "2"), "the first of 2"),
        (("--as-of", "9"), "has the entries 1 to 3, and no 9"),
        (("--as-of", "2020-01-01"), "has nothing of 2020-01-01"),
        (("--as-of", "soon"), "--as-of takes the number of an entry, or a time"),
    ):
        assert main([*given, *words]) == 2
        [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cellnet")]
        assert said in line


def test_same_and_new_batches_stand_beside_each_other_and_ages_below(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, scores())
    assert "batch per n mae mse rmse r r2 bias mape from to same frame 2 1.000" in text
    assert "0.100 - - new frame 2 5.000" in text and "0.500 4.000 6.000" in text
    assert "per frame, by hours since seeding: hours n mae" in text
    assert "0-6 2 1.000" in text and "48-52 2 5.000" in text and UNMEASURED not in text


def test_without_a_new_batch_the_next_plate_is_said_to_be_unmeasured(capsys: pytest.CaptureFixture[str]) -> None:
    only = printed(capsys, scores(sides=("same",) * 5))
    assert "same frame 5 2.400" in only and UNMEASURED in only
    neither = printed(capsys, scores(sides=(None,) * 5, by_age=[]))
    assert UNMEASURED in neither and "by batch" not in neither and "since seeding" not in neither


def test_what_is_of_too_few_is_no_figure_and_the_reason_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, scores())
    assert text.endswith(TOO_FEW.removeprefix("–"))
    table = text.partition("95 % intervals")[0]
    assert re.search(r"frame 5 [0-9.]+ [0-9.]+ [0-9.]+ - - ", table), "R and R² of five frames"


@pytest.mark.slow
def test_scores_of_frames_that_were_chosen_are_marked_and_those_of_the_others_beside_them(
    notes: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    others = {unit: scores()[unit] | {"n": 4, "mae": 1.25} for unit in ("tile", "frame")}
    chosen = {"frames": 1, "of": 5, "others": others}
    said = "1 of 5 frames was chosen because it is hard: the score is not that of a usual frame"
    assert notes(chosen=chosen) == [f"note: {said}"]
    assert "frames that were not chosen: per n mae" in printed(capsys, scores(chosen=chosen))
    assert "not chosen" not in printed(capsys, scores(chosen=chosen | {"others": None}))
