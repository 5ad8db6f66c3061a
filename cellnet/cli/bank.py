"""`cellnet bank`: images come in, and what a bank holds is shown."""

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cellnet.cli import labels
from cellnet.cli.options import (
    AS_OF,
    BANK,
    CHANNEL,
    ENDPOINT_URL,
    JSON,
    LEFT_OUT,
    PAGE,
    SET,
    STRICT,
    TRAINING,
    bank_command,
    named_place,
    places_of,
    train_config,
)
from cellnet.cli.parsing import POSITIVE, Group, Option, command, noun, number
from cellnet.cli.printing import counted, print_json, print_table, say, tell
from cellnet.config.bank import BankSettings
from cellnet.config.loading import load_config
from cellnet.readers import NO_IMAGE, Options, Unused

if TYPE_CHECKING:
    from cellnet.bank.summary import Summary

SHOWN: Final = 10
"""Near-duplicates that an import names one by one."""
UNUSED_SHOWN: Final = 3
"""Things of a kind that an import had no use for, named one by one."""
BATCHES_SHOWN: Final = 30
LISTED: Final = 1000
"""Images of a kind that are told one by one: what a person may still read, and not a hundred thousand lines."""
HEADINGS: Final = {"no_label": "without a label", "not_an_image": "skipped, not an image"}
"""Over what was not used, by the reason."""


def add_to(commands: Any) -> None:
    verbs = noun(commands, "bank", help="import images and look at what a bank holds")
    command(
        verbs,
        "import",
        import_,
        Option("source", metavar="SOURCE", help="a file or folder, here or as s3://bucket/prefix"),
        BANK,
        PAGE,
        CHANNEL,
        Option(
            "--replace",
            action="store_true",
            help="put images that come out otherwise than an earlier cellnet read them in the place of those",
        ),
        SET.but(help="a setting of a new bank: seed=1, holdout_share=0.2, intensity.rule=range, intensity.high=4095"),
        Group(
            "COCO annotations and instance masks",
            Option("--lineage-pattern", metavar="REGEX", help="finds the lineage in a file name, like '^([^_]+)_'"),
            Option("--group-pattern", metavar="REGEX", help="finds the well in a file name, like '_([A-H][0-9]+)_'"),
        ),
        Option(
            "--population",
            metavar="NAME",
            help="what the cells are: a population of Harmony, a category of COCO, a type of markers in ImageJ; of the "
            "last two also: all",
        ),
        Group(
            "a Harmony export",
            Option("--lineages", metavar="CSV", help="well,lineage for every well, like C03,A549"),
            Option("--layer", metavar="NAME", help="layer of the plate layout that names the lineage"),
            Option("--spread-counts", action="store_true", help="share a well's count out over its fields"),
        ),
        STRICT.but(help=f"exit {LEFT_OUT} where an image was set aside or a file of SOURCE was not used"),
        JSON,
        ENDPOINT_URL,
        help="import a manifest.csv, a folder of LINEAGE/*.png, COCO or Harmony",
        description="SOURCE, and the CSV of --lineages, are paths or s3://bucket/key. "
        "Cells that were marked in ImageJ or Fiji beside an image of a folder or a manifest (a.roi, "
        "a_RoiSet.zip, CellCounter_a.xml, a_Results.csv beside a.tif) give its count and their centres.",
    )
    command(
        verbs,
        "show",
        show,
        BANK,
        Option("--html", type=Path, metavar="FILE", help="also write a page with frames and histograms"),
        AS_OF,
        JSON,
        ENDPOINT_URL,
        help="frames, groups and cells of every lineage and split",
    )
    labels.add_to(verbs)
    command(
        verbs,
        "sample",
        sample,
        Option("folder", type=Path, metavar="FOLDER"),
        Option("--wells", type=POSITIVE, default=8, help="wells of every lineage (%(default)s)"),
        Option("--seed", type=number(int, least=0), default=0),
        help="draw the built-in sample images into a folder, with a manifest",
    )
    command(
        verbs,
        "gc",
        gc,
        BANK,
        Option("--runs", metavar="URI", help="also look at these runs, and remove checkpoints of finished ones"),
        Option("--keep-days", type=number(float), default=30.0, metavar="N", help="unused for so long (%(default)g)"),
        Option("--dry-run", action="store_true", help="only say what there is and what would be done"),
        JSON,
        ENDPOINT_URL,
        help="say what lies in a bank and in runs, and clear away what nobody needs",
        description=(
            "Remove shards that no training used for some days (they are made anew), what images came to when an old "
            "import read them, what bank show counted, and checkpoints of runs that were finished. Frames, labels and "
            "their history stay."
        ),
    )
    command(verbs, "shards", shards, BANK, *TRAINING, ENDPOINT_URL, help="make the training tiles ahead of a training")


