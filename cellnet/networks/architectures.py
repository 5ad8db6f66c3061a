"""The networks: one table of named architectures, one `create` function.

Input (B, 1, 200, 200), normalised. A classifier gives logits (B, K); a counter gives counts (B,), never negative.
In training a counter may give its density map (B, h, w) instead, whose sum is the count: the loss wants the places.
Counts are float32 also in mixed precision: a sum of many small densities needs the digits.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Final, cast

import torch
from torch import Tensor, nn

from cellnet.config.choices import MAP_SIDE, NETWORK_PX, Activation
from cellnet.config.train import ModelSpec
from cellnet.networks.efficientnet import LEVELS, STAGES, LiteBody
from cellnet.tasks import TASKS, Task

ACTIVATIONS: Final[dict[Activation, type[nn.Module]]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}

LITE_INNER: Final = 48
"""Channels in which the levels of `Lite` are brought together."""
PLACE_LEVELS: Final = 3
"""Of `LiteBody`, which a frozen counter sees, at the side of the second."""
PLACE_SIDE: Final = NETWORK_PX // 8
PLACE_INNER: Final = 64
"""Units of its layers."""


def create(spec: ModelSpec, task: Task, *, classes: int = 0, mean_count: float = 1.0) -> nn.Module:
    """A fresh network. A counter starts at `mean_count`, so that its last unit is alive at the first step."""
    return ARCHITECTURES[resolve(spec, task).architecture](spec, task, classes, max(mean_count, 0.1))


def resolve(spec: ModelSpec, task: Task, *, frame_tiles: float = 1) -> ModelSpec:
    """The choices with every `auto` decided, for frames of so many tiles.

    >>> resolve(ModelSpec(views=1), "count").architecture, resolve(ModelSpec(), "count").views
    ('density', 8)
    >>> resolve(ModelSpec(), "count", frame_tiles=25).views, resolve(ModelSpec(), "classify").architecture
    (1, 'residual')
    """
    facts = TASKS[task]
    one_tile_views = facts.views if frame_tiles == 1 else 1
    all_views = spec.frozen and task == "classify"
    defaults = {"architecture": facts.architecture, "views": 8 if all_views else one_tile_views}
    return spec.model_copy(update={name: value for name, value in defaults.items() if getattr(spec, name) == "auto"})


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
            _start_at(self.out, mean_count)

    def forward(self, input_B1HW: Tensor) -> Tensor:
        """Logits (B, K) or counts (B,)."""
        out = self.out(self.body(input_B1HW))
        return out if self.task == "classify" else torch.relu(out.float()).squeeze(1)


class Residual(nn.Module):
    """Batch-normed residual stages and a global pool.

    The classifier averages over positions; the counter adds up a non-negative density, so that what it learns of
    a cell holds wherever the cell lies and however many there are.
    """

    def __init__(self, spec: ModelSpec, task: Task, classes: int, mean_count: float) -> None:
        super().__init__()
        widths = _widths(spec)
        self.body = nn.Sequential(*_residual_stages(spec))
        self.task = task
        self.dropout = nn.Dropout(spec.dropout)
        self.out = nn.Conv2d(widths[-1], classes if task == "classify" else 1, 1)
        if task == "count":
            positions = (NETWORK_PX // 2 ** (spec.depth + 1)) ** 2
            _start_at(self.out, _softplus_inverse(mean_count / positions))

    def forward(self, input_B1HW: Tensor) -> Tensor:
        """Logits (B, K) or counts (B,)."""
        features = self.body(input_B1HW)
        if self.task == "classify":
            pooled = nn.functional.adaptive_avg_pool2d(features, 1)
            logits_BK: Tensor = self.out(self.dropout(pooled)).flatten(1)
            return logits_BK
        return nn.functional.softplus(self.out(features).float()).sum(dim=(1, 2, 3))


class DensityLayers(nn.Module):
    """The last layers of a counter by density: a top-down path from features of several sides to one map of cells."""

    def add_layers(self, widths: Sequence[int], inner: int, activation: type[nn.Module], mean_count: float) -> None:
        """Make them for levels of these widths, brought together in `inner` channels; they start at `mean_count`."""
        self.laterals = nn.ModuleList(nn.Conv2d(width, inner, 1) for width in widths)
        self.smooth = _normed_conv(inner, inner, 3, activation)
        self.out: nn.Module = nn.Conv2d(inner, 1, 1)
        _start_at(self.out, _softplus_inverse(mean_count / MAP_SIDE**2))

    def count(self, levels: Sequence[Tensor]) -> Tensor:
        """From features of all levels, the finest first: in training the density map (B, 50, 50), else counts (B,)."""
        merged: Tensor = self.laterals[-1](levels[-1])
        for lateral, level in zip(self.laterals[-2::-1], levels[-2::-1], strict=True):
            merged = nn.functional.interpolate(merged, level.shape[2:]) + lateral(level)
        density_Bhw = nn.functional.softplus(self.out(self.smooth(merged)).float()).squeeze(1)
        return density_Bhw if self.training else density_Bhw.sum(dim=(1, 2))


class Density(DensityLayers):
    """A counter that also learns where cells are: a density map of 50×50 fields, whose sum is the count.

    Residual stages, whose features a top-down path brings together at the finest side (Lin et al. 2017,
    10.1109/CVPR.2017.106), so that a field knows of its surroundings. Counting by density: Lempitsky & Zisserman 2010.
    """

    def __init__(self, spec: ModelSpec, task: Task, classes: int, mean_count: float) -> None:
        super().__init__()
        self.stages = nn.ModuleList(_residual_stages(spec))
        self.add_layers(_widths(spec), 2 * spec.width, ACTIVATIONS[spec.activation], mean_count)

    def forward(self, input_B1HW: Tensor) -> Tensor:
        """In training the density map (B, 50, 50), else counts (B,)."""
        features, levels = input_B1HW, []
        for stage in self.stages:
            features = stage(features)
            if isinstance(stage, ResidualBlock):
                levels.append(features)
        return self.count(levels)


class PlaceLayers(nn.Module):
    """The last layers of a frozen counter: from the features of each place alone, how many cells are there.

    A perceptron, the same at every place; what is around a place is in its features already.
    """

    def __init__(self, width: int, dropout: float, density: float) -> None:
        super().__init__()
        self.first = nn.Linear(width, PLACE_INNER)
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Linear(PLACE_INNER, PLACE_INNER)
        self.last = nn.Linear(PLACE_INNER, 1)
        _start_at(self.last, _softplus_inverse(density))

    def forward(self, features_BChw: Tensor) -> Tensor:
        """What softplus makes the cells of each place (B, 1, h, w)."""
        inner = self.dropout(torch.relu(self.first(features_BChw.permute(0, 2, 3, 1))))
        places: Tensor = self.last(torch.relu(self.second(inner)))
        return places.permute(0, 3, 1, 2)


class Lite(DensityLayers):
    """EfficientNet-Lite0: what features of all levels are on average and how much they vary over a tile, since cells
    differ in texture; or a density map from these features, as of `Density`, or frozen as of `PlaceLayers`."""

    def __init__(self, spec: ModelSpec, task: Task, classes: int, mean_count: float) -> None:
        super().__init__()
        self.task, self.by_place = task, task == "count" and bool(spec.frozen)
        levels = PLACE_LEVELS if self.by_place else len(LEVELS)
        self.body = LiteBody(levels)
        widths = [STAGES[level].width for level in LEVELS[:levels]]
        if self.by_place:
            self.out = PlaceLayers(sum(widths), spec.dropout, mean_count / PLACE_SIDE**2)
        elif task == "count":
            self.add_layers(widths, LITE_INNER, nn.ReLU, mean_count)
        else:
            self.dropout = nn.Dropout(spec.dropout)
            self.out = nn.Linear(2 * sum(widths), classes)

    def forward(self, input_B1HW: Tensor) -> Tensor:
        """Logits (B, K); or in training the density map (B, 50, 50), of a frozen one (B, 25, 25), else counts (B,)."""
        levels = self.body(input_B1HW)
        if self.by_place:
            density_Bhw = nn.functional.softplus(self.out(_at_one_side(levels)).float()).squeeze(1)
            return density_Bhw if self.training else density_Bhw.sum(dim=(1, 2))
        if self.task == "count":
            return self.count(levels)
        pooled = [part_BC for features in levels for part_BC in _mean_and_deviation(features.float())]
        logits_BK: Tensor = self.out(self.dropout(torch.cat(pooled, dim=1)))
        return logits_BK


def _at_one_side(levels: Sequence[Tensor]) -> Tensor:
    """Features of three levels as one (B, C, h, w) of the second's side."""
    finest, middle, coarsest = levels
    coarsest = nn.functional.interpolate(coarsest, middle.shape[2:])
    return torch.cat([nn.functional.avg_pool2d(finest, 2), middle, coarsest], dim=1)


