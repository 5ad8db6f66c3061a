"""`cellnet registry`: versions are listed, shown, pointed at, checked, cleared away, and brought out and in."""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cellnet.cli.options import JSON, PUBLISHES, READS_REGISTRY, REF, named_place, places_of
from cellnet.cli.parsing import POSITIVE, Option, command, noun, number
from cellnet.cli.printing import counted, print_json, print_table, say, scores_line, tell
from cellnet.cli.tune import print_search
from cellnet.config.choices import FIXED_ARCHITECTURES
from cellnet.errors import CellnetError, ConfigError, IntegrityError
from cellnet.tasks import TASKS

if TYPE_CHECKING:
    from cellnet.evaluation.judged import Judged
    from cellnet.registry.records import Card, ModelVersion
    from cellnet.registry.registry import Listed

NAME: Final = Option("name", metavar="NAME")
ONE_MODEL: Final = Option("name", metavar="NAME", nargs="?", help="of one model (all)")
NAME_HERE: Final = Option("--name", metavar="NAME", help="of the model here (the same)")
ALIAS: Final = Option("alias", metavar="ALIAS")
REASON: Final = Option("--reason", default="", metavar="TEXT", help="kept in the alias's history")


def add_to(commands: Any) -> None:
    verbs = noun(commands, "registry", help="list, show, promote, verify, export and import models")
    command(
        verbs,
        "list",
        list_,
        ONE_MODEL,
        Option("--newest", type=POSITIVE, default=20, metavar="N", help="of each model (%(default)s)"),
        Option("--all", action="store_true", help="all versions"),
        JSON,
        *READS_REGISTRY,
        help="versions with their aliases and scores, the newest first",
    )
    command(
        verbs,
        "show",
        show,
        REF,
        Option(
            "--bank",
            metavar="BANK",
            help="where people judged its answers (that of its training, where it lies as the registry does)",
        ),
        JSON.but(help="its whole record, and what people said"),
        *READS_REGISTRY,
        help="a version as a model card, and how often people said otherwise",
    )
    command(
        verbs, "resolve", resolve, REF, *READS_REGISTRY, help="the version, NAME@NUMBER, that a reference means now"
    )
    command(
        verbs,
        "tag",
        tag,
        REF,
        Option("tag", metavar="TAG"),
        REASON.but(help="kept with the tag"),
        *READS_REGISTRY,
        help="give a version a name that stays with it, like an alias that never moves",
    )
    command(
        verbs,
        "promote",
        promote,
        REF.but(nargs="?"),
        ALIAS,
        Option("--from-sweep", metavar="RUN", help="publish the best of a search that was stopped, as REF"),
        Option("--bank", metavar="BANK", help="to compare on (the one that REF was trained on)"),
        Option("--force", action="store_true", help="move it without a comparison; needs --reason"),
        REASON,
        JSON,
        *PUBLISHES,  # --from-sweep does
        help="point an alias at a version that is better than the one it points at",
        description=(
            "Point an alias at a version. Where it points at another one already, both are scored on the holdout of "
            "one bank, on frames that neither learned from (those in batches new to both decide, where there are any), "
            "and the alias moves if the new one is better by a paired bootstrap over groups; else exit 2. "
            "The first counter of one lineage must be better at it than the regressor of the same alias."
        ),
    )
    command(
        verbs, "history", history, NAME, ALIAS, JSON, *READS_REGISTRY,
        help="every move of an alias, with what decided it",
    )  # fmt: skip
    command(
        verbs, "rollback", rollback, NAME, ALIAS, REASON, *READS_REGISTRY,
        help="point an alias back at what it pointed at before",
    )  # fmt: skip
    command(
        verbs, "verify", verify, ONE_MODEL, JSON, *READS_REGISTRY,
        help="check all records, logs and bytes (and, with --trusted-keys, signatures)",
    )  # fmt: skip
    command(
        verbs,
        "gc",
        gc,
        Option("--keep-days", type=number(float), default=7.0, metavar="N", help="days in the trash (%(default)g)"),
        Option("--dry-run", action="store_true", help="only say what would be done"),
        JSON,
        *READS_REGISTRY,
        help="clear away what no version needs",
        description=(
            "Put files that no version names into the registry's trash, and remove for good what has been there for "
            "some days. Safe beside people who publish."
        ),
    )
    _add_copies_to(verbs)


