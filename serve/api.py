"""The HTTP interface: routes over the models of a shelf. Knows nothing of Ray."""

import asyncio
import base64
import functools
import hashlib
import importlib.metadata
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import fastapi_offline
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field, ValidationError

from cellnet.answers import Prediction
from cellnet.errors import DataError
from cellnet.tables import csv_lines, row_of
from serve.answering import Answerer, How
from serve.inference import add_inference
from serve.meters import CONTENT_TYPE, merged
from serve.middleware import Surroundings
from serve.problems import add_problems, problems
from serve.schemas import ModelInfo, Models, Predictions, Readiness
from serve.shelf import Served
from serve.tensors import HEADER
from serve.uploads import FIELD, Upload, read_uploads

STATIC: Final = Path(fastapi_offline.__file__).parent / "static"
"""The documentation page's script and style, since it may load nothing from elsewhere."""


class Asked(BaseModel):
    """What is asked of the images of a request."""

    pixel_um: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Micrometres a pixel; if left out, what an OME-TIFF itself says."
    )
    page: Literal["middle", "all"] | Annotated[int, Field(ge=1)] | None = Field(
        None, description="What to take of a file of several pages: a number from 1, the middle one, or all of them."
    )
    format: Literal["json", "csv"] = Field("json", description="`csv` is for spreadsheets: a row an image.")
    overlay: bool = Field(
        False, description="A picture (PNG) of one image instead: what was counted where, and what was looked at."
    )


class Straight(APIRoute):
    """A route with one argument besides the request, `Asked`: FastAPI's way to arguments takes 3 % of an answer."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request."""

        async def handle(request: Request) -> Response:
            try:
                asked = Asked.model_validate(dict(request.query_params))
            except ValidationError as error:
                found = [one | {"loc": ("query", *one["loc"])} for one in error.errors()]
                raise RequestValidationError(found) from error
            answer: Response = await self.endpoint(request, asked)
            return answer

        return handle


_BYTES: Final = {"type": "string", "format": "binary"}
_BODY: Final = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {"type": "object", "properties": {FIELD: {"type": "array", "items": _BYTES}}, "required": [FIELD]}
        },
        "image/*": {"schema": _BYTES},
        "application/octet-stream": {"schema": _BYTES},
    },
}
_NAME: Final = {
    "name": "name",
    "in": "query",
    "schema": {"type": "string"},
    "description": "Name of an image that is the body itself; the header Image-Name does the same.",
}


_ANSWERS: Final = {
    200: {"content": {"text/csv": {"schema": {"type": "string"}}, "image/png": {"schema": _BYTES}}},
    **problems(401, 408, 413, 422, 503, 504),
}
EXPOSED: Final = ("Retry-After", "Cellnet-Models", "X-Request-ID", HEADER)
"""Headers of answers that web pages of others may read."""

Draw = Callable[[Upload, How, Prediction], Awaitable[bytes]]
"""A picture of an image and its prediction."""
Texts = Callable[[], Awaitable[dict[str, str]]]
"""The figures of every process that serves, by its name."""


def make_api(
    answerer: Answerer,
    *,
    keys: Sequence[str] = (),
    origins: Sequence[str] = (),
    hosts: Sequence[str] = (),
    draw: Draw | None = None,
    texts: Texts | None = None,
) -> FastAPI:
    """The application over the models of an answerer.

    `keys`: sha256 of the API keys; where there are none, none is asked for. `origins`: web pages of others that may
    call it. `hosts`: the names that it answers to, like localhost, so that no web page reaches it by a name of its own
    (DNS rebinding); where there are none, any. `draw`: makes overlays. `texts`: the figures of all processes (this
    one's alone).
    """
    api = FastAPI(
        title="cellnet",
        description="Names the lineage of cells and counts them in phase-contrast and brightfield frames.",
        version=importlib.metadata.version("cellnet"),
        docs_url=None,  # its page loads scripts from elsewhere; ours is below
        redoc_url=None,
    )
    add_problems(api)
    api.add_middleware(
        Surroundings, limits=answerer.limits, meters=answerer.meters, keys=tuple(keys), hosts=tuple(hosts)
    )
    if origins:  # around all else: a browser asks beforehand without a key, and is to read refusals
        api.add_middleware(
            CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"], expose_headers=EXPOSED
        )
    _add_predict(api, answerer, draw)
    add_inference(api, answerer)
    _add_state(api, answerer, texts)
    _add_pages(api)
    return api


