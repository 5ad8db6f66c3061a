"""Cells that were marked in ImageJ, Fiji, napari, QuPath or CellProfiler, beside the images."""

import os
import re
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import roifile

from cellnet.bank.bank import Bank
from cellnet.bank.prepare import prepare
from cellnet.errors import DataError
from cellnet.images.file import encode_png
from cellnet.readers import LabelledFile, Options, Source, imagej, read_source
from tests import factories

CELLS = ((10, 20), (30, 40), (55, 12))
CELLPROFILER = "ImageNumber,FileName_BF,Location_Center_X,Location_Center_Y"
MARKER = "<Marker><MarkerX>{}</MarkerX><MarkerY>{}</MarkerY><MarkerZ>{}</MarkerZ></Marker>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images of 80×60 pixels, as Fiji had them open."""
    (tmp_path / "in" / "A549").mkdir(parents=True)
    for seed, name in enumerate(("a.png", "b.png")):
        (tmp_path / "in" / "A549" / name).write_bytes(encode_png(factories.noise(60, 80, seed=seed)))
    return tmp_path / "in"


def cell_counter(path: Path, image: str, *, plane: int = 1, **types: tuple[tuple[int, int], ...]) -> None:
    """As Cell Counter writes it: every type, also those without markers, and the image's name as it is."""
    kinds = "".join(
        f"     <Marker_Type>\r\n         <Type>{number}</Type>\r\n         <Name>{name}</Name>\r\n"
        + "".join(MARKER.format(x, y, plane) for x, y in points)
        + "     </Marker_Type>\r\n"
        for number, (name, points) in enumerate(types.items(), start=1)
    )
    path.write_bytes(
        '<?xml version="1.0" encoding="UTF-8"?>\r\n<CellCounter_Marker_File>\r\n <Image_Properties>\r\n'
        f"     <Image_Filename>{image}</Image_Filename>\r\n     <X_Calibration>0.5</X_Calibration>\r\n"
        "     <Calibration_Unit>micron</Calibration_Unit>\r\n </Image_Properties>\r\n <Marker_Data>\r\n"
        f"     <Current_Type>0</Current_Type>\r\n{kinds} </Marker_Data>\r\n</CellCounter_Marker_File>\r\n".encode()
    )


def points_roi(*points: tuple[float, float], counters: list[int] | None = None) -> roifile.ImagejRoi:
    roi = roifile.ImagejRoi.frompoints(np.array(points))
    roi.roitype = roifile.ROI_TYPE.POINT
    if counters:
        roi.counters = np.array(counters, np.uint8)
    return roi


def area_roi(kind: roifile.ROI_TYPE, left: int, top: int, right: int, bottom: int) -> roifile.ImagejRoi:
    roi = roifile.ImagejRoi()
    roi.roitype, roi.left, roi.top, roi.right, roi.bottom = kind, left, top, right, bottom
    return roi


def told(found: Source) -> list[tuple[str, str, int]]:
    return [(Path(each.what).name, each.reason, each.number) for each in found.unused]


def counted(found: Source) -> list[tuple[float | None, tuple[tuple[float, float], ...] | None]]:
    assert [file.problem for file in found] == [None] * len(found)
    return [(file.count, file.centres) for file in found]


def test_markers_of_cell_counter_give_the_count_and_the_centres(folder: Path) -> None:
    none: tuple[tuple[int, int], ...] = ()
    cell_counter(folder / "A549" / "CellCounter_a.xml", "a.png", Type_1=CELLS, Type_2=none)
    found = read_source(folder)
    assert counted(found) == [(3, CELLS), (None, None)]
    assert found.unused == []
    frame = prepare(found[0], Bank.create(folder.parent / "bank").store)
    assert (frame.lineage, frame.count, frame.centres) == ("A549", 3, [list(cell) for cell in CELLS])


