"""What ten corrected frames of a new condition are worth to a frozen counter, by every way to learn from them.

    python -m tests.benchmarks.relearning OUT DATA [--only C1 ...] [--draws 20]
    python -m tests.benchmarks.relearning OUT DATA --flow livecell     the commands a user types, timed

DATA holds the counting chamber's frames, `hemocytometer/manifest.csv`. Of each of its conditions (`batch`) a champion
learns from the others by the defaults; ten frames of it are drawn at random and corrected, and the rest of it is asked
about. What the network sees of each tile is computed once, and its 25×25 places are brought to 5×5 by their means: so
last layers are learnt in seconds in place of minutes, and count alike. Last layers learn without Ray, by the product's
own function. WAYS says by which ways; a frame weighs three times as much where it is there three times.

OUT gets a file for each condition, in which a draw that is there is not measured again, and `relearning.md`. `--flow`
imports a set without the last group of each lineage, trains, promotes, imports these groups unlabelled, corrects ten of
their frames, trains from the champion and promotes, by the command line, in OUT/flow-SET; a step that is done is not
done again. Beside other programs say RAY_worker_niceness=5 before it: Ray's workers give way to all others.
"""

import argparse
import csv
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from cellnet.bank.frames import Frame
from cellnet.certainty.calibration import Calibration
from cellnet.certainty.recount import CountedTiles, fit_recount
from cellnet.config.train import TrainConfig
from cellnet.errors import DataError
from cellnet.networks.pretrained import imagenet_start
from cellnet.networks.weights import fresh_network
from cellnet.training.heads import Features
from cellnet.training.places import LEAST_STEPS, CountHead, fit_places
from cellnet.training.plan import make_plan
from tests.benchmarks.learning_curves import bank_of, seen

SET: Final = "hemocytometer"
CONDITIONS: Final = ("C1", "C2", "C3", "C4")
DRAWS: Final = 20
CORRECTED: Final = 10
SIDE, POOLED = 25, 5
"""Places of a tile along a side, as the network sees them and as they are learnt from."""
WAYS: Final = (
    "the champion as it is",
    "calibrate --known",
    "the ten ten times",
    "new training on all",
    "the ten three times",
    "new training, then scale and offset",
    "the ten alone",
)
"""`the ten ten times` is what a training from the champion does. Scale and offset are fitted to the ten as they are
counted by networks that learned from five of them and all others."""
FEW: Final = 3
"""Draws in which the ways after the third are measured."""
BEST: Final = "the other frames known"
"""What the rest would be counted with if nine tenths of the condition's other frames were corrected too."""
OLD: Final = {
    "old conditions, without the ten": 0,
    "old conditions, with the ten": 1,
    "old conditions, with the ten ten times": 10,
}
"""By five folds of the old frames, and how many times the ten of the first draw are beside them."""


FLOWS: Final = {"livecell": ("classify", "classifier", "lineage"), SET: ("count", "regressor", "count")}
"""What is trained on a set, as which model, and the column that is corrected."""


