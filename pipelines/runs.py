"""The run of a training: its folder, its checkpoints, and which run `--resume` goes on with; likewise of a search.

    RUNS/TASK-KEY-TIME/run.json                   the recipe: what is trained on what, with every setting
    RUNS/TASK-KEY-TIME/checkpoint_*/              state.safetensors, after an epoch; the last and the best stay
    RUNS/TASK-KEY-TIME/checkpoint_manager_snapshot.json   Ray Train's list of the checkpoints that are whole
    RUNS/TASK-KEY-TIME/events.out.tfevents.*      TensorBoard's curves, a file an epoch
    RUNS/TASK-KEY-TIME/finished.json              the version that came of it

KEY names the recipe, in which the number of workers has no part: another number may go on with the run. A training that
was called something (`--once`) has that in the place of TIME.
Records have a `format`; a reader leaves alone what it does not know of them, and refuses a higher one.
"""

import hashlib
import importlib.util
import json
import secrets
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import ray.train

from cellnet.bank.bank import Bank
from cellnet.config.train import TrainConfig
from cellnet.config.tune import TuneConfig
from cellnet.errors import DataError, NotFoundError
from cellnet.store.objects import Store
from cellnet.tasks import TASKS, Task
from cellnet.training.checkpoint import STATE, state_from_bytes, state_to_bytes
from cellnet.training.plan import Plan
from cellnet.training.state import Epoch, TrainState
from cellnet.training.truths import whole_of

Config = TrainConfig | TuneConfig
Say = Callable[[str], None]
MUCH_WAITING: Final = 0.05
"""Share of an epoch's time from which on it is told that it was waited for data."""
FORMAT: Final = 1
"""Of the records of a run, and of a search's trials."""
SNAPSHOT: Final = "checkpoint_manager_snapshot.json"
FINISHED: Final = "finished.json"


@dataclass(frozen=True)
class Run:
    """A place for checkpoints and curves below the runs."""

    runs: Store
    name: str

    @property
    def uri(self) -> str:
        """The folder, or s3://bucket/prefix."""
        return f"{self.runs.uri}/{self.name}"

    def add_curves(self, epoch: Epoch) -> None:
        """Add an epoch to what TensorBoard draws."""
        self.runs.put(f"{self.name}/events.out.tfevents.{epoch.number:06}", _events(epoch))

    def finish(self, ref: str) -> None:
        """Note what came of the run, which nothing then goes on with."""
        self.runs.put(f"{self.name}/{FINISHED}", json.dumps({"model": ref}).encode())


def find_run(
    runs: Store,
    config: Config,
    *,
    resume: bool,
    say: Say,
    bank: Bank,
    plan: Plan,
    model: str,
    once: str | None = None,
) -> Run:
    """With `resume` the unfinished run of the same recipe, if there is one, and else a new one.

    With `once` the run of the recipe that is called so, which is made where there is none.

    Of the bank what the plan learns from is part of the recipe: other labels than these may have changed meanwhile.
    """
    digest = whole_of(plan, bank.frames)
    if once:
        return _called(runs, config, once, bank_digest=digest, model=model, bank=bank.store.uri)
    left = unfinished_run(runs, config, bank_digest=digest, model=model)
    if left and resume:
        return left
    if left:
        say(f"note: {left.uri} was left unfinished; --resume would go on with it")
    elif resume:
        say(f"nothing to resume: {runs.uri} has no unfinished run of this bank and these settings; a new one starts")
    return new_run(runs, config, bank_digest=digest, model=model, bank=bank.store.uri)


def _called(runs: Store, config: Config, once: str, *, bank_digest: str, model: str, bank: str) -> Run:
    """The run of a recipe and of that name, which goes on if it has begun."""
    run = Run(runs, f"{_prefix(config, bank_digest, model)}{once}")
    there = {key.removeprefix(f"{run.name}/") for key in runs.keys(f"{run.name}/")}
    if "run.json" not in there:
        return new_run(runs, config, bank_digest=bank_digest, model=model, bank=bank, called=once)
    if SNAPSHOT in there and not _is_json(runs.get(f"{run.name}/{SNAPSHOT}")):
        runs.delete(f"{run.name}/{SNAPSHOT}")  # half of a list, with which Ray Train could not begin either
    return run


def finish_once(runs: Store, once: str, ref: str) -> None:
    """Note what came of the run that was called so, if it is there, which was cut after it had published."""
    for name in runs.folders(""):
        if name.endswith(f"-{once}") and not list(runs.keys(f"{name}/{FINISHED}")):
            Run(runs, name).finish(ref)


def new_run(
    runs: Store, config: Config, *, bank_digest: str, model: str, bank: str = "", called: str | None = None
) -> Run:
    """An empty run for a recipe: a resolved configuration, what of a bank it learns from, the name of a model.

    `bank` says where the bank was, which is kept beside the recipe; `called` stands in the place of the time.
    """
    time = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    run = Run(runs, f"{_prefix(config, bank_digest, model)}{called or time}")
    facts = {"format": FORMAT} | _recipe(config, bank_digest, model) | {"bank": bank}
    runs.put(f"{run.name}/run.json", json.dumps(facts, indent=1).encode())
    return run


