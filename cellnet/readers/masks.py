"""Frames with instance masks: a folder of images and one of masks beside it, the same name for the same frame.

    images/f1.png          also Images, imgs, JPEGImages, raw …
    masks/f1.png           also Masks, labels, gt, SegmentationObject …; f1_mask.png, f1_cp_masks.png
    train/images/f1.png    folders like train and test are read through; another folder is the lineage
    A549/f1.png            with A549/f1_cp_masks.png beside it

A mask has 0 where there is no cell and a number of its own for every cell. Masks are decoded at import, in parallel;
the count is how many numbers there are, a centre a number's mean (`cellnet.images.masks`).
"""

import posixpath
from collections.abc import Sequence
from typing import Final

from cellnet.errors import DataError
from cellnet.images.file import ImageFile
from cellnet.readers import LabelledFile, Options, Source, Unused, matched
from cellnet.readers.layout import Place, lineage_of, look, nested, pair, splits_of, useless_tables
from cellnet.store.paths import AnyPath

TAKES: Final = frozenset({"lineage_pattern", "group_pattern"})


def accepts(source: AnyPath) -> bool:
    """Whether the source is a folder with masks, by the names of its folders or files."""
    return source.is_dir() and bool(look(source, at_others=False).masks)


def read(source: AnyPath, options: Options) -> Source:
    """Every image with its mask. Raises DataError where no mask is an image's, and for two images of one name."""
    found = look(source)
    _check_names(source, found.images)
    masks, strays = pair(found.images, found.masks)
    if not masks:
        first = f"{source / found.masks[0].path} is the mask of no image ({len(found.masks)} such)"
        raise DataError(f"{first}; name both alike: images/f1.png and masks/f1.png")
    unused = [*found.unused, *splits_of(found.images), *useless_tables(found.tables, "masks give the counts")]
    unused += [Unused(mask.path, "no_mask_image", "it is the mask of no image; name both alike") for mask in strays]
    files = []
    for image in found.images:
        if len(image.lineages) > 1:
            unused.append(nested(image))
            continue
        if image.path not in masks:
            unused.append(Unused(image.path, "no_label", "it has no mask, so its count is not known"))
        files.append(_label(source, image, masks.get(image.path, []), options))
    return Source(files, unused)


def _label(source: AnyPath, image: Place, masks: Sequence[Place], options: Options) -> LabelledFile:
    path = source / image.path
    problem = f"it has several masks, {' and '.join(mask.path for mask in masks)}; keep one" if len(masks) > 1 else None
    return LabelledFile(
        image=ImageFile.at(path),
        lineage=matched(options.lineage_pattern, path.name, "lineage") or lineage_of(image),
        group=matched(options.group_pattern, path.name, "group"),
        mask=ImageFile.at(source / masks[0].path) if masks else None,
        problem=problem,
    )


def _check_names(source: AnyPath, images: Sequence[Place]) -> None:
    """Raise DataError for two images that one mask could be of."""
    first: dict[tuple[tuple[str, ...], str], Place] = {}
    for image in images:
        if (other := first.setdefault((image.folder, image.stem), image)) is not image:
            name = posixpath.basename(image.path)
            raise DataError(f"{source / other.path} and {name} have one name; keep one of them")
