"""Scale bars that are burnt into the pixels are found, and nothing is where there are none."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cellnet.bank.bank import Bank
from cellnet.bank.burnt import FEWEST, burnt_in, regions_of
from cellnet.bank.prepare import prepare
from cellnet.bank.warnings import warnings_in
from cellnet.images.file import ImageFile, encode_png
from cellnet.readers import LabelledFile
from tests.factories import Grey

Draw = Callable[[Grey, int], None]


def bank_of(folder: Path, draw: Draw, *, frames: int = FEWEST, lineages: tuple[str, ...] = ("A549",)) -> Bank:
    """Frames of grey noise, into each of which something is drawn: its pixels, and its number."""
    bank = Bank.create(folder / "bank")
    prepared = []
    for number in range(frames * len(lineages)):
        image_HW = np.random.default_rng(number).integers(0, 256, (120, 160)).astype(np.uint8)
        draw(image_HW, number)
        path = folder / f"{number}.png"
        path.write_bytes(encode_png(image_HW))
        file = LabelledFile(image=ImageFile.at(path), lineage=lineages[number % len(lineages)], group=f"P1/{number}")
        prepared.append(prepare(file, bank.store))
    bank.add(prepared)
    return bank


def bar(image_HW: Grey, _: int) -> None:
    image_HW[110:114, 120:150] = 253  # as a JPEG leaves it
    image_HW[100:106, 130:132] = image_HW[100:106, 136:138] = 255  # letters above it


def test_a_scale_bar_in_all_frames_is_told_with_its_size_and_place(tmp_path: Path) -> None:
    bank = bank_of(tmp_path, bar)
    [told] = burnt_in(bank)
    assert told.startswith("the same 30×14 pixels at the lower right are the brightest in all 6 frames looked at: a")
    assert told in warnings_in(bank)


def test_a_bar_in_the_frames_of_one_lineage_is_told_of_it(tmp_path: Path) -> None:
    def of_one(image_HW: Grey, number: int) -> None:
        if number % 2:
            image_HW[:5, :20] = 0

    [told] = burnt_in(bank_of(tmp_path, of_one, lineages=("A549", "THP1")))
    assert told.startswith("THP1: the same 20×5 pixels at the upper left are the darkest in all 6 frames")


def empty(image_HW: Grey, _: int) -> None:
    """Nothing."""


def background(image_HW: Grey, _: int) -> None:
    image_HW[image_HW < 240] = 0


def hot(image_HW: Grey, _: int) -> None:
    image_HW[60, 80] = 255


def flat(image_HW: Grey, _: int) -> None:
    image_HW[:] = 7


def elsewhere(image_HW: Grey, number: int) -> None:
    image_HW[10:14, 20 * number : 20 * number + 20] = 255


@pytest.mark.parametrize("draw", [empty, background, hot, flat, elsewhere])
def test_nothing_is_told_of_frames_without_one(tmp_path: Path, draw: Draw) -> None:
    assert list(burnt_in(bank_of(tmp_path, draw))) == []


def test_of_few_frames_and_of_those_that_cannot_be_read_nothing_is_told(tmp_path: Path) -> None:
    few, gone = tmp_path / "few", tmp_path / "gone"
    few.mkdir()
    gone.mkdir()
    assert list(burnt_in(bank_of(few, bar, frames=FEWEST - 1))) == []
    bank = bank_of(gone, bar)
    next((gone / "bank" / "pixels").glob("*.png")).unlink()
    assert list(burnt_in(bank)) == []


def test_a_black_background_is_no_region_however_few_its_holes() -> None:
    same_HW = np.ones((100, 200), bool)
    assert regions_of(same_HW, "darkest") == []
    same_HW[:90] = False
    assert regions_of(same_HW, "darkest") == []
    same_HW[:96] = False
    [region] = regions_of(same_HW, "darkest")
    assert region[:4] == (0, 96, 200, 4)
