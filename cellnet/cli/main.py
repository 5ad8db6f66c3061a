"""The front door: `cellnet NOUN VERB`. Data on stdout, narration on stderr; errors in one line, exit 2.

The one module that calls into pipelines and serve, and only when a command needs them.
"""

import argparse
import contextlib
import io
import json
import logging
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellnet.cli.progress import Meter
from cellnet.config.bank import BankSettings
from cellnet.config.loading import load_checked, load_config
from cellnet.config.train import TrainConfig
from cellnet.config.tune import TuneConfig
from cellnet.errors import CellnetError, ConfigError, IntegrityError, plain
from cellnet.prediction.answers import Prediction
from cellnet.prediction.tables import COLUMNS, csv_line, row_of
from cellnet.readers import Options
from cellnet.tasks import TASKS

if TYPE_CHECKING:
    from cellnet.bank.bank import Bank
    from cellnet.bank.frames import Frame
    from cellnet.places import Places
    from cellnet.registry.registry import Listed
    from cellnet.store.place import Place
    from pipelines.predict import Job
    from pipelines.winner import Search

SHOWN = 10
"""Near-duplicates that an import names one by one."""
PAGE_HELP = "of files of several pages: middle, all, or a number from 1"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status: 0, 2 for what the user can put right, 130 for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no × shows a ?
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        arguments.run(arguments)
    except CellnetError as error:
        print(plain(f"cellnet: {' '.join(str(error).split())}"), file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader, `head` say, has had enough
        return 0
    except KeyboardInterrupt:
        print("cellnet: stopped", file=sys.stderr)
        # Ray was interrupted wherever it was; what its locks and threads make of that as the process ends is no news.
        sys.unraisablehook = lambda _: None
        threading.excepthook = lambda _: None
        return 130
    return 0


def say(line: str) -> None:
    """A line of narration."""
    print(line, file=sys.stderr, flush=True)


def _places(arguments: argparse.Namespace) -> "Places":
    """The places that the command line names, made absolute."""
    from cellnet.places import Places, absolute
    from cellnet.store.place import NOWHERE

    def place(key: str) -> "Place":
        uri = getattr(arguments, key, None)
        return _place(uri, arguments) if uri else NOWHERE

    def file(key: str) -> str | None:
        path = getattr(arguments, key, None)
        return absolute(path) if path else None

    return Places(
        bank=place("bank"),
        registry=place("registry"),
        runs=place("runs"),
        trusted_keys=file("trusted_keys"),
        signing_key=file("signing_key"),
    )


def _place(uri: str, arguments: argparse.Namespace) -> "Place":
    """A place that the command line names, made absolute, on the server that it names."""
    from cellnet.places import absolute
    from cellnet.store.place import Place

    return Place(absolute(uri), arguments.endpoint_url)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cellnet",
        description="Name the lineage of cells and count them in phase-contrast and brightfield frames.",
        epilog="BANK and the registry are a folder or s3://bucket/prefix. A REF is name@7 or name:alias.",
    )
    verbs = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_bank(verbs.add_parser("bank", help="import images and look at what a bank holds"))
    _add_train(verbs.add_parser("train", help="train a classifier or a counter and publish it"))
    _add_tune(verbs.add_parser("tune", help="search activation × kernel, publish and promote the winner"))
    _add_calibrate(verbs.add_parser("calibrate", help="fit probabilities, intervals and the flag of a model anew"))
    _add_evaluate(verbs.add_parser("evaluate", help="score a model on a split of a bank"))
    _add_registry(verbs.add_parser("registry", help="list, show, promote, verify, export and import models"))
    _add_predict(verbs.add_parser("predict", help="name and count what images show"))
    _add_serve(verbs.add_parser("serve", help="answer over HTTP with the champions of a registry"))
    return parser


def _add_places(parser: argparse.ArgumentParser, *, registry: bool, publishes: bool = False) -> None:
    if registry:
        parser.add_argument(
            "--registry",
            metavar="URI",
            default=os.environ.get("CELLNET_REGISTRY", "registry"),
            help="folder or s3://bucket/prefix of the models (CELLNET_REGISTRY, else ./registry)",
        )
        parser.add_argument(
            "--trusted-keys",
            metavar="FILE",
            default=os.environ.get("CELLNET_TRUSTED_KEYS"),
            help="public keys; refuse models that none of them signed (CELLNET_TRUSTED_KEYS)",
        )
    if publishes:
        parser.add_argument(
            "--signing-key",
            metavar="FILE",
            default=os.environ.get("CELLNET_SIGNING_KEY"),
            help="private key that signs what is published (CELLNET_SIGNING_KEY); see cellnet registry keygen",
        )
    parser.add_argument("--endpoint-url", metavar="URL", help="another S3 server (or AWS_ENDPOINT_URL_S3)")


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", choices=["classify", "count"], required=True)
    parser.add_argument("--lineage", metavar="NAME", help="of a counter: train it on this lineage alone")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML or JSON file of settings")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one setting, over the file's; see cellnet/config/choices.py for all, with their defaults",
    )
    parser.add_argument("--name", help="model name in the registry (classifier, regressor or regressor-LINEAGE)")
    parser.add_argument("--runs", metavar="URI", help="where runs keep checkpoints (runs, beside the registry)")


