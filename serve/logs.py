"""What the service logs: lines of text, or an object of JSON each, with the request that they belong to."""

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

from serve.settings import LogFormat

access_log = logging.getLogger("cellnet.requests")
"""One line of JSON a request, where it is wanted."""
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the request that is being answered."""
NAMES: Final = ("cellnet", "serve")
"""Loggers of the service."""


def set_up_logs(*, log_requests: bool, log_format: LogFormat) -> None:
    """Warnings of the service, and if wanted a line of JSON a request, in what Ray keeps of this process's output.

    Its first output, since Ray Serve may have put a log of its own in the place, which keeps a thousand lines back.
    """
    handler = logging.StreamHandler(sys.__stderr__)
    handler.setFormatter(FORMATTERS[log_format]())
    for name in NAMES:
        logging.getLogger(name).handlers = [handler]
        logging.getLogger(name).setLevel(logging.WARNING)
    lines = logging.StreamHandler(sys.__stdout__)
    lines.setFormatter(logging.Formatter("%(message)s"))
    access_log.handlers = [lines]
    access_log.propagate = False
    access_log.setLevel(logging.INFO if log_requests else logging.WARNING)


def beginning(level: int, at: datetime | None = None) -> dict[str, Any]:
    """The fields that every object begins with: when, how grave, and of which request, where it is of one."""
    told = {"time": (at or datetime.now(UTC)).isoformat(timespec="milliseconds"), "level": logging.getLevelName(level)}
    request = request_id.get()
    return told | ({"request_id": request} if request else {})


class JsonLines(logging.Formatter):
    """An object a line: the fields that all begin with, `logger`, `message`, and the traceback of an error in `error`.

    In ASCII, so that nothing in a name ends a line or commands a terminal.
    """

    def format(self, record: logging.LogRecord) -> str:
        record.message = record.getMessage()  # other handlers' formatters read it there, as `logging` has it
        line = beginning(record.levelno, datetime.fromtimestamp(record.created, UTC))
        line |= {"logger": record.name, "message": record.message}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


class TextLines(logging.Formatter):
    """The message in a line with the request, and the traceback of an error below it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name that it has there
        request = request_id.get()
        return super().formatMessage(record) + (f" (request {request})" if request else "")


FORMATTERS: Final[dict[LogFormat, type[logging.Formatter]]] = {"text": TextLines, "json": JsonLines}
