"""A bank as a page that one can look at: frames of every lineage, how many cells they hold, what to beware of."""

import itertools
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cellnet.bank.bank import Bank
from cellnet.bank.columns import Frames, with_twins
from cellnet.bank.frames import Frame
from cellnet.bank.quality import flagged
from cellnet.bank.splits import held_by_split
from cellnet.bank.warnings import outlook_of, warnings_in
from cellnet.errors import CellnetError
from cellnet.images.pictures import grey_picture, with_centres
from cellnet.images.quality import Flag, in_words
from cellnet.images.tiles import are_inside
from cellnet.reports.pages import Plot, page, picture, plot, save_page
from cellnet.reports.plots import draw_cell_counts, draw_grey_values
from cellnet.reports.words import BANK_SPLITS, SPLITS_TOLD, held_table

PICTURE_PX: Final = (320, 560)
"""Long side of a frame, at least and at most: cells of a field of view can be told from debris."""
SHOWN: Final = 6
"""Frames of every lineage, of few lineages."""
FEWEST: Final = 3
"""Likewise of many: one of every split."""
MOST: Final = 96
"""Frames of all lineages, as long as there are few enough of these: about 40 kB each."""
FLAGGED: Final = 24
"""Frames that look out of focus, saturated or empty."""
BURNT_IN: Final = (
    "Look for scale bars, clocks and letters that are burnt into the pixels: a network sees them too, and may tell "
    "lineages by them, and white and black ones take contrast from the cells. What is the same in all frames is told "
    "above; a clock that goes on, or what is in some frames alone, is not. Crop them off and import into a new bank."
)


class Thumbnail(NamedTuple):
    """A frame as the page shows it."""

    source: str | None
    """The `src` of its picture; None where it cannot be read."""
    name: str
    words: str
    """What is known of it, or why it cannot be read."""


class Look(NamedTuple):
    """What a frame shows, of pixels that are read once."""

    thumbnail: Thumbnail
    grey_N: NDArray[Any]
    """Every fourth pixel both ways, as recorded; none where it cannot be read."""


class Pairs(NamedTuple):
    """Near-duplicates."""

    shown: list[Frame]
    """The first of them, each after what it copies."""
    number: int
    """Of all copies."""


class Section(NamedTuple):
    """Frames under a heading."""

    note: str
    thumbnails: list[Thumbnail]


def write_gallery(path: Path, bank: Bank, warnings: Sequence[str] | None = None) -> Path:
    """A self-contained page at that path, with the bank's `warnings_in`, which read frames, if they are known already.

    Raises ConfigError when it cannot be written.
    """
    return save_page(path, _gallery_page(bank, warnings_in(bank) if warnings is None else warnings))


