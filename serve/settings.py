"""What is served, and how: the arguments of `serve.app.build`, and the options of `cellnet serve`. Free of Ray."""

import ipaddress
import os
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from cellnet.config.choices import EngineName
from cellnet.config.loading import Frozen

CPUS: Final = 0.2
"""What a replica reserves of Ray's CPUs: little, so that all of it starts on a laptop beside other work."""
MACHINE: Final = "how much of the machine it takes"
BOUNDS: Final = "bounds"
GUARD: Final = "who may ask, and what is noted"

LogFormat = Literal["text", "json"]
Replicas = Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]


@dataclass(frozen=True)
class AsOption:
    """How `cellnet serve` asks for a field: by an option of the field's name, type and default, and with this.

    What is on unless told otherwise is turned off by `--no-NAME`.
    """

    help: str = ""
    metavar: str = ""
    heading: str = ""
    name: str = ""
    """Of the option, where it is not the field's."""


def _one_a_cpu() -> int:
    from joblib import cpu_count  # a second of imports, for which `cellnet --help` does not wait

    return min(int(cpu_count()), 4)


def _network(text: str) -> str:
    """An address or a network, as HAProxy reads it."""
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError as error:
        raise ValueError(f"{text!r} is no address and no network, like 10.0.0.7 or 10.0.0.0/8") from error


class ServeArgs(Frozen):
    """What is served, and how much of the machine it may take. Every field is an option of `cellnet serve`."""

    registry: str = Field(default_factory=lambda: os.environ.get("CELLNET_REGISTRY", "registry"))
    """A folder or `s3://bucket/prefix`."""
    bank: Annotated[str | None, AsOption("a bank into which what people correct is written", "BANK")] = None
    """A folder or `s3://bucket/prefix`; left out, the page gives corrections as a table."""
    endpoint_url: str | None = None
    """Another S3 server than Amazon's."""
    trusted_keys: str | None = Field(default_factory=lambda: os.environ.get("CELLNET_TRUSTED_KEYS") or None)
    """A file of public keys; where there is one, only versions that one of them signed are served."""
    classifier: Annotated[str | None, AsOption("(classifier:champion)", "REF")] = None
    """`name@7` or `name:alias`; left out, classifier:champion if there is one. Aliases are followed."""
    regressor: Annotated[str | None, AsOption("(regressor:champion, and regressor-LINEAGE:champion)", "REF")] = None
    """Likewise; left out, regressor:champion if there is one, and the champions of regressor-LINEAGE."""
    challenger: Annotated[
        Annotated[float, Field(ge=0, le=1)] | Literal["shadow"],
        AsOption(
            "share of requests that the alias challenger answers, like 0.1; shadow: it only looks, for the figures",
            "SHARE|shadow",
        ),
    ] = 0.0
    """Share of requests that the aliases `challenger` answer; `shadow`: none, but they see all."""
    poll_s: Annotated[
        float, AsOption("how often each process asks the registry whether an alias has moved (%(default)g)", "S")
    ] = Field(default=2.0, gt=0)
    """How often each replica asks the registry whether an alias has moved."""
    replicas: Annotated[
        Replicas,
        AsOption("processes (one a CPU, at most 4); 1:4 are as many as requests want", "N|MIN:MAX", MACHINE),
    ] = Field(default_factory=_one_a_cpu)
    """Processes that answer; `[least, most]`: as many as the requests in them want. Left out, one a CPU, at most 4."""
    threads: Annotated[
        Annotated[int, Field(ge=1)] | None, AsOption("of each process (the CPUs shared among them)", "N", MACHINE)
    ] = None
    """CPU threads that a replica computes on. Left out, this machine's CPUs shared among the replicas."""
    cpus: Annotated[float, AsOption("what each process reserves of Ray's CPUs (%(default)g)", "N", MACHINE)] = Field(
        default=CPUS, gt=0
    )
    """What a replica reserves of Ray's CPUs; on a cluster, as many as its threads."""
    engine: Annotated[
        EngineName,
        AsOption("what runs the models (the fastest)", "{auto,onnxruntime,openvino,torch}", MACHINE),
    ] = "auto"
    """What runs the models; `auto` is the fastest that is installed."""
    overlays: Annotated[bool, AsOption("no process that draws pictures, to save memory", heading=MACHINE)] = True
    """Whether pictures of what was counted where are drawn, by a process of its own."""
    max_request_mb: Annotated[float, AsOption("of a request (%(default)g)", "MB", BOUNDS)] = Field(default=64, gt=0)
    max_images: Annotated[int, AsOption("in a request, each page being one (%(default)s)", "N", BOUNDS)] = Field(
        default=64, ge=1
    )
    """In a request, and pages of a file."""
    max_megapixels: Annotated[float, AsOption("of an image (%(default)g)", "MP", BOUNDS)] = Field(
        default=100, gt=0, le=100
    )
    """Of an image."""
    max_queue: Annotated[int, AsOption("requests in a process at a time (%(default)s)", "N", BOUNDS)] = Field(
        default=128, ge=1
    )
    """Requests in a replica at a time; more are told to come again."""
    max_seconds: Annotated[float, AsOption("from a request to its answer (%(default)g)", "S", BOUNDS)] = Field(
        default=60, gt=0
    )
    """From the beginning of a request to its answer."""
    max_labels: Annotated[int, AsOption("that a key may write in a day (%(default)s)", "N", BOUNDS)] = Field(
        default=10_000, ge=1
    )
    """Labels that each key may write in a day, or all who come without one."""
    max_label_mb: Annotated[float, AsOption("of labelled images of a key in a day (%(default)g)", "MB", BOUNDS)] = (
        Field(default=10_000, gt=0)
    )
    """Megabytes of images that each key may label in a day."""
    api_keys: Annotated[
        str | None,
        AsOption("keys, one a line, of which requests must hold one (CELLNET_API_KEYS: keys)", "FILE", GUARD),
    ] = None
    """A file of API keys, one a line; CELLNET_API_KEYS holds others, between commas. With none, everybody may ask."""
    cors: Annotated[
        tuple[str, ...],
        AsOption("another web page that may call it, like https://lab.example", "ORIGIN", GUARD),
    ] = ()
    """Origins of other web pages that may call it, like https://lab.example."""
    hosts: Annotated[
        tuple[str, ...],
        AsOption(
            "another name that it is asked by, like lab.example of a proxy on this machine",
            "NAME",
            GUARD,
            "--allow-host",
        ),
    ] = ()
    """Names that it answers to; left out, any. `cellnet serve` on this machine alone: its own names and these."""
    trusted_proxies: Annotated[
        tuple[Annotated[str, AfterValidator(_network)], ...],
        AsOption(
            "a proxy before it, address or network, that says by X-Forwarded-For whom it asks for",
            "ADDRESS",
            GUARD,
            "--trusted-proxy",
        ),
    ] = ()
    """Proxies before it whose X-Forwarded-For is believed, like 10.0.0.7 or 10.0.0.0/8: clients have shares by it."""
    log_requests: Annotated[bool, AsOption("a line of JSON a request", heading=GUARD)] = False
    """Whether each request is a line of JSON in the replica's log."""
    log_format: Annotated[
        LogFormat, AsOption("json: whatever is logged is a line of JSON, with its request's id", heading=GUARD)
    ] = "text"
    """How the rest of the log is written: `json` is an object a line, with the request's id."""
