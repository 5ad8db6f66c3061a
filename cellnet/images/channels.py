"""Channels of a file by name: which of them is of transmitted light, and which is meant."""

import re
from collections.abc import Sequence
from typing import Final

from cellnet.errors import DataError

_TRANSMITTED: Final = re.compile(
    r"bright[ _-]?field|phase|transmi|trans\b|hoffman|interference|oblique|nomarski"
    r"|\b(?:\d?bf|ph[0-9ic]?|phaco|dic|tl|tpmt|t[ _-]?pmt|chd|dpc|pgc|hmc)\b",
    re.IGNORECASE,
)
"""Names of ways to look at cells without dyes."""
SHOWN: Final = 12
SHOWN_LETTERS: Final = 40


def is_transmitted(name: str) -> bool:
    """Whether a channel's name says that it is of transmitted light.

    >>> [is_transmitted(name) for name in ("TL Brightfield", "BF", "Phase-1", "DAPI", "w1_DIC", "BFP", "GFP")]
    [True, True, True, False, True, False, False]
    """
    return bool(_TRANSMITTED.search(name.replace("_", " ")))


def listed(names: Sequence[str]) -> str:
    """The channels in words, of very many the first.

    >>> listed(["BF", "DAPI", ""])
    '1 BF, 2 DAPI, 3'
    """
    shown = [f"{number} {name[:SHOWN_LETTERS]}".strip() for number, name in enumerate(names[:SHOWN], 1)]
    return ", ".join(shown) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def wanted_channel(names: Sequence[str], wanted: str) -> int | None:
    """The place of a channel that is asked for by its name, in whatever letters, or by its number from 1."""
    for fold in (str, str.casefold):
        same = [place for place, name in enumerate(names) if fold(name.strip()) == fold(wanted.strip())]
        if len(same) == 1:
            return same[0]
    number = int(wanted) if wanted.strip().isdecimal() and len(wanted) < 6 else 0
    return number - 1 if 1 <= number <= len(names) else None


def channels_of(error: Exception) -> list[str] | None:
    """The channels to choose from, where an error is that none was chosen."""
    return list(error.channels) if isinstance(error, ChannelError) else None


class ChannelError(DataError):
    """A file has several channels, and which is meant is not said, or it has no such channel."""

    def __init__(self, message: str, channels: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.channels = tuple(channels)

    def __reduce__(self) -> tuple[type["ChannelError"], tuple[str, tuple[str, ...]]]:
        return type(self), (str(self), self.channels)
