"""A plate of wells drawn: its counts as a heat map, and its lineages beside."""

import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from cellnet.images.quality import NO_USE, WORDS, Flag, as_sharp_as_plate
from cellnet.images.wells import COLUMNS, ROWS, Well
from cellnet.prediction.answers import Prediction
from cellnet.reports.plots import BLUE, INK, LINES, ORANGE, plain

LAYOUTS: Final = ((8, 12, 0.58), (16, 24, 0.42), (len(ROWS), COLUMNS, 0.28))
"""Rows and columns of plates of 96, 384 and 1536 wells, and the inches that a well is drawn in."""
GREY: Final = "#8a8f96"
DPI: Final = 130
ROWS_IN: Final = 0.4
"""Left of a plate, for the letters of its rows."""
ASIDE_IN: Final = 1.9
"""Right of it, for what its colours mean."""
ABOVE_IN: Final = 0.8
"""Above it, for a title and its columns."""
TITLE_IN: Final = 0.45
LEGEND_IN: Final = 0.45
FAR_OUT: Final = 3
EMPTY: Final[dict[str, Any]] = {"facecolor": "none", "edgecolor": "#c9ccd1", "linewidth": 0.8}
UNFAMILIAR: Final[dict[str, Any]] = {"facecolor": "none", "edgecolor": ORANGE, "linewidth": 1.4, "hatch": "///"}
BAD: Final[dict[str, Any]] = {"marker": "x", "color": GREY, "linestyle": "none", "markersize": 7}


@dataclass(frozen=True, kw_only=True)
class WellSummary:
    """What is said of a well: of all its images together."""

    images: int
    """Those that have their part in its value (`Prediction.has_part_in_well`)."""
    left_out: tuple[Flag, ...] = ()
    """What those are that have none, though they were answered: each flag as often as it was said."""
    left_out_n: int = 0
    failed: int = 0
    """Images without an answer."""
    empty: int = 0
    """Those of `images` that show no cell."""
    count: float | None = None
    """The mean over its images."""
    lineage: str | None = None
    """Of the highest mean probability."""
    probability: float | None = None
    lineage_unfamiliar: bool = False
    """Whether half of its images or more are unlike the training images of the model that named them."""
    count_unfamiliar: bool = False
    """Likewise of the model that counted."""


SOFTER: Final = "softer than what the model learned from"
"""Of a plate."""


@dataclass(frozen=True, kw_only=True)
class SoftPlate:
    """A plate that is softer than the training frames: its images are held against each other."""

    name: str
    images: int
    """Of which focus is known."""
    focus: float
    """Their median, as a multiple of the training frames'."""
    as_sharp: tuple[int, ...]
    """The places of those that are out of focus beside the training frames and not beside the others of the plate."""

    @property
    def words(self) -> str:
        """A sentence.

        >>> SoftPlate(name="plate7", images=96, focus=0.7, as_sharp=(3, 9)).words
        'plate7 is softer than what the model learned from (0.70 of its focus): 2 of its 96 images are as sharp as the \
others of it, and have their part in the values of wells'
        """
        number = len(self.as_sharp)
        are, have = ("is", "has its") if number == 1 else ("are", "have their")
        return (
            f"{self.name} is {SOFTER} ({self.focus:.2f} of its focus): {number:,} of its {self.images:,} images {are} "
            f"as sharp as the others of it, and {have} part in the values of wells"
        )


def soft_plates(images: Iterable[tuple[str | None, float | None, Sequence[Flag] | None]]) -> list[SoftPlate]:
    """The plates that are softer than the training frames, by the plate, focus and flags of each image."""
    of_plates: dict[str, list[tuple[int, float | None, Sequence[Flag] | None]]] = defaultdict(list)
    for place, (plate, focus, flags) in enumerate(images):
        if plate is not None:
            of_plates[plate].append((place, focus, flags))
    found = []
    for plate, of in of_plates.items():
        if told := as_sharp_as_plate([focus for _, focus, _ in of], [flags for _, _, flags in of]):
            own, soft = told
            as_sharp = tuple(of[number][0] for number in soft)
            found.append(SoftPlate(name=plate, images=own.frames, focus=own.median, as_sharp=as_sharp))
    return found


