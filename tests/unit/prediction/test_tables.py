"""A CSV of predictions as programs and spreadsheets read it."""

import csv
import io

import pytest

from cellnet.prediction.answers import ModelRefs, Prediction
from cellnet.prediction.tables import COLUMNS, csv_lines, row_of

NASTY = 'a;=1+1;\t+b\n@c,"-d";e.png'


def test_programs_read_what_was_said() -> None:
    prediction = Prediction(
        image='a, "b".png', lineage="3T3", probabilities={"A549": 1 / 3, "3T3": 2 / 3}, count=-0.5, unfamiliar=False,
        tiles=1234567, magnification="matched", models=ModelRefs(regressor="regressor@1"),
    )  # fmt: skip
    [row] = csv.DictReader(io.StringIO("".join(csv_lines([row_of(prediction)]))))
    assert {name: cell for name, cell in row.items() if cell} == {
        "image": 'a, "b".png', "lineage": "3T3", "probability": "0.666667", "count": "-0.5", "unfamiliar": "False",
        "tiles": "1234567", "magnification": "matched", "regressor": "regressor@1",
    }  # fmt: skip


def test_texts_are_quoted_and_numbers_and_empty_cells_are_not() -> None:
    header, line = csv_lines([{"image": "a.png", "error": None, "count": 12.0}], ["image", "error", "count"])
    assert (header, line) == ('"image","error","count"\n', '"a.png",,12.0\n')


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("name", [NASTY, "=1+1.png", "\t=1.png", "\uff1d1;\uff0b1;\uff0d1;\uff201"])
def test_no_cell_is_a_formula_wherever_a_spreadsheet_cuts(name: str, separator: str) -> None:
    rows = [row_of(Prediction(image=name, error=name)), row_of(Prediction(image=name, lineage=name, error=name))]
    cells = [cell for row in csv.reader(io.StringIO("".join(csv_lines(rows))), delimiter=separator) for cell in row]
    assert len(cells) >= 3 and any("1" in cell for cell in cells)
    assert [cell for cell in cells if cell.startswith(tuple("=+-@\uff1d\uff0b\uff0d\uff20\t\r"))] == []


def test_a_text_that_no_spreadsheet_would_run_is_left_alone() -> None:
    names = ["a-b=c+d.png", "a; b.png", "x@y.png"]
    rows = csv.DictReader(io.StringIO("".join(csv_lines(row_of(Prediction(image=name)) for name in names))))
    assert [row["image"] for row in rows] == names and rows.fieldnames == list(COLUMNS)
