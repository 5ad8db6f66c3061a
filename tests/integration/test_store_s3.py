"""One contract for folders and S3: the same tests over a folder, moto and ministack, both on loopback."""

import itertools
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellnet.bank.bank import Bank
from cellnet.bank.labels import Label
from cellnet.bank.prepare import prepare
from cellnet.bank.upkeep import DAY_S, clear
from cellnet.errors import CellnetError, ConfigError, ConflictError, IntegrityError, NotFoundError, RegistryError
from cellnet.images.file import ImageFile, encode_png
from cellnet.readers import LabelledFile
from cellnet.registry.records import AliasMove, Card
from cellnet.registry.registry import Registry
from cellnet.registry.upkeep import verify
from cellnet.store.folder import FolderStore
from cellnet.store.lease import Lease
from cellnet.store.objects import Store
from cellnet.store.place import Place, open_store
from cellnet.store.s3 import PROBE_KEY, S3Store
from cellnet.store.verdict import CREATORS, ROUNDS
from cellnet.untrusted import WEIGHTS
from tests.factories import frame

from .servers import FaultyProxy, IgnoringServer, PersistentServer, use_virtual_hosts

pytestmark = pytest.mark.usefixtures("credentials")

NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PersistentServer]:
    """A persistent S3 server."""
    with PersistentServer(tmp_path_factory.mktemp("ministack")) as server:
        yield server


