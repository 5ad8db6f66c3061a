"""How many labels `cellnet suggest` saves: frames chosen in ten ways beside frames drawn at random.

    python tests/benchmarks/suggesting.py OUT DATA [--only SET ...] [--seeds N]

DATA holds the folders of the SETS, each with a manifest.csv; of its points.csv no use is made. What the default frozen
network sees of each frame is computed once. Groups are dealt into folds; each fold is asked about after a few frames of
the others were taught, drawn at random, then some more in rounds, chosen in each WAY by what was taught so far. All
ways begin with the same frames. Heads are those of the product, or the nearest that takes milliseconds: of a classifier
its logistic regression of one orientation of each tile, of a counter a ridge regression of the roots of counts, of the
mean and the deviation of each feature over a frame.

Prints, and writes into OUT/suggesting.md, the error after so many frames, and which share of random's frames each way
needs until its error is random's; 90 % bootstrap intervals over seeds. What OUT/SET.json has is not measured again.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression, Ridge

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it runs from anywhere

from cellnet.config.loading import load_config
from cellnet.config.train import TrainConfig
from cellnet.evaluation.suggesting import DIRECTIONS, choose
from cellnet.images.pixels import normalise
from cellnet.networks.efficientnet import folded
from cellnet.networks.pretrained import imagenet_start
from cellnet.networks.views import watched
from cellnet.networks.weights import fresh_network
from cellnet.tasks import Task
from cellnet.training.heads import UNTOLD_HOLD
from cellnet.training.plan import make_plan
from tests.benchmarks.learning_curves import TILES_A_STEP, bank_of, tiles_of

Floats = NDArray[np.floating]
Places = NDArray[np.int64]


class Set(NamedTuple):
    """A set, and how it is taught."""

    task: Task
    rounds: tuple[int, ...]
    """Frames that were taught after each."""
    reached: tuple[int, ...]
    """After so many frames random's error is to be reached."""
    folds: int
    asked: int
    """Folds that are asked about, each alone."""
    sets: tuple[str, ...] = ()
    """Settings other than the defaults."""


SETS: Final = {
    "hemocytometer": Set("count", (5, 10, 15, 20, 25, 30, 35, 40), (10, 20, 40), folds=5, asked=5),
    "livecell": Set("classify", (4, 7, 10, 13, 16, 20), (10, 20), folds=8, asked=8),
    "living-dead": Set(
        "count", (5, 10, 15, 20, 25, 30, 35, 40), (10, 20, 40), folds=3, asked=1, sets=("model.frozen=true", "folds=5")
    ),
}
RIDGE: Final = 0.1
"""What a ridge regression adds to the squares, a feature."""
RESAMPLES: Final = 2000


class Seen(NamedTuple):
    """What is known of the frames of a set, and what a frozen network sees of them."""

    task: Task
    features_ND: Floats
    """Of each frame, brought to one spread."""
    tiles_TD: Floats
    """Of a classifier: of each tile, in as many directions as there are tiles."""
    frame_T: Places
    """The frame of each tile."""
    truth_N: Floats
    """Counts, or the places of lineages."""
    groups: NDArray[np.str_]
    used_N: Places
    """Frames of lineages that have several groups."""

    @property
    def directions_ND(self) -> Floats:  # noqa: N802 - the shape is part of the name
        """Frames where they are compared: principal components, of a mean square of 1."""
        left, scale, _ = np.linalg.svd(self.features_ND, full_matrices=False)
        placed = left[:, :DIRECTIONS] * scale[:DIRECTIONS]
        return np.asarray(placed / np.sqrt((placed**2).sum(axis=1).mean()))


class Choosing(NamedTuple):
    """What a way of choosing may look at."""

    seen: Seen
    directions_ND: Floats
    pool: Places
    """Frames without a label."""
    labelled: Places
    unsure_N: Floats
    """How unsure what was taught so far is of each frame, as `cellnet suggest` tells it."""
    number: int
    rng: np.random.Generator


