"""The registry where things go wrong: many at once, killed, servers that fail, restart, or are not there."""

import functools
import json
import logging
import random
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cellnet.errors import ConfigError, IntegrityError, NotFoundError, RegistryError, UnavailableError
from cellnet.registry.blobs import fetch_blob, put_blobs
from cellnet.registry.cache import Cache
from cellnet.registry.exchange import import_version
from cellnet.registry.records import Card
from cellnet.registry.registry import Registry
from cellnet.registry.upkeep import DAY_S, Cleared, gc, verify
from cellnet.store import s3
from cellnet.store.place import Place
from cellnet.store.s3 import ATTEMPTS, S3Store
from cellnet.untrusted import WEIGHTS

from . import hammer
from .dies import weights
from .servers import FaultyProxy, PersistentServer

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

pytestmark = pytest.mark.usefixtures("credentials")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PersistentServer]:
    with PersistentServer(tmp_path / "server") as server:
        yield server


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PersistentServer]:
    """A server that nobody stops: each test has a place of its own in it."""
    with PersistentServer(tmp_path_factory.mktemp("steady")) as server:
        yield server


@pytest.fixture
def root() -> str:
    return f"s3://lab/{secrets.token_hex(8)}"


@pytest.fixture(scope="module")
def one_proxy(steady: PersistentServer) -> Iterator[FaultyProxy]:
    with FaultyProxy(steady.address) as proxy:
        yield proxy