@pytest.fixture(params=["folder", "bucket", "prefix", "ministack"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place of each kind, found through AWS_ENDPOINT_URL_S3 where it is a bucket."""
    if request.param == "folder":
        return str(tmp_path / "store")
    if request.param == "ministack":
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", request.getfixturevalue("ministack").address)
        return f"s3://lab/plates #1/{next(NUMBERS)}"
    address = request.getfixturevalue("moto")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
    if request.param == "prefix":
        return f"s3://lab/plates #1/{next(NUMBERS)}"
    bucket = f"whole-{next(NUMBERS)}"
    S3Store("s3://lab").client.create_bucket(Bucket=bucket)
    return f"s3://{bucket}"


@pytest.fixture
def store(place: str, request: pytest.FixtureRequest) -> Store:
    """A store at the place; the server that keeps what it has is killed and started again in the middle of a test."""
    store = open_store(place)
    if request.node.callspec.params["place"] == "ministack":
        server, asked = request.getfixturevalue("ministack"), itertools.count(1)

        def restart(model: Any, params: dict[str, Any], **_: object) -> None:
            # Not while parts, or the probe's objects, are sent side by side: they may give up before it is there again.
            if model.name != "UploadPart" and PROBE_KEY not in params["url_path"] and next(asked) in (3, 6):
                server.kill()
                server.start()

        store.client.meta.events.register("before-call.s3", restart)
    return store


@pytest.fixture
def refusing() -> Iterator[Callable[..., str]]:
    """`refusing(status, body)`: the address of a server that answers every request alike, or `only` those with a
    header; `refusing.asked` is what it was asked."""
    servers = []
    asked: list[tuple[str, str]] = []

    def start(status: int, body: bytes = b"", only: str = "") -> str:
        class Alike(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                asked.append((self.command, self.path))
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                refused = not only or only in self.headers
                self.send_response(status if refused else 200)
                self.send_header("Content-Length", str(len(body)) if refused else "0")
                self.end_headers()
                self.wfile.write(body if refused else b"")

            do_GET = do_PUT = answer

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Alike)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    start.asked = asked
    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def refusal(kind: type[CellnetError], use: Callable[[], object]) -> str:
    """The message, of one line and soon."""
    start_s = time.monotonic()
    with pytest.raises(kind) as caught:
        use()
    assert time.monotonic() - start_s < 15
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_put_is_got_and_replaced(store: Store) -> None:
    store.put("a/b", b"one")
    store.put("a/b", b"two")
    store.put("empty", b"")
    assert (store.get("a/b"), store.get("empty")) == (b"two", b"")


def test_a_key_that_is_not_there_is_not_found(store: Store) -> None:
    store.put("a/b", b"x")
    for key in ("a", "a/c", "a/b/c"):
        assert key in refusal(NotFoundError, lambda key=key: store.get(key))


def test_creating_writes_only_once(store: Store) -> None:
    assert store.create("a/b", b"first")
    assert not store.create("a/b", b"second")
    assert store.get("a/b") == b"first"


def test_keys_are_listed_in_order_by_prefix(store: Store) -> None:
    for key in ("b/2", "a/10", "a/09", "a/sub/1", "ab", "b/1"):
        store.create(key, b"x")
    assert list(store.keys("")) == ["a/09", "a/10", "a/sub/1", "ab", "b/1", "b/2"]
    assert list(store.keys("a/")) == ["a/09", "a/10", "a/sub/1"]
    assert list(store.keys("a")) == ["a/09", "a/10", "a/sub/1", "ab"]
    assert list(store.keys("a/1")) == ["a/10"]
    assert list(store.keys("c/")) == []


def test_keys_are_listed_from_one_on(store: Store) -> None:
    for key in ("a/1", "a/2", "a/3", "b/1"):
        store.put(key, b"x")
    assert list(store.keys("a/", after="a/1")) == ["a/2", "a/3"]
    assert list(store.keys("a/", after="a/25")) == ["a/3"]
    assert list(store.keys("a/", after="a/3")) == []


def test_what_is_listed_has_its_size_and_time(store: Store) -> None:
    before = time.time()
    store.put("a/1", b"123")
    (entry,) = store.entries("a/")
    assert entry.size == 3 and before - 2 <= entry.modified <= time.time() + 2


def test_folders_are_what_is_directly_below(store: Store) -> None:
    for key in ("a", "b/1", "b/c/2", "bb/1", "d/e/f/3"):
        store.put(key, b"x")
    assert store.folders("") == ["b", "bb", "d"]
    assert store.folders("b/") == ["c"]
    assert store.folders("b") == ["b", "bb"]
    assert store.folders("nowhere/") == []


def test_what_is_deleted_is_gone_and_its_key_is_free(store: Store) -> None:
    store.create("a/b", b"x")
    store.delete("a/b")
    store.delete("a/b")
    assert list(store.keys("")) == [] and store.create("a/b", b"y")


def test_more_than_was_expected_is_not_read(store: Store) -> None:
    store.put("a/b", b"x" * 100)
    assert store.get("a/b", limit=100) == b"x" * 100
    assert "has 100 bytes, and at most 99 are expected" in refusal(IntegrityError, lambda: store.get("a/b", limit=99))


def test_large_objects_are_put_in_parts_that_are_seen_as_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellnet.store.s3.PART_BYTES", 5 * 2**20)  # the least that S3 takes
    data, other = np.random.default_rng(0).bytes(12 * 2**20), b"y" * (11 * 2**20)
    assert store.create("blobs/large", data)
    assert not store.create("blobs/large", other)
    assert store.get("blobs/large") == data
    store.put("blobs/large", other)
    assert store.get("blobs/large") == other
    assert store.sweep("", time.time() + 60) == 0


def test_what_is_created_once_is_one_request_whatever_its_size(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellnet.store.s3.PART_BYTES", 5 * 2**20)
    store = S3Store("s3://lab/large", endpoint_url=moto)
    with FaultyProxy(moto) as proxy:
        behind = S3Store("s3://lab/large", endpoint_url=proxy.address)
        behind.create("small", b"x")
        proxy.asked.clear()
        assert behind.create("created", b"x" * (11 * 2**20))
        assert proxy.asked == [("PUT", "/lab/large/created")]  # no upload whose completion knows no condition
        behind.put("put", b"x" * (11 * 2**20))
        assert len(proxy.asked) == 1 + 1 + 3 + 1
    assert store.get("created") == store.get("put")


def test_an_upload_that_was_never_completed_is_not_seen_and_can_be_swept(ministack: PersistentServer) -> None:
    store = S3Store("s3://lab/unfinished", endpoint_url=ministack.address)
    store.put("whole", b"x")
    place = {"Bucket": "lab", "Key": "unfinished/half"}
    upload = store.client.create_multipart_upload(**place)["UploadId"]
    store.client.upload_part(**place, UploadId=upload, PartNumber=1, Body=b"x")
    store.client.create_multipart_upload(Bucket="lab", Key="elsewhere/half")
    assert list(store.keys("")) == ["whole"]
    assert store.sweep("", time.time() - 3600) == 0
    assert store.sweep("", time.time() + 3600) == 1
    assert [one["Key"] for one in store.client.list_multipart_uploads(Bucket="lab")["Uploads"]] == ["elsewhere/half"]


def test_of_eight_who_create_a_key_at_once_one_wins(store: Store, place: str) -> None:
    writers = [open_store(place) for _ in range(8)]
    for round_ in range(3):
        start = threading.Barrier(8)

        def race(number: int, key: str = f"race/{round_}", start: threading.Barrier = start) -> bool:
            start.wait()
            return writers[number].create(key, b"%d" % number)

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(race, range(8)))
        assert won.count(True) == 1
        assert store.get(f"race/{round_}") == b"%d" % won.index(True)


def test_a_lease_is_had_by_one_and_given_back(store: Store) -> None:
    first, second = Lease(store, "lease"), Lease(store, "lease")
    first.take()
    with pytest.raises(ConflictError, match=f"process {os.getpid()}, runs this since 20"):
        second.take()
    assert first.renew()
    first.give_back()
    second.take()
    assert first.holder() == second.holder() is not None
    over = Lease(store, "over", lasts_s=-60)  # by the store's clock, which tells whole seconds in S3
    over.take()
    assert second.renew() and Lease(store, "over").holder() is None


def test_a_bank_lives_in_either(place: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    image_HW = np.random.default_rng(0).integers(0, 4096, (30, 40), np.uint16)
    path.write_bytes(encode_png(image_HW))
    bank, other = Bank.create(place), Bank.create(place)
    file = LabelledFile(image=ImageFile.at(path), lineage="A549", count=1.0, centres=((1.1, 2.2),))
    frame = prepare(file, bank.store)
    assert bank.add([frame]).added == 1
    assert other.add([frame]).known == 1  # learnt by losing the race for the table
    reopened = Bank.open(place)
    assert reopened.digest == bank.digest == other.digest
    assert (reopened.pixels(reopened.frames[0]) == image_HW).all()
    said = [Label(frame=frame.frame, count=count) for count in (5, 6)]
    assert [bank.label([said[0]], by="ana"), reopened.label([said[1]], by="ben")] == [2, 3]  # by losing that race
    assert [Bank.open(place, as_of=entry).frames[0].count for entry in (1, 2, 3)] == [1.0, 5.0, 6.0]


def test_what_nobody_needs_of_a_bank_and_of_runs_is_removed_in_either(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank, runs = Bank.create(place), open_store(f"{place}/runs")
    bank.add([frame(1)])
    for key in ("shards/a.json", "shards/a-01/train/0.parquet", "prepared/a.parquet", f"pixels/{'0' * 64}.png"):
        bank.store.create(key, b"12")
    for key in ("done/finished.json", "done/checkpoint_1/state", "open/checkpoint_1/state"):
        runs.create(key, b"123")
    assert not any(kind.unneeded for kind in clear(bank, runs).held), "all of it is new"
    later = bank.store.now() + 31 * DAY_S
    monkeypatch.setattr(bank.store, "now", lambda: later)
    cleared = clear(bank, runs)
    assert {kind.what: kind.unneeded for kind in cleared.held if kind.unneeded} == {
        "shards": 2,
        "prepared": 1,
        "checkpoints": 1,
    }
    assert cleared.of_no_frame == 1
    assert list(runs.keys("")) == ["done/finished.json", "open/checkpoint_1/state"]
    assert not [*bank.store.keys("shards/"), *bank.store.keys("prepared/")]
    assert len(Bank.open(place).frames) == 1


def test_a_place_without_a_bank_says_so(place: str) -> None:
    assert f"there is no bank at {place}" in refusal(NotFoundError, lambda: Bank.open(place))


def test_a_registry_lives_in_either(place: str, card: Callable[..., Card]) -> None:
    registry = Registry.open(place)
    assert list(registry.versions()) == [] and registry.names() == []
    with ThreadPoolExecutor(4) as pool:
        refs = list(pool.map(lambda n: registry.publish("regressor", {WEIGHTS: b"%d" % n}, card()).ref, range(4)))
    assert sorted(refs) == [f"regressor@{n}" for n in range(1, 5)]
    registry.promote(refs[0], "champion")
    assert registry.read(registry.resolve("regressor:champion"), WEIGHTS) == b"0"
    damaged = next(iter(registry.store.keys("regressor/blobs/")))
    registry.store.put(damaged, b"rotten")
    assert sum(damaged in (one.problem or "") for one in verify(registry)) == 1  # of 6 bytes where there should be 1
    assert "has no regressor@9; it has regressor@1…4" in refusal(NotFoundError, lambda: registry.resolve("regressor@9"))


def test_a_promotion_race_has_a_winner_that_the_losers_can_name(place: str, card: Callable[..., Card]) -> None:
    registry = Registry.open(place)
    for n in range(4):
        registry.publish("regressor", {WEIGHTS: b"%d" % n}, card())
    pointing = registry.pointing
    start = threading.Barrier(4)
    first = threading.local()

    def read_together(name: str, alias: str) -> AliasMove | None:
        move = pointing(name, alias)
        if not hasattr(first, "done"):
            first.done = True
            start.wait()  # everybody has seen the alias as it was
        return move

    registry.pointing = read_together

    def promote(number: int) -> str:
        try:
            return f"moved to {registry.promote(f'regressor@{number}', 'champion').number}"
        except ConflictError as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(promote, range(1, 5)))
    winner = registry.resolve("regressor:champion").ref
    assert sum(message.startswith("moved") for message in said) == 1
    assert sum(f"was moved to {winner} in the meantime" in message for message in said) == 3


def test_a_server_that_ignores_if_none_match_is_refused_before_anything_is_written(refusing: Callable) -> None:
    store = S3Store("s3://lab/prefix", endpoint_url=refusing(200))
    message = refusal(RegistryError, lambda: store.create("classifier/versions/000001.json", b"{}"))
    assert "ignores If-None-Match" in message and "use a folder" in message
    (method, path), *puts = refusing.asked
    assert method == "GET" and path.startswith(f"/lab/prefix/{PROBE_KEY}-")  # what was found before
    assert puts == [("PUT", f"/lab/prefix/{PROBE_KEY}")] * 2


def test_a_real_server_that_ignores_it_is_refused_too(tmp_path: Path, card: Callable[..., Card]) -> None:
    with IgnoringServer(tmp_path) as server:
        registry = Registry.open(Place("s3://lab/prefix", server.address))
        message = refusal(RegistryError, lambda: registry.publish("regressor", {WEIGHTS: b"x"}, card()))
        assert "ignores If-None-Match" in message
        assert list(registry.store.keys("")) == [] and registry.names() == []


@pytest.fixture
def new_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """`new_process()`: nothing is known of any server."""
    return lambda: monkeypatch.setattr("cellnet.store.verdict._proven", set())


def test_a_server_that_checks_and_then_writes_is_refused_by_everybody(
    ministack: PersistentServer, card: Callable[..., Card], new_process: Callable[[], None]
) -> None:
    with FaultyProxy(ministack.address, lambda *_: "gap", slow_s=0.5) as proxy:
        place = Place("s3://lab/gap", proxy.address)
        said = r"of s3://lab/gap checks If-None-Match and then writes: [2-8] of 8 who created one key at once were told"
        for plan in ("gap", "gap", None):  # also by who might have better luck
            new_process()
            proxy.plan = lambda *_, plan=plan: plan
            message = refusal(RegistryError, lambda: Registry.open(place).publish("regressor", {WEIGHTS: b"x"}, card()))
            assert re.search(said, message) and "use a folder, or an S3 server that honours" in message
        (key,) = re.findall(r"mended, remove (\S+)\)", message)
        store = place.open()
        assert list(store.keys("")) == [] and store.folders("") == []
        store.delete(key)
        assert Registry.open(place).publish("regressor", {WEIGHTS: b"x"}, card()).ref == "regressor@1"


def test_an_honest_server_is_probed_once_and_not_again_by_others(
    ministack: PersistentServer, new_process: Callable[[], None]
) -> None:
    with FaultyProxy(ministack.address) as proxy:

        def asked(uri: str, address: str = proxy.address) -> int:
            proxy.asked.clear()
            assert S3Store(uri, endpoint_url=address).create(f"a/{next(NUMBERS)}", b"x")
            return len(proxy.asked)

        new_process()
        assert asked("s3://lab/honest") == 1 + 2 + ROUNDS * CREATORS + 1 + 1
        assert asked("s3://lab/beside") == 1  # the same server, and the same process
        new_process()
        assert asked("s3://lab/honest") == 2
        proxy.asked.clear()
        store = S3Store("s3://lab/honest", endpoint_url=ministack.address)
        assert all(key.startswith("a/") for key in store.keys(""))
        (key,) = (
            item["Key"]
            for item in store.client.list_objects_v2(Bucket="lab", Prefix="honest/")["Contents"]
            if item["Key"].endswith(".json")
        )
        store.put(key.removeprefix("honest/"), b"rotten")
        new_process()
        assert asked("s3://lab/honest") > ROUNDS * CREATORS
        new_process()
        assert asked("s3://lab/honest", ministack.address) == 0  # what is kept is of another address
        kept = [item["Key"] for item in store.client.list_objects_v2(Bucket="lab", Prefix="honest/")["Contents"]]
        assert sum(key.endswith(".json") for key in kept) == 2


@pytest.mark.parametrize("fault", ["drop", "lose", "503", "500", "cut"])
def test_a_fault_while_a_server_is_probed_changes_nothing(
    fault: str, moto: str, new_process: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    with FaultyProxy(moto, lambda number, *_: fault if number in (0, 1, 2, 9, 23, 40) else None) as proxy:
        new_process()
        store = S3Store(f"s3://lab/probed-{fault}", endpoint_url=proxy.address)
        assert store.create("a", b"x") and not store.create("a", b"y")


def test_a_bucket_can_be_a_host_of_its_own(moto: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path_style = S3Store("s3://lab/hosts", endpoint_url=moto)
    path_style.create("a", b"x")
    store = S3Store("s3://lab/hosts", endpoint_url=use_virtual_hosts(monkeypatch, moto, tmp_path))
    hosts = []
    store.client.meta.events.register("before-send", lambda request, **_: hosts.append(request.url.split("/")[2]))
    assert store.get("a") == b"x" and not store.create("a", b"y") and list(store.keys("")) == ["a"]
    assert {host.partition(":")[0] for host in hosts} == {"lab.s3.test"}


@pytest.mark.parametrize(
    ("wanted", "told"),
    [("AES256", ("AES256", None)), ("aws:kms:alias/lab", ("aws:kms", "alias/lab")), ("", (None, None))],
)
def test_objects_are_encrypted_as_the_environment_says(
    moto: str, monkeypatch: pytest.MonkeyPatch, wanted: str, told: tuple[str | None, str | None]
) -> None:
    monkeypatch.setenv("CELLNET_S3_SSE", wanted)
    monkeypatch.setattr("cellnet.store.s3.PART_BYTES", 5 * 2**20)
    store = S3Store(f"s3://lab/encrypted{wanted[:3]}", endpoint_url=moto)
    store.put("put", b"x"), store.create("created", b"x"), store.create("large", b"x" * (11 * 2**20))
    for key in store.keys(""):
        head = store.client.head_object(Bucket="lab", Key=f"{store.prefix}/{key}")
        assert (head.get("ServerSideEncryption"), head.get("SSEKMSKeyId")) == told


SSE = "x-amz-server-side-encryption"


@pytest.mark.parametrize(
    ("header", "status", "code", "said"),
    [
        (
            SSE,
            400,
            "InvalidRequest",
            ": InvalidRequest; no encryption here: unset CELLNET_S3_SSE (AES256), or use another",
        ),
        (
            SSE,
            501,
            "NotImplemented",
            ": NotImplemented; no encryption here: unset CELLNET_S3_SSE (AES256), or use another",
        ),
        (SSE, 400, "KMS.NotFoundException", ": KMS.NotFoundException"),  # it can, but knows no such key
        ("If-None-Match", 501, "NotImplemented", "; use a folder, or an S3 server that honours conditional writes"),
        ("", 400, "InvalidRequest", ": InvalidRequest"),
    ],
)
def test_a_server_without_encryption_is_told_from_one_without_conditions(
    refusing: Callable, monkeypatch: pytest.MonkeyPatch, header: str, status: int, code: str, said: str
) -> None:
    monkeypatch.setenv("CELLNET_S3_SSE", "AES256")
    body = f"<Error><Code>{code}</Code><Message/></Error>".encode()  # as radosgw says it
    store = S3Store("s3://lab/prefix", endpoint_url=refusing(status, body, only=header))
    message = refusal(RegistryError, lambda: store.create("a", b"x"))
    assert said in message and ("no encryption" in message) == ("no encryption" in said)


def test_an_encryption_that_s3_does_not_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLNET_S3_SSE", "rot13")
    assert "is AES256, aws:kms or aws:kms:KEY" in refusal(ConfigError, lambda: S3Store("s3://lab/x"))


def test_the_region_is_that_of_the_users_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert S3Store("s3://lab/x").client.meta.region_name == "us-east-1"
    (tmp_path / "config").write_text("[default]\nregion = eu-central-1\n[profile far]\nregion = sa-east-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    assert S3Store("s3://lab/x").client.meta.region_name == "eu-central-1"
    monkeypatch.setenv("AWS_PROFILE", "far")
    assert S3Store("s3://lab/x").client.meta.region_name == "sa-east-1"
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    assert S3Store("s3://lab/x").client.meta.region_name == "ap-south-1"


def test_a_prefix_sees_nothing_of_its_neighbours(moto: str) -> None:
    near, far = (S3Store(f"s3://lab/{name}", endpoint_url=moto) for name in ("plate", "plate2"))
    far.create("only/here", b"x")
    assert list(near.keys("")) == []
    assert list(far.keys("")) == ["only/here"]


def test_the_folder_marks_of_other_programs_are_no_objects(moto: str) -> None:
    store = S3Store("s3://lab/marked", endpoint_url=moto)
    for key in ("marked/", "marked/registry/"):
        store.client.put_object(Bucket="lab", Key=key, Body=b"")
    store.create("registry/a", b"x")
    assert list(store.keys("")) == ["registry/a"]


def test_more_keys_than_a_page_holds_are_all_listed(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")
    store = S3Store("s3://lab/many", endpoint_url=moto)
    keys = [f"k/{n}" for n in range(8)]
    for key in keys:
        store.put(key, b"x")
    assert len(store.client.list_objects_v2(Bucket="lab", Prefix="many/")["Contents"]) == 3
    assert list(store.keys("k/")) == keys


@pytest.mark.parametrize("use", ["create", "put", "get", "keys"])
def test_a_bucket_that_is_not_there_is_named(moto: str, use: str) -> None:
    store = S3Store("s3://no-such-bucket/prefix", endpoint_url=moto)
    uses = {
        "create": lambda: store.create("a", b"x"),
        "put": lambda: store.put("a", b"x"),
        "get": lambda: store.get("a"),
        "keys": lambda: list(store.keys("")),
    }
    assert "there is no bucket 'no-such-bucket'; make it first" in refusal(NotFoundError, uses[use])


def test_wrong_credentials_are_the_servers_words_in_one_line(refusing: Callable) -> None:
    body = b"<Error><Code>InvalidAccessKeyId</Code><Message>The key is not known here.</Message></Error>"
    store = S3Store("s3://lab/prefix", endpoint_url=refusing(403, body))
    message = refusal(RegistryError, lambda: store.get("a"))
    assert message == "cannot read a in s3://lab/prefix: InvalidAccessKeyId The key is not known here."


def test_no_credentials_says_which_variables_to_set(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    store = S3Store("s3://lab/prefix", endpoint_url=moto)
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in refusal(ConfigError, lambda: store.get("a"))


@pytest.mark.parametrize("endpoint_url", ["http://127.0.0.1:9", "not a url"])
def test_a_server_that_is_not_there_is_told_from_an_empty_one(endpoint_url: str) -> None:
    store = S3Store("s3://lab/prefix", endpoint_url=endpoint_url)
    assert endpoint_url in refusal(RegistryError, lambda: store.get("a"))


def test_a_server_that_fails_is_asked_again_and_then_named(refusing: Callable) -> None:
    store = S3Store("s3://lab/prefix", endpoint_url=refusing(503))
    assert "cannot read a in s3://lab/prefix: 503" in refusal(RegistryError, lambda: store.get("a"))
    assert len(refusing.asked) == 4


def test_a_damaged_blob_in_a_bucket_is_noticed(place: str, card: Callable[..., Card]) -> None:
    registry = Registry.open(place)
    version = registry.publish("regressor", {WEIGHTS: b"weights"}, card())
    key = f"regressor/blobs/{version.blobs[WEIGHTS].sha256}"
    for bytes_, said in ((b"weightz", "damaged"), (b"weight", "damaged"), (b"", "damaged"), (b"weights!", "not read")):
        registry.store.put(key, bytes_)
        assert said in refusal(IntegrityError, lambda: registry.read(version, WEIGHTS))


def test_folders_and_buckets_are_told_apart_by_the_place(place: str, store: Store) -> None:
    assert isinstance(store, S3Store if place.startswith("s3://") else FolderStore)
    assert store.uri == place
