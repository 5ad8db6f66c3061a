"""What a training starts from, by its name."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cellnet.bank.bank import Bank
from cellnet.config.train import ModelSpec, StartedFrom, TrainConfig
from cellnet.config.tune import TuneConfig
from cellnet.errors import ConfigError, NotFoundError
from cellnet.networks.weights import fresh_network, weights_to_bytes
from cellnet.registry.learned import frames_to_bytes
from cellnet.registry.records import LEARNED, Card
from cellnet.registry.registry import Registry
from cellnet.registry.starting import check_start, find_origin, find_start, with_fixed_start, with_fixed_starts
from cellnet.training.plan import make_plan
from cellnet.untrusted import WEIGHTS
from tests.factories import bank_of

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


def test_a_version_that_is_all_that_is_said_of_the_network_brings_its_own(
    registry: Registry, card: Callable[..., Card]
) -> None:
    frozen = ModelSpec(architecture="efficientnet_lite0", frozen=True, weights="imagenet", views=8)
    taught = TrainConfig(task="count", model=frozen, greys="background", tile=300, folds=5, kernel="sharpen")
    registry.publish("regressor", {WEIGHTS: b"w"}, card().model_copy(update={"config": taught}))
    registry.promote("regressor@1", "champion")

    def started(task: str, **said: object) -> TrainConfig:
        model = ModelSpec(weights="regressor:champion", **said.pop("model", {}))
        return with_fixed_start(registry, TrainConfig(task=task, model=model, **said))

    inherited = started("count")
    assert inherited.model == frozen.model_copy(update={"weights": "regressor@1"})
    assert (inherited.greys, inherited.tile, inherited.kernel, inherited.folds) == (
        "background",
        300,
        "sharpen",
        "auto",
    )
    own = started("count", kernel="edge", model={"views": 1})
    assert (own.kernel, own.greys, own.model.views, own.model.frozen) == ("edge", "background", 1, True)
    for other in (started("count", model={"architecture": "residual"}), started("classify")):
        assert other.model.weights == "regressor@1" and other.model.frozen is None and other.kernel == "none"


@pytest.fixture
def taught(registry: Registry, card: Callable[..., Card], tmp_path: Path) -> tuple[Registry, Bank]:
    """A bank, and classifier@2, whose whole network learned from all of its frames by folds, from photographs."""
    wells = [f"w{n}" for n in range(6)]
    bank = Bank.open(bank_of(tmp_path / "wells", {"A172": wells, "VERO6": [f"v{well}" for well in wells]}))
    made = card("classify", classes=("A172", "VERO6"))
    by_folds = made.model_copy(
        update={
            "config": config().model_copy(update={"folds": 5}),
            "bank": bank.store.uri,
            "start": StartedFrom(source="classifier@1", sha256=registry.resolve("classifier@1").blobs[WEIGHTS].sha256),
        }
    )
    weights = registry.read(registry.resolve("classifier@1"), WEIGHTS)
    files = {WEIGHTS: weights, LEARNED: frames_to_bytes(set(bank.frames.values("frame")))}
    registry.publish("classifier", files, by_folds)
    return registry, bank


@pytest.mark.parametrize(
    ("folds", "frozen", "why"),
    [
        (0, None, r"classifier@2 has learned from \d+ of the \d+ frames that would score .*; take --set folds=5"),
        (3, True, r"classifier@2 has learned from 12 of the 12 frames .*; train all layers by model.frozen=false"),
        (3, None, None),
    ],
)
def test_frames_that_taught_what_a_training_starts_from_score_nothing(
    taught: tuple[Registry, Bank], folds: int, frozen: bool | None, why: str | None
) -> None:
    registry, bank = taught
    wanted = config(weights="classifier@2", frozen=frozen).model_copy(update={"folds": folds, "tile": "frame"})
    plan = make_plan(bank, wanted)
    start = find_start(registry, plan.config)
    if why is None:
        return check_start(registry, plan, bank, start)
    with pytest.raises(ConfigError, match=why):
        check_start(registry, plan, bank, start)


def test_networks_of_folds_start_where_the_first_of_the_versions_did(taught: tuple[Registry, Bank]) -> None:
    registry, _ = taught
    assert find_origin(registry, config(), None) is None
    later = find_start(registry, config(weights="classifier@2"))
    assert find_origin(registry, config(weights="classifier@2"), later) is None, "by chance, as classifier@1 did"
    lost = registry.resolve("classifier@2").card
    lost = lost.model_copy(update={"start": StartedFrom(source="classifier@1", sha256="0" * 64)})
    registry.publish("other", {WEIGHTS: registry.read(registry.resolve("classifier@2"), WEIGHTS)}, lost)
    with pytest.raises(ConfigError, match=r"folds would start from classifier@1, as other@1 did, .* --set folds=0"):
        find_origin(registry, config(), find_start(registry, config(weights="other@1")))
