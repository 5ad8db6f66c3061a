"""What reading a TIFF by tifffile costs beside OpenCV: `python tests/benchmarks/decoding.py`.

Drawn frames of 1040×1408, from bytes in memory to grey pixels, header and counting of directories included, one after
the other in turn on one thread; milliseconds as a median, and how they compare. OpenCV is called as cellnet called it
before: its header read by Pillow, all its pages counted, then decoded. A dash: it does not read the file, or reads
other values.
"""

import io
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it runs from anywhere

import cv2
import numpy as np
import PIL.Image
import tifffile
from numpy.typing import NDArray

from cellnet.images.file import ImageFile
from tests.factories import clouds

SIZE: Final = (1040, 1408)
SECONDS: Final = 3.0
"""For each file."""
KINDS: Final[dict[str, tuple[int, dict[str, Any]]]] = {
    "8 bits": (8, {}),
    "16 bits": (16, {}),
    "8 bits, LZW": (8, {"compression": "lzw"}),
    "16 bits, LZW, strips of 8": (16, {"compression": "lzw", "rowsperstrip": 8}),
    "16 bits, LZW, predictor, tiles": (16, {"compression": "lzw", "predictor": True, "tile": (256, 256)}),
    "16 bits, Deflate": (16, {"compression": "zlib"}),
    "16 bits, ZSTD": (16, {"compression": "zstd"}),
    "16 bits, MinIsWhite": (16, {"photometric": "miniswhite"}),
    "the middle of 20, 16 bits": (16, {"imagej": True, "metadata": {"axes": "ZYX"}}),
}


def written(bits: int, options: dict[str, Any]) -> tuple[bytes, NDArray[Any]]:
    """A file, and the pixels that are right."""
    frame_HW = clouds(*SIZE, bits=bits)
    values = np.stack([frame_HW + np.uint16(z) for z in range(20)]) if "imagej" in options else frame_HW
    file = io.BytesIO()
    tifffile.imwrite(file, values, **({"photometric": "minisblack"} | options))
    right_HW = values[10] if values.ndim == 3 else values
    if options.get("photometric") == "miniswhite":
        right_HW = np.iinfo(right_HW.dtype).max - right_HW
    return file.getvalue(), right_HW


def by_cellnet(data: bytes) -> NDArray[Any]:
    return ImageFile("x.tif", data).pages(None)[0].decode()


def by_opencv(data: bytes) -> NDArray[Any]:
    flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    pages_n = 0
    with PIL.Image.open(io.BytesIO(data)) as image:
        try:
            while True:
                image.seek(pages_n)
                pages_n += 1
        except EOFError:
            pass
    if pages_n == 1:
        return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), flags))
    page = pages_n // 2
    return np.asarray(cv2.imdecodemulti(np.frombuffer(data, np.uint8), flags, range=(page, page + 1))[1][0])


def times_ms(data: bytes, readers: list[Callable[[bytes], NDArray[Any]]]) -> list[float]:
    """Of each reader in turn, for `SECONDS` together."""
    taken: list[list[float]] = [[] for _ in readers]
    until = time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        for read, times in zip(readers, taken, strict=True):
            started = time.perf_counter()
            read(data)
            times.append(1e3 * (time.perf_counter() - started))
    return [statistics.median(times) for times in taken]


def reads(read: Callable[[bytes], NDArray[Any]], data: bytes, right_HW: NDArray[Any]) -> bool:
    try:
        return np.array_equal(read(data), right_HW)
    except (cv2.error, IndexError):
        return False


def main() -> None:
    cv2.setNumThreads(1)
    print("| file | tifffile | OpenCV | ratio |\n|---|---|---|---|")
    for name, (bits, options) in KINDS.items():
        data, right_HW = written(bits, options)
        assert reads(by_cellnet, data, right_HW), name
        if not reads(by_opencv, data, right_HW):
            [ms] = times_ms(data, [by_cellnet])
            print(f"| {name} | {ms:.1f} ms | – | |")
            continue
        ours, theirs = times_ms(data, [by_cellnet, by_opencv])
        print(f"| {name} | {ours:.1f} ms | {theirs:.1f} ms | {ours / theirs:.2f} |")


if __name__ == "__main__":
    main()
