"""`cellnet suggest`: what to label next, and why."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cellnet.cli.options import BANK, JSON, READS_REGISTRY, REF, bank_command, places_of
from cellnet.cli.parsing import POSITIVE, Option, command
from cellnet.cli.printing import counted, print_json, print_table, say
from cellnet.errors import ConfigError

if TYPE_CHECKING:
    from cellnet.evaluation.suggesting import Suggestion

COLUMNS: Final = (
    *("image", "sha256", "lineage", "count", "points", "unusable", "accepted"),
    *("drawn", "why", "seen", "seen_lineage", "seen_count"),
)
"""Of the table that is filled in, as `cellnet bank label` takes it."""


def add_to(commands: Any) -> None:
    command(
        commands,
        "suggest",
        suggest,
        BANK,
        REF,
        Option("-n", "--number", type=POSITIVE, default=20, metavar="N", help="frames to choose (%(default)s)"),
        Option(
            "--among",
            type=POSITIVE,
            default=2000,
            metavar="N",
            help="ask about so many frames at most, drawn evenly over batches and groups (%(default)s)",
        ),
        Option("--html", type=Path, metavar="FILE", help="also write a page with the frames"),
        Option("--out", type=Path, metavar="CSV", help="also write a table to fill in and give to cellnet bank label"),
        JSON,
        *READS_REGISTRY,
        help="what to label next: the frames that would teach most, and some at random",
        description=(
            "List frames of BANK that have no lineage, for a classifier, or no count, for a counter: those that stand "
            "for most others like no labelled frame, unsure answers first, each with why. A tenth as many are drawn at "
            "random beside them, to score by. REF is the model that is asked. The same bank gives the same list."
        ),
    )


def suggest(arguments: argparse.Namespace) -> None:
    from pipelines.suggest import suggest

    if arguments.out and arguments.out.exists():  # before the model is asked, which takes minutes
        raise ConfigError(f"{arguments.out} is there already, and may be filled in; give --out another name")
    places = places_of(arguments)
    told = suggest(arguments.ref, places, number=arguments.number, among=arguments.among, say=say)
    for frame in told.left_out:
        say(f"left out {frame.line}")
    chosen = sum(one.drawn == "chosen" for one in told.suggestions)
    if chosen < arguments.number:
        say(f"note: there is no more to choose from: {counted(chosen, 'frame')} of {arguments.number}")
    if arguments.json:
        facts: dict[str, Any] = {"bank": told.bank.store.uri, "digest": told.bank.digest, "entry": told.bank.entry}
        left_out = [frame.line for frame in told.left_out]
        print_json(
            {**facts, "model": told.ref, "frames": [_facts(one) for one in told.suggestions], "left_out": left_out}
        )
    else:
        print_table([_line(one) for one in told.suggestions])
    if arguments.html:
        from cellnet.reports.suggestions import write_suggestions

        say(f"page: {write_suggestions(arguments.html, told.bank, told.ref, told.suggestions)}")
    if arguments.out:
        _write_table(arguments.out, told.suggestions)
        label = bank_command(arguments, "bank", "label", arguments.bank, arguments.out)
        say(f"table: {arguments.out}; fill in what you see, then: {label}")


def _line(one: "Suggestion") -> dict[str, Any]:
    """A frame as a line for a person."""
    from cellnet.evaluation.suggesting import said_of

    says = said_of(one.answer)
    return {"image": one.frame.source, "sha256": one.frame.frame[:12], "says": says, "why": "; ".join(one.why)}


def _facts(one: "Suggestion") -> dict[str, Any]:
    """The same for a program."""
    frame, answer = one.frame, one.answer
    where = {"group": frame.group, "batch": frame.batch, "time_h": frame.time_h, "split": frame.split}
    names = ("probabilities", "count", "count_low", "count_high", "unfamiliar")
    said = {"lineage": answer.lineage, **{name: getattr(answer, name) for name in names}}
    return {"image": frame.source, "frame": frame.frame, "drawn": one.drawn, "why": one.why, **where, **said}


def _write_table(path: Path, suggestions: "list[Suggestion]") -> None:
    """Raises ConfigError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.writelines(_lines(suggestions))
    except OSError as error:
        raise ConfigError(f"cannot write the table {path}: {error.strerror}") from error


def _lines(suggestions: "list[Suggestion]") -> Iterator[str]:
    from cellnet.prediction.tables import csv_lines

    empty = dict.fromkeys(COLUMNS)
    return csv_lines(
        (
            empty
            | {"image": one.frame.source, "sha256": one.frame.frame, "drawn": one.drawn, "why": "; ".join(one.why)}
            | {"seen": one.answer.model, "seen_lineage": one.answer.lineage, "seen_count": one.answer.count}
            for one in suggestions
        ),
        COLUMNS,
    )
