"""The page, and that of the documentation."""

import base64
import functools
import hashlib
import re
from pathlib import Path
from typing import Final

import fastapi_offline
from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse

HERE: Final = Path(__file__).parent
PARTS: Final = ("bench.css", "bench.js", "first.js", "times.js")
"""Files that the page holds where it names them."""
STATIC: Final = Path(fastapi_offline.__file__).parent / "static"
"""The documentation page's script and style, since it may load nothing from elsewhere."""


def add_pages(api: FastAPI) -> None:
    html = page_html()
    policy = content_policy(html)

    @api.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(html, headers={"Content-Security-Policy": policy})

    @api.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "").rstrip("/")
        shown = get_swagger_ui_html(
            openapi_url=f"{root}/openapi.json",
            title="cellnet: its HTTP interface",
            swagger_js_url=f"{root}/docs/swagger-ui-bundle.js",
            swagger_css_url=f"{root}/docs/swagger-ui.css",
            swagger_favicon_url="data:,",
        )
        text = bytes(shown.body).decode()
        return HTMLResponse(text, headers={"Content-Security-Policy": _docs_policy(text)})

    for name in ("swagger-ui-bundle.js", "swagger-ui.css"):
        api.add_api_route(f"/docs/{name}", functools.partial(_file, STATIC / name), include_in_schema=False)


def page_html() -> str:
    """The page, with the style and the script of its workbench in it: one file, that loads nothing."""
    html, *parts = (HERE.joinpath(name).read_text(encoding="utf-8") for name in ("page.html", *PARTS))
    for name, part in zip(PARTS, parts, strict=True):
        html = html.replace(f"/* {name} */", part)
    return html


async def _file(path: Path) -> FileResponse:
    return FileResponse(path, headers={"Cache-Control": "max-age=86400"})


def content_policy(html: str) -> str:
    """A Content-Security-Policy under which nothing runs but the page's own style and script, by their hashes."""
    hashes = {tag: _hash(body) for tag, body in re.findall(r"<(style|script)>(.*?)</\1>", html, re.DOTALL)}
    return (
        f"default-src 'none'; style-src 'sha256-{hashes['style']}'; script-src 'sha256-{hashes['script']}'; "
        "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _docs_policy(html: str) -> str:
    [script] = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    return (
        f"default-src 'none'; script-src 'self' 'sha256-{_hash(script)}'; style-src 'self' 'unsafe-inline'; "
        "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
