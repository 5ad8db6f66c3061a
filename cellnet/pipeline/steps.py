"""The steps of a pipeline: commands of cellnet, each with what it takes in, and what of its answer is kept."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from cellnet.bank.bank import Bank
from cellnet.config.loading import read_file
from cellnet.config.pipeline import Deploy, Evaluate, Import, Promote, Train, Tune, options
from cellnet.errors import DataError, NotFoundError
from cellnet.pipeline.file import PipelineFile
from cellnet.pipeline.results import Result
from cellnet.readers import LabelledFile, Options, read_source
from cellnet.registry.registry import Registry
from cellnet.registry.starting import is_weights_file
from cellnet.store.paths import path_at
from cellnet.tasks import Task
from cellnet.version import code_identity

UNKNOWN: Final = "…"
"""Stands in a command for what an earlier step will come to."""

NO_PART: Final = {"config", "workers", "gpu", "wait"}
"""Of the options of a training: its file is known by what it says, and with more workers it goes on as it is."""


@dataclass
class Known:
    """What is known when a step begins: the file, and what the steps before it came to."""

    file: PipelineFile
    results: dict[str, Result] = field(default_factory=dict)
    cellnet: str = field(default_factory=lambda: code_identity())
    _banks: dict[str, Bank] = field(default_factory=dict)
    _registry: Registry | None = None

    @property
    def registry(self) -> Registry:
        """Opened once."""
        self._registry = self._registry or self.file.places.open_registry()
        return self._registry

    def bank(self, uri: str | None = None) -> Bank:
        """A bank as it is when it is first asked for after the imports; the pipeline's unless told otherwise."""
        place = self.file.place(uri or self.file.says.bank)
        if place.uri not in self._banks:
            try:
                self._banks[place.uri] = Bank.open(place)
            except NotFoundError as error:
                raise NotFoundError(f"{self.file.path}: {error}") from error
        return self._banks[place.uri]

    def note(self, result: Result) -> None:
        """A step has come to this."""
        self.results[result.step] = result
        if result.step.startswith("import-"):
            self._banks.clear()

    def model(self, task: Task) -> str | None:
        """The version that the training of a task came to."""
        return next((r.result["model"] for name, r in self.results.items() if name in _fits(task)), None)


class Step:
    """A step: `name` it has in the pipeline, `after` the names of those whose results it takes in."""

    name: str
    after: tuple[str, ...] = ()

    def inputs(self, known: Known) -> dict[str, Any]:
        """All that decides what it comes to; asked when those before it have come to something."""
        raise NotImplementedError

    def command(self, known: Known, key: str = UNKNOWN) -> list[str]:
        """What one would type."""
        raise NotImplementedError

    def kept(self, answer: dict[str, Any]) -> dict[str, Any]:
        """What is kept of the answer of the command (`--json`)."""
        return answer

    def is_there(self, known: Known, result: Result) -> bool:
        """Whether what it came to is still there."""
        return True


@dataclass
class ImportStep(Step):
    """A source into the bank."""

    name: str
    of: Import

    def inputs(self, known: Known) -> dict[str, Any]:
        told = self.of.model_dump(mode="json", exclude={"source"})
        source = {"source": self._place(known), "files": self._listing(known)}
        return {"verb": "bank import", "cellnet": known.cellnet, "bank": _bank(known), "options": told, **source}

    def command(self, known: Known, key: str = UNKNOWN) -> list[str]:
        names = [item.name for item in fields(Options)]
        of = self.of.model_copy(update={"lineages": known.file.beside(self.of.lineages)})
        return [
            *("bank", "import", self._place(known), _bank(known), *options(of, *names, "replace")),
            *(*_sets(self.of.set), *_server(known)),
        ]

    def kept(self, answer: dict[str, Any]) -> dict[str, Any]:
        frames = sum(row.get("frames") or 0 for row in answer["rows"])
        return {name: answer[name] for name in ("digest", "entry")} | {
            "frames": frames,
            "set_aside": len(answer["set_aside"]),
        }

    def is_there(self, known: Known, result: Result) -> bool:
        try:
            known.bank()
        except NotFoundError:
            return False
        return True

    def _place(self, known: Known) -> str:
        return known.file.place(self.of.source).uri

    def _listing(self, known: Known) -> str:
        """One number of all that a source says: its files, their sizes and times or ETags, and what they are of."""
        told = {item.name: getattr(self.of, item.name) for item in fields(Options)}
        channel, lineages = self.of.channel, known.file.beside(self.of.lineages)
        told |= {"channel": None if channel is None else str(channel)}
        told |= {"lineages": path_at(known.file.place(lineages)) if lineages else None}
        digest = hashlib.sha256()
        for one in read_source(path_at(known.file.place(self.of.source)), Options(**told)):
            digest.update(json.dumps(_told(one)).encode() + b"\n")
        return digest.hexdigest()


