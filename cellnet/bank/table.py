"""The frames of a bank as a table in a Parquet file."""

import io
from dataclasses import asdict

import pyarrow as pa
import pyarrow.parquet as pq

from cellnet.bank.frames import Frame
from cellnet.errors import DataError
from cellnet.store.parquet import read_parquet

SCHEMA = pa.schema(
    [
        ("frame", pa.string()),
        ("source", pa.string()),
        ("lineage", pa.string()),
        ("count", pa.float64()),
        ("centres", pa.list_(pa.list_(pa.float64()))),
        ("group", pa.string()),
        ("split", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("bits", pa.int8()),
        ("darkest", pa.int32()),
        ("brightest", pa.int32()),
        ("pixel_um", pa.float64()),
        ("fingerprint", pa.string()),
        ("twin", pa.string()),
        ("set_aside", pa.string()),
    ]
)


def to_parquet(rows: list[Frame]) -> bytes:
    buffer = io.BytesIO()
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=SCHEMA)
    pq.write_table(table, buffer, write_page_checksum=True)
    return buffer.getvalue()


def from_parquet(data: bytes, key: str) -> list[Frame]:
    try:
        table = read_parquet(data)
        return [Frame(**row) for row in table.to_pylist()]
    except (pa.ArrowException, OSError, TypeError, ValueError) as error:
        raise DataError(f"the bank's {key} is damaged; restore it from a copy") from error