def _add_bank(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    importer = verbs.add_parser("import", help="import a manifest.csv, a folder of LINEAGE/*.png, COCO or Harmony")
    importer.add_argument("source", type=Path, metavar="SOURCE")
    importer.add_argument("bank", metavar="BANK")
    importer.add_argument("--page", type=_page, metavar="PAGE", help=PAGE_HELP)
    importer.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of a new bank: seed=1, holdout_share=0.2, intensity.rule=range, intensity.high=4095",
    )
    coco = importer.add_argument_group("COCO annotations and instance masks")
    coco.add_argument("--lineage-pattern", metavar="REGEX", help="finds the lineage in a file name, like '^([^_]+)_'")
    coco.add_argument("--group-pattern", metavar="REGEX", help="finds the well in a file name, like '_([A-H][0-9]+)_'")
    harmony = importer.add_argument_group("a Harmony export")
    harmony.add_argument("--channel", metavar="NAME", help="channel to take (the only one of transmitted light)")
    harmony.add_argument("--lineages", type=Path, metavar="CSV", help="well,lineage for every well, like C03,A549")
    harmony.add_argument("--layer", metavar="NAME", help="layer of the plate layout that names the lineage")
    harmony.add_argument("--population", metavar="NAME", help="population of objects that are the cells")
    harmony.add_argument("--spread-counts", action="store_true", help="share a well's count out over its fields")
    importer.add_argument("--json", action="store_true")
    _add_places(importer, registry=False)
    importer.set_defaults(run=_bank_import)
    show = verbs.add_parser("show", help="frames, groups and cells of every lineage and split")
    show.add_argument("bank", metavar="BANK")
    show.add_argument("--html", type=Path, metavar="FILE", help="also write a page with frames and histograms")
    show.add_argument("--json", action="store_true")
    _add_places(show, registry=False)
    show.set_defaults(run=_bank_show)
    sample = verbs.add_parser("sample", help="draw the built-in sample images into a folder, with a manifest")
    sample.add_argument("folder", type=Path, metavar="FOLDER")
    sample.add_argument("--wells", type=int, default=8, help="wells of every lineage (%(default)s)")
    sample.add_argument("--seed", type=int, default=0)
    sample.set_defaults(run=_bank_sample)
    shards = verbs.add_parser("shards", help="make the training tiles ahead of a training")
    shards.add_argument("bank", metavar="BANK")
    _add_config(shards)
    _add_places(shards, registry=False)
    shards.set_defaults(run=_bank_shards)


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bank", metavar="BANK")
    _add_config(parser)
    parser.add_argument(
        "--workers",
        default="1",
        metavar="N|MIN:MAX",
        help="Ray Train workers, who share the tiles of a step (%(default)s); 1:4 takes as many as there is room for",
    )
    parser.add_argument(
        "--gpu", action="store_true", help="insist on a GPU a worker (GPUs are used where there are enough)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the newest unfinished run of the same bank and settings"
    )
    parser.add_argument("--summary", action="store_true", help="print the network's layers and sizes; train nothing")
    parser.add_argument("--json", action="store_true")
    _add_places(parser, registry=True, publishes=True)
    parser.set_defaults(run=_train)


def _add_tune(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Search settings of a training (space; else activation × kernel), steered by the test split. The winner is "
        "published, and promoted if it is better than what the alias points at."
    )
    parser.add_argument("bank", metavar="BANK")
    _add_config(parser)
    parser.add_argument("--trials", type=_positive, metavar="N", help="how many to try (every combination)")
    parser.add_argument("--workers", type=_positive, default=1, metavar="N", help="of each trial (%(default)s)")
    parser.add_argument("--alias", default="champion", help="alias that the winner gets if it is better (%(default)s)")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the newest unfinished search of the same bank and settings"
    )
    parser.add_argument("--json", action="store_true")
    _add_places(parser, registry=True, publishes=True)
    parser.set_defaults(run=_tune)


def _add_calibrate(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Publish the next version of a model: the same weights, with temperature, count intervals and the flag for "
        "unfamiliar images fitted on the bank's test split. Training does this by itself."
    )
    parser.add_argument("ref", metavar="REF")
    parser.add_argument("bank", metavar="BANK")
    parser.add_argument("--json", action="store_true")
    _add_places(parser, registry=True, publishes=True)
    parser.set_defaults(run=_calibrate)


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ref", metavar="REF")
    parser.add_argument("bank", metavar="BANK")
    parser.add_argument("--split", choices=["train", "test", "holdout", "all"], default="holdout")
    parser.add_argument("--json", action="store_true", help="the scores as one JSON object")
    parser.add_argument("--report", type=Path, metavar="DIR", help="also write DIR/report.html and DIR/scores.json")
    _add_places(parser, registry=True)
    parser.set_defaults(run=_evaluate)


