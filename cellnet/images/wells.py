"""What the path of an image says of it: its plate, well, site, channel, plane and time.

The page reads names by the same rule, and `tests/data/wells.csv` has examples for both:

1. A name as an instrument writes it (`FORMS`) tells its well for certain.
2. Else a well is a word like B03, b3 or A_01. Of several, those are struck out that are more likely something else, as
   long as one is left, in this order: the names of cell lines (`LINE`); words without a field, where one has it
   (B03f2); small letters; letters apart from their number; rows and columns of plates of 1536 wells (T01, A25) that
   AA to AF do not tell; B3 beside B03; the letters N and P, and then C, D and F, which more often stand for a repeat, a
   passage or a plate, a channel, a day and a field.
3. Where two are left, either could be the well. One that is left is it, unless it is the name of a cell line, is of a
   plate of 1536, or is a day, a passage or the like by its letter (`HeLa_D5` and `f01`, but not `HeLa_D05` and `D5_1`).
4. What that leaves open, the other names of the folder decide that have as many such words behind the same signs
   (names like `HL60.C1.30` say nothing of `A549_C1_30`): the well is where most names have theirs for certain, or else
   where alone the words are of several rows. A day, a passage, a plate and a channel have the same letter in every
   name. A name that is certain stays as it is, whatever lies beside it, and one that is read as others are is told
   where these are not most, or it may name a line.
5. A name that does not tell its well may lie in a folder that does, B03/1.png; the plate is the folder above. Folders
   like A1, P01 and D5 do only where those beside them are of several rows.

`--well-pattern` takes the place of all that. Folders Images, ZStep_1 and TimePoint_1 are no plates.
"""

import re
import string
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from cellnet.errors import ConfigError

ROWS: Final[tuple[str, ...]] = (*string.ascii_uppercase, "AA", "AB", "AC", "AD", "AE", "AF")
COLUMNS: Final = 48

