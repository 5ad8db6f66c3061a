"""Which frames of a bank are worth a label next, and why, in words.

Frames without a label are chosen for what they would teach; a tenth as many are drawn at random, to score by: on what
was chosen because it is hard, a model does worse than on usual frames. Chosen are the frames that stand for most others
which no labelled frame stands for, unsure ones more: facility location over what the network sees (Wei, Iyer & Bilmes
2015, proceedings.mlr.press/v37/wei15), which on three real sets never needed more frames than chance, and down to half
of them (tests/README.md, What to label next).
"""

import hashlib
import operator
from collections import Counter
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cellnet.bank.bank import Bank
from cellnet.bank.columns import Frames
from cellnet.bank.duplicates import linked, near_pairs
from cellnet.bank.folds import ENOUGH_GROUPS
from cellnet.bank.frames import Frame
from cellnet.bank.history import standing
from cellnet.bank.labels import NONE_OF_THESE, Drawn
from cellnet.errors import DataError
from cellnet.prediction.answers import Answer
from cellnet.registry.records import Card
from cellnet.tasks import TASKS

AMONG: Final = 2000
"""Frames that a model is asked about, at most: their likenesses are so many squared."""
RANDOM_SHARE: Final = 0.1
"""Frames drawn at random, as a share of those that are chosen."""
DIRECTIONS: Final = 32
"""Principal components in which frames are compared."""
WIDTH: Final = 0.25
"""At this share of the median squared distance, a frame stands for another by 1/e."""
LEAST_WEIGHT: Final = 0.2
"""Of the frame whose answer is surest, where that of the least sure is 1."""
SIMILAR: Final = 0.5
"""How much a frame stands for another that is called similar."""


@dataclass(frozen=True)
class Seen:
    """What a model said of a frame, and what its network saw of it."""

    frame: Frame
    answer: Answer
    features_D: NDArray[np.float32]
    """The mean over its tiles."""


