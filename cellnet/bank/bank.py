"""The image bank: deduplicated frames in a folder or bucket, and the split of every group.

    bank.json              the settings, fixed when the bank is made
    pixels/SHA256.png      grey pixels as recorded, addressed by their content
    prepared/KEY.parquet   what some images came to when they were read, for an import that is run again
    parts/SHA256.parquet   rows of the table of frames, and labels that people gave them since
    summaries/KEY.json     what a large bank holds, counted once (cellnet/bank/summary.py)
    log/000003.json        which parts are the bank; the newest counts, created only if absent (cellnet/bank/parts.py)

An import writes pixels first and commits with one new entry of the log, so it is seen whole or not at all, and of two
imports at once the later one adds to what the earlier one made. One that was interrupted goes on where it stopped.
Labels are entries of the same log: what was imported stays as it was, and what counts of a frame is what was said of it
last (cellnet/bank/history.py).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cellnet.bank.columns import Frames
from cellnet.bank.digest import digest_of
from cellnet.bank.duplicates import near_pairs
from cellnet.bank.frames import Frame, read_pixels
from cellnet.bank.history import standing, taken_back, with_labels
from cellnet.bank.labels import Label, Labels, check_points
from cellnet.bank.parts import NOTHING, Moment, State, next_moment, read_state, write_labels, write_state
from cellnet.bank.splits import assign_splits
from cellnet.config.bank import BankSettings
from cellnet.config.choices import Split
from cellnet.config.loading import read_record, record_bytes
from cellnet.errors import ConfigError, ConflictError, DataError, IntegrityError, NotFoundError
from cellnet.images.pixels import Pixels
from cellnet.readers import Unused
from cellnet.store.log import user
from cellnet.store.objects import Store
from cellnet.store.place import PlaceLike, open_store

SETTINGS_KEY: Final = "bank.json"
TRIES: Final = 100
"""How often a change is made anew on what others wrote meanwhile: as many may be at it at once."""


BATCH_OR_TIME: Final = "batch or time"
_Outcome = TypeVar("_Outcome")


@dataclass(frozen=True)
class Imported:
    """What an import did."""

    added: int
    known: int
    """Frames whose pixels the bank had already."""
    set_aside: list[Frame]
    near: Sequence[Frame]
    """Frames added that are nearly the same as another of the bank, their `twin`."""
    otherwise: int = 0
    """Images that come out otherwise than an earlier cellnet read them: set aside, or put in the place of those."""
    sized: int = 0
    """Frames known already whose files tell a pixel size that an earlier cellnet did not see."""
    unused: Sequence[Unused] = ()
    """What of the source was not used; whoever read it adds this."""


class Bank:
    """An open bank; `frames` is the state when it was opened, last written to or refreshed."""

    def __init__(self, store: Store, settings: BankSettings, state: State = NOTHING) -> None:
        self.store = store
        self.settings = settings
        self._is_new = True
        self._as_of: Moment | None = None
        self._digest: str | None = None
        self._adopt(state)

    @classmethod
    def open(cls, place: PlaceLike, *, as_of: Moment | None = None) -> Self:
        """The bank at a place, a folder or `s3://bucket/prefix`; as it was at a moment, where that is told.

        A moment is a time, or the number of an entry of the bank's log. What is opened so cannot be written to. Raises
        NotFoundError where there is no bank, and ConfigError for a moment at which there was none.
        """
        folder = Path(str(place))
        if folder.is_file():
            raise _no_bank(place, is_source=True)
        bank = cls(open_store(place), BankSettings())
        bank._adopt_settings(wanted=None)
        if bank._is_new:
            raise _no_bank(place, is_source=folder.is_dir() and any(folder.iterdir()))
        bank._as_of = as_of
        bank._adopt(read_state(bank.store, as_of=as_of))
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
    def frames(self) -> Frames:
        """The frames in use, with what counts of their labels; those that are unusable too."""
        return self._frames

    @property
    def usable(self) -> Frames:
        """The frames that can teach and score: without those that a label calls unusable."""
        return self.frames.equal("unusable", None)

    @property
    def imported(self) -> Frames:
        """The same frames as they came in, without any label."""
        return self._imported

    @property
    def labels(self) -> Labels:
        """All that was said of frames since they came, the oldest first; also what was taken back."""
        return self._state.labels

    @property
    def entry(self) -> int:
        """The number of the newest entry of its log; 0 where there is none."""
        return self._state.entry

    @property
    def set_aside(self) -> Frames:
        """The images that could not be used, with their reasons."""
        return self._set_aside

    @property
    def lineages(self) -> list[str]:
        """The known lineages, sorted: the classes of a classifier."""
        return sorted(lineage for (lineage,) in self.usable.counted("lineage") if lineage is not None)

    @property
    def digest(self) -> str:
        """sha256 over the settings and every frame's pixels, labels and split: what a model was trained on."""
        if self._digest is None:
            self._digest = digest_of(self.settings, self.frames)
        return self._digest

    def as_it_was(self, entry: int) -> "Bank":
        """The same bank as it was after an entry of its log, to be read. Raises ConfigError where it has no such."""
        before = type(self)(self.store, self.settings)
        before._as_of = entry
        before._adopt(read_state(self.store, as_of=entry))
        return before

    def split(self, name: Split) -> Frames:
        """The frames on one side of the split."""
        return self.frames.equal("split", name)

    def pixels(self, frame: Frame) -> Pixels:
        """The grey pixels (H, W) of a frame as recorded. Raises NotFoundError or DataError."""
        return read_pixels(self.store, frame)

    def add(self, prepared: Iterable[Frame], *, replacing: bool = False) -> Imported:
        """Commit prepared frames: the duplicates dropped, new groups given a split, one entry added to the log.

        Where `replacing`, what comes out otherwise than an earlier cellnet read it takes the place of that. Raises
        ConfigError for a bank that holds what this cellnet does not know and would lose.
        """
        self._check_newest()
        if self._is_new and not self.store.create(SETTINGS_KEY, record_bytes(self.settings)):
            self._adopt_settings(wanted=self.settings)  # somebody else's bank, made in the meantime
            self.refresh()
        self._is_new = False
        prepared = Frames.of(prepared)

        def write() -> tuple[State | None, Imported]:
            labelled = {frame.frame: frame for frame in self._labelled()}
            rows, imported = _merge(self._imported, self._set_aside, prepared, self.settings, replacing, labelled)
            otherwise = _read_otherwise(self._imported, prepared) if replacing else {}
            said = _said_again(self.labels, otherwise, self._state.entry + 1)
            return write_state(self.store, self._state, rows, said), imported

        return self._commit(write)

    def label(self, labels: Iterable[Label], *, by: str = "", why: str = "") -> int:
        """Write down what people say of frames: one entry of the log, whose number this is.

        `by` and `why` say who and why, where a label does not; empty, `by` is who runs this. All is seen or nothing,
        nothing that was said before is lost, and of two who write at once each gets a number. Raises DataError for a
        frame that the bank lacks and for points outside a frame, and ConfigError for a bank that holds what this
        cellnet does not know.
        """
        self._check_newest()
        given = list(labels)
        by = by or user()
        if not given:
            raise DataError("no labels were given")

        def write() -> tuple[State | None, int]:
            _check_labels(given, self._imported)
            at, entry = next_moment(self._state), self._state.entry + 1
            said = []
            for label in given:
                whose = {"by": label.by or by, "why": label.why or why, "at": label.at or at}
                said.append(label.model_copy(update={**whose, "entry": entry}))
            return write_labels(self.store, self._state, Labels.of(said), by=by, why=why, at=at), entry

        return self._commit(write)

    def undo(self, entry: int, *, by: str = "", why: str = "") -> int:
        """Take back the labels of an entry by a new one, whose number this is; which can be taken back likewise.

        Raises ConfigError for an entry that has no labels, or whose labels were taken back already.
        """
        self._check_newest()
        by = by or user()

        def write() -> tuple[State | None, int]:
            _check_undo(entry, self.labels, self.entry)
            at, number = next_moment(self._state), self._state.entry + 1
            frames = dict.fromkeys(self.labels.of_entry(entry).table.column("frame").to_pylist())
            said = Labels.of(Label(frame=frame, undoes=entry, by=by, why=why, at=at, entry=number) for frame in frames)
            return write_labels(self.store, self._state, said, by=by, why=why, at=at, undoes=entry), number

        return self._commit(write)

    def refresh(self) -> None:
        """Take what others wrote meanwhile; of parts only those are read that are new."""
        state = read_state(self.store, self._state, as_of=self._as_of)
        if state is not self._state:
            self._adopt(state)

    def _commit(self, write: Callable[[], tuple[State | None, _Outcome]]) -> _Outcome:
        """What `write` comes to on the bank as it is: once more, where somebody else was first."""
        for _ in range(TRIES):
            state, outcome = write()
            if state is not None:
                if state is not self._state:
                    self._adopt(state)
                return outcome
            self.refresh()
        raise ConflictError(f"the bank {self.store.uri} is being changed all the time; try again later")

    def _check_newest(self) -> None:
        """Raise ConfigError for a bank that was opened as it was."""
        if self._as_of is not None:
            raise ConfigError(f"{self.store.uri} was opened as it was, and only as it is can it be written to")

    def _labelled(self) -> Frames:
        """The frames of which a label says something, as they are with it."""
        return self._frames.named_by("frame", set(self.labels.table.column("frame").to_pylist()))

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
        self._state, rows, self._digest = state, state.rows, None
        self._imported, self._set_aside = rows.equal("set_aside", None), rows.known("set_aside")
        self._frames = with_labels(self._imported, state.labels)


