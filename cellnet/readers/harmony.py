"""Frames from a Harmony export (Operetta, Opera Phenix; PerkinElmer, now Revvity): an index and its TIFF planes.

    PLATE/Images/Index.idx.xml (or Index.xml)      every plane: its file, well, field, channel, pixel size
    PLATE/Assaylayout/*.xml                        the plate layout; a layer of cells or lineages names the lineage, one
                                                   of compounds or treatments what was done, one of doses how much
    PLATE/**/Objects_Population - NAME.txt         one row an object: the count and the centres of a field
    PLATE/**/PlateResults.txt                      one row a well: how many fields were analysed, and counts of whole
                                                   wells, which are used only when asked

Tables of another plate are left out with a warning. Versions 1 to 7 of the index differ in their namespace, and from
V6 on what is true of a channel is said once, in a map. Of a stack of planes the middle one is taken. A group is a
plate's well, a batch a plate and its measurement.
"""

import io
import itertools
import logging
import math
import re
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Final, NamedTuple

from cellnet.errors import DataError
from cellnet.images.file import ImageFile, open_regular
from cellnet.images.tiles import lies_inside
from cellnet.images.wells import group_of, named_well
from cellnet.readers import LabelledFile, Options, Source, Unused, is_file, is_inside, number_of, read_csv
from cellnet.readers.conditions import Condition
from cellnet.store.paths import AnyPath, walk

logger = logging.getLogger(__name__)

TAKES: Final = frozenset({"channel", "lineages", "layer", "population", "spread_counts"})
INDEXES: Final = ("Index.idx.xml", "Index.xml")
WELLS: Final = "PlateResults.txt"
_RESULTS: Final = re.compile(r"Objects_Population - .*\.txt|PlateResults\.txt")
TRANSMITTED: Final = ("Brightfield", "Phase")
"""Channel types of transmitted light; `Phase` is Harmony's Digital Phase Contrast."""
MAX_BYTES: Final = 10**9
"""Of an XML, or of a table of results."""
MOST_ELEMENTS: Final = 2 * 10**7
"""Of an XML."""
CONDITIONS: Final = {
    "treatment": r"compound|treatment|drug|inhibitor",
    "dose": r"concentration|dose",
    "lineage": r"cell(?! *(?:count|number|density))|lineage",
}
"""What the names of layers say that tell of a well."""
KEPT: Final = frozenset({"Plate", "Entry", "Image", "Layer", "Well"})
"""Elements whose children are kept until they end; all others are let go of as they are complete."""
MOST_DEPTH: Final = 50
"""Elements within each other; an index has five."""
MOST_KEPT: Final = 200_000
"""Elements at a time: a layer of 1,536 wells has 6,000."""
MOST_LINE: Final = 10**6
"""Characters of a line of a table."""
Well = tuple[int, int]
"""Row and column, from 1."""
Field = tuple[int, int, int, int]
"""Row, column, field from 1, time point. The field 0 stands for all of a well."""


class _Plate(NamedTuple):
    """What an index says of its plate."""

    name: str
    batch: str | None
    """The plate and when it was measured, or which measurement that was, as far as the index tells."""


@dataclass(frozen=True, kw_only=True)
class _Counts:
    """What is known of a field's cells."""

    count: float
    centres: tuple[tuple[float, float], ...] | None = None


def accepts(source: AnyPath) -> bool:
    """Whether the source is a Harmony index, or a folder that holds one, itself or in `Images`."""
    return _find_index(source) is not None


def read(source: AnyPath, options: Options) -> Source:
    """An image a field, of the one transmitted-light channel or the one that is named.

    Raises DataError for an unreadable index or table, or when a channel, layer or population must be named.
    """
    index, plate, chosen = _chosen(source, options.channel)
    root = _root(index)
    lineages = _lineages(root, options)
    counts = _counts(root, plate.name, chosen, options)
    unused = []
    if options.lineages is not None:  # a layout is of the whole plate, and of that perhaps a part was recorded
        wells = {field[:2] for field in chosen}
        unused = [_no_image(f"{options.lineages.name}: {_named(well)}") for well in sorted(lineages.keys() - wells)]
    unused += [
        _no_image(f"cells of {_named(field[:2])}{f' field {field[2]}' if field[2] else ''}", number=number)
        for field in sorted(counts.keys() - chosen.keys())
        if (number := int(counts[field].count))
    ]
    return Source(
        [_label(index.parent, plate, field, facts, lineages, counts) for field, facts in sorted(chosen.items())], unused
    )


