"""What a training starts from, by its name."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cellnet.config.train import ModelSpec, TrainConfig
from cellnet.config.tune import TuneConfig
from cellnet.errors import ConfigError, NotFoundError
from cellnet.networks.weights import fresh_network, weights_to_bytes
from cellnet.registry.records import Card
from cellnet.registry.registry import Registry
from cellnet.registry.starting import find_start, with_fixed_start, with_fixed_starts
from cellnet.untrusted import WEIGHTS

SMALL = {"architecture": "residual", "width": 4, "depth": 2}


def config(**model: object) -> TrainConfig:
    return TrainConfig(task="classify", model=ModelSpec(**(SMALL | model)))


@pytest.fixture
def registry(tmp_path: Path, card: Callable[..., Card]) -> Registry:
    """A registry whose classifier@1, its champion, has weights of its own."""
    registry = Registry.open(str(tmp_path))
    torch.manual_seed(1)
    weights = weights_to_bytes(fresh_network(config(), 2).state_dict())
    registry.publish("classifier", {WEIGHTS: weights}, card("classify", classes=("A172", "VERO6")))
    registry.promote("classifier@1", "champion")
    return registry


@pytest.mark.parametrize("name", [None, "none"])
def test_by_chance_unless_told(registry: Registry, name: str | None) -> None:
    assert find_start(registry, config(weights=name)) is None


@pytest.mark.parametrize("name", ["classifier@1", "classifier:champion"])
def test_a_version_is_started_from_and_named_by_its_number(registry: Registry, name: str) -> None:
    start = find_start(registry, config(weights=name))
    assert start is not None and start.started.source == "classifier@1"
    held = registry.resolve("classifier@1").blobs[WEIGHTS]
    assert start.started.sha256 == held.sha256
    network = fresh_network(config(), 5, start=start).state_dict()  # of more lineages
    assert torch.equal(network["body.0.0.weight"], start.weights["body.0.0.weight"])


def test_an_alias_is_the_version_that_it_points_at_when_the_command_is_typed(registry: Registry) -> None:
    space = {"model.weights": ("none", "classifier:champion", "classifier@1"), "kernel": ("none",)}
    alone = with_fixed_start(registry, config(weights="classifier:champion"))
    search = with_fixed_starts(registry, TuneConfig(train=config(weights="classifier:champion"), space=space))
    version = registry.resolve("classifier@1")
    registry.publish("classifier", {WEIGHTS: registry.read(version, WEIGHTS)}, version.card)
    registry.promote("classifier@2", "champion")
    for fixed in (alone, search.train):
        assert find_start(registry, fixed).parent == fixed.model.weights == "classifier@1"
    assert search.space == {"model.weights": ("none", "classifier@1"), "kernel": ("none",)}
    for name in (None, "imagenet", "C:/weights.safetensors", "classifier@1"):
        assert with_fixed_start(registry, config(weights=name)) == config(weights=name)
    with pytest.raises(NotFoundError, match="classifier:trial"):
        with_fixed_start(registry, config(weights="classifier:trial"))


def test_what_names_no_weights_is_refused(registry: Registry) -> None:
    with pytest.raises(ConfigError, match=r"model.weights=pictures names no weights; write none, imagenet, a file"):
        find_start(registry, config(weights="pictures"))
    with pytest.raises(NotFoundError, match="classifier@7"):
        find_start(registry, config(weights="classifier@7"))
    with pytest.raises(ConfigError, match="no ImageNet weights of residual"):
        find_start(registry, config(weights="imagenet"))
    with pytest.raises(ConfigError, match="a frozen residual that starts by chance sees nothing; give it weights"):
        find_start(registry, config(frozen=True))
