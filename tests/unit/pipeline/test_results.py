"""Results: each once, by the name of what it takes in; damaged ones are named."""

import json
from pathlib import Path

import pytest

from cellnet.errors import IntegrityError
from cellnet.pipeline.results import Attempt, Result, Results, key_of
from cellnet.store.folder import FolderStore

INPUTS = {"verb": "train", "bank_digest": "a" * 64}


def result(**changes: object) -> Result:
    made = {"step": "train", "key": key_of(INPUTS), "inputs": INPUTS, "state": "done", "result": {"model": "m@1"}}
    about = {"began": "2026-11-29T10:00:00+00:00", "seconds": 1.0, "who": "me"}
    return Result(**(made | about | changes))


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(FolderStore(tmp_path), "lab")


def test_the_first_result_of_a_key_counts(results: Results) -> None:
    first = result()
    assert results.find("train", first.key) is None and results.last("train") is None
    assert results.keep(first) == first
    assert results.keep(result(result={"model": "m@2"})) == first == results.find("train", first.key)
    other = INPUTS | {"bank_digest": "b" * 64}
    newer = results.keep(result(inputs=other, key=key_of(other)))
    assert results.last("train") in (first, newer) and newer.key != first.key


def test_how_a_step_was_begun_is_replaced_and_its_log_kept(results: Results) -> None:
    assert results.attempt("train", "k") is None and results.log("train", "k") == b""
    results.note("train", "k", Attempt(began="now", who="me"))
    results.note("train", "k", Attempt(began="now", who="me", failed="no room", seconds=2))
    attempt = results.attempt("train", "k")
    assert attempt and attempt.failed == "no room"
    results.keep_log("train", "k", b"line\n")
    assert Path(results.uri("train", "k", "log")).read_bytes() == b"line\n" == results.log("train", "k")
    assert results.last("train") is None, "neither is a result"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda record: record | {"result": {"model": "m@7"}}, "is not what its sha256 promises"),
        (lambda record: record | {"inputs": {"verb": "tune"}}, "is not what its sha256 promises"),
        (lambda record: {name: record[name] for name in record if name != "sha256"}, "is not what its sha256 promises"),
        (lambda record: [], "is damaged"),
    ],
)
def test_a_result_that_somebody_changed_is_named(results: Results, change: object, why: str) -> None:
    kept = results.keep(result())
    file = Path(results.uri("train", kept.key, "json"))
    file.write_text(json.dumps(change(json.loads(file.read_bytes()))))  # type: ignore[operator]
    with pytest.raises(IntegrityError, match=rf"{kept.key}\.json in .* {why}.*remove it, and the step runs again"):
        results.find("train", kept.key)
