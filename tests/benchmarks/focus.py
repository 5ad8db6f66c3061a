"""How often good frames are called out of focus, saturated or empty, and how often bad copies of them are.

    python tests/benchmarks/focus.py DATA OUT      five real sets below DATA; minutes on two cores

A half of a set's groups is the reference (`Focus`), the other half is judged: the frames as they are, and copies that
are blurred (Gaussian, or a disc as of a lens out of focus; with the frame's own camera noise after it), exposed too
long, clipped, or emptied. Several measures of focus are compared under one rule. Copies of a softer
microscope are judged as a plate too, with a tenth of them far out of focus. Writes OUT/focus.md.
"""

import argparse
import csv
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it runs from anywhere

from cellnet.images.file import ImageFile
from cellnet.images.pixels import Pixels, sharpness_of
from cellnet.images.quality import Flag, Focus, Measures, as_sharp_as_plate, flags_of, measure, noise_of

SETS: Final = ("brightfield-lines", "livecell", "hemocytometer", "living-dead", "t98g")
DRAWS: Final = 40
"""Ways in which the groups are halved."""
Blurred = tuple[dict[str, float], Measures]
"""What the measures of focus are, by name, and what cellnet measures."""


def band(image_HW: Pixels) -> float:
    """The one that cellnet uses."""
    return measure(image_HW).focus or 0.0


def tenengrad(image_HW: Pixels) -> float:
    """The mean gradient (Tenenbaum 1970), of what is blurred by a pixel, beside the contrast."""
    grey_HW = image_HW.astype(np.float32)
    soft_HW = cv2.GaussianBlur(grey_HW, (0, 0), 1)
    squares = [cv2.Sobel(soft_HW, cv2.CV_32F, x, 1 - x) ** 2 for x in (0, 1)]
    return float(np.sqrt(np.mean(squares)) / _contrast(grey_HW))


def laplacian(image_HW: Pixels) -> float:
    """The deviation of the Laplacian (Pech-Pacheco 2000), likewise."""
    grey_HW = image_HW.astype(np.float32)
    return float(cv2.Laplacian(cv2.GaussianBlur(grey_HW, (0, 0), 1), cv2.CV_32F).std() / _contrast(grey_HW))


def slope(image_HW: Pixels) -> float:
    """How the power spectrum falls from 0.02 to 0.25 cycles a pixel, as a factor of amplitude (Bray et al. 2012)."""
    side = min(512, *image_HW.shape)
    part_NN = image_HW[:side, :side].astype(np.float32)
    window_N = np.hanning(side)
    power = np.abs(np.fft.rfft2((part_NN - part_NN.mean()) * np.outer(window_N, window_N))) ** 2
    far = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    edges = np.geomspace(0.02, 0.25, 9)
    ring = np.digitize(far, edges)
    means = np.array([power[ring == number].mean() for number in range(1, len(edges))])
    centres = np.sqrt(edges[1:] * edges[:-1])
    return float(np.exp(np.polyfit(np.log(centres), np.log(means + 1e-6), 1)[0] / 2))


def _contrast(grey_HW: NDArray[np.float32]) -> float:
    return float((grey_HW - cv2.GaussianBlur(grey_HW, (0, 0), 8)).std()) + 1e-9


MEASURES: Final[dict[str, Callable[[Pixels], float]]] = {
    "1–2 px beside 4–8 px": band,
    "gone by a blur of 1 px": sharpness_of,
    "gradient": tenengrad,
    "Laplacian": laplacian,
    "power spectrum": slope,
}
BLURS: Final = (
    "as it is",
    "σ 1",
    "σ 1.5, noise",
    "σ 2",
    "σ 4",
    "σ 2, noise",
    "σ 4, noise",
    "disc 4, noise",
    "disc 8, noise",
    "½ and back",
)
EXPOSURES: Final = ("×1.5", "×2", "×3", "5 % clipped", "10 % clipped", "30 % clipped", "10 %, JPEG")
EMPTIES: Final = ("noise", "noise, shaded", "noise, JPEG")


