"""Engines beside torch: the same answers, and the fastest of those that agree."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from cellnet.certainty.familiarity import FAMILIARITY, Familiarity
from cellnet.config.train import ModelSpec
from cellnet.errors import ConfigError, IntegrityError
from cellnet.networks.weights import fresh_network, weights_to_bytes
from cellnet.prediction import engines
from cellnet.prediction.engines import ENGINES, Engine, OnnxModel, Outputs, engine_of, fastest, load_model
from cellnet.prediction.export import to_onnx
from cellnet.prediction.predictor import Predictor
from cellnet.registry.records import ONNX, Card, ModelVersion
from cellnet.registry.registry import Registry
from cellnet.untrusted import WEIGHTS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry.open(str(tmp_path_factory.mktemp("registry")))


@pytest.fixture
def version(registry: Registry, card: Callable[..., Card]) -> ModelVersion:
    """A counter of eight views and a kernel, and one like it without its export."""
    if not registry.names():
        made = card("count", kernel="sharpen")
        model = ModelSpec(architecture="density", width=4, depth=2, views=8)
        made = made.model_copy(update={"config": made.config.model_copy(update={"model": model})})
        torch.manual_seed(0)
        predictor = Predictor("new@1", made, fresh_network(made.config, 0, mean_count=9))
        weights = weights_to_bytes(predictor.network.state_dict())
        registry.publish("counter", {WEIGHTS: weights, ONNX: to_onnx(predictor)}, made)
        registry.publish("counter", {WEIGHTS: weights}, made)
    return registry.resolve("counter@1")


@pytest.fixture
def frame_HW() -> np.ndarray:  # noqa: N802 - the shape is part of the name
    return np.random.default_rng(0).integers(0, 256, (430, 600), np.uint8)


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_counts_what_torch_counts_on_every_thread(
    registry: Registry, version: ModelVersion, frame_HW: np.ndarray, name: str
) -> None:
    pytest.importorskip(name)
    wanted = Predictor.load(registry, version.ref).predict(frame_HW).tile_outputs
    model = load_model(registry, version, engine=name, threads=2)
    assert isinstance(model, OnnxModel) and engine_of(model) == name
    with ThreadPoolExecutor(4) as pool:
        for outputs in pool.map(lambda _: model.predict(frame_HW), range(8)):
            assert outputs.tile_outputs == pytest.approx(wanted, rel=1e-3)
    assert wanted.min() > 0 and np.ptp(wanted) > 0


FIRST = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
from cellnet.prediction.engines import ENGINES

sys.setswitchinterval(1e-6)
engine = ENGINES[sys.argv[1]](Path(sys.argv[2]).read_bytes(), 1)
together = threading.Barrier(4)

def run(_):
    together.wait()
    return engine(np.zeros((1, 1, 200, 200), np.float32))

with ThreadPoolExecutor(4) as pool:
    print(len(list(pool.map(run, range(4)))))
"""


@pytest.mark.parametrize("name", ENGINES)
def test_the_first_threads_of_a_process_do_not_wait_for_each_other(
    registry: Registry, version: ModelVersion, tmp_path: Path, name: str
) -> None:
    pytest.importorskip(name)
    onnx = tmp_path / "model.onnx"
    onnx.write_bytes(registry.read(version, ONNX))
    for _ in range(4):  # OpenVINO's did in half of all processes
        ended = subprocess.run([sys.executable, "-c", FIRST, name, onnx], capture_output=True, text=True, timeout=60)
        assert ended.stdout.strip() == "4", ended.stderr


def test_a_version_without_an_export_is_run_by_torch_unless_an_engine_is_insisted_on(
    registry: Registry, version: ModelVersion, frame_HW: np.ndarray
) -> None:
    old = registry.resolve("counter@2")
    assert engine_of(load_model(registry, version)) in ENGINES
    model = load_model(registry, old)
    assert engine_of(model) == engine_of(load_model(registry, version, engine="torch")) == "torch"
    assert model.predict(frame_HW).count == pytest.approx(load_model(registry, version).predict(frame_HW).count, 1e-3)
    with pytest.raises(IntegrityError, match=r"counter@2 was published without model.onnx"):
        load_model(registry, old, engine="onnxruntime")


