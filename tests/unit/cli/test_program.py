"""The commands as a user asks them for what cannot be: one line, exit 2, no traceback, nothing half-written."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

import pipelines.predict
from cellnet.bank.bank import Bank
from cellnet.cli import main
from cellnet.cli.predict import prediction_line, quality_lines
from cellnet.images.quality import Flag
from cellnet.prediction.answers import Prediction
from cellnet.prediction.sources import ListedFile
from cellnet.registry.records import CrossValidation, ModelVersion
from cellnet.registry.registry import Registry
from tests.factories import bank_of, card, frame, publish_untrained


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line with which a command is refused."""
    assert main([str(argument) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("cellnet: ")
    return lines[0]


def test_a_missing_source_makes_no_bank(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line = refused(capsys, "bank", "import", tmp_path / "nothing.csv", tmp_path / "bank")
    assert "nothing.csv does not exist" in line
    assert not (tmp_path / "bank").exists()


def test_a_manifest_without_a_column_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("image,lineage,count\na.png,A549,3\n")
    line = refused(capsys, "bank", "import", tmp_path / "manifest.csv", tmp_path / "bank")
    assert "has no column group" in line
    assert not (tmp_path / "bank").exists()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("intensity.low=200", "low (200) must be below high"),
        ("holdout_share=1", "holdout_share"),
        ("epochs=3", "epochs"),
    ],
)
def test_a_wrong_setting_of_a_bank_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, setting: str, said: str
) -> None:
    assert said in refused(capsys, "bank", "import", tmp_path, tmp_path / "bank", "--set", setting)


def test_near_duplicates_are_told_with_what_they_copy(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bank = bank_of(tmp_path / "bank", {"A549": ["a", "b", "c"]})
    twins = [
        frame(lineage=None, frame=name * 64, source=f"{name}.png", group="a", fingerprint="ab" * 64) for name in "12"
    ]
    Bank.open(bank).add(twins)
    assert main(["bank", "show", str(bank)]) == 0
    printed = capsys.readouterr()
    assert "nearly the same: 2.png and 1.png" in printed.out
    assert "warning: 1 near-duplicate, kept on one side" in printed.err
    assert main(["bank", "show", str(bank), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["near"] == [["2.png", "1.png"]]


def test_a_bank_that_is_not_there_says_how_to_make_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line = refused(capsys, "train", tmp_path / "bank", "--task", "classify")
    assert "there is no bank" in line and "cellnet bank import" in line
    assert not (tmp_path / "bank").exists()


def test_a_lineage_of_which_nothing_is_left_to_learn_from_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bank = bank_of(tmp_path / "bank", {"A549": ["a", "b", "c"], "3T3": ["d"]})
    group = next(one.group for one in Bank.open(bank).frames if one.split != "train")
    Bank.open(bank).add([frame(99, "HUH7", group, height=400, width=400)])
    options = ("--task", "classify", "--registry", tmp_path / "registry")
    line = refused(capsys, "train", bank, *options, "--set", "folds=0")
    assert "no frame of HUH7 in " in line and line.endswith("--set folds=5 --set holdout=auto")
    assert main(["train", str(bank), *map(str, options), "--summary"]) == 0, "by folds all of them are learned from"
    assert not (tmp_path / "registry").exists()


def test_a_bank_without_counts_trains_no_counter(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bank = bank_of(tmp_path / "bank", {"A549": ["a", "b", "c"]})
    assert "has a count" in refused(capsys, "train", bank, "--task", "count")


@pytest.mark.parametrize("chosen", [("--lineage", "{}"), ("--set", "lineage={}")])
def test_a_lineage_that_no_counter_can_be_trained_for_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, chosen: tuple[str, str]
) -> None:
    bank = bank_of(tmp_path / "bank", {"A549": ["a", "b", "c"], "3T3": ["d"]}, count=3)
    Bank.open(bank).add([frame(frame="f" * 64, source="x", lineage="HUH7", group="e")])

    def said(verb: str, lineage: str) -> str:
        option, value = chosen[0], chosen[1].format(lineage)
        return refused(capsys, verb, bank, "--task", "count", option, value, "--registry", tmp_path / "registry")

    for verb in ("train", "tune"):
        assert said(verb, "THP1").endswith("bank has no lineage THP1; it has 3T3, A549, HUH7")
        assert "no frame of HUH7 in " in said(verb, "HUH7")
    assert "a search needs at least three groups" in said("tune", "3T3")
    assert not (tmp_path / "registry").exists()


def test_a_summary_shows_the_network_and_trains_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bank = bank_of(tmp_path / "bank", {"A549": ["a", "b", "c"], "3T3": ["d", "e", "f"]})
    registry = tmp_path / "registry"
    assert main(["train", str(bank), "--task", "classify", "--summary", "--registry", str(registry)]) == 0
    *_, out, _, total, _, _ = capsys.readouterr().out.splitlines()
    assert out.split() == ["out", "(Linear)", "(B,", "2)", "1,986"]
    assert total.startswith("total parameters: 2,9") and not registry.exists()


def test_a_search_without_a_test_split_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bank = bank_of(tmp_path / "bank", {"A549": ["a", "b"]}, count=3)
    assert "three groups" in refused(capsys, "tune", bank, "--task", "count")
    bank_of(bank, {"3T3": ["d", "e", "f"]}, count=3)
    assert "three groups" in refused(capsys, "tune", bank, "--task", "count", "--lineage", "A549")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("epochs=0", "'epochs'"),
        ("colour=red", "'colour'"),
        ("epochs", "KEY=VALUE"),
        ("model.activation=elu", "activation"),
    ],
)
def test_a_wrong_setting_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path, setting: str, said: str) -> None:
    assert said in refused(capsys, "train", tmp_path / "bank", "--task", "count", "--set", setting)


