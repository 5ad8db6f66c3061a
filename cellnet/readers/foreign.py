"""Labels in forms that nobody reads here, named as what they are, with the way out.

A reader like the others, that reads nothing: it knows VIA, labelme, YOLO, Pascal VOC, CVAT, Label Studio, Supervisely,
CreateML, QuPath's GeoJSON, TrackMate and Cellpose's own arrays by how they begin.
"""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from cellnet.errors import DataError
from cellnet.images.file import SUFFIXES
from cellnet.images.formats import name_of_format
from cellnet.readers import Options, Source
from cellnet.readers.imagej import ROOT
from cellnet.readers.layout import IMAGES, SPLITS

TAKES: Final[frozenset[str]] = frozenset()
FIRST_BYTES: Final = 8192
"""Of a file, that its form is told by."""
MOST_FILES: Final = 200
"""Of a folder, that are looked at."""

_AS_COCO: Final = "export them as COCO"
_FORMS: Final = (
    (
        ".json .csv",
        (r"_via_settings|_via_img_metadata|region_shape_attributes|\"region_attributes\"",),
        "VIA",
        _AS_COCO,
    ),
    (".json", (r"\"shapes\"", r"\"(imagePath|shape_type)\""), "labelme", "turn them into COCO (labelme2coco)"),
    (".json", (r"\"objects\"", r"\"(classTitle|geometryType)\""), "Supervisely", _AS_COCO),
    (".json", (r"\A\s*\[", r"\"annotations\"", r"\"coordinates\""), "CreateML", _AS_COCO),
    (".json", (r"\A\s*\[", r"\"(annotations|result)\"", r"\"(from_name|data)\""), "Label Studio", _AS_COCO),
    (".json .geojson", (r"\"Feature(Collection)?\"",), "QuPath (GeoJSON)", "export a table of centroids in px, as CSV"),
    (".xml", (r"<annotation\b", r"<(folder|filename|object)>"), "Pascal VOC", "turn them into COCO"),
    (".xml", (r"<annotations>", r"<(version|meta|image)\b"), "CVAT", _AS_COCO),
    (".xml", (r"<TrackMate\b",), "TrackMate", "export its spots as CSV, an image each"),
    (".txt", (r"\A\s*\d+([ \t]+-?[\d.]+){4}", r"\A[-\d.\se]+\Z"), "YOLO", "turn them into COCO"),
    (".yaml .yml", (r"(?m)^(train|val)\s*:", r"(?m)^(names|nc)\s*:"), "YOLO", "turn them into COCO"),
)
"""Suffixes, what is to be found among the first bytes, whose form it is, and the way out."""
_SUFFIXES: Final = frozenset({".npy", *(suffix for form in _FORMS for suffix in form[0].split())})
_LABEL_FOLDERS: Final = frozenset({"labels", "annotations", "ann", "xml", "json"})
_READ: Final = ("manifest.csv", "_annotations.coco.json")
"""Files by which a folder is that of another reader."""
_BINARY: Final = (b"PK\3\4", b"\xd0\xcf\x11\xe0", b"\x1f\x8b")
"""First bytes of tables that were given the suffix of text."""


def accepts(source: Path) -> bool:
    """Whether the source is a file of such labels, or a folder of images and of such labels."""
    try:
        return _found(source) is not None
    except OSError:  # what may not be looked into is left to the others
        return False


def read(source: Path, options: Options) -> Source:
    """Nothing: raises DataError, which says what the labels are."""
    path, named = _found(source) or (source, "labels that are not read here")
    where = source if path == source else f"{source} ({path.relative_to(source)})"
    raise DataError(f"{where}: {named}")


def name_of_labels(path: Path) -> str | None:
    """What the labels of a file are that is not read here, and what to do; None of others.

    It looks at the name and at the first `FIRST_BYTES`.
    """
    suffix = path.suffix.lower()
    if path.name.lower().endswith("_seg.npy"):
        return "Cellpose's own arrays, which are not read here; save the masks as PNG or TIFF"
    wanted = [form for form in _FORMS if suffix in form[0].split()]
    text = _start(path).decode("utf-8-sig", errors="replace") if wanted else ""
    for _, parts, name, way in wanted:
        if all(re.search(part, text) for part in parts):
            return f"annotations of {name}, which are not read here; {way}"
    return None


def _found(source: Path) -> tuple[Path, str] | None:
    """The first file of such labels, and what it is."""
    if source.is_file() or source.suffix.lower() in (".zarr", ".n5"):
        named = name_of_labels(source) or _named_file(source)
        return (source, named) if named else None
    if not source.is_dir() or any((source / name).is_file() for name in _READ) or _has_lineages(source):
        return None
    for path in islice(_labels_of(source), MOST_FILES):
        named = name_of_labels(path) or _name_of_coco(path)
        if named:
            return path, named
    return None


def _has_lineages(folder: Path) -> bool:
    """Whether images lie in folders that are called like neither images, labels nor splits."""
    names = IMAGES | _LABEL_FOLDERS | SPLITS
    inner = (path for path in folder.iterdir() if path.is_dir() and path.name.lower() not in names)
    return any(path.suffix.lower() in SUFFIXES for each in inner for path in each.iterdir())


def _name_of_coco(path: Path) -> str | None:
    """What is said of a file of COCO where its folder was given."""
    text = _start(path).decode(errors="replace") if path.suffix.lower() == ".json" else ""
    if re.search(r"\"(images|annotations)\"\s*:\s*[\[{]", text) and re.search(r"\"(file_name|image_id|info)\"", text):
        return "annotations of COCO; give this file itself"
    return None


def _named_file(source: Path) -> str | None:
    """What a file is that is neither an image nor a table."""
    start = _start(source)
    if source.suffix.lower() == ".xml" and ROOT.encode() in start:
        return "markers of Cell Counter; give the folder of the images beside which it lies"
    if source.suffix.lower() in (".csv", ".json", ".xml") and not start.startswith(_BINARY):
        return None
    named = name_of_format(start, source.name)
    return None if named is None or named.startswith("text") else named


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(FIRST_BYTES)
    except (OSError, ValueError):
        return b""


def _labels_of(folder: Path) -> Iterator[Path]:
    """Files beside images, and those of folders of labels; lineages' own folders are none."""
    paths = sorted(folder.iterdir())
    files = [path for path in paths if path.suffix.lower() in _SUFFIXES and path.is_file()]
    folders = [path for path in paths if path.is_dir()]
    has_images = any(path.suffix.lower() in SUFFIXES for path in paths)
    yield from (path for path in files if has_images or path.suffix.lower() in (".yaml", ".yml"))
    for inner in folders:
        if inner.name.lower() in _LABEL_FOLDERS:
            yield from sorted(path for path in inner.iterdir() if path.suffix.lower() in _SUFFIXES)
        elif inner.name.lower() in SPLITS:
            yield from _labels_of(inner)
