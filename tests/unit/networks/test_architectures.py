"""The networks: their outputs, where they start, and how large they are."""

import itertools

import pytest
import torch

from cellnet.config.choices import Activation
from cellnet.config.train import ModelSpec, TrainConfig
from cellnet.networks.architectures import create, parameters_n
from cellnet.networks.views import watched
from cellnet.tasks import Task
from cellnet.training.batches import Target
from cellnet.training.losses import criterion_of

TILES_B1HW = torch.randn(3, 1, 200, 200, generator=torch.Generator().manual_seed(0))
OURS = ("paper", "residual", "density")
OF_OTHERS = ("efficientnet_lite0", "resnet18", "convnext_tiny")
FROZEN = ModelSpec(architecture="efficientnet_lite0", frozen=True)
ACTIVATIONS: tuple[Activation, ...] = ("relu", "leaky_relu", "tanh", "sigmoid")


def spec(**choices: object) -> ModelSpec:
    return ModelSpec(**({"width": 2, "depth": 2} | choices))


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "activation"), list(itertools.product(OURS, ACTIVATIONS)))
def test_a_counter_gives_a_count_a_tile_never_negative(architecture: str, activation: str) -> None:
    network = create(spec(architecture=architecture, activation=activation), "count", mean_count=3).eval()
    count_B = network(TILES_B1HW * 50)
    assert count_B.shape == (3,) and (count_B >= 0).all()


@pytest.mark.parametrize(("architecture", "activation"), list(itertools.product(("paper", "residual"), ACTIVATIONS)))
def test_a_classifier_gives_a_logit_a_class(architecture: str, activation: str) -> None:
    network = create(spec(architecture=architecture, activation=activation), "classify", classes=5)
    assert network(TILES_B1HW).shape == (3, 5)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", OF_OTHERS)
@pytest.mark.parametrize("task", ["classify", "count"])
def test_a_network_that_others_drew_sees_grey_tiles_and_can_be_trained(architecture: str, task: Task) -> None:
    torch.manual_seed(0)
    network = create(ModelSpec(architecture=architecture), task, classes=5, mean_count=7)
    output = network(TILES_B1HW[:2])
    if output.ndim == 3:  # a density map
        output = output.sum(dim=(1, 2))
    assert output.shape == ((2, 5) if task == "classify" else (2,))
    if task == "count":
        assert output.detach().numpy() == pytest.approx(7, rel=0.3)
    output.sum().backward()
    assert all(weight.grad is not None and torch.isfinite(weight.grad).all() for weight in network.parameters())


def test_in_training_a_density_counter_gives_the_map_whose_sum_is_its_count() -> None:
    network = create(spec(architecture="density"), "count", mean_count=3)
    assert network.train()(TILES_B1HW).shape == (3, 50, 50)
    network.eval()
    count_B = network(TILES_B1HW)
    network.training = True  # the map alone: batch norms stay as in evaluation
    assert torch.allclose(network(TILES_B1HW).sum(dim=(1, 2)), count_B)


def test_a_frozen_counter_says_how_many_cells_each_place_has_and_starts_near_the_mean_count() -> None:
    torch.manual_seed(0)
    network = create(FROZEN, "count", mean_count=7).eval()
    with torch.inference_mode():
        count_B = network(TILES_B1HW)
        network.training = True  # the map alone: batch norms stay as in evaluation
        places_Bhw = network(TILES_B1HW)
    assert count_B.shape == (3,) and count_B.numpy() == pytest.approx(7, rel=0.25)
    assert places_Bhw.shape == (3, 25, 25) and (places_Bhw >= 0).all()
    assert torch.allclose(places_Bhw.sum(dim=(1, 2)), count_B)


def test_a_frozen_counter_has_the_first_stages_of_a_whole_one_and_sees_their_features_at_every_place() -> None:
    frozen, whole = (create(FROZEN.model_copy(update={"frozen": how}), "count") for how in (True, False))
    stages = {name: value.shape for name, value in frozen.body.state_dict().items()}
    assert stages.items() < {name: value.shape for name, value in whole.body.state_dict().items()}.items()
    assert len(frozen.body.stages) == 5 < len(whole.body.stages)
    with torch.inference_mode(), watched(frozen.eval(), places=True) as seen, watched(frozen) as means:
        frozen(TILES_B1HW)
        levels = frozen.body(TILES_B1HW)
    [seen_BPC] = seen
    assert seen_BPC.shape == (3, 625, 24 + 40 + 112)
    assert torch.equal(seen_BPC[:, 2 * 25 + 3, 24:64], levels[1][:, :, 2, 3])
    assert torch.allclose(seen_BPC[:, 2 * 25 + 3, :24], levels[0][:, :, 4:6, 6:8].mean(dim=(2, 3)), atol=1e-5)
    assert torch.allclose(means[0], seen_BPC.mean(dim=1), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_papers_counter_does_not_die_in_its_first_steps(activation: Activation, seed: int) -> None:
    torch.manual_seed(seed)
    config = TrainConfig(task="count", model=ModelSpec(architecture="paper", activation=activation, width=4, depth=3))
    network = create(config.model, "count", mean_count=1.5)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate)
    criterion = criterion_of(config)
    count_B = torch.arange(8) % 4 / 1.0
    tiles_B1HW = torch.randn(8, 1, 200, 200) * (1 + count_B)[:, None, None, None]
    for _ in range(30):
        optimizer.zero_grad()
        criterion(network(tiles_B1HW), Target(torch.full((8,), -1), count_B)).backward()
        optimizer.step()
    assert (network.eval()(tiles_B1HW) > 0).any()


@pytest.mark.parametrize(
    ("architecture", "depth", "mean_count"),
    [*itertools.product(OURS, range(1, 6), (20,)), ("residual", 5, 30_000), ("residual", 1, 0)],
)
def test_a_fresh_counter_starts_near_the_mean_count(architecture: str, depth: int, mean_count: float) -> None:
    torch.manual_seed(0)
    network = create(spec(architecture=architecture, depth=depth), "count", mean_count=mean_count).eval()
    with torch.inference_mode():
        assert network(TILES_B1HW).numpy() == pytest.approx(max(mean_count, 0.1), rel=0.25)


@pytest.mark.parametrize("architecture", OURS)
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
