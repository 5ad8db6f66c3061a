"""How often familiar frames are called unfamiliar, and how often strange ones are.

    python tests/benchmarks/familiarity.py OUT DATA      after real_sets.py DATA OUT; minutes on two cores

For the model of every real set in OUT: the false rate on frames that it did not learn from (by folds, or its holdout),
and the true rates on blank frames, noise, a grey ramp, rendered text, drawn cells, the other real sets and the planes
of the Harmony exports below DATA (fluorescence, brightfield and Digital Phase Contrast), and scikit-learn's two
photographs, cut. Frames that a model refuses, for being smaller than its tile, are not counted. Writes
OUT/familiarity.md.
"""

import argparse
import csv
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_sample_images

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it runs from anywhere

from cellnet.errors import DataError
from cellnet.images.file import SUFFIXES, ImageFile
from cellnet.prediction.predictor import Predictor
from cellnet.sample import write_sample
from pipelines.evaluate import evaluate
from tests.benchmarks.real_sets import SETS, places_of

REAL: Final = tuple(name for name in SETS if not name.startswith("drawn"))
MOST: Final = 40
"""Frames of a kind."""
SIDE: Final = 600

Image = NDArray[np.uint8] | NDArray[np.uint16]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("data", type=Path, metavar="DATA")
    arguments = parser.parse_args()
    kinds = {kind: list(images) for kind, images in strange(arguments.data, arguments.out)}
    lines = ["| images | " + " | ".join(REAL) + " |", "|---" * (len(REAL) + 1) + "|"]
    models = {name: model(arguments.out, name) for name in REAL}
    lines.append("| own, not learned from | " + " | ".join(own(arguments.out, name) for name in REAL) + " |")
    for kind, images in kinds.items():
        cells = [
            "" if kind == name else rate(predictor, ((image_HW, None) for image_HW in images))
            for name, predictor in models.items()
        ]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    (arguments.out / "familiarity.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def model(out: Path, name: str) -> Predictor:
    """A set's model."""
    return Predictor.load(places_of(out, name).open_registry(), f"{name}@1")


def own(out: Path, name: str) -> str:
    """`1 of 40`: of a set's own frames, answered by a network that had not learned from them."""
    frame = evaluate(f"{name}@1", places_of(out, name)).scores["frame"]
    return f"{round(frame['unfamiliar'] * frame['n'])} of {frame['n']}"


def rate(predictor: Predictor, images: Iterator[tuple[Image, float | None]]) -> str:
    """`3 of 40`, and how far the median of them is: 1 is the threshold."""
    far = []
    for image_HW, pixel_um in images:
        try:
            said = predictor.predict(image_HW, pixel_um=pixel_um)
        except DataError:
            continue
        assert said.strangeness is not None
        far.append(said.strangeness)
    return f"{sum(value > 1 for value in far)} of {len(far)} (×{np.median(far):.1f})" if far else "–"


def strange(data: Path, out: Path) -> Iterator[tuple[str, Iterator[Image]]]:
    """Kinds of frames, each strange to all real sets but its own."""
    rng = np.random.default_rng(0)
    yield "blank", (np.full((SIDE, SIDE), grey, np.uint8) for grey in range(0, 256, 17))
    yield (
        "camera noise",
        (np.clip(rng.normal(128, 3, (SIDE, SIDE)), 0, 255).astype(np.uint8) for _ in range(MOST // 2)),
    )
    yield "noise", (rng.integers(0, 256, (SIDE, SIDE), np.uint8) for _ in range(MOST // 2))
    yield "grey ramp", (np.tile(np.linspace(0, top, SIDE), (SIDE, 1)).astype(np.uint8) for top in (60, 120, 255))
    yield "text", (text(rng) for _ in range(MOST // 2))
    yield "photographs", photographs()
    manifest = write_sample(out / "strange", wells_per_lineage=2)
    yield "drawn cells", listed(manifest, rng)
    for name in REAL:
        yield name, listed(data / name / "manifest.csv", rng)
    for export in sorted((data / "harmony").iterdir()):
        planes = sorted(path for path in export.rglob("*") if path.suffix.lower() in SUFFIXES)
        if planes:
            yield f"Harmony {export.name}", (ImageFile.at(path).decode() for path in planes[:MOST])


def text(rng: np.random.Generator) -> NDArray[np.uint8]:
    """A page of random words, black on white."""
    page_HW = np.full((SIDE, SIDE), 255, np.uint8)
    size = float(rng.uniform(0.4, 1.0))
    for baseline in range(20, SIDE, int(40 * size)):
        words = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz    "), 80))
        cv2.putText(page_HW, words, (5, baseline), cv2.FONT_HERSHEY_SIMPLEX, size, 0, 1, cv2.LINE_AA)
    return page_HW


def photographs() -> Iterator[NDArray[np.uint8]]:
    """Parts of a temple and of a flower, in grey."""
    for photograph_HWC in load_sample_images().images:
        grey_HW = cv2.cvtColor(photograph_HWC, cv2.COLOR_RGB2GRAY)
        for top, left in itertools.product((0, 60), (0, 130, 260)):
            yield np.ascontiguousarray(grey_HW[top : top + 360, left : left + 360])


def listed(manifest: Path, rng: np.random.Generator) -> Iterator[Image]:
    """Some images of a manifest, at random."""
    with manifest.open(newline="", encoding="utf-8") as file:
        names = sorted({row["image"] for row in csv.DictReader(file)})
    for name in rng.permutation(names)[:MOST]:
        path = manifest.parent / name
        yield ImageFile.at(path).decode()


if __name__ == "__main__":
    main()
