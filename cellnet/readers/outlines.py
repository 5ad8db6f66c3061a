"""The middle of a cell's outline as COCO writes it: polygons, or runs of pixels (RLE), plain or compressed."""

import math
from itertools import accumulate
from typing import Any, Final

MOST_BITS: Final = 40
"""Of a compressed run's length; a longer one is no run of an image."""


def middle_of_polygons(polygons: Any) -> tuple[float, float] | None:
    """The middle (x, y) of the box around all corners; None for what are no polygons.

    >>> middle_of_polygons([[0, 0, 8, 0, 8, 2]])
    (4.0, 1.0)
    """
    try:
        flat = (
            polygons if polygons and isinstance(polygons[0], (int, float)) else [x for each in polygons for x in each]
        )
        outline = [float(number) for number in flat]
        xs, ys = outline[::2], outline[1::2]
        middle = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
    except (TypeError, ValueError, OverflowError, KeyError, IndexError):
        return None
    return middle if math.isfinite(sum(middle)) else None


def middle_of_runs(runs: dict[str, Any]) -> tuple[float, float] | None:
    """The middle (x, y) of the box around the pixels of runs, which go down the columns; None for what are none.

    https://github.com/cocodataset/cocoapi (maskApi.c): `size` is height and width; `counts` are lengths of runs, the
    first outside of the cell, as numbers or as text.

    >>> middle_of_runs({"size": [10, 10], "counts": [22, 3, 7, 3, 65]})
    (3.0, 3.5)
    """
    try:
        height, width = (int(number) for number in runs["size"])
        counts = runs["counts"]
        lengths = _lengths(counts) if isinstance(counts, str) else [int(number) for number in counts]
    except (KeyError, TypeError, ValueError, OverflowError, IndexError):
        return None
    ends = list(accumulate(lengths))
    inside = [(start, end) for start, end in zip(ends[::2], ends[1::2], strict=False) if end > start]
    if not inside or height < 1 or min(lengths) < 0 or inside[-1][1] > height * width:
        return None
    x = inside[0][0] // height + (inside[-1][1] - 1) // height + 1
    one_column = [
        (start % height, (end - 1) % height + 1) for start, end in inside if _columns(start, end, height) == 1
    ]
    if len(one_column) < len(inside):
        return x / 2, height / 2
    return x / 2, (min(top for top, _ in one_column) + max(bottom for _, bottom in one_column)) / 2


def _columns(start: int, end: int, height: int) -> int:
    """How many columns a run touches."""
    return (end - 1) // height - start // height + 1


def _lengths(text: str) -> list[int]:
    """The lengths that a compressed text stands for: five bits a letter, each but three less the one two before."""
    lengths: list[int] = []
    value = bits = 0
    for letter in text.encode("ascii"):
        five = letter - 48
        value |= (five & 31) << bits
        bits += 5
        if bits > MOST_BITS or not 0 <= five < 64:
            raise ValueError("no compressed runs")
        if not five & 32:
            value -= (five & 16) << 1 << (bits - 5)  # the highest bit is the sign
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = bits = 0
    if bits:
        raise ValueError("it ends within a number")
    return lengths