def _add_registry(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="versions with their aliases and scores, the newest first")
    listing.add_argument("name", metavar="NAME", nargs="?", help="of one model (all)")
    listing.add_argument("--newest", type=_positive, default=20, metavar="N", help="of each model (%(default)s)")
    listing.add_argument("--all", action="store_true", help="all versions")
    listing.add_argument("--json", action="store_true")
    listing.set_defaults(run=_registry_list)
    show = verbs.add_parser("show", help="a version as a model card")
    show.add_argument("ref", metavar="REF")
    show.add_argument("--json", action="store_true", help="its whole record")
    show.set_defaults(run=_registry_show)
    resolve = verbs.add_parser("resolve", help="the version, NAME@NUMBER, that a reference means now")
    resolve.add_argument("ref", metavar="REF")
    resolve.set_defaults(run=_registry_resolve)
    tag = verbs.add_parser("tag", help="give a version a name that stays with it, like an alias that never moves")
    tag.add_argument("ref", metavar="REF")
    tag.add_argument("tag", metavar="TAG")
    tag.add_argument("--reason", default="", metavar="TEXT", help="kept with the tag")
    tag.set_defaults(run=_registry_tag)
    promote = verbs.add_parser("promote", help="point an alias at a version that is better than the one it points at")
    promote.description = (
        "Point an alias at a version. Where it points at another one already, both are scored on the holdout of one "
        "bank, and the alias moves if the new one is better by a paired bootstrap over groups; else exit 2. The first "
        "counter of one lineage must be better at it than the regressor of the same alias."
    )
    promote.add_argument("ref", metavar="REF", nargs="?")
    promote.add_argument("alias", metavar="ALIAS")
    promote.add_argument("--from-sweep", metavar="RUN", help="publish the best of a search that was stopped, as REF")
    promote.add_argument("--bank", metavar="BANK", help="to compare on (the one that REF was trained on)")
    promote.add_argument("--force", action="store_true", help="move it without a comparison; needs --reason")
    promote.add_argument("--reason", default="", metavar="TEXT", help="kept in the alias's history")
    promote.add_argument("--json", action="store_true")
    promote.set_defaults(run=_registry_promote)
    history = verbs.add_parser("history", help="every move of an alias, with what decided it")
    history.add_argument("name", metavar="NAME")
    history.add_argument("alias", metavar="ALIAS")
    history.add_argument("--json", action="store_true")
    history.set_defaults(run=_registry_history)
    rollback = verbs.add_parser("rollback", help="point an alias back at what it pointed at before")
    rollback.add_argument("name", metavar="NAME")
    rollback.add_argument("alias", metavar="ALIAS")
    rollback.add_argument("--reason", default="", metavar="TEXT", help="kept in the alias's history")
    rollback.set_defaults(run=_registry_rollback)
    verify = verbs.add_parser("verify", help="check all records, logs and bytes (and, with --trusted-keys, signatures)")
    verify.add_argument("name", metavar="NAME", nargs="?", help="of one model (all)")
    verify.add_argument("--json", action="store_true")
    verify.set_defaults(run=_registry_verify)
    gc = verbs.add_parser("gc", help="clear away what no version needs")
    gc.description = (
        "Put files that no version names into the registry's trash, and remove for good what has been there for some "
        "days. Safe beside people who publish."
    )
    gc.add_argument("--keep-days", type=float, default=7.0, metavar="N", help="days in the trash (%(default)g)")
    gc.add_argument("--dry-run", action="store_true", help="only say what would be done")
    gc.add_argument("--json", action="store_true")
    gc.set_defaults(run=_registry_gc)
    _add_registry_copies(verbs)
    for verb in (listing, show, resolve, tag, history, rollback, verify, gc):
        _add_places(verb, registry=True)
    _add_places(promote, registry=True, publishes=True)  # --from-sweep publishes