class Choice(NamedTuple):
    """A frame by its place, and how many others it stands for."""

    place: int
    similar: int


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A frame to label."""

    frame: Frame
    answer: Answer
    drawn: Drawn
    why: list[str]
    """In words, what matters most first."""


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """The frames of a bank without a label of a task."""

    random: Frames
    """Drawn at random of all."""
    candidates: Frames
    """Of the others, those that may be chosen."""
    labelled: Frames
    """That have a label, as many as are compared."""
    batches: frozenset[str | None]
    """Those of all frames with a label."""
    ages_h: tuple[float, ...]
    """Likewise their ages, sorted."""
    copies: int
    """Left out, since they are nearly the same as a labelled frame or as one of the candidates."""
    kept_apart: int
    """Left out, since their groups are in the test split or the holdout, and what is chosen is to teach."""
    among: int
    """Frames that could have been candidates."""


def waiting_in(bank: Bank, card: Card, number: int, *, most: int = AMONG) -> Waiting:
    """The frames that a model with this card may be asked about, to suggest `number` of them.

    Frames are drawn evenly over batches and groups where there are more than `most`. The same bank gives the same
    frames. Raises DataError where no frame is without a label.
    """
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{bank.digest} {bank.entry}".encode()).digest()[:8]))
    truth = "lineage" if card.task == "classify" else "count"
    frames = bank.usable
    if card.task == "count" and card.config.lineage:
        theirs = (card.config.lineage, None)
        frames = frames.at([n for n, lineage in enumerate(frames.values("lineage")) if lineage in theirs])
    known_N = np.array([value is not None for value in frames.values(truth)], bool)
    if card.task == "classify":
        none = _none_of_these(bank)
        known_N |= np.array([name in none for name in frames.values("frame")], bool)
    labelled, unlabelled = frames.at(np.flatnonzero(known_N)), frames.at(np.flatnonzero(~known_N))
    if not len(unlabelled):
        raise DataError(_nothing_waits(bank, card))
    random_n = min(len(unlabelled), max(1, round(RANDOM_SHARE * number)))
    random = unlabelled.at(np.sort(rng.choice(len(unlabelled), random_n, replace=False)))
    drawn = set(random.values("frame"))
    others = unlabelled.at([n for n, name in enumerate(unlabelled.values("frame")) if name not in drawn])
    groups_n = len(frames.counted("group"))
    by_folds = groups_n < ENOUGH_GROUPS * max(1, len(bank.lineages))  # whatever gets a label
    teaching = others if by_folds else others.equal("split", "train")
    distinct = _without_copies(teaching, labelled)
    return Waiting(
        random=random,
        candidates=evenly(distinct, most, rng),
        labelled=evenly(labelled, most, rng),
        batches=frozenset(labelled.values("batch")),
        ages_h=tuple(sorted(hours for hours in labelled.values("time_h") if hours is not None)),
        copies=len(teaching) - len(distinct),
        kept_apart=len(others) - len(teaching),
        among=len(distinct),
    )


def _none_of_these(bank: Bank) -> set[str]:
    """Frames of which somebody said, last, that their cells are of no known lineage."""
    said = {row["frame"]: row["lineage"] for row in standing(bank.labels).table.to_pylist() if row["lineage"]}
    return {frame for frame, lineage in said.items() if lineage == NONE_OF_THESE}


def _nothing_waits(bank: Bank, card: Card) -> str:
    """Why there is no frame to suggest, and what to do."""
    if not bank.usable:
        return f"{bank.store.uri} has no frame that can be used; import some: cellnet bank import SOURCE BANK"
    what, other = ("lineage", "count") if card.task == "classify" else ("count", "lineage")
    of = f" of {card.config.lineage}" if card.config.lineage else ""
    has = f"every frame{of} of {bank.store.uri} has a {what} already"
    if lacking := len(bank.usable.equal(other, None)):
        model = TASKS["count" if card.task == "classify" else "classify"].model
        ask = f"cellnet suggest BANK {model}:champion"
        return f"{has}, and {lacking} {'has' if lacking == 1 else 'have'} no {other}: {ask}"
    return f"{has}; import more, or look at the worst answers: cellnet evaluate REF BANK --report DIR"


def _without_copies(frames: Frames, labelled: Frames) -> Frames:
    """The frames without those that are nearly the same as a labelled one, and of each other the first."""
    prints = [*labelled.values("fingerprint"), *frames.values("fingerprint")]
    families = linked(range(len(prints)), near_pairs(prints, start=len(labelled)))
    return frames.at([family[0] - len(labelled) for family in families if family[0] >= len(labelled)])


def evenly(frames: Frames, most: int, rng: np.random.Generator) -> Frames:
    """So many of the frames at most, in their order: batches in turn, in each its groups in turn, at random in each."""
    if len(frames) <= most:
        return frames
    places = rng.permutation(len(frames)).tolist()
    batches, groups = frames.values("batch"), frames.values("group")
    places = _in_turn(places, [(batches[place], groups[place]) for place in places])
    return frames.at(sorted(_in_turn(places, [batches[place] for place in places])[:most]))


def _in_turn(places: Sequence[int], keys: Sequence[Hashable]) -> list[int]:
    """The places, first one of each key, then the next of each.

    >>> _in_turn([0, 1, 2, 3], ["a", "a", "a", "b"])
    [0, 3, 1, 2]
    """
    numbers: Counter[Hashable] = Counter()
    turns = []
    for key in keys:
        turns.append(numbers[key])
        numbers[key] += 1
    return [place for _, place in sorted(zip(turns, places, strict=True), key=operator.itemgetter(0))]


def suggestions_of(waiting: Waiting, asked: Mapping[str, Seen], known: Sequence[Seen], number: int) -> list[Suggestion]:
    """The `number` frames that are chosen, then those that were drawn at random, by what a model said of all.

    A frame of which nothing was said, since it cannot be read, is left out.
    """
    candidates = [asked[name] for name in waiting.candidates.values("frame") if name in asked]
    chosen = (
        choose(
            np.stack([one.features_D for one in candidates]),
            np.array([unsureness(one.answer) for one in candidates]),
            np.array([one.features_D for one in known]),
            number,
        )
        if candidates
        else []
    )
    batches, ages_h = waiting.batches, waiting.ages_h
    done = [
        Suggestion(
            frame=one.frame, answer=one.answer, drawn="chosen", why=list(_reasons(one, choice.similar, batches, ages_h))
        )
        for choice in chosen
        for one in [candidates[choice.place]]
    ]
    random = [asked[name] for name in waiting.random.values("frame") if name in asked]
    return done + [
        Suggestion(frame=one.frame, answer=one.answer, drawn="random", why=["random: for scoring"]) for one in random
    ]


def said_of(answer: Answer) -> str:
    """What a model says, in words.

    >>> told = {"model": "m@1", "tiles": 1, "magnification": "assumed"}
    >>> said_of(Answer(task="count", count=40.2, count_low=12, count_high=90, **told))
    '40 cells (12 to 90)'
    >>> said_of(Answer(task="classify", probabilities={"A549": 0.75, "THP1": 0.25}, **told))
    'A549 75%'
    """
    if answer.probabilities:
        return f"{answer.lineage} {answer.probabilities[str(answer.lineage)]:.0%}"
    between = "" if answer.count_low is None else f" ({answer.count_low:.0f} to {answer.count_high:.0f})"
    return f"{answer.count:.0f} cells{between}"


def unsureness(answer: Answer) -> float:
    """How unsure an answer is, to be compared with others of the same model.

    Of a classifier how near the second lineage comes to the first, 0 to 1; of a counter the width of its interval, or
    the count where it has none.

    >>> told = {"model": "m@1", "tiles": 1, "magnification": "assumed"}
    >>> unsureness(Answer(task="classify", probabilities={"A549": 0.75, "THP1": 0.25}, **told))
    0.5
    >>> unsureness(Answer(task="count", count=40, count_low=12, count_high=90, **told))
    78.0
    """
    if answer.probabilities:
        first, second = sorted([*answer.probabilities.values(), 0.0], reverse=True)[:2]
        return 1 - (first - second)
    if answer.count_low is not None and answer.count_high is not None:
        return answer.count_high - answer.count_low
    return answer.count or 0.0


def choose(
    seen_ND: NDArray[np.floating],
    unsure_N: NDArray[np.floating],
    known_MD: NDArray[np.floating],
    number: int,
    *,
    least: float = LEAST_WEIGHT,
) -> list[Choice]:
    """The places of so many of N frames that stand for most of all N which no known frame stands for.

    `seen_ND` is what a network sees of the frames, `known_MD` of the M that have a label, none perhaps. Each is the one
    that adds most to those before it (greedy: at most 1/e short of the best, Nemhauser et al. 1978,
    10.1007/BF01588971). What is said least surely weighs 1, what is said most surely `least`.
    """
    place_ND, place_MD = _in_few_directions(seen_ND, known_MD)
    squared_NN = _squared(place_ND, place_ND)
    scale = max(WIDTH * float(np.median(squared_NN)), 1e-9)
    stands_NN = np.exp(-squared_NN / scale)
    nearest_N = _squared(place_ND, place_MD).min(axis=1) if len(place_MD) else np.full(len(place_ND), np.inf)
    covered_N = np.exp(-nearest_N / scale)
    rank_N = np.argsort(np.argsort(unsure_N, kind="stable"), kind="stable") / max(1, len(unsure_N) - 1)
    weight_N = least + (1 - least) * rank_N
    chosen: list[int] = []
    owner_N = np.full(len(place_ND), -1)
    for _ in range(min(number, len(place_ND))):
        gain_N = weight_N @ np.maximum(stands_NN - covered_N[:, None], 0)
        gain_N[chosen] = -1
        best = int(gain_N.argmax())
        owner_N[stands_NN[best] > covered_N] = best
        covered_N = np.maximum(covered_N, stands_NN[best])
        chosen.append(best)
    similar_N = (owner_N >= 0) & (covered_N >= SIMILAR)
    similar_N[chosen] = False
    return [Choice(place, int((owner_N[similar_N] == place).sum())) for place in chosen]


def _in_few_directions(
    seen_ND: NDArray[np.floating], known_MD: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both in the principal components of features that are brought to one spread."""
    every = np.concatenate([seen_ND, known_MD]) if len(known_MD) else seen_ND
    every = every.astype(np.float64)
    every = (every - every.mean(axis=0)) / (every.std(axis=0) + 1e-6)
    left, scale, _ = np.linalg.svd(every, full_matrices=False)
    placed = left[:, :DIRECTIONS] * scale[:DIRECTIONS]
    return placed[: len(seen_ND)], placed[len(seen_ND) :]


