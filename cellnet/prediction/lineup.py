"""Which models answer: a classifier, a counter, and counters that know single lineages best.

A counter of one lineage is the champion of a model of its own, `regressor-A549`: where the classifier names A549, it
counts; any other lineage is counted by `regressor`.
"""

import hashlib
import re
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from cellnet.errors import ConfigError, NotFoundError
from cellnet.images.pixels import Pixels
from cellnet.prediction.answers import Answer
from cellnet.prediction.model import Cut, FrameModel
from cellnet.registry.records import ModelVersion
from cellnet.registry.registry import Registry
from cellnet.tasks import TASK_OF

Model = TypeVar("Model")
Other = TypeVar("Other")

CHAMPION: Final = "champion"
NAMED: Final = 8
"""Lineages that are named one by one."""


@dataclass(frozen=True, kw_only=True)
class Lineup(Generic[Model]):
    """The models that answer together: references, versions, or models in memory."""

    classifier: Model | None = None
    regressor: Model | None = None
    """Counts what no other counter is for."""
    by_lineage: Mapping[str, Model] = field(default_factory=dict)
    """Counters of single lineages."""

    def counter_for(self, lineage: str | None) -> Model | None:
        """The counter of a lineage, else the general one, if there is one."""
        return self.by_lineage.get(lineage or "", self.regressor)

    def __iter__(self) -> Iterator[Model]:
        named = (self.classifier, self.regressor, *self.by_lineage.values())
        return (model for model in named if model is not None)

    def map(self, function: Callable[[Model], Other]) -> "Lineup[Other]":
        """The same with something else for each model."""
        return Lineup(
            classifier=None if self.classifier is None else function(self.classifier),
            regressor=None if self.regressor is None else function(self.regressor),
            by_lineage={lineage: function(model) for lineage, model in self.by_lineage.items()},
        )


def resolve_models(registry: Registry, classifier: str | None, regressor: str | None) -> Lineup[ModelVersion]:
    """The versions that will answer: those named, or the champions that are there.

    Counters of single lineages answer unless another counter is named. Raises NotFoundError when a model that was asked
    for by name, or both champions, are not there, and ConfigError for one that does something else.
    """
    by_role: dict[str, ModelVersion] = {}
    missing: list[NotFoundError] = []
    for role, ref in (("classifier", classifier), ("regressor", regressor)):
        try:
            by_role[role] = checked(registry.resolve(ref or f"{role}:{CHAMPION}"), role)
        except NotFoundError as error:
            if ref is not None:
                raise
            missing.append(error)
    by_lineage = {}
    if regressor is None and "classifier" in by_role:
        refs = lineage_refs(registry, by_role["classifier"].card.classes)
        found = {lineage: checked(registry.resolve(ref), "regressor") for lineage, ref in refs.items()}
        by_lineage = {lineage: version for lineage, version in found.items() if counts(version, lineage)}
    if not by_role:
        raise _no_champion(registry) from missing[0]
    return Lineup(classifier=by_role.get("classifier"), regressor=by_role.get("regressor"), by_lineage=by_lineage)


def _no_champion(registry: Registry) -> NotFoundError:
    """What to do where nothing would answer: promote the newest version of either role, or train one."""
    there = (next(registry.versions(role, newest=1), None) for role in TASK_OF)
    newest = next((listed.ref for listed in there if listed), None)
    return NotFoundError(
        f"the registry {registry.store.uri} has no champion; "
        + (
            f"choose one: cellnet registry promote {newest} {CHAMPION}"
            if newest
            else "train a model: cellnet train BANK --task classify"
        )
    )


def strangers(classifier: ModelVersion | None, counter: ModelVersion | None) -> str | None:
    """A line where a counter has learned from lineages of which the classifier knows none; as far as they tell."""
    if classifier is None or counter is None:
        return None
    of = counter.card
    known, counted = set(classifier.card.classes), set(of.lineages or filter(None, [of.config.lineage]))
    if not counted or known & counted:
        return None
    return (
        f"{counter.ref} learned to count {_few(counted)}, and {classifier.ref} names only "
        f"{_few(known)}: frames that are counted right will be named wrong; train a classifier on these too"
    )


def _few(names: set[str]) -> str:
    first = sorted(names)[:NAMED]
    return ", ".join(first) + (f" and {len(names) - len(first)} more" if len(names) > len(first) else "")


def lineage_refs(registry: Registry, lineages: list[str]) -> dict[str, str]:
    """References of the counters of single lineages that have a champion, by lineage.

    What they mean may be of another lineage (`counts`), where a name is as several lineages are spelled.
    """
    there = set(registry.store.folders(""))
    refs: dict[str, str] = {}
    for lineage in lineages:
        for name in dict.fromkeys((counter_name(lineage), _plain_name(lineage))):
            if lineage not in refs and name in there and CHAMPION in registry.aliases(name):
                refs[lineage] = f"{name}:{CHAMPION}"
    return refs


def counts(version: ModelVersion, lineage: str) -> bool:
    """Whether a counter may count a lineage: it was trained on that one, or on all."""
    return version.card.config.lineage in (None, lineage)


def counter_name(lineage: str) -> str:
    """The name of the model that counts one lineage alone: another for each, with a hash where it is not spelled alike.

    >>> counter_name("SH-SY5Y"), counter_name("MCF-7"), counter_name("MCF 7")
    ('regressor-SH-SY5Y', 'regressor-MCF-7', 'regressor-MCF-7-1636362a')
    """
    name = _plain_name(lineage)
    if name == f"regressor-{lineage}":
        return name
    return f"{name[:55]}-{hashlib.sha256(lineage.encode()).hexdigest()[:8]}"


def _plain_name(lineage: str) -> str:
    """A name that spells a lineage as a name can, and may be that of several."""
    return f"regressor-{re.sub(r'[^A-Za-z0-9._-]+', '-', lineage)}"[:64]


def checked(version: ModelVersion, role: str) -> ModelVersion:
    """The version. Raises ConfigError where it does not do what its role asks."""
    task = version.card.task
    if task != TASK_OF[role]:
        raise ConfigError(
            f"{version.ref} is a model to {task}, not to {TASK_OF[role]}; give another reference as {role}"
        )
    return version


def answers(models: Lineup[FrameModel], image_HW: Pixels, *, pixel_um: float | None) -> list[Answer]:
    """What the classifier says of a frame, and the counter of the lineage that it names. Raises DataError."""
    cuts = Cuts(image_HW, pixel_um)
    named = _answer(models.classifier, cuts) if models.classifier else None
    counter = models.counter_for(named.lineage if named else None)
    counted = _answer(counter, cuts) if counter else None
    return [answer for answer in (named, counted) if answer]


class Cuts:
    """One frame as several models cut it: once for those that cut alike."""

    def __init__(self, image_HW: Pixels, pixel_um: float | None) -> None:
        self.image_HW = image_HW
        self.pixel_um = pixel_um
        self._made: dict[Hashable, Cut] = {}

    def of(self, model: FrameModel) -> Cut:
        """The frame's tiles for a model. Raises DataError where it cannot be cut."""
        if model.cuts_by not in self._made:
            self._made[model.cuts_by] = model.cut(self.image_HW, self.pixel_um)
        return self._made[model.cuts_by]


def _answer(model: FrameModel, cuts: Cuts) -> Answer:
    cut = cuts.of(model)
    return model.answer_of(model.predict_cut(cut), cut.measures)
