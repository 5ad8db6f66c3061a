"""Predictions as rows of a table: what a CSV and a Parquet file hold of them."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from cellnet.prediction.answers import ModelRefs, Prediction

COLUMNS: Final = (
    *("image", "lineage", "probability", "count", "count_low", "count_high", "interval_level"),
    *("unfamiliar", "lineage_unfamiliar", "count_unfamiliar", "unfamiliar_reason", "quality", "focus", "tiles"),
    *("magnification", "classifier", "regressor", "error"),
)


def row_of(prediction: Prediction) -> dict[str, Any]:
    """A prediction under the names of `COLUMNS`, and its `probabilities`; of `quality` the flags, blanks between."""
    row = prediction.model_dump() | prediction.models.model_dump()
    row["probability"] = (prediction.probabilities or {}).get(prediction.lineage or "")
    row["quality"] = None if prediction.quality is None else " ".join(prediction.quality)
    return {name: row[name] for name in (*COLUMNS, "probabilities")}


def prediction_of(row: Mapping[str, Any]) -> Prediction:
    """The prediction that gave a row."""
    fields = {name: row[name] for name in Prediction.model_fields if name in row}
    probabilities = row["probabilities"]
    fields["probabilities"] = None if probabilities is None else dict(probabilities)  # Parquet gives pairs
    fields["quality"] = None if row["quality"] is None else row["quality"].split()
    return Prediction(**fields, models=ModelRefs(classifier=row["classifier"], regressor=row["regressor"]))


def csv_lines(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = COLUMNS) -> Iterator[str]:
    """A CSV, its header first."""
    yield csv_line(columns)
    for row in rows:
        yield csv_line(row[name] for name in columns)


def csv_line(cells: Iterable[Any]) -> str:
    """A line of a CSV that spreadsheets keep as it is: texts in quotes, with an apostrophe before what would be run.

    A spreadsheet that cuts at semicolons does so within the quotes of all cells but the first, so the apostrophe is set
    there too. Numbers have six digits, more than is sure of them.

    >>> print(csv_line(["a;=1+1.png", "3T3", 0.123456789, None, True, 12.0]), end="")
    "a;'=1+1.png","3T3",0.123457,,True,12.0
    """
    return ",".join(map(_cell, cells)) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, str):
        safe = _FORMULA.sub("'", value).replace('"', '""')
        return f'"{safe}"'
    if isinstance(value, float):
        return str(float(f"{value:.6g}"))
    return "" if value is None else str(value)


# What a spreadsheet would run, at the start of a text or after what it may cut at; in Japanese ones also in full width.
_FORMULA: Final = re.compile(r"(?:^|(?<=[;\t\r\n]))(?=[=+\-@\t\r\uff1d\uff0b\uff0d\uff20])")
