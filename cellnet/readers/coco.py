"""Frames from a COCO file of annotations (https://cocodataset.org/#format-data), as LIVECell and others publish them.

    annotations.json        images, annotations and categories, each a list, or a dict by id
    FILE_NAME               beside it, or in a folder `images` beside it, or anywhere below; where it lies in a folder
                            `annotations`, beside that one

Of Roboflow the folder alone may be given, with its `_annotations.coco.json`. A cell is an annotation that is not a
crowd; its centre is the middle of its box, else of its outline. Where the file says another size of an image than the
image has, centres are scaled to it. The lineage is what `--lineage-pattern` finds in the file name, else the category
where there are several; `--population` takes the cells of one category, or of `all`, and then none is a lineage.
"""

import json
import logging
import math
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import unquote

from cellnet.errors import DataError
from cellnet.images.file import ImageFile, open_regular
from cellnet.readers import LabelledFile, Options, Source, Unused, is_file, is_inside, matched
from cellnet.readers.foreign import ROBOFLOW
from cellnet.readers.forms import name_of_labels
from cellnet.readers.matching import IMAGE_SUFFIXES, Match, Names, images_below
from cellnet.readers.outlines import middle_of_polygons, middle_of_runs
from cellnet.store.paths import AnyPath

logger = logging.getLogger(__name__)

TAKES: Final = frozenset({"lineage_pattern", "group_pattern", "population"})
ALL: Final = "all"
"""The population of every category."""
MAX_BYTES: Final = 2 * 10**9
MOST_OBJECTS: Final = 10_000_000
"""Each takes nearly a kilobyte in memory."""
MANY_BOXES: Final = 8
"""So many cannot all be larger than they are far from the upper left corner, as corners read for sizes are."""
ANNOTATIONS: Final = frozenset({"annotations", "annotation", "labels", "json", "coco"})
"""Folders of annotation files, that lie beside those of the images."""
_SPLIT: Final = re.compile(r"(?:images?[_-]?)?(train|valid|validation|val|test)(?:ing)?\d{0,4}(?:[_-]?images?)?")
_ELSEWHERE: Final = re.compile(r"\.\.[/\\]|[/\\]|[A-Za-z]:[/\\]|[A-Za-z][A-Za-z0-9+.-]+://")
"""How a path of another machine begins, whose folders are not here."""
Item = dict[str, Any]


def accepts(source: AnyPath) -> bool:
    """Whether the source is a JSON file, or a folder as Roboflow exports it."""
    return (source.is_file() and source.suffix.lower() == ".json") or (source / ROBOFLOW).is_file()


def read(source: AnyPath, options: Options) -> Source:
    """Every image that is listed. Raises DataError for what is not COCO, or a pattern that is not one."""
    source = source / ROBOFLOW if source.is_dir() else source
    document = _load(source)
    images, annotations = _items(document, "images", source), _items(document, "annotations", source)
    if not images:
        raise DataError(f"{source} lists no images; export the annotations again")
    if not annotations:
        raise DataError(f"{source} has no annotations, of any image; export images and annotations together")
    repeated = len(annotations) - len(annotations := _once(annotations))
    images = _once(images)
    categories = _Categories.of(_items(document, "categories", source), annotations, options, source)
    annotations = [each for each in annotations if categories.counts(each)]
    cells = [each for each in annotations if not _is_crowd(each)]
    of_image: dict[str, list[Item]] = {_id(image.get("id")): [] for image in images}
    unused = _strays(source, cells, of_image) + _crowds(source, images, annotations)
    for cell in cells:
        of_image.get(_id(cell.get("image_id")), []).append(cell)
    corners = _are_corners(source, images, of_image)
    files = _Files(source, {_name(image) for image in images})
    problems = _doubles(images)
    labelled = [
        _label(image, of_image[_id(image.get("id"))], files, categories, options, corners=corners, problem=problem)
        for image, problem in zip(images, problems, strict=True)
    ]
    if repeated:
        why = "they repeat another annotation, its id and all"
        unused.append(Unused(f"{source.name}: annotations", "duplicate", why, repeated))
    return Source(labelled, unused + files.unlisted())


