"""What the Ray jobs share: a connection, places that every worker can reach, and lines of progress."""

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.fs
import ray
import torch
from ray.data import DataContext

from cellnet.errors import ConfigError
from cellnet.predictor import Predictor
from cellnet.registry import Registry
from cellnet.store import S3Store, Store

BLOCKS_PER_CPU = 2
"""Blocks of a dataset for each CPU: enough to balance, few enough not to drown in scheduling."""


def connect() -> None:
    """Join the running Ray cluster (RAY_ADDRESS, a Ray job's, or the one started here), else start a local one."""
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a warning about GPU variables
    logging.getLogger("ray").setLevel(logging.ERROR)
    ray.init(logging_level=logging.ERROR, log_to_driver=False)
    quiet()


def quiet() -> None:
    """Ray says only errors on the terminal, and Ray Data keeps rows in order."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    for name in ("ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)


def cpus() -> float:
    """CPUs of the cluster."""
    return float(ray.cluster_resources().get("CPU", 1))


def blocks(rows: int) -> int:
    """Into how many blocks to cut a dataset of so many rows."""
    return max(1, min(rows, int(cpus() * BLOCKS_PER_CPU)))


def cpus_per_worker(workers: int) -> float:
    """CPUs to reserve for each of so many training workers, so that one is left to feed them."""
    return max(0.01, round(min(1.0, max(cpus() - 1, 0.5) / workers), 2))


def gpu_available(workers: int) -> bool:
    """Whether the cluster has a GPU for each of so many workers."""
    return bool(ray.cluster_resources().get("GPU", 0) >= workers)


def place(uri: str) -> str:
    """A folder as an absolute path, `s3://...` as it is.

    A Ray job runs in a copy of its working directory, where results would be lost and other nodes do not look:
    there a relative folder is refused.
    """
    if "://" in uri:
        return uri
    if not Path(uri).is_absolute() and "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        raise ConfigError(
            f"a Ray job runs in a copy of its working directory, so {uri!r} would be lost with it; "
            f"give an absolute path (for example $PWD/{uri}) or s3://bucket/prefix"
        )
    return str(Path(uri).absolute())


def filesystem(store: Store) -> tuple[pyarrow.fs.FileSystem, str]:
    """A store as pyarrow sees it, for Ray: the file system and the path in it."""
    if not isinstance(store, S3Store):
        return pyarrow.fs.LocalFileSystem(), store.uri
    endpoint = store.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    if endpoint is None:
        return pyarrow.fs.S3FileSystem(region=region), store.uri.removeprefix("s3://")
    scheme, _, address = endpoint.rpartition("://")
    files = pyarrow.fs.S3FileSystem(endpoint_override=address, scheme=scheme or "https", region=region)
    return files, store.uri.removeprefix("s3://")


_models: dict[tuple[str, str], Predictor] = {}


def load_once(registry: Registry, ref: str) -> Predictor:
    """A model version, kept in this worker process for its next batch; it computes with one thread."""
    key = (registry.store.uri, ref)
    if key not in _models:
        torch.set_num_threads(1)
        _models[key] = Predictor.load(registry, ref)
    return _models[key]


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
    """An actor to whose `add` any worker sends lines of progress; each is said here, in the driver."""
    lines = _Lines.remote()  # type: ignore[attr-defined]
    finished = threading.Event()

    def watch() -> None:
        done = False
        while not done:
            done = finished.wait(0.5)
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
