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
from cellnet.images.ome import OmeImage, read_ome
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
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None:
        return _luminance(_of_palette(values, np.asarray(page.colormap)))
    if values.ndim == 3:
        return _luminance(values)
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        values = _inverted(values, page.bitspersample)
    return values.astype(np.uint8) * np.uint8(255) if values.dtype == bool else values


def read_values(file: IO[bytes], bytes_n: int, plane: Plane) -> NDArray[Any]:
    """The values of a plane as they are stored, (H, W) or (H, W, samples): of a mask. Raises as `read_plane`."""
    return _values(file, bytes_n, plane, MAX_PIXELS)[1]


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
    left = {"directories": MOST_DIRECTORIES, "entries": MOST_ENTRIES_IN_ALL, "bytes": 2 * bytes_n + 2**20}

    def take(what: str, number: int) -> None:
        left[what] -= number
        if left[what] < 0:
            raise TiffError(f"a TIFF with more {what} than an image needs; export it again")

    def at(offset: int, size: int) -> bytes:
        file.seek(offset)
        data = file.read(size) if offset + size <= bytes_n else b""
        if len(data) < size:
            raise TiffError("a damaged TIFF, it ends too early; export it again")
        return data

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
        take("directories", 1)
        pages_n += is_page
        if pages_n > MOST_PAGES:
            raise TiffError(f"holds over {MOST_PAGES} pages; save it in parts")
        [entries_n] = struct.unpack(order + count_form, at(offset, count_n))
        if entries_n > MOST_ENTRIES:
            raise TiffError(f"a TIFF with {entries_n:,} entries in a directory; export it again")
        take("entries", entries_n)
        data = at(offset + count_n, entries_n * entry.size + offset_n)
        for tag, kind, number, value in entry.iter_unpack(data[:-offset_n]):
            size = _SIZES.get(kind, 0) * number
            if size <= offset_n:
                place = value
            else:
                take("bytes", size)
                [place_at] = struct.unpack(order + offset_form, value)
                if tag == 270 and size > MOST_TEXT:
                    raise TiffError(f"a TIFF whose description is {size / 2**20:.0f} MB; export it again")
                place = at(place_at, size) if tag in _DIRECTORIES else b""
            if tag in _DIRECTORIES and kind in (4, 13, 16, 18):
                form = order + ("Q" if kind in (16, 18) else "I")
                waiting += [(below, False) for (below,) in struct.iter_unpack(form, place[:size])]
        waiting.append((struct.unpack(order + offset_form, data[-offset_n:])[0] if is_page else 0, True))


