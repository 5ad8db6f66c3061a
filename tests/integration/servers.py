"""S3 servers that the tests can stop, kill and cut off: two real ones in processes of their own, and a proxy that fails
on demand.

    with PersistentServer(tmp_path) as server, FaultyProxy(server.address) as proxy:
        proxy.plan = lambda number, method, path: "lose" if method == "PUT" else None
        store = S3Store("s3://lab/prefix", endpoint_url=proxy.address)

All of them have start(), stop() and `address`, keep their port from one start to the next, and come with the bucket
`lab`. A test module takes them by `from .servers import PersistentServer`.
"""

import contextlib
import http.client
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import pytest

from .conftest import KEYS, OwnCluster

BUCKET = "lab"
HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "expect"}
FAULTS = ("drop", "lose", "503", "500", "cut", "slow", "trickle", "down", "gap")

# The server ends when the pipe to its standard input does, so it outlives the tests not even when they are killed.
ENDS_WITH_ITS_PARENT = """
import os, sys, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
"""


class _ServerProcess:
    """A server in a process group of its own; `folder` holds its data and its log."""

    program: str  # Python that serves until SIGTERM
    health: str  # a path that answers once the server is up, whatever the status

    def __init__(self, folder: Path, *, host: str = "127.0.0.1") -> None:
        """`host` is another address of this machine's than loopback, for machines of the tests' own."""
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "server.log"
        self.host = host
        self.port = OwnCluster.free_port()
        self.address = f"http://{host}:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait_s: float = 60) -> None:
        """Serve what the folder holds. Raises RuntimeError, with the log, if the server is not up in time."""
        if self._process is not None:
            raise RuntimeError(f"the server at {self.address} runs already; stop() or kill() it first")
        try:
            socket.create_server((self.host, self.port)).close()
        except OSError as error:
            raise RuntimeError(f"port {self.port} is somebody else's: {error.strerror}") from error
        self.data.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", ENDS_WITH_ITS_PARENT + self.program],
                env={"PATH": os.environ["PATH"], "PYTHONUTF8": "1", "TMPDIR": str(self.folder)} | self.environment(),
                cwd=self.folder,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end_s = time.monotonic() + wait_s
        try:
            while not self._answers():
                if self._process.poll() is not None:
                    raise RuntimeError(f"the server ended with {self._process.returncode}; {self._logged()}")
                if time.monotonic() > end_s:
                    raise RuntimeError(f"the server at {self.address} was not up in {wait_s:g} s; {self._logged()}")
                time.sleep(0.05)
            self._make_bucket()
        except BaseException:
            self.kill()
            raise

    def stop(self, *, wait_s: float = 15) -> None:
        """End it by SIGTERM, by SIGKILL if that takes too long. Nothing happens if it does not run."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(wait_s)
        self.kill()

    def kill(self) -> None:
        """End it and all that it started by SIGKILL, in the middle of whatever it does."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=15)
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def environment(self) -> dict[str, str]:
        return {}

    def _make_bucket(self) -> None:
        pass

    def _answers(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self._ask("GET", self.health) < 500
        return False

    def _ask(self, method: str, path: str) -> int:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request(method, path)
            return connection.getresponse().status

    def _logged(self) -> str:
        return f"{self.log} says:\n{self.log.read_text(errors='replace')[-8000:]}"


class PersistentServer(_ServerProcess):
    """ministack's S3 alone, which honours `If-None-Match: *` and has what it acknowledged after a SIGKILL too.

    It takes any credentials. Objects are files below `data/000000000000/BUCKET`, written before the answer; uploads
    in parts that are not complete, and buckets without an object (but for `lab`), are gone after a restart. A key
    below another (`a` and `a/b`), one that ends in `.meta.json` and a name over 241 bytes do not outlive it whole.
    """

    program = "from ministack.app import main\nmain()"
    health = "/_ministack/health"

    def environment(self) -> dict[str, str]:
        listen = {"BIND_HOST": self.host, "GATEWAY_PORT": str(self.port)}
        persist = {"S3_PERSIST": "1", "S3_DATA_DIR": str(self.data)}
        alone = {"SERVICES": "s3", "SFTP_ENABLED": "0", "IOT_MTLS_ENABLED": "0", "DOCKER_HOST": "unix:///none"}
        return listen | persist | alone

    def start(self, *, wait_s: float = 60) -> None:
        for half in self.data.rglob("*.tmp"):  # of a write that was killed: it would be listed as an object
            if half.is_file() and not half.with_name(f"{half.name}.meta.json").exists():
                half.unlink()
        super().start(wait_s=wait_s)

    def _make_bucket(self) -> None:
        if self._ask("HEAD", f"/{BUCKET}") != 200 and (status := self._ask("PUT", f"/{BUCKET}")) != 200:
            raise RuntimeError(f"the server did not make the bucket {BUCKET}: {status}; {self._logged()}")


class IgnoringServer(_ServerProcess):
    """nanio, which takes a new key twice whatever `If-None-Match` says: the server to refuse.

    It checks signatures, so only the credentials of the tests are let in.
    """

    program = "from nanio.cli import main\nsys.exit(main(['serve', '--host', '127.0.0.1']))"
    health = "/"

    def environment(self) -> dict[str, str]:
        keys = {"NANIO_ACCESS_KEY": KEYS["AWS_ACCESS_KEY_ID"], "NANIO_SECRET_KEY": KEYS["AWS_SECRET_ACCESS_KEY"]}
        return keys | {"NANIO_PORT": str(self.port), "NANIO_DATA_DIR": str(self.data)}

    def start(self, *, wait_s: float = 60) -> None:
        (self.data / BUCKET).mkdir(parents=True, exist_ok=True)  # a bucket is a folder
        super().start(wait_s=wait_s)


class FaultyProxy:
    """A server in front of another, which does to each request what `plan(number, method, path)` says.

    Numbers start at 0 and are positions in `asked`, the (method, path) of every request. A plan that gives None
    passes the request on. All others, each after the whole request was read:

        "drop"      resets the connection, and the server never hears of the request
        "lose"      passes the request on, then resets the connection instead of answering
        "503"       answers SlowDown with Retry-After, without asking the server
        "500"       answers InternalError, without asking the server
        "cut"       ends the connection halfway through the answer's body (or, without a body, its first line: clients
                    take half the headers for all of them)
        "slow"      answers `slow_s` seconds late
        "trickle"   sends the answer's body at `trickle_bytes_s`
        "down"      resets this connection and every other, and refuses new ones until up()
        "gap"       as a server that checks and then writes: answers `If-None-Match: *` by what is there; where
                    nothing is, passes the request on `slow_s` later, without the condition
    """

    def __init__(
        self,
        server: str,
        plan: Callable[[int, str, str], str | None] = lambda *_: None,
        *,
        slow_s: float = 2,
        trickle_bytes_s: float = 4,
    ) -> None:
        self.plan = plan
        self.slow_s = slow_s
        self.trickle_bytes_s = trickle_bytes_s
        self.asked: list[tuple[str, str]] = []
        self.port = OwnCluster.free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._server = urlsplit(server).netloc
        self._listener: _Listener | None = None
        self._lock = threading.RLock()
        self._errors: list[Exception] = []

    def start(self) -> None:
        self.up()

    def stop(self) -> None:
        """Refuse connections and reset those there are. Raises what the plan raised, if it did."""
        self.down()
        if self._errors:
            raise self._errors.pop()

    def up(self) -> None:
        """Listen (again)."""
        with self._lock:
            if self._listener is None:
                self._listener = _Listener(self)

    def down(self) -> None:
        """Refuse connections and reset those there are."""
        with self._lock:
            if self._listener is not None:
                self._listener.close()
                self._listener = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _fault(self, method: str, path: str) -> str | None:
        with self._lock:
            number = len(self.asked)
            self.asked.append((method, path))
        try:
            fault = self.plan(number, method, path)
            if fault is not None and fault not in FAULTS:
                raise ValueError(f"the plan gave {fault!r} for request {number}; it may give None or one of {FAULTS}")
        except Exception as error:  # raised again where the test sees it
            self._errors.append(error)
            return "drop"
        return fault


class _Listener(ThreadingHTTPServer):
    """The proxy's socket and connections from up() to down()."""

    request_queue_size = 128
    daemon_threads = True
    block_on_close = False

    def __init__(self, proxy: FaultyProxy) -> None:
        self.proxy = proxy
        self.closing = threading.Event()
        self._connections: set[socket.socket] = set()
        self._reset: set[socket.socket] = set()
        self._guard = threading.Lock()
        super().__init__(("127.0.0.1", proxy.port), _Connection)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()
        with self._guard:
            for connection in self._connections:
                self._reset.add(connection)
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)  # wakes its thread, and tells the client nothing

    def reset(self, connection: socket.socket) -> None:
        """Let the connection end by RST, once its thread is done with it."""
        with self._guard:
            self._reset.add(connection)

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        with self._guard:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
        with self._guard:
            self._connections.discard(request)
            reset = request in self._reset
            self._reset.discard(request)
        if reset:
            with contextlib.suppress(OSError):
                request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_request(request)
        else:
            super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that has gone is no error of the proxy's
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def answer(self) -> None:
        proxy = self.server.proxy
        body = self._request_body()
        if self.server.closing.is_set():  # the request came before this thread saw the end
            return self._end(reset=True)
        fault = proxy._fault(self.command, self.path)
        if fault == "down":
            proxy.down()
        if fault in ("drop", "down"):
            return self._end(reset=True)
        try:
            if fault in ("503", "500"):
                head, content = self._refusal(fault)
            elif fault == "gap" and self.headers["If-None-Match"]:
                head, content = self._checked_and_written(body)
            else:
                head, content = self._forward(self.command, body)
        except (OSError, http.client.HTTPException):  # the server behind is not there
            return self._end(reset=True)
        if fault == "slow":
            self.server.closing.wait(proxy.slow_s)
        if fault == "lose" or self.server.closing.is_set():
            return self._end(reset=True)
        if fault == "cut":
            self.wfile.write(head + content[: len(content) // 2] if content else head[: len("HTTP/1.1 2")])
            return self._end(reset=False)
        if fault == "trickle":
            self.wfile.write(head)
            for at in range(len(content)):
                if self.server.closing.wait(1 / proxy.trickle_bytes_s):
                    return self._end(reset=True)
                self.wfile.write(content[at : at + 1])
            return None
        self.wfile.write(head + content)
        return None

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_OPTIONS = answer

    def log_message(self, *_: object) -> None:
        pass

    def _end(self, *, reset: bool) -> None:
        self.close_connection = True
        if reset:
            self.server.reset(self.connection)

    def _request_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass
        return b"".join(chunks)

    def _checked_and_written(self, body: bytes) -> tuple[bytes, bytes]:
        del self.headers["If-None-Match"]
        there, _ = self._forward("HEAD", b"")
        if there.startswith(b"HTTP/1.1 200"):
            content = b"<Error><Code>PreconditionFailed</Code><Message>It is there.</Message></Error>"
            headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(content)))]
            return _head(412, "Precondition Failed", headers), content
        self.server.closing.wait(self.server.proxy.slow_s)
        return self._forward(self.command, body)

    def _forward(self, method: str, body: bytes) -> tuple[bytes, bytes]:
        """Head and body of the server's answer. Signatures hold, since Host and the headers are as they were."""
        connection = http.client.HTTPConnection(self.server.proxy._server, timeout=60)
        with contextlib.closing(connection):
            connection.putrequest(method, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in HOP_BY_HOP | {"content-length"}:
                    connection.putheader(name, value.encode("latin-1"))
            if method != "HEAD" and (body or "Content-Length" in self.headers or "Transfer-Encoding" in self.headers):
                connection.putheader("Content-Length", str(len(body)))
            connection.putheader("Connection", "close")
            connection.endheaders(body or None)
            response = connection.getresponse()
            content = response.read()
            headers = [(name, value) for name, value in response.getheaders() if name.lower() not in HOP_BY_HOP]
        if method != "HEAD" and response.status not in (204, 304):
            headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
            headers.append(("Content-Length", str(len(content))))
        return _head(response.status, response.reason, headers), content

    def _refusal(self, fault: str) -> tuple[bytes, bytes]:
        code, reason = ("SlowDown", "Slow Down") if fault == "503" else ("InternalError", "Internal Server Error")
        content = f"<Error><Code>{code}</Code><Message>Please try again.</Message></Error>".encode()
        headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(content)))]
        if fault == "503":
            headers.append(("Retry-After", "1"))
        return _head(int(fault), reason, headers), b"" if self.command == "HEAD" else content


def _head(status: int, reason: str, headers: list[tuple[str, str]]) -> bytes:
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def use_virtual_hosts(monkeypatch: pytest.MonkeyPatch, address: str, folder: Path) -> str:
    """The address to give a client that is to ask http://lab.s3.test/key and not http://s3.test/lab/key.

    The choice is made as a user makes it, in boto3's own configuration file (in the folder); names below s3.test
    lead to loopback, in this process, for as long as the monkeypatch lasts.
    """
    config = folder / "aws-config"
    config.write_text("[default]\ns3 =\n  addressing_style = virtual\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    resolve = socket.getaddrinfo

    def resolve_here(host: str | bytes | None, *rest: object, **named: object) -> list[tuple]:  # type: ignore[type-arg]
        here = isinstance(host, str) and f".{host}".endswith(".s3.test")
        return resolve("127.0.0.1" if here else host, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", resolve_here)
    return f"http://s3.test:{urlsplit(address).port}"
