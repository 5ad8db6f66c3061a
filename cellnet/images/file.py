"""Image files as they come: a header that is read once, and pixels that are decoded on request.

One rule for how an image lies: as it is stored. Tags that tell a viewer to turn it (TIFF's orientation, JPEG's Exif)
are passed over, for frames and masks alike, as ImageJ does, so that points which were set in ImageJ fit.
"""

import contextlib
import errno
import functools
import io
import math
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, BinaryIO, Final, Literal, Self

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from cellnet.errors import DataError, encodable
from cellnet.images import parts, tiff
from cellnet.images.channels import SHOWN_LETTERS, ChannelError, listed, wanted_channel
from cellnet.images.formats import FIRST_BYTES, NO_IMAGE, name_of_format
from cellnet.images.parts import PartsError
from cellnet.images.pixels import MAX_PIXELS, Pixels
from cellnet.images.tiff import STRIP_ROWS, Plane, Structure, TiffError
from cellnet.store.paths import AnyPath, BucketPath
from cellnet.store.regular import kind_of_file, open_file

FORMATS: Final = ("PNG", "JPEG", "BMP")
"""Read by OpenCV; TIFF is read by cellnet/images/tiff.py."""
SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
MAX_PIXELS_A_BYTE: Final = 1000
"""Of a JPEG; one without any detail has at most 260."""
MOST_BYTES: Final = 10**9
"""Of an image file that is held in memory; a larger one is not read."""
HELD_BYTES: Final = 256 * 10**6
"""Of a TIFF on the disk: a larger one is not held in memory, only the plane that is decoded."""
SQUARE: Final = 0.02
"""How much the sides of a pixel may differ."""

Pages = Literal["middle", "all"] | int
"""Which pages of a file of several are read, counted from 1."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says of itself, none of its pixels being decoded."""

    bytes_n: int
    """Of the whole file; -1 of one that could not be opened."""
    kind: str = ""
    """PNG, JPEG, BMP or TIFF."""
    is_palette: bool = False
    """Of a PNG or BMP: whether its values are the numbers of colours."""
    structure: Structure = field(default=Structure(planes=()))
    """Its planes, which are pages to people, their channels and pixel sizes."""
    fault: str | None = None
    """Why nothing can be decoded."""


