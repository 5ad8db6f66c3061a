"""What surrounds a published network when it answers: frames cut into its tiles, its outputs made into answers.

The same whatever runs the network: `predictor` (torch) or `engines` (its ONNX export). Free of torch.
"""

import abc
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cellnet.certainty.calibration import Calibration
from cellnet.certainty.familiarity import FALSE_RATE, FAMILIARITY, Familiarity, grey_features
from cellnet.config.bank import Intensity
from cellnet.config.choices import NETWORK_PX
from cellnet.config.train import Preprocess
from cellnet.errors import IntegrityError
from cellnet.images.pixels import Pixels
from cellnet.images.quality import Measures, flags_of, measure
from cellnet.images.scale import frame_at_scale, rescale
from cellnet.images.tiles import Box, cut, to_network_size
from cellnet.prediction.answers import Answer, Magnification
from cellnet.registry.records import Card, ModelVersion
from cellnet.registry.registry import Registry
from cellnet.tasks import Task

BATCH = 64
"""Tiles that a network sees at a time, at most."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A frame in tiles."""

    tiles: list[NDArray[np.uint8]]
    """Of 200×200 pixels."""
    boxes: list[Box]
    """Their places, in pixels of the frame as the network sees it."""
    factor: float
    """By how much the frame was resized before it was cut."""
    magnification: Magnification
    """`matched` or `rescaled` to the training frames' pixel size; `assumed` to be it where it is not known."""
    image_HW: Pixels
    """The frame as recorded."""

    @functools.cached_property
    def measures(self) -> Measures:
        """Of the frame as recorded, but its focus at the magnification of the training frames.

        None is told of the focus of a frame that was enlarged: fine structure is not there.
        """
        measured = measure(self.image_HW)
        if self.factor < 1:
            return replace(measured, focus=measure(rescale(self.image_HW, self.factor)).focus)
        return measured if self.factor == 1 else replace(measured, focus=None)

    @functools.cached_property
    def grey_NG(self) -> NDArray[np.float32]:  # noqa: N802 - the shape is part of the name
        """What `cellnet.certainty.familiarity` says of the tiles' grey values."""
        return grey_features(self.tiles)


@dataclass(frozen=True, kw_only=True)
class FrameOutputs:
    """The outputs of a network for the tiles of one frame, and what they come to for the whole of it."""

    magnification: Magnification
    boxes: list[Box]
    """The tiles, in pixels of the frame as the network saw it."""
    tile_outputs: NDArray[np.float32]
    """Probabilities (N, K) or counts (N,) of the tiles."""
    factor: float
    """By how much the frame was resized before it was cut."""
    features_ND: NDArray[np.float32] | None = None
    """What describes the tiles to `cellnet.certainty.familiarity`, where that was asked for."""
    strangeness_N: NDArray[np.float64] | None = None
    """How unlike the training tiles each tile is, above 1 too much so; None where the model cannot tell."""

    @property
    def weights_N(self) -> NDArray[np.float64]:  # noqa: N802 - the shape is part of the name
        """Each tile's weight in the frame."""
        return np.array([box.weight for box in self.boxes])

    @property
    def count(self) -> float:
        """Cells in the whole frame, of a counter."""
        return float((self.weights_N * self.tile_outputs).sum())

    @property
    def probability_K(self) -> NDArray[np.float64]:  # noqa: N802 - the shape is part of the name
        """Probability of each lineage, of a classifier: the tiles' mean."""
        pooled: NDArray[np.float64] = np.average(self.tile_outputs, axis=0, weights=self.weights_N)
        return pooled

    @functools.cached_property
    def strangeness(self) -> float | None:
        """How unlike the training frames this one is, above 1 too much so; None where the model cannot tell."""
        return None if self.strangeness_N is None else float(np.median(self.strangeness_N))

    @property
    def unfamiliar(self) -> bool | None:
        """Whether it is too much so."""
        return None if self.strangeness is None else self.strangeness > 1


