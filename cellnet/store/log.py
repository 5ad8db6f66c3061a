"""Append-only logs: a model's versions are one, the moves of each of its aliases, and the tables of a bank.

PREFIX/000007.json      created only if absent, so that of two who append the later one learns it

Numbers follow each other. What lies far beyond them, like 999999.json, somebody has left there: it is nobody's.
"""

import contextlib
import getpass
import itertools
import re
from collections.abc import Iterator
from typing import Final

from cellnet.errors import IntegrityError, NotFoundError
from cellnet.store.objects import MOST_BYTES, Store

PAGE: Final = 1000
"""Keys that S3 lists in one request; and an entry with none so far before it does not belong to the log."""
LAST: Final = 999_999
"""The highest number: six digits keep keys in order."""


class Log:
    """Numbered entries below a prefix of a store, of at most so many bytes."""

    def __init__(self, store: Store, prefix: str, *, ending: str = "json", limit: int = MOST_BYTES) -> None:
        self.store = store
        self.prefix = prefix
        self.ending = ending
        self.limit = limit
        self._seen = 0
        """How far it went when it was last looked at: it never gets shorter."""

    def key(self, number: int) -> str:
        """Where an entry is."""
        return f"{self.prefix}/{number:06d}.{self.ending}"

    def read(self, number: int) -> bytes:
        """An entry. Raises NotFoundError."""
        return self.store.get(self.key(number), limit=self.limit)

    def append(self, number: int, data: bytes) -> bool:
        """Write an entry if its number is free, and say whether it was."""
        return self.store.create(self.key(number), data)

    def numbers(self) -> Iterator[int]:
        """The numbers of the entries, in order."""
        last = self.newest()
        return itertools.takewhile(lambda number: number <= last, self._found())

    def newest(self) -> int:
        """The highest number, 0 where there is none."""
        last = self._highest(LAST)
        while last > PAGE and last - self._seen > PAGE:  # else it follows what was there before
            if next(self._found(after=last - PAGE - 1), last) < last:
                break
            below = self._highest(last - 1)
            if not below:  # alone: what was there before it has been removed
                break
            last = below
        self._seen = max(last, self._seen)
        return last

    def goes_on(self) -> bool:
        """Whether there is an entry after the last that was seen: one read, where `newest` is a list."""
        try:
            self.read(self._seen + 1)
        except NotFoundError:
            return False
        except IntegrityError:  # it is there, and who reads it says what is wrong with it
            return True
        return True

    def _found(self, *, after: int | None = None) -> Iterator[int]:
        """All numbers that lie there, in order; what has another name is nobody's."""
        keys = self.store.keys(f"{self.prefix}/", after="" if after is None else self.key(after))
        stems = (key.removeprefix(f"{self.prefix}/") for key in keys)
        return (int(match[1]) for stem in stems if (match := re.fullmatch(rf"([0-9]{{6}})\.{self.ending}", stem)))

    def _highest(self, most: int) -> int:
        """The highest number up to another one, 0 where there is none.

        In leaps that double while there is more and halve when there is not: of 10,000 in ten requests, of a million in
        twenty, and from where it was last seen on in one.
        """
        last, leap, growing = self._seen, 0, True
        while True:
            found = itertools.takewhile(lambda number: number <= most, self._found(after=min(last + leap, LAST)))
            page = list(itertools.islice(found, PAGE))
            if page:
                last = page[-1]
                leap = max(2 * leap, PAGE) if growing else leap // 2
            growing = growing and bool(page)
            if len(page) < PAGE and (page or not leap):
                return last
            if not page:
                leap = leap // 2 if leap >= 2 * PAGE else 0


def user() -> str:
    """The name of who runs this, as entries say it; empty where it has none."""
    with contextlib.suppress(OSError, KeyError, ImportError):
        return getpass.getuser()
    return ""
