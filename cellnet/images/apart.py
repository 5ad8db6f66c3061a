"""Images read in a process of its own, which is ended where one takes too long: a decoder cannot be told to stop.

Small images are read where they are asked for; the process is for what may be slow: large ones, TIFFs of several
directories, rare compressions. It is started when it is first needed, knows neither models nor keys, and stays. What it
says is JSON and pixels. Where it does not end what it does by itself (SIGALRM, which no decoder holds back), it is
killed.

    python -m cellnet.images.apart SOCKET
"""

import contextlib
import functools
import json
import math
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from cellnet.errors import DataError, UnavailableError, plain
from cellnet.images import tiff
from cellnet.images.file import Header, ImageFile
from cellnet.images.pixels import MAX_PIXELS, Pixels
from cellnet.store.paths import BucketPath

START_S: Final = 35.0
"""How long the process may take to start: under a second, and twenty where others want the CPUs. With `READ_S` it is
less than a minute, after which a service takes a thread that waits for it to hang.
"""
READ_S: Final = 20.0
"""How long an image may be read; 100 megapixels of colour take five seconds."""
SMALL_PX: Final = 2_000_000
SMALL_BYTES: Final = 4 * SMALL_PX
"""Pixels and bytes of an image that is read where it is asked for."""
FEW_SCANS: Final = 20
"""Likewise, of a JPEG: each goes over all pixels, and encoders make about ten."""
MEMORY_BYTES: Final = 4 * 2**30
"""Address space of the process, and `MEMORY_A_BYTE` more of a file that it is given. 100 megapixels of three colours in
16 bits take it half of that; a JPEG 2000 of 100 kB in tiny precincts would take it all.
"""
MEMORY_A_BYTE: Final = 3
MOST_HEADER: Final = 2**26
"""Bytes of a header: 50,000 planes take 3 MB."""
ENVIRONMENT: Final = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
"""What the process is told of the environment, which holds keys."""
_HEADER: Final = TypeAdapter(Header)


def opened(image: ImageFile) -> ImageFile:
    """The image in memory, its header known. Raises DataError for what cannot be read, or not in time."""
    return with_header(image if isinstance(image.contents, bytes) else image.in_memory())


def with_header(image: ImageFile) -> ImageFile:
    """The image, its header known; nothing more of a file on the disk is read. Raises as `opened`."""
    if not image.known and not is_plain(image):
        held = image.in_memory() if isinstance(image.contents, BucketPath) else image
        known = held.header if is_plain(held) else _process().header(held)
        object.__setattr__(image, "known", known)  # the file is what it was, and only known now
    return image


def decode(image: ImageFile, *, most: int = MAX_PIXELS) -> Pixels:
    """What `ImageFile.decode` gives. Raises DataError as it does, and for what is not decoded in time.

    Raises UnavailableError where the process for that does not start.
    """
    image = opened(image)
    return image.decode(most=most) if is_small(image) else _process().decode(image, most=most)


def decode_values(image: ImageFile) -> NDArray[Any]:
    """What `ImageFile.decode_values` gives. Raises DataError as it does, and for what is not decoded in time."""
    image = opened(image)
    return image.decode_values() if is_small(image) else _process().decode_values(image)


def is_small(image: ImageFile) -> bool:
    """Whether an image whose header is known is read within milliseconds."""
    data = image.contents
    return (
        is_plain(image)
        and image.header.bytes_n <= SMALL_BYTES
        and image.pixels_n <= SMALL_PX
        and not (image.header.kind == "JPEG" and isinstance(data, bytes) and data.count(b"\xff\xda") > FEW_SCANS)
    )


def is_plain(image: ImageFile) -> bool:
    """Whether its header is read within milliseconds."""
    data = image.contents
    return isinstance(data, bytes) and (data[:4] not in tiff.STARTS or tiff.is_plain(data))


