"""Frames as columns of an Arrow table, so that a million of them take half a gigabyte and not five."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Self, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from cellnet.bank.frames import FORM, Frame

SCHEMA: Final = pa.schema(
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
        ("unusable", pa.string()),
        ("focus", pa.float64()),
        ("brightest_share", pa.float64()),
        ("structure", pa.float64()),
    ]
)
SHOWN: Final = 8
"""Frames in the text that stands for all."""
MADE: Final = 4096
"""Rows that are made frames, or frames rows, at a time."""


FEW: Final = 16
"""One in so many rows, of which fewer are taken piece by piece."""
NOT_KNOWN: Final = "(not known)"
"""What stands for the lineage of frames that have none."""


class Frames(Sequence[Frame]):
    """Frames in order. One is made when it is asked for; what is asked of all is asked of a column."""

    def __init__(self, table: pa.Table) -> None:
        """Of a table that has the columns of `SCHEMA`."""
        self.table = table

    @classmethod
    def of(cls, rows: Iterable[Frame]) -> "Frames":
        """The rows as columns, if they are none yet; of what gives them one by one few are held at a time."""
        if isinstance(rows, Frames):
            return rows
        left = iter(rows)
        tables = [_table_of(some) for some in iter(lambda: list(itertools.islice(left, MADE)), [])]
        return cls(pa.concat_tables(tables) if tables else SCHEMA.empty_table())

    @classmethod
    def joined(cls, pieces: Iterable["Frames"]) -> Self:
        """All rows of the pieces, one after the other."""
        tables = [piece.table for piece in pieces if len(piece)]
        return cls(pa.concat_tables(tables) if tables else SCHEMA.empty_table())

    @property
    def in_one_piece(self) -> Self:
        """The same, copied so that each column lies in one place."""
        return type(self)(self.table.combine_chunks())

    def column(self, name: str) -> pa.ChunkedArray:
        """What stands in a column, null where it is not known."""
        return self.table.column(name)

    def values(self, name: str) -> list[Any]:
        """The same as Python's values; a text that stands in many rows is held once."""
        column = self.column(name)
        if not pa.types.is_string(column.type):
            return list(column.to_pylist())
        coded = column.combine_chunks().dictionary_encode()
        texts = coded.dictionary.to_pylist()
        return [None if place is None else texts[place] for place in coded.indices.to_pylist()]

    def counted(self, *names: str) -> dict[tuple[Any, ...], int]:
        """How often each combination of the columns' values occurs, in the order in which they come first."""
        table = pa.table({name: self.column(name) for name in names})
        groups = table.group_by(list(names), use_threads=False).aggregate([([], "count_all")])
        combinations = zip(*(groups[name].to_pylist() for name in names), strict=True)
        return dict(zip(combinations, groups["count_all"].to_pylist(), strict=True))

    @property
    def named(self) -> "Frames":
        """The frames, with `NOT_KNOWN` where no lineage is known."""
        lineages = self.column("lineage")
        is_known = pc.greater(pc.fill_null(pc.binary_length(lineages), 0), 0)
        return self.with_values("lineage", pc.if_else(is_known, lineages, NOT_KNOWN))

    def where(self, mask: Any) -> "Frames":
        """The frames for which an Arrow mask is true; themselves, and no copy, where it is for all."""
        if pc.all(pc.fill_null(mask, False)).as_py():
            return self
        return Frames(self.table.filter(mask, null_selection_behavior="drop"))

    def equal(self, name: str, value: Any) -> "Frames":
        """The frames that have this value in a column; those of which it is not known for None."""
        column = self.column(name)
        return self.where(pc.is_null(column) if value is None else pc.equal(column, pa.scalar(value, column.type)))

    def named_by(self, name: str, values: Iterable[str]) -> "Frames":
        """The frames that have one of these texts in a column."""
        return self.where(pc.is_in(self.column(name), pa.array(values, pa.string())))

    def known(self, name: str) -> "Frames":
        """The frames of which a column's value is known."""
        return self.where(pc.is_valid(self.column(name)))

    @property
    def centres(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """All known centres of cells (C, 2), columns x and y, and the place (C,) of the frame of each."""
        held = self.column("centres").combine_chunks()
        frame_C = np.repeat(np.arange(len(held)), np.asarray(pc.fill_null(pc.list_value_length(held), 0)))
        return frame_C, np.asarray(held.flatten().flatten()).reshape(-1, 2)

    @property
    def misread(self) -> "Frames":
        """The frames whose file is of a kind that an earlier cellnet, which read it, sometimes read wrong."""
        earlier = self.equal("set_aside", None)
        earlier = earlier.where(pc.less(pc.fill_null(earlier.column("form"), 0), FORM))
        is_tiff = pc.match_substring_regex(earlier.column("source"), r"^[^#]*\.tiff?(#|$)", ignore_case=True)
        return earlier.where(is_tiff)

    def each(self, places: ArrayLike) -> Iterator[Frame]:
        """The frames at these places one by one, of which few are held at a time."""
        places_N = np.asarray(places, np.int64)
        for start in range(0, len(places_N), MADE):
            yield from self.at(places_N[start : start + MADE])

    def at(self, places: ArrayLike) -> "Frames":
        """The frames at these places, in that order."""
        places_N = np.asarray(places, np.int64)
        if len(places_N) and (np.diff(places_N) == 1).all():
            return Frames(self.table.slice(places_N[0], len(places_N)))
        if len(places_N) * FEW < len(self):
            return Frames(_few_of(self.table, places_N))
        return Frames(self.table.take(pa.array(places_N)))

    def with_values(self, name: str, values: Any) -> "Frames":
        """The frames with other values in a column."""
        place = self.table.column_names.index(name)
        column = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])
        return Frames(self.table.set_column(place, self.table.schema.field(place), column))

    def with_frames(self, others: dict[int, Frame]) -> "Frames":
        """The frames with others in some places."""
        if not others:
            return self
        order = np.arange(len(self))
        order[list(others)] = len(self) + np.arange(len(others))
        return Frames.joined([self, Frames.of(others.values())]).at(order)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @overload
    def __getitem__(self, place: int) -> Frame: ...
    @overload
    def __getitem__(self, place: slice) -> "Frames": ...
    def __getitem__(self, place: int | slice) -> "Frame | Frames":
        places = range(len(self))[place]
        if isinstance(places, int):
            return next(_made(self.table.slice(places, 1)))
        if places.step == 1:
            return Frames(self.table.slice(places.start, len(places)))
        return self.at(places)

    def __iter__(self) -> Iterator[Frame]:
        for start in range(0, len(self), MADE):
            yield from _made(self.table.slice(start, MADE))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Frames):
            return len(self) == len(other) and all(
                self.column(field.name).equals(other.column(field.name)) for field in SCHEMA
            )
        if isinstance(other, (list, tuple)):
            return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        """Its rows alone: with a slice Arrow would pickle all that it was cut from."""
        written = pa.BufferOutputStream()
        with pa.ipc.new_stream(written, self.table.schema) as stream:
            stream.write_table(self.table)
        return _unpickled, (written.getvalue().to_pybytes(),)

    def __repr__(self) -> str:
        return f"Frames({list(self[:SHOWN])}{'…' * (len(self) > SHOWN)})"


