"""Built-in sample images: drawings of eight cell lineages in phase contrast, with exact counts and centres.

    cellnet bank sample FOLDER

They are drawings, a stand-in so that the demo and the tests run without a download. A score on them says that
the software works; it is not a score on cells.

A frame is made as a microscope makes it: cells are bodies with an optical thickness (radians of phase), and
phase-contrast optics turn thickness into grey. Halos, shade-off inside large cells and the contrast reversal
of thick rounded cells follow from the optics (Zernike 1942) and are not painted.

Lengths are pixels, thicknesses radians; x goes right and y down. HW is the whole canvas, hw one cell's window
of it, K the angles of an outline, M the pixels of a place, S the segments of a neurite.
"""

import csv
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Range = tuple[float, float]

OUTLINE_POINTS: Final = 256
REFERENCE_PX: Final = 400  # Morphology.count is for a frame of this side
MARGIN_PX: Final = 48  # cells and optics beyond the border: centres outside the frame may still be seen in it


@dataclass(frozen=True, kw_only=True)
class Morphology:
    """How the cells of one lineage look; a range is drawn from uniformly, a well or a cell at a time."""

    count: Range  # cells in a frame of 400x400 px, from the sparsest well to the densest
    radius: Range  # of a circle of the cell's area, without arms
    aspect: Range  # length over width
    corners: float  # exponent of the outline: 1 a diamond, 2 an ellipse, more a rounded box
    arms: tuple[int, int]  # protrusions, inclusive
    arm_length: float  # in radii
    rough: float  # unevenness of the outline, in radii
    height: float  # thickness of a spread cell
    edge: float  # distance over which a spread cell reaches its thickness
    nucleus: float  # radius of the nucleus, in radii of the cell
    granules: float  # dark specks a cell
    vacuoles: float  # bright specks a cell
    clumping: float  # probability that a cell lies against another
    spacing: float  # least distance of two centres, in sums of their radii
    rounded: float = 0.05  # share of rounded, bright cells
    round_height: float = 2.6  # thickness of a rounded cell
    blebs: float = 0.0  # blebs a rounded cell
    giants: float = 0.0  # share of cells of 1.6 times the radius
    neurites: tuple[int, int] = (0, 0)
    aligned: float = 0.0  # 0: any direction, 1: all in the well's direction
    overlaps: bool = False  # cells lie over each other; else they meet at a contact edge
    debris: float = 6.0  # bits in a frame of 400x400 px


