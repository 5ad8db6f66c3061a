"""What PNG and JPEG files are made of, counted in the raw bytes before a decoder sees them.

Texts, profiles and notes of cameras cost decoders more than pixels do: a PNG of 7 MB whose texts unpack to gigabytes
takes libpng half a minute, a JPEG of 60 MB of Exif takes Pillow a quarter. No pixel depends on them, so they are left
out. Nor is what a PNG of a few pixels packs behind them unpacked, as libpng would: a gigabyte of nothing is 1 MB.
"""

import struct
import zlib
from collections.abc import Iterable
from typing import IO, Final

PNG: Final = b"\x89PNG\r\n\x1a\n"
JPEG: Final = b"\xff\xd8"
MOST_CHUNKS: Final = 100_000
"""Of a PNG: 100 megapixels in the 8 kB that libpng writes at a time are 25,000."""
MOST_CHUNKS_BESIDE_PIXELS: Final = 16
"""Of those that say how pixels are to be read; each comes once."""
MOST_BESIDE_PIXELS: Final = 2**16
"""Bytes of such a chunk; a palette has 768."""
UNPACKED_HERE: Final = 2**25
"""Bytes of pixels up to which a PNG is unpacked to be measured: of larger ones nobody expects milliseconds."""
UNPACKED_AT_ONCE: Final = 2**22
MOST_SEGMENTS: Final = 4000
"""Before the pixels of a JPEG: a colour profile takes up to 255, a picture in a picture some hundred."""
MOST_TABLES: Final = 2**20
"""Bytes of those that are no notes: tables, and the header of the frame; encoders write some kB."""


class PartsError(Exception):
    """Of what a file has more than an image needs, in words."""


def png_pixels(file: IO[bytes]) -> bytes:
    """A PNG without what no pixel depends on: texts, profiles, other frames.

    Raises PartsError for too many chunks, and where they hold more pixels than the header says.
    """
    return _png(file, whole=True)


def png_head(file: IO[bytes]) -> bytes:
    """The same up to its pixels, of which nothing is read."""
    return _png(file, whole=False)


def _png(file: IO[bytes], *, whole: bool) -> bytes:
    file.seek(len(PNG))
    kept, packed = [PNG], list[memoryview]()
    beside_n = 0
    for _ in range(MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            break  # it ends too early, which decoders say
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IDAT" and not whole:
            return b"".join([*kept, head])
        if kind[0] & 0x20 and kind != b"tRNS":  # a small first letter: not needed to read the pixels
            file.seek(length + 4, 1)
            continue
        if kind != b"IDAT":
            beside_n += 1
            if beside_n > MOST_CHUNKS_BESIDE_PIXELS or length > MOST_BESIDE_PIXELS:
                raise PartsError(_TOO_MANY_CHUNKS)
        data = file.read(length + 4)
        if len(data) < length + 4:  # a decoder would make room for all that it says
            break
        kept += [head, data]
        if kind == b"IDAT":
            packed.append(memoryview(data)[:length])
        if kind == b"IEND":
            break
    else:
        raise PartsError(_TOO_MANY_CHUNKS)
    if packed:
        _check_unpacked(packed, _unpacked_bytes(kept[2] if kept[1][4:] == b"IHDR" else b""))
    return b"".join(kept)


_TOO_MANY_CHUNKS: Final = "a PNG with more chunks than an image needs; save it anew"


def _check_unpacked(packed: Iterable[memoryview], most: int) -> None:
    """Raise PartsError where chunks of pixels unpack to more bytes than there are of them; no more are unpacked."""
    if most > UNPACKED_HERE:
        return
    unpacked_n, unpacker = 0, zlib.decompressobj()
    for part in packed:
        left: bytes | memoryview = part
        while left and not unpacker.eof:
            try:
                unpacked_n += len(unpacker.decompress(left, UNPACKED_AT_ONCE))
            except zlib.error:
                return  # where decoders end, too
            if unpacked_n > most:
                raise PartsError("a PNG that holds more pixels than its header says; save it anew")
            left = unpacker.unconsumed_tail


def _unpacked_bytes(header: bytes) -> int:
    """Bytes that the pixels of a PNG are packed from, by its IHDR: its rows, each behind a byte that says its filter.

    https://www.w3.org/TR/png-3/#7Scanline, and of an interlaced one those of its seven reduced images.
    """
    if len(header) < 13:
        return 0
    width, height, bits, colour, _, _, is_interlaced = struct.unpack(">IIBBBBB", header[:13])
    bits *= {2: 3, 4: 2, 6: 4}.get(colour, 1)
    images = _ADAM7 if is_interlaced else ((0, 1, 0, 1),)
    sizes = ((len(range(x, width, across)), len(range(y, height, down))) for x, across, y, down in images)
    return sum(rows * (1 + (columns * bits + 7) // 8) for columns, rows in sizes if columns)


_ADAM7: Final = (
    (0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2),
)  # fmt: skip
"""First column and every which, first row and every which, of the reduced images of an interlaced PNG."""


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
