"""Images and answers as the tensors of the Open Inference Protocol V2: its JSON, and its extension for binary data.

https://github.com/kserve/open-inference-protocol
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

import base64
import json
import math
import re
import string
import struct
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeVar

import numpy as np
from pydantic import AfterValidator, BaseModel, FailFast, Field, ValidationError
from starlette.exceptions import HTTPException

from cellnet.errors import DataError
from cellnet.images.file import ImageFile
from cellnet.images.pixels import Pixels
from serve.limits import Limits

Item = TypeVar("Item")

HEADER: Final = "Inference-Header-Content-Length"
"""Bytes of the JSON, where binary data follows it."""
JSON_VALUES: Final = 1_000_000
"""In the JSON of a request: each takes many times more memory than in the request."""


def _encoded(text: str) -> str:
    text.encode()  # JSON may escape halves of characters, which no answer can repeat
    return text


Text = Annotated[str, AfterValidator(_encoded)]
Few = Annotated[list[Item], FailFast()]
Side = Annotated[int, Field(ge=1, lt=2**31)]


class RequestParameters(BaseModel):
    """What holds for a whole request; others that clients send are passed over."""

    pixel_um: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="Micrometres a pixel.")
    page: Annotated[int, Field(ge=1)] | Literal["middle"] | None = Field(
        default=None, description="What to take of files of several pages: a number from 1, or the middle one."
    )
    channel: Annotated[Text, Field(max_length=200)] | None = Field(
        default=None, description="Which channel of files of several, by name or by number from 1."
    )
    binary_data_output: bool = Field(default=False, description="Whether outputs are binary data.")


class InputParameters(BaseModel):
    """Where the data of an input is."""

    binary_data_size: int | None = Field(default=None, ge=0, description="Its bytes, where it follows the JSON.")


class OutputParameters(BaseModel):
    """How an output is wanted."""

    binary_data: bool | None = Field(default=None, description="Whether it is binary data; else as the request says.")


class RequestInput(BaseModel):
    """Images."""

    name: Literal["image", "pixels"] = Field(description="Whole files, or grey pixels.")
    datatype: Literal["BYTES", "UINT8", "UINT16"] = Field(description="BYTES for files; else for pixels.")
    shape: Few[Side] = Field(
        min_length=1, max_length=4, description="[N] files; [N, H, W], [H, W], [N, 1, H, W] or [N, H, W, 1] pixels."
    )
    parameters: InputParameters = InputParameters()
    data: list[Any] | None = Field(default=None, description="Base64 of each file, or pixels; nested or flat.")


class RequestOutput(BaseModel):
    """An output that is wanted."""

    name: Text
    parameters: OutputParameters = OutputParameters()


class InferenceRequest(BaseModel):
    """What is asked."""

    id: Text | None = Field(default=None, description="Comes back with the answer.")
    parameters: RequestParameters = RequestParameters()
    inputs: Few[RequestInput] = Field(min_length=1, max_length=1, description="One: `image`, or `pixels`.")
    outputs: Few[RequestOutput] = Field(default=[], max_length=16, description="Those wanted; all if left out.")


class Tensor(BaseModel):
    """An output: what a model says of each image."""

    name: str
    datatype: Literal["BYTES", "BOOL", "FP64"]
    shape: list[int]
    parameters: dict[str, int] | None = Field(default=None, description="`binary_data_size`, of binary data.")
    data: list[str | bool | float | None] | None = Field(default=None, description="Flat; null where there is none.")


class InferenceResponse(BaseModel):
    """What a model says."""

    model_name: str
    model_version: str
    id: str = Field(description="The request's own, else what the service's log calls it.")
    parameters: dict[str, str] = Field(description="`models`: the versions that answered.")
    outputs: list[Tensor]


class Read(NamedTuple):
    """A request and its images."""

    asked: InferenceRequest
    images: list[ImageFile] | list[Pixels]


def read_request(body: bytes, json_length: str | None, limits: Limits) -> Read:
    """What a body asks of which images; `json_length` is what its header says, if it has one.

    Raises DataError for what is not of the protocol, HTTPException 413 for too many images.
    """
    text, rest = _split(body, json_length)
    asked = _parsed(text)
    tensor, size = asked.inputs[0], asked.inputs[0].parameters.binary_data_size
    if (tensor.data is None) == (size is None):
        raise DataError(f"{tensor.name}: give either data, or binary data and its binary_data_size")
    if len(rest) != (size or 0):
        raise DataError(f"{tensor.name}: {len(rest)} bytes of binary data came, not {size or 0} as the JSON says")
    if (tensor.name == "image") != (tensor.datatype == "BYTES"):
        raise DataError(f"{tensor.name}: {tensor.datatype} is not its datatype; image is BYTES, pixels UINT8 or UINT16")
    number_n, *size_px = _sizes(tensor)
    if number_n > limits.images:
        raise HTTPException(413, f"the request holds over {limits.images} images; send at most so many at a time")
    if math.prod(size_px) > limits.megapixels * 1e6:
        raise DataError(
            f"pixels: {math.prod(size_px) / 1e6:.1f} megapixels are more than the {limits.megapixels:g} that are taken "
            "here; cut the image first"
        )
    return Read(asked, _frames(tensor, rest, number_n, size_px) if size_px else _files(tensor, rest, number_n))


def written(
    name: str, version: str, request_id: str, refs: list[str], outputs: list[Tensor], binary: set[str]
) -> tuple[bytes, int]:
    """A response's body, and the bytes of its JSON; the outputs named in `binary` follow that.

    `refs`: the versions that answered.
    """
    parts = []
    for tensor in outputs:
        if tensor.name in binary:
            parts.append(_packed(tensor))
            tensor.parameters, tensor.data = {"binary_data_size": len(parts[-1])}, None
    models = {"models": ", ".join(refs)}
    response = InferenceResponse(
        model_name=name, model_version=version, id=request_id, parameters=models, outputs=outputs
    )
    text = response.model_dump_json(exclude_none=True).encode()
    return b"".join([text, *parts]), len(text)


def _split(body: bytes, json_length: str | None) -> tuple[bytes, memoryview]:
    """The JSON, and what follows it."""
    if json_length is None:
        return body, memoryview(b"")
    if not re.fullmatch("[0-9]{1,12}", json_length) or int(json_length) > len(body):
        raise DataError(f"{HEADER} is {json_length:.20}, not a number of the {len(body)} bytes that came")
    return body[: int(json_length)], memoryview(body)[int(json_length) :]


def _parsed(text: bytes) -> InferenceRequest:
    if sum(text.count(sign) for sign in (b",", b"[", b"{")) > JSON_VALUES:
        raise DataError(f"the JSON holds over {JSON_VALUES} values; send pixels as binary data, or files as image")
    try:
        return InferenceRequest.model_validate(json.loads(text))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        places = [str(part) for part in first["loc"] if re.fullmatch(r"\w+", str(part))]  # others name types
        raise DataError(f"{'.'.join(places) or 'the JSON'}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"the request is not JSON ({error!s:.100})") from error


def _sizes(tensor: RequestInput) -> list[int]:
    """How many files, or how many frames and their height and width."""
    match tensor.datatype, tensor.shape:
        case "BYTES", [number_n]:
            return [number_n]
        case "UINT8" | "UINT16", [height, width]:
            return [1, height, width]
        case "UINT8" | "UINT16", [number_n, height, width] | [number_n, 1, height, width] | [
            number_n,
            height,
            width,
            1,
        ]:
            return [number_n, height, width]
    raise DataError(
        f"{tensor.name}: the shape {tensor.shape} is not [N] of files, or [N, H, W], [H, W], [N, 1, H, W] or "
        "[N, H, W, 1] of grey pixels"
    )


def _files(tensor: RequestInput, rest: memoryview, number_n: int) -> list[ImageFile]:
    if tensor.data is not None:
        return [_of_base64(text, i) for i, text in enumerate(_flat(tensor, number_n, str), 1)]
    files: list[ImageFile] = []
    start = 0
    while start < len(rest) and len(files) < number_n:
        if start + 4 > len(rest):
            break
        end = start + 4 + struct.unpack_from("<I", rest, start)[0]
        files.append(ImageFile(f"image {len(files) + 1}", bytes(rest[start + 4 : end])))
        start = end
    if len(files) != number_n or start != len(rest):
        raise DataError(
            f"image: its {len(rest)} bytes of binary data are not {number_n} files with the length of each before it "
            "(4 bytes, little-endian)"
        )
    return files


def _of_base64(text: str, number: int) -> ImageFile:
    try:
        packed = text.encode("ascii").translate(None, string.whitespace.encode())
        return ImageFile(f"image {number}", base64.b64decode(packed, validate=True))
    except ValueError as error:
        raise DataError(f"image {number}: not base64 ({error}); in JSON a file is base64") from error


def _frames(tensor: RequestInput, rest: memoryview, number_n: int, size_px: list[int]) -> list[Pixels]:
    dtype = np.dtype(np.uint8 if tensor.datatype == "UINT8" else "<u2")
    pixels_n = math.prod(size_px) * number_n
    if tensor.data is not None:
        try:
            flat = np.array(_flat(tensor, pixels_n, int), dtype)
        except OverflowError as error:
            raise DataError(f"pixels: a value is not of {tensor.datatype}") from error
    elif len(rest) != pixels_n * dtype.itemsize:
        raise DataError(
            f"pixels: {len(rest)} bytes of binary data are not the {pixels_n * dtype.itemsize} of {tensor.datatype} "
            f"{tensor.shape}"
        )
    else:
        flat = np.require(np.frombuffer(rest, dtype), requirements="A")  # the JSON before it may have any length
    frames = list(flat.reshape(number_n, *size_px))
    for i, image_HW in enumerate(frames, 1):
        if image_HW.min() == image_HW.max():
            raise DataError(f"image {i}: blank, every pixel has the value {image_HW.flat[0]}")
    return frames


def _flat(tensor: RequestInput, number: int, kind: type[Item]) -> list[Item]:
    """The values of an input that is in the JSON, be they nested or not."""
    values = np.array(tensor.data, object).ravel().tolist()
    if len(values) != number or not all(type(value) is kind for value in values):
        what = "whole numbers" if kind is int else "texts"
        raise DataError(f"{tensor.name}: its data is not the {number} {what} of the shape {tensor.shape}")
    return values


def _packed(tensor: Tensor) -> bytes:
    values = tensor.data or []
    if tensor.datatype == "BYTES":
        encoded = [str(value).encode() for value in values]
        return b"".join(struct.pack("<I", len(text)) + text for text in encoded)
    return np.array(values, "<f8" if tensor.datatype == "FP64" else np.bool_).tobytes()
