"""Models to be asked, untrained: how fast they answer does not depend on their weights."""

from pathlib import Path

import numpy as np

from cellnet.certainty.familiarity import FAMILIARITY, fit_familiarity
from cellnet.config.train import ModelSpec, Preprocess, TrainConfig
from cellnet.networks.architectures import resolve
from cellnet.networks.weights import fresh_network, weights_to_bytes
from cellnet.prediction.export import to_onnx
from cellnet.prediction.predictor import Predictor
from cellnet.registry.records import ONNX, Card, ModelVersion
from cellnet.registry.registry import Registry
from cellnet.sample import LINEAGES, draw_frame
from cellnet.tasks import TASKS, Task
from cellnet.untrusted import WEIGHTS


def make_registry(folder: Path) -> Registry:
    """The default networks for frames of many tiles, with all that a published version has."""
    registry = Registry.open(str(folder))
    for task in ("classify", "count"):
        publish(registry, task)
    return registry


def publish(registry: Registry, task: Task, *, model: ModelSpec | None = None, mean_count: float = 20) -> ModelVersion:
    """A champion, whose familiar images are drawn ones."""
    config = TrainConfig(task=task, model=resolve(model or ModelSpec(), task, frame_tiles=25))
    preprocess = Preprocess.model_validate(
        {"tile_px": (200, 200), "intensity": {"rule": "range", "low": 0, "high": 255}}
    )
    card = Card(
        task=task, classes=list(LINEAGES) if task == "classify" else [], config=config, preprocess=preprocess,
        frame_px=(1000, 1000), bank="", bank_digest="", scores={}, history=[], code_version="", packages={}, created="",
    )  # fmt: skip
    predictor = Predictor("new@1", card, fresh_network(config, len(card.classes), mean_count=mean_count))
    features = [predictor.predict(drawn(seed), with_features=True).features_ND for seed in range(24)]
    known = fit_familiarity([one for one in features if one is not None], [])
    files = {WEIGHTS: weights_to_bytes(predictor.network.state_dict()), ONNX: to_onnx(predictor)}
    version = registry.publish(TASKS[task].model, files | {FAMILIARITY: known.to_bytes()}, card)
    registry.promote(version.ref, "champion")
    return version


def drawn(seed: int) -> np.ndarray:
    """A frame of one tile."""
    return draw_frame("A172", np.random.default_rng(seed), size_px=200).image_HW
