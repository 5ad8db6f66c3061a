"""Names that tables write, and the images that they mean."""

import unicodedata
from pathlib import Path

import pytest

from cellnet.readers.matching import Match, Names, images_below

FILES = ["A549/a.png", "A549/img_000.ome.tif", "HELA/a.png", "HELA/b.tif", "Zählung 1.png", "c.png", "d.png", "d.tif"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("A549/a.png", "A549/a.png"),
        ("./A549/a.png", "A549/a.png"),
        (".\\A549\\a.png", "A549/a.png"),
        ("A549//a.png", "A549/a.png"),
        ("a549/A.PNG", "A549/a.png"),
        ("A549/img_000", "A549/img_000.ome.tif"),
        ("img_000.tif", "A549/img_000.ome.tif"),
        ("IMG_000", "A549/img_000.ome.tif"),
        ("b.tif", "HELA/b.tif"),
        ("b", "HELA/b.tif"),
        ("B.czi", "HELA/b.tif"),
        ("C:\\Users\\me\\plate\\HELA\\a.png", "HELA/a.png"),
        ("/home/me/c.png", "c.png"),
        ("file:///c.png", "c.png"),
        ("https://example.org/files/Z%C3%A4hlung%201.png?raw=1", "Zählung 1.png"),
        (unicodedata.normalize("NFD", "Zählung 1.png"), "Zählung 1.png"),
        ("Zählung\N{NARROW NO-BREAK SPACE}1.png", "Zählung 1.png"),
        ("d.png", "d.png"),
        ("D.tif", "d.tif"),
    ],
)
def test_a_name_means_the_one_image_that_is_left(written: str, meant: str) -> None:
    assert Names(FILES).find(written).images == (meant,)


@pytest.mark.parametrize(
    "written",
    ["", ".", "/", "e.png", "A172/b.tif", "HELA", "a.png.txt", "1.png", "../secret"],
)
def test_a_name_of_no_image_means_none(written: str) -> None:
    match = Names(FILES).find(written)
    assert (match.images, match.one) == ((), None)
    assert match.why_not(written) == f"there is no image {written}"


@pytest.mark.parametrize(
    ("written", "images", "why"),
    [
        ("a.png", ("A549/a.png", "HELA/a.png"), "a.png may be A549/a.png or HELA/a.png; write the folder too"),
        ("d", ("d.png", "d.tif"), "d may be d.png or d.tif; write path and suffix as the file has them"),
    ],
)
def test_what_several_images_could_be_meant_by_is_told(written: str, images: tuple[str, ...], why: str) -> None:
    match = Names(FILES).find(written)
    assert (match.images, match.one, match.why_not(written)) == (images, None, why)


def test_of_many_candidates_three_are_told() -> None:
    match = Names(f"{folder}/a.png" for folder in "ABCDE").find("a")
    assert match.why_not("a") == "a may be A/a.png or B/a.png or C/a.png or one of 2 more; write the folder too"


def test_a_folder_and_a_suffix_weigh_alike() -> None:
    assert Names(["a.tif", "sub/a.png"]).find("a.png").images == ("sub/a.png", "a.tif")


def test_letter_case_decides_between_files_that_differ_in_it() -> None:
    names = Names(["a.png", "A.png"])
    assert (names.find("A.png").one, names.find("a.PNG").one) == ("A.png", None)


def test_a_name_of_another_suffix_is_another_file_where_the_image_is_named_itself() -> None:
    names = Names(["a.png", "b.png"])
    assert names.find_all(["a.jpg", "a.png", "b.jpg"]) == {
        "a.jpg": Match(()),
        "a.png": Match(("a.png",)),
        "b.jpg": Match(("b.png",), other_suffix=True),
    }


@pytest.mark.slow
def test_a_hundred_thousand_names_find_their_images() -> None:
    # One by one beside each other they would not be done before the test's time is over.
    files = [f"plate/{number % 7}/{number:06d}.tif" for number in range(100_000)]
    same = [f"{number:06d}/a.tif" for number in range(100_000)]
    found = Names(files).find_all(f"{number:06d}.PNG" for number in range(100_000))
    assert [match.one for match in found.values()] == files
    names = Names(same)
    assert [names.find(f"X\\{path}").one for path in same] == same
    assert len(names.find("a.png").images) == 100_000


def test_hidden_files_and_links_to_folders_are_not_looked_through(tmp_path: Path) -> None:
    for name in (
        "A549/a.png",
        "A549/._a.png",
        ".ipynb_checkpoints/a.png",
        "__MACOSX/b.png",
        "A549/deep/c.TIF",
        "n.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "around").symlink_to(tmp_path)
    assert images_below(tmp_path) == ["A549/a.png", "A549/deep/c.TIF"]
