"""The paper's protocol, to be compared with ours: how it splits and what it filters, both of which leak."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from cellnet.bank.frames import Frame
from cellnet.config.choices import Kernel, Split
from cellnet.images.pixels import apply_kernel
from cellnet.training.tiles import Tile

TILES_A_TIME: Final = 16
"""Chosen at once, which is faster and changes no choice."""


@dataclass(frozen=True, kw_only=True)
class Paper:
    """The paper's protocol for a bank.

    After Ferreira & Silveira 2024 (10.1038/s41598-024-59625-z): a tenth of the augmented images held out at random,
    the rest 70/30, and a kernel on four of eight lineages (which four was not at hand). Variants of a frame come to
    lie on all sides, and the kernel tells the lineage.
    """

    holdout_share: float
    test_share: float
    """Of what is not held out."""
    kernel: Kernel
    filtered: frozenset[str]
    """The lineages that get the kernel."""
    seed: int

    def of_split(self, tiles: Iterable[Tile], frame: Frame, split: Split) -> Iterator[Tile]:
        """Those of a frame's tiles that come into a split, with the kernel if the frame's lineage gets it."""
        kernel = self.kernel if frame.lineage in self.filtered else "none"
        for tile, side in zip(tiles, self.splits_of(frame.frame), strict=False):
            if side == split:
                yield replace(tile, pixels_HW=apply_kernel(np.ascontiguousarray(tile.pixels_HW), kernel))

    def splits_of(self, frame: str) -> Iterator[Split]:
        """The split that each tile of a frame comes into by chance, one tile after the other, without end."""
        rng = np.random.default_rng([self.seed, int(frame[:15], 16), 1])
        while True:
            for held_out, tested in rng.random((TILES_A_TIME, 2)) < (self.holdout_share, self.test_share):
                yield "holdout" if held_out else "test" if tested else "train"