MORPHOLOGIES: Final = MappingProxyType(
    {
        "A549": Morphology(
            count=(6, 46), radius=(13.5, 18.5), aspect=(1.0, 1.8), corners=2.4, arms=(3, 5),
            arm_length=0.50, rough=0.09, height=0.30, edge=7, nucleus=0.45,
            granules=18, vacuoles=2, clumping=0.58, spacing=0.84, rounded=0.06, giants=0.03,
        ),
        "HUH7_denv": Morphology(
            count=(6, 36), radius=(16, 22.5), aspect=(1.0, 1.4), corners=2.4, arms=(2, 5),
            arm_length=0.18, rough=0.05, height=0.46, edge=4, nucleus=0.42,
            granules=70, vacuoles=28, clumping=0.72, spacing=0.78, rounded=0.11, blebs=1.0, debris=10,
        ),
        "3T3": Morphology(
            count=(5, 42), radius=(10, 15), aspect=(2.2, 5.0), corners=1.5, arms=(2, 4),
            arm_length=1.1, rough=0.07, height=0.33, edge=4, nucleus=0.48,
            granules=20, vacuoles=2, clumping=0.35, spacing=0.95, rounded=0.05, aligned=0.75, overlaps=True,
        ),
        "VERO6": Morphology(
            count=(9, 64), radius=(11, 14.5), aspect=(1.4, 2.3), corners=2.0, arms=(2, 2),
            arm_length=0.20, rough=0.03, height=0.40, edge=3.5, nucleus=0.50,
            granules=7, vacuoles=1, clumping=0.82, spacing=0.76, rounded=0.05, aligned=0.35,
        ),
        "THP1": Morphology(
            count=(6, 66), radius=(6, 9.5), aspect=(1.0, 1.25), corners=2.0, arms=(0, 1),
            arm_length=0.2, rough=0.05, height=0.32, edge=2, nucleus=0.5,
            granules=6, vacuoles=1, clumping=0.45, spacing=0.92, rounded=0.96, debris=8,
        ),
        "SH-SY5Y": Morphology(
            count=(6, 58), radius=(7, 10.5), aspect=(1.1, 2.0), corners=1.8, arms=(1, 2),
            arm_length=0.7, rough=0.05, height=0.46, edge=4, nucleus=0.5,
            granules=8, vacuoles=2, clumping=0.62, spacing=0.85, rounded=0.16, neurites=(1, 3), debris=8,
        ),
        "A172": Morphology(
            count=(5, 24), radius=(20, 28), aspect=(1.1, 2.4), corners=2.0, arms=(3, 6),
            arm_length=0.65, rough=0.09, height=0.34, edge=10, nucleus=0.36,
            granules=70, vacuoles=5, clumping=0.3, spacing=0.95, rounded=0.06, giants=0.10, overlaps=True,
        ),
        "HUH7_mayv": Morphology(
            count=(7, 40), radius=(14, 20.5), aspect=(1.0, 1.6), corners=2.2, arms=(2, 5),
            arm_length=0.35, rough=0.08, height=0.50, edge=4, nucleus=0.42,
            granules=70, vacuoles=28, clumping=0.58, spacing=0.80, rounded=0.52, blebs=5.0, debris=28,
        ),
    }
)  # fmt: skip
LINEAGES: Final[tuple[str, ...]] = tuple(MORPHOLOGIES)


@dataclass(frozen=True, kw_only=True)
class Well:
    """What the fields of one well share: how the cells were seeded and fared, and how the well was imaged."""

    count: float  # expected cells in a frame of 400x400 px
    size: float  # factor on radii
    height: float  # factor on thicknesses
    rounded: float  # share of rounded cells
    debris: float  # factor
    direction_rad: float  # of aligned cells
    blur: float  # sigma of the objective's blur
    defocus: float  # px^2 of the Laplacian: thin fringes at edges; the sign says which side of focus
    ring: float  # transmission of the phase ring: less is more contrast
    halo: float  # sigma of the light that the ring takes along
    grey: float  # of the background, 0 to 255
    tilt_xy: tuple[float, float]  # illumination from the middle to the border
    vignette: float  # loss in the corners
    noise: float  # grey levels


@dataclass(frozen=True)
class SampleFrame:
    """One drawn field of view: grey pixels, the lineage, and the cells' centres as columns x, y."""

    image_HW: NDArray[np.uint8]
    lineage: str
    centres_N2: Floats

    @property
    def count(self) -> int:
        """Cells whose centre lies in the frame."""
        return len(self.centres_N2)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell before it is drawn."""

    x: float
    y: float
    radius: float
    aspect: float
    direction_rad: float
    rounded: bool


@dataclass(frozen=True, kw_only=True)
class Body:
    """A cell's place on the canvas: `level_hw` is 1 at the centre, 0 on the outline, negative outside."""

    cell: Cell
    window: tuple[slice, slice]
    level_hw: Floats
    nucleus_hw: Floats  # the same for the nucleus


def draw_well(lineage: str, rng: np.random.Generator) -> Well:
    """The conditions of one well; wells of a lineage differ in density, size, focus, contrast and light."""
    row = _morphology(lineage)
    return Well(
        count=row.count[0] + (row.count[1] - row.count[0]) * rng.uniform() ** 1.2,
        size=rng.uniform(0.92, 1.10),
        height=rng.uniform(0.84, 1.2),
        rounded=1 / (1 + (1 / row.rounded - 1) * rng.lognormal(0.0, 0.6)),  # the odds vary
        debris=rng.lognormal(0.0, 0.5),
        direction_rad=rng.uniform(0, np.pi),
        blur=rng.uniform(0.6, 1.3),
        defocus=rng.uniform(-0.5, 1.2),
        ring=rng.uniform(0.46, 0.66),
        halo=rng.uniform(6, 11),
        grey=rng.uniform(104, 136),
        tilt_xy=(rng.uniform(-0.1, 0.1), rng.uniform(-0.1, 0.1)),
        vignette=rng.uniform(0.0, 0.12),
        noise=rng.uniform(1.5, 3.2),
    )


