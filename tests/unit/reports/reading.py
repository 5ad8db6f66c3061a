"""A page read as a browser reads it. A test module takes it by `from tests.unit.reports.reading import ...`."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
HOSTILE: Final = "<script>alert(1)</script>.png"
"""A name of a file that would run."""
EMPTY: Final = frozenset({"meta", "br", "wbr", "img"})
"""Elements of HTML that are not closed."""
HARMLESS: Final = """
html head meta title style body header h1 h2 h3 p div small b i br wbr table thead tbody tr th td ul li img figure
figcaption details summary pre svg g defs path use rect text tspan image clippath pattern
"""
"""Elements that pages are made of."""


class Page(HTMLParser):
    """The elements and the text of a page whose tags pair."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in EMPTY:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def assert_harmless(html: str, *names: str) -> None:
    """The page shows these names as text, is under the policy of all pages, runs nothing and loads nothing."""
    page = Page(html)
    for name in names:
        assert name in page.text
    policies = [attributes for tag, attributes in page.elements if attributes.get("http-equiv")]
    assert policies == [{"http-equiv": "Content-Security-Policy", "content": POLICY}]
    assert html.index("http-equiv") < html.index("<style"), "a policy holds for what follows it"
    assert {tag for tag, _ in page.elements} <= set(HARMLESS.split())
    for _, attributes in page.elements:
        for attribute, value in attributes.items():
            assert not attribute.startswith("on")
            assert attribute not in ("src", "srcset", "href", "xlink:href") or value.startswith(("data:image/", "#"))
    assert not re.search(r"@import|url\((?!#)", html)


def unbroken(path: Path) -> str:
    """The HTML of a page without the places where names may break."""
    return path.read_text(encoding="utf-8").replace("<wbr>", "")
