"""Frames from a folder of one folder a lineage: LINEAGE/*.png (or .tif, .jpg, .bmp).

A `counts.csv` in it (image,count; the image as LINEAGE/NAME, or NAME where one lineage alone has it) gives counts, a
`points.csv` (image,x,y) the centre of every cell; without them they are not known. Folders like train, test and images
are read through: train/LINEAGE/*.png.
"""

from cellnet.errors import DataError
from cellnet.images.file import ImageFile
from cellnet.readers import LabelledFile, Options, Source, Unused, number_of, read_csv
from cellnet.readers.labels import Given, Points, give_rows, one_row, read_points
from cellnet.readers.layout import Layout, Place, lineage_of, look, nested, splits_of, useless_tables
from cellnet.readers.tables import Row, find_table, not_a_count
from cellnet.store.paths import AnyPath

TAKES: frozenset[str] = frozenset()


def accepts(source: AnyPath) -> bool:
    """Whether the source is a folder."""
    return source.is_dir()


def read(source: AnyPath, options: Options) -> Source:
    """Every image file, its lineage the name of its folder. Raises DataError when there is none."""
    found = look(source)
    images = [image for image in found.images if len(image.lineages) == 1]
    if not images:
        raise DataError(_why_none(source, found))
    unused = [*found.unused, *splits_of(found.images)]
    unused += [nested(image) if image.lineages else _loose(image) for image in found.images if len(image.lineages) != 1]
    names = [image.path for image in images]
    counts_table, points_table = find_table(source, "counts.csv"), find_table(source, "points.csv")
    read_here = {table.name for table in (counts_table, points_table) if table}
    unused += useless_tables([name for name in found.tables if name not in read_here], "counts stand in counts.csv")
    counts, points = None, None
    if counts_table:
        rows = read_csv(counts_table, ("image", "count"), numbers=("count",))
        counts = give_rows(rows, names, counts_table)
        unused += counts.unused
    if points_table:
        points = read_points(points_table, names)
        unused += points.unused
    files = [_label(source, image, counts, counts_table, points, unused) for image in images]
    return Source(files, unused)


def _label(
    source: AnyPath,
    image: Place,
    counts: Given[Row] | None,
    table: AnyPath | None,
    points: Points | None,
    unused: list[Unused],
) -> LabelledFile:
    """An image with what the tables say of it; what they do not say, and say twice, is added to `unused`."""
    said, problem = "", None
    if counts and table:
        problem = counts.doubts.get(image.path)
        if rows := counts.rows.get(image.path):
            row, contradiction, same = one_row(rows, table)
            said, problem = row["count"], problem or contradiction
            unused += same
    count = number_of(said)
    if points:
        problem = problem or points.doubts.get(image.path)
    centres = points.of(image.path, count) if points else None
    if said and (count is None or count < 0):
        problem = problem or f"{not_a_count(said)}, in counts.csv"
    elif centres is not None and not said:
        count = float(len(centres))
    elif centres is not None and count != len(centres):
        problem = problem or f"the count is {count:g}, but points.csv has {len(centres)} points"
    if (counts or points) and count is None and not problem:
        unused.append(
            Unused(image.path, "no_label", "no table says how many cells it holds, so its count is not known")
        )
    return LabelledFile(
        image=ImageFile.at(source / image.path),
        lineage=lineage_of(image),
        count=count,
        centres=centres,
        problem=problem,
    )


def _loose(image: Place) -> Unused:
    return Unused(image.path, "no_label", "it lies in no folder of a lineage")


def _why_none(source: AnyPath, found: Layout) -> str:
    """Why no image of a folder has a lineage, and what to do."""
    wanted = "put each lineage's images in a folder of its name, LINEAGE/*.png"
    splits = splits_of(found.images)
    if splits:
        return f"{source}: {splits[0].what} are folders of a split, no lineages; {wanted}, like train/A549/f1.png"
    if any(image.lineages for image in found.images):
        return f"{source}: {found.images[0].path} lies too deep; {wanted}, or write a manifest.csv"
    if any(item.reason == "no_instances" for item in found.unused):
        return f"{source} holds masks of classes and none of instances; number the cells, or {wanted}"
    if found.images:
        first, n = found.images[0].path, len(found.images)
        return (
            f"{source} holds {n} images in no folder of a lineage, {first} the first; {wanted}, or write a "
            "manifest.csv with the columns image,lineage,count,group"
        )
    return f"{source} holds no LINEAGE/*.png; put each lineage's images in a folder of its name"
