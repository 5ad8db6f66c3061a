"""Image files: what is read, bit for bit, and what is refused."""

import io
import struct
import zlib

import cv2
import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray
from PIL import TiffImagePlugin

from cellnet.errors import DataError
from cellnet.images.file import ImageFile, Pages, encode_png
from tests.factories import noise

NOISE = noise(60, 80)


def decode(data: bytes, page: int | None = None) -> NDArray[np.generic]:
    return ImageFile("x", data, page).decode()


def saved(image: PIL.Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def encoded(suffix: str, image_HW: NDArray[np.generic] = NOISE) -> bytes:
    return cv2.imencode(suffix, image_HW)[1].tobytes()


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises so many pixels and holds none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def tiff_directory_first(rows_a_strip: int) -> bytes:
    """NOISE as microscopes write TIFF: the directory before the pixels, so that a cut file has a whole header."""
    height, width = NOISE.shape
    starts = range(0, height, rows_a_strip)
    n = len(starts)
    table = 8 + 2 + 9 * 12 + 4
    after = table + (8 * n if n > 1 else 0)  # of one strip, place and size stand in the directory
    offsets = struct.pack(f"<{n}I", *(after + start * width for start in starts))
    sizes = struct.pack(f"<{n}I", *(min(rows_a_strip, height - start) * width for start in starts))
    rows = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
        (273, 4, n, table), (277, 3, 1, 1), (278, 3, 1, rows_a_strip), (279, 4, n, table + 4 * n),
    ]  # fmt: skip
    if n == 1:
        rows[5], rows[8], offsets, sizes = (273, 4, 1, after), (279, 4, 1, NOISE.size), b"", b""
    directory = struct.pack("<H", 9) + b"".join(struct.pack("<HHII", *row) for row in rows) + bytes(4)
    return struct.pack("<2sHI", b"II", 42, 8) + directory + offsets + sizes + NOISE.tobytes()


def refusal(data: bytes) -> str:
    with pytest.raises(DataError) as caught:
        ImageFile("well A1.png", data).decode()
    message = str(caught.value)
    assert message.startswith("well A1.png: ") and "\n" not in message
    return message.removeprefix("well A1.png: ")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_lossless_8_bit_files_are_read_bit_for_bit(suffix: str) -> None:
    image_HW = decode(encoded(suffix))
    assert image_HW.dtype == np.uint8 and (image_HW == NOISE).all()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_files_keep_their_16_bits(suffix: str) -> None:
    recorded_HW = NOISE.astype(np.uint16) * 16 + 7
    image_HW = decode(encoded(suffix, recorded_HW))
    assert image_HW.dtype == np.uint16 and (image_HW == recorded_HW).all()


def test_a_jpeg_is_read_within_its_losses() -> None:
    smooth_HW = cv2.GaussianBlur(NOISE, (0, 0), 3)
    assert np.abs(decode(encoded(".jpg", smooth_HW)).astype(int) - smooth_HW).mean() < 2