def _squared(one_ND: NDArray[np.float64], other_MD: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distances (N, M)."""
    squares = (one_ND**2).sum(axis=1)[:, None] + (other_MD**2).sum(axis=1) - 2 * one_ND @ other_MD.T
    return np.asarray(np.maximum(squares, 0), np.float64)


def _reasons(one: Seen, similar: int, batches: Collection[str | None], ages_h: Sequence[float]) -> Iterator[str]:
    """Why a frame was chosen."""
    frame, answer = one.frame, one.answer
    if answer.unfamiliar:
        yield "unlike the training images"
    if frame.batch is not None and frame.batch not in batches:
        yield f"batch {frame.batch} has no label"
    if frame.time_h is not None and ages_h and not ages_h[0] <= frame.time_h <= ages_h[-1]:
        yield f"{frame.time_h:g} h: no labelled frame is so {'young' if frame.time_h < ages_h[0] else 'old'}"
    if unsure := _unsure(answer):
        yield unsure
    if similar:
        yield f"stands for {similar} similar frame{'s' * (similar != 1)}"
    elif not unsure and not answer.unfamiliar:
        yield "unlike the other frames"


SURE: Final = 0.9
"""A lineage of this probability is not called unsure."""
WIDE: Final = 0.5
"""An interval whose half is less than this share of the count is not called unsure."""


def _unsure(answer: Answer) -> str:
    """Why an answer is to be called unsure, in words; empty for one that is not."""
    if answer.probabilities:
        (first, sure), *others = sorted(answer.probabilities.items(), key=lambda one: -one[1])
        return f"{first} {sure:.0%}, or {others[0][0]} {others[0][1]:.0%}" if others and sure < SURE else ""
    if answer.count is None or answer.count_low is None or answer.count_high is None:
        return ""
    wide = answer.count_high - answer.count_low > 2 * WIDE * max(answer.count, 1)
    return f"count {answer.count:.0f}, could be {answer.count_low:.0f} to {answer.count_high:.0f}" if wide else ""
