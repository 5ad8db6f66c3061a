"""`cellnet pipeline` as users type it, its commands without Ray: what runs, and what a cut run leaves."""

import argparse
import itertools
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cellnet.cli.bank
import cellnet.cli.evaluate
import cellnet.cli.pipeline
import cellnet.cli.registry
import cellnet.cli.train
import cellnet.cli.tune
from cellnet.bank.bank import Bank
from cellnet.cli import main
from cellnet.cli.options import places_of
from cellnet.cli.printing import print_json, say
from cellnet.errors import DataError, NotBetterError
from cellnet.pipeline import steps
from cellnet.pipeline.results import Results
from cellnet.registry.registry import Registry
from cellnet.store import lease as leases
from cellnet.store.folder import FolderStore
from cellnet.store.lease import Lease
from cellnet.tasks import TASKS
from tests.factories import card, even_png, frame, lineages_of
from tests.integration.dies import METHODS

FILE = """
bank: bank
registry: registry
sources: [{source: images, channel: 1}]
models:
  classify: {train: {set: {epochs: 2}, workers: 2}}
  count: {tune: {trials: 2}}
evaluate: [{split: holdout}, {split: test}]
promote: {alias: champion}
"""
STEPS = [
    *("import-1", "train-classify", "tune-count", "evaluate-classify-1", "evaluate-classify-2"),
    *("evaluate-count-1", "evaluate-count-2", "promote-classify", "promote-count"),
]
DIED = 9


