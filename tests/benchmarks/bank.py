"""How a bank's table grows: `python tests/benchmarks/bank.py OUT [NUMBER_OF_FRAMES...]`.

Rows alone, without images: each size in a process of its own, made (table, splits and near-duplicates, in one import),
shown (opened, its tables and what will hurt a training), added to by a thousand frames more, and its digest taken. One
in twenty is a near-duplicate of another; four frames are a well, 384 wells a plate. Beside each other stand seconds,
how they grow from size to size (exponent: 1 is in proportion), and the memory of the process at most, of which some 400
bytes a frame are the rows that are imported.

Writes OUT/bank.md.
"""

import hashlib
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it runs from anywhere

import numpy as np

from cellnet.bank.bank import Bank
from cellnet.bank.columns import Frames
from cellnet.bank.duplicates import BITS
from cellnet.bank.frames import Frame
from cellnet.bank.splits import held_by_split
from cellnet.bank.warnings import warnings_of

SIZES: Final = (10_000, 100_000, 1_000_000)
MORE: Final = 1000
LINEAGES: Final = ("A549", "THP1", "3T3", "VERO6", "A172")


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    sizes = [int(text) for text in sys.argv[2:]] or list(SIZES)
    measured = []
    for size in sizes:
        said = subprocess.run(
            [sys.executable, __file__, "--one", str(size)], check=True, capture_output=True, text=True
        )
        measured.append(json.loads(said.stdout))
        print(size, measured[-1], flush=True)
    lines = ["| frames | " + " | ".join(measured[0]) + " |", "|---" * (len(measured[0]) + 1) + "|"]
    for size, row in zip(sizes, measured, strict=True):
        lines.append(f"| {size:,} | " + " | ".join(f"{value:,.4g}" for value in row.values()) + " |")
    for (less, before), (more, after) in zip(
        zip(sizes, measured, strict=True), list(zip(sizes, measured, strict=True))[1:], strict=False
    ):
        grown = [math.log(after[name] / before[name], more / less) if before[name] else math.nan for name in after]
        lines.append(f"| exponent to {more:,} | " + " | ".join(f"{value:.2f}" for value in grown) + " |")
    (out / "bank.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print((out / "bank.md").read_text(encoding="utf-8"))


def one(size: int) -> dict[str, float]:
    """Seconds of each step, and megabytes."""
    rows = drawn(size + MORE)
    with tempfile.TemporaryDirectory() as folder:
        seconds = {}
        started = time.perf_counter()
        Bank.create(folder).add(rows[:size])
        seconds["made, s"] = time.perf_counter() - started
        started = time.perf_counter()
        bank = Bank.open(folder)
        held_by_split(bank.frames)
        warnings_of(bank.frames)
        seconds["opened and described, s"] = time.perf_counter() - started
        started = time.perf_counter()
        before = {path: path.stat().st_size for path in Path(folder).rglob("*.parquet")}
        bank.add(rows[size:])
        seconds[f"{MORE:,} more, s"] = time.perf_counter() - started
        started = time.perf_counter()
        assert len(bank.digest) == 64
        seconds["digest, s"] = time.perf_counter() - started
        written = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet") if path not in before)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return seconds | {f"written for {MORE:,} more, kB": written / 1000, "memory, MB": memory}


def drawn(number: int) -> Frames:
    """Rows as an import has them."""
    random = np.random.default_rng(0)
    bits_NB = random.integers(0, 256, (number, BITS // 8), dtype=np.uint8)
    for copy, of in random.integers(0, number, (number // 20, 2)):
        bits_NB[copy] = bits_NB[of]
        bits_NB[copy, random.integers(0, BITS // 8, 8)] ^= np.uint8(1)
    return Frames.of(
        Frame(
            frame=hashlib.sha256(str(place).encode()).hexdigest(),
            source=f"/data/plate{place // 1536}/r{place // 64 % 24:02d}c{place // 4 % 16:02d}f{place % 4:02d}.png",
            lineage=LINEAGES[place // 4 % 384 % len(LINEAGES)],
            count=float(place * 7 % 97),
            group=f"plate{place // 1536}/{place // 4 % 384}",
            batch=f"plate{place // 1536}",
            height=1080,
            width=1080,
            bits=16,
            brightest=60_000,
            sharpness=0.1,
            fingerprint=bits_B.tobytes().hex(),
        )
        for place, bits_B in enumerate(bits_NB)
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one(int(sys.argv[2]))))
    else:
        main()
