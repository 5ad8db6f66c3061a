"""Manifests and folders: what is understood, and what is said of the rest."""

import os
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from cellnet.bank.prepare import prepare
from cellnet.errors import DataError
from cellnet.images.file import ImageFile
from cellnet.readers import LabelledFile, Options, read_csv, read_source, tables
from cellnet.store.folder import FolderStore
from tests.factories import NO_FILES, even_png, no_files

HEADER = "image,lineage,count,group\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with the files a.png and b.png."""
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"pixels are read later")
    return tmp_path


def read(source: Path, manifest: str, points: str | None = None, encoding: str = "utf-8") -> list[LabelledFile]:
    (source / "manifest.csv").write_bytes(manifest.encode(encoding))
    if points is not None:
        (source / "points.csv").write_text(points)
    return read_source(source).files


def test_a_row_is_a_frame_and_an_empty_cell_is_not_known(source: Path) -> None:
    frames = read(source, HEADER + "a.png,A549,12,B7\nb.png,,,\n")
    assert frames == [
        LabelledFile(image=ImageFile.at(source / "a.png"), lineage="A549", count=12.0, group="B7"),
        LabelledFile(image=ImageFile.at(source / "b.png")),
    ]


def test_the_manifest_file_may_be_named_itself(source: Path) -> None:
    table = source / "plate.csv"
    table.write_text(HEADER + "a.png,A549,12,B7\n")
    assert read_source(table)[0].image == ImageFile.at(source / "a.png")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_of_excel_is_no_part_of_a_name(source: Path, encoding: str) -> None:
    (frame,) = read(source, HEADER + " a.png , Zellinie Ü ,1,\r\n", encoding=encoding)
    assert (frame.problem, frame.lineage) == (None, "Zellinie Ü")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_tables_of_an_excel_that_writes_decimal_commas_are_read(source: Path, separator: str) -> None:
    header = "image,lineage,count,group,pixel_um\n"
    rows = "a.png,3T3DL1,2,5,0.65\nb.png,,12D5,,0D65\n".replace(",", separator).replace("D", ",")
    points = "image,x,y\na.png,1D5,2\na.png,3,-4D25\n".replace(",", separator).replace("D", ",")
    first, second = read(source, header.replace(",", separator) + rows, points, encoding="utf-8-sig")
    assert (first.lineage, first.count, first.group, first.pixel_um) == ("3T3,L1", 2, "5", 0.65)
    assert first.centres == ((1.5, 2), (3, -4.25))
    assert (second.problem, second.lineage, second.count, second.pixel_um) == (None, None, 12.5, 0.65)


def test_missing_columns_are_named(source: Path) -> None:
    with pytest.raises(
        DataError, match=r"has no column count, group; it has image, lineage and needs image,lineage,count,group"
    ):
        read(source, "image,lineage\na.png,A549\n")


@pytest.mark.parametrize(
    ("header", "hint"),
    [
        ("Image,Lineage,Cells,Group", "; rename cells to count"),
        ("File name,Cell line,count,well", "; rename file name to image, cell line to lineage, well to group"),
        ("image,lineage,n,number,group", "; rename number to count"),
        ("image,lineage,colour,group", "needs image,lineage,count,group"),
    ],
)
def test_a_column_of_another_name_is_recognized(source: Path, header: str, hint: str) -> None:
    with pytest.raises(DataError) as refusal:
        read(source, f"{header}\na.png,A549,1,g\n")
    assert str(refusal.value).endswith(hint)


def test_names_of_columns_may_have_blanks_and_capitals(source: Path) -> None:
    [frame, *_] = read(source, "IMAGE , Lineage,Count,group,Pixel um,Time-h\na.png,A549,3,g,0.5,12\n")
    assert (frame.count, frame.pixel_um, frame.time_h) == (3, 0.5, 12)


@pytest.mark.parametrize("manifest", ["", HEADER])
def test_a_manifest_without_rows_is_refused(source: Path, manifest: str) -> None:
    with pytest.raises(DataError, match=r"manifest.csv has"):
        read(source, manifest)


