"""API keys: whoever sends one of them as `Authorization: Bearer KEY`, or as `X-API-Key`, is let in.

A line of a file of keys is `KEY`, which may have images predicted, or `NAME SCOPES KEY`, like `ada predict,label …`:
what it labels is by that name. Only the sha256 of a key goes anywhere: into the service's processes, never into its
logs.
"""

import hashlib
import hmac
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from starlette.datastructures import Headers

from cellnet.errors import ConfigError
from cellnet.store.regular import read_file

VARIABLE: Final = "CELLNET_API_KEYS"
SHORTEST: Final = 16
LONGEST_NAME: Final = 100
SCOPES: Final = frozenset({"predict", "label"})
"""What keys may open."""
MOST_BYTES: Final = 10**6
"""Of a file of keys."""


class Key(NamedTuple):
    """What a key opens."""

    sha256: str
    name: str = ""
    """Whose it is; empty where it has none."""
    scopes: frozenset[str] = frozenset({"predict"})


NOBODY: Final = Key("", scopes=SCOPES)
"""Who comes where no keys are asked for."""


def load_keys(file: Path | None) -> tuple[Key, ...]:
    """Each key of a file, one a line, and of CELLNET_API_KEYS, between commas; none where neither is.

    Raises ConfigError for a file that cannot be read or holds none, and for keys that could be guessed.
    """
    keys = [key.strip() for key in os.environ.get(VARIABLE, "").split(",") if key.strip()]
    if file is not None:
        try:
            lines = [line.strip() for line in read_file(file, MOST_BYTES).decode("utf-8-sig").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is no text"
            raise ConfigError(f"the API keys in {file} cannot be read: {why}; write one key a line") from error
        listed = [line for line in lines if line and not line.startswith("#")]
        if not listed:
            raise ConfigError(f"{file} holds no API key; write one a line, like the output of: openssl rand -hex 32")
        keys += listed
    return tuple(_key_of(line) for line in keys)


def _key_of(line: str) -> Key:
    *told, key = line.split()
    if len(key) < SHORTEST:
        raise ConfigError(f"an API key is shorter than {SHORTEST} characters; make one with: openssl rand -hex 32")
    sha256 = hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()
    if not told:
        return Key(sha256)
    name, scopes = told[0], frozenset(told[-1].split(","))
    if len(told) != 2 or not scopes <= SCOPES or not name.isprintable() or len(name) > LONGEST_NAME:
        raise ConfigError(
            "a line of the API keys is neither KEY nor NAME SCOPES KEY; write it like: ada predict,label KEY"
        )
    return Key(sha256, name, scopes)


def accepted(headers: Headers, keys: Sequence[Key]) -> Key | None:
    """The key that a request came with, None for none or a wrong one, which takes as long as a right one.

    Where there are no keys, `NOBODY`, who may do all.
    """
    scheme, _, token = headers.get("authorization", "").partition(" ")
    given = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    digest = hashlib.sha256(given.encode("latin-1")).hexdigest()  # as it came
    matching = [key for key in keys if hmac.compare_digest(digest, key.sha256)]
    if not keys:
        return NOBODY
    return matching[0] if matching else None
