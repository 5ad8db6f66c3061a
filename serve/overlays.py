"""The process that says where: torch, for what an ONNX export does not tell, apart from the one that answers."""

import functools
from typing import TYPE_CHECKING

from cellnet.errors import DataError
from cellnet.images import apart
from cellnet.images.file import ImageFile, Pages
from cellnet.images.pixels import Pixels
from cellnet.prediction.answers import FoundCell
from cellnet.registry.registry import Registry
from serve.logs import set_up_logs
from serve.settings import LogFormat

if TYPE_CHECKING:
    from cellnet.prediction.predictor import Predictor

MODELS = 4
"""Versions that are kept in memory."""


class Overlays:
    """The deployment. It starts light: torch is loaded for the first picture."""

    def __init__(self, *, registry: Registry, threads: int, log_format: LogFormat | None = None) -> None:
        if log_format:
            set_up_logs(log_requests=False, log_format=log_format)
        self._registry = registry
        self._threads = threads
        self._load = functools.lru_cache(MODELS)(self._loaded)

    def draw(
        self,
        image: ImageFile,
        page: Pages | None,
        channel: str | None,
        pixel_um: float | None,
        classifier: str | None,
        regressor: str | None,
    ) -> bytes | DataError:
        """A PNG of an image with what these versions say of it, or what is wrong with the image."""
        try:
            image, image_HW = _decoded(image, page, channel)
            from cellnet.reports.overlays import draw_overlay

            return draw_overlay(
                image_HW,
                pixel_um=pixel_um or image.pixel_um,
                classifier=self._load(classifier) if classifier else None,
                regressor=self._load(regressor) if regressor else None,
            )
        except DataError as error:
            return error

    def find(
        self, image: ImageFile, page: Pages | None, channel: str | None, pixel_um: float | None, regressor: str
    ) -> list[FoundCell] | DataError | None:
        """The cells that a counter found; None where it knows no places, or what is wrong with the image."""
        try:
            image, image_HW = _decoded(image, page, channel)
            from cellnet.prediction.density import find_cells

            return find_cells(self._load(regressor), image_HW, pixel_um or image.pixel_um)[1]
        except DataError as error:
            return error

    def _loaded(self, ref: str) -> "Predictor":
        import torch

        from cellnet.prediction.predictor import Predictor

        torch.set_num_threads(self._threads)
        return Predictor.load(self._registry, ref)


def _decoded(image: ImageFile, page: Pages | None, channel: str | None) -> tuple[ImageFile, Pixels]:
    [image] = apart.opened(image).pages(page, channel)
    return image, apart.decode(image)
