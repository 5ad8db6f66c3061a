"""How often people said otherwise than a version, of the answers that they looked at."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from cellnet.bank.bank import Bank
from cellnet.bank.history import standing
from cellnet.bank.labels import Label
from cellnet.evaluation.metrics import mean_interval, span
from cellnet.registry.records import ModelVersion
from cellnet.tasks import TASKS

MOST_NAMED: Final = 12
"""Lineages and batches that are named, of those that were judged most often."""


@dataclass(frozen=True)
class Judgement:
    """What a person made of one answer."""

    frame: str
    group: str
    batch: str | None
    lineage: str | None
    """That the frame is of, as far as is known."""
    otherwise: bool


@dataclass(frozen=True)
class Share:
    """Of some answers, how many people said otherwise than."""

    n: int
    otherwise: int
    interval: tuple[float, float] | None
    """Of 95 %, over groups; None where these are too few."""

    def __str__(self) -> str:
        """In words.

        >>> str(Share(40, 5, (0.06, 0.24))), str(Share(1, 0, None))
        ('5 of 40 (12 %, 6 to 24 %)', '0 of 1')
        """
        if self.interval is None:
            return f"{self.otherwise} of {self.n}"
        share, low, high = (round(100 * value) for value in (self.otherwise / self.n, *self.interval))
        return f"{self.otherwise} of {self.n} ({share} %, {low} to {high} %)"


@dataclass(frozen=True)
class Judged:
    """What people said of a version's answers, in one bank."""

    bank: str
    all: Share
    per_lineage: dict[str, Share]
    per_batch: dict[str, Share]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """For a person."""
        yield f"people judged {self.all.n} of its answers in {self.bank}, and said otherwise of {self.all}"
        for what, shares in (("lineage", self.per_lineage), ("batch", self.per_batch)):
            for name, share in list(shares.items())[:MOST_NAMED]:
                yield f"{what} {name}: {share}"
            if len(shares) > MOST_NAMED:
                yield f"and {len(shares) - MOST_NAMED} more, which `--json` has"
        yield "of the answers that somebody looked at, which are not drawn at random"


def judged_by_people(version: ModelVersion, bank: Bank) -> Judged | None:
    """How often people said otherwise than this version; None where nobody judged an answer of it.

    Of each person and frame the last word counts that was not taken back. The frames' lineages and batches are those
    that the bank has today.
    """
    what = TASKS[version.card.task].answer
    last: dict[tuple[str, str], Label] = {}
    for label in standing(bank.labels).seen_of(version.ref):
        if what in label.otherwise:
            last[label.frame, label.by] = label
    if not last:
        return None
    frames = {frame.frame: frame for frame in bank.frames.named_by("frame", {name for name, _ in last})}
    all_of_it = [
        Judgement(name, frame.group, frame.batch, frame.lineage, label.otherwise[what])
        for (name, _), label in last.items()
        if (frame := frames.get(name))
    ]
    if not all_of_it:
        return None
    return Judged(
        bank=bank.store.uri,
        all=_share(all_of_it),
        per_lineage=_by(all_of_it, lambda one: one.lineage),
        per_batch=_by(all_of_it, lambda one: one.batch),
    )


def _by(judgements: list[Judgement], key: Callable[[Judgement], str | None]) -> dict[str, Share]:
    """The shares by a name, the most often judged first; what has no name is left out."""
    found: dict[str, list[Judgement]] = {}
    for one in judgements:
        if (name := key(one)) is not None:
            found.setdefault(name, []).append(one)
    return {name: _share(those) for name, those in sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))}


def _share(judgements: list[Judgement]) -> Share:
    otherwise_N = np.array([one.otherwise for one in judgements])
    interval = span(mean_interval(otherwise_N, [one.group for one in judgements]))
    return Share(len(judgements), int(otherwise_N.sum()), interval)
