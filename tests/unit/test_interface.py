"""What others call stays: commands, options, keys of JSON, columns of tables, the service's arguments, routes, names.

All of it is written down in tests/data/interface.json. Where it is changed on purpose, and told in CHANGELOG.md:

    CELLNET_WRITE_INTERFACE=1 .venv/bin/python -m pytest tests/unit/test_interface.py
"""

import argparse
import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from starlette.routing import Route

import cellnet
from cellnet.bank.bank import Bank
from cellnet.bank.prepare import prepare
from cellnet.certainty.calibration import Calibration
from cellnet.certainty.familiarity import fit_familiarity
from cellnet.cli import main
from cellnet.cli.program import parser
from cellnet.evaluation.scoring import evaluation_of, score_frame
from cellnet.images.file import ImageFile, encode_png
from cellnet.networks.weights import fresh_network
from cellnet.prediction.answers import Prediction, Timing
from cellnet.prediction.predictor import predictor_of
from cellnet.prediction.tables import COLUMNS
from cellnet.readers import LabelledFile
from cellnet.registry.learned import Learned
from cellnet.registry.registry import Registry
from cellnet.reports.growth import COUNTS, RATES
from cellnet.reports.results import WELL
from cellnet.tasks import Task
from pipelines.__main__ import VERBS
from serve.settings import ServeArgs
from tests import factories
from tests.unit.serve.kitchen import Kitchen

