"""`cellnet settings`: what `--set` and a file of settings take."""

import argparse
import shutil
import textwrap
from dataclasses import asdict
from typing import Any

from cellnet.cli.options import JSON
from cellnet.cli.parsing import Option, command
from cellnet.cli.printing import print_json
from cellnet.config.bank import BankSettings
from cellnet.config.settings import Setting, settings_of
from cellnet.config.train import TrainConfig
from cellnet.config.tune import TuneConfig
from cellnet.errors import ConfigError


def add_to(commands: Any) -> None:
    command(
        commands,
        "settings",
        settings,
        Option("word", nargs="?", metavar="WORD", help="only those with this word in their key or their meaning"),
        JSON,
        help="list what --set KEY=VALUE takes, with default and meaning",
    )


def settings_by_command() -> dict[str, list[Setting]]:
    """The settings that a command's `--set` takes, by command."""
    return {
        "train": list(settings_of(TrainConfig, skip=("task", "lineage"))),
        "tune": list(settings_of(TuneConfig, skip=("train",))),
        "bank import": list(settings_of(BankSettings)),
    }


def settings(arguments: argparse.Namespace) -> None:
    word = (arguments.word or "").lower()
    found = {
        of_command: [one for one in of if word in one.key.lower() or word in one.meaning.lower()]
        for of_command, of in settings_by_command().items()
    }
    if not any(found.values()):
        raise ConfigError(f"no setting has the word {arguments.word!r}; see all with: cellnet settings")
    if arguments.json:
        rows = [{"command": of_command, **asdict(one)} for of_command, of in found.items() for one in of]
        print_json(rows, indent=1)
        return
    width = min(shutil.get_terminal_size((100, 24)).columns, 100)
    print("\n\n".join(_section(of_command, of, width) for of_command, of in found.items() if of))


def _section(of_command: str, settings: list[Setting], width: int) -> str:
    """The settings of a command under a heading."""
    more = {"train": "; cellnet tune --set train.KEY=VALUE", "bank import": ", of a new bank"}
    lines = [f"cellnet {of_command} --set KEY=VALUE{more.get(of_command, '')}"]
    for one in settings:
        text = f"{one.values}. {one.meaning}" if one.meaning else one.values
        lines += ["", _filled(f"{one.key}={_shown(one.default)}", width, 2), _filled(text, width, 6)]
    return "\n".join(lines)


def _filled(text: str, width: int, indent: int) -> str:
    return textwrap.fill(text, width, initial_indent=" " * indent, subsequent_indent=" " * 6)


def _shown(default: Any) -> str:
    """As one would type it; nothing where a setting is left out."""
    return "" if default is None else str(default).lower() if isinstance(default, bool) else f"{default}"
