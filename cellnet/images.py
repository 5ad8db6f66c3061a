"""Pixels: decode, stretch, cut, resize, filter. The same functions in training and in serving.

Dimension suffixes, here and everywhere: H height, W width, N any number, B batch, K classes.
"""

import contextlib
import functools
import io
import itertools
import math
import re
import warnings
from typing import IO, Any, Final, Literal, NamedTuple

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from cellnet.config import NETWORK_PX, Intensity, Kernel, Preprocess
from cellnet.errors import DataError

# CLAHE is not among them: on the living-dead crops (ReLU, 20 epochs, three seeds) it counted no better than no kernel,
# 0.508 cells off against 0.505.
KERNELS: Final[dict[Kernel, tuple[tuple[float, ...], ...] | None]] = {
    "none": None,
    "sharpen": ((0, -1, 0), (-1, 5, -1), (0, -1, 0)),
    "edge": ((-1, -1, -1), (-1, 8, -1), (-1, -1, -1)),
    "emboss": ((-2, -1, 0), (-1, 1, 1), (0, 1, 2)),
    "laplacian": ((0, -1, 0), (-1, 4, -1), (0, -1, 0)),
    "unsharp": ((-1 / 16, -2 / 16, -1 / 16), (-2 / 16, 28 / 16, -2 / 16), (-1 / 16, -2 / 16, -1 / 16)),
    "gaussian": ((1 / 16, 2 / 16, 1 / 16), (2 / 16, 4 / 16, 2 / 16), (1 / 16, 2 / 16, 1 / 16)),
}

