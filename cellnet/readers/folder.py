"""Frames from a folder of one folder a lineage: LINEAGE/*.png (or .tif, .jpg, .bmp). Counts are not known."""

from pathlib import Path

from cellnet.errors import DataError
from cellnet.images import SUFFIXES
from cellnet.readers import Options, SourceFrame

TAKES: frozenset[str] = frozenset()


def accepts(source: Path) -> bool:
    """Whether the source is a folder."""
    return source.is_dir()


def read(source: Path, options: Options) -> list[SourceFrame]:
    """A frame an image file, its lineage the name of its folder. Raises DataError when there is none."""
    frames = [
        SourceFrame(path=path, lineage=folder.name)
        for folder in sorted(path for path in source.iterdir() if path.is_dir())
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in SUFFIXES
    ]
    if not frames:
        raise DataError(f"{source} holds no LINEAGE/*.png; put each lineage's images in a folder of its name")
    return frames
