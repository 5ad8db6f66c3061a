"""The page of a bank: what a biologist must find on it."""

import re
from pathlib import Path

import numpy as np
import pytest

from cellnet.bank.bank import Bank
from cellnet.bank.prepare import prepare
from cellnet.errors import ConfigError
from cellnet.images.file import ImageFile, encode_png
from cellnet.readers import LabelledFile
from cellnet.reports.gallery import SHOWN, write_gallery
from tests.unit.reports.reading import HOSTILE, assert_harmless


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    """Eight frames of A549, one of 3T3, and one that is no image."""
    bank = Bank.create(tmp_path / "bank")
    files = []
    for n in range(9):
        path = tmp_path / f"{n}.png"
        path.write_bytes(encode_png(np.random.default_rng(n).integers(0, 255, (40, 60), np.uint8)))
        about = {"lineage": "A549" if n < 8 else "3T3", "group": f"w{n}", "count": float(n)}
        about |= {"batch": "P1", "time_h": 72.5} if n == 8 else {}
        files.append(LabelledFile(image=ImageFile.at(path), **about))
    (tmp_path / "<b>.png").write_text("no image")
    files.append(LabelledFile(image=ImageFile.at(tmp_path / "<b>.png")))
    bank.add([prepare(file, bank.store) for file in files])
    return bank


def test_the_page_shows_every_lineage_what_to_beware_of_and_what_was_set_aside(bank: Bank, tmp_path: Path) -> None:
    page = write_gallery(tmp_path / "new" / "bank.html", bank).read_text(encoding="utf-8")
    assert "<h2>A549: 8 frames</h2>" in page and "<h2>3T3: 1 frame</h2>" in page
    assert page.count("<figure>") == SHOWN + 1
    assert "8.png, train, 8 cells, batch P1, 72.5 h" in page and ", 0 cells<" in page
    assert "3T3: one group only" in page
    assert page.count('src="data:image/png') == SHOWN + 1, "all of it is in the page"
    assert len(re.findall('<div role="img" aria-label="[^"]+"><svg ', page)) == 2, "grey values, and counts"
    assert_harmless(page, "<b>.png: not a readable")


def test_names_from_outside_cannot_become_part_of_the_page(bank: Bank, tmp_path: Path) -> None:
    files = []
    for number, place in enumerate((HOSTILE, f"broken{HOSTILE}", "<img src=x onerror=alert(1)>.png")):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        grey_HW = np.random.default_rng(100 + number).integers(0, 255, (40, 60), np.uint8)
        path.write_bytes(b"no image" if "broken" in place else encode_png(grey_HW))
        about = {"lineage": f"<i>{HOSTILE}", "group": f"<i>{number}", "count": 2}
        files.append(LabelledFile(image=ImageFile.at(path), **about))
    bank.add([prepare(file, bank.store) for file in files])
    page = write_gallery(tmp_path / "bank.html", bank).read_text(encoding="utf-8")
    shown = (f"<i>{HOSTILE}: 2 frames", f"broken{HOSTILE}: not a readable", "<img src=x onerror=alert(1)>.png, ")
    assert_harmless(page, *shown, HOSTILE.rpartition("/")[2])


def test_a_frame_whose_pixels_rotted_is_named_and_the_others_are_shown(bank: Bank, tmp_path: Path) -> None:
    [only] = [frame for frame in bank.frames if frame.lineage == "3T3"]
    (tmp_path / f"bank/pixels/{only.frame}.png").write_bytes(b"rot")
    page = write_gallery(tmp_path / "bank.html", bank).read_text(encoding="utf-8")
    assert "8.png: not a readable" in page and page.count('src="data:image/png') == SHOWN


def test_near_duplicates_stand_side_by_side(bank: Bank, tmp_path: Path) -> None:
    assert "Nearly the same" not in write_gallery(tmp_path / "bank.html", bank).read_text(encoding="utf-8")
    brighter_HW = np.random.default_rng(3).integers(0, 255, (40, 60), np.uint8) // 2
    (tmp_path / "copy.png").write_bytes(encode_png(brighter_HW))
    copy = LabelledFile(image=ImageFile.at(tmp_path / "copy.png"), lineage="A549", group="w9", count=3)
    bank.add([prepare(copy, bank.store)])
    page = write_gallery(tmp_path / "bank.html", bank).read_text(encoding="utf-8")
    _, _, near = page.partition("<h2>Nearly the same: 1</h2>")
    assert near.index("3.png") < near.index("copy.png") and near.count("<figure>") == 2


def test_a_page_that_cannot_be_written_is_named(bank: Bank, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot write the page"):
        write_gallery(tmp_path / "bank", bank)
