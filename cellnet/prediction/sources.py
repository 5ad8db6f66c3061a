"""What there is to predict: image files, folders of them, Harmony exports and manifests, here or as s3://bucket/prefix.

A folder is taken with all folders below it. Where one of them is a Harmony export, the planes are taken that
`cellnet bank import` would take; where it holds a manifest.csv (image,pixel_um), the images that this lists. Of other
files the names say what is of one site (`cellnet.images.wells`): thumbnails are left out, one channel is taken and the
middle plane. When an image was recorded, names, manifests (time_h) and exports tell; what was done to its well, a table
of wells, a manifest (treatment, dose, lineage) or the layout of an export.
"""

import logging
import os
import re
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self

from cellnet.errors import ConfigError, DataError
from cellnet.images.channels import is_transmitted
from cellnet.images.file import SUFFIXES, ImageFile, Pages, missing
from cellnet.images.times import BETWEEN, NONE, NamedTime, over_time, read_times
from cellnet.images.wells import ImageName, Well, is_part_of_plate, read_names, thumbnails, well_at
from cellnet.readers import harmony, is_file, number_of, read_csv
from cellnet.readers.conditions import Condition, read_plate_layout
from cellnet.readers.matching import Match, Names, images_below, is_hidden
from cellnet.store.paths import AnyPath, path_at
from cellnet.store.place import S3, PlaceLike

logger = logging.getLogger(__name__)

MANIFEST: Final = "manifest.csv"
NOT_HOURS: Final = "have a time_h in the manifest that is no number of hours, so they are on no curve"
GIVE: Final = "give images, folders of them, a Harmony export, a manifest.csv or s3://bucket/prefix"


@dataclass(frozen=True, kw_only=True)
class ListedFile:
    """An image file to predict, and what is known of it before it is read."""

    image: ImageFile
    place: str
    """An absolute path, or s3://bucket/key."""
    name: str
    """As it is shown."""
    folder: str
    """Its plate's, as it is shown."""
    size: int = 0
    """Bytes."""
    modified: str = ""
    """When, as the place says it."""
    well: Well | None = None
    could_be: tuple[Well, ...] = ()
    """The wells of which it could be one, where its name leaves that open."""
    by_others: bool = False
    """Whether its well is read as in the other names of its folder."""
    time: NamedTime = field(default_factory=NamedTime)
    """When it was recorded, in hours of its plate's series."""
    condition: Condition = field(default_factory=Condition)
    """What was done to its well."""
    pixel_um: float | None = None
    exported: bool = False
    """Whether it is a plane of a Harmony export."""
    listed: bool = False
    """Whether a manifest names it."""
    problem: str | None = None
    """Why it cannot be read, where that is known already."""

    @property
    def key(self) -> str:
        """The place as a text that files can hold."""
        return shown(self.place)

    @property
    def stamp(self) -> str:
        """Another one where the file, or what is known of it, is another."""
        return f"{self.size}-{self.modified}-{self.pixel_um}-{self.problem}"

    def of_channel(self, channel: str) -> Self:
        """The same, of which that channel is meant if it has several."""
        return replace(self, image=replace(self.image, channel=channel))

    def read(self) -> ImageFile:
        """The file in memory. Raises DataError for one that cannot be read or is too large, which is then not read."""
        if self.problem:
            raise DataError(self.problem)
        return self.image.in_memory()


def list_files(
    given: Sequence[PlaceLike],
    *,
    channel: str | None = None,
    page: Pages | None = None,
    well_pattern: str | None = None,
    hours_between: float | None = None,
    layout: PlaceLike | None = None,
    but: Container[str] = (),
    skipped: list[str] | None = None,
) -> list[ListedFile]:
    """Every image of what is given, each once, in order, but those at the places `but`.

    Files of folders that are no images are added to `skipped`, by their names.

    Of what the names say to be planes of one site, `page` is taken, or the middle one; wells are read from names, or
    by a regular expression. Numbers of frames are times where `hours_between` says how far apart these are; `layout`
    is a table of wells (well,treatment,dose,lineage,plate). Raises DataError for what is not there, for no image at
    all, for a table that cannot be read, and where a Harmony export has several channels of transmitted light, or sites
    come in several files of a channel each, and none is named (of the channels in a file its `pages` know); ConfigError
    for a pattern by which no well is found, and for hours between frames where none has a number.
    """
    by_place: dict[str, ListedFile] = {}
    for argument in given:
        left = [] if skipped is None else skipped
        for file in _list(path_at(argument), channel, hours_between, str(argument), left):
            if file.place not in but:
                by_place.setdefault(file.place, file)
    if not by_place:
        raise DataError(f"no {', '.join(sorted(SUFFIXES))} file in {', '.join(map(str, given))}")
    files = _of_names(list(by_place.values()), channel, page, well_pattern, hours_between)
    if hours_between is not None and not any(file.time.numbered for file in files):
        raise ConfigError(
            f"--hours-between is for numbers of frames (t03, T0001, sk3), and none of {len(files)} images has one that "
            f"is needed, like {files[0].name}; leave it out"
        )
    return files if layout is None else _laid_out(files, layout)