def _gallery_page(bank: Bank, warnings: Sequence[str]) -> str:
    frames = bank.frames.named
    lineages = {name: frames.equal("lineage", name) for (name,) in sorted(frames.counted("lineage"))}
    most = max(FEWEST, min(SHOWN, MOST // max(1, len(lineages))))
    shown = {name: some(frames, most) for name, frames in lineages.items()}
    looks: dict[str, Look] = {}
    pairs, flags = _pairs(bank.frames), flagged(bank.frames)
    no_use = bank.frames.named_by("frame", flags)
    for frame in (*itertools.chain(*shown.values()), *pairs.shown, *no_use[:FLAGGED]):
        if frame.frame not in looks:
            looks[frame.frame] = look_at(bank, frame, flags.get(frame.frame, ()))
    return page(
        "gallery.html",
        title=f"{len(bank.frames):,} frames of {len(lineages)} lineage{'s' * (len(lineages) != 1)}",
        lead=f"{bank.store.uri}, digest {bank.digest[:12]}",
        warnings=warnings,
        outlook=outlook_of(bank.frames),
        held=held_table(held_by_split(bank.frames)),
        splits=SPLITS_TOLD,
        plots=_histograms(looks, shown, lineages),
        notes=_notes(bank),
        sections={
            f"{name}: {_of(len(shown[name]), len(frames))} shown": Section(
                centres_told(frames), [looks[frame.frame].thumbnail for frame in shown[name]]
            )
            for name, frames in lineages.items()
        }
        | _near(pairs, looks)
        | _no_use(no_use, looks),
        set_aside=[f"{frame.source}: {frame.set_aside}" for frame in bank.set_aside],
    )


def _of(shown: int, of: int) -> str:
    """
    >>> _of(6, 15), _of(1, 1)
    ('6 of 15 frames', '1 of 1 frame')
    """
    return f"{shown:,} of {of:,} frame{'s' * (of != 1)}"


def _notes(bank: Bank) -> list[str]:
    """How the pictures are to be read."""
    rings = "Rings are known centres of cells; where they lie beside the cells, x and y are swapped, or of other units."
    return [
        f"Contrast is as a network gets it: {bank.settings.intensity} become black and white.",
        "Frames are of every split.",
        *([rings] if len(bank.frames.centres[1]) else []),
        BURNT_IN,
    ]


def centres_told(frames: Iterable[Frame]) -> str:
    """How many centres of cells are known, and how many of them are no place in their frames; empty for none.

    >>> centres_told([Frame(frame="", source="", width=60, height=40, centres=[[50, 5], [5, 50]])])
    '2 centres, of which 1 outside of its frame'
    """
    frames = Frames.of(frames)
    frame_C, centres_C2 = frames.centres
    if not len(centres_C2):
        return ""
    sizes_N2 = np.stack([frames.column("width").to_numpy(), frames.column("height").to_numpy()], axis=1)
    outside = int((~are_inside(centres_C2, sizes_N2[frame_C])).sum())
    known = f"{len(centres_C2):,} centre{'s' * (len(centres_C2) != 1)}, of which"
    return f"{known} {outside or 'none'} outside of {'its frame' if outside == 1 else 'their frames'}"


def look_at(bank: Bank, frame: Frame, flags: Sequence[Flag] = ()) -> Look:
    """A frame of a bank as a page shows it, with what is known of it, and what it seems to be of no use for."""
    name = Path(frame.source).name
    try:
        image_HW = bank.pixels(frame)
        grey_HW = grey_picture(image_HW, bank.settings.intensity, PICTURE_PX)
    except CellnetError as error:
        return Look(Thumbnail(None, name, str(error)), np.empty(0))
    drawn = grey_HW
    centres_N2 = frame.centres_N2
    if centres_N2 is not None:
        scale_2 = np.array([grey_HW.shape[1] / frame.width, grey_HW.shape[0] / frame.height], np.float32)
        drawn = with_centres(cv2.cvtColor(grey_HW, cv2.COLOR_GRAY2BGR), centres_N2 * scale_2)
    return Look(Thumbnail(picture(drawn), name, _words(frame, flags)), image_HW[::4, ::4].ravel())


def _words(frame: Frame, flags: Sequence[Flag]) -> str:
    """What is known of a frame, and what it seems to be of no use for."""
    centres = "" if not frame.centres else f" ({len(frame.centres)} centres)"
    cells = "" if frame.count is None else f", {frame.count:g} cells{centres}"
    batch = "" if frame.batch is None else f", batch {frame.batch}"
    age = "" if frame.time_h is None else f", {frame.time_h:g} h"
    looks = f"; looks {in_words(flags)}" if flags else ""
    return f"{frame.split}{cells}{batch}{age}{looks}"


def some(frames: Iterable[Frame], most: int) -> list[Frame]:
    """So many of the frames at most, of every split at least one, the others by turns; evenly from each split."""
    frames = Frames.of(frames)
    of = {split: frames.equal("split", split) for split in BANK_SPLITS}
    numbers = dict.fromkeys(of, 0)
    while sum(numbers.values()) < min(most, len(frames)):
        for split, held in of.items():
            if numbers[split] < len(held) and sum(numbers.values()) < most:
                numbers[split] += 1
    return [held[place * len(held) // numbers[split]] for split, held in of.items() for place in range(numbers[split])]


def _near(pairs: Pairs, looks: dict[str, Look]) -> dict[str, Section]:
    """Near-duplicates, each beside what it copies, under their heading."""
    if not pairs.shown:
        return {}
    heading = f"Nearly the same: {len(pairs.shown) // 2} of {pairs.number:,} shown"
    return {heading: Section("each after what it copies", [looks[frame.frame].thumbnail for frame in pairs.shown])}


def _no_use(frames: Frames, looks: dict[str, Look]) -> dict[str, Section]:
    """Frames that look out of focus, saturated or empty, under their heading."""
    if not frames:
        return {}
    shown = [looks[frame.frame].thumbnail for frame in frames[:FLAGGED]]
    heading = f"Out of focus, saturated or empty, as it looks: {_of(len(shown), len(frames))} shown"
    return {heading: Section("they teach all the same, unless a label calls them unusable", shown)}


def _pairs(frames: Frames) -> Pairs:
    copies, originals = with_twins(frames.known("twin"), frames)
    shown = [frame for pair in zip(originals[:SHOWN], copies[:SHOWN], strict=True) for frame in pair]
    return Pairs(shown, len(copies))


def _histograms(looks: dict[str, Look], shown: dict[str, list[Frame]], lineages: dict[str, Frames]) -> list[Plot]:
    """Grey values as recorded, of some frames, and cells a frame where counts are known: a colour a lineage."""
    values = {
        name: np.concatenate([np.empty(0), *(looks[frame.frame].grey_N for frame in frames)])
        for name, frames in shown.items()
    }
    counts = {name: frames.known("count").values("count") for name, frames in lineages.items()}
    plots = [plot(partial(draw_grey_values, values=values), "Grey values as recorded, of the frames below.")]
    if any(counts.values()):
        plots.append(plot(partial(draw_cell_counts, counts=counts), "Cells a frame, where counts are known."))
    return plots
