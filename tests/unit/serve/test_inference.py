"""The Open Inference Protocol V2 over models whose answers are known, and spoken by Triton's own client."""

import base64
import json
import random
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
import tritonclient.http as tritonhttp
import uvicorn
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from cellnet.certainty.calibration import Calibration
from cellnet.images.file import encode_png
from cellnet.images.quality import Measures
from cellnet.prediction.answers import Answer
from cellnet.registry.registry import Registry
from serve.http.keys import Key
from serve.limits import Limits
from serve.v2.tensors import read_request
from tests.factories import SIDE, champions, even, publish
from tests.unit.serve.kitchen import Kitchen, client

HEADER = "Inference-Header-Content-Length"
ALL = [
    *("lineage", "probabilities", "classes", "count", "count_low", "count_high"),
    *("unfamiliar", "lineage_unfamiliar", "count_unfamiliar", "quality", "focus", "models"),
]


def frame(grey: int = 60, *, tiles: int = 1) -> NDArray[np.uint8]:
    """So many tiles beside each other: dark ones are A172."""
    return even(SIDE, SIDE * tiles, grey=grey)


DARK, BRIGHT = frame(), frame(200)
DARK_PNG, BRIGHT_PNG = encode_png(DARK), encode_png(BRIGHT)


def of_files(*files: bytes, **more: Any) -> dict[str, Any]:
    """A request about whole files, all of it JSON."""
    data = [base64.b64encode(file).decode() for file in files]
    return {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [len(files)], "data": data}], **more}


def of_pixels(pixels: Any, shape: list[int], datatype: str = "UINT8", **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "pixels", "datatype": datatype, "shape": shape, "data": pixels}], **more}


def binary(asked: dict[str, Any], data: bytes) -> tuple[bytes, dict[str, str]]:
    """A body whose one input is binary data, and the headers that say so."""
    tensor = {name: value for name, value in asked["inputs"][0].items() if name != "data"}
    text = json.dumps({**asked, "inputs": [{"parameters": {"binary_data_size": len(data)}, **tensor}]}).encode()
    return text + data, {HEADER: str(len(text)), "Content-Type": "application/octet-stream"}


def lengths(*files: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(file)) + file for file in files)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    """A service over the same, that all tests share."""
    return client(Kitchen(champions(tmp_path_factory.mktemp("shared"))))


def infer(
    api: TestClient, asked: dict[str, Any] | bytes, model: str = "cellnet", headers: dict[str, str] | None = None
) -> httpx.Response:
    body = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
    return api.post(f"/v2/models/{model}/infer", content=body, headers=headers)


def said(response: httpx.Response) -> dict[str, Any]:
    """The values of each output of an answer that is JSON alone."""
    assert response.status_code == 200, response.text
    assert HEADER not in response.headers
    for output in response.json()["outputs"]:
        assert len(output["data"]) == np.prod(output["shape"])
    return {output["name"]: output["data"] for output in response.json()["outputs"]}


def assert_problem(response: httpx.Response, status: int, *words: str) -> None:
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    for word in words:
        assert word in response.json()["detail"]


def test_the_server_and_each_model_say_what_they_are(registry: Registry, kitchen: Callable[..., Kitchen]) -> None:
    publish(registry, "count", name="regressor-A172")
    api = client(kitchen())
    assert api.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert api.get("/v2/health/live").json() == {"live": True}
    assert api.get("/v2/health/ready").json() == {"ready": True}
    index = api.post("/v2/repository/index").json()
    names = ["classifier", "regressor", "regressor-A172", "cellnet"]
    assert [entry["name"] for entry in index] == names and {entry["state"] for entry in index} == {"READY"}
    for name in names:
        assert api.get(f"/v2/models/{name}/ready").json() == {"name": name, "ready": True}
    counter = api.get("/v2/models/regressor-A172/versions/1").json()
    assert (counter["name"], counter["versions"]) == ("regressor-A172", ["1"])
    assert [tensor["name"] for tensor in counter["inputs"]] == ["image", "pixels"]
    assert [tensor["name"] for tensor in counter["outputs"]] == [
        "count",
        "count_low",
        "count_high",
        "unfamiliar",
        "quality",
        "focus",
    ]
    classifier = api.get("/v2/models/classifier").json()
    assert {"name": "probabilities", "datatype": "FP64", "shape": [-1, 2]} in classifier["outputs"]
    assert [tensor["name"] for tensor in api.get("/v2/models/cellnet").json()["outputs"]] == ALL