def _no_image(what: str, *, number: int = 1) -> Unused:
    return Unused(what, "no_image", "no image is of it", number)


def _named(well: Well) -> str:
    return f"r{well[0]:02d}c{well[1]:02d}"


class Recorded(NamedTuple):
    """An image of an export, and what the export knows besides."""

    image: LabelledFile
    well: Well
    time_point: int
    time_h: float | None
    """Hours from the first time point to its own, of all images alike; None where the index does not tell."""
    condition: Condition


def read_images(source: AnyPath, channel: str | None) -> list[Recorded]:
    """The same images, of which no counts are known: tables of results are not read, and no layout is insisted on."""
    index, plate, chosen = _chosen(source, channel)
    hours = _hours(chosen)
    conditions = _conditions(_root(index))
    return [
        Recorded(
            image=_label(index.parent, plate, field, facts, {}, {}), well=field[:2], time_point=field[3],
            time_h=hours.get(field[3]), condition=conditions.get(field[:2], Condition()),
        )
        for field, facts in sorted(chosen.items())
    ]  # fmt: skip


def _root(index: AnyPath) -> AnyPath:
    return index.parent.parent if index.parent.name.lower() == "images" else index.parent


def _hours(chosen: dict[Field, dict[str, str]]) -> dict[int, float]:
    """Hours from the first time point to each, by the middle of its images' clocks or else of their offsets.

    Empty where an image of a series has neither, or clocks with and without a time zone are mixed.
    """
    for seconds_of in (_clock, _offset):
        of_point: dict[int, list[float | None]] = defaultdict(list)
        for field, facts in chosen.items():
            of_point[field[3]].append(seconds_of(facts))
        seconds = [[one for one in held if one is not None] for held in of_point.values()]
        if any(len(known) < len(held) for known, held in zip(seconds, of_point.values(), strict=True)):
            continue
        middles = {point: median(known) for point, known in zip(of_point, seconds, strict=True)}
        if len(set(middles.values())) == len(middles):
            return {point: (middle - min(middles.values())) / 3600 for point, middle in middles.items()}
    return {}


def _clock(facts: dict[str, str]) -> float | None:
    """When a plane was recorded, in seconds since 1970."""
    try:
        moment = datetime.fromisoformat(facts.get("AbsTime", ""))
    except ValueError:
        return None
    return None if moment.tzinfo is None else moment.timestamp()


def _offset(facts: dict[str, str]) -> float | None:
    """Seconds since the measurement began."""
    return number_of(facts.get("MeasurementTimeOffset", ""))


def _conditions(root: AnyPath) -> dict[Well, Condition]:
    """What the plate layout says of wells; what cannot be read or is left open is warned of."""
    try:
        layers = _all_layers(root)
    except DataError as error:
        logger.warning("%s; what was done to the wells is not known", error)
        return {}
    found: dict[str, dict[Well, str]] = {}
    for name, words in CONDITIONS.items():
        fitting = [layer for layer in layers if re.search(words, layer, re.IGNORECASE)]
        if len(fitting) > 1:
            logger.warning(
                "several layers of the layout could be the %s, %s; --layout says it", name, ", ".join(fitting)
            )
        elif fitting:
            found[name] = layers[fitting[0]]
    wells = {well for layer in found.values() for well in layer}
    return {well: Condition.of({name: layer.get(well, "") for name, layer in found.items()}) for well in sorted(wells)}


def _chosen(source: AnyPath, channel: str | None) -> tuple[AnyPath, _Plate, dict[Field, dict[str, str]]]:
    """The index, its plate, and the plane to take of every field."""
    index = _find_index(source)
    if index is None:
        raise DataError(f"{source} holds no {' or '.join(INDEXES)}; give the folder of a Harmony export")
    plate, planes = _read_index(index)
    return index, plate, _middle_planes(_of_channel(planes, channel, index), index)


