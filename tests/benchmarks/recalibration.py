"""What three or five counted frames of a new batch are worth to a counter.

    python tests/benchmarks/recalibration.py OUT DATA      a quarter of an hour on two cores

DATA holds the counting chamber's frames, `hemocytometer/manifest.csv` (image,lineage,count,group,batch). Of each of its
conditions a counter is trained on the others, and asked about it; then it is fitted to frames of it that are drawn at
random, twenty times three and five of them, and asked about the rest: what it is off, how many counts its 90 %
intervals hold, how many frames it calls unfamiliar, and of strange ones how many: noise, and frames of the other sets
in DATA. Writes OUT/recalibration.md. The networks are
the default ones.
"""

import argparse
import csv
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from cellnet.config.choices import NETWORK_PX
from cellnet.config.train import TrainConfig
from cellnet.errors import DataError, NotFoundError
from cellnet.evaluation.recount import SeenFrame, ToldFrame, fitted, scores_of, see, tell
from cellnet.images.file import ImageFile
from cellnet.images.pixels import Pixels
from cellnet.places import Places
from cellnet.prediction.predictor import Predictor
from cellnet.store.place import place_of
from pipelines.ingest import ingest
from pipelines.train import train

SET: Final = "hemocytometer"
OTHERS: Final = ("t98g", "livecell", "brightfield-lines")
DRAWS: Final = 20
COUNTED: Final = (3, 5)
STRANGE: Final = 10
"""Frames of each other kind."""
HEAD: Final = (
    "| asked about | frames counted | draws | off, of a mean of | bias | in their 90 % interval | draws from to | "
    "unfamiliar | strange flagged |\n|---|---|---|---|---|---|---|---|---|\n"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("data", type=Path, metavar="DATA")
    arguments = parser.parse_args()
    manifest = arguments.data / SET / "manifest.csv"
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    strange = [*noise(), *(image_HW for name in OTHERS for image_HW in some_of(arguments.data / name / "manifest.csv"))]
    lines, held = [], {number: [] for number in COUNTED}
    for batch in sorted({row["batch"] for row in rows}):
        predictor = trained(arguments.out, manifest, batch)
        frames = list(seen(predictor, manifest, [row for row in rows if row["batch"] == batch]))
        odd = [see(predictor, image_HW, image=str(n), truth=0, pixel_um=None) for n, image_HW in enumerate(strange)]
        lines.append(line_of(batch, 0, [[tell(predictor, one) for one in frames]], [flagged(predictor, odd)]))
        for number in COUNTED:
            draws = [drawn(predictor, frames, odd, number, seed) for seed in range(DRAWS)]
            told, flags = zip(*(draw for draw in draws if draw), strict=True)
            lines.append(line_of(batch, number, told, flags))
            held[number] += [scores_of(one)["coverage"] or 0 for one in told]
        print("\n".join(lines[-1 - len(COUNTED) :]), flush=True)
    summary = [
        f"{number} frames: intervals hold {np.mean(shares):.1%} of {len(shares)} draws"
        for number, shares in held.items()
    ]
    print("\n".join(summary))
    (arguments.out / "recalibration.md").write_text(HEAD + "\n".join([*lines, "", *summary]) + "\n")


def trained(out: Path, manifest: Path, batch: str) -> Predictor:
    """A counter that knows all batches but one, trained if it is not there yet; every frame is a group of its own."""
    name = f"without-{batch}"
    places = Places(bank=place_of((out / name).absolute()), registry=place_of((out / "registry").absolute()))
    try:
        return Predictor.load(places.open_registry(), f"{name}@1")
    except NotFoundError:
        ingest(without(manifest, batch, out / f"{name}.csv"), places)
    config = TrainConfig(task="count", folds=0)
    version = train(places, config, name=name, say=lambda line: print(line, file=sys.stderr))
    return Predictor.load(places.open_registry(), version.ref)


def without(manifest: Path, batch: str, path: Path) -> Path:
    """A manifest of all frames that are not of a batch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with manifest.open(newline="", encoding="utf-8") as file, path.open("w", newline="", encoding="utf-8") as copy:
        writer = csv.writer(copy)
        writer.writerow(["image", "lineage", "count", "group"])
        for row in csv.DictReader(file):
            if row["batch"] != batch:
                writer.writerow([(manifest.parent / row["image"]).absolute(), row["lineage"], row["count"], ""])
    return path


def seen(predictor: Predictor, manifest: Path, rows: Sequence[dict[str, str]]) -> Iterator[SeenFrame]:
    for row in rows:
        image_HW = ImageFile.at(manifest.parent / row["image"]).decode()
        yield see(predictor, image_HW, image=row["image"], truth=float(row["count"]), pixel_um=None)


def drawn(
    predictor: Predictor, frames: Sequence[SeenFrame], odd: Sequence[SeenFrame], number: int, seed: int
) -> tuple[list[ToldFrame], float] | None:
    """What a counter that was fitted to so many frames says of the others, and how many strange ones it flags.

    None where these frames are refused.
    """
    order = np.random.default_rng(seed).permutation(len(frames))
    try:
        plate = fitted(predictor, [frames[i] for i in order[:number]])
    except DataError:
        return None
    return [tell(plate, frames[i]) for i in order[number:]], flagged(plate, odd)


def flagged(predictor: Predictor, frames: Sequence[SeenFrame]) -> float:
    return float(np.mean([tell(predictor, one).unfamiliar for one in frames]))


def line_of(batch: str, number: int, told: Sequence[Sequence[ToldFrame]], flags: Sequence[float]) -> str:
    """A row of the table: means over the draws."""
    scores = [scores_of(one) for one in told]
    mean = {name: float(np.mean([one[name] or 0 for one in scores])) for name in scores[0]}
    shares = [one["coverage"] or 0 for one in scores]
    truth = np.mean([one.truth for draw in told for one in draw])
    spread = f"{min(shares):.0%}–{max(shares):.0%}" if number else ""
    return (
        f"| {batch} | {number or 'none'} | {len(told) if number else ''} | {mean['mae']:.1f} of {truth:.0f} | "
        f"{mean['bias']:+.1f} | {mean['coverage']:.0%} | {spread} | {mean['unfamiliar']:.0%} | {np.mean(flags):.0%} |"
    )


def noise() -> Iterator[Pixels]:
    rng = np.random.default_rng(0)
    for _ in range(STRANGE):
        yield rng.integers(0, 256, (600, 600), np.uint8)


def some_of(manifest: Path) -> Iterator[Pixels]:
    """Some images of another set that are not smaller than a tile."""
    with manifest.open(newline="", encoding="utf-8") as file:
        names = sorted({row["image"] for row in csv.DictReader(file)})
    images = (ImageFile.at(manifest.parent / name).decode() for name in np.random.default_rng(0).permutation(names))
    yield from itertools.islice((image_HW for image_HW in images if min(image_HW.shape) >= NETWORK_PX), STRANGE)


if __name__ == "__main__":
    main()
