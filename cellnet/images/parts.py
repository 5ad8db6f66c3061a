"""What PNG and JPEG files are made of, counted in the raw bytes before a decoder sees them.

Texts, profiles and notes of cameras cost decoders more than pixels do: a PNG of 7 MB whose texts unpack to gigabytes
takes libpng half a minute, a JPEG of 60 MB of Exif takes Pillow a quarter. No pixel depends on them, so they are left
out. Nor does a decoder see a length that no bytes are behind, for which OpenCV would take 4 GB, or what is packed
behind the last pixel, which libpng unpacks to its end.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from typing import IO, Final

import imagecodecs

PNG: Final = b"\x89PNG\r\n\x1a\n"
JPEG: Final = b"\xff\xd8"
MOST_CHUNKS: Final = 100_000
"""Of a PNG: 100 megapixels in the 8 kB that libpng writes at a time are 25,000."""
MOST_CHUNKS_BESIDE_PIXELS: Final = 16
"""Of those that say how pixels are to be read; each comes once."""
MOST_BESIDE_PIXELS: Final = 2**16
"""Bytes of such a chunk; a palette has 768."""
MOST_UNPACKED: Final = 2**26
"""Bytes of pixels that are unpacked before the decoder; larger images are read where a decoder can be ended."""
BEHIND_PIXELS: Final = 2**16
"""Bytes that may follow the last pixel, as some encoders write them."""
MOST_SEGMENTS: Final = 4000
"""Before the pixels of a JPEG: a colour profile takes up to 255, a picture in a picture some hundred."""
MOST_TABLES: Final = 2**20
"""Bytes of those that are no notes: tables, and the header of the frame; encoders write some kB."""


class PartsError(Exception):
    """Of what a file has more than an image needs, in words."""


def png_pixels(file: IO[bytes]) -> bytes:
    """A PNG without what no pixel depends on: texts, profiles, other frames, what follows the last pixel.

    Its pixels are not packed, unless they are many. Raises PartsError for too many chunks, or more than pixels in them.
    """
    kept = list(_png(file, whole=True))
    places = [place for place, data in enumerate(kept) if data[4:8] == b"IDAT"]
    expected = _pixel_bytes(kept[1]) if places else 0
    if not 0 < expected <= MOST_UNPACKED:
        return b"".join(kept)
    pixels = _unpacked(b"".join(kept[place][8:-4] for place in places), expected)
    if pixels is not None:
        kept[places[0]] = _chunk(b"IDAT", zlib.compress(pixels, 0))
        for place in places[1:]:
            kept[place] = b""
    return b"".join(kept)


def png_head(file: IO[bytes]) -> bytes:
    """The same up to its pixels, of which nothing is read."""
    return b"".join(_png(file, whole=False))


def _png(file: IO[bytes], *, whole: bool) -> Iterator[bytes]:
    """The signature, and the chunks that are needed, as far as they are there whole."""
    file.seek(len(PNG))
    yield PNG
    beside_n = 0
    for _ in range(MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            return  # it ends too early, which decoders say
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IDAT" and not whole:
            yield head
            return
        if kind[0] & 0x20 and kind != b"tRNS":  # a small first letter: not needed to read the pixels
            file.seek(length + 4, 1)
            continue
        if kind != b"IDAT":
            beside_n += 1
            if beside_n > MOST_CHUNKS_BESIDE_PIXELS or length > MOST_BESIDE_PIXELS:
                break
        data = file.read(length + 4)
        if len(data) < length + 4:
            return
        yield head + data
        if kind == b"IEND":
            return
    raise PartsError("a PNG with more chunks than an image needs; save it anew")


def _pixel_bytes(header: bytes) -> int:
    """Bytes of the pixels before they are packed, a byte more each row of a pass; 0 of what is no header."""
    if header[4:8] != b"IHDR" or len(header) != 25:
        return 0
    width, height, depth, colour, _, _, passes = struct.unpack(">IIBBBBB", header[8:21])
    bits = depth * _SAMPLES.get(colour, 0)
    total = 0
    for left, top, across, down in _ADAM7 if passes else _ONE_PASS:
        columns, rows = math.ceil((width - left) / across), math.ceil((height - top) / down)
        if columns > 0 and rows > 0:
            total += rows * (1 + math.ceil(columns * bits / 8))
    return total if bits else 0


_SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Of a pixel, by the type of colour."""
_ONE_PASS: Final = ((0, 0, 1, 1),)
_ADAM7: Final = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip
"""Where each pass of an interlaced image begins, and its steps: https://www.w3.org/TR/png-3/#8Interlace"""


def _unpacked(packed: bytes, expected: int) -> bytes | None:
    """The pixels; None where what is packed is damaged, which decoders say. Raises PartsError for more than these."""
    try:
        return bytes(imagecodecs.deflate_decode(packed, out=expected + BEHIND_PIXELS)[:expected])
    except imagecodecs.DeflateError as error:
        if "INSUFFICIENT_SPACE" not in str(error):
            return None
    raise PartsError("a PNG that unpacks to more than its pixels; save it anew")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def jpeg_head(file: IO[bytes]) -> bytes:
    """A JPEG up to its pixels, without the notes of programs and cameras. Raises PartsError for too many segments."""
    file.seek(len(JPEG))
    kept, tables_left = [JPEG], MOST_TABLES
    for _ in range(MOST_SEGMENTS):
        head = file.read(2)
        if len(head) < 2 or head[0] != 0xFF:
            return b"".join(kept)
        marker = head[1]
        if marker == 0xFF:  # what fills up
            file.seek(-1, 1)
        elif marker == 0x00:  # no marker, but what stands for a byte of pixels
            continue
        elif marker != 0x01 and not 0xD0 <= marker <= 0xD8:  # those have no length
            size = file.read(2)
            length = int.from_bytes(size) - 2
            if length < 0 or len(size) < 2:
                return b"".join(kept)
            if 0xE0 <= marker <= 0xEF or marker == 0xFE:
                file.seek(length, 1)
            else:
                kept += [head, size, file.read(length)]
                tables_left -= length
                if tables_left < 0:
                    break
            if marker == 0xDA:
                return b"".join(kept)
    raise PartsError("a JPEG with more segments than an image needs; save it anew")
