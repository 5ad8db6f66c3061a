"""A plan: every `auto` decided from the bank's table alone, and once."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from cellnet.bank.bank import Bank
from cellnet.bank.frames import Frame
from cellnet.config.bank import BankSettings, Intensity
from cellnet.config.choices import PAPER_SHARES
from cellnet.config.train import Augment, ModelSpec, TrainConfig
from cellnet.errors import ConfigError, DataError
from cellnet.store.place import open_store
from cellnet.training.plan import decide_augment, make_plan, preprocess_for
from cellnet.training.tiles import Variants
from tests.factories import frame

AS_IS = Intensity(rule="range", low=0, high=255)


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
        return Bank(open_store(tmp_path), BankSettings(), [*frames, *more], 1)

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
    chosen = Augment(shares=(0.5,), shifts=1)
    assert decide_augment(chosen, task=task, tiles=tiles) == chosen


def test_nothing_is_left_to_decide_in_a_plan(bank: Callable[..., Bank]) -> None:
    counter = make_plan(bank(4), TrainConfig(task="count"))
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


@pytest.mark.parametrize("protocol", ["grouped", "paper"])
def test_a_plan_of_what_was_decided_is_the_same_plan(bank: Callable[..., Bank], protocol: str) -> None:
    plan = make_plan(bank(3), TrainConfig(task="classify", protocol=protocol, kernel="edge"))
    assert make_plan(bank(3), plan.config) == plan
    assert plan.preprocess.kernel == ("none" if protocol == "paper" else "edge")


def test_a_plan_names_the_frames_that_give_tiles_and_counts_the_others(bank: Callable[..., Bank]) -> None:
    small = frame(200, lineage="A549", split="train", count=1.0, width=50)
    plan = make_plan(bank(2, small, pixel_um=1.0), TrainConfig(task="count", tile=200))
    assert plan.left_out == 1 and small.frame not in plan.splits["train"].frames
    assert [len(plan.splits[split].frames) for split in ("train", "test")] == [4, 4]
    lineage = make_plan(bank(2), TrainConfig(task="count", lineage="THP1"))
    assert [len(lineage.splits[split].frames) for split in ("train", "test")] == [2, 2]


def test_a_bank_of_frames_smaller_than_a_tile_is_refused(bank: Callable[..., Bank]) -> None:
    with pytest.raises(DataError, match=r"is smaller than the 500×500 pixels of a tile; .* --set tile=frame"):
        make_plan(bank(), TrainConfig(task="count", tile=500))


def test_a_trial_has_its_own_settings_and_the_tiles_of_all(bank: Callable[..., Bank]) -> None:
    plan = make_plan(bank(), TrainConfig(task="count", model=ModelSpec(width=8)))
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
