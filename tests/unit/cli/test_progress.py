"""Progress as a terminal and a log get it."""

import io

import pytest

import cellnet.cli.progress
from cellnet.cli.progress import Meter


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in one place."""
    now = [100.0]
    monkeypatch.setattr(cellnet.cli.progress.time, "monotonic", lambda: now[0])
    return now


def test_a_terminal_has_a_bar_that_makes_room_for_lines(clock: list[float]) -> None:
    terminal = Terminal()
    meter = Meter(40, terminal, noun="images")
    assert terminal.getvalue() == f"\r[{'.' * 24}] 0 of 40 images\x1b[K"
    clock[0] += 30  # which the start took
    meter.update(10)
    clock[0] += 2
    meter.update(20)
    assert terminal.getvalue().endswith(f"\r[{'#' * 12}{'.' * 12}] 20 of 40 images, 5 a second, 4 s left\x1b[K")
    meter.clear()
    meter.clear()
    assert terminal.getvalue().endswith("\x1b[K\r\x1b[K") and terminal.getvalue().count("\r\x1b[K") == 1


def test_no_speed_is_told_of_what_came_at_once(clock: list[float]) -> None:
    meter = Meter(6, Terminal(), noun="images")
    meter.update(1)
    clock[0] += 0.01
    meter.update(5)
    assert meter.line == "5 of 6 images"
    clock[0] += 0.99
    assert meter.line == "5 of 6 images, 4 a second, 1 s left"


def test_a_log_gets_a_line_every_so_often(clock: list[float]) -> None:
    log = io.StringIO()
    meter = Meter(1000, log, noun="images")
    for done in range(1, 31):
        clock[0] += 1
        meter.update(done)
    meter.clear()
    assert log.getvalue().splitlines() == [
        "11 of 1,000 images, 1 a second, 16 min 29 s left",
        "21 of 1,000 images, 1 a second, 16 min 19 s left",
    ]