def _no_bank(place: PlaceLike, *, is_source: bool) -> NotFoundError:
    """How to make a bank: in the place of none, or of the images or the manifest that lie in its place."""
    if is_source:
        return NotFoundError(f"{place} is no bank; make one of it with: cellnet bank import {place} bank")
    return NotFoundError(f"there is no bank at {place}; make one with: cellnet bank import SOURCE {place}")


def _check_labels(labels: Sequence[Label], frames: Frames) -> None:
    """Raise DataError where a frame of a label is not of the bank, or a point not of its frame."""
    names = pa.array([label.frame for label in labels], pa.string())
    places = pc.index_in(names, value_set=frames.column("frame").combine_chunks()).to_pylist()
    missing = [label.frame for label, place in zip(labels, places, strict=True) if place is None]
    if missing:
        raise DataError(
            f"the bank has no frame {missing[0]}{f' and {len(missing) - 1} more' if missing[1:] else ''}; import its "
            "image first"
        )
    for label, place in zip(labels, places, strict=True):
        if label.points:
            check_points(label, frames[place])


def _check_undo(entry: int, labels: Labels, newest: int) -> None:
    """Raise ConfigError where an entry has no labels that count."""
    if not labels.of_entry(entry):
        what = "is an import, which is not undone" if 0 < entry <= newest else "is not there"
        raise ConfigError(f"the entry {entry} {what}; cellnet bank labels lists the entries that have labels")
    if by := taken_back(labels).get(entry):
        raise ConfigError(f"the entry {entry} was undone already, by {by}; to have it back, undo {by}")


