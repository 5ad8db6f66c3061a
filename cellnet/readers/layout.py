"""What the folders and names of a source mean: which files are images, which masks, and which folder is a lineage.

Folders called images or raw, masks or labels, train or test say what lies in them, not which cells: they are read
through, and what is left of a path is the folder of the lineage. What is hidden, nested or of another kind is listed.
"""

import functools
import posixpath
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from cellnet.errors import DataError
from cellnet.images.file import SUFFIXES
from cellnet.images.formats import name_of_format
from cellnet.images.wells import thumbnails
from cellnet.readers import NO_IMAGE, Unused
from cellnet.readers.forms import first_bytes, name_of_labels
from cellnet.readers.matching import IMAGE_SUFFIXES, MOST_FILES, is_hidden, without_suffix
from cellnet.readers.tables import NOT_KNOWN
from cellnet.store.objects import together
from cellnet.store.paths import AnyPath, real, walk

IMAGES: Final = frozenset({"image", "images", "img", "imgs", "jpegimages", "pngimages", "tiffimages"})
IMAGES_BESIDE_MASKS: Final = frozenset(
    {"raw", "raws", "rawimages", "original", "originals", "input", "inputs", "source", "frames", "photos"}
)
"""Names of folders of images only where a folder of masks lies beside: RAW is a line of macrophages, too."""
MASKS: Final = frozenset(
    {
        *("mask", "masks", "label", "labels", "gt", "groundtruth", "groundtruths", "annotation", "annotations", "seg"),
        *("segs", "segmentation", "segmentations", "segmentationobject", "instance", "instances", "instancemask"),
        *("instancemasks", "cellmask", "cellmasks", "cpmasks", "labelimages", "target", "targets"),
    }
)
CLASSES: Final = frozenset({"segmentationclass", "semantic", "semanticmasks"})
"""Folders of masks whose numbers are classes."""
SPLITS: Final = frozenset(
    {"train", "training", "trainset", "test", "testing", "testset", "val", "valid", "validation", "holdout"}
)
_MASK_WORDS: Final = r"cp[_-]?masks?|instance[_-]?masks?|cell[_-]?masks?|masks?"
_MASK_WORDS_BESIDE: Final = r"labels?|labell?ed|segmentation|segmented|seg|gt|instances?|annotation"
"""Words that a name of an image may end with as well; beside an image of the rest of the name it is a mask."""
_MASK: Final = re.compile(rf"(.+?)[_\-. ](?:{_MASK_WORDS})|(?:{_MASK_WORDS})[_\-. ](.+)")
_MASK_BESIDE: Final = re.compile(rf"(.+?)[_\-. ](?:{_MASK_WORDS_BESIDE})|(?:{_MASK_WORDS_BESIDE})[_\-. ](.+)")
_IMAGE: Final = re.compile(r"(.+?)[_\-. ](?:im|img|image|raw)|(?:im|img|image|raw)[_\-. ](.+)")


@dataclass(frozen=True)
class Place:
    """A file of a source: where it lies, and what that means."""

    path: str
    """Relative to the source, with `/`."""
    lineages: tuple[str, ...]
    """The folders that are neither of images or masks nor of a split; one that is in order is a lineage."""
    splits: tuple[str, ...]
    stem: str
    """The name without suffix, in one spelling and letter case."""

    @property
    def folder(self) -> tuple[str, ...]:
        """What an image and its mask have in common."""
        return tuple(part.casefold() for part in (*self.splits, *self.lineages))


@dataclass(frozen=True)
class Layout:
    """The files of a source."""

    images: list[Place] = field(default_factory=list)
    masks: list[Place] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    """Tables and the like that lie in the source itself: it is for a reader to say which it used."""
    unused: list[Unused] = field(default_factory=list)


