"""How much of a score is leakage: one network trained under the paper's protocol and under ours, on the same bank.

    python tests/benchmarks/protocols.py OUT [DATA]      about half an hour on two cores; goes on where it stopped

OUT gets banks, models and `protocols.md`. DATA holds the folders of real sets, each with a manifest.csv; without it,
the built-in drawings alone are used. Under both protocols the frames of the bank's holdout take no part in the
training. Networks are the default ones, fed with the paper's 16 variants of every tile; all else is alike, so that rows
of a set differ by what is named in them:

    grouped           tiles stay with their group: what cellnet does
    drawn             tiles are drawn at random, so that each frame trains and is tested on
    drawn, filtered   likewise, and the tiles of every second lineage are sharpened; for a classifier alone

`reported` is what the protocol itself reports: of the tiles that it held out. `unseen` is the same network on whole
tiles of frames that it never saw, as they come; `unseen, filtered` with the kernel put on by the true lineage, which
nobody can know of an unknown image.
"""

import argparse
import sys
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from cellnet.bank.bank import Bank
from cellnet.config.bank import BankSettings
from cellnet.config.choices import PAPER_SHARES, Kernel, Protocol
from cellnet.config.train import AS_RECORDED, Augment, TrainConfig
from cellnet.errors import NotFoundError
from cellnet.evaluation.metrics import Rows, Scores, score
from cellnet.places import Places
from cellnet.prediction.predictor import Predictor
from cellnet.registry.records import ModelVersion
from cellnet.sample import write_sample
from cellnet.store.place import place_of
from cellnet.tasks import TASKS, Task
from pipelines.evaluate import evaluate
from pipelines.ingest import ingest
from pipelines.train import train

SEED: Final = 4
"""Of the splits; not the one that defaults were chosen with."""
AUGMENT: Final = Augment(shares=PAPER_SHARES, shifts=0, orientation="stored", mirror=False, jitter=0, **AS_RECORDED)
HEAD: Final = (
    "| set | protocol | training tiles | reported | whole tiles of these | unseen | unseen, filtered |\n"
    "|---|---|---|---|---|---|---|\n"
)


class Set(NamedTuple):
    """A bank's name, and what is trained on it."""

    name: str
    task: Task
    epochs: int


SETS: Final = (
    Set("sample", "classify", 8),
    Set("sample", "count", 6),
    Set("brightfield-lines", "classify", 6),
    Set("living-dead", "count", 4),
    Set("t98g", "count", 6),
)
PROTOCOLS: Final[dict[str, tuple[Protocol, Kernel]]] = {
    "grouped": ("grouped", "none"),
    "drawn": ("paper", "none"),
    "drawn, filtered": ("paper", "sharpen"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("data", type=Path, metavar="DATA", nargs="?")
    arguments = parser.parse_args()
    lines = []
    for chosen in SETS:
        if chosen.name != "sample" and not arguments.data:
            continue
        places = Places(
            bank=place_of((arguments.out / f"bank-{chosen.name}").absolute()),
            registry=place_of((arguments.out / "registry").absolute()),
        )
        bank = bank_of(chosen.name, places, arguments)
        for title, (protocol, kernel) in PROTOCOLS.items():
            if kernel != "none" and chosen.task != "classify":
                continue
            version = trained(places, chosen, protocol, kernel)
            lines.append(row(chosen, title, version, places, bank))
            print(lines[-1], flush=True)
    (arguments.out / "protocols.md").write_text(HEAD + "\n".join(lines) + "\n")


def bank_of(name: str, places: Places, arguments: argparse.Namespace) -> Bank:
    """The set's bank, imported if it is not there yet."""
    manifest = write_sample(arguments.out / "sample") if name == "sample" else arguments.data / name / "manifest.csv"
    return ingest(manifest, places, settings=BankSettings(seed=SEED))[0]


def trained(places: Places, chosen: Set, protocol: Protocol, kernel: Kernel) -> ModelVersion:
    """The first version of the set's model under a protocol, trained if it is not there yet."""
    name = f"{chosen.name}-{chosen.task}-{protocol}-{kernel}"
    try:
        return places.open_registry().resolve(f"{name}@1")
    except NotFoundError:
        config = TrainConfig(
            task=chosen.task,
            folds=0,
            augment=AUGMENT,
            epochs=chosen.epochs,
            protocol=protocol,
            kernel=kernel,
        )
        return train(places, config, name=name, say=lambda line: print(line, file=sys.stderr))


def row(chosen: Set, title: str, version: ModelVersion, places: Places, bank: Bank) -> str:
    """A line of the table."""
    unseen = evaluate(version.ref, places).scores["tile"]
    scores = version.card.scores
    reported = scores.get("drawn_holdout", unseen)
    whole = scores.get("drawn_holdout_whole", unseen)
    cells = [figure(of, chosen.task) for of in (reported, whole, unseen)]
    is_filtered = chosen.task == "classify" and version.card.config.kernel != "none"
    cells.append(figure(filtered_by_truth(version, places, bank), chosen.task) if is_filtered else "")
    tiles = version.card.history[-1]["tiles"]
    return f"| {chosen.name}, {chosen.task} | {title} | {tiles:,} | {' | '.join(cells)} |"


def filtered_by_truth(version: ModelVersion, places: Places, bank: Bank) -> Scores:
    """Scores of a classifier per tile of the holdout, the kernel put on the tiles of the lineages that had it."""
    plain = Predictor.load(places.open_registry(), version.ref)
    preprocess = plain.card.preprocess.model_copy(update={"kernel": version.card.config.kernel})
    filtering = Predictor(plain.ref, plain.card.model_copy(update={"preprocess": preprocess}), plain.network)
    truths, outputs, frames = [], [], []
    for frame in bank.split("holdout"):
        predictor = filtering if frame.lineage in bank.lineages[::2] else plain
        said = predictor.predict(bank.pixels(frame), pixel_um=frame.pixel_um)
        truths += [bank.lineages.index(str(frame.lineage))] * len(said.boxes)
        outputs.append(said.tile_outputs)
        frames += [frame] * len(said.boxes)
    rows = Rows(
        truth=np.array(truths),
        output=np.concatenate(outputs).astype(np.float64),
        lineages=[frame.lineage for frame in frames],
        groups=[frame.group for frame in frames],
    )
    return score("classify", rows, bank.lineages)


def figure(scores: Scores, task: Task) -> str:
    """The main score with its interval."""
    main = TASKS[task].main
    low, high = scores[f"{main}_interval"]
    return f"{main} {scores[main]:.2f} ({low:.2f}–{high:.2f})"


if __name__ == "__main__":
    main()
