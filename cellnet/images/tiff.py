"""TIFF files: their planes and axes as tifffile tells them, and the values of one plane.

What comes may be hostile. So directories, tags and XML are counted in the raw bytes before tifffile reads a directory,
it never gets a path (OME-XML may name other files, which it would open), and how large a strip or tile becomes is known
before that is decoded. Directories that an instrument's own software made (LSM, STK) are read as far as tifffile does.

tifffile decodes all of them, by imagecodecs, though OpenCV decodes many too: OpenCV leaves 16-bit MinIsWhite as it is,
mixes the channels of planar files, and reads neither ZSTD, LERC nor 64 bits. tests/benchmarks/decoding.py has both
beside each other.
"""

import logging
import math
import re
import struct
from dataclasses import dataclass, replace
from typing import IO, Any, Final, cast

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from cellnet.images.calibration import PixelUm, length_um, of_imagej, of_metaseries, pixel_of
from cellnet.images.channels import is_transmitted
from cellnet.images.ome import OmeImage, most_planes, read_ome
from cellnet.images.pixels import MAX_PIXELS

STARTS: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""Of classic TIFF and of BigTIFF."""
MOST_PAGES: Final = 5000
"""In a file; to count more would take seconds."""
MOST_DIRECTORIES: Final = 4 * MOST_PAGES
"""Reduced copies among them."""
MOST_ENTRIES: Final = 4096
"""Of a directory, as tifffile has it; instruments write some hundred at most."""
MOST_ENTRIES_IN_ALL: Final = 400_000
MOST_HELD: Final = 2**28
"""Bytes that all entries hold, though a sparse file is larger."""
MOST_HELD_BY_ONE: Final = 2**26
"""And that one of numbers holds, which become Python's and five times as large."""
MOST_KINDS: Final = 300
"""Of pages that differ in size or form; each is compared with each."""
MOST_PLANES: Final = 50_000
"""Of a file, those of one channel or more in a page, or of one directory that tells of many, counted one by one."""
MOST_CHANNELS: Final = 1000
"""By their names and places."""
MOST_PARTS: Final = 100_000
"""Strips or tiles that a plane is decoded from: of 32 pixels a side in the largest images."""
MOST_PART_BYTES: Final = 10**9
"""Of a strip or tile as it is stored; sparse files are of any size."""
LARGE_TILE_PX: Final = 2**24
"""Of tiles that are larger than their image."""
PLAIN_ENTRIES: Final = 100
PLAIN_PARTS: Final = 2000
PLAIN_PLANES: Final = 10_000
PLAIN_COMPRESSIONS: Final = {0, 1, 5, 8, 32773, 32946, 50000}
"""Entries, strips, planes that OME-XML tells of, and compressions of files that are read within milliseconds."""
MOST_SCANS: Final = 100
"""Of a progressive JPEG; encoders make about ten."""
STRIP_ROWS: Final = 256
"""Rows converted at a time, since colours or 64 bits of a whole image would take much memory."""
MOST_TEXT: Final = 16 * 2**20
"""Bytes of a description; OME-XML takes about 200 a plane."""
MOST_BYTES_A_PIXEL: Final = 8
"""Of the largest images: RGB of 16 bits, or one value of 64."""
COMPRESSIONS: Final = {
    1: "", 5: "LZW", 7: "JPEG", 8: "Deflate", 32773: "PackBits", 32946: "Deflate", 33003: "JPEG 2000",
    33005: "JPEG 2000", 34712: "JPEG 2000", 34887: "LERC", 34925: "LZMA", 50000: "ZSTD",
}  # fmt: skip
"""Those that are read."""
MAKERS: Final = (
    "mmstack", "ndtiff", "sis", "svs", "scn", "qpi", "ndpi", "bif", "avs", "eer", "philips", "scanimage", "indica",
    "mdgel",
)  # fmt: skip
"""Ways to say what pages are that tifffile knows of slides, cameras and gels. Some look for other files, or change
values; such files are read page by page."""
_SLOTS: Final = {"T": "time", "C": "channel", "Z": "z", "I": "z", "Q": "z"}
"""What an axis of planes is; I and Q are pages of which nobody says what they are, any other is a series of images."""


class TiffError(Exception):
    """Why a file, or a plane of it, is not read, in words."""


@dataclass(frozen=True, kw_only=True)
class Plane:
    """An image of a file, and where in the file it is."""

    size_px: tuple[int, int]
    """Width and height."""
    series: int = 0
    """Of several images in a file, like fields, which."""
    time: int = 0
    channel: int = 0
    z: int = 0
    directory: int = 0
    part: int = 0
    """Of a directory that holds several planes, one behind the other, which."""
    sample: int | None = None
    """Which of a pixel's values is meant; None where they are one, or a colour."""


