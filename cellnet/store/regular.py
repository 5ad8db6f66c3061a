"""Files on the disk, opened only where they are files: a pipe would be waited for, a device never ends."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_file(path: str | Path) -> BinaryIO:
    """A file, to be read. Raises OSError for what is none, which is not opened; `strerror` then says what it is."""
    _check(os.stat(path).st_mode, path)
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))  # noqa: SIM115
    try:
        _check(os.fstat(file.fileno()).st_mode, path)  # another may lie there since
    except BaseException:
        file.close()
        raise
    return file


def read_file(path: str | Path, most: int) -> bytes:
    """All of a file. Raises OSError as `open_file`, also for one of over `most` bytes, of which no more are read."""
    with open_file(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it has over {most:,} bytes", str(path))
    return data


def kind_of_file(mode: int) -> str:
    """What lies at a place, in words, by its mode."""
    kinds = (
        (stat.S_ISREG, "a file"), (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
    )  # fmt: skip
    return next((words for is_kind, words in kinds if is_kind(mode)), "something else")


def _check(mode: int, path: str | Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder, no file", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"it is {kind_of_file(mode)}, no file", str(path))