@pytest.mark.parametrize("rest", ["", "/ready", "/infer"])
def test_a_model_or_version_that_is_not_served_is_told_with_those_that_are(api: TestClient, rest: str) -> None:
    ask = api.post if rest == "/infer" else api.get
    assert_problem(ask(f"/v2/models/nobody{rest}"), 404, "nobody", "classifier, regressor, cellnet")
    assert_problem(ask(f"/v2/models/regressor/versions/7{rest}"), 404, "regressor", "version '7'", "there is 1")


def test_a_challenger_is_asked_by_its_number(registry: Registry, kitchen: Callable[..., Kitchen]) -> None:
    publish(registry, "count", alias="challenger")
    api = client(kitchen(challenge="shadow"))
    assert api.get("/v2/models/regressor").json()["versions"] == ["1", "2"]
    for path, version, count in (("regressor", "1", 1), ("regressor/versions/2", "2", 2)):
        response = infer(api, of_files(DARK_PNG), path)
        assert (response.json()["model_version"], said(response)["count"]) == (version, [count])


def test_all_models_together_name_the_lineage_and_count_by_its_counter(
    registry: Registry, kitchen: Callable[..., Kitchen]
) -> None:
    publish(registry, "count", name="regressor-A172", alias=None)
    publish(registry, "count", name="regressor-A172")
    response = infer(client(kitchen()), of_files(DARK_PNG, BRIGHT_PNG, id="42"))
    assert (response.json()["model_name"], response.json()["id"]) == ("cellnet", "42")
    outputs = said(response)
    assert (outputs["lineage"], outputs["count"]) == (["A172", "VERO6"], [2, 1])
    assert outputs["classes"] == ["A172", "VERO6"] * 2
    assert outputs["probabilities"] == pytest.approx([0.9, 0.1, 0.2, 0.8])
    assert outputs["models"] == ["classifier@1", "regressor-A172@2", "classifier@1", "regressor@1"]


def test_of_a_model_that_is_named_no_other_runs(kitchen: Callable[..., Kitchen]) -> None:
    service = kitchen()
    outputs = said(infer(client(service), of_files(encode_png(frame(tiles=3))), "regressor"))
    assert outputs == {"count": [3], "quality": ["empty"]}
    classifier, regressor = service.shelf.champions
    assert (classifier.model.batches, regressor.model.batches) == ([], [3])


@pytest.mark.parametrize("shape", [[2, SIDE, SIDE], [2, 1, SIDE, SIDE], [2, SIDE, SIDE, 1]])
@pytest.mark.parametrize("datatype", ["UINT8", "UINT16"])
def test_pixels_are_frames_in_any_usual_shape_as_binary_data_nested_or_flat(
    api: TestClient, shape: list[int], datatype: str
) -> None:
    frames_NHW = np.stack([DARK, BRIGHT])
    stored = frames_NHW.astype("<u2" if datatype == "UINT16" else np.uint8)
    asked = of_pixels(None, shape, datatype, id="of any length" + "!" * (len(datatype) % 2))
    answers = [
        said(infer(api, asked_how, "classifier", headers))
        for asked_how, headers in (
            binary(asked, stored.tobytes()),
            (of_pixels(frames_NHW.reshape(shape).tolist(), shape, datatype), None),
            (of_pixels(frames_NHW.ravel().tolist(), shape, datatype), None),
        )
    ]
    assert [answer["lineage"] for answer in answers] == [["A172", "VERO6"]] * 3


def test_one_frame_needs_no_batch(api: TestClient) -> None:
    wide = frame(tiles=2)
    assert said(infer(api, of_pixels(wide.tolist(), [*wide.shape])))["count"] == [2]


