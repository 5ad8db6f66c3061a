"""What a frozen network sees of tiles."""

from typing import Any

import numpy as np
import pytest

from cellnet.config.train import Augment, ModelSpec, Preprocess, TrainConfig
from cellnet.networks.weights import fresh_network
from cellnet.tasks import Task
from cellnet.training.seeing import VIEWS, features_from, see
from cellnet.training.tiles import UNKNOWN_CELLS
from tests.factories import noise

FRAMES = ("a1", "b2")


def seen(task: Task, augment: Augment) -> dict[str, Any]:
    """Of two tiles, the second of which has known centres."""
    model = ModelSpec(architecture="efficientnet_lite0", frozen=True)
    config = TrainConfig(task=task, model=model, augment=augment)
    cells_Bhw = np.zeros((2, 50, 50), np.uint8)
    cells_Bhw[0] = UNKNOWN_CELLS
    batch = {
        "pixels": np.stack([noise(200, 200, seed=seed) for seed in range(2)]),
        "label": np.array([1, 0]),
        "count": np.float32([3, 5]),
        "cells": cells_Bhw,
        "frame": np.array(FRAMES),
        "weight": np.float32([0.5, 1]),
    }
    return see(fresh_network(config, 2, mean_count=1), batch, Preprocess(tile_px=(200, 200)), config)


@pytest.mark.slow
@pytest.mark.parametrize(("augment", "others"), [(Augment(blur=0), False), (Augment(blur=1), True)])
def test_a_classifier_sees_every_orientation_and_what_other_instruments_would_record(
    augment: Augment, others: bool
) -> None:
    columns = seen("classify", augment)
    features = features_from([{name: column[i] for name, column in columns.items()} for i in range(2)], "classify")
    assert features.seen_NVC.shape[:2] == (2, VIEWS) and features.seen_NVC.dtype == np.float16
    assert features.truth_N.tolist() == [1, 0] and features.frame_N.tolist() == list(FRAMES)
    assert (features.other_NVC is not None) == others
    if features.other_NVC is not None:
        assert features.other_NVC.shape == features.seen_NVC.shape
        assert not np.array_equal(features.other_NVC, features.seen_NVC)


def test_a_counter_sees_every_place_and_which_counts_are_exact() -> None:
    columns = seen("count", Augment())
    features = features_from([{name: column[i] for name, column in columns.items()} for i in range(2)], "count")
    assert features.seen_NVC.shape[:2] == (2, 25**2)
    assert features.weight_N is not None and features.weight_N.tolist() == [0.5, 1]
    assert features.exact_N is not None and features.exact_N.tolist() == [False, True]
    assert features.truth_N.tolist() == [3, 5] and features.other_NVC is None