def _laid_out(files: list[ListedFile], layout: PlaceLike) -> list[ListedFile]:
    """The files with what a table says of their wells."""
    told = read_plate_layout(path_at(layout))
    plates = plate_names({file.folder for file in files if file.well})
    told.check(plates.values())
    return [
        replace(file, condition=told.of(plates[file.folder], file.well).over(file.condition)) if file.well else file
        for file in files
    ]


def notes_on_times(files: Sequence[ListedFile]) -> list[str]:
    """A line for each way in which the times of files are left open."""
    kinds: dict[str, list[ListedFile]] = defaultdict(list)
    for file in files:
        if file.well and file.time.left_open:
            kinds[file.time.left_open].append(file)
    return [_note(says, of) for says, of in kinds.items()]


def notes_on_wells(files: Sequence[ListedFile], well_pattern: str | None = None) -> list[str]:
    """A line for each way in which the names of files leave open what their wells are."""
    open_ = [file for file in files if not file.well]
    then = "so they are on no plate; --well-pattern says what the well is"
    kinds = {
        f"could mean two wells, {then}": [file for file in open_ if len(file.could_be) > 1],
        f"may hold a well, or a day, a passage or a cell line, {then}": [f for f in open_ if len(f.could_be) == 1],
        "read as the others of the folder; --well-pattern says it otherwise": [f for f in files if f.by_others],
    }
    if well_pattern is not None:
        kinds = {f"of {len(files):,} without a well by --well-pattern, so on no plate": open_}
    return [_note(says, of, _wells(of[0])) for says, of in kinds.items() if of]


def _wells(file: ListedFile) -> str:
    """The well of a file, or those of which it could be one, in brackets."""
    wells = " or ".join(well.name for well in file.could_be or (file.well,) if well)
    return f" ({wells})" if wells else ""


def _note(says: str, files: Sequence[ListedFile], about: str = "") -> str:
    first = files[0]
    return f"{len(files):,} name{'s' * (len(files) != 1)} {says}: {first.name}{about}"


def plate_names(folders: Iterable[str]) -> dict[str, str]:
    """The plate that each folder stands for: its name, with as much of its path as tells it from the others.

    Folders `Images`, `ZStep_1` and `TimePoint_1` are their plate's, as Harmony and MetaXpress export them.
    """
    parts = {folder: [part for part in folder.split("/") if part and not is_part_of_plate(part)] for folder in folders}
    different = len(set(map(tuple, parts.values())))
    for depth in range(1, max(map(len, parts.values()), default=0) + 1):
        names = {folder: "/".join(path[-depth:]) for folder, path in parts.items()}
        if len(set(names.values())) == different:
            return names
    return {folder: "/".join(path) for folder, path in parts.items()}


def _of_names(
    files: list[ListedFile],
    channel: str | None,
    page: Pages | None,
    well_pattern: str | None,
    hours_between: float | None,
) -> list[ListedFile]:
    """The files with their wells and times; of those that nothing lists, one channel and plane a site, no thumbnail."""
    found = {file.place for file in files if not (file.exported or file.listed)}
    small = thumbnails(sorted(found))
    if small:
        logger.warning(
            "%d thumbnail%s left out, like %s", len(small), " is" if len(small) == 1 else "s are", min(small)
        )
        files, found = [file for file in files if file.place not in small], found - small
    named = [file for file in files if not file.exported]
    if well_pattern is not None and not named:
        raise ConfigError("--well-pattern is for names, and a Harmony export tells its wells by itself; leave it out")
    told = read_names([f"{file.folder}/{file.image.name}" for file in named], well_pattern)
    names = {file.place: name for file, name in zip(named, told, strict=True)}
    chosen = {place: name for place, name in names.items() if place in found}
    mixed = _mixed(chosen.values())
    chosen = _of_planes(_of_channel(chosen, mixed, channel), page)
    taken = [file for file in files if file.place not in found or file.place in chosen]
    taken = _with_names(taken, names, hours_between)
    if channel is None:
        return taken
    return [file if file.exported or names[file.place].plate in mixed else file.of_channel(channel) for file in taken]


