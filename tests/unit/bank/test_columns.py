"""Frames as columns: what they give is what a list of frames gave."""

import pickle
from dataclasses import fields, replace

import pyarrow as pa
import pytest

from cellnet.bank import columns
from cellnet.bank.columns import FEW, SCHEMA, Frames, with_twins
from cellnet.bank.frames import FORM, Frame

ROWS = [
    Frame(
        frame=f"{n:064x}",
        source=f"P1/{n}.tif",
        lineage=("A549", "THP1", None)[n % 3],
        count=None if n % 4 == 0 else float(n),
        centres=[[1.0, 2.0]] * (n % 3) if n % 2 else None,
        group=f"w{n // 2}",
        split="train",
        width=60,
        height=40,
    )
    for n in range(11)
]


@pytest.fixture(autouse=True)
def few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "MADE", 4)


def test_every_field_of_a_frame_has_a_column() -> None:
    assert sorted(SCHEMA.names) == sorted(field.name for field in fields(Frame))


def test_frames_come_back_as_they_were_one_by_one_and_in_parts() -> None:
    frames = Frames.of(iter(ROWS))
    assert list(frames) == ROWS and frames == ROWS and frames == Frames.of(ROWS) and len(frames) == 11
    assert frames[0] == ROWS[0] and frames[-1] == ROWS[-1]
    assert frames[2:7] == ROWS[2:7] and frames[::-2] == ROWS[::-2]
    assert frames.at([7, 1, 1]) == list(frames.each([7, 1, 1])) == [ROWS[7], ROWS[1], ROWS[1]]
    assert frames != ROWS[1:] and frames != [replace(ROWS[0], count=99.0), *ROWS[1:]]
    assert Frames.joined([frames[:3], frames[3:]]) == ROWS and Frames.of([]) == Frames.joined([]) == []
    with pytest.raises(IndexError):
        frames[11]


def test_small_pieces_become_one_that_takes_no_more_than_its_rows() -> None:
    pieces = Frames.joined([pickle.loads(pickle.dumps(Frames.of([row]))) for row in ROWS])
    whole = pieces.in_one_piece
    assert whole == ROWS and {column.num_chunks for column in whole.table.columns} == {1}
    assert whole.table.nbytes < pieces.table.nbytes


def test_frames_are_chosen_by_what_is_known_of_them() -> None:
    frames = Frames.of(ROWS)
    assert frames.equal("lineage", "A549") == [row for row in ROWS if row.lineage == "A549"]
    assert frames.equal("lineage", None) == [row for row in ROWS if row.lineage is None]
    assert frames.known("count") == [row for row in ROWS if row.count is not None]
    assert frames.named_by("frame", [ROWS[3].frame, "another"]) == [ROWS[3]]
    assert frames.where(pa.array([True] * 11)) is frames and frames.where(pa.array([None] * 11, pa.bool_())) == []


def test_combinations_are_counted_in_the_order_in_which_they_come() -> None:
    frames = Frames.of(ROWS[:5])
    assert frames.counted("lineage", "group") == {
        ("A549", "w0"): 1,
        ("THP1", "w0"): 1,
        (None, "w1"): 1,
        ("A549", "w1"): 1,
        ("THP1", "w2"): 1,
    }
    assert frames.counted("split") == {("train",): 5}
    assert frames.named.values("lineage") == ["A549", "THP1", "(not known)", "A549", "THP1"]


def test_others_take_the_places_of_some_and_leave_the_rest() -> None:
    frames = Frames.of(ROWS)
    other = replace(ROWS[2], batch="P9")
    assert frames.with_frames({2: other}) == [*ROWS[:2], other, *ROWS[3:]]
    assert frames.with_frames({}) is frames
    moved = frames.with_values("split", pa.array(["test"] * 11))
    assert moved == [replace(row, split="test") for row in ROWS]


def test_centres_are_told_with_the_frame_that_each_is_of() -> None:
    frame_C, centres_C2 = Frames.of(ROWS)[1:8].centres
    assert frame_C.tolist() == [0, 4, 4, 6] and centres_C2.tolist() == [[1.0, 2.0]] * 4
    none_C, nothing_C2 = Frames.of(ROWS[:1]).centres
    assert none_C.shape == (0,) and nothing_C2.shape == (0, 2)


def test_few_frames_of_many_are_few_where_they_are_sent_elsewhere() -> None:
    frames = Frames.of(replace(ROWS[1], frame=f"{n:064x}") for n in range(1000))
    sent = pickle.dumps(frames[5:7])
    assert pickle.loads(sent) == frames[5:7] and len(sent) < len(pickle.dumps(frames)) / 10


def test_a_near_duplicate_whose_original_is_not_there_has_no_pair() -> None:
    frames = Frames.of([ROWS[0], replace(ROWS[1], twin=ROWS[0].frame), replace(ROWS[2], twin="gone")])
    copies, originals = with_twins(frames.known("twin"), frames)
    assert (copies.values("source"), originals.values("source")) == (["P1/1.tif"], ["P1/0.tif"])


@pytest.mark.parametrize(
    ("source", "form", "is_misread"),
    [("a.TIF", None, True), ("a.tiff#3", FORM - 1, True), ("a.tif", FORM, False), ("a.tif.png", 1, False)],
)
def test_what_an_earlier_cellnet_may_have_misread_is_told_by_file_and_form(
    source: str, form: int | None, is_misread: bool
) -> None:
    assert bool(Frames.of([replace(ROWS[0], source=source, form=form)]).misread) == is_misread


def test_a_few_of_rows_in_many_pieces_come_in_the_order_that_is_asked_for() -> None:
    rows = [replace(ROWS[0], source=f"{number}.png") for number in range(200)]
    pieces = [Frames.of(rows[start : start + 40]) for start in range(0, 200, 40)]
    joined, places = Frames.joined(pieces), [199, 0, 40, 39, 41, 40]
    assert len(places) * FEW < len(joined)
    assert [one.source for one in joined.at(places)] == [f"{place}.png" for place in places]
    assert joined.at([]) == [] and joined.at([7]) == [joined[7]]
