"""Cells that were marked in ImageJ or Fiji: the files of Cell Counter, ROIs and sets of ROIs.

Cell Counter keeps an XML of markers, each of a type (https://imagej.net/plugins/cell-counter). A ROI (`.roi`) is a
multi-point selection, each point of which is a cell, or an area, which is one cell; the ROI manager saves several as a
ZIP archive. All of them are in pixels, whatever the image's scale.
"""

import io
import re
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from typing import Final, NamedTuple
from xml.etree import ElementTree

import roifile

from cellnet.errors import DataError
from cellnet.images.file import open_regular
from cellnet.store.paths import AnyPath

MAX_BYTES: Final = 64 * 10**6
"""Of a file of marks, and of all ROIs of a set."""
MAX_ROIS: Final = 100_000
MOST_TAGS: Final = 2_000_000
"""Of an XML: a marker has eight, and each takes a hundred bytes in memory."""
ROOT: Final = "CellCounter_Marker_File"
_BARE_AMPERSAND: Final = re.compile(r"&(?!#?\w{1,8};)")
"""Cell Counter writes the image's name as it is, which makes no XML of "A & B.tif"."""
_NO_CELLS: Final = frozenset({"LINE", "FREELINE", "POLYLINE", "NOROI", "ANGLE", "TEXT", "ARROW", "IMAGE"})
"""Types and subtypes of ROIs that have no area of their own."""


class Mark(NamedTuple):
    """A cell that was marked, in pixels."""

    x: float
    y: float
    plane: int | None = None
    """Of a stack, from 1; None where none is said."""


@dataclass(frozen=True)
class Marks:
    """The cells that a file marks in one image."""

    of_kind: dict[str, list[Mark]]
    """By their type; some types may have none."""
    image: str | None = None
    """The name of the image, where the file says one."""


def read_cell_counter(path: AnyPath) -> Marks:
    """The markers of an XML of Cell Counter. Raises DataError for another file."""
    text = read_bytes(path).decode("utf-8-sig", errors="replace")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise DataError(f"{path} has entities of its own, which Cell Counter never writes; save the markers again")
    if text.count("<") > MOST_TAGS:
        raise DataError(f"{path} has over {MOST_TAGS:,} tags, too many for cells that were marked in one image")
    try:
        root = ElementTree.fromstring(_BARE_AMPERSAND.sub("&amp;", text).encode())
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise DataError(f"{path} is not readable as XML ({error}); save the markers again") from error
    if root.tag != ROOT:
        raise DataError(f"{path} is no file of Cell Counter, but <{root.tag[:40]}>")
    of_kind: dict[str, list[Mark]] = defaultdict(list)
    for kind in root.iterfind("Marker_Data/Marker_Type"):
        name = (kind.findtext("Name") or "").strip() or f"Type {(kind.findtext('Type') or '?').strip()}"
        of_kind[name] += [_marker(path, marker) for marker in kind.iterfind("Marker")]
    image = (root.findtext("Image_Properties/Image_Filename") or "").strip()
    return Marks(dict(of_kind), image.removeprefix("Counter Window - ") or None)


def _marker(path: AnyPath, marker: ElementTree.Element) -> Mark:
    x, y, plane = (marker.findtext(f"Marker{axis}") or "" for axis in "XYZ")
    try:
        return Mark(float(x), float(y), int(plane) if plane.strip() else None)
    except ValueError as error:
        raise DataError(f"{path}: a marker at {x!r}, {y!r}, {plane!r}; save the markers again") from error


def read_rois(path: AnyPath) -> Marks:
    """The cells of a ROI, or of a set of them. Raises DataError for another file, or a ROI that can be no cell."""
    data = read_bytes(path)
    rois = _unpacked(path, data) if path.suffix.lower() == ".zip" else {path.name: data}
    of_kind: dict[str, list[Mark]] = defaultdict(list)
    for name, roi in rois.items():
        for kind, mark in _marks(f"{path}: {name}" if name != path.name else str(path), roi):
            of_kind[kind].append(mark)
    return Marks(dict(of_kind) or {"": []})


