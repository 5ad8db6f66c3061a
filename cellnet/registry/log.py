"""Append-only logs: a model's versions are one, and the moves of each of its aliases.

PREFIX/000007.json      created only if absent, so that of two who append the later one learns it
"""

import itertools
import re
from collections.abc import Iterator
from typing import Final

from cellnet.registry.records import RECORD_BYTES
from cellnet.store.objects import Store

PAGE: Final = 1000
"""Keys that S3 lists in one request."""
LAST: Final = 999_999
"""The highest number: six digits keep keys in order."""


class Log:
    """Numbered entries below a prefix of a store."""

    def __init__(self, store: Store, prefix: str) -> None:
        self.store = store
        self.prefix = prefix
        self._seen = 0
        """How far it went when it was last looked at: it never gets shorter."""

    def key(self, number: int) -> str:
        """Where an entry is."""
        return f"{self.prefix}/{number:06d}.json"

    def read(self, number: int) -> bytes:
        """An entry. Raises NotFoundError."""
        return self.store.get(self.key(number), limit=RECORD_BYTES)

    def append(self, number: int, data: bytes) -> bool:
        """Write an entry if its number is free, and say whether it was."""
        return self.store.create(self.key(number), data)

    def numbers(self, *, after: int | None = None) -> Iterator[int]:
        """The numbers of the entries, in order; what else lies there is nobody's."""
        keys = self.store.keys(f"{self.prefix}/", after="" if after is None else self.key(after))
        stems = (key.removeprefix(f"{self.prefix}/") for key in keys)
        return (int(match[1]) for stem in stems if (match := re.fullmatch(r"([0-9]{6})\.json", stem)))

    def newest(self) -> int:
        """The highest number, 0 where there is none.

        In leaps that double while there is more and halve when there is not: of 10,000 in ten requests, of a million in
        twenty, and from where it was last seen on in one.
        """
        last, leap, growing = self._seen, 0, True
        while True:
            page = list(itertools.islice(self.numbers(after=min(last + leap, LAST)), PAGE))
            if page:
                last = page[-1]
                leap = max(2 * leap, PAGE) if growing else leap // 2
            growing = growing and bool(page)
            if len(page) < PAGE and (page or not leap):
                self._seen = last
                return last
            if not page:
                leap = leap // 2 if leap >= 2 * PAGE else 0
