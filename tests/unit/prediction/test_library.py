"""cellnet in a program or a notebook: a registry, a version, its answer to a file and to an array; a bank."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch

import cellnet
from cellnet.bank.bank import Bank
from cellnet.certainty.calibration import Calibration
from cellnet.errors import ConfigError, DataError, NotFoundError, UntrustedError
from cellnet.networks.weights import fresh_network, weights_to_bytes
from cellnet.prediction.predictor import Predictor
from cellnet.registry.signing import make_keys
from cellnet.untrusted import WEIGHTS
from tests.factories import bank_of

pytestmark = pytest.mark.slow


@pytest.fixture
def registry(tmp_path: Path, card: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """classifier@1, the champion, and regressor@1, whose counts have intervals."""
    monkeypatch.delenv("CELLNET_TRUSTED_KEYS", raising=False)
    folder = tmp_path / "registry"
    opened = cellnet.open_registry(folder)
    calibration = Calibration(tiles=4, frames=4, frame_quantile=0.5, frame_basis="frames")
    for task, classes in (("classify", ("A549", "THP1")), ("count", ())):
        torch.manual_seed(0)
        made = card(task, classes=classes, pixel_um=0.5)
        if task == "count":
            made = made.model_copy(update={"calibration": calibration})
        weights = fresh_network(made.config, len(classes), mean_count=9).state_dict()
        name = "classifier" if task == "classify" else "regressor"
        opened.publish(name, {WEIGHTS: weights_to_bytes(weights)}, made)
    opened.promote("classifier@1", "champion")
    return folder


@pytest.fixture
def image(discs: Callable[..., Any], tmp_path: Path) -> tuple[Path, Any]:
    """A file of a frame, and its pixels."""
    image_HW = discs(12, size=(400, 400))[0]
    cv2.imwrite(str(tmp_path / "frame.png"), image_HW)
    return tmp_path / "frame.png", image_HW


def test_a_classifier_names_the_lineage_of_a_file_and_of_an_array(registry: Path, image: tuple[Path, Any]) -> None:
    file, image_HW = image
    model = cellnet.load(cellnet.open_registry(registry), "classifier:champion")
    assert (model.ref, model.task, model.lineages, str(model)) == (
        *("classifier@1", "classify", ["A549", "THP1"], "<cellnet.Model classifier@1>"),
    )
    answer = model.answer(file)
    assert isinstance(answer, cellnet.Answer)
    assert answer == model.answer(str(file)) == model.answer(image_HW)
    assert answer == Predictor.load(cellnet.open_registry(registry), "classifier@1").answer(image_HW)
    assert answer.lineage == max(answer.probabilities, key=answer.probabilities.get)
    assert sum(answer.probabilities.values()) == pytest.approx(1)
    assert (answer.count, answer.unfamiliar, answer.tiles) == (None, None, 4)


def test_a_counter_counts_with_an_interval(registry: Path, image: tuple[Path, Any]) -> None:
    answer = cellnet.load(registry, "regressor@1").answer(image[0])
    assert answer.count_low < answer.count < answer.count_high and answer.interval_level == 0.9
    assert answer.count_high - answer.count == pytest.approx(0.5 * np.sqrt(answer.count + 1))
    assert answer.lineage is None and answer.probabilities is None


def test_the_lines_of_the_manual_work(
    registry: Path, image: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manual = (Path(cellnet.__file__).parent / "README.md").read_text(encoding="utf-8")
    [lines] = re.findall(r"^```python\n(.*?)^```", manual, re.MULTILINE | re.DOTALL)
    cellnet.open_registry(registry).promote("regressor@1", "champion")
    bank = Bank.open(bank_of(registry.parent / "bank", {"A549": ["w1"]}))
    plate = registry.parent / "plate"
    plate.mkdir()
    shutil.copy(image[0], plate / "B03.png")
    monkeypatch.chdir(registry.parent)
    exec(lines, {})
    answered, held = capsys.readouterr().out.splitlines()
    count, low, high, unfamiliar = answered.split()
    assert float(low) < float(count) < float(high) and unfamiliar == "None"
    assert held == f"['A549'] 1 {bank.digest}"


def test_the_pixel_size_that_a_file_says_is_heeded_unless_told_otherwise(
    registry: Path, image: tuple[Path, Any], tmp_path: Path
) -> None:
    model = cellnet.load(registry, "regressor@1")
    said = tmp_path / "said.ome.tif"
    tifffile.imwrite(said, image[1], ome=True, metadata={"PhysicalSizeX": 1.0, "PhysicalSizeXUnit": "µm"})
    assert (model.answer(said).magnification, model.answer(said).tiles) == ("rescaled", 16)
    assert model.answer(said, pixel_um=0.5).magnification == "matched"
    assert model.answer(image[0]).magnification == "assumed"
    assert model.answer(image[1], pixel_um=1.0) == model.answer(said)


def test_a_channel_of_a_file_of_several_is_chosen(registry: Path, image: tuple[Path, Any], tmp_path: Path) -> None:
    model = cellnet.load(registry, "regressor@1")
    both = tmp_path / "both.ome.tif"
    channels = {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP"]}}
    tifffile.imwrite(both, np.stack([image[1][::-1], image[1]]), photometric="minisblack", ome=True, metadata=channels)
    with pytest.raises(DataError, match=r"^both.ome.tif: no transmitted light among its 2 channels; choose a channel"):
        model.answer(both)
    assert model.answer(both, channel="GFP") == model.answer(both, channel="2") == model.answer(image[1])


def test_a_page_of_a_file_of_several_is_chosen(registry: Path, image: tuple[Path, Any], tmp_path: Path) -> None:
    model = cellnet.load(registry, "regressor@1")
    stack = tmp_path / "stack.tif"
    cv2.imwritemulti(str(stack), [image[1][::-1], image[1], image[1].T])
    assert model.answer(stack, page=2) == model.answer(stack, page="middle") == model.answer(image[1])
    with pytest.raises(DataError, match=r"stack.tif: holds 3 pages; choose"):
        model.answer(stack)
    with pytest.raises(DataError, match=r"stack.tif: holds 3 pages, and an answer is of one; give its number as page"):
        model.answer(stack, page="all")


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((400, 400, 3), np.uint8), "an array of 400×400×3 uint8; give grey values (H, W) as uint8 or uint16"),
        (np.zeros((400, 400)), "an array of 400×400 float64; give grey values (H, W) as uint8 or uint16"),
        (np.zeros((20, 400), np.uint8), "400"),
    ],
)
def test_an_array_that_is_no_frame_is_refused(registry: Path, array: Any, said: str) -> None:
    with pytest.raises(DataError) as refused:
        cellnet.load(registry, "regressor@1").answer(array)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_what_is_not_there_is_said_in_one_line(registry: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="it has the models classifier, regressor"):
        cellnet.load(registry, "regresor@1")
    with pytest.raises(DataError, match=r"nothing.png: cannot be read: No such file"):
        cellnet.load(registry, "regressor@1").answer(tmp_path / "nothing.png")
    with pytest.raises(NotFoundError, match="there is no bank at"):
        cellnet.open_bank(tmp_path / "bank")
    with pytest.raises(ConfigError, match="no engine 'fast'"):
        cellnet.load(registry, "regressor@1", engine="fast")  # type: ignore[arg-type]


def test_only_signed_versions_are_loaded_where_keys_are_trusted(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = make_keys(tmp_path / "lab")
    with pytest.raises(UntrustedError):
        cellnet.load(cellnet.open_registry(registry, trusted_keys=public), "regressor@1")
    monkeypatch.setenv("CELLNET_TRUSTED_KEYS", str(public))
    with pytest.raises(UntrustedError):
        cellnet.load(registry, "regressor@1")


def test_a_bank_is_opened(tmp_path: Path) -> None:
    bank = cellnet.open_bank(bank_of(tmp_path / "bank", {"A549": ["w1"]}, count=3.0))
    assert isinstance(bank, cellnet.Bank) and bank.lineages == ["A549"]
    assert [(frame.lineage, frame.count) for frame in bank.frames] == [("A549", 3.0)]