def draw_frame(
    lineage: str,
    rng: np.random.Generator,
    *,
    size_px: int = 400,
    well: Well | None = None,
) -> SampleFrame:
    """One field of a well (a new well when none is given), square, `size_px` to a side.

    A cell is counted when its centre lies in the frame; others may reach into it from outside.
    Raises ValueError for an unknown lineage.
    """
    row = _morphology(lineage)
    well = draw_well(lineage, rng) if well is None else well
    side = size_px + 2 * MARGIN_PX
    cells = _scatter(row, well, rng, side=side)
    phase_HW = _phase_map(row, well, rng, cells=cells, side=side)
    light_HW = _phase_contrast(phase_HW, well)
    inner = slice(MARGIN_PX, MARGIN_PX + size_px)
    centres_N2 = np.array([(cell.x, cell.y) for cell in cells], np.float32).reshape(-1, 2) - MARGIN_PX
    inside_N = ((centres_N2 >= 0) & (centres_N2 < size_px)).all(axis=1)
    return SampleFrame(_camera(light_HW[inner, inner], well, rng), lineage, centres_N2[inside_N])


def write_sample(
    folder: Path,
    *,
    wells_per_lineage: int = 8,
    fields_per_well: int = 2,
    size_px: int = 400,
    seed: int = 0,
    lineages: Sequence[str] = LINEAGES,
) -> Path:
    """Write images/LINEAGE_wNN_fN.png, manifest.csv and points.csv under `folder`; returns the manifest.

    Each well and field has its own seed, so asking for more of them leaves the earlier ones as they were.
    """
    for lineage in lineages:
        _morphology(lineage)  # an unknown one is refused before anything is written
    (folder / "images").mkdir(parents=True, exist_ok=True)
    manifest: list[tuple[str, str, int, str]] = []
    points: list[tuple[str, str, str]] = []
    for lineage in lineages:
        for w in range(wells_per_lineage):
            group = f"{lineage}_w{w:02d}"
            well_seed = (seed, LINEAGES.index(lineage), w)
            well = draw_well(lineage, np.random.default_rng((*well_seed, 0)))
            for f in range(fields_per_well):
                rng = np.random.default_rng((*well_seed, 1 + f))
                frame = draw_frame(lineage, rng, size_px=size_px, well=well)
                image = f"images/{group}_f{f}.png"
                (folder / image).write_bytes(cv2.imencode(".png", frame.image_HW)[1].tobytes())
                manifest.append((image, lineage, frame.count, group))
                points += [(image, f"{x:.2f}", f"{y:.2f}") for x, y in frame.centres_N2]
    _write_csv(folder / "points.csv", ("image", "x", "y"), points)
    return _write_csv(folder / "manifest.csv", ("image", "lineage", "count", "group"), manifest)


