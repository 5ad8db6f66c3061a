"""What a version learned from, and which frames of a bank it therefore knows."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cellnet.bank.bank import Bank
from cellnet.bank.labels import Label
from cellnet.errors import IntegrityError
from cellnet.registry.exchange import export_version, publish_folder
from cellnet.registry.learned import Learned, frames_from_bytes, frames_to_bytes, learned_of, learned_since
from cellnet.registry.records import LEARNED, Card, ModelVersion, Relearned
from cellnet.registry.registry import Registry
from cellnet.registry.upkeep import verify
from tests.factories import frame

NAMES = frozenset(frame(n).frame for n in range(5))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.open(str(tmp_path / "registry"))


def test_the_file_has_32_bytes_a_frame_in_order() -> None:
    data = frames_to_bytes(NAMES)
    assert data == b"".join(sorted(map(bytes.fromhex, NAMES))) and len(data) == 5 * 32
    assert frames_from_bytes(data, "the file") == NAMES


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "0 bytes are no hashes"),
        (frames_to_bytes(NAMES)[:-1], "159 bytes are no hashes of 32 bytes each"),
        (b"\1" * 32 + b"\0" * 32, "its hashes are not in order, each once"),
        (b"\1" * 64, "its hashes are not in order, each once"),
    ],
)
def test_a_file_of_another_size_or_form_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(IntegrityError, match=f"the file is damaged: {said}"):
        frames_from_bytes(data, "the file")


def test_a_version_tells_what_it_learned_from_and_one_of_before_does_not(
    registry: Registry, card: Callable[..., Card]
) -> None:
    told = card().model_copy(update={"batches": ("P1", None)})
    version = registry.publish("regressor", {LEARNED: frames_to_bytes(NAMES)}, told)
    assert learned_of(registry, registry.resolve(version.ref)) == Learned(NAMES, frozenset({"P1", None}))
    assert b"batches" not in registry.record(registry.publish("regressor", {}, card()))
    assert learned_of(registry, registry.resolve("regressor@2")) is None


def test_a_damaged_file_is_found_and_not_brought_in(
    registry: Registry, card: Callable[..., Card], tmp_path: Path
) -> None:
    version = registry.publish("regressor", {LEARNED: b"\1" * 64}, card())
    assert [finding.problem for finding in verify(registry)] == [
        "learned.sha256 of regressor@1 is damaged: its hashes are not in order, each once"
    ]
    with pytest.raises(IntegrityError, match=r"learned.sha256 of regressor@1 is damaged"):
        learned_of(registry, version)
    folder = export_version(registry, version.ref, tmp_path / "exported")
    with pytest.raises(IntegrityError, match=r"learned.sha256 of regressor@1 is damaged"):
        publish_folder(Registry.open(str(tmp_path / "other")), folder)


def test_frames_are_seen_by_their_hash_and_as_near_duplicates_of_frames_of_the_bank() -> None:
    trained, copy, other, plain = (frame(n, fingerprint=letter * 128) for n, letter in enumerate(("a", "a", "5", "")))
    learned = Learned.of([trained, frame(9, fingerprint="5" * 128)])
    bank = [trained, copy, other, plain]
    assert learned.seen(bank, bank) == {trained.frame, copy.frame}
    assert learned.seen([copy, other], bank) == {copy.frame}
    assert learned.seen([copy, other], [copy, other]) == set(), "what it copies is not in this bank"
    assert Learned.of([other, copy]).seen([trained, plain], bank) == {trained.frame}, "whichever came first"


def test_two_new_frames_that_copy_each_other_are_not_seen() -> None:
    trained, one, two = (frame(n, fingerprint=letter * 128) for n, letter in enumerate(("a", "5", "5")))
    assert Learned.of([trained]).seen([one, two], [trained, one, two]) == set()


def test_a_batch_is_new_only_where_all_that_were_learned_from_are_known() -> None:
    learned = Learned.of([frame(1, batch="P1"), frame(2, batch="P2")])
    assert [learned.side(batch) for batch in ("P1", "P3", None)] == ["same", "new", None]
    partly = learned | Learned.of([frame(3)])
    assert partly.frames == {frame(n).frame for n in (1, 2, 3)} and partly.listed_batches == ("P1", "P2", None)
    assert [partly.side(batch) for batch in ("P1", "P3", None)] == ["same", None, None]


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    bank = Bank.create(str(tmp_path / "bank"))
    bank.add([frame(n, count=float(n)) for n in range(1, 4)])
    return bank


def parent_of(registry: Registry, bank: Bank, card: Card) -> ModelVersion:
    """A version that learned from all frames of the bank as it is."""
    told = card.model_copy(update={"bank_digest": bank.digest, "bank_entry": bank.entry})
    files = {LEARNED: frames_to_bytes(set(bank.frames.values("frame")))}
    return registry.publish("m", files, told)


def test_what_was_said_and_what_came_since_a_version_learned_is_told_with_its_entries(
    registry: Registry, bank: Bank, card: Callable[..., Card]
) -> None:
    parent = parent_of(registry, bank, card())
    namer = parent_of(registry, bank, card("classify", classes=["A549"]))
    assert learned_since(registry, parent, bank, bank.frames).told == Relearned(corrected=0, new=0)
    first, second, third = bank.frames
    bank.label([Label(frame=first.frame, count=9.0), Label(frame=second.frame, count=second.count)])
    bank.add([frame(7, count=7.0), frame(8, count=8.0)])
    bank.label([Label(frame=frame(7).frame, count=70.0), Label(frame=third.frame, lineage="VERO6")])
    frames, told = learned_since(registry, parent, bank, bank.usable)
    assert frames == {one.frame for one in (first, frame(7), frame(8))}
    assert told == Relearned(corrected=2, new=1, entries=(2, 4)), "a count that is confirmed teaches nothing"
    assert learned_since(registry, namer, bank, bank.usable).told == Relearned(corrected=2, new=1, entries=(4, 4))
    bank.undo(2)
    assert learned_since(registry, parent, bank, bank.usable).told == Relearned(corrected=1, new=1, entries=(4, 4))


def test_of_another_bank_frames_that_a_version_did_not_learn_from_are_new(
    registry: Registry, bank: Bank, card: Callable[..., Card], tmp_path: Path
) -> None:
    parent = parent_of(registry, bank, card())
    other = Bank.create(str(tmp_path / "other"))
    other.add([frame(1, count=5.0), frame(9, count=9.0)])
    assert learned_since(registry, parent, other, other.frames).told == Relearned(corrected=0, new=1)
