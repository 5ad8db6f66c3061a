"""`cellnet evaluate` and `cellnet calibrate`: a model is scored, and what it is sure of fitted anew."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellnet.cli.options import (
    BANK,
    CHANNEL,
    JSON,
    PAGE,
    PIXEL_UM,
    PUBLISHES,
    READS_REGISTRY,
    REF,
    SCORE_AS_OF,
    images_of,
    named_place,
    places_of,
)
from cellnet.cli.parsing import Option, command, one_of
from cellnet.cli.printing import print_json, print_table, say, tell
from cellnet.errors import ConfigError
from cellnet.tasks import TASKS

if TYPE_CHECKING:
    from cellnet.evaluation.recount import Recounted


def add_to(commands: Any) -> None:
    command(
        commands,
        "evaluate",
        evaluate,
        REF,
        BANK,
        Option(
            "--split",
            type=one_of("train", "test", "holdout", "all", "folds"),
            metavar="{train,test,holdout,all,folds}",
            help="of the bank (holdout); folds are answers that a version keeps, of networks that had not learned from "
            "the frames, and what is taken of a version that learned from the holdout",
        ),
        SCORE_AS_OF,
        JSON.but(help="the scores as one JSON object"),
        Option("--report", type=Path, metavar="DIR", help="also write DIR/report.html and DIR/scores.json"),
        *READS_REGISTRY,
        help="score a model on a split of a bank",
    )


def add_calibrate_to(commands: Any) -> None:
    command(
        commands,
        "calibrate",
        calibrate,
        REF,
        Option("given", nargs="+", metavar="BANK|FRAMES"),
        Option(
            "--known",
            metavar="TABLE",
            help="a CSV (image,count), a path or s3://bucket/key: fit a counter to the plate of three to five FRAMES, "
            "which it counts",
        ),
        PIXEL_UM.but(help="micrometres a pixel of FRAMES"),
        PAGE,
        CHANNEL,
        JSON,
        *PUBLISHES,
        help="fit probabilities, intervals and the flag of a model anew",
        description=(
            "Publish the next version of a model: the same weights, with temperature, count intervals and the flag "
            "for unfamiliar images fitted on the bank's test split. Training does this by itself. With --known, a "
            "counter is fitted to a plate instead: a scale and an offset of its counts, their intervals and the flag, "
            "by FRAMES of it (images and folders, as for cellnet predict) that somebody counted."
        ),
    )


def calibrate(arguments: argparse.Namespace) -> None:
    if arguments.known is not None:
        _recount(arguments)
        return
    for option in ("pixel_um", "page", "channel"):
        if getattr(arguments, option) is not None:
            raise ConfigError(f"--{option.replace('_', '-')} is of FRAMES that --known TABLE counts; give that too")
    bank, *others = arguments.given
    if others:
        raise ConfigError(f"without --known TABLE a model is calibrated on one BANK, and {len(others)} more were given")
    from pipelines.calibrate import recalibrate

    places = replace(places_of(arguments), bank=named_place(bank, arguments))
    version = recalibrate(arguments.ref, places, say=say)
    calibration = version.card.calibration
    assert calibration is not None
    if arguments.json:
        print_json({"model": version.ref, "calibration": calibration.model_dump()})
        return
    for line in calibration.lines(version.card.task):
        say(line)
    tell(version.ref)
    say(f"next: {places.command('registry', 'promote', version.ref, 'champion')}")


def _recount(arguments: argparse.Namespace) -> None:
    """Fit a counter to a plate, and show what it was worth."""
    from cellnet.evaluation.recount import recount
    from cellnet.store.paths import path_at

    done = recount(
        arguments.ref,
        images_of(arguments.given, arguments),
        path_at(named_place(arguments.known, arguments)),
        places_of(arguments).open_registry(),
        pixel_um=arguments.pixel_um,
        page=arguments.page,
        channel=arguments.channel,
        say=say,
    )
    for line in done.doubted:
        say(f"note: {line}")
    calibration, fitted = done.version.card.calibration, done.version.card.recount
    assert calibration is not None and fitted is not None
    if arguments.json:
        told = {"model": done.version.ref, "calibration": calibration.model_dump(), "frames": done.frames}
        print_json(told | {"before": fitted.before, "after": fitted.after})
        return
    _print_recount(done)
    for line in calibration.lines("count"):
        say(line)
    tell(done.version.ref)
    ask = ("predict", *arguments.given, "--regressor", done.version.ref, "--out", "results")
    say(f"next: {places_of(arguments).command(*ask)}")


def _print_recount(done: "Recounted") -> None:
    """The frames, each counted by a fit to the others, and what that is worth."""
    fitted = done.version.card.recount
    assert fitted is not None
    print_table(done.frames)
    print("\nbefore, and after by fits that did not know the frame:")
    print_table(
        [
            {
                "by": model,
                "mean error": scores["mae"],
                "bias": scores["bias"],
                "in the 90 % interval": scores["coverage"],
                "called unfamiliar": scores["unfamiliar"],
            }
            for model, scores in ((done.version.card.parent, fitted.before), (done.version.ref, fitted.after))
        ]
    )
    print()


def evaluate(arguments: argparse.Namespace) -> None:
    from cellnet.evaluation.evaluations import chosen_of, gaps
    from pipelines.evaluate import evaluate

    evaluation = evaluate(
        arguments.ref, places_of(arguments), split=arguments.split, pictures=arguments.report is not None
    )
    scores = evaluation.scores
    for line in scores["left_out"]:
        say(f"left out {line}")
    if arguments.report:
        from cellnet.reports.evaluation_report import write_report

        say(f"report: {write_report(arguments.report, evaluation)}")
    chosen = chosen_of(scores)
    for note in [*([str(chosen)] if chosen else []), *gaps(scores), *_notes(scores)]:
        say(f"note: {note}")
    if scores["bank_entry"]:
        say(f"on the labels of entry {scores['bank_entry']} of the bank, digest {scores['bank_digest'][:12]}")
    if arguments.json:
        print_json(scores)
        return
    print_scores(scores)


def _notes(scores: dict[str, Any]) -> Iterator[str]:
    """Why the scores may flatter the model; of one that does not tell what it learned from, as far as splits tell."""
    from cellnet.evaluation.evaluations import is_own_test, what_it_learned

    if scores["learned"] is None:
        if not scores["same_bank"]:
            yield f"{scores['model']} was trained on another state of the bank; its splits may differ"
        if scores["split"] in ("train", "all") or (scores["split"] == "test" and scores["protocol"] == "paper"):
            yield "these frames include those that the model was trained on; the scores flatter it"
    elif is_own_test(scores):
        yield "the test split chose what was published, and calibrated it; its scores flatter it a little"
    elif scores["learned"]:
        yield f"{what_it_learned(scores)}; the scores flatter it"


def print_scores(scores: dict[str, Any]) -> None:
    """The object of `evaluate --json` as a table for a person."""
    from cellnet.evaluation.evaluations import title
    from cellnet.evaluation.metrics import BY_DENSITY, TOO_FEW, density_of, hides, shown, units

    tell(title(scores))
    names = TASKS[scores["task"]].figures
    print_table([{"per": unit, **shown(scores["task"], scores[unit], names)} for unit in ("tile", "frame")])
    main = TASKS[scores["task"]].main
    print("\n95 % intervals, over groups:")
    figures = [(main, main), ("coverage", "in the 90 % interval"), ("unfamiliar", "called unfamiliar")]
    print_table(
        [
            {"per": unit, "figure": words, "value": scores[unit][name], **_ends(scores[unit][f"{name}_interval"])}
            for unit in ("tile", "frame")
            for name, words in figures
            if name in scores[unit]
        ]
    )
    if others := (scores.get("chosen") or {}).get("others"):
        print("\nframes that were not chosen:")
        print_table([{"per": unit, **shown(scores["task"], others[unit], names)} for unit in units(scores)])
    _print_batches_and_ages(scores)
    for unit in units(scores):
        if scores[unit].get("per_lineage"):
            print()
            tell(f"per {unit}, by lineage:")
            per_lineage = scores[unit]["per_lineage"].items()
            print_table([{"lineage": name} | shown(scores["task"], values) for name, values in per_lineage])
    if scores["tile"].get("by_density"):
        print("\nper tile, by density:")
        print_table(
            [
                {"true count": density_of(bin, "-")} | shown("count", bin, BY_DENSITY)
                for bin in scores["tile"]["by_density"]
            ]
        )
    if hides(scores):
        print(f"\n{TOO_FEW.replace('–', '-', 1)}")


def _ends(interval: Sequence[float]) -> dict[str, float | None]:
    from cellnet.evaluation.metrics import span

    low, high = span(interval) or (None, None)
    return {"from": low, "to": high}


def _print_batches_and_ages(scores: dict[str, Any]) -> None:
    """How it does on batches that it learned from and on new ones, and on young and on old cells."""
    from cellnet.evaluation.batches import next_plate
    from cellnet.evaluation.evaluations import how_new
    from cellnet.evaluation.metrics import shown, units

    task, facts = scores["task"], TASKS[scores["task"]]
    sides = {side: of for side, of in scores["batches"].items() if of}
    if sides:
        how = f", {new}" if (new := how_new(scores)) else ""
        print()
        tell(f"by batch, the same as the model learned from or new to it{how}:")
        print_table(
            [
                {"batch": side, "per": unit}
                | shown(task, of[unit], facts.figures)
                | _ends(of[unit][f"{facts.main}_interval"])
                for unit in units(scores)
                for side, of in sides.items()
            ]
        )
    if unmeasured := next_plate(scores):
        print()
        tell(unmeasured)
    if len(scores["by_age"]) > 1:
        print("\nper frame, by hours since seeding:")
        print_table(
            [
                {"hours": f"{age['from']:g}-{age['to']:g}", **shown(task, age["frame"], facts.figures)}
                for age in scores["by_age"]
            ]
        )