Way = Callable[[Choosing], Places]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--only", nargs="+", choices=list(SETS), metavar="SET", default=list(SETS))
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    out: Path = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    errors = {}
    for name in arguments.only:
        path = out / f"{name}.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        if left := {way: choose_by for way, choose_by in WAYS.items() if way not in known}:
            seen = features_of(out, arguments.data / name / "manifest.csv", name)
            known |= {way: error_SR.tolist() for way, error_SR in errors_of(seen, SETS[name], left, arguments.seeds)}
            path.write_text(json.dumps(known))
        errors[name] = {way: np.array(error_SR) for way, error_SR in known.items()}
    table = "\n".join(lines_of(errors))
    (out / "suggesting.md").write_text(f"{table}\n")
    print(table)


def features_of(out: Path, manifest: Path, name: str) -> Seen:
    """What the frozen network sees of a set, computed once."""
    path = out / f"{name}.npz"
    if not path.exists():
        np.savez(path, **computed(out, manifest, name))
    held = np.load(path)
    of, names = SETS[name], {frame: place for place, frame in enumerate(held["frame"].tolist())}
    frame_T = np.array([names[frame] for frame in held["frame_of_tile"].tolist()])
    mean_TC, spread_TC = held["mean"].astype(np.float64), held["spread"].astype(np.float64)
    weight_NT = np.zeros((len(names), len(frame_T)))
    weight_NT[frame_T, np.arange(len(frame_T))] = held["weight"] if of.task == "count" else 1
    weight_NT /= weight_NT.sum(axis=1, keepdims=True)
    features_ND = weight_NT @ (mean_TC if of.task == "classify" else np.hstack([mean_TC, spread_TC]))
    left, scale, _ = np.linalg.svd(evened(mean_TC), full_matrices=False) if of.task == "classify" else [np.empty(0)] * 3
    lineages, groups = held["lineage"], held["group"]
    several = [name for name in np.unique(lineages) if len(np.unique(groups[lineages == name])) > 1]
    places = np.array([several.index(name) if name in several else -1 for name in lineages.tolist()])
    return Seen(
        task=of.task,
        features_ND=evened(features_ND),
        tiles_TD=left * scale,
        frame_T=frame_T,
        truth_N=held["count"] if of.task == "count" else places,
        groups=groups,
        used_N=np.arange(len(names)) if of.task == "count" else np.flatnonzero(places >= 0),
    )


def evened(values_ND: Floats) -> Floats:
    """Brought to one spread."""
    return np.asarray((values_ND - values_ND.mean(axis=0)) / (values_ND.std(axis=0) + 1e-3))


def computed(out: Path, manifest: Path, name: str) -> dict[str, NDArray[np.generic]]:
    """Mean and deviation of each feature over each tile, and what is known of the frames."""
    bank, of = bank_of(out, manifest, name), SETS[name]
    plan = make_plan(bank, load_config(TrainConfig, file=None, sets=list(of.sets), task=of.task))
    start = imagenet_start(plan.config.model.architecture)
    network = folded(fresh_network(plan.config, len(plan.classes), start=start))
    tiles, means, spreads = list(tiles_of(plan, bank)), [], []
    for first in range(0, len(tiles), TILES_A_STEP):
        pixels = np.stack([tile["pixels"] for tile in tiles[first : first + TILES_A_STEP]])
        with torch.inference_mode(), watched(network, places=of.task == "count") as seen:
            network(torch.from_numpy(normalise(pixels, plan.preprocess)).to(memory_format=torch.channels_last))
        seen_BPC = seen[0].float().reshape(len(pixels), -1, seen[0].shape[-1])
        means.append(seen_BPC.mean(dim=1).numpy())
        spreads.append(seen_BPC.std(dim=1, correction=0).numpy())
    frames = list(plan.among(bank.frames))
    return {
        "mean": np.concatenate(means),
        "spread": np.concatenate(spreads),
        "weight": np.array([tile["weight"] for tile in tiles]),
        "frame_of_tile": np.array([tile["frame"] for tile in tiles]),
        "frame": np.array([frame.frame for frame in frames]),
        "count": np.array([np.nan if frame.count is None else frame.count for frame in frames]),
        "lineage": np.array([frame.lineage or "" for frame in frames]),
        "group": np.array([frame.group for frame in frames]),
    }


# Heads


