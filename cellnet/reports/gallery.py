"""A bank as a page that one can look at: frames of every lineage, how many cells they hold, what to beware of."""

import contextlib
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cellnet.bank.bank import Bank
from cellnet.bank.frames import Frame
from cellnet.bank.warnings import warnings_of
from cellnet.errors import CellnetError, ConfigError
from cellnet.images.file import encode_png
from cellnet.images.pixels import stretch
from cellnet.reports.pages import Plot, data_uri, page, plot
from cellnet.reports.plots import draw_cell_counts, draw_grey_values

THUMBNAIL_PX: Final = 145
SHOWN: Final = 6
"""Frames of every lineage."""


class Thumbnail(NamedTuple):
    """A frame as the page shows it."""

    source: str | None
    """The `src` of its picture; None where it cannot be read."""
    words: str


def write_gallery(path: Path, bank: Bank) -> Path:
    """A self-contained page at that path. Raises ConfigError when it cannot be written."""
    text = _gallery_page(bank)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write the page {path}: {error.strerror}") from error
    return path


def _gallery_page(bank: Bank) -> str:
    by_lineage: dict[str, list[Frame]] = defaultdict(list)
    for frame in bank.frames:
        by_lineage[frame.lineage or "(not known)"].append(frame)
    lineages = dict(sorted(by_lineage.items()))
    shown = {
        f"{name}: {len(frames)} frame{'s' * (len(frames) != 1)}": [_thumbnail(bank, frame) for frame in _some(frames)]
        for name, frames in lineages.items()
    }
    return page(
        "gallery.html",
        title=f"{len(bank.frames):,} frames of {len(lineages)} lineage{'s' * (len(lineages) != 1)}",
        lead=f"{bank.store.uri}, digest {bank.digest[:12]}",
        warnings=warnings_of(bank.frames),
        plots=_histograms(bank, lineages),
        sections=shown | _near(bank),
        set_aside=[f"{frame.source}: {frame.set_aside}" for frame in bank.set_aside],
    )


def _thumbnail(bank: Bank, frame: Frame) -> Thumbnail:
    try:
        grey_HW = stretch(bank.pixels(frame), bank.settings.intensity)
    except CellnetError as error:
        return Thumbnail(None, str(error))
    factor = THUMBNAIL_PX / max(grey_HW.shape)
    small_HW = cv2.resize(grey_HW, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return Thumbnail(data_uri(encode_png(small_HW), "png"), _words(frame))


def _words(frame: Frame) -> str:
    """What is known of a frame."""
    cells = "" if frame.count is None else f", {frame.count:g} cells"
    batch = "" if frame.batch is None else f", batch {frame.batch}"
    age = "" if frame.time_h is None else f", {frame.time_h:g} h"
    return f"{Path(frame.source).name}, {frame.split}{cells}{batch}{age}"


def _some(frames: Sequence[Frame]) -> Sequence[Frame]:
    return frames[:: max(1, len(frames) // SHOWN)][:SHOWN]


def _near(bank: Bank) -> dict[str, list[Thumbnail]]:
    """Near-duplicates, each beside what it copies, under their heading."""
    by_name = {frame.frame: frame for frame in bank.frames}
    copies = [frame for frame in bank.frames if frame.twin in by_name]
    if not copies:
        return {}
    pairs = [frame for copy in copies[:SHOWN] for frame in (by_name[str(copy.twin)], copy)]
    more = f", of which {SHOWN} are shown" if len(copies) > SHOWN else ""
    return {f"Nearly the same: {len(copies)}{more}": [_thumbnail(bank, frame) for frame in pairs]}


def _histograms(bank: Bank, lineages: dict[str, list[Frame]]) -> list[Plot]:
    """Grey values as recorded, of some frames, and cells a frame where counts are known: a colour a lineage."""
    values = {name: _grey_values(bank, _some(frames)) for name, frames in lineages.items()}
    counts = {name: [frame.count for frame in frames if frame.count is not None] for name, frames in lineages.items()}
    plots = [plot(partial(draw_grey_values, values=values), "Grey values as recorded, of the frames below.")]
    if any(counts.values()):
        plots.append(plot(partial(draw_cell_counts, counts=counts), "Cells a frame, where counts are known."))
    return plots


def _grey_values(bank: Bank, frames: Sequence[Frame]) -> NDArray[Any]:
    """Every fourth pixel both ways of the frames that can be read."""
    values: list[NDArray[Any]] = [np.empty(0)]
    for frame in frames:
        with contextlib.suppress(CellnetError):
            values.append(bank.pixels(frame)[::4, ::4].ravel())
    return np.concatenate(values)
