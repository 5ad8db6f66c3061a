"""A bank as a page that one can look at: frames of every lineage, how many cells they hold, what to beware of."""

import contextlib
import html
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from cellnet.bank.bank import Bank
from cellnet.bank.frames import Frame
from cellnet.bank.warnings import warnings_of
from cellnet.errors import CellnetError, ConfigError
from cellnet.images.file import encode_png
from cellnet.images.pixels import stretch
from cellnet.reports.pages import STYLE, png_of, src_of

THUMBNAIL_PX: Final = 145
SHOWN: Final = 6
"""Frames of every lineage."""
MORE_STYLE: Final = """
.frames { display: flex; flex-wrap: wrap; gap: .6rem; }
figure { margin: 0; width: 145px; font-size: 11px; overflow-wrap: anywhere; }
.warning { border-left: 4px solid #c77700; padding-left: .8rem; }
"""


def write_gallery(path: Path, bank: Bank) -> Path:
    """A self-contained page at that path. Raises ConfigError when it cannot be written."""
    lineages: dict[str, list[Frame]] = defaultdict(list)
    for frame in bank.frames:
        lineages[frame.lineage or "(not known)"].append(frame)
    warnings = "".join(f'<p class="warning">{html.escape(text)}</p>' for text in warnings_of(bank.frames))
    aside = "".join(f"<li>{html.escape(f'{row.source}: {row.set_aside}')}</li>" for row in bank.set_aside)
    title = html.escape(f"{len(bank.frames):,} frames of {len(lineages)} lineage{'s' * (len(lineages) != 1)}")
    page = f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><style>{STYLE}{MORE_STYLE}</style></head><body>
<h1>{title}</h1><p class="note">{html.escape(bank.store.uri)}, digest {bank.digest[:12]}</p>{warnings}
{_histograms(bank, lineages)}
{"".join(_lineage(bank, name, frames) for name, frames in sorted(lineages.items()))}
{_near(bank)}
{f"<h2>Set aside</h2><ul>{aside}</ul>" if aside else ""}
</body></html>"""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write the page {path}: {error.strerror}") from error
    return path


def _lineage(bank: Bank, name: str, frames: Sequence[Frame]) -> str:
    """A heading and some frames, spread over the splits and groups as they come."""
    shown = "".join(_thumbnail(bank, frame) for frame in _some(frames))
    return (
        f'<h2>{html.escape(name)}: {len(frames)} frame{"s" * (len(frames) != 1)}</h2><div class="frames">{shown}</div>'
    )


def _thumbnail(bank: Bank, frame: Frame) -> str:
    try:
        grey_HW = stretch(bank.pixels(frame), bank.settings.intensity)
    except CellnetError as error:
        return f"<figure>{html.escape(str(error))}</figure>"
    factor = THUMBNAIL_PX / max(grey_HW.shape)
    small_HW = cv2.resize(grey_HW, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    cells = "" if frame.count is None else f", {frame.count:g} cells"
    words = html.escape(f"{Path(frame.source).name}, {frame.split}{cells}")
    return f'<figure><img alt="" src="{src_of(encode_png(small_HW))}"><figcaption>{words}</figcaption></figure>'


def _some(frames: Sequence[Frame]) -> Sequence[Frame]:
    return frames[:: max(1, len(frames) // SHOWN)][:SHOWN]


def _near(bank: Bank) -> str:
    """Near-duplicates, each beside what it copies."""
    by_name = {frame.frame: frame for frame in bank.frames}
    copies = [frame for frame in bank.frames if frame.twin in by_name]
    if not copies:
        return ""
    pairs = "".join(_thumbnail(bank, by_name[str(copy.twin)]) + _thumbnail(bank, copy) for copy in copies[:SHOWN])
    more = f", of which {SHOWN} are shown" if len(copies) > SHOWN else ""
    return f'<h2>Nearly the same: {len(copies)}{more}</h2><div class="frames">{pairs}</div>'


def _histograms(bank: Bank, lineages: dict[str, list[Frame]]) -> str:
    """Grey values as recorded, of some frames, and cells a frame where counts are known: a colour a lineage."""
    from matplotlib.figure import Figure

    names = sorted(lineages)
    counts = [[frame.count for frame in lineages[name] if frame.count is not None] for name in names]
    figure: Any = Figure(figsize=(11.2, 3.2), layout="constrained")
    grey, *counted = np.atleast_1d(figure.subplots(1, 2 if any(counts) else 1))
    for name in names:
        values_N = _grey_values(bank, _some(lineages[name]))
        if len(values_N):
            grey.hist(values_N, bins=100, density=True, histtype="step", label=name)
    grey.set(xlabel="grey value as recorded", ylabel="share of the pixels", yticks=[])
    for axis in counted:
        axis.hist(counts, bins=20, stacked=True, label=names)
        axis.set(xlabel="cells a frame", ylabel="frames")
    figure.legend(*grey.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return f'<h2>Histograms</h2><img alt="histograms of grey values and counts" src="{src_of(png_of(figure))}">'


def _grey_values(bank: Bank, frames: Sequence[Frame]) -> NDArray[Any]:
    """Every fourth pixel both ways of the frames that can be read."""
    values: list[NDArray[Any]] = [np.empty(0)]
    for frame in frames:
        with contextlib.suppress(CellnetError):
            values.append(bank.pixels(frame)[::4, ::4].ravel())
    return np.concatenate(values)