def _add_copies_to(verbs: Any) -> None:
    """The verbs that bring versions out and in, and make keys."""
    command(
        verbs,
        "export",
        export,
        REF,
        Option("destination", type=Path, metavar="DEST", help="new folder; with --bioimageio a new .zip"),
        Option("--bioimageio", action="store_true", help="a package for the BioImage Model Zoo"),
        Option("--author", action="append", default=[], metavar="NAME", help="of the package; may be repeated"),
        Option("--license", default="MIT", metavar="SPDX", help="of the package, like CC-BY-4.0 (%(default)s)"),
        *READS_REGISTRY,
        help="write a version's files, or a BioImage Model Zoo package",
    )
    command(
        verbs,
        "import",
        import_,
        REF.but(help="there"),
        Option("--from", dest="source", required=True, metavar="URI", help="the other registry"),
        Option("--from-endpoint-url", metavar="URL", help="its S3 server (--endpoint-url)"),
        NAME_HERE,
        Option("--accept-unsigned", action="store_true", help="do not ask for a signature there; it is signed here"),
        *PUBLISHES,
        help="copy a version of another registry into this one, as its next version",
    )
    command(
        verbs,
        "publish",
        publish,
        Option("folder", type=Path, metavar="FOLDER"),
        NAME_HERE,
        *PUBLISHES,
        help="what export wrote, as the next version (cellnet train publishes too)",
    )
    command(
        verbs,
        "keygen",
        keygen,
        Option("file", type=Path, metavar="FILE"),
        help="make a private key to sign with, and FILE.pub for those who verify",
    )


def list_(arguments: argparse.Namespace) -> None:
    registry = places_of(arguments).open_registry()
    if arguments.name:
        registry.check_there(arguments.name)
    versions = list(registry.versions(arguments.name, newest=None if arguments.all else arguments.newest))
    rows = [_row(version) for version in versions]
    if arguments.json:
        print_json(rows)
    elif rows:
        print_table([_line(version) for version in versions])
        whole = {version.ref.rpartition("@")[0] for version in versions if version.ref.endswith("@1")}
        if whole != {version.ref.rpartition("@")[0] for version in versions}:
            say("older versions are not shown; --all, or --newest N, shows them")
    else:
        say(f"{registry.store.uri} holds no models; publish one with cellnet train")


def _row(listed: "Listed") -> dict[str, Any]:
    """A row of the list; of a version that cannot be used, why."""
    row = {"model": listed.ref, "aliases": ",".join(listed.aliases)}
    if listed.version is None:
        return row | {"task": None, "test": f"NOT USABLE: {listed.problem}"}
    card, model = listed.version.card, listed.version.card.config.model
    scores = scores_line(card.scores.get("test") or card.scores.get("folds", {})) or "-"
    return row | {
        "task": card.task,
        "network": model.architecture,
        "activation": None if model.architecture in FIXED_ARCHITECTURES else model.activation,
        "kernel": card.preprocess.kernel,
        "created": card.created,
        "test": _marked(scores, card),
    }


def _line(listed: "Listed") -> dict[str, Any]:
    """A row of the list as a person reads it, in 80 columns mostly; `registry show` has the rest."""
    row = _row(listed)
    shown = {"model": row["model"], "aliases": row["aliases"], "network": None, "created": None, "test": row["test"]}
    if listed.version is None:
        return shown
    card, main = listed.version.card, TASKS[listed.version.card.task].main
    scores = card.scores.get("test") or card.scores.get("folds", {})
    kernel = None if row["kernel"] == "none" else row["kernel"]
    return shown | {
        "network": " ".join(part for part in (row["network"], row["activation"], kernel) if part),
        "created": row["created"].partition("T")[0],
        "test": _marked(scores_line({main: scores.get(main)}) or f"{card.task}, not scored", card),
    }


def _marked(scores: str, card: "Card") -> str:
    """Scores with what they are of, where that is not the test split of its own."""
    return scores + (" (leaks)" if card.config.protocol == "paper" else " (folds)" if "folds" in card.scores else "")


def show(arguments: argparse.Namespace) -> None:
    registry = places_of(arguments).open_registry()
    version = registry.resolve(arguments.ref)
    judged = _judged(version, arguments)
    if arguments.json:
        said = {"judged": judged.as_json()} if judged else {}
        print_json(json.loads(version.model_dump_json()) | said, indent=2)
        return
    from cellnet.registry.description import model_card

    aliases, signature = registry.aliases_of(version), registry.signature(version)
    print(model_card(version, aliases=aliases, signature=signature, judged=[*judged.lines()] if judged else ()))


def _judged(version: "ModelVersion", arguments: argparse.Namespace) -> "Judged | None":
    """What people said of a version's answers, in the bank that is named, or else in its own where that is there."""
    from cellnet.evaluation.judged import judged_by_people

    places = places_of(arguments)
    if places.bank:
        return judged_by_people(version, places.open_bank())
    own = places.registry.elsewhere(version.card.bank)
    if version.origin or own.is_on_s3 > places.registry.is_on_s3:  # of another place, which may not even answer
        return None
    try:
        bank = replace(places, bank=own).open_bank()
    except CellnetError:
        return None
    return judged_by_people(version, bank)


def resolve(arguments: argparse.Namespace) -> None:
    tell(places_of(arguments).open_registry().resolve(arguments.ref).ref)


def tag(arguments: argparse.Namespace) -> None:
    move = places_of(arguments).open_registry().tag(arguments.ref, arguments.tag, reason=arguments.reason)
    tell(f"{move.name}:{move.alias} is {move.name}@{move.number}")


