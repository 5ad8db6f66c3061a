"""What can be set, as it is listed."""

from typing import Annotated, Literal

import pytest
from pydantic import Field

from cellnet.config.bank import BankSettings
from cellnet.config.loading import Configuration
from cellnet.config.settings import Setting, like, settings_of
from cellnet.config.train import TrainConfig
from cellnet.config.tune import TuneConfig


class Inner(Configuration):
    sides: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] | Literal["auto"] = "auto"
    """Shares of
    `something`."""


class Outer(Configuration):
    inner: Inner = Inner()
    epochs: Annotated[int, Field(ge=1, strict=True)] | Literal["auto"] = "auto"
    """How often."""
    jitter: float = Field(default=0.1, ge=0, lt=1)
    name: str | None = None
    fast: bool = True
    kind: Literal["a", "b"] | Literal["auto"] = "a"


def test_every_setting_says_default_values_and_meaning() -> None:
    assert list(settings_of(Outer, skip=("name",))) == [
        Setting("inner.sides", "auto", "a list, [...], of a number above 0 up to 1 or auto", "Shares of something."),
        Setting("epochs", "auto", "a whole number from 1 or auto", "How often."),
        Setting("jitter", 0.1, "a number from 0 below 1", ""),
        Setting("fast", True, "true or false", ""),
        Setting("kind", "a", "a, b or auto", ""),
    ]


@pytest.mark.parametrize("kind", [TrainConfig, TuneConfig, BankSettings])
def test_no_setting_is_without_a_meaning(kind: type[Configuration]) -> None:
    listed = list(settings_of(kind))
    assert len(listed) >= 6
    assert [one.key for one in listed if not one.meaning] in ([], ["task"], ["train.task"])


def test_what_may_have_been_meant_is_near_or_in_a_section() -> None:
    keys = ["model.width", "epochs", "augment.blur"]
    assert [like(key, keys) for key in ("epoch", "width", "model.wdith", "blurr", "zzz")] == [
        "epochs",
        "model.width",
        "model.width",
        "augment.blur",
        None,
    ]
