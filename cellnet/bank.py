"""The image bank: deduplicated frames in a folder or bucket, and the split of every group.

    bank.json              the settings, fixed when the bank is made
    pixels/SHA256.png      grey pixels as recorded, addressed by their content
    prepared/KEY.parquet   what some images came to when they were read, for an import that is run again
    tables/000003.parquet  the table of frames; the newest is the bank, created only if absent

An import writes pixels first and commits with one new table, so it is seen whole or not at all, and of two
imports at once the later one adds to the earlier one's table. One that was interrupted goes on where it stopped.
"""

import hashlib
import io
import json
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cellnet import images
from cellnet.config import BankSettings, Split
from cellnet.duplicates import fingerprint, near_pairs
from cellnet.errors import ConfigError, ConflictError, DataError, NotFoundError
from cellnet.readers import SourceFrame
from cellnet.splits import assign_splits
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
    fingerprint: str = ""
    """The perceptual hash (cellnet/duplicates.py)."""
    twin: str | None = None
    """The `frame` of the first one that is nearly the same."""
    set_aside: str | None = None
    """Why the image is not used; None for a frame in use."""

    @property
    def centres_N2(self) -> NDArray[np.float32] | None:  # noqa: N802 - the shape is part of the name
        """The centres as an array (N, 2), columns x and y."""
        return None if self.centres is None else np.array(self.centres, np.float32).reshape(-1, 2)


HEARSAY: Final = frozenset({"source", "fingerprint", "twin"})
"""Fields that the bank's digest leaves out: they are no part of what a model learns from."""
PREPARED_FORM: Final = 1
"""To be raised when `prepare` makes something else of the same file."""
SETTINGS_KEY: Final = "bank.json"
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
        ("fingerprint", pa.string()),
        ("twin", pa.string()),
        ("set_aside", pa.string()),
    ]
)


def prepare_all(sources: Sequence[SourceFrame], store: Store) -> list[Frame]:
    """Each image as `prepare` gives it, or as it was given when an earlier import read the same unchanged files."""
    facts = [(asdict(source), _stamp(source.path), _stamp(source.mask)) for source in sources]
    recipe = json.dumps([PREPARED_FORM, SCHEMA.names, facts], default=str)
    key = f"prepared/{hashlib.sha256(recipe.encode()).hexdigest()}.parquet"
    try:
        return _from_parquet(store.get(key), key)
    except NotFoundError:
        frames = [prepare(source, store) for source in sources]
        if any(frame.set_aside is None for frame in frames):
            store.create(key, _to_parquet(frames))
        return frames


def _stamp(path: Path | None) -> tuple[int, int] | None:
    """What changes when a file does: its size and the time of its last change."""
    try:
        known = path.stat() if path else None
    except OSError:
        return None
    return (known.st_size, known.st_mtime_ns) if known else None


def prepare(source: SourceFrame, store: Store) -> Frame:
    """Decode one image and store its pixels; what cannot be read comes back set aside, with the reason."""
    name = _text(source.path) if source.page is None else f"{_text(source.path)}#{source.page}"
    if source.problem:
        return Frame(frame="", source=name, set_aside=source.problem)
    try:
        data = source.path.read_bytes()
    except OSError as error:
        return Frame(frame="", source=name, set_aside=f"cannot be read: {error.strerror}")
    try:
        image_HW = images.decode(data, name=source.path.name, page=source.page)
        source = _with_cells(source, (image_HW.shape[0], image_HW.shape[1]))
        _check_centres(source, image_HW.shape)
    except DataError as error:
        return Frame(frame="", source=name, set_aside=str(error).removeprefix(f"{source.path.name}: "))
    header = f"{image_HW.dtype} {image_HW.shape}".encode()
    digest = hashlib.sha256(header + image_HW.tobytes()).hexdigest()
    store.create(f"pixels/{digest}.png", images.encode_png(image_HW))
    return Frame(
        frame=digest,
        source=name,
        lineage=None if source.lineage is None else _text(source.lineage),
        count=source.count,
        centres=None if source.centres is None else [list(point) for point in source.centres],
        group=_text(source.group) if source.group else digest[:16],
        height=image_HW.shape[0],
        width=image_HW.shape[1],
        bits=image_HW.dtype.itemsize * 8,
        darkest=int(image_HW.min()),
        brightest=int(image_HW.max()),
        pixel_um=source.pixel_um or images.pixel_size_um(data),
        fingerprint=fingerprint(image_HW),
    )