def test_an_export_that_is_none_is_refused(registry: Registry, version: ModelVersion, tmp_path: Path) -> None:
    other = Registry.open(str(tmp_path))
    spoiled = other.publish("counter", {ONNX: b"not a network"}, version.card)
    with pytest.raises(IntegrityError, match=r"model.onnx of counter@1"):
        load_model(other, spoiled)


@pytest.mark.parametrize("engine", ["onnxruntime", "torch"])
def test_files_that_do_not_fit_each_other_are_refused_when_they_are_loaded(
    registry: Registry, version: ModelVersion, card: Callable[..., Card], tmp_path: Path, engine: str
) -> None:
    other = Registry.open(str(tmp_path))
    files = {role: registry.read(version, role) for role in (WEIGHTS, ONNX)}
    strange = Familiarity(mean_D=np.zeros(3), precision_DD=np.eye(3), threshold=1.0).to_bytes()
    lying = other.publish("counter", files | {FAMILIARITY: strange}, version.card)
    with pytest.raises(IntegrityError, match=r"^familiarity.safetensors of counter@1 is of 3 features, not of \d+$"):
        load_model(other, lying, engine=engine)
    if engine == "onnxruntime":
        named = other.publish("classifier", files, card("classify"))
        said = rf"^classifier@1 gives 1 numbers for a tile, and its card names {len(named.card.classes)} lineages$"
        with pytest.raises(IntegrityError, match=said):
            load_model(other, named, engine=engine)


class Made:
    """An engine that takes as long as it is told, and is off by so much."""

    def __init__(self, name: str, runs: list[str], off: float = 0) -> None:
        self.name, self.runs, self.off = name, runs, off

    def __call__(self, tiles_B1HW: np.ndarray) -> Outputs:
        self.runs.append(self.name)
        return np.full(len(tiles_B1HW), 50 + self.off, np.float32), np.ones((len(tiles_B1HW), 2), np.float32)


@pytest.fixture
def engines_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """`engines_of(one=(3, 0.0), ...)`: the fastest of engines that take so long and are off by so much."""

    def choose(**kinds: tuple[float, float] | None) -> str:
        def maker(name: str) -> Callable[[bytes, int], Engine]:
            def make(onnx: bytes, threads: int) -> Engine:
                if kinds[name] is None:
                    raise ImportError(name)
                return Made(name, [], kinds[name][1])

            return make

        monkeypatch.setattr(engines, "ENGINES", {name: maker(name) for name in kinds})
        monkeypatch.setattr(engines, "_seconds", lambda made, *_: {one.name: kinds[one.name][0] for one in made})
        return fastest(b"", 1).name

    yield choose


def test_the_fastest_engine_is_taken_of_those_that_are_installed_and_agree(engines_of: Callable[..., str]) -> None:
    assert engines_of(first=(3, 0.0), second=(2, 0.04)) == "second"
    assert engines_of(first=(2, 0.0), second=(3, 0.0)) == "first"
    assert engines_of(first=(3, 0.0), second=(1, 0.06)) == "first", "more than a thousandth away"
    assert engines_of(first=(3, 0.0), second=None) == "first"
    assert engines_of(first=(3, 0.0), second=(2.9, 0.0)) == "first", "which may be chance"


def test_an_engine_that_is_not_there_is_said_to_be(
    registry: Registry, version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(onnx: bytes, threads: int) -> Engine:
        raise ImportError("No module named 'openvino'")

    monkeypatch.setitem(ENGINES, "openvino", missing)
    with pytest.raises(ConfigError, match=r"openvino is not installed; pip install 'cellnet\[openvino\]'"):
        load_model(registry, version, engine="openvino")
    with pytest.raises(ConfigError, match="no engine 'tpu'; choose one of auto, onnxruntime, openvino, torch"):
        load_model(registry, version, engine="tpu")
