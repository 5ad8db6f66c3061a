"""The HTTP interface over models whose answers are known; the service itself is in tests/integration."""

import asyncio
import base64
import csv
import functools
import hashlib
import io
import json
import logging
import os
import re
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from starlette.datastructures import Headers

from cellnet.bank.frames import digest_of_pixels
from cellnet.errors import ConfigError
from cellnet.images.file import ImageFile, encode_png
from cellnet.prediction.answers import Answer, FoundCell, Prediction, combine
from cellnet.registry.registry import Registry
from serve.answering import How, Room
from serve.haproxy_rules import EDGE
from serve.http.keys import Key, accepted, load_keys
from serve.http.labels import MOST_NAMES, Known, Labelled, Other, Taken
from serve.http.middleware import Surroundings
from serve.http.schemas import Predictions
from serve.limits import Limits
from serve.v2.tensors import InferenceRequest, InferenceResponse
from tests.factories import SIDE, even_png, publish
from tests.unit.serve.kitchen import Held, Kitchen, client

COUNTED = Answer(model="regressor@2", task="count", count=12.0, tiles=4, magnification="rescaled")
CLASSIFIED = Answer(
    model="classifier@1",
    task="classify",
    probabilities={"A172": 0.1, "VERO6": 0.9},
    tiles=1,
    magnification="assumed",
)


NOISE = np.random.default_rng(0).integers(0, 255, (200, 200), np.uint8)
DARK, BRIGHT = even_png(), even_png(grey=200)


def assert_problem(response: httpx.Response, status: int, *words: str) -> None:
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    problem = response.json()
    assert problem["status"] == status and problem["title"] and problem["request_id"]
    assert "\n" not in problem["detail"]
    for word in words:
        assert word in problem["detail"]