def _add_predict(api: FastAPI, answerer: Answerer, draw: Draw | None) -> None:
    async def predict(request: Request, asked: Annotated[Asked, Query()]) -> Response:
        """Lineage and count of one image (the body), or of several (a form's `images`).

        A bad image alone is a problem 422; among others it is an entry with `error`, and the others are answered.
        """
        how = answerer.how(request.state.request_id, pixel_um=asked.pixel_um, page=asked.page)
        uploads = await read_uploads(request, answerer.limits)
        if asked.overlay:
            return await _drawn(uploads, how, answerer, draw)
        if len(uploads) == 1:
            said = await answerer.predict(uploads[0], how)
        else:
            answered = await asyncio.gather(*(answerer.predict_or_say(upload, how) for upload in uploads))
            said = [prediction for pages in answered for prediction in pages]
        bad = sum(one.error is not None for one in said)
        request.state.noted = {"images": len(said), "bad": bad, "models": [served.ref for served in how.models]}
        if asked.format == "csv":
            return PlainTextResponse(_csv(said), media_type="text/csv")
        return Response(Predictions(predictions=said).model_dump_json(), media_type="application/json")

    api.router.add_api_route(
        "/v1/predict",
        predict,
        methods=["POST"],
        openapi_extra={"requestBody": _BODY, "parameters": [_NAME]},
        responses=_ANSWERS,
        response_model=Predictions,
        route_class_override=Straight,
    )


def _csv(said: list[Prediction]) -> str:
    return "".join(csv_lines(row_of(prediction) for prediction in said))


async def _drawn(uploads: list[Upload], how: How, answerer: Answerer, draw: Draw | None) -> Response:
    """The picture of the one image, with the versions that it shows in the header Cellnet-Models."""
    if draw is None:
        raise DataError("this service draws no overlays; start it without --no-overlays, or leave overlay out")
    if len(uploads) != 1:
        raise DataError(f"an overlay is of one image, and the request holds {len(uploads)}; send one at a time")
    said = await answerer.predict(uploads[0], how)
    if len(said) != 1:
        raise DataError(f"{uploads[0].name}: an overlay is of one page, not of {len(said)}; choose: page, a number")
    refs = [ref for ref in (said[0].models.classifier, said[0].models.regressor) if ref]
    picture = await draw(uploads[0], how, said[0])
    return Response(picture, media_type="image/png", headers={"Cellnet-Models": ", ".join(refs)})


def _add_state(api: FastAPI, answerer: Answerer, texts: Texts | None) -> None:
    shelf, meters = answerer.shelf, answerer.meters

    @api.get("/v1/models", responses=problems(401, 503))
    async def list_models() -> Models:
        """The models that are being served."""
        return Models(models=[*_infos(answerer)])

    @api.get("/healthz", response_class=PlainTextResponse)
    async def healthz() -> str:
        """`ok` while this process answers at all."""
        return "ok"

    @api.get("/readyz")
    async def readyz(request: Request) -> Readiness:
        """Whether it answers with the versions that the registry says; it answers with older ones if not."""
        found = [f"{role}: {why}" for role, why in shelf.problems.items()]
        return Readiness(
            status="stale" if found else "ok",
            problems=found if request.state.known else [],
            registry_answered=datetime.fromtimestamp(shelf.checked, UTC).isoformat(timespec="seconds"),
        )

    @api.get("/metrics", response_class=PlainTextResponse, responses=problems(401))
    async def metrics() -> Response:
        """Figures of all processes that serve, for Prometheus."""
        found = await texts() if texts else {"0": meters.text()}
        return Response(await asyncio.to_thread(merged, found), media_type=CONTENT_TYPE)


def _infos(answerer: Answerer) -> list[ModelInfo]:
    shelf = answerer.shelf
    roles = {id(served): lineage for lineage, served in shelf.champions.by_lineage.items()}
    return [
        _info(served, roles.get(id(served), "classifier" if served.version.card.task == "classify" else "regressor"))
        for served in (*shelf.champions, *shelf.challengers)
    ]


def _info(served: Served, role: str) -> ModelInfo:
    card = served.version.card
    return ModelInfo(
        ref=served.ref,
        role=role,
        alias=served.alias,
        engine=served.engine,
        task=card.task,
        classes=card.classes,
        scores=card.scores,
        bank_digest=card.bank_digest,
        tile_px=card.preprocess.tile_px,
        pixel_um=card.preprocess.pixel_um,
    )


def _add_pages(api: FastAPI) -> None:
    html = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
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
