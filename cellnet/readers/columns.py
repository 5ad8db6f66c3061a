"""Tables of millions of rows, a column at a time: the same cells as `tables.read_csv` gives, in Arrow's memory."""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cellnet.readers.tables import cleaned, number_of, read_cells
from cellnet.store.paths import AnyPath

BATCH: Final = 8192
"""Rows that are Python's at one time."""
_PLAIN: Final = r"\A-?[0-9]+(\.[0-9]+)?\z"
"""Numbers as nearly all programs write them: there is nothing to clean, and Arrow reads them as Python does."""


@dataclass(frozen=True)
class Columns:
    """The N rows of a table by the names of their columns."""

    cells: dict[str, pa.ChunkedArray]
    """Texts, empty where nothing is known."""
    lines_N: NDArray[np.int64]
    """The line of the file where each row ends."""

    def __len__(self) -> int:
        return len(self.lines_N)

    def text(self, name: str, row: int) -> str:
        """A cell."""
        told: str = self.cells[name][row].as_py()
        return told

    def numbers(self, name: str, read: Callable[[str], float | None] = number_of) -> NDArray[np.float64]:
        """The numbers (N,) of a column, NaN where a cell has none; `read` makes them of cells that are not plain."""
        cells = self.cells[name]
        is_plain = pc.match_substring_regex(cells, _PLAIN)
        told = pc.cast(pc.if_else(is_plain, cells, pa.scalar(None, pa.string())), pa.float64())
        numbers_N = np.array(told.to_numpy(), np.float64)
        others = [read(text) for text in cells.filter(pc.invert(is_plain)).to_pylist()]
        numbers_N[~is_plain.to_numpy()] = [np.nan if number is None else number for number in others]
        return np.where(np.isfinite(numbers_N), numbers_N, np.nan)

    def places_of(self, *names: str) -> dict[tuple[str, ...], NDArray[np.int64]]:
        """The places of the rows in which some columns say the same, by what they say, as it first comes."""
        codes_N = np.zeros(len(self), np.int64)
        told: list[list[str]] = []
        for name in names:
            encoded = self.cells[name].combine_chunks().dictionary_encode()
            told.append(encoded.dictionary.to_pylist())
            codes_N = codes_N * len(told[-1]) + encoded.indices.to_numpy()
        order_N = np.argsort(codes_N, kind="stable")
        starts_N = np.flatnonzero(np.diff(codes_N[order_N], prepend=-1))
        groups = sorted(np.split(order_N, starts_N[1:]), key=lambda places: int(places[0])) if len(self) else []
        return {tuple(self.text(name, int(places[0])) for name in names): places for places in groups}


def read_columns(path: AnyPath, columns: Sequence[str], wanted: Callable[[Sequence[str]], Sequence[str]]) -> Columns:
    """Some columns of a table, chosen by `wanted` of the names that it has; raises what `read_csv` raises."""
    names, _, rows = read_cells(path, columns)
    places = [names.index(name) for name in wanted(names)]
    last = max(places, default=-1)
    chunks: list[list[pa.Array]] = [[] for _ in places]
    lines = array("q")
    while True:
        told: list[list[str]] = [[] for _ in places]
        for cells, line in islice(rows, BATCH):  # of each row only texts are kept, which the collector passes over
            lines.append(line)
            if len(cells) <= last:
                cells = [*cells, *("" for _ in range(last))]
            for column, place in zip(told, places, strict=True):
                column.append(cells[place])
        for chunk, column in zip(chunks, told, strict=True):
            chunk.append(_cleaned(pa.array(column, pa.string())))
        if len(lines) % BATCH or not any(told):
            break
    held = {names[place]: pa.chunked_array(chunk, pa.string()) for place, chunk in zip(places, chunks, strict=True)}
    return Columns(held, np.array(lines, np.int64))


def _cleaned(cells: pa.Array) -> pa.Array:
    """As `tables.cleaned` of each; of those that say the same once."""
    encoded = cells.dictionary_encode()
    odd = pc.invert(pc.match_substring_regex(encoded.dictionary, _PLAIN))
    clean = [cleaned(text) for text in encoded.dictionary.filter(odd).to_pylist()]
    return pc.replace_with_mask(encoded.dictionary, odd, pa.array(clean, pa.string())).take(encoded.indices)
