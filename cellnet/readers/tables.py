"""Tables as people and their programs save them: read as a person would, or refused in one line.

Excel of many countries, R, pandas and ImageJ write tables in several encodings, with several separators, marks of
decimals and of thousands, and words for what is not known.
"""

import csv
import itertools
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from cellnet.errors import DataError, plain
from cellnet.images.file import open_regular
from cellnet.store.paths import AnyPath

MAX_BYTES: Final = 250 * 10**6
"""Of a table, whose rows take some ten times that in memory."""
PIECE: Final = 2**20
"""Characters of a table that are cut into lines together."""
NOT_KNOWN: Final = frozenset(
    {
        "", "na", "n/a", "n.a.", "#n/a", "#na", "<na>", "nan", "null", "none", "-", "--", "?", "unknown", "not known",
        "\N{EN DASH}", "\N{EM DASH}", "\N{MINUS SIGN}",
    }
)  # fmt: skip
"""What people and programs write into a cell of which nothing is known, in lower case."""
DOUBTFUL: Final = "?"
"""Ends a count that may be one of thousands or have decimals: 1.234?, which is then no number."""


class Row(dict[str, str]):
    """The cells of a row by the names of their columns, and the line of the file where it ends.

    Empty cells are not held, which a header of thousands of names has in every row; asked for they are empty texts.
    """

    def __init__(self, cells: Mapping[str, str], line: int, columns: Sequence[str]) -> None:
        super().__init__(cells)
        self.line = line
        self.columns = columns

    def __missing__(self, name: str) -> str:
        return ""


def read_csv(path: AnyPath, columns: Sequence[str], *, numbers: Sequence[str] = ()) -> list[Row]:
    """The rows of a table, by names of columns in lower case; of `Pixel um` and the like, as cellnet writes them.

    Cells have no blanks around them, and are empty where a word says that something is not known. Empty rows and
    comments are left out. UTF-8, UTF-16 and what a Western Excel writes are read; cells end at a comma, a semicolon
    or a tab, as `sep=` says or whichever the header has most of. In the columns `numbers` 12,5, 1 234 and 1.234,0 come
    back as 12.5, 1234 and 1234.0, and a count that nobody can be sure of with a `DOUBTFUL` mark. Raises DataError for a
    missing column, a row of too many cells, or no table.
    """
    names, separator, cells = read_cells(path, columns)
    rows = [_row(names, told, line) for told, line in cells]
    held = [name for name in numbers if name in names]
    marks = {mark for row in rows for name in held if (mark := _decimal_mark(row[name]))}
    for row in rows:
        row |= {name: _number(row[name], marks, separator, whole=name == "count") for name in held}
    return rows


def read_cells(path: AnyPath, columns: Sequence[str]) -> tuple[list[str], str, Iterator[tuple[list[str], int]]]:
    """The names of a table's columns, what separates its cells, and its rows: cells as they are written, and the line.

    A row may have fewer cells than there are names. Raises what `read_csv` raises, of a row when it is its turn.
    """
    separator, start, lines = _start(_lines(_text(path)))
    reader = csv.reader(lines, delimiter=separator)
    try:
        names = [_named(name) for name in next(reader, [])]
    except csv.Error as error:
        raise _no_table(path, error) from error
    _check_header(path, names, columns)
    return names, separator, _cells(path, reader, start, len(names))


def _cells(path: AnyPath, reader: Any, start: int, most: int) -> Iterator[tuple[list[str], int]]:
    """The rows that say something."""
    try:
        for cells in reader:
            if _says_something(cells):
                line = start + reader.line_num
                if len(cells) > most and any(map(_plain, cells[most:])):
                    raise DataError(
                        f"{path} line {line} has {len(cells)} cells, its header {most}; put quotes around what holds "
                        "the separator"
                    )
                yield cells, line
    except csv.Error as error:
        raise _no_table(path, error) from error


def _no_table(path: AnyPath, error: csv.Error) -> DataError:
    return DataError(f"cannot read {path} as a CSV table: {error}")


def number_of(text: str) -> float | None:
    """A finite number, or None."""
    value = float(text) if _NUMBER.fullmatch(text) else math.inf
    return value if math.isfinite(value) else None


_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def not_a_count(text: str) -> str:
    """Why a cell is not a number of cells, in words."""
    if text.endswith(DOUBTFUL) and _THOUSANDS.fullmatch(text[:-1]):
        return (
            f"the count {text[:-1]!r} may be {re.sub('[.,]', '', text[:-1])} or a fraction; write it without the mark"
        )
    return f"the count {text!r} is not a number of cells"


