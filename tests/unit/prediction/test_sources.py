"""What is predicted of files, folders, manifests and Harmony exports, and what is known of it before it is read."""

import os
from pathlib import Path

import pytest

from cellnet.errors import ConfigError, DataError
from cellnet.images.wells import Well
from cellnet.prediction.sources import ListedFile, list_files, notes_on_times, notes_on_wells, plate_names
from cellnet.readers.conditions import Condition
from tests.factories import NO_FILES, no_files


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * len(name))
    return folder


def export(folder: Path, plate: str, *, channels: tuple[str, ...] = ("Brightfield",)) -> Path:
    """A Harmony export of two wells and a dye; the second well's plane of the first channel is missing."""
    images = []
    for number, channel in enumerate((*channels, "DAPI"), start=1):
        for column in (3, 4):
            name = f"r02c{column:02d}f01p01-ch{number}.tiff"
            facts = {"URL": name, "Row": 2, "Col": column, "FieldID": 1, "ChannelName": channel}
            facts |= {"ChannelType": "Fluorescence" if channel == "DAPI" else "Brightfield"}
            facts |= {"ImageResolutionX": "5.9E-07"}
            images.append(f"<Image>{''.join(f'<{key}>{value}</{key}>' for key, value in facts.items())}</Image>")
            if (number, column) != (1, 4):
                touch(folder / "Images", name)
    text = f"<Data><Plates><Plate><Name>{plate}</Name></Plate></Plates><Images>{''.join(images)}</Images></Data>"
    (folder / "Images" / "Index.idx.xml").write_text(text)
    return folder


def names(sources: list[ListedFile]) -> list[str]:
    return [Path(source.place).name for source in sources]


def test_a_folder_is_taken_with_those_below_it_and_each_image_once(tmp_path: Path) -> None:
    folder = touch(tmp_path / "in", "b.png", "a/B3.TIF", "a/notes.txt", ".hidden/c.png", "._b.png", "c_G7_1.jpg")
    touch(folder, "__MACOSX/b.png", "@eaDir/b.png/SYNOPHOTO_THUMB_M.jpg", "Thumbs.db")
    skipped: list[str] = []
    found = list_files([str(folder), folder / "b.png"], skipped=skipped)
    assert skipped == [str(folder / "a/notes.txt")], "what systems and programs keep for themselves is no news"
    assert names(found) == ["B3.TIF", "b.png", "c_G7_1.jpg"]
    assert [source.name for source in found] == [str(folder / name) for name in ("a/B3.TIF", "b.png", "c_G7_1.jpg")]
    assert [source.well for source in found] == [Well(2, 3), None, Well(7, 7)]
    assert found[0].pixel_um is None and found[0].size == len("a/B3.TIF")


def test_a_name_is_shown_as_given_and_its_place_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(touch(tmp_path, "in/a.png"))
    [source] = list_files(["in/"])
    assert (source.name, source.place) == ("in/a.png", str(tmp_path / "in/a.png"))