def _mean_and_deviation(features: Tensor) -> tuple[Tensor, Tensor]:
    """Over places, (B, C) each."""
    variance_BC, mean_BC = torch.var_mean(features, dim=(2, 3), correction=0)
    return mean_BC, (variance_BC + 1e-6).sqrt()  # whose gradient has an end


class Backbone(nn.Module):
    """A network of torchvision, from random weights; its `first` layer sees grey tiles, its `last` one is ours."""

    def __init__(
        self, name: str, first: str, last: str, spec: ModelSpec, task: Task, classes: int, mean_count: float
    ) -> None:
        import torchvision.models  # slow to import, and other networks need it not

        super().__init__()
        self.body = torchvision.models.get_model(name, weights=None)
        self.body.set_submodule(first, _one_channel(cast(nn.Conv2d, self.body.get_submodule(first))))
        features = cast(nn.Linear, self.body.get_submodule(last)).in_features
        self.body.set_submodule(last, nn.Identity())
        self.task = task
        self.dropout = nn.Dropout(spec.dropout)
        self.out = nn.Linear(features, classes if task == "classify" else 1)
        if task == "count":
            _start_at(self.out, _softplus_inverse(mean_count))

    def forward(self, input_B1HW: Tensor) -> Tensor:
        """Logits (B, K) or counts (B,)."""
        out: Tensor = self.out(self.dropout(self.body(input_B1HW)))
        return out if self.task == "classify" else nn.functional.softplus(out.float()).squeeze(1)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions, batch-normed, added to their input (He et al. 2016, 10.1109/CVPR.2016.90)."""

    def __init__(self, before: int, after: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.first = _normed_conv(before, after, 3, activation)
        self.second = _normed_conv(after, after, 3)
        self.same = nn.Identity() if before == after else nn.Conv2d(before, after, 1, bias=False)
        self.activation = activation()

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same height and width."""
        out: Tensor = self.activation(self.second(self.first(features)) + self.same(features))
        return out


