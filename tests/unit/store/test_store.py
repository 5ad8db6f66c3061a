"""Stores in a folder, and where a place leads. The contract that a folder shares with S3 is tested in
tests/integration/test_store_s3.py."""

import errno
import os
import pickle
import time
from pathlib import Path

import pytest

from cellnet.errors import ConfigError, NotFoundError, RegistryError
from cellnet.store.folder import FolderStore
from cellnet.store.place import NOWHERE, Place, open_store, place_of
from cellnet.store.s3 import S3Store


def test_a_place_is_a_folder_or_a_bucket(tmp_path: Path) -> None:
    assert isinstance(open_store(tmp_path), FolderStore)
    assert isinstance(open_store("s3://bucket/prefix"), S3Store)


@pytest.mark.parametrize("place", ["", "gs://bucket/prefix", "http://host/x", "s3://", "s3:///prefix"])
def test_any_other_place_is_refused(place: str) -> None:
    with pytest.raises(ConfigError, match="s3://bucket/prefix"):
        open_store(place)


def test_opening_a_place_makes_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path / "new")
    assert list(store.keys("")) == []
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("uri", "prefix"),
    [
        ("s3://bucket", ""),
        ("s3://bucket/", ""),
        ("s3://bucket/a/b/", "a/b"),
        ("s3://bucket/plate#1/why?", "plate#1/why?"),
    ],
)
def test_the_prefix_of_a_bucket_is_taken_to_the_letter(uri: str, prefix: str) -> None:
    store = S3Store(uri)
    assert (store.bucket, store.prefix) == ("bucket", prefix)


@pytest.mark.parametrize("key", ["../outside", "/etc/passwd", "a/../../outside"])
def test_a_key_that_leads_out_of_the_folder_is_refused(tmp_path: Path, key: str) -> None:
    store = FolderStore(tmp_path / "store")
    for use in (store.get, store.keys, lambda key: store.put(key, b"x"), lambda key: store.create(key, b"x")):
        with pytest.raises(RegistryError, match="leads out of"):
            list(use(key))
    assert list(tmp_path.rglob("outside")) == []


def test_a_write_that_was_interrupted_is_not_listed(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put("a/whole", b"x")
    (tmp_path / "a/.tmp-half").write_bytes(b"x")
    assert list(store.keys("")) == ["a/whole"]


def test_nothing_but_the_objects_is_left_behind(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put("a/b", b"1")
    store.create("a/b", b"2")
    store.create("a/c", b"3")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["b", "c"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = FolderStore(tmp_path / "file")
    for write in (store.put, store.create):
        with pytest.raises(RegistryError, match=r"cannot write a/b in .*file: "):
            write("a/b", b"x")


def test_a_key_too_long_for_the_file_system_is_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="File name too long"):
        FolderStore(tmp_path).create("a" * 300, b"x")


def test_a_folder_is_where_it_was_when_the_store_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = FolderStore(Path("relative"))
    monkeypatch.chdir("/")
    store.put("a", b"x")
    assert (tmp_path / "relative/a").read_bytes() == b"x"


def test_stores_travel_between_processes(tmp_path: Path) -> None:
    FolderStore(tmp_path).put("a", b"x")
    assert pickle.loads(pickle.dumps(FolderStore(tmp_path))).get("a") == b"x"
    bucket = S3Store("s3://bucket/prefix", endpoint_url="http://127.0.0.1:1")
    assert bucket.client is bucket.client
    copy = pickle.loads(pickle.dumps(bucket))
    assert (copy.uri, copy.endpoint_url, copy._client) == (bucket.uri, bucket.endpoint_url, None)


def test_files_have_the_rights_that_the_user_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellnet.store.folder._umask", lambda: 0o077)
    FolderStore(tmp_path).put("private", b"x")
    monkeypatch.setattr("cellnet.store.folder._umask", lambda: 0o022)
    FolderStore(tmp_path).put("public", b"x")
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("private", "public")] == [0o600, 0o644]


def test_folders_without_an_object_are_none_as_in_s3(tmp_path: Path) -> None:
    FolderStore(tmp_path).put("a/b/c", b"x")
    (tmp_path / "empty/below").mkdir(parents=True)
    assert FolderStore(tmp_path).folders("") == ["a"]


def test_a_place_knows_its_server_wherever_it_is_passed_on() -> None:
    jobs = Place("s3://lab/jobs/", "http://127.0.0.1:1")
    store = jobs.below("bank").open()
    assert (store.uri, store.endpoint_url) == ("s3://lab/jobs/bank", "http://127.0.0.1:1")
    assert (str(jobs), jobs.is_on_s3, Place("/data").is_on_s3) == ("s3://lab/jobs/", True, False)
    assert place_of(jobs) is jobs and place_of(Path("/data/bank")) == Place("/data/bank")
    assert jobs and not NOWHERE


def test_a_file_system_without_hard_links_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", link)
    with pytest.raises(
        RegistryError, match=r"knows no hard links.*; use a folder on one that does .* or a bucket"
    ) as told:
        FolderStore(tmp_path).create("a", b"x")
    assert "\n" not in str(told.value) and list(tmp_path.iterdir()) == []


def test_a_link_that_was_made_though_its_answer_was_lost_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def twice(source: Path, target: Path) -> None:  # as NFS asks again
        link(source, target)
        link(source, target)

    monkeypatch.setattr("os.link", twice)
    assert FolderStore(tmp_path).create("a", b"x")
    monkeypatch.setattr("os.path.exists", lambda _: False)
    assert not FolderStore(tmp_path).create("a", b"y")
    assert FolderStore(tmp_path).get("a") == b"x"


def test_a_file_system_that_knows_no_rights_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chmod(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.chmod", chmod)
    FolderStore(tmp_path).put("a", b"x")
    assert FolderStore(tmp_path).get("a") == b"x"


def test_the_time_of_a_folder_is_that_of_its_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 10**6)
    assert abs(FolderStore(tmp_path).now() - now) < 5
    with pytest.raises(RegistryError, match=r"cannot tell the time in .*nowhere"):
        FolderStore(tmp_path / "nowhere").now()


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_is_moved_needs_no_space_and_has_the_time_of_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FolderStore(tmp_path)
    store.put("a/b", b"x")
    os.utime(tmp_path / "a/b", (0, 0))
    monkeypatch.setattr("tempfile.mkstemp", full)
    store.move("a/b", "c/d", within_s=60)
    (entry,) = store.entries("")
    assert entry.key == "c/d" and abs(entry.modified - store.now()) < 60 and store.get("c/d") == b"x"
    with pytest.raises(NotFoundError, match="has no a/b"):
        store.move("a/b", "c/e", within_s=60)


def test_the_file_of_somebody_else_is_moved_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FolderStore(tmp_path)
    store.put("a", b"x")

    def utime(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.utime", utime)
    store.move("a", "b", within_s=60)
    assert list(store.keys("")) == ["b"] and store.get("b") == b"x"


@pytest.mark.timeout(20)
def test_a_pipe_in_the_place_of_an_object_is_named_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "card.json")
    with pytest.raises(RegistryError, match=r"cannot read card.json in .*: it is a named pipe, no file"):
        FolderStore(tmp_path).get("card.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(NotFoundError):
        FolderStore(tmp_path).get("folder")
