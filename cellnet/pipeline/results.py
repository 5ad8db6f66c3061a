"""What the steps of a pipeline came to, as objects at the place of runs.

    RUNS/pipeline-NAME/STEP/KEY.json       a result: created only if absent, with its sha256
    RUNS/pipeline-NAME/STEP/KEY.attempt    when it was begun last, and why it failed if it did: replaced
    RUNS/pipeline-NAME/STEP/KEY.log        what was narrated, written anew while the step runs
    RUNS/pipeline-NAME/lease/000003.json   who runs it

KEY is the sha256 of what the step takes in: its command, settings, the digest of a bank, versions, cellnet itself.
"""

import hashlib
import json
from typing import Any, Final, Literal

from cellnet.config.loading import Stored, check_format, read_record, read_stored, record_bytes
from cellnet.errors import IntegrityError, NotFoundError
from cellnet.store.objects import Store

KEY: Final = 20
"""Hexadecimal digits of a key."""
RECORD_BYTES: Final = 2**26


class Result(Stored):
    """What a step came to."""

    step: str
    key: str
    inputs: dict[str, Any]
    state: Literal["done", "refused"]
    """Refused: by the rule of promotion, which is a result too."""
    result: dict[str, Any]
    began: str
    """UTC, ISO 8601."""
    seconds: float
    who: str


class Attempt(Stored):
    """A step that was begun."""

    began: str
    who: str
    failed: str | None = None
    """Why, in a line."""
    seconds: float | None = None
    """Of one that failed."""


def key_of(inputs: dict[str, Any]) -> str:
    """What names the result of a step.

    >>> key_of({"verb": "train"}) == key_of({"verb": "tune"})
    False
    """
    return hashlib.sha256(_canonical(inputs)).hexdigest()[:KEY]


class Results:
    """The results of one pipeline."""

    def __init__(self, runs: Store, name: str) -> None:
        self.store = runs
        self.prefix = f"pipeline-{name}"

    @property
    def lease(self) -> str:
        """The prefix of the lease."""
        return f"{self.prefix}/lease"

    def uri(self, step: str, key: str, ending: str) -> str:
        """Where something of a step is."""
        return f"{self.store.uri}/{self._key(step, key, ending)}"

    def find(self, step: str, key: str) -> Result | None:
        """What a step came to; None where it has not. Raises IntegrityError for what is damaged."""
        return self._read(self._key(step, key, "json"))

    def last(self, step: str) -> Result | None:
        """What a step came to last, whatever it took in."""
        entries = [entry for entry in self.store.entries(f"{self.prefix}/{step}/") if entry.key.endswith(".json")]
        return self._read(max(entries, key=lambda entry: (entry.modified, entry.key)).key) if entries else None

    def keep(self, result: Result) -> Result:
        """Write a result, and give the one that counts: the first of its key."""
        record = json.loads(record_bytes(result))
        data = json.dumps(record | {"sha256": hashlib.sha256(_canonical(record)).hexdigest()}, indent=1).encode()
        if self.store.create(self._key(result.step, result.key, "json"), data):
            return result
        return self.find(result.step, result.key) or result

    def forget(self, step: str, key: str) -> None:
        """Remove a result whose bank or version is no longer there."""
        self.store.delete(self._key(step, key, "json"))

    def attempt(self, step: str, key: str) -> Attempt | None:
        """How a step was begun last."""
        path = self._key(step, key, "attempt")
        try:
            return read_record(Attempt, self.store.get(path, limit=RECORD_BYTES), f"{path} in {self.store.uri}")
        except NotFoundError:
            return None

    def note(self, step: str, key: str, attempt: Attempt) -> None:
        """Write or replace how a step was begun."""
        self.store.put(self._key(step, key, "attempt"), record_bytes(attempt))

    def log(self, step: str, key: str) -> bytes:
        """What was narrated so far; nothing where nothing was."""
        try:
            return self.store.get(self._key(step, key, "log"))
        except NotFoundError:
            return b""

    def keep_log(self, step: str, key: str, data: bytes) -> None:
        """Write or replace it."""
        self.store.put(self._key(step, key, "log"), data)

    def _key(self, step: str, key: str, ending: str) -> str:
        return f"{self.prefix}/{step}/{key}.{ending}"

    def _read(self, path: str) -> Result | None:
        what = f"{path} in {self.store.uri}"
        try:
            data = self.store.get(path, limit=RECORD_BYTES)
        except NotFoundError:
            return None
        try:
            record = json.loads(data)
            told = record.pop("sha256", None)
        except (ValueError, AttributeError, TypeError) as error:
            raise IntegrityError(f"{what} is damaged; remove it, and the step runs again") from error
        check_format(record, Result.FORMAT, what)
        result = read_stored(Result, record, what)
        whole = told == hashlib.sha256(_canonical(record)).hexdigest() and result.key == key_of(result.inputs)
        if not whole or not path.endswith(f"/{result.key}.json"):
            raise IntegrityError(f"{what} is not what its sha256 promises; remove it, and the step runs again")
        return result


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
