"""How far a long command is: a bar where stderr is a terminal, else a line every so often."""

import shutil
import time
from typing import Final, TextIO

DRAW_S: Final = 0.1
"""How often a bar is drawn, at most."""
SAY_S: Final = 10.0
"""How often a line is written where there is no terminal."""
RATED_S: Final = 1.0
"""From when on a speed is told: many things come at once, and the first few would say thousands a second."""
BAR: Final = 24
"""Characters of the bar."""


class Meter:
    """Progress over so many things. `clear` makes room for other lines on the terminal."""

    def __init__(self, total: int, stream: TextIO, *, noun: str) -> None:
        self.total, self.stream, self.noun = total, stream, noun
        self.done = 0
        self._bar = stream.isatty() and total > 0
        self._drawn = False
        self._written_s = time.monotonic()
        self._began: tuple[float, int] | None = None
        if self._bar:
            self._draw()

    @property
    def per_second(self) -> float | None:
        """Things a second since the first were done: what comes before is the start of the workers.

        None where that is too short a time ago.
        """
        if self._began is None or self.done == self._began[1]:
            return None
        since_s = time.monotonic() - self._began[0]
        return (self.done - self._began[1]) / since_s if since_s >= RATED_S else None

    def update(self, done: int) -> None:
        """Note how many are done, and show it if it is time to."""
        self.done = done
        if self._began is None and done:
            self._began = (time.monotonic(), done)
            self._written_s = self._written_s if self._bar else self._began[0]
        quiet_s = time.monotonic() - self._written_s
        if self._bar and (not self._drawn or quiet_s >= DRAW_S):
            self._draw()
        elif not self._bar and quiet_s >= SAY_S:
            self._written_s = time.monotonic()
            print(self.line, file=self.stream, flush=True)

    def clear(self) -> None:
        """Take the bar off the terminal, until the next update."""
        if self._drawn:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
            self._drawn = False

    @property
    def line(self) -> str:
        """What is done of what, how fast, and how long the rest will take."""
        parts = [f"{self.done:,} of {self.total:,} {self.noun}"]
        if self.per_second:
            parts.append(f"{self.per_second:.3g} a second")
            parts.append(f"{duration((self.total - self.done) / self.per_second)} left")
        return ", ".join(parts)

    def _draw(self) -> None:
        full = BAR * self.done // max(self.total, 1)
        text = f"[{'#' * full}{'.' * (BAR - full)}] {self.line}"
        self.stream.write(f"\r{text[: shutil.get_terminal_size().columns - 1]}\x1b[K")
        self.stream.flush()
        self._drawn, self._written_s = True, time.monotonic()


def duration(seconds: float) -> str:
    """A time to come, for a person.

    >>> duration(0.4), duration(75), duration(5000), duration(200000)
    ('1 s', '1 min 15 s', '1 h 23 min', '55 h 33 min')
    """
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"
