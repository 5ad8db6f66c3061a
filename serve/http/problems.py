"""Errors as they leave the service: RFC 9457, `application/problem+json`."""

import http
import logging
from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from cellnet.errors import CellnetError, ConflictError, DataError, NotFoundError, UnavailableError, plain
from cellnet.images.channels import channels_of
from serve.http.schemas import Problem

log = logging.getLogger(__name__)

STATUS: Final[dict[type[CellnetError], int]] = {
    DataError: 422,
    NotFoundError: 404,
    ConflictError: 409,
    UnavailableError: 503,
}
WHY: Final = {
    401: ("No API key, or a wrong one.", "this service asks for an API key: Authorization: Bearer KEY"),
    403: ("The API key may not do this.", "this API key may not label; its line needs the scope: NAME label KEY"),
    404: ("Nothing of this name is served.", "no model 'counter' is served; there is classifier, regressor, cellnet"),
    408: ("It arrives too slowly.", "the request did not arrive within 60 s; send fewer images at a time"),
    413: ("Too large, or too many images.", "the request is over 64 MB; send fewer images at a time, or as PNG"),
    422: ("An image or a parameter is not usable.", "a.png: blank, every pixel has the value 7"),
    429: ("Its share is used up.", "the key ada may write 10,000 labels or 10,000 MB a day; come again tomorrow (UTC)"),
    503: ("Busy; `Retry-After` says when to come again.", "the service is busy with 128 requests; try again in 1 s"),
    504: ("The answer takes too long.", "the answer took longer than 60 s; send fewer images at a time, or try again"),
    507: ("The bank cannot be written to.", "the bank takes no corrections now: s3://lab/bank: access denied"),
}
"""What a status means, and a detail that it may come with."""


def problem(
    status: int,
    detail: str,
    headers: Mapping[str, str] | None = None,
    request_id: str | None = None,
    channels: list[str] | None = None,
) -> JSONResponse:
    """The answer that says what is wrong; `channels` are those to choose from, where that is it."""
    title = http.HTTPStatus(status).phrase
    body = Problem(title=title, status=status, detail=detail, error=detail, request_id=request_id, channels=channels)
    return JSONResponse(
        body.model_dump(exclude=None if channels else {"channels"}),
        status,
        headers,
        media_type="application/problem+json",
    )


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route may answer besides, for its description."""
    return {status: _described(status) for status in statuses}


def _described(status: int) -> dict[str, Any]:
    why, detail = WHY[status]
    title = http.HTTPStatus(status).phrase
    example = Problem(title=title, status=status, detail=detail, error=detail, request_id="5f0c1d")
    content = {"schema": Problem.model_json_schema(), "example": example.model_dump(exclude={"channels"})}
    return {"description": f"{title}. {why}", "content": {"application/problem+json": content}}


def add_problems(api: FastAPI) -> None:
    """Have every error of the application leave as a problem."""

    @api.exception_handler(CellnetError)
    async def on_cellnet_error(request: Request, error: CellnetError) -> JSONResponse:
        status = next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)
        if status >= 500:
            log.error("%s", plain(f"{request.method} {request.url.path}: {error}"))
        return problem(status, str(error), request_id=_id(request), channels=channels_of(error))

    @api.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, _detail(request, error), error.headers, _id(request))

    @api.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        detail = f"{first['loc'][:2][-1]}: {first['msg']} (seen: {first['input']!r:.80})"
        return problem(422, detail, request_id=_id(request))


def _detail(request: Request, error: HTTPException) -> str:
    """What is wrong; of a path or method that no route has, where routes are described."""
    if error.detail != http.HTTPStatus(error.status_code).phrase:
        return error.detail
    path = plain(request.url.path)[:80]
    if error.status_code == 405 and (methods := (error.headers or {}).get("Allow")):
        return f"{path} takes {methods}, not {request.method}; see /docs"
    return f"there is nothing at {path}; see /docs" if error.status_code == 404 else error.detail


def _id(request: Request) -> str | None:
    return getattr(request.state, "request_id", None)
