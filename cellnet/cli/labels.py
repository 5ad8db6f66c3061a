"""`cellnet bank label` and what belongs to it: what people say of frames, its history, and files made of it."""

import argparse
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from cellnet.cli.options import AS_OF, BANK, ENDPOINT_URL, JSON, LEFT_OUT, bank_command, named_place, places_of
from cellnet.cli.parsing import MOMENT, POSITIVE, OneOf, Option, command
from cellnet.cli.printing import counted, print_json, print_table, say, tell
from cellnet.errors import ConfigError
from cellnet.tasks import TASKS, Task

if TYPE_CHECKING:
    from cellnet.bank.bank import Bank
    from cellnet.bank.labels import Label, Labels


def add_to(verbs: Any) -> None:
    command(
        verbs,
        "label",
        label,
        BANK,
        Option("table", metavar="TABLE", nargs="?", help="a CSV, here or as s3://bucket/key"),
        Option("--undo", type=POSITIVE, metavar="N", help="take back the labels of an entry, by a new one"),
        Option("--by", default="", metavar="NAME", help="who says it, where the table does not (your user name)"),
        Option("--why", default="", metavar="TEXT", help="why, where the table does not"),
        JSON,
        ENDPOINT_URL,
        help="correct what is said of frames, by a table; nothing that was said is lost",
        description=(
            "TABLE has a row a frame: image (or sha256), and of lineage (a name, or none of these), count, points "
            "(x y; x y), unusable (focus, debris, empty, other; no takes it back) and accepted (yes: the answer that "
            "was seen is right) what is known; also by, why, at, and of the answer that was looked at seen "
            "(classifier@3), seen_lineage, seen_count. Or a row a cell: image, x, y. An empty cell says nothing. The "
            f"newest label of each field counts; groups stay on their side of the split. Ends with {LEFT_OUT} where a "
            "row gave no label."
        ),
    )
    command(
        verbs,
        "labels",
        labels,
        BANK,
        Option("--of", metavar="FRAME", help="all that was said of a frame, by its image's name or its sha256"),
        JSON,
        ENDPOINT_URL,
        help="what people said of frames: the log of a bank, and where they disagree",
    )
    command(
        verbs,
        "export",
        export,
        BANK,
        OneOf(
            Option("--manifest", type=Path, metavar="OUT", help="manifest.csv, points.csv and images"),
            Option("--coco", type=Path, metavar="OUT", help="annotations.json (COCO) and images, for what has centres"),
            Option(
                "--points", type=Path, metavar="OUT", help="a folder a lineage, counts.csv and points.csv, likewise"
            ),
        ),
        AS_OF,
        JSON,
        ENDPOINT_URL,
        help="write frames and labels into a folder that bank import reads again",
    )
    command(
        verbs,
        "diff",
        diff,
        BANK,
        Option("before", type=MOMENT, metavar="A", help="an entry's number, or a time like 2026-11-29T10:30 (UTC)"),
        Option("after", type=MOMENT, metavar="B", nargs="?", help="likewise (the bank as it is)"),
        JSON,
        ENDPOINT_URL,
        help="what came into a bank, and what is said otherwise, between two moments",
    )


def label(arguments: argparse.Namespace) -> int:
    bank = places_of(arguments).open_bank()
    by, why = arguments.by, arguments.why
    if (arguments.table is None) == (arguments.undo is None):
        raise ConfigError("give either TABLE, with what frames are, or --undo N, the entry whose labels are taken back")
    told: dict[str, Any] = {"labels": 0, "same": 0, "left_out": [], "columns": []}
    entry: int | None = None
    if arguments.undo is not None:
        entry = bank.undo(arguments.undo, by=by, why=why)
        told["labels"] = len(bank.labels.of_entry(entry))
        say(f"the labels of entry {arguments.undo} are taken back, of {counted(told['labels'], 'frame')}")
    else:
        entry = _label_by_table(bank, arguments, told)
    if arguments.json:
        print_json({"bank": bank.store.uri, "entry": entry, "digest": bank.digest, **told})
    else:
        number = f"entry {entry}" if entry else "no entry"
        tell(f"{number}: {counted(told['labels'], 'label')}, digest {bank.digest[:12]}, in {bank.store.uri}")
    if entry:
        say(f"to take it back: {bank_command(arguments, 'bank', 'label', arguments.bank, '--undo', entry)}")
        for task in _taught(bank.labels.of_entry(entry)):
            start = f"model.weights={TASKS[task].model}:champion"
            learn = bank_command(arguments, "train", arguments.bank, "--task", task, "--set", start)
            say(f"to learn on from it: {learn}")
    return LEFT_OUT if told["left_out"] else 0


def _taught(labels: "Labels") -> list[Task]:
    """The tasks that labels teach something."""
    return [task for task, facts in TASKS.items() if labels.table.column(facts.answer).null_count < len(labels)]


def _label_by_table(bank: "Bank", arguments: argparse.Namespace, told: dict[str, Any]) -> int | None:
    """The entry with the labels of a table, if it says anything new; what came of the rows is added to `told`."""
    from cellnet.bank.label_table import OF_MANIFESTS, read_labels
    from cellnet.store.paths import path_at

    read = read_labels(path_at(named_place(arguments.table, arguments)), bank)
    told |= {"labels": len(read.labels), "same": read.same, "left_out": read.left_out, "columns": read.columns}
    for line in read.left_out:
        say(f"left out {line}")
    for name in read.columns:
        why = ", which stays as it was imported" if name in OF_MANIFESTS else ""
        say(f"not used: the column {name}{why}")
    if read.same:
        say(f"{counted(read.same, 'frame')} of which the table says what the bank has already")
    if not read.labels:
        return None
    known = bank.lineages
    entry = bank.label(read.labels, by=arguments.by, why=arguments.why)
    if new := [lineage for lineage in bank.lineages if lineage not in known]:
        say(f"note: new to the bank: {', '.join(new)}; it had {', '.join(known) or 'no lineage'}")
    return entry