FORMATS: Final = ("PNG", "JPEG", "TIFF", "BMP")
SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
UNITS_UM: Final = {"µm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4}
"""Micrometres of the units that TIFF files are described in."""
MOST_PAGES: Final = 5000
"""In a file; to count more would take seconds."""
MAX_PIXELS: Final = 100_000_000
"""Largest image that is decoded (10,000 × 10,000); the header is read first."""
STRIP_ROWS: Final = 256
"""Rows converted at a time, since a whole frame in 64 bits would take much memory."""
MAX_PIXELS_A_BYTE: Final = 1000
"""Of a JPEG; one without any detail has at most 260."""

TOLERANCE: Final = 1.1
"""How far a tile may be stretched to divide a frame evenly, as a factor."""


Pages = Literal["middle", "all"] | int
"""Which pages of a file of several are read, counted from 1."""


class Box(NamedTuple):
    """A tile's place in its frame, in pixels, and the weight with which its count enters the frame's."""

    top: int
    left: int
    bottom: int
    right: int
    weight: float = 1.0

    def pixels(self, image_HW: NDArray[Any]) -> NDArray[Any]:
        """The part of the image inside the box."""
        return image_HW[self.top : self.bottom, self.left : self.right]

    def centres_inside(self, centres_N2: NDArray[np.float32]) -> int:
        """How many centres (columns x, y) lie inside; the lower edges belong to the box."""
        x, y = centres_N2[:, 0], centres_N2[:, 1]
        return int(((x >= self.left) & (x < self.right) & (y >= self.top) & (y < self.bottom)).sum())


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


def stretch(image_HW: NDArray[np.uint8] | NDArray[np.uint16], rule: Intensity) -> NDArray[np.uint8]:
    """Grey values 0..255 of a whole frame by the bank's intensity rule; values beyond it saturate."""
    if rule.rule == "percentile":
        low, high = percentiles(image_HW, rule.low, rule.high)
    else:
        low, high = rule.low, rule.high
    scale = 255.0 / max(float(high - low), 1e-6)
    levels = np.arange(np.iinfo(image_HW.dtype).max + 1, dtype=np.float32)
    table = np.clip(np.round((levels - np.float32(low)) * scale), 0, 255).astype(np.uint8)
    return table[image_HW]


def percentiles(image_HW: NDArray[np.uint8] | NDArray[np.uint16], *percents: float) -> list[float]:
    """What np.percentile gives, to the bit, from a count of every grey value: several times faster than sorting."""
    pixels_up_to = np.bincount(image_HW.ravel()).cumsum()
    found = []
    for percent in percents:
        place = (image_HW.size - 1) * (percent / 100)
        below, above = np.searchsorted(pixels_up_to, [int(place), math.ceil(place)], side="right").tolist()
        part = place % 1
        # NumPy counts from the nearer value, and so must this to round alike.
        found.append(below + (above - below) * part if part < 0.5 else above - (above - below) * (1 - part))
    return found


def cut(height: int, width: int, tile_px: tuple[int, int]) -> list[Box]:
    """The tiles that cover a frame, at the magnification of `tile_px`.

    A frame that divides into equal tiles with at most 10 % of stretch is divided; any other is covered by
    tiles of the exact size that overlap evenly. Weights make Σ weight × count the frame's count: a tile's
    weight is the mean, over its pixels, of 1 / (tiles that cover the pixel).
    Raises DataError when the frame is smaller than a tile.
    """
    rows, columns = _spans(height, tile_px[0]), _spans(width, tile_px[1])
    if not rows or not columns:
        raise DataError(
            f"the frame is {width}×{height} pixels, smaller than the {tile_px[1]}×{tile_px[0]} that the "
            "network sees at once; record a larger frame, or train with a smaller tile (--set tile=PIXELS)"
        )
    return [
        Box(top, left, bottom, right, weight_y * weight_x)
        for top, bottom, weight_y in rows
        for left, right, weight_x in columns
    ]


def _spans(length: int, tile: int) -> list[tuple[int, int, float]]:
    """(start, stop, weight) of the tiles along one axis; none when the axis is shorter than a tile."""
    if length * TOLERANCE < tile:
        return []
    n = max(1, round(length / tile))
    if 1 / TOLERANCE <= length / n / tile <= TOLERANCE:
        edges = [round(i * length / n) for i in range(n + 1)]
        return [(start, stop, 1.0) for start, stop in itertools.pairwise(edges)]
    n = math.ceil(length / tile)
    starts = [round(i * (length - tile) / (n - 1)) for i in range(n)]
    covered = np.zeros(length)
    for start in starts:
        covered[start : start + tile] += 1
    return [(start, start + tile, float((1 / covered[start : start + tile]).mean())) for start in starts]


def rescale(image_HW: NDArray[Any], factor: float) -> NDArray[Any]:
    """The image with both sides multiplied by `factor` (area averaging when it shrinks)."""
    if factor == 1.0:
        return image_HW
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    if image_HW.size * factor**2 > MAX_PIXELS:
        raise DataError(f"at the training magnification the frame is over {MAX_PIXELS // 10**6} megapixels; cut it")
    height, width = (max(1, round(side * factor)) for side in image_HW.shape)
    return np.asarray(cv2.resize(image_HW, (width, height), interpolation=how))


def to_network_size(tile_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The tile resized to the network's 200×200 pixels."""
    side = NETWORK_PX
    if tile_HW.shape == (side, side):
        return np.ascontiguousarray(tile_HW)
    how = cv2.INTER_AREA if min(tile_HW.shape) >= side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(tile_HW), (side, side), interpolation=how), np.uint8)


def apply_kernel(image_HW: NDArray[np.uint8], name: Kernel) -> NDArray[np.uint8]:
    """Filter with a named 3×3 kernel; the border is reflected, values saturate at 0 and 255."""
    weights = KERNELS[name]
    if weights is None:
        return image_HW
    filtered = cv2.filter2D(image_HW, -1, np.array(weights, np.float32), borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(filtered, np.uint8)


def scale_and_shift(preprocess: Preprocess) -> tuple[float, float]:
    """By what grey values 0..255 are multiplied, and what is then subtracted, to be what a network takes."""
    return 1 / (255 * preprocess.std), preprocess.mean / preprocess.std


def normalise(tiles_BHW: NDArray[np.uint8], preprocess: Preprocess) -> NDArray[np.float32]:
    """Network input (B, 1, H, W) from 200×200 tiles: the model's kernel, then (grey/255 - mean) / std."""
    filtered_BHW = np.stack([apply_kernel(tile_HW, preprocess.kernel) for tile_HW in tiles_BHW])
    scale, shift = scale_and_shift(preprocess)
    return (filtered_BHW[:, None].astype(np.float32) * scale - shift).astype(np.float32, copy=False)
