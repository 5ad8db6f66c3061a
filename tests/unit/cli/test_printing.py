"""What reaches a terminal: no name of a file commands it, or writes a line of its own."""

import logging

import pytest

from cellnet.cli.predict import _csv_printer, _print_json, _print_prediction
from cellnet.cli.printing import print_table, say, tell
from cellnet.prediction.answers import Prediction
from cellnet.terminal import PlainFormatter
from serve.http.middleware import set_up_logs

EVIL = "a\x1b]0;x\x07\x1b[2J\u202e\u009b\r\nb.png: A549"
COMMANDS = frozenset(EVIL) - frozenset("a]0;x[2Jb.png: A549")


def shown(text: str, lines: int = 1) -> None:
    """Assert that a text is of so many lines, and commands nothing."""
    assert not COMMANDS & set(text.removesuffix("\n").replace("\n", "", lines - 1)), repr(text)
    assert "b.png" in text or "\\nb.png" in text


@pytest.mark.parametrize("error", [None, "cannot be read"])
def test_a_prediction_is_one_line(capsys: pytest.CaptureFixture[str], error: str | None) -> None:
    _print_prediction(Prediction(image=EVIL, error=error))
    shown(capsys.readouterr().out)
    _print_json(Prediction(image=EVIL, error=error))
    shown(capsys.readouterr().out)


def test_a_row_of_csv_is_one_line_on_a_terminal_and_itself_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    show = _csv_printer()
    capsys.readouterr()
    show(Prediction(image=EVIL))
    assert EVIL in capsys.readouterr().out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    show(Prediction(image=EVIL))
    shown(capsys.readouterr().out)


def test_lines_and_tables_command_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    tell(f"set aside {EVIL}")
    shown(capsys.readouterr().out)
    print_table([{"image": EVIL}])
    shown(capsys.readouterr().out, lines=2)
    say(f"note: {EVIL}")
    shown(capsys.readouterr().err, lines=2)


def test_lines_of_a_log_command_nothing_and_neither_do_its_errors() -> None:
    try:
        raise ValueError(EVIL)
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "%s", (EVIL,), (type(error), error, None))
    first, *rest = PlainFormatter("%(name)s: %(message)s").format(record).split("\n", 1)
    shown(first)
    shown("".join(rest), lines=2)


def test_the_logs_of_the_service_are_such_lines() -> None:
    before = {name: list(logging.getLogger(name).handlers) for name in ("cellnet", "serve", "cellnet.requests")}
    try:
        set_up_logs(False)
        added = [handler for handler in logging.getLogger("serve").handlers if handler not in before["serve"]]
        assert [type(handler.formatter) for handler in added] == [PlainFormatter]
    finally:
        for name, handlers in before.items():
            logging.getLogger(name).handlers = handlers
