"""The main job, end to end, on the built-in sample: what `make demo` runs.

    python infra/demo.py        everything lands under ./demo; at the end it serves until Ctrl-C
    DEMO_EXIT=1 python infra/demo.py        stops cleanly after the first prediction over HTTP

The sample is drawn: its scores show that the parts work together and are not scores on cells.
"""

import json
import os
import shutil
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, Final

from cellnet.cli.evaluate import print_scores
from cellnet.config.train import AS_RECORDED, Augment, ModelSpec, TrainConfig
from cellnet.config.tune import TuneConfig
from cellnet.errors import ConfigError, plain
from cellnet.places import Places
from cellnet.reports.evaluation_report import write_report
from cellnet.sample import write_sample
from cellnet.store.place import place_of
from pipelines import cluster
from pipelines.evaluate import evaluate
from pipelines.failures import told
from pipelines.ingest import ingest
from pipelines.promote import promote
from pipelines.train import train
from pipelines.tune import tune
from serve.app import ServeArgs, check_port, serve_forever, shut_down

FOLDER: Final = Path("demo")
WELLS: Final = 8
PORT: Final = 8000
SMALL: Final = ModelSpec(width=8)
QUICK: Final = Augment.model_validate({"shares": (1.0,), "shifts": 3, **AS_RECORDED})
"""Tiles at other places teach more than crops do on so few images, and an epoch of them is soon over; what is varied
more is learned more slowly."""

SUMMARY: Final = """# What the demo left here

The images are drawn by cellnet/sample.py, not recorded: the scores say that the parts work, not how cellnet
does on cells.

| path | what it is |
|---|---|
| `images/` | the sample: frames of eight lineages, `manifest.csv`, `points.csv` |
| `bank/` | the image bank: pixels by content, the table with the split, the training shards |
| `runs/` | what Ray Train and Ray Tune kept of every training |
| `registry/` | the published models, and the aliases that say which one serves |
| `report-classifier/`, `report-regressor/` | `report.html`: the champions on the holdout frames |
| `prediction.json` | the answer to one frame sent over HTTP |

Go on from here:

    .venv/bin/cellnet registry list --registry demo/registry
    .venv/bin/cellnet registry show classifier:champion --registry demo/registry
    .venv/bin/cellnet predict demo/images/images --registry demo/registry --csv
    .venv/bin/cellnet serve --registry demo/registry

"""


def main() -> int:
    """Run every step; the exit status is 2 for what the user can put right."""
    try:
        _run()
    except KeyboardInterrupt:
        print("demo: stopped")
    except Exception as error:
        if (known := told(error)) is None:
            raise
        print(plain(f"demo: {' '.join(str(known).split())}"), file=sys.stderr)
        return 2
    return 0


def _run() -> None:
    port = int(os.environ.get("DEMO_PORT", PORT))
    check_port("127.0.0.1", port)
    _clear(FOLDER)
    clock = _Clock()
    places = Places(bank=place_of((FOLDER / "bank").absolute()), registry=place_of((FOLDER / "registry").absolute()))

    clock.step("draw the sample", "cellnet bank sample demo/images")
    print("drawn, not recorded: the scores below are not scores on cells")
    manifest = write_sample(FOLDER / "images", wells_per_lineage=WELLS)

    clock.step("import it", "cellnet bank import demo/images/manifest.csv demo/bank")
    cluster.connect()
    bank, imported = ingest(manifest, places)
    splits = ", ".join(f"{len(bank.split(split))} {split}" for split in ("train", "test", "holdout"))
    print(f"{imported.added} frames of {len(bank.lineages)} lineages: {splits}; split by well")

    clock.step("shards, and train the classifier", "cellnet train demo/bank --task classify --set folds=0")
    classify = TrainConfig(task="classify", model=SMALL, augment=QUICK, epochs=10, folds=0)
    first = train(places, classify, say=print)
    print(f"published {first.ref}")

    clock.step("shards, and train the counter", "cellnet train demo/bank --task count --workers 2 --set folds=0")
    count = TrainConfig(task="count", model=SMALL, augment=QUICK, epochs=10, folds=0)
    counter = train(places, count, workers=2, say=print)
    print(f"published {counter.ref}")

    clock.step("promote both", "cellnet registry promote classifier@1 champion")
    for version in (first, counter):
        move = promote(version.ref, "champion", places, reason="the demo's first")
        print(f"{move.name}:champion is {version.ref}")

    clock.step("a small search", "cellnet tune demo/bank --task classify --alias challenger")
    search = TuneConfig(
        space={"model.activation": ("relu", "tanh"), "kernel": ("none", "sharpen")},
        seeds=1,
        train=classify.model_copy(update={"epochs": 2}),
    )
    found = tune(places, search, alias="challenger", say=print)
    print(f"the best of {len(found.trials)} short trials is {found.winner.ref}, now classifier:challenger")

    for ref in ("classifier:champion", "regressor:champion"):
        clock.step(f"evaluate {ref} on the holdout", f"cellnet evaluate {ref} demo/bank")
        evaluation = evaluate(ref, places)
        print_scores(evaluation.scores)
        name = ref.partition(":")[0]
        print(f"report: {write_report(FOLDER / f'report-{name}', evaluation)}")

    clock.step("serve, and ask over HTTP", f"cellnet serve --registry demo/registry --port {port}")
    address = serve_forever(ServeArgs(registry=places.registry.uri), port=port, block=False)
    frame = bank.split("holdout")[0]
    answer = _ask(address, Path(frame.source))
    (FOLDER / "prediction.json").write_text(json.dumps(answer, indent=1))
    said = answer["predictions"][0]
    print(f"{Path(frame.source).name}: said {said['lineage']}, {said['count']:.1f} cells", end="; ")
    print(f"drawn {frame.lineage}, {frame.count:.0f} cells")

    (FOLDER / "README.md").write_text(SUMMARY)
    print(f"\nall of it took {clock.total():.0f} s; what is where: {FOLDER / 'README.md'}")
    if os.environ.get("DEMO_EXIT") == "1":
        shut_down()
    else:
        print(f"serving at {address} (Ctrl-C stops it)", flush=True)
        while True:
            time.sleep(3600)


class _Clock:
    """Announces each step with its number and the time since the start."""

    def __init__(self) -> None:
        self._start_s = time.monotonic()
        self._steps = 0

    def step(self, what: str, command: str) -> None:
        self._steps += 1
        print(f"\n[{self._steps}] {what}  ({self.total():.0f} s)\n    $ {command}", flush=True)

    def total(self) -> float:
        return time.monotonic() - self._start_s


def _clear(folder: Path) -> None:
    """Make room for a new demo, but never delete a folder that is not one."""
    if folder.exists():
        if any(folder.iterdir()) and not (folder / "images" / "manifest.csv").is_file():
            raise ConfigError(f"{folder.absolute()} is not an earlier demo's folder; move it away first")
        shutil.rmtree(folder)
    folder.mkdir()


def _ask(address: str, image: Path) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{address}/v1/predict", data=image.read_bytes(), headers={"Content-Type": "image/png"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


if __name__ == "__main__":
    sys.exit(main())
