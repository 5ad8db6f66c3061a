"""What a bank holds, counted over all its frames, as `cellnet bank show` tells it; kept beside a bank that is large.

    summaries/KEY.json   KEY is a hash of what it tells of (settings, entry, parts, labels) and of cellnet's version

Only a cache: it is left aside where it does not fit, made anew where it is gone, and not kept where nobody may write.
"""

import contextlib
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, Final, Self

from cellnet.bank.bank import SETTINGS_KEY, Bank
from cellnet.bank.columns import Frames, with_twins
from cellnet.bank.frames import Frame
from cellnet.bank.history import disagreements, standing
from cellnet.bank.parts import Entry, Moment, number_of, read_entry
from cellnet.bank.quality import flagged
from cellnet.bank.splits import contents
from cellnet.bank.warnings import outlook_of, warnings_in
from cellnet.config.loading import Stored, read_record, record_bytes
from cellnet.errors import CellnetError, NotFoundError
from cellnet.store.objects import Store
from cellnet.store.place import PlaceLike, open_store
from cellnet.version import code_version

LEAST_ROWS: Final = 50_000
"""Of a bank whose summary is kept: with fewer it is made within a second."""
MOST_BYTES: Final = 2**26
"""Of one that is kept."""
DIRTY: Final = ".dirty"
"""How the version of a changed checkout ends, of which nobody knows what it tells."""


class Summary(Stored):
    """What is told of a bank: the fields of `cellnet bank show --json`."""

    digest: str
    rows: list[dict[str, Any]]
    """The frames of each lineage in each split: how many, of how many groups, how large and how bright."""
    batches: list[dict[str, Any]]
    """What each batch holds, of which lineages and ages; frames whose batch is not known last. Empty where none is."""
    warnings: list[str]
    set_aside: list[dict[str, Any]]
    near: list[tuple[str, str]]
    """The sources of near-duplicates, each with that of what it copies."""
    earlier: list[str]
    """The sources of frames that an earlier cellnet may have misread."""
    notes: list[dict[str, Any]]
    """How masks were read, where another reading can be thought of, and of which frames."""
    outlook: str
    entry: int
    labels: dict[str, Any]
    """How much was said of frames since they came, and which cannot be used, by the reason."""
    quality: dict[str, Any]
    """The frames that look out of focus, saturated or empty, and of how many this was never measured."""

    @property
    def frames(self) -> int:
        """How many there are in use."""
        return sum(row["frames"] for row in self.rows)

    @classmethod
    def at(cls, place: PlaceLike, *, as_of: Moment | None = None) -> Self:
        """That of the bank at a place, as it was at a moment where that is told; raises what `Bank.open` does."""
        return cls._kept(open_store(place), as_of) or cls.of(Bank.open(place, as_of=as_of))

    @classmethod
    def of(cls, bank: Bank) -> Self:
        """That of an open bank; kept where the bank is large and all that it tells of could be read."""
        unread: list[CellnetError] = []
        frames = bank.frames
        summary = cls(
            digest=bank.digest,
            rows=_rows(frames),
            batches=_batches(frames),
            warnings=warnings_in(bank, unread=unread.append),
            set_aside=[{"source": frame.source, "reason": frame.set_aside} for frame in bank.set_aside],
            near=near_ones(frames, frames.known("twin")),
            earlier=frames.misread.values("source"),
            notes=_notes(frames),
            outlook=outlook_of(frames),
            entry=bank.entry,
            labels=_labels(bank),
            quality=_quality(frames),
        )
        if not unread:
            summary._keep(bank.store)
        return summary

    def _keep(self, store: Store) -> None:
        entry = read_entry(store, self.entry) if self.entry else None
        if not entry or not (key := _key(store.get(SETTINGS_KEY), self.entry, entry)):
            return
        data = record_bytes(self)
        if len(data) < MOST_BYTES:
            with contextlib.suppress(CellnetError):
                store.put(key, b"\n".join([_sha256(data), data]))

    @classmethod
    def _kept(cls, store: Store, as_of: Moment | None) -> Self | None:
        """The one that fits the bank as it is, or was; None where there is none, or something of the bank is gone."""
        try:
            settings = store.get(SETTINGS_KEY)
        except NotFoundError:
            return None
        number = number_of(store, as_of=as_of)
        entry = read_entry(store, number) if number else None
        if not entry or not (key := _key(settings, number, entry)):
            return None
        try:
            told, _, data = store.get(key, limit=MOST_BYTES + 100).partition(b"\n")
            parts = {part.key for part in (*entry.parts, *entry.labels)}
            if told != _sha256(data) or parts - set(store.keys("parts/")):
                return None
            return read_record(cls, data, key)
        except CellnetError:
            return None


