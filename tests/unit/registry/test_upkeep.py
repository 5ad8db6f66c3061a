"""Looking after a registry: verification, the trash, copies, and every moment at which a process may die."""

import errno
import itertools
import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from cellnet.errors import ConfigError, IntegrityError, NotFoundError, RegistryError, UntrustedError
from cellnet.registry.blobs import put_blobs
from cellnet.registry.exchange import export_version, import_version, publish_folder
from cellnet.registry.records import Card
from cellnet.registry.registry import Registry
from cellnet.registry.upkeep import DAY_S, Cleared, gc, verify
from cellnet.store.folder import FolderStore
from cellnet.store.objects import Entry, Store
from cellnet.untrusted import WEIGHTS


def weights(number: int) -> bytes:
    """A safetensors file of its own."""
    data: bytes = safetensors.numpy.save({"w": np.full(4, number, np.float32)})
    return data


class Memory(Store):
    """A store in memory, with a clock of its own; every call but `keys` is one step."""

    uri = "memory"
    endpoint_url = None

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, float]] = {}
        self.clock = time.time()

    def now(self) -> float:
        self.step()
        return self.clock

    def step(self) -> None:
        """What happens before every call."""

    def get(self, key: str, *, limit: int = 2**32) -> bytes:
        self.step()
        if key not in self.objects:
            raise NotFoundError(f"no {key}")
        return self.objects[key][0]

    def put(self, key: str, data: bytes) -> None:
        self.step()
        self.objects[key] = data, self.clock

    def create(self, key: str, data: bytes) -> bool:
        self.step()
        return self.objects.setdefault(key, (data, self.clock))[0] is data

    def delete(self, key: str) -> None:
        self.step()
        self.objects.pop(key, None)

    def entries(self, prefix: str, *, after: str = "") -> Iterator[Entry]:
        self.step()
        found = sorted(key for key in self.objects if key.startswith(prefix) and key > after)
        return iter([Entry(key, len(self.objects[key][0]), self.objects[key][1]) for key in found])

    def folders(self, prefix: str) -> list[str]:
        self.step()
        below = (key.removeprefix(prefix) for key in self.objects if key.startswith(prefix))
        return sorted({key.partition("/")[0] for key in below if "/" in key})

    def sweep(self, prefix: str, before: float) -> int:
        self.step()
        return 0


class View(Memory):
    """The objects of another memory, with a hook of its own before every call."""

    def __init__(self, of: Memory, step: Callable[[], None]) -> None:
        self.objects, self.of, self._step = of.objects, of, step

    @property
    def clock(self) -> float:  # type: ignore[override]
        return self.of.clock

    def step(self) -> None:
        self._step()


class Killed(BaseException):
    """The process is gone: nothing catches this."""


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.open(str(tmp_path / "registry"))


@pytest.fixture
def publish(registry: Registry, card: Callable[..., Card]) -> Callable[..., str]:
    """`publish(3)` publishes weights of their own as a version of `regressor`."""
    return lambda number, name="regressor": registry.publish(name, {WEIGHTS: weights(number)}, card()).ref


def _age(registry: Registry, days: float) -> None:
    """Make everything in the trash so many days old."""
    for path in Path(registry.store.uri).glob("*/trash/*"):
        os.utime(path, (time.time() - days * DAY_S,) * 2)


def test_verification_tells_what_is_whole_from_what_is_not(registry: Registry, publish: Callable) -> None:
    whole, damaged, missing, pickled, record = (publish(number) for number in range(5))
    registry.promote(whole, "champion")
    registry.promote(missing, "challenger")
    keys = {ref: f"regressor/blobs/{registry.resolve(ref).blobs[WEIGHTS].sha256}" for ref in (damaged, missing)}
    registry.store.put(keys[damaged], weights(9))
    registry.store.delete(keys[missing])
    sneaked = registry.publish("regressor", {WEIGHTS: b"\x80\x04pickle"}, registry.resolve(pickled).card).ref
    registry.store.put("regressor/versions/000005.json", b"{}")
    found = {finding.what: finding.problem for finding in verify(registry)}
    assert found[whole] is None and found[pickled] is None and found["regressor:champion"] is None
    assert "its sha256 is not" in (found[damaged] or "")
    assert "has no regressor/blobs/" in (found[missing] or "")
    assert f"{WEIGHTS} of {sneaked} is a pickle" in (found[sneaked] or "")
    assert record == "regressor@5" and "is damaged" in (found[record] or "")
    assert found["regressor:challenger"] == f"it points at {missing}, which is not whole"
    with pytest.raises(NotFoundError, match="has no other; it has the models regressor"):
        list(verify(registry, "other"))


