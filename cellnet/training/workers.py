"""What the workers of one training do as one: sums, outputs of all, one set of running statistics.

In a process of its own, without a process group of torch's, each is what a single worker does.
"""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn


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


def share_statistics(network: nn.Module) -> None:
    """Give all workers the mean of the running statistics that each took over its own tiles.

    Each step a batch norm normalises by the tiles of its worker alone. Statistics over all of them in each step, as
    torch's SyncBatchNorm takes them, would wait for the other workers twenty times a step: on CPUs, which
    SyncBatchNorm refuses, that halves the speed.
    """
    statistics = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    if workers_n() == 1 or not statistics:
        return
    means = torch.cat([buffer.flatten() for buffer in statistics]) / workers_n()
    dist.all_reduce(means)
    for buffer, mean in zip(statistics, torch.split(means, [buffer.numel() for buffer in statistics]), strict=True):
        buffer.copy_(mean.view_as(buffer))
