"""What the Ray jobs share: a connection, models kept in workers, and lines of progress."""

import contextlib
import functools
import logging
import math
import os
import re
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import ray
from ray._private import ray_logging, worker
from ray.data import DataContext
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cellnet import version
from cellnet.errors import ConfigError
from cellnet.store.arrow import filesystem
from cellnet.store.place import Place
from pipelines import starting

if TYPE_CHECKING:
    from cellnet.prediction.model import FrameModel
    from cellnet.registry.records import ModelVersion
    from cellnet.registry.registry import Registry
    from cellnet.store.objects import Store

NO_NEWS: Final = re.compile(
    "PYTHON worker processes have been started|ServeController.graceful_shutdown failed|killed due to memory pressure|"
    "A worker died or was killed while executing|"
    r"Refer to the documentation on how to address|infinite retries remaining|"
    r"INFO \d{4}-\d\d-\d\d [\d:,]+ serve \d+ -- |^  • |^$|"  # of Ray Serve's settings
    r"\[\d{4}-\d\d-\d\d [\d:,]+ \w \d+ \d+\] (\(\w+\) )?\w+\.(cc|h):\d+: "  # lines of its part in C++
)
"""What Ray says of its own affairs, on stdout, where cellnet's users expect data."""
OBJECT: Final = re.compile(r'^\{"')
"""How a line of JSON begins. Each is news: Ray takes lines of several workers that differ in digits alone for one."""
BLOCKS_PER_CPU: Final = 2
"""Blocks of a dataset for each CPU: enough to balance, few enough not to drown in scheduling."""
START_S: Final = "300"
"""How long the workers of a training may wait for room: a busy machine takes longer than Ray's 60 s."""
ELASTIC_S: Final = "10"
"""Likewise of an elastic training, which asks again for as many as there is room for."""
NODES_S: Final = 60.0
"""How long nodes may take to tell what they have; one that does not is left to the job."""


def connect(*used: Place, show_logs: bool = False, bare_logs: bool = False) -> None:
    """Join the running Ray cluster (RAY_ADDRESS, a Ray job's, or the one started here), else start a local one.

    A local one has no dashboard, which takes seconds to start and a tenth of a small machine: `ray start --head` has.
    `show_logs`: what workers print appears here, and with `bare_logs` without a word of which worker.
    Raises ConfigError when there is no cluster at RAY_ADDRESS, or none that this machine and user may join or start;
    and for a node of several that has another cellnet than this, or no credentials where one of the places `used` is
    on S3: each node reads with its own, and none are sent to it.
    """
    if not ray.is_initialized():
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a warning about GPU variables
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        starting.start_or_join(log_to_driver=show_logs)
        quiet()
        if show_logs and bare_logs:
            bare = functools.partial(worker.print_to_stdstream, ignore_prefix=True)
            shown = ray_logging.global_worker_stdstream_dispatcher
            shown.remove_handler("ray_print_logs")
            shown.add_handler("ray_print_logs", bare)
    _used.update(used)
    check_nodes()


def is_own() -> bool:
    """Whether this process started the cluster that it is in: then all of it is this machine."""
    node = ray._private.worker._global_node
    return node is not None and bool(node.is_head())


def is_one_node() -> bool:
    """Whether the cluster is one machine, so that none can be lost while the job goes on."""
    return len([node for node in ray.nodes() if node["Alive"]]) == 1