@pytest.mark.parametrize(
    ("typed", "meant"), [("trial=3", "trials"), ("epoch=3", "train.epochs"), ("blurr=3", "train.augment.blur")]
)
def test_a_setting_of_a_search_that_there_is_not_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, typed: str, meant: str
) -> None:
    said = refused(capsys, "tune", tmp_path / "bank", "--task", "count", "--set", typed)
    assert f"did you mean {meant}? cellnet settings lists all" in said


def test_an_unknown_reference_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    registry = ("--registry", tmp_path / "registry")
    assert "is empty" in refused(capsys, "registry", "promote", "classifier@3", "champion", *registry)
    assert "not a reference" in refused(capsys, "registry", "show", "classifier", *registry)
    assert "is empty" in refused(capsys, "evaluate", "classifier:champion", bank_of(tmp_path / "b", {}), *registry)


def test_prediction_without_images_or_models_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    registry = ("--registry", tmp_path / "registry")
    assert "does not exist" in refused(capsys, "predict", tmp_path / "a.png", *registry)
    cv2.imwrite(str(tmp_path / "b.png"), np.eye(300, dtype=np.uint8))
    assert "has no champion; train a model" in refused(capsys, "predict", tmp_path / "b.png", *registry)
    assert "give that too" in refused(capsys, "predict", tmp_path / "b.png", "--overwrite", *registry)
    assert refused(capsys, "predict", tmp_path / "b.png", "--well-pattern", "(", *registry).startswith(
        "cellnet: --well-pattern '(' is not a regular expression: missing ), unterminated subpattern at position 0"
    )


