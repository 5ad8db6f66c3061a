"""What HAProxy is to do otherwise than Ray's configuration says: its rules, as text.

    share       of connections and requests for each client, so that none shuts the others out
    arrival     time for headers, and for each 256 kB of a body
    again       a small request over which a replica dies is given to another
    closed      what Ray says of itself

Free of all but the standard library, since HAProxy waits for it at each of its starts.
"""

import ipaddress
import json
import os
import re
import resource
from pathlib import Path
from typing import Any, Final, NamedTuple

FRONTEND: Final = "http_frontend"
EDGE: Final = "/-/edge"
"""Where a replica says what HAProxy is to heed."""
LABELS: Final = "/v1/labels"
"""Where people's labels are sent: a request that changes something, and is never sent twice."""
UNBOUNDED: Final = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/metrics")
"""Paths that answer however many requests there are."""
WHOLE: Final = 2**18
"""Bytes of a request that is kept whole, to be given to another replica where one died over it."""
BODY_S: Final = 20
"""For how long so many bytes of a body may take to arrive."""
HEADERS_S: Final = 10
"""For how long the headers of a request may take."""
STALLED_S: Final = 60
"""After which a client that reads nothing of its answer is given up."""
CONNECTIONS: Final = 2048
"""At a time, where RAY_SERVE_HAPROXY_MAXCONN says nothing: each may hold two buffers of `WHOLE`."""
RESERVE: Final = 8
"""What part of the connections is for clients that have few."""
FEW: Final = 8
"""How many those are."""
HALF: Final = 2
"""What part one client may have, where it may be a proxy for all."""
QUARTER: Final = 4
"""Likewise, where the proxies are named."""
LEAST: Final = 4
"""Requests at a time that each client may have."""
HOPS: Final = 3
"""Trusted proxies in a row that are gone through."""
AGAIN_S: Final = 2
"""When to come again where no replica is there to answer."""
NOT_THERE: Final = (
    "{ status 404 } { srv_name -m beg SERVE_PROXY_ACTOR-fallback } { res.hdr(content-type) -m beg text/plain }"
)
"""What Ray's own proxy, which is asked where no replica is left, says of an application that is ending."""
MARK: Final = "# changed by cellnet-haproxy"
PROXIES: Final = "cellnet-proxies"
HOSTS: Final = "cellnet-hosts"
"""Files beside the configuration: networks, and names."""

_ANSWERS: Final = {
    404: ("Not Found", "this path is not open"),
    408: (
        "Request Timeout",
        f"the request did not arrive in time ({HEADERS_S} s for its headers, {BODY_S} s for each {WHOLE >> 10} kB of "
        "its body); send it again, or fewer images at a time",
    ),
    421: ("Misdirected Request", "this service has other names; start it with --allow-host to add one"),
    429: ("Too Many Requests", "this client has its share of requests; send fewer at a time, or try again"),
    503: (
        "Service Unavailable",
        "no process can answer now, since the service is busy, starts or ends; try again",
    ),
}


class Told(NamedTuple):
    """What the service wants HAProxy to heed."""

    proxies: tuple[str, ...]
    """Networks of the proxies whose X-Forwarded-For is believed."""
    hosts: tuple[str, ...]
    """Names that it answers to, in lower case; none: any."""
    queue: int
    """Requests at a time of all replicas."""
    prefix: str
    """Of the application's paths, without a slash at its end."""

    @classmethod
    def of(cls, said: dict[str, Any], replicas: int, prefix: str) -> "Told":
        """Checked, since it becomes lines of a configuration. Raises ValueError, KeyError or TypeError."""
        hosts = [str(host).lower() for host in said["hosts"]]
        if not all(re.fullmatch(r"[\w.:\[\]-]+", host) for host in hosts):
            raise ValueError(f"no names of hosts: {hosts}")
        proxies = (str(ipaddress.ip_network(one, strict=False)) for one in said["proxies"])
        return cls(tuple(proxies), tuple(hosts), int(said["queue"]) * replicas, prefix)


def replicas_of(config: str) -> list[tuple[str, int, str]]:
    """The replicas that a configuration of Ray's names: host, port, and the prefix of their application's paths."""
    prefixes = dict(re.findall(r"^\s*acl is_(\S+) path (\S+)$", config, re.MULTILINE))
    found, section = [], ""
    for line in config.splitlines():
        words = line.split()
        if line[:1].strip() and words[0] == "backend":
            section = words[1]
        elif words[:1] == ["server"] and section in prefixes and "backup" not in words:
            host, _, port = words[2].rpartition(":")
            found.append((host.strip("[]"), int(port), prefixes[section].rstrip("/")))
    return found


def sockets_of(config: str) -> list[str]:
    """Paths of the sockets that govern HAProxy."""
    return re.findall(r"^\s*stats socket (/\S+)", config, re.MULTILINE)


def answers(told: Told | None) -> dict[str, bytes]:
    """The files that `changed` refers to, by name: whole answers by status, and lists of what was told."""
    lists = {PROXIES: told.proxies if told else (), HOSTS: told.hosts if told else ()}
    return {
        **{f"cellnet-{status}.http": _answer(status) for status in _ANSWERS},
        **{name: "".join(f"{one}\n" for one in listed).encode() for name, listed in lists.items()},
    }