def _text(path: AnyPath) -> str:
    """The text of a file in the encodings that programs write tables in."""
    try:
        with open_regular(path) as file:
            if (size := file.seek(0, os.SEEK_END)) > MAX_BYTES:
                raise DataError(f"{path} is over {MAX_BYTES // 10**6} MB; split the table")
            file.seek(0)
            data = file.read(size)  # for as many bytes as are asked for there is to be room
    except OSError as error:
        raise DataError(f"cannot read {path} as a CSV table: {error.strerror}") from error
    if data[:4] in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"):
        raise DataError(f"{path} is a workbook of Excel, not a CSV table; save it as CSV UTF-8")
    zeros = [data[start:1000:2].count(0) for start in (0, 1)]
    encodings = ["utf-8-sig", "latin-1"]
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encodings = ["utf-16"]
    elif max(zeros) > len(data[:1000]) // 4:  # half of each character of the header
        encodings = ["utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"]
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding != "latin-1" or not _NOT_WESTERN.search(text):
            return text
    raise DataError(f"cannot read {path} as a CSV table: it is not UTF-8; save it as CSV UTF-8")


_NOT_WESTERN: Final = re.compile(r"[^\x00-\x7f]{3}|[\x80-\x9f]|[ÂÃ][\x80-\xbf]|[^\x00-\x7f\w\s°±×]")
"""What a Western Excel does not write: three accented letters in a row, rare signs, letters of two encodings."""


def _lines(text: str) -> Iterator[str]:
    """The lines of a text, each with its end; those of all of a large one would take several times its memory."""
    text = re.sub("\r\n?", "\n", text) if "\r" in text else text
    start = 0
    while (end := text.find("\n", start + PIECE)) >= 0:
        yield from (f"{line}\n" for line in text[start:end].split("\n"))
        start = end + 1
    yield from (f"{line}\n" for line in text[start:].split("\n"))


def _start(lines: Iterator[str]) -> tuple[str, int, Iterator[str]]:
    """What separates the cells, at which line the header stands, and the lines from there on."""
    start, said, header = 0, None, ""
    for line in lines:
        told = _SEPARATOR.fullmatch(line.strip("\ufeff \n"))
        if line.strip(", ;\t\n") and not told and not line.startswith("#"):
            header = line
            break
        said = told[1] if told else said
        start += 1
    return said or max(",;\t", key=header.count), start, itertools.chain([header] if header else [], lines)


_SEPARATOR: Final = re.compile(r'"?sep=([,;\t|])"?[,;]*', re.IGNORECASE)


def _named(name: str) -> str:
    """The name of a column, as cellnet writes it if it is one of its own.

    >>> _named(" Pixel um"), _named("Image"), _named("Mean Gray")
    ('pixel_um', 'image', 'mean gray')
    """
    plain = _plain(name).casefold()
    return _OWN.get(_squeezed(plain), plain)


def _squeezed(name: str) -> str:
    return re.sub(r"[\s_-]", "", name)


COLUMNS: Final = {
    "image": ("file", "filename", "path", "imagename", "img", "picture", "frame", "name"),
    "lineage": ("cellline", "line", "celltype", "class", "type", "strain"),
    "count": ("cells", "cellcount", "numberofcells", "cellnumber", "number", "counts", "n", "objects", "total"),
    "group": ("well", "wellid", "plate"),
    "batch": (),
    "time_h": (),
    "pixel_um": (),
    "well": ("wellid", "position"),
    "plate": ("plateid", "platename", "barcode"),
    "treatment": ("compound", "drug", "condition", "inhibitor"),
    "dose": ("concentration", "conc"),
    "x": ("xm", "posx", "centerx", "centroidx", "xcoordinate"),
    "y": ("ym", "posy", "centery", "centroidy", "ycoordinate"),
    "sha256": ("sha", "hash", "digest"),
    "points": ("centres", "centers", "centroids"),
    "unusable": ("excluded", "bad"),
    "accepted": ("accept", "correct", "ok"),
    "by": ("who", "user", "annotator", "person", "observer"),
    "why": ("reason", "comment", "note", "remark"),
    "at": ("when", "date", "time"),
    "seen": ("version", "versions", "model"),
    "seen_lineage": ("predicted", "prediction"),
    "seen_count": ("predictedcount",),
}
"""Names of columns that cellnet asks for, and others, squeezed, that people give to the same."""
_OWN: Final = {_squeezed(name): name for name in COLUMNS}