def test_verification_finds_holes(registry: Registry, publish: Callable) -> None:
    for number in range(3):
        publish(number)
        registry.promote(f"regressor@{number + 1}", "champion")
    registry.store.delete("regressor/versions/000002.json")
    registry.store.delete("regressor/aliases/champion/000002.json")
    found = {finding.what: finding.problem for finding in verify(registry)}
    assert "has no regressor@2" in (found["regressor@2"] or "")
    assert found["regressor:champion"] == "moves are missing from its log: it has 1, 3"


def test_what_no_version_needs_goes_to_the_trash_and_then_away(registry: Registry, publish: Callable) -> None:
    publish(1)
    left = put_blobs(FolderStore(Path(registry.store.uri)), "regressor", {WEIGHTS: weights(2)})
    registry.store.put("other-program/blobs/" + "0" * 64, b"not ours")
    assert gc(registry, dry_run=True) == Cleared(trashed=1)
    assert gc(registry) == Cleared(trashed=1)
    (kept,) = registry.store.keys("regressor/trash/")
    assert kept.startswith(f"regressor/trash/{left[WEIGHTS].sha256}.")
    assert gc(registry) == Cleared()
    _age(registry, 6)
    assert gc(registry) == Cleared()
    _age(registry, 8)
    size = left[WEIGHTS].size
    assert gc(registry, dry_run=True) == gc(registry) == Cleared(removed=1, removed_bytes=size)
    assert list(registry.store.keys("regressor/trash/")) == []
    assert registry.store.get("other-program/blobs/" + "0" * 64) == b"not ours"
    assert [finding.problem for finding in verify(registry)] == [None]


def test_a_blob_that_is_needed_again_comes_out_of_the_trash(registry: Registry, publish: Callable) -> None:
    publish(1)
    blob = registry.resolve("regressor@1").blobs[WEIGHTS]
    here, there = f"regressor/blobs/{blob.sha256}", f"regressor/trash/{blob.sha256}.1"
    registry.store.put(there, registry.store.get(here))
    registry.store.delete(here)  # as a gc does just before a publisher who found it commits
    assert registry.read(registry.resolve("regressor@1"), WEIGHTS) == weights(1)
    _age(registry, 30)
    assert gc(registry) == Cleared(restored=1)
    assert registry.store.get(here) == weights(1)
    _age(registry, 30)
    assert gc(registry) == Cleared(removed=1, removed_bytes=blob.size)
    assert registry.read(registry.resolve("regressor@1"), WEIGHTS) == weights(1)


def test_a_rotten_copy_in_the_trash_is_passed_over(registry: Registry, publish: Callable) -> None:
    publish(1)
    sha256 = registry.resolve("regressor@1").blobs[WEIGHTS].sha256
    registry.store.delete(f"regressor/blobs/{sha256}")
    registry.store.put(f"regressor/trash/{sha256}.1", b"rotten")
    registry.store.put(f"regressor/trash/{sha256}.2", weights(1))
    assert registry.read(registry.resolve("regressor@1"), WEIGHTS) == weights(1)
    assert gc(registry).restored == 1
    assert registry.store.get(f"regressor/blobs/{sha256}") == weights(1)


def test_a_copy_in_the_trash_stays_while_the_blob_is_damaged(registry: Registry, publish: Callable) -> None:
    publish(1)
    sha256 = registry.resolve("regressor@1").blobs[WEIGHTS].sha256
    registry.store.put(f"regressor/blobs/{sha256}", b"rotten")
    registry.store.put(f"regressor/trash/{sha256}.1", weights(1))
    _age(registry, 30)
    assert gc(registry) == Cleared()
    assert registry.read(registry.resolve("regressor@1"), WEIGHTS) == weights(1)


