"""Files of models as they come from elsewhere: refused with one line, or known to be what they say before use.

An ONNX file is read in a process of its own, whose memory and time are limited: libraries that parse such files were
made for friendly ones.
"""

import itertools
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import safetensors

from cellnet.config.choices import NETWORK_PX
from cellnet.errors import IntegrityError

if TYPE_CHECKING:
    import onnx

WEIGHTS: Final = "weights.safetensors"
"""What the file of a network's weights is called, in a checkpoint and in the registry."""
INPUT: Final = "tiles"
OUTPUTS: Final = ("output", "features")
BATCH: Final = "batch"
"""Name of the free axis."""

LARGEST: Final = 2**30
"""Bytes of an ONNX file: convnext_tiny's has 112 MB."""
WORKING_BYTES: Final = 2**32
"""Of all values that a graph computes together, for one tile: convnext_tiny of eight views computes 1.1 GiB of them."""
MOST_NODES: Final = 5000
MEMORY_BYTES: Final = 2**30
"""Address space of the process that reads a file, and `MEMORY_A_BYTE` more: convnext_tiny takes it 0.9 GiB in all."""
MEMORY_A_BYTE: Final = 6
SECONDS: Final = 60
REFUSED: Final = 3
"""Exit status of the process that reads an ONNX file and refuses it; on stdout is why."""
FINE: Final = "it is what it says"
"""What that process prints of others; any other end of it is no praise."""
READER: Final = """
import sys
sys.path.append(sys.argv[1])
from cellnet.untrusted import read_here
sys.exit(read_here())
"""
"""That process: isolated, so that nothing of the folder or the environment that it is started in takes part."""
FOREIGN: Final = {
    b"\x80": "a pickle",
    b"PK": "a zip archive, as torch.save writes one",
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "a gzip archive",
    b"<": "a page of HTML or XML",
}
"""What files begin with that are taken for others."""


def check_safetensors(data: bytes, what: str) -> None:
    """Raise IntegrityError, naming `what`, unless the bytes are a safetensors file whose header fits them."""
    size = int.from_bytes(data[:8], "little")
    foreign = _foreign(data)
    if size > len(data) - 8:
        reason = f"its header claims {size:,} bytes, and the file has {len(data):,}"
        raise IntegrityError(f"{what} is {foreign or 'damaged'}, not safetensors" + ("" if foreign else f": {reason}"))
    try:
        safetensors.deserialize(data)  # type: ignore[no-untyped-call]
    except Exception as error:  # of several kinds, for what is no text or too deep
        raise IntegrityError(f"{what} is damaged, not safetensors: {_line(error)}") from error


def check_onnx(data: bytes, what: str) -> None:
    """Raise IntegrityError, naming `what`, unless the bytes are an ONNX model such as cellnet exports.

    One file that holds its weights, of ONNX's own operators, without loops or branches, with inputs and outputs of the
    right names and shapes, and no more than 4 GiB of values for one tile. Nothing of it is run.
    """
    if len(data) > LARGEST:
        raise IntegrityError(f"{what} has {len(data):,} bytes; an ONNX file of cellnet has at most {LARGEST:,}")
    if foreign := _foreign(data):
        raise IntegrityError(f"{what} is {foreign}, not ONNX")
    memory = MEMORY_BYTES + MEMORY_A_BYTE * len(data)
    command = [sys.executable, "-I", "-c", READER, str(Path(__file__).parents[1]), str(memory)]
    environment = {"PATH": os.environ.get("PATH", ""), "OPENBLAS_NUM_THREADS": "1"}
    try:
        with tempfile.TemporaryDirectory() as empty:
            done = subprocess.run(command, input=data, capture_output=True, timeout=SECONDS, env=environment, cwd=empty)
    except subprocess.TimeoutExpired as error:
        raise IntegrityError(f"{what} cannot be checked within {SECONDS} s, so it is not used") from error
    said = done.stdout.decode(errors="replace")
    if done.returncode == REFUSED:
        raise IntegrityError(f"{what} {said}")
    if (done.returncode, said) != (0, FINE):
        raise IntegrityError(
            f"{what} cannot be checked, so it is not used: its reader, limited to {memory >> 20:,} MiB of memory, "
            f"ended with status {done.returncode}"
        )


def refusal(data: bytes) -> str | None:
    """Why bytes are not an ONNX model of cellnet's kind, as the end of a sentence; None where they are one.

    Whoever wrote them may have meant to exhaust or crash the process: `check_onnx` is for that.
    """
    import google.protobuf.message
    import onnx

    try:
        model = onnx.load_from_string(data)
    except (google.protobuf.message.DecodeError, ValueError) as error:
        return f"is not ONNX: {_line(error)}"
    return next(_faults(model), None)


def _faults(model: "onnx.ModelProto") -> Iterator[str]:
    """What is wrong with a model; each check relies on those before it."""
    import onnx

    graph = model.graph
    if not graph.node:
        yield "is not ONNX: it has no operators"
    if len(graph.node) > MOST_NODES:
        yield f"has {len(graph.node):,} operators; a network of cellnet has at most {MOST_NODES:,}"
    yield from _foreign_operators(model)
    yield from _tensor_faults(graph)
    yield from _interface_faults(graph)
    try:
        onnx.checker.check_model(model)
        for value in (*graph.input, *graph.output):
            value.type.tensor_type.shape.dim[0].Clear()
            value.type.tensor_type.shape.dim[0].dim_value = 1
        del graph.value_info[:]  # what the file says of its own sizes
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:  # ONNX raises many kinds
        yield f"is not a valid ONNX model: {_line(error)}"
        return
    yield from _size_faults(inferred.graph)


