"""The table of a bank as it lies there: immutable parts, and a log whose entries say which of them are the bank.

    parts/SHA256.parquet   rows, addressed by what the file holds
    log/000003.json        an import: its parts in order, when it was and by whom; the newest is the bank
    tables/000003.parquet  of banks of before there were parts: the whole table, anew with each import

An import writes new rows as one part more, and those parts anew in which something changed. Small parts are joined with
what comes after them, so that there are few, and each row is written a few times, whatever the number of imports.
"""

import contextlib
import getpass
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from cellnet.bank.columns import Frames
from cellnet.bank.table import MOVED, from_parquet, to_parquet
from cellnet.config.loading import Frozen, Stored, read_record, record_bytes
from cellnet.errors import ConfigError, DataError, IntegrityError, NotFoundError, RegistryError
from cellnet.store.log import LAST, Log
from cellnet.store.objects import Store

GROWTH: Final = 2
"""A part has more than so many times the rows of the next one; else they are one."""
ENTRY_BYTES: Final = 2**20
"""Of an entry, which is read whole."""


class Part(Frozen):
    """Rows that lie together."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Of the file."""
    rows: int = Field(ge=0)

    @property
    def key(self) -> str:
        """Where it lies."""
        return f"parts/{self.sha256}.parquet"


class Entry(Stored):
    """What a bank came to be, and how."""

    what: Literal["import"] = "import"
    at: datetime
    by: str = ""
    """The user's name on the machine that did it, where it has one."""
    parts: list[Part]


@dataclass(frozen=True)
class State:
    """The rows of a bank at one time, and where they lie."""

    entry: int = 0
    """The number in the log; 0 where there is none."""
    parts: Sequence[tuple[Part, Frames]] = ()
    table: int = 0
    """The number of the table of before."""
    before: Frames = field(default_factory=lambda: Frames.of([]))
    """Its rows, which lie in no part until something is imported."""
    closed: bool = False
    """Whether cellnets of before can tell that the bank goes on in its log."""
    unknown: tuple[str, ...] = ()
    """Columns of a later cellnet in which something stands."""

    @property
    def rows(self) -> Frames:
        """All of them, those that are set aside too."""
        return Frames.joined([self.before, *(rows for _, rows in self.parts)])


NOTHING: Final = State()


def read_state(store: Store) -> State:
    """What a bank is. Raises DataError for one that is damaged, or that a later cellnet wrote."""
    log, before = _log(store), _tables(store)
    if number := log.newest():
        entry = _read_entry(log, number)
        tables = [(part, from_parquet(_read_part(log, part, number), part.key)) for part in entry.parts]
        unknown = dict.fromkeys(column for _, table in tables for column in table.unknown)
        return State(number, [(part, table.frames) for part, table in tables], unknown=tuple(unknown))
    if number := before.newest():
        table = from_parquet(before.read(number), before.key(number), most=MOVED)
        return State(table=number, before=table.frames, closed=table.format == MOVED, unknown=table.unknown)
    return NOTHING


def write_state(store: Store, state: State, rows: Frames) -> State | None:
    """Let a bank that is in this state have these rows, and say in which it is then; None: it is no longer in this one.

    The state itself where it has them already. Raises ConfigError for a bank that holds what this cellnet does not know
    and would lose.
    """
    pieces = list(_joined(_arranged(state, rows)))
    if Frames.joined(piece for _, piece in pieces) == state.rows:
        return state
    if state.unknown:
        raise ConfigError(
            f"the bank {store.uri} holds {', '.join(state.unknown)}, which this cellnet does not know and would lose; "
            "update cellnet to import into it"
        )
    log = _log(store)
    if state.entry == LAST:
        raise RegistryError(
            f"the bank {store.uri} has {LAST:,} imports, and no number is left: import into a new bank, or "
            f"remove {log.key(LAST)} if somebody left it there"
        )
    parts = [(part, piece) if part else _write_part(store, piece) for part, piece in pieces]
    if state.table and not state.closed:
        closing = to_parquet(state.before, format=MOVED)
        if not _tables(store).append(state.table + 1, closing):
            return None
    entry = Entry(at=datetime.now(UTC), by=_user(), parts=[part for part, _ in parts])
    return State(state.entry + 1, parts) if log.append(state.entry + 1, record_bytes(entry)) else None


def _log(store: Store) -> Log:
    return Log(store, "log", limit=ENTRY_BYTES)


def _tables(store: Store) -> Log:
    return Log(store, "tables", ending="parquet")


def _read_entry(log: Log, number: int) -> Entry:
    try:
        return read_record(Entry, log.read(number), f"the bank's {log.key(number)}")
    except IntegrityError as error:
        raise DataError(f"{error}; restore it from a copy") from error


def _read_part(log: Log, part: Part, number: int) -> bytes:
    try:
        data = log.store.get(part.key)
    except NotFoundError as error:
        raise DataError(
            f"the bank's {part.key} is gone, which its {log.key(number)} names; restore it from a copy"
        ) from error
    if hashlib.sha256(data).hexdigest() != part.sha256:
        raise DataError(f"the bank's {part.key} is damaged; restore it from a copy")
    return data


def _write_part(store: Store, rows: Frames) -> tuple[Part, Frames]:
    data = to_parquet(rows)
    part = Part(sha256=hashlib.sha256(data).hexdigest(), rows=len(rows))
    store.create(part.key, data)
    return part, rows


def _arranged(state: State, rows: Frames) -> Iterator[tuple[Part | None, Frames]]:
    """Rows as they lie in the parts that there are, and then what is new; without its part where one changed."""
    names = _names(rows)
    is_new = np.ones(len(rows), bool)
    for part, before in [*([(None, state.before)] if state.before else []), *state.parts]:
        places = pc.index_in(_names(before), value_set=names).drop_null().to_numpy()
        is_new[places] = False
        piece = rows.at(places)
        yield (part, before) if piece == before else (None, piece)
    yield None, rows.where(pa.array(is_new))


def _joined(pieces: Iterable[tuple[Part | None, Frames]]) -> Iterator[tuple[Part | None, Frames]]:
    """The pieces, small ones joined to those before them, none empty."""
    kept: list[tuple[Part | None, Frames]] = []
    for part, rows in pieces:
        if not rows:
            continue
        while kept and len(kept[-1][1]) <= GROWTH * len(rows):
            part, rows = None, Frames.joined([kept.pop()[1], rows])
        kept.append((part, rows))
    yield from kept


def _names(rows: Frames) -> pa.Array:
    """What rows are known by: a frame by its pixels, an image that is set aside by where it lies."""
    is_used = pc.is_null(rows.column("set_aside"))
    aside = pc.binary_join_element_wise(">", rows.column("source"), "")
    return pc.if_else(is_used, rows.column("frame"), aside).combine_chunks()


def _user() -> str:
    with contextlib.suppress(OSError, KeyError, ImportError):
        return getpass.getuser()
    return ""