def test_a_gc_that_was_asleep_removes_nothing(card: Callable[..., Card], monkeypatch: pytest.MonkeyPatch) -> None:
    store = Memory()
    Registry(store).publish("regressor", {WEIGHTS: weights(1)}, card())
    left = put_blobs(store, "regressor", {WEIGHTS: weights(2)})[WEIGHTS].sha256
    put = store.put

    def sleepy(key: str, data: bytes) -> None:  # a laptop is closed for a week, and others go on
        put(key, data)
        Registry(store).publish("regressor", {WEIGHTS: weights(2)}, card())
        store.delete(key)  # by their gc
        now = time.time()
        monkeypatch.setattr("time.time", lambda: now + 8 * DAY_S)

    monkeypatch.setattr(store, "put", sleepy)
    gc(Registry(store))
    assert f"regressor/blobs/{left}" in store.objects
    assert [finding.problem for finding in verify(Registry(store))] == [None, None]


def test_a_model_with_a_damaged_record_is_left_alone(registry: Registry, publish: Callable) -> None:
    publish(1)
    registry.store.put("regressor/versions/000001.json", b"{}")
    said: list[str] = []
    assert gc(registry, say=said.append) == Cleared()
    assert len(said) == 1 and said[0].startswith("regressor is left alone: regressor@1 in ")
    assert len(list(registry.store.keys("regressor/blobs/"))) == 1


def test_unfinished_writes_go_when_they_are_old(registry: Registry, publish: Callable) -> None:
    publish(1)
    old, new = (Path(registry.store.uri) / f"regressor/blobs/.tmp-{name}" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 8 * DAY_S,) * 2)
    assert gc(registry).unfinished == 1
    assert new.exists() and not old.exists()


@pytest.mark.parametrize("days", [0, -1, float("nan"), 0.01])
def test_the_trash_cannot_be_kept_too_short(registry: Registry, days: float) -> None:
    with pytest.raises(ConfigError, match="days at least"):
        gc(registry, keep_days=days)


def test_a_version_is_copied_from_another_registry_once(tmp_path: Path, registry: Registry, publish: Callable) -> None:
    publish(1), publish(2)
    registry.promote("regressor@2", "champion")
    other = Registry.open(str(tmp_path / "other"))
    copy = import_version(other, registry, "regressor:champion")
    assert copy.ref == "regressor@1" and copy.origin is not None and copy.origin.ref == "regressor@2"
    assert other.read(copy, WEIGHTS) == weights(2)
    assert import_version(other, registry, "regressor@2") == copy
    assert import_version(other, registry, "regressor@2", name="counter").ref == "counter@1"
    assert import_version(other, registry, "regressor@1").ref == "regressor@2"
    assert [finding.problem for finding in verify(other)] == [None] * 3


def test_what_is_damaged_is_not_copied(tmp_path: Path, registry: Registry, publish: Callable) -> None:
    version = registry.resolve(publish(1))
    other = Registry.open(str(tmp_path / "other"))
    registry.store.put(f"regressor/blobs/{version.blobs[WEIGHTS].sha256}", weights(2))
    with pytest.raises(IntegrityError, match="its sha256 is not"):
        import_version(other, registry, version.ref)
    pickled = registry.publish("regressor", {WEIGHTS: b"\x80\x04pickle"}, version.card)
    with pytest.raises(IntegrityError, match="is a pickle"):
        import_version(other, registry, pickled.ref)
    assert list(other.store.keys("")) == []


