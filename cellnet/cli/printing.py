"""What a person reads: data on stdout, tables among it, and narration on stderr."""

import sys
from typing import Any

from cellnet.terminal import one_line, plain


def say(line: str) -> None:
    """A line of narration."""
    print(plain(line), file=sys.stderr, flush=True)


def tell(line: str) -> None:
    """A line of what was asked for."""
    print(one_line(line))


def print_table(rows: list[dict[str, Any]]) -> None:
    """Rows as aligned columns: numbers to the right, text to the left."""
    if not rows:
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(names)]
    right = [all(isinstance(row.get(name), int | float | None) for row in rows) for name in names]
    for line in [names, *cells]:
        parts = [
            text.rjust(width) if to else text.ljust(width) for text, width, to in zip(line, widths, right, strict=True)
        ]
        print("  ".join(parts).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else one_line(str(value))


def counted(number: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "frame"), counted(12, "frame")
    ('1 frame', '12 frames')
    """
    return f"{number} {noun}{'s' * (number != 1)}"


def scores_line(scores: dict[str, Any]) -> str:
    """The scores that are one number each, in a line."""
    return " ".join(f"{name} {value:.3f}" for name, value in scores.items() if isinstance(value, float))