@dataclass
class FitStep(Step):
    """A training or a search, whose version is published once."""

    name: str
    task: Task
    of: Train | Tune
    after: tuple[str, ...]

    def inputs(self, known: Known) -> dict[str, Any]:
        config = Path(known.file.beside(self.of.config) or "")
        weights = {name: _sha256(path) for name, path in self._weights(known, config).items()}
        return {
            "verb": self._verb,
            "cellnet": known.cellnet,
            "task": self.task,
            "registry": known.file.places.registry.uri,
            "options": self.of.model_dump(mode="json", exclude=NO_PART),
            "config": _sha256(config) if self.of.config else None,
            **({"weights": weights} if weights else {}),
            **_state_of(known),
        }

    def command(self, known: Known, key: str = UNKNOWN) -> list[str]:
        own = ("trials",) if isinstance(self.of, Tune) else ("gpu",)
        of = self.of.model_copy(update={"config": known.file.beside(self.of.config)})
        return [
            *(self._verb, _bank(known), *_as_of(known, key), "--task", self.task),
            *(*options(of, "lineage", "config", "name", "workers", "wait", *own), *_sets(_beside(known, self.of.set))),
            *(*(["--no-promote"] if isinstance(self.of, Tune) else []), "--once", key),
            *(*(["--runs", known.file.places.runs.uri] if known.file.says.runs else []), *_publishes(known)),
        ]

    def kept(self, answer: dict[str, Any]) -> dict[str, Any]:
        scores = ("test", "folds", "holdout")
        return {"model": answer["model"]} | {name: answer[name] for name in scores if name in answer}

    def is_there(self, known: Known, result: Result) -> bool:
        try:
            known.registry.resolve(result.result["model"])
        except NotFoundError:
            return False
        return True

    def _weights(self, known: Known, config: Path) -> dict[str, Path]:
        """The files of weights that its settings name: those of its own file are relative to where it is typed."""
        own = {name: Path(str(known.file.beside(name))) for name in _weights_in(self.of.set)}
        return {name: Path(name) for name in _weights_in(read_file(config) if self.of.config else {})} | own

    @property
    def _verb(self) -> str:
        return "tune" if isinstance(self.of, Tune) else "train"


@dataclass
class EvaluateStep(Step):
    """A version scored."""

    name: str
    task: Task
    of: Evaluate
    after: tuple[str, ...]

    def inputs(self, known: Known) -> dict[str, Any]:
        return {
            "verb": "evaluate",
            "cellnet": known.cellnet,
            "split": self.of.split,
            **_model(known, self.task),
            **_state_of(known, self.of.bank),
        }

    def command(self, known: Known, key: str = UNKNOWN) -> list[str]:
        ref = known.model(self.task) or UNKNOWN
        state = (_bank(known, self.of.bank), *_as_of(known, key, self.of.bank))
        return ["evaluate", ref, *state, *options(self.of, "split"), *_reads(known)]


@dataclass
class PromoteStep(Step):
    """An alias moved to a version, if it is better."""

    name: str
    task: Task
    of: Promote
    after: tuple[str, ...]

    def inputs(self, known: Known) -> dict[str, Any]:
        of = {**_model(known, self.task), **_state_of(known, self.of.bank)}
        return {"verb": "registry promote", "alias": self.of.alias, **of}

    def command(self, known: Known, key: str = UNKNOWN) -> list[str]:
        ref = known.model(self.task) or UNKNOWN
        bank = ["--bank", _bank(known, self.of.bank)] if self.of.bank else []
        return [
            *("registry", "promote", ref, self.of.alias, *bank, "--reason", self.reason(known, key)),
            *_publishes(known),
        ]

    def reason(self, known: Known, key: str) -> str:
        """What the move says, by which it is known again."""
        return f"pipeline {known.file.name}, {key}"

    def made(self, known: Known, key: str) -> dict[str, Any] | None:
        """The move that this step has made, if it was cut before that was noted."""
        name = str(known.model(self.task)).partition("@")[0]
        moves = known.registry.history(name, self.of.alias)
        return next((one.model_dump(mode="json") for one in moves if one.reason == self.reason(known, key)), None)


@dataclass
class DeployStep(Step):
    """What was promoted, served."""

    name: str
    of: Deploy
    after: tuple[str, ...]

    def inputs(self, known: Known) -> dict[str, Any]:
        config = known.file.beside(self.of.config)
        return {
            "verb": "deploy",
            "config": _sha256(Path(config)) if config else None,
            "dashboard": self.of.dashboard,
            "address": self.of.address,
            "models": self.models(known),
        }

    def command(self, known: Known, key: str = UNKNOWN) -> list[str]:
        where = ["--address", self.of.dashboard] if self.of.dashboard else []
        return ["serve", "deploy", str(known.file.beside(self.of.config)), *where] if self.of.config else []

    def models(self, known: Known) -> list[str]:
        """The versions that were promoted."""
        moves = [known.results[name] for name in self.after if name in known.results]
        return [f"{one.result['name']}@{one.result['number']}" for one in moves if one.state == "done"]


