"""The networks: one table of named architectures, one `create` function.

Input (B, 1, 200, 200), normalised. A classifier gives logits (B, K); a counter gives counts (B,), never negative.
"""

import itertools
import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from cellnet.config import NETWORK_PX, Activation, ModelSpec, Task

ACTIVATIONS: Final[dict[Activation, type[nn.Module]]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


def create(spec: ModelSpec, task: Task, *, classes: int = 0, mean_count: float = 1.0) -> nn.Module:
    """A fresh network. A counter starts at `mean_count`, so that its last unit is alive at the first step."""
    return ARCHITECTURES[spec.architecture](spec, task, classes, max(mean_count, 0.1))


def parameters_n(model: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


class Paper(nn.Module):
    """Conv2D (kernel 3) + activation + MaxPool2D stages, dense, out; after Ferreira & Silveira 2024.

    The paper's table of layer widths was not at hand: the widths are ours. The counter ends in one ReLU.
    """

    def __init__(self, spec: ModelSpec, task: Task, classes: int, mean_count: float) -> None:
        super().__init__()
        activation = ACTIVATIONS[spec.activation]
        widths = [1, *(spec.width * 2**stage for stage in range(spec.depth))]
        stages: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            stages += [nn.Conv2d(before, after, 3), activation(), nn.MaxPool2d(2)]
        side = NETWORK_PX
        for _ in range(spec.depth):
            side = (side - 2) // 2
        self.body = nn.Sequential(
            *stages,
            nn.Flatten(),
            nn.Linear(widths[-1] * side * side, 64),
            activation(),
            nn.Dropout(spec.dropout),
        )
        self.task = task
        self.out = nn.Linear(64, classes if task == "classify" else 1)
        if task == "count":
            nn.init.constant_(self.out.bias, mean_count)

    def forward(self, input_B1HW: Tensor) -> Tensor:
        """Logits (B, K) or counts (B,)."""
        out = self.out(self.body(input_B1HW))
        return out if self.task == "classify" else torch.relu(out).squeeze(1)


class Residual(nn.Module):
    """Batch-normed residual stages and a global pool.

    The classifier averages over positions; the counter adds up a non-negative density, so that what it learns of
    a cell holds wherever the cell lies and however many there are.
    """

    def __init__(self, spec: ModelSpec, task: Task, classes: int, mean_count: float) -> None:
        super().__init__()
        activation = ACTIVATIONS[spec.activation]
        widths = [spec.width * 2**stage for stage in range(spec.depth)]
        # The stem and the first pool halve the side twice, so the first stage works at 50×50.
        stem = Conv2dNormActivation(1, widths[0], 5, stride=2, activation_layer=activation, inplace=None)
        stages: list[nn.Module] = [stem, nn.MaxPool2d(2)]
        for index, (before, after) in enumerate(zip([widths[0], *widths], widths, strict=False)):
            stages += [nn.MaxPool2d(2)] if index else []
            stages += [ResidualBlock(before, after, activation)]
        self.body = nn.Sequential(*stages)
        self.task = task
        self.dropout = nn.Dropout(spec.dropout)
        self.out = nn.Conv2d(widths[-1], classes if task == "classify" else 1, 1)
        if task == "count":
            positions = (NETWORK_PX // 2 ** (spec.depth + 1)) ** 2
            nn.init.normal_(self.out.weight, std=0.01)
            # softplus(bias) × positions = mean_count
            assert self.out.bias is not None
            density = mean_count / positions
            nn.init.constant_(self.out.bias, density + math.log(-math.expm1(-density)))

    def forward(self, input_B1HW: Tensor) -> Tensor:
        """Logits (B, K) or counts (B,)."""
        features = self.body(input_B1HW)
        if self.task == "classify":
            pooled = nn.functional.adaptive_avg_pool2d(features, 1)
            logits_BK: Tensor = self.out(self.dropout(pooled)).flatten(1)
            return logits_BK
        return nn.functional.softplus(self.out(features)).sum(dim=(1, 2, 3))


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions, batch-normed, added to their input (He et al. 2016, 10.1109/CVPR.2016.90)."""

    def __init__(self, before: int, after: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.first = Conv2dNormActivation(before, after, 3, activation_layer=activation, inplace=None)
        self.second = Conv2dNormActivation(after, after, 3, activation_layer=None)
        self.same = nn.Identity() if before == after else nn.Conv2d(before, after, 1, bias=False)
        self.activation = activation()

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same height and width."""
        out: Tensor = self.activation(self.second(self.first(features)) + self.same(features))
        return out


ARCHITECTURES: Final[dict[str, Callable[[ModelSpec, Task, int, float], nn.Module]]] = {
    "paper": Paper,
    "residual": Residual,
}
