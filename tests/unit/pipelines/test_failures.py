"""What ended a job, told in a line: each error as Ray wraps it."""

import errno
import pickle
from pathlib import Path

import pytest
import ray.train
from ray import exceptions as rays
from ray.data._internal.util import _annotate_exception_with_retry_context

import pipelines.evaluate
from cellnet.cli import main
from cellnet.errors import DataError, RegistryError, UnavailableError
from pipelines.failures import told

FULL = OSError(errno.ENOSPC, "No space left on device", "/data/bank/pixels")


def of_task(error: Exception) -> rays.RayTaskError:
    """As `ray.get` and Ray Data raise what a worker raised."""
    return rays.RayTaskError("_prepare_chunk()", f"Traceback\n  ...\n{error}", error).as_instanceof_cause()


def retried(error: Exception) -> Exception:
    """As it comes from a task of Ray Data."""
    added = {"description": "apply UDF transform", "attempts": 1, "max_attempts": 1, "total_backoff_s": 0.0}
    told = _annotate_exception_with_retry_context(error, **added, exception_str=str(error))
    return pickle.loads(pickle.dumps(told))


def caused(error: Exception, by: Exception) -> Exception:
    error.__cause__ = by
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (of_task(DataError("the bank's parts/1 is damaged; restore it")), "the bank's parts/1 is damaged; restore it"),
        (of_task(FULL), "/data/bank/pixels: the disk is full; make room"),
        (of_task(retried(DataError("a.png is gone"))), "a.png is gone"),
        (of_task(retried(OSError(errno.ENOSPC, "No space left on device"))), "a file: the disk is full; make room"),
        (of_task(MemoryError()), "the memory of this machine is full; end other programs, or ask for less at once"),
        (of_task(OSError("[Errno 28] Error writing bytes to file")), "a file: the disk is full; make room"),
        (of_task(of_task(UnavailableError("S3 does not answer"))), "S3 does not answer"),
        (of_task(rays.OutOfMemoryError("killed")), "Ray ended a worker since the memory of its machine was full; "),
        (ray.train.WorkerGroupError("failed", {0: RegistryError("cannot write a.json: full")}), "cannot write a.json"),
        (ray.train.WorkerGroupError("failed", {1: FULL}), "/data/bank/pixels: the disk is full"),
        (ray.train.ControllerError(rays.ActorDiedError()), "a worker process died, most often since the memory"),
        (caused(RuntimeError("Tune"), of_task(DataError("no frame"))), "no frame"),
        (rays.WorkerCrashedError(), "a worker process died, most often since the memory of its machine was full"),
        (rays.ObjectStoreFullError("full"), "the shared memory in which Ray keeps data (/dev/shm) is full"),
        (rays.OutOfDiskError("full"), "the disk on which Ray keeps what does not fit into memory is full; make room"),
        (rays.NodeDiedError("gone"), "a machine of the Ray cluster, or Ray on it, is gone; run the same command again"),
        (rays.ObjectLostError("ab" * 28, None, ""), "a machine of the Ray cluster, or Ray on it, is gone"),
        (rays.RuntimeEnvSetupError("no pip\nhere"), "the environment of a worker cannot be made: "),
    ],
)  # fmt: skip
def test_what_ended_a_job_is_one_line(error: Exception, said: str) -> None:
    assert str(told(error)).startswith(said)
    assert "\n" not in str(told(error)) and "UDF" not in str(told(error))


@pytest.mark.parametrize(
    "error",
    [of_task(KeyError("x")), ray.train.WorkerGroupError("failed", {0: KeyError("x")}), FileNotFoundError(2, "no", "a")],
)
def test_a_bug_keeps_its_traceback(error: Exception) -> None:
    assert told(error) is None


def test_every_verb_tells_it_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(*places: object, **options: object) -> None:
        raise raised

    monkeypatch.setattr(pipelines.evaluate, "evaluate", fails)
    raised = of_task(DataError("frame a.png is gone"))
    assert main(["evaluate", "classifier@1", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "cellnet: frame a.png is gone\n"
    raised = of_task(KeyError("x"))
    with pytest.raises(KeyError):
        main(["evaluate", "classifier@1", str(tmp_path)])