@dataclass(frozen=True)
class ImageFile:
    """A file as it comes, perhaps no image at all, and which of its pages is meant.

    What it raises is a DataError that names it. Nothing is decoded before the header said how large it is.
    """

    name: str
    """As messages name it."""
    contents: bytes | AnyPath = field(repr=False)
    """Its bytes, or where they lie: on the disk, or in a bucket."""
    page: int | None = None
    """From 1; None stands for the only one, or for the middle of a stack."""
    channel: str | None = None
    """Name or number, from 1, of the channel that is meant of several; None for that of transmitted light."""
    known: Header | None = field(default=None, repr=False, compare=False)
    """The header, where it was read before; also in another process."""

    @classmethod
    def at(cls, path: AnyPath) -> Self:
        """A file that is not opened yet."""
        return cls(encodable(path.name), path)

    @property
    def path(self) -> AnyPath:
        """Where it lies; not known of bytes."""
        assert not isinstance(self.contents, bytes), f"{self.name} is in memory"
        return self.contents

    @property
    def place(self) -> str:
        """Where it lies, as a text; of bytes, its name."""
        return self.name if isinstance(self.contents, bytes) else str(self.contents)

    @property
    def stamp(self) -> tuple[int, str | int] | None:
        """Its size, and when it was changed last, or its ETag; None of bytes, and of what is not there."""
        if isinstance(self.contents, bytes):
            return None
        try:
            status = self.contents.stat()
        except (OSError, ValueError):  # ValueError: a name that no file can have
            return None
        return status.st_size, getattr(status, "etag", "") or status.st_mtime_ns

    @property
    def mark(self) -> str:
        """What tells its page from the others behind a name: #3, or nothing."""
        return "" if self.page is None else f"#{self.page}"

    @property
    def header(self) -> Header:
        """Read at first use, without the rest of the file."""
        header = self.known or self._read_header()
        object.__setattr__(self, "known", header)  # the file is what it was, and only known now
        return header

    @property
    def pixels_n(self) -> int:
        """How many pixels its page has, as the header says; the first page of several; 0 of what is no image."""
        planes = self.header.structure.planes[(self.page or 1) - 1 :]
        return math.prod(planes[0].size_px) if planes else 0

    @property
    def pixel_um(self) -> float | None:
        """Micrometres a pixel, as OME-XML, ImageJ or MetaXpress say in a TIFF; None where none is said.

        Raises DataError for pixels that are not square.
        """
        structure = self.header.structure
        if not structure.planes:
            return None
        plane = structure.planes[(self.page or 1) - 1 :][:1] or structure.planes[:1]
        size = structure.pixels_um[plane[0].series]
        if size is None:
            return None
        if abs(size[0] / size[1] - 1) > SQUARE:
            raise DataError(
                f"{self.name}: its pixels are {size[0]:g} µm wide and {size[1]:g} µm high; resample it to "
                "square pixels, or say pixel_um yourself to take it as it is"
            )
        return size[0]

    def read(self, most: int = MOST_BYTES) -> bytes:
        """Its bytes. Raises DataError for what cannot be read, or is over `most` bytes, which is then not read."""
        if isinstance(self.contents, bytes):
            return self.contents
        try:
            if isinstance(self.contents, BucketPath):
                self._check_size(self.contents.stat().st_size, most)
                return self.contents.read_bytes(most)
            with open_regular(self.contents) as file:
                self._check_size(os.fstat(file.fileno()).st_size, most)
                return file.read(most)  # and no more of one that grows
        except (OSError, ValueError) as error:
            raise DataError(f"{self.name}: cannot be read: {_why(error)}") from error

    def in_memory(self, most: int = MOST_BYTES) -> Self:
        """The same file, its bytes held; its header is read again only of a file that changed. Raises as `read`.

        A large TIFF on the disk stays there: of a stack of gigabytes one plane is read.
        """
        if isinstance(self.contents, Path) and _is_large_tiff(self.contents):
            return self
        data = self.read(most)
        known = self.known if self.known and self.known.bytes_n == len(data) else None
        return replace(self, contents=data, known=known)

    def too_large_to_send(self) -> DataError:
        """What is said of a file that stays on its disk, where a machine is to read it that has not that disk."""
        return DataError(
            f"{self.name}: over {HELD_BYTES // 10**6:,} MB, and not every machine of the cluster sees it; put it into "
            "a folder that all share, or into a bucket"
        )

    def pages(self, wanted: Pages | None, channel: str | None = None) -> list[Self]:
        """The pages to read: by default the middle of a stack, or all, or one by its number; else the only one.

        Pages are those of one channel: the one that is named (or numbered, from 1), else that of transmitted light.
        Raises ChannelError where nobody can tell which channel is meant, DataError where there is no such page, or
        none is wanted and the file does not say what its pages are; a file that is no image is left to `decode`.
        """
        channel = channel or self.channel
        pages = self._choose(wanted, channel)
        return [replace(self, page=page, channel=channel, known=self.header) for page in pages]

    def decode(self, *, most: int = MAX_PIXELS) -> Pixels:
        """Grey pixels (H, W) as recorded, 8 or 16 bits, of a PNG, JPEG, TIFF or BMP file.

        Colour becomes luminance, transparency is dropped, float pixels are spread over 16 bits. Raises DataError for
        what is unreadable, empty, blank, of several pages or channels when none is chosen, or over `most` pixels, at
        most 100 megapixels.
        """
        with self._opened() as (image, file):
            plane = image._plane(most)
            if image.header.kind == "TIFF":
                image_HW = _translated(self.name, tiff.read_plane, file, image.header.bytes_n, plane, most=most)
            else:
                image_HW = image._decode(
                    cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION, file
                )
        if image_HW.dtype not in (np.uint8, np.uint16):
            image_HW = _to_16_bits(image_HW, self.name)
        if image_HW.min() == image_HW.max():
            raise DataError(f"{self.name}: blank, every pixel has the value {image_HW.flat[0]}")
        return image_HW

    def decode_values(self) -> NDArray[Any]:
        """Values (H, W) or (H, W, channels) of any type, as stored: of a mask, and the numbers of a palette's colours.

        Raises as `decode`.
        """
        with self._opened() as (image, file):
            plane = image._plane(MAX_PIXELS)
            if image.header.kind == "TIFF":
                return _translated(self.name, tiff.read_values, file, image.header.bytes_n, plane)
            return image._numbers(file) if image.header.is_palette else image._decode(cv2.IMREAD_UNCHANGED, file)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[Self, IO[bytes]]]:
        """The file with a header that is its own, though it changed since, and a stream of its bytes."""
        image = self.in_memory()
        if isinstance(image.contents, bytes):
            yield image, io.BytesIO(image.contents)
            return
        assert isinstance(image.contents, Path)
        try:
            with open_regular(image.contents) as file:
                if image.known and image.known.bytes_n != os.fstat(file.fileno()).st_size:
                    image = replace(image, known=None)
                yield image, file
        except OSError as error:
            raise DataError(f"{self.name}: cannot be read: {_why(error)}") from error

    def _check_size(self, bytes_n: int, most: int) -> None:
        if bytes_n > most:
            raise DataError(f"{self.name}: over {most // 10**9} GB, so it was not read; cut it, or save single pages")

    def _read_header(self) -> Header:
        if isinstance(self.contents, bytes):
            return _read_header(io.BytesIO(self.contents), len(self.contents), self.name)
        try:
            with open_regular(self.contents) as file:
                bytes_n = file.seek(0, os.SEEK_END)
                file.seek(0)
                return _read_header(file, bytes_n, self.name)
        except (OSError, ValueError) as error:
            return Header(bytes_n=-1, fault=f"cannot be read: {_why(error)}")

    def _choose(self, wanted: Pages | None, channel: str | None) -> list[int | None]:
        """Numbers of pages, from 1; [None] of a single one, and of what is no image."""
        structure = self.header.structure
        if self.header.fault:
            return [None]
        if isinstance(wanted, int):
            self._check_page(wanted)
        is_single = len(structure.planes) == 1
        if isinstance(wanted, int) and channel is None and not is_single:
            return [wanted]
        place, names = self._channel(channel), structure.channels
        numbers = [number for number, plane in enumerate(structure.planes, 1) if plane.channel == place]
        if not numbers:
            what = f"{place + 1} {names[place][:SHOWN_LETTERS]}".strip()
            raise ChannelError(f"{self.name}: its channel {what} is said to be in another file; give that one", names)
        if is_single:
            return [None]
        if isinstance(wanted, int):
            if wanted not in numbers:
                raise DataError(
                    f"{self.name}: page {wanted} is of another channel than {channel}; leave one of them out"
                )
            return [wanted]
        if wanted == "all":
            return list(numbers)
        planes = {number: structure.planes[number - 1] for number in numbers}
        images = sorted({(plane.series, plane.time) for plane in planes.values()})
        if wanted is None and len(numbers) > 1 and (len(images) > 1 or not structure.is_stack):
            what = f"{len(images)} images" if len(images) > 1 else f"{len(numbers)} pages"
            raise DataError(f"{self.name}: holds {what}; choose: page middle, all, or a number")
        chosen = images[len(images) // 2]
        stack = sorted((plane.z, number) for number, plane in planes.items() if (plane.series, plane.time) == chosen)
        return [stack[len(stack) // 2][1]]

    def _channel(self, wanted: str | None) -> int:
        """The place of the channel that is meant."""
        structure = self.header.structure
        names = structure.channels
        if wanted is not None:
            place = wanted_channel(names, wanted)
            if place is None and names == ("",):
                return 0  # of which nobody says what it is
            if place is None:
                raise ChannelError(f"{self.name}: has no channel {wanted!r}; it has {listed(names)}", names)
            return place
        if len(names) == 1:
            return 0
        if len(structure.transmitted) == 1:
            return structure.transmitted[0]
        seen = "several of transmitted light among its" if structure.transmitted else "no transmitted light among its"
        raise ChannelError(f"{self.name}: {seen} {len(names)} channels; choose a channel: {listed(names)}", names)

    def _check_page(self, page: int) -> None:
        pages_n = len(self.header.structure.planes)
        if page > pages_n:
            raise DataError(f"{self.name}: holds {pages_n} page{'s' * (pages_n != 1)}, so there is no page {page}")

    def _plane(self, most: int) -> Plane:
        """The plane that is meant. Raises DataError unless it is there, and of a size that may be decoded."""
        header = self.header
        if header.fault:
            raise DataError(f"{self.name}: {header.fault}")
        self._check_page(self.page or 1)
        page = self.page or self._choose(None, self.channel)[0] or 1
        plane = header.structure.planes[page - 1]
        width, height = plane.size_px
        if width * height > most:
            raise DataError(f"{self.name}: {width}×{height} is over {most / 1e6:g} megapixels; cut it first")
        if header.kind == "JPEG" and width * height > MAX_PIXELS_A_BYTE * header.bytes_n:  # libjpeg makes up the rest
            raise DataError(f"{self.name}: damaged, {header.bytes_n} bytes cannot hold its {width}×{height} pixels")
        return plane

    def _numbers(self, file: IO[bytes]) -> NDArray[Any]:
        """The numbers of colours of a palette, (H, W), which OpenCV does not tell."""
        try:
            with PIL.Image.open(io.BytesIO(self._bytes(file)), formats=FORMATS) as opened:
                return np.asarray(opened)
        except DataError:
            raise
        except Exception as error:  # Pillow raises many kinds on broken files
            raise DataError(f"{self.name}: damaged, its pixels cannot be decoded") from error

    def _decode(self, flags: int, file: IO[bytes]) -> NDArray[Any]:
        """By OpenCV, which takes whole files."""
        data = self._bytes(file)
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except cv2.error as error:
            raise DataError(f"{self.name}: damaged, its pixels cannot be decoded") from error
        if image is None:
            raise DataError(f"{self.name}: damaged, its pixels cannot be decoded")
        return np.asarray(image)

    def _bytes(self, file: IO[bytes]) -> bytes:
        """What a decoder is given of the file. Raises DataError for what would cost it more than an image may."""
        if self.header.kind == "PNG":
            try:
                return parts.png_pixels(file)
            except PartsError as error:
                raise DataError(f"{self.name}: {error}") from error
        file.seek(0)
        data = file.read()
        if self.header.kind == "JPEG" and data.count(b"\xff\xda") > tiff.MOST_SCANS:  # each goes over all pixels
            raise DataError(f"{self.name}: a JPEG of over {tiff.MOST_SCANS} scans; save it anew, without progress")
        return data


def open_regular(path: str | AnyPath) -> BinaryIO:
    """A file, to be read. Raises OSError for what is none, which is not opened: a pipe would be waited for.

    `strerror` then says what it is.
    """
    if isinstance(path, BucketPath):
        return path.open()
    assert isinstance(path, str | Path)
    return open_file(path)


def _why(error: OSError | ValueError) -> str:
    """Why a file cannot be opened; ValueError is of names that none can have."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def missing(path: str | AnyPath) -> str:
    """Why a path is neither a file nor a folder, as a sentence without its subject."""
    if isinstance(path, BucketPath):
        return "is no object, and there is none below it"
    assert isinstance(path, str | Path)
    try:
        return f"is {kind_of_file(os.stat(path).st_mode)}, no file"
    except OSError as error:
        return "is a link that leads in a circle" if error.errno == errno.ELOOP else "does not exist"
    except ValueError:
        return "does not exist"


def _translated(name: str, read: Callable[..., NDArray[Any]], *arguments: Any, **options: Any) -> NDArray[Any]:
    """What a reader of TIFF gives, its errors those of a file with a name."""
    try:
        return read(*arguments, **options)
    except TiffError as error:
        raise DataError(f"{name}: {error}") from error


def _is_large_tiff(path: Path) -> bool:
    try:
        if path.stat().st_size <= HELD_BYTES:
            return False
        with open_regular(path) as file:
            return file.read(4) in tiff.STARTS
    except (OSError, ValueError):
        return False  # said when it is read


@functools.cache
def _quiet_libraries() -> None:
    """Private tags of microscopes are no news to a biologist, and what is damaged is said by DataError."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    warnings.filterwarnings("ignore", module=r"PIL\.")


def _read_header(file: IO[bytes], bytes_n: int, name: str) -> Header:
    """What a file says of itself: opened once, its pages counted once."""
    _quiet_libraries()
    if not bytes_n:
        return Header(bytes_n=0, fault="the file is empty; export it again")
    start = file.read(FIRST_BYTES)
    if named := name_of_format(start, name):
        return Header(bytes_n=bytes_n, fault=named)
    try:
        if start[:4] in tiff.STARTS:
            return Header(bytes_n=bytes_n, kind="TIFF", structure=tiff.read_structure(file, bytes_n, name))
        with PIL.Image.open(_head(file, start), formats=FORMATS) as image:
            structure = Structure(planes=(Plane(size_px=image.size),))
            return Header(bytes_n=bytes_n, kind=str(image.format), is_palette=image.mode == "P", structure=structure)
    except (TiffError, PartsError) as error:
        fault = str(error)
    except PIL.Image.DecompressionBombError:
        fault = f"larger than {MAX_PIXELS // 10**6} megapixels; cut it first"
    except Exception:  # Pillow raises many kinds on broken headers
        fault = NO_IMAGE
    return Header(bytes_n=bytes_n, fault=fault)


def _head(file: IO[bytes], start: bytes) -> IO[bytes]:
    """As much of a file as its size is told by."""
    if start.startswith(parts.PNG):
        return io.BytesIO(parts.png_head(file))
    if start.startswith(parts.JPEG):
        return io.BytesIO(parts.jpeg_head(file))
    file.seek(0)
    return file


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