# Both Python and the page's JavaScript read these expressions; they stand there as they do here.
FORMS: Final = (
    # Harmony (Operetta, Opera Phenix): r03c05f01p01-ch1sk1fk1fl1
    r"(?<![A-Za-z0-9])[rR](?P<row>\d\d)[cC](?P<column>\d\d)(?!\d)(?:[fF](?P<site>\d+))?(?:[pP](?P<plane>\d+))?"
    r"(?:-ch(?P<channel>\d+))?(?:sk(?P<time>\d+))?",
    # Columbus: 003005-1-001001001
    r"(?<![A-Za-z0-9])(?P<row>\d{3})(?P<column>\d{3})-(?P<site>\d{1,4})-(?P<plane>\d{3})(?P<time>\d{3})"
    r"(?P<channel>\d{3})(?!\d)",
    # INCell: C - 05(fld 1 wv TL-Brightfield - Cy3 z 2)
    r"(?<![A-Za-z0-9])(?P<row>A[A-F]|[A-Z]) ?- ?(?P<column>\d{1,2}) ?\(fld (?P<site>\d+)(?: wv (?P<channel>.+?))?"
    r"(?:[ -]*z (?P<plane>\d+))?(?:[ -]*time (?P<time>\d+)[^)]*)?\)",
    # Yokogawa CV7000 and CV8000, and stitched: plate_C05_T0001F001L01A01Z01C01, C-05_F0001_T0001_Z0001_C01
    r"(?<![A-Za-z0-9])(?P<row>A[A-F]|[A-Z])(?P<column>\d\d)_T(?P<time>\d{4})F(?P<site>\d{3})L\d\dA\d\d"
    r"Z(?P<plane>\d\d)C(?P<channel>\d\d)",
    r"(?<![A-Za-z0-9])(?P<row>A[A-F]|[A-Z])-?(?P<column>\d\d)_F(?P<site>\d{3,4})(?:_T(?P<time>\d{4}))?"
    r"(?:_Z(?P<plane>\d{4}))?_C(?P<channel>\d\d)(?!\d)",
    # Cytation and Lionheart (Gen5): C5_02_1_1Z0_Bright Field_001
    r"(?<![A-Za-z0-9])(?P<row>A[A-F]|[A-Z])(?P<column>\d{1,2})_\d\d_\d+_(?P<site>\d+)(?:Z(?P<plane>\d+))?"
    r"_(?P<channel>[A-Za-z].*?)_(?P<time>\d{3})(?!\d)",
    # Incucyte, exported and as it keeps them: A172_Phase_C5_1_00d04h00m, Vessel_C5_1_2020y03m11d_12h00m, C5-1-Ph
    r"(?:[_ -](?P<channel>Phase|Green|Red|Orange|NIR)[A-Za-z]*_|(?<![A-Za-z0-9]))(?P<row>[A-Z])(?P<column>\d{1,2})"
    r"_(?P<site>\d+)_(?P<time>\d\dd\d\dh\d\dm|\d{4}y\d\dm\d\dd_\d\dh\d\dm)",
    r"^(?P<row>[A-Z])(?P<column>\d{1,2})-(?P<site>\d+)-(?P<channel>Ph?|C\d)(?![A-Za-z0-9])",
    # Leica's Matrix Screener, which counts from 0: image--L0000--S00--U04--V02--J08--E00--X00--Y01--T0000--Z00--C00
    r"--U(?P<column0>\d+)--V(?P<row0>\d+)--.*?(?P<site>X\d+--Y\d+)--T(?P<time>\d+)(?:--Z(?P<plane>\d+))?"
    r"--C(?P<channel>\d+)",
    # Acquifer: -C005--PO01--LO001--CO6--SL010--PX32500
    r"-(?P<row>[A-P])(?P<column>\d{3})--PO(?P<site>\d+)--LO(?P<time>\d+)--CO(?P<channel>\d)--SL(?P<plane>\d+)",
    # scanR, as it is renamed: C5--W00029--P00003--Z00000--T00000--Trans
    r"(?<![A-Za-z0-9])(?P<row>[A-P])(?P<column>\d{1,2})--W\d+--P(?P<site>\d+)--Z(?P<plane>\d+)--T(?P<time>\d+)"
    r"--(?P<channel>[^.]+)",
    # The word itself (NIS-Elements, people): WellC05_PointC05_0000_ChannelBF_Seq0001, Well C05, Field 1, well_c5
    r"(?<![A-Za-z])[Ww](?:ell|ELL)[ _-]?(?P<row>A[A-F]|[A-Za-z])(?: - |[ _-])?(?P<column>\d{1,2})(?!\d)"
    r"(?:_Point[A-Za-z0-9]+_(?P<site>\d+))?(?:_Channel(?P<channel>[^_.]+))?",
    # MetaXpress (ImageXpress), MetaMorph: plate_C05_s1_w2, plate_t0_C05_s0_w0_z0, plate_c05_w1BF
    r"(?:_t(?P<time>\d+)_|(?<![A-Za-z0-9]))(?P<row>[Aa][A-Fa-f]|[A-Za-p])(?P<column>\d\d)(?=_[sw]\d)"
    r"(?:_s(?P<site>\d+))?(?:_w(?P<channel>\d[A-Za-z0-9-]*))?(?:_z(?P<plane>\d+))?",
    # Cellomics, EVOS: scan_Plate_R_p00_0_C05f00d0
    r"(?<![A-Za-z0-9])(?P<row>A[A-F]|[A-Z])(?P<column>\d{1,2})[fs](?P<site>\d+)(?:[dw](?P<channel>\d+))?(?![A-Za-z0-9])",
)
"""How instruments name images; some groups are missing. row0 and column0 count from 0."""
CHANNELS: Final = (
    r"(?<![A-Za-z0-9])(?:CH|[Cc]h(?:annel)?)[ _-]?(?P<channel>\d{1,2})(?!\d)",
    r"_w(?P<channel>\d[A-Za-z0-9-]*)_s(?P<site>\d+)(?:_t(?P<time>\d+))?",
    r"_s(?P<site>\d+)_w(?P<channel>\d[A-Za-z0-9-]*)(?:_t(?P<time>\d+))?",
)
"""The channel in other names: img_ch01, and without a well cells_w1BF_s3_t2 and cells_s3_w1."""
WORD: Final = (
    r"(?<![A-Za-z0-9])(?:(A[A-F](?=\d\d)|[A-Za-z])(\d\d?)(?:(?![A-Za-z0-9])|(?=([fspztw]\d)))"
    r"|(?<![Pp]late[ _-])([A-P])(?: - |[ _-])(\d\d)(?![A-Za-z0-9]))"
)
"""What may be a well."""
LINE: Final = (
    r"(?:^|[^A-Za-z0-9])(?:[Hh][1479]|[Hh]23|[Cc]6|[Ll]6|[Ff]9|[Dd]3|[Jj]1|[Bb]16|[Ee]14|[Pp]19|[Dd]17"
    r"|[Cc][Hh][Oo][ _-]?K1|3[Tt]3[ _-]?L1|MC3T3[ _-]?E1|[Vv](?:ero|ERO)[ _-]?E6|[Jj](?:urkat|URKAT)[ _-]?E6)$"
)
"""Cell lines whose names end like wells, and have no 0 in front."""
ALONE: Final = r"^[A-Za-z]+\d+(?:field|fld|site|[fspz]|[ _()#,\d-])*(?:\.[A-Za-z]+)*$"
"""A name that is a well and a field at most."""
FOLDER: Final = r"^([Ww](?:ell|ELL)[ _-]?)?(?:(A[A-F](?=\d\d)|[A-Za-z])(?: - |[ _-])?(\d{1,2})|[rR](\d\d)[cC](\d\d))$"
"""A folder of one well."""
UUID: Final = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
"""MetaXpress ends its names in one."""
THUMBNAIL: Final = r"(?:^|[_\-. ])(?:[Tt]humb|THUMB)(?:nail|NAIL)?[sS]?(?:[0-9A-Fa-f]{8}-|[_\-. ]|$)"
"""Small copies, like MetaXpress's plate_C05_s1_w1_thumb and a UUID."""
PART: Final = r"^(?:[Ii]mages|IMAGES|[Tt]ime[Pp]oint_?\d+|[Zz][Ss]tep_?(\d+))$"
"""A folder that is a part of a plate; its group is the number of a plane."""

