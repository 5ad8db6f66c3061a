"""A bank's frames and what is said of them as files that an import reads again.

    OUT/manifest.csv, points.csv, images/*.png            all that an import takes, also group and batch
    OUT/annotations.json, images/LINEAGE__GROUP__*.png    COCO, a box of one pixel around each centre
    OUT/LINEAGE/*.png, counts.csv, points.csv             folders, with the centres

Images are those of the bank, pixel by pixel. What a label calls unusable stays out, and so does what the form cannot
say.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from cellnet.bank.bank import Bank
from cellnet.bank.frames import Frame
from cellnet.errors import ConfigError, DataError

Form = Literal["manifest", "coco", "points"]
HEADER: Final = ("image", "lineage", "count", "group", "batch", "time_h", "pixel_um")
"""Of a manifest."""
LINEAGE: Final = "^(?!-__)(.+?)__"
GROUP: Final = "^.+?__(.+?)__"
"""By which an import finds lineage and group in the names of images."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    source: Path
    """What an import is given."""
    frames: int
    left_out: dict[str, int]
    """Frames that are not in it, by the reason."""
    options: tuple[str, ...] = ()
    """What an import is told besides."""


def export(bank: Bank, folder: Path, form: Form) -> Exported:
    """Write a bank's usable frames into a new folder. Raises ConfigError where there is something in it already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already; name a folder that is not, or an empty one")
    lacks, named, write = _FORMS[form]
    left_out: dict[str, int] = {}
    chosen = []
    for frame in bank.frames:
        if why := f"unusable: {frame.unusable}" if frame.unusable else lacks(frame, bank.lineages):
            left_out[why] = left_out.get(why, 0) + 1
        else:
            chosen.append(frame)
    if not chosen:
        why = ", ".join(f"{number} {why}" for why, number in left_out.items()) or "it has none"
        raise DataError(f"no frame of {bank.store.uri} can be written as {form}: {why}")
    names = dict(_names(chosen, named))
    for frame in chosen:
        path = folder / names[frame.frame]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bank.store.get(f"pixels/{frame.frame}.png"))
    source, options = write(folder, chosen, names)
    return Exported(source, len(chosen), left_out, options)


def _names(frames: Iterable[Frame], named: Callable[[Frame], str]) -> Iterator[tuple[str, str]]:
    """A path below the folder for each frame: its image's name, with a number where another has it."""
    taken: set[str] = set()
    for frame in frames:
        stem = _word(re.sub(r"\.[A-Za-z0-9]{1,4}$", "", re.split(r"[/\\]", frame.source)[-1].partition("#")[0]))
        path, number = f"{named(frame)}{stem}.png", 1
        while path.casefold() in taken:
            number += 1
            path = f"{named(frame)}{stem}-{number}.png"
        taken.add(path.casefold())
        yield frame.frame, path


def _word(text: str | None) -> str:
    """A text as the name of a file or folder.

    >>> _word("../a b.c"), _word("SH-SY5Y"), _word(None)
    ('a_b.c', 'SH-SY5Y', '-')
    """
    return re.sub(r"[^\w.+-]+", "_", text or "").strip("._")[:100] or "-"


def _cell(value: str | float | None) -> str:
    """A value as it stands in a table: a number so that the very same is read again."""
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() else repr(value)
    return value or ""


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _write_points(path: Path, frames: Iterable[Frame], names: dict[str, str]) -> None:
    rows = ([names[frame.frame], _cell(x), _cell(y)] for frame in frames for x, y in frame.centres or ())
    _write_csv(path, ["image", "x", "y"], rows)


def _write_manifest(folder: Path, frames: list[Frame], names: dict[str, str]) -> tuple[Path, tuple[str, ...]]:
    rows = ([names[frame.frame], *(_cell(getattr(frame, name)) for name in HEADER[1:])] for frame in frames)
    _write_csv(folder / "manifest.csv", HEADER, rows)
    if any(frame.centres for frame in frames):
        _write_points(folder / "points.csv", frames, names)
    return folder / "manifest.csv", ()


def _write_coco(folder: Path, frames: list[Frame], names: dict[str, str]) -> tuple[Path, tuple[str, ...]]:
    lineages = sorted({frame.lineage or "cell" for frame in frames})
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, frame in enumerate(frames, start=1):
        size = {"width": frame.width, "height": frame.height}
        images.append({"id": number, "file_name": names[frame.frame], **size})
        category = lineages.index(frame.lineage or "cell") + 1
        for x, y in frame.centres or ():
            box = {"bbox": [x - 0.5, y - 0.5, 1.0, 1.0], "area": 1.0, "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": category, **box})
    categories = [{"id": number, "name": lineage} for number, lineage in enumerate(lineages, start=1)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    source = folder / "annotations.json"
    source.write_text(json.dumps(document, indent=1), encoding="utf-8")
    return source, ("--lineage-pattern", LINEAGE, "--group-pattern", GROUP)


def _write_folders(folder: Path, frames: list[Frame], names: dict[str, str]) -> tuple[Path, tuple[str, ...]]:
    rows = ([names[frame.frame], _cell(frame.count)] for frame in frames)
    _write_csv(folder / "counts.csv", ["image", "count"], rows)
    _write_points(folder / "points.csv", frames, names)
    return folder, ()


def _lacks_nothing(frame: Frame, lineages: Sequence[str]) -> str:
    return ""


def _lacks_for_coco(frame: Frame, lineages: Sequence[str]) -> str:
    """Cells of several categories are of lineages, so that each has one, or none has."""
    return "without centres" if frame.centres is None else _lacks_a_lineage(frame) if lineages else ""


def _lacks_for_folders(frame: Frame, lineages: Sequence[str]) -> str:
    return "without centres" if frame.centres is None else _lacks_a_lineage(frame)


def _lacks_a_lineage(frame: Frame) -> str:
    return "" if frame.lineage else "without a lineage"


_FORMS: Final = {
    "manifest": (_lacks_nothing, lambda frame: "images/", _write_manifest),
    "coco": (_lacks_for_coco, lambda frame: f"images/{_word(frame.lineage)}__{_word(frame.group)}__", _write_coco),
    "points": (_lacks_for_folders, lambda frame: f"{_word(frame.lineage)}/", _write_folders),
}
"""Of each form: what a frame lacks to be in it, how the path of its image begins, and what writes it."""
