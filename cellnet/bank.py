"""The image bank: deduplicated frames in a folder or bucket, and the split of every group.

    bank.json              the settings, fixed when the bank is made
    pixels/SHA256.png      grey pixels as recorded, addressed by their content
    tables/000003.parquet  the table of frames; the newest is the bank, created only if absent

An import writes pixels first and commits with one new table, so it is seen whole or not at all, and of two
imports at once the later one adds to the earlier one's table.
"""

import hashlib
import io
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cellnet import images
from cellnet.config import BankSettings, Split
from cellnet.errors import ConfigError, ConflictError, DataError, NotFoundError
from cellnet.readers import SourceFrame
from cellnet.store import Store, open_store


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One field of view: what the bank knows of it. Its pixels are fetched by `Bank.pixels`."""

    frame: str
    """sha256 of the pixels; empty for a frame that was set aside."""
    source: str
    lineage: str | None = None
    count: float | None = None
    centres: list[list[float]] | None = None
    """[x, y] of every cell, in pixels."""
    group: str = ""
    split: Split | None = None
    height: int = 0
    width: int = 0
    bits: int = 0
    darkest: int = 0
    """The smallest grey value as recorded."""
    brightest: int = 0
    pixel_um: float | None = None
    set_aside: str | None = None
    """Why the image is not used; None for a frame in use."""

    @property
    def centres_N2(self) -> NDArray[np.float32] | None:  # noqa: N802 - the shape is part of the name
        """The centres as an array (N, 2), columns x and y."""
        return None if self.centres is None else np.array(self.centres, np.float32).reshape(-1, 2)


SETTINGS_KEY = "bank.json"
SCHEMA = pa.schema(
    [
        ("frame", pa.string()),
        ("source", pa.string()),
        ("lineage", pa.string()),
        ("count", pa.float64()),
        ("centres", pa.list_(pa.list_(pa.float64()))),
        ("group", pa.string()),
        ("split", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("bits", pa.int8()),
        ("darkest", pa.int32()),
        ("brightest", pa.int32()),
        ("pixel_um", pa.float64()),
        ("set_aside", pa.string()),
    ]
)


def prepare(source: SourceFrame, store: Store) -> Frame:
    """Decode one image and store its pixels; what cannot be read comes back set aside, with the reason."""
    name = str(source.path)
    if source.problem:
        return Frame(frame="", source=name, set_aside=source.problem)
    try:
        data = source.path.read_bytes()
    except OSError as error:
        return Frame(frame="", source=name, set_aside=f"cannot be read: {error.strerror}")
    try:
        image_HW = images.decode(data, name=source.path.name)
        source = _with_cells(source, (image_HW.shape[0], image_HW.shape[1]))
    except DataError as error:
        return Frame(frame="", source=name, set_aside=str(error).removeprefix(f"{source.path.name}: "))
    header = f"{image_HW.dtype} {image_HW.shape}".encode()
    digest = hashlib.sha256(header + image_HW.tobytes()).hexdigest()
    store.create(f"pixels/{digest}.png", images.encode_png(image_HW))
    return Frame(
        frame=digest,
        source=name,
        lineage=source.lineage,
        count=source.count,
        centres=None if source.centres is None else [list(point) for point in source.centres],
        group=source.group or digest[:16],
        height=image_HW.shape[0],
        width=image_HW.shape[1],
        bits=image_HW.dtype.itemsize * 8,
        darkest=int(image_HW.min()),
        brightest=int(image_HW.max()),
        pixel_um=source.pixel_um or images.pixel_size_um(data),
    )


def _with_cells(source: SourceFrame, size: tuple[int, int]) -> SourceFrame:
    """The source with the count and the centres of its mask, if it has one."""
    if source.mask is None:
        return source
    try:
        data = source.mask.read_bytes()
    except OSError as error:
        raise DataError(f"{source.mask.name}: cannot be read: {error.strerror}") from error
    centres_N2 = images.cells_of_mask(data, name=source.mask.name, size=size)
    return replace(source, count=float(len(centres_N2)), centres=tuple((x, y) for x, y in centres_N2.tolist()))


def read_pixels(store: Store, frame: Frame) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The grey pixels (H, W) of a frame as recorded. Raises NotFoundError or DataError."""
    return images.decode(store.get(f"pixels/{frame.frame}.png"), name=frame.source)


@dataclass(frozen=True)
class Imported:
    """What an import did."""

    added: int
    known: int
    """Frames whose pixels the bank had already."""
    set_aside: list[Frame]


