"""The first five minutes with one's own images, typed from the README, and the Python of the pages."""

import csv
import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest

from cellnet.cli import main
from cellnet.registry.registry import Registry
from cellnet.sample import draw_frame

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

README = Path(__file__).parents[2] / "README.md"
MANUAL = README.parent / "cellnet" / "README.md"
LINEAGES = ("THP1", "3T3")
QUICK = shlex.split(
    "--set folds=0 --set epochs=2 --set model.width=4 --set model.depth=2 --set augment.shifts=0 "
    "--set augment.shares=[1.0]"
)
"""After every training of the page, which takes minutes otherwise."""


def first_minutes() -> list[list[str]]:
    """The commands of the README's section, as words."""
    section = README.read_text(encoding="utf-8").partition("## The first five minutes")[2].partition("\n## ")[0]
    lines = [line.partition("#")[0] for line in section.splitlines() if line.startswith("    cellnet ")]
    return [shlex.split(line)[1:] for line in lines]


def draw_own_images(folder: Path) -> None:
    """`images/LINEAGE/*.png` with counts, and the images of another plate."""
    rng = np.random.default_rng(0)
    counts = [("image", "count")]
    for lineage in LINEAGES:
        for number in range(5):
            frame = draw_frame(lineage, rng, size_px=200)
            path = folder / "images" / lineage / f"{lineage}_{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), frame.image_HW)
            counts.append((path.name, str(frame.count)))
    with (folder / "images" / "counts.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(counts)
    (folder / "plate").mkdir()
    for well in ("B02", "B03"):
        cv2.imwrite(str(folder / "plate" / f"{well}.png"), draw_frame("THP1", rng, size_px=200).image_HW)


def test_the_first_five_minutes_of_the_readme(
    ray_started: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CELLNET_REGISTRY", raising=False)
    draw_own_images(tmp_path)
    *commands, last = first_minutes()
    assert last == ["serve"]  # until Ctrl-C: test_serve.py
    for words in commands:
        assert main([*words, *(QUICK if words[0] == "train" else ())]) == 0, words

    for page in (README, MANUAL):
        [lines] = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        exec(compile(lines, str(page), "exec"), {})

    registry = Registry.open(tmp_path / "registry")
    assert [registry.resolve(f"{name}:champion").number for name in ("classifier", "regressor")] == [1, 1]
    assert (tmp_path / "bank.html").is_file() and (tmp_path / "out" / "report.html").is_file()
    with (tmp_path / "results" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["image"]).name for row in rows] == ["B02.png", "B03.png"]
    assert all(row["lineage"] in LINEAGES and float(row["count"]) >= 0 for row in rows)
    assert (tmp_path / "results" / "plate.png").is_file()
