"""TIFF files: planes and channels by what the file says, pixels value by value, and hostile files that cost little.

Files are written by tifffile, Pillow and OpenCV, or byte by byte; what is right is how they were made.
"""

import io
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import PIL.Image
import pytest
import tifffile
from numpy.typing import NDArray

from cellnet.errors import DataError
from cellnet.images import file as image_file
from cellnet.images.channels import ChannelError
from cellnet.images.file import ImageFile
from cellnet.images.ome import read_ome
from tests.factories import ROOT, SHARED, clouds

Values = NDArray[Any]
SIDE = (60, 80)
GREY = clouds(*SIDE)
DEEP = clouds(*SIDE, seed=1, bits=16)


def written(values: Values, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **({"photometric": "minisblack"} | options))
    return buffer.getvalue()


def planes(*shape: int, bits: int = 8) -> Values:
    """Frames that all differ, (*shape, H, W)."""
    number = int(np.prod(shape))
    return np.stack([clouds(*SIDE, seed=seed, bits=bits) for seed in range(number)]).reshape(*shape, *SIDE)


def image(data: bytes, page: int | None = None, channel: str | None = None) -> ImageFile:
    return ImageFile("x.tif", data, page, channel)


def refusal(data: bytes, **meant: Any) -> str:
    with pytest.raises(DataError) as caught:
        image(data, **meant).decode()
    message = str(caught.value)
    assert message.startswith("x.tif: ") and "\n" not in message and len(message) < 250
    return message.removeprefix("x.tif: ")


def spread(values_HW: Values) -> Values:
    """As values that are not of 8 or 16 bits are told."""
    values_HW = values_HW.astype(np.float64)
    return np.round((values_HW - values_HW.min()) * (65535 / np.ptp(values_HW))).astype(np.uint16)


LAYOUTS: dict[str, dict[str, Any]] = {
    "one strip": {},
    "strips": {"rowsperstrip": 7},
    "tiles": {"tile": (16, 32)},
    "big-endian": {"byteorder": ">"},
    "BigTIFF": {"bigtiff": True},
    "LZW": {"compression": "lzw"},
    "LZW, predictor, tiles": {"compression": "lzw", "predictor": True, "tile": (32, 16)},
    "LZW, strips, big-endian": {"compression": "lzw", "rowsperstrip": 9, "byteorder": ">"},
    "Deflate": {"compression": "zlib"},
    "Deflate, predictor": {"compression": "zlib", "predictor": True},
    "PackBits": {"compression": "packbits"},
    "ZSTD": {"compression": "zstd"},
    "ZSTD, predictor, strips": {"compression": "zstd", "predictor": True, "rowsperstrip": 11},
    "LZMA": {"compression": "lzma"},
    "LERC": {"compression": "lerc"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "u4", "i4", "f2", "f4", "f8"])
def test_a_frame_is_the_same_pixels_however_it_was_written(kind: str, layout: str) -> None:
    options = LAYOUTS[layout]
    values_HW = (DEEP if kind != "u1" else GREY).astype(kind)
    if kind in ("f2", "f4", "f8", "i2"):
        values_HW = ((DEEP.astype(np.float64) / 700) - 20).astype(kind)
    if (kind[0] == "f" and options.get("predictor")) or (layout == "LERC" and kind == "f2"):
        pytest.skip("not written by tifffile")
    right_HW = values_HW if kind in ("u1", "u2") else spread(values_HW)
    read_HW = image(written(values_HW, **options)).decode()
    assert read_HW.dtype == right_HW.dtype
    np.testing.assert_array_equal(read_HW, right_HW)
    np.testing.assert_array_equal(image(written(values_HW, **options)).decode_values(), values_HW)


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000"])
@pytest.mark.parametrize("layout", [{}, {"tile": (32, 32)}, {"rowsperstrip": 16}])
def test_pictures_inside_a_tiff_are_decoded(compression: str, layout: dict[str, Any]) -> None:
    data = written(GREY, compression=compression, **layout)
    assert np.abs(image(data).decode().astype(int) - GREY).mean() < 3
    np.testing.assert_array_equal(image(data).decode(), tifffile.imread(io.BytesIO(data)))


@pytest.mark.parametrize("form", ["<", ">"])
def test_twelve_bits_packed_are_the_twelve_bits(form: str) -> None:
    values_HW = DEEP >> 4
    pairs_N2 = values_HW.reshape(-1, 2).astype(np.uint32)
    packed = b"".join(struct.pack(">I", (one << 12) | two)[1:] for one, two in pairs_N2.tolist())
    tags = {256: 80, 257: 60, 258: 12, 259: 1, 262: 1, 273: 8 + 2 + 12 * 9 + 4, 277: 1, 278: 60, 279: len(packed)}
    order = {"<": b"II*\0", ">": b"MM\0*"}[form] + struct.pack(form + "I", 8)
    rows = b"".join(struct.pack(form + "HHII", tag, 4, 1, value) for tag, value in tags.items())
    read_HW = image(order + struct.pack(form + "H", 9) + rows + bytes(4) + packed).decode()
    np.testing.assert_array_equal(read_HW, values_HW)


@pytest.mark.parametrize("values_HW", [GREY, DEEP, GREY > 128, (GREY / 300).astype(np.float32), DEEP.astype(np.int16)])
def test_where_the_lowest_value_is_white_the_highest_is(values_HW: Values) -> None:
    read_HW = image(written(values_HW, photometric="miniswhite")).decode()
    match values_HW.dtype:
        case np.bool_:
            right_HW = np.where(values_HW, 0, 255).astype(np.uint8)
        case np.float32:
            right_HW = spread(-values_HW)
        case np.int16:
            right_HW = spread(-values_HW.astype(int))
        case _:
            right_HW = np.iinfo(values_HW.dtype).max - values_HW
    np.testing.assert_array_equal(read_HW, right_HW)


