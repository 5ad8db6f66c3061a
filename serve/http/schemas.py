"""What the service says, as it goes over the wire: pydantic models, and so the OpenAPI description."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from cellnet.prediction.answers import Prediction
from cellnet.tasks import Task


class Predictions(BaseModel):
    """One prediction an image, in the order sent."""

    predictions: list[Prediction]


class ModelInfo(BaseModel):
    """A model that is being served."""

    ref: str = Field(description="The version, `name@number`.")
    role: str = Field(description="`classifier`, `regressor`, or the lineage that it alone counts.")
    alias: str = Field(description="`champion` or `challenger`, or what else was asked for.")
    engine: str = Field(description="What runs it.")
    task: Task
    classes: list[str] = Field(description="Lineages that it knows; empty for a counter.")
    scores: dict[str, Any] = Field(description="By split of its bank; `holdout` is the report.")
    bank_digest: str = Field(description="The bank that it was trained on.")
    tile_px: tuple[int, int] = Field(description="Height and width, in pixels, of the smallest frame it takes.")
    pixel_um: float | None = Field(description="Micrometres a pixel that it was trained at, if known.")


class Models(BaseModel):
    """The models that are being served."""

    models: list[ModelInfo]
    corrections: bool = Field(description="Whether what people say is written into a bank (`/v1/labels`).")


class Problem(BaseModel):
    """An error, after RFC 9457 (`application/problem+json`)."""

    type: str = "about:blank"
    title: str = Field(description="The status in words.")
    status: int
    detail: str = Field(description="What is wrong, with the image's name, and the next step.")
    error: str = Field(description="The detail again, where clients of the Open Inference Protocol look for it.")
    request_id: str | None = Field(default=None, description="What the service's log calls the request.")
    channels: list[str] | None = Field(
        default=None, description="Names of the image's channels, where the problem is that one must be chosen."
    )


class Readiness(BaseModel):
    """Whether the service answers, and with what the registry says."""

    status: Literal["ok", "stale"] = Field(description="`stale`: other versions may be served than the registry says.")
    problems: list[str] = Field(description="Why; told only to those who have a key, where keys are asked for.")
    registry_answered: str = Field(description="When the registry last answered, UTC, ISO 8601.")
