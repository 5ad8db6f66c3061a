"""Sources in a bucket, on loopback: readers find what they find in a folder, by one listing and one read an image."""

import io
import json
import os
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import cv2
import numpy as np
import pytest
from botocore.awsrequest import AWSResponse

from cellnet.bank.bank import Bank, Imported
from cellnet.bank.frames import Frame
from cellnet.bank.prepare import prepare_all
from cellnet.errors import ConfigError, DataError, DeniedError, NotFoundError, UnavailableError
from cellnet.prediction.sources import list_files
from cellnet.readers import LabelledFile, Options, Source, read_source
from cellnet.store import paths
from cellnet.store.paths import AnyPath, path_at
from cellnet.store.place import Place, PlaceLike
from tests.factories import SHARED, clouds

pytestmark = pytest.mark.usefixtures("credentials")


class Bucket:
    """The bucket of the tests, what it was asked through cellnet, and answers of other servers."""

    def __init__(self, address: str) -> None:
        self.place = Place("s3://lab", address)
        self.client = boto3.client("s3", endpoint_url=address, region_name="us-east-1")
        self.asked: list[tuple[str, str]] = []
        self.refused: dict[str, tuple[int, str]] = {}
        events = paths._store(self.place).client.meta.events
        events.register("before-parameter-build.s3", self._note)
        events.register("before-send.s3", self._answer)

    def upload(self, folder: Path, prefix: str) -> None:
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket="lab", Key=key, Body=data)

    def at(self, key: str) -> AnyPath:
        return path_at(self.place.below(key))

    def lists(self) -> int:
        return sum(what == "ListObjectsV2" for what, _ in self.asked)

    def reads(self) -> dict[str, int]:
        keys = [key for what, key in self.asked if what == "GetObject"]
        return {key: keys.count(key) for key in keys}

    def _note(self, params: dict[str, Any], model: Any, **_: object) -> None:
        self.asked.append((model.name, params.get("Key", "")))

    def _answer(self, request: Any, **_: object) -> AWSResponse | None:
        for part, (status, code) in self.refused.items():
            if part in request.url:
                body = f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode()
                return AWSResponse(request.url, status, {}, _Raw(body))
        return None


class _Raw(io.BytesIO):
    def stream(self, **_: object) -> Iterator[bytes]:
        yield self.read()


@pytest.fixture
def bucket(moto: str, credentials: None) -> Iterator[Bucket]:
    """With the credentials of the test."""
    for cache in (paths._made, paths._head):
        cache.cache_clear()
    yield Bucket(moto)
    for cache in (paths._made, paths._head):
        cache.cache_clear()


# Sources of each kind, small and complete


def image(path: Path, seed: int, *, bits: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), clouds(48, 64, seed=seed, bits=bits))