def _with_names(
    files: Sequence[ListedFile], names: Mapping[str, ImageName], hours_between: float | None
) -> list[ListedFile]:
    """The files with what their names say: of times on plates of which no manifest says any."""
    named = [file for file in files if not file.exported]
    of_one = over_time(names[file.place].plate for file in named)
    plates = [of_one.get(name.plate, name.plate) for name in (names[file.place] for file in named)]
    said = [replace(names[file.place], plate=plate) for file, plate in zip(named, plates, strict=True)]
    told = read_times(said, [f"{file.folder}/{file.image.name}" for file in named], hours_between=hours_between)
    given = {name.plate for file, name in zip(named, said, strict=True) if file.time != NamedTime()}
    known = {
        file.place: _with_name(file, name, file.time if name.plate in given else time)
        for file, name, time in zip(named, said, told, strict=True)
    }
    return [known.get(file.place, file) for file in files]


def _with_name(file: ListedFile, name: ImageName, time: NamedTime) -> ListedFile:
    return replace(
        file, folder=name.plate, well=name.well, could_be=name.could_be, by_others=name.by_others, time=time
    )  # fmt: skip


def _mixed(names: Iterable[ImageName]) -> set[str]:
    """The plates whose sites come in several channels, a file each."""
    shots: dict[str, set[str | None]] = defaultdict(set)
    plates: dict[str, str] = {}
    for name in names:
        shots[name.shot].add(name.channel)
        plates[name.shot] = name.plate
    return {plates[shot] for shot, channels in shots.items() if len(channels) > 1}


def _of_channel(names: dict[str, ImageName], mixed: set[str], wanted: str | None) -> dict[str, ImageName]:
    """Of mixed plates the files of the channel that is named, or else of the only one of transmitted light."""
    by_channel: dict[str, list[str]] = defaultdict(list)
    for place, name in names.items():
        if name.plate in mixed and name.channel is not None:
            by_channel[name.channel].append(place)
    if not by_channel:
        return names
    if wanted is None:
        fitting = [one for one in by_channel if is_transmitted(one.lstrip("0123456789"))]
    else:
        fitting = [one for one in by_channel if _channel_key(one) == _channel_key(wanted)]
    others = {one: places for one, places in by_channel.items() if one not in fitting}
    if len(fitting) != 1:
        seen = "shows its sites in several channels" if wanted is None else f"has no channel {wanted!r}"
        which = ", ".join(f"{one} ({len(places)} images, like {places[0]})" for one, places in by_channel.items())
        raise DataError(f"{min(mixed) or 'what was given'} {seen}; choose one with --channel: {which}")
    if wanted is None:
        logger.warning(
            "of several channels, %s is taken, and %d images of %s are left out; --channel takes another",
            fitting[0], sum(map(len, others.values())), ", ".join(others),
        )  # fmt: skip
    left_out = {place for places in others.values() for place in places}
    return {place: name for place, name in names.items() if place not in left_out}


def _channel_key(channel: str) -> str:
    """
    >>> {_channel_key(channel) for channel in ("1", "01", "w1", "W01", "ch1", "C1")}
    {'1'}
    """
    return re.sub(r"^(?:w|c|ch|channel)?[ _-]?0*(?=\d)", "", channel.strip().casefold())


