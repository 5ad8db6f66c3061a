"""Batch prediction on a real local Ray: folders, S3 and Harmony exports, interrupted and gone on with."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import boto3
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import cellnet.reports.results
import pipelines.predict
from cellnet.bank.bank import Bank
from cellnet.bank.history import drawn
from cellnet.cli import main
from cellnet.errors import ConfigError, IntegrityError
from cellnet.places import Places
from cellnet.prediction.predictor import Predictor
from cellnet.registry.registry import Registry
from cellnet.store.place import Place, place_of
from cellnet.untrusted import WEIGHTS
from pipelines.predict import predict, prepare
from tests.factories import clouds, publish_untrained

pytestmark = pytest.mark.ray

WELLS = ("B02", "B03", "C02")


@pytest.fixture(scope="module")
def registry(ray_started: None, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A classifier with its ONNX export, and a counter of before there were any; both untrained, and champions."""
    registry = Registry.open(str(tmp_path_factory.mktemp("registry")))
    publish_untrained(registry, "classify", classes=("3T3", "A549"))
    publish_untrained(registry, "count", onnx=False)
    return registry


@pytest.fixture
def places(registry: Registry) -> Places:
    return Places(registry=place_of(registry.store.uri))


def frame(seed: int) -> NDArray[np.uint8]:
    """Something of two tiles to look at."""
    return clouds(220, 420, seed=seed)


