"""The paper's claim, tested: every activation × kernel, in full and with early stopping, on drawn and on real frames.

    python tests/benchmarks/search.py OUT DATA      about 40 minutes on two cores; goes on where it stopped

DATA holds the folder `living-dead` with its manifest.csv; the other set is drawn. For each set the whole grid of four
activations × four kernels is trained with one seed, the three best with two more, and then the grid is searched again
with ASHA. OUT gets banks, runs and reports, `search.md`, and `search.png` with a heat map of each set.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, Final

import matplotlib.figure
import numpy as np

from cellnet.config.bank import BankSettings
from cellnet.config.train import Augment, TrainConfig
from cellnet.config.tune import TuneConfig
from cellnet.places import Places
from cellnet.reports.plots import draw_heat_map
from cellnet.reports.search_report import heat_cells, heat_sides
from cellnet.sample import write_sample
from cellnet.store.place import place_of
from cellnet.tasks import TASKS, Task
from pipelines.ingest import ingest
from pipelines.sweeps import trials_of
from pipelines.tune import tune
from pipelines.winner import Search, publish_sweep

SETS: Final[dict[str, tuple[Task, int]]] = {"drawn-lineages": ("classify", 24), "living-dead": ("count", 20)}
"""The task, and how many epochs a trial has."""
AUGMENT: Final = Augment(shifts=0)
"""Fewer tiles an epoch than the default, so that a trial of half an hour's search has epochs enough to be stopped."""
SPACE: Final[dict[str, Any]] = {
    "model.activation": ("relu", "leaky_relu", "tanh", "sigmoid"),
    "kernel": ("none", "sharpen", "edge", "emboss"),
}
SEED: Final = 7
"""Of the splits."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("data", type=Path, metavar="DATA")
    arguments = parser.parse_args()
    out: Path = arguments.out.absolute()
    lines, grids = [], {}
    for name, (task, epochs) in SETS.items():
        manifest = drawn(out / "drawn") if name.startswith("drawn") else arguments.data / name / "manifest.csv"
        ingest(manifest, Places(bank=place_of(out / f"bank-{name}")), settings=BankSettings(seed=SEED))
        grid, early = (searched(out, name, task, epochs, early=early) for early in (False, True))
        grids[name] = grid
        lines += [*rows(name, grid), beside(name, grid, early), ""]
        print("\n".join(lines[-4:]), flush=True)
    (out / "search.md").write_text("\n".join(lines))
    draw(grids, out / "search.png")


def drawn(folder: Path) -> Path:
    """The manifest of the drawn sample, which is drawn if it is not there yet."""
    manifest = folder / "manifest.csv"
    return manifest if manifest.exists() else write_sample(folder, wells_per_lineage=8)


def searched(out: Path, name: str, task: Task, epochs: int, *, early: bool) -> Search:
    """A search in a registry of its own; trials that were trained by an earlier command are not trained again."""
    kind = "asha" if early else "grid"
    places = Places(bank=place_of(out / f"bank-{name}"), registry=place_of(out / f"{name}-{kind}" / "registry"))
    for finished in (out / f"{name}-{kind}").glob("runs/tune-*/finished.json"):
        return publish_sweep(str(finished.parent), places, alias="champion")
    seeds = 1 if early else 3
    config = TuneConfig(
        space=SPACE, stop_early=early, seeds=seeds, train=TrainConfig(task=task, epochs=epochs, augment=AUGMENT)
    )
    return tune(places, config, resume=True, say=lambda line: print(f"{name} {kind}: {line}", file=sys.stderr))


def rows(name: str, grid: Search) -> list[str]:
    """The grid as a table, and how far ReLU and Sharpen are from the best."""
    score, more_is_better = TASKS[SETS[name][0]].steering, TASKS[SETS[name][0]].more_is_better
    sides = heat_sides(grid_config(name))
    cells = heat_cells(grid.trials, list(sides), score)
    activations, kernels = sides.values()
    head = [f"{name}, test {score} after {SETS[name][1]} epochs:", "", f"| | {' | '.join(kernels)} |", "|---" * 5 + "|"]
    table = [
        f"| {activation} | " + " | ".join(cell(cells[activation, kernel]) for kernel in kernels) + " |"
        for activation in activations
    ]
    best = min(cells, key=lambda key: -cells[key][0] if more_is_better else cells[key][0])
    means = [
        {value: float(np.mean([cells[key][0] for key in cells if key[side] == value])) for value in values}
        for side, values in enumerate((activations, kernels))
    ]
    said = "; ".join(", ".join(f"{value} {mean:.3f}" for value, mean in mean_of.items()) for mean_of in means)
    return [*head, *table, "", f"Best: {' and '.join(best)}, {cell(cells[best])}. Means: {said}."]


def grid_config(name: str) -> TuneConfig:
    return TuneConfig(space=SPACE, train=TrainConfig(task=SETS[name][0]))


def cell(value: tuple[float, float, float]) -> str:
    score, low, high = value
    return f"{score:.3f} ({low:.2f}–{high:.2f})"


def beside(name: str, grid: Search, early: Search) -> str:
    """How many epochs ASHA took of the grid's, of one seed each, and what it found."""
    score = TASKS[SETS[name][0]].steering
    first = TrainConfig(task=SETS[name][0]).seed
    epochs = [sum(trial.epochs for trial in trials_of(search.run) if trial.seed == first) for search in (grid, early)]
    best, found = grid.trials[0], early.trials[0]
    inside = best["low"] <= found[score] <= best["high"]
    return (
        f"ASHA: {epochs[1]} of {epochs[0]} epochs ({epochs[1] / epochs[0]:.2f}), found {found['activation']} and "
        f"{found['kernel']} with {found[score]:.3f}; the grid's winner has {best[score]:.3f} "
        f"({best['low']:.3f} to {best['high']:.3f}): {'within' if inside else 'not within'} its interval."
    )


def draw(grids: dict[str, Search], path: Path) -> None:
    """The heat maps side by side."""
    picture = matplotlib.figure.Figure(figsize=(6.5 * len(grids), 4.6), layout="constrained")
    axes = np.atleast_1d(picture.subplots(1, len(grids)))
    for axis, (name, grid) in zip(axes, grids.items(), strict=True):
        score, more_is_better = TASKS[SETS[name][0]].steering, TASKS[SETS[name][0]].more_is_better
        sides = heat_sides(grid_config(name))
        cells = heat_cells(grid.trials, list(sides), score)
        draw_heat_map(axis, cells, sides, more_is_better=more_is_better)
        axis.set_title(f"{name}: test {score.replace('_', ' ')}")
    picture.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