def _add_registry_copies(verbs: Any) -> None:
    """The verbs that bring versions out and in, and make keys."""
    export = verbs.add_parser("export", help="write a version's files, or a BioImage Model Zoo package")
    export.add_argument("ref", metavar="REF")
    export.add_argument("destination", type=Path, metavar="DEST", help="new folder; with --bioimageio a new .zip")
    export.add_argument("--bioimageio", action="store_true", help="a package for the BioImage Model Zoo")
    export.add_argument("--author", action="append", default=[], metavar="NAME", help="of the package; may be repeated")
    export.add_argument("--license", default="MIT", metavar="SPDX", help="of the package, like CC-BY-4.0 (%(default)s)")
    export.set_defaults(run=_registry_export)
    importer = verbs.add_parser("import", help="copy a version of another registry into this one, as its next version")
    importer.add_argument("ref", metavar="REF", help="there")
    importer.add_argument("--from", dest="source", required=True, metavar="URI", help="the other registry")
    importer.add_argument("--from-endpoint-url", metavar="URL", help="its S3 server (--endpoint-url)")
    importer.add_argument("--name", metavar="NAME", help="of the model here (the same)")
    importer.add_argument(
        "--accept-unsigned", action="store_true", help="do not ask for a signature there; it is signed here"
    )
    importer.set_defaults(run=_registry_import)
    publish = verbs.add_parser("publish", help="what export wrote, as the next version (cellnet train publishes too)")
    publish.add_argument("folder", type=Path, metavar="FOLDER")
    publish.add_argument("--name", metavar="NAME", help="of the model here (the same)")
    publish.set_defaults(run=_registry_publish)
    keygen = verbs.add_parser("keygen", help="make a private key to sign with, and FILE.pub for those who verify")
    keygen.add_argument("file", type=Path, metavar="FILE")
    keygen.set_defaults(run=_registry_keygen)
    _add_places(export, registry=True)
    for verb in (importer, publish):
        _add_places(verb, registry=True, publishes=True)


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Name and count what images show. IMAGES are image files, folders of them, Harmony exports, a manifest.csv "
        "(image,pixel_um) or s3://bucket/prefix. Results come on stdout, and with --out are kept in a folder too."
    )
    parser.add_argument("images", nargs="+", metavar="IMAGES")
    parser.add_argument("--classifier", metavar="REF", help="(classifier:champion)")
    parser.add_argument("--regressor", metavar="REF", help="(regressor:champion)")
    parser.add_argument("--pixel-um", type=float, metavar="UM", help="micrometres a pixel of these images")
    parser.add_argument("--page", type=_page, metavar="PAGE", help=PAGE_HELP)
    parser.add_argument("--channel", metavar="NAME", help="of a Harmony export (the only one of transmitted light)")
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="also keep results there as they come, so that the same command goes on after an interruption; at the "
        "end predictions.csv, predictions.parquet and, where file names tell wells, plate.png",
    )
    parser.add_argument("--overwrite", action="store_true", help="forget the results that --out holds")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="CSV on stdout")
    form.add_argument("--json", action="store_true", help="a JSON object a line on stdout")
    _add_places(parser, registry=True)
    parser.set_defaults(run=_predict)


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Answer over HTTP with the champions of a registry, until Ctrl-C: a page at /, its interface at /docs. When an "
        "alias moves, the version that it points at takes over within seconds."
    )
    parser.add_argument("--host", default="127.0.0.1", help="(%(default)s); 0.0.0.0 lets others in")
    parser.add_argument("--port", type=int, default=8000, help="(%(default)s)")
    parser.add_argument("--classifier", metavar="REF", help="(classifier:champion)")
    parser.add_argument("--regressor", metavar="REF", help="(regressor:champion, and regressor-LINEAGE:champion)")
    parser.add_argument(
        "--challenger",
        metavar="SHARE|shadow",
        help="share of requests that the alias challenger answers, like 0.1; shadow: it only looks, for the figures",
    )
    machine = parser.add_argument_group("how much of the machine it takes")
    machine.add_argument(
        "--replicas",
        type=_range,
        metavar="N|MIN:MAX",
        help="processes (one a CPU, at most 4); 1:4 are as many as requests want",
    )
    machine.add_argument("--threads", type=_positive, metavar="N", help="of each process (the CPUs shared among them)")
    machine.add_argument(
        "--engine", choices=["auto", "onnxruntime", "openvino", "torch"], help="what runs the models (the fastest)"
    )
    machine.add_argument("--no-overlays", action="store_true", help="no process that draws pictures, to save memory")
    bounds = parser.add_argument_group("bounds")
    bounds.add_argument("--max-request-mb", type=float, metavar="MB", help="of a request (64)")
    bounds.add_argument("--max-images", type=_positive, metavar="N", help="in a request, each page being one (64)")
    bounds.add_argument("--max-megapixels", type=float, metavar="MP", help="of an image (100)")
    bounds.add_argument("--max-queue", type=_positive, metavar="N", help="requests in a process at a time (128)")
    bounds.add_argument("--max-seconds", type=float, metavar="S", help="from a request to its answer (60)")
    guard = parser.add_argument_group("who may ask, and what is noted")
    guard.add_argument(
        "--api-keys", metavar="FILE", help="keys, one a line, of which requests must hold one (CELLNET_API_KEYS: keys)"
    )
    guard.add_argument(
        "--cors", action="append", metavar="ORIGIN", help="another web page that may call it, like https://lab.example"
    )
    guard.add_argument(
        "--allow-host",
        dest="hosts",
        action="append",
        metavar="NAME",
        help="another name that it is asked by, like lab.example of a proxy on this machine",
    )
    guard.add_argument("--log-requests", action="store_true", help="a line of JSON a request")
    _add_places(parser, registry=True)
    parser.set_defaults(run=_serve)


def _bank_import(arguments: argparse.Namespace) -> None:
    from cellnet.places import absolute
    from pipelines.ingest import ingest

    settings = load_config(BankSettings, file=None, sets=arguments.set) if arguments.set else None
    options = Options(**{field.name: getattr(arguments, field.name) for field in fields(Options)})
    source = Path(absolute(str(arguments.source)))
    bank, imported = ingest(source, _places(arguments), settings=settings, options=options, say=say)
    for frame in imported.set_aside:
        say(f"set aside {frame.source}: {frame.set_aside}")
    for one, other in _near(bank, imported.near[:SHOWN]):
        say(f"nearly the same: {one} and {other}")
    if len(imported.near) > SHOWN:
        say(f"and {len(imported.near) - SHOWN} more, which cellnet bank show tells")
    said = (counted(imported.added, "frame"), imported.known, len(imported.set_aside))
    say("{} added, {} known already, {} set aside".format(*said))
    _print_bank(bank, as_json=arguments.json)


def _near(bank: "Bank", frames: "Sequence[Frame]") -> list[tuple[str, str]]:
    """The sources of near-duplicates, each with that of what it copies."""
    sources = {frame.frame: frame.source for frame in bank.frames}
    return [(frame.source, sources[frame.twin]) for frame in frames if frame.twin in sources]


def _bank_show(arguments: argparse.Namespace) -> None:
    bank = _places(arguments).open_bank()
    _print_bank(bank, as_json=arguments.json)
    if arguments.html:
        from cellnet.reports.gallery import write_gallery

        say(f"page: {write_gallery(arguments.html, bank)}")
    if not arguments.json:
        for frame in bank.set_aside:
            print(f"set aside {frame.source}: {frame.set_aside}")
        for one, other in _near(bank, bank.frames):
            print(f"nearly the same: {one} and {other}")


def _bank_sample(arguments: argparse.Namespace) -> None:
    from cellnet.sample import write_sample

    manifest = write_sample(arguments.folder, wells_per_lineage=arguments.wells, seed=arguments.seed)
    say("drawn, not recorded: scores on these images are not scores on cells")
    print(manifest)