def answers(seen: Seen, labelled: Places) -> Floats:
    """Probabilities (N, K) or counts (N,) of all frames, by what was taught."""
    if seen.task == "count":
        mean_D, spread_D = seen.features_ND[labelled].mean(axis=0), seen.features_ND[labelled].std(axis=0) + 0.1
        rows_ND = (seen.features_ND - mean_D) / spread_D
        model = Ridge(alpha=RIDGE * rows_ND.shape[1]).fit(rows_ND[labelled], np.sqrt(seen.truth_N[labelled] + 1))
        return np.asarray(np.clip(model.predict(rows_ND), 1, np.sqrt(2 * seen.truth_N.max())) ** 2 - 1)
    taught_T = np.isin(seen.frame_T, labelled)
    truth_T = seen.truth_N[seen.frame_T]
    known = np.unique(truth_T[taught_T]).astype(int)
    said_TK = np.zeros((len(truth_T), int(seen.truth_N.max()) + 1))
    said_TK[:, known] = 1
    if len(known) > 1:
        model = LogisticRegression(C=UNTOLD_HOLD, max_iter=100, tol=1e-3, class_weight="balanced")
        said_TK[:, known] = model.fit(seen.tiles_TD[taught_T], truth_T[taught_T]).predict_proba(seen.tiles_TD)
    said_NK = np.zeros((len(seen.truth_N), said_TK.shape[1]))
    np.add.at(said_NK, seen.frame_T, said_TK)
    return np.asarray(said_NK / said_NK.sum(axis=1, keepdims=True))


def off(seen: Seen, said: Floats, asked: Places) -> float:
    """Cells off, or 1 where another lineage was named; the sum over frames."""
    if seen.task == "count":
        return float(np.abs(said[asked] - seen.truth_N[asked]).sum())
    return float((said[asked].argmax(axis=1) != seen.truth_N[asked]).sum())


def unsureness(seen: Seen, said: Floats) -> Floats:
    """As `cellnet.evaluation.suggesting` has it: a counter's interval is as wide as the root of its count."""
    if seen.task == "count":
        return np.asarray(np.sqrt(said + 1))
    ordered = np.sort(said, axis=1)
    return np.asarray(1 - (ordered[:, -1] - ordered[:, -2]))


# Ways to choose


def at_random(of: Choosing) -> Places:
    return of.rng.choice(of.pool, of.number, replace=False)


def unsure(of: Choosing) -> Places:
    return of.pool[np.argsort(-of.unsure_N[of.pool], kind="stable")[: of.number]]


def farthest(of: Choosing, weight_N: Floats | None = None) -> Places:
    """Each the farthest from all that are labelled or chosen (k-center: Sener & Savarese 2018, arXiv:1708.00489)."""
    near_P = squared(of.directions_ND[of.pool], of.directions_ND[of.labelled]).min(axis=1)
    chosen: list[int] = []
    for _ in range(of.number):
        far_P = np.sqrt(near_P) * (1 if weight_N is None else weight_N[of.pool])
        far_P[chosen] = -1
        chosen.append(int(far_P.argmax()))
        latest = of.directions_ND[of.pool[chosen[-1:]]]
        near_P = np.minimum(near_P, squared(of.directions_ND[of.pool], latest)[:, 0])
    return of.pool[chosen]


def farthest_unsure(of: Choosing) -> Places:
    return farthest(of, weights(of))


def typical(of: Choosing, weight_N: Floats | None = None) -> Places:
    """The densest frame of each of the largest clusters without a label (TypiClust: Hacohen et al. 2022,
    arXiv:2202.02794)."""
    every = np.concatenate([of.labelled, of.pool])
    number = min(len(of.labelled) + of.number, len(every))
    seed = int(of.rng.integers(2**31))
    cluster_E = KMeans(number, n_init=1, max_iter=50, random_state=seed).fit_predict(of.directions_ND[every])
    cluster_P, covered = cluster_E[len(of.labelled) :], set(cluster_E[: len(of.labelled)].tolist())
    worth_P = density(of.directions_ND[of.pool], 20) * (1 if weight_N is None else weight_N[of.pool])
    order = sorted(range(number), key=lambda one: (one in covered, -int((cluster_P == one).sum())))
    chosen: list[int] = []
    while len(chosen) < of.number:
        for one in order:
            left = [place for place in np.flatnonzero(cluster_P == one).tolist() if place not in chosen]
            if left and len(chosen) < of.number:
                chosen.append(max(left, key=lambda place: float(worth_P[place])))
    return of.pool[chosen]