class Lab:
    """A folder with images and a file, and the commands that ran."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "lab.yaml"
        self.ran: list[str] = []
        self.refused = False
        self.fails: str | None = None
        (folder / "images/A549").mkdir(parents=True)
        (folder / "images/A549/1.png").write_bytes(even_png())
        self.file.write_text(FILE)

    @property
    def registry(self) -> Registry:
        return Registry.open(str(self.folder / "registry"))

    def label(self, number: int) -> None:
        """One frame more, as by people."""
        Bank.create(str(self.folder / "bank")).add([frame(number)])

    def run(self, *words: str, status: int = 0) -> list[str]:
        """The commands that a run runs."""
        self.ran.clear()
        assert main(["pipeline", "run", str(self.file), *words]) == status
        return list(self.ran)

    def seen(self, capsys: pytest.CaptureFixture[str], verb: str = "show", *words: str) -> dict[str, dict[str, Any]]:
        """Each step, as the command tells it."""
        capsys.readouterr()
        assert main(["pipeline", verb, str(self.file), "--json", *words]) == 0
        return {one["step"]: one for one in json.loads(capsys.readouterr().out)["steps"]}


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    for name in ("CELLNET_TRUSTED_KEYS", "CELLNET_SIGNING_KEY", "CELLNET_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    lab = Lab(tmp_path)

    def said(what: str, answer: Callable[[argparse.Namespace], Any]) -> Callable[[argparse.Namespace], None]:
        def command(given: argparse.Namespace) -> None:
            lab.ran.append(what)
            say(f"this is {what}")
            if lab.fails == what:
                raise DataError("no frame can be used")
            print_json(answer(given))

        return command

    def import_(given: argparse.Namespace) -> dict[str, Any]:
        assert given.channel == "1"
        bank = Bank.create(places_of(given).bank)
        if not bank.frames:
            bank.add([frame(1), frame(2)])
        return {"digest": bank.digest, "entry": bank.entry, "rows": [{"frames": 2}], "set_aside": []}

    def fit(given: argparse.Namespace) -> dict[str, Any]:
        registry, name = places_of(given).open_registry(), TASKS[given.task].model
        made = card(given.task, classes=lineages_of(given.task)).model_copy(update={"once": given.once})
        version = registry.published_once(name, given.once) or registry.publish(name, {}, made)
        return {"model": version.ref, "test": {"accuracy": 0.5}}

    def evaluate(given: argparse.Namespace) -> dict[str, Any]:
        task = registry_of(given).resolve(given.ref).card.task
        return {"model": given.ref, "split": given.split, "task": task, "tile": {"accuracy": 0.5, "mae": 1.5}}

    def promote(given: argparse.Namespace) -> dict[str, Any]:
        if lab.refused:
            raise NotBetterError(f"{given.ref} is not shown to be better")
        move = registry_of(given).promote(given.ref, given.alias, reason=given.reason)
        return move.model_dump(mode="json")

    for module, name, what in (
        (cellnet.cli.bank, "import_", import_),
        (cellnet.cli.train, "train", fit),
        (cellnet.cli.tune, "tune", fit),
        (cellnet.cli.evaluate, "evaluate", evaluate),
        (cellnet.cli.registry, "promote", promote),
    ):
        monkeypatch.setattr(module, name, said(name.rstrip("_"), what))
    monkeypatch.setattr(cellnet.cli.pipeline, "_connect", lambda file: None)
    monkeypatch.setattr(steps, "code_identity", lambda: "0.3.0")  # all files are read otherwise, each time
    return lab


def registry_of(given: argparse.Namespace) -> Registry:
    return places_of(given).open_registry()


def test_each_step_runs_once_and_nothing_runs_where_nothing_changed(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lab.run() == ["import", "train", "tune", *["evaluate"] * 4, *["promote"] * 2]
    assert lab.registry.resolve("classifier:champion").ref == "classifier@1"
    capsys.readouterr()
    assert lab.run() == []
    assert "nothing to do" in capsys.readouterr().err
    seen = lab.seen(capsys)
    assert list(seen) == STEPS and {one["state"] for one in seen.values()} == {"done"}
    assert seen["tune-count"]["result"] == {"model": "regressor@1", "test": {"accuracy": 0.5}}
    assert "this is tune\n" in Path(seen["tune-count"]["log"]).read_text()
    assert "--no-promote" in seen["tune-count"]["commands"][0] and "--as-of 1" in seen["tune-count"]["commands"][0]
    assert "--as-of 1" in seen["evaluate-count-1"]["commands"][0]


def test_nothing_to_do_starts_no_ray(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.run()
    for name in [name for name in sys.modules if name.partition(".")[0] in ("ray", "pipelines")]:
        monkeypatch.delitem(sys.modules, name)
    lab.run()
    assert "ray" not in sys.modules and "pipelines" not in sys.modules


@pytest.mark.slow
def test_after_a_label_what_depends_on_the_banks_digest_runs_alone(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.run()
    before = Bank.open(str(lab.folder / "bank")).digest
    lab.label(7)
    planned = lab.seen(capsys, "run", "--dry-run")
    after = Bank.open(str(lab.folder / "bank")).digest
    assert planned["import-1"]["state"] == "done"
    why = f"the bank's digest changed from {before[:12]} to {after[:12]}"
    assert planned["train-classify"]["why"] == why and planned["train-classify"]["last"]["model"] == "classifier@1"
    assert planned["evaluate-count-1"]["why"] == "after tune-count, which is to run"
    assert lab.run() == ["train", "tune", *["evaluate"] * 4, *["promote"] * 2]
    assert lab.registry.resolve("classifier:champion").ref == "classifier@2"


def test_a_dry_run_says_each_command_and_why_and_does_nothing(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab.run("--dry-run") == []
    out = capsys.readouterr().out
    assert "import-1: would run, it has not run yet\n  cellnet bank import " in out
    assert "train-classify: would run, after import-1, which is to run\n  cellnet train " in out
    assert "--set epochs=2" in out and "--trials 2" in out
    assert not (lab.folder / "bank").exists() and not (lab.folder / "registry").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "why", "runs"),
    [
        (lambda lab: (lab.folder / "images/A549/2.png").write_bytes(even_png(grey=9)), "files of the source", 1),
        (lambda lab: lab.file.write_text(FILE.replace("epochs: 2", "epochs: 3")), "its settings changed", 4),
        (lambda lab: lab.file.write_text(FILE.replace("workers: 2", "workers: 1")), "", 0),
    ],
    ids=["another image", "another setting", "other workers"],
)
def test_why_a_step_runs_again_is_said(
    lab: Lab, capsys: pytest.CaptureFixture[str], change: Callable[[Lab], object], why: str, runs: int
) -> None:
    lab.run()
    change(lab)
    assert any((one["why"] or "").startswith(why) for one in lab.seen(capsys, "run", "--dry-run").values())
    assert len(lab.run()) == runs, "importing what is there already changes no digest"


@pytest.mark.parametrize("where", ["classify", "count", "config"])
def test_a_file_of_weights_is_known_by_what_is_in_it(
    lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    told = {
        "classify": FILE.replace("epochs: 2", "model.weights: mine.safetensors"),
        "count": FILE.replace("{trials: 2}", "{trials: 2, set: {space: {model: {weights: [none, mine.safetensors]}}}}"),
        "config": FILE.replace("{set: {epochs: 2}, ", "{config: train.yaml, "),
    }
    lab.file.write_text(told[where])
    (lab.folder / "train.yaml").write_text("model: {weights: work/mine.safetensors}\n")
    (lab.folder / "work").mkdir()
    weights = lab.folder / ("work" if where == "config" else "") / "mine.safetensors"
    weights.write_bytes(b"one")
    monkeypatch.chdir(lab.folder if where == "config" else lab.folder / "work")
    step, verb = ("tune-count", "tune") if where == "count" else ("train-classify", "train")
    lab.run()
    [typed] = lab.seen(capsys)[step]["commands"]
    assert (str(lab.folder / "mine.safetensors") in typed) == (where != "config"), (
        "as the file of the pipeline names it"
    )
    assert lab.run() == []
    weights.write_bytes(b"two")
    assert lab.seen(capsys, "run", "--dry-run")[step]["why"] == "the weights that it starts from changed"
    assert lab.run()[0] == verb
    weights.unlink()
    assert lab.run(status=2) == []
    assert capsys.readouterr().err.splitlines()[-1].endswith("No such file or directory; see the file of the pipeline")


def test_a_promotion_that_the_rule_refuses_is_a_result_and_nothing_is_deployed(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.file.write_text(f"{FILE}deploy: {{address: 'http://127.0.0.1:9'}}\n")
    lab.refused = True
    assert lab.run(status=0)[-2:] == ["promote", "promote"]
    seen = lab.seen(capsys)
    assert seen["promote-count"]["state"] == "refused" and seen["deploy"]["state"] == "left out"
    assert seen["promote-count"]["result"] == {"why": "regressor@1 is not shown to be better"}
    assert lab.run() == [], "it is not asked again"


def test_a_step_that_fails_is_named_and_runs_again(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.fails = "tune"
    assert lab.run(status=2) == ["import", "train", "tune"]
    assert capsys.readouterr().err.splitlines()[-1] == "cellnet: no frame can be used"
    seen = lab.seen(capsys)["tune-count"]
    assert (seen["state"], seen["failed"]) == ("failed", "no frame can be used") and Path(seen["log"]).exists()
    lab.fails = None
    assert lab.run()[0] == "tune"


def test_a_version_that_is_gone_is_made_anew(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.run()
    for file in (lab.folder / "registry/regressor").rglob("*.json"):
        file.unlink()
    assert lab.seen(capsys)["tune-count"]["why"] == "the bank, or the version, that it came to is gone"
    assert lab.run()[0] == "tune" and lab.registry.resolve("regressor:champion").number == 1
    assert lab.run() == []


def test_two_at_a_time_exclude_each_other(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    runs = FolderStore(lab.folder / "runs")
    (lab.folder / "runs").mkdir()
    other = Lease(runs, "pipeline-lab/lease")
    other.take()
    assert lab.run(status=2) == []
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"process {os.getpid()}, runs this since 20" in said and said.startswith("cellnet: ")
    assert main(["pipeline", "show", str(lab.file)]) == 0
    assert f"process {os.getpid()}, runs it since" in capsys.readouterr().err
    other.give_back()
    assert lab.run()[0] == "import"


def test_sigterm_ends_a_run_as_ctrl_c_does_and_gives_the_lease_back(
    lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(given: argparse.Namespace) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(cellnet.cli.train, "train", stopped)
        assert lab.run(status=130) == ["import"]
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "the same command goes on where it was cut", "cellnet: stopped"
    ]  # fmt: skip
    assert signal.getsignal(signal.SIGTERM) == before
    assert lab.seen(capsys)["train-classify"]["state"] == "stopped"
    assert lab.run()[:2] == ["train", "tune"]


def test_a_script_that_runs_it_in_the_background_can_end_it_too(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(given: argparse.Namespace) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as such a script has it
    try:
        monkeypatch.setattr(cellnet.cli.train, "train", stopped)
        assert lab.run(status=130) == ["import"]
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_whose_lease_is_lost_ends_in_a_line_and_writes_nothing_more(
    lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def waits(given: argparse.Namespace) -> None:
        Lease(FolderStore(lab.folder / "runs"), "pipeline-lab/lease")._log.append(2, b"{}")  # somebody else's
        signal.pause()

    monkeypatch.setattr(leases, "RENEWS", 1200)
    monkeypatch.setattr(cellnet.cli.train, "train", waits)
    assert lab.run(status=2) == ["import"]
    [*_, said] = capsys.readouterr().err.splitlines()
    assert said.startswith("cellnet: ") and said.endswith("the same command goes on where it was cut")
    assert not list((lab.folder / "runs/pipeline-lab").glob("train-*/*.json"))


def test_a_log_that_cannot_be_written_ends_no_run(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Results, "keep_log", full)
    assert len(lab.run()) == len(STEPS)


def test_a_setting_that_there_is_not_is_named_with_the_file_and_the_step(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.file.write_text(FILE.replace("epochs: 2", "epoch: 2"))
    assert lab.run(status=2) == []
    said = capsys.readouterr().err
    assert "lab.yaml: train-classify: configuration 'epoch': there is no such setting; did you mean epochs?" in said
    lab.file.write_text(FILE.replace("workers: 2", "workers: two"))
    assert lab.run(status=2) == []
    assert "lab.yaml: train-classify: --workers takes a number from 1" in capsys.readouterr().err


def test_a_bank_that_is_not_there_is_named_with_the_file(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.file.write_text(FILE.replace("sources: [{source: images, channel: 1}]", ""))
    assert lab.run(status=2) == []
    [said] = capsys.readouterr().err.splitlines()
    assert said.startswith(f"cellnet: {lab.file}: ") and str(lab.folder / "bank") in said


def dying(at: int) -> None:
    """From here on this process is no more when a call of that number to a store would begin, or right after it."""
    left = itertools.count()
    for name in METHODS:
        method = getattr(FolderStore, name)

        def call(*args: Any, method: Callable[..., Any] = method, **named: Any) -> Any:
            if next(left) == at:
                os._exit(DIED)
            return method(*args, **named)

        setattr(FolderStore, name, call)


@pytest.mark.slow
def test_a_run_that_dies_at_any_call_to_a_store_goes_on_to_one_result_a_step(lab: Lab, tmp_path: Path) -> None:
    for at in itertools.count(0, 7):
        here = tmp_path / str(at)
        lab.file.write_text(
            f"bank: {at}/bank\nregistry: {at}/registry\nsources: [{{source: images, channel: 1}}]\n"
            "models: {count: {train: {}}}\npromote: {}\n"
        )
        child = os.fork()
        if not child:
            dying(at)
            os._exit(main(["pipeline", "run", str(lab.file)]))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, DIED)
        lab.run()
        registry = Registry.open(str(here / "registry"))
        assert [one.ref for one in registry.versions()] == ["regressor@1"], at
        assert [move.number for move in registry.history("regressor", "champion")] == [1], at
        results = [file.parent.name for file in (here / "runs/pipeline-lab").glob("*/*.json")]
        once = ["evaluate-count-1", "import-1", "promote-count", "train-count"]
        assert sorted(name for name in results if name != "lease") == once, at
        if status == 0:
            break
    assert at > 70, "so many calls there are"
    assert lab.run() == []