def together(kitchen: Kitchen, held: Held, *requests: dict[str, object]) -> list[httpx.Response]:
    """Answers to requests of which the first holds a model until all have come."""

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(kitchen.api, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://cellnet") as asking:
            first = asyncio.create_task(asking.post("/v1/predict", **requests[0]))
            await asyncio.to_thread(held.inside.acquire)
            others = [asyncio.create_task(asking.post("/v1/predict", **request)) for request in requests[1:]]
            _done, _ = await asyncio.wait(others, timeout=0.3) if others else ((), ())
            health = await asking.get("/healthz")
            assert health.text == "ok"
            held.go.set()
            return [await first, *(await asyncio.gather(*others))]

    return asyncio.run(ask())


def test_two_answers_become_one_prediction_that_is_no_surer_than_either() -> None:
    prediction = combine("a.png", [CLASSIFIED, COUNTED])
    assert (prediction.lineage, prediction.count) == ("VERO6", 12.0)
    assert (prediction.tiles, prediction.magnification) == (4, "assumed")
    assert (prediction.models.classifier, prediction.models.regressor) == ("classifier@1", "regressor@2")


def test_what_either_model_finds_an_image_of_no_use_for_is_said_once_in_order() -> None:
    empty = COUNTED.model_copy(update={"quality": ["saturated", "empty"]})
    soft = CLASSIFIED.model_copy(update={"quality": ["out_of_focus", "saturated"]})
    assert combine("a.png", [soft, empty]).quality == ["out_of_focus", "saturated", "empty"]
    assert combine("a.png", [CLASSIFIED, COUNTED]).quality == []
    assert combine("a.png", [CLASSIFIED, COUNTED.model_copy(update={"focus": 0.9})]).focus == 0.9
    focus = [one.model_copy(update={"focus": of}) for one, of in ((CLASSIFIED, 0.7), (COUNTED, 0.9))]
    assert combine("a.png", focus).focus == 0.7, "of the model whose training frames are sharper"


def test_one_model_that_does_not_know_an_image_is_enough_to_flag_it() -> None:
    strange = CLASSIFIED.model_copy(update={"unfamiliar": True, "unfamiliar_reason": "3 times as far"})
    sure = COUNTED.model_copy(update={"unfamiliar": False, "count_low": 9.5, "count_high": 14.5, "interval_level": 0.9})
    prediction = combine("a.png", [strange, sure])
    assert (prediction.unfamiliar, prediction.unfamiliar_reason) == (True, "classifier@1: 3 times as far")
    assert (prediction.lineage_unfamiliar, prediction.count_unfamiliar, prediction.doubted) == (True, False, "lineage")
    assert (prediction.count_low, prediction.count_high, prediction.interval_level) == (9.5, 14.5, 0.9)
    both = combine("a.png", [strange, sure.model_copy(update={"unfamiliar": True})])
    assert both.doubted == "lineage and count"
    unknown = combine("a.png", [CLASSIFIED, COUNTED])
    assert unknown.doubted == "" and unknown.unfamiliar is unknown.count_unfamiliar is None, (
        "models of before cannot tell"
    )


def test_an_image_is_named_and_then_counted_with_its_timing(kitchen: Callable) -> None:
    [said] = client(kitchen()).post("/v1/predict?name=a.png", content=DARK).json()["predictions"]
    assert (said["image"], said["lineage"], said["count"]) == ("a.png", "A172", 1)
    assert said["probabilities"] == pytest.approx({"A172": 0.9, "VERO6": 0.1})
    assert said["models"] == {"classifier": "classifier@1", "regressor": "regressor@1"}
    timing = said["timing"]
    assert timing["read_ms"] > 0 and timing["models_ms"] > 0
    assert timing["total_ms"] == pytest.approx(timing["read_ms"] + timing["models_ms"], abs=0.1)


def test_each_lineage_is_counted_by_the_counter_that_is_for_it(registry: Registry, kitchen: Callable) -> None:
    publish(registry, "count", name="regressor-A172", alias=None)
    publish(registry, "count", name="regressor-A172")
    form = [("images", ("dark.png", DARK)), ("images", ("bright.png", BRIGHT))]
    dark, bright = client(kitchen()).post("/v1/predict", files=form).json()["predictions"]
    assert (dark["lineage"], dark["count"], dark["models"]["regressor"]) == ("A172", 2, "regressor-A172@2")
    assert (bright["lineage"], bright["count"], bright["models"]["regressor"]) == ("VERO6", 1, "regressor@1")


def test_a_table_for_spreadsheets_has_a_row_an_image_and_runs_nothing(kitchen: Callable) -> None:
    form = [("images", ("=a.png", DARK)), ("images", ("b.png", b"no image"))]
    response = client(kitchen()).post("/v1/predict?format=csv", files=form)
    assert response.headers["content-type"].startswith("text/csv")
    good, bad = csv.DictReader(io.StringIO(response.text))
    assert (good["image"], good["lineage"], good["count"]) == ("'=a.png", "A172", "1.0")
    assert float(good["probability"]) == pytest.approx(0.9)
    assert (good["classifier"], good["regressor"], good["error"]) == ("classifier@1", "regressor@1", "")
    assert bad["image"] == "b.png" and bad["count"] == "" and "not a readable" in bad["error"]


def test_an_overlay_is_one_picture_of_one_image_with_the_versions_it_shows(kitchen: Callable) -> None:
    async def draw(image: ImageFile, how: How, prediction: Prediction) -> bytes:
        return f"{image.name} {prediction.count}".encode()

    api = client(kitchen(draw=draw))
    response = api.post("/v1/predict?overlay=true&name=a.png", content=DARK)
    assert (response.content, response.headers["content-type"]) == (b"a.png 1.0", "image/png")
    assert response.headers["cellnet-models"] == "classifier@1, regressor@1"
    form = [("images", ("a.png", DARK)), ("images", ("b.png", DARK))]
    assert_problem(api.post("/v1/predict?overlay=true", files=form), 422, "one image", "holds 2")
    assert_problem(api.post("/v1/predict?overlay=true&name=x.png", content=b"no"), 422, "x.png")
    assert_problem(client(kitchen()).post("/v1/predict?overlay=true", content=DARK), 422, "no overlays")


def test_the_cells_come_with_each_image_that_was_counted_where_they_are_asked_for(kitchen: Callable) -> None:
    async def find(image: ImageFile, how: How, prediction: Prediction) -> list[FoundCell] | None:
        return [FoundCell(x=1.5, y=2, probability=0.75)] if image.name == "a.png" else None

    api = client(kitchen(find=find))
    form = [("images", (name, content)) for name, content in {"a.png": DARK, "b.png": DARK, "c.png": b"no"}.items()]
    found, unknown, bad = api.post("/v1/predict?points=true", files=form).json()["predictions"]
    assert found["points"] == [{"x": 1.5, "y": 2.0, "probability": 0.75}]
    assert "points" not in unknown and bad["error"] and "points" not in bad
    assert "points" not in api.post("/v1/predict", content=DARK).json()["predictions"][0]
    stack = cv2.imencodemulti(".tiff", [NOISE, NOISE])[1].tobytes()
    assert_problem(api.post("/v1/predict?points=true&page=all", content=stack), 422, "images of one page")
    assert_problem(client(kitchen()).post("/v1/predict?points=true", content=DARK), 422, "does not say where")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_grey_values_of_an_image_come_at_full_depth_with_the_name_that_banks_give_it(
    kitchen: Callable, dtype: type
) -> None:
    image_HW = np.arange(210 * 300).reshape(210, 300).astype(dtype)
    said = client(kitchen()).post("/v1/pixels?name=a.png", content=encode_png(image_HW))
    assert (said.headers["cellnet-shape"], said.headers["cellnet-bits"]) == ("210, 300", str(8 * image_HW.itemsize))
    assert said.headers["cellnet-sha256"] == digest_of_pixels(image_HW)
    assert (np.frombuffer(said.content, np.dtype(dtype).newbyteorder("<")).reshape(210, 300) == image_HW).all()


def test_grey_values_are_of_one_page_within_the_limits_and_count_nothing(kitchen: Callable) -> None:
    pages = [NOISE // part for part in (1, 2, 3)]
    stack = cv2.imencodemulti(".tiff", pages)[1].tobytes()
    small = kitchen(limits=Limits(megapixels=0.05))
    api = client(small)
    assert api.post("/v1/pixels?name=s.tif&page=middle", content=stack).content == pages[1].tobytes()
    assert api.post("/v1/pixels?name=s.tif&page=3", content=stack).content == pages[2].tobytes()
    assert_problem(api.post("/v1/pixels?name=s.tif&page=all", content=stack), 422, "s.tif", "holds 3 pages")
    assert_problem(api.post("/v1/pixels?name=b.png", content=b"no"), 422, "b.png")
    large = encode_png(np.tile(NOISE, (2, 2)))
    assert_problem(api.post("/v1/pixels?name=l.png", content=large), 422, "l.png", "0.2 megapixels")
    assert_problem(api.post("/v1/pixels", files=[("images", (n, DARK)) for n in ("a.png", "b.png")]), 422, "one at a")
    assert small.figure("cellnet_images_total", result="answered") in (None, 0)


async def nothing_known(frame: str) -> Known:
    return Known(frame=frame, others=[])


@pytest.mark.slow
def test_how_often_people_say_otherwise_is_counted_by_version_lineage_and_batch(kitchen: Callable) -> None:
    done = Labelled(frame="0" * 64, entry=1, added=True, others=[])

    async def correct(taken: Taken) -> Labelled:
        return done.model_copy(update=json.loads(taken.said.why or "{}"))

    serving = kitchen(correct=correct, recall=nothing_known)
    api = client(serving)

    def say(versions: list[str] | None, **told: object) -> None:
        label = {"count": 3, "why": json.dumps(told), **({"seen": {"versions": versions}} if versions else {})}
        form = {"images": ("a.png", DARK), "label": (None, json.dumps(label))}
        assert api.post("/v1/labels", files=form).status_code == 200

    both = ["classifier@1", "regressor@1"]
    say(both, otherwise={"lineage": True, "count": False}, lineage="A172", batch="monday")
    say(both, otherwise={"count": False}, lineage="A172", batch="monday")
    say(["regressor@9", "somebody@1"], otherwise={"count": True})
    say(None)

    def counted(model: str, of: str, otherwise: str) -> float | None:
        labels = {"model": model, "of": of, "lineage": "A172", "batch": "monday", "otherwise": otherwise}
        return serving.figure("cellnet_judged_total", **labels)

    assert (counted("classifier@1", "lineage", "true"), counted("regressor@1", "count", "false")) == (1, 2)
    assert "regressor@9" not in api.get("/metrics").text, "that of which no version is served has no figures"
    for number in range(MOST_NAMES + 5):
        say(["regressor@1"], otherwise={"count": True}, batch=f"day {number}")
    named = {line for line in api.get("/metrics").text.splitlines() if line.startswith("cellnet_judged_total")}
    assert len(named) <= MOST_NAMES + 3 and any('batch="other"' in line for line in named)


def test_what_is_known_of_an_image_is_asked_by_its_sha256(kitchen: Callable) -> None:
    async def recall(frame: str) -> Known:
        other = Other(by="Ada", at=None, lineage=None, count=3, unusable=None)
        return Known(frame=frame, others=[other] if frame.startswith("a") else [])

    async def correct(taken: Taken) -> Labelled:
        raise AssertionError

    api = client(kitchen(correct=correct, recall=recall))
    assert [one["by"] for one in api.get(f"/v1/labels?frame={'a' * 64}").json()["others"]] == ["Ada"]
    assert api.get(f"/v1/labels?frame={'b' * 64}").json()["others"] == []
    assert_problem(api.get("/v1/labels?frame=../../secret"), 422, "frame")


def test_what_a_person_says_of_an_image_is_handed_over_with_its_grey_values(kitchen: Callable) -> None:
    came: list[Taken] = []

    async def correct(taken: Taken) -> Labelled:
        came.append(taken)
        return Labelled(frame="0" * 64, entry=7, added=True, others=[])

    api = client(kitchen(correct=correct, recall=nothing_known))
    label = {"points": [[1, 2.5], [3, 4]], "by": "Ada", "seen": {"versions": ["classifier@1"]}, "day": "2026-11-29"}
    form = {"images": ("a.tif", cv2.imencode(".tiff", NOISE)[1].tobytes()), "label": (None, json.dumps(label))}
    told = api.post("/v1/labels?pixel_um=0.5", files=form).json()
    assert told == {
        **{"frame": "0" * 64, "entry": 7, "added": True, "others": []},
        **{"lineage": None, "batch": None, "otherwise": {}},
    }
    [taken] = came
    assert (taken.name, taken.pixel_um, taken.by, taken.said.points) == ("a.tif", 0.5, "", [(1, 2.5), (3, 4)])
    assert (ImageFile("a", taken.png).decode() == NOISE).all()
    for wrong, why in {
        '{"cells": 3}': "cells of the label",
        '{"count": -1}': "count of the label",
        "no JSON": "the label",
        '{"unusable": "ugly"}': "unusable of the label",
    }.items():
        assert_problem(api.post("/v1/labels", files=form | {"label": (None, wrong)}), 422, "a.tif", why)
    assert_problem(api.post("/v1/labels", files=form | {"images": ("b.png", b"no")}), 422, "b.png")
    assert_problem(api.post("/v1/labels", files={"images": form["images"]}), 422, "one image", "'label'")
    assert len(came) == 1
    assert api.get("/v1/models").json()["corrections"] is True
    without = client(kitchen())
    assert without.get("/v1/models").json()["corrections"] is False
    assert without.post("/v1/labels", files=form).status_code == 404


def test_the_pages_of_a_stack_are_bounded(kitchen: Callable) -> None:
    pages = [np.random.default_rng(page).integers(0, 99, (SIDE, SIDE), np.uint8) for page in range(5)]
    stack = cv2.imencodemulti(".tiff", pages)[1].tobytes()
    api = client(kitchen(limits=Limits(images=4)))
    assert_problem(api.post("/v1/predict?page=all&name=s.tif", content=stack), 422, "s.tif", "5 pages", "the 4")
    assert api.post("/v1/predict?page=5&name=s.tif", content=stack).json()["predictions"][0]["image"] == "s.tif#5"


@pytest.mark.slow
def test_the_pages_of_all_stacks_of_a_request_are_bounded_together(kitchen: Callable) -> None:
    pages = [np.random.default_rng(page).integers(0, 99, (SIDE, SIDE), np.uint8) for page in range(2)]
    stack = cv2.imencodemulti(".tiff", pages)[1].tobytes()
    form = [("images", (f"{number}.tif", stack)) for number in range(3)]
    api = client(kitchen(limits=Limits(images=5)))
    said = api.post("/v1/predict?page=all", files=form).json()["predictions"]
    assert sum(one["error"] is None for one in said) == 4
    [refused] = [one["error"] for one in said if one["error"]]
    assert "with its 2 pages these are more than the 5 images" in refused
    assert len(api.post("/v1/predict?page=middle", files=form).json()["predictions"]) == 3
    room_for_one = client(kitchen(limits=Limits(images=1)))
    assert_problem(room_for_one.post("/v1/predict?page=all&name=s.tif", content=stack), 422, "s.tif", "2 pages")


def test_a_stack_that_is_refused_takes_no_room_from_the_others() -> None:
    room = Room(3)
    assert [room.take(images) for images in (5, 1, 2, 1)] == [False, True, True, False]


def test_an_image_over_the_megapixels_that_are_taken_is_refused_by_its_header(kitchen: Callable) -> None:
    api = client(kitchen(limits=Limits(megapixels=0.01)))
    assert_problem(api.post("/v1/predict?name=big.png", content=even_png(101, 100)), 422, "big.png", "0.01", "cut it")
    assert api.post("/v1/predict", content=even_png(100, 100)).status_code == 200


def test_requests_beyond_the_queue_are_told_when_to_come_again_and_health_is_told_all_the_same(
    kitchen: Callable,
) -> None:
    held = Held()
    service = kitchen(limits=Limits(queue=1), wait=held)
    first, second = together(service, held, {"content": DARK}, {"content": DARK})
    assert first.status_code == 200
    assert_problem(second, 503, "busy with 1 requests", "try again in 1 s")
    assert second.headers["retry-after"] == "1"
    assert service.figure("cellnet_requests_refused_total", reason="queue") == 1
    assert client(service).post("/v1/predict", content=DARK).status_code == 200, "there is room again"


def test_bodies_that_together_are_too_much_are_told_when_to_come_again(kitchen: Callable) -> None:
    held = Held()
    noise = encode_png(np.random.default_rng(0).integers(0, 255, (200, 200), np.uint8))
    service = kitchen(limits=Limits(held_mb=0.05), wait=held)
    first, second = together(service, held, {"content": noise}, {"content": noise})
    assert first.status_code == 200
    assert_problem(second, 503, "as many images as it can")
    assert service.figure("cellnet_requests_refused_total", reason="memory") == 1
    assert client(service).post("/v1/predict", content=noise).status_code == 200, "what was held is given back"


def test_every_route_says_in_its_description_what_it_does_and_why_it_refuses(kitchen: Callable) -> None:
    described = client(kitchen()).get("/openapi.json").json()
    routes = {f"{verb.upper()} {path}": route for path, by in described["paths"].items() for verb, route in by.items()}
    assert {"POST /v1/predict", "GET /readyz", "GET /v2/models/{name}", "POST /v2/models/{name}/infer"} <= set(routes)
    for name, route in routes.items():
        assert route["summary"].lower().replace(" ", "_") not in route["operationId"], f"{name}: a function's name"
        assert route["description"].endswith("."), name
        assert [said["name"] for said in route.get("parameters", []) if not said.get("description")] == [], name
        for status, said in route["responses"].items():
            if status != "200":
                example = said["content"]["application/problem+json"]["example"]
                assert example["status"] == int(status) and example["detail"] and ". " in said["description"], name
    assert Predictions(**example_of(routes["POST /v1/predict"])).predictions[0].count == 66.4
    asked = routes["POST /v2/models/{name}/infer"]
    InferenceRequest(**asked["requestBody"]["content"]["application/json"]["example"])
    InferenceResponse(**example_of(asked))


def example_of(route: dict) -> dict:
    return route["responses"]["200"]["content"]["application/json"]["example"]


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_a_thumbnail_is_of_the_plane_that_was_counted_with_a_contrast_that_is_seen(
    kitchen: Callable, suffix: str
) -> None:
    """Twelve bits: to a viewer that shows the upper eight of sixteen these are nearly black."""
    dark_HW = np.full((128, 256), 700, np.uint16)
    dark_HW[:, 128:] = 900
    flat_HW = np.full_like(dark_HW, 700)
    flat_HW[0, 0] = 701
    planes = [flat_HW, dark_HW, flat_HW] if suffix == ".tif" else [dark_HW]
    data = cv2.imencodemulti(suffix, planes)[1] if len(planes) > 1 else cv2.imencode(suffix, dark_HW)[1]
    api = client(kitchen())
    ask = functools.partial(api.post, content=data.tobytes())
    [said] = ask("/v1/predict?page=middle&thumbnail=true&name=a").json()["predictions"]
    kind, _, text = said["thumbnail"].partition(",")
    seen_HW = cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_UNCHANGED)
    assert kind == "data:image/jpeg;base64" and seen_HW.shape == (64, 128)
    assert seen_HW[:, :60].max() < 10 and seen_HW[:, 68:].min() > 245
    assert "thumbnail" not in ask("/v1/predict?page=middle").json()["predictions"][0], "only where it is asked for"


def test_an_answer_that_takes_too_long_is_given_up_and_is_told_from_a_busy_service(kitchen: Callable) -> None:
    held = Held()
    service = kitchen(limits=Limits(seconds=0.2), wait=held)
    response = client(service).post("/v1/predict", content=DARK)
    held.go.set()
    assert_problem(response, 504, "longer than 0.2 s")
    paths = client(kitchen()).get("/openapi.json").json()["paths"]
    assert {"503", "504"} <= set(paths["/v1/predict"]["post"]["responses"])


@pytest.mark.slow
def test_a_request_that_does_not_arrive_in_time_is_given_up(kitchen: Callable) -> None:
    service = kitchen(limits=Limits(seconds=0.2))
    sent = []

    async def trickle() -> dict[str, object]:
        if sent:
            await asyncio.sleep(20)
        sent.append(1)
        return {"type": "http.request", "body": b"x", "more_body": True}

    said: list[dict[str, object]] = []

    async def note(message: dict[str, object]) -> None:
        said.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/predict", "query_string": b"", "headers": []}
    started = time.monotonic()
    asyncio.run(service.api(scope, trickle, note))
    assert said[0]["status"] == 408 and b"did not arrive within 0.2 s" in said[1]["body"]
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("path", ["/v1/predict", "/v2/models/cellnet/infer"])
@pytest.mark.parametrize("kind", ["image/png", "multipart/form-data; boundary=b"])
def test_a_body_that_stalls_is_given_up_however_much_of_it_came_before(kitchen: Callable, path: str, kind: str) -> None:
    service = kitchen(limits=Limits(arrival_s=0.1, arrival_bytes=40))
    came = iter([b"--b\r\n" + b"x" * 40, b"x" * 40, b"x"])

    async def stall() -> dict[str, object]:
        if (more := next(came, None)) is None:
            await asyncio.sleep(20)
        return {"type": "http.request", "body": more, "more_body": True}

    said: list[dict[str, object]] = []

    async def note(message: dict[str, object]) -> None:
        said.append(message)

    headers = [(b"content-type", kind.encode())]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
    asyncio.run(service.api(scope, stall, note))
    assert said[0]["status"] == 408 and b"arrives too slowly" in said[1]["body"]
    assert next(came, None) is None
    assert service.figure("cellnet_requests_refused_total", reason="slow") == 1


def test_what_haproxy_is_to_heed_is_told_under_any_name_and_only_where_it_is(kitchen: Callable) -> None:
    guard = {"hosts": ("lab.example",), "keys": (Key("0" * 64),)}
    told = client(kitchen(proxies=("10.0.0.0/8",), **guard)).get(EDGE)
    assert told.json() == {"proxies": ["10.0.0.0/8"], "hosts": ["lab.example"], "queue": 128}
    assert client(kitchen(**guard)).get(EDGE).status_code == 404


def test_a_route_that_there_is_not_or_another_method_is_answered_with_where_to_read(kitchen: Callable) -> None:
    api = client(kitchen())
    assert_problem(api.get("/v1/predict"), 405, "/v1/predict takes POST, not GET; see /docs")
    assert_problem(api.post("/predict", content=DARK), 404, "there is nothing at /predict; see /docs")
    assert_problem(api.get("/" + "x" * 5000), 404, "/" + "x" * 79 + "; see /docs")


def test_a_fault_of_the_service_is_a_500_that_tells_nothing_of_its_inside(kitchen: Callable) -> None:
    def fail() -> None:
        raise RuntimeError("the secret path")

    service = kitchen(wait=fail)
    response = client(service).post("/v1/predict", content=DARK)
    assert_problem(response, 500)
    assert "secret" not in response.text
    assert service.figure("cellnet_requests_total", route="/v1/predict", status="500") == 1


def test_a_path_that_commands_a_terminal_is_harmless_in_the_log(
    kitchen: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*given: object) -> None:
        raise RuntimeError("a fault")

    surrounded = Surroundings(fails, limits=Limits(), meters=kitchen().meters)
    response = TestClient(surrounded).get("/v2/models/a%1b%5b2J%0aCRITICAL%20all%20is%20lost/infer")
    assert response.status_code == 500
    [record] = [record for record in caplog.records if record.message.endswith(" failed")]
    assert record.message == "GET /v2/models/a?[2J?CRITICAL all is lost/infer failed"


@pytest.mark.parametrize(
    ("sent", "said"), [("a\nb\x1b[31m.png", "a b [31m.png"), ("", "image"), ("x" * 999, "x" * 200)]
)
def test_an_images_name_is_one_short_printable_line(kitchen: Callable, sent: str, said: str) -> None:
    response = client(kitchen()).post("/v1/predict", params={"name": sent}, content=DARK)
    assert response.json()["predictions"][0]["image"] == said


def test_where_keys_are_asked_for_only_those_who_hold_one_come_in(
    kitchen: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = "k" * 32, "schlüssel-" * 4
    (tmp_path / "keys").write_text(f"# of the lab\n{one}\n\n")
    monkeypatch.setenv("CELLNET_API_KEYS", f" {other} ,")
    keys = load_keys(tmp_path / "keys")
    assert not any(key in str(keys) for key in (one, other)), "only their sha256 goes anywhere"
    api = client(kitchen(keys=keys))
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"X-API-Key": one[:-1]}, {"Authorization": f"Basic {one}"}):
        response = api.post("/v1/predict", content=DARK, headers=headers)
        assert_problem(response, 401, "API key")
        assert response.headers["www-authenticate"] == "Bearer"
    for path in ("/v1/models", "/metrics", "/v2/models/classifier"):
        assert_problem(api.get(path), 401)
    shown = re.findall(r"(?:src|href)=\"(/[^\"]+)\"", api.get("/docs").text)
    for path in ("/", "/healthz", "/readyz", "/docs", "/openapi.json", *shown):
        assert api.get(path).status_code == 200
    assert len(shown) == 2, "the documentation's script and style"
    encoded = f"Bearer {other}".encode()
    for headers in ({"Authorization": f"Bearer {one}"}, {"X-API-Key": one}, {"Authorization": encoded}):
        assert api.post("/v1/predict", content=DARK, headers=headers).status_code == 200


