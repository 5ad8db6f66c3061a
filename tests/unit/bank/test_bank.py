"""The image bank: what is kept, what is set aside, who goes to which side of the split."""

import hashlib
import json
import os
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
from numpy.typing import NDArray

import cellnet.bank.bank
import cellnet.bank.columns
from cellnet.bank.bank import Bank, Imported
from cellnet.bank.columns import Frames
from cellnet.bank.frames import FORM, Frame, digest_of_pixels
from cellnet.bank.labels import Label
from cellnet.bank.parts import State
from cellnet.bank.prepare import prepare, prepare_all
from cellnet.bank.splits import held_by_split
from cellnet.bank.warnings import warnings_of
from cellnet.config.bank import BankSettings, Intensity
from cellnet.errors import ConfigError, DataError, NotFoundError
from cellnet.images.file import ImageFile, encode_png
from cellnet.readers import LabelledFile
from tests.factories import frame


def write_image(path: Path, seed: int, depth: type = np.uint8) -> Path:
    path.write_bytes(encode_png(np.random.default_rng(seed).integers(0, 200, (20, 30)).astype(depth)))
    return path


def take(bank: Bank, path: Path, **known: object) -> Imported:
    """Import one file."""
    return bank.add([prepare(LabelledFile(image=ImageFile.at(path), **known), bank.store)])


def splits_of(bank: Bank) -> dict[str, str]:
    return {item.group: item.split for item in bank.frames}


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    return Bank.create(tmp_path / "bank")


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_an_imported_frame_comes_back_as_recorded(bank: Bank, tmp_path: Path, depth: type) -> None:
    path = write_image(tmp_path / "a.png", 1, depth)
    centres = ((1.1, 2.2), (3.3, 4.4))
    known = {"lineage": "THP1", "count": 2.0, "centres": centres, "group": "B7", "pixel_um": 0.65}
    known |= {"batch": "P1 2024-05-06", "time_h": 24.5}
    assert take(bank, path, **known) == Imported(added=1, known=0, set_aside=[], near=[])
    reopened = Bank.open(tmp_path / "bank")
    (kept,) = reopened.frames
    assert (kept.lineage, kept.count, kept.group, kept.pixel_um) == ("THP1", 2.0, "B7", 0.65)
    assert (kept.batch, kept.time_h) == ("P1 2024-05-06", 24.5)
    assert (kept.height, kept.width, kept.bits) == (20, 30, np.dtype(depth).itemsize * 8)
    np.testing.assert_allclose(kept.centres_N2, centres, atol=1e-6)
    pixels_HW = reopened.pixels(kept)
    assert pixels_HW.dtype == depth
    assert (pixels_HW == np.random.default_rng(1).integers(0, 200, (20, 30))).all()


