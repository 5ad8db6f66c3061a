"""The Open Inference Protocol V2, for clients of KServe and Triton: every model that is served, by its name.

Beside them there is `cellnet`, which does what /v1/predict does: names the lineage, and counts by that lineage's
counter. A model without a version is its champion.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal, NamedTuple

import numpy as np
from fastapi import Depends, FastAPI, Path, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from cellnet.errors import DataError, NotFoundError
from cellnet.images.file import ImageFile
from cellnet.images.pixels import Pixels
from cellnet.prediction.answers import Prediction
from cellnet.prediction.lineup import Lineup
from cellnet.version import number
from serve.answering import Answerer, How
from serve.http.problems import problems
from serve.http.uploads import read_body
from serve.limits import network_of
from serve.models import Served
from serve.v2.tensors import HEADER, InferenceRequest, InferenceResponse, Tensor, read_request, written

WHOLE: Final = "cellnet"
"""The name of all models together."""
VERSION: Final = number()


class Output(NamedTuple):
    """A tensor of what models say."""

    datatype: Literal["BYTES", "BOOL", "FP64"]
    of: Callable[[Prediction], Any]
    """Its value, or values, for one image; None where there is none."""
    of_a: str
    """Whose it is: the classifier's, a counter's, each model's, or only the whole's."""


OUTPUTS: Final = {
    "lineage": Output("BYTES", lambda said: said.lineage, "classifier"),
    "probabilities": Output("FP64", lambda said: said.probabilities and [*said.probabilities.values()], "classifier"),
    "classes": Output("BYTES", lambda said: said.probabilities and [*said.probabilities], "classifier"),
    "count": Output("FP64", lambda said: said.count, "counter"),
    "count_low": Output("FP64", lambda said: said.count_low, "counter"),
    "count_high": Output("FP64", lambda said: said.count_high, "counter"),
    "unfamiliar": Output("BOOL", lambda said: said.unfamiliar, "model"),
    "lineage_unfamiliar": Output("BOOL", lambda said: said.lineage_unfamiliar, "whole"),
    "count_unfamiliar": Output("BOOL", lambda said: said.count_unfamiliar, "whole"),
    "quality": Output("BYTES", lambda said: " ".join(said.quality or ()) or None, "model"),
    "focus": Output("FP64", lambda said: said.focus, "model"),
    "models": Output("BYTES", lambda said: [said.models.classifier, said.models.regressor], "whole"),
}
LACKING: Final[dict[str, str | bool | None]] = {"BYTES": "", "BOOL": False, "FP64": None}
"""What stands for no value where others have one."""
_LENGTH: Final = {
    "name": HEADER,
    "in": "header",
    "schema": {"type": "integer", "minimum": 0},
    "description": "Bytes of the JSON, where binary data follows it.",
}
_Name = Annotated[str, Path(description="`cellnet` for all models together, or the name of one.", examples=["cellnet"])]
_Version = Annotated[str, Path(description="The number of a version that is served.", examples=["1"])]
_BINARY: Final = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_ASKED: Final = {
    "inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [1, 2, 3], "data": [90, 91, 89, 90, 120, 88]}],
    "outputs": [{"name": "lineage"}, {"name": "count"}],
}
_SAID: Final = {
    "model_name": "cellnet",
    "model_version": VERSION,
    "id": "5f0c1d",
    "parameters": {"models": "classifier@3, regressor@5"},
    "outputs": [
        {"name": "lineage", "datatype": "BYTES", "shape": [1], "data": ["A549"]},
        {"name": "count", "datatype": "FP64", "shape": [1], "data": [66.4]},
    ],
}


class ServerMetadata(BaseModel):
    """What serves."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """An input or output."""

    name: str
    datatype: str
    shape: list[int] = Field(description="-1 where any size will do.")


class ModelMetadata(BaseModel):
    """What a model takes and gives."""

    name: str
    versions: list[str] = Field(description="Those that can be asked for; the first answers where none is.")
    platform: str = Field(description="What runs it.")
    inputs: list[TensorMetadata] = Field(description="One of them is to be given. Pixels may be UINT16 as well.")
    outputs: list[TensorMetadata] = Field(description="One that no image has a value for is left out of an answer.")


class ModelReady(BaseModel):
    """Whether a model answers."""

    name: str
    ready: bool


class IndexEntry(BaseModel):
    """A version that is served, as Triton lists it."""

    name: str
    version: str
    state: str
    reason: str


@dataclass(frozen=True)
class Named:
    """What a client calls a model."""

    name: str
    version: str
    versions: list[str]
    models: Lineup[Served]

    @property
    def outputs(self) -> dict[str, Output]:
        """Those that it gives."""
        given = {"model"} | ({"classifier"} if self.models.classifier else set())
        given |= {"counter"} if self.models.regressor or self.models.by_lineage else set()
        given |= {"whole"} if self.name == WHOLE else set()
        return {name: output for name, output in OUTPUTS.items() if output.of_a in given}

    def metadata(self) -> ModelMetadata:
        """What it takes and gives."""
        classifier = self.models.classifier
        columns = {"probabilities": len(classifier.version.card.classes) if classifier else 0, "models": 2}
        columns["classes"] = columns["probabilities"]
        return ModelMetadata(
            name=self.name,
            versions=self.versions,
            platform=", ".join(sorted({served.engine for served in self.models})),
            inputs=[
                TensorMetadata(name="image", datatype="BYTES", shape=[-1]),
                TensorMetadata(name="pixels", datatype="UINT8", shape=[-1, -1, -1]),
            ],
            outputs=[
                TensorMetadata(
                    name=name, datatype=output.datatype, shape=[-1, columns[name]] if name in columns else [-1]
                )
                for name, output in self.outputs.items()
            ],
        )


def named(answerer: Answerer) -> dict[str, dict[str, Named]]:
    """All that is served, by name and version: champions before challengers, and all of them together."""
    shelf = answerer.shelf
    by_name: dict[str, dict[str, Lineup[Served]]] = {}
    for served in (*shelf.champions, *shelf.challengers):
        by_name.setdefault(served.version.name, {})[str(served.version.number)] = served.alone
    by_name[WHOLE] = {VERSION: shelf.champions}
    return {
        name: {version: Named(name, version, list(versions), models) for version, models in versions.items()}
        for name, versions in by_name.items()
    }


def add_inference(api: FastAPI, answerer: Answerer) -> None:
    """The protocol's routes."""

    @api.get("/v2", summary="The server", responses=problems(401, 503))
    async def server_metadata() -> ServerMetadata:
        """Its name, the protocol's version and the extensions that it knows."""
        return ServerMetadata(name="cellnet", version=VERSION, extensions=["binary_tensor_data"])

    @api.get("/v2/health/live", summary="Whether the server is alive")
    async def server_live() -> dict[str, bool]:
        """True while this process answers at all."""
        return {"live": True}

    @api.get("/v2/health/ready", summary="Whether the server is ready")
    async def server_ready() -> dict[str, bool]:
        """True, since a process that answers has its models in memory."""
        return {"ready": True}

    @api.post("/v2/repository/index", summary="The models, as Triton lists them", responses=problems(401, 503))
    async def repository_index() -> list[IndexEntry]:
        """Every version that is served, and `cellnet`, which is all of them together."""
        return [
            IndexEntry(name=name, version=version, state="READY", reason="")
            for name, versions in named(answerer).items()
            for version in versions
        ]

    async def newest(name: _Name) -> Named:
        return next(iter(_versions(answerer, name).values()))

    async def numbered(name: _Name, version: _Version) -> Named:
        versions = _versions(answerer, name)
        if version not in versions:
            raise NotFoundError(f"{name}: version {version!r:.40} is not served; there is {', '.join(versions)}")
        return versions[version]

    _add_model(api, answerer, "/v2/models/{name}", newest)
    _add_model(api, answerer, "/v2/models/{name}/versions/{version}", numbered)


