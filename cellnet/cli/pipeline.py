"""`cellnet pipeline`: the commands of a file, one after the other, each done once; and how far they are."""

import argparse
import contextlib
import io
import json
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from cellnet.cli.options import JSON, train_config
from cellnet.cli.parsing import Option, command, noun
from cellnet.cli.printing import print_json, print_table, say
from cellnet.cli.progress import duration
from cellnet.errors import ConfigError, ConflictError, NotBetterError, RegistryError
from cellnet.tasks import TASKS

if TYPE_CHECKING:
    from cellnet.pipeline.course import Course, Seen
    from cellnet.pipeline.file import PipelineFile
    from cellnet.pipeline.results import Result, Results

FILE = Option("file", type=Path, metavar="FILE", help="YAML or JSON, like infra/pipeline.yaml")


def add_to(commands: Any) -> None:
    verbs = noun(commands, "pipeline", help="import, train, evaluate, promote and deploy as a file says, each once")
    command(
        verbs,
        "run",
        run,
        FILE,
        Option("--dry-run", action="store_true", help="only say what would run, and why"),
        JSON,
        help="run what has not been done; what was cut goes on",
        description=(
            "Run the steps of FILE that have not come to a result with what they take in now: the source's files, the "
            "bank's digest, settings, versions, cellnet itself. Where nothing changed nothing is done (exit 0), so a "
            "schedule may start it as often as it likes; one runs at a time, the others exit 2. "
            "A version that the rule of promotion refuses is no failure (exit 0; the answer says it)."
        ),
    )
    command(
        verbs,
        "show",
        show,
        FILE,
        JSON,
        help="how far each step is, what it came to, and where its log is",
    )


def run(arguments: argparse.Namespace) -> None:
    from cellnet.pipeline.course import Course

    file, results = opened(arguments.file)
    course = Course(file, results)
    seen = list(course.seen())
    if arguments.dry_run:
        _print_plan(seen, as_json=arguments.json)
        return
    if all(one.state in ("done", "refused", "left out") for one in seen):
        say("nothing to do: no step takes in anything new")
    else:
        _run(file, results)
        seen = list(Course(file, results).seen())
    _print(seen, results, as_json=arguments.json)


def show(arguments: argparse.Namespace) -> None:
    from cellnet.pipeline.course import Course
    from cellnet.store.lease import Lease

    file, results = opened(arguments.file)
    holder = Lease(results.store, results.lease).holder()
    if holder:
        say(f"{holder.who}, runs it since {holder.since}")
    _print(list(Course(file, results, is_held=holder is not None).seen()), results, as_json=arguments.json)


def opened(path: Path) -> "tuple[PipelineFile, Results]":
    """A file whose commands are all such, and where its results are."""
    from cellnet.cli.program import parser
    from cellnet.cli.tune import tune_config
    from cellnet.config.pipeline import Tune
    from cellnet.pipeline.file import PipelineFile
    from cellnet.pipeline.results import Results
    from cellnet.pipeline.steps import DeployStep, FitStep, Known, steps_of

    file = PipelineFile.read(path)
    known, all_commands = Known(file), parser()
    for step in steps_of(file):
        if isinstance(step, DeployStep):
            continue
        try:
            given = all_commands.parse_args(step.command(known))
            if isinstance(step, FitStep):
                (tune_config if isinstance(step.of, Tune) else train_config)(given)
        except ConfigError as error:
            raise ConfigError(f"{path}: {step.name}: {error}") from error
    return file, Results(file.places.open_runs(), file.name)


def _run(file: "PipelineFile", results: "Results") -> None:
    """Run what is to run, alone."""
    from cellnet.pipeline.course import Course
    from cellnet.pipeline.steps import DeployStep
    from cellnet.store.lease import Lease

    logs, lost = _Logs(results), threading.Event()

    def give_up() -> None:
        lost.set()
        os.kill(os.getpid(), signal.SIGINT)

    lease = Lease(results.store, results.lease)
    try:
        with _sigterm_is_ctrl_c() as stays_so, lease.held(lost=give_up, beside=logs.keep):
            course = Course(file, results)  # as it is when nobody else runs it
            for step in course.steps:
                seen = course.look(step)
                if not seen.is_due:
                    say(f"{step.name}: {_told(seen)}")
                    continue
                if not isinstance(step, DeployStep):
                    _connect(file)
                    stays_so()
                course.note(_done(course, seen, logs))
    except KeyboardInterrupt:
        if lost.is_set():
            raise ConflictError(
                f"{results.store.uri} could not be written to for too long, or somebody else runs {file.path} now; "
                "the same command goes on where it was cut"
            ) from None
        say("the same command goes on where it was cut")
        raise


