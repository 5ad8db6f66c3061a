"""How much of a process the requests may have, together and each."""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from starlette.exceptions import HTTPException

from serve.haproxy_rules import BODY_S, WHOLE

RETRY_AFTER_S: Final = 1
"""What a client that came too much is told to wait."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of a process that serves."""

    request_mb: float = 64.0
    """Megabytes (10⁶ bytes) of the whole body of a request."""
    images: int = 64
    """In a request; every page is one."""
    megapixels: float = 100.0
    """Of an image."""
    queue: int = 128
    """Requests at a time."""
    held_mb: float = 512.0
    """Megabytes of all bodies at a time."""
    arrival_s: float = BODY_S
    """For how long each `arrival_bytes` of a body may take to arrive."""
    arrival_bytes: int = WHOLE
    seconds: float = 60.0
    """From the first byte of a request to its answer."""


def busy(why: str) -> HTTPException:
    """The answer to those that came too much."""
    detail = f"{why}; try again in {RETRY_AFTER_S} s"
    return HTTPException(503, detail, {"Retry-After": str(RETRY_AFTER_S)})


def network_of(address: str) -> str:
    """What counts as one client: an address, or of IPv6 the network of a house, in which it has as many as it likes.

    >>> network_of("192.0.2.7"), network_of("2001:db8::7"), network_of("::ffff:192.0.2.7")
    ('192.0.2.7', '2001:db8::/64', '192.0.2.7')
    """
    try:
        whole = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    return str(whole.ipv4_mapped or ipaddress.IPv6Network((whole, 64), strict=False))


class Held:
    """Bytes of bodies that a process holds."""

    def __init__(self, limit: float, refuse: Callable[[], None] = lambda: None) -> None:
        self.limit = limit
        self.bytes = 0
        self._refuse = refuse
        """Called where it is reached."""

    def take(self, more: int) -> None:
        """Hold so many more. Raises HTTPException 503 where that would be too much, of several requests together."""
        if self.bytes and self.bytes + more > self.limit:
            self._refuse()
            raise busy("the service holds as many images as it can")
        self.bytes += more


class Share:
    """What one request holds of `Held`."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self._mine = 0

    def take(self, more: int) -> None:
        """Hold so many more bytes. Raises HTTPException 503."""
        self._held.take(more)
        self._mine += more

    def give_back(self) -> None:
        """All of it."""
        self._held.bytes -= self._mine
        self._mine = 0