def test_a_key_opens_what_its_line_says_and_one_without_a_name_predictions_alone(
    kitchen: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CELLNET_API_KEYS", raising=False)
    (tmp_path / "keys").write_text(f"{'k' * 32}\nada  predict,label {'a' * 32}\nscope label {'l' * 32}\n")
    came: list[str] = []

    async def correct(taken: Taken) -> Labelled:
        came.append(taken.by)
        return Labelled(frame="0" * 64, entry=1, added=False, others=[])

    api = client(kitchen(keys=load_keys(tmp_path / "keys"), correct=correct, recall=nothing_known))
    form = {"images": ("a.png", DARK), "label": (None, '{"count": 3}')}
    said = {
        letter: (
            api.post("/v1/predict", content=DARK, headers={"X-API-Key": letter * 32}).status_code,
            api.post("/v1/labels", files=form, headers={"X-API-Key": letter * 32}).status_code,
        )
        for letter in "kalx"
    }
    assert said == {"k": (200, 403), "a": (200, 200), "l": (403, 200), "x": (401, 401)} and came == ["ada", "scope"]
    asked = {letter: api.get(f"/v1/labels?frame={'0' * 64}", headers={"X-API-Key": letter * 32}) for letter in "kal"}
    assert [answer.status_code for answer in asked.values()] == [403, 200, 200]
    refused = api.post("/v1/labels", files=form, headers={"X-API-Key": "k" * 32})
    assert_problem(refused, 403, "may not label", "NAME label KEY")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("# none\n", "holds no API key"),
        ("short\n", "shorter than 16"),
        (None, "cannot be read"),
        (f"ada write {'k' * 32}\n", "neither KEY nor NAME SCOPES KEY"),
        (f"ada {'k' * 32}\n", "neither KEY nor NAME SCOPES KEY"),
    ],
)
def test_a_file_of_keys_that_would_let_everybody_in_or_nobody_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, why: str
) -> None:
    monkeypatch.delenv("CELLNET_API_KEYS", raising=False)
    file = tmp_path / "keys"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=why):
        load_keys(file)
    assert load_keys(None) == ()