class Known(NamedTuple):
    """The bank's frames and what is seen of them."""

    frames: list[Frame]
    features: Features

    def tiles(self, frames: Sequence[int], *, times: int = 1) -> Features:
        """The tiles of frames, so many times over, each time as frames of their own."""
        names = {self.frames[i].frame for i in frames}
        one = self.features.of(self.features.are_of(names))
        copies = [Features(**one.columns | {"frame_N": np.char.add(one.frame_N, f"-{n}")}) for n in range(times)]
        for copy in copies[1:]:
            copies[0] = copies[0].and_of(copy)
        return copies[0]

    def learnt(self, old: Sequence[int], ten: Sequence[int] = (), *, times: int = 1, seed: int = 0) -> CountHead:
        tiles = [self.tiles(old)] if len(old) else []
        tiles += [self.tiles(ten, times=times)] if len(ten) else []
        train = tiles[0] if len(tiles) == 1 else tiles[0].and_of(tiles[1])
        return fit_places(train, seed=seed, dropout=0.1, least_steps=LEAST_STEPS)

    def counted(self, head: CountHead, asked: Sequence[int]) -> list[CountedTiles]:
        tiles = self.features.of(self.features.are_of({self.frames[i].frame for i in asked}))
        said_N = head.answers(tiles)
        assert tiles.weight_N is not None, "of a counter"
        counted = []
        for i in asked:
            of_it_N = tiles.frame_N == self.frames[i].frame
            truth = float(self.frames[i].count or 0)
            counted.append(CountedTiles(truth=truth, count_N=said_N[of_it_N], weight_N=tiles.weight_N[of_it_N]))
        return counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--only", nargs="+", choices=CONDITIONS, default=CONDITIONS, metavar="CONDITION")
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--flow", choices=list(FLOWS), metavar="SET")
    arguments = parser.parse_args()
    out: Path = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    manifest = arguments.data.absolute() / SET / "manifest.csv"
    if arguments.flow:
        flow(out / f"flow-{arguments.flow}", arguments.data.absolute(), arguments.flow)
        return
    known = known_of(out, manifest)
    for number in range(arguments.draws):  # so that all conditions have as many, wherever it is stopped
        for condition in arguments.only:
            measure(known, condition, number, out)
    for condition in arguments.only:
        forgetting(known, condition, out)
    table = table_of(out)
    (out / "relearning.md").write_text(table)
    print(table)


def known_of(out: Path, manifest: Path) -> Known:
    """What the default counter's frozen layers see of the set, computed if it is not there yet."""
    bank = bank_of(out, manifest, SET)
    plan = make_plan(bank, TrainConfig(task="count"))
    path = out / "features.safetensors"
    if not path.exists():
        start = imagenet_start(plan.config.model.architecture)
        features = seen(fresh_network(plan.config, 0, start=start), plan, bank)
        columns = features.columns | {"seen_NVC": pooled(features.seen_NVC)}
        digest_NB = np.array([list(bytes.fromhex(name)) for name in features.frame_N.tolist()], np.uint8)
        safetensors.numpy.save_file(columns | {"frame_N": digest_NB}, path)
    columns = safetensors.numpy.load_file(path)
    names = np.array([bytes(digest).hex() for digest in columns["frame_N"].tolist()])
    return Known(list(plan.among(bank.frames)), Features(**columns | {"frame_N": names}))


def pooled(seen_NPC: NDArray[np.float16]) -> NDArray[np.float16]:
    """Places (N, 625, C) brought to (N, 25, C) by their means."""
    step, tiles = SIDE // POOLED, []
    for seen_PC in seen_NPC:
        by_place = seen_PC.astype(np.float32).reshape(POOLED, step, POOLED, step, -1)
        tiles.append(by_place.mean(axis=(1, 3)).reshape(POOLED**2, -1).astype(np.float16))
    return np.stack(tiles)


def measure(known: Known, condition: str, number: int, out: Path) -> None:
    """Every way after one draw: how many cells each is off the rest of the condition."""
    path = out / f"{condition}.json"
    done: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"draws": {}}
    if str(number) in done["draws"]:
        return
    start_s = time.monotonic()
    old, of = parts(known.frames, condition)
    order = np.random.default_rng(number).permutation(of).tolist()
    ten, rest = order[:CORRECTED], order[CORRECTED:]
    champion = champion_of(known, condition, old, out)
    before, asked = known.counted(champion, ten), known.counted(champion, rest)
    off = {
        WAYS[0]: mae(asked),
        WAYS[1]: mae(asked, before),
        WAYS[2]: mae(known.counted(known.learnt(old, ten, times=10), rest)),
    }
    if number < FEW:
        new = known.learnt(old, ten)
        off[WAYS[3]] = mae(known.counted(new, rest))
        off[WAYS[4]] = mae(known.counted(known.learnt(old, ten, times=3), rest))
        halves = [known.counted(known.learnt(old, ten[1 - n :: 2]), ten[n::2]) for n in (0, 1)]
        off[WAYS[5]] = mae(known.counted(new, rest), [*halves[0], *halves[1]])
        off[WAYS[6]] = mae(known.counted(known.learnt((), ten), rest))
    if number == 0:
        off[BEST] = with_others(known, old, of)
    done["draws"][str(number)] = off
    done["mean"] = float(np.mean([known.frames[i].count for i in of]))
    path.write_text(json.dumps(done, indent=1))
    told = ", ".join(f"{way} {value:.1f}" for way, value in off.items())
    print(f"{condition}, draw {number}, {time.monotonic() - start_s:.0f} s: {told}", file=sys.stderr, flush=True)