def unfinished_run(runs: Store, config: Config, *, bank_digest: str, model: str) -> Run | None:
    """The newest run of the recipe that was left with something to go on with and without a result."""
    left: dict[str, set[str]] = {}
    for key in runs.keys(_prefix(config, bank_digest, model)):
        name, _, file = key.partition("/")
        left.setdefault(name, set()).add(file)
    for name in sorted(left, reverse=True):
        files = left[name]
        of_search = any(file.startswith("trials/") for file in files)
        if FINISHED not in files and (of_search or (SNAPSHOT in files and _is_json(runs.get(f"{name}/{SNAPSHOT}")))):
            return Run(runs, name)
    return None


def tensorboard_command(run: Run) -> str:
    """What shows the curves."""
    missing = "" if importlib.util.find_spec("tensorboard") else "  (after: pip install tensorboard)"
    return f"tensorboard --logdir {run.uri}{missing}"


def epoch_line(epoch: Epoch, epochs: object, *, best: bool, called: str = "epoch") -> str:
    """An epoch in one line for a person; a star marks the best so far. What it means, `tell_epochs` says before.

    `called` is what it is: of a frozen network a `fit` of its last layers.
    """
    scores = ", ".join(f"{name.removesuffix('_accuracy')} {value:.3f}" for name, value in epoch.test.items())
    waiting = f", {epoch.waiting:.0%} of the time waiting for data" if epoch.waiting >= MUCH_WAITING else ""
    test = f"  test {scores}" if scores else ""
    return (
        f"{called} {epoch.number:>3}/{epochs}  loss {epoch.loss:.4f}{test}  {epoch.tiles_per_s:.0f} tiles/s{waiting}"
        + " *" * best
    )


def tell_epochs(task: Task, say: Say, *, star: bool, called: str = "epoch") -> None:
    """Say what the lines of epochs mean, or of trials, in 80 columns; `star`: whether some of them have one."""
    say("test: tiles that are not learned from")
    say(f"  {TASKS[task].epoch}")
    if star:
        say(f"  *: the best {called} so far, which is kept")


def tell_fits(holds: Sequence[float]) -> str:
    """What is learned of a frozen network, in the stead of epochs, in 80 columns."""
    if len(holds) == 1:
        return "the last layers alone are fitted, once and whole: there are no epochs"
    ways = ", ".join(f"{hold:g}" for hold in holds)
    return f"the last layer alone is fitted, whole each time, by C {ways}: no epochs"


def keep_state(run: Run, name: str, state: TrainState, config: TrainConfig) -> None:
    """Write or replace what one of the trainings of a run, a trial or a fold, needs to go on."""
    run.runs.put(_state_key(run, name), state_to_bytes(state, config))


def kept_state(run: Run, name: str, *, what: str, again: str) -> TrainState | None:
    """What `keep_state` left to go on with, if it did.

    Raises DataError for what another version of cellnet left: `what` cannot go on, and is to be done `again`.
    """
    try:
        data = run.runs.get(_state_key(run, name))
    except NotFoundError:
        return None
    try:
        return state_from_bytes(data)
    except DataError as error:
        raise DataError(f"{run.uri}: {what} cannot go on ({error}); {again} without --resume") from error


def _state_key(run: Run, name: str) -> str:
    return f"{run.name}/trials/{name}.state"


def write_state(folder: Path, state: TrainState, config: TrainConfig) -> None:
    """A training's state as the file of a checkpoint."""
    (folder / STATE).write_bytes(state_to_bytes(state, config))


def read_state(checkpoint: ray.train.Checkpoint) -> TrainState:
    """The state that `write_state` left. Raises DataError for one that another version of cellnet left."""
    with checkpoint.as_directory() as folder:
        file = Path(folder, STATE)
        try:
            if not file.exists():
                raise DataError(f"it has no {STATE}")
            return state_from_bytes(file.read_bytes())
        except DataError as error:
            raise DataError(
                f"{checkpoint.path} was left by another version of cellnet ({error}); train without --resume"
            ) from error


def _recipe(config: Config, bank_digest: str, model: str) -> dict[str, Any]:
    return {"bank_digest": bank_digest, "model": model, "config": config.model_dump(mode="json")}


def _prefix(config: Config, bank_digest: str, model: str) -> str:
    recipe = json.dumps(_recipe(config, bank_digest, model), sort_keys=True)
    kind = config.task if isinstance(config, TrainConfig) else f"tune-{config.train.task}"
    return f"{kind}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}-"


def _is_json(data: bytes) -> bool:
    """Whether it is whole: Ray Train writes its list in place."""
    try:
        return isinstance(json.loads(data), dict)
    except ValueError:
        return False


def _events(epoch: Epoch) -> bytes:
    """An epoch as a file of TensorBoard's."""
    from tensorboardX import SummaryWriter

    curves = {"loss": epoch.loss, "tiles a second": epoch.tiles_per_s, "waiting for data": epoch.waiting}
    curves |= {f"test/{name}": value for name, value in epoch.test.items()}
    with tempfile.TemporaryDirectory() as folder:
        with SummaryWriter(folder) as writer:
            for name, value in curves.items():
                writer.add_scalar(name.replace(" ", "_"), value, epoch.number)
        [file] = Path(folder).iterdir()
        return file.read_bytes()
