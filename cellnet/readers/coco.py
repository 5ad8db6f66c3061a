"""Frames from a COCO file of annotations (https://cocodataset.org/#format-data), as LIVECell and others publish them.

    annotations.json        images, annotations and categories, each a list, or a dict by id
    FILE_NAME               beside it, or in a folder `images` beside it, or anywhere below

A cell is an annotation that is not a crowd; its centre is the middle of its box, else of its outline. The lineage is
what `--lineage-pattern` finds in the file name, else the category where there are several.
"""

import json
import logging
import math
from pathlib import Path
from typing import Any, Final

from cellnet.errors import DataError
from cellnet.images.file import ImageFile
from cellnet.readers import LabelledFile, Options, Source, is_file, matched

logger = logging.getLogger(__name__)

TAKES: Final = frozenset({"lineage_pattern", "group_pattern"})
MAX_BYTES: Final = 2 * 10**9
Item = dict[str, Any]


def accepts(source: Path) -> bool:
    """Whether the source is a JSON file."""
    return source.is_file() and source.suffix.lower() == ".json"


def read(source: Path, options: Options) -> Source:
    """Every image that is listed. Raises DataError for what is not COCO, or a pattern that is not one."""
    document = _load(source)
    images, annotations = _items(document, "images", source), _items(document, "annotations", source)
    if not images:
        raise DataError(f"{source} lists no images; export the annotations again")
    names = {_id(item.get("id")): str(item.get("name")) for item in _items(document, "categories", source)}
    of_image: dict[str, list[Item]] = {_id(image.get("id")): [] for image in images}
    cells = [annotation for annotation in annotations if _id(annotation.get("iscrowd") or 0) == "0"]
    known = [cell for cell in cells if _id(cell.get("image_id")) in of_image]
    if cells and not known:
        raise DataError(f"{source}: no annotation has the id of an image; export images and annotations together")
    if len(known) < len(cells):
        logger.warning("%s: %d cells of %d are of no image in it", source, len(cells) - len(known), len(cells))
    for cell in known:
        of_image[_id(cell["image_id"])].append(cell)
    files = {path.name: path for path in source.parent.rglob("*") if path.is_file()}
    categories = names if len(names) > 1 else {}
    return Source(
        [_label(source, image, of_image[_id(image.get("id"))], files, categories, options) for image in images]
    )


def _load(source: Path) -> Item:
    if source.stat().st_size > MAX_BYTES:
        raise DataError(f"{source} is over {MAX_BYTES // 10**9} GB; split it by image")
    try:
        document = json.loads(source.read_text(encoding="utf-8-sig"), object_hook=_without_outline)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{source} is not readable as JSON ({error}); export it again") from error
    if not isinstance(document, dict) or not {"images", "annotations"} <= set(document):
        raise DataError(f"{source} is not COCO: it needs 'images' and 'annotations'")
    return document


def _without_outline(item: Item) -> Item:
    """An annotation with a box needs no outline, and the outlines of a large set are most of the memory."""
    if item.get("bbox"):
        item.pop("segmentation", None)
    return item


def _id(number: object) -> str:
    """7, 7.0 and "7" are the same image."""
    return str(int(number) if isinstance(number, float) and number.is_integer() else number)


def _items(document: Item, key: str, source: Path) -> list[Item]:
    """The entries of a part, which is a list, or a dict by id."""
    part = document.get(key) or []
    items = list(part.values()) if isinstance(part, dict) else part
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise DataError(f"{source}: {key!r} is not a list of objects; export it again")
    return [{"id": number} | item for number, item in zip(part, items, strict=True)] if items is not part else items


def _label(
    source: Path, image: Item, cells: list[Item], files: dict[str, Path], categories: dict[str, str], options: Options
) -> LabelledFile:
    name = str(image.get("file_name", "")).replace("\\", "/")
    path = source.parent / name
    if not is_file(path) or not path.resolve().is_relative_to(source.parent.resolve()):
        path = files.get(Path(name).name, source.parent / Path(name).name)
    centres = [_centre(cell) for cell in cells]
    known = tuple(centre for centre in centres if centre is not None)
    lineage = matched(options.lineage_pattern, path.name, "lineage")
    named = categories and lineage is None
    kinds = {categories.get(_id(cell.get("category_id")), "?") for cell in cells} if named else set()
    problem = None
    if not is_file(path):
        problem = "the file is missing"
    elif len(kinds) > 1:
        problem = f"its cells are of several categories: {', '.join(sorted(kinds))}"
    return LabelledFile(
        image=ImageFile.at(path),
        lineage=lineage or next(iter(kinds), None),
        count=float(len(cells)),
        centres=known if len(known) == len(cells) else None,
        group=matched(options.group_pattern, path.name, "group"),
        problem=problem,
    )


def _centre(cell: Item) -> tuple[float, float] | None:
    """The middle of the box, else of the outline's corners."""
    try:
        if cell.get("bbox"):
            x, y, width, height = (float(number) for number in cell["bbox"])
            return _finite(x + width / 2, y + height / 2)
        outline = [float(number) for polygon in cell["segmentation"] for number in polygon]
        xs, ys = outline[::2], outline[1::2]
        return _finite((min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _finite(x: float, y: float) -> tuple[float, float] | None:
    return (x, y) if math.isfinite(x + y) else None