def copies(image_HW: Pixels, rng: np.random.Generator) -> Iterator[tuple[str, Pixels]]:
    """The frame and its bad copies, by name."""
    grey_HW = image_HW.astype(np.float32)
    noise = noise_of(grey_HW)

    def recorded(values_HW: NDArray[Any], noisy: bool = False) -> Pixels:
        grain_HW = rng.normal(0, noise, values_HW.shape) if noisy else 0
        top = np.iinfo(image_HW.dtype).max
        return np.clip(np.round(values_HW + grain_HW), 0, top).astype(image_HW.dtype)

    yield "as it is", image_HW
    for sigma in (1, 1.5, 2, 4):
        blurred_HW = cv2.GaussianBlur(grey_HW, (0, 0), sigma)
        yield f"σ {sigma}", recorded(blurred_HW)
        yield f"σ {sigma}, noise", recorded(blurred_HW, noisy=True)
    for radius in (4, 8):
        yield f"disc {radius}, noise", recorded(cv2.filter2D(grey_HW, -1, disc(radius)), noisy=True)
    half_HW = cv2.resize(image_HW, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    yield "½ and back", cv2.resize(half_HW, image_HW.shape[::-1], interpolation=cv2.INTER_LINEAR)
    for gain in (1.5, 2, 3):
        yield f"×{gain:g}", recorded(np.minimum(grey_HW * gain, grey_HW.max()))
    for share in (5, 10, 30):
        limit = max(float(np.quantile(grey_HW, 1 - share / 100)), 1.0)
        clipped_HW = recorded(np.minimum(grey_HW, limit) / limit * grey_HW.max())
        yield f"{share} % clipped", clipped_HW
        if share == 10:
            yield "10 %, JPEG", jpeg(clipped_HW)
    flat_HW = np.full_like(grey_HW, np.median(grey_HW))
    yield "noise", recorded(flat_HW, noisy=True)
    y, x = (np.linspace(-1, 1, side) for side in image_HW.shape)
    yield "noise, shaded", recorded(flat_HW * (1 - 0.15 * np.add.outer(y**2, x**2)), noisy=True)
    yield "noise, JPEG", jpeg(recorded(flat_HW, noisy=True))


def disc(radius: int) -> NDArray[np.float32]:
    side = np.arange(-radius, radius + 1)
    inside = (np.add.outer(side**2, side**2) <= radius**2).astype(np.float32)
    return inside / inside.sum()


def jpeg(image_HW: Pixels) -> Pixels:
    """As a JPEG of 8 bits has it; what has 16 stays."""
    if image_HW.dtype != np.uint8:
        return image_HW
    data = cv2.imencode(".jpg", image_HW, [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)


def look(path: Path) -> dict[str, Blurred]:
    """What is measured of a frame and of its bad copies."""
    cv2.setNumThreads(1)
    seen = {}
    for kind, image_HW in copies(ImageFile.at(path).decode(), np.random.default_rng(0)):
        asked = MEASURES if kind in BLURS else {}
        seen[kind] = ({name: of(image_HW) for name, of in asked.items()}, measure(image_HW))
    return seen


def halves(groups: NDArray[Any]) -> Iterator[NDArray[np.bool_]]:
    """Which frames are the reference: those of a half of the groups, drawn so many times."""
    rng, names = np.random.default_rng(0), np.unique(groups)
    for _ in range(DRAWS):
        yield np.isin(groups, rng.permutation(names)[: (len(names) + 1) // 2])


def found(groups: NDArray[Any], own_N: NDArray[np.float64], copy_N: NDArray[np.float64]) -> float:
    """Share of copies below the limit that the reference's own values set."""
    shares = []
    for is_known_N in halves(groups):
        focus = Focus.of(own_N[is_known_N])
        assert focus is not None
        shares.append(float((copy_N[~is_known_N] < focus.limit).mean()))
    return float(np.mean(shares))


def flagged(groups: NDArray[Any], seen: list[dict[str, Blurred]], kind: str, flag: Flag) -> float:
    """Share of copies that cellnet flags so."""
    shares = []
    for is_known_N in halves(groups):
        focus = Focus.of([one["as it is"][1].focus or 0 for one, known in zip(seen, is_known_N, strict=True) if known])
        judged = [one[kind][1] for one, known in zip(seen, is_known_N, strict=True) if not known]
        shares.append(np.mean([flag in flags_of(measured, focus) for measured in judged]))
    return float(np.mean(shares))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("out", type=Path, metavar="OUT")
    arguments = parser.parse_args()
    rows = {name: list(csv.DictReader((arguments.data / name / "manifest.csv").open())) for name in SETS}
    groups = {name: np.array([row["group"] for row in rows[name]]) for name in SETS}
    with ProcessPoolExecutor(2) as pool:
        paths = {name: [arguments.data / name / row["image"] for row in rows[name]] for name in SETS}
        seen = {name: list(pool.map(look, paths[name], chunksize=4)) for name in SETS}
    lines = [*_compared(seen, groups), "", *_kept(seen, groups), "", *_of_plates(seen, groups), "", *_cost()]
    empty = {
        name: [
            bool({"empty"} & set(flags_of(one["as it is"][1], None)))
            for one, row in zip(seen[name], rows[name], strict=True)
            if row["count"] and float(row["count"]) == 0
        ]
        for name in SETS
    }
    lines += [
        "",
        *(f"{name}: {sum(of)} of {len(of)} frames with count 0 have no structure" for name, of in empty.items() if of),
    ]
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "focus.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def _compared(seen: dict[str, list[dict[str, Blurred]]], groups: dict[str, NDArray[Any]]) -> Iterator[str]:
    """False flags, and copies found, by each measure."""
    shown = ("as it is", "σ 2", "σ 2, noise", "σ 4, noise")
    yield "| measure, of " + "; ".join(shown) + " | " + " | ".join(SETS) + " |"
    yield "|---" * (len(SETS) + 1) + "|"
    for name in MEASURES:
        cells = []
        for one in SETS:
            values = {kind: np.array([of[kind][0][name] for of in seen[one]]) for kind in shown}
            shares = [found(groups[one], values["as it is"], values[kind]) for kind in shown]
            cells.append("; ".join(f"{100 * share:.0f}" if share >= 0.1 else f"{100 * share:.1f}" for share in shares))
        yield f"| {name} | " + " | ".join(cells) + " |"


def _kept(seen: dict[str, list[dict[str, Blurred]]], groups: dict[str, NDArray[Any]]) -> Iterator[str]:
    """What is flagged of frames as they are, and of each kind of copy."""
    yield "| flag | of | " + " | ".join(SETS) + " |"
    yield "|---" * (len(SETS) + 2) + "|"
    asked: list[tuple[Flag, tuple[str, ...]]] = [
        ("out_of_focus", BLURS),
        ("saturated", ("as it is", *EXPOSURES)),
        ("empty", ("as it is", "σ 4, noise", "disc 8, noise", *EMPTIES)),
    ]
    for flag, kinds in asked:
        for kind in kinds:
            cells = (f"{100 * flagged(groups[name], seen[name], kind, flag):.1f} %" for name in SETS)
            yield f"| {flag} | {kind} | " + " | ".join(cells) + " |"


def _of_plates(seen: dict[str, list[dict[str, Blurred]]], groups: dict[str, NDArray[Any]]) -> Iterator[str]:
    """Of all frames of the other half as one plate, a tenth of them far out of focus: which are left out in the end."""
    yield "| the plate | left out | " + " | ".join(SETS) + " |"
    yield "|---" * (len(SETS) + 2) + "|"
    for kind in ("as it is", "σ 1", "σ 1.5, noise", "σ 4, noise"):
        told = {name: _left_out(groups[name], seen[name], kind) for name in SETS}
        for column, what in enumerate(("alone, of nine tenths", "beside the plate", "of the tenth, σ 4")):
            yield f"| {kind} | {what} | " + " | ".join(f"{100 * told[name][column]:.1f} %" for name in SETS) + " |"


def _left_out(groups: NDArray[Any], seen: list[dict[str, Blurred]], kind: str) -> NDArray[np.float64]:
    """Shares of a plate that is so blurred: flagged alone, and flagged in the end; and of what is far out of focus."""
    shares, rng = [], np.random.default_rng(0)
    for is_known_N in halves(groups):
        focus = Focus.of([one["as it is"][1].focus or 0 for one, known in zip(seen, is_known_N, strict=True) if known])
        assert focus is not None
        plate = [one for one, known in zip(seen, is_known_N, strict=True) if not known]
        is_far_N = np.isin(np.arange(len(plate)), rng.permutation(len(plate))[: max(1, len(plate) // 10)])
        measures = [one["σ 4, noise" if far else kind][1] for one, far in zip(plate, is_far_N, strict=True)]
        quality = [flags_of(measured, focus) for measured in measures]
        is_flagged_N = np.array(["out_of_focus" in flags for flags in quality])
        multiples = [measured.focus / focus.median if measured.focus else None for measured in measures]
        is_left_N = is_flagged_N.copy()
        if told := as_sharp_as_plate(multiples, quality):
            is_left_N[told[1]] = False
        shares.append([is_flagged_N[~is_far_N].mean(), is_left_N[~is_far_N].mean(), is_left_N[is_far_N].mean()])
    return np.mean(shares, axis=0)


def _cost() -> Iterator[str]:
    """Of the measures, one thread."""
    cv2.setNumThreads(1)
    for side in (200, 1000):
        image_HW = np.random.default_rng(0).integers(0, 256, (side, side)).astype(np.uint8)
        spans = []
        for _ in range(20):
            began = time.process_time()
            measure(image_HW)
            spans.append(time.process_time() - began)
        yield f"{side}×{side}: {1e3 * min(spans):.1f} ms"


if __name__ == "__main__":
    main()
