"""Frames from a CSV with the columns image, lineage, count, group and, optionally, batch, time_h and pixel_um.

Paths are relative to the manifest; an empty cell means "not known", and so do NA, n/a, nan and -. A `points.csv` beside
it (image,x,y) gives the centre of every cell, and then the count is the number of its points. Images are found also
where letter case, slash, folder or suffix are written otherwise, if one alone can be meant (`matching`).
"""

import os
from collections.abc import Iterator, Sequence

from cellnet.errors import DataError
from cellnet.images.file import ImageFile
from cellnet.readers import LabelledFile, Options, Source, Unused, is_file, number_of, read_csv
from cellnet.readers.labels import Points, one_row, read_points
from cellnet.readers.matching import Names, images_below, images_in
from cellnet.readers.tables import Row, find_table, not_a_count
from cellnet.store.paths import AnyPath

TAKES: frozenset[str] = frozenset()
COLUMNS = ("image", "lineage", "count", "group")


def accepts(source: AnyPath) -> bool:
    """Whether the source is a CSV file, or a folder with a manifest.csv."""
    return source.suffix.lower() in (".csv", ".tsv") or find_table(source, "manifest.csv") is not None


def read(source: AnyPath, options: Options) -> Source:
    """An image a row. Raises DataError for a missing column, no rows, or a file that is not CSV."""
    manifest = find_table(source, "manifest.csv") or source
    rows = read_csv(manifest, COLUMNS, numbers=("count", "time_h", "pixel_um"))
    if not rows:
        raise DataError(f"{manifest} has a header and no rows; add one row an image")
    images = _find_images(manifest, rows)
    table = find_table(manifest.parent, "points.csv")
    points = None if table is None else read_points(table, images)
    unused: list[Unused] = []
    files = []
    for image, (held, missing) in images.items():
        row, contradiction, same = one_row(held, manifest)
        unused += same
        problem = missing or contradiction or (points.doubts.get(image) if points else None)
        files.append(_label(manifest, row, image, points, problem))
    unused += _unnamed(manifest, images)
    if points is not None:
        unused += [*points.unused, *_without_points(files)]
    return Source(files, unused)


def _find_images(manifest: AnyPath, rows: Sequence[Row]) -> dict[str, tuple[list[Row], str | None]]:
    """The rows of every image, by its path relative to the manifest, and why one is not there."""
    folder = manifest.parent
    here = {name: _relative(name) for name in {row["image"] for row in rows} if name and is_file(folder / name)}
    elsewhere = {row["image"] for row in rows} - here.keys() - {""}
    matches = {}
    if elsewhere:
        names = Names({**dict.fromkeys(here.values()), **dict.fromkeys(images_below(folder))})
        matches = names.find_all([*here.values(), *elsewhere])
    images: dict[str, tuple[list[Row], str | None]] = {}
    for row in rows:
        name, missing = row["image"], None
        image = here.get(name)
        if image is None and name:
            match = matches[name]
            image = match.one
            missing = None if image else match.why_not(name) if match.images else "the file is missing"
        elif not name:
            image, missing = f"line {row.line}", "the manifest names no image in this row"
        images.setdefault(image or name, ([], missing))[0].append(row)
    return images


def _relative(name: str) -> str:
    """A path that is there, written one way."""
    return os.path.normpath(name).replace(os.sep, "/")


def _unnamed(manifest: AnyPath, images: dict[str, tuple[list[Row], str | None]]) -> Iterator[Unused]:
    """Images that lie beside those of the manifest, and of which it says nothing."""
    for folder in sorted({os.path.dirname(image) for image, (_, missing) in images.items() if not missing}):
        for name in images_in(manifest.parent / folder):
            path = f"{folder}/{name}" if folder else name
            if path not in images:
                yield Unused(path, "no_label", f"no row of {manifest.name} names it")


def _without_points(files: Sequence[LabelledFile]) -> Iterator[Unused]:
    for file in files:
        if file.count is None and not file.problem:
            why = "no count and no points; write the count 0 where there is no cell"
            yield Unused(file.image.name, "no_label", why)


def _label(manifest: AnyPath, row: Row, image: str, points: Points | None, problem: str | None) -> LabelledFile:
    count = number_of(row["count"])
    centres = points.of(image, count) if points else None
    if centres is not None and not row["count"]:
        count = float(len(centres))
    time_h, pixel_um = (number_of(row.get(name, "")) for name in ("time_h", "pixel_um"))
    if problem:
        pass
    elif row["count"] and (count is None or count < 0):
        problem = not_a_count(row["count"])
    elif row.get("pixel_um") and (pixel_um is None or pixel_um <= 0):
        problem = f"the pixel size {row['pixel_um']!r} is not a number of micrometres"
    elif row.get("time_h") and (time_h is None or time_h < 0):
        problem = f"{manifest} line {row.line}: the time {row['time_h']!r} is not a number of hours since seeding"
    elif centres is not None and count != len(centres):
        problem = f"the count is {count:g}, but points.csv has {len(centres)} points"
    return LabelledFile(
        image=ImageFile.at(manifest.parent / (image if row["image"] else "")),
        lineage=row["lineage"] or None,
        count=count,
        centres=centres,
        group=row["group"] or None,
        batch=row.get("batch") or None,
        time_h=time_h,
        pixel_um=pixel_um,
        problem=problem,
    )
