"""Frames from a Harmony export (Operetta, Opera Phenix; PerkinElmer, now Revvity): an index and its TIFF planes.

    PLATE/Images/Index.idx.xml (or Index.xml)      every plane: its file, well, field, channel, pixel size
    PLATE/Assaylayout/*.xml                        the plate layout; a layer of cells or lineages names the lineage
    PLATE/**/Objects_Population - NAME.txt         one row an object: the count and the centres of a field
    PLATE/**/PlateResults.txt                      one row a well: counts of whole wells, used only when asked

Versions 1 to 7 of the index differ in their namespace, and from V6 on what is true of a channel is said once, in a
map. Of a stack of planes the middle one is taken. A group is a plate's well.
"""

import csv
import io
import logging
import re
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cellnet.errors import DataError
from cellnet.readers import Options, SourceFrame, read_csv

logger = logging.getLogger(__name__)

TAKES: Final = frozenset({"channel", "lineages", "layer", "population", "spread_counts"})
INDEXES: Final = ("Index.idx.xml", "Index.xml")
TRANSMITTED: Final = ("Brightfield", "Phase")
"""Channel types of transmitted light; `Phase` is Harmony's Digital Phase Contrast."""
MAX_BYTES: Final = 2 * 10**9
Well = tuple[int, int]
"""Row and column, from 1."""
Field = tuple[int, int, int, int]
"""Row, column, field, time point."""


@dataclass(frozen=True, kw_only=True)
class _Counts:
    """What is known of a field's cells."""

    count: float
    centres: tuple[tuple[float, float], ...] | None = None


def accepts(source: Path) -> bool:
    """Whether the source is a Harmony index, or a folder that holds one, itself or in `Images`."""
    return _find_index(source) is not None


def read(source: Path, options: Options) -> list[SourceFrame]:
    """A frame a field, of the one transmitted-light channel or the one that is named.

    Raises DataError for an unreadable index or table, or when a channel, layer or population must be named.
    """
    index = _find_index(source)
    if index is None:
        raise DataError(f"{source} holds no {' or '.join(INDEXES)}; give the folder of a Harmony export")
    plate, planes = _read_index(index)
    chosen = _middle_planes(_of_channel(planes, options.channel, index))
    root = index.parent.parent if index.parent.name.lower() == "images" else index.parent
    lineages = _lineages(root, options)
    counts = _counts(root, plate, list(chosen), options)
    return [_frame(index.parent, plate, field, facts, lineages, counts) for field, facts in sorted(chosen.items())]


def _find_index(source: Path) -> Path | None:
    if source.is_file():
        return source if source.name.endswith(INDEXES) else None
    folders = [source, source / "Images", source / "images"]
    return next((folder / name for folder in folders for name in INDEXES if (folder / name).is_file()), None)


