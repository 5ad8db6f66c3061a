"""The Ray Serve application: `serve run serve.app:build registry=FOLDER`, or `cellnet serve --registry FOLDER`.

    Api          (gateway, over api) reads, bounds and decodes what is sent, then asks the models
    classifier   (replica) the model that names the lineage
    regressor    (replica) the model that counts

No `from __future__ import annotations` here: Ray Serve reads the type of `build`'s argument.
"""

import contextlib
import errno
import io
import logging
import os
import signal
import socket
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pydantic import Field
from ray import serve
from ray.serve import Application

from cellnet.config import DEFAULT_NAMES, Frozen
from cellnet.errors import ConfigError
from cellnet.predictor import Predictor, resolve_models
from cellnet.registry import Registry
from cellnet.signing import load_trusted
from serve.gateway import Api
from serve.replica import Replica
from serve.uploads import Limits

APPLICATION: Final = "cellnet"
CPUS: Final = 0.2
"""What a replica reserves of Ray's CPUs: little, so that all of it starts on a laptop beside other work."""
QUEUE: Final = 16
"""Requests that a replica takes at a time; more wait in the caller."""
QUIET: Final = {"log_level": "ERROR", "enable_access_log": False}


class ServeArgs(Frozen):
    """What is served, and how much of the machine it may take."""

    registry: str = Field(default_factory=lambda: os.environ.get("CELLNET_REGISTRY", "registry"))
    """A folder or `s3://bucket/prefix`."""
    endpoint_url: str | None = None
    """Another S3 server than Amazon's."""
    trusted_keys: str | None = Field(default_factory=lambda: os.environ.get("CELLNET_TRUSTED_KEYS") or None)
    """A file of public keys; where there is one, only versions that one of them signed are served."""
    classifier: str | None = None
    """`name@7` or `name:alias`; left out, classifier:champion if there is one."""
    regressor: str | None = None
    """Likewise; left out, regressor:champion if there is one."""
    replicas: int = Field(default=1, ge=1)
    """Processes a model."""
    threads: int = Field(default=1, ge=1)
    """CPU threads a replica."""
    max_request_mb: float = Field(default=64, gt=0)
    max_images: int = Field(default=64, ge=1)


def build(args: ServeArgs) -> Application:
    """The application over the models that the registry holds: both, or the one that is there.

    The models are loaded once here, so that a wrong reference or damaged weights stop it before anything is
    deployed, and every replica serves the same version. Raises NotFoundError, ConfigError, IntegrityError or
    UntrustedError.
    """
    trusted = load_trusted(Path(args.trusted_keys)) if args.trusted_keys else ()
    registry = Registry.open(args.registry, endpoint_url=args.endpoint_url, trusted=trusted)
    refs = _refs(registry, args)
    limits = Limits(request_mb=args.max_request_mb, images=args.max_images)
    small = {"num_cpus": CPUS}
    replica = serve.deployment(Replica).options(
        num_replicas=args.replicas, max_ongoing_requests=QUEUE, ray_actor_options=small
    )
    models = [
        replica.options(name=role).bind(registry=registry, ref=ref, threads=args.threads) for role, ref in refs.items()
    ]
    ingress = serve.deployment(serve.ingress()(Api), name="Api")
    return ingress.options(max_ongoing_requests=QUEUE, ray_actor_options=small).bind(models, limits)


def _refs(registry: Registry, args: ServeArgs) -> dict[str, str]:
    """The versions, `name@number`, by role; each can be loaded and does what its role asks."""
    refs = resolve_models(registry, args.classifier, args.regressor)
    for task, role in DEFAULT_NAMES.items():
        if role in refs and (found := Predictor.load(registry, refs[role]).task) != task:
            raise ConfigError(f"{refs[role]} is a model to {found}, not to {task}; give another reference as {role}")
    return refs


def serve_forever(
    args: ServeArgs,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    block: bool = True,
    connect: Callable[[], None] = lambda: None,
    announce: Callable[[str], None] = lambda address: None,
) -> str:
    """Serve at `http://HOST:PORT` until Ctrl-C or SIGTERM; if not `block`, return that address at once.

    `connect` brings up Ray, if this process has none yet; `announce` is called with the address as soon as it
    answers. Raises ConfigError for a port in use, and what `build` raises, before anything is started.
    """
    check_port(host, port)
    application = build(args)
    connect()
    if block:  # from here on, since Ray's own handler of SIGTERM aborts
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        serve.start(http_options={"host": host, "port": port}, logging_config=QUIET)
        serve.run(application, name=APPLICATION, route_prefix="/", logging_config=QUIET)
        _check_answer(host, port)
        announce(f"http://{host}:{port}")
        if block:
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
    except BaseException:
        shut_down()
        raise
    if block:
        shut_down()
    return f"http://{host}:{port}"


def _check_answer(host: str, port: int) -> None:
    """Raise ConfigError unless it is this port that answers: a Ray Serve that ran before keeps its own."""
    try:
        urllib.request.urlopen(f"http://{host}:{port}/healthz", timeout=30).close()
    except OSError as error:
        raise ConfigError(
            f"the Ray Serve of this cluster does not answer at {host}:{port}, since it was started with other "
            "settings; use its port, or deploy with: serve deploy infra/serve.yaml"
        ) from error


def shut_down() -> None:
    """Stop serving; other applications of the cluster go on."""
    with contextlib.redirect_stdout(io.StringIO()):  # where Ray reports the controller's end as a failure
        if set(serve.status().applications) - {APPLICATION}:
            serve.delete(APPLICATION)
        else:
            serve.shutdown()


def check_port(host: str, port: int) -> None:
    """Raise ConfigError unless the port can be listened on."""
    if not 1 <= port <= 65535:
        raise ConfigError(f"{port} is not a port; choose one of 1 to 65535 with --port N")
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {port} is in use; choose another with --port N") from error
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from error
