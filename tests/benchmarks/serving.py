"""How fast it answers, beside others: `python tests/benchmarks/serving.py OUT` (needs wrk, and cellnet[bench]).

The same two models (the default networks, untrained: speed does not depend on weights) over one 200×200 PNG in a form,
as curl sends it, by wrk with 1, 16 and 64 connections, every server in turn, several times:

    limit      decode and predict without HTTP: one image after the other, and batches by a process for each CPU
    cellnet    `cellnet serve`
    eager      FastAPI, uvicorn and torch (serving_peers.py)
    litserve   LitServe with the engine of cellnet, a worker for each CPU, dynamic batches (serving_peers.py)

Writes OUT/serving.md: medians over the turns, and what cellnet has of them as a ratio.
"""

import multiprocessing
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it runs from anywhere

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as in the service: threads are for images, not for matrices
import cv2
from joblib import cpu_count

from cellnet.images.file import ImageFile
from cellnet.prediction.answers import combine
from cellnet.prediction.engines import engine_of, load_model
from cellnet.prediction.lineup import Cuts, Lineup, answers, resolve_models
from cellnet.prediction.model import FrameModel
from cellnet.registry.registry import Registry
from serve.batching import MOST_TILES
from tests.benchmarks.untrained import drawn, make_registry
from tests.integration.conftest import OwnCluster

ROOT: Final = Path(__file__).parents[2]
CONNECTIONS: Final = (1, 16, 64)
SECONDS: Final = 8
TURNS: Final = 3
BOUNDARY: Final = "cellnetbenchmark"
BODY: Final = """
local file = io.open(os.getenv("BODY"), "rb"); wrk.body = file:read("*all"); file:close()
wrk.method = "POST"; wrk.headers["Content-Type"] = "multipart/form-data; boundary=cellnetbenchmark"
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format("RESULT %f %f %f %d\\n", summary.requests / summary.duration * 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
"""
"""What wrk does: posts the file BODY, and says requests a second, p50 and p99 in ms, and failures."""


class Speed(NamedTuple):
    """What a client sees."""

    per_s: float
    p50_ms: float
    p99_ms: float
    failed: float


def loaded(registry: Registry) -> Lineup[FrameModel]:
    """The champions, by the engine that the service takes."""
    cv2.setNumThreads(1)
    return resolve_models(registry, None, None).map(lambda version: load_model(registry, version))


def batches_per_s(place: str, data: bytes) -> float:
    """Images a second of one process that decodes and predicts them in batches, as a server does that is asked much."""
    models = loaded(Registry.open(place))

    def predict() -> None:
        images = [ImageFile("image", data) for _ in range(MOST_TILES)]
        cuts = [Cuts(image.decode(), image.pixel_um) for image in images]
        said = [model.predict_cuts([one.of(model) for one in cuts], batch=MOST_TILES) for model in models]
        for cut, *several in zip(cuts, *said, strict=True):
            answered = [
                model.answer_of(one, cut.of(model).measures) for model, one in zip(models, several, strict=True)
            ]
            combine("image", answered).model_dump_json()

    predict()
    started, images_n = time.perf_counter(), 0
    while time.perf_counter() < started + 4:
        predict()
        images_n += MOST_TILES
    return images_n / (time.perf_counter() - started)


def in_process(registry: Registry, data: bytes) -> dict[str, float]:
    """The limit: milliseconds an image, one after the other, and images a second on all CPUs."""
    models = loaded(registry)

    def predict() -> str:
        image = ImageFile("image", data)
        said = answers(models, image.decode(), pixel_um=image.pixel_um)
        return combine("image", said).model_dump_json()

    predict()
    took = []
    for _ in range(200):
        started = time.perf_counter()
        predict()
        took.append(1e3 * (time.perf_counter() - started))
    cpus = cpu_count()
    with ProcessPoolExecutor(cpus, mp_context=multiprocessing.get_context("spawn")) as pool:
        per_s = sum(pool.map(batches_per_s, [registry.store.uri] * cpus, [data] * cpus))
    engines = "/".join(engine_of(model) for model in models)
    print(f"limit: {statistics.median(took):.2f} ms an image, {per_s:.0f} images/s, {engines}", flush=True)
    return {"p50_ms": statistics.median(took), "per_s": per_s}