def test_a_copy_is_signed_where_it_comes_to(tmp_path: Path, registry: Registry, publish: Callable) -> None:
    from cellnet.registry import signing

    publish(1)
    trusted = signing.load_trusted(signing.make_keys(tmp_path / "key"))
    signer = signing.load_signer(tmp_path / "key")
    other = Registry.open(str(tmp_path / "other"), trusted=trusted, signer=signer)
    assert other.resolve(import_version(other, registry, "regressor@1").ref).origin is not None
    distrusting = Registry.open(registry.store.uri, trusted=trusted)
    with pytest.raises(UntrustedError, match="is not signed"):
        import_version(other, distrusting, "regressor@1")


def test_an_export_is_a_folder_that_is_whole_or_not_there(
    tmp_path: Path, registry: Registry, publish: Callable
) -> None:
    publish(1)
    registry.promote("regressor@1", "champion")
    folder = export_version(registry, "regressor:champion", tmp_path / "out" / "model")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "version.json", WEIGHTS]
    assert (folder / WEIGHTS).read_bytes() == weights(1)
    assert (folder / "README.md").read_text().startswith("# regressor@1 (champion)\n\nCounts the cells in a frame.\n")
    with pytest.raises(ConfigError, match="is there already; name a new one"):
        export_version(registry, "regressor@1", folder)
    registry.store.put(f"regressor/blobs/{registry.resolve('regressor@1').blobs[WEIGHTS].sha256}", b"rotten")
    with pytest.raises(IntegrityError):
        export_version(registry, "regressor@1", tmp_path / "out" / "other")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model"]


def test_what_is_old_is_told_by_the_clock_of_the_store(
    registry: Registry, publish: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(1)
    put_blobs(registry.store, "regressor", {WEIGHTS: weights(2)})
    assert gc(registry) == Cleared(trashed=1)
    (Path(registry.store.uri) / "regressor/blobs/.tmp-half").write_bytes(b"of somebody who is writing")
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 30 * DAY_S)  # this machine's clock is wrong
    assert gc(registry) == Cleared()
    monkeypatch.setattr("time.time", lambda: now - 30 * DAY_S)
    for path in Path(registry.store.uri).glob("*/trash/*"):
        os.utime(path, (now - 8 * DAY_S,) * 2)
    assert gc(registry).removed == 1