def _load(source: AnyPath) -> Item:
    if (size := source.stat().st_size) > MAX_BYTES:
        raise DataError(f"{source} is over {MAX_BYTES // 10**9} GB; split it by image")
    try:
        with open_regular(source) as file:
            data = file.read(size)
        if data.count(b"{") > MOST_OBJECTS:
            raise DataError(f"{source} has over {MOST_OBJECTS:,} annotations; split it by image")
        text = data.decode("utf-8-sig")
        del data
        document = json.loads(text, object_hook=_without_outline)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{source} is not readable as JSON ({error}); export it again") from error
    if not isinstance(document, dict) or not {"images", "annotations"} <= set(document):
        named = name_of_labels(source) or "not COCO: it needs 'images' and 'annotations'"
        raise DataError(f"{source} is {named}")
    return document


def _without_outline(item: Item) -> Item:
    """An annotation with a box needs no outline, and the outlines of a large set are most of the memory."""
    if "segmentation" in item and _box(item) is not None:
        del item["segmentation"]
    return item


def _id(number: object) -> str:
    """7, 7.0 and "7" are the same image."""
    if type(number) is int:  # as nearly all are
        return str(number)
    return str(int(number) if isinstance(number, float) and number.is_integer() else number)


def _items(document: Item, key: str, source: AnyPath) -> list[Item]:
    """The entries of a part, which is a list, or a dict by id."""
    part = document.get(key) or []
    items = list(part.values()) if isinstance(part, dict) else part
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise DataError(f"{source}: {key!r} is not a list of objects; export it again")
    return [{"id": number} | item for number, item in zip(part, items, strict=True)] if items is not part else items


def _once(items: list[Item]) -> list[Item]:
    """The entries without those that repeat an earlier one, its id and all."""
    often = {number for number, times in Counter(_id(item.get("id")) for item in items).items() if times > 1}
    seen: set[str] = set()
    kept = []
    for item in items:
        whole = json.dumps(item, sort_keys=True) if _id(item.get("id")) in often and "id" in item else None
        if whole is None or whole not in seen:
            kept.append(item)
        if whole is not None:
            seen.add(whole)
    return kept


def _is_crowd(cell: Item) -> bool:
    """Whether an annotation stands for a group of cells; exporters write 1, true, "1" and "true"."""
    said = cell.get("iscrowd")
    return bool(said) and str(said).lower() not in ("0", "0.0", "false", "none", "null", "no")


def _strays(source: AnyPath, cells: list[Item], of_image: dict[str, list[Item]]) -> list[Unused]:
    """The cells of images that are not listed. Raises DataError where they are all of them."""
    strays = Counter(_id(cell.get("image_id")) for cell in cells if _id(cell.get("image_id")) not in of_image)
    if cells and sum(strays.values()) == len(cells):
        raise DataError(f"{source}: no annotation has the id of an image; export images and annotations together")
    return [
        Unused(f"{source.name}: cells of image {image}", "no_image", "no image of this id is listed", number)
        for image, number in strays.items()
    ]


def _crowds(source: AnyPath, images: list[Item], annotations: list[Item]) -> list[Unused]:
    """The annotations that stand for a number of cells that nobody counted."""
    names = {_id(image.get("id")): _name(image) for image in images}
    crowds = Counter(names.get(_id(each.get("image_id"))) for each in annotations if _is_crowd(each))
    why = "a crowd stands for cells that nobody counted; its image has more than its count"
    return [Unused(f"{source.name}: crowds of {name}", "crowd", why, number) for name, number in crowds.items() if name]


def _doubles(images: list[Item]) -> list[str | None]:
    """Of each image, why it cannot be told from another: two of one id, or one that is listed twice."""
    names: dict[str, list[str]] = defaultdict(list)
    ids: dict[str, list[str]] = defaultdict(list)
    for image in images:
        names[_id(image.get("id"))].append(_name(image))
        ids[_name(image)].append(_id(image.get("id")))
    problems: list[str | None] = []
    for image in images:
        name, number = _name(image), _id(image.get("id"))
        problem = None
        if len(names[number]) > 1:
            problem = f"the id {number} is that of several images, {' and '.join(names[number][:3])}; export them again"
        elif len(ids[name]) > 1:
            problem = f"it is listed several times, with the ids {' and '.join(ids[name][:3])}; export it once"
        problems.append(problem)
    return problems