class FrameModel(abc.ABC):
    """One model version that can answer; a subclass runs its network."""

    def __init__(self, ref: str, card: Card, familiarity: Familiarity | None = None) -> None:
        self.ref = ref
        self.card = card
        self.familiarity = familiarity

    @abc.abstractmethod
    def look(
        self, tiles: Sequence[NDArray[np.uint8]], *, with_features: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Calibrated probabilities (N, K) or counts (N,) of 200×200 tiles, and if asked for features (N, C)."""

    @property
    def task(self) -> Task:
        """What the model does."""
        return self.card.task

    @property
    def calibration(self) -> Calibration:
        """What the test split, or counted frames, said of its sureness; of one that was never calibrated, nothing."""
        return self.card.calibration or Calibration(tiles=0, frames=0)

    @property
    def cuts_by(self) -> tuple[tuple[int, int], float | None, Intensity]:
        """What decides how a frame is cut: models that agree in it see the same tiles."""
        preprocess = self.card.preprocess
        return preprocess.tile_px, preprocess.pixel_um, preprocess.intensity

    def predict(
        self,
        image_HW: Pixels,
        *,
        pixel_um: float | None = None,
        with_features: bool = False,
    ) -> FrameOutputs:
        """The network's outputs for a frame of any size not smaller than a tile.

        The frame is brought to the training frames' magnification when both pixel sizes are known. Raises
        DataError for a frame smaller than a tile, or of a magnification too far from the training frames'.
        """
        return self.predict_cut(self.cut(image_HW, pixel_um), with_features=with_features)

    def predict_cut(self, cut: Cut, *, with_features: bool = False) -> FrameOutputs:
        """The same of a frame that is cut already, by a model that cuts alike (`cuts_by`)."""
        [outputs] = self.predict_cuts([cut], with_features=with_features)
        return outputs

    def predict_cuts(
        self,
        cuts: Sequence[Cut],
        *,
        with_features: bool = False,
        batch: int = BATCH,
        before_each: Callable[[], None] = lambda: None,
    ) -> list[FrameOutputs]:
        """The same of several frames, whose tiles the network sees together, `batch` at a time."""
        tiles = [tile for cut in cuts for tile in cut.tiles]
        wanted = with_features or self.familiarity is not None
        seen = []
        for start in range(0, len(tiles), batch):
            before_each()
            seen.append(self.look(tiles[start : start + batch], with_features=wanted))
        tile_outputs = np.concatenate([outputs for outputs, _ in seen])
        features = [features_NC for _, features_NC in seen if features_NC is not None]
        features_NC = np.concatenate(features) if features else None
        ends = np.cumsum([len(cut.tiles) for cut in cuts])
        parts = [slice(end - len(cut.tiles), end) for cut, end in zip(cuts, ends, strict=True)]
        return [
            self._assemble(cut, tile_outputs[part], None if features_NC is None else features_NC[part])
            for cut, part in zip(cuts, parts, strict=True)
        ]

    def cut(self, image_HW: Pixels, pixel_um: float | None) -> Cut:
        """A frame as the 200×200 tiles that the network sees of it. Raises as `predict` does."""
        preprocess = self.card.preprocess
        grey_HW, factor = frame_at_scale(image_HW, pixel_um, preprocess)
        boxes = cut(grey_HW.shape[0], grey_HW.shape[1], preprocess.tile_px)
        return Cut(
            tiles=[to_network_size(box.pixels(grey_HW)) for box in boxes],
            boxes=boxes,
            factor=factor,
            magnification=_magnification(pixel_um, preprocess, factor),
            image_HW=image_HW,
        )

    def _assemble(
        self, cut: Cut, tile_outputs: NDArray[np.float32], features_NC: NDArray[np.float32] | None
    ) -> FrameOutputs:
        """The outputs for all tiles of a frame, and how strange they are."""
        features_ND = None if features_NC is None else np.hstack([features_NC, cut.grey_NG])
        known = self.familiarity if features_ND is not None else None
        return FrameOutputs(
            magnification=cut.magnification,
            boxes=cut.boxes,
            tile_outputs=tile_outputs,
            factor=cut.factor,
            features_ND=features_ND,
            strangeness_N=known.strangeness(features_ND) if known and features_ND is not None else None,
        )

    def check_fits(self) -> None:
        """Raise IntegrityError unless a tile gets as many answers and features as the card and familiarity say."""
        tile = [np.zeros((NETWORK_PX, NETWORK_PX), np.uint8)]
        output, features_NC = self.look(tile, with_features=True)
        classes, known = self.card.classes, self.familiarity
        if output.shape != ((1, len(classes)) if self.task == "classify" else (1,)):
            said = f"names {len(classes)} lineages" if self.task == "classify" else "is of a counter"
            raise IntegrityError(f"{self.ref} gives {output[0].size} numbers for a tile, and its card {said}")
        features_n = grey_features(tile).shape[1] + (0 if features_NC is None else features_NC.shape[1])
        if known and features_n != len(known.mean_D):
            raise IntegrityError(f"{FAMILIARITY} of {self.ref} is of {len(known.mean_D)} features, not of {features_n}")

    def answer(self, image_HW: Pixels, *, pixel_um: float | None = None) -> Answer:
        """What the model says of a whole frame, for people and programs. Raises as `predict` does."""
        cut = self.cut(image_HW, pixel_um)
        return self.answer_of(self.predict_cut(cut), cut.measures)

    def answer_of(self, outputs: FrameOutputs, measures: Measures) -> Answer:
        """The same, by the network's outputs and the frame's `Cut.measures`."""
        classes = self.card.classes
        classifies = self.task == "classify"
        low, high = self.interval(outputs) or (None, None)
        focus = self.card.focus
        return Answer(
            model=self.ref,
            task=self.task,
            probabilities=dict(zip(classes, outputs.probability_K.tolist(), strict=True)) if classifies else None,
            count=None if classifies else outputs.count,
            count_low=low,
            count_high=high,
            interval_level=None if low is None else self.calibration.level,
            unfamiliar=outputs.unfamiliar,
            unfamiliar_reason=_reason(outputs) if outputs.unfamiliar else None,
            quality=flags_of(measures, focus, count=None if classifies else outputs.count),
            focus=measures.focus / focus.median if focus and measures.focus is not None else None,
            tiles=len(outputs.boxes),
            magnification=outputs.magnification,
        )

    def interval(self, outputs: FrameOutputs) -> tuple[float, float] | None:
        """Low and high end of a frame's count, of a counter whose test split allowed one."""
        if self.task != "count":
            return None
        return self.calibration.frame_interval(outputs.count, float(outputs.weights_N.sum()))


def familiarity_of(registry: Registry, version: ModelVersion) -> Familiarity | None:
    """What the version knows of its training images; models of before have nothing."""
    if FAMILIARITY not in version.blobs:
        return None
    return Familiarity.from_bytes(registry.read(version, FAMILIARITY), version.ref)


def _magnification(pixel_um: float | None, preprocess: Preprocess, factor: float) -> Magnification:
    if pixel_um is None or preprocess.pixel_um is None:
        return "assumed"
    return "matched" if factor == 1 else "rescaled"


def _reason(outputs: FrameOutputs) -> str:
    """Why a frame is called unfamiliar, for a person."""
    return (
        f"{outputs.strangeness:.1f} times as far from the training images as the {FALSE_RATE:.0%} of known images that "
        "are farthest from them"
    )