@dataclass(frozen=True, kw_only=True)
class Structure:
    """What a TIFF holds."""

    planes: tuple[Plane, ...]
    """In the order of the file, without reduced copies and masks."""
    channels: tuple[str, ...] = ("",)
    """Their names, empty where the file gives none."""
    transmitted: tuple[int, ...] = ()
    """Which channels are of transmitted light, as far as the file tells."""
    is_stack: bool = False
    """Whether the file says of its planes that they are of different depth."""
    pixels_um: tuple[PixelUm | None, ...] = (None,)
    """Of every series."""


@np.errstate(all="ignore")
def read_structure(file: IO[bytes], bytes_n: int, name: str) -> Structure:
    """The planes of a file. Raises TiffError for what is damaged, hostile, or not read here."""
    check_raw(file, bytes_n)
    try:
        return _structure(file, name)
    except TiffError:
        raise
    except Exception as error:  # tifffile raises many kinds on broken files
        raise TiffError("a damaged TIFF; export it again") from error


def read_plane(file: IO[bytes], bytes_n: int, plane: Plane, *, most: int = MAX_PIXELS) -> NDArray[Any]:
    """Grey values (H, W) of a plane as recorded, in the type of the file; of colour the luminance.

    Nothing but this plane is decoded. Raises TiffError for what is damaged, or would take too much memory.
    """
    page, values = _values(file, bytes_n, plane, most)
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None and values.ndim == 2:
        return _of_palette(values, np.asarray(page.colormap))
    if values.ndim == 3:
        is_luma_first = page.photometric == tifffile.PHOTOMETRIC.YCBCR and COMPRESSIONS[page.compression] != "JPEG"
        return values[..., 0] if is_luma_first else _luminance(values)
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        values = _inverted(values, page.bitspersample)
    return values.astype(np.uint8) * np.uint8(255) if values.dtype == bool else values


def read_values(file: IO[bytes], bytes_n: int, plane: Plane) -> NDArray[Any]:
    """The values of a plane as they are stored, (H, W) or (H, W, samples): of a mask. Raises as `read_plane`."""
    return _values(file, bytes_n, plane, MAX_PIXELS)[1]


