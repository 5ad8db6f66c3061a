"""The table of a bank: its format, and columns that are not known."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cellnet.bank.frames import Frame
from cellnet.bank.table import Table, from_parquet, to_parquet
from cellnet.errors import DataError

FRAMES = [
    Frame(frame=f"{n:064x}", source=f"{n}.png", lineage="A549", centres=[[1.0, 2.0]], height=200, width=200)
    for n in range(3)
]
KEY = "tables/000001.parquet"


def written(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def table(number: str | None = None) -> pa.Table:
    """The frames as another cellnet may have written them."""
    known = pq.read_table(io.BytesIO(to_parquet(FRAMES)))
    return known.replace_schema_metadata({"format": number} if number else None)


def test_a_table_comes_back_and_says_its_format() -> None:
    data = to_parquet(FRAMES)
    assert from_parquet(data, KEY) == Table(FRAMES)
    assert pq.read_schema(io.BytesIO(data)).metadata[b"format"] == b"1"


def test_a_table_of_before_formats_is_of_the_first() -> None:
    assert from_parquet(written(table()), KEY) == Table(FRAMES)


def test_a_column_that_is_not_known_is_left_alone_and_named_where_something_stands_in_it() -> None:
    later = table().append_column("passage", pa.array([None, 2.5, None])).append_column("mood", pa.nulls(3))
    assert from_parquet(written(later), KEY) == Table(FRAMES, ("passage",))


def test_a_column_that_a_table_lacks_is_not_known_of_its_frames() -> None:
    assert from_parquet(written(table().drop_columns(["twin", "pixel_um", "batch", "time_h"])), KEY) == Table(FRAMES)
    with pytest.raises(DataError, match=r"tables/000001.parquet is damaged"):
        from_parquet(written(table().drop_columns(["frame"])), KEY)


def test_a_table_of_a_later_format_is_refused_politely() -> None:
    with pytest.raises(DataError) as refused:
        from_parquet(written(table("2").drop_columns(["frame"])), KEY)
    assert str(refused.value) == (
        "the bank's tables/000001.parquet was written by a later cellnet (format 2, this one reads 1); update cellnet"
    )
    with pytest.raises(DataError, match="is damaged"):
        from_parquet(written(table("new")), KEY)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("source", [None, "a", "b"]),
        ("count", ["many", "x", "y"]),
        ("count", [1.0, float("nan"), 2.0]),
        ("count", [1.0, -1.0, 2.0]),
        ("count", [1e308, 1e308, 1e308]),
        ("time_h", [-1.0, None, 2.0]),
        ("fingerprint", ["zz" * 64, "", ""]),
        ("fingerprint", ["ab" * 63, "", ""]),
        ("centres", [[[1.0, 2.0]], [[1.0]], None]),
        ("centres", [[[1.0, float("inf")]], None, None]),
        ("split", ["train", "anything", None]),
        ("height", [2**40, 1, 1]),
        ("width", [-1, 1, 1]),
        ("pixel_um", [[1.0], [2.0], [3.0]]),
        ("form", ["3", "x", None]),
        ("batch", [{"a": 1}] * 3),
    ],
)
def test_values_that_no_frame_has_are_damage_and_no_fault_later(name: str, values: list[object]) -> None:
    spoiled = table()
    spoiled = spoiled.set_column(spoiled.column_names.index(name), name, pa.array(values))
    with pytest.raises(DataError, match=r"tables/000001.parquet is damaged"):
        from_parquet(written(spoiled), KEY)


@pytest.mark.parametrize("name", ["height", "width"])
def test_a_frame_in_use_has_pixels_and_one_that_was_set_aside_needs_none(name: str) -> None:
    aside = [Frame(frame="", source="3.png", set_aside="blank")]
    assert from_parquet(to_parquet([*FRAMES, *aside]), KEY) == Table([*FRAMES, *aside])
    spoiled = table().set_column(table().column_names.index(name), name, pa.array([200, 0, 200], pa.int32()))
    with pytest.raises(DataError, match=r"tables/000001.parquet is damaged"):
        from_parquet(written(spoiled), KEY)


def test_a_column_that_comes_twice_is_damage() -> None:
    with pytest.raises(DataError, match="is damaged"):
        from_parquet(written(table().append_column("count", pa.nulls(3, pa.float64()))), KEY)


def test_a_column_of_another_width_is_read_as_its_own() -> None:
    wider = table().set_column(0, "frame", table()["frame"].cast(pa.large_string()))
    wider = wider.set_column(wider.column_names.index("height"), "height", pa.array([200] * 3, pa.int64()))
    assert from_parquet(written(wider), KEY) == Table(FRAMES)
