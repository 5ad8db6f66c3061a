"""Options that several commands share, and what they come to together."""

import argparse
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cellnet.cli.parsing import MOMENT, PAGES, Option, number, one_of
from cellnet.config.loading import load_config
from cellnet.config.train import TrainConfig

if TYPE_CHECKING:
    from cellnet.places import Places
    from cellnet.store.place import Place

BANK: Final = Option("bank", metavar="BANK")
REF: Final = Option("ref", metavar="REF")
JSON: Final = Option("--json", action="store_true")
LEFT_OUT: Final = 3
"""The exit status of a command that did what it should, but not with all that was given."""
STRICT: Final = Option("--strict", action="store_true")
PAGE: Final = Option(
    "--page",
    type=PAGES,
    metavar="PAGE",
    help="of files of several pages: middle, all, or a number from 1 (middle of a stack)",
)
PIXEL_UM: Final = Option(
    "--pixel-um",
    type=number(float, above=0, what="micrometres"),
    metavar="UM",
    help="micrometres a pixel of these images",
)
CHANNEL: Final = Option(
    "--channel",
    metavar="NAME",
    help="of several channels in files or in their names (_w1), by name or number (the only one of transmitted light)",
)
SET: Final = Option("--set", action="append", default=[], metavar="KEY=VALUE")
WAIT: Final = Option(
    "--wait",
    type=number(float, least=0, what="seconds"),
    default=900.0,
    metavar="SECONDS",
    help="how long to wait for nodes of a cluster that grows on demand (900, as Ray's autoscaler does for one node)",
)

AS_OF: Final = Option(
    "--as-of",
    type=MOMENT,
    metavar="MOMENT",
    help="the bank as it was: the number of an entry (cellnet bank labels), or a time like 2026-11-29T10:30 (UTC)",
)
LEARN_AS_OF: Final = AS_OF.but(
    help="learn from the bank as it was: the number of an entry (cellnet bank labels), or a time (UTC)"
)
SCORE_AS_OF: Final = AS_OF.but(
    help="score on the bank as it was: the number of an entry (cellnet bank labels), or a time (UTC)"
)
ONCE: Final = Option(
    "--once",
    metavar="NAME",
    help="call it so: given again, it goes on where it was cut, and what it has published it does not publish again",
)
ENDPOINT_URL: Final = Option("--endpoint-url", metavar="URL", help="another S3 server (or AWS_ENDPOINT_URL_S3)")
_REGISTRY: Final = (
    Option(
        "--registry",
        metavar="URI",
        default=lambda: os.environ.get("CELLNET_REGISTRY", "registry"),
        help="folder or s3://bucket/prefix of the models (CELLNET_REGISTRY, else ./registry)",
    ),
    Option(
        "--trusted-keys",
        metavar="FILE",
        default=lambda: os.environ.get("CELLNET_TRUSTED_KEYS"),
        help="public keys; refuse models that none of them signed (CELLNET_TRUSTED_KEYS)",
    ),
)
_SIGNING_KEY: Final = Option(
    "--signing-key",
    metavar="FILE",
    default=lambda: os.environ.get("CELLNET_SIGNING_KEY"),
    help="private key that signs what is published (CELLNET_SIGNING_KEY); see cellnet registry keygen",
)
READS_REGISTRY: Final = (*_REGISTRY, ENDPOINT_URL)
PUBLISHES: Final = (*_REGISTRY, _SIGNING_KEY, ENDPOINT_URL)

TRAINING: Final = (
    Option("--task", type=one_of("classify", "count"), metavar="{classify,count}", required=True),
    Option("--lineage", metavar="NAME", help="of a counter: train it on this lineage alone"),
    Option("--config", type=Path, metavar="FILE", help="YAML or JSON file of settings"),
    SET.but(help="one setting, over the file's; see cellnet/config/ for all, with their defaults"),
    Option("--name", help="model name in the registry (classifier, regressor or regressor-LINEAGE)"),
    Option("--runs", metavar="URI", help="where runs keep checkpoints (runs, beside the registry)"),
)
"""The settings of a training, and what it is called."""


def places_of(arguments: argparse.Namespace) -> "Places":
    """The places that the command line names, made absolute."""
    from cellnet.places import Places, absolute
    from cellnet.store.place import NOWHERE

    def place(key: str) -> "Place":
        uri = getattr(arguments, key, None)
        return named_place(uri, arguments) if uri else NOWHERE

    def file(key: str) -> str | None:
        path = getattr(arguments, key, None)
        return absolute(path) if path else None

    return Places(
        bank=place("bank"),
        as_of=getattr(arguments, "as_of", None),
        registry=place("registry"),
        runs=place("runs"),
        trusted_keys=file("trusted_keys"),
        signing_key=file("signing_key"),
    )


def named_place(uri: str, arguments: argparse.Namespace) -> "Place":
    """A place that the command line names, made absolute, on the server that it names."""
    from cellnet.places import absolute
    from cellnet.store.place import Place

    return Place(absolute(uri), arguments.endpoint_url)


def bank_command(arguments: argparse.Namespace, *words: object) -> str:
    """A command about a bank as one types it, with the S3 server that this one was given."""
    there = ["--endpoint-url", arguments.endpoint_url] if arguments.endpoint_url else []
    return shlex.join(["cellnet", *map(str, words), *there])


def images_of(given: list[str], arguments: argparse.Namespace) -> "list[str | Place]":
    """Images and folders that the command line names: here as they are shown, elsewhere as places."""
    return [one if os.path.exists(one) else named_place(one, arguments) for one in given]


def train_config(arguments: argparse.Namespace) -> TrainConfig:
    """The training that the command line asks for."""
    return load_config(TrainConfig, file=arguments.config, sets=arguments.set, **own_settings(arguments))


def own_settings(arguments: argparse.Namespace) -> dict[str, str]:
    """The settings of a training that have options of their own."""
    return {"task": arguments.task} | ({} if arguments.lineage is None else {"lineage": arguments.lineage})