def is_plain(data: bytes) -> bool:
    """Whether a file has one directory and few strips, of a form that is read fast: as far as its first bytes tell."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        if data[2:4] in (b"+\0", b"\0+"):
            return False  # BigTIFF, which is for large files
        [first] = struct.unpack_from(order + "I", data, 4)
        [entries_n] = struct.unpack_from(order + "H", data, first)
        if entries_n > PLAIN_ENTRIES:
            return False
        end = first + 2 + 12 * entries_n
        entries = {entry[0]: entry[1:] for entry in struct.Struct(order + "HHI4s").iter_unpack(data[first + 2 : end])}
        [after] = struct.unpack_from(order + "I", data, end)
    except struct.error:
        return True  # which is said at once
    *form, value = entries.get(259, (3, 1, bytes(4)))
    [compression] = struct.unpack_from(order + "H", value)
    kind, length, value = entries.get(270, (2, 0, bytes(4)))
    [place] = struct.unpack(order + "I", value)
    description = data[place : place + _SIZES.get(kind, 1) * length]
    parts_n = max(entries.get(tag, (4, 0, b""))[1] for tag in (273, 279, 324, 325))
    described_n = max(entries.get(tag, (4, 0, b""))[1] for tag in entries) if entries else 0
    return (
        not after
        and len(entries) == entries_n  # of an entry that comes twice, others may take the other
        and form == [3, 1]  # one value of 16 bits, which lies where it was read
        and not entries.keys() & (_DIRECTORIES | _LISTS)
        and compression in PLAIN_COMPRESSIONS
        and max(parts_n, described_n // 64) <= PLAIN_PARTS
        and most_planes(description) <= PLAIN_PLANES
    )


def check_raw(file: IO[bytes], bytes_n: int) -> None:
    """Raise TiffError for directories that go round in a circle, or that cost more time and memory than an image may.

    Nothing is trusted: directories, their entries and the bytes that these hold are counted as they are read.
    """
    file.seek(0)
    start = file.read(16)
    order = "<" if start[:2] == b"II" else ">"
    big = start[2:4] in (b"+\0", b"\0+")
    count_form, entry_form, offset_form = ("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")
    try:
        [first] = struct.unpack_from(order + offset_form, start, 8 if big else 4)
    except struct.error as error:
        raise TiffError("a damaged TIFF; export it again") from error
    count_n, offset_n, entry = (
        struct.calcsize(count_form),
        struct.calcsize(offset_form),
        struct.Struct(order + entry_form),
    )
    most_bytes = 2 * min(bytes_n, MOST_HELD) + 2**20
    left = {"directories": MOST_DIRECTORIES, "entries": MOST_ENTRIES_IN_ALL, "bytes": most_bytes}
    kinds: set[bytes] = set()

    def take(what: str, number: int) -> None:
        left[what] -= number
        if left[what] < 0:
            raise TiffError(f"a TIFF with more {what} than an image needs; export it again")

    def at(offset: int, size: int) -> bytes:
        if offset + size <= bytes_n:
            file.seek(offset)
            data = file.read(size)
            if len(data) == size:
                return data
        raise TiffError("a damaged TIFF, it ends too early; export it again")

    seen: set[int] = set()
    pages_n = 0
    waiting = [(first, True)]
    while waiting:
        offset, is_page = waiting.pop()
        if not offset:
            continue
        if offset in seen:
            raise TiffError("a TIFF whose directories go round in a circle; export it again")
        seen.add(offset)
        take("directories", is_page)
        pages_n += is_page
        if pages_n > MOST_PAGES:
            raise TiffError(f"holds over {MOST_PAGES} pages; save it in parts")
        [entries_n] = struct.unpack(order + count_form, at(offset, count_n))
        if entries_n > MOST_ENTRIES:
            raise TiffError(f"a TIFF with {entries_n:,} entries in a directory; export it again")
        take("entries", entries_n)
        data = at(offset + count_n, entries_n * entry.size + offset_n)
        form_of_page = b""
        for tag, kind, number, value in entry.iter_unpack(data[:-offset_n]):
            size = _SIZES.get(kind, 1) * number
            if tag in _LISTS:
                take("entries", number)
            if size <= offset_n:
                place = value
            else:
                take("bytes", size if kind in (1, 2, 7) else max(size, 8 * number))  # numbers become Python's
                [place_at] = struct.unpack(order + offset_form, value)
                if size > MOST_HELD_BY_ONE and kind not in (1, 2, 7):
                    raise TiffError(f"a TIFF with {size / 1e6:.0f} MB of numbers in an entry; export it again")
                if tag == 270 and size > MOST_TEXT:
                    raise TiffError(f"a TIFF whose description is {size / 2**20:.0f} MB; export it again")
                place = at(place_at, size) if tag in _DIRECTORIES or tag in _FORM else b""
            if tag in _FORM:
                form_of_page += struct.pack("<H", tag) + place
            if tag in _DIRECTORIES and kind in (4, 13, 16, 18):
                take("directories", number)
                form = order + ("Q" if kind in (16, 18) else "I")
                waiting += [(below, False) for (below,) in struct.iter_unpack(form, place[:size])]
        kinds.add(form_of_page)
        if len(kinds) > MOST_KINDS:
            raise TiffError(f"holds pages of over {MOST_KINDS} sizes and forms; save it in parts")
        waiting.append((struct.unpack(order + offset_form, data[-offset_n:])[0] if is_page else 0, True))


_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value, by the numbers that TIFF 6.0 and BigTIFF give to types."""
_DIRECTORIES: Final = {330, 34665, 34853, 40965}
"""Entries that lead to further directories: SubIFDs, Exif, GPS, Interoperability."""
_FORM: Final = {256, 257, 258, 259, 262, 266, 277, 278, 284, 317, 322, 323, 338, 339, 32997, 32998}
"""Entries that tell kinds of pages apart."""
_LISTS: Final = {33628}
"""Entries that are lists of further entries: of STK files, its UIC1."""


def _opened(file: IO[bytes], name: str, **options: Any) -> tifffile.TiffFile:
    """The file as tifffile sees it: a stream without a place, so that it can open no other."""
    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)  # what is wrong is said by TiffError
    file.seek(0)
    options |= {f"is_{maker}": False for maker in MAKERS}
    return tifffile.TiffFile(cast(IO[bytes], _Stream(file)), name=name, **options)


class _Stream:
    """A file of which nobody can tell where it lies."""

    def __init__(self, file: IO[bytes]) -> None:
        self.seek, self.tell, self.read = file.seek, file.tell, file.read
        self.readinto = getattr(file, "readinto", None)
        self.closed = False

    def close(self) -> None:
        """Nothing: it is closed by whom it was opened."""


def _structure(file: IO[bytes], name: str) -> Structure:
    with _opened(file, name, is_ome=False) as tif:
        if not len(tif.pages) or not tif.pages.first.shape:
            raise TiffError("a damaged TIFF, without an image; export it again")
        described = _described(tif)
        if described is None and _is_of_all_pages(tif):
            return _of_series(tif, [])
    images, text = described or ([], "")
    if described is not None:
        try:
            with _opened(file, name, omexml=text) as tif:
                return _of_series(tif, images)
        except (ValueError, IndexError, KeyError, RuntimeError, TypeError):
            pass  # its planes are not where the description says
        with _opened(file, name, is_ome=False) as tif:
            if _is_of_all_pages(tif):
                return _of_series(tif, images)
    with _opened(file, name, is_ome=False, is_imagej=False) as tif:
        return _of_series(tif, images)


