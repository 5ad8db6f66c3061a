"""Name and count what images show, many at once, by Ray Data: the same predictor as in serving.

A Ray job, like `cellnet predict`:

    python -m pipelines.predict IMAGE_OR_FOLDER... [--registry URI] [--csv | --json]
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray.data

from cellnet.answers import Prediction, combine
from cellnet.errors import CellnetError, DataError
from cellnet.images import SUFFIXES, Pages, choose_pages, decode, pixel_size_um
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
    page: Pages | None = None,
) -> Iterator[Prediction]:
    """A prediction an image (or a page), in order, as they are ready. A bad image gives a row with its error."""
    images = find_images(paths)
    registry = places.open_registry()
    refs = list(resolve_models(registry, classifier, regressor).values())
    cluster.connect()
    rows = ray.data.from_items(
        [{"image": str(path.absolute()), "name": str(path)} for path in images],
        override_num_blocks=cluster.blocks(len(images)),
    ).map_batches(
        _answer_batch,
        fn_kwargs={"registry": registry, "refs": refs, "pixel_um": pixel_um, "page": page},
        batch_size=8,
        batch_format="numpy",
    )
    for row in rows.iter_rows():
        yield row["prediction"]


def _answer_batch(batch: dict[str, Any], registry: Registry, refs: list[str], **how: Any) -> dict[str, Any]:
    models = [cluster.load_once(registry, ref) for ref in refs]
    said = [
        prediction
        for path, name in zip(batch["image"], batch["name"], strict=True)
        for prediction in _answers(models, Path(path), name, **how)
    ]
    predictions = np.empty(len(said), object)
    predictions[:] = said
    return {"prediction": predictions}


def _answers(
    models: list[Predictor], path: Path, name: str, *, pixel_um: float | None, page: Pages | None
) -> Iterator[Prediction]:
    """What the models say of each chosen page of a file, or what is wrong with it."""
    try:
        data = path.read_bytes()
        um = pixel_um or pixel_size_um(data)
        pages = choose_pages(io.BytesIO(data), page, name=path.name)
    except OSError as error:
        yield Prediction(image=name, error=f"cannot be read: {error.strerror}")
        return
    except CellnetError as error:
        yield Prediction(image=name, error=str(error))
        return
    for number in pages:
        shown = name if number is None else f"{name}#{number}"
        try:
            image_HW = decode(data, name=path.name, page=number)
            yield combine(shown, [model.answer(image_HW, pixel_um=um) for model in models])
        except CellnetError as error:
            yield Prediction(image=shown, error=str(error))


if __name__ == "__main__":
    import sys

    from cellnet.cli import main

    sys.exit(main(["predict", *sys.argv[1:]]))
