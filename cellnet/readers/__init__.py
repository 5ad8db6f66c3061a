"""How images come in: each reader turns a source into `SourceFrame`s. Adding one is adding a file.

A reader is a module with `accepts(source) -> bool` and `read(source) -> list[SourceFrame]`. It looks at tables
and names, not at pixels: decoding happens later, in parallel, one frame at a time.
"""

from dataclasses import dataclass
from pathlib import Path

from cellnet.errors import DataError


@dataclass(frozen=True, kw_only=True)
class SourceFrame:
    """One image file and what its source says of it; None where that is not known."""

    path: Path
    lineage: str | None = None
    count: float | None = None
    centres: tuple[tuple[float, float], ...] | None = None
    """(x, y) of every cell, in pixels."""
    group: str | None = None
    """What must stay on one side of a split: a well, a plate, a recording series."""
    pixel_um: float | None = None
    problem: str | None = None
    """Why this frame cannot be taken, when the source itself is wrong about it."""


def read_source(source: Path) -> list[SourceFrame]:
    """Every frame that a manifest or a folder names. Raises DataError when no reader knows the source."""
    from cellnet.readers import folder, manifest

    if not source.exists():
        raise DataError(f"{source} does not exist; give a manifest.csv or a folder of LINEAGE/*.png")
    for reader in (manifest, folder):
        if reader.accepts(source):
            frames: list[SourceFrame] = reader.read(source)
            return frames
    raise DataError(f"{source} is neither a manifest.csv nor a folder of LINEAGE/*.png")