def test_files_are_taken_as_binary_data_and_outputs_given_as_such(api: TestClient) -> None:
    wanted = [{"name": "lineage"}, {"name": "count", "parameters": {"binary_data": False}}]
    asked = of_files(DARK_PNG, BRIGHT_PNG, outputs=wanted, parameters={"binary_data_output": True})
    body, headers = binary(asked, lengths(DARK_PNG, BRIGHT_PNG))
    response = infer(api, body, headers=headers)
    length = int(response.headers[HEADER])
    lineage, count = json.loads(response.content[:length])["outputs"]
    assert response.content[length:] == lengths(b"A172", b"VERO6")
    assert (lineage["shape"], lineage["parameters"]) == ([2], {"binary_data_size": 17}) and "data" not in lineage
    assert count == {"name": "count", "datatype": "FP64", "shape": [2], "data": [1, 1]}


def test_the_pixel_size_and_the_page_are_parameters(api: TestClient) -> None:
    large = encode_png(frame(tiles=2))
    assert said(infer(api, of_files(large)))["count"] == [2]
    half = of_files(encode_png(np.kron(frame(tiles=2), np.ones((2, 2), np.uint8))), parameters={"pixel_um": 0.25})
    assert said(infer(api, half))["count"] == [2], "a frame of half the pixel size is seen at the training's"
    stack = cv2.imencodemulti(".tiff", [DARK, BRIGHT])[1].tobytes()
    assert said(infer(api, of_files(stack, parameters={"page": 2})))["lineage"] == ["VERO6"]
    assert_problem(infer(api, of_files(stack)), 422, "image 1", "holds 2 pages")


