"""Tables, folders and masks as people bring them: each is read as a person would, or refused with the reason.

The tests make a small copy of each kind. Where the folder of collected cases lies beside the repository, as
`shared/cases`, or where CELLNET_CASES says, each of them is read, too.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from cellnet.bank.bank import Bank
from cellnet.bank.frames import Frame
from cellnet.bank.outliers import unlike_the_rest
from cellnet.bank.prepare import prepare
from cellnet.errors import DataError
from cellnet.images.file import ImageFile, encode_png
from cellnet.images.masks import VOC_BORDER, cells_of_mask
from cellnet.readers import Options, Source, read_source
from tests.factories import CASES

HEADER = "image,lineage,count,group\n"


@dataclass(frozen=True)
class Read:
    """A source as a bank has it."""

    source: Source
    frames: list[Frame]

    @property
    def counts(self) -> list[float | None]:
        assert [frame.set_aside for frame in self.frames if frame.set_aside] == []
        return [frame.count for frame in self.frames]

    @property
    def centres(self) -> list[int | None]:
        """How many centres each frame has."""
        return [None if frame.centres is None else len(frame.centres) for frame in self.frames]

    @property
    def problems(self) -> list[str]:
        return [frame.set_aside for frame in self.frames if frame.set_aside]

    @property
    def reasons(self) -> list[tuple[str, int]]:
        return [(item.reason, item.number) for item in self.source.unused]


def take(folder: Path, bank: Path, options: Options | None = None) -> Read:
    source = read_source(folder, options)
    store = Bank.create(bank).store
    return Read(source, [prepare(file, store) for file in source])


def grey(seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (48, 64)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def put(folder: Path, *names: str) -> None:
    """Images of these names, no two alike."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encode_png(grey(sum(name.encode()))))


# Tables


@pytest.mark.parametrize(
    ("data", "lineage", "count"),
    [
        (b"\xef\xbb\xbfimage,lineage,count,group\r\na.png,A549,12,w1\r\n", "A549", 12),
        (b"image,lineage,count,group\ra.png,A549,12,w1\r", "A549", 12),
        ((HEADER + "a.png,Zellinie Ü,12,w1\n").encode("cp1252"), "Zellinie Ü", 12),
        ((HEADER + "a.png,A549,12,w1\n").encode("utf-16"), "A549", 12),
        ((HEADER + "a.png,A549,12,w1\n").encode("utf-16-le"), "A549", 12),
        ((HEADER + "a.png,A549,12,w1\n").encode("utf-16-be"), "A549", 12),
        ((HEADER + "a.png,A549,12,w1\n").replace(",", "\t").encode("utf-16"), "A549", 12),
        (b"sep=;\r\nimage;lineage;count;group\r\na.png;A549;12;w1\r\n", "A549", 12),
        (b" Image , LINEAGE , Count , Group \n a.png , A549 , 12 , w1 \n", "A549", 12),
        ("image,lineage,count,group\na.png,A549\u00a0,12\u202f,w1\n".encode(), "A549", 12),
        (b"# counted by Anna\nimage,lineage,count,group\n# on Tuesday,,,\na.png,A549,12,w1\n\n,,,\n,,,\n", "A549", 12),
        (b"image,lineage,count,group,,\na.png,A549,12,w1,,,,\n", "A549", 12),
        (b"image,lineage,count,group\na.png,A549,12\n", "A549", 12),
        (b'"image";"lineage";"count";"group"\n"a.png";"A549";"12,5";"w1"\n', "A549", 12.5),
        (b'image,lineage,count,group\na.png,A549,"12,5",w1\n', "A549", 12.5),
        (b'image,lineage,count,group\na.png,A549,"1,234",w1\n', "A549", 1234),
        (b'image,lineage,count,group\na.png,A549,"1,234,567",w1\n', "A549", 1234567),
        (b"image,lineage,count,group\na.png,A549,12.345,w1\n", "A549", 12.345),
        (b"image;lineage;count;group\na.png;A549;1.234,0;w1\n", "A549", 1234),
        (b"image;lineage;count;group\na.png;A549;1 234;w1\n", "A549", 1234),
        ("image;lineage;count;group\na.png;A549;1\u202f234,5;w1\n".encode(), "A549", 1234.5),
        (b"image;lineage;count;group\na.png;A549;1'234;w1\n", "A549", 1234),
        (b"image;lineage;count;group;time_h\na.png;A549;1.234;w1;0,5\n", "A549", 1234),
        (b"image;lineage;count;group;time_h\na.png;A549;1.234;w1;0.5\n", "A549", 1.234),
        (b"image,lineage,count,group\na.png,A549,1e2,w1\n", "A549", 100),
        *[
            (HEADER.encode() + f"a.png,{word},{word},w1\n".encode(), None, None)
            for word in ("NA", "n/a", "nan", "-", "–", "?", "", "None", "#N/A", "unknown")
        ],
    ],
)
def test_a_table_is_read_as_a_person_would(
    folder: Path, tmp_path: Path, data: bytes, lineage: str | None, count: float | None
) -> None:
    put(folder, "a.png")
    (folder / "manifest.csv").write_bytes(data)
    [frame] = take(folder, tmp_path / "bank").frames
    assert (frame.set_aside, frame.lineage, frame.count) == (None, lineage, count)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("a.png;A549;1.234;w1", "the count '1.234' may be 1234 or a fraction; write it without the mark"),
        ("a.png;A549;1,234;w1", "the count '1,234' may be 1234 or a fraction; write it without the mark"),
        ("a.png;A549;95%;w1", "the count '95%' is not a number of cells"),
        ("a.png;A549;-3;w1", "the count '-3' is not a number of cells"),
        ("a.png;A549;1_2;w1", "the count '1_2' is not a number of cells"),
        ("a.png;A549;0x12;w1", "the count '0x12' is not a number of cells"),
        ("a.png;A549;12,;w1", "the count '12,' is not a number of cells"),
        (
            "a.png;A549;12;w1\na.png;A549;15;w1",
            "manifest.csv lines 2 and 3 say 12 and 15 as its count; keep one of them",
        ),
        (
            "a.png;A549;;w1\n./A.PNG;HELA;;w1",
            "manifest.csv lines 2 and 3 say A549 and HELA as its lineage; keep one of them",
        ),
    ],
)
def test_what_a_row_says_wrong_sets_its_image_aside(folder: Path, tmp_path: Path, row: str, problem: str) -> None:
    put(folder, "a.png")
    (folder / "manifest.csv").write_text(HEADER.replace(",", ";") + row + "\n")
    assert take(folder, tmp_path / "bank").problems == [problem]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (HEADER + "a,1.png,A549,12,w1\n", r"manifest.csv line 2 has 5 cells, its header 4; put quotes around"),
        ("image,lineage,count,group,count\na.png,A549,12,w1,13\n", r"manifest.csv has the column count twice"),
        ("picture,cells\na.png,12\n", r"has no column image, lineage, count, group; it has picture, cells and needs"),
        ("PK\x03\x04", r"manifest.csv is a workbook of Excel, not a CSV table; save it as CSV UTF-8"),
    ],
)
def test_a_table_that_nobody_can_read_is_refused(folder: Path, table: str, said: str) -> None:
    put(folder, "a.png")
    (folder / "manifest.csv").write_text(table)
    with pytest.raises(DataError, match=said):
        read_source(folder)


