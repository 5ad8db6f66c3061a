"""What changed in a bank between two moments: frames that came or went, and what is said of the others."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from cellnet.bank.bank import Bank
from cellnet.bank.frames import Frame

COMPARED: Final = ("lineage", "count", "centres", "unusable", "batch", "time_h", "pixel_um")


@dataclass(frozen=True)
class Change:
    """What one field of a frame was, and what it is."""

    frame: str
    source: str
    what: str
    """The field, or `frame` for one that came or went."""
    before: Any
    after: Any


def changes_between(one: Bank, other: Bank) -> Iterator[Change]:
    """What is otherwise in the other bank, in the order of its frames, and then what is no longer there.

    A lineage, a count and the like are told as they are, centres by their number, and None is what is not known.
    """
    before = dict(zip(one.frames.values("frame"), range(len(one.frames)), strict=True))
    for frame in other.frames:
        place = before.pop(frame.frame, None)
        if place is None:
            yield Change(frame.frame, frame.source, "frame", None, _described(frame))
            continue
        was = one.frames[place]
        for what in COMPARED:
            if getattr(was, what) != getattr(frame, what):
                yield Change(frame.frame, frame.source, what, _told(was, what), _told(frame, what))
    for place in before.values():
        gone = one.frames[place]
        yield Change(gone.frame, gone.source, "frame", _described(gone), None)


def _told(frame: Frame, what: str) -> Any:
    value = getattr(frame, what)
    return len(value) if what == "centres" and value is not None else value


def _described(frame: Frame) -> str:
    cells = [] if frame.count is None else [f"{frame.count:g} cells"]
    return ", ".join([frame.lineage or "(not known)", *cells])
