"""What a person reads: data on stdout, tables among it, and narration on stderr.

Names and messages may be anybody's: nothing that commands a terminal is written to one.
"""

import json
import logging
import sys
from typing import Any

from cellnet.errors import encodable, plain


def say(line: str) -> None:
    """A line of narration."""
    print(plain(line), file=sys.stderr, flush=True)


def tell(line: str) -> None:
    """A line of data."""
    print(plain(line), flush=True)


def print_json(value: Any, *, indent: int | None = None) -> None:
    """Data for programs, in ASCII: on one line, unless it is to be indented."""
    whole = encodable(json.dumps(value, ensure_ascii=False))
    print(json.dumps(json.loads(whole), indent=indent), flush=True)


def print_csv(line: str) -> None:
    """A line of a CSV: as it is for programs, and on a terminal without what commands it."""
    print(plain(line, lines=True) if sys.stdout.isatty() else line, end="")


class LogLines(logging.Formatter):
    """What is logged, in the one line that it is."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name that it has there
        record.message = plain(record.message)
        return super().formatMessage(record)


def print_table(rows: list[dict[str, Any]]) -> None:
    """Rows as aligned columns: numbers to the right, text to the left."""
    if not rows:
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(names)]
    right = [all(isinstance(row.get(name), int | float | None) for row in rows) for name in names]
    for line in [[plain(name) for name in names], *cells]:
        parts = [
            text.rjust(width) if to else text.ljust(width) for text, width, to in zip(line, widths, right, strict=True)
        ]
        print("  ".join(parts).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else plain(str(value))


def counted(number: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "frame"), counted(12, "frame")
    ('1 frame', '12 frames')
    """
    return f"{number} {noun}{'s' * (number != 1)}"


def scores_line(scores: dict[str, Any]) -> str:
    """The scores that are one number each, in a line."""
    return " ".join(f"{name} {value:.3f}" for name, value in scores.items() if isinstance(value, float))
