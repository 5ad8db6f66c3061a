"""Files that nobody reads here are named as what they are."""

import gzip
import io
import lzma
import tarfile
import zipfile

import cv2
import numpy as np
import pytest

from cellnet.images.formats import FIRST_BYTES, name_of_format

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500)


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return file.getvalue()


def saved(array: object, **named: object) -> bytes:
    file = io.BytesIO()
    np.save(file, array) if not named else np.savez(file, **named)  # type: ignore[arg-type]
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "name", "said"),
    [
        (b"ZISRAWFILE" + bytes(50), "a.czi", "a CZI file of Zeiss"),
        (b"ZISRAWFILE" + bytes(50), "a.tif", "a CZI file of Zeiss"),
        (b"\xda\xce\xbe\x0a" + bytes(50), "a.nd2", "an ND2 file of Nikon"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a.nd2", "an ND2 file of Nikon"),  # before 2009
        (b"\x70\0\0\0\x10\0\0\0\x2a\x10", "a.lif", "a LIF file of Leica"),
        (b"\x70\0\0\0\x10\0\0\0\x2a\x10", "a.lof", "a LOF file of Leica"),
        (OLE, "a.oib", "an OIB file of Olympus"),
        (OLE, "a.zvi", "a ZVI file of Zeiss"),
        (OLE, "a.xls", "an Excel table"),
        (OLE, "Thumbs.db", "a database of Windows, no image"),
        (OLE, "a", "a file of Windows"),
        (b"OLYMPUSRAWFORMAT", "a.oir", "an OIR file of Olympus"),
        (b"II*\0" + bytes(50), "a.vsi", "a VSI file of Olympus"),
        (b"II*\0" + bytes(50), "a.CR2", "an image of a Canon camera"),
        (bytes(128) + b"DICM", "a", "a DICOM file"),
        (b"\x89HDF\r\n\x1a\n", "a.ims", "an IMS file of Imaris"),
        (b"\x89HDF\r\n\x1a\n", "a", "an HDF5 file"),
        (b"ics_version 1.0", "a.ics", "an ICS file"),
        (bytes(208) + b"MAP DA", "a.mrc", "an MRC file"),
        (b"NRRD0004\n", "a.nrrd", "an NRRD file"),
        (b"", "plate.zarr", "a Zarr folder"),
        (b"GIF89a", "a.gif", "a GIF image"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "a.png", "a WebP image"),
        (b"RIFF\x10\0\0\0AVI LIST", "a.avi", "a video (AVI)"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a.jp2", "a JPEG 2000 image"),
        (b"\xff\x4f\xff\x51\0", "a.j2k", "a JPEG 2000 image"),
        (b"\xff\x0a\0", "a.jxl", "a JPEG XL image"),
        (b"\0\0\0\x20ftypheic", "a.jpg", "an HEIC image"),
        (b"\0\0\0\x20ftypavif", "a.avif", "an AVIF image"),
        (b"\0\0\0\x20ftypisom", "a.mp4", "a video (MP4 or MOV)"),
        (b"\0\0\0\x14ftypqt  ", "a.mov", "a video (MP4 or MOV)"),
        (b"%PDF-1.7\n", "a.pdf", "a PDF document"),
        (b"8BPS\0\1", "a.psd", "a Photoshop file"),
        (b'<?xml version="1.0"?>\n<svg xmlns="a">', "a.svg", "an SVG drawing"),
        (zipped("xl/workbook.xml"), "a.csv", "an Excel table"),
        (zipped("xl/workbook.xml"), "a.xlsx", "an Excel table"),
        (zipped("a.tif"), "a.zip", "a ZIP archive"),
        (saved(None, a=np.zeros(3)), "a.npz", "a NumPy archive"),
        (saved(np.zeros(3)), "a.npy", "a NumPy array"),
        (b"Rar!\x1a\x07\0", "a.rar", "a RAR archive"),
        (b"7z\xbc\xaf\x27\x1c", "a.7z", "a 7z archive"),
        (gzip.compress(b"a", mtime=0), "a.tif.gz", "a gzip archive"),
        (lzma.compress(b"a"), "a.xz", "an xz archive"),
        (tarred(), "a.tar", "a tar archive"),
        (b"MATLAB 5.0 MAT-file", "a.mat", "a MATLAB file"),
        (b"\n <!DOCTYPE html><title>Sign in</title>", "a.tif", "a web page, perhaps that of a login"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a.tif", "a pointer of Git LFS, not the file itself"),
        (b"\0\5\x16\x07\0\2\0\0Mac OS X", "._a.png", "what a Mac keeps beside a file, no image"),
        (b"P5\n2 2\n255\n", "a.pgm", "a PNM image"),
        (b"image,count\na.png,3\n", "a.png", "not a readable PNG, JPEG, TIFF or BMP image, but text"),
        ("Größe\n".encode(), "a.png", "not a readable PNG, JPEG, TIFF or BMP image, but text"),
        ("a,b\n".encode("utf-16"), "a.png", "not a readable PNG, JPEG, TIFF or BMP image, but text"),
        (bytes(900), "a.tif", "not a readable PNG, JPEG, TIFF or BMP image, nothing but zeros"),
        (b"\x01\x02\x03\x04" * 20, "a.dm3", "a DM3 file of Gatan"),
    ],
)
def test_a_file_is_named_with_the_way_out(data: bytes, name: str, said: str) -> None:
    named = name_of_format(data[:FIRST_BYTES], name) or ""
    assert named.startswith(said)
    assert "which is not read here; " in named and "\n" not in named


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_what_is_read_here_is_not_named(suffix: str) -> None:
    _, data = cv2.imencode(suffix, np.eye(30, dtype=np.uint8))
    assert name_of_format(data.tobytes()[:FIRST_BYTES], f"a{suffix}") is None
    assert name_of_format(data.tobytes()[:FIRST_BYTES], "a.czi") is None


@pytest.mark.parametrize("name", ["a.lsm", "a.svs", "a.ndpi", "a.scn", "a.stk", "a.flex", "a.btf"])
def test_a_tiff_by_another_name_is_a_tiff(name: str) -> None:
    assert name_of_format(b"II*\0" + bytes(50), name) is None
    assert name_of_format(b"MM\0+" + bytes(50), name) is None


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x93\x01\xfe\x7f" * 9, b"\xff\xd9"])
def test_what_nobody_knows_is_not_named(data: bytes) -> None:
    assert name_of_format(data, "a.png") is None


def test_any_bytes_can_be_asked_about() -> None:
    rng = np.random.default_rng(0)
    for length in range(0, 600, 7):
        said = name_of_format(rng.bytes(length), "a.tif")
        assert said is None or "which is not read here" in said
