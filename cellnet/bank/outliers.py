"""Frames of a bank that are unlike the rest, and labels that look like slips: worth a look before a training.

A few frames among many are named, a tenth of them at most: what is true of more is how the bank is. A value that varies
is far from the rest where it is beyond five deviations of the median, estimated from the median of distances (Leys et
al. 2013, 10.1016/j.jesp.2013.03.013), and at least twice or half, or four times or a quarter, of the median.
"""

import math
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

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


def unlike_the_rest(frames: Sequence[Frame]) -> Iterator[str]:
    """What looks like a slip, a sentence each; nothing of a bank whose frames are alike."""
    yield from _spellings(frames)
    yield from _corner(frames)
    sized = [frame for frame in frames if frame.pixel_um is not None]
    if 0 < len(sized) < len(frames):
        lacking = [frame for frame in frames if frame.pixel_um is None]
        yield f"{_part(lacking, frames)} no pixel size, the others have: {_named(lacking)}; give pixel_um in a manifest"
    for what, value_of in KINDS.items():
        kinds = Counter(map(value_of, sized if what == "a pixel size" else frames))
        [(usual, n)] = kinds.most_common(1) or [("", 0)]
        odd = [frame for frame in (sized if what == "a pixel size" else frames) if value_of(frame) != usual]
        if odd and n >= FEWEST and len(odd) <= ODD_SHARE * (n + len(odd)):
            values = ", ".join(sorted({value_of(frame) for frame in odd})[:NAMED])
            yield f"{_part(odd, frames)} {what} of {values}, the others {usual}: {_named(odd)}"
    for what, (number_of, factor) in NUMBERS.items():
        odd = _far(frames, number_of, factor)
        if odd:
            yield f"{_part(odd, frames)} {what} than the others: {_named(odd)}"


KINDS: Final[dict[str, Callable[[Frame], str]]] = {
    "a size": lambda frame: f"{frame.width}×{frame.height} pixels",
    "a depth": lambda frame: f"{frame.bits} bits",
    "a pixel size": lambda frame: f"{frame.pixel_um or 0:.3g} µm",
}
"""What nearly all frames of a bank have in common."""
NUMBERS: Final[dict[str, tuple[Callable[[Frame], float], float]]] = {
    "a much smaller or larger area": (lambda frame: frame.width * frame.height, 4),
    "far fewer or more grey values between their darkest and brightest": (
        lambda frame: (frame.brightest - frame.darkest) / 2**frame.bits,
        4,
    ),
    "far less or more fine detail, as out of focus or of noise,": (lambda frame: frame.sharpness or 0.0, 2),
}
"""What varies from frame to frame, and which factor of the median is far."""


def _far(frames: Sequence[Frame], number_of: Callable[[Frame], float], factor: float) -> list[Frame]:
    """The few frames whose number is far from the median of all; 0 stands for not known."""
    logs = {frame.frame: math.log(number) for frame in frames if (number := number_of(frame)) > 0}
    if len(logs) < FEWEST:
        return []
    median = statistics.median(logs.values())
    deviation = MAD_TO_DEVIATION * statistics.median(abs(log - median) for log in logs.values())
    limit = max(math.log(factor), DEVIATIONS * deviation)
    odd = [frame for frame in frames if abs(logs.get(frame.frame, median) - median) > limit]
    return odd if len(odd) <= ODD_SHARE * len(frames) else []


def _spellings(frames: Sequence[Frame]) -> Iterator[str]:
    """Lineages that differ only in letter case, blanks and hyphens."""
    spelled: dict[str, set[str]] = defaultdict(set)
    for frame in frames:
        if frame.lineage is not None:
            spelled[re.sub(r"(?<=\w)[\s_.-]+(?=\w)|_", "", frame.lineage.casefold()).strip()].add(frame.lineage)
    for names in spelled.values():
        if len(names) > 1:
            yield (
                f"{' and '.join(sorted(names))} may be one lineage, but are {len(names)} to a classifier; if so, write "
                "them alike and import into a new bank"
            )


def _corner(frames: Sequence[Frame]) -> Iterator[str]:
    """That all points lie in the upper left of their frames, as micrometres do that are taken for pixels."""
    places = [max(x / frame.width, y / frame.height) for frame in frames if frame.width for x, y in frame.centres or ()]
    if places and max(places) < CORNER and 2 * len(places) * math.log(max(*places, 1e-9)) < math.log(CHANCE):
        yield (
            f"all {len(places)} centres of cells lie in the upper left {max(places):.0%} of their frames; are they in "
            "micrometres? They are taken for pixels"
        )


def _part(odd: Sequence[Frame], frames: Sequence[Frame]) -> str:
    return f"{len(odd)} of {len(frames)} frames {'has' if len(odd) == 1 else 'have'}"


def _named(frames: Sequence[Frame]) -> str:
    more = len(frames) - NAMED
    return ", ".join(Path(frame.source).name for frame in frames[:NAMED]) + (f" and {more} more" if more > 0 else "")