_FORMS, _CHANNELS = ([re.compile(text, re.ASCII) for text in texts] for texts in (FORMS, CHANNELS))
_WORD, _LINE, _ALONE, _FOLDER, _UUID, _THUMBNAIL, _PART = (
    re.compile(text, re.ASCII) for text in (WORD, LINE, ALONE, FOLDER, UUID, THUMBNAIL, PART)
)


class Well(NamedTuple):
    """A place on a plate; both from 1."""

    row: int
    column: int

    @property
    def letter(self) -> str:
        """The row as it is printed on the plate: A to Z, AA to AF."""
        return ROWS[self.row - 1]

    @property
    def name(self) -> str:
        """As the field writes it.

        >>> Well(2, 3).name, Well(32, 48).name
        ('B03', 'AF48')
        """
        return f"{self.letter}{self.column:02d}"


@dataclass(frozen=True, kw_only=True)
class ImageName:
    """What the path of an image says of it; None where it says nothing."""

    plate: str
    """The folder of its plate, as the path writes it."""
    well: Well | None = None
    could_be: tuple[Well, ...] = ()
    """Where the well is open: the two or more that it could be, or the one that may be none."""
    by_others: bool = False
    """Whether the well is read as in the other names of its folder, and that is worth saying."""
    site: str | None = None
    channel: str | None = None
    plane: int | None = None
    time: str | None = None
    shot: str
    """The same for the channels and planes of one site at one time."""


def well_at(row: int, column: int) -> Well | None:
    """The well of a row and a column, if a plate of 1536 wells has it."""
    return Well(row, column) if 1 <= row <= len(ROWS) and 1 <= column <= COLUMNS else None


def group_of(plate: str, row: int, column: int) -> str:
    """What frames of a well are kept together by: its plate and it.

    >>> group_of("P7", 2, 3)
    'P7/r02c03'
    """
    return f"{plate}/r{row:02d}c{column:02d}"


def named_well(text: str) -> Well | None:
    """The well that a text is the name of, and nothing besides.

    >>> [well and well.name for well in map(named_well, ("b3", "Well B - 03", "r02c03", "002003", "AF48", "B03_1"))]
    ['B03', 'B03', 'B03', 'B03', 'AF48', None]
    """
    if match := re.fullmatch(r"(\d{3})(\d{3})", text, re.ASCII):
        return well_at(int(match[1]), int(match[2]))
    match = _FOLDER.search(text.strip())
    return _well_in(match[2] or match[4], match[3] or match[5]) if match else None


def thumbnails(paths: Sequence[str]) -> set[str]:
    """The files that are small copies, by their names, of others in the same folder.

    >>> sorted(thumbnails(["a/x_w1_thumb.tif", "a/x_w1.tif", "a/cells_with_thumbnail.tif", "b/y_thumb.png"]))
    ['a/x_w1_thumb.tif']
    """
    cores = {path: _core(path) for path in paths}
    large = {core for core, is_small in cores.values() if not is_small}
    return {path for path, (core, is_small) in cores.items() if is_small and core in large}


