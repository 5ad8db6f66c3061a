"""What a training is to start from, by its name: photographs, a file, or another version."""

from pathlib import Path
from typing import Final

from cellnet.config.train import StartedFrom, TrainConfig
from cellnet.config.tune import TuneConfig
from cellnet.errors import ConfigError
from cellnet.networks.pretrained import file_start, imagenet_start
from cellnet.networks.weights import Start, weights_from_bytes
from cellnet.registry.registry import Registry
from cellnet.untrusted import WEIGHTS

WEIGHTS_KEY: Final = "model.weights"
"""Of what a training starts from."""


def with_fixed_start(registry: Registry, config: TrainConfig) -> TrainConfig:
    """The training, where it starts from an alias, from the version that this points at now: `name@number`.

    Raises NotFoundError for an alias that is not there.
    """
    weights = _fixed(registry, config.model.weights)
    return config.model_copy(update={"model": config.model.model_copy(update={"weights": weights})})


def with_fixed_starts(registry: Registry, config: TuneConfig) -> TuneConfig:
    """Likewise of a search, and of the weights among what it searches."""
    space = config.space
    names = space.get(WEIGHTS_KEY, ())
    if isinstance(names, tuple) and names:  # and no range
        space = space | {WEIGHTS_KEY: tuple(dict.fromkeys(_fixed(registry, name) for name in names))}
    return config.model_copy(update={"train": with_fixed_start(registry, config.train), "space": space})


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
    if _is_file(name):
        return file_start(Path(name))
    if "@" not in name and ":" not in name:
        raise ConfigError(
            f"model.weights={name} names no weights; write none, imagenet, a file NAME.safetensors or a version, "
            "like classifier@3"
        )
    version = registry.resolve(name)
    started = StartedFrom(source=version.ref, sha256=version.blobs[WEIGHTS].sha256)
    return Start(started, weights_from_bytes(registry.read(version, WEIGHTS), version.ref), parent=version.ref)


def _fixed(registry: Registry, name: str | None) -> str | None:
    """The same weights by a name that does not move."""
    return registry.resolve(name).ref if name and ":" in name and not _is_file(name) else name


def _is_file(name: str) -> bool:
    return name.endswith(".safetensors")
