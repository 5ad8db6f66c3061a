"""POST /v1/pixels."""

from typing import Annotated, Final

from fastapi import FastAPI, Query, Request
from fastapi.responses import Response

from cellnet.bank.frames import digest_of_pixels
from cellnet.errors import DataError
from serve.answering import Answerer
from serve.http.predict import BODY, BYTES, NAME, Chosen, how_of
from serve.http.problems import problems
from serve.http.uploads import read_images

PIXELS: Final = ("Cellnet-Shape", "Cellnet-Bits", "Cellnet-Sha256")
"""Headers of the answer: height and width, 8 or 16 bits a grey value, and what banks know the frame by."""
_ANSWERS: Final = {
    200: {"content": {"application/octet-stream": {"schema": BYTES}}},
    **problems(401, 408, 413, 422, 503, 504),
}


def add_pixels(api: FastAPI, answerer: Answerer) -> None:
    async def pixels(request: Request, asked: Annotated[Chosen, Query()]) -> Response:
        """Send one image as the body; back come the grey values that are counted, at full depth.

        They come row by row, in 8 or 16 bits (little-endian), as the headers Cellnet-Bits and Cellnet-Shape (height,
        width) say. Cellnet-Sha256 is what banks know the frame by.
        """
        how = how_of(request, answerer, asked)
        images = await read_images(request, answerer.limits)
        if len(images) != 1:
            raise DataError(f"the request holds {len(images)} images; send one at a time")
        image_HW, _ = await answerer.pixels(images[0], how)
        height, width = image_HW.shape
        return Response(
            image_HW.astype(image_HW.dtype.newbyteorder("<"), copy=False).tobytes(),
            media_type="application/octet-stream",
            headers=dict(
                zip(PIXELS, (f"{height}, {width}", str(8 * image_HW.itemsize), digest_of_pixels(image_HW)), strict=True)
            ),
        )

    api.router.add_api_route(
        "/v1/pixels",
        pixels,
        methods=["POST"],
        openapi_extra={"requestBody": BODY, "parameters": [NAME]},
        summary="Grey values of an image",
        responses=_ANSWERS,
        response_class=Response,
    )
