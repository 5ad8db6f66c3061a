"""What a terminal is shown of text that may be anybody's."""

import json
import logging
import re

import pytest

from cellnet.cli import main
from cellnet.cli.printing import LogLines, print_csv, print_json, print_table, say, tell
from cellnet.errors import DataError

HOSTILE = "A\x1b[2J\r\n\u202e549\x9b31m\u2028\udce9"
SHOWN = "A?[2J???549?31m??"


def test_nothing_that_commands_a_terminal_is_written_to_one(capsys: pytest.CaptureFixture[str]) -> None:
    say(HOSTILE)
    tell(HOSTILE)
    print_table([{HOSTILE: HOSTILE}])
    printed = capsys.readouterr()
    assert printed.err == f"{SHOWN}\n" and printed.out == f"{SHOWN}\n" * 3
    record = logging.LogRecord("cellnet", logging.WARNING, "", 1, "of %s", (HOSTILE,), None)
    assert LogLines("%(levelname)s: %(message)s").format(record) == f"WARNING: of {SHOWN}"


def test_json_is_ascii_that_every_program_reads(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({HOSTILE: ["\U0001f52c", 1.5, None]})
    printed = capsys.readouterr().out
    assert printed.isascii() and not re.search(r"[\x00-\x09\x0b-\x1f]", printed)
    [(name, values)] = json.loads(printed).items()
    assert name == HOSTILE.replace("\udce9", "\N{REPLACEMENT CHARACTER}") and values == ["\U0001f52c", 1.5, None]


def test_a_csv_is_exact_for_programs_and_harmless_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    print_csv('"a\x1b[2J.png"\n')
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_csv('"a\x1b[2J.png"\n')
    assert capsys.readouterr().out == '"a\x1b[2J.png"\n"a?[2J.png"\n'


def test_an_error_quotes_no_millions_of_characters(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*given: object) -> None:
        raise DataError(f"the count \x1b[2J{'9' * 10**6} is no number")

    monkeypatch.setattr("cellnet.cli.registry.places_of", fails)
    assert main(["registry", "list"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("cellnet: the count ?[2J999") and len(line) < 2100