def _described(tif: tifffile.TiffFile) -> tuple[list[OmeImage], str] | None:
    """What OME-XML says, if the file has one that is right."""
    if not tif.pages.first.is_ome:
        return None
    try:
        return read_ome(tif.pages.first.description, len(tif.pages))
    except ValueError:
        return None


def _is_of_all_pages(tif: tifffile.TiffFile) -> bool:
    """Whether ImageJ's words, if there are any, are of all pages of the file."""
    return not tif.is_imagej or len(tif.pages) == 1 or math.prod(_leading(tif.series[0])[0]) == len(tif.pages)


def _of_series(tif: tifffile.TiffFile, images: list[OmeImage]) -> Structure:
    shown = [series for series in tif.series if not _is_reduced(series.keyframe)]
    series = [series for series in shown or tif.series if not series.keyframe.is_subifd]
    if shown and not series:
        raise TiffError("a TIFF whose image lies below a thumbnail; open it where it was made and save it anew")
    faults = [_fault(one.keyframe) for one in series]
    if all(faults):
        raise TiffError(str(faults[0]))
    series = _without_smaller_copies([one for one, fault in zip(series, faults, strict=True) if not fault])
    is_ome = bool(images) and series[0].kind == "ome"
    of_file = None if is_ome else _pixel_um(tif, images)
    channels: list[str] = []
    transmitted: set[int] = set()
    planes: list[Plane] = []
    pixels_um: list[PixelUm | None] = []
    for one in series:
        image = images[int(one.name)] if is_ome else None
        found = _planes(one)
        channels_n = max((plane.channel for plane in found), default=0) + 1
        names = list(image.channels if image else _labels(tif, found))[:channels_n]
        places = _merged(channels, [*names, *[""] * (channels_n - len(names))])
        if len(channels) > MOST_CHANNELS:
            raise TiffError(f"has over {MOST_CHANNELS} channels; save it in parts")
        transmitted |= {places[k] for k in (image.transmitted if image else ()) if k < channels_n}
        if len(planes) + len(found) > MOST_PLANES:
            raise TiffError(f"holds over {MOST_PLANES} planes; save it in parts")
        before_n, series_n = len(pixels_um), max((plane.series for plane in found), default=0) + 1
        pixels_um += [image.pixel_um if image else of_file] * series_n
        if before_n or places != [*range(channels_n)]:
            found = [replace(plane, series=before_n + plane.series, channel=places[plane.channel]) for plane in found]
        planes += found
    planes.sort(key=lambda plane: (plane.directory, plane.part, plane.sample or 0))
    if not planes:
        raise TiffError("a TIFF whose images are in other files; export each as a file of its own")
    return Structure(
        planes=tuple(planes),
        channels=tuple(channels),
        transmitted=tuple(sorted(transmitted | {k for k, name in enumerate(channels) if is_transmitted(name)})),
        is_stack=all(math.prod(shape) == 1 or set(axes).isdisjoint("IQ") for shape, axes in map(_leading, series)),
        pixels_um=tuple(pixels_um),
    )


def _size_px(page: tifffile.TiffPage) -> tuple[int, int]:
    return page.imagewidth, page.imagelength


def _is_reduced(page: tifffile.TiffPage) -> bool:
    """Whether a page says of itself that it is a smaller copy of another, or a mask of transparency."""
    return bool(page.subfiletype & 0b101) or page.photometric == tifffile.PHOTOMETRIC.MASK


def _without_smaller_copies(series: list[tifffile.TiffPageSeries]) -> list[tifffile.TiffPageSeries]:
    """Images without those that are at most half as wide as others before them, and of the same shape, as thumbnails
    are.
    """
    sizes: dict[tuple[int, int], None] = {}
    kept = []
    for one in series:
        width, height = _size_px(one.keyframe)
        if not any(
            2 * width <= width_of + 1 and abs(width * height_of - height * width_of) <= 2 * max(width_of, height_of)
            for width_of, height_of in sizes
        ):
            kept.append(one)
        sizes[width, height] = None
    return kept