def _text(name: str | Path) -> str:
    """The name, with � for what is no UTF-8: old archives hold such names, and tables cannot."""
    return os.fsencode(name).decode(errors="replace")


def _check_centres(source: SourceFrame, size: tuple[int, ...]) -> None:
    """Raise DataError for centres that are no pixels of the frame."""
    height, width = size
    outside = sum(not (0 <= x <= width and 0 <= y <= height) for x, y in source.centres or ())
    if outside:
        raise DataError(
            f"{outside} of its {len(source.centres or ())} centres lie outside its {width}×{height} pixels; give x and "
            "y in pixels from the upper left corner, or no centres"
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
    near: list[Frame]
    """Frames added that are nearly the same as another of the bank, their `twin`."""


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
            json.dumps({name: value for name, value in asdict(frame).items() if name not in HEARSAY}, sort_keys=True)
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
    before_n, known = len(used), 0
    refused = []
    for frame in prepared:
        same = used.get(frame.frame)
        if frame.set_aside is not None:
            refused.append(frame)
        elif same is None:
            used[frame.frame] = frame
        else:
            known += 1
            if (same.lineage, same.count) == (frame.lineage, frame.count):
                aside.pop(frame.source, None)
                continue
            reason = (
                f"the same pixels as {same.source}, with another lineage or count; labels are "
                "fixed at the first import, so import the corrected manifest into a new bank"
            )
            refused.append(replace(frame, frame="", set_aside=reason))
    kept, crossing = _with_splits(list(used.values()), before_n, settings)
    for frame in kept[before_n:]:
        aside.pop(frame.source, None)
    aside |= {frame.source: frame for frame in [*refused, *crossing]}
    imported = Imported(
        added=len(kept) - before_n,
        known=known,
        set_aside=[*refused, *crossing],
        near=[frame for frame in kept[before_n:] if frame.twin],
    )
    return [*kept, *aside.values()], imported


def _with_splits(frames: list[Frame], before_n: int, settings: BankSettings) -> tuple[list[Frame], list[Frame]]:
    """The frames with a split, of which the first `before_n` have one, and the new ones that must be set aside.

    Copies of a frame stay on its side of the split. One whose own group is on another side is set aside.
    """
    pairs = near_pairs([frame.fingerprint for frame in frames], start=before_n)
    splits = assign_splits(frames, settings, near=[(frames[i].group, frames[j].group) for i, j in pairs])
    kept = {i: replace(frame, split=splits[frame.group]) for i, frame in enumerate(frames)}
    crossing = []
    for earlier, later in pairs:
        if earlier not in kept or later not in kept:
            continue
        one, other = kept[earlier], kept[later]
        if one.split == other.split:
            kept[later] = other if other.twin else replace(other, twin=one.frame)
        else:
            reason = (
                f"nearly the same as {one.source} of the {one.split} split, while its group {other.group} "
                f"is in {other.split}; leave it out, as it would leak"
            )
            crossing.append(replace(kept.pop(later), frame="", split=None, twin=None, set_aside=reason))
    return list(kept.values()), crossing


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
    by_name = {frame.frame: frame for frame in frames}
    if copies := [frame for frame in frames if frame.twin]:
        of_them = sum(
            (frame.lineage, frame.count) != (twin.lineage, twin.count)
            for frame in copies
            if (twin := by_name.get(str(frame.twin)))
        )
        labels = f"; {of_them} with another lineage or count, so look at their labels" if of_them else ""
        plural = "s" * (len(copies) > 1)
        found.append(f"{len(copies)} near-duplicate{plural}, kept on one side of the split with what they copy{labels}")
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
