"""The table of a bank as it lies there: immutable parts, and a log whose entries say which of them are the bank.

    parts/SHA256.parquet   rows, or labels, addressed by what the file holds
    log/000003.json        an import, or labels: the parts of the bank in order, when it was, by whom and why; the
                           newest is the bank, and each is what the bank was then
    tables/000003.parquet  of banks of before there were parts: the whole table, anew with each import

An import writes new rows as one part more, and those parts anew in which something changed. Labels are one part more of
their own, and leave the rows as they were imported. Small parts are joined with what comes after them, so that there
are few, and each row is written a few times, whatever the number of entries. None of them is ever written over.
"""

import hashlib
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import zip_longest
from typing import ClassVar, Final, Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from cellnet.bank.columns import Frames
from cellnet.bank.labels import Labels, labels_from_parquet, labels_to_parquet
from cellnet.bank.table import MOVED, from_parquet, to_parquet
from cellnet.config.loading import Frozen, Stored, is_none, read_record, record_bytes
from cellnet.errors import ConfigError, DataError, IntegrityError, LaterError, NotFoundError, RegistryError
from cellnet.store.log import LAST, Log, user
from cellnet.store.objects import Store, together

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

    FORMAT: ClassVar[int] = 2
    """2: there are labels, without which readers of 1 would take the bank for another."""

    what: Literal["import", "labels"] = "import"
    at: datetime
    by: str = ""
    """The user's name on the machine that did it, where it has one; of labels whoever they were written down for."""
    why: str = Field(default="", exclude_if=operator.not_)
    undoes: int | None = Field(default=None, exclude_if=is_none)
    """The entry of labels that this one takes back."""
    parts: list[Part]
    labels: list[Part] = Field(default=[], exclude_if=operator.not_)
    """All labels so far, in parts of their own."""

    @property
    def written_format(self) -> int:
        """1 of all that readers of 1 can use."""
        return 2 if self.labels else 1


@dataclass(frozen=True)
class State:
    """The rows of a bank at one time, what was said of them since they came, and where both lie."""

    entry: int = 0
    """The number in the log; 0 where there is none."""
    at: datetime | None = None
    """When that was written."""
    parts: Sequence[tuple[Part, Frames]] = ()
    said: Sequence[tuple[Part, Labels]] = ()
    """The labels."""
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
        """All of them as they were imported, those that are set aside too."""
        return Frames.joined([self.before, *(rows for _, rows in self.parts)])

    @property
    def labels(self) -> Labels:
        """All of them."""
        return Labels.joined(labels for _, labels in self.said)


NOTHING: Final = State()
Moment = int | datetime
"""Of a bank: the number of an entry of its log, or a time, for the newest entry until then."""


def read_state(store: Store, known: State = NOTHING, *, as_of: Moment | None = None) -> State:
    """What a bank is, or was; of parts that are `known` only what is new is read.

    Raises DataError for one that is damaged, or that a later cellnet wrote, and ConfigError for a moment at which there
    was none.
    """
    log, before = _log(store), _tables(store)
    if number := number_of(store, as_of=as_of):
        if number == known.entry:
            return known
        entry = read_entry(store, number)
        tables = {part.sha256: rows for part, rows in known.parts}
        lists = {part.sha256: labels for part, labels in known.said}
        unknown = dict.fromkeys(known.unknown)

        def rows_of(part: Part) -> Frames:
            table = from_parquet(_read_part(log, part, number), part.key)
            unknown.update(dict.fromkeys(table.unknown))
            return table.frames

        def labels_of(part: Part) -> Labels:
            labels, later = labels_from_parquet(_read_part(log, part, number), part.key)
            unknown.update(dict.fromkeys(later))
            return labels

        return State(
            number,
            entry.at,
            [(part, _kept(tables, part, rows_of)) for part in entry.parts],
            [(part, _kept(lists, part, labels_of)) for part in entry.labels],
            unknown=tuple(unknown),
        )
    if number := before.newest():
        table = from_parquet(before.read(number), before.key(number), most=MOVED)
        return State(table=number, before=table.frames, closed=table.format == MOVED, unknown=table.unknown)
    return NOTHING


