"""Frames of a bank as a table in a Parquet file.

The file's metadata say its `format`; a column that is not known here is left alone, one that it lacks is not known of
its frames.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cellnet.bank.duplicates import BITS
from cellnet.bank.frames import MOST_CELLS, Frame
from cellnet.config.choices import Split
from cellnet.errors import DataError
from cellnet.store.parquet import read_parquet

SCHEMA = pa.schema(
    [
        ("frame", pa.string()),
        ("source", pa.string()),
        ("lineage", pa.string()),
        ("count", pa.float64()),
        ("centres", pa.list_(pa.list_(pa.float64()))),
        ("note", pa.string()),
        ("group", pa.string()),
        ("split", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("bits", pa.int8()),
        ("darkest", pa.int32()),
        ("brightest", pa.int32()),
        ("greys", pa.int32()),
        ("sharpness", pa.float64()),
        ("pixel_um", pa.float64()),
        ("fingerprint", pa.string()),
        ("twin", pa.string()),
        ("set_aside", pa.string()),
        ("batch", pa.string()),
        ("time_h", pa.float64()),
        ("form", pa.int32()),
    ]
)


FORMAT: Final = 1
"""Of the tables that are written; those of before there were formats are of the first."""
MOVED: Final = 2
"""Of the last table of a bank that goes on in a log of parts: cellnets that know none are told to be updated."""
_ALWAYS: Final = ("frame", "source", "group", "height", "width", "bits", "darkest", "brightest", "fingerprint")
"""Columns in which something stands in every row."""
_NOT_NEGATIVE: Final = ("count", "height", "width", "pixel_um", "time_h")
_FINGERPRINT: Final = rf"\A([0-9a-f]{{{BITS // 4}}})?\z"
"""None of a frame that was set aside."""


@dataclass(frozen=True)
class Table:
    """What a table holds."""

    frames: list[Frame]
    unknown: tuple[str, ...] = ()
    """Columns of a later cellnet in which something stands."""
    format: int = FORMAT


def to_parquet(rows: Sequence[Frame], *, format: int = FORMAT) -> bytes:
    """Rows as the bytes of a file."""
    buffer = io.BytesIO()
    columns = [pa.array((getattr(row, field.name) for row in rows), field.type, size=len(rows)) for field in SCHEMA]
    table = pa.Table.from_arrays(columns, schema=SCHEMA.with_metadata({"format": str(format)}))
    pq.write_table(table, buffer, write_page_checksum=True)
    return buffer.getvalue()


def from_parquet(data: bytes, key: str, *, most: int = FORMAT) -> Table:
    """What `to_parquet` made, now or long ago. Raises DataError, also for a table of a format over `most`."""
    try:
        table = read_parquet(data)
        number = int((table.schema.metadata or {}).get(b"format", 1))
        if number <= most:
            known = [name for name in table.column_names if name in SCHEMA.names]
            rows = pa.table({name: _checked(table.column(name), SCHEMA.field(name)) for name in known})
            unknown = (name for name in table.column_names if name not in SCHEMA.names)
            return Table(
                _frames(rows),
                tuple(name for name in unknown if table[name].null_count < len(table)),
                number,
            )
    except (pa.ArrowException, OSError, TypeError, ValueError, KeyError) as error:
        raise DataError(f"the bank's {key} is damaged; restore it from a copy") from error
    raise DataError(
        f"the bank's {key} was written by a later cellnet (format {number}, this one reads {most}); update cellnet"
    )


def _checked(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    """The column in its type. Raises ValueError or ArrowException for values that no frame has."""
    column = column.cast(field.type)
    values = column
    while pa.types.is_list(values.type):
        values = pc.list_flatten(values)
    good = [
        field.name not in _ALWAYS or not column.null_count,
        not pa.types.is_floating(values.type) or pc.all(pc.is_finite(values)).as_py() is not False,
        field.name not in _NOT_NEGATIVE or pc.all(pc.greater_equal(values, 0)).as_py() is not False,
        field.name != "count" or pc.all(pc.less_equal(values, MOST_CELLS)).as_py() is not False,
        field.name != "fingerprint" or pc.all(pc.match_substring_regex(values, _FINGERPRINT)).as_py() is not False,
        field.name != "split" or set(pc.unique(values).to_pylist()) <= {None, *get_args(Split)},
        field.name != "centres" or set(pc.unique(pc.list_value_length(pc.list_flatten(column))).to_pylist()) <= {2},
    ]
    if not all(good):
        raise ValueError(field.name)
    return column


def _frames(table: pa.Table) -> list[Frame]:
    columns = zip(*map(_values, table.columns), strict=True) if table.column_names else [()] * len(table)
    return [Frame(**dict(zip(table.column_names, values, strict=True))) for values in columns]


def _values(column: pa.ChunkedArray) -> list[Any]:
    """What stands in a column; a text that stands in many rows is held once."""
    if not pa.types.is_string(column.type):
        return list(column.to_pylist())
    coded = column.combine_chunks().dictionary_encode()
    texts = coded.dictionary.to_pylist()
    return [None if place is None else texts[place] for place in coded.indices.to_pylist()]