def gc(arguments: argparse.Namespace) -> None:
    from cellnet.bank.upkeep import clear
    from cellnet.registry.description import size

    places = places_of(arguments)
    runs = places.open_runs() if places.runs else None
    cleared = clear(places.open_bank(), runs, keep_days=arguments.keep_days, dry_run=arguments.dry_run)
    if arguments.json:
        print_json(asdict(cleared))
        return
    removed = "would be removed" if arguments.dry_run else "removed"
    print_table(
        [
            {"what": kind.what, "files": kind.files, "size": size(kind.bytes)}
            | {removed: kind.unneeded, "of size": size(kind.unneeded_bytes)}
            for kind in cleared.held
        ]
    )
    if cleared.of_no_frame:
        tell(
            f"{counted(cleared.of_no_frame, 'file')} of pixels of no frame, which the import that wrote them would use"
        )
    if cleared.unfinished:
        tell(f"{counted(cleared.unfinished, 'unfinished write')} removed")


def import_(arguments: argparse.Namespace) -> int:
    from cellnet.bank.prepare import OUTSIDE
    from cellnet.bank.summary import Summary, near_ones
    from cellnet.store.paths import path_at
    from pipelines.ingest import ingest

    settings = load_config(BankSettings, file=None, sets=arguments.set) if arguments.set else None
    options = Options(**{field.name: getattr(arguments, field.name) for field in fields(Options)})
    if arguments.lineages is not None:
        options = replace(options, lineages=path_at(named_place(arguments.lineages, arguments)))
    source = named_place(arguments.source, arguments)
    bank, imported = ingest(
        source, places_of(arguments), settings=settings, options=options, replacing=arguments.replace, say=say
    )
    for frame in imported.set_aside:
        say(f"set aside {frame.source}: {frame.set_aside}")
    for line in unused_lines(imported.unused):
        say(line)
    for copy, original in near_ones(bank.frames, imported.near[:SHOWN]):
        say(f"nearly the same: {copy} and {original}")
    if len(imported.near) > SHOWN:
        say(f"and {len(imported.near) - SHOWN} more, which cellnet bank show tells")
    added, known, aside = counted(imported.added, "frame"), imported.known, len(imported.set_aside)
    if arguments.replace and imported.otherwise:
        say(f"{counted(imported.otherwise, 'frame')} put in the place of what an earlier cellnet read")
    if imported.sized:
        say(f"{counted(imported.sized, 'frame')} known already with a pixel size that an earlier cellnet did not see")
    say(f"{added} added, {known} known already, {aside} set aside")
    outside = sum(OUTSIDE in (frame.set_aside or "") for frame in imported.set_aside)
    centres = len(bank.frames.centres[1])
    if outside or centres:
        refused = f"; {counted(outside, 'image')} set aside since centres lie outside" if outside else ", none outside"
        say(f"{centres:,} centres in frames of the bank{refused}")
    unused = {"unused": [asdict(item) for item in imported.unused], "unused_by_reason": by_reason(imported.unused)}
    _print_summary(Summary.of(bank), bank.store.uri, as_json=arguments.json, more=unused)
    if bank.frames and not arguments.json:
        task = "classify" if len(bank.lineages) > 1 else "count"
        page = bank_command(arguments, "bank", "show", arguments.bank, "--html", "bank.html")
        say(f"next: {page}; {bank_command(arguments, 'train', arguments.bank, '--task', task)}")
    read = imported.added + known
    if aside > read:
        say(f"more images were set aside than taken ({aside} and {read}): exit {LEFT_OUT}")
    missed = aside or any(item.reason != "hidden" for item in imported.unused)
    return LEFT_OUT if aside > read or (arguments.strict and missed) else 0


def unused_lines(unused: Sequence[Unused]) -> Iterator[str]:
    """What an import did not use: a line a reason, below it why, where the reason does not say it, and the first."""
    for reason, many in by_reason(unused).items():
        items = [item for item in unused if item.reason == reason]
        yield f"{HEADINGS.get(reason, f'not used ({reason})')}: {many}"
        whys = {item.why for item in items}
        if len(whys) == 1 and whys != {NO_IMAGE}:
            yield f"  {items[0].why}:"
        for item in items[:UNUSED_SHOWN]:
            yield f"  {item.what}" + ("" if len(whys) == 1 or item.why == NO_IMAGE else f": {item.why}")
        if len(items) > UNUSED_SHOWN:
            yield f"  and {len(items) - UNUSED_SHOWN} more, which --json tells"


