"""What the workers of one training do as one: sums, outputs of all, batch norm over the tiles of every worker.

In a process of its own, without a process group of torch's, each is what a single worker does.
"""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn


def workers_n() -> int:
    """How many workers train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def summed(*values: float, device: torch.device) -> list[float]:
    """Each value's sum over the workers; `device` is where they train."""
    sums = torch.tensor(values, dtype=torch.float64, device=device)
    if workers_n() > 1:
        dist.all_reduce(sums)
    return sums.tolist()


def gathered(values: NDArray[Any]) -> NDArray[Any]:
    """The rows of all workers, one worker's after the other's; a worker may have none."""
    if workers_n() == 1:
        return values
    parts: list[Any] = [None] * workers_n()
    dist.all_gather_object(parts, values)
    return np.concatenate([part for part in parts if len(part)] or parts[:1])


def unwrapped(network: nn.Module) -> nn.Module:
    """The network itself, without the wrapping that averages gradients."""
    return network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network


def share_batch_norm(network: nn.Module, device: torch.device) -> nn.Module:
    """The network with batch norms over the tiles of all workers, so that their number changes no statistics.

    torch's own SyncBatchNorm refuses CPUs. Parameters and buffers keep their names.
    """
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return converted
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm
    return network


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the tiles of all workers, on CPUs."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalised features; in evaluation as any batch norm does it."""
        if not self.training:
            return super().forward(input)
        out, mean_C, var_C, count = _Normalise.apply(input, self.weight, self.bias, self.eps)
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean_C, self.momentum)
        self.running_var.lerp_(var_C * (count / (count - 1)), self.momentum)
        normalised: Tensor = out
        return normalised


class _Normalise(torch.autograd.Function):
    """Ioffe & Szegedy 2015 (arXiv 1502.03167), with the sums of forward and backward taken over all workers."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean_C, var_C = torch.batch_norm_update_stats(input, None, None, 0.0)
        here = input.numel() // len(mean_C)
        sums = torch.cat([mean_C, var_C + mean_C.square(), mean_C.new_ones(1)]).double() * here
        dist.all_reduce(sums)
        count = sums[-1]
        mean_C, square_C = (sums[:-1] / count).chunk(2)
        var_C = (square_C - mean_C.square()).clamp(min=0).to(weight.dtype)
        mean_C, count = mean_C.to(weight.dtype), count.to(weight.dtype)
        ctx.save_for_backward(input, weight, mean_C, torch.rsqrt(var_C + eps), count)
        ctx.eps, ctx.here = eps, here
        ctx.mark_non_differentiable(mean_C, var_C, count)
        out = nn.functional.batch_norm(input, mean_C, var_C, weight, bias, training=False, eps=eps)
        return out, mean_C, var_C, count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        input, weight, mean_C, invstd_C, count = ctx.saved_tensors
        grad_input, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            grads[0], input, weight, None, None, mean_C, invstd_C, True, ctx.eps, [True, True, True]
        )
        # torch took the means over the tiles here; what they differ by from those over all is put right.
        means_2C = torch.cat([grad_weight, grad_bias])
        sums_2C = means_2C.clone()
        dist.all_reduce(sums_2C)
        weight_C, bias_C = (means_2C / ctx.here - sums_2C / count).chunk(2)
        slope_C = weight * invstd_C * weight_C * invstd_C
        shift_C = weight * invstd_C * bias_C - slope_C * mean_C
        grad_input.add_(torch.addcmul(shift_C[:, None, None], input, slope_C[:, None, None]))
        return grad_input, grad_weight, grad_bias, None
