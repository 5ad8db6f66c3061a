"""Images made into frames: decoded once, their pixels stored by content."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from cellnet.bank.duplicates import fingerprint
from cellnet.bank.frames import Frame
from cellnet.bank.table import SCHEMA, from_parquet, to_parquet
from cellnet.errors import DataError, NotFoundError
from cellnet.images.file import cells_of_mask, decode, encode_png, pixel_size_um
from cellnet.readers import SourceFrame
from cellnet.store.objects import Store

PREPARED_FORM: Final = 1
"""To be raised when `prepare` makes something else of the same file."""


def prepare_all(sources: Sequence[SourceFrame], store: Store) -> list[Frame]:
    """Each image as `prepare` gives it, or as it was given when an earlier import read the same unchanged files."""
    facts = [(asdict(source), _stamp(source.path), _stamp(source.mask)) for source in sources]
    recipe = json.dumps([PREPARED_FORM, SCHEMA.names, facts], default=str)
    key = f"prepared/{hashlib.sha256(recipe.encode()).hexdigest()}.parquet"
    try:
        return from_parquet(store.get(key), key)
    except NotFoundError:
        frames = [prepare(source, store) for source in sources]
        if any(frame.set_aside is None for frame in frames):
            store.create(key, to_parquet(frames))
        return frames


def _stamp(path: Path | None) -> tuple[int, int] | None:
    """What changes when a file does: its size and the time of its last change."""
    try:
        known = path.stat() if path else None
    except OSError:
        return None
    return (known.st_size, known.st_mtime_ns) if known else None


def prepare(source: SourceFrame, store: Store) -> Frame:
    """Decode one image and store its pixels; what cannot be read comes back set aside, with the reason."""
    name = _text(source.path) if source.page is None else f"{_text(source.path)}#{source.page}"
    if source.problem:
        return Frame(frame="", source=name, set_aside=source.problem)
    try:
        data = source.path.read_bytes()
    except OSError as error:
        return Frame(frame="", source=name, set_aside=f"cannot be read: {error.strerror}")
    try:
        image_HW = decode(data, name=source.path.name, page=source.page)
        source = _with_cells(source, (image_HW.shape[0], image_HW.shape[1]))
        _check_centres(source, image_HW.shape)
    except DataError as error:
        return Frame(frame="", source=name, set_aside=str(error).removeprefix(f"{source.path.name}: "))
    header = f"{image_HW.dtype} {image_HW.shape}".encode()
    digest = hashlib.sha256(header + image_HW.tobytes()).hexdigest()
    store.create(f"pixels/{digest}.png", encode_png(image_HW))
    return Frame(
        frame=digest,
        source=name,
        lineage=None if source.lineage is None else _text(source.lineage),
        count=source.count,
        centres=None if source.centres is None else [list(point) for point in source.centres],
        group=_text(source.group) if source.group else digest[:16],
        height=image_HW.shape[0],
        width=image_HW.shape[1],
        bits=image_HW.dtype.itemsize * 8,
        darkest=int(image_HW.min()),
        brightest=int(image_HW.max()),
        pixel_um=source.pixel_um or pixel_size_um(data),
        fingerprint=fingerprint(image_HW),
    )


def _text(name: str | Path) -> str:
    """The name, with � for what is no UTF-8: old archives hold such names, and tables cannot."""
    return os.fsencode(name).decode(errors="replace")


def _check_centres(source: SourceFrame, size: tuple[int, ...]) -> None:
    """Raise DataError for centres that are no pixels of the frame."""
    height, width = size
    outside = sum(not (0 <= x <= width and 0 <= y <= height) for x, y in source.centres or ())
    if outside:
        raise DataError(
            f"{outside} of its {len(source.centres or ())} centres lie outside its {width}×{height} pixels; give x and "
            "y in pixels from the upper left corner, or no centres"
        )


def _with_cells(source: SourceFrame, size: tuple[int, int]) -> SourceFrame:
    """The source with the count and the centres of its mask, if it has one."""
    if source.mask is None:
        return source
    try:
        data = source.mask.read_bytes()
    except OSError as error:
        raise DataError(f"{source.mask.name}: cannot be read: {error.strerror}") from error
    centres_N2 = cells_of_mask(data, name=source.mask.name, size=size)
    return replace(source, count=float(len(centres_N2)), centres=tuple((x, y) for x, y in centres_N2.tolist()))
