"""What surrounds every request: its id, the names and keys, the limits, the figures, the log, headers for browsers.

Plain ASGI, since it is passed by every request.
"""

import asyncio
import json
import logging
import re
import time
import uuid
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cellnet.errors import plain
from serve import haproxy_rules, logs
from serve.http.keys import Key, accepted
from serve.http.problems import problem
from serve.limits import Held, Limits, Share, busy
from serve.logs import access_log, beginning
from serve.meters import Meters

log = logging.getLogger(__name__)

PAGES: Final = frozenset({"/", "/docs", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/openapi.json"})
UNBOUNDED: Final = frozenset(haproxy_rules.UNBOUNDED)
HEALTH: Final = UNBOUNDED - {"/metrics"}
OPEN: Final = PAGES | HEALTH
"""Paths that ask for no key: they tell nothing of images or models."""
SAFE: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


class Surroundings:
    """The application, with all that."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: Limits,
        meters: Meters,
        keys: tuple[Key, ...] = (),
        hosts: tuple[str, ...] = (),
        origins: tuple[str, ...] = (),
        behind_haproxy: bool = False,
    ) -> None:
        self._app = app
        self._behind_haproxy = behind_haproxy
        self._limits = limits
        self._meters = meters
        self._keys = keys
        self._hosts = tuple(host.lower() for host in hosts)
        self._origins = frozenset(origins)
        self._held = Held(limits.held_mb * 1e6, meters.refused.labels("memory").inc)
        self._requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, path, started = Headers(scope=scope), _path(scope), time.perf_counter()
        state = scope.setdefault("state", {})
        state["request_id"] = request_id = _request_id(headers)
        token = logs.request_id.set(request_id)
        state["share"] = share = Share(self._held)
        state["key"] = key = accepted(headers, self._keys)
        state["known"] = key is not None
        state["client"] = _client(scope, headers, self._behind_haproxy)
        answered: dict[str, Any] = {"status": None}
        reading = _Reading(receive, self._limits, self._meters)

        async def sender(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered["status"] = message["status"]
                given = MutableHeaders(scope=message)
                for name, value in SAFE.items():
                    given.setdefault(name, value)
                if headers.get("x-request-id") != request_id:  # else it is known, and Ray Serve says it again
                    given["X-Request-ID"] = request_id
            await send(message)

        self._requests += 1
        self._meters.in_flight.set(self._requests)
        try:
            refusal = self._refusal(path, headers, key)
            if refusal:
                await problem(refusal.status_code, refusal.detail, refusal.headers, request_id)(scope, receive, sender)
                return
            try:
                async with asyncio.timeout(self._limits.seconds):
                    await self._app(scope, reading, sender)
            except TimeoutError:
                if answered["status"] is not None:
                    raise
                await self._too_late(reading.finished, request_id)(scope, receive, sender)
        except ClientDisconnect:
            pass  # nobody is there to be told
        except Exception:
            log.exception("%s %s failed", plain(scope["method"]), plain(path))
            if answered["status"] is not None:
                raise
            await problem(500, "the service failed; its log says why", None, request_id)(scope, receive, sender)
        finally:
            self._requests -= 1
            self._meters.in_flight.set(self._requests)
            share.give_back()
            self._note(scope, path, answered["status"], time.perf_counter() - started)
            logs.request_id.reset(token)

    def _refusal(self, path: str, headers: Headers, key: Key | None) -> HTTPException | None:
        """Why a request is turned away before any of it is read."""
        if path == haproxy_rules.EDGE:
            return None  # HAProxy asks by an address, and lets nobody else
        host = _host(headers)
        if self._hosts and host not in self._hosts:
            self._meters.refused.labels("host").inc()
            names = ", ".join(self._hosts)
            detail = f"this service is called {names}, not {host!r:.80}; start it with --allow-host to add a name"
            return HTTPException(421, detail)
        if path not in OPEN and not self._let_in(headers):
            self._meters.refused.labels("site").inc()
            origin = headers.get("origin", "another site")
            detail = f"web pages of {origin:.80} may not ask this service; start it with --cors ORIGIN to let them"
            return HTTPException(403, detail)
        if key is None and path not in OPEN:
            self._meters.refused.labels("key").inc()
            return HTTPException(
                401, "this service asks for an API key: Authorization: Bearer KEY", {"WWW-Authenticate": "Bearer"}
            )
        scope = "label" if path == haproxy_rules.LABELS else "predict"
        if key and scope not in key.scopes and path not in OPEN:
            self._meters.refused.labels("key").inc()
            return HTTPException(403, f"this API key may not {scope}; its line needs the scope: NAME {scope} KEY")
        if self._requests > self._limits.queue and path not in UNBOUNDED:
            self._meters.refused.labels("queue").inc()
            return busy(f"the service is busy with {self._limits.queue} requests")
        return None

    def _let_in(self, headers: Headers) -> bool:
        """Whether no web page of another site asks, or one that was named; only browsers say which asks."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if "*" in self._origins or origin in self._origins:
            return True
        if site is not None:
            return site.strip().lower() in ("same-origin", "none")
        return origin is None or _netloc(origin) == headers.get("host", "").lower()

    def _too_late(self, whole: bool, request_id: str) -> ASGIApp:
        """The answer to a request whose time is over."""
        limit = f"{self._limits.seconds:g} s"
        if not whole:
            self._meters.refused.labels("slow").inc()
            detail = f"the request did not arrive within {limit}; send fewer images at a time"
            return problem(408, detail, {"Connection": "close"}, request_id)
        self._meters.refused.labels("time").inc()
        detail = f"the answer took longer than {limit}; send fewer images at a time, or try again"
        return problem(504, detail, None, request_id)

    def _note(self, scope: Scope, path: str, status: int | None, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other") if status != 404 else "other"
        self._meters.requests.labels(route, str(status or 499)).inc()  # 499: the client went away
        self._meters.request_seconds.labels(route).observe(seconds)
        if access_log.isEnabledFor(logging.INFO):
            state = scope["state"]
            line = beginning(logging.INFO) | {
                "method": scope["method"],
                "path": path,
                "route": route,
                "status": status or 499,
                "ms": round(1e3 * seconds, 2),
                "client": state["client"],
                **({"key": state["key"].name} if state["key"] and state["key"].name else {}),
                **state.get("noted", {}),
            }
            access_log.info(json.dumps(line))


class _Reading:
    """What a request sends, and whether that was all. Raises HTTPException 408 where it comes too slowly."""

    def __init__(self, receive: Receive, limits: Limits, meters: Meters) -> None:
        self._receive = receive
        self._limits = limits
        self._meters = meters
        self._bytes = 0
        self._until: float | None = None
        self.finished = False

    async def __call__(self) -> Message:
        if self.finished:
            return await self._receive()
        if self._until is None:
            self._until = asyncio.get_running_loop().time() + self._limits.arrival_s
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError as error:
            self._meters.refused.labels("slow").inc()
            rate = f"{self._limits.arrival_bytes / 1024:.0f} kB in {self._limits.arrival_s:g} s"
            detail = f"the request arrives too slowly, which is under {rate}; send it again, or fewer images at a time"
            raise HTTPException(408, detail, {"Connection": "close"}) from error
        self._bytes += len(message.get("body", b""))
        if self._bytes >= self._limits.arrival_bytes:
            self._bytes, self._until = 0, None
        self.finished = not message.get("more_body", False)
        return message


def _path(scope: Scope) -> str:
    """The path below the service's own."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "").rstrip("/")) or "/"


def _netloc(origin: str) -> str | None:
    """The name and port of an origin; None of what is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _host(headers: Headers) -> str:
    """What the service is called by whoever asks, without its port."""
    return re.sub(r":\d*$", "", headers.get("host", "")).lower()


def _client(scope: Scope, headers: Headers, behind_haproxy: bool) -> str:
    """The address of whoever asks. HAProxy writes it into X-Forwarded-For, in place of what the client wrote there."""
    said = headers.get("x-forwarded-for") if behind_haproxy else None
    address: str = said or (scope.get("client") or ("",))[0]
    return address


def _request_id(headers: Headers) -> str:
    """What the client calls the request, if that is short and plain, else a new name."""
    given = headers.get("x-request-id", "")
    return given if re.fullmatch(r"[A-Za-z0-9._:/+=-]{1,128}", given) else uuid.uuid4().hex
