"""Labels from tables as people write them."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cellnet.bank.bank import Bank
from cellnet.bank.label_table import LabelTable, read_labels
from cellnet.bank.labels import NONE_OF_THESE
from cellnet.errors import DataError
from tests.factories import frame


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    made = Bank.create(tmp_path / "bank")
    frames = [frame(1, "A549", source="/plates/P1/a.png", count=2.0), frame(2, "THP1", source="/plates/P1/b.png")]
    made.add([*frames, frame(3, "THP1", source="/plates/P2/b.png"), frame(4, frame="", source="/c.png", set_aside="x")])
    return made


def read(bank: Bank, tmp_path: Path, text: str) -> LabelTable:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    return read_labels(tmp_path / "t.csv", bank)


def test_all_that_a_row_may_say(bank: Bank, tmp_path: Path) -> None:
    told = read(
        bank,
        tmp_path,
        "IMAGE;Lineage;count;Points;By;Why;at;unusable;Seen;seen count;Seen lineage;accepted\n"
        "A.PNG;None of these;;1,5 2; 3 4;ana;a clump;2026-11-29T10:00;debris;;;;\n".replace(
            "1,5 2; 3 4", '"1.5 2; 3 4"'
        )
        + "P1/b.png;;;;ben;;;NO;classifier@3 regressor@1;12,5;THP1;yes\n",
    )
    first, second = told.labels
    assert (first.frame, first.lineage, first.count, first.points) == (
        frame(1).frame,
        NONE_OF_THESE,
        2,
        ((1.5, 2), (3, 4)),
    )
    assert (first.by, first.why, first.at) == ("ana", "a clump", datetime(2026, 11, 29, 10, tzinfo=UTC))
    assert (first.unusable, first.seen, first.accepted) == ("debris", None, False)
    assert second.frame == frame(2).frame and second.says == {"lineage": "THP1", "count": 12.0, "unusable": "usable"}
    assert str(second.seen) == "THP1, 12.5 cells of classifier@3, regressor@1" and second.accepted
    assert (told.left_out, told.columns, told.same) == ([], [], 0)


def test_frames_are_found_by_their_hash_too_or_by_its_beginning(bank: Bank, tmp_path: Path) -> None:
    told = read(bank, tmp_path, f"sha256,count\n{frame(1).frame},7\n{frame(2).frame[:10].upper()},8\n")
    assert [(label.frame, label.count) for label in told.labels] == [(frame(1).frame, 7), (frame(2).frame, 8)]


def test_a_row_a_cell_gives_the_centres(bank: Bank, tmp_path: Path) -> None:
    told = read(bank, tmp_path, "image,x,y,by\na.png,1,2,ana\na.png,3,4.5,ana\na.png,1,2,ana\nP2/b.png,9,9,\n")
    assert [(label.points, label.by) for label in told.labels] == [(((1, 2), (3, 4.5)), "ana"), (((9, 9),), "")]


def test_a_corrected_manifest_is_a_table_of_which_what_is_new_is_taken(bank: Bank, tmp_path: Path) -> None:
    text = "image,lineage,count,group,linage\na.png,A549,2,well 1,\nP1/b.png,A549,,well 2,x\nP2/b.png,,,,\n"
    told = read(bank, tmp_path, text)
    assert [(label.frame, label.says) for label in told.labels] == [(frame(2).frame, {"lineage": "A549"})]
    assert (told.same, told.columns) == (2, ["group", "linage"])
    assert [label.by for label in read(bank, tmp_path, "image,count,by\na.png,2,ana\n").labels] == ["ana"]


def test_two_people_may_say_different_things_and_one_may_not(bank: Bank, tmp_path: Path) -> None:
    text = "image,count,by\na.png,3,ana\na.png,4,ben\nP1/b.png,3,ana\nP1/b.png,4,ana\n"
    told = read(bank, tmp_path, text)
    assert [(label.count, label.by) for label in told.labels] == [(3, "ana"), (4, "ben")]
    assert told.left_out == ["t.csv line 4: P1/b.png: t.csv lines 4 and 5 say 3 and 4 as its count; keep one of them"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("z.png,1,,,,", "line 3: the bank has no frame of z.png; import its image first"),
        (",1,,,,", "line 3: the cell of its image is empty"),
        ("b.png,1,,,,", "b.png may be /plates/P1/b.png or /plates/P2/b.png; write the folder too"),
        ("c.png,1,,,,", "/c.png was set aside: x"),
        ("a.png,many,,,,", "a.png: the count 'many' is not a number of cells"),
        ("a.png,-1,,,,", "the count '-1' is not a number of cells"),
        ("a.png,,1 2 3,,,", "points are written as x y; x y; …, not '1 2 3'"),
        ("a.png,5,1 2,,,", "the count is 5, but there are 1 points"),
        ("a.png,,,ugly,,", "unusable: .*focus.*seen: 'ugly'"),
        ("a.png,,,,perhaps,", "accepted is yes or no, not 'perhaps'"),
        ("a.png,,,,yes,", "it is not said which was seen"),
        ("a.png,1,,,,yesterday", "the time 'yesterday' is none; write it like 2026-11-29T10:30"),
    ],
)
def test_a_row_that_gives_no_label_is_named_and_the_others_are_taken(
    bank: Bank, tmp_path: Path, row: str, said: str
) -> None:
    told = read(bank, tmp_path, f"image,count,points,unusable,accepted,at\nP1/b.png,9,,,,2026-11-29\n{row}\n")
    assert len(told.labels) == 1 and len(told.left_out) == 1
    assert re.search(said, told.left_out[0])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image,count\n", "has no rows; add one row a frame"),
        ("file,count\na.png,1\n", "has no column image; it has file, count and needs image; rename file to image"),
        (
            "image,cells\na.png,1\n",
            r"says nothing of its frames; it needs one of lineage, count.* \(rename cells to count",
        ),
        (
            "image,count\nz.png,1\n",
            "no row of .*t.csv gives a label; the first of 1: t.csv line 2: the bank has no frame",
        ),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_a_line(bank: Bank, tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(bank, tmp_path, text)


def test_how_a_frame_was_drawn_comes_with_what_is_said_of_it_and_alone_says_nothing(bank: Bank, tmp_path: Path) -> None:
    told = read(bank, tmp_path, "sha256,count,drawn\n" + f"{frame(1).frame},7,chosen\n{frame(2).frame},,random\n")
    assert [(label.count, label.drawn) for label in told.labels] == [(7, "chosen")] and told.same == 1
    told = read(bank, tmp_path, "image,x,y,drawn\na.png,1,2,Random\na.png,3,4,Random\n")
    assert [(label.points, label.drawn) for label in told.labels] == [(((1, 2), (3, 4)), "random")]