def test_markers_of_an_image_in_which_there_are_none_say_that_it_has_no_cells(folder: Path) -> None:
    cell_counter(folder / "A549" / "CellCounter_a.xml", "a.png", Type_1=())
    assert counted(read_source(folder))[0] == (0, ())


@pytest.mark.parametrize("image", ["b.png", "b.tif", "Counter Window - b.png", "B.PNG"])
def test_a_file_of_cell_counter_is_of_the_image_that_it_names(folder: Path, image: str) -> None:
    cell_counter(folder / "A549" / "my markers.xml", image, Type_1=CELLS)
    assert counted(read_source(folder)) == [(None, None), (3, CELLS)]


def test_the_name_of_an_image_need_be_no_xml(folder: Path) -> None:
    (folder / "A549" / "b.png").rename(folder / "A549" / "A & B.png")
    cell_counter(folder / "A549" / "m.xml", "A & B.png", Type_1=CELLS)
    assert [file.count for file in read_source(folder) if file.image.name == "A & B.png"] == [3]


def test_a_file_that_is_called_like_one_image_and_names_another_is_of_neither(folder: Path) -> None:
    cell_counter(folder / "A549" / "CellCounter_a.xml", "b.png", Type_1=CELLS)
    found = read_source(folder)
    assert counted(found) == [(None, None)] * 2
    assert told(found) == [("CellCounter_a.xml", "ambiguous", 3)]
    assert found.unused[0].why == "it may be of a.png or b.png; name it as its image"


def test_markers_of_several_types_are_asked_for(folder: Path) -> None:
    cell_counter(folder / "A549" / "CellCounter_a.xml", "a.png", live=CELLS[:2], dead=CELLS[2:], other=())
    assert read_source(folder)[0].problem == (
        "CellCounter_a.xml marks cells of several types (live: 2, dead: 1); choose one: --population 'live', or all"
    )
    asked = {name: read_source(folder, Options(population=name))[0] for name in ("live", "dead", "other", "all")}
    assert {name: (file.count, file.centres) for name, file in asked.items()} == {
        "live": (2, CELLS[:2]),
        "dead": (1, CELLS[2:]),
        "other": (0, ()),
        "all": (3, CELLS),
    }
    wrong = read_source(folder, Options(population="Live"))[0]
    assert wrong.problem == "CellCounter_a.xml has no type Live; it has live, dead, other"


def test_a_population_is_no_use_where_nothing_is_marked(folder: Path) -> None:
    with pytest.raises(DataError, match="has no use for --population, since no cells are marked by type"):
        read_source(folder, Options(population="live"))


def test_cells_that_are_marked_in_several_planes_are_of_no_one_image(folder: Path) -> None:
    path = folder / "A549" / "CellCounter_a.xml"
    cell_counter(path, "a.png", Type_1=CELLS)
    path.write_text(path.read_text().replace("<MarkerZ>1", "<MarkerZ>4", 1))
    assert read_source(folder)[0].problem == (
        "CellCounter_a.xml marks cells in planes 1 to 4; a count is of one plane: mark them there"
    )


def test_cells_of_one_plane_are_those_of_an_image_of_that_plane(folder: Path) -> None:
    stack = [factories.noise(60, 80, seed=seed) for seed in range(3)]
    cv2.imwritemulti(str(folder / "A549" / "c.tif"), stack)
    cell_counter(folder / "A549" / "CellCounter_c.xml", "c.tif", plane=3, Type_1=CELLS)
    store = Bank.create(folder.parent / "bank").store
    third, middle = (prepare(read_source(folder, Options(page=page))[2], store) for page in (3, "middle"))
    assert (third.source, third.count) == (str(folder / "A549" / "c.tif#3"), 3)
    assert middle.set_aside == "its cells are marked in plane 3, not 2; choose it: --page 3"
    cell_counter(folder / "A549" / "CellCounter_a.xml", "a.png", plane=3, Type_1=CELLS)
    assert prepare(read_source(folder, Options(page="middle"))[0], store).count == 3  # it has one plane only