class Bank:
    """An open bank; `frames` is the state when it was opened or last imported into."""

    def __init__(self, store: Store, settings: BankSettings, frames: list[Frame], number: int) -> None:
        self.store = store
        self.settings = settings
        self._rows = frames
        self._number = number
        self._is_new = True

    @classmethod
    def open(cls, uri: str | Path, *, endpoint_url: str | None = None) -> Self:
        """The bank at a folder or `s3://bucket/prefix`. Raises NotFoundError where there is none."""
        bank = cls.create(uri, endpoint_url=endpoint_url)
        if bank._is_new:
            raise NotFoundError(f"there is no bank at {uri}; make one with: cellnet bank import SOURCE {uri}")
        return bank

    @classmethod
    def create(cls, uri: str | Path, settings: BankSettings | None = None, *, endpoint_url: str | None = None) -> Self:
        """The bank, or an empty one in its place, written with its first frames.

        Raises ConfigError if `settings` differ from those of the bank that is there.
        """
        bank = cls(open_store(uri, endpoint_url=endpoint_url), settings or BankSettings(), [], 0)
        bank._adopt_settings(wanted=settings)
        bank._reload()
        return bank

    @property
    def frames(self) -> list[Frame]:
        """The frames in use."""
        return [row for row in self._rows if row.set_aside is None]

    @property
    def set_aside(self) -> list[Frame]:
        """The images that could not be used, with their reasons."""
        return [row for row in self._rows if row.set_aside is not None]

    @property
    def lineages(self) -> list[str]:
        """The known lineages, sorted: the classes of a classifier."""
        return sorted({frame.lineage for frame in self.frames if frame.lineage is not None})

    @property
    def digest(self) -> str:
        """sha256 over the settings and every frame's pixels, labels and split: what a model was trained on."""
        facts = [
            json.dumps({**asdict(frame), "source": None}, sort_keys=True)
            for frame in sorted(self.frames, key=lambda frame: frame.frame)
        ]
        return hashlib.sha256("\n".join([self.settings.model_dump_json(), *facts]).encode()).hexdigest()

    def split(self, name: Split) -> list[Frame]:
        """The frames on one side of the split."""
        return [frame for frame in self.frames if frame.split == name]

    def pixels(self, frame: Frame) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """The grey pixels (H, W) of a frame as recorded. Raises NotFoundError or DataError."""
        return read_pixels(self.store, frame)

    def add(self, prepared: Sequence[Frame]) -> Imported:
        """Commit prepared frames: the duplicates dropped, new groups given a split, one new table written."""
        if self._is_new and not self.store.create(SETTINGS_KEY, self.settings.model_dump_json(indent=1).encode()):
            self._adopt_settings(wanted=self.settings)  # somebody else's bank, made in the meantime
            self._reload()
        self._is_new = False
        for _ in range(20):
            rows, imported = _merge(self._rows, prepared, self.settings)
            if rows == self._rows:
                return imported
            key = f"tables/{self._number + 1:06d}.parquet"
            data = _to_parquet(rows)
            if self.store.create(key, data):
                self._rows, self._number = _from_parquet(data, key), self._number + 1
                return imported
            self._reload()
        raise ConflictError(f"the bank {self.store.uri} is being changed all the time; import again later")

    def _adopt_settings(self, *, wanted: BankSettings | None) -> None:
        """Take the settings of the bank that is there, if there is one."""
        try:
            settings = BankSettings.model_validate_json(self.store.get(SETTINGS_KEY))
        except NotFoundError:
            return
        except ValueError as error:
            raise DataError(f"{self.store.uri}: its {SETTINGS_KEY} is damaged; import into a new bank") from error
        if wanted not in (None, settings):
            raise ConfigError(
                f"the bank {self.store.uri} has other settings, fixed when it was made; import into a new bank"
            )
        self.settings, self._is_new = settings, False

    def _reload(self) -> None:
        keys = list(self.store.keys("tables/"))
        if keys:
            self._rows = _from_parquet(self.store.get(keys[-1]), keys[-1])
            self._number = int(Path(keys[-1]).stem)


