"""A published model by its ONNX export: the fastest way to an answer on a CPU, and without torch in memory.

`auto` times the engines that are installed on this machine with this network, and takes the fastest of those that
give the same. Torch, many times slower on a CPU, is for versions that have no export.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from cellnet.certainty.familiarity import Familiarity
from cellnet.config.choices import NETWORK_PX, EngineName
from cellnet.errors import ConfigError, IntegrityError
from cellnet.prediction.model import FrameModel, familiarity_of
from cellnet.registry.records import ONNX, Card, ModelVersion
from cellnet.registry.registry import Registry
from cellnet.untrusted import INPUT, OUTPUTS, check_onnx

log = logging.getLogger(__name__)

Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]

TOLERANCE: Final = 1e-3
"""Largest difference between engines: of a probability, or of a larger number as a share of it."""
TIMED_TILES: Final = 4
TIMED_RUNS: Final = 5
CLEARLY: Final = 0.9
"""Share of the first engine's time that another must take at most, since a busy machine's clock is not exact."""


class Engine(Protocol):
    """Something that runs ONNX exports."""

    name: str

    def __call__(self, tiles_B1HW: NDArray[np.float32]) -> Outputs:
        """Calibrated outputs (B, K) or (B,), and features (B, C), of grey values 0..255. Any thread may call it."""


class OnnxRuntime:
    """Microsoft's ONNX Runtime, each batch on so many threads."""

    name = "onnxruntime"

    def __init__(self, onnx: bytes, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads leave the CPU to others
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])

    def __call__(self, tiles_B1HW: NDArray[np.float32]) -> Outputs:
        output, features = self._session.run(list(OUTPUTS), {INPUT: tiles_B1HW})
        return output, features


_OPENVINO_FIRST: Final = threading.Lock()
"""For the first array of a process that OpenVINO takes, over which threads would wait for each other for ever."""


class OpenVino:
    """Intel's OpenVINO (`pip install 'cellnet[openvino]'`) in float32, each batch on so many threads."""

    name = "openvino"

    def __init__(self, onnx: bytes, threads: int) -> None:
        import openvino

        with _OPENVINO_FIRST:
            openvino.Tensor(np.zeros(1, np.float32))
        core = openvino.Core()
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",  # in bfloat16, which it would choose, counts differ by more than 0.001
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        }
        self._model = core.compile_model(core.read_model(onnx), "CPU", settings)

    def __call__(self, tiles_B1HW: NDArray[np.float32]) -> Outputs:
        outputs = self._model.create_infer_request().infer({INPUT: tiles_B1HW})
        output, features = (np.array(outputs[name]) for name in OUTPUTS)
        return output, features


ENGINES: Final[dict[str, Callable[[bytes, int], Engine]]] = {"onnxruntime": OnnxRuntime, "openvino": OpenVino}


class OnnxModel(FrameModel):
    """One model version in memory, its network in an engine."""

    def __init__(self, ref: str, card: Card, engine: Engine, familiarity: Familiarity | None = None) -> None:
        super().__init__(ref, card, familiarity)
        self.engine = engine

    def look(
        self, tiles: Sequence[NDArray[np.uint8]], *, with_features: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Calibrated probabilities (N, K) or counts (N,) of 200×200 tiles, and features (N, C)."""
        return self.engine(np.stack(tiles)[:, None].astype(np.float32))


def load_model(
    registry: Registry, version: ModelVersion, *, engine: EngineName = "auto", threads: int = 1
) -> FrameModel:
    """A version ready to answer on this CPU: by the engine named, by the fastest, or by torch where it has no export.

    `threads`: how many of the CPU's a batch is computed on.
    Raises IntegrityError for files that are not what they should be, ConfigError for an engine that is not installed.
    """
    if engine not in get_args(EngineName):
        raise ConfigError(f"no engine {engine!r}; choose one of {', '.join(get_args(EngineName))}")
    if engine == "torch" or (engine == "auto" and ONNX not in version.blobs):
        import torch

        from cellnet.prediction.predictor import Predictor

        torch.set_num_threads(threads)
        return Predictor.load(registry, version.ref)
    if ONNX not in version.blobs:
        raise IntegrityError(f"{version.ref} was published without {ONNX}; serve it with the engine torch")
    onnx = registry.read(version, ONNX)
    check_onnx(onnx, f"{ONNX} of {version.ref}")
    made = fastest(onnx, threads) if engine == "auto" else _made(engine, onnx, threads)
    model = OnnxModel(version.ref, version.card, made, familiarity_of(registry, version))
    model.check_fits()
    return model


def engine_of(model: FrameModel) -> str:
    """What runs a model."""
    return model.engine.name if isinstance(model, OnnxModel) else "torch"


def fastest(onnx: bytes, threads: int) -> Engine:
    """The engine that is fastest with this network on this machine, of those installed that agree with the first."""
    first_name, *other_names = ENGINES
    first = _made(first_name, onnx, threads)
    tiles_B1HW = np.random.default_rng(0).uniform(0, 255, (TIMED_TILES, 1, NETWORK_PX, NETWORK_PX)).astype(np.float32)
    wanted, others = first(tiles_B1HW), []
    for name in other_names:
        with contextlib.suppress(Exception):  # not installed, or not for this network or machine
            engine = _made(name, onnx, threads)
            others += [engine] if _agree(wanted, engine(tiles_B1HW)) else []
    if not others:
        return first
    took = _seconds([first, *others], tiles_B1HW)
    best = min(others, key=lambda engine: took[engine.name])
    return best if took[best.name] <= CLEARLY * took[first.name] else first


def _made(name: str, onnx: bytes, threads: int) -> Engine:
    try:
        return ENGINES[name](onnx, threads)
    except ImportError as error:
        raise ConfigError(f"{name} is not installed; pip install 'cellnet[{name}]', or take another engine") from error


def _agree(wanted: Outputs, got: Outputs) -> bool:
    return all(
        due.shape == seen.shape and float(np.max(np.abs(seen - due) / np.maximum(1, np.abs(due)))) <= TOLERANCE
        for due, seen in zip(wanted, got, strict=True)
    )


def _seconds(engines: Sequence[Engine], tiles_B1HW: NDArray[np.float32]) -> dict[str, float]:
    """By engine the shortest of a few runs, one engine after the other."""
    took = {engine.name: float("inf") for engine in engines}
    for _ in range(TIMED_RUNS):
        for engine in engines:
            started = time.perf_counter()
            engine(tiles_B1HW)
            took[engine.name] = min(took[engine.name], time.perf_counter() - started)
    return took
