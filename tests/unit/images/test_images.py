"""The header of an image is read once on every way that the image takes, and its pages are counted once."""

import asyncio
import base64
import io
import itertools
import pickle
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import httpx
import numpy as np
import PIL.Image
import pytest

import cellnet.reports.overlays
from cellnet.bank.bank import Bank
from cellnet.bank.prepare import prepare_all
from cellnet.errors import DataError
from cellnet.images import apart, tiff
from cellnet.images.file import ImageFile, Pages
from cellnet.prediction.answers import Prediction
from cellnet.prediction.lineup import resolve_models
from cellnet.prediction.sources import ListedFile, list_files
from cellnet.readers import Options, read_source
from pipelines.predict import Question, _answers, _read
from serve.answering import How
from serve.overlays import Overlays
from tests.factories import SIDE, Known, champions, clouds, even_png
from tests.unit.serve.kitchen import Kitchen


def stack(pages: int) -> bytes:
    """A TIFF of so many different pages."""
    planes = [PIL.Image.fromarray(clouds(2 * SIDE, 2 * SIDE, seed=seed)) for seed in range(pages)]
    file = io.BytesIO()
    planes[0].save(file, "TIFF", save_all=True, append_images=planes[1:])
    return file.getvalue()


IMAGES = {"one.png": even_png(), "one.tif": stack(1), "stack.tif": stack(4)}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a header was read, of a TIFF with all its pages, and how often a page was decoded."""
    counts: Counter[str] = Counter()

    def count(what: str, module: Any, name: str) -> None:
        function = getattr(module, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            counts[what] += 1
            return function(*arguments, **options)

        monkeypatch.setattr(module, name, counted)

    count("headers", PIL.Image, "open")
    count("headers", tiff, "read_structure")
    count("decoded", cv2, "imdecode")
    count("decoded", tiff, "read_plane")
    here = Mock(header=lambda image: image.header, decode=lambda image, most: image.decode(most=most))
    monkeypatch.setattr(apart, "_process", lambda: here)  # whose reads can be counted
    return counts


def sent(thing: Any) -> Any:
    """As another process gets it."""
    return pickle.loads(pickle.dumps(thing))


def import_it(folder: Path, name: str, page: Pages) -> int:
    (folder / "in/A549").mkdir(parents=True)
    (folder / "in/A549" / name).write_bytes(IMAGES[name])
    files = read_source(folder / "in", Options(page=page))
    frames = prepare_all(sent(files), Bank.create(folder / "bank").store)
    assert [frame.set_aside for frame in frames] == [None] * len(files)
    return len(frames)


def predict_it(folder: Path, name: str, page: Pages) -> int:
    (folder / name).write_bytes(IMAGES[name])
    registry = champions(folder)
    models = resolve_models(registry, None, None)
    question = Question(registry=registry, models=models, pixel_um=None, page=page)
    [file] = sent(list_files([folder / name]))
    said = list(_answers(models.map(Known), file, _read(file), question))
    assert [prediction.error for prediction in said] == [None] * len(said)
    return len(said)


def post(kitchen: Kitchen, path: str, *, status: int | None = 200, **request: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(kitchen.api)
        async with httpx.AsyncClient(transport=transport, base_url="http://cellnet") as client:
            return await client.post(path, **request)

    response = asyncio.run(ask())
    assert status in (None, response.status_code), response.text
    return response


def answer_it(folder: Path, name: str, page: Pages) -> int:
    response = post(Kitchen(champions(folder)), "/v1/predict", content=IMAGES[name], params={"page": page})
    return len(response.json()["predictions"])


def infer_it(folder: Path, name: str, page: Pages) -> int:
    text = base64.b64encode(IMAGES[name]).decode()
    inputs = [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}]
    body = {"inputs": inputs, "parameters": {"page": page}}
    count, *_ = post(Kitchen(champions(folder)), "/v2/models/regressor/infer", json=body).json()["outputs"]
    return len(count["data"])


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize(
    ("way", "page"),
    [*itertools.product([import_it, predict_it, answer_it], ["middle", "all"]), (infer_it, "middle")],
)
def test_an_image_is_opened_once_and_its_pages_are_counted_once(
    tmp_path: Path, reads: Counter[str], way: Callable[[Path, str, Pages], int], name: str, page: Pages
) -> None:
    pages_n = 4 if name == "stack.tif" and page == "all" else 1
    assert way(tmp_path, name, page) == pages_n
    assert reads == {"headers": 1, "decoded": pages_n}


def test_the_process_that_draws_is_told_the_header_that_the_answering_one_read(
    tmp_path: Path, reads: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(cellnet.reports.overlays, "draw_overlay", lambda image_HW, **about: drawn.append(image_HW))

    async def draw(image: ImageFile, how: How, prediction: Prediction) -> bytes:
        Overlays(registry=champions(tmp_path / "other"), threads=1).draw(sent(image), how.page, None, None, None, None)
        return b""

    kitchen = Kitchen(champions(tmp_path), draw=draw)
    post(kitchen, "/v1/predict", content=IMAGES["stack.tif"], params={"page": 3, "overlay": True})
    assert (drawn[0] == clouds(2 * SIDE, 2 * SIDE, seed=2)).all()
    assert reads == {"headers": 1, "decoded": 2}


def test_a_mask_is_opened_once(tmp_path: Path, reads: Counter[str]) -> None:
    cells_HW = np.zeros((20, 30), np.uint8)
    cells_HW[2:9, 2:9], cells_HW[2:9, 9:15] = 1, 2
    for folder, pixels_HW in (("images", clouds(20, 30, seed=0)), ("masks", cells_HW)):
        (tmp_path / "in" / folder).mkdir(parents=True)
        (tmp_path / "in" / folder / "a.png").write_bytes(cv2.imencode(".png", pixels_HW)[1].tobytes())
    [frame] = prepare_all(read_source(tmp_path / "in"), Bank.create(tmp_path / "bank").store)
    assert frame.count == 2 and reads == {"headers": 2, "decoded": 2}


def test_what_is_not_read_costs_nothing(tmp_path: Path, reads: Counter[str]) -> None:
    (tmp_path / "A549").mkdir()
    for name, data in IMAGES.items():
        (tmp_path / "A549" / name).write_bytes(data)
    files = [file.image for file in (*read_source(tmp_path), *list_files([tmp_path]))]
    assert not reads and len(files) == 6
    assert {image.pixels_n for image in files} == {SIDE * SIDE, 4 * SIDE * SIDE}
    assert all(isinstance(image.contents, Path) for image in files), "of no file are the bytes held"


def test_what_was_read_of_a_file_is_forgotten_once_it_is_another(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(IMAGES["stack.tif"])
    page = ImageFile.at(path).pages(3)[0]
    assert page.decode().shape == (2 * SIDE, 2 * SIDE)
    path.write_bytes(IMAGES["one.tif"])
    with pytest.raises(DataError, match=r"^a.tif: holds 1 page, so there is no page 3$"):
        page.decode()
    path.unlink()
    with pytest.raises(DataError, match=r"^a.tif: cannot be read: No such file or directory$"):
        page.decode()


def test_no_pixel_is_decoded_of_a_page_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = clouds(20, 30), clouds(400, 300)
    stack = cv2.imencodemulti(".tiff", [small, large])[1].tobytes()
    first, second = ImageFile("a.tif", stack).pages("all")
    assert first.decode(most=1000).shape == small.shape and (first.pixels_n, second.pixels_n) == (600, 120_000)
    monkeypatch.setattr(tiff, "read_plane", None)
    with pytest.raises(DataError, match=r"^a.tif: 300×400 is over 0.001 megapixels; cut it first"):
        second.decode(most=1000)


def test_an_image_that_cannot_be_read_is_told_as_it_was_before(tmp_path: Path) -> None:
    registry = champions(tmp_path)
    models = resolve_models(registry, None, None)
    question = Question(registry=registry, models=models, pixel_um=None, page=None)
    (tmp_path / "a.png").write_bytes(struct.pack("16x"))
    [rot] = list_files([tmp_path / "a.png"])
    (tmp_path / "b.png").touch()
    [gone] = list_files([tmp_path / "b.png"])
    (tmp_path / "b.png").unlink()

    def error_of(file: ListedFile) -> str | None:
        [prediction] = _answers(models.map(Known), file, _read(file), question)
        return prediction.error

    assert error_of(gone) == "cannot be read: No such file or directory"
    assert error_of(rot) == (
        "a.png: not a readable PNG, JPEG, TIFF or BMP image, nothing but zeros; copy or download it again"
    )
