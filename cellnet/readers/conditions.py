"""What was done to the wells of a plate: a table of wells, or the layout of a Harmony export."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from cellnet.errors import DataError
from cellnet.images.wells import Well, named_well
from cellnet.readers.tables import read_csv
from cellnet.store.paths import AnyPath

FACTS = ("treatment", "dose", "lineage")


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What is known of a well besides its images; None where nothing is."""

    treatment: str | None = None
    dose: str | None = None
    """As it is written, with its unit: groups are told apart by it, nothing is computed with it."""
    lineage: str | None = None

    @classmethod
    def of(cls, row: Mapping[str, str]) -> "Condition":
        """Of the columns treatment, dose and lineage of a table, where it has them."""
        return cls(**{name: row.get(name) or None for name in FACTS})

    def over(self, other: "Condition") -> "Condition":
        """This, and where it knows nothing the other.

        >>> Condition(treatment="drug").over(Condition(treatment="DMSO", lineage="A549"))
        Condition(treatment='drug', dose=None, lineage='A549')
        """
        return replace(other, **{name: value for name in FACTS if (value := getattr(self, name)) is not None})


class PlateLayout(NamedTuple):
    """What a table says of wells: of a plate by its name, or of every plate (None)."""

    path: str
    wells: Mapping[str | None, Mapping[Well, Condition]]

    def of(self, plate: str, well: Well) -> Condition:
        """Of a well on a plate; what is said of that plate goes before what is said of every one."""
        every, one = (self.wells.get(name, {}).get(well, Condition()) for name in (None, plate))
        return one.over(every)

    def check(self, plates: Iterable[str]) -> None:
        """Raise DataError where it names a plate that is none of these."""
        there = sorted(plates)
        if unknown := [name for name in self.wells if name is not None and name not in there]:
            raise DataError(
                f"{self.path} names the plate {unknown[0]!r}, and of it is no image; there are {', '.join(there)}"
            )


def read_plate_layout(path: AnyPath) -> PlateLayout:
    """A table with the columns well and treatment and, where known, dose, lineage and plate.

    Raises DataError for a missing column, no rows, what is no well, and rows that contradict each other.
    """
    wells: dict[str | None, dict[Well, Condition]] = defaultdict(dict)
    rows = read_csv(path, ("well", "treatment"))
    if not rows:
        raise DataError(f"{path} has a header and no rows; add one row a well")
    for row in rows:
        well = named_well(row["well"])
        if well is None:
            raise DataError(f"{path} line {row.line}: {row['well']!r} is not a well; write C03 or r03c03")
        said = Condition.of(row)
        if wells[row["plate"] or None].setdefault(well, said) != said:
            raise DataError(
                f"{path} line {row.line} contradicts an earlier row of {well.name}; leave one row of the well"
            )
    return PlateLayout(str(path), wells)