@pytest.mark.parametrize(
    ("file", "written"),
    [
        ("sub/a.png", "sub\\a.png"),
        ("sub/a.png", "a.png"),
        ("a.png", "a.PNG"),
        ("a.png", "a"),
        ("a.tif", "a.czi"),
        ("a.png", "file:///a.png"),
        ("a.png", "C:\\plates\\one\\a.png"),
        ("a,1.png", "a,1.png"),
        ("Za\u0308hlung.png", "Z\u00e4hlung.png"),
        ("a b#1%20ü&(1).png", "a b#1%20ü&(1).png"),
    ],
)
def test_a_row_finds_its_image(folder: Path, tmp_path: Path, file: str, written: str) -> None:
    put(folder, file, "z.png")
    (folder / "manifest.csv").write_text("image;lineage;count;group\n" + f"{written};A549;12;w1\n", encoding="utf-8")
    read = take(folder, tmp_path / "bank")
    assert read.counts == [12]
    assert Path(read.frames[0].source) == folder / file
    assert read.reasons == ([("no_label", 1)] if "/" not in file else [])


def test_a_row_that_could_mean_two_images_is_set_aside_with_their_names(folder: Path, tmp_path: Path) -> None:
    put(folder, "A172/x.png", "A549/x.png", "b.png")
    (folder / "manifest.csv").write_text(HEADER + "x.png,A549,12,\nb.png,A549,3,\n")
    assert take(folder, tmp_path / "bank").problems == ["x.png may be A172/x.png or A549/x.png; write the folder too"]


def test_rows_that_say_the_same_are_one_and_rows_that_complete_each_other_too(folder: Path, tmp_path: Path) -> None:
    put(folder, "a.png", "b.png")
    rows = "a.png,A549,12,w1\na.png,A549,12,w1\nb.png,A549,,w2\nb.png,,7,\n"
    (folder / "manifest.csv").write_text(HEADER + rows)
    read = take(folder, tmp_path / "bank")
    assert [(frame.lineage, frame.count, frame.group) for frame in read.frames] == [
        ("A549", 12, "w1"),
        ("A549", 7, "w2"),
    ]
    assert [(item.reason, item.what, item.why) for item in read.source.unused] == [
        ("duplicate", "manifest.csv line 3: a.png", "line 2 says the same")
    ]


