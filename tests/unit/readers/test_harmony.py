"""Harmony exports in miniature, with the namespaces, byte order marks and maps of the real ones."""

import logging
import os
from pathlib import Path

import pytest

from cellnet.errors import DataError
from cellnet.readers import LabelledFile, Options, harmony, read_source
from cellnet.readers.conditions import Condition

V5 = "http://www.perkinelmer.com/PEHH/HarmonyV5"
V7 = "43B2A954-E3C3-47E1-B392-6635266B0DD3/HarmonyV7"
BRIGHTFIELD = {"ChannelName": "Brightfield", "ChannelType": "Brightfield", "ImageResolutionX": "5.9E-07"}
PHASE = {"ChannelName": "Digital Phase Contrast", "ChannelType": "Phase", "ImageResolutionX": "5.9E-07"}
DYE = {"ChannelName": "HOECHST 33342", "ChannelType": "Fluorescence", "ImageResolutionX": "5.9E-07"}


def xml(facts: dict[str, str]) -> str:
    return "".join(f"<{name}>{value}</{name}>" for name, value in facts.items())


def export(
    folder: Path,
    *,
    wells: tuple[tuple[int, int], ...] = ((3, 3), (3, 4)),
    fields: int = 2,
    planes: int = 1,
    channels: tuple[dict[str, str], ...] = (DYE, BRIGHTFIELD),
    namespace: str = V5,
    index: str = "Index.idx.xml",
    plate: str = "<Name>P1</Name>",
    **changed: str,
) -> Path:
    """The folder of a plate named P1; from V6 on, what is true of a channel stands in its map alone."""
    mapped = namespace == V7
    images, entries = [], []
    (folder / "Images").mkdir(parents=True)
    for number, channel in enumerate(channels, start=1):
        entries.append(f'<Entry ChannelID="{number}">{xml(channel) if mapped else ""}</Entry>')
        for row, column in wells:
            for field in range(1, fields + 1):
                for plane in range(1, planes + 1):
                    url = f"r{row:02d}c{column:02d}f{field:02d}p{plane:02d}-ch{number}.tiff"
                    (folder / "Images" / url).touch()
                    facts = {"URL": url, "State": "Ok", "Row": row, "Col": column, "FieldID": field, "PlaneID": plane}
                    facts |= {"TimepointID": 0, "ChannelID": number} | ({} if mapped else channel)
                    images.append(f"<Image>{xml({**facts, **changed})}</Image>")
    text = (
        f'<?xml version="1.0" encoding="utf-8"?><EvaluationInputData xmlns="{namespace}">'
        f"<Plates><Plate>{plate}</Plate></Plates><Wells><Well><Image id='x' /></Well></Wells>"
        f"<Maps><Map>{''.join(entries)}</Map></Maps><Images>{''.join(images)}</Images></EvaluationInputData>"
    )
    (folder / "Images" / index).write_text(text, encoding="utf-8-sig")
    return folder


def table(path: Path, columns: str, *rows: str, plate: str = "P1") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"Database Name\tX\nPlate Name\t{plate}\n\n[Data]", columns.replace(" ", "\t").replace("~", " ")]
    path.write_text("\n".join(lines + [row.replace(" ", "\t") for row in rows]) + "\n", encoding="utf-8")


def by_name(frames: list[LabelledFile]) -> dict[str, LabelledFile]:
    return {frame.image.name[:9]: frame for frame in frames}


@pytest.mark.parametrize(("namespace", "index"), [(V5, "Index.idx.xml"), (V7, "Index.xml")])
@pytest.mark.parametrize("given", [".", "Images", "index"])
def test_every_field_of_the_transmitted_channel_is_a_frame(
    tmp_path: Path, namespace: str, index: str, given: str
) -> None:
    folder = export(tmp_path / "plate", namespace=namespace, index=index)
    source = folder / "Images" / index if given == "index" else folder / given
    frames = read_source(source)
    assert [frame.image.name for frame in frames] == [f"r03c0{c}f0{f}p01-ch2.tiff" for c in (3, 4) for f in (1, 2)]
    assert {(frame.group, frame.problem) for frame in frames} == {("P1/r03c03", None), ("P1/r03c04", None)}
    assert frames[0].pixel_um == pytest.approx(0.59)
    assert frames[0].lineage is frames[0].count is None


MEASURED = "<MeasurementID>5de72537-0fda</MeasurementID>"
STARTED = "<MeasurementStartTime>2021-03-29T16:51:44.6444882-04:00</MeasurementStartTime>"


