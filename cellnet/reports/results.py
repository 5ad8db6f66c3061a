"""The folder of a job of predictions: what is done, as it comes, and at the end its tables and pictures.

    OUT/settings.json                  the models, and what else decides an answer; which pictures were drawn
    OUT/parts/*.parquet                predictions as they came: what the same command, given again, need not do again
    OUT/predictions.csv, .parquet      all rows of the last command that ended, in the order of its images
    OUT/predictions_wells.csv          where names tell wells, a row each: its value, and the images left out of it
    OUT/plate.png                      counts and lineages well by well; of several plates, plate-NAME.png of each
    OUT/growth.csv, doubling.csv       of plates that were recorded over time: counts, and how fast cells multiply
    OUT/growth.html                    the same to look at

Every file is seen whole or not at all. Images of the user's may be in OUT too, whatever their names.
"""

import io
import itertools
import json
import os
import re
import secrets
import time
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cellnet.errors import ConfigError, DataError, NotFoundError
from cellnet.images.wells import Well, named_well
from cellnet.prediction.answers import Prediction
from cellnet.prediction.sources import ListedFile, plate_names
from cellnet.prediction.tables import COLUMNS, csv_lines, prediction_of, row_of
from cellnet.reports.growth import COUNTS, DIGITS, RATES, Series, count_rows, rate_rows, series_of
from cellnet.reports.growth_page import growth_page
from cellnet.reports.plates import SOFTER, SoftPlate, WellSummary, draw_plate, left_out_words, soft_plates, summarise
from cellnet.store.objects import Store
from cellnet.store.parquet import read_parquet
from cellnet.store.place import PlaceLike, open_store, place_of

SETTINGS: Final = "settings.json"
PICTURES: Final = "pictures"
"""Which pictures were drawn, beside the settings."""
PARTS: Final = "parts/"
TABLE: Final = "predictions"
WELLS: Final = "predictions_wells.csv"
KEEP_S: Final = 2.0
"""How often what has come is kept, in seconds: what a job that is killed loses at most."""
ROWS: Final = 1000
"""Rows that are made into text at a time."""

NUMBERS: Final = ("probability", "count", "count_low", "count_high", "interval_level", "focus")
TYPES: Final = dict.fromkeys(NUMBERS, pa.float64()) | {
    **dict.fromkeys(("unfamiliar", "lineage_unfamiliar", "count_unfamiliar"), pa.bool_()),
    "tiles": pa.int64(),
    "probabilities": pa.map_(pa.string(), pa.float64()),
}
SAID: Final = pa.schema([(name, TYPES.get(name, pa.string())) for name in (*COLUMNS, "probabilities")])
"""A prediction."""
PART: Final = pa.schema([*SAID, ("place", pa.string()), ("stamp", pa.string()), ("page", pa.string())])
OF_WELLS: Final = (
    *("plate", "well", "row", "column", "time_h", "images", "left_out", "failed", "empty"),
    *("count", "lineage", "probability", "note"),
)
"""Of a well: images that have their part in its value; those that have none, being out of focus or saturated; those
without an answer; those of the first that are empty. `note` is what was left out, why there is no value, and whether
the plate is softer than the training frames."""
WELL: Final = pa.schema(
    [
        *(("plate", pa.string()), ("well", pa.string()), ("row", pa.string()), ("column", pa.int64())),
        *(("time_h", pa.float64()), ("treatment", pa.string()), ("dose", pa.string()), ("known_lineage", pa.string())),
    ]
)
"""What is known of a well and its image besides; `row` is a letter."""

At = tuple[Well, float | None]
"""A well, and the hours at which it was recorded; None of a plate that was recorded once."""
Said = tuple[ListedFile, list[Prediction]]
"""An image, and what is said of it: of its pages, where several were asked for."""


