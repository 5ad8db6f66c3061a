"""Several workers as one: two processes learn what a single one learns from the same tiles."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from cellnet.config.train import Augment, ModelSpec, Preprocess, TrainConfig
from cellnet.networks.weights import fresh_network
from cellnet.training.fit import fit
from cellnet.training.losses import criterion_of
from cellnet.training.state import TrainState
from cellnet.training.tiles import Batch

pytestmark = pytest.mark.slow

WORKER = """
import sys
import numpy as np, torch, torch.distributed as dist
from torch import nn

torch.set_num_threads(1)
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
sys.path.insert(0, sys.argv[3])
import test_workers as test

for what in test.ARCHITECTURES:
    network = nn.parallel.DistributedDataParallel(test.network(what), forward_sync_buffers=False)
    state = test.trained(network, test.MINE[rank], rank=rank)
    values = state.weights | {"loss": torch.tensor([epoch.loss for epoch in state.history])}
    values = {name: value.contiguous() for name, value in values.items()}
    test.safetensors.torch.save_file(values, f"{folder}/{what}-{rank}")
"""

ARCHITECTURES = ("paper", "residual")
TILES, STEP = 32, 8
MINE = ([row for row in range(TILES) if row % STEP < 5], [row for row in range(TILES) if row % STEP >= 5])
"""The rows of two workers, of which one has five of each eight: a step is the same eight tiles for both and for one."""
CONFIG = TrainConfig(
    task="count",
    precision="f32",
    augment=Augment(orientation="stored", mirror=False, jitter=0),
    batch_size=STEP,
    epochs=3,
    learning_rate=3e-3,
)


def network(architecture: str) -> nn.Module:
    torch.manual_seed(0)
    model = ModelSpec(architecture=architecture, width=4, depth=2, dropout=0)  # type: ignore[arg-type]
    return fresh_network(CONFIG.model_copy(update={"model": model}), 0, mean_count=5)


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


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, torch.Tensor]]]:
    """What each of two processes comes to, by architecture."""
    here, folder = Path(__file__), tmp_path_factory.mktemp("by_two")
    words = [sys.executable, "-c", WORKER]
    workers = [
        subprocess.Popen([*words, str(rank), str(folder), str(here.parent)], cwd=here.parents[3]) for rank in (0, 1)
    ]
    assert [worker.wait(timeout=240) for worker in workers] == [0, 0]
    return {what: [safetensors.torch.load_file(folder / f"{what}-{rank}") for rank in (0, 1)] for what in ARCHITECTURES}


def flat(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([weights[name].flatten() for name in sorted(weights)])


Both = dict[str, list[dict[str, torch.Tensor]]]


def test_two_workers_learn_what_one_learns_whatever_their_shares(by_two: Both) -> None:
    first, second = by_two["paper"]
    alone = trained(network("paper"), list(range(TILES)))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    loss = first.pop("loss")
    # As a whole, since AdamW enlarges what sums are rounded by where a gradient is nearly 0.
    start, end, shared = (flat(weights) for weights in (network("paper").state_dict(), alone.weights, first))
    apart = float((shared - end).norm() / (end - start).norm())
    assert apart < 0.05
    assert loss.tolist() == pytest.approx([epoch.loss for epoch in alone.history], rel=1e-4)
    assert alone.history[0].loss > alone.history[-1].loss, "something was learned"


def test_two_workers_end_with_the_same_running_statistics_which_are_those_of_one(by_two: Both) -> None:
    first, second = by_two["residual"]
    alone = trained(network("residual"), list(range(TILES)))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    for name in ("body.0.1.running_mean", "body.0.1.running_var"):  # of the layer that later ones do not move
        start = network("residual").state_dict()[name]
        apart = (first[name] - alone.weights[name]).norm() / (alone.weights[name] - start).norm()
        assert float(apart) < 0.1, name
