"""Images into a bank, decoded in parallel by Ray Data.

A Ray job, like `cellnet bank import`:

    python -m pipelines.ingest SOURCE BANK
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray.data

from cellnet.bank import Bank, Imported, prepare
from cellnet.config import BankSettings
from cellnet.errors import DataError
from cellnet.readers import Options, SourceFrame, read_source
from cellnet.store import Store
from pipelines import cluster
from pipelines.places import Places

Rows = dict[str, Any]


def ingest(
    source: Path, places: Places, *, settings: BankSettings | None = None, options: Options | None = None
) -> tuple[Bank, Imported]:
    """The bank with the source's frames in it, and what came of each image.

    A bad image is set aside. Raises DataError when no image at all could be used; then no bank is made.
    """
    sources = read_source(source, options)
    bank = places.new_bank(settings)
    cluster.connect()
    frames = ray.data.from_items(
        [{"source": frame} for frame in sources], override_num_blocks=cluster.blocks(len(sources))
    )
    prepared = frames.map_batches(_prepare_batch, batch_size=16, fn_kwargs={"store": bank.store}, batch_format="numpy")
    rows = [row["frame"] for row in prepared.take_all()]
    if all(row.set_aside is not None for row in rows):
        raise DataError(
            f"none of the {len(rows)} images of {source} can be used; the first, {rows[0].source}: {rows[0].set_aside}"
        )
    return bank, bank.add(rows)


def _prepare_batch(batch: Rows, store: Store) -> Iterator[Rows]:
    sources: list[SourceFrame] = list(batch["source"])
    frames = np.empty(len(sources), object)
    frames[:] = [prepare(source, store) for source in sources]
    yield {"frame": frames}


if __name__ == "__main__":
    import sys

    from cellnet.cli import main

    sys.exit(main(["bank", "import", *sys.argv[1:]]))
