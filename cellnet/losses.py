"""What a training makes small."""

from collections.abc import Callable

from torch import Tensor, nn

from cellnet.config import Task
from cellnet.inputs import Target

Criterion = Callable[[Tensor, Target], Tensor]
"""The loss of a batch, from the network's output and what is true."""


def criterion_of(task: Task) -> Criterion:
    """Cross-entropy of the lineage, or a Huber loss of the count: squared near the truth, linear far off."""
    if task == "classify":
        return lambda output, target: nn.functional.cross_entropy(output, target.label_B, label_smoothing=0.05)
    return lambda output, target: nn.functional.smooth_l1_loss(output, target.count_B)