def write_state(store: Store, state: State, rows: Frames, labels: Labels) -> State | None:
    """Let a bank that is in this state have these rows, and say in which it is then; None: it is no longer in this one.

    `labels` are more of them, of rows that take the places of others. The state itself where it has them already.
    Raises ConfigError for a bank that holds what this cellnet does not know and would lose.
    """
    arranged = list(_arranged(state, rows))
    if all(piece is before for (_, piece), (_, before) in zip_longest(arranged, _pieces(state), fillvalue=(None, ()))):
        return state
    pieces = list(_joined(arranged, Frames.joined))
    return _append(store, state, Entry(at=next_moment(state), by=user(), parts=[]), pieces, _with(state, labels))


def write_labels(
    store: Store, state: State, labels: Labels, *, by: str, why: str = "", at: datetime, undoes: int | None = None
) -> State | None:
    """Likewise with these labels more, of its next entry, and the rows that it has."""
    pieces = list(_joined(_pieces(state), Frames.joined))
    entry = Entry(what="labels", at=at, by=by, why=why, undoes=undoes, parts=[])
    return _append(store, state, entry, pieces, _with(state, labels))


def _with(state: State, labels: Labels) -> list[tuple[Part | None, Labels]]:
    """The parts of a state's labels, with more of them."""
    return list(_joined([*state.said, (None, labels)], Labels.joined))


def number_of(store: Store, *, as_of: Moment | None = None) -> int:
    """The number of a bank's newest entry, or of that of a moment; 0 where there is none.

    Raises ConfigError for a moment at which there was none.
    """
    log = _log(store)
    newest = log.newest()
    return newest if as_of is None else _number_at(log, newest, as_of)


def read_entry(store: Store, number: int) -> Entry:
    """An entry of a bank's log. Raises DataError for one that is damaged, or that a later cellnet wrote."""
    return _read_entry(_log(store), number)


def entries_of(store: Store) -> Iterator[tuple[int, Entry]]:
    """The log of a bank, the oldest first. Raises DataError for an entry that is damaged."""
    log = _log(store)
    numbers = list(log.numbers())
    yield from zip(numbers, together(lambda number: _read_entry(log, number), numbers), strict=True)


def _append(
    store: Store,
    state: State,
    entry: Entry,
    rows: Sequence[tuple[Part | None, Frames]],
    labels: Sequence[tuple[Part | None, Labels]],
) -> State | None:
    """Write what has no part yet, then the next entry of the log; None where somebody else was first."""
    if state.unknown:
        raise ConfigError(
            f"the bank {store.uri} holds {', '.join(state.unknown)}, which this cellnet does not know and would lose; "
            "update cellnet to write to it"
        )
    log = _log(store)
    if state.entry == LAST:
        raise RegistryError(
            f"the bank {store.uri} has {LAST:,} entries, and no number is left: import into a new bank, or "
            f"remove {log.key(LAST)} if somebody left it there"
        )
    parts = [(part or _write_part(store, to_parquet(piece), len(piece)), piece) for part, piece in rows]
    said = [(part or _write_part(store, labels_to_parquet(piece), len(piece)), piece) for part, piece in labels]
    if state.table and not state.closed:
        closing = to_parquet(state.before, format=MOVED)
        if not _tables(store).append(state.table + 1, closing):
            return None
    named = {"parts": [part for part, _ in parts], "labels": [part for part, _ in said]}
    written = record_bytes(entry.model_copy(update=named))
    if len(written) > ENTRY_BYTES:
        raise RegistryError(f"an entry of {len(written):,} bytes is more than {ENTRY_BYTES:,}; give a shorter reason")
    return State(state.entry + 1, entry.at, parts, said) if log.append(state.entry + 1, written) else None


def next_moment(state: State) -> datetime:
    """When the next entry is written: never before the one that there is, whatever the machines' clocks say."""
    return max(datetime.now(UTC), state.at or datetime.min.replace(tzinfo=UTC))


_Rows = TypeVar("_Rows", Frames, Labels)


def _kept(known: Mapping[str, _Rows], part: Part, read: Callable[[Part], _Rows]) -> _Rows:
    held = known.get(part.sha256)
    return read(part) if held is None else held


