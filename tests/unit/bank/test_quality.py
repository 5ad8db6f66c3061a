"""Frames of a bank that look out of focus, saturated or empty."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from cellnet.bank.bank import Bank
from cellnet.bank.frames import Frame
from cellnet.bank.labels import Label
from cellnet.bank.prepare import prepare
from cellnet.bank.quality import flagged, focus_of, notes_on
from cellnet.images.file import ImageFile, encode_png
from cellnet.images.quality import Focus
from cellnet.readers import LabelledFile
from tests.factories import discs, frame


def measured(number: int, focus: float | None = 1.0, **known: object) -> Frame:
    return frame(number, **({"focus": focus, "brightest_share": 0.0, "structure": 9.0} | known))


def numbers(frames: list[Frame]) -> dict[int, list[str]]:
    """The flags by the places of the frames."""
    places = {one.frame: place for place, one in enumerate(frames)}
    return {places[name]: list(flags) for name, flags in flagged(frames).items()}


def test_focus_is_told_against_the_frames_of_the_same_batch() -> None:
    soft = [measured(n, 0.5, batch="old scope") for n in range(10)]
    sharp = [measured(n, 1.0, batch="new scope") for n in range(10, 20)]
    assert numbers([*soft, *sharp]) == {}
    assert numbers([*soft, *sharp, measured(20, 0.5, batch="new scope")]) == {20: ["out_of_focus"]}
    assert numbers([*sharp, measured(20, 0.5, batch="of two"), measured(21, 1.0, batch="of two")]) == {
        10: ["out_of_focus"]
    }, "a batch of two is held against all"


def test_frames_of_another_pixel_size_are_another_kind() -> None:
    assert numbers([*(measured(n, pixel_um=0.5) for n in range(9)), measured(9, 0.3, pixel_um=1.0)]) == {}


def test_a_fifth_of_blurred_frames_hides_none_of_them() -> None:
    frames = [measured(n, 0.4 if n < 4 else 1 + 0.01 * (n % 5)) for n in range(20)]
    assert numbers(frames) == {n: ["out_of_focus"] for n in range(4)}


def test_saturated_and_empty_frames_need_no_others() -> None:
    frames = [measured(0, None, structure=0.0), measured(1, brightest_share=0.04), measured(2)]
    assert numbers(frames) == {0: ["empty"], 1: ["saturated"]}


def test_what_was_not_measured_and_what_is_unusable_is_not_flagged_and_sets_no_limit() -> None:
    unusable = [measured(n, 5.0, unusable="focus", brightest_share=0.5) for n in range(30, 60)]
    frames = [*(measured(n) for n in range(9)), *unusable, frame(70)]
    assert numbers(frames) == {} and focus_of(frames, None) == Focus(frames=9, median=1, lower_quartile=1)


def test_the_focus_of_a_training_is_that_of_frames_as_the_network_sees_them() -> None:
    frames = [measured(n, 1.0, pixel_um=0.5) for n in range(6)] + [measured(n, 3.0, pixel_um=1.0) for n in range(6, 12)]
    assert focus_of(frames, 0.5) == Focus(frames=6, median=1, lower_quartile=1)
    assert focus_of(frames, 9.0) is None and focus_of([frame(n) for n in range(9)], None) is None


def test_corrected_frames_of_a_softer_plate_widen_the_focus_of_the_next_version() -> None:
    old, ten = [measured(n) for n in range(48)], [measured(n, 0.6) for n in range(48, 58)]
    new = {one.frame for one in ten}
    first = focus_of(old, None)
    assert first is not None and first.limit == pytest.approx(0.65)
    second = focus_of([*old, *ten], None, new=new, before=first)
    assert second is not None and (second.frames, second.median) == (10, pytest.approx(0.6))
    later = focus_of([*old, *ten, measured(58)], None, new={frame(58).frame}, before=second)
    assert later == second, "what was learned stays"
    alike = focus_of([*old, *(measured(n, 0.95) for n in range(48, 58))], None, new=new, before=first)
    assert alike is not None and alike.limit == pytest.approx(0.65), "of the same microscope"


def test_each_flag_has_a_note_with_names_and_the_next_step() -> None:
    frames = [measured(n, 0.3 if n < 5 else 1.0, brightest_share=0.2 * (n == 30)) for n in range(40)]
    assert list(notes_on(frames)) == [
        "5 of 40 frames look out of focus: 0.png, 1.png, 2.png and 2 more; they teach all the same: what is of no use, "
        "say so by cellnet bank label, unusable focus",
        "1 of 40 frames looks saturated: 30.png; they teach all the same: what is of no use, say so by cellnet bank "
        "label, unusable other",
    ]
    assert list(notes_on([frame(n) for n in range(40)])) == []


@pytest.fixture
def files(tmp_path: Path) -> list[LabelledFile]:
    """Eight sharp frames, one that is out of focus, one clipped, one without a cell."""
    rng = np.random.default_rng(0)
    drawn = [discs(0 if seed == 10 else 40, seed=seed)[0].astype(np.float32) for seed in range(11)]
    drawn[8] = cv2.GaussianBlur(drawn[8], (0, 0), 4)
    images = [np.clip(one_HW + rng.normal(0, 4, one_HW.shape), 0, 255).astype(np.uint8) for one_HW in drawn]
    images[9] = np.minimum(images[9], 175)
    for number, image_HW in enumerate(images):
        (tmp_path / f"{number}.png").write_bytes(encode_png(image_HW))
    return [
        LabelledFile(image=ImageFile.at(tmp_path / f"{n}.png"), lineage="A549", group=f"w{n}")
        for n in range(len(images))
    ]


WRONG = {"8.png": ["out_of_focus"], "9.png": ["saturated"], "10.png": ["empty"]}


def told(bank: Bank) -> dict[str, list[str]]:
    names = {one.frame: Path(one.source).name for one in bank.frames}
    return {names[name]: list(flags) for name, flags in flagged(bank.frames).items()}


def test_an_import_measures_and_the_bank_knows_it_again(files: list[LabelledFile], tmp_path: Path) -> None:
    bank = Bank.create(tmp_path / "bank")
    bank.add([prepare(file, bank.store) for file in files])
    again = Bank.open(tmp_path / "bank")
    assert told(again) == WRONG
    [soft] = [one.frame for one in again.frames if one.source.endswith("/8.png")]
    again.label([Label(frame=soft, unusable="focus")], by="me")
    assert told(again) == {name: flags for name, flags in WRONG.items() if name != "8.png"}


def test_a_bank_of_before_is_read_and_learns_the_measures_when_its_images_come_again(
    files: list[LabelledFile], tmp_path: Path
) -> None:
    bank = Bank.create(tmp_path / "bank")
    prepared = [prepare(file, bank.store) for file in files]
    bank.add(replace(one, focus=None, brightest_share=None, structure=None) for one in prepared)
    before = Bank.open(tmp_path / "bank")
    assert told(before) == {}
    assert (before.add(prepared).added, told(before)) == (0, WRONG)
    assert before.digest == bank.digest, "what was measured is no content"
