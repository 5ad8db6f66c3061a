"""A service over two models whose answers are known."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cellnet.registry.registry import Registry
from tests.factories import champions
from tests.unit.serve.kitchen import Kitchen


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Classifier@1 and regressor@1, who counts one cell a tile."""
    return champions(tmp_path)


@pytest.fixture
def kitchen(registry: Registry) -> Callable[..., Kitchen]:
    """`kitchen(limits=...)`: a service over them."""
    return lambda **options: Kitchen(registry, **options)