def _write_csv(path: Path, header: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return path


def _morphology(lineage: str) -> Morphology:
    if lineage not in MORPHOLOGIES:
        raise ValueError(f"unknown lineage {lineage!r}; the sample has {', '.join(LINEAGES)}")
    return MORPHOLOGIES[lineage]


def _scatter(row: Morphology, well: Well, rng: np.random.Generator, *, side: int) -> list[Cell]:
    """Cells on a canvas, none nearer to another than the lineage's spacing."""
    wanted = round(well.count * (side / REFERENCE_PX) ** 2 * rng.lognormal(0.0, 0.18))
    cells: list[Cell] = []
    for _ in range(wanted * 12):  # a full frame takes no more: fewer than wanted is then right
        if len(cells) == wanted:
            break
        new = _propose(row, well, rng, cells=cells, side=side)
        apart = (math.hypot(new.x - old.x, new.y - old.y) / (new.radius + old.radius) for old in cells)
        if 0 <= new.x < side and 0 <= new.y < side and min(apart, default=math.inf) >= row.spacing:
            cells.append(new)
    return cells


def _propose(row: Morphology, well: Well, rng: np.random.Generator, *, cells: list[Cell], side: int) -> Cell:
    """A cell anywhere or, as often as the lineage clumps, against one of `cells`; it may not fit there."""
    rounded = rng.uniform() < well.rounded
    radius = rng.uniform(*row.radius) * well.size * (1.6 if rng.uniform() < row.giants else 1.0)
    if rounded:
        radius = min(radius, 7.0 + 0.2 * radius)  # a spread cell that rounds up covers less
    x, y = rng.uniform(0, side, 2)
    founders = len(cells) < 4  # spread first, or one clump may leave a field empty
    if not founders and rng.uniform() < row.clumping:
        near = cells[rng.integers(len(cells))]
        gap, angle = row.spacing * rng.uniform(1.0, 1.25) * (near.radius + radius), rng.uniform(0, 2 * np.pi)
        x, y = near.x + gap * np.cos(angle), near.y + gap * np.sin(angle)
    turn = rng.normal(0.0, 0.3) if rng.uniform() < row.aligned else rng.uniform(0, np.pi)
    return Cell(
        x=x,
        y=y,
        radius=radius,
        aspect=rng.uniform(1.0, 1.15) if rounded else rng.uniform(*row.aspect),
        direction_rad=well.direction_rad + turn,
        rounded=rounded,
    )


def _outline(row: Morphology, cell: Cell, rng: np.random.Generator) -> Floats:
    """Distance of the outline from the centre at each of K angles: an ellipse, arms, and unevenness."""
    angles_K = np.linspace(0, 2 * np.pi, OUTLINE_POINTS, endpoint=False)
    stretch = np.sqrt(cell.aspect)
    power = 2.0 if cell.rounded else row.corners
    sides_K = np.abs(np.cos(angles_K) / stretch) ** power + np.abs(np.sin(angles_K) * stretch) ** power
    orders = np.arange(OUTLINE_POINTS // 2 + 1)
    strength = np.where(orders > 1, 1 / np.maximum(orders, 1) ** 1.5, 0)
    waves_K = np.fft.irfft(strength * np.exp(2j * np.pi * rng.uniform(size=orders.size)), OUTLINE_POINTS)
    rough = 0.03 if cell.rounded else row.rough
    shape_K = sides_K ** (-1 / power) * (1 + rough * waves_K / waves_K.std())
    arms = 0 if cell.rounded else int(rng.integers(row.arms[0], row.arms[1] + 1))
    for arm in range(arms):
        towards = 2 * np.pi * arm / arms + rng.normal(0, 0.5 / cell.aspect)  # 0 and pi: the long axis
        off_K = np.abs(np.angle(np.exp(1j * (angles_K - towards))))
        length = row.arm_length * rng.lognormal(0, 0.5) * max(abs(np.cos(towards)), 0.35)
        # Longest along the cell; the exponential flanks leave concave sides, as between adhesions.
        shape_K += length * np.exp(-off_K / rng.uniform(0.12, 0.45))
    outline_K: Floats = (cell.radius * np.maximum(shape_K, 0.25)).astype(np.float32)
    return outline_K


def _body(row: Morphology, cell: Cell, rng: np.random.Generator, *, side: int) -> Body:
    """The cell's level in its bounding box, turned and bent."""
    outline_K = _outline(row, cell, rng)
    reach = int(outline_K.max()) + 3
    top, left = max(int(cell.y) - reach, 0), max(int(cell.x) - reach, 0)
    window = slice(top, min(int(cell.y) + reach, side)), slice(left, min(int(cell.x) + reach, side))
    y_hw, x_hw = np.mgrid[window].astype(np.float32)
    y_hw, x_hw = y_hw - np.float32(cell.y), x_hw - np.float32(cell.x)
    cos, sin = np.float32(np.cos(cell.direction_rad)), np.float32(np.sin(cell.direction_rad))
    along_hw, across_hw = cos * x_hw + sin * y_hw, cos * y_hw - sin * x_hw
    across_hw += np.float32(rng.normal(0, 0.05) / cell.radius) * along_hw**2
    away_hw, angle_hw = cv2.cartToPolar(along_hw, across_hw)
    index_hw = (angle_hw * np.float32(OUTLINE_POINTS / (2 * np.pi))).astype(np.int32) % OUTLINE_POINTS
    level_hw = 1 - away_hw / outline_K[index_hw]
    length = cell.radius * row.nucleus * min(cell.aspect, 2.0) ** 0.3 * rng.uniform(0.85, 1.15)
    width = length / min(cell.aspect, 2.0) ** 0.6 * rng.uniform(0.8, 1.0)
    shift_along, shift_across = rng.normal(0, 0.12, 2) * cell.radius
    nucleus_hw = 1 - np.hypot((along_hw - shift_along) / length, (across_hw - shift_across) / width)
    return Body(cell=cell, window=window, level_hw=level_hw, nucleus_hw=nucleus_hw.astype(np.float32))


def _phase_map(
    row: Morphology,
    well: Well,
    rng: np.random.Generator,
    *,
    cells: list[Cell],
    side: int,
) -> Floats:
    """Optical thickness of everything on the canvas, in radians."""
    cells_HW = np.zeros((side, side), np.float32)
    specks_HW = np.zeros((side, side), np.float32)
    fine_HW, middle_HW, wide_HW, broad_HW = (_smooth_noise(rng, side=side, sigma=s) for s in (1.6, 5, 6, 25))
    texture_HW = 1 + 0.1 * (fine_HW + wide_HW)
    ruffle_HW = np.maximum(0.45 + 0.5 * middle_HW, 0)
    bodies = [_body(row, cell, rng, side=side) for cell in cells]
    owner_HW = _owners(bodies, side=side)
    for number, body in enumerate(bodies):
        window = body.window
        mask_hw = body.level_hw > 0 if row.overlaps else owner_HW[window] == number
        thick_hw = _thickness(row, body, mask_hw, rng, ruffle_hw=ruffle_HW[window])
        cells_HW[window] += thick_hw * texture_HW[window]
        _add_specks(row, body, mask_hw, rng, specks_HW=specks_HW)
    cells_HW += cv2.GaussianBlur(specks_HW, (0, 0), 0.9) + _neurites(row, cells, rng, side=side)
    medium_HW = 0.006 * fine_HW + 0.02 * broad_HW
    return well.height * cells_HW + _debris(row, well, rng, cells=cells, side=side) + medium_HW


def _owners(bodies: list[Body], *, side: int) -> NDArray[np.int32]:
    """The number of the cell that holds each pixel, -1 for none: neighbours meet where levels are equal."""
    owner_HW = np.full((side, side), -1, np.int32)
    best_HW = np.zeros((side, side), np.float32)
    for number, body in enumerate(bodies):
        wins_hw = body.level_hw > best_HW[body.window]
        best_HW[body.window][wins_hw] = body.level_hw[wins_hw]
        owner_HW[body.window][wins_hw] = number
    return owner_HW


def _thickness(
    row: Morphology, body: Body, mask_hw: NDArray[np.bool_], rng: np.random.Generator, *, ruffle_hw: Floats
) -> Floats:
    """A dome for a rounded cell; for a spread one a plateau with a nucleus and a ruffled border."""
    inward_hw: Floats = cv2.distanceTransform(np.pad(mask_hw, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    level_hw = np.clip(body.level_hw, 0, 1)
    if body.cell.rounded:
        dome_hw: Floats = np.sqrt(1 - (1 - level_hw) ** 2) * (1 - np.exp(-inward_hw / 1.2))
        return row.round_height * rng.uniform(0.8, 1.2) * dome_hw
    plateau_hw = (1 - np.exp(-inward_hw / row.edge)) * (0.35 + 0.65 * np.sqrt(level_hw))
    inside_hw = body.nucleus_hw * body.cell.radius * row.nucleus  # distance from the nuclear envelope
    envelope_hw = 0.25 * np.exp(-((inside_hw / 1.2) ** 2))
    nucleus_hw = rng.uniform(-0.4, 0.15) * np.clip(inside_hw / 1.5, 0, 1) + envelope_hw
    border_hw = inward_hw / 1.6 * np.exp(1 - inward_hw / 1.6)  # membrane thrown up along parts of the border
    thick_hw: Floats = plateau_hw + nucleus_hw * mask_hw + ruffle_hw * border_hw
    return row.height * rng.uniform(0.75, 1.25) * thick_hw


def _add_specks(
    row: Morphology, body: Body, mask_hw: NDArray[np.bool_], rng: np.random.Generator, *, specks_HW: Floats
) -> None:
    """Put granules and vacuoles into the cytoplasm, nucleoli into the nucleus: points still to be blurred."""
    specks_hw = specks_HW[body.window]
    cytoplasm = mask_hw & (body.level_hw > 0.15) & (body.nucleus_hw < 0)
    nucleus = mask_hw & (body.nucleus_hw > 0.35)
    share = 0.5 if body.cell.rounded else 1.0
    for place_hw, mean, strength in (
        (cytoplasm, row.granules * share, 0.6),
        (cytoplasm, row.vacuoles * share, -1.0),
        (nucleus, 2.2 * (1 - body.cell.rounded), 1.3),
    ):
        y_M, x_M = np.nonzero(place_hw)
        if len(y_M):
            chosen = rng.integers(len(y_M), size=rng.poisson(mean))
            specks_hw[y_M[chosen], x_M[chosen]] += strength * rng.lognormal(0, 0.4, len(chosen))


def _debris(row: Morphology, well: Well, rng: np.random.Generator, *, cells: list[Cell], side: int) -> Floats:
    """Bits that lie about, in ones to threes, and the blebs of rounded cells."""
    debris_HW = np.zeros((side, side), np.float32)
    for x, y in rng.uniform(0, side, (rng.poisson(row.debris * well.debris * (side / REFERENCE_PX) ** 2), 2)):
        height = rng.lognormal(-0.7, 0.8)
        for dx, dy in rng.normal(0, 2.0, (rng.integers(1, 4), 2)):
            _add_dome(debris_HW, x + dx, y + dy, radius=rng.uniform(0.8, 2.6), height=height)
    for cell in cells:
        for _ in range(rng.poisson(row.blebs) if cell.rounded else 0):
            angle, away = rng.uniform(0, 2 * np.pi), cell.radius * rng.uniform(0.85, 1.25)
            x, y = cell.x + away * np.cos(angle), cell.y + away * np.sin(angle)
            radius = cell.radius * rng.uniform(0.2, 0.42)
            _add_dome(debris_HW, x, y, radius=radius, height=rng.uniform(0.5, 1.3))
    return debris_HW


def _add_dome(phase_HW: Floats, x: float, y: float, *, radius: float, height: float) -> None:
    """Add half a ball of the given height in place; what lies outside the canvas is left out."""
    reach = int(radius) + 2
    top, left = max(int(y) - reach, 0), max(int(x) - reach, 0)
    window = slice(top, max(int(y) + reach + 1, 0)), slice(left, max(int(x) + reach + 1, 0))
    patch_hw = phase_HW[window]
    y_hw, x_hw = np.ogrid[top : top + patch_hw.shape[0], left : left + patch_hw.shape[1]]
    patch_hw += height * np.sqrt(np.maximum(1 - ((x_hw - x) ** 2 + (y_hw - y) ** 2) / radius**2, 0))


def _neurites(row: Morphology, cells: list[Cell], rng: np.random.Generator, *, side: int) -> Floats:
    """Thin tapering processes that wander off from the bodies; S indexes their segments of 5 px."""
    layer_HW = np.zeros((side, side), np.uint8)
    for cell in cells:
        for _ in range(0 if cell.rounded else rng.integers(row.neurites[0], row.neurites[1] + 1)):
            segments = int(rng.integers(4, 14))
            heading_S = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.25, segments))
            length_S = np.where(np.arange(segments) == 0, 0.7 * cell.radius, 5)
            steps_S2 = length_S[:, None] * np.stack([np.cos(heading_S), np.sin(heading_S)], axis=1)
            path_S2 = np.cumsum(steps_S2, axis=0) + np.array([cell.x, cell.y])
            ends_S2 = np.round(8 * path_S2).astype(int)  # cv2 draws to an eighth of a pixel
            for n, (start, end) in enumerate(itertools.pairwise(ends_S2.tolist())):
                width = 2 if n < 2 else 1
                cv2.line(layer_HW, start, end, 255 * (1 - 0.7 * n / segments), width, cv2.LINE_AA, 3)
    return layer_HW.astype(np.float32) * np.float32(0.45 / 255)


def _smooth_noise(rng: np.random.Generator, *, side: int, sigma: float) -> Floats:
    """Noise of mean about 0 and standard deviation 1 with grains of about `sigma` pixels."""
    noise_HW = cv2.GaussianBlur(rng.standard_normal((side, side), np.float32), (0, 0), sigma)
    unit_HW: Floats = noise_HW / noise_HW.std()
    return unit_HW


def _phase_contrast(phase_HW: Floats, well: Well) -> Floats:
    """Relative intensity, 1 in an empty field: |ring * e^(-i pi/2) * S + D|^2 / ring^2.

    S is the light that goes through the phase ring, a low-pass of the wave e^(i phase); D is the rest of it.
    """
    real_HW, imag_HW = np.cos(phase_HW), np.sin(phase_HW)
    through_real_HW = cv2.GaussianBlur(real_HW, (0, 0), well.halo)
    through_imag_HW = cv2.GaussianBlur(imag_HW, (0, 0), well.halo)
    sum_real_HW = well.ring * through_imag_HW + real_HW - through_real_HW
    sum_imag_HW = -well.ring * through_real_HW + imag_HW - through_imag_HW
    light_HW = (sum_real_HW**2 + sum_imag_HW**2) / well.ring**2
    fringe_HW = cv2.Laplacian(cv2.GaussianBlur(phase_HW, (0, 0), 1.0), cv2.CV_32F, ksize=3)
    fringed_HW = light_HW * np.clip(1 + well.defocus * 0.25 * fringe_HW, 0.3, 1.7)
    blurred_HW: Floats = cv2.GaussianBlur(fringed_HW, (0, 0), well.blur)
    return blurred_HW


def _camera(light_HW: Floats, well: Well, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Grey pixels: uneven light, rings of dust out of focus, photon and read noise, 8 bits."""
    side = light_HW.shape[0]
    y_HW, x_HW = (np.mgrid[:side, :side] / side * 2 - 1).astype(np.float32)
    field_HW = 1 + well.tilt_xy[0] * x_HW + well.tilt_xy[1] * y_HW - well.vignette / 2 * (x_HW**2 + y_HW**2)
    dust_HW = np.zeros_like(light_HW)
    for _ in range(rng.poisson(3 * (side / REFERENCE_PX) ** 2)):
        spot, radius = tuple(int(v) for v in rng.integers(0, side, 2)), int(rng.integers(8, 34))
        for ring in (radius, int(radius * 0.55)):
            cv2.circle(dust_HW, spot, ring, rng.uniform(-0.1, 0.1), 3)
    field_HW += cv2.GaussianBlur(dust_HW, (0, 0), 2.0)
    # Frames are scaled to 8 bits so that few pixels saturate: a knee keeps the brightest below two fields.
    toned_HW = np.where(light_HW > 1, 1 + np.tanh((light_HW - 1) / 2), light_HW)
    grey_HW = well.grey * field_HW * toned_HW
    shot_HW = np.sqrt(np.maximum(grey_HW, 0) / well.grey) * well.noise
    grey_HW += shot_HW * rng.standard_normal(grey_HW.shape, np.float32)
    image_HW: NDArray[np.uint8] = np.clip(np.round(grey_HW), 0, 255).astype(np.uint8)
    return image_HW