def _core(path: str) -> tuple[str, bool]:
    """A path without what tells small copies from large ones, and whether its name says that it is one."""
    folder, _, name = path.rpartition("/")
    stem = _UUID.sub("", name).rpartition(".")[0] or name
    return f"{folder}/{_THUMBNAIL.sub('', stem)}", _THUMBNAIL.search(stem) is not None


def is_part_of_plate(folder: str) -> bool:
    """Whether a folder of that name holds a part of a plate: its images, a plane or a time.

    >>> [is_part_of_plate(name) for name in ("Images", "ZStep_2", "TimePoint_1", "P1")]
    [True, True, True, False]
    """
    return _PART.search(folder) is not None


def read_name(path: str) -> ImageName:
    """What a path says of an image by itself.

    >>> [read_name(path).well for path in ("r03c05f01p01-ch1sk1.tiff", "plateX_B02_D5_P6.png", "A172_HUH7_B16F10.png")]
    [Well(row=3, column=5), Well(row=2, column=2), None]
    >>> [well.name for well in read_name("A01_B02.png").could_be]
    ['A01', 'B02']
    """
    return read_names([path])[0]


def read_names(paths: Sequence[str], pattern: str | None = None) -> list[ImageName]:
    """What each path says of its image, those of a folder considered together; wells by a pattern where one is given.

    Raises ConfigError for a pattern that is no regular expression, does not tell a well by its groups, or fits no path.
    """
    files = [_read_file(path) for path in paths]
    if pattern is not None:
        return _by_pattern(files, pattern)
    folders = {file.plate: _read_folder(file.plate) for file in files}
    of_folders = dict(zip(folders, _by_others(folders.values(), [_above(folder) for folder in folders]), strict=True))
    by_others = _by_others([file.name for file in files], [file.plate for file in files])
    return [
        _image_name(file, folders[file.plate], other, of_folders[file.plate])
        for file, other in zip(files, by_others, strict=True)
    ]


class _Word(NamedTuple):
    """What may be a well in a name."""

    well: Well | None
    letters: str
    digits: str
    before: str
    """The sign before it; empty at the start."""
    is_line: bool
    has_field: bool
    is_apart: bool

    @property
    def is_far(self) -> bool:
        """Whether only a plate of 1536 wells has it, and its letters leave that open."""
        return self.well is not None and len(self.letters) == 1 and (self.well.row > 16 or self.well.column > 24)

    @property
    def is_faint(self) -> bool:
        """Whether it is too likely something else to be asked about: T01, and a channel, a day or a field like f1."""
        return self.is_far or (self.letters.islower() and self.rank < 2)

    @property
    def rank(self) -> int:
        """The lower, the likelier it is something else by its letter."""
        return 0 if self.letters in "NPnp" else 1 if self.letters in "CDFcdf" else 2


@dataclass(frozen=True, kw_only=True)
class _Name:
    """What the name of a file or folder says before it is compared with others."""

    words: list[_Word] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    """Those of the words that the well could be."""
    well: Well | None = None
    """The one that is certain."""

    @property
    def doubts(self) -> tuple[Well, ...]:
        """What is worth asking about."""
        left = [self.words[place] for place in self.left]
        return tuple(dict.fromkeys(word.well for word in left if word.well and not word.is_faint))


@dataclass(frozen=True, kw_only=True)
class _File:
    """What a path says, but for its well."""

    path: str
    name: _Name
    plate: str
    """The folder that is no mere part of a plate."""
    facts: dict[str, str | None]
    plane: int | None
    shot: str


class _Place(NamedTuple):
    """Which of their words the names of a folder have for their wells."""

    number: int
    of_most: bool
    """Whether most of them have it there for certain."""
    rows: int
    """In how many rows there are wells that are certain."""


class _Other(NamedTuple):
    """The well of a name by those beside it."""

    well: Well
    is_worth_saying: bool


def _above(folder: str) -> str:
    return folder.rpartition("/")[0]


def _read_file(path: str) -> _File:
    folder, _, name = path.rpartition("/")
    text = _UUID.sub("", name)
    match, other = (next(filter(None, (form.search(text) for form in forms)), None) for forms in (_FORMS, _CHANNELS))
    found = match or other
    facts = found.groupdict() if found else {}
    what = f"{_well_of(facts)} {facts.get('site')} {facts.get('time')}"
    shot = f"{text[: found.start()]}|{what}|{text[found.end() :]}" if found else text
    parts = [part for part in map(_PART.search, folder.split("/")) if part]
    planes = [facts.get("plane"), *(part[1] for part in reversed(parts))]
    return _File(
        path=path, name=_read_form(text, match) or _read_words(text), plate=_plate(folder), facts=facts,
        plane=next((int(plane) for plane in planes if plane), None),
        shot="/".join([part for part in folder.split("/") if not ((step := _PART.search(part)) and step[1])] + [shot]),
    )  # fmt: skip


