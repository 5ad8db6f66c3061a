"""Labels in forms that nobody reads here are named as what they are."""

import json
from pathlib import Path

import pytest

from cellnet.errors import DataError
from cellnet.images.file import encode_png
from cellnet.readers import read_source
from cellnet.readers.forms import name_of_labels
from tests import factories

VIA_CSV = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes\n"
FORMS = {
    "via.csv": (VIA_CSV, "VIA"),
    "via.json": (json.dumps({"a.png7": {"filename": "a.png", "regions": [{"region_attributes": {}}]}}), "VIA"),
    "project.json": (json.dumps({"_via_settings": {}, "_via_img_metadata": {}}), "VIA"),
    "a.json": (json.dumps({"version": "5.2", "shapes": [{"points": []}], "imagePath": "a.png"}), "labelme"),
    "a.png.json": (json.dumps({"size": {}, "objects": [{"classTitle": "cell"}]}), "Supervisely"),
    "studio.json": (json.dumps([{"id": 1, "annotations": [{"result": []}], "data": {"image": "a"}}]), "Label Studio"),
    "createml.json": (json.dumps([{"image": "a", "annotations": [{"coordinates": {}}]}]), "CreateML"),
    "cells.geojson": (json.dumps({"type": "FeatureCollection", "features": []}), "QuPath (GeoJSON)"),
    "a.xml": ("<annotation><filename>a.png</filename></annotation>", "Pascal VOC"),
    "annotations.xml": ("<?xml version='1.0'?><annotations><version>1.1</version></annotations>", "CVAT"),
    "tracks.xml": ("<?xml version='1.0'?><TrackMate version='7'></TrackMate>", "TrackMate"),
    "a.txt": ("0 .5 .5 .1 .1\n1 0.25 0.5 0.1 0.1\n", "YOLO"),
    "data.yaml": ("train: ../train/images\nnc: 1\nnames: ['cell']\n", "YOLO"),
}


@pytest.mark.parametrize("name", FORMS)
def test_labels_are_named_by_how_they_begin(tmp_path: Path, name: str) -> None:
    text, form = FORMS[name]
    (tmp_path / name).write_text(text)
    assert (name_of_labels(tmp_path / name) or "").startswith(f"annotations of {form}, which are not read here; ")


@pytest.mark.parametrize("name", [name for name in FORMS if not name.endswith((".txt", ".yaml"))])
def test_a_source_of_such_labels_is_refused_by_name(tmp_path: Path, name: str) -> None:
    text, form = FORMS[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as refused:
        read_source(tmp_path / name)
    assert f"annotations of {form}, which are not read here" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("labels", "images", "form"),
    [
        ("labels/a.txt", "images/a.png", "YOLO"),
        ("train/labels/a.txt", "train/images/a.png", "YOLO"),
        ("data.yaml", "train/images/a.png", "YOLO"),
        ("a.json", "a.png", "labelme"),
        ("Annotations/a.xml", "JPEGImages/a.png", "Pascal VOC"),
        ("via.csv", "a.png", "VIA"),
        ("ann/a.png.json", "img/a.png", "Supervisely"),
    ],
)
def test_a_folder_of_images_with_such_labels_is_refused_by_name(
    tmp_path: Path, labels: str, images: str, form: str
) -> None:
    for path in (tmp_path / labels, tmp_path / images):
        path.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / images).write_bytes(encode_png(factories.noise(60, 80)))
    (tmp_path / labels).write_text(FORMS[Path(labels).name][0])
    with pytest.raises(DataError) as refused:
        read_source(tmp_path)
    assert f"{labels}" in str(refused.value)
    assert f"annotations of {form}, which are not read here" in str(refused.value)


def test_folders_of_lineages_are_read_whatever_lies_in_them(tmp_path: Path) -> None:
    (tmp_path / "A549").mkdir()
    (tmp_path / "A549" / "a.png").write_bytes(encode_png(factories.noise(60, 80)))
    (tmp_path / "A549" / "a.json").write_text(FORMS["a.json"][0])
    (tmp_path / "A549" / "a.czi").write_bytes(b"ZISRAWFILE")
    (tmp_path / "A549" / "notes.txt").write_text("12 cells")
    found = read_source(tmp_path)
    assert [file.lineage for file in found] == ["A549"]
    assert {each.what: (each.reason, each.why) for each in found.unused} == {
        "A549/a.json": (
            "other_format",
            "annotations of labelme, which are not read here; turn them into COCO (labelme2coco)",
        ),
        "A549/a.czi": (
            "other_format",
            "a CZI file of Zeiss, which is not read here; export it as OME-TIFF, with the microscope's program or with "
            "Fiji",
        ),
        "A549/notes.txt": ("not_an_image", "no .bmp, .jpeg, .jpg, .png, .tif, .tiff file"),
    }


@pytest.mark.parametrize("name", ["ann.json", "annotations/ann.json", "train/_annotations.coco.json"])
def test_of_a_folder_of_coco_the_file_is_asked_for(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).with_name("a.png").write_bytes(encode_png(factories.noise(60, 80)))
    (tmp_path / name).write_text(json.dumps({"info": {}, "images": [{"file_name": "a.png"}], "annotations": []}))
    with pytest.raises(DataError, match=rf"\({name}\): annotations of COCO; give this file itself"):
        read_source(tmp_path)


def test_tables_and_coco_are_none_of_them(tmp_path: Path) -> None:
    texts = {
        "manifest.csv": "image,lineage,count,group\na.png,A549,3,w1\n",
        "coco.json": json.dumps({"images": [], "annotations": [], "categories": [{"name": "shapes"}]}),
        "notes.txt": "12 cells in B03\n",
        "Index.xml": "<EvaluationInputData><Plates/></EvaluationInputData>",
        "settings.yaml": "epochs: 3\n",
        "empty.json": "",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        assert name_of_labels(tmp_path / name) is None
    assert name_of_labels(tmp_path / "gone.json") is None


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.czi", b"ZISRAWFILE", "a CZI file of Zeiss, which is not read here; export it as OME-TIFF"),
        ("counts.xlsx", b"PK\3\4", "an Excel table, which is not read here; save it as CSV"),
        ("a.roi", b"Iout", "a ROI of ImageJ, no image, which is not read here; put it beside the image of its name"),
        ("a.xml", b"<CellCounter_Marker_File>", "give the folder of the images beside which it lies"),
    ],
)
def test_a_source_that_is_a_file_of_something_else_is_named(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as refused:
        read_source(tmp_path / name)
    assert said in str(refused.value)


def test_a_zarr_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "plate.zarr").mkdir()
    with pytest.raises(DataError, match="a Zarr folder, which is not read here; export it as OME-TIFF"):
        read_source(tmp_path / "plate.zarr")
