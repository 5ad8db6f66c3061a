"""What a job of predictions keeps in its folder, and what the next one makes of it."""

import contextlib
import csv
import itertools
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import pyarrow.parquet as pq
import pytest

import cellnet.reports.results
from cellnet.errors import ConfigError, DataError
from cellnet.images.file import ImageFile
from cellnet.images.times import NamedTime
from cellnet.images.wells import read_name
from cellnet.prediction.answers import ModelRefs, Prediction
from cellnet.prediction.sources import ListedFile, list_files
from cellnet.readers.conditions import Condition
from cellnet.reports.results import Results, Said, drawn_in
from cellnet.store.folder import FolderStore

SETTINGS = {"models": {"classifier@1": "ab"}, "pixel_um": None, "page": None}


def source(name: str, folder: str = "/P1", **changes: object) -> ListedFile:
    about = {"place": f"{folder}/{name}", "name": name, "folder": folder, "modified": "1", "well": read_name(name).well}
    return ListedFile(image=ImageFile(name, b""), **(about | changes))


def said(one: ListedFile, count: float | None = None, page: str = "", error: str | None = None) -> Prediction:
    if error:
        return Prediction(image=one.name + page, error=error)
    return Prediction(
        image=one.name + page, lineage="3T3", probabilities={"A549": 0.25, "3T3": 0.75}, count=count, tiles=4,
        unfamiliar=False, magnification="assumed", models=ModelRefs(classifier="classifier@1", regressor="counter@2"),
    )  # fmt: skip


def kept(folder: Path, *rows: Said) -> None:
    results = Results.open(str(folder), SETTINGS)
    results.add(rows)
    results.flush()


def done(folder: Path, *sources: ListedFile) -> list[str]:
    """The pictures of a job that ended."""
    results = Results.open(str(folder), SETTINGS)
    results.add([(one, [said(one, 50.0)]) for one in sources])
    return pictures_of(results.finish(sources))


def pictures_of(written: Sequence[str]) -> list[str]:
    return [Path(place).name for place in written if place.endswith(".png")]


def left(folder: Path, *sources: ListedFile) -> dict[str, list[Prediction]]:
    """What the next job has not to do again, by the names of its images."""
    results = Results.open(str(folder), SETTINGS)
    done = results.done(sources)
    return {one.name: results.left(one, done[one.key]) for one in sources if one.key in done}


def test_what_is_done_is_there_for_the_next_job_word_for_word(tmp_path: Path) -> None:
    one, stack, todo = source("a.png"), source("b.tif"), source("c.png")
    kept(tmp_path / "out", (one, [said(one, 3.5)]))
    kept(tmp_path / "out", (stack, [said(stack, 1.0, "#1"), said(stack, 2.0, "#2")]))
    there = left(tmp_path / "out", stack, todo, one)
    assert there == {"a.png": [said(one, 3.5)], "b.tif": [said(stack, 1.0, "#1"), said(stack, 2.0, "#2")]}
    moved = replace(stack, name="in/b.tif")
    assert [row.image for row in left(tmp_path / "out", moved)["in/b.tif"]] == ["in/b.tif#1", "in/b.tif#2"]


def test_what_changed_and_what_failed_is_to_be_done_again(tmp_path: Path) -> None:
    one, bad, stack = source("a.png"), source("b.png"), source("c.tif")
    half = [said(stack, 1.0, "#1"), said(stack, page="#2", error="damaged")]
    kept(tmp_path / "out", (one, [said(one, 3.5)]), (bad, [said(bad, error="damaged")]), (stack, half))
    changed = replace(one, modified="2")
    assert left(tmp_path / "out", changed, bad, stack) == {}
    kept(tmp_path / "out", (changed, [said(one, 4.0)]), (bad, [said(bad, 1.0)]))
    assert left(tmp_path / "out", changed, bad, stack) == {"a.png": [said(one, 4.0)], "b.png": [said(bad, 1.0)]}
    assert left(tmp_path / "out", one) == {}