def draw(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        assert cv2.imwrite(str(folder / name), frame(seed))
    return folder


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def expected(registry: Registry, image_HW: NDArray[Any], pixel_um: float | None = None) -> tuple[str, float]:
    """What torch says, of the same weights."""
    classifier, counter = (Predictor.load(registry, f"{name}:champion") for name in ("classifier", "regressor"))
    probability_K = classifier.predict(image_HW, pixel_um=pixel_um).probability_K
    lineage = classifier.card.classes[int(probability_K.argmax())]
    return lineage, counter.predict(image_HW, pixel_um=pixel_um).count


def test_a_plate_with_a_bad_image_gives_rows_tables_and_a_picture(
    registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plate = draw(tmp_path / "P7", *(f"{well}_{field}.png" for well in WELLS for field in (1, 2)))
    (plate / "C02_3.png").write_bytes(b"no image")
    (plate / "protocol.pdf").write_bytes(b"%PDF")
    out = plate / "out"
    command = ["predict", str(plate), "--registry", registry.store.uri, "--csv", "--out", str(out)]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert f"skipped, not an image: 1, {plate}/protocol.pdf\n" in printed.err
    rows = rows_of(printed.out)
    assert [Path(row["image"]).name for row in rows] == sorted(path.name for path in plate.glob("*.png"))
    assert "C02_3.png: not a readable" in rows[-1]["error"] and rows[-1]["count"] == ""
    for row in rows[:-1]:
        lineage, count = expected(registry, cv2.imread(row["image"], cv2.IMREAD_GRAYSCALE))
        assert row["lineage"] == lineage and float(row["count"]) == pytest.approx(count, abs=1e-3)
        assert (row["classifier"], row["regressor"], row["magnification"]) == ("classifier@1", "regressor@1", "assumed")
    kept = rows_of((out / "predictions.csv").read_text())
    assert [{name: row[name] for name in rows[0]} for row in kept] == rows
    assert [(row["plate"], row["well"]) for row in kept[::2]] == [
        ("P7", "B02"),
        ("P7", "B03"),
        ("P7", "C02"),
        ("P7", "C02"),
    ]
    image_HW3 = cv2.imread(str(out / "plate.png")).astype(int)
    assert (image_HW3[..., 0] - image_HW3[..., 2] > 60).sum() > 3000, "its wells are blue"
    assert "6 images predicted, 1 not\n" in printed.err
    assert printed.err.splitlines()[-1] == f"written: {out}/plate.png"
    (plate / "C02_3.png").unlink()
    assert main([*command, "--strict"]) == 3, "and its own results are no files that were skipped"
    assert f"skipped, not an image: 1, {plate}/protocol.pdf\n" in capsys.readouterr().err
    (plate / "protocol.pdf").unlink()
    assert main([*command, "--strict"]) == 0


def test_wells_over_time_have_growth_by_treatment(
    registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"V1_{well}_1_0{day}d06h00m.png" for well in ("B2", "B3", "C2") for day in range(3)]
    plate, out = draw(tmp_path / "P7", *names), tmp_path / "out"
    (tmp_path / "layout.csv").write_text("well,treatment,lineage\nB2,DMSO,U2OS\nB3,drug,U2OS\nC2,drug,U2OS\n")
    command = ["predict", str(plate), "--registry", registry.store.uri, "--out", str(out), "--control", "DMSO"]
    command += ["--layout", str(tmp_path / "layout.csv")]
    assert main(command) == 0
    printed = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[2].partition(":")[0] for line in printed if line.startswith("growth: ")] == [
        " U2OS, DMSO",
        " U2OS, drug",
    ]
    assert printed[-3:] == [f"written: {out}/{name}" for name in ("growth.csv", "doubling.csv", "growth.html")]
    said = {row["image"]: row["count"] for row in rows_of((out / "predictions.csv").read_text())}
    points = [row for row in rows_of((out / "growth.csv").read_text()) if row["well"]]
    assert [(row["well"], row["time_h"]) for row in points[:3]] == [("B02", "6.0"), ("B02", "30.0"), ("B02", "54.0")]
    assert [row["count"] for row in points] == [said[f"{plate}/{name}"] for name in names]
    before = {name: (out / name).read_bytes() for name in ("growth.csv", "doubling.csv")}
    assert main([*command, "--strict"]) == 0, "its own tables are no files that were skipped"
    assert "9 of 9 images were predicted before" in capsys.readouterr().err
    assert {name: (out / name).read_bytes() for name in before} == before


def test_a_job_that_was_stopped_goes_on_with_the_rest(
    registry: Registry, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines.predict, "CHUNK_IMAGES", 2)
    monkeypatch.setattr(cellnet.reports.results, "KEEP_S", 0)
    folder, out = draw(tmp_path / "in", *(f"{number}.png" for number in range(9))), tmp_path / "out"
    undisturbed = list(predict([folder], places))
    stopped = prepare([folder], places, out=str(out))
    running = stopped.run()
    early = [next(running) for _ in range(3)]
    running.close()
    rest = prepare([folder], places, out=str(out))
    assert 3 <= len(rest.kept) < 9
    said = list(rest.run())
    assert rest.done == 9 - len(rest.kept), "only those that were left"
    assert said == undisturbed and said[:3] == early
    assert rest.written == [f"{out}/predictions.csv", f"{out}/predictions.parquet"]
    again = prepare([folder], places, out=str(out))
    assert list(again.run()) == undisturbed and again.done == 0


def test_predictions_by_another_model_are_not_mixed_in(
    registry: Registry, places: Places, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = draw(tmp_path / "in", "a.png"), tmp_path / "out"
    command = ["predict", str(folder), "--registry", registry.store.uri, "--out", str(out)]
    assert main(command) == 0
    version = registry.resolve("regressor@1")
    other = registry.publish("rival", {WEIGHTS: registry.read(version, WEIGHTS)}, version.card)
    capsys.readouterr()
    assert main([*command, "--regressor", other.ref]) == 2
    refused = capsys.readouterr()
    assert refused.out == "" and refused.err == (
        f"cellnet: {out} holds predictions by classifier@1, regressor@1, not by classifier@1, {other.ref}; "
        "give another --out, or --overwrite\n"
    )
    assert main([*command, "--regressor", other.ref, "--overwrite", "--csv"]) == 0
    assert rows_of(capsys.readouterr().out)[0]["regressor"] == other.ref


def test_a_counter_of_one_lineage_and_the_same_for_all_are_not_mixed(registry: Registry, tmp_path: Path) -> None:
    own = Registry.open(str(tmp_path / "registry"))
    for name, like in (("classifier", "classifier@1"), ("regressor-A549", "regressor@1")):
        own.promote(own.publish(name, {}, registry.resolve(like).card).ref, "champion")
    given, out = [draw(tmp_path / "in", "a.png")], str(tmp_path / "out")
    places = Places(registry=place_of(own.store.uri))
    prepare(given, places, out=out)
    refused = "by classifier@1, regressor-A549@1 for A549, not by classifier@1, regressor-A549@1; give another --out"
    with pytest.raises(ConfigError, match=refused):
        prepare(given, places, regressor="regressor-A549:champion", out=out)
    assert prepare(given, places, out=out).done == 0


def test_a_model_that_is_damaged_ends_the_job_in_one_line(registry: Registry, places: Places, tmp_path: Path) -> None:
    version = registry.resolve("regressor@1")
    broken = registry.publish("broken", {WEIGHTS: b"not weights"}, version.card)
    with pytest.raises(IntegrityError, match=f"{WEIGHTS} of {broken.ref}|{broken.ref}"):
        list(predict([draw(tmp_path / "in", "a.png")], places, regressor=broken.ref))


def test_a_prefix_of_a_bucket_is_predicted_and_its_results_can_be_kept_in_one(
    registry: Registry, moto: str, credentials: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = boto3.client("s3", endpoint_url=moto, region_name="us-east-1")
    folder = draw(tmp_path / "in", "B02.png", "B03.png")
    for name in ("B02.png", "B03.png"):
        client.upload_file(str(folder / name), "lab", f"plates/P1/{name}")
    client.put_object(Bucket="lab", Key="plates/P1/notes.txt", Body=b"x")
    client.put_object(Bucket="lab", Key="plates/P10/B02.png", Body=b"of another plate")
    place = ["s3://lab/plates/P1", "--endpoint-url", moto, "--registry", registry.store.uri, "--csv"]
    assert main(["predict", *place, "--out", "s3://lab/results"]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert [row["image"] for row in rows] == ["s3://lab/plates/P1/B02.png", "s3://lab/plates/P1/B03.png"]
    counts = [expected(registry, frame(seed))[1] for seed in (0, 1)]
    assert [float(row["count"]) for row in rows] == pytest.approx(counts, abs=1e-3)
    kept = rows_of(client.get_object(Bucket="lab", Key="results/predictions.csv")["Body"].read().decode())
    assert [(row["plate"], row["well"]) for row in kept] == [("P1", "B02"), ("P1", "B03")]
    assert main(["predict", "s3://lab/plates/P1/B02.png", *place[1:], "--out", "s3://lab/results"]) == 0
    assert "1 of 1 images were predicted before" in capsys.readouterr().err
    assert main(["predict", "s3://lab/nothing", *place[1:]]) == 2
    assert "s3://lab/nothing is no object, and there is none below it" in capsys.readouterr().err


def test_a_prefix_of_a_bucket_is_imported_by_workers_that_read_it_themselves(
    registry: Registry, moto: str, credentials: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = boto3.client("s3", endpoint_url=moto, region_name="us-east-1")
    folder = draw(tmp_path / "in" / "A549", *(f"{number}.png" for number in range(20)))
    (folder / "bad.png").write_bytes(b"no image")
    for path in folder.iterdir():
        client.upload_file(str(path), "lab", f"imported/A549/{path.name}")
    counts = "".join(f"{number}.png,{number}\n" for number in range(20))
    client.put_object(Bucket="lab", Key="imported/counts.csv", Body=f"image,count\n{counts}".encode())
    client.put_object(Bucket="lab", Key="tables/known.csv", Body=f"image,count\n{counts}".encode())
    command = ["bank", "import", "s3://lab/imported/", str(tmp_path / "bank"), "--endpoint-url", moto]
    for said in ("20 frames added, 0 known already, 1 set aside", "0 frames added, 20 known already, 1 set aside"):
        assert main(command) == 0
        printed = capsys.readouterr().err
        assert said in printed and "set aside s3://lab/imported/A549/bad.png: " in printed
    bank = Bank.open(tmp_path / "bank")
    assert {frame.source: frame.count for frame in bank.frames} == {
        f"s3://lab/imported/A549/{number}.png": float(number) for number in range(20)
    }
    frames = [f"s3://lab/imported/A549/{number}.png" for number in (3, 5, 9)]
    known = ["--known", "s3://lab/tables/known.csv", "--registry", registry.store.uri, "--endpoint-url", moto]
    assert main(["calibrate", "regressor@1", *frames, *known]) == 0
    assert "s3://lab/tables/known.csv has 17 rows with a count of no given frame" in capsys.readouterr().err


def test_what_to_label_next_in_a_bank_in_a_bucket_is_what_one_process_says(
    registry: Registry, moto: str, credentials: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(tmp_path / "in" / "A549", *(f"{number}.png" for number in range(12)))
    (tmp_path / "in" / "counts.csv").write_text("image,count\n0.png,3\n1.png,4\n", encoding="utf-8")
    bank, there = "s3://lab/to-label", ["--endpoint-url", moto]
    assert main(["bank", "import", str(tmp_path / "in"), bank, *there]) == 0
    capsys.readouterr()
    out = ["--out", str(tmp_path / "todo.csv"), "--json"]
    assert main(["suggest", bank, "regressor@1", "-n", "4", *out, "--registry", registry.store.uri, *there]) == 0
    told = json.loads(capsys.readouterr().out)
    frames = {frame.source: frame for frame in Bank.open(Place(bank, moto)).frames}
    assert [one["drawn"] for one in told["frames"]] == ["chosen"] * 4 + ["random"]
    for one in told["frames"]:
        assert frames[one["image"]].frame == one["frame"] and frames[one["image"]].count is None
        said = expected(registry, frame(int(Path(one["image"]).stem)))[1]
        assert one["count"] == pytest.approx(said, abs=1e-3)
    filled = rows_of((tmp_path / "todo.csv").read_text(encoding="utf-8"))
    (tmp_path / "done.csv").write_text(
        "sha256,count,drawn\n" + "".join(f"{row['sha256']},9,{row['drawn']}\n" for row in filled), encoding="utf-8"
    )
    assert main(["bank", "label", bank, str(tmp_path / "done.csv"), *there]) == 0
    assert drawn(Bank.open(Place(bank, moto)).labels) == {row["sha256"]: row["drawn"] for row in filled}


def test_a_harmony_export_is_predicted_at_its_pixel_size(registry: Registry, places: Places, tmp_path: Path) -> None:
    images = draw(tmp_path / "plate" / "Images", "r02c03f01p01-ch1.tiff", "r02c03f01p01-ch2.tiff")
    facts = [
        f"<Image><URL>r02c03f01p01-ch{number}.tiff</URL><Row>2</Row><Col>3</Col><FieldID>1</FieldID>"
        f"<ChannelName>{kind}</ChannelName><ChannelType>{kind}</ChannelType>"
        "<ImageResolutionX>5.2E-07</ImageResolutionX></Image>"
        for number, kind in ((1, "Fluorescence"), (2, "Brightfield"))
    ]
    (images / "Index.idx.xml").write_text(f"<Data><Plate><Name>P1</Name></Plate>{''.join(facts)}</Data>")
    [said] = predict([tmp_path / "plate"], places)
    assert said.image == str(images / "r02c03f01p01-ch2.tiff") and said.magnification == "rescaled"
    assert said.count == pytest.approx(expected(registry, frame(1), pixel_um=0.52)[1], abs=1e-3)