class Results:
    """What a job of predictions keeps, and what those before it left."""

    def __init__(self, store: Store, settings: Mapping[str, Any]) -> None:
        self.store = store
        self._settings = settings
        self._tables = [_part(store, key) for key in store.keys(PARTS) if _PART.fullmatch(key)]
        self._left = _latest(self._tables)
        self._waiting: list[dict[str, Any]] = []
        self._kept_s = time.monotonic()
        self.series = Series()
        """The plates over time, once the job has ended."""
        self.soft: list[SoftPlate] = []
        """Those that are softer than the training frames, likewise."""
        self.as_sharp: set[str] = set()
        """The images of these that are as sharp as the others of their plate."""

    @classmethod
    def open(cls, place: PlaceLike, settings: Mapping[str, Any], *, overwrite: bool = False) -> Self:
        """The results in a folder or s3://bucket/prefix; with `overwrite` those that are there go.

        Raises ConfigError where it holds predictions by other models or settings, or files of something else.
        """
        store = open_store(place)
        left, pictures = _settings_of(store)
        there = [key for key in store.keys("") if key in pictures or _is_ours(key)]
        if overwrite:
            for key in there:
                if key != SETTINGS:  # replaced once the pictures that it knows are gone
                    store.delete(key)
        elif there:
            _check_settings(place, left, settings)
        results = cls(store, settings)
        results._note(() if overwrite else pictures)
        return results

    def done(self, sources: Iterable[ListedFile]) -> dict[str, list[int]]:
        """The keys of images that are predicted already, with the rows to give `left`; those that failed are not."""
        stamps = {source.key: source.stamp for source in sources}
        rows: dict[str, list[int]] = defaultdict(list)
        failed = set()
        columns = [self._left.column(name).to_pylist() for name in ("place", "stamp", "error")]
        for row, (place, stamp, error) in enumerate(zip(*columns, strict=True)):
            if stamps.get(place) == stamp:
                rows[place].append(row)
                failed |= set() if error is None else {place}
        return {place: found for place, found in rows.items() if place not in failed}

    def left(self, source: ListedFile, rows: Iterable[int]) -> list[Prediction]:
        """What was said of an image, under the name that it has now."""
        found = [self._left.slice(row, 1).to_pylist()[0] for row in rows]
        return [prediction_of({**row, "image": source.name + row["page"]}) for row in found]

    def add(self, said: Iterable[Said]) -> None:
        """What is said of some images, kept soon."""
        for source, predictions in said:
            about = {"place": source.key, "stamp": source.stamp}
            self._waiting += [
                {**row_of(one), **about, "page": one.image.removeprefix(source.name)} for one in predictions
            ]
        if time.monotonic() - self._kept_s > KEEP_S:
            self.flush()

    def flush(self) -> None:
        """Keep now what has come."""
        if self._waiting:
            table = pa.Table.from_pylist(self._waiting, PART)
            last = max((key for key in self.store.keys(PARTS) if _PART.fullmatch(key)), default=f"{PARTS}000000")
            number = int(last[len(PARTS) :][:6]) + 1
            self.store.put(f"{PARTS}{number:06}-{secrets.token_hex(3)}.parquet", _parquet(table))
            self._tables.append(table)
            self._waiting = []
        self._kept_s = time.monotonic()

    def finish(self, sources: Sequence[ListedFile], *, control: str | None = None) -> list[str]:
        """Write the tables, a picture of every plate of which two wells are known, and growth; gives where.

        Growth is of plates of several times; of a `control`, a treatment, the others are compared with it.
        """
        self.flush()
        table, of_rows = _in_order(_latest(self._tables), sources)
        plates = plate_names({source.folder for source in sources if source.well})
        table, self.soft = _beside_plates(_with_wells(table, of_rows, plates))
        self.as_sharp = {table["image"][place].as_py() for plate in self.soft for place in plate.as_sharp}
        soft = {plate.name for plate in self.soft}
        _, before = _settings_of(self.store)
        self.series = series_of(_of_wells(table), control=control)
        wells = _wells(table, self.series)
        taken = {key for start in ("plate", "growth", "doubling") for key in self.store.keys(start)} - before
        pictures = _pictures(wells, self.series, soft, taken=taken) | _growth(self.series, taken=taken)
        written = {f"{TABLE}.csv": _csv(table), f"{TABLE}.parquet": _parquet(table)}
        written |= {WELLS: _wells_csv(wells, soft)} if wells else {}
        written |= pictures
        if not wells:
            self.store.delete(WELLS)
        self._note({*before, *pictures})  # first, so that none is left unknown where the job is killed
        for key in before - pictures.keys():
            self.store.delete(key)
        for key, data in written.items():
            self.store.put(key, data)
        self._note(pictures)
        return [f"{self.store.uri}/{key}" for key in written]

    def _note(self, pictures: Iterable[str]) -> None:
        """Write down the settings, and which pictures are drawn."""
        noted = {**self._settings, PICTURES: sorted(pictures)}
        self.store.put(SETTINGS, json.dumps(noted, indent=1).encode())


def drawn_in(given: PlaceLike) -> set[str]:
    """Where the pictures are that jobs of predictions drew in a folder or s3://bucket/prefix."""
    place = place_of(given)
    _, pictures = _settings_of(place.open())
    folder = place if place.is_on_s3 else place.elsewhere(os.path.abspath(place.uri))
    return {folder.below(name).uri for name in pictures}


