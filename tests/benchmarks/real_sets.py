"""Train with the defaults on real sets and score frames that no training saw: the README's figures and picture.

    python tests/benchmarks/real_sets.py DATA OUT      about half an hour on two cores; goes on where it stopped

DATA holds the folders of SETS, each with a manifest.csv. OUT gets banks, models, reports, `real_sets.png` and
`real_sets.md`. The split is drawn over the manifest's groups. The test split chose the epoch; the holdout chose
nothing.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, Final

import matplotlib.figure
import numpy as np

from cellnet.config import BankSettings, Task, TrainConfig
from cellnet.errors import NotFoundError
from cellnet.evaluation import Evaluation
from cellnet.metrics import MAIN
from cellnet.plots import draw_confusion, draw_counts
from cellnet.report import write_report
from pipelines.evaluate import EvaluateSplit, evaluate
from pipelines.ingest import ingest
from pipelines.places import Places
from pipelines.train import train

SETS: Final[dict[str, Task]] = {"brightfield-lines": "classify", "living-dead": "count", "t98g": "count"}
SEED: Final = 4
"""Of the splits; not the one that the defaults were chosen with."""
HEAD: Final = "| set | split | frames | tiles | per tile | per frame |\n|---|---|---|---|---|---|\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("out", type=Path, metavar="OUT")
    arguments = parser.parse_args()
    lines, shown = [], {}
    for name, task in SETS.items():
        places = Places(
            bank=str((arguments.out / f"bank-{name}").absolute()), registry=str((arguments.out / "registry").absolute())
        )
        bank, _ = ingest(arguments.data / name / "manifest.csv", places, settings=BankSettings(seed=SEED))
        ref = trained(places, name, task)
        splits: list[EvaluateSplit] = ["test", "holdout"] if bank.split("test") else ["holdout"]
        for split in splits:
            evaluation = evaluate(ref, places, split=split, pictures=True)
            write_report(arguments.out / f"report-{name}-{split}", evaluation)
            lines.append(table_row(name, evaluation))
            print(lines[-1], flush=True)
        shown[name] = evaluation
    (arguments.out / "real_sets.md").write_text(HEAD + "\n".join(lines) + "\n")
    draw(shown, arguments.out / "real_sets.png")


def trained(places: Places, name: str, task: Task) -> str:
    """The first version of the set's model, trained if it is not there yet."""
    try:
        return places.open_registry().resolve(f"{name}@1").ref
    except NotFoundError:
        return train(places, TrainConfig(task=task), name=name, say=lambda line: print(line, file=sys.stderr)).ref


def table_row(name: str, evaluation: Evaluation) -> str:
    scores = evaluation.scores
    tile, frame = scores["tile"], scores["frame"]
    figures = " | ".join(figure(unit, MAIN[scores["task"]]) for unit in (tile, frame))
    return f"| {name} | {scores['split']} | {frame['n']} | {tile['n']} | {figures} |"


def figure(scores: dict[str, Any], main: str) -> str:
    """The main score with its interval, and R² or the relative error of a counter."""
    low, high = scores[f"{main}_interval"]
    if main == "accuracy":
        return f"accuracy {scores[main]:.2f} ({low:.2f}–{high:.2f})"
    r2 = f", R² {scores['r2']:.2f}" if scores["n"] >= 10 else ""  # of a few frames it says nothing
    return f"MAE {scores[main]:.2f} ({low:.2f}–{high:.2f}){r2}, {scores['mape']:.0%} off"


def draw(shown: dict[str, Evaluation], path: Path) -> None:
    """The holdout of every set, per tile, side by side."""
    picture = matplotlib.figure.Figure(figsize=(15, 5), layout="constrained")
    axes = np.atleast_1d(picture.subplots(1, len(shown)))
    for axis, (name, evaluation) in zip(axes, shown.items(), strict=True):
        (draw_confusion if evaluation.scores["task"] == "classify" else draw_counts)(axis, evaluation, "tile")
        axis.set_title(f"{name}, unseen frames, {axis.get_title()}")
    picture.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