def _foreign_operators(model: "onnx.ModelProto") -> Iterator[str]:
    """Operators that are not ONNX's own, or that run others."""
    import onnx

    newest = onnx.defs.onnx_opset_version()
    for opset in model.opset_import:
        if opset.domain not in ("", "ai.onnx"):
            yield f"uses operators of {opset.domain!r:.40}; only ONNX's own are allowed"
        elif not 1 <= opset.version <= newest:
            yield f"is of ONNX opset {opset.version}; this installation knows those up to {newest}"
    if model.functions or model.graph.sparse_initializer or model.training_info:
        yield "holds functions, sparse weights or a training graph; a network of cellnet has none"
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            yield f"uses operators of {node.domain!r:.40}; only ONNX's own are allowed"
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            yield f"has a loop or a branch ({node.op_type!r:.40}); a network of cellnet has none"
        if any(attribute.HasField("sparse_tensor") or attribute.sparse_tensors for attribute in node.attribute):
            yield "holds sparse constants; a network of cellnet has none"


def _tensor_faults(graph: "onnx.GraphProto") -> Iterator[str]:
    """Weights and constants that are elsewhere, or of another size than they claim."""
    import onnx

    itemsize = {
        onnx.TensorProto.FLOAT: 4,
        onnx.TensorProto.INT32: 4,
        onnx.TensorProto.INT64: 8,
        onnx.TensorProto.BOOL: 1,
    }
    constants = (
        tensor
        for node in graph.node
        for attribute in node.attribute
        for tensor in (*attribute.tensors, *([attribute.t] if attribute.HasField("t") else []))
    )
    for tensor in itertools.chain(graph.initializer, constants):
        if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
            yield f"keeps the weight {tensor.name!r:.40} in another file; only files that hold all are read"
        if tensor.data_type not in itemsize:
            yield f"holds the weight {tensor.name!r:.40} of type {tensor.data_type}, which no network of cellnet has"
            return
        claimed = math.prod(tensor.dims) * itemsize[tensor.data_type]
        if min(tensor.dims, default=0) < 0 or claimed != len(tensor.raw_data):
            shape = "×".join(map(str, tensor.dims[:8]))
            yield f"claims a weight {tensor.name!r:.40} of {shape}, and holds {len(tensor.raw_data):,} bytes of it"


def _interface_faults(graph: "onnx.GraphProto") -> Iterator[str]:
    """Inputs and outputs other than those of `cellnet.prediction.export`."""
    names = [[value.name for value in values] for values in (graph.input, graph.output)]
    if names != [[INPUT], list(OUTPUTS)]:
        told = f"{names[0]} and {names[1]}"
        yield f"has the inputs and outputs {told:.80}, not {[INPUT]} and {list(OUTPUTS)}"
        return
    for value in (*graph.input, *graph.output):
        tensor = value.type.tensor_type
        dims = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
        good = dims[1:] == [1, NETWORK_PX, NETWORK_PX] if value.name == INPUT else len(dims) in (1, 2)
        if value.name == OUTPUTS[1]:
            good = len(dims) == 2
        if tensor.elem_type != 1 or not good or not isinstance(dims[0], str):
            yield f"has {value.name} of shape {dims!s:.60}, not of any number of 200×200 tiles in float32"
    if any(tensor.name == INPUT for tensor in graph.initializer):
        yield f"brings {INPUT} of its own"


def _size_faults(graph: "onnx.GraphProto") -> Iterator[str]:
    """Values that are too large for one tile, or whose size nobody can tell beforehand."""
    import onnx

    types = {value.name: value.type.tensor_type for value in (*graph.value_info, *graph.output)}
    total = 0
    for node in graph.node:
        for name in filter(None, node.output):
            dims = types[name].shape.dim if name in types and types[name].HasField("shape") else None
            if dims is None or not all(dim.HasField("dim_value") and dim.dim_value >= 0 for dim in dims):
                yield f"computes {name!r:.40} by {node.op_type!r:.40}, of a size that is not known beforehand"
                return
            itemsize = 4 if types[name].elem_type == onnx.TensorProto.FLOAT else 8
            total += itemsize * math.prod(dim.dim_value for dim in dims)
            if total > WORKING_BYTES:
                yield (
                    f"needs over {WORKING_BYTES >> 30} GiB for one tile, at {name!r:.40} by {node.op_type!r:.40}; "
                    "networks of cellnet need far less"
                )
                return
    for name in OUTPUTS:
        if (answers := types[name].shape.dim[0].dim_value) != 1:
            yield f"gives {answers} times {name} for one tile"


def _foreign(data: bytes) -> str | None:
    """What the bytes seem to be, of the kinds that are no model of ours."""
    return next((name for start, name in FOREIGN.items() if data.startswith(start)), None)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def read_here() -> int:
    """What the process of `check_onnx` does; its exit status."""
    import resource

    memory = int(sys.argv[2])
    if sys.platform != "darwin":  # which refuses to limit it
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    why = refusal(sys.stdin.buffer.read())
    sys.stdout.buffer.write((why or FINE).encode())
    return REFUSED if why else 0