def _connect(file: "PipelineFile") -> None:
    """Have Ray, once for all steps."""
    from pipelines import cluster

    cluster.connect(*file.places.named)


def _done(course: "Course", seen: "Seen", logs: "_Logs") -> "Result":
    """Run a step, and keep what it comes to. Raises what its command does."""
    from cellnet.cli.program import told
    from cellnet.pipeline.results import Attempt, Result
    from cellnet.store.lease import Holder

    assert seen.key is not None and seen.inputs is not None, "due"
    step, results = seen.step, course.results
    begun_s, attempt = time.monotonic(), Attempt(began=_now(), who=Holder.here(0).who)
    if seen.is_gone:
        results.forget(step.name, seen.key)
    results.note(step.name, seen.key, attempt)
    with logs.of(step.name, seen.key):
        say(f"{step.name}: {seen.why}")
        for line in _typed(seen):
            say(f"  {line}")
        try:
            state, answer = _answer(course, seen)
        except Exception as error:
            failed = {"failed": str(told(error) or repr(error))[:2000], "seconds": time.monotonic() - begun_s}
            results.note(step.name, seen.key, attempt.model_copy(update=failed))
            raise
        logs.keep()  # first, so that a result has its log
        result = results.keep(
            Result(
                step=step.name,
                key=seen.key,
                inputs=seen.inputs,
                state=state,
                result=answer,
                began=attempt.began,
                seconds=round(time.monotonic() - begun_s, 3),
                who=attempt.who,
            )
        )
        say(f"{step.name}: {result.state}, {summary(result)}")
    return result


def _answer(course: "Course", seen: "Seen") -> tuple[Any, dict[str, Any]]:
    """(done or refused, what is kept of the answer) of a step."""
    from cellnet.cli.program import parser
    from cellnet.pipeline.steps import DeployStep

    if isinstance(seen.step, DeployStep):
        return "done", _deployed(course, seen.step)
    if made := course.made(seen):
        return "done", made
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            given = parser().parse_args([*seen.command, "--json"])
            given.run(given)
    except NotBetterError as error:
        return "refused", {"why": str(error)}
    [*_, answer] = (line for line in out.getvalue().splitlines() if line.startswith("{"))
    return "done", seen.step.kept(json.loads(answer))


def _deployed(course: "Course", step: Any) -> dict[str, Any]:
    """Have what was promoted served."""
    from cellnet.pipeline.deploying import deploy, wait_for

    models, of = step.models(course.known), step.of
    if typed := step.command(course.known):
        deploy(typed, say)
    served = None
    if of.address:
        key = course.known.file.beside(of.api_key)
        served = wait_for(of.address, models, wait_s=of.wait, key=Path(key) if key else None, say=say)
    return {"models": models, "served": served}


class _Logs:
    """What is narrated while a step runs, also beside its result."""

    def __init__(self, results: "Results") -> None:
        self._results = results
        self._of: tuple[str, str] | None = None
        self._said: list[str] = []
        self._kept = 0
        self._one_at_a_time = threading.Lock()

    @contextlib.contextmanager
    def of(self, step: str, key: str) -> Iterator[None]:
        """Narration of a step, after that of earlier attempts."""
        before = self._results.log(step, key).decode("utf-8", errors="replace")
        self._said, self._kept, self._of = [before], 0, (step, key)
        self._said.append(f"--- {_now()}\n")
        try:
            with contextlib.redirect_stderr(_Tee(sys.stderr, self._said.append)):
                yield
        finally:
            self.keep()
            self._of = None

    def keep(self) -> None:
        """Write what is new; a store that does not answer is told the next time."""
        with self._one_at_a_time, contextlib.suppress(RegistryError, OSError):
            if self._of and len(self._said) > self._kept:
                said_n = len(self._said)
                self._results.keep_log(*self._of, "".join(self._said[:said_n]).encode("utf-8", errors="replace"))
                self._kept = said_n


class _Tee(io.TextIOBase):
    """A stream whose lines are told to somebody else too, but for bars, which are drawn over."""

    def __init__(self, stream: TextIO, tell: Callable[[str], object]) -> None:
        self._stream, self._tell = stream, tell

    def write(self, text: str) -> int:
        if not text.startswith("\r"):
            self._tell(text)
        return self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