def test_a_write_that_was_cut_off_is_as_if_it_had_not_begun(tmp_path: Path) -> None:
    one = source("a.png")
    kept(tmp_path / "out", (one, [said(one, 3.5)]))
    [part] = (tmp_path / "out/parts").iterdir()
    (tmp_path / "out/parts/.tmp-x").write_bytes(part.read_bytes()[:99])
    assert list(left(tmp_path / "out", one)) == ["a.png"]
    part.write_bytes(part.read_bytes()[:99])
    with pytest.raises(DataError, match=rf"{part.name} is damaged, .*; give another --out, or --overwrite"):
        Results.open(str(tmp_path / "out"), SETTINGS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": {"classifier@2": "cd"}}, "by classifier@1, not by classifier@2"),
        ({"models": {"classifier@1": "cd"}}, "by classifier@1, not by others of these names"),
        ({"models": {"classifier@1 for A549": "ab"}}, "by classifier@1, not by classifier@1 for A549"),
        ({"pixel_um": 0.5}, "made with no --pixel-um, not with --pixel-um 0.5"),
        ({"page": "middle"}, "made with no --page, not with --page middle"),
    ],
)
def test_predictions_under_other_settings_are_refused_unless_they_may_go(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    one = source("a.png")
    kept(tmp_path / "out", (one, [said(one, 3.5)]))
    with pytest.raises(ConfigError, match=f"out holds predictions {message}; give another --out, or --overwrite"):
        Results.open(str(tmp_path / "out"), SETTINGS | changes)
    assert list(left(tmp_path / "out", one)) == ["a.png"]
    assert Results.open(str(tmp_path / "out"), SETTINGS | changes, overwrite=True).done([one]) == {}
    assert not list((tmp_path / "out/parts").iterdir())


@pytest.mark.parametrize("name", ["predictions.csv", "settings.json"])
def test_files_of_something_else_are_not_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(ConfigError, match="holds files of something else"):
        Results.open(str(tmp_path), SETTINGS)
    assert (tmp_path / name).read_text() == "{}"


def test_the_tables_have_the_rows_of_the_command_in_its_order_with_their_wells(tmp_path: Path) -> None:
    first, second, third = sources = [source("B03.png"), source("=sum.png"), source("no-well.png")]
    other = source("other.png")
    results = Results.open(str(tmp_path), SETTINGS)
    results.add([(third, [said(third, error="-damaged")]), (other, [said(other, 1.0)])])
    results.add([(second, [said(second, 2.0)]), (first, [said(first, 12.0)])])
    written = results.finish(sources)
    names = ["predictions.csv", "predictions.parquet", "predictions_wells.csv"]
    assert written == [f"{tmp_path}/{name}" for name in names]
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["B03.png", "'=sum.png", "no-well.png"]
    assert [row["well"] for row in rows] == ["B03", "", ""]
    assert rows[2]["error"] == "'-damaged" and rows[2]["plate"] == ""
    assert (rows[0]["count"], rows[0]["probability"], rows[0]["row"], rows[0]["column"]) == ("12.0", "0.75", "B", "3")
    table = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    assert [row["image"] for row in table] == ["B03.png", "=sum.png", "no-well.png"]
    assert [row["place"] for row in table] == [one.place for one in sources]
    assert dict(table[0]["probabilities"]) == {"A549": 0.25, "3T3": 0.75} and table[2]["count"] is None


@pytest.mark.slow
def test_a_plate_of_two_known_wells_is_drawn_and_pictures_of_before_go(tmp_path: Path) -> None:
    wells = [source(f"{name}.png", folder=folder) for folder in ("/P1", "/P2") for name in ("B03", "C11")]
    lonely = source("D5.png", folder="/P3")
    kept(tmp_path, *((one, [said(one, 50.0)]) for one in (*wells, lonely)))
    results = Results.open(str(tmp_path), SETTINGS)
    assert pictures_of(results.finish([*wells, lonely])) == ["plate-P1.png", "plate-P2.png"]
    image_HW3 = cv2.imread(str(tmp_path / "plate-P2.png")).astype(int)
    assert (image_HW3[..., 0] - image_HW3[..., 2] > 60).sum() > 1000, "its wells are blue"
    assert pictures_of(results.finish(wells[:2])) == ["plate.png"]
    assert sorted(path.name for path in tmp_path.glob("plate*")) == ["plate.png"]


def test_wells_have_a_table_that_tells_what_was_left_out(tmp_path: Path) -> None:
    fields = {
        "B03_f1": said(source("B03_f1.png"), 10.0),
        "B03_f2": said(source("B03_f2.png"), 900.0).model_copy(update={"quality": ["out_of_focus", "saturated"]}),
        "B03_f3": said(source("B03_f3.png"), 0.0).model_copy(update={"quality": ["empty"]}),
        "B02_f1": said(source("B02_f1.png"), 7.0).model_copy(update={"quality": ["saturated"]}),
        "C04_f1": said(source("C04_f1.png"), error="damaged"),
    }
    sources = [source(f"{name}.png") for name in fields]
    results = Results.open(str(tmp_path), SETTINGS)
    results.add([(one, [fields[one.name.removesuffix(".png")]]) for one in sources])
    assert f"{tmp_path}/predictions_wells.csv" in results.finish(sources)
    with (tmp_path / "predictions_wells.csv").open(newline="", encoding="utf-8") as file:
        rows = [list(row.values()) for row in csv.DictReader(file)]
    plate = rows[0][0]
    assert rows == [
        [plate, "B02", "B", "2", "", "0", "1", "0", "0", "", "", "", "no value: 1 left out (1 saturated)"],
        [
            plate,
            "B03",
            "B",
            "3",
            "",
            "2",
            "1",
            "0",
            "1",
            "5.0",
            "3T3",
            "0.75",
            "1 left out (1 out of focus, 1 saturated)",
        ],
        [plate, "C04", "C", "4", "", "0", "0", "1", "0", "", "", "", "no value: no image could be used"],
    ]
    left_again = left(tmp_path, *sources)
    assert left_again["B03_f2.png"][0].quality == ["out_of_focus", "saturated"], "as it was said"
    assert results.finish([source("nowhere.png")]) and not (tmp_path / "predictions_wells.csv").exists()


@pytest.mark.usefixtures("quickly_drawn")
def test_a_plate_of_a_softer_microscope_is_told_as_one_and_its_wells_keep_their_values(tmp_path: Path) -> None:
    soft = [source(f"A{n:02}.png") for n in range(1, 13)]
    sharp = [source(f"A{n:02}.png", folder="/P2") for n in range(1, 13)]
    flagged = {"quality": ["out_of_focus"]}
    focus = {one.place: 0.55 + 0.01 * n for n, one in enumerate(soft)} | {one.place: 1.0 for one in sharp}
    focus[soft[0].place] = focus[sharp[0].place] = 0.2  # far out of focus, even beside the others of its plate
    results = Results.open(str(tmp_path), SETTINGS)
    for one in (*soft, *sharp):
        told = flagged if focus[one.place] < 0.6 else {"quality": []}
        results.add([(one, [said(one, 10.0).model_copy(update=told | {"focus": focus[one.place]})])])
    results.finish([*soft, *sharp])
    with (tmp_path / "predictions_wells.csv").open(newline="", encoding="utf-8") as file:
        notes = {(row["plate"], row["well"]): (row["count"], row["note"]) for row in csv.DictReader(file)}
    of_plate = "plate softer than what the model learned from"
    assert notes["P1", "A01"] == ("", f"no value: 1 left out (1 out of focus); {of_plate}")
    assert {notes["P1", f"A{n:02}"] for n in range(2, 13)} == {("10.0", of_plate)}
    assert notes["P2", "A01"] == ("", "no value: 1 left out (1 out of focus)")
    assert {notes["P2", f"A{n:02}"] for n in range(2, 13)} == {("10.0", "")}
    assert (tmp_path / "plate-P1.png").read_text() == "P1softer than what the model learned from"
    assert (tmp_path / "plate-P2.png").read_text() == "P2"
    quality = pq.read_table(tmp_path / "predictions.parquet").column("quality").to_pylist()
    assert [place for place, flags in enumerate(quality) if flags] == [0, 12]
    assert left(tmp_path, *soft)["A02.png"][0].quality == ["out_of_focus"], "as it was said"


@pytest.fixture
def quickly_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cellnet.reports.results, "draw_plate", lambda wells, *, name, note: f"{name}{note}".encode())


