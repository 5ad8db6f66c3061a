"""A published model, ready to answer: prepare (cut, resize, kernel) and forward, the same as in training."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import nn

from cellnet import models, training
from cellnet.answers import Answer, Magnification
from cellnet.augment import frame_at_scale
from cellnet.calibration import Calibration, count_interval, temper
from cellnet.config import Task, TrainConfig
from cellnet.errors import IntegrityError, NotFoundError
from cellnet.familiarity import FALSE_RATE, FAMILIARITY, Familiarity, grey_features, watched
from cellnet.images import Box, cut, normalise, to_network_size
from cellnet.inputs import views_of
from cellnet.registry import WEIGHTS, Card, ModelVersion, Registry
from cellnet.untrusted import check_safetensors

BATCH = 64


class Cut(NamedTuple):
    """A frame in tiles."""

    tiles: list[NDArray[np.uint8]]
    """Of 200×200 pixels."""
    boxes: list[Box]
    """Their places, in pixels of the frame as the network sees it."""
    factor: float
    """By how much the frame was resized before it was cut."""


@dataclass(frozen=True, kw_only=True)
class FramePrediction:
    """What a network says of one frame."""

    magnification: Magnification
    """`matched` or `rescaled` to the training frames' pixel size; `assumed` to be it where it is not known."""
    boxes: list[Box]
    """The tiles, in pixels of the frame as the network saw it."""
    tile_outputs: NDArray[np.float32]
    """Probabilities (N, K) or counts (N,) of the tiles."""
    factor: float
    """By how much the frame was resized before it was cut."""
    features_ND: NDArray[np.float32] | None = None
    """What describes the tiles to `cellnet.familiarity`, where that was asked for."""
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

    @property
    def strangeness(self) -> float | None:
        """How unlike the training frames this one is, above 1 too much so; None where the model cannot tell."""
        return None if self.strangeness_N is None else float(np.median(self.strangeness_N))

    @property
    def unfamiliar(self) -> bool | None:
        """Whether it is too much so."""
        return None if self.strangeness is None else self.strangeness > 1