@pytest.mark.parametrize(
    ("name", "encoding"),
    [("Клетка", "cp1251"), ("Zürich", "mac-roman"), ("細胞", "shift-jis"), ("żółć", "cp1250"), ("Œuvre", "cp1252")],
)
def test_a_manifest_of_an_encoding_that_nobody_can_tell_is_refused(source: Path, name: str, encoding: str) -> None:
    with pytest.raises(DataError, match=r"cannot read .* as a CSV table: it is not UTF-8; save it as CSV UTF-8"):
        read(source, f"{HEADER}{name}.png,,,", encoding=encoding)
    (source / "manifest.csv").write_bytes((HEADER + "Zürich.png,,,\n").encode() + (HEADER + "ü").encode("latin-1"))
    with pytest.raises(DataError, match="it is not UTF-8"):
        read_source(source)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("c.png,A549,1,", "the file is missing"),
        (f"{'c' * 300}.png,A549,1,", "the file is missing"),
        (",A549,1,", "the manifest names no image in this row"),
        ("a.png,A549,many,", "the count 'many' is not a number of cells"),
        ("a.png,A549,-1,", "the count '-1' is not a number of cells"),
        ("a.png,A549,inf,", "the count 'inf' is not a number of cells"),
    ],
)
def test_a_bad_row_is_kept_with_its_problem_and_the_others_are_read(source: Path, row: str, problem: str) -> None:
    bad, good = read(source, HEADER + row + "\nb.png,A549,3,\n")
    assert bad.problem == problem
    assert (good.problem, good.count) == (None, 3.0)


@pytest.mark.parametrize("um", ["wide", "0", "-0.5"])
def test_a_bad_pixel_size_is_a_problem_and_an_empty_one_is_not(source: Path, um: str) -> None:
    header = "image,lineage,count,group,pixel_um,operator\n"
    (source / "c.png").touch()
    bad, good, unknown = read(source, f"{header}a.png,,,,{um},me\nb.png,,,,0.65,me\nc.png,,,,,\n")
    assert bad.problem == f"the pixel size {um!r} is not a number of micrometres"
    assert [(frame.problem, frame.pixel_um) for frame in (good, unknown)] == [(None, 0.65), (None, None)]


def test_batch_and_hours_since_seeding_may_be_told(source: Path) -> None:
    header = "image,lineage,count,group,batch,time_h\n"
    told, neither = read(source, f"{header}a.png,,,B7,P1 May,0\nb.png,,,B8,,\n")
    assert (told.batch, told.time_h, told.problem) == ("P1 May", 0.0, None)
    assert neither == LabelledFile(image=ImageFile.at(source / "b.png"), group="B8")
    comma, _ = read(source, f"{header}a.png,,,B7,P1,12D5\nb.png,,,,,\n".replace(",", ";").replace("D", ","))
    assert (comma.batch, comma.time_h) == ("P1", 12.5)


@pytest.mark.parametrize("hours", ["two days", "-1", "inf"])
def test_hours_that_are_none_are_named_by_file_line_and_value(source: Path, hours: str) -> None:
    good, bad = read(source, f"image,lineage,count,group,time_h\na.png,,,,2\nb.png,,,,{hours}\n")
    assert good.problem is None
    assert bad.problem == (
        f"{source / 'manifest.csv'} line 3: the time {hours!r} is not a number of hours since seeding"
    )


def test_points_give_centres_and_their_number_the_count(source: Path) -> None:
    points = "image,x,y\na.png,1,2\na.png,3.5,4\n"
    counted, none = read(source, HEADER + "a.png,,,\nb.png,,0,\n", points)
    assert (counted.count, counted.centres) == (2.0, ((1.0, 2.0), (3.5, 4.0)))
    assert (none.count, none.centres) == (0.0, ())


def test_an_image_without_points_keeps_its_count_and_has_no_centres(source: Path) -> None:
    frame = read(source, HEADER + "a.png,,7,\nb.png,,1,\n", "image,x,y\nb.png,1,2\n")[0]
    assert (frame.count, frame.centres, frame.problem) == (7.0, None, None)


@pytest.mark.parametrize(
    ("count", "problem"),
    [("3", "the count is 3, but points.csv has 1 points"), ("abc", "the count 'abc' is not a number of cells")],
)
def test_a_count_that_its_points_contradict_is_a_problem(source: Path, count: str, problem: str) -> None:
    assert read(source, f"{HEADER}a.png,,{count},\n", "image,x,y\na.png,1,2\n")[0].problem == problem


