"""EfficientNet-Lite0: a small network whose layers know the world's photographs already.

EfficientNet (Tan & Le 2019, arXiv:1905.11946) without squeeze-and-excitation and with ReLU6, as Google published it in
2020 for small devices: 3.4 million parameters. Its layers pad as TensorFlow does, since its weights were learnt so.
"""

import copy
import itertools
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class Stage(NamedTuple):
    """Blocks of the same width."""

    kernel: int
    stride: int
    """Of the first block."""
    expansion: int
    width: int
    blocks: int


STEM: Final = 32
STAGES: Final = (
    Stage(3, 1, 1, 16, 1),
    Stage(3, 2, 6, 24, 2),
    Stage(5, 2, 6, 40, 2),
    Stage(3, 2, 6, 80, 3),
    Stage(5, 1, 6, 112, 3),
    Stage(5, 2, 6, 192, 4),
    Stage(3, 1, 6, 320, 1),
)
LEVELS: Final = (1, 2, 4, 6)
"""The stages that are the last of their side: 1/4, 1/8, 1/16 and 1/32 of the input's."""


class LiteBody(nn.Module):
    """The layers before the last two, for one grey channel.

    The published network's last two, 1280 features and the classifier, are of photographs' contents: on cells, in wells
    that a head had not learned from, the levels below them told lineages apart better (0.79 of LIVECell's tiles, with
    them 0.74).

    `levels`: how many of the four there are; the stages behind the last of them are left out.
    """

    def __init__(self, levels: int = len(LEVELS)) -> None:
        super().__init__()
        self.stem = _normed(1, STEM, 3, stride=2)
        stages, before = [], STEM
        for stage in STAGES[: LEVELS[levels - 1] + 1]:
            blocks = []
            for number in range(stage.blocks):
                blocks.append(Block(before, stage, stride=stage.stride if number == 0 else 1))
                before = stage.width
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)

    def forward(self, input_B1HW: Tensor) -> list[Tensor]:
        """Features (B, C, h, w) at 1/4, 1/8, 1/16 and 1/32 of the input's side; of 24, 40, 112 and 320 channels.

        Of fewer levels the first of these.
        """
        features, seen = self.stem(input_B1HW), []
        for number, stage in enumerate(self.stages):
            features = stage(features)
            if number in LEVELS:
                seen.append(features)
        return seen


class Block(nn.Module):
    """An inverted bottleneck (Sandler et al. 2018, arXiv:1801.04381): widened, filtered by channel, narrowed."""

    def __init__(self, before: int, stage: Stage, *, stride: int) -> None:
        super().__init__()
        wide = before * stage.expansion
        layers = [_normed(before, wide, 1)] if stage.expansion > 1 else []
        self.body = nn.Sequential(
            *layers,
            _normed(wide, wide, stage.kernel, stride=stride, groups=wide),
            _normed(wide, stage.width, 1, active=False),
        )
        self.same = stride == 1 and before == stage.width

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C, h, w), at half the side where the stride is 2."""
        out: Tensor = self.body(features)
        return out + features if self.same else out


class SamePadding(nn.Conv2d):
    """A convolution that pads as TensorFlow's `SAME` does: where it cannot be even, one more below and at the right."""

    def forward(self, input: Tensor) -> Tensor:
        """Features (B, C, ⌈h / stride⌉, ⌈w / stride⌉)."""
        pads = []
        for side, kernel, stride in zip(input.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            pad = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            pads += [pad // 2, pad - pad // 2]
        return super().forward(nn.functional.pad(input, pads))


def _normed(
    before: int, after: int, kernel: int, *, stride: int = 1, groups: int = 1, active: bool = True
) -> nn.Sequential:
    """A convolution, batch-normed, and ReLU6."""
    if stride == 1:
        layer = nn.Conv2d(before, after, kernel, padding=kernel // 2, groups=groups, bias=False)
    else:
        layer = SamePadding(before, after, kernel, stride, groups=groups, bias=False)
    norm = nn.BatchNorm2d(after, eps=1e-3, momentum=0.01)
    return nn.Sequential(layer, norm, *([nn.ReLU6(inplace=True)] if active else []))


def folded(network: nn.Module) -> nn.Module:
    """A copy of a network in evaluation mode whose batch norms are part of the convolutions before them: faster."""
    network = copy.deepcopy(network).eval()
    for layers in [layer for layer in network.modules() if isinstance(layer, nn.Sequential)]:
        for place, (before, after) in enumerate(itertools.pairwise(layers)):
            if isinstance(before, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
                layers[place], layers[place + 1] = fuse_conv_bn_eval(before, after), nn.Identity()
    return network


def of_published(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a `LiteBody` from those that were published for three colours and a thousand classes.

    They stand in the same order there, those that it has not last. A grey tile is taken for a photograph whose colours
    are alike, so the first layer's filters are added up over colours. Raises ValueError for weights of another network.
    """
    with torch.device("meta"):  # for the names alone
        names = list(LiteBody().state_dict())
    values = list(published.values())[: len(names)]
    if len(values) < len(names) or values[0].shape != (STEM, 3, 3, 3):
        raise ValueError("these are not the weights of an EfficientNet-Lite0")
    values[0] = values[0].sum(dim=1, keepdim=True)
    return dict(zip(names, map(torch.clone, values), strict=True))
