"""Pages without scripts that hold all that they show: values come ready from Python, HTML is in `templates/` alone."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cellnet.reports.plots import svg

TEMPLATES: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


class Headline(NamedTuple):
    """A figure that matters most, as the head of a page shows it."""

    name: str
    value: str
    note: str
    """What to know of it."""


class Plot(NamedTuple):
    """A drawing, and the words below it."""

    svg: Markup
    words: str


def page(template: str, **values: Any) -> str:
    """The page of a template. Nothing in `values` becomes HTML, whatever a file is called, but the SVG of a plot."""
    return TEMPLATES.get_template(template).render(values)


def plot(draw: Callable[[Any], None], words: str) -> Plot:
    """What `draw` draws onto axes."""
    return Plot(Markup(svg(draw)), words)  # matplotlib escapes the text in it


def data_uri(data: bytes, kind: Literal["png", "jpeg"]) -> str:
    """A picture as the `src` of an image that is in the page itself."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
