"""Pages without scripts that hold all that they show: values come ready from Python, HTML is in `templates/` alone."""

import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from numpy.typing import NDArray

from cellnet.errors import ConfigError
from cellnet.reports.plots import svg


def breakable(text: object) -> Markup:
    """A name that a browser may break after _ - . and /, as people would; not within a number or a date.

    >>> breakable("A549_G7/0.5<b>.tif of 2026-11-29")
    Markup('A549_<wbr>G7/<wbr>0.5&lt;b&gt;.<wbr>tif of 2026-11-29')
    """
    parts = re.split(r"(?<=\S[_/])(?=[^\W_])|(?<=[^\s\d][-.])(?=[^\W_])|(?<=\d[-.])(?=[^\W\d_])", str(text))
    return Markup("<wbr>").join(escape(part) for part in parts)


TEMPLATES: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters["breakable"] = breakable
JPEG_QUALITY: Final = 75
"""Of pictures that are looked at, not measured."""


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


def write_page(path: Path, text: str) -> None:
    """Write a file; where there is no room for all of it none is left. Raises OSError."""
    with path.open("w", encoding="utf-8") as file:
        try:
            file.write(text)
            file.flush()
        except OSError:
            if path.is_file():
                path.unlink()
            raise


def save_page(path: Path, text: str) -> Path:
    """Write a page, in a folder that is made where it lacks. Raises ConfigError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_page(path, text)
    except OSError as error:
        raise ConfigError(f"cannot write the page {path}: {error.strerror}") from error
    return path


def plot(draw: Callable[[Any], None], words: str, **inches: float) -> Plot:
    """What `draw` draws onto axes, of a `width` and a `height`."""
    return Plot(Markup(svg(draw, **inches)), words)  # matplotlib escapes the text in it


def data_uri(data: bytes, kind: Literal["png", "jpeg"]) -> str:
    """A picture's file as the `src` of an image that is in the page itself."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def picture(image: NDArray[np.uint8]) -> str:
    """Pixels, grey (H, W) or BGR (H, W, 3), as the `src` of an image that is in the page itself."""
    colours = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]  # thin lines keep theirs
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, *colours])
    return data_uri(data.tobytes(), "jpeg")
