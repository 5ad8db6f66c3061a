"""Which channel of a file is meant is told, or asked for, in the same way wherever the file comes in."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cellnet.bank.bank import Bank
from cellnet.bank.prepare import prepare_all
from cellnet.errors import DataError
from cellnet.prediction.answers import Prediction
from cellnet.prediction.lineup import resolve_models
from cellnet.prediction.sources import list_files
from cellnet.readers import Options, read_source
from pipelines.predict import Question, _answers, _read
from tests.factories import Known, champions, even, even_png
from tests.unit.images.test_images import post, sent
from tests.unit.serve.kitchen import Kitchen

LISTED = "no transmitted light among its 2 channels; choose a channel: 1 DAPI, 2 GFP"


def stack(*names: str) -> bytes:
    """Three planes deep: the first channel is dark, the second bright, and the middle of each lies in the middle."""
    buffer = io.BytesIO()
    planes = np.stack([[even(grey=grey + z) for grey in (60, 200)] for z in range(3)])
    metadata = {"axes": "ZCYX", "Channel": {"Name": list(names)}}
    tifffile.imwrite(buffer, planes, photometric="minisblack", ome=True, metadata=metadata)
    return buffer.getvalue()


ASKED, KNOWN = stack("DAPI", "GFP"), stack("DAPI", "TL Brightfield")


def import_it(folder: Path, data: bytes, channel: str | None) -> tuple[str, str]:
    (folder / "in/A549").mkdir(parents=True)
    (folder / "in/A549/s.tif").write_bytes(data)
    bank = Bank.create(folder / "bank")
    frames = prepare_all(sent(read_source(folder / "in", Options(channel=channel))), bank.store)
    bank.add(frames)
    [frame] = frames
    if frame.set_aside:
        raise DataError(f"s.tif: {frame.set_aside}")
    return Path(frame.source).name, "VERO6" if bank.pixels(frame).mean() > 128 else "A172"


def predict_it(folder: Path, data: bytes, channel: str | None) -> tuple[str, str]:
    folder.mkdir(exist_ok=True)
    (folder / "s.tif").write_bytes(data)
    registry = champions(folder)
    models = resolve_models(registry, None, None)
    question = Question(registry=registry, models=models, pixel_um=None, page=None, channel=channel)
    [file] = sent(list_files([folder / "s.tif"], channel=channel))
    return told(list(_answers(models.map(Known), file, _read(file), question)))


def told(said: list[Prediction]) -> tuple[str, str]:
    [prediction] = said
    if prediction.error:
        assert prediction.channels == ["DAPI", "GFP"] and prediction.lineage is None
        raise DataError(prediction.error)
    assert prediction.channels is None
    return Path(prediction.image).name, str(prediction.lineage)


def answer_it(folder: Path, data: bytes, channel: str | None) -> tuple[str, str]:
    params = {"name": "s.tif"} | ({"channel": channel} if channel else {})
    return told(answered(folder, "/v1/predict", content=data, params=params))


def answer_it_among_others(folder: Path, data: bytes, channel: str | None) -> tuple[str, str]:
    files = [("images", ("s.tif", data)), ("images", ("other.png", even_png()))]
    first, other = answered(folder, "/v1/predict", files=files, params={"channel": channel} if channel else {})
    assert other.lineage == "A172"
    return told([first])


def infer_it(folder: Path, data: bytes, channel: str | None) -> tuple[str, str]:
    inputs = [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(data).decode()]}]
    body = {"inputs": inputs, "parameters": {"channel": channel} if channel else {}}
    [lineage] = [
        output["data"][0]
        for output in answered(folder, "/v2/models/classifier/infer", json=body)
        if output["name"] == "lineage"
    ]
    return "s.tif#" + "3456"[1 if lineage == "VERO6" else 0], lineage


def answered(folder: Path, path: str, **request: Any) -> Any:
    response = post(Kitchen(champions(folder)), path, status=None, **request)
    body = response.json()
    if response.status_code == 422:
        assert response.headers["content-type"] == "application/problem+json"
        assert body["channels"] == ["DAPI", "GFP"]
        raise DataError(body["detail"])
    assert response.status_code == 200, body
    return body["outputs"] if "outputs" in body else [Prediction(**one) for one in body["predictions"]]


WAYS = [import_it, predict_it, answer_it, answer_it_among_others, infer_it]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_channel_is_asked_for_where_none_is_of_transmitted_light_and_taken_by_name_or_number(
    tmp_path: Path, way: Any
) -> None:
    with pytest.raises(DataError, match=LISTED):
        way(tmp_path / "1", ASKED, None)
    assert way(tmp_path / "2", ASKED, "gfp") == ("s.tif#4", "VERO6")
    assert way(tmp_path / "3", ASKED, "1") == ("s.tif#3", "A172")
    with pytest.raises(DataError, match="has no channel 'Cy5'; it has 1 DAPI, 2 GFP"):
        way(tmp_path / "4", ASKED, "Cy5")


@pytest.mark.parametrize("way", WAYS)
def test_transmitted_light_needs_no_word(tmp_path: Path, way: Any) -> None:
    assert way(tmp_path / "1", KNOWN, None) == ("s.tif#4", "VERO6")
