"""What a version learned from, and which frames of a bank it therefore knows."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cellnet.errors import IntegrityError
from cellnet.registry.exchange import export_version, publish_folder
from cellnet.registry.learned import Learned, frames_from_bytes, frames_to_bytes, learned_of
from cellnet.registry.records import LEARNED, Card
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
