"""The page of a bank: what a biologist must find on it."""

import base64
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cellnet.bank.bank import Bank
from cellnet.bank.frames import Frame
from cellnet.bank.prepare import prepare
from cellnet.bank.warnings import outlook_of
from cellnet.errors import ConfigError
from cellnet.images.file import ImageFile, encode_png
from cellnet.images.pictures import CENTRE
from cellnet.readers import LabelledFile
from cellnet.reports import gallery
from cellnet.reports.gallery import SHOWN, centres_told, some, write_gallery
from tests.factories import little_room, noise
from tests.unit.reports.reading import HOSTILE, assert_harmless, unbroken


def structured(seed: int) -> NDArray[np.uint8]:
    """A small frame like no other, that is not empty."""
    squares_HW = np.kron(noise(5, 8, seed=seed), np.ones((8, 8), np.uint8))[:, :60]
    return np.asarray(squares_HW // 2 + noise(40, 60, seed=seed) // 8, np.uint8)


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    """Eight frames of A549, one of 3T3, and one that is no image."""
    bank = Bank.create(tmp_path / "bank")
    files = []
    for n in range(9):
        path = tmp_path / f"{n}.png"
        path.write_bytes(encode_png(structured(n)))
        about = {"lineage": "A549" if n < 8 else "3T3", "group": f"w{n}", "count": float(n)}
        about |= {"batch": "P1", "time_h": 72.5} if n == 8 else {}
        files.append(LabelledFile(image=ImageFile.at(path), **about))
    (tmp_path / "<b>.png").write_text("no image")
    files.append(LabelledFile(image=ImageFile.at(tmp_path / "<b>.png")))
    bank.add([prepare(file, bank.store) for file in files])
    return bank


def test_the_page_shows_every_lineage_what_to_beware_of_and_what_was_set_aside(bank: Bank, tmp_path: Path) -> None:
    page = unbroken(write_gallery(tmp_path / "new" / "bank.html", bank))
    assert "<h3>A549: 6 of 8 frames shown</h3>" in page and "<h3>3T3: 1 of 1 frame shown</h3>" in page
    assert page.count("<figure>") == SHOWN + 1
    assert "<b>8.png</b><br>train, 8 cells, batch P1, 72.5 h<" in page and ", 0 cells<" in page
    assert "3T3: one group only" in page
    assert page.count('src="data:image/jpeg') == SHOWN + 1, "all of it is in the page"
    assert len(re.findall('<div role="img" aria-label="[^"]+"><svg ', page)) == 2, "grey values, and counts"
    assert_harmless(page, "<b>.png: not a readable")


def test_frames_that_are_of_no_use_are_marked_and_stand_together(bank: Bank, tmp_path: Path) -> None:
    (tmp_path / "dark.png").write_bytes(encode_png(np.random.default_rng(0).normal(9, 1, (40, 60)).astype(np.uint8)))
    dark = LabelledFile(image=ImageFile.at(tmp_path / "dark.png"), lineage="3T3", group="w8", batch="P1", count=0)
    bank.add([prepare(dark, bank.store)])
    page = unbroken(write_gallery(tmp_path / "bank.html", bank))
    assert "1 of 10 frames looks empty: dark.png" in page
    _, _, section = page.partition("<h3>Out of focus, saturated or empty, as it looks: 1 of 1 frame shown</h3>")
    assert section.count("<figure>") == 1 and "0 cells, batch P1; looks empty</figcaption>" in section


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
    page = unbroken(write_gallery(tmp_path / "bank.html", bank))
    shown = (
        f"<i>{HOSTILE}: 2 of 2 frames shown",
        f"broken{HOSTILE}: not a readable",
        "<img src=x onerror=alert(1)>.png",
    )
    assert_harmless(page, *shown, HOSTILE.rpartition("/")[2])


@pytest.mark.slow
def test_a_frame_whose_pixels_rotted_is_named_and_the_others_are_shown(bank: Bank, tmp_path: Path) -> None:
    [only] = [frame for frame in bank.frames if frame.lineage == "3T3"]
    (tmp_path / f"bank/pixels/{only.frame}.png").write_bytes(b"rot")
    page = unbroken(write_gallery(tmp_path / "bank.html", bank))
    assert "8.png" in page and "not a readable" in page and page.count('src="data:image/jpeg') == SHOWN


def test_near_duplicates_stand_side_by_side(bank: Bank, tmp_path: Path) -> None:
    assert "Nearly the same" not in unbroken(write_gallery(tmp_path / "bank.html", bank))
    brighter_HW = structured(3) // 2
    (tmp_path / "copy.png").write_bytes(encode_png(brighter_HW))
    copy = LabelledFile(image=ImageFile.at(tmp_path / "copy.png"), lineage="A549", group="w9", count=3)
    bank.add([prepare(copy, bank.store)])
    page = unbroken(write_gallery(tmp_path / "bank.html", bank))
    _, _, near = page.partition("<h3>Nearly the same: 1 of 1 shown</h3>")
    assert near.index("3.png") < near.index("copy.png") and near.count("<figure>") == 2


def test_a_page_that_cannot_be_written_is_named(bank: Bank, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot write the page"):
        write_gallery(tmp_path / "bank", bank)


def framed(split: str, number: int, **about: object) -> Frame:
    return Frame(**({"frame": f"{split}{number}", "source": f"{number}.png", "split": split} | about))


@pytest.mark.parametrize("most", [3, 6])
def test_frames_of_every_split_are_shown_as_many_as_there_is_room_for(most: int) -> None:
    frames = [framed("train", n) for n in range(20)] + [framed("holdout", 0), framed("test", 0)]
    chosen = some(frames, most)
    assert len({frame.frame for frame in chosen}) == len(chosen) == most
    assert [frame.split for frame in chosen] == ["train"] * (most - 2) + ["test", "holdout"]
    assert len(some(frames[-2:], most)) == 2


def test_the_page_tells_the_splits_with_their_frames_groups_and_cells(bank: Bank, tmp_path: Path) -> None:
    page = unbroken(write_gallery(tmp_path / "bank.html", bank)).replace("\N{NO-BREAK SPACE}", " ")
    assert "test: what chooses between epochs" in page and f" {outlook_of(bank.frames)}.</p>" in page
    for split in ("train", "test", "holdout"):
        held = [frame for frame in bank.split(split) if frame.lineage == "A549"]
        cells = sum(int(frame.count) for frame in held)
        plural = "s" * (len(held) > 1)
        assert (
            f"<td>{len(held)} frame{plural}, {len(held)} group{plural}, {cells} cell{'s' * (cells != 1)}</td>" in page
        )
    assert "<td>3T3</td><td>1 frame, 1 group, 8 cells</td><td>none</td><td>none</td>" in page
    assert "<details open><summary>Set aside, in no split: 1</summary>" in page


def test_what_is_burnt_in_and_what_the_contrast_is_are_told_above_the_frames(bank: Bank, tmp_path: Path) -> None:
    page = unbroken(write_gallery(tmp_path / "bank.html", bank))
    above = page[page.index("<h2>Frames</h2>") : page.index("<h3>")]
    assert "scale bars, clocks and letters" in above and "percentiles 0.1 and 99.9 of the frame become" in above
    assert "Rings" not in above


def drawn(page: str) -> NDArray[np.uint8]:
    """The first picture of a page."""
    data, *_ = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)


def test_centres_are_drawn_where_they_are_known_and_those_outside_are_counted(tmp_path: Path) -> None:
    bank = Bank.create(tmp_path / "bank")
    path = tmp_path / "a.png"
    path.write_bytes(encode_png(np.random.default_rng(0).integers(7, 9, (200, 400), np.uint8)))
    file = LabelledFile(image=ImageFile.at(path), lineage="A549", group="w", count=2, centres=((300, 50), (50, 150)))
    bank.add([prepare(file, bank.store)])
    page = unbroken(write_gallery(tmp_path / "bank.html", bank))
    assert "2 centres, of which none outside of their frames" in page and "Rings are known centres" in page
    picture_HW3 = drawn(page).astype(int)
    assert picture_HW3.shape == (200, 400, 3)
    ring_HW = np.abs(picture_HW3 - CENTRE).max(2) < 60
    y_N, x_N = ring_HW.nonzero()
    assert set(zip((y_N // 100).tolist(), (x_N // 200).tolist(), strict=True)) == {(0, 1), (1, 0)}
    grey_N = picture_HW3[~cv2.dilate(ring_HW.astype(np.uint8), np.ones((9, 9))).astype(bool)].ravel()
    assert (grey_N < 60).any() and (grey_N > 200).any(), "two grey values, stretched as for a network"


def test_each_frame_that_is_shown_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bank: Bank) -> None:
    read: list[str] = []
    pixels = bank.pixels
    monkeypatch.setattr(gallery, "warnings_in", lambda bank: [])  # looks at some frames itself
    monkeypatch.setattr(bank, "pixels", lambda frame: (read.append(frame.frame), pixels(frame))[1])
    page = write_gallery(tmp_path / "bank.html", bank).read_text()
    assert page.count("data:image/jpeg") >= len(read) == len(set(read)) > 0


def test_centres_whose_x_and_y_are_swapped_are_told() -> None:
    frames = [framed("train", 0, width=400, height=200, centres=[[50, 300], [150, 50], [401, 0], [400, 200]])]
    assert centres_told(frames) == "4 centres, of which 2 outside of their frames"
    assert centres_told([framed("train", 0)]) == ""


def test_of_many_lineages_fewer_frames_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bank: Bank) -> None:
    monkeypatch.setattr(gallery, "MOST", 8)
    page = unbroken(write_gallery(tmp_path / "bank.html", bank))
    assert "A549: 4 of 8 frames shown" in page


def test_long_names_break_where_people_would_break_them(tmp_path: Path, bank: Bank) -> None:
    grey_HW = np.random.default_rng(99).integers(0, 255, (40, 60), np.uint8)
    path = tmp_path / "plate_1-well.B02_0.5h.png"
    path.write_bytes(encode_png(grey_HW))
    bank.add([prepare(LabelledFile(image=ImageFile.at(path), lineage="3T3", group="w", count=1), bank.store)])
    page = write_gallery(tmp_path / "bank.html", bank).read_text(encoding="utf-8")
    assert "<b>plate_<wbr>1-<wbr>well.<wbr>B02_<wbr>0.5h.<wbr>png</b>" in page


def test_of_a_page_for_which_there_is_no_room_nothing_is_left(bank: Bank, tmp_path: Path) -> None:
    with little_room(2000), pytest.raises(ConfigError, match=r"cannot write the page .*bank.html: File too large"):
        write_gallery(tmp_path / "bank.html", bank, [])
    assert not (tmp_path / "bank.html").exists()