@pytest.fixture
def proxy(one_proxy: FaultyProxy) -> FaultyProxy:
    """Without a fault planned yet."""
    one_proxy.up()
    one_proxy.slow_s = 0.3
    one_proxy.plan = lambda *_: None
    one_proxy.asked.clear()
    return one_proxy


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer is given up after seconds."""
    monkeypatch.setattr("cellnet.store.s3.READ_S", 1)
    monkeypatch.setattr("cellnet.store.s3.CONNECT_S", 1)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that failed are repeated without a pause."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)


@pytest.fixture
def files() -> dict[str, bytes]:
    return {WEIGHTS: weights(1), "notes.txt": b"one"}


@functools.cache
def _client(address: str, read_s: float) -> "S3Client":
    return S3Store("s3://lab", endpoint_url=address).client


def _opener(root: str, address: str) -> Callable[..., Registry]:
    """A registry opened anew each time, but for the connections, since making a client takes long."""
    client = _client(address, s3.READ_S)

    def open_(prefix: str = "registry") -> Registry:
        registry = Registry.open(Place(f"{root}/{prefix}", address))
        registry.store._client = client  # type: ignore[attr-defined]
        return registry

    return open_


@pytest.fixture
def behind(root: str, proxy: FaultyProxy) -> Callable[..., Registry]:
    """A fresh registry, as a new process would open it, behind the proxy."""
    return _opener(root, proxy.address)


@pytest.fixture
def straight(root: str, steady: PersistentServer) -> Callable[..., Registry]:
    """The same, past the proxy."""
    return _opener(root, steady.address)


def _whole(registry: Registry) -> list[str]:
    """What is there; all of it is sound."""
    found = list(verify(registry))
    assert [finding for finding in found if finding.problem] == []
    return [finding.what for finding in found]


@pytest.mark.parametrize("place", ["folder", "server"])
def test_what_sixteen_processes_are_told_is_there(
    place: str, tmp_path: Path, server: PersistentServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.address)
    uri, operations = {"folder": (str(tmp_path / "registry"), 40), "server": ("s3://lab/registry", 12)}[place]
    said = hammer.said_by(hammer.start(uri, 16, operations))
    found = hammer.outcome(Registry.open(uri), said)
    assert found.wrong == []
    assert found.said["publish"] == found.versions > 16 * operations / 3 and found.moves > operations / 4


@pytest.mark.parametrize("place", ["folder", "server"])
def test_what_was_told_is_there_after_processes_and_server_were_killed(
    place: str, tmp_path: Path, server: PersistentServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.address)
    uri = {"folder": str(tmp_path / "registry"), "server": "s3://lab/registry"}[place]
    rng = random.Random(place)
    processes = hammer.start(uri, 6, 100_000)
    registry = Registry.open(uri)
    end = time.monotonic() + 60
    while not registry.names() and time.monotonic() < end:
        time.sleep(0.2)
    for process in processes[:-2]:
        time.sleep(rng.uniform(0.1, 0.6))
        process.kill()
    if place == "server":
        server.kill()  # while two are at it, who go on if it is back in time
        server.start()
    time.sleep(0.5)
    for process in processes[-2:]:
        process.kill()
    said = hammer.said_by(processes, killed=True)
    found = hammer.outcome(registry, said, killed=True)
    assert found.wrong == [] and found.said["publish"] > 6
    assert found.versions - found.said["publish"] <= 6  # each was killed in at most one publishing
    cleared = gc(registry)
    assert cleared.trashed <= 6
    assert hammer.outcome(registry, said, killed=True).wrong == []


@pytest.mark.parametrize("place", ["folder", "server"])
def test_a_process_may_die_at_any_call(
    place: str, tmp_path: Path, server: PersistentServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.address)
    uri, every = {"folder": (str(tmp_path / "registry"), 1), "server": ("s3://lab/registry", 5)}[place]
    command = [sys.executable, "-m", "tests.integration.dies", uri, str(every)]
    done = subprocess.run(command, cwd=hammer.ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["wrong"] == []
    assert sum(outcome["points"].values()) > 40 / every and outcome["points"]["gc"] > 10 / every


def test_a_server_that_restarts_in_the_middle_has_everything(
    server: PersistentServer, files: dict[str, bytes], card: Callable[..., Card]
) -> None:
    registry = Registry(S3Store("s3://lab/registry", endpoint_url=server.address))
    for number in range(3):
        assert registry.publish("regressor", {WEIGHTS: weights(number)}, card()).number == number + 1
        registry.promote(f"regressor@{number + 1}", "champion")
        (server.kill if number % 2 else server.stop)()
        with pytest.raises(UnavailableError, match=r"Could not connect .*; try again later"):
            registry.publish("regressor", files, card())
        server.start()
        assert registry.resolve("regressor:champion").number == number + 1
    assert _whole(registry) == ["regressor@3", "regressor@2", "regressor@1", "regressor:champion"]


STEPS: dict[str, Callable[[Registry, dict[str, bytes], Card], object]] = {
    "publish": lambda registry, files, card: registry.publish("regressor", files, card).ref,
    "promote": lambda registry, files, card: registry.promote("regressor@1", "champion").entry,
    "resolve": lambda registry, files, card: registry.resolve("regressor:champion").ref,
    "read": lambda registry, files, card: registry.read(registry.resolve("regressor@2"), WEIGHTS),
    "list": lambda registry, files, card: [one.ref for one in registry.versions()],
    "gc": lambda registry, files, card: gc(registry).trashed,
    "import": lambda registry, files, card: import_version(registry, registry, "regressor@2", name="copy").ref,
}
AGAIN = ("drop", "lose", "503", "500", "cut", "slow")
"""Faults that a second request mends."""


@pytest.mark.parametrize("step", STEPS)
def test_one_fault_at_any_request_changes_nothing(
    step: str,
    proxy: FaultyProxy,
    behind: Callable[..., Registry],
    straight: Callable[..., Registry],
    files: dict[str, bytes],
    card: Callable[..., Card],
    monkeypatch: pytest.MonkeyPatch,
    at_once: None,
) -> None:
    monkeypatch.setenv("CELLNET_CACHE", "")

    def prepare(prefix: str) -> Registry:
        registry = straight(prefix)
        for number in (1, 2):
            registry.publish("regressor", {WEIGHTS: weights(number)}, card())
            registry.promote(f"regressor@{number}", "champion")
        put_blobs(registry.store, "regressor", {"left": b"left"})
        return behind(prefix)

    undisturbed = prepare("undisturbed")
    undisturbed.store.create("probed", b"")  # what may go wrong with that is tested in test_store_s3.py
    proxy.asked.clear()
    wanted, requests = STEPS[step](undisturbed, files, card()), len(proxy.asked)
    state = _whole(straight("undisturbed"))
    for fault in AGAIN if step in ("publish", "promote", "resolve") else ("lose", "503"):
        for number in range(requests):
            registry = prepare(f"{fault}-{number}")
            proxy.asked.clear()
            proxy.plan = lambda asked, *_, number=number, fault=fault: fault if asked == number else None
            assert STEPS[step](registry, files, card()) == wanted, (fault, number)
            assert _whole(straight(f"{fault}-{number}")) == state, (fault, number)


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        *((step, fault) for step in STEPS for fault in AGAIN if fault != "slow"),
        ("publish", "slow"),
        ("resolve", "slow"),
    ],
)
def test_faults_that_do_not_end_are_told_in_one_line_and_leave_no_half_state(
    step: str,
    fault: str,
    quick: None,
    proxy: FaultyProxy,
    behind: Callable[[], Registry],
    straight: Callable[[], Registry],
    files: dict[str, bytes],
    card: Callable[..., Card],
    monkeypatch: pytest.MonkeyPatch,
    at_once: None,
) -> None:
    monkeypatch.setenv("CELLNET_CACHE", "")
    for number in (1, 2):
        straight().publish("regressor", {WEIGHTS: weights(number)}, card())
        straight().promote(f"regressor@{number}", "champion")
    proxy.slow_s = 1.3
    proxy.plan = lambda *_: fault
    start_s = time.monotonic()
    with pytest.raises(UnavailableError, match=r"; try again later$") as caught:
        STEPS[step](behind(), files, card())
    assert time.monotonic() - start_s < 30 and len(proxy.asked) <= ATTEMPTS * (
        1 + (fault == "cut")
    )  # what is cut was done
    assert "\n" not in str(caught.value)
    proxy.plan = lambda *_: None
    assert set(_whole(straight())) >= {"regressor@2", "regressor@1", "regressor:champion"}
    STEPS[step](behind(), files, card())


def test_retries_wait_longer_each_time_and_at_random(
    proxy: FaultyProxy, behind: Callable[[], Registry], monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("botocore.endpoint.time.sleep", waited.append)
    proxy.plan = lambda *_: "503"
    for _ in range(6):
        with pytest.raises(UnavailableError):
            behind().resolve("regressor@1")
    assert len(waited) == 6 * (ATTEMPTS - 1) and len(set(waited)) == len(waited)
    assert max(waited[::3]) <= 1 and max(waited[1::3]) <= 2 and max(waited[2::3]) <= 4


def test_what_was_resolved_is_there_while_the_store_is_not(
    proxy: FaultyProxy,
    behind: Callable[[], Registry],
    card: Callable[..., Card],
    caplog: pytest.LogCaptureFixture,
) -> None:
    for number in (1, 2):
        behind().publish("regressor", {WEIGHTS: weights(number)}, card())
        behind().promote(f"regressor@{number}", "champion")
    seen = behind().resolve("regressor:champion")
    assert behind().read(seen, WEIGHTS) == weights(2)
    behind().publish("regressor", {WEIGHTS: weights(3)}, card())
    proxy.down()
    with caplog.at_level(logging.WARNING):
        kept = behind().resolve("regressor:champion")
    assert kept == seen and behind().read(kept, WEIGHTS) == weights(2)
    assert "going on with what regressor/aliases/champion was when last asked" in caplog.text
    for use in (
        lambda: behind().resolve("regressor@3"),  # which nobody here has ever read
        lambda: behind().promote("regressor@2", "challenger"),
        lambda: behind().rollback("regressor", "champion"),
        lambda: behind().publish("regressor", {WEIGHTS: b"x"}, card()),
    ):
        with pytest.raises(UnavailableError):
            use()
    proxy.up()
    behind().promote("regressor@1", "champion")
    assert behind().resolve("regressor:champion").number == 1


def test_a_store_that_answers_is_believed_over_the_cache(
    behind: Callable[[], Registry], card: Callable[..., Card]
) -> None:
    behind().publish("regressor", {WEIGHTS: weights(1)}, card())
    behind().promote("regressor@1", "champion")
    assert behind().read(behind().resolve("regressor:champion"), WEIGHTS) == weights(1)
    for key in list(behind().store.keys("")):  # somebody begins anew at the same place
        behind().store.delete(key)
    with pytest.raises(NotFoundError, match="it is empty"):
        behind().resolve("regressor:champion")
    behind().publish("regressor", {WEIGHTS: weights(5)}, card())
    assert behind().read(behind().resolve("regressor@1"), WEIGHTS) == weights(5)


def test_a_blob_that_was_read_is_not_asked_for_again(
    proxy: FaultyProxy, behind: Callable[[], Registry], tmp_path: Path, card: Callable[..., Card]
) -> None:
    version = behind().publish("regressor", {WEIGHTS: weights(1)}, card())
    behind().read(version, WEIGHTS)
    proxy.asked.clear()
    assert behind().read(version, WEIGHTS) == weights(1) and proxy.asked == []
    (kept,) = (tmp_path / "cache/blobs").iterdir()
    assert kept.parent.parent.stat().st_mode & 0o777 == 0o700
    kept.write_bytes(b"rotten")
    assert behind().read(version, WEIGHTS) == weights(1) and len(proxy.asked) == 1
    assert kept.read_bytes() == weights(1)


def test_a_cache_that_cannot_be_written_is_done_without(
    behind: Callable[[], Registry], tmp_path: Path, card: Callable[..., Card], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CELLNET_CACHE", str(tmp_path / "file"))
    version = behind().publish("regressor", {WEIGHTS: weights(1)}, card())
    assert behind().read(behind().resolve(version.ref), WEIGHTS) == weights(1)


def test_the_cache_drops_what_was_not_used_for_longest(tmp_path: Path) -> None:
    import hashlib
    import os

    cache = Cache(tmp_path, S3Store("s3://lab/x"), most_bytes=25)
    blobs = {hashlib.sha256(data).hexdigest(): data for data in (b"0" * 10, b"1" * 10, b"2" * 10)}
    for age, (sha256, data) in enumerate(blobs.items()):
        cache.keep_blob(sha256, data)
        os.utime(tmp_path / f"blobs/{sha256}", (time.time() - 100 + age,) * 2) if age < 2 else None
    assert [cache.blob(sha256) is not None for sha256 in blobs] == [False, True, True]


def test_requests_are_few_and_do_not_grow(
    proxy: FaultyProxy, behind: Callable[[], Registry], card: Callable[..., Card]
) -> None:
    def asked(use: Callable[[Registry], object]) -> int:
        registry = behind()
        proxy.asked.clear()
        use(registry)
        return len(proxy.asked)

    behind().publish("regressor", {"notes.txt": b"first"}, card())
    behind().promote("regressor@1", "champion")
    for turn in (b"1", b"2"):
        four = {f"{name}.txt": name.encode() + turn for name in "abcd"}
        assert asked(lambda registry, four=four: registry.publish("regressor", four, card())) == len(four) + 2
        # What is there already is looked at, too.
        assert asked(lambda registry, four=four: registry.publish("regressor", four, card())) == 2 * len(four) + 2
        assert asked(lambda registry: registry.resolve("regressor:champion")) == 3
        assert asked(lambda registry: registry.resolve("regressor@1")) == 1
        listed = asked(lambda registry: list(registry.versions(newest=2)))
        record = behind().store.get("regressor/versions/000001.json")
        for number in range(len(list(behind().store.keys("regressor/versions/"))) + 1, 900):
            version = record.replace(b'"number": 1', b'"number": %d' % number)
            behind().store.put(f"regressor/versions/{number:06d}.json", version)
    assert listed == 8  # models; newest version, twice; aliases, the newest move and what it says; two versions


CORRUPTIONS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "a flipped byte of a blob": ("blob", lambda data: data[:20] + bytes([data[20] ^ 1]) + data[21:]),
    "a truncated blob": ("blob", lambda data: data[:-1]),
    "an empty blob": ("blob", lambda data: b""),
    "a longer blob": ("blob", lambda data: data + b"\0"),
    "a pickle": ("blob", lambda data: b"\x80\x04N."),
    "a truncated record": ("version", lambda data: data[:-20]),
    "an empty record": ("version", lambda data: b""),
    "a record that is no object": ("version", lambda data: b"[]"),
    "a record of bytes": ("version", lambda data: bytes(range(256))),
    "a deep record": ("version", lambda data: b"[" * 100_000),
    "an unknown key": ("version", lambda data: data.replace(b'"name"', b'"nom"', 1)),
    "another number": ("version", lambda data: data.replace(b'"number": 1', b'"number": 2')),
    "another name": ("version", lambda data: data.replace(b'"name": "regressor"', b'"name": "../../etc"')),
    "a path": ("version", lambda data: data.replace(b'"sha256": "', b'"sha256": "../../', 1)),
    "an absolute path": ("version", lambda data: data.replace(b'"sha256": "', b'"sha256": "/', 1)),
    "a negative size": ("version", lambda data: data.replace(b'"size": ', b'"size": -', 1)),
    "a size of terabytes": ("version", lambda data: data.replace(b'"size": ', b'"size": 9999999999', 1)),
    "a size a little off": ("version", lambda data: data.replace(b'"size": ', b'"size": 1', 1)),
    "a move to nowhere": ("move", lambda data: data.replace(b'"number": 1', b'"number": 9')),
    "a move that is no number": ("move", lambda data: data.replace(b'"number": 1', b'"number": "../1"')),
    "a move of another alias": ("move", lambda data: data.replace(b'"champion"', b'"challenger"')),
    "an empty move": ("move", lambda data: b""),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_what_was_tampered_with_is_refused(
    name: str, behind: Callable[[], Registry], card: Callable[..., Card], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELLNET_CACHE", "")
    version = behind().publish("regressor", {WEIGHTS: weights(1)}, card())
    behind().publish("regressor", {WEIGHTS: weights(2)}, card())
    behind().promote("regressor@1", "champion")
    where, change = CORRUPTIONS[name]
    key = {
        "blob": f"regressor/blobs/{version.blobs[WEIGHTS].sha256}",
        "version": "regressor/versions/000001.json",
        "move": "regressor/aliases/champion/000001.json",
    }[where]
    before = behind().store.get(key)
    assert change(before) != before
    behind().store.put(key, change(before))
    with pytest.raises((IntegrityError, NotFoundError)) as caught:
        behind().read(behind().resolve("regressor:champion"), WEIGHTS)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert any(finding.problem for finding in verify(behind()))
    assert behind().read(behind().resolve("regressor@2"), WEIGHTS) == weights(2)


def test_blobs_that_changed_places_are_refused(behind: Callable[[], Registry], card: Callable[..., Card]) -> None:
    one, two = (behind().publish("regressor", {WEIGHTS: weights(number)}, card()) for number in (1, 2))
    keys = [f"regressor/blobs/{version.blobs[WEIGHTS].sha256}" for version in (one, two)]
    data = [behind().store.get(key) for key in keys]
    for key, other in zip(keys, reversed(data), strict=True):
        behind().store.put(key, other)
    for version in (one, two):
        with pytest.raises(IntegrityError, match="is damaged"):
            behind().read(version, WEIGHTS)


def test_a_version_goes_from_a_folder_into_a_bucket(
    tmp_path: Path, behind: Callable[[], Registry], card: Callable[..., Card]
) -> None:
    folder = Registry.open(str(tmp_path / "registry"))
    folder.publish("regressor", {WEIGHTS: weights(7)}, card())
    copy = import_version(behind(), folder, "regressor@1")
    assert behind().read(behind().resolve(copy.ref), WEIGHTS) == weights(7)
    back = import_version(Registry.open(str(tmp_path / "other")), behind(), copy.ref, name="back")
    assert back.ref == "back@1" and back.origin is not None and back.origin.registry == behind().store.uri


@pytest.mark.parametrize("fault", AGAIN)
def test_a_first_publishing_that_meets_a_fault_is_published_once(
    fault: str,
    proxy: FaultyProxy,
    behind: Callable[..., Registry],
    straight: Callable[..., Registry],
    files: dict[str, bytes],
    card: Callable[..., Card],
    at_once: None,
) -> None:
    for number in range(6):  # two probes, two blobs, the listing, the record
        proxy.asked.clear()
        proxy.plan = lambda asked, *_, number=number: fault if asked == number else None
        assert behind(f"{fault}-{number}").publish("regressor", files, card()).number == 1
        assert _whole(straight(f"{fault}-{number}")) == ["regressor@1"]


def test_a_server_that_forgets_half_an_upload_gets_it_again(
    server: PersistentServer, card: Callable[..., Card], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cellnet.store.s3.PART_BYTES", 5 * 2**20)
    monkeypatch.setattr("cellnet.registry.blobs.LARGE_BYTES", 10 * 2**20)
    straight = _opener("s3://lab/registry", server.address)
    registry = straight()
    restarts, alone = iter([server.kill, server.start]), threading.Lock()

    def restart(**_: object) -> None:
        with alone:  # parts are sent side by side
            for do in restarts:
                do()

    registry.store.client.meta.events.register("before-call.s3.UploadPart", restart)
    data = np.random.default_rng(0).bytes(11 * 2**20)
    version = registry.publish("regressor", {"large.bin": data}, card())
    assert next(restarts, None) is None
    assert fetch_blob(straight().store, version, "large.bin") == data


def test_the_last_good_answer_is_kept_when_a_damaged_one_comes(
    proxy: FaultyProxy, behind: Callable[..., Registry], card: Callable[..., Card]
) -> None:
    behind().publish("regressor", {WEIGHTS: weights(1)}, card())
    behind().promote("regressor@1", "champion")
    good = behind().resolve("regressor:champion")
    behind().store.put("regressor/versions/000001.json", b"{}")
    with pytest.raises(IntegrityError):
        behind().resolve("regressor:champion")
    proxy.down()
    assert behind().resolve("regressor:champion") == good


def test_servers_of_one_name_share_no_answers(
    behind: Callable[..., Registry], card: Callable[..., Card], monkeypatch: pytest.MonkeyPatch
) -> None:
    behind().publish("regressor", {WEIGHTS: weights(1)}, card())
    behind().resolve("regressor@1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UnavailableError):
        Registry.open("s3://lab/registry").resolve("regressor@1")


def test_credentials_that_cannot_be_had_are_told_without_what_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moto: str
) -> None:
    (tmp_path / "config").write_text("[default]\ncredential_process = sh -c 'echo SECRETX >&2; exit 1'\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(ConfigError, match="S3 credentials could not be had") as caught:
        Registry.open(Place("s3://lab/registry", moto)).resolve("regressor@1")
    assert "SECRETX" not in str(caught.value)
    expired = {"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "b", "SessionToken": "c"}
    (tmp_path / "expired").write_text(json.dumps(expired | {"Expiration": "2020-01-01T00:00:00Z"}))
    (tmp_path / "config").write_text(f"[default]\ncredential_process = cat {tmp_path / 'expired'}\n")
    with pytest.raises(RegistryError, match="refreshed credentials are still expired"):
        Registry.open(Place("s3://lab/registry", moto)).resolve("regressor@1")


def test_what_is_old_is_told_by_the_clock_of_the_server(
    straight: Callable[..., Registry], card: Callable[..., Card], monkeypatch: pytest.MonkeyPatch
) -> None:
    straight().publish("regressor", {WEIGHTS: weights(1)}, card())
    put_blobs(straight().store, "regressor", {"left": b"left"})
    assert abs(straight().store.now() - time.time()) < 5  # of the same machine
    assert gc(straight()) == Cleared(trashed=1)
    now = time.time()
    monkeypatch.setattr("cellnet.registry.upkeep.time.time", lambda: now + 30 * DAY_S)
    assert gc(straight()) == Cleared()  # only this machine thinks that a month has passed


def test_a_server_that_does_not_say_the_time_is_named(
    proxy: FaultyProxy, behind: Callable[..., Registry], card: Callable[..., Card]
) -> None:
    registry = behind()
    registry.publish("regressor", {WEIGHTS: weights(1)}, card())
    events = registry.store.client.meta.events  # type: ignore[attr-defined]

    def without_date(parsed: dict[str, Any], **_: object) -> None:
        parsed["ResponseMetadata"]["HTTPHeaders"].pop("date", None)

    events.register("after-call.s3.ListObjectsV2", without_date)
    try:
        with pytest.raises(RegistryError, match="does not say what time it is"):
            gc(registry)
    finally:
        events.unregister("after-call.s3.ListObjectsV2", without_date)