def look(source: AnyPath, *, at_others: bool = True) -> Layout:
    """What lies in a folder and below it. Raises DataError for more files than anybody puts into one source.

    Files that are no images are told by how they begin, unless nobody asks for them (`at_others`).
    """
    found = Layout()
    files = sorted(_walk(source, found.unused))
    images = [path for path in files if posixpath.splitext(path)[1].lower() in SUFFIXES]
    if at_others:
        no_images = sorted(set(files) - set(images))
        found.tables.extend(filter(_is_table, no_images))
        left = [path for path in no_images if not _is_table(path)]
        found.unused.extend(together(functools.partial(_other, source), left))
    beside_masks = {head for path in images if (head := _beside_masks(path)) is not None}
    named = []
    small = thumbnails(images)
    for path in images:
        place, kinds = _place(path, beside_masks)
        if path in small:
            found.unused.append(Unused(path, "thumbnail", "a small copy of another image"))
        elif "class" in kinds:
            found.unused.append(
                Unused(path, "no_instances", "its numbers are classes, and masks of instances are read")
            )
        elif "mask" in kinds or _MASK.fullmatch(place.stem):
            found.masks.append(place)
        elif _MASK_BESIDE.fullmatch(place.stem):
            named.append(place)
        else:
            found.images.append(place)
    of_image, others = pair(found.images, named)
    found.masks.extend(mask for masks in of_image.values() for mask in masks)
    found.images.extend(others)
    found.images.sort(key=lambda place: place.path)
    return found


def pair(images: Sequence[Place], masks: Sequence[Place]) -> tuple[dict[str, list[Place]], list[Place]]:
    """The masks of every image by its path, and the masks of none; a word like mask is no part of a name."""
    names: tuple[dict[tuple[tuple[str, ...], str], list[str]], ...] = ({}, {})
    for image in images:
        for by_name, name in zip(names, (image.stem, _core(image.stem, _IMAGE)), strict=True):
            by_name.setdefault((image.folder, name), []).append(image.path)
    of_image: dict[str, list[Place]] = {}
    strays = []
    for mask in masks:
        core = _core(_core(mask.stem, _MASK), _MASK_BESIDE)
        asked = [(names[0], mask.stem), (names[0], core), (names[1], core), (names[1], _core(core, _IMAGE))]
        found = next((held for by_name, name in asked if (held := by_name.get((mask.folder, name)))), [])
        if len(found) == 1:
            of_image.setdefault(found[0], []).append(mask)
        else:
            strays.append(mask)
    return of_image, strays


def splits_of(places: Sequence[Place]) -> list[Unused]:
    """What is said of folders like train and test: their images are taken, the split is not."""
    names = sorted({name for place in places for name in place.splits})
    if not names:
        return []
    why = "the bank deals its groups to splits of its own; import one of them alone to keep the others out"
    return [Unused(", ".join(f"{name}/" for name in names), "split", why, len(names))]


def _walk(source: AnyPath, unused: list[Unused]) -> Iterator[str]:
    """The paths of all files, with `/`; what is hidden, and links that lead nowhere or in circles, are noted."""
    seen = 0
    entered: set[AnyPath] = set()
    for root, folders, names in walk(source, follow_links=True):
        relative = root.relative_to(source).as_posix()
        inside = "" if relative == "." else f"{relative}/"
        if (folder := real(root)) in entered:
            unused.append(Unused(inside, "link", "the same folder as another one"))
            folders.clear()
            continue
        entered.add(folder)
        for name in filter(is_hidden, folders):
            unused.append(Unused(f"{inside}{name}/", "hidden", "a folder of a system or a program"))
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        seen += len(names)
        if seen > MOST_FILES:
            raise DataError(f"{source} holds over {MOST_FILES:,} files; give a folder that holds images alone")
        for name in names:
            if is_hidden(name):
                unused.append(Unused(f"{inside}{name}", "hidden", "a file of a system or a program"))
            elif not (root / name).exists():
                unused.append(Unused(f"{inside}{name}", "link", "it leads to no file"))
            else:
                yield f"{inside}{name}"


