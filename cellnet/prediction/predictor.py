"""A published model in torch, ready to answer: prepare (cut, resize, kernel) and forward, the same as in training."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cellnet.certainty.calibration import temper
from cellnet.certainty.familiarity import Familiarity
from cellnet.errors import IntegrityError
from cellnet.images.pixels import normalise
from cellnet.networks import architectures as models
from cellnet.networks.views import forward, views_of, watched
from cellnet.networks.weights import weights_from_bytes
from cellnet.prediction.model import FrameModel, FrameOutputs, familiarity_of
from cellnet.registry.records import Card
from cellnet.registry.registry import Registry
from cellnet.untrusted import WEIGHTS


class Predictor(FrameModel):
    """One model version in memory, its network in torch."""

    def __init__(self, ref: str, card: Card, network: nn.Module, familiarity: Familiarity | None = None) -> None:
        super().__init__(ref, card, familiarity)
        self.network = network.eval()

    @classmethod
    def load(cls, registry: Registry, ref: str) -> Self:
        """The model that a reference means. Raises NotFoundError or IntegrityError."""
        version = registry.resolve(ref)
        weights = weights_from_bytes(registry.read(version, WEIGHTS), version.ref)
        network = _network_of(version.ref, version.card, weights)
        predictor = cls(version.ref, version.card, network, familiarity_of(registry, version))
        predictor.check_fits()
        return predictor

    @property
    def views(self) -> int:
        """Over how many orientations of a tile the outputs are averaged."""
        return int(models.resolve(self.card.config.model, self.task).views)

    def of_one_view(self) -> "Predictor":
        """The same network, which sees every tile as it is alone."""
        model = self.card.config.model.model_copy(update={"views": 1})
        config = self.card.config.model_copy(update={"model": model})
        card = self.card.model_copy(update={"config": config})
        return Predictor(self.ref, card, self.network, self.familiarity)

    def look(
        self, tiles: Sequence[NDArray[np.uint8]], *, with_features: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Calibrated probabilities (N, K) or counts (N,) of 200×200 tiles, and if asked for features (N, C)."""
        if not with_features:
            return self.forward(tiles), None
        with watched(self.network) as seen:
            outputs = self.forward(tiles)
        return outputs, seen[0].cpu().numpy()

    def calibrated(self, raw: FrameOutputs) -> FrameOutputs:
        """Outputs of the same network before it was calibrated, with the tiles' features, as it gives them now."""
        strangeness_N = None
        if self.familiarity and raw.features_ND is not None:
            strangeness_N = self.familiarity.strangeness(raw.features_ND)
        return replace(raw, tile_outputs=self._told(raw.tile_outputs), strangeness_N=strangeness_N)

    def forward(self, tiles: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Probabilities (N, K) or counts (N,) of 200×200 tiles, computed where the network lies."""
        input_B1HW = torch.from_numpy(normalise(np.stack(tiles), self.card.preprocess))
        device = next(self.network.parameters(), input_B1HW).device
        input_B1HW = input_B1HW.to(device, memory_format=torch.channels_last)
        outputs = [forward(self.network, view, self.task) for view in views_of(input_B1HW, self.views)]
        return self._told(np.mean(outputs, axis=0))

    def _told(self, output: NDArray[np.float32]) -> NDArray[np.float32]:
        """The network's outputs as its calibration has them told."""
        if self.task == "count":
            return self.calibration.recounted(output)
        if self.calibration.temperature != 1:
            return temper(output, self.calibration.temperature).astype(np.float32)
        return output


def predictor_of(
    ref: str, card: Card, weights: dict[str, torch.Tensor], familiarity: Familiarity | None = None
) -> Predictor:
    """A predictor of weights that need not be published. Raises IntegrityError where they do not fit the card."""
    return Predictor(ref, card, _network_of(ref, card, weights), familiarity)


def _network_of(ref: str, card: Card, weights: dict[str, torch.Tensor]) -> nn.Module:
    """The network of a card with these weights, which takes no memory before they are known to fit."""
    with torch.device("meta"):
        network = models.create(card.config.model, card.task, classes=len(card.classes))
    wanted = {name: (value.dtype, tuple(value.shape)) for name, value in network.state_dict().items()}
    held = {name: (value.dtype, tuple(value.shape)) for name, value in weights.items()}
    for name in wanted | held:
        if held.get(name) != wanted.get(name):
            seen, due = (_describe_tensor(of.get(name)) for of in (held, wanted))
            raise IntegrityError(f"the weights of {ref} do not fit its architecture: {name} is {seen}, not {due}")
    network.load_state_dict(weights, assign=True)
    return network.to(memory_format=torch.channels_last)


def _describe_tensor(tensor: tuple[torch.dtype, tuple[int, ...]] | None) -> str:
    return "missing" if tensor is None else f"{tensor[0]} of {'×'.join(map(str, tensor[1])) or 'one number'}"
