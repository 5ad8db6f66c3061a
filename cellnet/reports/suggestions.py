"""What to label next as a page that one can look at: the frames, what a model says of them, and why they are listed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cellnet.bank.bank import Bank
from cellnet.evaluation.suggesting import Suggestion, said_of
from cellnet.reports.gallery import MOST, Thumbnail, look_at
from cellnet.reports.pages import page, save_page

HEADINGS: Final = {"chosen": "For what they would teach", "random": "Drawn at random, to score by"}
NOTES: Final = (
    "Say what they are by cellnet bank label, with the table of cellnet suggest --out, or in the service\u2019s page.",
    "Chosen frames are harder than usual ones, and scores over them say how many there are. Those that were drawn at "
    "random are as all frames are, so label them too.",
)


def write_suggestions(path: Path, bank: Bank, ref: str, suggestions: Sequence[Suggestion]) -> Path:
    """A self-contained page at that path, of the first so many frames. Raises ConfigError when it cannot be written."""
    shown = suggestions[:MOST]
    more = len(suggestions) - len(shown)
    sections = {
        heading: [_thumbnail(bank, one) for one in shown if one.drawn == drawn] for drawn, heading in HEADINGS.items()
    }
    text = page(
        "suggestions.html",
        title=f"{len(suggestions):,} frames to label next",
        lead=f"{bank.store.uri}, digest {bank.digest[:12]}, by {ref}",
        notes=[*NOTES, *([f"{more:,} more are in the table alone."] if more else [])],
        sections={heading: thumbnails for heading, thumbnails in sections.items() if thumbnails},
    )
    return save_page(path, text)


def _thumbnail(bank: Bank, one: Suggestion) -> Thumbnail:
    thumbnail = look_at(bank, one.frame).thumbnail
    return thumbnail._replace(words=f"{said_of(one.answer)}: {'; '.join(one.why)}") if thumbnail.source else thumbnail
