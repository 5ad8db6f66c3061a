"""Frames of a bank that are unlike the rest, and labels that look like slips: worth a look before a training.

A few frames among many are named, a tenth of them at most: what is true of more is how the bank is. A value that varies
is far from the rest where it is beyond five deviations of the median, estimated from the median of distances (Leys et
al. 2013, 10.1016/j.jesp.2013.03.013), and at least twice or half, or four times or a quarter, of the median.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cellnet.bank.columns import Frames
from cellnet.bank.frames import Frame

FEWEST: Final = 10
"""Frames, of which one can be said to be unlike the rest."""
ODD_SHARE: Final = 0.1
DEVIATIONS: Final = 5.0
MAD_TO_DEVIATION: Final = 1.4826
"""Of normally distributed values."""
NAMED: Final = 3
CORNER: Final = 0.75
"""Of width and height; what reaches beyond it is no corner."""
CHANCE: Final = 1e-6
"""Of points that lie in a corner by chance, if cells lie anywhere in their frames."""


def unlike_the_rest(frames: Iterable[Frame]) -> Iterator[str]:
    """What looks like a slip, a sentence each; nothing of a bank whose frames are alike."""
    frames = Frames.of(frames)
    yield from _spellings(frames)
    yield from _corner(frames)
    sized = frames.known("pixel_um")
    if 0 < len(sized) < len(frames):
        lacking = frames.equal("pixel_um", None)
        yield f"{_part(lacking, frames)} no pixel size, the others have: {_named(lacking)}; give pixel_um in a manifest"
    for what, (names, told) in KINDS.items():
        among = sized if what == "a pixel size" else frames
        kinds = Counter[str]()
        for values, number in among.counted(*names).items():
            kinds[told(*values)] += number
        [(usual, n)] = kinds.most_common(1) or [("", 0)]
        odd_n = len(among) - n
        if odd_n and n >= FEWEST and odd_n <= ODD_SHARE * len(among):
            is_odd = [told(*values) != usual for values in zip(*map(among.values, names), strict=True)]
            odd = among.where(pa.array(is_odd))
            seen = ", ".join(sorted(set(kinds) - {usual})[:NAMED])
            yield f"{_part(odd, frames)} {what} of {seen}, the others {usual}: {_named(odd)}"
    for what, (number_of, factor, sides) in NUMBERS.items():
        odd = _far(frames, number_of(frames), factor, sides)
        if odd:
            yield f"{_part(odd, frames)} {what} than the others: {_named(odd)}"


KINDS: Final[dict[str, tuple[tuple[str, ...], Callable[..., str]]]] = {
    "a size": (("width", "height"), lambda width, height: f"{width}×{height} pixels"),
    "a depth": (("bits",), lambda bits: f"{bits} bits"),
    "a pixel size": (("pixel_um",), lambda pixel_um: f"{pixel_um:.3g} µm"),
}
"""What nearly all frames of a bank have in common: the columns, and how they are told."""
NUMBERS: Final[dict[str, tuple[Callable[[Frames], NDArray[np.float64]], float, tuple[int, ...]]]] = {
    "a much smaller or larger area": (
        lambda frames: _numbers(frames, "width") * _numbers(frames, "height"),
        4,
        (-1, 1),
    ),
    "far fewer or more grey values between their darkest and brightest": (
        lambda frames: (_numbers(frames, "brightest") - _numbers(frames, "darkest")) / 2 ** _numbers(frames, "bits"),
        4,
        (-1, 1),
    ),
    "far more fine detail, as of noise,": (lambda frames: _numbers(frames, "sharpness"), 2, (1,)),
}
"""What varies from frame to frame, which factor of the median is far, and whether below it (-1), above it (1), or both.
What has too little detail is out of focus: cellnet/bank/quality.py."""


def _numbers(frames: Frames, name: str) -> NDArray[np.float64]:
    """A column (N,); 0 where it is not known."""
    return np.asarray(pc.fill_null(frames.column(name).cast("float64"), 0.0))


def _far(frames: Frames, numbers_N: NDArray[np.float64], factor: float, sides: Sequence[int]) -> Frames:
    """The few frames whose number is far from the median of all, on these sides of it; 0 stands for not known."""
    is_known_N = numbers_N > 0
    if np.count_nonzero(is_known_N) < FEWEST:
        return frames[:0]
    logs_K = np.log(numbers_N[is_known_N])
    median = np.median(logs_K)
    deviation = MAD_TO_DEVIATION * np.median(np.abs(logs_K - median))
    limit = max(math.log(factor), DEVIATIONS * deviation)
    is_far_K = (np.abs(logs_K - median) > limit) & np.isin(np.sign(logs_K - median), sides)
    odd_N = np.flatnonzero(is_known_N)[is_far_K]
    return frames.at(odd_N if len(odd_N) <= ODD_SHARE * len(frames) else [])


def _spellings(frames: Frames) -> Iterator[str]:
    """Lineages that differ only in letter case, blanks and hyphens."""
    spelled: dict[str, set[str]] = defaultdict(set)
    for (lineage,) in frames.counted("lineage"):
        if lineage is not None:
            spelled[re.sub(r"(?<=\w)[\s_.-]+(?=\w)|_", "", lineage.casefold()).strip()].add(lineage)
    for names in spelled.values():
        if len(names) > 1:
            yield (
                f"{' and '.join(sorted(names))} may be one lineage, but are {len(names)} to a classifier; if so, write "
                "them alike and import into a new bank"
            )


def _corner(frames: Frames) -> Iterator[str]:
    """That all points lie in the upper left of their frames, as micrometres do that are taken for pixels."""
    frames = frames.where(pc.greater(frames.column("width"), 0))
    frame_C, centres_C2 = frames.centres
    number = len(centres_C2)
    sizes_N2 = np.stack([_numbers(frames, "width"), _numbers(frames, "height")], axis=1)
    farthest = float((centres_C2 / sizes_N2[frame_C]).max()) if number else 0.0
    if number and farthest < CORNER and 2 * number * math.log(max(farthest, 1e-9)) < math.log(CHANCE):
        yield (
            f"all {number} centres of cells lie in the upper left {farthest:.0%} of their frames; are they in "
            "micrometres? They are taken for pixels"
        )


def _part(odd: Frames, frames: Frames) -> str:
    return f"{len(odd)} of {len(frames)} frames {'has' if len(odd) == 1 else 'have'}"


def _named(frames: Frames) -> str:
    more = len(frames) - NAMED
    return ", ".join(Path(frame.source).name for frame in frames[:NAMED]) + (f" and {more} more" if more > 0 else "")
