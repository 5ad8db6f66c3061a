"""Images made into frames: decoded once, their pixels stored by content."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, Final, NamedTuple

import numpy as np

from cellnet.bank.columns import SCHEMA, Frames
from cellnet.bank.duplicates import fingerprint
from cellnet.bank.frames import FEW_GREYS, FORM, MOST_CELLS, Frame, digest_of_pixels
from cellnet.bank.table import from_parquet, to_parquet
from cellnet.errors import DataError, NotFoundError, encodable
from cellnet.images import apart
from cellnet.images.file import ImageFile, encode_png
from cellnet.images.masks import cells_of_mask
from cellnet.images.pixels import Pixels, sharpness_of
from cellnet.images.quality import measure
from cellnet.images.tiles import lies_inside
from cellnet.readers import LabelledFile
from cellnet.store.objects import Store, together
from cellnet.store.paths import BucketPath

OUTSIDE: Final = "centres lie outside"
"""In the reason why an image with such is set aside."""
LONGEST: Final = 1000
"""Characters of the reason why an image is set aside, which may quote what its tables say."""
READERS: Final = 8
"""Images that are read from a bucket side by side, since one far away answers slowly."""
AHEAD_BYTES: Final = 128 * 2**20
"""Bytes of images that are read side by side, if there are several of them."""

Held = tuple[ImageFile, ImageFile | None]
"""An image and its mask, if it has one, in memory."""


class Sent(NamedTuple):
    """Files that were read on another machine, since this one does not see them."""

    key: str
    """Under which the bank keeps what they come to."""
    held: list[Held | DataError]
    """Nothing where it is kept already."""


def prepare_all(files: Sequence[LabelledFile], store: Store, sent: Sent | None = None) -> Frames:
    """Each image as `prepare` gives it, or as it was given when an earlier import read the same unchanged files.

    `sent`: what was read of them elsewhere, if they are not here.
    """
    key = sent.key if sent else _key_of(files)
    try:
        return from_parquet(store.get(key), key).frames
    except NotFoundError:
        frames, all_read = [], True
        for file, held in zip(files, sent.held if sent else _hold_all(files), strict=True):
            frames.append(prepare(file, store, held))
            all_read &= not isinstance(held, DataError)  # it may be there, or be allowed, the next time
        if all_read and any(frame.set_aside is None for frame in frames):
            store.create(key, to_parquet(frames))
        return Frames.of(frames)


def send_all(files: Sequence[LabelledFile], store: Store) -> Sent:
    """The files for `prepare_all` on a machine that does not see them; unread where it is known what they come to."""
    key = _key_of(files)
    try:
        store.get(key)
        return Sent(key, [])
    except NotFoundError:
        return Sent(key, [_sent(held) for held in _hold_all(files)])


def _sent(held: Held | DataError) -> Held | DataError:
    for image in () if isinstance(held, DataError) else held:
        if image and not isinstance(image.contents, bytes):
            return image.too_large_to_send()
    return held


def _key_of(files: Sequence[LabelledFile]) -> str:
    recipe = json.dumps([FORM, SCHEMA.names, [vars(file) for file in files]], default=_stamp)
    return f"prepared/{hashlib.sha256(recipe.encode()).hexdigest()}.parquet"


def _stamp(image: ImageFile) -> list[Any]:
    """What changes when an image does: its place, page and channel, its size and its last change, or its ETag."""
    return [image.place, image.page, image.channel, *(image.stamp or ())]


def _hold_all(files: Sequence[LabelledFile]) -> Iterator[Held | DataError]:
    """Each image and its mask in memory, or why they cannot be read; those of a bucket are asked for side by side.

    All of them are in a bucket, or none.
    """
    group: list[LabelledFile] = []
    size = 0
    for file in files:
        if not isinstance(file.image.contents, BucketPath):
            yield _hold(file)
            continue
        bytes_n = sum(image.stamp[0] for image in (file.image, file.mask) if image and image.stamp)
        if group and size + bytes_n > AHEAD_BYTES:
            yield from together(_hold, group, threads=READERS)
            group, size = [], 0
        group.append(file)
        size += bytes_n
    yield from together(_hold, group, threads=READERS)


def _hold(file: LabelledFile) -> Held | DataError:
    if file.problem:
        return file.image, file.mask
    try:
        return file.image.in_memory(), file.mask and file.mask.in_memory()
    except DataError as error:
        return error


def prepare(file: LabelledFile, store: Store, held: Held | DataError | None = None) -> Frame:
    """Decode one image and store its pixels; what cannot be read comes back set aside, with the reason.

    `held` is what was read of it already.
    """
    frame = _prepare(file, store, held or _hold(file))
    texts: dict[str, Any] = {name: encodable(value) for name, value in asdict(frame).items() if isinstance(value, str)}
    if frame.set_aside:
        texts["set_aside"] = texts["set_aside"][:LONGEST]
    return replace(frame, **texts)


def _prepare(file: LabelledFile, store: Store, held: Held | DataError) -> Frame:
    source = f"{file.image.place}{file.image.mark}"
    if file.problem:
        return Frame(frame="", source=source, set_aside=file.problem)
    try:
        if isinstance(held, DataError):
            raise held
        [image] = apart.opened(held[0]).pages(file.image.page)
        image_HW = apart.decode(image)
        pixel_um = file.pixel_um or image.pixel_um
        source = f"{file.image.place}{image.mark}"
        _check_plane(file, image)
        if file.count is not None and file.count > MOST_CELLS:
            raise DataError(f"the count {file.count:g} is more than one image can hold; write the number of its cells")
        file = replace(_in_scale(file, *image_HW.shape), mask=held[1])
        file, note = _with_cells(file, (image_HW.shape[0], image_HW.shape[1]))
        _check_centres(file, image_HW.shape)
    except DataError as error:
        return Frame(frame="", source=source, set_aside=str(error).removeprefix(f"{file.image.name}: "))
    digest = digest_of_pixels(image_HW)
    store.create(f"pixels/{digest}.png", encode_png(image_HW))
    return Frame(
        frame=digest,
        source=source,
        lineage=file.lineage,
        count=file.count,
        centres=None if file.centres is None else [list(point) for point in file.centres],
        note=note,
        group=file.group or digest[:16],
        batch=file.batch,
        time_h=file.time_h,
        height=image_HW.shape[0],
        width=image_HW.shape[1],
        bits=image_HW.dtype.itemsize * 8,
        darkest=int(image_HW.min()),
        brightest=int(image_HW.max()),
        greys=_few_greys(image_HW),
        sharpness=sharpness_of(image_HW),
        **asdict(measure(image_HW)),
        pixel_um=pixel_um,
        fingerprint=fingerprint(image_HW),
        form=FORM,
    )


def _few_greys(image_HW: Pixels) -> int | None:
    """How many grey values an image has, if they are few."""
    greys = int(np.count_nonzero(np.bincount(image_HW.ravel())))
    return greys if greys < FEW_GREYS else None


def _check_centres(file: LabelledFile, size: tuple[int, ...]) -> None:
    """Raise DataError for centres that are no pixels of the frame."""
    height, width = size
    centres = file.centres or ()
    outside = sum(not lies_inside(x, y, width=width, height=height) for x, y in centres)
    if outside:
        said = f"{outside} of its {len(centres)} {OUTSIDE} its {width}×{height} pixels"
        if all(lies_inside(y, x, width=width, height=height) for x, y in centres):
            raise DataError(f"{said}, and none with x and y exchanged; exchange the columns x and y of the table")
        raise DataError(f"{said}; give x and y in pixels from the upper left corner, or no centres")


def _check_plane(file: LabelledFile, image: ImageFile) -> None:
    """Raise DataError where the cells were marked in another plane of a file than the one that is taken."""
    if file.plane is not None and image.page not in (None, file.plane):
        raise DataError(f"its cells are marked in plane {file.plane}, not {image.page}; choose it: --page {file.plane}")


def _in_scale(file: LabelledFile, height: int, width: int) -> LabelledFile:
    """The file with its centres in its own pixels, where they were made for another size of it.

    Raises DataError where the sizes differ by more than one factor: then the image was cut or turned since.
    """
    if file.size_px is None or file.size_px == (width, height):
        return file
    of_width, of_height = file.size_px
    factor = width / of_width
    seen = f"its labels were made for {of_width:g}×{of_height:g} pixels, but it has {width}×{height}"
    if abs(of_height * factor - height) > max(1.0, factor):
        if (of_height, of_width) == (width, height):
            seen += ": it was turned, perhaps by a camera's note of how it was held"
        raise DataError(f"{seen}; make labels for the image as it is")
    centres = file.centres and tuple((x * factor, y * height / of_height) for x, y in file.centres)
    return replace(file, centres=centres)


def _with_cells(file: LabelledFile, size: tuple[int, int]) -> tuple[LabelledFile, str | None]:
    """The file with the count and the centres of its mask, if it has one, and how the mask was read."""
    if file.mask is None:
        return file, None
    cells = cells_of_mask(file.mask, size=size)
    centres = tuple((x, y) for x, y in cells.centres_N2.tolist())
    return replace(file, count=float(len(centres)), centres=centres), cells.note
