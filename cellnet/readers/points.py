"""Cells that were marked in another program, beside the images: they give an image its count and its centres.

For images of folders and of a manifest. A file of marks lies in the folder of its image, or beside the manifest, and is
called like the image, or says itself which image it is of:

    a.roi, a_RoiSet.zip             a multi-point selection, or ROIs, of ImageJ or Fiji
    CellCounter_a.xml               of Cell Counter
    a.csv, Results_a.csv, a.xls     a table of x and y: Results of ImageJ, points of napari, QuPath or CellProfiler
    Results.csv                     the same with a column that names the image: Label, Image, FileName

What has neither is told as unused. Where markers are of several types, `--population` names that of the cells, or says
`all`. A count that a table says must be that of the marks.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cellnet.errors import DataError
from cellnet.images.file import open_regular
from cellnet.readers import LabelledFile, Options, Source, Unused, is_folder, number_of
from cellnet.readers.columns import read_columns
from cellnet.readers.imagej import MAX_BYTES, ROOT, Mark, Marks, is_roi_set, read_cell_counter, read_rois
from cellnet.readers.matching import Names, is_hidden
from cellnet.store.objects import together
from cellnet.store.paths import AnyPath

TAKES: Final = frozenset({"population"})
ALL: Final = "all"
"""The population of every type."""
TABLES: Final = frozenset({".csv", ".tsv", ".txt", ".xls"})
SUFFIXES: Final = TABLES | {".xml", ".roi", ".zip"}
OWN: Final = frozenset({"manifest.csv", "counts.csv", "points.csv"})
"""Tables of cellnet's own, which their readers read."""
HEADER_BYTES: Final = 4096
"""Of a file, by which it is told whether it has marks."""

_AFFIX: Final = r"cell ?counter|roi ?set|rois?|results?|points?|markers?|counts?"
_AFFIXES: Final = re.compile(rf"^({_AFFIX})[ _-]+|[ _-]+({_AFFIX})$", re.IGNORECASE)
_X_Y: Final = (
    ("x", "y"),
    ("axis-2", "axis-1"),
    ("axis-1", "axis-0"),
    ("centroid x px", "centroid y px"),
    ("centroid x µm", "centroid y µm"),
    ("location_center_x", "location_center_y"),
)
"""Columns, in small letters: of ImageJ and most others, of napari with planes and without, QuPath, CellProfiler."""
_IMAGE: Final = ("image", "label", "image name", "filename", "file name", "file_name")
_PLACE: Final = re.compile(r":(?![\\/]).*")
"""What ImageJ writes behind an image's name: a plane, a ROI."""
_KIND: Final = ("counter", "class", "classification")
_PLANE: Final = ("slice", "position")


@dataclass(frozen=True)
class _Found:
    """What a file marks in one image."""

    path: AnyPath
    marks: Marks
    unit: str = "px"
    """Of x and y; `image` where ImageJ wrote them, which takes the image's own where it knows one."""


class _Images:
    """Images of a folder, or of a source, by the names that somebody may write for them."""

    def __init__(self, paths: Iterable[AnyPath], folder: AnyPath) -> None:
        self._paths = {_below(path, folder): path for path in paths}
        self._names = Names(self._paths)

    def find(self, written: str) -> list[AnyPath]:
        return [self._paths[image] for image in self._names.find(written).images]


def with_points(source: Source, of: AnyPath, options: Options) -> Source:
    """The images, with count and centres those in which cells are marked, and the marks of no image.

    Raises DataError for a population where no marks have types.
    """
    found: dict[AnyPath, list[_Found | DataError]] = defaultdict(list)
    unused: list[Unused] = []
    root = of if of.is_dir() else of.parent
    read: set[str] = set()
    candidates = list(_candidates(source.files, of, root))
    for (path, groups), parts in zip(candidates, together(_parts, [path for path, _ in candidates]), strict=True):
        bearing = _find(path.stem, groups) or _find(_AFFIXES.sub("", path.stem), groups)
        for part in parts:
            read.add(_below(path, root))
            named = _find(part.marks.image, groups) if isinstance(part, _Found) and part.marks.image else []
            chosen = named or (bearing if len(parts) == 1 else [])
            if len(chosen) == 1 and (len(parts) > 1 or bearing in ([], chosen)):
                _add(found[chosen[0]], part)
            else:
                unused.append(_unused(_below(path, root), part, sorted({image.name for image in (*named, *bearing)})))
    if options.population and not any(_has_types(part) for parts in found.values() for part in parts):
        raise DataError(f"{of} has no use for --population, since no cells are marked by type; leave it out")
    files = [_label(file, found.get(file.image.path, []), options.population) for file in source.files]
    counted = {name for path in found for name in (_below(path, root), path.name)}
    counted -= {file.image.name for file in source.files if file.image.path not in found}
    before = [each for each in source.unused if each.what not in (counted if each.reason == "no_label" else read)]
    return Source(files, before + unused)