def _elements(path: Path) -> Iterator[ET.Element]:
    """Every element of an XML file when it is complete, named without its namespace."""
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path} is over {MAX_BYTES // 10**9} GB; export the plate in parts")
    try:
        for _, element in ET.iterparse(path):
            element.tag = element.tag.rpartition("}")[2]
            yield element
    except (ET.ParseError, OSError) as error:
        raise DataError(f"{path} is not readable as XML ({error}); export it again") from error


def _texts(element: ET.Element) -> dict[str, str]:
    return {child.tag: (child.text or "").strip() for child in element}


def _read_index(path: Path) -> tuple[str, list[dict[str, str]]]:
    """The plate's name, and the facts of every plane, those of its channel's map among them."""
    plate = ""
    channels: dict[str, dict[str, str]] = defaultdict(dict)
    planes = []
    for element in _elements(path):
        if element.tag == "Plate":
            plate = plate or _texts(element).get("Name", "")
        elif element.tag == "Entry" and "ChannelID" in element.attrib:
            channels[element.attrib["ChannelID"]].update(_texts(element))
            element.clear()
        elif element.tag == "Image" and element.find("URL") is not None:
            planes.append(_texts(element))
            element.clear()
    if not planes:
        raise DataError(f"{path} lists no images; export the plate again, with its images")
    return plate or path.parent.name, [channels[plane.get("ChannelID", "")] | plane for plane in planes]


def _of_channel(planes: list[dict[str, str]], wanted: str | None, index: Path) -> list[dict[str, str]]:
    """The planes of a named channel, or of the only one of transmitted light."""
    types = {plane.get("ChannelName", ""): plane.get("ChannelType", "") for plane in planes}
    transmitted = [name for name, kind in types.items() if kind in TRANSMITTED]
    if wanted is None and len(transmitted) == 1:
        wanted = transmitted[0]
    if wanted is None:
        found = "several channels" if transmitted else "no channel"
        names = ", ".join(repr(name) for name in transmitted or types)
        raise DataError(f"{index} has {found} of transmitted light; choose one with --channel: {names}")
    if wanted not in types:
        raise DataError(f"{index} has no channel {wanted!r}; it has {', '.join(map(repr, types))}")
    return [plane for plane in planes if plane.get("ChannelName", "") == wanted]


def _middle_planes(planes: list[dict[str, str]]) -> dict[Field, dict[str, str]]:
    """The middle plane of every field and time point."""
    stacks: dict[Field, list[dict[str, str]]] = defaultdict(list)
    for plane in planes:
        try:
            row, column, field = int(plane["Row"]), int(plane["Col"]), int(plane["FieldID"])
            stacks[row, column, field, int(plane.get("TimepointID") or 0)].append(plane)
        except (KeyError, ValueError) as error:
            raise DataError(f"the index gives no well and field of {plane.get('URL', 'an image')}") from error
    return {
        field: sorted(stack, key=lambda plane: int(plane.get("PlaneID") or 0))[len(stack) // 2]
        for field, stack in stacks.items()
    }


def _frame(
    folder: Path,
    plate: str,
    field: Field,
    facts: dict[str, str],
    lineages: dict[Well, str],
    counts: dict[Field, _Counts],
) -> SourceFrame:
    path = folder / facts["URL"]
    known = counts.get(field)
    problem = None
    if not path.resolve().is_relative_to(folder.resolve()):
        problem = "its path leads out of the export's folder"
    elif facts.get("State", "Ok") != "Ok":
        problem = f"Harmony marks it as {facts['State']!r}"
    elif not path.is_file():
        problem = "the file is missing"
    return SourceFrame(
        path=path,
        lineage=lineages.get(field[:2]),
        count=known.count if known else None,
        centres=known.centres if known else None,
        group=f"{plate}/r{field[0]:02d}c{field[1]:02d}",
        pixel_um=_micrometres(facts.get("ImageResolutionX", "")),
        problem=problem,
    )


def _micrometres(metres: str) -> float | None:
    try:
        size = float(metres) * 1e6
    except ValueError:
        return None
    return size if 0 < size < 1e3 else None


def _lineages(root: Path, options: Options) -> dict[Well, str]:
    """The lineage of every well that a CSV or the plate layout names."""
    if options.lineages is not None:
        return _lineages_of_csv(options.lineages)
    layouts = sorted(path for path in root.glob("*/*.xml") if path.parent.name.lower() == "assaylayout")
    layers = {name: wells for layout in layouts for name, wells in _layers(layout)}
    if options.layer is not None and options.layer not in layers:
        raise DataError(f"the plate layout has no layer {options.layer!r}; it has {', '.join(map(repr, layers))}")
    fitting = [name for name in layers if re.search(r"cell|lineage", name, re.IGNORECASE)]
    if options.layer is None and len(fitting) > 1:
        raise DataError(f"several layers could name the lineage; choose one with --layer: {', '.join(fitting)}")
    name = options.layer or next(iter(fitting), None)
    return layers[name] if name is not None else {}


def _layers(path: Path) -> Iterator[tuple[str, dict[Well, str]]]:
    for element in _elements(path):
        if element.tag == "Layer":
            wells = [_texts(child) for child in element if child.tag == "Well"]
            try:
                named = {(int(well["Row"]), int(well["Col"])): well["Value"] for well in wells if well.get("Value")}
            except (KeyError, ValueError) as error:
                raise DataError(f"{path} gives no row and column of a well; export the layout again") from error
            yield _texts(element).get("Name", ""), named


def _lineages_of_csv(path: Path) -> dict[Well, str]:
    return {_well(row["well"], path): row["lineage"] for row in read_csv(path, ("well", "lineage")) if row["lineage"]}


def _well(name: str, path: Path) -> Well:
    """(3, 4) of C04, C4 or r03c04."""
    match = re.fullmatch(r"\s*(?:r(\d+)c(\d+)|([A-Za-z])(\d+))\s*", name)
    if match is None:
        raise DataError(f"{path}: {name!r} is not a well; write C03 or r03c03")
    row, column, letter, number = match.groups()
    return (int(row), int(column)) if row else (ord(letter.upper()) - ord("A") + 1, int(number))


def _counts(root: Path, plate: str, fields: list[Field], options: Options) -> dict[Field, _Counts]:
    """What is known of the cells of every field: from tables of objects, or from a table of wells if asked."""
    tables = {path.stem.partition(" - ")[2]: path for path in sorted(root.rglob("Objects_Population - *.txt"))}
    if tables:
        name = _choose(list(tables), options.population, f"{root} has objects of several populations")
        return _of_objects(_table(tables[name], plate), tables[name])
    results = next(iter(sorted(root.rglob("PlateResults.txt"))), None)
    if results is None:
        return {}
    if not options.spread_counts:
        logger.warning("%s counts whole wells, so no frame has a count; --spread-counts shares them out", results)
        return {}
    return _of_wells(_table(results, plate), fields, options.population, results)


def _choose(names: list[str], wanted: str | None, several: str) -> str:
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted not in names:
        raise DataError(f"{several}; choose one with --population: {', '.join(names)}")
    return wanted


def _table(path: Path, plate: str) -> list[dict[str, str]]:
    """The rows below `[Data]`. Raises DataError for a table of another plate, or none."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    head, found, body = text.partition("[Data]")
    if not found:
        raise DataError(f"{path} holds no [Data] table; export it again, or take it away")
    named = dict(line.partition("\t")[::2] for line in head.splitlines()).get("Plate Name", "").strip()
    if named and named != plate:
        raise DataError(f"{path} is of the plate {named!r}, the images are of {plate!r}; take it away")
    return list(csv.DictReader(io.StringIO(body.lstrip("\r\n")), delimiter="\t"))


def _of_objects(rows: list[dict[str, str]], path: Path) -> dict[Field, _Counts]:
    """One row an object; X and Y are its centre in pixels from the upper left corner."""
    found: dict[Field, list[tuple[float, float] | None]] = defaultdict(list)
    try:
        for row in rows:
            field = (int(row["Row"]), int(row["Column"]), int(row["Field"]), int(row.get("Timepoint") or 0))
            known = row.get("X") and row.get("Y")
            found[field].append((float(row["X"]), float(row["Y"])) if known else None)
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path}: a row gives no Row, Column and Field; export it again") from error
    counts = {}
    for field, objects in found.items():
        centres = tuple(centre for centre in objects if centre is not None)
        counts[field] = _Counts(count=len(objects), centres=centres if len(centres) == len(objects) else None)
    return counts


def _of_wells(
    rows: list[dict[str, str]], fields: list[Field], population: str | None, path: Path
) -> dict[Field, _Counts]:
    """A well's objects shared out evenly over its fields."""
    ending = " - Number of Objects"
    names = [column.removesuffix(ending) for column in (rows[0] if rows else {}) if (column or "").endswith(ending)]
    column = _choose(names, population, f"{path} counts several populations") + ending
    shared: dict[Field, _Counts] = {}
    for row in rows:
        try:
            well, time = (int(row["Row"]), int(row["Column"])), int(row.get("Timepoint") or 0)
            number = float(row[column])
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(f"{path}: a row gives no Row, Column and {column!r}; export it again") from error
        here = [field for field in fields if field[:2] == well and field[3] == time]
        shared |= {field: _Counts(count=number / len(here)) for field in here}
    return shared
