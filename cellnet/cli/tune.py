"""`cellnet tune`: settings are searched, and the winner is published."""

import argparse
import re
from typing import TYPE_CHECKING, Any

from cellnet.cli.options import BANK, JSON, LEARN_AS_OF, ONCE, PUBLISHES, TRAINING, WAIT, own_settings, places_of
from cellnet.cli.parsing import POSITIVE, OneOf, Option, command
from cellnet.cli.printing import print_json, print_table, say, tell
from cellnet.config.loading import load_config
from cellnet.config.train import TrainConfig
from cellnet.config.tune import TuneConfig
from cellnet.tasks import TASKS

if TYPE_CHECKING:
    from pipelines.winner import Search


def add_to(commands: Any) -> None:
    command(
        commands,
        "tune",
        tune,
        BANK,
        LEARN_AS_OF,
        *TRAINING,
        Option("--trials", type=POSITIVE, metavar="N", help="how many to try (every combination)"),
        Option("--workers", type=POSITIVE, default=1, metavar="N", help="of each trial (%(default)s)"),
        OneOf(
            Option("--alias", default="champion", help="alias that the winner gets if it is better (%(default)s)"),
            Option("--no-promote", action="store_true", help="publish the winner, and leave aliases alone"),
        ),
        Option(
            "--resume",
            action="store_true",
            help="go on with the newest unfinished search of the same bank and settings",
        ),
        ONCE,
        WAIT,
        JSON,
        *PUBLISHES,
        help="search activation × kernel, publish and promote the winner",
        description=(
            "Search settings of a training (space; else activation × kernel), steered by the test split. The winner "
            "is published, and promoted if it is better than what the alias points at."
        ),
    )


def tune_config(arguments: argparse.Namespace) -> TuneConfig:
    """The search that the command line asks for."""
    of_training = TrainConfig.model_fields.keys() - TuneConfig.model_fields.keys()
    sets = [f"train.{item}" if re.split(r"[.=]", item)[0] in of_training else item for item in arguments.set]
    fixed = {f"train.{key}": value for key, value in own_settings(arguments).items()}
    trials = {"trials": arguments.trials} if arguments.trials else {}
    return load_config(TuneConfig, file=arguments.config, sets=sets, **fixed, **trials)


def tune(arguments: argparse.Namespace) -> None:
    from pipelines.tune import tune

    config = tune_config(arguments)
    alias = None if arguments.no_promote else arguments.alias
    search = tune(
        places_of(arguments),
        config,
        alias=alias,
        name=arguments.name,
        workers=arguments.workers,
        resume=arguments.resume,
        once=arguments.once,
        wait_s=arguments.wait,
        say=say,
    )
    print_search(search, alias=alias, as_json=arguments.json)


def print_search(search: "Search", *, alias: str | None, as_json: bool) -> None:
    """What a search came to."""
    from cellnet.evaluation.batches import next_plate

    winner, scores = search.winner, search.holdout.scores
    if as_json:
        moved = search.move.model_dump(mode="json") if search.move else None
        print_json({"model": winner.ref, "alias": moved, "trials": search.trials, "holdout": scores})
        return
    print_table(search.trials)
    main = TASKS[winner.card.task].main
    low, high = scores["tile"][f"{main}_interval"]
    say(f"{winner.ref} on the holdout: {main} per tile {scores['tile'][main]:.3f} ({low:.3f} to {high:.3f})")
    if unmeasured := next_plate(scores):
        say(f"note: {unmeasured}")
    if alias:
        say(f"{winner.name}:{alias} {'is now' if search.move else 'stays, and is not'} {winner.ref}")
    tell(winner.ref)