def _fault(page: tifffile.TiffPage) -> str | None:
    """Why the pixels of a page are not read, if they are not."""
    photometric, kind = page.photometric, page.dtype
    sides = [page.imagewidth, page.imagelength, page.samplesperpixel, page.imagedepth]
    sides += [page.tilewidth, page.tilelength] if page.is_tiled else [page.rowsperstrip]
    codes = (page.compression, photometric, page.planarconfig)
    if not all(isinstance(side, int) and side > 0 for side in sides) or not all(isinstance(it, int) for it in codes):
        return "a damaged TIFF, of no size or form; export it again"
    if page.samplesperpixel > MOST_CHANNELS:
        return f"has over {MOST_CHANNELS} channels; save it in parts"
    if page.compression not in COMPRESSIONS:
        name = getattr(page.compression, "name", str(page.compression))
        return f"a TIFF compressed by {name}, which is not read here; save it uncompressed, or by LZW, Deflate or ZSTD"
    if kind is None or kind.kind not in "buif":
        what = "complex numbers" if page.sampleformat in (5, 6) else f"{_bits(page)} bits a value"
        return f"a TIFF of {what}, which is not read here; save it with 8, 16 or 32 bits"
    if isinstance(page.bitspersample, tuple) and photometric not in _COLOURS:
        return f"a TIFF of {_bits(page)} bits a value, which is not read here; save it with 8, 16 or 32 bits"
    if page.imagedepth > 1:
        return "a TIFF with a volume in one directory, which is not read here; save its planes one by one"
    if photometric not in _PHOTOMETRICS:
        return (
            f"a TIFF with colours as {getattr(photometric, 'name', photometric)}, which is not read here; "
            "save it as grey or RGB"
        )
    return None


def _bits(page: tifffile.TiffPage) -> str:
    """Bits a value, of each sample where they differ."""
    bits = page.bitspersample
    return ", ".join(str(one) for one in bits[:4]) if isinstance(bits, tuple) else str(bits)


_PHOTOMETRICS: Final = {
    tifffile.PHOTOMETRIC.MINISWHITE, tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB,
    tifffile.PHOTOMETRIC.PALETTE, tifffile.PHOTOMETRIC.YCBCR,
}  # fmt: skip
_COLOURS: Final = {tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR}


def _planes(series: tifffile.TiffPageSeries) -> list[Plane]:
    """The planes of a series that are in this file, their places along its axes."""
    page = series.keyframe
    shape, axes = _leading(series)
    planes_n = math.prod(shape)
    in_one = len(series) == 1 and planes_n > 1  # the planes follow on each other, and one directory tells of all
    if in_one and not (page.is_contiguous and page.compression == 1):
        if series.kind == "stk":
            raise TiffError(f"holds {planes_n} compressed planes behind one directory; save it uncompressed")
        planes_n = 1  # what its description says is of another file
    samples = _samples(page, are_channels=series.kind == "lsm")
    if planes_n * max(1, len(samples)) > MOST_PLANES and (in_one or samples):
        raise TiffError(f"holds over {MOST_PLANES} planes; save it in parts")
    told_n = planes_n if in_one else min(planes_n, len(series))
    places = dict.fromkeys(("series", "time", "channel", "z"), np.zeros(told_n, np.int64))
    for axis, size, place_N in zip(axes, shape, np.unravel_index(np.arange(told_n), shape), strict=True):
        slot = _SLOTS.get(axis, "series")
        places[slot] = places[slot] * size + place_N
    along = zip(*(places[slot].tolist() for slot in ("series", "time", "channel", "z")), strict=True)
    size_px = _size_px(page)
    found = []
    for number, (of_series, time, channel, z) in enumerate(along):
        one = page if in_one else series[number]
        if one is None or one.is_subifd:
            continue  # in another file, or below a page: a copy of it
        found += [
            Plane(
                size_px=size_px,
                series=of_series,
                time=time,
                channel=channel * max(1, len(samples)) + place,
                z=z,
                directory=one.index,
                part=number if in_one else 0,
                sample=sample,
            )
            for place, sample in enumerate(samples or [None])
        ]
    return found


def _leading(series: tifffile.TiffPageSeries) -> tuple[list[int], str]:
    """How many planes lie along which axes, those of a page itself left out."""
    shape, axes = series.get_shape(squeeze=False), series.get_axes(squeeze=False)
    planes_n = math.prod(shape) // max(1, math.prod(series.keyframe.shape))
    leading_n = next((n for n in range(len(shape) + 1) if math.prod(shape[:n]) == planes_n), 0)
    if math.prod(shape[:leading_n]) != planes_n or (len(series) > 1 and len(series) != planes_n):
        return [len(series)], "I"  # what is said of them is not of these
    return list(shape[:leading_n]) or [1], axes[:leading_n] or "Q"


