"""When images were recorded, as instruments and people write it into names; what is left open is told."""

import csv
from dataclasses import replace

import pytest

from cellnet.images.times import BETWEEN, NO_HOUR, NONE, TWO, ZONES, NamedTime, over_time, read_times
from cellnet.images.wells import read_names
from tests.factories import ROOT

with (ROOT / "tests/data/times.csv").open(newline="", encoding="utf-8") as file:
    EXAMPLES = list(csv.DictReader(file))
"""Read by the page alike: tests/integration/test_page.py."""


def times(*paths: str, hours_between: float | None = None) -> list[NamedTime]:
    return read_times(read_names(paths), paths, hours_between=hours_between)


def hours(*paths: str, hours_between: float | None = None) -> list[float | None]:
    return [None if one.hours is None else round(one.hours, 4) for one in times(*paths, hours_between=hours_between)]


def left_open(*paths: str) -> list[str | None]:
    return [one.left_open for one in times(*paths)]


@pytest.mark.parametrize("row", EXAMPLES, ids=lambda row: row["source"])
def test_hours_and_moments_in_names_are_hours_of_the_series(row: dict[str, str]) -> None:
    paths = row["paths"].split("|")
    names = read_names(paths)
    of_one = over_time(name.plate for name in names)
    told = read_times([replace(name, plate=of_one.get(name.plate, name.plate)) for name in names], paths)
    assert [one.hours for one in told] == [
        None if said == "-" else pytest.approx(float(said), abs=1e-3) for said in row["hours"].split()
    ]


@pytest.mark.parametrize(
    "names",
    [
        ("x_B03_t03_1.tif", "x_B03_t05_1.tif"),
        ("x_B03_T0001F001L01A01Z01C01.tif", "x_B03_T0003F001L01A01Z01C01.tif"),
        ("r02c03f01p01-ch1sk3fk1fl1.tiff", "r02c03f01p01-ch1sk5fk1fl1.tiff"),
        ("TimePoint_1/B03_s1_w1.tif", "TimePoint_3/B03_s1_w1.tif"),
        ("B03_time_0.png", "B03_time_2.png"),
    ],
)
def test_the_number_of_a_frame_is_an_hour_only_where_the_hours_between_frames_are_said(names: tuple[str, str]) -> None:
    paths = [f"P1/{name}" for name in names]
    assert hours(*paths, hours_between=1.5) == [0, 3]
    assert left_open(*paths) == [BETWEEN, BETWEEN] and hours(*paths) == [None, None]


@pytest.mark.parametrize(
    "name",
    [
        "r02c03f01p01-ch1sk1fk1fl1.tiff",
        "x_B03_T0001F001L01A01Z01C01.tif",
        "B03_20261129.tif",
        "B03.png",
        "well_T03.png",
    ],
)
def test_what_is_the_same_in_every_name_is_no_question(name: str) -> None:
    others = [name, name.replace("03", "04")]
    assert {(one.hours, one.left_open) for one in times(*(f"P1/{one}" for one in others))} == {(None, None)}


def test_what_differs_from_well_to_well_alone_is_no_series_and_no_question() -> None:
    assert left_open("P1/B03_t1.png", "P1/B04_t2.png", "P1/B05.png") == [None] * 3, "treatments, maybe"
    assert left_open("P1/B03_20261129.png", "P1/B04_20261130.png", "P1/B05_24h.png") == [None] * 3
    assert hours("P1/B03_24h.png", "P1/B04_48h.png", "P1/B05.png") == [24, 48, None]


def test_the_sites_of_one_scan_are_of_one_time() -> None:
    sites = [f"P1/B03_{site}_20261129_1200{second}.tif" for site, second in ((1, "01"), (2, "09"), (3, "17"))]
    assert hours(*sites) == [0, 0, 0]
    assert hours(*sites, "P1/B03_4_20261129_1400.tif") == [0, 0, 0, pytest.approx(2, abs=0.01)]


def test_folders_that_are_called_after_times_are_one_plate() -> None:
    plates = ["P1/0h", "P1/24h", "P1/day2", "P2/24h", "P2/B", "00d06h00m", "00d12h00m"]
    of_one = over_time(plates)
    assert of_one == dict.fromkeys(plates[:3], "P1") | dict.fromkeys(plates[-2:], "")
    paths = ["P1/0h/B03.png", "P1/24h/B03.png", "P1/day2/B03.png"]
    names = [replace(name, plate=of_one[name.plate]) for name in read_names(paths)]
    assert [time.hours for time in read_times(names, paths)] == [0, 24, 48]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("B03_20261129.tif", "B03_20261130.tif"), [NO_HOUR, NO_HOUR]),
        (("24h_B03_day1.tif", "48h_B03_day2.tif"), [TWO, TWO]),
        (("B03_20261129T1200Z.tif", "B03_20261129T1300.tif", "B03_20261129T1400Z.tif"), [None, ZONES, None]),
        (("B03_00d06h00m.tif", "B03_00d12h00m.tif", "B03.tif"), [None, None, NONE]),
        (("B03_20261129_0001.tif", "B03_20261129_0002.tif"), [None, None]),
        (("B03_20261301_1200.tif", "B03_20261302_1200.tif"), [None, None]),
        (("B03_20261129_2561.tif", "B03_20261129_2562.tif"), [None, None]),
    ],
)  # fmt: skip
def test_a_time_that_is_no_hour_for_certain_is_none_and_is_told(
    names: tuple[str, ...], expected: list[str | None]
) -> None:
    paths = [f"P1/{name}" for name in names]
    assert left_open(*paths) == expected
    assert all(time is None for time, why in zip(hours(*paths), expected, strict=True) if why or not any(expected))


def test_what_does_not_differ_gives_way_to_what_does() -> None:
    assert hours("P1/24h_B03_day1.tif", "P1/24h_B03_day3.tif") == [24, 72]
    assert hours("P1/20261129_1200_B03_t1.tif", "P1/20261129_1200_B03_t2.tif", hours_between=4) == [0, 4]
    assert hours("P1/B03_00d06h00m_t1.tif", "P1/B03_00d06h00m_t2.tif", hours_between=4) == [0, 4]
    assert hours("P1/B03_24h.tif", "P1/B04_24h.tif") == [24, 24]


def test_every_plate_counts_from_its_own_first_image() -> None:
    paths = [
        "P1/B03_20261129_1200.tif",
        "P1/B03_20261129_1800.tif",
        "P2/B03_20261130_0700.tif",
        "P2/B03_20261130_0900.tif",
    ]
    assert hours(*paths) == [0, 6, 0, 2]
    numbered = ["P1/B03_t1.tif", "P1/B03_t2.tif", "P2/B03_t5.tif", "P2/B03_t7.tif"]
    assert hours(*numbered, hours_between=2) == [0, 2, 0, 4]


def test_the_images_of_a_scan_are_of_one_time_also_where_one_is_missing() -> None:
    clock = {"B03_1": ("0900", "1502", "2100"), "B03_2": ("0901", "1503", "2101"), "C04_1": ("0930", "", "2130")}
    paths = [f"P1/{site}_20261129_{time}.tif" for site, times in clock.items() for time in times if time]
    first, second, third = 0.0, 6.025, 12.0
    assert hours(*paths) == [first, second, third, first, second, third, first, third]