@pytest.mark.parametrize("kind", ["u1", "u2"])
@pytest.mark.parametrize(
    "options",
    [
        {"planarconfig": "contig"},
        {"planarconfig": "separate"},
        {"planarconfig": "separate", "compression": "lzw"},
        {"planarconfig": "separate", "rowsperstrip": 7},
        {"planarconfig": "separate", "tile": (16, 16), "compression": "zstd"},
        {"planarconfig": "contig", "tile": (16, 16), "predictor": True, "compression": "lzw"},
    ],
    ids=lambda options: " ".join(map(str, options.values())),
)
def test_colour_is_its_luminance_however_it_lies(kind: str, options: dict[str, Any]) -> None:
    same_HW = GREY if kind == "u1" else DEEP
    axis = 0 if options["planarconfig"] == "separate" else 2
    grey = image(written(np.stack([same_HW] * 3, axis), photometric="rgb", **options)).decode()
    np.testing.assert_array_equal(grey, same_HW)
    colours = [same_HW, same_HW // 2, np.zeros_like(same_HW)]
    seen_HW = image(written(np.stack(colours, axis), photometric="rgb", **options)).decode()
    np.testing.assert_allclose(seen_HW, 0.299 * same_HW + 0.587 * (same_HW // 2), atol=2)


@pytest.mark.parametrize("alpha", ["unassalpha", "assocalpha"])
@pytest.mark.parametrize("colours", [1, 3])
def test_transparency_hides_nothing(alpha: str, colours: int) -> None:
    half_HW = np.where(np.arange(80) < 40, 255, 0).astype(np.uint8) * np.ones((60, 1), np.uint8)
    values_HWS = np.dstack([GREY] * colours + [half_HW])
    kind = "rgb" if colours == 3 else "minisblack"
    data = written(values_HWS, photometric=kind, planarconfig="contig", extrasamples=[alpha])
    np.testing.assert_array_equal(image(data).decode(), GREY)


def test_a_palette_is_read_by_its_colours_and_its_numbers_are_those_of_a_mask() -> None:
    colours_3N = np.stack([np.arange(256, dtype=np.uint16)[::-1] * 257] * 3)
    data = written(GREY, photometric="palette", colormap=colours_3N)
    np.testing.assert_array_equal(image(data).decode(), 255 - GREY)
    np.testing.assert_array_equal(image(data).decode_values(), GREY)


def test_an_orientation_turns_nothing_in_no_format() -> None:
    stored_HW = GREY
    tagged = written(stored_HW, extratags=[(274, 3, 1, 3, True)])
    np.testing.assert_array_equal(image(tagged).decode(), stored_HW)
    np.testing.assert_array_equal(image(tagged).decode_values(), stored_HW)
    exif = PIL.Image.Exif()
    exif[274] = 6
    for kind in ("JPEG", "PNG"):
        plain, turned = io.BytesIO(), io.BytesIO()
        PIL.Image.fromarray(stored_HW).save(plain, kind)
        PIL.Image.fromarray(stored_HW).save(turned, kind, exif=exif)
        np.testing.assert_array_equal(image(turned.getvalue()).decode(), image(plain.getvalue()).decode())
        np.testing.assert_array_equal(image(turned.getvalue()).decode_values(), image(plain.getvalue()).decode_values())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({259: 34677}, "compressed by THUNDERSCAN|compressed by"),
        ({259: 50001}, "compressed by WEBP"),
        ({262: 5, 277: 4}, "colours as SEPARATED"),
        ({262: 8}, "colours as CIELAB"),
        ({262: 32803}, "colours as CFA"),
        ({258: 128, 339: 6}, "complex numbers"),
        ({258: 77}, "77 bits a value"),
    ],
)
def test_what_is_not_read_is_named(change: dict[int, int], said: str) -> None:
    tags = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 200, 277: 1, 278: 8, 279: 64, 339: 1} | change
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + rows + bytes(200)
    message = refusal(data)
    assert any(one in message for one in said.split("|")) and "save it" in message and "damaged" not in message


def ome(values: Values, axes: str, channels: list[str] | None = None, **pixels: Any) -> bytes:
    metadata: dict[str, Any] = {"axes": axes, **pixels}
    if channels:
        metadata["Channel"] = {"Name": channels}
    return written(values, ome=True, metadata=metadata)


def imagej(values: Values, axes: str, **metadata: Any) -> bytes:
    return written(values, imagej=True, metadata={"axes": axes} | metadata)


def in_one_directory(values: Values) -> bytes:
    """As ImageJ writes stacks of more than 4 GB: one directory, the planes behind each other."""
    planes_n = len(values)
    text = f"ImageJ=1.54f\nimages={planes_n}\nslices={planes_n}\n".encode() + b"\0"
    start = 8 + 2 + 10 * 12 + 4
    tags = [
        (256, 4, 1, 80), (257, 4, 1, 60), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (270, 2, len(text), start),
        (273, 4, 1, start + len(text)), (277, 3, 1, 1), (278, 4, 1, 60), (279, 4, 1, 4800),
    ]  # fmt: skip
    rows = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, 10) + rows + bytes(4) + text + values.tobytes()


Z5, C2, T3 = planes(5), planes(2), planes(3)
Z5C2 = planes(5, 2)
STACKS = {
    "OME, z": (ome(Z5, "ZYX"), Z5),
    "OME, z, 16 bits, LZW": (
        written(planes(4, bits=16), ome=True, compression="lzw", metadata={"axes": "ZYX"}),
        planes(4, bits=16),
    ),
    "ImageJ, z": (imagej(Z5, "ZYX"), Z5),
    "ImageJ, one directory": (in_one_directory(Z5), Z5),
    "ImageJ, z, big-endian": (imagej(planes(7), "ZYX"), planes(7)),
    "tifffile's own": (written(planes(3), metadata={"axes": "ZYX"}), planes(3)),
}