def _samples(page: tifffile.TiffPage, *, are_channels: bool) -> list[int]:
    """Which values of a pixel are images in themselves: channels, or the only one beside transparency.

    Of an LSM all are channels, though it says RGB where it has three.
    """
    if page.samplesperpixel == 1 or (page.photometric in _COLOURS and not are_channels):
        return []
    own_n = page.samplesperpixel - len(page.extrasamples)
    extra = [own_n + k for k, kind in enumerate(page.extrasamples) if kind == tifffile.EXTRASAMPLE.UNSPECIFIED]
    return [*range(own_n), *extra]


def _merged(channels: list[str], names: list[str]) -> list[int]:
    """The places of a series' channels among those of the file, to which the new ones are added."""
    free: dict[str, list[int]] = {}
    for place in reversed(range(len(channels))):
        free.setdefault(channels[place], []).append(place)
    places: list[int] = []
    for name in names:
        if not (same := free.get(name)):
            same = [len(channels)]
            channels.append(name)
        places.append(same.pop())
    return places


def _labels(tif: tifffile.TiffFile, planes: list[Plane]) -> list[str]:
    """The channels' names, as ImageJ labels their planes: `c:1/2 z:3/5 - Phase`, or as an LSM has them."""
    if tif.is_lsm:
        colours = (tif.lsm_metadata or {}).get("ChannelColors") or {}
        return [str(name).strip() for name in colours.get("ColorNames", [])]
    labels = (tif.imagej_metadata or {}).get("Labels") if tif.is_imagej else None
    if not isinstance(labels, list) or len(labels) < len(planes):
        return []
    first: dict[int, str] = {}
    for plane, label in zip(planes, labels, strict=False):
        first.setdefault(plane.channel, re.sub(r"^(?:[a-z]:\d+/\d+[ ;]*)+(?:- )?", "", str(label)).strip())
    names = [first[channel] for channel in sorted(first)]
    return names if len(set(names)) == len(names) > 1 else []


def _pixel_um(tif: tifffile.TiffFile, images: list[OmeImage]) -> PixelUm | None:
    """What the file says of the size of its pixels. The plain tags of resolution are not asked: instruments write the
    camera's pixel there, or a printer's.
    """
    page = tif.pages.first
    if images:
        sizes = {image.pixel_um for image in images}
        return sizes.pop() if len(sizes) == 1 else None
    if page.is_imagej:
        return of_imagej(page.description, (_inverse(page, 282), _inverse(page, 283)))
    if page.description.startswith("<MetaData>"):
        return of_metaseries(dict(re.findall(r'<prop id="(spatial-[a-z-]+)"[^<>]*? value="([^"]*)"', page.description)))
    if tif.is_stk:
        told = tif.stk_metadata or {}
        if not told.get("SpatialCalibration", 1):
            return None
        unit = str(told.get("CalibrationUnits", ""))
        return pixel_of(*(length_um(told.get(f"{axis}Calibration"), unit) for axis in "XY"))
    if tif.is_lsm:
        told = tif.lsm_metadata or {}
        return pixel_of(*(length_um(told.get(f"VoxelSize{axis}"), "m") for axis in "XY"))
    return None


def _inverse(page: tifffile.TiffPage, tag: int) -> float:
    """The inverse of a fraction, and 0 for none."""
    value = page.tags.valueof(tag)
    return value[1] / value[0] if isinstance(value, tuple) and len(value) == 2 and value[0] else 0.0


@np.errstate(all="ignore")
def _values(file: IO[bytes], bytes_n: int, plane: Plane, most: int) -> tuple[tifffile.TiffPage, NDArray[Any]]:
    """The page of a plane, and its values as they are stored, (H, W) or (H, W, samples)."""
    check_raw(file, bytes_n)
    try:
        with _opened(file, "", is_ome=False) as tif:
            page = _whole(tif.pages[plane.directory])
            if (fault := _fault(page)) or _size_px(page) != plane.size_px:
                raise TiffError(fault or "another file than before; read it again")
            values = _Decoder(page, bytes_n, plane, most).values()
            return page, values[..., 0] if values.shape[-1] == 1 else values
    except TiffError:
        raise
    except MemoryError as error:
        raise TiffError("needs more memory than there is; cut it first") from error
    except Exception as error:  # tifffile and imagecodecs raise many kinds on broken files
        raise TiffError("damaged, its pixels cannot be decoded") from error


def _whole(page: tifffile.TiffPage | tifffile.TiffFrame) -> tifffile.TiffPage:
    """A page with all that is said of it; of LSM files tifffile has only where the pixels are, and that corrected."""
    if isinstance(page, tifffile.TiffPage):
        return page
    whole = page.aspage()
    whole.dataoffsets, whole.databytecounts = page.dataoffsets, page.databytecounts
    return whole