def steps_of(file: PipelineFile) -> list[Step]:
    """The steps in their order; imports first, then tasks side by side."""
    says = file.says
    steps: list[Step] = [ImportStep(f"import-{number}", of) for number, of in enumerate(says.sources, 1)]
    imports = tuple(step.name for step in steps)
    for task, model in says.models.items():
        of = model.train or model.tune
        assert of is not None, "checked with the file"
        steps.append(FitStep(f"{'train' if model.train else 'tune'}-{task}", task, of, imports))
    fits = {step.task: step.name for step in steps if isinstance(step, FitStep)}
    for task, fit in fits.items():
        steps += [EvaluateStep(f"evaluate-{task}-{n}", task, of, (fit,)) for n, of in enumerate(says.evaluate, 1)]
    if promote := says.promote:
        for task, fit in fits.items():
            evaluations = (one.name for one in steps if isinstance(one, EvaluateStep) and one.task == task)
            steps.append(PromoteStep(f"promote-{task}", task, promote, (fit, *evaluations)))
    if says.deploy:
        moves = tuple(step.name for step in steps if isinstance(step, PromoteStep))
        steps.append(DeployStep("deploy", says.deploy, moves))
    return steps


def why_anew(last: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Why a step runs that has come to something before, by what it took in then and takes in now.

    >>> why_anew({"bank_digest": "a" * 64}, {"bank_digest": "b" * 64})
    "the bank's digest changed from aaaaaaaaaaaa to bbbbbbbbbbbb"
    """
    said: dict[str, Callable[[Any, Any], str]] = {
        "files": lambda old, new: "files of the source, or what it says of them, changed",
        "bank_digest": lambda old, new: f"the bank's digest changed from {str(old)[:12]} to {str(new)[:12]}",
        "model": lambda old, new: f"of {new}, and before of {old}",
        "models": lambda old, new: f"of {', '.join(new)}, and before of {', '.join(old)}",
        "weights": lambda old, new: "the weights that it starts from changed",
        "cellnet": lambda old, new: f"cellnet was {old} and is {new}",
    }
    for name, words in said.items():
        if name in now and last.get(name) != now[name]:
            return words(last.get(name), now[name])
    return "its settings changed"


def _fits(task: Task) -> tuple[str, str]:
    return f"train-{task}", f"tune-{task}"


def _bank(known: Known, uri: str | None = None) -> str:
    return known.file.place(uri or known.file.says.bank).uri


def _state_of(known: Known, uri: str | None = None) -> dict[str, str]:
    """A bank, and what it holds; the pipeline's unless told otherwise."""
    return {"bank": _bank(known, uri), "bank_digest": known.bank(uri).digest}


def _model(known: Known, task: Task) -> dict[str, str]:
    """The version of a task, and what is its own: numbers may be given anew in another registry."""
    ref = known.model(task)
    assert ref is not None, "its training came to it"
    return {"model": ref, "id": known.registry.resolve(ref).id}


def _as_of(known: Known, key: str, uri: str | None = None) -> list[str]:
    """The state of a bank that is meant, while people may go on labelling; the pipeline's unless told otherwise."""
    entry = 0 if key == UNKNOWN else known.bank(uri).entry
    return ["--as-of", str(entry)] if entry else []


def _server(known: Known) -> Iterable[str]:
    return options(known.file.says, "endpoint_url")


def _reads(known: Known) -> list[str]:
    places = known.file.places
    keys = ["--trusted-keys", places.trusted_keys] if places.trusted_keys else []
    return ["--registry", places.registry.uri, *keys, *_server(known)]


def _publishes(known: Known) -> list[str]:
    key = known.file.places.signing_key
    return [*_reads(known), *(["--signing-key", key] if key else [])]


def _sets(settings: Mapping[str, Any]) -> Iterator[str]:
    for name, value in settings.items():
        yield from ("--set", f"{name}={json.dumps(value)}")


def _weights_in(settings: Any) -> Iterator[str]:
    """The files of weights among settings, at any depth."""
    if isinstance(settings, str):
        yield from [settings] if is_weights_file(settings) else []
    elif isinstance(settings, Mapping | list):
        for value in settings.values() if isinstance(settings, Mapping) else settings:
            yield from _weights_in(value)


def _beside(known: Known, settings: Any) -> Any:
    """Settings whose files of weights are those that lie beside the pipeline's file."""
    if isinstance(settings, str):
        return known.file.beside(settings) if is_weights_file(settings) else settings
    if isinstance(settings, Mapping):
        return {name: _beside(known, value) for name, value in settings.items()}
    return [_beside(known, value) for value in settings] if isinstance(settings, list) else settings


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; see the file of the pipeline") from error


def _told(one: LabelledFile) -> Sequence[Any]:
    files = [
        [image.place, image.mark, image.channel, image.stamp] if image else None for image in (one.image, one.mask)
    ]
    return [*files, *(getattr(one, item.name) for item in fields(one) if item.name not in ("image", "mask"))]
