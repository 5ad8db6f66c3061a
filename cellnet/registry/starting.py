"""What a training is to start from, by its name: photographs, a file, or another version."""

import contextlib
from pathlib import Path
from typing import Final

from cellnet.bank.bank import Bank
from cellnet.config.loading import Configuration
from cellnet.config.train import OF_THE_NETWORK, StartedFrom, TrainConfig
from cellnet.config.tune import TuneConfig
from cellnet.errors import CellnetError, ConfigError
from cellnet.networks.pretrained import file_start, imagenet_start
from cellnet.networks.weights import Start, weights_from_bytes
from cellnet.registry.learned import learned_of
from cellnet.registry.registry import Registry
from cellnet.training.plan import Plan
from cellnet.untrusted import WEIGHTS

WEIGHTS_KEY: Final = "model.weights"
"""Of what a training starts from."""
INHERITED: Final = ("tile", "greys", "kernel", "illumination")
"""Settings that say what a network sees."""


def with_fixed_start(registry: Registry, config: TrainConfig) -> TrainConfig:
    """The training, where it starts from an alias, from the version that this points at now: `name@number`.

    Where a version of the same task is all that is said of the network, it is that version's network, which sees tiles
    as that version did: whatever else of `INHERITED` is not said. Raises NotFoundError for a version that is not there.
    """
    weights = _fixed(registry, config.model.weights)
    fixed = config.model_copy(update={"model": config.model.model_copy(update={"weights": weights})})
    if not is_version(weights) or any(_is_told(config.model, name) for name in OF_THE_NETWORK if name != "weights"):
        return fixed
    card = registry.resolve(str(weights)).card
    if card.task != config.task:
        return fixed
    own = {name: getattr(config.model, name) for name in ("frozen", "views") if _is_told(config.model, name)}
    model = card.config.model.model_copy(update={"weights": weights} | own)
    inherited = {name: getattr(card.config, name) for name in INHERITED if not _is_told(config, name)}
    return fixed.model_copy(update={"model": model} | inherited)


def _is_told(config: Configuration, name: str) -> bool:
    """Whether a setting has another value than its default."""
    return bool(getattr(config, name) != type(config).model_fields[name].default)


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
    if is_weights_file(name):
        return file_start(Path(name))
    if not is_version(name):
        raise ConfigError(
            f"model.weights={name} names no weights; write none, imagenet, a file NAME.safetensors or a version, "
            "like classifier@3"
        )
    version = registry.resolve(name)
    started = StartedFrom(source=version.ref, sha256=version.blobs[WEIGHTS].sha256)
    return Start(started, weights_from_bytes(registry.read(version, WEIGHTS), version.ref), parent=version.ref)


def check_start(registry: Registry, plan: Plan, bank: Bank, start: Start | None) -> None:
    """Raise ConfigError where what a training starts from has learned from frames that are to score it.

    Last layers of a network whose other layers never learned from frames are learnt anew, and whole networks of folds
    start where the first of the versions did (`find_origin`).
    """
    parent = registry.resolve(start.parent) if start and start.parent else None
    if parent is None or (plan.config.model.frozen and parent.card.config.model.frozen):
        return
    known = learned_of(registry, parent)
    if plan.folds:
        scoring, instead = frozenset[str]().union(*plan.held_back.values()), "train all layers by model.frozen=false"
        taught = bool(plan.config.model.frozen)
    else:
        scoring, instead = frozenset(plan.splits["test"].frames), "take --set folds=5"
        before = parent.card.config
        taught = bool(before.folds or before.refit or parent.card.bank != bank.store.uri)
    if taught and known and (seen := known.frames & scoring):
        raise ConfigError(
            f"{parent.ref} has learned from {len(seen)} of the {len(scoring)} frames that would score what starts from "
            f"it, and flatter it; {instead}, or leave model.weights out"
        )


def find_origin(registry: Registry, config: TrainConfig, start: Start | None) -> Start | None:
    """What the first of the versions started from that a start goes back to: it learned from no frame of a bank.

    Raises ConfigError where that is not to be had.
    """
    if start is None or start.parent is None:
        return start
    version = registry.resolve(start.parent)
    started = version.card.start
    if started is None or started.source == "imagenet":
        return imagenet_start(config.model.architecture) if started else None
    with contextlib.suppress(CellnetError):
        before = find_start(
            registry,
            config.model_copy(update={"model": config.model.model_copy(update={"weights": started.source})}),
        )
        if before and before.started.sha256 == started.sha256:
            return find_origin(registry, config, before)
    raise ConfigError(
        f"folds would start from {started.source}, as {version.ref} did, and these weights are not here; "
        "take --set folds=0, or leave model.weights out"
    )


def _fixed(registry: Registry, name: str | None) -> str | None:
    """The same weights by a name that does not move."""
    return registry.resolve(str(name)).ref if is_version(name) and ":" in str(name) else name


def is_version(name: str | None) -> bool:
    """Whether weights are named by a version, and not by a file or a word.

    >>> is_version("classifier:champion"), is_version("C:/weights.safetensors"), is_version("imagenet")
    (True, False, False)
    """
    return name is not None and not is_weights_file(name) and ("@" in name or ":" in name)


def is_weights_file(name: str) -> bool:
    """Whether weights are named by a file."""
    return name.endswith(".safetensors")
