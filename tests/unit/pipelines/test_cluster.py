"""What every Ray job shares, without a Ray."""

import signal
from collections.abc import Callable

import pytest

from pipelines import cluster


def exits() -> None:
    raise SystemExit(0)


def fails() -> None:
    raise RuntimeError("the workers are gone")


@pytest.mark.parametrize("then", [lambda: None, exits, fails])
def test_ctrl_c_stops_a_job_though_ray_answers_it_in_its_own_way(then: Callable[[], None]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), cluster.stopped_by_ctrl_c():
        signal.signal(signal.SIGINT, lambda *_: None)
        signal.raise_signal(signal.SIGINT)
        then()
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.set_wakeup_fd(-1) == -1


def test_what_ends_a_job_that_nobody_stopped_is_left_as_it_is() -> None:
    for then, error in ((exits, SystemExit), (fails, RuntimeError)):
        with pytest.raises(error), cluster.stopped_by_ctrl_c():
            then()
    with cluster.stopped_by_ctrl_c():
        pass