def _bank_shards(arguments: argparse.Namespace) -> None:
    from cellnet.training.plan import make_plan
    from pipelines import cluster
    from pipelines.shards import make_shards

    config = _train_config(arguments)
    bank = _places(arguments).open_bank()
    plan = make_plan(bank, config)
    cluster.connect()
    print(make_shards(bank, plan).describe(plan))


def _print_bank(bank: "Bank", *, as_json: bool) -> None:
    from cellnet.bank.warnings import warnings_of

    parts: dict[tuple[str, str], list[Frame]] = {}
    for frame in bank.frames:
        parts.setdefault((frame.lineage or "(not known)", str(frame.split)), []).append(frame)
    rows = [{"lineage": lineage, "split": split, **_facts(parts[lineage, split])} for lineage, split in sorted(parts)]
    warnings = warnings_of(bank.frames)
    if as_json:
        facts = {"bank": bank.store.uri, "digest": bank.digest, "rows": rows, "warnings": warnings}
        set_aside = [{"source": frame.source, "reason": frame.set_aside} for frame in bank.set_aside]
        print(json.dumps(facts | {"set_aside": set_aside, "near": _near(bank, bank.frames)}))
        return
    _print_table(rows)
    held = counted(len(bank.frames), "frame")
    print(f"{held}, {len(bank.set_aside)} set aside, digest {bank.digest[:12]}, in {bank.store.uri}")
    for warning in warnings:
        say(f"warning: {warning}")


def _facts(frames: "list[Frame]") -> dict[str, Any]:
    """A line on some frames: how many, of how many groups, with how many cells, how large and how bright."""
    counts = [frame.count for frame in frames if frame.count is not None]
    sizes = Counter((frame.width, frame.height) for frame in frames)
    width, height = sizes.most_common(1)[0][0]
    return {
        "frames": len(frames),
        "groups": len({frame.group for frame in frames}),
        "cells": round(sum(counts)) if counts else None,
        "size": f"{width}×{height}" + (f" and {len(sizes) - 1} more" if len(sizes) > 1 else ""),
        "bits": "/".join(str(bits) for bits in sorted({frame.bits for frame in frames})),
        "grey": f"{min(frame.darkest for frame in frames)}-{max(frame.brightest for frame in frames)}",
    }


def _train_config(arguments: argparse.Namespace) -> TrainConfig:
    return load_config(TrainConfig, file=arguments.config, sets=arguments.set, **_fixed(arguments))


def _fixed(arguments: argparse.Namespace) -> dict[str, str]:
    """The settings of a training that have options of their own."""
    return {"task": arguments.task} | ({} if arguments.lineage is None else {"lineage": arguments.lineage})


def _train(arguments: argparse.Namespace) -> None:
    config = _train_config(arguments)
    if arguments.summary:
        print(_summary(_places(arguments).open_bank(), config))
        return
    from pipelines.train import train

    version = train(
        _places(arguments),
        config,
        name=arguments.name,
        workers=_workers(arguments.workers),
        gpu=arguments.gpu,
        resume=arguments.resume,
        say=say,
    )
    scores = version.card.scores["test"]
    if arguments.json:
        print(json.dumps({"model": version.ref, "test": scores}))
        return
    say("test: " + (_scores_line(scores) or "no test split"))
    if config.protocol == "paper":
        say(
            "note: under protocol=paper variants of one frame are on all sides, so these scores leak; "
            f"cellnet evaluate {version.ref} {arguments.bank} takes the holdout's frames, which it has not seen"
        )
    print(version.ref)
    say(f"next: cellnet evaluate {version.ref} {arguments.bank}; cellnet registry promote {version.ref} champion")


def _summary(bank: "Bank", config: TrainConfig) -> str:
    """The network that the bank would train, layer by layer."""
    from cellnet.networks.summary import summary
    from cellnet.networks.weights import fresh_network
    from cellnet.training.plan import make_plan

    plan = make_plan(bank, config)
    return summary(fresh_network(plan.config, len(plan.classes)))


def _tune(arguments: argparse.Namespace) -> None:
    from pipelines.tune import tune

    sets = [
        item if item.split(".")[0].split("=")[0] in TuneConfig.model_fields else f"train.{item}"
        for item in arguments.set
    ]
    fixed = {f"train.{key}": value for key, value in _fixed(arguments).items()}
    trials = {"trials": arguments.trials} if arguments.trials else {}
    config = load_config(TuneConfig, file=arguments.config, sets=sets, **fixed, **trials)
    search = tune(
        _places(arguments),
        config,
        alias=arguments.alias,
        name=arguments.name,
        workers=arguments.workers,
        resume=arguments.resume,
        say=say,
    )
    _print_search(search, arguments)


def _print_search(search: "Search", arguments: argparse.Namespace) -> None:

    winner, scores = search.winner, search.holdout.scores
    if arguments.json:
        moved = search.move.model_dump(mode="json") if search.move else None
        print(json.dumps({"model": winner.ref, "alias": moved, "trials": search.trials, "holdout": scores}))
        return
    _print_table(search.trials)
    main = TASKS[winner.card.task].main
    low, high = scores["tile"][f"{main}_interval"]
    say(f"{winner.ref} on the holdout: {main} per tile {scores['tile'][main]:.3f} ({low:.3f} to {high:.3f})")
    say(f"{winner.name}:{arguments.alias} {'is now' if search.move else 'stays, and is not'} {winner.ref}")
    print(winner.ref)


