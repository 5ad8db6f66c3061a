"""Sources that nobody reads here, named as what they are, with the way out: a reader like the others, that reads none.

They are labels of VIA, labelme, YOLO and others (`forms`), alone or in a folder with their images, files of
microscopes, and marks of ImageJ, which are read beside their images.
"""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

from cellnet.errors import DataError
from cellnet.images.file import SUFFIXES
from cellnet.images.formats import NO_IMAGE, name_of_format
from cellnet.readers import Options, Source, forms
from cellnet.readers.forms import first_bytes, name_of_labels
from cellnet.readers.imagej import ROOT
from cellnet.readers.layout import IMAGES, SPLITS
from cellnet.readers.tables import find_table
from cellnet.store.paths import AnyPath

TAKES: Final[frozenset[str]] = frozenset()
MOST_FILES: Final = 200
"""Of a folder, that are looked at."""

_LABEL_FOLDERS: Final = frozenset({"labels", "annotations", "ann", "xml", "json"})
ROBOFLOW: Final = "_annotations.coco.json"
"""The annotations of a folder as Roboflow exports it: COCO, which is read."""
_BINARY: Final = (b"PK\3\4", b"\xd0\xcf\x11\xe0", b"\x1f\x8b")
"""First bytes of tables that were given the suffix of text."""


def accepts(source: AnyPath) -> bool:
    """Whether the source is a file of such labels, or a folder of images and of such labels."""
    try:
        return _found(source) is not None
    except OSError:  # what may not be looked into is left to the others
        return False


def read(source: AnyPath, options: Options) -> Source:
    """Nothing: raises DataError, which says what the labels are."""
    path, named = _found(source) or (source, "labels that are not read here")
    where = source if path == source else f"{source} ({path.relative_to(source)})"
    raise DataError(f"{where}: {named}")


def _found(source: AnyPath) -> tuple[AnyPath, str] | None:
    """The first file of such labels, and what it is."""
    if source.is_file() or source.suffix.lower() in (".zarr", ".n5"):
        named = name_of_labels(source) or _named_file(source)
        return (source, named) if named else None
    if not source.is_dir() or find_table(source, "manifest.csv") or (source / ROBOFLOW).is_file():
        return None
    if _has_lineages(source):
        return None
    for path in islice(_labels_of(source), MOST_FILES):
        named = name_of_labels(path) or _name_of_coco(path)
        if named:
            return path, named
    return None


def _has_lineages(folder: AnyPath) -> bool:
    """Whether images lie in folders that are called like neither images, labels nor splits."""
    names = IMAGES | _LABEL_FOLDERS | SPLITS
    inner = (path for path in folder.iterdir() if path.is_dir() and path.name.lower() not in names)
    return any(path.suffix.lower() in SUFFIXES for each in inner for path in each.iterdir())


def _name_of_coco(path: AnyPath) -> str | None:
    """What is said of a file of COCO where its folder was given."""
    text = first_bytes(path).decode(errors="replace") if path.suffix.lower() == ".json" else ""
    if re.search(r"\"(images|annotations)\"\s*:\s*[\[{]", text) and re.search(r"\"(file_name|image_id|info)\"", text):
        return "annotations of COCO; give this file itself"
    return None


def _named_file(source: AnyPath) -> str | None:
    """What a file is that is neither an image nor a table."""
    start = first_bytes(source)
    if source.suffix.lower() == ".xml" and ROOT.encode() in start:
        return "markers of Cell Counter; give the folder of the images beside which it lies"
    if source.suffix.lower() in (".csv", ".json", ".xml") and not start.startswith(_BINARY):
        return None
    named = name_of_format(start, source.name)
    return None if named is None or named.startswith(NO_IMAGE) else named


def _labels_of(folder: AnyPath) -> Iterator[AnyPath]:
    """Files beside images, and those of folders of labels; lineages' own folders are none."""
    paths = sorted(folder.iterdir())
    files = [path for path in paths if path.suffix.lower() in forms.SUFFIXES and path.is_file()]
    folders = [path for path in paths if path.is_dir()]
    has_images = any(path.suffix.lower() in SUFFIXES for path in paths)
    yield from (path for path in files if has_images or path.suffix.lower() in (".yaml", ".yml"))
    for inner in folders:
        if inner.name.lower() in _LABEL_FOLDERS:
            yield from sorted(path for path in inner.iterdir() if path.suffix.lower() in forms.SUFFIXES)
        elif inner.name.lower() in SPLITS:
            yield from _labels_of(inner)
