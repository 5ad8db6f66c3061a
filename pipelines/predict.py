"""Name and count what images show, many at once, by Ray Data: the same predictor as in serving.

A Ray job, like `cellnet predict`:

    python -m pipelines.predict IMAGE_OR_FOLDER... [--registry URI] [--csv | --json]
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray.data

from cellnet.answers import Prediction, combine
from cellnet.errors import CellnetError, DataError
from cellnet.images import SUFFIXES, decode, pixel_size_um
from cellnet.predictor import Predictor, resolve_models
from cellnet.registry import Registry
from pipelines import cluster
from pipelines.places import Places


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
    places: Places,
    *,
    classifier: str | None = None,
    regressor: str | None = None,
    pixel_um: float | None = None,
) -> Iterator[Prediction]:
    """A prediction an image, in order, as they are ready. A bad image gives a row with its error."""
    images = find_images(paths)
    registry = places.open_registry()
    refs = list(resolve_models(registry, classifier, regressor).values())
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


def _answer_batch(batch: dict[str, Any], registry: Registry, refs: list[str], pixel_um: float | None) -> dict[str, Any]:
    models = [cluster.load_once(registry, ref) for ref in refs]
    predictions = np.empty(len(batch["image"]), object)
    predictions[:] = [
        _answer(models, path, name, pixel_um) for path, name in zip(batch["image"], batch["name"], strict=True)
    ]
    return {"prediction": predictions}


def _answer(models: list[Predictor], path: str, name: str, pixel_um: float | None) -> Prediction:
    try:
        data = Path(path).read_bytes()
        image_HW = decode(data, name=Path(path).name)
        um = pixel_um or pixel_size_um(data)
        return combine(name, [model.answer(image_HW, pixel_um=um) for model in models])
    except CellnetError as error:
        return Prediction(image=name, error=str(error))
    except OSError as error:
        return Prediction(image=name, error=f"cannot be read: {error.strerror}")


if __name__ == "__main__":
    import sys

    from cellnet.cli import main

    sys.exit(main(["predict", *sys.argv[1:]]))