def changed(config: str, folder: Path, told: Told | None) -> str:
    """Ray's configuration of HAProxy, with what the service promises.

    A small request is kept until it is answered, and given to another replica where one dies over it: predictions
    change nothing. Labels do, and are not. Where no replica is left or there is no application, the answer is a 503
    that says when to come again; Ray's would be 500 and 404. HAProxy's own figures are for this machine alone; Ray
    has them on every interface, and its socket open to every user. `folder`: where the `answers` are.
    """
    if config.startswith(MARK):
        return config
    lines, section = [MARK], ""
    applications = re.search(r"^\s*use_backend ", config, re.MULTILINE)
    most = connections()
    for line in config.splitlines():
        word, _, rest = line.strip().partition(" ")
        if line[:1].strip() and word in ("global", "defaults", "frontend", "backend", "listen"):
            section = rest or word
        if word in ("tune.bufsize", "retry-on", "retries", "errorfile", "maxconn"):
            continue  # said below
        if section == "defaults" and rest.startswith(("client ", "http-request ")) and word == "timeout":
            continue
        if line.strip().startswith("stats socket "):
            line = re.sub(r" mode \d+", "", line) + " mode 600"
        elif word == "bind" and re.fullmatch(r"\*?:\d+", rest) and section != FRONTEND:
            line = line.replace(rest, f"127.0.0.1:{rest.rpartition(':')[2]}")
        elif rest.startswith("return status 404") and not applications:
            line = f"    http-request return status 503 errorfile {_file(folder, 503)}"
        lines.append(line)
        if word == "global":
            lines += [f"    tune.bufsize {WHOLE}", f"    maxconn {most + 100}"]  # some for figures
        elif word == "defaults":
            lines += [
                "    option disable-h2-upgrade",  # whose streams have no time for their headers
                "    retry-on conn-failure empty-response",
                "    retries 3",
                f"    timeout client {STALLED_S}s",
                f"    timeout http-request {HEADERS_S}s",
                f"    errorfile 408 {_file(folder, 408)}",
                *(f"    errorfile {status} {_file(folder, 503)}" for status in (502, 503, 504)),
            ]
        elif word == "bind" and section == FRONTEND:
            lines += [f"    {rule}" for rule in (*_shares(folder, told, most), *_promises(folder))]
    for table in ("connections", "requests", "all"):
        lines += [f"backend cellnet-{table}", "    stick-table type ipv6 size 20k expire 2m store conn_cur"]
    return "\n".join(lines) + "\n"


def connections() -> int:
    """How many there may be at a time: as the environment says, and as files may be open."""
    most = int(os.environ.get("RAY_SERVE_HAPROXY_MAXCONN", CONNECTIONS))
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return most if files == resource.RLIM_INFINITY else max(64, min(most, files // 2 - 300))


def _shares(folder: Path, told: Told | None, most: int) -> list[str]:
    """Rules by which no client shuts the others out; what Ray says of itself is closed, but for its health."""
    proxies = f"src -f {folder / PROXIES}"
    part = QUARTER if told and told.proxies else HALF
    closed = 404 if told else 503  # by which who starts a service knows that it is told
    rules = [
        f"maxconn {most}",
        f"acl cellnet_proxy {proxies}",
        "tcp-request connection track-sc0 src,ipmask(32,64) table cellnet-connections",
        f"tcp-request connection reject if {{ sc0_conn_cur gt {most // part} }} !cellnet_proxy",
        f"tcp-request connection reject if {{ fe_conn gt {most - most // RESERVE} }} {{ sc0_conn_cur gt {FEW} }} "
        "!cellnet_proxy",
        f"http-request return status {closed} errorfile {_file(folder, closed)} "
        "if { path,url_dec -i -m beg /-/ } !{ path /-/healthz }",
        "http-request set-var(txn.client) src",
        *(
            f"http-request set-var(txn.client) req.hdr_ip(x-forwarded-for,-{hop}) "
            f"if {{ var(txn.client) -m ip -f {folder / PROXIES} }} {{ req.hdr_ip(x-forwarded-for,-{hop}) -m found }}"
            for hop in range(1, HOPS + 1)
            if told and told.proxies
        ),
        "http-request set-header X-Forwarded-For %[var(txn.client)]",
    ]
    if told and told.hosts:
        named = f"{{ req.hdr(host),host_only,lower -m str -f {folder / HOSTS} }}"
        rules.append(f"http-request return status 421 errorfile {_file(folder, 421)} if {{ path /-/healthz }} !{named}")
    if told:
        free = " ".join(told.prefix + path for path in UNBOUNDED)
        each = max(LEAST, told.queue // part)
        rules += [
            f"acl cellnet_unbounded path {free}",
            "http-request track-sc1 var(txn.client),ipmask(32,64) table cellnet-requests "
            "unless METH_GET cellnet_unbounded",
            "http-request track-sc2 int(1) table cellnet-all unless METH_GET cellnet_unbounded",
            f"http-request deny status 429 errorfile {_file(folder, 429)} if {{ sc1_conn_cur gt {each} }}",
            f"http-request deny status 503 errorfile {_file(folder, 503)} if {{ sc2_conn_cur gt {2 * told.queue} }}",
        ]
    return rules


def _promises(folder: Path) -> list[str]:
    """Rules by which a request is kept, and where nobody is left to answer it."""
    return [
        f"http-request wait-for-body time {BODY_S}s if METH_POST",
        f"http-request disable-l7-retry if {{ path_end {LABELS} }}",
        f"http-response return status 503 errorfile {_file(folder, 503)} if {NOT_THERE}",
    ]


def _file(folder: Path, status: int) -> Path:
    return folder / f"cellnet-{status}.http"


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
        *([f"Retry-After: {AGAIN_S}"] if status in (429, 503) else []),
    ]
    return "\r\n".join([*head, "", ""]).encode() + body
