"""The page of plates over time."""

import re

from cellnet.reports.growth import series_of
from cellnet.reports.growth_page import growth_page
from tests.unit.reports.test_growth import grown


def texts(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def test_the_page_has_a_curve_a_treatment_a_plate_and_the_figures() -> None:
    plates = (
        ("P1", "B03", "DMSO", 20),
        ("P1", "B04", "DMSO", 20),
        ("P1", "C03", "drug", 40),
        ("P2", "B03", "DMSO", 20),
    )
    rows = [
        one
        for seed, (plate, well, treatment, doubling_h) in enumerate(plates)
        for one in grown(well, doubling_h, seed=seed, plate=plate, treatment=treatment)
    ]
    page = growth_page(series_of(rows, control="DMSO"))
    assert page.count("<svg") == 2 + 2
    said = texts(page)
    assert "4 wells over time" in said and "2 plates, 0 to 64 h" in said
    assert said.count("doubles in") > 6 and "rate, as a share of DMSO" in said
    assert "<script" not in page and not re.search(r'(?:src|href)="(?!#|data:)', page), "it holds all that it shows"


def test_names_from_outside_are_text() -> None:
    page = growth_page(series_of(list(grown("B03", 20, treatment="<b>$x^2$</b>", plate="<i>P"))))
    assert "<b>" not in page.replace("<b></b>", "") and "<i>P" not in page
    assert "$x^2$" in texts(page)


def test_wells_without_a_cell_are_drawn_as_none() -> None:
    rows = [one | {"count": 0.0} for one in grown("B03", 20)]
    assert "too few cells" in texts(growth_page(series_of(rows)))
