"""How well the networks for few frames do after so many labelled frames: learning curves of real sets.

    python tests/benchmarks/learning_curves.py OUT DATA [--only SET ...]

DATA holds the folders of the SETS, each with a manifest.csv; of its points.csv no use is made. Plan, tiles, frozen
network and last layers are those of `cellnet train` with the defaults, without Ray: what the frozen network sees is
computed once, then its last layers learn from few frames and from more. The groups are dealt into five folds. Each
fold is asked about after so many frames, drawn at random, of the other four taught; so whatever is asked about shares
no group with what was learned from, and a draw asks about every frame once. Lineages of one group are left out. A
classifier's last layer is held as where nothing is there to choose by.

OUT gets SET.json, `learning_curves.md` and `learning_curves.png`; a set whose SET.json is there is not measured again.
"""

import argparse
import csv
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import matplotlib.figure
import numpy as np
from torch import nn

from cellnet.bank.bank import Bank
from cellnet.bank.folds import FOLDS, deal_folds
from cellnet.bank.frames import Frame
from cellnet.bank.prepare import prepare_all
from cellnet.config.loading import load_config
from cellnet.config.train import TrainConfig
from cellnet.evaluation.metrics import mean_interval
from cellnet.networks.efficientnet import folded
from cellnet.networks.pretrained import imagenet_start
from cellnet.networks.weights import fresh_network
from cellnet.places import Places
from cellnet.readers import read_source
from cellnet.reports.plots import BLUE
from cellnet.store.place import place_of
from cellnet.tasks import Task
from cellnet.training.heads import UNTOLD_HOLD, Features, LastLayers, fit_head
from cellnet.training.places import LEAST_STEPS, fit_places
from cellnet.training.plan import Plan, make_plan
from cellnet.training.seeing import features_from, see
from cellnet.training.tiles import make_tiles


class Set(NamedTuple):
    """A set, and what is asked of it."""

    task: Task
    numbers: tuple[int, ...]
    """Labelled frames: of each lineage to name them, of all together to count."""
    draws: int
    sets: tuple[str, ...] = ()
    """Settings other than the defaults."""


SETS: Final = {
    "livecell": Set("classify", (1, 2, 3, 4), draws=4),
    "living-dead": Set("count", (10, 40, 160), draws=4, sets=("model.frozen=true", "folds=5")),
    "hemocytometer": Set("count", (5, 20, 80), draws=1),
}
"""Single crops of many groups are counted by another network by default, of which a training takes minutes."""
TILES_A_STEP: Final = 32


class Answer(NamedTuple):
    """What was said of a frame that was not learned from."""

    number: int
    """Frames learned from, at most."""
    draw: int
    group: str
    truth: float
    """Cells; of a classifier 1."""
    off: float
    """Cells; of a classifier 1 where another lineage was named."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--only", nargs="+", choices=list(SETS), metavar="SET", default=list(SETS))
    arguments = parser.parse_args()
    out: Path = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        path, start_s = out / f"{name}.json", time.monotonic()
        answers = [Answer(*one) for one in json.loads(path.read_text())] if path.exists() else []
        left = [number for number in SETS[name].numbers if number not in {answer.number for answer in answers}]
        if not left:
            continue
        teaching = Teaching.of(bank_of(out, arguments.data / name / "manifest.csv", name), SETS[name])
        for number in left:
            answers += teaching.answers(number)
            path.write_text(json.dumps(answers))
            print(f"{name}: {number} frames, after {time.monotonic() - start_s:.0f} s", flush=True)
    curves = {
        name: [Answer(*one) for one in json.loads((out / f"{name}.json").read_text())]
        for name in SETS
        if (out / f"{name}.json").exists()
    }
    table = "\n".join(line for name, answers in curves.items() for line in lines_of(name, answers))
    (out / "learning_curves.md").write_text(f"{HEAD}{table}\n")
    print(table)
    draw(curves, out / "learning_curves.png")


def bank_of(out: Path, manifest: Path, name: str) -> Bank:
    """The bank of a set whose cells' centres are not told."""
    copy = out / f"{name}.csv"
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with copy.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"image": (manifest.parent / row["image"]).absolute()} for row in rows)
    bank = Places(bank=place_of(out / f"bank-{name}")).new_bank()
    bank.add(prepare_all(read_source(copy), bank.store))
    return bank