def _widths(spec: ModelSpec) -> list[int]:
    return [spec.width * 2**stage for stage in range(spec.depth)]


def _residual_stages(spec: ModelSpec) -> list[nn.Module]:
    """A stem, then residual blocks with a pool between two; the first works at 50×50."""
    activation = ACTIVATIONS[spec.activation]
    widths = _widths(spec)
    stem = _normed_conv(1, widths[0], 5, activation, stride=2)
    stages: list[nn.Module] = [stem, nn.MaxPool2d(2), ResidualBlock(widths[0], widths[0], activation)]
    for before, after in itertools.pairwise(widths):
        stages += [nn.MaxPool2d(2), ResidualBlock(before, after, activation)]
    return stages


def _normed_conv(
    before: int, after: int, side: int, activation: type[nn.Module] | None = None, *, stride: int = 1
) -> nn.Sequential:
    """A convolution, batch-normed, and an activation, if any; the same as torchvision's Conv2dNormActivation."""
    convolution = nn.Conv2d(before, after, side, stride, padding=side // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), *([activation()] if activation else []))


def _start_at(out: nn.Module, value: float) -> None:
    """Let a layer give about one value whatever its input: a unit that starts well above 0 does not start dead."""
    assert isinstance(out, nn.Linear | nn.Conv2d) and out.bias is not None
    if not out.weight.is_meta:  # there torch would import its compiler to draw nothing, for over a second
        nn.init.normal_(out.weight, std=0.01)
    nn.init.constant_(out.bias, value)


def _softplus_inverse(value: float) -> float:
    return value + math.log(-math.expm1(-value))


def _one_channel(layer: nn.Conv2d) -> nn.Conv2d:
    """A fresh layer of the same shape for grey tiles."""
    bias = layer.bias is not None
    return nn.Conv2d(1, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, bias=bias)  # type: ignore[arg-type]


ARCHITECTURES: Final[dict[str, Callable[[ModelSpec, Task, int, float], nn.Module]]] = {
    "paper": Paper,
    "residual": Residual,
    "density": Density,
    "efficientnet_lite0": Lite,
    "resnet18": functools.partial(Backbone, "resnet18", "conv1", "fc"),
    "convnext_tiny": functools.partial(Backbone, "convnext_tiny", "features.0.0", "classifier.2"),
}
