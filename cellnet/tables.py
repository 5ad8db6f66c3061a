"""Predictions as rows of a table: what a CSV and a Parquet file hold of them."""

from collections.abc import Mapping
from typing import Any, Final

from cellnet.answers import ModelRefs, Prediction

COLUMNS: Final = (
    *("image", "lineage", "probability", "count", "count_low", "count_high", "interval_level"),
    *("unfamiliar", "unfamiliar_reason", "tiles", "magnification", "classifier", "regressor", "error"),
)
FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r")
"""What a text begins with that a spreadsheet would run."""


def row_of(prediction: Prediction) -> dict[str, Any]:
    """A prediction under the names of `COLUMNS`, and its `probabilities`."""
    row = prediction.model_dump() | prediction.models.model_dump()
    row["probability"] = (prediction.probabilities or {}).get(prediction.lineage or "")
    return {name: row[name] for name in (*COLUMNS, "probabilities")}


def prediction_of(row: Mapping[str, Any]) -> Prediction:
    """The prediction that gave a row."""
    fields = {name: row[name] for name in Prediction.model_fields if name in row}
    probabilities = row["probabilities"]
    fields["probabilities"] = None if probabilities is None else dict(probabilities)  # Parquet gives pairs
    return Prediction(**fields, models=ModelRefs(classifier=row["classifier"], regressor=row["regressor"]))


def for_spreadsheet(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row as cells of a CSV: texts that a spreadsheet would run get an apostrophe before them.

    >>> for_spreadsheet({"image": "=1+1.png", "count": -0.5})
    {'image': "'=1+1.png", 'count': -0.5}
    """
    return {
        name: f"'{value}" if isinstance(value, str) and value.startswith(FORMULAS) else value
        for name, value in row.items()
    }
