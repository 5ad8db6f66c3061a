"""The HTTP interface: routes, bounds, errors as problem+json. Knows nothing of Ray; models are passed in."""

import asyncio
import base64
import hashlib
import http
import importlib.metadata
import io
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Protocol

import numpy as np
from fastapi import FastAPI, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from numpy.typing import NDArray
from pydantic import Field
from starlette.exceptions import HTTPException

from cellnet.answers import Answer, Prediction, combine
from cellnet.errors import CellnetError, ConflictError, DataError, NotFoundError
from cellnet.images import Pages, choose_pages, decode, pixel_size_um
from serve.schemas import ModelInfo, Models, Predictions, Problem
from serve.uploads import FIELD, Limits, Upload, read_uploads

logger = logging.getLogger(__name__)

STATUS: Final[dict[type[CellnetError], int]] = {DataError: 422, NotFoundError: 404, ConflictError: 409}
IN_FLIGHT: Final = 4
"""Images that one process holds decoded at a time: a 100-megapixel frame of 16 bits takes 200 MB."""
READY_S: Final = 5.0
"""How long a model may take to say that it is there, in seconds."""

PixelUm = Annotated[
    float | None,
    Query(gt=0, allow_inf_nan=False, description="Micrometres a pixel; if left out, what an OME-TIFF itself says."),
]
Page = Annotated[
    Literal["middle", "all"] | Annotated[int, Field(ge=1)] | None,
    Query(description="What to take of a file of several pages: a number from 1, the middle one, or all of them."),
]
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
_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": Problem, "description": http.HTTPStatus(status).phrase} for status in (413, 422)
}


class Model(Protocol):
    """A served model, wherever it runs."""

    async def answer(self, image_HW: NDArray[np.uint8] | NDArray[np.uint16], pixel_um: float | None) -> Answer:
        """What it says of a frame. Raises DataError for a frame it cannot use."""

    async def describe(self) -> ModelInfo:
        """What it is."""


def make_api(models: Sequence[Model], limits: Limits) -> FastAPI:
    """The application over a classifier, a counter, or both."""
    api = FastAPI(
        title="cellnet",
        description="Names the lineage of cells and counts them in phase-contrast and brightfield frames.",
        version=importlib.metadata.version("cellnet"),
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
    )
    _add_errors(api)
    _add_health(api, models)
    _add_page(api)
    in_flight = asyncio.Semaphore(IN_FLIGHT)

    @api.post("/v1/predict", openapi_extra={"requestBody": _BODY, "parameters": [_NAME]}, responses=_PROBLEMS)
    async def predict(request: Request, pixel_um: PixelUm = None, page: Page = None) -> Predictions:
        """Lineage and count of one image (the body), or of several (a form's `images`).

        A bad image alone is a problem 422; among others it is an entry with `error`, and the others are answered.
        """
        how = _How(pixel_um=pixel_um, page=page, models=models, in_flight=in_flight)
        uploads = await read_uploads(request, limits)
        if len(uploads) == 1:
            return Predictions(predictions=await _predict(uploads[0], how))
        answered = await asyncio.gather(*(_predict_or_say(upload, how) for upload in uploads))
        return Predictions(predictions=[prediction for pages in answered for prediction in pages])

    @api.get("/v1/models")
    async def list_models() -> Models:
        """The models that are being served."""
        return Models(models=await asyncio.gather(*(model.describe() for model in models)))

    return api


@dataclass(frozen=True, kw_only=True)
class _How:
    """What is the same for every image of a request."""

    pixel_um: float | None
    page: Pages | None
    models: Sequence[Model]
    in_flight: asyncio.Semaphore


async def _predict(upload: Upload, how: _How) -> list[Prediction]:
    """What the models say of an image, or of each chosen page. Raises DataError, naming the image."""
    um = how.pixel_um or pixel_size_um(upload.data)
    predictions = []
    for page in choose_pages(io.BytesIO(upload.data), how.page, name=upload.name):
        async with how.in_flight:
            image_HW = await run_in_threadpool(decode, upload.data, name=upload.name, page=page)
            try:
                answers = await asyncio.gather(*(model.answer(image_HW, um) for model in how.models))
            except DataError as error:
                raise DataError(f"{upload.name}: {error}") from error
        predictions.append(combine(upload.name if page is None else f"{upload.name}#{page}", answers))
    return predictions


async def _predict_or_say(upload: Upload, how: _How) -> list[Prediction]:
    """What the models say of an image, or what is wrong with it."""
    try:
        return await _predict(upload, how)
    except DataError as error:
        return [Prediction(image=upload.name, error=str(error))]


def _add_health(api: FastAPI, models: Sequence[Model]) -> None:
    @api.get("/healthz", response_class=PlainTextResponse)
    async def healthz() -> str:
        """`ok` while this process answers at all."""
        return "ok"

    @api.get("/readyz", response_class=PlainTextResponse, responses={503: {"model": Problem}})
    async def readyz() -> str:
        """`ok` while every model answers too."""
        try:
            async with asyncio.timeout(READY_S):
                await asyncio.gather(*(model.describe() for model in models))
        except Exception as error:  # whatever it is, it is not ready
            raise HTTPException(503, f"a model does not answer ({type(error).__name__}); try again later") from error
        return "ok"


def _add_page(api: FastAPI) -> None:
    html = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    headers = {
        "Content-Security-Policy": _content_policy(html),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }

    @api.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(html, headers=headers)


def _content_policy(html: str) -> str:
    """A Content-Security-Policy under which nothing runs but the page's own style and script, by their hashes."""
    hashes = {
        tag: base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        for tag, body in re.findall(r"<(style|script)>(.*?)</\1>", html, re.DOTALL)
    }
    return (
        f"default-src 'none'; style-src 'sha256-{hashes['style']}'; script-src 'sha256-{hashes['script']}'; "
        "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _add_errors(api: FastAPI) -> None:
    """Every error leaves as problem+json."""

    @api.exception_handler(CellnetError)
    async def on_cellnet_error(request: Request, error: CellnetError) -> JSONResponse:
        status = next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)
        if status == 500:
            logger.error("%s %s: %s", request.method, request.url.path, error)
        return _problem(status, str(error))

    @api.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> JSONResponse:
        return _problem(error.status_code, error.detail, error.headers)

    @api.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return _problem(422, f"{first['loc'][:2][-1]}: {first['msg']} (seen: {first['input']!r:.80})")

    @api.exception_handler(Exception)
    async def on_fault(request: Request, error: Exception) -> JSONResponse:
        return _problem(500, "the service failed; its log says why")


def _problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    problem = Problem(title=http.HTTPStatus(status).phrase, status=status, detail=detail)
    return JSONResponse(problem.model_dump(), status, headers, media_type="application/problem+json")