_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value, by the numbers that TIFF 6.0 and BigTIFF give to types."""
_DIRECTORIES: Final = {330, 34665, 34853, 40965}
"""Entries that lead to further directories: SubIFDs, Exif, GPS, Interoperability."""


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
    with _opened(file, name) as tif:
        if not len(tif.pages) or not tif.pages.first.shape:
            raise TiffError("a damaged TIFF, without an image; export it again")
        described = _described(tif)
    if described is not None:
        try:
            images, text = described
            with _opened(file, name, omexml=text) as tif:
                return _of_series(tif, images)
        except (ValueError, IndexError, KeyError, RuntimeError, TypeError):
            pass  # its planes are not where the description says
    with _opened(file, name, is_ome=False) as tif:
        return _of_series(tif, described[0] if described else [])


def _described(tif: tifffile.TiffFile) -> tuple[list[OmeImage], str] | None:
    """What OME-XML says, if the file has one that is right."""
    if not tif.is_ome:
        return None
    try:
        return read_ome(tif.pages.first.description)
    except ValueError:
        return None


def _of_series(tif: tifffile.TiffFile, images: list[OmeImage]) -> Structure:
    series = [series for series in tif.series if not _is_reduced(series.keyframe)]
    series = [one for k, one in enumerate(series) if not any(_is_smaller_copy(one, other) for other in series[:k])]
    if not series:
        raise TiffError("a TIFF without an image; export it again")
    faults = [_fault(one.keyframe) for one in series]
    if all(faults):
        raise TiffError(str(faults[0]))
    series = [one for one, fault in zip(series, faults, strict=True) if not fault]
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
        transmitted |= {places[k] for k in (image.transmitted if image else ()) if k < channels_n}
        before_n = len(pixels_um)
        planes += [replace(plane, series=before_n + plane.series, channel=places[plane.channel]) for plane in found]
        series_n = max((plane.series for plane in found), default=0) + 1
        pixels_um += [image.pixel_um if image else of_file] * series_n
    planes.sort(key=lambda plane: (plane.directory, plane.part, plane.sample or 0))
    if not planes:
        raise TiffError("a TIFF whose images are in other files; export each as a file of its own")
    return Structure(
        planes=tuple(planes),
        channels=tuple(channels),
        transmitted=tuple(sorted(transmitted | {k for k, name in enumerate(channels) if is_transmitted(name)})),
        is_stack=all(set(one.get_axes(squeeze=False)).isdisjoint("IQ") or len(one) == 1 for one in series),
        pixels_um=tuple(pixels_um),
    )


def _size_px(page: tifffile.TiffPage) -> tuple[int, int]:
    return page.imagewidth, page.imagelength


def _is_reduced(page: tifffile.TiffPage) -> bool:
    """Whether a page says of itself that it is a smaller copy of another, or a mask of transparency."""
    return bool(page.subfiletype & 0b101) or page.photometric == tifffile.PHOTOMETRIC.MASK


def _is_smaller_copy(series: tifffile.TiffPageSeries, of: tifffile.TiffPageSeries) -> bool:
    """Whether images are at most half as wide as others before them, and of the same shape, as thumbnails are."""
    width, height = _size_px(series.keyframe)
    width_of, height_of = _size_px(of.keyframe)
    return 2 * width <= width_of + 1 and abs(width * height_of - height * width_of) <= 2 * max(width_of, height_of)


def _fault(page: tifffile.TiffPage) -> str | None:
    """Why the pixels of a page are not read, if they are not."""
    photometric, kind = page.photometric, page.dtype
    if page.compression not in COMPRESSIONS:
        name = getattr(page.compression, "name", str(page.compression))
        return f"a TIFF compressed by {name}, which is not read here; save it uncompressed, or by LZW, Deflate or ZSTD"
    if kind is None or kind.kind not in "buif":
        what = "complex numbers" if page.sampleformat in (5, 6) else f"{page.bitspersample} bits a value"
        return f"a TIFF of {what}, which is not read here; save it with 8, 16 or 32 bits"
    if page.imagedepth > 1:
        return "a TIFF with a volume in one directory, which is not read here; save its planes one by one"
    if photometric not in _PHOTOMETRICS:
        return (
            f"a TIFF with colours as {getattr(photometric, 'name', photometric)}, which is not read here; "
            "save it as grey or RGB"
        )
    return None


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
        planes_n = 1
    samples = _samples(page)
    found = []
    for number in range(planes_n if in_one else min(planes_n, len(series))):
        one = page if in_one else series[number]
        if one is None:
            continue
        along = {"series": 0, "time": 0, "channel": 0, "z": 0}
        for axis, size, place in zip(axes, shape, np.unravel_index(number, shape), strict=True):
            slot = _SLOTS.get(axis, "series")
            along[slot] = along[slot] * size + int(place)
        plane = Plane(size_px=_size_px(page), directory=one.index, part=number if in_one else 0, **along)
        found += [
            replace(plane, sample=sample, channel=plane.channel * max(1, len(samples)) + place)
            for place, sample in enumerate(samples or [None])
        ]
    return found


def _leading(series: tifffile.TiffPageSeries) -> tuple[list[int], str]:
    """How many planes lie along which axes, those of a page itself left out."""
    shape, axes = series.get_shape(squeeze=False), series.get_axes(squeeze=False)
    planes_n = math.prod(shape) // max(1, math.prod(series.keyframe.shape))
    leading_n = next((n for n in range(len(shape) + 1) if math.prod(shape[:n]) == planes_n), 0)
    if math.prod(shape[:leading_n]) != planes_n:
        return [len(series)], "I"
    return list(shape[:leading_n]) or [1], axes[:leading_n] or "Q"


def _samples(page: tifffile.TiffPage) -> list[int]:
    """Which values of a pixel are images in themselves: channels, or the only one beside transparency."""
    if page.samplesperpixel == 1 or page.photometric in _COLOURS:
        return []
    own_n = page.samplesperpixel - len(page.extrasamples)
    extra = [own_n + k for k, kind in enumerate(page.extrasamples) if kind == tifffile.EXTRASAMPLE.UNSPECIFIED]
    return [*range(own_n), *extra]


def _merged(channels: list[str], names: list[str]) -> list[int]:
    """The places of a series' channels among those of the file, to which the new ones are added."""
    places: list[int] = []
    for name in names:
        free = (k for k, known in enumerate(channels) if known == name and k not in places)
        place = next(free, len(channels))
        if place == len(channels):
            channels.append(name)
        places.append(place)
    return places


