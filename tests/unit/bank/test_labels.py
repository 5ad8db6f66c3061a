"""What a label may say, and the table in which a bank keeps labels."""

import io
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cellnet.bank.labels import NONE_OF_THESE, Label, Labels, Seen, label_of, labels_from_parquet, labels_to_parquet
from cellnet.errors import DataError
from cellnet.store.parquet import read_parquet

FRAME = "ab" * 32
AT = datetime(2026, 11, 29, 9, 30, tzinfo=UTC)
SEEN = {"versions": ["classifier@3", "regressor@1"], "lineage": "A549", "count": 12.4}


def test_the_count_follows_the_points() -> None:
    assert label_of(frame=FRAME, points=[(1, 2), (3.5, 4)]).count == 2
    assert label_of(frame=FRAME, points=[]).says == {"count": 0.0, "points": ()}


def test_who_accepts_an_answer_says_what_it_said_and_cells_are_whole() -> None:
    assert label_of(frame=FRAME, accepted=True, seen=SEEN).says == {"lineage": "A549", "count": 12.0}
    assert label_of(frame=FRAME, accepted=True, seen=SEEN, count=13).says == {"lineage": "A549", "count": 13.0}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "it says nothing"),
        ({"frame": "../x", "count": 1}, "frame: .*seen: '../x'"),
        ({"count": -1}, "count: .*greater than or equal to 0"),
        ({"count": float("nan")}, "count: .*finite"),
        ({"count": 1e12}, "count: .*less than or equal to"),
        ({"count": 3, "points": [(1, 2)]}, "the count is 3, but there are 1 points"),
        ({"points": [(1, 2), (1, 2)]}, "two of its points are at the very same place"),
        ({"points": [(1, float("inf"))]}, "points.0.1: .*finite"),
        ({"lineage": ""}, "lineage: .*at least 1 character"),
        ({"lineage": "A549\x1b[2J"}, "lineage: .*characters that cannot be printed"),
        ({"unusable": "ugly"}, "unusable: "),
        ({"count": 1, "drawn": "by lot"}, "drawn: .*'chosen' or 'random'"),
        ({"drawn": "chosen"}, "it says nothing"),
        ({"accepted": True}, "an answer is accepted, and it is not said which was seen"),
        ({"count": 1, "seen": {"versions": ["classifier"]}}, "seen.0: |seen: "),
        ({"count": 1, "at": "2026-11-29T10:00:00"}, "at: .*timezone"),
        ({"count": 1, "whom": "ana"}, "Extra inputs are not permitted"),
    ],
)
def test_what_no_label_can_say_is_refused_in_a_line(values: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said) as refused:
        label_of(**{"frame": FRAME} | values)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400


def test_labels_come_back_from_their_table_as_they_were() -> None:
    labels = [
        Label(frame=FRAME, count=2, points=((1, 2), (3.5, 4)), by="ana", why="clump", at=AT, entry=2, drawn="chosen"),
        Label(frame=FRAME, lineage=NONE_OF_THESE, seen=Seen(**SEEN), accepted=True, by="ben", at=AT, entry=3),
        Label(frame="cd" * 32, unusable="focus", at=AT, entry=3),
        Label(frame=FRAME, undoes=2, by="ana", at=AT, entry=4),
    ]
    read, later = labels_from_parquet(labels_to_parquet(Labels.of(labels)), "a part")
    assert list(read) == labels and later == ()
    assert [label.entry for label in read.of_frame(FRAME)] == [2, 3, 4] and len(read.of_entry(3)) == 2


def with_column(name: str, values: list[Any]) -> Callable[[pa.Table], pa.Table]:
    def changed(table: pa.Table) -> pa.Table:
        where = table.column_names.index(name)
        return table.set_column(where, name, pa.array(values))

    return changed


@pytest.mark.parametrize(
    "change",
    [
        with_column("count", [-1.0]),
        with_column("drawn", ["by lot"]),
        with_column("count", [float("nan")]),
        with_column("seen_count", [1e12]),
        with_column("points", [[[1.0]]]),
        with_column("points", [[[1.0, float("inf")]]]),
        with_column("unusable", ["ugly"]),
        with_column("frame", pa.array([None], pa.string())),
        lambda table: table.drop_columns(["entry"]),
    ],
)
def test_a_table_of_what_no_label_can_say_is_damaged(change: Callable[[pa.Table], pa.Table]) -> None:
    data = labels_to_parquet(Labels.of([Label(frame=FRAME, count=2, at=AT, entry=1)]))
    buffer = io.BytesIO()
    pq.write_table(change(read_parquet(data)), buffer)
    with pytest.raises(DataError, match="the bank's a part is damaged; restore it from a copy"):
        labels_from_parquet(buffer.getvalue(), "a part")


def test_a_column_of_a_later_cellnet_is_told_and_a_later_format_refused() -> None:
    data = labels_to_parquet(Labels.of([Label(frame=FRAME, count=2, at=AT, entry=1)]))
    buffer = io.BytesIO()
    pq.write_table(read_parquet(data).append_column("regions", pa.array(["a polygon"])), buffer)
    assert labels_from_parquet(buffer.getvalue(), "a part")[1] == ("regions",)
    buffer = io.BytesIO()
    pq.write_table(read_parquet(data).replace_schema_metadata({"format": "7"}), buffer)
    with pytest.raises(DataError, match=r"written by a later cellnet \(format 7, this one reads 1\); update cellnet"):
        labels_from_parquet(buffer.getvalue(), "a part")


@pytest.mark.parametrize(
    ("said", "otherwise"),
    [
        ({"lineage": "A549"}, {"lineage": False}),
        ({"lineage": NONE_OF_THESE}, {"lineage": True}),
        ({"count": 44}, {"count": False}),
        ({"count": 45}, {"count": True}),
        ({"points": ()}, {"count": True}),
        ({"accepted": True}, {"lineage": False, "count": False}),
        ({"unusable": "focus"}, {}),
    ],
)
def test_a_label_says_whether_it_differs_from_the_answer_that_was_seen(
    said: dict[str, Any], otherwise: dict[str, bool]
) -> None:
    seen = Seen(versions=("classifier@1", "regressor@1"), lineage="A549", count=40.0)
    assert Label(frame=FRAME, seen=seen, **said).otherwise == otherwise
    assert said.get("accepted") or Label(frame=FRAME, **said).otherwise == {}


def test_of_few_cells_one_more_or_less_is_no_other_count() -> None:
    for count, differs in {0: False, 1: False, 2: True}.items():
        seen = Seen(versions=("regressor@1",), count=0.2)
        assert Label(frame=FRAME, seen=seen, count=count).otherwise == {"count": differs}