def _below(path: AnyPath, root: AnyPath) -> str:
    """A path as the readers tell it."""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def _find(name: str, groups: Sequence[_Images]) -> list[AnyPath]:
    """The images of a name: of several groups those of the first that has any."""
    return next((paths for images in groups if (paths := images.find(name))), [])


def _add(found: list[_Found | DataError], part: _Found | DataError) -> None:
    """Add what a file marks to what is marked already: an image may have several names in one table."""
    last = found[-1] if found else None
    if not isinstance(part, _Found) or not isinstance(last, _Found) or last.path != part.path:
        found.append(part)
        return
    of_kind = defaultdict(list, last.marks.of_kind)
    for kind, marks in part.marks.of_kind.items():
        of_kind[kind] = [*of_kind[kind], *marks]
    found[-1] = replace(last, marks=replace(last.marks, of_kind=dict(of_kind)))


def _has_types(part: _Found | DataError) -> bool:
    return isinstance(part, _Found) and len(part.marks.of_kind) > 1


def _candidates(files: Sequence[LabelledFile], of: AnyPath, root: AnyPath) -> Iterator[tuple[AnyPath, list[_Images]]]:
    """Files that may have marks, each with the images that it may be of: those of its folder before all others."""
    images = {file.image.path for file in files}
    beside: dict[AnyPath, set[AnyPath]] = defaultdict(set)
    for path in images:
        beside[path.parent].add(path)
    every = _Images(images, root)
    for folder in sorted({root, *beside}):
        if not is_folder(folder):
            continue
        groups = [_Images(beside.get(folder, ()), folder), *([every] if folder == root else [])]
        for path in sorted(folder.iterdir()):
            wanted = path.suffix.lower() in SUFFIXES and path.name.lower() not in OWN
            if wanted and path != of and path not in images and not is_hidden(path.name) and path.is_file():
                yield path, groups


def _unused(where: str, part: _Found | DataError, names: list[str]) -> Unused:
    """Why what a file marks is of no image; the images of `names` are those that it may be of."""
    if isinstance(part, DataError):
        return Unused(where, "other_format", str(part))
    number = max(1, sum(map(len, part.marks.of_kind.values())))
    if names:
        return Unused(where, "ambiguous", f"it may be of {' or '.join(names)}; name it as its image", number)
    why = f"no image is called {part.marks.image}; name both alike" if part.marks.image else "it names no image"
    return Unused(where, "no_image", why, number)


def _parts(path: AnyPath) -> list[_Found | DataError]:
    """The marks of a file, or why they cannot be read."""
    try:
        return list(_read(path))
    except DataError as error:
        return [error]


def _read(path: AnyPath) -> Iterator[_Found]:
    """The marks of a file, of each image that it is of; none of a file that has none."""
    suffix = path.suffix.lower()
    if suffix == ".roi" or (suffix == ".zip" and is_roi_set(path)):
        yield _Found(path, read_rois(path))
    elif suffix == ".xml" and ROOT.encode() in _start(path):
        yield _Found(path, read_cell_counter(path))
    elif suffix in TABLES and _x_y(set(map(_column, header := _header(path)))):
        yield from _read_table(path, of_imagej={"X", "Y"} <= set(header))


def _start(path: AnyPath) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read(HEADER_BYTES)
    except OSError:
        return b""


def _header(path: AnyPath) -> list[str]:
    """The names of a table's columns, as they are written."""
    data = _start(path)
    text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", errors="replace")
    lines = [line for line in re.split(r"[\r\n]+", text) if line and not line.lower().startswith("sep=")]
    return [name.strip().strip('"').strip() for name in re.split(r"[,;\t]", lines[0])] if lines else []


def _x_y(columns: Collection[str]) -> tuple[str, str] | None:
    """The columns of x and y; none of napari's shapes, whose corners are no cells."""
    if "shape-type" in columns:
        return None
    return next((pair for pair in _X_Y if set(pair) <= set(columns)), None)


def _column(name: str) -> str:
    return name.lower().replace("\ufffd", "µ").replace("μ", "µ")


