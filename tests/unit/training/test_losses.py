"""What a training makes small: weights of rare lineages, density maps, counts."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from cellnet.config.train import Augment, ModelSpec, Preprocess, TrainConfig
from cellnet.networks.views import forward
from cellnet.networks.weights import fresh_network
from cellnet.training.batches import Target, vary
from cellnet.training.fit import fit
from cellnet.training.losses import (
    MAX_CLASS_WEIGHT,
    NEAR,
    balanced_weights,
    count_loss,
    criterion_of,
    map_loss,
    spread_cells,
)
from cellnet.training.tiles import Batch
from tests.factories import in_memory


def maps(*places: tuple[int, int, int]) -> torch.Tensor:
    """A map of 50×50 fields with so many cells at each row and column."""
    cells_hw = torch.zeros(50, 50)
    for row, column, cells in places:
        cells_hw[row, column] += cells
    return cells_hw[None]


def test_a_density_map_holds_as_many_cells_as_there_are_also_at_the_border() -> None:
    density_Bhw = spread_cells(maps((0, 0, 1), (49, 20, 2), (25, 25, 4)))
    assert float(density_Bhw.sum()) == pytest.approx(7, rel=1e-5)
    assert float(density_Bhw[0, 20:31, 20:31].sum()) == pytest.approx(4, rel=1e-3)
    assert (density_Bhw >= 0).all()


def test_the_density_map_of_a_turned_tile_is_the_turned_density_map() -> None:
    cells_Bhw = maps((3, 7, 1), (40, 2, 2)).repeat(16, 1, 1)
    tiles_B1HW = cells_Bhw.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
    target = Target(torch.full((16,), -1), cells_Bhw.sum(dim=(1, 2)), cells_Bhw)
    chance, preprocess = torch.Generator().manual_seed(0), Preprocess(tile_px=(200, 200))
    varied_B1HW, varied = vary(tiles_B1HW, target, Augment(jitter=0), chance, task="count", preprocess=preprocess)
    assert varied.cells_Bhw is not None
    assert torch.equal(varied.cells_Bhw, varied_B1HW[:, 0, ::4, ::4]), "every field went where its pixels went"
    assert len({tuple(cells_hw.flatten().tolist()) for cells_hw in varied.cells_Bhw}) > 4, "of eight orientations"
    assert torch.allclose(spread_cells(varied.cells_Bhw).sum(dim=(1, 2)), target.count_B)


def test_the_loss_of_a_map_is_least_at_the_truth_and_wants_the_places() -> None:
    truth_Bhw = spread_cells(maps((10, 10, 1), (30, 40, 1)))
    elsewhere_Bhw = spread_cells(maps((30, 10, 1), (10, 40, 1)))
    assert float(map_loss(truth_Bhw, truth_Bhw)) == pytest.approx(0, abs=1e-3)
    assert map_loss(elsewhere_Bhw, truth_Bhw) > map_loss(0.9 * truth_Bhw, truth_Bhw) > 0.001


def test_where_centres_are_not_known_a_density_counter_learns_from_the_count_alone() -> None:
    density_Bhw = torch.full((2, 50, 50), 1 / 2500)
    count_B = torch.tensor([1.0, 3.0])
    unknown = Target(torch.tensor([-1, -1]), count_B, torch.full((2, 50, 50), torch.nan))
    assert float(count_loss(density_Bhw, unknown)) == pytest.approx((0 + 2 - NEAR / 2) / 2, rel=1e-4)
    assert count_loss(density_Bhw, unknown._replace(cells_Bhw=None)) == count_loss(density_Bhw, unknown)
    half_known = torch.cat([maps((5, 5, 1)), torch.full((1, 50, 50), torch.nan)])
    loss = count_loss(density_Bhw.requires_grad_(), unknown._replace(cells_Bhw=half_known))
    loss.backward()
    assert loss.isfinite() and density_Bhw.grad is not None and density_Bhw.grad.isfinite().all()
    assert density_Bhw.grad[0].std() > 0 and density_Bhw.grad[1].std() == 0, "places matter in the first tile alone"


def test_weights_make_lineages_weigh_the_same_within_a_bound() -> None:
    assert balanced_weights([40, 40, 40]).tolist() == [1, 1, 1]
    tiles_K = torch.tensor([60.0, 20.0, 10.0])
    weight_K = balanced_weights([60, 20, 10])
    assert torch.allclose(weight_K * tiles_K, torch.full((3,), 30.0))
    rare_K = balanced_weights([10_000, 1, 0])
    assert rare_K[1] / rare_K[0] == rare_K[2] / rare_K[0] == pytest.approx(MAX_CLASS_WEIGHT)


def lines(rng: np.random.Generator, *tiles: int) -> Batch:
    """So many tiles of each of two lineages that differ in brightness, but overlap: one in six is on the wrong side."""
    label = np.repeat([0, 1], tiles)
    pixels = rng.normal(110, 5, (len(label), 200, 200)) + (rng.normal(0, 10, len(label)) + 20 * label)[:, None, None]
    unknown = np.full(len(label), np.nan, np.float32)
    return Batch(pixels=pixels.clip(0, 255).astype(np.uint8), label=label, count=unknown)


def recalls(class_weights: str) -> tuple[float, float]:
    """Of a common and a rare lineage, 10 to 1 in training, on tiles of which each has as many."""
    train, test = lines(np.random.default_rng(0), 80, 8), lines(np.random.default_rng(1), 30, 30)
    model = ModelSpec(width=4, depth=1, dropout=0)
    config = TrainConfig(
        task="classify",
        model=model,
        epochs=10,
        batch_size=8,
        learning_rate=2e-2,
        class_weights=class_weights,
        augment={"jitter": 0},
    )
    preprocess = Preprocess(tile_px=(200, 200))
    torch.manual_seed(0)
    network = fresh_network(config, 2)
    fit(
        network,
        config,
        preprocess,
        criterion=criterion_of(config, class_tiles=[80, 8]),
        train_batches=in_memory(train, 8, seed=0),
        test_batches=None,
        tiles=88,
        on_epoch=lambda state: None,
    )
    input_B1HW = torch.from_numpy((test["pixels"][:, None] / 255 - 0.5) / 0.15).float()
    said = forward(network.eval(), input_B1HW, "classify").argmax(1)
    return tuple(float((said[test["label"] == label] == label).mean()) for label in (0, 1))  # type: ignore[return-value]


@pytest.mark.slow
def test_with_weights_a_rare_lineage_is_recognised_more_evenly() -> None:
    weighted, plain = recalls("balanced"), recalls("none")
    assert weighted[1] > plain[1]
    assert sum(weighted) / 2 > sum(plain) / 2 + 0.05, "balanced accuracy"


@pytest.mark.slow
def test_a_density_counter_learns_where_cells_are(discs: Callable) -> None:
    drawn = [discs(count, seed=count) for count in range(1, 17)]
    cells = np.zeros((16, 50, 50), np.uint8)
    for number, (_, centres_N2) in enumerate(drawn):
        for x, y in (centres_N2 / 4).astype(int):
            cells[number, y, x] += 1
    count = np.arange(1, 17, dtype=np.float32)
    pixels = np.stack([image_HW for image_HW, _ in drawn])
    batch = Batch(pixels=pixels, label=np.zeros(16, np.int64), count=count, cells=cells)
    model = ModelSpec(architecture="density", width=4, depth=2)
    config = TrainConfig(task="count", model=model, epochs=40, batch_size=4, learning_rate=2e-2)
    torch.manual_seed(0)
    network = fresh_network(config, 0, mean_count=float(count.mean()))
    fit(
        network,
        config,
        Preprocess(tile_px=(200, 200)),
        criterion=criterion_of(config),
        train_batches=in_memory(batch, 4, seed=0),
        test_batches=None,
        tiles=16,
        on_epoch=lambda state: None,
    )
    image_HW, centres_N2 = discs(10, seed=99)
    input_11HW = torch.from_numpy((image_HW[None, None] / 255 - 0.5) / 0.15).float()
    network.eval()
    network.training = True  # the map, with batch norms as in evaluation
    density_hw = network(input_11HW)[0].detach().numpy()
    near_hw = np.zeros((50, 50), bool)
    for x, y in (centres_N2 / 4).astype(int):
        near_hw[y - 2 : y + 3, x - 2 : x + 3] = True
    assert density_hw[near_hw].sum() > 0.5 * density_hw.sum(), "on a tenth of the area"
    assert density_hw.sum() == pytest.approx(10, rel=0.25)
