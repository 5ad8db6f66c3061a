"""The frames that a model got most wrong, and none that it got right."""

from dataclasses import replace

import numpy as np

from cellnet.evaluation.evaluations import worst_rows
from cellnet.images.pictures import CENTRE
from cellnet.reports.worst import draw_worst, legend, worst_frames, worst_note, worst_table
from tests.unit.reports.evaluated import classified, counted, picture_of


def test_no_frame_that_was_named_or_counted_right_is_among_the_worst() -> None:
    for evaluation, wrong in ((classified(), 2), (counted(), 3)):
        assert worst_rows(evaluation.scores["task"], evaluation.frames) == [wrong]
    assert worst_table(classified()) == [["image", "true", "predicted"], ["c.png", "A549", "3T3 (70%)"]]
    assert worst_note(classified()) == "1 of 3 was named wrong."
    assert worst_note(counted()) == "1 of 4 was off by half a cell or more."


def test_where_all_are_right_that_is_said() -> None:
    counter, classifier = counted(), classified()
    counter = replace(counter, frames=replace(counter.frames, output=counter.frames.truth + 0.4))
    classifier = replace(classifier, frames=replace(classifier.frames, output=np.eye(2)[[0, 1, 1]]))
    assert worst_note(counter) == "None: 4 of 4 were counted right to half a cell."
    assert worst_note(classifier) == "None: 3 of 3 were named right."
    assert worst_table(counter) == worst_table(classifier) == []


def test_of_many_wrong_frames_it_is_said_how_many_are_shown() -> None:
    plain = counted()
    rows = replace(
        plain.frames, truth=np.arange(12.0), output=np.arange(12.0) ** 2, lineages=["A"] * 12, groups=["a"] * 12
    )
    many = replace(plain, frames=rows, sources=[f"{n}.tif" for n in range(12)])
    assert worst_note(many) == "10 of 12 were off by half a cell or more; the 8 worst are shown."
    assert worst_rows("count", rows) == [11, 10, 9, 8, 7, 6, 5, 4]


def test_what_was_found_and_the_known_centres_are_drawn_on_the_frame() -> None:
    found_HW = np.zeros((240, 320), np.float32)
    found_HW[100:140, 40:80] = 18 / 1600
    picture = picture_of(counted(), found_HW=found_HW, centres_N2=np.array([[60, 120], [250, 200]], np.float32))
    drawn_HW3 = draw_worst(picture).astype(int)
    coloured_HW = drawn_HW3.max(2) - drawn_HW3.min(2) > 60
    assert coloured_HW[105:135, 70:78].all() and not coloured_HW[160:180].any()
    ring_HW = np.abs(drawn_HW3 - CENTRE).max(2) < 12
    assert ring_HW[194:207, 244:257].any() and ring_HW[114:127, 54:67].any() and not ring_HW[:100].any()
    assert (drawn_HW3[119, 200:300] == 255).all(), "the lower border of the tile"


def test_the_legend_names_what_is_drawn_and_nothing_else() -> None:
    plain = counted()
    bare = replace(plain, worst=[picture_of(plain)])
    assert legend(bare).keys() == {"tile"}
    picture = picture_of(plain, found_HW=np.ones((240, 320), np.float32), centres_N2=np.ones((1, 2), np.float32))
    assert legend(replace(plain, worst=[picture])).keys() == {"found", "centre", "tile"}


def test_a_tile_says_what_was_counted_in_it_and_what_is_known_of_it() -> None:
    plain = counted()
    centres_N2 = np.ones((1, 2), np.float32)
    told = [picture_of(plain, centres_N2=centres_N2), picture_of(plain), picture_of(plain, truth=np.nan)]
    assert [frame.tile_words for frame in worst_frames(replace(plain, worst=told))] == [
        "this tile: 11.0 counted, 8 true",
        "this tile: 11.0 counted, 8.0 by its share of the frame",
        "this tile: 11.0 counted",
    ]
    named = classified()
    [frame] = worst_frames(replace(named, worst=[picture_of(named)]))
    assert (frame.words, frame.tile_words) == ("true A549, predicted 3T3 (70%)", "this tile: 3T3 70%, A549 30%")


def test_of_folds_the_count_of_the_published_network_is_told_apart() -> None:
    plain = counted()
    picture = picture_of(plain, found_HW=np.full((240, 320), 14.5 / (240 * 320), np.float32))
    own, folds = (
        replace(plain, scores=plain.scores | {"split": split}, worst=[picture]) for split in ("holdout", "folds")
    )
    assert worst_frames(own)[0].words == "true 15.0, predicted 18.0"
    assert worst_frames(folds)[0].words == "true 15.0, predicted 18.0; the published network finds 14.5"
    assert "learned from these frames afterwards" in legend(folds)["found"]
    assert "afterwards" not in legend(own)["found"]
