"""What a file is that is not read here, in the words of whoever has it, and the way out of it."""

import re
from typing import Final

NO_IMAGE: Final = "not a readable PNG, JPEG, TIFF or BMP image"
FIRST_BYTES: Final = 1024
"""Of a file, that its format is told by."""

_MICROSCOPE: Final = "export it as OME-TIFF, with the microscope's program or with Fiji"
_PICTURE: Final = "save it as PNG or TIFF"
_PLANES: Final = "save its frames as PNG or TIFF"
_TABLE: Final = "save it as CSV"
_ARCHIVE: Final = "unpack it"
_ARRAY: Final = "save its pixels as TIFF"
_AGAIN: Final = "copy or download it again"

_MAGIC: Final = (
    (0, b"ZISRAWFILE", "a CZI file of Zeiss", _MICROSCOPE),
    (0, b"\xda\xce\xbe\x0a", "an ND2 file of Nikon", _MICROSCOPE),
    (0, b"OLYMPUSRAWFORMAT", "an OIR file of Olympus", _MICROSCOPE),
    (0, b"SIS\0", "an ETS file, the pixels of a VSI of Olympus", _MICROSCOPE),
    (0, b"ics_version", "an ICS file", _MICROSCOPE),
    (0, b"CDF\1", "a NetCDF file", _ARRAY),
    (208, b"MAP ", "an MRC file", _MICROSCOPE),
    (128, b"DICM", "a DICOM file", _MICROSCOPE),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", _ARRAY),
    (0, b"NRRD", "an NRRD file", _ARRAY),
    (344, b"n+1\0", "a NIfTI file", _ARRAY),
    (0, b"SIMPLE  =", "a FITS file", _ARRAY),
    (0, b"\x93NUMPY", "a NumPy array", _ARRAY),
    (0, b"MATLAB ", "a MATLAB file", _ARRAY),
    (0, b"GIF8", "a GIF image", _PICTURE),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image", _PICTURE),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image", _PICTURE),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image", _PICTURE),
    (0, b"\xff\x0a", "a JPEG XL image", _PICTURE),
    (0, b"II\xbc\x01", "a JPEG XR image", _PICTURE),
    (0, b"8BPS", "a Photoshop file", _PICTURE),
    (0, b"gimp xcf", "a GIMP file", _PICTURE),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR image", _PICTURE),
    (0, b"#?RADIANCE", "a Radiance HDR image", _PICTURE),
    (0, b"\0\0\1\0", "an icon", _PICTURE),
    (0, b"%PDF-", "a PDF document", "save its images as PNG or TIFF"),
    (0, b"%!PS", "a PostScript document", "save its images as PNG or TIFF"),
    (0, b"{\\rtf", "a text document", _PICTURE),
    (0, b"\x1a\x45\xdf\xa3", "a video (Matroska or WebM)", _PLANES),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a video (WMV)", _PLANES),
    (0, b"\0\0\1\xba", "a video (MPEG)", _PLANES),
    (0, b"\0\0\1\xb3", "a video (MPEG)", _PLANES),
    (0, b"FLV\1", "a video (Flash)", _PLANES),
    (0, b"OggS", "a video or sound (Ogg)", _PLANES),
    (0, b"Rar!\x1a\x07", "a RAR archive", _ARCHIVE),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _ARCHIVE),
    (0, b"\x1f\x8b", "a gzip archive", _ARCHIVE),
    (0, b"BZh", "a bzip2 archive", _ARCHIVE),
    (0, b"\xfd7zXZ\0", "an xz archive", _ARCHIVE),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive", _ARCHIVE),
    (257, b"ustar", "a tar archive", _ARCHIVE),
    (0, b"PAR1", "a Parquet table", _TABLE),
    (0, b"SQLite format 3\0", "an SQLite database", _TABLE),
    (0, b"Iout", "a ROI of ImageJ, no image", "put it beside the image of its name"),
    (0, b"\0\5\x16\x07", "what a Mac keeps beside a file, no image", "take the file without ._ before its name"),
    (0, b"\0\0\0\1Bud1", "what a Mac keeps of a folder, no image", "leave it out"),
    (0, b"L\0\0\0\1\x14\2\0", "a shortcut of Windows, no image", "copy the image itself"),
    (0, b"version https://git-lfs", "a pointer of Git LFS, not the file itself", "fetch it with git lfs pull"),
    (0, b"/annex/objects/", "a pointer of git-annex, not the file itself", "fetch it with git annex get"),
)