def _find_index(source: AnyPath) -> AnyPath | None:
    if source.is_file():
        return source if source.name.endswith(INDEXES) else None
    folders = [source, source / "Images", source / "images"]
    return next((folder / name for folder in folders for name in INDEXES if (folder / name).is_file()), None)


def _elements(path: AnyPath) -> Iterator[ET.Element]:
    """Every element of an XML file when it is complete, named without its namespace, with children if it is `KEPT`."""
    above: list[ET.Element] = []
    ended_n = kept_n = 0
    try:
        _check_size(path)
        with open_regular(path) as file:
            for event, element in ET.iterparse(file, ("start", "end")):
                if event == "start":
                    above.append(element)
                else:
                    above.pop()
                    ended_n, kept_n = ended_n + 1, kept_n + 1
                    element.tag = _local(element)
                    yield element
                    if above and _local(above[-1]) not in KEPT:
                        above[-1].remove(element)
                    if not any(_local(each) in KEPT for each in above):
                        kept_n = 0
                if ended_n > MOST_ELEMENTS:
                    raise DataError(f"{path} has over {MOST_ELEMENTS:,} elements; export the plate in parts")
                if kept_n > MOST_KEPT or len(above) > MOST_DEPTH:
                    raise DataError(f"{path} has more elements within one than Harmony writes; export it again")
    except (ET.ParseError, OSError) as error:
        raise DataError(f"{path} is not readable as XML ({error}); export it again") from error


