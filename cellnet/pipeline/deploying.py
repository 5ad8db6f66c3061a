"""What was promoted, brought to the service: `serve deploy`, and the wait until it answers with these versions."""

import contextlib
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from cellnet.errors import CellnetError, ConfigError, UnavailableError

ASK_S: Final = 2.0
"""How often a service is asked."""
ANSWER_BYTES: Final = 2**24


def deploy(command: Sequence[str], say: Callable[[str], None]) -> None:
    """Run `serve deploy …`, which comes with Ray. Raises CellnetError with its last line where it fails."""
    program = str(Path(sys.executable).with_name(command[0]))
    try:
        done = subprocess.run([program, *command[1:]], capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise CellnetError(f"{program} cannot be run: {error.strerror}; it comes with ray[serve]") from error
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    for line in lines:
        say(line)
    if done.returncode:
        raise CellnetError(f"serve deploy ended with {done.returncode}: {lines[-1] if lines else 'it said nothing'}")


def wait_for(
    address: str, models: Sequence[str], *, wait_s: float, key: Path | None, say: Callable[[str], None]
) -> list[str]:
    """The versions that a service answers with, once these are among them.

    Raises UnavailableError where they are not after so long, ConfigError for a key that cannot be read.
    """
    headers = {"Accept": "application/json"} | ({"X-API-Key": _key(key)} if key else {})
    request = urllib.request.Request(f"{address.rstrip('/')}/v1/models", headers=headers)
    say(f"waiting until {address} answers with {' and '.join(models)}")
    deadline, seen = time.monotonic() + wait_s, "it does not answer"
    while True:
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                served = [str(one["ref"]) for one in json.loads(answer.read(ANSWER_BYTES))["models"]]
            if set(models) <= set(served):
                return served
            seen = f"it answers with {', '.join(served) or 'no model'}"
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                raise ConfigError(f"{address} asks for an API key; give deploy.api_key, a file with it") from error
            seen = f"it answers {error.code}"
        except (OSError, ValueError, KeyError, TypeError) as error:
            with contextlib.suppress(AttributeError):
                seen = f"it does not answer: {getattr(error, 'reason', error)}"
        if time.monotonic() > deadline:
            raise UnavailableError(f"{address} does not serve {' and '.join(models)} after {wait_s:g} s: {seen}")
        time.sleep(ASK_S)


def _key(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").split()[0]
    except (OSError, IndexError, ValueError) as error:
        raise ConfigError(f"cannot read an API key from {path}") from error
