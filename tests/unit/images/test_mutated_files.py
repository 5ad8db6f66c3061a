"""Files as they come from full disks, broken transfers and people: a frame, or one line that says what is wrong."""

import io
import itertools
import json
import os
import resource
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from cellnet.bank.frames import Frame, read_pixels
from cellnet.bank.prepare import prepare
from cellnet.images import apart
from cellnet.images.file import ImageFile
from cellnet.prediction.lineup import resolve_models
from cellnet.prediction.sources import list_files
from cellnet.readers import LabelledFile
from cellnet.store.folder import FolderStore
from pipelines.predict import Question, _answers, _read
from tests.factories import Known, champions

pytestmark = [
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # Pillow, of cut files
]
SUFFIXES = (".png", ".jpg", ".bmp", ".tif")
MB_MORE = 400
"""Far below the 1,600 MB of grey pixels that a header of 40,000×40,000 claims."""

Taken = Callable[[dict[str, bytes]], dict[str, Frame]]
SLOPE_HW = np.add.outer(np.arange(48), 3 * np.arange(64))
GREY_HW = (SLOPE_HW + np.random.default_rng(0).integers(0, 16, (48, 64))).astype(np.uint8)
RGB_HW3 = np.dstack([GREY_HW, GREY_HW // 2, 255 - GREY_HW])
FLOAT_HW = np.sin(GREY_HW / 40).astype(np.float32)


def tiff(pixels: NDArray[np.generic], *, sample_format: int = 1, pages: int = 1) -> bytes:
    """An uncompressed TIFF of any sample type (1 unsigned, 2 signed, 3 float, 6 complex), directories first."""
    (height, width), bits = pixels.shape, 1 if pixels.dtype == bool else 8 * pixels.itemsize
    data = np.packbits(pixels, axis=1).tobytes() if bits == 1 else pixels.tobytes()
    size = 2 + 10 * 12 + 4
    found = b"II*\0" + struct.pack("<I", 8)
    for page in range(1, pages + 1):
        tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8 + pages * size}
        tags |= {277: 1, 278: height, 279: len(data), 339: sample_format}
        rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
        found += struct.pack("<H", 10) + rows + struct.pack("<I", 8 + page * size if page < pages else 0)
    return found + data


def saved(image: PIL.Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def encoded(suffix: str, image: NDArray[np.generic]) -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


def good() -> dict[str, bytes]:
    """An intact file of every kind, by its name."""
    deep_HW = GREY_HW.astype(np.uint16) * 200
    return {
        "8 bit.png": encoded(".png", GREY_HW),
        "16 bit.png": encoded(".png", deep_HW),
        "palette.png": saved(PIL.Image.fromarray(RGB_HW3).quantize(64), "PNG"),
        "rgb.png": encoded(".png", RGB_HW3),
        "grey.jpg": encoded(".jpg", GREY_HW),
        "rgb.jpg": encoded(".jpg", RGB_HW3),
        "grey.bmp": encoded(".bmp", GREY_HW),
        "rgb.bmp": encoded(".bmp", RGB_HW3),
        "16 bit.tif": tiff(deep_HW),
        "float.tif": tiff(FLOAT_HW, sample_format=3),
        "lzw.tif": encoded(".tif", deep_HW),
    }


def huge(kind: str, side: int) -> bytes:
    """A small intact file whose header claims side × side pixels."""
    data = bytearray(good()[kind])
    if kind.endswith(".png"):
        data[16:24] = struct.pack(">II", side, side)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif kind.endswith(".bmp"):
        data[18:26] = struct.pack("<ii", side, side)
    elif kind.endswith(".jpg"):
        start = data.index(b"\xff\xc0") + 5
        data[start : start + 4] = struct.pack(">HH", side, side)
    else:
        data[18:22] = data[30:34] = struct.pack("<I", side)  # the values of the first two tags
    return bytes(data)


def cut_short() -> dict[str, bytes]:
    """Ten of every kind, ending anywhere before the last tenth."""
    rng = np.random.default_rng(1)
    return {
        f"cut {number} {name}": data[: rng.integers(1, int(len(data) * 0.9))]
        for name, data in good().items()
        for number in range(10)
    }


def disguised() -> dict[str, bytes]:
    """What is no image at all, under every suffix of one."""
    rng = np.random.default_rng(2)
    contents = {
        "nothing": b"",
        "table": b"image,lineage,count,group\na.png,A549,12,B7\n",
        "page": b"<!DOCTYPE html><html><body>404</body></html>",
        "json": json.dumps({"images": [], "annotations": []}).encode(),
        "pdf": b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\n%%EOF\n",
        "zip": b"PK\x03\x04" + rng.bytes(200),
        "gif": saved(PIL.Image.fromarray(GREY_HW), "GIF"),
        "zeros": bytes(5000),
        "noise": rng.bytes(5000),
        "utf-16": "Zellen".encode("utf-16"),
    }
    return {f"{name}{suffix}": data for name, data in contents.items() for suffix in SUFFIXES}


def headless() -> dict[str, bytes]:
    """The signature of a format, and noise after it."""
    rng = np.random.default_rng(3)
    signatures = {".png": b"\x89PNG\r\n\x1a\n", ".jpg": b"\xff\xd8\xff\xe0", ".bmp": b"BM", ".tif": b"II*\0"}
    return {
        f"headless {number}{suffix}": signature + rng.bytes(int(rng.integers(1, 4000)))
        for suffix, signature in signatures.items()
        for number in range(6)
    }


def unfit() -> dict[str, bytes]:
    """Images that are whole, and that no frame can be made of."""
    nan_HW = np.where(GREY_HW > 100, np.nan, FLOAT_HW).astype(np.float32)
    blank_HW = np.full((48, 64), 9, np.uint8)
    return {
        "complex64.tif": tiff(FLOAT_HW.astype(np.complex64), sample_format=6),
        "complex128.tif": tiff(FLOAT_HW.astype(np.complex128), sample_format=6),
        "nan.tif": tiff(nan_HW, sample_format=3),
        "infinite.tif": tiff(np.where(GREY_HW > 100, np.inf, FLOAT_HW).astype(np.float32), sample_format=3),
        "two pages.tif": tiff(GREY_HW, pages=2),
        **{f"blank{suffix}": encoded(suffix, blank_HW) for suffix in SUFFIXES},
        "blank float.tif": tiff(np.ones((48, 64), np.float32), sample_format=3),
        **{
            f"{side} {kind}": huge(kind, side)
            for kind in good()
            for side in (20_000, 40_000)
            if kind != "lzw.tif"  # its directory is elsewhere
        },
    }


def flipped() -> dict[str, bytes]:
    """One to four bits of every kind turned over, in the first hundred bytes or anywhere: some still decode."""
    rng = np.random.default_rng(4)
    found = {}
    for (name, data), number in itertools.product(good().items(), range(20)):
        changed = bytearray(data)
        for place in rng.integers(0, 100 if number % 2 else len(data), rng.integers(1, 5)):
            changed[place] ^= 1 << int(rng.integers(8))
        found[f"flipped {number} {name}"] = bytes(changed)
    return found


@pytest.fixture
def taken(tmp_path: Path) -> Taken:
    """What becomes of files; each is checked to be a whole frame or one fit line, at no great cost in memory."""
    store = FolderStore(tmp_path / "bank")

    def take(files: dict[str, bytes]) -> dict[str, Frame]:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        frames = {}
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
            frames[name] = prepare(LabelledFile(image=ImageFile.at(tmp_path / name)), store)
        for frame in frames.values():
            check(frame, store)
        more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
        assert more < MB_MORE, f"{more} MB more"
        return frames

    return take


def check(frame: Frame, store: FolderStore) -> None:
    if frame.set_aside is None:
        pixels_HW = read_pixels(store, frame)
        assert pixels_HW.shape == (frame.height, frame.width), frame.source
        assert (pixels_HW.min(), pixels_HW.max()) == (frame.darkest, frame.brightest), frame.source
    else:
        said = frame.set_aside
        assert said == said.strip() and 0 < len(said) < 200 and said.isprintable(), (frame.source, said)
        assert "Traceback" not in said and str(Path(frame.source).parent) not in said, (frame.source, said)


def test_intact_files_of_every_kind_are_frames_whatever_their_suffix(taken: Taken) -> None:
    frames = taken({f"{name}{suffix}": data for name, data in good().items() for suffix in SUFFIXES})
    assert {frame.set_aside for frame in frames.values()} == {None}
    pixels = {name: {frames[f"{name}{suffix}"].frame for suffix in SUFFIXES} for name in good()}
    assert all(len(found) == 1 for found in pixels.values()), "the suffix makes no difference"
    assert pixels["8 bit.png"] == pixels["grey.bmp"]
    assert pixels["16 bit.png"] == pixels["16 bit.tif"] == pixels["lzw.tif"]
    assert {name for name in good() if frames[f"{name}.tif"].bits == 16} == {
        "16 bit.png", "16 bit.tif", "lzw.tif", "float.tif",
    }  # fmt: skip


def test_of_over_200_files_that_are_certainly_bad_each_gives_a_reason(taken: Taken) -> None:
    files = cut_short() | disguised() | headless() | unfit()
    assert len(files) >= 200
    assert [name for name, frame in taken(files).items() if frame.set_aside is None] == []


@pytest.mark.slow
def test_flipped_bits_give_a_frame_or_a_reason(taken: Taken) -> None:
    frames = taken(flipped())
    aside = sum(frame.set_aside is not None for frame in frames.values())
    assert 0 < aside < len(frames) == 220


@pytest.mark.parametrize(
    ("values_HW", "sample_format"),
    [
        (GREY_HW > 100, 1),
        (FLOAT_HW.astype(np.float16), 3),
        (FLOAT_HW.astype(np.float64), 3),
        (GREY_HW.astype(np.uint32), 1),
        (GREY_HW.astype(np.uint64), 1),
        (GREY_HW.astype(np.int64) - 99, 2),
    ],
    ids=lambda value: str(getattr(value, "dtype", "")),
)
def test_rare_sample_types_are_refused_or_read_from_their_lowest_to_their_highest(
    taken: Taken, tmp_path: Path, values_HW: NDArray[np.generic], sample_format: int
) -> None:
    frame = taken({"rare.tif": tiff(values_HW, sample_format=sample_format)})["rare.tif"]
    if frame.set_aside is None:
        pixels_HW = read_pixels(FolderStore(tmp_path / "bank"), frame) / frame.brightest
        low, high = float(values_HW.min()), float(values_HW.max())
        np.testing.assert_allclose(pixels_HW, (values_HW.astype(float) - low) / (high - low), atol=1e-2)


@pytest.mark.slow
def test_what_takes_too_long_is_set_aside_by_name_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = apart.Process(seconds=0.001)
    monkeypatch.setattr(apart, "_process", lambda: process)
    large = encoded(".png", np.eye(3000, dtype=np.uint8))
    (tmp_path / "slow.png").write_bytes(large)
    (tmp_path / "good.png").write_bytes(good()["8 bit.png"])
    files = [LabelledFile(image=ImageFile.at(tmp_path / name)) for name in ("slow.png", "good.png")]
    slow, other = (prepare(file, FolderStore(tmp_path / "bank")) for file in files)
    assert slow.set_aside and slow.set_aside.startswith("takes over 0.001 s to read") and other.set_aside is None
    listed = list_files([tmp_path / name for name in ("good.png", "slow.png")])
    registry = champions(tmp_path)
    models = resolve_models(registry, None, None)
    question = Question(registry=registry, models=models, pixel_um=None, page=None)
    answers = [next(_answers(models.map(Known), file, _read(file), question)) for file in listed]
    process.close()
    assert [said.error is None for said in answers] == [True, False]
    assert str(answers[1].error).startswith("slow.png: takes over 0.001 s to read")


def test_what_is_no_file_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FolderStore(tmp_path / "bank")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "broken.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as bound:
        monkeypatch.chdir(tmp_path)  # since the path of a socket must be short
        bound.bind("socket.png")
    names = ("folder", "broken", "loop", "device", "pipe", "socket")
    files = [ImageFile.at(tmp_path / f"{name}.png") for name in names]
    frames = [prepare(LabelledFile(image=image), store) for image in files]
    for frame in frames:
        check(frame, store)
    assert [frame.set_aside for frame in frames] == [
        "cannot be read: it is a folder, no file",
        "cannot be read: No such file or directory",
        "cannot be read: Too many levels of symbolic links",
        "cannot be read: it is a device, no file",
        "cannot be read: it is a named pipe, no file",
        "cannot be read: it is a socket, no file",
    ]


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"", "over 1 GB, so it was not read; cut it, or save single pages"),
        (b"\x89PNG\r\n\x1a\n", "over 1 GB, so it was not read; cut it, or save single pages"),
        (b"II*\0\x08\0\0\0", "a damaged TIFF, without an image; export it again"),
    ],
    ids=["zeros", "png", "tiff"],
)
def test_a_sparse_file_of_40_gb_is_set_aside_and_not_read(tmp_path: Path, start: bytes, said: str) -> None:
    path = tmp_path / "sparse.tif"
    path.write_bytes(start)
    os.truncate(path, 40 * 10**9)
    frame = prepare(LabelledFile(image=ImageFile.at(path)), FolderStore(tmp_path / "bank"))
    assert frame.set_aside == said