def test_a_name_that_is_no_text_is_shown_and_read(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xe9.png")
    [source] = list_files([touch(tmp_path / "in", name)])
    assert source.name.encode().endswith(rb"\udce9.png") and source.key.encode() == source.name.encode()
    assert source.read().contents == b"x" * len(name)


def test_a_folder_whose_name_is_no_text_names_its_plate_in_text(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xff")
    sources = list_files([touch(folder, "B03.png"), export(tmp_path / "more" / folder.name, "P1")])
    assert set(plate_names(source.folder for source in sources).values()) == {r"\udcff", "P1"}
    assert sources[1].folder == rf"{tmp_path}/more/\udcff/Images/P1"


def test_places_that_are_left_out_are_no_images(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "out/plate.png", "out/plate-P1.png", "out/more/plate.png")
    found = list_files([tmp_path], but={str(tmp_path / "out/plate.png")})
    assert [source.place for source in found] == [
        str(tmp_path / name) for name in ("a.png", "out/more/plate.png", "out/plate-P1.png")
    ]


def test_a_manifest_says_which_images_and_their_pixel_sizes_and_all_else_in_it_is_ignored(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png", "left-out.png")
    (tmp_path / "manifest.csv").write_text("image;count;pixel_um\nb.png;many;0,5\na.png;-3;\n;1;\nc.png;1;\na.png;;x\n")
    found = list_files([tmp_path])
    assert names(found) == ["b.png", "a.png", tmp_path.name, "c.png"]
    assert [source.pixel_um for source in found] == [0.5, None, None, None]
    assert found[2].problem == "the manifest names no image in this row"
    assert list_files([tmp_path / "manifest.csv"]) == found
    with pytest.raises(DataError, match="cannot be read: No such file"):
        found[3].read()


def test_of_exports_the_planes_of_transmitted_light_are_taken_with_well_and_pixel_size(tmp_path: Path) -> None:
    export(tmp_path / "one", "P1")
    export(tmp_path / "two", "P2")
    found = list_files([tmp_path])
    assert names(found) == ["r02c03f01p01-ch1.tiff", "r02c04f01p01-ch1.tiff"] * 2
    assert [source.well for source in found] == [Well(2, 3), Well(2, 4)] * 2
    assert [source.pixel_um for source in found] == pytest.approx([0.59] * 4)
    assert [source.problem for source in found] == [None, "the file is missing"] * 2
    assert list(plate_names(source.folder for source in found).values()) == ["P1", "P2"]


def test_the_channel_of_an_export_can_be_named_and_in_other_files_it_is_looked_for_as_they_are_read(
    tmp_path: Path,
) -> None:
    folder = export(tmp_path / "plate", "P1", channels=("Brightfield", "Phase"))
    with pytest.raises(DataError, match="choose one with --channel: 'Brightfield', 'Phase'"):
        list_files([folder])
    assert names(list_files([folder], channel="Phase")) == ["r02c03f01p01-ch2.tiff", "r02c04f01p01-ch2.tiff"]
    exported = list_files([folder], channel="Phase")
    [other] = list_files([touch(tmp_path / "in", "a.png")], channel="Phase")
    assert [file.image.channel for file in (*exported, other)] == [None, None, "Phase"]


UUID = "62D4A363-7C7E-40D0-8A9E-55EC6681574D"


def metaxpress(folder: Path, *, planes: tuple[str, ...] = ("",)) -> Path:
    """Two wells in two wavelengths, each with its thumbnail."""
    for plane in planes:
        for well in ("B02", "C03"):
            for channel in "12":
                name = f"{plane}assay_{well}_s1_w{channel}"
                touch(folder, f"{name}{UUID}.tif", f"{name}_thumb{UUID}.tif")
    return folder


def test_sites_in_several_channels_are_refused_until_one_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plate = metaxpress(tmp_path / "1334")
    said = (
        rf"/1334 shows its sites in several channels; choose one with --channel: 1 \(2 images, like .*_w1{UUID}.tif\)"
    )
    with pytest.raises(DataError, match=rf"{said}, 2 \(2 images, like "):
        list_files([plate])
    for channel in ("2", "w2", "W02", "ch2"):
        found = list_files([plate], channel=channel)
        assert [file.image.channel for file in found] == [None, None], "of the file itself there is none to choose"
        assert [(name[:15], one.well) for name, one in zip(names(found), found, strict=True)] == [
            ("assay_B02_s1_w2", Well(2, 2)),
            ("assay_C03_s1_w2", Well(3, 3)),
        ]
    assert caplog.messages[-1].startswith("4 thumbnails are left out, like ")
    with pytest.raises(DataError, match="1334 has no channel 'w3'; choose one with --channel: 1 "):
        list_files([plate], channel="w3")
    whole = [str(path) for path in sorted(plate.iterdir())]
    with pytest.raises(DataError, match="in several channels"):
        list_files(whole)
    assert len(list_files([path for path in whole if "_w1" in path])) == 2


def test_only_a_small_copy_of_what_lies_beside_it_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path / "a", "x.tif", "x_thumb.png", "with_thumbnail.tif")
    touch(tmp_path / "b", "x_thumb.png", "y.tif")
    assert names(list_files([tmp_path])) == ["with_thumbnail.tif", "x.tif", "x_thumb.png", "y.tif"]
    assert caplog.messages == [f"1 thumbnail is left out, like {tmp_path}/a/x_thumb.png"]


def test_of_several_channels_the_one_of_transmitted_light_is_taken_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    channels = ("TL-Brightfield - Cy3 wix 2", "DAPI - DAPI")
    touch(tmp_path / "plate", *(f"B - 0{column}(fld 1 wv {name}).tif" for name in channels for column in (3, 4)))
    found = list_files([tmp_path])
    assert names(found) == [f"B - 0{column}(fld 1 wv {channels[0]}).tif" for column in (3, 4)]
    said = f"{channels[0]} is taken, and 2 images of DAPI - DAPI are left out; --channel takes another"
    assert caplog.messages == [f"of several channels, {said}"]
    assert names(list_files([tmp_path], channel="dapi - dapi")) == [
        f"B - 0{column}(fld 1 wv {channels[1]}).tif" for column in (3, 4)
    ]


def test_of_planes_in_names_and_folders_the_middle_one_is_taken_and_folders_of_planes_are_no_plates(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plate = metaxpress(tmp_path / "1334", planes=tuple(f"TimePoint_1/ZStep_{number}/" for number in (1, 2, 10)))
    found = list_files([plate], channel="1")
    assert [Path(source.place).parent.name for source in found] == ["ZStep_2", "ZStep_2"]
    assert {source.folder for source in found} == {str(plate)}
    assert "2 sites come in several planes, of which the middle one is taken; 4 images are left out" in caplog.text
    assert len(list_files([plate], channel="1", page="all")) == 6
    found = list_files([plate], channel="1", page=3)
    assert [Path(source.place).parent.name for source in found] == ["ZStep_10", "ZStep_10"]
    with pytest.raises(DataError, match="is one of 3 planes, so there is no page 4"):
        list_files([plate], channel="1", page=4)
    touch(tmp_path / "harmony", *(f"r01c01f01p0{plane}-ch1sk1fk1fl1.tiff" for plane in (1, 2, 3)))
    assert names(list_files([tmp_path / "harmony"])) == ["r01c01f01p02-ch1sk1fk1fl1.tiff"]


def test_a_manifest_means_the_images_that_an_import_would_take(tmp_path: Path) -> None:
    touch(tmp_path, "plate 1/B03.tif", "plate 2/B03.tif", "plate 2/C04.tif")
    rows = ["image", "plate 1\\b03.TIF", "C04", "B03.tif", "D05.tif", "plate 2/C04.tif"]  # the last once
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    first, by_stem, several, gone = list_files([tmp_path])
    assert [Path(file.place).relative_to(tmp_path).as_posix() for file in (first, by_stem)] == [
        "plate 1/B03.tif", "plate 2/C04.tif"
    ]  # fmt: skip
    assert several.problem == "B03.tif may be plate 1/B03.tif or plate 2/B03.tif; write the folder too"
    assert gone.problem is None and Path(gone.place).name == "D05.tif", "said when it is read"


def test_a_manifest_takes_what_it_lists_whatever_the_names(tmp_path: Path) -> None:
    plate = metaxpress(tmp_path / "1334")
    listed = sorted(path.name for path in plate.iterdir())
    (plate / "manifest.csv").write_text("\n".join(["image", *listed]))
    assert names(list_files([plate])) == listed
    assert {source.well for source in list_files([plate])} == {Well(2, 2), Well(3, 3)}


def test_a_pattern_says_the_wells_and_what_it_does_not_find_is_noted(tmp_path: Path) -> None:
    plate = touch(tmp_path / "P1", "A01_x_C02.png", "A01_x_C03.png", "B02.png")
    found = list_files([plate], well_pattern=r"x_([A-P])(\d\d)")
    assert [source.well for source in found] == [Well(3, 2), Well(3, 3), None]
    assert notes_on_wells(found, r"x_([A-P])(\d\d)") == [
        f"1 name of 3 without a well by --well-pattern, so on no plate: {plate}/B02.png"
    ]
    with pytest.raises(ConfigError, match="finds a well in none of the 3 names"):
        list_files([plate], well_pattern="nothing")
    with pytest.raises(ConfigError, match="a Harmony export tells its wells by itself"):
        list_files([export(tmp_path / "plate", "P2")], well_pattern="nothing")


def test_names_that_leave_their_wells_open_are_noted_once_each_kind(tmp_path: Path) -> None:
    plate = touch(tmp_path / "P1", "A01_B02.png", "A01_B03.png", "HeLa_P12.png", "T05_x_y_z.png", "r05c05.png")
    touch(tmp_path / "P2", *(f"{letter}{column}.png" for letter in "ABG" for column in range(1, 13)), "H9.png")
    found = list_files([tmp_path])
    then = "so they are on no plate; --well-pattern says what the well is"
    assert notes_on_wells(found) == [
        f"2 names could mean two wells, {then}: {plate}/A01_B02.png (A01 or B02)",
        f"1 name may hold a well, or a day, a passage or a cell line, {then}: {plate}/HeLa_P12.png (P12)",
        f"1 name read as the others of the folder; --well-pattern says it otherwise: {tmp_path}/P2/H9.png (H09)",
    ]
    assert notes_on_wells(list_files([touch(tmp_path / "P3", "B02.png", "image.png")])) == []


@pytest.mark.parametrize(
    ("folders", "plates"),
    [
        (["/a/P1/Images", "/a/P2", "/a/P1"], ["P1", "P2", "P1"]),
        (["/may/P1", "/june/P1", "/june/P2"], ["may/P1", "june/P1", "june/P2"]),
        (["/"], [""]),
        ([], []),
    ],
)
def test_a_plate_has_the_name_of_its_folder_and_as_much_of_its_path_as_tells_it_apart(
    folders: list[str], plates: list[str]
) -> None:
    assert plate_names(folders) == dict(zip(folders, plates, strict=True))


def test_a_file_that_changed_and_another_pixel_size_have_another_stamp(tmp_path: Path) -> None:
    folder = touch(tmp_path / "in", "a.png")
    [before], [again] = list_files([folder]), list_files([folder])
    (folder / "a.png").write_bytes(b"other")
    [after] = list_files([folder])
    (folder / "manifest.csv").write_text("image,pixel_um\na.png,0.5\n")
    [measured] = list_files([folder])
    assert before.stamp == again.stamp and len({before.stamp, after.stamp, measured.stamp}) == 3


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    folder = touch(tmp_path / "in", "a.png")
    with (folder / "a.png").open("r+b") as file:
        file.truncate(40 * 10**9)  # of which nothing is on the disk
    [source] = list_files([folder])
    with pytest.raises(DataError, match="so it was not read"):
        source.read()


def test_what_is_no_file_among_the_images_is_named_and_never_waited_for(tmp_path: Path) -> None:
    folder = touch(tmp_path / "in", "good.png")
    no_files(folder)
    said = {}
    for source in list_files([folder]):
        try:
            said[source.image.name] = source.read().header.fault
        except DataError as error:
            said[source.image.name] = str(error)
    assert said.pop("good.png") != ""
    assert said.keys() == NO_FILES.keys()
    assert all(NO_FILES[name] in text for name, text in said.items()), said


@pytest.mark.parametrize(
    ("name", "words"), [("pipe.png", "is a named pipe"), ("circle.png", "is a link that leads in a circle")]
)
def test_what_is_no_file_is_said_of_a_path_too(tmp_path: Path, name: str, words: str) -> None:
    no_files(tmp_path)
    with pytest.raises(DataError, match=f"{name} {words}"):
        list_files([tmp_path / name])


@pytest.mark.parametrize(
    ("given", "said"), [("gone.png", "gone.png does not exist"), ("empty", "no .bmp, .jpeg.* file in .*empty")]
)
def test_what_is_not_there_is_named(tmp_path: Path, given: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=said):
        list_files([tmp_path / given])


def hours(sources: list[ListedFile]) -> dict[str, float | None]:
    return {Path(source.place).name: source.time.hours for source in sources}


def test_times_are_read_from_names_and_what_they_leave_open_is_told(tmp_path: Path) -> None:
    touch(tmp_path / "P1", "V_B3_1_00d06h00m.tif", "V_B3_1_01d00h00m.tif")
    assert hours(list_files([tmp_path])) == {"V_B3_1_00d06h00m.tif": 6.0, "V_B3_1_01d00h00m.tif": 24.0}
    assert notes_on_times(list_files([tmp_path])) == []
    touch(tmp_path / "P2", "B03_t1.tif", "B03_t2.tif", "t1.tif")
    [note] = notes_on_times(list_files([tmp_path]))
    assert note.startswith("2 names hold the number of a frame, which is no hour; --hours-between says")
    assert note.endswith(f": {tmp_path}/P2/B03_t1.tif")
    found = list_files([tmp_path], hours_between=4)
    assert hours(found)["B03_t2.tif"] == 4.0 and notes_on_times(found) == []


def test_folders_that_are_called_after_times_are_one_plate_over_time(tmp_path: Path) -> None:
    touch(tmp_path / "P1", "0h/B03.tif", "24h/B03.tif", "24h/B04.tif")
    found = list_files([tmp_path])
    assert {source.folder for source in found} == {str(tmp_path / "P1")}
    assert [(source.well, source.time.hours) for source in found] == [
        (Well(2, 3), 0),
        (Well(2, 3), 24),
        (Well(2, 4), 24),
    ]
    assert {source.folder for source in list_files([tmp_path / "P1/24h"])} == {str(tmp_path / "P1/24h")}
    touch(tmp_path / "P2", *(f"{time}h/B03_s1_w{channel}.tif" for time in (0, 24) for channel in (1, 2)))
    chosen = list_files([tmp_path / "P2"], channel="w2")
    assert [source.time.hours for source in chosen] == [0, 24]
    assert [source.image.channel for source in chosen] == [None, None], "a file of one channel"


def test_hours_between_frames_that_have_no_numbers_are_refused(tmp_path: Path) -> None:
    folder = touch(tmp_path / "P1", "V_B3_1_00d06h00m.tif", "V_B3_1_01d00h00m.tif")
    with pytest.raises(ConfigError, match=r"--hours-between is for numbers of frames .*V_B3_1_00d06h00m.tif; leave it"):
        list_files([folder], hours_between=2)


def test_a_manifest_tells_times_and_treatments_and_names_do_not_contradict_it(tmp_path: Path) -> None:
    touch(tmp_path, "B03_24h.png", "B03_48h.png", "B04_24h.png", "C05_24h.png")
    rows = "B03_24h.png,0,DMSO,,A549\nB03_48h.png,26;5,DMSO,,\nB04_24h.png,,drug,1 uM,\nC05_24h.png,late,NA,,\n"
    (tmp_path / "manifest.csv").write_text(
        "image;time_h;treatment;dose;lineage\n" + rows.replace(",", ";").replace("26;5", "26,5")
    )
    found = list_files([tmp_path])
    assert hours(found) == {"B03_24h.png": 0, "B03_48h.png": 26.5, "B04_24h.png": None, "C05_24h.png": None}
    assert found[0].condition == Condition(treatment="DMSO", lineage="A549")
    assert found[2].condition == Condition(treatment="drug", dose="1 uM") and found[3].condition == Condition()
    assert [note.partition(",")[0] for note in notes_on_times(found)] == [
        "1 name hold no time",
        "1 name have a time_h in the manifest that is no number of hours",
    ]
    assert not any(source.problem for source in found), "all of them can be predicted"
    (tmp_path / "manifest.csv").write_text("image\nB03_24h.png\nB03_48h.png\n")
    assert hours(list_files([tmp_path])) == {"B03_24h.png": 24, "B03_48h.png": 48}


def series(folder: Path, *, clocks: bool) -> Path:
    """A Harmony export of a well at two time points, of two fields each."""
    images = []
    for point, clock in ((0, "2026-03-29T00:10"), (1, "2026-03-29T07:40")):
        for field in (1, 2):
            name = f"r02c03f{field:02d}p01-ch1sk{point + 1}fk1fl1.tiff"
            facts = {"URL": name, "Row": 2, "Col": 3, "FieldID": field, "TimepointID": point}
            facts |= {"ChannelName": "Brightfield", "ChannelType": "Brightfield"}
            facts |= {"AbsTime": f"{clock}:{field:02d}.5{'+01:00' if point == 0 else '+02:00'}"} if clocks else {}
            images.append(f"<Image>{''.join(f'<{key}>{value}</{key}>' for key, value in facts.items())}</Image>")
            touch(folder / "Images", name)
    (folder / "Images" / "Index.idx.xml").write_text(f"<Data><Plate><Name>P1</Name></Plate>{''.join(images)}</Data>")
    return folder


def test_the_time_points_of_a_harmony_export_are_where_its_clocks_say(tmp_path: Path) -> None:
    found = list_files([series(tmp_path, clocks=True)])
    assert [source.time.hours for source in found] == [0, 6.5, 0, 6.5], "7.5 by the clock, which was put forward"


def test_time_points_without_clocks_are_numbers(tmp_path: Path) -> None:
    found = list_files([series(tmp_path, clocks=False)])
    assert [source.time.hours for source in found] == [None] * 4
    assert "4 names hold the number of a frame" in notes_on_times(found)[0]
    assert [source.time.hours for source in list_files([tmp_path], hours_between=8)] == [0, 8, 0, 8]


def test_a_table_of_wells_tells_what_was_done_to_them(tmp_path: Path) -> None:
    touch(tmp_path / "in", "P1/B03.png", "P1/B04.png", "P2/B03.png", "P2/x.png")
    table = tmp_path / "layout.csv"
    table.write_text("well,treatment,dose,plate,lineage\nB3,DMSO,,,A549\nr02c04,drug,1 uM,,\nB03,drug,5 uM,P2,\n")
    found = list_files([tmp_path / "in"], layout=table)
    assert [source.condition for source in found] == [
        Condition(treatment="DMSO", lineage="A549"), Condition(treatment="drug", dose="1 uM"),
        Condition(treatment="drug", dose="5 uM", lineage="A549"), Condition(),
    ]  # fmt: skip
    table.write_text("well,treatment,plate\nB3,DMSO,P3\n")
    with pytest.raises(DataError, match=r"layout.csv names the plate 'P3', and of it is no image; there are P1, P2"):
        list_files([tmp_path / "in"], layout=table)