def _plate(folder: str) -> str:
    """The folder, or the next above it that is no mere part of a plate."""
    while is_part_of_plate(folder.rpartition("/")[2]):
        folder = _above(folder)
    return folder


def _read_form(text: str, match: re.Match[str] | None) -> _Name | None:
    """A name as an instrument writes it; the last two forms are short, and a cell line or a time can have them too."""
    well = _well_of(match.groupdict()) if match else None
    if match is None or well is None:
        return None
    words = _words(text)
    left = [place for place, word in enumerate(words) if word.well == well]
    doubted = match.re in _FORMS[-2:] and left and (words[left[0]].is_line or words[left[0]].is_faint)
    return _Name(words=words, left=left, well=None if doubted else well)


def _read_words(text: str) -> _Name:
    words = _words(text)
    left = [place for place, word in enumerate(words) if word.well]
    for rather in _RATHER:
        left = [place for place in left if rather(words[place])] or left
    if any(words[place].digits.startswith("0") for place in left):
        left = [place for place in left if len(words[place].digits) == 2]
    best = max((words[place].rank for place in left), default=0)
    left = [place for place in left if words[place].rank == best]
    if len({words[place].well for place in left}) != 1:
        return _Name(words=words, left=left)
    word = words[left[0]]
    likely = word.rank == 2 or word.digits.startswith("0") or word.has_field or _ALONE.search(text)
    certain = likely and not word.is_line and not word.is_faint
    return _Name(words=words, left=left, well=word.well if certain else None)


_RATHER: Final[tuple[Callable[[_Word], bool], ...]] = (
    lambda word: not word.is_line,
    lambda word: word.has_field,
    lambda word: word.letters.isupper(),
    lambda word: not word.is_apart,
    lambda word: not word.is_far,
)


def _words(text: str) -> list[_Word]:
    return [
        _Word(
            well=_well_in(letters, digits), letters=letters, digits=digits, before=text[: match.start()][-1:],
            is_line=_LINE.search(text[: match.start()] + letters + digits) is not None,
            has_field=match[3] is not None, is_apart=match[1] is None,
        )
        for match in _WORD.finditer(text)
        for letters, digits in [(match[1] or match[4], match[2] or match[5])]
    ]  # fmt: skip


def _read_folder(folder: str) -> _Name:
    """A folder of one well; certain by the word, or by two digits and a letter that stands for nothing else."""
    match = _FOLDER.search(folder.rpartition("/")[2])
    well = _well_in(match[2] or match[4], match[3] or match[5]) if match else None
    if match is None or well is None:
        return _Name()
    letters, digits = match[2] or "", match[3] or match[5]
    word = _Word(well, letters, digits, "", _LINE.search(letters + digits) is not None, False, False)
    certain = match[1] or match[4] or (len(digits) == 2 and word.rank == 2 and not word.is_line and not word.is_far)
    return _Name(words=[word], left=[0], well=well if certain else None)


def _by_others(names: Iterable[_Name], folders: Iterable[str]) -> list[_Other | None]:
    """The wells of names that leave them open, by names beside them with as many words behind the same signs."""
    pairs = [
        (name, (folder, tuple(word.before for word in name.words))) for name, folder in zip(names, folders, strict=True)
    ]
    beside: dict[Hashable, list[_Name]] = defaultdict(list)
    for name, group in pairs:
        beside[group].append(name)
    places = {group: _place(group_names) for group, group_names in beside.items()}
    return [None if name.well else _other(name, places[group]) for name, group in pairs]


def _place(names: Sequence[_Name]) -> _Place | None:
    """Where most of the names have their well for certain, or else where alone the words are of several rows."""
    sure, open_, lines = ([set[Well]() for _ in names[0].words] for _ in range(3))
    for name in names:
        if name.well and name.left:
            sure[name.left[0]].add(name.well)
        for place, word in enumerate(name.words):
            if word.well and not word.is_far and not name.well:
                open_[place].add(word.well)
            if word.well and word.is_line:
                lines[place].add(word.well)
    found = []
    for place, (certain, others) in enumerate(zip(sure, open_, strict=True)):
        of_most, both = len(certain) > len(others), certain | others
        of_rows = len({well.row for well in both}) > 1 and 2 * len(lines[place]) < len(both)
        if (of_most or of_rows) and (certain or not any(sure)):
            found.append(_Place(place, of_most, len({well.row for well in certain})))
    return found[0] if len(found) == 1 else None


