"""Images into a bank, decoded in parallel by Ray Data.

A Ray job, like `cellnet bank import`:

    python -m pipelines ingest SOURCE BANK
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from cellnet.bank.bank import Bank, Imported
from cellnet.bank.columns import Frames
from cellnet.bank.prepare import prepare_all, send_all
from cellnet.config.bank import BankSettings
from cellnet.errors import DataError
from cellnet.images.file import ImageFile
from cellnet.places import Places
from cellnet.readers import LabelledFile, Options, read_source
from cellnet.store.paths import path_at
from cellnet.store.place import PlaceLike, place_of
from pipelines import cluster
from pipelines.sending import chunks_of, spread

CHUNK: Final = 16
"""Images that are read together: what an interruption loses at most, of each worker."""
SENT_BYTES: Final = 64 * 2**20
"""Bytes of images that are sent together, if there are several of them."""
GATHERED: Final = 256
"""Chunks whose rows are put into one piece: a small one takes several times the memory of its rows."""
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

    Names and tables of the source are read here, its images where Ray has its workers; those who do not see them get
    them from here. A bad image is set aside. What was read before an interruption is not read again. Where
    `replacing`, images that an earlier cellnet read otherwise take the place of those. Raises DataError when no image
    at all could be used; then no bank is made.
    """
    files = read_source(path_at(source), options)
    bank = places.new_bank(settings)
    cluster.connect(places.bank, *([place_of(source)] if place_of(source).is_on_s3 else []))
    chunks = list(chunks_of(files, most=CHUNK, most_bytes=SENT_BYTES, bytes_of=_bytes_of))
    prepared = spread(
        chunks,
        _images_of,
        partial(send_all, store=bank.store),
        prepare_all,
        blocks=cluster.blocks(len(chunks)),
        store=bank.store,
    )
    gathered: list[Frames] = []
    pieces: list[Frames] = []
    read_n = 0
    said_s = time.monotonic()
    for frames in prepared:
        pieces.append(frames)
        read_n += len(frames)
        if len(pieces) == GATHERED:
            gathered.append(Frames.joined(pieces).in_one_piece)
            pieces.clear()
        if time.monotonic() - said_s > SAY_S:
            say(f"{read_n:,} of {len(files):,} images read")
            said_s = time.monotonic()
    rows = Frames.joined([*gathered, *pieces])
    if not rows.equal("set_aside", None):
        raise DataError(
            f"no image of {source} can be used; the first of {len(rows)}, {rows[0].source}: {rows[0].set_aside}"
        )
    return bank, replace(bank.add(rows, replacing=replacing), unused=files.unused)


def _bytes_of(file: LabelledFile) -> int:
    """Of a file that may have to be sent to another machine; nobody asks where there is none."""
    return 0 if cluster.is_own() else sum(image.stamp[0] for image in _images_of(file) if image.stamp)


def _images_of(file: LabelledFile) -> list[ImageFile]:
    return [image for image in (file.image, file.mask) if image]