@pytest.mark.parametrize("name", STACKS)
def test_of_a_stack_the_middle_plane_is_taken_and_every_other_by_its_number(name: str) -> None:
    data, right = STACKS[name]
    [middle] = image(data).pages(None)
    assert middle.page == len(right) // 2 + 1
    np.testing.assert_array_equal(middle.decode(), right[len(right) // 2])
    for page, plane in zip(image(data).pages("all"), right, strict=True):
        np.testing.assert_array_equal(page.decode(), plane)


CHANNELS = {
    "OME, BF in the middle": (ome(planes(5, 3), "ZCYX", ["DAPI", "TL Brightfield", "GFP"]), planes(5, 3)[2, 1]),
    "OME, phase last": (ome(planes(3, 2), "ZCYX", ["Hoechst", "Phase-1"]), planes(3, 2)[1, 1]),
    "OME, channels before z": (ome(planes(2, 3), "CZYX", ["BF", "mCherry"]), planes(2, 3)[0, 1]),
    "OME, one channel only": (ome(planes(3, 1), "ZCYX", ["DAPI"]), planes(3, 1)[1, 0]),
    "ImageJ's labels": (
        imagej(
            Z5C2,
            "ZCYX",
            Labels=[f"c:{c}/2 z:{z}/5 - {name}" for z in range(1, 6) for c, name in ((1, "GFP"), (2, "DIC"))],
        ),
        Z5C2[2, 1],
    ),
}


@pytest.mark.parametrize("name", CHANNELS)
def test_the_channel_of_transmitted_light_is_taken_where_there_is_one(name: str) -> None:
    data, right_HW = CHANNELS[name]
    [page] = image(data).pages(None)
    np.testing.assert_array_equal(page.decode(), right_HW)
    np.testing.assert_array_equal(image(data).decode(), right_HW)


ASKED = {
    "ImageJ, no names": (imagej(Z5C2, "ZCYX"), ("", ""), Z5C2[2]),
    "OME, two dyes": (ome(C2, "CYX", ["DAPI", "GFP"]), ("DAPI", "GFP"), C2),
    "OME, two of transmitted light": (ome(T3, "CYX", ["Phase", "BF", "DAPI"]), ("Phase", "BF", "DAPI"), T3),
    "planar samples": (written(C2, planarconfig="separate", metadata=None), ("", ""), C2),
    "samples side by side": (
        written(np.moveaxis(C2, 0, 2), planarconfig="contig", metadata=None, extrasamples=["unspecified"]),
        ("", ""),
        C2,
    ),
    "planar samples, tiles, LZW": (
        written(planes(4), planarconfig="separate", tile=(16, 16), compression="lzw", metadata=None),
        ("",) * 4,
        planes(4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
def test_where_nobody_can_tell_which_channel_is_meant_it_is_asked_for(name: str) -> None:
    data, names, right = ASKED[name]
    with pytest.raises(ChannelError, match=f"{len(names)} channels; choose a channel: 1 ?{names[0]}") as caught:
        image(data).pages(None)
    assert caught.value.channels == names
    for number, plane in enumerate(right, 1):
        [page] = image(data).pages(None, str(number))
        np.testing.assert_array_equal(page.decode(), plane)
        np.testing.assert_array_equal(image(data, channel=str(number)).decode(), plane)
        if names[0]:
            [page] = image(data).pages(None, names[number - 1].lower())
            np.testing.assert_array_equal(page.decode(), plane)


def test_a_channel_that_is_not_there_is_refused_and_one_of_a_file_without_channels_is_no_matter() -> None:
    with pytest.raises(ChannelError, match="has no channel 'Cy5'; it has 1 DAPI, 2 GFP"):
        image(ome(C2, "CYX", ["DAPI", "GFP"])).pages(None, "Cy5")
    with pytest.raises(ChannelError, match="has no channel 'BF'; it has 1 DAPI"):
        image(ome(planes(3, 1), "ZCYX", ["DAPI"])).pages(None, "BF")
    np.testing.assert_array_equal(image(written(GREY)).pages(None, "BF")[0].decode(), GREY)
    assert image(ome(Z5C2, "ZCYX", ["BF", "GFP"])).pages("all", "GFP")[3].page == 8
    with pytest.raises(DataError, match="page 1 is of another channel than GFP"):
        image(ome(Z5C2, "ZCYX", ["BF", "GFP"])).pages(1, "GFP")


MIXED = {
    "OME, time": (ome(T3, "TYX"), "holds 3 images"),
    "ImageJ, time": (imagej(T3, "TYX"), "holds 3 images"),
    "ImageJ, z and time": (imagej(planes(2, 3), "TZYX"), "holds 2 images"),
    "pages of no kind": (b"", "holds 3 pages"),
    "OME, two images": (b"", "holds 2 images"),
}


@pytest.mark.parametrize("name", MIXED)
def test_several_images_of_a_file_are_chosen_from(name: str) -> None:
    data, said = MIXED[name]
    if name == "pages of no kind":
        data = cv2.imencodemulti(".tiff", list(T3))[1].tobytes()
    if name == "OME, two images":
        buffer = io.BytesIO()
        with tifffile.TiffWriter(buffer, ome=True) as writer:
            for plane in C2:
                writer.write(plane, photometric="minisblack")
        data = buffer.getvalue()
    with pytest.raises(DataError, match=f"{said}; choose: page middle, all, or a number"):
        image(data).pages(None)
    assert len(image(data).pages("middle")) == 1
    right = tifffile.imread(io.BytesIO(data), key=range(len(tifffile.TiffFile(io.BytesIO(data)).pages)))
    for page, plane in zip(image(data).pages("all"), right, strict=True):
        np.testing.assert_array_equal(page.decode(), plane)


def with_copies(*, flag: int, factors: tuple[int, ...] = (2, 4), subifds: bool = False) -> bytes:
    """A frame with smaller copies of it behind it, or below it."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(GREY, photometric="minisblack", subifds=len(factors) if subifds else 0, metadata=None)
        for factor in factors:
            small = cv2.resize(GREY, (80 // factor, 60 // factor))
            writer.write(small, photometric="minisblack", subfiletype=flag, metadata=None)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        with_copies(flag=1),
        with_copies(flag=0),
        with_copies(flag=1, subifds=True),
        with_copies(flag=1, factors=(5,)),
        with_copies(flag=0, factors=(4,)),
        with_copies(flag=0, factors=(2, 4, 5, 10)),
    ],
)
def test_reduced_images_and_thumbnails_are_no_pages(data: bytes) -> None:
    [page] = image(data).pages(None)
    assert page.page is None
    np.testing.assert_array_equal(page.decode(), GREY)


def named_elsewhere(tmp_path: Path, *, uuid: str = "") -> bytes:
    """An OME-TIFF whose second plane is said to be in another file, which lies beside it."""
    (tmp_path / "b.ome.tif").write_bytes(written(C2[1]))
    text = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="P" '
        'DimensionOrder="XYZCT" SizeX="80" SizeY="60" SizeZ="2" SizeC="1" SizeT="1" Type="uint8"><Channel/>'
        '<TiffData FirstZ="0" IFD="0" PlaneCount="1"/>'
        f'<TiffData FirstZ="1" IFD="0" PlaneCount="1"><UUID FileName="{tmp_path}/b.ome.tif">urn:uuid:2</UUID>'
        "</TiffData></Pixels></Image></OME>"
    )
    return written(C2[0], description=text, metadata=None)


def test_a_file_that_ome_xml_names_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.ome.tif"
    path.write_bytes(named_elsewhere(tmp_path))
    opened = []
    plain = open
    monkeypatch.setattr("builtins.open", lambda name, *rest, **more: opened.append(name) or plain(name, *rest, **more))
    for one in (ImageFile.at(path), image(path.read_bytes())):
        assert [page.page for page in one.pages("all")] == [None]
        np.testing.assert_array_equal(one.decode(), C2[0])
    assert not [name for name in opened if "b.ome" in str(name)]


@pytest.mark.parametrize("planes_n", [1, 2])
def test_a_channel_that_ome_xml_places_in_another_file_is_not_mistaken_for_one_that_is_here(planes_n: int) -> None:
    text = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:2"><Image ID="Image:0">'
        f'<Pixels ID="P" DimensionOrder="XYZCT" SizeX="80" SizeY="60" SizeZ="{planes_n}" SizeC="2" SizeT="1" '
        'Type="uint8"><Channel Name="Brightfield"/><Channel Name="DAPI"/>'
        '<TiffData FirstC="0" IFD="0"><UUID FileName="../bf.ome.tif">urn:uuid:1</UUID></TiffData>'
    )
    for z in range(planes_n):
        text += f'<TiffData FirstC="1" FirstZ="{z}" IFD="{z}"><UUID FileName="d.ome.tif">urn:uuid:2</UUID></TiffData>'
    pixels = C2[:1] if planes_n == 1 else np.stack([C2[0], C2[1]])
    file = image(written(pixels, description=text + "</Pixels></Image></OME>", metadata=None))
    for asked in (file, replace(file, channel="Brightfield"), replace(file, channel="1")):
        for page in (None, "all", "middle"):
            with pytest.raises(ChannelError, match="its channel 1 Brightfield is said to be in another file"):
                asked.pages(page)
        with pytest.raises(ChannelError, match="is said to be in another file; give that one"):
            asked.decode()
    [dyed, *_] = file.pages("middle", "DAPI")
    np.testing.assert_array_equal(dyed.decode(), C2[planes_n - 1])


def test_of_a_stack_on_the_disk_one_plane_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = planes(40, bits=16)
    path = tmp_path / "stack.tif"
    path.write_bytes(imagej(frames, "ZYX"))
    monkeypatch.setattr(image_file, "HELD_BYTES", 10_000)
    monkeypatch.setattr(ImageFile, "read", None)
    read = []
    plain = io.BufferedReader.read

    class Counted(io.BufferedReader):
        def read(self, size: int | None = -1, /) -> bytes:
            data = plain(self, size)
            read.append(len(data))
            return data

    monkeypatch.setattr(image_file, "open_regular", lambda path: Counted(io.FileIO(path, "rb")))
    [page] = ImageFile.at(path).in_memory().pages(None)
    read.clear()
    np.testing.assert_array_equal(page.decode(), frames[20])
    assert sum(read) < path.stat().st_size / 4 and max(read) == frames[0].nbytes


# As instruments write them


def packed(*tags: tuple[int, int, int, Any], data: bytes = b"", after: int = 0, start: int = 8) -> bytes:
    """A directory, sorted as it must be, and what it leads to; bytes among the values are put behind it."""
    place = start + 2 + 12 * len(tags) + 4 + len(data)
    rows, behind = b"", b""
    for tag, kind, number, value in sorted(tags, key=lambda row: row[0]):
        if isinstance(value, bytes):
            value, behind = place + len(behind), behind + value
        rows += struct.pack("<HHII", tag, kind, number, value)
    return struct.pack("<H", len(tags)) + rows + struct.pack("<I", after) + data + behind


def tiff_of(*changes: tuple[int, int, int, Any], pixels: bytes) -> bytes:
    """A TIFF of one page of 80×60 values of 8 bits in one strip, but for some entries."""
    tags = {256: 80, 257: 60, 258: 8, 259: 1, 262: 1, 277: 1, 278: 60, 273: pixels, 279: len(pixels)}
    rows = {tag: (tag, 4, 1, value) for tag, value in tags.items()} | {row[0]: row for row in changes}
    return b"II*\0" + struct.pack("<I", 8) + packed(*rows.values())


def stk(frames: Values, *, calibrated: int = 1, z: int = 1) -> bytes:
    """A stack of MetaMorph: one directory, the planes behind each other, and notes in entries of its own."""
    number = len(frames)
    planes_of = b"".join(struct.pack("<6I", z, 1, 2_450_000, 1000 * k, 2_450_000, 0) for k in range(number))
    notes = struct.pack("<II", 65, 100) + b"\3\0\0\0um\0\0"
    start = 8 + 2 + 12 * 11 + 4
    one = struct.pack("<8I", 3, calibrated, 4, start, 5, start, 6, start + 8)
    rows = (
        (256, 4, 1, 80), (257, 4, 1, 60), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1),
        (273, 4, 1, frames.tobytes()), (278, 4, 1, 60), (279, 4, 1, 4800), (33628, 4, 4, one),
        (33629, 5, number, planes_of),
    )  # fmt: skip
    return b"II*\0" + struct.pack("<I", 8) + packed(*rows, data=notes)


def lsm(frames: Values, names: tuple[str, ...], *, lzw: bool = False) -> bytes:
    """A stack (Z, C, H, W) of a Zeiss LSM, a thumbnail behind each plane; of packed strips it tells the wrong sizes."""
    depth, channels_n = frames.shape[:2]
    info = np.zeros(1, np.dtype(tifffile.TIFF.CZ_LSMINFO))
    told = {"MagicNumber": 67127628, "StructureSize": info.itemsize, "DimensionX": 80, "DimensionY": 60}
    told |= {"DimensionZ": depth, "DimensionTime": 1, "DimensionChannels": channels_n}
    for name, value in told.items():
        info[name] = value
    info["VoxelSizeX"] = info["VoxelSizeY"] = 0.25e-6
    texts = b"".join(struct.pack("<I", len(name) + 1) + name.encode() + b"\0" for name in names)
    n = len(names)
    colours = struct.pack("<6I", 24 + 4 * n + len(texts), n, n, 24, 24 + 4 * n, 0) + bytes(4 * n) + texts
    size = 2 + 12 * 11 + 4
    body, start = b"", 8 + 2 * depth * size

    def put(data: bytes) -> int:
        nonlocal body
        body += data
        return start + len(body) - len(data)

    info["OffsetChannelColors"] = put(colours)
    info_at = put(info.tobytes())
    found = b"II*\0" + struct.pack("<I", 8)
    for page in range(2 * depth):
        small = page % 2
        width, height = (40, 30) if small else (80, 60)
        strips = [bytes(1200)] * n if small else [plane.tobytes() for plane in frames[page // 2]]
        packed_n = [put(imagecodecs.lzw_encode(strip) if lzw and not small else strip) for strip in strips]
        lists = [put(struct.pack(f"<{n}I", *values)) for values in (packed_n, [width * height] * n)]
        rows = (
            (254, 4, 1, small), (256, 4, 1, width), (257, 4, 1, height),
            (258, 3, n, put(struct.pack(f"<{n}H", *[8] * n))), (259, 3, 1, 5 if lzw and not small else 1),
            (262, 3, 1, 2), (273, 4, n, lists[0]), (277, 3, 1, n),
            (279, 4, n, lists[1]), (284, 3, 1, 2), (34411, 4, 1, 0) if page else (34412, 1, info.nbytes, info_at),
        )  # fmt: skip
        found += packed(*rows, after=8 + (page + 1) * size if page + 1 < 2 * depth else 0)
    return found + body


@pytest.mark.parametrize("lzw", [False, True])
@pytest.mark.parametrize("names", [("Ch2-T1", "ChS1-T2", "ChD-T1"), ("Ch1", "T-PMT")])
def test_of_an_lsm_every_sample_is_a_channel_by_its_name_and_the_detector_of_transmitted_light_is_taken(
    names: tuple[str, ...], lzw: bool
) -> None:
    frames = planes(3, len(names))
    data = lsm(frames, names, lzw=lzw)
    assert image(data).header.structure.channels == names and image(data).pixel_um == 0.25
    np.testing.assert_array_equal(image(data).decode(), frames[1, len(names) - 1])
    for page, plane in zip(range(1, 3 * len(names) + 1), frames.reshape(-1, *SIDE), strict=True):
        np.testing.assert_array_equal(image(data, page).decode(), plane)


def test_a_stack_of_metamorph_is_one_of_depth_only_where_it_says_so() -> None:
    np.testing.assert_array_equal(image(stk(Z5)).decode(), Z5[2])
    with pytest.raises(DataError, match="holds 5 images; choose: page middle"):
        image(stk(Z5, z=0)).pages(None)
    same_time = stk(Z5, z=0).replace(struct.pack("<I", 2000), bytes(4)).replace(struct.pack("<I", 1000), bytes(4))
    with pytest.raises(DataError, match="holds 5 pages; choose: page middle"):
        image(same_time).pages(None)
    np.testing.assert_array_equal(image(same_time, 4).decode(), Z5[3])
    packed_planes = lying(stk(Z5), struct.pack("<HHII", 259, 3, 1, 1), struct.pack("<HHII", 259, 3, 1, 5))
    assert "holds 5 compressed planes behind one directory; save it uncompressed" in refusal(packed_planes)


@pytest.mark.parametrize("order", ["contig", "separate"])
def test_of_planes_in_one_directory_with_several_samples_each_is_read(order: str) -> None:
    frames = planes(4, 2)
    lying_as = np.moveaxis(frames, 1, -1) if order == "contig" else frames
    axes = "ZYXS" if order == "contig" else "ZSYX"
    options: dict[str, Any] = {"planarconfig": order, "extrasamples": ["unspecified"], "truncate": True}
    data = written(lying_as, metadata={"axes": axes}, **options)
    for page, plane in enumerate(frames.reshape(-1, *SIDE), 1):
        np.testing.assert_array_equal(image(data, page).decode(), plane)


def test_pages_that_were_put_behind_those_of_imagej_are_not_dropped() -> None:
    data = written(Z5, description="ImageJ=1.54f\nimages=3\nslices=3\nunit=um\n", metadata=None, resolution=(2, 2))
    with pytest.raises(DataError, match="holds 5 pages; choose"):
        image(data).pages(None)
    np.testing.assert_array_equal(image(data, 5).decode(), Z5[4])
    assert image(data).pixel_um == 0.5


def below(*, small_above: bool) -> bytes:
    """A page with an image below it that is none of its copies, or of which it is the thumbnail."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        above = GREY[::4, ::4].copy() if small_above else GREY
        options: dict[str, Any] = {"photometric": "minisblack", "metadata": None}
        writer.write(above, subifds=1, subfiletype=int(small_above), **options)
        writer.write(255 - GREY, **options)
    return buffer.getvalue()


def test_images_below_a_page_are_no_pages_and_one_below_its_thumbnail_is_named() -> None:
    assert image(below(small_above=False)).pages(None)[0].page is None
    np.testing.assert_array_equal(image(below(small_above=False)).decode(), GREY)
    assert "lies below a thumbnail" in refusal(below(small_above=True))


def test_the_only_image_of_a_file_is_read_though_it_calls_itself_reduced() -> None:
    np.testing.assert_array_equal(image(written(GREY, subfiletype=1)).decode(), GREY)


def test_of_colours_told_as_luminance_and_two_more_the_luminance_is_taken() -> None:
    values_HW3 = np.moveaxis(planes(3), 0, 2)
    data = tiff_of((262, 3, 1, 6), (277, 3, 1, 3), (530, 3, 2, 0x10001), pixels=values_HW3.tobytes())
    np.testing.assert_array_equal(image(data).decode(), values_HW3[..., 0])


def test_a_palette_of_two_colours_is_read_and_one_that_is_none_is_refused() -> None:
    half_HW = np.arange(80) >= 40
    bits = np.packbits(np.broadcast_to(half_HW, SIDE), axis=1).tobytes()
    two = struct.pack("<6H", 65535, 0, 65535, 0, 65535, 0)
    data = tiff_of((258, 3, 1, 1), (262, 3, 1, 3), (320, 3, 6, two), pixels=bits)
    np.testing.assert_array_equal(image(data).decode(), np.where(np.broadcast_to(half_HW, SIDE), 0, 255))
    for change in ((320, 3, 30, bytes(60)), (320, 3, 31, bytes(62)), (320, 12, 768, bytes(6144))):
        assert "palette" in refusal(tiff_of((262, 3, 1, 3), change, pixels=GREY.tobytes()))


def test_twelve_bits_in_words_of_sixteen_are_named() -> None:
    data = tiff_of((258, 3, 1, 12), pixels=(DEEP >> 4).tobytes())
    assert refusal(data) == "says 12 bits a value, and holds 16; save it with 16 bits"


def test_strips_that_were_left_out_are_nothing() -> None:
    offsets, lengths = struct.pack("<2I", 0, 8), struct.pack("<2I", 0, 2400)
    data = tiff_of(
        (278, 4, 1, 30), (273, 4, 2, offsets), (279, 4, 2, lengths), (65000, 7, 2400, bytes(2400)), pixels=b""
    )
    read_HW = image(data).decode()
    assert not read_HW[:30].any() and read_HW[30:].any()


# Pixel sizes


def ome_said(pixels: str) -> bytes:
    text = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" {pixels} SizeC="1" SizeT="1" SizeX="80" '
        'SizeY="60" SizeZ="1" Type="uint8"><Channel ID="Channel:0:0"/><TiffData/></Pixels></Image></OME>'
    )
    return written(GREY, description=text.encode(), metadata=None)


@pytest.mark.parametrize(
    ("pixels", "um"),
    [
        ('PhysicalSizeX="0.65"', 0.65),
        ('PhysicalSizeX="0.65" PhysicalSizeXUnit="µm" PhysicalSizeY="0.65" PhysicalSizeYUnit="µm"', 0.65),
        ('PhysicalSizeX="0.65" PhysicalSizeXUnit="&#181;m"', 0.65),
        ('PhysicalSizeX="0.65" PhysicalSizeXUnit="&#xB5;m"', 0.65),
        ('PhysicalSizeX="0.65" PhysicalSizeXUnit="μm"', 0.65),
        ("PhysicalSizeX = '0.65'\n PhysicalSizeXUnit = 'um'", 0.65),
        ('PhysicalSizeXUnit="nm" PhysicalSizeX="650"', 0.65),
        ('PhysicalSizeX="0.00065" PhysicalSizeXUnit="mm"', 0.65),
        ('PhysicalSizeX="6.5E-5" PhysicalSizeXUnit="cm"', 0.65),
        ('PhysicalSizeX="6.5e-7" PhysicalSizeXUnit="m"', 0.65),
        ('PhysicalSizeX="6500" PhysicalSizeXUnit="Å"', 0.65),
        ('PhysicalSizeX="0.0001" PhysicalSizeXUnit="in"', 2.54),
        ('PhysicalSizeX="650000" PhysicalSizeXUnit="pm"', 0.65),
        ('PhysicalSizeX="0,65" PhysicalSizeXUnit="µm"', 0.65),
        ('PhysicalSizeY="0.65"', 0.65),
        ('PhysicalSizeX="1" PhysicalSizeXUnit="pixel"', None),
        ('PhysicalSizeX="1" PhysicalSizeXUnit="reference frame"', None),
        ('PhysicalSizeX="-1"', None),
        ('PhysicalSizeX="nan"', None),
        ("", None),
    ],
)
def test_ome_xml_says_the_size_of_a_pixel_in_any_unit(pixels: str, um: float | None) -> None:
    assert image(ome_said(pixels)).pixel_um == (None if um is None else pytest.approx(um, rel=1e-9))


@pytest.mark.parametrize(
    ("unit", "pixels_a_unit", "um"),
    [
        ("um", 2, 0.5), ("µm", 2, 0.5), ("\\u00B5m", 2, 0.5), ("micron", 2, 0.5), ("microns", 2, 0.5),
        ("micrometer", 2, 0.5), ("micrometre", 2, 0.5), ("Micrometers", 2, 0.5), ("umeter", 2, 0.5), ("nm", 0.002, 0.5),
        ("nanometer", 0.002, 0.5), ("mm", 2000, 0.5), ("millimeter", 2000, 0.5), ("cm", 20_000, 0.5), ("m", 2e6, 0.5),
        ("inch", 50_800, 0.5), ("inch", 72, None), ("inch", 300, None), ("pixel", 1, None), ("pixels", 2, None),
        ("", 2, None), ("furlong", 2, None), ("um", 0, None),
    ],
)  # fmt: skip
def test_imagej_says_it_in_any_spelling_and_a_printers_inches_are_no_size(
    unit: str, pixels_a_unit: float, um: float | None
) -> None:
    text = f"ImageJ=1.54f\nunit={unit}\n".encode("utf-8" if unit.isascii() else "latin-1")
    data = written(GREY, description=text, metadata=None, resolution=(pixels_a_unit, pixels_a_unit))
    assert image(data).pixel_um == (None if um is None else pytest.approx(um, rel=1e-6))


def metaseries(state: str = "on", unit: str = "um", y: str = "0.65") -> bytes:
    properties = {"state": state, "x": "0.65", "y": y, "units": unit}
    props = "".join(f'<prop id="spatial-calibration-{k}" type="float" value="{v}"/>' for k, v in properties.items())
    return written(GREY, description=f"<MetaData><PlaneInfo>{props}</PlaneInfo></MetaData>", metadata=None)


@pytest.mark.parametrize(
    ("data", "um"),
    [
        (metaseries(), 0.65),
        (metaseries(unit="microns"), 0.65),
        (metaseries(state="off"), None),
        (metaseries(unit="pixel"), None),
        (written(GREY, resolution=(72, 72), resolutionunit="inch", metadata=None), None),
        (written(GREY, resolution=(15_384, 15_384), resolutionunit="centimeter", metadata=None), None),
    ],
)
def test_metaxpress_says_it_and_plain_resolutions_do_not(data: bytes, um: float | None) -> None:
    assert image(data).pixel_um == um


@pytest.mark.parametrize(
    "data",
    [
        ome_said('PhysicalSizeX="0.65" PhysicalSizeY="1.3"'),
        ome_said('PhysicalSizeX="0.65" PhysicalSizeY="1300" PhysicalSizeYUnit="nm"'),
        written(GREY, description="ImageJ=1.54f\nunit=um\n", metadata=None, resolution=(1 / 0.65, 1 / 1.3)),
        written(GREY, description="ImageJ=1.54f\nunit=um\nyunit=nm\n", metadata=None, resolution=(1 / 0.65, 1 / 1300)),
        metaseries(y="1.3"),
    ],
)
def test_pixels_that_are_not_square_are_said(data: bytes) -> None:
    with pytest.raises(DataError, match=r"^x.tif: its pixels are 0.65 µm wide and 1.3 µm high; resample it"):
        _ = image(data).pixel_um
    assert image(data).decode().shape == SIDE


@pytest.mark.parametrize(("state", "um"), [(1, 0.65), (0, None)])
def test_metamorph_says_it_in_its_stacks_unless_they_are_not_calibrated(state: int, um: float | None) -> None:
    assert image(stk(T3, calibrated=state)).pixel_um == um


def test_each_image_of_a_file_has_a_pixel_size_of_its_own() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, ome=True) as writer:
        for um, plane in zip((6.5, 0.65), C2, strict=True):
            writer.write(plane, photometric="minisblack", metadata={"PhysicalSizeX": um, "PhysicalSizeXUnit": "µm"})
    overview, field = image(buffer.getvalue()).pages("all")
    assert (overview.pixel_um, field.pixel_um) == (6.5, 0.65)


# Hostile files


def directories(chain: list[int], entries: int = 1) -> bytes:
    """Directories of so many entries each, each leading to the directory of that number, -1 ending it."""
    size = 2 + 12 * entries + 4
    data = b"II*\0" + struct.pack("<I", 8)
    for after in chain:
        data += struct.pack("<H", entries) + struct.pack("<HHII", 256, 4, 1, 8) * entries
        data += struct.pack("<I", 8 + after * size if after >= 0 else 0)
    return data


def entity_expansion() -> bytes:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    return written(
        GREY,
        description=f'<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY e0 "x">{entities}]><OME><Image Name="&e9;"/></OME>',
        metadata=None,
    )


def lying(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) >= 1 and len(old) == len(new)
    return data.replace(old, new)


def jpeg2000_that_says(side: int) -> bytes:
    data = written(GREY, compression="jpeg2000")
    return lying(data, struct.pack(">4I", 80, 60, 0, 0), struct.pack(">4I", side, side, 0, 0))


def jpeg_that_says(side: int) -> bytes:
    data = written(GREY, compression="jpeg")
    return lying(data, struct.pack(">HH", 60, 80), struct.pack(">HH", side, side))


def lerc_that_says(side: int) -> bytes:
    data = written(GREY, compression="lerc")
    return lying(data, struct.pack("<2i", 60, 80), struct.pack("<2i", side, side))


def bomb(compression: str, tag: int) -> bytes:
    """A strip of 60 × 80 pixels that would become 100 MB."""
    packed = {
        "zlib": lambda: zlib.compress(bytes(10**8), 9),
        "zstd": lambda: imagecodecs.zstd_encode(bytes(10**8)),
        "lzma": lambda: imagecodecs.lzma_encode(bytes(10**8)),
    }[compression]()
    tags = {256: 80, 257: 60, 258: 8, 259: tag, 262: 1, 273: 8 + 2 + 12 * 9 + 4, 277: 1, 278: 60, 279: len(packed)}
    rows = b"".join(struct.pack("<HHII", name, 4, 1, value) for name, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, 9) + rows + bytes(4) + packed


def planes_that_are_claimed(sizes: str) -> bytes:
    text = (
        f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="P" {sizes} '
        'DimensionOrder="XYZCT" SizeX="80" SizeY="60" Type="uint8"><Channel/><TiffData/></Pixels></Image></OME>'
    )
    return written(GREY, description=text, metadata=None)


def images_told_of(image_xml: str, number: int, pages: int = 1) -> bytes:
    text = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">' + image_xml * number + "</OME>"
    return written(np.stack([GREY] * pages), description=text, metadata=None)


def an_image(inside: str, depth: int = 1) -> str:
    sizes = f'SizeX="80" SizeY="60" SizeZ="{depth}" SizeC="1" SizeT="1"'
    return f'<Image><Pixels ID="P" {sizes} DimensionOrder="XYZCT" Type="uint8"><Channel/>{inside}</Pixels></Image>'


def said(text: str, *changes: tuple[int, int, int, Any], pixels: bytes = GREY.tobytes()) -> bytes:
    return tiff_of((270, 2, len(text), text.encode()), *changes, pixels=pixels)


def pages_of_sizes(number: int) -> bytes:
    size = 2 + 12 * 9 + 4
    found = b"II*\0" + struct.pack("<I", 8)
    for page in range(number):
        tags = {256: number - page, 257: 1, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: number - page}
        rows = ((tag, 4, 1, value) for tag, value in tags.items())
        found += packed(*rows, after=8 + (page + 1) * size if page + 1 < number else 0)
    return found


def tiles(width: int, height: int, side: tuple[int, int], part: bytes, number: int) -> bytes:
    """An image in ZSTD tiles that are all the same bytes."""
    rows = (
        (256, 4, 1, width), (257, 4, 1, height), (258, 4, 1, 8), (259, 4, 1, 50000), (262, 4, 1, 1), (277, 4, 1, 1),
        (322, 4, 1, side[0]), (323, 4, 1, side[1]), (324, 4, number, struct.pack("<I", 8 + 2 + 12 * 10 + 4) * number),
        (325, 4, number, struct.pack("<I", len(part)) * number),
    )  # fmt: skip
    return b"II*\0" + struct.pack("<I", 8) + packed(*rows, data=part)


def frame_header(jpeg: bytes) -> bytes:
    start = jpeg.index(b"\xff\xc0")
    return jpeg[start : start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big")]


def jpeg_behind_another_header() -> bytes:
    """A large JPEG, before which is what a reader that knows no fill bytes takes for the header of a small one."""
    small, large = imagecodecs.jpeg_encode(GREY), imagecodecs.jpeg_encode(np.zeros((2000, 2000), np.uint8))
    comment = bytearray(b"\xff\xff\xfe\0\4\0\0\xff\xfe\xfe\xc8" + bytes(0xFEC6))
    decoy = frame_header(small)
    comment[0xFE02 : 0xFE02 + len(decoy)] = decoy
    data = large[:2] + bytes(comment) + large[2:]
    return tiff_of((259, 3, 1, 7), pixels=data)


def jpeg_of_scans(number: int) -> bytes:
    data = cv2.imencode(".jpg", GREY, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * number + data[-2:]


def jpeg2000_behind_another_header() -> bytes:
    large = imagecodecs.jpeg2k_encode(np.zeros((2000, 2000), np.uint8), codecformat="jp2")
    small = imagecodecs.jpeg2k_encode(GREY, codecformat="j2k")[:60]
    end = large.index(b"jp2h") - 4
    data = large[:end] + struct.pack(">I", 68) + b"free" + small + large[end:]
    return tiff_of((259, 3, 1, 34712), pixels=data)


def one_list_many_times() -> bytes:
    """Pages whose strips, all of them, are told by the same numbers."""
    number, pages = 200_000, 14
    size = 2 + 12 * 9 + 4
    place = 8 + pages * size
    found = b"II*\0" + struct.pack("<I", 8)
    for page in range(pages):
        tags = {256: 80, 257: number, 258: 8, 259: 1, 262: 1, 277: 1, 278: 1}
        rows = [(tag, 4, 1, value) for tag, value in tags.items()] + [(273, 3, number, place), (279, 3, number, place)]
        found += packed(*rows, after=8 + (page + 1) * size if page + 1 < pages else 0)
    return found + bytes(2 * number) + bytes(5_000_000)


HOSTILE: dict[str, tuple[Callable[[], bytes], str | None]] = {
    "a million places for the same planes": (
        lambda: images_told_of(an_image("<TiffData/>" * 400_000, 100), 1, 100),
        "100 pages",
    ),
    "thirty thousand images": (lambda: images_told_of(an_image('<TiffData IFD="0"/>'), 30_000), None),
    "images of a million planes, told": (
        lambda: images_told_of(an_image('<TiffData IFD="0" PlaneCount="1000000"/>'), 15_000),
        None,
    ),
    "images of the same pages": (lambda: images_told_of(an_image("<TiffData/>", 500), 200, 500), "over 50000 planes"),
    "pages of 2,000 sizes": (lambda: pages_of_sizes(2000), "over 300 sizes and forms"),
    "a thousand million samples": (lambda: tiff_of((277, 4, 1, 10**9), pixels=GREY.tobytes()), "over 1000 channels"),
    "65,535 samples": (lambda: tiff_of((277, 3, 1, 65_535), pixels=GREY.tobytes()), "over 1000 channels"),
    "planes of a pixel": (
        lambda: said(
            "ImageJ=1.54f\nimages=5000000\nslices=5000000\n", (256, 4, 1, 1), (257, 4, 1, 1), pixels=bytes(5_000_000)
        ),
        "over 50000 planes",
    ),
    "a shape of a million million": (lambda: said('{"shape": [1000000000000, 60, 80]}'), "over 50000 planes"),
    "properties that never end": (lambda: said("<MetaData>" + '<prop id="spatial-a"' * 50_000), None),
    "places of nothing below": (
        lambda: tiff_of((330, 4, 10**6, bytes(4 * 10**6)), pixels=GREY.tobytes()),
        "more directories",
    ),
    "tiles of a pixel": (
        lambda: tiles(500, 300, (1, 1), imagecodecs.zstd_encode(b"1"), 150_000),
        "in 150,000 strips or tiles",
    ),
    "tiles that are larger than the image": (
        lambda: tiles(1000, 1, (16, 1_500_000), imagecodecs.zstd_encode(bytes(24_000_000)), 63),
        "far larger than the image",
    ),
    "too few tiles": (lambda: tiles(80, 60, (16, 16), imagecodecs.zstd_encode(bytes(256)), 7), "missing"),
    "colours of nothing": (
        lambda: tiff_of(
            (259, 3, 1, 8),
            (262, 3, 1, 2),
            (277, 3, 1, 1000),
            (284, 3, 1, 2),
            (256, 4, 1, 1000),
            (257, 4, 1, 1000),
            (273, 4, 1000, b"\1\0\0\0" * 1000),
            (279, 4, 1000, bytes(4000)),
            (278, 4, 1, 1000),
            pixels=b"",
        ),
        "1000 MB of memory",
    ),
    "one list many times": (one_list_many_times, "more bytes than an image needs"),
    "many notes of MetaMorph": (
        lambda: tiff_of((33628, 4, 10**6, struct.pack("<II", 7, 100) * 10**6), pixels=GREY.tobytes()),
        "more entries than an image needs",
    ),
    "values of no type": (
        lambda: tiff_of((33629, 99, 4 * 10**9, 8), pixels=GREY.tobytes()),
        "more bytes than an image needs",
    ),
    "JPEG behind another header": (jpeg_behind_another_header, "damaged"),
    "JPEG of 200 scans": (lambda: tiff_of((259, 3, 1, 7), pixels=jpeg_of_scans(200)), "scans; save it"),
    "JPEG of 200 scans, by itself": (lambda: jpeg_of_scans(200), "scans; save it"),
    "JPEG 2000 behind another header": (jpeg2000_behind_another_header, "damaged"),
    "an offset of almost 2**64": (
        lambda: b"II+\0\x08\0\0\0" + struct.pack("<Q", 2**64 - 8) + bytes(99),
        "ends too early",
    ),
    "no width": (lambda: tiff_of((256, 4, 1, 0), pixels=GREY.tobytes()), "of no size"),
    "a width below zero": (lambda: tiff_of((256, 9, 1, 2**32 - 80), pixels=GREY.tobytes()), "of no size"),
    "strips of rows below zero": (lambda: tiff_of((278, 9, 1, 2**32 - 1), pixels=GREY.tobytes()), "of no size"),
    "many compressions": (lambda: tiff_of((259, 3, 200, bytes(400)), pixels=GREY.tobytes()), "of no size or form"),
    "bits that differ": (
        lambda: tiff_of((258, 3, 3, b"\5\0\6\0\5\0"), (277, 3, 1, 3), pixels=GREY.tobytes()),
        "5, 6, 5 bits",
    ),
    "a circle of one": (lambda: directories([0]), "round in a circle"),
    "a circle of three": (lambda: directories([1, 2, 0]), "round in a circle"),
    "directories of 65,535 entries": (lambda: directories([1, -1], 65_535)[:800_000], "65,535 entries"),
    "6,000 directories": (lambda: directories([*range(1, 6000), -1]), "holds over 5000 pages"),
    "110 directories of 4,000 entries": (
        lambda: directories([*range(1, 110), -1], 4000),
        "more entries than an image needs",
    ),
    "one long value, many times": (
        lambda: b"II*\0" + struct.pack("<IH", 8, 4000) + struct.pack("<HHII", 65000, 7, 40_000, 8) * 4000 + bytes(4),
        "more bytes than an image needs",
    ),
    "a value that ends behind the file": (
        lambda: b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 330, 4, 3, 10**9) + bytes(4),
        "ends too early",
    ),
    "entities in entities": (entity_expansion, None),
    "a billion planes": (lambda: planes_that_are_claimed('SizeZ="1000000000" SizeC="1" SizeT="1"'), None),
    "a billion planes, by three sizes": (
        lambda: planes_that_are_claimed('SizeZ="1000" SizeC="1000" SizeT="1000"'),
        None,
    ),
    "JPEG 2000 of another size": (lambda: jpeg2000_that_says(60_000), "damaged"),
    "JPEG of another size": (lambda: jpeg_that_says(60_000), "damaged"),
    "LERC of another size": (lambda: lerc_that_says(60_000), "damaged"),
    "a hundred megabytes, Deflate": (lambda: bomb("zlib", 8), None),
    "a hundred megabytes, ZSTD": (lambda: bomb("zstd", 50000), None),
    "a hundred megabytes, LZMA": (lambda: bomb("lzma", 34925), None),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_costs_little_and_is_refused_or_read_as_what_it_holds(name: str) -> None:
    make, said = HOSTILE[name]
    data = make()
    tracked = memory_kb()
    started = time.process_time()
    try:
        read_HW = image(data).decode()
    except DataError as error:
        assert said is None or said in str(error)
        assert "\n" not in str(error) and len(str(error)) < 200
    else:
        assert said is None and read_HW.shape == SIDE
    assert time.process_time() - started < 5 and memory_kb() - tracked < 200_000


def memory_kb() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize(
    ("tag", "said"),
    [
        ((273, 4, 3 * 10**7, 4096), "120 MB of numbers in an entry"),
        ((279, 16, 3 * 10**9, 4096), "more bytes than an image needs"),
        ((50839, 1, 8 * 10**9, 4096), "more bytes than an image needs"),
        ((279, 16, 1, 30 * 10**9), "its pixels cannot be decoded"),
    ],
)
def test_a_file_of_40_gb_of_which_nothing_is_on_the_disk_costs_no_more_than_others(
    tmp_path: Path, tag: tuple[int, int, int, int], said: str
) -> None:
    tags = {256: 80, 257: 60, 258: 8, 259: 8, 262: 1, 277: 1, 278: 60, 273: 4096, 279: 4800}
    rows = {number: (number, 4, 1, value) for number, value in tags.items()} | {tag[0]: tag}
    directory = b"".join(struct.pack("<HHQQ", *row) for _, row in sorted(rows.items()))
    path = tmp_path / "sparse.tif"
    with path.open("wb") as file:
        file.write(b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, len(rows)) + directory + bytes(8))
        file.truncate(40 * 10**9)
    before = memory_kb()
    with pytest.raises(DataError, match=said):
        ImageFile.at(path).in_memory().decode()
    assert memory_kb() - before < 200_000


def test_a_description_of_more_blocks_of_planes_than_a_file_needs_is_not_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
        'DimensionOrder="XYCZT" Type="uint8" SizeX="80" SizeY="60" SizeC="1" SizeZ="1" SizeT="1">'
        f"{'<TiffData/>' * 2}</Pixels></Image></OME>"
    )
    assert len(read_ome(text, 1)[0]) == 1
    monkeypatch.setattr("cellnet.images.ome.MOST_BLOCKS", 0)
    with pytest.raises(ValueError, match="tells of over 0 blocks of planes"):
        read_ome(text, 1)
    assert image(said(text)).decode().shape == SIDE, "the page is read as it lies"


def test_a_thousand_directories_are_a_thousand_pages() -> None:
    data = written(np.stack([GREY] * 1000), metadata=None)
    assert len(image(data).pages("all")) == 1000
    np.testing.assert_array_equal(image(data, page=777).decode(), GREY)


# All that there is


def every_tiff() -> Iterator[Path]:
    for folder in (SHARED, ROOT / "tests"):
        yield from sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".tif", ".tiff"))


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="no folder of shared images beside the project")
def test_every_tiff_there_is_holds_what_tifffile_reads() -> None:
    seen = 0
    for path in every_tiff():
        with tifffile.TiffFile(path) as tif:
            pages = list(tif.pages)
            if not pages:
                continue
            first = pages[0]
            if first.photometric != tifffile.PHOTOMETRIC.MINISBLACK or first.samplesperpixel > 1:
                continue
            right = first.asarray()
        if right.dtype not in (np.uint8, np.uint16):
            right = spread(right)
        page = ImageFile.at(path).pages(1)[0]
        if len(np.unique(right)) > 1:
            np.testing.assert_array_equal(page.decode(), right, err_msg=path.name)
        seen += 1
    assert seen > 50
