"""The process that speaks HTTP: the API over the handles of the models. It never loads torch, and so starts fast."""

import numpy as np
from fastapi import FastAPI
from numpy.typing import NDArray
from ray.serve.handle import DeploymentHandle

from cellnet.answers import Answer
from cellnet.errors import DataError
from serve.api import make_api
from serve.schemas import ModelInfo
from serve.uploads import Limits


class Remote:
    """A model behind a Serve handle, as the API sees it."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self.handle = handle

    async def answer(self, image_HW: NDArray[np.uint8] | NDArray[np.uint16], pixel_um: float | None) -> Answer:
        """What it says of a frame. Raises DataError for a frame it cannot use."""
        answer: Answer | DataError = await self.handle.answer.remote(image_HW, pixel_um)
        if isinstance(answer, DataError):
            raise answer
        return answer

    async def describe(self) -> ModelInfo:
        """What it is."""
        info: ModelInfo = await self.handle.describe.remote()
        return info


class Api:
    """The HTTP interface in front of the models' handles."""

    def __init__(self, models: list[DeploymentHandle], limits: Limits) -> None:
        self.models = [Remote(handle) for handle in models]
        self.limits = limits

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The FastAPI application, made in the replica."""
        return make_api(self.models, self.limits)
