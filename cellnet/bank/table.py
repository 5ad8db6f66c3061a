"""Frames of a bank as a table in a Parquet file.

The file's metadata say its `format`; a column that is not known here is left alone, one that it lacks is not known of
its frames.
"""

import io
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields
from typing import Final, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cellnet.bank.columns import SCHEMA, Frames
from cellnet.bank.duplicates import BITS
from cellnet.bank.frames import MOST_CELLS, Frame
from cellnet.config.choices import Split
from cellnet.errors import DataError
from cellnet.store.parquet import read_parquet

FORMAT: Final = 1
"""Of the tables that are written; those of before there were formats are of the first."""
MOVED: Final = 2
"""Of the last table of a bank that goes on in a log of parts: cellnets that know none are told to be updated."""
_ALWAYS: Final = ("frame", "source", "group", "height", "width", "bits", "darkest", "brightest", "fingerprint")
"""Columns in which something stands in every row."""
_DEFAULTS: Final = {field.name: field.default for field in fields(Frame) if field.default is not MISSING}
"""Of columns that a table may lack."""
_NOT_NEGATIVE: Final = (
    *("count", "height", "width", "pixel_um", "time_h"),
    *("focus", "brightest_share", "structure"),
)
_FINGERPRINT: Final = rf"\A([0-9a-f]{{{BITS // 4}}})?\z"
"""None of a frame that was set aside."""


@dataclass(frozen=True)
class Table:
    """What a table holds."""

    frames: Frames
    unknown: tuple[str, ...] = ()
    """Columns of a later cellnet in which something stands."""
    format: int = FORMAT


def to_parquet(rows: Iterable[Frame], *, format: int = FORMAT) -> bytes:
    """Rows as the bytes of a file."""
    buffer = io.BytesIO()
    table = Frames.of(rows).table.combine_chunks().replace_schema_metadata({"format": str(format)})
    pq.write_table(table, buffer, write_page_checksum=True)
    return buffer.getvalue()


def from_parquet(data: bytes, key: str, *, most: int = FORMAT) -> Table:
    """What `to_parquet` made, now or long ago. Raises DataError, also for a table of a format over `most`."""
    try:
        table = read_parquet(data)
        number = int((table.schema.metadata or {}).get(b"format", 1))
        if number <= most:
            rows = pa.Table.from_arrays([_column(table, field) for field in SCHEMA], schema=SCHEMA)
            _check_sizes(rows)
            unknown = (name for name in table.column_names if name not in SCHEMA.names)
            return Table(
                Frames(rows),
                tuple(name for name in unknown if table[name].null_count < len(table)),
                number,
            )
    except (pa.ArrowException, OSError, TypeError, ValueError, KeyError) as error:
        raise DataError(f"the bank's {key} is damaged; restore it from a copy") from error
    raise DataError(
        f"the bank's {key} was written by a later cellnet (format {number}, this one reads {most}); update cellnet"
    )


def _check_sizes(rows: pa.Table) -> None:
    """Raise ValueError for a frame in use that has no pixels; of one that was set aside no size is known."""
    least = pc.min_element_wise(rows.column("height"), rows.column("width"))
    if pc.any(pc.and_(pc.equal(least, 0), pc.is_null(rows.column("set_aside")))).as_py():
        raise ValueError("height, width")


def _column(table: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    """What the table has in a column, else what frames have by default. Raises KeyError for a column that must be."""
    if field.name in table.column_names:
        return _checked(table.column(field.name), field)
    return pa.chunked_array([pa.repeat(pa.scalar(_DEFAULTS[field.name], field.type), len(table))])


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
