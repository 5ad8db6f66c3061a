"""POST /v1/predict."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any, Final, Literal

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field, ValidationError

from cellnet.errors import DataError
from cellnet.images.file import ImageFile
from cellnet.prediction.answers import FoundCell, ModelRefs, Prediction, Timing
from cellnet.prediction.tables import csv_lines, row_of
from serve.answering import Answerer, How
from serve.http.problems import problems
from serve.http.schemas import Predictions
from serve.http.uploads import FIELD, read_images
from serve.limits import network_of


class Chosen(BaseModel):
    """What is taken of a file."""

    page: Literal["middle", "all"] | Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="What to take of a file of several pages: a number from 1, the middle one, or all of them; if left "
        "out, the middle of a stack.",
        examples=["middle"],
    )
    channel: str | None = Field(
        None,
        max_length=200,
        description="Which channel of a file of several, by name or by number from 1; if left out, the only one of "
        "transmitted light. Where nobody can tell, the problem lists them in `channels`.",
        examples=["Phase contrast"],
    )


class Recorded(Chosen):
    """What is known of it besides."""

    pixel_um: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Micrometres a pixel; if left out, what an OME-TIFF itself says.",
        examples=[0.65],
    )


class Asked(Recorded):
    """What is asked of the images of a request."""

    format: Literal["json", "csv"] = Field("json", description="`csv` is for spreadsheets: a row an image.")
    overlay: bool = Field(
        False, description="A picture (PNG) of one image instead: what was counted where, and what was looked at."
    )
    points: bool = Field(
        False,
        description="The places of the cells too, with how sure the counter is of each; of counters that know places, "
        "and images of one page.",
    )
    thumbnail: bool = Field(
        False,
        description="A small picture with each prediction, as a data URL: of the plane that was counted, with a "
        "contrast that a person sees.",
    )


class Straight(APIRoute):
    """A route with one argument besides the request, `Asked`: FastAPI's way to arguments takes 3 % of an answer."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request."""

        async def handle(request: Request) -> Response:
            try:
                asked = Asked.model_validate(dict(request.query_params))
            except ValidationError as error:
                faults = [fault | {"loc": ("query", *fault["loc"])} for fault in error.errors()]
                raise RequestValidationError(faults) from error
            answer: Response = await self.endpoint(request, asked)
            return answer

        return handle


BYTES: Final = {"type": "string", "format": "binary"}
BODY: Final = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {"type": "object", "properties": {FIELD: {"type": "array", "items": BYTES}}, "required": [FIELD]}
        },
        "image/*": {"schema": BYTES},
        "application/octet-stream": {"schema": BYTES},
    },
}
NAME: Final = {
    "name": "name",
    "in": "query",
    "schema": {"type": "string"},
    "example": "B03_f1.tif",
    "description": "Name of an image that is the body itself; the header Image-Name does the same.",
}
_EXAMPLE: Final = Predictions(
    predictions=[
        Prediction(
            image="B03_f1.tif",
            lineage="A549",
            probabilities={"A549": 0.93, "PC3": 0.07},
            count=66.4,
            count_low=43.6,
            count_high=89.3,
            interval_level=0.9,
            unfamiliar=False,
            lineage_unfamiliar=False,
            count_unfamiliar=False,
            quality=[],
            focus=0.97,
            tiles=25,
            magnification="matched",
            models=ModelRefs(classifier="classifier@3", regressor="regressor@5"),
            timing=Timing(read_ms=12.1, models_ms=80.2, total_ms=92.3),
        )
    ]
).model_dump()
_ANSWERS: Final = {
    200: {
        "content": {
            "application/json": {"example": _EXAMPLE},
            "text/csv": {"schema": {"type": "string"}},
            "image/png": {"schema": BYTES},
        }
    },
    **problems(401, 408, 413, 422, 503, 504),
}