def _labels(tif: tifffile.TiffFile, planes: list[Plane]) -> list[str]:
    """The channels' names, as ImageJ labels their planes: `c:1/2 z:3/5 - Phase`."""
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
    if tif.is_imagej:
        return of_imagej(page.description, (_inverse(page, 282), _inverse(page, 283)))
    if page.description.startswith("<MetaData>"):
        return of_metaseries(dict(re.findall(r'<prop id="(spatial-[a-z-]+)"[^>]*? value="([^"]*)"', page.description)))
    if tif.is_stk:
        told = tif.stk_metadata or {}
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


def _values(file: IO[bytes], bytes_n: int, plane: Plane, most: int) -> tuple[tifffile.TiffPage, NDArray[Any]]:
    """The page of a plane, and its values as they are stored, (H, W) or (H, W, samples)."""
    check_raw(file, bytes_n)
    try:
        with _opened(file, "", is_ome=False) as tif:
            page = cast(tifffile.TiffPage, tif.pages[plane.directory])
            if (fault := _fault(page)) or _size_px(page) != plane.size_px:
                raise TiffError(fault or "another file than before; read it again")
            values = _Decoder(page, bytes_n, most).values(plane)
            return page, values[..., 0] if values.shape[-1] == 1 else values
    except TiffError:
        raise
    except MemoryError as error:
        raise TiffError("needs more memory than there is; cut it first") from error
    except Exception as error:  # tifffile and imagecodecs raise many kinds on broken files
        raise TiffError("damaged, its pixels cannot be decoded") from error


