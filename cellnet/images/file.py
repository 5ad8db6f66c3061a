"""Image files: their headers, pages and pixels."""

import contextlib
import functools
import io
import math
import re
import warnings
from typing import IO, Any, Final, Literal

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from cellnet.errors import DataError
from cellnet.images.pixels import MAX_PIXELS

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


@functools.cache
def _quiet_libraries() -> None:
    """Private tags of microscopes are no news to a biologist, and what is damaged is said by DataError."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    warnings.filterwarnings("ignore", module=r"PIL\.")


def decode(
    data: bytes, *, name: str, page: int | None = None, most: int = MAX_PIXELS
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Grey pixels (H, W) as recorded, 8 or 16 bits, from the bytes of a PNG, JPEG, TIFF or BMP file.

    `page` is the one to read, from 1; None stands for the only one. Colour becomes luminance, transparency is
    dropped, float pixels are spread over 16 bits. Raises DataError, naming `name`, for what is unreadable, empty,
    blank, of several pages when none is chosen, or over `most` pixels, at most 100 megapixels.
    """
    _check_header(data, name, page, most)
    image = _imdecode(data, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION, name, page)
    if image.dtype not in (np.uint8, np.uint16):
        image = _to_16_bits(image, name)
    if image.min() == image.max():
        raise DataError(f"{name}: blank, every pixel has the value {image.flat[0]}")
    return image


def pixel_size_um(data: bytes) -> float | None:
    """Micrometres a pixel, as an OME-TIFF or a TIFF of ImageJ says in its description; None where none is said.

    The plain resolution tags are not asked: instruments write the camera's pixel there, or a printer's.
    """
    try:
        with PIL.Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
            description = str(image.tag_v2.get(270, ""))  # type: ignore[attr-defined]
            pixels_a_unit = float(image.tag_v2.get(282, 0))  # type: ignore[attr-defined]
    except Exception:  # Pillow raises many kinds on what is no TIFF
        return None
    if description.startswith("ImageJ="):
        unit = re.search(r"^unit=(.*)$", description, re.MULTILINE)
        size, name = (1 / pixels_a_unit if pixels_a_unit else 0.0), unit[1] if unit else ""
    else:
        found = re.search(r'PhysicalSizeX="([0-9.eE+-]{1,30})"', description)
        unit = re.search(r'PhysicalSizeXUnit="([^"]*)"', description)
        size, name = _positive(found[1] if found else ""), unit[1] if unit else "µm"
    size *= UNITS_UM.get(name.strip().lower().replace("\\u00b5", "µ").replace("μ", "µ"), 0.0)
    return size if 1e-3 < size < 1e3 else None


def _positive(text: str) -> float:
    try:
        return max(0.0, float(text))
    except ValueError:
        return 0.0


def cells_of_mask(data: bytes, *, name: str, size: tuple[int, int]) -> NDArray[np.float64]:
    """The centres (N, 2) of the cells of an instance mask, columns x and y: the mean place of each number but 0.

    Raises DataError, naming `name`, for what is unreadable, of several channels, not of the frame's size (H, W), or
    a mask of cells that are not numbered.
    """
    _check_header(data, name)
    mask_HW = _imdecode(data, cv2.IMREAD_UNCHANGED, name)
    if mask_HW.shape != size:
        seen = "×".join(map(str, mask_HW.shape))
        raise DataError(f"{name}: the mask is {seen}, not one channel of {size[0]}×{size[1]} like its frame")
    y_N, x_N = np.nonzero(mask_HW)
    number_K, cell_N, pixels_K = np.unique(mask_HW[y_N, x_N], return_inverse=True, return_counts=True)
    if len(number_K) == 1 and cv2.connectedComponents((mask_HW > 0).astype(np.uint8))[0] > 2:
        raise DataError(f"{name}: every cell has the number {number_K[0]}; give each cell a number of its own")
    return np.stack([np.bincount(cell_N, axis_N) for axis_N in (x_N, y_N)], axis=1) / pixels_K[:, None]


