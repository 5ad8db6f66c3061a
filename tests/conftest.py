"""What every test may have, and the order in which files are run."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cellnet.registry.records import Card
from tests import factories

collect_ignore = ["benchmarks"]
"""They are no tests, and need more than the tests do."""


TOGETHER = ("test_pipelines.py", "test_versions.py", "test_train.py", "test_folds.py")
"""Files that share trained models, and so a process."""
FIRST = (*TOGETHER, "test_tune.py")
"""Files of minutes: begun first, so that no process is left with them at the end."""


def pytest_configure(config: pytest.Config) -> None:
    """The processes that tests start keep what they compile, or each would compile torch anew, for six seconds."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Networks of chance are the same ones whatever ran before in this process."""
    torch.manual_seed(0)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """As `--dist loadfile`, for what is run as one: what a file's tests share is made once.

    Some files share trained models, and searches share nothing. (With pytest 9.2, xdist 3.8 does not heed its own marks
    `xdist_group`.)
    """
    from xdist.scheduler import LoadFileScheduling

    class Shared(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if "/test_tune.py::" in nodeid:
                return nodeid
            file: str = super()._split_scope(nodeid)
            return TOGETHER[0] if Path(file).name in TOGETHER else file

    return Shared(config, log)


@pytest.fixture
def discs() -> Callable[..., factories.Drawn]:
    """`discs(12, seed=3)`: a noisy frame of 12 bright discs that do not touch, and their centres (12, 2)."""
    return factories.discs


@pytest.fixture
def card() -> Callable[..., Card]:
    """`card("count", pixel_um=0.5)`: the card of a tiny model of 200×200 tiles, grey values taken as they are."""
    return factories.card


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tiny networks are many times faster on one thread than on threads that wait for each other."""
    torch.set_num_threads(1)
