"""The built-in sample: what it promises about seeds, counts, pictures and files."""

import csv
import functools
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cellnet.sample import LINEAGES, SampleFrame, draw_frame, draw_well, write_sample
from tests.factories import little_room


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@functools.cache
def a_frame(lineage: str, seed: int) -> SampleFrame:
    return draw_frame(lineage, np.random.default_rng((7, seed)))


def area_and_peak(frame: SampleFrame) -> tuple[float, float]:
    """Pixels a cell that differ from the background, and the cells' median peak over the background."""
    smooth_HW = cv2.GaussianBlur(frame.image_HW.astype(np.float32), (0, 0), 1.0)
    flat_HW = smooth_HW / cv2.blur(smooth_HW, (121, 121))
    peak_HW = cv2.dilate(flat_HW, np.ones((15, 15), np.uint8))
    x_N, y_N = frame.centres_N2.astype(int).T
    area = np.count_nonzero(np.abs(flat_HW - 1) > 0.1) / frame.count
    return area, float(np.median(peak_HW[y_N, x_N]))


def test_a_seed_gives_the_same_bytes_and_another_seed_another_picture() -> None:
    one, same, other = (draw_frame("A549", np.random.default_rng(seed), size_px=160) for seed in (1, 1, 2))
    assert one.image_HW.tobytes() == same.image_HW.tobytes()
    assert one.centres_N2.tobytes() == same.centres_N2.tobytes()
    assert one.image_HW.tobytes() != other.image_HW.tobytes()


def test_the_lineages_are_the_papers_in_its_order() -> None:
    assert LINEAGES == ("A549", "HUH7_denv", "3T3", "VERO6", "THP1", "SH-SY5Y", "A172", "HUH7_mayv")


@pytest.mark.parametrize("lineage", LINEAGES)
def test_each_lineage_is_a_grey_field_with_cells_whose_centres_are_known(lineage: str) -> None:
    frame = a_frame(lineage, 0)
    assert (frame.image_HW.shape, frame.image_HW.dtype, frame.lineage) == ((400, 400), np.uint8, lineage)
    assert (frame.centres_N2.shape, frame.centres_N2.dtype) == ((frame.count, 2), np.float32)
    assert 2 <= frame.count <= 110
    assert frame.centres_N2.min() >= 0 and frame.centres_N2.max() < 400
    assert 90 <= np.median(frame.image_HW) <= 150
    assert 6 <= frame.image_HW.std() <= 60


@pytest.mark.parametrize("lineage", LINEAGES)
def test_every_counted_cell_shows(lineage: str) -> None:
    frame = a_frame(lineage, 0)
    image_HW = frame.image_HW.astype(np.float32)
    rough_HW = cv2.blur(np.abs(image_HW - cv2.blur(image_HW, (41, 41))), (15, 15))
    empty = np.percentile(rough_HW, 10)
    x_N, y_N = frame.centres_N2.astype(int).T
    assert np.mean(rough_HW[y_N, x_N] > 1.3 * empty) >= 0.95


def test_density_varies_from_well_to_well() -> None:
    counts = [draw_well("VERO6", np.random.default_rng(seed)).count for seed in range(40)]
    assert max(counts) > 4 * min(counts)


def test_monocytes_are_smaller_and_brighter_than_glioblastoma_cells() -> None:
    def mean_of_two(lineage: str) -> NDArray[np.float64]:
        return np.mean([area_and_peak(a_frame(lineage, seed)) for seed in range(2)], axis=0)

    thp1, a172 = mean_of_two("THP1"), mean_of_two("A172")
    assert thp1[0] < 0.5 * a172[0]
    assert thp1[1] > 1.3 * a172[1]


def test_the_manifest_the_points_and_the_pictures_agree(tmp_path: Path) -> None:
    manifest = write_sample(tmp_path, wells_per_lineage=2, size_px=120, lineages=("3T3", "THP1"))
    assert manifest == tmp_path / "manifest.csv"
    frames, points = rows_of(manifest), rows_of(tmp_path / "points.csv")
    names = [row["image"] for row in frames[:3]]
    assert names == ["images/3T3_w00_f0.png", "images/3T3_w00_f1.png", "images/3T3_w01_f0.png"]
    assert Counter(row["group"] for row in frames) == {
        "3T3_w00": 2,
        "3T3_w01": 2,
        "THP1_w00": 2,
        "THP1_w01": 2,
    }
    in_frame = Counter(row["image"] for row in points)
    assert {row["image"]: int(row["count"]) for row in frames} == {
        row["image"]: in_frame[row["image"]] for row in frames
    }
    assert all(0 <= float(row[axis]) < 120 for row in points for axis in "xy")
    for row in frames:
        assert cv2.imread(str(tmp_path / row["image"]), cv2.IMREAD_UNCHANGED).shape == (120, 120)


def test_more_wells_fields_or_lineages_leave_the_other_pictures_as_they_were(tmp_path: Path) -> None:
    def write(folder: str, wells: int, fields: int, *lineages: str) -> None:
        counts = {"wells_per_lineage": wells, "fields_per_well": fields}
        write_sample(tmp_path / folder, **counts, size_px=120, seed=3, lineages=lineages)

    write("one", 1, 1, "A549", "THP1")
    write("two", 2, 2, "THP1")
    earlier = (tmp_path / "one" / "images" / "THP1_w00_f0.png").read_bytes()
    assert (tmp_path / "two" / "images" / "THP1_w00_f0.png").read_bytes() == earlier
    assert (tmp_path / "two" / "images" / "THP1_w01_f0.png").read_bytes() != earlier
    assert (tmp_path / "two" / "images" / "THP1_w00_f1.png").read_bytes() != earlier


def test_an_unknown_lineage_is_refused_with_the_list_of_the_known() -> None:
    known = "unknown lineage 'HeLa'; the sample has " + ", ".join(LINEAGES)
    with pytest.raises(ValueError, match=f"^{known}$"):
        draw_frame("HeLa", np.random.default_rng(0))


def test_an_unknown_lineage_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown lineage"):
        write_sample(tmp_path / "sample", lineages=("A549", "HeLa"), wells_per_lineage=1, size_px=100)
    assert not (tmp_path / "sample").exists()


def test_an_image_for_which_there_is_no_room_is_no_missing_one(tmp_path: Path) -> None:
    with little_room(2000), pytest.raises(OSError, match="File too large"):
        write_sample(tmp_path, lineages=("A549",), wells_per_lineage=1, fields_per_well=1, size_px=100)
    assert not (tmp_path / "manifest.csv").exists()
