"""`cellnet serve`: the service, its options made of the fields of `serve.settings.ServeArgs`."""

import argparse
import functools
import io
import logging
import operator
import sys
from collections.abc import Callable, Iterator, Sequence
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union, get_args, get_origin

from cellnet.cli.options import READS_REGISTRY, places_of
from cellnet.cli.parsing import NUMBER_OR_RANGE, Group, Option, Reader, command, number, one_of
from cellnet.cli.printing import LogLines, say
from cellnet.config.loading import load_checked

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

log = logging.getLogger(__name__)

OF_PLACES: Final = {option.names[0].removeprefix("--").replace("-", "_") for option in READS_REGISTRY}
"""Fields whose options all commands share."""
ENDS: Final = {"ge": "least", "gt": "above", "le": "most"}
"""What pydantic calls the ends of a range, and what `number` does."""


def add_to(commands: Any) -> None:
    command(
        commands,
        "serve",
        serve,
        Option("--host", default="127.0.0.1", help="(%(default)s); 0.0.0.0 lets others in"),
        Option("--port", type=number(int, least=1, most=65535), default=8000, help="(%(default)s)"),
        Option(
            "--no-cluster-token",
            action="store_true",
            help="join a Ray cluster that asks for no token, too: whoever reaches its ports runs what he likes in it",
        ),
        *_options(),
        *READS_REGISTRY,
        help="answer over HTTP with the champions of a registry",
        description=(
            "Answer over HTTP with the champions of a registry, until Ctrl-C: a page at /, its interface at /docs. "
            "When an alias moves, the version that it points at takes over within seconds."
        ),
    )


def serve(arguments: argparse.Namespace) -> None:
    from serve.haproxy import use_haproxy

    use_haproxy()  # before anything imports ray.serve
    from cellnet.places import absolute
    from pipelines import cluster, starting
    from serve.app import ServeArgs, serve_forever
    from serve.logs import FORMATTERS

    places = places_of(arguments)
    given = {name: getattr(arguments, name) for name in ServeArgs.model_fields}
    given |= {"registry": places.registry.uri, "trusted_keys": places.trusted_keys}
    for name in ("bank", "api_keys"):
        if given[name]:
            given[name] = absolute(given[name])

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # lines of requests are seen as they come, also by a journal
    note: Callable[[str], None] = say
    if arguments.log_format == "json":
        for handler in logging.getLogger().handlers:
            if isinstance(handler.formatter, LogLines):  # this program's own, where another has called it
                handler.setFormatter(FORMATTERS["json"]())
        log.setLevel(logging.INFO)
        note = log.info

    def announce(address: str, models: Sequence[str]) -> None:
        note(f"serving at {address}: a page, and /docs; Ctrl-C stops it")
        note(f"models: {', '.join(models)}")

    def connect() -> None:
        note("starting: Ray, then the models; it takes some seconds")
        cluster.connect(places.registry, show_logs=True, bare_logs=arguments.log_format == "json")
        if not arguments.no_cluster_token:
            starting.check_closed()

    serve_forever(
        load_checked(ServeArgs, {name: value for name, value in given.items() if value is not None}),
        host=arguments.host,
        port=arguments.port,
        connect=connect,
        announce=announce,
        stopping=lambda: note("stopping: what was begun is answered first"),
    )


def _options() -> Iterator[Option | Group]:
    """An option a field, those of one heading together."""
    from serve.settings import AsOption, ServeArgs

    headings: dict[str, list[Option]] = {}
    for name, field in ServeArgs.model_fields.items():
        if name not in OF_PLACES:
            asked = next((part for part in field.metadata if isinstance(part, AsOption)), AsOption())
            headings.setdefault(asked.heading, []).append(_option(name, field, asked))
    yield from headings.pop("", [])
    yield from (Group(heading, *options) for heading, options in headings.items())


def _option(name: str, field: "FieldInfo", asked: Any) -> Option:
    """The option of a field; where it is left out, the field's own default stands."""
    turns_off = field.default is True
    flag = asked.name or f"--{'no-' if turns_off else ''}{name.replace('_', '-')}"
    settings: dict[str, Any] = {"dest": name, "help": asked.help or field.description}
    if field.annotation is bool:
        return Option(flag, action="store_false" if turns_off else "store_true", **settings)
    if asked.metavar:
        settings["metavar"] = asked.metavar
    if get_origin(field.annotation) is tuple:
        return Option(flag, action="append", **settings)
    if (reader := _reader(field.annotation, field.metadata)) is not None:
        settings["type"] = reader
    return Option(flag, default=field.default if field.default_factory is None else None, **settings)


def _reader(annotation: Any, metadata: Any = ()) -> Reader | None:
    """What reads and checks the text of a value of this type; None where any text is one."""
    kind, parts = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        return _reader(parts[0], [part for info in parts[1:] for part in getattr(info, "metadata", [info])])
    if kind in (Union, UnionType):
        if any(get_origin(part) is tuple for part in parts):
            return NUMBER_OR_RANGE
        readers = [_reader(part, metadata) for part in parts if part is not NoneType]
        return None if None in readers else functools.reduce(operator.or_, filter(None, readers))
    if kind is Literal:
        return one_of(*parts)
    if annotation in (int, float):
        ends = {
            ours: getattr(part, theirs)
            for part in metadata
            for theirs, ours in ENDS.items()
            if getattr(part, theirs, None) is not None
        }
        return number(annotation, **ends)
    return None