_OF_SUFFIX: Final = {
    ".czi": ("a CZI file of Zeiss", _MICROSCOPE),
    ".zvi": ("a ZVI file of Zeiss", _MICROSCOPE),
    ".nd2": ("an ND2 file of Nikon", _MICROSCOPE),
    ".lif": ("a LIF file of Leica", _MICROSCOPE),
    ".lof": ("a LOF file of Leica", _MICROSCOPE),
    ".lei": ("a LEI file of Leica", _MICROSCOPE),
    ".xlef": ("an XLEF file of Leica", _MICROSCOPE),
    ".oib": ("an OIB file of Olympus", _MICROSCOPE),
    ".oif": ("an OIF file of Olympus", _MICROSCOPE),
    ".oir": ("an OIR file of Olympus", _MICROSCOPE),
    ".poir": ("a POIR file of Olympus", _MICROSCOPE),
    ".vsi": ("a VSI file of Olympus", _MICROSCOPE),
    ".ets": ("an ETS file, the pixels of a VSI of Olympus", _MICROSCOPE),
    ".mrxs": ("a MIRAX slide", _MICROSCOPE),
    ".ims": ("an IMS file of Imaris", _MICROSCOPE),
    ".dv": ("a DeltaVision file", _MICROSCOPE),
    ".r3d": ("a DeltaVision file", _MICROSCOPE),
    ".sld": ("a SlideBook file", _MICROSCOPE),
    ".sldy": ("a SlideBook file", _MICROSCOPE),
    ".c01": ("a C01 file of Cellomics", _MICROSCOPE),
    ".dib": ("a DIB file of Cellomics", _MICROSCOPE),
    ".dm3": ("a DM3 file of Gatan", _MICROSCOPE),
    ".dm4": ("a DM4 file of Gatan", _MICROSCOPE),
    ".ics": ("an ICS file", _MICROSCOPE),
    ".ids": ("the pixels of an ICS file", _MICROSCOPE),
    ".mrc": ("an MRC file", _MICROSCOPE),
    ".dcm": ("a DICOM file", _MICROSCOPE),
    ".zarr": ("a Zarr folder", _MICROSCOPE),
    ".n5": ("an N5 folder", _MICROSCOPE),
    ".h5": ("an HDF5 file", _ARRAY),
    ".hdf5": ("an HDF5 file", _ARRAY),
    ".npz": ("a NumPy archive", _ARRAY),
    ".mat": ("a MATLAB file", _ARRAY),
    ".raw": ("an image of a camera or a dump of pixels", _PICTURE),
    ".cr2": ("an image of a Canon camera (CR2)", _PICTURE),
    ".nef": ("an image of a Nikon camera (NEF)", _PICTURE),
    ".arw": ("an image of a Sony camera (ARW)", _PICTURE),
    ".orf": ("an image of an Olympus camera (ORF)", _PICTURE),
    ".rw2": ("an image of a Panasonic camera (RW2)", _PICTURE),
    ".dng": ("an image of a camera (DNG)", _PICTURE),
    ".heic": ("an HEIC image", _PICTURE),
    ".avif": ("an AVIF image", _PICTURE),
    ".xls": ("an Excel table", _TABLE),
    ".xlsx": ("an Excel table", _TABLE),
    ".ods": ("a LibreOffice table", _TABLE),
    ".docx": ("a Word document", "save its images as PNG or TIFF"),
    ".pptx": ("PowerPoint slides", "save their images as PNG or TIFF"),
    ".db": ("a database of Windows, no image", "leave it out"),
}
"""By its last suffix; what may have the first bytes of something more general, which is then no answer."""

