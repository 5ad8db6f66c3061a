"""Several workers as one: two processes learn what a single one learns from the same tiles."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from cellnet.config import Augment, ModelSpec, Preprocess, TrainConfig
from cellnet.losses import criterion_of
from cellnet.predictor import fresh_network
from cellnet.training import Batch, TrainState, fit

WORKER = """
import sys
import numpy as np, torch, torch.distributed as dist
from torch import nn

torch.set_num_threads(1)
what, rank, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
sys.path.insert(0, sys.argv[4])
import test_parallel as test
from cellnet.parallel import share_batch_norm

mine = test.MINE[rank]
if what == "norm":
    norm = share_batch_norm(nn.Sequential(nn.BatchNorm2d(3)), torch.device("cpu"))
    values = test.through_norm(norm, mine)
else:
    network = share_batch_norm(test.network(), torch.device("cpu"))
    state = test.trained(nn.parallel.DistributedDataParallel(network), mine, rank=rank)
    values = state.weights | {"loss": torch.tensor([epoch.loss for epoch in state.history])}
test.safetensors.torch.save_file({name: value.contiguous() for name, value in values.items()}, f"{folder}/{rank}")
"""

TILES, STEP = 32, 8
MINE = ([row for row in range(TILES) if row % STEP < 5], [row for row in range(TILES) if row % STEP >= 5])
"""The rows of two workers, of which one has five of each eight: a step is the same eight tiles for both and for one."""
CONFIG = TrainConfig(
    task="count",
    model=ModelSpec(width=4, depth=2, dropout=0),
    augment=Augment(orientation="stored", mirror=False, jitter=0),
    batch_size=STEP,
    epochs=3,
    learning_rate=3e-3,
)


def network() -> nn.Module:
    torch.manual_seed(0)
    return fresh_network(CONFIG, 0, mean_count=5)


def trained(network: nn.Module, rows: list[int], *, rank: int = 0) -> TrainState:
    """What is left of a training on the rows of a batch of random tiles, in their order."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(60, 140, (TILES, 200, 200), np.uint8)
    counts = rng.integers(0, 10, TILES).astype(np.float32)
    batch = Batch(pixels=pixels[rows], label=np.zeros(len(rows), np.int64), count=counts[rows])
    states: list[TrainState] = []
    fit(
        network,
        CONFIG,
        Preprocess(tile_px=(200, 200)),
        criterion=criterion_of(CONFIG),
        train_batches=lambda epoch: [batch],
        test_batches=lambda: [batch] if rank == 0 else [],
        tiles=len(rows),
        on_epoch=states.append,
        rank=rank,
    )
    return states[-1]


def through_norm(norm: nn.Sequential, rows: list[int]) -> dict[str, torch.Tensor]:
    """Output, gradients and statistics of a batch norm that sees these rows of a batch."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(TILES, 3, 6, 5, generator=generator) * 3 + 2
    weights = torch.randn(TILES, 3, 6, 5, generator=generator)
    mine = values[rows].requires_grad_()
    out = norm.train()(mine)
    (out.square() * weights[rows]).sum().backward()
    assert mine.grad is not None
    grads = {f"grad {name}": value.grad for name, value in norm.named_parameters() if value.grad is not None}
    return {"out": out.detach(), "grad": mine.grad, **grads, **norm.state_dict()}


def by_two(what: str, folder: Path) -> list[dict[str, torch.Tensor]]:
    """What each of two processes comes to."""
    here = Path(__file__)
    words = [sys.executable, "-c", WORKER, what]
    workers = [
        subprocess.Popen([*words, str(rank), str(folder), str(here.parent)], cwd=here.parents[2]) for rank in (0, 1)
    ]
    assert [worker.wait(timeout=240) for worker in workers] == [0, 0]
    return [safetensors.torch.load_file(folder / str(rank)) for rank in (0, 1)]


def test_a_shared_batch_norm_is_a_batch_norm_over_the_tiles_of_all(tmp_path: Path) -> None:
    first, second = by_two("norm", tmp_path)
    whole = through_norm(nn.Sequential(nn.BatchNorm2d(3)), list(range(TILES)))
    for name in ("out", "grad"):
        torch.testing.assert_close(torch.cat([first[name], second[name]]), whole[name][MINE[0] + MINE[1]])
    for name in ("grad 0.weight", "grad 0.bias"):
        torch.testing.assert_close(first[name] + second[name], whole[name], rtol=1e-4, atol=1e-3)
    for name in ("0.running_mean", "0.running_var", "0.num_batches_tracked"):
        torch.testing.assert_close(first[name], whole[name])
        assert torch.equal(first[name], second[name])


def flat(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    """All parameters of a network in one vector, by name."""
    learned = dict(network().named_parameters())
    return torch.cat([weights[name].flatten() for name in sorted(learned)])


def test_two_workers_learn_what_one_learns_whatever_their_shares(tmp_path: Path) -> None:
    first, second = by_two("fit", tmp_path)
    alone = trained(network(), list(range(TILES)))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    # As a whole, since AdamW enlarges what sums are rounded by where a gradient is nearly 0.
    start, end, shared = (flat(weights) for weights in (network().state_dict(), alone.weights, first))
    apart = float((shared - end).norm() / (end - start).norm())
    assert apart < 0.05
    assert first["loss"].tolist() == pytest.approx([epoch.loss for epoch in alone.history], rel=1e-4)
    assert alone.history[0].loss > alone.history[-1].loss, "something was learned"
