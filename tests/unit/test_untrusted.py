"""Hostile files of models: each is refused in one line, none is loaded, and none takes the memory that it claims."""

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.numpy
from onnx import TensorProto, helper, numpy_helper

from cellnet import untrusted
from cellnet.errors import IntegrityError
from cellnet.untrusted import check_onnx, check_safetensors, refusal


def network(*nodes: onnx.NodeProto, **weights: np.ndarray) -> onnx.ModelProto:
    """The smallest model of cellnet's kind, a mean over grey values; `nodes` come before it."""
    shape = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            *nodes,
            helper.make_node("GlobalAveragePool", ["tiles"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["features"]),
            helper.make_node("Identity", ["features"], ["output"]),
        ],
        "network",
        [shape("tiles", TensorProto.FLOAT, ["batch", 1, 200, 200])],
        [shape("output", TensorProto.FLOAT, ["batch", 1]), shape("features", TensorProto.FLOAT, ["batch", 1])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def with_bomb(operator: str, sides: list[int], **more: np.ndarray) -> onnx.ModelProto:
    """One whose `operator` makes a value of these sides."""
    inputs = ["one", "sides"] if operator in ("Expand", "Tile") else ["sides"]
    return network(
        helper.make_node(operator, inputs, ["bomb"]), one=np.ones([1] * len(sides), np.float32), sides=np.array(sides)
    )


def doubling(times: int) -> onnx.ModelProto:
    """One whose list of sides becomes twice as long so often: inference itself would need the memory."""
    nodes = [helper.make_node("Concat", [f"n{i}"] * 2, [f"n{i + 1}"], axis=0) for i in range(times)]
    return network(*nodes, n0=np.array([1, 1]))


def edited(edit: Callable[[onnx.ModelProto], object], model: onnx.ModelProto | None = None) -> onnx.ModelProto:
    model = model or network(weight=np.ones((2, 3), np.float32))
    edit(model)
    return model


def weight(model: onnx.ModelProto) -> onnx.TensorProto:
    return model.graph.initializer[0]


def elsewhere(model: onnx.ModelProto) -> None:
    weight(model).ClearField("raw_data")
    weight(model).data_location = TensorProto.EXTERNAL
    weight(model).external_data.add(key="location", value="../../../etc/passwd")


def with_branch(model: onnx.ModelProto) -> None:
    model.graph.node[-1].CopyFrom(
        helper.make_node("If", ["c"], ["output"], then_branch=model.graph, else_branch=model.graph)
    )


def dims(value: onnx.ValueInfoProto, *sides: object) -> None:
    value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, sides))


HOSTILE = {
    "claims gigabytes of a weight": edited(lambda model: weight(model).dims.__setitem__(0, 2**40)),
    "claims a negative weight": edited(lambda model: weight(model).dims.__setitem__(0, -2)),
    "claims fewer bytes": edited(lambda model: weight(model).dims.__setitem__(0, 1)),
    "a weight in another file": edited(elsewhere),
    "a weight in another file, as a constant": network(
        helper.make_node("Constant", [], ["c"], value=weight(edited(elsewhere)))
    ),
    "a weight of strings": edited(lambda model: setattr(weight(model), "data_type", TensorProto.STRING)),
    "a weight of no known type": edited(lambda model: setattr(weight(model), "data_type", 99)),
    "an operator of another domain": network(helper.make_node("Run", ["tiles"], ["x"], domain="com.microsoft")),
    "another domain": edited(lambda model: model.opset_import.add(domain="org.evil", version=1)),
    "an opset of the future": edited(lambda model: setattr(model.opset_import[0], "version", 999)),
    "a function": edited(lambda model: model.functions.add(name="f", domain="")),
    "a branch": edited(with_branch),
    "sparse weights": edited(lambda model: model.graph.sparse_initializer.add()),
    "a training graph": edited(lambda model: model.training_info.add()),
    "an unknown operator": network(helper.make_node("Evil", ["tiles"], ["x"])),
    "a value that nobody makes": network(helper.make_node("Relu", ["nothing"], ["x"])),
    "a value made twice": network(helper.make_node("Relu", ["tiles"], ["mean"])),
    "no operators": edited(lambda model: model.graph.ClearField("node")),
    "too many operators": network(*[helper.make_node("Relu", ["tiles"], [f"x{i}"]) for i in range(5000)]),
    "another input": edited(lambda model: setattr(model.graph.input[0], "name", "pixels")),
    "one input more": edited(lambda model: model.graph.input.add(name="more")),
    "another output": edited(lambda model: model.graph.output.pop()),
    "tiles of another size": edited(lambda model: dims(model.graph.input[0], "batch", 1, 2**20, 2**20)),
    "tiles of any size": edited(lambda model: dims(model.graph.input[0], "batch", 1, "h", "w")),
    "one tile at a time": edited(lambda model: dims(model.graph.input[0], 1, 1, 200, 200)),
    "input of its own": network(tiles=np.ones((1, 1, 200, 200), np.float32)),
    "gigabytes by ConstantOfShape": with_bomb("ConstantOfShape", [2**20, 2**12]),
    "gigabytes by Expand": with_bomb("Expand", [2**20, 2**12]),
    "gigabytes by Tile": with_bomb("Tile", [2**20, 2**12]),
    "gigabytes by Pad": network(
        helper.make_node("Pad", ["tiles", "pads"], ["bomb"]), pads=np.array([0, 0, 0, 0, 0, 0, 2**16, 2**16])
    ),
    "gigabytes by Resize": network(
        helper.make_node("Resize", ["tiles", "", "scales"], ["bomb"], mode="nearest"),
        scales=np.array([1, 1, 400, 400], np.float32),
    ),
    "a size that depends on pixels": network(helper.make_node("NonZero", ["tiles"], ["x"])),
    "answers that it has not": edited(
        lambda model: model.graph.node[-1].CopyFrom(helper.make_node("Concat", ["features"] * 3, ["output"], axis=0))
    ),
}


