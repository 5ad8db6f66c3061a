"""The model registry: objects only, in a folder or in S3.

    NAME/blobs/SHA256                          weights: written first, addressed by content
    NAME/versions/000007.json                  the commit point: created only if absent
    NAME/aliases/champion/000012.json          an append-only log: created only if absent; the newest is the alias

A crash leaves unreferenced blobs at worst. A reference is `name@7` or `name:alias`.
"""

import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from cellnet.calibration import Calibration
from cellnet.config import Frozen, Preprocess, Task, TrainConfig
from cellnet.errors import ConfigError, ConflictError, IntegrityError, NotFoundError
from cellnet.store import Store, open_store

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
WEIGHTS: Final = "weights.safetensors"


class Card(Frozen):
    """What is told of a model, besides its weights."""

    task: Task
    classes: list[str]
    """The lineages in the order of the logits; empty for a counter."""
    config: TrainConfig
    preprocess: Preprocess
    frame_px: tuple[int, int]
    """Median height and width of the training frames, in pixels."""
    bank: str
    bank_digest: str
    scores: dict[str, Any]
    """By split; `test` chose this model, `holdout` is its report."""
    history: list[dict[str, Any]]
    """One row an epoch: loss and test scores."""
    code_version: str
    packages: dict[str, str]
    created: str
    """UTC, ISO 8601."""
    search: list[dict[str, Any]] | None = None
    """The trials of the search that chose this model, if one did."""
    calibration: Calibration | None = None
    """Temperature and intervals; None of models published before there were any."""


class Blob(Frozen):
    """Stored bytes."""

    sha256: str
    size: int


class ModelVersion(Frozen):
    """An immutable model: `name@number`."""

    name: str
    number: int
    blobs: dict[str, Blob]
    card: Card

    @property
    def ref(self) -> str:
        """`name@number`."""
        return f"{self.name}@{self.number}"


class Evidence(Frozen):
    """A version beside the one that an alias points at, on the same frames that neither was trained on."""

    champion: int
    """The number of the version that the alias pointed at."""
    bank: str
    bank_digest: str
    split: str
    unit: Literal["tile", "frame"]
    score: str
    n: int
    groups: int
    values: tuple[float, float]
    """The score of the challenger, and of the champion."""
    difference: float
    """Above 0 where the challenger is better."""
    interval: tuple[float, float]
    """95 % of a paired bootstrap over groups."""
    same_bank: tuple[bool, bool]
    """Whether the challenger, and the champion, were trained on this state of the bank."""

    @property
    def shows_better(self) -> bool:
        """Whether the challenger is better beyond chance: all of the interval is above 0, of two groups or more."""
        return self.groups > 1 and self.interval[0] > 0

    def __str__(self) -> str:
        """In one line for a person."""
        (new, old), (low, high) = self.values, self.interval
        return (
            f"{self.score} {new:.3f} against {old:.3f} per {self.unit} of the {self.split} (n={self.n}, "
            f"{self.groups} groups), better by {self.difference:.3f} ({low:.3f} to {high:.3f})"
        )