def _local(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _check_size(path: AnyPath) -> None:
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path} is over {MAX_BYTES // 10**9} GB; export the plate in parts")


def _texts(element: ET.Element) -> dict[str, str]:
    return {child.tag: (child.text or "").strip() for child in element}


def _read_index(path: AnyPath) -> tuple[_Plate, list[dict[str, str]]]:
    """The plate, and the facts of every plane, those of its channel's map among them."""
    plate: dict[str, str] = {}
    channels: dict[str, dict[str, str]] = defaultdict(dict)
    planes = []
    for element in _elements(path):
        if element.tag == "Plate":
            plate = plate or _texts(element)
        elif element.tag == "Entry" and "ChannelID" in element.attrib:
            channels[element.attrib["ChannelID"]].update(_texts(element))
        elif element.tag == "Image" and element.find("URL") is not None:
            planes.append(_texts(element))
    if not planes:
        raise DataError(f"{path} lists no images; export the plate again, with its images")
    return _plate(plate, path), [channels[plane.get("ChannelID", "")] | plane for plane in planes]


def _plate(facts: dict[str, str], index: AnyPath) -> _Plate:
    measured = facts.get("MeasurementStartTime", "")[:16].replace("T", " ") or facts.get("MeasurementID", "")
    batch = " ".join(filter(None, [facts.get("Name") or facts.get("PlateID"), measured]))
    return _Plate(facts.get("Name") or index.parent.name, batch or None)


def _of_channel(planes: list[dict[str, str]], wanted: str | None, index: AnyPath) -> list[dict[str, str]]:
    """The planes of a named channel, or of the only one of transmitted light."""
    types = {plane.get("ChannelName", ""): plane.get("ChannelType", "") for plane in planes}
    transmitted = [name for name, kind in types.items() if kind in TRANSMITTED]
    if wanted is None and len(transmitted) == 1:
        wanted = transmitted[0]
    if wanted is None:
        seen = "several channels" if transmitted else "no channel"
        names = ", ".join(repr(name) for name in transmitted or types)
        raise DataError(f"{index} has {seen} of transmitted light; choose one with --channel: {names}")
    if wanted not in types:
        raise DataError(f"{index} has no channel {wanted!r}; it has {', '.join(map(repr, types))}")
    return [plane for plane in planes if plane.get("ChannelName", "") == wanted]


def _middle_planes(planes: list[dict[str, str]], index: AnyPath) -> dict[Field, dict[str, str]]:
    """The middle plane of every field and time point."""
    stacks: dict[Field, list[tuple[int, dict[str, str]]]] = defaultdict(list)
    for plane in planes:
        try:
            row, column, field = _whole(plane["Row"]), _whole(plane["Col"]), _whole(plane["FieldID"])
            number = _whole(plane.get("PlaneID") or "0")
            stacks[row, column, field, _whole(plane.get("TimepointID") or "0")].append((number, plane))
        except (KeyError, ValueError) as error:
            which = plane.get("URL", "an image")
            raise DataError(f"{index} gives no numbers of well, field and plane of {which}; export it again") from error
    return {
        field: sorted(stack, key=lambda numbered: numbered[0])[len(stack) // 2][1] for field, stack in stacks.items()
    }


def _whole(text: str) -> int:
    """A number of a well, field, plane or time point. Raises ValueError for what is none, or no instrument's."""
    if not _WHOLE.fullmatch(text):
        raise ValueError(text)
    return int(text)


_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,9}")


def _label(
    folder: AnyPath,
    plate: _Plate,
    field: Field,
    facts: dict[str, str],
    lineages: dict[Well, str],
    counts: dict[Field, _Counts],
) -> LabelledFile:
    path = folder / facts["URL"]
    known = counts.get(field)
    problem = None
    if not is_inside(path, folder):
        problem = "its path leads out of the export's folder"
    elif facts.get("State", "Ok") != "Ok":
        problem = f"Harmony marks it as {facts['State']!r}"
    elif not is_file(path):
        problem = "the file is missing"
    return LabelledFile(
        image=ImageFile.at(path),
        lineage=lineages.get(field[:2]),
        count=known.count if known else None,
        centres=known.centres if known else None,
        group=group_of(plate.name, *field[:2]),
        batch=plate.batch,
        pixel_um=_micrometres(facts.get("ImageResolutionX", "")),
        problem=problem,
    )


def _micrometres(metres: str) -> float | None:
    try:
        size = float(metres) * 1e6
    except ValueError:
        return None
    return size if 0 < size < 1e3 else None


def _lineages(root: AnyPath, options: Options) -> dict[Well, str]:
    """The lineage of every well that a CSV or the plate layout names."""
    if options.lineages is not None:
        return _lineages_of_csv(options.lineages)
    layers = _all_layers(root)
    if options.layer is not None and options.layer not in layers:
        raise DataError(f"the plate layout has no layer {options.layer!r}; it has {', '.join(map(repr, layers))}")
    fitting = [name for name in layers if re.search(r"cell|lineage", name, re.IGNORECASE)]
    if options.layer is None and len(fitting) > 1:
        raise DataError(f"several layers could name the lineage; choose one with --layer: {', '.join(fitting)}")
    name = options.layer or next(iter(fitting), None)
    return layers[name] if name is not None else {}


def _all_layers(root: AnyPath) -> dict[str, dict[Well, str]]:
    """The values of wells by the names of the layers of the plate layout."""
    folders = [folder for folder in root.iterdir() if folder.name.lower() == "assaylayout" and folder.is_dir()]
    layouts = sorted(path for folder in folders for path in folder.iterdir() if path.suffix == ".xml")
    return {name: wells for layout in layouts for name, wells in _layers(layout)}


def _layers(path: AnyPath) -> Iterator[tuple[str, dict[Well, str]]]:
    for element in _elements(path):
        if element.tag == "Layer":
            wells = [_texts(child) for child in element if child.tag == "Well"]
            try:
                named = {
                    (_whole(well["Row"]), _whole(well["Col"])): well["Value"] for well in wells if well.get("Value")
                }
            except (KeyError, ValueError) as error:
                raise DataError(f"{path} gives no row and column of a well; export the layout again") from error
            yield _texts(element).get("Name", ""), named


def _lineages_of_csv(path: AnyPath) -> dict[Well, str]:
    lineages: dict[Well, str] = {}
    for row in read_csv(path, ("well", "lineage")):
        if row["lineage"] and lineages.setdefault(_well(row["well"], path), row["lineage"]) != row["lineage"]:
            before = lineages[_well(row["well"], path)]
            raise DataError(f"{path} names {row['well']} {before} and {row['lineage']}; leave one row of the well")
    return lineages


def _well(name: str, path: AnyPath) -> Well:
    """(3, 4) of C04, C4 or r03c04."""
    well = named_well(name)
    if well is None:
        raise DataError(f"{path}: {name!r} is not a well; write C03 or r03c03")
    return well


def _counts(root: AnyPath, plate: str, fields: dict[Field, dict[str, str]], options: Options) -> dict[Field, _Counts]:
    """What is known of the cells of every field: from tables of objects, or from a table of wells if asked."""
    tables = _tables(root, plate)
    results = [path for path in tables if path.name == WELLS]
    of_population: dict[str, list[AnyPath]] = defaultdict(list)
    for path in tables.keys() - set(results):
        of_population[path.stem.partition(" - ")[2]].append(path)
    if of_population:
        *others, path = sorted(of_population[_choose(sorted(of_population), options.population, root)])
        if others:
            logger.warning("%s is read; of the same population, these are not: %s", path, ", ".join(map(str, others)))
        return _of_objects(path, fields, next((other for other in results if tables[other] == tables[path]), None))
    if not results and (options.population is not None or options.spread_counts):
        raise DataError(f"{root} holds no results of the plate {plate!r}; leave --population and --spread-counts out")
    if results and options.spread_counts:
        return _of_wells(results[-1], fields, options.population)
    if results:
        logger.warning("%s counts whole wells, so no frame has a count; --spread-counts shares them out", results[-1])
    return {}


def _tables(root: AnyPath, plate: str) -> dict[AnyPath, tuple[str, ...]]:
    """The plate's tables of results, and the evaluation that each is of; one warning for all that are left out."""
    tables, left_out = {}, []
    found = (folder / name for folder, _, names in walk(root) for name in names if _RESULTS.fullmatch(name))
    for path in sorted(found):
        about = _about(path)
        if about is None:
            left_out.append(f"{path} holds no [Data] table")
        elif about.get("Plate Name", plate) != plate:
            left_out.append(f"{path} is of the plate {about['Plate Name']!r}, the images are of {plate!r}")
        else:
            tables[path] = tuple(about.get(key, "") for key in ("Measurement", "Evaluation"))
    if left_out:
        logger.warning("%d tables of results are left out; the first: %s", len(left_out), left_out[0])
    return tables


def _choose(names: list[str], wanted: str | None, where: AnyPath) -> str:
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted not in names:
        seen = "objects of several populations" if wanted is None else f"no population {wanted!r}"
        raise DataError(f"{where} has {seen}; choose one with --population: {', '.join(names)}")
    return wanted


def _lines(path: AnyPath) -> Iterator[list[str]]:
    """The cells of every line that is not empty, one line at a time: a plate may have millions of objects."""
    try:
        _check_size(path)
        with io.TextIOWrapper(open_regular(path), encoding="utf-8-sig", errors="replace") as file:
            for line in iter(lambda: file.readline(MOST_LINE + 1), ""):
                if len(line) > MOST_LINE:
                    raise DataError(f"{path} has a line of over {MOST_LINE:,} characters; export it again")
                if line.strip():
                    yield [cell.strip() for cell in line.split("\t")]
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _about(path: AnyPath) -> dict[str, str] | None:
    """What a table says of itself above `[Data]`; None where there is no such line."""
    about: dict[str, str] = {}
    for name, *values in _lines(path):
        if name == "[Data]":
            return about
        if values and values[0]:
            about[name] = values[0]
    return None


def _rows(path: AnyPath) -> Iterator[dict[str, str]]:
    """The rows below `[Data]`, each by the names in the first of them."""
    below = itertools.dropwhile(lambda cells: cells[0] != "[Data]", _lines(path))
    columns = next(itertools.islice(below, 1, None), [])
    return (dict(zip(columns, cells, strict=False)) for cells in below)


def _time(row: dict[str, str]) -> int:
    return _whole(row.get("Timepoint") or "0")


def _of_objects(path: AnyPath, fields: dict[Field, dict[str, str]], results: AnyPath | None) -> dict[Field, _Counts]:
    """One row an object; X and Y are its centre in pixels from the upper left corner.

    A field without a row has no cell where the table of wells, `results`, says that all fields of the well were
    analysed; else its count is not known.
    """
    of_field: dict[Field, list[tuple[float, float] | None]] = defaultdict(list)
    planes = set()
    try:
        for row in _rows(path):
            x, y = number_of(row.get("X", "")), number_of(row.get("Y", ""))
            field = (_whole(row["Row"]), _whole(row["Column"]), _whole(row["Field"]), _time(row))
            of_field[field].append(None if x is None or y is None else (x, y))
            planes.add(row.get("Plane"))
    except (KeyError, ValueError) as error:
        raise DataError(f"{path}: a row gives no Row, Column and Field; export it again") from error
    if not _fits(path, fields, times={field[3] for field in of_field}, planes=planes):
        return {}
    empty = _all_analysed(results, fields) - of_field.keys() if results else set()
    if unknown := fields.keys() - of_field.keys() - empty:
        logger.warning(
            "%s has no object in %d of %d fields, and no %s says that all fields of their wells were analysed; "
            "their counts are not known",
            path, len(unknown), len(fields), WELLS,
        )  # fmt: skip
    objects: dict[Field, list[tuple[float, float] | None]] = {**of_field, **{field: [] for field in empty}}
    centres = {field: [centre for centre in held if centre is not None] for field, held in objects.items()}
    outside = sum(not _inside(fields[field], centre) for field in fields for centre in centres.get(field, ()))
    if outside:
        logger.warning("%s: %d centres lie outside their frames, so none is used; the counts are", path, outside)
    return {
        field: _Counts(
            count=len(held),
            centres=None if outside or len(centres[field]) < len(held) else tuple(centres[field]),
        )
        for field, held in objects.items()
    }


def _fits(path: AnyPath, fields: Iterable[Field], *, times: set[int], planes: set[str | None]) -> bool:
    """Whether a table counts each image once: it has no other time points, and no stack plane by plane."""
    if missing := times - {field[3] for field in fields}:
        logger.warning("%s is not used: no image has its time point %d; of another measurement?", path, min(missing))
    elif len(planes) > 1:
        logger.warning("%s is not used: it counts %d planes of a stack, each for itself", path, len(planes))
    return not missing and len(planes) <= 1


def _all_analysed(results: AnyPath, fields: Iterable[Field]) -> set[Field]:
    """The fields of the wells that were analysed whole, at a time point."""
    here = _by_well(fields)
    whole: set[Field] = set()
    for row in _rows(results):
        try:
            well = here[_whole(row["Row"]), _whole(row["Column"]), _time(row)]
            whole |= well if _whole(row["Number of Analyzed Fields"]) == len(well) else set()
        except (KeyError, ValueError):  # such a table says nothing of its fields
            continue
    return whole


def _by_well(fields: Iterable[Field]) -> dict[tuple[int, int, int], set[Field]]:
    """The fields of every row, column and time point."""
    here: dict[tuple[int, int, int], set[Field]] = defaultdict(set)
    for row, column, field, time in fields:
        here[row, column, time].add((row, column, field, time))
    return here


def _inside(facts: dict[str, str], centre: tuple[float, float]) -> bool:
    """Whether a centre lies in a frame, as far as the index gives the frame's size."""
    width, height = (number_of(facts.get(f"ImageSize{axis}", "")) or math.inf for axis in "XY")
    return lies_inside(*centre, width=width, height=height)


def _of_wells(path: AnyPath, fields: Iterable[Field], population: str | None) -> dict[Field, _Counts]:
    """A well's objects shared out evenly over its fields."""
    rows = list(_rows(path))
    ending = " - Number of Objects"
    names = [column.removesuffix(ending) for column in (rows[0] if rows else {}) if column.endswith(ending)]
    column = _choose(names, population, path) + ending
    shared: dict[Field, _Counts] = {}
    here = _by_well(fields)
    try:
        times, planes = {_time(row) for row in rows}, {row.get("Plane") for row in rows}
        if not _fits(path, fields, times=times, planes=planes):
            return {}
        for row in rows:
            number, place = number_of(row[column]), (_whole(row["Row"]), _whole(row["Column"]), _time(row))
            well = here.get(place) or {(*place[:2], 0, place[2])}
            if number is not None:
                shared |= {field: _Counts(count=number / len(well)) for field in well}
    except (KeyError, ValueError) as error:
        raise DataError(f"{path}: a row gives no Row, Column and {column!r}; export it again") from error
    return shared