ROOT: Final = Path(__file__).parents[2]
WRITTEN: Final = ROOT / "tests/data/interface.json"
REWRITE: Final = "CELLNET_WRITE_INTERFACE=1 .venv/bin/python -m pytest tests/unit/test_interface.py"
LINEAGES: Final = ("A549", "THP1")


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CELLNET_TRUSTED_KEYS", "CELLNET_SIGNING_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CELLNET_REGISTRY", str(tmp_path / "registry"))


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    """Two lineages of counted frames, one of them copied, and a file that is no image."""
    bank = Bank.create(tmp_path / "bank")
    frames = {f"{n}.png": factories.discs(n + 3, seed=n)[0] for n in range(6)}
    images = {name: encode_png(image_HW) for name, image_HW in frames.items()}
    images |= {"copy.png": encode_png(frames["0.png"] // 2), "no.png": b"no image"}
    files = []
    for number, (name, data) in enumerate(images.items()):
        (tmp_path / name).write_bytes(data)
        known = {"lineage": LINEAGES[number % 2], "group": f"w{number}", "count": 3.0}
        known |= {"batch": f"P{number % 3}", "time_h": 24.0 * number}
        files.append(LabelledFile(image=ImageFile.at(tmp_path / name), **known))
    bank.add([prepare(file, bank.store) for file in files])
    return bank


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """The champions, and blobs that nobody needs."""
    registry = factories.champions(tmp_path)
    registry.promote("regressor@1", "champion", reason="again")
    return registry


def keys_of(value: Any, place: str = "") -> Iterator[str]:
    """The dotted keys of JSON; [] stands for every item of a list, and LINEAGE for every lineage."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from keys_of(inner, f"{place}.{'LINEAGE' if key in LINEAGES else key}".lstrip("."))
    elif isinstance(value, Sequence) and not isinstance(value, str) and any(isinstance(i, Mapping) for i in value):
        for inner in value:
            yield from keys_of(inner, f"{place}[]")
    else:
        yield place


def sorted_keys(value: Any) -> list[str]:
    return sorted(set(keys_of(value)))


def printed(capsys: pytest.CaptureFixture[str], *words: object) -> list[str]:
    """The keys of what a command prints."""
    capsys.readouterr()
    assert main(list(map(str, words))) == 0
    return sorted_keys(json.loads(capsys.readouterr().out))


def commands_of(parent: argparse.ArgumentParser, words: str = "") -> Iterator[tuple[str, list[str]]]:
    """Every command with its arguments in their order, and its options."""
    for action in parent._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from commands_of(child, f"{words} {name}".strip())
    given = [action for action in parent._actions if not isinstance(action, argparse._SubParsersAction)]
    arguments = [str(action.metavar) for action in given if not action.option_strings]
    options = {name for action in given for name in action.option_strings} - {"-h", "--help"}
    yield words, arguments + sorted(options)


def evaluated(task: Task, bank: Bank) -> list[str]:
    """The keys of `evaluate --json` of a model that has intervals and can tell what is unfamiliar."""
    calibration = Calibration(
        tiles=8, frames=8, temperature=1.5, tile_quantile=1, frame_quantile=1, frame_basis="frames"
    )
    card = factories.card(task, classes=LINEAGES if task == "classify" else ())
    card = card.model_copy(update={"calibration": calibration})
    weights = fresh_network(card.config, len(card.classes), mean_count=3).state_dict()
    plain = predictor_of("m@1", card, weights)
    features = [plain.predict(bank.pixels(frame), with_features=True).features_ND for frame in bank.frames]
    predictor = predictor_of("m@1", card, weights, fit_familiarity([seen for seen in features if seen is not None], []))
    scored = [score_frame(predictor, frame, bank.store, with_features=False) for frame in bank.frames]
    learned = Learned.of(bank.frames[:1])
    evaluation = evaluation_of(predictor, scored, bank, split="all", lineage=None, left_out=[], learned=learned)
    return sorted_keys(json.loads(json.dumps(evaluation.scores)))


def pipeline_of(bank: Bank, registry: Registry) -> Path:
    """The file of a pipeline over both, which has not run."""
    file = Path(registry.store.uri).parent / "lab.yaml"
    file.write_text(f"bank: {bank.store.uri}\nregistry: {registry.store.uri}\nmodels: {{count: {{train: {{}}}}}}\n")
    return file


def interface(capsys: pytest.CaptureFixture[str], bank: Bank, registry: Registry) -> dict[str, Any]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    api = Kitchen(registry).api
    timing = Timing(read_ms=0, models_ms=0, total_ms=0)
    return {
        "import cellnet": cellnet.__all__,
        "programs": project["scripts"],
        "extras": sorted(project["optional-dependencies"]),
        "commands": dict(sorted(commands_of(parser()))),
        "python -m pipelines": sorted(VERBS),
        "serve.app:build": sorted(ServeArgs.model_fields),
        "routes": sorted(
            f"{method} {route.path}"
            for route in api.routes
            if isinstance(route, Route)
            for method in route.methods or ()
        ),
        "openapi": sorted(
            f"{method.upper()} {path}" for path, methods in api.openapi()["paths"].items() for method in methods
        ),
        "tables": {
            "predictions.csv": [*COLUMNS, *WELL.names],
            "growth.csv": [*COUNTS],
            "doubling.csv": [*RATES],
        },
        "json": {
            "bank show": printed(capsys, "bank", "show", bank.store.uri, "--json"),
            "registry list": printed(capsys, "registry", "list", "--json"),
            "registry show": printed(capsys, "registry", "show", "classifier@1", "--json"),
            "registry history": printed(capsys, "registry", "history", "regressor", "champion", "--json"),
            "registry verify": printed(capsys, "registry", "verify", "--json"),
            "registry gc": printed(capsys, "registry", "gc", "--json"),
            "pipeline show": printed(capsys, "pipeline", "show", pipeline_of(bank, registry), "--json"),
            "evaluate, a classifier": evaluated("classify", bank),
            "evaluate, a counter": evaluated("count", bank),
            "predict": sorted_keys(Prediction(image="a.png", timing=timing).model_dump(mode="json")),
        },
    }


@pytest.mark.slow
def test_what_others_call_is_what_is_written_down(
    capsys: pytest.CaptureFixture[str], bank: Bank, registry: Registry
) -> None:
    now = interface(capsys, bank, registry)
    if os.environ.get("CELLNET_WRITE_INTERFACE"):
        WRITTEN.write_text(json.dumps(now, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    before = json.loads(WRITTEN.read_text(encoding="utf-8"))
    assert now == before, f"others call this; if it is to be another, tell it in CHANGELOG.md, and: {REWRITE}"
