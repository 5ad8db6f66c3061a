"""`cellnet registry`, as users type it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from cellnet.bank.bank import Bank
from cellnet.bank.labels import Label, Seen
from cellnet.cli import main
from cellnet.config.train import ModelSpec
from cellnet.registry.records import Card
from cellnet.registry.registry import Registry
from cellnet.untrusted import WEIGHTS
from tests.factories import bank_of

Run = Callable[..., str]


@pytest.fixture
def registry(tmp_path: Path, card: Callable[..., Card], monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Three versions of a counter and one of a classifier, at the place that commands take by default."""
    for name in ("CELLNET_TRUSTED_KEYS", "CELLNET_SIGNING_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CELLNET_REGISTRY", str(tmp_path / "registry"))
    registry = Registry.open(str(tmp_path / "registry"))
    for number in range(3):
        scored = card().model_copy(update={"scores": {"test": {"mae": 0.5 - number / 10, "r2": 0.9, "r": None}}})
        registry.publish("regressor", {WEIGHTS: _weights(number)}, scored)
    registry.publish("classifier", {WEIGHTS: _weights(9)}, card("classify", classes=("A549", "THP1")))
    return registry


@pytest.fixture
def run(registry: Registry, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("show", "regressor@1")` gives what `cellnet registry show regressor@1` prints on stdout."""

    def command(*words: object) -> str:
        status = main(["registry", *map(str, words)])
        printed = capsys.readouterr()
        assert status == 0, printed.err
        return printed.out

    return command


@pytest.fixture
def refused(registry: Registry, capsys: pytest.CaptureFixture[str]) -> Run:
    """The one line on stderr with which a command is refused."""

    def command(*words: object) -> str:
        assert main(["registry", *map(str, words)]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert lines[-1].startswith("cellnet: ")
        return lines[-1]

    return command


def _weights(number: int) -> bytes:
    data: bytes = safetensors.numpy.save({"w": np.full(4, number, np.float32)})
    return data


def test_the_newest_are_listed_first_and_more_on_demand(run: Run) -> None:
    run("promote", "regressor@2", "champion")
    lines = run("list").splitlines()
    assert [line.split()[0] for line in lines] == ["model", "classifier@1", "regressor@3", "regressor@2", "regressor@1"]
    assert "champion" in lines[3] and lines[3].endswith("mae 0.400")
    assert json.loads(run("list", "regressor", "--json"))[1]["test"] == "mae 0.400 r2 0.900"
    assert [line.split()[0] for line in run("list", "regressor", "--newest", 1).splitlines()[1:]] == ["regressor@3"]
    assert [row["model"] for row in json.loads(run("list", "--json"))][:2] == ["classifier@1", "regressor@3"]


def test_the_list_fits_a_terminal_and_says_what_marks_its_scores(
    run: Run, registry: Registry, card: Callable[..., Card]
) -> None:
    plain = card("classify", classes=("A549", "THP1"))
    model = ModelSpec(architecture="efficientnet_lite0", frozen=True)
    scores = {"folds": {"accuracy": 0.835, "balanced_accuracy": 0.836}}
    frozen = plain.model_copy(
        update={
            "config": plain.config.model_copy(update={"model": model}),
            "preprocess": plain.preprocess.model_copy(update={"kernel": "sharpen"}),
            "scores": scores,
        }
    )
    registry.publish("classifier", {WEIGHTS: _weights(8)}, frozen)
    run("promote", "classifier@2", "champion")
    head, first, second, *_ = run("list").splitlines()
    assert head.split() == ["model", "aliases", "network", "created", "test"]
    assert first.startswith("classifier@2  champion  efficientnet_lite0 sharpen  ")
    assert first.endswith("  accuracy 0.835 (folds)") and second.endswith("  classify, not scored")
    assert max(map(len, (head, first, second))) <= 86


def test_a_network_that_has_its_own_activation_is_said_to_have_no_other(
    run: Run, registry: Registry, card: Callable[..., Card]
) -> None:
    plain = card("classify", classes=("A549", "THP1"))
    model = ModelSpec(architecture="efficientnet_lite0", frozen=True)
    frozen = plain.model_copy(update={"config": plain.config.model_copy(update={"model": model})})
    registry.publish("classifier", {WEIGHTS: _weights(8)}, frozen)
    assert json.loads(run("list", "classifier", "--json"))[0]["activation"] is None
    assert "- network efficientnet_lite0, frozen but for its last layers\n" in run("show", "classifier@2")
    assert "- network residual, activation relu, width 4, depth 2\n" in run("show", "classifier@1")


def test_the_first_move_of_an_alias_needs_no_reason_and_what_to_do_next_is_said(
    run: Run, refused: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["registry", "promote", "classifier@1", "champion"]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "next: cellnet predict IMAGES --out results; cellnet serve"
    assert run("history", "classifier", "champion").endswith("classifier@1: the first\n")
    assert "it has classifier@1 and classifier:champion" in refused("show", "classifier@9")


def test_what_was_not_listed_is_said(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["registry", "list", "--newest", "2"]) == 0
    assert "older versions are not shown; --all, or --newest N, shows them" in capsys.readouterr().err
    assert main(["registry", "list", "--newest", "2", "--all"]) == 0
    printed = capsys.readouterr()
    assert printed.err == "" and "regressor@1" in printed.out


def test_a_model_that_is_not_there_is_answered_with_those_that_are(refused: Run) -> None:
    for words in (("list", "regresor"), ("verify", "regresor"), ("show", "regresor@1"), ("history", "regresor", "x")):
        assert refused(*words).endswith("it has the models classifier, regressor"), words


def test_a_version_is_shown_as_a_card(run: Run, registry: Registry) -> None:
    run("promote", "regressor@3", "champion")
    card = run("show", "regressor:champion")
    assert card.startswith("# regressor@3 (champion)\n\nCounts the cells in a frame.\n\n## How well\n")
    assert "- test split, per tile: mae 0.300, r2 0.900\n" in card
    assert "- frames like those of the training: 200×200 pixels in the median, of a pixel size that was not" in card
    assert f"- weights.safetensors, {len(_weights(2))} bytes, sha256 " in card and card.endswith("- not signed\n")
    assert "Names the lineage of the cells in a frame: A549, THP1." in run("show", "classifier@1")
    plain = registry.resolve("regressor@1").card
    one = plain.model_copy(update={"config": plain.config.model_copy(update={"lineage": "A549"})})
    registry.publish("regressor-A549", {WEIGHTS: _weights(4)}, one)
    assert "\n\nCounts the cells in a frame of A549. It was trained on no other" in run("show", "regressor-A549@1")
    whole = json.loads(run("show", "regressor@3", "--json"))
    assert whole == registry.resolve("regressor@3").model_dump(mode="json")


@pytest.mark.slow
def test_what_a_record_says_does_not_command_the_terminal(run: Run, registry: Registry, card: Callable) -> None:
    evil = card("classify", classes=("A549\x1b[2J", "THP1")).model_copy(update={"created": "\x1b]0;x\x07"})
    registry.publish("evil", {WEIGHTS: _weights(1)}, evil)
    registry.promote("evil@1", "champion", reason="\x1b[31mred")
    for words in (("list",), ("show", "evil@1"), ("history", "evil", "champion")):
        assert "\x1b" not in run(*words) and "\x07" not in run(*words)


def test_a_tag_is_a_reference_that_does_not_move(run: Run, refused: Run) -> None:
    assert run("tag", "regressor@1", "paper", "--reason", "figure 3") == "regressor:paper is regressor@1\n"
    assert "# regressor@1 (paper)" in run("show", "regressor:paper")
    assert "regressor@1: figure 3" in run("history", "regressor", "paper")
    assert "is a tag of regressor@1; choose another name" in refused("tag", "regressor@2", "paper")
    assert "is a tag of regressor@1, and does not move" in refused("promote", "regressor@2", "paper")
    assert "is a tag of regressor@1, and does not move" in refused(
        *("promote", "regressor@2", "paper", "--force", "--reason", "no")
    )


def test_an_alias_goes_back_with_a_reason(run: Run) -> None:
    run("promote", "regressor@1", "champion")
    run("promote", "regressor@2", "champion", "--force", "--reason", "looked better")
    assert run("rollback", "regressor", "champion", "--reason", "it was not") == (
        "regressor:champion is regressor@1 (before: regressor@2)\n"
    )
    last = json.loads(run("history", "regressor", "champion", "--json"))[-1]
    assert last["reason"] == "rollback from regressor@2: it was not" and last["number"] == 1


def test_what_is_not_whole_is_told_and_exit_is_2(run: Run, registry: Registry, capsys: pytest.CaptureFixture) -> None:
    assert run("verify").splitlines() == ["classifier@1: ok", *(f"regressor@{n}: ok" for n in (3, 2, 1))]
    assert json.loads(run("verify", "classifier", "--json")) == [{"what": "classifier@1", "problem": None}]
    registry.store.put(f"regressor/blobs/{registry.resolve('regressor@2').blobs[WEIGHTS].sha256}", _weights(7))
    assert main(["registry", "verify"]) == 2
    printed = capsys.readouterr()
    assert "regressor@2: weights.safetensors of regressor@2 is damaged" in printed.out
    assert printed.err == "cellnet: 1 of 4 are not whole; publish them again, or restore them from a copy\n"


def test_what_nobody_needs_is_cleared_away(run: Run, refused: Run, registry: Registry) -> None:
    registry.store.put("regressor/blobs/" + "0" * 64, b"left")
    assert run("gc", "--dry-run") == (
        "1 file would be put into the trash, 0 taken out of it\n0 files would be removed from the trash, 0 bytes\n"
    )
    assert run("gc").startswith("1 file put into the trash")
    assert json.loads(run("gc", "--json"))["trashed"] == 0
    assert "at least" in refused("gc", "--keep-days", "0")


def test_a_version_is_exported_and_brought_into_another_registry(run: Run, refused: Run, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert run("export", "regressor@3", folder) == f"{folder}\n"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "version.json", WEIGHTS]
    assert "is there already" in refused("export", "regressor@3", folder)
    there = ("--registry", tmp_path / "other")
    assert run("import", "regressor@3", "--from", tmp_path / "registry", *there) == "regressor@1\n"
    assert run("import", "regressor@3", "--from", tmp_path / "registry", *there) == "regressor@1\n"
    assert f"- imported from regressor@3 of {tmp_path / 'registry'}" in run("show", "regressor@1", *there)
    assert "it is empty" in refused("import", "regressor@3", "--from", tmp_path / "nowhere", *there)


def test_a_reference_is_resolved_for_programs(run: Run) -> None:
    run("promote", "regressor@2", "champion")
    assert run("resolve", "regressor:champion") == "regressor@2\n"


def test_an_exported_folder_is_published_elsewhere(run: Run, refused: Run, tmp_path: Path) -> None:
    folder, there = tmp_path / "out", ("--registry", tmp_path / "other")
    run("export", "regressor@3", folder)
    assert run("publish", folder, *there) == run("publish", folder, *there) == "regressor@1\n"
    assert run("publish", folder, *there, "--name", "counter") == "counter@1\n"
    assert f"- imported from regressor@3 of {folder}" in run("show", "counter@1", *there)
    assert "cannot read" in refused("publish", tmp_path / "nothing", *there)
    (folder / WEIGHTS).write_bytes(_weights(5))
    assert "is not what version.json says" in refused("publish", folder, *there)
    (folder / WEIGHTS).write_bytes(_weights(5) * 2)
    assert "has over the" in refused("publish", folder, *there)
    (folder / WEIGHTS).unlink()
    assert "cannot read" in refused("publish", folder, *there)
    (folder / "version.json").write_text("{}")
    assert "version.json is damaged" in refused("publish", folder, *there)


def test_a_folder_whose_signature_is_not_trusted_is_not_published(run: Run, refused: Run, tmp_path: Path) -> None:
    folder, key = tmp_path / "out", tmp_path / "lab"
    run("export", "regressor@3", folder)
    run("keygen", key)
    signed = ("--signing-key", key, "--trusted-keys", f"{key}.pub", "--registry", tmp_path / "other")
    assert "version.json is not signed" in refused("publish", folder, *signed)
    run("import", "regressor@3", "--from", tmp_path / "registry", *signed, "--accept-unsigned")
    run("export", "regressor@1", tmp_path / "signed", "--registry", tmp_path / "other")
    assert run("publish", tmp_path / "signed", *signed) == "regressor@2\n"


def test_keys_sign_and_verify(
    run: Run, refused: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry
) -> None:
    key = tmp_path / "lab"
    assert run("keygen", key) == f"{key}.pub\n"
    assert "is there already" in refused("keygen", key)
    source, there = ("--from", tmp_path / "registry"), ("--registry", tmp_path / "other")
    trusted = ("--trusted-keys", f"{key}.pub")
    assert " is not signed, and only signed" in refused("import", "regressor@1", *source, *there, *trusted)
    run("import", "regressor@1", *source, *there, *trusted, "--signing-key", key, "--accept-unsigned")
    assert "…, which is trusted" in run("show", "regressor@1", *there, *trusted)
    monkeypatch.setenv("CELLNET_TRUSTED_KEYS", f"{key}.pub")
    assert " is not signed, and only signed" in refused("show", "regressor@1")
    run("import", "regressor@1", "--from", tmp_path / "other", *there, "--name", "signed", "--signing-key", key)
    assert "4 of 4 are not whole" in refused("verify")
    assert "cannot read the key" in refused("show", "regressor@1", "--trusted-keys", tmp_path / "none")


def test_a_training_that_could_not_be_published_does_not_start(
    registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cellnet.bank.bank import Bank
    from cellnet.bank.frames import Frame
    from cellnet.registry.signing import make_keys
    from pipelines import cluster

    bank = Bank.create(str(tmp_path / "bank"))
    frames = [
        Frame(frame=f"{lineage}{group}".encode().hex().ljust(64, "0"), source="x", lineage=lineage, group=group,
              count=1, height=400, width=400, bits=8)
        for lineage in ("A549", "THP1") for group in "123456"
    ]  # fmt: skip
    bank.add(frames)
    monkeypatch.setattr(cluster, "connect", lambda: pytest.fail("it started"))
    public = make_keys(tmp_path / "key")
    for command in ("train", "tune"):
        words = [command, str(tmp_path / "bank"), "--task", "count"]
        assert main([*words, "--name", "no/name"]) == 2
        assert "'no/name' is not a name" in capsys.readouterr().err
        assert main([*words, "--trusted-keys", str(public)]) == 2
        assert "so give --signing-key too" in capsys.readouterr().err


def test_a_version_is_shown_with_how_often_people_said_otherwise(run: Run, refused: Run, tmp_path: Path) -> None:
    bank = Bank.open(str(bank_of(tmp_path / "bank", {"A549": ["P1/B02", "P1/B03"]})))
    seen = Seen(versions=("regressor@3",), count=12.0)
    said = {frame.frame: count for frame, count in zip(bank.frames, (12, 40), strict=True)}
    bank.label([Label(frame=frame, count=count, seen=seen) for frame, count in said.items()], by="ana")
    shown = run("show", "regressor@3", "--bank", bank.store.uri)
    assert f"## What people said\n\n- people judged 2 of its answers in {bank.store.uri}, and said" in shown
    assert "- lineage A549: 1 of 2 (50 %, 0 to 100 %)\n" in shown
    judged = json.loads(run("show", "regressor@3", "--bank", bank.store.uri, "--json"))["judged"]
    assert (judged["all"]["n"], judged["per_lineage"]["A549"]["otherwise"]) == (2, 1)
    assert "What people said" not in run("show", "regressor@2", "--bank", bank.store.uri)
    assert "What people said" not in run("show", "regressor@3"), "its own bank is not there"
    assert "there is no bank at" in refused("show", "regressor@3", "--bank", tmp_path / "none")


def test_without_another_the_bank_of_its_training_tells(
    run: Run, registry: Registry, tmp_path: Path, card: Callable[..., Card]
) -> None:
    bank = Bank.open(str(bank_of(tmp_path / "bank", {"A549": ["P1/B02"]})))
    own = card().model_copy(update={"bank": bank.store.uri})
    ref = registry.publish("regressor", {WEIGHTS: _weights(7)}, own).ref
    [frame] = bank.frames
    bank.label([Label(frame=frame.frame, count=3, seen=Seen(versions=(ref,), count=3.0))])
    assert f"people judged 1 of its answers in {bank.store.uri}, and said otherwise of 0 of 1" in run("show", ref)


def test_a_bank_in_a_bucket_is_not_asked_about_a_version_in_a_folder(
    run: Run, registry: Registry, card: Callable[..., Card], monkeypatch: pytest.MonkeyPatch
) -> None:
    away = card().model_copy(update={"bank": "s3://lab/bank"})
    ref = registry.publish("regressor", {WEIGHTS: _weights(8)}, away).ref

    def never(*given: object, **named: object) -> None:
        raise AssertionError("it may not even answer")

    monkeypatch.setattr(Bank, "open", never)
    assert "What people said" not in run("show", ref)