class Process:
    """The process that reads, one image at a time."""

    def __init__(self, seconds: float = READ_S, memory: int = MEMORY_BYTES) -> None:
        self.seconds = seconds
        self.memory = memory
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return self._process.pid if self._process else None

    def header(self, image: ImageFile) -> Header:
        """What a file says of itself."""
        with self._asked(image, "header", 0) as (_, stream):
            return _HEADER.validate_json(_line(stream))

    def decode(self, image: ImageFile, *, most: int = MAX_PIXELS) -> Pixels:
        """As `ImageFile.decode`."""
        values_HW = self._values(image, "decode", most)
        if values_HW.ndim != 2 or values_HW.dtype not in (np.uint8, np.uint16):
            raise DataError(f"{image.name}: damaged, its pixels cannot be decoded")
        return values_HW

    def decode_values(self, image: ImageFile) -> NDArray[Any]:
        """As `ImageFile.decode_values`."""
        return self._values(image, "decode_values", MAX_PIXELS)

    def close(self) -> None:
        """End the process; it is started anew when it is needed."""
        if self._socket:
            self._socket.close()
        if self._process:
            self._process.kill()
            self._process.wait()
        self._process = self._socket = None

    def _values(self, image: ImageFile, what: str, most: int) -> NDArray[Any]:
        with self._asked(image, what, most) as (said, stream):
            kind, shape = np.dtype(said["dtype"]), tuple(map(int, said["shape"]))
            if kind.kind not in "buif" or math.prod(shape) * kind.itemsize > tiff.MOST_BYTES_A_PIXEL * MAX_PIXELS:
                raise ValueError("more than an image")
            values = np.empty(shape, kind)
            if stream.readinto(values.data.cast("B") if values.size else b"") != values.nbytes:
                raise EOFError
            return values

    @contextlib.contextmanager
    def _asked(self, image: ImageFile, what: str, most: int) -> Any:
        """What the process says first of an image, and the stream of the rest.

        Raises DataError; and UnavailableError where there is no process, which is no fault of the image.
        """
        image = _of_its_page(image)
        data = image.contents if isinstance(image.contents, bytes) else b""
        question = {
            "what": what, "most": most, "seconds": self.seconds, "bytes": len(data), "name": image.name,
            "memory": self.memory + MEMORY_A_BYTE * len(data), "page": image.page, "channel": image.channel,
            "known": None if image.known is None else _HEADER.dump_python(image.known, mode="json"),
            "path": os.fsencode(image.contents).decode("latin-1") if isinstance(image.contents, Path) else None,
        }  # fmt: skip
        with self._lock:
            connection = self._started()
            try:
                connection.sendall(json.dumps(question).encode() + b"\n")
                connection.sendall(data)
                with connection.makefile("rb") as stream:
                    said = json.loads(_line(stream))
                    if "error" not in said:
                        yield said, stream
            except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
                raise DataError(f"{image.name}: {self._ended(error)}") from error
        if "error" in said:
            raise DataError(str(said["error"]))

    def _ended(self, error: BaseException) -> str:
        """Why there is no answer; the process is ended."""
        process = self._process
        late = isinstance(error, TimeoutError)
        if process and not late:
            with contextlib.suppress(subprocess.TimeoutExpired):
                late = process.wait(1) == -signal.SIGALRM
        self.close()
        if late:
            return f"takes over {self.seconds:g} s to read; save it as PNG, or as a TIFF of common form"
        return "damaged, its decoder ended over it; save it anew"

    def _started(self) -> socket.socket:
        """The connection to the process. Raises UnavailableError where it does not start."""
        if self._process and self._process.poll() is not None:
            self.close()
        if self._socket is None:
            try:
                self._start()
            except (OSError, EOFError) as error:
                self.close()
                late = f"within {START_S:g} s" if isinstance(error, TimeoutError) else f"({plain(str(error))})"
                raise UnavailableError(
                    f"the process that decodes images does not start {late}; end other programs of this machine, "
                    "which may lack memory, and try again"
                ) from error
        assert self._socket
        return self._socket

    def _start(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(START_S)
        with theirs:
            environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
            environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=environment,
            )
        if self._socket.recv(1) != b"\n":  # it is there, and its time begins
            raise EOFError("it ended at once")
        self._socket.settimeout(self.seconds + 1)


def _of_its_page(image: ImageFile) -> ImageFile:
    """The image with a header that tells of no page but its own: of 50,000 it would take longer to send than to decode.

    A file on the disk may have changed since, and needs the whole.
    """
    if image.page is None or image.known is None or not isinstance(image.contents, bytes):
        return image
    structure = image.known.structure
    plane = structure.planes[image.page - 1 : image.page]
    if not plane:
        return image
    return replace(image, page=1, known=replace(image.known, structure=replace(structure, planes=plane)))


@functools.cache
def _process() -> Process:
    """That of this process."""
    os.register_at_fork(after_in_child=_process.cache_clear)
    return Process()


def _line(stream: IO[bytes]) -> bytes:
    line = stream.readline(MOST_HEADER)
    if not line.endswith(b"\n"):
        raise EOFError
    return line


def main(number: int) -> None:
    """Answer questions until nobody asks."""
    import cv2

    cv2.setNumThreads(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: whoever started this ends it
    with socket.socket(fileno=number) as connection, connection.makefile("rb") as questions:
        connection.sendall(b"\n")
        while question := questions.readline():
            asked = json.loads(question)
            if sys.platform != "darwin":  # which refuses to limit it
                hard = resource.getrlimit(resource.RLIMIT_AS)[1]
                most = asked["memory"] if hard == resource.RLIM_INFINITY else min(hard, asked["memory"])
                resource.setrlimit(resource.RLIMIT_AS, (most, hard))
            data = questions.read(asked["bytes"])
            signal.setitimer(signal.ITIMER_REAL, asked["seconds"])
            for part in _answer(asked, data):
                connection.sendall(part)
            signal.setitimer(signal.ITIMER_REAL, 0)


def _answer(asked: dict[str, Any], data: bytes) -> list[bytes | memoryview]:
    """What is said of an image, in parts."""
    path = asked["path"]
    contents = data if path is None else Path(os.fsdecode(path.encode("latin-1")))
    known = None if asked["known"] is None else _HEADER.validate_python(asked["known"])
    image = ImageFile(asked["name"], contents, asked["page"], asked["channel"], known)
    try:
        if asked["what"] == "header":
            return [b"{}\n", _HEADER.dump_json(image.header, exclude_defaults=True), b"\n"]
        values = image.decode_values() if asked["what"] == "decode_values" else image.decode(most=asked["most"])
    except DataError as error:
        return [json.dumps({"error": str(error)}).encode(), b"\n"]
    values = np.ascontiguousarray(values)
    said = {"dtype": values.dtype.str, "shape": values.shape}
    return [json.dumps(said).encode(), b"\n", values.data.cast("B") if values.size else b""]


if __name__ == "__main__":
    main(int(sys.argv[1]))
