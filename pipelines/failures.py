"""What ended a job, in the one line of an error of cellnet's, however deep Ray has wrapped it."""

from collections.abc import Iterator
from typing import Any, Final

from ray import exceptions as rays

from cellnet.errors import CellnetError, ConfigError, of_machine

AGAIN: Final = "run the same command again, which takes up what is kept"
_LOST: Final = f"a machine of the Ray cluster, or Ray on it, is gone; {AGAIN}"
_DIED: Final = (
    "a worker process died, most often since the memory of its machine was full (see dmesg there); ask for less at "
    f"once, as by fewer workers, or {AGAIN}"
)
_MEANINGS: Final[dict[type[BaseException], str]] = {
    rays.OutOfMemoryError: (
        "Ray ended a worker since the memory of its machine was full; end other programs there, or ask for less at "
        "once, as by fewer workers or --set batch_size=8"
    ),
    rays.ObjectStoreFullError: (
        "the shared memory in which Ray keeps data (/dev/shm) is full; end other programs, or enlarge it"
    ),
    rays.OutOfDiskError: (
        "the disk on which Ray keeps what does not fit into memory is full; make room, or name another by RAY_TMPDIR"
    ),
    rays.WorkerCrashedError: _DIED,
    rays.RayActorError: _DIED,
    rays.NodeDiedError: _LOST,
    rays.LocalRayletDiedError: _LOST,
    rays.ObjectLostError: _LOST,
    rays.RpcError: _LOST,
    rays.AuthenticationError: "the Ray cluster refuses this token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH",
}
"""What Ray's errors mean for who runs a job; a bug is none of them."""
_RETRIED: Final = "Failed to apply UDF transform after "
"""Begins what Ray Data adds to an error of a task: to its message, or as an argument more."""


def told(error: BaseException) -> CellnetError | None:
    """What a person can put right of an error; None of one that is a bug, whose traceback says more."""
    for inner in _inside(error):
        if isinstance(inner, CellnetError):
            message, added, _ = str(inner).partition(f"\n{_RETRIED}")
            return type(inner)(message) if added else inner
        if isinstance(inner, OSError) and str(inner.filename).startswith(_RETRIED):
            inner.filename = None
        if known := of_machine(inner):
            return known
        if isinstance(inner, rays.RuntimeEnvSetupError):
            return ConfigError(f"the environment of a worker cannot be made: {' '.join(str(inner).split())[:300]}")
        if isinstance(inner, rays.RayActorError) and getattr(inner, "actor_init_failed", False):
            continue
        for kind, meaning in _MEANINGS.items():
            if isinstance(inner, kind):
                return CellnetError(meaning)
    return None


def _inside(error: Any) -> Iterator[BaseException]:
    """An error and those that it wraps, the outermost first; of Ray's wrappers what they wrap alone."""
    if not isinstance(error, BaseException):
        return
    if isinstance(error, rays.RayTaskError):  # which passes for an error of the kind that it wraps
        yield from _inside(error.cause)
        return
    yield error
    failures = getattr(error, "worker_failures", None) or {}  # of Ray Train
    for inner in (*failures.values(), getattr(error, "controller_failure", None), error.__cause__):
        yield from _inside(inner)