def test_images_beside_the_rows_are_listed(folder: Path, tmp_path: Path) -> None:
    put(folder, "a.png", "b.png", "deep/c.png")
    (folder / "manifest.csv").write_text(HEADER + "a.png,A549,12,w1\n")
    assert [(item.reason, item.what) for item in take(folder, tmp_path / "bank").source.unused] == [
        ("no_label", "b.png")
    ]


def points(folder: Path, rows: str, manifest: str = "a.png,A549,,w1\n") -> None:
    (folder / "manifest.csv").write_text(HEADER + manifest)
    (folder / "points.csv").write_text("image,x,y\n" + rows)


@pytest.mark.parametrize("written", ["a.png", "A.png", "a", "./a.png", "sub\\a.png", "sub/a.png"])
def test_points_find_their_image(folder: Path, tmp_path: Path, written: str) -> None:
    put(folder, "sub/a.png")
    points(folder, f"{written},10,20\n{written},30,40\n", "sub/a.png,A549,,w1\n")
    read = take(folder, tmp_path / "bank")
    assert (read.counts, read.frames[0].centres, read.reasons) == ([2], [[10, 20], [30, 40]], [])


def test_points_of_no_image_are_listed_and_counted(folder: Path, tmp_path: Path) -> None:
    put(folder, "a.png")
    points(folder, "a.png,10,20\nb.png,1,2\nb.png,3,4\n")
    [unused] = take(folder, tmp_path / "bank").source.unused
    assert (unused.reason, unused.number, unused.what, unused.why) == (
        "no_image", 2, "points.csv line 3: b.png", "there is no image b.png"
    )  # fmt: skip


def test_points_of_no_image_at_all_are_refused(folder: Path) -> None:
    put(folder, "a.png")
    points(folder, "b.png,10,20\n")
    with pytest.raises(DataError, match=r"points.csv: no point of its 1 is of an image here, the first of 'b.png'"):
        read_source(folder)


def test_points_that_two_images_could_have_set_both_aside(folder: Path, tmp_path: Path) -> None:
    put(folder, "A/a.png", "B/a.png")
    points(folder, "a.png,10,20\n", "A/a.png,A,,\nB/a.png,B,,\n")
    read = take(folder, tmp_path / "bank")
    why = "a.png may be A/a.png or B/a.png; write the folder too"
    assert read.problems == [f"{why}, in points.csv"] * 2
    assert [(item.reason, item.why) for item in read.source.unused] == [("ambiguous", why)]


def test_a_point_that_is_there_twice_is_one_cell(folder: Path, tmp_path: Path) -> None:
    put(folder, "a.png")
    points(folder, "a.png,10,20\na.png,10,20\na.png,10,21\n")
    read = take(folder, tmp_path / "bank")
    assert (read.counts, read.centres, read.reasons) == ([2], [2], [("duplicate", 1)])


def test_an_image_without_points_holds_no_cell_only_if_that_is_said(folder: Path, tmp_path: Path) -> None:
    put(folder, "a.png", "b.png", "c.png")
    points(folder, "a.png,10,20\n", "a.png,A549,,\nb.png,A549,,\nc.png,A549,0,\n")
    read = take(folder, tmp_path / "bank")
    assert (read.counts, read.centres) == ([1, None, 0], [1, None, 0])
    assert [(item.reason, item.what) for item in read.source.unused] == [("no_label", "b.png")]


def test_points_at_the_edge_are_taken_and_beyond_it_refused(folder: Path, tmp_path: Path) -> None:
    put(folder, "a.png", "b.png")
    points(folder, "a.png,64,48\nb.png,650,20\nb.png,3,4\n", "a.png,,,\nb.png,,,\n")
    read = take(folder, tmp_path / "bank")
    assert read.frames[0].centres == [[64, 48]]
    assert read.problems == [
        "1 of its 2 centres lie outside its 64×48 pixels; give x and y in pixels from the upper left corner, or no "
        "centres"
    ]


# Folders


def test_counts_reach_images_by_path_and_by_bare_names_only_where_one_has_it(folder: Path, tmp_path: Path) -> None:
    put(folder, "A172/x.png", "A549/x.png", "A549/y.png", "A549/z.png")
    (folder / "counts.csv").write_text("image,count\n./A549/x.png,38\na172\\X.PNG,9\ny,31\nw.png,5\n")
    read = take(folder, tmp_path / "bank")
    assert [(frame.lineage, frame.count) for frame in read.frames] == [
        ("A172", 9), ("A549", 38), ("A549", 31), ("A549", None)
    ]  # fmt: skip
    assert [(item.reason, item.what) for item in read.source.unused] == [
        ("no_image", "counts.csv line 5: w.png"),
        ("no_label", "A549/z.png"),
    ]


