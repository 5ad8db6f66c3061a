"""How a job comes to its Ray: it joins a cluster or starts one here, with patience, and says in a line why it cannot.

On a busy machine Ray misses its own limits when it starts. Here they are longer, and it is tried twice.
"""

import contextlib
import errno
import logging
import os
import secrets
import shutil
import socket
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import ray
from ray._common.utils import get_default_ray_temp_dir
from ray._private import services
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray._private.node import Node
from ray.exceptions import AuthenticationError

from cellnet.errors import ConfigError, of_machine

RAY_TOKEN: Final = Path.home() / ".ray" / "auth_token"
"""Where Ray keeps the token of this machine's clusters."""
REACH_S: Final = 10.0
"""How long a cluster may take to answer."""
START_S: Final = 120.0
"""How long a node that is started here may take until the cluster knows it; Ray 2.60 has 30 in its code."""
LIMITS: Final = {
    "RAY_gcs_server_port_wait_time_s": "60",
    "RAY_agent_register_timeout_ms": "120000",
    "RAY_worker_register_timeout_seconds": "180",
    "RAY_gcs_rpc_server_connect_timeout_s": "30",
    "RAY_health_check_failure_threshold": "20",  # a machine that is busy is not gone
}
"""Of the processes of a cluster that is started here."""
LEAST_BYTES: Final = 32 * 2**20
"""Room on the disk without which Ray's processes end as they start."""
TRIES: Final = 2
TOKEN: Final = (
    "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=FILE, a file with the token that the cluster was started with "
    "(~/.ray/auth_token where RAY_AUTH_TOKEN_PATH is not set)"
)


def start_or_join(**settings: Any) -> None:
    """`ray.init` of the cluster of RAY_ADDRESS, or of the last `ray start` here, else of a new one.

    `settings` are further arguments. Raises ConfigError that says what is in the way.
    """
    for name in ("ray", "ray._private.services"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ) and not RAY_TOKEN.exists():
        # Ray would leave a new token in the home folder, and `ray start` and `ray job` act otherwise once it is there.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    address = services.get_ray_address_from_environment(None, None)
    if not address:
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # nobody takes this machine away
        for name, value in LIMITS.items():
            os.environ.setdefault(name, value)
        settings["include_dashboard"] = False
    for tried in range(1, TRIES + 1):
        try:
            with _unheard(), patient():
                _check(address)
                ray.init(logging_level=logging.CRITICAL, **settings)
            return
        except Exception as error:
            _clear_away(error)
            why = _why(error, address)
            if why is not None:
                raise why from error
            if tried == TRIES:
                raise _too_busy(error, address) from error


def check_closed() -> None:
    """Raise ConfigError where the cluster that this process is in takes messages of anybody who reaches its ports.

    They are unpickled, so whoever sends one runs what he likes. The cluster is asked as a stranger would.
    """
    import grpc

    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(ray.get_runtime_context().gcs_address, options) as channel:
        try:
            channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")(b"", timeout=REACH_S)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                return
    raise ConfigError(
        "this Ray cluster takes messages of anybody who reaches its ports, and unpickles them; start it with a token "
        "(ray get-auth-token --generate, then RAY_AUTH_MODE=token before every ray start, and here), or give "
        "--no-cluster-token where only you reach them"
    )


def _check(address: str | None) -> None:
    """Raise what is certain to come, which Ray itself would try for minutes and say nothing, or something else."""
    if not address:
        folder = _temporary()
        if (free := shutil.disk_usage(folder).free) < LEAST_BYTES:
            raise OSError(errno.ENOSPC, f"{free // 2**20} MB are free", str(folder))
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "://" in host:
        return
    socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
    if not os.environ.get("RAY_ADDRESS"):  # then Ray itself takes the token that it finds
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    ray._raylet.GcsClient(address=address)  # which tells at once of a token that is not the cluster's


def _temporary() -> Path:
    """The folder that Ray's lies in, or that is to be made."""
    folder = Path(get_default_ray_temp_dir())
    return next(path for path in (folder, *folder.parents) if path.exists())


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """What is written to the terminal meanwhile, by Ray's part in C++ too, is not seen: the error says it."""
    with tempfile.TemporaryFile() as nowhere:
        kept = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextlib.contextmanager
def patient() -> Iterator[None]:
    """While it lasts, Ray waits START_S for a node of its own, as long as that lives."""
    from psutil import STATUS_ZOMBIE, Process  # comes with Ray, and is found once that is imported

    ask = services.get_node
    deadline_s = time.monotonic() + START_S

    def has_raylet() -> bool:
        return any(each.name() == "raylet" and each.status() != STATUS_ZOMBIE for each in Process().children())

    def get_node(gcs_address: str, node_id: str) -> Any:
        while True:
            try:
                return ask(gcs_address, node_id)
            except RuntimeError:
                if time.monotonic() > deadline_s or not has_raylet():
                    raise
            time.sleep(0.2)

    services.get_node = get_node
    try:
        yield
    finally:
        services.get_node = ask


def _clear_away(error: Exception) -> None:
    """End the processes of a start that failed, which Ray leaves: a node that is half made is nobody's yet."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        node = frame.f_locals.get("self")
        if isinstance(node, Node) and hasattr(node, "all_processes"):
            node.kill_all_processes(check_alive=False, allow_graceful=False)
    ray.shutdown()


def _why(error: Exception, address: str | None) -> ConfigError | None:
    """What is in the way, where it will be there the next time too."""
    said = _said(error)
    whose = f"the Ray cluster at {address}" if address else "Ray"
    if isinstance(error, AuthenticationError) or "AuthToken" in said or "Token authentication is enabled" in said:
        return ConfigError(f"{whose} refuses this token, or wants one; {TOKEN}")
    if "ersion mismatch" in said:
        versions = " ".join(said.split())
        return ConfigError(f"{whose} has other versions: {versions[:300]}; install those of the cluster here")
    if known := of_machine(error):
        return ConfigError(f"Ray does not start: {known}; RAY_TMPDIR may name another folder for it")
    if not address:
        return None
    if "No node info found" in said:
        return ConfigError(
            f"this machine has no node of {whose}; start one by ray start --address={address}, or submit a job to it"
        )
    if isinstance(error, OSError | ValueError | AssertionError | ImportError):
        return ConfigError(f"no Ray cluster answers at {address}; correct or unset RAY_ADDRESS, or run `ray stop`")
    return None


def _too_busy(error: Exception, address: str | None) -> Exception:
    """What is said of limits that Ray missed, and of whatever else went wrong twice."""
    said = " ".join(_said(error).split())[:200]
    if address:
        return ConfigError(f"the Ray cluster at {address} cannot be joined; see how it is (ray status): {said}")
    return ConfigError(
        f"Ray did not start in two tries; wait until this machine is less busy, or has more memory free, and try again "
        f"(its logs: {get_default_ray_temp_dir()}/session_latest/logs): {said}"
    )


def _said(error: BaseException | None) -> str:
    """What an error and those behind it say."""
    said = []
    while error is not None:
        said.append(str(error))
        error = error.__cause__ or error.__context__
    return "\n".join(said)
