"""Which frame of a bank a person means by the name of its image, or by the beginning of its hash."""

import bisect
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from cellnet.bank.bank import Bank
from cellnet.errors import NotFoundError
from cellnet.readers.matching import Names

LEAST: Final = 8
"""Digits of a hash that stand for all."""


class Found(NamedTuple):
    """A frame by its name in the bank, or why there is none."""

    frame: str | None
    why_not: str = ""


def find_frames(bank: Bank, written: Iterable[str]) -> dict[str, Found]:
    """What each of these names means: a sha256 or the beginning of one, else an image, as an import forgives names."""
    names = list(dict.fromkeys(written))
    hashes = sorted(bank.frames.values("frame"))
    found = {name: _by_hash(hashes, name) for name in names}
    left = [name for name, one in found.items() if one is None]
    if left:
        frames = dict(zip(bank.frames.values("source"), bank.frames.values("frame"), strict=True))
        aside = dict(zip(bank.set_aside.values("source"), bank.set_aside.values("set_aside"), strict=True))
        for name, match in Names({**frames, **aside}).find_all(left).items():
            if match.one in frames:
                found[name] = Found(frames[match.one])
            elif match.one:
                found[name] = Found(None, f"{match.one} was set aside: {aside[match.one]}")
            else:
                why = (
                    match.why_not(name) if match.images else f"the bank has no frame of {name}; import its image first"
                )
                found[name] = Found(None, why)
    return {name: one or Found(None) for name, one in found.items()}


def find_frame(bank: Bank, written: str) -> str:
    """The name of one frame. Raises NotFoundError, saying why there is none."""
    [found] = find_frames(bank, [written]).values()
    if found.frame is None:
        raise NotFoundError(found.why_not)
    return found.frame


def _by_hash(hashes: list[str], name: str) -> Found | None:
    """The frame whose hash begins so; None where the name is none, or begins no hash."""
    digits = name.casefold()
    if not re.fullmatch(rf"[0-9a-f]{{{LEAST},64}}", digits):
        return None
    first = bisect.bisect_left(hashes, digits)
    those = [frame for frame in hashes[first : first + 2] if frame.startswith(digits)]
    if len(those) > 1:
        return Found(None, f"several frames begin with {name}; write more of its hash")
    if not those and len(digits) == 64:
        return Found(None, f"the bank has no frame {name}; import its image first")
    return Found(those[0]) if those else None