def test_an_older_cell_counter_gives_types_no_names(folder: Path) -> None:
    path = folder / "A549" / "CellCounter_a.xml"
    cell_counter(path, "Counter Window - a.png", x=CELLS[:1], y=CELLS[1:])
    path.write_text(re.sub("<Name>.*?</Name>", "", path.read_text()))
    assert "(Type 1: 1, Type 2: 2)" in (read_source(folder)[0].problem or "")
    assert read_source(folder, Options(population="Type 2"))[0].centres == CELLS[1:]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<CellCounter_Marker_File><Marker_Data>", "is not readable as XML"),
        (
            "<!DOCTYPE a [<!ENTITY b 'cc'>]><CellCounter_Marker_File>&b;</CellCounter_Marker_File>",
            "entities of its own",
        ),
        ("<a><CellCounter_Marker_File/></a>", "is no file of Cell Counter, but <a>"),
        (
            "<CellCounter_Marker_File><Marker_Data><Marker_Type>"
            f"{MARKER.format('x', 2, 1)}</Marker_Type></Marker_Data></CellCounter_Marker_File>",
            "'x'",
        ),
        ('<?xml version="1.0" encoding="?"?><CellCounter_Marker_File/>', "is not readable as XML"),
    ],
)
def test_a_broken_file_of_cell_counter_is_the_problem_of_its_image(folder: Path, text: str, said: str) -> None:
    (folder / "A549" / "CellCounter_a.xml").write_text(text)
    (folder / "A549" / "CellCounter_z.xml").write_text(text)
    found = read_source(folder)
    assert said in (found[0].problem or "")
    assert (found[1].problem, told(found)) == (None, [("CellCounter_z.xml", "other_format", 1)])


@pytest.mark.parametrize("name", ["a.roi", "a_RoiSet.zip", "RoiSet_a.zip", "a.zip", "A.PNG.roi"])
def test_the_points_of_a_selection_are_cells(folder: Path, name: str) -> None:
    points_roi(*CELLS).tofile(folder / "A549" / name)
    assert counted(read_source(folder)) == [(3, CELLS), (None, None)]


def test_points_between_pixels_keep_their_place(folder: Path) -> None:
    points_roi((10.5, 20.25), (30, 40)).tofile(folder / "A549" / "a.roi")
    assert counted(read_source(folder))[0] == (2, ((10.5, 20.25), (30, 40)))


def test_every_area_of_a_set_is_a_cell_in_its_middle(folder: Path) -> None:
    rois = [
        area_roi(roifile.ROI_TYPE.OVAL, 10, 20, 20, 40),
        area_roi(roifile.ROI_TYPE.RECT, 0, 0, 5, 9),
        roifile.ImagejRoi.frompoints(np.array([[50, 10], [60, 10], [60, 30]])),  # freehand
        points_roi((1, 2), (3, 4)),
    ]
    roifile.roiwrite(folder / "A549" / "a_RoiSet.zip", rois, name=[f"{n}.roi" for n in range(len(rois))])
    ((count, centres), _) = counted(read_source(folder))
    assert count == 5
    assert centres == ((15, 30), (2.5, 4.5), (55.5, 20.5), (1, 2), (3, 4))


def test_counters_of_a_selection_are_types(folder: Path) -> None:
    points_roi(*CELLS, counters=[0, 1, 1]).tofile(folder / "A549" / "a.roi")
    assert "(counter 0: 1, counter 1: 2)" in (read_source(folder)[0].problem or "")
    assert read_source(folder, Options(population="counter 1"))[0].centres == CELLS[1:]


@pytest.mark.parametrize("kind", ["LINE", "ANGLE", "POLYLINE"])
def test_a_line_is_no_cell(folder: Path, kind: str) -> None:
    roi = roifile.ImagejRoi.frompoints(np.array(CELLS))
    roi.roitype = roifile.ROI_TYPE[kind]
    roi.tofile(folder / "A549" / "a.roi")
    assert f"a ROI of the kind {kind.lower()}, which is no cell" in (read_source(folder)[0].problem or "")