def promote(arguments: argparse.Namespace) -> None:
    if (arguments.ref is None) == (arguments.from_sweep is None):
        raise ConfigError("promote takes a REF and an ALIAS, or --from-sweep RUN and an ALIAS")
    if arguments.from_sweep:
        from pipelines.winner import publish_sweep

        run = named_place(arguments.from_sweep, arguments)
        search = publish_sweep(run, places_of(arguments), alias=arguments.alias, say=say)
        print_search(search, alias=arguments.alias, as_json=arguments.json)
        return
    from pipelines.promote import promote

    decision = {"force": arguments.force, "reason": arguments.reason, "say": say}
    move = promote(arguments.ref, arguments.alias, places_of(arguments), **decision)
    if arguments.json:
        print_json(json.loads(move.model_dump_json()))
    else:
        _print_move(move)
        places = places_of(arguments)
        say(f"next: {places.command('predict', 'IMAGES', '--out', 'results')}; {places.command('serve')}")


def history(arguments: argparse.Namespace) -> None:
    registry = places_of(arguments).open_registry()
    moves = registry.history(arguments.name, arguments.alias)
    if not moves:
        registry.resolve(f"{arguments.name}:{arguments.alias}")  # says what there is
    if arguments.json:
        print_json([move.model_dump(mode="json") for move in moves])
        return
    for move in moves:
        before = f" (before: {move.name}@{move.previous})" if move.previous else ""
        unsaid = "no reason given" if move.previous else "the first"
        because = "; ".join(str(why) for why in (move.evidence, move.reason) if why) or unsaid
        tell(f"{move.entry:>3}  {move.moved}  {move.name}@{move.number}{before}: {because}")


def rollback(arguments: argparse.Namespace) -> None:
    registry = places_of(arguments).open_registry()
    _print_move(registry.rollback(arguments.name, arguments.alias, reason=arguments.reason))


def _print_move(move: Any) -> None:
    before = f"{move.name}@{move.previous}" if move.previous else "nothing"
    tell(f"{move.name}:{move.alias} is {move.name}@{move.number} (before: {before})")


def verify(arguments: argparse.Namespace) -> None:
    from cellnet.registry.upkeep import verify

    findings = []
    for finding in verify(places_of(arguments).open_registry(), arguments.name):
        findings.append(finding)
        if not arguments.json:
            tell(f"{finding.what}: {finding.problem or 'ok'}")
    if arguments.json:
        print_json([finding._asdict() for finding in findings])
    damaged = sum(finding.problem is not None for finding in findings)
    if damaged:
        raise IntegrityError(
            f"{damaged} of {len(findings)} are not whole; publish them again, or restore them from a copy"
        )


def gc(arguments: argparse.Namespace) -> None:
    from cellnet.registry.description import size
    from cellnet.registry.upkeep import gc

    registry = places_of(arguments).open_registry()
    cleared = gc(registry, keep_days=arguments.keep_days, dry_run=arguments.dry_run, say=say)
    if arguments.json:
        print_json(asdict(cleared))
        return
    would = "would be " if arguments.dry_run else ""
    tell(f"{counted(cleared.trashed, 'file')} {would}put into the trash, {cleared.restored} taken out of it")
    tell(f"{counted(cleared.removed, 'file')} {would}removed from the trash, {size(cleared.removed_bytes)}")
    if cleared.unfinished:
        tell(f"{counted(cleared.unfinished, 'unfinished write')} removed")


def export(arguments: argparse.Namespace) -> None:
    from cellnet.registry.exchange import export_version

    registry, destination = places_of(arguments).open_registry(), arguments.destination
    if not arguments.bioimageio:
        tell(str(export_version(registry, arguments.ref, destination)))
        return
    from cellnet.prediction.bioimageio import write_bioimageio

    version = registry.resolve(arguments.ref)
    files = {role: registry.read(version, role) for role in version.blobs}
    tell(str(write_bioimageio(destination, version, files, authors=arguments.author, license=arguments.license)))


def import_(arguments: argparse.Namespace) -> None:
    from cellnet.places import absolute
    from cellnet.registry.exchange import import_version
    from cellnet.store.place import Place

    places = places_of(arguments)
    server = arguments.from_endpoint_url or arguments.endpoint_url
    source = replace(places, registry=Place(absolute(arguments.source), server), signing_key=None)
    if arguments.accept_unsigned:
        source = replace(source, trusted_keys=None)
    version = import_version(places.open_registry(), source.open_registry(), arguments.ref, name=arguments.name)
    say(f"{version.ref} is {arguments.ref} of {arguments.source}")
    tell(version.ref)


def publish(arguments: argparse.Namespace) -> None:
    from cellnet.registry.exchange import publish_folder

    tell(publish_folder(places_of(arguments).open_registry(), arguments.folder, name=arguments.name).ref)


def keygen(arguments: argparse.Namespace) -> None:
    from cellnet.registry.signing import make_keys

    public = make_keys(arguments.file)
    say(f"{arguments.file} signs (--signing-key) and is to be kept secret; {public} verifies (--trusted-keys)")
    tell(str(public))