@pytest.mark.parametrize(
    ("plate", "batch"),
    [
        (f"<PlateID>Q7</PlateID>{MEASURED}{STARTED}<Name>P1</Name>", "P1 2021-03-29 16:51"),
        (f"<PlateID>Q7</PlateID>{MEASURED}<Name>P1</Name>", "P1 5de72537-0fda"),
        (f"<PlateID>Q7</PlateID>{STARTED}", "Q7 2021-03-29 16:51"),
        ("<Name>P1</Name>", "P1"),
        ("", None),
    ],
)
def test_a_plate_and_its_measurement_are_a_batch(tmp_path: Path, plate: str, batch: str | None) -> None:
    assert {frame.batch for frame in read_source(export(tmp_path, plate=plate))} == {batch}


def test_two_channels_of_transmitted_light_must_be_told_apart(tmp_path: Path) -> None:
    folder = export(tmp_path, channels=(PHASE, DYE, BRIGHTFIELD))
    with pytest.raises(DataError, match="choose one with --channel: 'Digital Phase Contrast', 'Brightfield'"):
        read_source(folder)
    assert read_source(folder, Options(channel="Brightfield"))[0].image.name.endswith("ch3.tiff")
    with pytest.raises(DataError, match="no channel 'Brightfeld'; it has"):
        read_source(folder, Options(channel="Brightfeld"))


def test_an_export_of_dyes_alone_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no channel of transmitted light; choose one with --channel: 'HOECHST"):
        read_source(export(tmp_path, channels=(DYE,)))


def test_of_a_stack_the_middle_plane_is_taken(tmp_path: Path) -> None:
    names = [frame.image.name for frame in read_source(export(tmp_path, planes=3, fields=1))]
    assert names == ["r03c03f01p02-ch2.tiff", "r03c04f01p02-ch2.tiff"]


def test_objects_are_counted_field_by_field_with_their_centres(tmp_path: Path) -> None:
    objects = export(tmp_path) / "Evaluation1" / "Objects_Population - Cells.txt"
    rows = ("3 3 0 1 10 20", "3 3 0 1 30 40.5", "3 4 0 2 5 6")
    table(objects, "Row Column Timepoint Field X Y", *rows)
    frames = by_name(read_source(tmp_path))
    assert frames["r03c03f01"].count == 2 and frames["r03c03f01"].centres == ((10, 20), (30, 40.5))
    assert frames["r03c04f02"].count == 1


@pytest.mark.parametrize(
    ("outside", "said"), [("101 20", "1 centres lie outside"), ("-796.2 20", "1 centres lie outside"), ("100 80", "")]
)
def test_centres_outside_their_frame_are_not_used_and_the_counts_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, outside: str, said: str
) -> None:
    folder = export(tmp_path, fields=1, ImageSizeX="100", ImageSizeY="80")
    columns = "Row Column Timepoint Field X Y"
    table(folder / "Objects_Population - Cells.txt", columns, "3 3 0 1 10 20", "3 3 0 1 30 40", f"3 4 0 1 {outside}")
    frames = by_name(read_source(folder))
    assert {name: frame.count for name, frame in frames.items()} == {"r03c03f01": 2, "r03c04f01": 1}
    assert [frame.centres is None for frame in frames.values()] == [bool(said)] * 2
    assert said in caplog.text and len(caplog.records) == bool(said)


