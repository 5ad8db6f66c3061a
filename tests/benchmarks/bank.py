"""How a bank's table grows: `python tests/benchmarks/bank.py OUT [NUMBER_OF_FRAMES...]`.

Rows alone, with images of those alone that are looked at: each size, and at each what is done to it in a process of its
own, as commands are. Made (table, splits and near-duplicates, in one import), shown (`cellnet bank show`), shown again,
added to by a thousand frames more, and its digest taken. One in twenty is a near-duplicate of another; four frames are
a well, 384 wells a plate. Beside each other stand seconds of a CPU, how they grow from size to size (exponent: 1 is in
proportion), and the memory of the largest process at most, of which some 700 bytes a frame are the rows that are
imported.

Then images of 64×64 pixels are truly imported, by Ray, made shards of, a tile a frame but for the holdout, and listed:
seconds, and what of them is the driver's CPU and memory, which is what one process has to do for all.

Writes OUT/bank.md.
"""

import contextlib
import hashlib
import io
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

import cv2
import numpy as np

from cellnet.bank.bank import Bank
from cellnet.bank.columns import Frames
from cellnet.bank.duplicates import BITS
from cellnet.bank.frames import Frame
from cellnet.bank.splits import held_by_split
from cellnet.bank.warnings import warnings_of
from cellnet.cli import main as main_of_cellnet
from cellnet.images.file import encode_png

SIZES: Final = (10_000, 100_000, 1_000_000)
IMPORTED: Final = (10_000, 100_000)
MORE: Final = 1000
STEPS: Final = {
    "made": "made, s of a CPU",
    "shown": "shown",
    "again": "shown again",
    "more": f"{MORE:,} more",
    "digest": "digest",
}
"""What is done to a bank, and its heading."""
SIDE: Final = 64
"""Pixels of an image that is imported."""
LOOKED_AT: Final = 1000
"""Frames of which the first few of each lineage are looked at."""
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
        measured.append(_said(what, str(size)))
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
    seconds, megabytes = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for step, told in STEPS.items():
            before = {path: path.stat().st_size for path in Path(folder).rglob("*.parquet")}
            done = _said("--step", step, str(size), folder)
            seconds[told] = done["seconds"]
            megabytes.append(done["megabytes"])
            if step == "more":
                written = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet") if path not in before)
                seconds[f"written for {MORE:,} more, kB"] = written / 1000
    return seconds | {"memory, MB at most": max(megabytes)}


def step(name: str, size: int, folder: str) -> dict[str, float]:
    """Seconds of a CPU that a step takes in this process, and its megabytes at most."""
    rows = drawn(size) if name == "made" else drawn(MORE, first=size) if name == "more" else Frames.of([])
    started = time.process_time()
    if name == "made":
        bank = Bank.create(folder)
        bank.add(rows)
    elif name in ("shown", "again"):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert main_of_cellnet(["bank", "show", folder]) == 0
    elif name == "more":
        assert Bank.open(folder).add(rows).added == MORE
    else:
        assert len(Bank.open(folder).digest) == 64
    seconds = time.process_time() - started
    if name == "made":
        for row in rows[:LOOKED_AT]:
            image_HW = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), np.uint8)
            bank.store.put(f"pixels/{row.frame}.png", encode_png(image_HW))
    return {"seconds": seconds, "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def _said(*arguments: str) -> dict[str, float]:
    """What this file prints when it is called so, in a process of its own."""
    told = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True)
    return dict(json.loads(told.stdout.splitlines()[-1]))


def imported(size: int) -> dict[str, float]:
    """Seconds in which small images are imported and made shards of, what the driver's CPU took; its megabytes."""
    from cellnet.config.train import Augment, TrainConfig
    from cellnet.places import Places
    from cellnet.store.place import place_of
    from cellnet.training.plan import make_plan
    from pipelines.ingest import ingest
    from pipelines.shards import make_shards

    random = np.random.default_rng(0)
    config = TrainConfig(task="classify", tile="frame", augment=Augment(shares=(1.0,), shifts=0), folds=0)
    with tempfile.TemporaryDirectory() as folder:
        for name, number in (("few", 64), ("all", size)):
            images = Path(folder) / name
            images.mkdir()
            lines = ["image,lineage,count,group"]
            for place in range(number):
                # blobs, of which a tile of 200 pixels packs as that of a real frame does
                image_HW = cv2.GaussianBlur(random.normal(0, 1, (SIDE, SIDE)), (0, 0), 3)
                (images / f"{place}.png").write_bytes(encode_png((128 + 300 * image_HW).clip(0, 255).astype(np.uint8)))
                lines.append(f"{place}.png,{LINEAGES[place // 4 % len(LINEAGES)]},{place % 97},w{place // 4}")
            (images / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        warm, _ = ingest(Path(folder) / "few" / "manifest.csv", Places(bank=place_of(Path(folder) / "warm")))
        make_shards(warm, make_plan(warm, config))  # Ray is started, and its workers have what they import
        before, watch = resource.getrusage(resource.RUSAGE_SELF), _Watch()
        bank, told = ingest(Path(folder) / "all" / "manifest.csv", Places(bank=place_of(Path(folder) / "bank")))
        import_s, import_cpu_s = watch.lap()
        shards = make_shards(bank, make_plan(bank, config))
        shards_s, shards_cpu_s = watch.lap()
        opened = Bank.open(Path(folder) / "bank")
        held_by_split(opened.frames)
        warnings_of(opened.frames)
        _, shown_cpu_s = watch.lap()
        after = resource.getrusage(resource.RUSAGE_SELF)
    assert told.added == size
    assert sum(shards.rows.values()) == len(opened.frames) - len(opened.split("holdout"))
    return {
        "imported, s": import_s,
        "CPU of the driver, s": import_cpu_s,
        "shards made, s": shards_s,
        "CPU of the driver, s ": shards_cpu_s,
        "listed, s of a CPU": shown_cpu_s,
        "memory of the driver, MB more": (after.ru_maxrss - before.ru_maxrss) / 1024,
    }


class _Watch:
    """What went by since it was looked at last."""

    def __init__(self) -> None:
        self.lap()

    def lap(self) -> tuple[float, float]:
        """Seconds, and those of this process's CPU."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        now = np.array([time.perf_counter(), used.ru_utime + used.ru_stime])
        passed, self._last = now - getattr(self, "_last", now), now
        return float(passed[0]), float(passed[1])


def drawn(number: int, *, first: int = 0) -> Frames:
    """Rows as an import has them, of which the first has this number."""
    random = np.random.default_rng(first)
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
        for place, bits_B in enumerate(bits_NB, first)
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        print(json.dumps(step(sys.argv[2], int(sys.argv[3]), sys.argv[4])))
    elif sys.argv[1:2] in (["--one"], ["--imported"]):
        print(json.dumps({"--one": one, "--imported": imported}[sys.argv[1]](int(sys.argv[2]))))
    else:
        main()
