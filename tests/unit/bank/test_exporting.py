"""What is written out of a bank comes in again as it was."""

from pathlib import Path
from typing import Any

import pytest

from cellnet.bank.bank import Bank
from cellnet.bank.exporting import GROUP, LINEAGE, Form, export
from cellnet.bank.labels import Label
from cellnet.bank.prepare import prepare_all
from cellnet.errors import ConfigError, DataError
from cellnet.images.file import ImageFile, encode_png
from cellnet.readers import LabelledFile, Options, read_source
from tests.factories import discs, noise

FIELDS = ("frame", "lineage", "count", "centres", "group", "batch", "time_h", "pixel_um", "bits")


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    """Frames of two lineages with centres, one with a count alone, one of which nothing is known."""
    bank = Bank.create(tmp_path / "bank")
    files = []
    for number in range(4):
        image_HW, centres_N2 = discs(number + 3, seed=number)
        path = tmp_path / f"P{number % 2}" / "a.b.png"  # the same name in two folders, twice
        path = path if number < 2 else path.with_name(f"{number}.png")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode_png(image_HW.astype("uint16") * 257 if number == 1 else image_HW))
        centres = tuple((x + 0.25, y) for x, y in centres_N2.tolist())
        known: dict[str, Any] = {"lineage": ["SH-SY5Y", "A549"][number % 2], "centres": centres, "count": number + 3.0}
        known |= {"group": f"P1 B0{number}", "batch": "P1", "time_h": 24.5, "pixel_um": 0.65}
        files.append(LabelledFile(image=ImageFile.at(path), **known))
    for number, known in ((8, {"count": 1234.0, "lineage": "A549"}), (9, {})):
        (tmp_path / f"{number}.png").write_bytes(encode_png(noise(64, 64, seed=number)))
        files.append(LabelledFile(image=ImageFile.at(tmp_path / f"{number}.png"), **known))
    bank.add(prepare_all(files, bank.store))
    return bank


def read_again(tmp_path: Path, source: Path, options: Options | None = None) -> Bank:
    again = Bank.create(tmp_path / "again")
    imported = again.add(prepare_all(list(read_source(source, options)), again.store))
    assert imported.set_aside == []
    return again


def facts(bank: Bank, *fields: str) -> list[tuple[Any, ...]]:
    return sorted(
        (tuple(getattr(frame, name) for name in fields) for frame in bank.frames), key=lambda one: str(one[0])
    )


def test_a_manifest_comes_in_again_with_all_that_is_said_by_now(bank: Bank, tmp_path: Path) -> None:
    first, second = bank.frames[0].frame, bank.frames[1].frame
    bank.label([Label(frame=first, lineage="HELA", points=((0.1, 1 / 3), (7, 8))), Label(frame=second, count=99)])
    exported = export(bank, tmp_path / "out", "manifest")
    assert (exported.frames, exported.left_out) == (6, {})
    assert facts(read_again(tmp_path, exported.source), *FIELDS) == facts(bank, *FIELDS)


def test_coco_comes_in_again_with_lineages_and_groups_in_the_names_of_images(bank: Bank, tmp_path: Path) -> None:
    exported = export(bank, tmp_path / "out", "coco")
    assert (exported.frames, exported.left_out) == (4, {"without centres": 2})
    again = read_again(tmp_path, exported.source, Options(lineage_pattern=LINEAGE, group_pattern=GROUP))
    fields = ("frame", "lineage", "count", "centres")
    assert facts(again, *fields) == [one for one in facts(bank, *fields) if one[3] is not None]
    assert sorted(frame.group for frame in again.frames) == [f"P1_B0{number}" for number in range(4)]


def test_folders_come_in_again_with_counts_and_centres(bank: Bank, tmp_path: Path) -> None:
    exported = export(bank, tmp_path / "out", "points")
    fields = ("frame", "lineage", "count", "centres")
    assert exported.frames == 4
    assert facts(read_again(tmp_path, exported.source), *fields) == [
        one for one in facts(bank, *fields) if one[3] is not None
    ]


def test_what_is_unusable_and_what_was_said_later_stay_out(bank: Bank, tmp_path: Path) -> None:
    bank.label([Label(frame=bank.frames[0].frame, unusable="debris")])
    assert export(bank, tmp_path / "out", "manifest").left_out == {"unusable: debris": 1}
    assert export(Bank.open(tmp_path / "bank", as_of=1), tmp_path / "was", "manifest").frames == 6


def test_nothing_is_written_over_and_what_cannot_be_said_is_told(bank: Bank, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is there already; name a folder that is not, or an empty one"):
        export(bank, tmp_path, "manifest")
    bank.label([Label(frame=frame.frame, unusable="focus") for frame in bank.frames[:4]])
    for form, why in (("coco", "4 unusable: focus, 2 without centres"), ("points", "2 without centres")):
        forms: dict[str, Form] = {"coco": "coco", "points": "points"}
        with pytest.raises(DataError, match=f"no frame of .* can be written as {form}: .*{why}"):
            export(bank, tmp_path / "none", forms[form])
    assert not (tmp_path / "none").exists()


def test_names_lead_out_of_no_folder(bank: Bank, tmp_path: Path) -> None:
    lineage = "../../x/y"
    bank.label([Label(frame=frame.frame, lineage=lineage) for frame in bank.frames[:4]])
    for form in ("coco", "points"):
        forms: dict[str, Form] = {"coco": "coco", "points": "points"}
        out = tmp_path / "deep" / form
        export(bank, out, forms[form])
        written = {path for path in tmp_path.rglob("*") if path.is_file() and "bank" not in path.parts}
        assert all(path.is_relative_to(tmp_path / "deep") or path.parent in (tmp_path, tmp_path / "P0", tmp_path / "P1")
                   for path in written)  # fmt: skip
        assert len(list(out.rglob("*.png"))) == 4
