"""COCO annotations in LIVECell's form and in others."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from cellnet.bank.bank import Bank
from cellnet.bank.frames import Frame
from cellnet.bank.prepare import prepare, prepare_all
from cellnet.errors import DataError
from cellnet.images.file import encode_png
from cellnet.readers import Options, read_source
from tests import factories

IMAGES = [{"id": 7, "file_name": "A172_Phase_C7_1.tif"}, {"id": 8, "file_name": "BV2_Phase_D1_1.tif"}]
CELLS = [
    {"id": 1, "image_id": 7, "category_id": 1, "bbox": [10, 20, 4, 6]},
    {"id": 2, "image_id": 7, "category_id": 1, "segmentation": [[0, 0, 8, 0, 8, 2]]},
    {"id": 3, "image_id": 7, "category_id": 1, "bbox": [0, 0, 90, 90], "iscrowd": 1},
]


def frames_of(source: Path, options: Options | None = None) -> list[Frame]:
    """What a bank would keep of a source."""
    store = Bank.create(source.parent / "bank").store
    return [prepare(file, store) for file in read_source(source, options)]


def drawn(path: Path, height: int = 60, width: int = 80) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(factories.noise(height, width, seed=len(str(path)))))
    return path


def coco(folder: Path, *cells: dict[str, Any], name: str = "ann.json", **parts: Any) -> Path:
    """A file of annotations of a.png, 80×60 pixels, that lies beside it."""
    drawn(folder / "a.png")
    image = {"id": 1, "file_name": "a.png", "width": 80, "height": 60} | parts.pop("image", {})
    numbered = [{"id": n, "image_id": 1, "category_id": 1} | cell for n, cell in enumerate(cells, start=1)]
    found = {"images": [image], "annotations": numbered, "categories": [{"id": 1, "name": "cell"}]} | parts
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(found))
    return folder / name


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
    assert second.problem == (
        "its cells are of several categories: A172, BV2; give --lineage-pattern, or count those of one by --population "
        "'A172', or of all"
    )
    both = read_source(source, Options(lineage_pattern="^([^_]+)_"))
    assert [(frame.lineage, frame.problem) for frame in both] == [("A172", None), ("BV2", None)]


@pytest.mark.parametrize("of", [str, float])
def test_an_id_is_the_same_as_text_or_with_a_point(tmp_path: Path, of: type) -> None:
    cells = [cell | {"image_id": of(7), "iscrowd": of(cell.get("iscrowd", 0))} for cell in CELLS]
    assert [frame.count for frame in read_source(annotated(tmp_path, annotations=cells))] == [2, 0]


def test_cells_of_images_that_are_not_listed_are_told(tmp_path: Path) -> None:
    strays = [{"id": n, "image_id": 99, "bbox": [1, 2, 3, 4]} for n in (4, 5)]
    found = read_source(annotated(tmp_path, annotations=[*CELLS, *strays]))
    assert found[0].count == 2
    assert [(each.what, each.reason, each.number) for each in found.unused] == [
        ("annotations.json: cells of image 99", "no_image", 2),
        ("annotations.json: crowds of A172_Phase_C7_1.tif", "crowd", 1),
    ]
    with pytest.raises(DataError, match="no annotation has the id of an image"):
        read_source(annotated(tmp_path, annotations=strays))


@pytest.mark.parametrize(
    "cell",
    [
        {"segmentation": {"size": [9, 9], "counts": "abc"}},
        {"segmentation": {"size": [9, 9], "counts": [3, 400]}},
        {"segmentation": {"size": [9, 9], "counts": [81]}},
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


ROOT_CATEGORY = [
    {"id": 0, "name": "cells", "supercategory": "none"},
    {"id": 1, "name": "cell", "supercategory": "cells"},
]
TREE = [{"id": 1, "name": "cell", "supercategory": "A549"}, {"id": 2, "name": "cell", "supercategory": "HeLa"}]


def test_the_root_of_a_tree_of_categories_is_no_lineage(tmp_path: Path) -> None:
    source = coco(tmp_path, {"bbox": [1, 2, 4, 6]}, name="_annotations.coco.json", categories=ROOT_CATEGORY)
    (file,) = read_source(tmp_path)  # as Roboflow exports it, the folder is enough
    assert (file.image.place, file.lineage, file.count, file.centres) == (str(tmp_path / "a.png"), None, 1, ((3, 5),))
    lines = [*ROOT_CATEGORY, {"id": 2, "name": "A549", "supercategory": "cells"}]
    source = coco(tmp_path / "lines", {"bbox": [1, 2, 4, 6], "category_id": 2}, categories=lines)
    assert [file.lineage for file in read_source(source)] == ["A549"]


def test_where_all_categories_have_one_name_their_parents_are_the_lineages(tmp_path: Path) -> None:
    source = coco(tmp_path, {"bbox": [1, 2, 4, 6], "category_id": 2}, categories=TREE)
    assert [file.lineage for file in read_source(source)] == ["HeLa"]


def test_a_category_that_is_named_like_its_own_parent_is_one(tmp_path: Path) -> None:
    categories = [{"id": n, "name": name, "supercategory": name} for n, name in enumerate(("A549", "HeLa"), start=1)]
    assert read_source(coco(tmp_path, {"bbox": [1, 2, 4, 6]}, categories=categories))[0].lineage == "A549"


def test_a_category_that_is_not_listed_is_a_problem(tmp_path: Path) -> None:
    source = coco(tmp_path, {"bbox": [1, 2, 4, 6], "category_id": 7}, categories=[TREE[0], {"id": 2, "name": "live"}])
    assert read_source(source)[0].problem == "its cells are of the category 7 (not listed); export the categories too"


def test_the_cells_of_one_category_or_of_all_are_counted_on_request(tmp_path: Path) -> None:
    categories = [{"id": 1, "name": "live"}, {"id": 2, "name": "dead"}]
    cells = [{"bbox": [n, 2, 4, 6], "category_id": kind} for n, kind in enumerate((1, 1, 2))]
    source = coco(tmp_path, *cells, categories=categories)
    assert "several categories: dead, live" in (read_source(source)[0].problem or "")
    asked = {name: read_source(source, Options(population=name))[0] for name in ("live", "dead", "all")}
    assert {name: (file.count, file.lineage, file.problem) for name, file in asked.items()} == {
        "live": (2, None, None),
        "dead": (1, None, None),
        "all": (3, None, None),
    }
    assert read_source(source, Options(population="live")).unused == []
    with pytest.raises(DataError, match="has no category Live; it has dead, live"):
        read_source(source, Options(population="Live"))


def test_no_categories_at_all_are_no_lineages(tmp_path: Path) -> None:
    assert [
        (file.lineage, file.count) for file in read_source(coco(tmp_path, {"bbox": [1, 2, 4, 6]}, categories=[]))
    ] == [(None, 1)]


@pytest.mark.parametrize("said", [1, 1.0, True, "1", "true", "True"])
def test_a_crowd_is_no_cell_however_it_is_said(tmp_path: Path, said: object) -> None:
    found = read_source(coco(tmp_path, {"bbox": [1, 2, 4, 6]}, {"bbox": [0, 0, 50, 50], "iscrowd": said}))
    assert (found[0].count, found[0].centres) == (1, ((3, 5),))
    assert [(each.what, each.reason) for each in found.unused] == [("ann.json: crowds of a.png", "crowd")]


@pytest.mark.parametrize("said", [0, 0.0, False, "0", "false", None])
def test_a_cell_is_no_crowd_however_it_is_said(tmp_path: Path, said: object) -> None:
    found = read_source(coco(tmp_path, {"bbox": [1, 2, 4, 6], "iscrowd": said}))
    assert (found[0].count, found.unused) == (1, [])


def test_an_annotation_that_is_there_twice_is_one_cell(tmp_path: Path) -> None:
    cell = {"id": 5, "bbox": [1, 2, 4, 6]}
    found = read_source(coco(tmp_path, cell, cell))
    assert found[0].count == 1
    assert [(each.what, each.reason, each.number) for each in found.unused] == [
        ("ann.json: annotations", "duplicate", 1)
    ]
    other = cell | {"bbox": [30, 2, 4, 6]}  # ids begin again where files were joined
    assert read_source(coco(tmp_path, cell, other))[0].centres == ((3, 5), (32, 5))


def test_images_that_cannot_be_told_apart_are_set_aside(tmp_path: Path) -> None:
    drawn(tmp_path / "b.png")
    images = [{"id": 1, "file_name": "a.png"}, {"id": 1, "file_name": "b.png"}, {"id": 2, "file_name": "c.png"}]
    first, second, third = read_source(coco(tmp_path, {"bbox": [1, 2, 4, 6]}, images=images))
    assert first.problem == second.problem == ("the id 1 is that of several images, a.png and b.png; export them again")
    assert third.problem == "the file is missing"
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "a.png"}]
    both = read_source(coco(tmp_path, {"bbox": [1, 2, 4, 6]}, images=images))
    assert {file.problem for file in both} == {"it is listed several times, with the ids 1 and 2; export it once"}
    same = read_source(coco(tmp_path, {"bbox": [1, 2, 4, 6]}, images=[images[0], images[0]]))
    assert [(file.count, file.problem) for file in same] == [(1, None)]


def test_an_image_of_an_address_on_the_web_is_the_file_of_its_name(tmp_path: Path) -> None:
    drawn(tmp_path / "my cells.png")
    images = [
        {"id": 1, "file_name": "https://example.org/x/a.png?size=9"},
        {"id": 2, "coco_url": "http://example.org/my%20cells.png"},
    ]
    found = read_source(coco(tmp_path, {"bbox": [1, 2, 4, 6]}, images=images))
    assert [(Path(file.image.place).name, file.count, file.problem) for file in found] == [
        ("a.png", 1, None),
        ("my cells.png", 0, None),
    ]


def split_images(folder: Path) -> None:
    for name in ("train/0001.png", "train/0002.png", "val/0001.png"):
        drawn(folder / name)


def places(source: Path) -> list[tuple[str, str | None]]:
    """Of each image, where it lies below the folder `set`, and its problem."""
    return [(Path(file.image.place).as_posix().rpartition("/set/")[2], file.problem) for file in read_source(source)]


def test_one_name_in_two_folders_is_told_apart_by_its_path(tmp_path: Path) -> None:
    split_images(tmp_path / "set")
    images = [{"id": n, "file_name": f"{name}/0001.png"} for n, name in enumerate(("train", "val"), start=1)]
    source = coco(tmp_path / "set", {"bbox": [1, 2, 4, 6], "image_id": 2}, images=images)
    assert places(source) == [("train/0001.png", None), ("val/0001.png", None)]
    assert [file.count for file in read_source(source)] == [0, 1]


def test_one_name_in_two_folders_is_ambiguous_without_a_path(tmp_path: Path) -> None:
    split_images(tmp_path / "set")
    images = [{"id": n, "file_name": f"000{n}.png"} for n in (1, 2)]
    source = coco(tmp_path / "set", {"bbox": [1, 2, 4, 6]}, images=images)
    said = "0001.png may be train/0001.png or val/0001.png; write the folder too"
    assert places(source) == [("train/0001.png", said), ("train/0002.png", None)]


@pytest.mark.parametrize("name", ["instances_val2017.json", "val.json", "annotations/cells_val.json"])
def test_the_name_of_the_file_says_the_folder_of_its_images(tmp_path: Path, name: str) -> None:
    split_images(tmp_path / "set")
    images = [{"id": 1, "file_name": "0001.png"}, {"id": 2, "file_name": "0002.png"}]
    source = coco(tmp_path / "set", {"bbox": [1, 2, 4, 6]}, images=images, name=name)
    assert places(source)[0] == ("val/0001.png", None)
    assert places(source)[1][1] == "the file is missing"  # that of train/ is another


def test_annotations_lie_in_a_folder_beside_that_of_the_images(tmp_path: Path) -> None:
    drawn(tmp_path / "set" / "train2017" / "a.png")
    source = coco(tmp_path / "set", {"bbox": [1, 2, 4, 6]}, name="annotations/instances_train2017.json")
    (tmp_path / "set" / "a.png").unlink()
    assert places(source) == [("train2017/a.png", None)]


def test_a_folder_that_is_not_there_is_forgiven_unless_two_images_come_to_one(tmp_path: Path) -> None:
    one = {"id": 1, "file_name": "D:\\export\\a.png"}
    source = coco(tmp_path / "set", {"bbox": [1, 2, 4, 6]}, images=[one])
    assert places(source) == [("a.png", None)]
    images = [{"id": 1, "file_name": "day1/a.png"}, {"id": 2, "file_name": "day2/a.png"}]
    said = "several images may be a.png; write their folders into file_name"
    assert places(coco(tmp_path / "set", {"bbox": [1, 2, 4, 6]}, images=images)) == [("a.png", said)] * 2


def test_a_path_of_another_machine_is_known_by_its_name_alone(tmp_path: Path) -> None:
    drawn(tmp_path / "set" / "images" / "b.png")
    for written in (
        "/home/me/frames/b.png",
        "D:\\frames\\b.png",
        "https://example.org/frames/b.png?x=1",
        "b.jpg",
        "../../up/b.png",
    ):
        source = coco(tmp_path / "set", {"bbox": [1, 2, 4, 6]}, images=[{"id": 1, "file_name": written}])
        assert places(source) == [("images/b.png", None)]
    source = coco(tmp_path / "set", {"bbox": [1, 2, 4, 6]}, images=[{"id": 1, "file_name": "A172/b.png"}])
    assert places(source)[0][1] == "the file is missing"  # the folder of another lineage is none to forgive


def test_a_file_of_any_suffix_is_found_at_its_very_path(tmp_path: Path) -> None:
    drawn(tmp_path / "set" / "frame 7")
    source = coco(tmp_path / "set", {"bbox": [1, 2, 4, 6]}, images=[{"id": 1, "file_name": "frame 7"}])
    assert places(source) == [("frame 7", None)]
    (tmp_path / "set" / "out").symlink_to(tmp_path)
    source = coco(tmp_path / "set", {"bbox": [1, 2, 4, 6]}, images=[{"id": 1, "file_name": "out/set/../secret"}])
    (tmp_path / "secret").touch()
    assert places(source)[0][1] == "the file is missing"


def test_of_several_images_of_a_name_the_one_in_the_folder_of_images_is_meant(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        drawn(tmp_path / "set" / folder / "b.png")
    source = coco(tmp_path / "set", {"bbox": [1, 2, 4, 6]}, images=[{"id": 1, "file_name": "b.png"}])
    assert places(source) == [("images/b.png", None)]


def test_an_image_is_found_by_letters_of_another_case_and_other_accents(tmp_path: Path) -> None:
    drawn(tmp_path / "set" / "Zelle\u0301.PNG")
    images = [{"id": 1, "file_name": "zell\u00e9.png"}]
    assert places(coco(tmp_path / "set", {"bbox": [1, 2, 4, 6]}, images=images)) == [("Zelle\u0301.PNG", None)]


def test_images_that_are_not_listed_are_told(tmp_path: Path) -> None:
    for name in ("b.png", "c.png"):
        drawn(tmp_path / name)
    found = read_source(coco(tmp_path, {"bbox": [1, 2, 4, 6]}))
    assert [(each.what, each.reason, each.number) for each in found.unused] == [
        (f"images in {tmp_path}", "no_label", 2)
    ]


def test_no_annotations_at_all_are_no_counts_of_zero(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no annotations, of any image"):
        read_source(coco(tmp_path))


def test_centres_are_scaled_to_the_size_of_the_file(tmp_path: Path) -> None:
    half = {"image": {"width": 160, "height": 120}}
    (frame,) = frames_of(coco(tmp_path, {"bbox": [100, 60, 20, 20]}, **half))
    assert (frame.count, frame.centres, frame.set_aside) == (1, [[55, 35]], None)


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ((60, 80), "it was turned, perhaps by a camera's note of how it was held; make labels for the image as it is"),
        ((160, 60), "its labels were made for 160×60 pixels, but it has 80×60; make labels"),
        ((100, 100), "its labels were made for 100×100 pixels, but it has 80×60; make labels"),
    ],
)
def test_an_image_that_was_cut_or_turned_since_is_set_aside(tmp_path: Path, size: tuple[int, int], said: str) -> None:
    source = coco(tmp_path, {"bbox": [10, 10, 20, 20]}, image={"width": size[0], "height": size[1]})
    (frame,) = frames_of(source)
    assert said in (frame.set_aside or "")


@pytest.mark.parametrize(
    "size", [{"width": 0, "height": 0}, {"width": None}, {"width": "?", "height": 3}, {"width": 1e400}]
)
def test_a_size_that_is_none_is_not_asked_for(tmp_path: Path, size: dict[str, Any]) -> None:
    (frame,) = frames_of(coco(tmp_path, {"bbox": [10, 10, 20, 20]}, image=size))
    assert (frame.centres, frame.set_aside) == ([[20, 20]], None)


def test_a_size_that_was_rounded_is_one_factor_all_the_same(tmp_path: Path) -> None:
    (frame,) = frames_of(coco(tmp_path, {"bbox": [0, 0, 318, 238]}, image={"width": 321, "height": 241}))
    assert frame.centres == [[pytest.approx(159 * 80 / 321), pytest.approx(119 * 60 / 241)]]


def test_boxes_of_two_corners_are_read_as_such(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    boxes = [[60, 40, 70, 50], [10, 10, 20, 30]]
    with caplog.at_level(logging.WARNING):
        (frame,) = frames_of(coco(tmp_path, *({"bbox": box} for box in boxes)))
    assert frame.centres == [[65, 45], [15, 20]]
    assert "read as two corners, like [60.0, 40.0, 70.0, 50.0]" in caplog.text


def test_boxes_that_leave_their_image_a_little_are_sizes(tmp_path: Path) -> None:
    boxes = [[70, 50, 12, 12], [10, 10, 20, 30]]  # 12 is no right side of what begins at 70
    assert [frame.centres for frame in frames_of(coco(tmp_path, *({"bbox": box} for box in boxes)))] == [
        [[76, 56], [20, 25]]
    ]


def test_many_boxes_that_are_larger_than_they_are_far_away_are_corners_without_a_size_too(tmp_path: Path) -> None:
    cells = [{"bbox": [n, n, n + 4, n + 6]} for n in range(10, 18)]
    source = coco(tmp_path, *cells, image={"width": None})
    assert read_source(source)[0].centres == tuple((n + 2, n + 3) for n in range(10, 18))
    few = coco(tmp_path / "few", *cells[:7], image={"width": None})
    assert read_source(few)[0].centres == tuple((n + (n + 4) / 2, n + (n + 6) / 2) for n in range(10, 17))


def test_boxes_that_are_shares_of_the_image_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"its boxes, like \[0.5, 0.5, 0.1, 0.1\], are shares of the image"):
        read_source(coco(tmp_path, {"bbox": [0.5, 0.5, 0.1, 0.1]}, {"bbox": [0.1, 0.1, 0.2, 0.2]}))


@pytest.mark.parametrize(
    ("cell", "centre"),
    [
        ({"bbox": [5, 5, 0, 0], "segmentation": [[10, 10, 30, 10, 30, 30]]}, (20, 20)),
        ({"bbox": [5, 5, 0, 0], "segmentation": []}, (5, 5)),
        ({"bbox": [], "segmentation": [10, 10, 30, 10, 30, 30]}, (20, 20)),
        ({"bbox": [], "keypoints": [7, 8, 2]}, (7, 8)),
        ({"segmentation": {"size": [60, 80], "counts": [130, 10, 4660]}}, (2.5, 15)),
        ({"segmentation": {"size": [60, 80], "counts": [130, 10]}}, (2.5, 15)),
        ({"segmentation": {"size": [60, 80], "counts": [110, 20, 4670]}}, (2, 30)),  # over two columns
    ],
)
def test_a_cell_without_a_box_lies_where_its_outline_does(
    tmp_path: Path, cell: dict[str, Any], centre: tuple[float, float]
) -> None:
    assert [(file.count, file.centres) for file in read_source(coco(tmp_path, cell))] == [(1, (centre,))]


def test_half_characters_in_names_set_no_more_aside_than_their_image(tmp_path: Path) -> None:
    names = [{"id": 1, "name": "A\ud800"}, {"id": 2, "name": "B"}]
    box = {"bbox": [10, 20, 4, 6]}
    images = [{"id": n, "file_name": name} for n, name in enumerate(("a.png", "gone\udfff.png", "x\0.png"), start=1)]
    frames = frames_of(coco(tmp_path, box, box | {"image_id": 2, "category_id": 2}, categories=names, images=images))
    assert [(frame.lineage, frame.set_aside) for frame in frames] == [
        ("A\N{REPLACEMENT CHARACTER}", None),
        (None, "the file is missing"),
        (None, "the file is missing"),
    ]
    bank = Bank.create(tmp_path / "kept")
    bank.add([frame for frame in frames if frame.set_aside is None])
    assert Bank.open(tmp_path / "kept").lineages == ["A\N{REPLACEMENT CHARACTER}"]
    assert len(prepare_all(read_source(tmp_path / "ann.json"), bank.store)) == 3, "and what is kept of them has a name"


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"images": ' + '{"a":' * 100_000,
        '{"images": [{"id": ' + "9" * 5000 + "}]}",
    ],
)
def test_json_that_is_too_deep_or_too_long_in_a_number_is_refused_in_a_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=r"a\.json is not readable as JSON \(.*\); export it again"):
        read_source(tmp_path / "a.json")


def test_numbers_that_are_none_place_no_cell(tmp_path: Path) -> None:
    cells: list[dict[str, Any]] = [{"bbox": [float("nan"), 1, 2, 3]}, {"bbox": [1, 1, float("inf"), 10**400]}]
    [frame] = frames_of(coco(tmp_path, *cells, image={"width": float("nan"), "height": 10**400}))
    assert (frame.count, frame.centres, frame.set_aside) == (2, None, None)


def test_a_file_of_more_annotations_than_there_is_memory_for_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cellnet.readers.coco.MOST_OBJECTS", 4)
    with pytest.raises(DataError, match=r"ann.json has over 4 annotations; split it by image"):
        read_source(coco(tmp_path, *({"bbox": [1, 2, 4, 6]},) * 4))
