"""A version as a package for the BioImage Model Zoo (bioimage.io, model format 0.5), to be used without cellnet.

Any program that runs the zoo's ONNX models runs it; `bioimageio test FILE.zip` checks that it answers as it should.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from cellnet.config.choices import NETWORK_PX
from cellnet.errors import ConfigError
from cellnet.networks.weights import weights_from_bytes
from cellnet.prediction.export import OPSET, run_onnx, to_onnx
from cellnet.prediction.predictor import predictor_of
from cellnet.registry.description import scored
from cellnet.registry.records import ONNX, Card, ModelVersion
from cellnet.sample import LINEAGES, draw_frame
from cellnet.tasks import TASKS
from cellnet.untrusted import INPUT, OUTPUTS, WEIGHTS, check_onnx

if TYPE_CHECKING:
    from bioimageio.spec.model.v0_5 import ModelDescr

CITE: Final = (
    "Ferreira & Silveira, Classification and counting of cells in brightfield microscopy images: an application of "
    "convolutional neural networks, Scientific Reports 14 (2024)",
    "10.1038/s41598-024-59625-z",
)
LICENSE: Final = "MIT"
"""Of a package unless told otherwise: that of cellnet."""
PRIVATE: Final = {"bank", "sweep", "search", "history"}
"""Of the card: places of the lab, and what no user of the model needs. The report shows frames, so it stays too."""
TAGS: Final = ("cells", "2d", "brightfield", "phase-contrast", "cell-lines", "cellnet")


def write_bioimageio(
    path: str | Path,
    version: ModelVersion,
    files: Mapping[str, bytes],
    *,
    authors: Sequence[str] = (),
    license: str = LICENSE,
) -> Path:
    """The path of the ZIP that was written: a version, with its files by role, as a package.

    A model of before ONNX is exported from its weights. Raises ConfigError where bioimageio.core is not installed, the
    path cannot be written, or the zoo takes no such author or licence, and IntegrityError for files that are not what
    they claim to be.
    """
    try:
        from bioimageio.spec import ValidationContext, save_bioimageio_package
    except ImportError as error:
        raise ConfigError("packages for bioimage.io need: pip install 'cellnet[bioimageio]'") from error
    onnx = _onnx(version, files)
    path = Path(path)
    try:
        if os.path.lexists(path):
            raise ConfigError(f"{path} is there already; name a new file")
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(prefix=".tmp-", dir=path.parent) as folder,
            ValidationContext(perform_io_checks=False, log_warnings=False),
        ):
            parts = Path(folder, "parts")
            parts.mkdir()
            _write_parts(parts, version, onnx)
            whole = save_bioimageio_package(
                _described(parts, version, authors, license), output_path=Path(folder, "whole.zip")
            )
            Path(whole).rename(path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    return path


def _onnx(version: ModelVersion, files: Mapping[str, bytes]) -> bytes:
    if ONNX in files:
        check_onnx(files[ONNX], f"{ONNX} of {version.ref}")
        return files[ONNX]
    weights = weights_from_bytes(files[WEIGHTS], version.ref)
    return to_onnx(predictor_of(version.ref, version.card, weights))


def _write_parts(folder: Path, version: ModelVersion, onnx: bytes) -> None:
    """The files of the package, with a drawn tile and the outputs for it."""
    tile_HW = _drawn_tile(version.card)
    outputs = run_onnx(onnx, [tile_HW])
    np.save(folder / f"{INPUT}.npy", tile_HW[None, None].astype(np.float32))
    (folder / f"{INPUT}.png").write_bytes(cv2.imencode(".png", tile_HW)[1].tobytes())
    for name, output in zip(OUTPUTS, outputs, strict=True):
        np.save(folder / f"{name}.npy", output)
        (folder / f"{name}.tif").write_bytes(cv2.imencode(".tif", output.reshape(1, -1))[1].tobytes())
    (folder / ONNX).write_bytes(onnx)
    (folder / "README.md").write_text("\n".join(_documentation(version)), encoding="utf-8")
    (folder / "card.json").write_text(version.card.model_dump_json(indent=1, exclude=PRIVATE), encoding="utf-8")


def _drawn_tile(card: Card) -> NDArray[np.uint8]:
    lineage = next((name for name in card.classes if name in LINEAGES), LINEAGES[0])
    return draw_frame(lineage, np.random.default_rng(0), size_px=NETWORK_PX).image_HW


def _described(folder: Path, version: ModelVersion, authors: Sequence[str], license: str) -> "ModelDescr":
    from bioimageio.spec.model.v0_5 import ModelDescr
    from pydantic import ValidationError

    card = version.card
    cite, doi = CITE
    try:
        return ModelDescr.model_validate(
            {
                "format_version": ModelDescr.implemented_format_version,
                "type": "model",
                "name": f"cellnet {version.name} {version.number}",
                "description": _purpose(card),
                "authors": [{"name": name} for name in authors or ["unknown"]],
                "cite": [{"text": cite, "doi": doi}],
                "license": license,
                "tags": [*TAGS, TASKS[card.task].tag],
                "documentation": {"source": folder / "README.md"},
                "covers": [{"source": folder / f"{INPUT}.png"}],
                "attachments": [{"source": folder / "card.json"}],
                "timestamp": datetime.fromisoformat(card.created),
                "version": str(version.number),
                "inputs": [_input(folder, card)],
                "outputs": [_output(folder, card), _features(folder)],
                "weights": {"onnx": {"source": folder / ONNX, "opset_version": _opset(card)}},
                "config": {"cellnet": json.loads(card.model_dump_json(include={"classes", "preprocess", "scores"}))},
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"bioimage.io takes no package with {place} {first['input']!r:.60}: {first['msg']}"
        ) from error


def _opset(card: Card) -> int:
    return card.onnx.opset if card.onnx else OPSET


def _purpose(card: Card) -> str:
    of = f" of {card.config.lineage}" if card.config.lineage else ""
    return f"{TASKS[card.task].purpose} in a brightfield or phase-contrast tile{of}."


def _input(folder: Path, card: Card) -> dict[str, Any]:
    pixel = {}
    if card.preprocess.pixel_um is not None:
        sides = zip("yx", card.preprocess.tile_px, strict=True)
        pixel = {
            axis: {"unit": "micrometer", "scale": card.preprocess.pixel_um * side / NETWORK_PX} for axis, side in sides
        }
    return {
        "id": INPUT,
        "description": f"grey values 0..255 of {_tile_px(card)} frame pixels, resized to 200×200",
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": ["grey"]},
            *({"type": "space", "id": axis, "size": NETWORK_PX, **pixel.get(axis, {})} for axis in "yx"),
        ],
        "data": {"type": "float32", "range": (0.0, 255.0)},
        "test_tensor": {"source": folder / f"{INPUT}.npy"},
        "sample_tensor": {"source": folder / f"{INPUT}.png"},
    }


def _output(folder: Path, card: Card) -> dict[str, Any]:
    classes = card.classes
    axes: list[dict[str, Any]] = [{"type": "batch"}]
    if card.task == "classify":
        axes.append({"type": "channel", "channel_names": classes})
    return {
        "id": OUTPUTS[0],
        "description": "calibrated probabilities of the lineages" if classes else "cells in the tile",
        "axes": axes,
        "data": {"type": "float32", "range": (0.0, 1.0 if classes else None)},
        "test_tensor": {"source": folder / f"{OUTPUTS[0]}.npy"},
        "sample_tensor": {"source": folder / f"{OUTPUTS[0]}.tif"},
    }


def _features(folder: Path) -> dict[str, Any]:
    source = folder / f"{OUTPUTS[1]}.npy"
    return {
        "id": OUTPUTS[1],
        "description": "what the network's last layer sees, to tell tiles that are unlike the training's",
        "axes": [{"type": "batch"}, {"type": "index", "size": np.load(source).shape[1]}],
        "data": {"type": "float32"},
        "test_tensor": {"source": source},
        "sample_tensor": {"source": folder / f"{OUTPUTS[1]}.tif"},
    }


def _tile_px(card: Card) -> str:
    height, width = card.preprocess.tile_px
    return f"{width}×{height}"


def _documentation(version: ModelVersion) -> Iterator[str]:
    """The model card in prose, in Markdown."""
    card = version.card
    preprocess = card.preprocess
    yield f"# cellnet {version.name} {version.number}\n"
    yield f"{_purpose(card)} Trained with cellnet {card.code_version}, {card.created[:10]}.\n"
    yield "## What it takes\n"
    um = f", of {preprocess.pixel_um:g} µm each" if preprocess.pixel_um is not None else ""
    yield (
        f"One grey tile of {_tile_px(card)} pixels of a frame{um}, resized to 200×200, as float32. The frame is first "
        f"stretched so that {preprocess.intensity} become 0 and 255; what is beyond saturates. "
        f"Filtering (kernel: {preprocess.kernel}) and normalisation are part of the network.\n"
    )
    yield "## What it answers\n"
    if card.task == "classify":
        yield f"A calibrated probability for each lineage: {', '.join(card.classes)}. It knows no others.\n"
        yield "A frame of several tiles is named by the mean of its tiles.\n"
    else:
        yield "The number of cells in the tile. The count of a frame is the sum over tiles that cover it once.\n"
    yield "## Validation\n"
    for line in (*scored(card), *(card.calibration.lines(card.task) if card.calibration else ())):
        yield f"- {line}"
    yield "\n## Limits\n"
    yield (
        "It answers whatever it is shown: of other cell lines, microscopes and magnifications, or of images without "
        "cells, its answer means nothing. Validate it on frames of your own whose truth you know; it is no medical "
        "device.\n"
    )