def test_what_no_image_has_is_left_out_and_what_one_lacks_is_null(
    kitchen: Callable[..., Kitchen], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = kitchen()
    api, model = client(service), service.shelf.champions.regressor.model
    one, two = encode_png(frame()), encode_png(frame(tiles=2))
    assert said(infer(api, of_files(one, two), "regressor")) == {"count": [1, 2], "quality": ["empty", "empty"]}
    calibration = Calibration(tiles=9, frames=2, tile_quantile=1.0)  # of frames of one tile alone
    monkeypatch.setattr(model, "card", model.card.model_copy(update={"calibration": calibration}))
    answered = model.answer_of

    def familiar(frame: Any, measures: Measures) -> Answer:
        return answered(frame, measures).model_copy(
            update={
                "unfamiliar": True if len(frame.boxes) == 2 else None,
                "focus": 0.5 if len(frame.boxes) == 1 else None,
            }
        )

    monkeypatch.setattr(model, "answer_of", familiar)
    outputs = said(infer(api, of_files(one, two), "regressor"))
    assert outputs["focus"] == [0.5, None], "as /v1 tells it"
    assert said(infer(api, of_files(one, two)))["focus"] == [0.5, None]
    assert outputs["count_high"] == [pytest.approx(1 + 2**0.5, abs=0.01), None]
    assert outputs["unfamiliar"] == [False, True]


def test_an_output_that_a_model_does_not_have_is_told_with_those_that_it_has(api: TestClient) -> None:
    asked = of_files(DARK_PNG, outputs=[{"name": "lineage"}])
    assert_problem(infer(api, asked, "regressor"), 422, "no output 'lineage'", "count, count_low")


BINARY_PNG = binary(of_files(DARK_PNG), lengths(DARK_PNG))
WRONG: dict[str, tuple[dict[str, Any] | bytes, dict[str, str], str]] = {
    "nothing": (b"", {}, "not JSON"),
    "no JSON": (DARK_PNG, {}, "not JSON"),
    "another JSON": (b"[]", {}, "the JSON"),
    "too deep": (b'{"a":' + b"[" * 100_000, {}, "not JSON"),
    "half a character": (of_files(DARK_PNG, id="\ud800"), {}, "id: "),
    "half a character as an output": (of_files(DARK_PNG, outputs=[{"name": "\udfff"}]), {}, "outputs.0.name: "),
    "no input": ({"inputs": []}, {}, "inputs"),
    "two inputs": ({"inputs": of_files(DARK_PNG)["inputs"] * 2}, {}, "inputs"),
    "not base64": ({"inputs": [of_files()["inputs"][0] | {"shape": [1], "data": ["!"]}]}, {}, "image 1: not base64"),
    "a file too few": ({"inputs": [of_files(DARK_PNG)["inputs"][0] | {"shape": [2]}]}, {}, "not the 2 texts"),
    "a file that is none": (of_files(DARK_PNG, b"no image"), {}, "image 2: not a readable PNG"),
    "files of numbers": ({"inputs": [of_files()["inputs"][0] | {"shape": [1], "data": [1]}]}, {}, "1 texts"),
    "pixels too few": (of_pixels([1, 2, 3], [2, 2]), {}, "not the 4 whole numbers"),
    "pixels in colour": (of_pixels([1] * 12, [1, 2, 2, 3]), {}, "shape [1, 2, 2, 3] is not"),
    "pixels of texts": (of_pixels(["1"] * 4, [2, 2]), {}, "whole numbers"),
    "ragged pixels": (of_pixels([[1, 2], [3]], [2, 2]), {}, "whole numbers"),
    "pixels too bright": (of_pixels([1, 2, 3, 256], [2, 2]), {}, "not of UINT8"),
    "pixels below 0": (of_pixels([1, 2, 3, -1], [2, 2], "UINT16"), {}, "not of UINT16"),
    "pixels far too bright": (of_pixels([1, 2, 3, 10**40], [2, 2]), {}, "not of UINT8"),
    "blank pixels": (of_pixels([7] * 4, [2, 2]), {}, "image 1: blank"),
    "a small frame": (of_pixels([1, 2, 3, 4], [2, 2]), {}, "image 1: the frame is 2×2"),
    "floats": (of_pixels([0.1] * 4, [2, 2], "FP32"), {}, "datatype"),
    "files as numbers": (of_files(DARK_PNG) | of_pixels([1], [1], "BYTES"), {}, "BYTES is not its datatype"),
    "an empty shape": (of_pixels([], []), {}, "shape"),
    "a shape of nothing": (of_pixels([], [0, 2]), {}, "shape"),
    "a shape of far too much": (of_pixels([1], [2**30, 2**30]), {}, "megapixels"),
    "more bytes than there are": (of_pixels(None, [10, 10]), {HEADER: "9999"}, f"{HEADER} is 9999"),
    "a header of words": (b"{}", {HEADER: "two"}, f"{HEADER} is two"),
    "a header of many digits": (b"{}", {HEADER: "9" * 5000}, f"{HEADER} is 999"),
    "no header": (BINARY_PNG[0], {}, "not JSON"),
    "no binary data": (BINARY_PNG[0][: int(BINARY_PNG[1][HEADER])], {}, "0 bytes of binary data came"),
    "half the binary data": (BINARY_PNG[0][:-5], BINARY_PNG[1], "bytes of binary data came"),
    "more binary data": (BINARY_PNG[0] + b"12345", BINARY_PNG[1], "bytes of binary data came"),
    "neither data": ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1]}]}, {}, "give either data"),
    "both data": (
        {"inputs": [of_files(DARK_PNG)["inputs"][0] | {"parameters": {"binary_data_size": 0}}]},
        {},
        "give either data",
    ),
    "a file without its length": (*binary(of_files(b"ab"), b"ab"), "2 bytes of binary data are not 1 files"),
    "a file longer than all": (*binary(of_files(b"ab"), b"\xff\xff\xff\xff"), "are not 1 files"),
    "more files": (*binary(of_files(b"ab"), lengths(b"a", b"b")), "are not 1 files"),
    "fewer pixels": (*binary(of_pixels(None, [3, 3], "UINT16"), bytes(9)), "not the 18 of UINT16 [3, 3]"),
    "a pixel size of nothing": (of_files(DARK_PNG, parameters={"pixel_um": 0}), {}, "pixel_um"),
    "all pages": (of_files(DARK_PNG, parameters={"page": "all"}), {}, "parameters.page: "),
    "compressed": (of_files(DARK_PNG), {"Content-Encoding": "gzip"}, "Content-Encoding gzip"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_of_the_protocol_is_told(api: TestClient, case: str) -> None:
    body, headers, words = WRONG[case]
    assert_problem(infer(api, body, headers=headers), 422, words)


@pytest.mark.parametrize("path", ["/v2/models/nobody", "/v2/nothing"])
def test_a_problem_says_what_is_wrong_where_clients_of_the_protocol_look_for_it_too(api: TestClient, path: str) -> None:
    problem = api.get(path).json()
    assert problem["error"] == problem["detail"]


def test_the_limits_of_a_request_hold_here_too(kitchen: Callable[..., Kitchen]) -> None:
    api = client(kitchen(limits=Limits(request_mb=0.01, images=2, megapixels=0.005)))
    assert_problem(infer(api, b" " * 10_001), 413, "0.01 MB")
    assert_problem(infer(api, of_files(*[DARK_PNG] * 3)), 413, "over 2 images")
    assert_problem(infer(api, of_files(encode_png(frame(tiles=5)))), 422, "image 1", "0.005")
    assert_problem(infer(api, of_pixels([0], [51, 100])), 422, "0.0 megapixels are more than the 0.005")
    assert said(infer(api, of_files(*[DARK_PNG] * 2)))["count"] == [1, 1]


def test_json_of_many_small_values_is_refused_before_it_is_in_memory(api: TestClient) -> None:
    assert_problem(infer(api, b'{"a":[' + b"{}," * 1_000_001 + b"{}]}"), 422, "over 1000000 values", "binary data")


def test_a_file_in_pieces_takes_no_more_memory_than_a_whole_one(api: TestClient) -> None:
    pieces = "QUJD " * 10**5
    text = json.dumps(of_files() | {"inputs": [of_files()["inputs"][0] | {"shape": [1], "data": [pieces]}]}).encode()
    tracemalloc.start()
    read = read_request(text, None, Limits())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert read.images[0].contents == b"ABC" * 10**5
    assert peak < 6 * len(text)


def test_a_key_is_asked_for_but_of_those_who_look_after_the_process(kitchen: Callable[..., Kitchen]) -> None:
    api = client(kitchen(keys=[Key("0" * 64)]))
    assert_problem(api.get("/v2/models/cellnet"), 401, "API key")
    assert_problem(infer(api, of_files(DARK_PNG)), 401, "API key")
    assert api.get("/v2/health/ready").json() == {"ready": True}


ODD = [None, True, -1, 0, 3, 1.5, 2**70, 1e308, "", "\ud800", "count", [], {}, [[]], [None], {"a": [1]}]
PIECES = [b"[", b"]", b"{", b"}", b",", b"null", b"1e999", b"NaN", b'"\\udfff"', b'"data":', b"9" * 400, b"\xff"]


def replaced(value: Any, rng: random.Random) -> Any:
    """The same JSON but for something odd somewhere in it."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return rng.choice(ODD)
    places = list(value if isinstance(value, dict) else range(len(value)))
    place = rng.choice(places)
    whole = value.copy()
    whole[place] = replaced(value[place], rng)
    return whole


def mutations(seed: int, number: int) -> Iterator[tuple[bytes, dict[str, str]]]:
    """Requests that were valid once, in JSON or as binary data, with odd values or damaged bytes."""
    rng = random.Random(seed)
    count = [{"name": "count", "parameters": {"binary_data": True}}]
    valid: list[tuple[dict[str, Any], bytes]] = [
        (of_files(DARK_PNG, id="1", outputs=count), b""),
        (of_pixels(DARK[:3, :3].tolist(), [1, 3, 3], parameters={"pixel_um": 0.5, "page": 1}), b""),
        (of_files(DARK_PNG, DARK_PNG), lengths(DARK_PNG, DARK_PNG)),
        (of_pixels(None, [*DARK.shape], parameters={"binary_data_output": True}), DARK.tobytes()),
    ]
    for _ in range(number):
        asked, data = rng.choice(valid)
        body, headers = binary(asked, data) if data else (json.dumps(asked).encode(), {})
        length = int(headers.get(HEADER, len(body)))
        if rng.random() < 0.5:
            text = json.dumps(replaced(json.loads(body[:length]), rng)).encode()
            body, length = text + body[length:], len(text)
        else:
            start = rng.randrange(len(body))
            end = start + rng.choice((0, 1, 4, 30))
            body = body[:start] + rng.choice((b"", *PIECES, body[end : end + 9])) + body[end:]
            length += rng.choice((0, 0, 1, -1))
        yield body, {HEADER: str(length)} if headers else {}


@pytest.mark.slow
def test_no_request_however_damaged_is_a_fault_of_the_service(api: TestClient) -> None:
    statuses = {infer(api, body, headers=headers).status_code for body, headers in mutations(0, 200)}
    assert statuses == {200, 422}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a real server answers with the same."""
    kitchen = Kitchen(champions(tmp_path_factory.mktemp("triton")))
    config = uvicorn.Config(kitchen.api, host="127.0.0.1", port=0, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def triton(address: str) -> Iterator[Any]:
    with tritonhttp.InferenceServerClient(address) as triton:
        yield triton


def sent_files(*files: bytes) -> Any:
    tensor = tritonhttp.InferInput("image", [len(files)], "BYTES")
    return tensor.set_data_from_numpy(np.array(files, object))


def test_tritons_client_finds_the_models_and_knows_when_they_are_ready(triton: Any) -> None:
    assert triton.is_server_live() and triton.is_server_ready() and triton.is_model_ready("cellnet")
    assert triton.is_model_ready("regressor", "1") and not triton.is_model_ready("regressor", "2")
    assert triton.get_server_metadata()["name"] == "cellnet"
    assert triton.get_model_metadata("classifier")["versions"] == ["1"]
    index = triton.get_model_repository_index()
    assert [entry["name"] for entry in index] == ["classifier", "regressor", "cellnet"]


def test_tritons_client_sends_files_and_reads_every_output(triton: Any) -> None:
    result = triton.infer("cellnet", [sent_files(DARK_PNG, BRIGHT_PNG)], request_id="7")
    assert result.get_response()["id"] == "7"
    assert result.as_numpy("lineage").tolist() == [b"A172", b"VERO6"]
    assert result.as_numpy("probabilities") == pytest.approx(np.array([[0.9, 0.1], [0.2, 0.8]]))
    assert result.as_numpy("count").tolist() == [1.0, 1.0]
    assert result.as_numpy("models").tolist() == [[b"classifier@1", b"regressor@1"]] * 2
    assert result.as_numpy("count_low") is None, "a model of before has no interval"


@pytest.mark.parametrize("as_binary", [True, False])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tritons_client_sends_pixels_and_reads_the_outputs_it_asks_for(
    triton: Any, as_binary: bool, dtype: type
) -> None:
    frames_NHW = np.stack([DARK, BRIGHT, DARK]).astype(dtype)
    name = np.dtype(dtype).name.upper()
    pixels = tritonhttp.InferInput("pixels", [*frames_NHW.shape], name)
    pixels.set_data_from_numpy(frames_NHW, binary_data=as_binary)
    wanted = [tritonhttp.InferRequestedOutput("lineage", binary_data=as_binary)]
    result = triton.infer("classifier", [pixels], outputs=wanted, parameters={"pixel_um": 0.5})
    assert [output["name"] for output in result.get_response()["outputs"]] == ["lineage"]
    assert [str(np.bytes_(value), "ascii") for value in result.as_numpy("lineage")] == ["A172", "VERO6", "A172"]


def test_tritons_client_says_what_is_wrong(triton: Any) -> None:
    with pytest.raises(Exception, match=r"^\[422\] image 2: not a readable PNG"):
        triton.infer("regressor", [sent_files(DARK_PNG, b"no image")])
    with pytest.raises(Exception, match=r"^\[404\] no model 'nobody' is served; there is classifier"):
        triton.get_model_metadata("nobody")
