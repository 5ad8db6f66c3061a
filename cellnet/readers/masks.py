"""Frames with instance masks: a folder of `images` and a folder of `masks` beside it, the same name for the same frame.

A mask is an image of one channel, 0 where there is no cell and a number of its own for every cell (8, 16 or 32
bits). Masks are decoded at import, in parallel; the count is how many numbers there are, a centre a number's mean.
"""

from pathlib import Path
from typing import Final

from cellnet.errors import DataError
from cellnet.images.file import SUFFIXES, ImageFile
from cellnet.readers import LabelledFile, Options, Source, matched

TAKES: Final = frozenset({"lineage_pattern", "group_pattern"})


def accepts(source: Path) -> bool:
    """Whether the source is a folder with the folders `images` and `masks`."""
    return (source / "images").is_dir() and (source / "masks").is_dir()


def read(source: Path, options: Options) -> Source:
    """Every image with its mask. Raises DataError for none, for two of one name, and for a mask without an image."""
    images = _by_stem(source / "images")
    masks = _by_stem(source / "masks")
    if not images:
        raise DataError(f"{source / 'images'} holds no {', '.join(sorted(SUFFIXES))} file")
    if strays := sorted(masks.keys() - images.keys()):
        raise DataError(f"{masks[strays[0]]} is the mask of no image ({len(strays)} such); name both alike")
    labelled = [
        LabelledFile(
            image=ImageFile.at(path),
            lineage=matched(options.lineage_pattern, path.name, "lineage"),
            group=matched(options.group_pattern, path.name, "group"),
            mask=ImageFile.at(masks[stem]) if stem in masks else None,
        )
        for stem, path in images.items()
    ]
    return Source(labelled)


def _by_stem(folder: Path) -> dict[str, Path]:
    """The image files by their names without suffix."""
    images: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and path != images.setdefault(path.stem, path):
            raise DataError(f"{images[path.stem]} and {path.name} have one name; keep one of them")
    return images