@pytest.mark.parametrize(
    ("kind", "why"), [("pipe", "it is a named pipe, no file"), ("long", "it has over 1,000,000 bytes")]
)
def test_a_file_of_keys_is_a_file_and_no_larger_than_one(tmp_path: Path, kind: str, why: str) -> None:
    file = tmp_path / "keys"
    if kind == "pipe":
        os.mkfifo(file)
    else:
        file.write_bytes(b"k" * 32 + b"\n" * 10**6)
    with pytest.raises(ConfigError, match=why):
        load_keys(file)


def test_a_key_of_the_environment_that_is_no_text_is_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    key = b"\xff" * 16
    monkeypatch.setenv("CELLNET_API_KEYS", os.fsdecode(key))
    keys = load_keys(None)
    assert accepted(Headers(raw=[(b"x-api-key", key)]), keys)
    assert not accepted(Headers(raw=[(b"x-api-key", b"\xfe" * 16)]), keys)


def test_a_file_of_keys_may_be_written_in_notepad(tmp_path: Path) -> None:
    (tmp_path / "notepad.txt").write_text("k" * 32 + "\r\n", encoding="utf-8-sig")
    (tmp_path / "plain.txt").write_text("k" * 32)
    assert load_keys(tmp_path / "notepad.txt") == load_keys(tmp_path / "plain.txt")


