"""The table of a bank: its format, and columns that are not known."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cellnet.bank.frames import Frame
from cellnet.bank.table import Table, from_parquet, to_parquet
from cellnet.errors import DataError

FRAMES = [Frame(frame=f"{n:064x}", source=f"{n}.png", lineage="A549", centres=[[1.0, 2.0]]) for n in range(3)]
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
