"""Name and count what images show, many at once, by Ray Data: the same predictor as in serving.

python -m pipelines.predict IMAGE_OR_FOLDER... [--registry URI] [--csv | --json]   like: cellnet predict ...
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray.data

from cellnet.errors import CellnetError, DataError
from cellnet.images import SUFFIXES, decode
from cellnet.predictor import Magnification, Predictor, resolve_models
from cellnet.registry import Registry
from pipelines import cluster


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What is said of one image; `error` says why nothing is."""

    image: str
    lineage: str | None = None
    probability: float | None = None
    """Of that lineage."""
    count: float | None = None
    """Cells in the whole frame."""
    tiles: int = 0
    """Into how many tiles the frame was cut."""
    magnification: Magnification | None = None
    classifier: str | None = None
    regressor: str | None = None
    error: str | None = None


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The image files named, and those anywhere below the folders named. Raises DataError for none."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        elif path.is_file():
            found.append(path)
        else:
            raise DataError(f"{path} does not exist; give images or folders of images")
    if not found:
        raise DataError(f"no {', '.join(sorted(SUFFIXES))} file in {', '.join(map(str, paths))}")
    return found


def predict(
    paths: Sequence[Path],
    *,
    registry_uri: str,
    classifier: str | None = None,
    regressor: str | None = None,
    pixel_um: float | None = None,
    endpoint_url: str | None = None,
) -> Iterator[Prediction]:
    """A prediction an image, in order, as they are ready. A bad image gives a row with its error."""
    images = find_images(paths)
    registry = Registry.open(registry_uri, endpoint_url=endpoint_url)
    refs = resolve_models(registry, classifier, regressor)
    cluster.connect()
    rows = ray.data.from_items(
        [{"image": str(path.absolute()), "name": str(path)} for path in images],
        override_num_blocks=cluster.blocks(len(images)),
    ).map_batches(
        _answer_batch,
        fn_kwargs={"registry": registry, "refs": refs, "pixel_um": pixel_um},
        batch_size=8,
        batch_format="numpy",
    )
    for row in rows.iter_rows():
        yield row["prediction"]


def _answer_batch(
    batch: dict[str, Any], registry: Registry, refs: dict[str, str], pixel_um: float | None
) -> dict[str, Any]:
    models = {role: cluster.load_once(registry, ref) for role, ref in refs.items()}
    predictions = np.empty(len(batch["image"]), object)
    predictions[:] = [
        _answer(models, path, name, pixel_um) for path, name in zip(batch["image"], batch["name"], strict=True)
    ]
    return {"prediction": predictions}


def _answer(models: dict[str, Predictor], path: str, name: str, pixel_um: float | None) -> Prediction:
    versions: dict[str, Any] = {role: model.ref for role, model in models.items()}
    try:
        image_HW = decode(Path(path).read_bytes(), name=Path(path).name)
        said = {role: model.predict(image_HW, pixel_um=pixel_um) for role, model in models.items()}
    except CellnetError as error:
        return Prediction(image=name, error=str(error), **versions)
    except OSError as error:
        return Prediction(image=name, error=f"cannot be read: {error.strerror}", **versions)
    lineage, probability = None, None
    if "classifier" in said:
        probability_K = said["classifier"].probability_K
        best = int(probability_K.argmax())
        lineage = models["classifier"].card.classes[best]
        probability = float(probability_K[best])
    any_said = said.get("regressor") or said["classifier"]
    return Prediction(
        image=name,
        lineage=lineage,
        probability=probability,
        count=said["regressor"].count if "regressor" in said else None,
        tiles=len(any_said.boxes),
        magnification=any_said.magnification,
        **versions,
    )


if __name__ == "__main__":
    import sys

    from cellnet.cli import main

    sys.exit(main(["predict", *sys.argv[1:]]))