def parts(frames: Sequence[Frame], condition: str) -> tuple[list[int], list[int]]:
    """The places of the frames of other conditions, and of this one."""
    of = [frame.batch == condition for frame in frames]
    return [i for i, it in enumerate(of) if not it], [i for i, it in enumerate(of) if it]


def champion_of(known: Known, condition: str, old: Sequence[int], out: Path) -> CountHead:
    path = out / f"champion-{condition}.safetensors"
    if not path.exists():
        weights = known.learnt(old).weights
        safetensors.numpy.save_file({name: value.numpy() for name, value in weights.items()}, path)
    import torch

    return CountHead.of({name: torch.from_numpy(value) for name, value in safetensors.numpy.load_file(path).items()})


def mae(asked: Sequence[CountedTiles], counted: Sequence[CountedTiles] = ()) -> float:
    """Cells off a frame, with the scale and offset that `counted` frames tell, where there are any."""
    scale, offset = 1.0, 0.0
    if counted:
        try:
            fitted = fit_recount(counted, Calibration(tiles=0, frames=0, frame_quantile=5.0))
            scale, offset = fitted.scale or 1.0, fitted.offset
        except DataError:  # ten frames without any cells, which are refused
            pass
    said_F = [float((np.maximum(scale * one.count_N + offset, 0) * one.weight_N).sum()) for one in asked]
    return float(np.mean([abs(said - one.truth) for said, one in zip(said_F, asked, strict=True)]))


def with_others(known: Known, old: Sequence[int], of: Sequence[int]) -> float:
    """Cells off a frame of a condition whose other frames are known but for a tenth of them, which are asked about."""
    dealt = np.random.default_rng(0).permutation(of)
    asked: list[CountedTiles] = []
    for fold_N in np.array_split(dealt, 10):
        held = set(fold_N.tolist())
        asked += known.counted(known.learnt(old, [i for i in of if i not in held]), sorted(held))
    return mae(asked)


def forgetting(known: Known, condition: str, out: Path) -> None:
    """What the old conditions are counted with by five folds, without the first draw's ten and with them.

    Each fold holds back frames of every old condition.
    """
    path = out / f"{condition}.json"
    done: dict[str, Any] = json.loads(path.read_text())
    old, of = parts(known.frames, condition)
    ten = np.random.default_rng(0).permutation(of).tolist()[:CORRECTED]
    for told, times in OLD.items():
        if told in done:
            continue
        asked: list[CountedTiles] = []
        for fold_N in np.array_split(np.random.default_rng(1).permutation(old), 5):
            held = set(fold_N.tolist())
            head = known.learnt([i for i in old if i not in held], ten if times else (), times=times)
            asked += known.counted(head, sorted(held))
        done[told] = mae(asked)
        path.write_text(json.dumps(done, indent=1))


