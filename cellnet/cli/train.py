"""`cellnet train`: a network is trained and published."""

import argparse
from typing import TYPE_CHECKING, Any

from cellnet.cli.options import BANK, JSON, LEARN_AS_OF, ONCE, PUBLISHES, TRAINING, WAIT, places_of, train_config
from cellnet.cli.parsing import NUMBER_OR_RANGE, Option, command
from cellnet.cli.printing import print_json, say, scores_line, tell
from cellnet.config.train import TrainConfig
from cellnet.errors import plain

if TYPE_CHECKING:
    from cellnet.bank.bank import Bank


def add_to(commands: Any) -> None:
    command(
        commands,
        "train",
        train,
        BANK,
        LEARN_AS_OF,
        *TRAINING,
        Option(
            "--workers",
            type=NUMBER_OR_RANGE,
            default=1,
            metavar="N|MIN:MAX",
            help="Ray Train workers, who share the tiles of a step (%(default)s); 1:4 takes as many as there is room "
            "for",
        ),
        Option("--gpu", action="store_true", help="insist on a GPU a worker (GPUs are used where there are enough)"),
        Option(
            "--resume", action="store_true", help="go on with the newest unfinished run of the same bank and settings"
        ),
        ONCE,
        WAIT,
        Option("--summary", action="store_true", help="print the network's layers and sizes; train nothing"),
        JSON,
        *PUBLISHES,
        help="train a classifier or a counter and publish it",
    )


def train(arguments: argparse.Namespace) -> None:
    config = train_config(arguments)
    if arguments.summary:
        print(plain(_summary(places_of(arguments).open_bank(), config), lines=True))
        return
    from cellnet.registry.description import scored_by_batch
    from pipelines.train import train

    places = places_of(arguments)
    version = train(
        places,
        config,
        name=arguments.name,
        workers=arguments.workers,
        gpu=arguments.gpu,
        resume=arguments.resume,
        once=arguments.once,
        wait_s=arguments.wait,
        say=say,
    )
    test, folds = version.card.scores.get("test", {}), version.card.scores.get("folds")
    if arguments.json:
        print_json({"model": version.ref, "test": test} | ({"folds": folds} if folds else {}))
        return
    evaluate = places.command("evaluate", version.ref, arguments.bank)
    if folds:
        say(f"{version.card.cross_validation}, per tile: {scores_line(folds)}")
    else:
        say(f"test split, per tile: {scores_line(test)}" if test else "no test split: nothing was scored")
    for gap in version.card.cross_validation.gaps() if version.card.cross_validation else ():
        say(f"note: {gap}")
    for line in scored_by_batch(version.card):
        say(line)
    if config.protocol == "paper":
        say(
            "note: under protocol=paper variants of one frame are on all sides, so these scores leak; "
            f"{evaluate} takes the holdout's frames, which it has not seen"
        )
    tell(version.ref)
    say(f"next: {evaluate}; {places.command('registry', 'promote', version.ref, 'champion')}")


def _summary(bank: "Bank", config: TrainConfig) -> str:
    """The network that the bank would train, layer by layer."""
    from cellnet.networks.summary import summary
    from cellnet.networks.weights import fresh_network
    from cellnet.training.plan import make_plan

    plan = make_plan(bank, config)
    return summary(fresh_network(plan.config, len(plan.classes)), frozen=bool(plan.config.model.frozen))
