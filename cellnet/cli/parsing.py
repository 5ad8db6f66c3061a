"""How a command line is read: commands, options that several of them share, and one line where it is mistyped."""

import argparse
import difflib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import Any, Final, NoReturn, Protocol

from cellnet.config.settings import NEAR, called, like
from cellnet.errors import ConfigError

IN_OUR_WORDS: Final[tuple[tuple[str, Callable[..., str]], ...]] = (
    (r"argument (\S+): (takes .*)", lambda option, rest: f"{option} {rest}"),
    (
        r"argument (\S+): invalid choice: (.*) \(choose from '(.*)'\)",
        lambda verb, seen, words: "{} takes {}, not {}".format(verb, spoken(*words.split("', '")), seen),
    ),
    (r"argument (\S+): expected .*", lambda option: f"{option} takes a value, and none was given"),
    (r"argument (\S+): ignored explicit argument (.*)", lambda flag, seen: f"{flag} takes no value, not {seen}"),
    (
        r"argument (\S+): not allowed with argument (.*)",
        lambda flag, other: f"{other} and {flag} exclude each other; choose one",
    ),
    (
        r"ambiguous option: (\S+) could match (.*)",
        lambda option, names: f"{option} is short for {spoken(*names.split(', '))}; write it out",
    ),
    (r"the following arguments are required: (.*)", lambda names: f"nothing was given for {names}"),
    (r"unrecognized arguments: (-\S*).*", lambda option: f"there is no option {option}"),
    (r"unrecognized arguments: (.*)", lambda seen: f"nothing more is wanted, and {seen!r} was given"),
)
"""What argparse says, and how it is said here."""


class Parser(argparse.ArgumentParser):
    """Raises ConfigError, in one line that ends in the next step, where argparse prints its usage and ends."""

    _given: tuple[str, ...] = ()
    """What is being read."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("the following arguments are required") and (unknown := self._unknown()):
            message = f"unrecognized arguments: {unknown}"  # what is missing may have been given by it
        said = message
        for theirs, ours in IN_OUR_WORDS:
            if match := re.fullmatch(theirs, message, re.DOTALL):
                said = ours(*match.groups())
                break
        raise ConfigError(self._meant(message, said) or f"{said}; see {self.prog} --help")

    def _unknown(self) -> str:
        """The first option that nobody knows, with what follows it; nothing where all are known."""
        for place, word in enumerate(self._given):
            name = word.partition("=")[0]
            if word.startswith("--") and not any(known.startswith(name) for known in self._option_string_actions):
                return " ".join(self._given[place:])
        return ""

    def _meant(self, theirs: str, said: str) -> str:
        """What is said of a word that nobody knows, with what may have been meant; nothing where that is open."""
        if match := re.fullmatch(r"unrecognized arguments: (--([^=\s]+))(?:[= ]([^-]\S*))?.*", theirs, re.DOTALL):
            meant = self._option_meant(*match.groups())
            return f"{said}; {meant}" if meant else ""
        if match := re.fullmatch(r"([A-Z]+) takes (.*), not '(.*)'", said, re.DOTALL):
            what, words, seen = match.groups()
            if near := difflib.get_close_matches(seen, re.split(", | or ", words), n=1, cutoff=NEAR):
                return f"there is no {what.lower()} {seen!r}; did you mean {near[0]}?"
        return ""

    def _option_meant(self, option: str, name: str, value: str | None) -> str:
        """An option or a setting that may have been meant by an option; nothing where none is near."""
        known, key, shown = list(self._option_string_actions), name.replace("-", "_"), value or "VALUE"
        takes_settings = "--set" in known
        if takes_settings and (meant := _setting_meant(self.prog, key, shown)):
            return meant
        if near := difflib.get_close_matches(option, known, n=1, cutoff=NEAR):
            return f"did you mean {near[0]}?"
        near_key = like(key, sorted(_settings_taken().get(self.prog, ()))) if takes_settings else None
        return f"did you mean --set {near_key}={shown}?" if near_key else ""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, but what nobody knows is refused by the command that it was given to."""
        self._given = tuple(sys.argv[1:] if args is None else args)
        arguments, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return arguments, unknown


def _settings_taken() -> dict[str, list[str]]:
    """The keys that a command's `--set` takes, by command."""
    from cellnet.cli.settings import settings_by_command

    taken = {f"cellnet {command}": [one.key for one in settings] for command, settings in settings_by_command().items()}
    taken["cellnet bank shards"] = taken["cellnet train"]
    taken["cellnet tune"] += [f"train.{key}" for key in taken["cellnet train"]]
    return taken


def _setting_meant(program: str, name: str, value: str) -> str:
    """How to write the setting of this very name, to this command or, where it takes none so called, to another."""
    taken = _settings_taken()
    if key := called(name, sorted(taken.get(program, ()))):
        return f"write --set {key}={value}"
    for command, keys in taken.items():
        if key := called(name, sorted(keys)):
            return f"{key} is a setting of {command}"
    return ""


