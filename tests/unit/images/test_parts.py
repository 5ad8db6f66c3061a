"""What costs decoders time, and no pixel depends on, is left out; too much of it is refused before one runs."""

import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from cellnet.errors import DataError
from cellnet.images import parts
from cellnet.images.file import ImageFile, encode_png
from cellnet.images.parts import PartsError, jpeg_head, png_head, png_pixels
from tests.factories import clouds, noise

NOISE = noise(60, 80)


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


TEXT = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1000)))
FRAME = chunk(b"fcTL", bytes(26)) + chunk(b"fdAT", bytes(9))


def png(before: bytes = b"", after: bytes = b"") -> bytes:
    """NOISE, with other chunks before and after its pixels."""
    data = encode_png(NOISE)
    start, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
    return data[:start] + before + data[start:end] + after + data[end:]


def jpeg(before: bytes = b"") -> bytes:
    """An image of clouds, with other segments before all."""
    file = io.BytesIO()
    PIL.Image.fromarray(clouds(60, 80)).save(file, "JPEG")
    return file.getvalue()[:2] + before + file.getvalue()[2:]


def segment(marker: int, data: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def refusal(data: bytes) -> str:
    with pytest.raises(DataError) as caught:
        ImageFile("x", data).decode()
    return str(caught.value)


@pytest.mark.parametrize("extra", [TEXT, FRAME, chunk(b"acTL", bytes(8)), chunk(b"eXIf", b"II*\0\x08\0\0\0\0\0")])
def test_texts_notes_and_other_frames_reach_no_decoder_and_change_no_pixel(extra: bytes) -> None:
    data = png(extra * 50, extra * 50)
    assert (ImageFile("x", data).decode() == NOISE).all()
    assert png_pixels(io.BytesIO(data)) == png_pixels(io.BytesIO(encode_png(NOISE)))
    assert png_head(io.BytesIO(data)) == encode_png(NOISE)[: encode_png(NOISE).index(b"IDAT") + 4]


def test_the_transparent_colour_and_the_palette_stay() -> None:
    file = io.BytesIO()
    PIL.Image.fromarray(NOISE).convert("P").save(file, "PNG", transparency=3, dpi=(72, 72))
    slim = png_pixels(file)
    assert b"tRNS" in slim and b"PLTE" in slim and b"pHYs" not in slim


@pytest.mark.parametrize(
    "data",
    [
        png(chunk(b"PLTE", bytes(3)) * 20),
        png(chunk(b"teXt") * parts.MOST_CHUNKS),
        png(b"", chunk(b"IDAT") * parts.MOST_CHUNKS),
        png(chunk(b"PLTE", bytes(parts.MOST_BESIDE_PIXELS + 1))),
    ],
    ids=["palettes", "texts", "parts of pixels", "a palette of 64 kB"],
)
def test_a_png_of_too_many_chunks_is_refused(data: bytes) -> None:
    assert refusal(data) == "x: a PNG with more chunks than an image needs; save it anew"


def pixels_of(width: int, height: int, packed: bytes, depth: int = 8, colour: int = 0, passes: int = 0) -> bytes:
    """A PNG of such a header, and of these packed pixels in four chunks."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, passes))
    quarter = max(1, len(packed) // 4)
    chunks = (chunk(b"IDAT", packed[start : start + quarter]) for start in range(0, len(packed), quarter))
    return parts.PNG + header + b"".join(chunks) + chunk(b"IEND")


@pytest.mark.parametrize("length", [2**32 - 1, 2**31 - 1, 5000])
def test_a_length_that_no_bytes_are_behind_reaches_no_decoder(length: int) -> None:
    lying = encode_png(NOISE).partition(b"IDAT")[0][:-4] + struct.pack(">I", length) + b"IDAT" + bytes(4000)
    assert png_pixels(io.BytesIO(lying)) == lying[:33]
    assert refusal(lying) == "x: damaged, its pixels cannot be decoded"


def test_what_is_packed_behind_the_pixels_is_not_unpacked() -> None:
    rows = b"".join(b"\0" + row.tobytes() for row in NOISE)
    some, much = (pixels_of(80, 60, zlib.compress(rows + bytes(more))) for more in (1000, 10**8))
    assert np.array_equal(ImageFile("x", some).decode(), NOISE)
    assert refusal(much) == "x: a PNG that unpacks to more than its pixels; save it anew"


@pytest.mark.parametrize(("height", "width"), [(60, 80), (1, 9), (9, 1), (5, 3)])
def test_an_interlaced_image_is_read_whole(height: int, width: int) -> None:
    image_HW = noise(height, width)
    starts = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    passes = [image_HW[top::down, left::across] for left, top, across, down in starts]
    rows = b"".join(b"\0" + row.tobytes() for one in passes if one.size for row in one)
    data = pixels_of(width, height, zlib.compress(rows), passes=1)
    assert len(png_pixels(io.BytesIO(data))) == 33 + 12 + len(zlib.compress(rows, 0)) + 12
    assert np.array_equal(ImageFile("x", data).decode(), image_HW)


@pytest.mark.parametrize(
    ("mode", "depth"), [("1", 1), ("L", 8), ("P", 8), ("LA", 8), ("RGB", 8), ("RGBA", 8), ("I;16", 16)]
)
def test_pixels_of_every_kind_are_those_that_a_decoder_reads_of_the_file(mode: str, depth: int) -> None:
    file = io.BytesIO()
    PIL.Image.fromarray(NOISE).convert(mode.replace("I;16", "I")).convert(mode).save(file, "PNG")
    slim = png_pixels(file)
    assert slim[24] == depth and slim != file.getvalue()
    read, kept = (np.asarray(PIL.Image.open(io.BytesIO(data))) for data in (file.getvalue(), slim))
    assert np.array_equal(read, kept)


def test_packed_pixels_that_are_damaged_are_left_to_the_decoder() -> None:
    data = bytearray(encode_png(NOISE))
    data[data.index(b"IDAT") + 300] ^= 255
    assert png_pixels(io.BytesIO(data)) == data
    assert refusal(bytes(data)) == "x: damaged, its pixels cannot be decoded"


@pytest.mark.parametrize(
    "extra",
    [
        segment(0xE1, b"Exif\0\0" + bytes(60_000)),
        segment(0xFE),
        segment(0xE2, b"ICC_PROFILE\0\1\1"),
        b"\xff\xd0",
        b"\xff\0",
        b"\xff",
    ],
    ids=["exif", "comment", "profile", "restart", "byte of pixels", "fill"],
)
def test_a_jpeg_is_measured_without_its_notes_and_refused_with_too_many(extra: bytes) -> None:
    few = jpeg(extra * 20)
    assert ImageFile("x", few).header.structure.planes[0].size_px == (80, 60)
    assert jpeg_head(io.BytesIO(few)) == jpeg_head(io.BytesIO(jpeg()))
    assert np.array_equal(ImageFile("x", few).decode(), ImageFile("x", jpeg()).decode())
    with pytest.raises(PartsError, match="a JPEG with more segments than an image needs"):
        jpeg_head(io.BytesIO(jpeg((extra if len(extra) < 99 else segment(0xE1)) * parts.MOST_SEGMENTS)))


def test_a_jpeg_of_more_tables_than_any_encoder_writes_is_refused_before_they_are_looked_at() -> None:
    tables = segment(0xDB, (b"\0" + bytes([1] * 64)) * 1008)
    assert ImageFile("x", jpeg(tables * 15)).decode().shape == (60, 80)
    assert refusal(jpeg(tables * 17)) == "x: a JPEG with more segments than an image needs; save it anew"


def test_a_jpeg_of_more_scans_than_encoders_make_is_refused() -> None:
    file = io.BytesIO()
    PIL.Image.fromarray(clouds(60, 80)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    assert "a JPEG of over 100 scans" in refusal(data[:last] + data[last:-2] * 101 + b"\xff\xd9")


@pytest.mark.parametrize("kept", [9, 20, 45, 60])
def test_a_file_that_ends_anywhere_gives_what_is_there(kept: int) -> None:
    assert encode_png(NOISE).startswith(png_pixels(io.BytesIO(encode_png(NOISE)[:kept])))
    assert ImageFile("x", jpeg()[:kept]).header.fault
