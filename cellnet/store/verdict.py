"""Whether an S3 server creates an object only if it is absent, also where several try at once: probed once, and kept.

    .cellnet-probe                 was created twice, one after the other
    .cellnet-probe-TOKEN-3         was created by eight at once
    .cellnet-probe-SERVER.json     what was found of that server: a copy of the objects elsewhere has none of its own

Nothing of it is listed, and nothing removed, since who writes to a store need not have the right to. A server that was
caught is not probed again, since it might have better luck: whoever mends it removes what was found.
"""

import hashlib
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final

from cellnet.config.loading import Stored, read_record, record_bytes
from cellnet.errors import IntegrityError, NotFoundError, RegistryError
from cellnet.store.objects import Store

PROBE_KEY: Final = ".cellnet-probe"
"""With this every key begins that is the probe's."""
CREATORS: Final = 8
"""At once."""
ROUNDS: Final = 8
BODY_BYTES: Final = 4096
"""As many as a small record has."""
INSTEAD: Final = (
    "so two writers could overwrite each other; use a folder, or an S3 server that honours conditional writes"
)

Create = Callable[[str, bytes], bool]

_proven: set[str] = set()
"""Servers that this process knows to be honest."""
_one_at_a_time = threading.Lock()


class Verdict(Stored):
    """What was found of a server."""

    server: str
    """Its endpoint and the bucket."""
    most_told: int
    """Of those who created one key at once, the most that were told to be first: one, of an honest server."""
    probed: str
    """UTC, ISO 8601."""


def check_server(store: Store, server: str, create: Create) -> None:
    """Raise RegistryError unless `create`, of a store on that server, creates what is absent and nothing else.

    What this process or another found before is believed, else the server is probed.
    """
    with _one_at_a_time:
        if server in _proven:
            return
        key = verdict_key(server)
        verdict = _kept(store, key, server)
        if verdict is None:
            verdict = Verdict(server=server, most_told=_most_told(store.uri, create), probed=_now())
            if verdict.most_told > 1:
                store.put(key, record_bytes(verdict))  # over what others found, who had better luck
            elif not create(key, record_bytes(verdict)):
                verdict = _kept(store, key, server) or verdict
        if verdict.most_told > 1:
            told = f"{verdict.most_told} of {CREATORS} who created one key at once were told to be first"
            raise RegistryError(
                f"the server of {store.uri} checks If-None-Match and then writes: {told}, {INSTEAD} "
                f"(if this one was mended, remove {key})"
            )
        _proven.add(server)


def verdict_key(server: str) -> str:
    """Where it is kept what was found of a server."""
    return f"{PROBE_KEY}-{hashlib.sha256(server.encode()).hexdigest()[:16]}.json"


def _kept(store: Store, key: str, server: str) -> Verdict | None:
    """What was found before, if that can be read and is of this server."""
    try:
        verdict = read_record(Verdict, store.get(key, limit=2**16), key)
    except (NotFoundError, IntegrityError):
        return None
    return verdict if verdict.server == server else None


def _most_told(uri: str, create: Create) -> int:
    """The most creators of a key that were told to be first. Raises RegistryError where the condition is ignored."""
    if create(PROBE_KEY, _body()) and create(PROBE_KEY, _body()):
        raise RegistryError(f"the server of {uri} ignores If-None-Match, {INSTEAD}")
    token, start = secrets.token_hex(8), threading.Barrier(CREATORS)

    def race(round_: int) -> bool:
        start.wait()
        return create(f"{PROBE_KEY}-{token}-{round_}", _body())

    most = 0
    with ThreadPoolExecutor(CREATORS) as pool:
        for round_ in range(ROUNDS):
            most = max(most, sum(pool.map(race, [round_] * CREATORS)))
            if most > 1:
                break
    return most


def _body() -> bytes:
    """Like nobody else's, so that whoever asks again can tell its own."""
    return secrets.token_bytes(BODY_BYTES)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
