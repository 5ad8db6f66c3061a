"""What PNG and JPEG files are made of, counted in the raw bytes before a decoder sees them.

Texts, profiles and notes of cameras cost decoders more than pixels do: a PNG of 7 MB whose texts unpack to gigabytes
takes libpng half a minute, a JPEG of 60 MB of Exif takes Pillow a quarter. No pixel depends on them, so they are left
out.
"""

import struct
from typing import IO, Final

PNG: Final = b"\x89PNG\r\n\x1a\n"
JPEG: Final = b"\xff\xd8"
MOST_CHUNKS: Final = 100_000
"""Of a PNG: 100 megapixels in the 8 kB that libpng writes at a time are 25,000."""
MOST_CHUNKS_BESIDE_PIXELS: Final = 16
"""Of those that say how pixels are to be read; each comes once."""
MOST_BESIDE_PIXELS: Final = 2**16
"""Bytes of such a chunk; a palette has 768."""
MOST_SEGMENTS: Final = 4000
"""Before the pixels of a JPEG: a colour profile takes up to 255, a picture in a picture some hundred."""
MOST_TABLES: Final = 2**20
"""Bytes of those that are no notes: tables, and the header of the frame; encoders write some kB."""


class PartsError(Exception):
    """Of what a file has more than an image needs, in words."""


def png_pixels(file: IO[bytes]) -> bytes:
    """A PNG without what no pixel depends on: texts, profiles, other frames. Raises PartsError for too many chunks."""
    return _png(file, whole=True)


def png_head(file: IO[bytes]) -> bytes:
    """The same up to its pixels, of which nothing is read."""
    return _png(file, whole=False)


def _png(file: IO[bytes], *, whole: bool) -> bytes:
    file.seek(len(PNG))
    kept = [PNG]
    beside_n = 0
    for _ in range(MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            return b"".join(kept)  # it ends too early, which decoders say
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IDAT" and not whole:
            return b"".join([*kept, head])
        if kind[0] & 0x20 and kind != b"tRNS":  # a small first letter: not needed to read the pixels
            file.seek(length + 4, 1)
            continue
        if kind != b"IDAT":
            beside_n += 1
            if beside_n > MOST_CHUNKS_BESIDE_PIXELS or length > MOST_BESIDE_PIXELS:
                break
        kept += [head, file.read(length + 4)]
        if kind == b"IEND":
            return b"".join(kept)
    raise PartsError("a PNG with more chunks than an image needs; save it anew")


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