def test_a_frame_with_centres_outside_it_is_set_aside(bank: Bank, tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png", 1)
    inside = take(bank, path, centres=((0.0, 0.0), (30.0, 20.0)))
    assert inside.set_aside == []
    (frame,) = take(bank, write_image(tmp_path / "b.png", 2), centres=((29.0, 21.0), (-3.0, 2.0), (5.0, 5.0))).set_aside
    assert str(frame.set_aside).startswith("2 of its 3 centres lie outside its 30×20 pixels; give x and y in pixels")


def test_names_that_are_no_utf_8_are_kept_legibly(bank: Bank, tmp_path: Path) -> None:
    latin = os.fsdecode(b"Z\xfcrich")
    path = write_image(tmp_path / f"{latin}.png", 1)
    take(bank, path, lineage=latin, group=latin)
    (frame,) = Bank.open(tmp_path / "bank").frames
    assert (frame.lineage, frame.group, Path(frame.source).name) == ("Z�rich", "Z�rich", "Z�rich.png")


def test_an_image_without_group_is_a_group_of_its_own(bank: Bank, tmp_path: Path) -> None:
    for seed in (1, 2):
        take(bank, write_image(tmp_path / f"{seed}.png", seed))
    assert len(splits_of(bank)) == 2


def test_the_same_pixels_are_kept_once(bank: Bank, tmp_path: Path) -> None:
    take(bank, write_image(tmp_path / "a.png", 1), lineage="A549")
    again = take(bank, write_image(tmp_path / "copy.png", 1), lineage="A549")
    assert (again.added, again.known, again.set_aside) == (0, 1, [])
    assert [kept.source for kept in bank.frames] == [str(tmp_path / "a.png")]


def test_the_same_pixels_with_another_label_are_set_aside_and_the_first_label_stays(bank: Bank, tmp_path: Path) -> None:
    take(bank, write_image(tmp_path / "a.png", 1), lineage="A549", count=3.0)
    other = take(bank, write_image(tmp_path / "b.png", 1), lineage="THP1", count=3.0)
    assert (other.added, len(other.set_aside)) == (0, 1)
    assert [(kept.lineage, kept.count) for kept in bank.frames] == [("A549", 3.0)]
    assert "a.png, with another lineage or count; say what is right by: cellnet bank label" in str(
        bank.set_aside[0].set_aside
    )


def test_a_batch_and_an_age_that_were_not_known_are_filled_in_by_a_later_import(bank: Bank, tmp_path: Path) -> None:
    bank.add([frame(1), frame(2, batch="P2", time_h=3.0)])
    splits, digest = splits_of(bank), bank.digest
    again = bank.add([frame(1, batch="P1"), frame(2), frame(2, time_h=3.0)])
    assert (again.added, again.known, again.set_aside) == (0, 3, [])
    bank.add([frame(1, time_h=0.0)])
    assert [(kept.batch, kept.time_h) for kept in Bank.open(tmp_path / "bank").frames] == [("P1", 0.0), ("P2", 3.0)]
    assert splits_of(bank) == splits and bank.digest != digest
    entries = list(bank.store.keys("log/"))
    assert bank.add([frame(1, batch="P1"), frame(2)]).known == 2 and list(bank.store.keys("log/")) == entries


@pytest.mark.parametrize("other", [{"batch": "P2"}, {"time_h": 4.0}])
def test_the_same_pixels_of_another_batch_or_age_are_set_aside(bank: Bank, other: dict[str, object]) -> None:
    bank.add([frame(1, batch="P1", time_h=3.0)])
    [refused] = bank.add([replace(frame(1, **{"batch": "P1", "time_h": 3.0} | other), source="b.png")]).set_aside
    assert str(refused.set_aside).startswith("the same pixels as 1.png, with another batch or time; these are fixed")
    assert [(kept.batch, kept.time_h) for kept in bank.frames] == [("P1", 3.0)]


def test_pixels_that_contradict_each_other_within_one_import_are_kept_once(bank: Bank) -> None:
    imported = bank.add([frame(1, "A549"), replace(frame(1, "THP1"), source="b.png"), frame(2)])
    assert (imported.added, imported.known, len(imported.set_aside)) == (2, 1, 1)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "the file is empty"), (b"text", "not a readable PNG"), (None, "cannot be read: No such file")],
)
def test_an_unusable_image_is_set_aside_with_its_reason(
    bank: Bank, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "bad.png"
    if content is not None:
        path.write_bytes(content)
    assert len(take(bank, path).set_aside) == 1
    assert Bank.open(tmp_path / "bank").set_aside[0].set_aside.startswith(reason)
    assert bank.frames == []


def test_an_image_that_was_set_aside_is_taken_once_it_is_exported_well(bank: Bank, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"half an image")
    take(bank, path)
    assert take(bank, write_image(path, 1)) == Imported(added=1, known=0, set_aside=[], near=[])
    assert (len(bank.frames), bank.set_aside) == (1, [])


def test_importing_the_same_again_changes_nothing(bank: Bank) -> None:
    source = [
        Frame(frame="", source="bad.png", set_aside="blank"),
        frame(1, centres=[[0.1, 0.2]], count=1.0),
        replace(frame(1, "THP1"), source="contradicts.png"),
        Frame(frame="", source="worse.png", set_aside="blank"),
    ]
    bank.add(source)
    entries, digest = list(bank.store.keys("log/")), bank.digest
    again = bank.add(source)
    assert (again.added, again.known) == (0, 2)
    assert (list(bank.store.keys("log/")), bank.digest) == (entries, digest)


def near(number: int, like: str, group: str) -> Frame:
    """A frame with a hash of its own kind: the same letter is nearly the same picture."""
    return frame(number, group=group, fingerprint=like * 128)


def test_a_near_duplicate_is_told_and_follows_what_it_copies(bank: Bank) -> None:
    bank.add([near(n, f"{n:x}", f"well {n}") for n in range(10)])
    before = splits_of(bank)
    added = bank.add([near(20 + n, f"{n:x}", f"new {n}") for n in range(10)])
    assert [(item.frame, item.twin) for item in added.near] == [
        (frame(20 + n).frame, frame(n).frame) for n in range(10)
    ]
    after = splits_of(bank)
    assert [after[f"new {n}"] for n in range(10)] == [before[f"well {n}"] for n in range(10)]
    assert warnings_of(bank.frames) == ["10 near-duplicates, kept on one side of the split with what they copy"]
    relabelled = [replace(item, lineage="THP1") if item.twin == frame(3).frame else item for item in bank.frames]
    assert "; 1 with another lineage or count, so look at their labels" in " ".join(warnings_of(relabelled))


def test_a_near_duplicate_that_would_leak_is_set_aside_once(bank: Bank) -> None:
    bank.add([near(0, "a", "well 0"), near(1, "b", "well 1"), near(2, "c", "well 2")])
    sides = splits_of(bank)
    assert len(set(sides.values())) == 3
    crossing = [near(10, "a", "well 1"), near(11, "f", "well 1"), near(12, "f", "well 2"), near(13, "b", "well 1")]
    added = bank.add(crossing)
    assert added.added == 2 and [item.source for item in added.set_aside] == ["10.png", "12.png"]
    assert added.set_aside[0].set_aside == (
        f"nearly the same as 0.png of the {sides['well 0']} split, while its group well 1 is in {sides['well 1']}; "
        "leave it out, as it would leak"
    )
    entries = list(bank.store.keys("log/"))
    assert bank.add(crossing).added == 0
    assert list(bank.store.keys("log/")) == entries and splits_of(bank) == sides


def test_what_was_read_before_an_interruption_is_not_read_again(bank: Bank, tmp_path: Path) -> None:
    paths = [tmp_path / "a.bmp", tmp_path / "b.bmp"]
    pixels = np.random.default_rng(0).integers(0, 255, (2, 20, 32)).astype(np.uint8)
    for path, image_HW in zip(paths, pixels, strict=True):
        cv2.imwrite(str(path), image_HW)
    sources = [LabelledFile(image=ImageFile.at(path), lineage="A549", centres=((1.5, 2.5),)) for path in paths]
    first = prepare_all(sources, bank.store)
    changed = paths[0].stat()
    cv2.imwrite(str(paths[0]), pixels[1])  # as large as before,
    os.utime(paths[0], ns=(changed.st_atime_ns, changed.st_mtime_ns))  # and as old: nobody looks into it again
    assert prepare_all(sources, bank.store) == first
    os.utime(paths[0], ns=(changed.st_atime_ns, changed.st_mtime_ns + 1))
    again = prepare_all(sources, bank.store)
    assert again[0].frame == again[1].frame == first[1].frame != first[0].frame
    relabelled = prepare_all([replace(sources[0], lineage="THP1"), sources[1]], bank.store)
    assert [item.lineage for item in relabelled] == ["THP1", "A549"]


def test_the_shares_hold_over_100_groups(bank: Bank) -> None:
    bank.add([frame(number) for number in range(100)])
    assert Counter(splits_of(bank).values()) == {"train": 63, "test": 27, "holdout": 10}


def test_the_shares_hold_when_groups_come_one_at_a_time(bank: Bank) -> None:
    for number in range(40):
        bank.add([frame(number)])
    assert Counter(splits_of(bank).values()) == {"train": 25, "test": 11, "holdout": 4}


def test_each_lineage_is_split_for_itself(bank: Bank) -> None:
    sizes = {"rare": 3, "common": 40, None: 10}
    bank.add([frame(100 * i + n, name) for i, (name, size) in enumerate(sizes.items()) for n in range(size)])
    for name, (train, test, holdout) in {"rare": (1, 1, 1), "common": (25, 11, 4), None: (6, 3, 1)}.items():
        of_it = Counter(item.split for item in bank.frames if item.lineage == name)
        assert of_it == {"train": train, "test": test, "holdout": holdout}


def test_a_group_is_never_divided_even_if_it_holds_several_lineages(bank: Bank) -> None:
    bank.add([frame(n, ("A549", "THP1")[n % 2], group=f"well {n // 5}") for n in range(100)])
    sides: dict[str, set] = {}
    for item in bank.frames:
        sides.setdefault(item.group, set()).add(item.split)
    assert len(sides) == 20 and all(len(side) == 1 for side in sides.values())


def test_adding_frames_later_moves_no_group(bank: Bank) -> None:
    bank.add([frame(n, group=f"well {n // 2}") for n in range(40)])
    before = splits_of(bank)
    bank.add([frame(n, "THP1", group=f"well {n % 30}") for n in range(100, 160)])  # also into known wells
    after = splits_of(bank)
    assert len(after) == 30 and {group: after[group] for group in before} == before


def test_the_draw_depends_on_the_seed_and_not_on_the_order(tmp_path: Path) -> None:
    frames = [frame(number) for number in range(50)]
    shuffled = random.Random(0).sample(frames, 50)
    drawn = []
    for place, seed, items in (("a", 0, frames), ("b", 0, shuffled), ("c", 1, frames)):
        bank = Bank.create(tmp_path / place, BankSettings(seed=seed))
        bank.add(items)
        drawn.append(splits_of(bank))
    assert drawn[0] == drawn[1] != drawn[2]


def test_of_two_imports_at_once_neither_is_lost(bank: Bank, tmp_path: Path) -> None:
    other = Bank.create(tmp_path / "bank")  # sees the empty place
    bank.add([frame(n) for n in range(10)])
    first = splits_of(bank)
    assert other.add([frame(n) for n in range(5, 15)]).added == 5
    assert len(other.frames) == 15
    assert {group: splits_of(other)[group] for group in first} == first


def test_eight_imports_at_once_are_all_kept(bank: Bank, tmp_path: Path) -> None:
    handles = [Bank.create(tmp_path / "bank") for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: handles[n].add([frame(n)]), range(8)))
    assert len(Bank.open(tmp_path / "bank").frames) == 8


