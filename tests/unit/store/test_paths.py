"""Files and folders in a bucket, by one listing. A real server answers in tests/integration/test_sources_s3.py."""

import io
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cellnet.errors import ConfigError, DataError
from cellnet.store import paths
from cellnet.store.objects import Entry
from cellnet.store.paths import HEAD_BYTES, SPAN_BYTES, BucketPath, path_at, real, refused_below, walk
from cellnet.store.place import Place


class Listed:
    """A bucket with objects; what was asked of it is kept."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects
        self.asked: list[str] = []

    def entries(self, prefix: str) -> Iterator[Entry]:
        self.asked.append(f"list {prefix}")
        return (
            Entry(key, len(data), 1.5, f"etag of {key}")
            for key, data in sorted(self.objects.items())
            if key.startswith(prefix)
        )

    def get_span(self, key: str, start: int, stop: int, *, etag: str) -> bytes:
        self.asked.append(f"get {key} {start} {stop}")
        assert etag == f"etag of {key}"
        return self.objects[key][start:stop]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Listed]:
    """`bucket("a/b.png", …)`: a bucket with these keys, each object the bytes of its key."""

    def make(*keys: str, **objects: bytes) -> Listed:
        listed = Listed({key: key.encode() for key in keys} | objects)
        monkeypatch.setattr(paths, "_store", lambda place: listed)
        paths._head.cache_clear()
        return listed

    return make


def at(uri: str) -> BucketPath:
    path = path_at(uri)
    assert isinstance(path, BucketPath)
    return path


def test_a_place_on_the_disk_is_a_path_of_pathlib(tmp_path: Path) -> None:
    assert path_at(tmp_path) == tmp_path and isinstance(path_at(str(tmp_path)), Path)


def test_all_below_a_prefix_is_known_by_one_listing(bucket: Callable[..., Listed]) -> None:
    listed = bucket("p/A/1.png", "p/A/2.png", "p/b.csv", "p10/A/1.png")
    folder = at("s3://lab/p/")
    assert folder.is_dir() and not folder.is_file() and folder.exists()
    assert [str(path) for path in sorted(folder.iterdir())] == ["s3://lab/p/A", "s3://lab/p/b.csv"]
    assert (folder / "A/1.png").is_file() and (folder / "A").is_dir()
    assert not any((folder / name).exists() for name in ("a/1.png", "A/3.png", "A/1.png/x", "/p/b.csv", "b.cs"))
    assert [(str(root), folders, names) for root, folders, names in walk(folder)] == [
        ("s3://lab/p", ["A"], ["b.csv"]),
        ("s3://lab/p/A", [], ["1.png", "2.png"]),
    ]
    assert (folder / "b.csv").stat() == (len("p/b.csv"), 1_500_000_000, "etag of p/b.csv")
    assert listed.asked == ["list p/"]


def test_a_path_has_the_parts_that_pathlib_gives_it() -> None:
    path = at("s3://lab/p/A/1.tar.PNG")
    assert (path.name, path.stem, path.suffix) == ("1.tar.PNG", "1.tar", ".PNG")
    assert path.parent.parent == at("s3://lab/p") and path.parent / "1.tar.PNG" == path
    assert path.relative_to(at("s3://lab/p")).as_posix() == "A/1.tar.PNG"
    assert path.is_relative_to(path.parent) and not path.is_relative_to(at("s3://other/p"))
    assert len({path, at("s3://lab/p/A/1.tar.PNG"), Path("p/A/1.tar.PNG")}) == 2
    assert str(at("s3://lab")) == str(path.parent.parent.parent) == "s3://lab"


def test_folders_that_are_left_out_are_not_walked(bucket: Callable[..., Listed]) -> None:
    bucket("p/A/1.png", "p/B/1.png")
    seen = []
    for root, folders, _ in walk(at("s3://lab/p")):
        seen.append(root.name)
        folders[:] = [name for name in folders if name != "A"]
    assert seen == ["p", "B"]


def test_of_an_object_its_folder_is_listed_where_it_is_needed_and_the_one_above_it_then(
    bucket: Callable[..., Listed],
) -> None:
    listed = bucket("x/1.png", "x/s/y/2.png", "x/s/labels/m.csv", "x/s/labels/3.png")
    table = at("s3://lab/x/s/labels/m.csv")
    assert table.is_file() and not table.is_dir() and table.open().read() == b"x/s/labels/m.csv"
    assert listed.asked == ["list x/s/labels/m.csv/", "list x/s/labels/m.csv", "get x/s/labels/m.csv 0 16"]
    listed.asked.clear()
    assert (table.parent / "3.png").is_file() and not (table.parent / "4.png").exists() and table.parent.is_dir()
    assert listed.asked == ["list x/s/labels/"]
    assert (table.parent / "../y/2.png").is_file() and real(table.parent / "../y/2.png").parent.name == "y"
    assert listed.asked[1:] == ["list x/s/"]
    assert not any((table.parent / name).exists() for name in ("../../1.png", "../../../x/1.png", "/x/1.png"))
    assert listed.asked[2:] == [], "nothing beyond is asked for"


def test_dots_lead_to_nothing_that_was_not_listed(bucket: Callable[..., Listed]) -> None:
    listed = bucket("p/A/1.png", "q/secret.png")
    folder = at("s3://lab/p")
    assert (folder / "A/../A/1.png").is_file()
    for name in ("../q/secret.png", "../../q/secret.png", "/q/secret.png", "A/../../q/secret.png", "../p10"):
        assert not (folder / name).exists()
        with pytest.raises(FileNotFoundError):
            (folder / name).open()
    assert not real(folder / "../q/secret.png").is_relative_to(real(folder))
    assert listed.asked == ["list p/"]


def test_keys_that_are_no_paths_are_told_and_never_files(bucket: Callable[..., Listed]) -> None:
    bucket("p/ok.png", "p/../q.png", "p//a.png", "p/./a.png", "p/a\n.png", "p/a\x1b[2J.png", "p/both", "p/both/a.png")
    folder = at("s3://lab/p")
    assert [(root.name, names) for root, _, names in walk(folder)] == [("p", ["ok.png"]), ("both", ["a.png"])]
    told = dict(refused_below(folder))
    assert {key: why.partition(";")[0] for key, why in told.items()} == {
        "s3://lab/p/../q.png": "its key has . or .. as a part",
        "s3://lab/p//a.png": "its key has an empty part",
        "s3://lab/p/./a.png": "its key has . or .. as a part",
        "s3://lab/p/a\n.png": "its key has control characters",
        "s3://lab/p/a\x1b[2J.png": "its key has control characters",
        "s3://lab/p/both": "it is a folder too",
    }


@pytest.mark.parametrize(
    "uri", ["s3://", "s3:///p", "s3://lab/p/../q", "s3://lab/p//q", "s3://lab//p", "s3://lab/a\nb"]
)
def test_a_place_that_is_no_prefix_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match="is no place"):
        path_at(uri)


def test_a_prefix_of_more_objects_than_anybody_imports_is_refused(
    bucket: Callable[..., Listed], monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket("p/1.png", "p/2.png", "p/3.png")
    monkeypatch.setattr(paths, "MOST_OBJECTS", 2)
    with pytest.raises(DataError, match="s3://lab/p holds over 2 objects; give a prefix"):
        at("s3://lab/p").is_dir()


def test_an_object_that_travels_knows_itself_and_takes_no_listing_along(bucket: Callable[..., Listed]) -> None:
    listed = bucket("p/A/1.png", *(f"p/A/{number:04}.png" for number in range(2000)))
    path = at("s3://lab/p") / "A/1.png"
    assert path.is_file()
    sent = pickle.dumps(path)
    assert len(sent) < 1000
    listed.asked.clear()
    there = pickle.loads(sent)
    assert there == path and there.stat() == path.stat() and there.open().read() == b"p/A/1.png"
    assert not (there.parent / "0001.png").exists() and listed.asked == ["get p/A/1.png 0 9"]


def test_credentials_and_clients_do_not_travel_with_a_place() -> None:
    path = path_at(Place("s3://lab/p/a.png", "http://127.0.0.1:1"))
    assert isinstance(path, BucketPath)
    path._tree._unlisted = []
    sent = pickle.dumps(path)
    assert b"http://127.0.0.1:1" in sent and b"client" not in sent and b"AWS" not in sent


def test_the_beginning_of_an_object_is_asked_for_once_and_the_rest_in_large_spans(
    bucket: Callable[..., Listed],
) -> None:
    data = os.urandom(SPAN_BYTES + 3 * HEAD_BYTES)
    listed = bucket(**{"table.txt": data, "small.csv": b"image,count"})
    table = at("s3://lab/table.txt")
    table.is_file()
    listed.asked.clear()
    for _ in range(2):
        assert table.open().read(4) == data[:4]
    assert listed.asked == [f"get table.txt 0 {HEAD_BYTES}"]
    with io.TextIOWrapper(table.open(), encoding="latin-1", newline="") as file:
        assert file.read() == data.decode("latin-1")
    assert len(listed.asked) <= 3
    listed.asked.clear()
    with table.open() as file:
        assert file.seek(0, os.SEEK_END) == len(data) and file.seek(-5, os.SEEK_END)
        assert file.read() == data[-5:]
        file.seek(7)
        assert file.read(10) == data[7:17]
    assert len(listed.asked) == 2


def test_a_whole_read_is_one_request(bucket: Callable[..., Listed]) -> None:
    data = os.urandom(3 * SPAN_BYTES)
    listed = bucket(**{"large.json": data})
    path = at("s3://lab/large.json")
    path.is_file()
    listed.asked.clear()
    assert path.open().read(10 * len(data)) == data
    assert listed.asked == [f"get large.json 0 {len(data)}"]


def test_threads_that_ask_at_once_share_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Slow(paths.S3Store):
        @property
        def client(self) -> object:
            made.append(threading.current_thread())
            time.sleep(0.05)  # as long as it takes, in which others ask
            return object()

    monkeypatch.setattr(paths, "S3Store", Slow)
    paths._made.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(paths._store, [Place("s3://shared")] * 64))
    assert len(made) == len(set(map(id, stores))) == 1
    paths._made.cache_clear()
