"""Training in memory: networks that learn what they are shown, and say so when they do not."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cellnet import training
from cellnet.config import ModelSpec, Preprocess, TrainConfig
from cellnet.errors import DataError
from cellnet.losses import criterion_of
from cellnet.predictor import fresh_network
from cellnet.training import Batch, Epoch, fit, in_memory, is_better, score_batches

PREPROCESS = Preprocess(tile_px=(200, 200))


def counted(discs: Callable, seeds: range) -> Batch:
    """A tile a seed, of 0 to 24 discs."""
    counts = np.random.default_rng(seeds.start).integers(0, 25, len(seeds))
    pixels = [discs(int(count), seed=seed)[0] for count, seed in zip(counts, seeds, strict=True)]
    return Batch(pixels=np.stack(pixels), label=np.zeros(len(seeds), np.int64), count=counts.astype(np.float32))


def discs_and_stripes(discs: Callable, seeds: range) -> Batch:
    """Tiles of discs (0) and of stripes (1), with the same grey values."""
    label = np.array([seed % 2 for seed in seeds])
    pixels = []
    for seed, is_striped in zip(seeds, label, strict=True):
        if is_striped:
            rng = np.random.default_rng(seed)
            wave_W = np.sin(np.arange(200) / 3 + rng.uniform(0, 6)) > 0.8
            pixels.append(np.clip(rng.normal(100, 4, (200, 200)) + 80 * wave_W, 0, 255).astype(np.uint8))
        else:
            pixels.append(discs(20, seed=seed)[0])
    return Batch(pixels=np.stack(pixels), label=label, count=np.full(len(label), np.nan, np.float32))


def trained(
    train: Batch, test: Batch | None = None, *, batch_size: int = 4, classes: int = 2, **choices: object
) -> tuple[nn.Module, list[Epoch], list[dict[str, Tensor]]]:
    """A tiny network trained on the batch, with what was reported of every epoch."""
    model = ModelSpec(width=4, depth=3, dropout=0)
    config = TrainConfig(**({"task": "count", "model": model, "learning_rate": 1e-2, "epochs": 2} | choices))
    torch.manual_seed(config.seed)
    network = fresh_network(config, classes, mean_count=float(np.nan_to_num(train["count"]).mean()))
    epochs, weights = [], []
    fit(
        network,
        config,
        PREPROCESS,
        criterion=criterion_of(config),
        train_batches=in_memory(train, batch_size, seed=config.seed),
        test_batches=None if test is None else lambda: [test],
        steps_per_epoch=math.ceil(len(train["label"]) / batch_size),
        on_epoch=lambda epoch, state: (epochs.append(epoch), weights.append(state)),
    )
    return network, epochs, weights


def test_a_counter_learns_to_count_discs(discs: Callable) -> None:
    train, test = counted(discs, range(24)), counted(discs, range(100, 112))
    network, epochs, _ = trained(train, test, epochs=12)
    always_the_mean = np.abs(test["count"] - train["count"].mean()).mean()
    assert epochs[-1].test["mae"] < always_the_mean / 2
    assert [epoch.number for epoch in epochs] == list(range(1, 13))
    assert {epoch.tiles for epoch in epochs} == {24}
    twelve = Batch(pixels=discs(12, seed=7)[0][None], label=np.zeros(1, np.int64), count=np.float32([12]))
    assert score_batches(network, "count", PREPROCESS, [twelve])["mae"] < 4


def test_a_classifier_learns_to_tell_discs_from_stripes(discs: Callable) -> None:
    train, test = discs_and_stripes(discs, range(16)), discs_and_stripes(discs, range(100, 116))
    _, epochs, _ = trained(train, test, task="classify", epochs=5)
    assert epochs[-1].test == {"accuracy": 1.0, "balanced_accuracy": 1.0}


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(discs: Callable) -> None:
    train = counted(discs, range(8))
    first, same, other = (trained(train, seed=seed)[2] for seed in (3, 3, 4))
    assert all(torch.equal(value, same[-1][name]) for name, value in first[-1].items())
    assert not torch.equal(first[-1]["out.weight"], other[-1]["out.weight"])


def test_the_weights_of_an_epoch_are_a_copy_that_later_epochs_leave_alone(discs: Callable) -> None:
    _, _, weights = trained(counted(discs, range(4)))
    assert not torch.equal(weights[0]["out.weight"], weights[1]["out.weight"])


@pytest.mark.parametrize("task", ["count", "classify"])
@pytest.mark.parametrize("batch_size", [2, 8], ids=["within an epoch", "at its end"])
def test_a_training_that_diverges_says_to_lower_the_rate(discs: Callable, task: str, batch_size: int) -> None:
    batch = counted(discs, range(8))
    with pytest.raises(DataError, match=r"training diverged; lower the rate, for example --set learning_rate="):
        trained(batch, batch, task=task, batch_size=batch_size, learning_rate=1e30)


def test_without_a_test_split_an_epoch_has_no_scores(discs: Callable) -> None:
    assert trained(counted(discs, range(4)), epochs=1)[1][0].test == {}


def test_batches_in_memory_hold_every_tile_once_in_an_order_of_the_epoch() -> None:
    n = 10
    whole = Batch(
        pixels=np.arange(n, dtype=np.uint8)[:, None, None], label=np.arange(n), count=np.arange(n, dtype=np.float32)
    )
    batches = in_memory(whole, 4, seed=0)
    orders = [[batch["label"].tolist() for batch in batches(epoch)] for epoch in (1, 1, 2)]
    assert [len(batch) for batch in orders[0]] == [4, 4, 2]
    assert sorted(row for batch in orders[0] for row in batch) == list(range(n))
    assert orders[0] == orders[1] != orders[2]
    for batch in batches(1):
        assert batch["pixels"][:, 0, 0].tolist() == batch["label"].tolist() == batch["count"].tolist()


def test_more_accuracy_is_better_and_more_error_is_not() -> None:
    assert is_better("classify", 0.9, 0.8) and not is_better("classify", 0.8, 0.8)
    assert is_better("count", 1.0, 2.0) and not is_better("count", 2.0, 1.0)
    assert is_better("count", 9.0, None)
    assert set(training.STEERING) == {"classify", "count"}
