"""One training in plain torch: batches in, scores and weights out. Knows neither Ray nor files.

The caller brings the batches (from Ray Data, or from memory), wraps the network for several workers, and hears
of every epoch through `on_epoch`.
"""

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cellnet import metrics
from cellnet.augment import Batch
from cellnet.config import Preprocess, Task, TrainConfig
from cellnet.errors import DataError
from cellnet.inputs import draw_variants, to_tensors
from cellnet.losses import Criterion


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one epoch came to."""

    number: int
    """From 1."""
    loss: float
    """Mean over the epoch's training tiles."""
    test: dict[str, float]
    """Scores over the test tiles; empty when the bank has no test split."""
    seconds: float
    tiles: int
    """Training tiles seen by this worker in this epoch."""


STEERING: dict[Task, tuple[str, bool]] = {"classify": ("balanced_accuracy", True), "count": ("mae", False)}
"""The score of the test split that chooses between epochs and trials, and whether more is better."""


def is_better(task: Task, score: float, than: float | None) -> bool:
    """Whether a score of the steering kind beats another (anything beats None)."""
    return than is None or (score > than if STEERING[task][1] else score < than)


def decide_epochs(config: TrainConfig, *, tiles: int) -> TrainConfig:
    """The configuration with its `auto` epochs decided, for so many training tiles.

    >>> decide_epochs(TrainConfig(task="count"), tiles=2000).epochs
    50
    """
    if config.epochs != "auto":
        return config
    return config.model_copy(update={"epochs": min(100, max(30, round(100_000 / tiles)))})


def seed_everything(seed: int) -> None:
    """Seed torch's global generator, which initialises weights and draws dropout."""
    torch.manual_seed(seed)


def fit(
    network: nn.Module,
    config: TrainConfig,
    preprocess: Preprocess,
    *,
    criterion: Criterion,
    train_batches: Callable[[int], Iterable[Batch]],
    test_batches: Callable[[], Iterable[Batch]] | None,
    steps_per_epoch: int,
    on_epoch: Callable[[Epoch, dict[str, Tensor]], None],
    rank: int = 0,
) -> None:
    """Train for `config.epochs` epochs, a number by now, and report each with the network's weights.

    `train_batches(epoch)` gives this worker's part of an epoch. Adam with decoupled weight decay on a one-cycle
    schedule (Smith & Topin 2018, arXiv 1708.07120). Raises DataError when the loss stops being a number.
    """
    epochs = int(config.epochs)
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(config.seed * 1000 + rank)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=config.learning_rate, total_steps=epochs * steps_per_epoch + 1
    )
    for number in range(1, epochs + 1):
        start_s = time.monotonic()
        network.train()
        total, tiles = 0.0, 0
        for step, batch in enumerate(train_batches(number)):
            input_B1HW, target = to_tensors(batch, preprocess, device)
            input_B1HW, target = draw_variants(input_B1HW, target, config.augment, generator)
            loss = criterion(network(input_B1HW), target)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
            if step < steps_per_epoch:
                schedule.step()
            total += loss.item() * len(input_B1HW)
            tiles += len(input_B1HW)
        mean_loss = total / max(tiles, 1)
        if not math.isfinite(mean_loss):
            raise DataError(
                f"the loss is {mean_loss} after epoch {number}: training diverged; "
                f"lower the rate, for example --set learning_rate={config.learning_rate / 10:g}"
            )
        test = score_batches(network, config.task, preprocess, test_batches()) if test_batches else {}
        epoch = Epoch(number=number, loss=mean_loss, test=test, seconds=time.monotonic() - start_s, tiles=tiles)
        on_epoch(epoch, weights_of(network))


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights on the CPU, without the wrapping of several workers."""
    inner = network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network
    return {name: copy.deepcopy(value.detach().cpu()) for name, value in inner.state_dict().items()}


@torch.inference_mode()
def forward(network: nn.Module, input_B1HW: Tensor, task: Task) -> NDArray[np.float32]:
    """Probabilities (B, K) or counts (B,) from a network in evaluation mode."""
    output = network(input_B1HW)
    values: NDArray[np.float32] = (output.softmax(1) if task == "classify" else output).float().cpu().numpy()
    return values


def score_batches(network: nn.Module, task: Task, preprocess: Preprocess, batches: Iterable[Batch]) -> dict[str, float]:
    """The steering scores over test tiles: a few numbers, cheap enough for every epoch.

    Raises DataError for outputs that are not numbers.
    """
    network.eval()
    inner = network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network
    device = next(inner.parameters()).device
    truths, outputs = [], []
    for batch in batches:
        input_B1HW, target = to_tensors(batch, preprocess, device)
        outputs.append(forward(inner, input_B1HW, task))
        truths.append((target.label_B if task == "classify" else target.count_B).cpu().numpy())
    if not outputs:
        return {}
    output = np.concatenate(outputs)
    if not np.isfinite(output).all():
        raise DataError(
            "the network's outputs are not numbers: training diverged; lower the rate, "
            "for example --set learning_rate=0.0003"
        )
    return metrics.steering(task, np.concatenate(truths), output)


def in_memory(batch: Batch, batch_size: int, *, seed: int) -> Callable[[int], Iterator[Batch]]:
    """Batches of a set of tiles that lies in memory, in a new seeded order each epoch."""

    columns = cast(dict[str, NDArray[Any]], batch)

    def batches(epoch: int) -> Iterator[Batch]:
        order = np.random.default_rng([seed, epoch]).permutation(len(batch["label"]))
        for start in range(0, len(order), batch_size):
            rows = np.sort(order[start : start + batch_size])
            yield cast(Batch, {name: column[rows] for name, column in columns.items()})

    return batches
