"""Images into a bank, decoded in parallel by Ray Data.

A Ray job, like `cellnet bank import`:

    python -m pipelines ingest SOURCE BANK
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import ray.data

from cellnet.bank.bank import Bank, Imported
from cellnet.bank.frames import Frame
from cellnet.bank.prepare import prepare_all
from cellnet.config.bank import BankSettings
from cellnet.errors import DataError
from cellnet.places import Places
from cellnet.readers import Options, read_source
from cellnet.store.objects import Store
from cellnet.store.paths import path_at
from cellnet.store.place import PlaceLike, place_of
from pipelines import cluster

CHUNK: Final = 16
"""Images that are read together: what an interruption loses at most, of each worker."""
SAY_S: Final = 10.0
"""How often progress is told, in seconds."""


def ingest(
    source: PlaceLike,
    places: Places,
    *,
    settings: BankSettings | None = None,
    options: Options | None = None,
    replacing: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Bank, Imported]:
    """The bank with the source's frames in it, what came of each image, and what of the source was not used.

    Names and tables of the source are read here, its images where Ray has its workers. A bad image is set aside. What
    was read before an interruption is not read again. Where `replacing`, images that an earlier cellnet read otherwise
    take the place of those. Raises DataError when no image at all could be used; then no bank is made.
    """
    files = read_source(path_at(source), options)
    bank = places.new_bank(settings)
    cluster.connect(places.bank, place_of(source))
    chunks = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
    prepared = ray.data.from_items(
        [{"files": chunk} for chunk in chunks], override_num_blocks=cluster.blocks(len(chunks))
    ).map(_prepare_chunk, fn_kwargs={"store": bank.store})
    rows: list[Frame] = []
    said_s = time.monotonic()
    for done in prepared.iter_rows():
        rows += done["frames"]
        if time.monotonic() - said_s > SAY_S:
            say(f"{len(rows):,} of {len(files):,} images read")
            said_s = time.monotonic()
    if all(row.set_aside is not None for row in rows):
        raise DataError(
            f"no image of {source} can be used; the first of {len(rows)}, {rows[0].source}: {rows[0].set_aside}"
        )
    return bank, replace(bank.add(rows, replacing=replacing), unused=files.unused)


def _prepare_chunk(row: dict[str, Any], store: Store) -> dict[str, Any]:
    return {"frames": prepare_all(row["files"], store)}
