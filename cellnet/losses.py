"""What a training makes small."""

from torch import Tensor, nn

from cellnet.config import Task


def of_batch(task: Task, output: Tensor, label_B: Tensor, count_B: Tensor) -> Tensor:
    """Cross-entropy of the lineage, or a Huber loss of the count: squared near the truth, linear far off."""
    if task == "classify":
        return nn.functional.cross_entropy(output, label_B, label_smoothing=0.05)
    return nn.functional.smooth_l1_loss(output, count_B)