@dataclass(frozen=True)
class _Categories:
    """What the categories of cells mean: which are lineages, and which cells count."""

    names: dict[str, str]
    """By id; the root of a tree, which stands for no cell, left out."""
    wanted: str | None
    """The only one that counts."""
    are_lineages: bool

    @classmethod
    def of(cls, items: list[Item], annotations: list[Item], options: Options, source: AnyPath) -> "_Categories":
        used = {_id(each.get("category_id")) for each in annotations}
        parents = {
            str(item["supercategory"]) for item in items if item.get("supercategory") not in (None, item.get("name"))
        }
        leaves = [item for item in items if _id(item.get("id")) in used or str(item.get("name")) not in parents]
        key = "name"
        if len({str(item.get("name")) for item in leaves}) == 1:
            key = "supercategory" if len({str(item.get("supercategory")) for item in leaves}) > 1 else "name"
        names = {_id(item.get("id")): str(item.get(key)) for item in leaves}
        wanted = None if options.population == ALL else options.population
        if wanted is not None and wanted not in names.values():
            seen = ", ".join(sorted(set(names.values()))) or "none"
            raise DataError(f"{source} has no category {wanted}; it has {seen}")
        return cls(names, wanted, options.population is None and len(set(names.values())) > 1)

    def counts(self, cell: Item) -> bool:
        return self.wanted is None or self.names.get(_id(cell.get("category_id"))) == self.wanted

    def lineage(self, cells: list[Item]) -> str | None:
        """Of the cells of one image; None where categories are none. Raises DataError for cells of several."""
        if not self.are_lineages:
            return None
        numbers = {_id(cell.get("category_id")) for cell in cells}
        kinds = sorted({self.names.get(number, f"{number} (not listed)") for number in numbers})
        if len(kinds) > 1:
            raise DataError(
                f"its cells are of several categories: {', '.join(kinds)}; give --lineage-pattern, or count those of "
                f"one by --population '{kinds[0]}', or of all"
            )
        if kinds and kinds[0] not in self.names.values():
            raise DataError(f"its cells are of the category {kinds[0]}; export the categories too")
        return kinds[0] if kinds else None


def _are_corners(source: AnyPath, images: list[Item], of_image: dict[str, list[Item]]) -> bool:
    """Whether boxes are [x1, y1, x2, y2], told by all of them: read as sizes, some would leave their image.

    Raises DataError for boxes that are shares of the image, since it is not said of which of their points.
    """
    boxes = [(box, _size(image)) for image in images for cell in of_image[_id(image.get("id"))] if (box := _box(cell))]
    if boxes and all(0 <= number <= 1 for box, _ in boxes for number in box):
        raise DataError(
            f"{source}: its boxes, like {list(boxes[0][0])}, are shares of the image; export them in pixels"
        )
    leaves = any(size and (box[0] + box[2] > size[0] + 1 or box[1] + box[3] > size[1] + 1) for box, size in boxes)
    fit = all(
        box[2] > box[0] and box[3] > box[1] and (size is None or (box[2] <= size[0] + 1 and box[3] <= size[1] + 1))
        for box, size in boxes
    )
    corners = bool(boxes) and fit and (leaves or len(boxes) >= MANY_BOXES)
    if corners:
        logger.warning("%s: its boxes are read as two corners, like %s", source, list(boxes[0][0]))
    return corners