def test_a_field_without_an_object_counts_0_where_its_whole_well_was_analysed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of four fields a well, 3,3 has objects in two and was analysed whole; 3,4 has them in one and was not."""
    evaluation = export(tmp_path, fields=4) / "Evaluation1"
    table(evaluation / "Objects_Population - Cells.txt", "Row Column Field X Y", "3 3 1 5 6", "3 3 4 5 6", "3 4 2 5 6")
    assert [frame.count for frame in read_source(tmp_path)] == [1, None, None, 1, None, 1, None, None]
    assert [record.args[1:3] for record in caplog.records] == [(5, 8)]
    table(evaluation / "PlateResults.txt", "Row Column Number~of~Analyzed~Fields", "3 3 4", "3 4 3")
    frames = read_source(tmp_path)
    assert [frame.count for frame in frames] == [1, 0, 0, 1, None, 1, None, None]
    assert [frame.centres for frame in frames[:2]] == [((5, 6),), ()]
    assert [record.args[1:3] for record in caplog.records[1:]] == [(3, 8)]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (("3 3 1 -1 1", "3 3 1 0 1"), "no image has its time point -1"),
        (("3 3 1 0 1", "3 3 2 0 1"), "it counts 2 planes of a stack"),
    ],
)
def test_a_table_that_does_not_count_each_image_once_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, rows: tuple[str, ...], said: str
) -> None:
    folder = export(tmp_path)
    table(folder / "PlateResults.txt", "Row Column Plane Timepoint Cells~-~Number~of~Objects", *rows)
    assert {frame.count for frame in read_source(folder, Options(spread_counts=True))} == {None}
    table(folder / "Objects_Population - Cells.txt", "Row Column Plane Timepoint Field", *rows)
    assert {frame.count for frame in read_source(folder)} == {None}
    assert [said in record.getMessage() for record in caplog.records] == [True, True]


def test_objects_without_pixels_are_counted_alone(tmp_path: Path) -> None:
    objects = export(tmp_path) / "Objects_Population - Cells.txt"
    table(objects, "Row Column Timepoint Field Area", "3 3 0 1 99")
    frame = by_name(read_source(tmp_path))["r03c03f01"]
    assert (frame.count, frame.centres) == (1, None)


def test_several_populations_must_be_told_apart(tmp_path: Path) -> None:
    folder = export(tmp_path)
    for name in ("Cells", "Spots"):
        table(folder / f"Objects_Population - {name}.txt", "Row Column Field", "3 3 1")
    with pytest.raises(DataError, match="objects of several populations; choose one with --population: Cells, Spots"):
        read_source(folder)
    with pytest.raises(DataError, match="no population 'Cell'; choose one with --population: Cells, Spots"):
        read_source(folder, Options(population="Cell"))
    assert by_name(read_source(folder, Options(population="Spots")))["r03c03f01"].count == 1


def test_counts_of_wells_are_shared_out_only_when_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    columns = "Row Column Timepoint Nuclei~-~Number~of~Objects"
    table(export(tmp_path) / "PlateResults.txt", columns, "3 3 0 31", "3 4 0 8")
    with caplog.at_level(logging.WARNING):
        assert {frame.count for frame in read_source(tmp_path)} == {None}
    assert "--spread-counts" in caplog.text
    frames = by_name(read_source(tmp_path, Options(spread_counts=True)))
    assert [frames[name].count for name in ("r03c03f01", "r03c03f02", "r03c04f01")] == [15.5, 15.5, 4]


def test_tables_of_another_plate_or_none_are_left_out_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = export(tmp_path)
    for name in ("Cells", "Nuclei"):
        table(folder / "a plate" / f"Objects_Population - {name}.txt", "Row Column Field", "3 3 1", plate="P2")
    (folder / "Objects_Population - Empty.txt").touch()
    assert {frame.count for frame in read_source(folder)} == {None}
    assert [record.args[0] for record in caplog.records] == [3]
    assert "Empty.txt holds no [Data] table" in caplog.text
    with pytest.raises(DataError, match="no results of the plate 'P1'; leave --population"):
        read_source(folder, Options(population="Cells"))
    table(folder / "Objects_Population - Mine.txt", "Row Column Field", "3 3 1", "3 3 1")
    assert by_name(read_source(folder))["r03c03f01"].count == 2


def test_results_of_another_evaluation_say_nothing_of_the_fields(tmp_path: Path) -> None:
    folder = export(tmp_path)
    table(folder / "Objects_Population - Cells.txt", "Row Column Field", "3 3 1")
    table(folder / "PlateResults.txt", "Row Column Number~of~Analyzed~Fields", "3 3 2", plate="P1\nEvaluation\tOld")
    assert by_name(read_source(folder))["r03c03f02"].count is None


def test_the_plate_layout_names_the_lineage(tmp_path: Path) -> None:
    folder = export(tmp_path)
    (folder / "Assaylayout").mkdir()
    wells = "<Well><Row>3</Row><Col>3</Col><Value>A549</Value></Well><Well><Row>3</Row><Col>4</Col><Value /></Well>"
    layers = f"<Layer><Name>Compound</Name></Layer><Layer><Name>Cell Type</Name>{wells}</Layer>"
    text = f'<AssayLayout xmlns="{V5}">{layers}</AssayLayout>'
    (folder / "Assaylayout" / "a.xml").write_text(text, encoding="utf-8-sig")
    assert [frame.lineage for frame in read_source(folder)] == ["A549", "A549", None, None]
    with pytest.raises(DataError, match="no layer 'Cells'; it has 'Compound', 'Cell Type'"):
        read_source(folder, Options(layer="Cells"))


def test_a_csv_names_the_lineage_of_a_well_however_it_is_written(tmp_path: Path) -> None:
    folder = export(tmp_path / "plate")
    (tmp_path / "wells.csv").write_text("well;lineage\nC3;A549\nr03c04;3T3\n")
    lineages = [frame.lineage for frame in read_source(folder, Options(lineages=tmp_path / "wells.csv"))]
    assert lineages == ["A549", "A549", "3T3", "3T3"]
    (tmp_path / "wells.csv").write_text("well,lineage\nthird,A549\n")
    with pytest.raises(DataError, match="'third' is not a well; write C03 or r03c03"):
        read_source(folder, Options(lineages=tmp_path / "wells.csv"))
    (tmp_path / "wells.csv").write_text("well,lineage\nC03,A549\nr03c03,A549\nc3,3T3\n")
    with pytest.raises(DataError, match="names c3 A549 and 3T3; leave one row of the well"):
        read_source(folder, Options(lineages=tmp_path / "wells.csv"))


def test_wells_and_cells_of_which_there_is_no_image_are_told(tmp_path: Path) -> None:
    folder, wells = export(tmp_path / "plate"), tmp_path / "wells.csv"
    wells.write_text("well,lineage\nC03,A549\nH12,3T3\n")
    objects = folder / "Evaluation1/Objects_Population - Cells.txt"
    table(objects, "Row Column Timepoint Field X Y", "3 3 0 1 10 20", "3 3 0 7 1 2", "3 3 0 7 1 3", "8 12 0 1 1 2")
    source = read_source(folder, Options(lineages=wells))
    told = [("wells.csv: r08c12", 1), ("cells of r03c03 field 7", 2), ("cells of r08c12 field 1", 1)]
    assert [(one.what, one.number) for one in source.unused] == told
    assert {one.reason for one in source.unused} == {"no_image"}
    assert [frame.count for frame in source] == [1, None, None, None]
    objects.unlink()
    table(folder / "PlateResults.txt", "Row Column Timepoint Nuclei~-~Number~of~Objects", "3 3 0 31", "8 12 0 9")
    source = read_source(folder, Options(spread_counts=True))
    assert [(one.what, one.number) for one in source.unused] == [("cells of r08c12", 9)]


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"URL": "../../secret.tiff"}, "its path leads out of the export's folder"),
        ({"URL": "gone.tiff"}, "the file is missing"),
        ({"State": "Failed"}, "Harmony marks it as 'Failed'"),
    ],
)
def test_a_bad_image_is_told_with_its_reason(tmp_path: Path, changed: dict[str, str], problem: str) -> None:
    (tmp_path / "secret.tiff").touch()
    assert {frame.problem for frame in read_source(export(tmp_path / "a" / "plate", **changed))} == {problem}


@pytest.mark.parametrize("text", ["", "<EvaluationInputData>", "<EvaluationInputData></EvaluationInputData>", "\0"])
def test_a_damaged_index_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "Index.idx.xml").write_text(text)
    with pytest.raises(DataError, match=r"Index\.idx\.xml .*export"):
        read_source(tmp_path)


def test_an_option_that_a_source_has_no_use_for_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("image,lineage,count,group\n")
    with pytest.raises(DataError, match="no use for --spread-counts; leave it out"):
        read_source(tmp_path, Options(spread_counts=True))


def test_an_index_or_a_table_by_the_gigabyte_is_refused_before_it_is_read(tmp_path: Path) -> None:
    folder = export(tmp_path)
    table(folder / "E" / "Objects_Population - Cells.txt", "Row Column Field", "3 3 1")
    for path in (folder / "E" / "Objects_Population - Cells.txt", folder / "Images" / "Index.idx.xml"):
        os.truncate(path, harmony.MAX_BYTES + 1)  # a hole, which takes no room
        with pytest.raises(DataError, match=f"{path.name} is over 1 GB; export the plate in parts"):
            read_source(folder)


@pytest.mark.parametrize("plate", ["<a />" * 30, f"{'<a>' * 60}{'</a>' * 60}"])
def test_elements_are_let_go_of_and_an_index_that_has_them_all_within_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plate: str
) -> None:
    monkeypatch.setattr(harmony, "MOST_KEPT", 30)
    assert len(read_source(export(tmp_path / "large", fields=20))) == 40
    with pytest.raises(DataError, match=r"Index\.idx\.xml has more elements within one than Harmony writes"):
        read_source(export(tmp_path / "odd", plate=f"<Name>P1</Name>{plate}"))


def test_an_index_of_countless_elements_and_a_table_of_one_line_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = export(tmp_path)
    monkeypatch.setattr(harmony, "MOST_LINE", 1000)
    table(folder / "E" / "Objects_Population - Cells.txt", "Row Column Field", "\t" * 1001)
    with pytest.raises(DataError, match="has a line of over 1,000 characters; export it again"):
        read_source(folder)
    monkeypatch.setattr(harmony, "MOST_ELEMENTS", 20)
    with pytest.raises(DataError, match=r"Index\.idx\.xml has over 20 elements; export the plate in parts"):
        read_source(folder)


@pytest.mark.parametrize("name", ["Row", "Col", "FieldID", "TimepointID", "PlaneID"])
@pytest.mark.parametrize("value", ["two", "1.5", "²", "9" * 5000])
def test_a_number_in_an_index_that_is_none_is_told_in_one_line(tmp_path: Path, name: str, value: str) -> None:
    folder = export(tmp_path / "P1", **{name: value})
    with pytest.raises(DataError, match=r"Index.idx.xml gives no numbers of well, field and plane of r03c03f01p01-ch2"):
        read_source(folder)


def test_planes_are_set_aside_whose_links_lead_in_a_circle(tmp_path: Path) -> None:
    folder = export(tmp_path / "P1", wells=((3, 3),), fields=1)
    plane = folder / "Images/r03c03f01p01-ch2.tiff"
    plane.unlink()
    plane.symlink_to(plane.name)
    assert [file.problem for file in read_source(folder)] == ["the file is missing"]


def test_a_table_of_results_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    folder = export(tmp_path / "P1")
    os.mkfifo(folder / "PlateResults.txt")
    with pytest.raises(DataError, match=r"cannot read .*PlateResults.txt: it is a named pipe"):
        read_source(folder)


def test_hours_come_from_clocks_or_else_from_offsets_that_every_image_has(tmp_path: Path) -> None:
    folder = export(tmp_path / "a", fields=1, channels=(BRIGHTFIELD,), MeasurementTimeOffset="0")
    [first, _] = harmony.read_images(folder, None)
    assert (first.time_h, first.time_point, first.well) == (0.0, 0, (3, 3)), "of one time point"
    text = (folder / "Images/Index.idx.xml").read_text(encoding="utf-8-sig")
    moved = text.replace("<TimepointID>0", "<TimepointID>1", 1).replace("Offset>0<", "Offset>5400<", 1)
    (folder / "Images/Index.idx.xml").write_text(moved)
    hours = {one.time_point: one.time_h for one in harmony.read_images(folder, None)}
    assert hours == {0: 0.0, 1: 1.5}
    (folder / "Images/Index.idx.xml").write_text(
        moved.replace("<MeasurementTimeOffset>0<", "<MeasurementTimeOffset>x<")
    )
    assert {one.time_h for one in harmony.read_images(folder, None)} == {None}


def test_a_layout_tells_treatments_doses_and_lineages(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = export(tmp_path / "plate", fields=1)
    layers = {"Compound": "drug", "Concentration": "1 uM", "Cell Type": "A549", "Cell Count": "3000"}
    (folder / "Assaylayout").mkdir()
    path = folder / "Assaylayout" / "layout.xml"
    well = "<Well><Row>3</Row><Col>4</Col><Value>{}</Value></Well>"
    text = "".join(f"<Layer><Name>{name}</Name>{well.format(value)}</Layer>" for name, value in layers.items())
    path.write_text(f"<L>{text}</L>")
    known = {one.well: one.condition for one in harmony.read_images(folder, None)}
    assert known == {(3, 3): Condition(), (3, 4): Condition(treatment="drug", dose="1 uM", lineage="A549")}
    path.write_text(f"<L>{text.replace('Concentration', 'Drug 2')}</L>")
    [_, second] = harmony.read_images(folder, None)
    assert second.condition == Condition(lineage="A549")
    assert "several layers of the layout could be the treatment, Compound, Drug 2; --layout says it" in caplog.text
    path.write_text("<L><Layer>")
    assert {one.condition for one in harmony.read_images(folder, None)} == {Condition()}
    assert "what was done to the wells is not known" in caplog.text
