"""Which models answer, and that those that cut alike cut a frame once."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cellnet.config.train import TrainConfig
from cellnet.errors import ConfigError, NotFoundError
from cellnet.prediction.lineup import Cuts, Lineup, answers, counter_name, resolve_models, strangers
from cellnet.registry.records import NAME, ModelVersion
from cellnet.registry.registry import Registry
from cellnet.tasks import Task
from tests import factories
from tests.factories import SIDE, Known, card, publish


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.open(str(tmp_path))


def refs(registry: Registry, classifier: str | None = None, regressor: str | None = None) -> Lineup[str]:
    return resolve_models(registry, classifier, regressor).map(lambda version: version.ref)


def test_models_are_resolved_to_versions_and_a_missing_champion_is_left_out(registry: Registry) -> None:
    with pytest.raises(NotFoundError, match=r"has no champion; train a model: cellnet train BANK --task classify$"):
        refs(registry)
    publish(registry, "count", alias=None)
    with pytest.raises(NotFoundError, match=r"no champion; choose one: cellnet registry promote regressor@1 champion$"):
        refs(registry)
    publish(registry, "count")
    assert refs(registry) == Lineup(regressor="regressor@2")
    assert refs(registry, regressor="regressor@1") == Lineup(regressor="regressor@1")
    with pytest.raises(NotFoundError, match="no classifier@3"):
        refs(registry, classifier="classifier@3")
    with pytest.raises(ConfigError, match="regressor@1 is a model to count, not to classify; give another"):
        refs(registry, classifier="regressor@1")


def test_counters_of_single_lineages_answer_unless_another_is_named(registry: Registry) -> None:
    publish(registry, "classify")
    publish(registry, "count")
    publish(registry, "count", name="regressor-VERO6")
    publish(registry, "count", name="regressor-A172", alias="staging")  # no champion
    publish(registry, "count", name="regressor-PC3")  # of a lineage that the classifier does not know
    assert refs(registry).by_lineage == {"VERO6": "regressor-VERO6@1"}
    assert refs(registry, regressor="regressor@1").by_lineage == {}


def test_the_lineage_named_decides_who_counts_and_a_frame_is_cut_once(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for task, name in (("classify", None), ("count", None), ("count", "regressor-A172"), ("count", "regressor-A172")):
        publish(registry, task, name=name)
    models = resolve_models(registry, None, None).map(Known)
    cut, cuts = Known.cut, []
    monkeypatch.setattr(Known, "cut", lambda self, *frame: cuts.append(self.ref) or cut(self, *frame))
    dark_HW = np.full((SIDE, 2 * SIDE), 60, np.uint8)
    assert [(answer.lineage, answer.count) for answer in answers(models, dark_HW, pixel_um=None)] == [
        ("A172", None),
        (None, 4),
    ]
    assert cuts == ["classifier@1"]
    bright = answers(models, dark_HW + 140, pixel_um=None)
    assert (bright[0].lineage, bright[1].model, bright[1].count) == ("VERO6", "regressor@1", 2)


def test_models_that_cut_otherwise_get_tiles_of_their_own(registry: Registry) -> None:
    publish(registry, "classify")
    publish(registry, "count")
    classifier, counter = resolve_models(registry, None, None).map(Known)
    finer = counter.card.preprocess.model_copy(update={"pixel_um": 1.0})
    counter.card = counter.card.model_copy(update={"preprocess": finer})
    cuts = Cuts(np.full((4 * SIDE, 4 * SIDE), 60, np.uint8), 0.5)
    assert (len(cuts.of(classifier).tiles), len(cuts.of(counter).tiles)) == (16, 4)


def test_a_counter_of_lineages_that_the_classifier_does_not_know_is_told() -> None:
    def version(task: Task, names: Sequence[str], *, lineage: str | None = None) -> ModelVersion:
        made = factories.card(task, classes=names if task == "classify" else ())
        if task == "count":
            config = made.config.model_copy(update={"lineage": lineage})
            made = made.model_copy(update={"lineages": tuple(names) or None, "config": config})
        return ModelVersion(name=task, number=1, card=made, blobs={})

    classifier = version("classify", ["PC3", "LNCAP"])
    assert strangers(classifier, version("count", ["T98G"])) == (
        "count@1 learned to count T98G, and classify@1 names only LNCAP, PC3: frames that are counted right will be "
        "named wrong; train a classifier on these too"
    )
    assert strangers(classifier, version("count", [], lineage="T98G")) is not None
    assert strangers(classifier, version("count", ["T98G", "PC3"])) is None
    assert strangers(classifier, version("count", [])) is None, "it does not tell"
    assert strangers(None, classifier) is strangers(classifier, None) is None


SPELLED_ALIKE = ("MCF-7", "MCF 7", "MCF/7", "MCF  7")


def test_lineages_that_are_spelled_alike_have_counters_of_their_own() -> None:
    long = ("x" * 60, "x" * 70, "x" * 69 + "y", "ж", "ы")
    names = [counter_name(lineage) for lineage in SPELLED_ALIKE + long]
    assert len(set(names)) == len(names) and all(NAME.fullmatch(name) for name in names)


def counter(registry: Registry, name: str, lineage: str) -> str:
    """The champion of a model, of one lineage."""
    config = TrainConfig(task="count", lineage=lineage)
    ref = registry.publish(name, {}, card("count").model_copy(update={"config": config})).ref
    registry.promote(ref, "champion")
    return ref


def test_a_counter_counts_no_lineage_that_is_spelled_alike(registry: Registry) -> None:
    version = registry.publish("classifier", {}, card("classify", classes=SPELLED_ALIKE))
    registry.promote(version.ref, "champion")
    counter(registry, "regressor-MCF-7", "MCF 7")  # as an earlier cellnet named it
    assert refs(registry).by_lineage == {"MCF 7": "regressor-MCF-7@1"}
    of_its_own = counter(registry, counter_name("MCF 7"), "MCF 7")
    assert refs(registry).by_lineage == {"MCF 7": of_its_own}
    dashed = counter(registry, counter_name("MCF-7"), "MCF-7")
    assert refs(registry).by_lineage == {"MCF 7": of_its_own, "MCF-7": dashed}
