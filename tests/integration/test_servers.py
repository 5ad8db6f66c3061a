"""The servers of servers.py do what the tests that use them rely on."""

import contextlib
import http.client
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest

from cellnet.errors import RegistryError
from cellnet.store.s3 import S3Store

from .servers import FaultyProxy, IgnoringServer, PersistentServer, use_virtual_hosts

pytestmark = pytest.mark.usefixtures("credentials")

BODY = bytes(range(256)) * 4


@pytest.fixture
def proxy(moto: str) -> Iterator[FaultyProxy]:
    """In front of the S3 server, where everybody may read the 1024 bytes of lab/faults."""
    client = S3Store("s3://lab", endpoint_url=moto).client
    client.put_object(Bucket="lab", Key="faults", Body=BODY, ACL="public-read")
    with FaultyProxy(moto, slow_s=0.3, trickle_bytes_s=50) as proxy:
        yield proxy


@contextlib.contextmanager
def asking(proxy: FaultyProxy, method: str, path: str, body: bytes | None = None) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20)
    with contextlib.closing(connection):
        connection.request(method, path, body=body)
        yield connection.getresponse()


def test_what_was_acknowledged_outlives_a_kill_and_half_a_write_is_no_object(tmp_path: Path) -> None:
    kept: list[str] = []
    with PersistentServer(tmp_path) as server:
        store = S3Store("s3://lab/kept #1", endpoint_url=server.address)
        stopped = threading.Event()

        def write(writer: int) -> None:
            for number in range(10_000):
                key = f"ж {writer}/{number:05}"
                try:
                    assert store.create(key, key.encode() * 20_000)
                except RegistryError:
                    return
                kept.append(key)
                if stopped.is_set():
                    return

        with ThreadPoolExecutor(3) as pool:
            done = [pool.submit(write, writer) for writer in range(3)]
            end = time.monotonic() + 30
            while len(kept) < 30 and time.monotonic() < end:
                time.sleep(0.01)
            server.kill()
            stopped.set()
        for future in done:
            future.result()
        server.start()
        listed = list(store.keys(""))
        assert len(kept) > 10 and set(kept) <= set(listed) and len(listed) <= len(kept) + 3
        assert all(store.get(key) == key.encode() * 20_000 for key in listed)
        assert not store.create(kept[0], b"again")


def test_a_server_that_does_not_come_up_shows_its_log(tmp_path: Path) -> None:
    server = PersistentServer(tmp_path)
    server.program = "raise SystemExit('no licence')"
    with pytest.raises(RuntimeError, match=r"(?s)ended with 1; .*no licence"):
        server.start()
    server.program = "import time; time.sleep(60)"
    with pytest.raises(RuntimeError, match=r"not up in 0\.5 s"):
        server.start(wait_s=0.5)


def test_a_server_ends_with_the_tests_even_if_they_are_killed(tmp_path: Path) -> None:
    server = PersistentServer(tmp_path)
    code = (
        "import pathlib, sys, time; from tests.integration.servers import PersistentServer\n"
        "server = PersistentServer(pathlib.Path(sys.argv[1])); server.start(); print(server.port, flush=True)\n"
        "time.sleep(60)"
    )
    tests = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE
    )
    server.port = int(tests.stdout.readline())
    assert server._ask("GET", server.health) == 200
    tests.kill()
    tests.communicate()
    end_s = time.monotonic() + 10
    with pytest.raises(ConnectionRefusedError):
        while time.monotonic() < end_s:
            with contextlib.suppress(ConnectionResetError, http.client.RemoteDisconnected):
                server._ask("GET", server.health)


def test_the_ignoring_server_takes_a_key_twice_and_checks_signatures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with IgnoringServer(tmp_path) as server, FaultyProxy(server.address) as proxy:
        for address in (server.address, proxy.address):
            client = S3Store("s3://lab", endpoint_url=address).client
            for body in (b"1", b"2"):
                client.put_object(Bucket="lab", Key="a b #ж", Body=body, IfNoneMatch="*")
            assert client.get_object(Bucket="lab", Key="a b #ж")["Body"].read() == b"2"
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
        with pytest.raises(RegistryError, match="SignatureDoesNotMatch"):
            S3Store("s3://lab", endpoint_url=proxy.address).get("a b #ж")