class _Decoder:
    """Decodes the strips and tiles of a page, having looked at how large each becomes."""

    def __init__(self, page: tifffile.TiffPage, bytes_n: int, plane: Plane, most: int) -> None:
        self._page, self._file, self._bytes_n, self._plane = page, page.parent.filehandle, bytes_n, plane
        self._width, self._height = _size_px(page)
        self._kind = np.dtype(page.dtype)
        self._is_apart = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and page.samplesperpixel > 1
        self._samples_n = 1 if self._is_apart else page.samplesperpixel
        rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, self._width)
        self._part_px = rows * columns
        self._parts_n = math.ceil(self._height / rows) * math.ceil(self._width / columns)
        if self._parts_n > MOST_PARTS:
            raise TiffError(f"in {self._parts_n:,} strips or tiles; save it in at most {MOST_PARTS:,}")
        decoded_px, pixels_n = self._parts_n * self._part_px, self._width * self._height
        if decoded_px > 4 * pixels_n + LARGE_TILE_PX:
            raise TiffError("damaged, its tiles are far larger than the image")
        samples_n = 1 if plane.sample is not None and self._is_apart else page.samplesperpixel
        held_px = max(self._part_px, pixels_n) + (self._part_px if page.predictor != 1 else 0)
        taken = held_px * samples_n * self._kind.itemsize
        if taken > MOST_BYTES_A_PIXEL * max(most, 1_000_000):
            raise TiffError(f"takes {taken / 1e6:.0f} MB of memory; cut it first, or save it as grey of 8 or 16 bits")

    def values(self) -> NDArray[Any]:
        """The plane's values (H, W, samples)."""
        page, sample = self._page, self._plane.sample
        if self._plane.part:
            values_HWS = self._part(self._plane.part)
        elif not self._is_apart:
            values_HWS = self._decoded(0, page.samplesperpixel)
        elif sample is not None:
            return self._decoded(sample, 1)
        else:
            values_HWS = np.empty((self._height, self._width, page.samplesperpixel), self._kind)
            for place in range(page.samplesperpixel):
                values_HWS[..., place : place + 1] = self._decoded(place, 1)
        return values_HWS if sample is None else values_HWS[..., sample : sample + 1]

    def _part(self, part: int) -> NDArray[Any]:
        """One of several planes that follow on each other uncompressed, (H, W, samples)."""
        page = self._page
        kind = self._kind.newbyteorder(page.parent.byteorder)
        values_n = self._width * self._height * page.samplesperpixel
        self._file.seek(page.dataoffsets[0] + part * values_n * kind.itemsize)
        values = np.frombuffer(self._file.read(values_n * kind.itemsize), kind).astype(self._kind)
        if self._is_apart:
            return np.moveaxis(values.reshape(page.samplesperpixel, self._height, self._width), 0, -1)
        return values.reshape(self._height, self._width, page.samplesperpixel)

    def _decoded(self, sample: int, samples_n: int) -> NDArray[Any]:
        """Values (H, W, samples) that lie together: of one sample by itself, or of all."""
        page = self._page
        first = sample * self._parts_n
        if len(page.dataoffsets) < first + self._parts_n:
            raise TiffError("damaged, parts of its pixels are missing")
        values_HWS = np.zeros((self._height, self._width, samples_n), self._kind)
        left_n = 4 * self._bytes_n
        for index in range(first, first + self._parts_n):
            offset, length = page.dataoffsets[index], self._length(index, index - first)
            left_n -= length
            if left_n < 0 or offset + length > self._bytes_n or length > MOST_PART_BYTES:
                raise TiffError("damaged, its pixels cannot be decoded")
            if not length:
                continue  # left out, as sparse files may: there is nothing
            self._file.seek(offset)
            data = self._file.read(length)
            self._check(data)
            part, (_, _, top, left, _), _ = page.decode(
                data, index, jpegtables=page.jpegtables, jpegheader=page.jpegheader
            )
            rows_HWS = np.asarray(part)[0, : self._height - top, : self._width - left, :samples_n]
            if rows_HWS.shape == values_HWS.shape:
                return rows_HWS  # which spares the memory of a copy
            values_HWS[top : top + rows_HWS.shape[0], left : left + rows_HWS.shape[1]] = rows_HWS
        return values_HWS

    def _length(self, index: int, place: int) -> int:
        """Bytes of a strip or tile. Those of strips that are not compressed follow from their rows, and some programs
        write them wrong.
        """
        page = self._page
        if not page.dataoffsets[index]:
            return 0
        if page.compression != 1 or page.is_tiled or not isinstance(page.bitspersample, int):
            return page.databytecounts[index]
        rows = min(page.rowsperstrip, self._height - place * page.rowsperstrip)
        values_n = self._width * self._samples_n
        if 8 < page.bitspersample < 16 and page.databytecounts[index] == 2 * rows * values_n:
            raise TiffError(f"says {page.bitspersample} bits a value, and holds 16; save it with 16 bits")
        return rows * ((values_n * page.bitspersample + 7) // 8)

    def _check(self, data: bytes) -> None:
        """Raise TiffError where a picture in the file says that it is larger than the part that it is of."""
        values_n = 0
        match COMPRESSIONS[self._page.compression]:
            case "JPEG":
                data = (self._page.jpegtables or b"") + data
                frames = [struct.unpack(">HHB", sides) for sides in _JPEG_FRAME.findall(data)]
                values_n = max(height * width * samples_n for height, width, samples_n in frames)
                scans_n = data.count(b"\xff\xda")  # elsewhere in pixels 0xFF is never followed by 0xDA
                if scans_n > MOST_SCANS:
                    raise TiffError(f"a JPEG of {scans_n:,} scans; save it with one, or uncompressed")
            case "JPEG 2000":
                sizes = [struct.unpack(">4I16xH", sides) for sides in _JPEG_2000_SIZE.findall(data)]
                values_n = max((right - left) * (below - top) * n for right, below, left, top, n in sizes)
                if b"pclr" in data[: data.index(b"\xff\x4f\xff\x51")]:
                    raise TiffError("a JPEG 2000 of a palette, which is not read here; save it as grey or RGB")
            case "LERC":
                [version] = struct.unpack_from("<i", data, 6)
                rows, columns, depth = struct.unpack_from("<3i", data, 14 if version >= 3 else 10)
                values_n = rows * columns * (depth if version >= 4 else 1) * data.count(b"Lerc2 ")
                if not data.startswith(b"Lerc2 ") or min(rows, columns) < 1:
                    raise TiffError("a LERC before version 2, which is not read here; save it uncompressed")
        if values_n > self._part_px * max(self._samples_n, 3 if self._page.photometric in _COLOURS else 1):
            raise TiffError("damaged, its pixels cannot be decoded")


_JPEG_FRAME: Final = re.compile(
    rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf\xf7]\0.[\2-\x10](.{4}[\1-\xff])", re.DOTALL
)
"""The header of a frame: precision, height, width, samples. It may come twice, or behind what only looks like it."""
_JPEG_2000_SIZE: Final = re.compile(rb"\xff\x4f\xff\x51.{4}(.{34})", re.DOTALL)
"""Sides, offsets, sides and offsets of tiles, and samples."""


