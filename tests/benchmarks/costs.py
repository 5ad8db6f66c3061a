"""What infra/costs.py reckons with: `python tests/benchmarks/costs.py OUT`.

Seconds of a CPU until the service has answered a frame (HTTP but for its sockets, decoding, both networks, one thread).
Then 96 drawn frames go the whole way on an S3 server (ministack, on loopback, behind a proxy that counts): requests
that write or list, which Amazon has a price for, those that read, which have another, and the bytes that are there
after. Writes OUT/costs.md.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # as in a process that serves

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it runs from anywhere

import cv2
import numpy as np
from fastapi.testclient import TestClient

from cellnet.bank.bank import Bank
from cellnet.bank.correcting import label_image
from cellnet.config.train import ModelSpec
from cellnet.images.file import ImageFile, encode_png
from cellnet.prediction.engines import load_model
from cellnet.registry.registry import Registry
from cellnet.sample import draw_frame, write_sample
from cellnet.store.place import Place
from serve.answering import Answerer
from serve.api import make_api
from serve.limits import Limits
from serve.meters import Meters
from serve.models import Shelf
from tests.benchmarks.engines import FRAME_PX, LITE
from tests.benchmarks.untrained import publish
from tests.factories import clouds
from tests.integration.conftest import KEYS
from tests.integration.servers import FaultyProxy, PersistentServer

WELLS = 6
"""Of each of the eight lineages, with two frames each."""
FRAMES = 8 * WELLS * 2
POLLS = 100
LABELS = 10
PLACES = ("--registry", "s3://lab/registry", "--runs", "s3://lab/runs")


def frame_s(folder: Path, model: ModelSpec | None, frames: int) -> float:
    """Seconds of a CPU until the service has answered a frame, of both networks."""
    cv2.setNumThreads(1)
    registry = Registry.open(str(folder))
    for task in ("classify", "count"):
        publish(registry, task, model=model)
    shelf = Shelf(registry, lambda version: load_model(registry, version, threads=1), meters=Meters())
    client = TestClient(make_api(Answerer(shelf, Limits(), Meters())))
    drawn_HW = draw_frame("A172", np.random.default_rng(0), size_px=max(FRAME_PX)).image_HW[
        : FRAME_PX[0], : FRAME_PX[1]
    ]
    body = encode_png(np.ascontiguousarray(drawn_HW))
    client.post("/v1/predict", content=body).raise_for_status()
    began = time.process_time()
    for _ in range(frames):
        client.post("/v1/predict", content=body).raise_for_status()
    return (time.process_time() - began) / frames


def stored(folder: Path) -> int:
    """Bytes of the objects that a server keeps."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.suffix != ".json")


def cellnet(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "cellnet", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"cellnet {' '.join(words)}: {done.stderr[-2000:]}")


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    rows = ["| a frame of 1,408×1,040 pixels | seconds of a CPU |", "|---|---|"]
    for name, model, frames in (("residual and density", None, 20), ("frozen networks", LITE, 4)):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(f"| {name} | {frame_s(Path(folder), model, frames):.2g} |")
            print(rows[-1], flush=True)
    rows += ["", "| what | writes and lists | reads | stored, MB |", "|---|---|---|---|"]
    with (
        tempfile.TemporaryDirectory() as folder,
        PersistentServer(Path(folder, "server")) as server,
        FaultyProxy(server.address) as proxy,
    ):
        os.environ |= KEYS | {"AWS_ENDPOINT_URL_S3": proxy.address, "CELLNET_CACHE": str(Path(folder, "cache"))}

        def counted(what: str, do: Callable[[], object], share: int = 1) -> None:
            began, before = len(proxy.asked), stored(server.data)
            do()
            asked = proxy.asked[began:]
            reads = sum(method in ("GET", "HEAD") and path.partition("?")[0].count("/") > 1 for method, path in asked)
            more = (stored(server.data) - before) / 1e6
            line = f"| {what} | {(len(asked) - reads) / share:.3g} | {reads / share:.3g} | {more / share:.3g} |"
            print(line, flush=True)
            rows.append(line)

        manifest = write_sample(Path(folder, "images"), wells_per_lineage=WELLS)
        train = ("train", "s3://lab/bank", *PLACES, "--task")
        counted(
            f"import of {FRAMES} frames of 400×400", lambda: cellnet("bank", "import", str(manifest), "s3://lab/bank")
        )
        counted("the same once more", lambda: cellnet("bank", "import", str(manifest), "s3://lab/bank"))
        counted(f"a classifier of {FRAMES} frames trained and published (frozen)", lambda: cellnet(*train, "classify"))
        registry = Registry.open(Place("s3://lab/registry"))
        publish(registry, "count")
        registry.promote("classifier@1", "champion")
        shelf = Shelf(registry, lambda version: load_model(registry, version, threads=1), meters=Meters())
        counted("a look at all that is followed (once a minute)", shelf.refresh)
        counted("a look at the aliases (each 2 s)", lambda: [shelf.refresh() for _ in range(POLLS)], POLLS)
        bank = Bank.open(Place("s3://lab/bank"))
        sent = [ImageFile(f"{n}.png", encode_png(clouds(400, 400, seed=n))) for n in range(LABELS)]
        counted(
            "a correction of an image that the bank lacks",
            lambda: [label_image(bank, image, count=7, by="Ada", plate="P1", well="A1") for image in sent],
            LABELS,
        )
    (out / "costs.md").write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