Draw = Callable[[ImageFile, How, Prediction], Awaitable[bytes]]
"""A picture of an image and its prediction."""
Find = Callable[[ImageFile, How, Prediction], Awaitable[list[FoundCell] | None]]
"""The cells in an image that was counted."""


def how_of(
    request: Request, answerer: Answerer, asked: Chosen, *, pixel_um: float | None = None, thumbnails: bool = False
) -> How:
    """What is the same for every image of a request."""
    return answerer.how(
        request.state.request_id,
        pixel_um=pixel_um,
        page=asked.page,
        channel=asked.channel,
        thumbnails=thumbnails,
        client=network_of(request.state.client),
    )


def add_predict(api: FastAPI, answerer: Answerer, draw: Draw | None, find: Find | None) -> None:
    async def predict(request: Request, asked: Annotated[Asked, Query()]) -> Response:
        """Send one image as the body, or several as a form's fields `images`: PNG, JPEG, TIFF or BMP.

        A bad image alone is a problem 422; among others it is an entry with `error`, and the others are answered.
        """
        thumbnails = asked.thumbnail and asked.format == "json" and not asked.overlay
        how = how_of(request, answerer, asked, pixel_um=asked.pixel_um, thumbnails=thumbnails)
        images = await read_images(request, answerer.limits)
        if asked.overlay:
            return await _drawn(images, how, answerer, draw)
        if len(images) == 1:
            predictions = await answerer.predict(images[0], how)
        else:
            answered = await asyncio.gather(*(answerer.predict_or_say(image, how) for image in images))
            predictions = [prediction for pages in answered for prediction in pages]
        if asked.points:
            predictions = await _with_points(images, how, predictions, find)
        bad = sum(prediction.error is not None for prediction in predictions)
        request.state.noted = {"images": len(predictions), "bad": bad, "models": [served.ref for served in how.models]}
        if asked.format == "csv":
            return PlainTextResponse(_csv(predictions), media_type="text/csv")
        return Response(Predictions(predictions=predictions).model_dump_json(), media_type="application/json")

    api.router.add_api_route(
        "/v1/predict",
        predict,
        methods=["POST"],
        openapi_extra={"requestBody": BODY, "parameters": [NAME]},
        summary="Lineage and count of images",
        responses=_ANSWERS,
        response_model=Predictions,
        route_class_override=Straight,
    )


def _csv(predictions: list[Prediction]) -> str:
    return "".join(csv_lines(row_of(prediction) for prediction in predictions))


async def _with_points(
    images: list[ImageFile], how: How, predictions: list[Prediction], find: Find | None
) -> list[Prediction]:
    """The predictions with the cells that were found, one image after the other."""
    if find is None:
        raise DataError(
            "this service does not say where cells are; start it without --no-overlays, or leave points out"
        )
    if len(predictions) != len(images):
        raise DataError("points are of images of one page; choose: page, a number")
    told = []
    for image, prediction in zip(images, predictions, strict=True):
        counted = prediction.error is None and prediction.models.regressor is not None
        told.append(prediction.model_copy(update={"points": await find(image, how, prediction)} if counted else {}))
    return told


async def _drawn(images: list[ImageFile], how: How, answerer: Answerer, draw: Draw | None) -> Response:
    """The picture of the one image, with the versions that it shows in the header Cellnet-Models."""
    if draw is None:
        raise DataError("this service draws no overlays; start it without --no-overlays, or leave overlay out")
    if len(images) != 1:
        raise DataError(f"an overlay is of one image, and the request holds {len(images)}; send one at a time")
    pages = await answerer.predict(images[0], how)
    if len(pages) != 1:
        raise DataError(f"{images[0].name}: an overlay is of one page, not of {len(pages)}; choose: page, a number")
    [prediction] = pages
    picture = await draw(images[0], how, prediction)
    return Response(picture, media_type="image/png", headers={"Cellnet-Models": ", ".join(prediction.models.refs)})