def _inverted(values_HW: NDArray[Any], bits: int) -> NDArray[Any]:
    """Values of which the lowest is white, such that the highest is."""
    if values_HW.dtype.kind == "f":
        return -values_HW
    if values_HW.dtype.kind in "bi":
        return ~values_HW
    return np.asarray(values_HW.dtype.type(2**bits - 1) - values_HW)


def _of_palette(indices_HW: NDArray[Any], colours_3N: NDArray[Any]) -> NDArray[np.uint8]:
    """The luminance (H, W) of the colours that a palette gives to indices; it is of 16 bits, of 8 by some writers."""
    indices_HW = indices_HW.astype(np.uint8) if indices_HW.dtype == bool else indices_HW
    if colours_3N.dtype.kind not in "ui" or colours_3N.ndim != 2 or indices_HW.dtype not in (np.uint8, np.uint16):
        raise TiffError("a damaged TIFF, of a palette that is none; export it again")
    if int(indices_HW.max(initial=0)) >= colours_3N.shape[1]:
        raise TiffError(f"damaged, its palette has {colours_3N.shape[1]} colours and its pixels have more")
    colours_3N = colours_3N >> 8 if colours_3N.max(initial=0) > 255 else colours_3N
    grey_N = _luminance(np.ascontiguousarray(colours_3N.T, np.uint8)[None])[0]
    return np.asarray(grey_N[indices_HW], np.uint8)


def _luminance(colours_HWS: NDArray[Any]) -> NDArray[Any]:
    """Grey values (H, W) of red, green and blue; transparency beside them is dropped."""
    height, width, samples_n = colours_HWS.shape
    if samples_n < 3:
        raise TiffError("a TIFF of two colours; save it as grey or RGB")
    kind = colours_HWS.dtype if colours_HWS.dtype in (np.uint8, np.uint16, np.float32) else np.dtype(np.float32)
    grey_HW = np.empty((height, width), kind)
    for top in range(0, height, STRIP_ROWS):
        strip = slice(top, top + STRIP_ROWS)
        grey_HW[strip] = cv2.cvtColor(np.ascontiguousarray(colours_HWS[strip, :, :3], kind), cv2.COLOR_RGB2GRAY)
    return grey_HW