class Addable(Protocol):
    """What a command can be given."""

    def add_to(self, parser: Any) -> None:
        """To the parser of a command, or to a group of its options."""


class Option:
    """An option or argument, of `argparse`'s settings; a `default` that is a function is asked anew each time."""

    def __init__(self, *names: str, **settings: Any) -> None:
        self.names = names
        self.settings = settings

    def but(self, **settings: Any) -> "Option":
        """The same with other settings."""
        return Option(*self.names, **(self.settings | settings))

    def add_to(self, parser: Any) -> None:
        default = self.settings.get("default")
        parser.add_argument(*self.names, **(self.settings | ({"default": default()} if callable(default) else {})))


class Group:
    """Options under a heading."""

    def __init__(self, title: str, *options: Option) -> None:
        self.title = title
        self.options = options

    def add_to(self, parser: Any) -> None:
        heading = parser.add_argument_group(self.title)
        for option in self.options:
            option.add_to(heading)


class OneOf:
    """Options of which at most one is given."""

    def __init__(self, *options: Option) -> None:
        self.options = options

    def add_to(self, parser: Any) -> None:
        alternatives = parser.add_mutually_exclusive_group()
        for option in self.options:
            option.add_to(alternatives)


def noun(commands: Any, name: str, *, help: str) -> Any:
    """A command that takes a verb; gives what the verbs are added to."""
    return commands.add_parser(name, help=help).add_subparsers(required=True, metavar="VERB")


def command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    *options: Addable,
    help: str,
    description: str | None = None,
) -> None:
    """A command, its options in the order in which its help shows them; `run` does it."""
    parser = commands.add_parser(name, help=help, description=description)
    for option in options:
        option.add_to(parser)
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class Reader:
    """Makes a value of an option's text, or says what it takes; an `argparse` type."""

    wanted: str
    read: Callable[[str], Any]
    """Raises ValueError for what is not wanted."""

    def __call__(self, text: str) -> Any:
        try:
            return self.read(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"takes {self.wanted}, not {text!r}") from None

    def __or__(self, other: "Reader") -> "Reader":
        def read(text: str) -> Any:
            try:
                return self.read(text)
            except ValueError:
                return other.read(text)

        return Reader(f"{self.wanted} or {other.wanted}", read)


def one_of(*words: str) -> Reader:
    """One of some words.

    >>> one_of("train", "test")("test")
    'test'
    """

    def read(text: str) -> str:
        if text not in words:
            raise ValueError
        return text

    return Reader(spoken(*words), read)


def spoken(*words: str) -> str:
    """Words to choose from.

    >>> spoken("shadow"), spoken("train", "test", "all")
    ('shadow', 'train, test or all')
    """
    return " or ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


def number(
    kind: type[int] | type[float],
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    what: str = "",
) -> Reader:
    """A number within bounds, `what` it is one of.

    >>> number(int, least=1).wanted, number(float, above=0, most=100).wanted, number(float, above=0, what="days").wanted
    ('a number from 1', 'a number above 0, at most 100', 'days above 0')
    """

    def read(text: str) -> float:
        value = kind(text)
        # Written so that what is no number at all (nan) is out of every bound.
        within = (least is None or value >= least, above is None or value > above, most is None or value <= most)
        if not all(within):
            raise ValueError
        return value

    wanted = what or ("a whole number" if kind is int and least is None and above is None else "a number")
    wanted += "" if least is None else f" from {least:g}"
    wanted += "" if above is None else f" above {above:g}"
    wanted += "" if most is None else f"{' to' if above is None else ', at most'} {most:g}"
    return Reader(wanted, read)


def _range(text: str) -> int | tuple[int, int]:
    ends = [int(part) if part.isdecimal() else 0 for part in text.split(":")]
    if len(ends) > 2 or min(ends) < 1 or ends != sorted(ends):
        raise ValueError
    return ends[0] if len(ends) == 1 else (ends[0], ends[1])


def _moment(text: str) -> int | datetime:
    """An entry's number, or a time; a day alone means its end, and where no zone is told it is UTC.

    >>> _moment("12"), _moment("2026-11-29").isoformat(), _moment("2026-11-29T10:30+01:00").isoformat()
    (12, '2026-11-29T23:59:59.999999+00:00', '2026-11-29T10:30:00+01:00')
    """
    if text.isdecimal() and len(text) < 8:
        return int(text)
    at = datetime.fromisoformat(text)
    if "T" not in text and ":" not in text:
        at = datetime.combine(at, time.max)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


POSITIVE: Final = number(int, least=1)
MOMENT: Final = Reader("the number of an entry, or a time like 2026-11-29T10:30", _moment)
NUMBER_OR_RANGE: Final = Reader("a number from 1, or MIN:MAX like 1:4", _range)
PAGES: Final = Reader("middle, all", lambda text: one_of("middle", "all").read(text)) | POSITIVE
