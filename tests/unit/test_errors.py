"""The tree of errors."""

import inspect
import pickle

import pytest

from cellnet import errors

CLASSES = [value for _, value in inspect.getmembers(errors, inspect.isclass)]


def test_every_error_is_exported_in_order() -> None:
    assert errors.__all__ == sorted(kind.__name__ for kind in CLASSES)


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_survives_the_pickling_between_processes(kind: type[Exception]) -> None:
    error = pickle.loads(pickle.dumps(kind("frame 7 is blank; export it again")))
    assert type(error) is kind and str(error) == "frame 7 is blank; export it again"
    assert isinstance(error, errors.CellnetError)
