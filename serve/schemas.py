"""What the service says, as it goes over the wire: pydantic models, and so the OpenAPI description."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from cellnet.config import Task

Magnification = Literal["matched", "rescaled", "assumed"]
"""The predictor's words; taken from there, they would bring torch into the process that speaks HTTP."""


class Answer(BaseModel):
    """What one model says of one frame."""

    model: str
    """The version that said it, `name@number`."""
    task: Task
    probabilities: dict[str, float] | None = None
    """Of each lineage, of a classifier."""
    count: float | None = None
    """Cells in the whole frame, of a counter."""
    tiles: int
    magnification: Magnification


class ModelRefs(BaseModel):
    """The versions that answered; null where that model is not served."""

    classifier: str | None = None
    regressor: str | None = None


class Prediction(BaseModel):
    """What the models say of one image, or why they cannot."""

    image: str = Field(description="The image's name, as it was sent.")
    lineage: str | None = Field(default=None, description="The most probable lineage.")
    probabilities: dict[str, float] | None = Field(default=None, description="Of each lineage; they sum to 1.")
    count: float | None = Field(default=None, description="Cells in the whole frame.")
    tiles: int | None = Field(default=None, description="Tiles that the frame was cut into.")
    magnification: Magnification | None = Field(
        default=None,
        description="`matched` or `rescaled` to the training frames; `assumed` where a pixel size is not known.",
    )
    models: ModelRefs = Field(default_factory=ModelRefs, description="The versions that answered.")
    error: str | None = Field(default=None, description="Why this image could not be used; all else is null then.")


class Predictions(BaseModel):
    """One prediction an image, in the order sent."""

    predictions: list[Prediction]


class ModelInfo(BaseModel):
    """A model that is being served."""

    ref: str = Field(description="The version, `name@number`.")
    task: Task
    classes: list[str] = Field(description="Lineages that it knows; empty for a counter.")
    scores: dict[str, Any] = Field(description="By split of its bank; `holdout` is the report.")
    bank_digest: str = Field(description="The bank that it was trained on.")
    tile_px: tuple[int, int] = Field(description="Height and width, in pixels, of the smallest frame it takes.")
    pixel_um: float | None = Field(description="Micrometres a pixel that it was trained at, if known.")


class Models(BaseModel):
    """The models that are being served."""

    models: list[ModelInfo]


class Problem(BaseModel):
    """An error, after RFC 9457 (`application/problem+json`)."""

    type: str = "about:blank"
    title: str = Field(description="The status in words.")
    status: int
    detail: str = Field(description="What is wrong, with the image's name, and the next step.")