class AliasMove(BaseModel):
    """One entry of an alias's log."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    alias: str
    entry: int
    number: int
    previous: int | None
    reason: str
    moved: str
    """UTC, ISO 8601."""
    evidence: Evidence | None = None
    """Of a move that was decided by a comparison."""


class Registry:
    """Models by name, their versions and aliases."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @classmethod
    def open(cls, uri: str, *, endpoint_url: str | None = None) -> Self:
        """The registry at a folder or `s3://bucket/prefix`; an empty place is an empty registry."""
        return cls(open_store(uri, endpoint_url=endpoint_url))

    def publish(self, name: str, files: dict[str, bytes], card: Card) -> ModelVersion:
        """Store the blobs, then commit the next version; readers see all of it or none."""
        _check_name(name)
        blobs = {role: self._put_blob(name, data) for role, data in files.items()}
        while True:
            number = max(self._numbers(f"{name}/versions/"), default=0) + 1
            version = ModelVersion(name=name, number=number, blobs=blobs, card=card)
            if self.store.create(_version_key(name, number), version.model_dump_json(indent=1).encode()):
                return version

    def resolve(self, ref: str) -> ModelVersion:
        """The version that `name@7` or `name:alias` means. Raises NotFoundError, naming what there is."""
        name, number, alias = parse_ref(ref)
        if alias is not None:
            number = self._alias(name, alias).number
        assert number is not None
        try:
            data = self.store.get(_version_key(name, number))
        except NotFoundError as error:
            raise NotFoundError(f"the registry {self.store.uri} has no {ref}; {self._offer(name)}") from error
        try:
            version = ModelVersion.model_validate_json(data)
        except ValidationError as error:
            raise IntegrityError(f"{name}@{number} in {self.store.uri} is not a model version") from error
        if (version.name, version.number) != (name, number):
            raise IntegrityError(f"{name}@{number} in {self.store.uri} says it is {version.ref}")
        return version

    def read(self, version: ModelVersion, role: str) -> bytes:
        """The bytes of one of a version's blobs. Raises IntegrityError unless their sha256 is right."""
        blob = version.blobs.get(role)
        if blob is None or not re.fullmatch(r"[0-9a-f]{64}", blob.sha256):
            raise IntegrityError(f"{version.ref} holds no proper {role}")
        data = self.store.get(f"{version.name}/blobs/{blob.sha256}")
        if len(data) != blob.size or hashlib.sha256(data).hexdigest() != blob.sha256:
            raise IntegrityError(
                f"{role} of {version.ref} is damaged: its sha256 is not {blob.sha256[:12]}…; "
                f"serve another version, or publish it again"
            )
        return data

    def versions(self) -> Iterator[tuple[ModelVersion, list[str]]]:
        """Every version, with the aliases that point at it; by name, the newest first."""
        for name in self._names():
            pointing: dict[int, list[str]] = {}
            for alias in self._aliases(name):
                pointing.setdefault(self._alias(name, alias).number, []).append(alias)
            for number in sorted(self._numbers(f"{name}/versions/"), reverse=True):
                yield self.resolve(f"{name}@{number}"), pointing.get(number, [])

    def promote(self, ref: str, alias: str, *, reason: str = "", evidence: Evidence | None = None) -> AliasMove:
        """Point an alias at a version, on the `evidence` of a comparison with what it points at.

        Raises ConflictError, naming the winner, when another promoter was first.
        """
        _check_name(alias)
        version = self.resolve(ref)
        log = self.history(version.name, alias)
        previous = log[-1].number if log else None
        if evidence and previous is not None and previous != evidence.champion:
            raise _moved_meanwhile(log[-1])
        if previous == version.number:
            return log[-1]
        move = AliasMove(
            name=version.name,
            alias=alias,
            entry=log[-1].entry + 1 if log else 1,
            number=version.number,
            previous=previous,
            reason=reason,
            moved=datetime.now(UTC).isoformat(timespec="seconds"),
            evidence=evidence,
        )
        if not self.store.create(_move_key(move), move.model_dump_json(indent=1).encode()):
            raise _moved_meanwhile(self._alias(version.name, alias))
        return move

    def rollback(self, name: str, alias: str) -> AliasMove:
        """Point an alias back at the version that it pointed at before its last move."""
        last = self._alias(name, alias)
        if last.previous is None:
            raise ConfigError(f"{name}:{alias} has pointed at nothing but {name}@{last.number}; nothing to go back to")
        return self.promote(f"{name}@{last.previous}", alias, reason=f"rollback from {name}@{last.number}")

    def history(self, name: str, alias: str) -> list[AliasMove]:
        """Every move of an alias, the oldest first."""
        return [self._move(key) for key in self.store.keys(f"{name}/aliases/{alias}/")]

    def verify(self) -> Iterator[tuple[ModelVersion, str | None]]:
        """Every version, with what is wrong with its blobs, or None."""
        for version, _ in self.versions():
            try:
                for role in version.blobs:
                    self.read(version, role)
            except (IntegrityError, NotFoundError) as error:
                yield version, str(error)
            else:
                yield version, None

    def _put_blob(self, name: str, data: bytes) -> Blob:
        blob = Blob(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        self.store.create(f"{name}/blobs/{blob.sha256}", data)
        return blob

    def _alias(self, name: str, alias: str) -> AliasMove:
        keys = list(self.store.keys(f"{name}/aliases/{alias}/"))
        if not keys:
            raise NotFoundError(f"the registry {self.store.uri} has no {name}:{alias}; {self._offer(name)}")
        return self._move(keys[-1])

    def _move(self, key: str) -> AliasMove:
        try:
            return AliasMove.model_validate_json(self.store.get(key))
        except ValidationError as error:
            raise IntegrityError(f"{key} in {self.store.uri} is not an alias's move") from error

    def _offer(self, name: str) -> str:
        """What the registry does have, for the reader of an error."""
        numbers = self._numbers(f"{name}/versions/")
        if numbers:
            aliases = self._aliases(name)
            return f"it has {name}@1…{max(numbers)}" + (f" and {name}:{', '.join(aliases)}" if aliases else "")
        names = self._names()
        if names:
            return f"it has the models {', '.join(names)}"
        return "it is empty; publish a model with cellnet train"

    def _names(self) -> list[str]:
        return sorted({key.split("/")[0] for key in self.store.keys("") if "/versions/" in key})

    def _aliases(self, name: str) -> list[str]:
        return sorted({key.split("/")[2] for key in self.store.keys(f"{name}/aliases/")})

    def _numbers(self, prefix: str) -> list[int]:
        stems = (key.removeprefix(prefix).removesuffix(".json") for key in self.store.keys(prefix))
        return [int(stem) for stem in stems if stem.isdigit()]


def parse_ref(ref: str) -> tuple[str, int | None, str | None]:
    """(name, number, None) of `name@7`, or (name, None, alias) of `name:alias`. Raises ConfigError.

    >>> parse_ref("classifier@7"), parse_ref("classifier:champion")
    (('classifier', 7, None), ('classifier', None, 'champion'))
    """
    match = re.fullmatch(rf"({NAME.pattern})(?:@([1-9][0-9]{{0,8}})|:({NAME.pattern}))", ref)
    if match is None:
        raise ConfigError(f"{ref!r} is not a reference; write name@7 or name:alias, like classifier:champion")
    name, number, alias = match.groups()
    return name, int(number) if number else None, alias


def _moved_meanwhile(winner: AliasMove) -> ConflictError:
    return ConflictError(
        f"{winner.name}:{winner.alias} was moved to {winner.name}@{winner.number} in the meantime; "
        "look at it, then promote again if you still want to"
    )


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is not a name; use up to 64 letters, digits, '.', '_' and '-'")


def _version_key(name: str, number: int) -> str:
    return f"{name}/versions/{number:06d}.json"


def _move_key(move: AliasMove) -> str:
    return f"{move.name}/aliases/{move.alias}/{move.entry:06d}.json"
