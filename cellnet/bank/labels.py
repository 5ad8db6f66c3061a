"""Labels: what people say of frames once a bank has them, and the table in which it keeps them.

A label says of one frame what its lineage is, how many cells it holds and where, or that it cannot be used; by whom,
when, why, and which answer was before the person's eyes. Nothing that is said replaces what was said before: which of
it counts, `cellnet.bank.history` tells.
"""

import io
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Self, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import AfterValidator, AwareDatetime, Field, ValidationError, model_validator

from cellnet.bank.frames import MOST_CELLS, Frame
from cellnet.config.loading import Frozen
from cellnet.errors import DataError
from cellnet.images.tiles import lies_inside
from cellnet.store.parquet import read_parquet
from cellnet.tasks import Answer

FORMAT: Final = 1
"""Of the tables that are written."""
NONE_OF_THESE: Final = "none of these"
"""What stands for the lineage of a frame whose cells are of none that is known."""
Unusable = Literal["focus", "debris", "empty", "other"]
"""Why a frame cannot be used."""
Drawn = Literal["chosen", "random"]
"""How a frame came to be labelled: it was chosen for what it would teach, or drawn at random."""
USABLE: Final = "usable"
"""Takes back that a frame cannot be used."""
MOST_TEXT: Final = 1000
"""Characters of a name or a reason."""
MOST_POINTS: Final = 200_000
"""Of a frame."""
SCHEMA: Final = pa.schema(
    [
        ("entry", pa.int32()),
        ("frame", pa.string()),
        ("at", pa.timestamp("us", "UTC")),
        ("by", pa.string()),
        ("why", pa.string()),
        ("lineage", pa.string()),
        ("count", pa.float64()),
        ("points", pa.list_(pa.list_(pa.float64()))),
        ("unusable", pa.string()),
        ("accepted", pa.bool_()),
        ("seen_versions", pa.list_(pa.string())),
        ("seen_lineage", pa.string()),
        ("seen_count", pa.float64()),
        ("undoes", pa.int32()),
        ("drawn", pa.string()),
    ]
)
"""Of the tables. The name `regions` is kept free for later ones: polygons whose cells are counted, or left out."""


def _printable(text: str) -> str:
    if text and not text.isprintable():
        raise ValueError("it holds characters that cannot be printed")
    return text


Text = Annotated[str, Field(max_length=MOST_TEXT), AfterValidator(_printable)]
Name = Annotated[str, Field(min_length=1, max_length=MOST_TEXT), AfterValidator(_printable)]
Cells = Annotated[float, Field(ge=0, le=MOST_CELLS, allow_inf_nan=False)]
Pixel = Annotated[float, Field(allow_inf_nan=False)]


SAME_SHARE: Final = 0.1
SAME_CELLS: Final = 1.0
"""A count within a tenth of another, or within one cell, says the same."""


class Seen(Frozen):
    """The answer that a person had before the eyes."""

    versions: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}@[1-9][0-9]{0,8}$")], ...] = Field(
        min_length=1, max_length=4
    )
    """Whose answer it was, like `classifier@3`."""
    lineage: Name | None = None
    count: Cells | None = None

    def __str__(self) -> str:
        """In words.

        >>> str(Seen(versions=("classifier@3", "regressor@1"), lineage="A549", count=12.25))
        'A549, 12.2 cells of classifier@3, regressor@1'
        """
        said = [*([self.lineage] if self.lineage else []), *([] if self.count is None else [f"{self.count:.1f} cells"])]
        return f"{', '.join(said) or 'an answer'} of {', '.join(self.versions)}"


