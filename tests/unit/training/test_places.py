"""Last layers that count by place: learnt from what frames have in all, though cells lie in clumps."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import cellnet.training.places
from cellnet.images.tiles import cut
from cellnet.training.heads import Features
from cellnet.training.places import CountHead, fit_places

SIDE, TILE = 8, 5
"""Of a frame and of its four tiles, in places: the tiles overlap by two."""
CHANNELS = 6

Cells = NDArray[np.float32]


def clumps(frames: int, *, seed: int) -> tuple[Features, Cells]:
    """Features of the tiles of frames whose cells lie in one quarter, and the cells (N,) that each tile has.

    The first feature shows whether a place has a cell, the others are noise; they are on scales that differ a
    thousandfold. What a tile is said to have is a share of its frame's count.
    """
    rng = np.random.default_rng(seed)
    boxes = cut(SIDE, SIDE, (TILE, TILE))
    seen, own, truth, names = [], [], [], []
    for number in range(frames):
        cells_HW = np.zeros((SIDE, SIDE), np.float32)
        top, left = rng.integers(0, 2, 2) * SIDE // 2
        cells_HW[top : top + SIDE // 2, left : left + SIDE // 2] = rng.random((SIDE // 2, SIDE // 2)) < rng.random()
        features_HWC = rng.normal(size=(SIDE, SIDE, CHANNELS)) * 0.15
        features_HWC[..., 0] += cells_HW
        features_HWC = features_HWC * [1, 100, 1, 0.1, 1, 1] + [3, 50, 0, 0, -2, 1]
        for box in boxes:
            seen.append(box.pixels(features_HWC).reshape(-1, CHANNELS))
            own.append(box.pixels(cells_HW).sum())
            truth.append(cells_HW.sum() * TILE**2 / SIDE**2)
            names.append(f"{seed}-{number:03}")
    features = Features(
        np.array(seen, np.float16),
        np.array(truth, np.float32),
        np.array(names),
        np.array([box.weight for box in boxes] * frames, np.float32),
        np.zeros(len(names), bool),
    )
    return features, np.array(own, np.float32)


def changed(features: Features, **columns: NDArray) -> Features:
    return Features(**(vars(features) | columns))


def learn(train: Features, *, seed: int = 0) -> CountHead:
    return fit_places(train, seed=seed, dropout=0.1, least_steps=cellnet.training.places.LEAST_STEPS)


def off(head: CountHead, features: Features, own_N: Cells) -> float:
    """Mean error of a tile's count."""
    return float(np.abs(head.answers(features) - own_N).mean())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cellnet.training.places, "EPOCHS", 3)
    monkeypatch.setattr(cellnet.training.places, "LEAST_STEPS", 1)


@pytest.mark.slow
def test_each_tile_gets_its_own_cells_though_frames_alone_were_counted() -> None:
    train, _ = clumps(100, seed=0)
    test, own_N = clumps(50, seed=1)
    head = learn(train)
    assert np.abs(test.truth_N - own_N).mean() > 2, "a share of the frame's count is far off where cells lie in clumps"
    assert off(head, test, own_N) < 0.5
    assert head.answers(test)[own_N == 0].mean() < 0.3 and 0 <= head.loss < 0.1 and head.seconds > 0


@pytest.mark.slow
def test_tiles_of_known_centres_are_learnt_alone(quick: None) -> None:
    train, own_N = clumps(20, seed=0)
    known = changed(train, truth_N=own_N, exact_N=np.ones(len(own_N), bool))
    shifted = changed(known, weight_N=np.zeros(len(own_N), np.float32))
    of_one_frame = changed(known, frame_N=np.array(["one frame"] * len(own_N)))
    counts_N, *others = (learn(of).answers(train) for of in (known, shifted, of_one_frame))
    assert all(np.array_equal(other_N, counts_N) for other_N in others), "neither weights nor frames matter"
    in_frames = changed(known, exact_N=np.zeros(len(own_N), bool))
    assert not np.array_equal(learn(in_frames).answers(train), counts_N)


@pytest.mark.slow
def test_known_centres_and_counts_of_frames_teach_together() -> None:
    counted, _ = clumps(60, seed=0)
    centred, own_N = clumps(30, seed=2)
    head = learn(counted.and_of(changed(centred, truth_N=own_N, exact_N=np.ones(len(own_N), bool))))
    test, own_N = clumps(50, seed=1)
    assert off(head, test, own_N) < 0.6


@pytest.mark.slow
def test_a_tile_that_is_not_of_its_frames_grid_says_nothing(quick: None) -> None:
    train, own_N = clumps(20, seed=0)
    nothing = changed(train, truth_N=np.full(len(own_N), np.nan, np.float32), weight_N=np.zeros(len(own_N), np.float32))
    assert learn(train.and_of(nothing)).answers(train) == pytest.approx(learn(train).answers(train), rel=0.01)


@pytest.mark.slow
def test_frames_that_teach_several_times_are_counted_rather_as_they_were_taught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cellnet.training.places, "LEAST_STEPS", 150)
    old, _ = clumps(20, seed=0)
    new, _ = clumps(2, seed=1)
    new = changed(new, truth_N=new.truth_N * 3)
    once = old.and_of(new)
    often = once.taught_again(set(new.frame_N.tolist()), most=5)
    wrong = [off(learn(of), new, new.truth_N) for of in (once, often)]
    assert wrong[1] < 0.9 * wrong[0]


@pytest.mark.slow
def test_layers_work_on_features_as_they_are() -> None:
    train, _ = clumps(20, seed=0)
    head = learn(train)
    weights = {name: value.numpy() for name, value in head.layers.state_dict().items()}
    inner = train.seen_NVC.astype(np.float32)
    for name in ("first", "second", "last"):
        inner = inner @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
        inner = np.logaddexp(0, inner) if name == "last" else inner.clip(0)
    assert head.answers(train) == pytest.approx(inner.sum(axis=(1, 2)), rel=1e-3)
    assert not head.layers.training


@pytest.mark.slow
def test_features_on_another_scale_are_learnt_alike(quick: None) -> None:
    train, _ = clumps(20, seed=0)
    larger = changed(train, seen_NVC=train.seen_NVC * np.float16(8))  # exact in 16 bits
    counts_N = learn(train).answers(train)
    assert learn(larger).answers(larger) == pytest.approx(counts_N, rel=0.05)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_layers_and_the_order_of_tiles_matters_little(quick: None) -> None:
    train, own_N = clumps(20, seed=0)
    one, same, other = (learn(train, seed=seed).layers.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    assert not torch.equal(one["first.weight"], other["first.weight"])
    order_N = np.random.default_rng(0).permutation(len(own_N))
    shuffled = Features(**{name: column[order_N] for name, column in train.columns.items()})
    assert learn(shuffled).answers(train) == pytest.approx(learn(train).answers(train), rel=0.02)
