"""Frames from a folder of one folder a lineage: LINEAGE/*.png (or .tif, .jpg, .bmp).

A `counts.csv` in it (image,count; the image as LINEAGE/NAME or NAME) gives counts; without one they are not known.
"""

from pathlib import Path

from cellnet.errors import DataError
from cellnet.images.file import SUFFIXES, ImageFile
from cellnet.readers import LabelledFile, Options, Source, number_of, read_csv

TAKES: frozenset[str] = frozenset()


def accepts(source: Path) -> bool:
    """Whether the source is a folder."""
    return source.is_dir()


def read(source: Path, options: Options) -> Source:
    """Every image file, its lineage the name of its folder. Raises DataError when there is none."""
    table = source / "counts.csv"
    rows = read_csv(table, ("image", "count"), numbers=("count",)) if table.is_file() else []
    counts = {row["image"]: row["count"] for row in rows}
    files = [
        _label(path, folder.name, counts)
        for folder in sorted(path for path in source.iterdir() if path.is_dir())
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in SUFFIXES
    ]
    if not files:
        raise DataError(f"{source} holds no LINEAGE/*.png; put each lineage's images in a folder of its name")
    return Source(files)


def _label(path: Path, lineage: str, counts: dict[str, str]) -> LabelledFile:
    said = counts.get(f"{lineage}/{path.name}", counts.get(path.name, ""))
    count = number_of(said)
    wrong = bool(said) and (count is None or count < 0)
    return LabelledFile(
        image=ImageFile.at(path),
        lineage=lineage,
        count=count,
        problem=f"the count {said!r} in counts.csv is not a number of cells" if wrong else None,
    )