def text(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def manifest(folder: Path) -> str:
    """Paths, names that are forgiven, a file that is missing, points, one that no row names, a folder above."""
    for seed, name in enumerate(("labels/a.png", "labels/sub/B.TIF", "labels/c.png", "labels/other.png", "up/d.png")):
        image(folder / name, seed)
    rows = (
        "a.png,A549,2,B02",
        "SUB\\b.tif,A172,,B03",
        "gone.png,A172,1,B03",
        "c.png,A172,x,B04",
        "../up/d.png,A549,3,B05",
    )
    text(folder / "labels/manifest.csv", "image,lineage,count,group", *rows)
    text(folder / "labels/points.csv", "image,x,y", "a.png,3,4", "a.png,5,6", "sub/B.TIF,7,8", "nowhere.png,1,1")
    return "labels/manifest.csv"


def lineages(folder: Path) -> str:
    """Folders of lineages with counts, a table of ImageJ, a split, labels of others, a workbook, hidden files."""
    names = ("train/A549/a.png", "train/A549/b.tif", "A172/c.png", "A172/deep/d.png", "A172/e.png", ".cache/x.png")
    for seed, name in enumerate(names):
        image(folder / name, seed)
    text(folder / "counts.csv", "image,count", "train/A549/a.png,4", "c.png,2.5", "nobody.png,1")
    text(folder / "A172/Results_e.csv", " ,X,Y", "1,10,12", "2,20,30")
    text(folder / "A172/CellCounter_nobody.xml", "<CellCounter_Marker_File></CellCounter_Marker_File>")
    text(folder / "A172/c.txt", "0 0.5 0.5 0.1 0.1")
    text(folder / "A172/.DS_Store", "x")
    (folder / "A172/z.czi").write_bytes(b"ZISRAWFILE")
    text(folder / "A172/Thumbs.xlsx", "PK")
    return ""


def masks(folder: Path) -> str:
    """Images with their masks, one without, and a mask of none."""
    for seed, name in enumerate(("images/A172_1.png", "images/A549_2.png", "images/A549_3.png")):
        image(folder / name, seed)
    mask_HW = np.zeros((48, 64), np.uint16)
    mask_HW[4:10, 4:10], mask_HW[20:30, 20:30] = 1, 2
    (folder / "masks").mkdir()
    for name in ("A172_1.tif", "A549_2.tif", "nobody.tif"):
        assert cv2.imwrite(str(folder / "masks" / name), mask_HW)
    return ""


def coco(folder: Path) -> str:
    """Annotations beside the folder of the images, with an image that is missing."""
    for seed in range(2):
        image(folder / f"images/train/{seed}_x.tif", seed)
    named = [{"id": number, "file_name": f"/data/of/others/{number}_x.tif"} for number in range(3)]
    cells = [{"id": number, "image_id": number % 3, "category_id": 1, "bbox": [3, 4, 5, 6]} for number in range(5)]
    document = {"images": named, "annotations": cells, "categories": [{"id": 1, "name": "cell"}]}
    text(folder / "annotations/instances_train.json", json.dumps(document))
    return "annotations/instances_train.json"


def roboflow(folder: Path) -> str:
    """A folder as Roboflow exports it."""
    name = coco(folder)
    (folder / name).rename(folder / "_annotations.coco.json")
    return ""


def harmony(folder: Path) -> str:
    """An export with a layout, results of objects and wells, a plane that is missing and one outside of the export."""
    planes = []
    for column, name in enumerate(
        ("r02c01f01p01-ch1.tiff", "r02c02f01p01-ch1.tiff", "gone.tiff", "../up.tiff"), start=1
    ):
        facts = {"URL": name, "Row": 2, "Col": column, "FieldID": 1, "ChannelName": "Brightfield"}
        facts |= {"ChannelType": "Brightfield", "ImageResolutionX": "5.9E-07"}
        planes.append(f"<Image>{''.join(f'<{key}>{value}</{key}>' for key, value in facts.items())}</Image>")
        if name != "gone.tiff":
            image(folder / "P" / "Images" / name, column)
    text(folder / "P/Images/Index.idx.xml", f"<Data><Plate><Name>P1</Name></Plate>{''.join(planes)}</Data>")
    wells = "".join(f"<Well><Row>2</Row><Col>{c}</Col><Value>A{c}</Value></Well>" for c in range(1, 5))
    text(folder / "P/Assaylayout/p.xml", f"<L><Layer><Name>Cell line</Name>{wells}</Layer></L>")
    objects = (
        "Plate Name\tP1",
        "[Data]",
        "Row\tColumn\tField\tX\tY",
        "2\t1\t1\t3\t4",
        "2\t1\t1\t5\t6",
        "2\t2\t1\t7\t8",
    )
    text(folder / "P/Evaluation1/Objects_Population - Cells.txt", *objects)
    text(
        folder / "P/Evaluation1/PlateResults.txt", "Plate Name\tP1", "[Data]", "Row\tColumn\tNumber of Analyzed Fields"
    )
    return "P"


MEASURED = "{}/A172/e.png"
"""The image of ImageJ's table, whose header says in which unit that is."""


class Kind(NamedTuple):
    """A source, and what an import of it takes."""

    write: Callable[[Path], str]
    options: Options = Options()
    frames: int = 0
    lists: int = 1
    """Requests for pages of keys."""


KINDS = {
    "manifest": Kind(manifest, frames=3, lists=4),  # what it is, its folder, and the one above, which a row names
    "lineages": Kind(lineages, frames=4),
    "masks": Kind(masks, Options(lineage_pattern="^([^_]+)"), frames=3),
    "coco": Kind(coco, frames=2, lists=4),
    "roboflow": Kind(roboflow, frames=2),
    "harmony": Kind(harmony, frames=2),
}


def told(source: Source, root: str) -> list[Any]:
    """What a reader found, with names that are alike wherever it lies."""

    def plain(file: LabelledFile) -> dict[str, Any]:
        return vars(file) | {"image": file.image.place, "mask": file.mask and file.mask.place}

    said = json.dumps([[plain(file) for file in source], [vars(item) for item in source.unused]], ensure_ascii=False)
    return list(json.loads(re.sub(r"[^/\"]+/\.\./", "", said.replace(root, "ROOT"))))


def imported(files: Any, place: Path) -> tuple[Bank, Imported]:
    """What a job makes of the files, which it sends to its workers."""
    bank = Bank.create(place)
    return bank, bank.add(prepare_all(pickle.loads(pickle.dumps(list(files))), bank.store))


def sources(frames: list[Frame], root: str) -> list[tuple[str, str]]:
    return [
        (os.path.normpath(frame.source.replace(root, "ROOT")), (frame.set_aside or "").replace(root, "ROOT"))
        for frame in frames
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_in_a_bucket_is_what_it_is_in_a_folder(kind: str, bucket: Bucket, tmp_path: Path) -> None:
    folder, (write, options, frames, lists) = tmp_path / "in", KINDS[kind]
    name = write(folder)
    bucket.upload(folder, f"equal/{kind}")
    bucket.put(f"equal/{kind}-of-others/a.png", b"x")
    there, root = bucket.at(f"equal/{kind}/{name}"), f"s3://lab/equal/{kind}"
    local, remote = read_source(folder / name, options), read_source(there, options)
    assert told(remote, root) == told(local, str(folder))
    here, _ = imported(local, tmp_path / "here")
    bank, _ = imported(remote, tmp_path / "there")
    assert len(bank.frames) == frames and bank.digest == here.digest
    assert sources(bank.frames, root) == sources(here.frames, str(folder))
    assert sources(bank.set_aside, root) == sources(here.set_aside, str(folder))
    assert all(frame.source.startswith(f"{root}/") for frame in bank.frames)
    assert bucket.lists() == lists
    assert {key for key, times in bucket.reads().items() if times > 1} <= {MEASURED.format(f"equal/{kind}")}


@pytest.mark.skipif(not (SHARED / "data/harmony/v1").is_dir(), reason="no images of others here")
def test_a_plate_of_an_opera_in_a_bucket_is_what_it_is_in_a_folder(bucket: Bucket, tmp_path: Path) -> None:
    folder = SHARED / "data/harmony/v1"
    bucket.upload(folder, "opera")
    here, _ = imported(read_source(folder), tmp_path / "here")
    bank, _ = imported(read_source(bucket.at("opera")), tmp_path / "there")
    assert bank.frames and bank.digest == here.digest
    assert (bucket.lists(), len(bucket.reads())) == (1, 2), "the index and the image"


@pytest.mark.parametrize("kind", ["manifest", "harmony"])
def test_what_is_predicted_of_a_bucket_is_what_is_predicted_of_a_folder(
    kind: str, bucket: Bucket, tmp_path: Path
) -> None:
    name = KINDS[kind].write(tmp_path)
    bucket.upload(tmp_path, f"predicted/{kind}")
    place = bucket.place.below(f"predicted/{kind}/{name}")

    def known(place: PlaceLike, root: str) -> list[tuple[Any, ...]]:
        return [
            (os.path.normpath(file.place.replace(root, "ROOT")), os.path.normpath(file.name.replace(root, "ROOT")),
             file.folder.rpartition("/")[2], file.well, file.pixel_um, file.problem, file.size)
            for file in list_files([place])
        ]  # fmt: skip

    assert known(place, f"s3://lab/predicted/{kind}") == known(tmp_path / name, str(tmp_path))
    remote = list_files([place])
    assert pickle.loads(pickle.dumps(remote[0])).read().decode().shape == (48, 64)


def test_a_page_is_chosen_of_stacks_in_a_bucket(bucket: Bucket, tmp_path: Path) -> None:
    pages = [clouds(48, 64, seed=seed) for seed in range(3)]
    (tmp_path / "A549").mkdir()
    assert cv2.imwritemulti(str(tmp_path / "A549/stack.tif"), pages)
    bucket.upload(tmp_path, "pages")
    files = read_source(bucket.at("pages"), Options(page="all"))
    bank, _ = imported(files, tmp_path / "bank")
    assert [frame.source for frame in bank.frames] == [f"s3://lab/pages/A549/stack.tif#{page}" for page in (1, 2, 3)]
    assert np.array_equal(bank.pixels(bank.frames[1]), pages[1])


def test_what_was_read_is_not_read_again_until_it_changes(bucket: Bucket, tmp_path: Path) -> None:
    lineages(tmp_path / "in")
    bucket.upload(tmp_path / "in", "again")
    imported(read_source(bucket.at("again")), tmp_path / "bank")
    bucket.asked.clear()
    _, done = imported(read_source(bucket.at("again")), tmp_path / "bank")
    assert (done.added, done.known) == (0, 4)
    assert {key for key in bucket.reads() if key.endswith((".png", ".tif"))} <= {MEASURED.format("again")}
    before = (tmp_path / "in/A172/c.png").read_bytes()
    bucket.put("again/A172/c.png", before[:-1] + bytes([before[-1] ^ 1]))  # of the same size
    _, done = imported(read_source(bucket.at("again")), tmp_path / "bank")
    assert bucket.reads()["again/A172/c.png"] == 1


REFUSALS = {
    (403, "AccessDenied"): "AccessDenied No.; these credentials lack s3:GetObject there, or its key",
    (403, "InvalidObjectState"): "InvalidObjectState No.; it is archived; restore it first",
    (404, "NoSuchKey"): "it is gone since its folder was listed",
}


@pytest.mark.parametrize("answer", REFUSALS)
def test_an_image_that_may_not_be_had_is_set_aside_and_asked_for_again_the_next_time(
    answer: tuple[int, str], bucket: Bucket, tmp_path: Path
) -> None:
    for seed in range(3):
        image(tmp_path / f"in/A549/{seed}.png", seed)
    prefix = f"refused/{answer[1]}"
    bucket.upload(tmp_path / "in", prefix)
    bucket.refused["A549/1.png"] = answer
    bank, _ = imported(read_source(bucket.at(prefix)), tmp_path / "bank")
    [aside] = bank.set_aside
    assert (aside.source, aside.set_aside) == (
        f"s3://lab/{prefix}/A549/1.png",
        f"cannot be read: {REFUSALS[answer]}",
    )
    assert len(bank.frames) == 2
    bucket.refused.clear()
    bank, done = imported(read_source(bucket.at(prefix)), tmp_path / "bank")
    assert done.added == 1 and not bank.set_aside


def test_a_bucket_that_is_not_there_or_may_not_be_listed_ends_an_import_in_a_line(bucket: Bucket) -> None:
    with pytest.raises(NotFoundError, match="there is no bucket 'nowhere'; make it first"):
        read_source(path_at(bucket.place.elsewhere("s3://nowhere/p")))
    with pytest.raises(DataError, match="s3://lab/empty is no object, and there is none below it; give a manifest"):
        read_source(bucket.at("empty"))
    bucket.refused["prefix=denied"] = (403, "AccessDenied")
    with pytest.raises(DeniedError, match=r"cannot list denied/ in s3://lab: AccessDenied No.; .* lack s3:ListBucket"):
        read_source(bucket.at("denied"))


@pytest.mark.parametrize(
    ("answer", "error"), [((503, "SlowDown"), UnavailableError), ((403, "ExpiredToken"), Exception)]
)
def test_what_is_wrong_with_all_images_ends_an_import_and_sets_none_aside(
    answer: tuple[int, str], error: type[Exception], bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    image(tmp_path / "in/A549/1.png", 1)
    bucket.upload(tmp_path / "in", "slow")
    bucket.refused["A549/1.png"] = answer
    with pytest.raises(error, match=answer[1]) as caught:
        imported(read_source(bucket.at("slow")), tmp_path / "bank")
    assert not isinstance(caught.value, DataError)


def test_a_table_that_changes_while_it_is_read_is_never_half_of_each(bucket: Bucket) -> None:
    bucket.put("changes/manifest.csv", b"image,lineage,count,group\na.png,A549,1,B2\n")
    source = bucket.at("changes")
    assert source.is_dir()
    bucket.put("changes/manifest.csv", b"image,lineage,count,group\na.png,A172,1,B2\n")
    with pytest.raises(DataError, match="changed since its folder was listed"):
        read_source(source)


def test_an_image_over_the_limit_is_not_asked_for(bucket: Bucket, tmp_path: Path) -> None:
    image(tmp_path / "A549/1.png", 1)
    bucket.upload(tmp_path, "large")
    [file] = read_source(bucket.at("large"))
    bucket.asked.clear()
    with pytest.raises(DataError, match=r"1\.png: over 0 GB, so it was not read"):
        file.image.in_memory(100)
    assert bucket.asked == []


def test_hostile_keys_are_told_and_their_objects_are_not_read(bucket: Bucket, tmp_path: Path) -> None:
    image(tmp_path / "A549/1.png", 1)
    bucket.upload(tmp_path, "hostile")
    hostile = ["hostile/A549/a\t.png", "hostile/A549//b.png"]
    for key in hostile:
        bucket.put(key, (tmp_path / "A549/1.png").read_bytes())
    source = read_source(bucket.at("hostile"))
    assert [file.image.place for file in source] == ["s3://lab/hostile/A549/1.png"]
    assert [(item.what, item.reason) for item in source.unused] == [
        (f"s3://lab/{key}", "no_path") for key in sorted(hostile)
    ]


def test_a_source_without_credentials_says_so(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    paths._made.cache_clear()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(ConfigError, match="no S3 credentials found"):
        read_source(bucket.at("anything"))
