"""Images made into frames: decoded once, their pixels stored by content."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cellnet.bank.duplicates import fingerprint
from cellnet.bank.frames import FEW_GREYS, FORM, Frame, digest_of_pixels
from cellnet.bank.table import SCHEMA, from_parquet, to_parquet
from cellnet.errors import DataError, NotFoundError
from cellnet.images.file import ImageFile, encode_png
from cellnet.images.masks import cells_of_mask
from cellnet.images.pixels import Pixels, sharpness_of
from cellnet.readers import LabelledFile
from cellnet.store.objects import Store


def prepare_all(files: Sequence[LabelledFile], store: Store) -> list[Frame]:
    """Each image as `prepare` gives it, or as it was given when an earlier import read the same unchanged files."""
    recipe = json.dumps([FORM, SCHEMA.names, [vars(file) for file in files]], default=_stamp)
    key = f"prepared/{hashlib.sha256(recipe.encode()).hexdigest()}.parquet"
    try:
        return from_parquet(store.get(key), key).frames
    except NotFoundError:
        frames = [prepare(file, store) for file in files]
        if any(frame.set_aside is None for frame in frames):
            store.create(key, to_parquet(frames))
        return frames


def _stamp(image: ImageFile) -> list[Any]:
    """What changes when an image does: its place, page and channel, its size and the time of its last change."""
    try:
        status = os.stat(image.place)
    except OSError:
        return [image.place, image.page, image.channel]
    return [image.place, image.page, image.channel, status.st_size, status.st_mtime_ns]


def prepare(file: LabelledFile, store: Store) -> Frame:
    """Decode one image and store its pixels; what cannot be read comes back set aside, with the reason."""
    source = _text(f"{file.image.place}{file.image.mark}")
    if file.problem:
        return Frame(frame="", source=source, set_aside=file.problem)
    try:
        [image] = file.image.in_memory().pages(file.image.page)
        image_HW = image.decode()
        pixel_um = file.pixel_um or image.pixel_um
        source = _text(f"{file.image.place}{image.mark}")
        file, note = _with_cells(file, (image_HW.shape[0], image_HW.shape[1]))
        _check_centres(file, image_HW.shape)
    except DataError as error:
        return Frame(frame="", source=source, set_aside=str(error).removeprefix(f"{file.image.name}: "))
    digest = digest_of_pixels(image_HW)
    store.create(f"pixels/{digest}.png", encode_png(image_HW))
    return Frame(
        frame=digest,
        source=source,
        lineage=None if file.lineage is None else _text(file.lineage),
        count=file.count,
        centres=None if file.centres is None else [list(point) for point in file.centres],
        note=note,
        group=_text(file.group) if file.group else digest[:16],
        batch=None if file.batch is None else _text(file.batch),
        time_h=file.time_h,
        height=image_HW.shape[0],
        width=image_HW.shape[1],
        bits=image_HW.dtype.itemsize * 8,
        darkest=int(image_HW.min()),
        brightest=int(image_HW.max()),
        greys=_few_greys(image_HW),
        sharpness=sharpness_of(image_HW),
        pixel_um=pixel_um,
        fingerprint=fingerprint(image_HW),
        form=FORM,
    )


def _few_greys(image_HW: Pixels) -> int | None:
    """How many grey values an image has, if they are few."""
    greys = int(np.count_nonzero(np.bincount(image_HW.ravel())))
    return greys if greys < FEW_GREYS else None


def _text(name: str) -> str:
    """The name, with � for what is no UTF-8: old archives hold such names, and tables cannot."""
    return os.fsencode(name).decode(errors="replace")


def _check_centres(file: LabelledFile, size: tuple[int, ...]) -> None:
    """Raise DataError for centres that are no pixels of the frame."""
    height, width = size
    centres = file.centres or ()
    outside = sum(not (0 <= x <= width and 0 <= y <= height) for x, y in centres)
    if outside:
        raise DataError(
            f"{outside} of its {len(centres)} centres lie outside its {width}×{height} pixels; give x and "
            "y in pixels from the upper left corner, or no centres"
        )


def _with_cells(file: LabelledFile, size: tuple[int, int]) -> tuple[LabelledFile, str | None]:
    """The file with the count and the centres of its mask, if it has one, and how the mask was read."""
    if file.mask is None:
        return file, None
    cells = cells_of_mask(file.mask, size=size)
    centres = tuple((x, y) for x, y in cells.centres_N2.tolist())
    return replace(file, count=float(len(centres)), centres=centres), cells.note
