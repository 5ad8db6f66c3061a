"""Configurations: precedence, and one line for whatever is wrong."""

from pathlib import Path

import pytest

from cellnet.config.bank import Intensity
from cellnet.config.loading import load_config
from cellnet.config.train import AS_RECORDED, Augment, TrainConfig
from cellnet.config.tune import TuneConfig, with_settings
from cellnet.errors import ConfigError


def load(*sets: str, file: Path | None = None, **fixed: object) -> TrainConfig:
    return load_config(TrainConfig, file=file, sets=list(sets), **({"task": "count"} | fixed))


def test_a_setting_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text("epochs: 7\nmodel: {width: 8, depth: 3}\n")
    config = load("model.width=24", "augment.mirror=off", "learning_rate=1e-2", file=file)
    assert (config.epochs, config.model.width, config.model.depth) == (7, 24, 3)
    assert (config.augment.mirror, config.learning_rate) == (False, 0.01)
    assert (config.seed, config.kernel) == (0, "none")


def test_what_the_command_line_names_itself_wins_over_everything(tmp_path: Path) -> None:
    file = tmp_path / "train.json"
    file.write_text('{"task": "classify"}')
    assert load("task=classify", file=file).task == "count"


def test_a_tuple_and_a_tile_are_read_as_yaml() -> None:
    config = load("augment.shares=[1, 0.25]", "tile=128")
    assert (config.augment.shares, config.tile) == ((1.0, 0.25), 128)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epochs", r"--set takes KEY=VALUE, not 'epochs'"),
        ("epochs=0", r"'epochs': Input should be greater than or equal to 1, or: .*auto.* \(seen: 0\)"),
        ("epoch=3", r"'epoch': there is no such setting; did you mean epochs\? cellnet settings lists all"),
        ("width=8", r"'width': there is no such setting; did you mean model.width\? cellnet settings lists all"),
        ("augment.blurr=1", r"'augment.blurr': there is no such setting; did you mean augment.blur\? "),
        ("colour=red", r"'colour': there is no such setting; cellnet settings lists all"),
        ("kernel=blur", r"'kernel': Input should be 'none', 'sharpen', .*\(seen: 'blur'\)"),
        ("epochs.max=3", r"'epochs': Input should be a valid integer"),
        ("augment.shares=[1.5]", r"'augment.shares': Input should be less than or equal to 1"),
        ("augment.shares=[]", r"'augment.shares': Tuple should have at least 1 item"),
        ("tile=0", r"'tile': Input should be 'auto' or 'frame', or: .* greater than or equal to 8 \(seen: 0\)"),
        ("seed=-1", r"'seed': Input should be greater than or equal to 0"),
        ("learning_rate=.inf", r"'learning_rate': Input should be a finite number"),
        ("tile=[", r"--set 'tile=\[': '\[' is not a YAML value"),
        ("epochs=2001-13-45", r"not a YAML value"),
        ("epochs=!!int many", r"not a YAML value"),
        ("epochs=!!timestamp now", r"not a YAML value"),
        (f"epochs={'[' * 3000}", r"not a YAML value"),
        ("model={architecture: resnet18, width: 32}", r"resnet18 has a fixed .*; leave width out"),
        ("folds=1", r"folds=1 would hold all frames back; take two or more, or folds=0"),
        ("folds=-1", r"'folds': Input should be greater than or equal to 0, or: .*auto.* \(seen: -1\)"),
        ("holdout=all", r"'holdout': Input should be 'auto', 'keep' or 'use' \(seen: 'all'\)"),
        ("refit=1", r"'refit': Input should be a valid boolean"),
        ("augment.rotation=270", r"'augment.rotation': Input should be less than or equal to 180 \(seen: 270\)"),
        ("augment.scale=0.8", r"'augment.scale': Input should be greater than or equal to 1 \(seen: 0.8\)"),
        ("augment.shading=30", r"'augment.shading': Input should be less than 1 \(seen: 30\)"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(setting)
    assert "\n" not in str(caught.value)


def test_a_density_map_does_not_classify() -> None:
    with pytest.raises(ConfigError, match=r"density only counts; to classify, take another"):
        load("model.architecture=density", task="classify")


def test_a_search_over_activations_of_a_network_that_has_its_own_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"space\.model: resnet18 has a fixed activation, width and depth"):
        load_config(TuneConfig, file=None, sets=["train.model.architecture=resnet18"], **{"train.task": "count"})
    sets = ["train.model.architecture=resnet18", "space.kernel=[none]"]
    assert load_config(TuneConfig, file=None, sets=sets, **{"train.task": "count"}).space == {"kernel": ("none",)}


def test_frozen_counters_see_tiles_as_recorded_and_heads_are_searched_over_what_they_depend_on() -> None:
    lite = ("model.architecture=efficientnet_lite0", "model.frozen=true")
    assert load(*lite, "augment.blur=0").model.frozen and load(*lite, "augment.blur=2", task="classify").model.frozen
    assert load(*lite).model.frozen and load("model.frozen=true").model.frozen
    with pytest.raises(ConfigError, match=r"a frozen counter sees each tile .* leave augment\.noise out"):
        load(*lite, "augment.noise=0.1")
    frozen = {"train.task": "classify", "train.model.architecture": "efficientnet_lite0", "train.model.frozen": True}
    searched = load_config(TuneConfig, file=None, sets=["space.kernel=[none]"], **frozen)
    assert searched.train.model.frozen and searched.train.model.architecture == "efficientnet_lite0"
    with pytest.raises(ConfigError, match=r"space\.model: efficientnet_lite0 has a fixed activation, width and depth"):
        load_config(TuneConfig, file=None, sets=[], **frozen)
    with pytest.raises(ConfigError, match=r"space\.model\.frozen: model\.frozen is the same for all trials"):
        load_config(TuneConfig, file=None, sets=["space.model.frozen=[true]"], **{"train.task": "classify"})