def test_a_count_by_a_bare_name_that_two_lineages_have_is_given_to_neither(folder: Path, tmp_path: Path) -> None:
    put(folder, "A172/x.png", "A549/x.png", "A549/y.png")
    (folder / "counts.csv").write_text("image,count\nx.png,38\nx.png,9\ny.png,3\n")
    read = take(folder, tmp_path / "bank")
    why = "x.png may be A172/x.png or A549/x.png; write the folder too"
    assert read.problems == [f"{why}, in counts.csv"] * 2
    assert [(frame.lineage, frame.count) for frame in read.frames if not frame.set_aside] == [("A549", 3)]
    assert [(item.reason, item.number, item.why) for item in read.source.unused] == [("ambiguous", 2, why)]


def test_counts_of_no_image_at_all_are_refused(folder: Path) -> None:
    put(folder, "A549/x.png")
    (folder / "counts.csv").write_text("image,count\nq.png,38\n")
    with pytest.raises(DataError, match=r"counts.csv: no row of its 1 is of an image here, the first of 'q.png'"):
        read_source(folder)


def test_a_folder_of_lineages_may_have_points(folder: Path, tmp_path: Path) -> None:
    put(folder, "A549/x.png", "A549/y.png", "A549/z.png")
    (folder / "Points.CSV").write_text("image,x,y\nx.png,1,2\nx.png,3,4\n")
    (folder / "counts.csv").write_text("image,count\nx.png,2\ny.png,0\nz.png,NA\n")
    read = take(folder, tmp_path / "bank")
    assert (read.counts, read.centres) == ([2, 0, None], [2, 0, None])
    (folder / "counts.csv").write_text("image,count\nx.png,3\n")
    assert take(folder, tmp_path / "bank").problems == ["the count is 3, but points.csv has 2 points"]


def test_folders_of_a_split_are_read_through_and_told(folder: Path, tmp_path: Path) -> None:
    put(folder, "train/A549/a.png", "valid/A549/b.png", "Test/HELA/c.png", "train/unknown/d.png")
    read = take(folder, tmp_path / "bank")
    assert sorted((str(frame.lineage), Path(frame.source).name) for frame in read.frames) == [
        ("A549", "a.png"), ("A549", "b.png"), ("HELA", "c.png"), ("None", "d.png")
    ]  # fmt: skip
    [unused] = read.source.unused
    assert (unused.reason, unused.what, unused.number) == ("split", "test/, train/, valid/", 3)


def test_what_is_hidden_nested_loose_or_of_another_format_is_listed(folder: Path, tmp_path: Path) -> None:
    put(folder, "A549/a.png", "A549/._a.png", ".ipynb_checkpoints/a-checkpoint.png", "__MACOSX/._a.png", "loose.png")
    put(folder, "A549/day 2/b.png", "A549/a_thumb.png", "RAW/r.png")
    for name in (
        "~$counts.xlsx",
        "A549/counts.csv",
        "A549/Thumbs.db",
        "A549/c.czi",
        "A549/notes.txt",
        "counts.xlsx",
        "other.csv",
    ):
        (folder / name).touch()
    (folder / "A549" / "gone.png").symlink_to("nowhere.png")
    (folder / "A549" / "around").symlink_to(folder)
    read = take(folder, tmp_path / "bank")
    assert [(frame.lineage, Path(frame.source).name) for frame in read.frames] == [("A549", "a.png"), ("RAW", "r.png")]
    assert {item.what: item.reason for item in read.source.unused} == {
        ".ipynb_checkpoints/": "hidden",
        "__MACOSX/": "hidden",
        "A549/._a.png": "hidden",
        "A549/Thumbs.db": "hidden",
        "A549/a_thumb.png": "thumbnail",
        "A549/around/": "link",
        "A549/c.czi": "other_format",
        "A549/counts.csv": "not_an_image",
        "A549/day 2/b.png": "nested",
        "A549/gone.png": "link",
        "A549/notes.txt": "not_an_image",
        "counts.xlsx": "other_format",
        "loose.png": "no_label",
        "other.csv": "not_an_image",
        "~$counts.xlsx": "hidden",
    }


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["a.png", "b.png"],
            r"holds 2 images in no folder of a lineage, a.png the first; .* LINEAGE/\*.png, or write a",
        ),
        (["Images/a.png"], r"holds 1 images in no folder of a lineage, Images/a.png the first"),
        (
            ["train/a.png", "test/b.png"],
            r"test/, train/ are folders of a split, no lineages; .* like train/A549/f1.png",
        ),
        (["plate/A549/a.png"], r"plate/A549/a.png lies too deep; .* or write a manifest.csv"),
        (["JPEGImages/a.png", "SegmentationClass/a.png"], r"holds masks of classes and none of instances"),
    ],
)
def test_a_folder_without_lineages_is_refused_with_what_to_do(folder: Path, names: list[str], said: str) -> None:
    put(folder, *names)
    with pytest.raises(DataError, match=said):
        read_source(folder)