class Teaching(NamedTuple):
    """What a set is taught and asked with."""

    plan: Plan
    draws: int
    features: Features
    frames: list[Frame]
    """Of lineages that have several groups."""
    held_back: dict[int, frozenset[str]]
    """The names of those that each fold asks about."""

    @classmethod
    def of(cls, bank: Bank, of: Set) -> "Teaching":
        plan = make_plan(bank, load_config(TrainConfig, file=None, sets=list(of.sets), task=of.task))
        start = imagenet_start(plan.config.model.architecture)
        features = seen(fresh_network(plan.config, len(plan.classes), start=start), plan, bank)
        frames = plan.among(bank.frames)
        folds = deal_folds(frames, FOLDS, seed=plan.config.seed)
        frames = [frame for frame in frames if frame.lineage not in (*folds.one_group, *folds.unmeasured)]
        return cls(plan, of.draws, features, frames, folds.held_back)

    def answers(self, number: int) -> Iterator[Answer]:
        """What is said of every frame, in each draw, after so many others taught."""
        for draw_n, (fold, held) in itertools.product(range(self.draws), self.held_back.items()):
            others = [frame for frame in self.frames if frame.frame not in held]
            order = np.random.default_rng([draw_n, fold]).permutation(len(others))
            chosen = taught([others[i] for i in order], number, each=self.plan.config.task == "classify")
            tiles = self.features.of(self.features.are_of({frame.frame for frame in chosen}))
            layers = learnt(self.plan, tiles, seed=draw_n)
            asked = [frame for frame in self.frames if frame.frame in held]
            yield from answered(self.plan, layers, self.features, asked, number, draw_n)


def seen(network: nn.Module, plan: Plan, bank: Bank) -> Features:
    """What the frozen network sees of all tiles of a plan."""
    network, tiles = folded(network), list(tiles_of(plan, bank))
    rows: list[dict[str, Any]] = []
    for first in range(0, len(tiles), TILES_A_STEP):
        some = tiles[first : first + TILES_A_STEP]
        batch = {name: np.stack([tile[name] for tile in some]) for name in some[0]}
        columns = see(network, batch, plan.preprocess, plan.config)
        rows += [{name: column[i] for name, column in columns.items()} for i in range(len(some))]
    return features_from(rows, plan.config.task)


def tiles_of(plan: Plan, bank: Bank) -> Iterator[dict[str, Any]]:
    """The tiles of a plan, as they lie in the shards."""
    label = {lineage: index for index, lineage in enumerate(plan.classes)}
    for frame in plan.among(bank.frames):
        for tile in make_tiles(
            frame,
            bank.pixels(frame),
            plan.preprocess,
            plan.splits["train"].variants,
            label=label.get(frame.lineage or "", -1),
            seed=plan.config.seed,
        ):
            yield {
                "pixels": tile.pixels_HW,
                "label": tile.label,
                "count": np.float32(tile.count),
                "cells": tile.cells_hw,
                "frame": tile.frame,
                "weight": tile.weight,
            }


def taught(frames: Sequence[Frame], number: int, *, each: bool) -> list[Frame]:
    """The first so many frames, of `each` lineage or of all together.

    Fewer where there are no more.
    """
    of_kind: dict[str | None, list[Frame]] = defaultdict(list)
    for frame in frames:
        of_kind[frame.lineage if each else None].append(frame)
    return [frame for some in of_kind.values() for frame in some[:number]]


def learnt(plan: Plan, tiles: Features, *, seed: int) -> LastLayers:
    """The last layers that learned from these tiles."""
    if plan.config.task == "classify":
        balanced = plan.config.class_weights == "balanced"
        return fit_head(tiles, UNTOLD_HOLD, classes=len(plan.classes), balanced=balanced)
    return fit_places(tiles, seed=seed, dropout=plan.config.model.dropout, least_steps=LEAST_STEPS)


