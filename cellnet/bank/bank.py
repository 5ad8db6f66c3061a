"""The image bank: deduplicated frames in a folder or bucket, and the split of every group.

    bank.json              the settings, fixed when the bank is made
    pixels/SHA256.png      grey pixels as recorded, addressed by their content
    prepared/KEY.parquet   what some images came to when they were read, for an import that is run again
    parts/SHA256.parquet   rows of the table of frames
    log/000003.json        which parts are the bank; the newest counts, created only if absent (cellnet/bank/parts.py)

An import writes pixels first and commits with one new entry of the log, so it is seen whole or not at all, and of two
imports at once the later one adds to what the earlier one made. One that was interrupted goes on where it stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

from cellnet.bank.digest import digest_of
from cellnet.bank.duplicates import near_pairs
from cellnet.bank.frames import Frame, read_pixels
from cellnet.bank.parts import NOTHING, State, read_state, write_state
from cellnet.bank.splits import assign_splits
from cellnet.config.bank import BankSettings
from cellnet.config.choices import Split
from cellnet.config.loading import read_record, record_bytes
from cellnet.errors import ConfigError, ConflictError, DataError, IntegrityError, NotFoundError
from cellnet.images.pixels import Pixels
from cellnet.readers import Unused
from cellnet.store.objects import Store
from cellnet.store.place import PlaceLike, open_store

SETTINGS_KEY: Final = "bank.json"


@dataclass(frozen=True)
class Imported:
    """What an import did."""

    added: int
    known: int
    """Frames whose pixels the bank had already."""
    set_aside: list[Frame]
    near: list[Frame]
    """Frames added that are nearly the same as another of the bank, their `twin`."""
    otherwise: int = 0
    """Images that come out otherwise than an earlier cellnet read them: set aside, or put in the place of those."""
    sized: int = 0
    """Frames known already whose files tell a pixel size that an earlier cellnet did not see."""
    unused: Sequence[Unused] = ()
    """What of the source was not used; whoever read it adds this."""


class Bank:
    """An open bank; `frames` is the state when it was opened or last imported into."""

    def __init__(self, store: Store, settings: BankSettings, state: State = NOTHING) -> None:
        self.store = store
        self.settings = settings
        self._is_new = True
        self._digest: str | None = None
        self._adopt(state)

    @classmethod
    def open(cls, place: PlaceLike) -> Self:
        """The bank at a place, a folder or `s3://bucket/prefix`. Raises NotFoundError where there is none."""
        bank = cls.create(place)
        if bank._is_new:
            raise NotFoundError(f"there is no bank at {place}; make one with: cellnet bank import SOURCE {place}")
        return bank

    @classmethod
    def create(cls, place: PlaceLike, settings: BankSettings | None = None) -> Self:
        """The bank, or an empty one in its place, written with its first frames.

        Raises ConfigError if `settings` differ from those of the bank that is there.
        """
        bank = cls(open_store(place), settings or BankSettings())
        bank._adopt_settings(wanted=settings)
        bank._adopt(read_state(bank.store))
        return bank

    @property
    def frames(self) -> list[Frame]:
        """The frames in use."""
        return [frame for frame in self._rows if frame.set_aside is None]

    @property
    def set_aside(self) -> list[Frame]:
        """The images that could not be used, with their reasons."""
        return [frame for frame in self._rows if frame.set_aside is not None]

    @property
    def lineages(self) -> list[str]:
        """The known lineages, sorted: the classes of a classifier."""
        return sorted({frame.lineage for frame in self.frames if frame.lineage is not None})

    @property
    def digest(self) -> str:
        """sha256 over the settings and every frame's pixels, labels and split: what a model was trained on."""
        if self._digest is None:
            self._digest = digest_of(self.settings, self.frames)
        return self._digest

    def split(self, name: Split) -> list[Frame]:
        """The frames on one side of the split."""
        return [frame for frame in self.frames if frame.split == name]

    def pixels(self, frame: Frame) -> Pixels:
        """The grey pixels (H, W) of a frame as recorded. Raises NotFoundError or DataError."""
        return read_pixels(self.store, frame)

    def add(self, prepared: Sequence[Frame], *, replacing: bool = False) -> Imported:
        """Commit prepared frames: the duplicates dropped, new groups given a split, one entry added to the log.

        Where `replacing`, what comes out otherwise than an earlier cellnet read it takes the place of that. Raises
        ConfigError for a bank that holds what this cellnet does not know and would lose.
        """
        if self._is_new and not self.store.create(SETTINGS_KEY, record_bytes(self.settings)):
            self._adopt_settings(wanted=self.settings)  # somebody else's bank, made in the meantime
            self._adopt(read_state(self.store))
        self._is_new = False
        for _ in range(20):
            rows, imported = _merge(self._rows, prepared, self.settings, replacing)
            state = write_state(self.store, self._state, rows)
            if state is self._state:
                return imported
            if state is not None:
                self._adopt(state)
                return imported
            self._adopt(read_state(self.store))
        raise ConflictError(f"the bank {self.store.uri} is being changed all the time; import again later")

    def _adopt_settings(self, *, wanted: BankSettings | None) -> None:
        """Take the settings of the bank that is there, if there is one."""
        try:
            data = self.store.get(SETTINGS_KEY)
        except NotFoundError:
            return
        try:
            settings = read_record(BankSettings, data, f"{self.store.uri}/{SETTINGS_KEY}")
        except IntegrityError as error:
            raise DataError(str(error)) from error
        if wanted not in (None, settings):
            raise ConfigError(
                f"the bank {self.store.uri} has other settings, fixed when it was made; import into a new bank"
            )
        self.settings, self._digest, self._is_new = settings, None, False

    def _adopt(self, state: State) -> None:
        self._state, self._rows, self._digest = state, state.rows, None