def _key(settings: bytes, number: int, entry: Entry) -> str | None:
    """Where the summary of a bank as of an entry is kept; None of a bank of which none is."""
    version = code_version()
    if version.endswith(DIRTY) or sum(part.rows for part in entry.parts) < LEAST_ROWS:
        return None
    parts, labels = ([part.sha256 for part in held] for held in (entry.parts, entry.labels))
    made_of = json.dumps([version, hashlib.sha256(settings).hexdigest(), number, parts, labels])
    return f"summaries/{hashlib.sha256(made_of.encode()).hexdigest()}.json"


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


def near_ones(frames: Frames, copies: Sequence[Frame]) -> list[tuple[str, str]]:
    """The sources of near-duplicates, each with that of what it copies."""
    known, originals = with_twins(Frames.of(copies), frames)
    return list(zip(known.values("source"), originals.values("source"), strict=True))


def span(ages: list[float] | None) -> str | None:
    """From the youngest to the oldest."""
    return "-".join(f"{age:g}" for age in dict.fromkeys(ages)) if ages else None


def _rows(frames: Frames) -> list[dict[str, Any]]:
    frames = frames.named
    sizes: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for (lineage, split, width, height), held in frames.counted("lineage", "split", "width", "height").items():
        sizes[lineage, split][f"{width}×{height}"] += held
    bits: dict[tuple[str, str], set[int]] = defaultdict(set)
    for lineage, split, depth in frames.counted("lineage", "split", "bits"):
        bits[lineage, split].add(depth)
    rows = []
    for part in contents(frames, "lineage", "split"):
        named = part["lineage"], part["split"]
        others = len(sizes[named]) - 1
        rows.append(
            {
                "lineage": part["lineage"],
                "split": part["split"],
                **{name: part[name] for name in ("frames", "groups", "batches", "cells")},
                "hours": span(part["time_h"]),
                "size": sizes[named].most_common(1)[0][0] + (f" and {others} more" if others else ""),
                "bits": "/".join(map(str, sorted(bits[named]))),
                "grey": f"{part['darkest']}-{part['brightest']}",
            }
        )
    return rows


def _batches(frames: Frames) -> list[dict[str, Any]]:
    lineages: dict[str | None, list[str]] = defaultdict(list)
    for lineage, batch in sorted(frames.known("lineage").counted("lineage", "batch"), key=lambda pair: pair[0]):
        lineages[batch].append(lineage)
    told = ("batch", "frames", "groups", "cells")
    held = [
        {**{name: part[name] for name in told}, "lineages": lineages[part["batch"]], "time_h": part["time_h"]}
        for part in contents(frames, "batch")
    ]
    return [] if all(part["batch"] is None for part in held) else held


def _notes(frames: Frames) -> list[dict[str, Any]]:
    sources: dict[str, list[str]] = {}
    for frame in frames.known("note"):
        sources.setdefault(str(frame.note), []).append(frame.source)
    return [{"note": note, "sources": held} for note, held in sorted(sources.items())]


def _labels(bank: Bank) -> dict[str, Any]:
    counting = standing(bank.labels)
    unusable = bank.frames.known("unusable").counted("unusable")
    return {
        "labels": len(counting),
        "frames": len(set(counting.table.column("frame").to_pylist())),
        "disagreements": len({one.frame for one in disagreements(counting)}),
        "unusable": {why: number for (why,), number in unusable.items()},
    }


def _quality(frames: Frames) -> dict[str, Any]:
    flags = flagged(frames)
    held = frames.named_by("frame", flags)
    named = zip(held.values("source"), held.values("frame"), strict=True)
    return {
        "flagged": [{"source": source, "flags": flags[name]} for source, name in named],
        "not_measured": len(frames.equal("structure", None)),
    }
