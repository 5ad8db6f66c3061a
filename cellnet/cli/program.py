"""The program `cellnet`: its commands, and how a command ends."""

import argparse
import io
import logging
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any, Final

from cellnet.cli import bank, evaluate, pipeline, predict, registry, serve, settings, suggest, train, tune
from cellnet.cli.parsing import Parser
from cellnet.cli.printing import LogLines, say
from cellnet.errors import CellnetError, of_machine
from cellnet.version import code_version

LONGEST: Final = 2000
"""Characters of an error that are shown: a table or a name may hold millions."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status.

    0; 2 for what the user can put right; 3 for what was done, but not with all that was given; 130 for Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no × shows a ?
    handler = logging.StreamHandler()
    handler.setFormatter(LogLines("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    try:
        arguments = parser().parse_args(argv)
        return arguments.run(arguments) or 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader, `head` say, has had enough
        return 0
    except KeyboardInterrupt:
        print("cellnet: stopped", file=sys.stderr)
        # Ray was interrupted wherever it was; what its locks and threads make of that as the process ends is no news.
        sys.unraisablehook = lambda _: None
        threading.excepthook = lambda _: None
        return 130
    except Exception as error:
        known = told(error)
        if known is None:
            raise
        say(f"cellnet: {' '.join(str(known).split())[:LONGEST]}")
        return 2


def told(error: Exception) -> CellnetError | None:
    """What a person can put right of an error; None of a bug, whose traceback says more."""
    if "ray" in sys.modules:
        from pipelines import failures
        from pipelines.cluster import fault_of_joined

        return fault_of_joined() or failures.told(error)
    return error if isinstance(error, CellnetError) else of_machine(error)


def parser() -> Parser:
    """The parser of every command line."""
    program = Parser(
        prog="cellnet",
        description="Name the lineage of cells and count them in phase-contrast and brightfield frames.",
        epilog="BANK and the registry are a folder or s3://bucket/prefix. A REF is name@7 or name:alias.",
    )
    program.add_argument("--version", action=_Version, help="show the version, with the commit where it is known")
    commands = program.add_subparsers(title="commands", required=True, metavar="COMMAND")
    bank.add_to(commands)
    train.add_to(commands)
    tune.add_to(commands)
    evaluate.add_calibrate_to(commands)
    evaluate.add_to(commands)
    suggest.add_to(commands)
    registry.add_to(commands)
    pipeline.add_to(commands)
    predict.add_to(commands)
    serve.add_to(commands)
    settings.add_to(commands)
    return program


class _Version(argparse.Action):
    """Prints the version and ends; Git is asked for the commit only then."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(nargs=0, **settings | {"dest": argparse.SUPPRESS, "default": argparse.SUPPRESS})

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"cellnet {code_version()}")
        parser.exit()