# Masks


def cells(dtype: Any = np.uint16) -> NDArray[Any]:
    """Five cells of 48 by 64 pixels, of which two touch, at known places."""
    mask_HW = np.zeros((48, 64), dtype)
    for number, (y, x) in enumerate(((4, 4), (4, 14), (30, 8), (20, 40), (34, 50)), start=1):
        mask_HW[y : y + 9, x : x + 10] = number
    return mask_HW


CENTRES = [[8.5, 8], [18.5, 8], [12.5, 34], [44.5, 24], [54.5, 38]]


def with_mask(folder: Path, mask: NDArray[Any], name: str = "f1.tif") -> None:
    put(folder, "images/f1.png")
    (folder / "masks").mkdir()
    if name.endswith(".tif"):
        tifffile.imwrite(folder / "masks" / name, mask)
    else:
        cv2.imwrite(str(folder / "masks" / name), mask)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("Images/f1.png", "Masks/f1.png"),
        ("images/f1.png", "labels/f1.png"),
        ("imgs/f1.png", "mask/F1.PNG"),
        ("image/f1.png", "gt/f1.png"),
        ("JPEGImages/f1.png", "SegmentationObject/f1.png"),
        ("raw/f1.png", "labels/f1.png"),
        ("img/f1.png", "ground truth/f1.png"),
        ("images/f1.png", "masks/f1_cp_masks.png"),
        ("images/f1.png", "masks/f1_mask.png"),
        ("images/f1_img.png", "masks/f1_label.png"),
        ("images/img_001.png", "masks/mask_001.png"),
        ("train/images/f1.png", "train/masks/f1.png"),
        ("images/train/f1.png", "masks/train/f1.png"),
        ("train_images/f1.png", "train_masks/f1.png"),
        ("train2017/images/f1.png", "train2017/masks_png/f1.png"),
        ("f1.png", "f1_cp_masks.png"),
        ("f1.png", "f1_labels.png"),
        ("f1_img.png", "f1_masks.png"),
    ],
)
def test_images_and_masks_are_paired_in_all_usual_spellings(
    folder: Path, tmp_path: Path, image: str, mask: str
) -> None:
    put(folder, image)
    (folder / mask).parent.mkdir(parents=True, exist_ok=True)
    (folder / mask).write_bytes(encode_png(cells()))
    read = take(folder, tmp_path / "bank")
    assert (read.counts, [frame.lineage for frame in read.frames]) == ([5], [None])
    assert read.frames[0].centres == CENTRES


def test_a_folder_that_is_neither_of_images_nor_masks_is_the_lineage(folder: Path, tmp_path: Path) -> None:
    put(folder, "A549/f1.png", "A549/f2.png", "HELA/images/f1.png")
    for name in ("A549/f1_cp_masks.png", "HELA/masks/f1.png", "HELA/masks/f7.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(encode_png(cells()))
    (folder / "A549/f1_seg.npy").touch()
    read = take(folder, tmp_path / "bank")
    assert [(frame.lineage, frame.count) for frame in read.frames] == [("A549", 5), ("A549", None), ("HELA", 5)]
    assert {item.what: item.reason for item in read.source.unused} == {
        "A549/f1_seg.npy": "other_format",
        "A549/f2.png": "no_label",
        "HELA/masks/f7.png": "no_mask_image",
    }
    assert read_source(folder, Options(lineage_pattern="^f."))[0].lineage == "f1"


def test_an_image_of_two_masks_is_set_aside(folder: Path, tmp_path: Path) -> None:
    put(folder, "images/f1.png")
    for name in ("images/f1_cp_masks.png", "masks/f1.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(encode_png(cells()))
    assert take(folder, tmp_path / "bank").problems == [
        "it has several masks, images/f1_cp_masks.png and masks/f1.png; keep one"
    ]


def test_a_name_that_ends_like_a_mask_is_an_image_where_it_is_beside_none(folder: Path) -> None:
    put(folder, "A549/a_label.png", "A549/b_gt.png", "A549/c.png")
    assert [file.lineage for file in read_source(folder)] == ["A549"] * 3


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "uint64", "float32", "float64"]
)
def test_masks_of_every_type_of_numbers_are_read(folder: Path, tmp_path: Path, dtype: str) -> None:
    with_mask(folder, cells(dtype))
    read = take(folder, tmp_path / "bank")
    assert (read.counts, read.frames[0].centres, read.frames[0].note) == ([5], CENTRES, None)


