"""Configurations and records read and checked.

Configurations are strict: a key that is not known is a mistake. Order of precedence: default < `--config FILE` (YAML or
JSON) < `--set KEY=VALUE`. The environment holds places and secrets only.

Records, which are stored and last, are written strictly and read leniently, at any depth: a key that is not known was
written by a later cellnet, or by an earlier one that knew more, and is left alone. A record says its `format`, which
is raised only when readers of before would take what is written for something else; a higher one is refused. Records
of before there were formats have none, and are of format 1.
"""

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from cellnet.config.settings import like, settings_of
from cellnet.errors import ConfigError, IntegrityError, LaterError

MOST_BYTES: Final = 2**20
"""Of a configuration; more is not read."""
Model = TypeVar("Model", bound=BaseModel)


class Frozen(BaseModel):
    """A value that forbids unknown keys and change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Configuration(Frozen):
    """What can be set: the text below a field is its meaning, which `cellnet settings` shows."""


class Stored(Frozen):
    """A value that is stored as a record of its own."""

    FORMAT: ClassVar[int] = 1
    """The highest that is read."""

    @property
    def written_format(self) -> int:
        """Of what is written: the lowest whose readers take it for what it is."""
        return self.FORMAT


Record = TypeVar("Record", bound=Stored)


def is_none(value: object) -> bool:
    """When a field that came later is left out of what is stored, so that what was stored before it stays the same."""
    return value is None


def load_config(kind: type[Model], *, file: Path | None, sets: list[str], **fixed: Any) -> Model:
    """A checked configuration from an optional file and `KEY=VALUE` settings (dotted keys reach inside).

    `fixed` are values that the command line names by options of their own; they win over the file.
    Raises ConfigError in one line for an unreadable file, an unknown key or a value out of range.
    """
    values = read_file(file) if file else {}
    for item in sets:
        key, equals, text = item.partition("=")
        if not equals:
            raise ConfigError(f"--set takes KEY=VALUE, not {item!r}; for example --set epochs=10")
        try:
            value = _of_yaml(text)
        except ValueError as error:
            raise ConfigError(f"--set {item!r:.80}: {text!r:.80} is not a YAML value; put quotes around it") from error
        place_at(values, key.strip().split("."), value)
    for key, value in fixed.items():
        place_at(values, key.split("."), value)
    return load_checked(kind, values)


def load_checked(kind: type[Model], values: Any, *, where: str = "configuration ") -> Model:
    """Values as a configuration. Raises ConfigError in one line, which begins with `where` and the key."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first, *others = error.errors()
        if first["type"] == "value_error":  # settings that do not fit each other: a validator of ours says all of it
            raise ConfigError(f"{where.strip(' :') or _key(first['loc'])}: {first['ctx']['error']}") from error
        key = _key(first["loc"])
        name = f"{where}{key!r}" if where else key
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{name}: there is no such setting; {_instead(kind, key)}") from error
        messages = [first["msg"], *(other["msg"] for other in others if _key(other["loc"]) == key)]
        wanted = ", or: ".join(dict.fromkeys(messages))
        raise ConfigError(f"{name}: {wanted} (seen: {first['input']!r:.80})") from error


def record_bytes(record: Stored) -> bytes:
    """A record as JSON, its format first."""
    text = record.model_dump_json(indent=1)
    return f'{{\n "format": {record.written_format},{text.removeprefix("{")}'.encode()


def read_record(kind: type[Record], data: bytes, what: str) -> Record:
    """What `record_bytes` gave, now or long ago.

    Raises IntegrityError, which begins with `what`, for a record that is damaged, and LaterError for one that a later
    cellnet wrote.
    """
    try:
        values = from_json(data)
    except ValueError as error:
        raise IntegrityError(f"{what} is damaged: Invalid JSON: {error}") from error
    if isinstance(values, dict):
        check_format(values, kind.FORMAT, what)
    return read_stored(kind, values, what)


def check_format(record: Mapping[str, Any], known: int, what: str) -> None:
    """Raise LaterError for a record of a higher format than is known here, IntegrityError where it can be none."""
    number = record.get("format", 1)
    if type(number) is not int or number < 1:
        raise IntegrityError(f"{what} is damaged: its format is {number!r:.80}, which is no number from 1")
    if number > known:
        raise LaterError(
            f"{what} was written by a later cellnet (format {number}, this one reads {known}); update cellnet"
        )


def read_stored(kind: type[Model], values: Any, what: str) -> Model:
    """A part of a record, leniently. Raises IntegrityError for values that it cannot have."""
    try:
        return kind.model_validate(values, extra="ignore")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))[:200]
        raise IntegrityError(f"{what} is damaged: {where + ': ' if where else ''}{first['msg']:.200}") from error


def _instead(kind: type[BaseModel], key: str) -> str:
    """What to do about a key that a configuration has not."""
    meant = like(key, [one.key for one in settings_of(kind)])
    where = "cellnet settings lists all" if issubclass(kind, Configuration) else "leave it out"
    return f"did you mean {meant}? {where}" if meant else where


def _key(place: tuple[int | str, ...]) -> str:
    """The dotted key of a place, without the alternatives of a union that pydantic adds to it."""
    own = itertools.takewhile(lambda part: not re.search(r"\[|^constrained-", part), map(str, place))
    return ".".join(own)


def read_file(file: Path) -> dict[str, Any]:
    """The values of a YAML or JSON file. Raises ConfigError in a line for one that is none, or too large."""
    try:
        with file.open("rb") as opened:
            data = opened.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES:,} bytes")
        values = _of_yaml(data.decode("utf-8"))
    except (OSError, ValueError) as error:
        reason = str(error).replace("\n", " ")
        raise ConfigError(f"cannot read the configuration {file}: {reason}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"the configuration {file} holds no KEY: VALUE lines")
    return values


def _of_yaml(text: str) -> Any:
    """What YAML says. Raises ValueError for what is none, and for values that are none, like the 45th of a month."""
    try:
        return yaml.safe_load(text)
    except RecursionError as error:
        raise ValueError("lists in lists without end") from error
    except Exception as error:  # PyYAML raises what its constructors of dates and numbers do
        raise ValueError(str(error)) from error


def place_at(values: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise ConfigError(f"configuration {'.'.join(path)!r}: {part!r} is a value, not a section")
    values[path[-1]] = value
