"""The benchmark of learning curves: who teaches, and what its figures are taken over."""

import pytest

from tests.benchmarks.learning_curves import SETS, Answer, lines_of, points_of, taught
from tests.factories import frame


def test_so_many_frames_of_each_lineage_teach_or_of_all_together() -> None:
    frames = [frame(number, lineage) for number, lineage in enumerate(["A", "B", "A", "A", "B"], start=1)]
    of_each = taught(frames, 2, each=True)
    assert [(one.frame, one.lineage) for one in of_each] == [(frames[i].frame, frames[i].lineage) for i in (0, 2, 1, 4)]
    assert taught(frames, 3, each=False) == frames[:3]
    assert len(taught(frames, 9, each=True)) == 5


def test_a_point_is_the_mean_over_draws_with_its_interval_over_groups() -> None:
    answers = [
        Answer(5, draw, group, 10.0, off)
        for draw, group, off in [(0, "a", 1.0), (0, "b", 3.0), (1, "a", 2.0), (1, "b", 6.0)]
    ]
    [point] = points_of("hemocytometer", answers)
    assert point.score == 3.0 and point.spread == (2.0, 4.0)
    assert point.interval == [1.5, 4.5]
    assert list(lines_of("hemocytometer", answers)) == [
        "| hemocytometer | 2, 2 | 5 | 3.00 (1.50–4.50), 30 % of 10.00 | 2.00–4.00 |"
    ]


@pytest.mark.parametrize("name", [name for name, of in SETS.items() if of.task == "classify"])
def test_of_a_classifier_the_share_of_frames_named_rightly_is_told(name: str) -> None:
    answers = [Answer(1, 0, group, 1.0, off) for group, off in [("a", 0.0), ("b", 1.0), ("c", 0.0), ("d", 0.0)]]
    [line] = lines_of(name, answers)
    assert line.startswith(f"| {name} | 4, 4 | 1 of each lineage | 0.75 (")
