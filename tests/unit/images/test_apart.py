"""The process that reads what may be slow: the same pixels and errors, and an end to what takes too long."""

import dataclasses
import io
import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import cv2
import numpy as np
import PIL.Image
import pytest
import tifffile
from numpy.typing import NDArray

from cellnet.errors import DataError, UnavailableError
from cellnet.images import apart
from cellnet.images.file import ImageFile, encode_png
from tests.factories import noise

NOISE = noise(60, 80)
JPEG_2000 = struct.pack("<H", 34712)


@pytest.fixture(scope="module")
def process() -> Iterator[apart.Process]:
    process = apart.Process()
    yield process
    process.close()


@pytest.fixture(autouse=True)
def _one(process: apart.Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "_process", lambda: process)


def entries(*changes: tuple[int, int, int, bytes], order: str = "<") -> bytes:
    """NOISE as a TIFF, with further entries behind those of the same tag, or before them where they are not changed."""
    tags = {256: 80, 257: 60, 258: 8, 259: 1, 262: 1, 273: 0, 277: 1, 278: 60, 279: 4800}
    changed = {tag for tag, *_ in changes}
    rows = [(tag, 3, 1, struct.pack(order + "H", value)) for tag, value in tags.items() if tag not in changed]
    rows = sorted([*rows, *changes], key=lambda row: row[0])
    start = 8 + 2 + 12 * len(rows) + 4
    found = b"II*\0" if order == "<" else b"MM\0*"
    found += struct.pack(order + "IH", 8, len(rows))
    for tag, kind, number, value in rows:
        value = struct.pack(order + "H", start) if tag == 273 else value
        found += struct.pack(order + "HHI", tag, kind, number) + value.ljust(4, b"\0")
    return found + bytes(4) + NOISE.tobytes()


