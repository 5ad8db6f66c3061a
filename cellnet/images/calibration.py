"""How large a pixel is, as files say it: lengths in many units, and notes of microscopes' software."""

import math
import re
from collections.abc import Mapping
from typing import Final

PixelUm = tuple[float, float]
"""Width and height of a pixel, in micrometres."""

_SYMBOLS: Final = {
    "m": 1e6, "dm": 1e5, "cm": 1e4, "mm": 1e3, "µm": 1.0, "um": 1.0, "nm": 1e-3, "pm": 1e-6, "Å": 1e-4, "A": 1e-4,
    "in": 25_400.0, "ft": 304_800.0, "thou": 25.4, "mil": 25.4, "li": 25_400 / 12, "pt": 25_400 / 72,
}  # fmt: skip
"""Micrometres of the units of OME-XML (UnitsLength) and of what ImageJ users write."""
_WORDS: Final = {
    "micron": 1.0, "microns": 1.0, "umeter": 1.0, "inch": 25_400.0, "inches": 25_400.0, '"': 25_400.0,
    "angstrom": 1e-4, "angstroms": 1e-4, "ångström": 1e-4,
}  # fmt: skip
_PREFIXES: Final = {"": 1e6, "centi": 1e4, "milli": 1e3, "micro": 1.0, "nano": 1e-3, "pico": 1e-6}
_METRES: Final = re.compile("(centi|milli|micro|nano|pico|)met(?:er|re)s?")
PRINTED_DPI: Final = 1200
"""So many pixels an inch, or fewer, are a printer's or a screen's, of which ImageJ makes a scale in inches."""


def unit_um(name: str) -> float | None:
    """Micrometres of a unit of length, however it is spelt; None of what is no length, like pixel.

    >>> unit_um("µm"), unit_um("micrometre"), unit_um("\\\\u00B5m"), unit_um("Inch"), unit_um("pixel")
    (1.0, 1.0, 1.0, 25400.0, None)
    """
    text = re.sub(r"\\u00b5", "µ", name.strip(), flags=re.IGNORECASE).replace("μ", "µ").replace("Å", "Å")
    if (size := _SYMBOLS.get(text)) is not None:
        return size
    word = text.lower()
    if match := _METRES.fullmatch(word):
        return _PREFIXES[match[1]]
    return _WORDS.get(word, _SYMBOLS.get(word))


def length_um(number: str | float | None, unit: str) -> float | None:
    """A length in micrometres; None of what is no length."""
    try:
        value = float(number.strip().replace(",", ".") if isinstance(number, str) else number or 0)
    except ValueError:
        return None
    size = value * (unit_um(unit) or 0)
    return size if math.isfinite(size) and size > 0 else None


def pixel_of(x_um: float | None, y_um: float | None) -> PixelUm | None:
    """Width and height of a pixel of which one of them at least is known."""
    if x_um is None and y_um is None:
        return None
    return (x_um or y_um or 0.0, y_um or x_um or 0.0)


def of_imagej(description: str, units_a_pixel: tuple[float, float]) -> PixelUm | None:
    """As ImageJ says it: the unit in its description, and how long a pixel is in the tags of resolution."""
    unit = re.search(r"^unit=(.*)$", description, re.MULTILINE)
    own = re.search(r"^yunit=(.*)$", description, re.MULTILINE)
    if unit is None or (unit_um(unit[1]) == unit_um("inch") and units_a_pixel[0] * PRINTED_DPI >= 1):
        return None
    return pixel_of(length_um(units_a_pixel[0], unit[1]), length_um(units_a_pixel[1], (own or unit)[1]))


def of_metaseries(properties: Mapping[str, str]) -> PixelUm | None:
    """As MetaXpress and MetaMorph say it, in the `prop` elements of their XML."""
    if properties.get("spatial-calibration-state", "on").lower() not in ("on", "true", "1"):
        return None
    unit = properties.get("spatial-calibration-units", "")
    return pixel_of(*(length_um(properties.get(f"spatial-calibration-{axis}"), unit) for axis in "xy"))
