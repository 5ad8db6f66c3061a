"""COCO annotations in LIVECell's form and in others."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from cellnet.errors import DataError
from cellnet.readers import Options, read_source

IMAGES = [{"id": 7, "file_name": "A172_Phase_C7_1.tif"}, {"id": 8, "file_name": "BV2_Phase_D1_1.tif"}]
CELLS = [
    {"id": 1, "image_id": 7, "category_id": 1, "bbox": [10, 20, 4, 6]},
    {"id": 2, "image_id": 7, "category_id": 1, "segmentation": [[0, 0, 8, 0, 8, 2]]},
    {"id": 3, "image_id": 7, "category_id": 1, "bbox": [0, 0, 90, 90], "iscrowd": 1},
]


def annotated(folder: Path, name: str = "annotations.json", **parts: Any) -> Path:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for image in IMAGES:
        (folder / "images" / image["file_name"]).touch()
    found = {"images": IMAGES, "annotations": CELLS, "categories": [{"id": 1, "name": "cell"}]} | parts
    (folder / name).write_text(json.dumps(found))
    return folder / name


@pytest.mark.parametrize("as_dict", [False, True])
def test_cells_are_counted_with_their_centres_and_crowds_are_not(tmp_path: Path, as_dict: bool) -> None:
    parts = {"annotations": {str(cell["id"]): cell for cell in CELLS}} if as_dict else {}
    first, second = read_source(annotated(tmp_path, **parts))
    assert (first.count, first.centres) == (2, ((12, 23), (4, 1)))
    assert (second.count, second.centres) == (0, ())
    assert first.image.place == str(tmp_path / "images" / "A172_Phase_C7_1.tif")
    assert first.lineage is first.group is first.problem is None


def test_lineage_and_group_are_found_in_the_file_name(tmp_path: Path) -> None:
    options = Options(lineage_pattern="^([^_]+)_", group_pattern="Phase_[A-H][0-9]+")
    frames = read_source(annotated(tmp_path), options)
    assert [(frame.lineage, frame.group) for frame in frames] == [("A172", "Phase_C7"), ("BV2", "Phase_D1")]
    with pytest.raises(DataError, match="is not a regular expression"):
        read_source(annotated(tmp_path), Options(lineage_pattern="("))


def test_several_categories_are_lineages_and_a_mixture_is_a_problem(tmp_path: Path) -> None:
    categories = [{"id": 1, "name": "A172"}, {"id": 2, "name": "BV2"}]
    cells = [*CELLS, {"image_id": 8, "category_id": 1, "bbox": [0, 0, 1, 1]}]
    cells += [{"image_id": 8, "category_id": 2, "bbox": [0, 0, 1, 1]}]
    source = annotated(tmp_path, categories=categories, annotations=cells)
    first, second = read_source(source)
    assert (first.lineage, first.problem) == ("A172", None)
    assert second.problem == "its cells are of several categories: A172, BV2"
    both = read_source(source, Options(lineage_pattern="^([^_]+)_"))
    assert [(frame.lineage, frame.problem) for frame in both] == [("A172", None), ("BV2", None)]


@pytest.mark.parametrize("of", [str, float])
def test_an_id_is_the_same_as_text_or_with_a_point(tmp_path: Path, of: type) -> None:
    cells = [cell | {"image_id": of(7), "iscrowd": of(cell.get("iscrowd", 0))} for cell in CELLS]
    assert [frame.count for frame in read_source(annotated(tmp_path, annotations=cells))] == [2, 0]


def test_cells_of_images_that_are_not_listed_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stray = {"image_id": 99, "bbox": [1, 2, 3, 4]}
    with caplog.at_level(logging.WARNING):
        assert read_source(annotated(tmp_path, annotations=[*CELLS, stray]))[0].count == 2
    assert "1 cells of 3 are of no image" in caplog.text
    with pytest.raises(DataError, match="no annotation has the id of an image"):
        read_source(annotated(tmp_path, annotations=[stray]))


@pytest.mark.parametrize(
    "cell",
    [
        {"segmentation": {"size": [9, 9], "counts": "abc"}},
        {"segmentation": {"size": [9, 9], "counts": [3, 4]}},
        {"segmentation": []},
        {"segmentation": None, "bbox": None},
        {"bbox": [float("nan"), 0, 1, 1]},
        {"bbox": [10**400, 0, 1, 1]},
        {"bbox": {"x": 1}},
    ],
)
def test_a_cell_without_a_place_is_counted_alone(tmp_path: Path, cell: dict[str, Any]) -> None:
    source = annotated(tmp_path, annotations=[*CELLS, {"image_id": 7} | cell])
    assert [(frame.count, frame.centres) for frame in read_source(source)] == [(3, None), (0, ())]


def test_a_path_as_windows_writes_it_is_found(tmp_path: Path) -> None:
    images = [{"id": 7, "file_name": r"images\A172_Phase_C7_1.tif"}]
    assert read_source(annotated(tmp_path, images=images))[0].problem is None


def test_a_file_that_is_missing_or_elsewhere_is_never_read(tmp_path: Path) -> None:
    (tmp_path / "secret.tif").touch()
    names = ["gone.tif", "../secret.tif", str(tmp_path / "secret.tif"), "", "a\0.tif", "a" * 300]
    source = annotated(tmp_path / "set", images=[{"id": n, "file_name": name} for n, name in enumerate(names, 7)])
    frames = read_source(source)
    assert {frame.problem for frame in frames} == {"the file is missing"}
    assert all(Path(frame.image.place).is_relative_to(tmp_path / "set") for frame in frames)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"images": 3, "annotations": []}',
        '{"images": [], "annotations": []}',
        '{"images": [{}], "annotations": {"1": 5}}',
        '{"images": [{}], "annotations": {"1": [{}]}}',
    ],
)
def test_what_is_not_coco_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=r"a\.json"):
        read_source(tmp_path / "a.json")