def _box(cell: Item) -> tuple[float, float, float, float] | None:
    """The four numbers of a box that has a size."""
    try:
        x, y, width, height = map(float, cell["bbox"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return (x, y, width, height) if math.isfinite(x + y + width + height) and width and height else None


def _size(image: Item) -> tuple[float, float] | None:
    """Width and height as the file says them."""
    try:
        width, height = float(image["width"]), float(image["height"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return (width, height) if 0 < width < math.inf and 0 < height < math.inf else None


def _name(image: Item) -> str:
    """The path, or the address on the web, that an image is said to lie at."""
    return next((str(image[key]) for key in ("file_name", "path", "coco_url", "flickr_url") if image.get(key)), "")


def _label(
    image: Item,
    cells: list[Item],
    files: "_Files",
    categories: _Categories,
    options: Options,
    *,
    corners: bool,
    problem: str | None,
) -> LabelledFile:
    path, missing = files.find(_name(image))
    problem = problem or missing
    lineage = matched(options.lineage_pattern, path.name, "lineage")
    if lineage is None:
        try:
            lineage = categories.lineage(cells)
        except DataError as error:
            problem = problem or str(error)
    centres = [_centre(cell, corners=corners) for cell in cells]
    known = tuple(centre for centre in centres if centre is not None)
    return LabelledFile(
        image=ImageFile.at(path),
        lineage=lineage,
        count=float(len(cells)),
        centres=known if len(known) == len(cells) else None,
        size_px=_size(image),
        group=matched(options.group_pattern, path.name, "group"),
        problem=problem,
    )


def _centre(cell: Item, *, corners: bool) -> tuple[float, float] | None:
    """The middle of the box, else of the outline; a box without a size is a point, unless it lies at 0, 0."""
    box = _box(cell)
    if box is not None:
        x, y, width, height = box
        return ((x + width) / 2, (y + height) / 2) if corners else (x + width / 2, y + height / 2)
    outline = cell.get("segmentation")
    middle = middle_of_runs(outline) if isinstance(outline, dict) else middle_of_polygons(outline)
    return middle or _point(cell)


def _point(cell: Item) -> tuple[float, float] | None:
    """Where a box without a size lies, or a single key point."""
    points = (cell.get("keypoints"), 3), (cell.get("bbox"), 4)
    for said, length in points:
        try:
            numbers = [float(number) for number in said] if said else []
        except (TypeError, ValueError, OverflowError):
            continue
        if len(numbers) == length and any(numbers[:2]) and math.isfinite(sum(numbers)):
            return numbers[0], numbers[1]
    return None


class _Files:
    """The files that an annotation file may mean, found by what it writes of them."""

    def __init__(self, source: AnyPath, written: Iterable[str]) -> None:
        self._source = source
        self._root = source.parent.parent if source.parent.name.lower() in ANNOTATIONS else source.parent
        self._split = _split_of(re.split(r"[^a-z0-9]+", source.stem.lower()))
        self._images = images_below(self._root, IMAGE_SUFFIXES)
        names = Names(self._images)
        matches = names.find_all(written)
        for name, match in matches.items():
            if not match.images and _ELSEWHERE.match(name):
                matches[name] = names.find(_last(name))
        self._matches = {name: self._of_split(name, match) for name, match in matches.items()}
        self._writers = Counter(match.one for match in self._matches.values())

    def find(self, written: str) -> tuple[AnyPath, str | None]:
        """Where an image lies, and why it cannot be taken: there is none of its name, or there are several."""
        match = self._matches[written]
        if not match.images:
            path = self._source.parent / written
            if is_file(path) and is_inside(path, self._root):
                return path, None  # no suffix of images, but it is there
            return self._source.parent / (_last(written) or "?"), "the file is missing"
        path = self._root / match.images[0]
        if match.one is None:
            return path, match.why_not(written)
        if self._writers[match.one] > 1:
            return path, f"several images may be {match.one}; write their folders into file_name"
        return path, None

    def unlisted(self) -> list[Unused]:
        """The images that lie beside those that are listed, and are not."""
        listed = {image for match in self._matches.values() for image in match.images}
        folders = {posixpath.dirname(image) for image in listed}
        left = Counter(
            folder for image in self._images if (folder := posixpath.dirname(image)) in folders and image not in listed
        )
        why = f"{self._source.name} does not list them"
        return [Unused(f"images in {self._root / folder}", "no_label", why, left[folder]) for folder in sorted(left)]

    def _of_split(self, written: str, match: Match) -> Match:
        """Without images of another split; of several, those in the folder `images` or of the very split."""
        split = _split_of(written.lower().replace("\\", "/").split("/")[:-1]) or self._split
        splits = {image: _split_of(image.lower().split("/")[:-1]) for image in match.images}
        images = tuple(image for image in match.images if not split or splits[image] in (None, split))
        of_split = tuple(image for image in images if split and splits[image] == split)
        beside = tuple(image for image in images if image.lower() == f"images/{written}".lower())
        return replace(match, images=of_split or beside or images)


def _last(written: str) -> str:
    """The last part of a path, of an address without what follows a question mark."""
    path = unquote(re.split(r"[?#]", written)[0]) if "://" in written else written.replace("\\", "/")
    return path.rpartition("/")[2]


def _split_of(folders: Iterable[str]) -> str | None:
    """train, val or test, where one of the folders is of that name."""
    for folder in folders:
        if found := _SPLIT.fullmatch(folder.lower()):
            return "val" if found[1].startswith("val") else found[1]
    return None
