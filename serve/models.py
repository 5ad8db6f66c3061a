"""The models that answer now, kept as the registry's aliases say.

A new version is loaded and warmed beside the old one, and then takes its place; requests that began with the old one
end with it. Where the registry does not answer, or a version cannot be used, what was there stays.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from cellnet.errors import CellnetError, NotFoundError, RegistryError, plain
from cellnet.prediction.engines import engine_of
from cellnet.prediction.lineup import CHAMPION, Lineup, checked, counts, lineage_refs, resolve_models
from cellnet.prediction.model import FrameModel
from cellnet.registry.following import Following
from cellnet.registry.records import ModelVersion, parse_ref
from cellnet.registry.registry import Registry
from cellnet.tasks import TASK_OF
from serve.meters import Meters

log = logging.getLogger(__name__)

CHALLENGER: Final = "challenger"
SILENT_S: Final = 60.0
"""How long a refresh may take, before it is told that it does not end: of a shared folder that hangs, say."""
RETRY_S: Final = 60.0
"""When a version that could not be used is tried again."""
ANEW_S: Final = 60.0
"""How long what the registry said is kept, but for the moves of aliases: new counters of lineages, versions removed."""


@dataclass(frozen=True, eq=False)
class Served:
    """A version in memory, and what it is served as."""

    version: ModelVersion
    model: FrameModel
    alias: str
    """`champion`, `challenger`, or the alias or number that was asked for."""

    @property
    def ref(self) -> str:
        """`name@number`."""
        return self.version.ref

    @property
    def alone(self) -> "Lineup[Served]":
        """Models of which this is the only one."""
        return Lineup(classifier=self) if self.version.card.task == "classify" else Lineup(regressor=self)

    @property
    def engine(self) -> str:
        """What runs it."""
        return engine_of(self.model)


class Failure(NamedTuple):
    """A version that could not be used."""

    version: ModelVersion
    at: float
    why: str


Load = Callable[[ModelVersion], FrameModel]


class Shelf:
    """What is served. `refresh` is one thread's; all else may be called by any."""

    def __init__(
        self,
        registry: Registry,
        load: Load,
        *,
        classifier: str | None = None,
        regressor: str | None = None,
        challenge: bool = False,
        meters: Meters,
    ) -> None:
        """Raises as `resolve_models` and `load` do, where there is nothing to begin with."""
        self._registry = registry
        self._load = load
        self._following, self._anew_at = Following(registry), 0.0
        self._counters: dict[tuple[str, ...], dict[str, str]] = {}
        """References of the counters of single lineages, by the classes that they were looked for of."""
        self._refs = Lineup(classifier=classifier, regressor=regressor)
        self._challenge = challenge
        self._meters = meters
        self._failed: dict[str, Failure] = {}
        self._told: set[tuple[str, ...]] = set()
        self.problems: dict[str, str] = {}
        """By role, why it may be another version than the registry says, as the last refresh found."""
        self._began: float | None = None
        self.checked = time.time()
        """When the registry was last asked and answered."""
        versions = resolve_models(registry, classifier, regressor)
        asked = [parse_ref(ref) for ref in (classifier, regressor) if ref]
        aliases = {name: alias or str(number) for name, number, alias in asked}
        self.champions: Lineup[Served] = versions.map(
            lambda version: self._served(version, aliases.get(version.name, CHAMPION), [])
        )
        self.challengers: Lineup[Served] = Lineup()
        if challenge:
            self.refresh()
        self._tell()

    def refresh(self) -> None:
        """Ask the registry, load what is new, and change over."""
        self._began = time.monotonic()
        try:
            self.problems = self._refreshed()
        except Exception as error:  # nothing that is wrong with a registry may end the watch
            log.exception("the registry could not be asked")
            self.problems = {"registry": f"could not be asked ({type(error).__name__})"}
        self._began = None
        self._tell()

    def reasons(self) -> dict[str, str]:
        """`problems`, and whether the registry does not answer at all."""
        began = self._began
        waited_s = 0.0 if began is None else time.monotonic() - began
        silent = {"registry": f"has not answered for {waited_s:.0f} s"} if waited_s > SILENT_S else {}
        return self.problems | silent

    def _tell(self) -> None:
        """Have the figures say what is served now."""
        meters = self._meters
        meters.stale.set(bool(self.problems))
        meters.registry_answered.set(self.checked)
        told: set[tuple[str, ...]] = {
            (served.ref, served.version.card.task, served.alias, served.engine)
            for served in (*self.champions, *self.challengers)
        }
        for labels in told:
            meters.serving.labels(*labels).set(1)
        for served in (*self.champions, *self.challengers):
            for counter in (meters.answers, meters.unfamiliar):  # which begin at 0, as all that are known beforehand
                counter.labels(served.ref, served.alias)
            meters.swaps.labels(served.version.name)
        for labels in self._told - told:
            meters.serving.remove(*labels)
        self._told = told

    def _refreshed(self) -> dict[str, str]:
        problems: dict[str, str] = {}
        if time.monotonic() >= self._anew_at:
            self._following, self._counters = Following(self._registry), {}
            self._anew_at = time.monotonic() + ANEW_S
        registry, old = self._following, self.champions
        classifier = self._next(registry, "classifier", self._ref("classifier"), old.classifier, problems, "classifier")
        regressor = self._next(registry, "regressor", self._ref("regressor"), old.regressor, problems, "regressor")
        by_lineage = dict(old.by_lineage)
        if self._refs.regressor is None and classifier:
            try:
                refs = self._counters_of(classifier.version)
                by_lineage = {lineage: served for lineage, served in by_lineage.items() if lineage in refs}
            except RegistryError as error:
                problems["regressor-*"], refs = str(error), {}
            for lineage, ref in refs.items():
                name, old_one = ref.partition(":")[0], by_lineage.get(lineage)
                counter = self._next(registry, name, ref, old_one, problems, "regressor")
                by_lineage.pop(lineage, None)
                by_lineage |= {lineage: counter} if counter and counts(counter.version, lineage) else {}
        self._change(replace(old, classifier=classifier, regressor=regressor, by_lineage=by_lineage))
        if self._challenge:
            self.challengers = self._challenging(registry, problems)
        return problems

    def _ref(self, role: str) -> str:
        ref: str | None = getattr(self._refs, role)
        return ref or f"{role}:{CHAMPION}"

    def _counters_of(self, classifier: ModelVersion) -> dict[str, str]:
        """References of the counters of the lineages that a classifier names."""
        classes = tuple(classifier.card.classes)
        if classes not in self._counters:
            self._counters[classes] = lineage_refs(self._following.registry, list(classes))
        return self._counters[classes]

    def _challenging(self, registry: Following, problems: dict[str, str]) -> Lineup[Served]:
        """The challengers of those that are served, where they are other versions."""
        by_role: dict[str, Served] = {}
        for role in TASK_OF:
            name = parse_ref(self._ref(role))[0]
            old, champion = getattr(self.challengers, role), getattr(self.champions, role)
            challenger = self._next(registry, f"{role} {CHALLENGER}", f"{name}:{CHALLENGER}", old, problems, role)
            if challenger and not (champion and challenger.ref == champion.ref):
                by_role[role] = challenger
        by_lineage: dict[str, Served] = {}
        for lineage, champion in self.champions.by_lineage.items():
            name, old = champion.version.name, self.challengers.by_lineage.get(lineage)
            challenger = self._next(
                registry, f"{name} {CHALLENGER}", f"{name}:{CHALLENGER}", old, problems, "regressor"
            )
            if challenger and challenger.ref != champion.ref:
                by_lineage[lineage] = challenger
        return Lineup(classifier=by_role.get("classifier"), regressor=by_role.get("regressor"), by_lineage=by_lineage)

    def _next(
        self,
        registry: Following,
        what: str,
        ref: str,
        old: Served | None,
        problems: dict[str, str],
        role: str,
    ) -> Served | None:
        """What a reference means now, in memory; the old one, and a line in `problems`, where that cannot be had."""
        _, number, alias = parse_ref(ref)
        if old and number:
            return old
        try:
            version = checked(registry.resolve(ref), role)
            self.checked = time.time()
        except NotFoundError as error:
            self.checked = time.time()
            if old:
                problems[what] = f"{error}; {old.ref} goes on"
            return old
        except CellnetError as error:
            problems[what] = f"{error}; {old.ref if old else 'nothing'} goes on"
            return old
        if old and old.version == version:
            return old
        failed = self._failed.get(what)
        if failed and failed.version == version and time.monotonic() - failed.at < RETRY_S:
            problems[what] = failed.why
            return old
        try:
            return self._served(version, alias or str(number), [*self.champions, *self.challengers])
        except Exception as error:  # whatever a file from elsewhere makes of the libraries that read it
            why = str(error) if isinstance(error, CellnetError) else f"{type(error).__name__} ({error!s:.200})"
            why = f"{version.ref} cannot be used: {why}; {old.ref if old else 'nothing'} goes on"
            log.error("%s", plain(why))
            self._failed[what] = Failure(version, time.monotonic(), why)
            problems[what] = why
            return old

    def _served(self, version: ModelVersion, alias: str, others: list[Served]) -> Served:
        """A version in memory; one that is there already is not loaded again."""
        for other in others:
            if other.version == version:
                return Served(version, other.model, alias)
        return Served(version, self._load(version), alias)

    def _change(self, new: Lineup[Served]) -> None:
        before = {served.version.name: served.ref for served in self.champions}
        self.champions = new
        for served in new:
            if before.get(served.version.name) != served.ref:
                log.warning("%s takes over from %s", served.ref, before.get(served.version.name, "nothing"))
                self._meters.swaps.labels(served.version.name).inc()


class Watch:
    """A thread that refreshes a shelf every so many seconds, as long as the process lives."""

    def __init__(self, shelf: Shelf, every_s: float) -> None:
        self._shelf = shelf
        self._every_s = every_s
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(self._every_s)
            self._shelf.refresh()