def with_twins(copies: Frames, frames: Frames) -> tuple[Frames, Frames]:
    """The near-duplicates whose twins are among the frames, and those, one each."""
    twins = copies.column("twin").combine_chunks()
    among = frames.named_by("frame", pc.unique(twins.drop_null()))  # which may be a few of a million
    places = pc.index_in(twins, value_set=among.column("frame").combine_chunks())
    return copies.where(pc.is_valid(places)), among.at(places.drop_null())


def _few_of(table: pa.Table, places_N: NDArray[np.int64]) -> pa.Table:
    """The rows at a few places: from each piece by itself, since Arrow first copies a column that lies in several."""
    batches = table.to_batches()
    start_B = np.cumsum([0, *map(len, batches)])
    batch_N = np.searchsorted(start_B, places_N, side="right") - 1
    order_N = np.argsort(batch_N, kind="stable")
    taken = [batches[batch].take(pa.array(places_N[batch_N == batch] - start_B[batch])) for batch in np.unique(batch_N)]
    return pa.Table.from_batches(taken, table.schema).take(pa.array(np.argsort(order_N)))


def _unpickled(data: bytes) -> Frames:
    return Frames(pa.ipc.open_stream(data).read_all())


def _table_of(rows: Sequence[Frame]) -> pa.Table:
    columns = [pa.array((getattr(row, field.name) for row in rows), field.type, size=len(rows)) for field in SCHEMA]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _made(table: pa.Table) -> Iterator[Frame]:
    columns = zip(*(Frames(table).values(name) for name in SCHEMA.names), strict=True)
    return (Frame(**dict(zip(SCHEMA.names, values, strict=True))) for values in columns)
