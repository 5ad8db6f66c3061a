"""What cellnet says of an image: the same object from `cellnet predict --json` and over HTTP. Free of torch."""

from collections.abc import Sequence
from typing import Final, Literal

from pydantic import BaseModel, Field

from cellnet.config.loading import is_none
from cellnet.images.quality import FLAGS, NO_USE, Flag
from cellnet.tasks import Task

Magnification = Literal["matched", "rescaled", "assumed"]

CAUTION: Final[dict[Magnification, int]] = {"matched": 0, "rescaled": 1, "assumed": 2}
"""How little is sure of a magnification."""


class Answer(BaseModel):
    """What one model says of one frame."""

    model: str
    """The version that said it, `name@number`."""
    task: Task
    probabilities: dict[str, float] | None = None
    """Of each lineage, of a classifier."""
    count: float | None = None
    """Cells in the whole frame, of a counter."""
    count_low: float | None = None
    count_high: float | None = None
    """Ends of its interval, where the model has one."""
    interval_level: float | None = None
    """Share of true counts that such intervals are made to hold."""
    unfamiliar: bool | None = None
    """Whether the frame is unlike the training images; None where the model cannot tell."""
    unfamiliar_reason: str | None = None
    quality: list[Flag] = []
    """What the frame is no use for."""
    focus: float | None = None
    """Its fine structure, as a multiple of the median of the training frames; None where that is not told."""
    tiles: int
    magnification: Magnification

    @property
    def lineage(self) -> str | None:
        """The most probable lineage, of a classifier."""
        return max(self.probabilities, key=self.probabilities.__getitem__) if self.probabilities else None


class FoundCell(BaseModel):
    """A cell that a counter found."""

    x: float = Field(description="Pixels of the frame as recorded, from its left edge.")
    y: float = Field(description="From its upper edge.")
    probability: float = Field(description="How sure the counter is of it, 0 to 1.")


class ModelRefs(BaseModel):
    """The versions that answered; null where there is no such model."""

    classifier: str | None = None
    regressor: str | None = None

    @property
    def refs(self) -> list[str]:
        """Those that there are."""
        return [ref for ref in (self.classifier, self.regressor) if ref]


class Timing(BaseModel):
    """Where the time of an image went, in milliseconds."""

    read_ms: float = Field(description="Decoding it, and cutting it into tiles.")
    models_ms: float = Field(description="Waiting for the models, and running them.")
    total_ms: float = Field(description="From its bytes to its prediction.")


class Prediction(BaseModel):
    """What the models say of one image, or why they cannot."""

    image: str = Field(description="The image's name, as it was given.")
    lineage: str | None = Field(default=None, description="The most probable lineage.")
    probabilities: dict[str, float] | None = Field(default=None, description="Of each lineage; they sum to 1.")
    count: float | None = Field(default=None, description="Cells in the whole frame.")
    count_low: float | None = Field(
        default=None, description="Low end of the count's interval; null where the model's test split allowed none."
    )
    count_high: float | None = Field(default=None, description="Its high end.")
    interval_level: float | None = Field(
        default=None, description="Share of true counts that such intervals are made to hold, like 0.9."
    )
    unfamiliar: bool | None = Field(
        default=None,
        description="True where the image is unlike the training images of a model that answered. Null where no model "
        "can tell. Whose answer that concerns, the next two say.",
    )
    lineage_unfamiliar: bool | None = Field(
        default=None,
        description="True where it is unlike those of the model that named the lineage: do not rely on the lineage.",
    )
    count_unfamiliar: bool | None = Field(
        default=None, description="True where it is unlike those of the model that counted: do not rely on the count."
    )
    unfamiliar_reason: str | None = Field(default=None, description="Which model says so, and of how much of it.")
    quality: list[Flag] | None = Field(
        default=None,
        description="What the image is no use for: `out_of_focus` beside the training frames (models of before do not "
        "tell), `saturated`, `empty`; mostly nothing. The first two are left out of the value of a well; an empty one "
        "has its part in it, since no cells are a count.",
    )
    focus: float | None = Field(
        default=None,
        description="Its fine structure beside coarse, as a multiple of the median of the training frames: by which "
        "`out_of_focus` is told, and a plate that is softer than these. Null where that is not known.",
    )
    tiles: int | None = Field(default=None, description="Tiles that the frame was cut into.")
    magnification: Magnification | None = Field(
        default=None,
        description="`matched` or `rescaled` to the training frames; `assumed` where a pixel size is not known.",
    )
    models: ModelRefs = Field(default_factory=ModelRefs, description="The versions that answered.")
    timing: Timing | None = Field(default=None, description="Where its time went, as served.")
    thumbnail: str | None = Field(
        default=None,
        exclude_if=is_none,
        description="A small picture of it with a contrast that a person sees, as a data URL, where it was asked for.",
    )
    points: list[FoundCell] | None = Field(
        default=None,
        exclude_if=is_none,
        description="The cells that were found, surest first, where they were asked for and the counter knows places.",
    )
    error: str | None = Field(default=None, description="Why this image could not be used; all else is null then.")
    channels: list[str] | None = Field(
        default=None, description="Names of its channels, of which one must be chosen, where that is the error."
    )

    @property
    def has_part_in_well(self) -> bool:
        """Whether it has its part in the value of its well: the one rule, wherever wells are told of.

        It has an answer, and is neither out of focus nor saturated (`NO_USE`). An empty one has its part: no cells
        are a count.

        >>> [Prediction(image="a.png", quality=flags).has_part_in_well for flags in ([], ["saturated"], ["empty"])]
        [True, False, True]
        """
        return self.error is None and not set(self.quality or ()) & set(NO_USE)

    @property
    def doubted(self) -> str:
        """What not to rely on where the image is unlike the training images, like "lineage and count"; else ""."""
        flags = {"lineage": self.lineage_unfamiliar, "count": self.count_unfamiliar}
        said = " and ".join(name for name, unfamiliar in flags.items() if unfamiliar)
        return said or ("answer" if self.unfamiliar else "")


def combine(image: str, answers: Sequence[Answer]) -> Prediction:
    """One prediction from each model's answer: the most tiles, the least certain magnification."""
    classified = next((answer for answer in answers if answer.task == "classify"), None)
    counted = next((answer for answer in answers if answer.task == "count"), None)
    least_sure = max(answers, key=lambda answer: CAUTION[answer.magnification])
    flags = [answer.unfamiliar for answer in answers if answer.unfamiliar is not None]
    focus = [answer.focus for answer in answers if answer.focus is not None]
    reasons = [f"{answer.model}: {answer.unfamiliar_reason}" for answer in answers if answer.unfamiliar]
    return Prediction(
        image=image,
        lineage=classified.lineage if classified else None,
        probabilities=classified.probabilities if classified else None,
        count=counted.count if counted else None,
        count_low=counted.count_low if counted else None,
        count_high=counted.count_high if counted else None,
        interval_level=counted.interval_level if counted else None,
        unfamiliar=any(flags) if flags else None,
        lineage_unfamiliar=classified.unfamiliar if classified else None,
        count_unfamiliar=counted.unfamiliar if counted else None,
        unfamiliar_reason="; ".join(reasons) or None,
        quality=[flag for flag in FLAGS if any(flag in answer.quality for answer in answers)],
        focus=min(focus, default=None),
        tiles=max(answer.tiles for answer in answers),
        magnification=least_sure.magnification,
        models=ModelRefs(
            classifier=classified.model if classified else None, regressor=counted.model if counted else None
        ),
    )
