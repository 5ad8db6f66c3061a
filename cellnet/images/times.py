"""When images were recorded, in hours of their plate's series, by what their paths say.

The times of a plate are read by the first of these rules by which images of one well differ, or else by the first that
finds any, since what is the same in all names (a day of preparation, 24h of a treatment) is the time of no frame:

1. Hours as Incucyte and INCell write them: 00d06h00m, (fld 1 time 3 - 7200000 ms).
2. A date with an hour: 2026y11m29d_12h00m, 20261129_1200, 2026-11-29T12-00-30Z. Hours are counted from the first of
   the plate. Images of a scan are of one time: from where a name comes again, or nothing came for half the shortest
   time until it does (for half an hour, if none does), a scan begins.
3. A word: 24h, 6.5hr, 72hours, 90min, 3days, day3. Folders that are called so, two at least, are one plate over time.
4. The number of a frame, which is no hour: T0001, sk3, t03, tp3, time_3, TimePoint_3. With the hours between frames
   it is one, counted from the lowest of the plate.

What is left open is told: numbers without hours between them, dates without an hour, two times in one name.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from statistics import median
from typing import Any, Final, NamedTuple

from cellnet.images.wells import ImageName

_ELAPSED: Final = re.compile(r"(?<![A-Za-z0-9])(\d{1,3})d(\d{1,2})h(\d{1,2})m(?![A-Za-z0-9])", re.ASCII)
_MILLISECONDS: Final = re.compile(r"[ -]time \d+ - (\d{1,12}) ?ms\)", re.ASCII)
_DATE: Final = r"(?<!\d)((?:19|20)\d\d)[y._-]?(0[1-9]|1[0-2])[m._-]?(0[1-9]|[12]\d|3[01])d?"
_DAY: Final = re.compile(rf"{_DATE}(?!\d)", re.ASCII)
_MOMENT: Final = re.compile(
    rf"{_DATE}[T _-]{{1,3}}(?:(?P<whole>\d{{4}}(?:\d\d)?)|(\d\d)([:.h-])(\d\d)(?:(?:\6|m)(\d\d)s?|m)?)(?!\d)"
    r"(?P<zone>Z(?![A-Za-z])|[+-]\d\d:?\d\d(?!\d))?",
    re.ASCII,
)
_WORD: Final = re.compile(
    r"(?<![A-Za-z0-9.,])[Tt]?=?(\d{1,4}(?:[.,]\d+)?) ?(h|hrs?|hours?|min|minutes?|days?)(?![A-Za-z0-9])"
    r"|(?<![A-Za-z0-9])(day)[ _-]?(\d{1,3})(?![0-9A-Za-z])",
    re.ASCII | re.IGNORECASE,
)
_NUMBER: Final = re.compile(r"(?<![A-Za-z0-9])[Tt](?:p|P|ime(?:[Pp]oint)?)?[ _=-]?(\d{1,6})(?![0-9A-Za-z])", re.ASCII)
_FOLDER: Final = re.compile(r"(?:^|/)[Tt]ime[Pp]oint_?(\d{1,6})(?=/)", re.ASCII)
_HOURS: Final = {"h": 1.0, "m": 1 / 60, "d": 24.0}
"""Of the units of words, by their first letter."""

BETWEEN: Final = "hold the number of a frame, which is no hour; --hours-between says how far apart frames are"
NO_HOUR: Final = "hold a date without an hour; time_h in a manifest.csv says the time"
TWO: Final = "could mean two times; time_h in a manifest.csv says the time"
ZONES: Final = "hold a date without its time zone, where others of the plate have one, so they are on no curve"
NONE: Final = "hold no time, where others of the plate do, so they are on no curve"


class NamedTime(NamedTuple):
    """What the path of an image says of its time."""

    hours: float | None = None
    left_open: str | None = None
    """Why there are none, in words, where that is worth saying."""
    numbered: bool = False
    """Whether the name holds the number of a frame."""


def over_time(plates: Iterable[str]) -> dict[str, str]:
    """The folders of plates that are times of one plate, and the folder above, which is that plate.

    >>> over_time(["P1/24h", "P1/day 2", "P2/24h", "P3"])
    {'P1/24h': 'P1', 'P1/day 2': 'P1'}
    """
    above: dict[str, list[str]] = defaultdict(list)
    for plate in dict.fromkeys(plates):
        parent, _, name = plate.rpartition("/")
        if _ELAPSED.fullmatch(name) or _WORD.fullmatch(name):
            above[parent].append(plate)
    return {plate: parent for parent, held in above.items() if len(held) > 1 for plate in held}


Found = Sequence[list[float]]
"""What a rule finds in each of the paths of a plate: hours, seconds since 1970 or numbers."""
Told = list[NamedTime]


def read_times(names: Sequence[ImageName], paths: Sequence[str], *, hours_between: float | None = None) -> Told:
    """What each path says of its time, those of a plate considered together; `names` are what they say besides.

    >>> from cellnet.images.wells import read_names
    >>> paths = ["P1/B03_1_00d06h00m.tif", "P1/B03_1_00d00h00m.tif", "P2/B03_t1.tif"]
    >>> [time.hours for time in read_times(read_names(paths), paths)]
    [6.0, 0.0, None]
    """
    of_plate: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(names):
        of_plate[name.plate].append(place)
    told = [NamedTime()] * len(paths)
    for places in of_plate.values():
        times = _of_plate([names[place] for place in places], [paths[place] for place in places], hours_between)
        for place, time in zip(places, times, strict=True):
            told[place] = time
    return told


def _of_plate(names: Sequence[ImageName], paths: Sequence[str], hours_between: float | None) -> Told:
    """The times of a plate, by the first rule by which images of a well differ."""
    stems = [path.rpartition("/")[2] for path in paths]
    folders = [path.removeprefix(name.plate).rpartition("/")[0] for name, path in zip(names, paths, strict=True)]
    rules: tuple[tuple[Found, Callable[[list[float | None]], Told]], ...] = (
        ([_elapsed(stem) for stem in stems], _in_hours),
        (_moments(stems), lambda times: _since_first(times, stems)),
        ([list(_words(stem)) for stem in stems], _in_hours),
        ([_elapsed(folder) or list(_words(folder)) for folder in folders], _in_hours),
        ([_of_form(name) for name in names], lambda numbers: _numbered(numbers, hours_between)),
        (
            [_numbers(*pair) for pair in zip(names, stems, strict=True)],
            lambda numbers: _numbered(numbers, hours_between),
        ),
        ([_whole(_FOLDER, path) for path in paths], lambda numbers: _numbered(numbers, hours_between)),
    )
    held = [(found, say) for found, say in rules if any(found)]
    differing = [(found, say) for found, say in held if _differ(names, found)]
    days = [match and match[0] for match in map(_DAY.search, stems)]
    if not differing and _differ(names, [[day] if day else [] for day in days]):
        return [NamedTime(left_open=NO_HOUR if day else NONE) for day in days]
    if not held:
        return [NamedTime()] * len(paths)
    found, say = (differing or held)[0]
    place = _place(found)
    told = say([of[place or 0] if len(of) == 1 or (of and place is not None) else None for of in found])
    if not differing:  # nothing is over time, and nothing to be asked about
        return [time._replace(left_open=None) for time in told]
    return [
        NamedTime(left_open=TWO) if len(of) > 1 and place is None else NamedTime(left_open=NONE) if not of else time
        for of, time in zip(found, told, strict=True)
    ]


def _differ(names: Sequence[ImageName], found: Sequence[list[Any]]) -> bool:
    """Whether a rule finds different times for images of one well."""
    of_well: dict[Any, set[Any]] = defaultdict(set)
    for name, of in zip(names, found, strict=True):
        if of:
            of_well[name.well].add(tuple(of))
    return any(len(times) > 1 for times in of_well.values())


def _place(found: Found) -> int | None:
    """Which of several times in a name is the one: that by which the names differ; None where that is open."""
    longest = max(map(len, found))
    if any(len(of) not in (0, longest) for of in found):
        return None
    differing = [place for place in range(longest) if len({of[place] for of in found if of}) > 1]
    return (differing or [0])[0] if len(differing) < 2 else None


def _elapsed(stem: str) -> list[float]:
    times = [int(days) * 24 + int(hours) + int(minutes) / 60 for days, hours, minutes in _ELAPSED.findall(stem)]
    return times or [int(number) / 3_600_000 for number in _MILLISECONDS.findall(stem)]


def _words(stem: str) -> Iterator[float]:
    for number, unit, day, of_day in _WORD.findall(stem):
        yield float((number or of_day).replace(",", ".")) * _HOURS[(unit or day)[0].lower()]


def _of_form(name: ImageName) -> list[float]:
    return [float(name.time)] if name.time and name.time.isdecimal() else []


def _numbers(name: ImageName, stem: str) -> list[float]:
    """Numbers after a t or time, but that of a well in the row T."""
    of_well = name.well.column if name.well and name.well.letter == "T" else None
    return [number for number in _whole(_NUMBER, stem) if number != of_well]


def _whole(expression: re.Pattern[str], text: str) -> list[float]:
    return [float(number) for number in expression.findall(text)]


def _in_hours(times: list[float | None]) -> Told:
    return [NamedTime(hours=time) for time in times]


def _numbered(numbers: list[float | None], hours_between: float | None) -> Told:
    """Frames counted from the lowest number."""
    if hours_between is None:
        return [NamedTime(left_open=BETWEEN, numbered=True)] * len(numbers)
    first = min((number for number in numbers if number is not None), default=0)
    return [NamedTime(None if one is None else (one - first) * hours_between, numbered=True) for one in numbers]


class _Moment(NamedTuple):
    """A date with an hour in a name."""

    seconds: float
    """Since 1970; of one without a time zone as if it were UTC."""
    has_zone: bool
    may_be_number: bool
    """Whether what looks like its hour may be a number: 0012."""


def _moments(stems: Sequence[str]) -> Found:
    """Seconds since 1970; none where all are numbers like 20261129_0012, and a mark below 0 where zones are mixed."""
    found = [[moment for match in _MOMENT.finditer(stem) if (moment := _moment(match))] for stem in stems]
    if all(moment.may_be_number for of in found for moment in of):
        return [[] for _ in stems]
    zoned = any(moment.has_zone for of in found for moment in of)
    return [[moment.seconds if moment.has_zone == zoned else -1.0 for moment in of] for of in found]


def _moment(match: re.Match[str]) -> _Moment | None:
    year, month, day, whole, hour, _, minute, second, zone = match.groups()
    if whole:
        hour, minute, second = whole[:2], whole[2:4], whole[4:]
    offset = "+00:00" if zone in (None, "Z") else zone
    try:
        moment = datetime.fromisoformat(f"{year}-{month}-{day}T{hour}:{minute}:{second or '00'}{offset}")
    except ValueError:  # a number that looks like a date
        return None
    return _Moment(moment.timestamp(), zone is not None, bool(whole) and hour == "00")


def _since_first(times: list[float | None], stems: Sequence[str]) -> Told:
    """Hours since the first scan of the plate, each image at the time of its scan."""
    usable = [place for place, time in enumerate(times) if time is not None and time >= 0]
    keys = [_MOMENT.sub("", stems[place]) for place in usable]
    told = [NamedTime(left_open=ZONES)] * len(times)
    for place, hours in zip(usable, _scans([(times[place] or 0) / 3600 for place in usable], keys), strict=True):
        told[place] = NamedTime(hours=hours)
    return told


def _scans(hours_N: Sequence[float], keys: Sequence[str]) -> list[float]:
    """The time of the scan that each image is of, from the first one; `keys` are the same for one site.

    >>> [round(hours, 2) for hours in _scans([9.0, 9.1, 15.0, 15.1, 21.1], ["B03", "B04", "B03", "B04", "B04"])]
    [0.0, 0.0, 6.0, 6.0, 12.05]
    """
    order = sorted(range(len(hours_N)), key=lambda place: hours_N[place])
    last: dict[str, float] = {}
    repeats = []
    for place in order:
        if keys[place] in last and hours_N[place] > last[keys[place]]:
            repeats.append(hours_N[place] - last[keys[place]])
        last[keys[place]] = hours_N[place]
    shortest = min(repeats, default=1.0)
    scans: list[list[int]] = []
    begun: dict[str, float] = {}
    for place in order:
        again = begun.get(keys[place], hours_N[place]) < hours_N[place]
        if not scans or again or hours_N[place] - hours_N[scans[-1][-1]] > shortest / 2:
            scans.append([])
            begun = {}
        scans[-1].append(place)
        begun.setdefault(keys[place], hours_N[place])
    middles = [median(hours_N[place] for place in scan) for scan in scans]
    of = {place: middle - middles[0] for scan, middle in zip(scans, middles, strict=True) for place in scan}
    return [of[place] for place in range(len(hours_N))]