def test_options_of_growth_that_come_to_nothing_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "B03.png"), np.eye(300, dtype=np.uint8))
    (tmp_path / "layout.csv").write_text("well,treatment\nB03,drug\nB04,DMSO\n")
    command = ["predict", tmp_path / "B03.png", "--registry", tmp_path / "registry"]
    for option in (["--hours-between", "2"], ["--layout", "l.csv"], ["--control", "DMSO"]):
        line = refused(capsys, *command, *option)
        assert line.startswith(f"cellnet: {option[0]} is ") and "of --out; give that too" in line
    command += ["--out", tmp_path / "out"]
    known = ["--layout", tmp_path / "layout.csv"]
    for more, message in (
        (["--control", "DMSO"], "'DMSO' is the treatment of no well; none is known; --layout tells treatments"),
        ([*known, "--control", "DMSO"], "'DMSO' is the treatment of no well; treatments are drug"),
        ([*known, "--hours-between", "2"], "none of 1 images has one that is needed"),
        (["--layout", tmp_path / "no.csv"], "no.csv as a CSV table: No such file or directory"),
        (["--hours-between", "0"], "--hours-between takes hours above 0, not '0'"),
    ):
        assert message in refused(capsys, *command, *more)
    assert not (tmp_path / "out").exists()


def test_what_names_leave_open_is_told_before_images_are_predicted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry.open(str(tmp_path / "registry"))
    publish_untrained(registry, "count", onnx=False)
    plate = tmp_path / "P1"
    plate.mkdir()
    for name in ("A01_B02.png", "A01_B03.png", "C04.png"):
        cv2.imwrite(str(plate / name), np.eye(300, dtype=np.uint8))
    monkeypatch.setattr(pipelines.predict.Job, "run", lambda job: (one for one in ()))
    command = ["predict", str(plate), "--registry", registry.store.uri]
    assert main(command) == 2
    assert capsys.readouterr().err.splitlines()[0] == (
        "note: 2 names could mean two wells, so they are on no plate; --well-pattern says what the well is: "
        f"{plate}/A01_B02.png (A01 or B02)"
    )
    assert main([*command, "--well-pattern", r"_([A-H])(\d+)"]) == 2
    assert capsys.readouterr().err.splitlines()[0] == (
        f"note: 1 name of 3 without a well by --well-pattern, so on no plate: {plate}/C04.png"
    )
    assert main([*command, "--well-pattern", r"([A-H]\d+)\.png"]) == 2
    assert "note" not in capsys.readouterr().err


