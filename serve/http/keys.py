"""API keys: whoever sends one of them as `Authorization: Bearer KEY`, or as `X-API-Key`, is let in.

Only their sha256 goes anywhere: into the service's processes, never into its logs.
"""

import hashlib
import hmac
import os
from pathlib import Path
from typing import Final

from starlette.datastructures import Headers

from cellnet.errors import ConfigError
from cellnet.store.regular import read_file

VARIABLE: Final = "CELLNET_API_KEYS"
SHORTEST: Final = 16
MOST_BYTES: Final = 10**6
"""Of a file of keys."""


def load_keys(file: Path | None) -> tuple[str, ...]:
    """The sha256 of each key of a file, one a line, and of CELLNET_API_KEYS, between commas; none where neither is.

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
    if any(len(key) < SHORTEST for key in keys):
        raise ConfigError(f"an API key is shorter than {SHORTEST} characters; make one with: openssl rand -hex 32")
    return tuple(hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest() for key in keys)


def accepted(headers: Headers, keys: tuple[str, ...]) -> bool:
    """Whether a request may come in, always where there are no keys; a wrong key takes as long as a right one."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    given = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    digest = hashlib.sha256(given.encode("latin-1")).hexdigest()  # as it came
    matches = [hmac.compare_digest(digest, key) for key in keys]
    return any(matches) or not keys