def _is_table(path: str) -> bool:
    """Whether it is a table of the source itself, which is left to its reader."""
    return "/" not in path and posixpath.splitext(path)[1].lower() in (".csv", ".tsv")


def _other(source: AnyPath, path: str) -> Unused:
    """A file that is no image which is read here, and what it is."""
    suffix = posixpath.splitext(path)[1].lower()
    if suffix in (".xlsx", ".xls", ".ods"):
        return Unused(path, "other_format", "a workbook; save its table as CSV UTF-8")
    if named := name_of_labels(source / path):
        return Unused(path, "other_format", named)
    if suffix in IMAGE_SUFFIXES:
        named = name_of_format(first_bytes(source / path), path)
        return Unused(path, "other_format", named or "not read here; export it as OME-TIFF, a mask as TIFF or PNG")
    if suffix == ".csv":
        return Unused(path, "not_an_image", "a table; counts.csv is read beside the folders, not in them")
    return Unused(path, "not_an_image", NO_IMAGE)


def _beside_masks(path: str) -> str | None:
    """The folder in which the folder of a mask lies; None for what is no mask."""
    parts = path.split("/")[:-1]
    return next(("/".join(parts[:i]) for i, part in enumerate(parts) if _meaning(part) == "mask"), None)


def _place(path: str, beside_masks: set[str]) -> tuple[Place, set[str]]:
    """Where a file lies, and the kinds of its folders."""
    parts = path.split("/")[:-1]
    kinds = {i: _meaning(part, beside_masks="/".join(parts[:i]) in beside_masks) for i, part in enumerate(parts)}
    lineages = tuple(part for i, part in enumerate(parts) if not kinds[i])
    splits = tuple(word for i, part in enumerate(parts) if kinds[i] for word in sorted(_words(part) & SPLITS))
    return Place(path, lineages, splits, _stem(path)), set(kinds.values())


@functools.lru_cache(4096)
def _meaning(folder: str, *, beside_masks: bool = False) -> str:
    """mask, class, image or split; nothing for what may be a lineage. Several such words are one: train_masks."""
    images = IMAGES | (IMAGES_BESIDE_MASKS if beside_masks else frozenset())
    kinds = {"mask": MASKS, "class": CLASSES, "image": images, "split": SPLITS}
    known = frozenset[str]().union(*kinds.values())
    whole = re.sub(r"[\W_]+", "", folder.casefold())
    words = {whole} if whole in known else _words(folder)
    if words & {"mask", "masks"}:  # no lineage is called so, whatever the other words are
        return "mask"
    return next((kind for kind, held in kinds.items() if words <= known and words & held), "")


def _words(folder: str) -> set[str]:
    """The words of a name, without the numbers behind them: train2017 is train."""
    return {word.rstrip("0123456789") or word for word in re.split(r"[\W_]+", folder.casefold())} - {""}


def _stem(path: str) -> str:
    name = unicodedata.normalize("NFC", path.rpartition("/")[2].casefold())
    return without_suffix(name)


def _core(stem: str, words: re.Pattern[str]) -> str:
    """A name without the word at its end or beginning that says what it is."""
    match = words.fullmatch(stem)
    return next(filter(None, match.groups())) if match else stem


def lineage_of(place: Place) -> str | None:
    """The folder's name, unless it says that the lineage is not known."""
    return next((name for name in place.lineages if name.casefold() not in NOT_KNOWN), None)


def nested(place: Place) -> Unused:
    """That an image lies in a folder within the folder of a lineage."""
    return Unused(place.path, "nested", f"a folder in the folder of a lineage; move it up into {place.lineages[0]}/")


def useless_tables(names: Sequence[str], why: str) -> list[Unused]:
    """Tables that a source has no use for."""
    return [Unused(name, "not_an_image", f"a table that is not read here; {why}") for name in names]
