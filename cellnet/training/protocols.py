"""The paper's protocol, to be compared with ours: what it draws and filters, both of which leak."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from cellnet.bank.frames import Frame
from cellnet.config.choices import Kernel, Split
from cellnet.images.pixels import apply_kernel
from cellnet.training.tiles import Tile


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
        """Those of a frame's tiles that are drawn for a split, with the kernel if the frame's lineage gets it."""
        kernel = self.kernel if frame.lineage in self.filtered else "none"
        rng = np.random.default_rng([self.seed, int(frame.frame[:15], 16), 1])
        for tile in tiles:
            held_out, tested = rng.random(2) < (self.holdout_share, self.test_share)
            if split == ("holdout" if held_out else "test" if tested else "train"):
                yield replace(tile, pixels_HW=apply_kernel(np.ascontiguousarray(tile.pixels_HW), kernel))