def answered(
    plan: Plan, layers: LastLayers, features: Features, asked: Sequence[Frame], number: int, draw_n: int
) -> Iterator[Answer]:
    """What last layers say of frames: of a frame's tiles probabilities are averaged, cells added up."""
    tiles = features.of(features.are_of({frame.frame for frame in asked}))
    said = layers.answers(tiles)
    for frame in asked:
        of_it_N = tiles.frame_N == frame.frame
        if plan.config.task == "classify":
            truth, off = 1.0, float(plan.classes[said[of_it_N].mean(axis=0).argmax()] != frame.lineage)
        else:
            assert tiles.weight_N is not None and frame.count is not None, "of a counter"
            truth, off = frame.count, abs(float((said * tiles.weight_N)[of_it_N].sum()) - frame.count)
        yield Answer(number, draw_n, frame.group, truth, off)


class Point(NamedTuple):
    """What so many frames came to."""

    number: int
    score: float
    """The share of frames named rightly, or cells off a frame."""
    interval: list[float]
    """Of 95 %, over groups."""
    spread: tuple[float, float]
    """The lowest and the highest of the draws."""


def points_of(name: str, answers: Sequence[Answer]) -> list[Point]:
    """The points of a curve."""
    points = []
    for number in sorted({answer.number for answer in answers}):
        of_it = [answer for answer in answers if answer.number == number]
        off_N = np.array([answer.off for answer in of_it])
        score_N = 1 - off_N if SETS[name].task == "classify" else off_N
        draw_N = np.array([answer.draw for answer in of_it])
        draws = [float(score_N[draw_N == draw_n].mean()) for draw_n in np.unique(draw_N)]
        interval = mean_interval(score_N, [answer.group for answer in of_it])
        points.append(Point(number, float(score_N.mean()), interval, (min(draws), max(draws))))
    return points


def lines_of(name: str, answers: Sequence[Answer]) -> Iterator[str]:
    """The rows of the table of a set."""
    classify = SETS[name].task == "classify"
    first = [answer for answer in answers if (answer.number, answer.draw) == (answers[0].number, 0)]
    mean, groups = np.mean([answer.truth for answer in first]), len({answer.group for answer in first})
    for number, score, (low, high), (least, most) in points_of(name, answers):
        taught_by = f"{number} of each lineage" if classify else str(number)
        form = ".2f" if classify or mean < 20 else ".1f"
        share = "" if classify else f", {100 * score / mean:.0f} % of {mean:.{2 if mean < 20 else 0}f}"
        what = f"{score:{form}} ({low:{form}}–{high:{form}}){share}"
        yield (f"| {name} | {len(first)}, {groups} | {taught_by} | {what} | {least:{form}}–{most:{form}} |")


HEAD: Final = (
    "| set | frames asked about, groups | frames learned from | named rightly, or cells off a frame | draws from to |\n"
    "|---|---|---|---|---|\n"
)


def draw(curves: dict[str, Sequence[Answer]], path: Path) -> None:
    """Every curve with its intervals, side by side."""
    picture = matplotlib.figure.Figure(figsize=(4 * len(curves), 3.6), layout="constrained")
    for axis, (name, answers) in zip(picture.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        points = points_of(name, answers)
        numbers = [point.number for point in points]
        axis.plot(numbers, [point.score for point in points], marker="o", color=BLUE)
        axis.fill_between(numbers, *zip(*(point.interval for point in points), strict=True), color=BLUE, alpha=0.2)
        classify = SETS[name].task == "classify"
        axis.set(title=name, xlabel=f"labelled frames{' of each lineage' if classify else ''}", ylim=(0, None))
        axis.set_ylabel("frames named rightly" if classify else "cells off a frame")
        axis.set_xscale("log")
        axis.set_xticks(numbers, [str(number) for number in numbers])
        axis.minorticks_off()
    picture.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
