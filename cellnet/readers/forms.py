"""Forms of labels that nobody reads here, known by how a file begins: VIA, labelme, YOLO, Pascal VOC and others."""

import re
from typing import Final

from cellnet.images.file import open_regular
from cellnet.store.paths import AnyPath

FIRST_BYTES: Final = 8192
"""Of a file, that its form is told by."""

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
SUFFIXES: Final = frozenset({".npy", *(suffix for form in _FORMS for suffix in form[0].split())})
"""Of files that may be such labels."""


def name_of_labels(path: AnyPath) -> str | None:
    """What the labels of a file are that is not read here, and what to do; None of others.

    It looks at the name and at the first `FIRST_BYTES`.
    """
    suffix = path.suffix.lower()
    if path.name.lower().endswith("_seg.npy"):
        return "Cellpose's own arrays, which are not read here; save the masks as PNG or TIFF"
    wanted = [form for form in _FORMS if suffix in form[0].split()]
    text = first_bytes(path).decode("utf-8-sig", errors="replace") if wanted else ""
    for _, parts, name, way in wanted:
        if all(re.search(part, text) for part in parts):
            return f"annotations of {name}, which are not read here; {way}"
    return None


def first_bytes(path: AnyPath) -> bytes:
    """How a file begins; nothing of one that cannot be read."""
    try:
        with open_regular(path) as file:
            return file.read(FIRST_BYTES)
    except (OSError, ValueError):
        return b""
