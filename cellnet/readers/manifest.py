"""Frames from a CSV with the columns image, lineage, count, group and, optionally, batch, time_h and pixel_um.

Paths are relative to the manifest; an empty cell means "not known". A `points.csv` beside it (image,x,y) gives
the centre of every cell, and then the count is the number of its points. Tables of Excel with `;` or tabs are read too.
"""

from collections import defaultdict
from pathlib import Path

from cellnet.errors import DataError
from cellnet.images.file import ImageFile
from cellnet.readers import LabelledFile, Options, Source, is_file, number_of, read_csv

TAKES: frozenset[str] = frozenset()
COLUMNS = ("image", "lineage", "count", "group")


def accepts(source: Path) -> bool:
    """Whether the source is a CSV file, or a folder with a manifest.csv."""
    return source.suffix.lower() == ".csv" or (source / "manifest.csv").is_file()


def read(source: Path, options: Options) -> Source:
    """An image a row. Raises DataError for a missing column, no rows, or a file that is not CSV."""
    manifest = source / "manifest.csv" if source.is_dir() else source
    rows = read_csv(manifest, COLUMNS, numbers=("count", "time_h", "pixel_um"))
    if not rows:
        raise DataError(f"{manifest} has a header and no rows; add one row an image")
    centres = _centres(manifest.parent / "points.csv")
    return Source([_label(manifest, line, row, centres) for line, row in enumerate(rows, start=2)])


def _centres(path: Path) -> dict[str, list[tuple[float, float]]] | None:
    """The points of every image, or None where there is no points.csv."""
    if not path.is_file():
        return None
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for line, row in enumerate(read_csv(path, ("image", "x", "y"), numbers=("x", "y")), start=2):
        x, y = number_of(row["x"]), number_of(row["y"])
        if x is None or y is None:
            raise DataError(f"{path} line {line}: x and y are pixels, not {row['x']!r} and {row['y']!r}")
        points[row["image"]].append((x, y))
    return points


def _label(
    manifest: Path, line: int, row: dict[str, str], centres: dict[str, list[tuple[float, float]]] | None
) -> LabelledFile:
    path = manifest.parent / row["image"]
    count = number_of(row["count"])
    points = None
    if centres is not None and (row["image"] in centres or count == 0):
        points = tuple(centres.get(row["image"], ()))
        count = float(len(points)) if count is None else count
    time_h, pixel_um = (number_of(row.get(name, "")) for name in ("time_h", "pixel_um"))
    problem = None
    if not row["image"]:
        problem = "the manifest names no image in this row"
    elif not is_file(path):
        problem = "the file is missing"
    elif row["count"] and (number_of(row["count"]) is None or count is None or count < 0):
        problem = f"the count {row['count']!r} is not a number of cells"
    elif row.get("pixel_um") and (pixel_um is None or pixel_um <= 0):
        problem = f"the pixel size {row['pixel_um']!r} is not a number of micrometres"
    elif row.get("time_h") and (time_h is None or time_h < 0):
        problem = f"{manifest} line {line}: the time {row['time_h']!r} is not a number of hours since seeding"
    elif points is not None and count != len(points):
        problem = f"the count is {count:g}, but points.csv has {len(points)} points"
    return LabelledFile(
        image=ImageFile.at(path),
        lineage=row["lineage"] or None,
        count=count,
        centres=points,
        group=row["group"] or None,
        batch=row.get("batch") or None,
        time_h=time_h,
        pixel_um=pixel_um,
        problem=problem,
    )