def zipped(path: Path, *entries: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return path


def test_rois_that_are_none_are_the_problem_of_their_image(folder: Path) -> None:
    whole = points_roi(*CELLS).tobytes()
    broken = [b"", b"Iout", whole[:70], whole[:-3] + b"abc", b"Iout" + os.urandom(80), b"PK" + whole]
    for data in broken:
        (folder / "A549" / "a.roi").write_bytes(data)
        file = read_source(folder)[0]
        assert file.problem is None or "no ROI of ImageJ" in file.problem or "no cell" in file.problem
    for data in (broken[0], broken[1], broken[2], broken[5]):
        zipped(folder / "A549" / "b.zip", ("1.roi", whole), ("2.roi", data))
        assert "2/2.roi is no ROI of ImageJ" in (read_source(folder)[1].problem or "")


def test_an_archive_that_would_grow_too_large_is_not_unpacked(folder: Path) -> None:
    zipped(folder / "A549" / "a.zip", ("1.roi", bytes(70 * 10**6)))
    assert "holds over 100000 ROIs or 64 MB" in (read_source(folder)[0].problem or "")


def test_an_archive_of_more_files_than_a_set_has_rois_is_not_listed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imagej, "MAX_ROIS", 2)
    entries = [(f"{place}.roi", points_roi(*CELLS).tobytes()) for place in range(3)]
    two, three = zipped(folder / "two.zip", *entries[:2]), zipped(folder / "three.zip", *entries)
    assert imagej.is_roi_set(two) and not imagej.is_roi_set(three)
    monkeypatch.setattr(zipfile, "ZipFile", lambda _: pytest.fail("it was listed"))
    with pytest.raises(DataError, match=r"three.zip holds over 2 ROIs"):
        imagej.read_rois(three)


def test_markers_are_those_of_their_own_type_however_types_are_nested(folder: Path) -> None:
    marker = MARKER.format(1, 2, 1)
    nested = "<Marker_Type>" * 200 + marker * 200 + "</Marker_Type>" * 200
    path = folder / "CellCounter_a.xml"
    text = "<CellCounter_Marker_File><Marker_Data>{}</Marker_Data></CellCounter_Marker_File>"
    path.write_text(text.format(f"<Marker_Type><Name>cell</Name>{marker}{nested}</Marker_Type>"))
    assert imagej.read_cell_counter(path).of_kind == {"cell": [(1, 2, 1)]}


def test_an_xml_of_more_tags_than_cells_have_is_refused_unread(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagej, "MOST_TAGS", 50)
    path = folder / "CellCounter_a.xml"
    cell_counter(path, "a.png", cell=CELLS)
    assert len(imagej.read_cell_counter(path).of_kind["cell"]) == 3
    cell_counter(path, "a.png", cell=CELLS * 2)
    with pytest.raises(DataError, match=r"CellCounter_a.xml has over 50 tags"):
        imagej.read_cell_counter(path)


def test_an_archive_that_says_less_than_it_holds_is_damaged(folder: Path) -> None:
    path = zipped(folder / "A549" / "a.zip", ("1.roi", bytes(5 * 10**6)))
    path.write_bytes(path.read_bytes().replace((5 * 10**6).to_bytes(4, "little"), (100).to_bytes(4, "little")))
    assert "a.zip" in (read_source(folder)[0].problem or "")