class Label(Frozen):
    """What somebody says of a frame; None of what is not said."""

    frame: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """sha256 of its pixels, as the bank knows it."""
    lineage: Name | None = None
    """A name, or `NONE_OF_THESE`."""
    count: Cells | None = None
    """That of the points, where these are given."""
    points: tuple[tuple[Pixel, Pixel], ...] | None = Field(default=None, max_length=MOST_POINTS)
    """(x, y) of every cell, in pixels of the frame as it was recorded."""
    unusable: Unusable | Literal["usable"] | None = None
    """Why it cannot be used, or `USABLE` where it can after all."""
    accepted: bool = False
    """Whether the answer that was seen is right: what else is not said is taken from it, cells as a whole number."""
    seen: Seen | None = None
    by: Text = ""
    """Who says it; empty: whoever writes it into the bank."""
    why: Text = ""
    at: AwareDatetime | None = None
    """When it was said; None: when it is written into the bank."""
    entry: int = 0
    """Where it stands in the bank's log; 0 as long as it does not."""
    drawn: Drawn | None = None
    """How the frame came to be labelled; None where nobody suggested it."""
    undoes: int | None = None
    """The entry whose label of this frame it takes back; it then says nothing else."""

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = dict(values)
        if values.get("accepted") and values.get("seen") is not None:
            seen = Seen.model_validate(values["seen"])
            if values.get("lineage") is None:
                values["lineage"] = seen.lineage
            if values.get("count") is None and values.get("points") is None and seen.count is not None:
                values["count"] = float(round(seen.count))
        points = values.get("points")
        if points is not None and values.get("count") is None and isinstance(points, (list, tuple)):
            values["count"] = float(len(points))
        return values

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if self.accepted and self.seen is None:
            raise ValueError("an answer is accepted, and it is not said which was seen")
        if self.undoes is None and not self.says:
            raise ValueError("it says nothing: neither lineage nor count, points or unusable")
        if self.points is not None and self.count != len(self.points):
            raise ValueError(f"the count is {self.count:g}, but there are {len(self.points)} points")
        if self.points is not None and len(set(self.points)) < len(self.points):
            raise ValueError("two of its points are at the very same place")
        return self

    @property
    def says(self) -> dict[str, Any]:
        """What it says of the frame, by field, without what it does not say."""
        fields = {name: getattr(self, name) for name in ("lineage", "count", "points", "unusable")}
        return {name: value for name, value in fields.items() if value is not None}

    @property
    def otherwise(self) -> dict[Answer, bool]:
        """Of the lineage and the count that were seen: whether it says otherwise. What it says nothing of is not there.

        A count within a tenth of what was seen, or within one cell, is the same.
        """
        judged: dict[Answer, bool] = {}
        if self.seen is None:
            return judged
        if self.lineage is not None and self.seen.lineage is not None:
            judged["lineage"] = self.lineage != self.seen.lineage
        if self.count is not None and self.seen.count is not None:
            judged["count"] = abs(self.count - self.seen.count) > max(SAME_CELLS, SAME_SHARE * self.seen.count)
        return judged


def label_of(**values: Any) -> Label:
    """A checked label. Raises DataError, in one line, for what no label can say."""
    try:
        return Label.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        what = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or part in Label.model_fields)
        said = str(first["ctx"]["error"]) if first["type"] == "value_error" else str(first["msg"])
        seen = f" (seen: {first['input']!r:.80})" if first["loc"] else ""
        raise DataError(f"{f'{what}: ' if what else ''}{said}{seen}") from error


def check_points(label: Label, frame: Frame) -> None:
    """Raise DataError where a point of a label is no pixel of its frame."""
    if not all(lies_inside(x, y, width=frame.width, height=frame.height) for x, y in label.points or ()):
        raise DataError(
            f"points of {frame.source} lie outside its {frame.width}×{frame.height} pixels; give x and y in pixels "
            "from the upper left corner"
        )


class Labels(Sequence[Label]):
    """Labels in the order in which they came, as columns; one is made when it is asked for."""

    def __init__(self, table: pa.Table) -> None:
        """Of a table that has the columns of `SCHEMA`."""
        self.table = table

    @classmethod
    def of(cls, labels: Iterable[Label]) -> Self:
        """Labels as columns. Each has its entry and its moment."""
        return cls(pa.Table.from_pylist([_row(label) for label in labels], schema=SCHEMA))

    @classmethod
    def joined(cls, pieces: Iterable["Labels"]) -> Self:
        """All of them, one after the other."""
        tables = [piece.table for piece in pieces if len(piece)]
        return cls(pa.concat_tables(tables) if tables else SCHEMA.empty_table())

    def of_frame(self, frame: str) -> "Labels":
        """Those of one frame."""
        return Labels(self.table.filter(pc.equal(self.table.column("frame"), frame)))

    def of_entry(self, entry: int) -> "Labels":
        """Those of one entry of the log."""
        return Labels(self.table.filter(pc.equal(self.table.column("entry"), entry)))

    def seen_of(self, ref: str) -> "Labels":
        """Those before which an answer of a version, like `classifier@3`, was looked at."""
        seen = self.table.column("seen_versions").to_pylist()
        return Labels(self.table.filter(pa.array([ref in (versions or ()) for versions in seen], pa.bool_())))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        [row] = self.table.slice(range(len(self))[place], 1).to_pylist()
        return _label(row)