def test_a_proxy_without_faults_changes_nothing(proxy: FaultyProxy) -> None:
    store = S3Store("s3://lab/through", endpoint_url=proxy.address)
    large = os.urandom(1000) * 20_000
    assert store.create("a b #ж", large) and not store.create("a b #ж", b"")
    assert store.get("a b #ж") == large
    assert list(store.keys("")) == ["a b #ж"]
    assert store.client.head_object(Bucket="lab", Key="through/a b #ж")["ContentLength"] == len(large)
    ranged = store.client.get_object(Bucket="lab", Key="through/a b #ж", Range="bytes=1-3")
    assert (ranged["Body"].read(), ranged["ContentRange"]) == (large[1:4], "bytes 1-3/20000000")
    store.client.delete_object(Bucket="lab", Key="through/a b #ж")
    assert list(store.keys("")) == []
    asked = [method for method, path in proxy.asked if path == f"/lab/through/{quote('a b #ж')}"]
    assert asked == ["PUT", "PUT", "GET", "HEAD", "GET", "DELETE"]


@pytest.mark.parametrize(("fault", "landed"), [("drop", False), ("lose", True), ("down", False)])
def test_a_reset_comes_before_or_after_the_server_heard(
    proxy: FaultyProxy, moto: str, fault: str, landed: bool
) -> None:
    proxy.plan = lambda number, method, path: fault if number == 0 else None
    with pytest.raises(ConnectionResetError), asking(proxy, "PUT", f"/lab/reset/{fault}", b"x" * 1_000_000):
        pass
    assert list(S3Store("s3://lab/reset", endpoint_url=moto).keys(fault)) == [fault] * landed


def test_a_proxy_that_is_down_refuses_until_it_is_up(proxy: FaultyProxy) -> None:
    held = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20)
    held.request("GET", "/lab/faults")
    held.getresponse().read()
    proxy.down()
    with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected)):
        held.request("GET", "/lab/faults")
        held.getresponse()
    held.close()
    with pytest.raises(ConnectionRefusedError), asking(proxy, "GET", "/lab/faults"):
        pass
    proxy.up()
    with asking(proxy, "GET", "/lab/faults") as answer:
        assert answer.read() == BODY
    assert len(proxy.asked) == 2


@pytest.mark.parametrize(("fault", "status", "code"), [("503", 503, b"SlowDown"), ("500", 500, b"InternalError")])
def test_an_error_is_answered_in_the_servers_stead(proxy: FaultyProxy, fault: str, status: int, code: bytes) -> None:
    proxy.plan = lambda number, method, path: fault
    with asking(proxy, "PUT", "/lab/refused", b"x") as answer:
        assert answer.status == status and code in answer.read()
        assert answer.headers["Retry-After"] == ("1" if fault == "503" else None)
    with asking(proxy, "HEAD", "/lab/refused") as answer:
        assert (answer.status, answer.read()) == (status, b"")


def test_an_answer_is_cut_or_late_or_trickles(proxy: FaultyProxy) -> None:
    faults = iter(["cut", "cut", "slow", "trickle"])
    proxy.plan = lambda number, method, path: next(faults)
    with asking(proxy, "GET", "/lab/faults") as answer, pytest.raises(http.client.IncompleteRead) as caught:
        answer.read()
    assert caught.value.partial == BODY[:512]
    with pytest.raises(http.client.BadStatusLine), asking(proxy, "PUT", "/lab/cut", b"x"):
        pass
    start_s = time.monotonic()
    with asking(proxy, "GET", "/lab/faults") as answer:
        assert answer.read() == BODY
    assert time.monotonic() - start_s > 0.3
    start_s = time.monotonic()
    with asking(proxy, "GET", "/lab/faults") as answer:
        assert answer.read(20) == BODY[:20]
    assert 0.3 < time.monotonic() - start_s < 5


def test_a_mistake_in_a_plan_comes_out_where_the_test_sees_it(moto: str) -> None:
    proxy = FaultyProxy(moto, lambda *_: "dorp")
    proxy.start()
    with pytest.raises(ConnectionResetError), asking(proxy, "GET", "/lab/faults"):
        pass
    with pytest.raises(ValueError, match="dorp"):
        proxy.stop()


def test_virtual_hosts_are_asked_where_the_users_configuration_says_so(
    proxy: FaultyProxy, moto: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = S3Store("s3://lab/virtual", endpoint_url=use_virtual_hosts(monkeypatch, proxy.address, tmp_path))
    assert store.create("a b", b"x") and not store.create("a b", b"y")
    assert (store.get("a b"), list(store.keys(""))) == (b"x", ["a b"])
    assert ("GET", "/virtual/a%20b") in proxy.asked
    assert S3Store("s3://lab/virtual", endpoint_url=moto).get("a b") == b"x"