def test_an_archive_of_other_things_is_left_alone(folder: Path) -> None:
    zipped(folder / "A549" / "a.zip", ("a.csv", b"x,y\n1,2\n"), ("1.roi", b""))
    assert counted(read_source(folder)) == [(None, None)] * 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", " ,X,Y\n1,10,20\n2,30,40\n3,55,12\n"),
        ("a_Results.csv", " ,Area,Mean,X,Y\n1,0,9,10,20\n2,0,8,30,40\n3,0,7,55,12\n"),
        ("Results_a.xls", " \tLabel\tX\tY\n1\ta.png\t10\t20\n2\ta.png\t30\t40\n3\ta.png\t55\t12\n"),
        ("Results.csv", " ,Label,X,Y\n1,a.png,10,20\n2,a.png:0002-0044,30,40\n3,a.png,55,12\n"),
        ("a.csv", "index,axis-0,axis-1\n0.0,20.0,10.0\n1.0,40.0,30.0\n2.0,12.0,55.0\n"),
        ("a.csv", "index,axis-0,axis-1,axis-2\n0,0,20,10\n1,0,40,30\n2,0,12,55\n"),
        ("q.tsv", "Image\tName\tCentroid X px\tCentroid Y px\na.png\t\t10\t20\na.png\t\t30\t40\na.png\t\t55\t12\n"),
        ("Cells.csv", f"{CELLPROFILER}\n1,a.png,10,20\n1,a.png,30,40\n1,a.png,55,12\n"),
        ("a.txt", "x;y\n10,0;20\n30;40\n55;12\n"),
    ],
)  # fmt: skip
def test_a_table_of_points_is_read_as_its_program_writes_it(folder: Path, name: str, text: str) -> None:
    (folder / "A549" / name).write_text(text)
    assert counted(read_source(folder)) == [(3, CELLS), (None, None)]


def test_one_table_may_be_of_many_images(folder: Path) -> None:
    (folder / "Results.csv").write_text(" ,Label,X,Y\n1,b.png,1,2\n2,a.png,3,4\n3,b.png,5,6\n4,c.png,7,8\n")
    found = read_source(folder)
    assert counted(found) == [(1, ((3, 4),)), (2, ((1, 2), (5, 6)))]
    assert told(found) == [("Results.csv", "no_image", 1)]
    assert found.unused[0].why == "no image is called c.png; name both alike"


def test_one_image_may_have_several_names_in_a_table(folder: Path) -> None:
    (folder / "Results.csv").write_text(" ,Label,X,Y\n1,b.png,1,2\n2,b.tif,3,4\n3,C:\\A549\\b.png:7,5,6\n")
    assert counted(read_source(folder)) == [(None, None), (3, ((1, 2), (3, 4), (5, 6)))]


def test_points_that_name_no_image_are_told(folder: Path) -> None:
    (folder / "A549" / "Results.csv").write_text(" ,X,Y\n1,10,20\n2,30,40\n")
    points_roi(*CELLS).tofile(folder / "A549" / "c.roi")
    found = read_source(folder)
    assert counted(found) == [(None, None)] * 2
    assert told(found) == [("Results.csv", "no_image", 2), ("c.roi", "no_image", 3)]


def test_a_table_of_something_else_is_no_table_of_points(folder: Path) -> None:
    (folder / "A549" / "a.csv").write_text("day,operator\n3,K\n")
    (folder / "A549" / "b.csv").write_text("index,shape-type,vertex-index,axis-0,axis-1\n0,path,0,1,2\n")
    found = read_source(folder)
    assert counted(found) == [(None, None)] * 2


def test_a_place_that_is_no_number_is_the_problem_of_the_image(folder: Path) -> None:
    (folder / "A549" / "a.csv").write_text("x,y\n1,2\n3,far\n")
    assert "a.csv line 3: x and y are '3' and 'far'" in (read_source(folder)[0].problem or "")


def in_um(folder: Path, monkeypatch: pytest.MonkeyPatch, rows: str, header: str = " ,X,Y") -> LabelledFile:
    """The image a, of 0.5 µm a pixel as its manifest says, with a table."""
    (folder / "manifest.csv").write_text("image,lineage,count,group,pixel_um\nA549/a.png,A549,,w1,0.5\n")
    (folder / "A549" / "a.csv").write_text(f"{header}\n{rows}")
    return read_source(folder)[0]