def test_a_plate_of_a_softer_microscope_is_told_once_at_the_end(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry.open(str(tmp_path / "registry"))
    publish_untrained(registry, "count", onnx=False)
    plate = tmp_path / "P1"
    plate.mkdir()
    focus = {f"A{n:02}.png": 0.55 + 0.01 * n for n in range(2, 13)} | {"A01.png": 0.2}
    for name in focus:
        cv2.imwrite(str(plate / name), np.eye(300, dtype=np.uint8))

    def said(job: pipelines.predict.Job, files: list[ListedFile]) -> Iterator[list[Prediction]]:
        for file in files:
            one = focus[Path(file.name).name]
            flags: list[Flag] = ["out_of_focus"] if one < 0.595 else []
            told = [Prediction(image=file.name, count=9.0, tiles=1, focus=one, quality=flags)]
            if job.results:
                job.results.add([(file, told)])
            yield told

    monkeypatch.setattr(pipelines.predict.Job, "_fresh", said)
    out = tmp_path / "out"
    for more in ((), ("--out", str(out)), ("--out", str(out))):  # the last of what was kept
        assert main(["predict", str(plate), "--registry", registry.store.uri, *more]) == 0
        told = capsys.readouterr()
        assert told.out.count("OUT OF FOCUS") == 4, "each alone is held against the training"
        assert [line for line in told.err.splitlines() if "focus" in line] == [
            "note: P1 is softer than what the model learned from (0.61 of its focus): 3 of its 12 images are as sharp "
            "as the others of it, and have their part in the values of wells",
            f"warning: 1 image out of focus, left out of the value of its well: {plate}/A01.png",
        ]


def test_a_relative_folder_in_a_ray_job_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    line = refused(capsys, "train", "bank", "--task", "classify")
    assert "'bank' would be lost" in line and "absolute path" in line


def test_an_empty_registry_lists_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["registry", "list", "--json", "--registry", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "[]\n"


def test_a_prediction_is_told_with_its_interval_and_its_flag() -> None:
    said = Prediction(image="a.png", count=12.0, count_low=9.5, count_high=14.5, interval_level=0.9, tiles=1)
    assert prediction_line(said) == "a.png  12.0 cells (9.5-14.5 at 90%)  [1 tile]"
    strange = said.model_copy(
        update={"unfamiliar": True, "count_unfamiliar": True, "unfamiliar_reason": "regressor@2: far"}
    )
    told = "[1 tile]  UNFAMILIAR, do not rely on the count: regressor@2: far"
    assert prediction_line(strange).endswith(told)
    of_before = strange.model_copy(update={"count_unfamiliar": None})
    assert prediction_line(of_before).endswith(told.replace("count", "answer"))


def test_an_image_of_no_use_is_told_with_what_becomes_of_its_well() -> None:
    said = Prediction(image="a.png", count=12.0, tiles=1, quality=["out_of_focus", "saturated"])
    assert prediction_line(said).endswith("[1 tile]  OUT OF FOCUS, SATURATED, not in its well's value")
    empty = said.model_copy(update={"quality": ["empty"]})
    assert prediction_line(empty).endswith("[1 tile]  EMPTY")


def test_images_of_no_use_are_listed_a_line_a_flag() -> None:
    many = [f"{n}.png" for n in range(5)]
    assert list(quality_lines({"out_of_focus": many, "saturated": [], "empty": ["b.png"]})) == [
        "warning: 5 images out of focus, left out of the values of their wells: 0.png, 1.png, 2.png and 2 more",
        "note: 1 image empty, with a part in the value of its well all the same: b.png",
    ]
    assert list(quality_lines({"out_of_focus": []})) == []


@pytest.mark.slow
def test_help_and_version_come_without_the_large_libraries() -> None:
    code = (
        "import sys\n"
        "from cellnet.cli import main\n"
        "try:\n"
        "    main([sys.argv[1]])\n"
        "except SystemExit as ended:\n"
        "    assert ended.code == 0\n"
        "large = {'torch', 'ray', 'pyarrow', 'matplotlib', 'fastapi', 'sklearn', 'scipy', 'boto3', 'joblib', 'onnx'}\n"
        "assert not large & sys.modules.keys(), large & sys.modules.keys()\n"
    )
    for option in ("--help", "--version"):
        done = subprocess.run([sys.executable, "-c", code, option], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("usage: cellnet " if option == "--help" else "cellnet ")


@pytest.mark.parametrize("module", ["pydantic", "cellnet.cli.options"])
def test_ctrl_c_while_the_program_is_imported_is_a_line_too(module: str) -> None:
    code = (
        "import builtins, sys\n"
        "imported = builtins.__import__\n"
        "def interrupted(name, *others):\n"
        "    if name == sys.argv[1]:\n"
        "        raise KeyboardInterrupt\n"
        "    return imported(name, *others)\n"
        "builtins.__import__ = interrupted\n"
        "from cellnet.cli import main\n"
        "sys.exit(main(['--version']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, module], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "cellnet: stopped\n")


def test_python_m_cellnet_is_the_same_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cellnet", "registry", "list", "--newest", "0"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "cellnet: --newest takes a number from 1, not '0'; see cellnet registry list --help\n"


def test_a_training_by_folds_says_over_what_its_score_was_taken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import pipelines.train

    validated = CrossValidation(folds=5, frames=16, groups=15, one_group=("SHSY5Y",))
    made = card().model_copy(update={"scores": {"folds": {"mae": 1.5}}, "cross_validation": validated})
    version = ModelVersion(name="regressor", number=1, blobs={}, card=made)
    monkeypatch.setattr(pipelines.train, "train", lambda *places, **options: version)
    command = ["train", str(tmp_path / "bank"), "--task", "count"]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert printed.out == "regressor@1\n"
    assert "cross-validated over 5 folds of 15 groups, per tile: mae 1.500\n" in printed.err
    assert "note: SHSY5Y: one group only, so not measured on other wells\n" in printed.err
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"model": "regressor@1", "test": {}, "folds": {"mae": 1.5}}