def labels(arguments: argparse.Namespace) -> None:
    from cellnet.bank.finding import find_frame
    from cellnet.bank.history import disagreements, taken_back

    bank = places_of(arguments).open_bank()
    frame = find_frame(bank, arguments.of) if arguments.of is not None else None
    chosen = bank.labels if frame is None else bank.labels.of_frame(frame)
    back = taken_back(bank.labels)
    disagreeing = disagreements(chosen)
    sources = _sources(bank, [*chosen.table.column("frame").to_pylist(), *([frame] if frame else [])])
    entries = [] if frame else _entries(bank, back)
    if arguments.json:
        said = [
            {**one.model_dump(mode="json"), "source": sources.get(one.frame), "taken_back_by": back.get(one.entry)}
            for one in chosen
        ]
        otherwise = [{**vars(one), "source": sources.get(one.frame)} for one in disagreeing]
        print_json({"bank": bank.store.uri, "entries": entries, "labels": said, "disagreements": otherwise})
        return
    if frame:
        [imported] = bank.imported.named_by("frame", [frame])
        tell(f"{sources[frame]}, {frame}")
        tell(f"as it was imported: {imported.lineage or '(lineage not known)'}, {_cells(imported.count)}")
        print_table([_label_row(one, back) for one in chosen])
    else:
        print_table([{**entry, "at": entry["at"][:19].replace("T", " ")} for entry in entries])
    for one in disagreeing:
        said_by = ", ".join(f"{value} ({by or 'nobody named'})" for by, value in one.said.items())
        say(f"disagreement: {sources.get(one.frame, one.frame)}: {one.what} {said_by}; the last counts")


def _entries(bank: "Bank", back: Mapping[int, int]) -> list[dict[str, Any]]:
    """The log of a bank, an entry a row."""
    from cellnet.bank.parts import entries_of

    numbers = Counter(bank.labels.table.column("entry").to_pylist())
    return [
        {
            "entry": number,
            "at": entry.at.isoformat(),
            "what": "undo" if entry.undoes else entry.what,
            "by": entry.by or None,
            "labels": numbers.get(number),
            "why": entry.why or None,
            "undoes": entry.undoes,
            "taken_back_by": back.get(number),
        }
        for number, entry in entries_of(bank.store)
    ]


def _label_row(label: "Label", back: Mapping[int, int]) -> dict[str, Any]:
    """A label as a line for a person."""
    words = [name if name != "points" else f"{len(value)} points" for name, value in label.says.items()]
    said = [f"{label.says[name]:g} cells" if name == "count" else str(label.says.get(name, name)) for name in words]
    if label.undoes is not None:
        said = [f"takes back {label.undoes}"]
    return {
        "entry": label.entry,
        "at": f"{label.at:%Y-%m-%d %H:%M:%S}",
        "by": label.by or None,
        "says": ", ".join(["right" if label.accepted else "", *said]).strip(", "),
        "seen": str(label.seen) if label.seen else None,
        "why": label.why or None,
        "taken back by": back.get(label.entry),
    }


def _cells(count: float | None) -> str:
    return "count not known" if count is None else f"{count:g} cells"


def _sources(bank: "Bank", frames: Sequence[str]) -> dict[str, str]:
    """The images of frames."""
    held = bank.frames.named_by("frame", set(frames))
    return dict(zip(held.values("frame"), held.values("source"), strict=True))


def export(arguments: argparse.Namespace) -> None:
    from cellnet.bank.exporting import Form, export

    given = {form: out for form in get_args(Form) if (out := getattr(arguments, form)) is not None}
    if not given:
        raise ConfigError("in which form? give --manifest OUT, --coco OUT or --points OUT")
    [(form, folder)] = given.items()
    bank = places_of(arguments).open_bank()
    exported = export(bank, folder, form)
    for why, number in exported.left_out.items():
        say(f"left out {counted(number, 'frame')} {why}")
    again = ["cellnet", "bank", "import", str(exported.source), "NEW_BANK", *exported.options]
    if arguments.json:
        facts = {"bank": bank.store.uri, "entry": bank.entry, "digest": bank.digest, "source": str(exported.source)}
        print_json(facts | {"frames": exported.frames, "left_out": exported.left_out, "options": exported.options})
    else:
        tell(f"{counted(exported.frames, 'frame')} of entry {bank.entry} in {exported.source}")
    say(f"to read them again: {shlex.join(again)}")


def diff(arguments: argparse.Namespace) -> None:
    from cellnet.bank.changes import changes_between

    places = places_of(arguments)
    before = replace(places, as_of=arguments.before).open_bank()
    after = replace(places, as_of=arguments.after).open_bank()
    changes = list(changes_between(before, after))
    if arguments.json:
        sides = {"before": {"entry": before.entry, "digest": before.digest}}
        sides |= {"after": {"entry": after.entry, "digest": after.digest}}
        print_json({"bank": after.store.uri, **sides, "changes": [asdict(change) for change in changes]})
        return
    print_table([{"image": one.source, "what": one.what, "before": one.before, "after": one.after} for one in changes])
    came = sum(one.what == "frame" and one.before is None for one in changes)
    gone = sum(one.what == "frame" and one.after is None for one in changes)
    otherwise = len({one.frame for one in changes if one.what != "frame"})
    tell(
        f"from entry {before.entry} to {after.entry}: {counted(came, 'frame')} came, {gone} went, {otherwise} said "
        "otherwise"
    )