class _Decoder:
    """Decodes the strips and tiles of a page, having looked at how large each becomes."""

    def __init__(self, page: tifffile.TiffPage, bytes_n: int, most: int) -> None:
        self._page, self._file, self._bytes_n = page, page.parent.filehandle, bytes_n
        self._width, self._height = _size_px(page)
        self._kind = np.dtype(page.dtype)
        self._is_apart = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and page.samplesperpixel > 1
        self._samples_n = 1 if self._is_apart else page.samplesperpixel
        rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, self._width)
        self._part_px = rows * columns
        taken = max(self._part_px, self._width * self._height) * self._samples_n * self._kind.itemsize
        if taken > MOST_BYTES_A_PIXEL * max(most, 1_000_000):
            raise TiffError(f"takes {taken / 1e6:.0f} MB of memory; cut it first, or save it as grey of 8 or 16 bits")

    def values(self, plane: Plane) -> NDArray[Any]:
        """The plane's values (H, W, samples)."""
        page = self._page
        if plane.part:
            return self._part(plane.part)
        if not self._is_apart:
            values_HWS = self._decoded(0, page.samplesperpixel)
            return values_HWS if plane.sample is None else values_HWS[..., plane.sample : plane.sample + 1]
        if plane.sample is not None:
            return self._decoded(plane.sample, 1)
        return np.concatenate([self._decoded(sample, 1) for sample in range(page.samplesperpixel)], axis=2)

    def _part(self, part: int) -> NDArray[Any]:
        """One of several planes that follow on each other uncompressed."""
        page = self._page
        kind = self._kind.newbyteorder(page.parent.byteorder)
        values_n = self._width * self._height * page.samplesperpixel
        self._file.seek(page.dataoffsets[0] + part * values_n * kind.itemsize)
        values = np.frombuffer(self._file.read(values_n * kind.itemsize), kind)
        return values.astype(self._kind).reshape(self._height, self._width, page.samplesperpixel)

    def _decoded(self, sample: int, samples_n: int) -> NDArray[Any]:
        """Values (H, W, samples) that lie together: of one sample by itself, or of all."""
        page = self._page
        parts_n = len(page.dataoffsets) // (page.samplesperpixel if self._is_apart else 1)
        values_HWS = np.zeros((self._height, self._width, samples_n), self._kind)
        left_n = 4 * self._bytes_n
        seen_n = 0
        for index in range(sample * parts_n, (sample + 1) * parts_n):
            offset, length = page.dataoffsets[index], self._length(index, index - sample * parts_n)
            left_n -= length
            if left_n < 0 or offset + length > self._bytes_n:
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
            values_HWS[top : top + rows_HWS.shape[0], left : left + rows_HWS.shape[1]] = rows_HWS
            seen_n += rows_HWS.shape[0] * rows_HWS.shape[1]
        if seen_n < self._width * self._height and not page.is_tiled and 0 not in page.databytecounts:
            raise TiffError("damaged, rows of its pixels are missing")
        return values_HWS

    def _length(self, index: int, place: int) -> int:
        """Bytes of a strip or tile. Those of strips that are not compressed follow from their rows, and some programs
        write them wrong.
        """
        page = self._page
        if page.compression != 1 or page.is_tiled or not isinstance(page.bitspersample, int):
            return page.databytecounts[index]
        rows = min(page.rowsperstrip, self._height - place * page.rowsperstrip)
        return rows * ((self._width * self._samples_n * page.bitspersample + 7) // 8)

    def _check(self, data: bytes) -> None:
        """Raise TiffError where a picture in the file says that it is larger than the part that it is of."""
        pixels_n = 0
        match COMPRESSIONS[self._page.compression]:
            case "JPEG":
                _, height, width, _ = tifffile.tifffile.jpeg_shape(data)
                pixels_n = height * width
            case "JPEG 2000":
                start = data.index(b"\xff\x4f\xff\x51") + 8
                right, bottom, left, top = struct.unpack_from(">4I", data, start)
                pixels_n = (right - left) * (bottom - top)
            case "LERC":
                [version] = struct.unpack_from("<i", data, 6)
                rows, columns = struct.unpack_from("<2i", data, 14 if version >= 3 else 10)
                pixels_n = rows * columns * data.count(b"Lerc2 ") // max(1, self._samples_n)
        if pixels_n > self._part_px:
            raise TiffError("damaged, its pixels cannot be decoded")


def _inverted(values_HW: NDArray[Any], bits: int) -> NDArray[Any]:
    """Values of which the lowest is white, such that the highest is."""
    if values_HW.dtype.kind == "f":
        return -values_HW
    if values_HW.dtype.kind in "bi":
        return ~values_HW
    return np.asarray(values_HW.dtype.type(2**bits - 1) - values_HW)


def _of_palette(indices_HW: NDArray[Any], colours_3N: NDArray[Any]) -> NDArray[np.uint8]:
    """The colours (H, W, 3) that a palette gives to indices; its values are of 16 bits, of 8 by some writers."""
    colours_3N = colours_3N >> 8 if colours_3N.max(initial=0) > 255 else colours_3N
    return np.moveaxis(colours_3N.astype(np.uint8)[:, indices_HW], 0, -1)


def _luminance(colours_HW3: NDArray[Any]) -> NDArray[Any]:
    """Grey values of red, green and blue; transparency beside them is dropped."""
    colours_HW3 = np.ascontiguousarray(colours_HW3[..., :3])
    if colours_HW3.shape[-1] < 3:
        raise TiffError("a TIFF of two colours; save it as grey or RGB")
    if colours_HW3.dtype not in (np.uint8, np.uint16, np.float32):
        colours_HW3 = colours_HW3.astype(np.float32)
    return np.asarray(cv2.cvtColor(colours_HW3, cv2.COLOR_RGB2GRAY))