def test_the_digest_knows_labels_and_splits_but_not_order_or_place(tmp_path: Path) -> None:
    frames = [frame(n, count=5.0, centres=[[0.1, 0.7]] * 5) for n in range(6)]

    def digest(place: str, items: list[Frame], seed: int = 0) -> str:
        bank = Bank.create(tmp_path / place, BankSettings(seed=seed))
        bank.add(items)
        assert bank.digest == Bank.open(tmp_path / place).digest
        return bank.digest

    known = digest("a", frames)
    assert known == digest(
        "i", [replace(item, fingerprint="ab" * 64) if item is frames[0] else item for item in frames]
    )
    assert known == digest("b", frames[::-1])
    assert known == digest("c", [replace(item, source=f"/elsewhere/{item.source}") for item in frames])
    changed = [
        digest("d", [replace(frames[0], lineage="THP1"), *frames[1:]]),
        digest("e", [replace(frames[0], count=6.0), *frames[1:]]),
        digest("f", [replace(frames[0], centres=[[0.1, 0.8]] * 5), *frames[1:]]),
        digest("g", frames[1:]),
        digest("h", frames, seed=1),
    ]
    assert len({known, *changed}) == 6


def test_lineages_are_sorted_and_only_the_known_ones(bank: Bank) -> None:
    bank.add([frame(1, "THP1"), frame(2, None), frame(3, "A549"), frame(4, "A549")])
    assert bank.lineages == ["A549", "THP1"]


