"""How far a pipeline is: each step with its state, and why it is to run."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from cellnet.pipeline.file import PipelineFile
from cellnet.pipeline.results import Attempt, Result, Results, key_of
from cellnet.pipeline.steps import DeployStep, Known, PromoteStep, Step, steps_of, why_anew

State = Literal["done", "refused", "waiting", "running", "stopped", "failed", "left out"]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A step as it stands."""

    step: Step
    state: State
    why: str
    command: list[str]
    key: str | None = None
    """None where what it takes in is not known yet."""
    inputs: dict[str, Any] | None = None
    result: Result | None = None
    attempt: Attempt | None = None
    """How it was begun, where it did not come to a result."""
    last: Result | None = None
    """What it came to before, of other inputs."""
    is_gone: bool = False
    """Whether it came to something of these inputs that is no longer there."""

    @property
    def is_due(self) -> bool:
        """Whether it can run."""
        return self.key is not None and self.result is None and self.state != "left out"


class Course:
    """The steps of a pipeline in their order, and what they came to."""

    def __init__(self, file: PipelineFile, results: Results, *, is_held: bool = False) -> None:
        """`is_held`: somebody runs it, so that what was begun is taken for running."""
        self.known, self.results, self.is_held = Known(file), results, is_held
        self.steps = steps_of(file)

    def seen(self) -> Iterator[Seen]:
        """Every step. What `note` is told of one is known to those after it."""
        for step in self.steps:
            yield self.look(step)

    def look(self, step: Step) -> Seen:
        """A step as it stands."""
        missing = [name for name in step.after if name not in self.known.results]
        if missing:
            return self._waiting(step, f"after {missing[0]}, which is to run")
        if isinstance(step, DeployStep) and not step.models(self.known):
            return Seen(step=step, state="left out", why="nothing was promoted", command=step.command(self.known))
        inputs = step.inputs(self.known)
        key = key_of(inputs)
        result = self.results.find(step.name, key)
        seen = Seen(step=step, state="waiting", why="", command=step.command(self.known, key), key=key, inputs=inputs)
        if result and step.is_there(self.known, result):
            self.note(result)
            return replace(seen, state=result.state, result=result)
        if result:
            return replace(seen, why="the bank, or the version, that it came to is gone", is_gone=True)
        attempt, last = self.results.attempt(step.name, key), self.results.last(step.name)
        why, state = self._why(attempt, last, inputs)
        return replace(seen, state=state, why=why, attempt=attempt, last=last)

    def note(self, result: Result) -> None:
        """A step has come to this."""
        self.known.note(result)

    def made(self, seen: Seen) -> dict[str, Any] | None:
        """What a step has come to that was cut before it was noted, as far as the registry tells."""
        assert seen.key is not None
        return seen.step.made(self.known, seen.key) if isinstance(seen.step, PromoteStep) else None

    def _waiting(self, step: Step, why: str) -> Seen:
        return Seen(
            step=step, state="waiting", why=why, command=step.command(self.known), last=self.results.last(step.name)
        )

    def _why(self, attempt: Attempt | None, last: Result | None, inputs: dict[str, Any]) -> tuple[str, State]:
        if attempt and attempt.failed:
            return f"it failed: {attempt.failed}", "failed"
        if attempt and self.is_held:
            return f"begun {attempt.began} by {attempt.who}", "running"
        if attempt:
            return f"begun {attempt.began} by {attempt.who}, and cut: it goes on", "stopped"
        return (why_anew(last.inputs, inputs) if last else "it has not run yet"), "waiting"
