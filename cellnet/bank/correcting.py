"""A frame that somebody corrected, whether the bank knows it or not: it comes in with its labels."""

from dataclasses import replace
from datetime import date
from typing import Any, NamedTuple

from cellnet.bank.bank import Bank
from cellnet.bank.labels import NONE_OF_THESE, check_points, label_of
from cellnet.bank.prepare import prepare
from cellnet.errors import DataError
from cellnet.images.file import ImageFile
from cellnet.images.wells import group_of, named_well
from cellnet.readers import LabelledFile


class Corrected(NamedTuple):
    """What came of it."""

    frame: str
    """The frame's name in the bank."""
    entry: int
    """The entry of its label."""
    added: bool
    """Whether the bank lacked it."""


def label_image(
    bank: Bank,
    image: ImageFile,
    *,
    plate: str = "",
    well: str = "",
    day: date | None = None,
    group: str | None = None,
    pixel_um: float | None = None,
    **said: Any,
) -> Corrected:
    """Write down what is said of an image (the fields of `Label`), and take it into the bank where that lacks it.

    Plate and well are its group, unless the bank calls it otherwise (`group`), and the day it was recorded its batch: a
    group that the bank has keeps its side of the split, and a new one gets one as in any import. Without both it is a
    group of its own. Raises DataError for an image that cannot be used and for what no label can say; then nothing is
    written but pixels of no frame.
    """
    file = LabelledFile(
        image=image,
        group=group or _group_of(plate, well),
        batch=day.isoformat() if day else None,
        pixel_um=pixel_um,
    )
    frame = prepare(file, bank.store)
    if frame.set_aside is not None:
        raise DataError(f"{image.name}: {frame.set_aside}")
    label = label_of(frame=frame.frame, **said)
    check_points(label, frame)
    bank.refresh()
    is_new = not bank.frames.equal("frame", frame.frame)
    if is_new:
        lineage = None if label.lineage == NONE_OF_THESE else label.lineage  # by which groups are dealt to the sides
        imported = bank.add([replace(frame, lineage=lineage)])
        if imported.set_aside and not bank.frames.equal("frame", frame.frame):
            raise DataError(f"{image.name}: {imported.set_aside[0].set_aside}")
    return Corrected(frame.frame, bank.label([label]), is_new)


def _group_of(plate: str, well: str) -> str | None:
    """The group of a well, as imports of Harmony exports call it; None where plate or well are not known."""
    if not plate or not well:
        return None
    place = named_well(well)
    if place is None:
        raise DataError(f"{well!r:.80} is no well; write it like B03")
    return group_of(plate, *place)
