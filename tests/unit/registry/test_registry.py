"""The registry in a folder: numbers, aliases, races, crashes and damage."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cellnet.certainty.calibration import Calibration
from cellnet.config.loading import place_at
from cellnet.errors import ConfigError, ConflictError, IntegrityError, LaterError, NotFoundError, RegistryError
from cellnet.registry.records import ONNX, Card, Evidence, parse_ref
from cellnet.registry.registry import PUBLISH_S, Registry
from cellnet.registry.upkeep import verify
from cellnet.store.folder import FolderStore
from cellnet.untrusted import WEIGHTS


class Interrupted(FolderStore):
    """A folder in which something happens just before a key of some kind is created."""

    def __init__(self, folder: Path, before: str, event: Callable[[], object]) -> None:
        super().__init__(folder)
        self.before, self.event = before, event

    def create(self, key: str, data: bytes) -> bool:
        if self.before in key:
            self.before = "nothing more"
            self.event()
        return super().create(key, data)


def crash() -> None:
    raise RegistryError("the plug was pulled")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.open(str(tmp_path))


@pytest.fixture
def publish(registry: Registry, card: Callable[..., Card]) -> Callable[..., str]:
    """`publish(b"weights")` publishes a version of `regressor`, and gives its reference."""

    def one(weights: bytes = b"weights", name: str = "regressor") -> str:
        return registry.publish(name, {WEIGHTS: weights}, card()).ref

    return one


def test_versions_are_numbered_and_read_back(registry: Registry, publish: Callable, card: Callable) -> None:
    assert [publish(b"one"), publish(b"two"), publish(b"x", "other")] == ["regressor@1", "regressor@2", "other@1"]
    first = registry.resolve("regressor@1")
    assert registry.read(first, WEIGHTS) == b"one"
    assert first.card == card()


def test_what_a_training_of_a_name_has_published_is_found_among_the_newest(
    registry: Registry, publish: Callable, card: Callable
) -> None:
    registry.publish("regressor", {}, card().model_copy(update={"once": "a1"}))
    publish()
    found = registry.published_once("regressor", "a1")
    assert found and found.ref == "regressor@1" and registry.published_once("regressor", "a2") is None
    assert registry.published_once("other", "a1") is None
    assert b'"once"' not in registry.record(registry.resolve("regressor@2")), "older readers see nothing new"


def test_the_same_weights_are_stored_once(registry: Registry, publish: Callable) -> None:
    publish(), publish()
    assert len(list(registry.store.keys("regressor/blobs/"))) == 1


def test_eight_publishers_at_once_get_eight_numbers(registry: Registry, publish: Callable) -> None:
    with ThreadPoolExecutor(8) as pool:
        refs = list(pool.map(lambda n: publish(b"%d" % n), range(8)))
    assert sorted(refs) == [f"regressor@{n}" for n in range(1, 9)]
    for n, ref in enumerate(refs):
        assert registry.read(registry.resolve(ref), WEIGHTS) == b"%d" % n


def test_a_publisher_who_crashes_leaves_no_version(tmp_path: Path, card: Callable) -> None:
    broken = Registry(Interrupted(tmp_path, "/versions/", crash))
    with pytest.raises(RegistryError, match="plug"):
        broken.publish("regressor", {WEIGHTS: b"x"}, card())
    assert list(broken.versions()) == []
    assert broken.publish("regressor", {WEIGHTS: b"x"}, card()).ref == "regressor@1"


def test_an_alias_moves_only_by_promotion_and_keeps_its_history(registry: Registry, publish: Callable) -> None:
    publish(), publish(), publish()
    registry.promote("regressor@1", "champion", reason="first")
    registry.promote("regressor@3", "champion")
    assert registry.resolve("regressor:champion").ref == "regressor@3"
    history = registry.history("regressor", "champion")
    assert [(move.entry, move.number, move.previous, move.reason) for move in history] == [
        (1, 1, None, "first"),
        (2, 3, 1, ""),
    ]


def test_promoting_what_is_champion_already_writes_nothing(registry: Registry, publish: Callable) -> None:
    publish()
    assert registry.promote("regressor@1", "champion") == registry.promote("regressor@1", "champion")
    assert len(registry.history("regressor", "champion")) == 1


def test_a_rollback_points_back_and_is_itself_in_the_history(registry: Registry, publish: Callable) -> None:
    publish(), publish()
    registry.promote("regressor@1", "champion")
    with pytest.raises(ConfigError, match="nothing to go back to"):
        registry.rollback("regressor", "champion")
    registry.promote("regressor@2", "champion")
    assert registry.rollback("regressor", "champion").reason == "rollback from regressor@2"
    assert registry.resolve("regressor:champion").ref == "regressor@1"
    assert [move.number for move in registry.history("regressor", "champion")] == [1, 2, 1]


def test_the_loser_of_a_promotion_race_learns_who_won(registry: Registry, publish: Callable, tmp_path: Path) -> None:
    publish(), publish()
    late = Registry(Interrupted(tmp_path, "/aliases/", lambda: registry.promote("regressor@2", "champion")))
    with pytest.raises(ConflictError, match=r"regressor:champion was moved to regressor@2 in the meantime"):
        late.promote("regressor@1", "champion")
    assert registry.resolve("regressor:champion").ref == "regressor@2"


def test_a_rollback_does_not_undo_the_move_of_somebody_else(
    registry: Registry, publish: Callable, tmp_path: Path
) -> None:
    publish(), publish(), publish()
    registry.promote("regressor@1", "champion")
    registry.promote("regressor@2", "champion")
    late = Registry(Interrupted(tmp_path, "/aliases/", lambda: registry.promote("regressor@3", "champion")))
    with pytest.raises(ConflictError, match=r"regressor:champion was moved to regressor@3 in the meantime"):
        late.rollback("regressor", "champion")
    assert registry.resolve("regressor:champion").ref == "regressor@3"


def test_evidence_against_a_champion_that_is_no_more_moves_nothing(registry: Registry, publish: Callable) -> None:
    publish(), publish(), publish()
    registry.promote("regressor@1", "champion")
    evidence = Evidence(
        champion=1, bank="bank", bank_digest="0", split="holdout", unit="tile", score="mae", n=9, groups=3,
        values=(1.0, 2.0), difference=1.0, interval=(0.5, 1.5), same_bank=(True, True),
    )  # fmt: skip
    registry.promote("regressor@2", "champion")
    with pytest.raises(ConflictError, match=r"regressor:champion was moved to regressor@2 in the meantime"):
        registry.promote("regressor@3", "champion", evidence=evidence)
    kept = registry.promote("regressor@3", "champion", evidence=evidence.model_copy(update={"champion": 2}))
    assert registry.history("regressor", "champion")[-1] == kept and kept.evidence is not None
    assert not {"against", "lineage"} & kept.evidence.model_dump().keys(), "an older cellnet reads it too"


def test_what_is_not_there_is_answered_with_what_is(registry: Registry, publish: Callable) -> None:
    def said(ref: str) -> str:
        with pytest.raises(NotFoundError) as caught:
            registry.resolve(ref)
        return str(caught.value)

    assert "it is empty; publish a model" in said("regressor@1")
    publish(), publish()
    registry.promote("regressor@2", "champion")
    assert said("regressor@7").endswith("has no regressor@7; it has regressor@1…2 and regressor:champion")
    assert said("regressor:challenger").endswith("it has regressor@1…2 and regressor:champion")
    assert said("classifier:champion").endswith("it has the models regressor")


@pytest.mark.parametrize("ref", ["regressor", "regressor@0", "regressor@x", "@1", "a:b:c", "../up@1", "a/b@1", "a@1\n"])
def test_a_reference_is_a_name_and_a_number_or_an_alias(ref: str) -> None:
    with pytest.raises(ConfigError, match="write name@7 or name:alias"):
        parse_ref(ref)


@pytest.mark.parametrize("name", ["", "..", "a/b", "über", "a" * 65, "a b", "a\n"])
def test_a_name_that_is_no_safe_key_is_refused(registry: Registry, publish: Callable, name: str) -> None:
    publish()
    with pytest.raises(ConfigError, match="is not a name"):
        publish(name=name)
    with pytest.raises(ConfigError, match="is not a name"):
        registry.promote("regressor@1", name)


def test_versions_are_listed_newest_first_with_their_aliases(registry: Registry, publish: Callable) -> None:
    for _ in range(11):
        publish()
    publish(name="classifier")
    registry.promote("regressor@2", "champion")
    registry.promote("regressor@2", "steady")
    listed = [(one.ref, one.aliases) for one in registry.versions()]
    assert [ref for ref, _ in listed] == ["classifier@1", *(f"regressor@{n}" for n in range(11, 0, -1))]
    assert [(ref, aliases) for ref, aliases in listed if aliases] == [("regressor@2", ["champion", "steady"])]


@pytest.mark.parametrize(
    ("key", "data"),
    [
        ("regressor/versions/000001.json", b"{}"),
        ("regressor/aliases/champion/000001.json", b'{"number": '),
        ("regressor/versions/000001.json", None),  # a copy of version 2
    ],
)
def test_a_damaged_record_is_an_integrity_error(
    registry: Registry, publish: Callable, key: str, data: bytes | None
) -> None:
    publish(), publish()
    registry.promote("regressor@1", "champion")
    registry.store.put(key, data or registry.store.get("regressor/versions/000002.json"))
    with pytest.raises(IntegrityError, match=r"regressor"):
        registry.resolve("regressor:champion")


@pytest.mark.parametrize("address", ["../versions/000001.json", "/etc/passwd", "AB" * 32, "", "ab" * 32 + "\\n"])
def test_a_blob_address_that_leads_elsewhere_is_not_followed(
    registry: Registry, publish: Callable, address: str
) -> None:
    publish()
    key = "regressor/versions/000001.json"
    sha256 = registry.resolve("regressor@1").blobs[WEIGHTS].sha256
    registry.store.put(key, registry.store.get(key).replace(sha256.encode(), address.encode()))
    with pytest.raises(IntegrityError, match=r"regressor@1 in .* is damaged: blobs.weights.safetensors.sha256"):
        registry.resolve("regressor@1")


@pytest.mark.parametrize("size", [-1, 2**40, 10.5, "many"])
def test_a_size_that_no_blob_has_is_refused(registry: Registry, publish: Callable, size: object) -> None:
    publish()
    key = "regressor/versions/000001.json"
    registry.store.put(key, registry.store.get(key).replace(b'"size": 7', f'"size": {size!r}'.encode()))
    with pytest.raises(IntegrityError, match=r"is damaged: "):
        registry.resolve("regressor@1")


@pytest.mark.parametrize("role", ["..", "../out", "/etc/passwd", "a/b", ""])
def test_a_role_that_is_a_path_is_refused(registry: Registry, publish: Callable, role: str) -> None:
    publish()
    key = "regressor/versions/000001.json"
    registry.store.put(key, registry.store.get(key).replace(WEIGHTS.encode(), role.encode()))
    with pytest.raises(IntegrityError, match=r"is damaged: blobs"):
        registry.resolve("regressor@1")


def test_a_blob_that_has_grown_is_not_read(registry: Registry, publish: Callable) -> None:
    version = registry.resolve(publish())
    registry.store.put(f"regressor/blobs/{version.blobs[WEIGHTS].sha256}", b"x" * 1000)
    with pytest.raises(IntegrityError, match="has 1000 bytes, and at most 7 are expected; it was not read"):
        registry.read(version, WEIGHTS)


def test_what_a_version_does_not_hold_is_answered_with_what_it_does(registry: Registry, publish: Callable) -> None:
    with pytest.raises(IntegrityError, match=r"regressor@1 holds no model.onnx; it holds weights.safetensors"):
        registry.read(registry.resolve(publish()), ONNX)


def test_a_damaged_version_is_listed_with_the_others(registry: Registry, publish: Callable) -> None:
    publish(), publish(), publish()
    registry.promote("regressor@2", "champion")
    registry.store.put("regressor/versions/000002.json", b'{"name": "regressor"')
    found = {one.ref: one for one in registry.versions()}
    assert [ref for ref, one in found.items() if one.version] == ["regressor@3", "regressor@1"]
    assert "is damaged" in (found["regressor@2"].problem or "") and found["regressor@2"].aliases == ["champion"]


def test_the_newest_of_each_model_are_listed(registry: Registry, publish: Callable) -> None:
    for _ in range(5):
        publish()
    publish(name="classifier")
    listed = [one.ref for one in registry.versions(newest=2)]
    assert listed == ["classifier@1", "regressor@5", "regressor@4"]
    assert [one.ref for one in registry.versions("regressor", newest=1)] == ["regressor@5"]


def test_a_tag_stays_with_its_version(registry: Registry, publish: Callable) -> None:
    publish(), publish()
    assert registry.tag("regressor@1", "paper-2026", reason="figure 3").fixed
    assert registry.resolve("regressor:paper-2026").ref == "regressor@1"
    assert registry.tag("regressor@1", "paper-2026").reason == "figure 3"  # again, and nothing happens
    with pytest.raises(ConflictError, match=r"regressor:paper-2026 is a tag of regressor@1; choose another name"):
        registry.tag("regressor@2", "paper-2026")
    with pytest.raises(ConfigError, match=r"regressor:paper-2026 is a tag of regressor@1, and does not move"):
        registry.promote("regressor@2", "paper-2026")
    registry.promote("regressor@2", "champion")
    with pytest.raises(ConflictError, match=r"regressor:champion is an alias of regressor@2"):
        registry.tag("regressor@2", "champion")
    assert len(registry.history("regressor", "paper-2026")) == 1


def test_a_publisher_who_was_asleep_looks_after_its_blobs_again(
    tmp_path: Path, card: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asleep(FolderStore):
        def keys(self, prefix: str, *, after: str = "") -> Iterator[str]:
            now = time.time()
            monkeypatch.setattr("time.time", lambda: now + PUBLISH_S + 1)
            for key in list(super().keys("regressor/blobs/")):  # as a gc in between could do
                self.delete(key)
            return super().keys(prefix, after=after)

    registry = Registry(Asleep(tmp_path))
    version = registry.publish("regressor", {WEIGHTS: b"x"}, card())
    assert Registry(FolderStore(tmp_path)).read(version, WEIGHTS) == b"x"


def test_publishing_over_a_damaged_blob_mends_it(registry: Registry, publish: Callable) -> None:
    publish()
    key = f"regressor/blobs/{registry.resolve('regressor@1').blobs[WEIGHTS].sha256}"
    for damage in (b"rotten", b"", b"longer than it was"):
        registry.store.put(key, damage)
        ref = publish()
        assert registry.read(registry.resolve(ref), WEIGHTS) == b"weights"


def test_a_promotion_that_was_decided_on_an_older_move_is_a_conflict(registry: Registry, publish: Callable) -> None:
    publish(), publish()
    registry.promote("regressor@1", "champion", after=0)
    for after in (0, 2):
        with pytest.raises(ConflictError, match=r"regressor:champion was moved to regressor@1 in the meantime"):
            registry.promote("regressor@2", "champion", after=after)
    assert registry.promote("regressor@2", "champion", after=1).entry == 2


def test_what_others_leave_in_a_folder_is_nobodys(registry: Registry, publish: Callable, tmp_path: Path) -> None:
    publish()
    registry.promote("regressor@1", "champion")
    for name in (".DS_Store", "regressor/versions/.DS_Store", "regressor/aliases/champion/Thumbs.db",
                 "regressor/versions/1000000.json", "regressor/versions/000002.json~"):  # fmt: skip
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "regressor/aliases/empty").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "out").symlink_to("/etc")
    assert [one.ref for one in registry.versions()] == ["regressor@1"] and registry.aliases("regressor") == ["champion"]
    assert len(registry.history("regressor", "champion")) == 1
    assert [finding.what for finding in verify(registry)] == ["regressor@1", "regressor:champion"]
    assert publish() == "regressor@2"


def test_the_last_number_is_the_last(registry: Registry, publish: Callable) -> None:
    publish()
    registry.promote("regressor@1", "champion")
    for log in ("versions", "aliases/champion"):
        for number in (999_998, 999_999):
            record = registry.store.get(f"regressor/{log}/000001.json").replace(b'"entry": 1', b'"entry": %d' % number)
            registry.store.put(f"regressor/{log}/{number}.json", record)
    with pytest.raises(RegistryError, match=r"regressor has 999,999 versions, and no number is left: .* or remove "):
        publish()
    registry.store.put("regressor/versions/000002.json", registry.store.get("regressor/versions/000001.json")
                       .replace(b'"number": 1', b'"number": 2'))  # fmt: skip
    with pytest.raises(RegistryError, match=r"regressor:champion has moved 999,999 times, and no number is left: take"):
        registry.promote("regressor@2", "champion")


@pytest.mark.parametrize("data", [b"", b"of another program", None])
def test_a_stray_high_number_blocks_nobody(registry: Registry, card: Callable[..., Card], data: bytes | None) -> None:
    registry.publish("regressor", {}, card())
    registry.promote("regressor@1", "champion")
    for log in ("versions", "aliases/champion"):
        copy = registry.store.get(f"regressor/{log}/000001.json")
        registry.store.put(f"regressor/{log}/999999.json", copy if data is None else data)
    here = registry.fresh()
    assert here.resolve("regressor:champion").ref == "regressor@1"
    assert here.publish("regressor", {}, card()).ref == "regressor@2"
    assert here.promote("regressor@2", "champion").entry == 2
    assert [one.ref for one in registry.fresh().versions()] == ["regressor@2", "regressor@1"]
    assert [move.number for move in registry.fresh().history("regressor", "champion")] == [1, 2]
    assert [finding.problem for finding in verify(registry.fresh())] == [None] * 3
    assert here.rollback("regressor", "champion").number == 1


COPIES = {
    "another number": ("regressor", "champion", 1),
    "another alias": ("regressor", "staging", 1),
    "another model": ("other", "champion", 2),
}


@pytest.mark.parametrize(("name", "alias", "entry"), COPIES.values(), ids=COPIES)
def test_a_copied_move_is_refused_by_every_reader(
    registry: Registry, publish: Callable, name: str, alias: str, entry: int
) -> None:
    publish(), publish(), publish(b"x", "other"), publish(b"y", "other")
    for ref in ("regressor@1", "other@1", "other@2"):
        registry.promote(ref, "champion")
    registry.promote("regressor@2", "staging")
    registry.store.put(
        "regressor/aliases/champion/000002.json", registry.store.get(f"{name}/aliases/{alias}/{entry:06d}.json")
    )
    said = rf"champion/000002.json in .* says it is move {entry} of {name}:{alias}; cellnet registry rollback regressor"
    for read in (
        lambda: registry.resolve("regressor:champion"),
        lambda: registry.pointing("regressor", "champion"),
        lambda: registry.promote("regressor@2", "champion"),
        lambda: registry.tag("regressor@2", "champion"),
    ):
        with pytest.raises(IntegrityError, match=said):
            read()
    with pytest.raises(IntegrityError, match="says it is move"):
        registry.history("regressor", "champion")
    assert "rollback regressor champion" in str([finding.problem for finding in verify(registry, "regressor")])
    assert not any("champion" in one.aliases for one in registry.versions("regressor"))


@pytest.mark.parametrize("damaged", [(2,), (2, 3)])
@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b'{"name": "regressor", "alias": "champion", "entry": 0}'])
def test_a_damaged_last_move_is_settled_by_a_rollback(
    registry: Registry, card: Callable[..., Card], damaged: tuple[int, ...], data: bytes
) -> None:
    for _ in range(3):
        registry.promote(registry.publish("regressor", {}, card()).ref, "champion")
    for number in range(damaged[-1] + 1, 4):
        registry.store.delete(f"regressor/aliases/champion/{number:06d}.json")
    for number in damaged:
        registry.store.put(f"regressor/aliases/champion/{number:06d}.json", data)
    here = registry.fresh()
    move = here.rollback("regressor", "champion", reason="a bad disk")
    assert (move.entry, move.number, move.settles) == (damaged[-1] + 1, 1, damaged)
    assert move.reason == f"rollback from move {damaged[-1]}, which is damaged: a bad disk"
    assert here.resolve("regressor:champion").ref == "regressor@1"
    assert here.promote("regressor@3", "champion").previous == 1
    assert [move.number for move in here.history("regressor", "champion")] == [1, 1, 3]
    assert [finding.problem for finding in verify(here)] == [None] * 4


def test_a_move_of_a_later_cellnet_is_not_taken_for_a_damaged_one(registry: Registry, publish: Callable) -> None:
    registry.promote(publish(), "champion")
    registry.store.put("regressor/aliases/champion/000002.json", b'{"format": 2}')
    with pytest.raises(LaterError, match=r"later cellnet \(format 2, this one reads 1\); update cellnet$"):
        registry.rollback("regressor", "champion")


def test_an_alias_without_a_move_that_can_be_read_says_what_to_do(registry: Registry, publish: Callable) -> None:
    registry.promote(publish(), "champion")
    registry.store.put("regressor/aliases/champion/000001.json", b"{}")
    with pytest.raises(ConfigError, match=r"remove regressor/aliases/champion/ from .*, then promote again"):
        registry.rollback("regressor", "champion")
    with pytest.raises(NotFoundError, match="has no regressor:other"):
        registry.rollback("regressor", "other")


def test_a_registry_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="file is a file; give a folder"):
        Registry.open(str(tmp_path / "file"))


def test_what_a_later_cellnet_adds_to_a_version_or_a_move_is_left_alone(registry: Registry, publish: Callable) -> None:
    version = registry.resolve(publish())
    move = registry.promote(version.ref, "champion")
    for key in ("regressor/versions/000001.json", "regressor/aliases/champion/000001.json"):
        stored = json.loads(registry.store.get(key))
        assert stored["format"] == 1
        for part in (stored, stored.get("card", {}), stored.get("card", {}).get("config", {}).get("model", {})):
            part["mood"] = "good"  # a setting that was removed since is as little known
        registry.store.put(key, json.dumps(stored).encode())
    assert registry.resolve("regressor:champion") == version and registry.pointing("regressor", "champion") == move
    assert [move.entry for move in registry.history("regressor", "champion")] == [1]


def test_a_version_of_a_later_format_is_refused_politely_and_the_others_are_listed(
    registry: Registry, publish: Callable
) -> None:
    publish(), publish()
    registry.promote("regressor@1", "champion")
    registry.store.put("regressor/versions/000002.json", b'{"format": 3, "all": "else"}')
    with pytest.raises(IntegrityError) as refused:
        registry.resolve("regressor@2")
    later = "was written by a later cellnet (format 3, this one reads 2); update cellnet"
    assert str(refused.value) == f"regressor@2 in {registry.store.uri} {later}"
    assert [(one.ref, one.problem) for one in registry.versions()] == [
        ("regressor@2", str(refused.value)),
        ("regressor@1", None),
    ]
    registry.store.put("regressor/aliases/champion/000002.json", b'{"format": 2}')
    with pytest.raises(IntegrityError, match=r"later cellnet \(format 2"):
        registry.promote("regressor@1", "champion")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("preprocess.illumination", "shading"),
        ("preprocess.intensity", {"rule": "background", "low": -5.0, "high": 10.0}),
        ("config.model", {"architecture": "efficientnet_lite0"}),
        ("config.folds", "batch"),
    ],
)
def test_a_version_that_cellnets_of_before_would_misread_is_of_a_format_that_they_refuse(
    registry: Registry, card: Callable[..., Card], place: str, value: object
) -> None:
    values = card("count").model_dump()
    place_at(values, place.split("."), value)
    for made in (card("count"), Card.model_validate(values)):
        registry.publish("regressor", {}, made)
    stored = [json.loads(registry.record(registry.resolve(f"regressor@{number}"))) for number in (1, 2)]
    assert [record["format"] for record in stored] == [1, 2]


def test_a_version_whose_counts_are_scaled_is_of_a_format_that_cellnets_of_before_refuse(
    registry: Registry, card: Callable[..., Card]
) -> None:
    scaled = Calibration(tiles=5, frames=5, scale=1.5, offset=0.0)
    for made in (card("count"), card("count").model_copy(update={"calibration": scaled})):
        registry.publish("regressor", {}, made)
    stored = [json.loads(registry.record(registry.resolve(f"regressor@{number}"))) for number in (1, 2)]
    assert [record["format"] for record in stored] == [1, 2]
    assert not {"recount", "scale"} & stored[0]["card"].keys()
    assert registry.resolve("regressor@2").card.calibration == scaled