def on_this_node() -> NodeAffinitySchedulingStrategy:
    """For what only this machine can do."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


class OfNode(NamedTuple):
    """What a node has."""

    cellnet: str | None
    """The version of cellnet; None where there is none."""
    credentials: bool
    """For S3; yes where nobody asked."""
    unseen: tuple[str, ...] = ()
    """Folders that it does not see."""


@ray.remote(num_cpus=0, max_retries=0)  # type: ignore[untyped-decorator]
def _look_around(*, on_s3: bool, marks: dict[str, str]) -> tuple[str | None, bool, tuple[str, ...]]:
    """What `OfNode` has of the node on which this runs; nothing is used of its cellnet, which may be older, or none."""
    unseen = tuple(folder for folder, mark in marks.items() if not os.path.exists(os.path.join(folder, mark)))
    try:
        from cellnet.version import number
    except ImportError:
        return None, True, unseen
    if not on_s3:
        return number(), True, unseen
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        return number(), boto3.Session().get_credentials() is not None, unseen
    except BotoCoreError:  # of a profile that is not there, a role that cannot be had
        return number(), False, unseen


@contextlib.contextmanager
def _marked(places: Sequence[Place]) -> Iterator[dict[str, str]]:
    """The folders among some places, each with the name of something in it, by which others know whether they see it.

    That is a file that is there for as long as this lasts; of a folder where none can be written, what it holds.
    """
    marks = {}
    with contextlib.ExitStack() as stack:
        for path in {Path(place.uri).absolute() for place in places if not place.is_on_s3}:
            folder = next(above for above in (path, *path.parents) if above.is_dir())  # a new one will lie in it
            with contextlib.suppress(OSError):
                mark = stack.enter_context(tempfile.NamedTemporaryFile(dir=folder, prefix=".cellnet-seen-")).name
                marks[str(folder)] = os.path.basename(mark)
                continue
            with contextlib.suppress(OSError, ValueError):
                marks[str(folder)] = max(os.listdir(folder))
        yield marks


_used: set[Place] = set()
"""The places of the jobs that this process has run."""
_asked: dict[str, set[Place]] = {}
"""Which of them each node was asked about, by its id."""


def check_nodes() -> None:
    """Raise ConfigError for a node that cannot do its part, of those that have not been asked; of one alone none is.

    A node is asked once about a place, and those that join later when this is called again.
    """
    there = {node["NodeID"]: node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")}
    nodes = {name: node for name, node in there.items() if name not in _asked or not _used <= _asked[name]}
    if len(there) < 2 or not nodes:
        return
    on_s3 = next((place for place in _used if place.is_on_s3), None)
    faults = []
    with _marked(list(_used)) as marks:
        asked = {
            _look_around.options(scheduling_strategy=NodeAffinitySchedulingStrategy(name, soft=False)).remote(
                on_s3=on_s3 is not None, marks=marks
            ): name
            for name in nodes
        }
        for one in ray.wait(list(asked), num_returns=len(asked), timeout=NODES_S)[0]:
            address = nodes[asked[one]]["NodeManagerAddress"]
            with contextlib.suppress(ray.exceptions.RayError):  # it is gone meanwhile, which the job lives with
                if fault := node_fault(address, OfNode(*ray.get(one)), on_s3):
                    faults.append(fault)
                    del nodes[asked[one]]
    for name in nodes:
        _asked[name] = set(_used)
    if faults:
        raise ConfigError(faults[0] + (f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""))


def fault_of_joined() -> ConfigError | None:
    """Why a node that joined after the job began cannot do its part; None where none did, or all can."""
    if not ray.is_initialized():
        return None
    try:
        check_nodes()
    except ConfigError as fault:
        return fault
    except Exception:  # of a cluster that is gone
        return None
    return None


def node_fault(address: str, has: OfNode, on_s3: Place | None) -> str | None:
    """Why a node cannot do its part of a job, and what to do there; None of one that can.

    >>> node_fault("10.0.0.7", OfNode(version.number(), False), Place("s3://lab/bank"))[:55]
    'the node 10.0.0.7 has no S3 credentials for s3://lab/ba'
    """
    ours = version.number()
    if has.cellnet != ours:
        theirs = f"cellnet {has.cellnet}" if has.cellnet else "no cellnet"
        return f"the node {address} has {theirs}, and this is {ours}; install {ours} there, and start its Ray anew"
    if not has.credentials:
        return (
            f"the node {address} has no S3 credentials for {on_s3}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
            "there before ray start, or give it a role"
        )
    if has.unseen:
        return (
            f"the node {address} does not see the folder {has.unseen[0]}; give one that every node shares, or "
            "s3://bucket/prefix"
        )
    return None


@contextlib.contextmanager
def own_address() -> Iterator[None]:
    """While it lasts, what Ray Train starts knows which cluster it is in.

    Ray 2.60 ends a training whose controller it does not find, and where a machine has two clusters (two commands at
    once on a laptop) it looks for it in either.
    """
    from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE

    ENV_VARS_TO_PROPAGATE.add("RAY_ADDRESS")
    with _variable("RAY_ADDRESS", ray.get_runtime_context().gcs_address):
        yield


@contextlib.contextmanager
def patient(*, elastic: bool) -> Iterator[None]:
    """While it lasts, a training that starts waits so long for room for its workers, if nobody has set how long.

    Of an elastic one Ray 2.60 knows up to 20 s late that a machine is gone. Until then it waits for room there, and
    takes fewer workers when it asks again.
    """
    name = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
    with _variable(name, os.environ.get(name) or (ELASTIC_S if elastic else START_S)):
        yield


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """While it lasts, the environment has this variable."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def quiet() -> None:
    """Ray says nothing on the terminal, and Ray Data keeps rows in order and reads Parquet in the small way."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True  # else what a worker raised is told as text alone
    context.execution_options.preserve_order = True
    # Of Ray 2.60's two Parquet readers the newer starts actors to read footers: for 97 files it took 13 s, the other
    # 5 s, and 400 MB more.
    context.use_datasource_v2 = False
    for lines in (ray_logging.stdout_deduplicator, ray_logging.stderr_deduplicator):
        lines.skip_re, lines.allow_re = NO_NEWS, OBJECT
    for name in ("ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # its errors are raised too


def cpus() -> float:
    """CPUs of the cluster."""
    return float(ray.cluster_resources().get("CPU", 1))


def blocks(rows: int, *, at_least: int = 1) -> int:
    """Into how many blocks to cut a dataset of so many rows: `at_least` so many, if there are rows for them.

    As many for each CPU, so that all have work to the end.
    """
    per_cpu = max(BLOCKS_PER_CPU, math.ceil(at_least / cpus()))
    return max(1, min(rows, int(per_cpu * cpus())))


def cpus_per_worker(workers: int) -> float:
    """CPUs to reserve for each of so many training workers, so that one is left to feed them."""
    return max(0.01, round(min(1.0, max(cpus() - 1, 0.5) / workers), 2))


def run_trials(
    trainable: Any,
    space: dict[str, Any],
    *,
    runs: "Store",
    folder: str,
    callbacks: Sequence[Any] = (),
    stop: Any = None,
    **settings: Any,
) -> Any:
    """What comes of trials on Ray Tune, a ResultGrid, when all of them have ended.

    Ray's own files are in a folder below the runs; `stop`, a ray.tune.Stopper, may end all sooner; `settings` are those
    of its TuneConfig. Trials keep what they came to themselves, and go on from there when their worker died.
    """
    import ray.tune  # slow to import, and other jobs need it not

    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new output prints boxes even when told to print nothing
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ray's swallows the first Ctrl-C
    # Ray's loggers repeat what the trials keep, and that for TensorBoard may hang for ever at the end, after Ctrl-C.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    files, root = filesystem(runs)
    tuner = ray.tune.Tuner(
        trainable,
        param_space=space,
        tune_config=ray.tune.TuneConfig(**settings),
        run_config=ray.tune.RunConfig(
            name="ray",
            storage_path=f"{root}/{folder}",
            storage_filesystem=files,
            verbose=0,
            failure_config=ray.tune.FailureConfig(max_failures=1),  # of a worker; a trial's own errors come again
            checkpoint_config=ray.tune.CheckpointConfig(checkpoint_at_end=False),
            callbacks=list(callbacks),
            stop=stop,
        ),
    )
    with stopped_by_ctrl_c():
        return tuner.fit()


@contextlib.contextmanager
def stopped_by_ctrl_c() -> Iterator[None]:
    """Ctrl-C is a KeyboardInterrupt here, at the latest where the block ends.

    Ray Train answers it by an exit with 0 or 1, and not at all where a training is about to end; and an interrupt that
    is raised in a callback is printed and forgotten. A signal that came is therefore also read from a socket.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    signals, written = socket.socketpair()
    with signals, written:
        signals.setblocking(False)
        written.setblocking(False)
        others = signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
        try:
            yield
        except (Exception, SystemExit) as error:
            if _was_interrupted(signals):
                raise KeyboardInterrupt from error
            raise
        finally:
            signal.set_wakeup_fd(others)
            signal.signal(signal.SIGINT, before)
        if _was_interrupted(signals):
            raise KeyboardInterrupt


