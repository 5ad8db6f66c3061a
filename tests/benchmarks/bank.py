"""How a bank's table grows: `python tests/benchmarks/bank.py OUT [NUMBER_OF_FRAMES...]`.

Rows alone, without images: each size in a process of its own, made (table, splits and near-duplicates, in one import),
shown (opened, its tables and what will hurt a training), added to by a thousand frames more, and its digest taken. One
in twenty is a near-duplicate of another; four frames are a well, 384 wells a plate. Beside each other stand seconds of
a CPU, how they grow from size to size (exponent: 1 is in proportion), and the memory of the process at most, of which
some 400 bytes a frame are the rows that are imported.

Then images of 64×64 pixels are truly imported, by Ray: seconds, and what of them is the driver's CPU and memory, which
is what one process has to do for all.

Writes OUT/bank.md.
"""

import hashlib
import itertools
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
from cellnet.images.file import encode_png

SIZES: Final = (10_000, 100_000, 1_000_000)
IMPORTED: Final = (5_000, 20_000)
MORE: Final = 1000
SIDE: Final = 64
"""Pixels of an image that is imported."""
LINEAGES: Final = ("A549", "THP1", "3T3", "VERO6", "A172")


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    sizes = [int(text) for text in sys.argv[2:]]
    tables = [
        _grown("--one", "frames", sizes or list(SIZES)),
        _grown("--imported", "frames of images", sizes or list(IMPORTED)),
    ]
    (out / "bank.md").write_text("\n\n".join(tables) + "\n", encoding="utf-8")
    print((out / "bank.md").read_text(encoding="utf-8"))


def _grown(what: str, heading: str, sizes: list[int]) -> str:
    """The table of what was measured at each size, each in a process of its own."""
    measured = []
    for size in sizes:
        said = subprocess.run([sys.executable, __file__, what, str(size)], check=True, capture_output=True, text=True)
        measured.append(json.loads(said.stdout.splitlines()[-1]))
        print(size, measured[-1], flush=True)
    lines = [f"| {heading} | " + " | ".join(measured[0]) + " |", "|---" * (len(measured[0]) + 1) + "|"]
    for size, row in zip(sizes, measured, strict=True):
        lines.append(f"| {size:,} | " + " | ".join(f"{value:,.4g}" for value in row.values()) + " |")
    steps = list(zip(sizes, measured, strict=True))
    for (less, before), (more, after) in itertools.pairwise(steps):
        grown = [math.log(after[name] / before[name], more / less) if before[name] else math.nan for name in after]
        lines.append(f"| exponent to {more:,} | " + " | ".join(f"{value:.2f}" for value in grown) + " |")
    return "\n".join(lines)


def one(size: int) -> dict[str, float]:
    """Seconds of a CPU that each step takes, and megabytes."""
    rows = drawn(size + MORE)
    with tempfile.TemporaryDirectory() as folder:
        seconds = {}
        started = time.process_time()
        Bank.create(folder).add(rows[:size])
        seconds["made, s of a CPU"] = time.process_time() - started
        started = time.process_time()
        bank = Bank.open(folder)
        held_by_split(bank.frames)
        warnings_of(bank.frames)
        seconds["opened and described"] = time.process_time() - started
        started = time.process_time()
        before = {path: path.stat().st_size for path in Path(folder).rglob("*.parquet")}
        bank.add(rows[size:])
        seconds[f"{MORE:,} more"] = time.process_time() - started
        started = time.process_time()
        assert len(bank.digest) == 64
        seconds["digest"] = time.process_time() - started
        written = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet") if path not in before)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return seconds | {f"written for {MORE:,} more, kB": written / 1000, "memory, MB at most": memory}


def imported(size: int) -> dict[str, float]:
    """Seconds of an import of small images, and of them what the driver's CPU took; its megabytes."""
    from cellnet.places import Places
    from cellnet.store.place import place_of
    from pipelines.ingest import ingest

    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for name, number in (("first", 1), ("all", size)):
            images = Path(folder) / name
            images.mkdir()
            lines = ["image,lineage,count,group"]
            for place in range(number):
                (images / f"{place}.png").write_bytes(encode_png(random.integers(0, 256, (SIDE, SIDE), np.uint8)))
                lines.append(f"{place}.png,{LINEAGES[place // 4 % len(LINEAGES)]},{place % 97},w{place // 4}")
            (images / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        ingest(Path(folder) / "first" / "manifest.csv", Places(bank=place_of(Path(folder) / "warm")))  # Ray is started
        before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        _, told = ingest(Path(folder) / "all" / "manifest.csv", Places(bank=place_of(Path(folder) / "bank")))
        took, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    assert told.added == size
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    grown = (after.ru_maxrss - before.ru_maxrss) / 1024
    return {"imported, s": took, "CPU of the driver, s": cpu, "memory of the driver, MB more": grown}


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
    if sys.argv[1:2] in (["--one"], ["--imported"]):
        print(json.dumps({"--one": one, "--imported": imported}[sys.argv[1]](int(sys.argv[2]))))
    else:
        main()