def _merge(rows: list[Frame], prepared: Sequence[Frame], settings: BankSettings) -> tuple[list[Frame], Imported]:
    used = {row.frame: row for row in rows if row.set_aside is None}
    aside = {row.source: row for row in rows if row.set_aside is not None}
    known = 0
    set_aside = []
    for frame in prepared:
        twin = used.get(frame.frame)
        if frame.set_aside is None and twin is not None:
            known += 1
            if (twin.lineage, twin.count) == (frame.lineage, frame.count):
                aside.pop(frame.source, None)
                continue
            frame = replace(
                frame,
                frame="",
                set_aside=f"the same pixels as {twin.source}, with another lineage or count; labels are "
                "fixed at the first import, so import the corrected manifest into a new bank",
            )
        if frame.set_aside is None:
            used[frame.frame] = frame
            aside.pop(frame.source, None)
        else:
            aside[frame.source] = frame
            set_aside.append(frame)
    splits = assign_splits(list(used.values()), settings)
    kept = [replace(frame, split=splits[frame.group]) for frame in used.values()]
    added = len(kept) - sum(row.set_aside is None for row in rows)
    return [*kept, *aside.values()], Imported(added=added, known=known, set_aside=set_aside)


def warnings_of(frames: Sequence[Frame]) -> list[str]:
    """What will hurt a training on these frames, a sentence each."""
    found = []
    groups: dict[str, set[str]] = defaultdict(set)
    for frame in frames:
        groups[frame.lineage or "(not known)"].add(frame.group)
    if alone := sorted(lineage for lineage, names in groups.items() if len(names) == 1):
        found.append(f"{', '.join(alone)}: one group only, so nothing of it is left to test on")
    counted = sum(frame.count is not None for frame in frames)
    if 0 < counted < len(frames):
        found.append(f"{len(frames) - counted} of {len(frames)} frames have no count; a counter leaves them out")
    for what, value_of in FACETS.items():
        holders: dict[object, set[str]] = defaultdict(set)
        for frame in frames:
            if frame.lineage is not None:
                holders[value_of(frame)].add(frame.lineage)
        lineages = set[str]().union(*holders.values())
        apart = sorted(one for one in lineages if all(held == {one} for held in holders.values() if one in held))
        if len(lineages) > 1 and apart:
            names = "every lineage" if len(apart) == len(lineages) else ", ".join(apart)
            found.append(f"{names}: {what} that no other lineage has; a classifier may learn that, not the cells")
    return found


FACETS: Final[dict[str, Callable[[Frame], object]]] = {
    "a plate": lambda frame: frame.group.rpartition("/")[0],
    "a frame size": lambda frame: (frame.height, frame.width),
    "a pixel size": lambda frame: frame.pixel_um,
    "a bit depth": lambda frame: frame.bits,
    "a file format": lambda frame: Path(frame.source).suffix.lower(),
}
"""What may go along with a lineage by accident."""


def assign_splits(frames: Iterable[Frame], settings: BankSettings) -> dict[str, Split]:
    """The split of every group; groups that have one keep it.

    Groups are drawn in a seeded order within their stratum (the lineages that they hold). A stratum's first
    group goes to train, its second to holdout, its third to test; each later one goes where the shares lack
    most, so that shares hold whenever images are added and no group ever moves.
    """
    lineages: dict[str, set[str]] = defaultdict(set)
    splits: dict[str, Split] = {}
    for frame in frames:
        lineages[frame.group].add(frame.lineage or "")
        if frame.split is not None:
            splits[frame.group] = frame.split
    rest = 1 - settings.holdout_share
    shares: dict[Split, float] = {
        "train": rest * (1 - settings.test_share),
        "holdout": settings.holdout_share,
        "test": rest * settings.test_share,
    }
    strata: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for group, names in lineages.items():
        strata[tuple(sorted(names))].append(group)
    for groups in strata.values():
        taken = Counter(splits[group] for group in groups if group in splits)
        for group in sorted((group for group in groups if group not in splits), key=_drawn(settings.seed)):
            split = _next_split(taken, shares)
            splits[group] = split
            taken[split] += 1
    return splits


def _next_split(taken: Counter[Split], shares: dict[Split, float]) -> Split:
    for split in shares:
        if not taken[split]:
            return split
    total = taken.total() + 1
    return max(shares, key=lambda split: shares[split] * total - taken[split])


def _drawn(seed: int) -> Any:
    return lambda group: hashlib.sha256(f"{seed}/{group}".encode()).digest()


def _to_parquet(rows: list[Frame]) -> bytes:
    buffer = io.BytesIO()
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=SCHEMA)
    pq.write_table(table, buffer, write_page_checksum=True)
    return buffer.getvalue()


def _from_parquet(data: bytes, key: str) -> list[Frame]:
    try:
        table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
        return [Frame(**row) for row in table.to_pylist()]
    except (pa.ArrowException, OSError, TypeError, ValueError) as error:
        raise DataError(f"the bank's {key} is damaged; restore it from a copy") from error
