"""What is left of a classifier's accuracy on the plates of another instrument, trained without and with augmentation.

    python tests/benchmarks/instrument.py OUT [--set KEY=VALUE …]      two trainings of 12 epochs

OUT gets a bank of the built-in sample, models and `instrument.md`; it goes on where it stopped. Two networks are
trained: one on tiles as their instrument recorded them (AS_RECORDED), one with the default augmentation; `--set` is for
both, `--on` for the second alone (`--on augment.blur=3`). Then both are asked about the frames that they did not learn
from, as they are ("same batch"), and as other instruments would have recorded them: of another magnification, gain and
focus, in light that falls off to one side, with noise. Each of INSTRUMENTS is harder than the one before.
"""

import argparse
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from cellnet.bank.bank import Bank
from cellnet.config.loading import load_config
from cellnet.config.train import AS_RECORDED, TrainConfig
from cellnet.errors import NotFoundError
from cellnet.places import Places
from cellnet.prediction.predictor import Predictor
from cellnet.sample import write_sample
from cellnet.store.place import place_of
from pipelines.ingest import ingest
from pipelines.train import train


@dataclass(frozen=True, kw_only=True)
class Instrument:
    """What differs from the microscope that the sample was recorded with."""

    scales: tuple[float, float] = (0.9, 1.1)
    """Magnifications of every other frame."""
    gain: float = 0.6
    blur_px: float = 1.5
    """Standard deviation."""
    shading: float = 0.3
    """Share of the light that is lost from one side of the frame to the other."""
    noise: float = 0.0
    """Standard deviation in grey levels of 0..255."""


INSTRUMENTS: Final = {
    "second": Instrument(),
    "third": Instrument(scales=(0.8, 1.25), blur_px=2.0, shading=0.5, noise=4),
    "fourth": Instrument(scales=(0.8, 1.25), gain=0.4, blur_px=3.0, shading=0.6, noise=6),
}
SETS: Final = ("folds=0", "epochs=12", "augment.shifts=1")
WELLS: Final = 8
"""Of each lineage, two frames of each."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of both trainings")
    parser.add_argument("--on", action="append", default=[], metavar="KEY=VALUE", help="of the second alone")
    parser.add_argument("--wells", type=int, default=WELLS, help="of each lineage")
    arguments = parser.parse_args()
    out: Path = arguments.out.absolute()
    places = Places(bank=place_of(out / "bank"), registry=place_of(out / "registry"))
    manifest = out / "sample" / "manifest.csv"
    if not manifest.exists():
        write_sample(manifest.parent, wells_per_lineage=arguments.wells)
    bank = ingest(manifest, places)[0]
    sets = [*SETS, *arguments.set]
    lines = [
        f"| trained with {' '.join(sets)} | same batch | {' | '.join(f'{name}, ratio' for name in INSTRUMENTS)} |",
        "|---" * (2 + len(INSTRUMENTS)) + "|",
    ]
    off = [f"augment.{name}={value}" for name, value in AS_RECORDED.items()]
    for title, more in (("augmentation off", off), (" ".join(["augmentation on", *arguments.on]), arguments.on)):
        asked = accuracies(trained(places, [*sets, *more]), bank)
        lines.append(row(title, asked))
        print(lines[-1], flush=True)
    (out / "instrument.md").write_text("\n".join(lines) + "\n")


def trained(places: Places, sets: Sequence[str]) -> Predictor:
    """The network of these settings, trained if it is not there yet."""
    name = f"sample-{hashlib.sha256(' '.join(sets).encode()).hexdigest()[:12]}"
    registry = places.open_registry()
    try:
        ref = registry.resolve(f"{name}@1").ref
    except NotFoundError:
        config = load_config(TrainConfig, file=None, sets=list(sets), task="classify")
        ref = train(places, config, name=name, say=lambda line: print(line, file=sys.stderr)).ref
    return Predictor.load(registry, ref)


def accuracies(predictor: Predictor, bank: Bank) -> dict[str, float]:
    """Share of tiles that are named rightly, of frames not learned from: as they are, then by each instrument."""
    frames = [frame for frame in bank.frames if frame.split != "train"]
    right: dict[str, list[bool]] = {name: [] for name in ("same", *INSTRUMENTS)}
    for number, frame in enumerate(frames):
        image_HW = bank.pixels(frame)
        seen = {"same": image_HW}
        for name, instrument in INSTRUMENTS.items():
            seen[name] = recorded_by(instrument, image_HW, number)
        for name, of_it_HW in seen.items():
            named_N = predictor.predict(of_it_HW).tile_outputs.argmax(axis=1)
            right[name] += [predictor.card.classes[index] == frame.lineage for index in named_N]
    return {name: float(np.mean(hits)) for name, hits in right.items()}


def recorded_by(instrument: Instrument, image_HW: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """A frame as another instrument would have recorded it; the number of the frame says which scale, and is the seed.

    Frames stay what they show: a smaller magnification makes a smaller frame.
    """
    rng = np.random.default_rng(number)
    scale = instrument.scales[number % 2]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    grey_HW = cv2.resize(image_HW.astype(np.float32), None, fx=scale, fy=scale, interpolation=how)
    if instrument.blur_px:
        grey_HW = cv2.GaussianBlur(grey_HW, (0, 0), instrument.blur_px)
    angle = rng.uniform(0, 2 * np.pi)
    y_HW, x_HW = (axis / axis.max() * 2 - 1 for axis in np.mgrid[: grey_HW.shape[0], : grey_HW.shape[1]])
    across_HW = (x_HW * np.cos(angle) + y_HW * np.sin(angle)) / (abs(np.cos(angle)) + abs(np.sin(angle)))
    light_HW = instrument.gain * (1 - instrument.shading * (1 + across_HW) / 2)
    recorded_HW = grey_HW * light_HW + rng.normal(0, instrument.noise, grey_HW.shape)
    return np.clip(np.round(recorded_HW), 0, 255).astype(np.uint8)


def row(title: str, asked: dict[str, float]) -> str:
    same = asked["same"]
    others = " | ".join(f"{asked[name]:.2f}, {asked[name] / same:.2f}" for name in INSTRUMENTS)
    return f"| {title} | {same:.2f} | {others} |"


if __name__ == "__main__":
    main()
