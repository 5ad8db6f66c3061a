"""`cellnet calibrate REF FRAMES --known TABLE`: a counter becomes right on a plate, and what it cannot be told."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import cellnet.evaluation.recount
from cellnet.bank.frames import digest_of_pixels
from cellnet.certainty.calibration import Calibration
from cellnet.certainty.familiarity import FAMILIARITY, fit_familiarity
from cellnet.cli import main
from cellnet.networks.weights import fresh_network, weights_to_bytes
from cellnet.prediction.engines import load_model
from cellnet.prediction.model import FrameModel
from cellnet.prediction.predictor import Predictor, predictor_of
from cellnet.registry.learned import frames_to_bytes, learned_of
from cellnet.registry.records import ANSWERS, LEARNED, ONNX, Relearned
from cellnet.registry.registry import Registry
from cellnet.untrusted import WEIGHTS
from tests import factories

pytestmark = pytest.mark.slow

SIZE = (200, 400)
CELLS = (8, 18, 28, 38, 43, 13, 23, 33)
"""Discs in the frames of the plate: those that are not counted have neither fewer nor more than any that is."""
FEW = 5
"""Frames that are counted."""


def of_the_plate(image_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Of another instrument: darker, and of less contrast."""
    return (image_HW // 3 + 20).astype(np.uint8)


@pytest.fixture(scope="module")
def known() -> tuple[Predictor, bytes]:
    """A counter that knows frames of discs, and its weights."""
    torch.manual_seed(0)
    calibration = Calibration(tiles=60, frames=30, tile_quantile=0.5, frame_quantile=0.5, frame_basis="frames")
    card = factories.card("count").model_copy(update={"calibration": calibration})
    weights = fresh_network(card.config, 0, mean_count=20).state_dict()
    plain = predictor_of("regressor@1", card, weights)
    frames = [factories.discs(10 + seed % 40, seed=seed, size=SIZE)[0] for seed in range(60)]
    features = [seen for one in frames if (seen := plain.predict(one, with_features=True).features_ND) is not None]
    familiarity = fit_familiarity(features[:40], features[40:])
    return predictor_of("regressor@1", card, weights, familiarity), weights_to_bytes(weights)


@pytest.fixture(scope="module", autouse=True)
def exports() -> Iterator[None]:
    """Many tests fit the counter to the same plate, and export the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cellnet.evaluation.recount, "to_onnx", factories.exports_kept())
        yield


@pytest.fixture
def registry(tmp_path: Path, known: tuple[Predictor, bytes], monkeypatch: pytest.MonkeyPatch) -> Registry:
    """regressor@1, and a classifier, at the place that commands take by default."""
    for name in ("CELLNET_TRUSTED_KEYS", "CELLNET_SIGNING_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CELLNET_REGISTRY", str(tmp_path / "registry"))
    registry = Registry.open(str(tmp_path / "registry"))
    predictor, weights = known
    assert predictor.familiarity is not None
    registry.publish("regressor", {WEIGHTS: weights, FAMILIARITY: predictor.familiarity.to_bytes()}, predictor.card)
    registry.publish("classifier", {}, factories.card("classify", classes=("A549", "THP1")))
    return registry


@pytest.fixture
def plate(tmp_path: Path, known: tuple[Predictor, bytes]) -> Path:
    """A folder of eight frames of another plate, with half as many cells again as the counter finds.

    counted.csv counts five of them.
    """
    folder = tmp_path / "plate"
    folder.mkdir()
    rows = []
    for number, cells in enumerate(CELLS):
        image_HW = of_the_plate(factories.discs(cells, seed=100 + number, size=SIZE)[0])
        cv2.imwrite(str(folder / f"{number}.png"), image_HW)
        rows.append((f"{number}.png", round(1.5 * known[0].predict(image_HW).count, 1)))
    write_table(folder / "counted.csv", rows[:FEW])
    return folder


def write_table(path: Path, rows: list[tuple[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "count"), *rows])


def calibrate(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[str, str]:
    """What the command prints, and what it says."""
    capsys.readouterr()
    status = main(["calibrate", *map(str, words)])
    printed = capsys.readouterr()
    assert status == 0, printed.err
    return printed.out, printed.err


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line with which the command is refused."""
    capsys.readouterr()
    assert main(["calibrate", *map(str, words)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    *_, line = printed.err.strip().splitlines()
    return line.removeprefix("cellnet: ")


def test_a_child_is_published_that_counts_the_plate_right_and_says_by_what(
    registry: Registry, plate: Path, known: tuple[Predictor, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    out, said = calibrate(capsys, "regressor@1", plate, "--known", plate / "counted.csv", "--json")
    assert "counts 5 of the 8 given frames; the others are left alone" in said
    told, version = json.loads(out), registry.resolve("regressor@2")
    assert told.keys() == {"model", "calibration", "frames", "before", "after"}
    assert (told["model"], version.card.parent) == ("regressor@2", "regressor@1")
    assert told["calibration"]["scale"] == version.card.calibration.scale == pytest.approx(1.5, abs=0.06)
    assert version.blobs.keys() == {WEIGHTS, FAMILIARITY, ONNX}
    assert version.blobs[WEIGHTS] == registry.resolve("regressor@1").blobs[WEIGHTS]
    images = [cv2.imread(str(plate / f"{number}.png"), cv2.IMREAD_UNCHANGED) for number in range(len(CELLS))]
    fitted = version.card.recount
    assert [(one.image, one.sha256) for one in fitted.frames] == [
        (f"{number}.png", digest_of_pixels(images[number])) for number in range(FEW)
    ]
    before, after = told["before"], told["after"]
    assert (before, after) == (fitted.before, fitted.after) and before["n"] == 5
    assert before["mae"] == pytest.approx(-before["bias"]) and before["mae"] > 5 and after["mae"] < 1
    assert (before["coverage"], after["coverage"], before["unfamiliar"]) == (0, 1, 1)
    assert after["unfamiliar"] <= 0.4, "the frames with the fewest and the most cells are beyond the others"
    others = [Predictor.load(registry, "regressor@2").answer(image_HW) for image_HW in images[FEW:]]
    raw = [known[0].predict(image_HW).count for image_HW in images[FEW:]]
    assert [answer.count for answer in others] == pytest.approx([1.5 * count for count in raw], rel=0.03)
    assert [answer.unfamiliar for answer in others] == [False] * 3
    assert all(answer.count_low < answer.count < answer.count_high for answer in others)


def test_each_frame_of_the_table_is_counted_by_a_fit_to_the_others(
    registry: Registry, plate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = plate / "counted.csv"
    rows = [(row["image"], float(row["count"])) for row in csv.DictReader(table.open(encoding="utf-8"))]
    write_table(table, [*rows[:-1], (rows[-1][0], 10 * rows[-1][1])])
    out, said = calibrate(capsys, "regressor@1", plate, "--known", table, "--json")
    wrong = json.loads(out)["frames"][-1]
    assert wrong["counted"] == pytest.approx(10 * rows[-1][1])
    assert wrong["after"] == pytest.approx(rows[-1][1], rel=0.1) and wrong["low"] < rows[-1][1] < wrong["high"]
    assert f"note: 4.png was counted {wrong['counted']:g}, and the other frames make it" in said
    assert said.count("note: ") == 1


def test_what_is_strange_stays_strange(registry: Registry, plate: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calibrate(capsys, "regressor@1", plate, "--known", plate / "counted.csv")
    strange = {
        "noise": factories.noise(*SIZE),
        "another set": factories.clouds(*SIZE),
        "a ramp": np.tile(np.linspace(0, 255, SIZE[1]), (SIZE[0], 1)).astype(np.uint8),
    }
    child = Predictor.load(registry, "regressor@2")
    assert {name: child.answer(image_HW).unfamiliar for name, image_HW in strange.items()} == dict.fromkeys(
        strange, True
    )
    familiar = [child.answer(factories.discs(20 + n, seed=500 + n, size=SIZE)[0]).unfamiliar for n in range(10)]
    assert sum(map(bool, familiar)) <= 1, "frames like those of the training stay familiar"


def test_every_engine_gives_the_same_counts(
    registry: Registry, plate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calibrate(capsys, "regressor@1", plate, "--known", plate / "counted.csv")
    image_HW = cv2.imread(str(plate / "7.png"), cv2.IMREAD_UNCHANGED)
    version = registry.resolve("regressor@2")
    engines: list[FrameModel] = [load_model(registry, version, engine=name) for name in ("torch", "onnxruntime")]
    by_torch, by_onnx = (engine.answer(image_HW) for engine in engines)
    assert by_onnx.count == pytest.approx(by_torch.count, rel=1e-4)
    assert (by_onnx.count_low, by_onnx.count_high) == pytest.approx((by_torch.count_low, by_torch.count_high), rel=1e-4)
    assert by_onnx.unfamiliar is by_torch.unfamiliar is False


def test_before_and_after_are_printed_and_the_model_card_says_by_which_frames(
    registry: Registry, plate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = [plate / f"{number}.png" for number in range(4)]
    out, said = calibrate(capsys, "regressor@1", *frames, "--known", plate / "counted.csv")
    lines = out.splitlines()
    assert lines[0].split() == ["image", "counted", "before", "after", "low", "high"] and lines[1].startswith("0.png")
    assert [line.split()[0] for line in lines if line.startswith("regressor@")] == [
        *("regressor@1", "regressor@2", "regressor@2"),
    ]
    assert "counts × 1.4" in said and "by 4 counted frames of one plate" in said
    assert main(["registry", "show", "regressor@2"]) == 0
    card = capsys.readouterr().out
    assert "fitted to 4 counted frames of one plate on 20" in card and "made from regressor@1" in card
    assert "what follows was said of regressor@1" in card and "3.png (" in card and "cells, sha256 " in card
    assert "cellnet evaluate" not in card and "90% intervals for that plate" in card


def test_a_child_is_fitted_again_from_what_its_network_says(
    registry: Registry, plate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for parent in ("regressor@1", "regressor@2"):
        calibrate(capsys, parent, plate, "--known", plate / "counted.csv")
    first, second = (registry.resolve(f"regressor@{number}").card.calibration for number in (2, 3))
    assert second.scale == pytest.approx(first.scale, abs=0.02) and second.scale > 1.4


def test_a_version_that_cannot_tell_what_is_strange_still_gets_a_scale(
    registry: Registry, plate: Path, known: tuple[Predictor, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    registry.publish("old", {WEIGHTS: known[1]}, factories.card("count"))
    out, _ = calibrate(capsys, "old@1", plate, "--known", plate / "counted.csv", "--json")
    told = json.loads(out)
    assert told["before"] | {"mae": 0, "bias": 0} == {"n": 5, "mae": 0, "bias": 0, "coverage": None, "unfamiliar": None}
    assert told["calibration"]["scale"] == pytest.approx(1.5, abs=0.06)
    assert registry.resolve("old@2").blobs.keys() == {WEIGHTS, ONNX}


def test_a_child_learned_from_what_its_parent_did_and_from_the_counted_frames(
    registry: Registry, plate: Path, known: tuple[Predictor, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    card = known[0].card.model_copy(update={"batches": ("C1",), "relearned": Relearned(corrected=0, new=3)})
    answers = b"as they were, before calibration"
    registry.publish("folds", {WEIGHTS: known[1], LEARNED: frames_to_bytes({"0" * 64}), ANSWERS: answers}, card)
    calibrate(capsys, "folds@1", plate, "--known", plate / "counted.csv")
    child = registry.resolve("folds@2")
    learned = learned_of(registry, child)
    assert learned.frames == {"0" * 64, *(one.sha256 for one in child.card.recount.frames)}
    assert child.card.batches == ("C1", None), "the plate's batch is not known"
    assert registry.read(child, ANSWERS) == answers
    assert child.card.relearned is None, "which is said of its parent's network beside another"


ROWS: list[tuple[str, object]] = [(f"{number}.png", 30 + number) for number in range(FEW)]


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ([("a.png", 3)], "counts none of the 8 given frames (its first row is of 'a.png', the first frame is "),
        ([], "counts none of the 8 given frames (it has no counts, the first frame is "),
        ([*ROWS[:2], ("2.png", "")], "counts 2 of the given frames, too few to tell a plate by; count 3 to 5 of them"),
        ([*ROWS[:2], ("gone.png", 4)], "2 of the given frames (its row of 'gone.png' is of none of them), too few to"),
        ([*ROWS, ("5.png", "many")], "5.png has the count 'many'; write the number of its cells"),
        ([*ROWS, ("5.png", -1)], "5.png has the count '-1'; write the number of its cells"),
        ([*ROWS, ("0.png", 7)], "/plate/0.png twice; leave one row of it"),
        ([("0.png", 9), ("1.png", 0), ("2.png", 0)], "counts cells in fewer than 2 of the given frames; add some"),
        ([(name, 9000) for name, _ in ROWS], "or train with these (cellnet bank import, cellnet train)"),
    ],
)
def test_a_table_that_says_nothing_of_the_frames_is_refused(
    registry: Registry, plate: Path, capsys: pytest.CaptureFixture[str], rows: list[tuple[str, object]], line: str
) -> None:
    write_table(plate / "counted.csv", rows)
    assert line in refused(capsys, "regressor@1", plate, "--known", plate / "counted.csv")
    assert [one.ref for one in registry.versions("regressor")] == ["regressor@1"]


def test_what_is_missing_is_named(registry: Registry, plate: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = plate / "counted.csv"

    def said(*words: object) -> str:
        return refused(capsys, *words)

    assert said("regressor@1", plate / "0.png", plate / "6.png", "--known", table).endswith(
        f"6.png has no count in {table}; add a row image,count, or leave the frame out"
    )
    assert "nothing.csv as a CSV table" in said("regressor@1", plate, "--known", plate / "nothing.csv")
    assert said("classifier@1", plate, "--known", table).endswith("give a counter, like regressor:champion")
    assert "without --known TABLE a model is calibrated on one BANK, and 1 more" in said("regressor@1", plate, plate)
    assert said("regressor@1", plate, "--pixel-um", "1").startswith("--pixel-um is of FRAMES that --known TABLE counts")
    (plate / "1.png").write_bytes(b"no image")
    assert "1.png: not a readable PNG" in said("regressor@1", plate, "--known", table)
    cv2.imwrite(str(plate / "1.png"), factories.noise(150, 150))
    assert "1.png: the frame is 150×150 pixels, smaller than" in said("regressor@1", plate, "--known", table)
    (plate / "1.png").write_bytes((plate / "0.png").read_bytes())
    assert "0.png and 1.png hold the same pixels" in said("regressor@1", plate, "--known", table)


def test_names_are_forgiven_as_in_an_import_and_rows_that_mean_no_frame_are_told(
    registry: Registry, plate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = plate / "counted.csv"
    rows = [*csv.reader(table.open(encoding="utf-8", newline=""))][1:]
    others = [(f"{letter}.png", "3") for letter in "abcd"]
    named = [("./PLATE\\0.PNG", rows[0][1]), ("1.tif", rows[1][1]), ("2", rows[2][1]), *rows[3:]]
    write_table(table, [*named, *others])
    _, said = calibrate(capsys, "regressor@1", plate, "--known", table)
    seen = {one.image for one in registry.resolve("regressor@2").card.recount.frames}
    assert seen == {f"{number}.png" for number in range(FEW)}
    assert f"{table} has 4 rows with a count of no given frame: a.png, b.png, c.png ..." in said


def test_frames_of_one_name_in_two_folders_are_told_apart_by_their_folders(
    registry: Registry, plate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (plate / "again").mkdir()
    (plate / "0.png").rename(plate / "again/1.png")
    table = plate / "counted.csv"
    assert "1.png may be " in refused(capsys, "regressor@1", plate, "--known", table)
    text = table.read_text(encoding="utf-8").replace("0.png", "again/1.png").replace("\n1.png", "\nplate/1.png")
    table.write_text(text, encoding="utf-8")
    calibrate(capsys, "regressor@1", plate, "--known", table)
    assert len(registry.resolve("regressor@2").card.recount.frames) == FEW
