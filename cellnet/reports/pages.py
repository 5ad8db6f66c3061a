"""Pages without scripts that hold all that they show."""

import base64
import html
import io
from typing import Any, Final

from cellnet.reports.plots import (
    svg,
)

STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b2430; --soft: #5d6b7a; --line: #dde3e9; --card: #fff; --ground: #f4f6f8;
  --warn: #8a4b00; --warn-ground: #fdf1e0; }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e8edf2; --soft: #9aa8b6; --line: #2c3844;
  --card: #18212b; --ground: #0f161d; --warn: #ffc47a; --warn-ground: #33260f; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 0 auto; padding: 1.5rem 1rem 3rem;
  color: var(--ink); background: var(--ground); }
h1 { margin: 0; font-size: 1.6rem; letter-spacing: -.02em; overflow-wrap: anywhere; }
h2 { margin: 2rem 0 .6rem; font-size: 1.15rem; }
.note, .soft { color: var(--soft); overflow-wrap: anywhere; }
.warn { padding: .5rem .8rem; border-radius: 8px; color: var(--warn); background: var(--warn-ground); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.6rem, 1fr)); gap: .7rem; margin: 1.2rem 0; }
.tiles div, .plot, .scroll, details, .worst figure { border: 1px solid var(--line); border-radius: 12px;
  background: var(--card); }
.tiles div { padding: .7rem .9rem; }
.tiles b { display: block; font-size: 1.55rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.tiles small { color: var(--soft); display: block; line-height: 1.35; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: .7rem; }
.plot { margin: 0; padding: .6rem; }
.plot svg { display: block; width: 100%; height: auto; max-height: 28rem; }
.plot figcaption { color: var(--soft); font-size: .82rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .35rem .7rem; text-align: right; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums; }
tbody tr:last-child td { border-bottom: 0; }
th { color: var(--soft); font-size: .82rem; font-weight: 600; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; border-radius: 6px; }
.worst { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr)); gap: .7rem; }
.worst figure { margin: 0; padding: .6rem; break-inside: avoid; }
.worst .pair { display: grid; grid-template-columns: 1fr 1fr; gap: .3rem; }
.worst img { width: 100%; display: block; }
.worst figcaption { margin-top: .4rem; font-size: .85rem; line-height: 1.4; overflow-wrap: anywhere; }
details { padding: .5rem .9rem; margin: .6rem 0; }
summary { cursor: pointer; }
pre { columns: 3 18rem; font-size: .82rem; margin: .5rem 0; white-space: pre-wrap; overflow-wrap: anywhere; }
@media screen and (max-width: 40rem) { pre { columns: auto; overflow-x: auto; }
  details { contain: inline-size; } }
@media print { @page { margin: 14mm; } :root { --ground: #fff; } body { max-width: none; padding: 0; font-size: 11px; }
  h2, .note { break-after: avoid; } h2 { margin-top: 1.2rem; } .plot, .tiles div, tr { break-inside: avoid; }
  .plots { grid-template-columns: 1fr 1fr; } .plot svg { max-height: 17rem; }
  .tiles { grid-template-columns: repeat(3, 1fr); }
  .worst { grid-template-columns: repeat(3, 1fr); } th, td { padding: .2rem .4rem; } }
"""

CSP: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Nothing is loaded and nothing runs, whatever a file is called."""


def page(title: str, body: str) -> str:
    """A page without scripts that holds all that it shows."""
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{CSP}"><style>{STYLE}</style></head><body>
{body}
</body></html>"""


def plot(draw: Any, words: str) -> str:
    """What `draw` draws onto axes, as a figure with its words below it."""
    picture = svg(draw).replace("<svg ", f'<svg role="img" aria-label="{html.escape(words)}" ', 1)
    return f'<figure class="plot">{picture}<figcaption>{html.escape(words)}</figcaption></figure>'


def png_of(figure: Any) -> bytes:
    """A matplotlib figure as a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def src_of(png: bytes) -> str:
    """A PNG as the `src` of an image that is in the page itself."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def table(rows: list[list[Any]]) -> str:
    """Rows as a table, the first of them its heads."""
    head = "".join(f"<th>{html.escape(str(cell))}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows[1:])
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