def labels_to_parquet(labels: Labels) -> bytes:
    """Labels as the bytes of a file."""
    buffer = io.BytesIO()
    table = labels.table.combine_chunks().replace_schema_metadata({"format": str(FORMAT)})
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def labels_from_parquet(data: bytes, key: str) -> tuple[Labels, tuple[str, ...]]:
    """What `labels_to_parquet` made, now or long ago, and the columns of a later cellnet in which something stands.

    Raises DataError, also for a table of a higher format.
    """
    try:
        table = read_parquet(data)
        number = int((table.schema.metadata or {}).get(b"format", 1))
        if number <= FORMAT:
            known = pa.Table.from_arrays([_column(table, field) for field in SCHEMA], schema=SCHEMA)
            later = [name for name in table.column_names if name not in SCHEMA.names]
            return Labels(known), tuple(name for name in later if table[name].null_count < len(table))
    except (pa.ArrowException, OSError, TypeError, ValueError, KeyError) as error:
        raise DataError(f"the bank's {key} is damaged; restore it from a copy") from error
    raise DataError(
        f"the bank's {key} was written by a later cellnet (format {number}, this one reads {FORMAT}); update cellnet"
    )


def _column(table: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    """A column in its type, all null where the table lacks it. Raises ValueError for values that no label has."""
    if field.name not in table.column_names:
        if field.name in ("entry", "frame", "at"):
            raise KeyError(field.name)
        return pa.chunked_array([pa.nulls(len(table), field.type)])
    column = table.column(field.name).cast(field.type)
    values = pc.list_flatten(pc.list_flatten(column)) if field.name == "points" else column
    good = [
        field.name not in ("entry", "frame", "at") or not column.null_count,
        field.name != "unusable" or set(pc.unique(column).to_pylist()) <= {None, USABLE, *get_args(Unusable)},
        field.name != "drawn" or set(pc.unique(column).to_pylist()) <= {None, *get_args(Drawn)},
        not pa.types.is_floating(values.type) or pc.all(pc.is_finite(values)).as_py() is not False,
        not field.name.endswith("count") or pc.all(pc.less_equal(values, MOST_CELLS)).as_py() is not False,
        not field.name.endswith("count") or pc.all(pc.greater_equal(values, 0)).as_py() is not False,
        field.name != "points" or set(pc.unique(pc.list_value_length(pc.list_flatten(column))).to_pylist()) <= {2},
    ]
    if not all(good):
        raise ValueError(field.name)
    return column


def _row(label: Label) -> dict[str, Any]:
    seen = label.seen
    row = {name: getattr(label, name) for name in SCHEMA.names if not name.startswith("seen_")}
    return row | {
        "at": label.at or datetime.now(UTC),
        "points": None if label.points is None else [list(point) for point in label.points],
        "accepted": label.accepted or None,
        "seen_versions": list(seen.versions) if seen else None,
        "seen_lineage": seen.lineage if seen else None,
        "seen_count": seen.count if seen else None,
    }


def _label(row: dict[str, Any]) -> Label:
    """A row as a label. What stands in a table was checked when it was written."""
    versions = row.pop("seen_versions")
    seen = {"versions": tuple(versions or ()), "lineage": row.pop("seen_lineage"), "count": row.pop("seen_count")}
    points = row.pop("points")
    return Label.model_construct(
        **row | {"accepted": bool(row["accepted"]), "by": row["by"] or "", "why": row["why"] or ""},
        points=None if points is None else tuple((x, y) for x, y in points),
        seen=Seen.model_construct(**seen) if versions else None,
    )
