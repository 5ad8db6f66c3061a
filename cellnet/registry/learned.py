"""What a version learned from: the frames that shaped it, by the sha256 of their pixels, in whatever bank they lie.

Those that it was trained on shaped it, and those that chose its epoch and calibrated it. A version keeps their hashes
as a file, 32 bytes each, and their batches on its card; versions of before there was such a file have none.
"""

import itertools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Self

from cellnet.bank.bank import Bank
from cellnet.bank.columns import Frames
from cellnet.bank.duplicates import near_pairs
from cellnet.bank.frames import Frame
from cellnet.bank.history import standing
from cellnet.errors import IntegrityError
from cellnet.registry.records import LEARNED, ModelVersion, Relearned
from cellnet.registry.registry import Registry
from cellnet.tasks import Task

BYTES: Final = 32
"""Of a sha256."""
UNMEASURED: Final = (
    "the next plate is unmeasured: no frame that the model did not learn from is known to be of a new batch"
)
"""What is said wherever new batches have no score."""

Side = Literal["same", "new"]
"""Whether a batch is one that a model learned from."""


@dataclass(frozen=True)
class Learned:
    """What shaped a model."""

    frames: frozenset[str]
    """Their names in a bank."""
    batches: frozenset[str | None]
    """Their batches, None among them where that of a frame is not known."""

    @classmethod
    def of(cls, frames: Iterable[Frame]) -> Self:
        """What a model learns that is shaped by these frames."""
        held = list(frames)
        return cls(frozenset(frame.frame for frame in held), frozenset(frame.batch for frame in held))

    def __or__(self, more: "Learned") -> "Learned":
        return Learned(self.frames | more.frames, self.batches | more.batches)

    @property
    def listed_batches(self) -> tuple[str | None, ...]:
        """The batches in order, as a card has them."""
        return tuple(sorted(self.batches, key=lambda batch: (batch is None, batch or "")))

    def seen(self, frames: Sequence[Frame], bank_frames: Iterable[Frame]) -> set[str]:
        """The names of those frames that the model learned from, or that are nearly the same as one that it did.

        Nearly the same by the fingerprints of a bank, of which `frames` are some: copies of frames that lie elsewhere
        cannot be told.
        """
        known = [frame for frame in bank_frames if frame.frame in self.frames]
        others = [frame for frame in frames if frame.frame not in self.frames]
        pairs = near_pairs([frame.fingerprint for frame in [*known, *others]], start=len(known))
        copies = {others[later - len(known)].frame for earlier, later in pairs if earlier < len(known)}
        return copies | {frame.frame for frame in frames if frame.frame in self.frames}

    def side(self, batch: str | None) -> Side | None:
        """`same` for a batch that the model learned from, `new` for one that it did not.

        None where nobody can tell: of a batch that is not known, or of another one than those that are known, when some
        of what the model learned from is of a batch that is not.
        """
        if batch is None:
            return None
        if batch in self.batches:
            return "same"
        return None if None in self.batches else "new"


def learned_of(registry: Registry, version: ModelVersion) -> Learned | None:
    """What a version learned from; None of those that do not tell. Raises IntegrityError."""
    if LEARNED not in version.blobs:
        return None
    frames = frames_from_bytes(registry.read(version, LEARNED), f"{LEARNED} of {version.ref}")
    return Learned(frames, frozenset((None,) if version.card.batches is None else version.card.batches))


class Since(NamedTuple):
    """What came after a version."""

    frames: frozenset[str]
    """The names of the frames that it had not learned, or of which something else is true since."""
    told: Relearned
    """The same in numbers."""


def learned_since(registry: Registry, parent: ModelVersion, bank: Bank, frames: Frames) -> Since:
    """Which of these frames of a bank teach what a version had not learned.

    Those that it did not learn from; and where this is the bank that it learned from, those whose lineage, of a counter
    whose count or centres, are others since. Raises IntegrityError.
    """
    entry, task = parent.card.bank_entry or 0, parent.card.task
    before = bank.as_it_was(entry) if 0 < entry <= bank.entry else None
    if before is None or before.digest != parent.card.bank_digest:
        entry, before = 0, None
    learned, truths = learned_of(registry, parent), _truths(before.usable, task) if before else {}
    known = learned.frames if learned else truths.keys()
    is_known = _truths(frames, task)
    changed = {name for name, truth in is_known.items() if name not in known or truths.get(name, truth) != truth}
    rows = standing(bank.labels).table.select(["frame", "entry"]).to_pylist()
    said = [row for row in rows if row["entry"] > entry and row["frame"] in changed]
    corrected, entries = {row["frame"] for row in said}, [row["entry"] for row in said]
    told = Relearned(
        corrected=len(corrected),
        new=len(changed) - len(corrected),
        entries=(min(entries), max(entries)) if entries else None,
    )
    return Since(frozenset(changed), told)


def _truths(frames: Frames, task: Task) -> dict[str, Any]:
    """What is true of each frame for a task, by its name."""
    names = frames.values("frame")
    if task == "classify":
        return dict(zip(names, frames.values("lineage"), strict=True))
    return dict(zip(names, zip(frames.values("count"), map(str, frames.values("centres")), strict=True), strict=True))


def frames_to_bytes(frames: Collection[str]) -> bytes:
    """The names of frames as a file: their hashes, sorted.

    >>> frames_from_bytes(frames_to_bytes({"0" * 64, "f" * 64}), "a file") == {"0" * 64, "f" * 64}
    True
    """
    return b"".join(bytes.fromhex(name) for name in sorted(frames))


def frames_from_bytes(data: bytes, what: str) -> frozenset[str]:
    """What `frames_to_bytes` made. Raises IntegrityError, naming `what`, for anything else."""
    if not data or len(data) % BYTES:
        raise IntegrityError(f"{what} is damaged: {len(data):,} bytes are no hashes of {BYTES} bytes each")
    hashes = [data[start : start + BYTES] for start in range(0, len(data), BYTES)]
    if any(first >= second for first, second in itertools.pairwise(hashes)):
        raise IntegrityError(f"{what} is damaged: its hashes are not in order, each once")
    return frozenset(one.hex() for one in hashes)