def _other(name: _Name, place: _Place | None) -> _Other | None:
    """The word at a place; one that only a plate of 1536 wells has where other names are certain of two rows."""
    if place is None:
        return None
    word = name.words[place.number]
    if word.well is None or (word.is_far and place.rows < 2):
        return None
    return _Other(word.well, not word.is_far and (word.is_line or not place.of_most))


def _image_name(file: _File, folder: _Name, other: _Other | None, folder_other: _Other | None) -> ImageName:
    of_folder = folder.well or (folder_other and folder_other.well)
    well = file.name.well or folder.well
    settled = None if well else other or folder_other
    well = well or (settled and settled.well)
    could_be = file.name.doubts or (folder.doubts if any(w.rank == 2 and not w.is_line for w in folder.words) else ())
    return _made(
        file, well, in_folder=well is not None and well == of_folder, could_be=() if well else could_be,
        by_others=settled is not None and settled.is_worth_saying,
    )  # fmt: skip


def _made(file: _File, well: Well | None, *, in_folder: bool, **more: Any) -> ImageName:
    return ImageName(
        plate=_plate(_above(file.plate)) if in_folder else file.plate, well=well, site=file.facts.get("site"),
        channel=file.facts.get("channel"), plane=file.plane, time=file.facts.get("time"), shot=file.shot, **more,
    )  # fmt: skip


def _well_of(facts: Mapping[str, str | None]) -> Well | None:
    """The well in the groups of an expression."""
    if facts.get("row0"):
        return well_at(int(facts["row0"] or 0) + 1, int(facts["column0"] or 0) + 1)
    return _well_in(facts.get("row") or "", facts.get("column") or facts.get("col") or "")


def _well_in(row: str, column: str) -> Well | None:
    """The well of a row, by its letters or number, and a column."""
    if not (column.isascii() and column.isdecimal() and len(row) + len(column) < 9):
        return None
    if row.isascii() and row.isdecimal():
        return well_at(int(row), int(column))
    return well_at(ROWS.index(row.upper()) + 1, int(column)) if row.upper() in ROWS else None


def _by_pattern(files: Sequence[_File], pattern: str) -> list[ImageName]:
    """A pattern with a / is searched in the whole path, one without in the name of the file."""
    expression = _compiled(pattern)
    names, seen = [], ""
    for file in files:
        match = expression.search(file.path if "/" in pattern else file.path.rpartition("/")[2])
        well = _well_by(match) if match else None
        seen = seen or (f"; {match[0]!r} in {file.path} is none" if match and not well else "")
        in_folder = well is not None and well == named_well(file.plate.rpartition("/")[2])
        names.append(_made(file, well, in_folder=in_folder))
    if files and not any(name.well for name in names):
        beside = seen or f", like {files[0].path}"
        raise ConfigError(
            f"--well-pattern {pattern!r} finds a well in none of the {len(files)} names{beside}; one group is the well "
            "(B03), or two are its row and column"
        )
    return names


def _compiled(pattern: str) -> re.Pattern[str]:
    """A pattern with named groups as Python or JavaScript writes them."""
    text = re.sub(r"(?<!\\)\(\?<(?=[A-Za-z_])", "(?P<", pattern)
    text = re.sub(r"\\k<(\w+)>", r"(?P=\1)", text)
    try:
        expression = re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(f"--well-pattern {pattern!r} is not a regular expression: {error}") from error
    named = expression.groupindex.keys()
    tells = "well" in named or ("row" in named and ("column" in named or "col" in named))
    if not tells and (named or expression.groups > 2):
        raise ConfigError(
            f"--well-pattern {pattern!r} leaves open which of its {expression.groups} groups is what; name them "
            "(?P<well>...), or (?P<row>...) and (?P<column>...), and write others (?:...)"
        )
    return expression


def _well_by(match: re.Match[str]) -> Well | None:
    """By groups of those names, or else by two of no name, by one, or by all that matches."""
    named = match.groupdict()
    if "row" in named:
        return _well_of(named)
    if "well" in named:
        return named_well(named["well"] or "")
    if len(match.groups()) == 2:
        return _well_in(match[1] or "", match[2] or "")
    return named_well(match[len(match.groups())] or "")
