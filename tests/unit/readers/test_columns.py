"""Tables a column at a time: the cells that `read_csv` gives."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from cellnet.errors import DataError
from cellnet.readers import columns, number_of, read_csv
from cellnet.readers.columns import read_columns
from cellnet.readers.labels import read_points

ODD = """\ufeffsep=;
# a comment
 Image ;X;note;Y
a.png;1,5;n/a;2
"b;1.png"; -3.25 ;"two
lines";1e2

b.png;NA
# another
;;;
a.png;0007;-;.5
a.png;1.234;x;+4
"""


def wanted(names: object) -> tuple[str, ...]:
    return ("image", "x", "y", "note")


@pytest.mark.parametrize("batch", [1, 2, 5, 100])
def test_the_cells_are_those_that_a_table_of_rows_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(columns, "BATCH", batch)
    (tmp_path / "odd.csv").write_text(ODD)
    rows = read_csv(tmp_path / "odd.csv", ("image",))
    told = read_columns(tmp_path / "odd.csv", ("image",), wanted)
    assert len(told) == len(rows) == 5
    assert [[told.text(name, place) for name in wanted(())] for place in range(5)] == [
        [row[name] for name in wanted(())] for row in rows
    ]
    assert told.lines_N.tolist() == [row.line for row in rows] == [4, 6, 8, 11, 12]
    numbers = [number_of(row["y"]) for row in rows]
    np.testing.assert_array_equal(told.numbers("y"), [np.nan if number is None else number for number in numbers])
    assert {said: places.tolist() for said, places in told.places_of("image").items()} == {
        ("a.png",): [0, 3, 4],
        ("b;1.png",): [1],
        ("b.png",): [2],
    }
    assert list(told.places_of("image", "note")) == [
        *(("a.png", ""), ("b;1.png", "two\nlines"), ("b.png", ""), ("a.png", "x")),
    ]


def test_numbers_that_are_none_or_endless_are_not_known(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"x\n1\n-0.1\n1e999\n{'9' * 400}\nabc\n0.30000000000000004\n1_0\n")
    numbers_N = read_columns(tmp_path / "a.csv", ("x",), lambda _: ("x",)).numbers("x")
    np.testing.assert_array_equal(numbers_N, [1, -0.1, np.nan, np.nan, np.nan, 0.30000000000000004, np.nan])


def test_a_table_without_rows_has_none_and_one_of_too_many_cells_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n")
    none = read_columns(tmp_path / "a.csv", ("x",), lambda _: ("x",))
    assert (len(none), none.places_of("x"), none.numbers("x").tolist()) == (0, {}, [])
    (tmp_path / "a.csv").write_text("x,y\n1,2\n1,2,3\n")
    with pytest.raises(DataError, match="line 3 has 3 cells, its header 2"):
        read_columns(tmp_path / "a.csv", ("x",), lambda _: ("x",))


@pytest.mark.slow
def test_points_are_never_a_row_of_texts_each(tmp_path: Path) -> None:
    number = 20_000
    lines = (f"a.png,{place}.25,{place}.5\n" for place in range(number))
    (tmp_path / "points.csv").write_text("image,x,y\n" + "".join(lines))
    tracemalloc.start()
    points = read_points(tmp_path / "points.csv", ["a.png"])
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert points.centres["a.png"][-1] == (number - 0.75, number - 0.5)
    assert most < 450 * number  # the table as rows takes over 800 bytes of each