def _number_at(log: Log, newest: int, as_of: Moment) -> int:
    """The entry that a moment means. Raises ConfigError for one before the first or behind the last."""
    where = f"the bank {log.store.uri}"
    if not newest:
        raise ConfigError(f"{where} has no entries, so it is known as it is alone; leave --as-of out")
    if isinstance(as_of, int):
        if not 1 <= as_of <= newest:
            raise ConfigError(f"{where} has the entries 1 to {newest}, and no {as_of}; cellnet bank labels lists them")
        return as_of
    first, last = 0, newest  # the newest entry until then is among those from here to there
    while first < last:
        middle = (first + last + 1) // 2
        first, last = (middle, last) if _read_entry(log, middle).at <= as_of else (first, middle - 1)
    if not first:
        then, first_at = (f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" for at in (as_of, _read_entry(log, 1).at))
        raise ConfigError(f"{where} has nothing of {then}; its first entry is of {first_at}")
    return first


def _log(store: Store) -> Log:
    return Log(store, "log", limit=ENTRY_BYTES)


def _tables(store: Store) -> Log:
    return Log(store, "tables", ending="parquet")


def _read_entry(log: Log, number: int) -> Entry:
    try:
        return read_record(Entry, log.read(number), f"the bank's {log.key(number)}")
    except LaterError as error:
        raise DataError(str(error)) from error
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


def _write_part(store: Store, data: bytes, rows: int) -> Part:
    part = Part(sha256=hashlib.sha256(data).hexdigest(), rows=rows)
    store.create(part.key, data)
    return part


def _pieces(state: State) -> list[tuple[Part | None, Frames]]:
    """The rows of a state as they lie."""
    return [*([(None, state.before)] if state.before else []), *state.parts]


def _arranged(state: State, rows: Frames) -> Iterator[tuple[Part | None, Frames]]:
    """Rows as they lie in the parts that there are, without its part where one changed; and then what is new.

    Mostly none did, and the frames of each part follow those of the one before it: that is looked at first, since an
    index of a million names takes a second.
    """
    is_used = pc.is_null(rows.column("set_aside"))
    used_U, aside_A = np.flatnonzero(is_used), np.flatnonzero(pc.invert(is_used))
    asides = rows.at(aside_A).column("source").combine_chunks()
    names: pa.Array | None = None
    is_new = np.ones(len(rows), bool)
    at = 0
    for part, before in _pieces(state):
        used, aside = before.equal("set_aside", None), before.known("set_aside")
        used_places = used_U[at : at + len(used)]
        aside_places = aside_A[pc.index_in(aside.column("source").combine_chunks(), value_set=asides).drop_null()]
        at += len(used)
        if rows.at(used_places) == used and rows.at(aside_places) == aside:
            is_new[used_places] = is_new[aside_places] = False
            yield part, before
            continue
        names = _names(rows) if names is None else names
        places = pc.index_in(_names(before), value_set=names).drop_null().to_numpy()
        is_new[places] = False
        piece = rows.at(places)
        yield (part, before) if piece == before else (None, piece)
    if is_new.any():
        yield None, rows.where(pa.array(is_new))


def _joined(
    pieces: Iterable[tuple[Part | None, _Rows]], join: Callable[[Iterable[_Rows]], _Rows]
) -> Iterator[tuple[Part | None, _Rows]]:
    """The pieces, small ones joined to those before them, none empty."""
    kept: list[tuple[Part | None, _Rows]] = []
    for part, rows in pieces:
        if not rows:
            continue
        while kept and len(kept[-1][1]) <= GROWTH * len(rows):
            part, rows = None, join([kept.pop()[1], rows])
        kept.append((part, rows))
    yield from kept


def _names(rows: Frames) -> pa.Array:
    """What rows are known by: a frame by its pixels, an image that is set aside by where it lies."""
    is_used = pc.is_null(rows.column("set_aside"))
    aside = pc.binary_join_element_wise(">", rows.column("source"), "")
    return pc.if_else(is_used, rows.column("frame"), aside).combine_chunks()