def typical_unsure(of: Choosing) -> Places:
    return typical(of, weights(of))


def dense_unsure(of: Choosing) -> Places:
    worth_P = ranked(of.unsure_N[of.pool]) * ranked(density(of.directions_ND[of.pool], 10))
    return of.pool[np.argsort(-worth_P, kind="stable")[: of.number]]


def half_and_half(of: Choosing) -> Places:
    """Half of them the farthest, then the least sure."""
    first = farthest(of._replace(number=of.number // 2))
    left = of._replace(pool=np.setdiff1d(of.pool, first), number=of.number - len(first))
    return np.concatenate([first, unsure(left)])


def as_the_page(of: Choosing) -> Places:
    """As the service's page lists images of one well: unsure lineages, or counts from few to many."""
    if of.seen.task == "classify":
        return unsure(of)
    order = of.pool[np.argsort(of.unsure_N[of.pool], kind="stable")]
    return order[((np.arange(of.number) + 0.5) * len(order) / of.number).astype(int)]


def standing_for(of: Choosing) -> Places:
    return shipped(of._replace(unsure_N=np.zeros(len(of.unsure_N))), plain=True)


def shipped(of: Choosing, *, plain: bool = False) -> Places:
    """As `cellnet suggest` does."""
    features_ND, unsure_P = of.seen.features_ND, of.unsure_N[of.pool]
    weighing = {"least": 1.0} if plain else {}
    chosen = choose(features_ND[of.pool], unsure_P, features_ND[of.labelled], of.number, **weighing)
    return of.pool[[one.place for one in chosen]]


WAYS: Final[dict[str, Way]] = {
    "random": at_random,
    "unsure": unsure,
    "unsure × dense": dense_unsure,
    "farthest (k-center)": farthest,
    "farthest × unsure": farthest_unsure,
    "half farthest, half unsure": half_and_half,
    "middles of clusters (TypiClust)": typical,
    "middles × unsure": typical_unsure,
    "the page: unsure lineages, counts from few to many": as_the_page,
    "stands for most": standing_for,
    "**stands for most × unsure: what is shipped**": shipped,
}


def weights(of: Choosing) -> Floats:
    """0.25 for the surest frame, up to 1.25."""
    weight_N = np.zeros(len(of.unsure_N))
    weight_N[of.pool] = 0.25 + ranked(of.unsure_N[of.pool])
    return weight_N


def ranked(values_N: Floats) -> Floats:
    """From 0, the least, to 1."""
    return np.asarray(np.argsort(np.argsort(values_N, kind="stable")) / max(1, len(values_N) - 1))


def density(place_ND: Floats, neighbours: int) -> Floats:
    """One by the mean distance of so many neighbours."""
    away_NN = np.sort(np.sqrt(squared(place_ND, place_ND)), axis=1)
    return np.asarray(1 / (away_NN[:, 1 : neighbours + 1].mean(axis=1) + 1e-9))


def squared(one_ND: Floats, other_MD: Floats) -> Floats:
    """Squared distances (N, M)."""
    squares = (one_ND**2).sum(axis=1)[:, None] + (other_MD**2).sum(axis=1) - 2 * one_ND @ other_MD.T
    return np.asarray(np.maximum(squares, 0))


# Rounds


def errors_of(seen: Seen, of: Set, ways: Mapping[str, Way], seeds: int) -> Iterator[tuple[str, Floats]]:
    """The error (seeds, rounds) of each way, a frame."""
    directions_ND = seen.directions_ND
    errors: dict[str, list[Floats]] = {way: [] for way in ways}
    groups = np.unique(seen.groups[seen.used_N])
    for seed in range(seeds):
        fold_of = dict(zip(groups, np.random.default_rng(seed).permutation(len(groups)) % of.folds, strict=True))
        fold_N = np.array([fold_of.get(group, -1) for group in seen.groups])
        sums = {way: np.zeros(len(of.rounds)) for way in ways}
        asked_n = 0
        for fold in range(of.asked):
            asked = np.intersect1d(np.flatnonzero(fold_N == fold), seen.used_N)
            others = np.intersect1d(np.flatnonzero(fold_N != fold), seen.used_N)
            asked_n += len(asked)
            first = np.random.default_rng([seed, fold]).choice(others, of.rounds[0], replace=False)
            for way, choose_by in ways.items():
                sums[way] += list(rounds_of(seen, directions_ND, of, choose_by, first, others, asked, (seed, fold)))
        for way, total in sums.items():
            errors[way].append(total / asked_n)
    yield from ((way, np.array(of_seeds)) for way, of_seeds in errors.items())


def rounds_of(
    seen: Seen,
    directions_ND: Floats,
    of: Set,
    choose_by: Way,
    first: Places,
    others: Places,
    asked: Places,
    seed: tuple[int, int],
) -> Iterator[float]:
    """The error after each round."""
    labelled, rng = first, np.random.default_rng([*seed, 1])
    said = answers(seen, labelled)
    yield off(seen, said, asked)
    for number in of.rounds[1:]:
        pool, unsure_N = np.setdiff1d(others, labelled), unsureness(seen, said)
        choosing = Choosing(seen, directions_ND, pool, labelled, unsure_N, number - len(labelled), rng)
        labelled = np.concatenate([labelled, choose_by(choosing)])
        said = answers(seen, labelled)
        yield off(seen, said, asked)


def needed(of: Set, random_R: Floats, way_R: Floats, k: int) -> float:
    """Frames until a way's error is random's after k; infinite where it never is."""
    wanted = float(random_R[of.rounds.index(k)])
    for n in range(1, len(of.rounds)):
        before, after = float(way_R[n - 1]), float(way_R[n])
        if after <= wanted:
            share = 1.0 if before <= after else min(1.0, max(0.0, (before - wanted) / (before - after)))
            return of.rounds[n - 1] + share * (of.rounds[n] - of.rounds[n - 1])
    return float("inf")


def lines_of(errors: Mapping[str, Mapping[str, Floats]]) -> Iterator[str]:
    """The table: a row a way, of each set the errors and the shares."""
    names = list(errors)
    heads = [f"{name}, {' / '.join(map(str, SETS[name].reached))} frames | of random’s frames" for name in names]
    yield "| chosen by | " + " | ".join(heads) + " |"
    yield "|---" * (1 + 2 * len(names)) + "|"
    for way in WAYS:
        yield (
            f"| {way} | "
            + " | ".join(cell for name in names for cell in cells_of(SETS[name], errors[name], way))
            + " |"
        )


def cells_of(of: Set, errors: Mapping[str, Floats], way: str) -> tuple[str, str]:
    """The errors of a way, and its shares with their intervals."""
    random_SR, way_SR = errors["random"], errors[way]
    form = ".1f" if random_SR.mean() > 10 else ".2f"
    said = " / ".join(f"{way_SR[:, of.rounds.index(k)].mean():{form}}" for k in of.reached)
    if way == "random":
        return said, ""
    rng, shares = np.random.default_rng(0), []
    seeds = [rng.integers(len(way_SR), size=len(way_SR)) for _ in range(RESAMPLES)]
    for k in of.reached:
        share = needed(of, random_SR.mean(axis=0), way_SR.mean(axis=0), k) / k
        drawn = [needed(of, random_SR[some].mean(axis=0), way_SR[some].mean(axis=0), k) / k for some in seeds]
        low, high = np.quantile(drawn, (0.05, 0.95), method="nearest")
        shares.append(f"{told(share, of, k)} ({told(low, of, k)}–{told(high, of, k)})")
    return said, ", ".join(shares)


def told(share: float, of: Set, k: int) -> str:
    """A share for a person; what was not reached is more than was tried."""
    return f"{share:.2f}" if np.isfinite(share) else f"> {of.rounds[-1] / k:.2g}"


if __name__ == "__main__":
    main()
