"""POST /v1/labels: what a person says of an image, written into a bank."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Any, Final, Literal

from fastapi import FastAPI, Query, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cellnet.bank.labels import MOST_POINTS, Cells, Drawn, Name, Pixel, Text, Unusable
from cellnet.errors import DataError
from cellnet.images.file import encode_png
from cellnet.tasks import TASKS, Answer
from serve.answering import Answerer
from serve.haproxy_rules import LABELS
from serve.http.predict import BYTES, Recorded, how_of
from serve.http.problems import problems
from serve.http.uploads import FIELD, LABEL, read_labelled


class SeenAnswer(BaseModel):
    """The answer that a person had before the eyes."""

    versions: list[str] = Field(min_length=1, max_length=4, description="Whose it was, like `classifier@3`.")
    lineage: Name | None = None
    count: Cells | None = None


class Said(BaseModel):
    """What is said of an image; what is left out is not said."""

    model_config = ConfigDict(extra="forbid")

    lineage: Name | None = Field(None, description="A name, or `none of these`.")
    count: Cells | None = Field(None, description="Cells; that of the points, where there are any.")
    points: list[tuple[Pixel, Pixel]] | None = Field(
        None, max_length=MOST_POINTS, description="x and y of every cell, in pixels of the image."
    )
    unusable: Unusable | Literal["usable"] | None = Field(
        None, description="Why it cannot be used; `usable` takes that back."
    )
    accepted: bool = Field(False, description="Whether the answer that was seen is right.")
    seen: SeenAnswer | None = None
    drawn: Drawn | None = Field(
        None, description="How the image came to be labelled, where it was suggested: scores tell such frames apart."
    )
    by: Text = Field("", description="Who says it; of a key with a name, it is that name.")
    why: Text = ""
    plate: Text = Field("", description="Plate and well are the group of an image that the bank lacks.")
    well: Text = ""
    day: date | None = Field(None, description="On which it was recorded: its batch.")


class Other(BaseModel):
    """What somebody else says of the same image."""

    by: str
    at: datetime | None
    lineage: str | None
    count: float | None
    unusable: str | None


class Known(BaseModel):
    """What people said of an image."""

    frame: str = Field(description="sha256 of the pixels, by which the bank knows the image.")
    others: list[Other] = Field(description="What each said last and did not take back, the newest at the end.")


class Labelled(BaseModel):
    """What came of a label."""

    frame: str = Field(description="sha256 of the pixels, by which the bank knows the image.")
    lineage: str | None = Field(None, description="That the bank says of it by now.")
    batch: str | None = Field(None, description="What it was recorded with, as the bank knows it.")
    otherwise: dict[Answer, bool] = Field(
        {},
        description="Whether what is said differs from what was seen: another lineage, or a count that is further off "
        "than a tenth and a cell.",
    )
    entry: int = Field(description="The entry of the bank's log, by which the label can be taken back.")
    added: bool = Field(description="Whether the bank lacked the image, and has it since.")
    others: list[Other] = Field(description="What others said last of it, and did not take back: both are kept.")


@dataclass(frozen=True)
class Taken:
    """An image and what is said of it, on its way to the bank."""

    name: str
    """Of the image, as it was sent."""
    png: bytes
    """Its grey values."""
    pixel_um: float | None
    said: Said
    by: str
    """The name of the key; empty where it has none."""


Correct = Callable[[Taken], Awaitable[Labelled]]
"""Writes it into the bank."""
Recall = Callable[[str], Awaitable[Known]]
"""What the bank has of an image, by its sha256."""

MOST_NAMES: Final = 200
"""Lineages and batches that have figures of their own; those that come after are counted together."""
OTHER: Final = "other"

_TEXT: Final = {"type": "string", "description": "JSON: what is said of it.", "contentMediaType": "application/json"}
_FORM: Final[dict[str, Any]] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {FIELD: BYTES, LABEL: _TEXT},
                "required": [FIELD, LABEL],
            },
            "encoding": {LABEL: {"contentType": "application/json"}},
        }
    },
}


def add_labels(api: FastAPI, answerer: Answerer, correct: Correct, recall: Recall) -> None:
    named: set[str] = set()
    answerer.meters.requests.labels(LABELS, "507")  # from 0 on, so that the first one is seen

    @api.post(
        LABELS,
        summary="What a person says of an image, for the bank",
        responses=problems(401, 403, 408, 413, 422, 429, 503, 504, 507),
        openapi_extra={"requestBody": _FORM},
    )
    async def label(request: Request, asked: Annotated[Recorded, Query()]) -> Labelled:
        """Send a form: the image in `images`, and in `label` JSON of what is said of it (`Said`).

        The image is taken into the bank where that lacks it. Nothing is written over: what is said last counts, and
        what others said stays beside it.
        """
        image, text = await read_labelled(request, answerer.limits)
        try:
            said = Said.model_validate_json(text)
        except ValidationError as error:
            [first, *_] = error.errors(include_url=False, include_input=False)
            where = f"{first['loc'][0]} of the label" if first["loc"] else "the label"
            raise DataError(f"{image.name}: {where}: {first['msg']}") from error
        how = how_of(request, answerer, asked, pixel_um=asked.pixel_um)
        image_HW, pixel_um = await answerer.pixels(image, how)
        png = await asyncio.to_thread(encode_png, image_HW)
        done = await correct(Taken(image.name, png, pixel_um, said, request.state.key.name))
        _count(answerer, said, done, named)
        return done

    @api.get(LABELS, summary="What people said of an image", responses=problems(401, 403, 422, 503, 507))
    async def known(frame: Annotated[str, Query(pattern="^[0-9a-f]{64}$")]) -> Known:
        """`frame` is the sha256 of its pixels, as `/v1/pixels` and the answer of a label tell it.

        Of each person comes what they said last; of an image that the bank lacks, nothing.
        """
        return await recall(frame)


def _count(answerer: Answerer, said: Said, done: Labelled, named: set[str]) -> None:
    """Whether a person said otherwise than the models whose answer was seen, of those that are served."""
    versions = said.seen.versions if said.seen else []
    models = (*answerer.shelf.champions, *answerer.shelf.challengers)
    tasks = {served.ref: TASKS[served.version.card.task] for served in models if served.ref in versions}
    for ref, task in tasks.items():
        if (otherwise := done.otherwise.get(task.answer)) is not None:
            of = [_bounded(name or "", named) for name in (done.lineage, done.batch)]
            answerer.meters.judged.labels(ref, task.answer, *of, str(otherwise).lower()).inc()


def _bounded(name: str, named: set[str]) -> str:
    """A name for the figures, which know so many and no more."""
    if len(named) < MOST_NAMES:
        named.add(name)
    return name if name in named else OTHER
