"""Work on files anywhere in a cluster, though some of its machines may not see them.

Whoever types a command names files that his machine sees. A machine that sees the same file reads it itself; for one
that does not, the command's machine reads it, and sends what it read.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import ray.data

from cellnet.images.file import ImageFile
from pipelines import cluster

File = TypeVar("File")


Work = Callable[..., Any]
"""What is done with some files: called with them, what was read of them if they are not here (`sent`), and more."""


@dataclass
class Piece:
    """Some files on their way."""

    files: Any
    """None once the work is done."""
    stamps: list[Any]
    """Size and time of the last change of each, as the command's machine sees it."""
    sent: Any = None
    """What that machine read of them."""
    result: Any = None


def chunks_of(
    files: Sequence[File], *, most: int, most_bytes: int, bytes_of: Callable[[File], int]
) -> Iterator[list[File]]:
    """The files in order, at most so many together, and not many bytes if there are several."""
    chunk: list[File] = []
    size = 0
    for file in files:
        bytes_n = bytes_of(file)
        if chunk and (len(chunk) == most or size + bytes_n > most_bytes):
            yield chunk
            chunk, size = [], 0
        chunk.append(file)
        size += bytes_n
    if chunk:
        yield chunk


def spread(
    chunks: Sequence[Sequence[File]],
    images_of: Callable[[File], Sequence[ImageFile]],
    read: Callable[[Sequence[File]], Any],
    work: Work,
    *,
    blocks: int,
    **more: Any,
) -> Iterator[Any]:
    """What `work` comes to for each chunk of files, in order.

    `images_of` says which files on the disk are behind one; `read` gives what `work` wants of files that are not here.
    """
    is_own = cluster.is_own()
    pieces = [{"piece": Piece(chunk, [] if is_own else _stamps(chunk, images_of))} for chunk in chunks]
    rows = ray.data.from_items(pieces, override_num_blocks=blocks)
    do = partial(work, **more)
    rows = rows.map(_try, fn_kwargs={"do": do, "images_of": None if is_own else images_of})
    if not is_own:
        here: Any = cluster.on_this_node()
        rows = rows.map(_fetch, fn_kwargs={"read": read}, num_cpus=0, scheduling_strategy=here)
        rows = rows.map(_finish, fn_kwargs={"do": do})
    return (row["piece"].result for row in rows.iter_rows())


def _try(row: dict[str, Any], do: Work, images_of: Callable[[Any], Sequence[ImageFile]] | None) -> dict[str, Any]:
    """The work, if the files are here as they were seen."""
    piece: Piece = row["piece"]
    if images_of and _stamps(piece.files, images_of) != piece.stamps:
        return row
    return {"piece": Piece(None, [], result=do(piece.files, sent=None))}


def _fetch(row: dict[str, Any], read: Callable[[Any], Any]) -> dict[str, Any]:
    """What is to be sent, read on the command's machine."""
    piece: Piece = row["piece"]
    return row if piece.files is None else {"piece": replace(piece, sent=read(piece.files))}


def _finish(row: dict[str, Any], do: Work) -> dict[str, Any]:
    piece: Piece = row["piece"]
    return row if piece.files is None else {"piece": Piece(None, [], result=do(piece.files, sent=piece.sent))}


def _stamps(files: Sequence[File], images_of: Callable[[File], Sequence[ImageFile]]) -> list[Any]:
    return [[image.stamp for image in images_of(file)] for file in files]