def test_a_banks_settings_are_fixed_when_it_is_made(tmp_path: Path) -> None:
    made = BankSettings(intensity=Intensity(rule="range", low=0, high=4095))
    default, other = Bank.create(tmp_path), Bank.create(tmp_path, made)
    assert not list(tmp_path.iterdir()), "a bank is written with its first frames"
    other.add([frame(1)])
    assert Bank.create(tmp_path).settings == Bank.create(tmp_path, made).settings == made
    with pytest.raises(ConfigError, match="fixed when it was made; import into a new bank"):
        Bank.create(tmp_path, BankSettings())
    with pytest.raises(ConfigError, match="other settings"):
        default.add([frame(2)])


def test_opening_no_bank_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"cellnet bank import SOURCE .*nowhere"):
        Bank.open(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "images").mkdir()
    (tmp_path / "images/manifest.csv").touch()
    for source in (tmp_path / "images", tmp_path / "images/manifest.csv"):
        with pytest.raises(NotFoundError, match=f"{source} is no bank; .*: cellnet bank import {source} bank$"):
            Bank.open(source)
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["manifest.csv"]


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-20], lambda data: data[:60] + b"\xff" * 99])
def test_a_damaged_table_is_named(bank: Bank, tmp_path: Path, damage: object) -> None:
    bank.add([frame(1)])
    [path] = (tmp_path / "bank/parts").iterdir()
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=rf"parts/{path.name} is damaged"):
        Bank.open(tmp_path / "bank")