@contextlib.contextmanager
def _sigterm_is_ctrl_c() -> Iterator[Callable[[], object]]:
    """SIGTERM (`ray job stop`, a timer) ends a run as Ctrl-C does; to be said again once Ray has set its own way."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    if before[signal.SIGINT] == signal.SIG_IGN:  # of what a script runs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def so() -> None:
        signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))

    so()
    try:
        yield so
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def summary(result: "Result") -> str:
    """What a step came to, in a line."""
    of = result.result
    if result.state == "refused":
        return str(of["why"])
    if "digest" in of and "frames" in of:
        return f"digest {of['digest'][:12]}, {of['frames']:,} frames, {of['set_aside']:,} set aside"
    if "split" in of:
        tile, main = of["tile"], TASKS[of["task"]].main
        low, high = tile.get(f"{main}_interval") or (None, None)
        interval = f" ({low:.3f} to {high:.3f})" if low is not None and high is not None else ""
        score = "-" if tile.get(main) is None else f"{tile[main]:.3f}"
        return f"{of['model']}, {of['split']}, {main} per tile {score}{interval}"
    if "alias" in of:
        return f"{of['name']}:{of['alias']} is {of['name']}@{of['number']}"
    if "models" in of:
        return f"{'served' if of['served'] else 'deployed'}: {', '.join(of['models'])}"
    scores = of.get("test") or of.get("folds") or {}
    of_test = (f", test {facts.main} {scores[facts.main]:.3f}" for facts in TASKS.values() if facts.main in scores)
    return f"{of['model']}{next(of_test, '')}"


def _told(seen: "Seen") -> str:
    """Why a step does not run."""
    return f"{seen.state} already, {summary(seen.result)}" if seen.result else f"{seen.state}, {seen.why}"


def _typed(seen: "Seen") -> list[str]:
    """The step as one types it."""
    from cellnet.pipeline.steps import DeployStep

    if not isinstance(seen.step, DeployStep):
        return [shlex.join(["cellnet", *seen.command])]
    waits = [f"wait until {seen.step.of.address} answers with what was promoted"] if seen.step.of.address else []
    return [*([shlex.join(seen.command)] if seen.command else []), *waits]


def _print_plan(seen: "list[Seen]", *, as_json: bool) -> None:
    """What would run, and why."""
    if as_json:
        print_json({"steps": [_facts(one) for one in seen]})
        return
    for one in seen:
        if one.result or one.state == "left out":
            print(f"{one.step.name}: {_told(one)}")
        else:
            print("\n".join([f"{one.step.name}: would run, {one.why}", *(f"  {line}" for line in _typed(one))]))


def _print(seen: "list[Seen]", results: "Results", *, as_json: bool) -> None:
    """Each step with its state and what it came to."""
    if as_json:
        steps = [_facts(one) | _logs_of(one, results) for one in seen]
        print_json({"pipeline": results.prefix, "runs": results.store.uri, "steps": steps})
        return
    print_table([_row(one) for one in seen])
    say(f"logs: {results.store.uri}/{results.prefix}/STEP/KEY.log")


def _row(one: "Seen") -> dict[str, Any]:
    result, attempt = one.result, one.attempt
    began = result.began if result else attempt.began if attempt else None
    seconds = result.seconds if result else attempt.seconds if attempt else None
    before = f"; before: {summary(one.last)}" if one.last else ""
    return {
        "step": one.step.name,
        "state": one.state,
        "key": one.key,
        "began": began,
        "took": None if seconds is None else duration(seconds),
        "result": summary(result) if result else f"{one.why}{before}",
    }


def _facts(one: "Seen") -> dict[str, Any]:
    """A step for programs."""
    result, attempt = one.result, one.attempt
    return {
        "step": one.step.name,
        "state": one.state,
        "why": one.why or None,
        "key": one.key,
        "commands": _typed(one),
        "began": result.began if result else attempt.began if attempt else None,
        "seconds": result.seconds if result else attempt.seconds if attempt else None,
        "failed": attempt.failed if attempt and not result else None,
        "result": result.result if result else None,
        "last": one.last.result if one.last else None,
    }


def _logs_of(one: "Seen", results: "Results") -> dict[str, str | None]:
    begun = one.key is not None and (one.result is not None or one.attempt is not None)
    return {"log": results.uri(one.step.name, one.key, "log") if begun and one.key else None}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
