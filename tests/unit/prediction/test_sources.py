"""What is predicted of files, folders, manifests and Harmony exports, and what is known of it before it is read."""

import os
from pathlib import Path

import pytest

import cellnet.prediction.sources
from cellnet.errors import DataError
from cellnet.images.wells import Well
from cellnet.prediction.sources import ListedFile, list_files, plate_names


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
    found = list_files([str(folder), folder / "b.png"])
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


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [source] = list_files([touch(tmp_path / "in", "a.png")])
    monkeypatch.setattr(cellnet.prediction.sources, "MOST_BYTES", 4)
    with pytest.raises(DataError, match="so it was not read"):
        source.read()


@pytest.mark.parametrize(
    ("given", "said"), [("gone.png", "gone.png does not exist"), ("empty", "no .bmp, .jpeg.* file in .*empty")]
)
def test_what_is_not_there_is_named(tmp_path: Path, given: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=said):
        list_files([tmp_path / given])
