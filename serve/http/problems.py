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
    content = {"application/problem+json": {"schema": Problem.model_json_schema()}}
    return {status: {"description": http.HTTPStatus(status).phrase, "content": content} for status in statuses}


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
        return problem(error.status_code, error.detail, error.headers, _id(request))

    @api.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        detail = f"{first['loc'][:2][-1]}: {first['msg']} (seen: {first['input']!r:.80})"
        return problem(422, detail, request_id=_id(request))


def _id(request: Request) -> str | None:
    return getattr(request.state, "request_id", None)