class Predictor:
    """One model version in memory."""

    def __init__(self, ref: str, card: Card, network: nn.Module, familiarity: Familiarity | None = None) -> None:
        self.ref = ref
        self.card = card
        self.network = network.eval()
        self.familiarity = familiarity

    @classmethod
    def load(cls, registry: Registry, ref: str) -> Self:
        """The model that a reference means. Raises NotFoundError or IntegrityError."""
        version = registry.resolve(ref)
        weights = weights_from_bytes(registry.read(version, WEIGHTS), version.ref)
        network = _network_of(version.ref, version.card, weights)
        return cls(version.ref, version.card, network, _familiarity(registry, version))

    @property
    def task(self) -> Task:
        """What the model does."""
        return self.card.task

    @property
    def views(self) -> int:
        """Over how many orientations of a tile the outputs are averaged."""
        return int(models.resolve(self.card.config.model, self.task).views)

    @property
    def calibration(self) -> Calibration:
        """What the test split said of its sureness; of a model that was never calibrated, nothing."""
        return self.card.calibration or Calibration(tiles=0, frames=0)

    def predict(
        self,
        image_HW: NDArray[np.uint8] | NDArray[np.uint16],
        *,
        pixel_um: float | None = None,
        with_features: bool = False,
    ) -> FramePrediction:
        """What the network says of a frame of any size not smaller than a tile.

        The frame is brought to the training frames' magnification when both pixel sizes are known. Raises
        DataError for a frame smaller than a tile, or of a magnification too far from the training frames'.
        """
        tiles, boxes, factor = self.cut(image_HW, pixel_um)
        batches = [tiles[start : start + BATCH] for start in range(0, len(tiles), BATCH)]
        features_ND = None
        if with_features or self.familiarity:
            with watched(self.network) as seen:
                outputs = [self.forward(batch) for batch in batches]
            features_ND = np.hstack([torch.cat(seen[:: self.views]).cpu().numpy(), grey_features(tiles)])
        else:
            outputs = [self.forward(batch) for batch in batches]
        known = pixel_um is not None and self.card.preprocess.pixel_um is not None
        return FramePrediction(
            magnification="assumed" if not known else "matched" if factor == 1 else "rescaled",
            boxes=boxes,
            tile_outputs=np.concatenate(outputs),
            factor=factor,
            features_ND=features_ND,
            strangeness_N=(
                self.familiarity.strangeness(features_ND) if self.familiarity and features_ND is not None else None
            ),
        )

    def cut(self, image_HW: NDArray[np.uint8] | NDArray[np.uint16], pixel_um: float | None) -> Cut:
        """A frame as the 200×200 tiles that the network sees of it. Raises as `predict` does."""
        preprocess = self.card.preprocess
        grey_HW, factor = frame_at_scale(image_HW, pixel_um, preprocess)
        boxes = cut(grey_HW.shape[0], grey_HW.shape[1], preprocess.tile_px)
        return Cut([to_network_size(box.pixels(grey_HW)) for box in boxes], boxes, factor)

    def calibrated(self, raw: FramePrediction) -> FramePrediction:
        """What the same network said before it was calibrated, with the tiles' features, as it says it now."""
        strangeness_N = None
        if self.familiarity and raw.features_ND is not None:
            strangeness_N = self.familiarity.strangeness(raw.features_ND)
        return replace(raw, tile_outputs=self._tempered(raw.tile_outputs), strangeness_N=strangeness_N)

    def answer(self, image_HW: NDArray[np.uint8] | NDArray[np.uint16], *, pixel_um: float | None = None) -> Answer:
        """What the model says of a whole frame, for people and programs. Raises as `predict` does."""
        said = self.predict(image_HW, pixel_um=pixel_um)
        classes = self.card.classes
        classifies = self.task == "classify"
        low, high = (None, None) if classifies else self.interval(said) or (None, None)
        return Answer(
            model=self.ref,
            task=self.task,
            probabilities=dict(zip(classes, said.probability_K.tolist(), strict=True)) if classifies else None,
            count=None if classifies else said.count,
            count_low=low,
            count_high=high,
            interval_level=None if low is None else self.calibration.level,
            unfamiliar=said.unfamiliar,
            unfamiliar_reason=_reason(said) if said.unfamiliar else None,
            tiles=len(said.boxes),
            magnification=said.magnification,
        )

    def interval(self, said: FramePrediction) -> tuple[float, float] | None:
        """Low and high end of a frame's count, of a counter whose test split allowed one."""
        calibration = self.calibration
        quantile = calibration.frame_quantile
        if quantile is None and len(said.boxes) == 1:
            quantile = calibration.tile_quantile
        if quantile is None:
            return None
        low, high = count_interval(np.array([said.count]), quantile)[0].tolist()
        return low, high

    def forward(self, tiles: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Probabilities (N, K) or counts (N,) of 200×200 tiles."""
        input_B1HW = torch.from_numpy(normalise(np.stack(tiles), self.card.preprocess))
        input_B1HW = input_B1HW.to(memory_format=torch.channels_last)
        outputs = [training.forward(self.network, view, self.task) for view in views_of(input_B1HW, self.views)]
        return self._tempered(np.mean(outputs, axis=0))

    def _tempered(self, output: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.task == "classify" and self.calibration.temperature != 1:
            return temper(output, self.calibration.temperature).astype(np.float32)
        return output


def resolve_models(registry: Registry, classifier: str | None, regressor: str | None) -> dict[str, str]:
    """The versions that will answer, by role. A default champion that does not exist is left out.

    Raises NotFoundError when a model that was asked for by name, or both champions, are not there.
    """
    refs: dict[str, str] = {}
    missing: list[NotFoundError] = []
    for role, ref in (("classifier", classifier), ("regressor", regressor)):
        try:
            refs[role] = registry.resolve(ref or f"{role}:champion").ref
        except NotFoundError as error:
            if ref is not None:
                raise
            missing.append(error)
    if not refs:
        raise NotFoundError(
            f"the registry {registry.store.uri} has neither classifier:champion nor regressor:champion; "
            "train a model, then: cellnet registry promote REF champion"
        ) from missing[0]
    return refs


def fresh_network(config: TrainConfig, classes: int, mean_count: float = 1.0) -> nn.Module:
    """The network of a configuration before training, in the memory layout that convolutions like."""
    network = models.create(config.model, config.task, classes=classes, mean_count=mean_count)
    return network.to(memory_format=torch.channels_last)


def weights_to_bytes(weights: dict[str, torch.Tensor]) -> bytes:
    """The weights as a safetensors file."""
    data: bytes = safetensors.torch.save({name: value.contiguous() for name, value in weights.items()})
    return data


def weights_from_bytes(data: bytes, ref: str) -> dict[str, torch.Tensor]:
    """What `weights_to_bytes` gave of the model `ref`. Raises IntegrityError for anything but a safetensors file."""
    check_safetensors(data, f"{WEIGHTS} of {ref}")
    return dict(safetensors.torch.load(data))


def predictor_of(
    ref: str, card: Card, weights: dict[str, torch.Tensor], familiarity: Familiarity | None = None
) -> Predictor:
    """A predictor of weights that need not be published. Raises IntegrityError where they do not fit the card."""
    return Predictor(ref, card, _network_of(ref, card, weights), familiarity)


def _reason(said: FramePrediction) -> str:
    """Why a frame is called unfamiliar, for a person."""
    return (
        f"{said.strangeness:.1f} times as far from the training images as the {FALSE_RATE:.0%} of known images that "
        "are farthest from them"
    )


def _familiarity(registry: Registry, version: ModelVersion) -> Familiarity | None:
    """What the version knows of its training images; models of before have nothing."""
    if FAMILIARITY not in version.blobs:
        return None
    return Familiarity.from_bytes(registry.read(version, FAMILIARITY), version.ref)


def _network_of(ref: str, card: Card, weights: dict[str, torch.Tensor]) -> nn.Module:
    """The network of a card with these weights, which takes no memory before they are known to fit."""
    with torch.device("meta"):
        network = models.create(card.config.model, card.task, classes=len(card.classes))
    wanted = {name: (value.dtype, tuple(value.shape)) for name, value in network.state_dict().items()}
    held = {name: (value.dtype, tuple(value.shape)) for name, value in weights.items()}
    for name in wanted | held:
        if held.get(name) != wanted.get(name):
            seen, due = (_said(of.get(name)) for of in (held, wanted))
            raise IntegrityError(f"the weights of {ref} do not fit its architecture: {name} is {seen}, not {due}")
    network.load_state_dict(weights, assign=True)
    return network.to(memory_format=torch.channels_last)


def _said(tensor: tuple[torch.dtype, tuple[int, ...]] | None) -> str:
    return "missing" if tensor is None else f"{tensor[0]} of {'×'.join(map(str, tensor[1])) or 'one number'}"