_READ: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM")
_TIFF: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NO_TIFF: Final = frozenset({".vsi", ".ets", ".cr2", ".nef", ".arw", ".orf", ".dng", ".raw"})
"""Suffixes of files that begin as a TIFF does, and hold a thumbnail where a TIFF holds its image."""
_CONTAINERS: Final = (b"PK\3\4", b"PK\5\6", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"\x89HDF\r\n\x1a\n", b"\0\0\0\x0cjP")
"""First bytes of what many programs keep their own files in."""
_BRANDS: Final = {
    b"heic": ".heic",
    b"heix": ".heic",
    b"hevc": ".heic",
    b"mif1": ".heic",
    b"msf1": ".heic",
    b"avif": ".avif",
    b"avis": ".avif",
}
_MARKUP: Final = (
    (re.compile(rb"<!doctype html|<html", re.IGNORECASE), "a web page, perhaps that of a login", _AGAIN),
    (re.compile(rb"<svg\b|<!DOCTYPE svg"), "an SVG drawing", _PICTURE),
)


def name_of_format(first_bytes: bytes, name: str) -> str | None:
    """What a file is that is not read here, and what to do; None of PNG, JPEG, TIFF, BMP, and of what nobody knows.

    By its first bytes (`FIRST_BYTES` of them are enough), then by the suffix of its name; of a folder there are none.

    >>> name_of_format(b"ZISRAWFILE", "a.czi")
    "a CZI file of Zeiss, which is not read here; export it as OME-TIFF, with the microscope's program or with Fiji"
    """
    suffix = "." + name.lower().rstrip("/\\").rpartition(".")[2]
    if (first_bytes.startswith(_TIFF) and suffix not in _NO_TIFF) or first_bytes.startswith(_READ):
        return None
    found = _of_bytes(first_bytes, suffix) or _OF_SUFFIX.get(suffix) or _of_text(first_bytes)
    if found is None:
        return None
    what, way = found
    return f"{what}; {way}" if what.startswith(NO_IMAGE) else f"{what}, which is not read here; {way}"


def _of_bytes(data: bytes, suffix: str) -> tuple[str, str] | None:
    if data.startswith(_CONTAINERS) and suffix in _OF_SUFFIX:
        return _OF_SUFFIX[suffix]
    if data.startswith((b"PK\3\4", b"PK\5\6")):
        return ("an Excel table", _TABLE) if b"xl/" in data else ("a ZIP archive", _ARCHIVE)
    if data.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        return "a file of Windows (an old Excel table, an OIB of Olympus or a ZVI of Zeiss)", "export it as TIFF or CSV"
    if data[:4] == b"\x70\0\0\0" and data[8:9] == b"\x2a":
        return _OF_SUFFIX[".lof" if suffix == ".lof" else ".lif"]
    if data[:4] == b"RIFF":
        return ("a WebP image", _PICTURE) if data[8:12] == b"WEBP" else ("a video (AVI)", _PLANES)
    if data[4:8] == b"ftyp":
        return _OF_SUFFIX.get(_BRANDS.get(data[8:12], ""), ("a video (MP4 or MOV)", _PLANES))
    if data[4:8] in (b"moov", b"mdat", b"wide"):
        return "a video (MOV)", _PLANES
    if re.match(rb"P[1-7]\s", data):
        return "a PNM image (PGM, PPM)", _PICTURE
    for offset, magic, what, way in _MAGIC:
        if data[offset : offset + len(magic)] == magic:
            return what, way
    if len(data) > 7 and not any(data):
        return f"{NO_IMAGE}, nothing but zeros", _AGAIN
    return None


def _of_text(data: bytes) -> tuple[str, str] | None:
    """What text is: a page, a drawing, or text alone."""
    start = data.removeprefix(b"\xef\xbb\xbf").lstrip()
    for pattern, what, way in _MARKUP:
        if start[:1] == b"<" and pattern.search(start):
            return what, way
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return f"{NO_IMAGE}, but text", "give the image itself"
    try:
        words = start.decode()
    except UnicodeDecodeError as error:
        if error.start < len(start) - 3:  # a letter that the first bytes end in is all right
            return None
        words = start[: error.start].decode()
    if words and all(char.isprintable() or char in "\t\r\n\f" for char in words):
        return f"{NO_IMAGE}, but text", "give the image itself"
    return None
