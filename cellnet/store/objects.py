"""Objects by key: what a store does, whatever it lies in."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple, Protocol, TypeVar

from cellnet.errors import IntegrityError

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_BYTES: Final = 2**32
"""Of an object; more is not read."""
THREADS: Final = 16
"""Connections that one S3 client keeps."""


class Entry(NamedTuple):
    """What a listing says of an object."""

    key: str
    size: int
    modified: float
    """Seconds since 1970, by the store's clock."""
    etag: str = ""
    """Another one where the contents are; empty where the store tells none."""


class Store(Protocol):
    """Bytes by key; keys are relative paths with forward slashes."""

    uri: str
    endpoint_url: str | None

    def get(self, key: str, *, limit: int = MOST_BYTES) -> bytes:
        """The bytes of a key. Raises NotFoundError, and IntegrityError where they are more than `limit`, unread."""

    def put(self, key: str, data: bytes) -> None:
        """Write or replace; readers see the old bytes or the new."""

    def create(self, key: str, data: bytes) -> bool:
        """Write if the key is free, and say whether it was."""

    def delete(self, key: str) -> None:
        """Remove a key; one that is gone already is fine."""

    def entries(self, prefix: str, *, after: str = "") -> Iterator[Entry]:
        """Every object whose key starts with the prefix and comes after another key, in order, page by page."""

    def folders(self, prefix: str) -> list[str]:
        """What stands between the prefix and the next slash, each once, in order."""

    def now(self) -> float:
        """Seconds since 1970, by the store's clock, as `entries` tells them: this machine's may be another."""

    def sweep(self, prefix: str, before: float) -> int:
        """Remove what was left below a folder by writes that began before a time and never ended; say how many."""

    def move(self, source: str, target: str, *, within_s: float) -> None:
        """Give what lies at a key another one, and the time of now; readers find it at one of them, or at both.

        It stays where it was as well if that takes longer than `within_s`. Raises NotFoundError where nothing is.
        """
        started = time.time()
        self.put(target, self.get(source))
        if time.time() - started < within_s:
            self.delete(source)

    def keys(self, prefix: str, *, after: str = "") -> Iterator[str]:
        """The keys of `entries`."""
        return (entry.key for entry in self.entries(prefix, after=after))


def check_size(size: int, limit: int, what: str) -> None:
    if size > limit:
        raise IntegrityError(f"{what} has {size} bytes, and at most {limit} are expected; it was not read")


def together(function: Callable[[Item], Result], items: Iterable[Item], *, threads: int = THREADS) -> Iterator[Result]:
    """`map` with several at a time, in order; what is asked ahead is bounded."""
    pool, rest = ThreadPoolExecutor(threads), iter(items)
    try:
        while batch := list(itertools.islice(rest, 16 * threads)):
            yield from pool.map(function, batch)
    finally:
        pool.shutdown(cancel_futures=True)  # of a store that is down, nothing more is asked