def _merge(
    frames: list[Frame], prepared: Sequence[Frame], settings: BankSettings, replacing: bool
) -> tuple[list[Frame], Imported]:
    otherwise = _read_otherwise(frames, prepared)
    again = {frame.source for frame in otherwise.values()}
    if replacing:
        frames = [one for one in _replaced(frames, otherwise) if one.set_aside is None or one.source not in again]
        again = set()
    used = {frame.frame: frame for frame in frames if frame.set_aside is None}
    aside = {frame.source: frame for frame in frames if frame.set_aside is not None}
    before_n, known, sized = len(used), 0, 0
    refused = []
    for frame in prepared:
        same = used.get(frame.frame)
        if frame.set_aside is not None:
            refused.append(frame)
        elif frame.source in again:
            reason = "comes out otherwise than an earlier cellnet read it; --replace puts it in the place of that"
            refused.append(replace(frame, frame="", set_aside=reason))
        elif same is None:
            used[frame.frame] = frame
        else:
            known += 1
            another = _contradicted(same, frame)
            if not another:
                used[frame.frame] = _told_more(same, frame)
                sized += used[frame.frame].pixel_um != same.pixel_um
                aside.pop(frame.source, None)
                continue
            reason = (
                f"the same pixels as {same.source}, with another {another}; labels are "
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
        otherwise=len(otherwise),
        sized=sized,
    )
    return [*kept, *aside.values()], imported


def _contradicted(frame: Frame, again: Frame) -> str:
    """What is said otherwise of a frame that comes again, in words; empty where nothing is."""
    if (frame.lineage, frame.count) != (again.lineage, again.count):
        return "lineage or count"
    said = [(frame.batch, again.batch), (frame.time_h, again.time_h)]
    return "batch or time" if any(None not in pair and pair[0] != pair[1] for pair in said) else ""


def _told_more(frame: Frame, again: Frame) -> Frame:
    """The frame with the batch and the time that were not known of it, and what an earlier reader did not see."""
    later = {name: getattr(again, name) for name in ("batch", "time_h") if getattr(frame, name) is None}
    if frame.form != again.form:
        later |= {"form": again.form, "pixel_um": again.pixel_um or frame.pixel_um}
    return replace(frame, **later)


def _read_otherwise(frames: list[Frame], prepared: Sequence[Frame]) -> dict[str, Frame]:
    """What files come to now whose frames an earlier cellnet read, by the names of those, where it is not the same."""
    names = {frame.frame for frame in frames}
    earlier = {frame.source: frame.frame for frame in frames if frame.may_be_misread}
    fresh = [frame for frame in prepared if frame.set_aside is None and frame.frame not in names]
    return {earlier[frame.source]: frame for frame in fresh if frame.source in earlier}


def _replaced(frames: list[Frame], otherwise: dict[str, Frame]) -> list[Frame]:
    """The frames, others in the places of some, on the same side of the split."""
    renamed = {name: frame.frame for name, frame in otherwise.items()}

    def kept(frame: Frame) -> Frame:
        twin = renamed.get(frame.twin or "", frame.twin)
        new = otherwise.get(frame.frame)
        return replace(new or frame, group=frame.group, split=frame.split, twin=twin)

    return [kept(frame) for frame in frames]


def _with_splits(frames: list[Frame], before_n: int, settings: BankSettings) -> tuple[list[Frame], list[Frame]]:
    """The frames with a split, of which the first `before_n` have one, and the new ones that must be set aside.

    Copies of a frame stay on its side of the split. One whose own group is on another side is set aside.
    """
    pairs = near_pairs([frame.fingerprint for frame in frames], start=before_n)
    splits = assign_splits(frames, settings, near=[(frames[i].group, frames[j].group) for i, j in pairs])
    sides = [splits[frame.group] for frame in frames]
    kept = {
        i: frame if frame.split == side else replace(frame, split=side)
        for i, (frame, side) in enumerate(zip(frames, sides, strict=True))
    }
    crossing = []
    for earlier, later in pairs:
        if earlier not in kept or later not in kept:
            continue
        first, copy = kept[earlier], kept[later]
        if first.split == copy.split:
            kept[later] = copy if copy.twin else replace(copy, twin=first.frame)
        else:
            reason = (
                f"nearly the same as {first.source} of the {first.split} split, while its group {copy.group} "
                f"is in {copy.split}; leave it out, as it would leak"
            )
            crossing.append(replace(kept.pop(later), frame="", split=None, twin=None, set_aside=reason))
    return list(kept.values()), crossing