def _of_planes(names: dict[str, ImageName], page: Pages | None) -> dict[str, ImageName]:
    """Of sites that come in several planes, the one that is asked for, or the middle one."""
    stacks: dict[str, list[str]] = defaultdict(list)
    for place, name in names.items():
        if name.plane is not None:
            stacks[name.shot].append(place)
    stacks = {shot: sorted(stack, key=lambda place: names[place].plane or 0) for shot, stack in stacks.items()}
    several = [stack for stack in stacks.values() if len(stack) > 1]
    if page == "all" or not several:
        return names
    number = page if isinstance(page, int) else None
    if number is not None and (short := next((stack for stack in several if len(stack) < number), None)):
        raise DataError(f"{short[0]} is one of {len(short)} planes, so there is no page {number}")
    taken = {stack[len(stack) // 2 if number is None else number - 1] for stack in several}
    left_out = {place for stack in several for place in stack} - taken
    logger.warning(
        "%d sites come in several planes, of which %s is taken; %d images are left out, and --page all takes them too",
        len(several), "the middle one" if number is None else f"number {number}", len(left_out),
    )  # fmt: skip
    return {place: name for place, name in names.items() if place not in left_out}


def _list(
    path: AnyPath, channel: str | None, hours_between: float | None, given: str, skipped: list[str]
) -> Iterator[ListedFile]:
    """The images of one argument."""
    if path.is_dir():
        yield from _of_folder(path, channel, hours_between, skipped)
    elif not is_file(path):
        raise DataError(f"{given} {missing(path)}; {GIVE}")
    elif harmony.accepts(path):
        yield from _of_export(path, channel, hours_between)
    elif path.suffix.lower() == ".csv":
        yield from _of_manifest(path)
    else:
        yield _file(path)


def _of_folder(
    folder: AnyPath, channel: str | None, hours_between: float | None, skipped: list[str]
) -> Iterator[ListedFile]:
    if (folder / MANIFEST).is_file():
        yield from _of_manifest(folder / MANIFEST)
        return
    if harmony.accepts(folder):
        yield from _of_export(folder, channel, hours_between)
        return
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"cannot look into {folder}: {error.strerror}") from error
    for path in paths:
        if is_hidden(path.name):
            continue
        if path.is_dir():
            if not path.is_symlink():
                yield from _of_folder(path, channel, hours_between, skipped)
        elif path.suffix.lower() in SUFFIXES:
            yield _file(path)
        else:
            skipped.append(shown(str(path)))


def _of_export(export: AnyPath, channel: str | None, hours_between: float | None) -> Iterator[ListedFile]:
    recorded = harmony.read_images(export, channel)
    points = {plane.time_point for plane in recorded}
    for plane in recorded:
        time = NamedTime(hours=plane.time_h)
        if plane.time_h is None and hours_between is not None:
            time = NamedTime(hours=(plane.time_point - min(points)) * hours_between, numbered=True)
        elif plane.time_h is None and len(points) > 1:
            time = NamedTime(left_open=BETWEEN, numbered=True)
        listed = _file(plane.image.image.path)
        plate = (plane.image.group or "").rpartition("/")[0]
        yield replace(
            listed, folder=f"{listed.folder}/{shown(plate)}", well=well_at(*plane.well), exported=True, time=time,
            condition=plane.condition, pixel_um=plane.image.pixel_um, problem=plane.image.problem,
        )  # fmt: skip


def _of_manifest(manifest: AnyPath) -> Iterator[ListedFile]:
    rows = read_csv(manifest, ("image",), numbers=("pixel_um", "time_h"))
    if not rows:
        raise DataError(f"{manifest} has a header and no rows; add one row an image")
    timed = any(row["time_h"] for row in rows)
    meant = _meant(manifest.parent, {row["image"] for row in rows if row["image"]})
    for row in rows:
        pixel_um, problem = number_of(row.get("pixel_um", "")), None
        match = meant.get(row["image"])
        path = match.one if match and match.one else row["image"]
        if not row["image"]:
            problem = "the manifest names no image in this row"
        elif match and match.one is None:
            problem = match.why_not(row["image"])
        elif row.get("pixel_um") and (pixel_um is None or pixel_um <= 0):
            problem = f"the pixel size {row['pixel_um']!r} is not a number of micrometres"
        yield replace(
            _file(manifest.parent / path), pixel_um=pixel_um, problem=problem, listed=True,
            time=_time_in(row) if timed else NamedTime(), condition=Condition.of(row),
        )  # fmt: skip


def _time_in(row: Mapping[str, str]) -> NamedTime:
    """What a row of a manifest that has times says of its own."""
    hours = number_of(row["time_h"])
    return NamedTime(hours, None if hours is not None else NOT_HOURS if row["time_h"] else NONE)


def _meant(folder: AnyPath, written: set[str]) -> dict[str, Match]:
    """The images that names which are no paths may mean, as in an import."""
    if all(is_file(folder / name) for name in written):
        return {}
    matches = Names(images_below(folder)).find_all(written)
    return {name: match for name, match in matches.items() if match.images and not is_file(folder / name)}


def _file(path: AnyPath) -> ListedFile:
    place = os.path.abspath(path) if isinstance(path, Path) else str(path)
    image = ImageFile(shown(path.name), Path(place) if isinstance(path, Path) else path)
    size, modified = image.stamp or (0, "")
    return ListedFile(
        image=image, place=place, name=shown(str(path)), folder=shown(os.path.dirname(place).removeprefix(S3)),
        size=size, modified=str(modified),
    )  # fmt: skip


def shown(path: str) -> str:
    """A path as text for people and files, also where its bytes are no UTF-8."""
    return path.encode("utf-8", "backslashreplace").decode()
