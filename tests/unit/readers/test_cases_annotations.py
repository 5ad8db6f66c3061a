"""COCO and labels of other tools as people bring them: the folders of cases, where they are there, value by value.

They lie in `shared/cases` beside the repository, or where CELLNET_CASES says.
"""

from pathlib import Path
from typing import Any

import pytest

from cellnet.bank.bank import Bank
from cellnet.bank.prepare import prepare
from cellnet.errors import DataError
from cellnet.readers import read_source
from tests.factories import CASES

pytestmark = pytest.mark.skipif(
    not (CASES / "readers3").is_dir(), reason="no folder of cases; CELLNET_CASES says where it lies"
)

NO_CENTRES = None
COCO: dict[str, list[tuple[Any, ...]]] = {
    # source: name, lineage, count, centres, why it is set aside
    "roboflow/_annotations.coco.json": [
        ("A549_1.png", None, 1, [[20, 20]], None),
        ("HELA_1.png", None, 2, [[20, 20], [20, 20]], None),
    ],
    "roboflow": [
        ("A549_1.png", None, 1, [[20, 20]], None),
        ("HELA_1.png", None, 2, [[20, 20], [20, 20]], None),
    ],
    "roboflow_dead_live/ann.json": [("a.png", None, None, None, "its cells are of several categories: dead, live; ")],
    "two_cats_one_used/ann.json": [("a.png", "live", 1, [[20, 20]], None), ("b.png", "dead", 1, [[20, 20]], None)],
    "no_categories/ann.json": [("a.png", None, 1, [[20, 20]], None)],
    "zero_cells/ann.json": [("a.png", None, 1, [[20, 20]], None), ("b.png", None, 0, [], None)],
    "same_names_in_split_folders/ann.json": [
        ("0001.png", None, None, None, "0001.png may be train/0001.png or val/0001.png; write the folder too"),
        ("0002.png", None, 1, [[20, 20]], None),
    ],
    "standard_layout/annotations/instances_train2017.json": [("a.png", None, 1, [[20, 20]], None)],
    "scaled/ann.json": [("a.png", None, 2, [[155, 155], [10, 10]], None)],
    "scaled2/ann.json": [("a.png", None, 2, [[105, 105], [10, 10]], None)],
    "bbox_xyxy/ann.json": [("a.png", None, 1, [[215, 215]], None)],
    "bbox_zero/ann.json": [("a.png", None, 3, NO_CENTRES, None)],
    "crowd_true/ann.json": [("a.png", None, 1, [[20, 20]], None)],
    "rle_uncompressed/ann.json": [("a.png", None, 1, [[10.5, 15]], None)],
    "dup_annotations/ann.json": [("a.png", None, 1, [[20, 20]], None)],
    "dup_image_ids/ann.json": [
        ("a.png", None, None, None, "the id 1 is that of several images, a.png and b.png; "),
        ("b.png", None, None, None, "the id 1 is that of several images, a.png and b.png; "),
    ],
    "url_names/ann.json": [("a.png", None, 1, [[20, 20]], None)],
}
REFUSED = {
    "bbox_normalised/ann.json": "its boxes, like [0.5, 0.5, 0.1, 0.1], are shares of the image; export them in pixels",
    "labelme/a.json": "annotations of labelme, which are not read here; turn them into COCO (labelme2coco)",
    "labelme": "annotations of labelme, which are not read here; turn them into COCO (labelme2coco)",
    "via/via.csv": "annotations of VIA, which are not read here; export them as COCO",
    "via": "annotations of VIA, which are not read here; export them as COCO",
    "yolo": "annotations of YOLO, which are not read here; turn them into COCO",
}


def case(name: str) -> Path:
    return CASES / "readers3" / name


@pytest.mark.parametrize("source", COCO)
def test_a_case_of_coco_comes_out_as_it_is_right(tmp_path: Path, source: str) -> None:
    store = Bank.create(tmp_path / "bank").store
    frames = [prepare(file, store) for file in read_source(case(source))]
    assert len(frames) == len(COCO[source])
    for frame, (name, lineage, count, centres, aside) in zip(frames, COCO[source], strict=True):
        assert (Path(frame.source).name, frame.lineage, frame.count, frame.centres) == (name, lineage, count, centres)
        assert (frame.set_aside or "").startswith(aside or "") and bool(frame.set_aside) == bool(aside)


@pytest.mark.parametrize("source", REFUSED)
def test_a_case_that_is_not_read_is_refused_by_name(source: str) -> None:
    with pytest.raises(DataError) as refused:
        read_source(case(source))
    assert REFUSED[source] in str(refused.value)
    assert "\n" not in str(refused.value)


def test_each_name_of_a_case_is_that_of_its_own_folder() -> None:
    placed = [
        Path(file.image.place).relative_to(case("")).as_posix()
        for file in read_source(case("standard_layout/annotations/instances_train2017.json"))
    ]
    assert placed == ["standard_layout/train2017/a.png"]
    split = read_source(case("same_names_in_split_folders/ann.json"))
    assert Path(split[1].image.place).parent.name == "train"