def table_of(out: Path) -> str:
    """All conditions that are measured, by every way."""
    done = {name: json.loads(path.read_text()) for name in CONDITIONS if (path := out / f"{name}.json").exists()}
    draws = {name: list(one["draws"].values()) for name, one in done.items()}
    head = " | ".join(f"{name}, of {done[name]['mean']:.0f}, {len(draws[name])} draws" for name in done)
    lines = [f"| way | {head} | mean | share of what the champion is off |", "|---" * (len(done) + 3) + "|"]
    for way in (*WAYS, BEST):
        each = [[draw[way] for draw in of if way in draw] for of in draws.values()]
        beside = [[draw[WAYS[0]] for draw in of if way in draw] for of in draws.values()]
        off, was = ([float(np.mean(one)) for one in some] for some in (each, beside))
        shares = ", ".join(f"{value / before:.2f}" for value, before in zip(off, was, strict=True))
        cells, fewer = " | ".join(f"{value:.1f}" for value in off), min(map(len, each))
        told = way if fewer == len(next(iter(draws.values()))) else f"{way} ({fewer} draws)"
        lines.append(f"| {told} | {cells} | {np.mean(off):.1f} | {np.mean(off) / np.mean(was):.2f} ({shares}) |")
    for told in OLD:
        if all(told in one for one in done.values()):
            each = [one[told] for one in done.values()]
            lines.append(f"| {told} | {' | '.join(f'{value:.1f}' for value in each)} | {np.mean(each):.1f} | |")
    return "\n".join(lines) + "\n"


def flow(out: Path, data: Path, name: str) -> None:
    """From a bank without some wells to a version that learned from ten corrections of them, command by command."""
    out.mkdir(parents=True, exist_ok=True)
    manifest, (task, model, label) = data / name / "manifest.csv", FLOWS[name]
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = [row | {"image": str(manifest.parent / row["image"])} for row in csv.DictReader(file)]
    wells = new_wells(rows)
    of = [row for row in rows if row["group"] in wells]
    ten = [of[i] for i in np.random.default_rng(0).permutation(len(of))[:CORRECTED]]
    write(out / "old.csv", [row for row in rows if row["group"] not in wells])
    write(out / "new.csv", [row | {label: ""} for row in of])
    write(out / "corrections.csv", [{"image": row["image"], label: row[label]} for row in ten])
    train, registry = ["train", "bank", "--task", task], ["--registry", "registry"]
    steps: dict[str, list[str]] = {
        "import": ["bank", "import", "old.csv", "bank"],
        "train": [*train, *registry],
        "promote": ["registry", "promote", f"{model}@1", "champion", *registry],
        "import new": ["bank", "import", "new.csv", "bank"],
        "correct": ["bank", "label", "bank", "corrections.csv", "--by", "ana"],
        "learn": [*train, "--set", f"model.weights={model}:champion", *registry],
        "weigh": ["registry", "promote", f"{model}@2", "champion", *registry],
        "force": ["registry", "promote", f"{model}@2", "champion", "--force", "--reason", "ten wells", *registry],
    }
    seconds: dict[str, float] = {}
    for step, words in steps.items():
        kept = out / f"{step.replace(' ', '-')}.json"
        if not kept.exists():
            start_s = time.monotonic()
            done = subprocess.run([sys.executable, "-m", "cellnet", *words], cwd=out, capture_output=True, text=True)
            print(f"{step}: {done.stdout}{done.stderr}", flush=True)
            if done.returncode not in (0, 3) and step != "weigh":
                sys.exit(done.returncode)
            kept.write_text(json.dumps(time.monotonic() - start_s))
        seconds[step] = json.loads(kept.read_text())
    print(", ".join(f"{step} {value:.0f} s" for step, value in seconds.items()))
    print(f"from a saved correction to a promoted version: {seconds['learn'] + seconds['weigh']:.0f} s")


def new_wells(rows: Sequence[dict[str, str]]) -> set[str]:
    """The last group of every lineage that has several."""
    groups: dict[str, set[str]] = {}
    for row in rows:
        groups.setdefault(row["lineage"], set()).add(row["group"])
    return {max(of) for of in groups.values() if len(of) > 1}


def write(path: Path, rows: Sequence[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