def test_one_lineage_alone_is_counted_and_not_classified_or_searched() -> None:
    assert load("lineage=A549") == load(lineage="A549") != load()
    with pytest.raises(
        ConfigError, match=r"^configuration: a classifier tells lineages apart; A549 alone can be count"
    ):
        load("lineage=A549", task="classify")
    fixed = {"train.task": "count", "train.lineage": "A549"}
    assert load_config(TuneConfig, file=None, sets=[], **fixed).train.lineage == "A549"
    with pytest.raises(ConfigError, match=r"space\.lineage: lineage is the same for all trials"):
        load_config(TuneConfig, file=None, sets=["space.lineage=[A549,THP1]"], **fixed)


def test_a_training_of_all_lineages_is_stored_as_it_was_before_one_could_be_chosen() -> None:
    assert "lineage" not in TuneConfig(train=load()).model_dump_json()
    assert load("lineage=A549").model_dump()["lineage"] == "A549"


def test_what_goes_along_with_folds_and_what_does_not() -> None:
    with pytest.raises(ConfigError, match="holdout=use deals the holdout into folds, and folds=0 makes none"):
        load("folds=0", "holdout=use")
    for setting in ("folds=5", "refit=true", "holdout=use"):
        with pytest.raises(
            ConfigError, match="protocol=paper draws its own splits; leave folds, holdout and refit out"
        ):
            load("protocol=paper", setting)
        with pytest.raises(ConfigError, match="a search is steered by the test split; leave train"):
            load_config(TuneConfig, file=None, sets=[f"train.{setting}"], **{"train.task": "count"})
    with pytest.raises(ConfigError, match=r"space\.folds: folds has no part in a search"):
        load_config(TuneConfig, file=None, sets=["space.folds=[2,5]"], **{"train.task": "count"})
    searched = TuneConfig(train=load()).train
    assert (searched.folds, searched.holdout) == (0, "keep")
    assert with_settings(searched, {"kernel": "edge"}).folds == 0, "nor has a trial any"


def test_a_training_without_folds_is_stored_as_it_was_before_there_were_any() -> None:
    stored = load("folds=0", "holdout=keep").model_dump()
    assert not {"folds", "holdout", "refit"} & set(stored)
    folds = load("folds=5", "refit=true").model_dump()
    assert (folds["folds"], folds["holdout"], folds["refit"]) == (5, "auto", True)


def test_a_training_of_before_other_instruments_were_drawn_is_read_and_stored_as_it_was() -> None:
    augment = load().augment
    assert not set(AS_RECORDED) & set(augment.model_dump()), "None is left out"
    assert {getattr(augment, name) for name in AS_RECORDED} == {None}
    assert Augment(**AS_RECORDED).model_dump().items() >= AS_RECORDED.items(), "what was decided is stored"


def test_a_value_is_no_section() -> None:
    with pytest.raises(ConfigError, match=r"'model.width': 'model' is a value, not a section"):
        load("model=3", "model.width=2")


@pytest.mark.parametrize("content", [b"", b"just text", b"- 1\n", b"a: [", b"\xff\xfe\x00", None])
def test_an_unreadable_file_is_named_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "train.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"train\.yaml") as caught:
        load(file=file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rule", [{"low": 99, "high": 1}, {"high": 101}, {"rule": "range", "low": 7, "high": 7}])
def test_an_intensity_rule_that_maps_nothing_is_refused(rule: dict) -> None:
    with pytest.raises(ValueError, match=r"must be below|are 0 to 100"):
        Intensity(**rule)


@pytest.mark.parametrize(("low", "high"), [(0, 200), (-100, 0), (10, 200), (-200, -100)])
def test_grey_values_around_the_background_reach_to_both_sides_of_it(low: float, high: float) -> None:
    with pytest.raises(ValueError, match=rf"so low is below 0 and high above; not {low} and {high}"):
        Intensity(rule="background", low=low, high=high)


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (Intensity(), "percentiles 0.1 and 99.9 of the frame"),
        (Intensity(rule="range", low=0, high=4095), "grey values 0 and 4095 of the frame"),
        (
            Intensity(rule="background", low=-12.5, high=25),
            "grey values 12.5 below and 25 above the median of the frame",
        ),
    ],
)
def test_an_intensity_rule_is_told_in_words(rule: Intensity, told: str) -> None:
    assert str(rule) == told


def test_a_training_on_the_banks_grey_values_is_stored_as_it_was_before_there_were_others() -> None:
    assert "greys" not in load("greys=bank").model_dump()
    assert load("greys=background").model_dump()["greys"] == "background"
    assert TrainConfig.model_validate_json(load().model_dump_json()).greys == "auto"


def test_a_configuration_survives_its_json() -> None:
    config = load("augment.shares=[0.5]", "tile=frame", "model.activation=tanh", "lineage=A549")
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config
