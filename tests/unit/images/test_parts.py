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
    assert png_pixels(io.BytesIO(data)) == encode_png(NOISE)
    assert png_head(io.BytesIO(data)) == encode_png(NOISE)[: encode_png(NOISE).index(b"IDAT") + 4]


def test_the_transparent_colour_and_the_palette_stay() -> None:
    file = io.BytesIO()
    PIL.Image.fromarray(NOISE).convert("P").save(file, "PNG", transparency=3, dpi=(72, 72))
    slim = png_pixels(file)
    assert b"tRNS" in slim and b"PLTE" in slim and b"pHYs" not in slim


@pytest.mark.slow
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


def unpacked(rows: bytes, width: int, height: int, *, interlaced: bool = False) -> bytes:
    """A PNG of grey values whose rows, with their filters, are given."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, interlaced)
    return parts.PNG + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND")


def test_of_a_png_no_more_is_unpacked_than_its_header_says(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    monkeypatch.setattr("cellnet.images.file.cv2.imdecode", lambda *arguments: decoded.append(arguments))
    for width, height in ((10, 10), (1000, 1400)):
        data = unpacked(bytes(5_000_000), width, height)
        assert refusal(data) == "x: a PNG that holds more pixels than its header says; save it anew"
    assert not decoded


def test_an_interlaced_png_and_one_of_any_kind_of_pixels_are_measured_right() -> None:
    passes = ((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2))
    for height, width in ((60, 80), (3, 3), (61, 1), (1, 79)):
        image = noise(height, width)
        images = (image[y::down, x::across] for x, across, y, down in passes)
        rows = b"".join(b"\0" + row.tobytes() for part in images if part.size for row in part)
        assert (ImageFile("x", unpacked(rows, width, height, interlaced=True)).decode() == image).all()
        assert "more pixels" in refusal(unpacked(rows + b"\0", width, height, interlaced=True))
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        file = io.BytesIO()
        PIL.Image.fromarray(noise(33, 35)).convert("I" if mode == "I;16" else mode).convert(mode).save(file, "PNG")
        assert ImageFile("x", file.getvalue()).decode().shape == (33, 35)


@pytest.mark.parametrize("kept", [9, 20, 45, 60])
def test_a_file_that_ends_anywhere_gives_what_is_there(kept: int) -> None:
    assert encode_png(NOISE).startswith(png_pixels(io.BytesIO(encode_png(NOISE)[:kept])))
    assert ImageFile("x", jpeg()[:kept]).header.fault


def test_a_chunk_that_is_not_there_whole_reaches_no_decoder() -> None:
    data = encode_png(NOISE)
    start = data.index(b"IDAT") - 4
    cut = data[:start] + struct.pack(">I", 2**31 - 1) + data[start + 4 :]
    assert png_pixels(io.BytesIO(cut)) == data[:start]
    assert "x: " in refusal(cut)
