"""Where in a tile a network looks: Grad-CAM (Selvaraju et al. 2017, 10.1109/ICCV.2017.74)."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def grad_cam(network: nn.Module, input_1HW: Tensor, label: int | None = None) -> NDArray[np.float32]:
    """What speaks for a lineage, or for cells (`label` None), as a map (H, W) of 0..1; all 0 where nothing does.

    The features of the last spatial map before the last layers, each weighted by the mean gradient of the output by it,
    added up, cut at 0 and enlarged (eqs. 1 and 2). `input_1HW` is one normalised tile.
    """
    maps: list[Tensor] = []
    last = network.get_submodule("out")
    inside = set(last.modules())
    layers = [layer for layer in network.modules() if layer not in inside and layer is not network]

    def keep(output: object) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and min(output.shape[2:]) > 1:
            maps.append(output)

    handles = [layer.register_forward_hook(lambda layer, inputs, output: keep(output)) for layer in layers]
    handles.append(last.register_forward_pre_hook(lambda layer, inputs: keep(inputs[0])))  # what is joined on the way
    try:
        with torch.enable_grad():
            output = network(input_1HW[None].requires_grad_())
            target = output[0] if label is None else output[0, label]
            (gradient,) = torch.autograd.grad(target, maps[-1])
    finally:
        for handle in handles:
            handle.remove()
    weight = gradient.mean(dim=(2, 3), keepdim=True)
    cam = torch.relu((weight * maps[-1]).sum(1, keepdim=True))
    cam_HW = nn.functional.interpolate(cam, input_1HW.shape[1:], mode="bilinear")[0, 0]
    return np.asarray((cam_HW / cam_HW.max().clamp_min(1e-12)).detach().float().cpu().numpy())