def _was_interrupted(signals: socket.socket) -> bool:
    try:
        return signal.SIGINT in signals.recv(4096)
    except BlockingIOError:  # there was none
        return False


_models: "dict[tuple[str, ...], FrameModel]" = {}


def load_once(registry: "Registry", version: "ModelVersion") -> "FrameModel":
    """A model version, kept in this worker process for its next batch; it computes with one thread."""
    from cellnet.prediction.engines import load_model

    key = (registry.store.uri, str(registry.store.endpoint_url), version.ref)
    if key not in _models:
        _models[key] = load_model(registry, version, threads=1)
    return _models[key]


@functools.lru_cache(maxsize=1)
def fetch_once(model: "ray.ObjectRef[Any]") -> Any:
    """A model from the object store, kept in this worker process until it is another's turn; on one thread."""
    import torch

    torch.set_num_threads(1)
    return ray.get(model)


@ray.remote(num_cpus=0)
class _Lines:
    """Lines that workers left for the driver."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        self._lines.append(line)

    def take(self) -> list[str]:
        taken, self._lines = self._lines, []
        return taken


@contextlib.contextmanager
def progress(say: Callable[[str], None]) -> Iterator[ray.actor.ActorHandle]:
    """An actor to whose `add` any worker sends lines of progress; each is said here, in the driver.

    It is on the driver's node, since other nodes may go while the driver stays.
    """
    lines = _Lines.options(scheduling_strategy=on_this_node()).remote()  # type: ignore[attr-defined]
    finished = threading.Event()

    def watch() -> None:
        done = False
        while not done:
            done = finished.wait(0.2)
            for line in ray.get(lines.take.remote()):
                say(line)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lines
    finally:
        finished.set()
        watcher.join(timeout=5)
        ray.kill(lines)