def test_a_network_of_cellnets_kind_is_let_pass() -> None:
    check_onnx(network().SerializeToString(), "x")


@pytest.mark.parametrize("what", sorted(HOSTILE))
def test_a_hostile_onnx_file_is_refused_in_one_line(what: str) -> None:
    why = refusal(HOSTILE[what].SerializeToString())
    assert why and "\n" not in why, why


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is not ONNX: it has no operators"),
        (b"\xff" * 64, "is not ONNX"),
        (pickle.dumps({"weights": 1}), "is a pickle, not ONNX"),
        (b"PK\x03\x04" + b"\0" * 40, "is a zip archive"),
        (safetensors.numpy.save({"a": np.zeros(9)}), "is not ONNX"),
        (network().SerializeToString()[:-40], "is not ONNX"),
        (HOSTILE["gigabytes by Expand"].SerializeToString(), "needs over 4 GiB for one tile, at 'bomb' by 'Expand'"),
        (doubling(40).SerializeToString(), "bad_alloc|cannot be checked"),
        (b"\x3a\x80\xda\xc4\x09" + b"\x0a\x00" * 10_000_000, "alloc failed|cannot be checked"),
    ],
    ids=["empty", "noise", "pickle", "zip", "safetensors", "cut", "Expand", "doubling", "20 MB of empty operators"],
)
def test_bytes_that_are_no_network_are_an_integrity_error(data: bytes, why: str) -> None:
    with pytest.raises(IntegrityError, match=why) as caught:
        check_onnx(data, "model.onnx of x@1")
    assert str(caught.value).startswith("model.onnx of x@1 ") and "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("greed", ["bytearray(4 << 30)", "exec('while True: pass')"])
def test_a_file_can_take_neither_memory_nor_time_without_end(greed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    greedy = f"import cellnet.untrusted\ncellnet.untrusted.refusal = lambda data: str({greed})\nsys.exit("
    monkeypatch.setattr(untrusted, "READER", untrusted.READER.replace("sys.exit(", greedy))
    monkeypatch.setattr(untrusted, "SECONDS", 2)
    with pytest.raises(IntegrityError, match=r"model.onnx cannot be checked"):
        check_onnx(network().SerializeToString(), "model.onnx")


def test_a_file_that_crashes_its_reader_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted, "MEMORY_BYTES", 2**20)
    with pytest.raises(IntegrityError, match=r"model.onnx cannot be checked, so it is not used: its reader"):
        check_onnx(network().SerializeToString(), "model.onnx")


def test_no_flipped_byte_of_an_onnx_file_raises_anything() -> None:
    good, rng = network(weight=np.ones((2, 3), np.float32)).SerializeToString(), np.random.default_rng(0)
    for _ in range(400):
        data = bytearray(good)
        for place in rng.integers(0, len(good), rng.integers(1, 4)):
            data[place] = rng.integers(256)
        why = refusal(bytes(data))
        assert why is None or "\n" not in why


def header(entries: object, data: bytes = b"\0" * 16) -> bytes:
    """A safetensors file with this header."""
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "claims 0 bytes, and the file has 0"),
        (struct.pack("<Q", 2**43) + b"{}", "its header claims 8,796,093,022,208 bytes, and the file has 10"),
        (pickle.dumps([1.0] * 9), "is a pickle, not safetensors"),
        (b"PK\x03\x04" + b"\xff" * 40, "is a zip archive, as torch.save writes one, not safetensors"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 40, "is an HDF5 file, not safetensors"),
        (b"<!doctype html><html>", "is a page of HTML or XML, not safetensors"),
        (safetensors.numpy.save({"a": np.ones(4)})[:-3], "is damaged"),
        (safetensors.numpy.save({"a": np.ones(4)}) + b"more", "is damaged"),
        (header({"a": tensor(0, 16, [4]), "b": tensor(8, 16, [2])}), "is damaged"),
        (header({"a": tensor(0, 2**40, [2**38])}), "is damaged"),
        (header({"a": tensor(0, 16, [2**62, 2**62])}), "is damaged"),
        (header({"a": tensor(0, 16, [5])}), "is damaged"),
        (header({"a": tensor(16, 0, [4])}), "is damaged"),
        (header({"a": tensor(0, 16, [4], "F99")}), "is damaged"),
        (header({"a": tensor(0, 8, [2])}), "is damaged"),
        (header([1, 2]), "is damaged"),
        (header(b"[" * 50_000), "is damaged"),
        (header(b"\xff\xfe{}"), "is damaged"),
    ],
)
def test_a_hostile_safetensors_file_is_refused_in_one_line(data: bytes, why: str) -> None:
    with pytest.raises(IntegrityError, match=why) as caught:
        check_safetensors(data, "weights.safetensors of x@1")
    assert "\n" not in str(caught.value)


def test_the_reader_sees_neither_the_folder_nor_the_secrets_that_it_is_started_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnx", "json", "cellnet"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close(); raise SystemExit(0)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(IntegrityError, match=r"x is not ONNX"):
        check_onnx(b"this is not ONNX at all", "x")
    check_onnx(network().SerializeToString(), "x")
    assert not (tmp_path / "ran").exists()


def test_a_reader_that_ends_without_a_word_praises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted, "READER", "import sys; sys.stdin.buffer.read()")
    with pytest.raises(IntegrityError, match="x cannot be checked, so it is not used"):
        check_onnx(network().SerializeToString(), "x")