def test_results_of_an_image_with_a_scale_are_brought_to_pixels(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_um(folder, monkeypatch, "1,5.25,10\n2,15,20\n").centres == ((10.5, 20), (30, 40))
    assert in_um(folder, monkeypatch, "1,10,20\n2,30,40\n").centres == ((10, 20), (30, 40))  # the scale was removed
    in_mm = in_um(folder, monkeypatch, "1,0.005,0.01\n2,0.015,0.02\n")
    assert "x and y of a.csv are neither pixels nor µm" in (in_mm.problem or "")


def test_micrometres_are_pixels_where_their_size_is_known(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = "Image,Centroid X µm,Centroid Y µm"
    assert in_um(folder, monkeypatch, "a.png,5,10\n", header).centres == ((10, 20),)
    (folder / "manifest.csv").unlink()
    assert read_source(folder)[0].problem == ("a.csv is in µm, and the size of a pixel is not known; save it in pixels")


def test_a_count_of_a_table_must_be_that_of_the_marks(folder: Path) -> None:
    points_roi(*CELLS).tofile(folder / "A549" / "a.roi")
    (folder / "counts.csv").write_text("image,count\na.png,4\nb.png,2\n")
    first, second = read_source(folder)
    assert first.problem == "the count is 4, but a.roi marks 3 cells"
    assert (second.count, second.problem) == (2, None)
    (folder / "counts.csv").write_text("image,count\na.png,3\n")
    assert counted(read_source(folder))[0] == (3, CELLS)


def test_what_is_counted_by_marks_is_not_told_as_uncounted(folder: Path) -> None:
    points_roi(*CELLS).tofile(folder / "A549" / "a.roi")
    (folder / "counts.csv").write_text("image,count\nb.png,2\n")
    found = read_source(folder)
    assert counted(found) == [(3, CELLS), (2, None)]
    assert found.unused == []
    (folder / "A549" / "b.csv").write_text("day,operator\n3,K\n")
    (folder / "counts.csv").write_text("image,count\na.png,3\n")
    assert told(read_source(folder)) == [("b.csv", "not_an_image", 1), ("b.png", "no_label", 1)]


def test_two_files_of_one_image_must_say_the_same(folder: Path) -> None:
    points_roi(*CELLS).tofile(folder / "A549" / "a.roi")
    cell_counter(folder / "A549" / "CellCounter_a.xml", "a.png", Type_1=CELLS[:2])
    assert read_source(folder)[0].problem == "CellCounter_a.xml marks 2 cells, but a.roi 3; leave one out"
    cell_counter(folder / "A549" / "CellCounter_a.xml", "a.png", Type_1=CELLS)
    assert counted(read_source(folder))[0] == (3, CELLS)


def test_marks_beside_a_manifest_are_of_its_images_wherever_they_lie(folder: Path) -> None:
    (folder / "manifest.csv").write_text("image,lineage,count,group\nA549/a.png,A549,,w1\nA549/b.png,,,w2\n")
    cell_counter(folder / "CellCounter_a.xml", "a.png", Type_1=CELLS)
    points_roi((1, 2)).tofile(folder / "A549" / "b.roi")
    assert counted(read_source(folder)) == [(3, CELLS), (1, ((1, 2),))]


def test_marks_outside_of_the_image_set_it_aside(folder: Path) -> None:
    points_roi((10, 20), (80, 61)).tofile(folder / "A549" / "a.roi")
    frame = prepare(read_source(folder)[0], Bank.create(folder.parent / "bank").store)
    assert "1 of its 2 centres lie outside its 80×60 pixels" in (frame.set_aside or "")


def test_x_and_y_that_were_exchanged_are_suspected(folder: Path) -> None:
    points_roi((10, 20), (40, 79)).tofile(folder / "A549" / "a.roi")
    frame = prepare(read_source(folder)[0], Bank.create(folder.parent / "bank").store)
    assert frame.set_aside == (
        "1 of its 2 centres lie outside its 80×60 pixels, and none with x and y exchanged; exchange the columns x and "
        "y of the table"
    )
