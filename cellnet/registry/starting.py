"""What a training is to start from, by its name: photographs, a file, or another version."""

from pathlib import Path

from cellnet.config.train import StartedFrom, TrainConfig
from cellnet.errors import ConfigError
from cellnet.networks.pretrained import file_start, imagenet_start
from cellnet.networks.weights import Start, weights_from_bytes
from cellnet.registry.registry import Registry
from cellnet.untrusted import WEIGHTS


def find_start(registry: Registry, config: TrainConfig) -> Start | None:
    """What a planned training starts from; None for one that starts by chance.

    Raises ConfigError for weights that are not to be had, and for a frozen network without; NotFoundError for a version
    that is not there; IntegrityError for damaged weights.
    """
    name = config.model.weights
    if name is None or name == "none":
        if config.model.frozen:
            raise ConfigError(
                f"a frozen {config.model.architecture} that starts by chance sees nothing; give it weights, "
                "for example --set model.architecture=efficientnet_lite0"
            )
        return None
    if name == "imagenet":
        return imagenet_start(config.model.architecture)
    if name.endswith(".safetensors"):
        return file_start(Path(name))
    if "@" not in name and ":" not in name:
        raise ConfigError(
            f"model.weights={name} names no weights; write none, imagenet, a file NAME.safetensors or a version, "
            "like classifier@3"
        )
    version = registry.resolve(name)
    started = StartedFrom(source=version.ref, sha256=version.blobs[WEIGHTS].sha256)
    return Start(started, weights_from_bytes(registry.read(version, WEIGHTS), version.ref), parent=version.ref)
