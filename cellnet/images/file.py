"""Image files as they come: a header that is read once, and pixels that are decoded on request."""

import functools
import io
import math
import os
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Final, Literal, Self

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from cellnet.errors import DataError
from cellnet.images.pixels import MAX_PIXELS, Pixels

FORMATS: Final = ("PNG", "JPEG", "TIFF", "BMP")
SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
UNITS_UM: Final = {"µm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4}
"""Micrometres of the units that TIFF files are described in."""
MOST_PAGES: Final = 5000
"""In a file; to count more would take seconds."""
STRIP_ROWS: Final = 256
"""Rows converted at a time, since a whole frame in 64 bits would take much memory."""
MAX_PIXELS_A_BYTE: Final = 1000
"""Of a JPEG; one without any detail has at most 260."""


Pages = Literal["middle", "all"] | int
"""Which pages of a file of several are read, counted from 1."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says of itself, none of its pixels being decoded."""

    bytes_n: int
    """Of the whole file; -1 of one that could not be opened."""
    is_jpeg: bool = False
    sizes_px: tuple[tuple[int, int], ...] = ()
    """Width and height of every page, counted up to one more than `MOST_PAGES`."""
    pixel_um: float | None = None
    """Micrometres a pixel."""
    fault: str | None = None
    """Why nothing can be decoded; the size of the first page may be known all the same."""


@dataclass(frozen=True)
class ImageFile:
    """A file as it comes, perhaps no image at all, and which of its pages is meant.

    What it raises is a DataError that names it. Nothing is decoded before the header said how large it is.
    """

    name: str
    """As messages name it."""
    contents: bytes | Path | Callable[[int], bytes] = field(repr=False)
    """Its bytes, where on the disk they are, or what fetches at most so many of them from elsewhere."""
    page: int | None = None
    """From 1; None stands for the only one."""
    known: Header | None = field(default=None, repr=False, compare=False)
    """The header, where it was read before; also in another process."""

    @classmethod
    def at(cls, path: Path) -> Self:
        """A file on the disk, that is not opened yet."""
        return cls(path.name, path)

    @property
    def place(self) -> str:
        """Where it lies on the disk; of what lies elsewhere, its name."""
        return str(self.contents) if isinstance(self.contents, Path) else self.name

    @property
    def mark(self) -> str:
        """What tells its page from the others behind a name: #3, or nothing."""
        return "" if self.page is None else f"#{self.page}"

    @property
    def header(self) -> Header:
        """Read at first use; of a file on the disk without the rest of it."""
        header = self.known or self._read_header()
        object.__setattr__(self, "known", header)  # the file is what it was, and only known now
        return header

    @property
    def pixels_n(self) -> int:
        """How many pixels its page has, as the header says; the first page of several; 0 of what is no image."""
        sizes_px = self.header.sizes_px[(self.page or 1) - 1 :]
        return math.prod(sizes_px[0]) if sizes_px else 0

    @property
    def pixel_um(self) -> float | None:
        """Micrometres a pixel, as an OME-TIFF or a TIFF of ImageJ says in its description; None where none is said.

        The plain resolution tags are not asked: instruments write the camera's pixel there, or a printer's.
        """
        return self.header.pixel_um

    def read(self, most: int = sys.maxsize) -> bytes:
        """Its bytes. Raises DataError for what cannot be read, or is over `most` bytes, which is then not read."""
        if isinstance(self.contents, bytes):
            return self.contents
        if not isinstance(self.contents, Path):
            return self.contents(most)
        try:
            with self.contents.open("rb") as file:
                if os.fstat(file.fileno()).st_size > most:
                    raise DataError(
                        f"{self.name}: over {most // 10**9} GB, so it was not read; cut it, or save single pages"
                    )
                return file.read()
        except OSError as error:
            raise DataError(f"{self.name}: cannot be read: {error.strerror}") from error

    def in_memory(self, most: int = sys.maxsize) -> Self:
        """The same file, its bytes held; its header is read again only of a file that changed. Raises as `read`."""
        data = self.read(most)
        known = self.known if self.known and self.known.bytes_n == len(data) else None
        return replace(self, contents=data, known=known)

    def pages(self, wanted: Pages | None) -> list[Self]:
        """The pages to read: the middle one, all, or one by its number; the file itself where it holds one image.

        Raises DataError where there is no such page; a file that is no image is left to `decode`.
        """
        return [replace(self, page=page, known=self.header) for page in self._choose(wanted)]

    def decode(self, *, most: int = MAX_PIXELS) -> Pixels:
        """Grey pixels (H, W) as recorded, 8 or 16 bits, of a PNG, JPEG, TIFF or BMP file.

        Colour becomes luminance, transparency is dropped, float pixels are spread over 16 bits. Raises DataError for
        what is unreadable, empty, blank, of several pages when none is chosen, or over `most` pixels, at most 100
        megapixels.
        """
        image = self._decode(cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION, most)
        if image.dtype not in (np.uint8, np.uint16):
            image = _to_16_bits(image, self.name)
        if image.min() == image.max():
            raise DataError(f"{self.name}: blank, every pixel has the value {image.flat[0]}")
        return image

    def decode_values(self) -> NDArray[Any]:
        """Values (H, W) or (H, W, channels) of any type, as recorded: of a mask. Raises as `decode`."""
        return self._decode(cv2.IMREAD_UNCHANGED, MAX_PIXELS)

    def _read_header(self) -> Header:
        if isinstance(self.contents, bytes):
            return _read_header(io.BytesIO(self.contents), len(self.contents))
        if not isinstance(self.contents, Path):
            return self.in_memory().header
        try:
            with self.contents.open("rb") as file:
                return _read_header(file, os.fstat(file.fileno()).st_size)
        except OSError as error:
            return Header(bytes_n=-1, fault=f"cannot be read: {error.strerror}")

    def _choose(self, wanted: Pages | None) -> list[int | None]:
        """Numbers of pages, from 1; [None] of a single one, and of what is no image."""
        pages_n = len(self.header.sizes_px)
        if self.header.fault:
            return [None]
        if pages_n > MOST_PAGES:
            raise DataError(f"{self.name}: holds over {MOST_PAGES} pages; save it in parts")
        if isinstance(wanted, int):
            self._check_page(wanted)
        if pages_n == 1 or wanted is None:
            return [None]
        if wanted == "all":
            return list(range(1, pages_n + 1))
        return [wanted if isinstance(wanted, int) else pages_n // 2 + 1]

    def _check_page(self, page: int) -> None:
        pages_n = len(self.header.sizes_px)
        if page > pages_n:
            raise DataError(f"{self.name}: holds {pages_n} page{'s' * (pages_n != 1)}, so there is no page {page}")

    def _check_size(self, most: int) -> None:
        """Raise DataError unless the page is there, and of a size that may be decoded."""
        header = self.header
        if header.fault:
            raise DataError(f"{self.name}: {header.fault}")
        self._check_page(self.page or 1)
        width, height = header.sizes_px[(self.page or 1) - 1]
        if width * height > most:
            raise DataError(f"{self.name}: {width}×{height} is over {most / 1e6:g} megapixels; cut it first")
        if header.is_jpeg and width * height > MAX_PIXELS_A_BYTE * header.bytes_n:  # libjpeg would make up the rest
            raise DataError(f"{self.name}: damaged, {header.bytes_n} bytes cannot hold its {width}×{height} pixels")
        if len(header.sizes_px) > 1 and self.page is None:
            raise DataError(f"{self.name}: holds {len(header.sizes_px)} pages; choose: page middle, all, or a number")

    def _decode(self, flags: int, most: int) -> NDArray[Any]:
        if not isinstance(self.contents, bytes):
            return self.in_memory()._decode(flags, most)
        self._check_size(most)
        _quiet_libraries()
        buffer = np.frombuffer(self.contents, np.uint8)
        try:
            if self.page is None:
                image = cv2.imdecode(buffer, flags)
            else:
                _, pages = cv2.imdecodemulti(buffer, flags, range=(self.page - 1, self.page))
                image = pages[0] if pages else None
        except cv2.error as error:
            raise DataError(f"{self.name}: damaged, its pixels cannot be decoded") from error
        if image is None:
            raise DataError(f"{self.name}: damaged, its pixels cannot be decoded")
        return np.asarray(image)


@functools.cache
def _quiet_libraries() -> None:
    """Private tags of microscopes are no news to a biologist, and what is damaged is said by DataError."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    warnings.filterwarnings("ignore", module=r"PIL\.")


def _read_header(file: IO[bytes], bytes_n: int) -> Header:
    """What a file says of itself: opened once, its pages counted once."""
    _quiet_libraries()
    if not bytes_n:
        return Header(bytes_n=0, fault="the file is empty; export it again")
    is_tiff = file.read(4) in (b"II*\0", b"MM\0*")
    file.seek(0)
    is_jpeg, pixel_um, fault = False, None, None
    sizes_px: list[tuple[int, int]] = []
    try:
        with PIL.Image.open(file, formats=FORMATS) as image:
            is_jpeg = image.format in ("JPEG", "MPO")  # many phones' are two in one, of which the first is it
            sizes_px.append(image.size)
            if image.format == "TIFF":
                pixel_um = _pixel_um(image)
                _seek_pages(image, sizes_px)
    except PIL.Image.DecompressionBombError:
        fault = f"larger than {MAX_PIXELS // 10**6} megapixels; cut it first"
    except Exception:  # Pillow raises many kinds on broken headers
        fault = "not a readable PNG, JPEG, TIFF or BMP image"
        if is_tiff:
            fault = "a damaged TIFF, or one of pixels that are not 8, 16 or float 32 bits"
    return Header(bytes_n=bytes_n, is_jpeg=is_jpeg, sizes_px=tuple(sizes_px), pixel_um=pixel_um, fault=fault)


def _seek_pages(image: PIL.Image.Image, sizes_px: list[tuple[int, int]]) -> None:
    """Add the sizes of a TIFF's pages after the first, but of few more than `MOST_PAGES`: each takes longer."""
    try:
        while len(sizes_px) <= MOST_PAGES:
            image.seek(len(sizes_px))
            sizes_px.append(image.size)
    except EOFError:
        pass


def _pixel_um(image: PIL.Image.Image) -> float | None:
    """Micrometres a pixel, as the description of a TIFF says."""
    try:
        description = str(image.tag_v2.get(270, ""))  # type: ignore[attr-defined]
        pixels_a_unit = float(image.tag_v2.get(282, 0))  # type: ignore[attr-defined]
    except Exception:  # Pillow raises many kinds on broken tags
        return None
    if description.startswith("ImageJ="):
        unit = re.search(r"^unit=(.*)$", description, re.MULTILINE)
        size, name = (1 / pixels_a_unit if pixels_a_unit else 0.0), unit[1] if unit else ""
    else:
        said = re.search(r'PhysicalSizeX="([0-9.eE+-]{1,30})"', description)
        unit = re.search(r'PhysicalSizeXUnit="([^"]*)"', description)
        size, name = _positive(said[1] if said else ""), unit[1] if unit else "µm"
    size *= UNITS_UM.get(name.strip().lower().replace("\\u00b5", "µ").replace("μ", "µ"), 0.0)
    return size if 1e-3 < size < 1e3 else None


def _positive(text: str) -> float:
    try:
        return max(0.0, float(text))
    except ValueError:
        return 0.0


def _to_16_bits(image_HW: NDArray[Any], name: str) -> NDArray[np.uint16]:
    """Values of any other type, from their lowest to their highest, spread over 0..65535."""
    low, high = float(image_HW.min()), float(image_HW.max())
    if not math.isfinite(low - high):
        raise DataError(f"{name}: holds values that are not numbers (NaN or infinite)")
    spread_HW = np.empty(image_HW.shape, np.uint16)
    for top in range(0, len(image_HW), STRIP_ROWS):
        strip = slice(top, top + STRIP_ROWS)
        spread_HW[strip] = np.round((image_HW[strip].astype(np.float64) - low) * (65535 / max(high - low, 1e-300)))
    return spread_HW


def encode_png(image_HW: Pixels) -> bytes:
    """A lossless PNG of 8 or 16 bit grey pixels; light compression, since decoding speed is what counts."""
    done, data = cv2.imencode(".png", image_HW, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise DataError(f"cannot encode pixels of shape {image_HW.shape} and type {image_HW.dtype}")
    return data.tobytes()
