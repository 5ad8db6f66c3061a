"""Wells, channels and planes by the paths of images, in Python as on the page (tests/integration/test_page.py)."""

import csv
import re
from pathlib import Path

import pytest

import serve
from cellnet.errors import ConfigError
from cellnet.images import channels, wells
from cellnet.images.wells import ImageName, Well, named_well, read_names

TESTS = Path(__file__).parents[2]
with (TESTS / "data/wells.csv").open(newline="", encoding="utf-8") as file:
    EXAMPLES = list(csv.DictReader(file))


def told(name: ImageName) -> dict[str, str]:
    """A name in the words of the table; a well that is open as ?C02|D05."""
    well = name.well.name if name.well else "?" * bool(name.could_be) + "|".join(one.name for one in name.could_be)
    plane = "" if name.plane is None else str(name.plane)
    return {"plate": name.plate, "well": well, "channel": name.channel or "", "plane": plane}


@pytest.mark.parametrize("example", EXAMPLES, ids=[f"{row['path']}-{row['source']}" for row in EXAMPLES])
def test_a_path_tells_plate_well_channel_and_plane(example: dict[str, str]) -> None:
    beside = [name for name in example["beside"].split("|") if name]
    found = told(read_names([*beside, example["path"]])[-1])
    assert found == {key: example[key] for key in found}


def test_the_page_has_the_same_grammar() -> None:
    page = (Path(serve.__file__).parent / "http/page.html").read_text(encoding="utf-8")
    texts = [
        *wells.FORMS,
        *wells.CHANNELS,
        wells.WORD,
        wells.LINE,
        wells.ALONE,
        wells.FOLDER,
        wells.UUID,
        wells.THUMBNAIL,
    ]
    missing = [text for text in (*texts, wells.PART) if re.sub(r"\(\?P<", "(?<", text) not in page]
    assert missing == []
    assert channels._TRANSMITTED.pattern in page


def test_a_certain_name_stays_as_it_is_whatever_lies_beside_it() -> None:
    alone = {row["path"]: read_names([row["path"]])[0].well for row in EXAMPLES}
    certain = {path: well for path, well in alone.items() if well}
    assert len(certain) > 90
    together = dict(zip(alone, (name.well for name in read_names(list(alone))), strict=True))
    assert {path: together[path] for path in certain} == certain


@pytest.mark.parametrize(
    ("pattern", "path", "well"),
    [
        (r"_([A-P])_x(\d)", "plate_B02_D5.png", None),
        (r"x_([A-P]\d\d)", "A01_x_C02_D5.png", "C02"),
        (r"_([A-P])_x(\d+)", "plate_C_x7.png", "C07"),
        (r"(?P<column>\d+)-(?P<row>[A-P])", "07-C.png", "C07"),
        (r"(?<col>\d+)-(?<row>[A-P])", "07-C.png", "C07"),
        (r"(?<row>\d+)x(?<col>\d+)", "3x7.png", "C07"),
        (r"(?:line)_(?P<well>[A-Z]\d)_(P\d)", "line_C7_P2.png", "C07"),
        (r"(?<=w)[a-p]\d+", "B02wc7.png", "C07"),
        (r"/([A-P]\d)/", "plate/B02/C7/D04.png", "C07"),
        (r"(?<q>['_])(?<row>C)(?<column>7)\k<q>", "B02_C7_.png", "C07"),
        (r"[A-Z]{2}\d\d", "AF48.png", "AF48"),
    ],
)
def test_a_pattern_tells_the_well_by_its_groups(pattern: str, path: str, well: str | None) -> None:
    _, found = read_names(["plate/B01/C1/_C_x1_01-C_1x1_line_C1_P1_x_C01_wc1_C1_AA01", path], pattern)
    assert (found.well.name if found.well else None) == well and found.could_be == ()


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(", r"--well-pattern '\(' is not a regular expression: missing \), unterminated subpattern at position 0"),
        (r"(\w)(\d)(\d)", r"leaves open which of its 3 groups is what; name them \(\?P<well>"),
        (r"(?P<line>\w)(\d)", "leaves open which of its 2 groups is what"),
        (r"_x(\d\d)", "finds a well in none of the 2 names, like P1/B02_1.png; one group is the well"),
        (r"_(\d)", "finds a well in none of the 2 names; '_1' in P1/B02_1.png is none"),
    ],
)
def test_a_pattern_that_tells_no_well_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_names(["P1/B02_1.png", "P1/B03_2.png"], pattern)


def test_a_pattern_leaves_plates_as_they_are() -> None:
    found = read_names(["P1/Images/x_B02.png", "P1/B03/x_B03.png"], r"x_(\w+)")
    assert [(name.plate, name.well) for name in found] == [("P1", Well(2, 2)), ("P1", Well(2, 3))]


def test_the_channels_and_planes_of_a_site_are_one_shot() -> None:
    shots = [
        *("P/ZStep_1/x_B02_s1_w1A52B1177-9DC7-4534-9623-9DCA396EFA00.tif", "P/ZStep_2/x_B02_s1_w2.tif"),
        *("P/x_B02_s2_w1.tif", "P/TimePoint_2/x_B02_s1_w1.tif"),
        *("r01c01f01p01-ch1sk1fk1fl1.tif", "r01c01f01p07-ch2sk1fk1fl1.tif", "r01c01f02p01-ch1sk1fk1fl1.tif"),
        *(
            "cells_w1BF_s1_t2.tif",
            "cells_w2561_s1_t2.tif",
            "cells_w1BF_s1_t3.tif",
            "cells_s1_w1.tif",
            "cells_s1_w2.tif",
        ),
        *("img_ch00.tif", "img_ch01.tif", "B - 03(fld 1 wv A - B z 1).tif", "B - 03(fld 1 wv C - D).tif"),
    ]
    found = [name.shot for name in read_names(shots)]
    same = [found.index(shot) for shot in found]
    assert same == [0, 0, 2, 3, 4, 4, 6, 7, 7, 9, 10, 10, 12, 12, 14, 14]


def test_wells_are_named_as_on_the_plate() -> None:
    names = ["A01", "P24", "Z48", "AA01", "AF48"]
    assert [well.name for name in names if (well := named_well(name))] == names
    assert [named_well(name) for name in ("AG01", "A49", "A00", "1A", "", "²3")] == [None] * 6
