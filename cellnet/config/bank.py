"""What is fixed when a bank is made."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from cellnet.config.choices import Finite
from cellnet.config.loading import Configuration, Stored


class Intensity(Configuration):
    """The rule that turns recorded grey values of a whole frame into 0..255; stored in the bank.

    A range suits frames of one instrument and bit depth, and so does `background`, which also evens out how bright they
    are. Float frames are spread over 0..65535 before it is applied.
    """

    rule: Literal["percentile", "range", "background"] = "percentile"
    """Of each frame alone (`percentile`), between two grey values (`range`), or around the frame's median."""
    low: Finite = 0.1
    """Percentile, or grey value, that becomes 0; of `background` by how much that value lies above the frame's median,
    which is a negative number."""
    high: Finite = 99.9
    """Percentile, or grey value, that becomes 255; of `background` likewise above the median."""

    def __str__(self) -> str:
        """What becomes 0 and 255, for a person."""
        if self.rule == "background":
            return f"grey values {-self.low:g} below and {self.high:g} above the median of the frame"
        values = "percentiles" if self.rule == "percentile" else "grey values"
        return f"{values} {self.low:g} and {self.high:g} of the frame"

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        if self.rule == "percentile" and not (self.low >= 0 and self.high <= 100):
            raise ValueError(f"percentiles are 0 to 100, not {self.low:g} and {self.high:g}")
        if self.rule == "background" and not self.low < 0 < self.high:
            raise ValueError(
                f"low and high are counted from the background, so low is below 0 and high above; not {self.low:g} and "
                f"{self.high:g}"
            )
        return self


class BankSettings(Configuration, Stored):
    """What is fixed when a bank is made: `bank.json`. A setting that comes later is left out of it while it is None.

    Format 2: the bank's frames lie in parts, which cellnets of before would take for none.
    """

    FORMAT: ClassVar[int] = 2

    intensity: Intensity = Intensity()
    holdout_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of each lineage's groups that is kept for the final report (the paper's 10 %)."""
    test_share: float = Field(default=0.3, gt=0, lt=1)
    """Share of the rest that chooses between epochs and trials (the paper's 70/30)."""
    seed: int = 0
    """Of the draw of groups into splits."""