def wells_of(*folders: str) -> list[ListedFile]:
    return [source(f"{name}.png", folder=folder) for folder in folders for name in ("B03", "C11")]


@pytest.mark.usefixtures("quickly_drawn")
def test_images_that_are_called_like_pictures_of_plates_are_images_and_stay(tmp_path: Path) -> None:
    own = ("plate-1_A01.png", "plate-1_A02.png", "plate.png")
    (tmp_path / own[0]).write_bytes(b"image")
    assert done(tmp_path, *wells_of("/P1")) == ["plate.png"]
    assert drawn_in(f"{tmp_path}/") == {f"{tmp_path}/plate.png"}
    for name in own[1:]:
        (tmp_path / "later" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "later" / name).write_bytes(b"image")
    (tmp_path / own[1]).write_bytes(b"image")
    found = list_files([tmp_path], but=drawn_in(tmp_path))
    assert [Path(one.place).relative_to(tmp_path).as_posix() for one in found] == [
        *("later/plate-1_A02.png", "later/plate.png", "plate-1_A01.png", "plate-1_A02.png")
    ]
    assert done(tmp_path) == [] and not (tmp_path / "plate.png").exists()
    (tmp_path / own[2]).write_bytes(b"image")
    assert done(tmp_path, *wells_of("/P1")) == ["plate-2.png"]
    Results.open(str(tmp_path), SETTINGS, overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.png")} == dict.fromkeys(own, b"image")


@pytest.mark.usefixtures("quickly_drawn")
def test_wherever_a_job_is_killed_its_pictures_are_known_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = 0

    def counted(change: Callable[..., None]) -> Callable[..., None]:
        def run(*arguments: object) -> None:
            nonlocal changes
            changes -= 1
            if changes == 0:
                raise KeyboardInterrupt
            change(*arguments)

        return run

    for name in ("put", "delete"):
        monkeypatch.setattr(FolderStore, name, counted(getattr(FolderStore, name)))
    for number in itertools.count(1):
        out = tmp_path / str(number)
        done(out, *wells_of("/P1", "/P2"))
        (out / "plate-own.png").write_bytes(b"image")
        changes = number
        with contextlib.suppress(KeyboardInterrupt):
            done(out, *wells_of("/P3"))
        ended, changes = changes > 0, 0
        known = {Path(place).name for place in drawn_in(out)}
        assert {path.name for path in out.glob("*.png")} - known == {"plate-own.png"}
        if ended:
            break
    assert number > 8 and known == {"plate.png"}


@pytest.mark.usefixtures("quickly_drawn")
def test_the_pictures_of_a_job_beside_this_one_are_known_too(tmp_path: Path) -> None:
    beside = Results.open(str(tmp_path), SETTINGS)
    assert done(tmp_path, *wells_of("/P1", "/P2")) == ["plate-P1.png", "plate-P2.png"]
    beside.finish([])
    assert list(tmp_path.glob("*.png")) == []


@pytest.mark.parametrize("pictures", [None, 5, ["../x.png", "a.png", 5, "plate-a/b.png"]])
def test_settings_without_a_list_of_pictures_know_of_none(tmp_path: Path, pictures: object) -> None:
    there = SETTINGS if pictures is None else {**SETTINGS, "pictures": pictures}
    (tmp_path / "settings.json").write_text(json.dumps(there))
    (tmp_path / "plate.png").write_bytes(b"of before")
    assert drawn_in(tmp_path) == set()
    assert Results.open(str(tmp_path), SETTINGS, overwrite=True).finish([]) == [
        f"{tmp_path}/predictions.csv",
        f"{tmp_path}/predictions.parquet",
    ]
    assert (tmp_path / "plate.png").read_bytes() == b"of before"


@pytest.mark.usefixtures("quickly_drawn")
def test_every_plate_has_a_picture_of_its_own(tmp_path: Path) -> None:
    assert done(tmp_path, *wells_of("/x_y-2", "/x y", "/x_y")) == [
        "plate-x_y-2.png",
        "plate-x_y.png",
        "plate-x_y-3.png",
    ]
    plates = {path.name: path.read_text() for path in tmp_path.glob("*.png")}
    assert plates == {"plate-x_y-2.png": "x_y-2", "plate-x_y.png": "x y", "plate-x_y-3.png": "x_y"}


@pytest.mark.usefixtures("quickly_drawn")
def test_a_folder_whose_name_is_no_text_has_tables_and_a_picture(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    for name in ("B03.png", "C11.png"):
        (folder / name).write_bytes(b"image")
    assert done(tmp_path / "out", *list_files([folder])) == ["plate.png"]
    assert pq.read_table(tmp_path / "out/predictions.parquet").column("plate").to_pylist() == [r"\udcff"] * 2


def over_time(folder: str = "/P1", times: int = 3) -> list[ListedFile]:
    """Two wells, a day apart."""
    return [
        source(f"{well}_{number}.png", folder=folder, well=read_name(well).well, time=NamedTime(24.0 * number), **known)
        for well, known in (("B03", {"condition": Condition(treatment="DMSO")}), ("C11", {}))
        for number in range(times)
    ]


def grown(folder: Path, *sources: ListedFile, control: str | None = None) -> Results:
    results = Results.open(str(folder), SETTINGS)
    results.add([(one, [said(one, 10 * 2 ** ((one.time.hours or 0) / 24))]) for one in sources])
    results.finish(sources, control=control)
    return results


def rows_in(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_plates_over_time_have_tables_of_growth_a_page_and_a_picture_of_their_last_time(tmp_path: Path) -> None:
    drawn = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            cellnet.reports.results, "draw_plate", lambda wells, *, name, note: drawn.update({name: wells}) or b""
        )
        results = grown(tmp_path, *over_time(), control="DMSO")
    assert {well.name: one.count for well, one in drawn["P1 at 48 h"].items()} == {"B03": 40.0, "C11": 40.0}
    counts, rates = rows_in(tmp_path / "growth.csv"), rows_in(tmp_path / "doubling.csv")
    assert [(row["well"], row["time_h"], row["count"]) for row in counts[:3]] == [
        ("B03", "0.0", "10.0"), ("B03", "24.0", "20.0"), ("B03", "48.0", "40.0"),
    ]  # fmt: skip
    assert {(row["lineage"], row["doubling_h"]) for row in rates} == {("3T3", "24.0")}
    of = [("B03", "DMSO"), ("C11", ""), ("", ""), ("", "DMSO")]
    assert [(row["well"], row["treatment"]) for row in rates] == of
    assert "2 wells over time" in (tmp_path / "growth.html").read_text()
    assert results.series.lines == [
        "3T3: doubles in 24 h (24–24); 1 well, 1.00 (1.00 to 1.00) of the rate of DMSO",
        "3T3, DMSO: doubles in 24 h (24–24); 1 well",
    ]
    rows = rows_in(tmp_path / "predictions.csv")
    assert [(row["time_h"], row["treatment"], row["known_lineage"]) for row in rows[2:4]] == [
        ("48.0", "DMSO", ""),
        ("0.0", "", ""),
    ]


def test_wells_that_were_recorded_once_each_are_all_in_the_picture(tmp_path: Path) -> None:
    drawn = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            cellnet.reports.results, "draw_plate", lambda wells, *, name, note: drawn.update({name: wells}) or b""
        )
        grown(tmp_path, *over_time()[:1], *over_time()[-1:])
    assert {well.name for well in drawn["P1"]} == {"B03", "C11"} and not (tmp_path / "growth.csv").exists()


@pytest.mark.usefixtures("quickly_drawn")
def test_tables_of_growth_go_where_there_is_none_and_those_of_the_user_stay(tmp_path: Path) -> None:
    (tmp_path / "growth.csv").write_text("mine")
    grown(tmp_path, *over_time())
    assert (tmp_path / "growth.csv").read_text() == "mine" and rows_in(tmp_path / "growth-2.csv")
    assert rows_in(tmp_path / "doubling.csv") and (tmp_path / "growth.html").is_file()
    grown(tmp_path, *over_time())
    assert sorted(path.name for path in tmp_path.glob("growth*")) == ["growth-2.csv", "growth.csv", "growth.html"]
    grown(tmp_path, *over_time(times=1))
    assert sorted(path.name for path in tmp_path.iterdir() if path.name[0] in "dg") == ["growth.csv"]


def test_the_csv_rounds_and_the_parquet_does_not(tmp_path: Path) -> None:
    one = source("a.png")
    results = Results.open(str(tmp_path), SETTINGS)
    results.add([(one, [said(one, 1234.5678901)])])
    results.finish([one])
    line = (tmp_path / "predictions.csv").read_text().splitlines()[1]
    assert line.startswith('"a.png","3T3",0.75,1234.57,,,,False,,,,,,4,"assumed",')
    assert pq.read_table(tmp_path / "predictions.parquet").column("count").to_pylist() == [1234.5678901]
