"""The images of a request, unread, never more of them in memory than the limits allow."""

import re
from collections.abc import AsyncGenerator

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from cellnet.errors import DataError
from cellnet.images.file import ImageFile
from serve.limits import Limits, Share

FIELD = "images"
LABEL = "label"
MAX_NAME = 200


async def read_images(request: Request, limits: Limits) -> list[ImageFile]:
    """The images of a form's `images` fields, or the body itself as one image.

    A body of any type but multipart is taken for an image, since decoding tells better than a header does.
    Raises HTTPException 413 for too much or too many, 503 where all requests hold too much, DataError for none.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        data = await read_body(request, limits)
        if not data:
            raise DataError("the request holds no image; send one as the body, or several as form fields 'images'")
        return [ImageFile(_raw_name(request), data)]
    _check_length(request, limits)
    form = await _read_form(request, limits)
    try:
        return await _read_files(form)
    finally:
        await form.close()


async def read_labelled(request: Request, limits: Limits) -> tuple[ImageFile, str]:
    """The one image of a form, and the text of its field `label`. Raises as `read_images`."""
    _check_length(request, limits)
    form = await _read_form(request, limits)
    try:
        images, label = await _read_files(form), form.get(LABEL)
        if len(images) != 1 or not isinstance(label, str):
            raise DataError(f"a label is of one image: a file in the field '{FIELD}', and JSON in the field '{LABEL}'")
        return images[0], label
    finally:
        await form.close()


async def read_body(request: Request, limits: Limits) -> bytes:
    """The whole body. Raises HTTPException 413 for too much, 503 where all requests hold too much."""
    _check_length(request, limits)
    return b"".join([chunk async for chunk in _bounded(request, limits)])


def _check_length(request: Request, limits: Limits) -> None:
    """Refuse by the header alone, before a byte of the body is read."""
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > limits.request_mb * 1e6:
        raise _too_large(limits)


async def _bounded(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    """The body in chunks, given up once it is over the limit, whatever its header said."""
    seen = 0
    share: Share = request.state.share
    async for chunk in request.stream():
        seen += len(chunk)
        if seen > limits.request_mb * 1e6:
            raise _too_large(limits)
        share.take(len(chunk))
        yield chunk


def _too_large(limits: Limits) -> HTTPException:
    return HTTPException(413, f"the request is over {limits.request_mb:g} MB; send fewer images at a time, or as PNG")


async def _read_form(request: Request, limits: Limits) -> FormData:
    parser = MultiPartParser(request.headers, _bounded(request, limits), max_files=limits.images, max_fields=20)
    parser.spool_max_size = 0  # in memory, which is bounded and counted: no disk that may be full, or read by others
    try:
        return await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise HTTPException(
                413, f"the request holds over {limits.images} images; send at most {limits.images} at a time"
            ) from error
        raise DataError(f"the form is not readable: {error.message.rstrip('.')}") from error
    except UnicodeError as error:  # of a charset that its header names
        raise DataError(f"the form is not readable: {error}"[:200]) from error


async def _read_files(form: FormData) -> list[ImageFile]:
    files = [part for part in form.getlist(FIELD) if isinstance(part, UploadFile)]
    chosen = [part for part in files if part.filename or part.size]  # browsers send an empty part for no choice
    if not chosen:
        others = ", ".join(sorted(set(form.keys()))) or "no fields"
        raise DataError(f"the form holds no files in fields 'images' (seen: {others:.200}); send at least one")
    return [
        ImageFile(_clean(part.filename or "") or f"image {i}", await part.read()) for i, part in enumerate(chosen, 1)
    ]


def _raw_name(request: Request) -> str:
    return _clean(request.query_params.get("name") or request.headers.get("image-name", "")) or "image"


def _clean(name: str) -> str:
    """A name that is safe in a one-line message: printable and short."""
    return re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in name)).strip()[:MAX_NAME]