def test_on_a_full_disk_what_can_go_goes(
    registry: Registry, publish: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(1)
    put_blobs(registry.store, "regressor", {WEIGHTS: weights(2), "notes": b"3"})
    gc(registry)
    _age(registry, 8)
    left = put_blobs(registry.store, "regressor", {WEIGHTS: weights(4)})[WEIGHTS]

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp", full)
    with monkeypatch.context() as fuller:
        fuller.setattr("pathlib.Path.rename", full)  # no space even for a name
        said: list[str] = []
        assert gc(registry, say=said.append) == Cleared(removed=2, removed_bytes=left.size + 1)
        assert "stays: cannot move" in said[0] and said[0].endswith("No space left on device")
    assert gc(registry) == Cleared(trashed=1)
    assert [finding.problem for finding in verify(registry)] == [None]


def test_who_may_only_read_can_ask_what_would_be_done(
    registry: Registry, publish: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(1)
    put_blobs(registry.store, "regressor", {WEIGHTS: weights(2)})

    def refused(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("os.utime", refused)
    assert gc(registry, dry_run=True) == Cleared(trashed=1)
    with pytest.raises(RegistryError, match="cannot tell the time"):
        gc(registry)


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        (("preprocess", "tile_px"), [0, 0], "card.preprocess.tile_px.0"),
        (("preprocess", "tile_px"), [200, 10**9], "card.preprocess.tile_px.1"),
        (("preprocess", "std"), 0, "card.preprocess.std"),
        (("preprocess", "std"), float("nan"), "card.preprocess.std"),
        (("preprocess", "mean"), float("inf"), "card.preprocess.mean"),
        (("preprocess", "pixel_um"), -0.5, "card.preprocess.pixel_um"),
        (("preprocess", "intensity", "low"), float("-inf"), "card.preprocess.intensity.low"),
        (("frame_px",), [-1, 200], "card.frame_px.0"),
        (("classes",), ["A549"], "it counts, and names A549"),
        (("config", "task"), "classify", "it is to count, and was trained to classify"),
        (("calibration",), {"tiles": 1, "frames": 1, "temperature": 0}, "card.calibration.temperature"),
        (("calibration",), {"tiles": -1, "frames": 1}, "card.calibration.tiles"),
        (
            ("calibration",),
            {"tiles": 1, "frames": 1, "frame_quantile": float("nan")},
            "card.calibration.frame_quantile",
        ),
    ],
)
def test_a_card_that_no_training_writes_is_not_brought_in(
    tmp_path: Path, registry: Registry, publish: Callable, where: tuple[str, ...], value: object, said: str
) -> None:
    folder = export_version(registry, publish(1), tmp_path / "model")
    record = json.loads((folder / "version.json").read_text())
    part = record["card"]
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value
    (folder / "version.json").write_text(json.dumps(record))
    with pytest.raises(IntegrityError, match=re.escape(said)):
        publish_folder(registry, folder)
    registry.store.put("regressor/versions/000001.json", json.dumps(record).encode())
    with pytest.raises(IntegrityError, match=re.escape(said)):
        import_version(Registry.open(str(tmp_path / "other")), registry, "regressor@1")


@pytest.mark.parametrize("name", ["version.json", WEIGHTS])
def test_a_pipe_in_a_folder_that_is_brought_in_is_not_waited_for(
    tmp_path: Path, registry: Registry, publish: Callable, name: str
) -> None:
    folder = export_version(registry, publish(1), tmp_path / "model")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(ConfigError, match=f"{name}: it is a named pipe, no file"):
        publish_folder(registry, folder)


# What a process does, how the world looks when it has been done, and a registry in which it can be done.

State = tuple[object, ...]


def _seen(store: Store) -> State:
    """All that readers can see: versions with what they hold, and where aliases have pointed."""
    registry = Registry(store)
    held = tuple((one.ref, tuple(registry.read(one.version, role) for role in one.version.blobs)) for one in
                 registry.versions() if one.version)  # fmt: skip
    moves = tuple(
        (name, alias, tuple(move.number for move in registry.history(name, alias)))
        for name in registry.names()
        for alias in registry.aliases(name)
    )
    return held, moves


def _prepared(card: Callable[..., Card]) -> Memory:
    store = Memory()
    registry = Registry(store)
    for number in (1, 2):
        registry.publish("regressor", {WEIGHTS: weights(number), "notes": b"%d" % number}, card())
    registry.promote("regressor@1", "champion")
    registry.promote("regressor@2", "champion")
    put_blobs(registry.store, "regressor", {"left": b"left"})
    store.objects[f"regressor/trash/{'0' * 64}.1"] = b"old", store.clock - 8 * DAY_S
    needed = registry.resolve("regressor@1").blobs["notes"].sha256
    store.put(f"regressor/trash/{needed}.1", b"1")
    store.delete(f"regressor/blobs/{needed}")
    return store


OPERATIONS: dict[str, Callable[[Registry, Registry, Card], object]] = {
    "publish": lambda here, there, card: here.publish("regressor", {WEIGHTS: weights(3), "notes": b"3"}, card),
    "first publish": lambda here, there, card: here.publish("new", {WEIGHTS: weights(3)}, card),
    "promote": lambda here, there, card: here.promote("regressor@1", "champion"),
    "first promote": lambda here, there, card: here.promote("regressor@1", "challenger"),
    "rollback": lambda here, there, card: here.rollback("regressor", "champion"),
    "tag": lambda here, there, card: here.tag("regressor@1", "paper"),
    "gc": lambda here, there, card: gc(here),
    "import": lambda here, there, card: import_version(here, there, "regressor@2", name="copied"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATIONS)
def test_whoever_dies_before_or_after_any_call_leaves_the_old_state_or_the_new(
    card: Callable[..., Card], name: str, record_property: Callable[[str, object], None]
) -> None:
    operation, there, model = OPERATIONS[name], Registry(_prepared(card)), card()
    whole = _prepared(card)
    old = _seen(whole)
    calls = itertools.count()
    operation(Registry(View(whole, lambda: next(calls))), there, model)
    new, points = _seen(whole), next(calls)
    assert points >= 3 and (new != old) == (name != "gc")
    for dies_at in range(points + 1):  # before each call, which is after the one before it; and after the last
        store = _prepared(card)
        left = itertools.count()

        def step(left: Iterator[int] = left, dies_at: int = dies_at) -> None:
            if next(left) == dies_at:
                raise Killed

        try:
            operation(Registry(View(store, step)), there, model)
        except Killed:
            assert _seen(store) in (old, new)
        gc(Registry(store))
        assert _seen(store) in (old, new)
        if _seen(store) == old and name != "rollback":
            operation(Registry(store), there, model)
            assert _seen(store) == new
        assert [finding for finding in verify(Registry(store)) if finding.problem] == []
        store.objects = {key: (data, when - 8 * DAY_S) for key, (data, when) in store.objects.items()}
        gc(Registry(store))
        assert [finding for finding in verify(Registry(store)) if finding.problem] == []
    record_property("crash points", points + 1)


class Scheduler:
    """Runs processes one call at a time, in a given order; what is left of the others at the end runs in turn."""

    def __init__(self, store: Memory, tasks: dict[str, Callable[[Registry], object]]) -> None:
        self.turns = {name: threading.Semaphore(0) for name in tasks}
        self.paused = threading.Semaphore(0)
        self.done: set[str] = set()
        self.errors: list[BaseException] = []
        self.threads = [threading.Thread(target=self._run, args=(name, task, store)) for name, task in tasks.items()]

    def _run(self, name: str, task: Callable[[Registry], object], store: Memory) -> None:
        alone = threading.Lock()  # of the task's own threads, one call at a time

        def step() -> None:
            with alone:
                self.paused.release()
                self.turns[name].acquire()

        self.turns[name].acquire()
        try:
            task(Registry(View(store, step)))
        except BaseException as error:
            self.errors.append(error)
        self.done.add(name)
        self.paused.release()

    def run(self, order: list[str]) -> None:
        for thread in self.threads:
            thread.start()
        rest = itertools.cycle(sorted(self.turns))
        for name in itertools.chain(order, rest):
            if len(self.done) == len(self.turns):
                break
            if name not in self.done:
                self.turns[name].release()
                assert self.paused.acquire(timeout=10)
        for thread in self.threads:
            thread.join(timeout=10)
        assert self.errors == []


@pytest.mark.slow
@pytest.mark.parametrize("start", ["in place", "in the trash", "in both", "nowhere"])
def test_gc_never_takes_what_publishers_are_about_to_name(
    card: Callable[..., Card], start: str, record_property: Callable[[str, object], None]
) -> None:
    rng = random.Random(start)
    rounds = 100
    for _ in range(rounds):
        store = Memory()
        blob = put_blobs(store, "regressor", {WEIGHTS: weights(1)})[WEIGHTS]
        here, there = f"regressor/blobs/{blob.sha256}", f"regressor/trash/{blob.sha256}.1"
        store.objects[there] = store.objects[here][0], store.clock - 8 * DAY_S
        for key, stays in ((here, start in ("in place", "in both")), (there, start in ("in the trash", "in both"))):
            if not stays:
                store.delete(key)
        tasks: dict[str, Callable[[Registry], object]] = {
            "publisher": lambda registry: registry.publish("regressor", {WEIGHTS: weights(1)}, card()),
            "other publisher": lambda registry: registry.publish("regressor", {WEIGHTS: weights(1)}, card()),
            "gc": gc,
            "other gc": gc,
        }
        Scheduler(store, tasks).run(rng.choices(list(tasks), k=60))
        for later_days in (0, 1, 8, 8):
            assert [finding for finding in verify(Registry(store)) if finding.problem] == []
            assert [version.ref for version in Registry(store).versions()] == ["regressor@2", "regressor@1"]
            store.objects = {key: (data, when - later_days * DAY_S) for key, (data, when) in store.objects.items()}
            gc(Registry(store))
        assert here in store.objects and not list(store.keys("regressor/trash/"))
    record_property("schedules", rounds)
