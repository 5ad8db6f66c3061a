"""A plan: every `auto` decided from the bank's table alone, and once."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

import cellnet.bank.columns
import cellnet.training.plan
from cellnet.bank.bank import Bank
from cellnet.bank.columns import Frames
from cellnet.bank.frames import Frame
from cellnet.bank.parts import State
from cellnet.config.bank import BankSettings, Intensity
from cellnet.config.choices import PAPER_SHARES
from cellnet.config.train import AS_RECORDED, Augment, ModelSpec, TrainConfig
from cellnet.errors import ConfigError, DataError
from cellnet.store.place import open_store
from cellnet.training.plan import (
    ANOTHER_INSTRUMENT,
    Plan,
    decide_augment,
    make_plan,
    preprocess_for,
    refit_plan,
    told_network,
)
from cellnet.training.shards import drafts_of
from cellnet.training.tiles import Variants
from tests.factories import frame

AS_IS = Intensity(rule="range", low=0, high=255)
CENTRES = [[5.0, 5.0]]


@pytest.fixture
def bank(tmp_path: Path) -> Callable[..., Bank]:
    """`bank(4, height=400)`: so many frames of each of two lineages in each split, of which no pixel can be read."""

    def make(each: int = 2, *more: Frame, **known: object) -> Bank:
        frames = [
            frame(number, **({"lineage": lineage, "split": split, "count": 5.0, "width": 200, "height": 200} | known))
            for number, (lineage, split) in enumerate(
                [(a, b) for a in ("A549", "THP1") for b in ("train", "test", "holdout")] * each, start=1
            )
        ]
        return Bank(open_store(tmp_path), BankSettings(), State(before=Frames.of([*frames, *more])))

    return make


@pytest.mark.parametrize(
    ("tile", "size", "tile_px"),
    [
        ("auto", (299, 1000), (299, 1000)),
        ("auto", (300, 1000), (200, 200)),
        ("frame", (300, 1000), (300, 1000)),
        (128, (300, 1000), (128, 128)),
    ],
)
def test_what_the_network_sees_at_once(tile: str | int, size: tuple[int, int], tile_px: tuple[int, int]) -> None:
    frames = [frame(number, height=size[0], width=size[1]) for number in range(3)]
    assert preprocess_for(TrainConfig(task="count", tile=tile), frames, AS_IS).tile_px == tile_px


def test_the_trained_pixel_size_is_the_median_and_known_only_if_every_frames_is() -> None:
    known = [frame(number, pixel_um=um, height=400, width=800) for number, um in enumerate((0.5, 0.6, 0.6))]
    config = TrainConfig(task="count", tile="frame", kernel="edge")
    preprocess = preprocess_for(config, known, AS_IS)
    assert (preprocess.pixel_um, preprocess.kernel, preprocess.intensity) == (0.6, "edge", AS_IS)
    assert preprocess_for(config, [*known, frame(9)], AS_IS).pixel_um is None


def test_a_whole_frame_tile_is_measured_at_the_trained_pixel_size() -> None:
    frames = [frame(n, pixel_um=um, height=side, width=side) for n, um, side in ((1, 1.0, 100), (2, 0.5, 200))]
    wide = [*frames, frame(3, pixel_um=1.0, height=100, width=100)]
    assert preprocess_for(TrainConfig(task="count", tile="frame"), wide, AS_IS).tile_px == (100, 100)


@pytest.mark.parametrize(
    ("task", "tiles", "shares", "shifts"),
    [
        ("classify", 10, PAPER_SHARES, 16),
        ("classify", 250, PAPER_SHARES, 3),
        ("count", 250, (1.0,), 15),
        ("count", 5000, (1.0,), 0),
    ],
)
def test_few_frames_are_cut_more_often_and_only_a_classifier_sees_crops(
    task: str, tiles: int, shares: tuple[float, ...], shifts: int
) -> None:
    decided = decide_augment(Augment(), task=task, tiles=tiles)
    assert (decided.shares, decided.shifts) == (shares, shifts)
    chosen = decided.model_copy(update={"shares": (0.5,), "shifts": 1})
    assert decide_augment(chosen, task=task, tiles=tiles) == chosen


def drawn(plan: Plan) -> dict[str, float]:
    """What a training of this plan draws on its device."""
    return {name: getattr(plan.config.augment, name) for name in AS_RECORDED}


def test_tiles_are_drawn_as_another_instrument_would_record_them(bank: Callable[..., Bank]) -> None:
    whole = {"task": "classify", "model": ModelSpec(architecture="residual")}
    assert drawn(make_plan(bank(2), TrainConfig(**whole))) == ANOTHER_INSTRUMENT
    asked = Augment(blur=0, noise=0.1)
    plan = make_plan(bank(2), TrainConfig(**whole, augment=asked))
    assert drawn(plan) == ANOTHER_INSTRUMENT | {"blur": 0, "noise": 0.1}
    by_default = make_plan(bank(2), TrainConfig(task="classify"))
    assert by_default.config.model.frozen and drawn(by_default) == ANOTHER_INSTRUMENT
    frozen = ModelSpec(architecture="efficientnet_lite0", frozen=True)
    counter = TrainConfig(task="count", model=frozen)
    for as_recorded in (TrainConfig(task="classify", protocol="paper"), counter):
        assert drawn(make_plan(bank(2), as_recorded)) == AS_RECORDED
    with pytest.raises(ValueError, match=r"a frozen counter sees each tile once, .*; leave augment\.noise"):
        TrainConfig(task="count", model=frozen, augment=asked)


def test_a_counter_draws_what_it_is_asked_to_and_moves_tiles_only_where_centres_are_known(
    bank: Callable[..., Bank],
) -> None:
    centred = frame(200, "A549", split="train", count=1.0, centres=[[5.0, 5.0]])
    assert drawn(make_plan(bank(2, centred), TrainConfig(task="count"))) == AS_RECORDED
    whole = ModelSpec(architecture="density")
    blurred = TrainConfig(task="count", model=whole, augment=Augment(blur=1, rotation=0))
    assert drawn(make_plan(bank(2), blurred)) == AS_RECORDED | {"blur": 1}
    asked = TrainConfig(task="count", model=whole, augment=Augment(scale=1.5))
    assert make_plan(bank(2, centred), asked).config.augment.scale == 1.5
    with pytest.raises(ConfigError, match=r"augment\.scale=1\.5 moves cells.*points\.csv.*leave augment\.scale out"):
        make_plan(bank(2), asked)


def test_nothing_is_left_to_decide_in_a_plan(bank: Callable[..., Bank]) -> None:
    counter = make_plan(bank(4, centres=CENTRES), TrainConfig(task="count", folds=0))
    assert (counter.config.epochs, counter.config.augment.shares, counter.config.augment.shifts) == (200, (1.0,), 16)
    assert (counter.config.model.architecture, counter.config.model.views) == ("density", 8)
    assert counter.preprocess.tile_px == counter.frame_px == (200, 200) and counter.classes == ()
    large = bank(100, height=1000, width=1000)
    classifier = make_plan(large, TrainConfig(task="classify", augment=Augment(orientation="stored")))
    assert classifier.splits["train"].variants == Variants(shares=PAPER_SHARES, orientations=(0, 90, 180, 270))
    assert classifier.splits["train"].rows == 200 * 25 * 16 and classifier.splits["test"].rows == 200 * 25
    assert (classifier.config.epochs, classifier.frame_tiles, classifier.classes) == (30, 25, ("A549", "THP1"))
    assert (classifier.config.model.architecture, classifier.config.model.views) == ("residual", 1)
    assert make_plan(large, TrainConfig(task="count")).config.model.views == 1, "the errors of many tiles even out"


@pytest.mark.parametrize(
    ("settings", "network"),
    [
        ({}, ("efficientnet_lite0", True, "none")),
        ({"folds": 0}, ("efficientnet_lite0", True, "none")),
        ({"model": ModelSpec(frozen=False)}, ("efficientnet_lite0", False, "none")),
        ({"illumination": "shading"}, ("efficientnet_lite0", True, "shading")),
        ({"model": ModelSpec(width=8)}, ("residual", None, "none")),
        ({"model": ModelSpec(weights="none")}, ("residual", None, "none")),
        ({"protocol": "paper"}, ("residual", None, "none")),
        ({"task": "count"}, ("efficientnet_lite0", True, "none")),
        ({"task": "count", "folds": 0}, ("efficientnet_lite0", True, "none")),
        ({"task": "count", "model": ModelSpec(frozen=False)}, ("density", False, "none")),
        ({"task": "count", "augment": Augment(blur=1)}, ("density", None, "none")),
        ({"task": "count", "augment": Augment(shifts=4)}, ("density", None, "none")),
        ({"task": "count", "augment": Augment(shifts=0, blur=0)}, ("efficientnet_lite0", True, "none")),
        ({"task": "count", "model": ModelSpec(architecture="density")}, ("density", None, "none")),
        ({"task": "count", "model": ModelSpec(width=8)}, ("density", None, "none")),
        ({"task": "count", "protocol": "paper"}, ("density", None, "none")),
    ],
)
def test_few_frames_are_learnt_by_a_network_that_knows_photographs_unless_told_otherwise(
    bank: Callable[..., Bank], settings: dict, network: tuple
) -> None:
    plan = make_plan(bank(3), TrainConfig(**({"task": "classify"} | settings)))
    assert (plan.config.model.architecture, plan.config.model.frozen, plan.preprocess.illumination) == network
    assert plan.config.illumination == plan.preprocess.illumination
    assert plan.config.model.views == (8 if plan.config.model.frozen or plan.config.task == "count" else 1)
    assert make_plan(bank(3), plan.config) == plan


@pytest.mark.parametrize(("side", "views"), [(200, 8), (1000, 1)])
def test_where_no_centres_are_known_few_frames_are_counted_by_a_frozen_network_that_sees_them_alike(
    bank: Callable[..., Bank], side: int, views: int
) -> None:
    known = {"height": side, "width": side, "bits": 16, "darkest": 100, "brightest": 1100}
    bright = frame(200, split="train", count=9.0, **(known | {"brightest": 60_000}))
    plan = make_plan(bank(3, bright, **known), TrainConfig(task="count"))
    model = plan.config.model
    assert (model.architecture, model.frozen, model.weights) == ("efficientnet_lite0", True, "imagenet")
    assert model.views == views
    assert plan.config.greys == "background" and plan.preprocess.tile_px == (200, 200)
    assert plan.preprocess.intensity == Intensity(rule="background", low=-250, high=500), "of the median frame"
    assert (plan.preprocess.mean, plan.preprocess.std) == (0.5, 0.5)
    assert plan.config.augment.shifts == 0 and plan.splits["train"].variants == Variants()
    assert make_plan(bank(3, bright, **known), plan.config) == plan


@pytest.mark.parametrize("settings", [{}, {"greys": "background"}, {"greys": "bank"}])
def test_grey_values_are_the_banks_unless_a_frozen_counter_sees_them_or_they_are_asked_for(
    bank: Callable[..., Bank], settings: dict
) -> None:
    by_count, by_centres = bank(2, brightest=4), bank(2, brightest=4, centres=CENTRES)
    of_bank, of_background = by_count.settings.intensity, Intensity(rule="background", low=-1, high=2)
    frozen = make_plan(by_count, TrainConfig(task="count", **settings))
    assert frozen.preprocess.intensity == (of_bank if settings.get("greys") == "bank" else of_background)
    for config, of in (({"task": "count"}, by_centres), ({"task": "classify"}, by_count)):
        plan = make_plan(of, TrainConfig(**config, **settings))
        assert plan.preprocess.intensity == (of_background if settings.get("greys") == "background" else of_bank)
        assert plan.config.greys == settings.get("greys", "bank")


def test_where_a_cells_centre_is_known_a_whole_network_learns_where_cells_are(bank: Callable[..., Bank]) -> None:
    one_known = frame(200, split="train", count=1.0, centres=CENTRES)
    for of in (bank(3, centres=CENTRES), bank(3, one_known)):
        plan = make_plan(of, TrainConfig(task="count"))
        assert (plan.config.model.architecture, plan.config.model.frozen) == ("density", None)
        assert plan.config.greys == "bank" and plan.preprocess.intensity == of.settings.intensity


def test_more_tiles_than_can_be_kept_are_counted_by_a_whole_network(
    bank: Callable[..., Bank], monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = TrainConfig(task="count", model=ModelSpec(architecture="efficientnet_lite0", frozen=True), folds=0)
    just_enough = bank(3, height=1000, width=1000)  # of 25 tiles each; 6 of its 18 frames are in the train split
    monkeypatch.setattr(cellnet.training.plan, "MOST_PLACED", 18 * 25)
    assert make_plan(just_enough, TrainConfig(task="count")).config.model.frozen
    monkeypatch.setattr(cellnet.training.plan, "MOST_PLACED", 18 * 25 - 1)
    assert make_plan(just_enough, TrainConfig(task="count")).config.model.architecture == "density"
    assert make_plan(just_enough, frozen).config.model.frozen, "fewer are trained on"
    monkeypatch.setattr(cellnet.training.plan, "MOST_PLACED", 6 * 25 - 1)
    with pytest.raises(ConfigError, match=r"150 tiles are too many; .* model\.frozen=false, .* --set tile=400"):
        make_plan(just_enough, frozen)
    fewer = frozen.model_copy(update={"tile": 400})
    assert make_plan(just_enough, fewer).config.model.frozen


def test_a_frozen_counter_is_of_the_network_that_can_and_sees_frames_of_two_depths_by_the_banks_rule(
    bank: Callable[..., Bank],
) -> None:
    for others in (ModelSpec(architecture="resnet18", frozen=True), ModelSpec(frozen=True, weights="regressor@1")):
        with pytest.raises(ConfigError, match=r"a frozen (resnet18|density) cannot count; take .*efficientnet_lite0"):
            make_plan(bank(3), TrainConfig(task="count", model=others))
    asked = make_plan(bank(3, centres=[]), TrainConfig(task="count", model=ModelSpec(frozen=True))).config
    assert (asked.model.architecture, asked.greys) == ("efficientnet_lite0", "background")
    both = bank(3, frame(200, split="train", count=1.0, bits=16))
    assert make_plan(both, TrainConfig(task="count")).config.greys == "bank"


@pytest.mark.parametrize(("side", "network"), [(400, "efficientnet_lite0"), (200, "density")])
def test_many_frames_are_counted_by_a_frozen_network_only_where_they_are_of_several_tiles(
    bank: Callable[..., Bank], side: int, network: str
) -> None:
    many = make_plan(bank(40, height=side, width=side), TrainConfig(task="count"))
    assert many.folds is None and many.config.model.architecture == network


def test_batches_are_left_out_where_there_are_two(bank: Callable[..., Bank]) -> None:
    second = [
        frame(200 + n, lineage, f"g{n}", split="train", batch="june") for n, lineage in enumerate(("A549", "THP1"))
    ]
    plan = make_plan(bank(3, *second, batch="may"), TrainConfig(task="classify", folds="batch"))
    assert plan.folds is not None and plan.folds.by_batch and set(plan.folds.fold_of.values()) == {1, 2}
    assert (plan.config.folds, plan.config.holdout) == ("batch", "use")
    assert plan.batches is None, "there is nothing beside it"
    beside = make_plan(bank(3, *second, batch="may"), TrainConfig(task="classify", folds=3))
    assert beside.folds is not None and beside.batches is not None and not beside.folds.by_batch
    assert beside.batches == plan.folds
    assert beside.held_back == beside.folds.held_back | {4: plan.held_back[1], 5: plan.held_back[2]}
    assert make_plan(bank(3, batch="may"), TrainConfig(task="classify", folds=3)).batches is None
    with pytest.raises(DataError, match=r"no batch of .* can be left out: .* fill in the column batch"):
        make_plan(bank(3, batch="may"), TrainConfig(task="classify", folds="batch"))


@pytest.mark.parametrize("protocol", ["grouped", "paper"])
def test_a_plan_of_what_was_decided_is_the_same_plan(bank: Callable[..., Bank], protocol: str) -> None:
    plan = make_plan(bank(3), TrainConfig(task="classify", protocol=protocol, kernel="edge", folds=0))
    assert make_plan(bank(3), plan.config) == plan
    assert plan.preprocess.kernel == ("none" if protocol == "paper" else "edge")


def test_a_plan_names_the_frames_that_give_tiles_and_counts_the_others(bank: Callable[..., Bank]) -> None:
    small = frame(200, lineage="A549", split="train", count=1.0, width=50)
    plan = make_plan(bank(2, small, pixel_um=1.0), TrainConfig(task="count", tile=200, folds=0))
    assert plan.left_out == 1 and small.frame not in plan.splits["train"].frames
    assert [len(plan.splits[split].frames) for split in ("train", "test")] == [4, 4]
    lineage = make_plan(bank(2), TrainConfig(task="count", lineage="THP1", folds=0))
    assert [len(lineage.splits[split].frames) for split in ("train", "test")] == [2, 2]


def test_a_bank_of_frames_smaller_than_a_tile_is_refused(bank: Callable[..., Bank]) -> None:
    with pytest.raises(DataError, match=r"is smaller than the 500×500 pixels of a tile; .* --set tile=frame"):
        make_plan(bank(), TrainConfig(task="count", tile=500))


def test_a_trial_has_its_own_settings_and_the_tiles_of_all(bank: Callable[..., Bank]) -> None:
    plan = make_plan(bank(), TrainConfig(task="count", model=ModelSpec(width=8), folds=0))
    settings = {"kernel": "edge", "model.architecture": "residual", "model.views": "auto", "seed": 3}
    trial = plan.with_settings(settings | {"augment.jitter": 0.3, "augment.mirror": False})
    assert (trial.preprocess.kernel, trial.config.kernel, trial.config.seed) == ("edge", "edge", 3)
    assert (trial.config.model.architecture, trial.config.model.views) == ("residual", 8)
    assert trial.config.augment == plan.config.augment.model_copy(update={"jitter": 0.3, "mirror": False})
    assert (trial.splits, trial.config.epochs, trial.config.model.width) == (plan.splits, plan.config.epochs, 8)
    with pytest.raises(ConfigError, match=r"^learning_rate: "):
        plan.with_settings({"learning_rate": -1})


def test_a_plan_is_small_enough_for_every_worker(bank: Callable[..., Bank]) -> None:
    centres = [[float(n), float(n)] for n in range(200)]
    plan = make_plan(bank(30, centres=centres), TrainConfig(task="count"))
    assert len(pickle.dumps(plan)) < 120 * 100 + 20_000
    assert pickle.loads(pickle.dumps(plan)) == plan


def test_a_small_bank_is_trained_by_folds_over_all_of_it_and_a_large_one_by_its_splits(
    bank: Callable[..., Bank],
) -> None:
    small, large = (make_plan(bank(each), TrainConfig(task="classify")) for each in (6, 7))
    assert large.folds is None and (large.config.folds, large.config.holdout, large.config.refit) == (0, "keep", False)
    assert len(large.splits["train"].frames) == len(large.splits["test"].frames) == 14, "21 groups a lineage"
    assert small.folds is not None and (small.config.folds, small.config.holdout, small.folds.number) == (5, "use", 5)
    everything = {one.frame for one in bank(6).frames}
    assert (
        set(small.folds.fold_of) == set(small.splits["train"].frames) == set(small.splits["test"].frames) == everything
    )
    kept = make_plan(bank(6), TrainConfig(task="classify", holdout="keep"))
    assert kept.frames == {one.frame for one in bank(6).frames if one.split != "holdout"} == set(kept.folds.fold_of)
    assert make_plan(bank(6), TrainConfig(task="classify", folds=0)).folds is None
    asked = make_plan(bank(7), TrainConfig(task="count", folds=3, patience=2))
    assert asked.folds.number == 3 and len(asked.frames) == 42 and asked.config.patience is None
    for plan, each in ((small, 6), (kept, 6), (asked, 7)):
        assert make_plan(bank(each), plan.config) == plan, "a plan of what was decided is the same plan"


def test_all_networks_of_a_small_bank_share_the_tiles_of_two_trainings(bank: Callable[..., Bank]) -> None:
    whole = TrainConfig(task="count", model=ModelSpec(architecture="density"))
    by_folds, alone = (
        make_plan(bank(6, height=1000, width=1000), whole.model_copy(update={"folds": folds})) for folds in (5, 0)
    )
    tiles = by_folds.splits["train"].rows
    seen = int(by_folds.config.epochs) * (4 * tiles + tiles)  # four fifths of the tiles, five times, and all of them
    assert seen == pytest.approx(2 * int(alone.config.epochs) * alone.splits["train"].rows, rel=0.1)
    assert (
        make_plan(bank(6), TrainConfig(task="count", epochs=7, model=ModelSpec(architecture="density"))).config.epochs
        == 7
    )


def test_a_lineage_with_one_group_or_one_frame_trains_too(bank: Callable[..., Bank]) -> None:
    size = {"width": 200, "height": 200, "count": 1.0, "split": "train"}
    well = [frame(100 + number, "3T3", "one well", **size) for number in range(3)]
    lone = frame(200, "HUH7", "another", **size)
    by_folds = make_plan(bank(2, *well, lone), TrainConfig(task="classify"))
    assert by_folds.classes == ("3T3", "A549", "HUH7", "THP1")
    assert (by_folds.folds.one_group, by_folds.folds.unmeasured) == (("3T3",), ("HUH7",))
    assert len({by_folds.folds.fold_of[one.frame] for one in well}) == 3 and lone.frame not in by_folds.folds.fold_of
    alone = make_plan(bank(2, *well, lone), TrainConfig(task="classify", folds=0))
    assert {*(one.frame for one in well), lone.frame} <= set(alone.splits["train"].frames)


def test_where_nothing_can_be_held_back_the_bank_is_trained_by_its_splits(tmp_path: Path) -> None:
    frames = [frame(n, lineage, split="train") for n, lineage in enumerate(("A549", "THP1"))]
    two = Bank(open_store(tmp_path), BankSettings(), State(before=Frames.of(frames)))
    assert make_plan(two, TrainConfig(task="classify")).folds is None
    with pytest.raises(
        DataError, match="can be held back: it has one of each lineage; import more, or leave folds out"
    ):
        make_plan(two, TrainConfig(task="classify", folds=5))
    with pytest.raises(ConfigError, match=r"holdout=use deals the holdout into folds, .* add --set folds=5"):
        make_plan(two, TrainConfig(task="classify", holdout="use"))


def test_what_leaves_nothing_to_learn_from_is_refused_with_the_next_step(
    bank: Callable[..., Bank], tmp_path: Path
) -> None:
    held = frame(99, "3T3", split="holdout", count=2.0)
    for config in (TrainConfig(task="classify", folds=0), TrainConfig(task="classify", holdout="keep")):
        with pytest.raises(
            DataError, match=r"no frame of 3T3 in .* is left to learn from; train by folds, .*holdout=auto"
        ):
            make_plan(bank(2, held), config)
    alone = Bank(open_store(tmp_path), BankSettings(), State(before=Frames.of([held])))
    with pytest.raises(DataError, match=r"none of the counted frames of .* is in its train split; train by folds"):
        make_plan(alone, TrainConfig(task="count"))


@pytest.mark.parametrize("config", [{"folds": 0}, {"folds": 3}, {"folds": "batch"}, {"folds": 0, "tile": "frame"}])
def test_frames_stay_columns_until_their_pixels_are_read(
    bank: Callable[..., Bank], monkeypatch: pytest.MonkeyPatch, config: dict[str, object]
) -> None:
    """Since a million of them as objects are five gigabytes."""
    held = bank(6, *(frame(n, group=f"b{n}", count=3.0, split="train", batch=f"b{n % 3}") for n in range(99, 120)))
    monkeypatch.setattr(cellnet.bank.columns, "_made", None)  # what makes objects of columns
    plan = make_plan(held, TrainConfig(task="count", **config))  # type: ignore[arg-type]
    drafts = drafts_of(plan, held.frames, "here")
    assert sum(len(draft.frames) for draft in drafts) == sum(len(one.frames) for one in plan.splits.values()) > 30
    assert refit_plan(plan, held.frames, epochs=1).splits["train"].rows > 30


def test_the_training_at_the_end_is_on_all_frames_and_has_no_test_split(bank: Callable[..., Bank]) -> None:
    by_folds, alone = make_plan(bank(6), TrainConfig(task="count")), make_plan(bank(7), TrainConfig(task="count"))
    for plan, frames in ((by_folds, bank(6).frames), (alone, bank(7).frames)):
        last = refit_plan(plan, frames, epochs=9)
        assert set(last.splits["train"].frames) == plan.frames and last.splits["test"].rows == 0
        assert last.splits["train"].rows == len(plan.frames) * last.splits["train"].variants.number(1)
        assert (last.config.epochs, last.config.augment, last.folds) == (9, plan.config.augment, None)
    assert refit_plan(by_folds, bank(6).frames, epochs=1).splits["train"] == by_folds.splits["train"]


def test_what_a_network_that_was_chosen_for_few_frames_costs_is_told(bank: Callable[..., Bank]) -> None:
    few, many = bank(3, height=400, width=400), bank(40, height=400, width=400)
    named = told_network(make_plan(few, TrainConfig(task="classify")))
    assert named.startswith("network: efficientnet_lite0, frozen, which knows photographs")
    assert named.endswith("in about 83 times what residual takes (10 times with --set model.views=1)"), "8.3 × 4 tiles"
    counted = told_network(make_plan(few, TrainConfig(task="count")))
    assert counted.endswith("in about 4 times what density takes")
    assert told_network(make_plan(many, TrainConfig(task="classify"))) == ""
    whole = TrainConfig(task="classify", model=ModelSpec(architecture="residual"))
    assert told_network(make_plan(few, whole)) == ""
