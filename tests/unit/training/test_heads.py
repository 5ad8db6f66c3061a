"""The last layer alone: learnt from what the other layers see."""

import numpy as np
import pytest
import torch

from cellnet.training.heads import Features, Head, fit_head


def blobs(labels: list[int], *, seed: int, views: int = 2, spread: float = 0.5) -> Features:
    """Features (N, V, 4) around a place of each label, on scales that differ a thousandfold."""
    rng = np.random.default_rng(seed)
    label_N = np.array(labels, np.int64)
    places_KC = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], np.float32)
    seen_NVC = places_KC[label_N][:, None] + spread * rng.normal(size=(len(labels), views, 4))
    return Features((seen_NVC * [1, 1, 100, 0.1] + 5).astype(np.float16), label_N, np.array(["a"] * len(labels)))


def recall(head: Head, features: Features, label: int) -> float:
    said_N = head.answers(features).argmax(1)
    return float((said_N[features.truth_N == label] == label).mean())


@pytest.mark.parametrize("classes", [2, 3])
def test_a_head_names_what_it_was_not_shown(classes: int) -> None:
    train, test = (blobs([*range(classes)] * 40, seed=seed, spread=0.2) for seed in (0, 1))
    head = fit_head(train, 0.03, classes=classes, balanced=True)
    assert head.weight_KC.shape == (classes, 4) and head.bias_K.shape == (classes,)
    assert 0 < head.loss < 1 and all(recall(head, test, label) > 0.9 for label in range(classes))


def test_orientations_that_say_opposite_things_even_out() -> None:
    head = Head(weight_KC=torch.tensor([[1.0], [-1.0]]), bias_K=torch.zeros(2), loss=0, seconds=1)
    torn = Features(np.array([[[3.0], [-3.0]], [[3.0], [1.0]]], np.float16), np.zeros(2, np.int64), np.array(["a"] * 2))
    assert head.answers(torn)[:, 0] == pytest.approx([0.5, 0.93916], abs=1e-4)


def test_a_head_learns_from_other_instruments_too_and_is_asked_about_tiles_as_they_are() -> None:
    """Of two features that tell lineages apart, the other instruments do not have the clearer one."""
    rng = np.random.default_rng(0)
    label_N = np.tile(np.array([0, 1], np.int64), 100)
    seen_N1C = (label_N[:, None] * [6.0, 2.0] + rng.normal(size=(200, 2)))[:, None].astype(np.float16)
    other_N1C = (label_N[:, None] * [0.0, 2.0] + rng.normal(size=(200, 2)))[:, None].astype(np.float16)
    names_N = np.array(["a"] * 200)
    both = Features(seen_N1C, label_N, names_N, other_NVC=other_N1C)
    alone, robust = (
        fit_head(of, 1.0, classes=2, balanced=False) for of in (Features(seen_N1C, label_N, names_N), both)
    )
    abroad = Features(other_N1C, label_N, names_N)
    right = [float((head.answers(abroad).argmax(1) == label_N).mean()) for head in (alone, robust)]
    assert right[0] < 0.6 and right[1] > 0.75
    assert robust.answers(both).shape == (200, 2), "no further looks at what it is asked about"


def test_a_rare_lineage_weighs_as_much_as_a_common_one_where_it_is_to() -> None:
    train, test = blobs([0] * 190 + [1] * 10, seed=0, spread=0.8), blobs([0, 1] * 100, seed=1, spread=0.8)
    even, as_they_come = (fit_head(train, 0.01, classes=2, balanced=balanced) for balanced in (True, False))
    assert recall(even, test, 1) > recall(as_they_come, test, 1) + 0.1


def test_a_lineage_without_a_tile_is_never_named() -> None:
    train = blobs([0, 2] * 30, seed=0)
    head = fit_head(train, 0.01, classes=3, balanced=True)
    assert head.answers(train)[:, 1].max() < 1e-3
    assert recall(head, train, 0) > 0.9 and recall(head, train, 2) > 0.9


def test_tiles_are_chosen_with_all_that_is_known_of_them() -> None:
    features = blobs([0, 1, 2], seed=0)
    some = features.of(np.array([True, False, True]))
    assert some.truth_N.tolist() == [0, 2] and some.seen_NVC.shape == (2, 2, 4) and len(some.frame_N) == 2


def test_few_new_tiles_teach_as_many_times_as_is_asked_and_many_no_more_than_twice_what_the_others_do() -> None:
    tiles = blobs([0] * 12, seed=0)
    named = Features(tiles.seen_NVC, tiles.truth_N, np.array(["old"] * 9 + ["new"] * 3))
    assert named.taught_again({"new"}, most=2).times_N.tolist() == [1] * 9 + [2] * 3
    assert named.taught_again({"new"}, most=100).times_N.tolist() == [1] * 9 + [6] * 3
    assert named.taught_again({"old"}, most=100).times_N.tolist() == [1] * 12
    some = named.taught_again({"new"}, most=2).of(np.arange(12) > 7)
    assert some.and_of(some).times_N.tolist() == [1, 2, 2, 2] * 2


def test_what_teaches_several_times_is_named_rather_as_it_was_taught() -> None:
    train = blobs([0] * 60 + [1] * 3, seed=0, spread=0.8)
    train = Features(train.seen_NVC, train.truth_N, np.array(["old"] * 60 + ["new"] * 3))
    once, often = (
        fit_head(of, 0.01, classes=2, balanced=False) for of in (train, train.taught_again({"new"}, most=10))
    )
    test = blobs([0, 1] * 100, seed=1, spread=0.8)
    assert recall(often, test, 1) > recall(once, test, 1) + 0.1
