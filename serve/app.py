"""The Ray Serve application: `serve run serve.app:build registry=FOLDER`, or `cellnet serve --registry FOLDER`.

    service      answers over HTTP: decodes, batches and runs the models (`serve.service`); as many processes as asked
    overlays     draws what was counted where (`serve.overlays`), in torch

No `from __future__ import annotations` here: Ray Serve reads the type of `build`'s argument.
"""

import contextlib
import errno
import io
import logging
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from joblib import cpu_count
from ray import serve
from ray.serve import Application

from cellnet.bank.bank import Bank
from cellnet.errors import ConfigError
from cellnet.prediction.engines import load_model
from cellnet.prediction.lineup import resolve_models, strangers
from cellnet.registry.registry import Registry
from cellnet.registry.signing import load_trusted
from cellnet.store.place import Place
from serve import haproxy
from serve.corrections import Corrections
from serve.haproxy_rules import EDGE
from serve.http.keys import load_keys
from serve.limits import Limits
from serve.overlays import Overlays
from serve.service import Service
from serve.settings import CPUS, ServeArgs

__all__ = ["ServeArgs", "build", "check_port", "serve_forever", "shut_down"]

log = logging.getLogger(__name__)

APPLICATION: Final = "cellnet"
ABOVE: Final = 2
"""How many times its own queue a replica is given, so that it is the one that says that it is busy."""
BUSY: Final = 4
"""Requests that keep a replica busy: one is computed, one is read, and others are on their way."""
HEALTH_S: Final = 2.0
"""How often each process is asked whether it is well: after three times that it is not, it is started anew."""
ANSWER_S: Final = 30.0
"""How long a service that has started may take until it answers."""
LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
ENVIRONMENT: Final = {
    "OMP_NUM_THREADS": "1",  # the engine has threads of its own, and small matrices want none
    "GRPC_ENABLE_FORK_SUPPORT": "0",  # which says on the terminal that it does nothing
}
QUIET: Final = {"log_level": "ERROR", "enable_access_log": False}


def build(args: ServeArgs) -> Application:
    """The application over the models that the registry holds: both, or the one that is there.

    The models are loaded once here, so that a wrong reference or damaged files stop it before anything is deployed.
    Raises NotFoundError, ConfigError, IntegrityError or UntrustedError.
    """
    return _application(args)[0]