def _merge(
    frames: Frames,
    aside: Frames,
    prepared: Frames,
    settings: BankSettings,
    replacing: bool,
    labelled: Mapping[str, Frame],
) -> tuple[Frames, Imported]:
    """All rows with the prepared ones, and what came of these; `labelled` are frames as their labels say them."""
    otherwise = _read_otherwise(frames, prepared)
    again = {frame.source for frame in otherwise.values()}
    if replacing:
        frames = _replaced(frames, otherwise)
        aside = aside.where(pc.invert(pc.is_in(aside.column("source"), pa.array(again, pa.string()))))
        again = set()
    kept_aside = {frame.source: frame for frame in aside}
    is_ok = pc.is_null(prepared.column("set_aside"))
    is_again = pc.is_in(prepared.column("source"), pa.array(again, pa.string()))
    refused = {int(place): prepared[int(place)] for place in _places(pc.invert(is_ok))}
    for place in map(int, _places(pc.and_(is_ok, is_again))):
        reason = "comes out otherwise than an earlier cellnet read it; --replace puts it in the place of that"
        refused[place] = replace(prepared[place], frame="", set_aside=reason)
    candidates_N = _places(pc.and_(is_ok, pc.invert(is_again)))
    candidates = prepared.at(candidates_N)
    new_N, same_N = _known(frames, candidates)
    both = Frames.joined([frames, candidates.at(np.flatnonzero(new_N))])
    changed: dict[int, Frame] = {}
    known, sized = 0, 0
    known_K = np.flatnonzero(~new_N)
    for k, frame, first in zip(known_K.tolist(), candidates.each(known_K), both.each(same_N[known_K]), strict=True):
        place = int(same_N[k])
        same = changed.get(place, first)
        known += 1
        another = _contradicted(same, frame)
        if another and same.frame in labelled and not _contradicted(labelled[same.frame], frame):
            another = ""  # what a label says of it by now
        if another:
            mend = (
                "these are fixed at the first import, so import it into a new bank"
                if another == BATCH_OR_TIME
                else "say what is right by: cellnet bank label"
            )
            reason = f"the same pixels as {same.source}, with another {another}; {mend}"
            refused[int(candidates_N[k])] = replace(frame, frame="", set_aside=reason)
            continue
        told = _told_more(same, frame)
        if told != same:
            changed[place] = told
        sized += told.pixel_um != same.pixel_um
        kept_aside.pop(frame.source, None)
    kept, crossing = _with_splits(both.with_frames(changed), len(frames), settings)
    added = kept[len(frames) :]
    if kept_aside:
        for source in added.values("source"):
            kept_aside.pop(source, None)
    refused_now = [*(refused[place] for place in sorted(refused)), *crossing]
    kept_aside |= {frame.source: frame for frame in refused_now}
    imported = Imported(
        added=len(added),
        known=known,
        set_aside=refused_now,
        near=added.known("twin"),
        otherwise=len(otherwise),
        sized=sized,
    )
    return Frames.joined([kept, Frames.of(kept_aside.values())]), imported