def test_a_label_that_rotted_on_disk_is_noticed(bank: Bank, tmp_path: Path) -> None:
    bank.add([frame(1, "A549")])
    [path] = (tmp_path / "bank/parts").iterdir()
    data = path.read_bytes()
    path.write_bytes(data.replace(b"A549", b"B549", 1))
    with pytest.raises(DataError, match="damaged"):
        Bank.open(tmp_path / "bank")


def test_damaged_settings_are_named(bank: Bank, tmp_path: Path) -> None:
    bank.add([frame(1)])
    (tmp_path / "bank/bank.json").write_text('{"seed": ')
    with pytest.raises(DataError, match=r"bank\.json is damaged"):
        Bank.open(tmp_path / "bank")


def test_a_class_that_goes_along_with_a_format_or_a_plate_is_warned_of() -> None:
    def two(lineage: str, plate: str, **known: object) -> list[Frame]:
        return [
            replace(frame(1, lineage), group=f"{plate}/{lineage}{well}", source=f"{well}.png", **known) for well in "ab"
        ]

    same = [*two("A549", "P1"), *two("3T3", "P1")]
    assert warnings_of(same) == []
    assert warnings_of([*same, *two("THP1", "P2", bits=16)]) == [
        "THP1: a plate that no other lineage has; a classifier may learn that, not the cells",
        "THP1: a bit depth that no other lineage has; a classifier may learn that, not the cells",
    ]
    apart = [*two("A549", "P1"), *two("3T3", "P2")]
    assert warnings_of(apart)[0].startswith("every lineage: a plate")


def test_a_lineage_of_one_group_and_missing_counts_are_warned_of() -> None:
    frames = [replace(frame(n, "A549"), group="w1", source="a.png", count=count) for n, count in ((1, 3.0), (2, None))]
    one, missing = warnings_of([*frames, replace(frame(3, "THP1"), group="w2", source="a.png", count=1.0)])
    assert one.startswith("A549, THP1: one group only")
    assert missing.startswith("1 of 3 frames have no count")