def _check_header(path: AnyPath, names: Sequence[str], columns: Sequence[str]) -> None:
    if missing := [column for column in columns if column not in names]:
        held = f"it has {plain(', '.join(filter(None, names))[:100])} and" if any(names) else "it"
        meant = {
            column: name
            for column in missing
            for name in names
            if name not in columns and _squeezed(name) in COLUMNS[column]
        }
        renamed = ", ".join(f"{name} to {column}" for column, name in meant.items())
        hint = f"; rename {renamed}" if len(set(meant.values())) == len(meant) > 0 else ""
        raise DataError(f"{path} has no column {', '.join(missing)}; {held} needs {','.join(columns)}{hint}")
    if twice := [name for name, number in Counter(filter(None, names)).items() if number > 1]:
        raise DataError(f"{path} has the column {plain(twice[0][:100])} twice; leave one of them")


def _says_something(cells: Sequence[str]) -> bool:
    """Whether a row is neither empty nor a comment: a # alone in its row, or before a blank."""
    if cells and cells[0][:1].isalnum():  # as nearly all do
        return True
    first, *others = [_plain(cell) for cell in cells] or [""]
    if first.startswith("# ") or (first.startswith("#") and not any(others)):
        return False
    return bool(first or any(others))


def _row(names: Sequence[str], cells: Sequence[str], line: int) -> Row:
    told = zip(names, map(cleaned, cells), strict=False)
    return Row({name: cell for name, cell in told if name and cell}, line, names)


def cleaned(cell: str) -> str:
    """What a cell says: nothing, where it has a word for what is not known."""
    plain = _plain(cell)
    return "" if plain.casefold() in NOT_KNOWN else plain


def _plain(cell: str) -> str:
    """Without blanks and marks of order around it, and with plain blanks in it."""
    return cell.translate(_BLANKS).strip()


_BLANKS: Final = dict.fromkeys(map(ord, "\u00a0\u2007\u202f\t"), " ") | dict.fromkeys(
    map(ord, "\ufeff\u200b\u200e\u200f")
)


def _decimal_mark(text: str) -> str | None:
    """The mark before decimals, where a number shows it by itself: 12,5 and 1.234,0 do, 1.234 does not."""
    digits = _without_blanks(text)
    if match := _DECIMALS.fullmatch(digits):
        return None if _THOUSANDS.fullmatch(digits) else match[1]
    if match := _BOTH.fullmatch(digits):
        return match[2]
    return {",": ".", ".": ","}[match[1]] if (match := _MILLIONS.fullmatch(digits)) else None


def with_point(text: str) -> str:
    """A number that is no count with a point before its decimals: 12,5 is 12.5; what is none stays as it is."""
    return _number(text, set(), ",", whole=False)


def _number(text: str, marks: set[str], separator: str, *, whole: bool) -> str:
    """A number with a point before its decimals, and no other mark; what is none stays as it is."""
    digits = _without_blanks(text)
    decimal = _decimal_mark(digits)
    if decimal is None and (match := _THOUSANDS.fullmatch(digits)):
        decimal = _likely(marks, separator) if whole else match[1]
    if decimal == DOUBTFUL:
        return digits + DOUBTFUL
    if decimal is None or (_MILLIONS.fullmatch(digits) and decimal in digits):
        return digits
    return digits.replace({",": ".", ".": ","}[decimal], "").replace(decimal, ".")


def _likely(marks: set[str], separator: str) -> str:
    """The decimal mark where a count is 1,234 or 1.234: that of the table's other numbers.

    Where they show none, in an English table, with commas between the cells, it is the point; else nobody knows.
    """
    if len(marks) == 1:
        return next(iter(marks))
    return "." if separator == "," else DOUBTFUL


def _without_blanks(text: str) -> str:
    """1 234 and 1'234 are 1234."""
    return re.sub(r"[ '’]", "", text) if _GROUPS.fullmatch(text) else text


_GROUPS: Final = re.compile(r"[+-]?[0-9]{1,3}([ '’][0-9]{3})+([.,][0-9]+)?")
_THOUSANDS: Final = re.compile(r"[+-]?[1-9][0-9]{0,2}([.,])[0-9]{3}")
_MILLIONS: Final = re.compile(r"[+-]?[1-9][0-9]{0,2}([.,])[0-9]{3}(?:\1[0-9]{3})+")
_DECIMALS: Final = re.compile(r"[+-]?[0-9]*([.,])[0-9]+")
_BOTH: Final = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:([.,])[0-9]{3})+(?!\1)([.,])[0-9]+")


def find_table(folder: AnyPath, name: str) -> AnyPath | None:
    """A table in a folder, by its name in any letter case; None where there is none."""
    if (folder / name).is_file():
        return folder / name
    try:
        return next(
            (path for path in sorted(folder.iterdir()) if path.name.casefold() == name and path.is_file()), None
        )
    except OSError:
        return None
