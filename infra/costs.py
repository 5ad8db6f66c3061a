"""What cellnet costs a month: python infra/costs.py (the tables of infra/README.md), or --plates 40 for a lab of yours.

Figures are measured (tests/README.md; tests/benchmarks/costs.py) but for PRICES and ASSUMED, which are to be replaced.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MEASURED: Final = {
    "seconds of a CPU to answer a frame, frozen networks": 2.7,
    "seconds of a CPU to answer a frame, residual and density": 0.17,
    "tiles/s of a training on two CPUs": 556.0,
    "tiles of a frame": 35.0,
    "MB of a frame in a bank": 1.5,
    "writes of a frame's import": 1.0,
    "reads of a frame's import": 0.0,
    "writes of a frame's training": 1.0,
    "reads of a frame's training": 9.1,
    "writes of a look at the aliases": 0.0,
    "reads of a look at the aliases": 2.0,
    "writes of a look at all that is followed": 3.0,
    "reads of a look at all that is followed": 4.0,
    "writes of a correction": 6.0,
    "reads of a correction": 0.0,
}
"""By tests/benchmarks/costs.py and training.py, on two busy CPUs; lists are among the writes, since they cost the same.

Frames of 1,408×1,040 pixels, but in a bank those of a Harmony export: 1,080×1,080 with 16 bits."""
ASSUMED: Final = {
    "frames of a plate": 384.0,
    "days a month": 30.0,
    "hours a day in which plates come": 10.0,
    "share of the CPUs' time that is used then": 0.5,
    "passes of a training over its tiles": 40.0,
    "times faster a GPU trains than two CPUs": 20.0,
    "seconds between looks at the aliases": 2.0,
    "seconds between looks at all that is followed": 60.0,
}
"""Set yours. That a GPU is so much faster nobody has measured."""
PRICES: Final = {
    "CPU, hour": 0.05,
    "GPU machine, hour, spot": 0.25,
    "head, hour": 0.20,
    "GB stored, month": 0.023,
    "1,000 writes or lists": 0.005,
    "1,000 reads": 0.0004,
}
"""In dollars, assumed in November 2026 after list prices of AWS that were remembered and not looked up."""


@dataclass(frozen=True, kw_only=True)
class Lab:
    """Who uses it, and how much."""

    name: str
    plates: float
    """A day."""
    kept: float
    """The share of the frames that comes into a bank."""
    frozen: bool
    """Whether frozen networks answer, the default for few labelled frames."""
    learned: int
    """Frames that a training learns from."""
    trainings: int
    """A month."""
    corrections: int
    """A month."""
    head: bool = True
    """Whether a head of a cluster runs all the time."""


LABS: Final = (
    Lab(
        name="a lab, one GPU box", plates=2, kept=1, frozen=True, learned=500, trainings=8, corrections=200, head=False
    ),
    Lab(name="a core facility", plates=40, kept=0.2, frozen=False, learned=5_000, trainings=40, corrections=4_000),
    Lab(
        name="a thousand plates a day",
        plates=1_000, kept=0.02, frozen=False, learned=20_000, trainings=60, corrections=20_000,
    ),
)  # fmt: skip


def month(lab: Lab) -> dict[str, float]:
    """What a lab comes to in a month, by what it is; arithmetic and nothing else."""
    nets = "frozen networks" if lab.frozen else "residual and density"
    frame_s = MEASURED[f"seconds of a CPU to answer a frame, {nets}"]
    frames_a_day = lab.plates * ASSUMED["frames of a plate"]
    days, used = ASSUMED["days a month"], ASSUMED["share of the CPUs' time that is used then"]
    frames = frames_a_day * days
    cpus = max(2, math.ceil(frames_a_day * frame_s / (ASSUMED["hours a day in which plates come"] * 3600 * used)))
    answering_h = frames * frame_s / 3600
    tiles = lab.learned * MEASURED["tiles of a frame"]
    training_s = tiles * ASSUMED["passes of a training over its tiles"] / MEASURED["tiles/s of a training on two CPUs"]
    kept = frames * lab.kept

    def following(kind: str) -> float:
        looks = ("look at the aliases", "look at all that is followed")
        return sum(
            cpus * days * 86_400 / ASSUMED[f"seconds between {what.replace('look', 'looks', 1)}"]
            * MEASURED[f"{kind} of a {what}"]
            for what in looks
        )  # fmt: skip

    def asked(kind: str) -> float:
        return (
            kept * MEASURED[f"{kind} of a frame's import"]
            + lab.trainings * lab.learned * MEASURED[f"{kind} of a frame's training"]
            + lab.corrections * MEASURED[f"{kind} of a correction"]
            + following(kind)
        )

    return {
        "plates a day": lab.plates,
        "frames a month": frames,
        "CPUs, and processes, that answer at once": cpus,
        "hours of a CPU to answer": answering_h,
        "hours of a CPU that are paid": max(2 * 24 * days, answering_h / used),
        "trainings": lab.trainings,
        "hours on two CPUs for them": lab.trainings * training_s / 3600,
        "hours on a GPU for them": lab.trainings
        * training_s
        / ASSUMED["times faster a GPU trains than two CPUs"]
        / 3600,
        "hours of a head": 24 * days * lab.head,
        "GB more in the bank": kept * MEASURED["MB of a frame in a bank"] / 1000,
        "writes and lists of S3": asked("writes"),
        "reads of S3": asked("reads"),
        "requests of these to follow the registry": following("writes") + following("reads"),
    }


def priced(told: dict[str, float]) -> dict[str, float]:
    """Dollars a month of what `month` said, with the bank of a year."""
    return {
        "CPUs": told["hours of a CPU that are paid"] * PRICES["CPU, hour"],
        "GPUs": told["hours on a GPU for them"] * PRICES["GPU machine, hour, spot"],
        "head": told["hours of a head"] * PRICES["head, hour"],
        "storage after a year": 12 * told["GB more in the bank"] * PRICES["GB stored, month"],
        "S3 requests": told["writes and lists of S3"] / 1000 * PRICES["1,000 writes or lists"]
        + told["reads of S3"] / 1000 * PRICES["1,000 reads"],
    }


def table(labs: Sequence[Lab]) -> str:
    """Both as a table, a column a lab."""
    months = [month(lab) for lab in labs]
    dollars = [priced(told) for told in months]
    lines = [f"| a month | {' | '.join(lab.name for lab in labs)} |", "|---|" + "---:|" * len(labs)]
    lines += [f"| {name} | {' | '.join(_number(told[name]) for told in months)} |" for name in months[0]]
    lines += [f"| $ {name} | {' | '.join(_number(paid[name]) for paid in dollars)} |" for name in dollars[0]]
    lines.append(f"| $ in all | {' | '.join(_number(sum(paid.values())) for paid in dollars)} |")
    return "\n".join(lines)


def _number(value: float) -> str:
    """Three digits are known at most.

    >>> _number(0.1234), _number(12.34), _number(123456)
    ('0.12', '12', '123,000')
    """
    if value == 0 or value >= 10:
        digits = max(0, len(str(int(value))) - 3)
        return f"{round(value, -digits):,.0f}"
    return f"{value:.2g}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="What cellnet costs a month.")
    parser.add_argument("--plates", type=float, help="a day, of a lab of yours")
    parser.add_argument("--kept", type=float, default=0.2, help="share of the frames that comes into a bank (0.2)")
    parser.add_argument("--learned", type=int, default=2_000, help="frames that a training learns from (2000)")
    parser.add_argument("--trainings", type=int, default=20, help="a month (20)")
    parser.add_argument("--corrections", type=int, default=1_000, help="a month (1000)")
    parser.add_argument("--frozen", action="store_true", help="frozen networks answer, the default for few frames")
    given = parser.parse_args(argv)
    if given.plates is None:
        print(table(LABS))
        return
    print(table([Lab(name="yours", **vars(given))]))


if __name__ == "__main__":
    main()