def _calibrate(arguments: argparse.Namespace) -> None:
    from pipelines.calibrate import recalibrate

    version = recalibrate(arguments.ref, _places(arguments), say=say)
    calibration = version.card.calibration
    assert calibration is not None
    if arguments.json:
        print(json.dumps({"model": version.ref, "calibration": calibration.model_dump()}))
        return
    for line in calibration.lines(version.card.task):
        say(line)
    print(version.ref)


def _evaluate(arguments: argparse.Namespace) -> None:
    from pipelines.evaluate import evaluate

    evaluation = evaluate(
        arguments.ref, _places(arguments), split=arguments.split, pictures=arguments.report is not None
    )
    scores = evaluation.scores
    for line in scores["left_out"]:
        say(f"left out {line}")
    if arguments.report:
        from cellnet.reports.evaluation_report import write_report

        say(f"report: {write_report(arguments.report, evaluation)}")
    if not scores["same_bank"]:
        say(f"note: {scores['model']} was trained on another state of the bank; its splits may differ")
    if arguments.split in ("train", "all") or (arguments.split == "test" and scores["protocol"] == "paper"):
        say("note: these frames include those that the model was trained on; the scores flatter it")
    if arguments.json:
        print(json.dumps(scores))
        return
    print_scores(scores)


def print_scores(scores: dict[str, Any]) -> None:
    """The object of `evaluate --json` as a table for a person."""
    from cellnet.evaluation.evaluations import title
    from cellnet.evaluation.metrics import shown, units

    print(plain(title(scores)))
    names = TASKS[scores["task"]].figures
    _print_table([{"per": unit, **{name: scores[unit][name] for name in names}} for unit in ("tile", "frame")])
    main = TASKS[scores["task"]].main
    print("\n95 % intervals, over groups:")
    figures = [(main, main), ("coverage", "in the 90 % interval"), ("unfamiliar", "called unfamiliar")]
    _print_table(
        [
            {"per": unit, "figure": words, "value": scores[unit][name], "from": low, "to": high}
            for unit in ("tile", "frame")
            for name, words in figures
            if name in scores[unit]
            for low, high in [scores[unit][f"{name}_interval"]]
        ]
    )
    for unit in units(scores):
        if scores[unit].get("per_lineage"):
            print(f"\nper {unit}, by lineage:")
            per_lineage = scores[unit]["per_lineage"].items()
            _print_table([{"lineage": name} | shown(scores["task"], values) for name, values in per_lineage])
    if scores["tile"].get("by_density"):
        print("\nper tile, by density:")
        _print_table(
            [
                {"true count": f"{bin['from']:g}-{bin['to']:g}"} | shown("count", bin)
                for bin in scores["tile"]["by_density"]
            ]
        )


def _registry_list(arguments: argparse.Namespace) -> None:
    registry = _places(arguments).open_registry()
    if arguments.name:
        registry.check_there(arguments.name)
    found = list(registry.versions(arguments.name, newest=None if arguments.all else arguments.newest))
    rows = [_listed(one) for one in found]
    if arguments.json:
        print(json.dumps(rows))
    elif rows:
        _print_table(rows)
        older = {one.ref.rpartition("@")[0] for one in found if one.ref.endswith("@1")}
        if older != {one.ref.rpartition("@")[0] for one in found}:
            say("older versions are not shown; --all, or --newest N, shows them")
    else:
        say(f"{registry.store.uri} holds no models; publish one with cellnet train")


def _listed(one: "Listed") -> dict[str, Any]:
    """A row of the list; of a version that cannot be used, why."""
    version = one.version
    if version is None:
        return {"model": one.ref, "aliases": ",".join(one.aliases), "task": None, "test": f"NOT USABLE: {one.problem}"}
    card = version.card
    scores = _scores_line(card.scores.get("test", {})) or "-"
    return {
        "model": one.ref,
        "aliases": ",".join(one.aliases),
        "task": card.task,
        "network": card.config.model.architecture,
        "activation": card.config.model.activation,
        "kernel": card.preprocess.kernel,
        "created": card.created,
        "test": scores + (" (leaks)" if card.config.protocol == "paper" else ""),
    }


def _registry_show(arguments: argparse.Namespace) -> None:
    registry = _places(arguments).open_registry()
    version = registry.resolve(arguments.ref)
    if arguments.json:
        print(version.model_dump_json(indent=2))
        return
    from cellnet.registry.description import model_card

    print(model_card(version, aliases=registry.aliases_of(version), signature=registry.signature(version)))


def _registry_resolve(arguments: argparse.Namespace) -> None:
    print(_places(arguments).open_registry().resolve(arguments.ref).ref)


def _registry_tag(arguments: argparse.Namespace) -> None:
    move = _places(arguments).open_registry().tag(arguments.ref, arguments.tag, reason=arguments.reason)
    print(f"{move.name}:{move.alias} is {move.name}@{move.number}")


def _registry_promote(arguments: argparse.Namespace) -> None:
    if (arguments.ref is None) == (arguments.from_sweep is None):
        raise ConfigError("promote takes a REF and an ALIAS, or --from-sweep RUN and an ALIAS")
    if arguments.from_sweep:
        from pipelines.winner import publish_sweep

        run = _place(arguments.from_sweep, arguments)
        _print_search(publish_sweep(run, _places(arguments), alias=arguments.alias, say=say), arguments)
        return
    from pipelines.promote import promote

    decision = {"force": arguments.force, "reason": arguments.reason, "say": say}
    move = promote(arguments.ref, arguments.alias, _places(arguments), **decision)
    if arguments.json:
        print(move.model_dump_json())
    else:
        _print_move(move)


