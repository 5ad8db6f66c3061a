"""A published model as one ONNX file: pixels in, calibrated answers out, the same as `Predictor.forward` gives.

    tiles     float32 (B, 1, 200, 200)   grey values 0..255
    output    float32 (B, K) or (B,)     calibrated probabilities, or counts
    features  float32 (B, C)             what `cellnet.certainty.familiarity` describes a tile by

The kernel, what evens a tile out, the normalisation, the mean over views, the temperature, and scale and offset of
counts are part of the graph.
"""

import copy
import warnings
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cellnet.config.choices import NETWORK_PX
from cellnet.errors import IntegrityError
from cellnet.images.pixels import KERNELS, blur_matrix, even_out, scale_and_shift
from cellnet.networks.views import views_of, watched
from cellnet.prediction.predictor import Predictor
from cellnet.registry.records import OnnxCheck
from cellnet.untrusted import BATCH, INPUT, OUTPUTS, refusal

OPSET: Final = 20
TOLERANCE: Final = 1e-3
"""Largest difference to torch that is published: of a probability, or of a larger number as a share of it."""


class Exported(nn.Module):
    """What `Predictor.forward` does, in torch alone."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        preprocess = predictor.card.preprocess
        # In the usual layout: of the other torch exports how it strides through memory.
        self.network = copy.deepcopy(predictor.network).to(memory_format=torch.contiguous_format)
        for layer in self.network.modules():
            if isinstance(layer, nn.AdaptiveAvgPool2d):
                layer.register_forward_pre_hook(_laid_out)
        self.task = predictor.task
        self.views = predictor.views
        self.temperature = predictor.calibration.temperature
        self.count_scale, self.count_offset = predictor.calibration.scale, predictor.calibration.offset
        self.scale, self.shift = scale_and_shift(preprocess)
        self.illumination = preprocess.illumination
        self.blur: Tensor | None
        as_lit = self.illumination == "none"
        self.register_buffer("blur", None if as_lit else torch.from_numpy(blur_matrix(NETWORK_PX)))
        weights = KERNELS[preprocess.kernel]
        self.kernel: Tensor | None
        self.register_buffer("kernel", None if weights is None else torch.tensor([[weights]], dtype=torch.float32))

    def forward(self, tiles_B1HW: Tensor) -> tuple[Tensor, Tensor]:
        """Calibrated probabilities (B, K) or counts (B,), and features (B, C)."""
        grey_B1HW = self._filtered(tiles_B1HW)
        if self.blur is not None:
            grey_B1HW = even_out(grey_B1HW / 255, self.illumination, self.blur) * 255
        input_B1HW = grey_B1HW * self.scale - self.shift
        tiles = input_B1HW.shape[0]
        with watched(self.network) as seen:
            output = self.network(torch.cat(list(views_of(input_B1HW, self.views))).contiguous())
        output = output.softmax(1) if self.task == "classify" else output
        output = output.float().unflatten(0, (self.views, tiles)).mean(0)
        return self._told(output), seen[0][:tiles]

    def _told(self, output: Tensor) -> Tensor:
        """As the calibration has the outputs of the network told."""
        if self.task == "classify" and self.temperature != 1:
            return (output.clamp(min=torch.finfo(torch.float32).tiny).log() / self.temperature).softmax(1)
        if self.count_scale is not None and self.count_offset is not None:
            return (output * self.count_scale + self.count_offset).clamp(min=0)
        return output

    def _filtered(self, tiles_B1HW: Tensor) -> Tensor:
        """As `cellnet.images.pixels.apply_kernel` filters whole numbers of 8 bits."""
        if self.kernel is None:
            return tiles_B1HW
        bordered = nn.functional.pad(tiles_B1HW, (1, 1, 1, 1), mode="reflect")
        return nn.functional.conv2d(bordered, self.kernel).round().clamp(0, 255)


def _laid_out(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(features.contiguous() for features in inputs)


def to_onnx(predictor: Predictor) -> bytes:
    """The model as an ONNX file of any number of tiles, that holds its weights and nothing of this machine."""
    tiles_B1HW = torch.zeros(2, 1, NETWORK_PX, NETWORK_PX)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations
        program = torch.onnx.export(
            Exported(predictor).eval(),
            (tiles_B1HW,),
            dynamo=True,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: torch.export.Dim(BATCH)},),
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del part.metadata_props[:]  # source lines, with the paths of this machine
        part.doc_string = ""
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def compare(predictor: Predictor, onnx: bytes, tiles: Sequence[NDArray[np.uint8]]) -> OnnxCheck:
    """ONNX Runtime beside torch on 200×200 tiles, all at once and the first alone.

    Raises IntegrityError where probabilities differ by more than 0.001, or counts or features by that share of them,
    and for a file that readers would refuse.
    """
    if why := refusal(onnx):
        raise IntegrityError(f"the ONNX export of {predictor.ref} {why}; publish with the versions of constraints.txt")
    away = dict.fromkeys(OUTPUTS, 0.0)
    for batch in (tiles, tiles[:1]):
        with watched(predictor.network) as seen:
            by_torch = (predictor.forward(batch), seen[0].cpu().numpy())
        for name, wanted, got in zip(OUTPUTS, by_torch, run_onnx(onnx, batch), strict=True):
            away[name] = max(away[name], _difference(wanted, got))
    worst = max(away, key=lambda name: away[name])
    if not away[worst] <= TOLERANCE:  # NaN neither
        raise IntegrityError(
            f"the ONNX export of {predictor.ref} gives another {worst}: {away[worst]:.2g} from torch's, of {TOLERANCE} "
            "that are allowed; publish with the versions of constraints.txt"
        )
    return OnnxCheck(opset=OPSET, tiles=len(tiles), max_difference=away[OUTPUTS[0]])


def run_onnx(onnx: bytes, tiles: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
    """The output and features of 200×200 tiles by ONNX Runtime, on one thread.

    Only of a file that this process made, or that `cellnet.untrusted.check_onnx` let pass.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    outputs: list[NDArray[np.float32]] = session.run(
        list(OUTPUTS), {INPUT: np.stack(tiles)[:, None].astype(np.float32)}
    )
    return outputs


def _difference(wanted: NDArray[np.float32], got: NDArray[np.float32]) -> float:
    """Of numbers above 1 as a share of them.

    >>> _difference(np.array([0.5, 200.0]), np.array([0.5, 201.0]))
    0.005
    """
    if wanted.shape != got.shape:
        return float("inf")
    return float(np.max(np.abs(got - wanted) / np.maximum(1, np.abs(wanted))))
