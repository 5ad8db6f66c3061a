"""The ONNX export: the same answers as torch, whatever was chosen, and a file that names no place of this machine."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from cellnet.certainty.calibration import Calibration
from cellnet.config.train import ModelSpec
from cellnet.errors import IntegrityError
from cellnet.images.pixels import KERNELS, apply_kernel
from cellnet.networks.architectures import create
from cellnet.networks.pretrained import imagenet_start
from cellnet.networks.weights import start_from
from cellnet.prediction.export import Exported, compare, run_onnx, to_onnx
from cellnet.prediction.predictor import Predictor
from cellnet.registry.records import Card
from cellnet.untrusted import check_onnx

pytestmark = pytest.mark.slow

CLASSES = ("A549", "SH-SY5Y", "THP1")
TINY = {"width": 4, "depth": 2}


@pytest.fixture
def tiles(discs: Callable) -> list[NDArray[np.uint8]]:
    """Seven tiles of discs, and one of noise from 0 to 255."""
    noise_HW = np.random.default_rng(0).integers(0, 256, (200, 200), np.uint8)
    return [*(discs(5 * n, seed=n)[0] for n in range(1, 8)), noise_HW]


@pytest.fixture
def predictor(card: Callable[..., Card]) -> Callable[..., Predictor]:
    """`predictor("count", "density", views=8)`: a random network whose answers depend on the tile."""

    def make(
        task: str,
        architecture: str,
        *,
        views: int = 1,
        kernel: str = "none",
        illumination: str = "none",
        **more: object,
    ) -> Predictor:
        made = card(task, classes=CLASSES if task == "classify" else (), kernel=kernel, illumination=illumination)
        said = {name: more.pop(name) for name in ("temperature", "scale", "offset") if name in more}
        spec = ModelSpec(architecture=architecture, views=views, **more)
        config = made.config.model_copy(update={"model": spec})
        calibration = Calibration(tiles=9, frames=9, **said)
        torch.manual_seed(0)
        network = create(spec, task, classes=len(made.classes), mean_count=20)
        lite = architecture == "efficientnet_lite0"  # by chance it gives much the same whatever it sees
        if lite:
            start_from(network, imagenet_start(architecture))
        last = network.out.last if spec.frozen and task == "count" else network.out
        torch.nn.init.normal_(last.weight, std=0.01 if lite else 0.3)  # its thousand features are large
        return Predictor("x@1", made.model_copy(update={"config": config, "calibration": calibration}), network)

    return make


@pytest.mark.parametrize(
    ("task", "architecture", "more"),
    [
        ("classify", "paper", {"kernel": "sharpen", "temperature": 1.7, **TINY}),
        ("classify", "residual", {"views": 8, "kernel": "emboss", "temperature": 0.5, "activation": "tanh", **TINY}),
        ("count", "density", {"views": 8, "kernel": "unsharp", "activation": "leaky_relu", **TINY}),
        ("count", "density", {"kernel": "sharpen", "illumination": "local", **TINY}),
        ("classify", "residual", {"illumination": "shading", **TINY}),
        # Trainings in tests/integration publish such ones, which compares them.
        pytest.param("classify", "efficientnet_lite0", {"views": 8, "illumination": "local"}, marks=pytest.mark.whole),
        pytest.param("count", "efficientnet_lite0", {"frozen": True, "views": 8}, marks=pytest.mark.whole),
        ("count", "density", {"scale": 1.7, "offset": -28.6, **TINY}),
    ],
)
def test_an_export_answers_as_torch_does_and_is_let_pass(
    predictor: Callable, tiles: list, task: str, architecture: str, more: dict
) -> None:
    made = predictor(task, architecture, **more)
    data = to_onnx(made)
    check = compare(made, data, tiles)
    assert (check.tiles, check.max_difference < 1e-5) == (8, True)
    check_onnx(data, "model.onnx")
    output, features = run_onnx(data, tiles[:3])
    assert output == pytest.approx(made.forward(tiles[:3]), abs=1e-5)
    assert np.ptp(output, axis=0).max() > 1e-3 and features.shape[0] == 3
    assert str(Path(__file__).parents[3]).encode() not in data
    assert not any(node.metadata_props for node in onnx.load_from_string(data).graph.node)


@pytest.mark.parametrize("kernel", sorted(KERNELS))
def test_kernels_filter_in_the_graph_as_they_do_before_training(predictor: Callable, tiles: list, kernel: str) -> None:
    graph = Exported(predictor("count", "residual", kernel=kernel, **TINY))
    filtered = graph._filtered(torch.from_numpy(np.stack(tiles)[:, None]).float())[:, 0].numpy()
    assert (filtered == np.stack([apply_kernel(tile_HW, kernel) for tile_HW in tiles])).all()


def test_an_export_of_other_weights_is_not_published(predictor: Callable, tiles: list) -> None:
    made = predictor("count", "residual", **TINY)
    data = to_onnx(made)
    assert data == to_onnx(made)
    with torch.no_grad():
        made.network.out.bias += 1
    with pytest.raises(IntegrityError, match=r"gives another output: 0\.\d+ from torch's, of 0.001"):
        compare(made, data, tiles)