def is_below(name: str, given: PlaceLike) -> bool:
    """Whether a file lies in a folder or s3://bucket/prefix, or below it."""
    place = place_of(given)
    if place.is_on_s3:
        return name.startswith(place.uri.rstrip("/") + "/")
    return Path(os.path.abspath(name)).is_relative_to(os.path.abspath(place.uri))


def _is_ours(key: str) -> bool:
    """Whether a job of predictions keeps its rows or settings under that name."""
    return key in (SETTINGS, WELLS, f"{TABLE}.csv", f"{TABLE}.parquet") or _PART.fullmatch(key) is not None


_PART: Final = re.compile(rf"{PARTS}\d{{6}}-[0-9a-f]{{6}}\.parquet")
_PICTURE: Final = re.compile(r"plate(-[A-Za-z0-9._-]+)?\.png|(growth|doubling)(-\d+)?\.csv|growth(-\d+)?\.html")


def _settings_of(store: Store) -> tuple[dict[str, Any], set[str]]:
    """The settings of the jobs before, and the pictures that they drew; none of what something else left."""
    try:
        found = json.loads(store.get(SETTINGS))
    except (NotFoundError, ValueError):
        return {}, set()
    settings = found if isinstance(found, dict) else {}
    pictures = settings.pop(PICTURES, None)
    names = pictures if isinstance(pictures, list) else []
    return settings, {name for name in names if isinstance(name, str) and _PICTURE.fullmatch(name)}