def pixels_n(data: bytes) -> int:
    """How many pixels the first page has, as its header says; 0 of what is no image."""
    _quiet_libraries()
    try:
        with PIL.Image.open(io.BytesIO(data), formats=FORMATS) as header:
            return int(header.width) * int(header.height)
    except Exception:  # Pillow raises many kinds on broken headers
        return 0


def choose_pages(file: IO[bytes], wanted: Pages | None, *, name: str) -> list[int | None]:
    """The pages of an image file to read, from 1: the middle one, all, or one by its number; [None] for a single one.

    Raises DataError, naming `name`, where there is no such page; a file that is no image is left to `decode`.
    """
    try:
        with PIL.Image.open(file, formats=FORMATS) as header:
            pages = _pages_n(header)
    except Exception:  # Pillow raises many kinds on broken headers
        return [None]
    if pages > MOST_PAGES:
        raise DataError(f"{name}: holds over {MOST_PAGES} pages; save it in parts")
    if isinstance(wanted, int) and wanted > pages:
        raise DataError(f"{name}: holds {pages} page{'s' * (pages != 1)}, so there is no page {wanted}")
    if pages == 1 or wanted is None:
        return [None]
    if wanted == "all":
        return list(range(1, pages + 1))
    return [wanted if isinstance(wanted, int) else pages // 2 + 1]


def _pages_n(image: PIL.Image.Image) -> int:
    """Pages of a TIFF, counted up to one more than `MOST_PAGES`, since that takes longer for each; 1 of all else."""
    pages = 1
    if image.format == "TIFF":
        with contextlib.suppress(EOFError):
            while pages <= MOST_PAGES:
                image.seek(pages)
                pages += 1
    return pages


def _check_header(data: bytes, name: str, page: int | None = None, most: int = MAX_PIXELS) -> None:
    """Raise DataError unless the bytes begin like one image, or have that page, of a size that may be decoded."""
    _quiet_libraries()
    if not data:
        raise DataError(f"{name}: the file is empty; export it again")
    try:
        with PIL.Image.open(io.BytesIO(data), formats=FORMATS) as header:
            is_jpeg = header.format in ("JPEG", "MPO")  # many phones' are two in one, of which the first is it
            width, height = header.size
            pages = _pages_n(header) if page is None else 1
            if page is not None:
                header.seek(page - 1)
                width, height = header.size
    except PIL.Image.DecompressionBombError as error:
        raise DataError(f"{name}: larger than {MAX_PIXELS // 10**6} megapixels; cut it first") from error
    except Exception as error:  # Pillow raises many kinds on broken headers
        if data.startswith((b"II*\0", b"MM\0*")):
            raise DataError(f"{name}: a damaged TIFF, or one of pixels that are not 8, 16 or float 32 bits") from error
        raise DataError(f"{name}: not a readable PNG, JPEG, TIFF or BMP image") from error
    if width * height > most:
        raise DataError(f"{name}: {width}×{height} is over {most / 1e6:g} megapixels; cut it first")
    if is_jpeg and width * height > MAX_PIXELS_A_BYTE * len(data):  # libjpeg would make up the rest
        raise DataError(f"{name}: damaged, {len(data)} bytes cannot hold its {width}×{height} pixels")
    if pages > 1 and page is None:
        raise DataError(f"{name}: holds {pages} pages; choose: page middle, all, or a number")


def _imdecode(data: bytes, flags: int, name: str, page: int | None = None) -> NDArray[Any]:
    _quiet_libraries()
    buffer = np.frombuffer(data, np.uint8)
    try:
        if page is None:
            image = cv2.imdecode(buffer, flags)
        else:
            _, pages = cv2.imdecodemulti(buffer, flags, range=(page - 1, page))
            image = pages[0] if pages else None
    except cv2.error as error:
        raise DataError(f"{name}: damaged, its pixels cannot be decoded") from error
    if image is None:
        raise DataError(f"{name}: damaged, its pixels cannot be decoded")
    return np.asarray(image)


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


def encode_png(image_HW: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """A lossless PNG of 8 or 16 bit grey pixels; light compression, since decoding speed is what counts."""
    done, data = cv2.imencode(".png", image_HW, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise DataError(f"cannot encode pixels of shape {image_HW.shape} and type {image_HW.dtype}")
    return data.tobytes()