def _registry_history(arguments: argparse.Namespace) -> None:
    registry = _places(arguments).open_registry()
    moves = registry.history(arguments.name, arguments.alias)
    if not moves:
        registry.resolve(f"{arguments.name}:{arguments.alias}")  # says what there is
    if arguments.json:
        print(json.dumps([move.model_dump(mode="json") for move in moves]))
        return
    for move in moves:
        before = f" (before: {move.name}@{move.previous})" if move.previous else ""
        because = "; ".join(str(why) for why in (move.evidence, move.reason) if why) or "no reason given"
        print(plain(f"{move.entry:>3}  {move.moved}  {move.name}@{move.number}{before}: {because}"))


def _registry_rollback(arguments: argparse.Namespace) -> None:
    registry = _places(arguments).open_registry()
    _print_move(registry.rollback(arguments.name, arguments.alias, reason=arguments.reason))


def _print_move(move: Any) -> None:
    before = f"{move.name}@{move.previous}" if move.previous else "nothing"
    print(f"{move.name}:{move.alias} is {move.name}@{move.number} (before: {before})")


def _registry_verify(arguments: argparse.Namespace) -> None:
    from cellnet.registry.upkeep import verify

    found = []
    for finding in verify(_places(arguments).open_registry(), arguments.name):
        found.append(finding)
        if not arguments.json:
            print(plain(f"{finding.what}: {finding.problem or 'ok'}"), flush=True)
    if arguments.json:
        print(json.dumps([finding._asdict() for finding in found]))
    wrong = sum(finding.problem is not None for finding in found)
    if wrong:
        raise IntegrityError(f"{wrong} of {len(found)} are not whole; publish them again, or restore them from a copy")


def _registry_gc(arguments: argparse.Namespace) -> None:
    from cellnet.registry.description import size
    from cellnet.registry.upkeep import gc

    registry = _places(arguments).open_registry()
    cleared = gc(registry, keep_days=arguments.keep_days, dry_run=arguments.dry_run, say=say)
    if arguments.json:
        print(json.dumps(asdict(cleared)))
        return
    would = "would be " if arguments.dry_run else ""
    print(f"{counted(cleared.trashed, 'file')} {would}put into the trash, {cleared.restored} taken out of it")
    print(f"{counted(cleared.removed, 'file')} {would}removed from the trash, {size(cleared.removed_bytes)}")
    if cleared.unfinished:
        print(f"{counted(cleared.unfinished, 'unfinished write')} removed")


def _registry_export(arguments: argparse.Namespace) -> None:
    from cellnet.registry.exchange import export_version

    registry, destination = _places(arguments).open_registry(), arguments.destination
    if not arguments.bioimageio:
        print(export_version(registry, arguments.ref, destination))
        return
    from cellnet.prediction.bioimageio import write_bioimageio

    version = registry.resolve(arguments.ref)
    files = {role: registry.read(version, role) for role in version.blobs}
    print(write_bioimageio(destination, version, files, authors=arguments.author, license=arguments.license))


def _registry_import(arguments: argparse.Namespace) -> None:
    from cellnet.places import absolute
    from cellnet.registry.exchange import import_version
    from cellnet.store.place import Place

    places = _places(arguments)
    server = arguments.from_endpoint_url or arguments.endpoint_url
    source = replace(places, registry=Place(absolute(arguments.source), server), signing_key=None)
    if arguments.accept_unsigned:
        source = replace(source, trusted_keys=None)
    version = import_version(places.open_registry(), source.open_registry(), arguments.ref, name=arguments.name)
    say(f"{version.ref} is {arguments.ref} of {arguments.source}")
    print(version.ref)


def _registry_publish(arguments: argparse.Namespace) -> None:
    from cellnet.registry.exchange import publish_folder

    print(publish_folder(_places(arguments).open_registry(), arguments.folder, name=arguments.name).ref)


def _registry_keygen(arguments: argparse.Namespace) -> None:
    from cellnet.registry.signing import make_keys

    public = make_keys(arguments.file)
    say(f"{arguments.file} signs (--signing-key) and is to be kept secret; {public} verifies (--trusted-keys)")
    print(public)


def _predict(arguments: argparse.Namespace) -> None:
    from pipelines.predict import prepare

    if arguments.pixel_um is not None and not arguments.pixel_um > 0:
        raise ConfigError(f"--pixel-um takes micrometres above 0, not {arguments.pixel_um:g}")
    if arguments.overwrite and not arguments.out:
        raise ConfigError("--overwrite is about the folder of --out; give that too, or leave it out")
    job = prepare(
        [given if os.path.exists(given) else _place(given, arguments) for given in arguments.images],
        _places(arguments),
        classifier=arguments.classifier,
        regressor=arguments.regressor,
        pixel_um=arguments.pixel_um,
        page=arguments.page,
        channel=arguments.channel,
        out=_place(arguments.out, arguments) if arguments.out else None,
        overwrite=arguments.overwrite,
    )
    if job.kept:
        say(f"{len(job.kept):,} of {len(job.files):,} images were predicted before, and are in {arguments.out}")
    said = _print_predictions(job, arguments)
    say(f"{counted(said['good'], 'image')} predicted, {said['bad']} not")
    if said["assumed"]:
        say(
            "note: the pixel size of images, or of the training frames, is not known; these images are taken to be of "
            "the training frames' magnification"
        )
    if said["unfamiliar"]:
        strange = counted(said["unfamiliar"], "image")
        say(f"warning: {strange} unlike the training images; do not rely on what is said of them")
    for place in job.written:
        say(f"written: {place}")
    if not said["good"]:
        raise ConfigError("no image could be predicted; the reasons are above")


