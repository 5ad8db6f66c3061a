"""The networks: their outputs, where they start, and how large they are."""

import itertools

import pytest
import torch

from cellnet.config import ModelSpec
from cellnet.models import create, parameters_n

TILES_B1HW = torch.randn(3, 1, 200, 200, generator=torch.Generator().manual_seed(0))
ARCHITECTURES = ("paper", "residual")


def spec(**choices: object) -> ModelSpec:
    return ModelSpec(**({"width": 2, "depth": 2} | choices))


@pytest.mark.parametrize(
    ("architecture", "activation"),
    list(itertools.product(ARCHITECTURES, ("relu", "leaky_relu", "tanh", "sigmoid"))),
)
def test_a_classifier_gives_a_logit_a_class_and_a_counter_a_count_never_negative(
    architecture: str, activation: str
) -> None:
    choices = spec(architecture=architecture, activation=activation)
    assert create(choices, "classify", classes=5)(TILES_B1HW).shape == (3, 5)
    count_B = create(choices, "count", mean_count=3)(TILES_B1HW * 50)
    assert count_B.shape == (3,) and (count_B >= 0).all()


@pytest.mark.parametrize(
    ("architecture", "depth", "mean_count"),
    [*itertools.product(ARCHITECTURES, range(1, 6), (20,)), ("residual", 5, 30_000), ("residual", 1, 0)],
)
def test_a_fresh_counter_starts_near_the_mean_count(architecture: str, depth: int, mean_count: float) -> None:
    torch.manual_seed(0)
    network = create(spec(architecture=architecture, depth=depth), "count", mean_count=mean_count).eval()
    with torch.inference_mode():
        assert network(TILES_B1HW).numpy() == pytest.approx(max(mean_count, 0.1), rel=0.25)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("depth", range(1, 6))
def test_a_last_batch_of_one_tile_can_be_trained_on(architecture: str, depth: int) -> None:
    network = create(spec(architecture=architecture, depth=depth), "count").train()
    network(TILES_B1HW[:1]).sum().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in network.parameters())


def test_the_paper_network_has_the_parameters_of_its_layers() -> None:
    stages = (1 * 4 * 9 + 4) + (4 * 8 * 9 + 8)
    dense = 8 * 48 * 48 * 64 + 64  # 200 → 99 → 48 a side
    network = create(ModelSpec(architecture="paper", width=4, depth=2), "classify", classes=3)
    assert parameters_n(network) == stages + dense + 64 * 3 + 3