def _versions(answerer: Answerer, name: str) -> dict[str, Named]:
    by_name = named(answerer)
    if name not in by_name:
        raise NotFoundError(f"no model {name!r:.80} is served; there is {', '.join(by_name)}")
    return by_name[name]


def _add_model(api: FastAPI, answerer: Answerer, path: str, find: Callable[..., Coroutine[Any, Any, Named]]) -> None:
    """The routes of a model, below a path that names it."""
    schema = _inlined(InferenceRequest.model_json_schema())
    answered = {"application/json": {"example": _SAID}, **_BINARY}
    described = {"required": True, "content": {"application/json": {"schema": schema, "example": _ASKED}, **_BINARY}}

    @api.get(path, summary="What a model takes and gives", responses=problems(401, 404, 422, 503))
    async def model_metadata(model: Annotated[Named, Depends(find)]) -> ModelMetadata:
        """Its versions, inputs and outputs. Without a version in the path it is the one that answers."""
        return model.metadata()

    @api.get(f"{path}/ready", summary="Whether a model is ready", responses=problems(401, 404, 422, 503))
    async def model_ready(model: Annotated[Named, Depends(find)]) -> ModelReady:
        """True of every model that is served; another is a problem 404."""
        return ModelReady(name=model.name, ready=True)

    @api.post(
        f"{path}/infer",
        summary="What a model says of images",
        openapi_extra={"requestBody": described, "parameters": [_LENGTH]},
        responses={200: {"content": answered}, **problems(401, 404, 408, 413, 422, 503, 504)},
        response_model=InferenceResponse,
    )
    async def infer(request: Request, model: Annotated[Named, Depends(find)]) -> Response:
        """Files as they are (`image`), or pixels (`pixels`), as JSON or as binary data.

        An image that is not usable is a problem 422, and the others are not answered.
        """
        if (encoding := request.headers.get("content-encoding", "identity")) != "identity":
            raise DataError(f"Content-Encoding {encoding:.20} is not taken here; send the request as it is")
        body = await read_body(request, answerer.limits)
        asked, images = await asyncio.to_thread(read_request, body, request.headers.get(HEADER), answerer.limits)
        wanted = _wanted(asked, model)
        request_id = asked.id or request.state.request_id
        told = asked.parameters
        how = answerer.how(
            request.state.request_id,
            pixel_um=told.pixel_um,
            page=told.page,
            channel=told.channel,
            client=network_of(request.state.client),
        )
        if model.name != WHOLE:
            how = replace(how, models=model.models, shadows=Lineup())
        predictions = await _predict(images, answerer, how)
        request.state.noted = {"images": len(predictions), "models": [served.ref for served in how.models]}
        tensors = [tensor for name in wanted if (tensor := _tensor(name, predictions))]
        binary = {name for name, by in wanted.items() if by}
        refs = sorted({ref for prediction in predictions for ref in prediction.models.refs})
        content, length = written(model.name, model.version, request_id, refs, tensors, binary)
        if length == len(content):
            return Response(content, media_type="application/json")
        return Response(content, media_type="application/octet-stream", headers={HEADER: str(length)})