def test_what_is_of_one_batch_only_is_warned_of() -> None:
    def of(lineage: str | None, *batches: str | None) -> list[Frame]:
        return [frame(n, lineage, f"w{n}", source="a.png", batch=batch) for n, batch in enumerate(batches)]

    both = of("A549", "P1", "P2")
    assert warnings_of([*both, *of("3T3", None, None)]) == warnings_of(of("3T3", None, None)) == []
    assert warnings_of([*both, *of("3T3", "P1", None)]) == [], "the frame of no known batch may be of another"
    assert warnings_of([*both, *of("THP1", "P2", "P2"), *of(None, "P1", "P1")]) == [
        "(not known) (P1), THP1 (P2): in one batch only, so nobody can tell what another plate brings"
    ]
    assert warnings_of([*of("A549", "P1", "P1"), *of("3T3", "P1", "P1")]) == [
        "every frame is of one batch, P1, so nobody can tell what another plate brings"
    ]
    apart = warnings_of([*of("A549", "P1", "P1"), *of("3T3", "P2", "P2")])
    assert apart[0].startswith("3T3 (P2), A549 (P1): in one batch only")
    assert apart[1].startswith("every lineage: a plate that no other lineage has")


def test_the_digest_is_computed_once_a_state(bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = []
    digest_of = cellnet.bank.bank.digest_of
    monkeypatch.setattr(cellnet.bank.bank, "digest_of", lambda *state: computed.append(state) or digest_of(*state))
    empty = bank.digest
    bank.add([frame(1)])
    first = [bank.digest for _ in range(3)]
    bank.add([frame(1)])  # nothing new
    assert [bank.digest] * 3 == first and len(computed) == 2
    Bank.open(tmp_path / "bank").add([frame(2)])
    bank.add([frame(3)])  # after the other's
    assert len({empty, first[0], bank.digest}) == 3 and len(computed) == 3
    assert bank.digest == Bank.open(tmp_path / "bank").digest


def test_settings_of_a_later_cellnet_are_read_or_refused_politely(bank: Bank, tmp_path: Path) -> None:
    bank.add([frame(1)])
    path = tmp_path / "bank/bank.json"
    stored = json.loads(path.read_text())
    assert stored.pop("format") == 2
    path.write_text(json.dumps(stored | {"plates": "96", "intensity": stored["intensity"] | {"gamma": 1}}))
    assert Bank.open(tmp_path / "bank").digest == bank.digest
    path.write_text('{"format": 3}')
    with pytest.raises(DataError, match=r"bank\.json was written by a later cellnet \(format 3, this one reads 2\)"):
        Bank.open(tmp_path / "bank")


def test_nothing_is_imported_into_a_bank_that_holds_what_would_be_lost(bank: Bank, tmp_path: Path) -> None:
    bank.add([frame(1)])
    [path] = (tmp_path / "bank/parts").iterdir()
    pq.write_table(pq.read_table(path).append_column("passage", pa.array([2.5])), path)
    log = tmp_path / "bank/log/000001.json"
    log.write_text(log.read_text().replace(path.stem, hashlib.sha256(path.read_bytes()).hexdigest()))
    path.rename(path.with_stem(hashlib.sha256(path.read_bytes()).hexdigest()))
    later = Bank.open(tmp_path / "bank")
    assert later.frames == bank.frames and later.digest == bank.digest
    with pytest.raises(ConfigError, match=r"holds passage, which this cellnet does not know and would lose; update"):
        later.add([frame(2)])
    assert later.add([frame(1)]).known == 1 and list(bank.store.keys("log/")) == ["log/000001.json"]


def test_images_of_few_grey_values_are_told_and_nothing_else_changes(bank: Bank, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = {"sixteen": rng.integers(0, 16, (40, 40)), "spread": 17 * rng.integers(0, 3, (40, 40))}
    images |= {"many": rng.integers(0, 200, (40, 40))}
    for name, image_HW in images.items():
        (tmp_path / f"{name}.png").write_bytes(encode_png(image_HW.astype(np.uint8)))
        take(bank, tmp_path / f"{name}.png", lineage="THP1")
    assert {Path(frame.source).stem: frame.greys for frame in Bank.open(tmp_path / "bank").frames} == {
        "sixteen": 16,
        "spread": 3,
        "many": None,
    }
    assert any(line.startswith("2 of 3 frames have 3 to 16 grey values only") for line in warnings_of(bank.frames))
    unknown = Bank(bank.store, bank.settings, State(before=bank.frames.with_values("greys", pa.nulls(3, pa.int32()))))
    assert unknown.digest == bank.digest


def test_a_lineage_with_more_cells_to_test_on_than_to_learn_from_is_told() -> None:
    sides = {"train": 33.0, "test": 5115.0, "holdout": 9.0}
    frames = [frame(n, "U2OS", split=side, count=cells) for n, (side, cells) in enumerate(sides.items())]
    frames += [frame(10 + n, "HL60", split=side, count=9.0) for n, side in enumerate(("train", "train", "test"))]
    [warning] = [line for line in warnings_of(frames) if "to learn from" in line]
    assert warning.startswith("U2OS: 5,115 cells to test on and 33 to learn from, since its groups cannot be dealt")


def white_for_black(path: Path, seed: int) -> NDArray[np.uint16]:
    """A TIFF whose lowest value is white, which a cellnet before form 3 read as it stands; what is right."""
    stored_HW = np.random.default_rng(seed).integers(0, 60_000, (20, 30)).astype(np.uint16)
    tifffile.imwrite(path, stored_HW, photometric="miniswhite")
    return 65_535 - stored_HW


def read_before(bank: Bank, path: Path, **known: object) -> Frame:
    """The frame that a cellnet before form 3 made of such a file, in the bank."""
    now = prepare(LabelledFile(image=ImageFile.at(path), **known), bank.store)
    stored_HW = tifffile.imread(path)
    then = replace(now, frame=digest_of_pixels(stored_HW), form=None, pixel_um=None)
    bank.store.create(f"pixels/{then.frame}.png", encode_png(stored_HW))
    bank.add([then])
    return next(frame for frame in bank.frames if frame.frame == then.frame)


def test_a_file_that_an_earlier_reader_read_otherwise_is_named_and_replaced_only_if_asked(
    bank: Bank, tmp_path: Path
) -> None:
    for seed in range(8):
        take(bank, write_image(tmp_path / f"{seed}.png", seed), group=f"w{seed}")
    path = tmp_path / "white.tif"
    right_HW = white_for_black(path, 9)
    before = read_before(bank, path, lineage="A549", count=3.0, group="B7")
    assert (
        len(bank.frames.misread) == 1 and sum("earlier cellnet read" in line for line in warnings_of(bank.frames)) == 1
    )

    again = take(bank, path, lineage="A549", count=3.0)
    assert (again.added, again.known, again.otherwise) == (0, 0, 1)
    assert again.set_aside[0].set_aside == (
        "comes out otherwise than an earlier cellnet read it; --replace puts it in the place of that"
    )
    assert before in bank.frames and len(bank.frames) == 9

    digest = bank.digest
    prepared = prepare(LabelledFile(image=ImageFile.at(path), lineage="A549", count=4.0), bank.store)
    done = bank.add([prepared], replacing=True)
    assert (done.added, done.known, done.otherwise, done.set_aside) == (0, 1, 1, [])
    reopened = Bank.open(tmp_path / "bank")
    [now] = [frame for frame in reopened.frames if frame.source == str(path)]
    assert (reopened.pixels(now) == right_HW).all() and not reopened.frames.misread
    assert (now.group, now.split, now.count, now.form) == ("B7", before.split, 4.0, FORM)
    assert len(reopened.frames) == 9 and reopened.set_aside == [] and reopened.digest != digest
    assert not any("earlier cellnet read" in line for line in warnings_of(reopened.frames))


def test_what_labels_say_of_a_frame_stays_with_what_takes_its_place(bank: Bank, tmp_path: Path) -> None:
    path = tmp_path / "white.tif"
    right_HW = white_for_black(path, 9)
    before = read_before(bank, path, lineage="A549", count=3.0)
    bank.label([Label(frame=before.frame, lineage="THP1", points=((1, 2),), unusable="debris")], by="ana")
    file = LabelledFile(image=ImageFile.at(path), lineage="A549", count=3.0)
    for _ in range(2):
        assert bank.add([prepare(file, bank.store)], replacing=True).set_aside == []
        [now] = Bank.open(tmp_path / "bank").frames
        assert now.frame == digest_of_pixels(right_HW)
        assert (now.lineage, now.count, now.centres, now.unusable) == ("THP1", 1.0, [[1.0, 2.0]], "debris")
    assert [(label.by, label.entry) for label in bank.labels.of_frame(now.frame)] == [("ana", 3)]


def test_a_file_that_comes_out_as_before_is_known_and_told_the_pixel_size_that_was_not_seen(
    bank: Bank, tmp_path: Path
) -> None:
    path = tmp_path / "a.ome.tif"
    pixels_HW = np.random.default_rng(1).integers(0, 200, (20, 30)).astype(np.uint8)
    tifffile.imwrite(path, pixels_HW, ome=True, metadata={"PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm"})
    before = read_before(bank, path)
    assert before.pixel_um is None and len(bank.frames.misread) == 1
    again = take(bank, path)
    assert (again.added, again.known, again.otherwise, again.sized) == (0, 1, 0, 1)
    [frame] = Bank.open(tmp_path / "bank").frames
    assert (frame.pixel_um, list(Frames.of([frame]).misread)) == (0.25, [])
    assert take(bank, path).sized == 0


def test_a_file_that_was_exported_anew_is_another_frame(bank: Bank, tmp_path: Path) -> None:
    white_for_black(tmp_path / "a.tif", 1)
    take(bank, tmp_path / "a.tif")
    white_for_black(tmp_path / "a.tif", 2)
    assert (take(bank, tmp_path / "a.tif").added, len(bank.frames)) == (1, 2)


@pytest.mark.parametrize("name", ["999999.json", "Thumbs.db", "notes.json", "1000000.json"])
def test_what_somebody_leaves_beside_the_log_is_nobodys(tmp_path: Path, name: str) -> None:
    bank = Bank.create(tmp_path / "bank")
    bank.add([frame(1)])
    (tmp_path / "bank/log" / name).write_bytes(b"of another program")
    again = Bank.open(tmp_path / "bank")
    assert again.digest == bank.digest
    again.add([frame(2)])
    assert Bank.open(tmp_path / "bank").digest == again.digest
    assert (tmp_path / "bank/log/000002.json").exists()


@pytest.mark.parametrize(
    ("known", "said"),
    [({"count": 1e308}, "the count 1e+308 is more than one image can hold"), ({"problem": "9" * 10**6}, "9" * 1000)],
)
def test_what_a_table_says_beyond_reason_sets_its_image_aside(tmp_path: Path, known: dict[str, Any], said: str) -> None:
    image = ImageFile.at(write_image(tmp_path / "a.png", 1))
    made = prepare(LabelledFile(image=image, **known), Bank.create(tmp_path / "bank").store)
    assert made.set_aside is not None and made.set_aside.startswith(said) and len(made.set_aside) <= 1000


def test_of_many_frames_few_become_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = Bank.create(tmp_path / "bank")
    bank.add([frame(number, group=f"w{number // 4}", count=float(number % 7)) for number in range(2000)])
    made = 0

    def counted(**known: Any) -> Frame:
        nonlocal made
        made += 1
        return Frame(**known)

    monkeypatch.setattr(cellnet.bank.columns, "Frame", counted)
    bank = Bank.open(tmp_path / "bank")
    assert len(bank.digest) == 64 and warnings_of(bank.frames) == [] and len(held_by_split(bank.frames)) == 3
    again = [frame(number, group=f"w{number // 4}", count=float(number % 7)) for number in range(1990, 2010)]
    assert bank.add(again).added == bank.add(again[:10]).known == 10
    assert 0 < made <= 40, "those that came again, and what they were"
