"""One model in a process of its own, behind a Ray Serve handle."""

import threading

import numpy as np
import torch
from numpy.typing import NDArray

from cellnet.answers import Answer
from cellnet.errors import DataError
from cellnet.predictor import Predictor
from cellnet.registry import Registry
from serve.schemas import ModelInfo


class Replica:
    """One model version in a process of its own."""

    def __init__(self, *, registry: Registry, ref: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.turn = threading.Lock()  # Serve calls from several threads; each forward pass uses all of `threads`
        self.predictor = Predictor.load(registry, ref)
        self.predictor.predict(np.zeros(self.predictor.card.preprocess.tile_px, np.uint8))  # the first is slow

    def answer(self, image_HW: NDArray[np.uint8] | NDArray[np.uint16], pixel_um: float | None) -> Answer | DataError:
        """What the model says of a frame, or why it cannot use it.

        The error is a value: a frame that is too small is a user's everyday, not a traceback in Serve's log.
        """
        try:
            with self.turn:
                return self.predictor.answer(image_HW, pixel_um=pixel_um)
        except DataError as error:
            return error

    def describe(self) -> ModelInfo:
        """What the model is."""
        card = self.predictor.card
        return ModelInfo(
            ref=self.predictor.ref,
            task=card.task,
            classes=card.classes,
            scores=card.scores,
            bank_digest=card.bank_digest,
            tile_px=card.preprocess.tile_px,
            pixel_um=card.preprocess.pixel_um,
        )