@pytest.mark.parametrize(
    ("mask", "name", "note"),
    [
        (cells()[None], "f1.tif", None),
        (cells(np.uint32) * 70_000, "f1.tif", None),
        (np.where(cells() == 0, 255, cells() - 1).astype(np.uint8), "f1.png", "255 is taken as the background"),
        (cells(np.int16) - 1, "f1.tif", "-1 is taken as the background"),
        (np.where(cells() == 0, 65_535, cells()), "f1.tif", "65535 is taken as the background"),
        (cells() + 1, "f1.tif", "1 is taken as the background"),
        (np.where(cells() == 5, 255, cells()).astype(np.uint8), "f1.png", "255 is taken as a cell"),
        (
            np.where(np.arange(48)[:, None] > 45, -1, cells(np.int16)).astype(np.int16),
            "f1.tif",
            "-1 is taken as a border, and no cell",
        ),
        (np.dstack([cells(np.uint8)] * 3), "f1.png", None),
        (np.dstack([*[cells(np.uint8)] * 3, np.full((48, 64), 255, np.uint8)]), "f1.png", None),
        (
            np.dstack([cells(np.uint8) * 3, cells(np.uint8) * 50, cells(np.uint8) * 7]),
            "f1.png",
            "each colour is taken as a cell",
        ),
        (np.zeros((48, 64), np.uint8), "f1.png", None),
    ],
)
def test_other_backgrounds_planes_and_colours_are_read_and_told(
    folder: Path, tmp_path: Path, mask: NDArray[Any], name: str, note: str | None
) -> None:
    with_mask(folder, mask, name)
    read = take(folder, tmp_path / "bank")
    assert (read.counts, read.frames[0].note) == ([5 if mask.any() else 0], note)
    assert read.frames[0].centres == (CENTRES if mask.any() else [])


@pytest.mark.parametrize(
    ("border", "note"),
    [(255, "255 is taken as a border, and no cell"), (-1, "-1 is taken as a border, and no cell")],
)
def test_a_seam_of_255_or_minus_1_around_cells_is_no_cell(folder: Path, tmp_path: Path, border: int, note: str) -> None:
    mask_HW = cells(np.int16)
    inner_HW = cv2.erode(mask_HW, np.ones((3, 3), np.uint8))
    with_mask(folder, np.where((mask_HW > 0) & (inner_HW != mask_HW), border, mask_HW).astype(np.int16))
    read = take(folder, tmp_path / "bank")
    assert (read.counts, read.frames[0].note) == ([5], note)


def test_the_border_of_a_voc_palette_is_no_cell(folder: Path, tmp_path: Path) -> None:
    mask_HW = cells(np.uint8)
    inner_HW = cv2.erode(mask_HW, np.ones((3, 3), np.uint8))
    colours_HW3 = np.dstack([mask_HW * 10, mask_HW * 20, mask_HW * 40])
    colours_HW3[(mask_HW > 0) & (inner_HW != mask_HW)] = [VOC_BORDER & 255, VOC_BORDER >> 8 & 255, VOC_BORDER >> 16]
    with_mask(folder, colours_HW3, "f1.png")
    read = take(folder, tmp_path / "bank")
    assert read.counts == [5]
    assert read.frames[0].note == ("each colour is taken as a cell; #e0e0c0 is taken as a border, and no cell")


def test_a_cell_of_number_255_is_a_cell(folder: Path, tmp_path: Path) -> None:
    mask_HW = np.arange(1, 256).repeat(9).reshape(17, 15, 3, 3).swapaxes(1, 2).reshape(51, 45).astype(np.uint8)
    mask_HW = np.pad(mask_HW[:48], ((0, 0), (0, 19)))
    mask_HW[40:43, 60:63] = 255
    mask_HW[44:47, 60:63] = 254
    with_mask(folder, mask_HW, "f1.png")
    read = take(folder, tmp_path / "bank")
    assert (read.counts, read.frames[0].note) == ([len(np.unique(mask_HW)) - 1], None)


def test_a_number_in_several_pieces_is_one_cell_and_told(folder: Path, tmp_path: Path) -> None:
    mask_HW = cells()
    mask_HW[8, :] = 0
    mask_HW[mask_HW == 1] = 1
    with_mask(folder, mask_HW)
    read = take(folder, tmp_path / "bank")
    assert (read.counts, read.frames[0].note) == ([5], "a number in several pieces is taken as one cell")


def side_by_side(cells_n: int) -> NDArray[np.uint16]:
    """Small cells that fill a frame, each the pixels that are nearest to its seed, as a watershed leaves them."""
    y_N, x_N = np.random.default_rng(0).integers(0, 300, (2, cells_n))
    seeds_HW = np.ones((300, 300), np.uint8)
    seeds_HW[y_N, x_N] = 0
    nearest_HW = cv2.distanceTransformWithLabels(seeds_HW, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)[1]
    mask_HW = nearest_HW.astype(np.uint16)
    mask_HW[cv2.distanceTransform(seeds_HW, cv2.DIST_L2, 5) > 9] = 0
    return mask_HW


