"""The HTTP interface over models that say what they are told; the service itself is in tests/integration."""

import asyncio

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from cellnet.answers import Answer, combine
from cellnet.images import encode_png
from serve.api import IN_FLIGHT, make_api
from serve.schemas import ModelInfo
from serve.uploads import Limits

COUNTED = Answer(model="regressor@2", task="count", count=12.0, tiles=4, magnification="rescaled")
CLASSIFIED = Answer(
    model="classifier@1",
    task="classify",
    probabilities={"A172": 0.1, "VERO6": 0.9},
    tiles=1,
    magnification="assumed",
)
PNG = encode_png(np.eye(8, dtype=np.uint8))


def test_one_model_that_does_not_know_an_image_is_enough_to_flag_it() -> None:
    strange = CLASSIFIED.model_copy(update={"unfamiliar": True, "unfamiliar_reason": "3 times as far"})
    sure = COUNTED.model_copy(update={"unfamiliar": False, "count_low": 9.5, "count_high": 14.5, "interval_level": 0.9})
    prediction = combine("a.png", [strange, sure])
    assert (prediction.unfamiliar, prediction.unfamiliar_reason) == (True, "classifier@1: 3 times as far")
    assert (prediction.count_low, prediction.count_high, prediction.interval_level) == (9.5, 14.5, 0.9)
    assert combine("a.png", [CLASSIFIED, COUNTED]).unfamiliar is None, "models of before cannot tell"


class Slow:
    """A counter that remembers how many images it had at a time."""

    busy = most = 0

    async def answer(self, image_HW: NDArray[np.uint8] | NDArray[np.uint16], pixel_um: float | None) -> Answer:
        self.busy += 1
        self.most = max(self.most, self.busy)
        await asyncio.sleep(0.01)
        self.busy -= 1
        return COUNTED

    async def describe(self) -> ModelInfo:
        raise NotImplementedError


class Broken(Slow):
    """A model with a fault of its own."""

    async def answer(self, image_HW: NDArray[np.uint8] | NDArray[np.uint16], pixel_um: float | None) -> Answer:
        raise RuntimeError("the secret path")


def client(model: Slow) -> TestClient:
    return TestClient(make_api([model], Limits(request_mb=1, images=20)), raise_server_exceptions=False)


def test_two_answers_become_one_prediction_that_is_no_surer_than_either() -> None:
    prediction = combine("a.png", [CLASSIFIED, COUNTED])
    assert (prediction.lineage, prediction.count) == ("VERO6", 12.0)
    assert (prediction.tiles, prediction.magnification) == (4, "assumed")
    assert (prediction.models.classifier, prediction.models.regressor) == ("classifier@1", "regressor@2")


def test_only_so_many_images_are_decoded_at_a_time() -> None:
    model = Slow()
    response = client(model).post("/v1/predict", files=[("images", ("a.png", PNG))] * 12)
    assert [entry["count"] for entry in response.json()["predictions"]] == [12.0] * 12
    assert model.most == IN_FLIGHT


def test_a_fault_of_the_service_is_a_500_that_tells_nothing_of_its_inside() -> None:
    response = client(Broken()).post("/v1/predict", content=PNG)
    assert (response.status_code, response.headers["content-type"]) == (500, "application/problem+json")
    assert "secret" not in response.text


def test_a_service_whose_model_does_not_answer_is_alive_but_not_ready() -> None:
    api = client(Broken())
    assert api.get("/healthz").status_code == 200
    assert api.get("/readyz").status_code == 503


@pytest.mark.parametrize(
    ("sent", "said"), [("a\nb\x1b[31m.png", "a b [31m.png"), ("", "image"), ("x" * 999, "x" * 200)]
)
def test_an_images_name_is_one_short_printable_line(sent: str, said: str) -> None:
    response = client(Slow()).post("/v1/predict", params={"name": sent}, content=PNG)
    assert response.json()["predictions"][0]["image"] == said