def _application(args: ServeArgs) -> tuple[Application, list[str]]:
    """Likewise, and which versions the models are."""
    trusted = load_trusted(Path(args.trusted_keys)) if args.trusted_keys else ()
    registry = Registry.open(Place(args.registry, args.endpoint_url), trusted=trusted)
    models = resolve_models(registry, args.classifier, args.regressor)
    if pair := strangers(models.classifier, models.regressor):
        log.warning("%s", pair)
    for version in models:
        load_model(registry, version, engine=args.engine)
    most = args.replicas if isinstance(args.replicas, int) else args.replicas[1]
    threads = args.threads or max(1, cpu_count() // most)
    small: dict[str, Any] = {"num_cpus": CPUS, "runtime_env": {"env_vars": ENVIRONMENT}}
    reserved = small | {"num_cpus": args.cpus}
    overlays = serve.deployment(Overlays, name="overlays").options(ray_actor_options=small, max_ongoing_requests=1)
    drawing: dict[str, Any] = {"registry": registry, "threads": threads, "log_format": args.log_format}
    service = serve.deployment(serve.ingress()(Service), name="service").options(
        max_ongoing_requests=ABOVE * args.max_queue,
        ray_actor_options=reserved,
        graceful_shutdown_timeout_s=args.max_seconds,  # for what it has begun
        graceful_shutdown_wait_loop_s=0.2,
        health_check_period_s=HEALTH_S,
        **_scale(args),
    )
    application = service.bind(
        registry=registry,
        classifier=args.classifier,
        regressor=args.regressor,
        challenge=args.challenger,
        engine=args.engine,
        threads=threads,
        poll_s=args.poll_s,
        limits=Limits(
            request_mb=args.max_request_mb,
            images=args.max_images,
            megapixels=args.max_megapixels,
            queue=args.max_queue,
            seconds=args.max_seconds,
        ),
        keys=load_keys(Path(args.api_keys) if args.api_keys else None),
        origins=args.cors,
        hosts=args.hosts,
        proxies=args.trusted_proxies,
        log_requests=args.log_requests,
        log_format=args.log_format,
        overlays=overlays.bind(**drawing) if args.overlays else None,
        corrections=_corrections(args, small),
    )
    return application, [version.ref for version in models]


def _corrections(args: ServeArgs, small: dict[str, Any]) -> Application | None:
    """What writes labels into the bank, which must be there."""
    if args.bank is None:
        return None
    place = Place(args.bank, args.endpoint_url)
    Bank.open(place)
    writing = serve.deployment(Corrections, name="corrections").options(ray_actor_options=small, max_ongoing_requests=8)
    return writing.bind(bank=place, most_labels=args.max_labels, most_mb=args.max_label_mb, log_format=args.log_format)


def _scale(args: ServeArgs) -> dict[str, Any]:
    """How many replicas there are: one more where each has more requests than keep it busy."""
    if isinstance(args.replicas, int):
        return {"num_replicas": args.replicas}
    least, most = args.replicas
    if least > most:
        raise ConfigError(f"replicas takes the least and the most, not [{least}, {most}]")
    scaling = {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": BUSY}
    return {"autoscaling_config": scaling | {"upscale_delay_s": 5, "downscale_delay_s": 120}}


def serve_forever(
    args: ServeArgs,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    block: bool = True,
    connect: Callable[[], None] = lambda: None,
    announce: Callable[[str, Sequence[str]], None] = lambda address, models: None,
    stopping: Callable[[], None] = lambda: None,
) -> str:
    """Serve at `http://HOST:PORT` until Ctrl-C or SIGTERM; if not `block`, return that address at once.

    `connect` brings up Ray, if this process has none yet; `announce` is called with the address, and with the versions
    that it began with, as soon as it answers, and `stopping` when it is to end. Raises ConfigError for a port in use,
    and what `build` raises, before anything is started; and for a service that does not come up.
    """
    check_port(host, port)
    if host in LOOPBACK or host == "::1":
        args = args.model_copy(update={"hosts": (*LOOPBACK, *args.hosts)})
    application, models = _application(args)
    connect()
    if block:  # from here on, since Ray's own handler of SIGTERM aborts
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        try:
            serve.start(http_options={"host": host, "port": port}, logging_config=QUIET)
            serve.run(application, name=APPLICATION, route_prefix="/", logging_config=QUIET)
        except (RuntimeError, TimeoutError) as error:  # with the traceback of a replica in it, or of a busy machine
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            last = lines[-1] if lines else "Ray Serve says no more"
            raise ConfigError(f"the service does not start: {last}; put that right, or try again") from error
        _check_answer(host, port)
        announce(f"http://{host}:{port}", models)
        if block:
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
    except BaseException:
        shut_down()
        raise
    if block:
        stopping()
        shut_down()
    return f"http://{host}:{port}"


def _check_answer(host: str, port: int) -> None:
    """Wait until this port answers, and HAProxy has been told what to heed. Raises ConfigError where it is not it.

    A Ray Serve that ran before keeps its own port.
    """
    deadline = time.monotonic() + ANSWER_S
    try:
        urllib.request.urlopen(f"http://{host}:{port}/healthz", timeout=ANSWER_S).close()
        while haproxy.is_used() and not _is_told(host, port) and time.monotonic() < deadline:
            time.sleep(0.1)
    except OSError as error:
        raise ConfigError(
            f"the Ray Serve of this cluster does not answer at {host}:{port}, since it was started with other "
            "settings; use its port, or deploy with: serve deploy infra/serve.yaml"
        ) from error


def _is_told(host: str, port: int) -> bool:
    """Whether the HAProxy there knows proxies and names: until then it says 503 of this path, and 404 after."""
    try:
        urllib.request.urlopen(f"http://{host}:{port}{EDGE}", timeout=ANSWER_S).close()
    except urllib.error.HTTPError as error:
        with error:
            return error.code != HTTPStatus.SERVICE_UNAVAILABLE
    return True


def shut_down() -> None:
    """Stop serving, after what has begun is answered; other applications of the cluster go on."""
    with contextlib.redirect_stdout(io.StringIO()):  # where Ray reports the controller's end as a failure
        serve.delete(APPLICATION)
        if not set(serve.status().applications) - {APPLICATION}:
            serve.shutdown()  # alone it would end HAProxy before the requests in it


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
