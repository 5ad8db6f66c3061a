"""Whether a frame is of use: out of focus, saturated, empty. What is measured of its pixels, and the rules.

Focus is a ratio of two differences of Gaussians: how much structure of 1 to 2 pixels there is beside that of 4 to 8.
Grain of the camera is finer, cells are larger, so that neither exposure nor the number of cells matters much. What is
sharp depends on cells and optics, so a frame is held against others of its kind (`Focus`). Which measure, and with
what limits, was chosen by figures: tests/benchmarks/focus.py.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Self, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from cellnet.config.choices import Positive
from cellnet.config.loading import Frozen
from cellnet.images.pixels import Pixels

Flag = Literal["out_of_focus", "saturated", "empty"]
FLAGS: Final[tuple[Flag, ...]] = get_args(Flag)
NO_USE: Final[tuple[Flag, ...]] = ("out_of_focus", "saturated")
"""Frames so flagged have no part in the value of their well. An empty one has: no cells are a count, 0."""
WORDS: Final[dict[Flag, str]] = {"out_of_focus": "out of focus", "saturated": "saturated", "empty": "empty"}
"""The flags for a person."""

BLURRED: Final = 0.65
"""Of the median of its kind: below it a frame is out of focus, where those are alike."""
QUARTERS: Final = 3.7
"""How many times farther below the median than the lower quartile, as a factor, where they vary more: 2.5 deviations of
normally distributed logarithms."""
FEWEST: Final = 5
"""Frames that others are held against."""
PLATE: Final = 10
"""Images of a plate that are held against each other."""
SOFTER: Final = 0.9
"""Of the training frames' median: a plate whose own median is below it is softer."""
FAR_SOFTER: Final = 0.35
"""Likewise: below it a plate is out of focus as a whole."""
SATURATED: Final = 0.04
"""Share of a frame's pixels at its brightest."""
TOP: Final = 64
"""The brightest are of the last 64th of the grey values from darkest to brightest: JPEG spreads what is clipped."""
FEWEST_GREYS: Final = 8
"""From darkest to brightest; what has fewer is noise alone, and some of it is the brightest."""
EMPTY: Final = 0.4
"""Of the deviation of the camera's noise: nowhere is there more structure of 4 to 8 pixels. Noise alone has 0.1."""
NOWHERE_PX: Final = 32
"""Side of the square in which there would be."""
MAD_TO_DEVIATION: Final = 1 / 0.6745
"""Of normally distributed values."""
LEAST_NOISE: Final = 12**-0.5
"""Of grey values that are rounded."""
SECOND: Final = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
"""Answers to noise by 6 of its deviations, and to edges hardly (Immerkær 1996, 10.1006/cviu.1996.0060)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measures:
    """What is measured of a frame."""

    focus: float | None
    """Structure of 1 to 2 pixels, as a multiple of that of 4 to 8; None where there is none of either."""
    brightest_share: float
    """Of its pixels, those at its brightest; 0 of fewer than `FEWEST_GREYS` grey values."""
    structure: float
    """That of 4 to 8 pixels where there is most of it, as a multiple of the noise."""


class Focus(Frozen):
    """What `Measures.focus` is of frames that are held to be sharp."""

    frames: int
    median: Positive
    lower_quartile: Positive

    @classmethod
    def of(cls, focus: Sequence[float] | NDArray[np.floating]) -> Self | None:
        """That of these frames; None where they are fewer than `FEWEST`."""
        values_N = np.asarray(focus, np.float64)
        known_N = values_N[values_N > 0]
        if len(known_N) < FEWEST:
            return None
        lower_quartile, median = np.exp(np.quantile(np.log(known_N), [0.25, 0.5])).tolist()
        return cls(frames=len(known_N), median=median, lower_quartile=lower_quartile)

    @property
    def limit(self) -> float:
        """Below it a frame is out of focus.

        >>> Focus(frames=9, median=2.0, lower_quartile=1.9).limit
        1.3
        """
        return self.median * min(BLURRED, math.pow(self.lower_quartile / self.median, QUARTERS))

    def softer(self, focus: Sequence[float] | NDArray[np.floating], *, fewest: int) -> Self | None:
        """That of frames of another microscope, where they are `fewest` or more, and softer than these.

        >>> sharp = Focus(frames=9, median=2.0, lower_quartile=1.9)
        >>> sharp.softer([1.4] * 10, fewest=10)
        Focus(frames=10, median=1.4, lower_quartile=1.4)
        >>> sharp.softer([1.9] * 10, fewest=10), sharp.softer([1.4] * 9, fewest=10)
        (None, None)
        """
        own = type(self).of(focus)
        if own is None or own.frames < fewest or own.median >= SOFTER * self.median:
            return None
        return own if own.limit < self.limit else None


TRAINING: Final = Focus(frames=FEWEST, median=1.0, lower_quartile=1.0)
"""That of the training frames, in multiples of their median."""


def measure(image_HW: Pixels) -> Measures:
    """Of a frame as recorded (H, W), of 8 or 16 bits: some milliseconds a megapixel."""
    grey_HW = np.asarray(image_HW, np.float32)
    one_HW = _blurred(grey_HW, 1)
    two_HW = _blurred(one_HW, 3**0.5)
    # Blurred so far, every second pixel tells all: 4 and 8 pixels are 2 and 2 of those that are left.
    four_HW = _blurred(two_HW[::2, ::2], 3**0.5)[::2, ::2]
    cells_HW = four_HW - _blurred(four_HW, 3**0.5)
    coarse = _deviation(cells_HW)
    side = NOWHERE_PX // 4
    most = float(cv2.blur(cells_HW * cells_HW, (side, side)).max()) ** 0.5
    return Measures(
        focus=_deviation(one_HW - two_HW) / coarse if coarse > 0 else None,
        brightest_share=_brightest_share(image_HW),
        structure=most / noise_of(grey_HW),
    )


def flags_of(measured: Measures, focus: Focus | None, *, count: float | None = None) -> list[Flag]:
    """What a frame is no use for, in the order of `FLAGS`.

    `focus` is that of its kind, without which nothing is said of its own. A frame without structure has nothing that
    could be in focus. `count` is what a counter says: one that rounds to none is empty too.
    """
    is_bare = measured.structure < EMPTY
    is_of = {
        "out_of_focus": bool(focus and measured.focus is not None and measured.focus < focus.limit and not is_bare),
        "saturated": measured.brightest_share >= SATURATED,
        "empty": is_bare or (count is not None and count < 0.5),
    }
    return [flag for flag in FLAGS if is_of[flag]]


def as_sharp_as_plate(
    focus_N: Sequence[float | None], quality_N: Sequence[Sequence[Flag] | None]
) -> tuple[Focus, list[int]] | None:
    """The focus of a plate that is softer than the training frames, and which of its images are out of focus beside
    these alone: they are as sharp as the others of the plate.

    `focus_N` are multiples of the training frames' median, `quality_N` the flags that were told of each image alone.
    None of a plate that is not softer, of fewer than `PLATE` images, or out of focus as a whole.
    """
    known = [focus for focus in focus_N if focus is not None]
    own = TRAINING.softer(known, fewest=PLATE)
    if own is None or own.median < FAR_SOFTER:
        return None
    upper_quartile = float(np.quantile(known, 0.75))  # how sharp ones vary: others may be blurred
    own = own.model_copy(update={"lower_quartile": own.median**2 / upper_quartile})
    soft = [
        place
        for place, (focus, flags) in enumerate(zip(focus_N, quality_N, strict=True))
        if focus is not None and "out_of_focus" in (flags or ()) and focus >= own.limit
    ]
    return (own, soft) if soft else None


def in_words(flags: Sequence[Flag]) -> str:
    """
    >>> in_words(["out_of_focus", "saturated"])
    'out of focus, saturated'
    """
    return ", ".join(WORDS[flag] for flag in flags)


def _brightest_share(image_HW: Pixels) -> float:
    darkest, brightest = int(image_HW.min()), int(image_HW.max())
    if brightest - darkest < FEWEST_GREYS:
        return 0.0
    return float(np.count_nonzero(image_HW >= brightest - (brightest - darkest) // TOP)) / image_HW.size


def noise_of(grey_HW: NDArray[np.float32]) -> float:
    """The deviation of the camera's noise, by every fourth pixel both ways."""
    answer_HW = np.abs(cv2.filter2D(grey_HW, -1, SECOND)[::4, ::4])
    return max(float(np.median(answer_HW)) * MAD_TO_DEVIATION / 6, LEAST_NOISE)


def _blurred(image_HW: NDArray[np.float32], sigma_px: float) -> NDArray[np.float32]:
    """To three deviations, which is half the work of OpenCV's four."""
    taps = 2 * math.ceil(3 * sigma_px) + 1
    return np.asarray(cv2.GaussianBlur(image_HW, (taps, taps), sigma_px), np.float32)


def _deviation(image_HW: NDArray[np.float32]) -> float:
    return float(cv2.meanStdDev(image_HW)[1][0, 0])