def test_a_bad_point_is_named_by_its_line(source: Path) -> None:
    with pytest.raises(DataError, match=r"points.csv line 3: x and y are pixels, not '1.5' and ''"):
        read(source, HEADER + "a.png,,,\n", 'image,x,y\na.png,1,2\na.png,"1,5",\n')


def test_a_folder_names_the_lineage_of_its_images(tmp_path: Path) -> None:
    for name in ("THP1/2.PNG", "A549/1.tif", "A549/notes.txt", "loose.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert read_source(tmp_path).files == [
        LabelledFile(image=ImageFile.at(tmp_path / "A549/1.tif"), lineage="A549"),
        LabelledFile(image=ImageFile.at(tmp_path / "THP1/2.PNG"), lineage="THP1"),
    ]


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_text("x")])
def test_a_source_of_no_known_kind_says_what_to_give(tmp_path: Path, make: object) -> None:
    make(tmp_path / "source")
    with pytest.raises(DataError, match=r"LINEAGE/\*\.png"):
        read_source(tmp_path / "source")


def test_a_folder_of_lineages_may_have_counts(tmp_path: Path) -> None:
    for name in ("A549/a.png", "A549/b.png", "THP1/a.png", "THP1/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "counts.csv").write_text("image,count\nA549/a.png,3\nTHP1/a.png,many\nc.png, 7 \n")
    frames = {f"{frame.lineage}/{frame.image.name}": frame for frame in read_source(tmp_path)}
    assert {name: frame.count for name, frame in frames.items()} == {
        "A549/a.png": 3,
        "A549/b.png": None,
        "THP1/a.png": None,
        "THP1/c.png": 7,
    }
    assert frames["THP1/a.png"].problem == "the count 'many' is not a number of cells, in counts.csv"
    (tmp_path / "counts.csv").write_text("image;count\nA549/a.png;3,5\n")
    assert read_source(tmp_path)[0].count == 3.5


def write_stack(path: Path, pages: int) -> None:
    planes = [
        PIL.Image.fromarray(np.random.default_rng(page).integers(0, 255, (9, 9), np.uint8)) for page in range(pages)
    ]
    planes[0].save(path, save_all=True, append_images=planes[1:])


def test_the_pages_of_a_file_are_frames_of_one_group(tmp_path: Path) -> None:
    (tmp_path / "A549").mkdir()
    write_stack(tmp_path / "A549" / "series.tif", 3)
    write_stack(tmp_path / "A549" / "single.tif", 1)
    series, single = str(tmp_path / "A549" / "series.tif"), tmp_path / "A549" / "single.tif"
    frames = read_source(tmp_path, Options(page="all"))
    assert [(frame.image.name, frame.image.page) for frame in frames] == [
        ("series.tif", 1), ("series.tif", 2), ("series.tif", 3), ("single.tif", None)
    ]  # fmt: skip
    assert {frame.group for frame in frames[:3]} == {series}
    assert frames[3] == LabelledFile(image=ImageFile.at(single), lineage="A549")
    assert [frame.image.page for frame in read_source(tmp_path, Options(page="middle"))] == [2, None]


def test_a_page_that_is_not_there_or_shares_a_count_is_set_aside(source: Path) -> None:
    write_stack(source / "a.tif", 2)
    (source / "manifest.csv").write_text(HEADER + "a.tif,A549,12,B7\nb.png,A549,3,B7\nmissing.png,,,\n")
    problems = [frame.problem or "" for frame in read_source(source, Options(page="all"))]
    assert "holds 2 pages; choose one of them" in problems[0] and problems[1] == "" and "missing" in problems[2]
    assert read_source(source, Options(page=3))[0].problem == "holds 2 pages, so there is no page 3"
    (chosen, _, _) = read_source(source, Options(page=2))
    assert (chosen.image.page, chosen.count, chosen.group, chosen.problem) == (2, 12.0, "B7", None)


@pytest.mark.parametrize("name", ["manifest.csv", "points.csv"])
def test_a_table_by_the_gigabyte_is_refused_before_it_is_read(source: Path, name: str) -> None:
    read(source, HEADER + "a.png,A549,1,g\n", "image,x,y\na.png,1,2\n")
    os.truncate(source / name, tables.MAX_BYTES + 1)  # a hole, which takes no room
    with pytest.raises(DataError, match=rf"{name} is over 250 MB; split the table"):
        read_source(source)


def test_what_is_no_file_among_the_images_is_set_aside_and_the_rest_is_read(tmp_path: Path) -> None:
    lineage = tmp_path / "in/A549"
    lineage.mkdir(parents=True)
    (lineage / "good.png").write_bytes(even_png())
    no_files(lineage)
    found = read_source(tmp_path / "in")
    frames = [prepare(file, FolderStore(tmp_path / "bank")) for file in found]
    said = {Path(frame.source).name: frame.set_aside for frame in frames}
    said |= {Path(item.what).name: item.why for item in found.unused}
    links = {"circle.png", "gone.png", "again"}
    assert said.pop("good.png") is None
    assert said.keys() == NO_FILES.keys() | {"again"}
    assert all(NO_FILES[name] in said[name] for name in NO_FILES.keys() - links), said
    assert [said[name] for name in sorted(links)] == ["the same folder as another one", *["it leads to no file"] * 2]


@pytest.mark.parametrize("suffix", [".csv", ".txt", ".json", ".xml", ".roi", ".zip", ".gif", ".npy"])
@pytest.mark.parametrize("folder", ["in", "in/A549"])
def test_a_pipe_that_is_called_like_a_table_or_like_labels_is_never_waited_for(
    tmp_path: Path, suffix: str, folder: str
) -> None:
    (tmp_path / "in/A549").mkdir(parents=True)
    (tmp_path / "in/A549/good.png").write_bytes(even_png())
    os.mkfifo(tmp_path / folder / f"good{suffix}")
    os.mkfifo(tmp_path / folder / f"PlateResults{suffix}")
    assert [file.image.name for file in read_source(tmp_path / "in")] == ["good.png"]


@pytest.mark.parametrize(
    ("name", "words"), [("pipe.png", "is a named pipe"), ("circle.png", "is a link that leads in a circle")]
)
def test_a_source_that_is_no_file_is_named_and_never_waited_for(tmp_path: Path, name: str, words: str) -> None:
    no_files(tmp_path)
    with pytest.raises(DataError, match=f"{name} {words}"):
        read_source(tmp_path / name)


def test_a_table_that_is_a_pipe_is_not_waited_for(source: Path) -> None:
    os.mkfifo(source / "pipe.csv")
    with pytest.raises(DataError, match=r"cannot read .*pipe.csv as a CSV table: it is a named pipe"):
        read_csv(source / "pipe.csv", ("image",))


def test_a_file_of_40_gb_of_which_nothing_is_on_the_disk_is_set_aside(tmp_path: Path) -> None:
    for name, start in (
        ("a.png", even_png()),
        ("b.jpg", b"\xff\xd8\xff"),
        ("c.tif", b"II*\0\x08\0\0\0"),
        ("d.bmp", b"BM"),
    ):
        with (tmp_path / name).open("wb") as file:
            file.write(start)
            file.truncate(40 * 10**9)
        frame = prepare(LabelledFile(image=ImageFile.at(tmp_path / name)), FolderStore(tmp_path / "bank"))
        assert frame.set_aside


def test_a_row_holds_no_empty_cells_however_many_columns_the_header_has(source: Path) -> None:
    columns = [f"c{number}" for number in range(1000)]
    (source / "wide.csv").write_text(f"image,{','.join(columns)}\n" + "a.png,7\nb.png,,8\n")
    one, other = read_csv(source / "wide.csv", ("image",))
    assert (one, other) == ({"image": "a.png", "c0": "7"}, {"image": "b.png", "c1": "8"})
    assert one["c1"] == "" and list(one.columns) == ["image", *columns]


@pytest.mark.parametrize("name", [f"{'d/' * 3000}x.png", f"{'../' * 1500}x.png", f"{'x' * 5000}.png"])
def test_a_name_that_no_file_can_have_is_missing(source: Path, name: str) -> None:
    known, missing = read(source, HEADER + f"a.png,A549,12,B7\n{name},A549,12,B7\n")
    assert (known.problem, missing.problem) == (None, "the file is missing")


@pytest.mark.parametrize("header", ['"im\na\x1b[2J",count', '"a\nb","a\nb",image'])
def test_a_refusal_of_a_header_is_one_line_without_what_commands_a_terminal(source: Path, header: str) -> None:
    (source / "odd.csv").write_text(f"{header}\n1,2\n")
    with pytest.raises(DataError) as refused:
        read_csv(source / "odd.csv", ("image",))
    assert str(refused.value).isprintable()