def test_colour_becomes_luminance() -> None:
    rgb_HW3 = np.zeros((2, 4, 3), np.uint8)
    rgb_HW3[0, :3] = [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    np.testing.assert_allclose(decode(saved(PIL.Image.fromarray(rgb_HW3), "PNG"))[0], [76, 150, 29, 0], atol=1)


@pytest.mark.parametrize("alpha", [0, 255])
def test_transparency_is_dropped(alpha: int) -> None:
    rgba = PIL.Image.fromarray(np.dstack([NOISE, NOISE, NOISE, np.full_like(NOISE, alpha)]))
    assert (decode(saved(rgba, "PNG")) == NOISE).all()


def test_a_palette_png_is_read_by_its_colours_and_not_by_its_indices() -> None:
    palette = PIL.Image.fromarray(NOISE).convert("P")
    palette.putpalette([255 - value for value in range(256) for _ in "rgb"])
    assert (decode(saved(palette, "PNG")) == 255 - NOISE).all()


def test_float_pixels_are_spread_from_their_lowest_to_their_highest() -> None:
    values_HW = np.array([[-0.5, 0.0], [0.5, 1.5]], np.float32)
    image_HW = decode(saved(PIL.Image.fromarray(values_HW), "TIFF"))
    assert image_HW.tolist() == [[0, 16384], [32768, 65535]]


def test_floats_that_are_not_numbers_are_refused() -> None:
    values_HW = np.array([[0.0, np.nan]], np.float32)
    assert "not numbers" in refusal(saved(PIL.Image.fromarray(values_HW), "TIFF"))


def test_a_jpeg_that_cannot_hold_its_pixels_is_refused() -> None:
    data = bytearray(encoded(".jpg"))
    frame_header = data.index(b"\xff\xc0")
    data[frame_header + 5 : frame_header + 9] = struct.pack(">HH", 9_999, 9_999)
    assert "cannot hold its 9999×9999 pixels" in refusal(bytes(data))


def test_a_tiff_of_complex_numbers_is_told_what_is_read() -> None:
    with PIL.Image.open(io.BytesIO(encoded(".tif"))) as image:
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[258], tags[339] = 64, 6  # BitsPerSample; SampleFormat: complex
        assert "complex numbers, which is not read here" in refusal(saved(image, "TIFF", tiffinfo=tags))


def test_an_image_of_one_row_is_read() -> None:
    assert decode(encode_png(NOISE[:1])).tolist() == NOISE[:1].tolist()


def test_what_is_no_image_is_refused_with_its_reason() -> None:
    assert "empty" in refusal(b"")
    assert "not a readable" in refusal(b"image,lineage,count\n")
    assert "a GIF image, which is not read here; save it as PNG" in refusal(saved(PIL.Image.fromarray(NOISE), "GIF"))
    assert "blank, every pixel has the value 7" in refusal(encode_png(np.full((9, 9), 7, np.uint8)))


def test_a_file_of_several_pages_is_refused() -> None:
    page = PIL.Image.fromarray(NOISE)
    assert "2 pages" in refusal(saved(page, "TIFF", save_all=True, append_images=[page]))


def stack(pages: int) -> bytes:
    """A TIFF of 16 bits whose page 1 is 1000 brighter than the noise, page 2 is 2000 brighter."""
    planes = [PIL.Image.fromarray(NOISE.astype(np.uint16) + 1000 * page) for page in range(1, pages + 1)]
    return saved(planes[0], "TIFF", save_all=True, append_images=planes[1:])


@pytest.mark.parametrize("page", [1, 2, 5])
def test_a_page_is_read_by_its_number(page: int) -> None:
    assert (decode(stack(5), page) == NOISE.astype(np.uint16) + 1000 * page).all()


@pytest.mark.parametrize(
    ("pages", "wanted", "chosen"),
    [(5, "middle", [3]), (4, "middle", [3]), (3, "all", [1, 2, 3]), (3, 2, [2]), (1, "all", [None]), (1, 1, [None])],
)
def test_pages_are_chosen_as_told(pages: int, wanted: Pages, chosen: list[int | None]) -> None:
    assert [page.page for page in ImageFile("x", stack(pages)).pages(wanted)] == chosen


def test_a_page_that_is_not_there_is_refused() -> None:
    with pytest.raises(DataError, match=r"x.tif: holds 3 pages, so there is no page 4"):
        ImageFile("x.tif", stack(3)).pages(4)
    unreadable = ImageFile("x", b"no image")
    assert unreadable.pages("all") == [unreadable], "left to decode, which says why"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_001, 40_000, 2**31 - 1])
def test_a_bomb_is_refused_by_its_header(side: int) -> None:
    assert "100 megapixels" in refusal(png_header(side, side))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kept", [0.3, 0.9, 0.99])
@pytest.mark.parametrize(
    "whole",
    [*map(encoded, (".png", ".jpg", ".bmp", ".tif")), tiff_directory_first(60), tiff_directory_first(7)],
    ids=["png", "jpg", "bmp", "tif", "tif, one strip", "tif, strips"],
)
def test_a_file_that_was_cut_short_is_refused_and_not_filled_with_grey(whole: bytes, kept: float) -> None:
    assert decode(whole).shape == NOISE.shape
    refusal(whole[: int(len(whole) * kept)])


def test_a_png_with_a_flipped_byte_is_refused() -> None:
    data = bytearray(encoded(".png"))
    data[len(data) // 2] ^= 0xFF
    assert "damaged" in refusal(bytes(data))


@pytest.mark.parametrize("data", [b"", b"II*\0", encode_png(np.eye(9, dtype=np.uint8))])
def test_what_is_no_tiff_says_no_pixel_size(data: bytes) -> None:
    assert ImageFile("x", data).pixel_um is None