def _wanted(asked: InferenceRequest, model: Named) -> dict[str, bool]:
    """The outputs that are wanted, and whether as binary data."""
    binary = asked.parameters.binary_data_output
    if not asked.outputs:
        return dict.fromkeys(model.outputs, binary)
    for output in asked.outputs:
        if output.name not in model.outputs:
            raise DataError(f"{model.name} has no output {output.name!r:.40}; there is {', '.join(model.outputs)}")
    return {
        output.name: binary if output.parameters.binary_data is None else output.parameters.binary_data
        for output in asked.outputs
    }


async def _predict(images: list[ImageFile] | list[Pixels], answerer: Answerer, how: How) -> list[Prediction]:
    """What the models say of each image. Raises DataError for the first that is not usable."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_of(f"image {i}", image, answerer, how)) for i, image in enumerate(images, 1)]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    return [task.result() for task in tasks]


async def _of(name: str, image: ImageFile | Pixels, answerer: Answerer, how: How) -> Prediction:
    if not isinstance(image, ImageFile):
        return await answerer.predict_pixels(image, name, how)
    [said] = await answerer.predict(image, how)
    return said


def _tensor(name: str, predictions: list[Prediction]) -> Tensor | None:
    """An output for each image, None where there is none for any; what an image lacks is null, "" or false."""
    datatype, of, _ = OUTPUTS[name]
    values = [of(prediction) for prediction in predictions]
    if all(value is None for value in values):
        return None
    array = np.array(values, object)
    flat = [LACKING[datatype] if value is None else value for value in array.ravel().tolist()]
    return Tensor(name=name, datatype=datatype, shape=list(array.shape), data=flat)


def _inlined(node: Any, defs: dict[str, Any] | None = None) -> Any:
    """A JSON schema without references, which an OpenAPI description would resolve elsewhere."""
    if isinstance(node, list):
        return [_inlined(item, defs) for item in node]
    if not isinstance(node, dict):
        return node
    defs = node.get("$defs", defs)
    whole = {**defs[node["$ref"].rpartition("/")[2]], **node} if defs and "$ref" in node else node
    return {key: _inlined(value, defs) for key, value in whole.items() if key not in ("$defs", "$ref")}