def _check_settings(place: PlaceLike, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise ConfigError unless both are the same."""
    if there == wanted:
        return
    next_step = "give another --out, or --overwrite"
    if there.keys() != wanted.keys():
        raise ConfigError(f"{place} holds files of something else than this command; {next_step}")
    if there["models"] != wanted["models"]:
        names, other = (", ".join(found["models"]) for found in (there, wanted))
        other = "others of these names" if names == other else other
        raise ConfigError(f"{place} holds predictions by {names}, not by {other}; {next_step}")
    key = next(key for key in wanted if there[key] != wanted[key])
    option = f"--{key.replace('_', '-')}"
    one, other = (f"no {option}" if found[key] is None else f"{option} {found[key]}" for found in (there, wanted))
    raise ConfigError(f"{place} holds predictions made with {one}, not with {other}; {next_step}")


def _part(store: Store, key: str) -> pa.Table:
    try:
        return read_parquet(store.get(key)).cast(PART)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise DataError(
            f"{store.uri}/{key} is damaged, or of another version of cellnet; give another --out, or --overwrite"
        ) from error


def _latest(tables: Sequence[pa.Table]) -> pa.Table:
    """The rows of all parts; of an image that is in several, those of the last."""
    last = {place: number for number, table in enumerate(tables) for place in table.column("place").to_pylist()}
    return pa.concat_tables(
        [
            table.filter(pa.array([last[place] == number for place in table.column("place").to_pylist()], pa.bool_()))
            for number, table in enumerate(tables)
        ]
        or [PART.empty_table()]
    ).combine_chunks()


def _in_order(table: pa.Table, sources: Sequence[ListedFile]) -> tuple[pa.Table, list[ListedFile]]:
    """The rows of these images in their order, and the image of each row."""
    numbers = {source.key: number for number, source in enumerate(sources)}
    place_N = np.array([numbers.get(place, -1) for place in table.column("place").to_pylist()], np.int64)
    rows = np.argsort(place_N, kind="stable")
    rows = rows[place_N[rows] >= 0]
    return table.take(rows), [sources[number] for number in place_N[rows]]


def _with_wells(table: pa.Table, of_rows: Sequence[ListedFile], plates: Mapping[str, str]) -> pa.Table:
    """The rows under the images' names of now, with their wells where these are known."""
    pages = table.column("page").to_pylist()
    image = pa.array([source.name + page for source, page in zip(of_rows, pages, strict=True)], pa.string())
    table = table.set_column(0, "image", image)
    wells = pa.Table.from_pylist([_well_cells(source, plates) for source in of_rows], WELL)
    for name in WELL.names:
        table = table.append_column(name, wells.column(name))
    return table.select([*COLUMNS, *WELL.names, "probabilities", "place"])


def _well_cells(source: ListedFile, plates: Mapping[str, str]) -> dict[str, Any]:
    known = source.condition
    said = {"time_h": source.time.hours, "treatment": known.treatment, "dose": known.dose}
    said |= {"known_lineage": known.lineage}
    if source.well is None:
        return said
    well, plate = source.well, plates[source.folder]
    return said | {"plate": plate, "well": well.name, "row": well.letter, "column": well.column}


def _beside_plates(table: pa.Table) -> tuple[pa.Table, list[SoftPlate]]:
    """The rows without the flag `out_of_focus` of images that are as sharp as their plate, and the plates so judged."""
    flags = [None if said is None else said.split() for said in table.column("quality").to_pylist()]
    soft = soft_plates(zip(*(table.column(name).to_pylist() for name in ("plate", "focus")), flags, strict=True))
    for place in (place for plate in soft for place in plate.as_sharp):
        flags[place] = [flag for flag in flags[place] or () if flag != "out_of_focus"]
    told = pa.array([None if of is None else " ".join(of) for of in flags], pa.string())
    return table.set_column(table.column_names.index("quality"), "quality", told), soft


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows, of which few are in memory as Python's own at a time."""
    for batch in table.to_batches(max_chunksize=ROWS):
        yield from batch.to_pylist()


def _csv(table: pa.Table) -> bytes:
    return "".join(csv_lines(_rows(table), [*COLUMNS, *WELL.names])).encode()


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _of_wells(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows whose well is known."""
    return _rows(table.filter(pc.is_valid(table.column("well"))))


def _wells(table: pa.Table, series: Series) -> dict[str, dict[At, WellSummary]]:
    """What is said of the wells of every plate; of a plate that was recorded over time, at each time."""
    plates: dict[str, dict[At, list[Prediction]]] = defaultdict(lambda: defaultdict(list))
    for row in _of_wells(table):
        well, time_h = named_well(row["well"]), row["time_h"] if row["plate"] in series.last_h else None
        assert well is not None
        at = (well, None if time_h is None else round(time_h, DIGITS))
        plates[row["plate"]][at].append(prediction_of(row))
    return {plate: {at: summarise(said) for at, said in wells.items()} for plate, wells in plates.items()}


def _wells_csv(plates: Mapping[str, Mapping[At, WellSummary]], soft: Container[str]) -> bytes:
    """A row a well, by rows and columns of its plate, and a time; `soft` are plates softer than the training."""
    rows = (
        _well_row(plate, *at, wells[at], f"plate {SOFTER}" if plate in soft else "")
        for plate, wells in plates.items()
        for at in sorted(wells, key=lambda at: (at[0], at[1] is not None, at[1] or 0.0))
    )
    return "".join(csv_lines(rows, OF_WELLS)).encode()


def _well_row(plate: str, well: Well, time_h: float | None, said: WellSummary, of_plate: str) -> dict[str, Any]:
    """Under the names of `OF_WELLS`; `of_plate` is what there is to note of the plate."""
    note = left_out_words([said])
    if not said.images:
        note = f"no value: {note or 'no image could be used'}"
    note = "; ".join(part for part in (note, of_plate) if part)
    return {
        **{"plate": plate, "well": well.name, "row": well.letter, "column": well.column, "time_h": time_h},
        **{"images": said.images, "left_out": said.left_out_n, "failed": said.failed, "empty": said.empty},
        **{"count": said.count, "lineage": said.lineage, "probability": said.probability, "note": note},
    }


def _pictures(
    plates: Mapping[str, Mapping[At, WellSummary]], series: Series, soft: Container[str], *, taken: Container[str]
) -> dict[str, bytes]:
    """Every plate of which two wells are known, at its last time, by a name for its picture that is not taken."""
    drawn = {}
    for plate, wells in plates.items():
        last_h = series.last_h.get(plate)
        shown = {well: said for (well, time_h), said in wells.items() if time_h == last_h}
        if len(shown) > 1:
            name = plate if last_h is None else f"{plate} at {last_h:g} h"
            drawn[plate] = draw_plate(shown, name=name, note=SOFTER if plate in soft else "")
    named: dict[str, bytes] = {}
    for plate, picture in drawn.items():
        name = "plate" if len(drawn) == 1 else f"plate-{re.sub(r'[^A-Za-z0-9._-]+', '_', plate)[:80]}"
        named[_free(name, ".png", {*named}, taken)] = picture
    return named


def _growth(series: Series, *, taken: Container[str]) -> dict[str, bytes]:
    """The tables of plates over time and their page, by names that are not taken; none where there is no such plate."""
    if not series.wells:
        return {}
    files = {
        ("growth", ".csv"): "".join(csv_lines(count_rows(series), COUNTS)),
        ("doubling", ".csv"): "".join(csv_lines(rate_rows(series), RATES)),
        ("growth", ".html"): growth_page(series),
    }
    return {_free(*name, taken): text.encode() for name, text in files.items()}


def _free(name: str, suffix: str, *taken: Container[str]) -> str:
    """The name, or with the first number behind it that makes it another than all that are taken."""
    names = itertools.chain([f"{name}{suffix}"], (f"{name}-{number}{suffix}" for number in itertools.count(2)))
    return next(free for free in names if not any(free in held for held in taken))