def _read_table(path: AnyPath, *, of_imagej: bool) -> Iterator[_Found]:
    """The points of a table, of each image that its column names; ImageJ writes X and Y large."""
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path} is over {MAX_BYTES // 10**6} MB; save a table an image")
    names: dict[str, str] = {}

    def wanted(columns: Sequence[str]) -> list[str]:
        names.update((_column(name), name) for name in columns if name)
        axes = [names[axis] for axis in _x_y(names) or ()]
        chosen = [*axes, _of_image(names), _first(names, _KIND), _first(names, _PLANE), names.get("imagenumber")]
        return list(dict.fromkeys(name for name in chosen if name))

    rows = read_columns(path, (), wanted)
    x_y, image = _x_y(names), _of_image(names)
    if x_y is None or not len(rows):
        return
    if image is None and "imagenumber" in names and len(rows.places_of(names["imagenumber"])) > 1:
        raise DataError(f"{path} has points of several images by number; export the names too (FileName)")
    kind, plane = _first(names, _KIND), _first(names, _PLANE)
    x_N, y_N = (rows.numbers(names[axis], _with_comma) for axis in x_y)
    if (wrong_N := np.flatnonzero(np.isnan(x_N + y_N))).size:
        x, y = (rows.text(names[axis], wrong_N[0]) for axis in x_y)
        raise DataError(f"{path} line {rows.lines_N[wrong_N[0]]}: x and y are {x!r} and {y!r}")
    planes_N = rows.numbers(plane) if plane else np.full(len(rows), np.nan)
    unit = "um" if "µm" in x_y[0] else "image" if of_imagej else "px"
    places: dict[str, dict[str, list[NDArray[np.int64]]]] = defaultdict(lambda: defaultdict(list))
    for said, held in rows.places_of(*(name for name in (image, kind) if name)).items():
        places[_PLACE.sub("", said[0]) if image else ""][said[-1] if kind else ""].append(held)
    for name, of_kind in places.items():
        marks = {}
        for kind_said, parts in of_kind.items():
            held = np.sort(np.concatenate(parts))
            planes = [int(number) if number == number and number else None for number in planes_N[held].tolist()]
            marks[kind_said] = list(map(Mark, x_N[held].tolist(), y_N[held].tolist(), planes))
        yield _Found(path, Marks(marks, name or None), unit)


def _of_image(names: Mapping[str, str]) -> str | None:
    """The column that names the image."""
    return _first(names, _IMAGE) or next((name for key, name in names.items() if key.startswith("filename_")), None)


def _with_comma(text: str) -> float | None:
    return number_of(text) or number_of(text.replace(",", "."))


def _first(names: Mapping[str, str], wanted: Sequence[str]) -> str | None:
    return next((names[column] for column in wanted if column in names), None)


def _label(file: LabelledFile, found: Sequence[_Found | DataError], population: str | None) -> LabelledFile:
    """The image with its cells, or with the reason why they are not taken."""
    if not found or file.problem:
        return file
    parts = [part for part in found if isinstance(part, _Found)]
    try:
        cells = [_cells(part, file, population) for part in parts]
    except DataError as error:
        return replace(file, problem=str(error))
    if broken := [str(part) for part in found if isinstance(part, DataError)]:
        return replace(file, problem=broken[0])
    counts = {part.path.name: len(marks) for part, marks in zip(parts, cells, strict=True)}
    first, *others = counts
    planes = sorted({mark.plane for mark in cells[0] if mark.plane is not None})
    problem = None
    if differing := [other for other in others if counts[other] != counts[first]]:
        problem = f"{first} marks {counts[first]} cells, but {differing[0]} {counts[differing[0]]}; leave one out"
    elif file.count is not None and file.count != counts[first]:
        problem = f"the count is {file.count:g}, but {first} marks {counts[first]} cells"
    elif len(planes) > 1:
        problem = f"{first} marks cells in planes {planes[0]} to {planes[-1]}; a count is of one plane: mark them there"
    centres = file.centres if file.centres is not None else tuple((mark.x, mark.y) for mark in cells[0])
    plane = planes[0] if planes else None
    return replace(file, count=float(counts[first]), centres=centres, plane=plane, problem=problem)


def _cells(part: _Found, file: LabelledFile, population: str | None) -> list[Mark]:
    """The marks that are cells, in pixels. Raises DataError for several types where none is chosen, and for units."""
    of_kind = part.marks.of_kind
    marked = {kind: len(marks) for kind, marks in of_kind.items() if marks}
    if population in (None, ALL) or len(of_kind) == 1:
        if len(marked) > 1 and population is None:
            seen = ", ".join(f"{kind}: {number}" for kind, number in marked.items())
            raise DataError(
                f"{part.path.name} marks cells of several types ({seen}); choose one: --population "
                f"'{next(iter(marked))}', or all"
            )
        marks = [mark for marks in of_kind.values() for mark in marks]
    elif population in of_kind:
        marks = of_kind[population]
    else:
        raise DataError(f"{part.path.name} has no type {population}; it has {', '.join(of_kind)}")
    return _in_pixels(part, marks, file)


def _in_pixels(part: _Found, marks: list[Mark], file: LabelledFile) -> list[Mark]:
    """ImageJ measures in the image's own unit, where the image says one: then x and y are brought to pixels."""
    if part.unit == "px" or not marks:
        return marks
    pixel_um = file.pixel_um or file.image.pixel_um
    if pixel_um is None and part.unit == "um":
        raise DataError(f"{part.path.name} is in µm, and the size of a pixel is not known; save it in pixels")
    whole = all(mark.x.is_integer() and mark.y.is_integer() for mark in marks)
    if pixel_um is None or (part.unit == "image" and whole and not pixel_um.is_integer()):
        return marks
    scaled = [Mark(mark.x / pixel_um, mark.y / pixel_um, mark.plane) for mark in marks]
    if len(scaled) > 1 and max(max(mark.x, mark.y) for mark in scaled) < 2:
        raise DataError(
            f"x and y of {part.path.name} are neither pixels nor µm; remove the image's scale and measure again"
        )
    return scaled
