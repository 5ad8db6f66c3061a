"""What is served follows the registry, whatever happens to the registry."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cellnet.config.train import TrainConfig
from cellnet.errors import ConfigError, IntegrityError, NotFoundError, UnavailableError
from cellnet.registry.registry import Registry
from cellnet.store.folder import FolderStore
from serve import models as shelf_module
from serve.models import Shelf
from tests.factories import publish
from tests.unit.serve.kitchen import Held, Kitchen, client


def served(shelf: Shelf) -> list[str]:
    return [one.ref for one in shelf.champions]


def test_a_moved_alias_is_followed_and_a_rollback_too(registry: Registry) -> None:
    kitchen = Kitchen(registry)
    before = kitchen.shelf.champions
    publish(registry, "count")
    kitchen.shelf.refresh()
    assert served(kitchen.shelf) == ["classifier@1", "regressor@2"]
    assert before.regressor and before.regressor.ref == "regressor@1", "requests that have it go on with it"
    assert kitchen.loaded == ["classifier@1", "regressor@1", "regressor@2"], "the classifier stays as it is"
    registry.rollback("regressor", "champion")
    kitchen.shelf.refresh()
    assert served(kitchen.shelf) == ["classifier@1", "regressor@1"]
    assert kitchen.figure("cellnet_swaps_total", name="regressor") == 2
    assert kitchen.shelf.problems == {} and kitchen.figure("cellnet_stale") == 0


def test_a_registry_that_is_down_leaves_what_was_there_and_is_told(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    kitchen = Kitchen(registry)
    publish(registry, "count")

    def down(*args: object, **options: object) -> None:
        raise UnavailableError("s3://lab does not answer; try again later")

    with monkeypatch.context() as patch:
        patch.setattr(type(registry.store), "keys", down)
        patch.setattr(type(registry.store), "folders", down)
        kitchen.shelf.refresh()
    assert served(kitchen.shelf) == ["classifier@1", "regressor@1"]
    assert "does not answer" in kitchen.shelf.problems["regressor"]
    assert "regressor@1 goes on" in kitchen.shelf.problems["regressor"]
    assert kitchen.figure("cellnet_stale") == 1
    kitchen.shelf.refresh()
    assert served(kitchen.shelf) == ["classifier@1", "regressor@2"] and kitchen.shelf.problems == {}


def test_a_registry_that_neither_answers_nor_fails_is_told(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    kitchen = Kitchen(registry)
    monkeypatch.setattr(shelf_module, "SILENT_S", 0.0)
    assert kitchen.shelf.reasons() == {}, "nobody asks it"
    shelf, inside = kitchen.shelf, Held()
    monkeypatch.setattr(shelf, "_refreshed", lambda: inside() or {})
    asking = threading.Thread(target=shelf.refresh)
    asking.start()
    assert inside.inside.acquire(timeout=20)
    silent = client(kitchen).get("/readyz").json()
    inside.go.set()
    asking.join()
    after = client(kitchen).get("/readyz").json()
    assert (silent["status"], silent["problems"]) == ("stale", ["registry: has not answered for 0 s"])
    assert (after["status"], after["problems"]) == ("ok", [])


@pytest.mark.parametrize("fault", [IntegrityError("model.onnx is damaged"), RuntimeError("no such operator")])
def test_a_version_that_cannot_be_used_leaves_the_old_one_and_is_not_tried_all_the_time(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    kitchen = Kitchen(registry)
    kitchen.spoiled = {"regressor@2": fault}
    publish(registry, "count")
    for _ in range(3):
        kitchen.shelf.refresh()
    assert served(kitchen.shelf) == ["classifier@1", "regressor@1"]
    assert kitchen.loaded.count("regressor@2") == 1
    why = kitchen.shelf.problems["regressor"]
    assert why.startswith("regressor@2 cannot be used: ") and str(fault) in why and "regressor@1 goes on" in why
    monkeypatch.setattr(shelf_module, "RETRY_S", 0)
    kitchen.spoiled = {}
    kitchen.shelf.refresh()
    assert served(kitchen.shelf) == ["classifier@1", "regressor@2"]


def test_a_new_version_that_works_replaces_one_that_did_not(registry: Registry) -> None:
    kitchen = Kitchen(registry)
    kitchen.spoiled = {"regressor@2": IntegrityError("damaged")}
    publish(registry, "count")
    kitchen.shelf.refresh()
    publish(registry, "count")
    kitchen.shelf.refresh()
    assert served(kitchen.shelf) == ["classifier@1", "regressor@3"] and kitchen.shelf.problems == {}


def test_a_look_asks_once_for_each_alias_and_for_all_else_once_a_minute(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    kitchen, asked = Kitchen(registry), list[str]()

    def counted(name: str) -> Callable[..., Any]:
        real = getattr(FolderStore, name)

        def ask(store: FolderStore, key: str, **more: Any) -> Any:
            asked.append(f"{name} {key}")
            return real(store, key, **more)

        return ask

    for name in ("get", "entries", "folders"):
        monkeypatch.setattr(FolderStore, name, counted(name))
    kitchen.shelf.refresh()
    assert len(asked) == 7, "at first all of it, as once a minute"
    asked.clear()
    kitchen.shelf.refresh()
    assert asked == [f"get {name}/aliases/champion/000002.json" for name in ("classifier", "regressor")]
    monkeypatch.setattr(kitchen.shelf, "_anew_at", 0.0)
    asked.clear()
    kitchen.shelf.refresh()
    assert len(asked) == 7


def test_a_registry_that_was_emptied_and_filled_again_is_followed(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf_module, "ANEW_S", 0.0)
    for _ in range(3):
        publish(registry, "count")
    kitchen = Kitchen(registry)
    (tmp_path / "registry").rename(tmp_path / "gone")
    kitchen.shelf.refresh()
    assert served(kitchen.shelf) == ["classifier@1", "regressor@4"]
    assert "regressor@4 goes on" in kitchen.shelf.problems["regressor"]
    again = Registry.open(str(tmp_path / "registry"))
    publish(again, "classify")
    publish(again, "count")
    kitchen.shelf.refresh()
    assert served(kitchen.shelf) == ["classifier@1", "regressor@1"] and kitchen.shelf.problems == {}
    assert kitchen.loaded[-2:] == ["classifier@1", "regressor@1"], "of the same name, but not the same"


@pytest.mark.slow
def test_a_counter_of_one_lineage_is_found_when_it_becomes_champion(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf_module, "ANEW_S", 0.0)
    kitchen = Kitchen(registry)
    publish(registry, "count", name="regressor-A172", alias=None)
    kitchen.shelf.refresh()
    assert kitchen.shelf.champions.by_lineage == {}
    registry.promote("regressor-A172@1", "champion")
    kitchen.shelf.refresh()
    champions = kitchen.shelf.champions
    assert [one.ref if one else None for one in map(champions.counter_for, ("A172", "VERO6", None))] == [
        "regressor-A172@1",
        "regressor@1",
        "regressor@1",
    ]
    assert Kitchen(registry).shelf.champions.counter_for("A172").ref == "regressor-A172@1"


def test_a_counter_of_another_lineage_of_the_same_name_is_let_go(registry: Registry) -> None:
    publish(registry, "count", name="regressor-A172")
    kitchen = Kitchen(registry)
    assert list(kitchen.shelf.champions.by_lineage) == ["A172"]
    other = TrainConfig(task="count", lineage="A 172")
    made = registry.resolve("regressor-A172@1").card.model_copy(update={"config": other})
    registry.promote(registry.publish("regressor-A172", {}, made).ref, "champion")
    kitchen.shelf.refresh()
    assert kitchen.shelf.champions.by_lineage == {} and kitchen.shelf.problems == {}


def test_a_version_that_does_something_else_does_not_take_over(registry: Registry) -> None:
    kitchen = Kitchen(registry)
    publish(registry, "classify", name="regressor")
    kitchen.shelf.refresh()
    assert served(kitchen.shelf) == ["classifier@1", "regressor@1"]
    assert "regressor@2 is a model to classify, not to count" in kitchen.shelf.problems["regressor"]


def test_challengers_are_loaded_only_where_they_are_wanted_and_others_than_the_champions(registry: Registry) -> None:
    registry.promote(publish(registry, "count", alias=None), "challenger")
    registry.promote("classifier@1", "challenger")
    assert list(Kitchen(registry).shelf.challengers) == []
    kitchen = Kitchen(registry, challenge=0.5)
    assert [(one.ref, one.alias) for one in kitchen.shelf.challengers] == [("regressor@2", "challenger")]
    registry.promote("regressor@2", "champion")
    kitchen.shelf.refresh()
    assert served(kitchen.shelf) == ["classifier@1", "regressor@2"] and list(kitchen.shelf.challengers) == []
    assert kitchen.loaded == ["classifier@1", "regressor@1", "regressor@2"], "it was in memory already"


def test_without_any_model_or_with_one_that_is_not_there_nothing_begins(
    tmp_path: Path, registry: Registry, card: Callable
) -> None:
    with pytest.raises(NotFoundError, match="has no champion; train a model: cellnet train"):
        Kitchen(Registry.open(str(tmp_path / "empty")))
    kitchen = Kitchen(registry)
    with pytest.raises(NotFoundError, match="no classifier@3"):
        Shelf(registry, kitchen.load, classifier="classifier@3", meters=kitchen.meters)
    with pytest.raises(ConfigError, match="to count, not to classify"):
        Shelf(registry, kitchen.load, classifier="regressor@1", meters=kitchen.meters)


def test_a_version_asked_for_by_its_number_stays(registry: Registry) -> None:
    kitchen = Kitchen(registry)
    shelf = Shelf(registry, kitchen.load, regressor="regressor@1", meters=kitchen.meters)
    publish(registry, "count")
    publish(registry, "count", name="regressor-A172")
    shelf.refresh()
    assert served(shelf) == ["classifier@1", "regressor@1"], "nor do counters of single lineages come in between"


def test_each_version_is_told_with_what_was_asked_for(registry: Registry) -> None:
    publish(registry, "classify", alias="staging")
    kitchen = Kitchen(registry)
    refs = {"classifier": "classifier:staging", "regressor": "regressor@1"}
    shelf = Shelf(registry, kitchen.load, meters=kitchen.meters, **refs)
    said = [("classifier@2", "staging"), ("regressor@1", "1")]
    assert [(one.ref, one.alias) for one in shelf.champions] == said
    shelf.refresh()
    assert [(one.ref, one.alias) for one in shelf.champions] == said
