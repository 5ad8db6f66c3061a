"""Wells, as they are found in the names of files."""

import re
from typing import Final, NamedTuple

ROWS: Final = "ABCDEFGHIJKLMNOP"
COLUMNS: Final = 24

# As Harmony names its planes, r03c05f01p01-ch1sk1.tiff.
_HARMONY: Final = re.compile(r"(?<![^\W_])r(\d\d)c(\d\d)(?!\d)")
# A word of its own, which a small letter may follow (B03f2); so the lines A172, T98G, HUH7 and B16F10 are none.
_WORD: Final = re.compile(rf"(?<![^\W_])([{ROWS[0]}-{ROWS[-1]}])(\d\d?)(?![\dA-Z])")


class Well(NamedTuple):
    """A place on a plate; both from 1."""

    row: int
    column: int

    @property
    def letter(self) -> str:
        """The row as it is printed on the plate."""
        return ROWS[self.row - 1]

    @property
    def name(self) -> str:
        """As the field writes it.

        >>> Well(2, 3).name
        'B03'
        """
        return f"{self.letter}{self.column:02d}"


def well_at(row: int, column: int) -> Well | None:
    """The well of a row and a column, if a plate of 384 wells has it."""
    return Well(row, column) if 1 <= row <= len(ROWS) and 1 <= column <= COLUMNS else None


def well_of(name: str) -> Well | None:
    """The well that the name of a file gives: as Harmony writes it, else the last word like B03 or B3.

    >>> well_of("r03c05f01p01-ch1sk1.tiff"), well_of("A549_G7_1_00d12h00m.jpg"), well_of("A172_HUH7_B16F10.png")
    (Well(row=3, column=5), Well(row=7, column=7), None)
    """
    if match := _HARMONY.search(name):
        return well_at(int(match[1]), int(match[2]))
    wells = [well_at(ROWS.index(letter) + 1, int(number)) for letter, number in _WORD.findall(name)]
    return next((well for well in reversed(wells) if well is not None), None)