def progressive(scans: int) -> bytes:
    """A JPEG of so many scans more than its encoder makes."""
    data = cv2.imencode(".jpg", NOISE, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * scans + data[-2:]


def ome(sizes: str, blocks: str = "", space: str = "") -> bytes:
    """NOISE as an OME-TIFF of one page; the words of its description may be of a name space."""
    text = f"<OME><Image><Pixels SizeX='80' SizeY='60' {sizes}>{blocks}</Pixels></Image></OME>"
    if space:
        text = re.sub("<(/?)", rf"<\1{space}:", text).replace(">", f" xmlns:{space}='u'>", 1)
    return entries((270, 2, len(text), struct.pack("<I", 8 + 2 + 12 * 10 + 4 + NOISE.size))) + text.encode()


def stack(pages: int) -> bytes:
    file = io.BytesIO()
    first, *others = [PIL.Image.fromarray(NOISE.astype(np.uint16) + page) for page in range(pages)]
    first.save(file, "TIFF", save_all=True, append_images=others)
    return file.getvalue()


def tif(image: NDArray[np.generic], compression: int = 1) -> bytes:
    return cv2.imencode(".tif", image, [cv2.IMWRITE_TIFF_COMPRESSION, compression])[1].tobytes()


def test_pixels_headers_and_errors_are_those_of_this_process(process: apart.Process) -> None:
    for data in (stack(3), encode_png(NOISE), tif(NOISE.astype(np.float32)), b"", b"no image", stack(1)[:300]):
        image = ImageFile("a.tif", data)
        assert process.header(image) == image.header
        try:
            expected = image.decode()
        except DataError as error:
            with pytest.raises(DataError) as caught:
                process.decode(image)
            assert str(caught.value) == str(error)
        else:
            said = process.decode(image)
            assert said.dtype == expected.dtype and (said == expected).all()
    labels = np.arange(4800, dtype=np.int32).reshape(60, 80)
    assert (process.decode_values(ImageFile("m.tif", tif(labels))) == labels).all()


def test_a_header_that_was_read_is_not_read_again(process: apart.Process) -> None:
    image = ImageFile("a.tif", stack(3))
    told = dataclasses.replace(image, known=dataclasses.replace(image.header, fault="told so"))
    with pytest.raises(DataError, match="told so"):
        process.decode(told)


def test_of_the_other_pages_nothing_is_sent_with_one_page(process: apart.Process, tmp_path: Path) -> None:
    pages = apart.opened(ImageFile("a.tif", stack(5))).pages("all")
    [page] = [one for one in pages if one.page == 3]
    assert len(page.header.structure.planes) == 5
    assert apart._of_its_page(page).header.structure.planes == page.header.structure.planes[2:3]
    assert (process.decode(page) == NOISE.astype(np.uint16) + 2).all()
    with pytest.raises(DataError, match="holds 5 pages, so there is no page 9"):
        process.decode(dataclasses.replace(page, page=9))
    (tmp_path / "a.tif").write_bytes(stack(5))
    on_disk = dataclasses.replace(page, contents=tmp_path / "a.tif")
    assert apart._of_its_page(on_disk) is on_disk


def test_a_file_of_the_disk_is_read_there(process: apart.Process, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("über") / "a\udcff.tif"
    path.write_bytes(stack(3))
    assert (process.decode(ImageFile("a.tif", path, 2)) == NOISE.astype(np.uint16) + 1).all()


@pytest.mark.parametrize(
    ("data", "small"),
    [
        (encode_png(NOISE), True),
        (tif(NOISE), True),
        (tif(NOISE, 5), True),
        (tif(NOISE, 8), True),
        (stack(2), False),
        (encode_png(np.eye(1500, dtype=np.uint8)), False),
        (tif(noise(1500, 1500)), False),
        (tif(np.zeros((2001, 8), np.uint8), 7), False),
        (entries(), True),
        (entries((259, 3, 1, JPEG_2000), (259, 3, 1, b"\1\0")), False),
        (entries((259, 4, 1, b"\0\0" + JPEG_2000[::-1]), order=">"), False),
        (entries((259, 16, 1, b"\x08\0")), False),
        (progressive(0), True),
        (progressive(30), False),
        (ome("SizeZ='1' SizeC='1' SizeT='1'", "<TiffData IFD='0' PlaneCount='1'/>"), True),
        (ome("SizeZ='20' SizeC='4' SizeT='50'"), True),
        (ome("SizeZ='1000000'"), False),
        (ome("SizeZ='100' SizeC='100' SizeT='100'"), False),
        (ome("SizeZ='&#49;000000'"), False),
        (ome("SizeZ = '1000000'"), False),
        (ome("", "<TiffData PlaneCount='1000000'/>"), False),
        (ome("SizeZ='2'", space="o"), True),
        (ome("SizeZ='1000000'", space="o"), False),
    ],
    ids=[
        "png", "tiff", "lzw", "deflate", "pages", "pixels", "pixels of a tiff", "jpeg in a tiff", "tiff by hand",
        "two compressions", "a compression of 32 bits", "a compression elsewhere", "scans", "many scans",
        "ome", "ome of others", "planes", "planes of three axes", "a reference", "spaces", "planes in a block",
        "a name space", "planes in a name space",
    ],
)  # fmt: skip
def test_what_is_read_where_it_is_asked_for(data: bytes, small: bool) -> None:
    assert apart.is_small(ImageFile("x", data)) == small


def test_a_file_of_hostile_directories_is_not_even_opened_here(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(ImageFile, "_read_header", lambda image: seen.append(image))
    opened = apart.opened(ImageFile("x", stack(2)))
    assert len(opened.header.structure.planes) == 2 and not seen


@pytest.mark.slow
@pytest.mark.parametrize("how", ["hangs", "computes", "dies"])
def test_a_decoder_that_overruns_or_dies_is_ended_and_the_next_image_is_read(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = apart.Process()
    image = ImageFile("slow.png", encode_png(np.eye(5000, dtype=np.uint8)))
    try:
        first = ImageFile("a", encode_png(NOISE))
        process.decode(first)
        before = process.pid
        assert before and process._socket
        if how == "hangs":
            os.kill(before, signal.SIGSTOP)
            process._socket.settimeout(0.1)
        elif how == "computes":
            process.seconds = 0.001
        else:
            os.kill(before, signal.SIGSTOP)  # until it is asked: one that has ended by then is started anew, and reads
            wait = apart._line

            def die(stream: IO[bytes]) -> bytes:
                os.kill(before, signal.SIGSEGV)
                os.kill(before, signal.SIGCONT)
                return wait(stream)

            monkeypatch.setattr(apart, "_line", die)
        with pytest.raises(DataError) as caught:
            process.decode(image)
        monkeypatch.undo()
        said = {
            "hangs": "takes over 20 s to read; save it as PNG",
            "computes": "takes over 0.001 s to read; save it as PNG",
            "dies": "damaged, its decoder ended over it",
        }
        assert str(caught.value).startswith(f"slow.png: {said[how]}")
        process.seconds = apart.READ_S
        assert (process.decode(first) == NOISE).all() and process.pid != before
    finally:
        process.close()


@pytest.mark.parametrize(
    ("program", "said"),
    [("exec sleep 60", "within 0.2 s"), ("exit 1", "(it ended at once)"), (None, "(")],
    ids=["hangs", "ends", "is not there"],
)
def test_a_process_that_does_not_start_is_no_fault_of_the_image_and_is_tried_again(
    program: str | None, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    if program:
        python.write_text(f"#!/bin/sh\n{program}\n")
        python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    if program == "exec sleep 60":
        monkeypatch.setattr(apart, "START_S", 0.2)
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **o: started.append(start(*a, **o)) or started[-1])
    process, image = apart.Process(), ImageFile("a", encode_png(NOISE))
    with pytest.raises(UnavailableError) as caught:
        process.decode(image)
    assert str(caught.value).startswith(f"the process that decodes images does not start {said}")
    assert "memory, and try again" in str(caught.value)
    assert process.pid is None and all(one.returncode is not None for one in started), "none is left"
    monkeypatch.undo()
    monkeypatch.setattr(apart, "_process", lambda: process)
    try:
        assert (process.decode(image) == NOISE).all()
    finally:
        process.close()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "darwin", reason="refuses to limit memory")
def test_an_image_that_takes_more_memory_than_it_may_is_refused_and_the_next_is_read() -> None:
    process = apart.Process(memory=450 * 2**20)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((3000, 6000)), compression="zlib", rowsperstrip=3000)
    try:
        with pytest.raises(DataError, match=r"^large.tif: "):
            process.decode_values(ImageFile("large.tif", buffer.getvalue()))
        assert (process.decode(ImageFile("a", encode_png(NOISE))) == NOISE).all()
        process.memory = apart.MEMORY_BYTES
        assert process.decode_values(ImageFile("large.tif", buffer.getvalue())).shape == (3000, 6000)
    finally:
        process.close()


@pytest.mark.slow
def test_the_process_knows_no_secrets_and_ends_with_whoever_started_it(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("child") / "pid"
    program = (
        "import pathlib, numpy as np; from cellnet.images import apart; from cellnet.images.file import *\n"
        "p = apart.Process(); p.decode(ImageFile('a', encode_png(np.eye(9, dtype=np.uint8))))\n"
        "told = pathlib.Path(f'/proc/{p.pid}/environ').read_bytes()\n"
        "assert b'SECRET' not in told, told\n"
        f"pathlib.Path({str(path)!r}).write_text(str(p.pid))"
    )
    environment = os.environ | {"AWS_SECRET_ACCESS_KEY": "x", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    pid = int(path.read_text())
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        with open(f"/proc/{pid}/stat") as stat:
            if stat.read().split()[2] == "Z":
                return
        signal.sigtimedwait([], 0.05)
    pytest.fail("it goes on")
