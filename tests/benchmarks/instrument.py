"""What is left of a classifier's accuracy on the plates of another instrument: of the network that was the default
before 0.3.0, and of today's, trained without and with looks by other instruments.

    python tests/benchmarks/instrument.py OUT [--set KEY=VALUE …]      twenty minutes on two cores

OUT gets a bank of the built-in sample, models and `instrument.md`; it goes on where it stopped. `--set` is for all
trainings. Each network is asked about the frames that it did not learn from, as they are ("same batch"), and as other
instruments would have recorded them: of another magnification, gain and focus, in light that falls off to one side,
with noise. The second instrument is drawn harder, in steps of HARDER, until it is the third; then there is a fourth.
The first at which the old network, without augmentation, keeps less than TOO_LITTLE is told.
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


SECOND: Final = Instrument()
THIRD: Final = Instrument(scales=(0.8, 1.25), blur_px=2.0, shading=0.5, noise=4)
HARDER: Final = 0.25
"""Of the way from the second to the third."""


def between(share: float) -> Instrument:
    """So far on the way from the second instrument to the third."""

    def of(second: float, third: float) -> float:
        return second + share * (third - second)

    return Instrument(
        scales=(of(SECOND.scales[0], THIRD.scales[0]), of(SECOND.scales[1], THIRD.scales[1])),
        gain=of(SECOND.gain, THIRD.gain),
        blur_px=of(SECOND.blur_px, THIRD.blur_px),
        shading=of(SECOND.shading, THIRD.shading),
        noise=of(SECOND.noise, THIRD.noise),
    )


INSTRUMENTS: Final = {
    "second": SECOND,
    **{f"+{share:.2f}": between(share) for share in np.arange(HARDER, 1, HARDER).tolist()},
    "third": THIRD,
    "fourth": Instrument(scales=(0.8, 1.25), gain=0.4, blur_px=3.0, shading=0.6, noise=6),
}
TOO_LITTLE: Final = 0.8
"""Of what a network names rightly of its own batch."""
SETS: Final = ("folds=0",)
"""So that frames are left that no network learned from."""
AS_RECORDED_ALONE: Final = tuple(f"augment.{name}={value}" for name, value in AS_RECORDED.items())
NETWORKS: Final = {
    "residual, as recorded": ("model.architecture=residual", *AS_RECORDED_ALONE),
    "frozen, as recorded": AS_RECORDED_ALONE,
    "frozen: the default": (),
}
"""The first is the old one."""
WELLS: Final = 8
"""Of each lineage, two frames of each."""
SIZE_PX: Final = 520
"""Side of a frame, so that it holds a tile of each network at the smallest magnification."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of all trainings")
    parser.add_argument("--wells", type=int, default=WELLS, help="of each lineage")
    arguments = parser.parse_args()
    out: Path = arguments.out.absolute()
    places = Places(bank=place_of(out / "bank"), registry=place_of(out / "registry"))
    manifest = out / "sample" / "manifest.csv"
    if not manifest.exists():
        write_sample(manifest.parent, wells_per_lineage=arguments.wells, size_px=SIZE_PX)
    bank = ingest(manifest, places)[0]
    lines = [
        f"| {' '.join(['network', *arguments.set])} | same batch | {' | '.join(INSTRUMENTS)} |",
        "|---" * (2 + len(INSTRUMENTS)) + "|",
    ]
    kept: dict[str, dict[str, float]] = {}
    for title, sets in NETWORKS.items():
        asked = accuracies(trained(places, [*SETS, *sets, *arguments.set]), bank)
        kept[title] = {name: asked[name] / asked["same"] for name in INSTRUMENTS}
        lines.append(row(title, asked))
        print(lines[-1], flush=True)
    lines += ["", told(kept)]
    print(lines[-1])
    (out / "instrument.md").write_text("\n".join(lines) + "\n")


def told(kept: dict[str, dict[str, float]]) -> str:
    """What every network keeps at the first instrument of which the old one keeps too little."""
    old = next(iter(kept.values()))
    hard = next((name for name, ratio in old.items() if ratio < TOO_LITTLE), None)
    if hard is None:
        return f"The old network keeps {TOO_LITTLE:g} or more with every instrument."
    each = ", ".join(f"{title} {ratio[hard]:.2f}" for title, ratio in kept.items())
    return f"The old network keeps less than {TOO_LITTLE:g} with the instrument {hard}: {each}."


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