@pytest.mark.parametrize("cells_n", [100, 800])
def test_cells_side_by_side_are_no_soft_edges_and_scaled_smoothly_they_are(tmp_path: Path, cells_n: int) -> None:
    mask_HW = side_by_side(cells_n)
    kept_HW = cv2.resize(mask_HW, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_NEAREST)
    for n, one_HW in enumerate((mask_HW, kept_HW)):
        path = tmp_path / f"{n}.png"
        path.write_bytes(encode_png(one_HW))
        cells = cells_of_mask(ImageFile.at(path), size=(one_HW.shape[0], one_HW.shape[1]))
        assert len(cells.centres_N2) == len(np.unique(one_HW)) - 1 > 0.97 * cells_n
    mixed_HW = cv2.resize(mask_HW, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_LINEAR)
    (tmp_path / "mixed.png").write_bytes(encode_png(mixed_HW))
    with pytest.raises(DataError, match=r"mixed.png: values .* at the edges"):
        cells_of_mask(ImageFile.at(tmp_path / "mixed.png"), size=(180, 180))


BLURRED = cv2.GaussianBlur(np.where(cells() > 0, 255, 0).astype(np.uint8), (0, 0), 1)
SCALED = cv2.resize((cells(np.uint8) * 40)[::2, ::2], (64, 48), interpolation=cv2.INTER_LINEAR)
CORE = cv2.erode((cells(np.uint8) > 0).astype(np.uint8), np.ones((3, 3), np.uint8))


@pytest.mark.parametrize(
    ("mask", "name", "said"),
    [
        (BLURRED, "f1.png", "at the edges, as in a JPEG or a mask that was scaled smoothly; save it losslessly, each"),
        (SCALED, "f1.png", "at the edges, as in a JPEG or a mask that was scaled smoothly"),
        (cells(np.uint8) * 50, "f1.jpg", "at the edges, as in a JPEG or a mask that was scaled smoothly"),
        (np.where(cells() > 0, 255, 0).astype(np.uint8), "f1.png", "every cell has the number 255; give each cell"),
        (np.where(cells() > 0, 1, 0).astype(np.uint8), "f1.png", "every cell has the number 1; give each cell"),
        (np.where(cells() == 1, 255, 0).astype(np.uint8), "f1.png", "every cell has the number 255; give each cell"),
        (
            np.where(CORE > 0, 1, np.where(cells() > 0, 2, 0)).astype(np.uint8),
            "f1.png",
            "its numbers are classes, 1 in 4 pieces, 2 in 4 pieces; give each cell a number of its own",
        ),
        (
            np.where(cells() == 4, np.where(CORE > 0, 1, 2), 0).astype(np.uint8),
            "f1.png",
            "number 2 lies all around number 1, like a class of borders",
        ),
        (cells(np.float32) / 7, "f1.tif", "the mask holds 0.142857, and other values that are no whole numbers"),
        (np.full((48, 64), np.nan, np.float32), "f1.tif", "the mask holds nan, and other values that are no whole"),
        (np.full((48, 64), 255, np.uint8), "f1.png", "every pixel has the number 255, and nobody can tell cells"),
        (cells(np.int16) - 3, "f1.tif", "its lowest number is -3; give each cell a number above 0"),
        (cells()[:40], "f1.tif", "the mask is 40×64, not one channel of 48×64 like its frame"),
    ],
)  # fmt: skip
def test_masks_that_are_no_instances_are_refused_with_what_was_seen(
    folder: Path, tmp_path: Path, mask: NDArray[Any], name: str, said: str
) -> None:
    with_mask(folder, mask, name)
    [problem] = take(folder, tmp_path / "bank").problems
    assert said in problem


# The collected cases