def of_value(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Those of the images of a well that count in what is said of it, on plates and curves alike."""
    return [one for one in predictions if one.has_part_in_well]


def summarise(predictions: Sequence[Prediction]) -> WellSummary:
    """One answer for a well from those for its images that count; what has no part in it is told beside."""
    good = of_value(predictions)
    no_use = [one for one in predictions if one.error is None and not one.has_part_in_well]
    counts = [one.count for one in good if one.count is not None]
    named = [one.probabilities for one in good if one.probabilities]
    means = {name: float(np.mean([one[name] for one in named])) for name in (named[0] if named else ())}
    lineage = max(means, key=means.__getitem__) if means else None
    return WellSummary(
        images=len(good),
        left_out=tuple(flag for one in no_use for flag in one.quality or () if flag in NO_USE),
        left_out_n=len(no_use),
        failed=sum(one.error is not None for one in predictions),
        empty=sum("empty" in (one.quality or ()) for one in good),
        count=float(np.mean(counts)) if counts else None,
        lineage=lineage,
        probability=means[lineage] if lineage is not None else None,
        lineage_unfamiliar=_half([one.lineage_unfamiliar for one in good]),
        count_unfamiliar=_half([one.count_unfamiliar for one in good]),
    )


def left_out_words(wells: Iterable[WellSummary]) -> str:
    """How many images were left out of the values of wells, and what they are; empty for none.

    >>> left_out_words([WellSummary(images=1, left_out=("saturated", "out_of_focus"), left_out_n=1)])
    '1 left out (1 out of focus, 1 saturated)'
    """
    wells = list(wells)
    number = sum(well.left_out_n for well in wells)
    flags = Counter(flag for well in wells for flag in well.left_out)
    each = ", ".join(f"{flags[flag]:,} {WORDS[flag]}" for flag in NO_USE if flags[flag])
    return f"{number:,} left out ({each})" if number else ""


def top_of(counts: Sequence[float]) -> float:
    """The count of the darkest colour: the largest that is not far out of the others, more than three times the range
    of the middle half above it (Tukey 1977, Exploratory Data Analysis).

    >>> top_of([10, 12, 14, 16, 18]), top_of([10, 12, 14, 16, 900]), top_of([5, 5, 5, 80]), top_of([])
    (18.0, 16.0, 80.0, 0.0)
    """
    if not counts:
        return 0.0
    quarter, three_quarters = np.quantile(counts, [0.25, 0.75]).tolist()
    fence = three_quarters + FAR_OUT * (three_quarters - quarter)
    return float(max(counts) if fence == quarter else max(count for count in counts if count <= fence))


def _half(flags: Sequence[bool | None]) -> bool:
    return bool(flags) and 2 * sum(flag is True for flag in flags) >= len(flags)


def draw_plate(wells: Mapping[Well, WellSummary], *, name: str, note: str = "") -> bytes:
    """A plate as a PNG: a panel of counts, and one of lineages, each where it is known of any well.

    `note` is what its title says of it besides.

    The plate has 96 wells, or 384 or 1536 where one of those seen needs them. Wells without an image are empty.
    """
    import matplotlib
    from matplotlib.figure import Figure

    look = _Look(wells)
    named = any(said.lineage is not None for said in wells.values())
    counted = any(said.count is not None for said in wells.values())
    draws = [_draw_counts] * (counted or not named) + [_draw_lineages] * named
    down, across = (len(draws), 1) if look.large else (1, len(draws))
    wide_in, high_in = look.columns * look.well_in, look.rows * look.well_in
    panel_in = np.array([ROWS_IN + wide_in + ASIDE_IN, ABOVE_IN + high_in])
    size_in = panel_in * (across, down) + (0, LEGEND_IN + TITLE_IN)
    with matplotlib.rc_context({"font.size": 10, "legend.frameon": False, "text.color": INK, "hatch.linewidth": 0.8}):
        figure = Figure(figsize=tuple(size_in.tolist()))
        for number, draw in enumerate(draws):
            corner_in = panel_in * (number % across, down - 1 - number // across) + (ROWS_IN, LEGEND_IN)
            axis = figure.add_axes((*(corner_in / size_in).tolist(), *((wide_in, high_in) / size_in).tolist()))
            look.draw_empty(axis)
            draw(axis, wells, look)
        images = sum(said.images for said in wells.values())
        left_out = left_out_words(wells.values())
        facts = [f"{plain(name, 60)}: {len(wells)} wells", f"{images:,} images", left_out, note]
        title = ", ".join(fact for fact in facts if fact)
        figure.text(0.15 / size_in[0], 1 - 0.3 / size_in[1], title, fontsize=13)
        figure.legend(handles=look.legend(), loc="lower left", ncols=3, fontsize=9)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def _draw_counts(axis: Any, wells: Mapping[Well, WellSummary], look: "_Look") -> None:
    """Each well the bluer the more cells an image of it has."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    shades = LinearSegmentedColormap.from_list("cells", [_tint(BLUE, 0.04), _tint(BLUE, 0.75)])
    counts = [said.count for said in wells.values() if said.count is not None]
    top = top_of(counts)
    scale = Normalize(0, top or 1, clip=True)
    for well, said in wells.items():
        if said.count is not None:
            look.fill(axis, well, shades(scale(said.count)), _short(said.count), unfamiliar=said.count_unfamiliar)
    look.title(axis, "cells an image, the mean of each well")
    beyond = "max" if max(counts, default=0) > top else "neither"
    bar = axis.figure.colorbar(ScalarMappable(scale, shades), cax=axis.inset_axes((1.02, 0, 0.02, 1)), extend=beyond)
    bar.outline.set_visible(False)


def _draw_lineages(axis: Any, wells: Mapping[Well, WellSummary], look: "_Look") -> None:
    """Each well in the colour of its lineage."""
    from matplotlib.patches import Patch

    found = Counter(said.lineage for said in wells.values() if said.lineage is not None)
    tints = [_tint(colour, share) for share in (0.7, 0.3) for colour in LINES]
    colours = {name: tints[place % len(tints)] for place, name in enumerate(sorted(found))}
    for well, said in wells.items():
        if said.lineage is not None:
            text = f"{100 * (said.probability or 0):.0f}"
            look.fill(axis, well, colours[said.lineage], text, unfamiliar=said.lineage_unfamiliar)
    look.title(axis, "lineage, with its mean probability in %")
    shown = [Patch(facecolor=colours[name], label=f"{plain(name)} ({found[name]})") for name in colours]
    axis.legend(handles=shown, loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=9, borderaxespad=0)


class _Look:
    """How the wells of a plate are drawn: round on plates of 96, square on larger ones."""

    def __init__(self, wells: Mapping[Well, WellSummary]) -> None:
        self.wells = wells
        rows, columns = (max((getattr(well, of) for well in wells), default=1) for of in ("row", "column"))
        size = next(size for size, (high, wide, _) in enumerate(LAYOUTS) if rows <= high and columns <= wide)
        self.large = size > 0
        self.rows, self.columns, self.well_in = LAYOUTS[size]
        self.text_pt = (8.5, 6.5, 5.0)[size]

    def draw_empty(self, axis: Any) -> None:
        """The plate with its rows and columns; wells of which no image is left are crossed out."""
        from matplotlib.collections import PatchCollection

        axis.set(xlim=(0.5, self.columns + 0.5), ylim=(self.rows + 0.5, 0.5))
        axis.set_axis_off()  # ticks would take most of the time
        wells = [Well(row + 1, column + 1) for row, column in np.ndindex(self.rows, self.columns)]
        axis.add_collection(PatchCollection([self._shape(well) for well in wells], **EMPTY))
        for well in wells[: self.columns]:
            axis.text(well.column, 0.3, str(well.column), ha="center", va="bottom", fontsize=9)
        for well in wells[:: self.columns]:
            axis.text(0.35, well.row, well.letter, ha="right", va="center", fontsize=9)
        bad = [well for well in wells if well in self.wells and not self.wells[well].images]
        axis.plot([well.column for well in bad], [well.row for well in bad], **BAD)

    def title(self, axis: Any, text: str) -> None:
        """Above the columns."""
        axis.text(0.5, 0.5 - 0.4 / self.well_in, text, ha="left", va="bottom", fontsize=11)

    def fill(self, axis: Any, well: Well, colour: Any, text: str, *, unfamiliar: bool) -> None:
        """A well in its colour with a text in it, hatched where its images are unlike the training images."""
        axis.add_artist(self._shape(well, facecolor=colour, edgecolor=INK, linewidth=0.5))
        if unfamiliar:
            axis.add_artist(self._shape(well, **UNFAMILIAR))
        behind = dict(facecolor=(1, 1, 1, 0.85), edgecolor="none", boxstyle="round,pad=0.15") if unfamiliar else None
        axis.text(well.column, well.row, text, ha="center", va="center_baseline", fontsize=self.text_pt, bbox=behind)

    def legend(self) -> list[Any]:
        """What the wells that are not plain mean."""
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch

        shown: list[Any] = [Patch(**EMPTY, label="no image")]
        if any(said.lineage_unfamiliar or said.count_unfamiliar for said in self.wells.values()):
            shown.append(Patch(**UNFAMILIAR, label="unlike the training images: do not rely on it"))
        if not all(said.images for said in self.wells.values()):
            whys = {said.left_out_n > 0 for said in self.wells.values() if not said.images}
            words = ["no image could be used"] * (False in whys) + ["all images left out"] * (True in whys)
            shown.append(Line2D([], [], **BAD, label=" or ".join(words)))
        return shown

    def _shape(self, well: Well, **style: Any) -> Any:
        from matplotlib.patches import Circle, Rectangle

        x, y = well.column, well.row
        return Rectangle((x - 0.42, y - 0.42), 0.84, 0.84, **style) if self.large else Circle((x, y), 0.43, **style)


def _tint(colour: str, share: float) -> tuple[float, float, float]:
    """A colour mixed with white."""
    from matplotlib.colors import to_rgb

    red, green, blue = (1 - share * (1 - part) for part in to_rgb(colour))
    return red, green, blue


def _short(count: float) -> str:
    """
    >>> _short(3.14159), _short(9.96), _short(12345.6)
    ('3.1', '10', '12k')
    """
    if round(count) >= 10_000:
        return f"{count / 1000:.0f}k"
    return f"{count:.0f}" if round(count, 1) >= 10 else f"{count:.1f}"
