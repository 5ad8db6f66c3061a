"""A table of what was done to wells, as people save it."""

from pathlib import Path

import pytest

from cellnet.errors import DataError
from cellnet.images.wells import Well
from cellnet.readers.conditions import Condition, read_plate_layout


def layout(folder: Path, text: str) -> Path:
    (folder / "layout.csv").write_text(text, encoding="utf-8")
    return folder / "layout.csv"


def test_wells_of_one_plate_and_of_every_plate_are_told_apart(tmp_path: Path) -> None:
    told = read_plate_layout(layout(tmp_path, "Well;Treatment;Dose;Plate\nB3;drug;0,5 µM;\nb03;DMSO;;P2\nC03;n/a;;\n"))
    assert told.of("P1", Well(2, 3)) == Condition(treatment="drug", dose="0,5 µM")
    assert told.of("P2", Well(2, 3)) == Condition(treatment="DMSO", dose="0,5 µM")
    assert told.of("P1", Well(3, 3)) == told.of("P1", Well(8, 12)) == Condition()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("well,dose\nB3,1\n", "has no column treatment"),
        ("well,compound\nB3,x\n", "rename compound to treatment"),
        ("well,treatment\n", "has a header and no rows"),
        ("well,treatment\nB3,x\nZ99,y\n", "line 3: 'Z99' is not a well; write C03 or r03c03"),
        ("well,treatment\nB3,x\nb03,y\n", "line 3 contradicts an earlier row of B03"),
    ],
)
def test_a_table_that_does_not_tell_wells_is_refused_in_a_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_plate_layout(layout(tmp_path, text))


def test_a_row_that_is_there_twice_is_one(tmp_path: Path) -> None:
    told = read_plate_layout(layout(tmp_path, "well,treatment\nB3,x\nB03,x\n"))
    assert told.of("P1", Well(2, 3)).treatment == "x"
