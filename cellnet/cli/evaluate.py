"""`cellnet evaluate` and `cellnet calibrate`: a model is scored, and what it is sure of fitted anew."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cellnet.cli.options import BANK, JSON, PUBLISHES, READS_REGISTRY, REF, places_of
from cellnet.cli.parsing import Option, command, one_of
from cellnet.cli.printing import print_table, say
from cellnet.errors import plain
from cellnet.tasks import TASKS

if TYPE_CHECKING:
    from cellnet.registry.records import Card


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
        BANK,
        JSON,
        *PUBLISHES,
        help="fit probabilities, intervals and the flag of a model anew",
        description=(
            "Publish the next version of a model: the same weights, with temperature, count intervals and the flag "
            "for unfamiliar images fitted on the bank's test split. Training does this by itself."
        ),
    )


def calibrate(arguments: argparse.Namespace) -> None:
    from pipelines.calibrate import recalibrate

    version = recalibrate(arguments.ref, places_of(arguments), say=say)
    calibration = version.card.calibration
    assert calibration is not None
    if arguments.json:
        print(json.dumps({"model": version.ref, "calibration": calibration.model_dump()}))
        return
    for line in calibration.lines(version.card.task):
        say(line)
    print(version.ref)


def evaluate(arguments: argparse.Namespace) -> None:
    from cellnet.evaluation.evaluations import gaps
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
    if not scores["same_bank"]:
        say(f"note: {scores['model']} was trained on another state of the bank; its splits may differ")
    for gap in gaps(scores):
        say(f"note: {gap}")
    if _flatters(scores, evaluation.card):
        say("note: these frames include those that the model was trained on; the scores flatter it")
    if arguments.json:
        print(json.dumps(scores))
        return
    print_scores(scores)


def _flatters(scores: dict[str, Any], card: "Card | None") -> bool:
    """Whether the model learned from some of the frames that it is scored on."""
    split, validated = scores["split"], bool(card and card.cross_validation)
    if split == "test":
        return validated or scores["protocol"] == "paper"
    used = bool(card and card.config.holdout == "use") and scores["same_bank"]
    return split in ("train", "all") or (split == "holdout" and used)


def print_scores(scores: dict[str, Any]) -> None:
    """The object of `evaluate --json` as a table for a person."""
    from cellnet.evaluation.evaluations import title
    from cellnet.evaluation.metrics import shown, units

    print(plain(title(scores)))
    names = TASKS[scores["task"]].figures
    print_table([{"per": unit, **{name: scores[unit][name] for name in names}} for unit in ("tile", "frame")])
    main = TASKS[scores["task"]].main
    print("\n95 % intervals, over groups:")
    figures = [(main, main), ("coverage", "in the 90 % interval"), ("unfamiliar", "called unfamiliar")]
    print_table(
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
            print_table([{"lineage": name} | shown(scores["task"], values) for name, values in per_lineage])
    if scores["tile"].get("by_density"):
        print("\nper tile, by density:")
        print_table(
            [
                {"true count": f"{bin['from']:g}-{bin['to']:g}"} | shown("count", bin)
                for bin in scores["tile"]["by_density"]
            ]
        )
