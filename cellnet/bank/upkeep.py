"""What lies in a bank and in runs, and how large it is; what nobody needs is cleared away.

pixels, parts, log, tables   the bank and how it came to be: never removed
shards                       tiles of trainings, made anew when one needs them: removed when none used them for long
prepared                     what images came to, for an import that goes on: removed when it is old
summaries                    what `cellnet bank show` says, made anew when it is asked for: removed when they are old
checkpoints                  of runs: removed when the run is finished and old; its records stay
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from cellnet.bank.bank import Bank
from cellnet.errors import ConfigError, RegistryError, UnavailableError
from cellnet.store.objects import Entry, Store, together

DAY_S: Final = 86_400
KEEP_DAYS: Final = 30.0
LEAST_KEEP_DAYS: Final = 1.0
"""Nobody may still be at an import, or have just found shards that are so old."""
KEPT: Final = ("pixels", "parts", "log", "tables")
SWEPT: Final = (*KEPT, "shards", "prepared", "summaries")
CHECKPOINT: Final = re.compile(r"(?P<run>[^/]+)/checkpoint_[^/]+/.")
FINISHED: Final = "finished.json"
"""The record of a run that is over, in its folder."""


@dataclass(kw_only=True)
class Held:
    """How much of a kind there is, and how much of it nobody needs."""

    what: str
    files: int = 0
    bytes: int = 0
    unneeded: int = 0
    unneeded_bytes: int = 0

    def add(self, entry: Entry, *, needed: bool) -> None:
        self.files += 1
        self.bytes += entry.size
        self.unneeded += not needed
        self.unneeded_bytes += 0 if needed else entry.size


@dataclass(kw_only=True)
class Cleared:
    """What `clear` found, and removed or would remove: what of it is `unneeded`."""

    held: list[Held]
    of_no_frame: int
    """Pixels that no frame of the bank has, left by an import that did not end; one that goes on uses them."""
    unfinished: int = 0
    """Left of writes that never ended."""


def clear(bank: Bank, runs: Store | None = None, *, keep_days: float = KEEP_DAYS, dry_run: bool = False) -> Cleared:
    """Remove from a bank, and from runs, what nobody needs and was not used for `keep_days`; say what there is.

    Safe beside imports and trainings that take less than these days. Raises ConfigError for too few of them.
    """
    if not keep_days >= LEAST_KEEP_DAYS:
        raise ConfigError(f"what is not needed is kept for {LEAST_KEEP_DAYS:g} day at least, not for {keep_days:g}")
    before = bank.store.now() - keep_days * DAY_S
    named = pc.unique(bank.frames.column("frame"))
    held = [Held(what=what) for what in KEPT]
    of_no_frame = 0
    for kind in held:
        for some in _some(bank.store.entries(f"{kind.what}/")):
            for entry in some:
                kind.add(entry, needed=True)
            if kind.what == "pixels":
                names = pa.array([entry.key.rpartition("/")[2].removesuffix(".png") for entry in some], pa.string())
                of_no_frame += pc.sum(pc.invert(pc.is_in(names, value_set=named))).as_py()
    for what, store, entries in (
        ("shards", bank.store, _shards(bank.store, before)),
        *(
            (what, bank.store, ((entry, entry.modified < before) for entry in bank.store.entries(f"{what}/")))
            for what in ("prepared", "summaries")
        ),
        *([("checkpoints", runs, _checkpoints(runs, before))] if runs else []),
    ):
        kind = Held(what=what)
        held.append(kind)
        unneeded = []
        for entry, is_old in entries:
            kind.add(entry, needed=not is_old)
            if is_old:
                unneeded.append(entry.key)
        if not dry_run:
            list(together(store.delete, unneeded))
    unfinished = 0 if dry_run else sum(_swept(bank.store, f"{what}/", before) for what in SWEPT)
    return Cleared(held=held, of_no_frame=of_no_frame, unfinished=unfinished)


def _some(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """The entries, some thousands at a time, since a bank may have millions."""
    some: list[Entry] = []
    for entry in entries:
        some.append(entry)
        if len(some) == 10_000:
            yield some
            some = []
    if some:
        yield some


def _shards(store: Store, before: float) -> Iterator[tuple[Entry, bool]]:
    """Every file of shards, their records first, and whether they are old: those of a record that was last used then.

    Files that no record is of are as old as the newest of them: they are being made, or were left.
    """
    entries = list(store.entries("shards/"))
    records = {entry.key.removesuffix(".json"): entry for entry in entries if entry.key.count("/") == 1}
    used: dict[str, float] = defaultdict(float)
    for entry in entries:
        used[_set_of(entry)] = max(used[_set_of(entry)], entry.modified)
    for entry in records.values():
        yield entry, used[_set_of(entry)] < before
    yield from ((entry, used[_set_of(entry)] < before) for entry in entries if entry.key.count("/") > 1)


def _set_of(entry: Entry) -> str:
    """What shards are called after, their record and their files alike: KEY of KEY.json and KEY-XXXX/."""
    return re.split(r"[-.]", entry.key.split("/")[1])[0]


def _checkpoints(runs: Store, before: float) -> Iterator[tuple[Entry, bool]]:
    """Every file of a checkpoint, and whether its run was finished long ago."""
    entries = list(runs.entries(""))
    finished = {
        entry.key.partition("/")[0]
        for entry in entries
        if entry.key.endswith(f"/{FINISHED}") and entry.key.count("/") == 1 and entry.modified < before
    }
    for entry in entries:
        if match := CHECKPOINT.match(entry.key):
            yield entry, match["run"] in finished


def _swept(store: Store, prefix: str, before: float) -> int:
    try:
        return store.sweep(prefix, before)
    except UnavailableError:
        raise
    except RegistryError:  # rights that others need not have, or a server that knows no uploads
        return 0