def _said_again(labels: Labels, otherwise: Mapping[str, Frame], entry: int) -> Labels:
    """What counts of the labels of frames whose places others take, said of these; points as far as they have them."""
    table = standing(labels).table
    said = []
    for label in Labels(table.filter(pc.is_in(table.column("frame"), pa.array(otherwise, pa.string())))):
        frame = otherwise[label.frame]
        again = label.model_copy(update={"frame": frame.frame, "entry": entry})
        try:
            check_points(again, frame)
        except DataError:
            again = again.model_copy(update={"points": None})
        said.append(again)
    return Labels.of(said)


def _places(mask: Any) -> NDArray[np.int64]:
    """Where an Arrow mask is true."""
    return np.flatnonzero(np.asarray(mask))


def _known(frames: Frames, more: Frames) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which of more frames (M,) are new, and where each stands among the frames with the new ones behind them."""
    coded = more.column("frame").combine_chunks().dictionary_encode()
    code_N = pc.index_in(frames.column("frame"), value_set=coded.dictionary)  # the few are looked up by the many
    place_K = _places(pc.is_valid(code_N))
    same_C = np.full(len(coded.dictionary), -1)
    same_C[code_N.drop_null().to_numpy()] = place_K
    codes_M = coded.indices.to_numpy()
    _, first_C = np.unique(codes_M, return_index=True)  # codes are in the order in which they come first
    is_new_C = same_C < 0
    same_C[is_new_C] = len(frames) + np.arange(is_new_C.sum())
    new_M = np.zeros(len(more), bool)
    new_M[first_C[is_new_C]] = True
    return new_M, same_C[codes_M]


def _contradicted(frame: Frame, again: Frame) -> str:
    """What is said otherwise of a frame that comes again, in words; empty where nothing is."""
    if (frame.lineage, frame.count) != (again.lineage, again.count):
        return "lineage or count"
    said = [(frame.batch, again.batch), (frame.time_h, again.time_h)]
    return BATCH_OR_TIME if any(None not in pair and pair[0] != pair[1] for pair in said) else ""


def _told_more(frame: Frame, again: Frame) -> Frame:
    """The frame with batch and time that were not known of it, and what an earlier reader did not see or measure."""
    later = {name: getattr(again, name) for name in ("batch", "time_h") if getattr(frame, name) is None}
    if frame.form != again.form:
        later |= {"form": again.form, "pixel_um": again.pixel_um or frame.pixel_um}
    if frame.structure is None:
        later |= {name: getattr(again, name) for name in ("focus", "brightest_share", "structure")}
    return replace(frame, **later)


def _read_otherwise(frames: Frames, prepared: Frames) -> dict[str, Frame]:
    """What files come to now whose frames an earlier cellnet read, by the names of those, where it is not the same."""
    earlier = frames.named_by("source", prepared.values("source")).misread
    if not earlier:
        return {}
    names = dict(zip(earlier.values("source"), earlier.values("frame"), strict=True))
    is_known = pc.is_in(prepared.column("frame"), frames.column("frame").combine_chunks())
    is_one = pc.and_(pc.is_null(prepared.column("set_aside")), pc.invert(is_known))
    is_one = pc.and_(is_one, pc.is_in(prepared.column("source"), pa.array(names, pa.string())))
    return {names[frame.source]: frame for frame in prepared.where(is_one)}


def _replaced(frames: Frames, otherwise: Mapping[str, Frame]) -> Frames:
    """The frames, others in the places of some, on the same side of the split."""
    renamed = {name: frame.frame for name, frame in otherwise.items()}
    gone = pa.array(otherwise, pa.string())
    is_one = pc.or_(pc.is_in(frames.column("frame"), gone), pc.is_in(frames.column("twin"), gone))

    def kept(frame: Frame) -> Frame:
        twin = renamed.get(frame.twin or "", frame.twin)
        new = otherwise.get(frame.frame)
        return replace(new or frame, group=frame.group, split=frame.split, twin=twin)

    place_of: dict[str, int] = {}
    others: dict[int, Frame] = {}
    stays_N = np.ones(len(frames), bool)
    for place in _places(is_one).tolist():
        frame = kept(frames[place])
        first = place_of.setdefault(frame.frame, place)  # of two files that come to the same pixels the frames are one
        others[first] = frame
        stays_N[place] = first == place
    return frames.with_frames(others).where(pa.array(stays_N))


def _with_splits(frames: Frames, before_n: int, settings: BankSettings) -> tuple[Frames, list[Frame]]:
    """The frames with a split, of which the first `before_n` have one, and the new ones that must be set aside.

    Copies of a frame stay on its side of the split. One whose own group is on another side is set aside.
    """
    before, new = frames[:before_n], frames[before_n:]
    pairs = near_pairs(frames.column("fingerprint"), start=before_n)
    paired = sorted({place for pair in pairs for place in pair})
    group_of = dict(zip(paired, frames.at(paired).values("group"), strict=True))
    splits = assign_splits(frames, settings, near=[(group_of[i], group_of[j]) for i, j in pairs])
    new = new.with_values("split", pa.array([splits[group] for group in new.values("group")], pa.string()))
    frames = Frames.joined([before, new])
    side_of = {place: splits[group] for place, group in group_of.items()}
    twins = new.values("twin")
    names = dict(zip(paired, frames.at(paired).values("frame"), strict=True))
    crossing: dict[int, Frame] = {}
    for earlier, later in pairs:
        if earlier in crossing or later in crossing:
            continue
        if side_of[earlier] == side_of[later]:
            twins[later - before_n] = twins[later - before_n] or names[earlier]
        else:
            first, copy = frames[earlier], frames[later]
            reason = (
                f"nearly the same as {first.source} of the {first.split} split, while its group {copy.group} "
                f"is in {copy.split}; leave it out, as it would leak"
            )
            crossing[later] = replace(copy, frame="", split=None, twin=None, set_aside=reason)
    frames = Frames.joined([before, new.with_values("twin", pa.array(twins, pa.string()))])
    is_kept_N = np.ones(len(frames), bool)
    is_kept_N[list(crossing)] = False
    return frames.where(pa.array(is_kept_N)) if crossing else frames, list(crossing.values())
