"""Text of anybody as a terminal or a log may show it."""

import logging
from typing import Any


def plain(text: str) -> str:
    """Text of anybody as a terminal may show it: without the characters that command it.

    >>> plain("A549\x1b[2J")
    'A549?[2J'
    """
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text)


def one_line(text: str) -> str:
    r"""The same of what has to stay on its line, so that a file's name cannot write another.

    >>> one_line("a.png\nb.png: A549")
    'a.png?b.png: A549'
    """
    return plain(text).replace("\n", "?")


class PlainFormatter(logging.Formatter):
    """Lines of a log, in which no name commands the terminal, nor writes a line of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return one_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return plain(super().formatException(ei))