def _print_predictions(job: "Job", arguments: argparse.Namespace) -> Counter[str]:
    """Print each prediction as it comes, and count what they come to."""
    show = _print_json if arguments.json else _csv_printer() if arguments.csv else _print_prediction
    said: Counter[str] = Counter()
    meter = Meter(len(job.files) - len(job.kept), sys.stderr, noun="images")
    try:
        with contextlib.closing(job.run()) as predictions:
            for prediction in predictions:
                if sys.stdout.isatty():
                    meter.clear()
                show(prediction)
                said["bad" if prediction.error else "good"] += 1
                said["assumed"] += prediction.magnification == "assumed"
                said["unfamiliar"] += prediction.unfamiliar is True
                meter.update(job.done)
    except KeyboardInterrupt:
        meter.clear()
        if arguments.out:
            say(f"what has come is kept in {arguments.out}; the same command goes on with it")
        raise
    finally:
        meter.clear()
    return said


def _print_json(prediction: Prediction) -> None:
    print(prediction.model_dump_json(), flush=True)


def _csv_printer() -> Callable[[Prediction], None]:
    """Prints the header at once, and then rows."""
    print(csv_line(COLUMNS), end="")

    def show(prediction: Prediction) -> None:
        row = row_of(prediction)
        print(csv_line(row[name] for name in COLUMNS), end="")

    return show


def _print_prediction(prediction: Prediction) -> None:
    error = prediction.error
    print(plain(f"{prediction.image}: not predicted: {error}" if error else _prediction_line(prediction)))


def _prediction_line(prediction: Prediction) -> str:
    parts = [prediction.image]
    if prediction.lineage is not None and prediction.probabilities is not None:
        parts.append(f"{prediction.lineage} ({prediction.probabilities[prediction.lineage]:.0%})")
    if prediction.count is not None:
        parts.append(f"{prediction.count:.1f} cells{_interval(prediction)}")
    parts.append(f"[{counted(prediction.tiles or 0, 'tile')}]")
    if prediction.unfamiliar:
        parts.append(f"UNFAMILIAR: {prediction.unfamiliar_reason}")
    return "  ".join(parts)


def _interval(prediction: Prediction) -> str:
    if prediction.count_low is None or prediction.count_high is None or prediction.interval_level is None:
        return ""
    return f" ({prediction.count_low:.1f}-{prediction.count_high:.1f} at {prediction.interval_level:.0%})"


def _serve(arguments: argparse.Namespace) -> None:
    from serve.haproxy import use_haproxy

    use_haproxy()  # before anything imports ray.serve
    from cellnet.places import absolute
    from pipelines import cluster
    from serve.app import ServeArgs, serve_forever

    places = _places(arguments)
    given = {name: getattr(arguments, name, None) for name in ServeArgs.model_fields}
    chosen = {name: value for name, value in given.items() if value is not None} | {
        "registry": places.registry.uri,
        "trusted_keys": places.trusted_keys,
    }
    chosen["overlays"] = not arguments.no_overlays
    if arguments.api_keys:
        chosen["api_keys"] = absolute(arguments.api_keys)
    serve_forever(
        load_checked(ServeArgs, chosen, where="the option --"),
        host=arguments.host,
        port=arguments.port,
        connect=lambda: cluster.connect(show_logs=True),
        announce=lambda address: say(f"serving at {address} (Ctrl-C stops it); images go to POST /v1/predict"),
    )


def _scores_line(scores: dict[str, Any]) -> str:
    return " ".join(f"{name} {value:.3f}" for name, value in scores.items() if isinstance(value, float))


def _print_table(rows: list[dict[str, Any]]) -> None:
    """Rows as aligned columns: numbers to the right, text to the left."""
    if not rows:
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(names)]
    right = [all(isinstance(row.get(name), int | float | None) for row in rows) for name in names]
    for line in [names, *cells]:
        parts = [
            text.rjust(width) if to else text.ljust(width) for text, width, to in zip(line, widths, right, strict=True)
        ]
        print("  ".join(parts).rstrip())


def counted(number: int, noun: str) -> str:
    """`1 frame`, `12 frames`."""
    return f"{number} {noun}{'s' * (number != 1)}"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else plain(str(value))


def _page(text: str) -> str | int:
    return text if text in ("middle", "all") else _positive(text)


def _range(text: str) -> int | tuple[int, int]:
    parts = [_positive(part) for part in text.split(":")]
    if len(parts) > 2 or parts != sorted(parts):
        raise argparse.ArgumentTypeError(f"a number from 1, or MIN:MAX like 1:4, not {text}")
    return parts[0] if len(parts) == 1 else (parts[0], parts[1])


def _workers(text: str) -> int | tuple[int, int]:
    counts = [int(part) if part.isdecimal() else 0 for part in text.split(":")]
    if len(counts) > 2 or min(counts) < 1 or counts != sorted(counts):
        raise ConfigError(f"--workers takes a number from 1, or MIN:MAX like 1:4, not {text!r}")
    return counts[0] if len(counts) == 1 else (counts[0], counts[1])


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"a number from 1, not {text}")
    return value