def is_roi_set(path: AnyPath) -> bool:
    """Whether a ZIP archive holds ROIs and nothing else."""
    try:
        if path.stat().st_size > MAX_BYTES:
            return False
        with open_regular(path) as file:
            data = file.read(MAX_BYTES)
        if _has_too_many(data):
            return False
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _all_rois(archive)
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


def _has_too_many(data: bytes) -> bool:
    """Whether an archive lists more files than a set has ROIs: zipfile keeps half a kilobyte of each."""
    return data.count(_LISTED) > MAX_ROIS


_LISTED: Final = b"PK\1\2"
"""Begins what an archive says of a file at its end."""


def _all_rois(archive: zipfile.ZipFile) -> bool:
    names = [name for name in archive.namelist() if not name.startswith("__MACOSX/")]
    return bool(names) and all(name.lower().endswith(".roi") for name in names)


def read_bytes(path: AnyPath) -> bytes:
    """All of a file. Raises DataError for one that is too large to be marks, which is then not read."""
    try:
        with open_regular(path) as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise DataError(f"{path} is over {MAX_BYTES // 10**6} MB, too large for cells that were marked in one image")
    return data


def _unpacked(path: AnyPath, data: bytes) -> dict[str, bytes]:
    """The ROIs of an archive by their names. No more is unpacked than the archive says, and that is bounded."""
    too_much = f"{path} holds over {MAX_ROIS} ROIs or {MAX_BYTES // 10**6} MB; save one image's alone"
    try:
        if _has_too_many(data):
            raise DataError(too_much)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.filename.startswith("__MACOSX/")]
            if not _all_rois(archive):
                raise DataError(f"{path} is an archive of other things than ROIs")
            if sum(entry.file_size for entry in entries) > MAX_BYTES:
                raise DataError(too_much)
            return {f"{place}/{entry.filename}": _entry(archive, entry) for place, entry in enumerate(entries, start=1)}
    except DataError:
        raise
    except Exception as error:  # zipfile and zlib raise many kinds on damaged ones
        raise DataError(f"{path} is a damaged archive; save the ROIs again") from error


def _entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    with archive.open(entry) as file:
        return file.read(entry.file_size)


def _marks(where: str, data: bytes) -> list[tuple[str, Mark]]:
    """The cells of a ROI, each with its type: the counter of a multi-point selection."""
    try:
        roi = roifile.ImagejRoi.frombytes(data)
        if roi.roitype.name == "POINT":
            return _points(roi)
        left, top, right, bottom = (float(side) for side in (roi.left, roi.top, roi.right, roi.bottom))
        if roi.subpixelrect:
            left, top, right, bottom = roi.xd, roi.yd, roi.xd + roi.widthd, roi.yd + roi.heightd
        seen = {roi.roitype.name, roi.subtype.name} & _NO_CELLS
    except Exception as error:  # roifile raises many kinds on broken ones
        raise DataError(f"{where} is no ROI of ImageJ, or a damaged one; save it again") from error
    if seen:
        raise DataError(f"{where} is a ROI of the kind {seen.pop().lower()}, which is no cell; delete it from the ROIs")
    return [(_counter(0), Mark((left + right) / 2, (top + bottom) / 2, _plane(roi)))]


def _points(roi: roifile.ImagejRoi) -> list[tuple[str, Mark]]:
    points_N2 = roi.coordinates()
    none = [0] * len(points_N2)
    counters = none if roi.counters is None else roi.counters
    planes = none if roi.counter_positions is None else roi.counter_positions
    return [
        (_counter(counter), Mark(float(x), float(y), int(plane) or _plane(roi)))
        for (x, y), counter, plane in zip(points_N2, counters, planes, strict=True)
    ]


def _counter(number: int) -> str:
    return f"counter {number}"


def _plane(roi: roifile.ImagejRoi) -> int | None:
    return roi.position or roi.z_position or roi.t_position or None
