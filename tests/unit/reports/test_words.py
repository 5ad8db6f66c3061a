"""What a reader is told in plain words."""

from dataclasses import replace

import numpy as np

from cellnet.reports.words import SPLITS_TOLD, headline, held_table
from tests.unit.reports.evaluated import classified, counted


def test_a_sentence_says_how_good_the_model_is() -> None:
    said = "5.0 % off per frame (95 % interval 0.0 to 15.0 %): 0.8 cells off a frame of 9.0 on average, over 4 frames."
    assert headline(counted()) == said
    assert headline(classified()) == "2 of 3 frames named right (95 % interval 0.0 to 100.0 %)."


def test_without_cells_there_is_no_share_to_be_off_by() -> None:
    plain = counted()
    empty = replace(plain, frames=replace(plain.frames, truth=np.zeros(4), output=np.array([0.0, 1, 2, 1])))
    assert headline(empty) == "1.0 cells off a frame of 0.0 on average, over 4 frames without cells."


def test_where_nothing_can_be_said_of_the_interval_the_reason_is_told() -> None:
    plain = classified()
    right = replace(plain, frames=replace(plain.frames, output=np.eye(2)[[0, 1, 1]]))
    assert headline(right) == "3 of 3 frames named right (no interval: all alike)."
    one = replace(plain, frames=replace(plain.frames, groups=["a"] * 3))
    assert headline(one) == "2 of 3 frames named right (no interval: one group)."


def test_the_data_are_told_by_split_and_a_split_without_frames_is_there() -> None:
    held = [{"lineage": "A549", "split": "train", "frames": 5, "groups": 1, "cells": 1035}]
    held += [{"lineage": "3T3", "split": "test", "frames": 1, "groups": 1, "cells": None}]
    rows = [[cell.replace("\N{NO-BREAK SPACE}", " ") for cell in row] for row in held_table(held)]
    assert rows == [
        ["lineage", "train", "test", "holdout", "all"],
        ["A549", "5 frames, 1 group, 1,035 cells", "none", "none", "5 frames, 1 group, 1,035 cells"],
        ["3T3", "none", "1 frame, 1 group", "none", "1 frame, 1 group"],
        ["all", "5 frames, 1,035 cells", "1 frame", "none", "6 frames, 1,035 cells"],
    ]
    assert len(held_table(held[:1])) == 2 and held_table([]) == []
    for split in ("train: what a network", "test: what chooses", "holdout: kept aside"):
        assert split in SPLITS_TOLD
