"""What runs a published model fastest on a CPU: `python tests/benchmarks/engines.py OUT` (OpenVINO: cellnet[openvino]).

The two default networks, untrained (speed does not depend on weights), on drawn tiles, every engine in turn, on one
thread: milliseconds a tile alone and in batches, as a median, and how far each is from torch's answers at most.

Then what the networks that `auto` chooses among cost, by the engine that serves them, in one run: NETWORKS, a tile and
a frame of FRAME_PX cut as each cuts it.

Writes OUT/engines.md.
"""

import statistics
import sys
import time
from pathlib import Path
from typing import Final, get_args

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it runs from anywhere

import numpy as np

from cellnet.config.choices import NETWORK_PX, EngineName
from cellnet.config.train import ModelSpec
from cellnet.errors import ConfigError
from cellnet.images.tiles import cut
from cellnet.prediction.engines import engine_of, load_model
from cellnet.prediction.lineup import resolve_models
from cellnet.prediction.model import FrameModel
from cellnet.registry.registry import Registry
from cellnet.tasks import Task
from cellnet.training.plan import FROZEN_TILE_PX
from tests.benchmarks.untrained import drawn, make_registry, publish

BATCHES: Final = (1, 4, 16)
SECONDS: Final = 6.0
"""For each network and size of batch, all engines together."""
LITE: Final = ModelSpec(architecture="efficientnet_lite0", weights="imagenet", frozen=True)
NETWORKS: Final[dict[str, tuple[Task, ModelSpec, int]]] = {
    "residual": ("classify", ModelSpec(), NETWORK_PX),
    "efficientnet_lite0, frozen, eight orientations": ("classify", LITE, FROZEN_TILE_PX),
    "the same, one orientation": ("classify", LITE.model_copy(update={"views": 1}), FROZEN_TILE_PX),
    "density": ("count", ModelSpec(), NETWORK_PX),
    "efficientnet_lite0, frozen": ("count", LITE, NETWORK_PX),
}
"""With the side of their tiles."""
FRAME_PX: Final = (1040, 1408)
"""Height and width."""


def engines(registry: Registry, task: str) -> dict[str, FrameModel]:
    """The network in each engine that is installed."""
    [version] = [one for one in resolve_models(registry, None, None) if one.card.task == task]
    found = {}
    for name in get_args(EngineName):
        if name != "auto":
            try:
                found[name] = load_model(registry, version, engine=name)
            except ConfigError as error:
                print(error)
    print(f"{task}: auto takes {engine_of(load_model(registry, version))}")
    return found


def difference(model: FrameModel, torch: FrameModel, tiles: list[np.ndarray]) -> float:
    """The largest, of a probability, or of a count as a share of it."""
    [(got, _), (wanted, _)] = [one.look(tiles, with_features=True) for one in (model, torch)]
    return float(np.max(np.abs(got - wanted) / np.maximum(1, np.abs(wanted))))


def times(models: dict[str, FrameModel], tiles: list[np.ndarray], *, seconds: float = SECONDS) -> dict[str, float]:
    """Milliseconds a tile."""
    took: dict[str, list[float]] = {name: [] for name in models}
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        for name, model in models.items():
            started = time.perf_counter()
            model.look(tiles, with_features=True)
            took[name].append(1e3 * (time.perf_counter() - started) / len(tiles))
    return {name: statistics.median(several[1:]) for name, several in took.items()}


def costs(out: Path, tiles: list[np.ndarray]) -> list[str]:
    """A table of what each network costs to ask."""
    models = {}
    for number, (title, (task, spec, _)) in enumerate(NETWORKS.items()):
        registry = Registry.open(str(out / f"network-{number}"))
        models[title] = load_model(registry, publish(registry, task, model=spec))
    took = times(models, tiles, seconds=SECONDS * len(models))
    lines = ["| network | task | ms a tile | tiles of a frame | frames/s |", "|---" * 5 + "|"]
    for title, (task, _, side) in NETWORKS.items():
        number = len(cut(*FRAME_PX, (side, side)))
        lines.append(f"| {title} | {task} | {took[title]:.1f} | {number} | {1e3 / (took[title] * number):.1f} |")
    return lines


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("python tests/benchmarks/engines.py OUT")
    out = Path(sys.argv[1])
    place = out / "registry"
    registry = Registry.open(str(place)) if place.exists() else make_registry(place)
    tiles = [drawn(seed) for seed in range(max(BATCHES))]
    columns = " | ".join(f"batches of {batch}, ms a tile" for batch in BATCHES)
    lines = [f"| network | engine | {columns} | torch's time | difference |", "|---" * (len(BATCHES) + 4) + "|"]
    for task in ("classify", "count"):
        models = engines(registry, task)
        by_batch = [times(models, tiles[:batch]) for batch in BATCHES]
        for name, model in models.items():
            figures = " | ".join(f"{took[name]:.2f}" for took in by_batch)
            ratios = " / ".join(f"{took['torch'] / took[name]:.1f} ×" for took in by_batch)
            lines.append(
                f"| {task} | {name} | {figures} | {ratios} | {difference(model, models['torch'], tiles):.0e} |"
            )
    text = "\n".join([*lines, "", *costs(out, tiles)]) + "\n"
    (out / "engines.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
