"""Grad-CAM: it finds the one thing that a network goes by."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cellnet.config.choices import FIXED_ARCHITECTURES
from cellnet.config.train import ModelSpec
from cellnet.networks.architectures import ARCHITECTURES, create
from cellnet.networks.saliency import grad_cam
from cellnet.networks.views import watched


class Bright(nn.Module):
    """Two lineages: dark and bright, by the mean of a fixed blur."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(1, 1, 9, stride=4, padding=4, bias=False)
        nn.init.constant_(self.body.weight, 1 / 81)
        self.out = nn.Linear(1, 2, bias=False)
        self.out.weight.data = torch.tensor([[-1.0], [1.0]])

    def forward(self, input_B1HW: Tensor) -> Tensor:
        logits_BK: Tensor = self.out(self.body(input_B1HW).mean(dim=(2, 3)))
        return logits_BK


def test_it_points_at_the_bright_corner_that_makes_a_tile_bright() -> None:
    input_1HW = torch.zeros(1, 200, 200)
    input_1HW[0, 20:60, 120:160] = 1
    cam_HW = grad_cam(Bright(), input_1HW, label=1)
    assert cam_HW.shape == (200, 200) and cam_HW.max() == 1
    assert np.unravel_index(cam_HW.argmax(), cam_HW.shape) == pytest.approx((40, 140), abs=20)
    assert cam_HW[100:, :100].max() == 0
    assert grad_cam(Bright(), input_1HW, label=0).max() == 0, "nothing speaks for dark"


@pytest.mark.slow
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_every_architecture_gives_a_map_and_keeps_no_hooks(architecture: str) -> None:
    task = "count" if architecture == "density" else "classify"
    torch.manual_seed(0)
    small = {} if architecture in FIXED_ARCHITECTURES else {"width": 4, "depth": 2}
    network = create(ModelSpec(architecture=architecture, **small), task, classes=3).eval()
    label = 1 if task == "classify" else None
    with torch.no_grad():
        cam_HW = grad_cam(network, torch.rand(1, 200, 200), label)
    assert cam_HW.shape == (200, 200) and cam_HW.min() >= 0 and cam_HW.max() <= 1
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in network.modules())


@pytest.mark.slow
def test_a_frozen_counters_map_is_of_the_places_that_its_last_layers_see() -> None:
    torch.manual_seed(0)
    network = create(ModelSpec(architecture="efficientnet_lite0", frozen=True), "count").eval()
    nn.init.zeros_(network.out.last.weight)  # a place counts by its first feature alone
    network.out.last.weight.data[0, 0] = 1
    for layer in (network.out.first, network.out.second):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        layer.weight.data[0, 0] = 1
    network.out.last.bias.data[0] = 0
    input_1HW = torch.rand(1, 200, 200)
    with watched(network, places=True) as seen, torch.no_grad():
        network(input_1HW[None])
    first_hw = torch.relu(seen[0][0, :, 0]).reshape(25, 25)
    cam_hw = torch.from_numpy(grad_cam(network, input_1HW))[None, None]
    enlarged = nn.functional.interpolate(first_hw[None, None], (200, 200), mode="bilinear")
    torch.testing.assert_close(cam_hw, enlarged / enlarged.max())