RIGHT: dict[str, list[float | None]] = {
    "bank_nomatch": [6, 6, 6, 6],
    "bank_images_masks": [5, 5, 5, 5],
    "readers/counts_nomatch": [12],
    **{
        f"readers/{name}": [5]
        for name in (
            *("cellpose_names", "dirs_Images_Masks", "dirs_JPEGImages_SegmentationObject", "dirs_images_labels"),
            *("dirs_images_mask", "m_255_background", "m_3d_1yx", "m_deflate", "m_f32_tif", "m_i32_tif", "m_i64_tif"),
            *("m_lzw_zstd", "m_neg1_background_i16", "m_palette_voc", "m_rgb_of_labels", "m_rgba", "m_u16"),
            *("m_u32_tif", "m_u8", "orient_mask"),
        )
    },
    "readers/m_empty": [0],
    "readers/m_u32_large_numbers_3600": [3600],
    **{
        f"readers2/{name}": [12]
        for name in (
            *("backslash", "blank_rows", "bom_crlf", "case_suffix", "comma_in_name", "comma_name_semicol", "comment"),
            *("cp1252", "cr_only", "extra_comma", "header_case", "header_spaces", "nbsp", "nfd_file_nfc_table"),
            *("px_comma", "sep_line", "short_row", "tabs", "url", "utf16", "weird_names"),
        )
    },
    "readers2/dash": [None],
    "readers2/na2": [None],
    "readers2/nan_na": [None],
    "readers2/decimal_comma_quoted": [12.5],
    "readers2/quoted_semicolon": [12.5],
    "readers2/hexnum": [100],
    "readers2/lineage_case": [12, 13, 13, 13],
    "readers2/space_thousand": [1234],
    "readers2/thousand_de2": [1234],
    "readers2/thousand_us": [1234],
    "readers2/pt_1based_edge": [1],
    "readers2/pt_case": [2],
    "readers2/pt_dup": [1],
    "readers2/pt_folder": [1],
    "readers2/pt_match": [2],
    "readers2/pt_nosuffix": [2],
    "readers2/pt_semicolon_comma": [2],
    "readers2/pt_um_small": [2],
    "readers2/pt_utf16": [2],
    "readers2/pt_zero_by_absence": [1, None],
    "readers2/pt_zero_said": [1, 0],
    "readers3/classfolders_nested": [None, None],
    "readers3/hidden": [None],
    "readers3/hidden_masks": [1],
    "readers3/na": [12],
}
"""The counts of each case."""
ASIDE = {
    "bank_ome": "img_000.ome.tif may be A172/img_000.ome.tif or A549/img_000.ome.tif; write the folder too",
    "bank_soft": "at the edges, as in a JPEG",
    "readers/same_name": "img_001.png may be A549/img_001.png or HELA/img_001.png; write the folder too",
    "readers/m_3class_0_1_2_border": "its numbers are classes, 1 in 5 pieces, 2 in 5 pieces",
    "readers/m_binary255": "every cell has the number 255",
    "readers/m_binary255_soft": "values 1 to 254 at the edges",
    "readers/m_binary_jpeg": "values 1 to 255 at the edges",
    "readers2/dup_rows": "manifest.csv lines 2 and 3 say 12 and 15 as its count; keep one of them",
    "readers2/dup_rows_lineage": "manifest.csv lines 2 and 3 say A549 and HELA as its lineage; keep one of them",
    "readers2/neg": "the count '-3' is not a number of cells",
    "readers2/pct": "the count '95%' is not a number of cells",
    "readers2/pt_um": "1 of its 2 centres lie outside its 240×240 pixels",
    "readers2/symlink": "the file is missing",
    "readers2/thousand_de": "the count '1.234' may be 1234 or a fraction; write it without the mark",
    "readers2/underscore_num": "the count '1_2' is not a number of cells",
}
"""Cases whose images are all set aside, and what is said of the first."""
REFUSED = {
    "readers/dirs_train_test": r"test/, train/ are folders of a split, no lineages",
    "readers3/flat": r"holds 2 images in no folder of a lineage, a.png the first",
}


def case(name: str) -> Path:
    if not (CASES / name).is_dir():
        pytest.skip(f"the collected cases do not lie at {CASES}; CELLNET_CASES says where they do")
    return CASES / name


@pytest.mark.parametrize("name", RIGHT)
def test_a_collected_case_comes_out_right(name: str, tmp_path: Path) -> None:
    assert take(case(name), tmp_path / "bank").counts == RIGHT[name]


@pytest.mark.parametrize("name", ASIDE)
def test_a_collected_case_that_nobody_can_tell_is_set_aside(name: str, tmp_path: Path) -> None:
    read = take(case(name), tmp_path / "bank")
    assert len(read.problems) == len(read.frames) and ASIDE[name] in read.problems[0]


@pytest.mark.parametrize("name", REFUSED)
def test_a_collected_case_is_refused(name: str) -> None:
    with pytest.raises(DataError, match=REFUSED[name]):
        read_source(case(name))


def test_lineages_of_the_collected_cases(tmp_path: Path) -> None:
    lineages = {
        name: [frame.lineage for frame in take(case(name), tmp_path / name).frames]
        for name in ("readers2/cp1252", "readers2/nan_na", "readers2/nbsp", "readers3/na", "readers3/hidden")
    }
    assert lineages == {
        "readers2/cp1252": ["Zellinie Ü"],
        "readers2/nan_na": [None],
        "readers2/nbsp": ["A549"],
        "readers3/na": [None],
        "readers3/hidden": ["A549"],
    }


def test_what_looks_like_a_slip_in_the_collected_cases_is_told(tmp_path: Path) -> None:
    [spelled] = unlike_the_rest(take(case("readers2/lineage_case"), tmp_path / "a").frames)
    assert spelled.startswith("A-549 and A549 and a549 may be one lineage, but are 3 to a classifier")
    [corner] = unlike_the_rest(take(case("readers2/pt_um_small"), tmp_path / "b").frames)
    assert corner.startswith(
        "all 2 centres of cells lie in the upper left 2% of their frames; are they in micrometres?"
    )
