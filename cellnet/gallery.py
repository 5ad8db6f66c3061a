"""A bank as a page that one can look at: frames of every lineage, how many cells they hold, what to beware of."""

import html
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import cv2

from cellnet.bank import Bank, Frame, warnings_of
from cellnet.errors import CellnetError, ConfigError
from cellnet.images import encode_png, stretch
from cellnet.report import STYLE, png_of, src_of

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
    title = html.escape(f"{len(bank.frames)} frames of {len(lineages)} lineages")
    page = f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><style>{STYLE}{MORE_STYLE}</style></head><body>
<h1>{title}</h1><p class="note">{html.escape(bank.store.uri)}, digest {bank.digest[:12]}</p>{warnings}
{_histograms(lineages)}
{"".join(_lineage(bank, name, frames) for name, frames in sorted(lineages.items()))}
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
    step = max(1, len(frames) // SHOWN)
    shown = "".join(_thumbnail(bank, frame) for frame in frames[::step][:SHOWN])
    return f'<h2>{html.escape(name)}: {len(frames)} frames</h2><div class="frames">{shown}</div>'


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


def _histograms(lineages: dict[str, list[Frame]]) -> str:
    """Cells a frame and brightest grey values, a colour a lineage; nothing where no count is known."""
    from matplotlib.figure import Figure

    counts = {name: [frame.count for frame in frames if frame.count is not None] for name, frames in lineages.items()}
    known = {name: values for name, values in sorted(counts.items()) if values}
    if not known:
        return ""
    figure: Any = Figure(figsize=(11.2, 3.2), layout="constrained")
    axis = figure.subplots()
    axis.hist(list(known.values()), bins=20, stacked=True, label=list(known))
    axis.set(xlabel="cells a frame", ylabel="frames")
    axis.legend(fontsize=8)
    return f'<h2>Cells a frame</h2><img alt="histogram of counts" src="{src_of(png_of(figure))}">'