def by_reason(unused: Sequence[Unused]) -> dict[str, int]:
    """How much was not used for each reason."""
    numbers: Counter[str] = Counter()
    for item in unused:
        numbers[item.reason] += item.number
    return dict(numbers)


def show(arguments: argparse.Namespace) -> None:
    from cellnet.bank.summary import Summary

    places = places_of(arguments)
    summary = Summary.at(places.bank, as_of=places.as_of)
    _print_summary(summary, places.bank.open().uri, as_json=arguments.json)
    if arguments.html:
        from cellnet.reports.gallery import write_gallery

        say(f"page: {write_gallery(arguments.html, places.open_bank(), summary.warnings)}")
    if not arguments.json:
        aside, near, earlier = summary.set_aside, summary.near, summary.earlier
        _list([f"set aside {image['source']}: {image['reason']}" for image in aside[:LISTED]], aside)
        _list([f"nearly the same: {copy} and {original}" for copy, original in near[:LISTED]], near)
        _list([f"read by an earlier cellnet: {source}" for source in earlier[:LISTED]], earlier)


def _list(lines: Sequence[str], of: Sized) -> None:
    """The first images of a kind, a line each, and how many more there are."""
    for line in lines:
        tell(line)
    if len(of) > len(lines):
        tell(f"and {len(of) - len(lines)} more, which --json tells")


def sample(arguments: argparse.Namespace) -> None:
    from cellnet.sample import write_sample

    manifest = write_sample(arguments.folder, wells_per_lineage=arguments.wells, seed=arguments.seed)
    say("drawn, not recorded: scores on these images are not scores on cells")
    tell(str(manifest))


def shards(arguments: argparse.Namespace) -> None:
    from cellnet.training.plan import make_plan
    from pipelines import cluster
    from pipelines.shards import make_shards

    config = train_config(arguments)
    places = places_of(arguments)
    bank = places.open_bank()
    plan = make_plan(bank, config)
    cluster.connect(*places.named)
    tell(make_shards(bank, plan).describe(plan))


def _print_summary(summary: "Summary", uri: str, *, as_json: bool, more: Mapping[str, Any] | None = None) -> None:
    """A bank's tables and warnings; as JSON with `more` of an import."""
    if as_json:
        print_json({"bank": uri, **summary.model_dump(), **(more or {})})
        return
    print_table(summary.rows)
    if batches := summary.batches:
        print()
        print_table([_batch_row(batch) for batch in batches[:BATCHES_SHOWN]])
        if len(batches) > BATCHES_SHOWN:
            tell(f"and {len(batches) - BATCHES_SHOWN} batches more, which --json tells")
        print()
    frames = counted(summary.frames, "frame")
    tell(f"{frames}, {len(summary.set_aside)} set aside, digest {summary.digest[:12]}, in {uri}")
    if (said := summary.labels)["labels"]:
        disagree = f", people disagree on {counted(said['disagreements'], 'frame')}" if said["disagreements"] else ""
        tell(f"{counted(said['labels'], 'label')} of {counted(said['frames'], 'frame')} since they came{disagree}")
    if said["unusable"]:
        why = ", ".join(f"{number} {why}" for why, number in said["unusable"].items())
        tell(f"{counted(sum(said['unusable'].values()), 'frame')} unusable ({why}), left out of training and of scores")
    for note in summary.notes:
        names = [Path(source).name for source in note["sources"]]
        others = f" and {len(names) - UNUSED_SHOWN} more" if len(names) > UNUSED_SHOWN else ""
        say(f"of {counted(len(names), 'mask')} {note['note']}: {', '.join(names[:UNUSED_SHOWN])}{others}")
    if not_measured := summary.quality["not_measured"]:
        say(
            f"note: {counted(not_measured, 'frame')} of an earlier import, of which focus and saturation were not "
            "measured; import them again, and they are"
        )
    if summary.outlook:
        say(f"note: {summary.outlook}")
    for warning in summary.warnings:
        say(f"warning: {warning}")


def _batch_row(batch: dict[str, Any]) -> dict[str, Any]:
    """The same as a line for a person."""
    from cellnet.bank.columns import NOT_KNOWN
    from cellnet.bank.summary import span

    numbers = {name: batch[name] for name in ("frames", "groups", "cells")}
    hours, lineages = span(batch["time_h"]), ", ".join(batch["lineages"]) or None
    return {"batch": batch["batch"] or NOT_KNOWN, **numbers, "hours": hours, "lineages": lineages}