def command(way: str, registry: str, port: int, *options: str) -> list[str]:
    """What starts a server."""
    if way == "cellnet":
        words = [str(Path(sys.executable).with_name("cellnet")), "serve", "--no-overlays", *options]
        return [*words, "--registry", registry, "--port", str(port)]
    return [sys.executable, str(Path(__file__).with_name("serving_peers.py")), way, registry, str(port)]


@contextmanager
def server(way: str, registry: str, log: Path, *options: str) -> Iterator[str]:
    """A server in processes of its own, once it answers."""
    port = OwnCluster.free_port()
    with log.open("ab") as out:
        process = subprocess.Popen(
            command(way, registry, port, *options), stdout=out, stderr=out, cwd=ROOT, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/healthz", process)
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def wait_for(address: str, process: "subprocess.Popen[bytes]") -> None:
    """Until it answers."""
    for _ in range(600):
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            if process.poll() is not None:
                raise SystemExit(f"a server ended with {process.returncode}; its log says why") from None
            time.sleep(0.2)
    raise SystemExit("a server did not answer within two minutes")


def load(address: str, body: Path, script: Path, connections: int, seconds: int = SECONDS) -> Speed:
    """What wrk says."""
    wrk = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script)]
    said = subprocess.run(
        [*wrk, f"{address}/v1/predict"], env=os.environ | {"BODY": str(body)}, capture_output=True, text=True
    )
    found = re.search(r"RESULT (\S+) (\S+) (\S+) (\d+)", said.stdout)
    if not found:
        raise SystemExit(f"wrk failed: {said.stdout} {said.stderr}")
    return Speed(*map(float, found.groups()))


def form(data: bytes) -> bytes:
    """The image as a form."""
    head = [f"--{BOUNDARY}", 'Content-Disposition: form-data; name="images"; filename="a.png"', "", ""]
    return "\r\n".join(head).encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


def table(found: dict[str, dict[int, list[Speed]]], limit: dict[str, float]) -> str:
    """The medians, and cellnet beside each."""
    median = {
        way: {c: Speed(*map(statistics.median, zip(*speeds, strict=True))) for c, speeds in by.items()}
        for way, by in found.items()
    }
    lines = [
        "| | connections | requests/s | p50, ms | p99, ms | failed | cellnet has of its requests/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for way, by in median.items():
        for c, one in by.items():
            times = "" if way == "cellnet" else f"{median['cellnet'][c].per_s / one.per_s:.2f} ×"
            figures = f"{one.per_s:.0f} | {one.p50_ms:.1f} | {one.p99_ms:.1f} | {one.failed:.0f}"
            lines.append(f"| {way} | {c} | {figures} | {times} |")
    best = max(one.per_s for one in median["cellnet"].values())
    alone_ms, together = limit["p50_ms"], limit["per_s"]
    lines += [
        f"| in process | one image after the other | {1e3 / alone_ms:.0f} | {alone_ms:.1f} | | | |",
        f"| in process | batches, a process a CPU | {together:.0f} | | | | {best / together:.2f} × |",
        "",
        f"p50 of cellnet at one connection is {median['cellnet'][1].p50_ms / alone_ms:.2f} × the time in process.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    if len(sys.argv) != 2 or shutil.which("wrk") is None:
        raise SystemExit("python tests/benchmarks/serving.py OUT, with wrk installed (apt-get install wrk)")
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    registry = (
        make_registry(out / "registry") if not (out / "registry").exists() else Registry.open(str(out / "registry"))
    )
    data = cv2.imencode(".png", drawn(99))[1].tobytes()
    body, script = out / "body", out / "wrk.lua"
    body.write_bytes(form(data))
    script.write_text(BODY)
    ways = os.environ.get("WAYS", "cellnet,eager,litserve").split(",")
    found: dict[str, dict[int, list[Speed]]] = {way: {c: [] for c in CONNECTIONS} for way in ways}
    limits = []
    for _ in range(int(os.environ.get("TURNS", TURNS))):
        limits.append(in_process(registry, data))
        for way in ways:
            with server(way, str(out / "registry"), out / f"{way}.log") as address:
                load(address, body, script, 16, 2)  # warm
                for c in CONNECTIONS:
                    found[way][c].append(load(address, body, script, c))
                    print(way, c, found[way][c][-1], flush=True)
    limit = {name: statistics.median(one[name] for one in limits) for name in limits[0]}
    text = table(found, limit)
    (out / "serving.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