def test_other_web_pages_may_call_it_only_where_that_was_asked_for(kitchen: Callable, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("k" * 32)
    keys = load_keys(tmp_path / "keys")
    origin = {"Origin": "https://lab.example"}
    asking = origin | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    closed, opened = client(kitchen()), client(kitchen(origins=["https://lab.example"], keys=keys))
    assert "access-control-allow-origin" not in closed.get("/v1/models", headers=origin).headers
    assert closed.options("/v1/predict", headers=asking).status_code == 403
    asked = opened.options("/v1/predict", headers=asking)
    assert (asked.status_code, asked.headers["access-control-allow-headers"]) == (200, "authorization")
    let_in = opened.get("/v1/models", headers=origin | {"X-API-Key": "k" * 32})
    refused = opened.get("/v1/models", headers=origin)
    assert (let_in.status_code, refused.status_code) == (200, 401)
    assert {"Retry-After", "Cellnet-Models", "X-Request-ID"} <= set(
        refused.headers["access-control-expose-headers"].split(", ")
    )
    for response in (asked, let_in, refused):
        assert response.headers["access-control-allow-origin"] == "https://lab.example"
    other = opened.get("/v1/models", headers={"Origin": "https://elsewhere.example"})
    assert "access-control-allow-origin" not in other.headers


ELSEWHERE = (
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://testserver:3000"},
    {"Origin": "http://testserver:3000"},
    {"Origin": "https://testserver.evil.example"},
    {"Origin": "null"},
    {"Origin": "http://["},
)
HERE = (
    {},
    {"Origin": "http://testserver"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://lab.example"},  # of a proxy that gives another Host
)


@pytest.mark.parametrize("path", ["/v1/predict", "/v2/models/cellnet/infer"])
def test_what_a_browser_asks_for_another_site_is_refused_before_it_is_computed(kitchen: Callable, path: str) -> None:
    service = kitchen()
    for headers in ELSEWHERE:
        assert_problem(client(service).post(path, content=DARK, headers=headers), 403, "--cors")
    assert service.figure("cellnet_requests_refused_total", reason="site") == len(ELSEWHERE)
    assert service.figure("cellnet_images_total", outcome="answered") == 0
    assert all(client(service).post(path, content=DARK, headers=headers).status_code != 403 for headers in HERE)
    for opened in ("*", "https://lab.example"):
        named = {"Sec-Fetch-Site": "cross-site", "Origin": "https://lab.example"}
        assert client(kitchen(origins=[opened])).post(path, content=DARK, headers=named).status_code != 403
    for read in ("/v1/models", "/metrics"):
        assert client(service).get(read, headers=ELSEWHERE[0]).status_code == 403
    for page in ("/", "/docs", "/healthz"):
        assert client(service).get(page, headers=ELSEWHERE[0]).status_code == 200, "a link may lead to it"


@pytest.mark.parametrize("path", ["/", "/healthz", "/v1/models"])
def test_a_service_of_this_machine_answers_to_no_name_that_a_web_page_made_for_it(kitchen: Callable, path: str) -> None:
    service = kitchen(hosts=("127.0.0.1", "localhost", "[::1]", "Lab.example"))
    api = client(service)
    for host in ("localhost", "LocalHost:8000", "127.0.0.1:80", "[::1]", "[::1]:8000", "lab.example"):
        assert api.get(path, headers={"Host": host}).status_code == 200
    for host in ("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.nip.io", "[::2]:8000", ""):
        assert_problem(
            api.get(path, headers={"Host": host}), 421, f"not {host.removesuffix(':8000')!r}", "--allow-host"
        )
    assert service.figure("cellnet_requests_refused_total", reason="host") == 6
    assert client(kitchen()).get(path, headers={"Host": "evil.example"}).status_code == 200, "any, where none is said"


def test_browsers_are_told_to_be_careful_and_no_page_loads_anything_from_elsewhere(kitchen: Callable) -> None:
    api = client(kitchen())
    for path in ("/", "/docs", "/v1/models", "/nothing"):
        headers = api.get(path).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    assert "unsafe" not in api.get("/").headers["content-security-policy"]
    docs = api.get("/docs").text
    sources = re.findall(r"(?:src|href)=\"([^\"]+)\"", docs)
    assert sources and all(source.startswith(("/docs/", "data:")) for source in sources)
    for source in sources:
        assert source.startswith("data:") or api.get(source).status_code == 200


def test_readiness_tells_what_is_stale_but_not_to_strangers(kitchen: Callable, registry: Registry) -> None:
    service = kitchen()
    assert client(service).get("/readyz").json()["status"] == "ok"
    service.spoiled = {"regressor@2": RuntimeError("no such operator")}
    publish(registry, "count")
    service.shelf.refresh()
    said = client(service).get("/readyz").json()
    assert said["status"] == "stale" and "regressor@2 cannot be used" in said["problems"][0]
    guarded = kitchen(keys=(Key("0" * 64),))
    guarded.shelf.problems = {"regressor": "s3://secret does not answer"}
    said = client(guarded).get("/readyz").json()
    assert (said["status"], said["problems"]) == ("stale", [])


def test_the_models_are_told_with_what_they_are_for(kitchen: Callable, registry: Registry) -> None:
    publish(registry, "count", name="regressor-A172")
    registry.promote(publish(registry, "count", alias=None), "challenger")
    models = client(kitchen(challenge=0.1)).get("/v1/models").json()["models"]
    assert [(one["ref"], one["role"], one["alias"]) for one in models] == [
        ("classifier@1", "classifier", "champion"),
        ("regressor@1", "regressor", "champion"),
        ("regressor-A172@1", "A172", "champion"),
        ("regressor@2", "regressor", "challenger"),
    ]


@pytest.mark.slow
def test_a_share_of_requests_is_answered_by_the_challenger_and_a_repeated_one_by_the_same(
    kitchen: Callable, registry: Registry
) -> None:
    registry.promote(publish(registry, "count", alias=None), "challenger")
    service = kitchen(challenge=0.25)
    api = client(service)

    def ask(name: str) -> tuple[float, str]:
        said = api.post("/v1/predict", content=DARK, headers={"X-Request-ID": name}).json()["predictions"][0]
        return said["count"], said["models"]["regressor"]

    said = [ask(f"request-{number}") for number in range(80)]
    assert set(said) == {(1, "regressor@1"), (2, "regressor@2")}
    challenged = said.count((2, "regressor@2"))
    assert 8 <= challenged <= 32
    assert [ask(f"request-{number}") for number in range(20)] == said[:20]
    answers = service.figure("cellnet_answers_total", model="regressor@2", alias="challenger")
    assert answers == challenged + said[:20].count((2, "regressor@2"))


def test_a_shadow_answers_nobody_but_is_compared(kitchen: Callable, registry: Registry) -> None:
    registry.promote(publish(registry, "count", alias=None), "challenger")
    service = kitchen(challenge="shadow")
    with client(service) as api:
        for _ in range(5):
            said = api.post("/v1/predict", content=DARK).json()["predictions"][0]
            assert (said["count"], said["models"]["regressor"]) == (1, "regressor@1")
        deadline = time.monotonic() + 20
        while service.figure("cellnet_shadow_cells_count", model="regressor@2") != 5 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert service.figure("cellnet_shadow_cells_sum", model="regressor@2") == 5, "one cell away, five times"
    assert service.figure("cellnet_answers_total", model="regressor@1", alias="champion") == 5


def test_the_figures_of_all_processes_are_told_apart_and_can_be_read_by_prometheus(kitchen: Callable) -> None:
    one, other = kitchen(), kitchen()
    client(one).post("/v1/predict", content=DARK)
    for _ in range(2):
        client(other).post("/v1/predict", content=DARK)

    async def texts() -> dict[str, str]:
        return {"a": one.meters.text(), "b": other.meters.text()}

    text = client(kitchen(texts=texts)).get("/metrics").text
    line = 'cellnet_requests_total{replica="%s",route="/v1/predict",status="200"} %.1f'
    assert line % ("a", 1) in text and line % ("b", 2) in text
    assert text.count("# TYPE cellnet_request_seconds histogram") == 1
    assert 'cellnet_serving{alias="champion",engine="torch",model="regressor@1",replica="b",task="count"} 1.0' in text


def test_the_client_knows_every_request_by_the_name_that_the_log_has(
    kitchen: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    api = client(kitchen(keys=(Key("0" * 64),)))
    with caplog.at_level(logging.INFO, "cellnet.requests"):
        good = api.get("/healthz")
        refused = api.get("/v1/models", headers={"X-Request-ID": "not a name"})
        named = api.get("/healthz", headers={"X-Request-ID": "from-the-client"})
    lines = [json.loads(record.message) for record in caplog.records if record.name == "cellnet.requests"]
    assert [line["request_id"] for line in lines] == [
        good.headers["x-request-id"],
        refused.headers["x-request-id"],
        "from-the-client",
    ]
    assert refused.json()["request_id"] == refused.headers["x-request-id"] != "not a name"
    assert "x-request-id" not in named.headers, "Ray Serve adds what the request came with, and twice is once too often"


def test_a_request_is_a_line_of_the_log_where_that_is_wanted_and_holds_no_secret(
    kitchen: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "a-secret-of-somebody"
    api = client(kitchen(keys=(Key(hashlib.sha256(secret.encode()).hexdigest(), "ada"),)))
    headers = {"X-Request-ID": "from-the-client", "Authorization": f"Bearer {secret}"}
    with caplog.at_level(logging.INFO, "cellnet.requests"):
        api.post("/v1/predict", content=DARK, headers=headers)
        assert_problem(api.post("/v1/predict", content=b"", headers=headers | {"X-Request-ID": 'no"good\x7f'}), 422)
        assert_problem(api.post("/v1/predict", content=DARK), 401)
    first, second, third = (
        json.loads(record.message) for record in caplog.records if record.name == "cellnet.requests"
    )
    assert (first["request_id"], first["status"], first["path"]) == ("from-the-client", 200, "/v1/predict")
    assert (first["images"], first["bad"], first["models"]) == (1, 0, ["classifier@1", "regressor@1"])
    assert (first["level"], first["route"], first["key"]) == ("INFO", "/v1/predict", "ada") and first["ms"] > 0
    assert datetime.fromisoformat(first["time"]).tzinfo is not None
    assert third["status"] == 401 and "key" not in third
    assert second["status"] == 422 and re.fullmatch("[0-9a-f]{32}", second["request_id"])
    assert "secret" not in caplog.text


@pytest.mark.parametrize(("proxies", "seen"), [(None, "testclient"), ((), "192.0.2.7")])
def test_a_client_is_the_address_that_haproxy_says_and_nobody_else(
    kitchen: Callable, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, proxies: Any, seen: str
) -> None:
    service = kitchen(proxies=proxies)
    asked: list[Any] = []
    for batcher in (service.answerer._small, service.answerer._large):
        do = batcher.do
        monkeypatch.setattr(batcher, "do", lambda job, do=do, **turn: (asked.append(turn), do(job, **turn))[1])
    with caplog.at_level(logging.INFO, "cellnet.requests"):
        for _ in range(2):
            files = [("images", DARK), ("images", DARK)]
            client(service).post("/v1/predict", files=files, headers={"X-Forwarded-For": "192.0.2.7"})
    lines = [json.loads(record.message) for record in caplog.records if record.name == "cellnet.requests"]
    assert [line["client"] for line in lines] == [seen] * 2
    assert [turn["client"] for turn in asked] == [seen] * 4 and len({id(turn["request"]) for turn in asked}) == 2
